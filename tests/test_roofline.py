"""Rates and roofs are measured; no time is asserted."""

import csv
import math
import time
from functools import partial
from itertools import chain

import numba
import numpy as np
import pytest

from benchmarks import latency, roofline
from benchmarks.report import WRITER
from lode import SphericalExpansion
from lode.core import expansion as core
from lode.files import markers

compiled = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="thousands of pairs in plain Python"
)
BEGIN, END = markers(WRITER)
PAGE = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"


def plain(function):
    """A kernel in plain Python, whether or not it is compiled."""
    return getattr(function, "py_func", function)


class Counted:
    """A number that counts the operations it takes part in."""

    count = 0

    def __init__(self, value):
        self.value = float(value)

    def _result(self, operation, *others):
        Counted.count += 1
        values = (o.value if isinstance(o, Counted) else o for o in others)
        return Counted(getattr(self.value, operation)(*values))

    def __add__(self, other):
        return self._result("__add__", other)

    def __sub__(self, other):
        return self._result("__sub__", other)

    def __mul__(self, other):
        return self._result("__mul__", other)

    def __truediv__(self, other):
        return self._result("__truediv__", other)

    def __rtruediv__(self, other):
        return self._result("__rtruediv__", other)

    def root(self):
        Counted.count += 1
        return Counted(math.sqrt(self.value))

    def cosine(self):
        Counted.count += 1
        return Counted(math.cos(self.value))

    __radd__, __rmul__ = __add__, __mul__


def counted(array):
    """The same numbers, counting; the count begins at zero."""
    Counted.count = 0
    result = np.empty(np.shape(array), object)
    for place, value in np.ndenumerate(array):
        result[place] = Counted(value)
    return result


@pytest.mark.parametrize("l_max", [0, 1, 3, 6])
def test_operations_of_the_harmonics_are_those_of_the_kernel(l_max):
    unit_xp = np.tile([[0.6], [0.0], [0.8]], core.LANES)
    y_mp = np.empty(((l_max + 1) ** 2, core.LANES), object)
    arguments = (0, l_max, core.harmonic_factors(l_max), y_mp)
    plain(core._lane_harmonics)(counted(unit_xp), *arguments)
    assert Counted.count == core.LANES * roofline.harmonic_operations(l_max)
    values = np.vectorize(lambda y: y.value)(y_mp[:, 0])
    np.testing.assert_allclose(values, core.harmonics(unit_xp[:, :1].T, l_max)[0])


@pytest.mark.parametrize(("l_max", "width"), [(0, 4), (1, 8), (2, 12)])
def test_operations_of_the_radial_functions_are_those_of_the_kernel(l_max, width):
    p_kc = np.ones((8, (l_max + 1) * width))
    f_pc = np.empty((1, p_kc.shape[1]), object)
    plain(core._lane_horner)(counted(p_kc), 0, 0.5, f_pc, 0)
    each = roofline.pair_operations(l_max, width)
    assert Counted.count == each["radial functions"]
    assert f_pc[0, -1].value == pytest.approx(2.0 - 2.0**-7)


def test_operations_of_a_vector_and_of_a_cutoff_are_those_of_the_formulas():
    x, y, z = counted([1.0, 2.0, 2.0])
    r = (x * x + y * y + z * z).root()
    inverse = 1.0 / r
    unit = [inverse * x, inverse * y, inverse * z]
    assert [u.value for u in unit] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    each = roofline.pair_operations(0, 4)
    assert Counted.count == each["unit vector"]
    Counted.count = 0
    place = r / 0.4
    2.0 * (place - 7) - 1.0
    assert Counted.count == each["place"]
    Counted.count = 0
    phase = math.pi * (r - 3.2 + 0.5) / 0.5
    smooth = 0.5 * (1.0 + phase.cosine())
    [smooth * 1.0 for _ in range(4)]
    assert Counted.count == roofline.smoothing_operations(0, 4)


@pytest.mark.parametrize(("l_max", "width"), [(0, 4), (2, 8), (6, 8), (6, 12)])
def test_operations_and_bytes_of_the_products_are_those_of_the_tiles(
    l_max, width, monkeypatch
):
    tiles = []

    def tile(out_rc, r, c, rows, columns, left, l, right, d, start, stop, fresh):
        tiles.append((rows, columns, stop - start))

    monkeypatch.setattr(core, "_add_tile", tile)
    n = 5
    out_mn = np.zeros(((l_max + 1) ** 2, width))
    y_mp, f_pc = np.zeros((len(out_mn), n)), np.zeros((n, (l_max + 1) * width))
    plain(core._add_products)(out_mn, 0, y_mp, f_pc, l_max, 0, n)
    each = roofline.pair_operations(l_max, width)
    assert sum(2 * r * c * p for r, c, p in tiles) == n * each["products"]
    read = roofline.pair_bytes(l_max, width)
    assert sum(8 * r * p for r, _, p in tiles) == n * read["harmonics read"]
    assert sum(8 * c * p for _, c, p in tiles) == n * read["radial functions read"]
    assert sum(16 * r * c for r, c, _ in tiles) == roofline.run_bytes(l_max, width)


