r"""Invariant and equivariant features: radial spectrum and power spectra."""

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from operator import add

import numpy as np
from tqdm import tqdm

from lode.core import invariants as core
from lode.core.registers import whole_lanes
from lode.coupling import clebsch_gordan
from lode.expansion import COEFFICIENT_BYTES, SphericalExpansion
from lode.gradients import checked_derivatives
from lode.parallel import thread_count, thread_map
from lode.systems import structures, whole_number

# Features that a thread makes at least, else waking it takes longer.
_LEAST_FEATURES = 2**18
# Centres whose gradients are contracted at a time.
_LEAST_CENTERS = 256


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


@dataclass(frozen=True)
class EquivariantFeatures(Features):
    """Features of atomic environments that turn with them.

    As :class:`Features`, with ``values`` of shape (n_environments, 2 λ + 1,
    n_features): components μ = -λ ... λ, which turn as the real spherical harmonics do.
    """

    @property
    def angular(self):
        """λ."""
        return self.values.shape[1] // 2


class _Descriptor:
    """What the features share: frames in, features of each atom out."""

    _features = Features
    _components = ()

    def compute(self, frames, *, species=None, n_threads=None, progress=False):
        """Features of every atom of every frame.

        Parameters
        ----------
        frames : ase.Atoms, iterable of ase.Atoms or Structures
            Finite or periodic; along one or two directions only with densities.
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
        inputs = structures(frames)
        used, channel_i = self.channels(inputs, species)
        labels = _labels(self, used)
        values = np.empty((len(channel_i), *self._components, len(labels)))
        self._write(values, inputs, channel_i, len(used), n_threads, progress)
        atoms = inputs.species.copy(), inputs.frame_index
        return self._features(values, *atoms, labels, len(inputs), used)

    def vjp(self, frames, dE_dX, *, species=None, strain=True, n_threads=None):
        """Derivatives of scalars that depend on the features.

        Parameters
        ----------
        frames : ase.Atoms, iterable of ase.Atoms or Structures
            As for :meth:`compute`.
        dE_dX : ndarray (..., n_environments, n_features)
            Derivatives with respect to the features, with the components of
            equivariant ones before the last axis; of one scalar or of several along a
            leading axis.
        strain
            As for :meth:`SphericalExpansion.vjp`.
        species, n_threads
            As for :meth:`compute`.

        Returns
        -------
        Gradient

        Raises
        ------
        TypeError, ValueError
            As :meth:`SphericalExpansion.vjp`.
        """
        inputs, used, coefficients = self._expanded(frames, species, n_threads)
        return self._swept(inputs, used, coefficients, n_threads, dE_dX, strain)

    def features_and_vjp(self, frames, *, species=None, n_threads=None):
        """Features, and the function that sweeps back from them.

        Parameters
        ----------
        frames, species, n_threads
            As for :meth:`compute`.

        Returns
        -------
        features : Features
            As of :meth:`compute`.
        vjp : callable
            ``vjp(dE_dX, strain=True)`` is :meth:`vjp` of the same frames, with the
            coefficients that are there already.

        Raises
        ------
        TypeError, ValueError
            As :meth:`vjp`.
        """
        inputs, used, coefficients = self._expanded(frames, species, n_threads)
        labels = _labels(self, used)
        values = np.empty((len(inputs.species), *self._components, len(labels)))
        of_fields = [coefficients[expansion] for expansion in self._expansions()]
        self._write_features(values, of_fields, thread_count(n_threads))
        atoms = inputs.species.copy(), inputs.frame_index
        features = self._features(values, *atoms, labels, len(inputs), used)
        return features, partial(self._swept, inputs, used, coefficients, n_threads)

    def _expanded(self, frames, species, n_threads):
        """Structures, species and the coefficients of each distinct expansion."""
        inputs = structures(frames)
        used, _ = self.channels(inputs, species)
        distinct = dict.fromkeys(self._expansions())
        for expansion in distinct:
            expansion.check_smooth()
        options = {"species": used, "n_threads": n_threads}
        return inputs, used, {e: e.compute(inputs, **options).values for e in distinct}

    def _swept(self, inputs, used, coefficients, n_threads, dE_dX, strain=True):
        shape = (len(inputs.species), *self._components, len(_labels(self, used)))
        gradient = checked_derivatives(dE_dX, shape, "dE_dX")
        leading = gradient.shape[: -len(shape)]
        both = self._expansions()
        gradients = {e: np.zeros((*leading, *c.shape)) for e, c in coefficients.items()}

        def contract(first):
            rows = slice(first, first + _LEAST_CENTERS)
            values = [coefficients[e][rows] for e in both]
            for index in np.ndindex(*leading):
                sums = [gradients[e][index][rows] for e in both]
                self._contract(gradient[index][rows], values, sums)

        starts = range(0, shape[0], _LEAST_CENTERS)
        thread_map(contract, starts, thread_count(n_threads))
        options = {"species": used, "n_threads": n_threads, "strain": strain}
        return reduce(add, [e.vjp(inputs, g, **options) for e, g in gradients.items()])

    def chunks(
        self, frames, *, memory=2**27, species=None, n_threads=None, progress=False
    ):
        """Features of consecutive atoms, in pieces that need little memory.

        Small frames are taken together, large ones cut: neither the features nor the
        coefficients of all atoms exist at a time.

        Parameters
        ----------
        frames : ase.Atoms, iterable of ase.Atoms or Structures
        memory : int
            Bytes of the coefficients and features of a piece, which has one atom at
            least. What all pieces of a large frame share comes on top: its images or
            list of pairs and its wave vectors, in proportion to its size.
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
        >>> [len(x.values) for x in soap.chunks([molecule("H2O")] * 4, memory=10000)]
        [6, 6]
        """
        if not memory > 0:
            raise ValueError(f"memory must be positive, got {memory}")
        inputs = structures(frames)
        used, channel_i = self.channels(inputs, species)
        labels, n_used = _labels(self, used), len(used)
        width = (*self._components, len(labels))
        size = int(memory // (8 * math.prod(width) + self._coefficient_bytes(n_used)))
        size = max(1, size)
        pieces = self._pieces(inputs, channel_i, n_used, width, size, n_threads)
        title, n_atoms = type(self).__name__, len(channel_i)
        start = 0
        with tqdm(total=n_atoms, desc=title, unit="atom", disable=not progress) as bar:
            for values in pieces:
                rows = slice(start, start + len(values))
                start = rows.stop
                bar.update(len(values))
                atoms = inputs.species[rows], inputs.frame_index[rows]
                yield self._features(values, *atoms, labels, len(inputs), used)

    def _pieces(self, inputs, channel_i, n_used, width, size, n_threads):
        """Features of at most so many atoms at a time."""
        start = 0
        for group in inputs.ranges(size):
            part = inputs.chosen(group)
            of_part = channel_i[start : start + len(part.species)]
            start += len(of_part)
            if len(of_part) <= size:
                values = np.empty((len(of_part), *width))
                self._write(values, part, of_part, n_used, n_threads, False)
                yield values
                continue
            threads = thread_count(n_threads)
            for found in self._runs(part[0], of_part, n_used, size, threads):
                values = np.empty((len(found[0]), *width))
                self._write_features(values, found, threads)
                yield values

    def relative_error(self, inputs=None):
        """Error by which features of the same environment may differ.

        Parameters
        ----------
        inputs : Structures, optional
            By default any.

        Returns
        -------
        float
            Relative to the size of the features.
        """
        # Of products of two coefficients at most.
        return 2.0 * max(e.relative_error(inputs) for e in self._expansions())

    def channels(self, inputs, species=None):
        """As :meth:`SphericalExpansion.channels`, of all expansions alike."""
        # All agree in the species; those of charges need them besides.
        return [e.channels(inputs, species) for e in self._expansions()][0]

    def _write(self, values, inputs, channel_i, n_used, n_threads, progress):
        """Write the features of all atoms."""
        size = max(1, COEFFICIENT_BYTES // self._coefficient_bytes(n_used))

        def write(batch):
            start, (_, system, own, threads) = batch.rows.start, batch
            for found in self._runs(system, own, n_used, size, threads):
                stop = start + len(found[0])
                self._write_features(values[start:stop], found, threads)
                start = stop

        batches, at_once = inputs.batches(channel_i, n_threads)
        title = type(self).__name__ if progress else None
        counts = [batch.n_structures for batch in batches]
        thread_map(write, batches, at_once, title, "frame", counts)

    def _write_features(self, rows, coefficients, n_threads):
        """Write the features of some atoms, a part of them on each thread."""
        each = math.prod(rows.shape[1:])
        step = max(-(-len(rows) // n_threads), -(-_LEAST_FEATURES // each))

        def fill(start):
            part = slice(start, start + step)
            self._fill(rows[part], *[c_jamn[part] for c_jamn in coefficients])

        thread_map(fill, range(0, len(rows), step), n_threads)

    def _runs(self, *arguments):
        """Coefficients of all expansions around consecutive atoms of one frame."""
        return zip(
            *[e.around_runs(*arguments) for e in self._expansions()], strict=True
        )

    def _coefficient_bytes(self, n_species):
        """Memory of the coefficients of one centre."""
        return sum(
            8
            * (n_species if e.sources == "species" else 1)
            * (e.max_angular + 1) ** 2
            * whole_lanes(e.basis.max_radial)
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
        fields = self.expansion.fields(species)
        labels = np.empty(len(fields) * n_max, [("species", int), ("n", int)])
        labels["species"] = np.repeat(fields, n_max)
        labels["n"] = np.tile(np.arange(n_max), len(fields))
        return labels

    def _expansions(self):
        return (dataclasses.replace(self.expansion, max_angular=0),)

    def _fill(self, rows, c_jamn):
        rows[:] = c_jamn[:, :, 0, :].reshape(len(rows), -1)

    def _contract(self, gradient, values, sums):
        sums[0][:] = gradient.reshape(sums[0].shape)


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
        _check_pair(self.expansion, self.other)

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
        first, second = coefficients[0], coefficients[-1]
        same_field = self.other is None
        core.power_spectrum(first, second, same_field, self.expansion.max_angular, rows)

    def _contract(self, gradient, values, sums):
        settings = self.other is None, self.expansion.max_angular
        core.power_spectrum_gradients(
            values[0], values[-1], *settings, gradient, sums[0], sums[-1]
        )


@dataclass(frozen=True)
class EquivariantPowerSpectrum(_Descriptor):
    r"""Two fields around the same atom, coupled to one angular momentum λ.

    .. math:: p^{\lambda\mu}_{l\,\alpha n\,l'\alpha' n'} =
        \sum_{mm'} \langle lm; l'm' | \lambda\mu \rangle\,
        c_{\alpha nlm}\, c'_{\alpha' n'l'm'},\qquad |l-l'| \le \lambda \le l+l'

    For each column the 2 λ + 1 components turn with the environment as the real
    spherical harmonics do: what a tensorial property is learnt from. λ = 0 is
    :class:`PowerSpectrum`.

    Parameters
    ----------
    expansion : SphericalExpansion
        First field.
    other : SphericalExpansion, optional
        Second field, with the same ``max_angular``. By default the first again:
        then each pair of channels (l, α, n) is kept once, times √2 if they differ,
        which leaves every scalar product as it is.
    angular : int
        λ, at most twice ``max_angular``.
    parity : {1, -1}
        1: proper tensors, which inversion multiplies by (−1)^λ as it does the
        harmonics, with even l + l' + λ. Polarisability and dielectric tensor, dipole
        moment and forces are of this kind. -1: pseudotensors, with odd l + l' + λ,
        which get another sign, as the gyration tensor and magnetic moments do. A
        property of one kind has no linear model in features of the other.

    Raises
    ------
    TypeError, ValueError
        If an expansion is not a :class:`~lode.SphericalExpansion`, the two differ in
        ``max_angular`` or ``species``, a number is out of range or no pair of
        channels couples to λ with this parity.

    Notes
    -----
    The coefficients ⟨lm; l'm'|λμ⟩ are those of
    :func:`lode.coupling.clebsch_gordan`: with the phase :math:`(-i)^{l+l'-\lambda}`, so
    that λ = 0 is the power spectrum and not :math:`(-1)^l` times it.

    References
    ----------
    A. Grisafi, D. M. Wilkins, G. Csányi and M. Ceriotti, Phys. Rev. Lett. 120, 036002
    (2018).

    Examples
    --------
    >>> from ase.build import molecule
    >>> import lode
    >>> basis = lode.RadialBasis.monomial(max_radial=2, cutoff=3.0)
    >>> coulomb = lode.PowerLawPotential(exponent=1, smearing=1.0)
    >>> expansion = lode.SphericalExpansion(coulomb, basis, max_angular=2)
    >>> descriptor = lode.EquivariantPowerSpectrum(expansion, angular=2)
    >>> descriptor.compute(molecule("H2O")).values.shape
    (3, 5, 36)
    """

    expansion: SphericalExpansion
    other: SphericalExpansion | None = None
    angular: int = 2
    parity: int = 1

    _features = EquivariantFeatures

    def __post_init__(self):
        _check_pair(self.expansion, self.other)
        l_max = self.expansion.max_angular
        angular = whole_number(self.angular, 0, 2 * l_max, "angular")
        object.__setattr__(self, "angular", angular)
        if self.parity not in (1, -1):
            raise ValueError(f"parity must be 1 or -1, got {self.parity!r}")
        if not self._pairs():
            raise ValueError(
                f"parity {self.parity} and angular {angular} must be those of a pair "
                f"of harmonics up to max_angular {l_max}, got none"
            )

    @property
    def _components(self):
        return (2 * self.angular + 1,)

    def labels(self, species):
        """Structured array of the two channels, (l, species, n), of each column."""
        first = _channels(species, self.expansion)
        second = first if self.other is None else _channels(species, self.other)
        parts = []
        for l_1, l_2 in self._pairs():
            if self._fold(l_1, l_2):
                x, y = np.triu_indices(len(first), self._fold(l_1, l_2) - 1)
            else:
                x, y = np.indices((len(first), len(second))).reshape(2, -1)
            angular = np.broadcast_to([[l_1], [l_2]], (2, len(x)))
            parts.append(np.stack([angular[0], *first[x].T, angular[1], *second[y].T]))
        names = ("l_1", "species_1", "n_1", "l_2", "species_2", "n_2")
        columns = np.concatenate(parts, axis=1)
        labels = np.empty(columns.shape[1], [(name, int) for name in names])
        for name, column in zip(names, columns, strict=True):
            labels[name] = column
        return labels

    def _pairs(self):
        """Pairs (l, l') that couple to λ, each once for one field."""
        angular, odd = self.angular, self.parity < 0
        n_l = self.expansion.max_angular + 1
        return [
            (l_1, l_2)
            for l_1 in range(n_l)
            for l_2 in range(l_1 if self.other is None else 0, n_l)
            if abs(l_1 - l_2) <= angular <= l_1 + l_2
            and (l_1 + l_2 + angular) % 2 == odd
        ]

    def _fold(self, l_1, l_2):
        """Which pairs of channels are kept, as the compiled loop has it."""
        if self.other is not None or l_1 != l_2:
            return 0
        # Pseudotensors of one l change sign with the order of the channels.
        return 1 if self.parity > 0 else 2

    def _expansions(self):
        if self.other is None:
            return (self.expansion,)
        return (self.expansion, self.other)

    def _fill(self, rows, *coefficients):
        first, second = coefficients[0], coefficients[-1]
        n_x, n_y = (c.shape[1] * c.shape[3] for c in (first, second))
        plan = _coupling_plan(self, n_x, n_y)
        core.equivariant_spectrum(first, second, *plan, 2 * self.angular + 1, rows)

    def _contract(self, gradient, values, sums):
        n_x, n_y = (c.shape[1] * c.shape[3] for c in (values[0], values[-1]))
        plan = _coupling_plan(self, n_x, n_y)
        core.equivariant_spectrum_gradients(
            values[0], values[-1], *plan, gradient, sums[0], sums[-1]
        )


@lru_cache(maxsize=64)
def _coupling_plan(descriptor, n_x, n_y):
    """Blocks of features, and the coefficients of each, for the compiled loop."""
    blocks, entries, values = [], [], []
    start = feature = 0
    for l_1, l_2 in descriptor._pairs():
        coupling = clebsch_gordan(l_1, l_2, descriptor.angular)
        entry = np.argwhere(coupling)
        value = coupling[tuple(entry.T)]
        entry[:, 1] += l_2 * l_2
        fold = descriptor._fold(l_1, l_2)
        if descriptor.other is None and l_1 != l_2:
            value = math.sqrt(2.0) * value
        blocks.append((l_1, start, start + len(entry), fold, feature))
        entries.append(entry)
        values.append(value)
        start += len(entry)
        feature += n_x * n_y if fold == 0 else n_x * (n_x + 3 - 2 * fold) // 2
    plan = np.array(blocks), np.concatenate(entries), np.concatenate(values)
    for array in plan:
        array.setflags(write=False)
    return plan


@lru_cache(maxsize=64)
def _labels(descriptor, species):
    """Labels of the columns, read-only: many calls share them."""
    labels = descriptor.labels(species)
    labels.setflags(write=False)
    return labels


def _check_pair(expansion, other):
    """Two expansions, or one that is taken twice."""
    _check_expansion("expansion", expansion)
    if other is None:
        return
    _check_expansion("other", other)
    for name in ("max_angular", "species"):
        mine, its = getattr(expansion, name), getattr(other, name)
        if mine != its:
            raise ValueError(
                f"both expansions must have the same {name}, got {mine} and {its}"
            )


def _check_expansion(name, value):
    if not isinstance(value, SphericalExpansion):
        raise TypeError(
            f"{name} must be a SphericalExpansion, got {type(value).__name__}"
        )


def _channels(species, expansion):
    """(species, n) of each channel of an expansion."""
    n = np.arange(expansion.basis.max_radial)
    return np.array([(z, k) for z in expansion.fields(species) for k in n])
