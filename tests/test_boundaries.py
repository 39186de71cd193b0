"""Slabs, wires and what else is periodic along some directions only."""

import itertools

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from naive import finite_field, projection, rotated, shifted_cosine
from scipy.spatial.transform import Rotation

import lode
from lode import pairs
from lode.systems import structures

# Interpreted loops are a thousand times slower.
SMALL = numba.config.DISABLE_JIT
CELL = np.array([[3.1, 0.4, 0.0], [1.2, 3.6, -0.5], [-0.7, 0.8, 3.3]])
ALL = list(itertools.product([False, True], repeat=3))
MIXED = [pbc for pbc in ALL if 0 < sum(pbc) < 3]
# Rounding of positions and sums.
RTOL = 1e-11


def density(cutoff=2.8, **options):
    basis = lode.RadialBasis.gto(2, 2.5)
    return lode.SphericalExpansion(
        lode.GaussianDensity(0.5),
        basis,
        max_angular=2,
        cutoff_function=lode.ShiftedCosineCutoff(cutoff, 0.9),
        tolerance=1e-10,
        **options,
    )


def atoms(pbc, n=5, cell=CELL, seed=0):
    """Atoms that stick out of the cell along all directions."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-0.6, 1.9, (n, 3)) @ cell
    return Atoms(np.resize([11, 17], n), positions, cell=cell, pbc=pbc)


def boxed(frame, margin=6.0):
    """The same in a box that is wider than the cutoff where there is no period."""
    box = frame.copy()
    periods = box.cell.array[box.pbc]
    normals = np.linalg.svd(periods, full_matrices=True)[2][len(periods) :]
    extents = np.ptp(box.positions @ normals.T, axis=0) + margin
    cell = box.cell.array
    cell[~box.pbc] = extents[:, None] * normals
    box.set_cell(cell)
    box.pbc = True
    return box


def pairs_from(kind, monkeypatch):
    monkeypatch.setattr(pairs, "_SMALL", 10_000 if kind == "images" else -1)
    monkeypatch.setattr(pairs, "_images_are_few", lambda *_: kind == "images")


def assert_same(found, expected, rtol=RTOL):
    np.testing.assert_allclose(found, expected, atol=rtol * np.abs(expected).max())


# --- What the coefficients are -------------------------------------------------


@pytest.mark.parametrize("kind", ["images", "list"])
@pytest.mark.parametrize("pbc", ALL)
def test_density_agrees_with_quadrature_for_any_periods(pbc, kind, monkeypatch):
    pairs_from(kind, monkeypatch)
    frame, e = atoms(pbc, 3), density()
    c = e.compute(frame).values
    shifts = itertools.product(*[range(-5, 6) if p else [0] for p in pbc])
    sources, weights = [], []
    for shift in map(np.array, shifts):
        for i in np.flatnonzero(frame.numbers == 11):
            place = frame.positions[i] + shift @ CELL
            r = np.linalg.norm(place - frame.positions[0])
            sources.append(place)
            weights.append(shifted_cosine(r, 2.8, 0.9))
    near = np.flatnonzero(weights)
    sources, weights = np.array(sources)[near], np.array(weights)[near]
    field = finite_field(e.field.real, frame.positions[0], sources, weights)
    expected = projection(field, e.basis, 2, panels=8, order=28)
    # That of the quadrature.
    assert_same(c[0, 0], expected, 1e-9)


@pytest.mark.parametrize("kind", ["images", "list"])
@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("pbc", MIXED)
def test_density_is_that_in_a_box_wider_than_the_cutoff(pbc, n, kind, monkeypatch):
    frame, e = atoms(pbc, n), density()
    expected = e.compute(boxed(frame)).values
    pairs_from(kind, monkeypatch)
    assert_same(e.compute(frame).values, expected)


@pytest.mark.parametrize("kind", ["images", "list"])
@pytest.mark.parametrize("pbc", MIXED)
def test_large_slabs_and_wires_are_as_in_a_box(pbc, kind, monkeypatch):
    n = 60 if SMALL else 700
    frame, e = atoms(pbc, n, cell=4.5 * CELL), density()
    expected = e.compute(boxed(frame)).values
    pairs_from(kind, monkeypatch)
    assert_same(e.compute(frame).values, expected)


def test_both_kinds_of_pairs_are_used_for_slabs():
    e = density()
    for n, side, are_few in ((300_000, 300.0, False), (300, 10.0, True)):
        frame = atoms((True, True, False), n, cell=np.diag([side, side, 5.0]))
        (slab,) = structures(frame)
        assert pairs._images_are_few(slab, e.cutoff_function.limit) == are_few


@pytest.mark.parametrize("orthogonal", [False, True])
def test_slab_of_a_builder_is_as_in_a_box(orthogonal):
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0, orthogonal=orthogonal)
    assert slab.pbc.tolist() == [True, True, False]
    full = slab.copy()
    full.pbc = True
    expected = density().compute(full).values
    assert_same(density().compute(slab).values, expected)
    bare = fcc111("Cu", (2, 2, 3), orthogonal=orthogonal)
    assert not bare.cell[2].any()
    assert_same(density().compute(bare).values, expected)


def test_wire_of_touching_images_is_as_in_a_box():
    wire = Atoms("C2", [[0, 0, 0], [1.3, 0, 0]], cell=[2.6, 0, 0], pbc=[1, 0, 0])
    box = Atoms("C2", wire.positions, cell=[2.6, 20, 20], pbc=True)
    assert_same(density().compute(wire).values, density().compute(box).values)


# --- What they do not depend on --------------------------------------------------


@pytest.mark.parametrize("pbc", MIXED)
def test_rotated_structures_have_rotated_coefficients(pbc):
    frame, e = atoms(pbc), density()
    rotation = Rotation.random(random_state=3).as_matrix()
    turned = frame.copy()
    turned.set_cell(frame.cell.array @ rotation.T)
    turned.positions = frame.positions @ rotation.T
    # The matrices of the naive twin are a least-squares fit.
    expected = rotated(e.compute(frame).values, rotation)
    assert_same(e.compute(turned).values, expected, 1e-10)


@pytest.mark.parametrize("pbc", MIXED)
def test_coefficients_do_not_depend_on_origin_images_order_and_handedness(pbc):
    frame, e = atoms(pbc), density()
    expected = e.compute(frame).values
    moved = frame.copy()
    moved.positions += [7.0, -400.0, 0.3]
    assert_same(e.compute(moved).values, expected)
    images = frame.copy()
    turns = np.random.default_rng(1).integers(-5, 6, (5, 3)) * np.array(pbc)
    images.positions += turns @ CELL
    assert_same(e.compute(images).values, expected)
    wrapped = frame.copy()
    wrapped.wrap()
    assert_same(e.compute(wrapped).values, expected)
    order = [3, 1, 4, 0, 2]
    assert_same(e.compute(frame[order]).values, expected[order])
    turned = Atoms(frame, cell=CELL[[1, 0, 2]], pbc=np.array(pbc)[[1, 0, 2]])
    assert_same(e.compute(turned).values, expected)


@pytest.mark.parametrize("pbc", MIXED)
def test_supercell_along_the_periods_repeats_the_coefficients(pbc):
    frame, e = atoms(pbc), density()
    expected = e.compute(frame).values
    counts = [n if p else 1 for n, p in zip((3, 2, 2), pbc, strict=True)]
    found = e.compute(frame.repeat(counts)).values
    assert_same(found, np.tile(expected, (np.prod(counts), 1, 1, 1)))


@pytest.mark.parametrize("skew", [1, -7, 300])
@pytest.mark.parametrize("pbc", [pbc for pbc in MIXED if sum(pbc) == 2])
def test_skewed_periods_are_those_of_the_same_slab(pbc, skew):
    frame, e = atoms(pbc), density()
    skewed, (i, j) = CELL.copy(), np.flatnonzero(pbc)
    skewed[i] += skew * skewed[j]
    expected = e.compute(frame).values
    found = e.compute(Atoms(frame, cell=skewed, pbc=pbc)).values
    # Vectors of 10^3 Å are reduced to some Å.
    assert_same(found, expected, 1e-10)


@pytest.mark.parametrize("pbc", MIXED)
def test_vectors_without_a_period_do_not_count(pbc):
    frame, e = atoms(pbc), density()
    expected = e.compute(frame).values
    period = CELL[np.flatnonzero(pbc)[0]]
    for unused in ([0, 0, 0], [1e-300, 0, 0], 2 * period, [1e300, 0, 1], [np.nan] * 3):
        cell = np.where(np.array(pbc)[:, None], CELL, unused)
        found = e.compute(Atoms(frame, cell=cell, pbc=pbc)).values
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_molecules_slabs_and_crystals_in_a_list_are_as_alone(n_threads):
    frames = [atoms(pbc, 3 + i, seed=i) for i, pbc in enumerate(ALL + ALL[::-1])]
    spectrum = lode.PowerSpectrum(density(species=(11, 17)))
    found = spectrum.compute(frames, n_threads=n_threads).values
    alone = np.concatenate([spectrum.compute(frame).values for frame in frames])
    assert_same(found, alone)


def test_formal_charges_are_those_of_molecules_cut_by_a_period():
    ammonium = Atoms(
        "NH4", [[0, 0, 0], [0.6, 0.6, 0.6], [-0.6, -0.6, 0.6], [-0.6, 0.6, -0.6],
        [0.6, -0.6, -0.6]], cell=[8, 0, 0], pbc=[1, 0, 0],
    )  # fmt: skip
    expected = lode.formal_charges(Atoms(ammonium, pbc=False))
    ammonium.wrap()
    np.testing.assert_array_equal(lode.formal_charges(ammonium), expected)
    assert expected.sum() == pytest.approx(1.0)


# --- Potentials ------------------------------------------------------------------


def coulomb(**options):
    field, basis = lode.PowerLawPotential(1, 0.7), lode.RadialBasis.gto(3, 2.0)
    return lode.SphericalExpansion(field, basis, max_angular=2, **options)


@pytest.mark.parametrize("pbc", MIXED)
def test_potential_of_a_slab_is_refused_with_the_box_that_would_do(pbc):
    frames = [molecule("NaCl"), atoms(pbc)]
    longest = np.linalg.norm(CELL[list(pbc)], axis=1).max()
    others = r" and ".join(rf"cell\[{i}\]" for i in range(3) if not pbc[i])
    message = (
        r"in all three directions or in none, got pbc = .* \(frame 1\); put it into a "
        rf"box with pbc = True and {others} orthogonal to the periods, with at "
    )
    for descriptor, margin in (
        (coulomb(), coulomb().basis.extent),
        (lode.PowerSpectrum(coulomb()), coulomb().basis.extent),
    ):
        vacuum = f"least {2 * longest + margin:.1f} Å of vacuum"
        with pytest.raises(ValueError, match=message + vacuum):
            descriptor.compute(frames)
    for frame in frames:
        frame.set_initial_charges(np.resize([1.0, -1.0], len(frame)))
    vacuum = f"least {2 * longest:.1f} Å of vacuum"
    with pytest.raises(ValueError, match=message + vacuum):
        lode.ewald_energies(frames)
    with pytest.raises(ValueError, match=f"least {2 * longest:.1f} Å of vacuum"):
        lode.ewald(frames[1])


def charged_layers(kind):
    """Neutral layers without a dipole, or rows of ions along a line."""
    salt = bulk("NaCl", "rocksalt", a=5.0, cubic=True)
    if kind == "wire":
        salt = Atoms("NaCl", [[0, 0, 0], [2.5, 0, 0]], cell=[5.0, 0, 0])
    salt.pbc = [True, kind == "slab", False]
    salt.set_initial_charges(np.where(salt.numbers == 11, 1.0, -1.0))
    return salt


@pytest.mark.parametrize("kind", ["slab", "wire"])
def test_box_of_the_error_is_wide_enough_for_neutral_layers(kind):
    frame = charged_layers(kind)
    e = coulomb(sources="charges", tolerance=1e-9)

    def in_box(vacuum):
        return boxed(frame, vacuum)

    for compute, margin in (
        (lambda frame: e.compute(frame).values, e.basis.extent),
        (lambda frame: lode.ewald(frame).energy, 0.0),
    ):
        exact = compute(in_box(60.0))
        # exp(-2 pi d / a) is 3e-6; a wire has four images around it.
        assert_same(compute(in_box(2 * 5.0 + margin)), exact, 2e-5)
        # A narrow box has none of these digits.
        assert np.abs(compute(in_box(2.0)) - exact).max() > 1e-4 * np.abs(exact).max()
