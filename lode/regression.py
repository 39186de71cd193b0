r"""Gaussian-process regression with a free intercept.

The model is y = b + f + noise with a flat prior on the intercept b, f of covariance
v K and noise of variance v λ. With the kernel centred on the training structures,

    K̃ = H K H,  H = 1 − 11ᵀ/n,  K̃ = U diag(μ) Uᵀ,

the prediction is ȳ + k̃ᵀ U diag(1/(μ+λ)) Uᵀ (y − ȳ): exactly the solution of the
system [[K+λ, 1], [1ᵀ, 0]] (α, b) = (y, 0). Reference: C. E. Rasmussen and C. K. I.
Williams, *Gaussian Processes for Machine Learning* (MIT Press, 2006), §2.2 and §2.7.

Without the intercept nothing is centred: H = 1, b = 0. Interaction energies, which
vanish when nothing interacts, want it so.

λ is the ``regularization`` times the mean diagonal tr K̃ / n. One decomposition of a
training set serves all λ.

A linear kernel K = Φ Φᵀ is never formed: the singular values s of the centred features
are known to ε s_max, while μ = s² is known only to ε s_max² from K̃. Directions with
s/s_max between 1e-16 and 1e-8 exist for the former alone. The sparse model is a linear
one as well, see :class:`SparseGaussianProcess`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from scipy import optimize
from scipy.linalg import lapack

import lode
from lode.archive import load_archive, save_archive
from lode.combinations import Combination
from lode.invariants import Features
from lode.kernels import (
    Kernel,
    Representation,
    SumKernel,
    center_species,
    distinct_structures,
)
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.specification import build, specification
from lode.systems import finite_array, species_index, systems

# Grid of the regularisation, relative to the mean diagonal of the centred kernel;
# descending, so that of equal errors the strongest regularisation is taken.
REGULARIZATIONS = np.logspace(2, -16, 37)
REGULARIZATIONS.setflags(write=False)

# Cross-validation errors this close are equal: take the strongest regularisation.
_EQUAL_ERRORS = 1e-3
_EPSILON = np.finfo(np.float64).eps
_KIND = "GaussianProcess"
_VERSION = 1

_SELECTIONS = ("cholesky", "fps")
_WEIGHTINGS = ("given", "likely")
# Ranges in which weights of kernels and the variance of the noise are sought, and where
# the search begins; all for targets and kernels of unit variance.
_WEIGHTS = (1e-9, 1e6)
_NOISES = (1e-12, 10.0)
_FIRST_NOISE = 1e-2
# Atoms whose features exist at a time in each thread while frames meet sparse points.
_CHUNK_ATOMS = 4096


@dataclass(frozen=True)
class Solution:
    """Fitted ridge regression, with or without a free intercept.

    Made by :func:`fit_kernel` and :func:`fit_features`.

    Attributes
    ----------
    modes : KernelModes or FeatureModes
        Decomposition of the training set.
    mean : float
        ȳ, mean of the targets.
    weights : ndarray
        Coefficients of the centred kernel rows (n,) or of the features (n_features,).
    regularization : float
        λ relative to the mean diagonal of the centred kernel.
    ridge : float
        λ.
    variance : float
        v, signal variance per unit of the kernel.
    regularizations, errors : ndarray (n_grid,)
        Grid and root mean squared errors of the cross-validation; empty if the
        regularisation was given.
    """

    modes: object
    mean: float
    weights: np.ndarray
    regularization: float
    ridge: float
    variance: float
    regularizations: np.ndarray
    errors: np.ndarray

    def predict(self, rows, *, diagonal=None, return_std=False):
        """Predicted targets.

        Parameters
        ----------
        rows : ndarray (n_new, n) or (n_new, n_features)
            Kernel between new and training structures, or features of the new ones.
        diagonal : ndarray (n_new,), optional
            Kernel of each new structure with itself: needed for the standard
            deviation unless features are given.
        return_std : bool
            Also return the posterior standard deviation of the noise-free b + f,

                std² = v [k̃(x,x) − k̃ᵀ (K̃+λ)⁻¹ k̃ + λ/n],

            whose last term is the uncertainty of the intercept, if there is one.

        Returns
        -------
        values : ndarray (n_new,)
        std : ndarray (n_new,)
            Only with ``return_std``.

        Raises
        ------
        ValueError
            If a shape is wrong, a number is not finite or the diagonal is missing.
        """
        rows = finite_array(rows, (None, self.modes.n_columns), "rows")
        centred = self.modes.centred(rows)
        values = self.mean + centred @ self.weights
        if not return_std:
            return values
        posterior = self.modes.posterior(rows, centred, diagonal, self.ridge)
        if self.modes.intercept:
            posterior = posterior + self.ridge / self.modes.n_train
        variance = self.variance * posterior
        return values, np.sqrt(np.maximum(variance, 0.0))


@dataclass(frozen=True)
class KernelModes:
    """Eigenvectors of a centred kernel matrix.

    Attributes
    ----------
    row_mean : ndarray (n,)
        Mean of each row of K; zero without an intercept.
    vectors : ndarray (n, r)
        U, without the directions in which K̃ vanishes.
    values : ndarray (r,)
        μ.
    scale : float
        tr K̃ / n.
    intercept : bool
        Whether the kernel is centred.
    """

    row_mean: np.ndarray
    vectors: np.ndarray
    values: np.ndarray
    scale: float
    intercept: bool = True

    @classmethod
    def of(cls, kernel, intercept=True):
        """Decomposition of a kernel matrix (n, n)."""
        n = len(kernel)
        row_mean = kernel.mean(axis=1) if intercept else np.zeros(n)
        centred = kernel - row_mean[:, None] - row_mean + row_mean.mean()
        values, vectors = np.linalg.eigh(centred)
        # K̃ is positive semi-definite and has no direction 1: what is negative, and
        # its mirror image, is rounding, as is all below that of the entries of K. To
        # divide by such a value would amplify noise, so these directions carry nothing.
        noise = max(-2.0 * values[0], n * _EPSILON * np.abs(kernel).max())
        kept = values > noise
        scale = _scale(np.trace(centred), n)
        return cls(row_mean, vectors[:, kept], values[kept], scale, intercept)

    @property
    def n_train(self):
        """Number of training structures."""
        return len(self.row_mean)

    n_columns = n_train

    def centred(self, rows):
        """Rows k(x, ·) of the kernel, centred as K̃ is."""
        if not self.intercept:
            return rows
        overall = self.row_mean.mean()
        return rows - rows.mean(axis=1)[:, None] - self.row_mean + overall

    def projection(self, deviations):
        """Components Uᵀ (y − ȳ)."""
        return self.vectors.T @ deviations

    def residual(self, deviations, projection):
        """Squared length of the targets outside the directions of the kernel."""
        return float(np.sum((deviations - self.vectors @ projection) ** 2))

    def weights(self, projection, ridge):
        """Coefficients for one λ (n,) or a grid of them (n, n_grid)."""
        return self.vectors @ _over(projection, self.values, ridge)

    def posterior(self, rows, centred, diagonal, ridge):
        """k̃(x,x) − k̃ᵀ (K̃+λ)⁻¹ k̃."""
        if diagonal is None:
            raise ValueError("the standard deviation needs the diagonal of the kernel")
        diagonal = finite_array(diagonal, (len(rows),), "diagonal")
        if self.intercept:
            diagonal = diagonal - 2.0 * rows.mean(axis=1) + self.row_mean.mean()
        components = centred @ self.vectors
        return diagonal - np.sum(components**2 / (self.values + ridge), axis=1)


@dataclass(frozen=True)
class FeatureModes:
    """Singular vectors of centred features.

    Attributes
    ----------
    mean : ndarray (n_features,)
        Mean of the training features; zero without an intercept.
    left : ndarray (n, r) or None
        U of Φ̃ = U diag(s) Vᵀ; none in a model that was loaded, or if Φ̃ᵀ Φ̃ was
        decomposed.
    right : ndarray (n_features, r)
        V.
    values : ndarray (r,)
        μ = s².
    scale : float
        tr K̃ / n.
    n_train : int
        Number of training structures.
    intercept : bool
        Whether the features are centred.
    rows : ndarray (n, n_features), optional
        Φ, in the place of ``left`` while a model is fitted.
    """

    mean: np.ndarray
    left: np.ndarray
    right: np.ndarray
    values: np.ndarray
    scale: float
    n_train: int
    intercept: bool = True
    rows: np.ndarray | None = None

    @classmethod
    def of(cls, features, intercept=True):
        """Decomposition of features (n, n_features)."""
        n, n_features = features.shape
        mean = features.mean(axis=0) if intercept else np.zeros(n_features)
        centred = features - mean
        # Reduction to a square triangle first: the singular value decomposition of
        # the long matrix itself costs several times more.
        if n_features > n:
            q, r = np.linalg.qr(centred.T)
            left, s, right_t = np.linalg.svd(r.T)
            right = q @ right_t.T
        else:
            q, r = np.linalg.qr(centred)
            left, s, right_t = np.linalg.svd(r)
            left, right = q @ left, right_t.T
        # Rounding of the decomposition, and of the subtraction of the mean.
        rounding = max(n, n_features) * s[:1].sum() + np.linalg.norm(features)
        kept = s > _EPSILON * rounding
        return cls(
            mean,
            left[:, kept],
            np.ascontiguousarray(right[:, kept]),
            s[kept] ** 2,
            _scale(np.sum(s**2), n),
            n,
            intercept,
        )

    @property
    def n_columns(self):
        """Number of features."""
        return len(self.mean)

    def centred(self, rows):
        """Features less their training mean."""
        return rows - self.mean

    def projection(self, deviations):
        """Components Uᵀ (y − ȳ)."""
        if self.left is None:
            # U = Φ̃ V diag(1/s), never formed.
            moments = self.rows.T @ deviations - self.mean * deviations.sum()
            return (self.right.T @ moments) / np.sqrt(self.values)
        return self.left.T @ deviations

    def residual(self, deviations, projection):
        """Squared length of the targets outside the directions of the features."""
        if self.left is None:
            return max(float(deviations @ deviations - projection @ projection), 0.0)
        return float(np.sum((deviations - self.left @ projection) ** 2))

    def weights(self, projection, ridge):
        """Coefficients for one λ (n_features,) or a grid (n_features, n_grid)."""
        # V s/(s²+λ) Uᵀy rather than Φ̃ᵀα: no large α that cancels in the product.
        projection = np.sqrt(self.values) * projection
        return self.right @ _over(projection, self.values, ridge)

    def posterior(self, rows, centred, diagonal, ridge):
        """k̃(x,x) − k̃ᵀ (K̃+λ)⁻¹ k̃, as a sum of squares."""
        components = centred @ self.right
        outside = centred - components @ self.right.T
        shrunk = components**2 * (ridge / (self.values + ridge))
        return shrunk.sum(axis=1) + np.einsum("ap,ap->a", outside, outside)


def _scale(trace, n):
    # Structures that the kernel cannot tell apart: any positive scale will do.
    return float(trace) / n if trace > 0 else 1.0


def _over(projection, values, ridge):
    """Projection / (μ + λ), with one column for each λ of a grid."""
    if np.ndim(ridge) == 0:
        return projection / (values + ridge)
    return projection[:, None] / (values[:, None] + ridge)


def fit_kernel(
    kernel,
    targets,
    *,
    regularization=None,
    n_folds=5,
    seed=0,
    groups=None,
    regularizations=REGULARIZATIONS,
    intercept=True,
):
    """Ridge regression with a free intercept on a precomputed kernel.

    Parameters
    ----------
    kernel : ndarray (n, n)
        Symmetric positive semi-definite; need not be centred.
    targets : ndarray (n,)
        What to learn.
    regularization : float, optional
        λ relative to the mean diagonal of the centred kernel; by default chosen from
        ``regularizations`` by cross-validation on the data given.
    n_folds : int
        Number of folds; no more than there are structures.
    seed : int
        Of the shuffle that makes the folds.
    groups : sequence of n labels, optional
        Structures with the same label stay in the same fold.
    regularizations : sequence of float
        Grid of the cross-validation.
    intercept : bool
        Whether a constant is fitted beside the kernel, without penalty.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not finite, the kernel is not symmetric, a
        regularisation is not positive or there are fewer than two structures (three
        if the regularisation is to be chosen).
    """
    kernel = finite_array(kernel, (None, None), "kernel")
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"kernel must be square, got shape {kernel.shape}")
    if not np.allclose(kernel, kernel.T, rtol=1e-8, atol=1e-8 * np.abs(kernel).max()):
        raise ValueError("kernel must be symmetric, got a matrix that is not")
    return _fit(
        _KernelTraining(kernel, intercept),
        targets,
        regularization,
        n_folds,
        seed,
        groups,
        regularizations,
    )


def fit_features(
    features,
    targets,
    *,
    regularization=None,
    n_folds=5,
    seed=0,
    groups=None,
    regularizations=REGULARIZATIONS,
    intercept=True,
    normal_equations=False,
):
    """Ridge regression with a free intercept on features: K = Φ Φᵀ, never formed.

    Parameters
    ----------
    features : ndarray (n, n_features)
        Φ.
    targets, regularization, n_folds, seed, groups, regularizations, intercept
        As in :func:`fit_kernel`.
    normal_equations : bool
        Decompose Φᵀ Φ instead of Φ: ten times faster with many more structures than
        features, and blind to directions with s/s_max below 1e-8. Those of a sparse
        model are no smaller than 1e-5.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError
        As :func:`fit_kernel`.

    Examples
    --------
    >>> import numpy as np
    >>> import lode
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> solution = lode.fit_features(x, 2 * x[:, 0] + 5, regularization=1e-12)
    >>> print(solution.predict([[10.0]]).round(6))
    [25.]
    """
    features = finite_array(features, (None, None), "features")
    training = _NormalEquations if normal_equations else _FeatureTraining
    return _fit(
        training(features, intercept),
        targets,
        regularization,
        n_folds,
        seed,
        groups,
        regularizations,
    )


class _KernelTraining:
    """Training set given as a kernel matrix: whole, or with a fold left out."""

    def __init__(self, kernel, intercept):
        self.kernel, self.intercept = kernel, intercept

    def __len__(self):
        return len(self.kernel)

    def modes(self, inside=None):
        """Decomposition of the structures inside."""
        if inside is None:
            return KernelModes.of(self.kernel, self.intercept)
        return KernelModes.of(self.kernel[np.ix_(inside, inside)], self.intercept)

    def rows(self, outside, inside):
        """Rows of the structures left out."""
        return self.kernel[np.ix_(outside, inside)]


class _FeatureTraining:
    """Training set given as features."""

    def __init__(self, features, intercept):
        self.features, self.intercept = features, intercept

    def __len__(self):
        return len(self.features)

    def modes(self, inside=None):
        """Decomposition of the structures inside."""
        chosen = self.features if inside is None else self.features[inside]
        return FeatureModes.of(chosen, self.intercept)

    def rows(self, outside, inside):
        """Rows of the structures left out."""
        return self.features[outside]


class _NormalEquations(_FeatureTraining):
    """The same, decomposed by the eigenvectors of Φ̃ᵀ Φ̃.

    Of a training set with a fold left out, Φᵀ Φ is that of the whole less that of
    the fold: a small part of the work. Features are first centred on the mean of all.
    """

    def __init__(self, features, intercept):
        super().__init__(features, intercept)
        n_features = features.shape[1]
        self.centre = features.mean(axis=0) if intercept else np.zeros(n_features)
        self.moments = self._moments(slice(None))

    def _moments(self, rows):
        x_ap = self.features[rows] - self.centre
        return x_ap.T @ x_ap

    def modes(self, inside=None):
        """Decomposition of the structures inside."""
        n, n_features = self.features.shape
        moments, rows = self.moments, self.features
        shift = np.zeros(n_features)
        if inside is not None:
            outside = np.ones(n, dtype=bool)
            outside[inside] = False
            moments, rows = moments - self._moments(outside), rows[inside]
            n = len(rows)
            if self.intercept:
                shift = rows.mean(axis=0) - self.centre
                moments = moments - n * np.multiply.outer(shift, shift)
        values, vectors = np.linalg.eigh(moments)
        noise = n_features * _EPSILON * max(float(values[-1]), 0.0)
        # Rounding of the subtraction of the mean.
        noise += (_EPSILON * np.linalg.norm(self.features)) ** 2
        kept = values > max(noise, -2.0 * values[0])
        right = np.ascontiguousarray(vectors[:, kept])
        scale = _scale(float(moments.trace()), n)
        mean = self.centre + shift
        return FeatureModes(
            mean, None, right, values[kept], scale, n, self.intercept, rows
        )


def _fit(training, targets, regularization, n_folds, seed, groups, regularizations):
    n = len(training)
    targets = checked_targets(targets, n)
    if n < 2:
        raise ValueError(f"at least 2 training frames are needed, got {n}")
    grid, errors = np.empty(0), np.empty(0)
    if regularization is None:
        grid = finite_array(regularizations, (None,), "regularizations")
        if len(grid) == 0 or grid.min() <= 0:
            raise ValueError(f"regularizations must be positive, got {grid.tolist()}")
        grid = np.sort(grid)[::-1]
        fold = folds(n, n_folds, seed, groups)
        errors = _validation_errors(training, targets, grid, fold)
        equal = errors <= (1.0 + _EQUAL_ERRORS) * errors.min()
        regularization = float(grid[np.argmax(equal)])
    elif not (np.isfinite(regularization) and regularization > 0):
        raise ValueError(
            f"regularization must be positive and finite, got {regularization}"
        )
    modes = training.modes()
    mean = float(targets.mean()) if training.intercept else 0.0
    deviations = targets - mean
    projection = modes.projection(deviations)
    ridge = float(regularization) * modes.scale
    # Restricted maximum likelihood, v = ỹᵀ (K̃+λ)⁻¹ ỹ / (n−1): the intercept takes one
    # degree of freedom. Directions without kernel contribute as pure noise, ỹ²/λ.
    outside = modes.residual(deviations, projection)
    inside = float(np.sum(projection**2 / (modes.values + ridge)))
    return Solution(
        modes,
        mean,
        modes.weights(projection, ridge),
        float(regularization),
        ridge,
        (inside + outside / ridge) / (n - 1 if training.intercept else n),
        grid,
        errors,
    )


def _validation_errors(training, targets, grid, fold):
    """Root mean squared error of each λ on the structures left out, (n_grid,).

    Kernel and targets are centred anew on the structures that remain in each fold.
    Closed-form leave-one-out on a kernel centred once, with the mean held fixed, lets
    every structure left out act on its own prediction: it picks absurd λ.
    """
    squares = np.zeros(len(grid))
    for k in range(fold.max() + 1):
        (inside,), (outside,) = np.nonzero(fold != k), np.nonzero(fold == k)
        modes = training.modes(inside)
        mean = targets[inside].mean() if training.intercept else 0.0
        projection = modes.projection(targets[inside] - mean)
        weights = modes.weights(projection, grid * modes.scale)
        rows = modes.centred(training.rows(outside, inside))
        predicted = mean + rows @ weights
        squares += np.sum((predicted - targets[outside, None]) ** 2, axis=0)
    return np.sqrt(squares / len(targets))


def likely_weights(grams, targets, *, intercept=True):
    r"""Weights of kernels that make the targets most likely.

    The covariance Σ_t w_t K_t + s² of the targets has non-negative weights and a noise
    variance that maximise the marginal likelihood; with an intercept the restricted
    one, of the n − 1 contrasts that no constant changes.

    Parameters
    ----------
    grams : sequence of ndarray (n, n)
        Kernel matrices K_t of the training structures.
    targets : ndarray (n,)
        What to learn.
    intercept : bool
        Whether a constant is fitted beside the kernels.

    Returns
    -------
    weights : ndarray (n_kernels,)
        w_t, for kernels of unit mean variance of the targets' own; zero for a kernel
        that does not help.
    regularization : float
        s² relative to the mean diagonal of the centred sum, as :func:`fit_kernel`
        takes it.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not finite, there are fewer than three
        structures or the targets are all equal.

    References
    ----------
    C. E. Rasmussen and C. K. I. Williams, *Gaussian Processes for Machine Learning*
    (MIT Press, 2006), §5.4; H. D. Patterson and R. Thompson, Biometrika 58, 545 (1971).
    """
    if len(grams) == 0:
        raise ValueError("grams must hold at least one kernel matrix, got none")
    grams = [finite_array(k, (None, None), "grams") for k in grams]
    n = len(grams[0])
    if any(k.shape != (n, n) for k in grams):
        raise ValueError(
            f"grams must be square and of one size, got {[k.shape for k in grams]}"
        )
    targets = checked_targets(targets, n)
    if n < 3:
        raise ValueError(f"at least 3 training frames are needed, got {n}")
    if np.ptp(targets) == 0.0 and (intercept or targets[0] == 0.0):
        raise ValueError(f"targets must differ, got {targets[0]} for all {n}")
    if intercept:
        grams, targets = [_contrasts(k) for k in grams], _contrasts(targets)
    size = len(targets)
    variance = float(targets @ targets) / size
    targets = targets / np.sqrt(variance)
    scales = np.array([_scale(np.trace(k), size) for k in grams])
    units = [k / scale for k, scale in zip(grams, scales, strict=True)]

    def negative(logs):
        """−2 ln L / n and its gradient in the logarithms of weights and noise."""
        *weights, noise = np.exp(logs)
        covariance = sum(w * k for w, k in zip(weights, units, strict=True))
        covariance[np.diag_indices(size)] += noise
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros(len(logs))
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        solved = inverse @ targets
        value = 2.0 * np.log(factor.diagonal()).sum() + targets @ solved
        slopes = [np.vdot(inverse, k) - solved @ k @ solved for k in units]
        slopes.append(np.trace(inverse) - solved @ solved)
        return value / size, np.exp(logs) * np.array(slopes) / size

    start = np.log([*np.full(len(grams), 1.0 / len(grams)), _FIRST_NOISE])
    low, high = np.log(_WEIGHTS)
    found = optimize.minimize(
        negative,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, high)] * len(grams) + [tuple(np.log(_NOISES))],
        options={"maxiter": 500, "ftol": 1e-9, "gtol": 1e-6},
    )
    *weights, noise = np.exp(found.x)
    weights = np.where(found.x[:-1] > low + 0.1, weights, 0.0)
    if not weights.any():
        # Nothing but noise: the mean, whatever the kernel.
        weights = np.full(len(grams), _WEIGHTS[0])
    return weights / scales, float(noise * n / (size * weights.sum()))


def _contrasts(values):
    """QᵀA Q or Qᵀa with Q an orthonormal basis of what is orthogonal to constants.

    A reflection takes the vector of ones to the first axis, which is left out.
    """
    n = len(values)
    normal = np.full(n, 1.0 / np.sqrt(n))
    normal[0] += 1.0
    normal *= np.sqrt(2.0) / np.linalg.norm(normal)
    for _ in range(np.ndim(values)):
        values = (values - np.multiply.outer(normal, normal @ values)).T
    return values[(slice(1, None),) * np.ndim(values)]


def checked_targets(targets, n):
    """Targets as float64, one for each frame.

    Raises
    ------
    ValueError
        If their number is not that of the frames, or one is not finite.
    """
    targets = finite_array(targets, (None,), "targets")
    if len(targets) != n:
        raise ValueError(
            f"targets must be one for each of {n} frames, got {len(targets)}"
        )
    return targets


def folds(n, n_folds=5, seed=0, groups=None):
    """Fold of each of n structures: shuffled, of nearly equal size.

    Parameters
    ----------
    n : int
        Number of structures.
    n_folds : int
        Number of folds, reduced to that of structures (or groups) if larger.
    seed : int
        Of the shuffle.
    groups : sequence of n labels, optional
        Structures with the same label get the same fold.

    Returns
    -------
    ndarray (n,) of int

    Raises
    ------
    ValueError
        If there are fewer than two folds, fewer than three structures (one alone has
        no kernel to learn from), or not one label for each structure.
    """
    if not (isinstance(n_folds, int | np.integer) and n_folds >= 2):
        raise ValueError(f"n_folds must be an integer of at least 2, got {n_folds!r}")
    if n < 3:
        raise ValueError(
            f"cross-validation needs at least 3 training frames, got {n}; give more "
            "or set the regularization"
        )
    label = np.arange(n)
    if groups is not None:
        if len(groups) != n:
            raise ValueError(
                f"groups must be one for each of {n} frames, got {len(groups)}"
            )
        _, label = np.unique(np.asarray(groups), return_inverse=True)
    n_labels = int(label.max()) + 1
    if n_labels < 2:
        raise ValueError(f"groups must be at least 2, got {n_labels}")
    order = np.random.default_rng(seed).permutation(n_labels)
    fold = np.empty(n_labels, dtype=np.int64)
    fold[order] = np.arange(n_labels) % min(int(n_folds), n_labels)
    fold = fold[label]
    if np.bincount(fold).max() > n - 2:
        raise ValueError(
            "each fold must leave at least 2 frames to learn from, got folds of "
            f"{np.bincount(fold).tolist()} of {n} frames"
        )
    return fold


@dataclass(eq=False)
class GaussianProcess:
    """Gaussian process on structures, with a free intercept by default.

    Parameters
    ----------
    kernel : Kernel
        Covariance of two structures, up to a factor.
    regularization : float, optional
        Noise variance relative to the mean diagonal of the centred kernel; by default
        chosen by cross-validation on the training data.
    n_folds : int
        Folds of the cross-validation; no more than there are frames.
    seed : int
        Of the shuffle that makes the folds.
    intercept : bool
        Whether a constant is fitted. Differences that vanish when nothing interacts
        have none.
    weights : {"given", "likely"}
        "likely": weights of the terms of a :class:`~lode.SumKernel`, and the
        regularisation with them, from :func:`likely_weights` on the training data.

    Attributes
    ----------
    solution : Solution
        After :meth:`fit`: coefficients, regularisation and cross-validation errors.
    species : tuple of int
        After :meth:`fit`: neighbour species of the model.
    fitted_kernel : Kernel
        After :meth:`fit`: the kernel with its whitening and its weights.

    Raises
    ------
    TypeError
        If ``kernel`` is no kernel.
    ValueError
        If ``weights`` is another word, or likely ones are asked for with a given
        regularisation or of a kernel that is no sum.
    """

    kernel: Kernel
    regularization: float | None = None
    n_folds: int = 5
    seed: int = 0
    intercept: bool = True
    weights: str = "given"
    solution: Solution | None = field(default=None, init=False, repr=False)
    species: tuple | None = field(default=None, init=False, repr=False)
    fitted_kernel: Kernel | None = field(default=None, init=False, repr=False)
    _centers: tuple | None = field(default=None, init=False, repr=False)
    _training: Representation | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        _check_kernel(self.kernel)
        if self.weights not in _WEIGHTINGS:
            raise ValueError(
                f"weights must be one of {_WEIGHTINGS}, got {self.weights!r}"
            )
        if self.weights == "likely":
            if not isinstance(self.kernel, SumKernel):
                raise ValueError(
                    f"likely weights need a SumKernel, got {type(self.kernel).__name__}"
                )
            if self.regularization is not None:
                raise ValueError(
                    "regularization must be None with likely weights, which choose it, "
                    f"got {self.regularization}"
                )

    def fit(
        self,
        frames,
        targets,
        *,
        groups=None,
        species=None,
        n_threads=None,
        progress=False,
    ):
        """Learn the targets of the frames.

        Parameters
        ----------
        frames : sequence of ase.Atoms or of Combination, Features or Representation
            Training structures.
        targets : ndarray (n_frames,)
            What to learn.
        groups : sequence of n_frames labels, optional
            Frames with the same label stay in the same fold.
        species : sequence of int, optional
            Neighbour species of the model; by default all that occur.
        n_threads : int, optional
            Threads of the descriptors.
        progress : bool
            Show a progress bar.

        Returns
        -------
        GaussianProcess
            The model itself.

        Raises
        ------
        ValueError
            If the numbers of targets and frames differ, a target is not finite or there
            are too few frames.
        """
        _check_early(frames, targets)
        training = self.kernel.represent(
            frames, species=species, n_threads=n_threads, progress=progress
        )
        settings = {
            "regularization": self.regularization,
            "n_folds": self.n_folds,
            "seed": self.seed,
            "groups": groups,
            "intercept": self.intercept,
        }
        targets = checked_targets(targets, training.n_frames)
        kernel, centers = self.kernel.fitted(training), center_species(training)
        gram = None
        if self.weights == "likely":
            grams = [term.gram(training) for term in kernel.kernels]
            weights, settings["regularization"] = likely_weights(
                grams, targets, intercept=self.intercept
            )
            kernel = kernel.weighted(weights)
            gram = sum(w * k for w, k in zip(weights, grams, strict=True))
        if kernel.is_linear:
            features = kernel.linear_features(training, centers)
            solution = fit_features(features, targets, **settings)
        else:
            gram = kernel.gram(training) if gram is None else gram
            solution = fit_kernel(gram, targets, **settings)
        self.solution, self._centers, self.fitted_kernel = solution, centers, kernel
        self.species = training.neighbor_species
        self._training = None if kernel.is_linear else kernel.needed(training)
        return self

    def predict(self, frames, *, return_std=False, n_threads=None, progress=False):
        """Predicted targets.

        Parameters
        ----------
        frames : sequence of ase.Atoms or of Combination, Features or Representation
            New structures.
        return_std : bool
            Also return the standard deviation, see :meth:`Solution.predict`.
        n_threads : int, optional
            Threads of the descriptors.
        progress : bool
            Show a progress bar.

        Returns
        -------
        values : ndarray (n_frames,)
        std : ndarray (n_frames,)
            Only with ``return_std``.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        ValueError
            If a frame has a species that the model does not know.
        """
        self._check_fitted()
        kernel = self.fitted_kernel
        new = kernel.represent(
            frames, species=self.species, n_threads=n_threads, progress=progress
        )
        if new.neighbor_species != self.species:
            raise ValueError(
                f"frames must be described with the model's neighbour species "
                f"{self.species}, got {new.neighbor_species}"
            )
        diagonal = None
        if kernel.is_linear:
            rows = kernel.linear_features(new, self._centers)
        else:
            rows = kernel.gram(new, self._training)
            diagonal = kernel.diagonal(new) if return_std else None
        return self.solution.predict(rows, diagonal=diagonal, return_std=return_std)

    def save(self, path):
        """Write the fitted model to one npz file, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            Name of the file.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        """
        self._check_fitted()
        arrays = self.fitted_kernel.fitted_arrays()
        arrays = {f"kernel_{name}": array for name, array in arrays.items()}
        if self._training is not None:
            training = self._training.to_arrays()
            arrays |= {f"training_{name}": array for name, array in training.items()}
        header = {
            "centers": self._centers,
            "fitted_kernel": specification(self.fitted_kernel),
        }
        _save_model(self, path, header, arrays)

    def _check_fitted(self):
        if self.solution is None:
            raise RuntimeError("the model must be fitted first: call fit")


def _check_kernel(kernel):
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel must be a kernel of lode, got {type(kernel).__name__}")


def _check_early(frames, targets):
    """Count the targets before the descriptors, which may take long."""
    first = frames[0] if isinstance(frames, Sequence) and frames else None
    if hasattr(first, "positions") or isinstance(first, Combination):
        checked_targets(targets, len(frames))


@dataclass(eq=False)
class SparseGaussianProcess:
    r"""Gaussian process on a few representative points: subset of regressors.

    With the kernel K_MM of M sparse points and K_nM between frames and points, the
    covariance is approximated by Φ Φᵀ,

        Φ = K_nM U w^(−1/2),  K_MM = U diag(w) Uᵀ,

    without the directions below ``condition`` times the largest w. The model is ridge
    regression on Φ, and the inverse of K_MM never meets a right-hand side.

    The points of an additive kernel are environments, chosen for each species of
    centres on its own; their numbers go with the square root of how often the species
    occurs. Those of a kernel with a :class:`~lode.StructureKernel` in it are
    structures. Targets have no part in the choice.

    Parameters
    ----------
    kernel : Kernel
        Covariance of two structures, up to a factor.
    n_sparse : int
        M; fewer if there are not so many different environments or structures.
    selection : {"cholesky", "fps"}
        "cholesky": pivoted Cholesky decomposition of the kernel, which takes the point
        that the others describe worst; "fps": farthest points in the space of
        features, by scikit-matter (environments only).
    n_candidates : int
        The points are chosen among so many environments or structures, drawn at
        random.
    condition : float
        Smallest eigenvalue of K_MM kept, relative to the largest.
    regularization, n_folds, seed, intercept
        As for :class:`GaussianProcess`; the seed also draws the candidates.

    Attributes
    ----------
    solution : Solution
        After :meth:`fit`: coefficients, regularisation and cross-validation errors.
    species : tuple of int
        After :meth:`select`: neighbour species of the model.
    sparse : Representation
        After :meth:`select`: the sparse points, each a frame.
    fitted_kernel : Kernel
        After :meth:`select`: the kernel with its whitening, from the candidates.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    References
    ----------
    J. Quiñonero-Candela and C. E. Rasmussen, J. Mach. Learn. Res. 6, 1939 (2005).
    """

    kernel: Kernel
    n_sparse: int = 2000
    selection: str = "cholesky"
    n_candidates: int = 16000
    condition: float = 1e-10
    regularization: float | None = None
    n_folds: int = 5
    seed: int = 0
    intercept: bool = True
    solution: Solution | None = field(default=None, init=False, repr=False)
    species: tuple | None = field(default=None, init=False, repr=False)
    sparse: Representation | None = field(default=None, init=False, repr=False)
    fitted_kernel: Kernel | None = field(default=None, init=False, repr=False)
    _transform: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        _check_kernel(self.kernel)
        for name in ("n_sparse", "n_candidates"):
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ValueError(f"{name} must be a positive whole number, got {value}")
        if self.selection not in _SELECTIONS:
            raise ValueError(
                f"selection must be one of {_SELECTIONS}, got {self.selection!r}"
            )
        if self.selection == "fps" and not self.kernel.is_additive:
            raise ValueError(
                "selection must be 'cholesky' for a kernel with a StructureKernel in "
                "it, got 'fps'"
            )
        if not 0.0 < self.condition < 1.0:
            raise ValueError(f"condition must be from 0 to 1, got {self.condition}")

    def select(self, frames, *, species=None, n_threads=None, progress=False):
        """Choose the sparse points among those of the frames.

        Parameters
        ----------
        frames : sequence of ase.Atoms or of Combination
            Structures to choose from; a representation serves as well if the points
            are structures.
        species : sequence of int, optional
            Neighbour species of the model; by default all that occur.
        n_threads : int, optional
            Threads of the descriptors.
        progress : bool
            Show a progress bar.

        Returns
        -------
        SparseGaussianProcess
            The model itself.

        Raises
        ------
        TypeError
            If environments are to be chosen from a representation, which holds sums.
        """
        options = {"n_threads": n_threads, "progress": progress}
        sparse, _ = self._chosen(frames, [None], species, options)
        self._transform = self._whitening(self.fitted_kernel.gram(sparse))
        self.sparse, self.species = sparse, sparse.neighbor_species
        self.solution = None
        return self

    def _whitening(self, gram):
        """U w^(-1/2) of the kernel of sparse points, without the smallest w."""
        values, vectors = np.linalg.eigh(gram)
        kept = values > self.condition * values[-1]
        return vectors[:, kept] / np.sqrt(values[kept])

    def _chosen(self, frames, parts, species, options):
        """Sparse points of parts of the frames, and the places of each part's own.

        A part is a mask of the frames, ``None`` all of them. The candidates are drawn
        and described once for all parts.
        """
        if len(parts) > 1 and not self.kernel.is_fitted:
            raise ValueError(
                "a kernel with whitening must be fitted to share sparse points between "
                "parts: kernel.fitted(representation)"
            )
        draw = np.random.default_rng(self.seed)
        find = self._environments if self.kernel.is_additive else self._structures
        return find(frames, parts, draw, species, options)

    def _structures(self, frames, parts, draw, species, options):
        if isinstance(frames, Representation):
            weights, n = frames.weights, frames.n_structures
        else:
            structures, weights = distinct_structures(frames)
            n = len(structures)
        drawn = _drawn(draw, n, self.n_candidates)
        inside = [_structures_of(part, n, weights)[drawn] for part in parts]
        if isinstance(frames, Representation):
            pool = self.kernel.represent(frames)
            kernel = self.kernel.fitted(pool)
            pool = pool.structures(drawn)
        else:
            if species is None:
                species, _ = species_index(systems(structures))
            frames = [structures[i] for i in drawn]
            pool = self.kernel.represent(frames, species=species, **options)
            kernel = self.kernel.fitted(pool)
        self.fitted_kernel, pool = kernel, kernel.needed(pool)
        gram = kernel.gram(pool)
        among = [np.flatnonzero(mask) for mask in inside]
        n_points = [self.n_sparse] * len(parts)
        n_threads = thread_count(options["n_threads"])
        points = self._pivots(gram, among, n_points, n_threads)
        chosen, places = _joined(points)
        return pool.structures(chosen), places

    def _environments(self, frames, parts, draw, species, options):
        if isinstance(frames, Representation | Features):
            raise TypeError(
                "sparse environments are chosen from structures, got "
                f"{type(frames).__name__}"
            )
        structures, weights = distinct_structures(frames)
        checked = systems(structures)
        if species is None:
            species, _ = species_index(checked)
        # Whole structures are described, and some of their atoms are candidates.
        sizes = np.array([len(s) for s in checked])
        order = draw.permutation(len(checked))
        n = 1 + int(np.searchsorted(np.cumsum(sizes[order]), 2 * self.n_candidates))
        drawn = np.sort(order[:n])
        centers = np.concatenate([checked[i].species for i in drawn])
        rows = _drawn(draw, len(centers), self.n_candidates)
        centers, owner = centers[rows], np.repeat(drawn, sizes[drawn])[rows]
        inside = [_structures_of(part, len(checked), weights)[owner] for part in parts]
        n_threads = thread_count(options["n_threads"])
        pool = [
            _candidates(d, [checked[i] for i in drawn], rows, species, n_threads)
            for d in self.kernel.descriptors
        ]
        kernel = self.kernel
        if not kernel.is_fitted:
            kernel = kernel.fitted(kernel.represent(pool))
        self.fitted_kernel = kernel
        shares = [_shares(centers[mask], self.n_sparse) for mask in inside]
        points = [[] for _ in parts]
        for z in np.unique(centers).tolist():
            of_species = np.flatnonzero(centers == z)
            alone = [_environments_alone(f, of_species) for f in pool]
            among = [np.flatnonzero(mask[of_species]) for mask in inside]
            n_points = [share.get(z, 0) for share in shares]
            found = self._representative(alone, among, n_points, n_threads)
            for own, some in zip(points, found, strict=True):
                own.append(of_species[some])
        chosen, places = _joined([np.concatenate(own) for own in points])
        sparse = [_environments_alone(f, chosen) for f in pool]
        return kernel.represent(sparse), places

    def _representative(self, alone, among, n_points, n_threads):
        """Points of each part among its own candidates, which are of one species."""
        if self.selection == "cholesky":
            gram = self.fitted_kernel.gram(self.fitted_kernel.represent(alone))
            return self._pivots(gram, among, n_points, n_threads)
        found = []
        for rows, n in zip(among, n_points, strict=True):
            some = [_environments_alone(f, rows) for f in alone]
            found.append(rows[_farthest_points(some, n)] if n else rows[:0])
        return found

    def _pivots(self, gram, among, n_points, n_threads):
        """Pivots of a kernel matrix, for each part among some of its rows."""

        def pivots(task):
            rows, n = task
            part = gram if len(rows) == len(gram) else gram[np.ix_(rows, rows)]
            return rows[pivoted_cholesky(part, n, self.condition)] if n else rows[:0]

        tasks = list(zip(among, n_points, strict=True))
        with single_threaded_blas():
            return thread_map(pivots, tasks, n_threads)

    def features(self, frames, *, n_threads=None, progress=False):
        """Features Φ of frames, from which the model is linear.

        Parameters
        ----------
        frames : sequence of ase.Atoms or of Combination, or Representation
            Structures or weighted sums of them. They are described in chunks, each
            distinct structure once.
        n_threads : int, optional
            Chunks done at a time. The result does not depend on it.
        progress : bool
            Show a progress bar.

        Returns
        -------
        ndarray (n_frames, n_columns)

        Raises
        ------
        RuntimeError
            If no sparse points are chosen.
        ValueError
            If a frame has a species that the model does not know.
        """
        if self.sparse is None:
            raise RuntimeError("sparse points must be chosen first: call select or fit")
        whole = [(slice(None), self._transform)]
        (values,) = _projected(
            self.sparse, whole, self.fitted_kernel, frames, n_threads, progress
        )
        return values

    def fit(
        self,
        frames,
        targets,
        *,
        groups=None,
        species=None,
        n_threads=None,
        progress=False,
    ):
        """Choose the sparse points and learn the targets of the frames.

        Parameters
        ----------
        frames : sequence of ase.Atoms or of Combination
            Training structures, or weighted sums of them.
        targets, groups, species, n_threads, progress
            As for :meth:`GaussianProcess.fit`.

        Returns
        -------
        SparseGaussianProcess
            The model itself.

        Raises
        ------
        TypeError, ValueError
            As :meth:`select` and :meth:`GaussianProcess.fit`.
        """
        _check_early(frames, targets)
        self.select(frames, species=species, n_threads=n_threads, progress=progress)
        features = self.features(frames, n_threads=n_threads, progress=progress)
        self.solution = fit_features(
            features,
            targets,
            regularization=self.regularization,
            n_folds=self.n_folds,
            seed=self.seed,
            groups=groups,
            intercept=self.intercept,
            normal_equations=True,
        )
        return self

    def predict(self, frames, *, return_std=False, n_threads=None, progress=False):
        """Predicted targets.

        Parameters
        ----------
        frames, n_threads, progress
            As for :meth:`features`.
        return_std : bool
            Also return the standard deviation that the sparse points allow; what they
            do not describe at all is not in it.

        Returns
        -------
        values : ndarray (n_frames,)
        std : ndarray (n_frames,)
            Only with ``return_std``.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        ValueError
            If a frame has a species that the model does not know.
        """
        self._check_fitted()
        features = self.features(frames, n_threads=n_threads, progress=progress)
        return self.solution.predict(features, return_std=return_std)

    def save(self, path):
        """Write the fitted model to one npz file, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            Name of the file.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        """
        self._check_fitted()
        sparse = self.sparse.to_arrays()
        arrays = {f"sparse_{name}": array for name, array in sparse.items()}
        arrays["transform"] = self._transform
        fitted = self.fitted_kernel.fitted_arrays()
        arrays |= {f"kernel_{name}": array for name, array in fitted.items()}
        _save_model(self, path, {}, arrays)

    def _check_fitted(self):
        if self.solution is None:
            raise RuntimeError("the model must be fitted first: call fit")


def sparse_features(
    model, frames, parts, *, species=None, n_threads=None, progress=False
):
    """Features of frames for sparse points from each of several parts of them.

    What :meth:`SparseGaussianProcess.select` on each part and then
    :meth:`SparseGaussianProcess.features` of all frames give, with the candidates
    drawn from all parts together and everything described once.

    Parameters
    ----------
    model : SparseGaussianProcess
        Kernel and settings.
    frames, n_threads, progress
        As for :meth:`SparseGaussianProcess.features`; no representation.
    parts : sequence of array_like (n_frames,) of bool
        Frames that the sparse points may be from.
    species : sequence of int, optional
        Neighbour species; by default all that occur.

    Returns
    -------
    list of ndarray (n_frames, n_columns)
        One for each part.

    Raises
    ------
    ValueError
        If a part is not a mask of the frames, or is empty.
    """
    frames = list(frames)
    parts = [np.asarray(part) for part in parts]
    for part in parts:
        if part.dtype != bool or part.shape != (len(frames),) or not part.any():
            raise ValueError(
                f"a part must be a mask of {len(frames)} frames that keeps some, got "
                f"{part.dtype} of shape {part.shape} with {int(part.sum())} kept"
            )
    if species is None:
        species, _ = species_index(systems(distinct_structures(frames)[0]))
    anywhere = np.any(parts, axis=0)
    used = [frames[i] for i in np.flatnonzero(anywhere)]
    options = {"n_threads": n_threads, "progress": progress}
    inside = [part[anywhere] for part in parts]
    sparse, places = model._chosen(used, inside, species, options)
    gram = model.fitted_kernel.gram(sparse)
    projections = [(own, model._whitening(gram[np.ix_(own, own)])) for own in places]
    kernel = model.fitted_kernel
    return _projected(sparse, projections, kernel, frames, n_threads, progress)


def _projected(sparse, projections, kernel, frames, n_threads, progress):
    """Features of frames, for each choice of some of the sparse points."""

    def columns(part):
        values = kernel.gram(part, sparse)
        return [values[:, own] @ transform for own, transform in projections]

    if isinstance(frames, Representation):
        return columns(frames)
    structures, weights = distinct_structures(frames)
    checked = systems(structures)
    species = sparse.neighbor_species
    species_index(checked, species)

    def rows(chunk):
        part = kernel.represent(checked[chunk], species=species, n_threads=1)
        return columns(part)

    chunks = _chunks([len(s) for s in checked])
    title = "sparse kernel" if progress else None
    with single_threaded_blas():
        found = thread_map(rows, chunks, thread_count(n_threads), title, "chunk")
    features = []
    # One choice after the other, and only once in memory.
    for _ in projections:
        values = np.concatenate([blocks.pop(0) for blocks in found])
        features.append(values if weights is None else weights @ values)
    return features


def pivoted_cholesky(kernel, n_points, tolerance=1e-10):
    """Points that describe a kernel matrix best, one after the other.

    Each is the point with the largest part of its kernel that those before leave
    unexplained: the pivots of a Cholesky decomposition.

    Parameters
    ----------
    kernel : ndarray (n, n)
        Symmetric and positive semi-definite.
    n_points : int
        Largest number of points.
    tolerance : float
        Stop where no more than this, relative to the largest diagonal, is left.

    Returns
    -------
    ndarray of int
        In the order of their choice.

    References
    ----------
    H. Harbrecht, M. Peters and R. Schneider, Appl. Numer. Math. 62, 428 (2012).
    """
    left = kernel.diagonal().copy()
    smallest = tolerance * left.max()
    n_points = min(int(n_points), len(left))
    factor_ki = np.zeros((n_points, len(left)))
    points = []
    for k in range(n_points):
        point = int(np.argmax(left))
        if not left[point] > smallest:
            break
        row = kernel[point] - factor_ki[:k, point] @ factor_ki[:k]
        factor_ki[k] = row / np.sqrt(left[point])
        left -= factor_ki[k] ** 2
        left[point] = 0.0
        points.append(point)
    return np.array(points, dtype=np.int64)


def _farthest_points(features, n_points):
    """Farthest points of features that count alike, each of unit mean square."""
    try:
        from skmatter.sample_selection import FPS
    except ImportError:
        raise ModuleNotFoundError(
            "selection 'fps' needs scikit-matter: pip install skmatter"
        ) from None
    columns = []
    for f in features:
        size = np.sqrt(np.mean(np.sum(f.values**2, axis=1)))
        columns.append(f.values / (size if size > 0 else 1.0))
    columns = np.unique(np.hstack(columns), axis=0, return_index=True)
    distinct, first = columns
    if len(distinct) <= n_points:
        return np.sort(first)
    return first[FPS(n_to_select=int(n_points)).fit(distinct).selected_idx_]


def _candidates(descriptor, checked, rows, species, n_threads):
    """Some of the environments of structures, each as a structure of its own."""
    chunks = _chunks([len(s) for s in checked])
    starts = np.cumsum([0, *(sum(len(s) for s in checked[c]) for c in chunks)])

    def described(task):
        chunk, start, stop = task
        features = descriptor.compute(checked[chunk], species=species, n_threads=1)
        here = rows[(rows >= start) & (rows < stop)] - start
        return _environments_alone(features, here)

    tasks = list(zip(chunks, starts[:-1], starts[1:], strict=True))
    found = thread_map(described, tasks, n_threads)
    return replace(
        found[0],
        values=np.concatenate([f.values for f in found]),
        species=np.concatenate([f.species for f in found]),
        frame_index=np.arange(len(rows)),
        n_frames=len(rows),
    )


def _structures_of(part, n_structures, weights):
    """Which structures the frames of a part are made of."""
    used = np.zeros(n_structures, dtype=bool)
    chosen = slice(None) if part is None else np.flatnonzero(part)
    used[chosen if weights is None else weights[chosen].indices] = True
    return used


def _joined(points):
    """All different points, ascending, and the places of each choice among them."""
    union = np.unique(np.concatenate(points))
    return union, [np.searchsorted(union, np.sort(own)) for own in points]


def _environments_alone(features, rows):
    """Some environments, each as a structure of its own."""
    return replace(
        features,
        values=features.values[rows],
        species=features.species[rows],
        frame_index=np.arange(len(rows)),
        n_frames=len(rows),
    )


def _shares(centers, n_sparse):
    """Number of sparse environments of each species, as the root of its frequency."""
    species, counts = np.unique(centers, return_counts=True)
    share = np.sqrt(counts) / np.sqrt(counts).sum()
    wanted = np.maximum(1, np.round(n_sparse * share).astype(np.int64))
    return dict(zip(species.tolist(), np.minimum(wanted, counts).tolist(), strict=True))


def _drawn(draw, n, n_wanted):
    """Different whole numbers below n, in ascending order."""
    return np.sort(draw.permutation(n)[: int(n_wanted)])


def _chunks(sizes):
    """Slices of consecutive structures of about a chunk of atoms each."""
    edges, atoms = [0], 0
    for i, size in enumerate(sizes):
        if atoms and atoms + size > _CHUNK_ATOMS:
            edges.append(i)
            atoms = 0
        atoms += size
    edges.append(len(sizes))
    return [slice(i, j) for i, j in pairwise(edges)]


def _save_model(model, path, header, arrays):
    """Write a fitted model: what all have, and what is this one's own."""
    s, m = model.solution, model.solution.modes
    if isinstance(m, FeatureModes):
        modes = {"mean": m.mean, "right": m.right}
    else:
        modes = {"row_mean": m.row_mean, "vectors": m.vectors}
    modes |= {
        "weights": s.weights,
        "regularizations": s.regularizations,
        "errors": s.errors,
        "values": m.values,
    }
    common = {
        "version": _VERSION,
        "lode": lode.__version__,
        "model": specification(model),
        "species": model.species,
        "mean": s.mean,
        "regularization": s.regularization,
        "ridge": s.ridge,
        "variance": s.variance,
        "scale": m.scale,
        "n_train": m.n_train,
    }
    save_archive(path, _KIND, common | header, modes | arrays)


