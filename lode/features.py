r"""Features of structures: what kernels need of them, computed once.

Environments of one centre species in structures made of the same species are a
:class:`Block`: all of them have the same columns, those of the species that occur, and
there is no room for others. Blocks with different columns meet in those they share: the
features of a species that is not there are zero.

Indices of arrays: A structures, i environments, p features.
"""

import json
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from tqdm import tqdm

from lode.archive import Wanted, checked_arrays, load_archive, save_archive
from lode.invariants import Features
from lode.serialization import to_dict
from lode.systems import ROUNDING, structures

# Features of at most this size exist at a time while structures are described.
CHUNK_BYTES = 2**27
# Number of frames that tell how many features a descriptor of the user's own has.
_FIRST_CHUNK = 8
# Blocks are joined up to so many numbers, and times as many with zeros as without.
_LARGEST_JOINED = 2**24
_MOST_ZEROS = 16
_KIND, _VERSION = "StructureFeatures", 3
_FORMS = ("sums", "environments", "scatter")
_SAVED = {
    "keys": Wanted("text", ("key",), order="distinct"),
    "errors": Wanted("float", ("key",), low=0.0),
    "n_structures": Wanted("int", low=0),
    "neighbor_species": Wanted("int", ("species",), low=1, order="distinct"),
    "centers": Wanted("int", ("block",), low=0),
}
# Far more environments than fit into memory, and few enough to be added up.
_MOST_ENVIRONMENTS = 2**31


@dataclass(frozen=True)
class FeatureRequest:
    """What a kernel needs of a descriptor.

    ``form`` is ``"sums"`` (over each structure), ``"environments"`` or ``"scatter"``
    (of the environments of a block about their mean).
    """

    descriptor: object
    normalize: bool
    form: str

    @cached_property
    def key(self):
        """Text by which the features are found."""
        parts = [to_dict(self.descriptor), bool(self.normalize), self.form]
        return json.dumps(parts, default=lambda value: value.item())


def requests_of(descriptor, normalize):
    """What a kernel may need of a descriptor, by form."""
    return {form: FeatureRequest(descriptor, normalize, form) for form in _FORMS}


class Part(NamedTuple):
    """Features and what their columns are.

    Attributes
    ----------
    values : ndarray (n, n_features)
    columns : ndarray (n_features,) of int
        A number for each label, the same in all blocks; negative without labels, and
        such columns match those of as many features without labels only.
    form : str
        As of the :class:`FeatureRequest`.
    """

    values: np.ndarray
    columns: np.ndarray
    form: str

    def at(self, columns):
        """The values in other columns, with zeros where there are none."""
        if np.array_equal(columns, self.columns):
            return self.values
        _check_known(self.columns, columns)
        _, here, there = _common(self.columns, columns)
        values = np.zeros((len(self.values), len(columns)))
        values[:, there] = self.values[:, here]
        return values


def add_scalar_gradient(weight_ij, a, rows, b, columns, out_ip):
    """Add Σ_j weight_ij x_j to some rows, the gradient of Σ weight_ij x_i · x_j.

    Parameters
    ----------
    weight_ij : ndarray (n_rows, n_columns)
    a, rows, b, columns
        As for :func:`scalar_products`.
    out_ip : ndarray (n, n_features)
        Added to: of the features of ``a``.
    """
    add_in_columns(weight_ij @ b.values[columns], b.columns, a.columns, out_ip[rows])


def add_in_columns(values, columns, own, out):
    """Add values in some columns to an array in others, where they are the same."""
    if np.array_equal(columns, own):
        out += values
        return
    _check_known(columns, own)
    _, here, there = _common(columns, own)
    out[:, there] += values[:, here]


def scalar_products(a, rows, b, columns):
    """Scalar products of some rows of two parts, (n_rows, n_columns)."""
    x_ip, x_jp = a.values[rows], b.values[columns]
    if not np.array_equal(a.columns, b.columns):
        _check_known(a.columns, b.columns)
        _, in_a, in_b = _common(a.columns, b.columns)
        x_ip, x_jp = x_ip[:, in_a], x_jp[:, in_b]
    return x_ip.astype(np.float64, copy=False) @ x_jp.astype(np.float64, copy=False).T


