"""A salt of point charges with a soft repulsion: an exact potential to learn from."""

import numpy as np
import vesin
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from lode.electrostatics import ewald
from lode.systems import positive_number, structures

# Where the repulsion is less than a millionth of an eV; it ends there.
_REACH = 7.0


class IonicSalt(Calculator):
    r"""Energy of ions: Coulomb's, and Born and Mayer's repulsion of all pairs.

    .. math::

        E = \frac{1}{2}\sum_{i \neq j} \left[
            \frac{q_i q_j}{r_{ij}} + A\, e^{-r_{ij}/\rho} \right]

    The charges are the initial charges of the atoms. Periodic in three directions; the
    sum of the charges is Ewald's, the repulsion is shifted to zero at 7 Å.

    Parameters
    ----------
    amplitude : float
        A in eV.
    range : float
        ρ in Å.
    tolerance : float
        Of the Ewald sum.
    **options
        Of ``ase.calculators.calculator.Calculator``.

    Raises
    ------
    ValueError
        If a number is not positive.

    Notes
    -----
    The default values are those of C. Kittel, Introduction to Solid State Physics,
    for NaCl, whose repulsion is one of neighbours alone: of all pairs, the lattice
    constant is larger by some percent.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from lode.datasets.salt import IonicSalt
    >>> salt = bulk("NaCl", "rocksalt", a=5.64)
    >>> salt.set_initial_charges([1.0, -1.0])
    >>> salt.calc = IonicSalt()
    >>> round(salt.get_potential_energy(), 2)
    -7.81
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, amplitude=1092.0, range=0.321, tolerance=1e-10, **options):
        self.amplitude = positive_number(amplitude, "amplitude")
        self.range = positive_number(range, "range")
        self.tolerance = positive_number(tolerance, "tolerance")
        super().__init__(**options)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Fill ``results``; as ASE has it.

        Raises
        ------
        ValueError
            If the structure is not periodic in three directions or has no charges.
        """
        super().calculate(atoms, properties, system_changes)
        checked = structures(self.atoms)[0]
        if not checked.periodic or checked.charges is None:
            raise ValueError(
                "a salt must be periodic in three directions and have initial charges, "
                f"got pbc = {list(checked.pbc)} and charges {checked.charges}"
            )
        place = checked.positions, checked.cell
        coulomb = ewald(*place, checked.charges, tolerance=self.tolerance)
        neighbors = vesin.NeighborList(cutoff=_REACH, full_list=True, n_threads=1)
        first, distance, vector = neighbors.compute(*place, True, "idD", copy=False)
        value = self.amplitude * np.exp(-distance / self.range)
        at_reach = self.amplitude * np.exp(-_REACH / self.range)
        energy = coulomb.energy + 0.5 * float(np.sum(value - at_reach))
        push = -(value / (self.range * distance))[:, None] * vector
        forces = coulomb.forces.copy()
        # Of unsigned numbers some versions of NumPy count no bins.
        atom = first.view(np.int64)
        for axis in (0, 1, 2):
            forces[:, axis] += np.bincount(atom, push[:, axis], len(checked))
        stress = coulomb.stress + 0.5 * push.T @ vector / checked.volume
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        self.results["stress"] = full_3x3_to_voigt_6_stress(stress)
