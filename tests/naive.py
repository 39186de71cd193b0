"""Slow, obvious twins of the expansion and its invariants, from the paper's formulas.

Index legend: j centre, i neighbour, a species, l and m angular (m stands at
l * l + l + m), n radial function, r and u grid points.
"""

import math

import numpy as np
from scipy import special


def gauss(low, high, order):
    """Gauss-Legendre nodes and weights on an interval."""
    x, w = np.polynomial.legendre.leggauss(order)
    return 0.5 * (high + low) + 0.5 * (high - low) * x, 0.5 * (high - low) * w


def composite(edges, order=16):
    """Gauss-Legendre nodes and weights on consecutive intervals."""
    parts = [gauss(a, b, order) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    x, w = zip(*parts, strict=True)
    return np.concatenate(x), np.concatenate(w)


def harmonics(vectors, l_max):
    """Real spherical harmonics without Condon-Shortley phase, (n, (l_max + 1)**2)."""
    x, y, z = np.asarray(vectors, dtype=float).T
    azimuth = np.arctan2(y, x)
    cosine = z / np.sqrt(x**2 + y**2 + z**2)
    columns = []
    for l in range(l_max + 1):
        for m in range(-l, l + 1):
            k = abs(m)
            ratio = math.factorial(l - k) / math.factorial(l + k)
            norm = math.sqrt((2 * l + 1) / (4 * math.pi) * ratio)
            # SciPy's Legendre function carries the phase (-1)^m.
            legendre = (-1) ** k * norm * special.lpmv(k, l, cosine)
            if m > 0:
                legendre = legendre * math.sqrt(2) * np.cos(k * azimuth)
            elif m < 0:
                legendre = legendre * math.sqrt(2) * np.sin(k * azimuth)
            columns.append(legendre)
    return np.array(columns).T


def sphere(order):
    """Directions and weights of the product Gauss rule of degree 2 order - 1."""
    u, w = gauss(-1.0, 1.0, order)
    phi = np.arange(2 * order) * math.pi / order
    sine = np.sqrt(1 - u**2)[:, None]
    directions = np.stack(
        np.broadcast_arrays(sine * np.cos(phi), sine * np.sin(phi), u[:, None]), -1
    )
    weights = np.repeat(w * math.pi / order, 2 * order)
    return directions.reshape(-1, 3), weights


def projection(field, basis, l_max, panels=8, order=40):
    """Eq. 7 by quadrature: a field around the origin, onto R_nl Y_lm.

    ``field`` takes points (n, 3); gives ((l_max + 1)**2, n_max).
    """
    r, w_r = composite(np.linspace(0, basis.extent, panels + 1))
    direction, w_u = sphere(order)
    y_um = harmonics(direction, l_max)
    points = (r[:, None, None] * direction).reshape(-1, 3)
    values_ru = field(points).reshape(len(r), -1)
    values_rm = (values_ru * w_u) @ y_um
    radial_lnr = basis.functions(r, l_max) * w_r * r**2
    return np.concatenate(
        [
            (radial_lnr[l] @ values_rm[:, l * l : (l + 1) ** 2]).T
            for l in range(l_max + 1)
        ]
    )


def finite_field(g, origin, sources, weights):
    """Field of atoms at ``sources`` on points relative to ``origin``."""

    def field(points):
        total = np.zeros(len(points))
        for source, weight in zip(sources, weights, strict=True):
            total += weight * g(np.linalg.norm(points + origin - source, axis=1))
        return total

    return field


def periodic_field(transform, origin, sources, cell, limit, zero):
    """Plane-wave sum of a periodic field, ``zero`` being the transform at k = 0."""
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    top = np.ceil(np.linalg.norm(cell, axis=1) * limit / (2 * math.pi)).astype(int)
    index = np.array(list(np.ndindex(*(2 * top + 1)))) - top
    k = index @ reciprocal
    size = np.linalg.norm(k, axis=1)
    k = k[(size > 0) & (size < limit)]
    factor = np.exp(1j * k @ (origin - np.asarray(sources)).T).sum(axis=1)
    volume = abs(np.linalg.det(cell))
    amplitude = transform(np.linalg.norm(k, axis=1)) * factor / volume

    def field(points):
        total = np.full(len(points), zero * len(sources) / volume)
        for start in range(0, len(points), 4096):
            part = slice(start, start + 4096)
            total[part] += (np.exp(1j * points[part] @ k.T) @ amplitude).real
        return total

    return field


def pair_function(g, basis, l_max, distance, panels=8, order=24):
    """f_nl of one distance R, in real space, (l_max + 1, n_max).

    The angular integral of g(|r - R|) P_l(cos) goes over d = |r - R| instead of the
    cosine, du = -d dd / (r R), which takes the 1/d of a bare charge away.
    """
    inside = min(distance, basis.extent)
    edges = np.linspace(0, inside, panels + 1)
    if inside < basis.extent:
        edges = np.concatenate([edges, np.linspace(inside, basis.extent, panels)[1:]])
    r, w = composite(edges, order)
    x, w_x = composite(np.linspace(0, 1, panels + 1), order)
    low, high = np.abs(r - distance)[:, None], (r + distance)[:, None]
    d = low + (high - low) * x
    u = (r[:, None] ** 2 + distance**2 - d**2) / (2 * r[:, None] * distance)
    values = (high - low) * w_x * g(d) * d / (r[:, None] * distance)
    radial_lnr = basis.functions(r, l_max) * w * r**2
    return np.array(
        [
            radial_lnr[l]
            @ (2 * math.pi * (values * special.eval_legendre(l, u)).sum(axis=1))
            for l in range(l_max + 1)
        ]
    )


def shifted_cosine(r, radius, width):
    """Smooth cutoff of one distance."""
    if r > radius:
        return 0.0
    if r <= radius - width:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (r - radius + width) / width))