def _common(a, b):
    """Columns that two sets share, and their places in both."""
    return _cached_common(a.tobytes(), b.tobytes())


# Kernels between structures of many elements meet the same sets again and again.
@lru_cache(maxsize=512)
def _cached_common(*columns):
    a, b = (np.frombuffer(c, dtype=np.int64) for c in columns)
    return np.intersect1d(a, b, assume_unique=True, return_indices=True)


def _check_known(*columns):
    """Refuse to mix columns whose labels are not known with others."""
    kinds = {len(c) if c[0] < 0 else "labelled ones" for c in columns if c.size}
    if len(kinds) > 1:
        raise ValueError(
            "features without labels must be equally many in all structures, got "
            f"{' and '.join(str(kind) for kind in kinds)}"
        )


@dataclass(frozen=True)
class Block:
    """Environments of one centre species in structures of the same species.

    Attributes
    ----------
    center : int
        Atomic number of the centres.
    structures : ndarray (n,) of int
        Structures that they are in, each once.
    counts : ndarray (n,) of int
        How many are in each.
    parts : dict of str to Part
        By :attr:`FeatureRequest.key`: sums over each structure (n, n_features);
        features of the environments (n_environments, n_features), structure by
        structure; or their scatter matrix (n_features, n_features).
    """

    center: int
    structures: np.ndarray
    counts: np.ndarray
    parts: dict

    def __len__(self):
        return int(self.counts.sum())

    @property
    def bounds(self):
        """Where the environments of each structure begin and end, (n + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])


@dataclass(frozen=True)
class StructureFeatures:
    """What a kernel needs of a set of structures.

    Made by :meth:`Kernel.precompute`; a kernel matrix needs nothing else.

    Attributes
    ----------
    blocks : tuple of Block
    n_structures : int
    neighbor_species : tuple of int
        Atomic numbers that the structures were checked against.
    errors : dict of str to float
        By :attr:`FeatureRequest.key`: by how much the features of the same environment
        may differ, relative to their size.
    weights : csr_array (n_frames, n_structures), optional
        Frames that are linear combinations of the structures; by default each
        structure is a frame.
    """

    blocks: tuple
    n_structures: int
    neighbor_species: tuple
    errors: dict
    weights: csr_array | None = None

    @property
    def n_frames(self):
        """Number of structures or, with weights, of their combinations."""
        return self.n_structures if self.weights is None else self.weights.shape[0]

    @property
    def n_atoms(self):
        """Number of environments of each structure, (n_structures,)."""
        n_atoms = np.zeros(self.n_structures, dtype=np.int64)
        for block in self.blocks:
            n_atoms[block.structures] += block.counts
        return n_atoms

    @property
    def centers(self):
        """Centre species, ascending."""
        return tuple(sorted({block.center for block in self.blocks}))

    @property
    def keys(self):
        """Keys of what is held; none without structures."""
        return tuple(self.blocks[0].parts) if self.blocks else ()

    def combined(self, weights):
        """The same structures with weighted sums of them as frames.

        Parameters
        ----------
        weights : array_like or sparse array (n_frames, n_structures)
            Row t holds the weights w of a frame Σ_t w_t S_t.

        Returns
        -------
        StructureFeatures

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

    def chosen(self, places):
        """Features of some of the structures, each a frame.

        Scatter matrices, which are of all structures together, are left out.

        Parameters
        ----------
        places : sequence of int or ndarray (n_structures,) of bool

        Returns
        -------
        StructureFeatures
        """
        places = np.asarray(places)
        if places.dtype == bool:
            places = np.flatnonzero(places)
        places = places.astype(np.int64)
        blocks = []
        for block in self.blocks:
            own = np.full(self.n_structures, -1)
            own[block.structures] = np.arange(len(block.structures))
            own = own[places]
            new = np.flatnonzero(own >= 0)
            order = own[new]
            if not len(order):
                continue
            bounds = block.bounds
            rows = np.concatenate([np.arange(bounds[k], bounds[k + 1]) for k in order])
            parts = {
                key: part._replace(
                    values=part.values[order if part.form == "sums" else rows]
                )
                for key, part in block.parts.items()
                if part.form != "scatter"
            }
            blocks.append(Block(block.center, new, block.counts[order], parts))
        described = len(places), self.neighbor_species, self.errors
        return StructureFeatures(tuple(blocks), *described)

    @classmethod
    def concatenated(cls, parts):
        """Features of the structures of several sets, one set after the other.

        Parameters
        ----------
        parts : sequence of StructureFeatures
            At least one, made by the same kernel.

        Returns
        -------
        StructureFeatures
            The same bits as those of all structures at once.

        Raises
        ------
        ValueError
            If there are no sets, if they are of different kernels, or if one holds
            combinations or scatter matrices, which are of all its structures together.
        """
        parts = list(parts)
        keys = {part.keys for part in parts if part.blocks}
        if len(keys) != 1:
            raise ValueError(
                "parts must be features made by one kernel, got those of "
                f"{len(keys)} in {len(parts)} parts"
            )
        (keys,) = keys
        if any(key.endswith('"scatter"]') for key in keys):
            raise ValueError("parts must be of single structures, got scatter matrices")
        if any(part.weights is not None for part in parts):
            raise ValueError("parts must be of single structures, got combinations")
        own, start = {}, 0
        for part in parts:
            for block in part.blocks:
                columns = [p.columns.tobytes() for p in block.parts.values()]
                moved = replace(block, structures=block.structures + start)
                own.setdefault((block.center, *columns), []).append(moved)
            start += part.n_structures
        blocks = sorted(
            map(_concatenated, own.values()), key=lambda block: block.center
        )
        species = sorted({z for part in parts for z in part.neighbor_species})
        errors = {key: max(p.errors[key] for p in parts if p.blocks) for key in keys}
        return cls(tuple(blocks), start, tuple(species), errors)

    def pruned(self, keys):
        """The same structures with some of the parts."""
        blocks = [
            replace(block, parts={key: block.parts[key] for key in keys})
            for block in self.blocks
        ]
        return replace(self, blocks=tuple(blocks))

    def joined(self):
        """The same with few blocks, if zeros in their columns take little room.

        Matrix products of many small blocks take longer than of one with zeros.

        Returns
        -------
        StructureFeatures
        """
        blocks = []
        for z in self.centers:
            own = [block for block in self.blocks if block.center == z]
            blocks += own if len(own) == 1 else _joined(own)
        return replace(self, blocks=tuple(blocks))

    def save(self, path):
        """Write to one npz file, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            Name of the file.
        """
        save_archive(path, _KIND, {"version": _VERSION}, self.to_arrays())

    @classmethod
    def load(cls, path):
        """Features written by :meth:`save`.

        Raises
        ------
        ValueError
            If the file is truncated, damaged or of another kind, or what it holds are
            no complete features.
        """
        _, arrays = load_archive(path, _KIND, _VERSION)
        return cls.from_arrays(arrays)

    def to_arrays(self):
        """The features as a dictionary of plain arrays."""
        arrays = {
            "keys": np.array(self.keys, dtype=np.str_),
            "errors": np.array([self.errors[key] for key in self.keys]),
            "n_structures": np.array(self.n_structures),
            "neighbor_species": np.array(self.neighbor_species, dtype=np.int64),
            "centers": np.array([b.center for b in self.blocks], dtype=np.int64),
        }
        for b, block in enumerate(self.blocks):
            arrays[f"structures_{b}"] = block.structures
            arrays[f"counts_{b}"] = block.counts
            for k, part in enumerate(block.parts.values()):
                arrays[f"values_{b}_{k}"] = part.values
                arrays[f"columns_{b}_{k}"] = part.columns
        if self.weights is not None:
            w = self.weights
            arrays |= {
                "weights": w.data,
                "weights_column": w.indices.astype(np.int64),
                "weights_start": w.indptr.astype(np.int64),
            }
        return arrays

    @classmethod
    def from_arrays(cls, arrays):
        """The inverse of :meth:`to_arrays`.

        Raises
        ------
        ValueError
            If they are not the arrays of features.
        """
        found = checked_arrays(arrays, _SAVED)
        n_structures, keys = int(found["n_structures"]), found["keys"].tolist()
        last = n_structures - 1
        blocks = []
        for b, center in enumerate(found["centers"].tolist()):
            n = ("structure",)
            wanted = {
                f"structures_{b}": Wanted("int", n, 0, last, "distinct"),
                f"counts_{b}": Wanted("int", n, 1, _MOST_ENVIRONMENTS),
            }
            structures, counts = checked_arrays(arrays, wanted).values()
            parts = {
                key: _saved_part(arrays, f"{b}_{k}", key, counts)
                for k, key in enumerate(keys)
            }
            blocks.append(Block(center, structures, counts, parts))
        inside = [block.structures for block in blocks] or [np.empty(0)]
        n_inside = len(np.unique(np.concatenate(inside)))
        if n_inside != n_structures:
            raise ValueError(
                f"each of {n_structures} structures must have environments, got those "
                f"of {n_inside}"
            )
        weights = None
        if "weights" in arrays:
            wanted = {
                "weights": Wanted("float", ("term",)),
                "weights_column": Wanted("int", ("term",), 0, last),
                "weights_start": Wanted("int", ("edge",), 0),
            }
            data, column, start = checked_arrays(arrays, wanted).values()
            shape = (len(start) - 1, n_structures)
            weights = csr_array((data, column, start), shape=shape)
            weights.check_format()
        species = tuple(found["neighbor_species"].tolist())
        errors = dict(zip(keys, found["errors"].tolist(), strict=True))
        return cls(tuple(blocks), n_structures, species, errors, weights)


