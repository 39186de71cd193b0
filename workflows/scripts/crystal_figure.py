"""Properties of rock salt by models and by the exact potential: table and picture."""

from csv_tables import write_table
from job import started_job
from liquid import EXACT, error_cells
from lode.files import read_json
from plotting import save
from plotting_examples import figure_crystal

# Columns of the table, and the keys of the properties.
_PROPERTIES = {
    "constant_A": "constant",
    "bulk_GPa": "bulk",
    "c11_GPa": "c11",
    "c12_GPa": "c12",
    "c44_GPa": "c44",
    "lo_THz": "lo",
    "to_THz": "to",
    "drift_meV_ps": "drift",
}
COLUMNS = (
    *("potential", "n_train", "energy_error_meV", "force_error_meV_A"),
    *_PROPERTIES,
)


def crystal_figure(
    found, errors, table_path, paths, *, labels, provenance, style="default"
):
    """Write the table and draw it.

    Parameters
    ----------
    found : dict of str to path_like
        Properties by each potential, the exact one among them.
    errors : dict of str to path_like
        Table of errors of each model.
    table_path : path_like
        Table to write; ``lo_THz`` and ``to_THz`` are at the smallest wave number.
    paths : sequence of path_like
        Files to write; the suffix sets the format, ``.txt`` is the caption.
    labels : dict of str to str
        Of the potentials.
    provenance : str
        What was computed; stands in the caption, and in some styles' title.
    style : {'default', 'journal', 'talk'}
        How the figure looks.
    """
    seen = {name: read_json(path) for name, path in found.items()}
    rows = []
    for name, own in seen.items():
        cells = error_cells(errors.get(name))
        for key in _PROPERTIES.values():
            value = own[key][0] if isinstance(own[key], list) else own[key]
            cells.append(f"{value:.6g}" if key == "constant" else f"{value:.4g}")
        rows.append((labels[name], *cells))
    write_table(table_path, COLUMNS, rows)
    shown = {labels[name]: own for name, own in seen.items()}
    figure = figure_crystal(shown, labels[EXACT], provenance=provenance, style=style)
    for path in paths:
        save(figure, path)


if "snakemake" in globals():
    job = started_job(globals())
    params = job.params
    crystal_figure(
        dict(zip(params.potentials, job.input.found, strict=True)),
        dict(zip(params.models, job.input.errors, strict=True)),
        job.output.table,
        [job.output.pdf, job.output.png, job.output.caption],
        labels=params.labels,
        provenance=params.provenance,
        style=params.style,
    )