def rotation_matrices(rotation, l_max, seed=0):
    """Matrices D_l with Y_lm(R v) = sum_m' D_mm' Y_lm'(v), by least squares."""
    directions = np.random.default_rng(seed).normal(size=(4 * (l_max + 1) ** 2, 3))
    here = harmonics(directions, l_max)
    there = harmonics(directions @ rotation.T, l_max)
    matrices = []
    for l in range(l_max + 1):
        part = slice(l * l, (l + 1) ** 2)
        matrices.append(np.linalg.lstsq(here[:, part], there[:, part])[0].T)
    return matrices


def rotated(c_jamn, rotation):
    """Coefficients of the rotated structure from those of the structure."""
    l_max = math.isqrt(c_jamn.shape[2]) - 1
    result = np.empty_like(c_jamn)
    for l, matrix in enumerate(rotation_matrices(rotation, l_max)):
        part = slice(l * l, (l + 1) ** 2)
        result[:, :, part] = np.einsum("xm,jamn->jaxn", matrix, c_jamn[:, :, part])
    return result


def power_spectrum(c_jamn, d_jamn, labels):
    """Invariant of each label (l, a, n, a', n'); a counts species from zero."""
    result = np.zeros((len(c_jamn), len(labels)))
    for j in range(len(c_jamn)):
        for f, (l, a, n, b, k) in enumerate(labels):
            for m in range(l * l, (l + 1) ** 2):
                result[j, f] += c_jamn[j, a, m, n] * d_jamn[j, b, m, k]
            result[j, f] /= math.sqrt(2 * l + 1)
    return result


def full_power_spectrum(c_jamn):
    """All of (l, a, n, a', n') without folding, (n_centres, n_features)."""
    l_max = math.isqrt(c_jamn.shape[2]) - 1
    parts = []
    for l in range(l_max + 1):
        c = c_jamn[:, :, l * l : (l + 1) ** 2]
        p = np.einsum("jamn,jbmk->janbk", c, c) / math.sqrt(2 * l + 1)
        parts.append(p.reshape(len(c_jamn), -1))
    return np.concatenate(parts, axis=1)


def gaunt(l_1, l_2, l_3):
    """Integrals of three real harmonics over the sphere, by quadrature."""
    direction, weights = sphere(l_1 + l_2 + l_3 + 1)
    y_um = harmonics(direction, max(l_1, l_2, l_3))
    parts = [y_um[:, l * l : (l + 1) ** 2] for l in (l_1, l_2, l_3)]
    return np.einsum("u,um,un,uk->mnk", weights, *parts)


def equivariant_spectrum(c_jamn, d_jamn, labels, angular, coupling):
    """Coupled pair of channels of each label (l, a, n, l', a', n').

    ``coupling`` gives the coefficients (m, m', mu) of l, l' and the angular momentum.
    """
    result = np.zeros((len(c_jamn), 2 * angular + 1, len(labels)))
    for j in range(len(c_jamn)):
        for f, (l_1, a, n, l_2, b, k) in enumerate(labels):
            first = c_jamn[j, a, l_1 * l_1 : (l_1 + 1) ** 2, n]
            second = d_jamn[j, b, l_2 * l_2 : (l_2 + 1) ** 2, k]
            for mu in range(2 * angular + 1):
                matrix = coupling(l_1, l_2, angular)[:, :, mu]
                result[j, mu, f] = first @ matrix @ second
    return result
