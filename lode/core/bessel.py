"""Compiled loops of :mod:`lode.tables`."""

import math

import numpy as np

from lode.core.compilation import compiled


@compiled
def spherical_bessel(x, l_max):
    """Spherical Bessel functions of the first kind.

    Parameters
    ----------
    x : ndarray (n,)
        Arguments, not negative.
    l_max : int
        Highest order.

    Returns
    -------
    ndarray (l_max + 1, n)
    """
    j_lx = np.empty((l_max + 1, x.shape[0]))
    work = np.empty(l_max + 2)
    for i in range(x.shape[0]):
        xi = x[i]
        if xi < 0.05:
            # Power series, four terms: 0.05^8 is below the rounding error.
            half = 0.5 * xi * xi
            lead = 1.0
            for l in range(l_max + 1):
                if l > 0:
                    lead *= xi / (2 * l + 1)
                t1 = half / (2 * l + 3)
                t2 = t1 * half / (2 * (2 * l + 5))
                t3 = t2 * half / (3 * (2 * l + 7))
                t4 = t3 * half / (4 * (2 * l + 9))
                j_lx[l, i] = lead * (1.0 - t1 + t2 - t3 + t4)
            continue
        s = math.sin(xi)
        c = math.cos(xi)
        j0 = s / xi
        j1 = (j0 - c) / xi
        if xi > l_max:
            # Upward recurrence is stable only where the argument leads the order.
            j_lx[0, i] = j0
            if l_max > 0:
                j_lx[1, i] = j1
            for l in range(1, l_max):
                j_lx[l + 1, i] = (2 * l + 1) / xi * j_lx[l, i] - j_lx[l - 1, i]
            continue
        # Downward (Miller), scaled by the larger of j0 and j1.
        above = 0.0
        value = 1e-280
        start = l_max + 20
        for l in range(start, 0, -1):
            below = (2 * l + 1) / xi * value - above
            above = value
            value = below
            if abs(value) > 1e200:
                value *= 1e-280
                above *= 1e-280
                for q in range(l, l_max + 1):
                    work[q] *= 1e-280
            if l - 1 <= l_max:
                work[l - 1] = value
        by_first = abs(j0) > abs(j1) or l_max == 0
        scale = j0 / work[0] if by_first else j1 / work[1]
        for l in range(l_max + 1):
            j_lx[l, i] = work[l] * scale
    return j_lx
