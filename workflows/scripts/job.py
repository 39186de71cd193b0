"""The job that Snakemake gave to a script."""

import sys
from pathlib import Path

from lode.files import remove_leftovers


def started_job(namespace):
    """Job of the running script; from here on its messages go to its log.

    Parameters
    ----------
    namespace : dict
        The script's global names, among them Snakemake's ``snakemake``.

    Returns
    -------
    object
        With ``input``, ``output``, ``params``, ``wildcards`` and ``threads``.
    """
    job = namespace["snakemake"]
    # Of a run that was killed; Snakemake's lock keeps others from writing here.
    for path in map(Path, job.output):
        remove_leftovers(path)
    sys.stdout = sys.stderr = open(job.log[0], "w", buffering=1)  # noqa: SIM115
    return job
