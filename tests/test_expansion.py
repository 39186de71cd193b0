import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import (
    finite_field,
    harmonics,
    pair_function,
    periodic_field,
    projection,
    rotated,
    shifted_cosine,
)
from scipy.spatial.transform import Rotation

import lode
from lode import expansion as module
from lode import waves
from lode.core import expansion as core
from lode.fields import GaussianDensity, PowerLawPotential
from lode.radial import RadialBasis, padded
from lode.specification import build, specification
from lode.systems import systems

# Interpreted loops are a thousand times slower.
SMALL = numba.config.DISABLE_JIT
L_MAX = 2 if SMALL else 4
N_MAX = 2 if SMALL else 4
TRICLINIC = np.array([[5.1, 0.0, 0.0], [2.1, 4.4, 0.0], [-1.6, 1.7, 4.9]])
KINDS = ("gto", "polynomial", "laplacian", "monomial")
COMPACT = KINDS[1:]
# Random rotations, the same in every run.
random_rotation = st.integers(0, 2**32 - 1).map(
    lambda seed: Rotation.random(random_state=seed).as_matrix()
)
few = settings(
    max_examples=1 if SMALL else 4, deadline=None, derandomize=True, database=None
)


def coulomb(smearing=0.8):
    return PowerLawPotential(1, smearing)


def expansion(field, basis=None, max_angular=L_MAX, **options):
    basis = basis or RadialBasis.gto(N_MAX, 2.5)
    return lode.SphericalExpansion(field, basis, max_angular, **options)


def ions(seed=0, n=4, side=4.0, species=(11, 17), **options):
    rng = np.random.default_rng(seed)
    numbers = np.resize(species, n)
    return Atoms(numbers, rng.uniform(0, side, (n, 3)), **options)


def crystal(seed=0, n=4, cell=TRICLINIC, species=(11, 17)):
    rng = np.random.default_rng(seed)
    atoms = Atoms(np.resize(species, n), cell=cell, pbc=True)
    atoms.set_scaled_positions(rng.uniform(0, 1, (n, 3)))
    return atoms


def relative(value, expected):
    return np.abs(value - expected).max() / np.abs(expected).max()


FIELDS = [GaussianDensity(0.5), coulomb(), *map(PowerLawPotential, (3, 6), (0.8, 0.8))]


def names(value):
    return f"p={value.exponent:g}" if hasattr(value, "exponent") else None


# --- Harmonics ---------------------------------------------------------------


def test_harmonics_are_those_of_scipy():
    l_max = 6 if SMALL else 30
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    vectors = np.concatenate([vectors, 7 * axes])
    # Rounding in the recurrences grows with l.
    np.testing.assert_allclose(
        core.harmonics(vectors, l_max), harmonics(vectors, l_max), atol=1e-12
    )


def test_first_harmonics_are_y_z_x_without_phase():
    vector = np.array([0.48, 0.6, 0.64])
    y_m = core.harmonics(vector[None], 1)[0]
    expected = math.sqrt(3 / (4 * math.pi)) * vector[[1, 2, 0]]
    np.testing.assert_allclose(y_m[1:], expected, rtol=1e-15)


# --- Eq. 7 by quadrature -----------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "p"),
    [
        *[("gto", p) for p in (1, 2, 2.5, 3, 4, 6, 9)],
        *[(kind, p) for kind in COMPACT for p in (1, 4)],
    ],
)
def test_finite_sums_agree_with_quadrature_of_equation_7(kind, p):
    field, basis = PowerLawPotential(p, 0.8), getattr(RadialBasis, kind)(N_MAX, 2.5)
    atoms = ions(3, 4)
    c = expansion(field, basis, tolerance=1e-10).compute(atoms).values
    for centre in (0, 3):
        sources = atoms.positions[atoms.numbers == 11]
        one = np.ones(len(sources))
        values = finite_field(field.real, atoms.positions[centre], sources, one)
        expected = projection(values, basis, L_MAX, panels=6, order=24)
        # The grid resolves a field of width 0.8 Å to ten digits.
        assert np.abs(c[centre, 0] - expected).max() <= 1e-9 * np.abs(c).max()


@pytest.mark.parametrize("kind", COMPACT)
def test_bare_charges_outside_the_cutoff_agree_with_quadrature(kind):
    basis = getattr(RadialBasis, kind)(N_MAX, 1.5)
    # A pair of ions 3 Å apart, no closer to a centre than twice the cutoff.
    atoms = Atoms([11, 17, 17], [[0, 0, 0], [1, 2, 2], [-3, 3, 1]])
    c = expansion(
        coulomb(0.0), basis, tolerance=1e-10, species=(11, 17), center_atom_weight=0.0
    ).compute(atoms)
    field = finite_field(coulomb(0).real, np.zeros(3), atoms.positions[1:], [1, 1])
    expected = projection(field, basis, L_MAX)
    np.testing.assert_allclose(
        c.values[0, 1], expected, atol=1e-9 * abs(expected).max()
    )
    # Its own field was left out.
    assert not c.values[0, 0].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", [0.4, 1.1, 2.4999, 2.5001, 6.0, 300.0])
def test_bare_charge_at_any_distance_agrees_with_quadrature(kind, distance):
    basis = getattr(RadialBasis, kind)(N_MAX, 2.5)
    direction = np.array([2.0, -1.0, 2.0]) / 3
    atoms = Atoms([11, 17], [np.zeros(3), distance * direction])
    c = expansion(coulomb(0.0), basis, tolerance=1e-10).compute(atoms).values
    f_ln = pair_function(coulomb(0).real, basis, L_MAX, distance)
    l_m = np.floor(np.sqrt(np.arange((L_MAX + 1) ** 2))).astype(int)
    expected = harmonics(direction[None], L_MAX)[0][:, None] * f_ln[l_m]
    scale = abs(c[0, 0]).max()
    np.testing.assert_allclose(c[0, 1], expected, atol=1e-9 * scale)
    np.testing.assert_allclose(
        c[1, 0], expected * (-1.0) ** l_m[:, None], atol=1e-9 * scale
    )


@pytest.mark.parametrize("kind", COMPACT)
def test_smeared_charges_converge_to_bare_ones(kind):
    basis = getattr(RadialBasis, kind)(N_MAX, 1.5)
    atoms = Atoms([11, 17], [[0, 0, 0], [1, 2, 2]])
    options = {"tolerance": 1e-11, "center_atom_weight": 0.0}
    bare = expansion(coulomb(0.0), basis, **options).compute(atoms).values
    # Erf(1.5 / √2σ) is one to 1e-12 for σ = 0.2: outside, only rounding is left.
    sharp = expansion(coulomb(0.2), basis, **options).compute(atoms).values
    assert relative(sharp, bare) < 1e-9
    # A charge inside the cutoff differs by the second moment of its smearing, σ²;
    # the next term is of relative order (σ / 0.2 Å)².
    atoms = Atoms([11, 17], [[0, 0, 0], [0.3, 0.5, 0.4]])
    bare = expansion(coulomb(0.0), basis, **options).compute(atoms).values
    error = [
        relative(expansion(coulomb(s), basis, **options).compute(atoms).values, bare)
        for s in (0.1, 0.05)
    ]
    assert 3.3 < error[0] / error[1] < 4.7


