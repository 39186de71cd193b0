"""Compiled checks of a periodic structure, of :mod:`lode.systems`."""

import math

import numpy as np
from numba import njit

# Smallest sine-like measure of a cell, |det| / (|a| |b| |c|), still accepted.
_SMALLEST_SHARE = 1e-6


@njit(cache=True, error_model="numpy", nogil=True)
def all_finite(values):
    """Whether no number of a flat array is infinite or NaN."""
    finite = True
    for value in values:
        finite = finite and math.isfinite(value)
    return finite


@njit(cache=True, error_model="numpy", nogil=True)
def into_cell(position_ix, cell, charge_i):
    """Positions translated into the cell, and what is known of it.

    Parameters
    ----------
    position_ix : ndarray (n_atoms, 3)
    cell : ndarray (3, 3)
        Rows are the lattice vectors.
    charge_i : ndarray (n_atoms,)
        Looked at only; perhaps empty.

    Returns
    -------
    inside_ix : ndarray (n_atoms, 3)
    inverse : ndarray (3, 3)
        Of the cell.
    volume : float
    share : float
        Of the volume in that of a box of the same edges.
    valid : bool
        Whether the vectors are independent and all is finite; else the rest has no
        meaning.
    """
    normal = np.empty((3, 3))
    edges = 1.0
    for x in range(3):
        u, v = cell[(x + 1) % 3], cell[(x + 2) % 3]
        normal[x, 0] = u[1] * v[2] - u[2] * v[1]
        normal[x, 1] = u[2] * v[0] - u[0] * v[2]
        normal[x, 2] = u[0] * v[1] - u[1] * v[0]
        edges *= math.sqrt(cell[x, 0] ** 2 + cell[x, 1] ** 2 + cell[x, 2] ** 2)
    determinant = (
        cell[0, 0] * normal[0, 0]
        + cell[0, 1] * normal[0, 1]
        + cell[0, 2] * normal[0, 2]
    )
    n = position_ix.shape[0]
    inside_ix = np.empty((n, 3))
    inverse = np.empty((3, 3))
    volume = abs(determinant)
    # Not a number if an edge is longer than numbers are.
    share = volume / edges if volume > 0.0 else 0.0
    if not share >= _SMALLEST_SHARE:
        return inside_ix, inverse, 0.0, 0.0, False
    for x in range(3):
        for y in range(3):
            inverse[y, x] = normal[x, y] / determinant
    turns = np.empty(3)
    valid = True
    for i in range(n):
        for x in range(3):
            valid = valid and math.isfinite(position_ix[i, x])
            turns[x] = np.floor(
                position_ix[i, 0] * inverse[0, x]
                + position_ix[i, 1] * inverse[1, x]
                + position_ix[i, 2] * inverse[2, x]
            )
        for x in range(3):
            inside_ix[i, x] = position_ix[i, x] - (
                turns[0] * cell[0, x] + turns[1] * cell[1, x] + turns[2] * cell[2, x]
            )
    return inside_ix, inverse, volume, share, valid and all_finite(charge_i)
