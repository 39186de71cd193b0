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
    factors : ndarray (3, (l_max + 1)**2)
        P_lm = factors[0] (z P_(l-1)m - factors[1] P_(l-2)m); the diagonal holds
        P_mm / sin^m, times √2 for m > 0. dP_l(m-1)/dz = factors[2] P_lm.
    """
    factors = np.zeros((3, (l_max + 1) ** 2))
    diagonal = 1.0 / math.sqrt(4.0 * math.pi)
    for m in range(l_max + 1):
        if m == 1:
            diagonal *= math.sqrt(3.0)
        elif m > 1:
            diagonal *= math.sqrt((2 * m + 1) / (2.0 * m))
        factors[0, m * m + 2 * m] = diagonal
        for l in range(max(m, 1), l_max + 1):
            root = math.sqrt((l - m + 1.0) * (l + m))
            factors[2, l * l + l + m] = root / math.sqrt(2.0) if m == 1 else root
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


@compiled(fastmath=CONTRACT)
def contract_harmonics(unit_xv, v, l_max, factors, a_mv, b_mv, out_xv):
    """Sums over harmonics of as many unit vectors, from v on, as there are lanes.

    The gradient is that of the polynomials in x, y and z that :func:`write_harmonics`
    writes: across the vector it is that of the harmonics.

    Parameters
    ----------
    unit_xv, v, l_max, factors
        As of :func:`write_harmonics`.
    a_mv, b_mv : ndarray ((l_max + 1)**2, at least v + LANES)
        Factors of the harmonics.
    out_xv : ndarray (5, at least v + LANES)
        Receives the sum of a ∇Y, of b Y and of a Y.
    """
    x = load(unit_xv, 0, v)
    y = load(unit_xv, 1, v)
    z = load(unit_xv, 2, v)
    zero = 0.0 * x
    cosine, sine, cosine_before, sine_before = zero + 1.0, zero, zero, zero
    d_x, d_y, d_z, of_a, of_b = zero, zero, zero, zero, zero
    for m in range(l_max + 1):
        before = zero
        value = zero + factors[0, m * m + 2 * m]
        a_cosine, a_sine, b_cosine, b_sine = zero, zero, zero, zero
        slope_cosine, slope_sine = zero, zero
        for l in range(m, l_max + 1):
            at = l * l + l + m
            if l > m:
                after = factors[0, at] * (z * value - factors[1, at] * before)
                before = value
                value = after
            # For m = 0 the sine is zero, and for m = 1 the one before.
            a_cosine = a_cosine + value * load(a_mv, at, v)
            a_sine = a_sine + value * load(a_mv, at - 2 * m, v)
            b_cosine = b_cosine + value * load(b_mv, at, v)
            b_sine = b_sine + value * load(b_mv, at - 2 * m, v)
            if m > 0:
                slope = factors[2, at] * value
                slope_cosine = slope_cosine + slope * load(a_mv, at - 1, v)
                slope_sine = slope_sine + slope * load(a_mv, at - 2 * m + 1, v)
        of_a = of_a + cosine * a_cosine + sine * a_sine
        of_b = of_b + cosine * b_cosine + sine * b_sine
        d_z = d_z + cosine_before * slope_cosine + sine_before * slope_sine
        d_x = d_x + float(m) * (cosine_before * a_cosine + sine_before * a_sine)
        d_y = d_y + float(m) * (cosine_before * a_sine - sine_before * a_cosine)
        cosine_before = cosine
        sine_before = sine
        cosine = cosine_before * x - sine_before * y
        sine = sine_before * x + cosine_before * y
    store(d_x, out_xv, 0, v)
    store(d_y, out_xv, 1, v)
    store(d_z, out_xv, 2, v)
    store(of_b, out_xv, 3, v)
    store(of_a, out_xv, 4, v)


@compiled
def harmonic_sums(vector_vx, l_max, a_mv, b_mv):
    """Sums over harmonics of directions, and their gradient.

    Parameters
    ----------
    vector_vx : ndarray (n, 3)
        Not zero.
    l_max : int
    a_mv, b_mv : ndarray ((l_max + 1)**2, at least n + LANES)
        What is beyond n has no meaning.

    Returns
    -------
    gradient_xv : ndarray (3, n)
        Of Σ a Y with respect to the vector.
    sum_b_v, sum_a_v : ndarray (n,)
        Σ b Y and Σ a Y.
    """
    n = vector_vx.shape[0]
    unit_xv, out_xv = np.zeros((3, n + LANES)), np.empty((5, n + LANES))
    inverse_v = np.empty(n)
    for v in range(n):
        x, y, z = vector_vx[v]
        inverse_v[v] = 1.0 / math.sqrt(x * x + y * y + z * z)
        for i in range(3):
            unit_xv[i, v] = vector_vx[v, i] * inverse_v[v]
    factors = harmonic_factors(l_max)
    for v in range(0, n, LANES):
        contract_harmonics(unit_xv, v, l_max, factors, a_mv, b_mv, out_xv)
    for v in range(n):
        along = 0.0
        for i in range(3):
            along += unit_xv[i, v] * out_xv[i, v]
        for i in range(3):
            out_xv[i, v] = inverse_v[v] * (out_xv[i, v] - along * unit_xv[i, v])
    return out_xv[:3, :n], out_xv[3, :n], out_xv[4, :n]


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
