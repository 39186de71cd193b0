import math
import re

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from naive import equivariant_spectrum, gaunt, harmonics, rotation_matrices
from scipy.spatial.transform import Rotation

import lode
from lode.bases import RadialBasis
from lode.core.harmonics import harmonics as own_harmonics
from lode.coupling import (
    cartesian_tensor,
    cartesian_vector,
    clebsch_gordan,
    spherical_tensor,
    spherical_vector,
)
from lode.fields import GaussianDensity, PowerLawPotential
from lode.invariants import EquivariantFeatures
from lode.serialization import from_dict, to_dict

L_MAX = 2 if numba.config.DISABLE_JIT else 3
CELL = np.array([[5.1, 0.0, 0.0], [2.1, 4.4, 0.0], [-1.6, 1.7, 4.9]])
# A method's own error must not enter 1e-10.
OPTIONS = {"tolerance": 1e-12}
RHO = lode.SphericalExpansion(
    GaussianDensity(0.5), RadialBasis.polynomial(3, 2.5), L_MAX, **OPTIONS
)
V = lode.SphericalExpansion(
    PowerLawPotential(1, 0.8), RadialBasis.monomial(2, 2.5), L_MAX, **OPTIONS
)
DESCRIPTORS = [
    lode.EquivariantPowerSpectrum(RHO, angular=2),
    lode.EquivariantPowerSpectrum(V, angular=1),
    lode.EquivariantPowerSpectrum(RHO, V, angular=2),
    lode.EquivariantPowerSpectrum(V, RHO, angular=3),
    lode.EquivariantPowerSpectrum(V, angular=2, parity=-1),
    lode.EquivariantPowerSpectrum(RHO, V, angular=1, parity=-1),
]
IDS = ["rho.rho 2", "V.V 1", "rho.V 2", "V.rho 3", "V.V 2 odd", "rho.V 1 odd"]
TRIANGLES = [
    (l_1, l_2, l)
    for l_1 in range(4)
    for l_2 in range(4)
    for l in range(abs(l_1 - l_2), l_1 + l_2 + 1)
]


def atoms_of(pbc, seed=0, n=5):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 1, (n, 3)) @ CELL
    return Atoms(rng.permutation(np.resize([1, 8], n)), positions, cell=CELL, pbc=pbc)


def relative(value, expected):
    return np.abs(value - expected).max() / np.abs(expected).max()


def channels(labels, species):
    place = {z: a for a, z in enumerate(species)}
    return [
        (
            *(r["l_1"], place[r["species_1"]], r["n_1"]),
            *(r["l_2"], place[r["species_2"]], r["n_2"]),
        )
        for r in labels
    ]


# Coupling coefficients


@pytest.mark.parametrize(("l_1", "l_2"), [(0, 0), (1, 1), (3, 1), (2, 3), (6, 5)])
def test_coupling_is_an_orthogonal_matrix(l_1, l_2):
    columns = np.concatenate(
        [
            clebsch_gordan(l_1, l_2, l).reshape((2 * l_1 + 1) * (2 * l_2 + 1), -1)
            for l in range(abs(l_1 - l_2), l_1 + l_2 + 1)
        ],
        axis=1,
    )
    assert columns.shape[0] == columns.shape[1]
    np.testing.assert_allclose(
        columns.T @ columns, np.eye(len(columns)), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("l", [0, 2, 31, 60])
def test_coupling_of_thirties_is_orthonormal(l):
    matrix = clebsch_gordan(30, 30, l).reshape(61 * 61, 2 * l + 1)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(2 * l + 1), rtol=0, atol=1e-13)


def test_coupling_to_the_largest_m_is_exact():
    # <30 30; 30 30 | 60 60> = 1 and <30 30; 30 -30 | 60 0> = 30!^2... / binomials.
    top = clebsch_gordan(30, 30, 60)[:, :, 120]
    # The real harmonic 60 of a product: cos cos - sin sin over the root of two.
    assert top[60, 60] == pytest.approx(math.sqrt(0.5), rel=1e-14)
    assert top[0, 0] == pytest.approx(-math.sqrt(0.5), rel=1e-14)
    small = clebsch_gordan(30, 30, 60)[60, 60, 60]
    binomial = math.comb(120, 60)
    assert small == pytest.approx(math.sqrt(1 / binomial), rel=1e-14)