def _saved_part(arrays, place, key, counts):
    """Part of a block in a file; its form is the end of its key."""
    form = next((form for form in _FORMS if key.endswith(f'"{form}"]')), None)
    if form is None:
        raise ValueError(f"keys must end with one of {_FORMS}, got {key!r}")
    rows = {"sums": len(counts), "environments": int(counts.sum())}
    shape = ("column" if form == "scatter" else "row", "column")
    wanted = {
        f"values_{place}": Wanted("float", shape),
        f"columns_{place}": Wanted("int", ("column",), order="distinct"),
    }
    return Part(*checked_arrays(arrays, wanted, row=rows.get(form)).values(), form)


def _concatenated(blocks):
    """Blocks of one centre species with the same columns as one."""
    parts = {
        key: part._replace(values=np.concatenate([b.parts[key].values for b in blocks]))
        for key, part in blocks[0].parts.items()
    }
    structures, counts = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("structures", "counts")
    )
    return Block(blocks[0].center, structures, counts, parts)


def _joined(blocks):
    """Blocks of one centre species as one, unless it would be many times as large."""
    parts, size = {}, 0
    for key, part in blocks[0].parts.items():
        if part.form == "scatter":
            continue
        own = [block.parts[key] for block in blocks]
        columns = np.unique(np.concatenate([p.columns for p in own]))
        parts[key] = own, columns, part.form
        size += len(columns) * sum(len(p.values) for p in own)
    least = sum(p.values.size for own, *_ in parts.values() for p in own)
    if size > min(_LARGEST_JOINED, _MOST_ZEROS * least):
        return blocks
    parts = {
        key: Part(np.concatenate([p.at(columns) for p in own]), columns, form)
        for key, (own, columns, form) in parts.items()
    }
    structures, counts = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("structures", "counts")
    )
    return [Block(blocks[0].center, structures, counts, parts)]


