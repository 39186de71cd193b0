"""The benchmarks run; no time is asserted."""

import csv
import math

import numpy as np
import pytest

pytest.importorskip("featomic", reason="featomic is not installed")
matplotlib = pytest.importorskip("matplotlib")

from benchmarks.__main__ import arguments, main  # noqa: E402
from benchmarks.cases import CASES  # noqa: E402
from benchmarks.report import growth_exponent  # noqa: E402

COLUMNS = (
    "case,peer,peer_version,n_atoms,threads,ours_s,peer_s,ratio,"
    "ours_error,peer_error,ours_mb,peer_mb"
)


def test_the_smallest_case_gives_the_columns_of_the_results(tmp_path):
    main(["lode-64", "--repeats", "1", "--no-front", "--output", str(tmp_path)])
    with open(tmp_path / "results.csv", newline="") as file:
        assert file.readline().strip() == COLUMNS
        file.seek(0)
        (row,) = csv.DictReader(file)
    assert (row["case"], row["peer"], row["n_atoms"]) == ("lode-64", "featomic", "64")
    for name in COLUMNS.split(",")[5:]:
        assert math.isfinite(float(row[name])), name
    # Never faster by being less exact.
    assert 0.0 < float(row["ours_error"]) <= float(row["peer_error"])
    assert "lode-64" in (tmp_path / "results.md").read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"results.csv", "results.md"}


def test_a_case_is_named_once_for_each_peer():
    keys = [(case.name, case.peer) for case in CASES]
    assert len(set(keys)) == len(keys)


def test_an_unknown_case_is_refused(capsys):
    with pytest.raises(SystemExit):
        arguments(["lode-63"])
    assert "got ['lode-63']" in capsys.readouterr().err


def test_growth_gives_the_columns_of_the_results(tmp_path):
    main(["--growth", "100", "200", "--output", str(tmp_path)])
    with open(tmp_path / "growth.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == COLUMNS
    names = [f"growth-lode{order}-{n}" for order in (1, 2) for n in (100, 200)]
    assert [row["case"] for row in rows] == names
    for row in rows:
        assert float(row["ours_s"]) > 0.0
        assert float(row["ours_error"]) <= 1e-6
        assert not row["peer"]
    files = {"growth.csv", "growth.pdf", "growth.png"}
    assert {p.name for p in tmp_path.iterdir()} == files


def test_growth_exponent_is_that_of_the_large_frames():
    n_atoms = np.array([1000, 4000, 8000, 64000])
    seconds = np.where(n_atoms < 4000, 7.0, 1e-3 * n_atoms**1.1)
    assert growth_exponent(n_atoms, seconds) == pytest.approx(1.1)
    assert growth_exponent(n_atoms[:2], seconds[:2]) is None
