import math
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
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
from lode import pairs, reciprocal, tables, tuning
from lode.bases import RadialBasis
from lode.fields import GaussianDensity, PowerLawPotential, YukawaPotential
from lode.serialization import from_dict, to_dict
from lode.systems import structures

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


FIELDS = [
    GaussianDensity(0.5),
    coulomb(),
    *map(PowerLawPotential, (3, 6), (0.8, 0.8)),
    YukawaPotential(2.0, 0.8),
]


def names(value):
    if hasattr(value, "exponent"):
        return f"p={value.exponent:g}"
    return type(value).__name__ if isinstance(value, module.Field) else None


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
    zero = field.background(field.smearing)
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
    exact = expansion(field, tolerance=1e-13, method="reciprocal").compute(atoms).values
    for s in (1.2, 1.7, 2.5, 4.0) if p == 1 and not SMALL else (1.2, 4.0):
        e = expansion(field, tolerance=tolerance, method="split", split=s * sigma)
        assert relative(e.compute(atoms).values, exact) <= tolerance
    for method in ("auto", "reciprocal") if p == 1 else ("auto",):
        e = expansion(field, tolerance=tolerance, method=method)
        assert relative(e.compute(atoms).values, exact) <= tolerance


def test_frames_of_like_size_share_the_choice_of_the_split():
    e = expansion(coulomb(0.83))
    before = tuning._cheapest_method.cache_info().misses
    volumes = 2**11.5 * np.linspace(0.97, 1.03, 50)
    found = {e.periodic_method(n, 2, v) for n in (62, 64, 66) for v in volumes}
    assert len(found) == 1
    assert tuning._cheapest_method.cache_info().misses - before == 1
    assert e.splitting(1000, 2, 1e5) > e.splitting(1, 2, 1e2)


@pytest.mark.parametrize("kind", KINDS)
def test_result_does_not_depend_on_the_split_for_any_basis(kind):
    field, basis = coulomb(0.6), getattr(RadialBasis, kind)(N_MAX, 3.0)
    atoms = crystal(7, 3)
    exact = expansion(field, basis, tolerance=1e-13, method="reciprocal").compute(atoms)
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
    exact = expansion(field, tolerance=1e-13, method="reciprocal").compute(atoms).values
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
    np.testing.assert_array_equal(e.compute(structures(frames)).values, listed)


def test_input_is_left_as_it_was():
    atoms = crystal(0, 3)
    atoms.positions += 50.0
    before = atoms.copy()
    expansion(coulomb()).compute(atoms)
    assert atoms == before


# --- Several frames in a call ----------------------------------------------


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
@pytest.mark.parametrize("method", ["auto", "split", "reciprocal"])
@pytest.mark.parametrize("field", FIELDS, ids=names)
def test_cells_of_a_call_do_not_see_each_other(field, method, charged):
    # Of one atom, and so small that no wave vector counts; two share their cell; more
    # centres than are taken at a time; in between one that is finite.
    frames = [crystal(0, 1, cell=np.eye(3)), crystal(1, 4), crystal(2, 3)]
    frames += [ions(3, 4), crystal(4, 5, cell=4.0 * np.eye(3)), crystal(5, 2)]
    if not SMALL:
        frames.append(crystal(6, 70, cell=7.0 * np.eye(3)))
    for seed, atoms in enumerate(frames):
        rng = np.random.default_rng(seed)
        atoms.set_initial_charges(rng.normal(size=len(atoms)))
    options = {"sources": "charges" if charged else "species", "species": (11, 17)}
    e = expansion(field, method=method, tolerance=1e-3, **options)
    apart = np.concatenate([e.compute(atoms).values for atoms in frames])
    for n_threads in (1, 2, 3):
        found = e.compute(frames, n_threads=n_threads).values
        np.testing.assert_array_equal(found, apart)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_small_molecules_are_computed_together(n_threads, monkeypatch):
    calls = []
    evaluator = lode.SphericalExpansion._evaluator

    def counted(self, system, *arguments):
        calls.append(system.sizes)
        return evaluator(self, system, *arguments)

    monkeypatch.setattr(lode.SphericalExpansion, "_evaluator", counted)
    frames = [molecule("H2O")] * 40 + [crystal(0, 3)] * 2 + [molecule("CH4")]
    expansion(GaussianDensity(0.5)).compute(frames, n_threads=n_threads)
    # Several groups for each thread; a single structure has no sizes.
    sizes = [len(c) for c in sorted(calls, key=len)]
    assert sizes == ([0, 0, 0, 40] if n_threads == 1 else [0, 0, 0, 10, 10, 10, 10])


