"""Models that learn from forces and stress beside energies."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones

import lode

RHO = lode.SphericalExpansion(
    lode.GaussianDensity(0.5), lode.RadialBasis.gto(3, 4.0), 2, tolerance=1e-11
)
COULOMB = lode.SphericalExpansion(
    lode.PowerLawPotential(1, 1.0), lode.RadialBasis.gto(2, 3.0), 1, tolerance=1e-11
)
KERNEL = lode.PolynomialKernel(lode.PowerSpectrum(RHO), degree=2, normalize=True)
LONG = KERNEL + 0.5 * lode.PolynomialKernel(lode.RadialSpectrum(COULOMB))


def argon(n, seed=0):
    """Cells of a potential without anything long-ranged, with all its derivatives."""
    frames = []
    rng = np.random.default_rng(seed)
    for _ in range(n):
        atoms = bulk("Ar", a=5.2 + 0.1 * rng.normal(), cubic=True)
        atoms.positions += 0.15 * rng.normal(size=(4, 3))
        calculator = LennardJones(sigma=3.4, epsilon=0.0104, rc=7.0, smooth=True)
        atoms.calc = calculator
        frames.append(atoms)
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    forces = [atoms.get_forces() for atoms in frames]
    stress = [atoms.get_stress() for atoms in frames]
    return [atoms.copy() for atoms in frames], energies, forces, stress


def sparse(kernel=KERNEL, **options):
    options = {"n_sparse": 12, "regularization": 1e-8, **options}
    return lode.SparseGaussianProcess(kernel, **options)


def features_of(model, frames):
    """Features that a model is linear in."""
    if isinstance(model, lode.SparseGaussianProcess):
        return model.features(frames)
    kernel = model.fitted_kernel
    described = kernel.precompute(frames, species=model.species)
    return kernel.linear_features(described, kernel.columns(described))


def slopes(model, atoms):
    """Derivatives of a frame's features: minus the forces' rows, and six strains'."""

    def features(moved):
        return features_of(model, [moved])[0]

    def difference(displaced, step):
        near, far = (displaced(h) - displaced(-h) for h in (step, 2 * step))
        return (8 * near - far) / (12 * step)

    rows, strains = [], []
    for i, x in np.ndindex(len(atoms), 3):

        def displaced(step, i=i, x=x):
            moved = atoms.copy()
            moved.positions[i, x] += step
            return features(moved)

        rows.append(-difference(displaced, 1e-3))
    for x, y in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):

        def strained(step, x=x, y=y):
            strain = np.eye(3)
            strain[x, y] += step / 2
            strain[y, x] += step / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            return features(moved)

        strains.append(difference(strained, 1e-4) / atoms.get_volume())
    return np.array(rows), np.array(strains)


def fitted(kind, **options):
    """A model of a few frames, and the rows and targets that it learnt from."""
    frames, energies, forces, stress = argon(4)
    # Cells of other sizes: constants of species are not the same as an intercept.
    frames[3] = frames[3] * (1, 1, 2)
    energies[3] *= 2
    forces[3], stress[3] = np.tile(forces[3], (2, 1)), None
    forces[1], stress[2] = None, None
    noises = {"energy_noise": 2e-3, "force_noise": 0.1, "stress_noise": 5e-3}
    options = {"regularization": 1e-4, **noises, **options}
    if kind == "linear":
        linear = lode.PolynomialKernel(lode.PowerSpectrum(RHO))
        kernel = linear + 0.5 * lode.PolynomialKernel(lode.RadialSpectrum(COULOMB))
        model = lode.GaussianProcess(kernel, **options)
    else:
        model = sparse(LONG, **options)
    model.fit(frames, energies, forces=forces, stress=stress)
    rows, targets = [], []
    for a, e, f, s in zip(frames, energies, forces, stress, strict=True):
        rows.append(energy_row(model, a) / (2e-3 * len(a)))
        targets.append([e / (2e-3 * len(a))])
        of_positions, of_strain = slopes(model, a)
        if f is not None:
            zeros = np.zeros((3 * len(a), 1))
            rows.append(np.hstack([zeros, of_positions / 0.1]))
            targets.append(f.ravel() / 0.1)
        if s is not None:
            rows.append(np.hstack([np.zeros((6, 1)), of_strain / 5e-3]))
            targets.append(s / 5e-3)
    return model, frames, np.vstack(rows), np.concatenate(targets)


def energy_row(model, atoms):
    """Constant and features of one frame."""
    constant = len(atoms) if model.intercept == "species" else 1.0
    return np.array([[constant, *features_of(model, [atoms])[0]]])


