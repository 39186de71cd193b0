"""Gaussian-process regression on structures."""

import warnings
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from lode.archive import Wanted, checked_arrays, prefixed, without_prefix
from lode.baselines import baseline_energies, check_baseline, species_counts
from lode.features import StructureFeatures, holds_features
from lode.kernels import Kernel, ScaledKernel, SumKernel, check_kernels
from lode.models import Model
from lode.prediction import predicted
from lode.ridge import (
    Solution,
    checked_targets,
    max_likelihood_weights,
    solve_features,
    solve_kernel,
)
from lode.serialization import from_dict, to_dict
from lode.systems import check_flags, structures, whole_number
from lode.training import (
    SPECIES,
    SpeciesConstants,
    check_noises,
    checked_derivatives_of,
    fitted_solution,
)

_WEIGHTINGS = ("given", "max_likelihood")


@dataclass(eq=False)
class GaussianProcess(Model):
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
    intercept : bool or "species"
        Whether a constant is fitted. Differences that vanish when nothing interacts
        have none. With "species" each species has a constant of its own (linear
        kernels only).
    weights : {"given", "max_likelihood"}
        "max_likelihood": weights of the terms of a :class:`~lode.SumKernel`, and the
        regularisation with them, from :func:`~lode.ridge.max_likelihood_weights` on the
        training data.
    baseline : PointCharges or ase.calculators.calculator.Calculator, optional
        What the targets, energies in eV, are learnt as differences to; it is added to
        all predictions. Point charges are part of the model's file.
    energy_noise, force_noise, stress_noise : float
        As for :class:`SparseGaussianProcess`; forces and stress are learnt by linear
        kernels.

    Attributes
    ----------
    solution : Solution
        After :meth:`fit`: coefficients, regularisation and cross-validation errors.
    species : tuple of int
        After :meth:`fit`: neighbour species of the model.
    fitted_kernel : Kernel
        After :meth:`fit`: the kernel with its whitening and its weights.
    learnt : dict of str to int or None
        After :meth:`fit` with forces, stress or constants of the species: the number of
        frames with ``energies``, ``forces`` and ``stress``.

    Raises
    ------
    TypeError
        If ``kernel`` is no kernel.
    ValueError
        If a setting is out of range, ``weights`` is another word, or those of maximum
        likelihood are asked for with a given regularisation or of a kernel that is no
        sum.
    """

    kernel: Kernel
    regularization: float | None = None
    n_folds: int = 5
    seed: int = 0
    intercept: bool | str = True
    weights: str = "given"
    baseline: object = None
    energy_noise: float = 1e-3
    force_noise: float = 5e-2
    stress_noise: float = 1e-3
    solution: Solution | None = field(default=None, init=False, repr=False)
    species: tuple | None = field(default=None, init=False, repr=False)
    fitted_kernel: Kernel | None = field(default=None, init=False, repr=False)
    _constants: object = field(default=None, init=False, repr=False)
    _columns: list | None = field(default=None, init=False, repr=False)
    _training: StructureFeatures | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_kernels([self.kernel], "kernel")
        check_settings(self)
        if self.intercept == SPECIES and not self.kernel.is_linear:
            raise ValueError(
                "intercept 'species' needs a linear kernel or SparseGaussianProcess, "
                f"got {type(self.kernel).__name__}"
            )
        if self.weights == "likely":
            warnings.warn(
                "weights 'likely' are now called 'max_likelihood'",
                FutureWarning,
                stacklevel=3,
            )
            self.weights = "max_likelihood"
        if self.weights not in _WEIGHTINGS:
            raise ValueError(
                f"weights must be one of {_WEIGHTINGS}, got {self.weights!r}"
            )
        if self.weights == "max_likelihood":
            if not isinstance(self.kernel, SumKernel):
                raise ValueError(
                    "weights 'max_likelihood' need a SumKernel, got "
                    f"{type(self.kernel).__name__}"
                )
            if self.regularization is not None:
                raise ValueError(
                    "regularization must be None with weights 'max_likelihood', which "
                    f"choose it, got {self.regularization}"
                )

    def fit(
        self,
        frames,
        targets,
        *,
        forces=None,
        stress=None,
        groups=None,
        species=None,
        n_threads=None,
        progress=False,
    ):
        """Learn the targets of the frames.

        Parameters
        ----------
        frames : iterable of ase.Atoms or of LinearCombination, or Features
            Training structures.
        targets : ndarray (n_frames,)
            What to learn.
        forces, stress : sequence, optional
            As for :meth:`SparseGaussianProcess.fit`: of linear kernels.
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
        TypeError
            If forces, stress or constants of the species are to be learnt and the
            kernel is not linear.
        ValueError
            If the numbers of targets and frames differ, a target is not finite, forces
            or stress do not fit the frames or there are too few frames.
        """
        inputs, targets = checked_training(frames, targets)
        if forces is not None or stress is not None or self.intercept == SPECIES:
            derived = checked_derivatives_of(inputs, targets, forces, stress)
            options = {"n_threads": n_threads, "progress": progress}
            return self._fit_derivatives(inputs, derived, groups, species, options)
        targets = targets - baseline_energies(self.baseline, inputs, n_threads)
        training = self.kernel.precompute(
            inputs, species=species, n_threads=n_threads, progress=progress
        )
        settings = [self.regularization, self.n_folds, self.seed, groups]
        kernel, columns = self.kernel.fitted(training), None
        gram = None
        if self.weights == "max_likelihood":
            grams = [term.gram(training) for term in kernel.kernels]
            noises = [term.noise(training) for term in kernel.kernels]
            weights, settings[0] = max_likelihood_weights(
                grams, targets, intercept=self.intercept, noises=noises
            )
            kernel = kernel.weighted(weights)
            gram = sum(w * k for w, k in zip(weights, grams, strict=True))
        noise = kernel.noise(training)
        if kernel.is_linear:
            columns = kernel.columns(training)
            features = kernel.linear_features(training, columns)
            solution = solve_features(
                features, targets, noise, self.intercept, *settings
            )
        else:
            gram = kernel.gram(training) if gram is None else gram
            solution = solve_kernel(gram, targets, noise, self.intercept, *settings)
        self.solution, self._columns, self.fitted_kernel = solution, columns, kernel
        self.species = training.neighbor_species
        self._training = None if kernel.is_linear else kernel.pruned(training)
        self._constants = self.learnt = None
        self._learn_boundaries(kernel.descriptors, inputs)
        return self

    def _fit_derivatives(self, inputs, targets, groups, species, options):
        """Learn energies, forces and stress by the features of a linear kernel."""
        if not self.kernel.is_linear or self.weights != "given":
            raise TypeError(
                "forces, stress and constants of the species are learnt by "
                "SparseGaussianProcess or by a linear kernel with given weights, got "
                f"{type(self.kernel).__name__} with weights {self.weights!r}"
            )
        training = self.kernel.precompute(inputs, species=species, **options)
        kernel = self.kernel.fitted(training)
        # Not fitted until all is learnt.
        self.solution = self._constants = None
        self.fitted_kernel, self.species = kernel, training.neighbor_species
        self._columns, self._training = kernel.columns(training), None
        features, noise = self._rows(training), kernel.noise(training)
        self.solution, self._constants = fitted_solution(
            self, inputs, targets, features, noise, groups, **options
        )
        self._learn_boundaries(kernel.descriptors, inputs)
        self.learnt = targets.counts()
        return self

    _has_forces = True

    @property
    def _has_columns(self):
        return self.fitted_kernel.is_linear

    def _column_gradients(self):
        """Functions for the gradients of each feature of a linear kernel."""
        kernel, columns = self.fitted_kernel, self._columns
        n_columns = sum(len(c) for own in columns for c in own.values())
        unit = np.eye(n_columns)[:, None]
        return [lambda x, row=row: kernel.linear_vjp(x, columns, row) for row in unit]

    def predict(
        self,
        frames,
        *,
        return_std=False,
        forces=False,
        stress=False,
        forces_std=False,
        n_threads=None,
        progress=False,
    ):
        """Predicted targets.

        Parameters
        ----------
        frames : iterable of ase.Atoms or of LinearCombination, or Features
            New structures.
        return_std : bool
            Also return the standard deviation, see :meth:`Solution.predict`.
        forces, stress : bool
            Also predict these, see :class:`~lode.Prediction`: the frames must be
            structures and, for the stress, periodic in all three directions.
        forces_std : bool
            Also predict the standard deviations of the components of the forces, at the
            cost of the derivatives of all features; of linear kernels alone.
        n_threads : int, optional
            Threads of the descriptors.
        progress : bool
            Show a progress bar.

        Returns
        -------
        values : ndarray (n_frames,), or Prediction if more is asked for
        std : ndarray (n_frames,)
            Only with ``return_std``.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        TypeError
            If forces are asked for and a descriptor has no derivatives.
        ValueError
            If a frame has a species that the model does not know, or no volume for its
            stress.
        """
        self._check_fitted()
        if forces or stress or forces_std:
            wanted = {"forces": forces, "stress": stress, "return_std": return_std}
            wanted["forces_std"] = forces_std
            options = {"n_threads": n_threads, "progress": progress}
            return predicted(self, frames, **wanted, **options)
        if not holds_features(frames):
            frames = structures(frames, combinations=True)
        self._check_boundaries(frames)
        kernel = self.fitted_kernel
        new = kernel.precompute(
            frames, species=self.species, n_threads=n_threads, progress=progress
        )
        if new.neighbor_species != self.species:
            raise ValueError(
                f"frames must be described with the model's neighbour species "
                f"{self.species}, got {new.neighbor_species}"
            )
        if kernel.is_linear:
            rows, outside = kernel.linear_features(new, self._columns), None
            if return_std:
                outside = kernel.linear_features(new, self._unknown_columns(new))
            options = {"outside": outside}
        else:
            rows = kernel.gram(new, self._training)
            options = {"diagonal": kernel.diagonal(new) if return_std else None}
        options |= {"return_std": return_std, "n_threads": n_threads}
        return predicted_energies(self, frames, rows, **options)

    def _rows(self, features):
        """Rows that the solution takes, of structures."""
        kernel = self.fitted_kernel
        if kernel.is_linear:
            return kernel.linear_features(features, self._columns)
        return kernel.gram(features, self._training)

    def _gradients(self, features):
        """Derivatives of the targets with respect to features of environments."""
        kernel, slope = self.fitted_kernel, self.solution.slope
        weights = np.tile(slope, (features.n_structures, 1))
        if kernel.is_linear:
            return kernel.linear_vjp(features, self._columns, weights)
        return kernel.vjp(features, self._training, weights)

    def _unknown_columns(self, new):
        """Columns of new structures that no training structure has."""
        unknown = []
        pairs = zip(self.fitted_kernel.columns(new), self._columns, strict=True)
        for found, known in pairs:
            none = np.empty(0, dtype=np.int64)
            unknown.append(
                {z: np.setdiff1d(c, known.get(z, none)) for z, c in found.items()}
            )
        return unknown

    def _state(self):
        arrays = prefixed(self.solution.to_arrays(), "solution_")
        arrays |= prefixed(self.fitted_kernel.fitted_arrays(), "kernel_")
        if self._constants is not None:
            arrays |= self._constants.to_arrays()
        if self._training is not None:
            arrays |= prefixed(self._training.to_arrays(), "training_")
        for i, columns in enumerate(self._columns or ()):
            arrays |= prefixed({str(z): c for z, c in columns.items()}, f"columns_{i}_")
        return {"fitted_kernel": to_dict(self.fitted_kernel)}, arrays

    def _set_state(self, header, arrays):
        kernel = from_dict(header.get("fitted_kernel"))
        if not self._may_become(kernel):
            raise ValueError(
                "fitted_kernel must be the model's kernel with its weights, got "
                f"{type(kernel).__name__}"
            )
        kernel = fitted_kernel(kernel, without_prefix(arrays, "kernel_"))
        if kernel.is_linear:
            self._columns = _saved_columns(kernel, arrays, self.species)
            n_columns = sum(len(c) for own in self._columns for c in own.values())
        else:
            training = without_prefix(arrays, "training_")
            self._training = fitted_features(kernel, training, self.species)
            n_columns = self._training.n_frames
        found = without_prefix(arrays, "solution_")
        self.solution = Solution.from_arrays(found, self.intercept is True)
        if self.intercept == SPECIES:
            sizes = len(self.species), n_columns
            self._constants = SpeciesConstants.from_arrays(arrays, *sizes)
        if self.solution.modes.n_columns != n_columns:
            raise ValueError(
                f"the solution must be one of {n_columns} columns, got "
                f"{self.solution.modes.n_columns}"
            )
        self.fitted_kernel = kernel

    def _may_become(self, kernel):
        """Whether a kernel differs from the model's in what is fitted only."""
        if self.weights == "given":
            return kernel == self.kernel
        return isinstance(kernel, SumKernel) and all(
            isinstance(term, ScaledKernel) and term.kernel in self.kernel.kernels
            for term in kernel.kernels
        )


