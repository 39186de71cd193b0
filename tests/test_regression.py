import itertools
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import naive_kernels as naive
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from naive_kernels import ToyDescriptor

import lode
import lode.pairs
import lode.systems
from lode.kernels import PolynomialKernel
from lode.models import load
from lode.regression import GaussianProcess
from lode.ridge import (
    REGULARIZATIONS,
    FeatureModes,
    KernelModes,
    fit_features,
    fit_kernel,
    folds,
)

LINEAR = PolynomialKernel(ToyDescriptor())
CUBIC = PolynomialKernel(ToyDescriptor(), 3, normalize=True)
BOTH = pytest.mark.parametrize("kernel", [LINEAR, CUBIC], ids=["linear", "cubic"])


@pytest.fixture(autouse=True)
def toy_is_public(monkeypatch):
    monkeypatch.setattr(lode, "ToyDescriptor", ToyDescriptor, raising=False)
    monkeypatch.setattr(lode, "__all__", [*lode.__all__, "ToyDescriptor"])


def random_frames(seed, n_frames):
    rng = np.random.default_rng(seed)
    return [
        Atoms([1, 8, *rng.choice([1, 8], n)], rng.uniform(0, 4, (n + 2, 3)))
        for n in rng.integers(1, 5, n_frames)
    ]


TRAIN, NEW = random_frames(1, 20), random_frames(2, 6)
ENERGIES = np.random.default_rng(3).normal(size=len(TRAIN)) - 40.0


def random_problem(seed=0, n=30, n_new=7, n_features=12):
    rng = np.random.default_rng(seed)
    # The mean is far from zero: the intercept matters.
    features = rng.normal(size=(n + n_new, n_features)) + 3.0
    targets = np.sin(features @ rng.normal(size=n_features) / 4) + 10.0
    return features[:n], features[n:], targets[:n], targets[n:]


@BOTH
def test_prediction_solves_the_system_with_intercept(kernel):
    model = GaussianProcess(kernel, regularization=1e-3).fit(TRAIN, ENERGIES)
    values, std = model.predict(NEW, return_std=True)
    gram, rows = kernel(TRAIN), kernel(NEW, TRAIN)
    ridge = naive.ridge_of(gram, 1e-3)
    assert model.solution.ridge == pytest.approx(ridge, rel=1e-9)
    expected = naive.intercept_predictions(gram, ENERGIES, rows, ridge)
    # The uncentred system has a condition number near 1e6.
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    diagonal = np.diag(kernel(NEW))
    variance = naive.intercept_variance(gram, ENERGIES, rows, diagonal, ridge)
    np.testing.assert_allclose(std**2, variance, rtol=1e-6)


def test_features_and_their_kernel_give_the_same_model():
    x, x_new, y, _ = random_problem()
    first = fit_features(x, y, regularization=1e-3)
    second = fit_kernel(x @ x.T, y, regularization=1e-3)
    a, std_a = first.predict(x_new, return_std=True)
    diagonal = np.sum(x_new**2, axis=1)
    b, std_b = second.predict(x_new @ x.T, diagonal=diagonal, return_std=True)
    np.testing.assert_allclose(a, b, rtol=1e-10)
    np.testing.assert_allclose(std_a, std_b, rtol=1e-8)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("normal_equations", [False, True])
@pytest.mark.parametrize("n_features", [5, 12, 60])
def test_variance_is_that_of_what_is_left_out(n_features, normal_equations, grouped):
    x, x_new, y, _ = random_problem(n_features=n_features)
    groups = np.arange(len(y)) // 3 if grouped else None
    settings = {"groups": groups, "normal_equations": normal_equations}
    solution = fit_features(x, y, regularization=1e-2, **settings)
    _, std = solution.predict(x_new, return_std=True)
    expected = naive.intercept_variance(
        *(x @ x.T, y, x_new @ x.T, np.sum(x_new**2, axis=1)), solution.ridge, groups
    )
    # An explicit inverse of condition 1e5, and a difference of like numbers.
    np.testing.assert_allclose(std**2, expected, rtol=1e-7)


