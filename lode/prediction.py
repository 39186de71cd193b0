"""Predicted energies with forces and stress: from a model back to atoms and cells."""

from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np

from lode.baselines import baseline_results, species_counts
from lode.features import species_groups
from lode.parallel import single_threaded_blas, thread_count, thread_map
from lode.systems import check_volume, structures

# Atoms whose features and derivatives exist at a time in each thread.
_CHUNK_ATOMS = 512
# Scalars that one sweep derives, see the page on theory, and memory of their gradients.
_SCALARS = 16
_GRADIENT_BYTES = 2**27
# Components xx, yy, zz, yz, xz, xy.
VOIGT = (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)


@dataclass(frozen=True)
class Prediction:
    """What a model predicts of some frames.

    Attributes
    ----------
    energy : ndarray (n_frames,)
        In the units of the targets, for energies eV.
    forces : list of ndarray (n_atoms, 3), or None
        Of each frame, per Å, if they were asked for. Of a linear combination, a tuple
        of those on the atoms of each of its structures.
    stress : ndarray (n_frames, 3, 3) or None
        Derivative with respect to strain over the volume, per Å³, positive if the
        frame pulls itself together; if it was asked for.
    std : ndarray (n_frames,) or None
        Standard deviation of the energy, if it was asked for.
    forces_std : list of ndarray (n_atoms, 3), or None
        Standard deviations of the components of the forces, if they were asked for.
    """

    energy: np.ndarray
    forces: list | None = None
    stress: np.ndarray | None = None
    std: np.ndarray | None = None
    forces_std: list | None = None


def predicted(
    model,
    frames,
    *,
    forces=False,
    stress=False,
    return_std=False,
    forces_std=False,
    n_threads=None,
    progress=False,
):
    """Energies of frames, and what their derivatives are.

    Parameters
    ----------
    model : GaussianProcess or SparseGaussianProcess
        Fitted.
    frames : iterable of ase.Atoms or of LinearCombination
    forces, stress, return_std, forces_std : bool
        What is wanted besides the energies.
    n_threads : int, optional
    progress : bool
        Show a progress bar.

    Returns
    -------
    Prediction

    Raises
    ------
    TypeError
        If a descriptor of the model has no derivatives, or the standard deviation of
        forces is asked for and the kernel matrix is all that the model has.
    ValueError
        If a frame has a species that the model does not know, or no volume for the
        stress.
    """
    inputs = structures(frames, combinations=True)
    inputs.channels(model.species)
    model._check_boundaries(inputs)
    if stress:
        _check_volumes(inputs)
    for descriptor in model.fitted_kernel.descriptors:
        if not hasattr(descriptor, "features_and_vjp"):
            raise TypeError(
                "forces need descriptors with a method features_and_vjp, got "
                f"{type(descriptor).__name__}"
            )
    spread = None
    if forces_std:
        if inputs.weights is not None:
            raise ValueError(
                "forces_std needs frames of one structure, got combinations"
            )
        if not model._has_columns:
            raise TypeError(
                "forces_std needs a SparseGaussianProcess or a linear kernel, got "
                f"{type(model).__name__} of {type(model.kernel).__name__}"
            )
        with single_threaded_blas():
            spread = _forces_std(model, inputs, n_threads)
    chunks = []
    for members in species_groups(inputs):
        part = inputs.chosen(members)
        chunks += [members[list(places)] for places in part.ranges(_CHUNK_ATOMS)]
    threads = thread_count(n_threads)
    # Many chunks beside each other, or all threads for one after the other.
    at_once, inside = (threads, 1) if len(chunks) >= threads else (1, threads)
    title = "forces" if progress else None

    def derived(members):
        return _derived(model, inputs.chosen(members), stress, inside)

    with single_threaded_blas():
        found = thread_map(derived, chunks, at_once, title, "chunk")
    order = np.argsort(np.concatenate(chunks))
    # One after the other of all chunks, in the order of the structures.
    rows, gradients, strains = (
        [each for part in parts for each in part] for parts in zip(*found, strict=True)
    )
    rows = np.array(rows)[order]
    energy = model.solution.predict(
        rows if inputs.weights is None else inputs.weights @ rows
    )
    std = None
    if return_std:
        settings = {"n_threads": n_threads, "progress": progress}
        _, std = model.predict(inputs, return_std=True, **settings)
    forces_of, stresses = [-gradients[i] for i in order], None
    if stress:
        volumes = np.array([system.volume for system in inputs])
        stresses = np.array(strains)[order] / volumes[:, None, None]
    if model.baseline is not None:
        known = baseline_results(model.baseline, inputs, stress, n_threads)
        energies = np.array([each for each, *_ in known])
        energy = energy + (
            energies if inputs.weights is None else inputs.weights @ energies
        )
        forces_of = [a + b for a, (_, b, _) in zip(forces_of, known, strict=True)]
        if stress:
            stresses = stresses + np.array([each for *_, each in known])
    if model.species_energies is not None:
        energy = energy + species_counts(inputs, model.species) @ model.species_energies
    if inputs.weights is not None:
        forces_of = _of_combinations(forces_of, inputs.weights)
    return Prediction(energy, forces_of if forces else None, stresses, std, spread)


