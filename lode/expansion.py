r"""Spherical expansion of atom-centred fields around each atom.

.. math::
    c_{j,\alpha nlm} = \int R_{nl}(r)\, Y_{lm}(\hat r)\, F_\alpha(r_j + r)\,d^3r
    = \sum_{i\in\alpha} f_{nl}(r_{ij})\, Y_{lm}(\hat r_{ij})

A pair sum with one function of the distance for each (n, l): no angular grid. One
compiled loop serves the density (SOAP), potentials of finite systems and the
short-range half of periodic ones; the long-range half is summed over wave vectors, by
matrix products or by Fourier transforms. ``docs/theory.md`` has the derivation.
"""

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np

from lode.bases import ContractedBasis, RadialBasis
from lode.core.pairs import write_constants
from lode.core.registers import LANES, whole_lanes
from lode.cutoffs import (
    RadialScaling,
    ShiftedCosineCutoff,
    StepCutoff,
    check_length,
)
from lode.fields import Field
from lode.gradients import Gradient, Sums, checked_derivatives
from lode.pairs import PairTerm
from lode.parallel import scratch, thread_map
from lode.reciprocal import ProductTerm, TransformTerm
from lode.systems import (
    LEAST_CENTERS,
    ROUNDING,
    Sources,
    atomic_numbers,
    check_boundary,
    structures,
    whole_number,
)
from lode.tables import ewald_split, pair_table
from lode.tuning import cheapest_method

