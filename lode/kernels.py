r"""Additive kernels between structures.

The kernel of two structures A and B is the sum of an environment kernel over all
pairs of their atoms,

    K(A, B) = Σ_{i∈A, j∈B} k(i, j),   k(i, j) = [δ_{z_i z_j}] (p_i · p_j)^ζ,

with the features p of the environments. Sums, products and positive multiples act
on k, so that every such kernel is additive too: a product of two kernels is
Σ_ij k₁(i, j) k₂(i, j), which grows with the number of atoms as its factors do. How
their matrices are computed stands in :mod:`lode.gram`.

A :class:`StructureKernel` is a power of such a kernel itself, K(A, B)^ζ, and not
additive. Every kernel extends to signed sums of structures: see
:mod:`lode.combinations`.

A :class:`WhitenedKernel` has parameters of its own, the covariance of its features: it
is fitted to a set of structures, :meth:`Kernel.fitted`, before it is evaluated.

Indices of arrays: A, B structures, i, j environments, p features.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from lode.archive import Wanted, checked_arrays, prefixed, without_prefix
from lode.expansion import SphericalExpansion
from lode.features import (
    CHUNK_BYTES,
    Part,
    Scatter,
    StructureFeatures,
    add_in_columns,
    add_scalar_gradient,
    distinct_descriptors,
    holds_features,
    requests_of,
    scalar_products,
    structure_features,
)
from lode.gram import (
    add_environment_gradients,
    diagonal_of_sums,
    environment_diagonal,
    environment_gram,
    gram_of_sums,
    joined_sums,
    power,
)
from lode.invariants import Features
from lode.systems import check_flags, structures
from lode.whitening import check_whitening, whitening

_BY_SPECIES = "species"
# Powers of scalar products beyond this tell equal environments from all others.
_LARGEST_DEGREE = 100
# What a whitened kernel has of each centre species.
_TRANSFORM = {
    "mean": Wanted("float", ("feature",)),
    "matrix": Wanted("float", ("feature", "component")),
    "columns": Wanted("int", ("feature",), order="distinct"),
}


class Kernel:
    """Base of the additive kernels: their algebra and their evaluation.

    A subclass has ``_requests``, ``_averages`` and ``_block``; one that is made of
    other kernels has ``_inner`` and ``_mapped``.
    """

    def __add__(self, other):
        if not isinstance(other, Kernel):
            return NotImplemented
        terms = []
        for kernel in (self, other):
            terms += kernel.kernels if isinstance(kernel, SumKernel) else (kernel,)
        return SumKernel(tuple(terms))

    def __mul__(self, other):
        if isinstance(other, Kernel):
            factors = []
            for kernel in (self, other):
                inside = isinstance(kernel, ProductKernel)
                factors += kernel.kernels if inside else (kernel,)
            return ProductKernel(tuple(factors))
        return self.__rmul__(other)

    def __rmul__(self, weight):
        if not np.isscalar(weight) or isinstance(weight, str):
            return NotImplemented
        return ScaledKernel(self, float(weight))

    def __call__(self, frames_a, frames_b=None, *, species=None, n_threads=None):
        """Kernel matrix between two sets of structures.

        Parameters
        ----------
        frames_a, frames_b : sequence of ase.Atoms, Features or StructureFeatures
            The structures; without ``frames_b`` the kernel of ``frames_a`` with
            itself.
        species : sequence of int, optional
            Neighbour species; by default all that occur in either set.
        n_threads : int, optional
            Threads of the descriptors.

        Returns
        -------
        ndarray (n_a, n_b)
        """
        options = {"species": species, "n_threads": n_threads}
        if frames_b is None:
            return self.gram(self.precompute(frames_a, **options))
        sets = [
            x if holds_features(x) else structures(x, combinations=True)
            for x in (frames_a, frames_b)
        ]
        if species is None:
            # Both sets must be described by the same fields.
            known = [_neighbor_species(x) for x in sets if holds_features(x)]
            found = known or [x.species for x in sets]
            options["species"] = tuple(np.unique(np.concatenate(found)).tolist())
        return self.gram(*[self.precompute(x, **options) for x in sets])

    @property
    def descriptors(self):
        """The different descriptors, in the order of their first use."""
        return distinct_descriptors(self._requests())

    def precompute(
        self,
        frames,
        *,
        species=None,
        n_threads=None,
        progress=False,
        dtype=np.float64,
        chunk_bytes=CHUNK_BYTES,
        environments=False,
        atoms=None,
    ):
        """What the kernel needs of the structures, computed once.

        Parameters
        ----------
        frames : iterable of ase.Atoms or of LinearCombination, Structures or Features
            The structures, weighted sums of them, or their features: one set for each
            of :attr:`descriptors`. A :class:`StructureFeatures` is returned unchanged.
        species : sequence of int, optional
            Neighbour species; by default all that occur.
        n_threads : int, optional
            Threads of the descriptors.
        progress : bool
            Show a progress bar.
        dtype : dtype
            Of stored environment features; single precision halves the memory. Sums
            over structures are always float64.
        chunk_bytes : int
            Environments are processed in chunks whose features and coefficients take
            about this memory; those of a large frame too, unless a descriptor has no
            ``chunks``.
        environments : bool
            Also keep the features of all environments, so that the kernel can be
            fitted to some of the structures later.
        atoms : ndarray (n_atoms,) of bool, optional
            Environments to keep, each as a structure of its own.

        Returns
        -------
        StructureFeatures

        Raises
        ------
        ValueError
            If an atom's species is not among ``species``, the features do not belong
            to this kernel or are not finite.
        """
        if isinstance(frames, StructureFeatures):
            self._check(frames)
            return frames
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {dtype}")
        requests = self._requests()
        if environments:
            requests = requests | self._requests(True)
        storage = dtype, chunk_bytes
        options = {"n_threads": n_threads, "progress": progress}
        return structure_features(requests, frames, species, atoms, storage, options)

    def represent(self, *arguments, **options):
        """Name of :meth:`precompute` in an earlier version."""
        message = "Kernel.represent is now called precompute"
        warnings.warn(message, FutureWarning, stacklevel=2)
        return self.precompute(*arguments, **options)

    def gram(self, a, b=None, *, progress=False):
        """Kernel matrix between structures whose features are there.

        Parameters
        ----------
        a, b : StructureFeatures
            Without ``b`` the kernel of ``a`` with itself, exactly symmetric.
        progress : bool
            Show a progress bar.

        Returns
        -------
        ndarray (n_a, n_b)

        Raises
        ------
        ValueError
            If the features are another kernel's, or the two sets were not checked
            against the same species.
        """
        self._check(a)
        if b is not None:
            self._check(b)
            if a.neighbor_species != b.neighbor_species:
                raise ValueError(
                    "both sets of structures must have the same neighbour species, got "
                    f"{a.neighbor_species} and {b.neighbor_species}"
                )
        values = self._gram(a.joined(), None if b is None else b.joined(), progress)
        if a.weights is not None:
            values = a.weights @ values
        right = (a if b is None else b).weights
        if right is not None:
            values = values @ right.T
        return values if b is not None else (values + values.T) / 2

    def diagonal(self, features):
        """Kernel of each structure with itself.

        Parameters
        ----------
        features : StructureFeatures

        Returns
        -------
        ndarray (n_frames,)
        """
        self._check(features)
        weights = features.weights
        if weights is None:
            return self._diagonal(features)
        values = np.empty(features.n_frames)
        for frame, (start, stop) in enumerate(pairwise(weights.indptr.tolist())):
            terms, w_t = weights.indices[start:stop], weights.data[start:stop]
            values[frame] = w_t @ self._gram(features.chosen(terms), None) @ w_t
        return values

    def vjp(self, a, b, dE_dK):
        """Derivatives of a scalar with respect to the features of environments.

        Parameters
        ----------
        a : StructureFeatures
            With the features of environments, see :meth:`precompute`.
        b : StructureFeatures
        dE_dK : ndarray (n_a, n_b)
            Derivatives with respect to the kernel matrix of ``a`` and ``b``.

        Returns
        -------
        list of dict of str to ndarray (n_environments, n_features)
            For each block of ``a``, by the keys of the features.
        """
        gradients = self._no_gradients(a)
        if a.weights is not None:
            dE_dK = a.weights.T @ dE_dK
        if b.weights is not None:
            dE_dK = dE_dK @ b.weights
        self._add_gradients(dE_dK, a, b.joined(), gradients)
        return gradients

    def linear_vjp(self, features, columns, dE_dX):
        """As :meth:`vjp`, for :meth:`linear_features`.

        Parameters
        ----------
        features : StructureFeatures
            With the features of environments.
        columns : list of dict
            Of :meth:`columns`.
        dE_dX : ndarray (n_structures, n_columns)
            Derivatives with respect to the linear features.

        Returns
        -------
        list of dict of str to ndarray (n_environments, n_features)
        """
        self._check_linear()
        gradients = self._no_gradients(features)
        edges = np.cumsum([len(c) for own in columns for c in own.values()])
        parts = iter(np.split(dE_dX, edges[:-1], axis=1))
        terms = iter([{z: (c, next(parts)) for z, c in own.items()} for own in columns])
        self._add_linear_gradients(features, terms, 1.0, gradients)
        return gradients

    @cached_property
    def _environment_keys(self):
        # Cached: they are needed for each point that forces are learnt with.
        return tuple(self._requests(True))

    def _no_gradients(self, features):
        return [
            {
                key: np.zeros(block.parts[key].values.shape)
                for key in self._environment_keys
            }
            for block in features.blocks
        ]

    def noise(self, features):
        """Error of what the kernel is a scalar product of.

        Structures that are closer to each other than this cannot be told apart.

        Parameters
        ----------
        features : StructureFeatures

        Returns
        -------
        float
            Root mean square over the frames, in units of the root of the kernel.
        """
        self._check(features)
        noise = self._noise(features)
        if features.weights is None:
            return noise
        squares = features.weights.power(2).sum(axis=1)
        return noise * float(np.sqrt(np.mean(squares)))

    def fitted(self, features):
        """The kernel with what it takes from data: itself, if there is nothing left.

        Parameters
        ----------
        features : StructureFeatures
            The structures to learn from, made by this kernel.

        Returns
        -------
        Kernel
        """
        return self._mapped(
            lambda kernel: kernel if kernel._transforms else kernel._fitted(features)
        )

    @property
    def is_fitted(self):
        """Whether the kernel has all that it takes from data."""
        return all(leaf._transforms is not None for leaf in self._whitened())

    def pruned(self, features):
        """The features without what the kernel does not use.

        Parameters
        ----------
        features : StructureFeatures

        Returns
        -------
        StructureFeatures
        """
        self._check(features)
        keys = self._requests()
        if not keys.keys() <= set(features.keys):
            keys = self._requests(True)
        return features.pruned(keys)

    def fitted_arrays(self):
        """What :meth:`fitted` found, as a dictionary of plain arrays."""
        arrays = {}
        for i, kernel in enumerate(self._whitened()):
            arrays |= prefixed(kernel._arrays(), f"{i}_")
        return arrays

    def with_arrays(self, arrays):
        """The kernel with the arrays of :meth:`fitted_arrays`.

        Parameters
        ----------
        arrays : dict of str to ndarray

        Returns
        -------
        Kernel

        Raises
        ------
        ValueError
            If they are not the arrays of such a kernel.
        """
        order = iter(range(len(self._whitened())))

        return self._mapped(
            lambda kernel: kernel._with_arrays(
                without_prefix(arrays, f"{next(order)}_")
            )
        )

    def _whitened(self):
        """The whitened kernels that this one is made of, in order."""
        found = []
        self._mapped(lambda kernel: found.append(kernel) or kernel)
        return found

    @property
    def _inner(self):
        """The kernels that this one is made of."""
        return ()

    def _mapped(self, function):
        """A copy in which the function has replaced every whitened kernel."""
        return self

    def _requests(self, environments=False):
        """What is needed of descriptors, by key."""
        requests = {}
        for kernel in self._inner:
            requests |= kernel._requests(environments)
        return requests

    def _averages(self):
        """The settings ``average`` of all kernels in it."""
        return set().union(*(kernel._averages() for kernel in self._inner))

    # Of structures: gram and diagonal add the weights of combinations.
    def _gram(self, a, b, progress=False):
        return environment_gram(self, a, b, True in self._averages(), progress)

    def _diagonal(self, features):
        return environment_diagonal(self, features, True in self._averages())

    def _add_gradients(self, weight_AB, a, b, gradients):
        """Add what :meth:`vjp` gives."""
        if True in self._averages():
            weight_AB = weight_AB / (a.n_atoms[:, None] * b.n_atoms)
        add_environment_gradients(self, a, b, weight_AB, gradients)

    def _add_linear_gradients(self, features, terms, factor, gradients):
        """Add what :meth:`linear_vjp` gives, times a factor.

        ``terms`` has, for each term of the kernel, the columns of each centre species
        and the derivatives with respect to them.
        """
        for kernel in self._inner:
            kernel._add_linear_gradients(features, terms, factor, gradients)

    def _size(self, features):
        """Root mean square of what the kernel is a scalar product of."""
        return float(np.sqrt(np.mean(self._diagonal(features))))

    def _linear_factors(self):
        """Weight and linear factors of a product of such; ``None, []`` of others."""
        return None, []

    @property
    def is_additive(self):
        """Whether the kernel is a sum over pairs of environments."""
        # A kernel of one descriptor is.
        return all(kernel.is_additive for kernel in self._inner)

    @property
    def is_linear(self):
        """Whether the kernel is a scalar product of sums over structures."""
        return False

    def columns(self, features):
        """Columns of a linear kernel's features that occur in some structures.

        Parameters
        ----------
        features : StructureFeatures

        Returns
        -------
        list of dict of int to ndarray of int
            For each term of the kernel those of each centre species; 0 stands for all
            of them together.
        """
        self._check_linear()
        self._check(features)
        return self._columns(features)

    def linear_features(self, features, columns=None):
        """Features Φ with K = Φ Φᵀ, for a linear kernel.

        Parameters
        ----------
        features : StructureFeatures
        columns : list of dict, optional
            Of :meth:`columns`; by default those that occur. What is in none of them
            is left out.

        Returns
        -------
        ndarray (n_frames, n_columns)

        Raises
        ------
        TypeError
            If the kernel is not linear.
        """
        self._check_linear()
        self._check(features)
        columns = self._columns(features) if columns is None else columns
        values = self._linear_features(features, iter(columns))
        return values if features.weights is None else features.weights @ values

    def _check_linear(self):
        if not self.is_linear:
            raise TypeError(
                "linear features need a kernel of degree 1, a whitened one or a sum of "
                f"such, got {type(self).__name__}"
            )

    def _check(self, features):
        if not isinstance(features, StructureFeatures):
            raise TypeError(
                "features made by `precompute` are needed, got "
                f"{type(features).__name__}"
            )
        missing = [k for k in self._requests() if k not in features.keys]
        # Of environments everything else can be made.
        enough = set(self._requests(True)) <= set(features.keys)
        if missing and features.blocks and not enough:
            raise ValueError(
                "features must be made by the kernel that uses them; they lack "
                f"{missing[0]} and hold {list(features.keys)}"
            )


class _FeatureKernel(Kernel):
    """Kernel of one descriptor, linear in sums over each structure if it can be."""

    normalize = False

    # Kept, because their keys are texts that take longer to write than a kernel of few
    # atoms takes to compute.
    @cached_property
    def _request_of(self):
        return requests_of(self.descriptor, self.normalize)

    def _request(self, form):
        return self._request_of[form]

    @property
    def _environment_key(self):
        (key,) = self._environment_keys
        return key

    def _linear_features(self, features, columns):
        own = next(columns)
        width = {z: len(c) for z, c in own.items()}
        start = dict(zip(own, np.cumsum([0, *width.values()]), strict=False))
        values = np.zeros((features.n_structures, sum(width.values())))
        for center, places, part in self._sums(features):
            if center in own:
                stop = start[center] + width[center]
                values[places, start[center] : stop] += part.at(own[center])
        return values

    def _gram(self, a, b, progress=False):
        if not self.is_linear:
            return super()._gram(a, b, progress)
        sums_b = None if b is None else self._sums(b)
        shape = (a.n_structures, (b or a).n_structures)
        return gram_of_sums(self._sums(a), sums_b, shape)

    def _diagonal(self, features):
        if not self.is_linear:
            return super()._diagonal(features)
        return diagonal_of_sums(self._sums(features), features.n_structures)

    def _sum_part(self, block):
        """Sums over each structure, made of environments if these alone are held."""
        key = self._request("sums").key
        if key in block.parts:
            return block.parts[key]
        part, start = block.parts[self._environment_key], block.bounds[:-1]
        values = np.add.reduceat(part.values, start, dtype=np.float64)
        return part._replace(values=values, form="sums")

    def _add_gradients(self, weight_AB, a, b, gradients):
        if not self.is_linear:
            super()._add_gradients(weight_AB, a, b, gradients)
            return
        for center, places, part in self._sums(b):
            for block, gradient in zip(a.blocks, gradients, strict=True):
                # Zero stands for the centres of all species.
                if center in (0, block.center):
                    rows = weight_AB[np.ix_(block.structures, places)] @ part.values
                    self._add_sum_gradient(rows, part.columns, a, block, gradient)

    def _add_linear_gradients(self, features, terms, factor, gradients):
        own = next(terms)
        for block, gradient in zip(features.blocks, gradients, strict=True):
            for center in own.keys() & {0, block.center}:
                columns, rows = own[center]
                rows = factor * rows[block.structures]
                self._add_sum_gradient(rows, columns, features, block, gradient)

    def _error(self, features):
        """Relative error of the features of an environment."""
        requests = self._requests() | self._requests(True)
        return max(features.errors[key] for key in requests if key in features.keys)


@dataclass(frozen=True)
class PolynomialKernel(_FeatureKernel):
    """Additive polynomial kernel.

    K(A, B) = Σ_{i∈A, j∈B} [δ_{z_i z_j}] (p_i · p_j)^ζ

    Parameters
    ----------
    descriptor : object
        Descriptor of environments: a frozen dataclass with
        ``compute(frames, *, species, n_threads, progress)`` that returns
        :class:`~lode.Features`.
    degree : int
        ζ.
    normalize : bool
        Scale the features of each environment to unit length, p_i · p_i = 1; a vector
        of zeros stays.
    species_delta : bool
        Only environments with centres of the same species have a kernel.
    average : bool or "species"
        Divide K by the numbers of atoms of A and of B; "species": divide by those of
        each centre species, K(A, B) = Σ_z p̄_z(A) · p̄_z(B) with the mean features p̄_z
        of the centres of species z (degree 1 only).

    Raises
    ------
    TypeError
        If the descriptor has no ``compute``.
    ValueError
        If the degree is not a positive integer, or ``average`` is none of these or
        does not fit the other settings.

    Notes
    -----
    The kernel of TENSOAP, the original code of A. Grisafi and M. Ceriotti, J. Chem.
    Phys. 151, 204105 (2019), is ``normalize=True, species_delta=False, average=True``.
    """

    descriptor: object
    degree: int = 1
    normalize: bool = False
    species_delta: bool = True
    average: bool | str = False

    def __post_init__(self):
        _check_descriptor(self.descriptor)
        _check_degree(self.degree)
        check_flags(self, "normalize", "species_delta")
        if self.average not in (False, True, _BY_SPECIES):
            raise ValueError(
                f"average must be False, True or {_BY_SPECIES!r}, got {self.average!r}"
            )
        if self.average == _BY_SPECIES and not (self.is_linear and self.species_delta):
            raise ValueError(
                f"average {_BY_SPECIES!r} needs degree 1 and species_delta, got degree "
                f"{self.degree} and species_delta {self.species_delta}"
            )

    @property
    def is_linear(self):
        """Whether the kernel is a scalar product of sums over structures."""
        return self.degree == 1

    def _requests(self, environments=False):
        form = "environments" if environments or not self.is_linear else "sums"
        request = self._request(form)
        return {request.key: request}

    def _averages(self):
        return {self.average}

    def _noise(self, features):
        return self.degree * self._error(features) * self._size(features)

    def _sums(self, features):
        """Sums over each structure: centre species, structures and part of each."""
        n_atoms, sums = features.n_atoms, []
        for block in features.blocks:
            part = self._sum_part(block)
            if self.average:
                by_species = self.average == _BY_SPECIES
                by = block.counts if by_species else n_atoms[block.structures]
                part = part._replace(values=part.values / by[:, None])
            center = block.center if self.species_delta else 0
            sums.append((center, block.structures, part))
        return sums if self.species_delta else joined_sums(sums, features.n_structures)

    def _add_sum_gradient(self, rows, columns, features, block, gradient):
        """Add the gradient with respect to the sums of a block's structures."""
        if self.average:
            by_species = self.average == _BY_SPECIES
            by = block.counts if by_species else features.n_atoms[block.structures]
            rows = rows / by[:, None]
        rows, key = np.repeat(rows, block.counts, axis=0), self._environment_key
        add_in_columns(rows, columns, block.parts[key].columns, gradient[key])

    def _columns(self, features):
        columns = {}
        for center, _, part in self._sums(features):
            known = columns.setdefault(center, part.columns)
            if not np.array_equal(known, part.columns):
                columns[center] = np.union1d(known, part.columns)
        return [columns]

    def _block(self, a, rows, b, columns, known):
        """Environment kernel of parts of two blocks, ``None`` if it vanishes.

        ``known`` keeps the scalar products of the same parts: they are the cost, and
        a sum of products has some of them in many terms.
        """
        products_ij = self._products(a, rows, b, columns, known)
        if products_ij is None or self.degree == 1:
            return products_ij
        return power(products_ij, int(self.degree))

    def _products(self, a, rows, b, columns, known):
        if self.species_delta and a.center != b.center:
            return None
        key = self._environment_key
        if key not in known:
            known[key] = scalar_products(a.parts[key], rows, b.parts[key], columns)
        return known[key]

    def _add_block_gradient(self, weight_ij, a, rows, b, columns, known, gradient):
        """Add the gradient of Σ weight_ij k(i, j) to that of the rows of a block."""
        products_ij = self._products(a, rows, b, columns, known)
        if products_ij is None:
            return
        if self.degree > 1:
            lower_ij = power(products_ij, int(self.degree) - 1)
            weight_ij = self.degree * weight_ij * lower_ij
        key = self._environment_key
        pair = a.parts[key], rows, b.parts[key], columns
        add_scalar_gradient(weight_ij, *pair, gradient[key])

    def _linear_factors(self):
        """Weight and linear factors, if the kernel is a product of such."""
        return 1.0, [replace(self, degree=1)] * int(self.degree)


