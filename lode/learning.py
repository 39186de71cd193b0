"""Learning curves: error of a model against the size of its training set."""

from dataclasses import dataclass

import numpy as np

from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.regression import (
    REGULARIZATIONS,
    checked_targets,
    fit_features,
    fit_kernel,
)
from lode.systems import finite_array


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
        What to learn.
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
        more accurate always, see :mod:`lode.regression`.
    regularization, n_folds, regularizations
        As in :func:`lode.regression.fit_kernel`.
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
    if (gram is None) == (features is None):
        raise ValueError("either gram or features must be given, and not both")
    if gram is None:
        data = finite_array(features, (None, None), "features")
    else:
        data = finite_array(gram, (None, None), "gram")
        if data.shape[0] != data.shape[1]:
            raise ValueError(f"gram must be square, got shape {data.shape}")
    n_frames = len(data)
    targets = checked_targets(targets, n_frames)
    sizes = _checked_sizes(n_train, n_test, n_repeats, n_frames)
    repeats = splits(n_frames, n_test, n_repeats, seed)
    for _, test in repeats:
        if np.ptp(targets[test]) == 0.0:
            raise ValueError(
                "targets of the test frames must differ, got "
                f"{targets[test[0]]} for all {n_test}"
            )
    settings = {
        "regularization": regularization,
        "n_folds": n_folds,
        "regularizations": regularizations,
    }

    def error(task):
        repeat, size = task
        pool, test = repeats[repeat]
        train = pool[:size]
        if gram is None:
            solution = fit_features(data[train], targets[train], **settings)
            predicted = solution.predict(data[test])
        else:
            kernel = data[np.ix_(train, train)]
            solution = fit_kernel(kernel, targets[train], **settings)
            predicted = solution.predict(data[np.ix_(test, train)])
        rmse = np.sqrt(np.mean((predicted - targets[test]) ** 2))
        return rmse, 100.0 * rmse / targets[test].std(), solution.regularization

    # The largest first: no thread is left with a long fit at the end.
    tasks = [(r, s) for s in sorted(set(sizes), reverse=True) for r in range(n_repeats)]
    title = "learning curve" if progress else None
    with single_threaded_blas():
        results = thread_map(error, tasks, thread_count(n_threads), title, "fit")
    found = dict(zip(tasks, results, strict=True))
    table = np.array([[found[r, s] for s in sizes] for r in range(n_repeats)])
    rmse, percent, chosen = np.moveaxis(table, 2, 0)
    spread = percent.std(axis=0, ddof=1) if n_repeats > 1 else np.zeros(len(sizes))
    return LearningCurve(
        np.array(sizes), percent.mean(axis=0), spread, percent, rmse, chosen
    )


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
        masks.append(chosen[label])
    return masks


def _group_count(label, fraction):
    """Number of groups to train from."""
    n_groups = int(label.max()) + 1 if len(label) else 0
    n_train = int(fraction * n_groups)
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
        The second is NaN if the targets are all equal.

    Raises
    ------
    ValueError
        If there are no targets.
    """
    predicted, targets = np.asarray(predicted), np.asarray(targets)
    if len(targets) == 0:
        raise ValueError("targets must be at least one, got none")
    rmse = float(np.sqrt(np.mean((predicted - targets) ** 2)))
    spread = float(targets.std())
    return rmse, 100.0 * rmse / spread if spread > 0 else float("nan")
