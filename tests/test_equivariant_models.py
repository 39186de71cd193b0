import math
from dataclasses import replace

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from naive import rotation_matrices
from scipy.spatial.transform import Rotation

import lode
from lode.bases import RadialBasis
from lode.coupling import spherical_tensor
from lode.equivariants import (
    EquivariantSums,
    _whitened_rows,
    _whitenings,
    equivariant_learning_curve,
    equivariant_sums,
    whitening_groups,
)
from lode.fields import GaussianDensity, PowerLawPotential
from lode.learning import splits
from lode.ridge import TensorModes
from lode.serialization import from_dict, to_dict
from lode.whitening import whitening

# Targets of tests that are not about learning are random.
RANDOM_TARGETS = pytest.mark.filterwarnings("ignore:leave-one-out errors are")
N_FRAMES = 8 if numba.config.DISABLE_JIT else 20
CELL = np.array([[5.1, 0.0, 0.0], [2.1, 4.4, 0.0], [-1.6, 1.7, 4.9]])
# A method's own error must not enter 1e-10.
RHO = lode.SphericalExpansion(
    GaussianDensity(0.5), RadialBasis.gto(2, 3.0), 2, tolerance=1e-12
)
V = lode.SphericalExpansion(
    PowerLawPotential(1, 1.0), RadialBasis.monomial(2, 3.0), 2, tolerance=1e-12
)
SOAP = lode.EquivariantPowerSpectrum(RHO, angular=2)
MULTISCALE = lode.EquivariantPowerSpectrum(RHO, V, angular=2)


def frames_of(n=N_FRAMES, pbc=True, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Atoms([1, 8, 1, 8], rng.uniform(0, 1, (4, 3)) @ CELL, cell=CELL, pbc=pbc)
        for _ in range(n)
    ]


def quadrupoles(frames):
    """Σ over pairs of H and O of exp(-r²) r rᵀ: a tensor that SOAP can learn."""
    tensors = []
    for atoms in frames:
        i, j = np.flatnonzero(atoms.numbers == 8), np.flatnonzero(atoms.numbers == 1)
        r = (atoms.positions[j][:, None] - atoms.positions[i]).reshape(-1, 3)
        weight = np.exp(-np.sum(r**2, axis=1))
        tensors.append(np.einsum("n,nx,ny->xy", weight, r, r))
    return spherical_tensor(np.array(tensors))[:, 1:]


def relative(value, expected):
    return np.abs(value - expected).max() / np.abs(expected).max()


FRAMES = frames_of()
TARGETS = np.random.default_rng(1).normal(size=(N_FRAMES, 5))


def fitted(**settings):
    return lode.EquivariantRegression([SOAP, MULTISCALE], **settings).fit(
        FRAMES, TARGETS
    )


# Sums


def test_sums_and_moments_are_those_of_the_environments():
    x = SOAP.compute(FRAMES)
    groups = [[0, 2], [1, 2, 3], []]
    found = equivariant_sums(SOAP, FRAMES, groups)
    assert found.centers == found.neighbor_species == (1, 8)
    np.testing.assert_array_equal(found.n_atoms, [4] * N_FRAMES)
    for z, center in enumerate(found.centers):
        for frame in range(N_FRAMES):
            kept = (x.frame_index == frame) & (x.species == center)
            expected = x.values[kept].sum(axis=0)
            assert relative(found.values[frame, z], expected) <= 1e-14
        for group, members in enumerate(groups):
            kept = np.isin(x.frame_index, members) & (x.species == center)
            rows = x.values[kept].reshape(-1, x.values.shape[2])
            np.testing.assert_allclose(
                found.moments[group, z], rows.T @ rows, rtol=0, atol=1e-12
            )


def test_sums_depend_neither_on_chunks_nor_on_threads(monkeypatch):
    one = equivariant_sums(SOAP, FRAMES, [[0, 1, 5]], n_threads=1)
    two = equivariant_sums(SOAP, FRAMES, [[0, 1, 5]], n_threads=3)
    np.testing.assert_array_equal(two.values, one.values)
    np.testing.assert_array_equal(two.moments, one.moments)
    monkeypatch.setattr("lode.equivariants._CHUNK_BYTES", 1)
    small = equivariant_sums(SOAP, FRAMES, [[0, 1, 5]])
    np.testing.assert_array_equal(small.values, one.values)
    np.testing.assert_allclose(small.moments, one.moments, rtol=0, atol=1e-12)


