"""Forces and stress of models against five-point differences of their energies."""

from dataclasses import replace

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from naive_kernels import ToyDescriptor

import lode

SMALL = bool(numba.config.DISABLE_JIT)
N_MAX, L_MAX = (2, 1) if SMALL else (3, 2)
BASIS = lode.RadialBasis.gto(N_MAX, 3.0)
# The tables' jumps between intervals must stay below what is tested.
RHO = lode.SphericalExpansion(lode.GaussianDensity(0.5), BASIS, L_MAX, tolerance=1e-11)
COULOMB = lode.SphericalExpansion(
    lode.PowerLawPotential(1, 1.0), BASIS, L_MAX, tolerance=1e-11, split=1.5
)
SOAP, LODE1 = lode.PowerSpectrum(RHO), lode.RadialSpectrum(COULOMB)
MIXED = lode.PowerSpectrum(RHO, COULOMB)
ONE, TWO, WHITE = lode.PolynomialKernel, lode.StructureKernel, lode.WhitenedKernel
KERNELS = {
    "degree 1": ONE(SOAP),
    "degree 1, all centres": ONE(SOAP, species_delta=False),
    "degree 1, averages by species": ONE(LODE1, average="species"),
    "degree 2": ONE(SOAP, degree=2),
    "degree 3, normalized": ONE(SOAP, degree=3, normalize=True),
    "normalized": ONE(MIXED, normalize=True),
    "degree 2, averages": ONE(MIXED, degree=2, average=True, species_delta=False),
    "sum": ONE(SOAP, degree=2, normalize=True) + 0.3 * ONE(LODE1),
    "linear sum": ONE(SOAP) + 0.3 * ONE(LODE1),
    "product": ONE(SOAP, normalize=True) * (0.5 * ONE(LODE1) + 2.0 * ONE(MIXED)),
    "structure": TWO(ONE(SOAP, average=True) + 0.2 * ONE(LODE1, average=True), 3),
    "whitened": WHITE(SOAP),
    "whitened products": WHITE(LODE1) * ONE(SOAP, normalize=True),
    "whitened, averages": WHITE(MIXED, average=True),
}
SPARSE = ("degree 2", "degree 3, normalized", "sum", "product", "structure", "whitened")


def crystals(n, seed=0):
    """Cells of two to four species, not all of the same."""
    rng = np.random.default_rng(seed)
    cell = np.array([[6.0, 0.0, 0.0], [1.0, 5.5, 0.0], [-0.5, 1.2, 6.5]])
    frames = []
    for i in range(n):
        own = cell * (1.0 + 0.02 * rng.normal())
        name = ("Na3Cl3", "Na2Cl3O", "NaCl2")[i % 3]
        n_atoms = len(Atoms(name))
        # A grid, displaced, so that no two atoms meet.
        grid = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3), -1).reshape(-1, 3)[:n_atoms]
        places = grid + 0.1 * rng.normal(size=(n_atoms, 3))
        frames.append(Atoms(name, places @ own, cell=own, pbc=True))
    return frames


FRAMES = crystals(7)
ENERGIES = np.random.default_rng(1).normal(size=6)


def fitted(kernel, frames=FRAMES[:-1], sparse=False):
    """A model that follows its targets closely: its energies change."""
    settings = {"regularization": 1e-4, "n_folds": 2}
    model = lode.GaussianProcess(kernel, **settings)
    if sparse:
        model = lode.SparseGaussianProcess(kernel, n_sparse=8, **settings)
    return model.fit(frames, ENERGIES)


def differences(function, step):
    """Five-point difference of a function of a displacement."""
    near, far = (
        function(step) - function(-step),
        function(2 * step) - function(-2 * step),
    )
    return (8.0 * near - far) / (12.0 * step)


