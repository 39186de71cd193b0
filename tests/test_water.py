"""Boxes of water: reader, features, dipole model, stand-in."""

import os
from pathlib import Path

import numba
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from lode.datasets import water
from lode.datasets.acquire import SOURCES, acquire
from lode.datasets.water import (
    dipole_epsilon,
    geometry_features,
    read_boxes,
    synthetic_boxes,
)

SLOW = bool(numba.config.DISABLE_JIT)
MIRROR = os.environ.get("LODE_DATA")
mirrored = pytest.mark.skipif(
    not MIRROR, reason="LODE_DATA does not name a folder with the published data"
)
# The fewest molecules, so that the loops may run as plain Python
SMALL = {"n_molecules": 8, "n_sweeps": 3, "n_burn_in": 20}
EPSILON = np.array([[1.9, 0.02, 0.01], [0.02, 1.8, -0.03], [0.01, -0.03, 1.7]])


def frame(n=3, side=9.0):
    """Molecules across the faces of the cell, tensors of three kinds."""
    atoms = Atoms()
    for i in range(n):
        one = molecule("H2O")
        one.rotate(70.0 * i, (1, 2, 3), center=one.positions[0])
        one.positions += [3.1 * i, -0.2, side * (i - 1) + 0.1]
        atoms += one
    atoms.cell, atoms.pbc = [side] * 3, True
    atoms.info = {
        "epsilon": EPSILON.ravel(),
        "alpha": 10.0 * EPSILON.ravel(),
        "mu": np.ones(3),
    }
    return atoms


def read_back(tmp_path, *frames):
    write(tmp_path / "boxes.xyz", frames, format="extxyz")
    return read_boxes(tmp_path / "boxes.xyz")


@pytest.fixture(scope="module")
def published():
    return read_boxes(Path(MIRROR, "water_bulk_coords_1000.xyz"))


@pytest.fixture(scope="module")
def small():
    return synthetic_boxes(10, seed=1, n_threads=1, **SMALL)


def test_only_the_dielectric_tensor_survives_reading(tmp_path):
    atoms = frame()
    atoms.arrays["alpha"] = np.ones(len(atoms))
    (box,) = read_back(tmp_path, atoms)
    assert set(box.info) == {"epsilon", "epsilon_trace"}
    assert set(box.arrays) == {"numbers", "positions"}
    assert box.calc is None
    np.testing.assert_allclose(box.info["epsilon"], EPSILON, rtol=0, atol=1e-15)
    assert box.info["epsilon_trace"] == pytest.approx(5.4, abs=1e-12)


def test_molecules_are_whole_with_their_oxygens_in_the_cell(tmp_path):
    atoms = frame()
    # Other images of single atoms, which a reader that wraps atoms would not mind
    torn = atoms.copy()
    torn.positions[4] += [9.0, 0.0, -18.0]
    torn.positions[0] += [0.0, 27.0, 0.0]
    for box in read_back(tmp_path, atoms, torn):
        sites = box.positions.reshape(-1, 3, 3)
        assert (sites[:, 0] >= 0.0).all()
        assert (sites[:, 0] < 9.0).all()
        np.testing.assert_array_equal(box.numbers, [8, 1, 1] * 3)
        bonds = np.linalg.norm(sites[:, 1:] - sites[:, :1], axis=2)
        np.testing.assert_allclose(bonds, 0.969, atol=1e-3)
        distances = box.get_all_distances(mic=True)
        np.testing.assert_allclose(
            distances, atoms.get_all_distances(mic=True), atol=1e-7
        )


def test_atoms_in_any_order_are_sorted_by_molecule(tmp_path):
    atoms = frame()
    plain, mixed = read_back(tmp_path, atoms, atoms[[1, 5, 0, 3, 2, 8, 6, 4, 7]])
    np.testing.assert_array_equal(mixed.numbers, [8, 1, 1] * 3)
    np.testing.assert_allclose(
        geometry_features([mixed]), geometry_features([plain]), rtol=1e-9
    )


def test_features_are_the_density_and_the_mean_shape():
    features = geometry_features([frame(), frame(2, side=10.0)])
    one = molecule("H2O")
    shape = [one.get_distance(0, 1), np.radians(one.get_angle(1, 0, 2))]
    np.testing.assert_allclose(features[:, 0], [9.0**-3, 1e-3], rtol=1e-12)
    np.testing.assert_allclose(features[:, 1:], [shape, shape], rtol=1e-9)


def without_tensor(atoms):
    del atoms.info["epsilon"]


def broken(atoms):
    atoms.positions[1] += [0.0, 3.0, 0.0]