@pytest.mark.parametrize("kind", ["sparse", "linear"])
@pytest.mark.parametrize("intercept", [True, "species"])
def test_the_solution_is_that_of_all_rows_at_once(kind, intercept):
    model, frames, rows, targets = fitted(kind, intercept=intercept)
    # Without the constant, what is left of the rows and of the targets.
    one = rows[:, :1]
    share = one @ np.linalg.pinv(one)
    centred = rows[:, 1:] - share @ rows[:, 1:]
    ridge = model.solution.ridge
    assert ridge == pytest.approx(1e-4 * np.sum(centred**2) / len(rows), rel=1e-5)
    matrix = centred.T @ centred + ridge * np.eye(centred.shape[1])
    weights = np.linalg.solve(matrix, centred.T @ targets)
    constant = (np.linalg.pinv(one) @ (targets - rows[:, 1:] @ weights))[0]
    coefficients = np.array([constant, *weights])
    expected = [(energy_row(model, a) @ coefficients)[0] for a in frames]
    found = model.predict(frames)
    assert np.abs(found - expected).max() <= 1e-6 * np.ptp(expected)
    with_forces = model.predict(frames, forces=True)
    np.testing.assert_allclose(with_forces.energy, found, rtol=1e-12)


@pytest.mark.parametrize("kind", ["sparse", "linear"])
@pytest.mark.parametrize("intercept", [True, "species"])
def test_uncertainties_are_those_of_bayes(kind, intercept, tmp_path):
    model, frames, rows, _ = fitted(kind, intercept=intercept, regularization=1e-2)
    ridge = model.solution.ridge * np.eye(rows.shape[1])
    ridge[0, 0] = 0.0
    covariance = np.linalg.inv(rows.T @ rows + ridge)
    unit = model.solution.variance * model.solution.ridge

    def std(rows, noise):
        return np.sqrt(
            unit * (np.einsum("ap,pq,aq->a", rows, covariance, rows) + noise**2)
        )

    new = argon(1, seed=5)[0]
    found = model.predict(new, return_std=True, forces=True, forces_std=True)
    assert found.std == pytest.approx(
        std(energy_row(model, new[0]), 4 * 2e-3), rel=1e-5
    )
    of_positions, _ = slopes(model, new[0])
    rows = np.hstack([np.zeros((12, 1)), of_positions])
    expected = std(rows, 0.1).reshape(4, 3)
    np.testing.assert_allclose(found.forces_std[0], expected, rtol=1e-4)
    model.save(tmp_path / "model.npz")
    again = lode.load(tmp_path / "model.npz").predict(new, return_std=True)[1]
    np.testing.assert_allclose(again, found.std, rtol=1e-12)


