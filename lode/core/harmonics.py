"""Real spherical harmonics, without Condon-Shortley phase.

Index legend: v vector, m harmonic, at l * l + l + m. Vectors stand side by side in
registers.
"""

import math

import numpy as np

from lode.core.compilation import CONTRACT, compiled
from lode.core.registers import LANES, load, store, whole_lanes


@compiled
def harmonic_factors(l_max):
    """Constants of the recurrences of the normalised Legendre functions.

    Returns
    -------
    factors : ndarray (2, (l_max + 1)**2)
        P_lm = factors[0] (z P_(l-1)m - factors[1] P_(l-2)m); the diagonal holds
        P_mm / sin^m, times √2 for m > 0.
    """
    factors = np.zeros((2, (l_max + 1) ** 2))
    diagonal = 1.0 / math.sqrt(4.0 * math.pi)
    for m in range(l_max + 1):
        if m == 1:
            diagonal *= math.sqrt(3.0)
        elif m > 1:
            diagonal *= math.sqrt((2 * m + 1) / (2.0 * m))
        factors[0, m * m + 2 * m] = diagonal
        for l in range(m + 1, l_max + 1):
            at = l * l + l + m
            factors[0, at] = math.sqrt((4.0 * l * l - 1) / (l * l - m * m))
            if l > m + 1:
                lower = l - 1.0
                factors[1, at] = math.sqrt(
                    (lower * lower - m * m) / (4 * lower * lower - 1)
                )
    return factors


@compiled(fastmath=CONTRACT)
def write_harmonics(unit_xv, v, l_max, factors, y_mv):
    """Write the harmonics of as many unit vectors, from v on, as there are lanes."""
    x = load(unit_xv, 0, v)
    y = load(unit_xv, 1, v)
    z = load(unit_xv, 2, v)
    zero = 0.0 * x
    cosine = zero + 1.0
    sine = zero
    for m in range(l_max + 1):
        before = zero
        value = zero + factors[0, m * m + 2 * m]
        # For m = 0 the cosine stands in the same place and is written last.
        store(value * sine, y_mv, m * m, v)
        store(value * cosine, y_mv, m * m + 2 * m, v)
        for l in range(m + 1, l_max + 1):
            at = l * l + l + m
            after = factors[0, at] * (z * value - factors[1, at] * before)
            before = value
            value = after
            store(value * sine, y_mv, at - 2 * m, v)
            store(value * cosine, y_mv, at, v)
        rotated = cosine * x - sine * y
        sine = sine * x + cosine * y
        cosine = rotated


@compiled
def harmonics(vector_vx, l_max):
    """Real spherical harmonics of directions.

    Parameters
    ----------
    vector_vx : ndarray (n, 3)
        Of any length; a zero vector counts as (0, 0, 1).
    l_max : int

    Returns
    -------
    ndarray ((l_max + 1)**2, n)
    """
    n = vector_vx.shape[0]
    unit_xv = np.zeros((3, whole_lanes(n)))
    for v in range(n):
        x, y, z = vector_vx[v, 0], vector_vx[v, 1], vector_vx[v, 2]
        r = math.sqrt(x * x + y * y + z * z)
        for i in range(3):
            unit_xv[i, v] = vector_vx[v, i] / r if r > 0.0 else i // 2
    factors = harmonic_factors(l_max)
    y_mv = np.empty(((l_max + 1) ** 2, unit_xv.shape[1]))
    for v in range(0, n, LANES):
        write_harmonics(unit_xv, v, l_max, factors, y_mv)
    return y_mv[:, :n]
