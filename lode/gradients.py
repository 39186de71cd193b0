"""Gradients of a scalar: what an adjoint adds to, block by block."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lode.core.registers import aligned_zeros
from lode.parallel import thread_map
from lode.systems import finite_array

# Blocks of centres are added up in so many groups, whatever the number of threads.
GROUPS = 8


class Sums(NamedTuple):
    """Gradients of some scalars s with respect to what one structure is made of.

    Attributes
    ----------
    position_six : ndarray (n_scalars, n_atoms, 3)
    charge_si : ndarray (n_scalars, n_atoms)
        With respect to the weight of each atom in its field.
    strain_sxy : ndarray (n_scalars, 3, 3)
    """

    position_six: np.ndarray
    charge_si: np.ndarray
    strain_sxy: np.ndarray

    @classmethod
    def zeros(cls, n_scalars, n_atoms):
        """Nothing added yet."""
        shapes = (n_atoms, 3), (n_atoms,), (3, 3)
        return cls(*[np.zeros((n_scalars, *shape)) for shape in shapes])


def add_blocks(add, arrays, starts, n_threads):
    """Let blocks of centres add to arrays, so that no bit depends on the threads.

    Blocks are added up in a fixed number of groups, and these in their order.

    Parameters
    ----------
    add : callable
        Called with the first centre of a block and the arrays to add to.
    arrays : sequence of ndarray
        Added to.
    starts : sequence of int
        First centre of each block.
    n_threads : int
    """

    def gather(group):
        # The first group adds to the arrays themselves.
        own = [aligned_zeros(*a.shape) if group[0] else a for a in arrays]
        for first in group.tolist():
            add(first, own)
        return own

    groups = [group for group in np.array_split(starts, GROUPS) if len(group)]
    for own in thread_map(gather, groups, n_threads)[1:]:
        for array, value in zip(arrays, own, strict=True):
            array += value


@dataclass(frozen=True)
class Gradient:
    """Derivatives of one or several scalars with respect to structures.

    Attributes
    ----------
    positions : ndarray (..., n_atoms, 3)
        With respect to the positions, per Å; minus the forces if the scalar is an
        energy.
    strain : ndarray (..., n_frames, 3, 3) or None
        With respect to the strain ε in r → r + ε r of atoms and cell; the volume times
        the stress if the scalar is an energy.
    charges : ndarray (..., n_atoms) or None
        With respect to the initial charges where they are the sources, per e.
    """

    positions: np.ndarray
    strain: np.ndarray | None
    charges: np.ndarray | None

    def __add__(self, other):
        """Gradient of a sum of scalars of the same structures."""
        sums = []
        for a, b in zip(vars(self).values(), vars(other).values(), strict=True):
            sums.append(a if b is None else b if a is None else a + b)
        return Gradient(*sums)


def checked_derivatives(value, shape, name):
    """Derivatives of one scalar, or of several along a leading axis.

    Parameters
    ----------
    value : array_like (..., *shape)
    shape : tuple of int
        Of what the scalars are derived with respect to.
    name : str
        Name in the error.

    Returns
    -------
    ndarray (..., *shape)

    Raises
    ------
    ValueError
        If the shape does not fit or a number is not finite.
    """
    leading = np.shape(value)[: -len(shape)]
    array = finite_array(value, (*leading, *shape), name)
    if len(leading) > 1:
        raise ValueError(
            f"{name} must have at most one leading axis, got {len(leading)}"
        )
    return array