def test_sums_survive_a_file(tmp_path):
    sums = equivariant_sums(SOAP, FRAMES[:2], [[0]])
    sums.save(tmp_path / "sums.npz")
    other = EquivariantSums.load(tmp_path / "sums.npz")
    for name in ("values", "moments", "n_atoms"):
        np.testing.assert_array_equal(getattr(other, name), getattr(sums, name))
    assert (other.centers, other.neighbor_species) == ((1, 8), (1, 8))
    (tmp_path / "sums.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match="complete EquivariantSums file"):
        EquivariantSums.load(tmp_path / "sums.npz")


def test_sums_of_what_is_not_there_are_an_error():
    with pytest.raises(ValueError, match=r"among \[8\], got unknown \[1\]"):
        equivariant_sums(SOAP, FRAMES[:1], centers=[8])
    with pytest.raises(ValueError, match="frames below 1, got"):
        equivariant_sums(SOAP, FRAMES[:1], [[1]])


# The model


def test_prediction_turns_with_the_structure():
    model = fitted(regularization=1e-6)
    rotation = Rotation.random(random_state=3).as_matrix()
    matrix = rotation_matrices(rotation, 2)[2]
    moved = []
    for atoms in FRAMES[:3]:
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ rotation.T)
        turned.positions = atoms.positions @ rotation.T + [0.3, -7.0, 11.0]
        moved.append(turned[[2, 1, 0, 3]])
    expected = model.predict(FRAMES[:3]) @ matrix.T
    assert relative(model.predict(moved), expected) <= 1e-10
    inverted = FRAMES[0].copy()
    inverted.positions = -inverted.positions
    inverted.set_cell(-CELL)
    expected = model.predict(FRAMES[:1])
    assert relative(model.predict([inverted]), expected) <= 1e-10


def test_rotated_targets_give_the_same_model():
    rotation = Rotation.random(random_state=4).as_matrix()
    matrix = rotation_matrices(rotation, 2)[2]
    turned = []
    for atoms in FRAMES:
        turned.append(atoms.copy())
        turned[-1].set_cell(CELL @ rotation.T)
        turned[-1].positions = atoms.positions @ rotation.T
    model = lode.EquivariantRegression([SOAP], regularization=1e-3)
    expected = model.fit(FRAMES, TARGETS).predict(FRAMES)
    found = model.fit(turned, TARGETS @ matrix.T).predict(FRAMES)
    assert relative(found, expected) <= 1e-9


def test_a_tensor_of_pairs_is_learnt():
    train, test = frames_of(3 * N_FRAMES, False, 5), frames_of(N_FRAMES, False, 6)
    model = lode.EquivariantRegression(SOAP)
    model.fit(train, quadrupoles(train))
    expected = quadrupoles(test)
    error = np.sqrt(np.mean((model.predict(test) - expected) ** 2))
    assert error <= 0.5 * np.sqrt(np.mean(expected**2))
    assert model.errors.min() == pytest.approx(error, rel=1.0)


@RANDOM_TARGETS
def test_left_out_errors_are_those_of_models_without_each_structure():
    model = fitted(n_whitening=4)
    grid = 7
    regularization = model.regularizations[grid]
    errors = []
    # λ and the whitening stay those of all structures.
    parts = [equivariant_sums(d, FRAMES, [range(4)]) for d in model.descriptors]
    matrices = [_whitenings(part, 0, 0.4, None) for part in parts]
    rows = _whitened_rows(parts, matrices, False)
    ridge = regularization * np.sum(rows**2) / (5 * N_FRAMES)
    for left in range(N_FRAMES):
        kept = np.arange(N_FRAMES) != left
        x, y = rows[kept].reshape(-1, rows.shape[2]), TARGETS[kept].ravel()
        weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
        errors.append(rows[left] @ weights - TARGETS[left])
    expected = np.sqrt(np.mean(np.square(errors)))
    assert model.errors[grid] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n_features", [7, 60])
