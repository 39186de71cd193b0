"""Gradients of fields on a periodic grid at points between its own.

Index legend: j point, x axis, w place of the kernel along an axis, r row of the grid,
z along such a row.
"""

import numpy as np

from lode.core.compilation import CONTRACT, compiled
from lode.core.registers import LANES, lane_sum, load, whole_lanes


@compiled(fastmath=CONTRACT)
def interpolated_gradients(grid_rz, sizes, first_jx, kernel_jxw, factor_j):
    """Re[conj(factor) ∇f] at points, for a complex field f on a periodic grid.

    With a kernel p, f(r) = Σ p(x) p(y) p(z) f_xyz over the grid around the point.

    Parameters
    ----------
    grid_rz : ndarray (n_x * n_y, at least 2 * n_z + whole_lanes(2 * width))
        Real parts and, after each, imaginary parts. Rows go on periodically.
    sizes : ndarray (3,) of int
        n_x, n_y, n_z.
    first_jx : ndarray (n, 3) of int
        First place of the grid under the kernel.
    kernel_jxw : ndarray (n, 6, width)
        Values of the kernel along the three axes, then slopes.
    factor_j : ndarray (n,) of complex

    Returns
    -------
    ndarray (n, 3)
    """
    n, width = kernel_jxw.shape[0], kernel_jxw.shape[2]
    out_jx, row_y = np.empty((n, 3)), np.empty(width, np.int64)
    # Values and slopes along rows, times real and imaginary part of the factor.
    along_vz, room = np.zeros((2, whole_lanes(2 * width))), np.zeros((1, LANES))
    zero = load(room, 0, 0)
    for j in range(n):
        kernel_xw, start = kernel_jxw[j], 2 * first_jx[j, 2]
        for w in range(width):
            row_y[w] = (first_jx[j, 1] + w) % sizes[1]
            for v in range(2):
                along_vz[v, 2 * w] = kernel_xw[2 + 3 * v, w] * factor_j[j].real
                along_vz[v, 2 * w + 1] = kernel_xw[2 + 3 * v, w] * factor_j[j].imag
        d_x, d_y, d_z = zero, zero, zero
        for z in range(0, 2 * width, LANES):
            slope_x, slope_y, value_xy = zero, zero, zero
            for w_x in range(width):
                row_x = (first_jx[j, 0] + w_x) % sizes[0] * sizes[1]
                value, slope = zero, zero
                for w in range(width):
                    f = load(grid_rz, row_x + row_y[w], start + z)
                    value = value + kernel_xw[1, w] * f
                    slope = slope + kernel_xw[4, w] * f
                slope_x = slope_x + kernel_xw[3, w_x] * value
                slope_y = slope_y + kernel_xw[0, w_x] * slope
                value_xy = value_xy + kernel_xw[0, w_x] * value
            d_x = d_x + slope_x * load(along_vz, 0, z)
            d_y = d_y + slope_y * load(along_vz, 0, z)
            d_z = d_z + value_xy * load(along_vz, 1, z)
        out_jx[j, 0] = lane_sum(d_x, room)
        out_jx[j, 1] = lane_sum(d_y, room)
        out_jx[j, 2] = lane_sum(d_z, room)
    return out_jx
