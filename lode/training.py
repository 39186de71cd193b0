"""Learning from energies, forces and stress together, one structure after the other.

Each energy, force and stress is a row of a weighted least-squares problem in the
features Φ of a model; of the rows only the triangular factor of a QR decomposition is
kept, one for each fold of the cross-validation, so that memory does not grow with their
number.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress
from tqdm import tqdm

from lode.archive import Wanted, checked_arrays, prefixed, without_prefix
from lode.baselines import baseline_results, species_counts
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.prediction import VOIGT, slopes
from lode.ridge import (
    REGULARIZATIONS,
    FeatureModes,
    Solution,
    checked_groups,
    folds,
    strongest,
)
from lode.systems import check_volume, finite_array, positive_number

# Word for constants of each species.
SPECIES = "species"
_EPSILON = np.finfo(float).eps
# Weights of targets, squared, must be numbers still.
_LEAST_NOISE = 1e-12


@dataclass(frozen=True)
class SpeciesConstants:
    """Constants of the species, which are as free as an intercept is.

    Attributes
    ----------
    energies : ndarray (n_species,)
        Of each species, where all features are zero.
    features : ndarray (n_species, n_columns)
        Features of an atom of each that the constants make up for.
    spread : ndarray (n_species, n_constants)
        Factor of the covariance of the energies, in units of the noise.
    """

    energies: np.ndarray
    features: np.ndarray
    spread: np.ndarray

    def to_arrays(self):
        """Plain arrays for a file."""
        return prefixed(vars(self), "species_")

    @classmethod
    def from_arrays(cls, arrays, n_species, n_columns):
        """The inverse of :meth:`to_arrays`.

        Raises
        ------
        ValueError
            If they are not such arrays.
        """
        wanted = {
            "energies": Wanted("float", (n_species,)),
            "features": Wanted("float", (n_species, n_columns)),
            "spread": Wanted("float", (n_species, "constant")),
        }
        return cls(**checked_arrays(without_prefix(arrays, "species_"), wanted))


def check_noises(model):
    """Refuse noises of a model that are no positive numbers of reasonable size.

    Parameters
    ----------
    model : GaussianProcess or SparseGaussianProcess

    Raises
    ------
    ValueError
        If one is out of range.
    """
    for name in ("energy_noise", "force_noise", "stress_noise"):
        value = positive_number(getattr(model, name), name)
        if not _LEAST_NOISE <= value <= 1.0 / _LEAST_NOISE:
            raise ValueError(
                f"{name} must be from {_LEAST_NOISE:g} to {1.0 / _LEAST_NOISE:g}, "
                f"got {value}"
            )


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

    def counts(self):
        """Number of frames with each kind of target."""
        kinds = {"forces": self.forces, "stress": self.stress}
        given = {k: sum(v is not None for v in found) for k, found in kinds.items()}
        return {"energies": len(self.energies)} | given


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


def fitted_solution(
    model, inputs, targets, features, noise, groups, n_threads, progress
):
    """Solution for energies, forces and stress together.

    Parameters
    ----------
    model : GaussianProcess or SparseGaussianProcess
        With its columns: ``_column_gradients`` and ``_transform``.
    inputs : Structures
    targets : Targets
    features : ndarray (n_frames, n_columns)
    noise : float
        Root mean square error of the features of a frame.
    groups : sequence or None
        As for :meth:`SparseGaussianProcess.fit`.
    n_threads : int
    progress : bool

    Returns
    -------
    Solution
    SpeciesConstants or None
        If these are the constants.
    """
    targets = _without_baseline(model.baseline, inputs, targets, n_threads)
    n, n_columns = features.shape
    checked_groups(groups, n)
    constants, basis = _constants(model, inputs)
    n_constants = constants.shape[1]
    fold = np.zeros(n, dtype=np.int64)
    if model.regularization is None:
        fold = folds(n, model.n_folds, model.seed, groups)
    columns = model._column_gradients()

    def rows_of(frame):
        """Weighted rows of one frame: constants, features, target."""
        part, blocks = inputs.chosen([frame]), []
        weight = 1.0 / (model.energy_noise * len(part.species))
        row = weight * features[frame]
        constant = weight * constants[frame]
        blocks.append([[*constant, *row, weight * targets.energies[frame]]])
        forces, stress = targets.forces[frame], targets.stress[frame]
        if forces is not None or stress is not None:
            of_positions, of_strain = slopes(model, part, columns, stress is not None)
            if forces is not None:
                found = of_positions, -forces.ravel(), model.force_noise
                blocks.append(_weighted(*found, n_constants))
            if stress is not None:
                found = of_strain / part[0].volume, stress[VOIGT], model.stress_noise
                blocks.append(_weighted(*found, n_constants))
        return np.vstack(blocks)

    width = n_constants + n_columns + 1
    factors = [_Factor(width) for _ in range(fold.max() + 1)]
    threads = thread_count(n_threads)
    bar = tqdm(total=n, desc="rows", unit="frame", disable=not progress)
    with single_threaded_blas(), bar:
        # Some at a time: their rows are not kept.
        for start in range(0, n, 8 * threads):
            some = range(start, min(start + 8 * threads, n))
            found = thread_map(rows_of, some, threads)
            for frame, rows in zip(some, found, strict=True):
                factors[fold[frame]].add(rows)
            bar.update(len(some))
    shares = 1.0 / (model.energy_noise * inputs.sizes)
    noise *= float(np.sqrt(np.sum(shares**2)))
    return _solved(model, factors, noise, n, basis)


def _constants(model, inputs):
    """Columns of the constants that are free, and what they are of the species."""
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


def _without_baseline(baseline, inputs, targets, n_threads):
    """Energies, forces and stress less those of the baseline."""
    if baseline is None:
        return targets
    has_stress = any(value is not None for value in targets.stress)
    known = baseline_results(baseline, inputs, has_stress, n_threads)
    energies = targets.energies - [energy for energy, *_ in known]
    forces, stress = (
        [None if a is None else a - b[i] for a, b in zip(given, known, strict=True)]
        for i, given in ((1, targets.forces), (2, targets.stress))
    )
    return Targets(energies, forces, stress)


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


def _solved(model, factors, noise, n, basis):
    """Ridge regression on triangular factors of n frames, the constants free."""
    triangles = [factor.reduced() for factor in factors]
    n_constants = int(bool(model.intercept)) if basis is None else basis.shape[1]
    errors, grid, regularization = np.empty(0), np.empty(0), model.regularization
    if regularization is None:
        grid, squares = REGULARIZATIONS, np.zeros(len(REGULARIZATIONS))
        for k, own in enumerate(triangles):
            others = [t for i, t in enumerate(triangles) if i != k]
            count = sum(f.count for i, f in enumerate(factors) if i != k)
            decomposed = _Decomposed(np.vstack(others), n_constants, count, noise)
            free = own[:, :n_constants] @ decomposed.unknown
            free, _ = np.linalg.qr(free)
            for g, value in enumerate(grid):
                constants, weights = decomposed.weights(value * decomposed.scale)
                left = own @ np.concatenate([constants, weights, [-1.0]])
                # What the others do not determine cannot be tested.
                left -= free @ (free.T @ left)
                squares[g] += left @ left
        errors = np.sqrt(squares / sum(f.count for f in factors))
        regularization = strongest(grid, errors)
    count = sum(f.count for f in factors)
    if count <= n_constants:
        raise ValueError(
            f"more than {n_constants} energies, forces or stress components are needed "
            f"beside {n_constants} constants, got {count}"
        )
    whole = _Decomposed(np.vstack(triangles), n_constants, count, noise)
    ridge = float(regularization) * whole.scale
    constants, weights = whole.weights(ridge)
    inside = float(np.sum(whole.projection**2 / (whole.values + ridge)))
    variance = (inside + whole.residual / ridge) / (count - n_constants)
    # What the constants are without features, and what features they make up for.
    free = whole.constants(whole.top)
    mean, mean_row, weight = 0.0, np.zeros(len(weights)), n
    is_intercept = basis is None and n_constants == 1
    if is_intercept:
        mean, mean_row, weight = free[0, -1], free[0, :-1], whole.sizes[0] ** 2
    found = whole.right, whole.values, whole.scale, weight, is_intercept
    modes = FeatureModes(mean_row, None, *found)
    found = weights, float(regularization), ridge, variance
    solution = Solution(modes, float(mean), *found, grid, errors)
    if basis is None:
        return solution, None
    parts = constants, free[:, :-1], whole.constants(np.eye(n_constants))
    return solution, SpeciesConstants(*(basis @ part for part in parts))


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
        # No fewer rows than constants, or their part would not be square.
        rows = np.vstack([rows, np.zeros((n_constants, rows.shape[1]))])
        p, triangle = n_constants, np.linalg.qr(rows, mode="r")
        # Constants of a composition that none of the rows has are not determined.
        turn, self.sizes, self.turned = np.linalg.svd(triangle[:p, :p])
        known = self.sizes > _EPSILON * max(rows.shape) * self.sizes[:1].sum()
        top = turn.T @ triangle[:p, p:]
        self.top, self.unknown = top[known], self.turned[~known].T
        self.sizes, self.turned = self.sizes[known], self.turned[known]
        below = np.vstack([top[~known], triangle[p:, p:]])
        target = below[:, -1]
        left, s, right_t = np.linalg.svd(below[:, :-1], full_matrices=False)
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
        left = self.top[:, -1] - self.top[:, :-1] @ weights
        return self.constants(left), weights

    def constants(self, values):
        """Constants that give the rows these values, zero where there are none."""
        values = values.T / self.sizes
        return self.turned.T @ values.T
