"""A model of charged dimers: learnt where they are near, tested where they are far."""

import numpy as np

import model_modules  # noqa: F401
from csv_tables import write_table
from job import started_job
from lode.datasets.frames import read_frames
from lode.serialization import from_dict

COLUMNS = (
    *("composition", "distance", "energy", "predicted"),
    *("force_square", "force_error", "set"),
)


def force_dimer_model(
    frames_path, predictions_path, cross_path, *, model, near, copies, seed
):
    """Learn from the near frames, predict the far ones.

    Parameters
    ----------
    frames_path : path_like
        Frames with energies and forces, and distances in ``info``.
    predictions_path : path_like
        Table to write: for each far frame its composition, distance in Å, energy and
        predicted energy in eV, and the mean square error and mean absolute error of the
        components of its forces, in (eV/Å)² and eV/Å.
    cross_path : path_like
        Table to write: ``cross_validation``, root mean square error of the near frames
        in units of the noises, and ``regularization``.
    model : dict
        A SparseGaussianProcess as :func:`lode.serialization.to_dict` writes it.
    near : float
        Distance in Å below which frames are learnt from.
    copies : dict
        Of each near frame ``number`` copies, with atoms displaced by ``size`` Å, give
        sparse points, too: forces of few frames need more than these have atoms.
    seed : int
        Of the displacements.
    """
    frames = read_frames(frames_path)
    distances = np.array([frame.info["distance"] for frame in frames])
    train = [frame for frame, d in zip(frames, distances, strict=True) if d < near]
    test = [frame for frame, d in zip(frames, distances, strict=True) if d >= near]
    generator, displaced = np.random.default_rng(seed), []
    for frame in train:
        for _ in range(copies["number"]):
            copy = frame.copy()
            copy.positions += generator.normal(0.0, copies["size"], (len(copy), 3))
            displaced.append(copy)
    fitted = from_dict(model).fit(
        train,
        [frame.get_potential_energy() for frame in train],
        forces=[frame.get_forces() for frame in train],
        sparse_frames=[*train, *displaced],
        progress=True,
    )
    rows = []
    for kind, some in (("train", train), ("test", test)):
        found = fitted.predict(some, forces=True)
        for frame, energy, forces in zip(some, found.energy, found.forces, strict=True):
            apart = abs(forces - frame.get_forces())
            errors = float(np.mean(apart**2)), float(np.mean(apart))
            known = frame.get_chemical_formula(), float(frame.info["distance"])
            energies = frame.get_potential_energy(), float(energy)
            rows.append((*known, *map(repr, map(float, energies)), *errors, kind))
    write_table(predictions_path, COLUMNS, rows)
    solution = fitted.solution
    cells = float(solution.errors.min()), float(solution.regularization)
    write_table(cross_path, ["cross_validation", "regularization"], [cells])


if "snakemake" in globals():
    job = started_job(globals())
    force_dimer_model(
        job.input.frames, job.output.predictions, job.output.cross, **job.params.own
    )
