"""Test errors of one learning curve of the anisotropic dielectric tensor of water."""

import numpy as np

from errors import write_errors
from job import started_job
from lode.coupling import spherical_tensor
from lode.datasets.frames import read_frames
from lode.equivariants import EquivariantSums, equivariant_learning_curve


def water_tensor_curve(
    boxes_path,
    features_paths,
    path,
    *,
    exponents,
    n_components,
    n_train,
    n_test,
    n_repeats,
    seed,
    digits,
    n_threads=None,
):
    """Write the error of each training size and each shuffle.

    What is learnt is the tensor times the volume of the box: a sum over molecules.

    Parameters
    ----------
    boxes_path : path_like
        Frames with ``epsilon``.
    features_paths : sequence of path_like
        What ``water_tensor_features`` wrote for each descriptor of the model.
    path : path_like
        Table to write: ``n_train,repeat,rmse_percent``, the error of the five
        components of λ = 2 of the dielectric tensor in percent of their root mean
        square in the test set.
    exponents : sequence of float
        Of the whitening of each descriptor.
    n_components : int or None
        Directions kept of each descriptor and centre species; all of them if None.
    n_train : sequence of int
        Sizes of the training set.
    n_test, n_repeats, seed : int
        Size of the test set; number of shuffles and their seed.
    digits : int
        Significant digits printed.
    n_threads : int, optional
        Repeats done at a time.
    """
    frames = read_frames(boxes_path)
    tensors = np.array([np.reshape(a.info["epsilon"], (3, 3)) for a in frames])
    volume = np.array([a.cell.volume for a in frames])
    curve = equivariant_learning_curve(
        [EquivariantSums.load(features) for features in features_paths],
        spherical_tensor(tensors)[:, 1:],
        n_train,
        n_test=n_test,
        n_repeats=n_repeats,
        seed=seed,
        exponent=exponents,
        n_components=n_components,
        factors=volume / volume.mean(),
        n_threads=n_threads,
        progress=True,
    )
    write_errors(path, curve, digits)


if "snakemake" in globals():
    job = started_job(globals())
    water_tensor_curve(
        job.input.boxes,
        job.input.features,
        job.output.errors,
        exponents=job.params.exponents,
        n_components=job.params.n_components,
        **job.params.curve,
        n_threads=job.threads,
    )
