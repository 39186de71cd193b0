"""Molecular dynamics for the examples, by ASE's integrators, and what is kept of it."""

import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from tqdm import tqdm

# Of thermostats and barostat, in fs.
_FRICTION, _THERMOSTAT, _BAROSTAT = 100.0, 100.0, 1000.0


def thermalised(atoms, energy, seed):
    """Give atoms velocities at a thermal energy in eV, without any net momentum.

    Parameters
    ----------
    atoms : ase.Atoms
        Changed in place.
    energy : float
        kT in eV.
    seed : int
    """
    spread = np.sqrt(atoms.get_masses() * energy)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    Stationary(atoms)


def equilibrated(atoms, energy, *, timestep, length, seed):
    """Run Langevin dynamics at fixed volume.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator and velocities; changed in place.
    energy : float
        kT in eV.
    timestep, length : float
        In fs and ps.
    seed : int
    """
    integrator = Langevin(
        atoms,
        timestep * units.fs,
        temperature_K=energy / units.kB,
        friction=1.0 / (_FRICTION * units.fs),
        rng=np.random.default_rng(seed),
    )
    integrator.run(_steps(length, timestep))
    Stationary(atoms)


def microcanonical(atoms, timestep):
    """Integrator at constant energy and volume."""
    return VelocityVerlet(atoms, timestep * units.fs)


def at_pressure(atoms, timestep, energy, pressure):
    """Integrator at constant kT in eV and pressure in GPa; the cell keeps its shape."""
    return IsotropicMTKNPT(
        atoms,
        timestep * units.fs,
        temperature_K=energy / units.kB,
        pressure_au=pressure * units.GPa,
        tdamp=_THERMOSTAT * units.fs,
        pdamp=_BAROSTAT * units.fs,
    )


def recorded(integrator, timestep, length, every, title):
    """Run and keep what is seen at regular times.

    Parameters
    ----------
    integrator : ase.md.md.MolecularDynamics
    timestep, length : float
        In fs and ps.
    every : int
        Steps from one time to the next.
    title : str
        Of the progress bar.

    Returns
    -------
    dict of str to ndarray
        For each time ``time`` in ps, ``total`` energy in eV, ``pressure`` in GPa with
        that of the motion, ``side`` of the cell's first vector in Å, and ``positions``
        as they move on, not wrapped.
    """
    atoms, kept = integrator.atoms, []
    for i in tqdm(range(_steps(length, timestep) // every), desc=title, unit="time"):
        integrator.run(every)
        stress = atoms.get_stress(include_ideal_gas=True)
        kept.append(
            {
                "time": (i + 1) * every * timestep / 1000.0,
                "total": atoms.get_total_energy(),
                "pressure": -stress[:3].mean() / units.GPa,
                "side": atoms.cell.lengths()[0],
                "positions": atoms.get_positions(),
            }
        )
    return {name: np.array([each[name] for each in kept]) for name in kept[0]}


def energy_drift(time, total, n_atoms):
    """Slope of energies in eV over times in ps, in meV/atom/ps."""
    return float(1e3 * np.polyfit(time, total, 1)[0] / n_atoms)


def _steps(length, timestep):
    return round(1000.0 * length / timestep)
