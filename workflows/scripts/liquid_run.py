"""A run of the liquid, by the exact potential or by a model of it."""

import model_modules  # noqa: F401
from dynamics import at_pressure, microcanonical, recorded, thermalised
from job import started_job
from lode.archive import save_archive
from lode.calculator import LODECalculator
from lode.datasets.frames import read_frames
from lode.datasets.salt import IonicSalt

KIND = "liquid run"


def liquid_run(
    starts_path,
    model_path,
    run_path,
    *,
    ensemble,
    start,
    thermal_energy,
    pressure,
    potential,
    timestep,
    length,
    every,
    seed,
):
    """Run from one of the states and write what :func:`dynamics.recorded` keeps.

    Parameters
    ----------
    starts_path : path_like
        States with velocities.
    model_path : path_like or None
        File of a model; ``None`` for the exact potential.
    run_path : path_like
        Archive to write.
    ensemble : {"nve", "npt"}
        Constant energy and volume, or kT and pressure.
    start : int
        Which state.
    thermal_energy, pressure, potential, timestep, seed
        As for :func:`liquid_frames.liquid_frames`.
    length : float
        In ps.
    every : int
        Steps between two records.
    """
    atoms = read_frames(starts_path)[start]
    if model_path is None:
        atoms.calc = IonicSalt(**potential)
    else:
        atoms.calc = LODECalculator(model_path, n_threads=1)
    if ensemble == "npt":
        thermalised(atoms, thermal_energy, seed)
        integrator = at_pressure(atoms, timestep, thermal_energy, pressure)
    else:
        integrator = microcanonical(atoms, timestep)
    kept = recorded(integrator, timestep, length, every, ensemble)
    header = {"version": 1, "species": atoms.numbers.tolist()}
    save_archive(run_path, KIND, header, kept)


if "snakemake" in globals():
    job = started_job(globals())
    model = job.input.get("model")
    wildcards = job.wildcards
    liquid_run(
        job.input.starts,
        model or None,
        job.output.run,
        ensemble=wildcards.ensemble,
        start=int(wildcards.start),
        **job.params.settings,
    )
