r"""Radial bases, their Bessel transforms and the tables of pair functions.

Everything a field contributes to the coefficients enters through one function of
the distance for each (n, l),

.. math::
    f_{nl}(r) = \frac{2}{\pi}\int_0^\infty k^2\, \hat g(k)\, I_{nl}(k)\, j_l(kr)\,dk,
    \qquad I_{nl}(k) = \int_0^\infty r^2 R_{nl}(r)\, j_l(kr)\,dr .

Index legend: l angular channel, n radial function, r distance, k wave number,
i interval, c power of the local coordinate.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import linalg, special

from lode.core import radial as core
from lode.parallel import kept
from lode.systems import finite_array, whole_number

# An overlap matrix worse than this loses more than six digits when inverted.
_LARGEST_CONDITION = 1e10
_LARGEST_RADIAL = 64
# Gauss-Legendre nodes in a panel and the phase in radians it resolves to rounding.
_PANEL_NODES = 16
_PANEL_PHASE = 6.0
DEGREE = 7
_MOST_INTERVALS = 5000
# The bare 1/d projected on a basis that is not r^l times even powers has terms
# r^l ln r. No two atoms come this close (Å).
_CLOSEST_APPROACH = 0.3
# Atoms of one species in an Å³, for what lies beyond the range of a pair table.
_SOLID_DENSITY = 0.05


@dataclass(frozen=True)
class RadialBasis:
    r"""Orthonormal radial functions :math:`R_{nl}(r)`.

    Parameters
    ----------
    kind : {"gto", "polynomial", "laplacian", "monomial"}
        Family of functions; each has a constructor of its name.
    max_radial : int
        Number of functions.
    cutoff : float
        Radius of the environment in Å.

    Raises
    ------
    ValueError
        If an argument is out of range, or so many functions are asked for that
        they are linearly dependent in double precision.

    Notes
    -----
    ``gto`` is the basis of the paper and of featomic: Löwdin-orthonormalised
    :math:`r^n e^{-r^2/2\sigma_n^2}` with :math:`\sigma_n = r_c\max(\sqrt n, 1)/N`.
    It leaks out of the cutoff. The others live on :math:`[0, r_c]`: orthonormal
    polynomials, the eigenfunctions of the Laplacian
    :math:`j_l(z_{nl}r/r_c)`, and :math:`r^{l+2n}` orthonormalised for each l, of
    which only n = 0 has a harmonic far field.
    """

    kind: str
    max_radial: int
    cutoff: float

    def __post_init__(self):
        if self.kind not in _FAMILIES:
            raise ValueError(
                f"kind must be one of {list(_FAMILIES)}, got {self.kind!r}"
            )
        n = whole_number(self.max_radial, 1, _LARGEST_RADIAL, "max_radial")
        cutoff = float(self.cutoff)
        if not (math.isfinite(cutoff) and cutoff > 0):
            raise ValueError(
                f"cutoff must be a positive length in Å, got {self.cutoff}"
            )
        object.__setattr__(self, "max_radial", n)
        object.__setattr__(self, "cutoff", cutoff)
        if self.kind == "gto":
            condition = np.linalg.cond(_gto_overlap(self.max_radial, cutoff))
            if condition > _LARGEST_CONDITION:
                raise ValueError(
                    f"max_radial = {n} GTO functions are linearly dependent (overlap "
                    f"condition {condition:.0e} > {_LARGEST_CONDITION:.0e}); take "
                    "fewer or another basis"
                )

    @classmethod
    def gto(cls, max_radial, cutoff):
        """Gaussian-type orbitals, the basis of the paper."""
        return cls("gto", max_radial, cutoff)

    @classmethod
    def polynomial(cls, max_radial, cutoff):
        """Polynomials of degree 0 ... max_radial - 1, orthonormal up to the cutoff."""
        return cls("polynomial", max_radial, cutoff)

    @classmethod
    def laplacian(cls, max_radial, cutoff):
        """Eigenfunctions of the Laplacian that vanish at the cutoff."""
        return cls("laplacian", max_radial, cutoff)

    @classmethod
    def monomial(cls, max_radial, cutoff):
        """Orthonormalised r^(l + 2n): the best conditioned choice for potentials."""
        return cls("monomial", max_radial, cutoff)

    @property
    def n_primitive(self):
        """Number of functions: none of them is a combination of others."""
        return self.max_radial

    @property
    def compact(self):
        """Whether the functions vanish beyond the cutoff."""
        return self.kind != "gto"

    @property
    def extent(self):
        """Radius in Å beyond which the functions are zero to rounding."""
        if self.compact:
            return self.cutoff
        # Widest function, r^n exp(-r^2 / 2 w^2), down to 1e-18 of its maximum.
        n = self.max_radial - 1
        width = self.cutoff * max(math.sqrt(n), 1.0) / self.max_radial

        def decay(t):
            return (
                n * math.log(t / math.sqrt(n)) - 0.5 * (t * t - n) if n else -t * t / 2
            )

        edge = _root(
            lambda t: decay(t) + 18.0 * math.log(10.0), max(math.sqrt(n), 1.0), 60.0
        )
        return edge * width

    def functions(self, r, max_angular):
        """Values of all functions.

        Parameters
        ----------
        r : ndarray (n_r,)
            Distances in Å.
        max_angular : int
            Highest l.

        Returns
        -------
        ndarray (max_angular + 1, max_radial, n_r)
            In Å^(-3/2).
        """
        r = np.asarray(r, dtype=np.float64)
        values = _FAMILIES[self.kind](r, self.max_radial, max_angular, self.cutoff)
        if self.compact:
            values = np.where(r <= self.cutoff, values, 0.0)
        return values


@dataclass(frozen=True)
class ContractedBasis:
    r"""Fewer radial functions, combined of those of another basis.

    .. math:: \tilde R_{ql}(r) = \sum_n u_{lqn} R_{nl}(r)

    :meth:`lode.SphericalExpansion.contracted` finds the combinations in which the
    coefficients of given structures differ most. The pair functions are tabulated as
    combined, so that an expansion costs what its fewer functions cost.

    Parameters
    ----------
    basis : RadialBasis
        What is combined.
    coefficients : sequence (max_angular + 1, max_radial, basis.max_radial)
        u; rows should be orthonormal.

    Raises
    ------
    TypeError
        If ``basis`` is no :class:`RadialBasis`.
    ValueError
        If the coefficients have another shape or are not finite.

    References
    ----------
    A. Goscinski, F. Musil, S. Pozdnyakov, J. Nigam and M. Ceriotti, J. Chem. Phys. 155,
    104106 (2021).
    """

    basis: RadialBasis
    coefficients: tuple

    def __post_init__(self):
        if not isinstance(self.basis, RadialBasis):
            raise TypeError(
                f"basis must be a RadialBasis, got {type(self.basis).__name__}"
            )
        shape = (None, None, self.basis.max_radial)
        u_lqn = finite_array(self.coefficients, shape, "coefficients")
        if not 1 <= u_lqn.shape[1] <= self.basis.max_radial or len(u_lqn) == 0:
            raise ValueError(
                "coefficients must give, for each l, 1 to "
                f"{self.basis.max_radial} functions, got shape {u_lqn.shape}"
            )
        nested = tuple(tuple(tuple(row) for row in of_l) for of_l in u_lqn.tolist())
        object.__setattr__(self, "coefficients", nested)

    @property
    def max_radial(self):
        """Number of functions."""
        return len(self.coefficients[0])

    @property
    def n_primitive(self):
        """Number of functions that are combined."""
        return self.basis.max_radial

    @property
    def cutoff(self):
        """Radius of the environment in Å."""
        return self.basis.cutoff

    @property
    def compact(self):
        """Whether the functions vanish beyond the cutoff."""
        return self.basis.compact

    @property
    def extent(self):
        """Radius in Å beyond which the functions are zero to rounding."""
        return self.basis.extent

    def functions(self, r, max_angular):
        """Values of all functions, see :meth:`RadialBasis.functions`.

        Raises
        ------
        ValueError
            If there are no coefficients for ``max_angular``.
        """
        if max_angular >= len(self.coefficients):
            raise ValueError(
                f"max_angular must be at most {len(self.coefficients) - 1}, for which "
                f"the basis has coefficients, got {max_angular}"
            )
        u_lqn = np.array(self.coefficients[: max_angular + 1])
        return u_lqn @ self.basis.functions(r, max_angular)


def _gto_overlap(max_radial, cutoff):
    """Overlap of the normalised primitive GTOs on [0, infinity)."""
    n = np.arange(max_radial)
    width = cutoff * np.maximum(np.sqrt(n), 1.0) / max_radial
    a = 1.0 / (2.0 * width**2)
    norm = np.sqrt(2.0 / (width ** (2 * n + 3) * special.gamma(n + 1.5)))
    power = 0.5 * (n[:, None] + n + 3)
    integral = 0.5 * special.gamma(power) * (a[:, None] + a) ** -power
    return norm[:, None] * norm * integral


def _gto(r, max_radial, max_angular, cutoff):
    n = np.arange(max_radial)
    width = cutoff * np.maximum(np.sqrt(n), 1.0) / max_radial
    norm = np.sqrt(2.0 / (width ** (2 * n + 3) * special.gamma(n + 1.5)))
    primitive = (
        norm[:, None] * r ** n[:, None] * np.exp(-0.5 * (r / width[:, None]) ** 2)
    )
    eigenvalues, vectors = linalg.eigh(_gto_overlap(max_radial, cutoff))
    lowdin = (vectors / np.sqrt(eigenvalues)) @ vectors.T
    return np.broadcast_to(
        lowdin @ primitive, (max_angular + 1, max_radial, len(r))
    ).copy()


def _polynomial(r, max_radial, max_angular, cutoff):
    n = np.arange(max_radial)[:, None]
    values = special.eval_jacobi(n, 0, 2, 2 * r / cutoff - 1)
    values = values * np.sqrt((2 * n + 3) / cutoff**3)
    return np.broadcast_to(values, (max_angular + 1, max_radial, len(r))).copy()


def _monomial(r, max_radial, max_angular, cutoff):
    l = np.arange(max_angular + 1)[:, None, None]
    n = np.arange(max_radial)[:, None]
    x = r / cutoff
    values = x**l * special.eval_jacobi(n, 0, l + 0.5, 2 * x**2 - 1)
    return values * np.sqrt((4 * n + 2 * l + 3) / cutoff**3)


@lru_cache
def _bessel_zeros(max_radial, max_angular):
    """First zeros of j_0 ... j_L; those of j_(l+1) lie between those of j_l."""
    zeros = np.arange(1, max_radial + max_angular + 1) * np.pi
    rows = [zeros[:max_radial]]
    for l in range(1, max_angular + 1):
        pairs = zip(zeros[:-1], zeros[1:], strict=True)
        zeros = np.array(
            [
                _root(lambda x, l=l: special.spherical_jn(l, x), a, b, xtol=1e-14)
                for a, b in pairs
            ]
        )
        rows.append(zeros[:max_radial])
    return np.array(rows)


def _laplacian(r, max_radial, max_angular, cutoff):
    zeros = _bessel_zeros(max_radial, max_angular)
    l = np.arange(max_angular + 1)[:, None]
    norm = np.sqrt(2 / cutoff**3) / np.abs(special.spherical_jn(l + 1, zeros))
    values = special.spherical_jn(l[..., None], zeros[..., None] * r / cutoff)
    return norm[..., None] * values


_FAMILIES = {
    "gto": _gto,
    "polynomial": _polynomial,
    "laplacian": _laplacian,
    "monomial": _monomial,
}


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
    # The functions themselves turn n_primitive times, which adds to the phase.
    phase = float(np.max(k, initial=0.0)) * extent + 4.0 * basis.n_primitive
    r, w = panels(_resolved(extent, phase))
    weighted_lnr = basis.functions(r, max_angular) * (w * r**2)
    transform = np.empty((max_angular + 1, basis.max_radial, len(k)))
    chunk = max(1, 500_000 // ((max_angular + 1) * len(r)))
    for start in range(0, len(k), chunk):
        part = slice(start, start + chunk)
        x = np.multiply.outer(r, k[part])
        j_lrk = core.spherical_bessel(x.ravel(), max_angular)
        j_lrk = j_lrk.reshape(max_angular + 1, *x.shape)
        transform[:, :, part] = weighted_lnr @ j_lrk
    return transform


def _wave_number_limit(smearing):
    """Where exp(-k²σ²/2) is below the rounding error."""
    return math.sqrt(2.0 * 40.0) / smearing


def _fourier_pair_function(longest, basis, max_angular, transforms, singular):
    """Evaluator of f_nl on [0, longest] for a sum of (transform, smearing, sign)."""
    smallest = min(smearing for _, smearing, _ in transforms)
    limit = _wave_number_limit(smallest)
    edges = _resolved(limit, limit * (longest + basis.extent))
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
            j_lkr = core.spherical_bessel(x.ravel(), max_angular)
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
    field : GaussianDensity or PowerLawPotential
    basis : RadialBasis
    max_angular : int
    splitting : float, optional
        Splitting width in Å; with it only the short-range part
        :math:`\hat g_\sigma - \hat g_s` is taken.
    longest : float
        Largest distance in Å that will be asked for.

    Returns
    -------
    callable
        From distances (n_r,) to values (max_angular + 1, max_radial, n_r).
    """
    split = []
    if splitting is not None:
        split = [(field.smeared(splitting).fourier, splitting, -1.0)]
    arguments = (longest, basis, max_angular)
    if field.smearing > 0.0:
        transforms = [(field.fourier, field.smearing, 1.0), *split]
        singular = not split and field.exponent not in (0.0, 1.0)
        return _fourier_pair_function(*arguments, transforms, singular)
    bare = _bare_pair_function(basis, max_angular)
    if not split:
        return bare
    rest = _fourier_pair_function(*arguments, split, False)
    return lambda r: bare(r) + rest(r)


