"""Files are whole or absent, damage is noticed; tables print stable digits."""

import gzip
import math
import re
from pathlib import Path

import pytest

from csv_tables import checked_copy, markers, rounded, table, with_block, write_table
from lode.files import atomic_write, read_json, read_text, write_json, write_text


def test_replacement_writes_the_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as temporary:
        assert temporary.suffix == path.suffix
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_failed_replacement_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def flipped(content):
    """The bytes with each one bit changed, in turn."""
    for position in range(8 * len(content)):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        yield bytes(changed)


def cut(content):
    """The bytes without a tail, of each length but all."""
    return (content[:end] for end in range(len(content)))


def outcomes(path, read, damaged):
    """What is read from a file with each damage, or the message of the error."""
    found, content = [], path.read_bytes()
    for changed in damaged(content):
        path.write_bytes(changed)
        try:
            found.append(read(path))
        except ValueError as error:
            found.append(error)
    return found


@pytest.mark.parametrize("damaged", [flipped, cut])
def test_damage_of_compressed_text_is_an_error_or_changes_nothing(tmp_path, damaged):
    path, text = tmp_path / "t.csv.gz", "name,x\na,0.1\nb,0.2\n"
    write_text(path, text)
    content = path.read_bytes()
    assert gzip.decompress(content).decode() == text
    found = outcomes(path, read_text, damaged)
    errors = [str(error) for error in found if isinstance(error, ValueError)]
    assert all(same == text for same in found if not isinstance(same, ValueError))
    # Seven bytes of gzip's header say nothing of the text: flags without a meaning,
    # time, system.
    assert len(errors) >= len(found) * (1 - 7 / len(content))
    wanted = (
        r".*t\.csv\.gz must be a whole text file, got .*; delete it and run again.*"
    )
    assert all(re.fullmatch(wanted, error) for error in errors)


@pytest.mark.parametrize("damaged", [flipped, cut])
def test_damage_of_json_is_an_error_or_changes_nothing(tmp_path, damaged):
    path, content = tmp_path / "t.json", {"a": [1.5, "b"], "c": {"d": None}}
    write_json(path, content, indent=1)
    assert read_json(path) == content
    found = outcomes(path, read_json, damaged)
    errors = [str(error) for error in found if isinstance(error, ValueError)]
    assert all(same == content for same in found if not isinstance(same, ValueError))
    # Only white space may become another one.
    assert len(errors) > 0.9 * len(found)
    wanted = r".*t\.json must be a whole JSON file, got .*; delete it and run again.*"
    assert all(re.fullmatch(wanted, error) for error in errors)


@pytest.mark.parametrize("text", ["[1, 2]", "3", "", "{}", '{"crc32": 1}', "[" * 10**5])
def test_json_of_another_form_is_an_error(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match=r"t\.json must be a whole JSON file, got"):
        read_json(tmp_path / "t.json")


@pytest.mark.parametrize("read", [read_text, read_json, table])
def test_folder_in_the_place_of_a_file_is_an_error(tmp_path, read):
    with pytest.raises(ValueError, match="must be a whole .* file, got a folder"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent")


def test_same_text_gives_the_same_compressed_bytes(tmp_path):
    paths = tmp_path / "a.gz", tmp_path / "b.gz"
    for path in paths:
        write_text(path, "text")
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_table_reads_what_write_table_wrote(tmp_path, name):
    path = tmp_path / name
    write_table(path, ["name", "x"], [("a, b", 0.1), ("c", 2)])
    assert table(path) == [{"name": "a, b", "x": "0.1"}, {"name": "c", "x": "2"}]


def test_checked_copy_of_a_table_reads_the_same(tmp_path):
    path, copy = tmp_path / "t.csv", tmp_path / "t.csv.gz"
    write_table(path, ["name", "x"], [("ρ⊗V, 3", 0.1)])
    checked_copy(path, copy)
    assert table(copy) == table(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("name,x\na,1\nb\n", "must have 2 entries, got 1"), ("\n", "begin with a header")],
)
def test_table_that_ends_too_soon_is_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        table(tmp_path / "t.csv")


def test_table_with_a_short_row_is_refused_and_not_written(tmp_path):
    path = tmp_path / "t.csv"
    with pytest.raises(ValueError, match="must have 2 entries, got 1"):
        write_table(path, ["name", "x"], [("a", 1), ("b",)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "digits", "resolution", "expected"),
    [
        (20.2345, 3, 0.0, 20.2),
        (0.0063499, 3, 1e-9, 0.00635),
        (99.96, 3, 0.0, 100.0),
        # The digits below the resolution are noise, however many are asked for.
        (3.27e-9, 5, 1e-9, 3e-9),
        (4.2e-12, 3, 1e-9, 1e-9),
        (0.0, 3, 1e-9, 1e-9),
        (0.0, 3, 0.0, 0.0),
    ],
)
def test_stable_keeps_the_coarser_of_digits_and_resolution(
    value, digits, resolution, expected
):
    assert rounded(value, digits, resolution) == expected


def test_stable_hides_noise_in_the_last_digits_of_a_double():
    noisy = 20.2345 * (1 + 1e-13)
    assert rounded(noisy, 6) == rounded(20.2345, 6)


def test_stable_ends_the_spread_where_the_value_ends():
    assert rounded(20.2345, 3, spread=0.7123) == (20.2, 0.7)
    assert rounded(1e-12, 3, 1e-9, spread=1e-13) == (1e-9, 0.0)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_stable_refuses_what_is_no_error(value):
    with pytest.raises(ValueError, match="finite and not negative, got"):
        rounded(value, 3)


def test_stable_refuses_no_digits():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        rounded(1.0, 0)


BEGIN, END = markers("a program")


def test_what_stands_between_the_markers_is_replaced():
    page = f"Before\n{BEGIN}\nold\n{END}\nAfter\n"
    assert with_block(page, "new", "a program") == page.replace("old", "new")


@pytest.mark.parametrize("page", ["nothing", BEGIN, END + BEGIN, 2 * (BEGIN + END)])
def test_a_page_without_one_pair_of_markers_is_refused(page):
    with pytest.raises(ValueError, match="exactly once each"):
        with_block(page, "new", "a program")


@pytest.mark.parametrize("writer", ["snakemake", "benchmarks"])
def test_the_readme_has_one_pair_of_markers_of_each_writer(writer):
    page = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    assert "new" in with_block(page, "new", writer)
