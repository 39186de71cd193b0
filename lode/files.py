"""Files that are written whole or not at all, and whose damage is noticed."""

import contextlib
import errno
import gzip
import io
import json
import os
import re
import zlib
from pathlib import Path

# Why a file is not written, and what helps.
_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "raise the limit of the size of files (ulimit -f)",
    errno.EROFS: "make its folder writable",
    errno.EACCES: "make its folder writable",
    errno.EPERM: "make its folder writable",
    errno.EIO: "check the disk",
}


@contextlib.contextmanager
def atomic_write(path):
    """Temporary path that takes the place of ``path`` once it is written.

    Parameters
    ----------
    path : path_like
        File to be written; its folder is made if it does not exist.

    Yields
    ------
    Path
        A path in the same folder, with the same suffix. If the block ends well
        it replaces ``path`` in one step, else it is removed and ``path`` stays
        as it was. Only a process that is killed leaves it behind, for
        :func:`remove_leftovers`.

    Raises
    ------
    OSError
        If ``path`` cannot be written: its name, the reason and what helps.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "notes.txt")
    >>> with atomic_write(path) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # The block may also read other files.
        own = map(str, (None, temporary, *temporary.parents))
        if error.errno not in _REMEDIES or str(error.filename) not in own:
            raise
        raise OSError(
            error.errno,
            f"{path} cannot be written: {error.strerror}; {_REMEDIES[error.errno]} and "
            "run again",
        ) from None
    finally:
        # What could not be made need not be removed.
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(path):
    """Remove what processes that were killed have left of a file.

    Parameters
    ----------
    path : path_like
        File that nobody else is writing now; it stays itself.
    """
    path = Path(path)
    name = re.compile(rf"\.{re.escape(path.stem)}\.\d+{re.escape(path.suffix)}")
    for other in path.parent.glob(".*"):
        if name.fullmatch(other.name):
            other.unlink()


def write_text(path, text):
    """Write a text file, whole or not at all.

    Parameters
    ----------
    path : path_like
        File to write. If its name ends with ``.gz`` it is compressed, and carries the
        length and a checksum of the text, which :func:`read_text` verifies.
    text : str
        Its content.
    """
    content = text.encode("utf-8")
    if Path(path).suffix == ".gz":
        # Without the time, so that the same text gives the same bytes.
        content = gzip.compress(content, compresslevel=6, mtime=0)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def read_text(path, kind="text"):
    """Content of a text file, plain or compressed by gzip.

    Parameters
    ----------
    path : path_like
        File to read.
    kind : str
        What it is, for errors.

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a folder, no text, or, compressed, truncated or altered.
    """
    wanted = f"{path} must be a whole {kind} file"
    try:
        content = Path(path).read_bytes()
    except IsADirectoryError:
        raise ValueError(f"{wanted}, got a folder") from None
    try:
        if Path(path).suffix == ".gz":
            # gzip takes an empty file for an empty text.
            if not content:
                raise EOFError("the file is empty")
            content = gzip.decompress(content)
        # Line ends as from a file opened as text.
        return io.StringIO(content.decode("utf-8"), newline=None).read()
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise _damaged(wanted, error) from None


def write_json(path, content, indent=None):
    """Write plain data with a checksum, whole or not at all.

    Parameters
    ----------
    path : path_like
        File to write.
    content : dict
        What JSON can hold; the file has ``crc32`` as well.
    indent : int, optional
        Spaces of each level; by default all is one line.
    """
    content = content | {"crc32": _crc32(content)}
    write_text(path, json.dumps(content, indent=indent) + "\n")


def read_json(path):
    """Data that :func:`write_json` wrote.

    Parameters
    ----------
    path : path_like
        File to read.

    Returns
    -------
    dict

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is truncated, altered or of another form.
    """
    text = read_text(path, "JSON")
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError(f"a {type(content).__name__} instead of names and values")
        if content.pop("crc32", None) != _crc32(content):
            raise ValueError("crc32 is not the checksum of the rest")
    except (RecursionError, TypeError, ValueError) as error:
        raise _damaged(f"{path} must be a whole JSON file", error) from None
    return content


def _crc32(content):
    return zlib.crc32(json.dumps(content).encode("utf-8"))


def _damaged(wanted, error):
    """What is raised for a damaged file."""
    reason = " ".join(str(error).split())
    return ValueError(
        f"{wanted}, got {type(error).__name__}: {reason}; delete it and run again what "
        "made it"
    )
