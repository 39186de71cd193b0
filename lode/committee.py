"""Committees of models: an uncertainty from how much their members differ."""

from dataclasses import dataclass, field, replace

import numpy as np

from lode.archive import Wanted, checked_arrays, prefixed, without_prefix
from lode.baselines import species_counts
from lode.features import holds_features
from lode.models import Model
from lode.prediction import Prediction
from lode.regression import GaussianProcess, checked_training
from lode.ridge import checked_groups
from lode.sparse import SparseGaussianProcess
from lode.systems import structures, whole_number
from lode.training import SPECIES, checked_derivatives_of

# Members that have not learnt from a frame: so many make a spread to be scaled.
_FEWEST = 4
# How often a part is drawn that determines all constants.
_DRAWS = 100


@dataclass(eq=False)
class Committee(Model):
    """Models of the same settings, each of a random part of the frames.

    What is predicted is the mean of the members, and its standard deviation their
    spread times a factor, for which each frame is compared with the members that have
    not learnt from it. A prediction costs as much as those of all members.

    Parameters
    ----------
    model : GaussianProcess or SparseGaussianProcess
        Settings of the members.
    n_members : int
        At least 2.
    share : float
        Part of the frames, or of the groups of frames, that each member learns from.
    seed : int
        Of the choice of the parts.

    Attributes
    ----------
    members : tuple of GaussianProcess or SparseGaussianProcess
        After :meth:`fit`.
    scale : float
        After :meth:`fit`: standard deviation over spread; 1 where the frames that four
        members have left out do not tell.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    References
    ----------
    F. Musil et al., J. Chem. Theory Comput. 15, 906 (2019).
    """

    model: object
    n_members: int = 8
    share: float = 0.5
    seed: int = 0
    members: tuple = field(default=(), init=False, repr=False)
    scale: float = field(default=1.0, init=False, repr=False)
    species: tuple | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        if not isinstance(self.model, GaussianProcess | SparseGaussianProcess):
            raise TypeError(
                "model must be a GaussianProcess or SparseGaussianProcess, got "
                f"{type(self.model).__name__}"
            )
        whole_number(self.n_members, 2, 1000, "n_members")
        whole_number(self.seed, 0, np.inf, "seed")
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share must be between 0 and 1, got {self.share}")

    @property
    def is_fitted(self):
        """Whether the committee can predict."""
        return bool(self.members)

    @property
    def baseline(self):
        """That of the members."""
        return self.model.baseline

    def fit(
        self,
        frames,
        targets,
        *,
        forces=None,
        stress=None,
        groups=None,
        species=None,
        n_threads=None,
        progress=False,
    ):
        """Learn the targets of the frames.

        Parameters
        ----------
        frames, targets, forces, stress, species, n_threads, progress
            As for the members.
        groups : sequence of n_frames labels, optional
            Frames with the same label are learnt by the same members.

        Returns
        -------
        Committee
            The committee itself.

        Raises
        ------
        TypeError, ValueError
            As the members, or if the frames are features or the parts too small.
        """
        if holds_features(frames):
            raise TypeError(
                f"a committee learns from structures, got {type(frames).__name__}"
            )
        inputs, targets = checked_training(frames, targets)
        known = {"forces": forces, "stress": stress}
        known = {name: value for name, value in known.items() if value is not None}
        if known:
            checked = checked_derivatives_of(inputs, targets, forces, stress)
            known = {name: getattr(checked, name) for name in known}
        species, _ = inputs.channels(species)
        n = inputs.n_frames
        group = checked_groups(groups, n)
        n_groups = int(group.max()) + 1
        n_learnt = round(self.share * n_groups)
        if not 0 < n_learnt < n_groups:
            raise ValueError(
                f"share must leave frames to learn and others of {n_groups} groups of "
                f"frames, got {self.share}"
            )
        options = {"n_threads": n_threads, "progress": progress}
        members, left_out = [], np.zeros((self.n_members, n), dtype=bool)
        draw = np.random.default_rng(self.seed)
        counts = None
        if self.model.intercept == SPECIES:
            counts = species_counts(inputs, species)
        for own in left_out:
            own[:] = self._left_out(draw, counts, group, n_learnt)
            rows = np.flatnonzero(~own)
            some = {name: [value[i] for i in rows] for name, value in known.items()}
            member = replace(self.model)
            some |= {"groups": group[rows], "species": species}
            train = inputs.frames(rows)
            member.fit(train, targets[rows], **some, **options)
            # What one has not learnt, others have.
            member._boundaries = None
            members.append(member)
        values = np.array([m.predict(inputs, **options) for m in members])
        self.members, self.species = tuple(members), species
        self.scale = _scale(values, left_out, targets)
        self._learn_boundaries(self.model.kernel.descriptors, inputs)
        return self

    def _left_out(self, draw, counts, group, n_learnt):
        """Frames that one member does not learn from."""
        rank = np.linalg.matrix_rank
        for _ in range(_DRAWS):
            learnt = draw.permutation(int(group.max()) + 1)[:n_learnt]
            own = ~np.isin(group, learnt)
            # Each member must know the constants of all species.
            if counts is None or rank(counts[~own]) == rank(counts):
                return own
        raise ValueError(
            "each part of the frames must determine the constants of all species, got "
            f"none in {_DRAWS} draws of a share of {self.share}: make it larger"
        )

    def predict(
        self,
        frames,
        *,
        return_std=False,
        forces=False,
        stress=False,
        forces_std=False,
        n_threads=None,
        progress=False,
    ):
        """Predicted targets.

        Parameters
        ----------
        frames, return_std, forces, stress, n_threads, progress
            As for the members.
        forces_std : bool
            Also predict the standard deviations of the components of the forces.

        Returns
        -------
        values : ndarray (n_frames,), or Prediction if more is asked for
        std : ndarray (n_frames,)
            Only with ``return_std``.

        Raises
        ------
        RuntimeError
            If the committee is not fitted.
        TypeError, ValueError
            As the members.
        """
        self._check_fitted()
        options = {"n_threads": n_threads, "progress": progress}
        if holds_features(frames):
            raise TypeError(
                f"a committee predicts for structures, got {type(frames).__name__}"
            )
        frames = structures(frames, combinations=True)
        self._check_boundaries(frames)
        if forces_std and frames.weights is not None:
            raise ValueError(
                "forces_std needs frames of one structure, got combinations"
            )
        if not (forces or stress or forces_std):
            values = np.array([m.predict(frames, **options) for m in self.members])
            mean = values.mean(axis=0)
            return (mean, self._spread(values)) if return_std else mean
        wanted = {"forces": forces or forces_std, "stress": stress}
        found = [m.predict(frames, **wanted, **options) for m in self.members]
        values = np.array([each.energy for each in found])
        std = self._spread(values) if return_std else None
        means = spreads = None
        if wanted["forces"]:
            of_frames = list(zip(*(each.forces for each in found), strict=True))
            means = [_mean(own) for own in of_frames] if forces else None
            if forces_std:
                spreads = [self._spread(np.array(own)) for own in of_frames]
        stresses = np.mean([each.stress for each in found], axis=0) if stress else None
        return Prediction(values.mean(axis=0), means, stresses, std, spreads)

    _has_forces = True

    def _spread(self, values):
        return self.scale * np.std(values, axis=0, ddof=1)

    def _state(self):
        headers, arrays = [], {"scale": np.array(self.scale)}
        for i, member in enumerate(self.members):
            header, own = member._state()
            headers.append(header)
            arrays |= prefixed(own, f"member_{i}_")
        return {"members": headers}, arrays

    def _set_state(self, header, arrays):
        wanted = {"scale": Wanted("float", low=0.0)}
        self.scale = checked_arrays(arrays, wanted)["scale"].item()
        headers, members = header.get("members"), []
        if not isinstance(headers, list) or len(headers) != self.n_members:
            raise ValueError(f"members must be {self.n_members} headers")
        for i, own in enumerate(headers):
            member = replace(self.model)
            member.species = self.species
            member._set_state(own, without_prefix(arrays, f"member_{i}_"))
            members.append(member)
        self.members = tuple(members)


def _mean(forces):
    """Mean of the members' forces, also of combinations."""
    if isinstance(forces[0], tuple):
        return tuple(np.mean(own, axis=0) for own in zip(*forces, strict=True))
    return np.mean(forces, axis=0)


def _scale(values, left_out, targets):
    """Factor from the spread of members to errors, as Musil et al. have it."""
    squares = []
    for predicted, mask, target in zip(values.T, left_out.T, targets, strict=True):
        n = mask.sum()
        if n >= _FEWEST:
            mean, variance = predicted[mask].mean(), predicted[mask].var(ddof=1)
            if variance > 0.0:
                ratio = (mean - target) ** 2 / variance
                squares.append((n - 3) / (n - 1) * ratio - 1 / n)
    # Of few frames the estimate may be negative: it says nothing then.
    mean = np.mean(squares) if squares else 0.0
    return float(np.sqrt(mean)) if mean > 0.0 else 1.0
