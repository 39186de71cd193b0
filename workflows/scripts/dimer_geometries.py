"""The charged dimers of the data, whatever their source, in one form."""

from job import started_job
from lode.datasets.acquire import read_provenance
from lode.datasets.dimers import (
    charged_dimers,
    read_dimers,
    read_published_curves,
    read_ssi,
)
from lode.datasets.engines import engine as named_engine
from lode.datasets.frames import write_frames
from lode.datasets.synthetic import monomers, synthetic_dimers


def dimer_geometries(provenance_path, path, *, elements, generated, engine):
    """Write the charged dimers as extended XYZ.

    Parameters
    ----------
    provenance_path : path_like
        Says what the data are; published data lie beside it.
    path : path_like
        File to write: one frame for each dimer, or, where the curves themselves are
        published, all their frames.
    elements : sequence of str
        Chemical symbols that may occur.
    generated : dict
        Settings of the stand-in: ``n_dimers``, ``contact``, ``nearest``, ``seed``.
    engine : str
        Name of the engine that relaxes the stand-in's molecules.
    """
    record, data = read_provenance(provenance_path)
    if record["source"] == "published":
        curves = read_published_curves(data, log=print)
        by_name = {curve[0].info["name"]: curve for curve in curves}
        first = charged_dimers([curve[0] for curve in curves], elements, log=print)
        frames = [frame for a in first for frame in by_name[a.info["name"]]]
    else:
        if record["source"] == "generated":
            dimers = synthetic_dimers(
                molecules=monomers(named_engine(engine)), **generated
            )
        elif data.suffix == ".py":
            dimers = read_ssi(data)
        else:
            dimers = read_dimers(data)
        frames = charged_dimers(dimers, elements, log=print)
    write_frames(path, frames)


if "snakemake" in globals():
    job = started_job(globals())
    dimer_geometries(
        job.input.provenance,
        job.output.dimers,
        elements=job.params.elements,
        generated=job.params.generated,
        engine=job.params.engine,
    )
