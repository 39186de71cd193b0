import math

import numba
import numpy as np
import pytest
from ase import Atoms
from naive import harmonics, shifted_cosine

from lode import pairs as module
from lode.core import neighbors
from lode.core.pairs import TERMS, RadialTable, add_pairs, interpolated
from lode.core.registers import whole_lanes
from lode.pairs import PairTerm
from lode.systems import Sources, structures
from lode.tables import PairTable

SMALL = numba.config.DISABLE_JIT
TRICLINIC = np.array([[5.1, 0.0, 0.0], [2.1, 4.4, 0.0], [-1.6, 1.7, 4.9]])


def crystal(seed=0, n=4, cell=TRICLINIC):
    rng = np.random.default_rng(seed)
    atoms = Atoms(["H"] * n, cell=cell, pbc=True)
    atoms.set_scaled_positions(rng.uniform(0, 1, (n, 3)))
    return atoms


def cluster(seed=0, n=7, side=4.0):
    return Atoms(["H"] * n, np.random.default_rng(seed).uniform(0, side, (n, 3)))


def sources(channels, n_channels, weights=None):
    channels = np.asarray(channels)
    weights = np.ones(len(channels)) if weights is None else np.asarray(weights)
    return Sources(channels, weights, n_channels)


def term(system, of, limit, monkeypatch, is_listed=False):
    """Pairs of a frame, from a list or as they are found."""
    with monkeypatch.context() as patch:
        if is_listed:
            patch.setattr(module, "_SMALL", -1)
            patch.setattr(module, "_images_are_few", lambda *_: False)
        else:
            patch.setattr(module, "_images_are_few", lambda *_: True)
        found = PairTerm(system, of, PairTable(None, limit, None), 0)
    assert (found.listed is not None) == is_listed
    return found


def grouped(found, n, n_channels):
    """Neighbour and vector of each pair of a centre and a channel, in fixed order."""
    start, neighbor, vector = found.pairs(0, n)
    assert len(start) == n * n_channels + 1
    rows = np.column_stack([neighbor, vector])
    parts = [rows[a:b] for a, b in zip(start[:-1], start[1:], strict=True)]
    return [v[np.lexsort(np.round(v, 6).T)] for v in parts]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


# --- Which pairs there are -----------------------------------------------------


@pytest.mark.parametrize("limit", [0.7, 2.0, 4.0, 9.0])
@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("weighted", [False, True])
def test_images_are_the_pairs_of_a_cell_list(limit, n, weighted, monkeypatch):
    atoms = crystal(n, n)
    atoms.positions[-1] += np.array([30.0, -30.0, 60.0])
    (system,) = structures(atoms)
    of = sources(np.arange(n) % 3, 3, np.arange(n) % 2 if weighted else None)
    listed = term(system, of, limit, monkeypatch, is_listed=True)
    images = term(system, of, limit, monkeypatch)
    assert_same(grouped(listed, n, 3), grouped(images, n, 3))
    for found in (listed, images):
        parts = [found.pairs(j, j + 1) for j in range(n)]
        counts = [part.start_ja[-1] - part.start_ja[0] for part in parts]
        assert sum(counts) == found.pairs(0, n).start_ja[-1]


