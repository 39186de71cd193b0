import math
import pickle

import numpy as np
import pytest
from naive import composite
from scipy import integrate, special

import lode
from lode.fields import exponential_integral

EXPONENTS = (1, 1.5, 2, 3, 3.5, 4, 5, 6, 7, 8, 9)


def fields(smearing):
    potentials = [lode.PowerLawPotential(p, smearing) for p in EXPONENTS]
    potentials += [lode.YukawaPotential(length, smearing) for length in (0.3, 2, 1e5)]
    return [lode.GaussianDensity(smearing), *potentials]


def name(field):
    values = [f"{k}={v:g}" for k, v in vars(field).items()]
    return "-".join([type(field).__name__, *values])


@pytest.mark.parametrize("field", fields(0.7), ids=name)
def test_real_form_is_the_inverse_transform_of_the_fourier_form(field):
    # Panels that shrink towards k = 0, where k² g(k) is k^(p-1) at worst; rounding
    # errors of a sum of terms of size g(0) are left.
    top = 9.0 / field.smearing
    towards_zero = 0.5 * 2.0 ** np.arange(-45, 0)
    k, w = composite([0.0, *towards_zero, *np.linspace(0.5, top, 40)])
    for d in (1e-3, 0.3, 0.7, 1.1, 2.5, 6.0):
        wave = np.sin(k * d) / (k * d)
        value = w @ (k**2 * field.fourier(k) * wave) / (2 * math.pi**2)
        error = value - float(field.real(d))
        # An integrable k^(1/2) at zero costs the last digits for p = 1.5.
        assert abs(error) <= 1e-12 * float(field.real(0.0))


@pytest.mark.parametrize("smearing", [0.05, 1.0, 40.0])
def test_coulomb_field_is_the_error_function_over_the_distance(smearing):
    field = lode.PowerLawPotential(1, smearing)
    d = smearing * np.array([1e-3, 0.1, 1.0, 3.0, 50.0])
    expected = special.erf(d / (math.sqrt(2) * smearing)) / d
    np.testing.assert_allclose(field.real(d), expected, rtol=1e-13)


@pytest.mark.parametrize("p", EXPONENTS)
def test_field_at_zero_distance_is_the_limit_of_small_distances(p):
    field = lode.PowerLawPotential(p, 0.8)
    zero = 1 / ((2 * 0.8**2) ** (p / 2) * special.gamma(p / 2 + 1))
    assert float(field.real(0.0)) == pytest.approx(zero, rel=1e-14)
    # The first correction is of relative order (d / σ)²/2.
    for d in (1e-300, 1e-9, 1e-5, 0.99e-4, 1.2e-4, 2e-4):
        assert float(field.real(d)) == pytest.approx(zero, rel=1e-7)


@pytest.mark.parametrize("p", EXPONENTS)
def test_field_far_away_is_the_bare_power(p):
    # The smearing is gone where exp(-d²/2σ²) is below the rounding error.
    d = np.array([12.0, 30.0, 1e4])
    np.testing.assert_allclose(
        lode.PowerLawPotential(p, 1.0).real(d), d**-p, rtol=1e-13
    )


@pytest.mark.parametrize("field", fields(1.0)[1:], ids=name)
def test_tail_is_the_field_beyond_nine_smearings(field):
    d = np.array([9.0, 12.0, 30.0])
    amplitude, power, decay = field.tail
    expected = amplitude * np.exp(-decay * d) / d**power
    # Of higher powers exp(-d²/2σ²) is multiplied with some powers of d/σ.
    np.testing.assert_allclose(field.real(d), expected, rtol=1e-11, atol=1e-18)


@pytest.mark.parametrize("field", fields(0.7)[1:], ids=name)
def test_the_short_range_half_has_no_tail(field):
    # By the inverse transform of the difference, on panels that shrink towards zero.
    k, w = composite([0.0, *0.5 * 2.0 ** np.arange(-45, 0), *np.linspace(0.5, 13, 80)])
    short = field.fourier(k) - field.fourier(k, 1.1)
    d = np.array([1.0, 12.0])
    values = (w * k**2 * short) @ (np.sin(np.outer(k, d)) / np.outer(k, d))
    near, far = np.abs(values / (2 * math.pi**2))
    assert far <= 1e-12 * field.real(0.0)
    assert near > 1e3 * far


@pytest.mark.parametrize("field", fields(0.6)[1:], ids=name)
def test_background_is_what_the_sums_lack_at_the_wave_number_zero(field):
    # Corrections of order k², or k^(p-3), against cancellation.
    if getattr(field, "exponent", 9) > 3:
        expected = float(field.fourier(1e-12, 1.7))
    else:
        expected = float(field.fourier(1e-3, 1.7) - field.fourier(1e-3))
    assert field.background(1.7) == pytest.approx(expected, rel=1e-5)


def test_halves_are_fields_of_the_same_kind():
    k = np.array([0.1, 1.0, 3.0])
    wide = lode.PowerLawPotential(3, 1.7)
    found = lode.PowerLawPotential(3, 0.6).fourier(k, 1.7)
    np.testing.assert_array_equal(found, wide.fourier(k))
    narrow, wide = (lode.YukawaPotential(2.0, s) for s in (0.6, 1.7))
    factor = math.exp(-0.5 * (1.7**2 - 0.6**2) / 4)
    np.testing.assert_allclose(narrow.fourier(k, 1.7), factor * wide.fourier(k))


