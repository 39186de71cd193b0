"""Derivatives against five-point differences, and what symmetry says of them."""

from dataclasses import replace

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule

import lode
from lode.gradients import GROUPS

N_MAX, L_MAX = (2, 2) if numba.config.DISABLE_JIT else (4, 3)
BASIS = lode.RadialBasis.gto(N_MAX, 3.0)
# The tables' jumps between intervals must stay below what is tested.
TOLERANCE = 1e-11
RHO = lode.SphericalExpansion(
    lode.GaussianDensity(0.5), BASIS, L_MAX, tolerance=TOLERANCE
)
COULOMB = lode.SphericalExpansion(
    lode.PowerLawPotential(1, 1.0), BASIS, L_MAX, tolerance=TOLERANCE, split=1.5
)
CHARGES = replace(COULOMB, sources="charges")

RNG = np.random.default_rng(1)
CELL = np.array([[6.0, 0.0, 0.0], [1.0, 5.5, 0.0], [-0.5, 1.2, 6.5]])


def with_charges(atoms):
    """Charges at random, one of them zero: its derivative is not."""
    charges = RNG.normal(size=len(atoms))
    charges[1] = 0.0
    atoms.set_initial_charges(charges)
    return atoms


MOLECULE = with_charges(Atoms("H2ONaCl2", 3.0 * RNG.random((6, 3))))
TRICLINIC = with_charges(
    Atoms("Na3Cl3", RNG.random((6, 3)) @ CELL, cell=CELL, pbc=True)
)
LEFT_HANDED = TRICLINIC.copy()
LEFT_HANDED.set_cell(CELL[[1, 0, 2]])
# Two atoms, far fewer than the images within the cutoff.
SMALL = with_charges(
    Atoms("NaCl", [[0, 0, 0], [1.2, 0.9, 1.0]], cell=[2.3, 2.6, 2.8], pbc=True)
)
STRUCTURES = {
    "molecule": MOLECULE,
    "triclinic": TRICLINIC,
    "left-handed": LEFT_HANDED,
    "small cell": SMALL,
}


def differences(function, step):
    """Five-point difference of a function of a displacement."""
    near, far = (
        function(step) - function(-step),
        function(2 * step) - function(-2 * step),
    )
    return (8.0 * near - far) / (12.0 * step)