@pytest.mark.parametrize("ls", [t for t in TRIANGLES if sum(t) % 2 == 0])
def test_coupling_of_natural_parity_is_a_positive_multiple_of_the_product(ls):
    integrals = gaunt(*ls)
    expected = integrals * math.sqrt((2 * ls[2] + 1) / np.sum(integrals**2))
    np.testing.assert_allclose(clebsch_gordan(*ls), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("ls", TRIANGLES)
def test_coupled_vectors_turn_as_harmonics(ls):
    coupling = clebsch_gordan(*ls)
    turn = rotation_matrices(Rotation.random(random_state=1).as_matrix(), 6)
    first, second, third = (turn[l] for l in ls)
    left = np.einsum("xm,yn,xyk->mnk", first, second, coupling)
    right = np.einsum("mnq,kq->mnk", coupling, third)
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-12)


def test_exchange_of_the_factors_has_the_sign_of_the_parity():
    for l_1, l_2, l in TRIANGLES:
        sign = (-1) ** (l_1 + l_2 + l)
        np.testing.assert_array_equal(
            clebsch_gordan(l_1, l_2, l),
            sign * clebsch_gordan(l_2, l_1, l).transpose(1, 0, 2),
        )


def test_vectors_couple_to_scalar_and_cross_product():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3))
    # Components m = -1, 0, 1 are y, z, x.
    order = [1, 2, 0]
    scalar = a[order] @ clebsch_gordan(1, 1, 0)[:, :, 0] @ b[order]
    assert scalar == pytest.approx(a @ b / math.sqrt(3), rel=1e-14)
    cross = np.einsum("m,n,mnk->k", a[order], b[order], clebsch_gordan(1, 1, 1))
    expected = np.cross(a, b)[order] / math.sqrt(2)
    np.testing.assert_allclose(cross, expected, rtol=1e-14)


def test_coefficients_that_do_not_couple_are_zero_and_few_remain():
    for l_1, l_2, l in TRIANGLES:
        coupling = clebsch_gordan(l_1, l_2, l)
        for m, n, k in np.argwhere(coupling):
            sizes = abs(m - l_1), abs(n - l_2), abs(k - l)
            assert sizes[2] in (sizes[0] + sizes[1], abs(sizes[0] - sizes[1]))
        assert np.abs(coupling[coupling != 0]).min() > 1e-3


def test_coupling_outside_of_the_triangle_is_an_error():
    with pytest.raises(ValueError, match="l_1 - l_2. to l_1 . l_2, got 1, 1 and 3"):
        clebsch_gordan(1, 1, 3)
    with pytest.raises(ValueError, match="l_1 must be a whole number from 0 to 60"):
        clebsch_gordan(-1, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        clebsch_gordan(1, 1, 1)[0] = 0


# Cartesian vectors and tensors


def test_vectors_survive_a_round_trip_bit_by_bit():
    vectors = np.random.default_rng(0).normal(size=(4, 2, 3))
    parts = spherical_vector(vectors)
    np.testing.assert_array_equal(parts, vectors[..., [1, 2, 0]])
    np.testing.assert_array_equal(cartesian_vector(parts), vectors)
    np.testing.assert_array_equal(spherical_vector(cartesian_vector(parts)), parts)
    assert not np.shares_memory(parts, vectors)


def test_components_of_a_vector_are_those_of_the_harmonics():
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    expected = harmonics(vectors, 1)[:, 1:] * math.sqrt(4 * math.pi / 3)
    np.testing.assert_allclose(spherical_vector(vectors), expected, rtol=0, atol=1e-14)


def test_vectors_turn_as_a_feature_does():
    descriptor = lode.EquivariantPowerSpectrum(V, angular=1)
    atoms = atoms_of(False, 5)
    rotation = Rotation.random(random_state=3).as_matrix()
    turned = atoms.copy()
    turned.positions = atoms.positions @ rotation.T
    # Components come before the features' own axis.
    before, after = (
        cartesian_vector(np.moveaxis(descriptor.compute(frame).values, 1, -1))
        for frame in (atoms, turned)
    )
    assert relative(after, before @ rotation.T) <= 1e-10
    assert relative(after, before) > 1e-3


def test_vectors_that_are_none_are_an_error():
    for convert, name in (
        (spherical_vector, "vectors"),
        (cartesian_vector, "components"),
    ):
        for shape in ((), (4,), (3, 2)):
            got = re.escape(str(shape))
            message = rf"{name} must have shape \(\.\.\., 3\), got {got}"
            with pytest.raises(ValueError, match=message):
                convert(np.zeros(shape))
        with pytest.raises(ValueError, match=f"{name} must be finite, got NaN"):
            convert([0.0, np.nan, 1.0])


def test_tensors_survive_a_round_trip_with_their_norm():
    rng = np.random.default_rng(0)
    tensors = rng.normal(size=(4, 2, 3, 3))
    tensors += np.swapaxes(tensors, -1, -2)
    parts = spherical_tensor(tensors)
    assert parts.shape == (4, 2, 6)
    np.testing.assert_allclose(cartesian_tensor(parts), tensors, rtol=0, atol=1e-15 * 8)
    norm = np.sum(tensors**2, axis=(-1, -2))
    np.testing.assert_allclose(np.sum(parts**2, axis=-1), norm, rtol=1e-14)
    trace = np.trace(tensors, axis1=-2, axis2=-1)
    np.testing.assert_allclose(parts[..., 0], trace / math.sqrt(3), rtol=1e-13)


def test_components_of_a_tensor_are_those_of_the_harmonics():
    # r r^T has the harmonics of r, each with the same positive factor.
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    parts = spherical_tensor(np.einsum("nx,ny->nxy", vectors, vectors))
    expected = harmonics(vectors, 2)[:, 4:] * math.sqrt(8 * math.pi / 15)
    np.testing.assert_allclose(parts[:, 1:], expected, rtol=0, atol=1e-14)
    own = own_harmonics(vectors, 2)[4:].T * math.sqrt(8 * math.pi / 15)
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-14)


