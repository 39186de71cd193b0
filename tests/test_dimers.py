"""Charged dimers: readers, curves, checks, engines, stand-in, restart."""

import contextlib
import gzip
import logging
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from ase.units import Hartree, kcal, mol

from lode.datasets.acquire import SOURCES, git_blob
from lode.datasets.curves import (
    COULOMB,
    Curves,
    checks,
    curve_distances,
    curve_energies,
    dimer_curve,
    displaced,
    joined_curves,
    part_of,
    published_curves,
    reference_curves,
)
from lode.datasets.dimers import (
    charged_dimers,
    dimer,
    formal_charge,
    read_dimers,
    read_published_curves,
    read_ssi,
    separation,
    subset,
)
from lode.datasets.engines import Calculation, Mopac, PySCF, engine, unsound
from lode.datasets.synthetic import monomers, synthetic_dimers

ROOT = Path(__file__).resolve().parents[1]
MIRROR = os.environ.get("LODE_DATA")
mirrored = pytest.mark.skipif(
    not MIRROR, reason="LODE_DATA does not name a folder with the published data"
)
FAR = (10.0, 12.5, 15.0, 20.0, 25.0)


@dataclass(frozen=True)
class PointCharges:
    """Engine of molecules that are one point charge each, with chosen faults.

    A structure is a dimer if it has both oxygen and nitrogen; the charge sits on
    these atoms. Energies per atom are far from zero, as those of real engines are.
    """

    leak: float = 0.0
    fault: str = ""
    at: float = 0.0
    pause: float = 0.0
    version: str = "1"
    name: str = "point charges"

    def calculations(self, frames, charges):
        return [self.one(*pair) for pair in zip(frames, charges, strict=True)]

    def one(self, atoms, charge):
        time.sleep(self.pause)
        reason = unsound(atoms, charge)
        if reason:
            return Calculation.failed(reason)
        energy, q = 100.0 * len(atoms), np.zeros(len(atoms))
        both = {7, 8} <= set(atoms.numbers.tolist())
        if not both:
            q[0] = charge
            return Calculation(energy, q)
        a, b = np.flatnonzero(atoms.numbers == 7)[0], np.flatnonzero(atoms.numbers == 8)
        q[a], q[b[0]] = 1 - self.leak, charge - 1 + self.leak
        distance = atoms.get_distance(a, b[0])
        if self.fault and distance >= self.at:
            if self.fault == "crash":
                os._exit(3)
            bad = {"nan": math.nan, "inf": math.inf}
            if self.fault in bad:
                return Calculation(bad[self.fault], q)
            return Calculation.failed(self.fault)
        return Calculation(energy + COULOMB * (charge - 1) / distance, q)

    def relaxed(self, atoms, charge):
        assert unsound(atoms, charge) == ""
        return atoms.copy()


