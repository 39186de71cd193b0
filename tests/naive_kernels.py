"""Slow twins of kernels and regression: double loops, written from the formulas."""

from dataclasses import dataclass

import numpy as np

from lode.invariants import Features
from lode.systems import structures


@dataclass(frozen=True)
class ToyDescriptor:
    """Smooth functions of the distances to neighbours, by species; any width."""

    n_features: int = 3
    width: float = 1.0

    def compute(self, frames, *, species=None, n_threads=None, progress=False):
        checked = structures(frames)
        species, _ = checked.channels(species)
        rows, centers, frame_index = [], [], []
        for index, system in enumerate(checked):
            x = system.positions
            d = np.linalg.norm(x[:, None] - x[None], axis=2)
            for i, z in enumerate(system.species):
                row = [
                    np.sum(np.exp(-d[i, system.species == s] / (self.width + n)))
                    for s in species
                    for n in range(self.n_features)
                ]
                rows.append(row)
                centers.append(z)
                frame_index.append(index)
        return Features(
            np.array(rows),
            np.array(centers),
            np.array(frame_index),
            np.arange(len(rows[0])),
            len(checked),
            tuple(species),
        )


def environment_kernel(p_i, p_j, z_i, z_j, degree, normalize, species_delta):
    if species_delta and z_i != z_j:
        return 0.0
    if normalize:
        p_i, p_j = (p / n if (n := np.sqrt(p @ p)) > 0 else p for p in (p_i, p_j))
    return float(np.dot(p_i, p_j)) ** degree


def structure_kernel(a, b, pair, average=False):
    """K(A, B) = Σ_{i∈A, j∈B} pair(i, j), row by row; divided by N_A N_B if averaged."""
    values = np.zeros((a.n_frames, b.n_frames))
    for i, frame_i in enumerate(a.frame_index):
        for j, frame_j in enumerate(b.frame_index):
            values[frame_i, frame_j] += pair(i, j)
    if average:
        values /= np.bincount(a.frame_index)[:, None] * np.bincount(b.frame_index)
    return values


def polynomial(a, b, degree=1, normalize=False, species_delta=True, average=False):
    def pair(i, j):
        return environment_kernel(
            a.values[i],
            b.values[j],
            a.species[i],
            b.species[j],
            degree,
            normalize,
            species_delta,
        )

    return structure_kernel(a, b, pair, average)


def augmented_system(kernel, targets, ridge):
    """[[K+λ, 1], [1ᵀ, 0]]."""
    n = len(targets)
    matrix = np.zeros((n + 1, n + 1))
    matrix[:n, :n] = kernel + ridge * np.eye(n)
    matrix[:n, n] = matrix[n, :n] = 1.0
    return matrix


def ridge_of(kernel, regularization):
    """λ = regularization × mean diagonal of the centred kernel."""
    n = len(kernel)
    centring = np.eye(n) - 1.0 / n
    return regularization * np.trace(centring @ kernel @ centring) / n


def intercept_predictions(kernel, targets, rows, ridge):
    """Weights and intercept from the augmented system."""
    solution = np.linalg.solve(
        augmented_system(kernel, targets, ridge), np.append(targets, 0.0)
    )
    return rows @ solution[:-1] + solution[-1]


def intercept_variance(kernel, targets, rows, diagonal, ridge, groups=None):
    """Variance of new targets, with a flat prior on the intercept (universal kriging).

    Its scale is that by which groups that are left out one after the other are as far
    off as their covariance says.
    """
    n = len(targets)
    groups = np.arange(n) if groups is None else np.asarray(groups)
    total = 0.0
    for group in np.unique(groups):
        (own,), (rest,) = np.nonzero(groups == group), np.nonzero(groups != group)
        inner, cross = kernel[np.ix_(rest, rest)], kernel[np.ix_(own, rest)]
        error = intercept_predictions(inner, targets[rest], cross, ridge) - targets[own]
        inverse = np.linalg.inv(augmented_system(inner, targets[rest], ridge))
        v = np.hstack([cross, np.ones((len(own), 1))])
        covariance = kernel[np.ix_(own, own)] - v @ inverse @ v.T
        total += error @ np.linalg.solve(covariance + ridge * np.eye(len(own)), error)
    inverse = np.linalg.inv(augmented_system(kernel, targets, ridge))
    variances = []
    for row, k_xx in zip(rows, diagonal, strict=True):
        v = np.append(row, 1.0)
        variances.append(k_xx - v @ inverse @ v + ridge)
    return total / n * np.array(variances)


def validation_errors(kernel, targets, fold, grid):
    """Every fold refitted from scratch for every λ."""
    errors = []
    for regularization in grid:
        squares = 0.0
        for k in np.unique(fold):
            a, b = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            inside = kernel[np.ix_(a, a)]
            predicted = intercept_predictions(
                inside,
                targets[a],
                kernel[np.ix_(b, a)],
                ridge_of(inside, regularization),
            )
            squares += np.sum((predicted - targets[b]) ** 2)
        errors.append(np.sqrt(squares / len(targets)))
    return np.array(errors)