def test_tensors_that_are_none_are_an_error():
    with pytest.raises(ValueError, match=r"shape \(..., 3, 3\), got \(3,\)"):
        spherical_tensor(np.zeros(3))
    with pytest.raises(ValueError, match="symmetric, got halves that differ by 1"):
        spherical_tensor(np.triu(np.ones((3, 3))))
    with pytest.raises(ValueError, match="finite"):
        spherical_tensor(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 6\), got \(2, 5\)"):
        cartesian_tensor(np.zeros((2, 5)))


# Features


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
@pytest.mark.parametrize("pbc", [False, True])
def test_features_are_the_sums_that_their_labels_name(descriptor, pbc):
    frames = [atoms_of(pbc, 1), atoms_of(pbc, 2, 3)]
    x = descriptor.compute(frames)
    c = descriptor.expansion.compute(frames)
    d = c if descriptor.other is None else descriptor.other.compute(frames)
    names = channels(x.labels, c.species)
    expected = equivariant_spectrum(
        c.values, d.values, names, descriptor.angular, clebsch_gordan
    )
    if descriptor.other is None:
        # A pair of different channels stands for both of its orders.
        different = [name[:3] != name[3:] for name in names]
        expected[..., different] *= math.sqrt(2)
    assert x.values.shape == expected.shape
    assert relative(x.values, expected) <= 1e-14
    both = [(*name[3:], *name[:3]) for name in names]
    assert len(set(names)) == len(names)
    if descriptor.other is None:
        assert all(a == b for a, b in zip(names, both, strict=True) if a in both[:0])


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
def test_scalar_products_are_those_of_all_pairs_of_channels(descriptor):
    # Summed over the components of one environment with those of another.
    frames = [atoms_of(True, 3), atoms_of(False, 4)]
    x = descriptor.compute(frames).values
    c = descriptor.expansion.compute(frames)
    second = descriptor.other or descriptor.expansion
    n_l, odd = L_MAX + 1, descriptor.parity < 0
    d = second.compute(frames)
    full = []
    for l_1 in range(n_l):
        for l_2 in range(n_l):
            angular = descriptor.angular
            if not abs(l_1 - l_2) <= angular <= l_1 + l_2:
                continue
            if (l_1 + l_2 + angular) % 2 != odd:
                continue
            product = np.einsum(
                "jamn,jbok,mox->jxanbk",
                c.values[:, :, l_1 * l_1 : (l_1 + 1) ** 2],
                d.values[:, :, l_2 * l_2 : (l_2 + 1) ** 2],
                clebsch_gordan(l_1, l_2, angular),
            )
            full.append(product.reshape(*product.shape[:2], -1))
    full = np.concatenate(full, axis=2)
    if descriptor.other is None:
        assert x.shape[2] < full.shape[2]
    else:
        assert x.shape == full.shape
    expected = np.einsum("iqf,jpf->iqjp", full, full)
    found = np.einsum("iqf,jpf->iqjp", x, x)
    assert relative(found, expected) <= 1e-13