def test_ridge_solves_its_equations_with_few_and_with_many_features(n_features):
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(8, 5, n_features)), rng.normal(size=(8, 5))
    x, y = rows.reshape(40, n_features), targets.ravel()
    ridge = 0.01 * np.mean(np.sum(x**2, axis=1))
    expected = np.linalg.solve(x.T @ x + ridge * np.eye(n_features), x.T @ y)
    found = TensorModes.of(rows, targets).weights(0.01)
    assert relative(found, expected) <= 1e-11


def test_mean_of_environments_does_not_grow_with_the_structure():
    double = [atoms.repeat((1, 1, 2)) for atoms in FRAMES[:2]]
    for average, factor in ((True, 1.0), (False, 2.0)):
        model = fitted(average=average, regularization=1e-3)
        expected = factor * model.predict(FRAMES[:2])
        assert relative(model.predict(double), expected) <= 1e-8


@RANDOM_TARGETS
def test_whitening_holds_every_species_whatever_comes_first():
    others = [Atoms([7, 1, 8, 1], f.positions, cell=CELL, pbc=True) for f in FRAMES]
    frames, targets = [*FRAMES, *others], np.concatenate([TARGETS, TARGETS])
    model = lode.EquivariantRegression([SOAP], n_whitening=3).fit(frames, targets)
    assert model.centers == (1, 7, 8)
    assert (np.abs(model.coefficients[0]).max(axis=1) > 0.0).all()
    kept = [0, 1, 2, *range(N_FRAMES, N_FRAMES + 3)]
    expected = equivariant_sums(SOAP, frames, [kept])
    matrices = [whitening(m, exponent=0.4) for m in expected.moments[0]]
    rows = np.concatenate(
        [expected.values[:, z] @ matrix for z, matrix in enumerate(matrices)], axis=2
    )
    found = model.predict(frames)
    # In the span of the whitened features, of no others.
    flat = rows.reshape(-1, rows.shape[2])
    inside = flat @ np.linalg.lstsq(flat, found.ravel(), rcond=None)[0]
    assert relative(inside, found.ravel()) <= 1e-6


@RANDOM_TARGETS
def test_model_survives_a_file(tmp_path):
    model = fitted(exponent=(0.2, 0.4), n_components=5)
    model.save(tmp_path / "model.npz")
    other = lode.load(tmp_path / "model.npz")
    assert to_dict(other) == to_dict(model)
    assert other.fit_regularization == model.fit_regularization
    np.testing.assert_array_equal(other.errors, model.errors)
    np.testing.assert_array_equal(other.predict(FRAMES), model.predict(FRAMES))
    (tmp_path / "model.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match="complete model file"):
        lode.load(tmp_path / "model.npz")


def test_crafted_sums_are_refused(tmp_path):
    sums = equivariant_sums(SOAP, FRAMES[:3], [[0, 1]])
    path = tmp_path / "sums.npz"
    damages = {
        "values": sums.values * np.nan,
        "moments": sums.moments[:, :-1],
        "n_atoms": -sums.n_atoms,
        "centers": sums.centers[::-1],
        "neighbor_species": ("H", "O"),
    }
    for name, value in damages.items():
        replace(sums, **{name: value}).save(path)
        with pytest.raises(ValueError, match=f"{name} must"):
            EquivariantSums.load(path)


def test_models_are_built_from_plain_data():
    model = lode.EquivariantRegression([SOAP], n_components=7)
    assert to_dict(from_dict(to_dict(model))) == to_dict(model)


@RANDOM_TARGETS
def test_number_of_threads_changes_no_bit():
    one = lode.EquivariantRegression([SOAP]).fit(FRAMES, TARGETS, n_threads=1)
    two = lode.EquivariantRegression([SOAP]).fit(FRAMES, TARGETS, n_threads=3)
    np.testing.assert_array_equal(
        two.predict(FRAMES, n_threads=3), one.predict(FRAMES, n_threads=1)
    )


@RANDOM_TARGETS
def test_settings_and_data_that_do_not_fit_are_an_error():
    other = replace(SOAP, angular=1)
    with pytest.raises(ValueError, match="the same angular and parity, got"):
        lode.EquivariantRegression([SOAP, other])
    with pytest.raises(TypeError, match="EquivariantPowerSpectrum, got PowerSpectrum"):
        lode.EquivariantRegression([lode.PowerSpectrum(RHO)])
    with pytest.raises(ValueError, match="exponent must be from 0 to 0.5, .* got 0.6"):
        lode.EquivariantRegression([SOAP], exponent=0.6)
    with pytest.raises(ValueError, match="one for each of 1 descriptors"):
        lode.EquivariantRegression([SOAP], exponent=(0.1, 0.2))
    with pytest.raises(ValueError, match="n_whitening must be a whole number"):
        lode.EquivariantRegression([SOAP], n_whitening=0)
    with pytest.raises(ValueError, match="regularizations must be positive"):
        lode.EquivariantRegression([SOAP], regularization=0.0)
    model = lode.EquivariantRegression([SOAP])
    with pytest.raises(RuntimeError, match="fitted first"):
        model.predict(FRAMES)
    with pytest.raises(ValueError, match=r"targets must have shape \(20, 5\)|\(8, 5\)"):
        model.fit(FRAMES, TARGETS[:, :3])
    with pytest.raises(ValueError, match="features must not all vanish"):
        model.fit([Atoms("O")] * 3, np.ones((3, 5)))
    model = fitted()
    with pytest.raises(ValueError, match="got unknown"):
        model.predict(Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]))


