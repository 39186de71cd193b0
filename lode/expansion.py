r"""Spherical expansion of atom-centred fields around each atom.

.. math::
    c_{j,\alpha nlm} = \int R_{nl}(r)\, Y_{lm}(\hat r)\, F_\alpha(r_j + r)\,d^3r
    = \sum_{i\in\alpha} f_{nl}(r_{ij})\, Y_{lm}(\hat r_{ij})

A pair sum with one function of the distance for each (n, l): no angular grid. One
compiled loop serves the density (SOAP), potentials of finite systems and the
short-range half of periodic ones; the long-range half is a matrix product over
half of reciprocal space. ``docs/theory.md`` has the derivation.
"""

import itertools
import math
import threading
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import vesin

from lode.core import expansion as core
from lode.fields import GaussianDensity, PowerLawPotential
from lode.parallel import (
    kept,
    post,
    scratch,
    thread_count,
    thread_map,
)
from lode.radial import (
    ContractedBasis,
    PairTable,
    RadialBasis,
    bessel_transform,
    mode_table,
    padded,
    pair_table,
)
from lode.systems import (
    atomic_numbers,
    side_by_side,
    species_index,
    systems,
    whole_number,
)
from lode.waves import (
    MOST_HELD,
    NO_COLUMNS,
    ProductSum,
    TransformSum,
    cell_field,
    kept_columns,
    no_field,
    product_cost,
    transform_cost,
    wave_count,
)

_LARGEST_ANGULAR = 30
_SOURCES = ("species", "charges")
# Frames above this many atoms are cut into blocks of centres that run in parallel;
# smaller finite ones are taken together.
_ROW_BLOCK = 256
# Groups of them for each thread.
_GROUPS = 2
# Microseconds of work that must be there for each thread at least: to wake one, and to
# read what another has written, takes a good part of it. As much where the threads are
# awake, if frames come one after the other.
_LEAST_SHARE = 350.0
_LEAST_JOINED = 200.0
# Centres that a thread takes at a time at least: tables are read anew for each run.
_LEAST_CENTERS = 12
# Coefficients of at most this size exist at a time, before they are copied or used.
COEFFICIENT_BYTES = 2**28
# Pairs of a finite frame that are listed at a time.
_PAIR_BLOCK = 2_000_000
# Images of a periodic one that are looked at for each pair, else pairs are listed: that
# is faster from about here on, but takes ten times the memory. To find the images of a
# centre takes as long as so many looks.
_LOOKS = 100
_LOOKS_ALONE = 2000
# Rungs for each doubling of a size: a choice takes longer than a small frame.
_RUNGS = 8
# Microseconds of a neighbour in the list and of its 392 channels, on one core; only
# the choices of the path and of the threads use them.
_COST_NEIGHBOR = 0.032
_COST_CHANNELS = 0.045
_Y00 = 1.0 / math.sqrt(4.0 * math.pi)
_NO_CHARGES = np.empty(0)
# Of a field that is summed over waves alone.
_NO_PAIRS = PairTable(np.zeros((1, 1, 0)), 1.0, 0.0, np.zeros((0, 0)), np.zeros(0), 0.0)


@dataclass(frozen=True)
class StepCutoff:
    """Every neighbour closer than the radius counts fully: the authors' hard cutoff.

    Parameters
    ----------
    radius : float
        In Å, positive.
    """

    radius: float

    width = 0.0

    def __post_init__(self):
        _check_length(self, "radius")


@dataclass(frozen=True)
class ShiftedCosineCutoff:
    r"""Smooth cutoff that falls as a cosine over the last ``width``.

    .. math:: f_c(r) = \tfrac12\left[1 + \cos\pi\frac{r - r_c + w}{w}\right]

    Parameters
    ----------
    radius : float
        Where it reaches zero, in Å.
    width : float
        Of the smooth part, in Å; at most the radius.
    """

    radius: float
    width: float = 0.5

    def __post_init__(self):
        _check_length(self, "radius")
        _check_length(self, "width")
        if self.width > self.radius:
            raise ValueError(
                f"width must be at most the radius {self.radius}, got {self.width}"
            )


@dataclass(frozen=True)
class RadialScaling:
    r"""Weight of a neighbour in the density that falls with its distance.

    .. math:: u(r) = \frac{c}{c + (r/r_0)^m}

    Parameters
    ----------
    scale : float
        :math:`r_0` in Å.
    exponent : float
        m, positive.
    rate : float
        c, positive.

    Raises
    ------
    ValueError
        If an argument is not positive.

    References
    ----------
    M. J. Willatt, F. Musil and M. Ceriotti, Phys. Chem. Chem. Phys. 20, 29661 (2018).
    """

    scale: float
    exponent: float
    rate: float = 1.0

    def __post_init__(self):
        _check_length(self, "scale")
        for name in ("exponent", "rate"):
            value = float(getattr(self, name))
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, got {value}")
            object.__setattr__(self, name, value)

    def weight(self, distance):
        """The weight u at distances in Å."""
        return self.rate / (self.rate + (distance / self.scale) ** self.exponent)


def _check_length(instance, name):
    value = float(getattr(instance, name))
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive length in Å, got {value}")
    object.__setattr__(instance, name, value)


