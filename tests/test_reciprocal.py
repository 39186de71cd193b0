import math
import subprocess
import sys

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import lode
from lode import expansion, reciprocal
from lode.bases import RadialBasis
from lode.core import reciprocal as core
from lode.core.lattice import half_sphere, vectors_of
from lode.core.registers import LANES
from lode.fields import PowerLawPotential
from lode.tuning import transform_sizes

# Interpreted loops are a thousand times slower.
SMALL = numba.config.DISABLE_JIT
L_MAX = 1 if SMALL else 4
N_MAX = 2 if SMALL else 4
N_ATOMS = 5 if SMALL else 40
TRICLINIC = np.array([[10.2, 0.0, 0.0], [4.2, 8.8, 0.0], [-3.2, 3.4, 9.8]])
CELLS = {
    "cubic": 10.0 * np.eye(3),
    "triclinic": TRICLINIC,
    # The same lattice with vectors of up to five times the length; left-handed.
    "skewed": np.array([[1, 0, 0], [3, 1, 0], [-2, 2, 1]])[[0, 2, 1]] @ TRICLINIC,
}
if SMALL:
    CELLS = {name: 0.5 * cell for name, cell in CELLS.items()}


def crystal(seed=0, n=N_ATOMS, cell="triclinic", species=(11, 17)):
    rng = np.random.default_rng(seed)
    atoms = Atoms(np.resize(species, n), cell=CELLS[cell], pbc=True)
    atoms.set_scaled_positions(rng.uniform(-1, 1, (n, 3)))
    return atoms


def potential(method, p=1, kind="gto", **options):
    basis = getattr(RadialBasis, kind)(N_MAX, 2.5)
    options = {"max_angular": L_MAX, "tolerance": 1e-6, **options}
    return lode.SphericalExpansion(
        PowerLawPotential(p, 0.8), basis, method=method, **options
    )


def own(**options):
    """Largest coefficient of an atom alone, to which the tolerance is relative."""
    alone = Atoms([3], [[0.0, 0.0, 0.0]])
    return np.abs(potential("auto", **options).compute(alone).values).max()


def deviation(atoms, exact=None, **options):
    """Of the transforms from the products, relative to what one atom has."""
    if exact is None:
        settings = {**options, "tolerance": 1e-13}
        exact = potential("split", **settings).compute(atoms).values
    found = potential("nufft", **options).compute(atoms).values
    options.pop("split")
    return np.abs(found - exact).max() / own(**options)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4, 1e-6, 1e-10])
@pytest.mark.parametrize("p", [1, 2, 3, 6])
@pytest.mark.parametrize("cell", CELLS)
def test_transforms_agree_with_products(cell, p, tolerance):
    atoms = crystal(1, cell=cell)
    assert deviation(atoms, p=p, tolerance=tolerance, split=1.5) <= tolerance


@pytest.mark.parametrize("n_atoms", [1, 2, 7])
@pytest.mark.parametrize("species", [(11,), (11, 17), (1, 8, 11), (1, 3, 8, 11, 17)])
def test_any_number_of_species_shares_the_transforms(species, n_atoms):
    # Two species are the parts of one transform, two columns those of the last.
    atoms = crystal(2, n_atoms, species=species)
    assert deviation(atoms, split=1.4, tolerance=1e-8) <= 1e-8
    wide = potential("nufft", species=(1, 3, 8, 11, 14, 17)).compute(atoms)
    plain = potential("nufft").compute(atoms)
    here = [wide.species.index(z) for z in plain.species]
    np.testing.assert_allclose(wide.values[:, here], plain.values, atol=1e-5)
    assert not np.delete(wide.values, here, axis=1).any()


def test_fields_of_charges_are_transformed():
    atoms = crystal(8)
    charges = np.random.default_rng(0).normal(size=len(atoms))
    atoms.set_initial_charges(charges)
    exact = potential("split", sources="charges", tolerance=1e-13).compute(atoms).values
    assert exact.shape[1] == 1
    options = {"sources": "charges", "tolerance": 1e-7}
    found = potential("nufft", split=1.4, **options).compute(atoms).values
    assert np.abs(found - exact).max() <= 1e-7 * own()


@pytest.mark.parametrize("kind", ["gto", "polynomial", "laplacian", "monomial"])
@pytest.mark.parametrize("l_max", [0, 1, L_MAX])
def test_transforms_agree_with_products_for_any_basis(kind, l_max):
    for species in ((11,), (11, 17)):
        atoms = crystal(3, species=species)
        options = {"kind": kind, "max_angular": l_max, "split": 1.3}
        assert deviation(atoms, tolerance=1e-7, **options) <= 1e-7


@pytest.mark.parametrize("split", [None, 0.9, 3.0])
def test_transforms_agree_with_products_for_any_splitting(split):
    atoms = crystal(4)
    exact = potential("reciprocal", tolerance=1e-13).compute(atoms).values
    assert deviation(atoms, exact, split=split) <= 1e-6


