"""Sums over wave vectors around centres: by products of matrices, and by transforms.

Index legend: j centre or atom, a channel, k wave vector, c column (l, m, q) of a
product, q radial mode, n radial function, t index of a wave vector along an axis.
Harmonics stand at l * l + l + m.
"""

import math
from typing import NamedTuple

import numpy as np

from lode.core.compilation import CONTRACT, compiled
from lode.core.registers import (
    LANES,
    ROWS,
    add_tile,
    aligned_zeros,
    lane_sum,
    load,
    set_tile,
    store,
    transpose,
    whole_lanes,
)

# Wave vectors, and centres, of which products are made at a time: the first factors
# stay in the first-level cache, the columns in the second-level one.
WAVE_VECTORS = 128
CENTERS = 32


class WaveVectors(NamedTuple):
    """Some wave vectors, and what sums over them need.

    Attributes
    ----------
    line_nx : ndarray (n_lines, 4) of int
        h, k, first l, number of l.
    top_x : ndarray (3,) of int
        Bounds of the indices.
    real_ak, imag_ak : ndarray (n_channels, n_k + LANES)
        Structure factor of each channel; the last LANES have no meaning.
    even_kc, odd_kc : ndarray (n_k, n_columns)
        Of :func:`write_columns`.
    """

    line_nx: np.ndarray
    top_x: np.ndarray
    real_ak: np.ndarray
    imag_ak: np.ndarray
    even_kc: np.ndarray
    odd_kc: np.ndarray


@compiled(fastmath=CONTRACT)
def axis_phases(position_jx, reciprocal, top_x):
    """Phases of atoms along each axis of reciprocal space.

    Parameters
    ----------
    position_jx : ndarray (n_atoms, 3)
    reciprocal : ndarray (3, 3)
        Rows are the reciprocal vectors, 2π included.
    top_x : ndarray (3,) of int
        Bounds of the indices.

    Returns
    -------
    phase_jxt : ndarray (n_atoms, 6, at least 2 max(top) + 1)
        Real and imaginary parts of exp(i t b_x·r), two rows for each axis x; t from
        -top on.
    """
    # Zeros beyond the phases: subnormal numbers, which are slow, might stand there.
    width = 2 * max(top_x[0], top_x[1], top_x[2]) + 1 + LANES
    phase_jxt = np.zeros((position_jx.shape[0], 6, width))
    for j in range(position_jx.shape[0]):
        for x in range(3):
            angle = (
                reciprocal[x, 0] * position_jx[j, 0]
                + reciprocal[x, 1] * position_jx[j, 1]
                + reciprocal[x, 2] * position_jx[j, 2]
            )
            top, c, s = top_x[x], math.cos(angle), math.sin(angle)
            real_t, imag_t = phase_jxt[j, 2 * x], phase_jxt[j, 2 * x + 1]
            real_t[top] = 1.0
            for t in range(1, top + 1):
                real_t[top + t] = real_t[top + t - 1] * c - imag_t[top + t - 1] * s
                imag_t[top + t] = real_t[top + t - 1] * s + imag_t[top + t - 1] * c
                real_t[top - t] = real_t[top + t]
                imag_t[top - t] = -imag_t[top + t]
    return phase_jxt


@compiled(fastmath=CONTRACT)
def _write_phases(phase_xt, top_x, line_nx, start, stop, phase_xk):
    """Write real and imaginary parts of exp(i k·r) for some lines of wave vectors.

    Whole lanes are read and written: rows are longer by LANES than what counts.
    """
    at = 0
    for n in range(start, stop):
        h = line_nx[n, 0] + top_x[0]
        k = line_nx[n, 1] + top_x[1]
        first = line_nx[n, 2] + top_x[2]
        re = phase_xt[0, h] * phase_xt[2, k] - phase_xt[1, h] * phase_xt[3, k]
        im = phase_xt[0, h] * phase_xt[3, k] + phase_xt[1, h] * phase_xt[2, k]
        for l in range(0, line_nx[n, 3], LANES):
            cosine = load(phase_xt, 4, first + l)
            sine = load(phase_xt, 5, first + l)
            store(re * cosine - im * sine, phase_xk, 0, at + l)
            store(re * sine + im * cosine, phase_xk, 1, at + l)
        at += line_nx[n, 3]


