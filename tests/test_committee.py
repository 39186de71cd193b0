"""Committees: means of members, and a spread that is scaled to their errors."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones

import lode

RHO = lode.SphericalExpansion(
    lode.GaussianDensity(0.5), lode.RadialBasis.gto(3, 4.0), 2, tolerance=1e-11
)
KERNEL = lode.PolynomialKernel(lode.PowerSpectrum(RHO), degree=2, normalize=True)
MODEL = lode.SparseGaussianProcess(KERNEL, n_sparse=20, regularization=1e-6, n_folds=2)


def argon(n, seed=0):
    """Cells with the energies and forces of a pair potential."""
    frames, rng = [], np.random.default_rng(seed)
    for _ in range(n):
        atoms = bulk("Ar", a=5.2 + 0.1 * rng.normal(), cubic=True)
        atoms.positions += 0.15 * rng.normal(size=(4, 3))
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=7.0, smooth=True)
        frames.append(atoms)
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    forces = [atoms.get_forces() for atoms in frames]
    return [atoms.copy() for atoms in frames], energies, forces


FRAMES, ENERGIES, FORCES = argon(16)


def test_a_committee_predicts_the_mean_and_the_scaled_spread_of_its_members():
    committee = lode.Committee(MODEL, n_members=4).fit(FRAMES, ENERGIES, forces=FORCES)
    new = argon(3, seed=1)[0]
    found = [m.predict(new, forces=True, stress=True) for m in committee.members]
    mean = committee.predict(
        new, forces=True, stress=True, return_std=True, forces_std=True
    )
    energies = np.array([each.energy for each in found])
    np.testing.assert_allclose(mean.energy, energies.mean(axis=0))
    spread = committee.scale * energies.std(axis=0, ddof=1)
    np.testing.assert_allclose(mean.std, spread)
    forces = np.array([each.forces for each in found])
    np.testing.assert_allclose(mean.forces, forces.mean(axis=0))
    spread = committee.scale * forces.std(axis=0, ddof=1)
    np.testing.assert_allclose(mean.forces_std, spread)
    stress = np.mean([each.stress for each in found], axis=0)
    np.testing.assert_allclose(mean.stress, stress)
    alone, std = committee.predict(new, return_std=True)
    np.testing.assert_allclose(alone, mean.energy)
    np.testing.assert_allclose(std, mean.std)
    assert len({tuple(row) for row in energies.round(12)}) == 4


def test_the_scale_makes_spreads_as_large_as_errors_of_what_was_left_out():
    # Noise that nothing explains: each member sees some of it.
    targets = ENERGIES + 0.05 * np.random.default_rng(0).normal(size=16)
    committee = lode.Committee(MODEL, n_members=24).fit(FRAMES, targets)
    new, energies, _ = argon(40, seed=2)
    noisy = energies + 0.05 * np.random.default_rng(1).normal(size=40)
    mean, std = committee.predict(new, return_std=True)
    ratio = np.sqrt(np.mean(((mean - noisy) / std) ** 2))
    assert 0.4 <= ratio <= 2.5


def test_forces_are_derivatives_also_by_the_calculator():
    committee = lode.Committee(MODEL, n_members=3).fit(FRAMES, ENERGIES, forces=FORCES)
    atoms = FRAMES[0].copy()
    atoms.calc = lode.LODECalculator(committee, largest_uncertainty=1e3)

    def energy(step):
        moved = atoms.copy()
        moved.positions[1, 2] += step
        return committee.predict([moved])[0]

    def strained(step):
        strain, moved = np.eye(3), atoms.copy()
        strain[0, 0] += step
        moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        return committee.predict([moved])[0]

    def slope(function, h):
        near, far = (function(x) - function(-x) for x in (h, 2 * h))
        return (8 * near - far) / (12 * h)

    forces = atoms.get_forces()
    largest = np.abs(forces).max()
    expected = -slope(energy, 1e-3)
    assert forces[1, 2] == pytest.approx(expected, abs=1e-7 * largest)
    expected = slope(strained, 5e-4) / atoms.get_volume()
    assert atoms.get_stress()[0] == pytest.approx(expected, rel=1e-7)
    assert atoms.calc.results["uncertainty"] > 0.0
    assert "energies" not in atoms.calc.implemented_properties


def test_frames_of_a_group_are_learnt_by_the_same_members():
    groups = np.repeat(["a", "b", "c", "d"], 4)
    committee = lode.Committee(MODEL, n_members=5, share=0.5)
    committee.fit(FRAMES, ENERGIES, groups=groups)
    for member in committee.members:
        learnt = member.solution.modes.n_train
        assert learnt == 8


@pytest.mark.parametrize("kind", ["sparse", "full"])
def test_a_committee_is_saved_whole(kind, tmp_path):
    model = MODEL
    if kind == "full":
        model = lode.GaussianProcess(KERNEL, regularization=1e-6, n_folds=2)
    model = replace(model, baseline=lode.PointCharges({"Ar": 0.0}))
    committee = lode.Committee(model, n_members=2).fit(FRAMES, ENERGIES)
    committee.save(tmp_path / "committee.npz")
    loaded = lode.load(tmp_path / "committee.npz")
    found, expected = (m.predict(FRAMES, forces=True) for m in (loaded, committee))
    np.testing.assert_array_equal(found.energy, expected.energy)
    np.testing.assert_array_equal(found.forces, expected.forces)
    assert loaded.scale == committee.scale


def test_what_makes_no_committee_is_refused():
    with pytest.raises(TypeError, match="model must be a GaussianProcess"):
        lode.Committee(KERNEL)
    with pytest.raises(ValueError, match="n_members"):
        lode.Committee(MODEL, n_members=1)
    with pytest.raises(ValueError, match="share"):
        lode.Committee(MODEL, share=1.0)
    with pytest.raises(RuntimeError, match="fitted first"):
        lode.Committee(MODEL).predict(FRAMES)
    features = KERNEL.precompute(FRAMES)
    with pytest.raises(TypeError, match="from structures"):
        lode.Committee(MODEL).fit(features, ENERGIES)
    with pytest.raises(ValueError, match="one entry for each of 16 frames"):
        lode.Committee(MODEL).fit(FRAMES, ENERGIES, forces=FORCES[:3])


def salts():
    """Clusters of which one alone has potassium, and energies of their species."""
    frames = []
    for seed in range(9):
        symbols = "NaCl2" if seed % 2 else "Na2Cl"
        symbols = "KCl2" if seed == 4 else symbols
        frames.append(Atoms(symbols, 3.0 * np.eye(3)))
        frames[-1].rattle(0.2, seed=seed)
    own = {11: -1000.0, 17: -400.0, 19: -600.0}
    return frames, np.array([sum(own[z] for z in a.numbers) for a in frames])


def test_each_member_knows_the_constants_of_all_species():
    frames, energies = salts()
    model = replace(MODEL, intercept="species")
    committee = lode.Committee(model, n_members=4).fit(frames, energies)
    found, std = committee.predict(frames, return_std=True)
    assert np.abs(found - energies).max() < 1.0
    assert std.max() < 1.0
    # What only one frame determines cannot be left out.
    alone = [frames[0], frames[1], frames[4]]
    with pytest.raises(ValueError, match="determine the constants of all species"):
        lode.Committee(model, n_members=2, share=0.4).fit(alone, energies[[0, 1, 4]])


@pytest.mark.parametrize("share", [0.97, 0.01])
def test_parts_without_anything_on_one_side_are_refused(share):
    with pytest.raises(ValueError, match="share must leave frames"):
        lode.Committee(MODEL, share=share).fit(FRAMES, ENERGIES)


def test_members_of_few_frames_never_claim_to_be_sure():
    for seed in range(8):
        committee = lode.Committee(MODEL, seed=seed).fit(FRAMES[:12], ENERGIES[:12])
        assert committee.scale > 0.0


def test_members_may_know_different_boundaries():
    potential = lode.SphericalExpansion(
        lode.PowerLawPotential(1, 1.0), lode.RadialBasis.gto(2, 3.0), 1
    )
    kernel = lode.PolynomialKernel(lode.PowerSpectrum(potential))
    frames = [atoms.copy() for atoms in FRAMES[:8]]
    for frame in frames[2:]:
        frame.pbc = False
    model = replace(MODEL, kernel=kernel)
    committee = lode.Committee(model, n_members=3).fit(frames, ENERGIES[:8])
    assert np.isfinite(committee.predict(frames)).all()
    assert np.isfinite(committee.predict(frames[0])).all()
