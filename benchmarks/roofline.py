"""Rates of the two loops that take the time, beside what the machine can do.

The matrix products of a periodic potential are compared with bare products of the
same shapes, taken in turn; the pair loop with the roof that follows from its counted
operations and bytes and from bandwidths measured in the same process. All runs on
one thread. ``docs/performance.md`` derives the counts.

Written: ``roofline.csv``, ``roofline.md``, ``roofline.pdf`` and ``roofline.png``, and
on request the generated block of a page with the figure beside it.
"""

import math
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import vesin
from numba import njit

from benchmarks.cases import system_frames
from benchmarks.codes import DENSITY, L_MAX, N_MAX, RADIUS
from benchmarks.report import (
    COLORS,
    axes_of,
    closed,
    digits,
    provenance,
    save,
    write_block,
)
from lode import GaussianDensity, PowerLawPotential, RadialBasis, SphericalExpansion
from lode.core import expansion as core
from lode.expansion import ShiftedCosineCutoff
from lode.expansion import _halves as halves
from lode.expansion import _Sources as Sources
from lode.files import replacement, write_table
from lode.parallel import single_threaded_blas
from lode.radial import pair_table
from lode.systems import systems
from lode.waves import ProductSum

COLUMNS = (
    # machine, product or pairs.
    "part",
    # Frame or level of memory.
    "case",
    # Loop; of the pairs the level whose roof it is, or one step alone.
    "what",
    # Calls of dgemm, or pairs.
    "count",
    # Median for all of them.
    "seconds",
    # Floating-point operations and bytes of all of them.
    "operations",
    "bytes",
    # Bytes of what is read again and again: arrays, a table, two factors.
    "working_set",
    "gflops",
    "gbytes_s",
    # Operations per byte.
    "intensity",
    # GF/s that the level and the peak allow.
    "roof_gflops",
    # Of dgemm's rate, or of the roof.
    "share",
)

_SMEARING = 1.0
_TOLERANCE = 1e-6
_WATER_RADIUS = 6.0
# Shortest measured stretch in seconds. Where others share the machine the time of the
# processor may stand still for tens of microseconds.
_SHORTEST = 0.01
# Centres that the library expands at a time.
_RUN = 64
# Centres and wave vectors of a product by which dgemm is fastest.
_DGEMM_ROWS = 256
_DGEMM_WAVES = 512
# Taken if the system does not tell its caches.
_LEVELS = (32 * 2**10, 2**20, 32 * 2**20)


# Sums in any order, else such a loop is not vectorised. Four streams: the additions of
# one wait for each other.
@njit(cache=True, fastmath={"contract", "reassoc", "nsz"})
def _read(a_sx, n_times):
    """Sum over an array of four rows, several times."""
    total = 0.0
    for _ in range(n_times):
        s, t, u, v = 0.0, 0.0, 0.0, 0.0
        for x in range(a_sx.shape[1]):
            s += a_sx[0, x]
            t += a_sx[1, x]
            u += a_sx[2, x]
            v += a_sx[3, x]
        total = 0.5 * total + (s + t + u + v)
    return total


@njit(cache=True, fastmath={"contract"})
def _triad(a, b, c, n_times):
    """Write b + s c to a, several times."""
    for i in range(n_times):
        s = 1.0 / (i + 1.0)
        for x in range(a.shape[0]):
            a[x] = b[x] + s * c[x]


# Not cached: the cache would not see that the kernels of the other file changed.
@njit(error_model="numpy", fastmath={"contract"})
def _radial_step(table, interval_p, t_p, f_pc):
    """Radial functions of all pairs, a batch after the other to the same place."""
    table_rc = table.reshape((-1, table.shape[2]))
    for p in range(interval_p.shape[0]):
        place = p % f_pc.shape[0]
        core._lane_horner(table_rc, 8 * interval_p[p], t_p[p], f_pc, place)


