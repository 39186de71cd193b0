"""Files of arrays with a header: written whole or not at all, refused if foreign."""

import json
import os
import zipfile
import zlib

import numpy as np

from lode.files import atomic_write

_HEADER = "header"


def save_archive(path, kind, header, arrays):
    """Write arrays and a header to one npz file.

    The file is written under a temporary name beside ``path`` and renamed, so an
    interrupted run leaves the old file, or none.

    Parameters
    ----------
    path : str or path-like
        Name of the file; no ending is added.
    kind : str
        What the file holds; :func:`load_archive` asks for it.
    header : dict
        Plain nested data.
    arrays : dict of ndarray
        Numeric or string arrays.
    """
    text = json.dumps({"kind": kind, **header}, default=_plain)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{_HEADER: np.array(text)}, **arrays)


def load_archive(path, kind, version=None):
    """Header and arrays of a file written by :func:`save_archive`.

    Parameters
    ----------
    path : str or path-like
        Name of the file.
    kind : str
        What the file must hold.
    version : int, optional
        And of which version.

    Returns
    -------
    header : dict
        Plain nested data.
    arrays : dict of ndarray
        All arrays, read and verified by their checksums.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, damaged, of another kind or of another version.
    """
    wanted = f"{os.fspath(path)} must be a complete {kind} file written by lode"
    try:
        # Opened here: NumPy leaves a file that is no archive open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(str(arrays.pop(_HEADER)))
        found = header["kind"]
    except FileNotFoundError:
        raise
    except KeyError:
        raise ValueError(f"{wanted}, got an npz file without a header") from None
    except (
        AttributeError,
        EOFError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{wanted}, got {type(error).__name__}: {error}") from None
    if found != kind:
        raise ValueError(f"{wanted}, got a {found} file")
    if version is not None and header.get("version") != version:
        raise ValueError(
            f"{os.fspath(path)} must be a {kind} file of version {version}, got "
            f"version {header.get('version')}"
        )
    return header, arrays


def prefixed(arrays, prefix):
    """Arrays with a prefix before their names."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def without_prefix(arrays, prefix):
    """Arrays whose names begin so, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _plain(value):
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a header must hold plain data, got {type(value).__name__}")