def two_hydrogens_of_one(atoms):
    atoms.positions[1] = atoms.positions[3] + [0.0, -0.9, 0.1]


def not_cubic(atoms):
    atoms.cell = [9.0, 9.0, 9.1]


def skewed(atoms):
    atoms.cell = [[9, 0, 0], [1, 9, 0], [0, 0, 9]]


def without_cell(atoms):
    atoms.cell, atoms.pbc = None, False


def other_element(atoms):
    atoms.symbols[0] = "S"


def short_tensor(atoms):
    atoms.info["epsilon"] = EPSILON[:2].ravel()


def worded_tensor(atoms):
    atoms.info["epsilon"] = "none"


def infinite_tensor(atoms):
    atoms.info["epsilon"] = np.where(EPSILON == 1.9, np.inf, EPSILON).ravel()


def asymmetric_tensor(atoms):
    atoms.info["epsilon"] = EPSILON.ravel() + 0.1 * (np.arange(9) == 1)


def hydrogen_lost(atoms):
    del atoms[2]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (without_tensor, "a frame must have the info key epsilon"),
        (broken, r"molecules must be whole, got no O within 1.4 Å of the H"),
        (two_hydrogens_of_one, "molecules must be H2O, got 1 H nearest to the O"),
        (not_cubic, "periodic with a cubic cell along the axes, got cell"),
        (skewed, "periodic with a cubic cell along the axes, got cell"),
        (without_cell, r"periodic with a cubic cell .* pbc \[False"),
        (other_element, r"must hold H and O only, got \['S'\]"),
        (short_tensor, "epsilon must be 9 finite numbers, got"),
        (worded_tensor, "epsilon must be 9 finite numbers, got"),
        (infinite_tensor, "epsilon must be 9 finite numbers, got"),
        (asymmetric_tensor, "symmetric within 0.005, got a difference of 0.1"),
        (hydrogen_lost, "must hold two H for each O, got 5 H and 3 O"),
    ],
)
def test_a_bad_frame_gives_one_clear_error_with_its_number(tmp_path, fault, message):
    atoms = frame()
    fault(atoms)
    with pytest.raises(ValueError, match=f"boxes.xyz, frame 1: .*{message}"):
        read_back(tmp_path, frame(), atoms)


def test_a_damaged_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "boxes.xyz"
    with pytest.raises(FileNotFoundError):
        read_boxes(path)
    path.write_text("6\nLattice=")
    with pytest.raises(ValueError, match="must be a whole extended-xyz file"):
        read_boxes(path)
    path.write_text("")
    with pytest.raises(ValueError, match=r"boxes\.xyz must"):
        read_boxes(path)


def test_features_name_the_frame_that_is_no_water():
    with pytest.raises(ValueError, match="frame 1: a box must hold H and O only"):
        geometry_features([frame(), Atoms("Na", cell=[9.0] * 3, pbc=True)])


def test_dipole_model_heeds_no_image_and_no_order():
    atoms = frame(2)
    tensor = dipole_epsilon(atoms)
    moved = atoms[[3, 5, 4, 0, 2, 1]]
    moved.positions[1] += [9.0, -9.0, 0.0]
    np.testing.assert_allclose(dipole_epsilon(moved), tensor, atol=1e-9)
    assert np.linalg.eigvalsh(tensor).min() > 1.0


def test_stand_in_has_the_form_of_the_published_boxes(small, tmp_path):
    boxes = read_back(tmp_path, *small)
    for box, back in zip(small, boxes, strict=True):
        assert set(box.info) == {"epsilon", "epsilon_trace"}
        assert box.get_chemical_formula() == "H16O8"
        assert back == box
        np.testing.assert_allclose(
            back.info["epsilon"], box.info["epsilon"], rtol=0, atol=1e-8
        )
        np.testing.assert_array_equal(dipole_epsilon(box), box.info["epsilon"])
        sides = box.cell.lengths() * 4 ** (1 / 3)
        assert 9.4831 - 1e-6 <= sides.min() <= sides.max() <= 10.43991 + 1e-6


def test_a_box_depends_neither_on_the_threads_nor_on_how_many_are_made(small, capsys):
    boxes = synthetic_boxes(9, seed=1, n_threads=3, progress=True, **SMALL)
    assert "Water" in capsys.readouterr().err
    for few, many in zip(boxes, small, strict=False):
        assert few == many
        np.testing.assert_array_equal(few.info["epsilon"], many.info["epsilon"])
    other = synthetic_boxes(1, seed=2, n_threads=1, **SMALL)[0]
    assert other.cell[0, 0] != small[0].cell[0, 0]


