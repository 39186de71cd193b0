r"""Long-range term of the expansion of a periodic field.

.. math::
    c_{j,\alpha nlm} = \frac{4\pi}{\Omega} \sum_{k\ne0} \hat g_s(k)\, I_{nl}(k)\,
    Y_{lm}(\hat k)\, i^l\, e^{ik\cdot r_j} \bar S_\alpha(k)

over the wave vectors of a sphere, by one of two methods: a product of matrices, or
non-uniform fast Fourier transforms, one to the wave vectors and back to the atoms for
each harmonic and radial mode. ``docs/theory.md`` has the derivation.
"""

import math
from functools import lru_cache
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from lode.core import reciprocal as core
from lode.core.harmonics import harmonic_sums, harmonics
from lode.core.lattice import half_sphere, reduced_cell, vectors_of
from lode.core.pairs import interpolated
from lode.core.registers import LANES, aligned_zeros, whole_lanes
from lode.gradients import add_blocks
from lode.nufft import GradientPlan, from_grid, to_grid
from lode.parallel import single_threaded_blas, thread_map
from lode.tuning import (
    FINEST,
    TRANSFORM_SHARE,
    transform_sizes,
    wave_vector_count,
)

# Most entries of the columns that are held for one frame.
_MOST_HELD = 2**23
# Wave vectors in a part, whose columns are made at a time.
_WAVE_BLOCK = 2**13
# Centres that are expanded at a time.
_CENTERS = 64
# Memory of the values that transforms give before they are expanded.
_BATCH_BYTES = 2**26
# Most entries of the columns that are cached for the next frame of the same cell.
_MOST_CACHED = 2**20
# Atoms whose phases are made at a time.
_ATOMS = 256
# How much more exact the structure factor is: on a crystal its errors, weighted by
# 1/k², add in phase.
_STRUCTURE_SHARE = 1e-5
_COARSEST = 1e-2


class HalfSpace:
    """Half of the wave vectors of a cell, in a sphere, and the columns of products.

    Parameters
    ----------
    cell, inverse : ndarray (3, 3)
    volume : float
        In Å³.
    split : EwaldSplit
    """

    def __init__(self, cell, inverse, volume, split):
        self.split = split
        self.reciprocal = np.ascontiguousarray(2 * math.pi * inverse.T)
        dual_lengths = np.sqrt((cell**2).sum(axis=1)) / (2 * math.pi)
        limit = split.long.limit
        self.line_nx, self.top_x = half_sphere(self.reciprocal, dual_lengths, limit)
        self.k_kx = vectors_of(self.reciprocal, self.line_nx)
        self.length_k = np.sqrt((self.k_kx**2).sum(axis=1))
        # (4π/Ω) ĝ.
        factor = 4 * math.pi / volume
        self.weight_k = factor * split.field.fourier(self.length_k, split.width)
        # Lines of wave vectors and their places.
        self.parts, self._held = list(self._parts()), None

    def held_columns(self, n_threads):
        """Columns of each part, or None if there are too many to be held."""
        if len(self.k_kx) * sum(self.split.long.widths) > _MOST_HELD:
            return [None] * len(self.parts)
        if self._held is None:
            self._held = thread_map(self.columns, self.parts, n_threads)
        return self._held

    def __len__(self):
        return len(self.k_kx)

    def _parts(self):
        """Lines of wave vectors and their places, of some wave vectors at a time."""
        ends = np.cumsum(self.line_nx[:, 3])
        start = done = 0
        while start < len(ends):
            stop = int(np.searchsorted(ends, done + _WAVE_BLOCK)) + 1
            stop = min(stop, len(ends))
            yield self.line_nx[start:stop], slice(done, int(ends[stop - 1]))
            start, done = stop, int(ends[stop - 1])

    def harmonics(self, part=slice(None)):
        """Harmonics of wave vectors, ((l_max + 1)**2, n_k)."""
        return harmonics(self.k_kx[part], len(self.split.long.n_modes) - 1)

    def modes(self, part=slice(None)):
        """Radial modes at wave vectors and derivatives, (n_k, at least n_modes)."""
        table = self.split.long
        return interpolated(table.row_rc, table.step, self.length_k[part])

    def strain(self, places, sum_xmk):
        """Gradient with respect to strain, at fixed phases.

        Parameters
        ----------
        places : slice
            Some of the wave vectors.
        sum_xmk : ndarray (2, (l_max + 1)**2, n_k + LANES)
            Factors of the harmonics in the energy, and the same with the derivatives
            of the radial modes instead of their values.

        Returns
        -------
        ndarray (3, 3)
        """
        split, k_kx, length_k = self.split, self.k_kx[places], self.length_k[places]
        found = harmonic_sums(k_kx, len(split.long.n_modes) - 1, *sum_xmk)
        gradient_xk, along_k, energy_k = found
        rate_k = split.field.fourier_slope(length_k, split.width)
        rate_k /= split.field.fourier(length_k, split.width)
        gradient_xk += (along_k + rate_k * energy_k) / length_k * k_kx.T
        # The volume grows, and wave vectors shrink.
        return -(energy_k.sum() * np.eye(3) + k_kx.T @ gradient_xk.T)

    def weighted_modes(self, places):
        """Radial modes and derivatives, weighted as columns: (2, n_modes, n_k + LANES).

        The other half of the wave vectors doubles the weight.
        """
        weight_k, n_q = 2 * self.weight_k[places], len(self.split.long.mode_qn)
        mode_xqk = np.zeros((2, n_q, len(weight_k) + LANES))
        for out_qk, value_kq in zip(mode_xqk, self.modes(places), strict=True):
            np.multiply(value_kq.T[:n_q], weight_k, out=out_qk[:, : len(weight_k)])
        return mode_xqk

    def columns(self, part):
        """Columns of the products for some wave vectors, even and odd."""
        _, places = part
        # The other half of the wave vectors doubles the weight.
        weight_k, table = 2 * self.weight_k[places], self.split.long
        both = [aligned_zeros(len(weight_k), width) for width in table.widths]
        of_part = self.harmonics(places), self.modes(places)[0]
        core.write_columns(weight_k, *of_part, table.n_modes, *both)
        return both


