"""Induced dipoles: Clausius–Mossotti lattices, finite differences, identities."""

import math

import numba
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lode.dipoles import (
    clausius_mossotti,
    dielectric_constant,
    dielectric_tensor,
    dipole_tensor,
)
from lode.electrostatics import ewald

SLOW = bool(numba.config.DISABLE_JIT)
# Fewer lattice vectors where loops run as plain Python
TOLERANCE = 1e-6 if SLOW else 1e-10
LATTICES = {
    "sc": np.eye(3),
    "bcc": np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2,
    "fcc": np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2,
}
TRICLINIC = np.array([[3.1, 0.2, -0.4], [0.9, 2.8, 0.3], [-0.6, 1.1, 3.6]])
POSITIONS = np.array([[0.1, 0.2, 0.3], [1.4, 0.9, 1.1], [-0.8, 2.0, 5.1]])
POLARIZABILITIES = np.array([0.8, 0.3, 0.5])


@pytest.mark.parametrize("x", [0.1, 0.2, 0.3, 0.4, 0.5])
@pytest.mark.parametrize("lattice", LATTICES)
def test_cubic_lattices_follow_clausius_and_mossotti(lattice, x):
    cell = 2.3 * LATTICES[lattice]
    alpha = 3.0 * x * abs(np.linalg.det(cell)) / (4.0 * math.pi)
    tensor = dielectric_tensor([[0.1, 0.2, 0.3]], cell, [alpha], tolerance=TOLERANCE)
    expected = (1 + 2 * x) / (1 - x) * np.eye(3)
    # The 1e-6; 1e-9 is met at the default tolerance.
    np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-6 if SLOW else 1e-9)


