"""Cutoff functions and radial scaling of densities."""

import math
from dataclasses import dataclass

# Tables of the pair functions grow with lengths (Å).
_LARGEST_LENGTH = 1000.0
# Above the rounding of coordinates in files, far below any two distances (Å).
_TIE = 1e-6


@dataclass(frozen=True)
class StepCutoff:
    """Every neighbour up to the radius counts fully, as in the paper.

    In a crystal many neighbours may lie at the radius itself, and rounding would decide
    which of them count: all do that are at most 10⁻⁶ Å beyond it.

    Parameters
    ----------
    radius : float
        In Å, positive and at most 1000.
    """

    radius: float

    # No part of it is smooth: not a field of the dataclass.
    width = 0.0

    def __post_init__(self):
        check_length(self, "radius")

    @property
    def limit(self):
        """Largest distance of a neighbour that counts, in Å."""
        return self.radius + _TIE


@dataclass(frozen=True)
class ShiftedCosineCutoff:
    r"""Smooth cutoff that falls as a cosine over the last ``width``.

    .. math:: f_c(r) = \tfrac12\left[1 + \cos\pi\frac{r - r_c + w}{w}\right]

    Parameters
    ----------
    radius : float
        Where it reaches zero, in Å.
    width : float
        Of the smooth part, in Å; at most the radius.
    """

    radius: float
    width: float = 0.5

    def __post_init__(self):
        check_length(self, "radius")
        check_length(self, "width")
        if self.width > self.radius:
            raise ValueError(
                f"width must be at most the radius {self.radius}, got {self.width}"
            )

    @property
    def limit(self):
        """Largest distance of a neighbour that counts, in Å."""
        return self.radius


@dataclass(frozen=True)
class RadialScaling:
    r"""Weight of a neighbour in the density that falls with its distance.

    .. math:: u(r) = \frac{c}{c + (r/r_0)^m}

    Parameters
    ----------
    scale : float
        :math:`r_0` in Å.
    exponent : float
        m, positive.
    rate : float
        c, positive.

    Raises
    ------
    ValueError
        If an argument is not positive.

    References
    ----------
    M. J. Willatt, F. Musil and M. Ceriotti, Phys. Chem. Chem. Phys. 20, 29661 (2018).
    """

    scale: float
    exponent: float
    rate: float = 1.0

    def __post_init__(self):
        check_length(self, "scale")
        for name in ("exponent", "rate"):
            value = float(getattr(self, name))
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, got {value}")
            object.__setattr__(self, name, value)

    def weight(self, distance):
        """The weight u at distances in Å."""
        return self.rate / (self.rate + (distance / self.scale) ** self.exponent)


def check_length(instance, name):
    """Replace an attribute by a float; an error if it is not a positive length."""
    value = float(getattr(instance, name))
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive length in Å, got {value}")
    if value > _LARGEST_LENGTH:
        raise ValueError(f"{name} must be at most {_LARGEST_LENGTH:g} Å, got {value}")
    object.__setattr__(instance, name, value)