def check_derivatives(model, atoms, tolerance=1e-7):
    """Some forces, and all components of the stress, of one frame among others."""
    wanted = {"forces": True, "stress": bool(atoms.pbc.all())}
    found = model.predict([FRAMES[0], atoms] if wanted["stress"] else [atoms], **wanted)
    energy = model.predict([atoms])[0]
    assert found.energy[-1] == pytest.approx(energy, rel=1e-10)
    forces = found.forces[-1]
    assert forces.shape == (len(atoms), 3)
    # Rounding of the energy is what differences of it cannot resolve.
    size = max(np.abs(forces).max(), 1e-4 * abs(energy))
    for i, x in [(0, 0), (1, 2), (len(atoms) - 1, 1)]:

        def moved(step, i=i, x=x):
            other = atoms.copy()
            other.positions[i, x] += step
            return model.predict([other])[0]

        assert abs(-differences(moved, 1e-3) - forces[i, x]) <= tolerance * size
    if not wanted["stress"]:
        return
    stress, volume = found.stress[-1], atoms.get_volume()
    size = max(np.abs(stress).max(), 1e-4 * abs(energy) / volume)
    for x, y in np.ndindex(3, 3):

        def strained(step, x=x, y=y):
            strain, other = np.eye(3), atoms.copy()
            strain[x, y] += step
            other.set_cell(atoms.cell.array @ strain.T, scale_atoms=True)
            return model.predict([other])[0]

        expected = differences(strained, 1e-4) / volume
        assert abs(expected - stress[x, y]) <= tolerance * size


@pytest.mark.parametrize("name", KERNELS)
def test_gaussian_process_has_the_forces_of_its_energies(name):
    check_derivatives(fitted(KERNELS[name]), FRAMES[-1])


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_model_has_the_forces_of_its_energies(name):
    check_derivatives(fitted(KERNELS[name], sparse=True), FRAMES[-1])


@pytest.mark.parametrize("kind", ["molecule", "slab", "contracted", "charges"])
def test_forces_hold_in_other_boundaries_and_bases(kind):
    kernel, frames = KERNELS["degree 2"], FRAMES[:-1]
    atoms = FRAMES[-1]
    if kind == "molecule":
        frames = [molecule(name) for name in ("H2O", "CO2", "NH3", "CH4", "HCN", "N2")]
        atoms = molecule("CH3OH")
        kernel = KERNELS["sum"]
    elif kind == "slab":
        frames = [
            fcc111("Al", (1, 2, 2), vacuum=None, orthogonal=True) for _ in range(6)
        ]
        for seed, frame in enumerate(frames):
            frame.rattle(0.1, seed=seed)
            frame.pbc = True, True, False
        atoms = frames[0].copy()
        atoms.rattle(0.1, seed=9)
    elif kind == "contracted":
        expansion = RHO.contracted(FRAMES[:3], 2)
        kernel = ONE(lode.PowerSpectrum(expansion), degree=2)
    else:
        for frame in FRAMES:
            charges = np.where(frame.numbers == 11, 1.0, -0.7)
            frame.set_initial_charges(charges)
        charges = replace(COULOMB, sources="charges")
        kernel = ONE(SOAP, normalize=True) * ONE(lode.RadialSpectrum(charges))
    check_derivatives(fitted(kernel, frames), atoms)


def test_forces_of_a_combination_are_those_of_its_structures():
    combined = [
        lode.LinearCombination([a, b], [1.0, -0.5])
        for a, b in zip(FRAMES[:6], FRAMES[1:], strict=True)
    ]
    model = fitted(KERNELS["degree 2"], combined)
    one, two = FRAMES[0], FRAMES[3]
    frame = lode.LinearCombination([one, two, one], [2.0, -1.0, 0.25])
    found = model.predict([frame], forces=True)
    assert found.energy == pytest.approx(model.predict([frame]), rel=1e-10)
    apart = [lode.LinearCombination([a], [1.0]) for a in (one, two)]
    single = model.predict(apart, forces=True).forces
    first, second, third = found.forces[0]
    size = np.abs(first).max()
    np.testing.assert_allclose(first, 2.0 * single[0][0], atol=1e-12 * size)
    np.testing.assert_allclose(second, -single[1][0], atol=1e-12 * size)
    np.testing.assert_allclose(third, 0.25 * single[0][0], atol=1e-12 * size)
    with pytest.raises(ValueError, match="got combinations"):
        model.predict([frame], stress=True)


