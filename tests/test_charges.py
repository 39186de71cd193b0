"""Formal charges from bonds, and fields whose sources are charges."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

import lode
from lode.charges import formal_charges
from lode.systems import structures

BASIS = lode.RadialBasis.monomial(3, 3.0)
COULOMB = lode.PowerLawPotential(1, 1.0)
DENSITY = lode.GaussianDensity(0.5)
CELL = np.array([[7.1, 0.0, 0.0], [2.1, 6.4, 0.0], [-1.6, 1.7, 6.9]])


def acetate():
    """Acetic acid without its acidic hydrogen."""
    acid = molecule("CH3COOH")
    oxygens = acid.numbers == 8
    distances = acid.get_all_distances()[oxygens]
    (hydrogen,) = np.flatnonzero((distances < 1.1).any(axis=0) & (acid.numbers == 1))
    del acid[hydrogen]
    return acid


def ammonium():
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    return Atoms("NH4", [[0, 0, 0], *(0.59 * corners)])


def guanidinium():
    turns = np.radians([0, 120, 240])
    ring = np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)
    apart = np.radians([-32.0, 32.0])
    hydrogens = [
        [1.87 * np.cos(t + a), 1.87 * np.sin(t + a), 0.0] for t in turns for a in apart
    ]
    return Atoms("CN3H6", [[0, 0, 0], *(1.33 * ring), *hydrogens])


# --- Formal charges ----------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("H2", "H2O", "NH3", "CH3OH", "CH3COOH", "CH3CONH2", "HCN", "C2H2", "CO2"),
        *("C6H6", "C5H5N", "C4H4NH", "CH3CN", "HCOOCH3", "butadiene", "CH3Cl"),
    ],
)
def test_closed_shell_molecules_have_no_charges(name):
    np.testing.assert_array_equal(formal_charges(molecule(name)), 0.0)


def test_charged_groups_share_a_charge():
    charges = formal_charges(acetate())
    symbols = np.array(acetate().get_chemical_symbols())
    np.testing.assert_allclose(charges[symbols == "O"], -1 / 3)
    # The carbon of the carboxylate, not that of the methyl group.
    np.testing.assert_allclose(np.sort(charges[symbols == "C"]), [-1 / 3, 0])
    np.testing.assert_array_equal(formal_charges(ammonium()), [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(formal_charges(guanidinium()), [1] + 9 * [0])


@pytest.mark.parametrize("distance", [3.2, 5.0, 40.0])
def test_charges_of_a_molecule_do_not_depend_on_others(distance):
    first, second = acetate(), guanidinium()
    second.positions += first.positions[first.numbers == 8].mean(axis=0)
    second.positions[:, 2] += distance
    together = formal_charges(first + second)
    expected = np.concatenate([formal_charges(first), formal_charges(second)])
    np.testing.assert_array_equal(together, expected)
    order = np.random.default_rng(0).permutation(len(together))
    np.testing.assert_array_equal(
        formal_charges((first + second)[order]), together[order]
    )


def test_bonds_cross_the_faces_of_a_cell():
    atoms = acetate()
    expected = formal_charges(atoms)
    atoms.set_cell(2 * CELL)
    atoms.set_pbc(True)
    for shift in np.random.default_rng(1).uniform(-9, 9, (4, 3)):
        moved = atoms.copy()
        moved.positions += shift
        moved.wrap()
        np.testing.assert_array_equal(formal_charges(moved), expected)


def test_crowded_hydrogens_are_not_bonded_to_each_other():
    # Two methanes with hydrogens 0.7 Å from each other, as close as in H2.
    first, second = molecule("CH4"), molecule("CH4")
    axis = first.positions[1] / np.linalg.norm(first.positions[1])
    second.positions *= -1
    second.positions += (2 * 1.09 + 0.7) * axis
    np.testing.assert_array_equal(formal_charges(first + second), 0.0)


def test_formal_charges_need_known_elements():
    with pytest.raises(ValueError, match=r"for the elements \['H', .*got \['Na'\]"):
        formal_charges(molecule("NaCl"))


# --- Charges as sources ------------------------------------------------------


def charged(n=6, seed=0, charges=None, **options):
    rng = np.random.default_rng(seed)
    side = 4.0 * (n / 6) ** (1 / 3)
    atoms = Atoms(np.resize([1, 8, 6], n), rng.uniform(0, side, (n, 3)), **options)
    atoms.set_initial_charges(rng.normal(size=n) if charges is None else charges)
    return atoms


def expansion(field=COULOMB, **options):
    basis = BASIS if field.long_range else lode.RadialBasis.gto(3, 3.0)
    return lode.SphericalExpansion(field, basis, 2, **options)


@pytest.mark.parametrize("field", [COULOMB, DENSITY, lode.PowerLawPotential(6, 1.0)])
@pytest.mark.parametrize("options", [{}, {"cell": CELL, "pbc": True}])
@pytest.mark.parametrize("settings", [{}, {"center_atom_weight": 0.0}])
def test_charges_of_species_sum_their_fields(field, options, settings):
    charge_of = {1: 0.4, 6: -1.3, 8: 0.0}
    atoms = charged(7, **options)
    atoms.set_initial_charges([charge_of[z] for z in atoms.numbers])
    settings = settings | {"tolerance": 1e-9}
    c = expansion(field, **settings).compute(atoms)
    found = expansion(field, sources="charges", **settings).compute(atoms)
    weights = [charge_of[z] for z in c.species]
    expected = np.einsum("a,jamn->jmn", weights, c.values)
    assert found.species == (0,)
    assert found.values.shape == (7, 1, *c.values.shape[2:])
    scale = np.abs(c.values).max()
    # The splitting is chosen for one field instead of three.
    np.testing.assert_allclose(found.values[:, 0], expected, atol=1e-7 * scale)


@pytest.mark.parametrize("options", [{}, {"cell": 3 * CELL, "pbc": True}])
@pytest.mark.parametrize("field", [COULOMB, DENSITY])
def test_blocks_of_centres_count_each_charge_once(field, options, request):
    settings = {"sources": "charges", "tolerance": 1e-9}
    atoms = charged(20, **options)
    whole = expansion(field, **settings).compute(atoms).values
    request.getfixturevalue("many_pieces")
    blocks = expansion(field, **settings).compute(atoms, n_threads=3).values
    np.testing.assert_allclose(blocks, whole, atol=1e-12 * np.abs(whole).max())


def test_methods_agree_on_charges():
    atoms = charged(8, cell=CELL, pbc=True)
    settings = {"sources": "charges", "tolerance": 1e-8}
    waves = expansion(method="reciprocal", **settings).compute(atoms).values
    split = expansion(method="split", split=1.6, **settings).compute(atoms).values
    np.testing.assert_allclose(split, waves, atol=1e-6 * np.abs(waves).max())


def test_features_of_charges_are_invariant_and_labelled():
    rho, phi = expansion(DENSITY), expansion(sources="charges")
    atoms = charged()
    turned = atoms.copy()
    turned.positions = turned.positions @ Rotation.random(random_state=0).as_matrix().T
    for descriptor in (
        lode.PowerSpectrum(rho, phi),
        lode.PowerSpectrum(phi),
        lode.RadialSpectrum(phi),
    ):
        features = descriptor.compute(atoms)
        np.testing.assert_allclose(
            descriptor.compute(turned).values,
            features.values,
            atol=1e-10 * np.abs(features.values).max(),
        )
        assert features.neighbor_species == (1, 6, 8)
        assert len(features.labels) == features.values.shape[1]
    cross = lode.PowerSpectrum(rho, phi).compute(atoms).labels
    assert set(cross["species_1"]) == {1, 6, 8}
    assert set(cross["species_2"]) == {0}


def test_opposite_charges_have_opposite_features():
    descriptor = lode.PowerSpectrum(expansion(DENSITY), expansion(sources="charges"))
    atoms = charged()
    opposite = charged(charges=-atoms.get_initial_charges())
    features = descriptor.compute(atoms).values
    np.testing.assert_allclose(descriptor.compute(opposite).values, -features)
    neutral = charged(charges=np.zeros(6))
    np.testing.assert_array_equal(descriptor.compute(neutral).values, 0.0)


def test_charges_must_come_with_every_frame():
    without = charged()
    del without.arrays["initial_charges"]
    for call in (
        expansion(sources="charges").compute,
        lode.PowerSpectrum(expansion(DENSITY), expansion(sources="charges")).compute,
    ):
        with pytest.raises(ValueError, match=r"every frame, got none \(frame 1\)"):
            call([charged(), without])
    atoms = charged()
    atoms.arrays["initial_charges"][2] = np.nan
    with pytest.raises(ValueError, match="charges must be finite, got nan at index"):
        structures([atoms])
    with pytest.raises(ValueError, match="sources must be one of .* got 'types'"):
        expansion(sources="types")


def ion_pairs(distances):
    """Acetate and ammonium, whole and in parts."""
    frames = []
    for d in distances:
        far = ammonium()
        far.positions += [0.0, d, 0.0]
        frames.append(acetate() + far)
        frames[-1].set_initial_charges(formal_charges(frames[-1]))
    return lode.interactions(frames, [7] * len(frames))


def test_a_saved_model_of_charges_predicts_the_same(tmp_path):
    phi = expansion(sources="charges")
    kernel = lode.PolynomialKernel(lode.PowerSpectrum(expansion(DENSITY), phi))
    model = lode.SparseGaussianProcess(kernel, 20, intercept=False)
    distances = np.linspace(5.0, 9.0, 12)
    pairs = ion_pairs(distances)
    model.fit(pairs, -14.4 / distances)
    model.save(tmp_path / "model.npz")
    loaded = lode.load(tmp_path / "model.npz")
    assert loaded.kernel == kernel
    np.testing.assert_array_equal(loaded.predict(pairs), model.predict(pairs))
    # Linear in the potential of two ions: the energy falls as theirs does.
    far = np.array([200.0, 400.0])
    energies = model.predict(ion_pairs(far))
    slope = np.diff(np.log(-energies)) / np.diff(np.log(far))
    np.testing.assert_allclose(slope, -1.0, atol=0.02)
