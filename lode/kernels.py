r"""Additive kernels between structures.

The kernel of two structures A and B is the sum of an environment kernel over all
pairs of their atoms,

    K(A, B) = Σ_{i∈A, j∈B} k(i, j),   k(i, j) = [δ_{z_i z_j}] (p_i · p_j)^ζ,

with the features p of the environments. Sums, products and positive multiples act
on k, so that every such kernel is additive too: a product of two kernels is
Σ_ij k₁(i, j) k₂(i, j), which grows with the number of atoms as its factors do.

Three exact forms of the same number, cheapest first:

- ζ = 1: K(A, B) = ⟨Σ_i p_i, Σ_j p_j⟩. Only sums over each structure are kept.
- ζ = 2: K(A, B) = ⟨Σ_i p_i p_iᵀ, Σ_j p_j p_jᵀ⟩, in blocks of pairs of features; the
  same with p_i q_iᵀ for the product of two linear kernels.
- any: the environment kernel in blocks, summed over the atoms of each structure.

A :class:`StructureKernel` is a power of such a kernel itself, K(A, B)^ζ, and not
additive. Every kernel extends to signed sums of structures: see
:mod:`lode.combinations`.

A :class:`WhitenedKernel` has parameters of its own, the covariance of its features: it
is fitted to a set of structures, :meth:`Kernel.fitted`, before it is evaluated.

Indices of arrays: A, B structures, s centre species, i, j environments, p, q
features.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array
from tqdm import tqdm

from lode.archive import load_archive, save_archive
from lode.combinations import Combination
from lode.conditioning import check_whitening, whitening
from lode.invariants import Features
from lode.parallel import single_threaded_blas
from lode.specification import specification
from lode.systems import species_index, systems

# Features of at most this size exist at a time while frames are represented.
_CHUNK_BYTES = 2**27
# Number of frames that tell how many features a descriptor has.
_FIRST_CHUNK = 8
# Memory of the second moments in one block of feature pairs.
_MOMENT_BYTES = 2**28
# Rows and columns of a block of the environment kernel (32 MB in float64).
_BLOCK = 2048
# Cost of an entry of the environment kernel beyond its scalar product (power, sum
# over segments; bound by memory), in multiply-adds of a matrix product.
_ENTRY_COST = 60

_BY_SPECIES = "species"
_KIND = "representation"


@dataclass(frozen=True)
class _Request:
    """What a kernel needs of a descriptor.

    ``form`` is ``"sums"`` (over each structure), ``"species sums"`` (the same per
    centre species), ``"environments"`` or ``"scatter"`` (of the environments of each
    centre species about their mean, all structures together).
    """

    descriptor: object
    normalize: bool
    form: str

    @property
    def key(self):
        parts = [specification(self.descriptor), bool(self.normalize), self.form]
        return json.dumps(parts, default=lambda value: value.item())


@dataclass(frozen=True)
class Representation:
    """What a kernel keeps of a set of structures.

    Made by :meth:`Kernel.represent`; a kernel matrix needs nothing else.

    Attributes
    ----------
    parts : dict of str to ndarray
        By what is stored: sums of features (n_frames, n_groups, n_features), with one
        group or one per centre species; features of environments
        (n_environments, n_features), ordered by species, then frame; or scatter
        matrices (1, n_species, n_features, n_features) of all environments.
    species : tuple of int
        Centre species, ascending.
    counts : ndarray (n_species, n_frames) of int
        Number of environments of each species in each frame.
    neighbor_species : tuple of int
        Atomic numbers of the fields that the features describe.
    weights : csr_array (n_frames, n_structures), optional
        Frames that are combinations of the structures; by default each structure is
        a frame.
    """

    parts: dict
    species: tuple
    counts: np.ndarray
    neighbor_species: tuple
    weights: csr_array | None = None

    @property
    def n_structures(self):
        """Number of structures described."""
        return self.counts.shape[1]

    @property
    def n_frames(self):
        """Number of structures or, with weights, of their combinations."""
        return self.n_structures if self.weights is None else self.weights.shape[0]

    @property
    def n_atoms(self):
        """Number of environments of each structure, (n_structures,)."""
        return self.counts.sum(axis=0)

    def combined(self, weights):
        """The same structures with weighted sums of them as frames.

        Parameters
        ----------
        weights : array_like or sparse array (n_frames, n_structures)
            Row t holds the weights w of a frame Σ_t w_t S_t.

        Returns
        -------
        Representation

        Raises
        ------
        ValueError
            If the shape does not fit, a weight is not finite or the frames are
            combinations already.
        """
        if self.weights is not None:
            raise ValueError("frames must be single structures, got combinations")
        weights = csr_array(weights, dtype=np.float64)
        if weights.ndim != 2 or weights.shape[1] != self.n_structures:
            raise ValueError(
                f"weights must have shape (n, {self.n_structures}), got {weights.shape}"
            )
        if not np.isfinite(weights.data).all():
            raise ValueError("weights must be finite, got NaN or infinity")
        return replace(self, weights=weights)

    def structures(self, chosen):
        """Representation of some of the structures, each a frame.

        Scatter matrices, which are of all structures together, are left out.

        Parameters
        ----------
        chosen : sequence of int
            Different structures.

        Returns
        -------
        Representation
        """
        chosen = np.asarray(chosen, dtype=np.int64)
        counts = self.counts[:, chosen]
        rows = []
        for group in range(len(self.species)):
            edges = self._bounds(group)
            rows += [np.arange(edges[i], edges[i + 1]) for i in chosen]
        rows = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
        parts = {
            key: part[chosen] if part.ndim == 3 else part[rows]
            for key, part in self.parts.items()
            if part.ndim < 4
        }
        return Representation(parts, self.species, counts, self.neighbor_species)

    def save(self, path):
        """Write to one npz file, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            Name of the file.
        """
        save_archive(path, _KIND, {"version": 1}, self.to_arrays())

    @classmethod
    def load(cls, path):
        """Representation written by :meth:`save`.

        Raises
        ------
        ValueError
            If the file is truncated, damaged or of another kind.
        """
        _, arrays = load_archive(path, _KIND)
        return cls.from_arrays(arrays)

    def to_arrays(self):
        """The representation as a dictionary of plain arrays."""
        arrays = {f"part_{i}": part for i, part in enumerate(self.parts.values())}
        if self.weights is not None:
            w = self.weights
            arrays |= {
                "weights": w.data,
                "weights_column": w.indices.astype(np.int64),
                "weights_start": w.indptr.astype(np.int64),
            }
        return {
            "keys": np.array(list(self.parts), dtype=np.str_),
            "species": np.array(self.species, dtype=np.int64),
            "counts": self.counts,
            "neighbor_species": np.array(self.neighbor_species, dtype=np.int64),
            **arrays,
        }

    @classmethod
    def from_arrays(cls, arrays):
        """The inverse of :meth:`to_arrays`.

        Raises
        ------
        ValueError
            If an array is missing.
        """
        try:
            keys = [str(key) for key in arrays["keys"]]
            weights = None
            if "weights" in arrays:
                start = arrays["weights_start"]
                weights = csr_array(
                    (arrays["weights"], arrays["weights_column"], start),
                    shape=(len(start) - 1, arrays["counts"].shape[1]),
                )
            return cls(
                {key: arrays[f"part_{i}"] for i, key in enumerate(keys)},
                tuple(arrays["species"].tolist()),
                arrays["counts"],
                tuple(arrays["neighbor_species"].tolist()),
                weights,
            )
        except KeyError as error:
            raise ValueError(f"a representation must hold the array {error}") from None

    def _species_of(self, row):
        """Index of the species of an environment."""
        return int(np.searchsorted(self.counts.sum(axis=1).cumsum(), row, "right"))

    def _start(self, group):
        """First environment of a species."""
        return int(self.counts[:group].sum())

    def _range(self, group):
        """Environments of a species."""
        start = self._start(group)
        return slice(start, start + int(self.counts[group].sum()))

    def _bounds(self, group):
        """Environments of a species, split by frame: (n_frames + 1,)."""
        return self._start(group) + np.concatenate(([0], np.cumsum(self.counts[group])))


class Kernel:
    """Base of the additive kernels: their algebra and their evaluation."""

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
        frames_a, frames_b : sequence of ase.Atoms, Features or Representation
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
        # Looked at twice.
        frames_a, frames_b = (
            list(x) if isinstance(x, Iterator) else x for x in (frames_a, frames_b)
        )
        if frames_b is None:
            return self.gram(
                self.represent(frames_a, species=species, n_threads=n_threads)
            )
        if species is None:
            # Both sets must be described by the same fields.
            found = [
                s.species
                for x in (frames_a, frames_b)
                if _raw(x)
                for s in systems(distinct_structures(x)[0])
            ]
            known = [
                np.array(_neighbor_species(x))
                for x in (frames_a, frames_b)
                if not _raw(x)
            ]
            species = tuple(np.unique(np.concatenate(known or found)).tolist())
        sets = [
            self.represent(x, species=species, n_threads=n_threads)
            for x in (frames_a, frames_b)
        ]
        return self.gram(*sets)

    @property
    def descriptors(self):
        """The different descriptors, in the order of their first use."""
        unique = []
        for request in self._requests().values():
            if request.descriptor not in unique:
                unique.append(request.descriptor)
        return tuple(unique)

    def represent(
        self,
        frames,
        *,
        species=None,
        n_threads=None,
        progress=False,
        dtype=np.float64,
        chunk_bytes=_CHUNK_BYTES,
        environments=False,
    ):
        """What the kernel needs of the structures, computed once.

        Parameters
        ----------
        frames : sequence of ase.Atoms, of Combination or of Features, or Features
            The structures, weighted sums of them, or their features: one set for each
            of :attr:`descriptors`. A representation is returned as it came.
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

        Returns
        -------
        Representation

        Raises
        ------
        ValueError
            If an atom's species is not among ``species``, the features do not belong
            to this kernel or are not finite.
        """
        if isinstance(frames, Representation):
            self._check(frames)
            return frames
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {dtype}")
        frames, weights = distinct_structures(frames)
        requests = self._requests()
        if environments:
            requests = requests | self._requests(True)
        descriptors = self.descriptors
        if _raw(frames):
            checked = systems(frames)
            neighbors, _ = species_index(checked, species)
            centers = np.concatenate([s.species for s in checked])
            frame_index = np.repeat(np.arange(len(checked)), [len(s) for s in checked])
            n_frames = len(checked)
            sources = [
                _computed(d, checked, neighbors, n_threads, progress, chunk_bytes)
                for d in descriptors
            ]
        else:
            given = [frames] if isinstance(frames, Features) else list(frames)
            if len(given) != len(descriptors):
                raise ValueError(
                    f"the kernel needs features of {len(descriptors)} descriptors, got "
                    f"{len(given)} sets"
                )
            _check_features(given, species)
            neighbors = _neighbor_species(given[0])
            centers, frame_index = given[0].species, given[0].frame_index
            n_frames = given[0].n_frames
            sources = [_sliced(f.values, chunk_bytes) for f in given]
        layout = _Layout.of(centers, frame_index, n_frames)
        parts = {}
        for descriptor, source in zip(descriptors, sources, strict=True):
            wanted = {k: r for k, r in requests.items() if r.descriptor == descriptor}
            parts.update(_stored(wanted, source, layout, dtype))
        # In the order of the requests, whatever the order of the descriptors.
        parts = {key: parts[key] for key in requests}
        return Representation(
            parts, layout.species, layout.counts, tuple(neighbors), weights
        )

    def gram(self, a, b=None, *, progress=False):
        """Kernel matrix between represented structures.

        Parameters
        ----------
        a, b : Representation
            Without ``b`` the kernel of ``a`` with itself, exactly symmetric.
        progress : bool
            Show a progress bar.

        Returns
        -------
        ndarray (n_a, n_b)

        Raises
        ------
        ValueError
            If a representation was made by another kernel, or the two are not
            described by the same fields.
        """
        self._check(a)
        if b is not None:
            self._check(b)
            if a.neighbor_species != b.neighbor_species:
                raise ValueError(
                    "both representations must have the same neighbour species, got "
                    f"{a.neighbor_species} and {b.neighbor_species}"
                )
            for key in self._requests():
                if a.parts[key].shape[-1] != b.parts[key].shape[-1]:
                    raise ValueError(
                        "both representations must have the same number of features, "
                        f"got {a.parts[key].shape[-1]} and {b.parts[key].shape[-1]}"
                    )
        values = self._gram(a, b, progress)
        if a.weights is not None:
            values = a.weights @ values
        right = (a if b is None else b).weights
        if right is not None:
            values = values @ right.T
        return values if b is not None else (values + values.T) / 2

    def diagonal(self, representation):
        """Kernel of each structure with itself.

        Parameters
        ----------
        representation : Representation
            The structures.

        Returns
        -------
        ndarray (n_frames,)
        """
        self._check(representation)
        if representation.weights is None:
            return self._diagonal(representation)
        values = np.empty(representation.n_frames)
        starts = representation.weights.indptr
        for frame, (start, stop) in enumerate(pairwise(starts.tolist())):
            terms = representation.weights.indices[start:stop]
            w_t = representation.weights.data[start:stop]
            values[frame] = (
                w_t @ self._gram(representation.structures(terms), None) @ w_t
            )
        return values

    def fitted(self, representation):
        """The kernel with what it takes from data: itself, if nothing is whitened.

        Parameters
        ----------
        representation : Representation
            The structures to learn from, made by this kernel.

        Returns
        -------
        Kernel
        """
        return self._mapped(lambda kernel: kernel._fitted(representation))

    @property
    def is_fitted(self):
        """Whether the kernel has all that it takes from data."""
        return all(leaf._transforms is not None for leaf in self._whitened())

    def needed(self, representation):
        """The representation without what the kernel does not use.

        Parameters
        ----------
        representation : Representation

        Returns
        -------
        Representation
        """
        self._check(representation)
        parts = {key: representation.parts[key] for key in self._requests()}
        return replace(representation, parts=parts)

    def fitted_arrays(self):
        """What :meth:`fitted` found, as a dictionary of plain arrays."""
        arrays = {}
        for i, kernel in enumerate(self._whitened()):
            for name, array in kernel._arrays().items():
                arrays[f"{i}_{name}"] = array
        return arrays

    def restored(self, arrays):
        """The kernel with the arrays of :meth:`fitted_arrays`.

        Parameters
        ----------
        arrays : dict of str to ndarray

        Returns
        -------
        Kernel
        """
        order = iter(range(len(self._whitened())))

        def restored(kernel):
            prefix = f"{next(order)}_"
            own = {k: a for k, a in arrays.items() if k.startswith(prefix)}
            return kernel._restored({k[len(prefix) :]: a for k, a in own.items()})

        return self._mapped(restored)

    def _whitened(self):
        """The whitened kernels that this one is made of, in order."""
        found = []
        self._mapped(lambda kernel: found.append(kernel) or kernel)
        return found

    def _mapped(self, function):
        """The same kernel with other whitened kernels in it."""
        return self

    @property
    def is_additive(self):
        """Whether the kernel is a sum over pairs of environments."""
        return True

    @property
    def is_linear(self):
        """Whether the kernel is a scalar product of sums over structures."""
        return False

    def linear_features(self, representation, species=None):
        """Features Φ with K = Φ Φᵀ, for a linear kernel.

        Parameters
        ----------
        representation : Representation
            The structures.
        species : sequence of int, optional
            Centre species that have columns; by default those that occur as centres
            or neighbours.

        Returns
        -------
        ndarray (n_frames, n_columns)

        Raises
        ------
        TypeError
            If the kernel is not linear.
        ValueError
            If a structure has a centre of another species.
        """
        if not self.is_linear:
            raise TypeError("only a sum of kernels of degree 1 has linear features")
        self._check(representation)
        if species is None:
            species = center_species(representation)
        unknown = sorted(set(representation.species) - set(species))
        if unknown:
            raise ValueError(
                f"species must be among {sorted(species)}, got unknown {unknown}"
            )
        features = self._linear_features(representation, tuple(species))
        weights = representation.weights
        return features if weights is None else weights @ features

    def _check(self, representation):
        if not isinstance(representation, Representation):
            raise TypeError(
                "a representation made by `represent` is needed, got "
                f"{type(representation).__name__}"
            )
        missing = [k for k in self._requests() if k not in representation.parts]
        if missing:
            raise ValueError(
                "a representation must be made by the kernel that uses it; it lacks "
                f"{missing[0]} and holds {list(representation.parts)}"
            )


@dataclass(frozen=True)
class PolynomialKernel(Kernel):
    """Additive polynomial kernel.

    K(A, B) = Σ_{i∈A, j∈B} [δ_{z_i z_j}] (p_i · p_j)^ζ

    Parameters
    ----------
    descriptor : object
        Descriptor of environments: a dataclass with a method ``compute``.
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

    def _request(self, environments):
        if environments or not self.is_linear:
            form = "environments"
        else:
            form = "species sums" if self.species_delta else "sums"
        return _Request(self.descriptor, self.normalize, form)

    def _requests(self, environments=False):
        request = self._request(environments)
        return {request.key: request}

    def _averages(self):
        return {self.average}

    def _sums(self, representation):
        """Sums (n_frames, n_groups, n_features) and the species of the groups."""
        sums_Asp = representation.parts[self._request(False).key]
        if self.average == _BY_SPECIES:
            sums_Asp = sums_Asp / np.maximum(representation.counts.T, 1)[:, :, None]
        elif self.average:
            sums_Asp = sums_Asp / representation.n_atoms[:, None, None]
        species = representation.species if self.species_delta else (None,)
        return sums_Asp, species

    def _linear_features(self, representation, species):
        sums_Asp, found = self._sums(representation)
        if not self.species_delta:
            return sums_Asp[:, 0]
        n_frames, _, n_features = sums_Asp.shape
        columns = np.zeros((n_frames, len(species), n_features))
        columns[:, [species.index(z) for z in found]] = sums_Asp
        return columns.reshape(n_frames, -1)

    def _gram(self, a, b, progress=False):
        if not self.is_linear:
            return _environment_sum(self, a, b, self.average, progress)
        sums_Asp, species_a = self._sums(a)
        sums_Bsp, species_b = (sums_Asp, species_a) if b is None else self._sums(b)
        values = np.zeros((len(sums_Asp), len(sums_Bsp)))
        for s, z in enumerate(species_a):
            if z in species_b:
                values += sums_Asp[:, s] @ sums_Bsp[:, species_b.index(z)].T
        return values

    def _diagonal(self, representation):
        if not self.is_linear:
            return _environment_diagonal(self, representation, self.average)
        sums_Asp, _ = self._sums(representation)
        return np.einsum("Asp,Asp->A", sums_Asp, sums_Asp)

    def _block(self, a, rows, b, columns, same, known):
        """Environment kernel of two ranges, ``None`` if it vanishes.

        ``known`` keeps the scalar products of the same ranges: they are the cost, and
        a sum of products has some of them in many terms.
        """
        if self.species_delta and not same:
            return None
        key = self._request(True).key
        if key not in known:
            x_ip = np.asarray(a.parts[key][rows], dtype=np.float64)
            x_jp = np.asarray(b.parts[key][columns], dtype=np.float64)
            known[key] = x_ip @ x_jp.T
        k_ij = known[key]
        return k_ij if self.degree == 1 else _power(k_ij, int(self.degree))

    def _monomial(self):
        """Weight and linear factors, if the kernel is a product of such."""
        return 1.0, [replace(self, degree=1)] * int(self.degree)


