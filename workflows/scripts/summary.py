"""Claims about the figures: what the paper says, what we find, whether it holds."""

from statistics import fmean, stdev

from csv_tables import checked_copy, table, write_table
from fig1 import gas_provenance
from fig2 import dimers_provenance
from fig3 import water_provenance
from job import started_job
from lode.files import atomic_write

COLUMNS = ["figure", "claim", "paper", "ours", "met"]
FIGURES = ("fig1", "fig2", "fig3", "fig3_tensor")

RANDOM_SPLITS = "random splits"
SLOPES = "slopes"


def summary(
    tables,
    path,
    page_path,
    *,
    claims,
    curves,
    provenance,
    experiments_path=None,
    tails_path=None,
):
    """Write the verdict on each claim, as a table and as a page.

    Parameters
    ----------
    tables : dict of str to path_like
        For each figure its table, ``curve,n_train,rmse_percent,...`` or
        ``curve,set,rmse_percent,...``.
    path : path_like
        Table to write: ``figure,claim,paper,ours,met``.
    page_path : path_like
        The same in Markdown.
    claims : sequence of dict
        As in the configuration; see :func:`verdict`.
    curves : dict of str to dict
        For each figure its curves, each with its ``label``.
    provenance : dict of str to str
        For each figure one line on its data.
    experiments_path : path_like, optional
        Table of figure 2 ``curve,experiment,left_out,...,set,rmse_percent,...``.
    tails_path : path_like, optional
        Table of figure 2 ``curve,n_dimers,slope_min,slope_mean,slope_max,...``.
    """
    values = {figure: curve_values(table(path)) for figure, path in tables.items()}
    spreads = {}
    if experiments_path is not None:
        means, spreads = split_values(table(experiments_path))
        values["fig2"] |= means
    if tails_path is not None:
        values["fig2"] |= slope_values(table(tails_path))
    rows = []
    for claim in claims:
        of_figure = curves[claim["figure"]]
        ours, met = verdict(claim, values[claim["figure"]], of_figure)
        spread = spreads.get((of_figure[claim["curve"]]["label"], claim.get("set")))
        if spread is not None and "relative_to" not in claim:
            ours += f" ± {spread:.2g}"
        paper = claim.get("paper") or "-"
        met = "yes" if met else "no"
        rows.append((claim["figure"], claim["claim"], paper, ours, met))
    write_table(path, COLUMNS, rows)
    lines = ["# What the figures show", ""]
    for figure, text in provenance.items():
        lines += [f"Data of {figure}: {text}.", ""]
    lines += [markdown_row(COLUMNS), markdown_row(["---"] * len(COLUMNS))]
    lines += [markdown_row(row) for row in rows]
    with atomic_write(page_path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def curve_values(rows):
    """Error in percent by curve name and training size, or set.

    Parameters
    ----------
    rows : sequence of dict
        Table of a figure.

    Returns
    -------
    dict of (str, int or str) to float
        Without the sets that have no error in percent.
    """
    return {
        (r["curve"], int(r["n_train"]) if "n_train" in r else r["set"]): float(
            r["rmse_percent"]
        )
        for r in rows
        if r["rmse_percent"]
    }


def split_values(rows):
    """Mean and spread over the random splits of the error at training distances.

    Parameters
    ----------
    rows : sequence of dict
        Table of the experiments.

    Returns
    -------
    means, spreads : dict of (str, str) to float
        By curve name and ``random splits``.
    """
    errors = {}
    for r in rows:
        chosen = r["experiment"] == "random split" and r["set"] == "test"
        if chosen and r["rmse_percent"]:
            key = (r["curve"], RANDOM_SPLITS)
            errors.setdefault(key, []).append(float(r["rmse_percent"]))
    means = {key: fmean(found) for key, found in errors.items()}
    spreads = {key: stdev(found) for key, found in errors.items() if len(found) > 1}
    return means, spreads


def slope_values(rows):
    """Least and largest slope of ln|E| far away, by curve name and ``slopes``.

    Parameters
    ----------
    rows : sequence of dict
        Table of the tails.

    Returns
    -------
    dict of (str, str) to (float, float)
        Without the curves that have no slope.
    """
    return {
        (r["curve"], SLOPES): (float(r["slope_min"]), float(r["slope_max"]))
        for r in rows
        if r["slope_min"]
    }


def verdict(claim, values, curves):
    """What we find for one claim, and whether it holds.

    Parameters
    ----------
    claim : dict
        ``curve``; ``n_train`` for one size of the training set, ``from`` for all
        sizes from there on, or ``set``; ``above`` and ``below``, strict bounds of the
        error in percent, or of its ratio to that of the curve ``relative_to``. The
        set ``slopes`` has slopes in the place of errors.
    values : dict of (str, int or str) to float
        As from :func:`curve_values` and :func:`slope_values`.
    curves : dict of str to dict
        For each curve its ``label``.

    Returns
    -------
    ours : str
        The value, or the range of values.
    met : bool
        Whether every value lies between the bounds.

    Raises
    ------
    ValueError
        If the table has no such curve, size or set.
    """
    label = curves[claim["curve"]]["label"]
    if "from" in claim:
        sizes = [n for name, n in values if name == label and n >= claim["from"]]
    else:
        sizes = [claim["n_train"] if "n_train" in claim else claim["set"]]
    if not sizes or (label, sizes[0]) not in values:
        wanted = claim.get("n_train", claim.get("from"))
        place = f"at {wanted} training structures"
        place = f"on the set {claim['set']!r}" if "set" in claim else place
        raise ValueError(f"no value of {label!r} {place}")
    found = [values[label, n] for n in sizes]
    unit = " %"
    if claim.get("set") == SLOPES:
        found, unit = list(found[0]), ""
    if "relative_to" in claim:
        other = curves[claim["relative_to"]]["label"]
        found = [
            value / values[other, n] for value, n in zip(found, sizes, strict=True)
        ]
        unit = " times"
    low, high = min(found), max(found)
    met = claim.get("above", float("-inf")) < low and high < claim.get(
        "below", float("inf")
    )
    ours = f"{low:.3g}{unit}" if low == high else f"{low:.3g} to {high:.3g}{unit}"
    return ours, met


def markdown_row(cells):
    """One row of a Markdown table.

    Parameters
    ----------
    cells : sequence of str
        Its entries.

    Returns
    -------
    str
    """
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


if "snakemake" in globals():
    job = started_job(globals())
    params = job.params
    summary(
        {figure: job.input[figure] for figure in FIGURES},
        job.output.table,
        job.output.page,
        claims=params.claims,
        curves=params.curves,
        provenance={
            "fig1": gas_provenance(params.gas, params.version),
            "fig2": dimers_provenance(
                job.input.provenance, params.engine, params.version
            ),
            "fig3": water_provenance(job.input.water, params.version),
        },
        experiments_path=job.input.fig2_experiments,
        tails_path=job.input.fig2_tails,
    )
    checked_copy(job.output.table, job.output.checked)
