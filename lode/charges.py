"""Formal charges of the atoms of molecules, from their bonds alone."""

import numpy as np
import vesin
from ase.data import chemical_symbols, covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lode.systems import system

# Bonds that an uncharged atom takes part in, a double bond counted twice.
_VALENCE = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1, 15: 3, 16: 2, 17: 1, 35: 1, 53: 1}
# Bonded atoms are no farther apart than so many summed covalent radii.
_BOND = 1.25


def formal_charges(atoms):
    """Formal charges of the atoms of closed-shell molecules.

    An atom with more neighbours than its valence has that many positive charges, as
    nitrogen in ammonium. Neighbouring atoms with fewer share multiple bonds; a group
    of them that cannot pair all of its valences has one charge, which its atoms share
    alike: positive if all are carbon, as in guanidinium, else negative, as in
    carboxylates. Only bonds count: what a molecule carries does not depend on others
    around it.

    Parameters
    ----------
    atoms : ase.Atoms
        Of H, C, N, O, P, S and halogens, finite or periodic in any directions.

    Returns
    -------
    ndarray (n_atoms,)
        In e; for :meth:`ase.Atoms.set_initial_charges`.

    Raises
    ------
    TypeError, ValueError
        If the structure is not valid (see :func:`lode.systems.system`) or has another
        element.

    Notes
    -----
    Charges that cancel inside a molecule, as in nitro groups, are not told from those
    that do not: where such groups occur, set the charges by hand.

    Examples
    --------
    >>> from ase import Atoms
    >>> import lode
    >>> positions = [(0, 0, 0), (0, 0, 1.1), (1.1, 0, -0.6), (-1.1, 0, -0.6)]
    >>> formate = Atoms("CHO2", positions)
    >>> print(lode.formal_charges(formate).round(2))
    [-0.33  0.   -0.33 -0.33]
    """
    checked = system(atoms)
    species, n = checked.species, len(checked)
    unknown = sorted(set(species.tolist()) - set(_VALENCE))
    if unknown:
        known = [chemical_symbols[z] for z in _VALENCE]
        raise ValueError(
            f"formal charges are known for the elements {known}, got "
            f"{[chemical_symbols[z] for z in unknown]}"
        )
    first, second = _bonds(checked)
    valence = np.array([_VALENCE[z] for z in species.tolist()])
    left = valence - np.bincount(first, minlength=n)
    open_ = left > 0
    multiple = open_[first] & open_[second]
    edges = (np.ones(multiple.sum()), (first[multiple], second[multiple]))
    _, group = connected_components(coo_array(edges, shape=(n, n)), directed=False)
    unpaired = np.bincount(group, np.maximum(left, 0)) % 2
    sign = np.where(np.bincount(group, species != 6) == 0, 1.0, -1.0)
    shared = unpaired * sign / np.bincount(group)
    return np.maximum(-left, 0) + shared[group]


def _bonds(checked):
    """Bonded pairs of atoms, both ways: first, second."""
    radii = covalent_radii[checked.species]
    neighbors = vesin.NeighborList(
        cutoff=2 * _BOND * radii.max(), full_list=True, sorted=True, n_threads=1
    )
    first, second, distance = neighbors.compute(
        checked.positions, checked.cell, checked.pbc, "ijd"
    )
    first, second = first.astype(np.int64), second.astype(np.int64)
    ratio = distance / (radii[first] + radii[second])
    # A hydrogen has one bond, the closest: two of a crowded molecule can be as close
    # as in H2.
    closest = np.full(len(checked), np.inf)
    np.minimum.at(closest, first, ratio)
    limit = np.where(checked.species == 1, np.minimum(closest, _BOND), _BOND)
    bonded = ratio <= np.minimum(limit[first], limit[second])
    return first[bonded], second[bonded]