def ion_pair(name="pair", distance=4.0, charge_b=-1):
    """Ammonium with hydroxide or water, nitrogen and oxygen at the centroids.

    No engine but that of point charges takes it: the atoms of hydroxide coincide.
    """
    ammonium = [[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]
    sides = [0] if charge_b else [0.9, -0.9]
    other = [[0, 0, distance], *([x, 0, distance] for x in sides)]
    symbols = "NH4OH" if charge_b else "NH4OH2"
    atoms = Atoms(symbols, np.array([*ammonium, *other], dtype=float))
    return dimer(atoms, 5, 1, charge_b, name, reference=-3.0)


# Readers.

SSI_ENTRY = """
GEOS['%s-%s-dimer' % (dbse, '{name}')] = qcdb.Molecule(\"\"\"
{charge} 1
N        0.00000000     0.00000000     0.00000000
H        1.00000000     0.00000000     0.00000000
H       -1.00000000     0.00000000     0.00000000
H        0.00000000     1.00000000     0.00000000
H        0.00000000    -1.00000000     0.00000000
{line}
-1 1
O        0.00000000     0.00000000     4.00000000
H        0.00000000     0.00000000     5.00000000
units angstrom
\"\"\")
"""
SSI_HEAD = """
import qcdb
raise RuntimeError("this file must never be executed")
dbse = 'SSI'
BIND_BRONZE = {}
"""


def ssi_text(names=("001ARG-005ASP-1", "002LYS-006GLU-2"), label="BIND_BRONZE"):
    text = SSI_HEAD
    for i, name in enumerate(names):
        text += f"{label}['%s-%s' % (dbse, '{name}')] =  -{100 + i}.5  \n"
    text += "BIND = BIND_BRONZE\n" if label == "BIND_BRONZE" else ""
    return text + "".join(SSI_ENTRY.format(name=n, charge=1, line="--") for n in names)


@pytest.mark.parametrize("label", ["BIND_BRONZE", "BIND", "BIND_SILVER"])
def test_ssi_is_read_as_text(tmp_path, label):
    path = tmp_path / "SSI.py"
    path.write_text(ssi_text(label=label))
    first, second = read_ssi(path)
    assert first.info == {
        "name": "SSI-001ARG-005ASP-1",
        "subset": "0c",
        "charge": 0,
        "charge_a": 1,
        "charge_b": -1,
        "n_atoms_a": 5,
        "e_int_ref_ev": -100.5 * kcal / mol,
    }
    assert str(first.symbols) == "NH4OH"
    assert first.positions[5].tolist() == [0.0, 0.0, 4.0]
    assert second.info["e_int_ref_ev"] == pytest.approx(-101.5 * kcal / mol)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("--\n", "\n", "entry 001ARG-005ASP-1: one line -- must part .*got 0"),
        ("--\n", "--\n-1 1\nH 0 0 9\n--\n", "entry 001ARG-005ASP-1: one line -- .*2"),
        (
            "BIND_BRONZE['%s-%s' % (dbse, '001ARG-005ASP-1')]",
            "# BIND",
            "entry 001ARG-005ASP-1: there must be a reference energy, got none",
        ),
        ("-100.5", "os.system('ls')", r"001ARG-005ASP-1: .* a number, got \"os\.sys"),
        ("units angstrom", "units bohr", "units must be angstrom, got .'units bohr'"),
        ("units angstrom\n", "", r"units must be angstrom, got \[\]"),
        ("\n1 1\n", "\n", "must begin with charge and multiplicity, got .'N "),
        ("\n1 1\n", "\n1 2\n", "the multiplicity must be 1, got 2"),
        ("\nN   ", "\nXx   ", "an atom must be a symbol and three .*got 'Xx"),
        ("4.00000000\n", "4.0a\n", "entry 001ARG.*three coordinates, got 'O .*4.0a'"),
        ("4.00000000\n", "\n", "entry 001ARG-005ASP-1: an atom must be a symbol"),
        ("-1 1\nO        0.00000000     0.00000000     4.00000000\n", "-1 1\n", None),
        ("002LYS-006GLU-2-", "001ARG-005ASP-1-", None),
        ('qcdb.Molecule("""', 'qcdb.Molecule("', "must be a qcdb.Molecule"),
        ("BIND = BIND_BRONZE\n", "BIND_X['%s-%s' % (dbse, 'a')] = 1\n", "which set"),
    ],
)
def test_malformed_ssi_entry_is_named(tmp_path, old, new, message):
    path = tmp_path / "SSI.py"
    text = ssi_text()
    assert old in text or message is None
    text = text.replace(old, new, 1)
    if message is None and "002LYS" in old:
        # A second geometry under the first one's name.
        text += SSI_ENTRY.format(name="001ARG-005ASP-1", charge=1, line="--")
        message = "entry 001ARG-005ASP-1: there must be one geometry, got two"
    if message is None:
        text = text.replace(
            "H        0.00000000     0.00000000     5.00000000\n", "", 1
        )
        message = "entry 001ARG-005ASP-1: a molecule must have atoms, got none"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_ssi(path)


def test_ssi_without_geometries_or_cut_off_is_an_error(tmp_path):
    path = tmp_path / "SSI.py"
    path.write_text(SSI_HEAD)
    with pytest.raises(ValueError, match="must hold geometries of dimers, got none"):
        read_ssi(path)
    path.write_text(ssi_text()[:-60])
    with pytest.raises(ValueError, match="entry 002LYS-006GLU-2: the geometry must be"):
        read_ssi(path)


@pytest.mark.parametrize("ending", ["xyz", "extxyz", "extxyz.gz"])
def test_written_dimers_read_back_the_same(tmp_path, ending):
    kept = [ion_pair("b"), ion_pair("a", 3.3, charge_b=0)]
    path = tmp_path / f"dimers.{ending}"
    write(tmp_path / "plain.extxyz", kept)
    content = (tmp_path / "plain.extxyz").read_bytes()
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    for made, back in zip(kept, read_dimers(path), strict=True):
        assert back.info == made.info
        np.testing.assert_array_equal(back.positions, made.positions)
        assert not back.pbc.any()


def test_damaged_file_of_dimers_is_one_clear_error(tmp_path):
    path = tmp_path / "dimers.extxyz.gz"
    write(tmp_path / "plain.extxyz", [ion_pair()])
    content = (tmp_path / "plain.extxyz").read_bytes()
    for damaged in (gzip.compress(content)[:-9], content, gzip.compress(content[:200])):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="must be a whole extended-xyz file"):
            read_dimers(path)
    atoms = ion_pair()
    del atoms.info["charge_b"]
    write(tmp_path / "lacking.extxyz", [ion_pair("x"), atoms])
    message = r"frame 1: a dimer must have the info keys \['charge_b'\]"
    with pytest.raises(ValueError, match=message):
        read_dimers(tmp_path / "lacking.extxyz")
    with pytest.raises(FileNotFoundError):
        read_dimers(tmp_path / "absent.extxyz")


