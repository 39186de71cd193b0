"""Learning curves, parity and errors of one's own data: figures, tables, a page."""

from csv_tables import table, write_table
from custom_model import COST, TEST
from fig1 import fig1_table
from job import started_job
from lode.files import read_json, write_text
from plotting import learning_curves, save
from plotting_custom import figure_parity
from summary import markdown_row


def custom_tables(plan, found, paths):
    """Write what all models give, one row or more for each.

    Parameters
    ----------
    plan : dict
        What :func:`custom_frames.custom_frames` wrote.
    found : dict of str to dict
        For each model its files ``parity``, ``test`` and ``cost``.
    paths : dict of str to path_like
        Tables to write: ``parity``, ``errors``, ``cost``.

    Returns
    -------
    errors, costs : list of list
        Rows of both tables.
    """
    labels = {name: plan["curves"][name]["label"] for name in found}
    parity = [
        (labels[name], *row.values())
        for name, files in found.items()
        for row in table(files["parity"])
    ]
    columns = ["curve", "frame", "component", "value", "predicted", "std"]
    write_table(paths["parity"], columns, parity)
    errors, costs = (
        [[labels[name], *table(own[kind])[0].values()] for name, own in found.items()]
        for kind in ("test", "cost")
    )
    write_table(paths["errors"], ["curve", *TEST], errors)
    write_table(paths["cost"], ["curve", *COST], costs)
    return errors, costs


def custom_page(path, plan, errors, costs, *, data, version, unit):
    """Write what the data are, what is strange about them, errors and costs.

    Parameters
    ----------
    path : path_like
        Page to write, in Markdown.
    plan : dict
        As of :func:`custom_tables`.
    errors, costs : list of list
        What :func:`custom_tables` returned.
    data : str
        Name of the file of structures.
    version : str
        Version of the package.
    unit : str
        Of the errors.
    """
    lines = [f"# {plan['target']} of {data}", ""]
    lines += [f"- {sentence}." for sentence in plan["about"]]
    lines += [f"- Strange: {remark}." for remark in plan["remarks"]]
    lines += [f"- lode {version}.", ""]
    lines += [
        f"Errors of structures that were not learnt from, of the largest training set, "
        f"in {unit} (forces in eV/Å); coverage: percent of them within one and within "
        "1.96 standard deviations.",
        "",
    ]
    for columns, rows in ((TEST, errors), (COST, costs)):
        header = ["model", *(name.replace("_", " ") for name in columns)]
        lines += [markdown_row(header), markdown_row(["---"] * len(header))]
        lines += [markdown_row(row) for row in rows]
        lines += [""]
    lines += [
        "Costs: seconds to learn from the largest training set, milliseconds for each "
        "atom of a prediction without and with forces, size of the file. The files of "
        "the models, learnt from all structures, are read by `lode.load`.",
        "",
    ]
    write_text(path, "\n".join(lines))


if "snakemake" in globals():
    job = started_job(globals())
    plan = read_json(job.input.plan)
    curves = plan["curves"]
    labels = {name: {"label": curve["label"]} for name, curve in curves.items()}
    errors = dict(zip(curves, job.input.errors, strict=True))
    fig1_table(
        errors,
        job.output.table,
        curves=labels,
        digits=job.params.digits,
        resolution=0.0,
    )
    found = {
        name: {"parity": parity, "test": test, "cost": cost}
        for name, parity, test, cost in zip(
            curves, job.input.parity, job.input.test, job.input.cost, strict=True
        )
    }
    rows, costs = custom_tables(plan, found, dict(job.output.items()))
    unit = plan["unit"]
    about = {"data": job.params.data, "version": job.params.version}
    custom_page(job.output.page, plan, rows, costs, unit=unit, **about)
    look = {
        "provenance": f"{about['data']}: {plan['about'][0]}",
        "style": job.params.style,
    }
    target = plan["target"]
    figure = learning_curves(
        table(job.output.table), labels, f"Learning curves of {target}", **look
    )
    parity = figure_parity(
        {labels[name]["label"]: table(f["parity"]) for name, f in found.items()},
        target=target,
        unit=unit,
        **look,
    )
    for kind in ("pdf", "png", "caption"):
        save(figure, job.output[kind])
        save(parity, job.output[f"parity_{kind}"])
