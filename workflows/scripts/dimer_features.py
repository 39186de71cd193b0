"""Features of every frame of the binding curves, from which a model is linear."""

import numpy as np

# A model's dictionary names classes of these modules, which are then imported
# while running: they stand here so that the rule follows their code.
import lode.bases  # noqa: F401
import lode.expansion  # noqa: F401
import lode.fields  # noqa: F401
import lode.invariants  # noqa: F401
import lode.kernels  # noqa: F401
import lode.sparse  # noqa: F401
from job import started_job
from lode.archive import Wanted, checked_arrays, load_archive, save_archive
from lode.charges import formal_charges
from lode.combinations import interactions
from lode.datasets.frames import read_frames
from lode.learning import group_splits, ordered_split
from lode.parallel import single_threaded_blas
from lode.serialization import from_dict
from lode.sparse import sparse_features

KIND = "dimer features"
# Kinds of frames that are learnt from.
LEARNT = ("training", "isolated")


def dimer_features(
    curves_path,
    path,
    *,
    model,
    difference,
    isolated,
    train_fraction,
    n_splits,
    seed,
    n_threads=None,
):
    """Choose the sparse points of each split and write the features of all frames.

    Parameters
    ----------
    curves_path : path_like
        Frames with ``name``, ``subset``, ``kind`` and ``n_atoms_a``.
    path : path_like
        Archive (npz) to write.
    model : dict
        Specification of a sparse model.
    difference : bool
        Whether the model describes E(AB) − E(A) − E(B), or the dimer as a whole.
    isolated : bool
        Whether the features of the molecules alone follow those of the frames.
    train_fraction : float
        The sparse points are from this share of the dimers, at training distances.
    n_splits, seed : int
        Number and seed of the random splits, beside the one by name.
    n_threads : int, optional
        Threads to use.

    Raises
    ------
    ValueError
        With ``difference`` and ``isolated``: the difference of one molecule is zero
        whatever the model.
    """
    if difference and isolated:
        raise ValueError("difference and isolated must not both be true")
    frames = charged(read_frames(curves_path))
    kind = np.array([str(a.info["kind"]) for a in frames])
    masks = splits(frames, train_fraction, n_splits, seed)
    if isolated:
        molecules, dimer = isolated_molecules(frames)
        frames, kind = frames + molecules, np.append(kind, ["isolated"] * len(dimer))
        masks = [np.append(mask, mask[dimer]) for mask in masks]
    if difference:
        frames = interactions(frames, [int(a.info["n_atoms_a"]) for a in frames])

    # One thread of BLAS: sums in one order, the same digits on any number of cores.
    with single_threaded_blas():
        features = sparse_features(
            from_dict(model),
            frames,
            [mask & np.isin(kind, LEARNT) for mask in masks],
            species=_species(frames),
            n_threads=n_threads,
            progress=True,
        )
    for values in features:
        print(f"{values.shape[1]} features")
    arrays = {f"features_{i}": values for i, values in enumerate(features)}
    save_archive(path, KIND, {}, arrays)


def charged(frames):
    """The frames with the formal charges of their atoms.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        With ``name``. Bonds do not change along the rigid curve of one dimer.

    Returns
    -------
    list of ase.Atoms
        The same.
    """
    charges = {}
    for atoms in frames:
        name = atoms.info["name"]
        if name not in charges:
            charges[name] = formal_charges(atoms)
        atoms.set_initial_charges(charges[name])
    return frames


def isolated_molecules(frames):
    """Both molecules of every dimer, each alone.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        With ``name`` and ``n_atoms_a``. Molecules are rigid along the curve of a dimer:
        the first frame of each name stands for all.

    Returns
    -------
    molecules : list of ase.Atoms
        Two for each dimer, with their initial charges.
    dimer : ndarray (n_molecules,) of int
        The frame that each is from.
    """
    first = {}
    for i, atoms in enumerate(frames):
        first.setdefault(atoms.info["name"], i)
    molecules = []
    for i in first.values():
        n = int(frames[i].info["n_atoms_a"])
        molecules += [frames[i][:n], frames[i][n:]]
    return molecules, np.repeat(np.array(list(first.values()), dtype=np.int64), 2)


def splits(frames, train_fraction, n_splits, seed):
    """Which frames are learnt from: in the split by name, then in random ones.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        With ``name`` and ``subset``.
    train_fraction : float
        Share of the dimers.
    n_splits, seed : int
        Number and seed of the random splits, each class ``subset`` by itself.

    Returns
    -------
    list of ndarray (n_frames,) of bool
    """
    name, subset = (
        np.array([str(a.info[key]) for a in frames]) for key in ("name", "subset")
    )
    return [
        ordered_split(name, train_fraction),
        *group_splits(name, train_fraction, n_splits, seed, strata=subset),
    ]


def saved_features(path):
    """Features that :func:`dimer_features` wrote, (n_rows, n_features) by split."""
    arrays = load_archive(path, KIND)[1]
    wanted = {
        f"features_{i}": Wanted("float", ("row", f"column_{i}"))
        for i in range(len(arrays))
    }
    return list(checked_arrays(arrays, wanted).values())


def _species(frames):
    """Species of all frames: the test set may have one that the training set lacks."""
    structures = [s for f in frames for s in getattr(f, "structures", [f])]
    return sorted({int(z) for atoms in structures for z in np.unique(atoms.numbers)})


if "snakemake" in globals():
    job = started_job(globals())
    dimer_features(
        job.input.curves,
        job.output.features,
        **job.params.settings,
        isolated=job.params.isolated,
        **job.params.splits,
        n_threads=job.threads,
    )
