"""What all models share: one file for each, and one function that reads them."""

from dataclasses import replace

import numpy as np

import lode
from lode.archive import Wanted, checked_arrays, load_archive, save_archive
from lode.serialization import from_dict, to_dict
from lode.systems import atomic_numbers

_KIND, _VERSION = "model", 4
# Before models learnt from forces; what it lacks has defaults.
_UPGRADED = 3
_SPECIES = {"species": Wanted("int", ("species",), low=1)}


class Model:
    """Base of the models: saving and the check that they are fitted."""

    # Of models that have none of these.
    _constants = _transform = None
    _has_columns = False
    # Whether it predicts energies of which forces are derivatives.
    _has_forces = False
    # Boundaries of the frames learnt from, where potentials tell them apart.
    _boundaries = None
    # Numbers of frames with energies, forces and stress, if targets were weighted.
    learnt = None

    @property
    def species_energies(self):
        """Constant of each species in eV, or none."""
        return None if self._constants is None else self._constants.energies

    @property
    def is_fitted(self):
        """Whether the model can predict."""
        return self.solution is not None

    def save(self, path):
        """Write the fitted model to one npz file, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            Name of the file.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        TypeError
            If its baseline is a calculator of ASE, which no file can hold.
        """
        self._check_fitted()
        baseline = getattr(self, "baseline", None)
        if not (baseline is None or isinstance(baseline, lode.PointCharges)):
            raise TypeError(
                "a model can be saved with a baseline of PointCharges, got "
                f"{type(baseline).__name__}: learn the differences to it as targets"
            )
        header, arrays = self._state()
        common = {
            "version": _VERSION,
            "lode": lode.__version__,
            "model": to_dict(self),
            "species": self.species,
            "boundaries": self._boundaries,
            "learnt": self.learnt,
        }
        save_archive(path, _KIND, common | header, arrays)

    def _learn_boundaries(self, descriptors, inputs):
        """Keep which boundaries the frames have, when all else is learnt."""
        self._boundaries = None
        if hasattr(inputs, "systems") and any(map(_sees_charge, descriptors)):
            self._boundaries = sorted({_boundary(system) for system in inputs})

    def _check_boundaries(self, inputs):
        """Refuse frames whose boundaries the model has not learnt from.

        The potential of all atoms of one species is theirs alone in a finite frame, and
        that of a neutral cell in a periodic one.
        """
        if self._boundaries is None or not hasattr(inputs, "systems"):
            return
        for i, system in enumerate(inputs):
            if _boundary(system) not in self._boundaries:
                raise ValueError(
                    "a model with a potential must be given frames with boundaries as "
                    f"it has learnt from, {' or '.join(self._boundaries)}, got a "
                    f"{_boundary(system)} frame (structure {i})"
                )

    def _check_fitted(self):
        if not self.is_fitted:
            raise RuntimeError("the model must be fitted first: call fit")


def _upgrade(arrays):
    """Give the arrays of a file of the version before what they lack."""
    if "solution_modes_n_train" in arrays:
        arrays["solution_modes_n_train"] = arrays["solution_modes_n_train"] * 1.0
    if "species_energies" in arrays:
        n_species = len(arrays["species_energies"])
        n_columns = len(arrays["solution_weights"])
        arrays["species_features"] = np.zeros((n_species, n_columns))
        arrays["species_spread"] = np.zeros((n_species, 0))


def _saved_boundaries(header):
    known = header.get("boundaries")
    if known is None:
        return None
    wanted = {"boundaries": Wanted("text", ("boundary",), order="distinct")}
    return checked_arrays(header, wanted)["boundaries"].tolist()


def _saved_counts(header):
    known = header.get("learnt")
    if known is None:
        return None
    wanted = dict.fromkeys(("energies", "forces", "stress"), Wanted("int", low=0))
    return {k: v.item() for k, v in checked_arrays(known, wanted).items()}


def _boundary(system):
    return "finite" if system.finite else "periodic"


def _sees_charge(descriptor):
    """Whether the field of one species diverges in a cell without a background."""
    # Descriptors of others have no such list.
    expansions = getattr(descriptor, "_expansions", tuple)()
    return any(e.field.neutralized for e in expansions)


def load(path):
    """Model written by its method ``save``.

    Parameters
    ----------
    path : str or path-like
        Name of the file.

    Returns
    -------
    GaussianProcess, SparseGaussianProcess, Committee or EquivariantRegression

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, damaged, of another kind or of a version that cannot
        be read, or what it holds is no complete model.

    Notes
    -----
    Files of version 3 are read, too, but for standard deviations the model is to be
    fitted again. Those before had no checksum and are refused.

    A file that was changed since it was saved is refused. A digest that fits can be
    written with other numbers, though: if these make a model, it is loaded, and
    predicts what they give.
    """
    header, arrays = load_archive(path, _KIND, (_UPGRADED, _VERSION))
    is_old = header["version"] == _UPGRADED
    if is_old:
        _upgrade(arrays)
    try:
        model = from_dict(header.get("model"))
        if not isinstance(model, Model):
            raise ValueError(f"it holds {type(model).__name__}")
        species = checked_arrays(header, _SPECIES)["species"]
        model.species = atomic_numbers(species.tolist())
        model._boundaries = _saved_boundaries(header)
        model.learnt = _saved_counts(header)
        model._set_state(header, arrays)
        if is_old and hasattr(model, "solution"):
            # Such a file does not tell what the noise of new targets is.
            model.solution = replace(model.solution, variance=np.nan)
    except ValueError as error:
        raise ValueError(f"{path} must hold a complete model: {error}") from None
    return model