@pytest.mark.parametrize("form", ["kernel", "features"])
@pytest.mark.parametrize("n_folds", [3, 5, 100])
def test_cross_validation_refits_each_fold_from_scratch(form, n_folds):
    x, _, y, _ = random_problem(n=17)
    gram = x @ x.T
    # Below 1e-8 the naive solve of the uncentred system loses its digits.
    grid = np.logspace(2, -8, 11)
    settings = {"n_folds": n_folds, "seed": 4, "regularizations": grid}
    solution = (
        fit_kernel(gram, y, **settings)
        if form == "kernel"
        else fit_features(x, y, **settings)
    )
    expected = naive.validation_errors(gram, y, folds(17, n_folds, 4), grid)
    np.testing.assert_allclose(solution.errors, expected, rtol=1e-5)
    within = expected <= 1.001 * expected.min()
    assert solution.regularization == grid[within].max()


def test_targets_left_out_do_not_reach_their_prediction():
    # Pure noise: an honest estimate of the error is not below that of the mean.
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(40, 200)), rng.normal(size=40)
    assert fit_features(x, y).errors.min() > 0.95 * y.std()
    assert fit_kernel(x @ x.T, y).errors.min() > 0.95 * y.std()


def test_linear_data_are_learnt_from_as_many_points_as_rank_and_intercept():
    rng = np.random.default_rng(6)
    # 8 features of rank 4 and a large common part; 5 points fix 4 slopes and b.
    mixing = rng.normal(size=(4, 8))
    x = rng.normal(size=(50, 4)) @ mixing + 5.0
    y = x @ rng.normal(size=8) - 40.0
    solution = fit_features(x[:5], y[:5], regularization=1e-16)
    error = np.abs(solution.predict(x[5:]) - y[5:]).max() / y.std()
    # Rounding 1e-16 times the condition of four random points.
    assert error < 1e-12
    through_kernel = fit_kernel(x[:5] @ x[:5].T, y[:5], regularization=1e-16)
    error = np.abs(through_kernel.predict(x[5:] @ x[:5].T) - y[5:]).max() / y.std()
    # The kernel squares the condition.
    assert error < 1e-10


def test_cross_validation_finds_the_noise_free_limit():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 8)) + 5.0
    y = x @ rng.normal(size=8)
    solution = fit_features(x[:20], y[:20])
    # Weakest regularisation that rounding lets the folds tell apart.
    assert solution.regularization < 1e-10
    assert np.abs(solution.predict(x[20:]) - y[20:]).max() < 1e-10 * y.std()


def test_directions_below_rounding_are_not_amplified():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(30, 3)) + 100.0
    y = x @ rng.normal(size=3) + 1e-3 * rng.normal(size=30)
    solution = fit_kernel(x[:20] @ x[:20].T, y[:20], regularization=1e-16)
    assert solution.modes.vectors.shape[1] == 3
    assert fit_features(x[:20], y[:20], regularization=1e-16).modes.right.shape[1] == 3
    error = solution.predict(x[20:] @ x[:20].T) - y[20:]
    # Three slopes from twenty points with noise 1e-3.
    assert np.abs(error).max() < 1e-2


def test_shift_of_targets_or_features_only_shifts_the_prediction():
    x, x_new, y, _ = random_problem()
    reference = fit_features(x, y, regularization=1e-2).predict(x_new)
    moved = fit_features(x + 2.0, y - 7.0, regularization=1e-2).predict(x_new + 2.0)
    np.testing.assert_allclose(moved + 7.0, reference, rtol=1e-12)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("n_features", [4, 40])
def test_left_out_errors_are_those_of_models_without_each(intercept, n_features):
    x, _, y, _ = random_problem(n=12, n_features=n_features)
    gram = x @ x.T
    modes = KernelModes.of(gram, 0.0, intercept)
    deviations = y - y.mean() if intercept else y
    found = modes.left_out(deviations, [1e-1, 1e-6])
    for regularization, error in zip([1e-1, 1e-6], found, strict=True):
        squares = []
        for i in range(12):
            rest = np.delete(np.arange(12), i)
            part = gram[np.ix_(rest, rest)]
            # The same ridge, whatever the scale of the part.
            own = KernelModes.of(part, 0.0, intercept).scale
            fitted = fit_kernel(
                part,
                y[rest],
                regularization=regularization * modes.scale / own,
                intercept=intercept,
            )
            squares.append((fitted.predict(gram[[i]][:, rest])[0] - y[i]) ** 2)
        assert error == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)


