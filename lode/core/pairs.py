"""The sum over pairs, and the tables of radial functions that it reads.

Index legend: j centre, a channel, p pair, l and m angular, n radial function padded to
whole registers, c column (l, n) of a table, r row of a table. Harmonics stand at
l * l + l + m.
"""

import math
from typing import NamedTuple

import numpy as np

from lode.core.compilation import CONTRACT, compiled
from lode.core.harmonics import (
    contract_harmonics,
    harmonic_factors,
    write_harmonics,
)
from lode.core.registers import (
    LANES,
    ROWS,
    add_tile,
    aligned_zeros,
    load,
    set_tile,
    store,
    transpose,
    whole_lanes,
)

# Coefficients of the polynomial of an interval.
TERMS = 8
# Pairs of a centre that are worked on together: what belongs to them stays in the
# first-level cache. A multiple of the lanes.
_BATCH = 32


class RadialTable(NamedTuple):
    """Pair functions of the distance, as piecewise polynomials.

    Attributes
    ----------
    row_rc : ndarray (TERMS * n_intervals, n_columns)
        Coefficients of the local coordinate from -1 to 1; whole registers of columns
        (l, n), of each l equally many.
    step : float
        Length of an interval in Å.
    reach : float
        Where the intervals in r end; those in reach / r, from 0 to 1, follow.
    n_far : int
        Number of the latter; zero if nothing lies beyond.
    power, decay : float
        What lies beyond is multiplied with (reach / r)^power exp(-decay (r - reach)).
    cutoff, width : float
        Smooth cutoff over the last width of it; infinite cutoff for none.
    """

    row_rc: np.ndarray
    step: float
    reach: float
    n_far: int
    power: float
    decay: float
    cutoff: float
    width: float


@compiled
def write_constants(channel_i, weight_i, self_n, background_an, first, out_jamn):
    """Set the coefficients to zero, and at l = 0 to the terms without a distance.

    Parameters
    ----------
    channel_i, weight_i : ndarray (n_atoms,)
    self_n : ndarray (n_max,)
        Field of an atom of weight one at its own centre.
    background_an : ndarray (n_channels, n_max)
        Average of the field.
    first : int
        Place of the first centre.
    out_jamn : ndarray (n_centres, n_channels, (l_max + 1)**2, width)
    """
    out_jamn[:] = 0.0
    for j in range(out_jamn.shape[0]):
        i = first + j
        for n in range(self_n.shape[0]):
            out_jamn[j, channel_i[i], 0, n] += weight_i[i] * self_n[n]
            for a in range(out_jamn.shape[1]):
                out_jamn[j, a, 0, n] += background_an[a, n]


@compiled(fastmath=CONTRACT)
def write_polynomials(row_rc, r, t, f_pc, p):
    """Write the polynomials of the interval that begins in row r, at t from -1 to 1."""
    for c in range(0, f_pc.shape[1], LANES):
        high = load(row_rc, r + 4, c) + t * (
            load(row_rc, r + 5, c)
            + t * (load(row_rc, r + 6, c) + t * load(row_rc, r + 7, c))
        )
        low = load(row_rc, r + 2, c) + t * (load(row_rc, r + 3, c) + t * high)
        value = load(row_rc, r, c) + t * (load(row_rc, r + 1, c) + t * low)
        store(value, f_pc, p, c)


@compiled(fastmath=CONTRACT)
def _write_slopes(row_rc, row, t, rate, scale, slope, f_pc, slope_pc, p):
    """Write polynomials times a scale, and the derivatives of that.

    The scale changes by ``slope``, and t by ``rate``.
    """
    rate *= scale
    for c in range(0, f_pc.shape[1], LANES):
        value = load(row_rc, row + TERMS - 1, c)
        derivative = 0.0 * value
        for k in range(TERMS - 2, -1, -1):
            derivative = value + t * derivative
            value = load(row_rc, row + k, c) + t * value
        store(scale * value, f_pc, p, c)
        store(rate * derivative + slope * value, slope_pc, p, c)


