r"""Coupling of real spherical harmonics, and tensors in their basis.

Real harmonics have no Condon–Shortley phase and stand in the order m = −l … l, as
everywhere in the package. Their Clebsch–Gordan coefficients

.. math:: \langle l_1 m_1; l_2 m_2 | \lambda\mu \rangle

are those of the complex harmonics, transformed to the real ones and multiplied by
:math:`(-i)^{l_1+l_2-\lambda}`, which makes all of them real. For even
:math:`l_1+l_2+\lambda` they then have the sign of the integrals
:math:`\int Y_{l_1m_1} Y_{l_2m_2} Y_{\lambda\mu}\,d\Omega`, to which they are
proportional with a positive constant, and two equal harmonics couple to
:math:`\lambda = 0` with :math:`1/\sqrt{2l+1}`. Two vectors couple to
:math:`\lambda = 1` as their vector product, over :math:`\sqrt2`.
"""

import math
from functools import lru_cache

import numpy as np

from lode.systems import whole_number

_LARGEST_ANGULAR = 60
# Place among x, y, z of the real harmonics m = -1, 0, 1, and the reverse.
_HARMONIC_ORDER = [1, 2, 0]
_CARTESIAN_ORDER = [2, 0, 1]
# A tensor's two halves may differ by this, relative to its largest element.
_ASYMMETRY = 1e-8


@lru_cache(maxsize=4096)
def clebsch_gordan(l_1, l_2, angular):
    r"""Coefficients that couple two sets of real harmonics to a third.

    Parameters
    ----------
    l_1, l_2 : int
        Angular momenta that are coupled, at most 60.
    angular : int
        That of the result, λ, from \|l_1 − l_2\| to l_1 + l_2.

    Returns
    -------
    ndarray (2 l_1 + 1, 2 l_2 + 1, 2 λ + 1)
        Read-only. Orthonormal: as a matrix with rows (m_1, m_2) its columns μ are
        orthogonal unit vectors, also to those of any other λ.

    Raises
    ------
    ValueError
        If the three do not form a triangle.

    Notes
    -----
    Racah's formula in whole numbers, one square root at its end: every coefficient
    is accurate to a few units of the last place, and those that vanish are 0.0.

    References
    ----------
    D. A. Varshalovich, A. N. Moskalev and V. K. Khersonskii, Quantum Theory of Angular
    Momentum (World Scientific, 1988), Eq. 8.2.1 (5).

    Examples
    --------
    >>> from lode.coupling import clebsch_gordan
    >>> print((3 * clebsch_gordan(1, 1, 0)[:, :, 0] ** 2).round(12))
    [[1. 0. 0.]
     [0. 1. 0.]
     [0. 0. 1.]]
    """
    l_1 = whole_number(l_1, 0, _LARGEST_ANGULAR, "l_1")
    l_2 = whole_number(l_2, 0, _LARGEST_ANGULAR, "l_2")
    angular = whole_number(angular, 0, 2 * _LARGEST_ANGULAR, "angular")
    if not abs(l_1 - l_2) <= angular <= l_1 + l_2:
        raise ValueError(
            f"angular must be from |l_1 - l_2| to l_1 + l_2, got {l_1}, {l_2} and "
            f"{angular}"
        )
    phase = (1, -1j, -1, 1j)[(l_1 + l_2 - angular) % 4]
    result = np.zeros((2 * l_1 + 1, 2 * l_2 + 1, 2 * angular + 1))
    for k_1 in range(-l_1, l_1 + 1):
        for k_2 in range(max(-l_2, -angular - k_1), min(l_2, angular - k_1) + 1):
            value = phase * _complex_coupling(l_1, k_1, l_2, k_2, angular)
            # Terms that cancel each other do so exactly: they are the same numbers.
            for m_1, u_1 in _real(k_1):
                for m_2, u_2 in _real(k_2):
                    for mu, u in _real(k_1 + k_2):
                        factor = u_1.conjugate() * u_2.conjugate() * u
                        size = math.sqrt(0.5) ** sum(k != 0 for k in (m_1, m_2, mu))
                        place = (l_1 + m_1, l_2 + m_2, angular + mu)
                        result[place] += (factor * value).real * size
    result.setflags(write=False)
    return result


def _complex_coupling(l_1, m_1, l_2, m_2, l):
    """Clebsch–Gordan coefficient of complex harmonics, by Racah's formula."""
    a, b, c = l_1 + l_2 - l, l_1 + l - l_2, l_2 + l - l_1
    total = 0
    for k in range(
        max(0, l_1 - m_1 - b, l_2 + m_2 - c), min(a, l_1 - m_1, l_2 + m_2) + 1
    ):
        term = math.comb(a, k) * math.comb(b, l_1 - m_1 - k)
        total += (-1) ** k * term * math.comb(c, l_2 + m_2 - k)
    above, below = (2 * l + 1) * total**2, math.factorial(l_1 + l_2 + l + 1)
    for j, m in ((l_1, m_1), (l_2, m_2), (l, m_1 + m_2)):
        above *= math.factorial(j + m) * math.factorial(j - m)
    for n in (a, b, c):
        below *= math.factorial(n)
    return math.copysign(math.sqrt(above / below), total)


