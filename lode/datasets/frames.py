"""Frames in extended-xyz files, plain or compressed by gzip.

A compressed file carries a checksum, so that an altered or truncated one is refused. In
a plain file a cut where a frame ends would go unnoticed.
"""

import io

import ase.io
from ase.io.extxyz import _read_xyz_frame

from lode.files import read_text, write_text

_KIND = "extended-xyz"


def write_frames(path, frames):
    """Write frames as extended XYZ, whole or not at all.

    Parameters
    ----------
    path : path_like
        File to write; compressed if its name ends with ``.gz``.
    frames : sequence of ase.Atoms
        With what ``info`` and ``arrays`` hold; eight decimals of each number of an
        array are kept.
    """
    file = io.StringIO()
    ase.io.write(file, frames, format="extxyz")
    write_text(path, file.getvalue())


def read_frames(path):
    """Frames of an extended-xyz file, plain or compressed by gzip.

    Parameters
    ----------
    path : path_like
        File to read; compressed if its name ends with ``.gz``.

    Returns
    -------
    list of ase.Atoms

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or empty.
    """
    text = read_text(path, _KIND).rstrip()
    if not text:
        raise ValueError(f"{path} must hold at least one frame, got none")
    frames = list(_frame_lines(text.split("\n"), path))
    try:
        # Frame by frame: ASE's reader of whole files skips the number of atoms inside
        # an assert, which `python -O` leaves out, and reads on for ever where the
        # number is too large.
        return [_read_xyz_frame(iter(lines), len(lines) - 1) for lines in frames]
    except Exception as error:
        # ASE lets errors of many kinds through, from KeyError to XYZError.
        raise ValueError(
            f"{path} must be a whole {_KIND} file, got {type(error).__name__}: {error}"
        ) from None


def _frame_lines(lines, path):
    """Comment and atoms of each frame, without the number of atoms before them."""
    start = 0
    while start < len(lines):
        try:
            n_atoms = int(lines[start])
        except ValueError:
            n_atoms = 0
        n_lines = max(0, len(lines) - start - 2)
        if not 0 < n_atoms <= n_lines:
            raise ValueError(
                f"{path} must be a whole {_KIND} file: line {start + 1} must be the "
                f"number of atoms of a frame, from 1 to the {n_lines} lines that "
                f"follow its comment, got {lines[start].strip()[:40]!r}"
            )
        end = start + 2 + n_atoms
        yield lines[start + 1 : end]
        start = end
