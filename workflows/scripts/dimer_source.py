"""Where the dimers come from: a mirror, a download, or a stand-in."""

from pathlib import Path

from job import started_job
from lode.datasets.acquire import acquire, provenance_line


def dimer_source(provenance_path, *, source, mirror=None):
    """Get the dimers' data and write their provenance.

    Parameters
    ----------
    provenance_path : path_like
        File to write; the data are put beside it.
    source : str
        ``auto``, ``published``, ``bfdb`` or ``generated``.
    mirror : path_like, optional
        Folder with copies of published files.
    """
    folder = Path(provenance_path).parent
    print(provenance_line(acquire("dimers", folder, source=source, mirror=mirror)))


if "snakemake" in globals():
    job = started_job(globals())
    dimer_source(
        job.output.provenance, source=job.params.source, mirror=job.params.mirror
    )