@dataclass(frozen=True)
class Coefficients:
    """Expansion coefficients around every atom.

    Attributes
    ----------
    values : ndarray (n_atoms, n_species, (l_max + 1)**2, n_max)
        Third axis l * l + l + m with m = -l ... l; normalisation and real
        harmonics as in featomic.
    species : tuple of int
        Atomic numbers along the second axis: whose field is expanded; 0 for the field
        of the charges.
    center_species : ndarray (n_atoms,) of int
        Atomic number of each centre.
    frame_index : ndarray (n_atoms,) of int
        Frame of each centre.
    atom_index : ndarray (n_atoms,) of int
        Place of each centre in its frame.
    """

    values: np.ndarray
    species: tuple
    center_species: np.ndarray
    frame_index: np.ndarray
    atom_index: np.ndarray


@dataclass(frozen=True)
class SphericalExpansion:
    r"""Expansion of a field in radial functions and spherical harmonics.

    Parameters
    ----------
    field : GaussianDensity or PowerLawPotential
        What each atom carries. A density gives SOAP, a potential LODE.
    basis : RadialBasis or ContractedBasis
        Radial functions.
    max_angular : int
        Highest angular momentum l.
    cutoff_function : StepCutoff or ShiftedCosineCutoff, optional
        Of the density: neighbours within its radius count. By default a shifted
        cosine over the last 0.5 Å of the basis cutoff. A potential has none: it
        sees all atoms.
    species : sequence of int, optional
        Atomic numbers whose fields are expanded, by default those that occur.
    center_atom_weight : float
        Weight of the centre's own field; its periodic images always count.
    tolerance : float
        Error of the coefficients, relative to the largest that one atom has of its
        own field; from 1e-13 to 1e-2. Where many atoms cancel each other, as in
        very dense cells, the sum itself can be smaller than that.
    method : {"auto", "pairs", "split", "waves", "nufft"}
        For potentials of periodic frames: "split" is pairs and waves, "waves" all
        in reciprocal space, both by matrix products, whose cost grows as the square
        of the number of atoms; "nufft" is pairs and waves by non-uniform Fourier
        transforms, for thousands of atoms; "auto" takes the cheapest. Finite frames
        and densities need pairs only, whatever the method; "pairs" refuses periodic
        potentials.
    split : float, optional
        Splitting width s in Å, larger than the smearing; by default the cheapest.
    scaling : RadialScaling, optional
        Of the density: near neighbours count more than far ones.
    sources : {"species", "charges"}
        One field for each species, of all its atoms alike, or a single field in which
        each atom counts with its initial charge.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    References
    ----------
    Grisafi and Ceriotti, J. Chem. Phys. 151, 204105 (2019), Eqs. 3-8.

    Examples
    --------
    >>> from ase.build import molecule
    >>> import lode
    >>> coulomb = lode.PowerLawPotential(exponent=1, smearing=1.0)
    >>> basis = lode.RadialBasis.gto(max_radial=4, cutoff=3.0)
    >>> expansion = lode.SphericalExpansion(coulomb, basis, max_angular=2)
    >>> expansion.compute(molecule("H2O")).values.shape
    (3, 2, 9, 4)
    """

    field: GaussianDensity | PowerLawPotential
    basis: RadialBasis
    max_angular: int
    cutoff_function: StepCutoff | ShiftedCosineCutoff | None = None
    species: tuple | None = None
    center_atom_weight: float = 1.0
    tolerance: float = 1e-6
    method: str = "auto"
    split: float | None = None
    scaling: RadialScaling | None = None
    sources: str = "species"

    def __post_init__(self):
        _check_kind(self, "field", GaussianDensity | PowerLawPotential)
        _check_kind(self, "basis", RadialBasis | ContractedBasis)
        l_max = whole_number(self.max_angular, 0, _LARGEST_ANGULAR, "max_angular")
        object.__setattr__(self, "max_angular", l_max)
        if isinstance(self.basis, ContractedBasis):
            self.basis.functions(np.zeros(0), l_max)
        if self.field.long_range:
            if self.cutoff_function is not None:
                raise ValueError(
                    "cutoff_function must be None for a potential, which sees all "
                    f"atoms, got {self.cutoff_function}"
                )
            if self.scaling is not None:
                raise ValueError(
                    f"scaling must be None for a potential, got {self.scaling}"
                )
        elif self.cutoff_function is None:
            radius = self.basis.cutoff
            cutoff_function = ShiftedCosineCutoff(radius, min(0.5, radius))
            object.__setattr__(self, "cutoff_function", cutoff_function)
        else:
            _check_kind(self, "cutoff_function", StepCutoff | ShiftedCosineCutoff)
        if self.scaling is not None:
            _check_kind(self, "scaling", RadialScaling)
        if self.species is not None:
            species = tuple(sorted(atomic_numbers(self.species)))
            object.__setattr__(self, "species", species)
        if self.sources not in _SOURCES:
            raise ValueError(f"sources must be one of {_SOURCES}, got {self.sources!r}")
        weight = float(self.center_atom_weight)
        if not math.isfinite(weight):
            raise ValueError(f"center_atom_weight must be finite, got {weight}")
        object.__setattr__(self, "center_atom_weight", weight)
        if not 1e-13 <= self.tolerance <= 1e-2:
            raise ValueError(
                f"tolerance must be from 1e-13 to 1e-2, got {self.tolerance}"
            )
        methods = ("auto", "pairs", "split", "waves", "nufft")
        if self.method not in methods:
            raise ValueError(f"method must be one of {methods}, got {self.method!r}")
        if self.method == "waves" and self.field.smearing == 0.0:
            raise ValueError("method 'waves' needs a positive smearing, got 0")
        if self.split is not None:
            _check_length(self, "split")
            if self.split <= self.field.smearing:
                raise ValueError(
                    f"split must be larger than the smearing {self.field.smearing} Å, "
                    f"got {self.split}"
                )

    def compute(self, frames, *, species=None, n_threads=None, progress=False):
        """Coefficients around every atom of every frame.

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
        Coefficients

        Raises
        ------
        TypeError, ValueError
            If a frame is not valid (see :func:`lode.systems.system`) or holds a
            species that is not expanded.
        """
        checked = systems(frames)
        used, index = self.species_of(checked, species)
        sizes = [len(s) for s in checked]
        n_lm = (self.max_angular + 1) ** 2
        fields = self.fields(used)
        shape = (sum(sizes), len(fields), n_lm, self.basis.max_radial)
        values = np.empty(shape)
        size = max(1, COEFFICIENT_BYTES // (8 * math.prod(shape[1:])))

        def fill(rows, system, species_i, inner_threads):
            out_jamn = values[rows]
            if padded(shape[-1]) == shape[-1]:
                # Written where they stay.
                write = self._writer(system, species_i, len(fields))
                for first in range(0, len(system), size):
                    write(out_jamn[first : first + size], first, inner_threads)
                return
            start = 0
            arguments = (system, species_i, len(used), size, inner_threads)
            for found in self.around_runs(*arguments):
                out_jamn[start : start + len(found)] = found
                start += len(found)

        kind = partial(self.kind, n_fields=len(fields))
        system_map(fill, checked, index, kind, n_threads, progress)
        labels = environment_labels(checked)
        return Coefficients(values, fields, *labels, _counted(sizes))

    def contracted(
        self, frames, max_radial, *, species=None, n_threads=None, progress=False
    ):
        r"""The same expansion in fewer radial functions, those that these frames use.

        For each l the principal components of the coefficients: eigenvectors of

        .. math:: C^l_{nn'} = \sum_{j\alpha m} (c_{j\alpha nlm} - \bar c)
            (c_{j\alpha n'lm} - \bar c')

        with the largest eigenvalues. The mean is taken over the centres of each
        species at l = 0, where alone it is not zero by symmetry.

        Parameters
        ----------
        frames : ase.Atoms or sequence of ase.Atoms
            Structures to learn the functions from: of the training set only.
        max_radial : int
            Number of functions to keep for each l.
        species, n_threads, progress
            As for :meth:`compute`.

        Returns
        -------
        SphericalExpansion

        Raises
        ------
        TypeError, ValueError
            As :meth:`compute`, or if there are not that many functions, or the basis is
            contracted already.

        Notes
        -----
        The coefficients of a potential are smooth: what tells environments apart may
        have 10⁻⁷ of the variance of the first component. Keep enough functions, and
        even out the variances of the invariants with a :class:`~lode.WhitenedKernel`.
        """
        if isinstance(self.basis, ContractedBasis):
            raise ValueError("basis must not be contracted already")
        kept = whole_number(max_radial, 1, self.basis.max_radial, "max_radial")
        found = self.compute(
            frames, species=species, n_threads=n_threads, progress=progress
        )
        u_lqn = []
        for l in range(self.max_angular + 1):
            c_jamn = found.values[:, :, l * l : (l + 1) ** 2]
            if l == 0:
                c_jamn = c_jamn.copy()
                for z in np.unique(found.center_species):
                    of_species = found.center_species == z
                    c_jamn[of_species] -= c_jamn[of_species].mean(axis=0)
            rows = c_jamn.reshape(-1, self.basis.max_radial)
            _, vectors = np.linalg.eigh(rows.T @ rows)
            u_qn = vectors[:, ::-1][:, :kept].T
            # The sign of an eigenvector is arbitrary: its largest entry is positive.
            largest = np.abs(u_qn).argmax(axis=1)
            u_lqn.append(u_qn * np.sign(u_qn[np.arange(kept), largest])[:, None])
        return replace(self, basis=ContractedBasis(self.basis, u_lqn))

    def species_of(self, checked, species=None):
        """Species to expand and each atom's place among them.

        Parameters
        ----------
        checked : list of System
        species : sequence of int, optional
            Instead of the expansion's own setting.

        Returns
        -------
        tuple of int, list of ndarray of int

        Raises
        ------
        ValueError
            If an atom is of another species, or a structure lacks the charges that
            are the sources.
        """
        if self.sources == "charges":
            for frame, system in enumerate(checked):
                if system.charges is None:
                    raise ValueError(
                        "sources 'charges' need the initial charges of every frame, "
                        f"got none (frame {frame})"
                    )
        return species_index(checked, self.species if species is None else species)

    def fields(self, species):
        """Fields that are expanded: one for each species, or 0, that of the charges.

        Parameters
        ----------
        species : tuple of int

        Returns
        -------
        tuple of int
        """
        return species if self.sources == "species" else (0,)

    def around_runs(self, system, species_i, n_species, size, n_threads=1):
        """Coefficients around consecutive atoms of one frame, some atoms at a time.

        Parameters
        ----------
        system : System
        species_i : ndarray (n_atoms,) of int
            Place of each atom's species among those expanded.
        n_species : int
            Number of species expanded.
        size : int
            Number of atoms at a time.
        n_threads : int

        Yields
        ------
        ndarray (size, n_fields, (l_max + 1)**2, n_max)
            One field for each of :meth:`fields`; the last may have fewer rows. It is
            written again for the next atoms, and afterwards by others.
        """
        n_fields = 1 if self.sources == "charges" else n_species
        n_max = self.basis.max_radial
        shape = (n_fields, (self.max_angular + 1) ** 2, padded(n_max))
        write = self._writer(system, species_i, n_fields)
        with scratch(min(size, len(system)), *shape) as room:
            for first in range(0, len(system), size):
                out_jamn = room[: len(system) - first]
                write(out_jamn, first, n_threads)
                yield out_jamn[..., :n_max]

    def _writer(self, system, species_i, n_fields):
        """What writes the coefficients of runs of centres of a frame."""
        sources = _Sources(species_i, _NO_CHARGES)
        if self.sources == "charges":
            sources = _Sources(np.zeros_like(species_i), system.charges)
        atoms = system, sources, n_fields
        plan = self._cell_plan(system, n_fields)
        if plan is not None:
            return _CellsWriter(*atoms, *plan)
        if self.field.long_range and system.periodic:
            return self._periodic_writer(*atoms)
        own, *settings = self._pairs_alone()
        pairs = _PairPart(*atoms, *settings)
        return _Writer(sources, own, np.zeros((n_fields, len(own))), pairs)

    def _pairs_alone(self):
        """What atoms have at their own centre; limit and settings of the pairs."""
        cutoff = self.cutoff_function
        table = pair_table(
            self.field,
            self.basis,
            self.max_angular,
            self.tolerance,
            limit=None if cutoff is None else cutoff.radius,
            scaling=self.scaling,
        )
        own = _Y00 * self.center_atom_weight * table.centre
        return own, *self._pair_settings(table)

    def _cell_plan(self, system, n_fields):
        """What small periodic frames are computed with, and the cost of a centre."""
        if not system.periodic or len(system) > _ROW_BLOCK:
            return None
        n_atoms, volume = len(system), system.volume
        if system.sizes:
            # All are of the kind of the first.
            n_atoms, volume = system.sizes[0], float(volume[0])
        return _cell_plan(self, _rung(n_atoms), n_fields, _rung(volume))

    def kind(self, system, n_fields):
        """What frames have in common that are computed together.

        Parameters
        ----------
        system : System
        n_fields : int

        Returns
        -------
        object or None
            To be compared; None if the frame is computed alone.
        """
        if len(system) > _ROW_BLOCK:
            return None
        if not system.periodic:
            return "finite"
        plan = self._cell_plan(system, n_fields)
        return None if plan is None else plan[0]

    def _periodic_writer(self, system, sources, n_fields):
        if self.method == "pairs":
            raise ValueError(
                "method 'pairs' of a potential sums finite frames only, got a periodic "
                "one; take 'auto', 'split', 'waves' or 'nufft'"
            )
        way, split = self.path(len(system), n_fields, system.volume)
        halves = _halves(self, split)
        atoms = system, sources, n_fields
        pairs = None
        if halves.table is not None:
            pairs = _PairPart(*atoms, *self._pair_settings(halves.table))
        field = halves.smooth, halves.modes, self.max_angular
        waves = _WavePart(way, atoms, field, self.tolerance, halves.scale)
        count_a = np.bincount(sources.species_i, sources.weights, n_fields)
        background = np.outer(count_a, halves.background / system.volume)
        return _Writer(sources, halves.own, background, pairs, waves)

    def _pair_settings(self, table):
        """Limit of a table's pairs; arguments of ``core.add_pairs`` for all of them."""
        radius, width = math.inf, 0.0
        if self.cutoff_function is not None:
            radius, width = self.cutoff_function.radius, self.cutoff_function.width
        arguments = (
            table.coefficients,
            table.step,
            table.range,
            table.tail,
            float(self.field.exponent),
            radius,
            width,
            self.max_angular,
        )
        limit = math.inf if len(table.tail) > 0 else min(radius, table.range)
        return limit, arguments

    def splitting(self, n_atoms, n_species, volume):
        """Splitting width in Å that a periodic frame is computed with.

        Parameters
        ----------
        n_atoms, n_species : int
        volume : float
            Of the cell in Å³.

        Returns
        -------
        float
            The smearing itself if all is done in reciprocal space.
        """
        return self.path(n_atoms, n_species, volume)[1]

    def path(self, n_atoms, n_species, volume):
        """How the long-range half of a periodic frame is computed.

        Parameters
        ----------
        n_atoms, n_species : int
        volume : float
            Of the cell in Å³.

        Returns
        -------
        way : {"products", "transforms"}
            Products of matrices or non-uniform Fourier transforms.
        split : float
            Splitting width in Å, see :meth:`splitting`.
        """
        return _cheapest_path(self, _rung(n_atoms), n_species, _rung(volume))


class _Writer:
    """Writes the coefficients of runs of centres of a frame.

    Parameters
    ----------
    sources : _Sources
    own : ndarray (n_max,)
        l = 0 coefficients of an atom at its own centre.
    background : ndarray (n_fields, n_max)
        Of all atoms on average.
    pairs : _PairPart, optional
    waves : _WavePart, optional
    """

    def __init__(self, sources, own, background, pairs=None, waves=None):
        self.constants = (sources.species_i, sources.charge_i, own, background)
        self.parts = [part for part in (waves, pairs) if part is not None]

    def __call__(self, out_jamn, first, n_threads):
        """Write a run of centres, each in the same way whatever the threads.

        Parameters
        ----------
        out_jamn : ndarray (n_centres, n_fields, (l_max + 1)**2, n_max)
            n_max padded.
        first : int
            Place of the first centre.
        n_threads : int
        """
        n = len(out_jamn)
        cost = self.cost(out_jamn) if n_threads > 1 else 0.0
        threads, least = _threads(cost, n_threads, _LEAST_SHARE), n
        if threads > 1:
            least = max(_LEAST_CENTERS, math.ceil(n * _LEAST_SHARE / cost))
        most = min(part.block for part in self.parts)
        starts = core.pieces(n, threads, least, most).tolist()

        def write(start, stop):
            out = out_jamn[start:stop]
            out[:] = 0.0
            for part in reversed(self.parts):
                part.add(out, first + start)
            core.add_constants(*self.constants, first + start, out)

        # What all pieces need is made beside the first of them.
        calls = [part.prepared for part in self.parts]
        calls += [partial(write, *piece) for piece in itertools.pairwise(starts)]
        thread_map(lambda call: call(), calls, threads)
        for part in self.parts:
            part.finish(out_jamn, first, n_threads)

    def cost(self, out_jamn):
        """Estimated cost of a run of centres in microseconds on one core."""
        return sum(part.cost(out_jamn) for part in self.parts)


# Compared and hashed as the object it is.
@dataclass(frozen=True, eq=False)
class _CellSettings:
    """What small periodic frames of a kind have in common.

    Attributes
    ----------
    pairs, field, constants : tuple
        As of ``core.write_cells``.
    """

    pairs: tuple
    field: tuple
    constants: tuple


class _CellsWriter:
    """As :class:`_Writer`, of a small periodic frame or of several of a kind.

    Parameters
    ----------
    system : System
    sources : _Sources
    n_fields : int
    settings : _CellSettings
    cost : float
        Of a centre, in microseconds on one core.
    """

    def __init__(self, system, sources, n_fields, settings, cost):
        self.system, self.settings, self.cost = system, settings, cost
        charges = sources.charge_i
        self.atoms = system.positions, sources.species_i, charges, n_fields

    def __call__(self, out_jamn, first, n_threads):
        """As of :class:`_Writer`; several frames on one thread."""
        system, settings = self.system, self.settings
        constant = settings.pairs, settings.field, settings.constants
        n_threads = 1 if system.sizes else n_threads
        n_threads = _threads(len(out_jamn) * self.cost, n_threads, _LEAST_JOINED)
        where = post(n_threads, core.serve, core.N_PLACES, core.AWAKE)
        cells = system.cell, system.inverse, system.volume
        run = n_threads, first, out_jamn, where
        if system.sizes:
            cells = *cells, np.array([0, *itertools.accumulate(system.sizes)])
            core.write_cells(cells, self.atoms, *constant, NO_COLUMNS, *run)
            return
        kept = kept_columns(*cells, settings)
        core.write_cell(cells, self.atoms, *constant, kept, *run)


def _threads(cost, n_threads, least):
    """How many threads to take for a cost, each with a part of it at least."""
    return max(1, min(n_threads, int(cost / least)))


def _near_cost(shape, neighbors):
    """Estimated cost in microseconds of the neighbours of a run of centres."""
    n, _, n_lm, n_max = shape
    return n * neighbors * (_COST_NEIGHBOR + _COST_CHANNELS * n_lm * n_max / 392)


class _Part:
    """What adds to the coefficients; the first thread that needs it makes it ready."""

    # How many centres are best taken at a time.
    block = core.CELL_CENTERS

    def __init__(self):
        self.lock, self.ready = threading.Lock(), None

    def prepared(self):
        """What all pieces of work use."""
        with self.lock:
            if self.ready is None:
                self.ready = self.make()
        return self.ready

    def finish(self, out_jamn, first, n_threads):
        """Add what is not added piece by piece."""


class _PairPart(_Part):
    """Pairs within a limit."""

    def __init__(self, system, sources, n_fields, limit, settings):
        super().__init__()
        self.atoms, self.limit = (system, sources, n_fields), limit
        self.settings = settings
        if not math.isfinite(limit) or _AllPairs.faster(system):
            self.kind = _AllPairs
        elif _ImagePairs.faster(system, limit):
            self.kind = _ImagePairs
        else:
            self.kind = _ListedPairs
        self.block = self.kind.block(system)

    def make(self):
        """The pairs, or what finds them."""
        return self.kind(*self.atoms, self.limit) if self.limit > 0.0 else None

    def add(self, out_jamn, first):
        """Add to the coefficients of a run of centres."""
        if self.limit > 0.0:
            self.prepared().add(self.settings, first, out_jamn)

    def cost(self, out_jamn):
        """As of :meth:`_Writer.cost`."""
        system = self.atoms[0]
        if system.periodic:
            neighbors = _neighbors(len(system), system.volume, self.limit)
        else:
            neighbors = max(system.sizes, default=len(system))
        return _near_cost(out_jamn.shape, neighbors)


class _WavePart(_Part):
    """The long-range half of a periodic potential."""

    def __init__(self, way, atoms, field, tolerance, scale):
        super().__init__()
        self.way, self.atoms, self.field = way, atoms, field
        self.tolerance, self.scale = tolerance, scale

    def make(self):
        """The sum over the wave vectors."""
        if self.way == "transforms":
            return TransformSum(*self.atoms, *self.field, self.tolerance, self.scale)
        return ProductSum(*self.atoms, *self.field)

    def add(self, out_jamn, first):
        """Add to the coefficients of a run of centres."""
        if self.way == "products":
            self.prepared().add(out_jamn, first)

    def finish(self, out_jamn, first, n_threads):
        if self.way == "transforms":
            self.prepared().add_to(out_jamn, first, n_threads)

    def cost(self, out_jamn):
        """As of :meth:`_Writer.cost`."""
        if self.way == "transforms":
            return 0.0
        system, _, n_fields = self.atoms
        modes = self.field[1]
        sizes = (n_fields, modes.n_columns, system.volume, modes.limit)
        return product_cost(len(out_jamn), *sizes, self.tolerance)


@dataclass(frozen=True)
class _Sources:
    """Whose field each atom adds to, and its charge there; no charges are all one."""

    species_i: np.ndarray
    charge_i: np.ndarray

    @property
    def weights(self):
        """Charges, or None if all are one."""
        return self.charge_i if len(self.charge_i) else None


def _check_kind(instance, name, kind):
    value = getattr(instance, name)
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind}, got {type(value).__name__}")


