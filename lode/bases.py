r"""Radial bases.

A further basis is a function of :data:`_FAMILIES`, and a constructor of its name.

Index legend: l angular channel, n radial function, r distance.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import linalg, special

from lode.systems import finite_array, whole_number

# An overlap matrix worse than this loses more than six digits when inverted.
_LARGEST_CONDITION = 1e10
_LARGEST_RADIAL = 64
# Tables of the pair functions grow with the cutoff over other lengths, or these over
# the cutoff (Å).
_SMALLEST_CUTOFF = 0.01
_LARGEST_CUTOFF = 1000.0


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
        Radius of the environment in Å, from 0.01 to 1000.

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
        if not _SMALLEST_CUTOFF <= cutoff <= _LARGEST_CUTOFF:
            raise ValueError(
                f"cutoff must be from {_SMALLEST_CUTOFF:g} to {_LARGEST_CUTOFF:g} Å, "
                f"got {cutoff}"
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


def _root(function, low, high, **options):
    """Where a function crosses zero."""
    # It takes a quarter of the time that this module takes to import.
    from scipy.optimize import brentq

    return brentq(function, low, high, **options)
