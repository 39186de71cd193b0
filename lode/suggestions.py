"""Descriptors and kernels with settings that suit a set of structures.

Lengths come from the structures: the neighbours of an atom are counted up to a cutoff
that holds some twenty of them, and a density is as sharp as atoms are close. Potentials
have the smearing and the sphere of the paper. Nothing looks at targets.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import vesin
from ase.data import chemical_symbols

from lode.bases import RadialBasis
from lode.cutoffs import ShiftedCosineCutoff
from lode.expansion import SphericalExpansion
from lode.fields import GaussianDensity, PowerLawPotential
from lode.invariants import EquivariantPowerSpectrum, PowerSpectrum, RadialSpectrum
from lode.kernels import PolynomialKernel, WhitenedKernel
from lode.systems import structures

# Structures that are looked at, evenly over the set.
_SAMPLE = 20
# Neighbours that the cutoff holds on average, and its range and step in Å.
_NEIGHBORS = 20
_CUTOFFS = np.arange(3.0, 6.01, 0.5)
# Smearing and sphere of the potential, in Å.
_POTENTIAL, _SPHERE = 1.0, 3.0
# More species than this take fewer radial functions.
_FEW_SPECIES = 5
# Of descriptors with a potential: the signal sits in directions of small variance.
_EXPONENT = 0.2
_TENSOR_EXPONENTS = {"soap": 0.2, "lode2": 0.4, "multiscale": 0.4}
_SUMS = {
    "soap_lode1": ("soap", "lode1"),
    "soap_lode2": ("soap", "lode2"),
    "soap_multiscale": ("soap", "multiscale"),
}
LABELS = {
    "soap": "SOAP",
    "lode1": "LODE(1)",
    "lode2": "LODE(2)",
    "multiscale": "ρ⊗V",
    "soap_lode1": "SOAP+LODE(1)",
    "soap_lode2": "SOAP+LODE(2)",
    "soap_multiscale": "SOAP+ρ⊗V",
}


@dataclass(frozen=True)
class Suggestions:
    """Settings that suit structures; made by :func:`suggestions`.

    Attributes
    ----------
    species : tuple of int
        Atomic numbers that occur.
    distance : float
        Median distance of an atom's nearest neighbour, in Å.
    cutoff : float
        Radius of the SOAP environments, in Å.
    smearing : float
        Of their density, in Å.
    near : float
        Cutoff of the density that is multiplied with the potential, in Å.
    potentials : bool
        Whether potentials are known for all structures: not for slabs and wires.
    """

    species: tuple
    distance: float
    cutoff: float
    smearing: float
    near: float
    potentials: bool

    @cached_property
    def _rho(self):
        n, angular = (6, 4) if len(self.species) <= _FEW_SPECIES else (4, 3)
        return _density(self.smearing, n, self.cutoff, angular)

    @cached_property
    def _tensor_rho(self):
        # Equivariants have many times the features of invariants.
        n, angular = (4, 3) if len(self.species) <= _FEW_SPECIES else (3, 2)
        return _density(self.smearing, n, self.cutoff, angular)

    @cached_property
    def _near(self):
        n, angular = (4, 3) if len(self.species) <= _FEW_SPECIES else (3, 2)
        return _density(max(self.smearing, 0.5), n, self.near, angular)

    @cached_property
    def _potential(self):
        n, angular = (3, 3) if len(self.species) <= _FEW_SPECIES else (2, 2)
        field = PowerLawPotential(1, _POTENTIAL)
        return SphericalExpansion(field, RadialBasis.monomial(n, _SPHERE), angular)

    def kernels(self, frames):
        """Kernels of scalars that grow with the structure, such as energies.

        Parameters
        ----------
        frames : sequence of ase.Atoms
            Some of them give the terms of a sum a mean square of one for each atom.

        Returns
        -------
        dict of str to Kernel
            ``soap``, ``lode1``, ``lode2``, ``multiscale`` (density times potential) and
            the sums ``soap_lode1``, ``soap_lode2``, ``soap_multiscale``; without
            potentials ``soap`` alone.
        """
        found = {"soap": PolynomialKernel(PowerSpectrum(self._rho), 2, normalize=True)}
        if not self.potentials:
            return found
        V, near = self._potential, self._near
        found["lode1"] = PolynomialKernel(RadialSpectrum(V))
        found["lode2"] = WhitenedKernel(PowerSpectrum(V), exponent=_EXPONENT)
        found["multiscale"] = WhitenedKernel(PowerSpectrum(near, V), exponent=_EXPONENT)
        some = _sample(frames)
        scaled = {name: _scaled(kernel, some) for name, kernel in found.items()}
        sums = {name: scaled[a] + scaled[b] for name, (a, b) in _SUMS.items()}
        return found | sums

    def equivariants(self, angular):
        """Descriptors of tensors with the whitening that suits each.

        Parameters
        ----------
        angular : int
            λ: 1 for vectors, 2 for the anisotropic part of a tensor.

        Returns
        -------
        dict of str to (list of EquivariantPowerSpectrum, list of float)
            For each name the descriptors and exponents of a
            :class:`lode.EquivariantRegression`: ``soap``, ``lode2``, ``multiscale`` and
            sums of the first with the others; without potentials ``soap`` alone.
        """
        fields = {"soap": (self._tensor_rho,)}
        if self.potentials:
            V = self._potential
            fields |= {"lode2": (V,), "multiscale": (self._near, V)}
        alone = {
            name: EquivariantPowerSpectrum(*own, angular=angular)
            for name, own in fields.items()
        }
        members = {name: (name,) for name in alone}
        members |= {
            name: pair for name, pair in _SUMS.items() if set(pair) <= set(alone)
        }
        return {
            name: ([alone[m] for m in own], [_TENSOR_EXPONENTS[m] for m in own])
            for name, own in members.items()
        }

    def text(self):
        """What was chosen, in one sentence."""
        symbols = ", ".join(chemical_symbols[z] for z in self.species)
        text = (
            f"{symbols}: nearest neighbours at {self.distance:.2f} Å, SOAP within "
            f"{self.cutoff:g} Å with a smearing of {self.smearing:g} Å"
        )
        if not self.potentials:
            return f"{text}; densities only, as no potential of a slab or wire is known"
        return (
            f"{text}, potentials of {_POTENTIAL:g} Å in spheres of {_SPHERE:g} Å, "
            f"alone and with densities within {self.near:g} Å"
        )


def suggestions(frames):
    """Settings that suit structures.

    Parameters
    ----------
    frames : iterable of ase.Atoms
        Molecules, crystals, slabs or a mixture of them.

    Returns
    -------
    Suggestions

    Raises
    ------
    TypeError, ValueError
        As :func:`lode.systems.structures`.

    Examples
    --------
    >>> from ase.build import bulk
    >>> found = suggestions([bulk("NaCl", "rocksalt", a=5.64)])
    >>> found.cutoff, found.smearing, found.near
    (5.0, 0.6, 4.0)
    """
    frames = list(frames)
    checked = structures(frames)
    reach = float(_CUTOFFS[-1])
    nearest, n_within, n_atoms = [], np.zeros(len(_CUTOFFS)), 0
    for atoms in _sample(frames):
        i, d = vesin.ase_neighbor_list("id", atoms, reach)
        closest = np.full(len(atoms), np.inf)
        np.minimum.at(closest, i, d)
        nearest.append(closest[np.isfinite(closest)])
        n_within += [np.count_nonzero(d <= cutoff) for cutoff in _CUTOFFS]
        n_atoms += len(atoms)
    nearest = np.concatenate(nearest)
    distance = float(np.median(nearest)) if len(nearest) else reach
    enough = np.flatnonzero(n_within >= _NEIGHBORS * n_atoms)
    # Molecules may never have so many: all within 5 Å are theirs.
    cutoff = float(_CUTOFFS[enough[0]]) if len(enough) else 5.0
    return Suggestions(
        species=tuple(np.unique(checked.species).tolist()),
        distance=distance,
        cutoff=cutoff,
        smearing=_stepped(0.25 * distance, 0.05, 0.25, 0.6),
        near=_stepped(1.5 * distance, 0.5, 3.0, cutoff),
        potentials=all(system.finite or system.periodic for system in checked),
    )


def _sample(frames):
    places = np.linspace(0, len(frames) - 1, min(_SAMPLE, len(frames)))
    return [frames[i] for i in np.unique(places.astype(int))]


def _stepped(value, step, low, high):
    """The value in whole steps, within bounds."""
    return round(float(np.clip(step * round(value / step), low, high)), 2)


def _density(smearing, max_radial, cutoff, max_angular):
    return SphericalExpansion(
        GaussianDensity(smearing),
        RadialBasis.gto(max_radial, cutoff),
        max_angular,
        cutoff_function=ShiftedCosineCutoff(cutoff, 0.5),
    )


def _scaled(kernel, frames):
    """The kernel with a mean square of one for each pair of atoms of a structure."""
    described = kernel.precompute(frames)
    fitted = kernel.fitted(described)
    n_atoms = np.array([len(atoms) for atoms in frames])
    mean = float(np.mean(fitted.diagonal(described) / n_atoms**2))
    return (1.0 / mean) * kernel if mean > 0.0 else kernel
