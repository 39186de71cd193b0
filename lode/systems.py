"""From ``ase.Atoms`` to validated arrays; input errors are raised here."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from numbers import Real

import numpy as np

from lode.core import lattice as core

_NO_CHARGES = np.empty(0)
# Share of a cell in the volume of a box of its edges, below which it is reduced, and
# below which its vectors count as dependent.
_SKEWED = 0.5
_SMALLEST_SHARE = 1e-6
# Atoms of a structure whose places among the species are cached.
_MOST_CACHED = 4096


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
    """One structure, finite or fully periodic, or several finite ones concatenated.

    Attributes
    ----------
    positions : ndarray (n_atoms, 3)
        In Å; wrapped into the cell if periodic.
    cell : ndarray (3, 3)
        Rows are the lattice vectors in Å, of a very skewed cell shorter ones of its
        lattice; zero if finite.
    periodic : bool
        Periodic along all three vectors, or along none.
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
    periodic: bool
    species: np.ndarray
    charges: np.ndarray | None = None
    sizes: tuple = ()
    inverse: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    volume: float = 0.0

    def __len__(self):
        return len(self.positions)

    @cached_property
    def heights(self):
        """Distances of opposite faces of the cell in Å, three floats."""
        columns = zip(*self.inverse.tolist(), strict=True)
        return tuple(1.0 / math.hypot(*column) for column in columns)


def finite_array(value, shape, name, where=""):
    """Float64 array of the given shape without NaN or infinity.

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
        If the shape differs or an entry is not finite.
    """
    array = _shaped(value, shape, name, where)
    # Where caches are cold NumPy takes ten times as long for some atoms.
    if not core.all_finite(array.ravel()):
        bad = np.argwhere(~np.isfinite(array))
        index = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{name} must be finite, got {array[index]} at index {index}{where}"
        )
    return array


def _shaped(value, shape, name, where):
    """As :func:`finite_array`, perhaps with NaN or infinity."""
    try:
        array = np.ascontiguousarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be an array of numbers{where}: {error}"
        ) from None
    if array.shape != shape and (
        array.ndim != len(shape)
        or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True))
    ):
        wanted = "(" + ", ".join("n" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}{where}")
    return array


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
        If the cell is zero, singular, not finite or of another shape.
    """
    cell = finite_array(cell, (3, 3), "cell", where)
    *_, share, _ = core.into_cell(np.zeros((0, 3)), cell, _NO_CHARGES)
    # Not a number if an edge is longer than numbers are.
    if not share >= _SMALLEST_SHARE:
        raise ValueError(
            "a periodic cell must have three linearly independent vectors, got "
            f"{cell.tolist()}{where}"
        )
    return cell


def system(atoms, where=""):
    """Checked arrays of one structure.

    Parameters
    ----------
    atoms : ase.Atoms
        Finite (no periodic direction) or periodic in all three; with or without
        initial charges.
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
        positive, the boundary is mixed or the cell of a periodic structure is singular.
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
    pbc = np.asarray(pbc, dtype=bool).tolist()
    periodic = all(pbc)
    if any(pbc) and not periodic:
        raise ValueError(
            "a frame must be periodic in all three directions or in none, got "
            f"pbc = {pbc}{where}"
        )
    if periodic:
        cell = _shaped(cell.array, (3, 3), "cell", where)
        found = core.into_cell(positions, cell, charges)
        if not found[3] >= _SKEWED:
            cell_array(cell, where)
            # Images are as many as the vectors are long.
            cell = core.reduced_cell(cell)
            found = core.into_cell(positions, cell, charges)
        inside, inverse, volume, _, valid = found
    else:
        inside = positions.copy()
        cell = inverse = np.zeros((3, 3))
        volume = 0.0
        valid = core.all_finite(positions.ravel()) and core.all_finite(charges)
    if not valid:
        finite_array(positions, (n, 3), "positions", where)
        finite_array(charges, charges.shape, "charges", where)
    species = np.array(numbers, dtype=np.int64)
    if species.min() < 1:
        raise ValueError(
            f"atomic numbers must be positive, got {species.min()} at index "
            f"{species.argmin()}{where}"
        )
    charges = None if charges is _NO_CHARGES else charges
    return System(inside, cell, periodic, species, charges, (), inverse, volume)


def systems(frames):
    """Checked arrays of one structure or of a list of them.

    Parameters
    ----------
    frames : ase.Atoms or sequence of ase.Atoms
        What to convert.

    Returns
    -------
    list of System

    Raises
    ------
    TypeError, ValueError
        As :func:`system`, naming the frame; also for an empty list.
    """
    if isinstance(frames, System) or hasattr(frames, "positions"):
        return [system(frames)]
    if not isinstance(frames, Iterable) or isinstance(frames, str):
        raise TypeError(
            "frames must be an ase.Atoms or a sequence of them, got "
            f"{type(frames).__name__}"
        )
    checked = [system(atoms, f" (frame {i})") for i, atoms in enumerate(frames)]
    if not checked:
        raise ValueError("frames must hold at least one structure, got an empty list")
    return checked


def concatenated(checked):
    """Structures as one, in which they do not see each other.

    Parameters
    ----------
    checked : list of System
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
    return System(positions, checked[0].cell, False, species, charges, sizes)


def species_index(checked, species=None):
    """Species in use and the index of each atom's species among them.

    Parameters
    ----------
    checked : list of System
        Structures.
    species : sequence of int, optional
        Atomic numbers to use; by default all that occur, in ascending order.

    Returns
    -------
    species : tuple of int
        Atomic numbers.
    index : list of ndarray of int
        For each structure, the place of each atom's species in ``species``.

    Raises
    ------
    ValueError
        If an atom's species is not among ``species``, or these are not different
        atomic numbers.
    """
    if species is not None:
        species = atomic_numbers(species)
    numbers = checked[0].species
    if len(checked) == 1 and len(numbers) <= _MOST_CACHED:
        species, index = _cached_places(numbers.tobytes(), species)
        return species, [index.copy()]
    numbers = np.concatenate([s.species for s in checked])
    species, index = _places(numbers, species)
    return species, np.split(index, np.cumsum([len(s) for s in checked[:-1]]))


def _places(numbers, species):
    """As :func:`species_index`, of the atomic numbers of one structure."""
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
def _cached_places(numbers, species):
    """Frames of a trajectory have the same atoms, given as bytes."""
    return _places(np.frombuffer(numbers, dtype=np.int64), species)
