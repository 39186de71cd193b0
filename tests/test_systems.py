import math
import re

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from lode.systems import (
    System,
    cell_array,
    finite_array,
    structures,
    system,
)

CELL = np.array([[4.0, 0, 0], [1, 5, 0], [-2, 1, 6]])


def water(**options):
    return Atoms([8, 1, 1], [[0, 0, 0], [0, 0, 1], [0, 1, 0]], **options)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_positions_that_are_not_finite_are_an_error(value):
    atoms = water()
    atoms.positions[1, 2] = value
    with pytest.raises(
        ValueError,
        match=rf"positions must be finite, got {value} at index \(1, 2\) \(frame 1\)",
    ):
        structures([water(), atoms])


@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("value", [1e151, -1e300])
def test_numbers_whose_squares_overflow_are_an_error(value, pbc):
    message = r"must be at most 1e\+150, got " + re.escape(str(value))
    for name in ("positions", "initial_charges"):
        atoms = water(cell=CELL, pbc=pbc)
        atoms.set_initial_charges([0.0, 1.0, -1.0])
        atoms.arrays[name].flat[1] = value
        with pytest.raises(ValueError, match=message):
            system(atoms)
    with pytest.raises(ValueError, match="cell " + message):
        cell_array(CELL + [0, 0, value])


def test_error_names_the_masked_entry():
    values = np.ma.masked_array(np.ones((3, 3)), mask=np.arange(9).reshape(3, 3) == 5)
    message = r"must not be masked, as at index \(1, 2\)"
    for masked in (values, list(values)):
        with pytest.raises(ValueError, match="cell " + message):
            finite_array(masked, (3, 3), "cell")
    atoms = water()
    atoms.arrays["positions"] = values
    with pytest.raises(ValueError, match=message + r" \(frame 0\)"):
        structures([atoms])
    atoms = water()
    atoms.arrays["initial_charges"] = values[1]
    with pytest.raises(ValueError, match=r"charges must not .* index \(2,\)"):
        system(atoms)
    np.testing.assert_array_equal(finite_array(values[0], (3,), "row"), np.ones(3))
    with pytest.raises(ValueError, match=r"not be masked, as at index \(1,\)"):
        finite_array([0.0, np.ma.masked], (2,), "charges")


def test_error_names_the_complex_entry():
    for values in (np.array([0.0, 1j, 2j]), [0.0, 1j, 2j]):
        message = r"charges must be real, got 1j at index \(1,\)"
        with pytest.raises(ValueError, match=message):
            finite_array(values, (3,), "charges")
    with pytest.raises(ValueError, match=r"got \(1\+0j\) at index \(0, 0\)"):
        finite_array(np.ones((3, 3), dtype=complex), (3, 3), "cell")


@pytest.mark.parametrize("kind", [">f8", "f4", "i8", "?", "O"])
def test_numbers_of_any_kind_become_float64(kind):
    array = finite_array(np.eye(3).astype(kind)[:, ::-1], (3, 3), "cell")
    assert array.dtype == np.dtype("=f8")
    np.testing.assert_array_equal(array, np.eye(3)[:, ::-1])


def test_empty_list_is_an_error():
    with pytest.raises(ValueError, match="at least one structure, got an empty list"):
        structures([])


def test_frame_without_atoms_is_an_error():
    with pytest.raises(ValueError, match=r"at least one atom, got none \(frame 1\)"):
        structures([water(), Atoms()])
    with pytest.raises(ValueError, match="at least one atom, got none"):
        structures(Atoms())


@pytest.mark.parametrize("number", [0, -1])
def test_atoms_that_are_no_elements_are_an_error(number):
    atoms = water()
    atoms.numbers[2] = number
    message = rf"must be positive, got {number} at index 2 \(frame 1\)"
    with pytest.raises(ValueError, match=message):
        structures([water(), atoms])