@compiled
def interpolated(row_rc, step, x_p):
    """Values and derivatives of piecewise polynomials.

    Parameters
    ----------
    row_rc : ndarray (TERMS * n_intervals, n_columns)
        As of :class:`RadialTable`.
    step : float
        Length of an interval.
    x_p : ndarray (n,)
        From 0 to the end of the last interval.

    Returns
    -------
    f_pc, slope_pc : ndarray (n, n_columns)
    """
    shape, last = (x_p.shape[0], row_rc.shape[1]), row_rc.shape[0] // TERMS - 1
    f_pc, slope_pc = np.empty(shape), np.empty(shape)
    for p in range(x_p.shape[0]):
        place = x_p[p] / step
        row = min(int(place), last)
        t, rate = 2.0 * (place - row) - 1.0, 2.0 / step
        _write_slopes(row_rc, TERMS * row, t, rate, 1.0, 0.0, f_pc, slope_pc, p)
    return f_pc, slope_pc


@compiled(forceinline=True)
def _interval(row_rc, scalars, weight, r):
    """Where the functions of a distance stand, and the factor that they have.

    Returns
    -------
    row : int
        Where the interval begins.
    t : float
        Place in it, from -1 to 1.
    rate : float
        Derivative of t with respect to the distance.
    scale, slope : float
        Factor of the polynomials, and its derivative.
    """
    step, reach, n_far, power, decay, cutoff, width = scalars
    n_near = row_rc.shape[0] // TERMS - n_far
    scale, slope, rate = weight, 0.0, 2.0 / step
    if r < reach or n_far == 0:
        place = r / step
        interval = min(int(place), n_near - 1)
        row = TERMS * interval
    else:
        u = reach / r
        scale *= u**power
        # Not of an infinite distance without a decay, which is no number.
        if decay > 0.0:
            scale *= math.exp(-decay * (r - reach))
        slope, rate = -scale * (power / r + decay), -2.0 * n_far * u / r
        place = u * n_far
        interval = min(int(place), n_far - 1)
        row = TERMS * (n_near + interval)
    # A step has no width, and its last pairs may be rounded beyond it.
    if width > 0.0 and r > cutoff - width:
        angle = math.pi * (r - cutoff + width) / width
        smooth = 0.5 * (1.0 + math.cos(angle))
        slope = slope * smooth - scale * 0.5 * math.pi / width * math.sin(angle)
        scale *= smooth
    return row, 2.0 * (place - interval) - 1.0, rate, scale, slope


@compiled
def _write_pair_functions(row_rc, scalars, r, weight, f_pc, p):
    """Write what a pair's neighbour adds, for each l and n, from a RadialTable."""
    row, t, _, scale, _ = _interval(row_rc, scalars, weight, r)
    write_polynomials(row_rc, row, t, f_pc, p)
    if scale != 1.0:
        for c in range(0, f_pc.shape[1], LANES):
            store(scale * load(f_pc, p, c), f_pc, p, c)


@compiled(forceinline=True)
def _write_directions(vector_px, first, n_pairs, unit_xp, r_p):
    """Write distances and directions of some pairs; (0, 0, 1) has no distance."""
    for p in range(n_pairs):
        x = vector_px[first + p, 0]
        y = vector_px[first + p, 1]
        z = vector_px[first + p, 2]
        r = math.sqrt(x * x + y * y + z * z)
        inverse = 1.0 / r if r > 0.0 else 0.0
        unit_xp[0, p] = inverse * x
        unit_xp[1, p] = inverse * y
        unit_xp[2, p] = inverse * z if r > 0.0 else 1.0
        r_p[p] = r


