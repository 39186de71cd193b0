"""Compiled loops of :mod:`lode.invariants`.

Index legend: j centre, a channel, n radial function, m harmonic l * l + l + m,
x and y channels (a, n), f feature.
"""

import math

import numpy as np

from lode.core.compilation import CONTRACT, compiled
from lode.core.registers import (
    LANES,
    ROWS,
    aligned_zeros,
    load,
    set_tile,
    store,
    whole_lanes,
)


@compiled
def _write_channels(c_jamn, j, channel_mx):
    """Write the coefficients of one centre with the channels side by side."""
    n_max = c_jamn.shape[3]
    whole = n_max - n_max % LANES
    for a in range(c_jamn.shape[1]):
        c_mn = c_jamn[j, a]
        for m in range(c_jamn.shape[2]):
            for n in range(0, whole, LANES):
                store(load(c_mn, m, n), channel_mx, m, a * n_max + n)
            for n in range(whole, n_max):
                channel_mx[m, a * n_max + n] = c_mn[m, n]


@compiled
def _write_product(first_mx, second_my, l, triangle, n_x, n_y, square_xy):
    """Write the sum over m of two sets of channels, with triangle for y >= x only.

    Columns are taken a register at a time, and may end beyond the last by so many.
    """
    first_xm = first_mx.T
    for x in range(0, n_x, ROWS):
        y = x if triangle else 0
        place = (x, y, min(ROWS, n_x - x), whole_lanes(n_y - y))
        factors = (first_xm, x, second_my, y)
        set_tile(square_xy, *place, *factors, l * l, (l + 1) * (l + 1))


@compiled(forceinline=True)
def _write_rows(factor, square_xy, triangle, n_x, n_y, out_jf, j, f):
    """Write the rows of a product one after the other, with triangle from y = x.

    Lanes end beyond a row: the next one overwrites what stands there. Beyond the last
    there must be room.
    """
    for x in range(n_x):
        start = x if triangle else 0
        for y in range(start, n_y, LANES):
            store(factor * load(square_xy, x, y), out_jf, j, f + y - start)
        f += n_y - start


@compiled
def power_spectrum(c_jamn, d_jamn, same_field, l_max, out_jf):
    """Power spectrum of two fields, or of a field with itself.

    Parameters
    ----------
    c_jamn, d_jamn : ndarray (n_centres, n_channels, (l_max + 1)**2, n_max)
    same_field : bool
        Whether the second is the first: each pair of channels is written once.
    l_max : int
    out_jf : ndarray (n_centres, n_features)
        Written; features (l, x, y), or (l, x, y >= x), times √2 for x != y.
    """
    n_x, n_y = c_jamn.shape[1] * c_jamn.shape[3], d_jamn.shape[1] * d_jamn.shape[3]
    n_f = n_x * (n_x + 1) // 2 if same_field else n_x * n_y
    # Lanes may end beyond the last channel, and beyond the last feature.
    second_my = aligned_zeros(d_jamn.shape[2], n_y + LANES)
    first_mx = second_my if same_field else aligned_zeros(c_jamn.shape[2], n_x)
    square_xy = aligned_zeros(n_x, n_y + LANES)
    last_f = np.empty((1, n_f + LANES))
    for j in range(c_jamn.shape[0]):
        _write_channels(d_jamn, j, second_my)
        if not same_field:
            _write_channels(c_jamn, j, first_mx)
        for l in range(l_max + 1):
            _write_product(first_mx, second_my, l, same_field, n_x, n_y, square_xy)
            factor = 1.0 / math.sqrt(2 * l + 1)
            if same_field:
                factor *= math.sqrt(2.0)
                for x in range(n_x):
                    square_xy[x, x] *= math.sqrt(0.5)
            rows = (factor, square_xy, same_field, n_x, n_y)
            if l < l_max and n_f >= LANES:
                _write_rows(*rows, out_jf, j, l * n_f)
            else:
                _write_rows(*rows, last_f, 0, 0)
                for f in range(n_f):
                    out_jf[j, l * n_f + f] = last_f[0, f]


@compiled
def _add_channels(channel_mx, j, l, out_jamn):
    """Add to the coefficients of one centre and l from channels side by side."""
    n_max = out_jamn.shape[3]
    for a in range(out_jamn.shape[1]):
        for m in range(l * l, (l + 1) * (l + 1)):
            for n in range(n_max):
                out_jamn[j, a, m, n] += channel_mx[m, a * n_max + n]


