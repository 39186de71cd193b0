"""What is known of an energy before anything is learnt: point charges or a calculator.

A model learns the difference to its baseline and adds that to what it predicts, with
forces and stress.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from lode.charges import formal_charges
from lode.electrostatics import ewald
from lode.parallel import thread_count, thread_map
from lode.systems import System, structures

_KINDS = ("formal", "initial")


@dataclass(frozen=True)
class PointCharges:
    """Electrostatic energy of point charges: a baseline of models.

    Of periodic frames the Ewald sum, of finite ones that of all pairs.

    Parameters
    ----------
    charges : {"formal", "initial"} or dict of str to float
        :func:`lode.formal_charges` of molecules, the initial charges of the frames, or
        a charge for each element, in e.
    tolerance : float
        As for :func:`lode.ewald`.

    Raises
    ------
    ValueError
        If the charges are none of these, or an element is unknown.

    Examples
    --------
    >>> from ase.build import bulk
    >>> import lode
    >>> salt = bulk("NaCl", "rocksalt", a=5.64)
    >>> ions = lode.PointCharges({"Na": 1.0, "Cl": -1.0})
    >>> round(float(ions.evaluate(salt).energy), 3)
    -8.923
    """

    charges: str | tuple = "initial"
    tolerance: float = 1e-10

    def __post_init__(self):
        if isinstance(self.charges, str):
            if self.charges not in _KINDS:
                raise ValueError(
                    f"charges must be one of {_KINDS} or a dictionary, got "
                    f"{self.charges!r}"
                )
            return
        charges = self.charges
        if isinstance(charges, Mapping):
            charges = charges.items()
        # Pairs: hashable, and written to model files as they are.
        pairs = tuple(sorted((str(name), float(charge)) for name, charge in charges))
        for name, charge in pairs:
            if name not in atomic_numbers:
                raise ValueError(f"charges must be those of elements, got {name!r}")
            if not np.isfinite(charge):
                raise ValueError(f"charges must be finite, got {charge} of {name}")
        object.__setattr__(self, "charges", pairs)

    def evaluate(self, atoms, where=""):
        """Energy, forces and stress of a frame.

        Parameters
        ----------
        atoms : ase.Atoms
        where : str
            Ends each error message.

        Returns
        -------
        EwaldResult

        Raises
        ------
        ValueError
            If an atom has no charge, or the frame is a slab or a wire.
        """
        checked = structures(atoms)[0]
        if not (checked.finite or checked.periodic):
            raise ValueError(
                "a baseline of point charges needs frames that are periodic in three "
                f"directions or in none, got pbc = {list(checked.pbc)}{where}"
            )
        charges = self._charges_of(checked, where)
        cell = checked.cell if checked.periodic else None
        return ewald(checked.positions, cell, charges, tolerance=self.tolerance)

    def _charges_of(self, checked, where):
        if self.charges == "formal":
            return formal_charges(checked)
        if self.charges == "initial":
            if checked.charges is None:
                raise ValueError(
                    f"a baseline of initial charges needs them, got none{where}"
                )
            return checked.charges
        known = {atomic_numbers[name]: charge for name, charge in self.charges}
        unknown = sorted(set(checked.species.tolist()) - set(known))
        if unknown:
            raise ValueError(
                "a baseline of point charges needs one for each element, got none for "
                f"{[chemical_symbols[z] for z in unknown]}{where}"
            )
        return np.array([known[z] for z in checked.species.tolist()])


def check_baseline(baseline):
    """Refuse what is no baseline.

    Raises
    ------
    TypeError
        If it is neither point charges nor a calculator.
    """
    is_known = baseline is None or isinstance(baseline, PointCharges)
    if not (is_known or hasattr(baseline, "get_property")):
        raise TypeError(
            "baseline must be PointCharges or a calculator of ASE, got "
            f"{type(baseline).__name__}"
        )


def baseline_energies(baseline, frames, n_threads=None):
    """Energies of the frames, or zero without a baseline.

    Parameters
    ----------
    baseline : PointCharges, ase.calculators.calculator.Calculator or None
    frames : Structures
    n_threads : int, optional

    Returns
    -------
    ndarray (n_frames,) or 0.0

    Raises
    ------
    TypeError
        If the frames are features.
    RuntimeError
        If the calculator fails.
    """
    if baseline is None:
        return 0.0
    found = baseline_results(baseline, frames, False, n_threads)
    energies = np.array([energy for energy, *_ in found])
    return energies if frames.weights is None else frames.weights @ energies


def species_counts(frames, species):
    """Number of atoms of each species in each frame.

    Parameters
    ----------
    frames : Structures
    species : tuple of int

    Returns
    -------
    ndarray (n_frames, n_species)
        Weighted sums of them for linear combinations.

    Raises
    ------
    TypeError
        If the frames are features.
    """
    if not hasattr(frames, "systems"):
        raise TypeError(
            f"energies of species need structures, got {type(frames).__name__}"
        )
    _, channel_i = frames.channels(species)
    counts = np.zeros((len(frames), len(species)))
    np.add.at(counts, (frames.frame_index, channel_i), 1.0)
    return counts if frames.weights is None else frames.weights @ counts


def baseline_results(baseline, inputs, stress, n_threads=None):
    """Energy, forces and stress of each structure.

    Parameters
    ----------
    baseline : PointCharges or ase.calculators.calculator.Calculator
    inputs : Structures
    stress : bool
    n_threads : int, optional

    Returns
    -------
    list of (float, ndarray (n_atoms, 3), ndarray (3, 3) or None)

    Raises
    ------
    TypeError, RuntimeError
        As :func:`baseline_energies`.
    """
    if not hasattr(inputs, "systems"):
        raise TypeError(f"a baseline needs structures, got {type(inputs).__name__}")
    if not isinstance(baseline, PointCharges):
        return [_calculated(baseline, s, stress, i) for i, s in enumerate(inputs)]

    def summed(i):
        found = baseline.evaluate(inputs[i], f" (frame {i})")
        return found.energy, found.forces, found.stress

    return thread_map(summed, range(len(inputs)), thread_count(n_threads))


def _calculated(calculator, checked: System, stress, frame):
    """Of a calculator of ASE, whatever it raises named with the frame."""
    places = checked.species, checked.positions
    cell = None if checked.finite else checked.cell
    atoms = Atoms(*places, cell=cell, pbc=checked.pbc, charges=checked.charges)
    atoms.calc = calculator
    try:
        energy = float(atoms.get_potential_energy())
        forces = np.array(atoms.get_forces())
        found = atoms.get_stress(voigt=False) if stress else None
    except Exception as error:
        raise RuntimeError(f"the baseline failed (frame {frame}): {error}") from error
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise RuntimeError(f"the baseline gave NaN or infinity (frame {frame})")
    return energy, forces, found