def test_crystallographic_cell_gives_the_same_as_the_primitive_one():
    x = 0.4
    cell = np.eye(3)
    positions = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    alpha = 3.0 * x / 4.0 / (4.0 * math.pi)
    tensor = dielectric_tensor(positions, cell, [alpha] * 4, tolerance=TOLERANCE)
    np.testing.assert_allclose(
        tensor, (1 + 2 * x) / (1 - x) * np.eye(3), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("damping", [None, 0.39])
@pytest.mark.skipif(SLOW, reason="thousands of images take minutes as plain Python")
def test_splitting_changes_nothing(damping):
    def tensor(splitting):
        return dipole_tensor(
            POSITIONS,
            TRICLINIC,
            POLARIZABILITIES,
            damping=damping,
            splitting=splitting,
        )

    for splitting in (0.35, 0.9, 1.3):
        # The tolerance is 1e-10; damped tensors are of order 1, as are bare ones.
        np.testing.assert_allclose(tensor(splitting), tensor(None), rtol=0, atol=1e-9)


@pytest.mark.skipif(SLOW, reason="hundreds of Ewald sums")
def test_tensor_is_the_second_derivative_of_the_potential_of_charges():
    def field(i, j, a, b, h):
        # Potential of two charges beside j at two points beside i, minus the pair's
        # own one where i = j
        axes = np.eye(3)
        points = POSITIONS[i] + h * np.array([axes[a], -axes[a]])
        ends = POSITIONS[j] + 0.6 * h * np.array([axes[b], -axes[b]])
        charges = np.array([1.0, -1.0]) / (1.2 * h)
        places = np.concatenate([points, ends])
        result = ewald(
            places,
            TRICLINIC,
            [0.0, 0.0, *charges],
            tolerance=1e-13,
            coulomb_constant=1.0,
        )
        potential = result.potential[:2].copy()
        if i == j:
            distance = np.linalg.norm(points[:, None] - ends[None], axis=2)
            potential -= (charges / distance).sum(axis=1)
        return -(potential[0] - potential[1]) / (2.0 * h)

    tensor = dipole_tensor(POSITIONS, TRICLINIC).reshape(3, 3, 3, 3)
    for i, j in [(0, 0), (0, 1), (2, 1)]:
        for a in range(3):
            for b in range(3):
                wide, narrow = (field(i, j, a, b, h) for h in (0.02, 0.01))
                value = (4.0 * narrow - wide) / 3.0
                # The error is of the order h^4 after the extrapolation.
                assert tensor[i, a, j, b] == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize("damping", [0.2, 0.39])
def test_damping_takes_a_smeared_dipole_for_each_pair_and_image(damping):
    # Alone in a large cell the difference is that of the one pair.
    cell = 12.0 * np.eye(3)
    step = np.array([0.7, -0.3, 0.5])
    alphas = [0.8, 0.4]
    settings = {"tolerance": 1e-4 if SLOW else 1e-10}
    damped = dipole_tensor([[0] * 3, step], cell, alphas, damping=damping, **settings)
    bare = dipole_tensor([[0] * 3, step], cell, **settings)
    r = np.linalg.norm(step)
    u3 = damping * r**3 / math.sqrt(0.8 * 0.4)
    expected = -3 * np.outer(step, step) / r**5 * (1 + u3) * math.exp(-u3)
    expected += np.eye(3) / r**3 * math.exp(-u3)
    np.testing.assert_allclose((damped - bare)[:3, 3:], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose((damped - bare)[:3, :3], 0.0, rtol=0, atol=1e-12)


def test_tensor_is_symmetric_and_free_of_traces_but_for_lorentz_field():
    tensor = dipole_tensor(POSITIONS, TRICLINIC, tolerance=TOLERANCE)
    np.testing.assert_allclose(tensor, tensor.T, rtol=0, atol=1e-13)
    # Without the uniform part, 4π/V, the field has no divergence.
    traces = np.einsum("iaja->ij", tensor.reshape(3, 3, 3, 3))
    lorentz = 4.0 * math.pi / abs(np.linalg.det(TRICLINIC))
    np.testing.assert_allclose(traces, lorentz, rtol=0, atol=10 * TOLERANCE)


def test_dielectric_tensor_turns_with_the_crystal_and_heeds_no_translation():
    settings = {"damping": 0.39, "tolerance": TOLERANCE}
    tensor = dielectric_tensor(POSITIONS, TRICLINIC, POLARIZABILITIES, **settings)
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    moved = POSITIONS + [3.0, -7.0, 0.4] + [[0], [1], [-2]] * TRICLINIC[:1]
    turned = dielectric_tensor(
        moved @ turn.T, TRICLINIC @ turn.T, POLARIZABILITIES, **settings
    )
    np.testing.assert_array_equal(tensor, tensor.T)
    np.testing.assert_allclose(
        turned, turn @ tensor @ turn.T, rtol=0, atol=20 * TOLERANCE
    )
    order = [2, 0, 1]
    permuted = dielectric_tensor(
        POSITIONS[order], TRICLINIC, POLARIZABILITIES[order], **settings
    )
    np.testing.assert_allclose(permuted, tensor, rtol=0, atol=20 * TOLERANCE)


@pytest.mark.skipif(SLOW, reason="54 dipoles take minutes as plain Python")
def test_dielectric_tensor_of_a_supercell_is_the_same():
    shifts = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    positions = (POSITIONS[None] + (shifts @ TRICLINIC)[:, None]).reshape(-1, 3)
    single = dielectric_tensor(POSITIONS, TRICLINIC, POLARIZABILITIES, damping=0.39)
    alphas = np.tile(POLARIZABILITIES, 8)
    eight = dielectric_tensor(positions, 2 * TRICLINIC, alphas, damping=0.39)
    np.testing.assert_allclose(eight, single, rtol=0, atol=1e-9)


def test_far_apart_the_susceptibility_is_the_sum_of_the_polarizabilities():
    cell = 40.0 * np.eye(3)
    positions = [[0, 0, 0], [20, 20, 20]]
    tensor = dielectric_tensor(positions, cell, [0.5, 1.0], tolerance=1e-4)
    x = 4.0 * math.pi * 1.5 / (3.0 * 40.0**3)
    np.testing.assert_allclose(tensor, np.eye(3) * (1 + 3 * x), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": [[0, 0]]}, r"positions must have shape \(n, 3\), got \(1, 2\)"),
        ({"positions": np.empty((0, 3))}, "at least one dipole, got none"),
        ({"positions": [[0, 0, np.nan]]}, "positions must be finite, got nan"),
        ({"cell": np.zeros((3, 3))}, "three linearly independent vectors"),
        ({"polarizabilities": None}, "one number per position, got None"),
        ({"polarizabilities": [1, 2]}, r"shape \(1,\) as there are 1 positions"),
        ({"polarizabilities": [0.0]}, "must be positive, got 0 at index 0"),
        ({"polarizabilities": [1.0]}, "grow without bound, got up to 1 Å³"),
        ({"damping": -1.0}, "damping must be a positive number, got -1.0"),
        ({"splitting": 0.0}, "splitting must be a positive number, got 0.0"),
        ({"tolerance": 1.0}, "tolerance must lie between 1e-14 and 0.01, got 1.0"),
        (
            {"positions": [[0, 0, 0], [0, 0, 1]], "polarizabilities": [0.1, 0.1]},
            r"dipoles 0 and 1 both at \[0.0, 0.0, 0.0\]",
        ),
    ],
)
def test_wrong_input_gives_one_clear_error(changes, message):
    settings = {
        "positions": [[0, 0, 0]],
        "cell": np.eye(3),
        "polarizabilities": [0.1],
        "tolerance": 1e-3,
    }
    with pytest.raises(ValueError, match=message):
        dielectric_tensor(**{**settings, **changes})


def test_damping_without_polarizabilities_is_refused():
    with pytest.raises(ValueError, match="must come with polarizabilities, got none"):
        dipole_tensor([[0, 0, 0]], np.eye(3), damping=0.39)


def test_clausius_mossotti_is_what_a_cubic_lattice_has():
    alpha, side = 1.3, 2.6
    tensor = dielectric_tensor([[0, 0, 0]], side * np.eye(3), [alpha])
    epsilon = np.trace(tensor) / 3.0
    assert clausius_mossotti(epsilon, side**3) == pytest.approx(alpha, rel=1e-8)
    assert dielectric_constant(alpha, side**3) == pytest.approx(epsilon, rel=1e-8)
