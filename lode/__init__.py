"""Long-distance equivariant descriptors and kernel models.

Public names are loaded on first use, so that ``import lode`` costs nothing.
"""

import warnings
from importlib import import_module

__version__ = "0.1.0"

_MODULE_OF = {
    "GaussianDensity": "fields",
    "PowerLawPotential": "fields",
    "YukawaPotential": "fields",
    "RadialBasis": "bases",
    "ContractedBasis": "bases",
    "SphericalExpansion": "expansion",
    "Coefficients": "expansion",
    "Gradient": "gradients",
    "Prediction": "prediction",
    "LODECalculator": "calculator",
    "PointCharges": "baselines",
    "StepCutoff": "cutoffs",
    "ShiftedCosineCutoff": "cutoffs",
    "RadialScaling": "cutoffs",
    "Features": "invariants",
    "EquivariantFeatures": "invariants",
    "RadialSpectrum": "invariants",
    "PowerSpectrum": "invariants",
    "EquivariantPowerSpectrum": "invariants",
    "spherical_vector": "coupling",
    "cartesian_vector": "coupling",
    "spherical_tensor": "coupling",
    "cartesian_tensor": "coupling",
    "PolynomialKernel": "kernels",
    "WhitenedKernel": "kernels",
    "SumKernel": "kernels",
    "ProductKernel": "kernels",
    "ScaledKernel": "kernels",
    "StructureKernel": "kernels",
    "StructureFeatures": "features",
    "formal_charges": "charges",
    "LinearCombination": "combinations",
    "interactions": "combinations",
    "GaussianProcess": "regression",
    "SparseGaussianProcess": "sparse",
    "Committee": "committee",
    "fit_kernel": "ridge",
    "fit_features": "ridge",
    "load": "models",
    "EquivariantRegression": "equivariants",
    "learning_curve": "learning",
    "LearningCurve": "learning",
    "ewald": "electrostatics",
    "ewald_energies": "electrostatics",
}

__all__ = [*_MODULE_OF, "__version__"]

# Names of earlier versions, for one version.
_NEW_NAMES = {"Combination": "LinearCombination", "Representation": "StructureFeatures"}


def __getattr__(name):
    if name in _NEW_NAMES:
        message = f"lode.{name} is now called lode.{_NEW_NAMES[name]}"
        warnings.warn(message, FutureWarning, stacklevel=2)
        name = _NEW_NAMES[name]
    if name in _MODULE_OF.values():
        return import_module(f"lode.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'lode' has no attribute {name!r}")
    value = getattr(import_module(f"lode.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