def published_frames(unit=1.0, swapped=False, n_sets=2):
    """Frames in the form of the authors' file: point charges in contact."""
    frames = []
    for i in range(n_sets):
        ammonium = molecule("NH3") + Atoms("H", [[0.0, 0.0, 1.2]])
        formate = molecule("HCOOH")
        # Without the acid hydrogen.
        acid = formate.get_all_distances()[formate.numbers == 1].argsort()[:, 1]
        hydrogens = np.flatnonzero(formate.numbers == 1)
        del formate[hydrogens[formate.numbers[acid] == 8]]
        for d in 1.0 / np.linspace(1 / (4.0 + i), 1 / 15.0, 13):
            moved = formate.copy()
            moved.positions += ammonium.positions.mean(0) - formate.positions.mean(0)
            moved.positions[:, 0] += d
            both = ammonium + moved
            both.info["energy"] = -COULOMB / d / unit
            frames.append(both)
        alone = [ammonium, formate]
        for atoms in alone[::-1] if swapped else alone:
            atoms.info["energy"] = -100.0
            frames.append(atoms.copy())
    return frames


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("unit", ["eV", "Hartree", "kcal/mol", "kJ/mol"])
def test_published_curves_are_sets_of_fifteen_frames(tmp_path, swapped, unit):
    size = {"eV": 1.0, "Hartree": Hartree, "kcal/mol": kcal / mol}
    size["kJ/mol"] = size["kcal/mol"] / 4.184
    path, lines = tmp_path / "trajs.xyz", []
    write(path, published_frames(size[unit], swapped), format="extxyz")
    curves = read_published_curves(path, log=lines.append)
    assert lines == [f"2 published curves, energies in {unit}"]
    assert [len(curve) for curve in curves] == [13, 13]
    for name, curve in zip(("set-1", "set-2"), curves, strict=True):
        for frame in curve:
            info = frame.info
            assert (info["name"], info["n_atoms_a"], info["kind"]) == (
                name,
                5,
                "training",
            )
            assert (info["charge_a"], info["charge_b"], info["subset"]) == (1, -1, "0c")
            assert info["e_int_ev"] == pytest.approx(-COULOMB / info["distance"])
            assert not frame.pbc.any()
        distances = [frame.info["distance"] for frame in curve]
        assert distances == sorted(distances)
    assert curves[0][0].info["distance"] == pytest.approx(4.0)
    joined = published_curves([f for curve in curves[::-1] for f in curve])
    assert [f.info["name"] for f in joined.frames[::13]] == ["set-1", "set-2"]
    assert checks(joined)["n_frames"] == 26


def test_published_file_of_another_form_is_a_clear_error(tmp_path):
    path = tmp_path / "trajs.xyz"

    def refused(frames, message, **settings):
        write(path, frames, format="extxyz")
        with pytest.raises(ValueError, match=message):
            read_published_curves(path, **settings)

    refused(published_frames()[:-1], "must hold sets of 15 frames, got 29 frames")
    frames = published_frames()
    frames[3].info.pop("energy")
    frames[3].calc = None
    refused(frames, r"set 1, frame 4: there must be a finite energy, got None")
    frames = published_frames()
    frames[17].positions[0] += 0.5
    refused(frames, "set 2, frame 3: the dimer must be the two molecules at the end")
    frames = published_frames()
    frames[16] = frames[16][:-1]
    refused(frames, r"set 2, frame 2: the dimer must have the 5 \+ 4 atoms .* got 8")
    refused(published_frames(1e-3), "must come near Coulomb's law .*give the unit")
    refused(published_frames(), "unit must be one of", unit="eV per atom")
    path.write_text("no frames\n")
    with pytest.raises(ValueError, match="must be a whole extended-xyz file"):
        read_published_curves(path)
    write(path, published_frames(1e-3), format="extxyz")
    curves = read_published_curves(path, unit="eV")
    assert curves[0][0].info["e_int_ev"] == pytest.approx(-1000 * COULOMB / 4.0)


def test_formal_charges_follow_from_bonds():
    drafts = monomers(PointCharges())
    assert [formal_charge(atoms) for _, atoms, _ in drafts] == [q for *_, q in drafts]


# Selection.


def test_charged_dimers_of_known_elements_are_taken_by_name_and_counted(caplog):
    sodium = dimer(Atoms("NaOH", [[0, 0, 0], [0, 0, 4], [0, 0, 5]]), 1, 1, -1, "c")
    neutral = dimer(molecule("H2O") + Atoms("O", [[4, 0, 0]]), 3, 0, 0, "d")
    with caplog.at_level(logging.INFO):
        taken = charged_dimers(
            [ion_pair("b"), sodium, neutral, ion_pair("a", charge_b=0)],
            log=logging.getLogger().info,
        )
    assert [atoms.info["name"] for atoms in taken] == ["a", "b"]
    assert caplog.messages == [
        "2 of 4 dimers taken (1 0c, 1 p1): 3 have no elements but H/C/N/O, 1 of them "
        "no charge"
    ]
    with pytest.raises(ValueError, match="must be charged dimers of H/C, got none"):
        charged_dimers(taken, ("H", "C"))
    with pytest.raises(ValueError, match="names of dimers must differ, got 'a' twice"):
        charged_dimers([taken[0], taken[0]])


@pytest.mark.parametrize(
    ("charges", "expected"),
    [
        ((1, -1), "0c"),
        ((0, -1), "m1"),
        ((1, 0), "p1"),
        ((-1, -1), "m2"),
        ((0, 0), "00"),
    ],
)
def test_classes_of_charges(charges, expected):
    assert subset(*charges) == subset(*charges[::-1]) == expected


