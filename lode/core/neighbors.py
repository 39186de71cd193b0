"""Pairs of a centre and an atom, or an image of one, within a limit.

Index legend: j centre, i atom, a channel (whose field an atom adds to), p pair,
g candidate, s structure.
"""

import math
from typing import NamedTuple

import numpy as np

from lode.core.compilation import compiled


class Pairs(NamedTuple):
    """Pairs in the order of the centre and of the channel of its neighbour.

    Attributes
    ----------
    start_ja : ndarray (n_centres * n_channels + 1,) of int
        Where the pairs of a centre and a channel begin; they end where the next begin.
    neighbor_p : ndarray (n_pairs,) of int
        Atom that the neighbour is, or is an image of.
    vector_px : ndarray (n_pairs, 3)
        From the centre to the neighbour, in Å.
    """

    start_ja: np.ndarray
    neighbor_p: np.ndarray
    vector_px: np.ndarray


class Candidates(NamedTuple):
    """Atoms and images, some of which are near a centre.

    Those of a structure and a channel stand together, in the order of a coordinate
    along which a centre sees a part of them.

    Attributes
    ----------
    position_xg : ndarray (3, at least n_candidates)
        In Å.
    key_g : ndarray (at least n_candidates,)
        The coordinate that they are in the order of.
    atom_g : ndarray (at least n_candidates,) of int
        Atom that they are, or are images of.
    start_sa : ndarray (n_structures, n_channels + 1) of int
        Where those of a channel begin; they end where the next begin.
    center_ix : ndarray (n_atoms, 3)
        Positions of the centres.
    center_key_i : ndarray (n_atoms,)
    structure_i : ndarray (n_atoms,) of int
        Structure of each centre.
    key_limit, limit : float
        Largest distance along the coordinate, and in Å.
    expected : float
        About how many pairs a centre has.
    """

    position_xg: np.ndarray
    key_g: np.ndarray
    atom_g: np.ndarray
    start_sa: np.ndarray
    center_ix: np.ndarray
    center_key_i: np.ndarray
    structure_i: np.ndarray
    key_limit: float
    limit: float
    expected: float


@compiled
def images(position_ix, fraction_ix, order_i, lattice, atoms, axis, expected):
    """Atoms of a cell and their images in a shell around it.

    Parameters
    ----------
    position_ix, fraction_ix : ndarray (n_atoms, 3)
        In the cell, Cartesian and fractional.
    order_i : ndarray (n_atoms,) of int
        Atoms in the order of the latter along the axis.
    lattice : tuple
        Cell and inverse (3, 3), which vectors are periods, and the limit: thickness of
        the shell.
    atoms : tuple
        channel_i and weight_i (n_atoms,), n_channels; atoms without a weight are
        skipped.
    axis : int
        Direction of the cell along which the images are in order.
    expected : float
        About how many pairs a centre has.

    Returns
    -------
    Candidates
    """
    cell, inverse, pbc, limit = lattice
    channel_i, weight_i, n_channels = atoms
    n = fraction_ix.shape[0]
    margin_x, shell_x = np.empty(3), np.empty(3)
    reach_x = np.empty(3, dtype=np.int64)
    most = n
    for x in range(3):
        square = inverse[0, x] ** 2 + inverse[1, x] ** 2 + inverse[2, x] ** 2
        # Just beyond the limit, lest rounding decides.
        margin_x[x] = limit * (1.0 + 1e-9) * math.sqrt(square)
        # Where there is no period, all atoms stay and have no images.
        shell_x[x] = margin_x[x] if pbc[x] else math.inf
        reach_x[x] = math.ceil(margin_x[x]) if pbc[x] else 0
        most *= 2 * reach_x[x] + 1
    position_xg = np.empty((3, most))
    key_g, atom_g = np.empty(most), np.empty(most, dtype=np.int64)
    start_sa = np.zeros((1, n_channels + 1), dtype=np.int64)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    g = 0
    for a in range(n_channels):
        # The shift along the axis first, then the atoms: their keys ascend.
        for h in range(-reach_x[axis], reach_x[axis] + 1):
            for o in range(n):
                i = order_i[o]
                if channel_i[i] != a or weight_i[i] == 0.0:
                    continue
                u = fraction_ix[i, axis] + h
                if not -shell_x[axis] <= u <= 1.0 + shell_x[axis]:
                    continue
                for k in range(-reach_x[first], reach_x[first] + 1):
                    v = fraction_ix[i, first] + k
                    if not -shell_x[first] <= v <= 1.0 + shell_x[first]:
                        continue
                    for l in range(-reach_x[second], reach_x[second] + 1):
                        w = fraction_ix[i, second] + l
                        if not -shell_x[second] <= w <= 1.0 + shell_x[second]:
                            continue
                        for x in range(3):
                            shift = h * cell[axis, x] + k * cell[first, x]
                            shift += l * cell[second, x]
                            position_xg[x, g] = position_ix[i, x] + shift
                        key_g[g] = u
                        atom_g[g] = i
                        g += 1
        start_sa[0, a + 1] = g
    centers = (position_ix, fraction_ix[:, axis].copy(), np.zeros(n, dtype=np.int64))
    limits = (margin_x[axis], limit, expected)
    return Candidates(position_xg, key_g, atom_g, start_sa, *centers, *limits)


