"""Files that are whole or absent."""

import contextlib
import os
from pathlib import Path


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
        as it was.

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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