def test_species_of_an_expansion_are_those_of_the_model():
    wide = replace(SOAP, expansion=replace(RHO, species=(1, 8, 11)))
    sums = equivariant_sums(wide, FRAMES[:1])
    assert sums.neighbor_species == (1, 8, 11)
    assert sums.centers == (1, 8)
    model = lode.EquivariantRegression([wide], regularization=1e-3)
    expected = lode.EquivariantRegression([SOAP], regularization=1e-3)
    # Features of what is not there are zero.
    assert (
        relative(
            model.fit(FRAMES, TARGETS).predict(FRAMES),
            expected.fit(FRAMES, TARGETS).predict(FRAMES),
        )
        <= 1e-6
    )
    with pytest.raises(ValueError, match=r"same species, got \[\(1, 8\), \(1, 8, 11\)"):
        lode.EquivariantRegression([SOAP, wide]).fit(FRAMES, TARGETS)


# Learning curves

SIZES = [3, 5]
CURVE = {"n_test": 3, "n_repeats": 2, "seed": 0}


def sums_of(descriptor):
    groups = whitening_groups(N_FRAMES, SIZES, **CURVE)
    return equivariant_sums(descriptor, FRAMES, groups)


@RANDOM_TARGETS
def test_learning_curve_is_that_of_models_fitted_alone():
    # Few components: the others are extrapolated from three structures.
    settings = {"n_components": 4}
    sums = sums_of(SOAP)
    curve = equivariant_learning_curve(sums, TARGETS, SIZES, **settings, **CURVE)
    assert curve.rmse_percent_each.shape == (2, 2)
    for repeat, (pool, test) in enumerate(splits(N_FRAMES, 3, 2, 0)):
        for column, size in enumerate(SIZES):
            model = lode.EquivariantRegression([SOAP], n_whitening=3, **settings)
            model.fit([FRAMES[i] for i in pool[:size]], TARGETS[pool[:size]])
            predicted = model.predict([FRAMES[i] for i in test])
            rmse = math.sqrt(np.mean((predicted - TARGETS[test]) ** 2))
            percent = 100 * rmse / math.sqrt(np.mean(TARGETS[test] ** 2))
            assert curve.rmse_each[repeat, column] == pytest.approx(rmse, rel=1e-6)
            found = curve.rmse_percent_each[repeat, column]
            assert found == pytest.approx(percent, rel=1e-6)


def test_learning_curve_of_scaled_targets_has_the_errors_of_the_targets():
    sums = [sums_of(SOAP), sums_of(MULTISCALE)]
    one = equivariant_learning_curve(sums, TARGETS, SIZES, **CURVE)
    same = np.full(N_FRAMES, 7.0)
    two = equivariant_learning_curve(sums, TARGETS, SIZES, factors=same, **CURVE)
    np.testing.assert_allclose(two.rmse_percent_each, one.rmse_percent_each, rtol=1e-9)
    other = np.linspace(0.5, 2.0, N_FRAMES)
    two = equivariant_learning_curve(sums, TARGETS, SIZES, factors=other, **CURVE)
    assert relative(two.rmse_percent_each, one.rmse_percent_each) > 1e-3


