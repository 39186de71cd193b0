"""Baselines: what models learn differences to, and add to their predictions."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

import lode

RHO = lode.SphericalExpansion(
    lode.GaussianDensity(0.5), lode.RadialBasis.gto(2, 3.0), 1, tolerance=1e-11
)
KERNEL = lode.PolynomialKernel(lode.PowerSpectrum(RHO), degree=2, normalize=True)
IONS = lode.PointCharges({"Na": 1.0, "Cl": -1.0})
MODELS = {
    "full": lode.GaussianProcess,
    "sparse": lambda kernel, **options: lode.SparseGaussianProcess(
        kernel, n_sparse=20, **options
    ),
}


def salts(n):
    frames = []
    for seed in range(n):
        atoms = bulk("NaCl", "rocksalt", a=5.5 + 0.05 * seed, cubic=True)
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_nothing_but_its_baseline_is_the_baseline(kind):
    frames = salts(6)
    energies = np.array([IONS.evaluate(atoms).energy for atoms in frames])
    model = MODELS[kind](KERNEL, regularization=1e-6, baseline=IONS)
    model.fit(frames[:-1], energies[:-1])
    found = model.predict(frames[-1:], forces=True, stress=True)
    expected = IONS.evaluate(frames[-1])
    assert found.energy[0] == pytest.approx(expected.energy, abs=1e-9)
    np.testing.assert_allclose(found.forces[0], expected.forces, atol=1e-8)
    np.testing.assert_allclose(found.stress[0], expected.stress, atol=1e-9)
    energy, std = model.predict(frames[-1:], return_std=True)
    assert energy[0] == pytest.approx(expected.energy, abs=1e-9)
    assert std.shape == (1,)


@pytest.mark.parametrize("kind", MODELS)
def test_forces_with_a_baseline_are_those_of_the_energies(kind):
    frames = salts(6)
    energies = np.random.default_rng(0).normal(size=5)
    model = MODELS[kind](KERNEL, regularization=1e-6, baseline=IONS)
    model.fit(frames[:-1], energies)
    atoms = frames[-1]
    forces = model.predict([atoms], forces=True).forces[0]
    size = np.abs(forces).max()
    for i, x in ((0, 0), (5, 2)):
        values = []
        for step in (-2e-3, -1e-3, 1e-3, 2e-3):
            moved = atoms.copy()
            moved.positions[i, x] += step
            values.append(model.predict([moved])[0])
        slope = np.dot([1, -8, 8, -1], values) / 12e-3
        assert abs(forces[i, x] + slope) <= 1e-7 * size


def test_a_calculator_of_ase_is_a_baseline():
    frames = [bulk("Cu", cubic=True) for _ in range(4)]
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
    energies = []
    for atoms in frames:
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy() + 1.0)
    model = lode.GaussianProcess(KERNEL, regularization=1e-6, baseline=EMT())
    model.fit(frames[:3], energies[:3])
    found = model.predict(frames[3:], forces=True, stress=True)
    assert found.energy[0] == pytest.approx(energies[3], abs=1e-9)
    np.testing.assert_allclose(found.forces[0], frames[3].get_forces(), atol=1e-9)
    expected = frames[3].get_stress(voigt=False)
    np.testing.assert_allclose(found.stress[0], expected, atol=1e-9)


def test_differences_of_energies_have_the_baseline_s_difference():
    ammonium = Atoms("NH4", 0.6 * np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1],
                                            [-1, 1, -1], [1, -1, -1]]))  # fmt: skip
    formate = Atoms("CHO2", [[0, 0, 0], [0, 0, 1.1], [1.1, 0, -0.6], [-1.1, 0, -0.6]])
    frames = []
    for distance in np.linspace(4.0, 9.0, 8):
        moved = formate.copy()
        moved.translate([0, 0, distance])
        frames.append(ammonium + moved)
    pairs = lode.interactions(frames, [5] * 8)
    charges = lode.PointCharges("formal")
    energies = [
        charges.evaluate(p.structures[0]).energy
        - charges.evaluate(p.structures[1]).energy
        - charges.evaluate(p.structures[2]).energy
        for p in pairs
    ]
    settings = {"regularization": 1e-6, "intercept": False, "baseline": charges}
    model = lode.GaussianProcess(KERNEL, **settings).fit(pairs[:-1], energies[:-1])
    found = model.predict(pairs[-1:], forces=True)
    assert found.energy[0] == pytest.approx(energies[-1], abs=1e-9)
    total = found.forces[0][0].sum(axis=0)
    assert np.abs(total).max() <= 1e-10


def test_point_charges_are_saved_with_the_model(tmp_path):
    frames = salts(5)
    path = tmp_path / "model.npz"
    for kind, charges in (("full", IONS), ("sparse", lode.PointCharges("initial"))):
        for atoms in frames:
            atoms.set_initial_charges(np.where(atoms.numbers == 11, 0.9, -0.9))
        model = MODELS[kind](KERNEL, regularization=1e-6, baseline=charges)
        model.fit(frames[:4], np.arange(4.0)).save(path)
        loaded = lode.load(path)
        assert loaded.baseline == charges
        np.testing.assert_array_equal(
            loaded.predict(frames[4:]), model.predict(frames[4:])
        )
    other = lode.GaussianProcess(KERNEL, regularization=1e-6, baseline=LennardJones())
    other.fit(frames[:4], np.arange(4.0))
    with pytest.raises(TypeError, match="baseline of PointCharges, got LennardJones"):
        other.save(tmp_path / "other.npz")


class Broken(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, *_, **__):
        raise ArithmeticError("it is broken")


def test_a_baseline_that_fails_names_the_frame():
    frames = salts(3)
    model = lode.GaussianProcess(KERNEL, baseline=Broken())
    with pytest.raises(RuntimeError, match=r"failed \(frame 0\): it is broken"):
        model.fit(frames, np.zeros(3))
    model = lode.GaussianProcess(KERNEL, baseline=lode.PointCharges())
    frames[0].set_initial_charges(np.zeros(8))
    with pytest.raises(ValueError, match=r"needs them, got none \(frame 1\)"):
        model.fit(frames, np.zeros(3))
    model = lode.GaussianProcess(KERNEL, baseline=lode.PointCharges({"Na": 1.0}))
    with pytest.raises(ValueError, match=r"got none for \['Cl'\] \(frame 0\)"):
        model.fit(frames, np.zeros(3))
    slab = fcc111("Al", (1, 1, 2), vacuum=5.0)
    slab.pbc = True, True, False
    model = lode.GaussianProcess(KERNEL, baseline=lode.PointCharges({"Al": 0.0}))
    with pytest.raises(ValueError, match=r"or in none, got pbc = .*frame 0"):
        model.fit([slab, slab], np.zeros(2))


def test_a_baseline_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="or a calculator of ASE, got str"):
        lode.GaussianProcess(KERNEL, baseline="formal")
    with pytest.raises(ValueError, match="must be one of"):
        lode.PointCharges("none")
    with pytest.raises(ValueError, match="those of elements, got 'X2'"):
        lode.PointCharges({"X2": 1.0})
    with pytest.raises(ValueError, match="finite, got nan of Na"):
        lode.PointCharges({"Na": np.nan})
    kernel, water = KERNEL, [molecule("H2O")] * 2
    model = lode.GaussianProcess(kernel, baseline=lode.PointCharges("formal"))
    with pytest.raises(TypeError, match="a baseline needs structures, got Features"):
        model.fit(kernel.descriptors[0].compute(water), np.zeros(2))
