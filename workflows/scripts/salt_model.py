"""A model of ions: learnt from energies, forces and stress, and its errors."""

import numpy as np

import model_modules  # noqa: F401
from csv_tables import write_table
from job import started_job
from lode.datasets.frames import read_frames
from lode.serialization import from_dict


def salt_model(frames_path, model_path, errors_path, *, model, n_train, n_test):
    """Learn from the first frames, test on the last ones.

    Parameters
    ----------
    frames_path : path_like
        Frames with energies, forces and stress.
    model_path : path_like
        File of the model to write.
    errors_path : path_like
        Table to write: ``energy_error`` in meV/atom and ``force_error`` in meV/Å, means
        of absolute errors on the test frames.
    model : dict
        A SparseGaussianProcess as :func:`lode.serialization.to_dict` writes it.
    n_train, n_test : int
        Frames to learn from, spread evenly over all but the test frames, and to test
        on.
    """
    frames = read_frames(frames_path)
    known, new = frames[:-n_test], frames[-n_test:]
    places = np.linspace(0, len(known) - 1, n_train).round().astype(int)
    train = [known[i] for i in places]
    fitted = from_dict(model).fit(
        train,
        energies_of(train),
        forces=[frame.get_forces() for frame in train],
        stress=[frame.get_stress() for frame in train],
        progress=True,
    )
    fitted.save(model_path)
    found = fitted.predict(new, forces=True)
    per_atom = (found.energy - energies_of(new)) / [len(frame) for frame in new]
    forces = np.concatenate([frame.get_forces() for frame in new])
    errors = (
        1e3 * abs(per_atom).mean(),
        1e3 * abs(np.concatenate(found.forces) - forces).mean(),
    )
    columns = "n_train", "energy_error", "force_error"
    write_table(errors_path, columns, [(n_train, *map(repr, map(float, errors)))])


def energies_of(frames):
    """Energies of frames."""
    return np.array([frame.get_potential_energy() for frame in frames])


if "snakemake" in globals():
    job = started_job(globals())
    salt_model(job.input.frames, job.output.model, job.output.errors, **job.params.own)
