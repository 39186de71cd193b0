"""Boxes of water with their dielectric tensors, whatever their source, in one form."""

from job import started_job
from lode.datasets.acquire import read_provenance
from lode.datasets.frames import write_frames
from lode.datasets.water import read_boxes, synthetic_boxes


def water_boxes(provenance_path, path, *, generated, n_threads=None):
    """Write the boxes as extended XYZ.

    Parameters
    ----------
    provenance_path : path_like
        Says what the data are; published data lie beside it.
    path : path_like
        File to write: frames with ``epsilon`` and ``epsilon_trace``.
    generated : dict
        Settings of the stand-in: ``n_frames``, ``n_sweeps``, ``n_burn_in``, ``seed``.
    n_threads : int, optional
        Threads to use.
    """
    record, data = read_provenance(provenance_path)
    if record["source"] == "published":
        boxes = read_boxes(data)
    else:
        boxes = synthetic_boxes(**generated, n_threads=n_threads, progress=True)
    write_frames(path, boxes)


if "snakemake" in globals():
    job = started_job(globals())
    water_boxes(
        job.input.provenance,
        job.output.boxes,
        generated=job.params.generated,
        n_threads=job.threads,
    )