def check_derivatives(
    described, atoms, seed=0, steps=(1e-3, 1e-4, 1e-2), tolerance=1e-7
):
    """All derivatives of a random linear function of what is described."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=described.compute(atoms).values.shape)

    def energy(moved):
        return np.vdot(weights, described.compute(moved).values)

    found = described.vjp(atoms, weights)
    expected = np.empty((2, 3))
    some = rng.permutation(len(atoms))[:2]
    for i, x in np.ndindex(2, 3):

        def displaced(step, i=i, x=x):
            moved = atoms.copy()
            moved.positions[some[i], x] += step
            return energy(moved)

        expected[i, x] = differences(displaced, steps[0])
    size = np.abs(found.positions).max()
    assert np.abs(found.positions[some] - expected).max() <= tolerance * size
    expected = np.empty((3, 3))
    for x, y in np.ndindex(3, 3):

        def strained(step, x=x, y=y):
            moved, strain = atoms.copy(), np.eye(3)
            strain[x, y] += step
            moved.positions = atoms.positions @ strain.T
            if atoms.pbc.any():
                moved.set_cell(atoms.cell.array @ strain.T)
            return energy(moved)

        expected[x, y] = differences(strained, steps[1])
    size = np.abs(found.strain).max()
    assert np.abs(found.strain[0] - expected).max() <= tolerance * size
    if found.charges is None:
        return
    expected, charges = np.empty(len(atoms)), atoms.get_initial_charges()
    for i in range(len(atoms)):

        def charged(step, i=i):
            moved, changed = atoms.copy(), charges.copy()
            changed[i] += step
            moved.set_initial_charges(changed)
            return energy(moved)

        expected[i] = differences(charged, steps[2])
    size = np.abs(found.charges).max()
    assert np.abs(found.charges - expected).max() <= tolerance * size


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scaling": lode.RadialScaling(2.0, 3.0)},
        {"basis": lode.RadialBasis.monomial(2, 3.0)},
        {"sources": "charges", "center_atom_weight": 0.3},
    ],
    ids=["density", "scaling", "monomial", "charges"],
)
def test_density_has_the_derivatives_of_differences(changes, name):
    check_derivatives(replace(RHO, **changes), STRUCTURES[name])


FIELDS = {
    "p = 1": lode.PowerLawPotential(1, 1.0),
    "p = 2": lode.PowerLawPotential(2, 0.8),
    "p = 3": lode.PowerLawPotential(3, 0.8),
    "p = 6": lode.PowerLawPotential(6, 0.8),
    "Yukawa": lode.YukawaPotential(4.0, 0.8),
    "points": lode.PowerLawPotential(1, 0.0),
}


@pytest.mark.parametrize("sources", ["species", "charges"])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("method", ["pairs", "split", "reciprocal", "nufft"])
def test_potential_has_the_derivatives_of_differences(method, field, sources):
    if method == "reciprocal" and field == "points":
        pytest.skip("point charges have no transform that ends")
    if method == "nufft":
        pytest.importorskip("finufft")
    split = None if method in ("pairs", "reciprocal") else 1.5
    expansion = replace(
        COULOMB,
        field=FIELDS[field],
        method=method,
        split=split,
        sources=sources,
        center_atom_weight=0.5,
    )
    check_derivatives(expansion, MOLECULE if method == "pairs" else TRICLINIC)


@pytest.mark.parametrize("name", ["left-handed", "small cell"])
@pytest.mark.parametrize("method", ["split", "reciprocal", "nufft"])
def test_potential_in_other_cells_has_the_derivatives_of_differences(method, name):
    if method == "nufft":
        pytest.importorskip("finufft")
    split = None if method == "reciprocal" else 1.5
    # Images at the end of the table are many: their jumps add up.
    expansion = replace(CHARGES, method=method, split=split, tolerance=1e-12)
    check_derivatives(expansion, STRUCTURES[name])


DESCRIPTORS = {
    "radial": lode.RadialSpectrum(COULOMB),
    "radial of charges": lode.RadialSpectrum(CHARGES),
    "SOAP": lode.PowerSpectrum(RHO),
    "LODE": lode.PowerSpectrum(COULOMB),
    "multiscale": lode.PowerSpectrum(RHO, COULOMB),
    "with charges": lode.PowerSpectrum(RHO, CHARGES),
    "twice the same": lode.PowerSpectrum(RHO, RHO),
    "vector": lode.EquivariantPowerSpectrum(RHO, COULOMB, angular=1),
    "tensor": lode.EquivariantPowerSpectrum(COULOMB, angular=2),
    "pseudotensor": lode.EquivariantPowerSpectrum(RHO, angular=2, parity=-1),
}


@pytest.mark.parametrize("name", ["molecule", "triclinic"])
@pytest.mark.parametrize("descriptor", DESCRIPTORS)
def test_features_have_the_derivatives_of_differences(descriptor, name):
    check_derivatives(DESCRIPTORS[descriptor], STRUCTURES[name])


def test_contracted_basis_has_the_derivatives_of_differences():
    check_derivatives(RHO.contracted([MOLECULE], 2), MOLECULE)


def test_slab_has_the_derivatives_of_differences():
    slab = fcc111("Cu", (1, 2, 2), vacuum=4.0)
    slab.positions += 0.1 * np.random.default_rng(0).normal(size=(4, 3))
    check_derivatives(RHO, slab)


@pytest.mark.parametrize("field", ["p = 1", "p = 6"])
def test_coincident_atoms_have_the_derivatives_of_differences(field):
    # The direction to the neighbour is no direction there.
    atoms = with_charges(Atoms("HOH", [[0, 0, 0], [0, 0, 0], [0.7, 0.4, 0.2]]))
    for expansion in (RHO, replace(CHARGES, field=FIELDS[field])):
        check_derivatives(expansion, atoms)


@pytest.mark.parametrize("descriptor", ["SOAP", "LODE", "multiscale"])
def test_forces_and_torques_of_a_molecule_vanish(descriptor):
    described, ethanol = DESCRIPTORS[descriptor], molecule("CH3CH2OH")
    weights = np.random.default_rng(0).normal(
        size=described.compute(ethanol).values.shape
    )
    found = described.vjp(ethanol, weights)
    size = np.abs(found.positions).max()
    assert np.abs(found.positions.sum(axis=0)).max() <= 1e-10 * size
    torque = np.cross(ethanol.positions, found.positions).sum(axis=0)
    assert np.abs(torque).max() <= 1e-10 * size
    # Strain without rotation: its antisymmetric part does nothing.
    assert np.abs(found.strain - found.strain.transpose(0, 2, 1)).max() <= 1e-10 * size


def test_derivatives_of_invariants_turn_with_the_crystal():
    described = DESCRIPTORS["multiscale"]
    weights = np.random.default_rng(0).normal(
        size=described.compute(TRICLINIC).values.shape
    )
    turned = TRICLINIC.copy()
    turned.rotate(50.0, (1.0, -0.4, 0.3), rotate_cell=True)
    rotation = np.linalg.solve(TRICLINIC.cell.array, turned.cell.array)
    a, b = described.vjp(TRICLINIC, weights), described.vjp(turned, weights)
    np.testing.assert_allclose(b.positions, a.positions @ rotation, atol=1e-9)
    expected = rotation.T @ a.strain[0] @ rotation
    np.testing.assert_allclose(b.strain[0], expected, atol=1e-9)


def test_point_charges_have_the_forces_and_the_stress_of_ewald():
    # A single function whose average is the potential at the centre, as long as no
    # charge is inside its sphere.
    basis = lode.RadialBasis.polynomial(1, 0.5)
    expansion = lode.SphericalExpansion(
        lode.PowerLawPotential(1, 0.0), basis, 0, tolerance=1e-12, sources="charges",
        center_atom_weight=0.0, split=1.5,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    cell = 2 * np.array([[2.9, 0, 0], [0.3, 2.8, 0], [-0.2, 0.4, 3.0]])
    positions = (grid + 0.1 * rng.random((8, 3))) @ cell / 2
    salt = Atoms("NaCl" * 4, positions, cell=cell, pbc=True)
    charges = np.array([1.0, -1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0])
    salt.set_initial_charges(charges)
    expected = lode.ewald(salt, tolerance=1e-12)
    potential = expansion.compute(salt).values[:, 0, 0, 0]
    # E = ½ Σ q φ, in units of the field's own integral over the sphere.
    unit = expected.potential @ potential / (potential @ potential)
    np.testing.assert_allclose(unit * potential, expected.potential, atol=1e-8)
    weights = 0.5 * unit * charges[:, None, None, None]
    found = expansion.vjp(salt, weights)
    np.testing.assert_allclose(found.positions, -expected.forces, atol=1e-8)
    stress = found.strain[0] / salt.get_volume()
    np.testing.assert_allclose(stress, expected.stress, atol=1e-8)


@pytest.mark.parametrize("method", ["split", "nufft"])
def test_derivatives_do_not_depend_on_the_number_of_threads(method):
    if method == "nufft":
        pytest.importorskip("finufft")
    # More blocks of centres than groups of them.
    n = 64 * GROUPS + 70 if not numba.config.DISABLE_JIT else 20
    rng = np.random.default_rng(0)
    side = (n / 0.05) ** (1 / 3)
    crystal = Atoms(
        "NaCl" * (n // 2), side * rng.random((n, 3)), cell=[side] * 3, pbc=True
    )
    small = replace(COULOMB, method=method, tolerance=1e-4, max_angular=1)
    described = lode.PowerSpectrum(replace(RHO, max_angular=1), small)
    frames = [MOLECULE, crystal, MOLECULE]
    described = replace(
        described,
        expansion=replace(described.expansion, species=(1, 8, 11, 17)),
        other=replace(described.other, species=(1, 8, 11, 17)),
    )
    weights = rng.normal(size=described.compute(frames).values.shape)
    one, two = (described.vjp(frames, weights, n_threads=t) for t in (1, 2))
    assert np.array_equal(one.positions, two.positions)
    assert np.array_equal(one.strain, two.strain)


def test_several_scalars_and_frames_are_those_of_each():
    described = DESCRIPTORS["with charges"]
    frames = [MOLECULE, TRICLINIC, MOLECULE, SMALL]
    shape = described.compute(frames).values.shape
    weights = np.random.default_rng(0).normal(size=(2, *shape))
    both = described.vjp(frames, weights)
    assert both.positions.shape == (2, 20, 3)
    assert both.strain.shape == (2, 4, 3, 3)
    for s in range(2):
        one = described.vjp(frames, weights[s])
        for name in ("positions", "strain", "charges"):
            assert np.array_equal(getattr(both, name)[s], getattr(one, name))
    species = (1, 8, 11, 17)
    start = 0
    for f, frame in enumerate(frames):
        rows = slice(start, start + len(frame))
        start = rows.stop
        own = described.vjp(frame, weights[0][rows], species=species)
        np.testing.assert_allclose(both.positions[0, rows], own.positions, atol=1e-12)
        np.testing.assert_allclose(both.strain[0, f], own.strain[0], atol=1e-11)


def test_strain_may_be_left_out():
    described = DESCRIPTORS["multiscale"]
    weights = np.ones(described.compute(TRICLINIC).values.shape)
    with_strain = described.vjp(TRICLINIC, weights)
    without = described.vjp(TRICLINIC, weights, strain=False)
    assert without.strain is None
    assert without.charges is None
    assert np.array_equal(without.positions, with_strain.positions)


def test_wrong_derivatives_are_refused():
    values = RHO.compute(MOLECULE).values
    for wrong, message in (
        (values[1:], "dE_dc must have shape"),
        (values[0], "dE_dc must have shape"),
        (np.full_like(values, np.nan), "dE_dc must be finite"),
        (values[None, None], "at most one leading axis, got 2"),
        ("a", "dE_dc must"),
    ):
        with pytest.raises(ValueError, match=message):
            RHO.vjp(MOLECULE, wrong)
    features = DESCRIPTORS["SOAP"].compute(MOLECULE).values
    with pytest.raises(ValueError, match="dE_dX must have shape"):
        DESCRIPTORS["SOAP"].vjp(MOLECULE, features[:, 1:])


def test_a_step_has_no_derivatives():
    sharp = replace(RHO, cutoff_function=lode.StepCutoff(3.0))
    values = sharp.compute(MOLECULE).values
    with pytest.raises(
        ValueError, match="need a smooth cutoff_function, such as Shift"
    ):
        sharp.vjp(MOLECULE, values)
    for descriptor in (lode.PowerSpectrum(sharp), lode.PowerSpectrum(sharp, COULOMB)):
        values = descriptor.compute(MOLECULE).values
        with pytest.raises(ValueError, match="need a smooth cutoff_function"):
            descriptor.vjp(MOLECULE, values)
