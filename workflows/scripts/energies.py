"""Coulomb energies of the frames of the gas."""

from csv_tables import write_table
from job import started_job
from lode.datasets.frames import read_frames
from lode.datasets.gas import check_published_energies
from lode.electrostatics import ewald_energies


def energies(frames_path, path, *, tolerance, first=0, n_threads=None):
    """Write the Ewald energy of each frame.

    Parameters
    ----------
    frames_path : path_like
        Extended XYZ with charges. Energies of published frames must agree with ours.
    path : path_like
        Table to write: ``frame,energy`` with the energy in eV.
    tolerance : float
        Relative accuracy of the Ewald sums.
    first : int
        Index of the first frame among all.
    n_threads : int, optional
        Threads to use.
    """
    frames = read_frames(frames_path)
    values = ewald_energies(
        frames, tolerance=tolerance, n_threads=n_threads, progress=True
    )
    check_published_energies(frames, values, first, log=print)
    write_table(path, ["frame", "energy"], enumerate(values.tolist(), first))


if "snakemake" in globals():
    job = started_job(globals())
    energies(
        job.input.frames,
        job.output.energies,
        first=job.params.first,
        **job.params.settings,
        n_threads=job.threads,
    )
