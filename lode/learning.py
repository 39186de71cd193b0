"""Learning curves: error of a model against the size of its training set."""

from dataclasses import dataclass

import numpy as np

from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.ridge import (
    REGULARIZATIONS,
    checked_targets,
    features_size,
    kernel_size,
    max_likelihood_weights,
    solve_features,
    solve_kernel,
)
from lode.systems import ROUNDING, finite_array


@dataclass(frozen=True)
class LearningCurve:
    """Errors of a model for several sizes of the training set.

    RMSE% = 100 · RMSE / std, both over the test structures of the repeat.

    Attributes
    ----------
    n_train : ndarray (n_sizes,) of int
        Sizes of the training set.
    rmse_percent, rmse_percent_std : ndarray (n_sizes,)
        Mean and standard deviation over the repeats (n − 1; zero for one repeat).
    rmse_percent_each : ndarray (n_repeats, n_sizes)
        Each repeat.
    rmse_each : ndarray (n_repeats, n_sizes)
        Root mean squared errors in units of the targets.
    regularization_each : ndarray (n_repeats, n_sizes)
        The regularisation chosen, relative to the mean diagonal of the kernel.
    """

    n_train: np.ndarray
    rmse_percent: np.ndarray
    rmse_percent_std: np.ndarray
    rmse_percent_each: np.ndarray
    rmse_each: np.ndarray
    regularization_each: np.ndarray


def splits(n_frames, n_test, n_repeats, seed):
    """Shuffles of the frames: a pool to train from and a test set for each repeat.

    Parameters
    ----------
    n_frames, n_test, n_repeats : int
        Numbers of frames, of test frames and of shuffles.
    seed : int
        Each repeat draws from its own child of this seed: more repeats leave the
        first ones as they are.

    Returns
    -------
    list of (ndarray (n_frames - n_test,), ndarray (n_test,))
        Indices of the pool and of the test frames, the last of the shuffle.
    """
    shuffles = [
        np.random.default_rng(child).permutation(n_frames)
        for child in np.random.SeedSequence(seed).spawn(n_repeats)
    ]
    return [(s[: n_frames - n_test], s[n_frames - n_test :]) for s in shuffles]