def _saved_columns(kernel, arrays, species):
    """Columns of a linear kernel's features in a file, see :meth:`Kernel.columns`."""
    # Those of whitened kernels are known, of others that there are some.
    known = kernel.columns(StructureFeatures((), 0, species, {}))
    columns = []
    for i, expected in enumerate(known):
        own = without_prefix(arrays, f"columns_{i}_")
        wanted = {z: Wanted("int", (z,), order="distinct") for z in own}
        own = {int(z): c for z, c in checked_arrays(own, wanted).items()}
        same = own.keys() == expected.keys() and all(
            np.array_equal(own[z], c) for z, c in expected.items()
        )
        if expected and not same:
            raise ValueError(f"columns_{i} must be those of the whitened kernel")
        columns.append(own)
    return columns


def fitted_kernel(kernel, arrays):
    """Kernel of a model with its arrays in a file.

    Raises
    ------
    ValueError
        If they are not those of the kernel.
    """
    kernel = kernel.with_arrays(arrays)
    if not kernel.is_fitted:
        raise ValueError("the arrays of a whitened kernel are missing")
    return kernel


def fitted_features(kernel, arrays, species):
    """Features in the file of a model that its fitted kernel can use.

    Parameters
    ----------
    kernel : Kernel
    arrays : dict of str to ndarray
        See :meth:`StructureFeatures.to_arrays`.
    species : tuple of int
        Neighbour species of the model.

    Returns
    -------
    StructureFeatures

    Raises
    ------
    ValueError
        If the features are not complete, or not those of the kernel and the species.
    """
    features = StructureFeatures.from_arrays(arrays)
    kernel._check(features)
    for whitened in kernel._whitened():
        for z in features.centers:
            whitened._transform(z)
    if features.neighbor_species != species:
        raise ValueError(
            f"features must be those with the neighbour species {species}, got "
            f"{features.neighbor_species}"
        )
    return features