def test_bare_charges_can_be_transformed():
    basis, atoms = RadialBasis.monomial(2, 2.0), crystal(5, 4)
    a, b = (
        lode.SphericalExpansion(
            PowerLawPotential(1, 0.0), basis, 1, tolerance=1e-9, method=m
        ).compute(atoms)
        for m in ("nufft", "split")
    )
    assert np.abs(a.values - b.values).max() <= 1e-8 * np.abs(b.values).max()


@pytest.mark.parametrize("side", [1.0, 2.0, 6.0])
def test_one_atom_cells_are_right(side):
    # Small cells have no wave vectors below the limit.
    atoms = Atoms([3], [[0.1, 0.2, 0.3]], cell=side * np.eye(3), pbc=True)
    for split in (0.9, 1.6):
        a, b = (
            potential(m, split=split).compute(atoms).values for m in ("nufft", "split")
        )
        assert np.abs(a - b).max() <= 1e-6 * own()


@pytest.mark.skipif(SMALL, reason="thousands of atoms")
def test_long_waves_of_a_large_crystal_stay_empty():
    # All phases add up: what a structure factor has of the wrong wave vectors is
    # weighted with 1/k² in the longest waves.
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    exact = potential("split", tolerance=1e-12, split=2.0).compute(atoms).values
    found = potential("nufft", split=2.0).compute(atoms.repeat(8)).values
    error = np.abs(found - np.tile(exact, (8**3, 1, 1, 1))).max()
    # The fields nearly cancel: the tolerance is relative to that of one atom.
    assert error <= 1e-6 * own()


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("species", [(11,), (11, 17), (1, 8, 11)])
def test_number_of_threads_changes_no_bit(species, monkeypatch):
    atoms = crystal(6, 6 if SMALL else 300, species=species)
    e = potential("nufft", split=1.5)
    one = e.compute(atoms, n_threads=1).values
    for n_threads in (2, 3, 8):
        other = e.compute(atoms, n_threads=n_threads).values
        np.testing.assert_array_equal(other, one)
    # Nor does the number of transforms that are kept at a time.
    monkeypatch.setattr(reciprocal, "_BATCH_BYTES", 1)
    monkeypatch.setattr(reciprocal, "_CENTERS", 7)
    for n_threads in (1, 2):
        other = e.compute(atoms, n_threads=n_threads).values
        np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize("l_max", [0, 4])
def test_large_frames_are_transformed_and_small_ones_multiplied(l_max):
    e = potential("auto", max_angular=l_max)
    sizes = [2**i for i in range(4, 20)]
    methods = [e.periodic_method(n, 2, 43.0 * n)[0] for n in sizes]
    assert methods[0] == "products"
    assert methods[-1] == "transforms"
    # One change, at some thousand atoms or less.
    assert methods == sorted(methods)
    assert methods[sizes.index(8192)] == "transforms"
    for method, expected in (("split", "products"), ("nufft", "transforms")):
        forced = potential(method, max_angular=l_max, split=1.7)
        assert forced.periodic_method(10, 2, 430.0) == (expected, 1.7)


def test_auto_is_exact_on_both_sides_of_the_change(monkeypatch):
    atoms = crystal(7)
    exact = potential("split", tolerance=1e-13).compute(atoms).values
    for way in ("products", "transforms"):
        monkeypatch.setattr(expansion, "cheapest_method", lambda *_, w=way: (w, 1.5))
        found = potential("auto").compute(atoms).values
        assert np.abs(found - exact).max() <= 1e-6 * own()


def test_grids_hold_the_sphere():
    for top in ((0, 0, 0), (1, 2, 30), (24, 24, 24), (60, 17, 9)):
        for accuracy in (1e-2, 1e-7, 1e-14):
            sizes, cost, _ = transform_sizes(top, accuracy, 1000)
            assert all(
                n % 2 == 1 and n >= 2 * t + 1 for n, t in zip(sizes, top, strict=True)
            )
            assert cost > 0.0


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "finufft", None)
    assert np.isfinite(potential("auto").compute(crystal(0, 3)).values).all()
    with pytest.raises(ImportError, match=r"finufft \(pip install finufft\)"):
        potential("nufft").compute(crystal(0, 3))


