"""Claims about the figures: what the paper says, what we find, whether it holds."""

import math
from statistics import fmean, stdev

from csv_tables import checked_copy, table, write_table
from fig1 import gas_provenance
from fig2 import dimers_provenance
from fig3 import water_provenance
from job import started_job
from lode.datasets.acquire import read_provenance
from lode.datasets.gas import RECIPE
from lode.files import atomic_write

COLUMNS = ["figure", "claim", "paper", "ours", "spread", "data", "met"]
# Stands in the column `data` where the numbers are not to be held against the paper's.
STAND_IN = "(stand-in)"
NOTHING = "-"
NOT_COMPUTED = "not computed"
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
    data,
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
        Table to write: ``figure,claim,paper,ours,spread,data,met``. The spread is in
        the unit of ours. ``met`` is ``yes``, ``weaker`` (see :func:`verdict`), ``no``,
        or ``-`` where there is no verdict: ours is not computed, or on a stand-in,
        which is not held against what the paper says either.
    page_path : path_like
        The same in Markdown.
    claims : sequence of dict
        As in the configuration; see :func:`verdict`. One of ``any_data`` has a verdict
        on stand-ins, too.
    curves : dict of str to dict
        For each figure its curves, each with its ``label``.
    data : dict of str to str
        For each figure its data in few words, with ``(stand-in)`` if they are that.
    provenance : dict of str to str
        For some figures one line on their data.
    experiments_path : path_like, optional
        Table of figure 2 ``curve,experiment,left_out,...,set,rmse_percent,...``.
    tails_path : path_like, optional
        Table of figure 2 ``curve,n_dimers,slope_min,slope_mean,slope_max,...``.
    """
    rows_of = {figure: table(path) for figure, path in tables.items()}
    values = {figure: curve_values(rows) for figure, rows in rows_of.items()}
    spreads = {figure: curve_spreads(rows) for figure, rows in rows_of.items()}
    if experiments_path is not None:
        means, found = split_values(table(experiments_path))
        values["fig2"] |= means
        spreads["fig2"] |= found
    if tails_path is not None:
        values["fig2"] |= slope_values(table(tails_path))
    rows = []
    for claim in claims:
        figure = claim["figure"]
        ours, spread, met = verdict(
            claim, values[figure], curves[figure], spreads[figure]
        )
        paper, where = claim.get("paper", NOTHING), data[figure]
        if STAND_IN in where:
            paper = NOTHING
            met = met if claim.get("any_data", False) else NOTHING
        rows.append((figure, claim["claim"], paper, ours, spread, where, met))
    write_table(path, COLUMNS, rows)
    lines = ["# What the figures show", ""]
    for figure, text in provenance.items():
        lines += [f"Data of {figure}: {text}.", ""]
    lines += [legend(rows), ""]
    lines += [markdown_row(COLUMNS), markdown_row(["---"] * len(COLUMNS))]
    lines += [markdown_row(row) for row in rows]
    with atomic_write(page_path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def legend(rows):
    """What the column ``met`` says, and whether there are stand-ins.

    Parameters
    ----------
    rows : sequence of tuple
        Of the table.

    Returns
    -------
    str
    """
    place = COLUMNS.index("data")
    stand_ins = sorted({row[0] for row in rows if STAND_IN in row[place]})
    text = (
        "The spread is that of the shuffles, in figure 2 that of random splits, as a "
        "standard deviation in the unit of ours. Met: yes; weaker, within our bounds "
        "but not those of the number that the paper prints; no; a dash, no verdict."
    )
    if stand_ins:
        text += (
            f" **{', '.join(stand_ins)}: on a stand-in, which is not held against the "
            "paper.**"
        )
    return text


def curve_spreads(rows):
    """Standard deviation over the shuffles by curve name and training size.

    Parameters
    ----------
    rows : sequence of dict
        Table of a figure.

    Returns
    -------
    dict of (str, int) to float
        Empty for a table without sizes.
    """
    return {
        (r["curve"], int(r["n_train"])): float(r["rmse_percent_std"])
        for r in rows
        if "n_train" in r and r["rmse_percent_std"]
    }


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
    means : dict of (str, str) to float
        By curve name and ``random splits``.
    spreads : dict of (str, str) to float
        The same, and as the spread of the set ``test``, one split, too.
    """
    errors = {}
    for r in rows:
        chosen = r["experiment"] == "random split" and r["set"] == "test"
        if chosen and r["rmse_percent"]:
            key = (r["curve"], RANDOM_SPLITS)
            errors.setdefault(key, []).append(float(r["rmse_percent"]))
    means = {key: fmean(found) for key, found in errors.items()}
    spreads = {}
    for (curve, _), found in errors.items():
        if len(found) > 1:
            for of in (RANDOM_SPLITS, "test"):
                spreads[curve, of] = stdev(found)
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