def test_written_bytes_are_those_that_the_kernels_store(monkeypatch):
    l_max, width, stored = 3, 8, []
    monkeypatch.setattr(core, "_store", lambda value, *_: stored.append(8 * len(value)))
    unit_xp = np.ones((3, core.LANES))
    y_mp = np.zeros(((l_max + 1) ** 2, core.LANES))
    factors = core.harmonic_factors(l_max)
    plain(core._lane_harmonics)(unit_xp, 0, l_max, factors, y_mp)
    each = roofline.pair_bytes(l_max, width)
    assert sum(stored) == core.LANES * each["harmonics written"]
    stored.clear()
    p_kc = np.ones((8, (l_max + 1) * width))
    plain(core._lane_horner)(p_kc, 0, 0.5, np.empty((1, p_kc.shape[1])), 0)
    assert sum(stored) == each["radial functions written"]
    assert each["table"] == p_kc.nbytes


def test_runs_are_the_products_that_the_kernel_makes(monkeypatch):
    loop = roofline.pair_loop(roofline.potential(), roofline.gas(16))
    table, *settings = loop.settings
    # Few pairs and no radial functions: the plain kernel is slow.
    few = 3
    n_species = loop.shape[1]
    start_ja, vector_px, charge_p = loop.found
    start_ja = start_ja[: few * n_species + 1]
    loop = roofline.PairLoop(
        (start_ja, vector_px[: start_ja[-1]], charge_p),
        loop.settings,
        (few, *loop.shape[1:]),
    )
    runs = []
    nothing = {name: lambda *_: None for name in ("_lane_horner", "_lane_harmonics")}
    for name, function in nothing.items():
        monkeypatch.setattr(core, name, function)
    monkeypatch.setattr(core, "_add_products", lambda *a: runs.append(a[-1] - a[-2]))
    out_jamn = np.zeros(loop.shape)
    with np.errstate(all="ignore"):
        plain(core.add_pairs)(*loop.found, table, *settings, out_jamn)
    assert loop.count > few * core._BATCH
    assert len(runs) == loop.runs
    assert sum(runs) == loop.count


def test_the_measured_products_are_those_of_the_library(monkeypatch):
    waves = roofline.wave_sum(roofline.potential(), roofline.gas(16))()
    (((_, lines, top), structure, columns),) = waves.blocks
    # More centres than are taken at a time.
    n = 40
    phases = np.zeros((n, 6, 2 * top.max() + 1 + core.LANES))
    bounds = roofline.chunks(waves.columns)
    assert len(bounds) > 1
    lefts = outs = [np.zeros((2, 0, 0))] * 2
    made = []

    def noted(_, right_kc, start, stop, first, rows, out_rc):
        made.append((right_kc is columns[1], start, stop, first, rows))

    monkeypatch.setattr(core, "add_product", noted)
    plain(core.add_waves)(phases, lines, top, *structure, *columns, *outs)
    expected = made.copy()
    made.clear()
    plain(roofline.product_step)(bounds, n, *lefts, *columns, *outs)
    assert made == expected
    n_waves = sum(stop - start for start, stop in bounds)
    assert sum((b - a) * rows for _, a, b, _, rows in made) == 4 * n * n_waves


@compiled
def test_both_measured_halves_are_the_potential():
    frame, expansion = roofline.gas(64), roofline.potential()
    loop = roofline.pair_loop(expansion, frame)
    out_jamn = np.zeros(loop.shape)
    loop.add(out_jamn)
    roofline.wave_sum(expansion, frame)().add(out_jamn, 0)
    exact = expansion.compute(frame).values
    # The centre and the background are in l = 0 alone.
    found, exact = out_jamn[:, :, 1:, : exact.shape[-1]], exact[:, :, 1:]
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


@compiled
def test_the_measured_pairs_are_the_density():
    frame, expansion = roofline.water(), roofline.density()
    assert isinstance(expansion, SphericalExpansion)
    loop = roofline.pair_loop(expansion, frame)
    out_jamn = np.zeros(loop.shape)
    loop.add(out_jamn)
    exact = expansion.compute(frame).values
    found, exact = out_jamn[:, :, 1:, : exact.shape[-1]], exact[:, :, 1:]
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


