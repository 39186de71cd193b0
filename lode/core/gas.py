"""Compiled random sequential addition of spheres in a periodic cube."""

import math

import numpy as np

from lode.core.compilation import compiled


@compiled
def insertion(generator, n, side, min_distance, decimals, max_trials):
    """Random points in a periodic cube that keep a distance.

    A point is drawn uniformly and kept if no earlier one is too near.

    Parameters
    ----------
    generator : numpy.random.Generator
        Advanced by three numbers a trial.
    n : int
        Number of points.
    side : float
        Of the cube.
    min_distance : float
        Smallest distance under the minimum image convention.
    decimals : int
        Decimal places of the coordinates.
    max_trials : int
        Trials after which to give up.

    Returns
    -------
    positions : ndarray (n, 3)
        Only the first ``n_placed`` rows are meaningful.
    n_placed : int
    """
    positions = np.zeros((n, 3))
    point = np.empty(3)
    power = 10.0**decimals
    n_placed = 0
    for _ in range(max_trials):
        for x in range(3):
            # Rounding comes before the test: the distance holds for what is kept.
            point[x] = math.floor(generator.random() * side * power + 0.5) / power
        apart = True
        for i in range(n_placed):
            square = 0.0
            for x in range(3):
                d = point[x] - positions[i, x]
                d -= side * math.floor(d / side + 0.5)
                square += d * d
            if square < min_distance * min_distance:
                apart = False
                break
        if apart:
            positions[n_placed] = point
            n_placed += 1
            if n_placed == n:
                break
    return positions, n_placed