def _loaded_solution(header, arrays, intercept):
    """The solution in a file that :func:`_save_model` wrote."""
    if "right" in arrays:
        n_train = header["n_train"]
        modes = FeatureModes(
            arrays["mean"],
            None,
            arrays["right"],
            arrays["values"],
            header["scale"],
            n_train,
            intercept,
        )
    else:
        modes = KernelModes(
            arrays["row_mean"],
            arrays["vectors"],
            arrays["values"],
            header["scale"],
            intercept,
        )
    return Solution(
        modes,
        header["mean"],
        arrays["weights"],
        header["regularization"],
        header["ridge"],
        header["variance"],
        arrays["regularizations"],
        arrays["errors"],
    )


def _with_prefix(arrays, prefix):
    """Arrays whose names begin so, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def load(path):
    """Model written by its method ``save``.

    Parameters
    ----------
    path : str or path-like
        Name of the file.

    Returns
    -------
    GaussianProcess or SparseGaussianProcess

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, damaged, of another kind or of a later version.
    """
    header, arrays = load_archive(path, _KIND)
    if header.get("version") != _VERSION:
        raise ValueError(
            f"{path} must be a {_KIND} file of version {_VERSION}, got version "
            f"{header.get('version')}"
        )
    try:
        model = build(header["model"])
        model.solution = _loaded_solution(header, arrays, model.intercept)
        model.species = tuple(header["species"])
        if isinstance(model, SparseGaussianProcess):
            sparse = _with_prefix(arrays, "sparse_")
            model.sparse = Representation.from_arrays(sparse)
            model._transform = arrays["transform"]
            fitted = _with_prefix(arrays, "kernel_")
            model.fitted_kernel = model.kernel.restored(fitted)
        else:
            model._centers = tuple(header["centers"])
            kernel = build(header["fitted_kernel"])
            model.fitted_kernel = kernel.restored(_with_prefix(arrays, "kernel_"))
            if not kernel.is_linear:
                training = _with_prefix(arrays, "training_")
                model._training = Representation.from_arrays(training)
    except KeyError as error:
        raise ValueError(
            f"{path} must be a complete {_KIND} file written by lode, it lacks {error}"
        ) from None
    return model
