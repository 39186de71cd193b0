import numba
import numpy as np
import pytest
from scipy import special


@pytest.fixture(autouse=True, scope="session")
def _vectorised_bessel_functions():
    # As plain Python the Bessel functions of one table take minutes. Their loop has
    # a test of its own (test_radial); elsewhere SciPy's stand in for it.
    if not numba.config.DISABLE_JIT:
        yield
        return
    from lode.core import radial

    def spherical_bessel(x, l_max):
        return special.spherical_jn(np.arange(l_max + 1)[:, None], x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radial, "spherical_bessel", spherical_bessel)
        yield


@pytest.fixture
def many_pieces(monkeypatch):
    """Threads also where so little work is not worth them."""
    for name in ("_LEAST_SHARE", "_LEAST_JOINED"):
        monkeypatch.setattr(f"lode.expansion.{name}", 1e-6)