@dataclass(frozen=True)
class WhitenedKernel(_FeatureKernel):
    r"""Linear kernel of features whose variances are evened out.

    .. math:: K(A, B) = \sum_{i\in A, j\in B} \delta_{z_i z_j}
        (p_i - \bar p_z)^T W_z W_z^T (p_j - \bar p_z)

    with the mean and the :func:`~lode.whitening.whitening` W of the features around
    the centres of each species, from the structures that the kernel is fitted to.
    Models fit it to what they learn from; :meth:`Kernel.fitted` does it by hand.

    Parameters
    ----------
    descriptor : object
        Descriptor of environments: a frozen dataclass with
        ``compute(frames, *, species, n_threads, progress)`` that returns
        :class:`~lode.Features`.
    exponent, n_components, condition
        As for :func:`~lode.whitening.whitening`.
    average : bool
        Divide K by the numbers of atoms of A and of B.

    Raises
    ------
    TypeError
        If the descriptor has no ``compute``.
    ValueError
        If an argument is out of range.
    """

    descriptor: object
    exponent: float = 0.4
    n_components: int | None = None
    condition: float = 1e-14
    average: bool = False
    _transforms: dict | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self):
        _check_descriptor(self.descriptor)
        check_whitening(self.exponent, self.n_components, self.condition)
        check_flags(self, "average")

    @property
    def is_linear(self):
        """Whether the kernel is a scalar product of sums over structures."""
        return True

    def _mapped(self, function):
        return function(self)

    def _requests(self, environments=False):
        forms = ["environments"] if environments else ["sums"]
        if self._transforms is None and not environments:
            forms.append("scatter")
        requests = [self._request(form) for form in forms]
        return {request.key: request for request in requests}

    def _averages(self):
        return {bool(self.average)}

    def _fitted(self, features):
        rows, sums, scatter = (
            self._request(form).key for form in ("environments", "sums", "scatter")
        )
        if rows not in features.keys and not {sums, scatter} <= set(features.keys):
            raise ValueError(
                "a whitened kernel is fitted to features that it has made, or "
                f"to those with environments, got {list(features.keys)}"
            )
        transforms = {}
        for z in features.centers:
            blocks = [block for block in features.blocks if block.center == z]
            key = scatter if scatter in features.keys else rows
            columns = blocks[0].parts[key].columns
            for block in blocks[1:]:
                columns = np.union1d(columns, block.parts[key].columns)
            total = Scatter()
            for block in blocks:
                part = block.parts[key]
                if key == rows:
                    total.add(part.at(columns).astype(np.float64))
                    continue
                mean = block.parts[sums].at(columns).sum(axis=0) / len(block)
                # Zeros where columns are missing, in rows and then in columns.
                half = part.at(columns).T
                matrix = Part(half, part.columns, part.form).at(columns)
                total.join(len(block), mean, matrix)
            covariance = total.matrix / total.count
            square = np.trace(covariance) + total.mean @ total.mean
            matrix = whitening(
                covariance,
                self.exponent,
                self.n_components,
                self.condition,
                self._error(features) ** 2 * square,
            )
            transforms[z] = (total.mean, matrix, columns)
        return self._with(transforms)

    def _with(self, transforms):
        kernel = replace(self)
        object.__setattr__(kernel, "_transforms", transforms)
        return kernel

    def _arrays(self):
        return {
            f"{name}_{z}": array
            for z, arrays in (self._transforms or {}).items()
            for name, array in zip(_TRANSFORM, arrays, strict=True)
        }

    def _with_arrays(self, arrays):
        species = [
            int(k.removeprefix("mean_")) for k in arrays if k.startswith("mean_")
        ]
        transforms = {}
        for z in species:
            wanted = {f"{name}_{z}": array for name, array in _TRANSFORM.items()}
            transforms[z] = tuple(checked_arrays(arrays, wanted).values())
        return self._with(transforms or None)

    def _transform(self, z):
        if self._transforms is None:
            raise RuntimeError(
                "a whitened kernel must be fitted first: kernel.fitted(features)"
            )
        if z not in self._transforms:
            raise ValueError(
                f"centres must be of the species {sorted(self._transforms)} that the "
                f"whitened kernel was fitted to, got {z}"
            )
        return self._transforms[z]

    def _sums(self, features):
        """Sums over each structure: centre species, structures and part of each."""
        n_atoms, sums = features.n_atoms, []
        for block in features.blocks:
            mean, matrix, columns = self._transform(block.center)
            part = self._sum_part(block)
            values = (part.at(columns) - block.counts[:, None] * mean) @ matrix
            if self.average:
                values /= n_atoms[block.structures][:, None]
            part = Part(values, np.arange(matrix.shape[1]), part.form)
            sums.append((block.center, block.structures, part))
        return sums

    def _noise(self, features):
        # Centred features may cancel in their sum, and their errors do not.
        squares = np.zeros(features.n_structures)
        for block in features.blocks:
            _, matrix, _ = self._transform(block.center)
            size = np.linalg.norm(self._sum_part(block).values, axis=1)
            if self.average:
                size = size / features.n_atoms[block.structures]
            # Its columns are orthogonal.
            longest = np.linalg.norm(matrix, axis=0).max(initial=0.0)
            squares[block.structures] += (longest * size) ** 2
        return self._error(features) * float(np.sqrt(np.mean(squares)))

    def _columns(self, features):
        return [{z: np.arange(t[1].shape[1]) for z, t in self._transforms.items()}]

    def _block(self, a, rows, b, columns, known):
        """Environment kernel of parts of two blocks, ``None`` if it vanishes."""
        if a.center != b.center:
            return None
        mean, matrix, own = self._transform(a.center)
        key = self._environment_key
        x_ip, x_jp = (
            (x.parts[key]._replace(values=x.parts[key].values[r]).at(own) - mean)
            @ matrix
            for x, r in ((a, rows), (b, columns))
        )
        return x_ip @ x_jp.T

    def _add_block_gradient(self, weight_ij, a, rows, b, columns, known, gradient):
        if a.center != b.center:
            return
        mean, matrix, own = self._transform(a.center)
        key = self._environment_key
        part = b.parts[key]
        x_jp = (part._replace(values=part.values[columns]).at(own) - mean) @ matrix
        values, out = (weight_ij @ x_jp) @ matrix.T, gradient[key][rows]
        add_in_columns(values, own, a.parts[key].columns, out)

    def _add_sum_gradient(self, rows, columns, features, block, gradient):
        """Add the gradient with respect to the sums of a block's structures."""
        _, matrix, own = self._transform(block.center)
        if self.average:
            rows = rows / features.n_atoms[block.structures][:, None]
        rows, key = (
            np.repeat(rows @ matrix.T, block.counts, axis=0),
            self._environment_key,
        )
        add_in_columns(rows, own, block.parts[key].columns, gradient[key])


