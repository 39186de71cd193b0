"""Long-distance equivariant descriptors and kernel models.

Public names are loaded on first use, so that ``import lode`` costs nothing.
"""

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
    "StepCutoff": "cutoffs",
    "ShiftedCosineCutoff": "cutoffs",
    "RadialScaling": "cutoffs",
    "Features": "invariants",
    "EquivariantFeatures": "invariants",
    "RadialSpectrum": "invariants",
    "PowerSpectrum": "invariants",
    "EquivariantPowerSpectrum": "invariants",
    "PolynomialKernel": "kernels",
    "WhitenedKernel": "kernels",
    "SumKernel": "kernels",
    "ProductKernel": "kernels",
    "ScaledKernel": "kernels",
    "StructureKernel": "kernels",
    "Representation": "kernels",
    "formal_charges": "charges",
    "Combination": "combinations",
    "interactions": "combinations",
    "GaussianProcess": "regression",
    "SparseGaussianProcess": "regression",
    "fit_kernel": "regression",
    "fit_features": "regression",
    "load": "regression",
    "EquivariantRegression": "equivariants",
    "learning_curve": "learning",
    "LearningCurve": "learning",
    "ewald": "ewald",
}

__all__ = [*_MODULE_OF, "__version__"]


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'lode' has no attribute {name!r}")
    value = getattr(import_module(f"lode.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