def check_settings(model):
    """Refuse settings of the regression that are of the wrong kind or out of range.

    Parameters
    ----------
    model : GaussianProcess or SparseGaussianProcess

    Raises
    ------
    ValueError
        If one is.
    """
    value = model.regularization
    if value is not None and not (isinstance(value, Real) and 0.0 < value < np.inf):
        raise ValueError(f"regularization must be positive and finite, got {value}")
    whole_number(model.n_folds, 2, np.inf, "n_folds")
    whole_number(model.seed, 0, np.inf, "seed")
    if model.intercept != SPECIES:
        check_flags(model, "intercept")
    check_baseline(model.baseline)
    check_noises(model)


def predicted_energies(
    model, frames, rows, *, return_std=False, outside=None, diagonal=None, n_threads
):
    """Energies of frames, with constants of the species and the baseline.

    Parameters
    ----------
    model : GaussianProcess or SparseGaussianProcess
        Fitted.
    frames : Structures, or features if the model has neither of both
    rows, return_std, outside, diagonal
        As for :meth:`Solution.predict`.
    n_threads : int or None

    Returns
    -------
    values : ndarray (n_frames,)
    std : ndarray (n_frames,)
        Only with ``return_std``.
    """
    solution, own = model.solution, model._constants
    options = {"outside": outside, "diagonal": diagonal, "return_std": return_std}
    # Targets of several kinds, or of several constants, have been weighted.
    if model.learnt is not None and return_std:
        if holds_features(frames):
            raise TypeError(
                "standard deviations of a model that learnt weighted targets need "
                f"structures, got {type(frames).__name__}"
            )
        options["noise"] = model.energy_noise**2 * _atom_counts_squared(frames)
    values = solution.predict(rows)
    values = values + baseline_energies(model.baseline, frames, n_threads)
    if own is not None:
        counts = species_counts(frames, model.species)
        values = values + counts @ own.energies
        rows = rows - counts @ own.features
        unsure = np.sqrt(solution.ridge) * counts @ own.spread
        parts = [unsure] if outside is None else [unsure, outside]
        options["outside"] = np.hstack(parts)
    if not return_std:
        return values
    return values, solution.predict(rows, **options)[1]


def _atom_counts_squared(frames):
    """Squared numbers of atoms, of combinations the weighted sum of their terms'."""
    squares = frames.sizes.astype(float) ** 2
    if frames.weights is None:
        return squares
    weights = frames.weights.copy()
    weights.sum_duplicates()
    return weights.power(2) @ squares


def checked_training(frames, targets):
    """Structures and their targets, checked before descriptors, which may take long.

    Returns
    -------
    inputs : Structures, or features unchanged
    targets : ndarray (n_frames,)

    Raises
    ------
    TypeError, ValueError
        If a frame is not valid or there is not one finite target for each.
    """
    if not holds_features(frames):
        frames = structures(frames, combinations=True)
    first = frames[0] if isinstance(frames, list | tuple) else frames
    return frames, checked_targets(targets, first.n_frames)