@dataclass(frozen=True)
class ScaledKernel(Kernel):
    """Positive multiple of a kernel.

    Parameters
    ----------
    kernel : Kernel
        What is scaled.
    weight : float
        Positive factor.

    Raises
    ------
    TypeError
        If ``kernel`` is no kernel.
    ValueError
        If the weight is not positive: the result would be no covariance.
    """

    kernel: Kernel
    weight: float

    def __post_init__(self):
        check_kernels([self.kernel], "kernel")
        if not (np.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight must be positive and finite, got {self.weight}")

    @property
    def is_linear(self):
        """Whether the kernel is a scalar product of sums over structures."""
        return self.kernel.is_linear

    @property
    def _inner(self):
        return (self.kernel,)

    def _mapped(self, function):
        return replace(self, kernel=self.kernel._mapped(function))

    def _columns(self, features):
        return self.kernel._columns(features)

    def _linear_features(self, features, columns):
        values = self.kernel._linear_features(features, columns)
        return np.sqrt(self.weight) * values

    def _noise(self, features):
        return float(np.sqrt(self.weight)) * self.kernel._noise(features)

    def _gram(self, a, b, progress=False):
        return self.weight * self.kernel._gram(a, b, progress)

    def _diagonal(self, features):
        return self.weight * self.kernel._diagonal(features)

    def _add_gradients(self, weight_AB, a, b, gradients):
        self.kernel._add_gradients(self.weight * weight_AB, a, b, gradients)

    def _add_linear_gradients(self, features, terms, factor, gradients):
        factor = np.sqrt(self.weight) * factor
        self.kernel._add_linear_gradients(features, terms, factor, gradients)

    def _block(self, a, rows, b, columns, known):
        block = self.kernel._block(a, rows, b, columns, known)
        return None if block is None else self.weight * block

    def _add_block_gradient(self, weight_ij, *pair):
        self.kernel._add_block_gradient(self.weight * weight_ij, *pair)

    def _linear_factors(self):
        weight, factors = self.kernel._linear_factors()
        return None if weight is None else self.weight * weight, factors


@dataclass(frozen=True)
class SumKernel(Kernel):
    """Sum of kernels.

    Parameters
    ----------
    kernels : sequence of Kernel
        The terms.

    Raises
    ------
    TypeError
        If a term is no kernel.
    ValueError
        If there are no terms.
    """

    kernels: tuple

    def __post_init__(self):
        object.__setattr__(self, "kernels", check_kernels(self.kernels, "kernels"))

    def weighted(self, weights):
        """The sum with other weights; terms of weight zero are left out.

        Parameters
        ----------
        weights : sequence of float
            One for each term, not negative.

        Returns
        -------
        SumKernel
        """
        pairs = zip(self.kernels, weights, strict=True)
        return SumKernel([ScaledKernel(k, float(w)) for k, w in pairs if w != 0.0])

    @property
    def is_linear(self):
        """Whether the kernel is a scalar product of sums over structures."""
        return all(kernel.is_linear for kernel in self.kernels)

    @property
    def _inner(self):
        return self.kernels

    def _mapped(self, function):
        return replace(self, kernels=[k._mapped(function) for k in self.kernels])

    def _requests(self, environments=False):
        together, apart = (self.kernels, ()) if environments else self._terms()
        requests = {}
        for kernel in together:
            requests.update(kernel._requests(True))
        for kernel in apart:
            requests.update(kernel._requests())
        return requests

    def _terms(self):
        """Terms that are evaluated together on environments, and the others.

        Some terms have no form cheaper than the environment kernel. Others join them
        if it costs no further scalar products.
        """
        averages = self._averages()
        if len(averages) > 1 or _BY_SPECIES in averages:
            return (), self.kernels
        direct = [
            k.is_additive and not k.is_linear and len(k._linear_factors()[1]) != 2
            for k in self.kernels
        ]
        needed = set()
        for kernel, must in zip(self.kernels, direct, strict=True):
            needed.update(kernel._requests(True) if must else ())
        joined = [
            k.is_additive and needed.issuperset(k._requests(True)) for k in self.kernels
        ]
        together = tuple(k for k, j in zip(self.kernels, joined, strict=True) if j)
        apart = tuple(k for k, j in zip(self.kernels, joined, strict=True) if not j)
        return together, apart

    def _columns(self, features):
        return [own for kernel in self.kernels for own in kernel._columns(features)]

    def _linear_features(self, features, columns):
        return np.hstack([k._linear_features(features, columns) for k in self.kernels])

    def _noise(self, features):
        return math.hypot(*[kernel._noise(features) for kernel in self.kernels])

    def _gram(self, a, b, progress=False):
        together, apart = self._terms()
        values = [kernel._gram(a, b, progress) for kernel in apart]
        if together:
            average = True in self._averages()
            kernel = SumKernel(together)
            values.append(environment_gram(kernel, a, b, average, progress))
        return sum(values)

    def _diagonal(self, features):
        together, apart = self._terms()
        values = [kernel._diagonal(features) for kernel in apart]
        if together:
            average = True in self._averages()
            kernel = SumKernel(together)
            values.append(environment_diagonal(kernel, features, average))
        return sum(values)

    def _add_gradients(self, weight_AB, a, b, gradients):
        for kernel in self.kernels:
            kernel._add_gradients(weight_AB, a, b, gradients)

    def _block(self, a, rows, b, columns, known):
        blocks = [k._block(a, rows, b, columns, known) for k in self.kernels]
        blocks = [block for block in blocks if block is not None]
        return sum(blocks) if blocks else None

    def _add_block_gradient(self, weight_ij, *pair):
        for kernel in self.kernels:
            kernel._add_block_gradient(weight_ij, *pair)


@dataclass(frozen=True)
class ProductKernel(Kernel):
    """Product of the environment kernels, summed over the atoms.

    K(A, B) = Σ_{i∈A, j∈B} k₁(i, j) k₂(i, j) …; additive as its factors are, unlike the
    product K₁(A, B) K₂(A, B).

    Parameters
    ----------
    kernels : sequence of Kernel
        The factors; either all or none of them averaged, and so is the product.

    Raises
    ------
    TypeError
        If a factor is no kernel or not additive.
    ValueError
        If there are no factors, only some are averaged, or by species.
    """

    kernels: tuple

    def __post_init__(self):
        object.__setattr__(self, "kernels", check_kernels(self.kernels, "kernels"))
        if not all(kernel.is_additive for kernel in self.kernels):
            raise TypeError(
                "the factors of a product must be additive, got a kernel with a "
                "StructureKernel in it"
            )
        averages = self._averages()
        if len(averages) > 1 or _BY_SPECIES in averages:
            raise ValueError(
                "the factors of a product must have the same setting average, True or "
                f"False, got {sorted(map(str, averages))}"
            )

    @property
    def _inner(self):
        return self.kernels

    def _mapped(self, function):
        return replace(self, kernels=[k._mapped(function) for k in self.kernels])

    def _requests(self, environments=False):
        return super()._requests(True)

    def _noise(self, features):
        relative = 0.0
        for kernel in self.kernels:
            size = kernel._size(features)
            relative += kernel._noise(features) / size if size > 0.0 else 0.0
        return relative * self._size(features)

    def _block(self, a, rows, b, columns, known):
        product = None
        for kernel in self.kernels:
            block = kernel._block(a, rows, b, columns, known)
            if block is None:
                return None
            product = block if product is None else product * block
        return product

    def _add_block_gradient(self, weight_ij, a, rows, b, columns, known, gradient):
        pair = a, rows, b, columns, known
        blocks = [kernel._block(*pair) for kernel in self.kernels]
        if any(block is None for block in blocks):
            return
        for place, kernel in enumerate(self.kernels):
            others = math.prod(blocks[:place] + blocks[place + 1 :], start=weight_ij)
            kernel._add_block_gradient(others, *pair, gradient)

    def _linear_factors(self):
        weight, factors = 1.0, []
        for kernel in self.kernels:
            w, inner = kernel._linear_factors()
            if w is None:
                return None, []
            weight, factors = weight * w, factors + inner
        return weight, factors


@dataclass(frozen=True)
class StructureKernel(Kernel):
    """Power of a kernel between whole structures, K(A, B)^ζ.

    Parameters
    ----------
    kernel : Kernel
        K. With :class:`PolynomialKernel` of degree 1 and ``average=True``, or a sum of
        such, the result is a polynomial kernel of the mean features of a structure:
        pairs of atoms of A, not single atoms, are compared with pairs of B.
    degree : int
        ζ.

    Raises
    ------
    TypeError
        If ``kernel`` is no kernel.
    ValueError
        If the degree is not a positive integer.
    """

    kernel: Kernel
    degree: int = 2

    def __post_init__(self):
        check_kernels([self.kernel], "kernel")
        _check_degree(self.degree)

    @property
    def is_additive(self):
        """Whether the kernel is a sum over pairs of environments."""
        return False

    @property
    def _inner(self):
        return (self.kernel,)

    def _mapped(self, function):
        return replace(self, kernel=self.kernel._mapped(function))

    def _noise(self, features):
        size = self.kernel._size(features)
        relative = self.kernel._noise(features) / size if size > 0.0 else 0.0
        return self.degree * relative * self._size(features)

    def _gram(self, a, b, progress=False):
        return power(self.kernel._gram(a, b, progress), int(self.degree))

    def _diagonal(self, features):
        return power(self.kernel._diagonal(features), int(self.degree))

    def _add_gradients(self, weight_AB, a, b, gradients):
        if self.degree > 1:
            lower = power(self.kernel._gram(a, b), int(self.degree) - 1)
            weight_AB = self.degree * weight_AB * lower
        self.kernel._add_gradients(weight_AB, a, b, gradients)


def _neighbor_species(described):
    first = (
        described
        if isinstance(described, Features | StructureFeatures)
        else described[0]
    )
    return tuple(int(z) for z in first.neighbor_species)


def _check_descriptor(descriptor):
    if not hasattr(descriptor, "compute"):
        raise TypeError(
            f"descriptor must have a method compute, got {type(descriptor).__name__}"
        )
    if isinstance(descriptor, SphericalExpansion):
        raise TypeError(
            "descriptor must give features, such as PowerSpectrum(expansion), got a "
            "SphericalExpansion"
        )
    if hasattr(descriptor, "angular"):
        raise TypeError(
            f"descriptor must be invariant, got {type(descriptor).__name__}; an "
            "EquivariantRegression takes it"
        )


def _check_degree(degree):
    try:
        valid = int(degree) == degree and degree >= 1
    except (OverflowError, TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"degree must be a positive integer, got {degree!r}")
    if degree > _LARGEST_DEGREE:
        raise ValueError(f"degree must be at most {_LARGEST_DEGREE}, got {degree}")


def check_kernels(kernels, name):
    """Kernels as a tuple.

    Raises
    ------
    TypeError, ValueError
        If one is no kernel, or there are none.
    """
    if not isinstance(kernels, Sequence) or not kernels:
        raise ValueError(f"{name} must hold at least one kernel, got {kernels!r}")
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            raise TypeError(
                f"{name} must hold kernels of lode, got {type(kernel).__name__}"
            )
    return tuple(kernels)
