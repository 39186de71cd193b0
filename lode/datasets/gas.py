"""The random gas of point charges of the paper's Figure 1, own and published."""

import math
import sys
from numbers import Real

import numpy as np
from ase import Atoms
from ase.units import Hartree
from tqdm import tqdm

from lode.core import gas as core
from lode.datasets.frames import read_frames
from lode.systems import whole_number

# What the paper says of its frames; seeds and numbers of frames are free.
RECIPE = {"n_pairs": 32, "side": (12.0, 20.0), "min_distance": 2.5}

# An extended-xyz file keeps eight decimals, so that written and in-memory frames
# are the same.
_DECIMALS = 8
# Of all frames, some 10 GB; and what a compiled loop can count.
_MOST_CHARGES = 10**8
_MOST_TRIALS = 2**62
# Packing fraction at which random sequential addition of spheres jams: B. Widom,
# J. Chem. Phys. 44, 3888 (1966); G. Zhang, S. Torquato, Phys. Rev. E 88, 053312
# (2013).
_JAMMING = 0.3841
# Of a published frame, the info key of its energy.
ENERGY = "published_energy"
_CHARGES = {"Na": 1.0, "Cl": -1.0}
_UNITS = {"eV": 1.0, "Hartree": Hartree}
# Largest relative difference of a published energy from ours.
_AGREEMENT = 1e-3


