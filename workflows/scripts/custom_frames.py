"""Structures of one's own, checked, and the models that suit them."""

import sys

import numpy as np

import model_modules  # noqa: F401
from csv_tables import write_table
from job import started_job
from lode.datasets.frames import write_frames
from lode.datasets.labelled import described, read_labelled
from lode.equivariants import EquivariantRegression
from lode.files import write_json
from lode.serialization import to_dict
from lode.sparse import SparseGaussianProcess
from lode.suggestions import LABELS, suggestions

# What is learnt of a target with so many numbers: the part's name and λ.
_PARTS = {1: {"": 0}, 3: {"": 1}, 9: {"trace": 0, "anisotropy": 2}}
_ENERGY = "energy"


def custom_frames(
    path,
    frames_path,
    targets_path,
    plan_path,
    *,
    target,
    extensive,
    forces,
    n_sparse,
    seed,
    say=print,
):
    """Check the structures and choose the models, before anything is learnt.

    Parameters
    ----------
    path : path_like
        Structures with targets, of any file that ASE reads.
    frames_path : path_like
        Extended XYZ to write: the different structures, with ``forces`` where known.
    targets_path : path_like
        Table to write: the numbers of the target of each frame.
    plan_path : path_like
        JSON to write: what the data are, remarks, and for each curve its ``label``,
        ``part`` and ``model``.
    target : str
        What to learn, see :func:`lode.datasets.labelled.read_labelled`.
    extensive : bool or None
        Whether the target grows with the structure. None: energies and vectors do; of
        others it must be said if the structures differ in size.
    forces : str or None
        Name of the forces that are learnt with ``energy``.
    n_sparse, seed : int
        Of the models.
    say : callable
        Takes each sentence on the data, for the person who waits.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`lode.datasets.labelled.read_labelled`, or if ``extensive`` must be
        given.
    """
    # The forces of a file are those of its energy.
    data = read_labelled(path, target, forces if target == _ENERGY else None)
    sizes, n_components = np.unique(data.n_atoms), data.values.shape[1]
    if extensive is None:
        extensive = _ENERGY in target.lower() or n_components == 3
        if not extensive and len(sizes) > 1:
            raise ValueError(
                f"custom.extensive must be true if {target} grows with the structure "
                f"and false if not, since these have {sizes[0]} to {sizes[-1]} atoms; "
                "got null"
            )
    chosen = suggestions(data.frames)
    about = [described(data.frames), chosen.text()]
    for sentence in [*about, *(f"note: {remark}" for remark in data.remarks)]:
        say(f"{path}: {sentence}")
    curves = {}
    for part, angular in _PARTS[n_components].items():
        models = _models(chosen, data.frames, angular, extensive, n_sparse, seed)
        for name, model in models.items():
            label = f"{LABELS[name]}, {part}" if part else LABELS[name]
            curves[f"{name}_{part}" if part else name] = {
                "label": label,
                "part": part,
                "angular": angular,
                "model": to_dict(model),
            }
    frames = []
    for i, atoms in enumerate(data.frames):
        plain = atoms.copy()
        plain.info = {}
        known = {"numbers", "positions", "initial_charges"}
        for other in set(plain.arrays) - known:
            del plain.arrays[other]
        if data.forces is not None and data.forces[i] is not None:
            plain.arrays["known_forces"] = data.forces[i]
        frames.append(plain)
    write_frames(frames_path, frames)
    columns = [f"value_{i}" for i in range(n_components)]
    write_table(targets_path, columns, [map(repr, row) for row in data.values.tolist()])
    plan = {
        "target": target,
        "extensive": bool(extensive),
        "unit": _unit(target, extensive, n_components),
        "about": about,
        "remarks": data.remarks,
        "has_forces": data.forces is not None,
        "curves": curves,
    }
    write_json(plan_path, plan)


def _unit(target, extensive, n_components):
    """Unit of the errors: scalars that grow with the structure count per atom."""
    unit = "eV" if _ENERGY in target.lower() else f"units of {target}"
    return f"{unit} per atom" if extensive and n_components != 3 else unit


def _models(chosen, frames, angular, extensive, n_sparse, seed):
    """A model to be fitted for each kernel or set of descriptors."""
    if angular == 0:
        return {
            name: SparseGaussianProcess(
                kernel, n_sparse=n_sparse, intercept="species", seed=seed
            )
            for name, kernel in chosen.kernels(frames).items()
        }
    return {
        name: EquivariantRegression(
            descriptors, exponent=exponents, average=not extensive
        )
        for name, (descriptors, exponents) in chosen.equivariants(angular).items()
    }


if "snakemake" in globals():
    job = started_job(globals())

    def say(sentence):
        """To the log and, since a person waits, to the terminal."""
        print(sentence)
        print(sentence, file=sys.__stderr__, flush=True)

    custom_frames(
        job.input.data,
        job.output.frames,
        job.output.targets,
        job.output.plan,
        **job.params.settings,
        say=say,
    )
