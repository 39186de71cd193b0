"""Features of every frame of the binding curves, from which a model is linear."""

import ase.io
import numpy as np

# A model's specification names classes of these modules, which are then imported
# while running: they stand here so that the rule follows their code.
import lode.expansion  # noqa: F401
import lode.fields  # noqa: F401
import lode.invariants  # noqa: F401
import lode.kernels  # noqa: F401
import lode.radial  # noqa: F401
import lode.regression  # noqa: F401
from job import started_job
from lode.archive import load_archive, save_archive
from lode.combinations import interactions
from lode.learning import ordered_split
from lode.parallel import single_threaded_blas
from lode.specification import build

KIND = "dimer features"


def dimer_features(
    curves_path, path, *, model, difference, train_fraction, n_threads=None
):
    """Choose the sparse points of a model and write the features of all frames.

    Parameters
    ----------
    curves_path : path_like
        Frames with ``name``, ``kind`` and ``n_atoms_a``.
    path : path_like
        Archive (npz) to write.
    model : dict
        Specification of a sparse model.
    difference : bool
        Whether the model describes E(AB) − E(A) − E(B), or the dimer as a whole.
    train_fraction : float
        The sparse points are from the first dimers, at training distances.
    n_threads : int, optional
        Threads to use.
    """
    frames = ase.io.read(curves_path, ":")
    name, kind = (
        np.array([str(a.info[key]) for a in frames]) for key in ("name", "kind")
    )
    train = ordered_split(name, train_fraction) & (kind == "training")
    if difference:
        frames = interactions(frames, [int(a.info["n_atoms_a"]) for a in frames])
    process = build(model)
    options = {"n_threads": n_threads, "progress": True}
    # One thread of BLAS: sums in one order, the same digits on any number of cores.
    with single_threaded_blas():
        species = _species(frames)
        chosen = [frames[i] for i in np.flatnonzero(train)]
        process.select(chosen, species=species, **options)
        features = process.features(frames, **options)
    print(f"{process.sparse.n_frames} sparse points, {features.shape[1]} features")
    save_archive(path, KIND, {}, {"features": features})


def saved_features(path):
    """Features that :func:`dimer_features` wrote, (n_frames, n_features)."""
    return load_archive(path, KIND)[1]["features"]


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
        train_fraction=job.params.train_fraction,
        n_threads=job.threads,
    )
