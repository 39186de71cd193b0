"""The examples with forces: what their scripts compute."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from lode.archive import save_archive
from lode.datasets.acquire import SOURCES, acquire
from lode.datasets.force_dimers import read_force_dimers, synthetic_force_dimers
from lode.datasets.frames import read_frames, write_frames
from lode.datasets.salt import IonicSalt

pytest.importorskip("matplotlib")

from crystal import (  # noqa: E402
    elastic_constants,
    lattice_constant,
    optical_phonons,
)
from crystal_frames import crystal_frames, rock_salt  # noqa: E402
from csv_tables import table, write_table  # noqa: E402
from dynamics import energy_drift, microcanonical, recorded, thermalised  # noqa: E402
from force_dimer_model import COLUMNS as PREDICTIONS  # noqa: E402
from force_dimers_figure import COLUMNS, force_dimers_figure  # noqa: E402
from liquid import observed, rdf_deviation  # noqa: E402
from liquid_run import KIND  # noqa: E402

POTENTIAL = {"amplitude": 1092.0, "range": 0.321, "tolerance": 1e-9}


def test_pair_potentials_obey_cauchys_relation_where_the_pressure_vanishes():
    salt = IonicSalt(**POTENTIAL)
    constant = lattice_constant(salt, 5.7)
    c11, c12, c44 = elastic_constants(salt, constant)
    assert c12 == pytest.approx(c44, rel=1e-4)
    assert c11 > c12 > 0.0
    # The bulk modulus is the slope of the pressure.
    pressures = []
    for scale in (0.999, 1.001):
        atoms = rock_salt(scale * constant, (1, 1, 1))
        atoms.calc = salt
        pressures.append(-atoms.get_stress()[:3].mean() * 160.21766)
    bulk = -(pressures[1] - pressures[0]) / (3 * 0.002)
    assert bulk == pytest.approx((c11 + 2 * c12) / 3, rel=1e-3)


def test_longitudinal_waves_are_faster_by_the_field_of_their_charges():
    # Of rigid ions ω_LO² - ω_TO² = 4π e² / (μ Ω) where q vanishes.
    salt, constant = IonicSalt(**POTENTIAL), 5.69
    lo, to = optical_phonons(salt, constant, 16)
    reduced = 22.98976928 * 35.45 / (22.98976928 + 35.45)
    expected = 4 * np.pi * 14.399645 / (reduced * constant**3 / 4)
    # 1 eV/(Å² u) is (15.633 THz)².
    assert lo**2 - to**2 == pytest.approx(expected * 15.633**2, rel=0.01)


def test_drift_is_a_slope():
    time = np.linspace(0.0, 2.0, 50)
    assert energy_drift(time, 3.0 + 0.008 * time, 4) == pytest.approx(2.0)


def test_runs_at_constant_energy_keep_it():
    atoms = rock_salt(5.69, (1, 1, 1))
    atoms.calc = IonicSalt(**POTENTIAL)
    thermalised(atoms, 0.02, seed=0)
    momentum = np.abs(atoms.get_momenta().sum(axis=0)).max()
    assert momentum < 1e-12
    before = atoms.get_total_energy()
    kept = recorded(microcanonical(atoms, 1.0), 1.0, 0.02, 5, "")
    np.testing.assert_allclose(kept["time"], [0.005, 0.01, 0.015, 0.02])
    np.testing.assert_allclose(kept["total"], before, atol=1e-3)
    assert kept["positions"].shape == (4, 8, 3)
    assert kept["pressure"].shape == kept["side"].shape == (4,)


def walk(path, seed, n_times=160, n_atoms=60, side=12.0, spread=0.1):
    """A run of free particles that walk at random."""
    rng = np.random.default_rng(seed)
    steps = spread * rng.normal(size=(n_times, n_atoms, 3))
    positions = side * rng.random((n_atoms, 3)) + np.cumsum(steps, axis=0)
    kept = {
        "time": 0.05 * np.arange(1, n_times + 1),
        "total": np.full(n_times, 3.0),
        "pressure": np.full(n_times, 2.0),
        "side": np.full(n_times, side),
        "positions": positions,
    }
    header = {"version": 1, "species": np.repeat([11, 17], n_atoms // 2).tolist()}
    save_archive(path, KIND, header, kept)
    return path


def test_free_particles_have_no_structure_and_diffuse(tmp_path):
    runs = [walk(tmp_path / f"{seed}.npz", seed) for seed in range(3)]
    seen = observed(runs[:2], runs[2:])
    far = seen["r"] > 2.0
    np.testing.assert_allclose(seen["rdf"][:, far].mean(axis=1), 1.0, atol=0.05)
    # Of each time step 0.05 ps a variance of 0.1² Å² along each axis.
    expected = 0.1**2 / (2 * 0.05)
    np.testing.assert_allclose(seen["diffusion"], expected, rtol=0.25)
    assert seen["density"] == pytest.approx(60 / 12.0**3)
    assert seen["pressure"] == pytest.approx(2.0)
    assert seen["drift"] == pytest.approx(0.0, abs=1e-9)
    other = observed([walk(tmp_path / "5.npz", 5), walk(tmp_path / "6.npz", 6)], runs)
    assert rdf_deviation(seen, seen) == 0.0
    assert 0.7 < rdf_deviation(other, seen) < 1.6


def test_crystal_frames_have_what_a_model_learns(tmp_path):
    path = tmp_path / "frames.extxyz.gz"
    settings = {"constant": 5.69, "repeats": 1, "strain": 0.03, "displacement": 0.1}
    crystal_frames(path, n_frames=3, potential=POTENTIAL, seed=1, **settings)
    for frame in read_frames(path):
        forces, stress = frame.get_forces(), frame.get_stress()
        frame.calc = IonicSalt(**POTENTIAL)
        np.testing.assert_allclose(frame.get_forces(), forces, atol=1e-6)
        np.testing.assert_allclose(frame.get_stress(), stress, atol=1e-8)
        assert np.linalg.cond(frame.cell.array) > 1.0


class Springs:
    """An engine whose energy is that of each atom on a spring to the origin."""

    def energy_and_forces(self, atoms, charge):
        assert charge == 0
        return 0.5 * float(np.sum(atoms.positions**2)), -atoms.positions


CORNERS = 0.6 * np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
FORMATE = [(0, 0, 0), (0, 0, 1.1), (1.1, 0, -0.6), (-1.1, 0, -0.6)]
MOLECULES = [
    ("ammonium", Atoms("NH4", [(0, 0, 0), *CORNERS]), 1),
    ("formate", Atoms("CHO2", FORMATE), -1),
    ("hydrogen", Atoms("H2", [(0, 0, 0), (0, 0, 0.74)]), 0),
]


def test_stand_in_dimers_are_pulled_apart_and_have_opposite_charges(tmp_path):
    settings = {"n_dimers": 3, "n_points": 4, "step": 0.5, "displacement": 0.01}
    frames = synthetic_force_dimers(Springs(), MOLECULES, seed=0, **settings)
    assert len(frames) == 12
    for i, frame in enumerate(frames):
        assert frame.get_chemical_formula() == "CH5NO2"
        charges = frame.get_initial_charges()
        assert charges.sum() == pytest.approx(0.0)
        assert charges.max() == pytest.approx(1.0)
        if i % 4:
            step = frame.info["distance"] - frames[i - 1].info["distance"]
            assert step == pytest.approx(0.5)
    path = tmp_path / "frames.extxyz.gz"
    write_frames(path, frames)
    again = read_force_dimers(path)
    assert again[5].get_potential_energy() == pytest.approx(
        frames[5].get_potential_energy()
    )
    np.testing.assert_allclose(again[5].get_forces(), frames[5].get_forces(), atol=1e-7)
    with pytest.raises(ValueError, match="n_points and step must be positive"):
        synthetic_force_dimers(Springs(), MOLECULES, seed=0, **settings | {"step": 0.0})


@pytest.mark.parametrize("lacks", ["energy", "forces", "distance"])
def test_dimers_that_lack_something_are_refused(lacks, tmp_path):
    atoms = MOLECULES[1][1].copy()
    atoms.info["distance"] = 3.0
    results = {"energy": 1.0, "forces": np.zeros((4, 3))}
    if lacks == "distance":
        del atoms.info["distance"]
    else:
        del results[lacks]
    atoms.calc = SinglePointCalculator(atoms, **results)
    write_frames(tmp_path / "frames.extxyz", [atoms])
    with pytest.raises(ValueError, match=rf"got none for {lacks} \(frame 0\)"):
        read_force_dimers(tmp_path / "frames.extxyz")


def test_published_dimers_are_those_of_the_pinned_file(tmp_path):
    mirror = os.environ.get("LODE_DATA")
    name = SOURCES["force_dimers"]["published"].name
    if mirror is None or not (Path(mirror) / name).exists():
        pytest.skip("the published dimers with forces are not in LODE_DATA")
    record = acquire("force_dimers", tmp_path, source="published", mirror=mirror)
    frames = read_force_dimers(tmp_path / record["file"])
    assert len(frames) == 130
    distances = np.array([frame.info["distance"] for frame in frames])
    assert (distances < 6.0).sum() == 75


def test_errors_of_dimers_are_by_composition_and_the_best_is_by_cross_validation(
    tmp_path,
):
    rows = [
        ("CO", 5.0, 1.0, 1.1, 0.01, 0.05, "train"),
        ("CO", 7.0, 1.0, 1.2, 0.04, 0.1, "test"),
        ("HF", 7.0, 2.0, 1.6, 0.16, 0.3, "test"),
    ]
    models = {
        "a": {"label": "SOAP", "point_charges": False},
        "b": {"label": "LODE", "point_charges": True},
    }
    predictions, crosses = {}, {}
    for name in models:
        predictions[name] = tmp_path / f"{name}.csv.gz"
        crosses[name] = tmp_path / f"{name}_cross.csv.gz"
        write_table(predictions[name], PREDICTIONS, rows)
        cells = [(1.0 if name == "a" else 0.5, 1e-6)]
        write_table(crosses[name], ["cross_validation", "regularization"], cells)
    out = tmp_path / "table.csv"
    paths = [tmp_path / "figure.pdf", tmp_path / "figure.png"]
    force_dimers_figure(models, predictions, crosses, out, paths, provenance="a test")
    found = table(out)
    assert list(found[0]) == list(COLUMNS)
    assert [row["composition"] for row in found] == 2 * ["all", "CO", "HF"]
    total = found[0]
    assert total["n_train"] == "1"
    assert total["n_test"] == "2"
    expected = 1e3 * np.sqrt((0.2**2 + 0.4**2) / 2)
    assert float(total["energy_rmse_meV"]) == pytest.approx(expected, rel=1e-2)
    expected = 1e3 * np.sqrt((0.04 + 0.16) / 2)
    assert float(total["force_rmse_meV_A"]) == pytest.approx(expected, rel=1e-2)
    assert float(total["force_mae_meV_A"]) == pytest.approx(200.0)
    assert found[3]["baseline"] == "point charges"
    assert paths[0].read_bytes().startswith(b"%PDF")
