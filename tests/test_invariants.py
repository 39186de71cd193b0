import dataclasses
import tracemalloc

import numba
import numpy as np
import pytest
from ase import Atoms
from naive import full_power_spectrum, power_spectrum
from scipy.spatial.transform import Rotation

import lode
from lode import invariants, parallel
from lode.bases import RadialBasis
from lode.core import invariants as core
from lode.fields import GaussianDensity, PowerLawPotential
from lode.serialization import from_dict, to_dict

L_MAX = 2 if numba.config.DISABLE_JIT else 4
CELL = np.array([[5.1, 0.0, 0.0], [2.1, 4.4, 0.0], [-1.6, 1.7, 4.9]])
# A method's own error must not enter 1e-10.
OPTIONS = {"tolerance": 1e-12}


def expansions():
    rho = lode.SphericalExpansion(
        GaussianDensity(0.5), RadialBasis.polynomial(3, 2.5), L_MAX, **OPTIONS
    )
    v = lode.SphericalExpansion(
        PowerLawPotential(1, 0.8), RadialBasis.gto(2, 2.5), L_MAX, **OPTIONS
    )
    return rho, v


RHO, V = expansions()
DESCRIPTORS = [
    lode.RadialSpectrum(V),
    lode.PowerSpectrum(RHO),
    lode.PowerSpectrum(V),
    lode.PowerSpectrum(RHO, V),
]
IDS = ["V", "rho.rho", "V.V", "rho.V"]


def atoms_of(pbc, seed=0, n=5):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 1, (n, 3)) @ CELL
    return Atoms(rng.permutation(np.resize([1, 8], n)), positions, cell=CELL, pbc=pbc)


def relative(value, expected):
    return np.abs(value - expected).max() / np.abs(expected).max()


def channels(labels, species):
    place = {z: a for a, z in enumerate(species)}
    return [
        (r["l"], place[r["species_1"]], r["n_1"], place[r["species_2"]], r["n_2"])
        for r in labels
    ]


@pytest.mark.parametrize("pbc", [False, True])
def test_radial_spectrum_is_the_spherical_part_that_its_labels_name(pbc):
    frames = [atoms_of(pbc, 1), atoms_of(pbc, 2, 3)]
    x = lode.RadialSpectrum(V).compute(frames)
    c = V.compute(frames)
    assert x.labels.dtype.names == ("species", "n")
    for f, (z, n) in enumerate(x.labels):
        expected = c.values[:, c.species.index(z), 0, n]
        # The same sums, at another highest l: tables and splits differ.
        assert relative(x.values[:, f], expected) <= 1e-11


@pytest.mark.parametrize("expansion", [RHO, V], ids=["rho", "V"])
def test_power_spectrum_is_the_sum_that_its_labels_name(expansion):
    frames = [atoms_of(True, 1), atoms_of(True, 2, 3)]
    x = lode.PowerSpectrum(expansion).compute(frames)
    c = expansion.compute(frames)
    names = channels(x.labels, c.species)
    expected = power_spectrum(c.values, c.values, names)
    # A pair of different channels stands for both of its orders.
    different = [(a, n) != (b, k) for _, a, n, b, k in names]
    expected[:, different] *= np.sqrt(2)
    assert relative(x.values, expected) <= 1e-14
    both = [(l, b, k, a, n) for l, a, n, b, k in names]
    assert len({*names, *both}) == (L_MAX + 1) * (2 * expansion.basis.max_radial) ** 2


