"""Compiled sums over point dipoles: field tensors in real and reciprocal space.

Lengths in Å, Coulomb constant 1. Index suffixes: ``i`` and ``j`` dipole, ``t``
lattice vector, ``k`` wave vector.
"""

import math

import numpy as np

from lode.core.compilation import compiled


@compiled
def real_space(
    positions, cell, inverse, vectors_t, alpha, cutoff, damping, sixth_i, contact, out
):
    """Field tensors of the screened dipoles, and Thole's damping of the bare ones.

    With r from dipole i to an image of dipole j, the field at i of the dipole j is
    the tensor applied to it. The own images of a dipole count, the dipole itself
    does not.

    Parameters
    ----------
    positions : ndarray (n, 3)
    cell, inverse : ndarray (3, 3)
        Rows are lattice vectors, and the inverse of that matrix.
    vectors_t : ndarray (n_vectors, 3)
        All lattice vectors that can bring a pair within the cutoff, where the pair
        is within half a cell along each lattice vector.
    alpha, cutoff : float
        Inverse length of the screening, and the range.
    damping : float
        Thole's a; zero for bare dipoles.
    sixth_i : ndarray (n,)
        Sixth root of the polarisabilities; read only with damping.
    contact : float
        Distance below which two dipoles count as being at the same place.
    out : ndarray (n, 3, n, 3)
        The tensors are added, those of i <= j only.

    Returns
    -------
    first, second : int
        Two dipoles at the same place, or -1.
    """
    n = positions.shape[0]
    first = second = -1
    gauss = 2.0 * alpha / math.sqrt(math.pi)
    d = np.empty(3)
    for i in range(n):
        for j in range(i, n):
            for x in range(3):
                d[x] = positions[j, x] - positions[i, x]
            d_x, d_y, d_z = d[0], d[1], d[2]
            for a in range(3):
                whole = math.floor(
                    d_x * inverse[0, a]
                    + d_y * inverse[1, a]
                    + d_z * inverse[2, a]
                    + 0.5
                )
                for x in range(3):
                    d[x] -= whole * cell[a, x]
            xx = xy = xz = yy = yz = zz = 0.0
            for t in range(vectors_t.shape[0]):
                r_x = d[0] + vectors_t[t, 0]
                r_y = d[1] + vectors_t[t, 1]
                r_z = d[2] + vectors_t[t, 2]
                square = r_x * r_x + r_y * r_y + r_z * r_z
                if square > cutoff * cutoff:
                    continue
                if square < contact * contact:
                    if i != j:
                        first, second = i, j
                    continue
                r = math.sqrt(square)
                tail = gauss * math.exp(-alpha * alpha * square) / square
                screened = math.erfc(alpha * r) / (square * r)
                # erfc(alpha r)/r differentiated once, and twice, over r
                b1 = screened + tail
                b2 = 3.0 * screened / square + tail * (
                    2.0 * alpha * alpha + 3.0 / square
                )
                if damping > 0.0:
                    u = r / (sixth_i[i] * sixth_i[j])
                    au3 = damping * u * u * u
                    missing = math.exp(-au3) / (square * r)
                    b1 -= missing
                    b2 -= 3.0 * (1.0 + au3) * missing / square
                xx += b2 * r_x * r_x - b1
                xy += b2 * r_x * r_y
                xz += b2 * r_x * r_z
                yy += b2 * r_y * r_y - b1
                yz += b2 * r_y * r_z
                zz += b2 * r_z * r_z - b1
            tensor = ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))
            for x in range(3):
                for y in range(3):
                    out[i, x, j, y] += tensor[x][y]
    return first, second


@compiled
def wave_rows(positions, waves_k, alpha, volume):
    """Factor of the reciprocal part of the field tensors, which is -rows @ rows.T.

    Parameters
    ----------
    positions : ndarray (n, 3)
    waves_k : ndarray (n_half, 3)
        One of each two opposite wave vectors. The zero vector is left out, which is
        the boundary condition of a conductor.
    alpha, volume : float

    Returns
    -------
    ndarray (n, 3, 2 * n_half)
    """
    n, n_half = positions.shape[0], waves_k.shape[0]
    rows = np.empty((n, 3, 2 * n_half))
    for h in range(n_half):
        q_x, q_y, q_z = waves_k[h]
        square = q_x * q_x + q_y * q_y + q_z * q_z
        # Both signs of the wave vector
        weight = 8.0 * math.pi / volume / square
        root = math.sqrt(weight * math.exp(-square / (4.0 * alpha * alpha)))
        for i in range(n):
            phase = (
                q_x * positions[i, 0] + q_y * positions[i, 1] + q_z * positions[i, 2]
            )
            c = root * math.cos(phase)
            s = root * math.sin(phase)
            rows[i, 0, 2 * h] = q_x * c
            rows[i, 1, 2 * h] = q_y * c
            rows[i, 2, 2 * h] = q_z * c
            rows[i, 0, 2 * h + 1] = q_x * s
            rows[i, 1, 2 * h + 1] = q_y * s
            rows[i, 2, 2 * h + 1] = q_z * s
    return rows
