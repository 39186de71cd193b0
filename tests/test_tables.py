import math
from dataclasses import replace

import numba
import numpy as np
import pytest
from naive import composite, pair_function
from scipy import special

import lode
from lode import bases, tables
from lode.core import bessel as core
from lode.core.pairs import TERMS

KINDS = ("gto", "polynomial", "laplacian", "monomial")
COMPACT = KINDS[1:]
# The compiled loop, whatever stands in for it elsewhere (see conftest).
spherical_bessel = core.spherical_bessel
SMALL = numba.config.DISABLE_JIT
L_MAX = 3 if SMALL else 6


def basis_of(kind, max_radial=5, cutoff=3.0):
    return getattr(lode.RadialBasis, kind)(max_radial, cutoff)


def overlap(basis, l_max, edge=None):
    r, w = composite(np.linspace(0, edge or basis.extent, 60))
    values = basis.functions(r, l_max)
    return np.einsum("lnr,lmr,r->lnm", values, values, w * r**2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cutoff", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("max_radial", [1, 2, 8])
def test_functions_are_orthonormal(kind, cutoff, max_radial):
    matrix = overlap(basis_of(kind, max_radial, cutoff), L_MAX)
    # The overlap of eight GTOs has condition 3e4: its inverse root loses digits.
    np.testing.assert_allclose(
        matrix, np.broadcast_to(np.eye(max_radial), matrix.shape), atol=1e-11
    )


@pytest.mark.parametrize("kind", COMPACT)
def test_compact_functions_vanish_beyond_the_cutoff(kind):
    basis = basis_of(kind)
    assert basis.compact
    assert basis.extent == 3.0
    assert not basis.functions(np.array([3.0 + 1e-9, 4.0, 90.0]), 4).any()
    assert basis.functions(np.array([2.9]), 4).all()


@pytest.mark.parametrize("n", [1, 2, 6, 12, 15])
def test_gto_functions_vanish_beyond_their_extent(n):
    basis = basis_of("gto", n)
    inside = np.abs(basis.functions(np.linspace(0, 3, 50), 0)).max()
    # Primitives are down to 1e-18; orthonormalisation multiplies by up to 1e5.
    outside = np.linspace(basis.extent, 3 * basis.extent, 40)
    assert np.abs(basis.functions(outside, 0)).max() < 1e-12 * inside


def test_gto_functions_leak_out_of_the_cutoff():
    share = np.diagonal(overlap(basis_of("gto", 6), 0, edge=3.0)[0])
    # Published to the digits given.
    np.testing.assert_allclose(
        100 * share, [99.97, 99.9, 99.3, 94.4, 76.6, 20.2], atol=0.05
    )


@pytest.mark.parametrize(
    ("n", "condition"), [(6, 1e3), (8, 3e4), (10, 1e6), (12, 4e7), (15, 9e9)]
)
def test_gto_overlap_has_the_known_condition_number(n, condition):
    for cutoff in (1.0, 3.0):
        value = np.linalg.cond(bases._gto_overlap(n, cutoff))
        # Given to one digit.
        assert 0.5 < value / condition < 2.0


def test_gto_functions_do_not_depend_on_l():
    values = basis_of("gto").functions(np.linspace(0, 5, 9), 3)
    for l in range(1, 4):
        np.testing.assert_array_equal(values[l], values[0])


def test_laplacian_functions_are_eigenfunctions_that_vanish_at_the_cutoff():
    basis, l_max = basis_of("laplacian", 4), 5
    edge = basis.functions(np.array([basis.cutoff]), l_max)
    assert np.abs(edge).max() < 1e-13
    zeros = bases._bessel_zeros(4, l_max)
    np.testing.assert_allclose(zeros[0], np.pi * np.arange(1, 5), rtol=1e-15)
    # Zeros interlace: none is missing.
    assert (zeros[1:] > zeros[:-1]).all()
    assert (zeros[1:, :-1] < zeros[:-1, 1:]).all()


def test_only_the_first_monomial_has_a_multipole_moment():
    basis = basis_of("monomial")
    r, w = composite(np.linspace(0, 3, 20))
    l = np.arange(L_MAX + 1)
    moments = np.einsum(
        "lnr,lr,r->ln", basis.functions(r, L_MAX), (r / 3) ** l[:, None], w * r**2
    )
    assert (moments[:, 0] > 0.1).all()
    np.testing.assert_allclose(moments[:, 1:], 0, atol=1e-12)


def test_spherical_bessel_loop_agrees_with_scipy():
    l_max = 30
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [
            [0.0, 1e-300, 1e-8, 0.0499999, 0.0500001],
            # Zeros of sin and cos and orders, where the branch and scale change.
            np.pi * np.arange(1, 12) / 2,
            np.arange(1.0, 32.0),
            10 ** rng.uniform(-3, 3, 100),
        ]
    )
    for order in (0, 1, 2, 7, l_max):
        value = spherical_bessel(x, order)
        expected = special.spherical_jn(np.arange(order + 1)[:, None], x)
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=3e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_bessel_transform_is_its_integral(kind):
    basis, l_max = basis_of(kind, 4), 3
    k = np.array([0.0, 0.01, 0.7, 3.0, 11.0, 40.0])
    r, w = composite(np.linspace(0, basis.extent, 80))
    l = np.arange(l_max + 1)[:, None, None]
    j_lkr = special.spherical_jn(l, k[:, None] * r)
    expected = np.einsum("lnr,lkr,r->lnk", basis.functions(r, 3), j_lkr, w * r**2)
    transform = tables.bessel_transform(basis, l_max, k)
    np.testing.assert_allclose(transform, expected, atol=1e-13 * abs(expected).max())


