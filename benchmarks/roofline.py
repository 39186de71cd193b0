"""Rates of the two loops that take most of the time, on one thread.

The matrix products of the long-range term are timed in turn with those of ``dgemm``;
the share is its time over ours. For the pair loop the time of a pair is given, and for
derivatives that of coefficients and a sweep back beside the coefficients alone.
``docs/performance.md`` says what each of them includes.

Written: ``roofline.csv`` and ``roofline.md``, and on request the generated block of a
page.
"""

import statistics
import time
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cases import system_frames
from benchmarks.codes import DENSITY, L_MAX, N_MAX, RADIUS, gradient_weights
from benchmarks.report import digits, provenance, write_block
from lode import (
    GaussianDensity,
    PowerLawPotential,
    RadialBasis,
    ShiftedCosineCutoff,
    SphericalExpansion,
    reciprocal,
)
from lode.core.pairs import add_pairs
from lode.core.reciprocal import WaveVectors, add_products
from lode.core.registers import aligned_zeros
from lode.files import atomic_write
from lode.parallel import single_threaded_blas
from lode.systems import structures
from workflows.scripts.csv_tables import write_table

# Frame and loop; multiply-adds of the products, or pairs; median time of all of them;
# share of dgemm's rate, median over the rounds.
COLUMNS = ("case", "what", "count", "seconds", "share")
POTENTIAL = SphericalExpansion(
    PowerLawPotential(1, 1.0),
    RadialBasis.gto(N_MAX, RADIUS),
    L_MAX,
    tolerance=1e-6,
    method="split",
)
SOAP = SphericalExpansion(
    GaussianDensity(DENSITY),
    RadialBasis.gto(N_MAX, 6.0),
    L_MAX,
    cutoff_function=ShiftedCosineCutoff(6.0, 0.5),
    tolerance=1e-6,
)

# Shortest measured stretch in seconds. Where others share the machine the time of the
# processor may stand still for tens of microseconds.
_SHORTEST = 0.01
# Centres and wave vectors of a product by which dgemm is fastest.
_DGEMM_CENTERS = 256
_DGEMM_WAVES = 512
# Scalars that one sweep derives.
_MANY = 16
# Sums that are swept back, and how: system, number of atoms, method; whether many
# scalars are too.
_SWEEPS = {
    "pairs, SOAP within 6 Å": ("water", 96, "soap", True),
    "pairs and products": ("gas", 64, "split", True),
    "products": ("gas", 64, "reciprocal", True),
    "pairs and transforms": ("gas", 512, "nufft", False),
}
_TITLES = {
    "dgemm": "`dgemm` alone",
    "products": "products, left factors made too",
    "whole step": "whole step: wave vectors, columns, products, expansion",
}


def plan(expansion, frame):
    """System, sources and terms by which the library expands a periodic frame."""
    inputs = structures(frame)
    species, channel_i = expansion.channels(inputs)
    evaluator = expansion._evaluator(inputs[0], channel_i, len(species), 1)
    return inputs[0], evaluator.sources, evaluator.terms


def product_calls(term, n_channels):
    """Arguments of ``add_products`` for all centres, as ``ProductTerm.add`` has them.

    The sums of all blocks of centres have the same place, as the library's have.
    """
    space = term.half_space
    shape = n_channels, term.block
    room = [aligned_zeros(*shape, width) for width in term.table.widths]
    calls = []
    for first in range(0, len(term.positions), term.block):
        phase_jxt = term.phases(first, first + term.block)
        sums = [sum_ajc[:, : len(phase_jxt)] for sum_ajc in room]
        found = zip(space.parts, term.columns, term.structure, strict=True)
        for part, columns, structure in found:
            columns = columns or space.columns(part)
            waves = WaveVectors(part[0], space.top_x, *structure, *columns)
            calls.append((phase_jxt, waves, *sums))
    return calls


def pair_calls(term, out_jamn):
    """Arguments of ``add_pairs`` for all centres, as ``PairTerm.add`` has them."""
    settings = term.sources.weight_i, term.radial, term.max_angular
    outs = {
        i: out_jamn[i : i + term.block] for i in range(0, len(out_jamn), term.block)
    }
    return [(term.pairs(i, i + len(out)), *settings, out) for i, out in outs.items()]


