"""A salt of ions with a soft repulsion: the exact potential of the examples."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from lode.datasets.salt import IonicSalt

# Madelung's constant of rock salt, and e²/(4πε₀) in eV Å.
_MADELUNG, _COULOMB = 1.747564594633, 14.399645


def _rock_salt(constant=5.64, repeats=(1, 1, 1)):
    salt = bulk("NaCl", "rocksalt", a=constant, cubic=True) * repeats
    salt.set_initial_charges(np.where(salt.numbers == 11, 1.0, -1.0))
    return salt


def test_energy_of_rock_salt_is_madelungs_and_the_repulsion_of_shells():
    constant, salt = 5.64, _rock_salt()
    salt.calc = IonicSalt()
    places = np.array(np.meshgrid(*3 * [np.arange(-6, 7)])).reshape(3, -1)
    distance = 0.5 * constant * np.linalg.norm(places, axis=0)
    distance = distance[(distance > 0.0) & (distance < 7.0)]
    push = 1092.0 * (np.exp(-distance / 0.321) - np.exp(-7.0 / 0.321))
    expected = 4 * (push.sum() - 2 * _MADELUNG * _COULOMB / constant)
    assert salt.get_potential_energy() == pytest.approx(expected, rel=1e-7)


def test_forces_and_stress_are_derivatives_of_the_energy():
    salt = _rock_salt(repeats=(2, 1, 1))
    salt.rattle(0.2, seed=0)
    salt.calc = IonicSalt()
    forces = calculate_numerical_forces(salt, 1e-4, [0, 5])
    np.testing.assert_allclose(salt.get_forces()[[0, 5]], forces, atol=1e-6)
    stress = calculate_numerical_stress(salt, 1e-5)
    np.testing.assert_allclose(salt.get_stress(), stress, atol=1e-8)


def test_a_salt_without_charges_or_periods_is_refused():
    salt = _rock_salt()
    salt.calc = IonicSalt()
    salt.set_initial_charges(None)
    with pytest.raises(ValueError, match="initial charges"):
        salt.get_potential_energy()
    salt = _rock_salt()
    salt.pbc = (True, True, False)
    salt.calc = IonicSalt()
    with pytest.raises(ValueError, match="periodic in three directions"):
        salt.get_potential_energy()
    with pytest.raises(ValueError, match="amplitude"):
        IonicSalt(amplitude=-1.0)