@pytest.mark.parametrize("modes", [KernelModes.of, FeatureModes.of])
def test_structures_all_alike_are_given_the_mean(modes):
    data = np.ones((6, 6))
    fit = fit_kernel if modes == KernelModes.of else fit_features
    y = np.arange(6.0)
    np.testing.assert_allclose(fit(data, y).predict(data), y.mean(), rtol=1e-14)


RHO = lode.SphericalExpansion(
    lode.GaussianDensity(0.4), lode.RadialBasis.gto(4, 3.0), max_angular=3
)
SOAP = lode.PowerSpectrum(RHO)
COULOMB = lode.SphericalExpansion(
    lode.PowerLawPotential(1, 1.0), lode.RadialBasis.gto(4, 3.0), max_angular=3
)
LODE2 = lode.PowerSpectrum(COULOMB)
OF_ALL_KINDS = [
    LINEAR_SOAP := PolynomialKernel(SOAP),
    PolynomialKernel(LODE2, degree=2, normalize=True),
    PolynomialKernel(SOAP, degree=3) * PolynomialKernel(LODE2),
    10 * PolynomialKernel(SOAP) + PolynomialKernel(lode.RadialSpectrum(COULOMB)),
    lode.StructureKernel(PolynomialKernel(LODE2, average=True), 2),
    lode.WhitenedKernel(LODE2),
    lode.WhitenedKernel(SOAP, average=True),
    lode.WhitenedKernel(SOAP) + lode.WhitenedKernel(LODE2),
    lode.WhitenedKernel(SOAP) * PolynomialKernel(SOAP),
]
MODELS = [
    GaussianProcess,
    lambda kernel: lode.SparseGaussianProcess(kernel, n_sparse=10),
    lambda kernel: GaussianProcess(
        lode.SumKernel([kernel, LINEAR_SOAP]), weights="max_likelihood"
    ),
]


def turned(atoms, n, shift, seed=0):
    rng = np.random.default_rng(seed)
    copies = []
    for _ in range(n):
        copy = atoms.copy()
        copy.rotate(rng.uniform(0, 360), rng.normal(size=3), rotate_cell=True)
        copy.translate(shift * rng.normal(size=3))
        copies.append(copy)
    return copies


def mean_is_predicted(model, frames, other):
    """Energies with noise of 1e-6 eV: no other structure is far from their mean."""
    energies = -14.2 + 1e-6 * np.random.default_rng(1).normal(size=len(frames))
    value, std = model.fit(frames, energies).predict([other], return_std=True)
    assert abs(value[0] + 14.2) < 1e-4
    assert 0.0 < std[0] < 1.0


@pytest.mark.parametrize("kind", ["turned", "far away", "one frame"])
@pytest.mark.parametrize("model", MODELS, ids=["full", "sparse", "max_likelihood"])
@pytest.mark.parametrize("kernel", OF_ALL_KINDS, ids=range(len(OF_ALL_KINDS)))
def test_structures_that_differ_by_rounding_teach_their_mean(kernel, model, kind):
    one = molecule("NH3")
    frames = {
        "turned": turned(one, 12, 4.0),
        "far away": turned(one, 12, 1000.0),
        "one frame": [one] * 12,
    }[kind]
    other = one.copy()
    other.positions[1] += [0.1, 0.0, 0.05]
    mean_is_predicted(model(kernel), frames, other)


@pytest.mark.parametrize("model", MODELS[:2], ids=["full", "sparse"])
@pytest.mark.parametrize("descriptor", [SOAP, LODE2], ids=["SOAP", "LODE2"])
def test_supercells_teach_their_mean(descriptor, model):
    crystal = Atoms("HNO", [[0, 0, 0], [1.3, 0.9, 0], [0.2, 1.9, 1.1]], pbc=True)
    crystal.set_cell(3.1 * np.eye(3) + 0.2)
    sizes = itertools.product((1, 2), (1, 2), (1, 2))
    frames = [crystal.repeat(size) for size in sizes]
    other = crystal.copy()
    other.positions[1] += [0.1, 0.0, 0.05]
    for kernel in [
        PolynomialKernel(descriptor, degree=2, average=True),
        PolynomialKernel(descriptor, average="species"),
        lode.WhitenedKernel(descriptor, average=True),
    ]:
        mean_is_predicted(model(kernel), frames, other)