def dgemm_calls(term, n_channels):
    """Arguments of ``np.matmul`` for as large products, in pieces that suit it best.

    Columns that only fill up the library's registers are left out.
    """
    n, n_k, n_modes = len(term.positions), len(term.half_space), term.table.n_modes
    columns_l = (2 * np.arange(len(n_modes)) + 1) * n_modes
    rng = np.random.default_rng(0)
    left_jk = rng.normal(size=(min(n, _DGEMM_CENTERS), min(n_k, _DGEMM_WAVES)))
    calls = []
    # Even and odd l.
    for n_columns in (columns_l[::2].sum(), columns_l[1::2].sum()):
        right_kc = rng.normal(size=(n_k, n_columns))
        out_jc = np.empty((len(left_jk), n_columns))
        for row in range(0, n, _DGEMM_CENTERS):
            rows = min(_DGEMM_CENTERS, n - row)
            for start in range(0, n_k, _DGEMM_WAVES):
                right = right_kc[start : start + _DGEMM_WAVES]
                piece = left_jk[:rows, : len(right)], right, out_jc[:rows]
                calls += n_channels * [piece]
    return calls


def whole_step(system, sources, split, out_jamn):
    """Add the long-range term of all centres, of a cell that is not known yet."""
    reciprocal._cached_half_space.cache_clear()
    term = reciprocal.ProductTerm(system, sources, split, n_threads=1)
    for first in range(0, len(system), term.block):
        term.add(out_jamn[first : first + term.block], first)


def _all(function, calls):
    for arguments in calls:
        function(*arguments)


def _seconds(function, n_times):
    """Processor time of some calls: other work on the machine hardly enters."""
    start = time.thread_time()
    for _ in range(n_times):
        function()
    return time.thread_time() - start


def _long_enough(function):
    """Number of calls whose time can be measured."""
    # The first one compiles and fills caches.
    function()
    n_times = 1
    while (seconds := _seconds(function, n_times)) < _SHORTEST / 2:
        n_times *= 2
    return max(1, round(n_times * _SHORTEST / seconds))


def in_turn(loops, n_repeats):
    """Times of loops that are measured in turn.

    Parameters
    ----------
    loops : dict of str to callable
    n_repeats : int
        Rounds.

    Returns
    -------
    dict of str to tuple
        Seconds of a call, and share of the first loop's rate: medians over the rounds.
    """
    n_times = {name: _long_enough(loop) for name, loop in loops.items()}
    rounds = []
    for repeat in range(n_repeats):
        # Not always the same one first.
        names = list(loops)[:: -1 if repeat % 2 else 1]
        rounds.append({n: _seconds(loops[n], n_times[n]) / n_times[n] for n in names})
    first, median = next(iter(loops)), statistics.median
    return {
        n: (median(r[n] for r in rounds), median(r[first] / r[n] for r in rounds))
        for n in loops
    }


def _product_rows(n_atoms, n_repeats):
    (frame,) = system_frames("gas", n_atoms, 1)
    system, sources, (_, term) = plan(POTENTIAL, frame)
    out_jamn = np.zeros((n_atoms, sources.n_channels, (L_MAX + 1) ** 2, N_MAX))
    bare, ours = (f(term, sources.n_channels) for f in (dgemm_calls, product_calls))
    whole = system, sources, term.half_space.split, out_jamn
    loops = {
        "dgemm": partial(_all, np.matmul, bare),
        "products": partial(_all, add_products, ours),
        "whole step": partial(whole_step, *whole),
    }
    count = sum(left.size * right.shape[1] for left, right, _ in bare)
    found = in_turn(loops, n_repeats)
    return [(f"gas-{n_atoms}", what, count, *found[what]) for what in loops]


def _pair_row(case, expansion, frame, n_repeats):
    _, sources, (term, *_) = plan(expansion, frame)
    shape = len(frame), sources.n_channels, (L_MAX + 1) ** 2, N_MAX
    calls = pair_calls(term, np.zeros(shape))
    found = in_turn({"pairs": partial(_all, add_pairs, calls)}, n_repeats)
    count = sum(int(pairs.start_ja[-1] - pairs.start_ja[0]) for pairs, *_ in calls)
    return case, "pairs", count, found["pairs"][0], None


