"""Monte Carlo of rigid molecules: energies, detailed balance, limits."""

import math

import numba
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import erfc

from lode.core.montecarlo import moved, pair_energies, pair_energy, sweeps

SLOW = bool(numba.config.DISABLE_JIT)
SIDE = 7.0
# depth, diameter, cutoff, screening, wall
MODEL = np.array([0.007, 3.166, 3.5, 0.3, 1.0])
CHARGES = 3.8 * np.array([-0.8476, 0.4238, 0.4238])
SHAPE = np.array([[0, 0, 0], [0.577, 0.816, 0], [0.577, -0.816, 0]])
TEMPERATURE = 0.02585


def water(n, seed):
    """Molecules turned at random on a cubic grid."""
    turns = Rotation.random(n, random_state=seed).as_matrix()
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)
    return np.einsum("mxy,sy->msx", turns, SHAPE) + 3.4 * grid[:n, None]


def naive_energy(first, second, charges, side, model):
    """The same pair by the formula of the docstring, for arrays of pairs."""
    depth, diameter, cutoff, alpha, _ = model
    d = second[..., None, :, :] - first[..., :, None, :]
    r = np.linalg.norm(d - side * np.round(d / side), axis=-1)

    def coulomb(x):
        return erfc(alpha * x) / x

    def force(x):
        gauss = 2 * alpha / np.sqrt(np.pi) * np.exp(-((alpha * x) ** 2)) / x
        return erfc(alpha * x) / x**2 + gauss

    def dispersion(x):
        return 4 * depth * ((diameter / x) ** 12 - (diameter / x) ** 6)

    shifted = coulomb(r) - coulomb(cutoff) + force(cutoff) * (r - cutoff)
    energy = (np.outer(charges, charges) * shifted * (r < cutoff)).sum(axis=(-1, -2))
    centre = r[..., 0, 0]
    return energy + (dispersion(centre) - dispersion(cutoff)) * (centre < cutoff)


def run(positions, n_sweeps, *, charges=CHARGES, model=MODEL, steps=(0.3, 0.6), seed=0):
    """Positions, energies, change of energy and moves after a run."""
    positions = positions.copy()
    energies = pair_energies(positions, charges, SIDE, model)
    accepted = np.zeros((2, 2), dtype=np.int64)
    change = sweeps(
        np.random.default_rng(seed),
        positions,
        energies,
        charges,
        SIDE,
        model,
        TEMPERATURE,
        np.array(steps),
        n_sweeps,
        accepted,
    )
    return positions, energies, change, accepted


def test_energy_of_a_pair_is_that_of_its_slow_twin():
    molecules = water(8, 1)
    for i in range(8):
        for j in range(i):
            value = pair_energy(molecules[i], molecules[j], CHARGES, SIDE, MODEL)
            expected = naive_energy(molecules[i], molecules[j], CHARGES, SIDE, MODEL)
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_energy_and_force_vanish_at_the_cutoff():
    def energy(r):
        second = np.array([[r, 0.0, 0.0]])
        model = np.array([0.0, 3.0, 3.4, 0.3, 1.0])
        return pair_energy(np.zeros((1, 3)), second, np.ones(1), SIDE, model)

    # As the square of the distance from the cutoff, with a factor of order one
    for h in (1e-2, 1e-3):
        assert 0.0 < energy(3.4 - h) < h * h
    assert energy(3.4) == 0.0


def test_sites_behind_the_wall_have_infinite_energy():
    second = np.array([[0.99, 0.0, 0.0]])
    energy = pair_energy(np.zeros((1, 3)), second, np.ones(1), SIDE, MODEL)
    assert energy == math.inf


def test_molecules_behind_the_wall_come_apart():
    start = water(2, 1)
    start[1] = start[0] + [0.3, 0.0, 0.0]
    _, energies, change, _ = run(start, 100 if SLOW else 1000)
    assert np.isfinite(energies).all()
    # The infinite energy of the start does not count.
    assert change == pytest.approx(energies[0, 1], abs=1e-12)