@compiled
def power_spectrum_gradients(
    c_jamn, d_jamn, same_field, l_max, gradient_jf, out_c_jamn, out_d_jamn
):
    """Adjoint of :func:`power_spectrum`.

    Parameters
    ----------
    c_jamn, d_jamn, same_field, l_max
        As of :func:`power_spectrum`.
    gradient_jf : ndarray (n_centres, n_features)
        With respect to the features.
    out_c_jamn, out_d_jamn : ndarray
        Added to: with respect to the coefficients of both fields, which may be one.
    """
    n_x, n_y = c_jamn.shape[1] * c_jamn.shape[3], d_jamn.shape[1] * d_jamn.shape[3]
    n_lm = c_jamn.shape[2]
    first_mx, second_my = aligned_zeros(n_lm, n_x), aligned_zeros(n_lm, n_y)
    wide_x, wide_y = whole_lanes(n_x), whole_lanes(n_y)
    square_xy, square_yx = aligned_zeros(n_x, wide_y), aligned_zeros(n_y, wide_x)
    out_mx, out_my = aligned_zeros(n_lm, wide_x), aligned_zeros(n_lm, wide_y)
    for j in range(c_jamn.shape[0]):
        _write_channels(c_jamn, j, first_mx)
        _write_channels(d_jamn, j, second_my)
        f = 0
        for l in range(l_max + 1):
            factor = 1.0 / math.sqrt(2 * l + 1)
            for x in range(n_x):
                for y in range(x if same_field else 0, n_y):
                    value = factor * gradient_jf[j, f]
                    if same_field:
                        # Each as the first and as the second field.
                        value *= 2.0 if x == y else math.sqrt(2.0)
                        square_yx[x, y] = value
                    square_yx[y, x] = value
                    square_xy[x, y] = value
                    f += 1
            rows = 2 * l + 1
            for m in range(l * l, (l + 1) * (l + 1), ROWS):
                n_m = min(ROWS, l * l + rows - m)
                factors = (second_my, m, square_yx, 0, 0, n_y)
                set_tile(out_mx, m, 0, n_m, wide_x, *factors)
                if not same_field:
                    factors = (first_mx, m, square_xy, 0, 0, n_x)
                    set_tile(out_my, m, 0, n_m, wide_y, *factors)
            _add_channels(out_mx, j, l, out_c_jamn)
            if not same_field:
                _add_channels(out_my, j, l, out_d_jamn)


# Rows of one centre hold all components q side by side: each step of the innermost
# loop runs over n_q * n_y numbers instead of the few channels y.
@compiled(fastmath=CONTRACT)
def equivariant_spectrum(
    c_jamn, d_jamn, block_b, entry_e, value_e, n_components, out_jqf
):
    """Products of two fields, coupled to the components q of one angular momentum.

    Parameters
    ----------
    c_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, n_max)
    d_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, n_max)
    block_b : ndarray (n_blocks, 5) of int
        l of the first field; first and last + 1 of the entries; which pairs of
        channels are kept: 0 all, 1 those with y >= x, 2 those with y > x, of which
        the pairs of different channels take √2 in both cases; first feature.
    entry_e : ndarray (n_entries, 3) of int
        m of the first field, counted from l * l, m of the second, component.
    value_e : ndarray (n_entries,)
        Coupling coefficients.
    n_components : int
    out_jqf : ndarray (n_centres, n_components, n_features)
        Written.
    """
    n_x = c_jamn.shape[1] * c_jamn.shape[3]
    n_y = d_jamn.shape[1] * d_jamn.shape[3]
    width = n_components * n_y
    first_mx = np.empty((c_jamn.shape[2], n_x))
    second_my = np.empty((d_jamn.shape[2], n_y))
    # More rows than an l has.
    coupled_mqy = np.empty((c_jamn.shape[2], width))
    root = math.sqrt(2.0)
    row_qy = np.empty(width)
    for j in range(c_jamn.shape[0]):
        _write_channels(c_jamn, j, first_mx)
        _write_channels(d_jamn, j, second_my)
        for b in range(block_b.shape[0]):
            l = block_b[b, 0]
            fold = block_b[b, 3]
            start = block_b[b, 4]
            for m in range(2 * l + 1):
                coupled_mqy[m, :] = 0.0
            for e in range(block_b[b, 1], block_b[b, 2]):
                value = value_e[e]
                m, other = entry_e[e, 0], entry_e[e, 1]
                place = entry_e[e, 2] * n_y
                for y in range(n_y):
                    coupled_mqy[m, place + y] += value * second_my[other, y]
            for x in range(n_x):
                # An odd number of terms: the first, then two at a time.
                factor = first_mx[l * l, x]
                one_qy = coupled_mqy[0]
                for k in range(width):
                    row_qy[k] = factor * one_qy[k]
                for m in range(1, 2 * l + 1, 2):
                    factor = first_mx[l * l + m, x]
                    next_factor = first_mx[l * l + m + 1, x]
                    one_qy = coupled_mqy[m]
                    two_qy = coupled_mqy[m + 1]
                    for k in range(width):
                        row_qy[k] += factor * one_qy[k] + next_factor * two_qy[k]
                if fold == 0:
                    for q in range(n_components):
                        for y in range(n_y):
                            out_jqf[j, q, start + y] = row_qy[q * n_y + y]
                    start += n_y
                    continue
                n_kept = n_y - x - (fold - 1)
                for q in range(n_components):
                    end = (q + 1) * n_y - n_kept
                    for y in range(n_kept):
                        out_jqf[j, q, start + y] = root * row_qy[end + y]
                    if fold == 1:
                        out_jqf[j, q, start] = row_qy[end]
                start += n_kept


