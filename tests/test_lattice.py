import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import harmonics

from lode.core import lattice as core
from lode.core.harmonics import harmonics as own_harmonics

SMALL = numba.config.DISABLE_JIT
few = settings(
    max_examples=1 if SMALL else 8, deadline=None, derandomize=True, database=None
)


@few
@given(seed=st.integers(0, 1000), limit=st.floats(0.2, 4.0), skew=st.floats(-1.5, 1.5))
def test_half_a_sphere_holds_each_pair_of_opposite_vectors_once(seed, limit, skew):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(1, 6, 3)) + skew * np.tril(np.ones((3, 3)), -1)
    reciprocal = np.ascontiguousarray(2 * math.pi * np.linalg.inv(cell).T)
    dual_lengths = np.linalg.norm(cell, axis=1) / (2 * math.pi)
    lines, top = core.half_sphere(reciprocal, dual_lengths, limit)
    k = core.vectors_of(reciprocal, lines)
    index = np.array(list(np.ndindex(*(2 * top + 5)))) - top - 2
    every = index @ reciprocal
    size = np.linalg.norm(every, axis=1)
    assert 2 * len(k) == ((size < limit) & (size > 0)).sum()
    both = np.concatenate([k, -k]).round(9)
    assert len(np.unique(both, axis=0)) == 2 * len(k)
    # In ascending order of the indices, each at most the top.
    found = np.round(k @ np.linalg.inv(reciprocal)).astype(int)
    assert (np.abs(found) <= top).all()
    assert found.tolist() == sorted(found.tolist())
    assert all(v > [0, 0, 0] for v in found.tolist())


@few
@given(seed=st.integers(0, 1000))
def test_inverse_and_volume_are_those_of_the_cell(seed):
    cell = np.random.default_rng(seed).normal(size=(3, 3))
    inverse, volume = core.inverted(cell)
    condition = np.linalg.cond(cell)
    np.testing.assert_allclose(inverse @ cell, np.eye(3), atol=1e-14 * condition**2)
    assert volume == pytest.approx(np.linalg.det(cell), abs=1e-14)
    np.testing.assert_allclose(core.lengths_of(cell), np.linalg.norm(cell, axis=1))


@few
@given(
    seed=st.integers(0, 1000),
    turns=st.lists(st.integers(-9, 9), min_size=3, max_size=3),
)
def test_a_reduced_cell_spans_the_same_lattice_by_short_vectors(seed, turns):
    cell = np.random.default_rng(seed).normal(size=(3, 3)) + 2 * np.eye(3)
    long = np.array([[1, 0, 0], [turns[0], 1, 0], [turns[1], turns[2], 1]]) @ cell
    reduced = core.reduced_cell(long)
    matrix = reduced @ np.linalg.inv(cell)
    np.testing.assert_allclose(matrix, np.round(matrix), atol=1e-10)
    assert abs(np.linalg.det(matrix)) == pytest.approx(1.0)
    # No vector can be shortened by another.
    product = reduced @ reduced.T
    square = product.diagonal()
    assert (np.abs(product) <= (0.5 + 1e-6) * square + np.diag(square)).all()
    assert (np.diff(square) >= -1e-12).all()


def test_harmonics_are_those_of_scipy():
    l_max = 6 if SMALL else 30
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    vectors = np.concatenate([vectors, 7 * axes])
    # Rounding in the recurrences grows with l.
    np.testing.assert_allclose(
        own_harmonics(vectors, l_max).T, harmonics(vectors, l_max), atol=1e-12
    )


def test_first_harmonics_are_y_z_x_without_phase():
    vector = np.array([0.48, 0.6, 0.64])
    y_m = own_harmonics(vector[None], 1)[:, 0]
    expected = math.sqrt(3 / (4 * math.pi)) * vector[[1, 2, 0]]
    np.testing.assert_allclose(y_m[1:], expected, rtol=1e-15)


def test_harmonics_of_a_zero_vector_are_those_along_z():
    pair = own_harmonics(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), 4)
    np.testing.assert_array_equal(pair[:, 0], pair[:, 1])
