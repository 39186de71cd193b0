"""Claims about the figures: what the paper says, what we find, whether it holds."""

from fig1 import gas_provenance
from job import started_job
from lode.files import replacement, table, write_table

COLUMNS = ["figure", "claim", "paper", "ours", "met"]


def summary(tables, path, page_path, *, claims, curves, provenance):
    """Write the verdict on each claim, as a table and as a page.

    Parameters
    ----------
    tables : dict of str to path_like
        For each figure its table ``curve,n_train,rmse_percent,...``.
    path : path_like
        Table to write: ``figure,claim,paper,ours,met``.
    page_path : path_like
        The same in Markdown.
    claims : sequence of dict
        As in the configuration; see :func:`verdict`.
    curves : dict of str to dict
        For each curve its ``label``.
    provenance : dict of str to str
        For each figure one line on its data.
    """
    values = {figure: curve_values(table(path)) for figure, path in tables.items()}
    rows = []
    for claim in claims:
        ours, met = verdict(claim, values[claim["figure"]], curves)
        paper = claim.get("paper") or "-"
        met = "yes" if met else "no"
        rows.append((claim["figure"], claim["claim"], paper, ours, met))
    write_table(path, COLUMNS, rows)
    lines = ["# What the figures show", ""]
    for figure, text in provenance.items():
        lines += [f"Data of {figure}: {text}.", ""]
    lines += [markdown_row(COLUMNS), markdown_row(["---"] * len(COLUMNS))]
    lines += [markdown_row(row) for row in rows]
    with replacement(page_path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def curve_values(rows):
    """Error in percent by curve name and training size.

    Parameters
    ----------
    rows : sequence of dict
        Table of a figure.

    Returns
    -------
    dict of (str, int) to float
    """
    return {(r["curve"], int(r["n_train"])): float(r["rmse_percent"]) for r in rows}


def verdict(claim, values, curves):
    """What we find for one claim, and whether it holds.

    Parameters
    ----------
    claim : dict
        ``curve``; ``n_train`` for one size of the training set or ``from`` for all
        sizes from there on; ``above`` and ``below``, strict bounds of the error in
        percent, or of its ratio to that of the curve ``relative_to``.
    values : dict of (str, int) to float
        As from :func:`curve_values`.
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
        If the table has no such curve or size.
    """
    label = curves[claim["curve"]]["label"]
    if "from" in claim:
        sizes = [n for name, n in values if name == label and n >= claim["from"]]
    else:
        sizes = [claim["n_train"]]
    if not sizes or (label, sizes[0]) not in values:
        wanted = claim.get("n_train", claim.get("from"))
        raise ValueError(f"no value of {label!r} at {wanted} training structures")
    found = [values[label, n] for n in sizes]
    unit = " %"
    if "relative_to" in claim:
        other = curves[claim["relative_to"]]["label"]
        found = [
            value / values[other, n] for value, n in zip(found, sizes, strict=True)
        ]
        unit = " times"
    low, high = min(found), max(found)
    met = claim.get("above", -1.0) < low and high < claim.get("below", float("inf"))
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
        {"fig1": job.input.fig1},
        job.output.table,
        job.output.page,
        claims=params.claims,
        curves=params.curves,
        provenance={"fig1": gas_provenance(params.gas, params.version)},
    )