def energies_of_atoms(model):
    """Function for the energies of a structure's atoms, of models that add them up.

    Parameters
    ----------
    model : GaussianProcess, SparseGaussianProcess or Committee
        Fitted.

    Returns
    -------
    callable or None
        Called with an ``ase.Atoms`` and the number of threads; gives ndarray
        (n_atoms,), whose sum is the energy. What belongs to no atom, the intercept, all
        share alike.
    """
    # A committee has many.
    kernel = getattr(model, "fitted_kernel", None)
    if kernel is None or not kernel.is_additive or kernel._averages() != {False}:
        return None

    def energies(atoms, n_threads=None):
        inputs = structures([atoms])
        each = kernel.precompute(
            inputs,
            species=model.species,
            n_threads=n_threads,
            environments=True,
            atoms=np.ones(len(atoms), dtype=bool),
        )
        energy = float(model.predict(inputs, n_threads=n_threads)[0])
        own = model._rows(each) @ model.solution.slope
        if model.species_energies is not None:
            own += model.species_energies[inputs.channels(model.species)[1]]
        return own + (energy - own.sum()) / len(own)

    return energies


def _check_volumes(inputs):
    """Refuse the stress of what has no volume."""
    if inputs.weights is not None:
        raise ValueError("stress needs frames of one structure, got combinations")
    for frame, checked in enumerate(inputs):
        check_volume(checked, f" (frame {frame})")


def _derived(model, part, strained, n_threads):
    """Rows, gradients and strains of structures that are made of the same species."""
    described = Described(model.fitted_kernel, part, model.species, n_threads)
    rows = model._rows(described.features)
    gradient = described.gradient([model._gradients(described.features)], strained)
    positions = np.split(gradient.positions[0], np.cumsum(part.sizes)[:-1])
    strain = gradient.strain[0] if strained else len(part) * [None]
    return rows, positions, strain