@dataclass(frozen=True)
class WhitenedKernel(Kernel):
    r"""Linear kernel of features whose variances are evened out.

    .. math:: K(A, B) = \sum_{i\in A, j\in B} \delta_{z_i z_j}
        (p_i - \bar p_z)^T W_z W_z^T (p_j - \bar p_z)

    with the mean and the :func:`~lode.conditioning.whitening` W of the features around
    the centres of each species, from the structures that the kernel is fitted to.
    Models fit it to what they learn from; :meth:`Kernel.fitted` does it by hand.

    Parameters
    ----------
    descriptor : object
        Descriptor of environments: a dataclass with a method ``compute``.
    exponent, n_components, condition
        As for :func:`~lode.conditioning.whitening`.
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

    @property
    def is_linear(self):
        """Whether the kernel is a scalar product of sums over structures."""
        return True

    def _mapped(self, function):
        return function(self)

    def _request(self, form):
        return _Request(self.descriptor, False, form)

    def _requests(self, environments=False):
        forms = ["environments"] if environments else ["species sums"]
        if self._transforms is None and not environments:
            forms.append("scatter")
        requests = [self._request(form) for form in forms]
        return {request.key: request for request in requests}

    def _averages(self):
        return {bool(self.average)}

    def _fitted(self, representation):
        parts = representation.parts
        rows = parts.get(self._request("environments").key)
        sums = parts.get(self._request("species sums").key)
        scatter = parts.get(self._request("scatter").key)
        if rows is None and (sums is None or scatter is None):
            raise ValueError(
                "a whitened kernel is fitted to a representation that it has made, or "
                f"to one with environments, got one of {list(parts)}"
            )
        transforms = {}
        for group, z in enumerate(representation.species):
            n = int(representation.counts[group].sum())
            if scatter is None:
                x_ip = rows[representation._range(group)].astype(np.float64)
                mean = x_ip.mean(axis=0)
                x_ip -= mean
                covariance = x_ip.T @ x_ip / n
            else:
                mean = sums[:, group].sum(axis=0) / n
                covariance = scatter[0, group] / n
            matrix = whitening(
                covariance, self.exponent, self.n_components, self.condition
            )
            transforms[z] = (mean, matrix)
        return self._with(transforms)

    def _with(self, transforms):
        kernel = replace(self)
        object.__setattr__(kernel, "_transforms", transforms)
        return kernel

    def _arrays(self):
        arrays = {}
        for z, (mean, matrix) in (self._transforms or {}).items():
            arrays[f"mean_{z}"], arrays[f"matrix_{z}"] = mean, matrix
        return arrays

    def _restored(self, arrays):
        species = [int(k[5:]) for k in arrays if k.startswith("mean_")]
        transforms = {z: (arrays[f"mean_{z}"], arrays[f"matrix_{z}"]) for z in species}
        return self._with(transforms or None)

    def _transform(self, z):
        if self._transforms is None:
            raise RuntimeError(
                "a whitened kernel must be fitted first: kernel.fitted(representation)"
            )
        if z not in self._transforms:
            raise ValueError(
                f"centres must be of the species {sorted(self._transforms)} that the "
                f"whitened kernel was fitted to, got {z}"
            )
        return self._transforms[z]

    def _whitened_sums(self, representation):
        """Sums over each structure, (n_frames, n_kept) for each species."""
        sums_Asp = representation.parts[self._request("species sums").key]
        sums = {}
        for group, z in enumerate(representation.species):
            mean, matrix = self._transform(z)
            count = representation.counts[group][:, None]
            sums[z] = (sums_Asp[:, group] - count * mean) @ matrix
            if self.average:
                sums[z] /= representation.n_atoms[:, None]
        return sums

    def _linear_features(self, representation, species):
        sums = self._whitened_sums(representation)
        n_frames = representation.n_structures
        columns = []
        for z in species:
            if z in sums:
                columns.append(sums[z])
            elif z in self._transforms:
                n_kept = self._transforms[z][1].shape[1]
                columns.append(np.zeros((n_frames, n_kept)))
        return np.hstack(columns)

    def _gram(self, a, b, progress=False):
        sums_a = self._whitened_sums(a)
        sums_b = sums_a if b is None else self._whitened_sums(b)
        values = np.zeros((a.n_structures, (b or a).n_structures))
        for z in sums_a:
            if z in sums_b:
                values += sums_a[z] @ sums_b[z].T
        return values

    def _diagonal(self, representation):
        sums = self._whitened_sums(representation)
        return sum(np.einsum("Ap,Ap->A", x, x) for x in sums.values())

    def _block(self, a, rows, b, columns, same, known):
        """Environment kernel of two ranges, ``None`` if it vanishes."""
        if not same:
            return None
        mean, matrix = self._transform(a.species[a._species_of(rows.start)])
        key = self._request("environments").key
        x_ip, x_jp = (
            (x.parts[key][r] - mean) @ matrix for x, r in ((a, rows), (b, columns))
        )
        return x_ip @ x_jp.T

    def _monomial(self):
        return None, []


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
        _check_kernels([self.kernel], "kernel")
        if not (np.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight must be positive and finite, got {self.weight}")

    @property
    def is_linear(self):
        """Whether the kernel is a scalar product of sums over structures."""
        return self.kernel.is_linear

    @property
    def is_additive(self):
        """Whether the kernel is a sum over pairs of environments."""
        return self.kernel.is_additive

    def _mapped(self, function):
        return replace(self, kernel=self.kernel._mapped(function))

    def _requests(self, environments=False):
        return self.kernel._requests(environments)

    def _averages(self):
        return self.kernel._averages()

    def _linear_features(self, representation, species):
        features = self.kernel._linear_features(representation, species)
        return np.sqrt(self.weight) * features

    def _gram(self, a, b, progress=False):
        return self.weight * self.kernel._gram(a, b, progress)

    def _diagonal(self, representation):
        return self.weight * self.kernel._diagonal(representation)

    def _block(self, a, rows, b, columns, same, known):
        block = self.kernel._block(a, rows, b, columns, same, known)
        return None if block is None else self.weight * block

    def _monomial(self):
        weight, factors = self.kernel._monomial()
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
        object.__setattr__(self, "kernels", _check_kernels(self.kernels, "kernels"))

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
    def is_additive(self):
        """Whether the kernel is a sum over pairs of environments."""
        return all(kernel.is_additive for kernel in self.kernels)

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
            k.is_additive and not k.is_linear and len(k._monomial()[1]) != 2
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

    def _averages(self):
        return set().union(*(kernel._averages() for kernel in self.kernels))

    def _linear_features(self, representation, species):
        return np.hstack(
            [k._linear_features(representation, species) for k in self.kernels]
        )

    def _gram(self, a, b, progress=False):
        together, apart = self._terms()
        values = [kernel._gram(a, b, progress) for kernel in apart]
        if together:
            average = True in self._averages()
            kernel = SumKernel(together)
            values.append(_environment_sum(kernel, a, b, average, progress))
        return sum(values)

    def _diagonal(self, representation):
        together, apart = self._terms()
        values = [kernel._diagonal(representation) for kernel in apart]
        if together:
            average = True in self._averages()
            kernel = SumKernel(together)
            values.append(_environment_diagonal(kernel, representation, average))
        return sum(values)

    def _block(self, a, rows, b, columns, same, known):
        blocks = [k._block(a, rows, b, columns, same, known) for k in self.kernels]
        blocks = [block for block in blocks if block is not None]
        return sum(blocks) if blocks else None

    def _monomial(self):
        return None, []


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
        object.__setattr__(self, "kernels", _check_kernels(self.kernels, "kernels"))
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

    def _mapped(self, function):
        return replace(self, kernels=[k._mapped(function) for k in self.kernels])

    def _requests(self, environments=False):
        requests = {}
        for kernel in self.kernels:
            requests.update(kernel._requests(True))
        return requests

    def _averages(self):
        return set().union(*(kernel._averages() for kernel in self.kernels))

    def _gram(self, a, b, progress=False):
        return _environment_sum(self, a, b, True in self._averages(), progress)

    def _diagonal(self, representation):
        averaged = True in self._averages()
        return _environment_diagonal(self, representation, averaged)

    def _block(self, a, rows, b, columns, same, known):
        product = None
        for kernel in self.kernels:
            block = kernel._block(a, rows, b, columns, same, known)
            if block is None:
                return None
            product = block if product is None else product * block
        return product

    def _monomial(self):
        weight, factors = 1.0, []
        for kernel in self.kernels:
            w, inner = kernel._monomial()
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
        _check_kernels([self.kernel], "kernel")
        _check_degree(self.degree)

    @property
    def is_additive(self):
        """Whether the kernel is a sum over pairs of environments."""
        return False

    def _mapped(self, function):
        return replace(self, kernel=self.kernel._mapped(function))

    def _requests(self, environments=False):
        return self.kernel._requests(environments)

    def _averages(self):
        return self.kernel._averages()

    def _gram(self, a, b, progress=False):
        return _power(self.kernel._gram(a, b, progress), int(self.degree))

    def _diagonal(self, representation):
        return _power(self.kernel._diagonal(representation), int(self.degree))

    def _monomial(self):
        return None, []


def distinct_structures(frames):
    """Structures that combinations are made of, each once, and the weights.

    Parameters
    ----------
    frames : sequence of Combination or anything else
        Anything else is returned as it came.

    Returns
    -------
    structures : list of ase.Atoms
    weights : csr_array (n_frames, n_structures) or None
        ``None`` if the frames are no combinations.

    Raises
    ------
    TypeError
        If only some of the frames are combinations.
    """
    if not isinstance(frames, Sequence):
        return frames, None
    combined = [isinstance(frame, Combination) for frame in frames]
    if not any(combined):
        return frames, None
    if not all(combined):
        raise TypeError(
            "frames must be combinations all or none, got "
            f"{type(frames[combined.index(False)]).__name__} among them"
        )
    structures, place = [], {}
    entries = []
    for row, frame in enumerate(frames):
        for atoms, weight in zip(frame.structures, frame.weights, strict=True):
            if id(atoms) not in place:
                place[id(atoms)] = len(structures)
                structures.append(atoms)
            entries.append((weight, row, place[id(atoms)]))
    weight, row, column = zip(*entries, strict=True)
    shape = (len(frames), len(structures))
    return structures, csr_array((weight, (row, column)), shape=shape)


def center_species(representation):
    """Species that occur as centres or neighbours, ascending."""
    return tuple(sorted({*representation.species, *representation.neighbor_species}))


def _check_descriptor(descriptor):
    if not hasattr(descriptor, "compute"):
        raise TypeError(
            f"descriptor must have a method compute, got {type(descriptor).__name__}"
        )
    if hasattr(descriptor, "angular"):
        raise TypeError(
            f"descriptor must be invariant, got {type(descriptor).__name__}; an "
            "EquivariantRegression takes it"
        )


def _check_degree(degree):
    try:
        valid = int(degree) == degree and degree >= 1
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"degree must be a positive integer, got {degree!r}")


def _check_kernels(kernels, name):
    if not isinstance(kernels, Sequence) or not kernels:
        raise ValueError(f"{name} must hold at least one kernel, got {kernels!r}")
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            raise TypeError(f"{name} must be kernels, got {type(kernel).__name__}")
    return tuple(kernels)


def _raw(frames):
    """Whether ``frames`` are structures, not features or a representation."""
    if isinstance(frames, Features | Representation):
        return False
    return not (
        isinstance(frames, Sequence) and frames and isinstance(frames[0], Features)
    )


def _neighbor_species(described):
    if isinstance(described, Features | Representation):
        return tuple(int(z) for z in described.neighbor_species)
    return _neighbor_species(described[0])


def _check_features(given, species):
    """Refuse sets of features that are not of the same environments."""
    first = given[0]
    for features in given:
        n_environments = len(features.values)
        lengths = {len(features.species), len(features.frame_index), n_environments}
        if len(lengths) > 1:
            raise ValueError(
                "features must have one species and one frame for each environment, "
                f"got {n_environments} rows, {len(features.species)} species and "
                f"{len(features.frame_index)} frames"
            )
        if not (
            np.array_equal(features.species, first.species)
            and np.array_equal(features.frame_index, first.frame_index)
            and features.n_frames == first.n_frames
            and _neighbor_species(features) == _neighbor_species(first)
        ):
            raise ValueError(
                "all sets of features must describe the same environments, got "
                "different centres, frames or neighbour species"
            )
    found = _neighbor_species(first)
    if species is not None and tuple(int(z) for z in species) != found:
        raise ValueError(
            f"features must have the neighbour species {tuple(species)}, got {found}"
        )


def _computed(descriptor, checked, species, n_threads, progress, chunk_bytes):
    """Features of consecutive environments, from structures, chunk by chunk."""
    if hasattr(descriptor, "chunks"):
        options = {"species": species, "n_threads": n_threads, "progress": progress}
        for part in descriptor.chunks(checked, memory=chunk_bytes, **options):
            yield part.values
        return
    # A descriptor of the user's own: whole frames.
    stop = min(_FIRST_CHUNK, len(checked))
    start = 0
    bar = tqdm(
        total=len(checked),
        desc=type(descriptor).__name__,
        unit="frame",
        disable=not progress,
    )
    with bar:
        while start < len(checked):
            chunk = checked[start:stop]
            n_atoms = sum(len(s) for s in chunk)
            values = descriptor.compute(
                chunk, species=species, n_threads=n_threads, progress=False
            ).values
            if len(values) != n_atoms:
                raise ValueError(
                    f"{type(descriptor).__name__} must give one row for each of "
                    f"{n_atoms} atoms, got {len(values)}"
                )
            yield values
            bar.update(len(chunk))
            n_rows = max(1, chunk_bytes // max(1, 8 * values.shape[1]))
            start = stop
            rows = 0
            while stop < len(checked) and (
                stop == start or rows + len(checked[stop]) <= n_rows
            ):
                rows += len(checked[stop])
                stop += 1


def _sliced(values, chunk_bytes):
    """Features of consecutive environments, from an array, chunk by chunk."""
    step = max(1, chunk_bytes // max(1, 8 * values.shape[1]))
    for start in range(0, len(values), step):
        yield values[start : start + step]


@dataclass(frozen=True)
class _Layout:
    """Where each environment goes.

    ``group`` and ``frame`` of each environment as it comes, and its ``row`` when
    ordered by species, then frame.
    """

    species: tuple
    counts: np.ndarray
    group: np.ndarray
    frame: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, centers, frame_index, n_frames):
        species, group = np.unique(centers, return_inverse=True)
        frame = np.asarray(frame_index, dtype=np.int64)
        if len(frame) == 0 or np.bincount(frame, minlength=n_frames).min() == 0:
            raise ValueError("every frame must have at least one environment")
        if len(np.bincount(frame)) > n_frames:
            raise ValueError(
                f"frame_index must be below n_frames = {n_frames}, got {frame.max()}"
            )
        counts = np.zeros((len(species), n_frames), dtype=np.int64)
        np.add.at(counts, (group, frame), 1)
        row = np.empty(len(frame), dtype=np.int64)
        row[np.lexsort((frame, group))] = np.arange(len(frame))
        return cls(tuple(species.tolist()), counts, group, frame, row)


def _stored(requests, source, layout, dtype):
    """Parts of a representation that rest on one descriptor."""
    parts = {}
    n_species, n_frames = layout.counts.shape
    start = 0
    for values in source:
        if not np.isfinite(values).all():
            raise ValueError("features must be finite, got NaN or infinity")
        n_features = values.shape[1]
        unit = None
        here = slice(start, start + len(values))
        start += len(values)
        for key, request in requests.items():
            chunk = values
            if request.normalize:
                unit = _unit_rows(values) if unit is None else unit
                chunk = unit
            if request.form == "scatter":
                groups = parts.setdefault(key, [_Scatter() for _ in range(n_species)])
                for group, scatter in enumerate(groups):
                    scatter.add(chunk[layout.group[here] == group])
                continue
            if request.form == "environments":
                if key not in parts:
                    parts[key] = np.empty((len(layout.row), n_features), dtype=dtype)
                parts[key][layout.row[here]] = chunk
                continue
            n_groups = n_species if request.form == "species sums" else 1
            if key not in parts:
                parts[key] = np.zeros((n_frames, n_groups, n_features))
            frame = layout.frame[here]
            first, last = frame.min(), frame.max() + 1
            group = layout.group[here] if n_groups > 1 else 0
            segment = (frame - first) * n_groups + group
            sums = _segment_sum(segment, (last - first) * n_groups, chunk)
            parts[key][first:last] += sums.reshape(last - first, n_groups, n_features)
    for key, request in requests.items():
        if request.form == "scatter":
            parts[key] = np.stack([scatter.matrix for scatter in parts[key]])[None]
    return parts


class _Scatter:
    """Σ (x − x̄)(x − x̄)ᵀ of rows that come in parts, without cancellation."""

    def __init__(self):
        self.count, self.mean, self.matrix = 0, 0.0, 0.0

    def add(self, rows):
        if len(rows) == 0:
            return
        mean = rows.mean(axis=0)
        centred = rows - mean
        total = self.count + len(rows)
        step = mean - self.mean
        weight = self.count * len(rows) / total
        self.matrix = (
            self.matrix + centred.T @ centred + weight * np.multiply.outer(step, step)
        )
        self.mean = self.mean + step * (len(rows) / total)
        self.count = total


def _unit_rows(values):
    norm = np.linalg.norm(values.astype(np.float64, copy=False), axis=1)
    return values / np.where(norm > 0, norm, 1.0)[:, None]


def _segment_sum(segment, n_segments, values):
    """Sum of the rows of each segment; always in the order of the rows."""
    n_rows = len(segment)
    ones = np.ones(n_rows)
    matrix = csr_array((ones, (segment, np.arange(n_rows))), shape=(n_segments, n_rows))
    return matrix @ values


def _power(values, degree):
    """Integer power, in place where possible: ``**`` of arrays is ten times slower."""
    result = None
    while degree:
        if degree & 1:
            result = values.copy() if result is None else np.multiply(result, values)
        degree >>= 1
        if degree:
            values = values * values
    return result


def _environment_sum(kernel, a, b, average, progress=False):
    """Kernel matrix of an environment kernel, by the cheaper exact form."""
    weight, factors = kernel._monomial()
    use_moments = len(factors) == 2 and _moments_are_cheaper(factors, a, b or a)
    if use_moments:
        values = weight * _moment_gram(factors, a, b, progress=progress)
    else:
        values = _direct_gram(kernel, a, b, progress=progress)
    if average:
        values /= a.n_atoms[:, None] * (b or a).n_atoms
    return values


def _moments_are_cheaper(factors, a, b):
    """Compare the multiply-adds of the two forms of a kernel of degree 2."""
    n_p, n_q = (_factor(a, f).shape[1] for f in factors)
    symmetric = _factor(a, factors[0]) is _factor(a, factors[1])
    n_pairs = n_p * n_q / 2 if symmetric else n_p * n_q
    n_products = (n_p if symmetric else n_p + n_q) + _ENTRY_COST
    n_environments = np.array([len(_factor(x, factors[0])) for x in (a, b)])
    if any(f.species_delta for f in factors):
        per_species = [
            a.counts[s].sum() * b.counts[b.species.index(z)].sum()
            for s, z in enumerate(a.species)
            if z in b.species
        ]
        n_groups, n_entries = len(per_species), sum(per_species)
    else:
        n_groups, n_entries = 1, n_environments.prod()
    moments = n_pairs * (
        n_environments.sum() + n_groups * a.n_structures * b.n_structures
    )
    return moments < n_entries * n_products


def _factor(representation, kernel):
    return representation.parts[kernel._request(True).key]


def _groups(a, b, delta):
    """Species that are summed together: lists of indices for ``a`` and for ``b``."""
    if not delta:
        return [(range(len(a.species)), range(len(b.species)))]
    return [
        ([s], [b.species.index(z)]) for s, z in enumerate(a.species) if z in b.species
    ]


def _moment_gram(factors, a, b, memory=None, progress=False):
    """Σ_ij (p_i · p_j)(q_i · q_j) = ⟨Σ_i p_i q_iᵀ, Σ_j p_j q_jᵀ⟩, in feature blocks."""
    other = a if b is None else b
    p_a, q_a = (_factor(a, f) for f in factors)
    p_b, q_b = (_factor(other, f) for f in factors)
    symmetric = p_a is q_a
    n_rows = a.n_structures + (0 if b is None else b.n_structures)
    memory = _MOMENT_BYTES if memory is None else memory
    width = max(1, int(np.sqrt(memory / (8 * n_rows))))
    blocks_p, blocks_q = (_even_blocks(x.shape[1], width) for x in (p_a, q_a))
    delta = any(f.species_delta for f in factors)
    values = np.zeros((a.n_structures, other.n_structures))
    # Written again for each block: fresh memory costs as much as the product.
    size = max((b.stop - b.start for b in blocks_p), default=0)
    size *= max((b.stop - b.start for b in blocks_q), default=0)
    buffer_a = np.empty(a.n_structures * size)
    buffer_b = None if b is None else np.empty(b.n_structures * size)
    tasks = [
        (*groups, block_p, block_q)
        for groups in _groups(a, other, delta)
        for i, block_p in enumerate(blocks_p)
        # p_i p_iᵀ is symmetric: blocks below the diagonal count in those above.
        for block_q in blocks_q[i if symmetric else 0 :]
    ]
    for groups_a, groups_b, block_p, block_q in _watched(tasks, progress):
        twice = symmetric and block_p != block_q
        m_A = _moments(a, groups_a, p_a[:, block_p], q_a[:, block_q], buffer_a)
        m_B = m_A
        if b is not None:
            m_B = _moments(b, groups_b, p_b[:, block_p], q_b[:, block_q], buffer_b)
        product = m_A @ m_B.T
        values += 2.0 * product if twice else product
    return values


def _watched(tasks, progress):
    return tqdm(tasks, desc="kernel", unit="block", disable=not progress)


def _even_blocks(n, width):
    """Slices of nearly equal length, at most ``width``."""
    edges = np.linspace(0, n, -(-n // width) + 1).round().astype(int)
    return [slice(int(i), int(j)) for i, j in pairwise(edges)]


def _moments(representation, groups, p_ip, q_iq, buffer):
    """Σ_{i∈A} p_i q_iᵀ of each structure, flattened: (n_frames, n_p n_q)."""
    n_frames, n_p, n_q = representation.n_structures, p_ip.shape[1], q_iq.shape[1]
    m_Apq = buffer[: n_frames * n_p * n_q].reshape(n_frames, n_p, n_q)
    # Products this small lose more than they gain from a second thread.
    with single_threaded_blas():
        _fill_moments(representation, groups, p_ip, q_iq, m_Apq)
    return m_Apq.reshape(n_frames, -1)


def _fill_moments(representation, groups, p_ip, q_iq, m_Apq):
    for order, group in enumerate(groups):
        # Contiguous copies: ten times faster than products of strided rows.
        x_ip = np.ascontiguousarray(p_ip[representation._range(group)], np.float64)
        x_iq = np.ascontiguousarray(q_iq[representation._range(group)], np.float64)
        edges = np.concatenate(([0], np.cumsum(representation.counts[group])))
        for frame, (start, stop) in enumerate(pairwise(edges.tolist())):
            if order == 0:
                np.matmul(x_ip[start:stop].T, x_iq[start:stop], out=m_Apq[frame])
            elif stop > start:
                m_Apq[frame] += x_ip[start:stop].T @ x_iq[start:stop]


def _direct_gram(kernel, a, b, block=None, progress=False):
    """Environment kernel in blocks, summed over the atoms of each structure."""
    block = _BLOCK if block is None else block
    other = a if b is None else b
    values = np.zeros((a.n_structures, other.n_structures))
    blocks_b = _environment_blocks(other, block)
    blocks_a = list(enumerate(_environment_blocks(a, block)))
    for i, (z_a, rows, segments_a) in _watched(blocks_a, progress):
        for j, (z_b, columns, segments_b) in enumerate(blocks_b):
            if b is None and j < i:
                continue
            k_ij = kernel._block(a, rows, other, columns, z_a == z_b, {})
            if k_ij is None:
                continue
            first_a, segment_a, n_a = segments_a
            first_b, segment_b, n_b = segments_b
            sums_Aj = _segment_sum(segment_a, n_a, k_ij)
            sums_BA = _segment_sum(segment_b, n_b, np.ascontiguousarray(sums_Aj.T))
            in_a = slice(first_a, first_a + n_a)
            in_b = slice(first_b, first_b + n_b)
            values[in_a, in_b] += sums_BA.T
            if b is None and j > i:
                values[in_b, in_a] += sums_BA
    return values


def _environment_blocks(representation, block):
    """Ranges of environments of one species, and the frames of their rows."""
    blocks = []
    for group, z in enumerate(representation.species):
        counts = representation.counts[group]
        frame = np.repeat(np.arange(len(counts)), counts)
        offset = representation._start(group)
        for start in range(0, len(frame), block):
            inside = frame[start : start + block]
            rows = slice(offset + start, offset + start + len(inside))
            first = int(inside[0])
            n_segments = int(inside[-1]) - first + 1
            blocks.append((z, rows, (first, inside - first, n_segments)))
    return blocks


def _environment_diagonal(kernel, representation, average):
    """Σ_{i,j∈A} k(i, j) of each structure."""
    # Products this small lose more than they gain from a second thread.
    with single_threaded_blas():
        values = _diagonal_sums(kernel, representation)
    return values / representation.n_atoms**2 if average else values


def _diagonal_sums(kernel, representation):
    values = np.zeros(representation.n_structures)
    bounds = [representation._bounds(s) for s in range(len(representation.species))]
    for frame in range(representation.n_structures):
        ranges = []
        for s, edges in enumerate(bounds):
            start, stop = int(edges[frame]), int(edges[frame + 1])
            ranges += [
                (s, slice(i, min(i + _BLOCK, stop))) for i in range(start, stop, _BLOCK)
            ]
        for s, rows in ranges:
            for t, columns in ranges:
                k_ij = kernel._block(
                    representation, rows, representation, columns, s == t, {}
                )
                if k_ij is not None:
                    values[frame] += k_ij.sum()
    return values
