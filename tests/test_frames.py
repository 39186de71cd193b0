"""Frames are read as they were written; damaged files are refused at once."""

import ase.io
import numpy as np
import pytest
from ase import Atoms

from lode.datasets.frames import read_frames, write_frames
from lode.datasets.gas import gas_frames

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


def test_cell_vectors_behind_the_atoms_and_foreign_line_ends_are_read(tmp_path):
    cell = "".join(
        f"VEC{i + 1} {9 * (i == 0)} {9 * (i == 1)} {9 * (i == 2)}\n" for i in range(3)
    )
    text = f"1\n\nH 0 0 0\n{cell}{FRAME}\n\n"
    (tmp_path / "f.xyz").write_bytes(text.replace("\n", "\r\n").encode())
    first, second = read_frames(tmp_path / "f.xyz")
    np.testing.assert_array_equal(first.cell.array, 9.0 * np.eye(3))
    assert len(second) == 2
