"""Compiled sums over point dipoles: field tensors in real and reciprocal space.

Lengths in Å, Coulomb constant 1. Index suffixes: ``i`` and ``j`` dipole, ``t``
lattice vector, ``k`` wave vector.
"""

import math

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def lattice_vectors(cell, limits, radius):
    """Lattice vectors within a sphere around the origin.

    Parameters
    ----------
    cell : ndarray (3, 3)
        Rows are lattice vectors.
    limits : ndarray (3,) of int
        Largest multiple of each that can lie in the sphere.
    radius : float

    Returns
    -------
    ndarray (n_vectors, 3)
        Zero among them.
    """
    most = (2 * limits[0] + 1) * (2 * limits[1] + 1) * (2 * limits[2] + 1)
    found = np.empty((most, 3))
    count = 0
    for n0 in range(-limits[0], limits[0] + 1):
        for n1 in range(-limits[1], limits[1] + 1):
            for n2 in range(-limits[2], limits[2] + 1):
                square = 0.0
                for x in range(3):
                    t = n0 * cell[0, x] + n1 * cell[1, x] + n2 * cell[2, x]
                    found[count, x] = t
                    square += t * t
                if square <= radius * radius:
                    count += 1
    return found[:count].copy()


@njit(cache=True, error_model="numpy", nogil=True)
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
            out[i, 0, j, 0] += xx
            out[i, 0, j, 1] += xy
            out[i, 0, j, 2] += xz
            out[i, 1, j, 0] += xy
            out[i, 1, j, 1] += yy
            out[i, 1, j, 2] += yz
            out[i, 2, j, 0] += xz
            out[i, 2, j, 1] += yz
            out[i, 2, j, 2] += zz
    return first, second


@njit(cache=True, error_model="numpy", nogil=True)
def wave_rows(positions, waves_k, alpha, volume):
    """Factor of the reciprocal part of the field tensors, which is -rows @ rows.T.

    Parameters
    ----------
    positions : ndarray (n, 3)
    waves_k : ndarray (n_waves, 3)
        Wave vectors of both signs, or none; each pair is met once, by the one whose
        first component that is not zero is positive. The zero vector is left out,
        which is the boundary condition of a conductor.
    alpha, volume : float

    Returns
    -------
    ndarray (n, 3, 2 * n_half)
    """
    n = positions.shape[0]
    half = np.empty(waves_k.shape[0], dtype=np.int64)
    n_half = 0
    for k in range(waves_k.shape[0]):
        q_x, q_y, q_z = waves_k[k]
        if q_x > 0.0 or (q_x == 0.0 and (q_y > 0.0 or (q_y == 0.0 and q_z > 0.0))):
            half[n_half] = k
            n_half += 1
    rows = np.empty((n, 3, 2 * n_half))
    for h in range(n_half):
        q_x, q_y, q_z = waves_k[half[h]]
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
