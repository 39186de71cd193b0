"""What the kernel of one learning curve needs of each frame."""

# A kernel's dictionary names classes of these modules, which are then imported
# while running: they stand here so that the rule follows their code.
import lode.bases  # noqa: F401
import lode.expansion  # noqa: F401
import lode.fields  # noqa: F401
import lode.invariants  # noqa: F401
import lode.kernels  # noqa: F401
from job import started_job
from lode.datasets.frames import read_frames
from lode.serialization import from_dict


def features(frames_path, path, *, kernel, n_threads=None):
    """Write a kernel's representation of the frames.

    Parameters
    ----------
    frames_path : path_like
        Frames that ASE reads.
    path : path_like
        Archive (npz) to write.
    kernel : dict
        Specification of the kernel.
    n_threads : int, optional
        Threads to use.
    """
    frames = read_frames(frames_path)
    representation = from_dict(kernel).precompute(
        frames, n_threads=n_threads, progress=True
    )
    representation.save(path)


if "snakemake" in globals():
    job = started_job(globals())
    features(
        job.input.frames,
        job.output.representation,
        kernel=job.params.kernel,
        n_threads=job.threads,
    )
