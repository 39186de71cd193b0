"""Reference energies of molecules, by programs behind one small interface."""

import ctypes
import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from ase import Atoms
from ase.units import Hartree, kcal, mol

ENGINES = ("PM6-D3H4", "PM6-ORG", "B3LYP/def2-SVP")
# MOPAC's library reads past its tables for elements that it does not know.
_HEAVIEST = 98


@dataclass(frozen=True)
class Calculation:
    """Energy and atomic charges of one molecule, or why there are none.

    Attributes
    ----------
    energy : float
        In eV, up to a constant per atom; NaN if the calculation failed.
    charges : ndarray (n_atoms,)
        In e; empty if the calculation failed.
    failure : str
        The reason, empty if all went well.
    """

    energy: float
    charges: np.ndarray
    failure: str = ""

    @classmethod
    def failed(cls, reason):
        """A calculation without a result."""
        return cls(float("nan"), np.empty(0), reason)


class Engine(Protocol):
    """What the reference curves need of a program.

    An engine is sent to other processes, so it must be picklable and load its
    program only when it computes.
    """

    @property
    def name(self) -> str:
        """Name of the method."""

    @property
    def version(self) -> str:
        """Program and version; an error if the program is not installed."""

    def calculations(
        self, frames: list[Atoms], charges: list[int]
    ) -> list[Calculation]:
        """One calculation for each molecule with its total charge.

        A molecule that cannot be computed gives a failed calculation, never an
        error.
        """


@dataclass(frozen=True)
class Mopac:
    """Semi-empirical energies by MOPAC, in this process.

    The library keeps its state in global variables: use one thread per process.
    After a failure it may leave a scratch file in the working folder.

    Parameters
    ----------
    model : {'PM6-D3H4', 'PM6-ORG'}
        The Hamiltonian.

    Raises
    ------
    ValueError
        If the model is unknown.
    """

    model: str = "PM6-D3H4"

    def __post_init__(self):
        if self.model not in ENGINES[:2]:
            raise ValueError(f"model must be one of {ENGINES[:2]}, got {self.model!r}")

    @property
    def name(self):
        """Name of the method."""
        return self.model

    @property
    def version(self):
        """Program and version."""
        return f"MOPAC {_mopac().VERSION}"

    def calculations(self, frames, charges):
        """Energies and charges of molecules; see :class:`Engine`."""
        return [
            self._result(atoms, charge)[0]
            for atoms, charge in zip(frames, charges, strict=True)
        ]

    def energy_and_forces(self, atoms, charge):
        """Energy of a molecule in eV and its forces.

        Parameters
        ----------
        atoms : ase.Atoms
        charge : int
            Total charge.

        Returns
        -------
        float
        ndarray (n_atoms, 3)
            In eV/Å.

        Raises
        ------
        RuntimeError
            If the calculation fails.
        """
        result, properties = self._result(atoms, charge, moving=True)
        if result.failure:
            raise RuntimeError(
                f"{self.model} must have forces of {atoms.symbols} with charge "
                f"{charge}: {result.failure}"
            )
        return result.energy, -properties.coord_deriv.reshape(-1, 3) * kcal / mol

    def relaxed(self, atoms, charge):
        """The molecule at the nearest minimum of its energy.

        Parameters
        ----------
        atoms : ase.Atoms
            Where to start.
        charge : int
            Total charge.

        Returns
        -------
        ase.Atoms

        Raises
        ------
        RuntimeError
            If the calculation fails.
        """
        result, found = self._result(atoms, charge, moving=True, relax=True)
        if result.failure:
            raise RuntimeError(
                f"{self.model} must relax {atoms.symbols} with charge {charge}: "
                f"{result.failure}"
            )
        return Atoms(atoms.numbers, found.coord_update.reshape(-1, 3))

    def _result(self, atoms, charge, moving=False, relax=False):
        """One calculation, and what MOPAC says of atoms that may move."""
        fault = unsound(atoms, charge)
        if fault:
            return Calculation.failed(fault), None
        api = _mopac()
        n_atoms = len(atoms)
        system, state = api.MopacSystem(), api.MopacState()
        system.natom, system.natom_move = n_atoms, n_atoms if moving else 0
        system.charge, system.spin, system.model = int(charge), 0, self.model
        # Both are handed over as pointers: they must live as long as the call.
        system.atom = np.array(atoms.numbers, dtype=np.int32)
        system.coord = np.array(atoms.positions, dtype=np.float64).ravel()
        properties = api.from_data(system, state, relax=relax)
        messages = [message.strip() for message in properties.error_msg]
        energy = properties.heat * kcal / mol
        # From here on it holds copies.
        properties.detach()
        state.detach()
        charges = properties.charge
        if messages or len(charges) != n_atoms:
            reason = "; ".join(messages) or "no charges came back"
            return Calculation.failed(f"MOPAC: {reason}"), None
        return Calculation(energy, charges), properties


