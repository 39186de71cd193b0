"""Figure 2: binding curves of charged dimers."""

import numpy as np

from csv_tables import checked_copy, rounded, table, write_table
from dimer_model import CLASSES, EXPERIMENTS, error_cells
from job import started_job
from lode.datasets.acquire import provenance_line, read_provenance
from lode.datasets.curves import TAIL, tail_slope
from lode.datasets.dimers import COULOMB
from plotting import figure_2, save

SETS = {"test": "training", "far": "far"}
# Test dimers of each class that are drawn.
PER_CLASS = 2
REFERENCE = "reference"
TAILS = [
    "curve",
    "n_dimers",
    "slope_min",
    "slope_mean",
    "slope_max",
    "deviation_mean_meV",
    "deviation_max_meV",
]


def fig2_tables(predictions_paths, paths, *, models, digits):
    """Write the errors on the test dimers, by class too, and the dimers to draw.

    Parameters
    ----------
    predictions_paths : dict of str to path_like
        For each model its table of predictions.
    paths : sequence of three path_like
        Tables to write: ``curve,set,rmse_percent,rmse_meV,n_frames``; the same by
        ``class``; and ``dimer,class,curve,kind,distance,energy`` of some test dimers,
        the reference as the curve ``reference``. RMSE% is relative to the standard
        deviation of the energies of the same set and class.
    models : dict of str to dict
        For each model its ``label``.
    digits : int
        Significant digits of the errors.
    """
    errors, by_class, curves = [], [], []
    for model, predictions_path in predictions_paths.items():
        label = models[model]["label"]
        rows = [r for r in table(predictions_path) if r["part"] == "test"]
        for name, kind in SETS.items():
            found = [r for r in rows if r["kind"] == kind]
            percent, rmse, n = _errors(found, digits)
            errors.append((label, name, percent, rmse, n))
            for of in CLASSES:
                percent, rmse, n = _errors(
                    [r for r in found if r["class"] == of], digits
                )
                by_class.append((label, of, name, percent, rmse, n))
        drawn = drawn_dimers(rows)
        if not curves:
            curves += [
                _point(r, REFERENCE, "energy") for r in rows if r["name"] in drawn
            ]
        curves += [_point(r, label, "predicted") for r in rows if r["name"] in drawn]
    columns = ["rmse_percent", "rmse_meV", "n_frames"]
    write_table(paths[0], ["curve", "set", *columns], errors)
    write_table(paths[1], ["curve", "class", "set", *columns], by_class)
    columns = ["dimer", "class", "curve", "kind", "distance", "energy"]
    write_table(paths[2], columns, curves)


def _errors(rows, digits):
    predicted, energy = (
        np.array([float(r[key]) for r in rows]) for key in ("predicted", "energy")
    )
    return error_cells(predicted, energy, digits)


def _point(row, curve, column):
    head = (row["name"], row["class"], curve, row["kind"])
    return (*head, f"{float(row['distance']):.4f}", f"{float(row[column]):.4f}")