@dataclass(frozen=True)
class PairTable:
    r"""Piecewise polynomials of the pair functions, and their far tail.

    Attributes
    ----------
    coefficients : ndarray (n_intervals, DEGREE + 1, n_columns)
        Powers of the local coordinate t in [-1, 1]; columns are (l, n) with n
        padded to a multiple of the compiled loop's vector length.
    step : float
        Length of an interval in Å.
    range : float
        Beyond it the pair functions are zero, or the tail.
    tail : ndarray (n_powers, n_columns)
        Powers of (range/r)² that multiply r^-(p+l); empty without a tail.
    centre : ndarray (max_radial,)
        f_n0(0) of what the table holds.
    scale : float
        Size of the largest coefficient, that of an atom at its own centre.
    """

    coefficients: np.ndarray
    step: float
    range: float
    tail: np.ndarray
    centre: np.ndarray
    scale: float


VECTOR = 4


def padded(max_radial):
    """Radial functions rounded up to whole vectors of the compiled loops."""
    return -(-max_radial // VECTOR) * VECTOR


def _columns(values_lnr, width):
    """(l, n, r) -> (r, l * width + n), n padded with zeros."""
    n_l, n_n, n_r = values_lnr.shape
    columns = np.zeros((n_r, n_l, width))
    columns[:, :, :n_n] = values_lnr.transpose(2, 0, 1)
    return columns.reshape(n_r, n_l * width)


def piecewise_polynomials(function, length, step, tolerance, smooth_from=0.0):
    """Piecewise polynomials of degree ``DEGREE`` through Chebyshev nodes.

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
    coefficients : ndarray (n_intervals, DEGREE + 1, n_columns)
    step : float
    """
    nodes = np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))
    inverse = np.linalg.inv(np.vander(nodes, increasing=True))
    # Midway between nodes, where the error of the interpolant is largest.
    between = np.cos(np.pi * np.arange(1, DEGREE + 1) / (DEGREE + 1))
    check = np.vander(between, DEGREE + 1, increasing=True)
    previous = math.inf
    while True:
        n = max(1, math.ceil(length / step - 1e-9))
        middle = (np.arange(n) + 0.5)[:, None]
        x = (middle + 0.5 * nodes) * step
        values = function(x.ravel()).reshape(n, DEGREE + 1, -1)
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
        shrink = (error / tolerance) ** (1.0 / (DEGREE + 1))
        step /= min(4, max(2, math.ceil(1.05 * shrink)))
    return _aligned(coefficients), step