def test_the_package_is_imported_when_needed_only():
    code = "import sys, lode; sys.exit('finufft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wave_vectors_are_cached_for_a_cell_that_comes_again(monkeypatch):
    atoms = crystal(4, 5)
    made = []

    class Counted(reciprocal.HalfSpace):
        def __init__(self, *arguments):
            made.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(reciprocal, "HalfSpace", Counted)
    reciprocal._cached_half_space.cache_clear()
    e = potential("split", split=1.5)
    first, second = e.compute(atoms).values, e.compute(atoms).values
    assert len(made) == 1
    np.testing.assert_array_equal(first, second)
    # Other atoms in the same cell, another cell, another accuracy.
    moved = atoms.copy()
    moved.positions += 0.1
    np.testing.assert_allclose(e.compute(moved).values, first, atol=1e-10)
    moved.set_cell(1.01 * atoms.cell)
    e.compute(moved)
    potential("split", split=1.5, tolerance=1e-4).compute(atoms)
    assert len(made) == 3
    # Those of a large cell are not.
    monkeypatch.setattr(reciprocal, "_MOST_CACHED", 1)
    for _ in range(2):
        e.compute(atoms)
    assert len(made) == 5
    reciprocal._cached_half_space.cache_clear()


@pytest.mark.parametrize("weighted", [False, True])
def test_products_are_the_sums_that_they_are_defined_as(weighted):
    # More centres and wave vectors than are taken at a time, lines longer than a
    # register, numbers of modes that fill none, one, and more than one.
    rng = np.random.default_rng(5)
    n, n_channels, l_max = 70, 3, 3
    n_modes = np.array([3, 1, 9, 2])
    cell = np.array([[9.0, 0.0, 0.0], [2.0, 6.0, 0.0], [-1.0, 3.0, 7.0]])
    lattice = np.ascontiguousarray(2 * math.pi * np.linalg.inv(cell).T)
    positions = rng.uniform(0, 1, (n, 3)) @ cell
    channel = rng.choice([0, 2], n)
    weight = rng.normal(size=n) if weighted else np.ones(n)
    lengths = np.linalg.norm(cell, axis=1) / (2 * math.pi)
    lines, top = half_sphere(lattice, lengths, 4.6)
    k_kx = vectors_of(lattice, lines)
    assert len(k_kx) > 2 * core.WAVE_VECTORS
    assert n > 2 * core.CENTERS
    assert lines[:, 3].max() > LANES
    phases = core.axis_phases(positions, lattice, top)
    shape = n_channels, len(k_kx) + LANES
    sums = np.zeros(shape), np.zeros(shape)
    for atoms in (slice(0, 40), slice(40, n)):
        some = phases[atoms], channel[atoms], weight[atoms]
        core.add_structure_factor(*some, lines, top, *sums)
    phase_jk = np.exp(1j * positions @ k_kx.T)
    weighted_jk = weight[:, None] * phase_jk
    exact_ak = np.array([weighted_jk[channel == a].sum(axis=0) for a in range(3)])
    found_ak = (sums[0] + 1j * sums[1])[:, : len(k_kx)]
    np.testing.assert_allclose(found_ak, exact_ak, rtol=0, atol=1e-11)

    weight_k = rng.normal(size=len(k_kx))
    y_mk = rng.normal(size=((l_max + 1) ** 2, len(k_kx)))
    u_kq = rng.normal(size=(len(k_kx), 16))
    # Of even l 3 + 5 * 9, of odd l 3 * 1 + 7 * 2, in whole registers.
    widths = 48, 24
    parts = [np.zeros((len(k_kx), width)) for width in widths]
    core.write_columns(weight_k, y_mk, u_kq, n_modes, *parts)
    first_l = np.cumsum(n_modes) - n_modes
    mode_qn = rng.normal(size=(n_modes.sum(), 8))
    exact = np.zeros((n, n_channels, (l_max + 1) ** 2, 8))
    field_jak = phase_jk[:, None] * exact_ak.conj()
    at = [0, 0]
    for l in range(l_max + 1):
        modes = slice(first_l[l], first_l[l] + n_modes[l])
        sign = -1.0 if (l + 1) // 2 % 2 else 1.0
        y_of_l = sign * weight_k[:, None] * y_mk[l * l : (l + 1) ** 2].T
        columns_kmq = y_of_l[:, :, None] * u_kq[:, None, modes]
        size = columns_kmq[0].size
        found = parts[l % 2][:, at[l % 2] : at[l % 2] + size]
        at[l % 2] += size
        expected = columns_kmq.reshape(len(k_kx), -1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
        part_jak = field_jak.imag if l % 2 else field_jak.real
        value = np.einsum("jak,kmq->jamq", part_jak, columns_kmq)
        exact[:, :, l * l : (l + 1) ** 2] = value @ mode_qn[modes]
    both = [np.zeros((n_channels, n - 3, width)) for width in widths]
    waves = core.WaveVectors(lines, top, *sums, *parts)
    core.add_products(phases[3:], waves, *both)
    out = np.ones((n - 3, n_channels, (l_max + 1) ** 2, 8))
    core.add_modes(tuple(both), n_modes, mode_qn, out)
    assert np.abs(out - 1.0 - exact[3:]).max() <= 1e-13 * np.abs(exact).max()