@lru_cache(maxsize=4)
def _cached_half_space(cell, inverse, volume, split):
    """Wave vectors of a cell that may come again, given by the bytes of arrays."""
    cell, inverse = (np.frombuffer(a).reshape(3, 3) for a in (cell, inverse))
    return HalfSpace(cell, inverse, volume, split)


class ProductTerm:
    """Matrix products over blocks of wave vectors.

    Rows are centres and channels, columns harmonics and radial modes. Rows are made and
    used some at a time: nothing of size N × N_k is ever held.

    Parameters
    ----------
    system : System
    sources : Sources
    split : EwaldSplit
    n_threads : int
        For the preparation.
    """

    # How many centres are best taken at a time: the caches hold no more.
    block = _CENTERS

    def __init__(self, system, sources, split, n_threads):
        n_k = wave_vector_count(system.volume, split.long.limit)
        if n_k * sum(split.long.widths) <= _MOST_CACHED:
            cell = system.cell.tobytes(), system.inverse.tobytes()
            self.half_space = _cached_half_space(*cell, system.volume, split)
        else:
            cell = system.cell, system.inverse
            self.half_space = HalfSpace(*cell, system.volume, split)
        self.positions, self.sources, self.table = system.positions, sources, split.long
        parts = self.half_space.parts
        self.columns = self.half_space.held_columns(n_threads)
        self.structure = thread_map(self._structure_factor, parts, n_threads)

    def phases(self, first, stop):
        """Phases of some atoms along the axes, as of ``core.axis_phases``."""
        space = self.half_space
        return core.axis_phases(
            self.positions[first:stop], space.reciprocal, space.top_x
        )

    def _structure_factor(self, part):
        """Structure factor at a part of the wave vectors, real and imaginary."""
        line_nx, places = part
        shape = self.sources.n_channels, places.stop - places.start + LANES
        sums = np.zeros(shape), np.zeros(shape)
        channel_i, weight_i = self.sources.channel_i, self.sources.weight_i
        for first in range(0, len(self.positions), _ATOMS):
            some = slice(first, first + _ATOMS)
            atoms = self.phases(some.start, some.stop), channel_i[some], weight_i[some]
            top_x = self.half_space.top_x
            core.add_structure_factor(*atoms, line_nx, top_x, *sums)
        return sums

    def add(self, out_jamn, first):
        """Add to the coefficients of a run of centres.

        Parameters
        ----------
        out_jamn : ndarray (n_centres, n_channels, (l_max + 1)**2, width)
        first : int
            Place of the first centre.
        """
        n, n_channels = out_jamn.shape[:2]
        space, phase_jxt = self.half_space, self.phases(first, first + n)
        sums = [aligned_zeros(n_channels, n, width) for width in self.table.widths]
        found = zip(space.parts, self.columns, self.structure, strict=True)
        for part, columns, structure in found:
            columns = columns or space.columns(part)
            vectors = core.WaveVectors(part[0], space.top_x, *structure, *columns)
            core.add_products(phase_jxt, vectors, *sums)
        core.add_modes(tuple(sums), self.table.n_modes, self.table.mode_qn, out_jamn)

    def adjoint(self, gradient_sjamn, sums, strained, n_threads):
        """Add what gradients of all coefficients are for positions and strain.

        First what they are for the centres, the structure factor and the columns; then
        what these are for the sources and the strain.

        Parameters
        ----------
        gradient_sjamn : ndarray (n_scalars, n_atoms, n_channels, n_lm, width)
        sums : Sums
            Added to.
        strained : bool
            Whether the strain is wanted.
        n_threads : int
        """
        n_scalars, n_atoms, n_channels, n_lm, _ = gradient_sjamn.shape
        space, modes, of_parts = self.half_space, [], []
        for _, places in space.parts:
            modes.append(np.empty((2, 0, 0)))
            if strained:
                modes[-1] = space.weighted_modes(places)
            n_k = places.stop - places.start + LANES
            shapes = [(n_channels, n_k)] * 2 + [(2, n_lm, n_k if strained else 0)]
            of_parts.append([aligned_zeros(n_scalars, *shape) for shape in shapes])

        def add(first, arrays):
            some = gradient_sjamn[:, first : first + self.block]
            own = [arrays[i : i + 3] for i in range(1, len(arrays), 3)]
            self._add_centers(some, first, modes, arrays[0], own)

        arrays = [sums.position_six, *(array for part in of_parts for array in part)]
        add_blocks(add, arrays, range(0, n_atoms, self.block), n_threads)
        for part, own in zip(space.parts, of_parts, strict=True):
            self._add_sources(part, own, sums, n_threads)
            if strained:
                for sum_xmk, strain_xy in zip(own[2], sums.strain_sxy, strict=True):
                    strain_xy += space.strain(part[1], sum_xmk)

    def _add_centers(self, gradient_sjamn, first, modes, position_six, of_parts):
        n, n_channels = gradient_sjamn.shape[1:3]
        space, phase_jxt = self.half_space, self.phases(first, first + n)
        n_rows = -(-n // core.CENTERS) * core.CENTERS
        n_modes, mode_qn = self.table.n_modes, self.table.mode_qn
        mode_nq = np.zeros((mode_qn.shape[1], whole_lanes(len(mode_qn)) + LANES))
        mode_nq[:, : len(mode_qn)] = mode_qn.T
        gradients = []
        for gradient_jamn in gradient_sjamn:
            shapes = [(n_channels, width, n_rows) for width in self.table.widths]
            gradient = tuple(aligned_zeros(*shape) for shape in shapes)
            core.contract_modes(gradient_jamn, n_modes, mode_nq, *gradient)
            gradients.append(gradient)
        found = zip(
            space.parts, self.columns, self.structure, modes, of_parts, strict=True
        )
        for part, columns, structure, mode_xqk, own in found:
            line_nx, places = part
            columns = columns or space.columns(part)
            vectors = core.WaveVectors(line_nx, space.top_x, *structure, *columns)
            of_centers = phase_jxt, vectors, _transposed(space.k_kx[places])
            for s, gradient in enumerate(gradients):
                out_jx = position_six[s, first : first + n]
                of_scalar = tuple(array[s] for array in own)
                core.add_product_gradients(
                    *of_centers, gradient, n_modes, mode_xqk, out_jx, of_scalar
                )

    def _add_sources(self, part, own, sums, n_threads):
        line_nx, places = part
        k_xk = _transposed(self.half_space.k_kx[places])
        channel_i, weight_i = self.sources.channel_i, self.sources.weight_i

        def add(first):
            some = slice(first, first + _ATOMS)
            phase_ixt = self.phases(some.start, some.stop)
            lines = line_nx, self.half_space.top_x, k_xk
            for real_ak, imag_ak, position_ix, charge_i in zip(
                *own[:2], sums.position_six, sums.charge_si, strict=True
            ):
                atoms = phase_ixt, channel_i[some], weight_i[some], *lines
                out = position_ix[some], charge_i[some]
                core.add_source_gradients(*atoms, real_ak, imag_ak, *out)

        thread_map(add, range(0, len(channel_i), _ATOMS), n_threads)


def _transposed(k_kx):
    """Components of wave vectors, with zeros after the last."""
    k_xk = np.zeros((3, len(k_kx) + LANES))
    k_xk[:, : len(k_kx)] = k_kx.T
    return k_xk


class TransformTerm:
    r"""Non-uniform fast Fourier transforms, by finufft.

    With the structure factors of two channels as one complex field, the real and the
    imaginary part of a transform are the same column of both; of a channel that is
    left alone they are two columns. Each transform runs on one thread, so that no bit
    depends on their number.

    Parameters
    ----------
    system, sources, split
        As for :class:`ProductTerm`.
    tolerance : float
        The error of a coefficient relative to ``split.scale``.

    Raises
    ------
    ImportError
        If finufft is not installed.
    """

    def __init__(self, system, sources, split, tolerance):
        # The box of indices around the sphere is smallest in a compact cell.
        cell = reduced_cell(system.cell)
        inverse = np.linalg.inv(cell)
        self.half_space = HalfSpace(cell, inverse, system.volume, split)
        self.sources, self.modes = sources, split.long
        self.tolerance, self.scale = tolerance, split.scale
        turns = (system.positions @ inverse).T
        angle_xj = 2 * math.pi * (turns - np.round(turns))
        self.angle_xj = np.ascontiguousarray(angle_xj)
        self.y_mk = self.half_space.harmonics()
        n_q = len(self.modes.mode_qn)
        self.u_qk, self.slope_qk = (
            value_kq[:, :n_q].T.copy() for value_kq in self.half_space.modes()
        )
        present = np.unique(sources.channel_i)
        pairs = [present[a : a + 2] for a in range(0, len(present), 2)]
        with single_threaded_blas():
            self.groups = [self._group(a) for a in pairs if len(self.half_space)]

    def _group(self, channels):
        """Transforms of one or two channels."""
        columns, field_sk = self._columns(channels), self._field(channels)
        return _Group(channels, columns, field_sk, self._accuracy(field_sk))

    def add_run(self, out_jamn, first, n_threads):
        """Add to the coefficients of a run of centres, on some threads.

        Parameters
        ----------
        out_jamn, first
            As for :meth:`ProductTerm.add`.
        n_threads : int
        """
        angle_xj = self.angle_xj[:, first : first + len(out_jamn)]
        for group in self.groups:
            self._add(group, angle_xj, out_jamn, n_threads)

    def _places(self, sizes):
        """Places of the half space in a grid of odd sizes with k = 0 in its middle."""
        h, k, start, count = self.half_space.line_nx.T
        first = ((h + sizes[0] // 2) * sizes[1] + k + sizes[1] // 2) * sizes[2]
        first += start + sizes[2] // 2
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.repeat(first, count) + within

    def _atoms(self, channels, accuracy):
        """Atoms of two channels, 1 or i for each, and the settings of transforms."""
        atoms = np.flatnonzero(np.isin(self.sources.channel_i, channels))
        is_first = self.sources.channel_i[atoms] == channels[0]
        sizes, _, upsampling = transform_sizes(
            self.half_space.top_x, accuracy, len(atoms)
        )
        settings = self.angle_xj[:, atoms], sizes, accuracy, upsampling
        return atoms, np.where(is_first, 1.0 + 0j, 1j), settings

    def _field(self, channels):
        """(4π/Ω) ĝ (S̄_a + i S̄_b) at the wave vectors k, and at -k."""
        accuracy = max(_STRUCTURE_SHARE * self.tolerance, FINEST)
        atoms, one_j, settings = self._atoms(channels, accuracy)
        plan = to_grid(*settings)
        grid = plan.execute(one_j * self.sources.weight_i[atoms]).ravel()
        place = self._places(settings[1])
        return self.half_space.weight_k * grid[[place, len(grid) - 1 - place]]

    def _accuracy(self, field_sk):
        """Accuracy of the transforms relative to the norm of what is transformed."""
        l_q = np.repeat(np.arange(len(self.modes.n_modes)), self.modes.n_modes)
        square_k = (field_sk.real**2 + field_sk.imag**2).sum(axis=0)
        square_q = self.u_qk**2 @ square_k
        norm = math.sqrt(((2 * l_q + 1) / (4 * math.pi) * square_q).max())
        wanted = TRANSFORM_SHARE * self.tolerance * self.scale
        return min(max(wanted / max(norm, 1e-300), FINEST), _COARSEST)

    def _columns(self, channels):
        """Channel, l, harmonic and mode in both parts of each transform: (2, n, 4)."""
        n_modes = self.modes.n_modes
        first = np.cumsum(n_modes) - n_modes
        columns = [
            (l, m, first[l] + q)
            for l in range(len(n_modes))
            for m in range(l * l, (l + 1) ** 2)
            for q in range(n_modes[l])
        ]
        if len(channels) == 2:
            return np.array([[(a, *c) for c in columns] for a in channels])
        parts = [[(channels[0], *c) for c in columns[part::2]] for part in (0, 1)]
        parts[1] += [(-1, -1, 0, 0)] * (len(parts[0]) - len(parts[1]))
        return np.array(parts)

    def _write_grid(self, place_k, parts, field_sk, grid):
        """Write the modes of one transform, see :func:`core.write_grid`."""
        one, other = ((self.y_mk[m], self.u_qk[q], l) for _, l, m, q in parts)
        core.write_grid(place_k, *one, *other, field_sk, grid.ravel())

    def _add(self, group, angle_xj, out_jamn, n_threads):
        n_atoms, n_columns = angle_xj.shape[1], group.columns.shape[1]
        accuracy, of_grids = group.accuracy, _of_grids(group.columns)
        sizes, _, upsampling = transform_sizes(self.half_space.top_x, accuracy, n_atoms)
        place_k = self._places(sizes)
        n_threads = min(n_threads, n_columns)
        tools = SimpleQueue()
        for _ in range(n_threads):
            # One column at a time: on one thread several cost the same together.
            plan = from_grid(angle_xj, sizes, accuracy, upsampling)
            tools.put((plan, np.zeros(sizes, complex)))
        batch = max(n_threads, _BATCH_BYTES // (16 * n_atoms))
        value_tj = np.empty((min(batch, n_columns), n_atoms), complex)
        rows = [slice(j, j + _CENTERS) for j in range(0, n_atoms, _CENTERS)]

        def transform(item):
            row, *parts = item
            plan, grid = tools.get()
            self._write_grid(place_k, parts, group.field_sk, grid)
            plan.execute(grid, out=value_tj[row])
            tools.put((plan, grid))

        for start in range(0, n_columns, batch):
            some = slice(start, start + batch)
            places = np.ascontiguousarray(group.columns[:, some, [0, 2, 3]])
            items = zip(range(batch), *of_grids[:, some].tolist(), strict=False)
            thread_map(transform, items, n_threads)

            def expand(row, places=places):
                values = value_tj[: places.shape[1], row]
                core.add_transforms(values, *places, self.modes.mode_qn, out_jamn[row])

            thread_map(expand, rows, n_threads)

    def adjoint(self, gradient_sjamn, sums, strained, n_threads):
        """Add what gradients of all coefficients are for positions and strain.

        Parameters
        ----------
        gradient_sjamn, sums, strained, n_threads
            As for :meth:`ProductTerm.adjoint`.
        """
        for group in self.groups:
            for gradient_jamn, *of_scalar in zip(gradient_sjamn, *sums, strict=True):
                settings = gradient_jamn, of_scalar, strained, n_threads
                self._add_gradients(group, *settings)

    def _add_gradients(self, group, gradient_jamn, of_scalar, strained, n_threads):
        space, (position_ix, charge_i, strain_xy) = self.half_space, of_scalar
        n_atoms, n_columns = len(gradient_jamn), group.columns.shape[1]
        accuracy, of_grids = group.accuracy, _of_grids(group.columns)
        sizes, _, upsampling = transform_sizes(space.top_x, accuracy, n_atoms)
        place_k, n_threads = self._places(sizes), min(n_threads, n_columns)
        to_atoms = GradientPlan(self.angle_xj, sizes, accuracy)
        tools = SimpleQueue()
        for _ in range(n_threads):
            plan = to_grid(self.angle_xj, sizes, accuracy, upsampling, sign=1)
            tools.put((plan, np.zeros(sizes, complex)))
        batch = max(n_threads, _BATCH_BYTES // (40 * n_atoms + 32 * len(space)))
        batch = min(batch, n_columns)
        gradient_tj = np.empty((batch, n_atoms), complex)
        angle_tjx, angle_jx = np.empty((batch, n_atoms, 3)), np.zeros((n_atoms, 3))
        adjoint_tsk = np.empty((batch, 2, len(space)), complex)

        def transform(item):
            row, *parts = item
            plan, grid = tools.get()
            self._write_grid(place_k, parts, group.field_sk, grid)
            angle_tjx[row] = to_atoms.execute(grid, gradient_tj[row])
            found = plan.execute(gradient_tj[row].conj()).ravel()
            adjoint_tsk[row] = found[[place_k, len(found) - 1 - place_k]]
            tools.put((plan, grid))

        slope_qk = self.slope_qk[: None if strained else 0]
        field_sum_sk = np.zeros_like(group.field_sk)
        sum_xmk = np.zeros((2, len(self.y_mk), len(space) + LANES))
        for start in range(0, n_columns, batch):
            some = slice(start, start + batch)
            of_grid = np.ascontiguousarray(of_grids[:, some])
            places = np.ascontiguousarray(group.columns[:, some, [0, 2, 3]])
            n = places.shape[1]
            settings = *places, self.modes.mode_qn, gradient_tj[:n]
            core.contract_transforms(gradient_jamn, *settings)
            items = zip(range(batch), *of_grid.tolist(), strict=False)
            thread_map(transform, items, n_threads)
            angle_jx += angle_tjx[:n].sum(axis=0)

            def add(first, of_grid=of_grid, n=n):
                core.add_transform_gradients(
                    first,
                    min(first + _WAVE_BLOCK, len(space)),
                    *(adjoint_tsk[:n], of_grid, group.field_sk),
                    *(self.y_mk, self.u_qk, slope_qk, field_sum_sk, sum_xmk),
                )

            thread_map(add, range(0, len(space), _WAVE_BLOCK), n_threads)
        position_ix += angle_jx @ space.reciprocal
        if strained:
            strain_xy += space.strain(slice(None), sum_xmk)
        self._add_sources(group.channels, field_sum_sk, position_ix, charge_i)

    def _add_sources(self, channels, field_sum_sk, position_ix, charge_i):
        """Add the gradient with respect to a field for the atoms that make it."""
        space, accuracy = self.half_space, max(0.1 * self.tolerance, FINEST)
        atoms, one_i, settings = self._atoms(channels, accuracy)
        place, grid = self._places(settings[1]), np.zeros(settings[1], complex)
        # The energy has exp(-i k·r): a sum of conjugates.
        weighted_sk = (space.weight_k * field_sum_sk).conj()
        grid.ravel()[[place, grid.size - 1 - place]] = weighted_sk
        charge_i[atoms] += (one_i.conj() * from_grid(*settings).execute(grid)).real
        factor_i = one_i * self.sources.weight_i[atoms]
        angle_ix = GradientPlan(*settings[:3]).execute(grid, factor_i)
        position_ix[atoms] += angle_ix @ space.reciprocal


class _Group(NamedTuple):
    """Transforms of one or two channels.

    Attributes
    ----------
    channels : ndarray of int
    columns : ndarray (2, n_transforms, 4) of int
        Channel, l, harmonic and mode in both parts of each transform.
    field_sk : ndarray (2, n_k) of complex
    accuracy : float
    """

    channels: np.ndarray
    columns: np.ndarray
    field_sk: np.ndarray
    accuracy: float


def _of_grids(columns):
    """Parts of the grids that transforms start from: with two channels there is one."""
    of_grids = columns.copy()
    if columns[0, 0, 0] != columns[1, 0, 0] >= 0:
        of_grids[1] = -1
    return of_grids
