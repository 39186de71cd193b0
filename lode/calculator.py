"""Models as calculators of ASE."""

import warnings

import numpy as np
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.stress import full_3x3_to_voigt_6_stress

from lode.models import Model, load
from lode.prediction import energies_of_atoms
from lode.serialization import to_dict


class LODECalculator(Calculator):
    """Energies, forces and stress of a model that learnt energies in eV.

    Energy and forces come from one sweep; with the first stress that is asked for, all
    that follow have it too. Pairs are found anew for each structure: there is no list
    that wrapped atoms or a changed cell could make wrong.

    Parameters
    ----------
    model : GaussianProcess, SparseGaussianProcess, Committee or path-like
        Fitted, or the file of one.
    largest_uncertainty : float, optional
        Standard deviation of the energy in eV above which a warning is given; it takes
        a prediction more for each structure.
    n_threads : int, optional
    **options
        Of ``ase.calculators.calculator.Calculator``.

    Raises
    ------
    TypeError
        If the model is of another kind.
    RuntimeError
        If it is not fitted.

    Warns
    -----
    UserWarning
        If the uncertainty of an energy is above the largest.

    Notes
    -----
    ``energies`` are those of the atoms, of models that are sums over atoms;
    ``uncertainty`` is the standard deviation of the energy.

    Examples
    --------
    >>> from ase.build import molecule
    >>> import lode
    >>> rho = lode.SphericalExpansion(
    ...     lode.GaussianDensity(0.5), lode.RadialBasis.gto(3, 3.0), max_angular=2
    ... )
    >>> kernel = lode.PolynomialKernel(lode.PowerSpectrum(rho))
    >>> water = molecule("H2O")
    >>> frames = [water.copy() for _ in range(4)]
    >>> for seed, frame in enumerate(frames):
    ...     frame.rattle(0.1, seed=seed)
    >>> model = lode.GaussianProcess(kernel, regularization=1e-6)
    >>> water.calc = lode.LODECalculator(model.fit(frames, [0.0, 0.1, 0.2, 0.1]))
    >>> water.get_forces().shape
    (3, 3)
    """

    def __init__(self, model, *, largest_uncertainty=None, n_threads=None, **options):
        if not isinstance(model, Model):
            model = load(model)
        if not model._has_forces:
            raise TypeError(
                "model must be a GaussianProcess, SparseGaussianProcess or Committee, "
                f"got {type(model).__name__}"
            )
        model._check_fitted()
        self.model, self.n_threads = model, n_threads
        self.largest_uncertainty = largest_uncertainty
        self.implemented_properties = ["energy", "free_energy", "forces", "stress"]
        self.implemented_properties.append("uncertainty")
        if energies_of_atoms(model) is not None:
            self.implemented_properties.append("energies")
        self._has_stress = False
        super().__init__(**options)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Fill ``results``; as ASE has it.

        Raises
        ------
        ValueError
            If the structure is not valid or has a species that the model does not know.
        PropertyNotImplementedError
            If a stress is asked for without three periods.
        """
        super().calculate(atoms, properties, system_changes)
        periodic = bool(self.atoms.pbc.all())
        if "stress" in properties and not periodic:
            raise PropertyNotImplementedError(
                f"a stress needs three periods, got pbc = {self.atoms.pbc.tolist()}"
            )
        self._has_stress |= "stress" in properties
        wants_std = "uncertainty" in properties or self.largest_uncertainty is not None
        found = self.model.predict(
            [self.atoms],
            forces=True,
            stress=self._has_stress and periodic,
            return_std=wants_std,
            n_threads=self.n_threads,
        )
        energy = float(found.energy[0])
        self.results = {"energy": energy, "free_energy": energy}
        self.results["forces"] = found.forces[0]
        if found.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(found.stress[0])
        if "energies" in properties:
            of_atoms = energies_of_atoms(self.model)
            self.results["energies"] = of_atoms(self.atoms, self.n_threads)
        if wants_std:
            self._add_uncertainty(float(found.std[0]))

    def _add_uncertainty(self, std):
        self.results["uncertainty"] = std
        largest = self.largest_uncertainty
        if largest is not None and std > largest:
            warnings.warn(
                f"the energy is uncertain by {std:.3g} eV, more than the "
                f"{largest:.3g} eV that were set: the model has learnt from no such "
                "structure",
                stacklevel=4,
            )

    def check_state(self, atoms, tol=1e-15):
        """What has changed; also the charge in ``atoms.info``."""
        changes = super().check_state(atoms, tol)
        known = None if self.atoms is None else self.atoms.info.get("charge")
        if not np.array_equal(known, atoms.info.get("charge")):
            changes.append("charge")
        return changes

    def todict(self, skip_default=True):
        """Settings of the model, which ASE writes to trajectories."""
        return {"model": to_dict(self.model)} | super().todict(skip_default)