@pytest.mark.parametrize("n_max", [1, 3, 5, 8, 9])
@pytest.mark.parametrize("n_species", [1, 2, 5])
@pytest.mark.parametrize("l_max", [0, 1, 4])
def test_products_in_registers_are_the_sums_of_any_size(n_max, n_species, l_max):
    rng = np.random.default_rng(n_max)
    room = rng.normal(size=(3, n_species, (l_max + 1) ** 2, n_max + 2))
    c, d = room[..., :n_max], rng.normal(size=(3, n_species, (l_max + 1) ** 2, 4))
    n_x, n_y = n_species * n_max, n_species * 4
    # What stands around the result must stay.
    own = np.full((5, (l_max + 1) * n_x * (n_x + 1) // 2), np.nan)
    cross = np.full((5, (l_max + 1) * n_x * n_y), np.nan)
    core.power_spectrum(c, c, True, l_max, own[1:4])
    core.power_spectrum(c, d, False, l_max, cross[1:4])
    for result in (own, cross):
        assert np.isnan(result[[0, 4]]).all()
    x, y = np.triu_indices(n_x)
    factor = np.where(x == y, 1.0, np.sqrt(2.0))
    parts = [slice(l * l, (l + 1) ** 2) for l in range(l_max + 1)]
    for j in range(3):
        c_lx, d_ly = (
            [
                v[j, :, part].transpose(0, 2, 1).reshape(-1, 2 * l + 1)
                for l, part in enumerate(parts)
            ]
            for v in (c, d)
        )
        norm = 1.0 / np.sqrt(2.0 * np.arange(l_max + 1) + 1)
        expected = [
            f * (v @ v.T)[x, y] * factor for f, v in zip(norm, c_lx, strict=True)
        ]
        assert relative(own[j + 1], np.concatenate(expected)) <= 1e-14
        expected = [
            f * (v @ w.T).ravel() for f, v, w in zip(norm, c_lx, d_ly, strict=True)
        ]
        assert relative(cross[j + 1], np.concatenate(expected)) <= 1e-14


def test_power_spectrum_of_two_fields_is_the_sum_that_its_labels_name():
    frames = [atoms_of(False, 1), atoms_of(True, 2, 3)]
    x = lode.PowerSpectrum(RHO, V).compute(frames)
    c, d = RHO.compute(frames), V.compute(frames)
    names = channels(x.labels, c.species)
    expected = power_spectrum(c.values, d.values, names)
    assert relative(x.values, expected) <= 1e-14
    assert len(set(names)) == (L_MAX + 1) * 6 * 4


def test_scalar_products_are_those_of_the_full_power_spectrum():
    frames = [atoms_of(False, 3), atoms_of(False, 4)]
    p = lode.PowerSpectrum(RHO).compute(frames).values
    full = full_power_spectrum(RHO.compute(frames).values)
    assert p.shape[1] < full.shape[1]
    expected = full @ full.T
    np.testing.assert_allclose(p @ p.T, expected, atol=1e-14 * expected.max())


def test_power_spectrum_of_a_field_with_its_copy_is_unfolded():
    frame = atoms_of(False, 3)
    p = lode.PowerSpectrum(RHO, RHO).compute(frame).values
    full = full_power_spectrum(RHO.compute(frame).values)
    np.testing.assert_allclose(p, full, atol=1e-14 * full.max())


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
@pytest.mark.parametrize("pbc", [False, True])
def test_rotation_reflection_and_translation_change_nothing(descriptor, pbc):
    atoms = atoms_of(pbc, 5)
    expected = descriptor.compute(atoms).values
    for seed in range(2):
        turn = Rotation.random(random_state=seed).as_matrix() * (-1) ** seed
        moved = atoms.copy()
        moved.set_cell(CELL @ turn.T)
        moved.positions = atoms.positions @ turn.T + [3.0, -20.0, 0.7]
        assert relative(descriptor.compute(moved).values, expected) <= 1e-10


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
def test_features_know_their_environments(descriptor):
    frames = [atoms_of(False, 1), atoms_of(True, 2, 3)]
    x = descriptor.compute(frames)
    assert x.values.shape == (8, len(x.labels))
    assert x.n_frames == 2
    assert x.neighbor_species == (1, 8)
    np.testing.assert_array_equal(x.frame_index, np.repeat([0, 1], [5, 3]))
    numbers = np.concatenate([f.numbers for f in frames])
    np.testing.assert_array_equal(x.species, numbers)


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
def test_number_of_threads_changes_no_bit(descriptor):
    frames = [atoms_of(True, seed, 3) for seed in range(3)]
    one = descriptor.compute(frames, n_threads=1).values
    for n_threads in (2, 5):
        other = descriptor.compute(frames, n_threads=n_threads).values
        np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_chunks_are_parts_of_the_whole(descriptor, pbc, rows):
    frames = [atoms_of(pbc, seed, n) for seed, n in enumerate((5, 2, 1, 6, 2))]
    whole = descriptor.compute(frames)
    n_lm = sum((e.max_angular + 1) ** 2 for e in descriptor._expansions())
    memory = rows * 8 * (len(whole.labels) + 2 * n_lm * 8)
    chunks = list(descriptor.chunks(frames, memory=memory))
    sizes = [len(x.values) for x in chunks]
    # Small frames stay together, large ones are cut.
    expected = {1: [1] * 16, 4: [4, 1, 3, 4, 2, 2], 100: [16]}[rows]
    assert sizes == expected
    start = 0
    for part in chunks:
        rows = slice(start, start + len(part.values))
        assert relative(part.values, whole.values[rows]) <= 1e-12
        np.testing.assert_array_equal(part.species, whole.species[rows])
        np.testing.assert_array_equal(part.frame_index, whole.frame_index[rows])
        assert (part.n_frames, part.neighbor_species) == (5, (1, 8))
        assert part.labels is whole.labels
        start = rows.stop


def test_chunks_of_tensors_and_of_fields_of_charges_are_parts_of_the_whole():
    frames = [atoms_of(True, 0, 5), atoms_of(True, 1, 2)]
    for frame in frames:
        frame.set_initial_charges(np.linspace(-1, 1, len(frame)))
    charged = dataclasses.replace(V, sources="charges")
    for descriptor in (
        lode.EquivariantPowerSpectrum(RHO, charged, angular=1),
        lode.RadialSpectrum(charged),
    ):
        whole = descriptor.compute(frames)
        chunks = list(descriptor.chunks(frames, memory=1))
        assert len(chunks) == 7
        assert {type(x) for x in chunks} == {type(whole)}
        values = np.concatenate([x.values for x in chunks])
        assert values.shape == whole.values.shape
        assert relative(values, whole.values) <= 1e-12


@pytest.mark.parametrize("way", ["split", "nufft"])
def test_little_memory_for_coefficients_changes_nothing(way, monkeypatch):
    frame = atoms_of(True, 4, 7)
    potential = dataclasses.replace(V, method=way, split=1.3)
    for descriptor in (lode.PowerSpectrum(potential), lode.PowerSpectrum(RHO, V)):
        whole = descriptor.compute(frame, n_threads=2).values
        with monkeypatch.context() as patch:
            patch.setattr(invariants, "COEFFICIENT_BYTES", 1)
            assert relative(descriptor.compute(frame).values, whole) <= 1e-12


@pytest.mark.parametrize("memory", [0, -1, float("nan")])
def test_chunks_without_memory_are_an_error(memory):
    with pytest.raises(ValueError, match=f"memory must be positive, got {memory}"):
        next(lode.PowerSpectrum(V).chunks(atoms_of(True), memory=memory))


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="thousands of atoms")
def test_chunks_bound_the_memory(monkeypatch):
    rng = np.random.default_rng(0)
    n, memory = 4000, 2**20
    numbers = np.resize([1, 8], n)
    cell = 40.0 * np.eye(3)
    frame = Atoms(numbers, rng.uniform(0, 40, (n, 3)), cell=cell, pbc=True)
    basis = RadialBasis.gto(4, 2.0)
    field = PowerLawPotential(1, 1.0)
    # In reciprocal space: nothing is shared but the structure factor.
    potential = lode.SphericalExpansion(
        field, basis, 4, tolerance=1e-2, method="reciprocal", center_atom_weight=0.0
    )
    descriptor = lode.PowerSpectrum(potential)
    next(descriptor.chunks(frame, memory=memory))

    def peak(rows_of):
        # Not what other tests have left.
        monkeypatch.setattr(parallel, "_spare", [])
        tracemalloc.start()
        assert sum(map(len, rows_of())) == n
        _, size = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return size / 2**20

    whole = peak(lambda: [descriptor.compute(frame, n_threads=1).values])
    pieces = peak(
        lambda: (x.values for x in descriptor.chunks(frame, memory=memory, n_threads=1))
    )
    # Features 5.8 MB and coefficients 13 MB of all atoms at a time; 12 MB are columns
    # of wave vectors, whatever the number of atoms.
    assert pieces < 15 < 28 < whole


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
def test_species_of_training_make_columns_of_prediction(descriptor):
    frame = Atoms([8, 8], [[0, 0, 0], [0, 0, 1.2]])
    x = descriptor.compute(frame, species=(1, 8))
    assert x.values.shape[1] == len(descriptor.labels((1, 8)))
    with pytest.raises(ValueError, match=r"among \[1\], got unknown \[8\]"):
        descriptor.compute(frame, species=(1,))


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=IDS)
def test_descriptors_survive_a_round_trip(descriptor):
    assert from_dict(to_dict(descriptor)) == descriptor


def test_expansions_of_another_kind_or_size_are_an_error():
    with pytest.raises(TypeError, match="expansion must be a Spher.*, got Gaussian"):
        lode.RadialSpectrum(GaussianDensity(0.3))
    with pytest.raises(TypeError, match="other must be a SphericalExpansion, got int"):
        lode.PowerSpectrum(RHO, 3)
    other = lode.SphericalExpansion(V.field, V.basis, L_MAX + 1)
    with pytest.raises(ValueError, match="the same max_angular, got"):
        lode.PowerSpectrum(RHO, other)
    other = lode.SphericalExpansion(V.field, V.basis, L_MAX, species=(1, 8))
    with pytest.raises(ValueError, match=r"the same species, got None and \(1, 8\)"):
        lode.PowerSpectrum(RHO, other)