def test_progress_counts_frames_also_where_several_are_one_piece(capsys):
    frames = [molecule("H2O")] * 5 + [crystal(0, 3)]
    expansion(FIELDS[0]).compute(frames, n_threads=1, progress=True)
    assert "6/6" in capsys.readouterr().err


# --- Threads and blocks ------------------------------------------------------

N_LARGE = 12 if SMALL else 280


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
def test_number_of_threads_changes_no_bit(field, pbc):
    e = expansion(field, max_angular=2, tolerance=1e-4)
    many = [crystal(i, 3) if pbc else ions(i, 3) for i in range(5)]
    for frames in (many, large(pbc), [large(pbc), many[0]]):
        one = e.compute(frames, n_threads=1).values
        for n_threads in (2, 3, 8):
            other = e.compute(frames, n_threads=n_threads).values
            np.testing.assert_array_equal(one, other)


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
    assert np.linalg.norm(structures(other)[0].cell) < 2 * np.linalg.norm(atoms.cell)


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("pbc", [False, True])
def test_tables_made_on_another_number_of_threads_change_no_bit(pbc):
    atoms = crystal(0, 3) if pbc else ions(0, 3)
    e = expansion(coulomb(0.77), RadialBasis.gto(N_MAX, 2.7), split=1.3)
    results = []
    names = "pair_table", "mode_table", "centre_function", "ewald_split"
    for n_threads in (1, 4):
        for name in names:
            getattr(tables, name).cache_clear()
        results.append(e.compute(atoms, n_threads=n_threads).values)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("field", FIELDS[:2], ids=names)
@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_of_centres_give_what_the_whole_gives(field, pbc, block, monkeypatch):
    atoms = crystal(3, 7) if pbc else ions(3, 7)
    e = expansion(field, tolerance=1e-8)
    whole = e.compute(atoms).values
    # Blocks of wave vectors too: nothing may fall between two of them.
    monkeypatch.setattr(pairs, "_CENTERS", block)
    monkeypatch.setattr(reciprocal.ProductTerm, "block", block)
    monkeypatch.setattr(reciprocal, "_WAVE_BLOCK", 7)
    for most in (2**23, 10):
        reciprocal._cached_half_space.cache_clear()
        monkeypatch.setattr(reciprocal, "_MOST_HELD", most)
        assert relative(e.compute(atoms).values, whole) <= 1e-13
    reciprocal._cached_half_space.cache_clear()


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


@pytest.mark.parametrize("distance", [1e8, 1e149])
def test_atoms_that_are_very_far_away_are_not_seen(distance):
    atoms = ions(0, 3)
    alone = expansion(coulomb(), species=(11, 17)).compute(atoms[:1]).values
    atoms.positions[1:, 0] = distance, -distance
    found = expansion(coulomb()).compute(atoms).values
    np.testing.assert_allclose(found[0], alone[0], atol=1e-6)
    assert np.isfinite(found).all()


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
    with pytest.raises(
        ValueError, match="method 'reciprocal' needs a positive smearing"
    ):
        expansion(coulomb(0.0), method="reciprocal")


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
def test_a_step_counts_a_neighbour_up_to_a_millionth_beyond_its_radius(direction):
    found = []
    for beyond in (-1e-9, 0.0, 0.99e-6, 1.01e-6):
        pair = Atoms("H2", [[0, 0, 0], direction])
        radius = pair.get_distance(0, 1)
        pair.positions[1] *= 1.0 + beyond / radius
        step = lode.StepCutoff(radius)
        e = expansion(
            GaussianDensity(0.5), RadialBasis.gto(2, 3.0), cutoff_function=step
        )
        alone = e.compute(pair[:1]).values[0]
        found.append(np.abs(e.compute(pair).values - alone).max())
    assert found[0] > 0.0
    # The field is smooth: it changes by as little as the distance.
    np.testing.assert_allclose(found[1:3], found[0], rtol=1e-5)
    assert found[3] == 0.0


