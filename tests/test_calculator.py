"""The calculator of ASE: what it gives, and that it gives nothing stale."""

import json
import os
from threading import Thread

import numba
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

import lode

BASIS = lode.RadialBasis.gto(2, 3.0)
RHO = lode.SphericalExpansion(lode.GaussianDensity(0.5), BASIS, 1)
COULOMB = lode.SphericalExpansion(lode.PowerLawPotential(1, 1.0), BASIS, 1)
SOAP, LODE1 = lode.PowerSpectrum(RHO), lode.RadialSpectrum(COULOMB)
STEPS = 3 if numba.config.DISABLE_JIT else 200


def salt(seed=0, displacement=0.1):
    """A cell of eight ions."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(displacement, seed=seed)
    return atoms


def heated(atoms, kelvin):
    """Momenta at random."""
    rng = np.random.default_rng(0)
    width = np.sqrt(atoms.get_masses() * units.kB * kelvin)
    atoms.set_momenta(width[:, None] * rng.normal(size=(len(atoms), 3)))


def fitted(kernel=None, sparse=False):
    """A model of springs between neighbours, in eV."""
    if kernel is None:
        kernel = lode.PolynomialKernel(SOAP, degree=2, normalize=True)
    frames = [salt(seed, 0.02 + 0.02 * seed) for seed in range(8)]
    energies = []
    for atoms in frames:
        distances = atoms.get_all_distances(mic=True)
        near = distances[(distances > 0) & (distances < 3.4)]
        energies.append(0.5 * np.sum((near - 2.82) ** 2) - 3.0)
    model = lode.GaussianProcess(kernel, regularization=1e-6)
    if sparse:
        model = lode.SparseGaussianProcess(kernel, n_sparse=20, regularization=1e-6)
    return model.fit(frames, energies)


@pytest.mark.parametrize("sparse", [False, True])
def test_properties_are_those_of_the_prediction(sparse):
    model, atoms = fitted(sparse=sparse), salt(9)
    atoms.calc = lode.LODECalculator(model)
    expected = model.predict([atoms], forces=True, stress=True, return_std=True)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy[0], rel=1e-12)
    np.testing.assert_allclose(atoms.get_forces(), expected.forces[0], atol=1e-12)
    stress = atoms.get_stress(voigt=False)
    np.testing.assert_allclose(stress, expected.stress[0], atol=1e-9)
    assert atoms.calc.get_property("free_energy") == atoms.get_potential_energy()
    std = atoms.calc.get_property("uncertainty")
    assert std == pytest.approx(expected.std[0])


def test_energies_of_the_atoms_add_up():
    kernel = lode.PolynomialKernel(SOAP, degree=2) + lode.PolynomialKernel(LODE1)
    for sparse in (False, True):
        atoms = salt(9)
        atoms.calc = lode.LODECalculator(fitted(kernel, sparse))
        energies = atoms.get_potential_energies()
        assert energies.shape == (8,)
        assert energies.sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
        assert np.ptp(energies) > 1e-3
    average = lode.PolynomialKernel(SOAP, degree=2, average=True)
    atoms.calc = lode.LODECalculator(fitted(average))
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()


def test_the_energy_is_kept_in_a_simulation():
    atoms = salt(2)
    atoms.calc = lode.LODECalculator(fitted())
    heated(atoms, 300)
    before = atoms.get_total_energy()
    changes = []
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.attach(lambda: changes.append(atoms.get_total_energy() - before))
    dynamics.run(STEPS)
    # It oscillates with the square of the step, and does not drift.
    assert np.abs(changes).max() <= 2e-3
    kinetic = atoms.get_kinetic_energy()
    assert kinetic > 10 * np.abs(changes).max()


def test_wrapped_atoms_and_changed_cells_change_nothing_else():
    model, paths = fitted(), []
    for wraps in (False, True):
        atoms = salt(2)
        atoms.positions += 2.7
        atoms.calc = lode.LODECalculator(model)
        heated(atoms, 600)
        dynamics = VelocityVerlet(atoms, 2.0 * units.fs)
        path = []
        for _ in range(STEPS):
            dynamics.run(1)
            if wraps:
                atoms.wrap()
            path.append(atoms.get_scaled_positions(wrap=False))
        paths.append(np.array(path))
    apart = paths[0] - paths[1]
    assert np.abs(apart - np.round(apart)).max() <= 1e-10
    atoms.set_cell(1.01 * atoms.cell.array, scale_atoms=True)
    expected = model.predict([atoms])[0]
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-12)


def test_charges_are_part_of_the_state():
    model = fitted()
    atoms, calculator = salt(3), lode.LODECalculator(model)
    atoms.calc = calculator
    atoms.get_potential_energy()
    assert calculator.check_state(atoms) == []
    atoms.info["charge"] = 1
    assert calculator.check_state(atoms) == ["charge"]
    atoms.get_potential_energy()
    assert calculator.check_state(atoms) == []
    atoms.set_initial_charges(np.ones(8))
    assert calculator.check_state(atoms) == ["initial_charges"]


def test_calculators_share_nothing():
    additive = lode.LODECalculator(fitted())
    average = lode.PolynomialKernel(SOAP, average=True)
    other = lode.LODECalculator(fitted(average))
    assert "energies" in additive.implemented_properties
    assert "energies" not in other.implemented_properties
    assert additive.implemented_properties is not other.implemented_properties


def test_molecules_have_no_stress():
    frames = [molecule("H2O") for _ in range(4)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, seed=seed)
    model = lode.GaussianProcess(lode.PolynomialKernel(SOAP), regularization=1e-6)
    model.fit(frames, [0.0, 0.1, 0.3, 0.2])
    atoms = frames[1].copy()
    atoms.calc = lode.LODECalculator(model)
    with pytest.raises(PropertyNotImplementedError, match="three periods"):
        atoms.get_stress()
    assert np.abs(atoms.get_forces().sum(axis=0)).max() <= 1e-10
    # After a crystal whose stress was asked for, too.
    periodic = salt(1)
    calculator = lode.LODECalculator(fitted())
    periodic.calc = calculator
    periodic.get_stress()
    finite = Atoms("NaCl", [[0, 0, 0], [0, 0, 2.5]], calculator=calculator)
    assert np.isfinite(finite.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError):
        finite.get_stress()


def test_an_uncertain_energy_is_said():
    model, atoms = fitted(), salt(5, 0.6)
    std = model.predict([atoms], return_std=True)[1][0]
    atoms.calc = lode.LODECalculator(model, largest_uncertainty=0.5 * std)
    with pytest.warns(UserWarning, match="the energy is uncertain by"):
        atoms.get_potential_energy()
    atoms.calc = lode.LODECalculator(model, largest_uncertainty=2.0 * std)
    atoms.get_potential_energy()


def test_a_structure_relaxes(tmp_path):
    path = tmp_path / "model.npz"
    fitted().save(path)
    atoms = salt(4, 0.15)
    atoms.calc = lode.LODECalculator(path)
    before = atoms.get_potential_energy()
    with FIRE(atoms, logfile=None, trajectory=str(tmp_path / "a.traj")) as optimizer:
        optimizer.run(0.05, 100)
    assert np.abs(atoms.get_forces()).max() <= 0.05
    assert atoms.get_potential_energy() < before


def test_settings_are_those_of_the_model():
    calculator = lode.LODECalculator(fitted())
    settings = json.loads(json.dumps(calculator.todict(), default=str))
    assert list(settings["model"]) == ["GaussianProcess"]


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="fitted first"):
        lode.LODECalculator(lode.GaussianProcess(lode.PolynomialKernel(SOAP)))
    descriptor = lode.EquivariantPowerSpectrum(RHO, angular=1)
    tensors = lode.EquivariantRegression(descriptor)
    with pytest.raises(TypeError, match="got EquivariantRegression"):
        lode.LODECalculator(tensors)
    with pytest.raises(FileNotFoundError):
        lode.LODECalculator(tmp_path / "none.npz")
    atoms = bulk("MgO", "rocksalt", a=4.2)
    atoms.calc = lode.LODECalculator(fitted())
    with pytest.raises(ValueError, match="species"):
        atoms.get_forces()


def test_energies_are_smooth_in_the_cell():
    # Wave vectors enter and leave, and methods change, within the tolerance.
    kernel = lode.PolynomialKernel(lode.PowerSpectrum(COULOMB), degree=2)
    model, atoms = fitted(kernel), salt(2)
    sides = np.linspace(0.98, 1.02, 31 if numba.config.DISABLE_JIT else 2001)
    frames = []
    for side in sides:
        frames.append(atoms.copy())
        frames[-1].set_cell(side * atoms.cell.array, scale_atoms=True)
    energies = model.predict(frames) / len(atoms)
    smooth = np.polynomial.Polynomial.fit(sides, energies, 12)
    assert np.ptp(energies) > 1e-2
    assert np.abs(energies - smooth(sides)).max() <= 1e-6


def test_other_programs_ask_over_a_socket(tmp_path):
    model, atoms = fitted(), salt(6)
    name = f"lode-test-{os.getpid()}"
    served = salt(6)
    served.calc = lode.LODECalculator(model)

    def serve():
        SocketClient(unixsocket=name, timeout=60.0).run(served, use_stress=True)

    def launch(*_, **__):
        Thread(target=serve, daemon=True).start()

    with SocketIOCalculator(unixsocket=name, launch_client=launch) as server:
        atoms.calc = server
        for _ in range(2):
            atoms.rattle(0.02, seed=1)
            expected = model.predict([atoms], forces=True, stress=True)
            energy = atoms.get_potential_energy()
            assert energy == pytest.approx(expected.energy[0], abs=1e-9)
            np.testing.assert_allclose(
                atoms.get_forces(), expected.forces[0], atol=1e-9
            )
            stress = atoms.get_stress(voigt=False)
            np.testing.assert_allclose(stress, expected.stress[0], atol=1e-9)
