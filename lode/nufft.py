"""Non-uniform fast Fourier transforms on one thread: sums by finufft, and gradients."""

import math

import numpy as np
from scipy import fft, special

from lode.core import nufft as core
from lode.core.registers import whole_lanes

# Of the grid from which gradients are interpolated: less makes wide kernels, more long
# transforms.
_UPSAMPLING = 1.5


def to_grid(angle_xj, sizes, accuracy, upsampling, sign=-1):
    """Plan of sums over points, Σ_j s_j exp(± i k·θ_j), for the k of a grid.

    Parameters
    ----------
    angle_xj : ndarray (3, n_points)
        Points, from -π to π.
    sizes : tuple of three int
        Of the grid of whole numbers k, with zero in its middle.
    accuracy : float
        Relative to the norm of the result.
    upsampling : float
        Of finufft's fine grid.
    sign : int
        Of the exponent.

    Returns
    -------
    finufft.Plan

    Raises
    ------
    ImportError
        If finufft is not installed.
    """
    return _plan(1, angle_xj, sizes, accuracy, upsampling, sign)


def from_grid(angle_xj, sizes, accuracy, upsampling, sign=1):
    """Plan of sums over a grid at points, see :func:`to_grid`."""
    return _plan(2, angle_xj, sizes, accuracy, upsampling, sign)


def _plan(kind, angle_xj, sizes, accuracy, upsampling, sign):
    # Imported where it is needed: it takes a tenth of a second.
    try:
        import finufft
    except ImportError as error:
        raise ImportError(
            "the non-uniform Fourier transforms of large periodic frames need finufft "
            "(pip install finufft); the methods 'split' and 'reciprocal' do without"
        ) from error
    settings = {"isign": sign, "upsampfac": upsampling, "nthreads": 1}
    plan = finufft.Plan(kind, sizes, 1, accuracy, **settings)
    plan.setpts(*np.ascontiguousarray(angle_xj))
    return plan


class GradientPlan:
    """Plan of gradients of sums over a grid at points, see :func:`from_grid`.

    Such a sum is interpolated from its values on a finer grid by a kernel, here that
    of Kaiser and Bessel. The slopes of the kernel give all of the gradient from the
    same values; finufft, which gives sums alone, would transform three times.

    Parameters
    ----------
    angle_xj, sizes, accuracy
        As for :func:`to_grid`.
    """

    def __init__(self, angle_xj, sizes, accuracy):
        decay = math.pi * math.sqrt(1.0 - 1.0 / _UPSAMPLING)
        # One more for the slopes, in which aliases of larger k weigh more.
        width = math.ceil(-math.log(accuracy) / decay) + 1
        shape = math.pi * width * (1.0 - 0.5 / _UPSAMPLING)
        fine_sizes = [max(math.ceil(_UPSAMPLING * n), 2 * width) for n in sizes]
        self.fine_sizes = np.array([fft.next_fast_len(n) for n in fine_sizes])
        place_jx = angle_xj.T * (self.fine_sizes / (2.0 * math.pi))
        # Neighbors read the same part of the grid while the cache holds it.
        self.order = np.lexsort(np.floor(place_jx).T[::-1])
        place_jx = place_jx[self.order]
        first_jx = np.ceil(place_jx - 0.5 * width)
        self.first_jx = first_jx.astype(int) % self.fine_sizes
        self.kernel_jxw = np.empty((len(place_jx), 6, width))
        self.weights, self.phases = [], []
        for x, (size, n) in enumerate(zip(sizes, self.fine_sizes, strict=True)):
            offset_jw = (first_jx - place_jx)[:, x, None] + np.arange(width)
            value_jw, slope_jw = _kaiser_bessel(2.0 / width * offset_jw, shape)
            self.kernel_jxw[:, x] = value_jw
            self.kernel_jxw[:, 3 + x] = -n / (math.pi * width) * slope_jw
            axis, top = (-1, *(1,) * (2 - x)), size // 2
            # The kernel's own transform at each k, by which the sum is divided.
            turn_k = math.pi * width / n * (np.arange(size) - top)
            root_k = np.sqrt(shape**2 - turn_k**2)
            integral_k = (np.exp(root_k - shape) - np.exp(-root_k - shape)) / root_k
            self.weights.append((2.0 / width / integral_k).reshape(axis))
            # Fourier transforms count k from zero.
            phase_n = np.exp(-2j * math.pi * top / n * np.arange(n))
            self.phases.append(phase_n.reshape(axis))

    def execute(self, grid, factor_j):
        """Re[conj(factor_j) ∂/∂θ_j Σ_k grid_k exp(i k·θ_j)].

        Parameters
        ----------
        grid : ndarray of complex
            Of the plan's sizes.
        factor_j : ndarray (n_points,) of complex

        Returns
        -------
        ndarray (n_points, 3)
        """
        axes = zip(self.fine_sizes, self.weights, self.phases, strict=True)
        for x, (n, weight, phase) in enumerate(axes):
            grid = fft.ifft(grid * weight, n, axis=x, norm="forward")
            grid *= phase
        # Rows go on periodically for as long as registers read.
        over = whole_lanes(2 * self.kernel_jxw.shape[2]) // 2
        grid = np.concatenate([grid, grid[:, :, :over]], axis=2)
        grid_rz = grid.view(float).reshape(-1, 2 * grid.shape[2])
        settings = self.fine_sizes, self.first_jx, self.kernel_jxw
        out_jx = np.empty((len(factor_j), 3))
        out_jx[self.order] = core.interpolated_gradients(
            grid_rz, *settings, factor_j[self.order]
        )
        return out_jx


def _kaiser_bessel(t, shape):
    """I_0(shape √(1 - t²)) for -1 ≤ t ≤ 1, and its slope, both over exp(shape)."""
    # Not zero, by which the slope could not be divided.
    root = shape * np.sqrt(np.maximum(1.0 - t**2, 1e-30))
    decay = np.exp(root - shape)
    slope = -(shape**2) * t * special.i1e(root) / root
    return decay * special.i0e(root), decay * slope
