r"""Long-range half of the expansion of a periodic potential, and what it costs.

.. math::
    c_{j,\alpha nlm} = \frac{4\pi}{\Omega} \sum_{k\ne0} \hat g_s(k)\, I_{nl}(k)\,
    Y_{lm}(\hat k)\, i^l\, e^{ik\cdot r_j} \bar S_\alpha(k)

over the wave vectors of a sphere, in one of two ways: a product of matrices, or
non-uniform fast Fourier transforms, one to the wave vectors and back to the atoms for
each harmonic and radial mode. ``docs/theory.md`` has the derivation.
"""

import math
from functools import lru_cache
from queue import SimpleQueue

import numpy as np

from lode.core import expansion as core
from lode.parallel import single_threaded_blas, thread_map
from lode.radial import piecewise_polynomials
from lode.systems import short_vectors

# Numbers of columns that are held for a frame, and wave vectors whose columns are made
# at a time if there are more.
MOST_HELD = 2**23
_WAVE_BLOCK = 2**13
# Centres that are expanded at a time.
_ROW_BLOCK = 256
# Memory of the values that transforms give before they are expanded.
_BATCH_BYTES = 2**26
# Numbers that are kept of the columns of a cell; columns that are not.
_MOST_KEPT = 2**18
NO_COLUMNS = (np.empty((0, core.LANES)), np.empty((0, core.LANES)))
# Doublings of the wave number in a table: more than there are wave vectors in a row.
_OCTAVES = 24
# Share of the tolerance that the transforms may use, and how much more exact the
# structure factor is: on a crystal its errors, weighted by 1/k², add in phase.
_TRANSFORM_SHARE = 0.25
_STRUCTURE_SHARE = 1e-5
# Finest accuracy of finufft in double precision, and with little oversampling.
_FINEST = 1e-14
_FINEST_LITTLE = 1e-8
_COARSEST = 1e-2
# Microseconds on one core: of 10^6 multiply-adds of a matrix product, of an entry of
# its columns, of a phase of an atom with a species.
_COST_PRODUCT = 37.0
_COST_COLUMN = 0.0007
_COST_PHASE = 0.0018
# Of a point of the fine grid for each doubling of its size, small and large; of a point
# of the kernel.
_COST_FFT = 4.5e-4
_COST_FFT_LARGE = 8e-4
_LARGE_GRID = 2e6
_COST_KERNEL = 4.2e-4
# Edges of fine grids whose planes lie on the same lines of the cache: their Fourier
# transforms take two to five times as long as those of their neighbours.
_SLOW_SIZES = (48, 64, 128, 256, 512)
# Of a mode of its grid, of an expanded value, of a call.
_COST_GRID = 0.002
_COST_EXPANSION = 0.02
_COST_CALL = 30.0


class _Kept:
    """Columns of the wave vectors of a cell that comes again, and how often it did."""

    def __init__(self):
        self.uses, self.columns = 0, None


@lru_cache(maxsize=3)
def _kept(cell, settings):
    """What is kept for a cell, given as its bytes."""
    return _Kept()


def kept_columns(cell, inverse, volume, settings):
    """Columns of the wave vectors of a small cell, kept if it comes again.

    Parameters
    ----------
    cell, inverse : ndarray (3, 3)
    volume : float
    settings
        What else they depend on, with a ``field`` of ``core.write_cells``.

    Returns
    -------
    tuple of ndarray
        As of ``core.cell_columns``, without rows if they are not kept.
    """
    kept = _kept(cell.tobytes(), settings)
    kept.uses += 1
    # A cell that is seen for the first time may be the last of its kind.
    if kept.uses > 1 and kept.columns is None:
        columns = core.cell_columns(cell, inverse, volume, settings.field)
        small = sum(c.size for c in columns) <= _MOST_KEPT
        kept.columns = columns if small else NO_COLUMNS
    return kept.columns or NO_COLUMNS


