"""Rates and latencies are measured; no time is asserted."""

import csv
import math
import time
from functools import partial
from itertools import chain

import numba
import numpy as np
import pytest

import lode.core.reciprocal
import lode.pairs
from benchmarks import latency, roofline
from benchmarks.cases import system_frames
from benchmarks.report import WRITER
from csv_tables import markers
from lode import reciprocal

compiled = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="thousands of pairs in plain Python"
)
BEGIN, END = markers(WRITER)
PAGE = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"


def flat(arguments):
    """The arrays and numbers of arguments, nested tuples opened."""
    for argument in arguments:
        yield from flat(argument) if isinstance(argument, tuple) else [argument]


def assert_same(calls, expected, n_outputs):
    """The same inputs, and outputs of the same shapes."""
    assert len(calls) == len(expected) > 0
    for call, other in zip(calls, expected, strict=True):
        inputs = flat(call[:-n_outputs]), flat(other[:-n_outputs])
        for found, wanted in zip(*inputs, strict=True):
            np.testing.assert_array_equal(found, wanted)
        outputs = call[-n_outputs:], other[-n_outputs:]
        assert [a.shape for a in outputs[0]] == [a.shape for a in outputs[1]]


@compiled
def test_the_measured_products_are_those_of_the_library(monkeypatch):
    # A block of centres, and a part of one.
    (frame,) = system_frames("gas", 80, 1)
    _, sources, (_, term) = roofline.plan(roofline.POTENTIAL, frame)
    measured = roofline.product_calls(term, sources.n_channels)
    made = []
    core = lode.core.reciprocal
    assert roofline.add_products is core.add_products
    monkeypatch.setattr(core, "add_products", lambda *a: made.append(a))
    roofline.POTENTIAL.compute(frame, n_threads=1)
    assert_same(measured, made, 2)


@compiled
@pytest.mark.parametrize("case", ["gas", "water"])
def test_the_measured_pairs_are_those_of_the_library(case, monkeypatch):
    expansion = roofline.POTENTIAL if case == "gas" else roofline.SOAP
    (frame,) = system_frames(case, {"gas": 136, "water": 96}[case], 1)
    _, sources, (term, *_) = roofline.plan(expansion, frame)
    shape = (len(frame), sources.n_channels, 49, 8)
    measured = roofline.pair_calls(term, np.zeros(shape))
    made = []
    assert roofline.add_pairs is lode.pairs.add_pairs
    monkeypatch.setattr(lode.pairs, "add_pairs", lambda *a: made.append(a))
    expansion.compute(frame, n_threads=1)
    assert_same(measured, made, 1)


@compiled
def test_dgemm_makes_the_same_products(monkeypatch):
    monkeypatch.setattr(roofline, "_DGEMM_CENTERS", 50)
    monkeypatch.setattr(roofline, "_DGEMM_WAVES", 300)
    (frame,) = system_frames("gas", 80, 1)
    _, sources, (_, term) = roofline.plan(roofline.POTENTIAL, frame)
    count = 0
    for left, right, out in roofline.dgemm_calls(term, sources.n_channels):
        np.matmul(left, right, out=out)
        count += len(left) * right.size
    expected = 0
    n_columns = sum((2 * l + 1) * n for l, n in enumerate(term.table.n_modes.tolist()))
    for phase_jxt, waves, *_ in roofline.product_calls(term, sources.n_channels):
        # Other columns only fill up registers.
        assert waves.even_kc.shape[1] + waves.odd_kc.shape[1] - n_columns < 16
        expected += 2 * len(phase_jxt) * len(waves.even_kc) * n_columns
    assert count == expected


@compiled
def test_the_whole_step_is_the_long_range_term():
    (frame,) = system_frames("gas", 80, 1)
    system, sources, (pairs, products) = roofline.plan(roofline.POTENTIAL, frame)
    out_jamn = np.zeros((len(frame), sources.n_channels, 49, 8))
    split = products.half_space.split
    roofline.whole_step(system, sources, split, out_jamn)
    # The wave vectors are made, not those of the plan.
    kept = reciprocal._cached_half_space.cache_info()
    assert (kept.hits, kept.misses) == (0, 1)
    pairs.add(out_jamn, 0)
    exact = roofline.POTENTIAL.compute(frame).values[:, :, 1:]
    # The centre and the background are in l = 0 alone.
    found = out_jamn[:, :, 1:]
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12 * abs(exact).max())


