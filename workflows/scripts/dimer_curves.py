"""Binding curves of the dimers, with their checks."""

import math
import shutil
from pathlib import Path

from csv_tables import write_table
from job import started_job
from lode.datasets.acquire import provenance_line, read_provenance
from lode.datasets.curves import checks, published_curves, reference_curves
from lode.datasets.dimers import read_dimers
from lode.datasets.engines import engine as named_engine
from lode.datasets.frames import read_frames, write_frames


def dimer_curves(
    provenance_path,
    dimers_path,
    curves_path,
    excluded_path,
    checks_path,
    *,
    engine,
    curve,
    charge_tolerance,
    n_processes=1,
    key="",
):
    """Write the curves, the frames left out and what the checks say.

    Parameters
    ----------
    provenance_path : path_like
        Says what the data are.
    dimers_path : path_like
        Dimers, or published curves.
    curves_path : path_like
        Extended XYZ to write: the frames, by name and distance, with ``kind``
        (``training`` or ``far``), ``distance`` in Å and ``e_int_ev`` as well.
    excluded_path : path_like
        Table to write: ``name,kind,distance,reason``.
    checks_path : path_like
        Table to write: ``check,value``.
    engine : str
        Name of the engine.
    curve : dict
        Settings of the distances.
    charge_tolerance : float
        Largest error of a molecule's charge in e.
    n_processes : int
        Worker processes.
    key : str
        Hash of the code: chunks of other code are not used.
    """
    record, _ = read_provenance(provenance_path)
    if record["source"] == "published":
        curves, method = published_curves(read_frames(dimers_path)), "published"
    else:
        program = named_engine(engine)
        method = f"{program.name}, {program.version}"
        chunks = Path(curves_path).with_name("chunks")
        curves = reference_curves(
            read_dimers(dimers_path),
            program,
            chunks,
            distances=curve,
            charge_tolerance=charge_tolerance,
            n_processes=n_processes,
            key=key,
            progress=True,
        )
    if not curves.frames:
        reason = curves.excluded[0].reason if curves.excluded else "there were none"
        raise ValueError(f"there must be frames with an energy, got none: {reason}")
    found = checks(curves)
    print(f"{found['n_frames']} frames, {found['n_excluded']} left out")
    rows = [("data", provenance_line(record)), ("energies", method)]
    rows += [(name, _printed(value)) for name, value in found.items()]
    columns = ["name", "kind", "distance", "reason"]
    excluded = ((d.name, d.kind, d.distance, d.reason) for d in curves.excluded)
    write_table(excluded_path, columns, excluded)
    write_table(checks_path, ["check", "value"], rows)
    write_frames(curves_path, curves.frames)
    if record["source"] != "published":
        shutil.rmtree(chunks)


def _printed(value):
    """Four significant digits, or a whole number; empty if there is no value."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}" if math.isfinite(value) else ""


# The worker processes load this file as well: there it must not start a job.
if "snakemake" in globals() and __name__ == "__main__":
    job = started_job(globals())
    dimer_curves(
        job.input.provenance,
        job.input.dimers,
        job.output.curves,
        job.output.excluded,
        job.output.checks,
        engine=job.params.engine,
        curve=job.params.curve,
        charge_tolerance=job.params.charge_tolerance,
        n_processes=job.threads,
        key=job.params.code,
    )
