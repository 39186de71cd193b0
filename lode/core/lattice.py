"""Lattices: reduced cells, inverses, vectors within a sphere.

Index legend: i atom, x direction, n line of lattice vectors that share their first two
indices.
"""

import math

import numpy as np

from lode.core.compilation import compiled

# Squares of larger numbers, and their sums, may overflow.
LARGEST = 1e150
# No lattice has shorter vectors (Å); there would be no end to the images.
SHORTEST = 0.1


@compiled
def all_bounded(values):
    """Whether no number of a flat array is NaN, infinite or larger than LARGEST."""
    bounded = True
    for value in values:
        bounded = bounded and abs(value) <= LARGEST
    return bounded


@compiled
def inverted(cell):
    """Inverse of a cell whose rows are lattice vectors, and its signed volume."""
    inverse = np.empty((3, 3))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            # Column i of the inverse is a_j x a_k over the volume.
            inverse[x, i] = cell[j, y] * cell[k, z] - cell[j, z] * cell[k, y]
    volume = (
        cell[0, 0] * inverse[0, 0]
        + cell[0, 1] * inverse[1, 0]
        + cell[0, 2] * inverse[2, 0]
    )
    if volume != 0.0:
        inverse /= volume
    return inverse, volume


@compiled
def lengths_of(cell):
    """Lengths of the rows of a matrix, (3,)."""
    lengths = np.empty(3)
    for i in range(3):
        lengths[i] = math.sqrt(cell[i, 0] ** 2 + cell[i, 1] ** 2 + cell[i, 2] ** 2)
    return lengths


@compiled
def into_cell(position_ix, cell, charge_i):
    """Positions translated into the cell; its inverse, volume and skewness.

    Parameters
    ----------
    position_ix : ndarray (n_atoms, 3)
    cell : ndarray (3, 3)
        Rows are the lattice vectors.
    charge_i : ndarray (n_atoms,)
        Only checked to be bounded; empty without charges.

    Returns
    -------
    inside_ix : ndarray (n_atoms, 3)
    inverse : ndarray (3, 3)
        Of the cell.
    volume : float
    share : float
        Volume over the product of the edge lengths, one for a right-angled cell; zero
        if an edge is shorter than SHORTEST, NaN if that product overflows.
    bounded : bool
        Whether all positions and charges are, see :func:`all_bounded`.
    """
    inverse, volume = inverted(cell)
    volume = abs(volume)
    lengths = lengths_of(cell)
    share = 0.0
    if min(lengths[0], lengths[1], lengths[2]) >= SHORTEST:
        share = volume / (lengths[0] * lengths[1] * lengths[2])
    n = position_ix.shape[0]
    inside_ix = position_ix.copy()
    for i in range(n):
        for y in range(3):
            turns = np.floor(
                position_ix[i, 0] * inverse[0, y]
                + position_ix[i, 1] * inverse[1, y]
                + position_ix[i, 2] * inverse[2, y]
            )
            for x in range(3):
                inside_ix[i, x] -= turns * cell[y, x]
    bounded = all_bounded(position_ix.ravel()) and all_bounded(charge_i)
    return inside_ix, inverse, volume, share, bounded


@compiled
def fractional(position_ix, inverse):
    """Fractional coordinates in [0, 1).

    Parameters
    ----------
    position_ix : ndarray (n, 3)
        Cartesian.
    inverse : ndarray (3, 3)
        Inverse of the matrix whose rows are the lattice vectors.

    Returns
    -------
    ndarray (n, 3)
    """
    n = position_ix.shape[0]
    inside_ix = np.empty((n, 3))
    for i in range(n):
        for x in range(3):
            f = (
                position_ix[i, 0] * inverse[0, x]
                + position_ix[i, 1] * inverse[1, x]
                + position_ix[i, 2] * inverse[2, x]
            )
            f -= math.floor(f)
            # A tiny negative coordinate is rounded up to one.
            inside_ix[i, x] = f if f < 1.0 else 0.0
    return inside_ix


