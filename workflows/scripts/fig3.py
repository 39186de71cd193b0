"""Figure 3: learning curves of the dielectric response of water."""

from csv_tables import checked_copy, table
from fig1 import fig1_table
from job import started_job
from lode.datasets.acquire import provenance_line, read_provenance
from plotting import figure_3, save


def fig3_picture(table_path, paths, *, models, provenance, style="default"):
    """Draw the table.

    Parameters
    ----------
    table_path : path_like
        Table ``curve,n_train,rmse_percent,rmse_percent_std``.
    paths : sequence of path_like
        Files to write; the suffix sets the format, ``.txt`` is the caption.
    models : dict of str to dict
        For each curve ``label``, ``group`` and, optionally, ``note``.
    provenance : str
        Where the data come from; stands in the caption, and in some styles' title.
    style : {'default', 'journal', 'talk'}
        How the figure looks.
    """
    figure = figure_3(table(table_path), models, provenance=provenance, style=style)
    for path in paths:
        save(figure, path)


def water_provenance(provenance_path, version):
    """One line that says what the data are.

    Parameters
    ----------
    provenance_path : path_like
        What the acquisition wrote.
    version : str
        Version of the package.

    Returns
    -------
    str
    """
    record, _ = read_provenance(provenance_path)
    published = record["source"] == "published"
    tensors = "" if published else ", tensors of induced dipoles"
    return f"{provenance_line(record)}{tensors}, lode {version}"


if "snakemake" in globals():
    job = started_job(globals())
    params = job.params
    fig1_table(
        dict(zip(params.models, job.input.errors, strict=True)),
        job.output.table,
        curves=params.models,
        resolution=0.0,
        **params.settings,
    )
    checked_copy(job.output.table, job.output.checked)
    fig3_picture(
        job.output.table,
        [job.output.pdf, job.output.png, job.output.caption],
        models=params.models,
        provenance=water_provenance(job.input.provenance, params.version),
        style=params.style,
    )
