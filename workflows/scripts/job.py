"""The job that Snakemake gave to a script."""

import sys
from contextlib import suppress
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
    sys.excepthook = _report
    sys.stdout = sys.stderr = open(job.log[0], "w", buffering=1)  # noqa: SIM115
    return job


def _report(kind, error, trace):
    """Write an error to the terminal in one line, and with its trace to the log.

    The disk may be full, and the log on it.
    """
    log, sys.stdout, sys.stderr = sys.stderr, sys.__stdout__, sys.__stderr__
    print(f"{kind.__name__}: {error} (log: {log.name})", file=sys.stderr)
    with suppress(OSError), log:
        sys.stderr = log
        sys.__excepthook__(kind, error, trace)
    sys.stderr = sys.__stderr__