def _sweep_rows(case, n_repeats):
    """Coefficients, and these with the derivatives of one scalar or of many."""
    system, n_atoms, method, has_many = _SWEEPS[case]
    (frame,) = system_frames(system, n_atoms, 1)
    expansion = SOAP if method == "soap" else replace(POTENTIAL, method=method)
    values = expansion.compute(frame, n_threads=1).values
    gradients = gradient_weights((_MANY if has_many else 1, *values.shape))

    def swept(n_scalars, strain):
        expansion.compute(frame, n_threads=1)
        options = {"strain": strain, "n_threads": 1}
        expansion.vjp(frame, gradients[:n_scalars], **options)

    loops = {
        "coefficients": partial(expansion.compute, frame, n_threads=1),
        "positions": partial(swept, 1, False),
        "strain": partial(swept, 1, True),
    }
    if has_many:
        loops[f"{_MANY} scalars"] = partial(swept, _MANY, False)
    found = in_turn(loops, n_repeats)
    return [(f"{case}, {n_atoms}", what, None, *found[what]) for what in loops]


def rows(n_repeats, n_atoms=(64, 512, 2048), sweeps=tuple(_SWEEPS)):
    """All measurements, on one thread.

    Parameters
    ----------
    n_repeats : int
    n_atoms : sequence of int
        Gas frames whose products are measured.
    sweeps : sequence of str
        Of ``_SWEEPS``.

    Returns
    -------
    list of tuple
        Of ``COLUMNS``.
    """
    (gas,), (water,) = system_frames("gas", 64, 1), system_frames("water", 96, 1)
    with single_threaded_blas():
        return [
            *(row for n in n_atoms for row in _product_rows(n, n_repeats)),
            _pair_row("gas", POTENTIAL, gas.repeat(2), n_repeats),
            _pair_row("water", SOAP, water, n_repeats),
            *(row for case in sweeps for row in _sweep_rows(case, n_repeats)),
        ]


def write(folder, n_repeats=15, page=None, **sizes):
    """Measure, and write ``roofline.csv`` and ``roofline.md``.

    Parameters
    ----------
    folder : path_like
    n_repeats : int
    page : path_like, optional
        Page whose generated block is replaced.
    **sizes
        Other arguments of :func:`rows`.
    """
    folder = Path(folder)
    found = rows(n_repeats, **sizes)
    table = [[digits(cell) for cell in row] for row in found]
    write_table(folder / "roofline.csv", COLUMNS, table)
    block = tables(found)
    with atomic_write(folder / "roofline.md") as path:
        head = (
            "# Rates of the loops\n\nMade by `benchmarks/roofline.py`, which says how."
        )
        path.write_text(f"{head}\n\n{block}\n", encoding="utf-8")
    if page is not None:
        write_block(Path(page), block)


def tables(found):
    """Markdown of the rows."""
    products = ["| frame | what | ms | share of `dgemm` |", "| --- | --- | --- | --- |"]
    pairs = ["| frame | pairs | ns a pair |", "| --- | --- | --- |"]
    sweeps = defaultdict(dict)
    for case, what, count, seconds, share in found:
        if what == "pairs":
            pairs.append(f"| {case} | {count} | {1e9 * seconds / count:.1f} |")
        elif what in _TITLES:
            cells = (case, _TITLES[what], f"{1e3 * seconds:.3g}", f"{share:.0%}")
            products.append(f"| {' | '.join(cells)} |")
        else:
            sweeps[case][what] = seconds, 1.0 / share
    head = f"{provenance()}. One thread; processor time, medians."
    return "\n".join([head, "", *products, "", *pairs, "", *_sweep_table(sweeps)])


def _sweep_table(sweeps):
    """Lines of a table: coefficients and derivatives beside the coefficients."""
    many = f"{_MANY} scalars"
    lines = [
        "| sum, atoms | coefficients, ms | with derivatives | with strain "
        f"| sweep for each of {many} |",
        "| --- | --- | --- | --- | --- |",
    ]
    for case, found in sweeps.items():
        cells = [case, f"{1e3 * found['coefficients'][0]:.3g}"]
        cells += [f"{found[what][1]:.2f}" for what in ("positions", "strain")]
        each = f"{(found[many][1] - 1.0) / _MANY:.2f}" if many in found else ""
        lines.append(f"| {' | '.join([*cells, each])} |")
    return lines
