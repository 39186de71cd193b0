"""A model of one's own data: its learning curve, errors, cost and file."""

import time
from pathlib import Path

import numpy as np

import model_modules  # noqa: F401
from csv_tables import rounded, table, write_table
from job import started_job
from lode.coupling import spherical_tensor, spherical_vector
from lode.datasets.frames import read_frames
from lode.datasets.labelled import composition_residual
from lode.files import read_json
from lode.learning import splits
from lode.parallel import single_threaded_blas
from lode.serialization import from_dict

ERRORS = ("n_train", "repeat", "rmse_percent")
PARITY = ("frame", "component", "value", "predicted", "std")
TEST = (
    *("rmse_percent", "rmse", "mae", "force_rmse", "force_mae"),
    *("coverage_68", "coverage_95", "n_train", "n_force_frames", "n_test"),
)
COST = ("fit_s", "predict_ms", "forces_ms", "model_kb")
# Smallest training set.
_LEAST = 10


def custom_model(
    frames_path, targets_path, plan_path, paths, *, name, settings, n_threads=None
):
    """Learn, test and write a model.

    Parameters
    ----------
    frames_path, targets_path, plan_path : path_like
        What :func:`custom_frames.custom_frames` wrote.
    paths : dict of str to path_like
        Files to write: tables ``errors`` (``n_train,repeat,rmse_percent``),
        ``parity``, ``test`` and ``cost``; and the ``model``, learnt from all frames.
    name : str
        Which of the plan's curves.
    settings : dict
        ``test_fraction``, ``n_sizes``, ``n_repeats``, ``force_atoms`` (forces are
        learnt of the first frames with so many atoms together), ``seed``, ``digits``.
    n_threads : int, optional
        Of descriptors. The results do not depend on it.
    """
    plan = read_json(plan_path)
    frames = read_frames(frames_path)
    rows = [list(map(float, row.values())) for row in table(targets_path)]
    task = Task(plan, plan["curves"][name], frames, np.array(rows), settings)
    with single_threaded_blas():
        _write(task, paths, settings, n_threads)


def _write(task, paths, settings, n_threads):
    digits, n_repeats = settings["digits"], settings["n_repeats"]
    n = len(task.frames)
    n_test = max(2, round(settings["test_fraction"] * n))
    covers, orders = [], []
    for parts in splits(n, n_test, n_repeats, settings["seed"]):
        order = np.concatenate(parts)
        cover = task.covering(order)
        covers.append(len(cover))
        orders.append(np.concatenate([cover, order[~np.isin(order, cover)]]))
    # Each training set has all species and boundaries.
    sizes = training_sizes(n - n_test, settings["n_sizes"], max(*covers, _LEAST))
    errors, pooled = [], []
    for repeat, order in enumerate(orders):
        pool, test = order[: n - n_test], order[n - n_test :]
        for size in sizes:
            start = time.perf_counter()
            model, n_forces = task.fitted(pool[:size], n_threads)
            fit_s = time.perf_counter() - start
            found = task.predicted(model, test, n_threads)
            percent = 100.0 * found.rmse / task.spread(test)
            errors.append((size, repeat, rounded(float(percent), digits)))
        pooled.append((percent, found, n_forces))
        if repeat == 0:
            write_table(paths["parity"], PARITY, found.parity(test))
            cost = task.cost(model, test, n_threads)
            seconds = fit_s
    write_table(paths["errors"], ERRORS, errors)
    task.fitted(np.arange(n), n_threads)[0].save(paths["model"])
    kilobytes = Path(paths["model"]).stat().st_size / 1e3
    cells = [f"{value:.3g}" if value else "" for value in (seconds, *cost, kilobytes)]
    write_table(paths["cost"], COST, [cells])
    means = np.mean([_cells(percent, found) for percent, found, _ in pooled], axis=0)
    cells = [_shown(value, digits) for value in means]
    counts = sizes[-1], pooled[0][2], n_test
    write_table(paths["test"], TEST, [(*cells, *counts)])