class _HalfSpace:
    """Half of the wave vectors of a frame, in a sphere.

    Parameters
    ----------
    cell, inverse : ndarray (3, 3)
        Of the frame or of the same lattice.
    volume : float
        In Å³.
    field : PowerLawPotential
        With the splitting width as its smearing.
    modes : ModeTable
    l_max : int
    """

    def __init__(self, cell, inverse, volume, field, modes, l_max):
        self.modes, self.l_max = modes, l_max
        self.reciprocal = 2 * math.pi * inverse.T
        self.columns, self.top, self.k_kx, length_k = core.wave_sphere(
            cell, self.reciprocal, modes.limit
        )
        # (4π/Ω) ĝ.
        self.weight_k = 4 * math.pi / volume * field.fourier(length_k)


class ProductSum(_HalfSpace):
    """Matrix products over blocks of wave vectors.

    Rows are centres and species, columns harmonics and radial modes. Rows are made and
    used some at a time: nothing of size N × N_k is ever held.

    Parameters
    ----------
    system : System
    sources
        Of each atom the place of its field, ``species_i``, and what it is multiplied
        with, ``charge_i``; empty, and ``weights`` None, if that is one for all.
    n_species : int
        Number of fields.
    field, modes, l_max
        As for :class:`_HalfSpace`.
    """

    def __init__(self, system, sources, n_species, field, modes, l_max):
        cell = system.cell, system.inverse, system.volume
        super().__init__(*cell, field, modes, l_max)
        atoms = system.positions, sources.species_i, sources.charge_i, n_species
        self.positions, self.atoms = system.positions, atoms
        self.expansion = (modes.n_modes, modes.expansion, l_max)
        size = len(self.k_kx) * modes.n_columns
        if size > MOST_HELD:
            # Their columns are made again for each run of centres.
            self.blocks = [self._without_columns(*block) for block in self._blocks()]
        else:
            self.blocks = [self._whole()] if size else []

    def add(self, out_jamn, first):
        """Add the coefficients of a run of centres.

        Parameters
        ----------
        out_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, n_max)
        first : int
            First of the centres.
        """
        for waves, structure, columns in self.blocks:
            if callable(columns):
                columns = columns()
            arguments = (*waves, *structure, *columns, *self.expansion)
            core.add_expanded_waves(self.positions, *arguments, first, out_jamn)

    def _whole(self):
        """All wave vectors as one block."""
        waves = self.reciprocal, self.columns, self.top
        structure = *self.atoms, *waves
        return waves, *core.wave_factors(structure, self._arguments(slice(None)))

    def _without_columns(self, columns, part):
        """A block of wave vectors, and a function that makes its columns."""
        waves = self.reciprocal, columns, self.top
        sums = core.structure_factor(*self.atoms, *waves)
        return waves, sums, lambda: core.wave_columns(*self._arguments(part))

    def _arguments(self, part):
        """Arguments of ``core.wave_columns`` for some wave vectors."""
        modes = self.modes
        table = modes.coefficients, modes.step, modes.n_modes, self.l_max
        # The other half of the wave vectors doubles the weight.
        return self.k_kx[part], 2 * self.weight_k[part], *table

    def _blocks(self):
        """Runs of whole columns, of some wave vectors each, and their places."""
        ends = np.cumsum(self.columns[:, 3])
        start = done = 0
        while start < len(ends):
            stop = int(np.searchsorted(ends, done + _WAVE_BLOCK)) + 1
            stop = min(stop, len(ends))
            yield self.columns[start:stop], slice(done, int(ends[stop - 1]))
            start, done = stop, int(ends[stop - 1])


def cell_field(field, modes, l_max):
    """Field that is summed over the wave vectors of small cells.

    Parameters
    ----------
    field, modes, l_max
        As for :class:`ProductSum`.

    Returns
    -------
    tuple
        For ``core.write_cells``.
    """
    table = modes.coefficients, modes.step, modes.n_modes, modes.expansion, l_max
    return modes.limit, field.smearing, *_fourier_table(field, modes.limit), *table