def _aligned(values):
    """Copy that begins at a cache line: whole vectors read from it cross none."""
    room = np.empty(values.size + 8)
    start = -(room.ctypes.data // 8) % 8
    copy = room[start : start + values.size].reshape(values.shape)
    copy[...] = values
    return copy


def _tail_powers(field, basis, max_angular, start, tolerance):
    r"""Far field :math:`f_{nl} = r^{-(p+l)} \sum_q b_q\, (r_0/r)^{2q}`.

    Outside the basis :math:`|r-r'|^{-p}` is a Gegenbauer series in r'/r; projected
    on the Legendre polynomial of degree l it gives moments of the basis. For
    p = 1 only the first term is left: the multipole field.
    """
    p = field.exponent
    extent = basis.extent
    x, w = panels(_resolved(extent, 4.0 * basis.n_primitive, smallest=8))
    values = basis.functions(x, max_angular)
    l = np.arange(max_angular + 1)
    n_terms = 1
    if p != 1.0:
        ratio = min(0.95, (extent / start) ** 2)
        n_terms = min(60, 4 + math.ceil(math.log(tolerance) / math.log(ratio)))
    terms = []
    # b_(l,q) of Gegenbauer -> Legendre: recurrence in q from the connection formula.
    lam = 0.5 * p
    weight = 4 * np.pi * _gegenbauer_lead(lam, l)
    for q in range(n_terms):
        power = l + 2 * q
        moment = np.einsum("lnx,lx,x->ln", values, x ** power[:, None], w * x**2)
        terms.append(weight[:, None] / (2 * l[:, None] + 1) * moment / start ** (2 * q))
        weight = weight * (lam - 0.5 + q) * (lam + l + q) / ((q + 1) * (l + 1.5 + q))
    return np.array(terms)


def _gegenbauer_lead(lam, l):
    """Coefficient of P_l in C_l^(lam): (lam)_l / (1/2)_l."""
    return special.poch(lam, l) / special.poch(0.5, l)


def _root(function, low, high, **options):
    """Where a function crosses zero."""
    # It takes a quarter of the time that this module takes to import.
    from scipy.optimize import brentq

    return brentq(function, low, high, **options)


@kept(64)
def pair_table(
    field, basis, max_angular, tolerance, splitting=None, limit=None, scaling=None
):
    """Interpolation table of the pair functions.

    Parameters
    ----------
    field, basis, max_angular, splitting
        As for :func:`pair_function`.
    tolerance : float
        Largest error of a value, relative to the largest value.
    limit : float, optional
        Range in Å, for fields with a cutoff function.
    scaling : RadialScaling, optional
        Weight of an atom by its distance.

    Returns
    -------
    PairTable
    """
    width = padded(basis.max_radial)
    norm = np.sqrt((2 * np.arange(max_angular + 1) + 1) / (4 * np.pi))
    has_tail = field.long_range and splitting is None and limit is None
    if limit is not None:
        reach = limit
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

    whole = values
    if splitting is not None:
        whole = pair_function(field, basis, max_angular, None, 0.0)
    scale = float(np.abs(whole(np.zeros(1))[0, :, 0]).max()) * norm[0]
    length = reach
    if limit is None and not has_tail:
        probe = np.linspace(0.0, reach, 257)
        size_r = np.abs(values(probe) * norm[:, None, None]).max(axis=(0, 1))
        # What all atoms beyond a radius would add, at the density of a solid.
        shell = 4 * np.pi * probe**2 * probe[1] * _SOLID_DENSITY
        left_out = np.cumsum((np.maximum(shell, 1.0) * size_r)[::-1])[::-1]
        beyond = np.flatnonzero(left_out > 0.3 * tolerance * scale)
        length = probe[min(beyond[-1] + 1, len(probe) - 1)] if len(beyond) else 0.0
    coefficients, step = piecewise_polynomials(
        lambda r: _columns(values(r), width),
        length,
        0.5 * basis.cutoff,
        max(1e-3 * tolerance, 3e-15) * scale,
        0.0 if field.smearing > 0.0 else _CLOSEST_APPROACH,
    )
    tail = np.zeros((0, coefficients.shape[2]))
    if has_tail:
        length = len(coefficients) * step
        tail = _tail_powers(field, basis, max_angular, length, 1e-3 * tolerance)
        tail = _columns(tail.transpose(1, 2, 0), width)
    centre = values(np.zeros(1))[0, :, 0]
    return PairTable(coefficients, step, float(length), tail, centre, scale)


# Compared and hashed as the object it is.
@dataclass(frozen=True, eq=False)
class ModeTable:
    r"""Significant radial modes of the long-range half, on a grid of k.

    The functions :math:`\hat g_s(k) I_{nl}(k)`, n = 0 ... N-1, span fewer
    directions than N to a given accuracy. With orthonormal columns
    ``expansion[l]`` (n, q), :math:`I_{nl} \approx \sum_q V_{nq} u_{lq}` and
    :math:`u_{lq} = \sum_n V_{nq} I_{nl}`.

    Attributes
    ----------
    coefficients : ndarray (n_intervals, DEGREE + 1, n_modes)
        Piecewise polynomials of u_lq(k), all l one after the other.
    step : float
        Length of an interval in 1/Å.
    limit : float
        Largest wave number needed.
    n_modes : ndarray (max_angular + 1,) of int
        Modes of each l.
    expansion : ndarray (n_modes, width)
        Rows V_nq of all l one after the other, n padded as in a PairTable.
    """

    coefficients: np.ndarray
    step: float
    limit: float
    n_modes: np.ndarray
    expansion: np.ndarray

    @cached_property
    def n_columns(self):
        """Harmonics times radial modes."""
        return int(self.n_modes @ (2 * np.arange(len(self.n_modes)) + 1))


@kept(64)
def mode_table(field, basis, max_angular, tolerance, scale):
    """Radial modes of a smooth field in reciprocal space.

    Parameters
    ----------
    field : PowerLawPotential
        With the splitting width as its smearing.
    basis, max_angular
        As for :func:`pair_function`.
    tolerance : float
        Error relative to ``scale``.
    scale : float
        Size of the largest coefficient of a pair.

    Returns
    -------
    ModeTable
    """
    top = _wave_number_limit(field.smearing)
    k, w = panels(_resolved(top, top * basis.extent))
    transform = bessel_transform(basis, max_angular, k)
    g = field.fourier(k)
    l = np.arange(max_angular + 1)
    norm = np.sqrt((2 * l + 1) / (4 * np.pi))[:, None]
    # Error of a pair function if all k above a limit were left out in phase.
    density = 2 / np.pi * w * k**2 * np.abs(g)
    left_out = (norm * np.abs(transform).max(axis=1) * density).max(axis=0)
    left_out = np.cumsum(left_out[::-1])[::-1]
    inside = left_out > 0.1 * tolerance * scale
    limit = float(k[min(inside.sum(), len(k) - 1)])
    kept = k <= limit
    weight = np.sqrt(2 / np.pi * w * k**2)[kept] * np.abs(g)[kept]
    bases = []
    for lv in l:
        left, singular, _ = np.linalg.svd(transform[lv][:, kept] * weight)
        size = norm[lv] * singular * math.sqrt(2 / np.pi * limit**3 / 3)
        rank = max(1, int((size > 0.1 * tolerance * scale).sum()))
        bases.append(left[:, :rank])

    def function(x):
        values = bessel_transform(basis, max_angular, x)
        modes = [v.T @ values[lv] for lv, v in enumerate(bases)]
        return np.concatenate(modes).T

    accuracy = max(1e-3 * tolerance, 3e-15) * float(np.abs(transform).max())
    coefficients, step = piecewise_polynomials(function, limit, limit / 4, accuracy)
    expansion = np.zeros((coefficients.shape[2], padded(basis.max_radial)))
    expansion[:, : basis.max_radial] = np.concatenate([v.T for v in bases])
    return ModeTable(
        coefficients,
        step,
        limit,
        np.array([v.shape[1] for v in bases]),
        expansion,
    )
