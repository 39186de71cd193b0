r"""Gaussian-process regression with a free intercept.

The model is y = b + f + noise with a flat prior on the intercept b, f of covariance
v K and noise of variance v λ. With the kernel centred on the training structures,

    K̃ = H K H,  H = 1 − 11ᵀ/n,  K̃ = U diag(μ) Uᵀ,

the prediction is ȳ + k̃ᵀ U diag(1/(μ+λ)) Uᵀ (y − ȳ): exactly the solution of the
system [[K+λ, 1], [1ᵀ, 0]] (α, b) = (y, 0). Reference: C. E. Rasmussen and C. K. I.
Williams, *Gaussian Processes for Machine Learning* (MIT Press, 2006), §2.2 and §2.7.

λ is the ``regularization`` times the mean diagonal tr K̃ / n. One decomposition of a
training set serves all λ.

A linear kernel K = Φ Φᵀ is never formed: the singular values s of the centred features
are known to ε s_max, while μ = s² is known only to ε s_max² from K̃. Directions with
s/s_max between 1e-16 and 1e-8 exist for the former alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

import lode
from lode.archive import load_archive, save_archive
from lode.kernels import Kernel, Representation, center_species
from lode.specification import build, specification
from lode.systems import finite_array

# Grid of the regularisation, relative to the mean diagonal of the centred kernel;
# descending, so that of equal errors the strongest regularisation is taken.
REGULARIZATIONS = np.logspace(2, -16, 37)
REGULARIZATIONS.setflags(write=False)

# Cross-validation errors this close are equal: take the strongest regularisation.
_EQUAL_ERRORS = 1e-3
_EPSILON = np.finfo(np.float64).eps
_KIND = "GaussianProcess"
_VERSION = 1


@dataclass(frozen=True)
class Solution:
    """Fitted ridge regression with a free intercept.

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

            whose last term is the uncertainty of the intercept.

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
        n_train = self.modes.n_train
        variance = self.variance * (posterior + self.ridge / n_train)
        return values, np.sqrt(np.maximum(variance, 0.0))


@dataclass(frozen=True)
class KernelModes:
    """Eigenvectors of a centred kernel matrix.

    Attributes
    ----------
    row_mean : ndarray (n,)
        Mean of each row of K.
    vectors : ndarray (n, r)
        U, without the directions in which K̃ vanishes.
    values : ndarray (r,)
        μ.
    scale : float
        tr K̃ / n.
    """

    row_mean: np.ndarray
    vectors: np.ndarray
    values: np.ndarray
    scale: float

    @classmethod
    def of(cls, kernel):
        """Decomposition of a kernel matrix (n, n)."""
        n = len(kernel)
        row_mean = kernel.mean(axis=1)
        centred = kernel - row_mean[:, None] - row_mean + row_mean.mean()
        values, vectors = np.linalg.eigh(centred)
        # K̃ is positive semi-definite and has no direction 1: what is negative, and
        # its mirror image, is rounding, as is all below that of the entries of K. To
        # divide by such a value would amplify noise, so these directions carry nothing.
        noise = max(-2.0 * values[0], n * _EPSILON * np.abs(kernel).max())
        kept = values > noise
        return cls(
            row_mean, vectors[:, kept], values[kept], _scale(np.trace(centred), n)
        )

    @property
    def n_train(self):
        """Number of training structures."""
        return len(self.row_mean)

    n_columns = n_train

    def centred(self, rows):
        """Rows k(x, ·) of the kernel, centred as K̃ is."""
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
        diagonal = diagonal - 2.0 * rows.mean(axis=1) + self.row_mean.mean()
        components = centred @ self.vectors
        return diagonal - np.sum(components**2 / (self.values + ridge), axis=1)