def learning_curve(
    gram,
    targets,
    n_train,
    *,
    n_test,
    n_repeats=5,
    seed=0,
    features=None,
    dual=False,
    terms=None,
    transformed=None,
    inverse_transform=None,
    regularization=None,
    n_folds=5,
    regularizations=REGULARIZATIONS,
    n_threads=None,
    progress=False,
):
    """Test error for several sizes of the training set, repeated over shuffles.

    In each repeat the training sets are the heads of one shuffled pool, so that the
    smaller are contained in the larger. The regularisation is chosen by
    cross-validation on the training set alone; the test frames are looked at once.

    Parameters
    ----------
    gram : ndarray (n_frames, n_frames) or None
        Kernel matrix of all structures.
    targets : ndarray (n_frames,)
        What to predict.
    n_train : sequence of int
        Sizes of the training set.
    n_test : int
        Number of test frames.
    n_repeats : int
        Number of shuffles.
    seed : int
        Of the shuffles.
    features : ndarray (n_frames, n_features), optional
        Instead of ``gram`` (``None``) for a linear kernel: faster with few features,
        more accurate always, see :mod:`lode.ridge`.
    dual : bool
        With ``features``: a training set of up to twice as many structures as features
        is solved by its kernel matrix. Faster, and as accurate as ``gram``, which would
        be large for many structures and is never made.
    terms : sequence of ndarray (n_frames, n_frames) or callable, optional
        Instead of ``gram``: the kernel is a sum of these with the likeliest weights for
        each training set, see :func:`lode.ridge.max_likelihood_weights`, which choose
        the regularisation too. A function takes the training and the test structures,
        two arrays of int, and gives the kernel of both with the former,
        (n_train + n_test, n_train): of a kernel that is fitted to the training
        structures, such as :func:`fitted_term` makes.
    transformed : ndarray (n_frames,), optional
        What the models learn, instead of the targets themselves.
    inverse_transform : callable, optional
        With ``transformed``: takes predicted values and the frames they are of, an
        array of int, and gives the targets that they stand for.
    regularization, n_folds, regularizations
        As in :func:`lode.ridge.fit_kernel`.
    n_threads : int, optional
        Fits done at a time; by default ``NUMBA_NUM_THREADS`` or all cores. The linear
        algebra of each fit runs on one thread: the result does not depend on this.
    progress : bool
        Show a progress bar.

    Returns
    -------
    LearningCurve

    Raises
    ------
    ValueError
        If shapes do not fit, sizes are impossible, numbers are not finite or the
        targets of a test set are all equal.
    """
    if sum(x is not None for x in (gram, features, terms)) != 1:
        raise ValueError("one of gram, features and terms must be given, and only one")
    if (transformed is None) != (inverse_transform is None):
        raise ValueError(
            "transformed and inverse_transform must be given together, or neither"
        )
    if terms is not None and regularization is not None:
        raise ValueError(
            "regularization must be None with terms, whose weights come with it, got "
            f"{regularization}"
        )
    if dual and features is None:
        raise ValueError("dual must be False without features")
    is_sum = terms is not None
    if features is not None:
        features = finite_array(features, (None, None), "features")
        n_frames = len(features)
        terms = [lambda train, test: _products(features, train, test)]
    else:
        matrices = [gram] if terms is None else terms
        terms = [k if callable(k) else _square(k) for k in matrices]
        known = [len(k) for k in terms if not callable(k)]
        n_frames = known[0] if known else len(targets)
    targets = checked_targets(targets, n_frames)
    values = targets if transformed is None else checked_targets(transformed, n_frames)
    sizes = _checked_sizes(n_train, n_test, n_repeats, n_frames)
    repeats = splits(n_frames, n_test, n_repeats, seed)
    for _, test in repeats:
        if np.ptp(targets[test]) == 0.0:
            raise ValueError(
                "targets of the test frames must differ, got "
                f"{targets[test[0]]} for all {n_test}"
            )
    settings = [regularization, n_folds, 0, None, regularizations]

    def by_features(size):
        return features is not None and not (dual and size <= 2 * features.shape[1])

    def errors(repeat, some):
        (size,) = some
        pool, test = repeats[repeat]
        train = pool[:size]
        if by_features(size):
            rows = features[train]
            noise = ROUNDING * features_size(rows)
            solution = solve_features(rows, values[train], noise, True, *settings)
            predicted = solution.predict(features[test])
        else:
            rows = np.concatenate([train, test])
            parts = [
                k(train, test) if callable(k) else k[np.ix_(rows, train)] for k in terms
            ]
            kernel, chosen = parts[0], settings
            if is_sum:
                grams = [k[:size] for k in parts]
                weights, likeliest = max_likelihood_weights(grams, values[train])
                pairs = zip(weights, parts, strict=True)
                kernel = sum(w * k for w, k in pairs if w > 0.0)
                chosen = [likeliest, *settings[1:]]
            noise = ROUNDING * kernel_size(kernel[:size])
            solution = solve_kernel(kernel[:size], values[train], noise, True, *chosen)
            predicted = solution.predict(kernel[size:])
        if inverse_transform is not None:
            predicted = inverse_transform(predicted, test)
        rmse = np.sqrt(np.mean((predicted - targets[test]) ** 2))
        percent = 100.0 * rmse / targets[test].std()
        return [(rmse, percent, solution.regularization)]

    # The largest first: no thread is left with a long fit at the end.
    groups = [[size] for size in sorted(set(sizes), reverse=True)]
    return repeated(errors, sizes, groups, n_repeats, n_threads, progress)


def repeated(errors, sizes, groups, n_repeats, n_threads, progress):
    """Learning curve from the errors of each repeat.

    Parameters
    ----------
    errors : callable
        Takes a repeat and some sizes of the training set, and gives for each the root
        mean squared error, that in percent, and the regularisation.
    sizes : list of int
        Of the training sets.
    groups : list of list of int
        The same, those together that are done together.
    n_repeats : int
    n_threads : int, optional
        Groups done at a time, each with one thread of BLAS.
    progress : bool

    Returns
    -------
    LearningCurve
    """
    tasks = [(repeat, group) for group in groups for repeat in range(n_repeats)]
    title = "learning curve" if progress else None
    with single_threaded_blas():
        results = thread_map(
            lambda task: errors(*task), tasks, thread_count(n_threads), title, "fit"
        )
    found = {
        (repeat, size): values
        for (repeat, group), result in zip(tasks, results, strict=True)
        for size, values in zip(group, result, strict=True)
    }
    table = np.array([[found[r, s] for s in sizes] for r in range(n_repeats)])
    rmse, percent, chosen = np.moveaxis(table, 2, 0)
    spread = percent.std(axis=0, ddof=1) if n_repeats > 1 else np.zeros(len(sizes))
    return LearningCurve(
        np.array(sizes), percent.mean(axis=0), spread, percent, rmse, chosen
    )


def _products(features, train, test):
    """Linear kernel of training and test structures with the former."""
    return features[np.concatenate([train, test])] @ features[train].T


def _square(matrix):
    matrix = finite_array(matrix, (None, None), "gram")
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"gram must be square, got shape {matrix.shape}")
    return matrix


