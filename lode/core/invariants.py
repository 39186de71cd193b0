"""Compiled loops of :mod:`lode.invariants`.

Index legend: j centre, a species, n radial function, m harmonic l * l + l + m,
x and y channels (a, n), f feature.
"""

import math

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", nogil=True)
def _channels(c_jamn, j, channel_mx):
    """Coefficients of one centre with the channels side by side."""
    n_max = c_jamn.shape[3]
    for a in range(c_jamn.shape[1]):
        for m in range(c_jamn.shape[2]):
            for n in range(n_max):
                channel_mx[m, a * n_max + n] = c_jamn[j, a, m, n]


# fastmath "contract" allows fused multiply-adds; NaN and infinity keep their meaning.
@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def power_spectrum(c_jamn, l_max, out_jf):
    """Power spectrum of a field with itself, each pair of channels once.

    Parameters
    ----------
    c_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, n_max)
    l_max : int
    out_jf : ndarray (n_centres, (l_max + 1) * n_channels * (n_channels + 1) / 2)
        Written; features (l, x, y >= x), times √2 for x != y.
    """
    n_x = c_jamn.shape[1] * c_jamn.shape[3]
    channel_mx = np.empty((c_jamn.shape[2], n_x))
    square_xy = np.empty((n_x, n_x))
    for j in range(c_jamn.shape[0]):
        _channels(c_jamn, j, channel_mx)
        start = 0
        for l in range(l_max + 1):
            norm = 1.0 / math.sqrt(2 * l + 1)
            square_xy[:] = 0.0
            for m in range(l * l, (l + 1) * (l + 1)):
                channel_x = channel_mx[m]
                for x in range(n_x):
                    factor = norm * channel_x[x]
                    row_y = square_xy[x]
                    # The whole row: twice the sums, but of one length, which
                    # takes less than half the time of the upper triangle.
                    for y in range(n_x):
                        row_y[y] += factor * channel_x[y]
            for x in range(n_x):
                row_y = square_xy[x]
                out_y = out_jf[j, start : start + n_x - x]
                out_y[0] = row_y[x]
                for y in range(1, n_x - x):
                    out_y[y] = math.sqrt(2.0) * row_y[x + y]
                start += n_x - x


@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
def cross_spectrum(c_jamn, d_jamn, l_max, out_jf):
    """Power spectrum of two fields, features (l, x of the first, y of the second)."""
    n_x = c_jamn.shape[1] * c_jamn.shape[3]
    n_y = d_jamn.shape[1] * d_jamn.shape[3]
    first_mx = np.empty((c_jamn.shape[2], n_x))
    second_my = np.empty((d_jamn.shape[2], n_y))
    for j in range(c_jamn.shape[0]):
        _channels(c_jamn, j, first_mx)
        _channels(d_jamn, j, second_my)
        start = 0
        for l in range(l_max + 1):
            norm = 1.0 / math.sqrt(2 * l + 1)
            for x in range(n_x):
                out_y = out_jf[j, start : start + n_y]
                out_y[:] = 0.0
                for m in range(l * l, (l + 1) * (l + 1)):
                    factor = norm * first_mx[m, x]
                    other_y = second_my[m]
                    for y in range(n_y):
                        out_y[y] += factor * other_y[y]
                start += n_y


# Rows of one centre hold all components q side by side: each step of the innermost
# loop runs over n_q * n_y numbers instead of the few channels y.
@njit(cache=True, error_model="numpy", nogil=True, fastmath={"contract"})
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
    most = 0
    for b in range(block_b.shape[0]):
        most = max(most, 2 * block_b[b, 0] + 1)
    coupled_mqy = np.empty((most, width))
    root = math.sqrt(2.0)
    row_qy = np.empty(width)
    for j in range(c_jamn.shape[0]):
        _channels(c_jamn, j, first_mx)
        _channels(d_jamn, j, second_my)
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