def test_a_yukawa_potential_without_screening_is_that_of_coulomb():
    yukawa, coulomb = lode.YukawaPotential(1e9, 0.8), lode.PowerLawPotential(1, 0.8)
    x = np.array([0.0, 1e-9, 1e-3, 0.5, 3.0, 40.0])
    # The potential is lower by κ everywhere.
    np.testing.assert_allclose(yukawa.real(x), coulomb.real(x), atol=2e-9)
    np.testing.assert_allclose(
        yukawa.fourier(x[3:]), coulomb.fourier(x[3:]), rtol=1e-12
    )


@pytest.mark.parametrize("length", [0.1, 1.0, 10.0])
def test_a_yukawa_potential_is_continuous_at_the_atom(length):
    field = lode.YukawaPotential(length, 0.9)
    d = 0.9 * np.array([0.0, 1e-8, 0.99e-5, 1.01e-5, 1e-3])
    # The first correction is of relative order (d / σ)².
    np.testing.assert_allclose(field.real(d), float(field.real(0.0)), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 0.05])
def test_a_screening_length_out_of_range_is_an_error(value):
    message = "screening_length must be a positive length in Å, got"
    if value == 0.05:
        message = "smearing must be at most 10 screening lengths of 0.05 Å, got 1.0"
    with pytest.raises(ValueError, match=message):
        lode.YukawaPotential(value, 1.0)


def test_only_powers_up_to_three_are_neutralised():
    assert [p for p in EXPONENTS if lode.PowerLawPotential(p, 1).neutralized] == [
        1, 1.5, 2, 3,
    ]  # fmt: skip


def test_bare_charge_is_the_limit_of_vanishing_smearing():
    bare, sharp = lode.PowerLawPotential(1, 0.0), lode.PowerLawPotential(1, 0.02)
    x = np.array([0.2, 1.0, 7.0])
    np.testing.assert_allclose(bare.real(x), 1 / x, rtol=1e-15)
    np.testing.assert_allclose(sharp.real(x), bare.real(x), rtol=1e-14)
    np.testing.assert_allclose(bare.fourier(x), 4 * math.pi / x**2, rtol=1e-15)
    np.testing.assert_allclose(sharp.fourier(x), bare.fourier(x), rtol=1e-2)
    assert float(bare.real(0.0)) == math.inf


def test_density_has_unit_norm():
    density = lode.GaussianDensity(0.4)
    norm, _ = integrate.quad(lambda d: 4 * math.pi * d**2 * density.real(d) ** 2, 0, 5)
    assert norm == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("field", fields(1.0), ids=name)
def test_shapes_follow_the_argument(field):
    for shape in [(), (3,), (2, 3)]:
        assert np.shape(field.real(np.ones(shape))) == shape
        assert np.shape(field.fourier(np.ones(shape))) == shape


@pytest.mark.parametrize("order", [0, 0.25, 0.5, 1, 1.5, 2.25, 3.5, 4])
def test_exponential_integral_is_its_defining_integral(order):
    for x in (1e-3, 0.1, 1.0, 5.0, 20.0):
        expected, _ = integrate.quad(
            lambda t, x=x: t**-order * math.exp(-x * (t - 1)),
            1,
            math.inf,
            epsabs=0,
            epsrel=1e-11,
            limit=500,
        )
        value = float(exponential_integral(order, x)) * math.exp(x)
        # Upward recurrence in the order loses a factor of x in each step.
        assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("smearing", [-1.0, math.nan, math.inf, 101, 0.0, 1e-3])
def test_density_needs_a_positive_finite_smearing(smearing):
    with pytest.raises(ValueError, match="smearing must be from 0.02 to 100 Å, got"):
        lode.GaussianDensity(smearing)


@pytest.mark.parametrize(
    ("p", "smearing"), [(1, -0.1), (1, math.nan), (1, 1e3), (2, 0.0), (6, -1.0)]
)
def test_potential_refuses_a_bad_smearing(p, smearing):
    bound = "0 or from" if p == 1 else "from"
    with pytest.raises(
        ValueError, match=f"smearing must be {bound} .*, got {smearing}"
    ):
        lode.PowerLawPotential(p, smearing)


@pytest.mark.parametrize("p", [1 + 1e-9, 3 - 1e-8, 5 + 1e-12])
def test_potential_refuses_an_exponent_that_is_nearly_odd(p):
    with pytest.raises(ValueError, match="exponent must be . or differ from it by"):
        lode.PowerLawPotential(p, 1.0)


@pytest.mark.parametrize("p", [0, 0.99, 9.01, -1, math.nan, math.inf])
def test_exponent_out_of_range_is_an_error(p):
    with pytest.raises(ValueError, match=f"exponent must be from 1 to 9, got {p}"):
        lode.PowerLawPotential(p, 1.0)


def test_fields_are_values():
    assert lode.PowerLawPotential(1, 1) == lode.PowerLawPotential(1.0, 1.0)
    assert hash(lode.PowerLawPotential(1, 1)) == hash(lode.PowerLawPotential(1.0, 1.0))
    assert pickle.loads(pickle.dumps(lode.GaussianDensity(0.3))).smearing == 0.3