@pytest.mark.parametrize(
    "cell",
    [
        np.zeros((3, 3)),
        np.diag([1.0, 1.0, 0.0]),
        [[1, 0, 0], [0, 1, 0], [1, 1, 0]],
        [[1, 0, 0], [0, 1, 0], [1, 1, 1e-9]],
        # Its lattice has a vector of 0.01 Å.
        [[1, 0, 0], [0, 1, 0], [1, 1, 0.01]],
        1e-300 * np.eye(3),
        1e-100 * np.eye(3),
        0.09 * np.eye(3),
    ],
)
def test_singular_or_tiny_cell_of_a_periodic_frame_is_an_error(cell):
    with pytest.raises(ValueError, match="three linearly independent vectors.* got"):
        system(water(cell=cell, pbc=True))
    assert not system(water(cell=cell, pbc=False)).periodic


@pytest.mark.parametrize("value", [0.0, 1e-300, 0.09, math.nan])
@pytest.mark.parametrize("pbc", [[0, 1, 0], [1, 1, 0], [0, 1, 1]])
def test_error_names_a_period_that_is_none(pbc, value):
    cell = np.diag([4.0, value, 5.0])
    wanted = {1: "a vector that is not zero", 2: "two linearly"}[sum(pbc)]
    message = rf"have {wanted}.* cell\[1\] = \[0.0, {value}, 0.0\].*\(frame 1\)"
    if math.isnan(value):
        message = r"cell must be finite, got nan at index \(1, 1\) \(frame 1\)"
    with pytest.raises(ValueError, match=message):
        structures([water(), water(cell=cell, pbc=pbc)])


def test_parallel_periods_are_an_error():
    cell = [[1, 2, 0], [0, 0, 3], [2, 4, 1e-8]]
    message = r"two linearly independent vectors.* cell\[0\] = .* cell\[2\] = "
    with pytest.raises(ValueError, match=message):
        system(water(cell=cell, pbc=[1, 0, 1]))
    assert system(water(cell=cell, pbc=[1, 1, 0])).pbc == (True, True, False)


@pytest.mark.parametrize("pbc", [[0, 0, 1], [0, 1, 1], [1, 0, 1]])
def test_slab_and_wire_keep_their_periods_and_get_orthogonal_vectors(pbc):
    atoms = water(cell=CELL, pbc=pbc)
    atoms.positions += [100.0, -50.0, 30.0]
    checked = system(atoms)
    periods, others = checked.cell[np.array(pbc) == 1], checked.cell[np.array(pbc) == 0]
    np.testing.assert_array_equal(periods, CELL[np.array(pbc) == 1])
    np.testing.assert_allclose(others @ periods.T, 0.0, atol=1e-14)
    assert checked.pbc == tuple(map(bool, pbc))
    assert not checked.periodic
    assert not checked.finite
    assert checked.volume == pytest.approx(abs(np.linalg.det(checked.cell)), rel=1e-13)
    moves = (atoms.positions - checked.positions) @ np.linalg.inv(checked.cell)
    np.testing.assert_allclose(moves, np.round(moves) * pbc, atol=1e-13)
    inside = (checked.positions @ checked.inverse)[:, np.array(pbc) == 1]
    assert (inside > -1e-13).all()
    assert (inside < 1 + 1e-13).all()


@pytest.mark.parametrize("frames", ["x.xyz", 3, None])
def test_frames_of_another_type_are_an_error(frames):
    with pytest.raises(TypeError, match="frames must be an ase.Atoms or a sequence"):
        structures(frames)


def test_frame_of_another_type_is_an_error():
    with pytest.raises(TypeError, match=r"an ase.Atoms, got ndarray \(frame 1\)"):
        structures([water(), np.zeros((3, 3))])


@pytest.mark.parametrize("cell", [np.eye(2), [1, 2, 3], "cell"])
def test_cell_of_another_shape_is_an_error(cell):
    with pytest.raises(ValueError, match="cell must "):
        cell_array(cell)


def test_array_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"must have shape \(n, 3\), got \(4, 2\)"):
        finite_array(np.zeros((4, 2)), (None, 3), "positions")