@compiled(fastmath=CONTRACT)
def equivariant_spectrum_gradients(
    c_jamn, d_jamn, block_b, entry_e, value_e, gradient_jqf, out_c_jamn, out_d_jamn
):
    """Adjoint of :func:`equivariant_spectrum`.

    Parameters
    ----------
    c_jamn, d_jamn, block_b, entry_e, value_e
        As of :func:`equivariant_spectrum`.
    gradient_jqf : ndarray (n_centres, n_components, n_features)
        With respect to the features.
    out_c_jamn, out_d_jamn : ndarray
        Added to: with respect to the coefficients of both fields, which may be one.
    """
    n_max_x, n_max_y = c_jamn.shape[3], d_jamn.shape[3]
    n_x, n_y = c_jamn.shape[1] * n_max_x, d_jamn.shape[1] * n_max_y
    n_components = gradient_jqf.shape[1]
    width = n_components * n_y
    first_mx = np.empty((c_jamn.shape[2], n_x))
    second_my = np.empty((d_jamn.shape[2], n_y))
    coupled_mqy = np.empty((c_jamn.shape[2], width))
    out_mqy = np.empty((c_jamn.shape[2], width))
    row_qy = np.zeros(width)
    for j in range(c_jamn.shape[0]):
        _write_channels(c_jamn, j, first_mx)
        _write_channels(d_jamn, j, second_my)
        for b in range(block_b.shape[0]):
            l, first_e, last_e, fold, start = block_b[b]
            coupled_mqy[: 2 * l + 1] = 0.0
            out_mqy[: 2 * l + 1] = 0.0
            for e in range(first_e, last_e):
                m, other, place = entry_e[e, 0], entry_e[e, 1], entry_e[e, 2] * n_y
                for y in range(n_y):
                    coupled_mqy[m, place + y] += value_e[e] * second_my[other, y]
            for x in range(n_x):
                # Pairs of channels that are kept, from the first on.
                low = 0 if fold == 0 else x + fold - 1
                row_qy[:] = 0.0
                for q in range(n_components):
                    for y in range(low, n_y):
                        value = gradient_jqf[j, q, start + y - low]
                        if fold > 0 and y != x:
                            value *= math.sqrt(2.0)
                        row_qy[q * n_y + y] = value
                start += n_y - low
                for m in range(2 * l + 1):
                    factor, total = first_mx[l * l + m, x], 0.0
                    for k in range(width):
                        total += row_qy[k] * coupled_mqy[m, k]
                        out_mqy[m, k] += factor * row_qy[k]
                    place = (j, x // n_max_x, l * l + m, x % n_max_x)
                    out_c_jamn[place] += total
            for e in range(first_e, last_e):
                m, other, place = entry_e[e, 0], entry_e[e, 1], entry_e[e, 2] * n_y
                for y in range(n_y):
                    at = (j, y // n_max_y, other, y % n_max_y)
                    out_d_jamn[at] += value_e[e] * out_mqy[m, place + y]