def drawn_dimers(rows, per_class=PER_CLASS):
    """Names of the test dimers to draw: evenly spaced by name in each class.

    Parameters
    ----------
    rows : sequence of dict
        With ``name`` and ``class``.
    per_class : int
        How many of each class; fewer if there are not so many.

    Returns
    -------
    list of str
    """
    drawn = []
    for of in CLASSES:
        names = sorted({r["name"] for r in rows if r["class"] == of})
        n = min(per_class, len(names))
        drawn += [names[(2 * i + 1) * len(names) // (2 * n)] for i in range(n)]
    return drawn


def fig2_tails(predictions_paths, path, *, models, digits):
    """Write how the energies of two ions fall off, for the test dimers.

    Parameters
    ----------
    predictions_paths : dict of str to path_like
        For each model its table of predictions.
    path : path_like
        Table to write: the reference and each model with the number of dimers; least,
        mean and largest slope of ln|E| against ln r from 15 Å on; mean and largest
        difference from q₁q₂/r at the last distance. r is the distance of the centres
        of charge; pairs for which it is not known are left out.
    models : dict of str to dict
        For each model its ``label``.
    digits : int
        Significant digits of the differences.
    """
    tables = {model: table(path) for model, path in predictions_paths.items()}
    first = next(iter(tables.values()))
    rows = [_tails(REFERENCE, first, "energy", digits)]
    for model, found in tables.items():
        rows.append(_tails(models[model]["label"], found, "predicted", digits))
    write_table(path, TAILS, rows)


def _tails(curve, rows, column, digits):
    """One row of the table of tails."""
    tails = {}
    for r in rows:
        apart = r["kind"] == "far" and float(r["distance"]) >= TAIL
        if apart and r["part"] == "test" and r["charge_distance"]:
            sign = -1.0 if r["class"] == CLASSES[0] else 1.0
            point = (float(r["charge_distance"]), float(r[column]), sign)
            tails.setdefault(r["name"], []).append(point)
    slopes, deviations = [], []
    for points in tails.values():
        distance, energy, sign = zip(*sorted(points), strict=True)
        slopes.append(tail_slope(distance, energy))
        coulomb = sign[-1] * COULOMB / distance[-1]
        deviations.append(1e3 * abs(energy[-1] - coulomb))
    # An energy of exactly nothing has no slope.
    slopes = [slope for slope in slopes if np.isfinite(slope)]
    # Plus zero: no minus before a zero.
    of_slopes = [
        f"{round(f(slopes), 3) + 0.0:.3f}" if slopes else ""
        for f in (min, np.mean, max)
    ]
    of_deviations = [
        f"{rounded(f(deviations), digits):g}" if deviations else ""
        for f in (np.mean, max)
    ]
    return (curve, len(tails), *of_slopes, *of_deviations)


def fig2_experiments(experiments_paths, path, *, models):
    """Write the errors where other dimers are left out, all models in one table.

    Parameters
    ----------
    experiments_paths : dict of str to path_like
        For each model its table.
    path : path_like
        Table to write: the same with ``curve`` in front.
    models : dict of str to dict
        For each model its ``label``.
    """
    rows = [
        (models[model]["label"], *(row[column] for column in EXPERIMENTS))
        for model, experiments_path in experiments_paths.items()
        for row in table(experiments_path)
    ]
    write_table(path, ["curve", *EXPERIMENTS], rows)


def fig2_picture(
    errors_path,
    classes_path,
    curves_path,
    paths,
    *,
    models,
    provenance,
    style="default",
):
    """Draw the tables.

    Parameters
    ----------
    errors_path, classes_path, curves_path : path_like
        What :func:`fig2_tables` wrote.
    paths : sequence of path_like
        Files to write; the suffix sets the format, ``.txt`` is the caption.
    models : dict of str to dict
        For each model its ``label``.
    provenance : str
        Where the data come from; stands in the caption, and in some styles' title.
    style : {'default', 'journal', 'talk'}
        How the figure looks.
    """
    figure = figure_2(
        table(curves_path),
        table(errors_path),
        table(classes_path),
        [model["label"] for model in models.values()],
        provenance=provenance,
        style=style,
    )
    for path in paths:
        save(figure, path)


def dimers_provenance(provenance_path, engine, version):
    """One line that says what the data are.

    Parameters
    ----------
    provenance_path : path_like
        What the acquisition wrote.
    engine : str
        Name of the engine of the reference energies.
    version : str
        Version of the package.

    Returns
    -------
    str
    """
    record, _ = read_provenance(provenance_path)
    energies = "" if record["source"] == "published" else f", {engine} energies"
    return f"{provenance_line(record)}{energies}, lode {version}"


if "snakemake" in globals():
    job = started_job(globals())
    params = job.params
    fig2_tables(
        dict(zip(params.models, job.input.predictions, strict=True)),
        [job.output.table, job.output.classes, job.output.curves],
        models=params.models,
        digits=params.digits,
    )
    fig2_tails(
        dict(zip(params.models, job.input.predictions, strict=True)),
        job.output.tails,
        models=params.models,
        digits=params.digits,
    )
    fig2_experiments(
        dict(zip(params.models, job.input.experiments, strict=True)),
        job.output.experiments,
        models=params.models,
    )
    for name in ("table", "experiments", "tails"):
        checked_copy(job.output[name], job.output[f"checked_{name}"])
    fig2_picture(
        job.output.table,
        job.output.classes,
        job.output.curves,
        [job.output.pdf, job.output.png, job.output.caption],
        models=params.models,
        provenance=dimers_provenance(
            job.input.provenance, params.engine, params.version
        ),
        style=params.style,
    )
