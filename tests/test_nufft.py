"""Gradients of Fourier sums against the sums themselves."""

import numba
import numpy as np
import pytest

from lode.nufft import GradientPlan

# Interpreted loops are a thousand times slower.
N_POINTS = 5 if numba.config.DISABLE_JIT else 200


@pytest.mark.parametrize("accuracy", [1e-2, 1e-4, 1e-6, 1e-9, 1e-12, 1e-14])
@pytest.mark.parametrize("sizes", [(3, 9, 5), (9, 15, 7), (19, 11, 21)])
def test_gradients_are_those_of_the_sum(sizes, accuracy):
    rng = np.random.default_rng(0)
    # The last ones lie where the grid begins and ends.
    ends = np.repeat([[-np.pi, np.pi, 0.0]], 3, axis=0)
    angle_xj = np.hstack([rng.uniform(-np.pi, np.pi, (3, N_POINTS)), ends])
    grid, factor_j = (
        rng.normal(size=(*shape, 2)) @ [1.0, 1j]
        for shape in (sizes, angle_xj.shape[1:])
    )
    middle = np.array(sizes)[:, None] // 2
    k_xk = np.indices(sizes).reshape(3, -1) - middle
    term_jk = factor_j.conj()[:, None] * np.exp(1j * angle_xj.T @ k_xk) * grid.ravel()
    expected = (1j * term_jk @ k_xk.T).real
    found = GradientPlan(angle_xj, sizes, accuracy).execute(grid, factor_j)
    # The width of the kernel follows from an estimate.
    error, norm = (np.sqrt(np.mean(v**2)) for v in (found - expected, expected))
    assert error <= max(2.0 * accuracy, 2e-13) * norm
