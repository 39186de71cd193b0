r"""Tables of the radial functions through which a field enters the coefficients.

.. math::
    f_{nl}(r) = \frac{2}{\pi}\int_0^\infty k^2\, \hat g(k)\, I_{nl}(k)\, j_l(kr)\,dk,
    \qquad I_{nl}(k) = \int_0^\infty r^2 R_{nl}(r)\, j_l(kr)\,dr .

Index legend: l angular channel, n radial function, r distance, k wave number,
i interval, c power of the local coordinate.
"""

import math
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from scipy import special

from lode.core.bessel import spherical_bessel
from lode.core.pairs import TERMS, RadialTable
from lode.core.registers import aligned_zeros, whole_lanes
from lode.fields import Field
from lode.parallel import cached

# Gauss-Legendre nodes in a panel and the phase in radians it resolves to rounding: the
# error is 5e-20. The radial functions have a phase of eight for each at most.
_PANEL_NODES = 16
_PANEL_PHASE = 12.0
_TURN = 8.0
_MOST_INTERVALS = 5000
# Chebyshev nodes on a panel of what is sampled; panels are halved so often at most,
# and no more if there are so many.
_SAMPLE_NODES = 16
_MOST_HALVINGS = 16
_MOST_PANELS = 2000
# Errors below this share of the function that halving does not reduce are of rounding.
_ROUNDING = 1e-11
# The bare 1/d projected on a basis that is not r^l times even powers has terms
# r^l ln r. No two atoms come this close (Å).
_CLOSEST_APPROACH = 0.3
# Atoms of one species in an Å³, for what lies beyond the range of a pair table.
_SOLID_DENSITY = 0.05
_Y00 = 1.0 / math.sqrt(4.0 * math.pi)


def panels(edges, order=_PANEL_NODES):
    """Gauss-Legendre nodes and weights on consecutive panels.

    Parameters
    ----------
    edges : array_like (n_panels + 1,)
        Ascending ends of the panels.
    order : int
        Nodes in each.

    Returns
    -------
    nodes, weights : ndarray (n_panels * order,)
    """
    x, w = np.polynomial.legendre.leggauss(order)
    edges = np.asarray(edges, dtype=np.float64)
    half = 0.5 * np.diff(edges)[:, None]
    middle = 0.5 * (edges[1:] + edges[:-1])[:, None]
    return (middle + half * x).ravel(), (half * w).ravel()


def _resolved(length, phase, smallest=4):
    """Edges of equal panels on [0, length] over which a phase is resolved."""
    return np.linspace(0.0, length, max(smallest, math.ceil(phase / _PANEL_PHASE)) + 1)