PERFECT = {
    "fcc": bulk("Cu", "fcc", a=3.61),
    "bcc": bulk("Fe", "bcc", a=2.87),
    "sc": bulk("Po", "sc", a=3.35),
    "hcp": bulk("Mg", "hcp", a=3.21, c=5.21),
}


def rounded_to_eight_decimals(atoms):
    return Atoms(
        atoms.numbers, atoms.positions.round(8), cell=atoms.cell.array.round(8), pbc=1
    )


@pytest.mark.parametrize("pairs_from", ["images", "list"])
@pytest.mark.parametrize("shell", [0, 1, 2, 4])
@pytest.mark.parametrize("name", PERFECT)
def test_a_step_at_a_shell_sees_the_atoms_of_a_crystal_alike(
    name, shell, pairs_from, monkeypatch
):
    if pairs_from == "list":
        monkeypatch.setattr(pairs, "_SMALL", -1)
    monkeypatch.setattr(pairs, "_images_are_few", lambda *_: pairs_from == "images")
    unit = PERFECT[name]
    radius = np.unique(neighbor_list("d", unit, 8.0).round(8))[shell]

    def invariants(atoms, radius):
        step = lode.StepCutoff(radius)
        basis = RadialBasis.gto(2, 4.0)
        e = expansion(
            GaussianDensity(0.4), basis, 2, cutoff_function=step, tolerance=1e-9
        )
        c_jmn = e.compute(atoms).values[:, 0]
        # The two atoms of hcp are mirror images.
        return np.stack(
            [(c_jmn[:, l * l : (l + 1) ** 2] ** 2).sum(axis=1) for l in range(3)]
        )

    turned = unit.repeat(2)
    turned.rotate(77.0, (1, 2, -3), rotate_cell=True)
    moved = unit.repeat((3, 1, 2))
    moved.positions += [0.1, 1 / 3, -17.7]
    whole_shell = invariants(unit, radius + 1e-3)[:, :1]
    for atoms in (
        unit,
        turned,
        moved,
        *map(rounded_to_eight_decimals, (turned, moved)),
    ):
        found = invariants(atoms, radius)
        # Coordinates are rounded to 1e-8, and there are two tables.
        atol = 1e-7 * whole_shell.max()
        np.testing.assert_allclose(found - whole_shell, 0.0, atol=atol)


@pytest.mark.parametrize("shell", [0, 1, 2])
@pytest.mark.parametrize("name", PERFECT)
def test_a_step_at_a_shell_sees_a_cluster_as_its_crystal(name, shell, monkeypatch):
    unit = PERFECT[name]
    radius = np.unique(neighbor_list("d", unit, 8.0).round(8))[shell]
    step, basis = lode.StepCutoff(radius), RadialBasis.gto(2, 4.0)
    e = expansion(GaussianDensity(0.4), basis, 2, cutoff_function=step)
    inside = e.compute(unit).values[0]
    cluster = unit.repeat(5)
    cluster.pbc = False
    middle = len(unit) * (2 * 25 + 2 * 5 + 2)
    for small in (1000, 0):
        monkeypatch.setattr(pairs, "_SMALL", small)
        found = e.compute(cluster).values[middle]
        np.testing.assert_allclose(found, inside, atol=1e-10 * np.abs(inside).max())


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
    again = from_dict(to_dict(e))
    assert again == e
    np.testing.assert_array_equal(
        again.compute(crystal()).values, e.compute(crystal()).values
    )
