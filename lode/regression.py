"""Gaussian-process regression on structures."""

import warnings
from dataclasses import dataclass, field

import numpy as np

from lode.archive import prefixed, without_prefix
from lode.features import StructureFeatures, holds_features
from lode.kernels import Kernel, SumKernel, check_kernels
from lode.models import Model
from lode.ridge import (
    Solution,
    checked_targets,
    max_likelihood_weights,
    solve_features,
    solve_kernel,
)
from lode.serialization import from_dict, to_dict
from lode.systems import structures

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
    intercept : bool
        Whether a constant is fitted. Differences that vanish when nothing interacts
        have none.
    weights : {"given", "max_likelihood"}
        "max_likelihood": weights of the terms of a :class:`~lode.SumKernel`, and the
        regularisation with them, from :func:`~lode.ridge.max_likelihood_weights` on the
        training data.

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
        If ``weights`` is another word, or those of maximum likelihood are asked for
        with a given regularisation or of a kernel that is no sum.
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
    _columns: list | None = field(default=None, init=False, repr=False)
    _training: StructureFeatures | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_kernels([self.kernel], "kernel")
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
        inputs, targets = checked_training(frames, targets)
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
        return self

    def predict(self, frames, *, return_std=False, n_threads=None, progress=False):
        """Predicted targets.

        Parameters
        ----------
        frames : iterable of ase.Atoms or of LinearCombination, or Features
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
        return self.solution.predict(rows, return_std=return_std, **options)

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
        if self._training is not None:
            arrays |= prefixed(self._training.to_arrays(), "training_")
        for i, columns in enumerate(self._columns or ()):
            arrays |= prefixed({str(z): c for z, c in columns.items()}, f"columns_{i}_")
        return {"fitted_kernel": to_dict(self.fitted_kernel)}, arrays

    def _set_state(self, header, arrays):
        found = without_prefix(arrays, "solution_")
        self.solution = Solution.from_arrays(found, self.intercept)
        kernel = from_dict(header["fitted_kernel"])
        self.fitted_kernel = kernel.with_arrays(without_prefix(arrays, "kernel_"))
        if not kernel.is_linear:
            training = without_prefix(arrays, "training_")
            self._training = StructureFeatures.from_arrays(training)
            return
        self._columns = []
        while own := without_prefix(arrays, f"columns_{len(self._columns)}_"):
            self._columns.append({int(z): columns for z, columns in own.items()})


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