_LARGEST_ANGULAR = 30
_SOURCES = ("species", "charges")
# Coefficients of at most this size exist at a time, before they are copied or used.
COEFFICIENT_BYTES = 2**28
_Y00 = 1.0 / math.sqrt(4.0 * math.pi)


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
    field : Field
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
    method : {"auto", "pairs", "split", "reciprocal", "nufft"}
        For potentials of periodic frames: "split" is pairs and wave vectors,
        "reciprocal" wave vectors alone, both by matrix products, whose cost grows as
        the square of the number of atoms; "nufft" is pairs and non-uniform Fourier
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

    field: Field
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
        _check_kind(self, "field", Field)
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
        if self.method == "waves":
            message = "method 'waves' is now called 'reciprocal'"
            warnings.warn(message, FutureWarning, stacklevel=3)
            object.__setattr__(self, "method", "reciprocal")
        methods = ("auto", "pairs", "split", "reciprocal", "nufft")
        if self.method not in methods:
            raise ValueError(f"method must be one of {methods}, got {self.method!r}")
        if self.method == "reciprocal" and self.field.smearing == 0.0:
            raise ValueError("method 'reciprocal' needs a positive smearing, got 0")
        if self.split is not None:
            check_length(self, "split")
            if self.split <= self.field.smearing:
                raise ValueError(
                    f"split must be larger than the smearing {self.field.smearing} Å, "
                    f"got {self.split}"
                )

    def compute(self, frames, *, species=None, n_threads=None, progress=False):
        """Coefficients around every atom of every frame.

        Parameters
        ----------
        frames : ase.Atoms, iterable of ase.Atoms or Structures
            Finite or periodic; along one or two directions only for a density.
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
            If a frame is not valid (see :func:`lode.systems.system`), holds a species
            that is not expanded, or is a slab or a wire and the field a potential.
        """
        inputs = structures(frames)
        used, channel_i = self.channels(inputs, species)
        n_lm = (self.max_angular + 1) ** 2
        fields = self.fields(used)
        shape = (len(inputs.species), len(fields), n_lm, self.basis.max_radial)
        values = np.empty(shape)
        size = max(1, COEFFICIENT_BYTES // (8 * math.prod(shape[1:])))

        def write(batch):
            out_jamn = values[batch.rows]
            _, system, own, threads = batch
            if whole_lanes(shape[-1]) == shape[-1]:
                # Written where they stay.
                evaluate = self._evaluator(system, own, len(fields), threads)
                evaluate(out_jamn, 0, threads)
                return
            start = 0
            for found in self.around_runs(system, own, len(used), size, threads):
                out_jamn[start : start + len(found)] = found
                start += len(found)

        batches, at_once = inputs.batches(channel_i, n_threads)
        title = "expansion" if progress else None
        counts = [batch.n_structures for batch in batches]
        thread_map(write, batches, at_once, title, "frame", counts)
        atoms = inputs.species.copy(), inputs.frame_index, inputs.atom_index
        return Coefficients(values, fields, *atoms)

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
        n_max = whole_number(max_radial, 1, self.basis.max_radial, "max_radial")
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
            u_qn = vectors[:, ::-1][:, :n_max].T
            # The sign of an eigenvector is arbitrary: its largest entry is positive.
            largest = np.abs(u_qn).argmax(axis=1)
            u_lqn.append(u_qn * np.sign(u_qn[np.arange(n_max), largest])[:, None])
        return replace(self, basis=ContractedBasis(self.basis, u_lqn))

    def vjp(self, frames, dE_dc, *, species=None, strain=True, n_threads=None):
        r"""Derivatives of scalars that depend on the coefficients.

        One sweep back through the sums: with :math:`G = \partial E/\partial c`, the
        product :math:`\sum G\,\partial c/\partial x` for positions, strain and charges
        costs a few times the coefficients, and no Jacobian is held.

        Parameters
        ----------
        frames : ase.Atoms, iterable of ase.Atoms or Structures
            As for :meth:`compute`.
        dE_dc : ndarray (..., n_atoms, n_species, (l_max + 1)**2, n_max)
            Derivatives with respect to :attr:`Coefficients.values`, of one scalar or
            of several along a leading axis.
        strain : bool
            Whether the derivatives with respect to strain are wanted, which for wave
            vectors cost as much again as the coefficients.
        species, n_threads
            As for :meth:`compute`.

        Returns
        -------
        Gradient

        Raises
        ------
        TypeError, ValueError
            As :meth:`compute`, if the shape of the derivatives does not fit, one is
            not finite or the cutoff is a step, at which coefficients jump.
        """
        self.check_smooth()
        inputs = structures(frames)
        used, channel_i = self.channels(inputs, species)
        n_lm, n_max = (self.max_angular + 1) ** 2, self.basis.max_radial
        shape = (len(inputs.species), len(self.fields(used)), n_lm, n_max)
        gradient = checked_derivatives(dE_dc, shape, "dE_dc")
        leading = gradient.shape[:-4]
        gradient_sjamn = gradient.reshape(-1, *shape)
        n_scalars, n_atoms = len(gradient_sjamn), shape[0]
        position_six, charge_si, _ = Sums.zeros(n_scalars, n_atoms)
        strain_sfxy = np.empty((n_scalars, len(inputs), 3, 3))
        batches, at_once = inputs.batches(channel_i, n_threads)

        def write(batch):
            rows, system, own, threads = batch
            evaluate = self._evaluator(system, own, shape[1], threads, True)
            sums = evaluate.adjoint(gradient_sjamn[:, rows], strain, threads)
            position_six[:, rows], charge_si[:, rows] = sums[:2]
            frame = inputs.frame_index[rows.start]
            strain_sfxy[:, frame] = sums.strain_sxy
            if system.sizes:
                # Structures that do not see each other: each has a strain of its own.
                outer = np.einsum("six,iy->sixy", sums.position_six, system.positions)
                start = np.cumsum([0, *system.sizes[:-1]])
                some = slice(frame, frame + len(start))
                strain_sfxy[:, some] = np.add.reduceat(outer, start, axis=1)

        thread_map(write, batches, at_once)
        wanted = True, strain, self.sources == "charges"
        found = zip((position_six, strain_sfxy, charge_si), wanted, strict=True)
        return Gradient(
            *[x.reshape(*leading, *x.shape[1:]) if is_w else None for x, is_w in found]
        )

    def check_smooth(self):
        """Refuse derivatives of what jumps.

        Raises
        ------
        ValueError
            If the cutoff function is a step.
        """
        if isinstance(self.cutoff_function, StepCutoff):
            raise ValueError(
                "derivatives need a smooth cutoff_function, such as "
                f"ShiftedCosineCutoff({self.cutoff_function.radius}), got "
                f"{self.cutoff_function}"
            )

    def channels(self, inputs, species=None):
        """Species to expand, and the place of each atom's species among them.

        Parameters
        ----------
        inputs : Structures
        species : sequence of int, optional
            Instead of the expansion's own setting.

        Returns
        -------
        species : tuple of int
        channel_i : ndarray (n_atoms,) of int

        Raises
        ------
        ValueError
            If an atom is of another species, if a structure lacks the charges that are
            the sources, or if the field is a potential and it is a slab or a wire.
        """
        if self.field.long_range:
            for frame, system in enumerate(inputs):
                # The extent of a basis takes longer to find than a small frame's pairs.
                if not (system.finite or system.periodic):
                    check_boundary(system, self.basis.extent, f" (frame {frame})")
        if self.sources == "charges":
            for frame, system in enumerate(inputs):
                if system.charges is None:
                    raise ValueError(
                        "sources 'charges' need the initial charges of every frame, "
                        f"got none (frame {frame})"
                    )
        return inputs.channels(self.species if species is None else species)

    def relative_error(self, inputs=None):
        """Error by which coefficients of the same environment may differ.

        Rounding, and the tolerance where wave vectors are summed: the same crystal in
        two cells is summed differently. What is interpolated depends on the distance
        alone and is the same wherever a pair is.

        Parameters
        ----------
        inputs : Structures, optional
            By default any.

        Returns
        -------
        float
            Relative to the size of the coefficients.
        """
        rounding = ROUNDING if inputs is None else inputs.rounding
        is_summed = inputs is None or any(system.periodic for system in inputs)
        if self.field.long_range and is_summed:
            return max(self.tolerance, rounding)
        return rounding

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

    def around_runs(self, system, channel_i, n_species, size, n_threads=1):
        """Coefficients around consecutive atoms of one frame, some atoms at a time.

        Parameters
        ----------
        system : System
        channel_i : ndarray (n_atoms,) of int
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
        n_channels = 1 if self.sources == "charges" else n_species
        n_max = self.basis.max_radial
        shape = (n_channels, (self.max_angular + 1) ** 2, whole_lanes(n_max))
        evaluate = self._evaluator(system, channel_i, n_channels, n_threads)
        with scratch(min(size, len(system)), *shape) as room:
            for first in range(0, len(system), size):
                out_jamn = room[: len(system) - first]
                evaluate(out_jamn, first, n_threads)
                yield out_jamn[..., :n_max]

    def _evaluator(self, system, channel_i, n_channels, n_threads, all_sources=False):
        """Evaluator of one system: its sources, constants and terms.

        With all sources, pairs with atoms of weight zero are among the pairs.
        """
        sources = Sources(channel_i, np.ones(len(channel_i)), n_channels)
        if self.sources == "charges":
            sources = Sources(np.zeros_like(channel_i), system.charges, n_channels)
        if self.field.long_range and not system.finite:
            return self._periodic_evaluator(system, sources, n_threads, all_sources)
        settings = self.field, self.basis, self.max_angular, self.tolerance
        table = pair_table(*settings, None, self.cutoff_function, self.scaling)
        self_term = _Y00 * self.center_atom_weight * table.centre
        pairs = PairTerm(system, sources, table, self.max_angular, all_sources)
        return _Evaluator(sources, self_term, np.zeros_like(self_term), [pairs])

    def _periodic_evaluator(self, system, sources, n_threads, all_sources):
        if self.method == "pairs":
            raise ValueError(
                "method 'pairs' of a potential sums finite frames only, got a periodic "
                "one; take 'auto', 'split', 'reciprocal' or 'nufft'"
            )
        method, width = self.periodic_method(
            len(system), sources.n_channels, system.volume
        )
        settings = self.field, self.basis, self.max_angular, self.tolerance
        split = ewald_split(*settings, width, self.center_atom_weight)
        terms, transforms = [], None
        if split.short is not None and split.short.limit > 0.0:
            settings = split.short, self.max_angular, all_sources
            terms.append(PairTerm(system, sources, *settings))
        if method == "products":
            terms.append(ProductTerm(system, sources, split, n_threads))
        else:
            transforms = TransformTerm(system, sources, split, self.tolerance)
        background = split.background / system.volume
        return _Evaluator(sources, split.self_term, background, terms, transforms)

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
        return self.periodic_method(n_atoms, n_species, volume)[1]

    def periodic_method(self, n_atoms, n_species, volume):
        """How the long-range half of a periodic frame is computed.

        Parameters
        ----------
        n_atoms, n_species : int
        volume : float
            Of the cell in Å³.

        Returns
        -------
        method : {"products", "transforms"}
            Products of matrices or non-uniform Fourier transforms.
        split : float
            Splitting width in Å, see :meth:`splitting`.
        """
        return cheapest_method(self, n_atoms, n_species, volume)


class _Evaluator:
    """Adds up the coefficients of runs of centres of a frame.

    Parameters
    ----------
    sources : Sources
    self_term : ndarray (n_max,)
        l = 0 coefficients of an atom at its own centre.
    background : ndarray (n_max,)
        What the average field of each atom adds to them.
    terms : list of PairTerm and ProductTerm
        Each adds to a block of centres at a time.
    transforms : TransformTerm, optional
        Adds to all centres at a time.
    """

    def __init__(self, sources, self_term, background, terms, transforms=None):
        self.sources, self.terms, self.transforms = sources, terms, transforms
        atoms = sources.channel_i, sources.weight_i
        weight_a = np.bincount(*atoms, minlength=sources.n_channels)
        self.background_n = background
        self.constants = *atoms, self_term, weight_a[:, None] * background

    def __call__(self, out_jamn, first, n_threads):
        """Write a run of centres, each in the same way whatever the threads.

        Parameters
        ----------
        out_jamn : ndarray (n_centres, n_channels, (l_max + 1)**2, width)
        first : int
            Place of the first centre.
        n_threads : int
        """
        n = len(out_jamn)
        block = min((term.block for term in self.terms), default=n)

        def write(start):
            out = out_jamn[start : start + block]
            write_constants(*self.constants, first + start, out)
            for term in self.terms:
                term.add(out, first + start)

        thread_map(write, range(0, n, block), min(n_threads, n // LEAST_CENTERS))
        if self.transforms is not None:
            self.transforms.add_run(out_jamn, first, n_threads)

    def adjoint(self, gradient_sjamn, strained, n_threads):
        """Gradients with respect to the structure, from those of its coefficients.

        Parameters
        ----------
        gradient_sjamn : ndarray (n_scalars, n_atoms, n_channels, n_lm, n_max)
        strained : bool
            Whether the strain is wanted.
        n_threads : int

        Returns
        -------
        Sums
        """
        n_scalars, n, *_, n_max = gradient_sjamn.shape
        sums = Sums.zeros(n_scalars, n)
        self._add_constant_gradients(gradient_sjamn[:, :, :, 0], sums)
        if n_max % LANES:
            padded = [(0, 0)] * 4 + [(0, whole_lanes(n_max) - n_max)]
            gradient_sjamn = np.pad(gradient_sjamn, padded)
        for term in self.terms:
            term.adjoint(gradient_sjamn, sums, strained, n_threads)
        if self.transforms is not None:
            self.transforms.adjoint(gradient_sjamn, sums, strained, n_threads)
        return sums

    def _add_constant_gradients(self, gradient_sjan, sums):
        """Of the terms without a distance: the centre's own, and the average field."""
        channel_i, _, self_n, background_an = self.constants
        gradient_san = gradient_sjan.sum(axis=1)
        own_sin = gradient_sjan[:, np.arange(len(channel_i)), channel_i]
        of_average_sa = gradient_san @ self.background_n
        sums.charge_si[:] += own_sin @ self_n + of_average_sa[:, channel_i]
        energy_s = np.einsum("san,an->s", gradient_san, background_an)
        sums.strain_sxy[:] -= energy_s[:, None, None] * np.eye(3)


def _check_kind(instance, name, kind):
    value = getattr(instance, name)
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind}, got {type(value).__name__}")