def test_the_measured_steps_together_are_the_loop():
    loop = roofline.pair_loop(roofline.density(), roofline.gas(16))
    l_max, width = loop.settings[-1], loop.shape[-1]
    steps = {name: other for name, *other in loop.steps()}
    # Of ones: the number of the pairs of a centre and a species.
    function, arguments, *_ = steps["products"]
    function(*arguments)
    *_, out_jamn = arguments
    count_ja = np.diff(loop.found[0]).reshape(loop.shape[:2])
    expected = np.broadcast_to(count_ja[:, :, None, None], loop.shape)
    np.testing.assert_array_equal(out_jamn, expected)
    for name in ("radial functions", "harmonics"):
        function, arguments, *_ = steps[name]
        function(*arguments)
    table, interval_p, t_p, f_pc = steps["radial functions"][1]
    last = np.arange(loop.count)[-core._BATCH :]
    powers_pk = t_p[last, None] ** np.arange(8)
    expected_pc = np.einsum("pk,pkc->pc", powers_pk, table[interval_p[last]])
    np.testing.assert_allclose(f_pc[last % core._BATCH], expected_pc, atol=1e-12)
    unit_xp, _, _, y_mp = steps["harmonics"][1][1:]
    # Harmonics that are zero by symmetry are rounded apart by each compilation.
    expected_pm = core.harmonics(unit_xp.T.copy(), l_max)
    np.testing.assert_allclose(y_mp.T, expected_pm, rtol=0, atol=1e-14)
    operations = sum(loop.count * other[2] for other in steps.values())
    each = roofline.pair_operations(l_max, width)
    shared = each["unit vector"] + each["place"]
    smooth = loop.smoothed * roofline.smoothing_operations(l_max, width)
    assert operations + loop.count * shared + smooth == loop.operations


def test_a_clock_that_stands_still_for_a_while_gives_rates(monkeypatch):
    clock = chain([0.0] * 6, iter(time.thread_time, None))
    monkeypatch.setattr(time, "thread_time", partial(next, clock))
    for row in roofline.bandwidths("near", 4096, 1):
        assert row["count"] > 1
        assert row["bytes"] == row["count"] * row["working_set"]
        assert 0.0 < row["gbytes_s"] < math.inf


@compiled
def test_rates_are_written_whole_with_their_columns(tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "docs" / "performance.md"
    page.parent.mkdir()
    page.write_text(PAGE)
    folder = tmp_path / "out"
    roofline.write(folder, 1, page, n_atoms=(64,), order=64, largest=2**22)
    with open(folder / "roofline.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == roofline.COLUMNS
    assert [(r["part"], r["case"], r["what"]) for r in rows] == [
        ("machine", "dgemm 64", "peak"),
        *[
            ("machine", level, loop)
            for level in ("level 1", "level 2", "memory")
            for loop in ("read", "triad")
        ],
        *[
            row
            for case in ("gas", "water")
            for row in (
                ("machine", f"table {case}", "read"),
                ("pairs", case, "table"),
                ("pairs", case, "level 1"),
                ("pairs", case, "radial functions"),
                ("pairs", case, "harmonics"),
                ("pairs", case, "products"),
            )
        ],
        *[
            ("product", "gas-64", what)
            for what in ("dgemm", "products", "with phases", "whole")
        ],
    ]
    for row in rows:
        assert float(row["seconds"]) > 0.0
        for name in ("gflops", "gbytes_s", "share"):
            assert not row[name] or math.isfinite(float(row[name]))
        if row["part"] == "pairs":
            # Each number has four digits, so is off by up to half a thousandth.
            rate = float(row["operations"]) / float(row["seconds"]) / 1e9
            assert float(row["gflops"]) == pytest.approx(rate, rel=1.6e-3)
            share = rate / float(row["roof_gflops"])
            assert float(row["share"]) == pytest.approx(share, rel=2.1e-3)
    names = {f"roofline.{suffix}" for suffix in ("csv", "md", "pdf", "png")}
    assert {p.name for p in folder.iterdir()} == names
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    block, end, after = rest.partition(END)
    assert f"{before}{begin}\nold\n{end}{after}" == PAGE
    assert "share of dgemm" in block
    assert {p.name for p in page.parent.iterdir()} == {page.name, "roofline.png"}


def test_latency_is_that_of_every_program(tmp_path, monkeypatch):
    short = {"bare start": "pass", "import numba": "import math"}
    monkeypatch.setattr(latency, "PROGRAMS", short)
    # A program that costs nothing would be divided by.
    seconds = iter([0.1, 0.2, 0.1, 0.3])
    monkeypatch.setattr(latency, "seconds", lambda _: next(seconds))
    latency.write(tmp_path, 1)
    with open(tmp_path / "latency.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == latency.COLUMNS
    assert [r["program"] for r in rows] == list(short)
    assert [float(r["ratio"]) for r in rows] == pytest.approx([1 / 3, 1.0], rel=1e-3)
    assert [float(r["net_ratio"]) for r in rows] == [0.0, 1.0]
    assert {p.name for p in tmp_path.iterdir()} == {"latency.csv", "latency.md"}


@compiled
def test_a_first_result_comes_from_a_process_of_its_own():
    assert latency.seconds(latency.PROGRAMS["first power spectrum"]) > 0.0
