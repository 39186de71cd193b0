r"""Regularised linear regression, with or without a free intercept.

The model is y = b + f + noise with a flat prior on the intercept b, f of covariance
v K and noise of variance v λ. With the kernel centred on the training structures,

    K̃ = H K H,  H = 1 − 11ᵀ/n,  K̃ = U diag(μ) Uᵀ,

the prediction is ȳ + k̃ᵀ U diag(1/(μ+λ)) Uᵀ (y − ȳ): exactly the solution of the
system [[K+λ, 1], [1ᵀ, 0]] (α, b) = (y, 0). Reference: C. E. Rasmussen and C. K. I.
Williams, *Gaussian Processes for Machine Learning* (MIT Press, 2006), §2.2 and §2.7.

Without the intercept nothing is centred: H = 1, b = 0. Interaction energies, which
vanish when nothing interacts, want it so, and tensors, of which none turns with the
structure.

λ is the ``regularization`` times the mean diagonal tr K̃ / n. One decomposition of a
training set serves all λ.

A linear kernel K = Φ Φᵀ is never formed: the singular values s of the centred features
are known to ε s_max, while μ = s² is known only to ε s_max² from K̃. Directions with
s/s_max between 1e-16 and 1e-8 exist for the former alone.

The regularisation of tensors is that of the smallest error when each structure is left
out in turn, with all its components. Without an intercept nothing else depends on the
structure that is left out, and the error is known in closed form,

.. math:: e_A = (1 - H_{AA})^{-1} (y_A - \hat y_A),\qquad
    H = X (X^TX + \lambda)^{-1} X^T,

with the block H_AA of all components of A.

Features have errors: rounding, or the tolerance of a descriptor. With ε for their root
mean square in a structure, those of n structures move the singular values by √n ε at
most. Directions below are not resolved and carry nothing: structures that differ by
their errors alone teach the mean, and the standard deviation is that of the targets.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize
from scipy.linalg import lapack

from lode.archive import POSITIVE, Wanted, checked_arrays
from lode.systems import ROUNDING, finite_array

# Grid of the regularisation, relative to the mean diagonal of the centred kernel;
# descending, so that of equal errors the strongest regularisation is taken.
REGULARIZATIONS = np.logspace(2, -16, 37)
REGULARIZATIONS.setflags(write=False)
# The same for tensors, relative to the mean square of a row of features.
TENSOR_REGULARIZATIONS = np.logspace(2, -9, 23)
TENSOR_REGULARIZATIONS.setflags(write=False)

# What is saved of a solution, in the order of its fields, and of both kinds of modes.
_SAVED = {
    "mean": Wanted("float"),
    "weights": Wanted("float", ("column",)),
    "regularization": Wanted("float", low=POSITIVE),
    "ridge": Wanted("float", low=POSITIVE),
    "variance": Wanted("float", low=0.0),
    "regularizations": Wanted("float", ("grid",), low=POSITIVE),
    "errors": Wanted("float", ("grid",), low=0.0),
}
_SAVED_MODES = {
    "modes_values": Wanted("float", ("mode",), low=0.0),
    "modes_scale": Wanted("float", low=POSITIVE),
}
_SAVED_KERNEL_MODES = _SAVED_MODES | {
    "modes_row_mean": Wanted("float", ("column",)),
    "modes_vectors": Wanted("float", ("column", "mode")),
}
_SAVED_FEATURE_MODES = _SAVED_MODES | {
    "modes_mean": Wanted("float", ("column",)),
    "modes_right": Wanted("float", ("column", "mode")),
    "modes_n_train": Wanted("float", low=0.0),
}
# Structures whose vectors exist at a time.
_BLOCK = 4096
# Errors this close are equal: take the strongest regularisation.
_EQUAL_ERRORS = 1e-3
_EPSILON = np.finfo(np.float64).eps
# Kernels may come in single precision.
_SINGLE = np.finfo(np.float32).eps
# Directions of the squared features of tensors below this, relative to the largest,
# are not resolved by their matrix of scalar products.
_CONDITION = 1e-12
# Ranges in which weights of kernels and the variance of the noise are sought, and where
# the search begins; all for targets and kernels of unit variance.
_WEIGHTS = (1e-9, 1e6)
_NOISES = (1e-12, 10.0)
_FIRST_NOISE = 1e-2
# A sum of kernels is given up for one of its terms if its error is this much larger.
_MUCH_WORSE = 1.5


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
        v, signal variance per unit of the kernel; v λ is that of the noise.
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

    @property
    def slope(self):
        """Derivatives of a predicted target with respect to its row, (n_columns,)."""
        if isinstance(self.modes, FeatureModes) or not self.modes.intercept:
            return self.weights
        return self.weights - self.weights.mean()

    def predict(
        self, rows, *, diagonal=None, outside=None, noise=1.0, return_std=False
    ):
        """Predicted targets.

        Parameters
        ----------
        rows : ndarray (n_new, n) or (n_new, n_features)
            Kernel between new and training structures, or features of the new ones.
        diagonal : ndarray (n_new,), optional
            Kernel of each new structure with itself: needed for the standard
            deviation unless features are given.
        outside : ndarray (n_new, any number), optional
            Features that no training structure has: they have a part in the standard
            deviation only.
        noise : float or ndarray (n_new,)
            Variance of the noise of the new targets, in units of v λ.
        return_std : bool
            Also return the standard deviation of a new target,

                std² = v [k̃(x,x) − k̃ᵀ (K̃+λ)⁻¹ k̃ + λ/n + λ],

            with the uncertainty of the intercept, if there is one, and the noise. If
            the training structures are all alike, that of the targets is all noise.

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
        self._check_variance()
        posterior = self.modes.posterior(rows, centred, diagonal, self.ridge)
        if not len(self.modes.values):
            # Nothing is known of f: what varies is noise.
            posterior = np.zeros(len(rows))
        if outside is not None:
            posterior = posterior + np.einsum("ap,ap->a", outside, outside)
        if self.modes.intercept:
            posterior = posterior + self.ridge / self.modes.n_train
        variance = self.variance * (posterior + self.ridge * noise)
        return values, np.sqrt(np.maximum(variance, 0.0))

    def slope_std(self, rows, noise):
        """Standard deviation of derivatives, whose features are derivatives, too.

        Parameters
        ----------
        rows : ndarray (n, n_features)
            Derivatives of the features of new structures.
        noise : float
            Variance of their noise, in units of v λ.

        Returns
        -------
        ndarray (n,)
        """
        self._check_variance()
        posterior = self.modes.posterior(rows, rows, None, self.ridge)
        return np.sqrt(self.variance * (posterior + self.ridge * noise))

    def _check_variance(self):
        if np.isnan(self.variance):
            raise ValueError(
                "standard deviations need a model that was fitted since they hold the "
                "noise, got one from an older file: fit it again"
            )

    def to_arrays(self):
        """What predictions need, as a dictionary of plain arrays."""
        m = self.modes
        modes = {"values": m.values, "scale": m.scale}
        if isinstance(m, FeatureModes):
            modes |= {"mean": m.mean, "right": m.right, "n_train": float(m.n_train)}
        else:
            modes |= {"row_mean": m.row_mean, "vectors": m.vectors}
        own = {name: getattr(self, name) for name in _SAVED}
        arrays = own | {f"modes_{name}": value for name, value in modes.items()}
        return {name: np.asarray(value) for name, value in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays, intercept):
        """The inverse of :meth:`to_arrays`.

        Raises
        ------
        ValueError
            If they are not the arrays of a solution.
        """
        of_features = "modes_right" in arrays
        wanted = _SAVED_FEATURE_MODES if of_features else _SAVED_KERNEL_MODES
        arrays = checked_arrays(arrays, _SAVED | wanted)
        values, scale = arrays["modes_values"], arrays["modes_scale"].item()
        if of_features:
            n_train = arrays["modes_n_train"].item()
            found = arrays["modes_mean"], None, arrays["modes_right"]
            modes = FeatureModes(*found, values, scale, n_train, intercept)
        else:
            found = arrays["modes_row_mean"], arrays["modes_vectors"]
            modes = KernelModes(*found, values, scale, intercept)
        own = [arrays[name] for name in _SAVED]
        return cls(modes, *[a if a.ndim else a.item() for a in own])


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
    def of(cls, kernel, noise, intercept=True):
        """Decomposition of a kernel matrix.

        Parameters
        ----------
        kernel : ndarray (n, n)
        noise : float
            Root mean square error of what it is a scalar product of.
        intercept : bool
        """
        n = len(kernel)
        row_mean = kernel.mean(axis=1) if intercept else np.zeros(n)
        centred = kernel - row_mean[:, None] - row_mean + row_mean.mean()
        values, vectors = np.linalg.eigh(centred)
        # K̃ is positive semi-definite and has no direction 1: what is negative, and
        # its mirror image, is rounding, as is all below that of the entries of K. To
        # divide by such a value would amplify noise, so these directions carry nothing.
        rounding = max(-2.0 * values[0], n * _EPSILON * np.abs(kernel).max())
        resolved = values > max(rounding, n * noise**2)
        scale = _scale(np.trace(centred), n)
        return cls(row_mean, vectors[:, resolved], values[resolved], scale, intercept)

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

    def vectors_of(self, rows):
        """U of some structures."""
        return self.vectors[rows]

    def weights(self, projection, ridge):
        """Coefficients for one λ (n,) or a grid of them (n, n_grid)."""
        return self.vectors @ _over(projection, self.values, ridge)

    def left_out(self, deviations, regularizations):
        """Root mean square error of structures left out one by one, (n_grid,).

        Exact, the intercept fitted anew each time: e_i = (P ỹ)_i / P_ii, with P = H
        (K̃+λ)⁻¹ H.
        """
        projection = self.projection(deviations)
        # What no direction of the kernel describes, unless it is rounding.
        outside_i = deviations - self.vectors @ projection
        share_i = 1.0 - self.intercept / self.n_train - np.sum(self.vectors**2, axis=1)
        rounding = share_i < self.n_train * _EPSILON
        outside_i[rounding], share_i[rounding] = 0.0, 0.0
        errors = np.empty(len(regularizations))
        for g, regularization in enumerate(regularizations):
            ridge = regularization * self.scale
            inside = 1.0 / (self.values + ridge)
            solved = self.vectors @ (inside * projection) + outside_i / ridge
            diagonal = self.vectors**2 @ inside + share_i / ridge
            errors[g] = np.sqrt(np.mean((solved / diagonal) ** 2))
        return errors

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
    n_train : float
        Number of training structures; of structures with weights, the sum of these,
        squared.
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
    n_train: float
    intercept: bool = True
    rows: np.ndarray | None = None

    @classmethod
    def of(cls, features, noise, intercept=True):
        """Decomposition of features.

        Parameters
        ----------
        features : ndarray (n, n_features)
        noise : float
            Root mean square error of a row.
        intercept : bool
        """
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
        resolved = s > max(_EPSILON * rounding, np.sqrt(n) * noise)
        return cls(
            mean,
            left[:, resolved],
            np.ascontiguousarray(right[:, resolved]),
            s[resolved] ** 2,
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

    def vectors_of(self, rows):
        """U of some structures."""
        if self.left is None:
            return (self.rows[rows] - self.mean) @ self.right / np.sqrt(self.values)
        return self.left[rows]

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
    error=ROUNDING,
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
    error : float
        Relative error of the features that the kernel is a scalar product of.
        Structures that differ by less are not told apart.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not finite, the kernel is not symmetric or
        not positive semi-definite, a regularisation is not positive or there are fewer
        than two structures (three if the regularisation is to be chosen).
    """
    kernel = finite_array(kernel, (None, None), "kernel")
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"kernel must be square, got shape {kernel.shape}")
    if not np.allclose(kernel, kernel.T, rtol=1e-8, atol=1e-8 * np.abs(kernel).max()):
        raise ValueError("kernel must be symmetric, got a matrix that is not")
    centred = _contrasts(kernel) if intercept else kernel
    lowest, highest = np.linalg.eigvalsh(centred)[[0, -1]] if len(centred) else (0, 0)
    if lowest < -len(kernel) * _SINGLE * np.abs(kernel).max():
        raise ValueError(
            "kernel must be positive semi-definite, got an eigenvalue of "
            f"{lowest:.3g} beside a largest of {highest:.3g}"
        )
    targets = checked_targets(targets, len(kernel))
    noise = checked_error(error) * kernel_size(kernel)
    settings = regularization, n_folds, seed, groups, regularizations
    return solve_kernel(kernel, targets, noise, intercept, *settings)


def checked_error(error):
    """Relative error of features, from 0 to below 1.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if not 0.0 <= error < 1.0:
        raise ValueError(f"error must be from 0 to below 1, got {error}")
    return float(error)


def kernel_size(kernel):
    """Root mean square of what a kernel (n, n) is a scalar product of."""
    return float(np.sqrt(max(np.mean(kernel.diagonal()), 0.0)))


def solve_kernel(kernel, targets, noise, intercept, *settings):
    """As :func:`fit_kernel`, of a kernel and targets that are known to be right.

    ``noise`` is the root mean square error of what the kernel is a scalar product of.
    """

    def modes(inside):
        return KernelModes.of(kernel[np.ix_(inside, inside)], noise, intercept)

    def rows(outside, inside):
        return kernel[np.ix_(outside, inside)]

    return _solved(modes, rows, targets, *settings)


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
    error=ROUNDING,
    normal_equations=False,
):
    """Ridge regression with a free intercept on features: K = Φ Φᵀ, never formed.

    Parameters
    ----------
    features : ndarray (n, n_features)
        Φ.
    targets, regularization, n_folds, seed, groups, regularizations, intercept, error
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
    targets = checked_targets(targets, len(features))
    noise = checked_error(error) * features_size(features)
    settings = regularization, n_folds, seed, groups, regularizations
    return solve_features(
        features,
        targets,
        noise,
        intercept,
        *settings,
        normal_equations=normal_equations,
    )


def features_size(features):
    """Root mean square of the rows of features (n, n_features)."""
    return float(np.linalg.norm(features) / np.sqrt(max(len(features), 1)))


def solve_features(
    features, targets, noise, intercept, *settings, normal_equations=False
):
    """As :func:`fit_features`, of features and targets that are known to be right.

    ``noise`` is the root mean square error of a row.
    """

    def modes(inside):
        return FeatureModes.of(features[inside], noise, intercept)

    def rows(outside, inside):
        return features[outside]

    if normal_equations:
        modes = _moment_modes(features, noise, intercept)
    return _solved(modes, rows, targets, *settings)


def _moment_modes(features, noise, intercept):
    """Decomposition of some rows by the eigenvectors of Φ̃ᵀ Φ̃, as a function of them.

    Of a training set with a fold left out, Φᵀ Φ is that of the whole less that of
    the fold: a small part of the work. Features are first centred on the mean of all.
    """
    n_features = features.shape[1]
    centre = features.mean(axis=0) if intercept else np.zeros(n_features)

    def moments_of(rows):
        x_ap = features[rows] - centre
        return x_ap.T @ x_ap

    whole = moments_of(slice(None))

    def modes(inside):
        n = len(inside)
        moments, rows, shift = whole, features, np.zeros(n_features)
        if n < len(features):
            outside = np.ones(len(features), dtype=bool)
            outside[inside] = False
            moments, rows = whole - moments_of(outside), features[inside]
            if intercept:
                shift = rows.mean(axis=0) - centre
                moments = moments - n * np.multiply.outer(shift, shift)
        values, vectors = np.linalg.eigh(moments)
        lowest, highest = (values[0], values[-1]) if n_features else (0.0, 0.0)
        rounding = n_features * _EPSILON * max(highest, 0.0)
        resolved = values > max(rounding, -2.0 * lowest, n * noise**2)
        right = np.ascontiguousarray(vectors[:, resolved])
        scale, mean = _scale(float(moments.trace()), n), centre + shift
        arrays = mean, None, right, values[resolved]
        return FeatureModes(*arrays, scale, n, intercept, rows)

    return modes


def _solved(
    modes_of,
    rows_of,
    targets,
    regularization,
    n_folds,
    seed,
    groups,
    grid=REGULARIZATIONS,
):
    """Solution for targets that are checked, from decompositions of some of the rows.

    ``modes_of(inside)`` decomposes training structures, and ``rows_of(outside,
    inside)`` gives those left out.
    """
    n = len(targets)
    if n < 2:
        raise ValueError(f"at least 2 training frames are needed, got {n}")
    errors = np.empty(0)
    if regularization is None:
        grid = checked_grid(grid)
        fold = folds(n, n_folds, seed, groups)
        errors = _validation_errors(modes_of, rows_of, targets, grid, fold)
        regularization = strongest(grid, errors)
    elif np.isfinite(regularization) and regularization > 0:
        grid = np.empty(0)
    else:
        raise ValueError(
            f"regularization must be positive and finite, got {regularization}"
        )
    modes = modes_of(np.arange(n))
    mean = float(targets.mean()) if modes.intercept else 0.0
    deviations = targets - mean
    projection = modes.projection(deviations)
    ridge = float(regularization) * modes.scale
    groups = checked_groups(groups, n)
    variance = _left_out_variance(modes, deviations, projection, ridge, groups)
    weights = modes.weights(projection, ridge)
    regularization = float(regularization)
    if isinstance(modes, FeatureModes):
        modes = replace(modes, rows=None)
    return Solution(modes, mean, weights, regularization, ridge, variance, grid, errors)


def checked_groups(groups, n):
    """Number of the group of each of n structures, by default one of its own.

    Raises
    ------
    ValueError
        If there is not one label for each.
    """
    if groups is None:
        return np.arange(n)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(
            f"groups must be one for each of {n} frames, got shape {groups.shape}"
        )
    return np.unique(groups, return_inverse=True)[1]


def _left_out_variance(modes, deviations, projection, ridge, groups):
    """Variance v for which what is left out is as far off as it is expected to be.

    With P = H (K̃+λ)⁻¹ H, H less the mean, the errors of a group that is left out are
    P_GG⁻¹ (P ỹ)_G, exactly, and their covariance v P_GG⁻¹. Maximum likelihood in its
    place trusts the kernel where there are no data, and is too large by half for some.
    """
    n = len(deviations)
    inside = 1.0 / (modes.values + ridge)
    _, label, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    alone, is_full = len(sizes) == n, len(modes.values) == n - modes.intercept
    edges = np.arange(_BLOCK, n, _BLOCK) if alone else np.cumsum(sizes)[:-1]
    total = 0.0
    for own in np.split(np.argsort(label, kind="stable"), edges):
        u = modes.vectors_of(own)
        missed = deviations[own] - u @ projection
        # Of directions that the kernel does not have, unless all of it is rounding.
        if is_full:
            missed = np.zeros_like(missed)
        solved = u @ (inside * projection) + missed / ridge
        if alone:
            share = 1.0 - modes.intercept / n - np.sum(u**2, axis=1)
            share[(share < n * _EPSILON) | is_full] = 0.0
            values = u**2 @ inside + share / ridge
        else:
            share = np.eye(len(own)) - modes.intercept / n - u @ u.T
            values, vectors = np.linalg.eigh(
                (u * inside) @ u.T + (not is_full) * share / ridge
            )
            solved = vectors.T @ solved
        # Of other directions the rest has nothing to say: they are no errors of it.
        known = values > n * _EPSILON * np.max(values, initial=0.0)
        total += np.sum(solved[known] ** 2 / values[known])
    return float(total) / n


def checked_grid(regularizations):
    """Positive regularisations, descending.

    Raises
    ------
    ValueError
        If there are none, or one is not positive.
    """
    grid = finite_array(regularizations, (None,), "regularizations")
    if len(grid) == 0 or grid.min() <= 0:
        raise ValueError(f"regularizations must be positive, got {grid.tolist()}")
    return np.sort(grid)[::-1]


def strongest(grid, errors):
    """Of the smallest errors the strongest regularisation."""
    return float(grid[np.argmax(errors <= (1.0 + _EQUAL_ERRORS) * errors.min())])


def _validation_errors(modes_of, rows_of, targets, grid, fold):
    """Root mean squared error of each λ on the structures left out, (n_grid,).

    Kernel and targets are centred anew on the structures that remain in each fold.
    Closed-form leave-one-out on a kernel centred once, with the mean held fixed, lets
    every structure left out act on its own prediction: it picks absurd λ.
    """
    squares = np.zeros(len(grid))
    for k in range(fold.max() + 1):
        (inside,), (outside,) = np.nonzero(fold != k), np.nonzero(fold == k)
        modes = modes_of(inside)
        mean = targets[inside].mean() if modes.intercept else 0.0
        projection = modes.projection(targets[inside] - mean)
        weights = modes.weights(projection, grid * modes.scale)
        rows = modes.centred(rows_of(outside, inside))
        predicted = mean + rows @ weights
        squares += np.sum((predicted - targets[outside, None]) ** 2, axis=0)
    return np.sqrt(squares / len(targets))


def max_likelihood_weights(grams, targets, *, intercept=True, noises=None):
    r"""Weights of kernels that make the targets most likely.

    The covariance Σ_t w_t K_t + s² of the targets has non-negative weights and a noise
    variance that maximise the marginal likelihood; with an intercept the restricted
    one, of the n − 1 contrasts that no constant changes. With few structures the
    likeliest sum may be much worse than one of its terms: if its leave-one-out error is
    more than 1.5 times that of a term alone, that term gets all the weight.

    Parameters
    ----------
    grams : sequence of ndarray (n, n)
        Kernel matrices K_t of the training structures.
    targets : ndarray (n,)
        What to learn.
    intercept : bool
        Whether a constant is fitted beside the kernels.
    noises : sequence of float, optional
        Root mean square errors of what the kernels are scalar products of; by default
        those of rounding.

    Returns
    -------
    weights : ndarray (n_kernels,)
        w_t, for kernels of unit mean variance of the targets' own; zero for a kernel
        that does not help, or does not tell the structures apart.
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
    if noises is None:
        noises = [ROUNDING * kernel_size(k) for k in grams]
    pairs = zip(grams, noises, strict=True)
    terms = [KernelModes.of(k, noise, intercept) for k, noise in pairs]
    scales = np.array([modes.scale for modes in terms])
    resolved = [t for t, modes in enumerate(terms) if len(modes.values)]
    weights = np.zeros(len(grams))
    if not resolved:
        # The mean, whatever the kernel.
        weights[:] = _WEIGHTS[0] / scales
        return weights, _NOISES[1] / _WEIGHTS[0]
    few = [grams[t] for t in resolved]
    weights[resolved], regularization = _likeliest(few, targets, intercept)
    mean = targets.mean() if intercept else 0.0
    total = sum(w * k for w, k in zip(weights, grams, strict=True) if w > 0.0)
    noise = float(np.hypot.reduce(np.sqrt(weights) * noises))
    together = KernelModes.of(total, noise, intercept)
    (error,) = together.left_out(targets - mean, [regularization])
    least = error / _MUCH_WORSE
    for t in resolved:
        grid = REGULARIZATIONS
        errors = terms[t].left_out(targets - mean, grid)
        if errors.min() < least and len(resolved) > 1:
            least, regularization = errors.min(), strongest(grid, errors)
            weights[:] = 0.0
            weights[t] = 1.0 / scales[t]
    return weights, regularization