@compiled
def reduced_cell(cell):
    """Short vectors of the same lattice, shortest first.

    Every vector is shortened by multiples of the others until none can be.

    Parameters
    ----------
    cell : ndarray (3, 3)
        Rows are lattice vectors.

    Returns
    -------
    ndarray (3, 3)
        Spans the same lattice.
    """
    reduced = cell.copy()
    # A lattice needs a handful of rounds; the bound only guards against cycling.
    for _ in range(1000):
        for i in (1, 2, 1):
            a = reduced[i - 1, 0] ** 2 + reduced[i - 1, 1] ** 2 + reduced[i - 1, 2] ** 2
            b = reduced[i, 0] ** 2 + reduced[i, 1] ** 2 + reduced[i, 2] ** 2
            if b < a:
                for x in range(3):
                    swap = reduced[i, x]
                    reduced[i, x] = reduced[i - 1, x]
                    reduced[i - 1, x] = swap
        changed = False
        for i in range(1, 3):
            for j in range(i):
                product = 0.0
                square = 0.0
                for x in range(3):
                    product += reduced[i, x] * reduced[j, x]
                    square += reduced[j, x] * reduced[j, x]
                # The margin keeps a rounding error at one half, as in an fcc
                # lattice, from flipping the vector for ever.
                if abs(product) > (0.5 + 1e-9) * square:
                    multiple = math.floor(product / square + 0.5)
                    for x in range(3):
                        reduced[i, x] -= multiple * reduced[j, x]
                    changed = True
        if not changed:
            break
    return reduced


@compiled
def half_sphere(cell, dual_lengths, radius):
    """Half of the lattice vectors within a sphere, without zero.

    Of v and -v the one is taken whose first index that is not zero is positive.

    Parameters
    ----------
    cell : ndarray (3, 3)
        Rows are the lattice vectors; those of the reciprocal lattice for wave vectors.
    dual_lengths : ndarray (3,)
        Lengths of the columns of its inverse: times the radius, they bound the indices.
    radius : float

    Returns
    -------
    line_nx : ndarray (n_lines, 4) of int
        h, k, first l, number of l.
    top_x : ndarray (3,) of int
        Bounds of the three indices.
    """
    top_x = np.empty(3, dtype=np.int64)
    for x in range(3):
        top_x[x] = math.floor(dual_lengths[x] * radius + 1e-6)
    c_x = cell[2]
    length2 = c_x[0] ** 2 + c_x[1] ** 2 + c_x[2] ** 2
    most = (top_x[0] + 1) * (2 * top_x[1] + 1) - top_x[1]
    line_nx = np.empty((most, 4), dtype=np.int64)
    count = 0
    for h in range(top_x[0] + 1):
        for k in range(-top_x[1] if h > 0 else 0, top_x[1] + 1):
            along, square = 0.0, 0.0
            for x in range(3):
                v = h * cell[0, x] + k * cell[1, x]
                along += v * c_x[x] / length2
                square += v * v
            # |v + l c| <= radius is quadratic in l.
            root2 = along * along - (square - radius * radius) / length2
            if root2 < 0.0:
                continue
            low = math.ceil(-along - math.sqrt(root2))
            high = math.floor(-along + math.sqrt(root2))
            if h == 0 and k == 0:
                low = 1
            if high >= low:
                line_nx[count, 0] = h
                line_nx[count, 1] = k
                line_nx[count, 2] = low
                line_nx[count, 3] = high - low + 1
                count += 1
    return line_nx[:count], top_x


@compiled
def vectors_of(cell, line_nx):
    """Lattice vectors of some lines, (n, 3), one after the other."""
    count = 0
    for n in range(line_nx.shape[0]):
        count += line_nx[n, 3]
    vector_vx = np.empty((count, 3))
    v = 0
    for n in range(line_nx.shape[0]):
        for l in range(line_nx[n, 2], line_nx[n, 2] + line_nx[n, 3]):
            for x in range(3):
                vector_vx[v, x] = (
                    line_nx[n, 0] * cell[0, x]
                    + line_nx[n, 1] * cell[1, x]
                    + l * cell[2, x]
                )
            v += 1
    return vector_vx
