"""Predictions of one model of the dimers, and its errors on other splits."""

import numpy as np

from csv_tables import rounded, write_table
from dimer_features import LEARNT, isolated_molecules, saved_features, splits
from job import started_job
from lode.datasets.frames import read_frames
from lode.learning import relative_error
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.ridge import fit_features

CLASSES = ("both charged", "one charged", "like charges")
PREDICTIONS = [
    "name",
    "class",
    "kind",
    "distance",
    "charge_distance",
    "part",
    "energy",
    "predicted",
]
EXPERIMENTS = [
    "experiment",
    "left_out",
    "n_dimers",
    "set",
    "rmse_percent",
    "rmse_meV",
    "n_frames",
]


def dimer_model(
    curves_path,
    features_path,
    predictions_path,
    experiments_path,
    *,
    intercept,
    isolated,
    hold_out,
    train_fraction,
    n_splits,
    n_folds,
    seed,
    digits,
    n_threads=None,
):
    """Write what a model predicts, and its errors where other dimers are left out.

    Parameters
    ----------
    curves_path : path_like
        Frames with ``name``, ``subset``, ``kind``, ``distance``, the charges and
        ``e_int_ev``.
    features_path : path_like
        The model's features of them, for each split; with ``isolated`` those of the
        molecules follow.
    predictions_path : path_like
        Table to write: every frame with its energy and the prediction in eV of the
        model that learnt from the first dimers; ``part`` is ``train`` or ``test``.
        ``charge_distance`` is empty where it is not known.
    experiments_path : path_like
        Table to write: errors of models that learnt from other dimers. Those of the
        random splits have their own sparse points and regularisation; what is left
        out is left out with those of the first model.
    intercept : bool
        Whether the model has a constant.
    isolated : bool
        Whether the model also learns that a molecule alone has no interaction energy.
    hold_out : bool
        Whether to leave out each charged molecule, and the pairs of like charges.
    train_fraction : float
        Share of the dimers to learn from.
    n_splits : int
        Number of random splits, each class ``subset`` by itself.
    n_folds : int
        Folds of the cross-validation, by dimer.
    seed : int
        Of the folds and the random splits.
    digits : int
        Significant digits of the errors.
    n_threads : int, optional
        Experiments done at once.
    """
    frames = read_frames(curves_path)
    features, *others = saved_features(features_path)
    name, kind = (
        np.array([str(a.info[key]) for a in frames]) for key in ("name", "kind")
    )
    energy = np.array([float(a.info["e_int_ev"]) for a in frames])
    # The frame of each row of features: its own, then, of a molecule, its dimer's.
    frame = np.arange(len(frames))
    if isolated:
        frame = np.append(frame, isolated_molecules(frames)[1])
    n_alone = len(frame) - len(frames)
    learnt_kind = np.append(kind, ["isolated"] * n_alone)
    learnt_energy = np.append(energy, np.zeros(n_alone))

    def solution(features, train, regularization=None):
        rows = train[frame] & np.isin(learnt_kind, LEARNT)
        found = fit_features(
            features[rows],
            learnt_energy[rows],
            regularization=regularization,
            groups=name[frame][rows],
            n_folds=n_folds,
            seed=seed,
            intercept=intercept,
            normal_equations=True,
        )
        if len(found.errors):
            error = 100.0 * found.errors.min() / learnt_energy[rows].std()
            print(f"cross-validation {error:.2f} %, λ = {found.regularization:.1e}")
        return found

    # One thread: the same digits on any number of cores.
    with single_threaded_blas():
        train, *drawn = splits(frames, train_fraction, n_splits, seed)
        chosen = solution(features, train)
        predicted = chosen.predict(features[: len(frames)])
        rows = []
        for i, atoms in enumerate(frames):
            part = "train" if train[i] else "test"
            energies = (f"{energy[i]:.6f}", f"{predicted[i]:.6f}")
            r = [atoms.info.get(key) for key in ("distance", "charge_distance")]
            r = ["" if value is None else f"{float(value):.6f}" for value in r]
            rows.append((name[i], charge_class(atoms), kind[i], *r, part, *energies))
        write_table(predictions_path, PREDICTIONS, rows)
        # One decomposition instead of six for what is left out: λ, one number, and the
        # sparse points, which are no energies, know little of it.
        experiments = [
            ("random split", str(i + 1), mask, values, None)
            for i, (mask, values) in enumerate(zip(drawn, others, strict=True))
        ]
        if hold_out:
            same = (features, chosen.regularization)
            experiments += [(*experiment, *same) for experiment in held_out(frames)]

        def errors(task):
            experiment, left_out, train, values, regularization = task
            fitted = solution(values, train, regularization)
            predicted = fitted.predict(values[: len(frames)])
            n_dimers = len(np.unique(name[~train]))
            rows = []
            for label, found in (("test", "training"), ("far", "far")):
                tested = ~train & (kind == found)
                cells = error_cells(predicted[tested], energy[tested], digits)
                rows.append((experiment, left_out, n_dimers, label, *cells))
            return rows

        n_threads = thread_count(n_threads)
        rows = thread_map(errors, experiments, n_threads, "experiments", "fit")
        write_table(experiments_path, EXPERIMENTS, [r for some in rows for r in some])