def verdict(claim, values, curves, spreads):
    """What we find for one claim, and whether it holds.

    Parameters
    ----------
    claim : dict
        ``curve``; ``n_train`` for one size of the training set, ``from`` for all
        sizes from there on, or ``set``; ``above`` and ``below``, strict bounds of the
        error in percent, or of its ratio to that of the curve ``relative_to``;
        ``paper_above`` and ``paper_below``, the same of what the paper states. The
        set ``slopes`` has slopes in the place of errors.
    values : dict of (str, int or str) to float
        As from :func:`curve_values` and :func:`slope_values`.
    curves : dict of str to dict
        For each curve its ``label``.
    spreads : dict of (str, int or str) to float
        Of the values, where they are known.

    Returns
    -------
    ours : str
        The value, the range of values, or ``not computed``.
    spread : str
        The largest spread of the values; that of a ratio as if both errors were
        independent. ``-`` where it is not known.
    met : str
        ``yes`` if every value lies between the bounds, ``weaker`` if not between
        those of the paper, ``no``, or ``-`` if there are no values.
    """
    labels = [curves[claim[k]]["label"] for k in ("curve", "relative_to") if k in claim]
    first = claim.get("n_train", claim.get("from", claim.get("set")))
    sizes = [first]
    if "from" in claim:
        sizes = [n for name, n in values if name == labels[0] and n >= first]
    if any((name, n) not in values for name in labels for n in {first, *sizes}):
        return NOT_COMPUTED, NOTHING, NOTHING
    of_curve, *of_other = ([values[name, n] for n in sizes] for name in labels)
    found, unit = of_curve, " %"
    if claim.get("set") == SLOPES:
        found, unit = list(of_curve[0]), ""
    if of_other:
        found, unit = (
            [a / b for a, b in zip(of_curve, *of_other, strict=True)],
            " times",
        )
    low, high = min(found), max(found)
    met = "no"
    if _between(found, claim.get("above"), claim.get("below")):
        stated = claim.get("paper_above"), claim.get("paper_below")
        met = "yes" if _between(found, *stated) else "weaker"
    ours = f"{low:.3g}{unit}" if low == high else f"{low:.3g} to {high:.3g}{unit}"
    spread = NOTHING
    if all((name, n) in spreads for name in labels for n in sizes):
        shares = [
            math.hypot(*(spreads[name, n] / values[name, n] for name in labels))
            for n in sizes
        ]
        largest = max(a * b for a, b in zip(found, shares, strict=True))
        spread = f"{largest:.2g}"
    return ours, spread, met


def _between(found, above, below):
    """Whether all numbers lie between two strict bounds, of which there may be none."""
    low = -math.inf if above is None else above
    high = math.inf if below is None else below
    return low < min(found) and max(found) < high


def gas_data(provenance_path, gas):
    """The data of the gas in few words.

    Parameters
    ----------
    provenance_path : path_like
        What the acquisition wrote.
    gas : dict
        Settings of the gas.

    Returns
    -------
    str
    """
    record, _ = read_provenance(provenance_path)
    if record["source"] == "published":
        return "published"
    made = {key: gas[key] for key in RECIPE} | {"side": tuple(gas["side"])}
    is_recipe = made == RECIPE
    return "generated, the paper's recipe" if is_recipe else f"generated {STAND_IN}"


def dimers_data(provenance_path, engine):
    """The data of the dimers in few words.

    Parameters
    ----------
    provenance_path : path_like
        What the acquisition wrote.
    engine : str
        Name of the engine of the reference energies.

    Returns
    -------
    str
        Geometries and energies where both are not published together.
    """
    record, _ = read_provenance(provenance_path)
    return {
        "published": "published",
        "bfdb": f"BFDb + {engine}",
    }.get(record["source"], f"generated + {engine} {STAND_IN}")


def water_data(provenance_path):
    """The data of the water in few words.

    Parameters
    ----------
    provenance_path : path_like
        What the acquisition wrote.

    Returns
    -------
    str
    """
    record, _ = read_provenance(provenance_path)
    published = record["source"] == "published"
    return "published" if published else f"generated {STAND_IN}"


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
        data={
            "fig1": gas_data(job.input.gas, params.gas),
            "fig2": dimers_data(job.input.provenance, params.engine),
            "fig3": water_data(job.input.water),
            "fig3_tensor": water_data(job.input.water),
        },
        provenance={
            "fig1": gas_provenance(job.input.gas, params.gas, params.version),
            "fig2": dimers_provenance(
                job.input.provenance, params.engine, params.version
            ),
            "fig3": water_provenance(job.input.water, params.version),
        },
        experiments_path=job.input.fig2_experiments,
        tails_path=job.input.fig2_tails,
    )
    checked_copy(job.output.table, job.output.checked)
