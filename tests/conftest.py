import numba
import numpy as np
import pytest
from scipy import special


@pytest.fixture(autouse=True, scope="session")
def _vectorised_bessel_functions():
    # As plain Python the Bessel functions of one table take minutes. Their loop has
    # a test of its own (test_tables); elsewhere SciPy's stand in for it.
    if not numba.config.DISABLE_JIT:
        yield
        return
    from lode import tables

    def spherical_bessel(x, l_max):
        return special.spherical_jn(np.arange(l_max + 1)[:, None], x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "spherical_bessel", spherical_bessel)
        yield


@pytest.fixture
def many_pieces(monkeypatch):
    """Blocks of few centres, on several threads where that is not worth it."""
    for module in ("expansion", "systems"):
        monkeypatch.setattr(f"lode.{module}.LEAST_CENTERS", 1)
    monkeypatch.setattr("lode.pairs._CENTERS", 5)
    monkeypatch.setattr("lode.reciprocal._CENTERS", 5)
    monkeypatch.setattr("lode.reciprocal.ProductTerm.block", 5)