def names(field):
    values = [f"{k}={v:g}" for k, v in vars(field).items()]
    return "-".join([type(field).__name__, *values])


YUKAWAS = [lode.YukawaPotential(*v) for v in ((5.0, 0.5), (0.4, 0.6), (1e6, 0.5))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "field",
    [
        lode.GaussianDensity(0.4),
        lode.PowerLawPotential(1, 0.0),
        *[lode.PowerLawPotential(p, 0.7) for p in (1, 1.5, 2, 3, 4, 6, 8.5, 9)],
        *YUKAWAS,
    ],
    ids=names,
)
def test_pair_functions_agree_with_direct_quadrature(kind, field):
    basis, l_max = basis_of(kind, 3, 2.0), 3
    distances = np.array([0.35, 1.3, 2.0, 2.7, 6.0])
    values = tables.pair_function(field, basis, l_max)(distances)
    scale = abs(tables.pair_function(field, basis, 0)(np.zeros(1))).max()
    for at, distance in enumerate(distances):
        expected = pair_function(field.real, basis, l_max, distance)
        # Panels of 24 nodes resolve both sides to rounding.
        np.testing.assert_allclose(values[:, :, at], expected, atol=2e-13 * scale)


POWERS = [lode.PowerLawPotential(p, 0.5) for p in (1, 1.5, 2, 2.5, 3, 4, 6, 9)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", [*POWERS[::2], *YUKAWAS], ids=names)
@pytest.mark.parametrize("tolerance", [1e-4, 1e-8, 1e-13])
def test_table_and_its_tail_hold_the_tolerance(kind, field, tolerance):
    basis, l_max = basis_of(kind, 3, 2.0), 3
    table = tables.pair_table(field, basis, l_max, tolerance)
    edge = table.radial.reach
    r = np.concatenate([np.linspace(0.01, edge - 1e-9, 37), edge * np.array([1, 1.3])])
    exact = tables.pair_function(field, basis, l_max, None, 2 * edge)(r)
    values, _ = table.evaluate(r)
    norm = np.sqrt((2 * np.arange(l_max + 1) + 1) / (4 * np.pi))[:, None, None]
    # Interpolation is made a hundred times better than asked for; ulps of rounding.
    worst = np.abs((values - exact) * norm).max()
    scale = tables.coefficient_scale(field, basis)
    assert worst <= (0.01 * tolerance + 4e-14) * scale
    assert table.limit == math.inf


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", [*POWERS, YUKAWAS[0], YUKAWAS[2]], ids=names)
def test_far_tail_agrees_with_direct_quadrature(kind, field):
    # Every interaction of the basis with a far atom, relative to itself: the tail
    # stays right where it has fallen by many orders.
    basis, l_max = basis_of(kind, 2, 1.5), 2
    table = tables.pair_table(field, basis, l_max, 1e-12)
    for distance in (table.radial.reach * 1.0001, 60.0, 1000.0):
        value = table.evaluate(np.array([distance]))[0][..., 0]
        expected = pair_function(field.real, basis, l_max, distance)
        # Direct quadrature of a far field loses digits to cancellation in high l.
        np.testing.assert_allclose(value, expected, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", POWERS[::3], ids=names)
def test_slopes_are_the_derivatives_of_the_pair_functions(kind, field):
    basis, l_max, step = basis_of(kind, 3, 2.0), 3, 1e-3
    table = tables.pair_table(field, basis, l_max, 1e-11)
    edge = table.radial.reach
    r = np.array([0.4, 1.1, 1.99, 2.4, 5.3, edge - 0.01, edge + 0.01, 1.7 * edge])
    exact = tables.pair_function(field, basis, l_max, None, 2 * edge)
    around = [exact(r + n * step) for n in (-2, -1, 1, 2)]
    expected = (around[0] - 8 * around[1] + 8 * around[2] - around[3]) / (12 * step)
    values, slopes = table.evaluate(r)
    # Rounding of the differences, and of polynomials of degree seven that are derived.
    scale = tables.coefficient_scale(field, basis)
    assert np.abs(slopes - expected).max() <= 2e-9 * scale
    assert np.abs(values - exact(r)).max() <= 1e-12 * scale


def test_tail_of_high_harmonics_holds_the_tolerance():
    field, basis, l_max = lode.PowerLawPotential(1, 0.3), basis_of("monomial", 2), 20
    table = tables.pair_table(field, basis, l_max, 1e-10)
    r = table.radial.reach * np.array([1.0001, 1.1, 1.5, 4.0, 100.0])
    exact = tables.pair_function(field, basis, l_max, None, r[-1])(r)
    values, _ = table.evaluate(r)
    scale = tables.coefficient_scale(field, basis)
    assert np.abs(values - exact).max() <= 1e-12 * scale


@pytest.mark.parametrize(
    "field", [POWERS[0], POWERS[4], POWERS[6], *YUKAWAS], ids=names
)
@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
def test_short_range_table_ends_where_nothing_is_left(field, tolerance):
    basis, l_max = basis_of("monomial", 3), 3
    table = tables.pair_table(field, basis, l_max, tolerance, 1.2)
    assert table.radial.n_far == 0
    beyond = np.linspace(table.limit, table.limit + 4, 50)
    left = tables.pair_function(field, basis, l_max, 1.2, beyond[-1])(beyond)
    assert np.abs(left).max() < tolerance * tables.coefficient_scale(field, basis)
    short = tables.pair_table(field, basis, l_max, 1e-2, 1.2)
    assert short.limit < table.limit


def test_table_knows_the_values_at_the_centre():
    field, basis = lode.PowerLawPotential(2, 0.6), basis_of("polynomial", 4)
    r, w = composite(np.linspace(0, 3, 30))
    expected = 4 * np.pi * basis.functions(r, 0)[0] @ (w * r**2 * field.real(r))
    whole = tables.pair_table(field, basis, 2, 1e-6)
    np.testing.assert_allclose(whole.centre, expected, rtol=1e-12)
    short = tables.pair_table(field, basis, 2, 1e-6, 1.5)
    smooth = tables.pair_table(lode.PowerLawPotential(2, 1.5), basis, 2, 1e-6)
    np.testing.assert_allclose(
        short.centre, expected - smooth.centre, atol=1e-12 * abs(expected).max()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_bare_charge_far_away_sees_only_multipole_moments(kind):
    basis, l_max, distance = basis_of(kind, 3, 2.0), 4, basis_of(kind, 3, 2.0).extent
    field = lode.PowerLawPotential(1, 0.0)
    r, w = composite(np.linspace(0, distance, 60))
    l = np.arange(l_max + 1)[:, None]
    moment = np.einsum("lnr,lr,r->ln", basis.functions(r, l_max), r**l, w * r**2)
    values = tables.pair_function(field, basis, l_max)(np.array([1.7 * distance]))
    expected = 4 * np.pi / (2 * l + 1) * moment / (1.7 * distance) ** (l + 1)
    np.testing.assert_allclose(
        values[..., 0], expected, atol=1e-13 * abs(expected).max()
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-10])
def test_radial_modes_reproduce_the_transform(kind, tolerance):
    basis, l_max = basis_of(kind, 8), 4
    smooth = lode.PowerLawPotential(1, 1.5)
    scale = tables.coefficient_scale(smooth, basis)
    table = tables.mode_table(smooth, basis, l_max, tolerance / scale, 1.5)
    k = np.linspace(0.05, 0.999, 60) * table.limit
    exact = tables.bessel_transform(basis, l_max, k)
    start = 0
    for l, count in enumerate(table.n_modes):
        rows = slice(start, start + count)
        expansion = table.mode_qn[rows, : basis.max_radial]
        np.testing.assert_allclose(expansion @ expansion.T, np.eye(count), atol=1e-12)
        # The error is that of a pair function: weighted by k² g(k).
        weight = 2 / np.pi * k**2 * smooth.fourier(k) * (k[1] - k[0])
        lost = exact[l] - expansion.T @ (expansion @ exact[l])
        norm = math.sqrt((2 * l + 1) / (4 * math.pi))
        assert (norm * np.abs(lost) * weight).sum(axis=1).max() < tolerance
        coefficients = table.row_rc.reshape(-1, TERMS, table.row_rc.shape[1])
        interval = np.minimum((k / table.step).astype(int), len(coefficients) - 1)
        t = 2 * (k / table.step - interval) - 1
        powers = t[:, None] ** np.arange(TERMS)
        modes = np.einsum("kc,kcq->qk", powers, coefficients[interval][..., rows])
        np.testing.assert_allclose(
            modes, expansion @ exact[l], atol=0.01 * tolerance * abs(exact).max()
        )
        start += count
    assert start == len(table.mode_qn)


def test_smoother_fields_need_fewer_modes():
    basis = basis_of("gto", 8)
    counts = [
        tables.mode_table(
            lode.PowerLawPotential(1, 1.0), basis, 6, 3e-4, s
        ).n_modes.sum()
        for s in (1.0, 1.5, 2.0)
    ]
    assert counts[0] > counts[1] > counts[2]


def test_sampled_function_is_followed_where_it_turns():
    calls = []

    def function(x):
        calls.append(len(x))
        sharp = np.exp(-(((x - 3.3) / 0.01) ** 2))
        return np.stack([np.sqrt(1 + x), sharp, abs(x - 2)], axis=1)

    follow = tables.sampled(function, [0.0, 2.0, 4.0, 40.0], 1e-10)
    x = np.concatenate([[0.0, 40.0], np.random.default_rng(1).uniform(0, 40, 5000)])
    exact = function(x)
    # The tolerance bounds the error of panels twice as long.
    np.testing.assert_allclose(follow(x), exact, rtol=0, atol=1e-10)
    # Equal panels as short as the sharp one needs would take 20 000 values.
    assert sum(calls[:-1]) < 2000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "field",
    [lode.PowerLawPotential(p, 0.3) for p in (1, 2.5, 6)]
    + [lode.YukawaPotential(2.0, 0.3)],
    ids=names,
)
def test_short_range_half_is_the_field_less_its_long_range_half(kind, field):
    # Wide, so that its transform is much narrower than the basis would need.
    basis, split = basis_of(kind, 4, 2.0), 8.0
    # Where a wider field takes the place of this one.
    start = basis.extent + 9.0 * math.sqrt(field.smearing * split)
    r = np.array([0.1, 1.0, start - 0.1, start, start + 1e-9, start + 5.0])

    # The long-range half is a field of the same kind.
    wide = replace(field, smearing=split)
    share = wide.tail.amplitude / field.tail.amplitude

    def short(d):
        return field.real(d) - wide.real(d) / share

    values = tables.pair_function(field, basis, 3, split, r[-1])(r)
    scale = tables.coefficient_scale(field, basis)
    for at, distance in enumerate(r):
        expected = pair_function(short, basis, 3, distance, panels=16)
        # Rounding errors of the whole field at its own centre.
        np.testing.assert_allclose(values[:, :, at], expected, atol=1e-13 * scale)


def test_short_range_table_does_not_reach_out_for_rounding_errors():
    basis, field = basis_of("gto", 8), lode.PowerLawPotential(1, 1.0)
    # In the halves, summed on their own, they would be 5e-15 of the scale at any
    # distance, which adds up over all atoms to more than the tolerance.
    limits = [tables.pair_table(field, basis, 6, t, 2.0).limit for t in (1e-10, 1e-12)]
    assert limits[1] < 1.1 * limits[0]


def test_piecewise_polynomials_meet_the_tolerance():
    for tolerance in (1e-4, 1e-8, 1e-12):
        coefficients, step = tables.piecewise_polynomials(
            lambda x: np.stack([np.sin(3 * x), np.exp(-x)], 1), 5.0, 5.0, tolerance
        )
        x = np.linspace(0, 4.999, 777)
        interval = (x / step).astype(int)
        t = 2 * (x / step - interval) - 1
        values = np.einsum(
            "xp,xpc->xc", t[:, None] ** np.arange(8), coefficients[interval]
        )
        expected = np.stack([np.sin(3 * x), np.exp(-x)], 1)
        np.testing.assert_allclose(values, expected, atol=2 * tolerance)


@pytest.mark.parametrize("n", [16, 20, 64])
def test_too_many_gtos_are_an_error(n):
    with pytest.raises(ValueError, match=f"max_radial = {n} GTO functions are lin"):
        lode.RadialBasis.gto(n, 3.0)


@pytest.mark.parametrize("n", [0, -1, 65, 2.5])
def test_max_radial_out_of_range_is_an_error(n):
    with pytest.raises(ValueError, match=f"whole number from 1 to 64, got {n}"):
        lode.RadialBasis.polynomial(n, 3.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, math.nan, math.inf])
def test_cutoff_must_be_a_length(cutoff):
    with pytest.raises(ValueError, match="cutoff must be a positive length in Å, got"):
        lode.RadialBasis.monomial(4, cutoff)


def test_unknown_basis_is_an_error():
    with pytest.raises(ValueError, match=r"kind must be one of \['gto'.*got 'splines'"):
        lode.RadialBasis("splines", 4, 3.0)
