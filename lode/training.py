"""Learning from energies, forces and stress together, one structure after the other.

Each energy, force and stress is a row of a weighted least-squares problem in the
features Φ of a model; of the rows only the triangular factor of a QR decomposition is
kept, one for each fold of the cross-validation, so that memory does not grow with their
number.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress

from lode.baselines import species_counts
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.prediction import Described
from lode.ridge import (
    REGULARIZATIONS,
    FeatureModes,
    Solution,
    folds,
    strongest,
)
from lode.systems import check_volume, finite_array

# Word for constants of each species.
SPECIES = "species"
# Scalars that one sweep derives, see the page on theory, and memory of their gradients.
_SCALARS = 16
_GRADIENT_BYTES = 2**27
_EPSILON = np.finfo(float).eps
# Components xx, yy, zz, yz, xz, xy.
_VOIGT = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)


class Targets(NamedTuple):
    """What is learnt of each frame: energy, and forces and stress or none.

    Attributes
    ----------
    energies : ndarray (n_frames,)
    forces : list of ndarray (n_atoms, 3) or None
    stress : list of ndarray (3, 3) or None
    """

    energies: np.ndarray
    forces: list
    stress: list


def checked_derivatives_of(inputs, energies, forces, stress):
    """Targets of structures, checked.

    Parameters
    ----------
    inputs : Structures
    energies : ndarray (n_frames,)
    forces, stress : sequence or None
        One entry for each frame, which may be ``None``.

    Returns
    -------
    Targets

    Raises
    ------
    TypeError, ValueError
        If there is not one entry for each frame, a shape does not fit, a number is not
        finite, a frame is a combination or a stress has no volume.
    """
    if getattr(inputs, "systems", None) is None or inputs.weights is not None:
        raise TypeError(
            "forces and stress are learnt of structures, not of features or "
            "combinations"
        )
    n, found = len(inputs), []
    for name, given in (("forces", forces), ("stress", stress)):
        given = n * [None] if given is None else list(given)
        if len(given) != n:
            raise ValueError(
                f"{name} must have one entry for each of {n} frames, got {len(given)}"
            )
        checked = []
        for frame, (system, value) in enumerate(zip(inputs, given, strict=True)):
            where = f" (frame {frame})"
            if value is None:
                checked.append(None)
            elif name == "forces":
                checked.append(finite_array(value, (len(system), 3), name, where))
            else:
                checked.append(_checked_stress(value, system, where))
        found.append(checked)
    return Targets(energies, *found)


def _checked_stress(value, system, where):
    check_volume(system, where)
    if np.shape(value) == (6,):
        value = voigt_6_to_full_3x3_stress(finite_array(value, (6,), "stress", where))
    return finite_array(value, (3, 3), "stress", where)


def fitted_solution(model, inputs, targets, features, groups, n_threads, progress):
    """Solution for energies, forces and stress together.

    Parameters
    ----------
    model : SparseGaussianProcess
        With its sparse points.
    inputs : Structures
    targets : Targets
        Less the baseline.
    features : ndarray (n_frames, n_columns)
    groups : sequence or None
        As for :meth:`SparseGaussianProcess.fit`.
    n_threads : int
    progress : bool

    Returns
    -------
    Solution
    ndarray (n_species,) or None
        Energies of the species, if these are the constants.
    """
    n, n_columns = features.shape
    constants, basis = _constants(model, inputs)
    n_constants = constants.shape[1]
    fold = np.zeros(n, dtype=np.int64)
    if model.regularization is None:
        fold = folds(n, model.n_folds, model.seed, groups)
    points = [model.sparse.chosen([i]) for i in range(model.sparse.n_structures)]

    def rows_of(frame):
        """Weighted rows of one frame: constants, features, target."""
        part, blocks = inputs.chosen([frame]), []
        weight = 1.0 / (model.energy_noise * len(part.species))
        row = weight * features[frame]
        constant = weight * constants[frame]
        blocks.append([[*constant, *row, weight * targets.energies[frame]]])
        forces, stress = targets.forces[frame], targets.stress[frame]
        if forces is not None or stress is not None:
            slopes = _slopes(model, part, points, stress is not None)
            of_positions, of_strain = (
                None if s is None else s.T @ model._transform for s in slopes
            )
            if forces is not None:
                found = of_positions, -forces.ravel(), model.force_noise
                blocks.append(_weighted(*found, n_constants))
            if stress is not None:
                found = of_strain / part[0].volume, stress[_VOIGT], model.stress_noise
                blocks.append(_weighted(*found, n_constants))
        return np.vstack(blocks)

    width = n_constants + n_columns + 1
    factors = [_Factor(width) for _ in range(fold.max() + 1)]
    threads = thread_count(n_threads)
    title = "forces" if progress else None
    with single_threaded_blas():
        # Some at a time: their rows are not kept.
        for start in range(0, n, 8 * threads):
            some = range(start, min(start + 8 * threads, n))
            found = thread_map(rows_of, some, threads, title, "frame")
            for frame, rows in zip(some, found, strict=True):
                factors[fold[frame]].add(rows)
    solution, found = _solved(model, inputs, factors, features, n_constants)
    if model.intercept != SPECIES:
        return solution, None
    return replace(solution, mean=0.0), basis @ found


def _constants(model, inputs):
    """Columns of the constants that are free, and what they are combinations of."""
    if model.intercept != SPECIES:
        return np.ones((len(inputs), int(model.intercept))), None
    counts = species_counts(inputs, model.species)
    # Of species that always occur together only the sum is known.
    _, s, right_t = np.linalg.svd(counts, full_matrices=False)
    basis = right_t[s > _EPSILON * max(counts.shape) * s[0]].T
    return counts @ basis, basis


def _weighted(slopes, target, noise, n_constants):
    """Rows of derivatives, which constants have no part in."""
    zeros = np.zeros((len(slopes), n_constants))
    return np.hstack([zeros, slopes, target[:, None]]) / noise


def _slopes(model, part, points, strained):
    """Derivatives of the kernel with each point: of positions, and of six strains.

    Returns
    -------
    ndarray (n_points, 3 n_atoms)
    ndarray (n_points, 6) or None
    """
    kernel = model.fitted_kernel
    described = Described(kernel, part, model.species, 1)
    one, positions, strains = np.ones((1, 1)), [], []
    size = max(x.values.nbytes for x in described.given)
    step = max(1, min(_SCALARS, _GRADIENT_BYTES // size))
    for start in range(0, len(points), step):
        some = points[start : start + step]
        found = [kernel.vjp(described.features, point, one) for point in some]
        gradient = described.gradient(found, strained)
        positions.append(gradient.positions.reshape(len(some), -1))
        if strained:
            strain = gradient.strain[:, 0]
            strain = (strain + strain.transpose(0, 2, 1)) / 2
            strains.append(strain[:, *_VOIGT])
    return np.concatenate(positions), np.concatenate(strains) if strained else None


class _Factor:
    """Triangular factor R of rows that come in parts.

    Attributes
    ----------
    count : int
        How many rows there were.
    """

    def __init__(self, width):
        self.width, self.count = width, 0
        self.triangle, self.waiting = np.zeros((0, width)), []

    def add(self, rows):
        """Add some rows."""
        self.count += len(rows)
        self.waiting.append(rows)
        # A decomposition of a few rows more takes as long as of many.
        if sum(map(len, self.waiting)) >= self.width:
            self.reduced()

    def reduced(self):
        """R of all rows so far."""
        if self.waiting:
            rows = np.vstack([self.triangle, *self.waiting])
            self.triangle, self.waiting = np.linalg.qr(rows, mode="r"), []
        return self.triangle


def _solved(model, inputs, factors, features, n_constants):
    """Ridge regression on triangular factors, the constants free."""
    n = len(features)
    triangles = [factor.reduced() for factor in factors]
    noise = model._noise(inputs, features)
    shares = 1.0 / (model.energy_noise * inputs.sizes)
    noise *= float(np.sqrt(np.sum(shares**2)))
    errors, grid, regularization = np.empty(0), np.empty(0), model.regularization
    if regularization is None:
        grid, squares = REGULARIZATIONS, np.zeros(len(REGULARIZATIONS))
        for k, own in enumerate(triangles):
            others = [t for i, t in enumerate(triangles) if i != k]
            count = sum(f.count for i, f in enumerate(factors) if i != k)
            decomposed = _Decomposed(np.vstack(others), n_constants, count, noise)
            for g, value in enumerate(grid):
                constants, weights = decomposed.weights(value * decomposed.scale)
                left = own @ np.concatenate([constants, weights, [-1.0]])
                squares[g] += left @ left
        errors = np.sqrt(squares / sum(f.count for f in factors))
        regularization = strongest(grid, errors)
    count = sum(f.count for f in factors)
    whole = _Decomposed(np.vstack(triangles), n_constants, count, noise)
    ridge = float(regularization) * whole.scale
    constants, weights = whole.weights(ridge)
    zeros = np.zeros(features.shape[1])
    modes = FeatureModes(
        zeros, None, whole.right, whole.values, whole.scale, n, bool(model.intercept)
    )
    inside = float(np.sum(whole.projection**2 / (whole.values + ridge)))
    variance = (inside + whole.residual / ridge) / (count - n_constants)
    mean = float(constants[0]) if n_constants else 0.0
    found = weights, float(regularization), ridge, variance
    return Solution(modes, mean, *found, grid, errors), constants


class _Decomposed:
    """Singular values of the features in some rows, beyond the constants.

    Parameters
    ----------
    rows : ndarray (n_rows, n_constants + n_columns + 1)
        Triangular factors, one below the other.
    n_constants : int
    count : int
        Rows that they stand for.
    noise : float
        Root of the summed squares of the errors of the features.
    """

    def __init__(self, rows, n_constants, count, noise):
        triangle = np.linalg.qr(rows, mode="r")
        self.constants = triangle[:n_constants]
        self.n_constants = n_constants
        below = triangle[n_constants:]
        target = below[:, -1]
        left, s, right_t = np.linalg.svd(below[:, n_constants:-1], full_matrices=False)
        rounding = _EPSILON * max(rows.shape) * s[:1].sum()
        resolved = s > max(rounding, noise)
        left, s, right_t = left[:, resolved], s[resolved], right_t[resolved]
        self.values, self.right = s**2, np.ascontiguousarray(right_t.T)
        self.projection = left.T @ target
        self.residual = max(
            float(target @ target - self.projection @ self.projection), 0
        )
        self.scale = float(np.sum(self.values)) / count or 1.0

    def weights(self, ridge):
        """Constants and coefficients of the features, for one λ."""
        s = np.sqrt(self.values)
        weights = self.right @ (s * self.projection / (self.values + ridge))
        p = self.n_constants
        left = self.constants[:, -1] - self.constants[:, p:-1] @ weights
        return np.linalg.solve(self.constants[:, :p], left), weights
