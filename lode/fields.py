r"""Atom-centred fields: Gaussian density, smeared power-law and Yukawa potentials.

Every atom of species :math:`\alpha` adds :math:`g(|r - r_i|)` to the field
:math:`F_\alpha(r)`. The paper (Eq. 4) convolves a Gaussian density with itself;
the autocorrelation is again a Gaussian, and ``smearing`` is *its* width
:math:`\sigma`, as in the authors' code.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

# Tables follow the smearing: their cost grows like its inverse square.
_SMALLEST_SMEARING = 0.02
_LARGEST_SMEARING = 100.0
# Between here and an odd exponent the Fourier form loses its digits.
_CLOSEST_EXPONENT = 1e-6
# exp(κ²σ²/2), of the tail of a Yukawa potential, remains a number.
_LARGEST_SCREENING = 10.0


class Tail(NamedTuple):
    """Form amplitude e^(-decay d) / d^power of a field far from its atom."""

    amplitude: float
    power: float
    decay: float


class Field:
    r"""What an atom adds to a field, in real and in reciprocal space.

    A subclass has all that the rest of the package needs to know of its physics.

    Attributes
    ----------
    smearing : float
        Width :math:`\sigma` in Å: farther than 9 σ the field equals its tail.
    long_range : bool
        Whether all atoms are seen, so that periodic sums are split into two halves;
        otherwise a cutoff function ends the field, and neither ``tail``,
        ``singular_at_zero``, ``background`` nor a splitting is used.
    tail : Tail
        Its form far from the atom.
    neutralized : bool
        Whether k = 0 diverges and is dropped: a neutralising background in each cell.
    singular_at_zero : bool
        Whether :math:`k^2 \hat g(k)` has a singularity at k = 0 or close to it.

    Methods
    -------
    real(distance)
        The field g at distances in Å.
    fourier(k, splitting=None)
        Its Fourier transform :math:`\hat g` at wave numbers in 1/Å, which falls as
        exp(-k²σ²/2). With a splitting width s that of its long-range half, which falls
        as exp(-k²s²/2), has the tail of the whole field and is the whole field if s is
        the smearing.
    background(splitting)
        The term at k = 0: the average of the field times the volume, less that of the
        short-range half, which the sum over pairs contains.
    """

    long_range = neutralized = False
    singular_at_zero = False

    def fourier_slope(self, k, splitting):
        """Derivative of the Fourier transform of the long-range half.

        From differences at five points, exact to some 1e-12: the transform is smooth
        over its own width and over k.

        Parameters
        ----------
        k : ndarray
            Positive wave numbers in 1/Å.
        splitting : float
            In Å.

        Returns
        -------
        ndarray
        """
        h = 1e-3 * np.minimum(k, 1.0 / splitting)
        near, far = (
            self.fourier(k + step, splitting) - self.fourier(k - step, splitting)
            for step in (h, 2.0 * h)
        )
        return (8.0 * near - far) / (12.0 * h)


def _checked_smearing(value, zero_allowed):
    smearing = float(value)
    inside = _SMALLEST_SMEARING <= smearing <= _LARGEST_SMEARING
    if not (inside or (zero_allowed and smearing == 0.0)):
        zero = "0 or " if zero_allowed else ""
        raise ValueError(
            f"smearing must be {zero}from {_SMALLEST_SMEARING:g} to "
            f"{_LARGEST_SMEARING:g} Å, got {value}"
        )
    return smearing


@dataclass(frozen=True)
class GaussianDensity(Field):
    r"""Gaussian density, normalised as a quantum-mechanical orbital.

    .. math:: g(d) = (\pi\sigma^2)^{-3/4} e^{-d^2/2\sigma^2}

    Parameters
    ----------
    smearing : float
        Width :math:`\sigma` in Å, from 0.02 to 100.

    Raises
    ------
    ValueError
        If the smearing is out of range.
    """

    smearing: float

    def __post_init__(self):
        object.__setattr__(self, "smearing", _checked_smearing(self.smearing, False))

    def real(self, distance):
        """Field at a distance in Å."""
        sigma = self.smearing
        scaled = np.asarray(distance, dtype=np.float64) / sigma
        return (math.pi * sigma**2) ** -0.75 * np.exp(-0.5 * scaled**2)

    def fourier(self, k):
        """Fourier transform at a wave number in 1/Å."""
        sigma = self.smearing
        scaled = np.asarray(k, dtype=np.float64) * sigma
        return (4 * math.pi * sigma**2) ** 0.75 * np.exp(-0.5 * scaled**2)


@dataclass(frozen=True)
class PowerLawPotential(Field):
    r"""Potential :math:`1/d^p` of a point smeared by a Gaussian.

    .. math:: g_p(d) = P(p/2, d^2/2\sigma^2)\, d^{-p}

    with the regularised lower incomplete gamma function :math:`P`. For p = 1 this
    is :math:`\mathrm{erf}(d/\sqrt2\sigma)/d`, the paper's electrostatic field.

    Parameters
    ----------
    exponent : float
        Power :math:`1 \le p \le 9`.
    smearing : float
        Width :math:`\sigma` in Å, from 0.02 to 100. Zero, the bare potential, only
        for p = 1: a higher power has no finite coefficients at an atom.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> round(float(PowerLawPotential(exponent=1, smearing=1.0).real(2.0)), 6)
    0.47725
    """

    exponent: float
    smearing: float

    long_range = True

    def __post_init__(self):
        exponent = float(self.exponent)
        if not 1.0 <= exponent <= 9.0:
            raise ValueError(f"exponent must be from 1 to 9, got {self.exponent}")
        odd = 2.0 * round((exponent - 1.0) / 2.0) + 1.0
        if 0.0 < abs(exponent - odd) < _CLOSEST_EXPONENT:
            raise ValueError(
                f"exponent must be {odd:g} or differ from it by {_CLOSEST_EXPONENT}, "
                f"got {exponent}"
            )
        object.__setattr__(self, "exponent", exponent)
        smearing = _checked_smearing(self.smearing, exponent == 1.0)
        object.__setattr__(self, "smearing", smearing)

    @property
    def neutralized(self):
        """Whether k = 0 diverges and is dropped: a neutralising background."""
        return self.exponent <= 3.0

    @property
    def tail(self):
        """Form far from the atom: see :class:`Field`."""
        return Tail(1.0, self.exponent, 0.0)

    @property
    def singular_at_zero(self):
        """Whether k² ĝ(k) has a singularity at k = 0."""
        return self.exponent != 1.0

    def real(self, distance):
        """Field at a distance in Å."""
        p, sigma = self.exponent, self.smearing
        d = np.atleast_1d(np.asarray(distance, dtype=np.float64))
        if sigma == 0.0:
            with np.errstate(divide="ignore"):
                return (1.0 / d).reshape(np.shape(distance))
        x = 0.5 * (d / sigma) ** 2
        # P(a, x) / x^a tends to (1 - a x / (a + 1)) / Gamma(a + 1).
        a = 0.5 * p
        small = x < 1e-8
        x = np.where(small, 1.0, x)
        ratio = special.gammainc(a, x) / x**a
        ratio[small] = 1.0 / special.gamma(a + 1.0)
        return (ratio / (2.0 * sigma**2) ** a).reshape(np.shape(distance))

    def fourier(self, k, splitting=None):
        r"""Fourier transform at a wave number k > 0 in 1/Å, see :class:`Field`.

        .. math::
            \hat g(k) = \frac{\pi^{3/2}(2\sigma^2)^{(3-p)/2}}{\Gamma(p/2)}
            E_{(p-1)/2}(k^2\sigma^2/2)

        where :math:`E_\nu` is the generalised exponential integral; for p = 1 it
        is :math:`4\pi e^{-k^2\sigma^2/2}/k^2`.
        """
        p, sigma = self.exponent, self.smearing if splitting is None else splitting
        k = np.asarray(k, dtype=np.float64)
        if p == 1.0:
            return 4.0 * math.pi * np.exp(-0.5 * (k * sigma) ** 2) / k**2
        prefactor = math.pi**1.5 * (2 * sigma**2) ** (0.5 * (3 - p))
        integral = exponential_integral(0.5 * (p - 1), 0.5 * (k * sigma) ** 2)
        return prefactor / special.gamma(0.5 * p) * integral

    def background(self, splitting):
        r"""Average that a periodic sum over k ≠ 0 misses, see :class:`Field`.

        For p > 3 the limit of :math:`\hat g_s` at k = 0. Up to p = 3 it diverges and
        is dropped, and of the short-range half its average is taken out:
        :math:`\hat g_s - \hat g_\sigma` at k = 0.
        """
        p, sigma = self.exponent, self.smearing
        if p == 3.0:
            return -4.0 * math.pi * math.log(splitting / sigma)
        q = 0.5 * (3.0 - p)
        widths = (2 * splitting**2) ** q - (2 * sigma**2) ** q * self.neutralized
        return -(math.pi**1.5) * widths / (q * special.gamma(0.5 * p))


@dataclass(frozen=True)
class YukawaPotential(Field):
    r"""Screened Coulomb potential of a charge smeared by a Gaussian.

    .. math:: \hat g(k) = \frac{4\pi e^{-k^2\sigma^2/2}}{k^2+\kappa^2}

    With the screening length :math:`1/\kappa` it falls as
    :math:`e^{\kappa^2\sigma^2/2}\,e^{-\kappa d}/d` far from the atom.

    Parameters
    ----------
    screening_length : float
        :math:`1/\kappa` in Å, positive.
    smearing : float
        Width :math:`\sigma` in Å, from 0.02 to 100; at most ten screening lengths.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> yukawa = YukawaPotential(screening_length=5.0, smearing=1.0)
    >>> round(float(yukawa.real(2.0)), 6)
    0.319065
    """

    screening_length: float
    smearing: float

    long_range = True
    singular_at_zero = True

    def __post_init__(self):
        length = float(self.screening_length)
        if not 0.0 < length < math.inf:
            raise ValueError(
                "screening_length must be a positive length in Å, got "
                f"{self.screening_length}"
            )
        smearing = _checked_smearing(self.smearing, False)
        if smearing > _LARGEST_SCREENING * length:
            raise ValueError(
                f"smearing must be at most {_LARGEST_SCREENING:g} screening lengths of "
                f"{length} Å, got {smearing}"
            )
        object.__setattr__(self, "screening_length", length)
        object.__setattr__(self, "smearing", smearing)

    @property
    def tail(self):
        """Form far from the atom: see :class:`Field`."""
        kappa = 1.0 / self.screening_length
        return Tail(math.exp(0.5 * (kappa * self.smearing) ** 2), 1.0, kappa)

    def real(self, distance):
        """Field at a distance in Å."""
        sigma = self.smearing
        d = np.atleast_1d(np.asarray(distance, dtype=np.float64))
        scaled = sigma / self.screening_length
        root2 = math.sqrt(2.0)
        # exp(κ²σ²/2)/2 [exp(-κd) erfc((κσ - d/σ)/√2) - exp(κd) erfc((κσ + d/σ)/√2)]/d,
        # with the growing factors taken into erfcx.
        near = np.maximum(d, 1e-5 * sigma)
        x = near / sigma
        gauss = np.exp(-0.5 * x**2)
        outer = special.erfcx(np.maximum(scaled - x, 0.0) / root2) * gauss
        beyond = np.exp(0.5 * scaled**2 - scaled * x) * special.erfc(
            (scaled - x) / root2
        )
        outer = np.where(x < scaled, outer, beyond)
        value = 0.5 * (outer - special.erfcx((scaled + x) / root2) * gauss) / near
        at_zero = math.sqrt(2.0 / math.pi) / sigma
        at_zero -= special.erfcx(scaled / root2) * scaled / sigma
        return np.where(d >= near, value, at_zero).reshape(np.shape(distance))

    def fourier(self, k, splitting=None):
        r"""Fourier transform at a wave number in 1/Å, see :class:`Field`.

        The long-range half has the splitting width s instead of σ, and the factor
        :math:`e^{-\kappa^2(s^2-\sigma^2)/2}`, without which the short-range half would
        keep a tail.
        """
        width = self.smearing if splitting is None else splitting
        k2 = np.asarray(k, dtype=np.float64) ** 2
        kappa2 = self.screening_length**-2
        narrowed = kappa2 * (width**2 - self.smearing**2)
        return 4 * math.pi * np.exp(-0.5 * (k2 * width**2 + narrowed)) / (k2 + kappa2)

    def background(self, splitting):
        """Average that a periodic sum over k ≠ 0 misses, see :class:`Field`."""
        return float(self.fourier(0.0, splitting))


def exponential_integral(order, x):
    r"""Generalised exponential integral of real order and positive argument.

    .. math:: E_\nu(x) = \int_1^\infty t^{-\nu} e^{-xt}\,dt
        = x^{\nu-1}\,\Gamma(1-\nu, x)

    Parameters
    ----------
    order : float
        Order, at least 0.
    x : array_like
        Positive arguments.

    Returns
    -------
    ndarray
    """
    x = np.asarray(x, dtype=np.float64)
    if order == int(order):
        return special.expn(int(order), x)
    first = order - math.floor(order)
    value = (
        special.gamma(1 - first) * special.gammaincc(1 - first, x) * x ** (first - 1)
    )
    for step in range(math.floor(order)):
        value = (np.exp(-x) - x * value) / (first + step)
    return value
