"""The job that Snakemake gave to a script."""

import sys


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
    sys.stdout = sys.stderr = open(job.log[0], "w", buffering=1)  # noqa: SIM115
    return job
