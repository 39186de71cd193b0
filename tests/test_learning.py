import tracemalloc

import numpy as np
import pytest

from lode.learning import learning_curve, splits
from lode.ridge import fit_kernel


def linear_problem(n=60, n_features=10, noise=0.1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, n_features)) + 2.0
    return x, x @ rng.normal(size=n_features) + noise * rng.normal(size=n)


X, Y = linear_problem()
GRAM = X @ X.T
SIZES = [5, 10, 40]


def test_each_point_is_a_fit_on_the_head_of_its_shuffle():
    curve = learning_curve(GRAM, Y, SIZES, n_test=20, n_repeats=3, seed=4)
    for r, child in enumerate(np.random.SeedSequence(4).spawn(3)):
        order = np.random.default_rng(child).permutation(60)
        test = order[-20:]
        for s, size in enumerate(SIZES):
            train = order[:size]
            solution = fit_kernel(GRAM[np.ix_(train, train)], Y[train])
            error = solution.predict(GRAM[np.ix_(test, train)]) - Y[test]
            rmse = np.sqrt(np.mean(error**2))
            # The same arithmetic, on another number of BLAS threads.
            assert curve.rmse_each[r, s] == pytest.approx(rmse, rel=1e-8)
            percent = 100 * rmse / Y[test].std()
            assert curve.rmse_percent_each[r, s] == pytest.approx(percent, rel=1e-8)
            assert curve.regularization_each[r, s] == solution.regularization
    np.testing.assert_allclose(
        curve.rmse_percent, curve.rmse_percent_each.mean(axis=0), rtol=1e-14
    )
    np.testing.assert_allclose(
        curve.rmse_percent_std, curve.rmse_percent_each.std(axis=0, ddof=1), rtol=1e-12
    )


@pytest.mark.parametrize("features", [None, X], ids=["gram", "features"])
def test_threads_do_not_change_a_bit(features):
    gram = GRAM if features is None else None
    settings = {"n_test": 20, "n_repeats": 4, "features": features}
    curves = [
        learning_curve(gram, Y, SIZES, n_threads=n, **settings) for n in (1, 2, 4, None)
    ]
    for curve in curves[1:]:
        for name, value in vars(curves[0]).items():
            np.testing.assert_array_equal(getattr(curve, name), value)


def test_features_and_gram_give_the_same_curve():
    a = learning_curve(GRAM, Y, SIZES, n_test=20)
    b = learning_curve(None, Y, SIZES, n_test=20, features=X)
    # Condition number of the kernel, 1e4, squared.
    np.testing.assert_allclose(a.rmse_percent_each, b.rmse_percent_each, rtol=1e-6)


def test_dual_form_solves_small_training_sets_by_their_kernel():
    settings = {"n_test": 20, "n_threads": 1}
    dual = learning_curve(None, Y, SIZES, features=X, dual=True, **settings)
    kernel = learning_curve(GRAM, Y, SIZES, **settings)
    features = learning_curve(None, Y, SIZES, features=X, **settings)
    # Up to twice the ten features; products of matrices of other sizes, other bits.
    np.testing.assert_allclose(
        dual.rmse_each[:, :2], kernel.rmse_each[:, :2], rtol=1e-12
    )
    np.testing.assert_array_equal(dual.rmse_each[:, 2], features.rmse_each[:, 2])
    assert not np.array_equal(dual.rmse_each[:, 1], features.rmse_each[:, 1])


def test_dual_form_never_holds_a_matrix_of_all_structures():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20_000, 8)), rng.normal(size=20_000)
    tracemalloc.start()
    settings = {"features": x, "dual": True, "n_repeats": 1}
    learning_curve(None, y, [10, 19_000], n_test=1000, n_threads=1, **settings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The kernel matrix would be 3.2 GB.
    assert peak < 20 * x.nbytes


def test_more_repeats_or_sizes_keep_the_others():
    few = learning_curve(GRAM, Y, [10], n_test=20, n_repeats=2, seed=1)
    many = learning_curve(GRAM, Y, SIZES, n_test=20, n_repeats=4, seed=1)
    np.testing.assert_array_equal(
        few.rmse_percent_each[:, 0], many.rmse_percent_each[:2, 1]
    )


def test_test_frames_never_train():
    for pool, test in splits(30, 10, 5, 0):
        assert sorted([*pool, *test]) == list(range(30))
    shuffles = [tuple(pool) for pool, _ in splits(30, 10, 5, 0)]
    assert len(set(shuffles)) == 5


def test_test_targets_do_not_touch_the_model():
    ((_, test),) = splits(60, 20, 1, 0)
    moved = Y.copy()
    moved[test] = np.random.default_rng(1).normal(size=20)
    settings = {"n_test": 20, "n_repeats": 1}
    a = learning_curve(GRAM, Y, SIZES, **settings)
    b = learning_curve(GRAM, moved, SIZES, **settings)
    np.testing.assert_array_equal(a.regularization_each, b.regularization_each)


def test_noise_free_linear_data_are_learnt_exactly():
    x, y = linear_problem(noise=0.0)
    curve = learning_curve(None, y, [5, 40], n_test=20, features=x, n_repeats=3)
    assert curve.rmse_percent[0] > 10
    # Percent of the spread: rounding times the condition of forty random points.
    assert curve.rmse_percent[1] < 1e-9


def test_one_repeat_has_no_spread():
    curve = learning_curve(GRAM, Y, SIZES, n_test=20, n_repeats=1)
    assert curve.rmse_percent_std.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_train": [50]}, r"fit into 60 frames, got 50 \+ 20"),
        ({"n_train": [2, 10]}, "sizes of at least 3"),
        ({"n_train": []}, "sizes of at least 3"),
        ({"n_test": 1}, "n_test must be at least 2"),
        ({"n_repeats": 0}, "n_repeats must be at least 1"),
        ({"n_threads": 0}, "n_threads must be a positive whole"),
        ({"targets": Y[:-1]}, "one for each of 60 frames, got 59"),
        ({"targets": np.full(60, np.nan)}, "targets must be finite"),
        ({"targets": np.ones(60)}, "targets of the test frames must differ"),
        ({"gram": X}, "gram must be square"),
        ({"features": X}, "one of gram, features and terms"),
        ({"gram": None}, "one of gram, features and terms"),
        ({"dual": True}, "dual must be False without features"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    settings = {"gram": GRAM, "targets": Y, "n_train": [10], "n_test": 20, **change}
    with pytest.raises(ValueError, match=message):
        learning_curve(
            settings.pop("gram"),
            settings.pop("targets"),
            settings.pop("n_train"),
            **settings,
        )
