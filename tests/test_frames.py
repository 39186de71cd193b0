"""Frames are read as they were written; damaged files are refused at once."""

import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from lode.datasets.frames import read_frames, write_frames
from lode.datasets.gas import gas_frames

ROOT = Path(__file__).parents[1]
FRAME = "2\nProperties=species:S:1:pos:R:3\nH 0 0 0\nH 0 0 0.74\n"


@pytest.mark.parametrize("name", ["f.extxyz", "f.xyz", "f.extxyz.gz"])
def test_written_frames_read_back_the_same(tmp_path, name):
    frames = gas_frames(3, n_pairs=2, side=(8.0, 9.0))
    frames.append(Atoms("OH2", np.eye(3), info={"name": "a b", "tensor": np.eye(3)}))
    write_frames(tmp_path / name, frames)
    for made, back in zip(frames, read_frames(tmp_path / name), strict=True):
        assert back == made
        np.testing.assert_array_equal(
            back.get_initial_charges(), made.get_initial_charges()
        )
    np.testing.assert_array_equal(back.info["tensor"], np.eye(3))
    assert back.info["name"] == "a b"


def test_plain_file_is_that_of_ase(tmp_path):
    frames = gas_frames(2, n_pairs=2, side=(8.0, 9.0))
    write_frames(tmp_path / "ours.xyz", frames)
    ase.io.write(tmp_path / "theirs.xyz", frames, format="extxyz")
    theirs = (tmp_path / "theirs.xyz").read_bytes()
    assert (tmp_path / "ours.xyz").read_bytes() == theirs


# A file of 10^12 atoms would be read for hours, were its count believed.
@pytest.mark.parametrize(
    "count",
    ["1000000000000", "3", "0", "-2", "1.5", "2e0", "nan", "two", "", "9" * 5000],
)
@pytest.mark.parametrize("before", ["", FRAME])
def test_number_of_atoms_that_the_file_does_not_hold_is_an_error(
    tmp_path, count, before
):
    path = tmp_path / "f.xyz"
    path.write_text(before + count + FRAME[1:])
    line = 1 + before.count("\n")
    message = (
        rf"f\.xyz must be a whole extended-xyz file: line {line} must be the number"
    )
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(path)
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize("text", ["", "\n", "  \n\n"])
def test_file_without_frames_is_an_error(tmp_path, text):
    (tmp_path / "f.xyz").write_text(text)
    with pytest.raises(ValueError, match="must hold at least one frame, got none"):
        read_frames(tmp_path / "f.xyz")


def test_what_is_no_text_is_an_error(tmp_path):
    (tmp_path / "f.xyz").write_bytes(b"\x93NUMPY\xff\x00")
    for path in (tmp_path, tmp_path / "f.xyz"):
        with pytest.raises(ValueError, match="must be a whole extended-xyz file, got"):
            read_frames(path)


def test_foreign_line_ends_and_blank_lines_at_the_end_are_read(tmp_path):
    content = (2 * FRAME + "\n\n").replace("\n", "\r\n").encode()
    (tmp_path / "f.xyz").write_bytes(content)
    assert [len(atoms) for atoms in read_frames(tmp_path / "f.xyz")] == [2, 2]


def test_frame_with_a_faulty_line_is_an_error(tmp_path):
    for old, new in (
        ("H 0 0 0\n", "H 0 zero 0\n"),
        ("H", "Hx"),
        (":3", ":4"),
        ("R:", "Q:"),
    ):
        (tmp_path / "f.xyz").write_text(FRAME + FRAME.replace(old, new))
        with pytest.raises(ValueError, match="must be a whole extended-xyz file, got"):
            read_frames(tmp_path / "f.xyz")


def test_frames_are_read_without_asserts(tmp_path):
    path = tmp_path / "f.extxyz.gz"
    write_frames(path, gas_frames(2, n_pairs=2, side=(8.0, 9.0)))
    code = (
        "import sys; from lode.datasets.frames import read_frames, write_frames\n"
        "write_frames(sys.argv[1], read_frames(sys.argv[1]))"
    )
    before = path.read_bytes()
    subprocess.run([sys.executable, "-O", "-c", code, str(path)], check=True, cwd=ROOT)
    assert path.read_bytes() == before