def test_impossible_dimers_are_refused():
    atoms = Atoms("OHOH", [[0, 0, 0], [0, 0, 1], [0, 0, 4], [0, 0, 5]])
    for n_atoms_a in (0, 4):
        with pytest.raises(ValueError, match=f"between 1 and 3, got {n_atoms_a}"):
            dimer(atoms, n_atoms_a, 0, 0, "x")
    with pytest.raises(ValueError, match="the reference energy must be finite"):
        dimer(atoms, 2, 0, 0, "x", math.nan)
    atoms.positions[2:] = atoms.positions[:2]
    with pytest.raises(ValueError, match="must have different centroids"):
        dimer(atoms, 2, 0, 0, "x")
    atoms.positions[3] = np.nan
    with pytest.raises(ValueError, match="dimer x: positions must be finite"):
        dimer(atoms, 2, 0, 0, "x")


# Displacement.


@pytest.mark.parametrize(("nearest", "end"), [(3.5, 8.0), (7.0, 8.0), (7.4, 8.4)])
def test_training_points_are_even_in_the_inverse_distance(nearest, end):
    points = curve_distances(nearest)
    training = [d for d, kind in points if kind == "training"]
    assert len(training) == 13
    assert training[0] == nearest
    assert training[-1] == pytest.approx(end)
    np.testing.assert_allclose(np.diff(1.0 / np.array(training), 2), 0.0, atol=1e-15)
    assert [d for d, kind in points if kind == "far"] == list(FAR)


def test_far_points_inside_the_training_range_are_left_out():
    points = curve_distances(11.7)
    assert points[12] == (pytest.approx(12.7), "training")
    assert [d for d, kind in points if kind == "far"] == [15.0, 20.0, 25.0]
    assert [d for d, _ in points] == sorted(d for d, _ in points)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nearest": 0.0}, "nearest distance must be positive, got 0.0"),
        ({"nearest": math.nan}, "nearest distance must be positive, got nan"),
        ({"n_points": 1}, "n_points must be at least 2, got 1"),
        ({"span": 0.0}, "span must be positive, got 0.0"),
    ],
)
def test_impossible_distances_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        curve_distances(**{"nearest": 4.0, **settings})


def test_displacement_is_rigid_and_along_the_line_of_centroids():
    atoms = ion_pair()
    atoms.rotate(37.0, (1, 2, 3))
    atoms = dimer(atoms, 5, 1, -1, "x", reference=-2.0)
    same = displaced(atoms, separation(atoms), "training")
    np.testing.assert_array_equal(same.positions, atoms.positions)
    assert same.info["e_int_ref_ev"] == -2.0
    for distance in (2.0, 9.0, 25.0):
        moved = displaced(atoms, distance, "far")
        assert separation(moved) == pytest.approx(distance, abs=2e-8)
        np.testing.assert_array_equal(moved.positions[:5], atoms.positions[:5])
        shift = moved.positions[5:] - atoms.positions[5:]
        # Both atoms of the second molecule move alike, to the decimals kept.
        np.testing.assert_allclose(shift[0], shift[1], atol=2e-8)
        line = atoms.positions[5:].mean(0) - atoms.positions[:5].mean(0)
        np.testing.assert_allclose(np.cross(shift[0], line), 0.0, atol=1e-6)
        assert (moved.info["kind"], moved.info["distance"]) == ("far", distance)
        # The reference belongs to the dimer where it was.
        assert "e_int_ref_ev" not in moved.info
        np.testing.assert_array_equal(moved.positions, np.round(moved.positions, 8))


# Curves and checks.


def test_curve_of_point_charges_is_coulombs_law():
    curves = dimer_curve(ion_pair(), PointCharges())
    assert curves.excluded == []
    assert len(curves.frames) == 18
    for frame in curves.frames:
        n, o = frame.positions[0], frame.positions[5]
        expected = -COULOMB / np.linalg.norm(n - o)
        assert frame.info["e_int_ev"] == pytest.approx(expected, abs=1e-8)
        apart = frame.info["charge_distance"]
        assert apart == pytest.approx(np.linalg.norm(n - o), abs=1e-8)
    found = checks(curves)
    for key in ("tail_slope_min", "tail_slope_mean", "tail_slope_max"):
        assert found[key] == pytest.approx(-1.0, abs=1e-6)
    assert (found["n_dimers"], found["n_frames"], found["n_excluded"]) == (1, 18, 0)
    assert found["charge_error_apart_e"] == 0.0
    first = curves.frames[0].info["e_int_ev"]
    assert found["mae_reference_ev"] == pytest.approx(abs(first + 3.0))
    assert found["tail_distance"] == 25.0
    assert found["tail_charged_max_ev"] < 1e-8
    assert math.isnan(found["tail_single_mean_ev"])


