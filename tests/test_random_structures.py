import numba
import numpy as np
import pytest
from random_structures import (
    description,
    ewald_outcome,
    expansion_case,
    expansion_outcome,
    outcome,
)

import lode

pytestmark = pytest.mark.skipif(
    numba.config.DISABLE_JIT, reason="hundreds of expansions as plain Python"
)


def test_random_structures_keep_their_coefficients_within_the_tolerance():
    found = [expansion_outcome(seed) for seed in range(30)]
    failed = [description("expansion", result) for result in found if result.failed]
    assert failed == []
    # All kinds of comparison are among them.
    names = {name.split(" at ")[0] for result in found for name in result.ratios}
    assert {"supercell", "split", "nufft", "reciprocal", "pairs"} <= names


def test_forces_and_stress_of_random_charges_are_slopes_of_the_energy():
    found = [ewald_outcome(seed) for seed in range(40)]
    assert [description("ewald", result) for result in found if result.failed] == []
    assert {result.name for result in found} == {"finite", "periodic"}


def test_a_wrong_coefficient_is_found(monkeypatch):
    seed = next(i for i in range(20) if expansion_case(i)[0].pbc.all())
    assert not outcome("expansion", seed).failed
    compute = lode.SphericalExpansion.compute

    def depends_on_the_place(self, frames, **options):
        found = compute(self, frames, **options)
        error = 1.0 + 100 * self.tolerance * np.sin(frames.positions[0, 0])
        np.multiply(found.values, error, out=found.values)
        return found

    monkeypatch.setattr(lode.SphericalExpansion, "compute", depends_on_the_place)
    result = outcome("expansion", seed)
    assert result.failed
    assert "translation" in description("expansion", result)
