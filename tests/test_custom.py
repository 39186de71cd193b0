"""`snakemake custom`: from a file of structures to models, tables and figures."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.io import write

import lode
from lode.files import read_json

pytest.importorskip("matplotlib")
pytest.importorskip("snakemake")

from workflow_runs import ROOT, results_in, snakemake, workflow  # noqa: E402

from csv_tables import table  # noqa: E402
from custom import custom_page, custom_tables  # noqa: E402
from custom_frames import custom_frames  # noqa: E402
from custom_model import Task, custom_model, training_sizes  # noqa: E402
from plotting_custom import figure_parity  # noqa: E402

PLAN = {"extensive": None, "forces": "forces", "n_sparse": 40, "seed": 0}
SETTINGS = {
    **{"test_fraction": 0.25, "n_sizes": 2, "n_repeats": 2},
    **{"force_atoms": 40, "seed": 0, "digits": 3},
}
FILES = ("errors", "parity", "test", "cost")


def copper(n=24, slab=False):
    """Copper and gold with energies and forces of an effective medium."""
    frames = []
    for seed in range(n):
        surface = fcc111("Cu", (1, 1, 3), vacuum=6.0)
        atoms = surface if slab else bulk("Cu", cubic=True)
        atoms.info = {}
        atoms.numbers[seed % 2] = 79
        atoms.rattle(0.15, seed=seed)
        atoms.calc = EMT()
        atoms.get_forces()
        frames.append(atoms)
    return frames


def prepared(folder, frames, target="energy", **settings):
    """Files of the first rule, and what it says."""
    said = []
    write(folder / "mine.extxyz", frames)
    paths = [folder / name for name in ("frames.extxyz.gz", "targets.csv.gz", "p.json")]
    custom_frames(
        folder / "mine.extxyz",
        *paths,
        target=target,
        say=said.append,
        **(PLAN | settings),
    )
    return paths, said


def learnt(folder, inputs, name):
    """Files of one model."""
    paths = {kind: folder / f"{name}_{kind}.csv.gz" for kind in FILES}
    paths["model"] = folder / f"{name}.npz"
    custom_model(*inputs, paths, name=name, settings=SETTINGS, n_threads=1)
    return paths


@pytest.mark.parametrize("slab", [False, True])
def test_a_file_becomes_models_tables_and_figures(tmp_path, slab):
    frames = copper(slab=slab)
    inputs, said = prepared(tmp_path, frames)
    plan = read_json(inputs[2])
    assert "24 structures" in said[0]
    names = ["soap"] if slab else ["soap", "soap_multiscale"]
    assert set(names) <= set(plan["curves"])
    assert slab == (list(plan["curves"]) == ["soap"])
    found = {name: learnt(tmp_path, inputs, name) for name in names}
    errors = table(found["soap"]["errors"])
    assert [int(row["n_train"]) for row in errors] == [18, 18]
    (test,) = table(found["soap"]["test"])
    # 40 atoms: ten bulk cells or thirteen slabs.
    assert int(test["n_force_frames"]) == (13 if slab else 10)
    forces = np.concatenate([atoms.get_forces() for atoms in frames])
    assert float(test["force_rmse"]) < 0.5 * forces.std()
    paths = {name: tmp_path / f"{name}.csv" for name in ("parity", "errors", "cost")}
    rows, costs = custom_tables(plan, found, paths)
    assert [row[0] for row in rows] == [plan["curves"][n]["label"] for n in names]
    page = tmp_path / "page.md"
    about = {"data": "mine.extxyz", "version": "1", "unit": plan["unit"]}
    custom_page(page, plan, rows, costs, **about)
    assert "24 structures" in page.read_text("utf-8")
    parity = {name: table(files["parity"]) for name, files in found.items()}
    about = {"target": "energy", "provenance": "mine", "unit": "eV"}
    assert len(figure_parity(parity, **about).axes) == len(names)


def test_the_written_model_predicts_energies_and_forces_of_new_structures(tmp_path):
    frames = copper(30)
    inputs, _ = prepared(tmp_path, frames[:24])
    model = lode.load(learnt(tmp_path, inputs, "soap")["model"])
    found = model.predict(frames[24:], forces=True)
    expected = np.array([atoms.get_potential_energy() for atoms in frames[24:]])
    assert np.sqrt(np.mean((found.energy - expected) ** 2)) < 0.5 * expected.std()


def test_parity_is_of_structures_that_were_not_learnt_from(tmp_path):
    inputs, _ = prepared(tmp_path, copper())
    files = learnt(tmp_path, inputs, "soap")
    rows = table(files["parity"])
    values = [float(row["value_0"]) / 4 for row in table(inputs[1])]
    assert len(rows) == 6
    for row in rows:
        assert float(row["value"]) == pytest.approx(values[int(row["frame"])])
        assert float(row["std"]) > 0.0
    (test,) = table(files["test"])
    assert int(test["n_train"]) + int(test["n_test"]) == 24


def test_vectors_turn_with_the_structure(tmp_path):
    rng, frames = np.random.default_rng(0), []
    for i in range(24):
        atoms = molecule(["H2O", "NH3", "H2CO"][i % 3])
        atoms.rattle(0.05, rng=rng)
        atoms.rotate(rng.uniform(0, 360), rng.normal(size=3))
        centre = atoms.positions.mean(axis=0)
        atoms.info["mu"] = atoms.numbers @ (atoms.positions - centre)
        frames.append(atoms)
    inputs, _ = prepared(tmp_path, frames, "mu")
    files = learnt(tmp_path, inputs, "soap")
    errors = [float(row["rmse_percent"]) for row in table(files["errors"])]
    assert max(errors) < 20.0
    assert {row["component"] for row in table(files["parity"])} == {"0", "1", "2"}


def test_a_tensor_is_learnt_in_two_parts(tmp_path):
    frames = copper()
    for seed, atoms in enumerate(frames):
        a = np.random.default_rng(seed).normal(size=(3, 3))
        atoms.info["alpha"] = (a + a.T).ravel()
    inputs, _ = prepared(tmp_path, frames, "alpha", extensive=True)
    curves = read_json(inputs[2])["curves"]
    assert {curve["part"] for curve in curves.values()} == {"trace", "anisotropy"}
    task = Task(
        read_json(inputs[2]),
        curves["soap_trace"],
        frames,
        np.array([atoms.info["alpha"] for atoms in frames]),
        SETTINGS,
    )
    trace = np.trace(np.reshape(frames[3].info["alpha"], (3, 3)))
    assert task.values[3, 0] == pytest.approx(trace / 4)


def test_sizes_that_differ_ask_whether_the_target_grows(tmp_path):
    frames = [molecule(n) for n in ("H2O", "CH4", "NH3", "CO2", "N2", "O2") * 2]
    for i, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=i)
        atoms.info["gap"] = float(i)
    with pytest.raises(
        ValueError, match=r"custom\.extensive must be true if gap grows"
    ):
        prepared(tmp_path, frames, "gap")
    prepared(tmp_path, frames, "gap", extensive=False)


def test_the_first_structures_have_all_species_and_boundaries(tmp_path):
    frames = copper(20)
    lone = Atoms("AuH", [[0, 0, 0], [0, 0, 1.6]])
    lone.calc = EMT()
    lone.get_forces()
    inputs, _ = prepared(tmp_path, [*frames, lone])
    plan = read_json(inputs[2])
    task = Task(plan, plan["curves"]["soap"], [*frames, lone], np.eye(21, 1), SETTINGS)
    for seed in range(5):
        first = task.covering(np.random.default_rng(seed).permutation(21))
        assert 20 in first
        assert len(first) <= 3


def test_too_few_structures_to_learn_from_are_said():
    with pytest.raises(ValueError, match="at least 10 structures to learn from, got 8"):
        training_sizes(8, 4, 10)


def run(folder, *settings, **options):
    """A run of the target in a folder, by the sources that are here."""
    arguments = "custom", *results_in(folder, ROOT), "--cores", "2", "--config"
    return snakemake(folder, *arguments, *settings, package=ROOT, **options)


@workflow
def test_one_command_goes_from_a_file_to_a_model_and_says_what_is_strange(tmp_path):
    frames = copper(12, slab=True)
    write(tmp_path / "mine.extxyz", [*frames, frames[0]])
    output = run(tmp_path, "data=mine.extxyz", "custom={n_sparse: 20, n_repeats: 1}")
    assert "12 structures (12 slabs)" in output
    assert "note: frame 12 is a copy" in output
    results = tmp_path / "results" / "test"
    lode.load(results / "custom" / "soap.npz").predict(frames[:1], forces=True)
    names = {path.name for path in (results / "figures").iterdir()}
    assert {"custom.csv", "custom.pdf", "custom_parity.png", "custom.md"} <= names


@workflow
def test_custom_asks_for_data_and_stops_before_work_on_faulty_ones(tmp_path):
    assert "custom needs structures" in run(tmp_path, "target=energy", succeeds=False)
    frames = copper(12, slab=True)
    del frames[3].calc.results["energy"]
    write(tmp_path / "mine.extxyz", frames)
    output = run(tmp_path, "data=mine.extxyz", succeeds=False)
    assert "must have 'energy' in each frame, got none in frame 3 of 12" in output
    assert "rule custom_model" not in output
