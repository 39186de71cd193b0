r"""Rotationally invariant features: radial spectrum and power spectrum."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lode.core import invariants as core
from lode.expansion import SphericalExpansion, environment_labels, frame_map
from lode.systems import systems


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
        # All agree in the species; those of charges need them besides.
        used, index = [e.species_of(checked, species) for e in self._expansions()][0]
        labels = _labels(self, used)
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in checked])])
        values = np.empty((offsets[-1], len(labels)))

        def fill(frame, inner_threads):
            rows = values[offsets[frame] : offsets[frame + 1]]
            arguments = (checked[frame], index[frame], len(used), inner_threads)
            self._fill(rows, *[e.around(*arguments) for e in self._expansions()])

        frame_map(fill, len(checked), n_threads, progress)
        species, frame_index = environment_labels(checked)
        return Features(values, species, frame_index, labels, len(checked), used)


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
        fields = self.expansion.fields(species)
        labels = np.empty(len(fields) * n_max, [("species", int), ("n", int)])
        labels["species"] = np.repeat(fields, n_max)
        labels["n"] = np.tile(np.arange(n_max), len(fields))
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
    return np.array([(z, k) for z in expansion.fields(species) for k in n])