def holds_features(frames):
    """Whether frames are features already, of structures or of environments."""
    if isinstance(frames, Features | StructureFeatures):
        return True
    return isinstance(frames, list | tuple) and isinstance(
        next(iter(frames), None), Features
    )


def structure_features(requests, frames, species, atoms, storage, options):
    """Features that are requested, of structures or from features of environments.

    Parameters
    ----------
    requests : dict of str to FeatureRequest
    frames : anything that holds structures, or Features
        Of features one set for each of the different descriptors, in their order.
    species, atoms
        As for :meth:`lode.kernels.Kernel.precompute`.
    storage : (dtype, int)
        ``dtype`` and ``chunk_bytes`` of the same.
    options : dict
        ``n_threads`` and ``progress`` of the same.

    Returns
    -------
    StructureFeatures

    Raises
    ------
    ValueError
        As :meth:`lode.kernels.Kernel.precompute`.
    """
    descriptors, (dtype, chunk_bytes) = distinct_descriptors(requests), storage
    if holds_features(frames):
        if atoms is not None:
            raise ValueError("atoms must be None where features are given")
        given = [frames] if isinstance(frames, Features) else list(frames)
        _check_given(given, len(descriptors), species)
        first, weights = given[0], None
        known, n_structures = _neighbor_species(first), first.n_frames
        sources = [_sliced(f, chunk_bytes) for f in given]
        layout = _Layout(first.species, first.frame_index, np.arange(n_structures))
        blocks = _blocks(requests, descriptors, sources, layout, dtype)
        found = [_relative_error(d) for d in descriptors]
    else:
        inputs = structures(frames, combinations=True)
        weights, n_structures = inputs.weights, len(inputs)
        known, _ = inputs.channels(species)
        for descriptor in descriptors:
            # Here an error names the frame as it was given.
            if hasattr(descriptor, "channels"):
                descriptor.channels(inputs, known)
        if atoms is not None:
            atoms, n_atoms = np.asarray(atoms), len(inputs.species)
            if atoms.dtype != bool or atoms.shape != (n_atoms,):
                raise ValueError(
                    f"atoms must be a mask of {n_atoms} atoms, got {atoms.dtype} of "
                    f"shape {atoms.shape}"
                )
            rank = np.cumsum(atoms) - 1
            weights, n_structures = None, int(np.sum(atoms))
        start = np.cumsum(inputs.sizes) - inputs.sizes
        found = [_relative_error(d, inputs) for d in descriptors]
        blocks = []
        for members in species_groups(inputs):
            part = inputs.chosen(members)
            rows = np.concatenate(
                [np.arange(start[m], start[m] + inputs.sizes[m]) for m in members]
            )
            taken = None if atoms is None else atoms[rows]
            if taken is None:
                layout = _Layout(part.species, part.frame_index, members)
            else:
                own = np.arange(int(taken.sum()))
                layout = _Layout(part.species[taken], own, rank[rows][taken])
            sources = [
                _computed(d, part, known, taken, options, chunk_bytes)
                for d in descriptors
            ]
            blocks += _blocks(requests, descriptors, sources, layout, dtype)
        blocks.sort(key=lambda block: block.center)
    smallest = float(np.finfo(dtype).eps)
    errors = {
        key: max(found[descriptors.index(request.descriptor)], smallest)
        for key, request in requests.items()
    }
    described = n_structures, tuple(known), errors
    return StructureFeatures(tuple(blocks), *described, weights)