def training_sizes(largest, n_sizes, least):
    """Halves of the largest training set, ascending.

    Parameters
    ----------
    largest : int
        Frames that can be learnt from.
    n_sizes : int
        How many sizes at most.
    least : int
        Smallest.

    Returns
    -------
    list of int

    Raises
    ------
    ValueError
        If there are fewer frames than the smallest size.

    Examples
    --------
    >>> training_sizes(160, 4, 10), training_sizes(30, 4, 10)
    ([20, 40, 80, 160], [15, 30])
    """
    if largest < least:
        raise ValueError(
            f"there must be at least {least} structures to learn from, got {largest}"
        )
    sizes = [largest // 2**i for i in range(n_sizes)]
    return sorted(size for size in sizes if size >= least)


class Task:
    """What one curve learns, from which frames.

    Parameters
    ----------
    plan, curve : dict
        The whole plan and that of the curve.
    frames : list of ase.Atoms
        All structures.
    values : ndarray (n_frames, n_components)
        Their targets.
    settings : dict
        As of :func:`custom_model`.
    """

    def __init__(self, plan, curve, frames, values, settings):
        self.frames, self.spec = frames, curve["model"]
        self.force_atoms = settings["force_atoms"]
        self.n_atoms = np.array([len(atoms) for atoms in frames])
        self.scalar = curve["angular"] == 0
        self.species = sorted({int(z) for a in frames for z in a.numbers})
        self.has_forces = plan["has_forces"] and self.scalar
        if self.scalar:
            # A value for each atom: models add up their environments.
            # Of a tensor the trace.
            own = values[:, 0] if values.shape[1] == 1 else values[:, ::4].sum(axis=1)
            self.values = (own / self.n_atoms if plan["extensive"] else own)[:, None]
            self.residual = composition_residual(frames, self.values[:, 0])
        elif curve["angular"] == 1:
            self.values = spherical_vector(values)
        else:
            tensors = values.reshape(-1, 3, 3)
            symmetric = 0.5 * (tensors + tensors.transpose(0, 2, 1))
            self.values = spherical_tensor(symmetric)[:, 1:]

    def covering(self, order):
        """The first frames that together have all species and boundaries."""
        known, first = set(), []
        for i in order:
            atoms = self.frames[i]
            own = {*map(int, atoms.numbers), tuple(atoms.pbc.tolist())}
            if own - known:
                known |= own
                first.append(i)
        return np.array(first)

    def spread(self, test):
        """What errors are compared with: of scalars what composition leaves open."""
        if self.scalar:
            return float(self.residual[test].std())
        return float(np.sqrt(np.mean(self.values[test] ** 2)))

    def fitted(self, train, n_threads):
        """The model, learnt from some frames, and of how many the forces."""
        model, some = from_dict(self.spec), [self.frames[i] for i in train]
        options = {"species": self.species, "n_threads": n_threads}
        if not self.scalar:
            return model.fit(some, self.values[train], **options), 0
        totals = self.values[train, 0] * self.n_atoms[train]
        if not self.has_forces:
            return model.fit(some, totals, **options), 0
        forces = [atoms.arrays.get("known_forces") for atoms in some]
        known = np.cumsum([0 if f is None else len(f) for f in forces])
        # One frame at least, however large.
        limit = max(self.force_atoms, min(known[known > 0], default=0))
        forces = [f if n <= limit else None for f, n in zip(forces, known, strict=True)]
        n_forces = sum(f is not None for f in forces)
        forces = forces if n_forces else None
        return model.fit(some, totals, forces=forces, **options), n_forces

    def predicted(self, model, test, n_threads):
        """Predictions of the test frames beside what is known."""
        some = [self.frames[i] for i in test]
        known, forces = self.values[test], []
        if not self.scalar:
            values = model.predict(some, n_threads=n_threads)
            return Predictions(known, values, None, forces)
        found = model.predict(
            some, return_std=True, forces=self.has_forces, n_threads=n_threads
        )
        energy, std = (found.energy, found.std) if self.has_forces else found
        if self.has_forces:
            pairs = zip(some, found.forces, strict=True)
            forces = [
                (own - atoms.arrays["known_forces"]).ravel()
                for atoms, own in pairs
                if "known_forces" in atoms.arrays
            ]
        n = self.n_atoms[test]
        return Predictions(known, (energy / n)[:, None], (std / n)[:, None], forces)

    def cost(self, model, test, n_threads):
        """Milliseconds for each atom of a prediction, and of one with forces."""
        some = [self.frames[i] for i in test]
        n_atoms, costs = int(self.n_atoms[test].sum()), []
        for forces in (False, True):
            if forces and not self.has_forces:
                costs.append(None)
                continue
            options = {"forces": True} if forces else {}
            start = time.perf_counter()
            model.predict(some, n_threads=n_threads, **options)
            costs.append(1e3 * (time.perf_counter() - start) / n_atoms)
        return costs


class Predictions:
    """Values, predictions, standard deviations and errors of forces of test frames."""

    def __init__(self, known, values, std, forces):
        self.known, self.values, self.std = known, values, std
        self.errors = values - known
        self.forces = np.concatenate(forces) if forces else np.empty(0)
        self.rmse = float(np.sqrt(np.mean(self.errors**2)))

    def parity(self, places):
        """Rows of the table of predictions."""
        for row, frame in enumerate(places):
            for q, value in enumerate(self.known[row]):
                std = "" if self.std is None else repr(float(self.std[row, q]))
                cells = repr(float(value)), repr(float(self.values[row, q]))
                yield int(frame), q, *cells, std

    def coverage(self, width):
        """Percent of the errors within so many standard deviations."""
        if self.std is None:
            return np.nan
        return 100.0 * float(np.mean(abs(self.errors) <= width * self.std))


def _cells(percent, found):
    forces = found.forces
    of_forces = (
        (np.sqrt(np.mean(forces**2)), np.mean(abs(forces)))
        if len(forces)
        else (np.nan, np.nan)
    )
    return [
        *(percent, found.rmse, np.mean(abs(found.errors)), *of_forces),
        *(found.coverage(1.0), found.coverage(1.96)),
    ]


def _shown(value, digits):
    return "" if np.isnan(value) else rounded(float(value), digits)


if "snakemake" in globals():
    job = started_job(globals())
    custom_model(
        job.input.frames,
        job.input.targets,
        job.input.plan,
        dict(job.output.items()),
        name=job.wildcards.model,
        settings=job.params.settings,
        n_threads=job.threads,
    )
