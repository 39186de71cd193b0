"""Rotationally invariant features: radial spectrum and power spectrum."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Features:
    """Features of atomic environments.

    Attributes
    ----------
    values : ndarray (n_environments, n_features)
        One row per atom, frames in order.
    species : ndarray (n_environments,) of int
        Atomic number of each centre.
    frame_index : ndarray (n_environments,) of int
        Frame of each centre, from 0.
    labels : ndarray (n_features,), structured
        What each column is.
    n_frames : int
        Number of frames.
    neighbor_species : tuple of int
        Atomic numbers of the expanded fields.
    """

    values: np.ndarray
    species: np.ndarray
    frame_index: np.ndarray
    labels: np.ndarray
    n_frames: int
    neighbor_species: tuple