@pytest.mark.parametrize("p", [1, 2, 3, 4, 6])
def test_periodic_sums_agree_with_quadrature_of_the_plane_wave_field(p):
    field, basis = PowerLawPotential(p, 1.0), RadialBasis.monomial(2, 2.0)
    cell = 0.7 * TRICLINIC
    atoms = crystal(5, 2, cell)
    options = {"tolerance": 1e-11, "method": "split", "split": 1.6}
    c = expansion(field, basis, 2, **options).compute(atoms)
    zero = 0.0 if p <= 3 else field.fourier_at_zero()
    values = periodic_field(
        field.fourier, atoms.positions[0], atoms.positions[1:], cell, 8.0, zero
    )
    # Harmonics of the cell up to 8 / Å, within 2 Å: degree 40.
    expected = projection(values, basis, 2, panels=3, order=20)
    assert np.abs(c.values[0, 1] - expected).max() <= 1e-9 * abs(c.values).max()


@pytest.mark.parametrize("cutoff", ["step", "cosine", "wide"])
@pytest.mark.parametrize("pbc", [False, True])
def test_density_agrees_with_quadrature_of_neighbours_within_the_cutoff(cutoff, pbc):
    function = {
        "step": lode.StepCutoff(2.8),
        "cosine": lode.ShiftedCosineCutoff(2.8, 0.9),
        "wide": lode.ShiftedCosineCutoff(4.0, 4.0),
    }[cutoff]
    field, basis = GaussianDensity(0.6), RadialBasis.gto(2, 2.5)
    atoms = crystal(2, 3) if pbc else ions(2, 5)
    weight = 0.3
    c = expansion(
        field, basis, 2, cutoff_function=function, center_atom_weight=weight,
        tolerance=1e-10,
    ).compute(atoms)  # fmt: skip
    shifts = np.array(list(np.ndindex(7, 7, 7))) - 3 if pbc else np.zeros((1, 3))
    for a, z in enumerate(c.species):
        sources, weights = [], []
        for i in np.flatnonzero(atoms.numbers == z):
            for shift in shifts:
                place = atoms.positions[i] + shift @ atoms.cell.array
                r = np.linalg.norm(place - atoms.positions[0])
                inside = shifted_cosine(r, function.radius, function.width or 1e-300)
                if i == 0 and not shift.any():
                    inside = weight
                if inside:
                    sources.append(place)
                    weights.append(inside)
        values = finite_field(field.real, atoms.positions[0], sources, weights)
        expected = projection(values, basis, 2, panels=8, order=28)
        np.testing.assert_allclose(
            c.values[0, a], expected, atol=1e-9 * abs(c.values).max()
        )


# --- Finite and periodic -----------------------------------------------------


@pytest.mark.parametrize("distance", [0.8, 1.5, 2.7])
def test_radial_scaling_weighs_a_neighbour_by_its_distance(distance):
    pair = Atoms("HO", [[0, 0, 0], np.array([1.0, 2.0, -2.0]) / 3.0 * distance])
    arguments = (lode.GaussianDensity(0.4), lode.RadialBasis.gto(4, 3.0), 3)
    plain = lode.SphericalExpansion(*arguments).compute(pair).values
    scaling = lode.RadialScaling(scale=1.5, exponent=4.0, rate=2.0)
    scaled = lode.SphericalExpansion(*arguments, scaling=scaling).compute(pair).values
    weight = 2.0 / (2.0 + (distance / 1.5) ** 4)
    # Species of the neighbour, then of the centre itself, which keeps its weight.
    np.testing.assert_allclose(scaled[0, 1], weight * plain[0, 1], atol=2e-6)
    np.testing.assert_allclose(scaled[1, 0], weight * plain[1, 0], atol=2e-6)
    np.testing.assert_allclose(scaled[0, 0], plain[0, 0], atol=1e-12)


def test_impossible_radial_scaling_is_refused():
    for arguments, message in (
        ({"scale": 0.0, "exponent": 2.0}, "scale must be a positive length"),
        ({"scale": 1.0, "exponent": -2.0}, "exponent must be positive"),
        ({"scale": 1.0, "exponent": 2.0, "rate": np.nan}, "rate must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            lode.RadialScaling(**arguments)
    scaling = lode.RadialScaling(scale=2.0, exponent=4.0)
    with pytest.raises(ValueError, match="scaling must be None for a potential"):
        lode.SphericalExpansion(
            lode.PowerLawPotential(1, 1.0),
            lode.RadialBasis.monomial(2, 2.0),
            2,
            scaling=scaling,
        )
    with pytest.raises(TypeError, match="scaling must be"):
        lode.SphericalExpansion(
            lode.GaussianDensity(0.5), lode.RadialBasis.gto(2, 2.0), 2, scaling=2.0
        )


def test_neutral_dimer_in_growing_boxes_converges_as_one_over_the_volume():
    dimer = Atoms([11, 17], [[0, 0, 0], [0.8, 1.2, 1.6]])
    e = expansion(coulomb(), max_angular=1, tolerance=1e-10)
    finite = e.compute(dimer).values
    errors = []
    for side in (15.0, 30.0, 60.0):
        box = dimer.copy()
        box.set_cell(side * np.eye(3))
        box.set_pbc(True)
        c = e.compute(box).values
        errors.append(np.abs((c - finite)[:, 0] - (c - finite)[:, 1]).max())
    # Dipoles of the images: 1/L³; the next moments are of relative order (d/L)².
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize("p", [4, 6])
def test_dimer_in_growing_boxes_converges_as_the_power_of_its_images(p):
    # The field of all images of all atoms at distance L is L^-p for p > 3.
    dimer = Atoms([11, 17], [[0, 0, 0], [0.8, 1.2, 1.6]])
    e = expansion(PowerLawPotential(p, 0.8), max_angular=1, tolerance=1e-11)
    finite = e.compute(dimer).values
    errors = []
    for side in (14.0, 28.0):
        box = dimer.copy()
        box.set_cell(side * np.eye(3))
        box.set_pbc(True)
        errors.append(np.abs(e.compute(box).values - finite).max())
    # Corrections of relative order p² (extent / L)².
    assert errors[0] / errors[1] == pytest.approx(2**p, rel=0.3)


# --- The splitting -----------------------------------------------------------


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-10])
@pytest.mark.parametrize("p", [1, 2, 3, 4, 6, 9])
def test_result_does_not_depend_on_the_split(p, tolerance):
    sigma = 0.9
    field = PowerLawPotential(p, sigma)
    atoms = crystal(1, 3 if SMALL else 6)
    exact = expansion(field, tolerance=1e-13, method="waves").compute(atoms).values
    for s in (1.2, 1.7, 2.5, 4.0) if p == 1 and not SMALL else (1.2, 4.0):
        e = expansion(field, tolerance=tolerance, method="split", split=s * sigma)
        assert relative(e.compute(atoms).values, exact) <= tolerance
    for method in ("auto", "waves") if p == 1 else ("auto",):
        e = expansion(field, tolerance=tolerance, method=method)
        assert relative(e.compute(atoms).values, exact) <= tolerance


def test_frames_of_like_size_share_the_choice_of_the_split():
    e = expansion(coulomb(0.83))
    before = module._cheapest_path.cache_info().misses
    volumes = 2**11.5 * np.linspace(0.97, 1.03, 50)
    found = {e.path(n, 2, v) for n in (62, 64, 66) for v in volumes}
    assert len(found) == 1
    assert module._cheapest_path.cache_info().misses - before == 1
    assert e.splitting(1000, 2, 1e5) > e.splitting(1, 2, 1e2)