def test_leaked_charge_drops_the_frames_apart():
    # A charge that is off is a fault only where no bond can be its reason.
    curves = dimer_curve(ion_pair(), PointCharges(leak=0.03))
    assert {frame.info["kind"] for frame in curves.frames} == {"training"}
    assert [d.distance for d in curves.excluded] == list(FAR)
    reason = "charge of a molecule off by 0.030 e, more than 0.02 e"
    assert {d.reason for d in curves.excluded} == {reason}
    assert dimer_curve(ion_pair(), PointCharges(leak=0.019)).excluded == []
    assert dimer_curve(ion_pair(), PointCharges(leak=math.nan)).excluded


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("SCF: no\n convergence", "SCF: no convergence"),
        ("nan", "the energy is not finite"),
        ("inf", "the energy is not finite"),
    ],
)
def test_failed_frames_are_dropped_with_their_reason(fault, reason):
    curves = dimer_curve(ion_pair(), PointCharges(fault=fault, at=12.0))
    assert [(d.distance, d.kind, d.reason) for d in curves.excluded] == [
        (d, "far", reason) for d in (12.5, 15.0, 20.0, 25.0)
    ]
    assert len(curves.frames) == 14
    assert checks(curves)["n_excluded"] == 4
    # A tail is looked at where the remaining frames end.
    assert checks(curves)["tail_distance"] == 10.0


def test_lost_first_point_is_no_reference():
    curves = dimer_curve(ion_pair(), PointCharges(fault="SCF", at=3.9))
    assert curves.frames == []
    assert math.isnan(checks(curves)["mae_reference_ev"])
    assert checks(Curves())["n_frames"] == 0


def test_molecule_with_an_odd_electron_count_drops_its_curve():
    atoms = ion_pair()
    odd = dimer(atoms, 5, 0, 0, "odd")
    curves = dimer_curve(odd, PointCharges())
    assert curves.frames == []
    assert len(curves.excluded) == 18
    assert curves.excluded[0].reason == (
        "molecule a: odd electron count: 11 for NH4 charge +0; "
        "molecule b: odd electron count: 9 for OH charge +0"
    )


def test_processes_give_the_curves_in_the_order_of_names(tmp_path):
    dimers = [ion_pair("c"), ion_pair("a", 5.0), ion_pair("b", charge_b=0)]
    program = PointCharges()
    curves = reference_curves(dimers, program, tmp_path, n_processes=2, chunk_size=1)
    names = [frame.info["name"] for frame in curves.frames]
    assert names == ["a"] * 18 + ["b"] * 18 + ["c"] * 18
    single = [dimer_curve(dimers[i], program) for i in (1, 2, 0)]
    for frame, same in zip(
        curves.frames, [f for c in single for f in c.frames], strict=True
    ):
        assert frame == same
        assert frame.info == same.info
    assert curves.charge_errors == [e for c in single for e in c.charge_errors]
    assert checks(curves)["tail_single_max_ev"] < 1e-8


@pytest.mark.parametrize("n_parts", [2, 5])
def test_parts_of_the_dimers_give_the_curves_of_all(tmp_path, n_parts):
    dimers = [ion_pair("c"), ion_pair("a", 5.0), ion_pair("b", charge_b=0)]
    program = PointCharges()
    whole = reference_curves(dimers, program, tmp_path / "whole")
    rows = [
        row
        for i in range(n_parts)
        for row in curve_energies(
            part_of(dimers, i, n_parts), program, tmp_path / str(i)
        )
    ]
    joined = joined_curves(dimers, rows)
    assert joined.charge_errors == whole.charge_errors
    for frame, same in zip(joined.frames, whole.frames, strict=True):
        assert frame == same
        assert frame.info == same.info
    with pytest.raises(ValueError, match="rows must be of 3 dimers, got 2"):
        joined_curves(dimers, rows[1:])


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b.replace(b"1", b"3")])
def test_finished_chunks_are_not_computed_again(tmp_path, damage):
    dimers = [ion_pair(name) for name in "abcd"]
    settings = {"distances": {"n_points": 2, "far": [10.0]}, "chunk_size": 2}
    first = reference_curves(dimers, PointCharges(), tmp_path, **settings)
    chunks = sorted(tmp_path.iterdir())
    assert len(chunks) == 2
    assert all(path.suffix == ".json" for path in chunks)
    stamps = [path.stat().st_mtime_ns for path in chunks]
    # One is whole, one is damaged.
    whole = chunks[1].read_bytes()
    chunks[1].write_bytes(damage(whole))
    assert chunks[1].read_bytes() != whole
    again = reference_curves(dimers, PointCharges(), tmp_path, **settings)
    assert [f.info for f in again.frames] == [f.info for f in first.frames]
    assert sorted(tmp_path.iterdir()) == chunks
    assert chunks[0].stat().st_mtime_ns == stamps[0]
    assert chunks[1].read_bytes() == whole


@pytest.mark.parametrize(
    "changed",
    [
        {"engine": PointCharges(version="2")},
        {"engine": PointCharges(name="other")},
        {"key": "other code"},
        {"charge_tolerance": 0.01},
        {"distances": {"n_points": 3, "far": []}},
        {"dimers": [ion_pair("a", 4.001)]},
    ],
)
def test_chunks_of_anything_else_are_not_used(tmp_path, changed):
    settings = {
        "dimers": [ion_pair("a")],
        "engine": PointCharges(),
        "folder": tmp_path,
        "distances": {"n_points": 2, "far": []},
    }
    reference_curves(**settings)
    reference_curves(**{**settings, **changed})
    assert len(list(tmp_path.iterdir())) == 2


