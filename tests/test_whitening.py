"""Whitening, contracted bases, likely weights: what is learnt without the targets."""

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from scipy import optimize

import lode
from lode.features import StructureFeatures
from lode.learning import fitted_term, learning_curve, splits
from lode.ridge import max_likelihood_weights
from lode.serialization import from_dict, to_dict
from lode.whitening import whitening

POTENTIAL = lode.SphericalExpansion(
    lode.PowerLawPotential(exponent=1, smearing=1.0),
    lode.RadialBasis.monomial(max_radial=3, cutoff=3.0),
    max_angular=2,
)
DENSITY = lode.SphericalExpansion(
    lode.GaussianDensity(smearing=0.5),
    lode.RadialBasis.gto(max_radial=3, cutoff=3.0),
    max_angular=2,
)
LODE = lode.PowerSpectrum(POTENTIAL)
SOAP = lode.PowerSpectrum(DENSITY)


def boxes(n, seed=0):
    """Periodic boxes of two species; of the first kind one atom more than needed."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n):
        numbers = [1, 1, 8, 8, 8][: 4 + i % 2]
        cell = np.diag(rng.uniform(4.0, 5.0, 3))
        frames.append(
            Atoms(numbers, rng.uniform(0, 4, (len(numbers), 3)), cell=cell, pbc=True)
        )
    return frames


FRAMES = boxes(24)
TARGETS = np.array([f.cell.volume + 3.0 * f.positions[0, 0] for f in FRAMES])


def random_covariance(seed=0):
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    return (vectors * 10.0 ** -np.arange(6)) @ vectors.T


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5])
def test_whitened_variances_are_powers_of_the_variances(exponent):
    covariance = random_covariance()
    matrix = whitening(covariance, exponent)
    variances = 10.0 ** (-np.arange(6) * (1 - 2 * exponent))
    found = matrix.T @ covariance @ matrix
    np.testing.assert_allclose(
        found, np.diag(variances / variances.sum()), atol=1e-10, rtol=1e-9
    )


def test_components_are_left_out_by_number_and_by_variance():
    covariance = random_covariance()
    assert whitening(covariance, n_components=2).shape == (6, 2)
    assert whitening(covariance, condition=10**-3.5).shape == (6, 4)
    singular = np.diag([1.0, 0.0, 0.0])
    assert whitening(singular, condition=0.0).shape == (3, 1)
    assert whitening(np.zeros((3, 3))).shape == (3, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"covariance": np.ones((2, 3))}, "must be square"),
        ({"covariance": np.full((2, 2), np.nan)}, "must be finite"),
        ({"exponent": 0.6}, "exponent must be from 0 to 0.5"),
        ({"exponent": -0.1}, "exponent must be from 0 to 0.5"),
        ({"n_components": 0}, "n_components must be a positive integer"),
        ({"condition": 1.0}, "condition must be from 0 to below 1"),
    ],
)
def test_impossible_whitening_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        whitening(**{"covariance": np.eye(2)} | arguments)
    kernel = {k: v for k, v in arguments.items() if k != "covariance"}
    if kernel:
        with pytest.raises(ValueError, match=message):
            lode.WhitenedKernel(LODE, **kernel)


def naive_whitened(train, frames, exponent, average=False):
    """The kernel from its definition: environments, whitened one by one."""
    known, new = (LODE.compute(f, species=[1, 8]) for f in (train, frames))
    values = np.zeros((len(frames), len(frames)))
    for z in (1, 8):
        x = known.values[known.species == z]
        mean = x.mean(axis=0)
        matrix = whitening((x - mean).T @ (x - mean) / len(x), exponent)
        sums = np.zeros((len(frames), matrix.shape[1]))
        for p, species, frame in zip(
            new.values, new.species, new.frame_index, strict=True
        ):
            if species == z:
                sums[frame] += (p - mean) @ matrix
        values += sums @ sums.T
    if average:
        sizes = np.array([len(f) for f in frames])
        values /= sizes[:, None] * sizes
    return values


@pytest.mark.parametrize("average", [False, True])
def test_whitened_kernel_is_its_definition(average):
    train, new = FRAMES[:14], FRAMES[10:]
    kernel = lode.WhitenedKernel(LODE, exponent=0.3, average=average)
    fitted = kernel.fitted(kernel.precompute(train))
    expected = naive_whitened(train, new, 0.3, average)
    features = fitted.precompute(new)
    tolerance = 1e-7 * np.abs(expected).max()
    np.testing.assert_allclose(fitted(new), expected, atol=tolerance)
    np.testing.assert_allclose(
        fitted.diagonal(features), expected.diagonal(), atol=tolerance
    )
    features = fitted.linear_features(features)
    np.testing.assert_allclose(features @ features.T, expected, atol=tolerance)
    np.testing.assert_allclose(
        fitted(new[:3], new[3:]), expected[:3, 3:], atol=tolerance
    )


def test_a_kernel_is_fitted_to_some_structures():
    kernel = lode.WhitenedKernel(LODE) + 0.1 * lode.PolynomialKernel(SOAP, 2)
    chosen = np.array([3, 5, 11, 2, 17, 8])
    whole = kernel.precompute(FRAMES, environments=True)
    part = kernel.fitted(whole.chosen(chosen))
    direct = kernel.fitted(kernel.precompute([FRAMES[i] for i in chosen]))
    expected = direct(FRAMES)
    np.testing.assert_allclose(
        part.gram(whole), expected, atol=1e-7 * np.abs(expected).max()
    )


def test_scatter_does_not_depend_on_the_chunks():
    kernel = lode.WhitenedKernel(LODE, exponent=0.5)
    one, many = (
        kernel.fitted(kernel.precompute(FRAMES, chunk_bytes=size))(FRAMES)
        for size in (2**30, 1)
    )
    np.testing.assert_allclose(one, many, atol=1e-6 * np.abs(one).max())


@pytest.mark.parametrize(
    "compose",
    [
        lambda k: k,
        lambda k: 2.0 * k + lode.PolynomialKernel(SOAP),
        lambda k: k * lode.PolynomialKernel(SOAP, normalize=True),
        lambda k: lode.StructureKernel(k, 2),
    ],
)
def test_models_fit_what_is_whitened_and_survive_a_file(compose, tmp_path):
    kernel = compose(lode.WhitenedKernel(LODE))
    assert not kernel.is_fitted
    for model in (
        lode.GaussianProcess(kernel, regularization=1e-6),
        lode.SparseGaussianProcess(kernel, n_sparse=30, regularization=1e-6),
    ):
        model.fit(FRAMES[:18], TARGETS[:18])
        assert model.fitted_kernel.is_fitted
        predicted = model.predict(FRAMES[18:])
        error = np.sqrt(np.mean((model.predict(FRAMES[:18]) - TARGETS[:18]) ** 2))
        assert error < 0.9 * TARGETS[:18].std()
        model.save(tmp_path / "model.npz")
        loaded = lode.load(tmp_path / "model.npz")
        np.testing.assert_array_equal(loaded.predict(FRAMES[18:]), predicted)


def test_the_test_set_does_not_move_the_whitening():
    kernel = lode.WhitenedKernel(LODE)
    model = lode.GaussianProcess(kernel, regularization=1e-8)
    model.fit(FRAMES[:18], TARGETS[:18])
    first = model.predict(FRAMES[18:20])
    np.testing.assert_allclose(model.predict(FRAMES[18:])[:2], first, rtol=1e-9)


def test_whitening_is_asked_for_by_name_when_missing():
    kernel = lode.WhitenedKernel(LODE)
    features = kernel.precompute(FRAMES[:4])
    with pytest.raises(RuntimeError, match="must be fitted first"):
        kernel.gram(features)
    with pytest.raises(ValueError, match="fitted to features that it has made"):
        kernel.fitted(lode.PolynomialKernel(LODE).precompute(FRAMES[:4]))
    hydrogen = [Atoms("H2", [[0, 0, 0], [0, 0, z]]) for z in (0.7, 0.8, 0.9)]
    fitted = kernel.fitted(kernel.precompute(hydrogen, species=[1, 8]))
    with pytest.raises(ValueError, match="centres must be of the species"):
        fitted(FRAMES[:2])
    with pytest.raises(TypeError, match="must have a method compute"):
        lode.WhitenedKernel("SOAP")


def test_signed_sums_of_structures():
    kernel = lode.WhitenedKernel(LODE)
    fitted = kernel.fitted(kernel.precompute(FRAMES[:8]))
    pairs = [
        lode.LinearCombination([FRAMES[i], FRAMES[i + 1]], [1.0, -2.0]) for i in (0, 2)
    ]
    weights = np.array([[1.0, -2.0, 0.0, 0.0], [0.0, 0.0, 1.0, -2.0]])
    expected = weights @ fitted(FRAMES[:4]) @ weights.T
    np.testing.assert_allclose(fitted(pairs), expected, rtol=1e-9)


def test_features_with_scatter_survive_a_file(tmp_path):
    kernel = lode.WhitenedKernel(LODE)
    features = kernel.precompute(FRAMES[:5])
    features.save(tmp_path / "r.npz")
    loaded = StructureFeatures.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(
        kernel.fitted(loaded).gram(loaded),
        kernel.fitted(features).gram(features),
    )
    lean = kernel.fitted(features).pruned(features)
    assert len(lean.keys) < len(features.keys)


@pytest.mark.parametrize("expansion", [POTENTIAL, DENSITY])
@pytest.mark.parametrize("frames", [FRAMES[:6], [Atoms("OH2", np.eye(3))]])
def test_contracted_expansion_is_a_combination_of_the_whole(expansion, frames):
    contracted = expansion.contracted(FRAMES, 2)
    assert contracted.basis.max_radial == 2
    u_lqn = np.array(contracted.basis.coefficients)
    whole = expansion.compute(frames).values
    found = contracted.compute(frames).values
    scale = np.abs(whole).max()
    for l in range(3):
        part = slice(l * l, (l + 1) ** 2)
        expected = whole[:, :, part] @ u_lqn[l].T
        np.testing.assert_allclose(found[:, :, part], expected, atol=3e-6 * scale)
        np.testing.assert_allclose(u_lqn[l] @ u_lqn[l].T, np.eye(2), atol=1e-12)


def test_contraction_keeps_most_of_the_variance():
    whole = POTENTIAL.compute(FRAMES)
    for z in (1, 8):
        of_species = whole.center_species == z
        c = whole.values[of_species][:, :, 0]
        c = (c - c.mean(axis=0)).reshape(-1, 3)
        variances = np.linalg.svd(c, compute_uv=False) ** 2
        assert variances[2] < 0.1 * variances.sum()
    contracted = POTENTIAL.contracted(FRAMES, 2).compute(FRAMES).values[:, :, 0]

    def spread(values):
        return sum(
            np.sum((part - part.mean(axis=0)) ** 2)
            for part in (values[whole.center_species == z] for z in (1, 8))
        )

    kept = spread(contracted) / spread(whole.values[:, :, 0])
    assert 0.9 < kept <= 1.0 + 1e-6
    worst = dataclasses.replace(
        POTENTIAL,
        basis=lode.ContractedBasis(
            POTENTIAL.basis,
            np.array(POTENTIAL.contracted(FRAMES, 3).basis.coefficients)[:, 1:],
        ),
    )
    assert spread(worst.compute(FRAMES).values[:, :, 0]) < spread(contracted)


def test_contraction_to_all_functions_leaves_the_kernel():
    contracted = POTENTIAL.contracted(FRAMES, 3)
    one, other = (
        lode.PolynomialKernel(lode.PowerSpectrum(e))(FRAMES[:5])
        for e in (POTENTIAL, contracted)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_contracted_basis_is_plain_data_and_is_checked():
    contracted = POTENTIAL.contracted(FRAMES, 2)
    assert from_dict(to_dict(contracted)) == contracted
    assert lode.RadialSpectrum(contracted).compute(FRAMES[:1]).values.shape[1] == 4
    with pytest.raises(ValueError, match="contracted already"):
        contracted.contracted(FRAMES, 1)
    with pytest.raises(ValueError, match="max_radial must be"):
        POTENTIAL.contracted(FRAMES, 4)
    with pytest.raises(ValueError, match="max_angular must be at most 2"):
        dataclasses.replace(contracted, max_angular=3)
    for coefficients, message in (
        (np.ones((2, 4, 3)), "1 to 3 functions"),
        (np.ones((2, 2, 2)), "must have shape"),
        (np.full((2, 2, 3), np.inf), "must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            lode.ContractedBasis(POTENTIAL.basis, coefficients)
    with pytest.raises(TypeError, match="must be a RadialBasis"):
        lode.ContractedBasis(contracted.basis, np.ones((1, 1, 2)))


def kernels_and_targets(n=40, seed=3):
    """Targets drawn from a sum of two kernels of three, plus noise and a constant."""
    rng = np.random.default_rng(seed)
    grams = []
    for _ in range(3):
        x = rng.normal(size=(n, 2))
        distance = np.sum((x[:, None] - x) ** 2, axis=2)
        grams.append(np.exp(-0.5 * distance))
    covariance = 4.0 * grams[0] + grams[1] + 0.05 * np.eye(n)
    return grams, np.linalg.cholesky(covariance) @ rng.normal(size=n) + 7.0


def naive_likelihood(grams, targets, weights, noise, intercept):
    """−2 ln L up to a constant, restricted if there is an intercept."""
    n = len(targets)
    covariance = sum(w * k for w, k in zip(weights, grams, strict=True))
    covariance = covariance + noise * np.eye(n)
    inverse = np.linalg.inv(covariance)
    value = np.linalg.slogdet(covariance)[1]
    y = targets
    if intercept:
        ones = np.ones(n)
        value += np.log(ones @ inverse @ ones)
        y = y - (ones @ inverse @ y) / (ones @ inverse @ ones)
    return value + y @ inverse @ y


@pytest.mark.parametrize("intercept", [True, False])
def test_weights_are_the_likeliest(intercept):
    grams, targets = kernels_and_targets()
    targets = targets if intercept else targets - 7.0
    weights, regularization = max_likelihood_weights(
        grams, targets, intercept=intercept
    )
    assert weights[0] > weights[2] >= 0.0
    centred = [k - k.mean(axis=0) if intercept else k for k in grams]
    scale = sum(
        w * np.trace(k - k.mean(axis=1)[:, None] if intercept else k)
        for w, k in zip(weights, centred, strict=True)
    ) / len(targets)
    # The kernels of the result are in units of the variance of the targets.
    n = len(targets) - 1 if intercept else len(targets)
    y = targets - targets.mean() if intercept else targets
    variance = y @ y / n
    best = [*(variance * weights), variance * regularization * scale]

    def value(logs):
        *w, noise = np.exp(logs)
        return naive_likelihood(grams, targets, w, noise, intercept)

    start = np.log(np.maximum(best, 1e-9))
    found = optimize.minimize(
        value, start, method="Nelder-Mead", options={"maxiter": 4000}
    )
    assert value(start) <= found.fun + 1e-3


def test_weights_ignore_constants_and_units():
    grams, targets = kernels_and_targets()
    weights, regularization = max_likelihood_weights(grams, targets)
    shifted = [5.0 * (k + 3.0) for k in grams]
    others, same = max_likelihood_weights(shifted, 2.0 * targets - 100.0)
    np.testing.assert_allclose(5.0 * others, weights, rtol=1e-3, atol=1e-6)
    assert same == pytest.approx(regularization, rel=1e-3)


def test_a_kernel_of_noise_gets_no_weight():
    grams, targets = kernels_and_targets(n=60)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    weights, _ = max_likelihood_weights([grams[0], x @ x.T], targets - targets.mean())
    assert weights[0] > 0.0
    assert weights[1] < 0.1 * weights[0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [10, 50, 100])
def test_likeliest_sum_is_not_much_worse_than_its_best_term(n, seed):
    # What the targets depend on most has the smallest variance of the second term's
    # features: from few structures the first, which is nearly useless, is likelier.
    rng = np.random.default_rng(seed)
    near = rng.normal(size=(160, 60))
    far = rng.normal(size=(160, 6)) * [10.0, 3.0, 1.0, 0.3, 0.1, 0.05]
    targets = far @ [0.05, 0.1, 1.0, 3.0, 3.0, 0.0] + 0.05 * near[:, :5].sum(axis=1)
    train, test = slice(n), slice(100, None)

    def error(gram, regularization=None):
        fitted = lode.fit_kernel(
            gram[train, train], targets[train], regularization=regularization
        )
        return np.std(fitted.predict(gram[test, train]) - targets[test])

    grams = [near @ near.T, far @ far.T]
    weights, regularization = max_likelihood_weights(
        [k[train, train] for k in grams], targets[train]
    )
    likeliest = sum(w * k for w, k in zip(weights, grams, strict=True))
    best = min(error(k) for k in grams)
    assert error(likeliest, regularization) <= 1.25 * best


def test_kernels_that_tell_nothing_apart_get_no_weight():
    grams, targets = kernels_and_targets(n=20)
    rng = np.random.default_rng(0)
    alike = 3.0 + 1e-16 * rng.normal(size=(20, 20))
    weights, _ = max_likelihood_weights([grams[0], alike + alike.T], targets)
    assert weights[0] > 0.0
    assert weights[1] == 0.0
    both, regularization = max_likelihood_weights([alike + alike.T] * 2, targets)
    fitted = lode.fit_kernel(
        both.sum() * (alike + alike.T), targets, regularization=regularization
    )
    np.testing.assert_allclose(fitted.predict(10 * alike), targets.mean(), rtol=1e-12)
    # By errors that are told, too.
    weights, _ = max_likelihood_weights(grams, targets, noises=[1e-9, 1e3, 1e-9])
    assert weights[1] == 0.0


def test_impossible_weights_are_refused():
    grams, targets = kernels_and_targets(n=10)
    for arguments, message in (
        (([], targets), "at least one"),
        (([grams[0], np.eye(3)], targets), "of one size"),
        ((grams, targets[:-1]), "one for each of 10 frames"),
        ((grams, np.ones(10)), "must differ"),
        (([np.eye(2)], np.arange(2.0)), "at least 3"),
    ):
        with pytest.raises(ValueError, match=message):
            max_likelihood_weights(*arguments)
    kernel = lode.WhitenedKernel(LODE)
    with pytest.raises(ValueError, match="need a SumKernel, got WhitenedKernel"):
        lode.GaussianProcess(kernel, weights="max_likelihood")
    with pytest.raises(ValueError, match="must be None with weights 'max_likelihood'"):
        lode.GaussianProcess(
            kernel + kernel, weights="max_likelihood", regularization=1.0
        )
    with pytest.raises(ValueError, match="weights must be one of"):
        lode.GaussianProcess(kernel, weights="best")


def test_learning_curve_of_terms_is_that_of_the_model():
    kernel = lode.WhitenedKernel(LODE) + lode.PolynomialKernel(
        SOAP, degree=2, normalize=True
    )
    terms = [
        fitted_term(k, k.precompute(FRAMES, environments=True))
        if not k.is_fitted
        else k(FRAMES)
        for k in kernel.kernels
    ]
    curve = learning_curve(None, TARGETS, [8, 16], n_test=8, n_repeats=2, terms=terms)
    for repeat, (pool, test) in enumerate(splits(24, 8, 2, 0)):
        for size, rmse in zip((8, 16), curve.rmse_each[repeat], strict=True):
            model = lode.GaussianProcess(kernel, weights="max_likelihood")
            model.fit([FRAMES[i] for i in pool[:size]], TARGETS[pool[:size]])
            predicted = model.predict([FRAMES[i] for i in test])
            expected = np.sqrt(np.mean((predicted - TARGETS[test]) ** 2))
            assert rmse == pytest.approx(expected, rel=1e-2)


def test_a_fitted_term_may_be_of_structures():
    kernel = lode.StructureKernel(lode.WhitenedKernel(LODE))
    term = fitted_term(kernel, kernel.precompute(FRAMES, environments=True))
    train, test = np.arange(0, 16, 2), np.arange(1, 16, 3)
    some, others = ([FRAMES[i] for i in part] for part in (train, test))
    fitted = kernel.fitted(kernel.precompute(some))
    found = term(train, test)
    expected = np.concatenate([fitted(part, some) for part in (some, others)])
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_what_is_learnt_may_differ_from_what_is_predicted():
    volume = np.array([f.cell.volume for f in FRAMES])
    gram = np.exp(-0.5 * (volume[:, None] - volume) ** 2 / 100.0)
    plain = learning_curve(gram, TARGETS, [12], n_test=8, n_repeats=2)
    same = learning_curve(
        gram,
        TARGETS,
        [12],
        n_test=8,
        n_repeats=2,
        transformed=2.0 * TARGETS + volume,
        inverse_transform=lambda values, of: (values - volume[of]) / 2.0,
    )
    assert not np.allclose(plain.rmse_each, same.rmse_each)
    direct = learning_curve(gram, 2.0 * TARGETS + volume, [12], n_test=8, n_repeats=2)
    np.testing.assert_allclose(same.rmse_each, direct.rmse_each / 2.0, rtol=1e-9)
    with pytest.raises(ValueError, match="given together"):
        learning_curve(gram, TARGETS, [12], n_test=8, transformed=TARGETS)
    with pytest.raises(ValueError, match="regularization must be None"):
        learning_curve(None, TARGETS, [12], n_test=8, terms=[gram], regularization=1.0)
