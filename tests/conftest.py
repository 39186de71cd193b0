import numba
import numpy as np
import pytest
from scipy import special
from workflow_runs import TEST_RUN, project_copy, snakemake


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


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A copy in which the test configuration has run, and which files that made."""
    folder = project_copy(tmp_path_factory.mktemp("finished"))
    before = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    snakemake(folder, "all", "examples", *TEST_RUN, "--cores", "2")
    after = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    return folder, {path.relative_to(folder) for path in after - before}
