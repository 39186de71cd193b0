"""Structures of one's own: what is read, what is refused, what is said."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from lode.datasets.labelled import composition_residual, described, read_labelled


def salt(n=12, **values):
    """Different rock-salt cells with an energy and forces."""
    rng, frames = np.random.default_rng(0), []
    for _ in range(n):
        atoms = bulk("NaCl", "rocksalt", a=5.6) * (1, 1, 2)
        atoms.rattle(0.1, rng=rng)
        atoms.info.update({name: value(rng) for name, value in values.items()})
        atoms.calc = SinglePointCalculator(
            atoms, energy=rng.normal(), forces=rng.normal(size=(4, 3))
        )
        frames.append(atoms)
    return frames


def written(tmp_path, frames, name="mine.extxyz"):
    write(tmp_path / name, frames)
    return tmp_path / name


@pytest.mark.parametrize("name", ["mine.extxyz", "mine.xyz", "mine.traj", "mine.db"])
def test_targets_and_forces_come_from_any_file_of_ase(tmp_path, name):
    frames = salt()
    path = tmp_path / name
    if path.suffix == ".xyz":
        write(path, frames, format="extxyz")
    else:
        write(path, frames)
    data = read_labelled(path, "energy", "forces")
    energies = [atoms.get_potential_energy() for atoms in frames]
    # Text has eight digits.
    np.testing.assert_allclose(data.values[:, 0], energies, atol=1e-7)
    np.testing.assert_allclose(data.forces[3], frames[3].get_forces(), atol=1e-7)
    assert data.remarks == []


@pytest.mark.parametrize("n", [1, 3, 9])
def test_a_target_may_be_a_number_a_vector_or_a_tensor(tmp_path, n):
    def symmetric(rng):
        a = rng.normal(size=(3, 3))
        return {1: a[0, 0], 3: a[0], 9: (a + a.T).ravel()}[n]

    frames = salt(mine=symmetric)
    data = read_labelled(written(tmp_path, frames), "mine")
    assert data.values.shape == (12, n)
    assert data.forces is None


def test_copies_are_left_out_and_said_with_what_they_differ_by(tmp_path):
    frames = salt()
    copy = frames[4].copy()
    copy.calc = SinglePointCalculator(copy, energy=99.0)
    data = read_labelled(written(tmp_path, [*frames, copy]), "energy")
    assert len(data.frames) == 12
    (remark,) = [r for r in data.remarks if "copy" in r]
    assert "frame 12 is a copy" in remark
    assert "differs by up to" in remark


def test_the_same_atoms_in_another_cell_are_no_copy(tmp_path):
    frames = salt()
    other = frames[0].copy()
    other.set_cell(other.cell * 1.1)
    other.calc = SinglePointCalculator(other, energy=1.0)
    data = read_labelled(written(tmp_path, [*frames, other]), "energy")
    assert len(data.frames) == 13


def test_strange_structures_are_said(tmp_path):
    frames = salt(40)
    frames[7].positions[1] = frames[7].positions[0] + [0.0, 0.0, 0.9]
    results = frames[9].calc.results
    results["energy"] = 1e4
    frames[11].calc.results["forces"] = np.full((4, 3), 80.0)
    del frames[2].calc.results["forces"]
    text = " ".join(
        read_labelled(written(tmp_path, frames), "energy", "forces").remarks
    )
    assert "atoms overlap in frame 7, the closest at 0.90 Å" in text
    assert "outlier in frame 9" in text
    assert "as large as 80 eV/Å in frame 11" in text
    assert "forces are in 39 of 40 frames" in text


def spoilt(kind):
    frames = salt(12, mine=lambda rng: rng.normal())
    if kind == "missing":
        del frames[3].info["mine"]
    elif kind == "nan":
        frames[3].info["mine"] = float("nan")
    elif kind == "shape":
        frames[3].info["mine"] = [1.0, 2.0]
    elif kind == "text":
        frames[3].info["mine"] = "unknown"
    elif kind == "same":
        for atoms in frames:
            atoms.info["mine"] = 1.0
    elif kind == "few":
        frames = frames[:4]
    elif kind == "place":
        frames[3].positions[1] = frames[3].positions[0]
    elif kind == "coordinates":
        frames[3].positions[0, 0] = np.nan
    return frames


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"must have 'mine' in each frame, got none in frame 3 of 12"),
        ("nan", r"mine must be finite, got \[nan\] in frame 3"),
        ("shape", r"one, three or nine numbers in all frames, got \[1, 2\]"),
        ("text", "mine must be numbers"),
        ("same", r"mine must differ between frames, got \[1.0\] in all"),
        ("few", "at least 10 different structures, got 4"),
        ("place", r"got atoms 0 and 1 at the same place \(frame 3\)"),
        ("coordinates", r"positions must be finite.*frame 3"),
    ],
)
def test_faults_are_one_clear_error(tmp_path, kind, message):
    path = written(tmp_path, spoilt(kind), "mine.traj")
    with pytest.raises(ValueError, match=message):
        read_labelled(path, "mine")


def test_a_file_that_is_not_there_or_no_file_of_structures_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a file of structures"):
        read_labelled(tmp_path / "none.xyz", "energy")
    path = tmp_path / "mine.cif"
    path.write_text("nothing")
    with pytest.raises(ValueError, match="must be a file that ASE reads"):
        read_labelled(path, "energy")


def test_composition_explains_a_sum_over_species():
    frames = [molecule(name) for name in ("H2O", "CH4", "NH3", "CO2", "C2H6", "H2O2")]
    energies = {1: -1.0, 6: -7.0, 7: -9.0, 8: -11.0}
    per_atom = [np.mean([energies[z] for z in atoms.numbers]) for atoms in frames]
    np.testing.assert_allclose(composition_residual(frames, per_atom), 0, atol=1e-12)


def test_description_counts_boundaries_and_sizes():
    slab = fcc111("Cu", (1, 1, 2), vacuum=5.0)
    text = described([molecule("H2O"), slab, bulk("Cu"), Atoms("H")])
    assert (
        text == "4 structures (2 finite, 1 slabs, 1 periodic) of 1 to 3 atoms: H, O, Cu"
    )