def _real(k):
    """Real harmonics m, with their factors, that hold the complex one k.

    Without the 1/√2 of each m other than zero.
    """
    if k == 0:
        return ((0, 1 + 0j),)
    if k > 0:
        return ((k, (-1) ** k + 0j), (-k, (-1) ** k * -1j))
    return ((-k, 1 + 0j), (k, 1j))


def spherical_vector(vectors):
    r"""Vectors as components of λ = 1: y, z, x, as m = −1, 0, 1.

    Parameters
    ----------
    vectors : array_like (..., 3)
        Components x, y, z.

    Returns
    -------
    ndarray (..., 3)
        In the order of the real harmonics, which are these components of a unit
        vector times √(3/4π): they turn alike.

    Raises
    ------
    ValueError
        If the shape is another one, or a component is not finite.

    Examples
    --------
    >>> import lode
    >>> print(lode.spherical_vector([1.0, 2.0, 3.0]))
    [2. 3. 1.]
    """
    return _finite_array(vectors, (3,), "vectors")[..., _HARMONIC_ORDER]


def cartesian_vector(components):
    """Vectors x, y, z from their components of λ = 1.

    Parameters
    ----------
    components : array_like (..., 3)
        As from :func:`spherical_vector`.

    Returns
    -------
    ndarray (..., 3)

    Raises
    ------
    ValueError
        If the shape is another one, or a component is not finite.

    Examples
    --------
    >>> import lode
    >>> print(lode.cartesian_vector([2.0, 3.0, 1.0]))
    [1. 2. 3.]
    """
    return _finite_array(components, (3,), "components")[..., _CARTESIAN_ORDER]


def spherical_tensor(tensors):
    r"""Symmetric tensors of rank 2 as components of λ = 0 and λ = 2.

    .. math:: \frac{\mathrm{Tr}\,T}{\sqrt3};\quad \sqrt2\,T_{xy},\ \sqrt2\,T_{yz},\
        \frac{2T_{zz}-T_{xx}-T_{yy}}{\sqrt6},\ \sqrt2\,T_{xz},\
        \frac{T_{xx}-T_{yy}}{\sqrt2}

    Parameters
    ----------
    tensors : array_like (..., 3, 3)
        Symmetric.

    Returns
    -------
    ndarray (..., 6)
        The scalar part, then the five components of λ = 2, which turn as the real
        harmonics do. The sum of their squares is that of the nine elements.

    Raises
    ------
    ValueError
        If the shape is another one, or a tensor is not finite or not symmetric.

    Examples
    --------
    >>> import lode
    >>> print(lode.spherical_tensor([[1, 0, 0], [0, 1, 0], [0, 0, 4]]).round(3))
    [3.464 0.    0.    2.449 0.    0.   ]
    """
    tensors = _finite_array(tensors, (3, 3), "tensors")
    difference = np.abs(tensors - np.swapaxes(tensors, -1, -2)).max(initial=0.0)
    if difference > _ASYMMETRY * np.abs(tensors).max(initial=0.0):
        raise ValueError(
            f"tensors must be symmetric, got halves that differ by {difference:.3g}"
        )
    return np.einsum("...xy,xyc->...c", tensors, _BASIS)


def cartesian_tensor(components):
    """Symmetric tensors from their spherical components.

    Parameters
    ----------
    components : array_like (..., 6)
        As from :func:`spherical_tensor`.

    Returns
    -------
    ndarray (..., 3, 3)

    Raises
    ------
    ValueError
        If the shape is another one, or a component is not finite.

    Examples
    --------
    >>> import lode
    >>> print(lode.cartesian_tensor([3**0.5, 0, 0, 0, 0, 0]).round(12))
    [[1. 0. 0.]
     [0. 1. 0.]
     [0. 0. 1.]]
    """
    components = _finite_array(components, (6,), "components")
    return np.einsum("...c,xyc->...xy", components, _BASIS)


def _finite_array(values, last, name):
    """Float64 array without NaN or infinity whose last dimensions are given."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape[-len(last) :] != last:
        wanted = ", ".join(map(str, ("...", *last)))
        raise ValueError(f"{name} must have shape ({wanted}), got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return values


def _basis():
    """Orthonormal symmetric matrices, (3, 3, 6)."""
    basis = np.zeros((3, 3, 6))
    basis[..., 0] = np.eye(3) / math.sqrt(3.0)
    for component, (x, y) in ((1, (0, 1)), (2, (1, 2)), (4, (0, 2))):
        basis[x, y, component] = basis[y, x, component] = math.sqrt(0.5)
    basis[..., 3] = np.diag([-1.0, -1.0, 2.0]) / math.sqrt(6.0)
    basis[..., 5] = np.diag([1.0, -1.0, 0.0]) * math.sqrt(0.5)
    basis.setflags(write=False)
    return basis


_BASIS = _basis()