def held_out(frames):
    """Experiments that leave out a charged molecule, or the pairs of like charges.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        With ``n_atoms_a``, ``charge_a`` and ``charge_b``.

    Returns
    -------
    list of (str, str, ndarray of bool)
        Kind of experiment, what is left out, and whether a frame is learnt from.
        What occurs nowhere or everywhere is no experiment.
    """
    molecules = [charged_molecules(atoms) for atoms in frames]
    classes = np.array([charge_class(atoms) for atoms in frames])
    masks = [
        ("molecule", label, np.array([label not in found for found in molecules]))
        for label in sorted(set().union(*molecules))
    ]
    masks.append(("class", CLASSES[2], classes != CLASSES[2]))
    # At least two dimers on each side, whatever they are.
    return [m for m in masks if 2 < m[2].sum() < len(frames)]


def charged_molecules(atoms):
    """Formulas and charges of the charged molecules of a dimer, as ``C2H3O2 -1``."""
    n, info = int(atoms.info["n_atoms_a"]), atoms.info
    parts = ((atoms[:n], info["charge_a"]), (atoms[n:], info["charge_b"]))
    return {
        f"{part.get_chemical_formula()} {int(charge):+d}"
        for part, charge in parts
        if int(charge)
    }


def charge_class(atoms):
    """Which of the molecules of a dimer are charged, and whether alike."""
    product = int(atoms.info["charge_a"]) * int(atoms.info["charge_b"])
    return CLASSES[0] if product < 0 else CLASSES[2] if product > 0 else CLASSES[1]


def error_cells(predicted, energy, digits):
    """RMSE in percent of the standard deviation, in meV, and number of frames.

    Returns
    -------
    rmse_percent, rmse_meV : str
        Empty if there are no frames, or all have the same energy.
    n_frames : int
    """
    if len(energy) == 0:
        return "", "", 0
    if np.ptp(energy) == 0.0:
        rmse, percent = np.sqrt(np.mean((predicted - energy) ** 2)), ""
    else:
        rmse, percent = relative_error(predicted, energy)
        percent = f"{rounded(percent, digits):g}"
    return percent, f"{rounded(1e3 * rmse, digits):g}", len(energy)


if "snakemake" in globals():
    job = started_job(globals())
    dimer_model(
        job.input.curves,
        job.input.features,
        job.output.predictions,
        job.output.experiments,
        intercept=job.params.intercept,
        isolated=job.params.isolated,
        hold_out=job.params.hold_out,
        **job.params.settings,
        n_threads=job.threads,
    )