@pytest.mark.parametrize("edges", [(9, 9, 9), (4, 30, 8), (60, 5, 5)])
@pytest.mark.parametrize("limit", [2.0, 3.0])
def test_images_in_order_hold_all_near_a_centre(edges, limit, monkeypatch):
    # Half of the atoms on a lattice, on faces, with neighbours at the limit itself.
    n = 40 if SMALL else 400
    rng = np.random.default_rng(0)
    lattice = np.stack(np.meshgrid(*map(np.arange, edges)), -1).reshape(-1, 3)
    turns = rng.permutation(lattice / edges)[:n]
    turns[n // 2 :] = rng.random((n // 2, 3))
    cell = np.diag(edges) + np.array([[0, 0, 0], [1.0, 0, 0], [-2.0, 1.0, 0]])
    (system,) = structures(Atoms(["H"] * n, turns @ cell, cell=cell, pbc=True))
    of = sources(np.arange(n) % 3, 3)
    # Rounding decides at the limit: the two find the same a little beyond it.
    listed = term(system, of, limit + 1e-6, monkeypatch, is_listed=True)
    images = term(system, of, limit + 1e-6, monkeypatch)
    for one, other in zip(grouped(listed, n, 3), grouped(images, n, 3), strict=True):
        assert len(one) == len(other)
        gaps = np.linalg.norm(one[:, None] - other, axis=2)
        np.testing.assert_allclose(gaps.min(axis=1, initial=9.0), 0.0, atol=1e-9)


def test_a_part_of_the_images_is_looked_at(monkeypatch):
    (system,) = structures(crystal(0, 30, cell=np.diag([4.0, 4.0, 60.0])))
    found = term(system, sources(np.zeros(30, int), 1), 3.0, monkeypatch).candidates
    near = np.abs(
        found.key_g[None, : found.start_sa[0, 1]] - found.center_key_i[:, None]
    )
    assert (near <= found.key_limit).mean() < 0.3


def test_a_dense_cluster_has_more_images_than_its_cell_leads_to_expect(monkeypatch):
    n = 20
    atoms = cluster(3, n, 3.0)
    atoms.set_cell(40 * np.eye(3))
    atoms.pbc = True
    (system,) = structures(atoms)
    of = sources(np.arange(n) % 2, 2)
    images = term(system, of, 5.0, monkeypatch)
    assert 10 * images.candidates.expected < n
    listed = term(system, of, 5.0, monkeypatch, is_listed=True)
    assert_same(grouped(listed, n, 2), grouped(images, n, 2))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("limit", [2.5, math.inf])
def test_finite_structures_have_the_pairs_of_a_cell_list(weighted, limit, monkeypatch):
    (system,) = structures(cluster())
    weights = [1.0, 0.0, 2.0, -1.0, 0.0, 0.5, 3.0] if weighted else None
    of = sources([2, 0, 2, 1, 0, 2, 2], 4, weights)
    every = term(system, of, limit, monkeypatch)
    listed = term(system, of, min(limit, 100.0), monkeypatch, is_listed=True)
    assert_same(grouped(every, 7, 4), grouped(listed, 7, 4))
    parts = [every.pairs(*part).vector_px for part in ((0, 3), (3, 4), (4, 7))]
    np.testing.assert_array_equal(np.concatenate(parts), every.pairs(0, 7).vector_px)


def test_atoms_on_each_other_are_a_pair_and_no_atom_is_its_own(monkeypatch):
    atoms = crystal(0, 3)
    atoms.positions[2] = atoms.positions[0] + atoms.cell[1]
    (system,) = structures(atoms)
    of = sources([0, 0, 0], 1)
    for is_listed in (False, True):
        found = term(system, of, 6.0, monkeypatch, is_listed)
        start, neighbor, vectors = found.pairs(0, 3)
        near = np.linalg.norm(vectors, axis=1) < 1e-12
        ends = zip(start[:-1], start[1:], strict=True)
        partners = [neighbor[a:b][near[a:b]].tolist() for a, b in ends]
        assert partners == [[2], [], [0]]


@pytest.mark.parametrize("side", [3e9, 1e11])
def test_no_atom_is_its_own_neighbour_in_a_huge_cell(side, monkeypatch):
    rng = np.random.default_rng(0)
    cell = side * (np.eye(3) + 0.1 * rng.random((3, 3)))
    atoms = Atoms("H2", rng.random((2, 3)) @ cell, cell=cell, pbc=True)
    (system,) = structures(atoms)
    found = term(system, sources([0, 0], 1), 5.0, monkeypatch)
    assert found.pairs(0, 2).start_ja.tolist() == [0, 0, 0]


def test_large_cells_with_few_neighbours_are_listed():
    (large,) = structures(crystal(0, 50_000, cell=130.0 * np.eye(3)))
    assert not module._images_are_few(large, 3.0)
    assert module._images_are_few(large, 15.0)
    assert module._images_are_few(structures(crystal(0, 2))[0], 3.0)


# --- Their sum -----------------------------------------------------------------


def pair_sums(pairs, weights, table, l_max, shape):
    """The sums of add_pairs, pair by pair."""
    row_rc, step, reach, n_far, power, decay, cutoff, width = table
    coefficients = row_rc.reshape(-1, TERMS, row_rc.shape[1])
    n_near = len(coefficients) - n_far
    out = np.zeros(shape)
    for row in range(shape[0] * shape[1]):
        for p in range(pairs.start_ja[row], pairs.start_ja[row + 1]):
            r = np.linalg.norm(pairs.vector_px[p])
            place, first, last, scale = r / step, 0, n_near, 1.0
            if r >= reach and n_far:
                u = reach / r
                place, first, last = u * n_far, n_near, n_far
                scale = u**power * math.exp(-decay * (r - reach))
            interval = min(int(place), last - 1)
            t = 2 * (place - interval) - 1
            f = scale * (t ** np.arange(TERMS) @ coefficients[first + interval])
            f *= weights[pairs.neighbor_p[p]]
            f *= shifted_cosine(r, cutoff, width) if width else 1.0
            vector = pairs.vector_px[p] if r else np.array([0.0, 0.0, 1.0])
            y = harmonics(vector[None], l_max)[0]
            for l in range(l_max + 1):
                of_l = slice(l * l, (l + 1) ** 2)
                f_n = f[: (l_max + 1) * shape[3]].reshape(l_max + 1, -1)[l]
                out.reshape(-1, *shape[2:])[row, of_l] += np.outer(y[of_l], f_n)
    return out


@pytest.mark.parametrize("n_max", [1, 3, 8, 13])
@pytest.mark.parametrize("l_max", [0, 1, 2, 7])
@pytest.mark.parametrize("kind", ["limit", "cutoff", "tail", "weights"])
def test_pairs_in_batches_are_pairs_one_by_one(n_max, l_max, kind):
    rng = np.random.default_rng(n_max)
    # No neighbours, few, a whole batch, several; many channels.
    counts = np.array([[0, 1, 0, 2, 0], [7, 0, 9, 0, 17], [0, 0, 0, 0, 0]])
    if not SMALL:
        counts = np.concatenate([counts, [[33, 31, 0, 64, 1], [100, 0, 0, 0, 3]]])
    start = np.concatenate([[0], np.cumsum(counts)])
    width = whole_lanes(n_max)
    vectors = rng.normal(size=(start[-1], 3))
    length = rng.uniform(0.0, 6.0 if kind == "tail" else 3.0, start[-1])
    vectors *= (length / np.linalg.norm(vectors, axis=1))[:, None]
    # A neighbour on the centre.
    vectors[1] = 0.0
    n_far = 3 if kind == "tail" else 0
    rows = rng.normal(size=(TERMS * (5 + n_far), (l_max + 1) * width))
    cutoff = (3.0, 0.7) if kind == "cutoff" else (math.inf, 0.0)
    table = RadialTable(rows, 0.6, 3.0, n_far, 1.5, 0.3, *cutoff)
    pairs = neighbors.Pairs(start, rng.integers(0, 4, start[-1]), vectors)
    weights = rng.normal(size=4) if kind == "weights" else np.ones(4)
    shape = (*counts.shape, (l_max + 1) ** 2, width)
    out = rng.normal(size=shape)
    expected = out + pair_sums(pairs, weights, table, l_max, shape)
    add_pairs(pairs, weights, table, l_max, out)
    error = np.abs(out - expected).max()
    assert error <= 1e-13 * np.abs(expected).max()


def test_interpolated_values_are_those_of_the_polynomials():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3 * TERMS, 16))
    x = np.concatenate([rng.uniform(0, 1.5, 20), [0.0, 0.5, 1.5]])
    interval = np.minimum((x / 0.5).astype(int), 2)
    t = 2 * (x / 0.5 - interval) - 1
    powers = t[:, None] ** np.arange(TERMS)
    expected = np.einsum("pk,pkc->pc", powers, rows.reshape(3, TERMS, 16)[interval])
    found, slopes = interpolated(rows, 0.5, x)
    np.testing.assert_allclose(found, expected, atol=1e-13)
    # t changes by 4 for 1 of x.
    powers = 4 * np.arange(1, TERMS) * t[:, None] ** np.arange(TERMS - 1)
    rows = rows.reshape(3, TERMS, 16)[interval, 1:]
    expected = np.einsum("pk,pkc->pc", powers, rows)
    np.testing.assert_allclose(slopes, expected, atol=1e-12)