def test_arrays_are_those_of_the_frame():
    finite = system(water())
    assert isinstance(finite, System)
    assert len(finite) == 3
    assert finite.volume == 0.0
    np.testing.assert_array_equal(finite.positions, water().positions)
    np.testing.assert_array_equal(finite.species, [8, 1, 1])
    periodic = system(water(cell=CELL, pbc=True))
    assert periodic.periodic
    assert periodic.volume == pytest.approx(120.0, rel=1e-14)
    assert system(periodic) is periodic


def test_arrays_are_not_shared_with_the_frame():
    atoms = water()
    checked = system(atoms)
    checked.positions[:] = 7.0
    assert not (atoms.positions == 7.0).any()


@pytest.mark.parametrize("skew", [0.0, 1.0, -2.7])
def test_inverse_volume_and_heights_are_those_of_the_cell(skew):
    cell = CELL + skew * np.tri(3, k=-1) - 0.1 * skew * np.tri(3, k=-1).T
    periodic = system(water(cell=cell[[1, 0, 2]], pbc=True))
    expected = np.linalg.inv(periodic.cell)
    np.testing.assert_allclose(periodic.inverse, expected, rtol=1e-13, atol=1e-15)
    assert periodic.volume == pytest.approx(abs(np.linalg.det(cell)), rel=1e-13)
    heights = 1.0 / np.linalg.norm(expected, axis=0)
    np.testing.assert_allclose(periodic.heights, heights, rtol=1e-13)


@settings(deadline=None, derandomize=True, database=None)
@given(
    shift=st.tuples(*[st.floats(-1e4, 1e4)] * 3),
    skew=st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_wrapping_moves_atoms_by_lattice_vectors_into_the_cell(shift, skew):
    cell = CELL.copy()
    cell[[1, 2, 2], [0, 0, 1]] = skew
    positions = np.array([[0.0, 0, 0], [1, 2, 3]]) + shift
    inside = system(Atoms("H2", positions, cell=cell, pbc=True)).positions
    fractional = inside @ np.linalg.inv(cell)
    # Rounding of coordinates of 10^4 Å.
    assert (fractional > -1e-10).all()
    assert (fractional < 1 + 1e-10).all()
    moves = (positions - inside) @ np.linalg.inv(cell)
    np.testing.assert_allclose(moves, np.round(moves), atol=1e-10)


def test_species_are_numbered_in_ascending_order():
    species, channel_i = structures([water(), Atoms([3])]).channels()
    assert species == (1, 3, 8)
    np.testing.assert_array_equal(channel_i, [2, 0, 0, 1])


def test_species_given_keep_their_order():
    for _ in range(2):
        species, channel_i = structures(water()).channels([8, 6, 1])
        # What is cached for the next frame is nobody's to change.
        assert channel_i[0] == 0
        channel_i -= 1
    species, channel_i = structures(water()).channels([8, 6, 1])
    assert species == (8, 6, 1)
    np.testing.assert_array_equal(channel_i, [0, 2, 2])


def test_unknown_species_is_an_error():
    with pytest.raises(ValueError, match=r"among \[1, 6\], got unknown \[8\]"):
        structures(water()).channels([6, 1])


def test_structures_pass_unchanged_and_are_counted():
    checked = structures(iter([water(), Atoms([3])]))
    assert structures(checked) is checked
    assert (len(checked), checked.n_frames) == (2, 2)
    np.testing.assert_array_equal(checked.sizes, [3, 1])
    np.testing.assert_array_equal(checked.frame_index, [0, 0, 0, 1])
    np.testing.assert_array_equal(checked.atom_index, [0, 1, 2, 0])
    np.testing.assert_array_equal(checked.chosen([1]).species, [3])


@pytest.mark.parametrize("species", [[], [1, 1, 8], [-1, 1, 8], [1.5, 8], ["O"]])
def test_species_that_are_not_different_atomic_numbers_are_an_error(species):
    with pytest.raises(ValueError, match="species must be different atomic numbers"):
        structures(water()).channels(species)