@compiled
def within(position_xg, begin, end, x_j, y_j, z_j, limit_square, square_g, near_p):
    """Candidates within a limit of a point.

    Parameters
    ----------
    position_xg : ndarray (at least 3, n_candidates)
    begin, end : int
        Candidates that are looked at.
    x_j, y_j, z_j, limit_square : float
    square_g : ndarray (n_candidates,)
        Receives the squares of their distances.
    near_p : ndarray (n_candidates,) of int
        Receives those within the limit.

    Returns
    -------
    int
        How many are within the limit.
    """
    # Distances and choice in loops of their own: the first runs in vector registers,
    # the second has no branch that could be predicted wrongly.
    x = position_xg[0, begin:end]
    y = position_xg[1, begin:end]
    z = position_xg[2, begin:end]
    square = square_g[begin:end]
    for g in range(end - begin):
        square[g] = (x[g] - x_j) ** 2 + (y[g] - y_j) ** 2 + (z[g] - z_j) ** 2
    # Unsigned, as is every index below that Numba would else test for its sign.
    n_near, one, zero = np.uint64(0), np.uint64(1), np.uint64(0)
    for g in range(end - begin):
        near_p[n_near] = begin + g
        n_near += one if square[g] <= limit_square else zero
    return n_near


@compiled
def _first_not_below(key_g, begin, end, key):
    """First of some ascending keys that is not below another."""
    while begin < end:
        middle = (begin + end) // 2
        if key_g[middle] < key:
            begin = middle + 1
        else:
            end = middle
    return begin


@compiled
def _enlarged(neighbor_p, vector_px, count, more):
    """Copies of the arrays of some pairs with room for more."""
    room = 2 * (count + more)
    larger_p, larger_px = np.empty(room, dtype=np.int64), np.empty((room, 3))
    # By loops: NumPy's assignment takes seconds to compile.
    for p in range(count):
        larger_p[p] = neighbor_p[p]
        for x in range(3):
            larger_px[p, x] = vector_px[p, x]
    return larger_p, larger_px


@compiled
def near_pairs(candidates, low, high):
    """Candidates within the limit of the centres low ... high; no centre is its own.

    Parameters
    ----------
    candidates : Candidates
    low, high : int

    Returns
    -------
    Pairs
    """
    position_xg, key_g, atom_g, start_sa = candidates[:4]
    n_channels = start_sa.shape[1] - 1
    limit_square = candidates.limit * candidates.limit
    square_g = np.empty(position_xg.shape[1])
    near_p = np.empty(position_xg.shape[1], dtype=np.uint64)
    start_ja = np.empty((high - low) * n_channels + 1, dtype=np.int64)
    room = math.ceil((high - low) * candidates.expected)
    neighbor_p, vector_px = np.empty(room, dtype=np.int64), np.empty((room, 3))
    count = 0
    for j in range(low, high):
        x_j, y_j, z_j = candidates.center_ix[j]
        key_j, s = candidates.center_key_i[j], candidates.structure_i[j]
        for a in range(n_channels):
            start_ja[(j - low) * n_channels + a] = count
            begin, end = start_sa[s, a], start_sa[s, a + 1]
            if begin == end:
                continue
            begin = _first_not_below(key_g, begin, end, key_j - candidates.key_limit)
            end = _first_not_below(key_g, begin, end, key_j + candidates.key_limit)
            point = (x_j, y_j, z_j, limit_square)
            n_near = within(position_xg, begin, end, *point, square_g, near_p)
            if count + n_near > vector_px.shape[0]:
                neighbor_p, vector_px = _enlarged(neighbor_p, vector_px, count, n_near)
            for p in range(n_near):
                g = near_p[p]
                # The atom itself, and no image of it.
                if atom_g[g] == j and square_g[g] == 0.0:
                    continue
                neighbor_p[count] = atom_g[g]
                vector_px[count, 0] = position_xg[0, g] - x_j
                vector_px[count, 1] = position_xg[1, g] - y_j
                vector_px[count, 2] = position_xg[2, g] - z_j
                count += 1
    start_ja[-1] = count
    return Pairs(start_ja, neighbor_p[:count], vector_px[:count])


@compiled
def sorted_pairs(first_p, second_p, vector_px, limit, atoms, n_atoms):
    """Pairs of a full list in the order of the centre and of its neighbour's channel.

    Parameters
    ----------
    first_p, second_p : ndarray (n_pairs,) of int
        Centre and neighbour, each pair in both directions.
    vector_px : ndarray (n_pairs, 3)
        From the first to the second.
    limit : float
        Pairs further apart are left out.
    atoms : tuple
        As for :func:`images`.
    n_atoms : int

    Returns
    -------
    Pairs
    """
    channel_i, weight_i, n_channels = atoms
    start_ja = np.zeros(n_atoms * n_channels + 1, dtype=np.int64)
    is_near_p = np.zeros(first_p.shape[0], dtype=np.bool_)
    for p in range(first_p.shape[0]):
        x, y, z = vector_px[p, 0], vector_px[p, 1], vector_px[p, 2]
        i = second_p[p]
        if x * x + y * y + z * z <= limit * limit and weight_i[i] != 0.0:
            is_near_p[p] = True
            start_ja[first_p[p] * n_channels + channel_i[i] + 1] += 1
    for s in range(n_atoms * n_channels):
        start_ja[s + 1] += start_ja[s]
    place_ja = start_ja[:-1].copy()
    neighbor_p = np.empty(start_ja[-1], dtype=np.int64)
    sorted_px = np.empty((start_ja[-1], 3))
    for p in range(first_p.shape[0]):
        if is_near_p[p]:
            i = second_p[p]
            at = first_p[p] * n_channels + channel_i[i]
            row = place_ja[at]
            place_ja[at] += 1
            neighbor_p[row] = i
            for x in range(3):
                sorted_px[row, x] = vector_px[p, x]
    return Pairs(start_ja, neighbor_p, sorted_px)
