"""One kernel between the boxes of water, for every training set of the curves."""

import numpy as np

# A kernel's dictionary names classes of these modules, which are then imported
# while running: they stand here so that the rule follows their code.
import lode.bases  # noqa: F401
import lode.expansion  # noqa: F401
import lode.fields  # noqa: F401
import lode.invariants  # noqa: F401
import lode.kernels  # noqa: F401
from job import started_job
from lode.archive import Wanted, checked_arrays, load_archive, save_archive
from lode.datasets.frames import read_frames
from lode.learning import fitted_term, splits
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.serialization import from_dict

KIND = "water kernel"


def water_kernel(boxes_path, path, *, kernel, curve, n_threads=None):
    """Write the kernel, fitted to each training set if there is something to fit.

    Parameters
    ----------
    boxes_path : path_like
        Frames that ASE reads.
    path : path_like
        Archive (npz) to write, see :func:`saved_term`.
    kernel : dict
        Specification of the kernel.
    curve : dict
        Settings of the learning curves: ``n_train``, ``n_test``, ``n_repeats``,
        ``seed``.
    n_threads : int, optional
        Threads to use.
    """
    frames = read_frames(boxes_path)
    kernel = from_dict(kernel)
    n_threads = thread_count(n_threads)
    if kernel.is_fitted:
        # One thread of BLAS: sums in one order, the same digits on any number of cores.
        representation = kernel.precompute(frames, n_threads=n_threads, progress=True)
        with single_threaded_blas():
            arrays = {"gram": kernel.gram(representation, progress=True)}
    else:
        representation = kernel.precompute(
            frames, n_threads=n_threads, progress=True, environments=True
        )
        term = fitted_term(kernel, representation)
        sets = training_sets(len(frames), curve)
        with single_threaded_blas():
            rows = thread_map(
                lambda name: term(*sets[name]), sets, n_threads, "fits", "set"
            )
        arrays = dict(zip(sets, rows, strict=True))
    save_archive(path, KIND, {}, arrays)


def training_sets(n_frames, curve):
    """Every training set of a learning curve with its test set.

    Parameters
    ----------
    n_frames : int
        Number of frames.
    curve : dict
        ``n_train``, ``n_test``, ``n_repeats``, ``seed``.

    Returns
    -------
    dict of str to (ndarray of int, ndarray of int)
        The largest first.
    """
    shuffles = splits(n_frames, curve["n_test"], curve["n_repeats"], curve["seed"])
    return {
        f"{repeat}_{n}": (pool[:n], test)
        for n in sorted(set(curve["n_train"]), reverse=True)
        for repeat, (pool, test) in enumerate(shuffles)
    }


def saved_term(path, curve, n_frames):
    """A kernel that :func:`water_kernel` wrote, as a term of a learning curve.

    Parameters
    ----------
    path : path_like
        The archive.
    curve : dict
        As for :func:`water_kernel`.
    n_frames : int
        Number of frames.

    Returns
    -------
    ndarray (n_frames, n_frames) or callable
        As :func:`lode.learning.learning_curve` takes them.
    """
    arrays = load_archive(path, KIND)[1]
    if "gram" in arrays:
        wanted = {"gram": Wanted("float", (n_frames, n_frames))}
        return checked_arrays(arrays, wanted)["gram"]
    sets = training_sets(n_frames, curve)
    wanted = {
        name: Wanted("float", (len(train) + len(test), len(train)))
        for name, (train, test) in sets.items()
    }
    arrays = checked_arrays(arrays, wanted)
    name = {np.concatenate(both).tobytes(): name for name, both in sets.items()}
    return lambda train, test: arrays[name[np.concatenate([train, test]).tobytes()]]


if "snakemake" in globals():
    job = started_job(globals())
    water_kernel(
        job.input.boxes,
        job.output.kernel,
        kernel=job.params.kernel,
        curve=job.params.curve,
        n_threads=job.threads,
    )
