"""Figure 1: learning curves of the random gas."""

from statistics import fmean, stdev

from csv_tables import checked_copy, rounded, table, write_table
from job import started_job
from lode.datasets.acquire import provenance_line, read_provenance
from plotting import figure_1, save


def fig1_table(errors_paths, path, *, curves, digits, resolution):
    """Write mean and spread of the errors over the shuffles.

    Parameters
    ----------
    errors_paths : dict of str to path_like
        For each curve its table ``n_train,repeat,rmse_percent``.
    path : path_like
        Table to write: ``curve,n_train,rmse_percent,rmse_percent_std``.
    curves : dict of str to dict
        For each curve its ``label``.
    digits : int
        Significant digits of the mean; the spread ends at the same place.
    resolution : float
        Smallest error in percent told from zero; lower means stand as this value.
    """
    rows = []
    for name, errors_path in errors_paths.items():
        errors = {}
        for row in table(errors_path):
            n_train, error = int(row["n_train"]), float(row["rmse_percent"])
            errors.setdefault(n_train, []).append(error)
        for n_train, values in errors.items():
            spread = stdev(values) if len(values) > 1 else 0.0
            mean, spread = rounded(fmean(values), digits, resolution, spread)
            rows.append((curves[name]["label"], n_train, f"{mean:g}", f"{spread:g}"))
    columns = ["curve", "n_train", "rmse_percent", "rmse_percent_std"]
    write_table(path, columns, rows)


def fig1_picture(table_path, paths, *, curves, resolution, provenance, style="default"):
    """Draw the table.

    Parameters
    ----------
    table_path : path_like
        What :func:`fig1_table` wrote.
    paths : sequence of path_like
        Files to write; the suffix sets the format, ``.txt`` is the caption.
    curves : dict of str to dict
        For each curve ``label``, ``group``, ``counterpart`` and ``reference``.
    resolution : float
        As for :func:`fig1_table`.
    provenance : str
        Where the data come from; stands in the caption, and in some styles' title.
    style : {'default', 'journal', 'talk'}
        How the figure looks.
    """
    figure = figure_1(
        *(table(table_path), curves),
        resolution=resolution,
        provenance=provenance,
        style=style,
    )
    for path in paths:
        save(figure, path)


def gas_provenance(provenance_path, gas, version):
    """One line that says what the data are.

    Parameters
    ----------
    provenance_path : path_like
        What the acquisition wrote.
    gas : dict
        Settings of the gas.
    version : str
        Version of the package.

    Returns
    -------
    str
    """
    record, _ = read_provenance(provenance_path)
    if record["source"] == "published":
        return f"{gas['n_frames']} frames, {provenance_line(record)}, lode {version}"
    return (
        f"{gas['n_frames']} generated frames of {2 * gas['n_pairs']} charges, "
        f"seed {gas['seed']}, lode {version}"
    )


if "snakemake" in globals():
    job = started_job(globals())
    params = job.params
    fig1_table(
        dict(zip(params.curves, job.input.errors, strict=True)),
        job.output.table,
        curves=params.curves,
        resolution=params.resolution,
        **params.settings,
    )
    checked_copy(job.output.table, job.output.checked)
    fig1_picture(
        job.output.table,
        [job.output.pdf, job.output.png, job.output.caption],
        curves=params.curves,
        resolution=params.resolution,
        provenance=gas_provenance(job.input.provenance, params.gas, params.version),
        style=params.style,
    )
