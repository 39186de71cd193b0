"""Induced point dipoles in periodic cells: field tensors, dielectric tensor."""

import math
from numbers import Real

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from lode.core import dipoles as core
from lode.core.lattice import half_sphere, reduced_cell, vectors_of
from lode.systems import cell_array, finite_array, positive_number

# Splitting over the cube root of the volume. Both sums cost as the square of the
# number of dipoles, the product of the wave vectors' rows at the speed of BLAS: the
# best ratio is the same for any system; measured for 96 atoms.
_SPLITTING = 0.2
_CONTACT = 1e-6
_TOLERANCES = (1e-14, 1e-2)


def dipole_tensor(
    positions,
    cell,
    polarizabilities=None,
    *,
    damping=None,
    tolerance=1e-10,
    splitting=None,
):
    r"""Field of periodic point dipoles at each other's places.

    The field at dipole i is :math:`\sum_j T_{ij} \mu_j`, with

    .. math::

        T_{ij} = \sum_T{}^{'} \nabla\nabla \frac{\operatorname{erfc}(\alpha r)}{r}
        - \frac{4\pi}{V} \sum_{k \ne 0} \frac{k k^T}{k^2} e^{-k^2/4\alpha^2}
        \cos(k \cdot r_{ij}) + \delta_{ij} \frac{4\alpha^3}{3\sqrt\pi}, \quad
        r = |r_{ij} + T| .

    The own images of a dipole are in it, the term k = 0 is not: the average field is
    zero, as between conducting walls. With damping, the tensor of each pair
    and each image, however near, is that of smeared dipoles,

    .. math::

        \frac{3 r r^T}{r^5} \left[1 - (1 + a u^3) e^{-a u^3}\right]
        - \frac{1}{r^3} \left[1 - e^{-a u^3}\right], \quad
        u = \frac{r}{(\alpha_i \alpha_j)^{1/6}} .

    Parameters
    ----------
    positions : array_like (n, 3)
        In Å; need not lie in the cell.
    cell : array_like (3, 3)
        Rows are the lattice vectors in Å, of any shape.
    polarizabilities : array_like (n,), optional
        In Å³, needed for the damping.
    damping : float, optional
        Thole's a, such as 0.39; bare point dipoles by default.
    tolerance : float
        Truncation of both sums: about the largest error in units of n/V. Between
        1e-14 and 1e-2.
    splitting : float, optional
        Width s = 1/(√2 α) in Å. It changes the time and not the result.

    Returns
    -------
    ndarray (3 n, 3 n)
        Symmetric, in Å⁻³: rows and columns x, y, z of the first dipole, then of the
        second, and so on.

    Raises
    ------
    ValueError
        If a shape or number is wrong, the cell is singular, two dipoles are at the
        same place, or damping comes without polarisabilities.

    Notes
    -----
    Damping: B. T. Thole, Chem. Phys. 59, 341 (1981), in the form of P. Ren, J. W.
    Ponder, J. Phys. Chem. B 107, 5933 (2003).

    Examples
    --------
    In a cubic lattice the own images make Lorentz's field 4π/3V:

    >>> tensor = dipole_tensor([[0, 0, 0]], np.eye(3))
    >>> bool(np.allclose(tensor, 4 * np.pi / 3 * np.eye(3)))
    True
    """
    positions, cell, polarizabilities = _checked(positions, cell, polarizabilities)
    damping, tolerance, splitting = _checked_settings(damping, tolerance, splitting)
    if damping and polarizabilities is None:
        raise ValueError(f"damping {damping} must come with polarizabilities, got none")
    return _tensor(positions, cell, polarizabilities, damping, tolerance, splitting)


def dielectric_tensor(
    positions,
    cell,
    polarizabilities,
    *,
    damping=None,
    tolerance=1e-10,
    splitting=None,
):
    r"""Electronic dielectric tensor of a periodic set of polarisable points.

    In a macroscopic field E the dipoles obey :math:`\mu_i / \alpha_i - \sum_j T_{ij}
    \mu_j = E`, with T from :func:`dipole_tensor`, hence

    .. math:: \epsilon = 1 + \frac{4\pi}{V} \sum_{ij} [(\alpha^{-1} - T)^{-1}]_{ij} .

    Parameters
    ----------
    positions : array_like (n, 3)
        In Å.
    cell : array_like (3, 3)
        Rows are the lattice vectors in Å, of any shape.
    polarizabilities : array_like (n,)
        In Å³, positive.
    damping, tolerance, splitting
        As in :func:`dipole_tensor`.

    Returns
    -------
    ndarray (3, 3)
        Symmetric.

    Raises
    ------
    ValueError
        As :func:`dipole_tensor`; also if a polarisability is not positive, or they
        are so large that the dipoles would grow without bound.

    Examples
    --------
    A cubic lattice follows Clausius and Mossotti, ε = (1 + 2x)/(1 − x) with
    x = 4πα/3V:

    >>> x = 0.25
    >>> tensor = dielectric_tensor([[0, 0, 0]], np.eye(3), [3 * x / (4 * np.pi)])
    >>> bool(np.allclose(tensor, 2.0 * np.eye(3)))
    True
    """
    positions, cell, polarizabilities = _checked(positions, cell, polarizabilities)
    if polarizabilities is None:
        raise ValueError("polarizabilities must be one number per position, got None")
    settings = _checked_settings(damping, tolerance, splitting)
    # (α⁻¹ − T)⁻¹ = √α (1 − √α T √α)⁻¹ √α, whose diagonal is of order one.
    root = np.repeat(np.sqrt(polarizabilities), 3)
    matrix = _tensor(positions, cell, polarizabilities, *settings)
    matrix *= -root[:, None]
    matrix *= root
    matrix.flat[:: len(matrix) + 1] += 1.0
    try:
        factor = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        raise ValueError(
            "polarizabilities must leave the dipoles finite: in this arrangement they "
            f"grow without bound, got up to {polarizabilities.max():g} Å³, damping "
            f"{damping}"
        ) from None
    field = root[:, None] * np.tile(np.eye(3), (len(positions), 1))
    half = solve_triangular(factor, field, lower=True, check_finite=False)
    volume = abs(float(np.linalg.det(cell)))
    return np.eye(3) + 4.0 * math.pi / volume * (half.T @ half)