@dataclass(frozen=True)
class FeatureModes:
    """Singular vectors of centred features.

    Attributes
    ----------
    mean : ndarray (n_features,)
        Mean of the training features.
    left : ndarray (n, r)
        U of Φ̃ = U diag(s) Vᵀ; empty in a model that was loaded.
    right : ndarray (n_features, r)
        V.
    values : ndarray (r,)
        μ = s².
    scale : float
        tr K̃ / n.
    n_train : int
        Number of training structures.
    """

    mean: np.ndarray
    left: np.ndarray
    right: np.ndarray
    values: np.ndarray
    scale: float
    n_train: int

    @classmethod
    def of(cls, features):
        """Decomposition of features (n, n_features)."""
        n, n_features = features.shape
        mean = features.mean(axis=0)
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
        return self.left.T @ deviations

    def residual(self, deviations, projection):
        """Squared length of the targets outside the directions of the features."""
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
        KernelModes.of,
        lambda rows, columns: kernel[np.ix_(rows, columns)],
        kernel,
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
):
    """Ridge regression with a free intercept on features: K = Φ Φᵀ, never formed.

    Parameters
    ----------
    features : ndarray (n, n_features)
        Φ.
    targets, regularization, n_folds, seed, groups, regularizations
        As in :func:`fit_kernel`.

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
    return _fit(
        FeatureModes.of,
        lambda rows, columns: features[rows],
        features,
        targets,
        regularization,
        n_folds,
        seed,
        groups,
        regularizations,
    )


def _fit(
    modes_of: Callable,
    part: Callable,
    data,
    targets,
    regularization,
    n_folds,
    seed,
    groups,
    regularizations,
):
    n = len(data)
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
        errors = _validation_errors(modes_of, part, targets, grid, fold)
        equal = errors <= (1.0 + _EQUAL_ERRORS) * errors.min()
        regularization = float(grid[np.argmax(equal)])
    elif not (np.isfinite(regularization) and regularization > 0):
        raise ValueError(
            f"regularization must be positive and finite, got {regularization}"
        )
    modes = modes_of(data)
    mean = float(targets.mean())
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
        (inside + outside / ridge) / (n - 1),
        grid,
        errors,
    )


def _validation_errors(modes_of, part, targets, grid, fold):
    """Root mean squared error of each λ on the structures left out, (n_grid,).

    Kernel and targets are centred anew on the structures that remain in each fold.
    Closed-form leave-one-out on a kernel centred once, with the mean held fixed, lets
    every structure left out act on its own prediction: it picks absurd λ.
    """
    squares = np.zeros(len(grid))
    for k in range(fold.max() + 1):
        (inside,), (outside,) = np.nonzero(fold != k), np.nonzero(fold == k)
        modes = modes_of(part(inside, inside))
        mean = targets[inside].mean()
        projection = modes.projection(targets[inside] - mean)
        weights = modes.weights(projection, grid * modes.scale)
        predicted = mean + modes.centred(part(outside, inside)) @ weights
        squares += np.sum((predicted - targets[outside, None]) ** 2, axis=0)
    return np.sqrt(squares / len(targets))


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
    """Gaussian process on structures, with a free intercept.

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

    Attributes
    ----------
    solution : Solution
        After :meth:`fit`: coefficients, regularisation and cross-validation errors.
    species : tuple of int
        After :meth:`fit`: neighbour species of the model.

    Raises
    ------
    TypeError
        If ``kernel`` is no kernel.
    """

    kernel: Kernel
    regularization: float | None = None
    n_folds: int = 5
    seed: int = 0
    solution: Solution | None = field(default=None, init=False, repr=False)
    species: tuple | None = field(default=None, init=False, repr=False)
    _centers: tuple | None = field(default=None, init=False, repr=False)
    _training: Representation | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        if not isinstance(self.kernel, Kernel):
            raise TypeError(
                f"kernel must be a kernel of lode, got {type(self.kernel).__name__}"
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
        frames : sequence of ase.Atoms, Features or Representation
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
        if isinstance(frames, Sequence) and frames and hasattr(frames[0], "positions"):
            # Before the descriptors, which may take long.
            checked_targets(targets, len(frames))
        training = self.kernel.represent(
            frames, species=species, n_threads=n_threads, progress=progress
        )
        settings = {
            "regularization": self.regularization,
            "n_folds": self.n_folds,
            "seed": self.seed,
            "groups": groups,
        }
        targets = checked_targets(targets, training.n_frames)
        centers = center_species(training)
        if self.kernel.is_linear:
            features = self.kernel.linear_features(training, centers)
            solution = fit_features(features, targets, **settings)
        else:
            solution = fit_kernel(self.kernel.gram(training), targets, **settings)
        self.solution, self._centers = solution, centers
        self.species = training.neighbor_species
        self._training = None if self.kernel.is_linear else training
        return self

    def predict(self, frames, *, return_std=False, n_threads=None, progress=False):
        """Predicted targets.

        Parameters
        ----------
        frames : sequence of ase.Atoms, Features or Representation
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
        new = self.kernel.represent(
            frames, species=self.species, n_threads=n_threads, progress=progress
        )
        if new.neighbor_species != self.species:
            raise ValueError(
                f"frames must be described with the model's neighbour species "
                f"{self.species}, got {new.neighbor_species}"
            )
        diagonal = None
        if self.kernel.is_linear:
            rows = self.kernel.linear_features(new, self._centers)
        else:
            rows = self.kernel.gram(new, self._training)
            diagonal = self.kernel.diagonal(new) if return_std else None
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
        s, m = self.solution, self.solution.modes
        arrays = {
            "weights": s.weights,
            "regularizations": s.regularizations,
            "errors": s.errors,
            "values": m.values,
        }
        if self.kernel.is_linear:
            arrays |= {"mean": m.mean, "right": m.right}
        else:
            arrays |= {"row_mean": m.row_mean, "vectors": m.vectors}
            training = self._training.to_arrays()
            arrays |= {f"training_{name}": a for name, a in training.items()}
        header = {
            "version": _VERSION,
            "lode": lode.__version__,
            "model": specification(self),
            "species": self.species,
            "centers": self._centers,
            "mean": s.mean,
            "regularization": s.regularization,
            "ridge": s.ridge,
            "variance": s.variance,
            "scale": m.scale,
            "n_train": m.n_train,
        }
        save_archive(path, _KIND, header, arrays)

    def _check_fitted(self):
        if self.solution is None:
            raise RuntimeError("the model must be fitted first: call fit")


def load(path):
    """Model written by :meth:`GaussianProcess.save`.

    Parameters
    ----------
    path : str or path-like
        Name of the file.

    Returns
    -------
    GaussianProcess

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
        if model.kernel.is_linear:
            modes = FeatureModes(
                arrays["mean"],
                np.empty((header["n_train"], 0)),
                arrays["right"],
                arrays["values"],
                header["scale"],
                header["n_train"],
            )
        else:
            modes = KernelModes(
                arrays["row_mean"], arrays["vectors"], arrays["values"], header["scale"]
            )
            prefix = "training_"
            model._training = Representation.from_arrays(
                {k.removeprefix(prefix): v for k, v in arrays.items() if prefix in k}
            )
        model.solution = Solution(
            modes,
            header["mean"],
            arrays["weights"],
            header["regularization"],
            header["ridge"],
            header["variance"],
            arrays["regularizations"],
            arrays["errors"],
        )
        model.species = tuple(header["species"])
        model._centers = tuple(header["centers"])
    except KeyError as error:
        raise ValueError(
            f"{path} must be a complete {_KIND} file written by lode, it lacks {error}"
        ) from None
    return model
