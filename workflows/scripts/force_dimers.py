"""Charged dimers with forces, published or a stand-in, in one form."""

from job import started_job
from lode.datasets.acquire import read_provenance
from lode.datasets.engines import engine as named_engine
from lode.datasets.force_dimers import read_force_dimers, synthetic_force_dimers
from lode.datasets.frames import write_frames
from lode.datasets.synthetic import monomers


def force_dimers(provenance_path, path, *, generated, engine):
    """Write the dimers as extended XYZ, with energies and forces.

    Parameters
    ----------
    provenance_path : path_like
        Says what the data are; published data lie beside it.
    path : path_like
        File to write.
    generated : dict
        Settings of the stand-in, see
        :func:`lode.datasets.force_dimers.synthetic_force_dimers`.
    engine : str
        Name of the engine of the stand-in.
    """
    record, data = read_provenance(provenance_path)
    if record["source"] == "published":
        frames = read_force_dimers(data)
    else:
        program = named_engine(engine)
        frames = synthetic_force_dimers(program, monomers(program), **generated)
    write_frames(path, frames)


if "snakemake" in globals():
    job = started_job(globals())
    force_dimers(
        job.input.provenance,
        job.output.frames,
        generated=job.params.generated,
        engine=job.params.engine,
    )
