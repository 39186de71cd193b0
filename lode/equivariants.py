r"""Linear models of tensors in equivariant features.

A component μ of a structure A is a sum over its environments,

.. math:: y^\mu(A) = \sum_z \sum_{i\in A,\,z_i=z} p_i^{\lambda\mu}\cdot\beta_z,

with the same coefficients for all μ: the model turns with the structure exactly. Its
kernel is :math:`\sum_{ij} \delta_{z_iz_j}\, p_i^{\mu} W_z W_z^T p_j^{\mu'}`, with the
whitening W of each centre species (:mod:`lode.whitening`). There is no intercept:
for λ > 0 none turns with the structure.

Indices of arrays: A structures, z centre species, q components μ, f features.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lode.archive import (
    POSITIVE,
    Wanted,
    checked_arrays,
    load_archive,
    save_archive,
)
from lode.invariants import EquivariantPowerSpectrum
from lode.learning import repeated, splits
from lode.models import Model
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.ridge import TENSOR_REGULARIZATIONS, TensorModes, checked_grid
from lode.systems import ROUNDING, check_flags, finite_array, structures, whole_number
from lode.whitening import whitening

_SUMS, _VERSION = "EquivariantSums", 2
_SAVED_SUMS = {
    "values": Wanted("float", ("frame", "center", "component", "feature")),
    "moments": Wanted("float", ("group", "center", "feature", "feature")),
    "n_atoms": Wanted("int", ("frame",), low=1),
    "centers": Wanted("int", ("center",), low=1, order="ascending"),
    "neighbor_species": Wanted("int", ("species",), low=1, order="distinct"),
    "error": Wanted("float", low=0.0),
}
_SAVED = {
    "centers": Wanted("int", ("center",), low=1, order="ascending"),
    "fit_regularization": Wanted("float", low=POSITIVE),
    "regularizations": Wanted("float", ("grid",), low=POSITIVE),
    "errors": Wanted("float", ("grid",), low=0.0),
}
# Features of so much memory exist at a time: small enough for the allocator to use the
# same memory again.
_CHUNK_BYTES = 2**24
# Memory of the derivatives with respect to features that exist at a time.
_DERIVATIVE_BYTES = 2**27
# Share of the targets above which leave-one-out errors are those of no model.
_NOTHING = 0.95


@dataclass(frozen=True)
class EquivariantSums:
    """Equivariant features summed over the environments of each structure.

    Made by :func:`equivariant_sums`.

    Attributes
    ----------
    values : ndarray (n_frames, n_centers, 2 λ + 1, n_features)
        Sums over the environments of each centre species.
    moments : ndarray (n_groups, n_centers, n_features, n_features)
        For each group of frames Σ x xᵀ over their environments and over the
        components, whose mean is zero: n times the covariance.
    centers : tuple of int
        Centre species, ascending.
    neighbor_species : tuple of int
        Atomic numbers of the expanded fields.
    n_atoms : ndarray (n_frames,) of int
        Number of environments of each structure.
    error : float
        By which features of the same environment may differ, relative to their size.
    """

    values: np.ndarray
    moments: np.ndarray
    centers: tuple
    neighbor_species: tuple
    n_atoms: np.ndarray
    error: float = ROUNDING

    def save(self, path):
        """Write to one npz file, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            Name of the file.
        """
        header = {
            "version": _VERSION,
            "centers": self.centers,
            "neighbor_species": self.neighbor_species,
            "error": self.error,
        }
        arrays = {
            "values": self.values,
            "moments": self.moments,
            "n_atoms": self.n_atoms,
        }
        save_archive(path, _SUMS, header, arrays)

    @classmethod
    def load(cls, path):
        """Sums written by :meth:`save`.

        Raises
        ------
        ValueError
            If the file is truncated, damaged or of another kind, or what it holds are
            no complete sums.
        """
        header, arrays = load_archive(path, _SUMS, _VERSION)
        found = checked_arrays(header | arrays, _SAVED_SUMS)
        return cls(
            found["values"],
            found["moments"],
            tuple(found["centers"].tolist()),
            tuple(found["neighbor_species"].tolist()),
            found["n_atoms"],
            float(found["error"]),
        )


def equivariant_sums(
    descriptor,
    frames,
    groups=(),
    *,
    species=None,
    centers=None,
    n_threads=None,
    progress=False,
):
    """Sums of equivariant features over structures, and moments of environments.

    Environments are described in chunks and never held together.

    Parameters
    ----------
    descriptor : EquivariantPowerSpectrum
        The features.
    frames : iterable of ase.Atoms
        Structures.
    groups : sequence of sequences of int
        Groups of frames whose environments' second moments are wanted.
    species : sequence of int, optional
        Neighbour species; by default all that occur.
    centers : sequence of int, optional
        Centre species; by default all that occur.
    n_threads : int, optional
        Threads to use. The result does not depend on it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    EquivariantSums

    Raises
    ------
    ValueError
        If a frame is not valid or holds a species that is not among those given, or a
        group names a frame that is not there.
    """
    inputs = structures(frames)
    neighbors, _ = descriptor.expansion.channels(inputs, species)
    found = np.unique(inputs.species)
    centers = found if centers is None else np.unique(np.asarray(centers))
    other = np.setdiff1d(found, centers)
    if len(other):
        raise ValueError(
            f"species of centres must be among {centers.tolist()}, got unknown "
            f"{other.tolist()}"
        )
    members = np.zeros((len(groups), len(inputs)), dtype=bool)
    for mask, group in zip(members, groups, strict=True):
        group = np.asarray(group, dtype=np.int64)
        if len(group) and not 0 <= group.min() <= group.max() < len(inputs):
            raise ValueError(
                f"groups must name frames below {len(inputs)}, got {group.tolist()}"
            )
        mask[group] = True
    n_threads = thread_count(n_threads)
    n_q, n_f = 2 * descriptor.angular + 1, len(descriptor.labels(tuple(neighbors)))
    sums = np.zeros((len(inputs), len(centers), n_q, n_f))
    moments = np.zeros((len(groups), len(centers), n_f, n_f))
    tasks = [(g, z) for g in range(len(groups)) for z in range(len(centers))]
    pieces = descriptor.chunks(
        inputs,
        memory=_CHUNK_BYTES,
        species=neighbors,
        n_threads=n_threads,
        progress=progress,
    )
    for x in pieces:
        for z, center in enumerate(centers):
            rows = np.flatnonzero(x.species == center)
            np.add.at(sums[:, z], x.frame_index[rows], x.values[rows])

        def add_moment(task, x=x):
            group, z = task
            inside = members[group, x.frame_index]
            rows = np.flatnonzero(inside & (x.species == centers[z]))
            if len(rows):
                part = x.values[rows].reshape(-1, n_f)
                moments[group, z] += part.T @ part

        with single_threaded_blas():
            thread_map(add_moment, tasks, n_threads)
    return EquivariantSums(
        sums,
        moments,
        tuple(centers.tolist()),
        tuple(int(z) for z in neighbors),
        inputs.sizes,
        descriptor.relative_error(inputs),
    )


@dataclass(eq=False)
class EquivariantRegression(Model):
    r"""Tensorial property of structures, linear in whitened equivariant features.

    Parameters
    ----------
    descriptors : sequence of EquivariantPowerSpectrum
        Of the same ``angular`` λ and parity; the features stand side by side, so that
        their kernels add up.
    exponent : float or sequence of float
        Of the whitening (:func:`lode.whitening.whitening`), for all descriptors
        or for each: 0.4 suits potentials, 0.2 densities.
    n_components : int, optional
        Directions of the features of each descriptor and centre species that are
        used; by default all that are resolved.
    n_whitening : int
        The whitening is that of the environments of so many training structures,
        the first; where some lack a centre species, of the first so many that have it.
    average : bool
        Mean of the environments instead of their sum, for properties that do not
        grow with the structure, such as a dielectric tensor.
    regularization : float, optional
        Relative to the mean square of a row of features; by default that of the
        smallest leave-one-out error by structure.

    Attributes
    ----------
    coefficients : tuple of ndarray (n_centers, n_features)
        β of each descriptor, once fitted.
    centers, species : tuple of int
        Species of the centres and of their neighbours that the model knows.
    fit_regularization : float
        The regularisation used.
    regularizations, errors : ndarray (n_grid,)
        Grid and leave-one-out errors (root mean square of the components); empty if
        the regularisation was given.

    Raises
    ------
    TypeError, ValueError
        If a descriptor is of another kind or a setting is out of range.

    References
    ----------
    A. Grisafi, D. M. Wilkins, G. Csányi and M. Ceriotti, Phys. Rev. Lett. 120, 036002
    (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> import lode
    >>> rho = lode.SphericalExpansion(
    ...     lode.GaussianDensity(0.4), lode.RadialBasis.gto(3, 3.0), max_angular=2
    ... )
    >>> descriptor = lode.EquivariantPowerSpectrum(rho, angular=2)
    >>> frames = [molecule(name) for name in ("H2O", "H2O2")]
    >>> model = lode.EquivariantRegression([descriptor], regularization=1e-6)
    >>> model.fit(frames, np.ones((2, 5))).predict(frames).shape
    (2, 5)
    """

    descriptors: Sequence
    exponent: float | Sequence = 0.4
    n_components: int | None = None
    n_whitening: int = 25
    average: bool = False
    regularization: float | None = None
    coefficients: tuple | None = field(default=None, init=False, repr=False)
    centers: tuple | None = field(default=None, init=False, repr=False)
    species: tuple | None = field(default=None, init=False, repr=False)
    fit_regularization: float | None = field(default=None, init=False, repr=False)
    regularizations: np.ndarray | None = field(default=None, init=False, repr=False)
    errors: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        if isinstance(self.descriptors, EquivariantPowerSpectrum):
            self.descriptors = (self.descriptors,)
        self.descriptors = tuple(self.descriptors)
        for descriptor in self.descriptors:
            if not isinstance(descriptor, EquivariantPowerSpectrum):
                raise TypeError(
                    "descriptors must be of EquivariantPowerSpectrum, got "
                    f"{type(descriptor).__name__}"
                )
        kinds = {(d.angular, d.parity) for d in self.descriptors}
        if len(kinds) != 1:
            raise ValueError(
                "descriptors must be at least one, of the same angular and parity, "
                f"got {sorted(kinds)}"
            )
        self.exponent = _exponents(self.exponent, len(self.descriptors))
        whole_number(self.n_whitening, 1, np.inf, "n_whitening")
        if self.n_components is not None:
            whole_number(self.n_components, 1, np.inf, "n_components")
        if self.regularization is not None:
            checked_grid([self.regularization])
        check_flags(self, "average")

    @property
    def angular(self):
        """λ."""
        return self.descriptors[0].angular

    def fit(self, frames, targets, *, species=None, n_threads=None, progress=False):
        """Learn the tensors of the frames.

        Parameters
        ----------
        frames : iterable of ase.Atoms
            Training structures.
        targets : array_like (n_frames, 2 λ + 1)
            Components μ = -λ ... λ in the basis of the real harmonics, not x, y, z:
            for λ = 1 from :func:`lode.spherical_vector`, for λ = 2 the last five of
            :func:`lode.spherical_tensor`.
        species : sequence of int, optional
            Neighbour species; by default all that occur.
        n_threads : int, optional
            Threads of the features. The result does not depend on it.
        progress : bool
            Show a progress bar.

        Returns
        -------
        EquivariantRegression
            The model itself.

        Raises
        ------
        ValueError
            If shapes do not fit, a number is not finite, a frame is not valid, the
            descriptors expand different species or all features vanish.

        Warns
        -----
        UserWarning
            If the smallest leave-one-out error is hardly below the targets themselves,
            as of Cartesian components.
        """
        inputs = structures(frames)
        self._learn_boundaries(self.descriptors, inputs)
        targets = _checked_tensors(targets, len(inputs), 2 * self.angular + 1)
        groups = [_first_of_each_species(inputs, self.n_whitening)]
        options = {"species": species, "n_threads": n_threads, "progress": progress}
        parts = [
            equivariant_sums(d, inputs, groups, **options) for d in self.descriptors
        ]
        neighbors = {part.neighbor_species for part in parts}
        if len(neighbors) != 1:
            raise ValueError(
                f"descriptors must expand the same species, got {sorted(neighbors)}"
            )
        with single_threaded_blas():
            matrices = [
                _whitenings(part, 0, exponent, self.n_components)
                for part, exponent in zip(parts, self.exponent, strict=True)
            ]
            rows = _whitened_rows(parts, matrices, self.average)
            fitted = TensorModes.of(rows, targets)
            if self.regularization is None:
                self.regularizations = TENSOR_REGULARIZATIONS
                chosen, self.errors = fitted.strongest(TENSOR_REGULARIZATIONS)
                _warn_of_nothing_learnt(self.errors.min(), targets)
            else:
                self.regularizations = self.errors = np.empty(0)
                chosen = float(self.regularization)
            weights = fitted.weights(chosen)
        # Back to the features as they come: nothing else is needed to predict.
        coefficients, start = [], 0
        for of_descriptor in matrices:
            beta_zf = np.empty((len(of_descriptor), len(of_descriptor[0])))
            for z, matrix in enumerate(of_descriptor):
                stop = start + matrix.shape[1]
                beta_zf[z] = matrix @ weights[start:stop]
                start = stop
            coefficients.append(beta_zf)
        self.coefficients = tuple(coefficients)
        self.centers, self.species = parts[0].centers, parts[0].neighbor_species
        self.fit_regularization = chosen
        return self

    def predict(self, frames, *, derivatives=False, n_threads=None, progress=False):
        """Predicted tensors.

        Parameters
        ----------
        frames : iterable of ase.Atoms
            Structures.
        derivatives : bool
            Also return derivatives with respect to the positions: of a dipole, its Born
            effective charges.
        n_threads, progress
            As for :meth:`fit`.

        Returns
        -------
        values : ndarray (n_frames, 2 λ + 1)
        derivatives : list of ndarray (n_atoms, 3, 2 λ + 1)
            Only with ``derivatives``, of each frame: of each component with respect to
            x, y and z of each atom, per Å.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        ValueError
            If a frame is not valid or has a species that the model does not know, or
            derivatives are wanted of descriptors that jump.
        """
        self._check_fitted()
        inputs = structures(frames)
        inputs.channels(self.species)
        self._check_boundaries(inputs)
        total = np.zeros((len(inputs), 2 * self.angular + 1))
        for descriptor, beta_zf in zip(
            self.descriptors, self.coefficients, strict=True
        ):
            part = equivariant_sums(
                descriptor,
                inputs,
                species=self.species,
                centers=self.centers,
                n_threads=n_threads,
                progress=progress,
            )
            values = np.einsum("Azqf,zf->Aq", part.values, beta_zf)
            total += values / part.n_atoms[:, None] if self.average else values
        if not derivatives:
            return total
        return total, self._derivatives(inputs, n_threads)

    def _derivatives(self, inputs, n_threads):
        """Derivatives of the components, of some atoms at a time: one scalar each."""
        n_q = 2 * self.angular + 1
        n_f = max(beta_zf.shape[1] for beta_zf in self.coefficients)
        n_atoms = max(1, _DERIVATIVE_BYTES // (8 * n_q**2 * n_f))
        options = {"species": self.species, "strain": False, "n_threads": n_threads}
        found = []
        for places in inputs.ranges(n_atoms):
            part, total = inputs.chosen(places), 0.0
            center_i = np.searchsorted(self.centers, part.species)
            share_i = 1.0 / part.sizes[part.frame_index] if self.average else 1.0
            for descriptor, beta_zf in zip(
                self.descriptors, self.coefficients, strict=True
            ):
                dE_dX = np.zeros((n_q, len(center_i), n_q, beta_zf.shape[1]))
                # Each component of the tensor is made of that of the features alone.
                for q in range(n_q):
                    dE_dX[q, :, q] = (beta_zf[center_i].T * share_i).T
                total = total + descriptor.vjp(part, dE_dX, **options).positions
            edges = np.cumsum(part.sizes)[:-1]
            found += np.split(np.moveaxis(total, 0, -1), edges)
        return found

    @property
    def is_fitted(self):
        """Whether the model can predict."""
        return self.coefficients is not None

    def _state(self):
        header = {
            "centers": self.centers,
            "fit_regularization": self.fit_regularization,
        }
        arrays = {f"coefficients_{i}": c for i, c in enumerate(self.coefficients)}
        arrays |= {"regularizations": self.regularizations, "errors": self.errors}
        return header, arrays

    def _set_state(self, header, arrays):
        wanted = {
            f"coefficients_{i}": Wanted(
                "float", ("center", _feature_count(descriptor, self.species))
            )
            for i, descriptor in enumerate(self.descriptors)
        }
        found = checked_arrays(header | arrays, _SAVED | wanted)
        self.coefficients = tuple(found[name] for name in wanted)
        self.centers = tuple(found["centers"].tolist())
        self.fit_regularization = found["fit_regularization"].item()
        self.regularizations = found["regularizations"]
        self.errors = found["errors"]


def whitening_groups(n_frames, n_train, *, n_test, n_repeats, seed):
    """Frames whose environments whiten the features of each repeat.

    Parameters
    ----------
    n_frames, n_train, n_test, n_repeats, seed
        As for :func:`equivariant_learning_curve`.

    Returns
    -------
    list of ndarray
        For each repeat the smallest training set, which all others contain.
    """
    size = int(np.min(n_train))
    return [pool[:size] for pool, _ in splits(n_frames, n_test, n_repeats, seed)]


def equivariant_learning_curve(
    sums,
    targets,
    n_train,
    *,
    n_test,
    n_repeats=8,
    seed=0,
    exponent=0.4,
    n_components=None,
    average=False,
    factors=None,
    regularizations=TENSOR_REGULARIZATIONS,
    n_threads=None,
    progress=False,
):
    """Test error of a linear model for several sizes of the training set.

    The splits are those of :func:`lode.learning.learning_curve`. All is fitted on the
    training part: the whitening on the smallest training set of each repeat, the
    regularisation by leaving each training structure out.

    Parameters
    ----------
    sums : sequence of EquivariantSums
        Of one descriptor each, with the moments of :func:`whitening_groups`.
    targets : array_like (n_frames, 2 λ + 1)
        Components of the tensors.
    n_train : sequence of int
        Sizes of the training set.
    n_test, n_repeats, seed : int
        Number of test frames and of shuffles, and their seed.
    exponent, n_components, average
        As for :class:`EquivariantRegression`.
    factors : array_like (n_frames,), optional
        The models learn each target times its factor, for example the volume; the
        errors are those of the targets.
    regularizations : sequence of float
        Grid of the regularisation.
    n_threads : int, optional
        Fits done at a time. The result does not depend on it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    LearningCurve
        Errors over all components; in percent of the root mean square of the
        components of the test tensors, whose mean is zero by symmetry.

    Raises
    ------
    ValueError
        If shapes do not fit, sizes are impossible, numbers are not finite or a smallest
        training set lacks a species of centres.
    """
    sums = [sums] if isinstance(sums, EquivariantSums) else list(sums)
    if not sums:
        raise ValueError("sums must be those of at least one descriptor, got none")
    n_frames, _, n_q, _ = sums[0].values.shape
    for part in sums:
        if part.values.shape[:3:2] != (n_frames, n_q) or len(part.moments) != n_repeats:
            raise ValueError(
                f"sums must be of {n_frames} frames with {n_q} components and moments "
                f"of {n_repeats} groups, got {part.values.shape[0]}, "
                f"{part.values.shape[2]} and {len(part.moments)}"
            )
    targets = _checked_tensors(targets, n_frames, n_q)
    factors = np.ones(n_frames) if factors is None else factors
    factors = finite_array(factors, (n_frames,), "factors")
    if (factors == 0.0).any():
        raise ValueError("factors must not be zero, got one that is")
    exponent = _exponents(exponent, len(sums))
    grid = checked_grid(regularizations)
    sizes = [whole_number(n, 3, n_frames - n_test, "n_train") for n in n_train]
    repeats = splits(n_frames, n_test, n_repeats, seed)
    scaled = targets * factors[:, None]

    def features(repeat):
        matrices = [
            _whitenings(part, repeat, e, n_components)
            for part, e in zip(sums, exponent, strict=True)
        ]
        return _whitened_rows(sums, matrices, average)

    def errors(repeat, some):
        pool, test = repeats[repeat]
        x_Aqf = features(repeat)
        found = []
        for size in some:
            train = pool[:size]
            fitted = TensorModes.of(x_Aqf[train], scaled[train])
            chosen, _ = fitted.strongest(grid)
            predicted = x_Aqf[test] @ fitted.weights(chosen) / factors[test, None]
            rmse = np.sqrt(np.mean((predicted - targets[test]) ** 2))
            percent = 100.0 * rmse / np.sqrt(np.mean(targets[test] ** 2))
            found.append((rmse, percent, chosen))
        return found

    return repeated(errors, sizes, [sizes], n_repeats, n_threads, progress)


def _warn_of_nothing_learnt(error, targets):
    size = float(np.sqrt(np.mean(targets**2)))
    if error > _NOTHING * size:
        warnings.warn(
            f"leave-one-out errors are {100.0 * error / size:.0f} % of the targets: "
            f"the model has learnt nothing; are the {targets.shape[1]} components "
            "those of real harmonics, as from lode.spherical_vector and "
            "lode.spherical_tensor?",
            UserWarning,
            stacklevel=3,
        )


def _feature_count(descriptor, species):
    """Number of a descriptor's features, without its labels, which take memory."""
    n_x, n_y = (
        len(e.fields(species)) * e.basis.max_radial
        for e in (descriptor.expansion, descriptor.other or descriptor.expansion)
    )
    folds = [descriptor._fold(*pair) for pair in descriptor._pairs()]
    return sum(n_x * (n_x + 3 - 2 * f) // 2 if f else n_x * n_y for f in folds)


def _exponents(exponent, n):
    exponents = (exponent,) * n if np.ndim(exponent) == 0 else tuple(exponent)
    if len(exponents) != n or not all(0.0 <= e <= 0.5 for e in exponents):
        raise ValueError(
            f"exponent must be from 0 to 0.5, one or one for each of {n} descriptors, "
            f"got {exponent}"
        )
    return tuple(float(e) for e in exponents)


def _first_of_each_species(inputs, n):
    """Frames of which n hold a species, of each species the first, or all of them."""
    left = dict.fromkeys(np.unique(inputs.species), n)
    chosen = []
    for index, frame in enumerate(inputs):
        wanted = [z for z in np.unique(frame.species) if left[z] > 0]
        if wanted:
            chosen.append(index)
        for z in wanted:
            left[z] -= 1
    return chosen


def _whitenings(part, group, exponent, n_components):
    """Whitening of each centre species."""
    for z, moment in enumerate(part.moments[group]):
        if not moment.trace() > 0.0 and part.values[:, z].any():
            raise ValueError(
                "frames of the whitening must hold every species of centres, got none "
                f"of atomic number {part.centers[z]} in group {group}"
            )
    return [
        whitening(
            moment,
            exponent=exponent,
            n_components=n_components,
            noise=part.error**2 * moment.trace(),
        )
        for moment in part.moments[group]
    ]


def _whitened_rows(parts, matrices, average):
    """Whitened features of each structure, (n_frames, 2 λ + 1, n_columns)."""
    columns = []
    for part, of_descriptor in zip(parts, matrices, strict=True):
        for z, matrix in enumerate(of_descriptor):
            columns.append(part.values[:, z] @ matrix)
    rows = np.concatenate(columns, axis=2)
    return rows / parts[0].n_atoms[:, None, None] if average else rows


def _checked_tensors(targets, n_frames, n_components):
    return finite_array(targets, (n_frames, n_components), "targets")
