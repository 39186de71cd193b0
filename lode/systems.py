"""From ``ase.Atoms`` to validated arrays; input errors are raised here."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from lode.combinations import LinearCombination
from lode.core import lattice as core
from lode.parallel import thread_count

_NO_CHARGES = np.empty(0)
# Share of a cell in the volume of a box of its edges, below which it is reduced, and
# below which its vectors count as dependent.
_SKEWED = 0.5
_SMALLEST_SHARE = 1e-6
_PERIODS = {
    1: "a vector that is not zero",
    2: "two linearly independent vectors",
    3: "three linearly independent vectors",
}
# Channels of calls with at most this many atoms are cached.
_MOST_CACHED = 4096
# Finite structures are concatenated up to this many atoms.
_GROUP_ATOMS = 256
# Groups of them for each thread.
_GROUPS_PER_THREAD = 2
_EPSILON = np.finfo(np.float64).eps
# Relative rounding of features, and for each Å of the coordinates: bounds of what was
# measured on molecules and crystals that were turned and shifted.
ROUNDING = 64.0 * _EPSILON
_ROUNDING_PER_LENGTH = 4.0 * _EPSILON
# Least centres per thread: waking one takes as long as some of them.
LEAST_CENTERS = 64


@dataclass(frozen=True)
class Sources:
    """Which field each atom adds to, and with which weight.

    Attributes
    ----------
    channel_i : ndarray (n_atoms,) of int
        Place of its field among those that are expanded.
    weight_i : ndarray (n_atoms,)
        What its field is multiplied with: one, or its charge.
    n_channels : int
        Number of fields.
    """

    channel_i: np.ndarray
    weight_i: np.ndarray
    n_channels: int


@dataclass(frozen=True)
class System:
    """One structure, or several finite ones concatenated.

    Attributes
    ----------
    positions : ndarray (n_atoms, 3)
        In Å; wrapped into the cell along its periodic vectors.
    cell : ndarray (3, 3)
        Rows are the lattice vectors in Å, of a very skewed cell shorter ones of its
        lattice; zero if finite. The other vectors of a slab or a wire are orthogonal
        to them, as long as the atoms extend and at least 1 Å.
    pbc : tuple of bool
        Which of the three vectors are periods.
    species : ndarray (n_atoms,) of int
        Atomic numbers.
    charges : ndarray (n_atoms,) or None
        Charges of the atoms in e, ``None`` if a structure comes without.
    sizes : tuple of int
        Atoms of each of several structures, which do not see each other; empty if
        there is one.
    inverse : ndarray (3, 3)
        Of the cell, in 1/Å; zero if finite.
    volume : float
        Of the cell in Å³; zero if finite.
    """

    positions: np.ndarray
    cell: np.ndarray
    pbc: tuple
    species: np.ndarray
    charges: np.ndarray | None = None
    sizes: tuple = ()
    inverse: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    volume: float = 0.0

    def __len__(self):
        return len(self.positions)

    @property
    def finite(self):
        """Whether no direction is periodic."""
        return not any(self.pbc)

    @property
    def periodic(self):
        """Whether all three directions are."""
        return all(self.pbc)

    @cached_property
    def heights(self):
        """Distances of opposite faces of the cell in Å, three floats."""
        columns = zip(*self.inverse.tolist(), strict=True)
        return tuple(1.0 / math.hypot(*column) for column in columns)


def finite_array(value, shape, name, where=""):
    """Float64 array of the given shape whose squares are finite numbers.

    Parameters
    ----------
    value : array_like
        What came.
    shape : tuple of int or None
        What is wanted; ``None`` leaves a length open.
    name : str
        Name of the quantity in the error.
    where : str
        Ends the error, for example ``" (frame 3)"``.

    Raises
    ------
    ValueError
        If the shape differs, or an entry is masked, complex, not finite or larger
        than 1e150; the error names the first.
    """
    array = _shaped(value, shape, name, where)
    # Where caches are cold NumPy takes ten times as long for some atoms.
    if not core.all_bounded(array.ravel()):
        index = _first(~(np.abs(array) <= core.LARGEST))
        wanted = f"at most {core.LARGEST:g}" if np.isfinite(array[index]) else "finite"
        raise ValueError(
            f"{name} must be {wanted}, got {array[index]} at index {index}{where}"
        )
    return array


def _shaped(value, shape, name, where):
    """As :func:`finite_array`, but of any real numbers, NaN included."""
    if type(value) is not np.ndarray or value.dtype.char != "d":
        value = _real(value, name, where)
    # Bytes in the other order have the same kind.
    array = np.ascontiguousarray(value, dtype=np.float64)
    if array.shape != shape and (
        array.ndim != len(shape)
        or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True))
    ):
        wanted = "(" + ", ".join("n" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}{where}")
    return array


def _real(value, name, where):
    """Numbers of any kind as a float64 array."""
    # NumPy would take what lies below the mask.
    index = _masked(value)
    if index is not None:
        raise ValueError(f"{name} must not be masked, as at index {index}{where}")
    try:
        array = np.asarray(value)
        is_complex = array.dtype.kind == "c" and array.size > 0
        if not is_complex:
            return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be an array of numbers{where}: {error}"
        ) from None
    index = _first(array.imag != 0.0)
    raise ValueError(f"{name} must be real, got {array[index]} at index {index}{where}")


def _masked(value):
    """Index of the first masked entry of an array or of lists of arrays, or None."""
    if np.ma.isMaskedArray(value):
        masked = np.ma.getmaskarray(value)
        return _first(masked) if masked.any() else None
    for i, row in enumerate(value if isinstance(value, list | tuple) else ()):
        index = _masked(row)
        if index is not None:
            return (i, *index)
    return None


def _first(flags):
    """Index of the first true entry, of the first of all if there is none."""
    return tuple(int(i) for i in np.unravel_index(flags.argmax(), flags.shape))


def whole_number(value, low, high, name):
    """Checked integer from ``low`` to ``high``.

    Raises
    ------
    ValueError
        If it is anything else, NaN and ``True`` included.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or int(value) != value:
        raise ValueError(
            f"{name} must be a whole number from {low} to {high}, got {value}"
        )
    return int(value)