def test_incremental_energy_is_the_full_energy_after_many_moves():
    start = water(8, 2)
    before = pair_energies(start, CHARGES, SIDE, MODEL)
    positions, energies, change, accepted = run(start, 5 if SLOW else 2000)
    full = pair_energies(positions, CHARGES, SIDE, MODEL)
    # The same pairs of sites, in the one or in the other order
    np.testing.assert_allclose(energies, full, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(energies, energies.T)
    # A sum of some ten thousand differences of the order 0.1 eV
    assert change == pytest.approx(0.5 * (full - before).sum(), abs=1e-10)
    assert (accepted[:, 0] > 0).all()
    assert (accepted[:, 0] < accepted[:, 1]).all()
    assert accepted[:, 1].sum() == 2 * 8 * (5 if SLOW else 2000)


def test_molecules_stay_rigid():
    start = water(8, 3)
    positions, _, _, _ = run(start, 5 if SLOW else 2000)

    def distances(molecules):
        return np.linalg.norm(molecules[:, None] - molecules[:, :, None], axis=-1)

    # Rounding errors of some hundred turns add up.
    np.testing.assert_allclose(distances(positions), distances(start), atol=1e-12)
    assert abs(positions - start).max() > 0.1


def test_every_move_of_an_ideal_gas_is_accepted():
    model = np.array([0.0, 3.0, 3.5, 0.3, 0.0])
    _, energies, change, accepted = run(
        water(8, 4), 20, charges=np.zeros(3), model=model
    )
    np.testing.assert_array_equal(accepted[:, 0], accepted[:, 1])
    assert change == 0.0
    np.testing.assert_array_equal(energies, 0.0)


def test_turns_keep_the_first_site_and_shifts_the_orientation():
    molecule = water(1, 5)[0]
    out = np.empty((3, 3))
    generator = np.random.default_rng(0)
    moved(generator, molecule, True, 1.0, out)
    np.testing.assert_array_equal(out[0], molecule[0])
    assert abs(out[1:] - molecule[1:]).max() > 1e-3
    moved(generator, molecule, False, 1.0, out)
    np.testing.assert_allclose(out - molecule, np.tile((out - molecule)[:1], (3, 1)))
    assert 0.0 < abs(out - molecule).max() <= 1.0


def test_same_seed_gives_the_same_run():
    start = water(4, 6)
    first, second, other = (run(start, 10, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert abs(first - other).max() > 1e-3


@pytest.mark.skipif(SLOW, reason="a million moves")
def test_two_particles_are_distributed_by_boltzmann():
    model = np.array([TEMPERATURE, 2.4, 3.5, 0.3, 0.5])
    positions = np.array([[[0.0, 0.0, 0.0]], [[3.0, 0.0, 0.0]]])
    energies = pair_energies(positions, np.zeros(1), SIDE, model)
    generator = np.random.default_rng(3)
    accepted = np.zeros((2, 2), dtype=np.int64)
    steps = np.array([3.0, 0.1])
    found = np.empty((100, 1000))
    for index in np.ndindex(found.shape):
        sweeps(
            generator,
            positions,
            energies,
            np.zeros(1),
            SIDE,
            model,
            TEMPERATURE,
            steps,
            2,
            accepted,
        )
        found[index] = energies[0, 1] / TEMPERATURE
    r = np.linspace(0.5, 3.5, 20_001)
    six = (2.4 / r) ** 6
    u = 4 * (six**2 - six) - 4 * ((2.4 / 3.5) ** 12 - (2.4 / 3.5) ** 6)
    weight = 4 * np.pi * r**2 * np.exp(-u)
    step = r[1] - r[0]
    outside = SIDE**3 - 4 * np.pi / 3 * 3.5**3
    expected = (weight * u).sum() * step / (weight.sum() * step + outside)
    blocks = found.mean(axis=1)
    error = blocks.std() / np.sqrt(len(blocks))
    assert error < 0.02 * abs(expected)
    # Four standard errors: a right sampler fails one seed of ten thousand.
    assert abs(blocks.mean() - expected) < 4.0 * error


@pytest.mark.skipif(SLOW, reason="a million moves")
def test_two_orientations_are_distributed_by_boltzmann():
    start = water(2, 7)
    start[1] += [3.0, 0.2, 0.1] - start[1, 0]
    start[0] -= start[0, 0]
    charges = 0.5 * CHARGES
    # By weights of molecules that are turned independently
    turns = Rotation.random(300_000, random_state=1).as_matrix().reshape(-1, 2, 3, 3)
    sites = np.einsum("pmxy,sy->pmsx", turns, SHAPE) + start[:, 0][:, None]
    u = naive_energy(sites[:, 0], sites[:, 1], charges, SIDE, MODEL)
    weights = np.exp(-u / TEMPERATURE)
    expected = (weights * u).sum() / weights.sum()
    blocks = []
    positions = start
    for block in range(60):
        energies = []
        for part in range(500):
            positions, pair, _, _ = run(
                positions, 5, charges=charges, steps=(0.0, 1.5), seed=500 * block + part
            )
            energies.append(pair[0, 1])
        blocks.append(np.mean(energies))
    error = np.std(blocks[1:]) / np.sqrt(len(blocks) - 1)
    # The error of the reference is much smaller.
    assert error < 0.03 * abs(expected)
    assert abs(np.mean(blocks[1:]) - expected) < 5.0 * error