def test_steps_are_adapted_in_the_burn_in_only():
    stream = np.random.SeedSequence(1)
    chain = water._Chain(stream, 8, 20)
    assert chain.steps.tolist() != [0.15, 0.3]
    steps = chain.steps.copy()
    chain.box(20)
    np.testing.assert_array_equal(chain.steps, steps)


@pytest.mark.skipif(SLOW, reason="millions of moves")
def test_acceptance_is_as_wanted_and_the_noise_as_stated():
    chain = water._Chain(np.random.SeedSequence(1), 32, 300)
    accepted = chain._swept(200)
    # Wanted are 0.4; the last steps were chosen after 10 sweeps of 64 moves.
    np.testing.assert_allclose(accepted[:, 0] / accepted[:, 1], 0.4, atol=0.08)
    features = geometry_features([chain.box(1) for _ in range(40)])
    # Standard errors of 2560 bonds and 1280 angles: 0.0014 Å, 0.0025 rad
    np.testing.assert_allclose(features[:, 1:].mean(axis=0), [1.0, 1.9106], atol=0.01)
    spread = features[:, 1:].std(axis=0) * np.sqrt([64, 32])
    np.testing.assert_allclose(spread, [0.07, 0.09], rtol=0.4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_frames": 0}, "n_frames must be an integer >= 1, got 0"),
        ({"n_frames": True}, "n_frames must be an integer >= 1, got True"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"n_molecules": 7}, "n_molecules must be an integer >= 8, got 7"),
        ({"n_molecules": 1.5}, "n_molecules must be an integer >= 8, got 1.5"),
        ({"n_sweeps": 0}, "n_sweeps must be an integer >= 1, got 0"),
        ({"n_burn_in": -1}, "n_burn_in must be an integer >= 0, got -1"),
        ({"n_threads": 0}, "n_threads must be a positive whole number, got 0"),
    ],
)
def test_wrong_settings_give_one_clear_error(settings, message):
    with pytest.raises(ValueError, match=message):
        synthetic_boxes(**{"n_frames": 1, **SMALL, **settings})


@mirrored
def test_mirror_holds_the_published_file(tmp_path):
    record = acquire("water", tmp_path, source="published", mirror=MIRROR, offline=True)
    file = SOURCES["water"]["published"]
    assert record["git_blob"] == file.git_blob
    assert (tmp_path / file.name).is_file()


@mirrored
def test_published_boxes_have_the_known_targets_and_sides(published):
    targets = np.array([box.info["epsilon_trace"] for box in published])
    assert len(published) == 1000
    assert targets.mean() == pytest.approx(5.4676, abs=5e-5)
    assert targets.std() == pytest.approx(0.1388, abs=5e-5)
    sides = [box.cell[0, 0] for box in published]
    assert min(sides) == pytest.approx(9.483, abs=5e-4)
    assert max(sides) == pytest.approx(10.440, abs=5e-4)
    assert {box.get_chemical_formula() for box in published} == {"H64O32"}
    assert {key for box in published for key in box.info} == {
        "epsilon",
        "epsilon_trace",
    }


@mirrored
@pytest.mark.parametrize(("columns", "share"), [(1, 0.33), (3, 0.078)])
def test_published_boxes_have_the_known_baselines(published, columns, share):
    targets = np.array([box.info["epsilon_trace"] for box in published])
    features = geometry_features(published)[:, :columns]
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    features = np.column_stack([np.ones(len(features)), features])
    errors = []
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(1000)
        train, test = order[:800], order[800:]
        weights = np.linalg.lstsq(features[train], targets[train], rcond=None)[0]
        residual = features[test] @ weights - targets[test]
        errors.append(np.sqrt(np.mean(residual**2)) / targets.std())
    # The standard error of eight splits of 200 is 2 % of the value.
    assert np.mean(errors) == pytest.approx(share, rel=0.04)


@mirrored
@pytest.mark.skipif(SLOW, reason="96 dipoles take minutes as plain Python")
@pytest.mark.parametrize(
    ("every", "least"), [(10, 0.98), pytest.param(1, 0.99, marks=pytest.mark.slow)]
)
def test_dipole_model_follows_dft_without_a_fit(published, every, least):
    chosen = published[::every]
    targets = np.array([box.info["epsilon_trace"] for box in chosen])
    model = np.array([np.trace(dipole_epsilon(box)) for box in chosen])
    assert np.corrcoef(model, targets)[0, 1] >= least
    assert np.polyfit(model, targets, 1)[0] == pytest.approx(1.0, abs=0.05)
