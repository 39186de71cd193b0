"""Reference energies along the binding curves of a part of the dimers."""

import shutil
from pathlib import Path

from job import started_job
from lode.datasets.acquire import read_provenance
from lode.datasets.curves import curve_energies, part_of
from lode.datasets.dimers import read_dimers
from lode.datasets.engines import engine as named_engine
from lode.files import write_json


def dimer_energies(
    provenance_path,
    dimers_path,
    path,
    *,
    engine,
    curve,
    charge_tolerance,
    index=0,
    n_parts=1,
    n_processes=1,
    key="",
):
    """Write the energies along the curves; none of published curves, which have them.

    Parameters
    ----------
    provenance_path : path_like
        Says what the data are.
    dimers_path : path_like
        Dimers, or published curves.
    path : path_like
        JSON file to write. Finished dimers are kept in a folder of its name until all
        are done: a run that was interrupted goes on where it was.
    engine : str
        Name of the engine.
    curve : dict
        Settings of the distances.
    charge_tolerance : float
        Largest error of a molecule's charge in e.
    index, n_parts : int
        Which of how many parts of the dimers.
    n_processes : int
        Worker processes.
    key : str
        Hash of the code: energies by other code are not used.
    """
    record, _ = read_provenance(provenance_path)
    if record["source"] == "published":
        write_json(path, {"method": "published", "curves": []})
        return
    program, folder = named_engine(engine), Path(path).with_suffix("")
    rows = curve_energies(
        part_of(read_dimers(dimers_path), index, n_parts),
        program,
        folder,
        distances=curve,
        charge_tolerance=charge_tolerance,
        n_processes=n_processes,
        key=key,
        progress=True,
    )
    method = f"{program.name}, {program.version}"
    write_json(path, {"method": method, "curves": rows})
    shutil.rmtree(folder, ignore_errors=True)


# The worker processes load this file as well: there it must not start a job.
if "snakemake" in globals() and __name__ == "__main__":
    job = started_job(globals())
    dimer_energies(
        job.input.provenance,
        job.input.dimers,
        job.output.energies,
        engine=job.params.engine,
        curve=job.params.curve,
        charge_tolerance=job.params.charge_tolerance,
        index=int(job.wildcards.chunk),
        n_parts=job.params.n_parts,
        n_processes=job.threads,
        key=job.params.code,
    )
