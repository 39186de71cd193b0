"""A liquid of ions by models and by the exact potential: table and picture."""

import numpy as np

from csv_tables import rounded, table, write_table
from dynamics import energy_drift
from job import started_job
from liquid_run import KIND
from lode.archive import load_archive
from plotting import save
from plotting_examples import figure_liquid

_SEEN = (
    *("drift_meV_ps", "pressure_GPa", "pressure_GPa_std", "diffusion_Na"),
    *("diffusion_Cl", "diffusion_std", "rdf_deviation", "density"),
)
COLUMNS = ("potential", "n_train", "energy_error_meV", "force_error_meV_A", *_SEEN)
EXACT = "exact"
# Of the radial distribution functions, in Å; parts of a run that are averaged alone.
_BIN, _PARTS = 0.05, 4
# Range of times in ps over which the diffusion is the slope of the displacements.
_SLOPE = 1.0, 4.0
_KINDS = {"Na–Cl": (11, 17), "Na–Na": (11, 11), "Cl–Cl": (17, 17)}


def liquid(runs, errors, table_path, paths, *, labels, provenance, style="default"):
    """Write the table and draw it.

    Parameters
    ----------
    runs : dict of str to dict of str to list of path_like
        For each potential, the exact one among them, its runs of each ensemble.
    errors : dict of str to path_like
        Table of errors of each model.
    table_path : path_like
        Table to write. Diffusion is in Å²/ps, density in ions/Å³; spreads are standard
        errors of means over parts of the runs. ``rdf_deviation`` is the root mean
        square deviation of the radial distribution functions from the exact ones, in
        units of what the noise of both makes expect: about one if they are the same.
    paths : sequence of path_like
        Files to write; the suffix sets the format, ``.txt`` is the caption.
    labels : dict of str to str
        Of the potentials.
    provenance : str
        What was computed; stands in the caption, and in some styles' title.
    style : {'default', 'journal', 'talk'}
        How the figure looks.
    """
    seen = {name: observed(each["nve"], each["npt"]) for name, each in runs.items()}
    rows = []
    for name in labels:
        # Of models that drive no runs there are errors alone.
        numbers = len(_SEEN) * [""]
        if name in seen:
            own = seen[name]
            numbers = [own["drift"], own["pressure"], own["pressure_std"]]
            numbers += [*own["diffusion"], own["diffusion_std"]]
            numbers += [rdf_deviation(own, seen[EXACT]), own["density"]]
            numbers = [f"{x:.3g}" for x in numbers]
        rows.append((labels[name], *error_cells(errors.get(name)), *numbers))
    write_table(table_path, COLUMNS, rows)
    shown = {labels[name]: own for name, own in seen.items()}
    figure = figure_liquid(
        shown, labels[EXACT], rows, provenance=provenance, style=style
    )
    for path in paths:
        save(figure, path)


def error_cells(path):
    """What a model learnt from and its errors, of its table; empty without one."""
    if path is None:
        return ["", "", ""]
    (row,) = table(path)
    errors = (rounded(float(row[k]), 3) for k in ("energy_error", "force_error"))
    return [row["n_train"], *errors]


def observed(nve, npt):
    """What the runs of one potential show.

    Parameters
    ----------
    nve, npt : sequence of path_like

    Returns
    -------
    dict
    """
    parts, drifts = [], []
    for path in nve:
        header, kept = load_archive(path, KIND, 1)
        species = np.array(header["species"])
        drifts.append(energy_drift(kept["time"], kept["total"], len(species)))
        for some in np.array_split(np.arange(len(kept["time"])), _PARTS):
            parts.append(_of_part({k: v[some] for k, v in kept.items()}, species))
    found = {"drift": max(drifts, key=abs)}
    n, some = len(parts), {k: np.array([p[k] for p in parts]) for k in parts[0]}
    for name in ("pressure", "rdf", "msd"):
        found[name] = some[name].mean(axis=0)
        found[f"{name}_std"] = some[name].std(axis=0, ddof=1) / np.sqrt(n)
    found["lags"], found["r"] = parts[0]["lags"], parts[0]["r"]
    low, high = (np.searchsorted(found["lags"], edge) for edge in _slope(found["lags"]))
    slopes = [
        np.polyfit(found["lags"][low:high], msd[:, low:high].T, 1)[0] / 6
        for msd in some["msd"]
    ]
    found["diffusion"] = np.mean(slopes, axis=0)
    found["diffusion_std"] = float((np.std(slopes, axis=0, ddof=1) / np.sqrt(n)).max())
    sides = np.concatenate([load_archive(path, KIND, 1)[1]["side"] for path in npt])
    found["density"] = len(species) / float(np.mean(sides**3))
    return found


def _slope(lags):
    """Times between which the slope is taken, in short runs shorter ones."""
    return [edge * min(1.0, lags[-1] / _SLOPE[1]) for edge in _SLOPE]


def _of_part(kept, species):
    """Means over a part of a run at constant volume."""
    side = kept["side"][0]
    edges = np.arange(0.0, 0.5 * side, _BIN)
    volumes = 4 / 3 * np.pi * np.diff(edges**3)
    counts = {name: np.zeros(len(volumes)) for name in _KINDS}
    for positions in kept["positions"]:
        for name, (a, b) in _KINDS.items():
            one, other = positions[species == a], positions[species == b]
            vectors = one[:, None] - other
            vectors -= side * np.round(vectors / side)
            distances = np.linalg.norm(vectors, axis=-1)
            if a == b:
                distances = distances[~np.eye(len(one), dtype=bool)]
            counts[name] += np.histogram(distances, edges)[0]
    rdf = []
    for name, (a, b) in _KINDS.items():
        n_pairs = (species == a).sum() * ((species == b).sum() - (a == b))
        expected = len(kept["time"]) * n_pairs * volumes / side**3
        rdf.append(counts[name] / expected)
    n_lags = max(2, len(kept["time"]) * 4 // 5)
    msd = np.zeros((2, n_lags))
    for i, z in enumerate((11, 17)):
        own = kept["positions"][:, species == z]
        for lag in range(1, n_lags):
            msd[i, lag] = np.mean(np.sum((own[lag:] - own[:-lag]) ** 2, axis=-1))
    step = kept["time"][1] - kept["time"][0]
    return {
        "pressure": kept["pressure"].mean(),
        "rdf": np.array(rdf),
        "msd": msd,
        "lags": step * np.arange(n_lags),
        "r": 0.5 * (edges[1:] + edges[:-1]),
    }


def rdf_deviation(own, exact):
    """Deviation from the exact functions in units of the noise of both."""
    variance = own["rdf_std"] ** 2 + exact["rdf_std"] ** 2
    seen = variance > 0.0
    if own is exact or not seen.any():
        return 0.0
    squares = (own["rdf"] - exact["rdf"])[seen] ** 2 / variance[seen]
    return float(np.sqrt(np.mean(squares)))


if "snakemake" in globals():
    job = started_job(globals())
    params = job.params
    runs = {}
    for name, ensemble, path in zip(
        params.potentials, params.ensembles, job.input.runs, strict=True
    ):
        runs.setdefault(name, {}).setdefault(ensemble, []).append(path)
    liquid(
        runs,
        dict(zip(params.models, job.input.errors, strict=True)),
        job.output.table,
        [job.output.pdf, job.output.png, job.output.caption],
        labels=params.labels,
        provenance=params.provenance,
        style=params.style,
    )
