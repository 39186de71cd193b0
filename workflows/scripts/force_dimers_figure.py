"""Errors of models of charged dimers that learnt from near ones: table and picture."""

import math

from csv_tables import rounded, table, write_table
from job import started_job
from lode.datasets.acquire import provenance_line, read_provenance
from plotting import save
from plotting_examples import figure_force_dimers

COLUMNS = (
    *("curve", "baseline", "cross_validation", "composition", "n_train", "n_test"),
    *("energy_rmse_meV", "force_rmse_meV_A", "force_mae_meV_A"),
)
ALL = "all"
POINT_CHARGES = "point charges"


def force_dimers_figure(
    models,
    predictions,
    crosses,
    table_path,
    paths,
    *,
    provenance,
    style="default",
):
    """Write the table and draw it.

    Parameters
    ----------
    models : dict of str to dict
        Of each model ``label`` and ``point_charges``.
    predictions, crosses : dict of str to path_like
        Tables of each model, see :func:`force_dimer_model.force_dimer_model`.
    table_path : path_like
        Table to write: root mean square errors of the far frames, and the mean absolute
        error of their forces, of all and of each composition; ``cross_validation`` is
        the error of near ones in units of the noises, by which models are compared.
    paths : sequence of path_like
        Files to write; the suffix sets the format, ``.txt`` is the caption.
    provenance : str
        Where the data come from; stands in the caption, and in some styles' title.
    style : {'default', 'journal', 'talk'}
        How the figure looks.
    """
    rows, scores = [], {}
    for name, model in models.items():
        scores[name] = float(table(crosses[name])[0]["cross_validation"])
        found = table(predictions[name])
        baseline = POINT_CHARGES if model["point_charges"] else ""
        compositions = sorted({row["composition"] for row in found})
        for composition in (ALL, *compositions):
            own = [r for r in found if composition in (ALL, r["composition"])]
            test = [row for row in own if row["set"] == "test"]
            if not test:
                continue
            mae = sum(float(row["force_error"]) for row in test) / len(test)
            numbers = rmse_energy(test), rmse_force(test), mae
            cells = model["label"], baseline, rounded(scores[name], 3), composition
            counts = len(own) - len(test), len(test)
            errors = (rounded(1e3 * value, 3) for value in numbers)
            rows.append((*cells, *counts, *errors))
    write_table(table_path, COLUMNS, rows)
    best = min(scores, key=scores.get)
    shown = {"local": next(iter(models)), "best": best}
    curves = {
        kind: (models[name]["label"], _named(models[name]), table(predictions[name]))
        for kind, name in shown.items()
    }
    figure = figure_force_dimers(rows, curves, provenance=provenance, style=style)
    for path in paths:
        save(figure, path)


def _named(model):
    return model["label"] + (f" on {POINT_CHARGES}" if model["point_charges"] else "")


def rmse_energy(rows):
    """Root mean square error of energies, in eV."""
    errors = [float(row["energy"]) - float(row["predicted"]) for row in rows]
    return math.sqrt(sum(e * e for e in errors) / len(errors))


def rmse_force(rows):
    """Root mean square error of components of forces, in eV/Å."""
    return math.sqrt(sum(float(row["force_square"]) for row in rows) / len(rows))


if "snakemake" in globals():
    job = started_job(globals())
    params = job.params
    record, _ = read_provenance(job.input.provenance)
    force_dimers_figure(
        params.models,
        dict(zip(params.models, job.input.predictions, strict=True)),
        dict(zip(params.models, job.input.crosses, strict=True)),
        job.output.table,
        [job.output.pdf, job.output.png, job.output.caption],
        provenance=f"{provenance_line(record)}, lode {params.version}",
        style=params.style,
    )