@compiled
def add_structure_factor(
    phase_jxt, channel_j, weight_j, line_nx, top_x, real_ak, imag_ak
):
    """Add phases exp(i k·r_j) times the weights of some atoms, for each channel.

    Parameters
    ----------
    phase_jxt
        Of :func:`axis_phases`.
    channel_j : ndarray (n_atoms,) of int
    weight_j : ndarray (n_atoms,)
    line_nx, top_x
        As of :class:`WaveVectors`.
    real_ak, imag_ak : ndarray (n_channels, n_k + LANES)
        Added to; the last LANES have no meaning.
    """
    phase_xk = np.zeros((2, real_ak.shape[1]))
    for j in range(phase_jxt.shape[0]):
        a, weight = channel_j[j], weight_j[j]
        if weight == 0.0:
            continue
        _write_phases(phase_jxt[j], top_x, line_nx, 0, line_nx.shape[0], phase_xk)
        for k in range(0, real_ak.shape[1] - LANES, LANES):
            real = load(real_ak, a, k) + weight * load(phase_xk, 0, k)
            imag = load(imag_ak, a, k) + weight * load(phase_xk, 1, k)
            store(real, real_ak, a, k)
            store(imag, imag_ak, a, k)


@compiled(fastmath=CONTRACT)
def write_columns(weight_k, y_mk, mode_kq, n_modes, even_kc, odd_kc):
    """Write the columns weight × Y_lm(k) × mode_lq(|k|) of the products.

    Parameters
    ----------
    weight_k : ndarray (n_k,)
        Twice (4π/Ω) ĝ(k), for the other half of the wave vectors.
    y_mk : ndarray ((l_max + 1)**2, n_k)
    mode_kq : ndarray (n_k, at least sum of n_modes)
    n_modes : ndarray (l_max + 1,) of int
    even_kc, odd_kc : ndarray (n_k, n_columns)
        Columns (l, m, q) of even and of odd l, with the signs of 2 (-1)^(l/2) Re and
        2 (-1)^((l+1)/2) Im; what fills the last register has no meaning.
    """
    # Lanes end beyond the modes of an l: what is next overwrites them.
    row_xc = np.zeros((2, max(even_kc.shape[1], odd_kc.shape[1]) + LANES))
    mode_xq = np.zeros((1, mode_kq.shape[1] + LANES))
    column_x = np.zeros(2, dtype=np.int64)
    for k in range(weight_k.shape[0]):
        for q in range(mode_kq.shape[1]):
            mode_xq[0, q] = mode_kq[k, q]
        column_x[0] = column_x[1] = mode = 0
        for l in range(n_modes.shape[0]):
            parity, n_q = l % 2, n_modes[l]
            sign = weight_k[k] if ((l + 1) // 2) % 2 == 0 else -weight_k[k]
            for m in range(l * l, (l + 1) * (l + 1)):
                y, c = sign * y_mk[m, k], column_x[parity]
                for q in range(0, n_q, LANES):
                    store(y * load(mode_xq, 0, mode + q), row_xc, parity, c + q)
                column_x[parity] += n_q
            mode += n_q
        for c in range(0, even_kc.shape[1], LANES):
            store(load(row_xc, 0, c), even_kc, k, c)
        for c in range(0, odd_kc.shape[1], LANES):
            store(load(row_xc, 1, c), odd_kc, k, c)


@compiled
def _add_product(left_rk, right_kc, start, stop, first, rows, out_rc):
    """Add a product of matrices to some rows of another.

    out[first + r, c] += sum over k of left[r, k] right[start + k, c].
    """
    right, n_columns = right_kc[start:stop], out_rc.shape[1]
    # Without odd harmonics there are no columns of theirs.
    for r in range(0, rows if n_columns > 0 else 0, ROWS):
        place = (first + r, 0, min(ROWS, rows - r), n_columns)
        add_tile(out_rc, *place, left_rk, r, right, 0, 0, stop - start)


@compiled(fastmath=CONTRACT)
def add_products(phase_jxt, waves, even_ajc, odd_ajc):
    """Add the sums over wave vectors around some centres, for each radial mode.

    Some centres and wave vectors at a time: their phases times the conjugate of the
    structure factor, and the product of those with the columns, stay in the caches.

    Parameters
    ----------
    phase_jxt
        Of :func:`axis_phases`, for the centres.
    waves : WaveVectors
    even_ajc, odd_ajc : ndarray (n_channels, n_centres, n_columns)
        Added to.
    """
    line_nx, top_x, real_ak, imag_ak, even_kc, odd_kc = waves
    n, n_channels = phase_jxt.shape[0], real_ak.shape[0]
    most = whole_lanes(WAVE_VECTORS + 2 * top_x[2] + 1 + LANES)
    phase_xk = aligned_zeros(2, most)
    even_ajk = aligned_zeros(n_channels, CENTERS, most)
    odd_ajk = aligned_zeros(n_channels, CENTERS, most)
    low = start = 0
    while low < line_nx.shape[0]:
        high, stop = low, start
        while high < line_nx.shape[0] and stop - start < WAVE_VECTORS:
            stop += line_nx[high, 3]
            high += 1
        for row in range(0, n, CENTERS):
            rows = min(CENTERS, n - row)
            for j in range(rows):
                _write_phases(phase_jxt[row + j], top_x, line_nx, low, high, phase_xk)
                for a in range(n_channels):
                    even_jk, odd_jk = even_ajk[a], odd_ajk[a]
                    for k in range(0, stop - start, LANES):
                        real, imag = load(phase_xk, 0, k), load(phase_xk, 1, k)
                        real_k = load(real_ak, a, start + k)
                        imag_k = load(imag_ak, a, start + k)
                        store(real * real_k + imag * imag_k, even_jk, j, k)
                        store(imag * real_k - real * imag_k, odd_jk, j, k)
            for a in range(n_channels):
                place = (start, stop, row, rows)
                _add_product(even_ajk[a], even_kc, *place, even_ajc[a])
                _add_product(odd_ajk[a], odd_kc, *place, odd_ajc[a])
        low, start = high, stop


@compiled(fastmath=CONTRACT)
def add_product_gradients(
    phase_jxt, waves, k_xk, gradient, n_modes, mode_xqk, out_jx, sums
):
    """Adjoint of :func:`add_products`, for the centres; what is left is for sources.

    With H = Σ_c G_jc column_c(k) for even and odd columns and the phase Z, the centre
    gets Σ_k k [H_odd Re(Z S̄) - H_even Im(Z S̄)].

    Parameters
    ----------
    phase_jxt : ndarray
        Of :func:`axis_phases`, for the centres.
    waves : WaveVectors
    k_xk : ndarray (3, n_k + LANES)
        Wave vectors, and zeros.
    gradient : tuple of two ndarray
        Of :func:`contract_modes`.
    n_modes : ndarray (l_max + 1,) of int
    mode_xqk : ndarray (2, sum of n_modes, n_k + LANES)
        Radial modes with the weight of the columns, and their derivatives; empty if the
        strain is not wanted.
    out_jx : ndarray (n_centres, 3)
        Added to.
    sums : tuple of three ndarray
        Added to: the gradient with respect to the structure factor, real and imaginary
        (n_channels, n_k), and :func:`_add_harmonic_factors`.
    """
    line_nx, top_x, real_ak, imag_ak, even_kc, odd_kc = waves
    even_acj, odd_acj = gradient
    real_sum_ak, imag_sum_ak, sum_xmk = sums
    strained = mode_xqk.shape[1] > 0
    n, n_channels = phase_jxt.shape[0], real_ak.shape[0]
    most = whole_lanes(WAVE_VECTORS + 2 * top_x[2] + 1 + LANES)
    phase_jyk = aligned_zeros(CENTERS, 2, most)
    even_jk, odd_jk = aligned_zeros(CENTERS, most), aligned_zeros(CENTERS, most)
    # Re(Z S̄) and Im(Z S̄) of all centres.
    even_ajk = aligned_zeros(n_channels, even_acj.shape[2], most)
    odd_ajk = aligned_zeros(n_channels, even_acj.shape[2], most)
    g_jk, h_kj = aligned_zeros(CENTERS, most), aligned_zeros(most, CENTERS)
    room = np.empty((1, LANES))
    low = start = 0
    while low < line_nx.shape[0]:
        high, stop = low, start
        while high < line_nx.shape[0] and stop - start < WAVE_VECTORS:
            stop += line_nx[high, 3]
            high += 1
        columns = whole_lanes(stop - start)
        for row in range(0, n, CENTERS):
            rows = min(CENTERS, n - row)
            for j in range(rows):
                phase_xt = phase_jxt[row + j]
                _write_phases(phase_xt, top_x, line_nx, low, high, phase_jyk[j])
            g_jk[:] = 0.0
            for a in range(n_channels):
                place = (start, stop, row)
                _write_product(even_kc, even_acj[a], *place, h_kj, even_jk)
                _write_product(odd_kc, odd_acj[a], *place, h_kj, odd_jk)
                in_phase_jk, out_of_jk = even_ajk[a], odd_ajk[a]
                for j in range(rows):
                    phase_yk = phase_jyk[j]
                    for k in range(0, columns, LANES):
                        real, imag = load(phase_yk, 0, k), load(phase_yk, 1, k)
                        real_k = load(real_ak, a, start + k)
                        imag_k = load(imag_ak, a, start + k)
                        even, odd = load(even_jk, j, k), load(odd_jk, j, k)
                        in_phase = real * real_k + imag * imag_k
                        out_of = imag * real_k - real * imag_k
                        g = load(g_jk, j, k) + odd * in_phase - even * out_of
                        store(g, g_jk, j, k)
                        sum_real = load(real_sum_ak, a, start + k)
                        sum_imag = load(imag_sum_ak, a, start + k)
                        sum_real = sum_real + even * real + odd * imag
                        sum_imag = sum_imag + even * imag - odd * real
                        store(sum_real, real_sum_ak, a, start + k)
                        store(sum_imag, imag_sum_ak, a, start + k)
                        if strained:
                            store(in_phase, in_phase_jk, row + j, k)
                            store(out_of, out_of_jk, row + j, k)
            for j in range(rows):
                for x in range(3):
                    total = 0.0 * load(g_jk, j, 0)
                    for k in range(0, columns, LANES):
                        total = total + load(g_jk, j, k) * load(k_xk, x, start + k)
                    out_jx[row + j, x] += lane_sum(total, room)
        if strained:
            place = (n_modes, mode_xqk, start, stop, sum_xmk)
            _add_harmonic_factors(0, even_acj, even_ajk, *place)
            _add_harmonic_factors(1, odd_acj, odd_ajk, *place)
        low, start = high, stop


@compiled
def _add_harmonic_factors(
    parity, gradient_acj, phase_ajk, n_modes, mode_xqk, start, stop, sum_xmk
):
    """Add the factors that the harmonics of some wave vectors have in the energy.

    They are Σ_q mode_q(k) M_lmq(k) with the gradient M = Σ_aj G_ac phase_ajk with
    respect to the columns, which the strain changes.

    Parameters
    ----------
    parity : int
        Of the l of the columns.
    gradient_acj, phase_ajk
        G, and the real or imaginary part of Z S̄.
    n_modes, mode_xqk
        As of :func:`add_product_gradients`.
    start, stop : int
        Range of the wave vectors.
    sum_xmk : ndarray (2, (l_max + 1)**2, n_k + LANES)
        Added to, for the modes and for their derivatives.
    """
    n_columns, n = gradient_acj.shape[1:]
    width = whole_lanes(stop - start)
    column_ck = aligned_zeros(n_columns, width)
    for a in range(gradient_acj.shape[0]):
        for c in range(0, n_columns, ROWS):
            place = (c, 0, min(ROWS, n_columns - c), width)
            add_tile(column_ck, *place, gradient_acj[a], c, phase_ajk[a], 0, 0, n)
    lanes_xk, mode_qk, slope_qk = np.empty((2, LANES)), mode_xqk[0], mode_xqk[1]
    column = mode = 0
    for l in range(n_modes.shape[0]):
        sign = 1.0 if ((l + 1) // 2) % 2 == 0 else -1.0
        for m in range(l * l, (l + 1) * (l + 1) if l % 2 == parity else 0):
            for k in range(0, width, LANES):
                first = second = 0.0 * load(column_ck, 0, k)
                for q in range(n_modes[l]):
                    value = sign * load(column_ck, column + q, k)
                    first = first + value * load(mode_qk, mode + q, start + k)
                    second = second + value * load(slope_qk, mode + q, start + k)
                store(first, lanes_xk, 0, 0)
                store(second, lanes_xk, 1, 0)
                for x in range(2):
                    for i in range(min(LANES, stop - start - k)):
                        sum_xmk[x, m, start + k + i] += lanes_xk[x, i]
            column += n_modes[l]
        mode += n_modes[l]


@compiled
def _write_product(left_kc, right_cj, start, stop, first, h_kj, h_jk):
    """Write h[j, k] = sum over c of left[start + k, c] right[c, first + j].

    Beyond the last, whole lanes of h are zero; ``h_kj`` is room for the same before it
    is transposed.
    """
    n_columns = left_kc.shape[1]
    if n_columns == 0:
        h_jk[:] = 0.0
        return
    for k in range(0, stop - start, ROWS):
        place = (k, 0, min(ROWS, stop - start - k), CENTERS)
        set_tile(h_kj, *place, left_kc, start + k, right_cj, first, 0, n_columns)
    h_kj[stop - start : whole_lanes(stop - start)] = 0.0
    for k in range(0, stop - start, LANES):
        for j in range(0, CENTERS, LANES):
            transpose(h_kj, k, j, h_jk, j, k)


@compiled(fastmath=CONTRACT)
def add_source_gradients(
    phase_ixt, channel_i, weight_i, line_nx, top_x, k_xk, real_ak, imag_ak, out_ix,
    charge_i,
):  # fmt: skip
    """Add what a gradient with respect to the structure factor is for the sources.

    Parameters
    ----------
    phase_ixt : ndarray
        Of :func:`axis_phases`.
    channel_i, weight_i : ndarray (n_atoms,)
    line_nx, top_x
        As of :class:`WaveVectors`.
    k_xk : ndarray (3, n_k + LANES)
        Wave vectors, and zeros.
    real_ak, imag_ak : ndarray (n_channels, n_k + LANES)
        Gradient with respect to the structure factor, and zeros.
    out_ix : ndarray (n_atoms, 3)
        Added to.
    charge_i : ndarray (n_atoms,)
        Added to: with respect to the weights.
    """
    n_k = real_ak.shape[1] - LANES
    phase_xk, room = np.zeros((2, real_ak.shape[1])), np.empty((1, LANES))
    for i in range(phase_ixt.shape[0]):
        a = channel_i[i]
        _write_phases(phase_ixt[i], top_x, line_nx, 0, line_nx.shape[0], phase_xk)
        zero = 0.0 * load(phase_xk, 0, 0)
        g_x, g_y, g_z, g_q = zero, zero, zero, zero
        for k in range(0, n_k, LANES):
            real, imag = load(phase_xk, 0, k), load(phase_xk, 1, k)
            real_k, imag_k = load(real_ak, a, k), load(imag_ak, a, k)
            along = imag_k * real - real_k * imag
            g_x = g_x + along * load(k_xk, 0, k)
            g_y = g_y + along * load(k_xk, 1, k)
            g_z = g_z + along * load(k_xk, 2, k)
            g_q = g_q + real_k * real + imag_k * imag
        out_ix[i, 0] += weight_i[i] * lane_sum(g_x, room)
        out_ix[i, 1] += weight_i[i] * lane_sum(g_y, room)
        out_ix[i, 2] += weight_i[i] * lane_sum(g_z, room)
        charge_i[i] += lane_sum(g_q, room)


@compiled
def contract_modes(gradient_jamn, n_modes, mode_nq, even_acj, odd_acj):
    """Adjoint of :func:`add_modes`: gradient with respect to the sums of each mode.

    Parameters
    ----------
    gradient_jamn : ndarray (n_centres, n_channels, (l_max + 1)**2, width)
    n_modes : ndarray (l_max + 1,) of int
    mode_nq : ndarray (width, at least sum of n_modes + LANES)
        Of the modes of all l in radial functions.
    even_acj, odd_acj : ndarray (n_channels, n_columns, at least n_centres)
        Written.
    """
    width = gradient_jamn.shape[3]
    row_mq = np.empty((2 * n_modes.shape[0] + 1, mode_nq.shape[1]))
    column_x = np.empty(2, dtype=np.int64)
    for j in range(gradient_jamn.shape[0]):
        for a in range(gradient_jamn.shape[1]):
            column_x[:] = mode = 0
            for l in range(n_modes.shape[0]):
                n_m, count, start = 2 * l + 1, n_modes[l], column_x[l % 2]
                out_cj = even_acj[a] if l % 2 == 0 else odd_acj[a]
                for m in range(0, n_m, ROWS):
                    place = (m, 0, min(ROWS, n_m - m), whole_lanes(count))
                    factors = (gradient_jamn[j, a], l * l + m, mode_nq, mode)
                    set_tile(row_mq, *place, *factors, 0, width)
                for m in range(n_m):
                    for q in range(count):
                        out_cj[start + m * count + q, j] = row_mq[m, q]
                column_x[l % 2] += n_m * count
                mode += count


@compiled
def add_modes(sums, n_modes, mode_qn, out_jamn):
    """Expand radial modes into radial functions and add to the coefficients.

    Parameters
    ----------
    sums : tuple of two ndarray (n_channels, n_centres, n_columns)
        Columns (l, m, q) of even and of odd l.
    n_modes : ndarray (l_max + 1,) of int
        At least one of each l.
    mode_qn : ndarray (sum of n_modes, width)
        Of the modes of all l in radial functions.
    out_jamn : ndarray (n_centres, n_channels, (l_max + 1)**2, width)
        Added to.
    """
    column_x = np.empty(2, dtype=np.int64)
    for j in range(out_jamn.shape[0]):
        for a in range(out_jamn.shape[1]):
            column_x[:] = mode = 0
            for l in range(n_modes.shape[0]):
                count, start = (2 * l + 1) * n_modes[l], column_x[l % 2]
                columns = sums[l % 2][a, j, start : start + count]
                column_x[l % 2] += count
                value_mq = columns.reshape((2 * l + 1, n_modes[l]))
                right = mode_qn[mode : mode + n_modes[l]]
                for m in range(0, 2 * l + 1, ROWS):
                    place = (l * l + m, 0, min(ROWS, 2 * l + 1 - m), out_jamn.shape[3])
                    factors = (value_mq, m, right, 0)
                    add_tile(out_jamn[j, a], *place, *factors, 0, n_modes[l])
                mode += n_modes[l]


@compiled(fastmath=CONTRACT)
def write_grid(place_k, y_k, u_k, l, y_other_k, u_other_k, l_other, field_sk, grid_g):
    """Modes of a transform that gives one column in its real part, one in the other.

    A column is T(k) F(k) with T = i^l Y_lm u and T(-k) its conjugate, so that its
    transform is real if F is that of a real field.

    Parameters
    ----------
    place_k : ndarray (n_k,) of int
        Places of half of the wave vectors in the grid; -k stands as far from the
        end as k from the beginning.
    y_k, u_k : ndarray (n_k,)
        Harmonic and radial mode of the first column.
    l : int
        Its angular momentum.
    y_other_k, u_other_k, l_other
        Those of the column in the imaginary part; l_other = -1 for none.
    field_sk : ndarray (2, n_k) of complex
        F at k and at -k.
    grid_g : ndarray (n_g,) of complex
        Written at the wave vectors only.
    """
    end = grid_g.shape[0] - 1
    # i^l as (real, imaginary).
    real = (1.0, 0.0, -1.0, 0.0)[l % 4]
    imag = (0.0, 1.0, 0.0, -1.0)[l % 4]
    has_other = 1.0 if l_other >= 0 else 0.0
    real_other = has_other * (1.0, 0.0, -1.0, 0.0)[l_other % 4]
    imag_other = has_other * (0.0, 1.0, 0.0, -1.0)[l_other % 4]
    for k in range(place_k.shape[0]):
        t = y_k[k] * u_k[k]
        o = y_other_k[k] * u_other_k[k]
        re, im = t * real, t * imag
        re_other, im_other = o * real_other, o * imag_other
        g = place_k[k]
        # T + i T', and conj(T) + i conj(T').
        grid_g[g] = complex(re - im_other, im + re_other) * field_sk[0, k]
        grid_g[end - g] = complex(re + im_other, re_other - im) * field_sk[1, k]


@compiled
def contract_transforms(gradient_jamn, real_tx, imag_tx, mode_qn, gradient_tj):
    """Adjoint of :func:`add_transforms`: write the gradient of the values.

    The energy changes by the real part of conj(gradient) times the change of a value.
    """
    for t in range(gradient_tj.shape[0]):
        a, m, q = real_tx[t, 0], real_tx[t, 1], real_tx[t, 2]
        b, m_b, q_b = imag_tx[t, 0], imag_tx[t, 1], imag_tx[t, 2]
        for j in range(gradient_jamn.shape[0]):
            real = imag = 0.0
            for n in range(mode_qn.shape[1]):
                real += gradient_jamn[j, a, m, n] * mode_qn[q, n]
                if b >= 0:
                    imag += gradient_jamn[j, b, m_b, n] * mode_qn[q_b, n]
            gradient_tj[t, j] = complex(real, imag)


@compiled
def add_transform_gradients(
    start, stop, adjoint_tsk, parts, field_sk, y_mk, u_qk, slope_qk, field_sum_sk,
    sum_xmk,
):  # fmt: skip
    """Add what adjoint transforms are for the field and for harmonics and modes.

    Parameters
    ----------
    start, stop : int
        Range of wave vectors.
    adjoint_tsk : ndarray (n_transforms, 2, n_k) of complex
        Transforms D of conj(gradient), at k and at -k.
    parts : ndarray (2, n_transforms, 4) of int
        Channel, l, harmonic and mode of real and imaginary part.
    field_sk : ndarray (2, n_k) of complex
        As of :func:`write_grid`.
    y_mk : ndarray ((l_max + 1)**2, n_k)
    u_qk, slope_qk : ndarray (n_modes, n_k)
        Radial modes and their derivatives; empty if the strain is not wanted.
    field_sum_sk : ndarray (2, n_k) of complex
        Added to: Σ T D, whose product with the field is the energy.
    sum_xmk : ndarray (2, (l_max + 1)**2, at least n_k)
        Added to: the energy is Σ a Y, and the second has the derivatives of the modes.
    """
    for t in range(adjoint_tsk.shape[0]):
        for part in range(2):
            a, l, m, q = parts[part, t]
            if a < 0:
                continue
            # i^l, times i in the imaginary part; conjugate at -k.
            one = complex(1.0, 0.0) if part == 0 else complex(0.0, 1.0)
            real = (1.0, 0.0, -1.0, 0.0)[l % 4]
            imag = (0.0, 1.0, 0.0, -1.0)[l % 4]
            here, there = one * complex(real, imag), one * complex(real, -imag)
            for k in range(start, stop):
                at, opposite = here * adjoint_tsk[t, 0, k], there * adjoint_tsk[t, 1, k]
                field_sum_sk[0, k] += y_mk[m, k] * u_qk[q, k] * at
                field_sum_sk[1, k] += y_mk[m, k] * u_qk[q, k] * opposite
                if slope_qk.shape[0] > 0:
                    energy = (field_sk[0, k] * at + field_sk[1, k] * opposite).real
                    sum_xmk[0, m, k] += energy * u_qk[q, k]
                    sum_xmk[1, m, k] += energy * slope_qk[q, k]


@compiled(fastmath=CONTRACT)
def add_transforms(value_tj, real_tx, imag_tx, mode_qn, out_jamn):
    """Expand radial modes, as transforms give them, and add to the coefficients.

    Parameters
    ----------
    value_tj : ndarray (n_transforms, n_atoms) of complex
    real_tx, imag_tx : ndarray (n_transforms, 3) of int
        Channel, harmonic and mode of both parts; channel -1 for nothing.
    mode_qn : ndarray (n_modes, width)
        Of the modes in radial functions.
    out_jamn : ndarray (n_atoms, n_channels, (l_max + 1)**2, width)
        Added to.
    """
    # As many atoms at a time as the caches hold.
    for start in range(0, out_jamn.shape[0], CENTERS):
        stop = min(start + CENTERS, out_jamn.shape[0])
        for t in range(value_tj.shape[0]):
            a, m, q = real_tx[t, 0], real_tx[t, 1], real_tx[t, 2]
            b, m_b, q_b = imag_tx[t, 0], imag_tx[t, 1], imag_tx[t, 2]
            for j in range(start, stop):
                value = value_tj[t, j]
                for n in range(mode_qn.shape[1]):
                    out_jamn[j, a, m, n] += value.real * mode_qn[q, n]
                if b >= 0:
                    for n in range(mode_qn.shape[1]):
                        out_jamn[j, b, m_b, n] += value.imag * mode_qn[q_b, n]
