"""Dimers of our own: charged and neutral molecules put in contact.

They stand in for the published dimers where those cannot be had. The molecules are
made from the geometries of the G2 set that ASE brings along and relaxed by the
engine.
"""

import math

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from scipy.spatial.transform import Rotation

from lode.datasets.dimers import dimer

# Classes of pairs of charges, with their shares. Opposite and like charges are more
# frequent than in the BioFragment Database (22 and 3 %): among few molecules of many
# kinds, so few pairs would leave nothing to learn their long-range part from.
_SHARES = {(1, -1): 45.0, (1, 0): 20.0, (0, -1): 20.0, (1, 1): 7.5, (-1, -1): 7.5}
# Van der Waals radii in Å: A. Bondi, J. Phys. Chem. 68, 441 (1964).
_RADII = {1: 1.20, 6: 1.70, 7: 1.55, 8: 1.52}
_NH = 1.03
_CH = 1.09
_CC = 1.52
_BOND = 1.25
_TRIALS = 1000


def monomers(engine):
    """Molecules of the stand-in: four cations, three anions, ten neutral ones.

    Parameters
    ----------
    engine : object
        With a method ``relaxed(atoms, charge)``, such as
        :class:`lode.datasets.engines.Mopac`.

    Returns
    -------
    list of (str, ase.Atoms, int)
        Name, geometry and charge.
    """
    neutral = {
        "water": "H2O",
        "methanol": "CH3OH",
        "ethanol": "CH3CH2OH",
        "ammonia": "NH3",
        "methylamine": "H3CNH2",
        "acetamide": "CH3CONH2",
        "acetone": "CH3COCH3",
        "propane": "C3H8",
        "isobutane": "isobutane",
        "benzene": "C6H6",
    }
    acetate = _without_acid_hydrogen(molecule("CH3COOH"))
    drafts = [
        ("methylammonium", _protonated(molecule("H3CNH2")), 1),
        ("ethylammonium", _protonated(molecule("CH3CH2NH2")), 1),
        ("guanidinium", _guanidinium(), 1),
        ("imidazolium", _imidazolium(), 1),
        ("formate", _without_acid_hydrogen(molecule("HCOOH")), -1),
        ("acetate", acetate, -1),
        ("propanoate", _methylated(acetate), -1),
    ]
    drafts += [(name, molecule(g2), 0) for name, g2 in neutral.items()]
    return [(name, engine.relaxed(a, charge), charge) for name, a, charge in drafts]


def synthetic_dimers(n_dimers, molecules, *, contact=(0.75, 0.95), nearest=3.0, seed=0):
    """Random dimers in contact, of opposite, like and one charge.

    Both molecules are turned at random; the second is put in a random direction, so
    near that the closest pair of atoms is at a random share of its summed van der
    Waals radii.

    Parameters
    ----------
    n_dimers : int
        How many.
    molecules : list of (str, ase.Atoms, int)
        As from :func:`monomers`.
    contact : (float, float)
        Range of the distance of the closest pair, in summed van der Waals radii.
    nearest : float
        Least distance of the centroids in Å.
    seed : int
        Each dimer has a random stream of its own, spawned from this seed.

    Returns
    -------
    list of ase.Atoms
        As in :mod:`lode.datasets.dimers`, named ``standin-…`` with both molecules.

    Raises
    ------
    ValueError
        If a setting is out of range, or a class has no molecules.
    """
    if n_dimers < 1:
        raise ValueError(f"n_dimers must be at least 1, got {n_dimers}")
    low, high = contact
    if not 0.0 < low <= high:
        raise ValueError(f"contact must be a range of positive numbers, got {contact}")
    by_charge = {
        charge: [item for item in molecules if item[2] == charge]
        for charge in (-1, 0, 1)
    }
    digits = max(4, len(str(n_dimers)))
    streams = np.random.SeedSequence(int(seed)).spawn(int(n_dimers))
    pairs = list(_SHARES)
    shares = np.array(list(_SHARES.values())) / sum(_SHARES.values())
    dimers = []
    for index, stream in enumerate(streams):
        generator = np.random.default_rng(stream)
        pair = pairs[generator.choice(len(pairs), p=shares)]
        chosen = []
        for charge in pair:
            if not by_charge[charge]:
                raise ValueError(f"there must be molecules of charge {charge:+d}")
            chosen.append(by_charge[charge][generator.integers(len(by_charge[charge]))])
        (name_a, a, charge_a), (name_b, b, charge_b) = chosen
        atoms = _in_contact(a, b, contact, nearest, generator)
        name = f"standin-{index + 1:0{digits}d}-{name_a}-{name_b}"
        dimers.append(dimer(atoms, len(a), charge_a, charge_b, name))
    return dimers


