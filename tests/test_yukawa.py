"""The Yukawa potential through the whole of an expansion."""

import math

import numba
import numpy as np
import pytest
from ase import Atoms
from naive import finite_field, periodic_field, projection

import lode
from lode.serialization import from_dict, to_dict
from lode.tables import bessel_transform

SMALL = numba.config.DISABLE_JIT
L_MAX, N_MAX = (1, 2) if SMALL else (3, 3)
TRICLINIC = np.array([[5.1, 0.0, 0.0], [2.1, 4.4, 0.0], [-1.6, 1.7, 4.9]])
LENGTHS = (0.4, 2.0, 30.0)


def expansion(field, kind="gto", **options):
    basis = getattr(lode.RadialBasis, kind)(N_MAX, 2.5)
    return lode.SphericalExpansion(field, basis, L_MAX, **options)


def cluster(n=4, side=4.0):
    positions = np.random.default_rng(3).uniform(0, side, (n, 3))
    return Atoms(np.resize([11, 17], n), positions)


def crystal(n=4, cell=TRICLINIC):
    atoms = Atoms(np.resize([11, 17], n), cell=cell, pbc=True)
    atoms.set_scaled_positions(np.random.default_rng(1).uniform(0, 1, (n, 3)))
    return atoms


@pytest.mark.parametrize("kind", ["gto", "polynomial", "laplacian", "monomial"])
@pytest.mark.parametrize("length", LENGTHS)
def test_finite_sums_agree_with_quadrature(kind, length):
    field, atoms = lode.YukawaPotential(length, 0.8), cluster()
    # One atom so far away that its field comes from the tail.
    atoms.positions[2] += np.array([30.0, -5.0, 8.0])
    e = expansion(field, kind, tolerance=1e-11)
    c = e.compute(atoms).values
    for centre in (0, 2):
        sources = atoms.positions[atoms.numbers == 11]
        values = finite_field(field.real, atoms.positions[centre], sources, [1, 1])
        expected = projection(values, e.basis, L_MAX, panels=6, order=24)
        # The grid resolves a field of width 0.8 Å to ten digits.
        assert np.abs(c[centre, 0] - expected).max() <= 1e-9 * np.abs(c).max()


@pytest.mark.parametrize("length", LENGTHS)
def test_periodic_sums_agree_with_quadrature_of_the_plane_wave_field(length):
    field = lode.YukawaPotential(length, 1.0)
    cell, atoms = 0.7 * TRICLINIC, crystal(2, 0.7 * TRICLINIC)
    e = expansion(field, "monomial", tolerance=1e-11, method="split", split=1.6)
    c = e.compute(atoms).values
    place = atoms.positions
    zero = float(field.fourier(0.0))
    values = periodic_field(field.fourier, place[0], place[1:], cell, 8.0, zero)
    # Harmonics of the cell up to 8 / Å, within 2.5 Å: degree 50.
    expected = projection(values, e.basis, L_MAX, panels=3, order=24)
    assert np.abs(c[0, 1] - expected).max() <= 1e-9 * np.abs(c).max()


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-10])
@pytest.mark.parametrize("length", LENGTHS)
def test_result_does_not_depend_on_the_split(length, tolerance):
    field, atoms = lode.YukawaPotential(length, 0.9), crystal()
    exact = expansion(field, tolerance=1e-13, method="reciprocal").compute(atoms).values
    for width in (1.1, 1.6, 3.0):
        for method in ("split", "nufft"):
            e = expansion(field, tolerance=tolerance, method=method, split=width)
            error = np.abs(e.compute(atoms).values - exact).max()
            assert error <= tolerance * np.abs(exact).max()


def test_a_large_box_is_a_finite_system():
    field, dimer = lode.YukawaPotential(1.5, 0.8), cluster(2)
    box = dimer.copy()
    box.set_cell(30 * np.eye(3))
    box.set_pbc(True)
    e = expansion(field, tolerance=1e-9)
    finite = e.compute(dimer).values
    # What the images add has fallen by exp(-20).
    assert np.abs(e.compute(box).values - finite).max() <= 2e-8 * np.abs(finite).max()


def test_without_screening_a_finite_system_has_the_coulomb_potential():
    atoms = cluster()
    atoms.positions[3] += 40.0
    coulomb, screened = (
        expansion(field, tolerance=1e-10).compute(atoms).values
        for field in (lode.PowerLawPotential(1, 0.8), lode.YukawaPotential(1e10, 0.8))
    )
    # The field is lower by κ everywhere.
    assert np.abs(screened - coulomb).max() <= 1e-9 * np.abs(coulomb).max()


@pytest.mark.parametrize("method", ["split", "reciprocal"])
def test_without_screening_a_crystal_has_the_coulomb_potential_but_for_its_mean(method):
    atoms, length = crystal(), 1e4
    options = {"tolerance": 1e-11, "method": method}
    e = expansion(lode.YukawaPotential(length, 0.9), **options)
    coulomb = expansion(lode.PowerLawPotential(1, 0.9), **options).compute(atoms).values
    screened = e.compute(atoms).values
    volume_integral = bessel_transform(e.basis, 0, np.zeros(1))[0, :, 0]
    zero = 4 * math.pi * length**2 * 2 / atoms.get_volume()
    screened[:, :, 0] -= math.sqrt(4 * math.pi) * zero * volume_integral
    # Of relative order κ² a²; the mean is a hundred million times larger.
    assert np.abs(screened - coulomb).max() <= 1e-6 * np.abs(coulomb).max()


def test_without_screening_neutral_charges_have_the_coulomb_potential():
    atoms = crystal()
    atoms.set_initial_charges([1.0, -0.25, -1.25, 0.5])
    coulomb, screened = (
        expansion(field, tolerance=1e-11, sources="charges").compute(atoms).values
        for field in (lode.PowerLawPotential(1, 0.9), lode.YukawaPotential(1e6, 0.9))
    )
    assert np.abs(screened - coulomb).max() <= 1e-9 * np.abs(coulomb).max()


def test_it_is_a_part_of_descriptors_and_of_saved_specifications():
    e = expansion(lode.YukawaPotential(screening_length=3.0, smearing=0.8))
    descriptor = lode.PowerSpectrum(e)
    again = from_dict(to_dict(descriptor))
    assert again == descriptor
    frames = [cluster(), crystal()]
    values = descriptor.compute(frames).values
    np.testing.assert_array_equal(again.compute(frames).values, values)
    assert np.isfinite(values).all()
