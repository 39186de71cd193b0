"""Slow, obvious twin of ``lode.ewald``: the formula of its docstring, literally."""

import itertools

import numpy as np
from scipy.special import erfc


def lattice_points(cell, radius):
    """All points of a lattice within a sphere around the origin."""
    reach = np.ceil(radius * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    ranges = [range(-r, r + 1) for r in reach]
    points = np.array(list(itertools.product(*ranges))) @ cell
    return points[np.linalg.norm(points, axis=1) <= radius]


def naive_energy(positions, cell, charges, alpha):
    """Energy of point charges in a periodic cell, Coulomb constant 1."""
    positions, cell, charges = (
        np.asarray(a, dtype=float) for a in (positions, cell, charges)
    )
    positions = positions - np.floor(positions @ np.linalg.inv(cell)) @ cell
    volume = abs(np.linalg.det(cell))
    diameter = np.linalg.norm(np.abs(cell).sum(axis=0))
    energy = 0.0
    # exp(-36) = 2e-16
    for shift in lattice_points(cell, 6.0 / alpha + diameter):
        for r_i, q_i in zip(positions, charges, strict=True):
            r = np.linalg.norm(positions + shift - r_i, axis=1)
            keep = r > 1e-12
            energy += (
                0.5 * q_i * np.sum(charges[keep] * erfc(alpha * r[keep]) / r[keep])
            )
    for k in lattice_points(2.0 * np.pi * np.linalg.inv(cell).T, 12.0 * alpha):
        square = k @ k
        if square > 0.0:
            factor = abs(np.sum(charges * np.exp(1j * positions @ k))) ** 2
            energy += (
                2 * np.pi / volume * np.exp(-square / (4 * alpha**2)) / square * factor
            )
    energy -= alpha / np.sqrt(np.pi) * np.sum(charges**2)
    return energy - np.pi * charges.sum() ** 2 / (2 * volume * alpha**2)