def _likeliest(grams, targets, intercept):
    """Weights and regularisation of the greatest likelihood."""
    n = len(targets)
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

    start = np.log([*np.full(len(units), 1.0 / len(units)), _FIRST_NOISE])
    low, high = np.log(_WEIGHTS)
    found = optimize.minimize(
        negative,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, high)] * len(units) + [tuple(np.log(_NOISES))],
        options={"maxiter": 500, "ftol": 1e-9, "gtol": 1e-6},
    )
    *weights, noise = np.exp(found.x)
    weights = np.where(found.x[:-1] > low + 0.1, weights, 0.0)
    if not weights.any():
        # Nothing but noise: the mean, whatever the kernel.
        weights = np.full(len(units), _WEIGHTS[0])
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
    label = checked_groups(groups, n)
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


@dataclass(frozen=True)
class TensorModes:
    """Ridge regression of tensors without intercept, for any regularisation.

    Attributes
    ----------
    rows : ndarray (n * q, n_features)
        Features of all components.
    left : ndarray (n * q, r)
        U of X = U diag(s) Vᵀ.
    right : ndarray (n_features, r) or None
        V; ``None`` if there are more features than rows.
    values : ndarray (r,)
        s².
    scale : float
        Mean square of a row.
    targets : ndarray (n, q)
    """

    rows: np.ndarray
    left: np.ndarray
    right: np.ndarray | None
    values: np.ndarray
    scale: float
    targets: np.ndarray

    @classmethod
    def of(cls, rows, targets):
        """From features (n, q, f) and targets (n, q)."""
        rows = rows.reshape(targets.size, rows.shape[2])
        square = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
        if not square.trace() > 0.0:
            raise ValueError("features must not all vanish, got zeros")
        values, vectors = np.linalg.eigh(square)
        resolved = values > _CONDITION * values[-1]
        values, vectors = values[resolved], vectors[:, resolved]
        scale = square.trace() / len(rows)
        if len(rows) > rows.shape[1]:
            left = rows @ (vectors / np.sqrt(values))
            return cls(rows, left, vectors, values, scale, targets)
        return cls(rows, vectors, None, values, scale, targets)

    def left_out(self, grid):
        """Root mean square error of structures left out, (n_grid,)."""
        n, q = self.targets.shape
        left_nqr = self.left.reshape(n, q, -1)
        projection = self.left.T @ self.targets.ravel()
        errors = np.empty(len(grid))
        for i, regularization in enumerate(grid):
            shrunk = self.values / (self.values + regularization * self.scale)
            residual = self.targets - left_nqr @ (shrunk * projection)
            hat = (left_nqr * shrunk) @ left_nqr.transpose(0, 2, 1)
            left_out = np.linalg.solve(np.eye(q) - hat, residual[..., None])
            errors[i] = np.sqrt(np.mean(left_out**2))
        return errors

    def strongest(self, grid):
        """Regularisation of the smallest error, and the errors."""
        errors = self.left_out(grid)
        return strongest(grid, errors), errors

    def weights(self, regularization):
        """Coefficients of the features, (f,)."""
        projection = self.left.T @ self.targets.ravel()
        weak = self.values + regularization * self.scale
        if self.right is None:
            return self.rows.T @ (self.left @ (projection / weak))
        return self.right @ (np.sqrt(self.values) * projection / weak)