def clausius_mossotti(epsilon, volume):
    r"""Polarisability that a dielectric constant stands for.

    .. math:: \alpha = \frac{3V}{4\pi}\, \frac{\varepsilon - 1}{\varepsilon + 2}

    Parameters
    ----------
    epsilon : array_like
        Relative dielectric constant.
    volume : array_like
        V in Å³, of what α shall be of.

    Returns
    -------
    ndarray
        In Å³.

    Examples
    --------
    >>> from lode.dipoles import clausius_mossotti, dielectric_constant
    >>> alpha = clausius_mossotti(1.8, 30.0)
    >>> print(dielectric_constant(alpha, 30.0).round(6))
    1.8
    """
    epsilon = np.asarray(epsilon, dtype=np.float64)
    return 3.0 / (4.0 * math.pi) * volume * (epsilon - 1.0) / (epsilon + 2.0)


def dielectric_constant(polarizability, volume):
    """The inverse of :func:`clausius_mossotti`.

    Parameters
    ----------
    polarizability : array_like
        In Å³.
    volume : array_like
        In Å³.

    Returns
    -------
    ndarray
    """
    x = 4.0 * math.pi / 3.0 * np.asarray(polarizability, dtype=np.float64) / volume
    return (1.0 + 2.0 * x) / (1.0 - x)


def _checked(positions, cell, polarizabilities):
    positions = finite_array(positions, (None, 3), "positions")
    if len(positions) == 0:
        raise ValueError("positions must hold at least one dipole, got none")
    cell = cell_array(cell)
    if polarizabilities is not None:
        polarizabilities = finite_array(polarizabilities, (None,), "polarizabilities")
        if len(polarizabilities) != len(positions):
            raise ValueError(
                f"polarizabilities must have shape ({len(positions)},) as there are "
                f"{len(positions)} positions, got {polarizabilities.shape}"
            )
        if polarizabilities.min() <= 0.0:
            index = int(np.argmin(polarizabilities))
            raise ValueError(
                "polarizabilities must be positive, got "
                f"{polarizabilities[index]:g} at index {index}"
            )
    return positions, cell, polarizabilities


def _checked_settings(damping, tolerance, splitting):
    low, high = _TOLERANCES
    if not (isinstance(tolerance, Real) and low <= tolerance <= high):
        raise ValueError(
            f"tolerance must lie between {low} and {high}, got {tolerance!r}"
        )
    damping = 0.0 if damping is None else positive_number(damping, "damping")
    if splitting is not None:
        splitting = positive_number(splitting, "splitting")
    return damping, float(tolerance), splitting


def _tensor(positions, cell, polarizabilities, damping, tolerance, splitting):
    """The tensor of checked input."""
    n = len(positions)
    cell = reduced_cell(cell)
    inverse = np.linalg.inv(cell)
    volume = abs(float(np.linalg.det(cell)))
    width = float(splitting or _SPLITTING * volume ** (1.0 / 3.0))
    alpha = 1.0 / (math.sqrt(2.0) * width)
    # exp(-x²) with a margin for the powers of x before it
    x = math.sqrt(math.log(10.0 / tolerance)) + 0.5
    cutoff, wave_cutoff = x / alpha, 2.0 * alpha * x
    sixth = np.ones(n)
    if damping:
        sixth = polarizabilities ** (1.0 / 6.0)
        cutoff = max(cutoff, sixth.max() ** 2 * (x * x / damping) ** (1.0 / 3.0))

    radius = cutoff + 0.5 * np.linalg.norm(cell, axis=1).sum()
    half = _half_sphere(cell, inverse, radius)
    vectors = np.concatenate([-half[::-1], np.zeros((1, 3)), half])
    tensor = np.zeros((n, 3, n, 3))
    first, second = core.real_space(
        positions,
        cell,
        inverse,
        vectors,
        alpha,
        cutoff,
        damping,
        sixth,
        _CONTACT,
        tensor,
    )
    if first >= 0:
        raise ValueError(
            f"dipoles must be at different places, got dipoles {first} and {second} "
            f"both at {positions[first].tolist()}"
        )
    tensor = tensor.reshape(3 * n, 3 * n)
    upper = np.triu(tensor, 1)
    tensor = upper + upper.T + np.diag(tensor.diagonal())

    reciprocal = np.ascontiguousarray(2.0 * math.pi * inverse.T)
    waves = _half_sphere(reciprocal, cell.T / (2.0 * math.pi), wave_cutoff)
    rows = core.wave_rows(positions, waves, alpha, volume).reshape(3 * n, -1)
    tensor -= rows @ rows.T
    tensor.flat[:: 3 * n + 1] += 4.0 * alpha**3 / (3.0 * math.sqrt(math.pi))
    return tensor


def _half_sphere(cell, inverse, radius):
    """One of each two opposite lattice vectors within a sphere, (n, 3)."""
    lines, _ = half_sphere(cell, np.linalg.norm(inverse, axis=0), radius)
    return vectors_of(cell, lines)
