r"""Rotationally invariant features: radial spectrum and power spectrum."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tqdm import tqdm

from lode.core import invariants as core
from lode.expansion import SphericalExpansion, environment_labels, frame_map
from lode.parallel import single_threaded_blas, thread_count
from lode.radial import padded
from lode.systems import systems

# Coefficients of at most this size exist at a time while features are computed.
_COEFFICIENT_BYTES = 2**28


@dataclass(frozen=True)
class Features:
    """Features of atomic environments.

    Attributes
    ----------
    values : ndarray (n_environments, n_features)
        One row per atom, frames in order.
    species : ndarray (n_environments,) of int
        Atomic number of each centre.
    frame_index : ndarray (n_environments,) of int
        Frame of each centre, from 0.
    labels : ndarray (n_features,), structured
        What each column is.
    n_frames : int
        Number of frames.
    neighbor_species : tuple of int
        Atomic numbers of the expanded fields.
    """

    values: np.ndarray
    species: np.ndarray
    frame_index: np.ndarray
    labels: np.ndarray
    n_frames: int
    neighbor_species: tuple


class _Descriptor:
    """What the invariants share: frames in, one row of features per atom out."""

    def compute(self, frames, *, species=None, n_threads=None, progress=False):
        """Features of every atom of every frame.

        Parameters
        ----------
        frames : ase.Atoms or sequence of ase.Atoms
            Finite, or periodic in all three directions.
        species : sequence of int, optional
            Fields to expand, instead of the expansion's own setting.
        n_threads : int, optional
            By default that of ``NUMBA_NUM_THREADS``. The result does not depend
            on it.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Features

        Raises
        ------
        TypeError, ValueError
            If a frame is not valid (see :func:`lode.systems.system`) or holds a
            species that is not expanded.
        """
        checked = systems(frames)
        used, index = self._expansions()[0].species_of(checked, species)
        labels = _labels(self, used)
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in checked])])
        values = np.empty((offsets[-1], len(labels)))

        def fill(frame, inner_threads):
            rows = values[offsets[frame] : offsets[frame + 1]]
            size = max(1, _COEFFICIENT_BYTES // self._coefficient_bytes(len(used)))
            arguments = (checked[frame], index[frame], len(used), size, inner_threads)
            start = 0
            for found in self._runs(*arguments):
                stop = start + len(found[0])
                self._fill(rows[start:stop], *found)
                start = stop

        frame_map(fill, len(checked), n_threads, progress)
        species, frame_index = environment_labels(checked)
        return Features(values, species, frame_index, labels, len(checked), used)

    def chunks(
        self, frames, *, memory=2**27, species=None, n_threads=None, progress=False
    ):
        """Features of consecutive atoms, in pieces that need little memory.

        Small frames are taken together, large ones cut: neither the features nor the
        coefficients of all atoms exist at a time.

        Parameters
        ----------
        frames : ase.Atoms or sequence of ase.Atoms
        memory : int
            Bytes of the coefficients and features of a piece, which has one atom at
            least. What all pieces of a large frame share comes on top: its pairs and
            its wave vectors, in proportion to its size.
        species, n_threads, progress
            As for :meth:`compute`.

        Yields
        ------
        Features
            With ``frame_index`` and ``n_frames`` as of :meth:`compute`; the values of
            all pieces, one after the other, are its values.

        Raises
        ------
        TypeError, ValueError
            As :meth:`compute`, or if ``memory`` is not positive.

        Examples
        --------
        >>> from ase.build import molecule
        >>> import lode
        >>> basis = lode.RadialBasis.gto(max_radial=2, cutoff=3.0)
        >>> density = lode.GaussianDensity(smearing=0.5)
        >>> soap = lode.PowerSpectrum(lode.SphericalExpansion(density, basis, 2))
        >>> [len(x.values) for x in soap.chunks([molecule("H2O")] * 4, memory=5000)]
        [6, 6]
        """
        if not memory > 0:
            raise ValueError(f"memory must be positive, got {memory}")
        checked = systems(frames)
        used, index = self._expansions()[0].species_of(checked, species)
        labels = _labels(self, used)
        size = int(memory // (8 * len(labels) + self._coefficient_bytes(len(used))))
        size = max(1, size)
        centers, frame_index = environment_labels(checked)
        row = 0
        title = type(self).__name__
        bar = tqdm(total=len(centers), desc=title, unit="atom", disable=not progress)

        def features(values):
            nonlocal row
            part = slice(row, row + len(values))
            row = part.stop
            bar.update(len(values))
            of_part = (centers[part], frame_index[part])
            return Features(values, *of_part, labels, len(checked), used)

        with bar:
            for group in _groups([len(s) for s in checked], size):
                if len(group) > 1 or len(checked[group[0]]) <= size:
                    some = [checked[frame] for frame in group]
                    found = self.compute(some, species=used, n_threads=n_threads)
                    yield features(found.values)
                    continue
                frame = group[0]
                arguments = (checked[frame], index[frame], len(used), size)
                runs = self._runs(*arguments, thread_count(n_threads))
                while True:
                    with single_threaded_blas():
                        found = next(runs, None)
                    if found is None:
                        break
                    values = np.empty((len(found[0]), len(labels)))
                    self._fill(values, *found)
                    yield features(values)

    def _runs(self, *arguments):
        """Coefficients of all expansions around consecutive atoms of one frame."""
        return zip(
            *[e.around_runs(*arguments) for e in self._expansions()], strict=True
        )

    def _coefficient_bytes(self, n_species):
        """Memory of the coefficients of one centre."""
        return sum(
            8 * n_species * (e.max_angular + 1) ** 2 * padded(e.basis.max_radial)
            for e in self._expansions()
        )


@dataclass(frozen=True)
class RadialSpectrum(_Descriptor):
    r"""Spherical average of a field around each atom, :math:`c_{\alpha n00}`.

    With a potential this is LODE(1): linear in the field.

    Parameters
    ----------
    expansion : SphericalExpansion
        Only its l = 0 part is computed.

    Raises
    ------
    TypeError
        If the expansion is not a :class:`~lode.SphericalExpansion`.

    References
    ----------
    Grisafi and Ceriotti, J. Chem. Phys. 151, 204105 (2019), Eq. 9 at ν = 1.
    """

    expansion: SphericalExpansion

    def __post_init__(self):
        _check_expansion("expansion", self.expansion)

    def labels(self, species):
        """Structured array of the species and the radial index of each column."""
        n_max = self.expansion.basis.max_radial
        labels = np.empty(len(species) * n_max, [("species", int), ("n", int)])
        labels["species"] = np.repeat(species, n_max)
        labels["n"] = np.tile(np.arange(n_max), len(species))
        return labels

    def _expansions(self):
        return (dataclasses.replace(self.expansion, max_angular=0),)

    def _fill(self, rows, c_jamn):
        rows[:] = c_jamn[:, :, 0, :].reshape(len(rows), -1)


@dataclass(frozen=True)
class PowerSpectrum(_Descriptor):
    r"""Invariant of two fields around the same atom.

    .. math:: p_{l\,\alpha n\,\alpha' n'} = \frac{1}{\sqrt{2l+1}}
        \sum_m c_{\alpha nlm}\, c'_{\alpha' n'lm}

    A density with itself is SOAP, a potential with itself LODE(2), a density with a
    potential the multiscale LODE(1,1).

    Parameters
    ----------
    expansion : SphericalExpansion
        First field.
    other : SphericalExpansion, optional
        Second field, with the same ``max_angular``. By default the first again:
        then each pair of channels is kept once, times √2 if they differ, which
        leaves every scalar product as it is.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a :class:`~lode.SphericalExpansion`, or the two differ
        in ``max_angular`` or ``species``.

    Notes
    -----
    Signs are those of the paper; featomic multiplies by a further :math:`(-1)^l`.

    References
    ----------
    Grisafi and Ceriotti, J. Chem. Phys. 151, 204105 (2019), Eq. 9 at ν = 2.
    """

    expansion: SphericalExpansion
    other: SphericalExpansion | None = None

    def __post_init__(self):
        _check_expansion("expansion", self.expansion)
        if self.other is None:
            return
        _check_expansion("other", self.other)
        for name in ("max_angular", "species"):
            mine, its = getattr(self.expansion, name), getattr(self.other, name)
            if mine != its:
                raise ValueError(
                    f"both expansions must have the same {name}, got {mine} and {its}"
                )

    def labels(self, species):
        """Structured array of l and of the two channels of each column."""
        first = _channels(species, self.expansion)
        second = first if self.other is None else _channels(species, self.other)
        if self.other is None:
            x, y = np.triu_indices(len(first))
        else:
            x, y = np.indices((len(first), len(second))).reshape(2, -1)
        names = ("l", "species_1", "n_1", "species_2", "n_2")
        n_l = self.expansion.max_angular + 1
        labels = np.empty(n_l * len(x), [(name, int) for name in names])
        labels["l"] = np.repeat(np.arange(n_l), len(x))
        channels = np.concatenate([first[x], second[y]], axis=1)
        for name, column in zip(names[1:], channels.T, strict=True):
            labels[name] = np.tile(column, n_l)
        return labels

    def _expansions(self):
        if self.other is None:
            return (self.expansion,)
        return (self.expansion, self.other)

    def _fill(self, rows, *coefficients):
        l_max = self.expansion.max_angular
        if self.other is None:
            core.power_spectrum(*coefficients, l_max, rows)
        else:
            core.cross_spectrum(*coefficients, l_max, rows)


def _groups(sizes, most):
    """Runs of frames that have at most so many atoms together, or of one frame."""
    start = 0
    while start < len(sizes):
        stop, total = start + 1, sizes[start]
        while stop < len(sizes) and total + sizes[stop] <= most:
            total += sizes[stop]
            stop += 1
        yield range(start, stop)
        start = stop


@lru_cache(maxsize=64)
def _labels(descriptor, species):
    """Labels of the columns, read-only: many calls share them."""
    labels = descriptor.labels(species)
    labels.setflags(write=False)
    return labels


def _check_expansion(name, value):
    if not isinstance(value, SphericalExpansion):
        raise TypeError(
            f"{name} must be a SphericalExpansion, got {type(value).__name__}"
        )


def _channels(species, expansion):
    """(species, n) of each channel of an expansion."""
    n = np.arange(expansion.basis.max_radial)
    return np.array([(z, k) for z in species for k in n])