def check_flags(instance, *names):
    """Refuse attributes that are neither true nor false.

    Raises
    ------
    ValueError
        If one is anything else.
    """
    for name in names:
        value = getattr(instance, name)
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False, got {value!r}")


def positive_number(value, name):
    """Checked finite number above zero.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        number = math.inf
    if not 0.0 < number < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return number


def atomic_numbers(species):
    """Checked species: different positive whole numbers, at least one, as given.

    Raises
    ------
    ValueError
        If they are anything else.
    """
    species = tuple(species)
    numbers = [isinstance(z, Real) and z >= 1 and int(z) == z for z in species]
    if not species or not all(numbers) or len(set(species)) != len(species):
        raise ValueError(
            f"species must be different atomic numbers, got {list(species)}"
        )
    return tuple(int(z) for z in species)


def cell_array(cell, where=""):
    """Checked lattice vectors, shape (3, 3), in Å.

    Raises
    ------
    ValueError
        If the cell is zero, singular, not finite or of another shape, or if a vector
        of its lattice is shorter than 0.1 Å.
    """
    cell = finite_array(cell, (3, 3), "cell", where)
    _compact(cell, cell, (True, True, True), where)
    return cell


def _compact(vectors, cell, pbc, where):
    """The vectors, or shorter ones of their lattice if they are very skewed.

    The error names those of the cell that are periods.
    """
    for _ in range(2):
        *_, share, _ = core.into_cell(np.zeros((0, 3)), vectors, _NO_CHARGES)
        # Not a number if an edge is longer than numbers are.
        if not share >= _SMALLEST_SHARE:
            rows = zip(range(3), cell.tolist(), pbc, strict=True)
            got = [f"cell[{i}] = {row}" for i, row, is_period in rows if is_period]
            raise ValueError(
                f"a periodic cell must have {_PERIODS[len(got)]} and none shorter than "
                f"{core.SHORTEST} Å in its lattice, got {', '.join(got)}{where}"
            )
        if share >= _SKEWED:
            break
        vectors = core.reduced_cell(vectors)
    return vectors


def system(atoms, where=""):
    """Checked arrays of one structure.

    Parameters
    ----------
    atoms : ase.Atoms
        Periodic along any of the vectors of its cell, the others of which are ignored;
        with or without initial charges.
    where : str
        Ends each error message.

    Returns
    -------
    System

    Raises
    ------
    TypeError
        If ``atoms`` is not an ``ase.Atoms``.
    ValueError
        If there are no atoms, a number is not finite, an atomic number is not
        positive, or the periodic vectors of the cell are not independent or too short.
    """
    if isinstance(atoms, System):
        return atoms
    try:
        positions, numbers, pbc = atoms.positions, atoms.numbers, atoms.pbc
        cell, arrays = atoms.cell, atoms.arrays
    except AttributeError:
        raise TypeError(
            f"a frame must be an ase.Atoms, got {type(atoms).__name__}{where}"
        ) from None
    n = len(atoms)
    if n == 0:
        raise ValueError(f"a frame must have at least one atom, got none{where}")
    positions = _shaped(positions, (n, 3), "positions", where)
    # ASE's own getter gives zeros where nothing was set.
    charges = arrays.get("initial_charges", _NO_CHARGES)
    if charges is not _NO_CHARGES:
        charges = _shaped(charges, (n,), "charges", where)
    pbc = tuple(np.asarray(pbc, dtype=bool).tolist())
    if all(pbc):
        cell = _shaped(cell.array, (3, 3), "cell", where)
        found = core.into_cell(positions, cell, charges)
        if not found[3] >= _SKEWED:
            cell = finite_array(cell, (3, 3), "cell", where)
            # Images are as many as the vectors are long.
            cell = _compact(cell, cell, pbc, where)
            found = core.into_cell(positions, cell, charges)
        inside, inverse, volume, _, valid = found
    else:
        inside = positions.copy()
        cell = inverse = np.zeros((3, 3))
        volume = 0.0
        valid = core.all_bounded(positions.ravel()) and core.all_bounded(charges)
    if not valid:
        finite_array(positions, (n, 3), "positions", where)
        finite_array(charges, charges.shape, "charges", where)
    if any(pbc) and not all(pbc):
        cell = _completed_cell(atoms.cell.array, pbc, positions, where)
        inverse, volume = core.inverted(cell)
        volume = abs(volume)
        inside -= (np.floor(positions @ inverse) * pbc) @ cell
    species = np.array(numbers, dtype=np.int64)
    if species.min() < 1:
        raise ValueError(
            f"atomic numbers must be positive, got {species.min()} at index "
            f"{species.argmin()}{where}"
        )
    charges = None if charges is _NO_CHARGES else charges
    return System(inside, cell, pbc, species, charges, (), inverse, volume)


def check_volume(checked, where=""):
    """Refuse a stress where there is no volume.

    Raises
    ------
    ValueError
        If a direction is not periodic.
    """
    if not checked.periodic:
        raise ValueError(
            "stress needs frames that are periodic in three directions, got pbc = "
            f"{list(checked.pbc)}{where}"
        )


def check_boundary(checked, margin, where=""):
    """Refuse a slab or a wire, of which no sum of potentials is known.

    Parameters
    ----------
    checked : System
    margin : float
        How far from the atoms the potential counts, in Å.
    where : str
        Ends the error.

    Raises
    ------
    ValueError
        If one or two directions are periodic; it says which box would do.
    """
    if checked.finite or checked.periodic:
        return
    # What varies along a period a falls as exp(-2 pi d / a) with the distance d: below
    # 1e-5 after twice the period.
    lengths = np.linalg.norm(checked.cell[list(checked.pbc)], axis=1)
    others = [f"cell[{i}]" for i in range(3) if not checked.pbc[i]]
    raise ValueError(
        "potentials need frames that are periodic in all three directions or in none, "
        f"got pbc = {list(checked.pbc)}{where}; put it into a box with pbc = True and "
        f"{' and '.join(others)} orthogonal to the periods, with at least "
        f"{2.0 * lengths.max() + margin:.1f} Å of vacuum and as long in all frames"
    )


def _completed_cell(cell, pbc, positions, where):
    """Lattice vectors of a slab or a wire, and others in place of missing periods."""
    is_period = np.array(pbc)
    cell = _shaped(cell, (3, 3), "cell", where)
    # Nothing counts of the other vectors, not even that they are numbers.
    periods = np.where(is_period[:, None], cell, 0.0)
    periods = finite_array(periods, (3, 3), "cell", where)[is_period]
    n = len(periods)
    # An orthonormal basis, of which the first vectors span the periods.
    normals = np.linalg.qr(periods.T, mode="complete")[0].T[n:]
    # Longer than the periods, hence last in a reduced cell.
    longest = max(1.0, np.linalg.norm(periods, axis=1).max())
    completed = np.concatenate([periods, longest * normals])
    completed = _compact(completed, cell, pbc, where)
    extents = np.maximum(np.ptp(positions @ normals.T, axis=0), 1.0)
    result = np.empty((3, 3))
    result[is_period] = completed[:n]
    result[~is_period] = extents[:, None] * normals
    return result


@dataclass(frozen=True, eq=False)
class Structures:
    """Structures that were checked once: what descriptors, kernels and models pass on.

    Attributes
    ----------
    systems : tuple of System
    weights : csr_array (n_frames, n_structures) or None
        Frames that are linear combinations of the structures; ``None`` if each
        structure is a frame.
    """

    systems: tuple
    weights: csr_array | None = None

    def __len__(self):
        return len(self.systems)

    def __iter__(self):
        return iter(self.systems)

    def __getitem__(self, place):
        return self.systems[place]

    @property
    def n_frames(self):
        """Number of structures or, with weights, of their combinations."""
        return len(self) if self.weights is None else self.weights.shape[0]

    @cached_property
    def sizes(self):
        """Number of atoms of each structure, (n_structures,)."""
        return np.array([len(s) for s in self.systems])

    @cached_property
    def species(self):
        """Atomic number of each atom of all structures, (n_atoms,)."""
        if len(self) == 1:
            return self.systems[0].species
        return np.concatenate([s.species for s in self.systems])

    @cached_property
    def rounding(self):
        """Relative rounding of features: of sums over atoms, and of coordinates."""
        largest = max(float(np.abs(s.positions).max()) for s in self.systems)
        of_sums = _EPSILON * float(self.sizes.max())
        return ROUNDING + of_sums + _ROUNDING_PER_LENGTH * largest

    @cached_property
    def frame_index(self):
        """Structure of each atom, (n_atoms,)."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @cached_property
    def atom_index(self):
        """Place of each atom in its structure, (n_atoms,)."""
        first = np.cumsum(self.sizes) - self.sizes
        return np.arange(len(self.species)) - np.repeat(first, self.sizes)

    def chosen(self, places):
        """Some of the structures, each a frame.

        Parameters
        ----------
        places : sequence of int

        Returns
        -------
        Structures
        """
        return Structures(tuple(self.systems[i] for i in places))

    def frames(self, places):
        """Some of the frames: of linear combinations, with the structures they need.

        Parameters
        ----------
        places : sequence of int

        Returns
        -------
        Structures
        """
        if self.weights is None:
            return self.chosen(places)
        weights = self.weights[places]
        # In the order of their first use, as if the others had not been given.
        _, first = np.unique(weights.indices, return_index=True)
        needed = weights.indices[np.sort(first)]
        return Structures(self.chosen(needed).systems, weights[:, needed])

    def ranges(self, n_atoms):
        """Places of consecutive structures of at most so many atoms, or of one.

        Yields
        ------
        range
        """
        start, total = 0, 0
        for stop, size in enumerate(self.sizes.tolist()):
            if total and total + size > n_atoms:
                yield range(start, stop)
                start, total = stop, 0
            total += size
        yield range(start, len(self))

    def channels(self, species=None):
        """Species in use, and the place of each atom's species among them.

        Parameters
        ----------
        species : sequence of int, optional
            Atomic numbers to use; by default all that occur, in ascending order.

        Returns
        -------
        species : tuple of int
        channel_i : ndarray (n_atoms,) of int

        Raises
        ------
        ValueError
            If an atom's species is not among ``species``, or these are not different
            atomic numbers.
        """
        if species is not None:
            species = atomic_numbers(species)
        if len(self.species) > _MOST_CACHED:
            return _channels(self.species, species)
        species, channel_i = _cached_channels(self.species.tobytes(), species)
        return species, channel_i.copy()

    def batches(self, channel_i, n_threads=None):
        """What is computed in one call: a structure, or small finite ones together.

        Many batches are computed beside each other, each on one thread; few one after
        the other on all threads.

        Parameters
        ----------
        channel_i : ndarray (n_atoms,) of int
            As from :meth:`channels`.
        n_threads : int, optional

        Returns
        -------
        batches : list of Batch
        at_once : int
            How many at a time.
        """
        threads = thread_count(n_threads)
        batches, stop = [], 0
        for group in self._groups(threads):
            system = concatenated(self.systems[group])
            rows = slice(stop, stop + len(system))
            stop = rows.stop
            batches.append(Batch(rows, system, channel_i[rows]))
        # A structure that is too small to be cut would leave threads idle.
        largest = max(len(batch.system) for batch in batches)
        if len(batches) >= threads or largest < 2 * LEAST_CENTERS:
            return batches, threads
        return [batch._replace(n_threads=threads) for batch in batches], 1

    def _groups(self, threads):
        """Runs of structures computed together: small finite ones, or a single one."""
        # Enough runs for all threads.
        finite = [s.finite for s in self.systems]
        total = int(self.sizes @ finite)
        most = min(
            _GROUP_ATOMS,
            max(1, total // (_GROUPS_PER_THREAD * threads if threads > 1 else 1)),
        )
        start = n_atoms = 0
        for stop in range(1, len(self) + 1):
            n_atoms += len(self[stop - 1])
            last = stop == len(self)
            if (
                last
                or not finite[stop]
                or not finite[stop - 1]
                or n_atoms + len(self[stop]) > most
            ):
                yield slice(start, stop)
                start, n_atoms = stop, 0


class Batch(NamedTuple):
    """Structures that are computed in one call.

    Attributes
    ----------
    rows : slice
        Their atoms among those of all structures.
    system : System
    channel_i : ndarray (n_atoms,) of int
    n_threads : int
        Threads inside the call.
    """

    rows: slice
    system: System
    channel_i: np.ndarray
    n_threads: int = 1

    @property
    def n_structures(self):
        """How many structures they are."""
        return max(1, len(self.system.sizes))


def structures(frames, combinations=False):
    """Structures from whatever holds some, each checked once.

    Parameters
    ----------
    frames : ase.Atoms, iterable of ase.Atoms or of LinearCombination, or Structures
        What to convert; a :class:`Structures` is returned unchanged.
    combinations : bool
        Whether linear combinations are taken. A structure that occurs in several of
        them, as the same object, is one.

    Returns
    -------
    Structures

    Raises
    ------
    TypeError, ValueError
        As :func:`system`, naming the frame; also for an empty list, or if only some
        of the frames are linear combinations.
    """
    if isinstance(frames, Structures):
        return frames
    if isinstance(frames, System) or hasattr(frames, "positions"):
        return Structures((system(frames),))
    if not isinstance(frames, Iterable) or isinstance(frames, str):
        raise TypeError(
            "frames must be an ase.Atoms or a sequence of them, got "
            f"{type(frames).__name__}"
        )
    frames = list(frames)
    if not frames:
        raise ValueError("frames must hold at least one structure, got an empty list")
    weights = None
    if combinations and any(isinstance(f, LinearCombination) for f in frames):
        frames, weights = _distinct(frames)
    where = "frame" if weights is None else "structure"
    checked = [system(atoms, f" ({where} {i})") for i, atoms in enumerate(frames)]
    return Structures(tuple(checked), weights)


def _distinct(frames):
    """Structures that combinations are made of, each once, and the weights."""
    distinct, place = [], {}
    values, columns, starts = [], [], [0]
    for frame in frames:
        if not isinstance(frame, LinearCombination):
            raise TypeError(
                "frames must be linear combinations all or none, got "
                f"{type(frame).__name__} among them"
            )
        for atoms, weight in zip(frame.structures, frame.weights, strict=True):
            if id(atoms) not in place:
                place[id(atoms)] = len(distinct)
                distinct.append(atoms)
            values.append(weight)
            columns.append(place[id(atoms)])
        starts.append(len(columns))
    shape = (len(frames), len(distinct))
    return distinct, csr_array((values, columns, starts), shape=shape)


def concatenated(checked):
    """Structures as one, in which they do not see each other.

    Parameters
    ----------
    checked : sequence of System
        One of any kind, or several finite ones.

    Returns
    -------
    System
    """
    if len(checked) == 1:
        return checked[0]
    positions, species = (
        np.concatenate([getattr(s, name) for s in checked])
        for name in ("positions", "species")
    )
    charges = [s.charges for s in checked]
    charges = None if any(c is None for c in charges) else np.concatenate(charges)
    sizes = tuple(len(s) for s in checked)
    return System(positions, checked[0].cell, checked[0].pbc, species, charges, sizes)


def _channels(numbers, species):
    """As :meth:`Structures.channels`, of the atomic numbers."""
    present = np.unique(numbers).tolist()
    if species is None:
        species = tuple(present)
    unknown = sorted(set(present) - set(species))
    if unknown:
        raise ValueError(
            f"species must be among {sorted(species)}, got unknown {unknown}"
        )
    lookup = np.full(max(species) + 1, -1)
    lookup[list(species)] = np.arange(len(species))
    return species, lookup[numbers]


@lru_cache(maxsize=16)
def _cached_channels(numbers, species):
    """Frames of a trajectory have the same atoms, given as bytes."""
    return _channels(np.frombuffer(numbers, dtype=np.int64), species)