def _counted(sizes):
    if len(sizes) == 1:
        return np.arange(sizes[0])
    return np.concatenate([np.arange(n) for n in sizes])


def environment_labels(checked):
    """Species and frame of every atom of a list of systems.

    Returns
    -------
    species, frame_index : ndarray (n_atoms,) of int
    """
    if len(checked) == 1:
        species = checked[0].species
        return species.copy(), np.zeros(len(species), dtype=np.int64)
    species = np.concatenate([s.species for s in checked])
    frame_index = np.repeat(np.arange(len(checked)), [len(s) for s in checked])
    return species, frame_index


def system_map(function, checked, index, kind, n_threads=None, progress=False):
    """Call ``function(rows, system, species_i, inner_threads)`` for all frames.

    Many frames run beside each other, each on one thread; few run one after the
    other on all threads. Small frames are taken together, since a call takes longer
    than a molecule.

    Parameters
    ----------
    function : callable
        ``rows`` is the slice of the atoms of the system among those of all frames.
    checked : list of System
    index : list of ndarray of int
        Place of each atom's species.
    kind : callable
        As :meth:`SphericalExpansion.kind`, of a system.
    n_threads : int, optional
    progress : bool
    """
    threads = thread_count(n_threads)
    if len(checked) == 1 and not progress:
        # In few steps: what follows takes some per cent of a small frame.
        function(slice(0, len(checked[0])), checked[0], index[0], threads)
        return
    tasks = []
    start = stop = 0
    for group in _groups(checked, kind, threads):
        system = side_by_side(checked[group])
        stop += len(system)
        species_i = np.concatenate(index[group])
        tasks.append((slice(start, stop), system, species_i))
        start = stop
    inner = 1 if len(tasks) >= threads else threads
    thread_map(
        lambda task: function(*task, inner),
        tasks,
        threads if inner == 1 else 1,
        "expansion" if progress else None,
        "frame",
        [max(1, len(system.sizes)) for _, system, _ in tasks],
    )