def test_threads_of_a_learning_curve_change_no_bit():
    sums = sums_of(SOAP)
    one = equivariant_learning_curve(sums, TARGETS, SIZES, n_threads=1, **CURVE)
    two = equivariant_learning_curve(sums, TARGETS, SIZES, n_threads=2, **CURVE)
    np.testing.assert_array_equal(two.rmse_percent_each, one.rmse_percent_each)


def test_sums_that_do_not_belong_to_the_curve_are_an_error():
    sums = sums_of(SOAP)
    with pytest.raises(ValueError, match="moments of 3 groups, got .* 2"):
        equivariant_learning_curve(sums, TARGETS, SIZES, n_test=3, n_repeats=3, seed=0)
    with pytest.raises(ValueError, match="n_train must be a whole number from 3"):
        equivariant_learning_curve(sums, TARGETS, [N_FRAMES], **CURVE)
    frames = [*FRAMES[:-1], Atoms([7, 1], [[0, 0, 0], [0, 0, 1]], cell=CELL, pbc=True)]
    groups = [[0, 1, 2], [0, N_FRAMES - 1]]
    lacking = equivariant_sums(SOAP, frames, groups)
    with pytest.raises(ValueError, match="none of atomic number 7 in group 0"):
        equivariant_learning_curve(lacking, TARGETS, SIZES, **CURVE)
    with pytest.raises(ValueError, match="factors must not be zero"):
        equivariant_learning_curve(
            sums, TARGETS, SIZES, factors=np.zeros(N_FRAMES), **CURVE
        )


def dipoles_of_water(n):
    """Water molecules at random, and a dipole that depends on their shape."""
    rng = np.random.default_rng(2)
    frames, dipoles = [], []
    for rotation in Rotation.random(n, random_state=2).as_matrix():
        water = molecule("H2O")
        water.positions += 0.05 * rng.normal(size=(3, 3))
        water.positions = water.positions @ rotation.T
        bonds = water.positions[1:] - water.positions[0]
        lengths = np.linalg.norm(bonds, axis=1, keepdims=True)
        dipoles.append(np.sum(bonds * (0.2 + 0.1 * lengths), axis=0))
        frames.append(water)
    return frames, np.array(dipoles)


def test_cartesian_components_are_warned_of():
    frames, dipoles = dipoles_of_water(20)
    model = lode.EquivariantRegression(lode.EquivariantPowerSpectrum(RHO, V, angular=1))
    right = lode.spherical_vector(dipoles)
    model.fit(frames, right)
    assert model.errors.min() < 0.05 * np.sqrt(np.mean(right**2))
    with pytest.warns(UserWarning, match="learnt nothing; are the 3 components"):
        model.fit(frames, dipoles)
    # The right components of other structures, and a tensor of another λ.
    with pytest.warns(UserWarning, match="learnt nothing"):
        model.fit(frames, right[::-1])
    five = lode.EquivariantRegression(lode.EquivariantPowerSpectrum(RHO, V, angular=2))
    tensors = np.einsum("nx,ny->nxy", dipoles, dipoles)
    five.fit(frames, lode.spherical_tensor(tensors)[:, 1:])
    with pytest.warns(UserWarning, match="are the 5 components"):
        five.fit(frames, tensors.reshape(-1, 9)[:, [0, 1, 2, 4, 5]])


def test_directions_within_the_error_of_the_features_are_left_out():
    rng = np.random.default_rng(5)
    signal = np.multiply.outer(rng.normal(size=40), [3.0, 1.0, 0.0, 0.0])
    noise = 1e-5 * rng.normal(size=signal.shape)
    values = (signal + noise).reshape(8, 1, 5, 4)
    moments = (values.reshape(40, 4).T @ values.reshape(40, 4))[None, None]
    n_columns = [
        _whitenings(EquivariantSums(*found, error), 0, 0.4, None)[0].shape[1]
        for error in (1e-9, 1e-4)
        for found in [(values, moments, (1,), (1,), np.ones(8, dtype=int))]
    ]
    assert n_columns == [4, 1]