def test_forces_teach_what_energies_alone_do_not():
    frames, energies, forces, stress = argon(10)
    new, expected, true_forces, true_stress = argon(5, seed=1)
    errors = []
    for taught in ({}, {"forces": forces}, {"forces": forces, "stress": stress}):
        model = sparse(n_sparse=40, regularization=None, n_folds=3)
        model.fit(frames, energies, **taught)
        found = model.predict(new, forces=True, stress=True)
        voigt = found.stress[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        pairs = (
            (found.energy, expected),
            (found.forces, true_forces),
            (voigt, true_stress),
        )
        errors.append([np.sqrt(np.mean(np.subtract(*pair) ** 2)) for pair in pairs])
    of_energies, with_forces, with_all = errors
    assert with_forces[0] <= 0.5 * of_energies[0]
    assert with_forces[1] <= 0.3 * of_energies[1]
    assert with_all[1] <= 0.15 * np.std(true_forces)
    assert with_all[2] <= 0.5 * of_energies[2]


def test_frames_without_forces_are_learnt_beside_those_with(tmp_path):
    frames, energies, forces, _ = argon(6)
    some = [f if i % 2 else None for i, f in enumerate(forces)]
    none = [None] * 6
    with_some = sparse().fit(frames, energies, forces=some)
    alone = sparse().fit(frames, energies, forces=none)
    assert with_some.learnt == {"energies": 6, "forces": 3, "stress": 0}
    assert np.abs(with_some.predict(frames) - energies).max() < 1.0
    # The same energies, weighted by their noise, without a force.
    expected = sparse().fit(frames, energies)
    assert expected.learnt is None
    with_some.save(tmp_path / "model.npz")
    assert lode.load(tmp_path / "model.npz").learnt == with_some.learnt
    assert alone.predict(frames) == pytest.approx(expected.predict(frames), abs=1e-4)


def test_a_model_learns_the_difference_to_a_baseline():
    frames, energies, forces, stress = argon(5)
    baseline = LennardJones(sigma=3.4, epsilon=0.0104, rc=7.0, smooth=True)
    model = sparse(baseline=baseline)
    model.fit(frames, energies + 2.0, forces=forces, stress=stress)
    new, expected, true_forces, _ = argon(2, seed=3)
    found = model.predict(new, forces=True)
    assert found.energy == pytest.approx(expected + 2.0, abs=1e-8)
    np.testing.assert_allclose(found.forces, true_forces, atol=1e-8)


def test_the_solution_does_not_depend_on_threads(tmp_path):
    frames, energies, forces, stress = argon(5)
    taught = {"forces": forces, "stress": stress}
    model = sparse(LONG, regularization=None, n_folds=2)
    model.fit(frames, energies, n_threads=1, **taught)
    other = replace(model).fit(frames, energies, n_threads=2, **taught)
    np.testing.assert_array_equal(model.solution.weights, other.solution.weights)
    assert len(model.solution.errors) == len(model.solution.regularizations) > 1
    model.save(tmp_path / "model.npz")
    loaded = lode.load(tmp_path / "model.npz")
    for wanted in ({"forces": True}, {"stress": True}):
        a, b = (m.predict(frames[:2], **wanted) for m in (model, loaded))
        np.testing.assert_array_equal(a.energy, b.energy)
    energy, std = loaded.predict(frames, return_std=True)
    assert np.isfinite(std).all()
    assert std.min() > 0.0


def test_kernels_of_structures_learn_forces_too():
    frames, energies, forces, _ = argon(5)
    structure = lode.StructureKernel(lode.PolynomialKernel(KERNEL.descriptor), 2)
    model = sparse(structure, n_sparse=5).fit(frames, energies, forces=forces)
    atoms = frames[0]
    found = model.predict([atoms], forces=True).forces[0]
    moved = [atoms.copy() for _ in range(2)]
    moved[0].positions[0, 0] += 1e-3
    moved[1].positions[0, 0] -= 1e-3
    up, down = model.predict(moved)
    assert found[0, 0] == pytest.approx(-(up - down) / 2e-3, abs=1e-4)


def test_forces_that_do_not_fit_are_refused():
    frames, energies, forces, _ = argon(3)
    with pytest.raises(ValueError, match="one entry for each of 3 frames, got 2"):
        sparse().fit(frames, energies, forces=forces[:2])
    with pytest.raises(ValueError, match=r"forces must have shape \(4, 3\).*frame 1"):
        sparse().fit(frames, energies, forces=[forces[0], forces[1][:3], None])
    bad = forces[2].copy()
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"forces must be finite.*frame 2"):
        sparse().fit(frames, energies, forces=[None, None, bad])
    water = [molecule("H2O") for _ in range(3)]
    with pytest.raises(ValueError, match=r"stress needs frames .*frame 0"):
        sparse().fit(water, energies, stress=[np.zeros(6), None, None])
    pair = lode.LinearCombination([Atoms("Ar"), Atoms("Ar")], [1.0, -1.0])
    with pytest.raises(TypeError, match="not of features or combinations"):
        sparse().fit([pair] * 3, energies, forces=[None] * 3)
    with pytest.raises(ValueError, match="force_noise must be a positive number"):
        sparse(force_noise=0.0)
    with pytest.raises(ValueError, match=r"energy_noise must be from 1e-12 to 1e\+12"):
        sparse(energy_noise=1e-300)


def test_each_species_may_have_an_energy_of_its_own(tmp_path):
    names = ("H2O", "H2O2", "CH4", "CO2", "CH3OH", "CO", "H2", "C2H4")
    frames = [molecule(name) for name in names for _ in range(3)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.05, seed=seed)
    own = {1: -13.6, 6: -1030.0, 8: -2040.0}
    energies = [
        sum(own[z] for z in a.numbers) + 0.1 * a.positions[0, 0] for a in frames
    ]
    model = sparse(n_sparse=30, intercept="species", regularization=None, n_folds=4)
    model.fit(frames, energies)
    assert model.species == (1, 6, 8)
    np.testing.assert_allclose(model.species_energies, [-13.6, -1030, -2040], atol=1.0)
    assert np.abs(model.predict(frames) - energies).max() <= 0.1
    with_forces = model.predict(frames[:2], forces=True)
    assert with_forces.energy == pytest.approx(model.predict(frames[:2]), rel=1e-12)
    model.save(tmp_path / "model.npz")
    loaded = lode.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.predict(frames), model.predict(frames))
    frames[0].calc = lode.LODECalculator(model)
    of_atoms = frames[0].get_potential_energies()
    assert of_atoms.sum() == pytest.approx(model.predict(frames[:1])[0], rel=1e-12)
    np.testing.assert_allclose(of_atoms, [own[z] for z in frames[0].numbers], atol=2.0)
    with pytest.raises(ValueError, match="intercept 'species' needs a linear kernel"):
        lode.GaussianProcess(KERNEL, intercept="species")


