"""Binding curves of the dimers, with their checks."""

import math

from csv_tables import write_table
from job import started_job
from lode.datasets.acquire import provenance_line, read_provenance
from lode.datasets.curves import checks, joined_curves, published_curves
from lode.datasets.dimers import read_dimers
from lode.datasets.frames import read_frames, write_frames
from lode.files import read_json


def dimer_curves(
    provenance_path,
    dimers_path,
    energies_paths,
    curves_path,
    excluded_path,
    checks_path,
    *,
    curve,
):
    """Write the curves, the frames left out and what the checks say.

    Parameters
    ----------
    provenance_path : path_like
        Says what the data are.
    dimers_path : path_like
        Dimers, or published curves.
    energies_paths : sequence of path_like
        Energies of all parts of the dimers, in their order.
    curves_path : path_like
        Extended XYZ to write: the frames, by name and distance, with ``kind``
        (``training`` or ``far``), ``distance`` in Å and ``e_int_ev`` as well.
    excluded_path : path_like
        Table to write: ``name,kind,distance,reason``.
    checks_path : path_like
        Table to write: ``check,value``.
    curve : dict
        Settings of the distances.
    """
    record, _ = read_provenance(provenance_path)
    parts = [read_json(path) for path in energies_paths]
    if record["source"] == "published":
        curves = published_curves(read_frames(dimers_path))
    else:
        rows = [row for part in parts for row in part["curves"]]
        curves = joined_curves(read_dimers(dimers_path), rows, curve)
    # Programs of different machines may be of different versions.
    method = " and ".join(sorted({part["method"] for part in parts}))
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


def _printed(value):
    """Four significant digits, or a whole number; empty if there is no value."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}" if math.isfinite(value) else ""


if "snakemake" in globals():
    job = started_job(globals())
    dimer_curves(
        job.input.provenance,
        job.input.dimers,
        job.input.energies,
        job.output.curves,
        job.output.excluded,
        job.output.checks,
        curve=job.params.curve,
    )