@pytest.mark.parametrize("kind", KINDS)
def test_result_does_not_depend_on_the_split_for_any_basis(kind):
    field, basis = coulomb(0.6), getattr(RadialBasis, kind)(N_MAX, 3.0)
    atoms = crystal(7, 3)
    exact = expansion(field, basis, tolerance=1e-13, method="waves").compute(atoms)
    for tolerance in (1e-5, 1e-10):
        e = expansion(field, basis, tolerance=tolerance, split=1.3)
        assert relative(e.compute(atoms).values, exact.values) <= tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_bare_periodic_charges_do_not_depend_on_the_split(kind):
    basis, atoms = getattr(RadialBasis, kind)(N_MAX, 2.0), crystal(3, 4)
    a, b = (
        expansion(coulomb(0.0), basis, tolerance=1e-11, split=s).compute(atoms).values
        for s in (1.0, 1.9)
    )
    # Within 0.3 Å of an atom the table of a bare charge is not controlled.
    distance = atoms.get_all_distances(mic=True)[np.triu_indices(4, 1)]
    assert distance.min() > 0.3
    assert relative(a, b) <= 1e-9


@pytest.mark.parametrize("p", [1, 3, 4, 9])
@pytest.mark.parametrize("side", [1.0, 2.0])
def test_one_atom_cells_far_smaller_than_the_cutoff_are_right(p, side):
    # A hundred neighbours in the cutoff nearly cancel their background: the error is
    # relative to what one atom has. What lies beyond a table's range is estimated for
    # 0.05 atoms in an Å³ and grows in denser cells.
    field, tolerance = PowerLawPotential(p, 0.5), 1e-6
    atoms = Atoms([3], [[0.1, 0.2, 0.3]], cell=side * np.eye(3), pbc=True)
    exact = expansion(field, tolerance=1e-13, method="waves").compute(atoms).values
    alone = Atoms([3], [[0.0, 0.0, 0.0]])
    scale = np.abs(expansion(field).compute(alone).values).max()
    for split in (0.7, 1.4):
        c = expansion(field, tolerance=tolerance, split=split).compute(atoms).values
        assert np.abs(c - exact).max() <= tolerance * scale * max(1.0, 20.0 / side**3)


# --- Symmetries --------------------------------------------------------------

# Errors of the method itself must not enter 1e-10.
TIGHT = {"tolerance": 1e-11}


@pytest.mark.parametrize("field", FIELDS, ids=names)
@pytest.mark.parametrize("pbc", [False, True])
@few
@given(rotation=random_rotation)
def test_coefficients_rotate_as_harmonics(field, pbc, rotation):
    atoms = crystal(4, 4) if pbc else ions(4, 5)
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    e = expansion(field, **TIGHT)
    expected = rotated(e.compute(atoms).values, rotation)
    assert relative(e.compute(turned).values, expected) <= 1e-10


@pytest.mark.parametrize("field", FIELDS, ids=names)
@pytest.mark.parametrize("pbc", [False, True])
@few
@given(shift=st.tuples(*[st.floats(-30, 30)] * 3))
def test_translation_changes_nothing(field, pbc, shift):
    atoms = crystal(5, 4) if pbc else ions(5, 5)
    moved = atoms.copy()
    moved.positions += np.array(shift)
    e = expansion(field, **TIGHT)
    assert relative(e.compute(moved).values, e.compute(atoms).values) <= 1e-10


@pytest.mark.parametrize("field", FIELDS, ids=names)
@pytest.mark.parametrize("pbc", [False, True])
def test_permutation_permutes_the_centres(field, pbc):
    atoms = crystal(6, 5) if pbc else ions(6, 5)
    order = np.random.default_rng(1).permutation(5)
    e = expansion(field, **TIGHT)
    c, d = e.compute(atoms), e.compute(atoms[order])
    assert relative(d.values, c.values[order]) <= 1e-10
    np.testing.assert_array_equal(d.center_species, c.center_species[order])


@pytest.mark.parametrize("field", FIELDS, ids=names)
@pytest.mark.parametrize("pbc", [False, True])
def test_inversion_changes_the_sign_of_odd_l(field, pbc):
    atoms = crystal(7, 4) if pbc else ions(7, 5)
    inverted = atoms.copy()
    inverted.set_positions(-atoms.positions)
    e = expansion(field, **TIGHT)
    l_m = np.floor(np.sqrt(np.arange((L_MAX + 1) ** 2)))
    expected = e.compute(atoms).values * ((-1) ** l_m)[:, None]
    assert relative(e.compute(inverted).values, expected) <= 1e-10


@pytest.mark.parametrize("field", FIELDS, ids=names)
@pytest.mark.parametrize("repeat", [(2, 1, 1), (1, 2, 3)])
def test_supercell_has_the_coefficients_of_its_cell(field, repeat):
    atoms = crystal(8, 2, 0.8 * TRICLINIC)
    e = expansion(field, **TIGHT)
    copies = math.prod(repeat)
    expected = np.tile(e.compute(atoms).values, (copies, 1, 1, 1))
    assert relative(e.compute(atoms.repeat(repeat)).values, expected) <= 1e-10


@pytest.mark.parametrize("p", [1, 6])
def test_other_lattice_vectors_of_the_same_crystal_change_nothing(p):
    atoms = crystal(9, 3)
    other = atoms.copy()
    # Unimodular, strongly skewed; one matrix is left-handed.
    e = expansion(PowerLawPotential(p, 0.8), **TIGHT)
    expected = e.compute(atoms).values
    for change in (
        [[1, 2, 0], [0, 1, 0], [1, 0, 1]],
        [[0, 1, 0], [1, 0, 0], [0, 3, 1]],
    ):
        other.set_cell(np.array(change) @ atoms.cell.array)
        assert relative(e.compute(other).values, expected) <= 1e-10


# --- Centres, species, labels ------------------------------------------------


@pytest.mark.parametrize("field", FIELDS, ids=names)
@pytest.mark.parametrize("pbc", [False, True])
def test_centre_weight_scales_only_the_centres_own_field(field, pbc):
    atoms = crystal(1, 3) if pbc else ions(1, 4)
    alone = Atoms([11], [[0, 0, 0]])
    own = expansion(field, **TIGHT).compute(alone).values[0, 0]
    whole = expansion(field, **TIGHT).compute(atoms).values
    part = expansion(field, center_atom_weight=-0.4, **TIGHT).compute(atoms).values
    expected = whole.copy()
    centres = np.arange(len(atoms))
    expected[centres, (atoms.numbers == 17).astype(int)] -= 1.4 * own
    assert relative(part, expected) <= 1e-11
    assert not own[1:].any()


@pytest.mark.parametrize("field", FIELDS, ids=names)
def test_a_neighbour_on_its_centre_counts_as_the_centre(field):
    atoms = Atoms([11, 17, 17], [[0.3, 0, 0], [0.3, 0, 0], [2, 1, 0]])
    c = expansion(field, **TIGHT).compute(atoms).values
    alone = expansion(field, **TIGHT).compute(atoms[[0, 2]]).values
    other = c[0, 1] - alone[0, 1]
    assert relative(other[:1], alone[0, 0, :1]) <= 1e-11
    # A table may leave its own rounding errors in l > 0.
    assert np.abs(other[1:]).max() <= 1e-11 * np.abs(other).max()


@pytest.mark.parametrize("field", FIELDS, ids=names)
@pytest.mark.parametrize("pbc", [False, True])
def test_species_asked_for_add_empty_fields_only(field, pbc):
    atoms = crystal(2, 3) if pbc else ions(2, 3)
    plain = expansion(field).compute(atoms)
    assert plain.species == (11, 17)
    wide = expansion(field, species=(17, 1, 11)).compute(atoms)
    assert wide.species == (1, 11, 17)
    call = expansion(field).compute(atoms, species=(1, 11, 17))
    np.testing.assert_array_equal(wide.values, call.values)
    assert not wide.values[:, 0].any()
    # The cost, and with it the split, may depend on the number of fields.
    assert relative(wide.values[:, 1:], plain.values) <= 1e-6