@pytest.mark.parametrize("other", [None, V], ids=["rho.rho", "rho.V"])
def test_features_of_angular_momentum_zero_are_the_power_spectrum(other):
    frames = [atoms_of(True, 1), atoms_of(False, 2)]
    x = lode.EquivariantPowerSpectrum(RHO, other, angular=0).compute(frames)
    expected = lode.PowerSpectrum(RHO, other).compute(frames)
    assert x.values.shape == (10, 1, expected.values.shape[1])
    assert relative(x.values[:, 0], expected.values) <= 1e-14
    for name in ("species_1", "n_1", "species_2", "n_2"):
        np.testing.assert_array_equal(x.labels[name], expected.labels[name])
    np.testing.assert_array_equal(x.labels["l_1"], expected.labels["l"])


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("improper", [False, True])
def test_features_turn_with_the_structure(descriptor, pbc, improper):
    atoms = atoms_of(pbc, 5)
    before = descriptor.compute(atoms).values
    angular = descriptor.angular
    rotation = Rotation.random(random_state=3).as_matrix()
    matrix = rotation_matrices(rotation, angular)[angular]
    expected = np.einsum("qp,jpf->jqf", matrix, before)
    if improper:
        rotation = -rotation
        expected *= (-1) ** angular * descriptor.parity
    moved = atoms.copy()
    moved.set_cell(CELL @ rotation.T)
    moved.positions = atoms.positions @ rotation.T + [3.0, -20.0, 0.7]
    assert relative(descriptor.compute(moved).values, expected) <= 1e-10
    assert relative(before, expected) > 1e-3


def test_features_of_a_crystal_without_direction_vanish():
    # Every site of rock salt has cubic symmetry: nothing of λ = 2 is left.
    frame = bulk("NaCl", "rocksalt", a=4.6)
    strained = frame.copy()
    strained.set_cell(frame.cell.array * [1.0, 1.0, 1.05], scale_atoms=True)
    for descriptor in (DESCRIPTORS[0], DESCRIPTORS[2]):
        cubic = np.abs(descriptor.compute(frame).values).max()
        assert cubic <= 1e-9 * np.abs(descriptor.compute(strained).values).max()


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
def test_order_of_the_atoms_is_that_of_the_features(descriptor):
    atoms = atoms_of(True, 6)
    order = np.random.default_rng(0).permutation(len(atoms))
    expected = descriptor.compute(atoms).values[order]
    assert relative(descriptor.compute(atoms[order]).values, expected) <= 1e-11


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
def test_number_of_threads_changes_no_bit(descriptor):
    frames = [atoms_of(True, seed, 3) for seed in range(3)]
    one = descriptor.compute(frames, n_threads=1).values
    for n_threads in (2, 5):
        other = descriptor.compute(frames, n_threads=n_threads).values
        np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
def test_features_know_their_environments(descriptor):
    frames = [atoms_of(False, 1), atoms_of(True, 2, 3)]
    x = descriptor.compute(frames)
    assert isinstance(x, EquivariantFeatures)
    assert x.values.shape == (8, 2 * descriptor.angular + 1, len(x.labels))
    assert x.angular == descriptor.angular
    assert x.n_frames == 2
    assert x.neighbor_species == (1, 8)
    np.testing.assert_array_equal(x.frame_index, np.repeat([0, 1], [5, 3]))
    numbers = np.concatenate([f.numbers for f in frames])
    np.testing.assert_array_equal(x.species, numbers)


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
def test_descriptors_survive_a_round_trip(descriptor):
    assert from_dict(to_dict(descriptor)) == descriptor


def test_settings_out_of_range_are_an_error():
    with pytest.raises(ValueError, match=f"angular .* from 0 to {2 * L_MAX}, got"):
        lode.EquivariantPowerSpectrum(RHO, angular=2 * L_MAX + 1)
    with pytest.raises(ValueError, match="angular .* got -1"):
        lode.EquivariantPowerSpectrum(RHO, angular=-1)
    with pytest.raises(ValueError, match="parity must be 1 or -1, got 0"):
        lode.EquivariantPowerSpectrum(RHO, parity=0)
    with pytest.raises(ValueError, match="parity -1 and angular 0 .* got none"):
        lode.EquivariantPowerSpectrum(RHO, angular=0, parity=-1)
    with pytest.raises(TypeError, match="expansion must be a Spher.*, got Gaussian"):
        lode.EquivariantPowerSpectrum(GaussianDensity(0.3))
    with pytest.raises(TypeError, match="other must be a SphericalExpansion, got int"):
        lode.EquivariantPowerSpectrum(RHO, 3)
    other = lode.SphericalExpansion(V.field, V.basis, L_MAX + 1)
    with pytest.raises(ValueError, match="the same max_angular, got"):
        lode.EquivariantPowerSpectrum(RHO, other)
    other = lode.SphericalExpansion(V.field, V.basis, L_MAX, species=(1, 8))
    with pytest.raises(ValueError, match=r"the same species, got None and \(1, 8\)"):
        lode.EquivariantPowerSpectrum(RHO, other)