def _relative_error(descriptor, inputs=None):
    """Error of features, of a descriptor of the user's own their rounding."""
    if hasattr(descriptor, "relative_error"):
        return descriptor.relative_error(inputs)
    return ROUNDING if inputs is None else inputs.rounding


def distinct_descriptors(requests):
    """The different descriptors of requests, in the order of their first use."""
    descriptors = []
    for request in requests.values():
        if request.descriptor not in descriptors:
            descriptors.append(request.descriptor)
    return tuple(descriptors)


def species_groups(inputs):
    """Structures made of the same species, ascending."""
    members = {}
    for i, system in enumerate(inputs):
        members.setdefault(tuple(np.unique(system.species).tolist()), []).append(i)
    return [np.array(group) for group in members.values()]


def _neighbor_species(features):
    return tuple(int(z) for z in features.neighbor_species)


def _check_given(given, n_descriptors, species):
    """Refuse sets of features that are not of the same environments."""
    if len(given) != n_descriptors:
        raise ValueError(
            f"the kernel needs features of {n_descriptors} descriptors, got "
            f"{len(given)} sets"
        )
    first = given[0]
    frame = np.asarray(first.frame_index)
    if not len(frame) or np.bincount(frame, minlength=first.n_frames).min() == 0:
        raise ValueError("every frame must have at least one environment")
    if frame.max() >= first.n_frames:
        raise ValueError(
            f"frame_index must be below n_frames = {first.n_frames}, got {frame.max()}"
        )
    for features in given:
        if np.ndim(features.values) != 2:
            raise ValueError(
                "features must be invariant, of shape (n_environments, n_features), "
                f"got {type(features).__name__} of shape {np.shape(features.values)}"
            )
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


