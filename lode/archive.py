"""Files of arrays with a header: written whole or not at all, refused if foreign.

A digest of all that a file holds tells whether any of it was changed. It is no
signature: who writes a file of his own can write its digest, so that those who read
arrays also ask for the shapes, kinds and bounds that they rely on, with
:func:`checked_arrays`.
"""

import hashlib
import json
import math
import os
import zipfile
from typing import NamedTuple

import numpy as np

from lode.files import atomic_write

_HEADER, _DIGEST = "header", "digest"
_REMEDY = "delete it and run again what made it"
# Logical, integer, floating-point and text.
_KINDS = "biufU"
# NumPy writes about 100 characters before an array, and evaluates what it reads there.
_LONGEST_DESCRIPTION = 1000
_DTYPE_KINDS = {"float": "f", "int": "iu", "text": "U"}
# No number of a file may be larger: products of a few still are numbers.
_LARGEST = 1e60
# Least positive number, as a bound.
POSITIVE = float(np.nextafter(0.0, 1.0))
# Larger integers may overflow where they are added.
_LARGEST_INT = 2**62


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

    Raises
    ------
    TypeError
        If an array holds anything else.
    """
    text = json.dumps({"kind": kind, **header}, default=_plain)
    arrays = {_HEADER: np.array(text)} | {k: np.asarray(a) for k, a in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"{name} must hold numbers or text, got {array.dtype}")
    arrays[_DIGEST] = np.array(_digest(arrays))
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_archive(path, kind, version=None):
    """Header and arrays of a file written by :func:`save_archive`.

    Parameters
    ----------
    path : str or path-like
        Name of the file.
    kind : str
        What the file must hold.
    version : int or tuple of int, optional
        And of which version, or versions.

    Returns
    -------
    header : dict
        Plain nested data.
    arrays : dict of ndarray
        All arrays, as they were saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, damaged, of another kind or of another version.
    """
    wanted = f"{os.fspath(path)} must be a complete {kind} file written by lode"
    try:
        # Opened here: a file that is no archive is closed as well.
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            arrays = _arrays(archive, os.fstat(file.fileno()).st_size)
        digest = str(arrays.pop(_DIGEST, ""))
        is_whole = digest == _digest(arrays)
        header = json.loads(str(arrays.pop(_HEADER, "null")))
    except FileNotFoundError:
        raise
    except Exception as error:
        # Readers of zip, npy and JSON raise many kinds of errors for damaged bytes:
        # NotImplementedError, RecursionError, TokenError, struct.error, zlib.error ...
        raise ValueError(
            f"{wanted}, got {type(error).__name__}: {error}; {_REMEDY}"
        ) from None
    if not isinstance(header, dict) or "kind" not in header:
        raise ValueError(f"{wanted}, got an npz file without a header")
    if header["kind"] != kind:
        raise ValueError(f"{wanted}, got a {header['kind']} file")
    versions = version if isinstance(version, tuple) else (version,)
    if version is not None and header.get("version") not in versions:
        raise ValueError(
            f"{os.fspath(path)} must be a {kind} file of version "
            f"{' or '.join(map(str, versions))}, got version {header.get('version')}"
        )
    if not is_whole:
        state = "changed since: its digest differs" if digest else "without a digest"
        raise ValueError(f"{wanted}, got one {state}; {_REMEDY}")
    return header, arrays


def _arrays(archive, size):
    """Arrays of an open npz file of so many bytes, none larger than it is there."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise ValueError("names must differ, got one twice")
    # Stored as they are, arrays take no more memory than the file.
    if sum(member.file_size for member in members) > size:
        raise ValueError(f"arrays must be smaller than their file of {size} bytes")
    arrays = {}
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename} must not be compressed")
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"arrays must be of npy version 1.0, got {version}")
            shape, _, dtype = np.lib.format.read_array_header_1_0(
                stream, max_header_size=_LONGEST_DESCRIPTION
            )
            if dtype.kind not in _KINDS or dtype.itemsize == 0:
                raise ValueError(f"arrays must hold numbers or text, got {dtype}")
            n_bytes = stream.tell() + math.prod(shape) * dtype.itemsize
            if n_bytes != member.file_size or min(shape, default=0) < 0:
                raise ValueError(
                    f"an array of shape {shape} must take {n_bytes} bytes, got "
                    f"{member.file_size}"
                )
            stream.seek(0)
            array = np.lib.format.read_array(
                stream, allow_pickle=False, max_header_size=_LONGEST_DESCRIPTION
            )
        arrays[member.filename.removesuffix(".npy")] = array
    return arrays


def _digest(arrays):
    """BLAKE2 of names, types, shapes and contents, in the order of the file."""
    digest = hashlib.blake2b(digest_size=32)
    for name, array in arrays.items():
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


class Wanted(NamedTuple):
    """What an array of a file must be, for :func:`checked_arrays`.

    Attributes
    ----------
    kind : {"float", "int", "text"}
    shape : tuple of int or str
        A name stands for a length that is the same wherever the name is.
    low, high : float
        Bounds of all numbers.
    order : {"any", "distinct", "ascending"}
        Of the entries of a vector; ascending ones are distinct.
    """

    kind: str
    shape: tuple = ()
    low: float = -_LARGEST
    high: float = _LARGEST
    order: str = "any"


def checked_arrays(arrays, wanted, **lengths):
    """Arrays of a file that are as their reader wants them.

    Parameters
    ----------
    arrays : dict of array_like
        What the file holds. Values of its header serve as well.
    wanted : dict of str to Wanted
        What it must hold. Other arrays are left out.
    **lengths : int
        Lengths that are known already, by their names in the shapes.

    Returns
    -------
    dict of ndarray
        Of float64 or float32, int64, and text.

    Raises
    ------
    ValueError
        If an array is missing, has another shape or type, a number is not finite or
        out of bounds, or the order is wrong.
    """
    found = {}
    for name, (kind, shape, low, high, order) in wanted.items():
        if name not in arrays:
            raise ValueError(f"{name} is missing")
        array = np.asarray(arrays[name])
        # An empty list has no kind of its own.
        if array.size and array.dtype.kind not in _DTYPE_KINDS[kind]:
            raise ValueError(f"{name} must be of kind {kind}, got {array.dtype}")
        if array.ndim == len(shape):
            pairs = zip(shape, array.shape, strict=True)
            lengths = {x: n for x, n in pairs if isinstance(x, str)} | lengths
        expected = tuple(lengths.get(x, x) for x in shape)
        if array.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, got {array.shape}")
        if kind != "text" and array.size:
            # Plain numbers: single precision has no bound of 1e60.
            smallest, largest = array.min().item(), array.max().item()
            if kind == "int":
                low, high = max(low, -_LARGEST_INT), min(high, _LARGEST_INT)
            # NaN is within no bounds.
            if not low <= smallest <= largest <= high:
                raise ValueError(
                    f"{name} must be from {low:g} to {high:g}, got {smallest} to "
                    f"{largest}"
                )
        if kind == "int":
            array = array.astype(np.int64, copy=False)
        elif kind == "float" and array.dtype != np.float32:
            array = array.astype(np.float64, copy=False)
        if order != "any" and len(np.unique(array)) < len(array):
            raise ValueError(f"{name} must hold each entry once")
        if order == "ascending" and not (array[1:] > array[:-1]).all():
            raise ValueError(f"{name} must be in ascending order")
        found[name] = array
    return found


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