def bessel_transform(basis, max_angular, k):
    r"""Integrals :math:`I_{nl}(k)` of a basis.

    Parameters
    ----------
    basis : RadialBasis
    max_angular : int
    k : ndarray (n_k,)
        Wave numbers in 1/Å.

    Returns
    -------
    ndarray (max_angular + 1, max_radial, n_k)
        In Å^(3/2).
    """
    extent = basis.extent
    phase = float(np.max(k, initial=0.0)) * extent + _TURN * basis.n_primitive
    r, w = panels(_resolved(extent, phase))
    weighted_lnr = basis.functions(r, max_angular) * (w * r**2)
    transform = np.empty((max_angular + 1, basis.max_radial, len(k)))
    chunk = max(1, 500_000 // ((max_angular + 1) * len(r)))
    for start in range(0, len(k), chunk):
        part = slice(start, start + chunk)
        x = np.multiply.outer(r, k[part])
        j_lrk = spherical_bessel(x.ravel(), max_angular)
        j_lrk = j_lrk.reshape(max_angular + 1, *x.shape)
        transform[:, :, part] = weighted_lnr @ j_lrk
    return transform


def _wave_number_limit(smearing):
    """Where exp(-k²σ²/2) is below the rounding error."""
    return math.sqrt(2.0 * 40.0) / smearing


def _fourier_pair_function(longest, basis, max_angular, transforms, singular=False):
    """Evaluator of f_nl on [0, longest] for a sum of (transform, smearing, sign)."""
    edges = np.zeros(1)
    for _, smearing, _ in transforms:
        limit = _wave_number_limit(smearing)
        edges = np.union1d(edges, _resolved(limit, limit * (longest + basis.extent)))
    if singular:
        # k² g(k) is not analytic at k = 0: halve the panels towards it.
        edges = np.concatenate([[0.0], edges[1] * 2.0 ** np.arange(-40, 0), edges[1:]])
    k, w = panels(edges)
    g = sum(sign * fourier(k) for fourier, _, sign in transforms)
    weighted_lnk = (2 / np.pi * w * k**2 * g) * bessel_transform(basis, max_angular, k)
    chunk = max(1, 500_000 // ((max_angular + 1) * len(k)))

    def values(r):
        result = np.empty((max_angular + 1, basis.max_radial, len(r)))
        for start in range(0, len(r), chunk):
            part = slice(start, start + chunk)
            x = np.multiply.outer(k, r[part])
            j_lkr = spherical_bessel(x.ravel(), max_angular)
            result[:, :, part] = weighted_lnk @ j_lkr.reshape(-1, *x.shape)
        return result

    return values


def _bare_pair_function(basis, max_angular):
    r"""Evaluator of f_nl of the bare 1/d: its multipoles inside and outside r.

    .. math:: \frac{4\pi}{2l+1}\left[r^{-l-1}\int_0^r R_{nl} x^{l+2}dx
        + r^l\int_r^\infty R_{nl} x^{1-l}dx\right]
    """
    l = np.arange(max_angular + 1)[:, None]
    factor = 4 * np.pi / (2 * l + 1)
    extent = basis.extent
    fine = basis.cutoff / (16 * max(1, basis.n_primitive // 4))
    near = fine * 2.0 ** np.arange(-12, 0)
    mesh = np.concatenate([near, np.arange(fine, extent, fine), [extent]])

    def values(r):
        # Both integrals grow from one point of a mesh to the next.
        points, place = np.unique(np.concatenate([r, mesh]), return_inverse=True)
        inside = points[points <= extent]
        steps = len(inside)
        start = np.concatenate([[0.0], inside[:-1]])
        nodes, w = panels(np.array([0.0, 1.0]), 10)
        x = start[:, None] + (inside - start)[:, None] * nodes
        functions = basis.functions(x.ravel(), max_angular).reshape(
            max_angular + 1, basis.max_radial, steps, -1
        )
        w = w * (inside - start)[:, None]
        l4 = l[:, None, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            below = np.where(inside > 0, start / inside, 0.0)
            to_upper = np.where(x > 0, x / inside[:, None], 0.0)
            to_lower = np.where(x > 0, start[:, None] / x, 0.0)
            tail = np.where(points > 0, extent / points, 0.0)
        outward = np.einsum("lnrx,lnrx->rln", functions, to_upper ** (l4 + 1) * x * w)
        inward = np.einsum("lnrx,lnrx->rln", functions, to_lower**l4 * x * w)
        total = np.zeros((len(points), max_angular + 1, basis.max_radial))
        running = np.zeros(total.shape[1:])
        for a in range(steps):
            running = running * below[a] ** (l + 1) + outward[a]
            total[a] = running
        total[steps:] = running * tail[steps:, None, None] ** (l + 1)
        running = np.zeros(total.shape[1:])
        for a in range(steps - 1, 0, -1):
            running = running * below[a] ** l + inward[a]
            total[a - 1] += running
        return (factor * total[place[: len(r)]]).transpose(1, 2, 0)

    return values


def pair_function(field, basis, max_angular, splitting=None, longest=20.0):
    r"""Evaluator of the radial pair functions :math:`f_{nl}(r)`.

    Parameters
    ----------
    field : Field
    basis : RadialBasis
    max_angular : int
    splitting : float, optional
        Splitting width in Å; with it only the short-range half is taken, the field
        without its long-range half.
    longest : float
        Largest distance in Å that will be asked for.

    Returns
    -------
    callable
        From distances (n_r,) to values (max_angular + 1, max_radial, n_r).
    """
    settings, sigma = (basis, max_angular), field.smearing
    if splitting is None:
        if sigma == 0.0:
            return _bare_pair_function(*settings)
        whole = [(field.fourier, sigma, 1.0)]
        return _fourier_pair_function(longest, *settings, whole, field.singular_at_zero)
    long = partial(field.fourier, splitting=splitting), splitting, -1.0
    if sigma == 0.0:
        bare = _bare_pair_function(*settings)
        rest = _fourier_pair_function(longest, *settings, [long])
        return lambda r: bare(r) + rest(r)
    # Far out a wider field is the same, and takes no large wave numbers.
    width = math.sqrt(sigma * splitting)
    start = min(longest, basis.extent + 9.0 * width)
    near = _fourier_pair_function(start, *settings, [(field.fourier, sigma, 1.0), long])
    wider = partial(field.fourier, splitting=width), width, 1.0
    far = _fourier_pair_function(longest, *settings, [wider, long])

    def values(r):
        result = np.empty((max_angular + 1, basis.max_radial, len(r)))
        is_far = r > start
        result[:, :, is_far] = far(r[is_far])
        result[:, :, ~is_far] = near(r[~is_far])
        return result

    return values


# Compared and hashed as the object it is.
@dataclass(frozen=True, eq=False)
class PairTable:
    r"""Table of the pair functions, and what else is known of them.

    Attributes
    ----------
    radial : RadialTable
        Of the compiled loop; columns are (l, n) with n padded to whole registers.
    limit : float
        Pairs further apart add nothing, in Å; infinite for a field with a tail.
    centre : ndarray (max_radial,)
        f_n0(0) of what the table holds.
    """

    radial: RadialTable
    limit: float
    centre: np.ndarray

    def evaluate(self, r):
        """Values and derivatives of the functions, from the same polynomials.

        Parameters
        ----------
        r : ndarray (n_r,)
            Distances in Å; positive beyond the reach.

        Returns
        -------
        values, slopes : ndarray (max_angular + 1, max_radial, n_r)
            Without the cutoff function; the derivatives are with respect to r.
        """
        row_rc, step, reach, n_far, power, decay = self.radial[:6]
        n_near = len(row_rc) // TERMS - n_far
        is_near = (r < reach) | (n_far == 0)
        u = reach / np.maximum(r, reach)
        # Place in the table, the first of its intervals there, and how many there are.
        place = np.where(is_near, r / step, u * n_far)
        first, count = np.where(is_near, 0, n_near), np.where(is_near, n_near, n_far)
        interval = np.minimum(place.astype(int), count - 1)
        t = 2.0 * (place - interval) - 1.0
        t_slope = np.where(is_near, 2.0 / step, -2.0 * n_far * u**2 / reach)
        c_rkc = row_rc.reshape(-1, TERMS, row_rc.shape[1])[first + interval]
        t_rk = t[:, None] ** np.arange(TERMS)
        values = np.einsum("rk,rkc->rc", t_rk, c_rkc)
        t_rk = t_rk[:, :-1] * np.arange(1, TERMS) * t_slope[:, None]
        slopes = np.einsum("rk,rkc->rc", t_rk, c_rkc[:, 1:])
        # Of the factor beyond the reach.
        scale = np.where(is_near, 1.0, u**power * np.exp(-decay * reach * (1 / u - 1)))
        rate = np.where(is_near, 0.0, -power * u / reach - decay)
        slopes = scale[:, None] * (slopes + rate[:, None] * values)
        n_max = len(self.centre)
        return tuple(
            part.reshape(len(r), -1, whole_lanes(n_max)).transpose(1, 2, 0)[:, :n_max]
            for part in (scale[:, None] * values, slopes)
        )


def _columns(values_lnr):
    """(l, n, r) -> (r, l * width + n), n padded with zeros to whole registers."""
    n_l, n_n, n_r = values_lnr.shape
    columns = np.zeros((n_r, n_l, whole_lanes(n_n)))
    columns[:, :, :n_n] = values_lnr.transpose(2, 0, 1)
    return columns.reshape(n_r, -1)


def sampled(function, edges, tolerance):
    """Evaluator of a function through few of its values.

    Panels are halved where the function turns, so that many values cost little more
    than few.

    Parameters
    ----------
    function : callable
        Takes (n,) abscissas, gives (n, n_columns) values.
    edges : ndarray (n_panels + 1,)
        Ascending ends of the first panels; any kinks lie on them.
    tolerance : float
        Largest absolute error.

    Returns
    -------
    callable
        Like the function, on [edges[0], edges[-1]].
    """
    chebyshev = np.polynomial.chebyshev
    order = _SAMPLE_NODES - 1
    nodes = chebyshev.chebpts1(_SAMPLE_NODES)
    fit = np.linalg.inv(chebyshev.chebvander(nodes, order))
    # At the nodes of both halves of a panel.
    refine = chebyshev.chebvander(0.5 * np.append(nodes - 1.0, nodes + 1.0), order)

    def fitted(start, width):
        x = start[:, None] + 0.5 * width[:, None] * (1.0 + nodes)
        values = function(x.ravel()).reshape(len(start), _SAMPLE_NODES, -1)
        return values, fit @ values

    start, width = np.array(edges[:-1]), np.diff(edges)
    values, coefficients = fitted(start, width)
    size, previous = np.abs(values).max(), np.full(len(start), math.inf)
    finished = []
    for _ in range(_MOST_HALVINGS):
        expected = refine @ coefficients
        start = np.stack([start, start + 0.5 * width], axis=1).ravel()
        width = np.repeat(0.5 * width, 2)
        values, coefficients = fitted(start, width)
        error = np.abs(expected - values.reshape(expected.shape)).max(axis=(1, 2))
        rounding = (error < _ROUNDING * size) & (error > previous / 8)
        done = np.repeat((error <= tolerance) | rounding, 2)
        finished.append((start[done], width[done], coefficients[done]))
        previous = np.repeat(error, 2)[~done]
        start, width, coefficients = start[~done], width[~done], coefficients[~done]
        if not 0 < len(start) < _MOST_PANELS:
            break
    finished.append((start, width, coefficients))
    start, width, coefficients = map(np.concatenate, zip(*finished, strict=True))
    ascending = np.argsort(start)
    start, width = start[ascending], width[ascending]
    coefficients = coefficients[ascending]

    def interpolated(x):
        place = np.maximum(np.searchsorted(start, x, side="right") - 1, 0)
        t = 2.0 * (x - start[place]) / width[place] - 1.0
        powers = chebyshev.chebvander(t, order)
        result = np.empty((len(x), coefficients.shape[2]))
        for panel in np.unique(place):
            inside = place == panel
            result[inside] = powers[inside] @ coefficients[panel]
        return result

    return interpolated


def piecewise_polynomials(function, length, step, tolerance, smooth_from=0.0):
    """Piecewise polynomials of degree TERMS - 1 through Chebyshev nodes.

    Parameters
    ----------
    function : callable
        Takes (n,) abscissas, gives (n, n_columns) values.
    length : float
        Interpolate on [0, length].
    step : float
        Longest interval to try; halved until the error is met.
    tolerance : float
        Largest absolute error.
    smooth_from : float
        The error is controlled from here on; below, the function may have a
        singular derivative that no polynomial follows.

    Returns
    -------
    coefficients : ndarray (n_intervals, TERMS, n_columns)
    step : float
    """
    nodes = np.cos(np.pi * (np.arange(TERMS) + 0.5) / TERMS)
    inverse = np.linalg.inv(np.vander(nodes, increasing=True))
    # Midway between nodes, where the error of the interpolant is largest.
    between = np.cos(np.pi * np.arange(1, TERMS) / TERMS)
    check = np.vander(between, TERMS, increasing=True)
    previous = math.inf
    while True:
        n = max(1, math.ceil(length / step - 1e-9))
        middle = (np.arange(n) + 0.5)[:, None]
        x = (middle + 0.5 * nodes) * step
        values = function(x.ravel()).reshape(n, TERMS, -1)
        coefficients = inverse @ values
        # A few intervals tell the error; all of them would double the cost.
        first = min(n - 1, math.ceil(smooth_from / step))
        sample = np.unique(np.linspace(first, n - 1, min(n, 24)).astype(int))
        x = (middle[sample] + 0.5 * between) * step
        exact = function(x.ravel()).reshape(len(sample), len(between), -1)
        error = np.abs(check @ coefficients[sample] - exact).max()
        # Halving wins a factor 2^8 until only rounding errors are left.
        if error <= tolerance or error > previous / 8 or n > _MOST_INTERVALS:
            break
        previous = error
        shrink = (error / tolerance) ** (1.0 / TERMS)
        step /= min(4, max(2, math.ceil(1.05 * shrink)))
    return coefficients, step


def _rows(*coefficients):
    """Coefficients of tables as rows in whole registers, one table after the other."""
    values = np.concatenate([c.reshape(-1, c.shape[2]) for c in coefficients])
    row_rc = aligned_zeros(len(values), whole_lanes(values.shape[1]))
    row_rc[:, : values.shape[1]] = values
    return row_rc


def _far_function(field, basis, max_angular, start):
    r"""Evaluator of :math:`f_{nl}(r)` beyond ``start``, as a function of start / r.

    There the field has the form of its tail throughout the basis,

    .. math:: f_{nl}(r) = 2\pi \int_0^\infty x^2 R_{nl}(x) \int_{-1}^{1}
        g\left(\sqrt{r^2 + x^2 - 2rxt}\right) P_l(t)\,dt\,dx .

    The factor (start / r)^power exp(-decay (r - start)) is left out: what remains is a
    power series of start / r.
    """
    amplitude, power, decay = field.tail
    x, w = panels(_resolved(basis.extent, _TURN * basis.n_primitive, smallest=8))
    weight_lnx = basis.functions(x, max_angular) * (2 * np.pi * w * x**2)
    # The start is so far out that the error falls by 9/4 for each node.
    t, w = np.polynomial.legendre.leggauss(48 + max_angular)
    legendre_lt = w * special.eval_legendre(np.arange(max_angular + 1)[:, None], t)

    def values(u):
        ratio = np.multiply.outer(u / start, x)[..., None]
        length = np.sqrt(1.0 + ratio * (ratio - 2.0 * t))
        # Distance to a point of the basis, without that to its centre.
        closer = x[:, None] * (ratio - 2.0 * t) / (length + 1.0)
        g = np.exp(-decay * (closer + start)) / (start * length) ** power
        a_uxl = amplitude * g @ legendre_lt.T
        return np.einsum("uxl,lnx->lnu", a_uxl, weight_lnx)

    return values


@cached(64)
def pair_table(
    field,
    basis,
    max_angular,
    tolerance,
    splitting=None,
    cutoff_function=None,
    scaling=None,
):
    """Interpolation table of the pair functions.

    Parameters
    ----------
    field, basis, max_angular, splitting
        As for :func:`pair_function`.
    tolerance : float
        Largest error of a value, relative to the largest value.
    cutoff_function : StepCutoff or ShiftedCosineCutoff, optional
        Of a field that is not long-range.
    scaling : RadialScaling, optional
        Weight of an atom by its distance.

    Returns
    -------
    PairTable
    """
    norm = np.sqrt((2 * np.arange(max_angular + 1) + 1) / (4 * np.pi))
    has_tail = field.long_range and splitting is None
    if cutoff_function is not None:
        reach = cutoff_function.radius
    elif has_tail:
        reach = max(basis.extent + 9.0 * field.smearing, 1.5 * basis.extent)
    else:
        widest = max(field.smearing, splitting or 0.0)
        reach = basis.extent + math.sqrt(2.0 * 40.0) * widest
    # The last interval may end beyond the reach by less than half a cutoff.
    longest = reach + 0.5 * basis.cutoff
    values = pair_function(field, basis, max_angular, splitting, longest)
    if scaling is not None:
        unscaled = values

        def values(r):
            return unscaled(r) * scaling.weight(r)

    scale = coefficient_scale(field, basis)
    accuracy = max(1e-3 * tolerance, 3e-15) * scale
    # Panels as long as half of their distance; the bare 1/d makes a kink at the cutoff.
    n = math.ceil(longest / (0.5 * basis.cutoff))
    ends = [*range(4), *(2**i * m for i in range(n.bit_length()) for m in (4, 6))]
    edges = 0.5 * basis.cutoff * np.array([*(end for end in ends if end < n), n])
    function = sampled(lambda r: _columns(values(r)), edges, 0.25 * accuracy)
    length = reach
    if splitting is not None:
        probe = np.linspace(0.0, reach, 257)
        size_rl = np.abs(function(probe)).reshape(257, max_angular + 1, -1).max(axis=2)
        size_r = (size_rl * norm).max(axis=1)
        # What all atoms beyond a radius would add, at the density of a solid.
        shell = 4 * np.pi * probe**2 * probe[1] * _SOLID_DENSITY
        left_out = np.cumsum((np.maximum(shell, 1.0) * size_r)[::-1])[::-1]
        beyond = np.flatnonzero(left_out > 0.3 * tolerance * scale)
        length = probe[min(beyond[-1] + 1, len(probe) - 1)] if len(beyond) else 0.0
    near, step = piecewise_polynomials(
        function,
        length,
        0.5 * basis.cutoff,
        accuracy,
        0.0 if field.smearing > 0.0 else _CLOSEST_APPROACH,
    )
    parts, n_far, power, decay = [near], 0, 0.0, 0.0
    limit = length = float(length)
    cutoff, width = math.inf, 0.0
    if cutoff_function is not None:
        cutoff, width = cutoff_function.radius, cutoff_function.width
        # The last interval serves a little beyond its end.
        limit = cutoff_function.limit
    if has_tail:
        limit, length = math.inf, len(near) * step
        far_values = _far_function(field, basis, max_angular, length)
        # Relative to the far field itself, of which little may be left.
        far_accuracy = max(1e-3 * tolerance, 3e-15) * np.abs(far_values(np.ones(1)))
        far, _ = piecewise_polynomials(
            lambda u: _columns(far_values(u)), 1.0, 1.0, far_accuracy.max()
        )
        parts.append(far)
        n_far, (_, power, decay) = len(far), field.tail
    radial = RadialTable(
        _rows(*parts), step, length, n_far, float(power), float(decay), cutoff, width
    )
    return PairTable(radial, limit, values(np.zeros(1))[0, :, 0])


@cached(256)
def centre_function(field, basis):
    """f_n0(0) of the whole field, that of an atom at its own centre, (max_radial,)."""
    return pair_function(field, basis, 0, None, 0.0)(np.zeros(1))[0, :, 0]


def coefficient_scale(field, basis):
    """Size of the largest coefficient, that of an atom at its own centre."""
    return float(np.abs(centre_function(field, basis)).max()) * _Y00


# Compared and hashed as the object it is.
@dataclass(frozen=True, eq=False)
class ModeTable:
    r"""Significant radial modes of the long-range half, on a grid of k.

    The functions :math:`\hat g_s(k) I_{nl}(k)`, n = 0 ... N-1, span fewer
    directions than N to a given accuracy. With orthonormal columns
    V (n, q), :math:`I_{nl} \approx \sum_q V_{nq} u_{lq}` and
    :math:`u_{lq} = \sum_n V_{nq} I_{nl}`.

    Attributes
    ----------
    row_rc : ndarray (TERMS * n_intervals, n_columns)
        Piecewise polynomials of u_lq(k), all l one after the other, then zeros up to
        whole registers.
    step : float
        Length of an interval in 1/Å.
    limit : float
        Largest wave number needed.
    n_modes : ndarray (max_angular + 1,) of int
        Modes of each l.
    mode_qn : ndarray (n_modes, width)
        Rows V_nq of all l one after the other, n padded as in a PairTable.
    """

    row_rc: np.ndarray
    step: float
    limit: float
    n_modes: np.ndarray
    mode_qn: np.ndarray

    @cached_property
    def widths(self):
        """Harmonics times radial modes, of even and of odd l, in whole registers."""
        columns_l = (2 * np.arange(len(self.n_modes)) + 1) * self.n_modes
        return [whole_lanes(int(columns_l[parity::2].sum())) for parity in (0, 1)]


@cached(64)
def mode_table(field, basis, max_angular, tolerance, splitting):
    """Radial modes of the long-range half of a field.

    Parameters
    ----------
    field, basis, max_angular
        As for :func:`pair_function`.
    tolerance : float
        Error relative to the largest coefficient of a pair.
    splitting : float
        Splitting width in Å; the smearing for the whole field.

    Returns
    -------
    ModeTable
    """
    scale = coefficient_scale(field, basis)
    top = _wave_number_limit(splitting)
    # Products of two transforms are integrated, which turn twice as fast.
    k, w = panels(_resolved(top, 2.0 * top * basis.extent))
    transform = bessel_transform(basis, max_angular, k)
    g = field.fourier(k, splitting)
    l = np.arange(max_angular + 1)
    norm = np.sqrt((2 * l + 1) / (4 * np.pi))[:, None]
    # Error of a pair function if all k above a limit were left out in phase.
    density = 2 / np.pi * w * k**2 * np.abs(g)
    left_out = (norm * np.abs(transform).max(axis=1) * density).max(axis=0)
    left_out = np.cumsum(left_out[::-1])[::-1]
    needed = left_out > 0.1 * tolerance * scale
    limit = float(k[min(needed.sum(), len(k) - 1)])
    inside = k <= limit
    weight = np.sqrt(2 / np.pi * w * k**2)[inside] * np.abs(g)[inside]
    bases = []
    for lv in l:
        left, singular, _ = np.linalg.svd(
            transform[lv][:, inside] * weight, full_matrices=False
        )
        size = norm[lv] * singular * math.sqrt(2 / np.pi * limit**3 / 3)
        rank = max(1, int((size > 0.1 * tolerance * scale).sum()))
        bases.append(left[:, :rank])

    def function(x):
        values = bessel_transform(basis, max_angular, x)
        modes = [v.T @ values[lv] for lv, v in enumerate(bases)]
        return np.concatenate(modes).T

    accuracy = max(1e-3 * tolerance, 3e-15) * float(np.abs(transform).max())
    coefficients, step = piecewise_polynomials(function, limit, limit / 4, accuracy)
    mode_qn = np.zeros((coefficients.shape[2], whole_lanes(basis.max_radial)))
    mode_qn[:, : basis.max_radial] = np.concatenate([v.T for v in bases])
    n_modes = np.array([v.shape[1] for v in bases])
    return ModeTable(_rows(coefficients), step, limit, n_modes, mode_qn)


@dataclass(frozen=True, eq=False)
class EwaldSplit:
    """Both halves of a long-range field, for periodic sums.

    Attributes
    ----------
    field : Field
    width : float
        Splitting width in Å; the smearing if all is summed in reciprocal space.
    short : PairTable or None
        Of the short-range half, if there is one.
    long : ModeTable
        Of the long-range half.
    scale : float
        Size of the largest coefficient, that of an atom at its own centre.
    self_term, background : ndarray (max_radial,)
        What both sums lack of the l = 0 coefficients: of the atom at its own centre,
        and of the average of one atom's field, times the volume.
    """

    field: Field
    width: float
    short: PairTable | None
    long: ModeTable
    scale: float
    self_term: np.ndarray
    background: np.ndarray


@cached(64)
def ewald_split(field, basis, max_angular, tolerance, width, center_atom_weight):
    """Both halves of a long-range field.

    Parameters
    ----------
    field, basis, max_angular, tolerance
        As for :func:`pair_table`.
    width : float
        Splitting width in Å.
    center_atom_weight : float
        Weight of the centre's own field.

    Returns
    -------
    EwaldSplit
    """
    # Both halves hold the centre's own field; what is not wanted is taken out.
    self_term = (center_atom_weight - 1.0) * centre_function(field, basis)
    short = None
    if width > field.smearing:
        short = pair_table(field, basis, max_angular, tolerance, width)
        self_term = self_term + short.centre
    volume_integral_n = bessel_transform(basis, 0, np.zeros(1))[0, :, 0]
    background = 4.0 * math.pi * field.background(width) * volume_integral_n
    long = mode_table(field, basis, max_angular, tolerance, width)
    scale = coefficient_scale(field, basis)
    constants = _Y00 * self_term, _Y00 * background
    return EwaldSplit(field, width, short, long, scale, *constants)
