"""Frames of the random gas of point charges, whatever their source, in one form."""

from job import started_job
from lode.datasets.acquire import read_provenance
from lode.datasets.frames import write_frames
from lode.datasets.gas import gas_frames, read_published_gas


def gas(
    path,
    *,
    n_frames,
    n_pairs,
    side,
    min_distance,
    seed,
    first=0,
    provenance_path=None,
):
    """Write the frames, with their charges, as extended XYZ.

    Parameters
    ----------
    path : path_like
        File to write.
    n_frames : int
        Number of frames.
    n_pairs : int
        Positive charges per frame; there are as many negative ones.
    side : sequence of float
        Smallest and largest side of the cubic box in Å.
    min_distance : float
        Smallest distance of two charges in Å.
    seed : int
        Seed of the random numbers.
    first : int
        Index of the first frame among all.
    provenance_path : path_like, optional
        Says what the data are: of published ones, which lie beside it, these frames are
        written, whatever the other settings; by default they are generated.
    """
    data = None
    if provenance_path is not None:
        _, data = read_provenance(provenance_path)
    if data is not None:
        frames = read_published_gas(data, n_frames, first)
    else:
        frames = gas_frames(
            n_frames,
            first=first,
            n_pairs=n_pairs,
            side=tuple(side),
            min_distance=min_distance,
            seed=seed,
            progress=True,
        )
    write_frames(path, frames)


if "snakemake" in globals():
    job = started_job(globals())
    gas(
        job.output.frames,
        **job.params.chunk,
        **job.params.settings,
        provenance_path=job.input.provenance,
    )
