r"""Spherical expansion of atom-centred fields around each atom.

.. math::
    c_{j,\alpha nlm} = \int R_{nl}(r)\, Y_{lm}(\hat r)\, F_\alpha(r_j + r)\,d^3r
    = \sum_{i\in\alpha} f_{nl}(r_{ij})\, Y_{lm}(\hat r_{ij})

A pair sum with one function of the distance for each (n, l): no angular grid. One
compiled loop serves the density (SOAP), potentials of finite systems and the
short-range half of periodic ones; the long-range half is a matrix product over
half of reciprocal space. ``docs/theory.md`` has the derivation.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import vesin
from scipy.spatial import KDTree

from lode.core import expansion as core
from lode.fields import GaussianDensity, PowerLawPotential
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.radial import (
    ContractedBasis,
    RadialBasis,
    bessel_transform,
    mode_table,
    padded,
    pair_table,
)
from lode.systems import atomic_numbers, species_index, systems, whole_number

_LARGEST_ANGULAR = 30
_SOURCES = ("species", "charges")
# Wave vectors of one matrix product: the operands stay in the second-level cache.
_WAVE_BLOCK = 512
# Frames above this many atoms are cut into blocks of centres that run in parallel.
_ROW_BLOCK = 256
# Pairs of a finite frame that are listed at a time.
_PAIR_BLOCK = 2_000_000
# Microseconds of a pair with 392 channels, of 10^6 multiply-adds, of an entry of a
# column and of a phase, on one core; only the choice of the splitting uses them.
_COST_PAIR = 0.13
_COST_PRODUCT = 42.0
_COST_COLUMN = 0.0011
_COST_PHASE = 0.0033
_Y00 = 1.0 / math.sqrt(4.0 * math.pi)


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
    method : {"auto", "pairs", "split", "waves"}
        For potentials of periodic frames: "split" is pairs and waves, "waves" all
        in reciprocal space; "auto" takes the cheaper. Finite frames and densities
        need pairs only, whatever the method; "pairs" refuses periodic potentials.
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
        methods = ("auto", "pairs", "split", "waves")
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
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        n_lm = (self.max_angular + 1) ** 2
        fields = self.fields(used)
        shape = (offsets[-1], len(fields), n_lm, self.basis.max_radial)
        values = np.empty(shape)

        def fill(frame, inner_threads):
            rows = slice(offsets[frame], offsets[frame + 1])
            arguments = (checked[frame], index[frame], len(used), inner_threads)
            values[rows] = self.around(*arguments)

        frame_map(fill, len(checked), n_threads, progress)
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

    def around(self, system, species_i, n_species, n_threads=1):
        """Coefficients around the atoms of one frame.

        Parameters
        ----------
        system : System
        species_i : ndarray (n_atoms,) of int
            Place of each atom's species among those expanded.
        n_species : int
            Number of species expanded.
        n_threads : int

        Returns
        -------
        ndarray (n_atoms, n_fields, (l_max + 1)**2, n_max)
            One field for each of :meth:`fields`.
        """
        n_lm = (self.max_angular + 1) ** 2
        n_max = self.basis.max_radial
        sources = _Sources(species_i, np.empty(0))
        if self.sources == "charges":
            sources = _Sources(np.zeros_like(species_i), system.charges)
            n_species = 1
        shape = (len(system), n_species, n_lm, padded(n_max))
        out_jamn = np.zeros(shape)
        if not self.field.long_range:
            self._add_density(system, sources, out_jamn, n_threads)
        elif system.periodic:
            self._add_periodic(system, sources, out_jamn, n_threads)
        else:
            self._add_finite(system, sources, out_jamn, n_threads)
        return out_jamn[..., :n_max]

    def _add_density(self, system, sources, out_jamn, n_threads):
        cutoff = self.cutoff_function
        table = pair_table(
            self.field,
            self.basis,
            self.max_angular,
            self.tolerance,
            limit=cutoff.radius,
            scaling=self.scaling,
        )
        self._add_pairs(system, sources, table, out_jamn, n_threads, cutoff)
        self._add_centre(self.center_atom_weight * table.centre, sources, out_jamn)

    def _add_finite(self, system, sources, out_jamn, n_threads):
        arguments = (self.field, self.basis, self.max_angular, self.tolerance)
        table = pair_table(*arguments)
        self._add_pairs(system, sources, table, out_jamn, n_threads)
        self._add_centre(self.center_atom_weight * table.centre, sources, out_jamn)

    def _add_periodic(self, system, sources, out_jamn, n_threads):
        if self.method == "pairs":
            raise ValueError(
                "method 'pairs' of a potential sums finite frames only, got a periodic "
                "one; take 'auto', 'split' or 'waves'"
            )
        field, basis, l_max = self.field, self.basis, self.max_angular
        split = self.splitting(len(system), out_jamn.shape[1], system.volume)
        whole = _centre(field, basis)
        scale = float(np.abs(whole).max()) * _Y00
        if split > field.smearing:
            table = pair_table(field, basis, l_max, self.tolerance, split)
            self._add_pairs(system, sources, table, out_jamn, n_threads)
            self._add_centre(table.centre, sources, out_jamn)
        smooth = field.smeared(split)
        modes = mode_table(smooth, basis, l_max, self.tolerance, scale)
        waves = _WaveSum(system, sources, out_jamn.shape[1], smooth, modes, l_max)
        waves.add_to(out_jamn, n_threads)
        # The centre's own field is in both halves; take out what is not wanted.
        weight = self.center_atom_weight - 1.0
        self._add_centre(weight * whole, sources, out_jamn)
        if field.neutralized:
            # The short-range sum holds the k = 0 that the background cancels.
            zero = -field.split_at_zero(split) if split > field.smearing else 0.0
        else:
            zero = smooth.fourier_at_zero()
        population = np.bincount(
            sources.species_i, sources.weight_i, minlength=out_jamn.shape[1]
        )
        background = 4 * math.pi / system.volume * zero * _volume_integral(basis) * _Y00
        out_jamn[:, :, 0, : basis.max_radial] += population[:, None] * background

    def _add_centre(self, centre, sources, out_jamn):
        atoms = np.arange(len(sources.species_i))
        own = np.outer(sources.weight_i, _Y00 * centre)
        out_jamn[atoms, sources.species_i, 0, : len(centre)] += own

    def _add_pairs(self, system, sources, table, out_jamn, n_threads, cutoff=None):
        limit = table.range if cutoff is None else min(cutoff.radius, table.range)
        arguments = (
            table.coefficients,
            table.step,
            table.range,
            table.tail,
            float(self.field.exponent),
            math.inf if cutoff is None else cutoff.radius,
            0.0 if cutoff is None else cutoff.width,
            self.max_angular,
        )
        if limit == 0.0:
            return
        n, n_species = out_jamn.shape[:2]
        atoms = (system, sources, n_species)
        if len(table.tail) > 0:
            pairs = _AllPairs(*atoms)
        elif _ImagePairs.faster(system, limit):
            pairs = _ImagePairs(*atoms, limit)
        else:
            pairs = _ListedPairs(*atoms, limit)
        step = min(_ROW_BLOCK, pairs.block)

        def rows(low):
            part = out_jamn[low : low + step]
            core.add_pairs(*pairs.around(low, low + len(part)), *arguments, part)

        thread_map(rows, range(0, n, step), n_threads)

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
        smearing = self.field.smearing
        if self.method == "waves":
            return smearing
        if self.split is not None:
            return self.split
        return _cheapest_splitting(self, n_atoms, n_species, volume)


@dataclass(frozen=True)
class _Sources:
    """Whose field each atom adds to, and its charge there; no charges are all one."""

    species_i: np.ndarray
    charge_i: np.ndarray

    @property
    def weight_i(self):
        return self.charge_i if len(self.charge_i) else np.ones(len(self.species_i))


def _check_kind(instance, name, kind):
    value = getattr(instance, name)
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind}, got {type(value).__name__}")


def _counted(sizes):
    return np.concatenate([np.arange(n) for n in sizes])


def environment_labels(checked):
    """Species and frame of every atom of a list of systems.

    Returns
    -------
    species, frame_index : ndarray (n_atoms,) of int
    """
    species = np.concatenate([s.species for s in checked])
    frame_index = np.repeat(np.arange(len(checked)), [len(s) for s in checked])
    return species, frame_index


def frame_map(function, n_frames, n_threads=None, progress=False):
    """Call ``function(frame, inner_threads)`` for each frame.

    Many frames run beside each other, each on one thread; few run one after the
    other on all threads.
    """
    threads = thread_count(n_threads)
    title = "expansion" if progress else None
    inner = 1 if n_frames >= threads else threads
    outer = threads if inner == 1 else 1
    with single_threaded_blas():
        thread_map(lambda f: function(f, inner), range(n_frames), outer, title, "frame")


@lru_cache(maxsize=256)
def _centre(field, basis):
    """f_n0(0) of the whole field: an atom at its own centre."""
    return pair_table(field, basis, 0, 1e-4, limit=1e-3).centre


@lru_cache(maxsize=256)
def _volume_integral(basis):
    """I_n0(0), the integral of r² R_n0."""
    return bessel_transform(basis, 0, np.zeros(1))[0, :, 0]


class _AllPairs:
    """Every pair of a finite frame.

    As all classes of pairs, it gives those around a run of centres, best about
    ``block`` of them, in the order of the centre and of the species of its neighbour.
    """

    def __init__(self, system, sources, n_species):
        atoms = (sources.species_i, sources.charge_i)
        self.arguments = (system.positions, *atoms, n_species)
        self.block = max(1, _PAIR_BLOCK // len(system))

    def around(self, low, high):
        """Pairs around some centres, as of ``core.sorted_pairs``."""
        return core.all_pairs(*self.arguments, low, high)


class _ListedPairs:
    """Pairs within a limit, from a cell list."""

    block = _ROW_BLOCK

    def __init__(self, system, sources, n_species, limit):
        neighbors = vesin.NeighborList(cutoff=limit, full_list=False, n_threads=1)
        first, second, vector = neighbors.compute(
            system.positions, system.cell, system.periodic, "ijD"
        )
        pairs = (first.view(np.int64), second.view(np.int64), vector)
        atoms = (sources.species_i, sources.charge_i, len(system), n_species)
        self.pairs = core.sorted_pairs(*pairs, True, limit, *atoms)
        self.n_species = n_species

    def around(self, low, high):
        """Pairs around some centres, as of ``core.sorted_pairs``."""
        start_ja, *others = self.pairs
        part = slice(low * self.n_species, high * self.n_species + 1)
        return start_ja[part], *others


class _ImagePairs:
    """Pairs within a limit, of a periodic cell that is small against it.

    A cell list then looks at every pair of images. A tree of the images does not,
    which makes it up to seven times faster.
    """

    # What belongs to more centres no longer fits into the caches.
    block = 64

    @staticmethod
    def faster(system, limit):
        """Whether it is faster than a cell list: measured for the gas of charges."""
        n_cells = 3.0 if len(system) > 1000 else 2.0
        return system.periodic and n_cells * limit > core.heights(system.cell).min()

    def __init__(self, system, sources, n_species, limit):
        self.limit, self.sources, self.n_species = limit, sources, n_species
        # Just beyond the limit, lest rounding decides: core.sorted_pairs is exact.
        self.reach = limit * (1.0 + 1e-9)
        fraction = system.positions @ np.linalg.inv(system.cell)
        margin = self.reach / core.heights(system.cell)
        self.images = core.cell_images(fraction, system.cell, margin)
        self.tree = self._tree(self.images[0])

    def _tree(self, points):
        return KDTree(points, balanced_tree=False, compact_nodes=False)

    def around(self, low, high):
        """Pairs around some centres, as of ``core.sorted_pairs``."""
        centres = self._tree(self.images[0][low:high])
        found = centres.sparse_distance_matrix(
            self.tree, self.reach, output_type="ndarray"
        )
        pairs = core.image_pairs(*self.images, low, found["i"], found["j"])
        sources = (self.sources.species_i, self.sources.charge_i)
        sizes = (high - low, self.n_species)
        return core.sorted_pairs(*pairs, False, self.limit, *sources, *sizes)


class _WaveSum:
    """Long-range half of one frame: matrix products over blocks of wave vectors.

    Rows are centres and species, columns harmonics and radial modes. Centres are cut
    into blocks too, which run in parallel: nothing of size N × N_k is ever held.
    """

    def __init__(self, system, sources, n_species, field, modes, l_max):
        self.positions, self.sources = system.positions, sources
        self.n_species, self.modes, self.l_max = n_species, modes, l_max
        self.reciprocal = 2 * math.pi * np.linalg.inv(system.cell).T
        # |k·a| <= |k| |a| bounds the index of a wave vector.
        edge = np.linalg.norm(system.cell, axis=1) * modes.limit / (2 * math.pi)
        self.top = np.ceil(edge).astype(np.int64)
        self.columns = core.half_space(self.reciprocal, modes.limit, *self.top[:2])
        self.factor, self.field = 8 * math.pi / system.volume, field
        count = modes.n_modes * (2 * np.arange(l_max + 1) + 1)
        self.n_even, self.n_odd = int(count[::2].sum()), int(count[1::2].sum())

    def add_to(self, out_jamn, n_threads):
        """Add the coefficients (n_atoms, n_species, (l_max + 1)**2, n_max)."""
        n = len(self.positions)
        even_ajc = np.zeros((self.n_species, n, self.n_even))
        odd_ajc = np.zeros((self.n_species, n, self.n_odd))
        rows = [slice(j, j + _ROW_BLOCK) for j in range(0, n, _ROW_BLOCK)]

        def product(task):
            part, phases, structure, even_kc, odd_kc = task
            shape = (self.n_species, *phases[0].shape)
            even_ajk, odd_ajk = np.empty(shape), np.empty(shape)
            core.field_phases(*phases, *structure, even_ajk, odd_ajk)
            even_ajc[:, part] += even_ajk @ even_kc
            odd_ajc[:, part] += odd_ajk @ odd_kc

        def expand(part):
            modes = (self.modes.n_modes, self.modes.expansion, self.l_max)
            core.add_modes(even_ajc[:, part], odd_ajc[:, part], *modes, out_jamn[part])

        for block in self._blocks():
            table = self._table(block)
            phases = thread_map(lambda r, b=block: self._phases(r, b), rows, n_threads)
            structure = [sum(p[1][part] for p in phases) for part in (0, 1)]
            waves = [p[0] for p in phases]
            tasks = [
                (r, w, structure, *table) for r, w in zip(rows, waves, strict=True)
            ]
            thread_map(product, tasks, n_threads)
        thread_map(expand, rows, n_threads)

    def _blocks(self):
        """Runs of whole columns, of about a block of wave vectors each."""
        ends = np.cumsum(self.columns[:, 3])
        start = done = 0
        while start < len(ends):
            stop = int(np.searchsorted(ends, done + _WAVE_BLOCK)) + 1
            stop = min(stop, len(ends))
            yield self.columns[start:stop]
            start, done = stop, int(ends[stop - 1])

    def _table(self, block):
        """Columns of the product for even and for odd l."""
        k_kx = core.wave_vectors(self.reciprocal, block)
        weight_k = self.factor * self.field.fourier(np.linalg.norm(k_kx, axis=1))
        even_kc = np.empty((len(k_kx), self.n_even))
        odd_kc = np.empty((len(k_kx), self.n_odd))
        modes = self.modes
        arguments = (modes.coefficients, modes.step, modes.n_modes, self.l_max)
        core.wave_columns(k_kx, weight_k, *arguments, even_kc, odd_kc)
        return even_kc, odd_kc

    def _phases(self, part, block):
        """Phases of some centres, and their sum over each species."""
        n_k = int(block[:, 3].sum())
        positions = self.positions[part]
        phases = [np.empty((len(positions), n_k)) for _ in range(2)]
        core.plane_waves(positions, self.reciprocal, block, self.top, *phases)
        sums = [np.zeros((self.n_species, n_k)) for _ in range(2)]
        weighted = phases
        if len(self.sources.charge_i):
            weighted = [p * self.sources.charge_i[part, None] for p in phases]
        core.structure_factor(*weighted, self.sources.species_i[part], *sums)
        return phases, sums


@lru_cache(maxsize=4096)
def _cheapest_splitting(expansion, n_atoms, n_species, volume):
    """Splitting width with the smallest estimated cost.

    On a fixed ladder of widths, so that frames of like size share their tables.
    """
    smearing, basis = expansion.field.smearing, expansion.basis
    digits = math.sqrt(2.0 * math.log(1.0 / expansion.tolerance))
    n_channels = (expansion.max_angular + 1) ** 2 * basis.max_radial
    widths = [0.5 * 2 ** (i / 4) for i in range(20)]
    widths = [w for w in widths if w > 1.15 * smearing] or [1.2 * smearing]
    if smearing > 0.0 and expansion.method == "auto":
        widths.insert(0, smearing)

    def cost(width):
        density = n_atoms / volume
        # Fitted to the measured range and number of modes of GTOs.
        radius = basis.extent if basis.compact else 0.4 * basis.extent
        n_waves = volume * (digits / width) ** 3 / (12 * math.pi**2)
        rank = 0.036 * digits**2 / math.log(10.0) - 0.17 + 0.22 * basis.cutoff / width
        n_columns = n_channels * min(1.0, max(0.1, rank))
        product = n_waves * n_atoms * n_species * n_columns
        waves = _COST_PRODUCT * 1e-6 * product + _COST_COLUMN * n_waves * n_columns
        waves += _COST_PHASE * n_waves * n_atoms
        if width == smearing:
            return waves
        sphere = 4 / 3 * math.pi * (radius + digits * width) ** 3
        share = n_channels / 392
        pairs = _COST_PAIR * 0.5 * n_atoms * density * sphere * (0.3 + 0.7 * share)
        return pairs + waves

    return min(widths, key=cost)