def test_interactions_that_differ_by_rounding_teach_nothing():
    dimer = molecule("CH3COOH")
    pairs = lode.interactions(turned(dimer, 10, 4.0), [4] * 10)
    energies = 1e-6 * np.random.default_rng(1).normal(size=10)
    other = dimer.copy()
    other.positions[1] += [0.1, 0.0, 0.05]
    other = lode.interactions([other], [4])
    for model in MODELS:
        fitted = model(LINEAR_SOAP).fit(pairs, energies)
        assert np.abs(fitted.predict(other)).max() < 1e-5


@pytest.mark.parametrize("normal_equations", [False, True])
def test_constant_columns_carry_nothing(normal_equations):
    rng = np.random.default_rng(0)
    y = rng.normal(size=30) + 5.0
    # Sums in another order differ in the last place.
    columns = np.array([0.1, 1e3, 7e-5]) * (1.0 + 1e-15 * rng.normal(size=(30, 3)))
    options = {"normal_equations": normal_equations}
    solution = fit_features(columns, y, **options)
    value, std = solution.predict(columns[:1] + 1.0, return_std=True)
    assert value[0] == pytest.approx(y.mean(), rel=1e-12)
    assert std[0] == pytest.approx(y.std(ddof=1) * np.sqrt(1 + 1 / 30), rel=1e-9)
    varied = rng.normal(size=(30, 2))
    solution = fit_features(np.hstack([columns, varied]), y, **options)
    moved = np.hstack([columns + 1.0, varied])
    assert np.abs(solution.predict(moved) - y.mean()).max() < 5 * y.std()


@dataclass(frozen=True)
class NoisyDescriptor(ToyDescriptor):
    """Features with an error, which is told or not."""

    error: float = 1e-6
    is_told: bool = True

    def relative_error(self, inputs):
        return self.error if self.is_told else 1e-15

    def compute(self, frames, **options):
        exact = super().compute(frames, **options)
        noise = np.random.default_rng(len(exact.values)).normal(size=exact.values.shape)
        return replace(exact, values=exact.values * (1.0 + 0.1 * self.error * noise))


@pytest.mark.parametrize(
    "kernel_of",
    [
        PolynomialKernel,
        lambda d: PolynomialKernel(d, degree=2),
        lode.WhitenedKernel,
        lambda d: lode.StructureKernel(PolynomialKernel(d), 2),
    ],
)
def test_error_of_a_descriptor_tells_what_is_alike(kernel_of):
    energies = -14.2 + 1e-3 * np.random.default_rng(1).normal(size=12)
    other = NEW[:1]
    far = []
    for told in (True, False):
        model = GaussianProcess(kernel_of(NoisyDescriptor(is_told=told)))
        fitted = model.fit([TRAIN[0]] * 12, energies)
        far.append(np.abs(fitted.predict(other) + 14.2).max())
    assert far[0] < 1e-2 < far[1]


def test_folds_are_balanced_and_keep_groups_whole():
    assert sorted(np.bincount(folds(17, 5, 0))) == [3, 3, 3, 4, 4]
    assert np.bincount(folds(4, 10, 0)).tolist() == [1, 1, 1, 1]
    groups = np.repeat(["a", "b", "c", "d"], 3)
    fold = folds(12, 2, 0, groups)
    assert all(len(set(fold[groups == g])) == 1 for g in groups)
    np.testing.assert_array_equal(folds(17, 5, 3), folds(17, 5, 3))
    assert not np.array_equal(folds(17, 5, 3), folds(17, 5, 4))


def test_grid_is_descending_so_that_ties_take_the_strongest():
    assert np.all(np.diff(REGULARIZATIONS) < 0)


@BOTH
def test_features_and_frames_give_the_same_model(kernel):
    a = GaussianProcess(kernel).fit(TRAIN, ENERGIES)
    b = GaussianProcess(kernel).fit(kernel.precompute(TRAIN), ENERGIES)
    np.testing.assert_array_equal(a.predict(NEW), b.predict(kernel.precompute(NEW)))


