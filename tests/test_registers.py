import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from lode.core import registers
from lode.core.registers import (
    LANES,
    ROWS,
    add_tile,
    load,
    set_tile,
    store,
    transpose,
)


@numba.njit
def set_part(out, r, c, rows, columns, left, l, right, d, start, stop):
    set_tile(out, r, c, rows, columns, left, l, right, d, start, stop)


@numba.njit
def add_part(out, r, c, rows, columns, left, l, right, d, start, stop):
    add_tile(out, r, c, rows, columns, left, l, right, d, start, stop)


@pytest.mark.parametrize("rows", range(1, ROWS + 1))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("columns", [LANES, 3 * LANES])
@pytest.mark.parametrize("is_added", [False, True])
def test_a_tile_is_a_part_of_a_matrix_product(rows, columns, order, is_added):
    rng = np.random.default_rng(rows)
    left = np.array(rng.normal(size=(11, 13)), order=order)
    right = rng.normal(size=(13, 40))
    for start, stop in ((2, 3), (0, 13), (5, 9)):
        out = rng.normal(size=(12, 37))
        expected = out.copy()
        product = left[2 : 2 + rows, start:stop] @ right[start:stop, 7 : 7 + columns]
        part = expected[3 : 3 + rows, 6 : 6 + columns]
        part[:] = product + (part if is_added else 0.0)
        tile = add_part if is_added else set_part
        tile(out, 3, 6, rows, columns, left, 2, right, 7, start, stop)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-13)


@numba.njit
def transposed(a_ij, i, j, out_ji, k, l):
    transpose(a_ij, i, j, out_ji, k, l)


def test_a_block_is_transposed():
    rng = np.random.default_rng(0)
    a_ij, out_ji = rng.normal(size=(13, 20)), np.zeros((12, 15))
    transposed(a_ij, 3, 5, out_ji, 1, 4)
    expected = np.zeros_like(out_ji)
    expected[1 : 1 + LANES, 4 : 4 + LANES] = a_ij[3 : 3 + LANES, 5 : 5 + LANES].T
    np.testing.assert_array_equal(out_ji, expected)


@numba.njit
def combined(a_ij, i, j, number, out_ij):
    a, b = load(a_ij, i, j), load(a_ij, i + 1, j)
    value = number * (a * b - a) + (b - 2.0) * number + (number - a) + (1.0 + b)
    store(value, out_ij, i, j)


def test_lanes_are_added_and_multiplied_with_lanes_and_numbers():
    rng = np.random.default_rng(0)
    a_ij, out_ij = rng.normal(size=(4, 20)), np.zeros((4, 20))
    combined(a_ij, 2, 5, 1.7, out_ij)
    a, b = a_ij[2:4, 5 : 5 + LANES]
    expected = np.zeros_like(out_ij)
    expected[2, 5 : 5 + LANES] = (
        1.7 * (a * b - a) + (b - 2.0) * 1.7 + (1.7 - a) + (1.0 + b)
    )
    np.testing.assert_allclose(out_ij, expected, rtol=0, atol=1e-14)


def test_numbers_are_rounded_up_to_whole_registers():
    found = [registers.whole_lanes(n) for n in (0, 1, 7, 8, 9, 16)]
    assert found == [0, 8, 8, 8, 16, 16]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("add_tile(out, 0, 0, 4, 8, a, 0, b, 0, 0, 5)", None),
        ("add_tile(out, 1, 0, 4, 8, a, 0, b, 0, 0, 5)", "block out of bounds"),
        ("set_tile(out, 0, 1, 4, 8, a, 0, b, 0, 0, 5)", "block out of bounds"),
        ("set_tile(out, 0, 0, 4, 8, a, 1, b, 0, 0, 5)", "block out of bounds"),
        ("add_tile(out, 0, 0, 4, 8, a, 0, b, 1, 0, 5)", "block out of bounds"),
        ("add_tile(out, 0, 0, 4, 8, a, 0, b, 0, -1, 5)", "block out of bounds"),
        ("add_tile(big, 0, 0, 9, 8, big, 0, b, 0, 0, 5)", "too many rows for a tile"),
        ("store(load(out, 3, 0), b, 4, 0)", None),
        ("load(out, 4, 0)", "block out of bounds"),
        ("store(load(out, 0, 0), b, 0, 1)", "block out of bounds"),
    ],
)
def test_blocks_out_of_bounds_are_errors_if_checked(tmp_path, call, message):
    program = f"""
import numba, numpy as np
from lode.core.registers import add_tile, load, set_tile, store
@numba.njit
def run(a, b, out, big):
    {call}
run(np.ones((4, 5)), np.ones((5, 8)), np.zeros((4, 8)), np.zeros((9, 8)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "NUMBA_BOUNDSCHECK": "1",
            "NUMBA_DISABLE_JIT": "0",
            "NUMBA_CACHE_DIR": str(tmp_path),
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == (message is None)
    assert message is None or f"IndexError: {message}" in done.stderr


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="plain Python takes any array")
@pytest.mark.parametrize("wrong", [0, 5, 7])
def test_rows_that_are_not_contiguous_are_refused(wrong):
    arguments = [np.zeros((8, 8)), 0, 0, 1, 8, np.zeros((8, 8)), 0, np.zeros((8, 8))]
    if wrong == 5:
        # The left factor is read number by number.
        arguments[wrong] = np.asfortranarray(arguments[wrong])
        add_part(*arguments, 0, 0, 8)
        return
    arguments[wrong] = np.asfortranarray(arguments[wrong])
    with pytest.raises(numba.core.errors.TypingError):
        add_part(*arguments, 0, 0, 8)
