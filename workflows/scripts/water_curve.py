"""Test errors of one learning curve of the dielectric response of water."""

import numpy as np

from errors import write_errors
from job import started_job
from lode.datasets.frames import read_frames
from lode.datasets.water import geometry_features
from lode.dipoles import clausius_mossotti, dielectric_constant
from lode.learning import learning_curve
from water_kernel import saved_term

# Columns of the features of density and shape.
GEOMETRY = {"inverse_volume": 0, "bond_length": 1, "angle": 2}
# A few independent numbers for each box: least squares.
_LEAST_SQUARES = 1e-12


def water_curve(
    boxes_path,
    kernel_paths,
    path,
    *,
    target,
    geometry=(),
    n_train,
    n_test,
    n_repeats,
    seed,
    digits,
    n_threads=None,
):
    """Write the error of each training size and each shuffle.

    Parameters
    ----------
    boxes_path : path_like
        Frames with ``epsilon_trace``.
    kernel_paths : sequence of path_like
        Kernels that the model is a weighted sum of; one alone has its regularisation
        from cross-validation, the weights of more are the likeliest.
    path : path_like
        Table to write: ``n_train,repeat,rmse_percent``, the error of the trace of the
        dielectric tensor in percent of its standard deviation in the test set.
    target : str
        What is learnt: ``trace``, or ``clausius_mossotti``, the polarisability of a
        molecule that the trace and the volume stand for.
    geometry : sequence of str
        Instead of kernels: numbers that the model is linear in.
    n_train : sequence of int
        Sizes of the training set.
    n_test, n_repeats, seed : int
        Size of the test set; number of shuffles and their seed.
    digits : int
        Significant digits printed.
    n_threads : int, optional
        Fits done at a time.
    """
    frames = read_frames(boxes_path)
    trace = np.array([float(a.info["epsilon_trace"]) for a in frames])
    curve = {"n_test": n_test, "n_repeats": n_repeats, "seed": seed}
    if geometry:
        columns = [GEOMETRY[name] for name in geometry]
        model = {
            "features": geometry_features(frames)[:, columns],
            "regularization": _LEAST_SQUARES,
        }
    else:
        settings = curve | {"n_train": n_train}
        terms = [saved_term(k, settings, len(frames)) for k in kernel_paths]
        model = {"terms": terms}
    if target == "clausius_mossotti":
        molecules = [len(a) / 3 for a in frames]
        volume = np.array([a.cell.volume for a in frames]) / molecules
        model["transformed"] = clausius_mossotti(trace / 3.0, volume)
        model["inverse_transform"] = lambda values, of: (
            3.0 * dielectric_constant(values, volume[of])
        )
    found = learning_curve(
        None, trace, n_train, **curve, **model, n_threads=n_threads, progress=True
    )
    write_errors(path, found, digits)


if "snakemake" in globals():
    job = started_job(globals())
    water_curve(
        job.input.boxes,
        job.input.kernels,
        job.output.errors,
        target=job.params.target,
        geometry=job.params.geometry,
        **job.params.curve,
        n_threads=job.threads,
    )