def _in_contact(a, b, contact, nearest, generator):
    """Both molecules, turned at random, the second pushed against the first."""
    for _ in range(_TRIALS):
        first, second = (
            (m.positions - m.positions.mean(axis=0))
            @ Rotation.from_quat(generator.normal(size=4)).as_matrix().T
            for m in (a, b)
        )
        direction = generator.normal(size=3)
        direction /= np.linalg.norm(direction)
        radii = np.add.outer(
            [_RADII[z] for z in a.numbers], [_RADII[z] for z in b.numbers]
        )
        closest = generator.uniform(*contact) * radii
        # |d + t u| = closest for each pair of atoms, by its larger root: at the
        # largest of all t one pair touches and no other is nearer.
        difference = second[None, :, :] - first[:, None, :]
        along = difference @ direction
        root = along**2 - (difference**2).sum(axis=2) + closest**2
        touching = root >= 0.0
        shift = (np.sqrt(np.where(touching, root, 0.0)) - along)[touching]
        if shift.size and shift.max() >= nearest:
            return Atoms(
                np.concatenate([a.numbers, b.numbers]),
                np.concatenate([first, second + shift.max() * direction]),
            )
    raise ValueError(
        f"{a.symbols} and {b.symbols} must fit at centroids {nearest:g} Å apart or "
        f"more, got no such contact in {_TRIALS} trials"
    )


def _neighbours(atoms, index):
    """Atoms bonded to one."""
    radii = covalent_radii[atoms.numbers]
    distances = np.linalg.norm(atoms.positions - atoms.positions[index], axis=1)
    bonded = distances < _BOND * (radii + radii[index])
    bonded[index] = False
    return np.flatnonzero(bonded)


def _away(atoms, index):
    """Unit vector from an atom, away from those bonded to it."""
    bonds = atoms.positions[_neighbours(atoms, index)] - atoms.positions[index]
    bonds /= np.linalg.norm(bonds, axis=1)[:, None]
    return -bonds.sum(axis=0) / np.linalg.norm(bonds.sum(axis=0))


def _protonated(atoms):
    """Amine with a further hydrogen at its nitrogen."""
    (index,) = np.flatnonzero(atoms.numbers == 7)
    proton = atoms.positions[index] + _NH * _away(atoms, index)
    return atoms + Atoms("H", [proton])


def _without_acid_hydrogen(atoms):
    """Acid without the hydrogen that is bonded to oxygen."""
    (acid,) = (
        i
        for i in np.flatnonzero(atoms.numbers == 1)
        if atoms.numbers[_neighbours(atoms, i)].tolist() == [8]
    )
    return atoms[[i for i in range(len(atoms)) if i != acid]]


def _methylated(atoms):
    """Molecule with a methyl group for the first hydrogen at a carbon."""
    hydrogen = next(
        i
        for i in np.flatnonzero(atoms.numbers == 1)
        if atoms.numbers[_neighbours(atoms, i)].tolist() == [6]
    )
    (carbon,) = _neighbours(atoms, hydrogen)
    axis = atoms.positions[hydrogen] - atoms.positions[carbon]
    axis /= np.linalg.norm(axis)
    side = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    side /= np.linalg.norm(side)
    centre = atoms.positions[carbon] + _CC * axis
    positions = [centre]
    for turn in range(3):
        angle = 2.0 * math.pi * turn / 3.0
        around = math.cos(angle) * side + math.sin(angle) * np.cross(axis, side)
        positions.append(centre + _CH * (axis + math.sqrt(8.0) * around) / 3.0)
    kept = atoms[[i for i in range(len(atoms)) if i != hydrogen]]
    return kept + Atoms("CH3", positions)


def _imidazolium():
    """Pyrrole with nitrogen for the carbon two bonds from its nitrogen."""
    ring = molecule("C4H4NH")
    (nitrogen,) = np.flatnonzero(ring.numbers == 7)
    near = set(_neighbours(ring, nitrogen).tolist())
    carbons = set(np.flatnonzero(ring.numbers == 6).tolist())
    numbers = ring.numbers.copy()
    numbers[min(carbons - near)] = 7
    return Atoms(numbers, ring.positions)


def _guanidinium():
    """Planar cation C(NH2)3."""
    symbols, positions = ["C"], [np.zeros(3)]
    for turn in range(3):
        axis = _in_plane(120.0 * turn)
        nitrogen = 1.33 * axis
        symbols += ["N", "H", "H"]
        positions.append(nitrogen)
        positions += [
            nitrogen + 1.01 * _in_plane(120.0 * turn + bend) for bend in (60.0, -60.0)
        ]
    return Atoms(symbols, positions)


def _in_plane(degrees):
    angle = math.radians(degrees)
    return np.array([math.cos(angle), math.sin(angle), 0.0])