@BOTH
def test_loaded_model_predicts_the_same(kernel, tmp_path):
    kernel = 0.3 * kernel + kernel
    model = GaussianProcess(kernel, n_folds=4, seed=2).fit(TRAIN, ENERGIES)
    model.save(tmp_path / "model.npz")
    loaded = load(tmp_path / "model.npz")
    assert loaded.kernel == kernel
    assert (loaded.n_folds, loaded.seed, loaded.species) == (4, 2, (1, 8))
    expected = model.predict(NEW, return_std=True)
    np.testing.assert_array_equal(loaded.predict(NEW, return_std=True), expected)
    loaded.save(tmp_path / "again.npz")
    again = load(tmp_path / "again.npz").predict(NEW, return_std=True)
    np.testing.assert_array_equal(again, expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.npz", "model.npz"]


def test_truncated_or_foreign_model_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    with pytest.raises(FileNotFoundError):
        load(path)
    GaussianProcess(CUBIC).fit(TRAIN, ENERGIES).save(path)
    whole = path.read_bytes()
    for content in (whole[:-50], whole[:100], b"", b"not a model"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="must be a complete model file"):
            load(path)
    damaged = bytearray(whole)
    # More than a header, of which not every byte is checked.
    middle = slice(len(whole) // 2, len(whole) // 2 + 200)
    damaged[middle] = bytes(255 - byte for byte in damaged[middle])
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="must be a complete model file"):
        load(path)
    LINEAR.precompute(TRAIN).save(path)
    with pytest.raises(ValueError, match="got a StructureFeatures file"):
        load(path)
    np.save(tmp_path / "x.npy", np.arange(3))
    with pytest.raises(ValueError, match="must be a complete model file"):
        load(tmp_path / "x.npy")


def test_model_must_be_fitted_first(tmp_path):
    model = GaussianProcess(LINEAR)
    with pytest.raises(RuntimeError, match="must be fitted first"):
        model.predict(NEW)
    with pytest.raises(RuntimeError, match="must be fitted first"):
        model.save(tmp_path / "model.npz")
    with pytest.raises(TypeError, match="kernel must hold kernels of lode"):
        GaussianProcess("linear")


@BOTH
def test_unknown_species_at_prediction_is_refused(kernel):
    model = GaussianProcess(kernel).fit(TRAIN, ENERGIES)
    with pytest.raises(ValueError, match=r"among \[1, 8\], got unknown \[11\]"):
        model.predict([Atoms("NaH", [[0, 0, 0], [0, 0, 2]])])
    other = kernel.precompute(NEW, species=(1, 8, 11))
    with pytest.raises(ValueError, match="model's neighbour species"):
        model.predict(other)


def test_frame_with_fewer_species_is_predicted():
    model = GaussianProcess(LINEAR).fit(TRAIN, ENERGIES)
    assert np.isfinite(model.predict([Atoms("H2", [[0, 0, 0], [0, 0, 1]])])).all()


@BOTH
def test_targets_must_fit_the_frames(kernel):
    model = GaussianProcess(kernel)
    for frames in (TRAIN, kernel.precompute(TRAIN)):
        with pytest.raises(ValueError, match="one for each of 20 frames, got 19"):
            model.fit(frames, ENERGIES[:-1])
        broken = ENERGIES.copy()
        broken[4] = np.nan
        with pytest.raises(ValueError, match="targets must be finite, got nan"):
            model.fit(frames, broken)


def test_too_few_frames_are_refused():
    with pytest.raises(ValueError, match="at least 3 training frames, got 2"):
        GaussianProcess(LINEAR).fit(TRAIN[:2], ENERGIES[:2])
    with pytest.raises(ValueError, match="at least 2 training frames are needed"):
        GaussianProcess(LINEAR, 1e-3).fit(TRAIN[:1], ENERGIES[:1])
    GaussianProcess(LINEAR, 1e-3).fit(TRAIN[:2], ENERGIES[:2])


def test_settings_of_the_fit_are_checked():
    x, x_new, y, _ = random_problem()
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="regularization must be positive"):
            fit_features(x, y, regularization=wrong)
    with pytest.raises(ValueError, match="regularizations must be positive"):
        fit_features(x, y, regularizations=[1.0, 0.0])
    with pytest.raises(ValueError, match="n_folds must be an integer of at least 2"):
        fit_features(x, y, n_folds=1)
    with pytest.raises(ValueError, match="groups must be one for each"):
        fit_features(x, y, groups=[1, 2])
    with pytest.raises(ValueError, match="groups must be at least 2"):
        fit_features(x, y, groups=np.zeros(30))
    with pytest.raises(ValueError, match="must leave at least 2 frames"):
        fit_features(x[:3], y[:3], groups=[0, 0, 1])
    with pytest.raises(ValueError, match="kernel must be square"):
        fit_kernel(x, y)
    with pytest.raises(ValueError, match="kernel must be symmetric"):
        fit_kernel(np.arange(900.0).reshape(30, 30), y)
    indefinite = x @ x.T
    for wrong in (indefinite - 20.0 * np.eye(30), -indefinite, np.fliplr(np.eye(30))):
        with pytest.raises(ValueError, match="positive semi-definite, got an eigen"):
            fit_kernel(wrong, y)
    # Single precision, and a constant, which the intercept takes.
    fit_kernel(indefinite.astype(np.float32), y)
    fit_kernel(indefinite - 1e3, y)
    with pytest.raises(ValueError, match="semi-definite"):
        fit_kernel(indefinite - 1e3, y, intercept=False)
    with pytest.raises(ValueError, match="error must be from 0 to below 1, got 1"):
        fit_kernel(indefinite, y, error=1.0)
    solution = fit_kernel(x @ x.T, y, regularization=1.0)
    with pytest.raises(ValueError, match="rows must have shape"):
        solution.predict(x_new)
    with pytest.raises(ValueError, match="needs the diagonal"):
        solution.predict(x_new @ x.T, return_std=True)