def _groups(checked, kind, threads):
    """Runs of frames that are computed together: small ones of a kind, or one."""
    kinds = [kind(system) for system in checked]
    # Enough runs for all threads.
    total = sum(len(s) for s, k in zip(checked, kinds, strict=True) if k is not None)
    groups = _GROUPS * threads if threads > 1 else 1
    most = min(_ROW_BLOCK, max(1, total // groups))
    start = n_atoms = 0
    for stop in range(1, len(checked) + 1):
        n_atoms += len(checked[stop - 1])
        last = stop == len(checked)
        if (
            last
            or kinds[stop] is None
            or kinds[stop] != kinds[stop - 1]
            or n_atoms + len(checked[stop]) > most
        ):
            yield slice(start, stop)
            start, n_atoms = stop, 0


@dataclass(frozen=True)
class _Halves:
    """What both halves of a periodic potential are computed with.

    Attributes
    ----------
    table : PairTable or None
        Of the short-range half, if there is one.
    smooth : PowerLawPotential
        Field of the long-range half.
    modes : ModeTable
    scale : float
        Size of the largest coefficient.
    own, background : ndarray (n_max,)
        l = 0 coefficients of an atom at its own centre that the halves leave to be
        added, and of the average of one atom's field, times the volume.
    """

    table: object
    smooth: object
    modes: object
    scale: float
    own: np.ndarray
    background: np.ndarray


@kept(64)
def _halves(expansion, split):
    field, basis, l_max = expansion.field, expansion.basis, expansion.max_angular
    whole = _centre(field, basis)
    scale = float(np.abs(whole).max()) * _Y00
    # The centre's own field is in both halves; take out what is not wanted.
    own = (expansion.center_atom_weight - 1.0) * whole
    table, smooth = None, field.smeared(split)
    if split > field.smearing:
        table = pair_table(field, basis, l_max, expansion.tolerance, split)
        own = own + table.centre
    if not field.neutralized:
        zero = smooth.fourier_at_zero()
    else:
        # The short-range sum holds the k = 0 that the background cancels.
        zero = 0.0 if table is None else -field.split_at_zero(split)
    background = 4.0 * math.pi * zero * _volume_integral(basis) * _Y00
    modes = mode_table(smooth, basis, l_max, expansion.tolerance, scale)
    return _Halves(table, smooth, modes, scale, _Y00 * own, background)


@kept(64)
def _cell_settings(expansion, split):
    """Settings of small periodic frames; a splitting width if it is a potential."""
    l_max = expansion.max_angular
    if split is None:
        own, *pairs = expansion._pairs_alone()
        return _CellSettings(tuple(pairs), no_field(l_max), (own, np.zeros(len(own))))
    halves = _halves(expansion, split)
    pairs = expansion._pair_settings(halves.table or _NO_PAIRS)
    field = cell_field(halves.smooth, halves.modes, l_max)
    return _CellSettings(pairs, field, (halves.own, halves.background))


@lru_cache(maxsize=4096)
def _cell_plan(expansion, n_atoms, n_fields, volume):
    """Settings of small periodic frames of like size, and the cost of a centre.

    Of a number of atoms and a volume by their rungs; the cost in microseconds on one
    core. None if each frame is computed alone.
    """
    sizes, split = (n_atoms, n_fields, volume), None
    n_atoms, volume = 2 ** (n_atoms / _RUNGS), 2 ** (volume / _RUNGS)
    cost = 0.0
    if expansion.field.long_range:
        way, split = _cheapest_path(expansion, *sizes)
        limit, n_columns = _long_range_size(expansion, split)
        held = wave_count(volume, limit) * n_columns
        if expansion.method == "pairs" or way != "products" or held > MOST_HELD:
            return None
        sizes = n_atoms, n_fields, n_columns, volume
        cost = product_cost(*sizes, limit, expansion.tolerance) / n_atoms
    settings = _cell_settings(expansion, split)
    shape = 1, n_fields, (expansion.max_angular + 1) ** 2, expansion.basis.max_radial
    neighbors = _neighbors(n_atoms, volume, settings.pairs[0])
    return settings, cost + _near_cost(shape, neighbors)


@lru_cache(maxsize=256)
def _centre(field, basis):
    """f_n0(0) of the whole field: an atom at its own centre."""
    return pair_table(field, basis, 0, 1e-4, limit=1e-3).centre


@lru_cache(maxsize=256)
def _volume_integral(basis):
    """I_n0(0), the integral of r² R_n0."""
    return bessel_transform(basis, 0, np.zeros(1))[0, :, 0]


class _AllPairs:
    """Every pair of a finite frame, or of each of several.

    As all classes of pairs, it adds those around a run of centres, in the order of the
    centre and of the species of its neighbour.
    """

    @staticmethod
    def faster(system):
        """Whether it is faster to look at every pair than a cell list: measured."""
        largest = max(system.sizes, default=len(system))
        return not system.periodic and largest <= _ROW_BLOCK

    @staticmethod
    def block(system):
        """How many centres are best taken at a time."""
        largest = max(system.sizes, default=len(system))
        return min(_ROW_BLOCK, max(1, _PAIR_BLOCK // largest))

    def __init__(self, system, sources, n_species, limit):
        sizes = np.array(system.sizes or [len(system)])
        stop_i = np.repeat(np.cumsum(sizes), sizes)
        start_i = stop_i - np.repeat(sizes, sizes)
        order_i = np.lexsort((sources.species_i, start_i))
        atoms = (sources.species_i, sources.charge_i, n_species)
        places = (start_i, stop_i, order_i)
        self.arguments = (system.positions, *atoms, *places, limit)

    def add(self, settings, first, out_jamn):
        """Add them to a run of centres."""
        core.add_all_pairs(self.arguments, settings, first, out_jamn)


class _ListedPairs:
    """Pairs within a limit, from a cell list."""

    @staticmethod
    def block(system):
        """How many centres are best taken at a time."""
        return _ROW_BLOCK

    def __init__(self, system, sources, n_species, limit):
        neighbors = vesin.NeighborList(cutoff=limit, full_list=False, n_threads=1)
        # Not copied: valid as long as the list, and sorted_pairs copies.
        first, second, vector = neighbors.compute(
            system.positions, system.cell, system.periodic, "ijD", copy=False
        )
        pairs = (first.view(np.int64), second.view(np.int64), vector)
        atoms = (sources.species_i, sources.charge_i, len(system), n_species)
        self.pairs = core.sorted_pairs(*pairs, limit, *atoms)
        self.n_species = n_species

    def around(self, low, high):
        """Pairs around some centres, as of ``core.sorted_pairs``."""
        start_ja, *others = self.pairs
        part = slice(low * self.n_species, high * self.n_species + 1)
        return start_ja[part], *others

    def add(self, settings, first, out_jamn):
        """Add them to a run of centres."""
        found = self.around(first, first + len(out_jamn))
        core.add_pairs(*found, *settings, out_jamn)


class _ImagePairs:
    """Pairs within a limit, of a periodic cell with few atoms or small against it.

    Those in runs that may be near are looked at, one by one: a list of cells looks at
    fewer, but takes longer for each.
    """

    @staticmethod
    def block(system):
        """How many centres are best taken at a time: the caches hold no more."""
        return core.CELL_CENTERS

    @staticmethod
    def faster(system, limit):
        """Whether it is faster than a cell list: measured for gas, water, oxide."""
        if not system.periodic:
            return False
        if len(system) <= _ROW_BLOCK:
            return True
        margin_x = np.sort(limit / system.heights)
        shell_x = 1.0 + 2.0 * margin_x
        # Layers half as thick as the limit, and what is within it along them.
        run_x = np.minimum(shell_x, np.array([2.5, 2.0, math.inf]) * margin_x)
        looks = _LOOKS_ALONE + len(system) * np.prod(run_x)
        return looks < _LOOKS * _neighbors(len(system), system.volume, limit)

    def __init__(self, system, sources, n_species, limit):
        cell = system.cell, system.inverse, system.volume
        atoms = sources.species_i, sources.charge_i, n_species
        self.images = core.cell_images(system.positions, *cell, limit, *atoms)

    def add(self, settings, first, out_jamn):
        """Add them to a run of centres."""
        core.add_image_pairs(self.images, settings, first, out_jamn)


def _neighbors(n_atoms, volume, radius):
    """Atoms around one, on average."""
    return n_atoms / volume * 4 / 3 * math.pi * radius**3


def _rung(size):
    """Place of a size on a ladder: frames of like size share what is chosen."""
    return round(_RUNGS * math.log2(size))


@lru_cache(maxsize=4096)
def _cheapest_path(expansion, n_atoms, n_species, volume):
    """Way of the long-range half and splitting width with the smallest estimated cost.

    Of a number of atoms and a volume by their rungs. Widths are on a fixed ladder, so
    that frames of like size share their tables.
    """
    n_atoms, volume = 2 ** (n_atoms / _RUNGS), 2 ** (volume / _RUNGS)
    smearing, method = expansion.field.smearing, expansion.method
    if method == "waves":
        widths = [smearing]
    elif expansion.split is not None:
        widths = [expansion.split]
    else:
        widths = [0.5 * 2 ** (i / 4) for i in range(20)]
        widths = [w for w in widths if w > 1.15 * smearing] or [1.2 * smearing]
        if smearing > 0.0 and method == "auto":
            widths.insert(0, smearing)
    ways = {
        "auto": ("products", "transforms"),
        "nufft": ("transforms",),
    }.get(method, ("products",))
    choices = [(way, width) for width in widths for way in ways]
    if len(choices) == 1:
        return choices[0]

    def cost(choice):
        way, width = choice
        limit, n_columns = _long_range_size(expansion, width)
        waves = product_cost if way == "products" else transform_cost
        sizes = (n_atoms, n_species, n_columns, volume)
        seconds = waves(*sizes, limit, expansion.tolerance)
        if width > smearing:
            seconds += _pair_cost(expansion, n_atoms, volume, width)
        return seconds

    return min(choices, key=cost)


def _long_range_size(expansion, width):
    """Largest wave number and number of columns; fitted to those of GTOs."""
    digits = math.sqrt(2.0 * math.log(1.0 / expansion.tolerance))
    cutoff = expansion.basis.cutoff
    rank = 0.036 * digits**2 / math.log(10.0) - 0.17 + 0.22 * cutoff / width
    n_channels = (expansion.max_angular + 1) ** 2 * expansion.basis.max_radial
    return digits / width, n_channels * min(1.0, max(0.1, rank))


def _pair_cost(expansion, n_atoms, volume, width):
    """Estimated cost of the short-range half in microseconds on one core."""
    basis = expansion.basis
    digits = math.sqrt(2.0 * math.log(1.0 / expansion.tolerance))
    # Fitted to the range of GTOs.
    radius = basis.extent if basis.compact else 0.4 * basis.extent
    neighbors = _neighbors(n_atoms, volume, radius + digits * width)
    share = (expansion.max_angular + 1) ** 2 * basis.max_radial / 392
    return n_atoms * neighbors * (_COST_NEIGHBOR + _COST_CHANNELS * share)