@dataclass(frozen=True)
class PySCF:
    """Density-functional energies by PySCF: minutes for a dimer, for clusters.

    Far apart, the highest level of a bare anion lies above the lowest empty one of a
    cation with such functionals: charge leaks, or the SCF does not converge. Those
    frames of opposite charges are left out by the checks of the curves.

    Parameters
    ----------
    functional, basis : str
        As PySCF names them.
    """

    functional: str = "B3LYP"
    basis: str = "def2-SVP"

    @property
    def name(self):
        """Name of the method."""
        return f"{self.functional}/{self.basis}"

    @property
    def version(self):
        """Program and version."""
        return f"PySCF {_program('pyscf', 'pyscf').__version__}"

    def calculations(self, frames, charges):
        """Energies and Mulliken charges of molecules; see :class:`Engine`."""
        return [self._result(*pair) for pair in zip(frames, charges, strict=True)]

    def _result(self, atoms, charge):
        fault = unsound(atoms, charge)
        if fault:
            return Calculation.failed(fault)
        _program("pyscf", "pyscf")
        from pyscf import dft, gto

        molecule = gto.M(
            atom=list(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)),
            unit="Angstrom",
            charge=int(charge),
            basis=self.basis,
            verbose=0,
        )
        field = dft.RKS(molecule, xc=self.functional).density_fit()
        energy = field.kernel() * Hartree
        if not field.converged:
            return Calculation.failed("PySCF: the SCF did not converge")
        _, charges = field.mulliken_pop(verbose=0)
        return Calculation(energy, np.asarray(charges))


def engine(name):
    """Engine by the name of its method.

    Parameters
    ----------
    name : {'PM6-D3H4', 'PM6-ORG', 'B3LYP/def2-SVP'}
        The first two by MOPAC, the last by PySCF.

    Returns
    -------
    Engine

    Raises
    ------
    ValueError
        If there is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f"an engine must be one of {ENGINES}, got {name!r}")
    return PySCF() if name == ENGINES[2] else Mopac(name)


def unsound(atoms, charge):
    """Why a molecule is no closed shell of known elements; empty if it is one.

    Parameters
    ----------
    atoms : ase.Atoms
        The molecule.
    charge : int
        Total charge.

    Returns
    -------
    str
    """
    if len(atoms) == 0:
        return "no atoms"
    if not np.isfinite(atoms.positions).all():
        return "positions are not finite"
    if atoms.numbers.min() < 1 or atoms.numbers.max() > _HEAVIEST:
        return f"unknown elements in {atoms.symbols}"
    electrons = int(atoms.numbers.sum()) - int(charge)
    if electrons < 0 or electrons % 2:
        return f"odd electron count: {electrons} for {atoms.symbols} charge {charge:+d}"
    return ""


@cache
def _mopac():
    package = importlib.util.find_spec("mopactools")
    if package is not None and hasattr(os, "RTLD_DEEPBIND"):
        modes = {
            # Bound to itself first it would see the empty environment of the C library
            # where the program has another (as Python of Debian), and end the process.
            "libiomp5.so": os.RTLD_NOW,
            # Its own functions first: other programs (quippy, for one) export some of
            # the same names to all, which gives wrong results or ends the process.
            "libmopac.so": os.RTLD_NOW | os.RTLD_DEEPBIND,
        }
        for name, mode in modes.items():
            library = Path(package.origin).parent / "lib" / name
            if library.exists():
                ctypes.CDLL(str(library), mode=mode)
    return _program("mopactools.api", "mopactools")


def _program(module, package):
    """Imported module of an optional package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"this engine needs the package {package}: install it, for example with "
            f"`pip install {package}` ({error})"
        ) from None