def test_worker_that_ends_by_itself_is_an_error_and_chunks_stay(tmp_path):
    dimers = [ion_pair("a"), ion_pair("b"), ion_pair("c")]
    settings = {"distances": {"n_points": 2, "far": []}, "chunk_size": 1}
    reference_curves(dimers[:1], PointCharges(), tmp_path, **settings)
    (kept,) = tmp_path.iterdir()
    with pytest.raises(RuntimeError, match="ended by itself; finished chunks are kept"):
        reference_curves(dimers, PointCharges(fault="crash"), tmp_path, **settings)
    assert kept.exists()


class NoRoom(PointCharges):
    """The same engine, in a process that may write one small chunk and no large one."""

    def calculations(self, frames, charges):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
        return super().calculations(frames, charges)


def test_full_disk_is_an_error_and_a_rerun_goes_on(tmp_path):
    small = {"distances": {"n_points": 2, "far": []}}
    large = {"distances": {"n_points": 40, "far": []}}
    reference_curves([ion_pair("a")], NoRoom(), tmp_path, **small)
    (kept,) = tmp_path.iterdir()
    message = "cannot be written: File too large; raise the limit .* and run again"
    with pytest.raises(OSError, match=message):
        reference_curves([ion_pair("b")], NoRoom(), tmp_path, **large)
    assert list(tmp_path.iterdir()) == [kept]
    curves = reference_curves([ion_pair("b")], PointCharges(), tmp_path, **large)
    assert len(curves.frames) == 40