def test_species_that_always_come_together_share_their_energy():
    frames = [bulk("NaCl", "rocksalt", a=5.4 + 0.1 * i, cubic=True) for i in range(6)]
    energies = np.arange(6.0) - 27.0
    model = sparse(intercept="species", regularization=1e-6)
    forces = [np.zeros((8, 3))] * 6
    for taught in ({}, {"forces": forces}):
        model.fit(frames, energies, **taught)
        sodium, chlorine = model.species_energies
        assert sodium == pytest.approx(chlorine, rel=1e-9)
        assert np.abs(model.predict(frames) - energies).max() <= 0.5


def test_a_composition_that_is_left_out_whole_is_no_error_of_the_others():
    # Two of carbon monoxide and one of hydrogen peroxide in one fold: their constants
    # are not determined by the other folds, which must be told apart all the same.
    names = 4 * ["H2O", "CH4"] + ["CO", "CO", "H2O2"]
    frames = [molecule(name) for name in names]
    for seed, frame in enumerate(frames):
        frame.rattle(0.05, seed=seed)
    own = {1: -13.6, 6: -1030.0, 8: -2040.0}
    energies = [sum(own[z] for z in a.numbers) + a.positions[0, 0] for a in frames]
    forces = [np.tile([1.0, 0.0, 0.0], (len(a), 1)) / len(a) for a in frames]
    groups = [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3]
    model = sparse(n_sparse=30, intercept="species", regularization=None, n_folds=4)
    model.fit(frames, energies, forces=forces, groups=groups)
    assert np.isfinite(model.solution.errors).all()
    # In units of the noise: the constants are a million of them.
    assert model.solution.errors.min() < 10.0
    assert np.abs(model.predict(frames) - energies).max() <= 1.0


def test_sparse_points_may_come_from_other_frames():
    frames, energies, forces, _ = argon(2)
    few = sparse(n_sparse=100).fit(frames, energies, forces=forces)
    copies = [atoms.copy() for atoms in frames for _ in range(8)]
    for seed, copy in enumerate(copies):
        copy.rattle(0.1, seed=seed)
    more = sparse(n_sparse=100)
    more.fit(frames, energies, forces=forces, sparse_frames=[*frames, *copies])
    assert few.sparse.n_structures <= 8 < more.sparse.n_structures

    def error(model):
        return np.abs(np.array(model.predict(frames, forces=True).forces) - forces)

    assert error(more).max() <= 0.2 * error(few).max()


def test_few_frames_of_many_compositions_are_refused_or_learnt():
    frames = [Atoms(symbols, 3.0 * np.eye(3)[:n]) for symbols, n in
              (("NaCl", 2), ("NaF", 2), ("KCl2", 3))]  # fmt: skip
    settings = {"intercept": "species", "n_folds": 3}
    model = sparse(n_sparse=10, **settings | {"regularization": None})
    forces = [np.zeros((len(a), 3)) for a in frames]
    model.fit(frames, [-1.0, -2.0, -3.0], forces=forces)
    np.testing.assert_allclose(model.predict(frames), [-1.0, -2.0, -3.0], atol=1e-6)
    with pytest.raises(ValueError, match="beside 3 constants, got 3"):
        sparse(n_sparse=10, **settings).fit(frames, [-1.0, -2.0, -3.0])


def test_forces_have_a_noise_only_where_they_were_learnt():
    frames, energies, forces, _ = argon(4)
    for taught, differs in (({}, False), ({"forces": forces}, True)):
        stds = []
        for noise in (0.05, 10.0):
            options = {"intercept": "species", "force_noise": noise}
            model = sparse(**options).fit(frames, energies, **taught)
            stds.append(model.predict(frames[:1], forces_std=True).forces_std[0])
        assert (np.abs(stds[1] / stds[0] - 1.0).max() > 1e-6) == differs


def test_a_refit_that_fails_leaves_no_model():
    linear = lode.PolynomialKernel(lode.PowerSpectrum(RHO))
    frames, energies, forces, _ = argon(4)
    model = lode.GaussianProcess(linear, regularization=1e-3).fit(frames, energies)
    with pytest.raises(ValueError, match="groups must be one for each of 4 frames"):
        model.fit(frames, energies, forces=forces, groups=[1, 2])
    assert not model.is_fitted
