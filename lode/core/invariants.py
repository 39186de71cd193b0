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