def test_forces_do_not_depend_on_threads_or_company():
    model = fitted(KERNELS["sum"])
    frames = crystals(8, seed=3)
    together = model.predict(frames, forces=True, stress=True, n_threads=1)
    on_two = model.predict(frames, forces=True, stress=True, n_threads=2)
    for a, b in zip(together.forces, on_two.forces, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(together.stress, on_two.stress)
    for place in (0, 5):
        alone = model.predict([frames[place]], forces=True, stress=True)
        size = np.abs(alone.forces[0]).max()
        error = np.abs(alone.forces[0] - together.forces[place]).max()
        assert error <= 1e-12 * size
        error = np.abs(alone.stress[0] - together.stress[place]).max()
        assert error <= 1e-12 * np.abs(alone.stress).max()


def test_a_loaded_model_has_the_same_forces(tmp_path):
    for sparse in (False, True):
        model = fitted(KERNELS["sum"], sparse=sparse)
        model.save(tmp_path / "model.npz")
        expected = model.predict(FRAMES[-1:], forces=True).forces[0]
        found = lode.load(tmp_path / "model.npz").predict(FRAMES[-1:], forces=True)
        np.testing.assert_array_equal(found.forces[0], expected)


def test_what_is_not_asked_for_is_not_there():
    model = fitted(KERNELS["linear sum"])
    found = model.predict(FRAMES[-1:], forces=True)
    assert isinstance(found, lode.Prediction)
    assert found.stress is None
    assert found.std is None
    found = model.predict(FRAMES[-1:], stress=True, return_std=True)
    assert found.forces is None
    energy, std = model.predict(FRAMES[-1:], return_std=True)
    assert found.std == pytest.approx(std)
    assert found.energy == pytest.approx(energy)


def test_forces_that_cannot_be_are_refused():
    model = fitted(KERNELS["degree 2"])
    other = FRAMES[0].copy()
    other.pbc = False
    with pytest.raises(ValueError, match=r"periodic in three directions, .*frame 1"):
        model.predict([FRAMES[0], other], stress=True)
    with pytest.raises(ValueError, match="species"):
        model.predict([Atoms("He", cell=[5, 5, 5], pbc=True)], forces=True)
    step = replace(RHO, cutoff_function=lode.StepCutoff(3.0))
    with pytest.raises(ValueError, match="derivatives need a smooth cutoff_function"):
        fitted(ONE(lode.PowerSpectrum(step))).predict(FRAMES[:1], forces=True)
    with pytest.raises(TypeError, match="features_and_vjp, got ToyDescriptor"):
        fitted(ONE(ToyDescriptor())).predict(FRAMES[:1], forces=True)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("angular", [1, 2])
def test_tensors_have_the_derivatives_of_differences(angular, average):
    descriptors = [
        lode.EquivariantPowerSpectrum(RHO, angular=angular),
        lode.EquivariantPowerSpectrum(RHO, COULOMB, angular=angular),
    ]
    targets = np.random.default_rng(2).normal(size=(6, 2 * angular + 1))
    model = lode.EquivariantRegression(descriptors, average=average, regularization=0.1)
    model.fit(FRAMES[:-1], targets)
    frames = [FRAMES[2], FRAMES[-1]]
    values, found = model.predict(frames, derivatives=True)
    np.testing.assert_allclose(values, model.predict(frames), rtol=1e-12)
    assert [len(d) for d in found] == [3, 6]
    for i, x in [(0, 0), (2, 1), (5, 2)]:

        def moved(step, i=i, x=x):
            other = FRAMES[-1].copy()
            other.positions[i, x] += step
            return model.predict([other])[0]

        error = np.abs(differences(moved, 1e-3) - found[1][i, x]).max()
        assert error <= 1e-7 * np.abs(found[1]).max()


def test_born_charges_of_a_cell_add_up_to_nothing():
    descriptor = lode.EquivariantPowerSpectrum(RHO, COULOMB, angular=1)
    targets = np.random.default_rng(2).normal(size=(6, 3))
    model = lode.EquivariantRegression(descriptor, regularization=0.1)
    model.fit(FRAMES[:-1], targets)
    _, (found,) = model.predict(FRAMES[-1:], derivatives=True)
    # All atoms together do not change the dipole of a periodic density.
    charges = lode.cartesian_vector(found)
    assert np.abs(charges.sum(axis=0)).max() <= 1e-9 * np.abs(charges).max()
