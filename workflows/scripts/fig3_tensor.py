"""Both parts of the dielectric tensor of water: learning curves beside each other."""

from csv_tables import checked_copy, table
from fig1 import fig1_table
from fig3 import water_provenance
from job import started_job
from plotting import figure_3_tensor, save


def fig3_tensor_picture(
    table_path, trace_path, paths, *, models, provenance, style="default"
):
    """Draw the tables.

    Parameters
    ----------
    table_path : path_like
        Table ``curve,n_train,rmse_percent,rmse_percent_std`` of the anisotropic part.
    trace_path : path_like
        The same of the trace, figure 3's.
    paths : sequence of path_like
        Files to write; the suffix sets the format, ``.txt`` is the caption.
    models : dict of str to dict
        For each curve of the anisotropic part its ``label``.
    provenance : str
        Where the data come from; stands in the caption, and in some styles' title.
    style : {'default', 'journal', 'talk'}
        How the figure looks.
    """
    labels = [model["label"] for model in models.values()]
    figure = figure_3_tensor(
        *(table(table_path), table(trace_path), labels),
        provenance=provenance,
        style=style,
    )
    for path in paths:
        save(figure, path)


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
    fig3_tensor_picture(
        job.output.table,
        job.input.trace,
        [job.output.pdf, job.output.png, job.output.caption],
        models=params.models,
        provenance=water_provenance(job.input.provenance, params.version),
        style=params.style,
    )