class Described:
    """Structures of the same species: features of environments, and the way back.

    Parameters
    ----------
    kernel : Kernel
        Fitted.
    part : Structures
    species : tuple of int
        Neighbour species of the model.
    n_threads : int

    Attributes
    ----------
    features : StructureFeatures
        With the features of all environments.
    """

    def __init__(self, kernel, part, species, n_threads):
        present = set(part.species.tolist())
        species, known = tuple(z for z in species if z in present), species
        options = {"species": species, "n_threads": n_threads}
        self.descriptors = kernel.descriptors
        pairs = [d.features_and_vjp(part, **options) for d in self.descriptors]
        self.given, self.sweeps = zip(*pairs, strict=True)
        features = kernel.precompute(list(self.given), environments=True)
        self.features = replace(features, neighbor_species=known)
        self.requests = kernel._requests(True)
        self.directions = {
            place: _directions(x.values)
            for place, x in enumerate(self.given)
            if any(
                request.normalize and request.descriptor == self.descriptors[place]
                for request in self.requests.values()
            )
        }
        self.atoms = [np.flatnonzero(part.species == b.center) for b in features.blocks]

    def gradient(self, found, strained):
        """Gradient of scalars, from those with respect to features.

        Parameters
        ----------
        found : list of list of dict
            For each scalar what :meth:`Kernel.vjp` gives.
        strained : bool
            Whether the strain is wanted.

        Returns
        -------
        Gradient
            With a leading axis of the scalars.
        """
        dE_dX = [np.zeros((len(found), *x.values.shape)) for x in self.given]
        for key, request in self.requests.items():
            place = self.descriptors.index(request.descriptor)
            own = dE_dX[place]
            if request.normalize:
                own = np.zeros_like(own)
            for scalar, of_blocks in enumerate(found):
                for atoms, gradients in zip(self.atoms, of_blocks, strict=True):
                    own[scalar, atoms] += gradients[key]
            if request.normalize:
                dE_dX[place] += _of_vectors(own, *self.directions[place])
        sweeps = zip(self.sweeps, dE_dX, strict=True)
        return reduce(add, [vjp(gradient, strain=strained) for vjp, gradient in sweeps])


def slopes(model, part, columns, strained):
    """Derivatives of the features of one structure, of positions and of six strains.

    Parameters
    ----------
    model : GaussianProcess or SparseGaussianProcess
    part : Structures
        The structure.
    columns : list of callable
        Gradient of each column before the transform, see ``_column_gradients``.
    strained : bool
        Whether the strain is wanted.

    Returns
    -------
    ndarray (3 n_atoms, n_columns)
    ndarray (6, n_columns) or None
    """
    described = Described(model.fitted_kernel, part, model.species, 1)
    positions, strains = [], []
    size = max(x.values.nbytes for x in described.given)
    step = max(1, min(_SCALARS, _GRADIENT_BYTES // size))
    for start in range(0, len(columns), step):
        some = columns[start : start + step]
        found = [column(described.features) for column in some]
        gradient = described.gradient(found, strained)
        positions.append(gradient.positions.reshape(len(some), -1))
        if strained:
            strain = gradient.strain[:, 0]
            strain = (strain + strain.transpose(0, 2, 1)) / 2
            strains.append(strain[:, *VOIGT])
    transform = model._transform

    def of_columns(parts):
        joined = np.concatenate(parts).T
        return joined if transform is None else joined @ transform

    return of_columns(positions), of_columns(strains) if strained else None


def _forces_std(model, inputs, n_threads):
    """Standard deviation of the forces of each structure."""
    columns = model._column_gradients()
    # Forces that no model has learnt from have no noise of their own.
    has_forces = model.learnt is not None and model.learnt["forces"] > 0
    noise = model.force_noise**2 if has_forces else 0.0

    def of(i):
        rows, _ = slopes(model, inputs.chosen([i]), columns, False)
        return model.solution.slope_std(rows, noise).reshape(-1, 3)

    return thread_map(of, range(len(inputs)), thread_count(n_threads))


def _directions(values):
    """Vectors of unit length, and the lengths that they had; of zeros, one."""
    length = np.linalg.norm(values, axis=1)[:, None]
    length[length == 0.0] = 1.0
    return values / length, length


def _of_vectors(gradient_sip, unit_ip, length_i):
    """Gradient with respect to vectors, from that with respect to their directions."""
    along = np.einsum("sip,ip->si", gradient_sip, unit_ip)[:, :, None]
    gradient_sip -= along * unit_ip
    gradient_sip /= length_i
    return gradient_sip


def _of_combinations(forces, weights):
    """Forces of combinations, on the atoms of each of their structures."""
    frames = []
    for start, stop in pairwise(weights.indptr.tolist()):
        terms = zip(weights.indices[start:stop], weights.data[start:stop], strict=True)
        frames.append(tuple(weight * forces[i] for i, weight in terms))
    return frames
