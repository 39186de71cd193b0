"""Properties of rock salt by the exact potential and by models of it."""

import numpy as np
from ase import units
from scipy.optimize import brentq

import model_modules  # noqa: F401
from crystal_frames import rock_salt
from dynamics import energy_drift, microcanonical, recorded, thermalised
from job import started_job
from lode.calculator import LODECalculator
from lode.datasets.salt import IonicSalt
from lode.files import write_json

# Strains of the elastic constants and displacements in Å of the phonons.
_STRAIN, _DISPLACEMENT = 1e-3, 1e-2
# 1 eV/(Å² u) is the square of so many THz.
_TERAHERTZ = np.sqrt(1.0 / units._amu * units._e) * 1e10 / (2 * np.pi * 1e12)


def crystal(model_path, path, *, potential, constant, waves, dynamics, seed):
    """Write the properties as JSON.

    Parameters
    ----------
    model_path : path_like or None
        File of a model; ``None`` for the exact potential.
    path : path_like
        File to write: ``constant`` in Å, ``bulk``, ``c11``, ``c12`` and ``c44`` in
        GPa, ``lo`` and ``to`` in THz at each wave number ``q`` in 1/Å, ``drift`` in
        meV/atom/ps.
    potential : dict
        Arguments of :class:`lode.datasets.salt.IonicSalt`.
    constant : float
        About the lattice constant, in Å.
    waves : sequence of int
        Conventional cells along the waves of the phonons.
    dynamics : dict
        Of a run at constant energy: ``thermal_energy`` in eV, ``timestep`` in fs,
        ``length`` in ps, ``every`` steps a record, ``repeats`` of the cell.
    seed : int
    """
    if model_path is None:
        calculator = IonicSalt(**potential)
    else:
        calculator = LODECalculator(model_path, n_threads=1)
    constant = lattice_constant(calculator, constant)
    c11, c12, c44 = elastic_constants(calculator, constant)
    branches = [optical_phonons(calculator, constant, n) for n in sorted(waves)[::-1]]
    found = {"constant": constant, "bulk": (c11 + 2 * c12) / 3}
    found |= {"c11": c11, "c12": c12, "c44": c44}
    found["q"] = [2 * np.pi / (n * constant) for n in sorted(waves)[::-1]]
    found["lo"], found["to"] = zip(*branches, strict=True)
    found["drift"] = _drift(calculator, constant, seed, **dynamics)
    write_json(path, found, indent=1)


def lattice_constant(calculator, near):
    """Where the pressure vanishes, in Å."""

    def pressure(constant):
        atoms = rock_salt(constant, (1, 1, 1))
        atoms.calc = calculator
        return atoms.get_stress()[:3].sum()

    return brentq(pressure, 0.95 * near, 1.05 * near, xtol=1e-6)


def elastic_constants(calculator, constant):
    """C₁₁, C₁₂ and C₄₄ in GPa, from the stress of small strains."""

    def stress(i, j, amount):
        atoms = rock_salt(constant, (1, 1, 1))
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = amount
        atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
        atoms.calc = calculator
        return atoms.get_stress()

    # In an engineering strain of twice the amount for the shear.
    along = (stress(0, 0, _STRAIN) - stress(0, 0, -_STRAIN)) / (2 * _STRAIN)
    shear = (stress(1, 2, _STRAIN) - stress(1, 2, -_STRAIN)) / (4 * _STRAIN)
    return tuple(float(c / units.GPa) for c in (along[0], along[1], shear[3]))


def optical_phonons(calculator, constant, waves):
    """Frequencies in THz of the optical modes along [100], longitudinal and transverse.

    Of the smallest wave vector that fits into so many conventional cells in a row. Both
    sublattices follow a cosine, by symmetry: the dynamical matrix has two rows.
    """
    atoms = rock_salt(constant, (waves, 1, 1))
    atoms.calc = calculator
    wave = np.cos(2 * np.pi * atoms.positions[:, 0] / (waves * constant))
    kinds = [atoms.numbers == z for z in (11, 17)]
    masses = [atoms.get_masses()[kind][0] for kind in kinds]
    found, rest = [], atoms.positions.copy()
    for axis in (0, 1):
        constants = np.zeros((2, 2))
        for j, kind in enumerate(kinds):
            change = np.zeros_like(rest)
            change[kind, axis] = _DISPLACEMENT * wave[kind]
            force = 0.0
            for sign in (1, -1):
                atoms.positions = rest + sign * change
                force = force + sign * atoms.get_forces()[:, axis]
            for i, other in enumerate(kinds):
                # The part of the force that follows the wave.
                along = force[other] @ wave[other] / (wave[other] @ wave[other])
                constants[i, j] = -along / (2 * _DISPLACEMENT)
        roots = np.sqrt(np.outer(masses, masses))
        square = np.linalg.eigvalsh(0.5 * (constants + constants.T) / roots)[-1]
        found.append(float(np.sqrt(square) * _TERAHERTZ))
    return found


def _drift(
    calculator, constant, seed, *, thermal_energy, timestep, length, every, repeats
):
    """Slope of the total energy at constant energy and volume, in meV/atom/ps."""
    atoms = rock_salt(constant, 3 * (repeats,))
    atoms.calc = calculator
    # Half of it becomes potential energy.
    thermalised(atoms, 2.0 * thermal_energy, seed)
    integrator = microcanonical(atoms, timestep)
    kept = recorded(integrator, timestep, length, every, "nve")
    return energy_drift(kept["time"], kept["total"], len(atoms))


if "snakemake" in globals():
    job = started_job(globals())
    crystal(job.input.get("model") or None, job.output.found, **job.params.settings)
