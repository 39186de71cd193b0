"""Files are whole or absent; tables print stable digits."""

import math
from pathlib import Path

import pytest

from csv_tables import markers, rounded, table, with_block, write_table
from lode.files import atomic_write


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


def test_table_reads_what_write_table_wrote(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, ["name", "x"], [("a, b", 0.1), ("c", 2)])
    assert table(path) == [{"name": "a, b", "x": "0.1"}, {"name": "c", "x": "2"}]


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