def _column_numbers(features):
    """A number for each column, the same wherever its label is."""
    labels = getattr(features, "labels", None)
    names = getattr(getattr(labels, "dtype", None), "names", None)
    n_features = features.values.shape[-1]
    unknown = np.arange(-n_features, 0)
    if not names or len(labels) != n_features:
        return unknown
    bits = 63 // len(names)
    columns = np.zeros(n_features, dtype=np.int64)
    for name in names:
        field = labels[name]
        if field.dtype.kind not in "iu" or not np.all((field >= 0) & (field < 2**bits)):
            return unknown
        columns = (columns << bits) | field.astype(np.int64)
    return columns if len(np.unique(columns)) == n_features else unknown


def _computed(descriptor, part, known, taken, options, chunk_bytes):
    """Features of consecutive environments, chunk by chunk, and their columns."""
    if hasattr(descriptor, "chunks"):
        present = set(part.species.tolist())
        species = tuple(z for z in known if z in present)
        chunks = descriptor.chunks(part, memory=chunk_bytes, species=species, **options)
    else:
        # A descriptor of the user's own: whole frames, and species as it likes.
        chunks = _whole_frames(descriptor, part, known, options, chunk_bytes)
    start, columns = 0, None
    for features in chunks:
        values = features.values
        rows = slice(start, start + len(values))
        start = rows.stop
        columns = _column_numbers(features) if columns is None else columns
        yield (values if taken is None else values[taken[rows]]), columns