def test_rows_are_labelled_by_frame_atom_and_species():
    frames = [ions(0, 2), ions(1, 3), crystal(2, 2)]
    c = expansion(coulomb()).compute(frames)
    np.testing.assert_array_equal(c.frame_index, [0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(c.atom_index, [0, 1, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(c.center_species, [11, 17, 11, 17, 11, 11, 17])
    assert c.values.shape == (7, 2, (L_MAX + 1) ** 2, N_MAX)
    for frame, atoms in enumerate(frames):
        alone = expansion(coulomb()).compute(atoms).values
        np.testing.assert_array_equal(c.values[c.frame_index == frame], alone)


@pytest.mark.parametrize("n_max", [1, 3, 5])
@pytest.mark.parametrize("l_max", [0, 1])
@pytest.mark.parametrize("pbc", [False, True])
def test_few_functions_are_a_part_of_many(n_max, l_max, pbc):
    # Polynomials of a smaller basis are the first ones of a larger.
    atoms = crystal(1, 3) if pbc else ions(1, 3)
    large = expansion(coulomb(), RadialBasis.polynomial(6, 2.5), 2, **TIGHT)
    small = expansion(coulomb(), RadialBasis.polynomial(n_max, 2.5), l_max, **TIGHT)
    expected = large.compute(atoms).values[:, :, : (l_max + 1) ** 2, :n_max]
    assert relative(small.compute(atoms).values, expected) <= 1e-10


def test_one_atom_alone_has_its_own_field_only():
    c = expansion(coulomb()).compute(Atoms([8], [[5.0, 6.0, 7.0]])).values
    assert c[0, 0, 0].all()
    assert not c[0, 0, 1:].any()


def test_generators_and_single_frames_are_taken():
    frames = [ions(0, 2), ions(1, 3)]
    e = expansion(coulomb())
    listed = e.compute(frames).values
    np.testing.assert_array_equal(e.compute(f for f in frames).values, listed)
    np.testing.assert_array_equal(e.compute(frames[0]).values, listed[:2])
    np.testing.assert_array_equal(e.compute(systems(frames)).values, listed)


def test_input_is_left_as_it_was():
    atoms = crystal(0, 3)
    atoms.positions += 50.0
    before = atoms.copy()
    expansion(coulomb()).compute(atoms)
    assert atoms == before


# --- Compiled loops ------------------------------------------------------------


@numba.njit
def tile(out, r, c, rows, width, left, l, right, d, start, stop, fresh):
    core._add_tile(out, r, c, rows, width, left, l, right, d, start, stop, fresh)


@pytest.mark.parametrize("rows", range(1, core._ROWS + 1))
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_tile_is_a_part_of_a_matrix_product(rows, width, order):
    rng = np.random.default_rng(rows)
    left = np.array(rng.normal(size=(11, 13)), order=order)
    right = rng.normal(size=(13, 20))
    for fresh, start, stop in ((False, 2, 3), (True, 0, 13), (False, 5, 9)):
        out = rng.normal(size=(12, 17))
        expected = out.copy()
        if fresh:
            expected[3 : 3 + rows, 6 : 6 + width] = 0.0
        product = left[2 : 2 + rows, start:stop] @ right[start:stop, 7 : 7 + width]
        expected[3 : 3 + rows, 6 : 6 + width] += product
        tile(out, 3, 6, rows, width, left, 2, right, 7, start, stop, fresh)
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("l_max", [0, 1, 2, 6, 13])
def test_harmonics_side_by_side_are_those_one_by_one(l_max):
    vectors = np.random.default_rng(l_max).normal(size=(24, 3))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    y_mp = np.zeros(((l_max + 1) ** 2, 24))
    for p in range(8, 24, 8):
        factors = core.harmonic_factors(l_max)
        core._lane_harmonics(np.ascontiguousarray(vectors.T), p, l_max, factors, y_mp)
    expected = core.harmonics(vectors, l_max).T
    expected[:, :8] = 0.0
    np.testing.assert_allclose(y_mp, expected, rtol=0, atol=1e-14)


def pair_sums(
    start, vectors, charges, table, step, reach, tail, exponent, cutoff, l_max, shape
):
    """The sums of core.add_pairs, pair by pair."""
    out = np.zeros(shape)
    for row in range(shape[0] * shape[1]):
        for p in range(start[row], start[row + 1]):
            vector = vectors[p]
            r = np.linalg.norm(vector)
            if r < reach or len(tail) == 0:
                interval = min(int(r / step), len(table) - 1)
                t = 2 * (r / step - interval) - 1
                f = t ** np.arange(8) @ table[interval]
            else:
                f = (reach / r) ** (2 * np.arange(len(tail))) @ tail
                f /= np.repeat(r ** (exponent + np.arange(l_max + 1)), shape[3])
            f = f * shifted_cosine(r, *cutoff) if cutoff else f
            f = f * charges[p] if len(charges) else f
            y = core.harmonics(vector[None], l_max)[0]
            for l in range(l_max + 1):
                of_l = slice(l * l, (l + 1) ** 2)
                f_n = f.reshape(l_max + 1, -1)[l]
                out.reshape(-1, *shape[2:])[row, of_l] += np.outer(y[of_l], f_n)
    return out


@pytest.mark.parametrize("n_max", [1, 3, 5, 8, 13])
@pytest.mark.parametrize("l_max", [0, 1, 2, 7])
@pytest.mark.parametrize("kind", ["limit", "cutoff", "tail", "charges"])
def test_pairs_in_batches_are_pairs_one_by_one(n_max, l_max, kind):
    rng = np.random.default_rng(n_max)
    # No neighbours, few, a whole batch, several; many species.
    counts = np.array([[0, 1, 0, 2, 0], [7, 0, 9, 0, 17], [0, 0, 0, 0, 0]])
    if not SMALL:
        counts = np.concatenate([counts, [[33, 31, 0, 64, 1], [100, 0, 0, 0, 3]]])
    start = np.concatenate([[0], np.cumsum(counts)])
    width = padded(n_max)
    vectors = rng.normal(size=(start[-1], 3))
    length = rng.uniform(0.0, 6.0 if kind == "tail" else 3.0, start[-1])
    vectors *= (length / np.linalg.norm(vectors, axis=1))[:, None]
    # A neighbour on the centre.
    vectors[1] = 0.0
    table = rng.normal(size=(5, 8, (l_max + 1) * width))
    tail = rng.normal(size=(3 if kind == "tail" else 0, (l_max + 1) * width))
    cutoff = (3.0, 0.7) if kind == "cutoff" else None
    shape = (*counts.shape, (l_max + 1) ** 2, width)
    out = rng.normal(size=shape)
    charges = rng.normal(size=start[-1] if kind == "charges" else 0)
    arguments = (start, vectors, charges, table, 0.6, 3.0, tail, 1.5)
    expected = out + pair_sums(*arguments, cutoff, l_max, shape)
    core.add_pairs(*arguments, *(cutoff or (math.inf, 0.0)), l_max, out)
    assert relative(out, expected) <= 1e-13


def around(pairs, low, high):
    """Pairs around some centres, as of ``core.sorted_pairs``."""
    if isinstance(pairs, module._ListedPairs):
        return pairs.around(low, high)
    if isinstance(pairs, module._ImagePairs):
        return core.image_pairs(pairs.images, low, high)
    return core.all_pairs(*pairs.arguments, low, high)


def grouped(pairs, n, n_species):
    """Vectors and charges of each centre's neighbours of a species, in fixed order."""
    start, vectors, charges = around(pairs, 0, n)
    assert len(start) == n * n_species + 1
    rows = np.column_stack([vectors, charges] if len(charges) else [vectors])
    found = [rows[a:b] for a, b in zip(start[:-1], start[1:], strict=True)]
    return [v[np.lexsort(np.round(v, 9).T)] for v in found]


def sources(species, charged=False):
    charges = 0.1 + np.arange(len(species)) if charged else np.empty(0)
    return module._Sources(np.asarray(species), charges)


@pytest.mark.parametrize("limit", [0.7, 2.0, 4.0, 9.0])
@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("charged", [False, True])
def test_images_finds_the_pairs_of_a_cell_list(limit, n, charged):
    atoms = crystal(n, n)
    atoms.positions[-1] += np.array([30.0, -30.0, 60.0])
    (system,) = systems(atoms)
    of = sources(np.arange(n) % 3, charged)
    listed = grouped(module._ListedPairs(system, of, 3, limit), n, 3)
    images = module._ImagePairs(system, of, 3, limit)
    for one, other in zip(listed, grouped(images, n, 3), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
    parts = [around(images, j, j + 1)[0][-1] for j in range(n)]
    assert sum(parts) == around(images, 0, n)[0][-1] == sum(map(len, listed))


@pytest.mark.parametrize("edges", [(9, 9, 9), (4, 30, 8), (60, 5, 5)])
@pytest.mark.parametrize("limit", [2.0, 3.0])
def test_layers_of_images_hold_all_near_a_centre(edges, limit):
    # Half of the atoms on a lattice, on faces, with neighbours at the limit itself.
    rng = np.random.default_rng(0)
    lattice = np.stack(np.meshgrid(*map(np.arange, edges)), -1).reshape(-1, 3)
    turns = rng.permutation(lattice / edges)[:400]
    turns[200:] = rng.random((200, 3))
    cell = np.diag(edges) + np.array([[0, 0, 0], [1.0, 0, 0], [-2.0, 1.0, 0]])
    atoms = Atoms(["H"] * 400, turns @ cell, cell=cell, pbc=True)
    (system,) = systems(atoms)
    of = sources(np.arange(400) % 3)
    # Rounding decides at the limit: the two find the same a little beyond it.
    listed = grouped(module._ListedPairs(system, of, 3, limit + 1e-6), 400, 3)
    pairs = module._ImagePairs(system, of, 3, limit + 1e-6)
    for one, other in zip(listed, grouped(pairs, 400, 3), strict=True):
        assert len(one) == len(other)
        gaps = np.linalg.norm(one[:, None] - other, axis=2)
        np.testing.assert_allclose(gaps.min(axis=1, initial=9.0), 0.0, atol=1e-9)
    few = 0
    for j in range(400):
        first, last = core._near_layers(pairs.images, j)
        runs = [
            core._run(pairs.images, j, 1, layer) for layer in range(first, last + 1)
        ]
        few += sum(stop - start for start, stop in runs)
    assert few < 0.5 * 400 * np.diff(pairs.images.start_a)[1]


@pytest.mark.parametrize("charged", [False, True])
def test_a_dense_cluster_has_more_images_than_its_cell_leads_to_expect(charged):
    n = 20
    rng = np.random.default_rng(3)
    atoms = Atoms(["H"] * n, rng.uniform(0, 3, (n, 3)), cell=40 * np.eye(3), pbc=True)
    (system,) = systems(atoms)
    of = sources(np.arange(n) % 2, charged)
    listed = grouped(module._ListedPairs(system, of, 2, 5.0), n, 2)
    images = module._ImagePairs(system, of, 2, 5.0)
    assert 10 * images.images.neighbors < n
    for one, other in zip(listed, grouped(images, n, 2), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("field", FIELDS, ids=names)
@pytest.mark.parametrize("charged", [False, True])
def test_coefficients_do_not_depend_on_where_the_pairs_come_from(
    field, charged, monkeypatch
):
    atoms = crystal(5, 6)
    atoms.set_initial_charges([1.0, -0.5, 0.0, 2.0, -1.5, -1.0])
    e = expansion(field, sources="charges" if charged else "species")
    results = []
    for faster in (False, True):
        monkeypatch.setattr(module._ImagePairs, "faster", lambda *_, f=faster: f)
        results.append(e.compute(atoms).values)
    assert relative(*results) <= 1e-13


def test_atoms_on_each_other_are_a_pair_in_images():
    atoms = crystal(0, 3)
    atoms.positions[2] = atoms.positions[0] + atoms.cell[1]
    (system,) = systems(atoms)
    pairs = module._ImagePairs(system, sources([0, 0, 0]), 1, 6.0)
    start, vectors, _ = around(pairs, 0, 3)
    near = np.linalg.norm(vectors, axis=1) < 1e-12
    counts = [near[a:b].sum() for a, b in zip(start[:-1], start[1:], strict=True)]
    assert counts == [1, 0, 1]


@pytest.mark.parametrize("charged", [False, True])
@pytest.mark.parametrize("limit", [2.5, math.inf])
def test_all_pairs_are_those_of_a_list(charged, limit):
    (system,) = systems(ions(0, 7, species=(1, 6, 8)))
    of = sources([2, 0, 2, 1, 0, 2, 2], charged)
    every = module._AllPairs(system, of, 4, limit)
    listed = module._ListedPairs(system, of, 4, min(limit, 100.0))
    for one, other in zip(grouped(every, 7, 4), grouped(listed, 7, 4), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    parts = [around(every, *part)[1] for part in ((0, 3), (3, 4), (4, 7))]
    np.testing.assert_array_equal(np.concatenate(parts), around(every, 0, 7)[1])


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("charged", [False, True])
@pytest.mark.parametrize("field", FIELDS, ids=names)
def test_molecules_beside_each_other_do_not_see_each_other(field, charged):
    frames = [molecule(name) for name in ("CH4", "H2O", "NH3", "CO2")]
    # In between: they are not taken together with what is periodic.
    frames.insert(2, crystal(0, 3))
    for seed, atoms in enumerate(frames):
        charges = np.random.default_rng(seed).normal(size=len(atoms))
        # Charges of some are no charges of all.
        if charged or seed:
            atoms.set_initial_charges(charges)
    species = sorted({z for atoms in frames for z in atoms.numbers})
    e = expansion(field, sources="charges" if charged else "species", species=species)
    together = e.compute(frames)
    apart = [e.compute(atoms).values for atoms in frames]
    np.testing.assert_array_equal(together.values, np.concatenate(apart))
    for n_threads in (2, 7):
        found = e.compute(frames, n_threads=n_threads).values
        np.testing.assert_array_equal(found, together.values)


@pytest.mark.parametrize("charged", [False, True])
@pytest.mark.parametrize("method", ["auto", "split", "waves"])
@pytest.mark.parametrize("field", FIELDS, ids=names)
def test_cells_beside_each_other_do_not_see_each_other(
    field, method, charged, monkeypatch
):
    # Of one atom, and so small that no wave vector counts; two share their cell; more
    # centres than are taken at a time; in between one that is finite.
    frames = [crystal(0, 1, cell=np.eye(3)), crystal(1, 4), crystal(2, 3)]
    frames += [ions(3, 4), crystal(4, 5, cell=4.0 * np.eye(3)), crystal(5, 2)]
    if not SMALL:
        frames.append(crystal(6, core.CELL_CENTERS + 6, cell=7.0 * np.eye(3)))
    for seed, atoms in enumerate(frames):
        rng = np.random.default_rng(seed)
        atoms.set_initial_charges(rng.normal(size=len(atoms)))
    options = {"sources": "charges" if charged else "species", "species": (11, 17)}
    e = expansion(field, method=method, tolerance=1e-3, **options)
    apart = np.concatenate([e.compute(atoms).values for atoms in frames])
    calls = []

    def write_cells(cells, *arguments):
        calls.append(len(cells[0]))
        return compiled(cells, *arguments)

    compiled = core.write_cells
    monkeypatch.setattr(core, "write_cells", write_cells)
    np.testing.assert_array_equal(e.compute(frames, n_threads=1).values, apart)
    assert max(calls) > 1
    for n_threads in (2, 3):
        found = e.compute(frames, n_threads=n_threads).values
        np.testing.assert_array_equal(found, apart)


def test_frames_are_taken_together_where_they_share_their_tables():
    small, large = systems([crystal(0, 4), crystal(0, 4, cell=40.0 * np.eye(3))])
    e = expansion(coulomb())
    split = e.splitting(4, 2, small.volume)
    assert e.kind(small, 2) is module._cell_settings(e, split)
    assert e.kind(small, 2) != e.kind(large, 2)
    assert expansion(coulomb(), method="nufft").kind(small, 2) is None
    assert expansion(coulomb(), method="pairs").kind(small, 2) is None
    # Its columns would take all memory.
    sharp = expansion(coulomb(0.1), method="waves", tolerance=1e-10)
    assert sharp.kind(large, 2) is None
    soap = expansion(FIELDS[0])
    assert soap.kind(small, 2) is soap.kind(large, 2) is not None
    (many,) = systems(crystal(0, module._ROW_BLOCK + 1, cell=40.0 * np.eye(3)))
    assert expansion(FIELDS[0]).kind(many, 2) is None


def test_progress_counts_frames_also_where_several_are_one_piece(capsys):
    frames = [molecule("H2O")] * 5 + [crystal(0, 3)]
    expansion(FIELDS[0]).compute(frames, n_threads=1, progress=True)
    assert "6/6" in capsys.readouterr().err


def test_all_pairs_leave_out_neighbours_without_a_charge():
    (system,) = systems(ions(0, 4))
    of = module._Sources(np.zeros(4, int), np.array([1.0, 0.0, -2.0, 0.0]))
    start, _, charges = around(module._AllPairs(system, of, 1, math.inf), 0, 4)
    np.testing.assert_array_equal(start, [0, 1, 3, 4, 6])
    np.testing.assert_array_equal(charges[: start[-1]], [-2, 1, -2, 1, 1, -2])


# --- Threads and blocks ------------------------------------------------------

N_LARGE = 12 if SMALL else 280


@pytest.fixture
def small_blocks(monkeypatch):
    if SMALL:
        monkeypatch.setattr(module, "_ROW_BLOCK", 5)
        monkeypatch.setattr(waves, "_ROW_BLOCK", 5)


def large(pbc):
    rng = np.random.default_rng(0)
    side = 1.5 * (N_LARGE ** (1 / 3)) + 2.0
    return Atoms(
        rng.choice([11, 17], N_LARGE),
        rng.uniform(0, side, (N_LARGE, 3)),
        cell=side * np.eye(3),
        pbc=pbc,
    )


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("field", FIELDS[:2], ids=names)
@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_number_of_threads_changes_no_bit(field, pbc):
    e = expansion(field, max_angular=2, tolerance=1e-4)
    many = [crystal(i, 3) if pbc else ions(i, 3) for i in range(5)]
    for frames in (many, large(pbc), [large(pbc), many[0]]):
        one = e.compute(frames, n_threads=1).values
        for n_threads in (2, 3, 8):
            other = e.compute(frames, n_threads=n_threads).values
            np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("side", [4.0, 9.0])
def test_parts_of_the_waves_and_blocks_of_centres_change_no_bit(side, monkeypatch):
    atoms = crystal(0, 5 if SMALL else 21, cell=side * np.eye(3))
    atoms.set_initial_charges(np.random.default_rng(0).normal(size=len(atoms)))
    if SMALL:
        monkeypatch.setattr(core, "_WAVES", 20)
    e = expansion(coulomb(1.0), method="waves", sources="charges", tolerance=1e-3)
    cell = atoms.cell.array
    limit = module._cell_settings(e, 1.0).field[0]
    columns = core.wave_sphere(cell, 2 * math.pi * np.linalg.inv(cell).T, limit)[0]
    assert len(core._wave_parts(columns)) == (2 if side < 5.0 else 3)
    one = e.compute(atoms, n_threads=1).values
    for n_threads in (2, 3, 5, 40):
        np.testing.assert_array_equal(e.compute(atoms, n_threads=n_threads).values, one)
    # In the other way, by one product for all atoms.
    monkeypatch.setattr(module, "_ROW_BLOCK", 3)
    assert relative(e.compute(atoms).values, one) <= 1e-13


@pytest.mark.usefixtures("many_pieces")
def test_frames_of_several_callers_do_not_disturb_each_other():
    frames = [crystal(seed, 3 + seed % 3) for seed in range(4)]
    e = expansion(coulomb(), max_angular=2, tolerance=1e-4)
    expected = [e.compute(atoms, n_threads=1).values for atoms in frames]

    def same(i):
        return all(
            np.array_equal(e.compute(frames[i], n_threads=2).values, expected[i])
            for _ in range(3 if SMALL else 200)
        )

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(same, range(4)))


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 64, 250])
def test_pieces_for_threads_cover_the_centres_and_become_smaller(n, n_threads):
    start = core.pieces(n, n_threads, 4, 64)
    sizes = np.diff(start)
    assert start[0] == 0
    assert start[-1] == n
    assert (sizes > 0).all()
    assert sizes.max() <= 64
    assert sizes[:-1].min(initial=4) >= 4
    assert (np.diff(sizes[:-1]) <= 0).all()
    assert len(sizes) >= min(n_threads, n // 8)


@numba.njit(nogil=True)
def _count_threads(here, wanted, wrong, post):
    """Work that is done when enough threads are there; one of them may fail."""
    me = core._raised(post, core._TAKEN, 1)
    if me < here.shape[0]:
        here[me] = core._seen(post, core._HELD)
    while core._seen(post, core._TAKEN) < wanted and not core._seen(post, core._FAILED):
        pass
    if me == wrong:
        raise ValueError("wrong")


_share_count = core._shared(_count_threads)


@numba.njit(nogil=True)
def _counted_together(here, wanted, wrong, post):
    _share_count((here, wanted, wrong), post)


@pytest.fixture
def served():
    """A post, and a function that adds a thread there until the test ends."""
    post, end = np.zeros(core.N_PLACES, dtype=np.int64), threading.Event()
    _counted_together(np.zeros(1, int), 1, -1, post)

    def serve():
        while not end.is_set():
            core.serve(post, 10_000)

    with ThreadPoolExecutor(4) as pool:
        yield post, partial(pool.submit, serve)
        end.set()
    assert post[core.AWAKE] == 0


def idle(post):
    """Nobody is at a post but those who look for work."""
    return not post[[core._HELD, core._OPEN, core._JOINED]].any()


jit_only = pytest.mark.skipif(SMALL, reason="in plain Python nobody joins")


@jit_only
@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_that_serve_join_in_work(served, n_threads):
    post, add = served
    for _ in range(n_threads - 1):
        add()
    for _ in range(3):
        here = np.full(n_threads, -1)
        _counted_together(here, n_threads, -1, post)
        assert (here == 1).all()
        assert idle(post)


@jit_only
def test_a_thread_that_fails_fails_the_work(served):
    post, add = served
    add()
    # Either may be the first.
    for wrong in 2 * (0, 1):
        with pytest.raises((ValueError, RuntimeError), match="wrong|has failed"):
            _counted_together(np.zeros(2, int), 2, wrong, post)
        assert idle(post)
    _counted_together(np.zeros(2, int), 2, -1, post)


def test_where_a_post_is_held_work_is_done_by_the_caller(served):
    post, _ = served
    post[core._HELD] = 0 if SMALL else 1
    before = post.copy()
    here = np.full(2, -1)
    _counted_together(here, 1, -1, post)
    np.testing.assert_array_equal(post, before)
    assert here.tolist() == [0 if SMALL else 1, -1]


def test_an_error_of_the_caller_is_that_of_the_work(served):
    post, _ = served
    with pytest.raises(ValueError, match="wrong"):
        _counted_together(np.zeros(1, int), 1, 0, post)
    assert idle(post)


@jit_only
def test_who_comes_too_late_joins_in_nothing(served):
    post, _ = served
    here = np.full(2, -1)
    _counted_together(here, 1, -1, post)
    core.serve(post, 3)
    assert here.tolist() == [1, -1]
    assert idle(post)
    assert post[core.AWAKE] == 0


@pytest.mark.parametrize("field", FIELDS, ids=names)
def test_a_lattice_may_be_given_by_long_vectors(field):
    atoms = crystal(2, 3)
    turn = np.array([[1, 0, 0], [40, 1, 0], [-30, 50, 1]])
    other = atoms.copy()
    other.set_cell(turn @ atoms.cell.array)
    e = expansion(field, tolerance=1e-8)
    expected = e.compute(atoms).values
    found = e.compute(other).values
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=2e-8 * np.abs(expected).max()
    )
    # Images of an atom would be as many as its vectors are long.
    assert np.linalg.norm(systems(other)[0].cell) < 2 * np.linalg.norm(atoms.cell)


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("pbc", [False, True])
def test_tables_made_on_another_number_of_threads_change_no_bit(pbc):
    atoms = crystal(0, 3) if pbc else ions(0, 3)
    e = expansion(coulomb(0.77), RadialBasis.gto(N_MAX, 2.7), split=1.3)
    results = []
    tables = "pair_table", "mode_table", "_centre", "_halves"
    tables += "_cell_settings", "_cell_plan"
    for n_threads in (1, 4):
        for name in tables:
            getattr(module, name).cache_clear()
        results.append(e.compute(atoms, n_threads=n_threads).values)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("field", FIELDS[:2], ids=names)
@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_of_centres_give_what_the_whole_gives(field, pbc, block, monkeypatch):
    atoms = crystal(3, 7) if pbc else ions(3, 7)
    e = expansion(field, tolerance=1e-8)
    whole = e.compute(atoms).values
    monkeypatch.setattr(module, "_ROW_BLOCK", block)
    # Blocks of pairs and of waves too: nothing may fall between two of them.
    monkeypatch.setattr(module, "_PAIR_BLOCK", 10)
    monkeypatch.setattr(waves, "_ROW_BLOCK", block)
    monkeypatch.setattr(waves, "MOST_HELD", 10)
    monkeypatch.setattr(waves, "_WAVE_BLOCK", 7)
    assert relative(e.compute(atoms).values, whole) <= 1e-13


@pytest.mark.parametrize("max_radial", [3, 4])
@pytest.mark.parametrize("pbc", [False, True])
def test_coefficients_made_a_few_centres_at_a_time_are_the_same(
    max_radial, pbc, monkeypatch
):
    frames = [crystal(1, 5), crystal(2, 4)] if pbc else [ions(1, 5), ions(2, 4)]
    e = expansion(coulomb(), basis=RadialBasis.gto(max_radial, 2.0))
    whole = e.compute(frames).values
    monkeypatch.setattr(module, "COEFFICIENT_BYTES", 2 * whole[0].nbytes)
    assert relative(e.compute(frames).values, whole) <= 1e-14


@pytest.mark.parametrize("charged", [False, True])
def test_sums_over_waves_are_what_they_are_defined_as(charged):
    # More centres and waves than are taken at a time, columns longer than a register,
    # numbers of modes that fill none, one, and more than one.
    rng = np.random.default_rng(5)
    n, n_species, l_max = 70, 3, 3
    n_modes = np.array([3, 1, 9, 2])
    cell = np.array([[9.0, 0.0, 0.0], [2.0, 6.0, 0.0], [-1.0, 3.0, 7.0]])
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    positions = rng.uniform(0, 1, (n, 3)) @ cell
    species = rng.choice([0, 2], n)
    charges = rng.normal(size=n) if charged else np.empty(0)
    columns, top, k_kx, length_k = core.wave_sphere(cell, reciprocal, 4.6)
    assert len(k_kx) > 2 * core._WAVES
    assert n > 2 * core._CENTERS
    assert columns[:, 3].max() > core.LANES
    np.testing.assert_allclose(length_k, np.linalg.norm(k_kx, axis=1), rtol=1e-14)
    waves_of = reciprocal, columns, top
    sums = core.structure_factor(positions, species, charges, n_species, *waves_of)
    phase_jk = np.exp(1j * positions @ k_kx.T)
    weighted_jk = charges[:, None] * phase_jk if charged else phase_jk
    exact_ak = np.array([weighted_jk[species == a].sum(axis=0) for a in range(3)])
    found_ak = (sums[0] + 1j * sums[1])[:, : len(k_kx)]
    np.testing.assert_allclose(found_ak, exact_ak, rtol=0, atol=1e-11)

    weight_k = rng.normal(size=len(k_kx))
    table, step = rng.normal(size=(5, 8, n_modes.sum())), 0.93
    parts = core.wave_columns(k_kx, weight_k, table, step, n_modes, l_max)
    place_k = length_k / step
    t_k = 2 * (place_k % 1) - 1
    power_ki = t_k[:, None] ** np.arange(8)
    u_kq = np.einsum("ki,kiq->kq", power_ki, table[place_k.astype(int)])
    y_km = core.harmonics(k_kx, l_max)
    first_l = np.cumsum(n_modes) - n_modes
    expansion_qn = rng.normal(size=(n_modes.sum(), 8))
    exact = np.zeros((n, n_species, (l_max + 1) ** 2, 8))
    field_jak = phase_jk[:, None] * exact_ak.conj()
    at = [0, 0]
    for l in range(l_max + 1):
        modes = slice(first_l[l], first_l[l] + n_modes[l])
        sign = -1.0 if (l + 1) // 2 % 2 else 1.0
        y_of_l = sign * weight_k[:, None] * y_km[:, l * l : (l + 1) ** 2]
        columns_kmq = y_of_l[:, :, None] * u_kq[:, None, modes]
        size = columns_kmq[0].size
        found = parts[l % 2][:, at[l % 2] : at[l % 2] + size]
        at[l % 2] += size
        expected = columns_kmq.reshape(len(k_kx), -1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
        part_jak = field_jak.imag if l % 2 else field_jak.real
        value = np.einsum("jak,kmq->jamq", part_jak, columns_kmq)
        exact[:, :, l * l : (l + 1) ** 2] = value @ expansion_qn[modes]
    out = np.ones((n - 3, n_species, (l_max + 1) ** 2, 8))
    arguments = (*waves_of, *sums, *parts, n_modes, expansion_qn, l_max)
    core.add_expanded_waves(positions, *arguments, 3, out)
    assert relative(out - 1.0, exact[3:]) <= 1e-13


@few
@given(
    seed=st.integers(0, 1000),
    limit=st.floats(0.2, 4.0),
    skew=st.floats(-1.5, 1.5),
)
def test_half_space_holds_each_pair_of_opposite_waves_once(seed, limit, skew):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(1, 6, 3)) + skew * np.tril(np.ones((3, 3)), -1)
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    top = np.ceil(np.linalg.norm(cell, axis=1) * limit / (2 * math.pi)).astype(int)
    columns = core.half_space(reciprocal, limit, top[0], top[1])
    k = core.wave_vectors(reciprocal, columns)[0]
    index = np.array(list(np.ndindex(*(2 * top + 5)))) - top - 2
    every = index @ reciprocal
    size = np.linalg.norm(every, axis=1)
    assert 2 * len(k) == ((size < limit) & (size > 0)).sum()
    both = np.concatenate([k, -k]).round(9)
    assert len(np.unique(both, axis=0)) == 2 * len(k)
    assert not len(columns) or (np.abs(columns[:, :2]).max(axis=0) <= top[:2]).all()


# --- Errors ------------------------------------------------------------------


@pytest.mark.parametrize("pbc", [False, True])
def test_smearing_beyond_the_ladder_of_splits_can_be_split(pbc):
    atoms = crystal(0, 2) if pbc else ions(0, 2)
    c = expansion(coulomb(20.0), max_angular=1, method="split", tolerance=1e-3)
    assert np.isfinite(c.compute(atoms).values).all()


@pytest.mark.parametrize("value", [-1, 31, 1.5, math.nan, "3", None])
def test_max_angular_out_of_range_is_an_error(value):
    with pytest.raises(
        (TypeError, ValueError),
        match=f"max_angular must be a whole number from 0 to 30, got {value}",
    ):
        expansion(coulomb(), max_angular=value)


@pytest.mark.parametrize("value", [0.0, 1e-14, 0.02, -1e-6, math.nan])
def test_tolerance_out_of_range_is_an_error(value):
    with pytest.raises(ValueError, match=r"tolerance must be from 1e-13 to 1e-2, got"):
        expansion(coulomb(), tolerance=value)


@pytest.mark.parametrize("value", [0.8, 0.5])
def test_split_not_above_the_smearing_is_an_error(value):
    with pytest.raises(
        ValueError, match=f"split must be larger than the smearing 0.8 Å, got {value}"
    ):
        expansion(coulomb(0.8), split=value)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_split_must_be_a_length(value):
    with pytest.raises(ValueError, match="split must be a positive length in Å, got"):
        expansion(coulomb(0.8), split=value)


def test_unknown_method_is_an_error():
    with pytest.raises(ValueError, match="method must be one of .*, got 'fft'"):
        expansion(coulomb(), method="fft")


def test_bare_charges_in_reciprocal_space_are_an_error():
    with pytest.raises(ValueError, match="method 'waves' needs a positive smearing"):
        expansion(coulomb(0.0), method="waves")


def test_pairs_alone_of_a_periodic_potential_are_an_error():
    e = expansion(coulomb(), method="pairs")
    assert np.isfinite(e.compute(ions()).values).all()
    with pytest.raises(ValueError, match="method 'pairs' .* finite frames"):
        e.compute(crystal())


def test_cutoff_function_of_a_potential_is_an_error():
    with pytest.raises(
        ValueError, match="cutoff_function must be None for a potential"
    ):
        expansion(coulomb(), cutoff_function=lode.StepCutoff(3.0))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((1.0, RadialBasis.gto(2, 2.0), 2), "field"),
        ((coulomb(), 8, 2), "basis"),
        ((GaussianDensity(0.3), RadialBasis.gto(2, 2.0), 2, 3.0), "cutoff_function"),
    ],
)
def test_wrong_types_are_named(arguments, name):
    with pytest.raises(TypeError, match=rf"^{name} must be .*, got (int|float)$"):
        lode.SphericalExpansion(*arguments)


@pytest.mark.parametrize("value", [(), (1, 1), (0,), (-3, 1), (1.5,)])
def test_species_must_be_different_atomic_numbers(value):
    with pytest.raises(ValueError, match="species must be different atomic numbers"):
        expansion(coulomb(), species=value)
    with pytest.raises(ValueError, match="species must be different atomic numbers"):
        expansion(coulomb()).compute(ions(), species=value)


def test_unknown_species_is_an_error():
    with pytest.raises(ValueError, match=r"among \[1, 11\], got unknown \[17\]"):
        expansion(coulomb(), species=(1, 11)).compute(ions())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_centre_weight_must_be_finite(value):
    with pytest.raises(ValueError, match="center_atom_weight must be finite, got"):
        expansion(coulomb(), center_atom_weight=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, math.nan])
def test_n_threads_must_be_a_positive_whole_number(value):
    with pytest.raises(ValueError, match=f"positive whole number, got {value}"):
        expansion(coulomb()).compute(ions(), n_threads=value)


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan])
def test_cutoff_functions_need_a_radius(radius):
    for kind in (lode.StepCutoff, lode.ShiftedCosineCutoff):
        with pytest.raises(ValueError, match="radius must be a positive length in Å"):
            kind(radius)


