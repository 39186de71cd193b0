"""Crystals of ions by the exact potential: strained, with displaced ions."""

import numpy as np
from ase.build import bulk

from job import started_job
from liquid_frames import labelled
from lode.datasets.frames import write_frames
from lode.datasets.salt import IonicSalt


def crystal_frames(
    path, *, constant, repeats, strain, displacement, n_frames, potential, seed
):
    """Write rock salt with random strains and displacements.

    Parameters
    ----------
    path : path_like
        File to write: frames with energies, forces and stress.
    constant : float
        Lattice constant before the strain, in Å.
    repeats : int
        Conventional cells along each axis.
    strain : float
        Largest component of the strain, which is uniform about zero.
    displacement : float
        Standard deviation of the displacements in Å.
    n_frames : int
    potential : dict
        Arguments of :class:`lode.datasets.salt.IonicSalt`.
    seed : int
    """
    generator = np.random.default_rng(seed)
    calculator, frames = IonicSalt(**potential), []
    for _ in range(n_frames):
        atoms = rock_salt(constant, 3 * (repeats,))
        change = generator.uniform(-strain, strain, (3, 3))
        atoms.set_cell(
            atoms.cell @ (np.eye(3) + 0.5 * (change + change.T)), scale_atoms=True
        )
        atoms.positions += generator.normal(0.0, displacement, (len(atoms), 3))
        atoms.calc = calculator
        frames.append(labelled(atoms))
    write_frames(path, frames)


def rock_salt(constant, repeats):
    """Rock salt with a charge of one on each ion, in conventional cells.

    Parameters
    ----------
    constant : float
        Lattice constant in Å.
    repeats : tuple of three int

    Returns
    -------
    ase.Atoms
    """
    atoms = bulk("NaCl", "rocksalt", a=constant, cubic=True) * repeats
    atoms.set_initial_charges(np.where(atoms.numbers == 11, 1.0, -1.0))
    return atoms


if "snakemake" in globals():
    job = started_job(globals())
    crystal_frames(job.output.frames, **job.params.settings)
