r"""Linear models of tensors in equivariant features.

A component μ of a structure A is a sum over its environments,

.. math:: y^\mu(A) = \sum_z \sum_{i\in A,\,z_i=z} p_i^{\lambda\mu}\cdot\beta_z,

with the same coefficients for all μ: the model turns with the structure exactly. Its
kernel is :math:`\sum_{ij} \delta_{z_iz_j}\, p_i^{\mu} W_z W_z^T p_j^{\mu'}`, with the
whitening W of each centre species (:mod:`lode.conditioning`). There is no intercept:
for λ > 0 none turns with the structure.

Indices of arrays: A structures, z centre species, q components μ, f features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

import lode
from lode.archive import load_archive, save_archive
from lode.conditioning import whitening
from lode.invariants import EquivariantPowerSpectrum
from lode.learning import LearningCurve, splits
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.regression import REGULARIZATIONS, fit_features
from lode.specification import build, specification
from lode.systems import finite_array, species_index, systems, whole_number

_SUMS, _MODEL = "equivariant sums", "EquivariantRegression"
# Features of so much memory exist at a time, but of one frame at least: small enough
# for the allocator to use the same memory again.
_CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class EquivariantSums:
    """Equivariant features summed over the environments of each structure.

    Made by :func:`equivariant_sums`.

    Attributes
    ----------
    values : ndarray (n_frames, n_centers, 2 λ + 1, n_features)
        Sums over the environments of each centre species.
    moments : ndarray (n_groups, n_centers, n_features, n_features)
        For each group of frames Σ x xᵀ over their environments and over the
        components, whose mean is zero: n times the covariance.
    centers : tuple of int
        Centre species, ascending.
    neighbor_species : tuple of int
        Atomic numbers of the expanded fields.
    """

    values: np.ndarray
    moments: np.ndarray
    centers: tuple
    neighbor_species: tuple

    def save(self, path):
        """Write to one npz file, whole or not at all."""
        header = {
            "version": 1,
            "centers": self.centers,
            "neighbor_species": self.neighbor_species,
        }
        arrays = {"values": self.values, "moments": self.moments}
        save_archive(path, _SUMS, header, arrays)

    @classmethod
    def load(cls, path):
        """Sums written by :meth:`save`.

        Raises
        ------
        ValueError
            If the file is truncated, damaged or of another kind.
        """
        header, arrays = load_archive(path, _SUMS)
        return cls(
            arrays["values"],
            arrays["moments"],
            tuple(header["centers"]),
            tuple(header["neighbor_species"]),
        )


def equivariant_sums(
    descriptor,
    frames,
    groups=(),
    *,
    species=None,
    centers=None,
    n_threads=None,
    progress=False,
):
    """Sums of equivariant features over structures, and moments of environments.

    Environments are described in chunks and never kept.

    Parameters
    ----------
    descriptor : EquivariantPowerSpectrum
        The features.
    frames : sequence of ase.Atoms
        Structures.
    groups : sequence of sequences of int
        Groups of frames whose environments' second moments are wanted.
    species : sequence of int, optional
        Neighbour species; by default all that occur.
    centers : sequence of int, optional
        Centre species; by default all that occur.
    n_threads : int, optional
        Threads to use. The result does not depend on it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    EquivariantSums

    Raises
    ------
    ValueError
        If a frame is not valid or holds a species that is not among those given, or a
        group names a frame that is not there.
    """
    checked = systems(frames)
    neighbors, _ = species_index(checked, species)
    found = np.unique(np.concatenate([s.species for s in checked]))
    centers = found if centers is None else np.unique(np.asarray(centers))
    other = np.setdiff1d(found, centers)
    if len(other):
        raise ValueError(
            f"species of centres must be among {centers.tolist()}, got unknown "
            f"{other.tolist()}"
        )
    members = np.zeros((len(groups), len(checked)), dtype=bool)
    for mask, group in zip(members, groups, strict=True):
        group = np.asarray(group, dtype=np.int64)
        if len(group) and not 0 <= group.min() <= group.max() < len(checked):
            raise ValueError(
                f"groups must name frames below {len(checked)}, got {group.tolist()}"
            )
        mask[group] = True
    n_threads = thread_count(n_threads)
    n_q, n_f = 2 * descriptor.angular + 1, len(descriptor.labels(tuple(neighbors)))
    sums = np.zeros((len(checked), len(centers), n_q, n_f))
    moments = np.zeros((len(groups), len(centers), n_f, n_f))
    tasks = [(g, z) for g in range(len(groups)) for z in range(len(centers))]
    bar = tqdm(
        total=len(checked),
        desc=type(descriptor).__name__,
        unit="frame",
        disable=not progress,
    )
    with bar, single_threaded_blas():
        for start, stop in _chunks([len(s) for s in checked], 8 * n_q * n_f):
            x = descriptor.compute(
                checked[start:stop], species=neighbors, n_threads=n_threads
            )
            for z, center in enumerate(centers):
                rows = np.flatnonzero(x.species == center)
                np.add.at(sums[:, z], start + x.frame_index[rows], x.values[rows])

            def add_moment(task, x=x, start=start):
                group, z = task
                kept = members[group, start + x.frame_index]
                rows = np.flatnonzero(kept & (x.species == centers[z]))
                if len(rows):
                    part = x.values[rows].reshape(-1, n_f)
                    moments[group, z] += part.T @ part

            thread_map(add_moment, tasks, n_threads)
            bar.update(stop - start)
    return EquivariantSums(
        sums, moments, tuple(centers.tolist()), tuple(int(z) for z in neighbors)
    )


def _chunks(sizes, row_bytes):
    """Consecutive frames whose features fill a chunk, (start, stop)."""
    start, n_rows = 0, max(1, _CHUNK_BYTES // row_bytes)
    rows = 0
    for stop, size in enumerate(sizes):
        if stop > start and rows + size > n_rows:
            yield start, stop
            start, rows = stop, 0
        rows += size
    yield start, len(sizes)
