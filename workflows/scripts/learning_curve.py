"""Test errors of one learning curve."""

import numpy as np

from csv_tables import table
from errors import write_errors
from job import started_job
from lode.features import StructureFeatures
from lode.learning import learning_curve
from lode.parallel import single_threaded_blas
from lode.serialization import from_dict


def learning_curve_table(
    representation_paths,
    energies_paths,
    path,
    *,
    kernel,
    n_train,
    n_test,
    n_repeats,
    seed,
    digits,
    resolution,
    max_features,
    n_threads=None,
):
    """Write the error of each training size and each shuffle.

    Parameters
    ----------
    representation_paths : sequence of path_like
        The kernel's representation of the frames (npz), chunk by chunk.
    energies_paths : sequence of path_like
        Tables with a column ``energy``, likewise.
    path : path_like
        Table to write: ``n_train,repeat,rmse_percent``, the error in percent of
        the standard deviation of the test energies.
    kernel : dict
        Specification of the kernel.
    n_train : sequence of int
        Sizes of the training set.
    n_test : int
        Size of the test set.
    n_repeats : int
        Number of shuffles.
    seed : int
        Seed of the shuffles.
    digits : int
        Significant digits printed.
    resolution : float
        Smallest error in percent told from zero.
    max_features : int
        A linear kernel with at most so many features is always solved by them, which
        resolves smaller errors than the kernel matrix does; one with more only for
        large training sets.
    n_threads : int, optional
        Fits done at a time.
    """
    energies = np.array(
        [float(row["energy"]) for file in energies_paths for row in table(file)]
    )
    representation = StructureFeatures.concatenated(
        StructureFeatures.load(file) for file in representation_paths
    )
    kernel = from_dict(kernel)
    gram = features = None
    if kernel.is_linear:
        features = kernel.linear_features(representation)
    else:
        # One thread: sums in one order, the same digits on any number of cores.
        with single_threaded_blas():
            gram = kernel.gram(representation)
    curve = learning_curve(
        gram,
        energies,
        n_train,
        n_test=n_test,
        n_repeats=n_repeats,
        seed=seed,
        features=features,
        dual=features is not None and features.shape[1] > max_features,
        n_threads=n_threads,
        progress=True,
    )
    write_errors(path, curve, digits, resolution)


if "snakemake" in globals():
    job = started_job(globals())
    learning_curve_table(
        job.input.representations,
        job.input.energies,
        job.output.errors,
        kernel=job.params.kernel,
        **job.params.settings,
        n_threads=job.threads,
    )
