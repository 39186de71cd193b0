"""Where a set of data comes from: a mirror, a download, or a stand-in."""

from pathlib import Path

from job import started_job
from lode.datasets.acquire import SOURCES, acquire, provenance_line
from lode.files import remove_leftovers


def source(provenance_path, data_set, *, source, mirror=None):
    """Get the data of one set and write their provenance.

    Parameters
    ----------
    provenance_path : path_like
        File to write; the data are put beside it.
    data_set : {'gas', 'dimers', 'water', 'force_dimers'}
        Which data.
    source : str
        ``auto``, ``published``, ``generated`` or another source of the set.
    mirror : path_like, optional
        Folder with copies of published files.
    """
    folder = Path(provenance_path).parent
    for file in SOURCES[data_set].values():
        for name in (file.name, *(name for name, *_ in file.derived)):
            remove_leftovers(folder / name)
    print(provenance_line(acquire(data_set, folder, source=source, mirror=mirror)))


if "snakemake" in globals():
    job = started_job(globals())
    source(
        job.output.provenance,
        job.params.data_set,
        source=job.params.source,
        mirror=job.params.mirror,
    )
