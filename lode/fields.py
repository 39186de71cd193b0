r"""Atom-centred fields: Gaussian density and smeared power-law potentials.

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
        Width :math:`\sigma` in Å: beyond nine of it the tail is exact.
    long_range : bool
        Whether all atoms are seen, so that periodic sums are split into two halves;
        otherwise a cutoff function ends the field, and what follows is not needed.
    tail : Tail
        Its form far from the atom.
    singular_at_zero : bool
        Whether :math:`k^2 \hat g(k)` has a singularity at k = 0 or close to it.

    Methods
    -------
    real(distance)
        The field g at distances in Å.
    fourier(k, splitting=None)
        Its Fourier transform :math:`\hat g` at wave numbers in 1/Å; with a splitting
        width that of its long-range half, which is smooth on that scale and leaves a
        short-range half without a tail.
    background(splitting)
        What the average of the field, times the volume, lacks if the long-range half
        is summed over k ≠ 0 and the short-range half over pairs.
    """

    long_range = False
    singular_at_zero = False


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