def test_each_room_is_entered_once_on_the_way_to_the_coefficients(monkeypatch):
    entered, checked = [], []
    add_pairs, system = lode.pairs.add_pairs, lode.systems.system

    def watched(*arguments):
        if not entered:
            files = [Path(frame.filename) for frame in traceback.extract_stack()]
            names = [f.stem for f in files if f.parent.name == "lode"]
            # Threads call back: they belong to no room.
            names = [name for name in names if name != "parallel"]
            entered.extend(name for name, _ in itertools.groupby(names))
        return add_pairs(*arguments)

    def counted(*arguments):
        checked.append(arguments)
        return system(*arguments)

    monkeypatch.setattr(lode.pairs, "add_pairs", watched)
    monkeypatch.setattr(lode.systems, "system", counted)
    density, basis = lode.GaussianDensity(0.5), lode.RadialBasis.gto(2, 3.0)
    descriptor = lode.PowerSpectrum(lode.SphericalExpansion(density, basis, 1))
    frames = [Atoms("H2", [(0, 0, 0), (0, 0, z)]) for z in (0.7, 0.8, 0.9)]
    model = GaussianProcess(PolynomialKernel(descriptor, 2))
    model.fit(frames, np.arange(3.0), n_threads=1)
    rooms = ["regression", "kernels", "features", "invariants", "expansion", "pairs"]
    assert entered == rooms
    assert len(checked) == len(frames)


@pytest.mark.parametrize("n_groups", [10, 29, 40])
def test_groups_of_another_number_are_refused_with_a_given_regularization(n_groups):
    x, _, y, _ = random_problem()
    with pytest.raises(ValueError, match="groups must be one for each of 30 frames"):
        fit_features(x, y, regularization=1e-3, groups=np.arange(n_groups))


def test_the_variance_keeps_its_digits_where_nothing_is_regularised():
    x = np.random.default_rng(0).normal(size=(20, 40))
    y = x @ np.random.default_rng(1).normal(size=40)
    expected = fit_features(x, y, regularization=1e-8).variance
    for regularization in (1e-12, 1e-14, 1e-16):
        options = {"regularization": regularization}
        for solution in (
            fit_features(x, y, **options),
            fit_kernel(x @ x.T, y, **options),
        ):
            assert solution.variance == pytest.approx(expected, rel=1e-3)
        grouped = fit_features(x, y, groups=np.arange(20) // 2, **options)
        assert grouped.variance > 0.1 * expected