@pytest.mark.parametrize("direction", [[0.4, 2.0, 2.2], [0.3, -0.9, 2.7], [1, 1, 1]])
def test_a_step_counts_a_neighbour_at_its_radius(direction):
    # Whether the last bit of the distance is within it or not, there is no NaN.
    found = []
    for inward in (0.0, 1e-9):
        pair = Atoms("H2", [[0, 0, 0], direction])
        step = lode.StepCutoff(pair.get_distance(0, 1))
        pair.positions[1] *= 1.0 - inward
        e = expansion(
            GaussianDensity(0.5), RadialBasis.gto(2, 3.0), cutoff_function=step
        )
        values = e.compute(pair).values
        alone = e.compute(pair[:1]).values[0]
        found.append(np.abs(values - alone).max())
        assert np.isfinite(values).all()
    at, within = found
    assert within > 0.0
    assert at == 0.0 or at == pytest.approx(within, rel=1e-6)


@pytest.mark.parametrize(
    ("width", "message"),
    [(0.0, "width must be a positive"), (3.1, "width must be at most the radius 3.0")],
)
def test_shifted_cosine_needs_a_width_within_its_radius(width, message):
    with pytest.raises(ValueError, match=message):
        lode.ShiftedCosineCutoff(3.0, width)


def test_default_cutoff_function_of_a_density_ends_with_the_basis():
    e = expansion(GaussianDensity(0.3), RadialBasis.gto(2, 4.0))
    assert e.cutoff_function == lode.ShiftedCosineCutoff(4.0, 0.5)
    e = expansion(GaussianDensity(0.3), RadialBasis.polynomial(2, 0.4))
    assert e.cutoff_function == lode.ShiftedCosineCutoff(0.4, 0.4)


def test_an_expansion_rebuilt_from_its_specification_gives_the_same_bits():
    e = expansion(coulomb(), species=(11, 17), split=1.4, tolerance=1e-5)
    again = build(specification(e))
    assert again == e
    np.testing.assert_array_equal(
        again.compute(crystal()).values, e.compute(crystal()).values
    )
