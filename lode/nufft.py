"""Non-uniform fast Fourier transforms, by finufft on one thread."""

import numpy as np


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
