"""The gas of the paper's authors: a file of its form, from the mirror to energies."""

import dataclasses
import inspect

import ase.io
import numpy as np
import pytest
from ase.units import Hartree

import energies as energies_script
import gas as gas_script
import source as source_script
import summary as summary_script
from csv_tables import table
from fig1 import gas_provenance
from lode.datasets import acquire
from lode.datasets.frames import read_frames
from lode.datasets.gas import (
    RECIPE,
    check_published_energies,
    gas_frames,
    read_published_gas,
)
from lode.electrostatics import ewald_energies

SMALL = {"n_pairs": 4, "side": (7.0, 9.0), "min_distance": 2.0, "seed": 1}
N_FRAMES = 3


@pytest.fixture(scope="module")
def own():
    """Frames with their energies in eV."""
    frames = gas_frames(N_FRAMES, **SMALL)
    return frames, ewald_energies(frames)


@pytest.fixture
def published(own, tmp_path):
    """Writes a file as the authors' is: an extended XYZ without charges."""

    def written(unit=1.0, change=lambda atoms: None):
        frames = []
        for atoms, energy in zip(*own, strict=True):
            frame = atoms.copy()
            frame.set_initial_charges(None)
            # An atom may lie outside of its box.
            frame.positions[0] += frame.cell[1]
            frame.info["energy"] = energy / unit
            frames.append(frame)
        change(frames[1])
        path = tmp_path / "coords_with_energies.xyz"
        ase.io.write(path, frames, format="extxyz")
        return path

    return written


def test_recipe_of_the_paper_is_what_is_made_by_default():
    defaults = inspect.signature(gas_frames).parameters
    assert {key: defaults[key].default for key in RECIPE} == RECIPE


@pytest.mark.parametrize(("unit", "name"), [(1.0, "eV"), (Hartree, "Hartree")])
def test_published_frames_are_charges_whose_energies_are_ours(
    own, published, unit, name
):
    frames = read_published_gas(published(unit))
    found = ewald_energies(frames)
    np.testing.assert_allclose(found, own[1], rtol=1e-9)
    for made, atoms in zip(frames, own[0], strict=True):
        charges = made.get_initial_charges()
        np.testing.assert_array_equal(charges, atoms.get_initial_charges())
        assert made.pbc.all()
    lines = []
    check_published_energies(frames, found, log=lines.append)
    assert lines[0].startswith(f"{N_FRAMES} published energies in {name}, within ")


def test_first_frames_are_taken_and_too_few_refused(published):
    path = published()
    whole = read_published_gas(path)
    assert read_published_gas(path, 2) == whole[:2]
    # A chunk of them, in the middle.
    assert read_published_gas(path, 1, first=1) == whole[1:2]
    for n_frames, first in ((4, 0), (2, 2)):
        with pytest.raises(ValueError, match="must hold 4 frames at least, got 3"):
            read_published_gas(path, n_frames, first=first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.symbols.__setitem__(0, "K"), "frame 2: .* as many Na as Cl"),
        (lambda a: a.__delitem__(0), "frame 2: .* as many Na as Cl"),
        (lambda a: a.info.pop("energy"), "frame 2: there must be a finite energy"),
        (lambda a: a.info.update(energy=np.inf), "frame 2: there must be a finite"),
        (lambda a: a.info.update(energy="low"), "frame 2: there must be a finite"),
        (
            lambda a: (a.set_pbc(False), a.set_cell(None)),
            "frame 2: .* must have a Latt",
        ),
        (lambda a: a.positions.__setitem__((0, 0), np.nan), "frame 2: .*be finite"),
    ],
)
def test_published_frame_of_another_form_is_refused_by_its_number(
    published, change, message
):
    with pytest.raises(ValueError, match=message):
        read_published_gas(published(change=change))


@pytest.mark.parametrize(
    ("unit", "factor"),
    # kcal/mol, and one frame that is off by more than rounding.
    [(0.0433641, 1.0), (1.0, 1.01), (Hartree, -1.0)],
)
def test_energies_that_are_not_coulombs_are_refused(published, unit, factor):
    def change(atoms):
        atoms.info["energy"] *= factor

    frames = read_published_gas(published(unit, change))
    ours = ewald_energies(frames)
    with pytest.raises(
        ValueError, match=r"in one of \['eV', 'Hartree'\], got .* where"
    ):
        check_published_energies(frames, ours)


def test_energies_of_some_frames_alone_are_refused(own, published):
    frames = [*read_published_gas(published()), own[0][0]]
    with pytest.raises(ValueError, match="a published energy or none, got 3 of 4"):
        check_published_energies(frames, ewald_energies(frames))
    check_published_energies(own[0], own[1])


def test_published_gas_goes_from_a_mirror_to_energies(
    own, published, tmp_path, monkeypatch
):
    path = published(Hartree)
    file = acquire.SOURCES["gas"]["published"]
    pinned = dataclasses.replace(file, git_blob=acquire.git_blob(path))
    monkeypatch.setitem(acquire.SOURCES, "gas", {"published": pinned})
    results = tmp_path / "results"
    provenance = results / "gas" / "provenance.json"
    source_script.source(provenance, "gas", source="auto", mirror=tmp_path)
    frames, energies = results / "gas.extxyz.gz", results / "energies.csv.gz"
    settings = SMALL | {"n_frames": 2}
    gas_script.gas(frames, **settings, provenance_path=provenance)
    assert len(read_frames(frames)) == 2
    energies_script.energies(frames, energies, tolerance=1e-10, n_threads=1)
    found = [float(row["energy"]) for row in table(energies)]
    np.testing.assert_allclose(found, own[1][:2], rtol=1e-9)
    # Where the numbers come from, in the title and in the table of claims.
    line = gas_provenance(provenance, settings, "0.1")
    assert line.startswith("2 frames, published: random NaCl of the paper's authors (")
    assert summary_script.gas_data(provenance, settings) == "published"


def test_gas_is_generated_unless_the_published_one_is_asked_for(tmp_path):
    record = acquire.acquire("gas", tmp_path, source="generated", offline=True)
    assert record["title"] == "random point charges"
    frames = tmp_path / "gas.extxyz.gz"
    provenance = tmp_path / "provenance.json"
    gas_script.gas(frames, n_frames=2, **SMALL, provenance_path=provenance)
    own = gas_frames(2, **SMALL)
    for made, atoms in zip(read_frames(frames), own, strict=True):
        np.testing.assert_array_equal(made.positions, atoms.positions)
