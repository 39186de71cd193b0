"""A liquid of ions by the exact potential: frames to learn from, and states to run."""

from ase.calculators.singlepoint import SinglePointCalculator

from dynamics import at_pressure, equilibrated, thermalised
from job import started_job
from lode.datasets.frames import write_frames
from lode.datasets.gas import gas_frames
from lode.datasets.salt import IonicSalt

# Of the first box, filled at random: closest distance in Å and steps of the way down.
_CLOSEST, _RELAXATION = 2.2, 200


def liquid_frames(
    frames_path,
    starts_path,
    *,
    n_pairs,
    side,
    thermal_energy,
    pressure,
    potential,
    timestep,
    equilibration,
    n_frames,
    spacing,
    n_starts,
    seed,
):
    """Write frames of the liquid at constant pressure, and equilibrated states.

    Parameters
    ----------
    frames_path : path_like
        File to write: frames with energies, forces and stress.
    starts_path : path_like
        File to write: states with velocities, all in the mean volume.
    n_pairs : int
        Ions of each kind.
    side : float
        Of the first cube, in Å.
    thermal_energy : float
        kT in eV.
    pressure : float
        In GPa.
    potential : dict
        Arguments of :class:`lode.datasets.salt.IonicSalt`.
    timestep : float
        In fs.
    equilibration : float
        Length of runs before anything is kept, in ps.
    n_frames : int
    spacing : float
        Time between two frames in ps.
    n_starts : int
    seed : int
    """
    sides = side, side
    (atoms,) = gas_frames(
        1, n_pairs=n_pairs, side=sides, min_distance=_CLOSEST, seed=seed
    )
    atoms.calc = IonicSalt(**potential)
    settings = {"timestep": timestep, "length": equilibration}
    _relaxed(atoms)
    thermalised(atoms, thermal_energy, seed)
    equilibrated(atoms, thermal_energy, seed=seed, **settings)
    integrator = at_pressure(atoms, timestep, thermal_energy, pressure)
    steps = round(1000.0 * spacing / timestep)
    integrator.run(round(1000.0 * equilibration / timestep))
    frames, sides = [], []
    for i in range(n_frames):
        integrator.run(steps)
        frames.append(labelled(atoms))
        sides.append(atoms.cell.lengths()[0])
        print(f"frame {i + 1} of {n_frames}, side {sides[-1]:.3f} Å")
    write_frames(frames_path, frames)
    starts = []
    atoms.set_cell(3 * [sum(sides) / len(sides)], scale_atoms=True)
    for i in range(n_starts):
        equilibrated(atoms, thermal_energy, seed=seed + 1 + i, **settings)
        starts.append(atoms.copy())
    write_frames(starts_path, starts)


def labelled(atoms):
    """Copy of atoms at rest with the energy, forces and stress of their calculator."""
    frame = atoms.copy()
    frame.arrays.pop("momenta", None)
    results = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def _relaxed(atoms):
    """Ions that were put down at random, a little down the slope of their energy."""
    for _ in range(_RELAXATION):
        forces = atoms.get_forces()
        atoms.positions += 0.02 * forces / max(1.0, abs(forces).max())


if "snakemake" in globals():
    job = started_job(globals())
    liquid_frames(job.output.frames, job.output.starts, **job.params.settings)