@njit(error_model="numpy", fastmath={"contract"})
def _angular_step(n_pairs, unit_xp, l_max, factors, y_mp):
    """Harmonics of one batch, as often as there are whole batches."""
    for _ in range(n_pairs // y_mp.shape[1]):
        for p in range(0, y_mp.shape[1], core.LANES):
            core._lane_harmonics(unit_xp, p, l_max, factors, y_mp)


@njit(error_model="numpy")
def _sum_step(start_ja, y_mp, f_pc, l_max, out_jamn):
    """Sums of the products of one batch, over the runs of the pairs."""
    n_species, n_lm = out_jamn.shape[1:3]
    out_rn = out_jamn.reshape((-1, out_jamn.shape[3]))
    batch = f_pc.shape[0]
    for j in range(out_jamn.shape[0]):
        first = start_ja[j * n_species]
        for low in range(first, start_ja[(j + 1) * n_species], batch):
            for a in range(n_species):
                start = max(start_ja[j * n_species + a] - low, 0)
                stop = min(start_ja[j * n_species + a + 1] - low, batch)
                if start < stop:
                    row = (j * n_species + a) * n_lm
                    core._add_products(out_rn, row, y_mp, f_pc, l_max, start, stop)


def cache_sizes():
    """Bytes of the data caches of the first core, by level; guessed if unknown."""
    sizes = dict(enumerate(_LEVELS, 1))
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (folder / "type").read_text().strip() != "Instruction":
            level = int((folder / "level").read_text())
            size = (folder / "size").read_text().strip()
            unit = {"K": 2**10, "M": 2**20}.get(size[-1], 1)
            sizes[level] = unit * int(size.rstrip("KM"))
    return sizes


def harmonic_operations(l_max):
    """Floating-point operations of all harmonics of one unit vector.

    Two to begin; for each m a start, two values and a rotation, together nine; for
    each l > m four of the recurrence and two values.
    """
    return 2 + 9 * (l_max + 1) + 6 * (l_max * (l_max + 1) // 2)


def pair_operations(l_max, width):
    """Floating-point operations of one pair.

    Parameters
    ----------
    l_max : int
    width : int
        Radial functions, padded.

    Returns
    -------
    dict of str to int
        Of the length and unit vector, the place in the table, the harmonics, the
        radial functions and their products. Square root and division count as one.
    """
    return {
        "unit vector": 10,
        "place": 4,
        "harmonics": harmonic_operations(l_max),
        "radial functions": 14 * (l_max + 1) * width,
        "products": 2 * (l_max + 1) ** 2 * width,
    }


def smoothing_operations(l_max, width):
    """Further operations of a pair in the smooth part of a cutoff; a cosine is one."""
    return 7 + (l_max + 1) * width


def table_bytes(l_max, width):
    """Bytes of the table that one pair reads: eight coefficients of each column."""
    return 8 * 8 * (l_max + 1) * width


def pair_bytes(l_max, width):
    """Bytes that one pair reads and writes, wherever they live.

    Parameters
    ----------
    l_max : int
    width : int
        Radial functions, padded to a multiple of four.

    Returns
    -------
    dict of str to int
        Of the table, the vector and unit vector, the harmonics and the radial
        functions, each read by the product as often as its tiles ask for.
    """
    n_y, n_c = (l_max + 1) ** 2, (l_max + 1) * width
    tiles = sum(-(-(2 * l + 1) // core._ROWS) for l in range(l_max + 1))
    return {
        "table": table_bytes(l_max, width),
        # Vector, unit vector and length: read, written, read again.
        "unit vector": 8 * (3 + 4 + 4),
        # Of m = 0 both parts are written.
        "harmonics written": 8 * (l_max + 1) * (l_max + 2),
        "harmonics read": 8 * n_y * -(-width // 8),
        "radial functions written": 8 * n_c,
        "radial functions read": 8 * tiles * width,
    }


def run_bytes(l_max, width):
    """Bytes of the coefficients, read and written once for a run of pairs."""
    return 2 * 8 * (l_max + 1) ** 2 * width


@dataclass(frozen=True)
class PairLoop:
    """Arguments of :func:`lode.core.expansion.add_pairs` for one frame.

    Attributes
    ----------
    found : tuple of ndarray
        Of :func:`lode.core.expansion.sorted_pairs`.
    settings : tuple
        The arguments between the pairs and the coefficients.
    shape : tuple of int
        Of the coefficients.
    """

    found: tuple
    settings: tuple
    shape: tuple

    def add(self, out_jamn):
        """Add all pairs to the coefficients, as the library does."""
        core.add_pairs(*self.found, *self.settings, out_jamn)

    @property
    def count(self):
        """Number of pairs."""
        return len(self.found[1])

    @property
    def table(self):
        """Coefficients of the polynomials."""
        return self.settings[0]

    @property
    def smoothed(self):
        """Number of pairs in the smooth part of the cutoff."""
        cutoff, width = self.settings[5:7]
        lengths = np.linalg.norm(self.found[1], axis=1)
        return int((lengths > cutoff - width).sum())

    @property
    def runs(self):
        """Number of products: a batch of pairs of one centre and one species."""
        start_ja = self.found[0]
        n_species = self.shape[1]
        count = 0
        for j in range(self.shape[0]):
            bounds = (
                start_ja[j * n_species : (j + 1) * n_species + 1]
                - start_ja[j * n_species]
            )
            for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
                if stop > start:
                    batch = core._BATCH
                    count += int((stop - 1) // batch - start // batch) + 1
        return count

    @property
    def operations(self):
        """Floating-point operations of all pairs."""
        sizes = self.settings[-1], self.shape[-1]
        each = sum(pair_operations(*sizes).values())
        return self.count * each + self.smoothed * smoothing_operations(*sizes)

    def steps(self):
        """The three steps that all pairs share, each alone, on the same pairs.

        Yields
        ------
        name : str
        function, arguments
            The step of all pairs.
        operations, bytes : int
            Per pair; of the radial functions the table's bytes.
        """
        table, step = self.settings[:2]
        l_max, width = self.settings[-1], self.shape[-1]
        place_p = np.linalg.norm(self.found[1], axis=1) / step
        interval_p = np.minimum(place_p.astype(np.int64), len(table) - 1)
        t_p = 2.0 * (place_p - interval_p) - 1.0
        batch = core._BATCH
        f_pc = np.ones((batch, table.shape[2]))
        y_mp = np.ones(((l_max + 1) ** 2, batch))
        unit_xp = np.full((3, batch), math.sqrt(1 / 3))
        factors = core.harmonic_factors(l_max)
        out_jamn = np.zeros(self.shape)
        each, moved = pair_operations(l_max, width), pair_bytes(l_max, width)
        for name, function, arguments, size in (
            ("radial functions", _radial_step, (table, interval_p, t_p, f_pc), "table"),
            (
                "harmonics",
                _angular_step,
                (self.count, unit_xp, l_max, factors, y_mp),
                "harmonics written",
            ),
        ):
            yield name, function, arguments, each[name], moved[size]
        read = moved["harmonics read"] + moved["radial functions read"]
        read += self.runs * run_bytes(l_max, width) / self.count
        arguments = (self.found[0], y_mp, f_pc, l_max, out_jamn)
        yield "products", _sum_step, arguments, each["products"], read

    @property
    def table_bytes(self):
        """Bytes that all pairs read from the table."""
        return self.count * table_bytes(self.settings[-1], self.shape[-1])

    @property
    def all_bytes(self):
        """Bytes that all pairs read and write."""
        l_max, width = self.settings[-1], self.shape[-1]
        each = sum(pair_bytes(l_max, width).values())
        smooth = 2 * 8 * (l_max + 1) * width
        runs = self.runs * run_bytes(l_max, width)
        return self.count * each + self.smoothed * smooth + runs


def potential():
    """The expansion of a potential whose parts are measured."""
    return SphericalExpansion(
        PowerLawPotential(1, _SMEARING),
        RadialBasis.gto(N_MAX, RADIUS),
        L_MAX,
        tolerance=_TOLERANCE,
        method="split",
    )


def density():
    """The expansion of a density whose pairs are measured."""
    return SphericalExpansion(
        GaussianDensity(DENSITY),
        RadialBasis.gto(N_MAX, _WATER_RADIUS),
        L_MAX,
        cutoff_function=ShiftedCosineCutoff(_WATER_RADIUS, 0.5),
        tolerance=_TOLERANCE,
    )


def gas(n_atoms):
    """A frame of the charge gas, 64 charges in a cube of 14 Å."""
    return system_frames("gas", n_atoms, 1)[0]


def water():
    """A box of 32 molecules."""
    return system_frames("water", 96, 1)[0]


def _checked(expansion, frame):
    """System, sources, number of species and splitting width of a frame."""
    (system,) = systems(frame)
    used, (species_i,) = expansion.species_of([system])
    split = None
    if expansion.field.long_range:
        _, split = expansion.path(len(system), len(used), system.volume)
    return system, Sources(species_i, np.empty(0)), len(used), split


def pair_loop(expansion, frame):
    """The pair loop of a periodic frame.

    Parameters
    ----------
    expansion : SphericalExpansion
    frame : ase.Atoms

    Returns
    -------
    PairLoop
    """
    system, sources, n_species, split = _checked(expansion, frame)
    cutoff = expansion.cutoff_function
    table = pair_table(
        expansion.field,
        expansion.basis,
        expansion.max_angular,
        expansion.tolerance,
        split,
        limit=None if cutoff is None else cutoff.radius,
    )
    limit, settings = expansion._pair_settings(table)
    neighbors = vesin.NeighborList(cutoff=limit, full_list=False)
    first, second, vector = neighbors.compute(
        system.positions, system.cell, system.periodic, "ijD"
    )
    found = core.sorted_pairs(
        first.astype(np.int64),
        second.astype(np.int64),
        vector,
        limit,
        sources.species_i,
        sources.charge_i,
        len(system),
        n_species,
    )
    l_max = expansion.max_angular
    width = table.coefficients.shape[2] // (l_max + 1)
    return PairLoop(found, settings, (len(system), n_species, (l_max + 1) ** 2, width))


def wave_sum(expansion, frame):
    """What makes the sum over the wave vectors of a periodic frame.

    Parameters
    ----------
    expansion : SphericalExpansion
        Of a potential.
    frame : ase.Atoms

    Returns
    -------
    callable
        Makes a ProductSum.
    """
    system, sources, n_species, split = _checked(expansion, frame)
    field = halves(expansion, split)
    arguments = (field.smooth, field.modes, expansion.max_angular)
    return partial(ProductSum, system, sources, n_species, *arguments)


def _runs(n):
    """First and number of the centres that the library expands at a time."""
    return [(first, min(_RUN, n - first)) for first in range(0, n, _RUN)]


# As above, not cached.
@njit(error_model="numpy")
def product_step(bounds, n, even_ajk, odd_ajk, even_kc, odd_kc, even_ajc, odd_ajc):
    """The products of :func:`lode.core.expansion.add_waves`, of known left factors.

    Parameters
    ----------
    bounds : ndarray (n_chunks, 2) of int
        First and last + 1 of the wave vectors that are taken at a time.
    n : int
        Number of centres.
    even_ajk, odd_ajk, even_kc, odd_kc, even_ajc, odd_ajc
        As there.
    """
    for start, stop in bounds:
        for row in range(0, n, core._CENTERS):
            rows = min(core._CENTERS, n - row)
            for a in range(even_ajk.shape[0]):
                place = (start, stop, row, rows)
                core.add_product(even_ajk[a], even_kc, *place, even_ajc[a])
                core.add_product(odd_ajk[a], odd_kc, *place, odd_ajc[a])


def chunks(columns):
    """Wave vectors that are taken at a time, see :func:`product_step`."""
    ends, bounds, start = np.cumsum(columns[:, 3]), [], 0
    for end in ends:
        if end - start >= core._WAVES or end == ends[-1]:
            bounds.append((start, end))
            start = end
    return np.array(bounds)


def _multiply(n, n_k, n_species, lefts, rights, outs):
    """Bare products, and nothing else, in the shapes that suit dgemm best."""
    for row in range(0, n, _DGEMM_ROWS):
        rows = min(_DGEMM_ROWS, n - row)
        for start in range(0, n_k, _DGEMM_WAVES):
            stop = min(start + _DGEMM_WAVES, n_k)
            for left_jk, right_kc, out_jc in zip(lefts, rights, outs, strict=True):
                left, right = left_jk[:rows, : stop - start], right_kc[start:stop]
                for _ in range(n_species):
                    np.matmul(left, right, out=out_jc[:rows])


def _seconds(function, *arguments, n_times=1):
    """Time of the processor for a call: other work on the machine does not enter."""
    start = time.thread_time()
    for _ in range(n_times):
        function(*arguments)
    return (time.thread_time() - start) / n_times


def _long_enough(seconds_of):
    """Number of calls whose time can be measured; ``seconds_of(n)`` is that of n."""
    n_times = 1
    while (seconds := seconds_of(n_times)) < _SHORTEST / 2:
        n_times *= 2
    return max(1, round(n_times * _SHORTEST / seconds))


def _row(part, case, what, **values):
    row = dict.fromkeys(COLUMNS) | {"part": part, "case": case, "what": what} | values
    if row["operations"] is not None:
        row["gflops"] = 1e-9 * row["operations"] / row["seconds"]
        if row["bytes"] is not None:
            row["intensity"] = row["operations"] / row["bytes"]
    if row["bytes"] is not None:
        row["gbytes_s"] = 1e-9 * row["bytes"] / row["seconds"]
    return row


def _peak_row(order, n_repeats):
    """Rate of a large square product: the practical peak."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, order, order))
    out = np.empty((order, order))
    multiply = partial(np.matmul, left, right, out)
    multiply()
    n_times = _long_enough(lambda n: n * _seconds(multiply, n_times=n))
    seconds = [_seconds(multiply, n_times=n_times) for _ in range(n_repeats)]
    return _row(
        "machine",
        f"dgemm {order}",
        "peak",
        count=1,
        seconds=statistics.median(seconds),
        operations=2 * order**3,
        working_set=3 * 8 * order**2,
    )


def _aligned(n_rows, size):
    """Ones of some bytes in all; each row begins with a line of the cache."""
    length = max(1, size // (64 * n_rows)) * 8
    room = np.ones(n_rows * length + 8)
    start = -room.ctypes.data % 64 // 8
    return room[start : start + n_rows * length].reshape(n_rows, length)


def bandwidths(case, size, n_repeats):
    """Bandwidths of loops over arrays of some bytes in all.

    Parameters
    ----------
    case : str
    size : int
        Bytes of all arrays together.
    n_repeats : int

    Returns
    -------
    list of dict
        Rows for a sum over one array and for a = b + s c.
    """
    a_sx = _aligned(4, size)
    a, b, c = b_sx = _aligned(3, size)
    rows = []
    for what, function, arrays, each in (
        ("read", _read, (a_sx,), a_sx.nbytes),
        ("triad", _triad, (a, b, c), b_sx.nbytes),
    ):
        function(*arrays, 1)
        many = partial(_seconds, function, *arrays)
        n_times = _long_enough(many)
        seconds = [many(n_times) for _ in range(n_repeats)]
        rows.append(
            _row(
                "machine",
                case,
                what,
                count=n_times,
                # The fastest: a roof is what the machine can do.
                seconds=min(seconds),
                bytes=n_times * each,
                working_set=each,
            )
        )
    return rows


def _product_rows(n_atoms, n_repeats):
    """Bare products, ours, ours with their left factors, and the whole step."""
    make = wave_sum(potential(), gas(n_atoms))
    waves = make()
    (((reciprocal, lines, top), structure, columns),) = waves.blocks
    n, (n_species, _) = len(waves.positions), structure[0].shape
    n_k = len(waves.k_kx)
    widths = [part.shape[1] - core.LANES for part in columns]
    outs = [np.zeros((n_species, _RUN, width)) for width in widths]
    bounds = chunks(waves.columns)
    most = max(stop - start for start, stop in bounds)
    rng = np.random.default_rng(0)
    lefts = [rng.normal(size=(n_species, core._CENTERS, most)) for _ in widths]
    few = min(n, _DGEMM_ROWS), min(n_k, _DGEMM_WAVES)
    bare = (
        [rng.normal(size=few) for _ in widths],
        [np.ascontiguousarray(p[:, :w]) for p, w in zip(columns, widths, strict=True)],
        [np.empty((few[0], width)) for width in widths],
    )
    out_jamn = np.zeros((n, n_species, (L_MAX + 1) ** 2, N_MAX))

    def products():
        for _, rows in _runs(n):
            product_step(bounds, rows, *lefts, *columns, *outs)

    def with_phases():
        for first, rows in _runs(n):
            positions = waves.positions[first : first + rows]
            phases = core.axis_phases(positions, reciprocal, top)
            core.add_waves(phases, lines, top, *structure, *columns, *outs)

    def whole():
        fresh = make()
        for first, rows in _runs(n):
            fresh.add(out_jamn[first : first + rows], first)

    loops = {
        "dgemm": partial(_multiply, n, n_k, n_species, *bare),
        "products": products,
        "with phases": with_phases,
        "whole": whole,
    }
    # Of few atoms they take too short a time.
    n_times = max(1, 1024 // n)
    seconds = []
    for repeat in range(-1, n_repeats):
        # In turn, and not always the same one first.
        names = list(loops)[:: 1 if repeat % 2 else -1]
        times = {name: _seconds(loops[name], n_times=n_times) for name in names}
        # The first round is left out: it compiles and fills caches.
        if repeat >= 0:
            seconds.append(times)
    # Each factor once, and the result, of every product.
    small = len(bounds) * -(-n // core._CENTERS)
    sides = n * n_k * len(widths) + -(-n // core._CENTERS) * n_k * sum(widths)
    moved = 8 * n_species * (sides + 2 * n * len(bounds) * sum(widths))
    return [
        _row(
            "product",
            f"gas-{n}",
            name,
            count=small * n_species * len(widths),
            seconds=statistics.median(s[name] for s in seconds),
            operations=2 * n_species * n * n_k * sum(widths),
            bytes=moved,
            working_set=8 * (core._CENTERS * most + most * max(widths)),
            share=statistics.median(s["dgemm"] / s[name] for s in seconds),
        )
        for name in loops
    ]


def _pair_rows(case, loop, machine, n_repeats):
    """The pair loop and its two roofs.

    Parameters
    ----------
    case : str
    loop : PairLoop
    machine : list of dict
        Peak and bandwidths.
    n_repeats : int
    """
    out_jamn = np.zeros(loop.shape)
    loop.add(out_jamn)
    n_times = _long_enough(lambda n: n * _seconds(loop.add, out_jamn, n_times=n))
    seconds = statistics.median(
        _seconds(loop.add, out_jamn, n_times=n_times) for _ in range(n_repeats)
    )
    peak = next(r["gflops"] for r in machine if r["what"] == "peak")
    table = bandwidths(f"table {case}", loop.table.nbytes, n_repeats)
    near = [r for r in machine if r["case"] == "level 1"]
    rows = [table[0]]
    size = loop.table.nbytes
    parts = [
        ("table", seconds, loop.operations, loop.table_bytes, table[:1], size),
        ("level 1", seconds, loop.operations, loop.all_bytes, near, None),
    ]
    for name, function, arguments, operations, moved in loop.steps():
        function(*arguments)
        alone = statistics.median(
            _seconds(function, *arguments, n_times=n_times) for _ in range(n_repeats)
        )
        whole = (loop.count * operations, loop.count * moved)
        level = (table[:1], size) if name == "radial functions" else (near, None)
        parts.append((name, alone, *whole, *level))
    for what, time_of, operations, moved, levels, size in parts:
        row = _row(
            "pairs",
            case,
            what,
            count=loop.count,
            seconds=time_of,
            operations=operations,
            bytes=moved,
            working_set=size,
        )
        bandwidth = max(r["gbytes_s"] for r in levels)
        row["roof_gflops"] = min(peak, bandwidth * row["intensity"])
        row["share"] = row["gflops"] / row["roof_gflops"]
        rows.append(row)
    return rows


def rows(n_repeats, n_atoms=(64, 512, 2048), order=1024, largest=None):
    """All measurements, on one thread.

    Parameters
    ----------
    n_repeats : int
    n_atoms : sequence of int
        Frames whose products are measured.
    order : int
        Of the square product that gives the peak.
    largest : int, optional
        Bytes of the arrays that stand for the memory; by default twice the last
        cache, from 64 MB to 1 GB.

    Returns
    -------
    list of dict
        With the keys ``COLUMNS``.
    """
    sizes = cache_sizes()
    if largest is None:
        largest = min(max(2 * max(sizes.values()), 2**26), 2**30)
    with single_threaded_blas():
        found = [_peak_row(order, n_repeats)]
        # Half of a cache: the rest is for others.
        found += bandwidths("level 1", sizes[1] // 2, n_repeats)
        found += bandwidths("level 2", sizes[2] // 2, n_repeats)
        found += bandwidths("memory", largest, n_repeats)
        machine = list(found)
        frames = {
            "gas": (potential(), gas(64).repeat(2)),
            "water": (density(), water()),
        }
        for case, of_frame in frames.items():
            found += _pair_rows(case, pair_loop(*of_frame), machine, n_repeats)
        for n in n_atoms:
            found += _product_rows(n, n_repeats)
    return found


def write(folder, n_repeats=15, page=None, **sizes):
    """Measure, and write ``roofline.csv``, ``roofline.md`` and the plots.

    Parameters
    ----------
    folder : path_like
    n_repeats : int
    page : path_like, optional
        Page whose generated block is replaced; ``roofline.png`` is put beside it.
    **sizes
        Other arguments of :func:`rows`.

    Returns
    -------
    list of dict
        The rows.
    """
    folder = Path(folder)
    found = rows(n_repeats, **sizes)
    table = [[digits(row[name]) for name in COLUMNS] for row in found]
    write_table(folder / "roofline.csv", COLUMNS, table)
    block = tables(found)
    with replacement(folder / "roofline.md") as path:
        head = "# Rates and roofs\n\nMade by `benchmarks/roofline.py`, which says how."
        path.write_text(f"{head}\n\n{block}\n", encoding="utf-8")
    _plot(folder / "roofline", found)
    if page is not None:
        page = Path(page)
        # Pages of a site cannot show what lies outside its folder.
        with replacement(page.with_name("roofline.png")) as path:
            path.write_bytes((folder / "roofline.png").read_bytes())
        block += "\n\n![Rates of the loops beside the roofs](roofline.png)"
        write_block(page, block)
    return found


def tables(found):
    """Markdown of the rows.

    Parameters
    ----------
    found : list of dict

    Returns
    -------
    str
    """
    lines = [
        f"{provenance()}. One thread; "
        "medians, bandwidths of the "
        "fastest of the repeats.",
        "",
    ]
    peak = next(r for r in found if r["what"] == "peak")
    lines += [f"The peak, {peak['case']}: {peak['gflops']:.1f} GF/s.", ""]
    lines += _markdown(
        ("arrays in", "size", "read, GB/s", "triad, GB/s"),
        (
            (r["case"], _size(r["working_set"]), f"{r['gbytes_s']:.0f}", other)
            for r, other in _levels(found)
        ),
    )
    lines += [
        "",
        "Matrix products of the charge gas, and dgemm of the same shapes in turn:",
        "",
    ]
    titles = {
        "dgemm": "dgemm alone",
        "products": "products and their sums",
        "with phases": "the same, left factors made too",
        "whole": "whole step: waves, columns, products, expansion",
    }
    lines += _markdown(
        ("frame", "what", "products", "ms", "GF/s", "share of dgemm"),
        (
            (
                r["case"],
                titles[r["what"]],
                r["count"],
                f"{1e3 * r['seconds']:.3g}",
                f"{r['gflops']:.1f}",
                f"{r['share']:.0%}",
            )
            for r in found
            if r["part"] == "product"
        ),
    )
    for words, levels in (
        ("The pair loop, and the roof that each level of memory sets:", True),
        ("Its steps alone, on the same pairs:", False),
    ):
        lines += ["", words, ""]
        lines += _pair_table(found, levels, peak["gflops"])
    return "\n".join(lines)


def _pair_table(found, levels, peak):
    """Rows of the whole loop for each level, or of its steps."""
    header = (
        "frame",
        "level" if levels else "step",
        "pairs",
        "ns a pair",
        "operations a pair",
        "bytes a pair",
        "GF/s",
        "GB/s",
        "operations a byte",
        "roof, GF/s",
        "its limit",
        "share of the roof",
    )
    cells = []
    for r in found:
        whole = r["what"] in ("table", "level 1")
        if r["part"] != "pairs" or whole != levels:
            continue
        name = r["what"]
        if name == "table":
            name += f", {_size(r['working_set'])}"
        cells.append(
            (
                r["case"],
                name,
                r["count"],
                f"{1e9 * r['seconds'] / r['count']:.1f}",
                f"{r['operations'] / r['count']:.0f}",
                f"{r['bytes'] / r['count']:.0f}",
                f"{r['gflops']:.1f}",
                f"{r['gbytes_s']:.0f}",
                f"{r['intensity']:.2f}",
                f"{r['roof_gflops']:.1f}",
                "memory" if r["roof_gflops"] < peak else "arithmetic",
                f"{r['share']:.0%}",
            )
        )
    return _markdown(header, cells)


def _levels(found):
    """Rows of reading, and the words for the triad over as large arrays."""
    triads = {r["case"]: f"{r['gbytes_s']:.0f}" for r in found if r["what"] == "triad"}
    return [(r, triads.get(r["case"], "")) for r in found if r["what"] == "read"]


def _markdown(header, cells):
    lines = [header, ["---"] * len(header), *cells]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def _size(number):
    unit, name = (2**20, "MiB") if number >= 2**20 else (2**10, "KiB")
    return f"{number / unit:.3g} {name}"


def _plot(path, found):
    """Rate against intensity, below the roofs."""
    peak = next(r["gflops"] for r in found if r["what"] == "peak")
    figure, axes = axes_of(1, 1, figsize=(6.4, 4.4))
    x_min, x_max = 0.05, 100.0
    styles = {"level 1": "-", "level 2": "--", "memory": ":"}
    names = {"level 1": "first-level cache", "level 2": "second-level cache"}
    for (case, style), color in zip(styles.items(), COLORS[2:], strict=False):
        bandwidth = max(r["gbytes_s"] for r in found if r["case"] == case)
        label = f"{names.get(case, case)}, {bandwidth:.0f} GB/s"
        # Up to where it meets the peak.
        ends = np.array([x_min, peak / bandwidth])
        axes.loglog(ends, bandwidth * ends, style, color=color, label=label)
    axes.axhline(peak, color="black", label=f"peak, {peak:.0f} GF/s")
    markers = iter("osD^v<>")
    for case in dict.fromkeys(r["case"] for r in found if r["part"] == "pairs"):
        marker = next(markers)
        for what, filled in (("table", COLORS[1]), ("level 1", "none")):
            row = next(
                r
                for r in found
                if (r["part"], r["case"], r["what"]) == ("pairs", case, what)
            )
            bytes_of = "table's bytes" if what == "table" else "all bytes"
            axes.plot(
                *(row["intensity"], row["gflops"], marker),
                color=COLORS[1],
                markerfacecolor=filled,
                label=f"pairs, {case}, {bytes_of}",
            )
    for row in found:
        if row["part"] == "product" and row["what"] == "with phases":
            axes.plot(
                *(row["intensity"], row["gflops"], next(markers)),
                color=COLORS[0],
                label=f"products, {row['case']}",
            )
    lowest = min(r["gflops"] for r in found if r["part"] != "machine")
    axes.set(
        xlim=(x_min, x_max),
        ylim=(min(1.0, 0.5 * lowest), 2.0 * peak),
        xlabel="intensity / operations per byte",
        ylabel="rate / GF/s",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower right")
    save(figure, path)
    closed(figure)