def gas_frames(
    n_frames,
    *,
    n_pairs=32,
    side=(12.0, 20.0),
    min_distance=2.5,
    charges=(1.0, -1.0),
    species=("Na", "Cl"),
    seed=0,
    first=0,
    max_trials=100_000,
    progress=False,
):
    """Random point charges in periodic cubes, by the paper's recipe.

    The side of each cube is uniform in a range; charges are inserted one after the
    other at uniformly random places, each kept only if it is no nearer than
    ``min_distance`` to any earlier one and its periodic images.

    Parameters
    ----------
    n_frames : int
        Number of frames, at least 1.
    n_pairs : int
        Positive and as many negative charges in each frame; at most 10⁸ charges in
        all frames.
    side : (float, float)
        Range of the side of the cube, in Å.
    min_distance : float
        In Å.
    charges : (float, float)
        Charges of the two kinds in e; their sum must vanish.
    species : (str, str)
        Chemical symbols of the two kinds.
    seed : int
        Each frame has a random stream of its own, spawned from this seed: frame k
        is the same whatever the number of frames.
    first : int
        Index k of the first frame: parts of a set are the same as the whole.
    max_trials : int
        Insertions tried in one frame before giving up.
    progress : bool
        Show a bar.

    Returns
    -------
    list of ase.Atoms
        Periodic; charges as initial charges, lengths rounded to eight decimals.

    Raises
    ------
    ValueError
        If the charges are not neutral, a setting is out of range, or the charges
        cannot be packed at the wanted distance.

    Notes
    -----
    A. Grisafi, M. Ceriotti, J. Chem. Phys. 151, 204105 (2019).

    Examples
    --------
    >>> frame = gas_frames(1, seed=1)[0]
    >>> frame.get_chemical_formula(), float(frame.get_initial_charges().sum())
    ('Cl32Na32', 0.0)
    """
    n_frames, n_charges, shortest, longest, seed, max_trials = checked_settings(
        n_frames, n_pairs, side, min_distance, seed, max_trials
    )
    first = whole_number(first, 0, math.inf, "first")
    charges = _pair_of_numbers(charges, "charges")
    if sum(charges) != 0.0:
        raise ValueError(
            f"charges must be neutral as a pair, got {charges}, which sum to "
            f"{sum(charges):g}"
        )
    if isinstance(species, str) or len(species) != 2:
        raise ValueError(f"species must be two chemical symbols, got {species!r}")

    # The children of SeedSequence(seed), of which none before the first is made.
    streams = [
        np.random.SeedSequence(seed, spawn_key=(k,))
        for k in range(first, first + n_frames)
    ]
    kinds = np.repeat([0, 1], n_charges // 2)
    frames = []
    for index, stream in enumerate(
        tqdm(streams, desc="Gas", unit="frame", disable=not progress), start=first
    ):
        generator = np.random.default_rng(stream)
        length = round(generator.uniform(shortest, longest), _DECIMALS)
        positions, n_placed = core.insertion(
            generator, n_charges, length, float(min_distance), _DECIMALS, max_trials
        )
        if n_placed < n_charges:
            raise ValueError(
                f"min_distance must leave room to insert {n_charges} charges in a cube "
                f"of side {length:g} Å: at {min_distance:g} Å only {n_placed} found "
                f"place in {max_trials} trials (frame {index})"
            )
        # Late insertions sit in the gaps that early ones left. Labels in order of
        # insertion would let the sign know of the position, and shift the mean
        # energy by a tenth.
        kind = generator.permutation(kinds)
        atoms = Atoms(
            [species[k] for k in kind],
            positions=positions,
            cell=[length] * 3,
            pbc=True,
        )
        atoms.set_initial_charges([charges[k] for k in kind])
        frames.append(atoms)
    return frames


def checked_settings(n_frames, n_pairs, side, min_distance, seed=0, max_trials=100_000):
    """Settings of :func:`gas_frames`, checked.

    Parameters
    ----------
    n_frames, n_pairs, side, min_distance, seed, max_trials
        As for :func:`gas_frames`.

    Returns
    -------
    n_frames, n_charges : int
    shortest, longest : float
    seed, max_trials : int

    Raises
    ------
    ValueError
        If a setting is out of range, or the charges cannot be packed.
    """
    n_frames = whole_number(n_frames, 1, _MOST_CHARGES, "n_frames")
    n_charges = 2 * whole_number(n_pairs, 1, _MOST_CHARGES, "n_pairs")
    max_trials = whole_number(max_trials, 1, _MOST_TRIALS, "max_trials")
    seed = whole_number(seed, 0, math.inf, "seed")
    if n_frames * n_charges > _MOST_CHARGES:
        raise ValueError(
            f"n_frames and n_pairs must make at most {_MOST_CHARGES} charges in all, "
            f"got {n_frames} frames of {n_charges}"
        )
    shortest, longest = _pair_of_numbers(side, "side")
    if not 0.0 < shortest <= longest:
        raise ValueError(
            f"side must be a range of positive lengths in ascending order, got {side!r}"
        )
    largest = sys.float_info.max
    if not (isinstance(min_distance, Real) and 0.0 <= min_distance <= largest):
        raise ValueError(f"min_distance must be at least zero, got {min_distance!r}")
    packing = n_charges * math.pi / 6.0 * (min_distance / shortest) ** 3
    if packing > _JAMMING:
        raise ValueError(
            f"min_distance must leave room to insert {n_charges} charges in a cube of "
            f"side {shortest:g} Å: {min_distance:g} Å fills {packing:.3f} of it, more "
            f"than the {_JAMMING} at which random insertion jams"
        )
    return n_frames, n_charges, shortest, longest, seed, max_trials


def read_published_gas(path, n_frames=None, first=0):
    """Frames of the paper's authors, with their energies.

    Parameters
    ----------
    path : path_like
        Extended XYZ of Na and Cl with a ``Lattice`` and an energy for each frame.
    n_frames : int, optional
        How many of the frames; by default all.
    first : int
        Index of the first of them.

    Returns
    -------
    list of ase.Atoms
        As from :func:`gas_frames`, with the energy of the file, whatever its unit, as
        the ``info`` key ``published_energy``; see :func:`check_published_energies`.

    Raises
    ------
    ValueError
        If a frame is not neutral or not of this form, which names the frame, or there
        are too few of them.
    """
    given = read_frames(path)
    last = len(given) if n_frames is None else first + n_frames
    if len(given) < last:
        raise ValueError(f"{path} must hold {last} frames at least, got {len(given)}")
    return [
        _published_frame(given[i], f"{path}, frame {i + 1}") for i in range(first, last)
    ]


def check_published_energies(frames, energies, first=0, log=None):
    """Refuse published energies that are not those of point charges.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        From :func:`read_published_gas`; others pass.
    energies : ndarray (n_frames,)
        Coulomb energies in eV.
    first : int
        Index of the first frame among all, for messages.
    log : callable, optional
        Takes a line on the unit and the largest difference, such as ``print``.

    Raises
    ------
    ValueError
        If neither in eV nor in Hartree all are within 0.1 % of ours, or some frames
        have an energy and others do not.
    """
    published = [a.info[ENERGY] for a in frames if ENERGY in a.info]
    if not published:
        return
    if len(published) < len(frames):
        raise ValueError(
            f"all frames must have a published energy or none, got {len(published)} of "
            f"{len(frames)}"
        )
    ratios = np.array(published) / energies
    found = {unit: np.abs(ratios * size - 1.0) for unit, size in _UNITS.items()}
    unit = min(found, key=lambda u: np.median(found[u]))
    worst = int(found[unit].argmax())
    if not found[unit][worst] <= _AGREEMENT:
        raise ValueError(
            "published energies must be the Coulomb energies of charges of ±1 in one "
            f"of {list(_UNITS)}, got {published[worst]:.8g} where ours is "
            f"{energies[worst]:.8g} eV (frame {first + worst + 1})"
        )
    if log is not None:
        log(
            f"{len(frames)} published energies in {unit}, within "
            f"{found[unit][worst]:.1e} of ours"
        )


def _published_frame(atoms, where):
    """A checked frame with charges and the energy that the file gives."""
    symbols = list(atoms.symbols)
    n_pairs = symbols.count("Na")
    if not symbols or symbols.count("Cl") != n_pairs or len(symbols) != 2 * n_pairs:
        raise ValueError(
            f"{where}: a frame must hold as many Na as Cl and nothing else, got "
            f"{atoms.symbols}"
        )
    cell = atoms.cell.array
    if not (np.isfinite(cell).all() and abs(np.linalg.det(cell)) > 0.0):
        raise ValueError(
            f"{where}: a frame must have a Lattice with a volume, got {cell.tolist()}"
        )
    if not np.isfinite(atoms.positions).all():
        raise ValueError(f"{where}: positions must be finite")
    # ASE moves an energy to a calculator.
    results = atoms.calc.results if atoms.calc is not None else {}
    energy = {**atoms.info, **results}.get("energy")
    if not (isinstance(energy, Real) and math.isfinite(energy)):
        raise ValueError(f"{where}: there must be a finite energy, got {energy!r}")
    positions = np.round(atoms.positions, _DECIMALS)
    info = {ENERGY: float(energy)}
    made = Atoms(symbols, positions, cell=cell, pbc=True, info=info)
    made.set_initial_charges([_CHARGES[symbol] for symbol in symbols])
    return made


def _pair_of_numbers(value, name):
    try:
        first, second = (float(x) for x in value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be two numbers, got {value!r}") from None
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return first, second