def _whole_frames(descriptor, part, known, options, chunk_bytes):
    stop, start = min(_FIRST_CHUNK, len(part)), 0
    name, n_threads = type(descriptor).__name__, options["n_threads"]
    hidden = not options["progress"]
    with tqdm(total=len(part), desc=name, unit="frame", disable=hidden) as bar:
        while start < len(part):
            chunk = part.chosen(range(start, stop))
            features = descriptor.compute(
                list(chunk), species=known, n_threads=n_threads, progress=False
            )
            n_rows = len(features.values)
            if n_rows != len(chunk.species):
                raise ValueError(
                    f"{name} must give one row for each of {len(chunk.species)} atoms, "
                    f"got {n_rows}"
                )
            yield features
            bar.update(len(chunk))
            most = max(1, chunk_bytes // max(1, 8 * features.values.shape[1]))
            start = stop
            n_atoms = np.cumsum(part.sizes[start:])
            stop += max(1, int(np.searchsorted(n_atoms, most, "right")))
            stop = min(stop, len(part))


def _sliced(features, chunk_bytes):
    """Features of consecutive environments, from an array, chunk by chunk."""
    values, columns = features.values, _column_numbers(features)
    step = max(1, chunk_bytes // max(1, 8 * values.shape[1]))
    for start in range(0, len(values), step):
        yield values[start : start + step], columns


class _Layout:
    """Where each environment goes.

    ``group`` is its block, ``place`` its structure within the block, and ``row`` its
    place among the environments of the block.

    Parameters
    ----------
    centers, frame : ndarray (n_environments,) of int
        Species of each environment and its structure, counted in these.
    structures : ndarray of int
        Which of all structures these are, ascending.
    """

    def __init__(self, centers, frame, structures):
        self.species, self.group = np.unique(centers, return_inverse=True)
        frame = np.asarray(frame, dtype=np.int64)
        counts = np.zeros((len(self.species), len(structures)), dtype=np.int64)
        np.add.at(counts, (self.group, frame), 1)
        self.structures = [structures[n > 0] for n in counts]
        self.counts = [n[n > 0] for n in counts]
        # Place of each structure in the block, and of each environment.
        place = np.cumsum(counts > 0, axis=1) - 1
        self.place = place[self.group, frame]
        order = np.lexsort((frame, self.group))
        first = np.concatenate([[0], np.cumsum(counts.sum(axis=1))])
        self.row = np.empty(len(frame), dtype=np.int64)
        self.row[order] = np.arange(len(frame)) - first[self.group[order]]


def _blocks(requests, descriptors, sources, layout, dtype):
    """Blocks of environments, with what is requested of all descriptors."""
    parts = [{} for _ in layout.species]
    for descriptor, source in zip(descriptors, sources, strict=True):
        own = {k: r for k, r in requests.items() if r.descriptor == descriptor}
        for found, part in zip(parts, _parts(own, source, layout, dtype), strict=True):
            found.update(part)
    # In the order of the requests, whatever the order of the descriptors.
    return [
        Block(
            int(z),
            layout.structures[g],
            layout.counts[g],
            {k: part[k] for k in requests},
        )
        for g, (z, part) in enumerate(zip(layout.species, parts, strict=True))
    ]


def _parts(requests, source, layout, dtype):
    """Parts of each block that rest on one descriptor."""
    n_blocks = len(layout.species)
    stored = [{} for _ in range(n_blocks)]
    start, columns = 0, None
    for values, numbers in source:
        columns = numbers
        if not np.isfinite(values).all():
            raise ValueError("features must be finite, got NaN or infinity")
        n_features = values.shape[1]
        unit = None
        in_chunk = slice(start, start + len(values))
        start += len(values)
        for key, request in requests.items():
            chunk = values
            if request.normalize:
                unit = _unit_rows(values) if unit is None else unit
                chunk = unit
            for g in range(n_blocks):
                rows = np.flatnonzero(layout.group[in_chunk] == g)
                if not len(rows):
                    continue
                block_rows, place = chunk[rows], layout.place[in_chunk][rows]
                if request.form == "scatter":
                    stored[g].setdefault(key, Scatter()).add(block_rows)
                    continue
                if request.form == "environments":
                    shape = (int(layout.counts[g].sum()), n_features)
                    if key not in stored[g]:
                        stored[g][key] = np.empty(shape, dtype=dtype)
                    stored[g][key][layout.row[in_chunk][rows]] = block_rows
                    continue
                if key not in stored[g]:
                    stored[g][key] = np.zeros((len(layout.counts[g]), n_features))
                first, last = place.min(), place.max() + 1
                sums = segment_matrix(place - first, last - first) @ block_rows
                stored[g][key][first:last] += sums
    return [
        {
            key: Part(
                parts[key].matrix if request.form == "scatter" else parts[key],
                columns,
                request.form,
            )
            for key, request in requests.items()
        }
        for parts in stored
    ]


class Scatter:
    """Σ (x − x̄)(x − x̄)ᵀ of rows that come in parts, without cancellation."""

    def __init__(self):
        self.count, self.mean, self.matrix = 0, 0.0, 0.0

    def add(self, rows):
        """Add some rows."""
        rows = rows.astype(np.float64, copy=False)
        mean = rows.mean(axis=0)
        centred = rows - mean
        self.join(len(rows), mean, centred.T @ centred)

    def join(self, count, mean, matrix):
        """Add the scatter matrix of some rows about their mean."""
        total = self.count + count
        step = mean - self.mean
        weight = self.count * count / total
        self.matrix = self.matrix + matrix + weight * np.multiply.outer(step, step)
        self.mean = self.mean + step * (count / total)
        self.count = total


def _unit_rows(values):
    norm = np.linalg.norm(values.astype(np.float64, copy=False), axis=1)
    return values / np.where(norm > 0, norm, 1.0)[:, None]


def segment_matrix(segment, n_segments):
    """Matrix that sums the rows of each segment; always in the order of the rows."""
    n_rows = len(segment)
    places = segment, np.arange(n_rows)
    return csr_array((np.ones(n_rows), places), shape=(n_segments, n_rows))
