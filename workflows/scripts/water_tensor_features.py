"""Equivariant features of the boxes of water, summed over each box."""

import lode.bases  # noqa: F401

# A descriptor's dictionary names classes of these modules, which are then imported
# while running: they stand here so that the rule follows their code.
import lode.coupling  # noqa: F401
import lode.expansion  # noqa: F401
import lode.fields  # noqa: F401
import lode.invariants  # noqa: F401
from job import started_job
from lode.datasets.frames import read_frames
from lode.equivariants import equivariant_sums, whitening_groups
from lode.serialization import from_dict


def water_tensor_features(boxes_path, path, *, descriptor, curve, n_threads=None):
    """Write the sums, and the moments that whiten them in each repeat.

    Parameters
    ----------
    boxes_path : path_like
        Frames that ASE reads.
    path : path_like
        Archive (npz) to write, see :class:`lode.equivariants.EquivariantSums`.
    descriptor : dict
        Specification of an ``EquivariantPowerSpectrum``.
    curve : dict
        Settings of the learning curves: ``n_train``, ``n_test``, ``n_repeats``,
        ``seed``.
    n_threads : int, optional
        Threads to use.
    """
    frames = read_frames(boxes_path)
    sums = equivariant_sums(
        from_dict(descriptor),
        frames,
        whitening_groups(len(frames), **curve),
        n_threads=n_threads,
        progress=True,
    )
    sums.save(path)


if "snakemake" in globals():
    job = started_job(globals())
    water_tensor_features(
        job.input.boxes,
        job.output.features,
        descriptor=job.params.descriptor,
        curve=job.params.curve,
        n_threads=job.threads,
    )