def test_shares_are_those_of_the_same_round(monkeypatch):
    now, slow = [0.0], iter(())

    def loop(cost):
        now[0] += cost * next(slow, 1.0)

    monkeypatch.setattr(time, "thread_time", lambda: now[0])
    monkeypatch.setattr(roofline, "_SHORTEST", 1.0)
    loops = {"dgemm": partial(loop, 2.0), "ours": partial(loop, 8.0)}
    found = roofline.in_turn(loops, 1)
    assert found == {"dgemm": (2.0, 1.0), "ours": (8.0, 0.25)}
    # After four calls that find out how often each is called, three rounds, the second
    # in the other order: ratios of 2/8, 6/8 and 4/32, whose median is not that of the
    # medians.
    slow = chain([1.0] * 4, [1.0, 1.0], [1.0, 3.0], [2.0, 4.0])
    found = roofline.in_turn(loops, 3)
    assert found == {"dgemm": (4.0, 1.0), "ours": (8.0, 0.25)}


def test_a_clock_that_stands_still_for_a_while_gives_times(monkeypatch):
    # Short loops are called often, and nothing is divided by zero.
    calls = []
    clock = chain([0.0] * 6, iter(time.thread_time, None))
    monkeypatch.setattr(time, "thread_time", partial(next, clock))
    found = roofline.in_turn({"loop": lambda: calls.append(1)}, 1)
    assert len(calls) > 16
    seconds, share = found["loop"]
    assert 0.0 < seconds < 1e-3
    assert share == 1.0


@compiled
def test_rates_are_written_whole_with_their_columns(tmp_path):
    page = tmp_path / "docs" / "performance.md"
    page.parent.mkdir()
    page.write_text(PAGE)
    folder = tmp_path / "out"
    sweeps = ["pairs, SOAP within 6 Å"]
    roofline.write(folder, 1, page, n_atoms=(64,), sweeps=sweeps)
    with open(folder / "roofline.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == ("case", "what", "count", "seconds", "share")
    assert [(r["case"], r["what"]) for r in rows] == [
        ("gas-64", "dgemm"),
        ("gas-64", "products"),
        ("gas-64", "whole step"),
        ("gas", "pairs"),
        ("water", "pairs"),
        *(
            ("pairs, SOAP within 6 Å, 96", what)
            for what in ("coefficients", "positions", "strain", "16 scalars")
        ),
    ]
    for row in rows:
        assert row["case"].startswith("pairs") or int(row["count"]) > 0
        assert float(row["seconds"]) > 0.0
        if row["what"] == "pairs":
            assert row["share"] == ""
        else:
            assert 0.0 < float(row["share"]) < math.inf
    assert float(rows[0]["share"]) == 1.0
    assert {p.name for p in folder.iterdir()} == {"roofline.csv", "roofline.md"}
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    block, end, after = rest.partition(END)
    assert f"{before}{begin}\nold\n{end}{after}" == PAGE
    assert block.strip() in (folder / "roofline.md").read_text()
    nanoseconds = 1e9 * float(rows[4]["seconds"]) / int(rows[4]["count"])
    line = next(line for line in block.splitlines() if line.startswith("| water"))
    assert float(line.split("|")[3]) == pytest.approx(nanoseconds, abs=0.2)
    cells = block.splitlines()[-1].split("|")[2:-1]
    shares = [float(row["share"]) for row in rows[-3:]]
    ratios = [1 / shares[0], 1 / shares[1], (1 / shares[2] - 1) / 16]
    assert [float(cell) for cell in cells[1:]] == pytest.approx(ratios, rel=0.02)
    assert [p.name for p in page.parent.iterdir()] == [page.name]


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