def fitted_term(kernel, features):
    """A kernel that is fitted to each training set, as a term of a learning curve.

    Parameters
    ----------
    kernel : Kernel
        Such as a :class:`~lode.WhitenedKernel`, not fitted yet.
    features : StructureFeatures
        Of all structures, from ``kernel.precompute(frames, environments=True)``.

    Returns
    -------
    callable
        From training and test structures to their kernel, see
        :func:`learning_curve`.
    """
    if features.weights is not None:
        raise ValueError("features must be of single structures, got combinations")

    def term(train, test):
        fitted = kernel.fitted(features.chosen(train))
        every = fitted.pruned(features)
        both = every.chosen(np.concatenate([train, test]))
        return fitted.gram(both, every.chosen(train))

    return term


def _checked_sizes(n_train, n_test, n_repeats, n_frames):
    sizes = [int(n) for n in np.atleast_1d(np.asarray(n_train, dtype=np.int64))]
    if not sizes or min(sizes) < 3:
        raise ValueError(f"n_train must be sizes of at least 3, got {sizes}")
    if n_test < 2:
        raise ValueError(f"n_test must be at least 2, got {n_test}")
    if n_repeats < 1:
        raise ValueError(f"n_repeats must be at least 1, got {n_repeats}")
    if max(sizes) + n_test > n_frames:
        raise ValueError(
            f"n_train and n_test must fit into {n_frames} frames, got "
            f"{max(sizes)} + {n_test}"
        )
    return sizes


def ordered_split(groups, fraction):
    """The first groups in the order of their labels, to train from.

    Parameters
    ----------
    groups : sequence of n labels
        Structures with the same label stay together.
    fraction : float
        Share of the groups to train from, between 0 and 1.

    Returns
    -------
    ndarray (n,) of bool
        Whether a structure is in the training part.

    Raises
    ------
    ValueError
        If the fraction leaves no group on one side.

    Examples
    --------
    >>> print(ordered_split(["b", "a", "c", "a"], 0.67))
    [ True  True False  True]
    """
    _, label = np.unique(np.asarray(groups), return_inverse=True)
    return label < _group_count(label, fraction)


def group_splits(groups, fraction, n_repeats, seed, strata=None):
    """Random choices of whole groups to train from.

    Parameters
    ----------
    groups, fraction
        As for :func:`ordered_split`.
    n_repeats : int
        Number of choices.
    seed : int
        Each repeat draws from its own child of this seed.
    strata : sequence of n labels, optional
        Classes of the groups. Each is split by itself, so that rare ones are on both
        sides if they have groups enough.

    Returns
    -------
    list of ndarray (n,) of bool
        Whether a structure is in the training part.

    Raises
    ------
    ValueError
        As :func:`ordered_split`, or if a group belongs to two strata.
    """
    _, first, label = np.unique(
        np.asarray(groups), return_index=True, return_inverse=True
    )
    n_train = _group_count(label, fraction)
    if strata is not None:
        strata = np.asarray(strata)
        stratum = strata[first]
        if not np.array_equal(stratum[label], strata):
            raise ValueError("each group must belong to one stratum, got one in two")
    masks = []
    for child in np.random.SeedSequence(seed).spawn(n_repeats):
        place = np.random.default_rng(child).permutation(label.max() + 1)
        if strata is None:
            masks.append(place[label] < n_train)
            continue
        chosen = np.zeros(len(place), dtype=bool)
        for of in np.unique(stratum):
            members = np.flatnonzero(stratum == of)
            members = members[np.argsort(place[members])]
            n = int(np.floor(fraction * len(members) + 0.5))
            chosen[members[:n]] = True
        if chosen.all() or not chosen.any():
            raise ValueError(
                f"fraction must leave groups on both sides of {len(place)} groups in "
                f"{len(np.unique(stratum))} strata, got {fraction}"
            )
        masks.append(chosen[label])
    return masks


def _group_count(label, fraction):
    """Number of groups to train from."""
    n_groups = int(label.max()) + 1 if len(label) else 0
    # 0.29 of 100 are 29, whatever its last bit.
    n_train = int(fraction * n_groups + 1e-9)
    if not 0 < n_train < n_groups:
        raise ValueError(
            f"fraction must leave groups on both sides of {n_groups}, got {fraction}"
        )
    return n_train


def relative_error(predicted, targets):
    """Root mean squared error, and in percent of the targets' standard deviation.

    Parameters
    ----------
    predicted, targets : ndarray (n,)

    Returns
    -------
    rmse, rmse_percent : float

    Raises
    ------
    ValueError
        If shapes differ, a number is not finite, or there are no targets or only
        equal ones.
    """
    targets = finite_array(targets, (None,), "targets")
    predicted = finite_array(predicted, targets.shape, "predicted")
    if len(targets) == 0:
        raise ValueError("targets must be at least one, got none")
    if np.ptp(targets) == 0.0:
        raise ValueError(f"targets must differ, got {targets[0]} for all")
    rmse = float(np.sqrt(np.mean((predicted - targets) ** 2)))
    return rmse, 100.0 * rmse / float(targets.std())
