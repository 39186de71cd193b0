"""Gaussian-process regression on a few representative points."""

from dataclasses import dataclass, field

import numpy as np

from lode.archive import Wanted, checked_arrays, prefixed, without_prefix
from lode.baselines import baseline_energies
from lode.features import StructureFeatures, holds_features
from lode.kernels import Kernel, check_kernels
from lode.models import Model
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.prediction import predicted
from lode.regression import (
    check_settings,
    checked_training,
    fitted_features,
    fitted_kernel,
    predicted_energies,
)
from lode.ridge import Solution, solve_features
from lode.systems import ROUNDING, structures
from lode.training import (
    SPECIES,
    SpeciesConstants,
    checked_derivatives_of,
    fitted_solution,
)

_SELECTIONS = ("cholesky", "fps")
_SAVED = {"transform": Wanted("float", ("point", "column"))}
# Atoms whose features exist at a time in each thread while frames meet sparse points.
_CHUNK_ATOMS = 4096


@dataclass(eq=False)
class SparseGaussianProcess(Model):
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
        As for :class:`GaussianProcess`; the seed also draws the candidates. With
        ``intercept="species"`` each species has a constant of its own, free as the
        intercept is, so that frames may have different compositions.
    baseline : PointCharges or ase.calculators.calculator.Calculator, optional
        What the targets, energies in eV, are learnt as differences to; it is added to
        all predictions. Point charges are part of the model's file.
    energy_noise, force_noise, stress_noise : float
        Where forces or stress are learnt too: standard deviation of what is not learnt
        of an energy, in eV per atom, of a force in eV/Å and of a stress in eV/Å³. Their
        ratios count; the regularisation sets the scale.

    Attributes
    ----------
    solution : Solution
        After :meth:`fit`: coefficients, regularisation and cross-validation errors.
    species : tuple of int
        After :meth:`select`: neighbour species of the model.
    sparse : StructureFeatures
        After :meth:`select`: the sparse points, each a frame.
    fitted_kernel : Kernel
        After :meth:`select`: the kernel with its whitening, from the candidates.
    species_energies : ndarray (n_species,) or None
        After :meth:`fit` with ``intercept="species"``: a constant for each of
        ``species``, in eV.
    learnt : dict of str to int or None
        After :meth:`fit` with forces, stress or constants of the species: the number of
        frames with ``energies``, ``forces`` and ``stress``.

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
    intercept: bool | str = True
    baseline: object = None
    energy_noise: float = 1e-3
    force_noise: float = 5e-2
    stress_noise: float = 1e-3
    solution: Solution | None = field(default=None, init=False, repr=False)
    species: tuple | None = field(default=None, init=False, repr=False)
    sparse: StructureFeatures | None = field(default=None, init=False, repr=False)
    fitted_kernel: Kernel | None = field(default=None, init=False, repr=False)
    _constants: object = field(default=None, init=False, repr=False)
    _transform: np.ndarray | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        check_kernels([self.kernel], "kernel")
        check_settings(self)
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
        frames : iterable of ase.Atoms or of LinearCombination
            Structures to choose from; a :class:`~lode.StructureFeatures` serves as well
            if the points are structures.
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
            If environments are to be chosen from features, which are sums.
        """
        options = {"n_threads": n_threads, "progress": progress}
        inputs = frames
        if not holds_features(frames):
            inputs = structures(frames, combinations=True)
        sparse, _ = self._chosen(inputs, [None], species, options)
        self._transform = self._whitening(self.fitted_kernel.gram(sparse))
        self.sparse, self.species = sparse, sparse.neighbor_species
        self.solution = self._constants = None
        return self

    def _whitening(self, gram):
        """U w^(-1/2) of the kernel of sparse points, without the smallest w."""
        values, vectors = np.linalg.eigh(gram)
        resolved = values > self.condition * values[-1]
        return vectors[:, resolved] / np.sqrt(values[resolved])

    def _chosen(self, inputs, parts, species, options):
        """Sparse points of parts of the frames, and the places of each part's own.

        A part is a mask of the frames, ``None`` all of them. The candidates are drawn
        and described once for all parts.
        """
        if len(parts) > 1 and not self.kernel.is_fitted:
            raise ValueError(
                "a kernel with whitening must be fitted to share sparse points between "
                "parts: kernel.fitted(features)"
            )
        draw = np.random.default_rng(self.seed)
        find = self._environment_candidates
        if not self.kernel.is_additive:
            find = self._structure_candidates
        pool, inside, groups = find(inputs, parts, draw, species, options)
        n_threads = thread_count(options["n_threads"])
        points = [[] for _ in parts]
        for rows, n_points in groups:
            some = pool.chosen(rows)
            among = [np.flatnonzero(mask[rows]) for mask in inside]
            found = self._representative(some, among, n_points, n_threads)
            for own, picked in zip(points, found, strict=True):
                own.append(rows[picked])
        points = [np.sort(np.concatenate(own)) for own in points]
        chosen = np.unique(np.concatenate(points))
        sparse = self.fitted_kernel.pruned(pool.chosen(chosen))
        return sparse, [np.searchsorted(chosen, own) for own in points]

    def _structure_candidates(self, inputs, parts, draw, species, options):
        """Structures as candidates: features, masks for the parts, one group of all."""
        if holds_features(inputs):
            pool = self.kernel.precompute(inputs)
            n, weights = pool.n_structures, pool.weights
            drawn = _drawn(draw, n, self.n_candidates)
            kernel, places = self.kernel.fitted(pool), drawn
        else:
            n, weights = len(inputs), inputs.weights
            drawn = _drawn(draw, n, self.n_candidates)
            species, _ = inputs.channels(species)
            pool = inputs.chosen(drawn)
            pool = self.kernel.precompute(pool, species=species, **options)
            kernel, places = self.kernel.fitted(pool), np.arange(len(drawn))
        self.fitted_kernel, pool = kernel, kernel.pruned(pool).chosen(places)
        inside = [_structures_of(part, n, weights)[drawn] for part in parts]
        return pool, inside, [(np.arange(len(drawn)), [self.n_sparse] * len(parts))]

    def _environment_candidates(self, inputs, parts, draw, species, options):
        """Environments as candidates: features, masks, groups by centre species."""
        if holds_features(inputs):
            raise TypeError(
                "sparse environments are chosen from structures, got "
                f"{type(inputs).__name__}"
            )
        species, _ = inputs.channels(species)
        # Whole structures are described, and some of their atoms are candidates.
        order = draw.permutation(len(inputs))
        n_atoms = np.cumsum(inputs.sizes[order])
        n = 1 + int(np.searchsorted(n_atoms, 2 * self.n_candidates))
        drawn = np.sort(order[:n])
        described = inputs.chosen(drawn)
        rows = _drawn(draw, len(described.species), self.n_candidates)
        centers, owner = described.species[rows], drawn[described.frame_index[rows]]
        atoms = np.zeros(len(described.species), dtype=bool)
        atoms[rows] = True
        pool = self.kernel.precompute(
            described, species=species, atoms=atoms, **options
        )
        self.fitted_kernel = self.kernel.fitted(pool)
        pool = self.fitted_kernel.pruned(pool)
        n_inputs, weights = len(inputs), inputs.weights
        inside = [_structures_of(part, n_inputs, weights)[owner] for part in parts]
        shares = [_shares(centers[mask], self.n_sparse) for mask in inside]
        groups = [
            (np.flatnonzero(centers == z), [share.get(z, 0) for share in shares])
            for z in np.unique(centers).tolist()
        ]
        return pool, inside, groups

    def _representative(self, some, among, n_points, n_threads):
        """Points of each part among its own candidates."""
        if self.selection == "fps":
            pairs = zip(among, n_points, strict=True)
            return [
                rows[_farthest_points(some.chosen(rows), n)] if n else rows[:0]
                for rows, n in pairs
            ]
        gram = self.fitted_kernel.gram(some)

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
        frames : iterable of ase.Atoms or of LinearCombination, or StructureFeatures
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
        forces=None,
        stress=None,
        groups=None,
        sparse_frames=None,
        species=None,
        n_threads=None,
        progress=False,
    ):
        """Choose the sparse points and learn the targets of the frames.

        Parameters
        ----------
        frames : iterable of ase.Atoms or of LinearCombination
            Training structures, or weighted sums of them.
        targets, groups, species, n_threads, progress
            As for :meth:`GaussianProcess.fit`.
        forces : sequence of array_like (n_atoms, 3) or None, optional
            Of each frame, ``None`` where there are none, in eV/Å. The weight of each
            kind of target is set by its noise.
        stress : sequence of array_like (3, 3) or (6,) or None, optional
            Of each frame, in eV/Å³; six components in ASE's order.
        sparse_frames : iterable of ase.Atoms or of LinearCombination, optional
            Structures to choose the sparse points from; by default the training
            structures. Forces of few frames need more points than these have atoms:
            displaced copies of them have such.

        Returns
        -------
        SparseGaussianProcess
            The model itself.

        Raises
        ------
        TypeError, ValueError
            As :meth:`select` and :meth:`GaussianProcess.fit`, or if forces or stress do
            not fit the frames.
        """
        inputs, targets = checked_training(frames, targets)
        chosen_from = inputs if sparse_frames is None else sparse_frames
        of_features = holds_features(inputs)
        # Rows of all kinds are weighted, and constants of species are free columns.
        derived = forces is not None or stress is not None
        if derived or self.intercept == SPECIES:
            derived = checked_derivatives_of(inputs, targets, forces, stress)
        options = {"n_threads": n_threads, "progress": progress}
        if species is None and sparse_frames is not None:
            species = inputs.neighbor_species if of_features else inputs.channels()[0]
        self.select(chosen_from, species=species, **options)
        features = self.features(inputs, **options)
        noise = self._noise(inputs, features)
        if derived:
            self.solution, self._constants = fitted_solution(
                self, inputs, derived, features, noise, groups, **options
            )
            self._learn_boundaries(self.kernel.descriptors, inputs)
            self.learnt = derived.counts()
            return self
        targets = targets - baseline_energies(self.baseline, inputs, n_threads)
        settings = self.regularization, self.n_folds, self.seed, groups
        self.solution = solve_features(
            features, targets, noise, self.intercept, *settings, normal_equations=True
        )
        self._learn_boundaries(self.kernel.descriptors, inputs)
        self.learnt = None
        return self

    def _noise(self, inputs, features):
        """Root mean square error of the features of a frame."""
        kernel, weights = self.fitted_kernel, getattr(inputs, "weights", None)
        noise = kernel.noise(self.sparse)
        if kernel.is_additive and True not in kernel._averages():
            # Errors of the environments of a structure add up.
            noise *= float(np.sqrt(np.mean(inputs.sizes.astype(float) ** 2)))
        if weights is not None:
            noise *= float(np.sqrt(np.mean(weights.power(2).sum(axis=1))))
        # Rounding of the kernel, which is divided by the roots of its eigenvalues.
        values = 1.0 / np.sum(self._transform**2, axis=0)
        row = np.sqrt(np.mean(features**2 @ values)) if len(values) else 0.0
        rounding = ROUNDING * row / np.sqrt(values.min(initial=np.inf))
        return float(np.hypot(noise, rounding))

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
        frames, n_threads, progress
            As for :meth:`features`.
        return_std : bool
            Also return the standard deviation that the sparse points allow; what they
            do not describe at all is not in it.
        forces, stress : bool
            Also predict these, see :class:`~lode.Prediction`: the frames must be
            structures and, for the stress, periodic in all three directions.
        forces_std : bool
            Also predict the standard deviations of the components of the forces, at the
            cost of the derivatives of all sparse points.

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
        features = self.features(frames, n_threads=n_threads, progress=progress)
        options = {"return_std": return_std, "n_threads": n_threads}
        return predicted_energies(self, frames, features, **options)

    def _rows(self, features):
        """Rows that the solution takes, of structures."""
        return self.fitted_kernel.gram(features, self.sparse) @ self._transform

    def _gradients(self, features):
        """Derivatives of the targets with respect to features of environments."""
        slope = self._transform @ self.solution.slope
        weights = np.tile(slope, (features.n_structures, 1))
        return self.fitted_kernel.vjp(features, self.sparse, weights)

    _has_columns = _has_forces = True

    def _column_gradients(self):
        """Functions for the gradients of the kernel with each sparse point."""
        one, kernel = np.ones((1, 1)), self.fitted_kernel
        points = (self.sparse.chosen([i]) for i in range(self.sparse.n_structures))
        return [lambda x, point=point: kernel.vjp(x, point, one) for point in points]

    def _state(self):
        arrays = prefixed(self.solution.to_arrays(), "solution_")
        arrays |= prefixed(self.sparse.to_arrays(), "sparse_")
        arrays |= prefixed(self.fitted_kernel.fitted_arrays(), "kernel_")
        if self._constants is not None:
            arrays |= self._constants.to_arrays()
        return {}, arrays | {"transform": self._transform}

    def _set_state(self, header, arrays):
        kernel = fitted_kernel(self.kernel, without_prefix(arrays, "kernel_"))
        found = without_prefix(arrays, "sparse_")
        self.sparse = fitted_features(kernel, found, self.species)
        self.fitted_kernel = kernel
        found = without_prefix(arrays, "solution_")
        self.solution = Solution.from_arrays(found, self.intercept is True)
        n_columns = self.solution.modes.n_columns
        if self.intercept == SPECIES:
            sizes = len(self.species), n_columns
            self._constants = SpeciesConstants.from_arrays(arrays, *sizes)
        sizes = {
            "point": self.sparse.n_frames,
            "column": n_columns,
        }
        self._transform = checked_arrays(arrays, _SAVED, **sizes)["transform"]


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
    inputs = structures(frames, combinations=True)
    parts = [np.asarray(part) for part in parts]
    for part in parts:
        if part.dtype != bool or part.shape != (inputs.n_frames,) or not part.any():
            raise ValueError(
                f"a part must be a mask of {inputs.n_frames} frames that keeps some, "
                f"got {part.dtype} of shape {part.shape} with {int(part.sum())} True"
            )
    species, _ = inputs.channels(species)
    anywhere = np.any(parts, axis=0)
    options = {"n_threads": n_threads, "progress": progress}
    used = inputs.frames(np.flatnonzero(anywhere))
    inside = [part[anywhere] for part in parts]
    sparse, places = model._chosen(used, inside, species, options)
    kernel = model.fitted_kernel
    gram = kernel.gram(sparse)
    projections = [(own, model._whitening(gram[np.ix_(own, own)])) for own in places]
    return _projected(sparse, projections, kernel, inputs, n_threads, progress)


def _projected(sparse, projections, kernel, frames, n_threads, progress):
    """Features of frames, for each choice of some of the sparse points."""

    def columns(part):
        values = kernel.gram(part, sparse)
        return [values[:, own] @ transform for own, transform in projections]

    if holds_features(frames):
        return columns(kernel.precompute(frames))
    inputs = structures(frames, combinations=True)
    species = sparse.neighbor_species
    inputs.channels(species)

    def rows(chunk):
        part = inputs.chosen(chunk)
        return columns(kernel.precompute(part, species=species, n_threads=1))

    title = "sparse kernel" if progress else None
    with single_threaded_blas():
        chunks = list(inputs.ranges(_CHUNK_ATOMS))
        found = thread_map(rows, chunks, thread_count(n_threads), title, "chunk")
    features = []
    # One choice after the other, and only once in memory.
    for _ in projections:
        values = np.concatenate([blocks.pop(0) for blocks in found])
        features.append(values if inputs.weights is None else inputs.weights @ values)
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
    if not left.max() > 0.0:
        # All alike: one describes them as well as all.
        return np.zeros(1, dtype=np.int64)
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


def _farthest_points(some, n_points):
    """Farthest points of features that count alike, each of unit mean square."""
    try:
        from skmatter.sample_selection import FPS
    except ImportError:
        raise ModuleNotFoundError(
            "selection 'fps' needs scikit-matter: pip install skmatter"
        ) from None
    columns = []
    for key in some.keys:
        parts = [block.parts[key] for block in some.blocks]
        every = np.unique(np.concatenate([part.columns for part in parts]))
        values = np.empty((some.n_structures, len(every)))
        for block, part in zip(some.blocks, parts, strict=True):
            values[block.structures] = part.at(every)
        size = np.sqrt(np.mean(np.sum(values**2, axis=1)))
        columns.append(values / (size if size > 0 else 1.0))
    distinct, first = np.unique(np.hstack(columns), axis=0, return_index=True)
    if len(distinct) <= n_points:
        return np.sort(first)
    return first[FPS(n_to_select=int(n_points)).fit(distinct).selected_idx_]


def _structures_of(part, n_structures, weights):
    """Which structures the frames of a part are made of."""
    used = np.zeros(n_structures, dtype=bool)
    chosen = slice(None) if part is None else np.flatnonzero(part)
    used[chosen if weights is None else weights[chosen].indices] = True
    return used


def _shares(centers, n_sparse):
    """Number of sparse environments of each species, as the root of its frequency."""
    species, counts = np.unique(centers, return_counts=True)
    share = np.sqrt(counts) / np.sqrt(counts).sum()
    wanted = np.maximum(1, np.round(n_sparse * share).astype(np.int64))
    return dict(zip(species.tolist(), np.minimum(wanted, counts).tolist(), strict=True))


def _drawn(draw, n, n_wanted):
    """Different whole numbers below n, in ascending order."""
    return np.sort(draw.permutation(n)[: int(n_wanted)])