def is_running(process):
    """Whether there is such a process, which has not ended."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


class Noting(PointCharges):
    """The same engine, which leaves the number of its process in a folder."""

    def calculations(self, frames, charges):
        Path(os.environ["NOTES"], str(os.getpid())).touch()
        return super().calculations(frames, charges)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    program = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "from test_dimers import Noting, ion_pair, reference_curves\n"
        "if __name__ == '__main__':\n"
        "    dimers = [ion_pair(f'{i:02d}') for i in range(20)]\n"
        "    slow = Noting(pause=0.02)\n"
        "    reference_curves(dimers, slow, sys.argv[1], chunk_size=1)\n"
    )
    script, notes = tmp_path / "run.py", tmp_path / "notes"
    script.write_text(program)
    notes.mkdir()
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    child = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "chunks")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "NOTES": str(notes)},
        start_new_session=True,
    )
    ends = time.monotonic() + 60.0
    try:
        while time.monotonic() < ends and not list(notes.iterdir()):
            time.sleep(0.02)
        # The parent alone, as by the system when memory runs out.
        child.kill()
        child.wait()
        (worker,) = (path.name for path in notes.iterdir())
        while time.monotonic() < ends and is_running(worker):
            time.sleep(0.02)
        assert not is_running(worker)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def test_killed_run_goes_on_where_it_was(tmp_path):
    program = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "from test_dimers import PointCharges, ion_pair, reference_curves\n"
        "if __name__ == '__main__':\n"
        "    dimers = [ion_pair(f'{i:02d}') for i in range(20)]\n"
        "    slow = PointCharges(pause=0.02)\n"
        "    reference_curves(dimers, slow, sys.argv[1], chunk_size=1)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(program)
    folder = tmp_path / "chunks"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    child = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        ends = time.monotonic() + 60.0
        while time.monotonic() < ends and child.poll() is None:
            if folder.is_dir() and len(list(folder.glob("[!.]*.json"))) >= 3:
                break
            time.sleep(0.02)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("[!.]*.json")}
    assert 3 <= len(kept) < 20
    dimers = [ion_pair(f"{i:02d}") for i in range(20)]
    slow = PointCharges(pause=0.02)
    curves = reference_curves(dimers, slow, folder, chunk_size=1, n_processes=2)
    assert len(curves.frames) == 20 * 18
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


# Engines.


def test_engines_by_name():
    assert engine("PM6-D3H4") == Mopac()
    assert engine("PM6-ORG") == Mopac("PM6-ORG")
    assert engine("B3LYP/def2-SVP") == PySCF()
    for name in ("PM6-D3H4", "PM6-ORG", "B3LYP/def2-SVP"):
        assert engine(name).name == name
    with pytest.raises(ValueError, match="an engine must be one of .*got 'GFN2-xTB'"):
        engine("GFN2-xTB")
    with pytest.raises(ValueError, match="model must be one of .*got 'AM1'"):
        Mopac("AM1")


@pytest.mark.parametrize(
    ("name", "package"), [("PM6-D3H4", "mopactools"), ("B3LYP/def2-SVP", "pyscf")]
)
def test_missing_program_is_a_clear_error(monkeypatch, tmp_path, name, package):
    for module in (package, f"{package}.api"):
        monkeypatch.setitem(sys.modules, module, None)
    message = rf"needs the package {package}: .*`pip install {package}`"
    with pytest.raises(ModuleNotFoundError, match=message):
        reference_curves([ion_pair()], engine(name), tmp_path)
    with pytest.raises(ModuleNotFoundError, match=message):
        engine(name).calculations([molecule("H2O")], [0])


@pytest.mark.parametrize(
    ("atoms", "charge", "reason"),
    [
        (Atoms(), 0, "no atoms"),
        (Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]), 0, "positions are not finite"),
        (Atoms([1, 99], [[0, 0, 0], [0, 0, 2]]), 0, "unknown elements in HEs"),
        (Atoms("X", [[0, 0, 0]]), 0, "unknown elements in X"),
        (Atoms("OH", [[0, 0, 0], [0, 0, 1]]), 1, ""),
        (Atoms("OH", [[0, 0, 0], [0, 0, 1]]), 0, "odd electron count: 9 for OH"),
        (Atoms("H", [[0, 0, 0]]), 3, "odd electron count: -2 for H"),
    ],
)
def test_unsound_molecules_never_reach_a_program(atoms, charge, reason):
    assert unsound(atoms, charge).startswith(reason)
    assert bool(reason) == bool(unsound(atoms, charge))
    if reason:
        for program in (Mopac(), PySCF()):
            (result,) = program.calculations([atoms], [charge])
            assert result.failure == unsound(atoms, charge)
            assert math.isnan(result.energy)


def test_mopac_relaxes_and_keeps_charges_apart(tmp_path, monkeypatch):
    pytest.importorskip("mopactools")
    # What the library may leave behind.
    monkeypatch.chdir(tmp_path)
    program = Mopac()
    assert re.fullmatch(r"MOPAC \d+\.\d+\.\d+", program.version)
    water = program.relaxed(molecule("H2O"), 0)
    # Experiment: 0.958 Å and 104.5°; this Hamiltonian gives 0.963 Å and 111.5°.
    assert water.get_distance(0, 1) == pytest.approx(0.958, abs=0.02)
    assert water.get_angle(1, 0, 2) == pytest.approx(104.5, abs=8.0)
    drafts = {name: (atoms, charge) for name, atoms, charge in monomers(program)}
    (cation, _), (anion, _) = drafts["methylammonium"], drafts["formate"]
    anion.positions += cation.positions.mean(axis=0) - anion.positions.mean(axis=0)
    anion.positions[:, 2] += 4.0
    pair = dimer(cation + anion, len(cation), 1, -1, "pair")
    curves = dimer_curve(pair, program)
    assert curves.excluded == []
    found = checks(curves)
    assert found["charge_error_apart_e"] < 1e-3
    # A dipole of 0.5 eÅ about the centroid: 14.4 * 0.5 / 25**2 eV.
    assert found["tail_charged_max_ev"] < 0.02
    # A second time the same numbers, whatever was computed before.
    again = dimer_curve(pair, program)
    assert [f.info for f in again.frames] == [f.info for f in curves.frames]


def test_mopac_keeps_to_itself_where_another_program_has_its_names(tmp_path):
    pytest.importorskip("mopactools")
    pytest.importorskip("quippy", reason="quippy-ase is not installed")
    # Both have an L-BFGS of the same names; in a process of its own, as it could end.
    program = (
        "from ase.build import molecule\n"
        "import quippy.descriptors\n"
        "from lode.datasets.engines import Mopac\n"
        "water = Mopac().relaxed(molecule('H2O'), 0)\n"
        "print('distance', water.get_distance(0, 1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "IFLAG" not in done.stdout
    alone = Mopac().relaxed(molecule("H2O"), 0).get_distance(0, 1)
    assert float(done.stdout.split("distance")[1]) == pytest.approx(alone, abs=1e-6)


def test_failed_scf_drops_the_frame(tmp_path, monkeypatch):
    pytest.importorskip("mopactools")
    monkeypatch.chdir(tmp_path)
    ammonium = molecule("NH3") + Atoms("H", [[0, 0, 1.2]])
    pair = ammonium + Atoms("OH", [[0, 0, -4], [0, 0, -5]])
    # Far apart, the electron of bare hydroxide is better off on ammonium, and the SCF
    # does not know where to put it.
    curves = dimer_curve(dimer(pair, 5, 1, -1, "pair"), Mopac())
    assert {drop.kind for drop in curves.excluded} == {"far"}
    assert any("THE SCF CALCULATION FAILED" in drop.reason for drop in curves.excluded)
    assert len(curves.frames) + len(curves.excluded) == 18
    assert checks(curves)["charge_error_apart_e"] < 0.02


def test_mopacs_own_failures_are_reported(tmp_path, monkeypatch):
    pytest.importorskip("mopactools")
    monkeypatch.chdir(tmp_path)
    together = Atoms("H2", [[0, 0, 0], [0, 0, 0]])
    (result,) = Mopac().calculations([together], [0])
    assert "SEPARATED BY 0.0000 ANGSTROMS" in result.failure
    with pytest.raises(RuntimeError, match="PM6-D3H4 must relax H2 with charge 0: MOP"):
        Mopac().relaxed(together, 0)


# Stand-in.


def test_stand_in_has_seventeen_closed_shells():
    drafts = monomers(PointCharges())
    assert [charge for *_, charge in drafts] == [1] * 4 + [-1] * 3 + [0] * 10
    formulas = {name: atoms.get_chemical_formula() for name, atoms, _ in drafts}
    assert formulas["guanidinium"] == "CH6N3"
    assert formulas["imidazolium"] == "C3H5N2"
    assert formulas["ethylammonium"] == "C2H8N"
    assert formulas["propanoate"] == "C3H5O2"
    assert len(set(formulas.values())) == 17
    for name, atoms, _ in drafts:
        distances = atoms.get_all_distances()
        np.fill_diagonal(distances, np.inf)
        assert distances.min() > 0.9, name
        assert distances.min(axis=1).max() < 1.6, name


def test_stand_in_is_in_contact_and_reproducible():
    drafts = monomers(PointCharges())
    dimers = synthetic_dimers(60, drafts, seed=3)
    radii = {1: 1.2, 6: 1.7, 7: 1.55, 8: 1.52}
    for atoms in dimers:
        n = atoms.info["n_atoms_a"]
        distances = atoms.get_all_distances()[:n, n:]
        sums = np.add.outer(
            *([radii[z] for z in x.numbers] for x in (atoms[:n], atoms[n:]))
        )
        closest = (distances / sums).min()
        assert 0.75 - 1e-7 < closest < 0.95 + 1e-7
        assert separation(atoms) >= 3.0 - 1e-7
        assert atoms.info["charge_a"] or atoms.info["charge_b"]
    assert len({atoms.info["name"] for atoms in dimers}) == 60
    assert {"0c", "m1", "p1"} <= {atoms.info["subset"] for atoms in dimers}
    for few, many in zip(synthetic_dimers(5, drafts, seed=3), dimers, strict=False):
        assert few == many
        assert few.info == many.info
    assert synthetic_dimers(1, drafts, seed=4)[0] != dimers[0]


def test_stand_in_refuses_impossible_settings():
    drafts = monomers(PointCharges())
    with pytest.raises(ValueError, match="n_dimers must be at least 1, got 0"):
        synthetic_dimers(0, drafts)
    with pytest.raises(ValueError, match=r"contact must be a range .*got \(0.9, 0.7\)"):
        synthetic_dimers(1, drafts, contact=(0.9, 0.7))
    with pytest.raises(ValueError, match="must fit at centroids 50 Å apart"):
        synthetic_dimers(1, drafts, nearest=50.0)
    with pytest.raises(ValueError, match="there must be molecules of charge"):
        synthetic_dimers(20, [d for d in drafts if d[2] == 0])


# The published data themselves.


@mirrored
def test_the_mirrors_dimers_are_767_of_known_classes(tmp_path):
    path = Path(MIRROR, "bfdb_ssi_charged.extxyz.gz")
    if not path.exists():
        pytest.skip(f"the mirror has no {path.name}")
    taken = charged_dimers(read_dimers(path))
    classes = [atoms.info["subset"] for atoms in taken]
    assert len(taken) == 767
    counts = {name: classes.count(name) for name in set(classes)}
    assert counts == {"0c": 170, "m1": 381, "p1": 195, "m2": 14, "p2": 7}
    for atoms in taken:
        n = atoms.info["n_atoms_a"]
        found = formal_charge(atoms[:n]), formal_charge(atoms[n:])
        assert found == (atoms.info["charge_a"], atoms.info["charge_b"])


@mirrored
@pytest.mark.slow
def test_mopac_is_near_the_coupled_cluster_energies_of_the_mirrors_dimers(tmp_path):
    pytest.importorskip("mopactools")
    path = Path(MIRROR, "bfdb_ssi_charged.extxyz.gz")
    if not path.exists():
        pytest.skip(f"the mirror has no {path.name}")
    curves = reference_curves(
        charged_dimers(read_dimers(path)),
        Mopac(),
        tmp_path,
        # The dimers as they are, and the two ends of the range beyond.
        distances={"n_points": 2, "far": [10.0, 25.0]},
        n_processes=2,
    )
    found = checks(curves)
    assert found["n_dimers"] == 767
    assert found["n_excluded"] == 0
    # 0.080 eV with MOPAC 23.2.
    assert found["mae_reference_ev"] < 0.09
    assert found["charge_error_apart_e"] < 0.02
    assert found["tail_charged_max_ev"] < 0.1


@mirrored
def test_the_mirrors_ssi_module_and_its_derived_file_agree():
    path = Path(MIRROR, "SSI.py")
    if not path.exists():
        pytest.skip("the mirror has no SSI.py")
    assert git_blob(path) == SOURCES["dimers"]["bfdb"].git_blob
    taken = charged_dimers(read_ssi(path))
    names = {atoms.info["name"] for atoms in taken}
    other = {
        atoms.info["name"]
        for atoms in read_dimers(Path(MIRROR, "bfdb_ssi_charged.extxyz.gz"))
    }
    assert names == other


@mirrored
def test_the_mirrors_published_curves_follow_coulombs_law():
    path = Path(MIRROR, "trajs_with_energies.xyz")
    if not path.exists():
        pytest.skip("the mirror has no trajs_with_energies.xyz")
    curves = read_published_curves(path)
    assert len(curves) == 661
