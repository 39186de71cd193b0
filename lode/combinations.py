r"""Signed sums of structures: targets that are differences of energies.

An interaction energy E(AB) − E(A) − E(B) is learnt with the kernel that any model of E
implies for it, the same signed sum over both arguments,

.. math:: K(C, C') = \sum_{t, t'} w_t\, w_{t'}\, K(S_t, S'_{t'}) .
"""

from dataclasses import dataclass

import numpy as np

# Copies of a rigid fragment differ by the rounding of their coordinates in a file (Å).
_SAME_POSITION = 1e-6


@dataclass(frozen=True, eq=False)
class LinearCombination:
    """Weighted sum of structures, whose property is the same sum of theirs.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        The structures S_t. One that occurs in many combinations is described once
        if it is the same object.
    weights : sequence of float
        w_t, one for each structure.

    Raises
    ------
    ValueError
        If there are no structures, their number is not that of the weights, or a
        weight is not finite.

    Examples
    --------
    >>> from ase.build import molecule
    >>> import lode
    >>> water = molecule("H2O")
    >>> two = water + water
    >>> two.positions[3:] += [0.0, 0.0, 3.0]
    >>> lode.LinearCombination([two, water], [1.0, -2.0]).weights
    (1.0, -2.0)
    """

    structures: tuple
    weights: tuple

    def __post_init__(self):
        structures = tuple(self.structures)
        weights = tuple(float(w) for w in self.weights)
        if not structures:
            raise ValueError("a combination must have at least one structure, got none")
        if len(structures) != len(weights):
            raise ValueError(
                f"weights must be one for each of {len(structures)} structures, got "
                f"{len(weights)}"
            )
        if not np.isfinite(weights).all():
            raise ValueError(f"weights must be finite, got {weights}")
        object.__setattr__(self, "structures", structures)
        object.__setattr__(self, "weights", weights)


def interactions(frames, n_first):
    """Combinations E(AB) − E(A) − E(B) of complexes of two fragments.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        The complexes, the atoms of the first fragment in front.
    n_first : sequence of int
        Number of atoms of the first fragment of each.

    Returns
    -------
    list of LinearCombination
        Fragments that are equal up to a translation, also in their charges, are one
        object: those of a rigid curve are described once.

    Raises
    ------
    ValueError
        If the numbers do not fit the frames, a fragment is empty or a frame is
        periodic: a fragment of a crystal is no molecule.

    Examples
    --------
    >>> from ase import Atoms
    >>> import lode
    >>> curve = [Atoms("NaCl", [(0, 0, 0), (0, 0, z)]) for z in (3.0, 4.0, 5.0)]
    >>> pairs = lode.interactions(curve, [1, 1, 1])
    >>> pairs[0].weights, pairs[0].structures[2] is pairs[2].structures[2]
    ((1.0, -1.0, -1.0), True)
    """
    frames, n_first = list(frames), [int(n) for n in n_first]
    if len(frames) != len(n_first):
        raise ValueError(
            f"n_first must be one for each of {len(frames)} frames, got {len(n_first)}"
        )
    known = {}
    combined = []
    for index, (atoms, n) in enumerate(zip(frames, n_first, strict=True)):
        if not 0 < n < len(atoms):
            raise ValueError(
                f"n_first must be from 1 to {len(atoms) - 1} for {len(atoms)} atoms, "
                f"got {n} (frame {index})"
            )
        if atoms.pbc.any():
            raise ValueError(
                "a complex must not be periodic, got pbc = "
                f"{atoms.pbc.tolist()} (frame {index})"
            )
        fragments = [_shared(atoms[:n], known), _shared(atoms[n:], known)]
        combined.append(LinearCombination((atoms, *fragments), (1.0, -1.0, -1.0)))
    return combined


def _shared(fragment, known):
    """The fragment, or an earlier one that is a translation of it."""
    charges = fragment.arrays.get("initial_charges")
    key = fragment.numbers.tobytes(), None if charges is None else charges.tobytes()
    alike = known.setdefault(key, [])
    shape = fragment.positions - fragment.positions[0]
    # The latest first: curves come frame after frame.
    for shape_known, atoms in reversed(alike):
        if np.abs(shape - shape_known).max() < _SAME_POSITION:
            return atoms
    alike.append((shape, fragment))
    return fragment