def _fourier_table(field, limit):
    """ĝ(k) k² exp(k²s²/2) as polynomials of log2(limit / k), and their interval.

    As a function of the logarithm it has no singularity, whatever the power.
    """

    def function(x):
        k = limit * 2.0**-x
        scaled = field.fourier(k) * k**2 * np.exp(0.5 * (k * field.smearing) ** 2)
        return scaled[:, None]

    # So short that the error is that of rounding.
    return piecewise_polynomials(function, _OCTAVES, 0.125, math.inf)


def no_field(l_max):
    """As :func:`cell_field`, of a field that has no long-range half."""
    n_modes = np.zeros(l_max + 1, dtype=np.int64)
    nothing = np.zeros((1, 1, 0))
    return 0.0, 0.0, nothing, 1.0, nothing, 1.0, n_modes, np.zeros((0, 0)), l_max


class TransformSum(_HalfSpace):
    r"""Non-uniform fast Fourier transforms, by finufft.

    With the structure factors of two species as one complex field, the real and the
    imaginary part of a transform are the same column of both; of a species that is
    left alone they are two columns. Each transform runs on one thread, so that no bit
    depends on their number.

    Parameters
    ----------
    system, sources, n_species, field, modes, l_max
        As for :class:`ProductSum`.
    tolerance, scale : float
        The error of a coefficient is at most their product.

    Raises
    ------
    ImportError
        If finufft is not installed.
    """

    def __init__(
        self, system, sources, n_species, field, modes, l_max, tolerance, scale
    ):
        self.new_plan = _finufft().Plan
        # The box of indices around the sphere is smallest in a compact cell.
        cell = short_vectors(system.cell)
        inverse = np.linalg.inv(cell)
        super().__init__(cell, inverse, system.volume, field, modes, l_max)
        self.sources, self.tolerance, self.scale = sources, tolerance, scale
        turns = (system.positions @ inverse).T
        self.angle_xj = 2 * math.pi * (turns - np.round(turns))
        with single_threaded_blas():
            self.groups = self._groups()

    def add_to(self, out_jamn, first, n_threads):
        """Add the coefficients of a run of centres.

        Parameters
        ----------
        out_jamn : ndarray (n_centres, n_species, (l_max + 1)**2, n_max)
        first : int
            First of the centres.
        n_threads : int
        """
        angle_xj = self.angle_xj[:, first : first + len(out_jamn)]
        angle_xj = np.ascontiguousarray(angle_xj)
        for task in self.groups:
            self._add(*task, angle_xj, out_jamn, n_threads)

    def _groups(self):
        """Columns, field and accuracy of groups of species, and tables of waves."""
        if not len(self.k_kx):
            return []
        y_mk = np.empty(((self.l_max + 1) ** 2, len(self.k_kx)))
        u_qk = np.empty((len(self.modes.expansion), len(self.k_kx)))
        table = (self.modes.coefficients, self.modes.step, self.l_max)
        core.wave_tables(self.k_kx, *table, y_mk, u_qk)
        present = np.unique(self.sources.species_i)
        groups = []
        for a in range(0, len(present), 2):
            species = present[a : a + 2]
            field_sk = self._field(species)
            accuracy = self._accuracy(field_sk, u_qk)
            groups.append((self._tasks(species), field_sk, accuracy, y_mk, u_qk))
        return groups

    def _places(self, sizes):
        """Places of the half space in a grid of odd sizes with k = 0 in its middle."""
        h, k, start, count = self.columns.T
        first = ((h + sizes[0] // 2) * sizes[1] + k + sizes[1] // 2) * sizes[2]
        first += start + sizes[2] // 2
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.repeat(first, count) + within

    def _field(self, species):
        """(4π/Ω) ĝ (S̄_a + i S̄_b) at the wave vectors k, and at -k."""
        accuracy = max(_STRUCTURE_SHARE * self.tolerance, _FINEST)
        atoms = np.isin(self.sources.species_i, species)
        sizes, _, upsampling = transform_sizes(self.top, accuracy, atoms.sum())
        first = self.sources.species_i[atoms] == species[0]
        strength_j = np.where(first, 1.0 + 0j, 1j)
        if self.sources.weights is not None:
            strength_j *= self.sources.weights[atoms]
        plan = self.new_plan(
            1, sizes, 1, accuracy, isign=-1, upsampfac=upsampling, nthreads=1
        )
        plan.setpts(*np.ascontiguousarray(self.angle_xj[:, atoms]))
        grid = plan.execute(strength_j).ravel()
        place = self._places(sizes)
        return self.weight_k * grid[[place, len(grid) - 1 - place]]

    def _accuracy(self, field_sk, u_qk):
        """Accuracy of the transforms relative to the norm of what is transformed."""
        l_q = np.repeat(np.arange(self.l_max + 1), self.modes.n_modes)
        square_k = (field_sk.real**2 + field_sk.imag**2).sum(axis=0)
        norm = math.sqrt(((2 * l_q + 1) / (4 * math.pi) * (u_qk**2 @ square_k)).max())
        wanted = _TRANSFORM_SHARE * self.tolerance * self.scale
        return min(max(wanted / max(norm, 1e-300), _FINEST), _COARSEST)

    def _tasks(self, species):
        """Species, l, harmonic and mode in both parts of each transform: (2, n, 4)."""
        first = np.cumsum(self.modes.n_modes) - self.modes.n_modes
        columns = [
            (l, m, first[l] + q)
            for l in range(self.l_max + 1)
            for m in range(l * l, (l + 1) ** 2)
            for q in range(self.modes.n_modes[l])
        ]
        if len(species) == 2:
            return np.array([[(a, *c) for c in columns] for a in species])
        parts = [[(species[0], *c) for c in columns[part::2]] for part in (0, 1)]
        parts[1] += [(-1, -1, 0, 0)] * (len(parts[0]) - len(parts[1]))
        return np.array(parts)

    def _add(
        self, tasks, field_sk, accuracy, y_mk, u_qk, angle_xj, out_jamn, n_threads
    ):
        n_atoms = angle_xj.shape[1]
        sizes, _, upsampling = transform_sizes(self.top, accuracy, n_atoms)
        place_k = self._places(sizes)
        two_species = tasks[0, 0, 0] != tasks[1, 0, 0] >= 0
        n_threads = min(n_threads, tasks.shape[1])
        tools = SimpleQueue()
        for _ in range(n_threads):
            # One column at a time: on one thread several cost the same together.
            plan = self.new_plan(
                2, sizes, 1, accuracy, isign=1, upsampfac=upsampling, nthreads=1
            )
            plan.setpts(*angle_xj)
            tools.put((plan, np.zeros(sizes, complex)))
        batch = max(n_threads, _BATCH_BYTES // (16 * n_atoms))
        value_tj = np.empty((min(batch, tasks.shape[1]), n_atoms), complex)
        rows = [slice(j, j + _ROW_BLOCK) for j in range(0, n_atoms, _ROW_BLOCK)]

        def transform(item):
            row, (_, l, m, q), (_, l_other, m_other, q_other) = item
            if two_species:
                l_other = -1
            plan, grid = tools.get()
            core.wave_grid(
                place_k,
                *(y_mk[m], u_qk[q], l),
                *(y_mk[m_other], u_qk[q_other], l_other),
                field_sk,
                grid.ravel(),
            )
            plan.execute(grid, out=value_tj[row])
            tools.put((plan, grid))

        for start in range(0, tasks.shape[1], batch):
            part = tasks[:, start : start + batch]
            thread_map(
                transform, zip(range(batch), *part.tolist(), strict=False), n_threads
            )
            places = np.ascontiguousarray(part[:, :, [0, 2, 3]])

            def expand(row, places=places):
                values = value_tj[: places.shape[1], row]
                expansion = self.modes.expansion
                core.add_transforms(values, *places, expansion, out_jamn[row])

            thread_map(expand, rows, n_threads)


def _finufft():
    """The package, imported when first needed.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import finufft
    except ImportError as error:
        raise ImportError(
            "the non-uniform Fourier transforms of large periodic frames need finufft "
            "(pip install finufft); the methods 'split' and 'waves' do without"
        ) from error
    return finufft


def _fine_size(size, upsampling, width):
    """Points of finufft's fine grid: the next even product of 2, 3 and 5."""
    n = max(math.ceil(upsampling * size), 2 * width)
    n += n % 2
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 2


@lru_cache(maxsize=256)
def _padded_size(size, upsampling, width):
    """Odd size from this one on with the fastest fine grid, and the size of that."""
    choices = [(n, _fine_size(n, upsampling, width)) for n in range(size, size + 16, 2)]
    return min(choices, key=lambda c: c[1] * (1.5 if c[1] in _SLOW_SIZES else 1.0))


def transform_sizes(top, accuracy, n_targets):
    """Grid of the fastest transform.

    Parameters
    ----------
    top : sequence (3,) of int
        Largest indices of the wave vectors.
    accuracy : float
        Relative.
    n_targets : int

    Returns
    -------
    sizes : tuple of int
        Odd.
    cost : float
        Of one transform in microseconds on one core.
    upsampling : float
    """
    digits = -math.log10(accuracy)
    choices = []
    for upsampling in (2.0, 1.25):
        if upsampling < 2.0 and accuracy < _FINEST_LITTLE:
            continue
        # Width of the kernel, as finufft takes it.
        if upsampling == 2.0:
            width = math.ceil(digits) + 1
        else:
            decay = math.pi * math.sqrt(1 - 1 / upsampling) / math.log(10.0)
            width = math.ceil(digits / decay) + 1
        pairs = [_padded_size(2 * int(t) + 1, upsampling, width) for t in top]
        points = math.prod(fine for _, fine in pairs)
        each = _COST_FFT if points < _LARGE_GRID else _COST_FFT_LARGE
        cost = each * points * math.log2(points) + _COST_KERNEL * n_targets * width**3
        choices.append((cost, tuple(size for size, _ in pairs), upsampling))
    cost, sizes, upsampling = min(choices)
    return sizes, cost, upsampling


def wave_count(volume, limit):
    """About how many wave vectors half of a sphere has.

    Parameters
    ----------
    volume : float
        Of the cell in Å³.
    limit : float
        Largest wave number in 1/Å.

    Returns
    -------
    float
    """
    return volume * limit**3 / (12 * math.pi**2)


def product_cost(n_atoms, n_species, n_columns, volume, limit, tolerance):
    """Estimated cost of :class:`ProductSum` in microseconds on one core.

    Parameters
    ----------
    n_atoms, n_species : int
    n_columns : float
        Harmonics times radial modes.
    volume : float
        In Å³.
    limit : float
        Largest wave number in 1/Å.
    tolerance : float

    Returns
    -------
    float
    """
    n_waves = wave_count(volume, limit)
    product = n_waves * n_atoms * n_species * n_columns
    waves = _COST_PRODUCT * 1e-6 * product + _COST_COLUMN * n_waves * n_columns
    return waves + _COST_PHASE * n_waves * n_atoms * n_species


def transform_cost(n_atoms, n_species, n_columns, volume, limit, tolerance):
    """Estimated cost of :class:`TransformSum`, see :func:`product_cost`."""
    top = math.floor(volume ** (1 / 3) * limit / (2 * math.pi))
    # The norm of what is transformed is a few times the scale.
    accuracy = max(0.3 * _TRANSFORM_SHARE * tolerance, _FINEST)
    _, each, _ = transform_sizes((top, top, top), accuracy, n_atoms)
    each += _COST_GRID * (2 * top + 1) ** 3 + _COST_EXPANSION * n_atoms
    return (0.5 * n_species * n_columns + 4.0) * (each + _COST_CALL)