@compiled
def _add_products(out_rn, first, y_mp, f_pc, l_max, start, stop):
    """Add the sum over some pairs of y_lm f_ln to rows from first on: one centre's."""
    width = out_rn.shape[1]
    for l in range(l_max + 1):
        m = l * l
        # As few tiles as hold all rows, of about the same size.
        for tiles in range(-(-(2 * l + 1) // ROWS), 0, -1):
            rows = ((l + 1) * (l + 1) - m) // tiles
            factors = (y_mp, m, f_pc, l * width)
            add_tile(out_rn, first + m, 0, rows, width, *factors, start, stop)
            m += rows


@compiled
def add_pairs(pairs, weight_i, table, l_max, out_jamn):
    """Add f_nl(r) Y_lm of every pair to the coefficients.

    Pairs of a centre are taken in batches: harmonics with the pairs side by side,
    radial functions with the columns side by side, and of both the product, one for
    each channel, whose sums stay in registers.

    Parameters
    ----------
    pairs : Pairs
        Within the cutoff and, if nothing lies beyond, the reach of the table.
    weight_i : ndarray (n_atoms,)
        What the field of each atom is multiplied with.
    table : RadialTable
    l_max : int
    out_jamn : ndarray (n_centres, n_channels, (l_max + 1)**2, width)
        Added to; width in whole registers.
    """
    start_ja, neighbor_p, vector_px = pairs
    row_rc, scalars = table[0], table[1:]
    factors = harmonic_factors(l_max)
    n_channels, n_lm = out_jamn.shape[1:3]
    # Flattened: slicing an array changes its reference count, on which threads
    # sharing it would contend.
    out_rn = out_jamn.reshape((-1, out_jamn.shape[3]))
    unit_xp, y_mp = aligned_zeros(3, _BATCH), aligned_zeros(n_lm, _BATCH)
    f_pc = aligned_zeros(_BATCH, row_rc.shape[1])
    r_p = np.empty(_BATCH)
    for j in range(out_jamn.shape[0]):
        last = start_ja[(j + 1) * n_channels]
        for low in range(start_ja[j * n_channels], last, _BATCH):
            high = min(low + _BATCH, last)
            _write_directions(vector_px, low, high - low, unit_xp, r_p)
            # A loop of its own: with square roots in between it is half as fast.
            for p in range(high - low):
                weight = weight_i[neighbor_p[low + p]]
                _write_pair_functions(row_rc, scalars, r_p[p], weight, f_pc, p)
            for p in range(0, high - low, LANES):
                write_harmonics(unit_xp, p, l_max, factors, y_mp)
            for a in range(n_channels):
                start = max(start_ja[j * n_channels + a], low) - low
                stop = min(start_ja[j * n_channels + a + 1], high) - low
                if start < stop:
                    row = (j * n_channels + a) * n_lm
                    _add_products(out_rn, row, y_mp, f_pc, l_max, start, stop)


@compiled
def _write_transposed(f_pc, n_pairs, f_cp):
    """Write the functions of some pairs, padded to lanes, with the pairs as columns."""
    for p in range(0, n_pairs, LANES):
        for c in range(0, f_pc.shape[1], LANES):
            transpose(f_pc, p, c, f_cp, c, p)


@compiled
def _contract_functions(gradient_rn, first, l_max, f_cp, n_pairs, out_mp):
    """Sums over radial functions of the gradient of a centre and the pairs' functions.

    out_mp[lm, p] = sum over n of gradient_rn[first + lm, n] f_cp[(l, n), p].
    """
    width = gradient_rn.shape[1]
    columns = whole_lanes(n_pairs)
    for l in range(l_max + 1):
        f_np = f_cp[l * width : (l + 1) * width]
        m = l * l
        for tiles in range(-(-(2 * l + 1) // ROWS), 0, -1):
            rows = ((l + 1) * (l + 1) - m) // tiles
            factors = (gradient_rn, first + m, f_np, 0, 0, width)
            set_tile(out_mp, m, 0, rows, columns, *factors)
            m += rows


@compiled
def add_pair_gradients(
    pairs, weight_i, table, l_max, first, gradient_sjamn, out_six, charge_si, strain_sxy
):
    """Add what gradients with respect to coefficients are for positions and strain.

    The adjoint of :func:`add_pairs`: with G the gradient, A_lm = Σ_n G f_nl and B_lm =
    Σ_n G f'_nl, a neighbour at r gets D/r + û (Σ B Y - û·D/r), D = Σ A ∇Y, and the
    centre its negative. Several scalars s share the functions of a pair.

    Parameters
    ----------
    pairs, weight_i, table, l_max
        As of :func:`add_pairs`.
    first : int
        Place of the first centre.
    gradient_sjamn : ndarray (n_scalars, n_centres, n_channels, (l_max + 1)**2, width)
        With respect to the coefficients; zero where width exceeds the functions.
    out_six : ndarray (n_scalars, n_atoms, 3)
        Added to: the gradient with respect to positions.
    charge_si : ndarray (n_scalars, n_atoms)
        Added to: with respect to the weights.
    strain_sxy : ndarray (n_scalars, 3, 3)
        Added to: with respect to the strain e in r -> r + e r.
    """
    start_ja, neighbor_p, vector_px = pairs
    row_rc, scalars = table[0], table[1:]
    factors = harmonic_factors(l_max)
    n_scalars, n_centers, n_channels, n_lm, width = gradient_sjamn.shape
    gradient_rn = gradient_sjamn.reshape((-1, width))
    n_columns = row_rc.shape[1]
    unit_xp, out_xp = aligned_zeros(3, _BATCH), aligned_zeros(5, _BATCH)
    f_pc, slope_pc = aligned_zeros(_BATCH, n_columns), aligned_zeros(_BATCH, n_columns)
    f_cp, slope_cp = aligned_zeros(n_columns, _BATCH), aligned_zeros(n_columns, _BATCH)
    a_mp, b_mp = aligned_zeros(n_lm, _BATCH), aligned_zeros(n_lm, _BATCH)
    r_p, g_x = np.empty(_BATCH), np.empty(3)
    n_rows = n_centers * n_channels
    for row in range(n_rows):
        j = first + row // n_channels
        for low in range(start_ja[row], start_ja[row + 1], _BATCH):
            n_pairs = min(_BATCH, start_ja[row + 1] - low)
            _write_directions(vector_px, low, n_pairs, unit_xp, r_p)
            for p in range(n_pairs):
                found = _interval(row_rc, scalars, 1.0, r_p[p])
                _write_slopes(row_rc, *found, f_pc, slope_pc, p)
                if r_p[p] == 0.0:
                    # f/r tends to f': it matters for l = 1 alone.
                    for c in range(width, f_pc.shape[1]):
                        f_pc[p, c] = slope_pc[p, c]
            _write_transposed(f_pc, n_pairs, f_cp)
            _write_transposed(slope_pc, n_pairs, slope_cp)
            for s in range(n_scalars):
                contracted = (gradient_rn, (s * n_rows + row) * n_lm, l_max)
                _contract_functions(*contracted, f_cp, n_pairs, a_mp)
                _contract_functions(*contracted, slope_cp, n_pairs, b_mp)
                for p in range(0, n_pairs, LANES):
                    contract_harmonics(unit_xp, p, l_max, factors, a_mp, b_mp, out_xp)
                out_ix, charge_i, strain_xy = out_six[s], charge_si[s], strain_sxy[s]
                for p in range(n_pairs):
                    i, r = neighbor_p[low + p], r_p[p]
                    weight, inverse = weight_i[i], 1.0 / r if r > 0.0 else 1.0
                    along = out_xp[3, p]
                    charge_i[i] += out_xp[4, p] if r > 0.0 else out_xp[4, p] - along
                    for x in range(3):
                        along -= inverse * unit_xp[x, p] * out_xp[x, p]
                    for x in range(3):
                        g_x[x] = along * unit_xp[x, p] + inverse * out_xp[x, p]
                        g_x[x] *= weight
                        out_ix[i, x] += g_x[x]
                        out_ix[j, x] -= g_x[x]
                        for y in range(3):
                            strain_xy[x, y] += g_x[x] * vector_px[low + p, y]
