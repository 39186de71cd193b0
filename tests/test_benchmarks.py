"""The benchmarks run; no time is asserted."""

import csv
import math

import numpy as np
import pytest

pytest.importorskip("featomic", reason="featomic is not installed")
matplotlib = pytest.importorskip("matplotlib")

from benchmarks import codes  # noqa: E402
from benchmarks.__main__ import Journal, arguments, main  # noqa: E402
from benchmarks.cases import (  # noqa: E402
    CASES,
    SMEARINGS,
    SPECIES,
    Growth,
    system_frames,
)
from benchmarks.measurement import too_large  # noqa: E402
from benchmarks.report import (  # noqa: E402
    _ratios,
    exceeded,
    growth_exponent,
    thread_gains,
)

COLUMNS = (
    "case,peer,peer_version,n_atoms,threads,ours_s,peer_s,ratio,"
    "ours_error,peer_error,ours_mb,peer_mb"
)


def test_the_smallest_case_gives_the_columns_of_the_results(tmp_path):
    folder = ["--output", str(tmp_path)]
    main(["lode-64", "--repeats", "2", "--no-front", *folder])
    with open(tmp_path / "results.csv", newline="") as file:
        assert file.readline().strip() == COLUMNS
        file.seek(0)
        rows = list(csv.DictReader(file))
    assert [row["threads"] for row in rows] == ["1", "2"]
    for row in rows:
        case = row["case"], row["peer"], row["n_atoms"]
        assert case == ("lode-64", "featomic", "64")
        for name in COLUMNS.split(",")[5:]:
            assert math.isfinite(float(row[name])), name
        # Never faster by being less exact.
        assert 0.0 < float(row["ours_error"]) <= float(row["peer_error"])
    assert "lode-64" in (tmp_path / "results.md").read_text()
    with open(tmp_path / "threads.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["case"], row["threads"], row["pairs"]) == ("lode-64", "2", "2")
    assert all(float(row[name]) > 0.0 for name in list(row)[4:])
    names = {"results.csv", "results.md", "threads.csv"}
    assert {p.name for p in tmp_path.iterdir()} == names


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    path, calls = tmp_path / "new" / "part.jsonl", []

    def measure():
        calls.append(1)
        return [1.5, {"a": None}]

    journal = Journal(path, resume=False)
    assert journal.measured(("time", "a", 1), measure) == [1.5, {"a": None}]
    # Stopped while it wrote.
    path.write_text(path.read_text() + '[["time", "b"')
    journal = Journal(path, resume=True)
    assert journal.measured(("time", "a", 1), measure) == [1.5, {"a": None}]
    assert len(calls) == 1
    journal.measured(("time", "b", 1), measure)
    journal = Journal(path, resume=True)
    assert set(journal.found) == {("time", "a", 1), ("time", "b", 1)}
    Journal(path, resume=False).measured(("time", "a", 1), measure)
    assert len(calls) == 3
    journal.end()
    assert not path.exists()


def test_a_single_number_of_threads_gains_nothing(tmp_path):
    folder = ["--output", str(tmp_path)]
    main(["lode-8", "--repeats", "1", "--threads", "1", "--no-front", *folder])
    assert {p.name for p in tmp_path.iterdir()} == {"results.csv", "results.md"}


def test_a_run_without_a_case_leaves_what_there_is(tmp_path, capsys):
    (tmp_path / "results.csv").write_text("kept\n")
    parallel = {c.name for c in CASES if c.most_threads > 1}
    name = next(c.name for c in CASES if c.name not in parallel)
    options = [name, "--threads", "2", "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match="no case is left"):
        main(options)
    assert "left out" in capsys.readouterr().out
    assert (tmp_path / "results.csv").read_text() == "kept\n"
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]


def test_what_threads_gain_is_that_of_neighbouring_pairs():
    # The machine becomes slower; ours gains 2, 1.5 and 1, the peer 1.5.
    pairs = {1: [(2.0, 3.0), (3.0, 6.0), (4.0, 9.0)]}
    pairs[2] = [(1.0, 2.0), (2.0, 4.0), (4.0, 6.0)]
    ((case, peer, threads, count, *found),) = thread_gains("a", "b", pairs)
    assert (case, peer, threads, count) == ("a", "b", 2, 3)
    expected = [1.5, 1.5, 1.0, (2 / 3 + 1) / 2, (4 / 3 + 1) / 2]
    np.testing.assert_allclose(found, expected)


def test_cases_of_one_title_are_a_range():
    row = {"peer": "p", "threads": 1, "title": "SOAP"}
    rows = [row | {"case": str(r), "ratio": float(r)} for r in (4, 3, 5)]
    rows.append(rows[0] | {"threads": 2, "ratio": 2.0})
    assert _ratios(rows, "title").splitlines() == [
        "|  | peer | 1 thread | 2 threads |",
        "| --- | --- | --- | --- |",
        "| SOAP | p | 3–5 | 2 |",
    ]
    assert "| 3 | p | 3 |  |" in _ratios(rows)


def test_a_case_is_named_once_for_each_peer():
    keys = [(case.name, case.peer) for case in CASES]
    assert len(set(keys)) == len(keys)


def test_an_unknown_case_is_refused(capsys):
    with pytest.raises(SystemExit):
        arguments(["lode-63"])
    assert "got ['lode-63']" in capsys.readouterr().err


@pytest.mark.slow
def test_growth_gives_the_columns_of_the_results(tmp_path):
    folder = ["--output", str(tmp_path)]
    main(["--only", "growth", "--sizes", "96", "192", "--repeats", "1", *folder])
    with open(tmp_path / "growth.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == COLUMNS
    kinds = ("lode1", "lode2", "expansion", "gradient", "ewald")
    names = [f"growth-{kind}-{n}" for kind in kinds for n in (96, 192)]
    names += [f"smearing-{s:g}-{n}" for n in (96, 192) for s in SMEARINGS]
    assert [row["case"] for row in rows] == names
    for row in rows:
        assert float(row["ours_s"]) > 0.0
        assert float(row["ours_error"]) <= 1e-6
        # featomic's own growth stands beside that of the coefficients.
        assert (row["peer"] == "featomic") == ("expansion" in row["case"])
    files = {"growth.csv", "growth.md", "growth.pdf", "growth.png"}
    assert {p.name for p in tmp_path.iterdir()} == files


def test_a_peer_ends_where_its_memory_does():
    case = Growth(kind="expansion", n_atoms=10**6)
    assert too_large(case, {}) == ""
    assert too_large(case, {500: 0.001, 1000: 0.001}) == ""
    assert "ends at 1000 atoms" in too_large(case, {500: 10.0, 1000: 1000.0})


def test_an_error_above_the_tolerance_is_said():
    row = {"case": "a", "peer": "b", "ours_error": 2e-6, "tolerance": 1e-6}
    row["bounded"] = True
    assert exceeded([row]) == ["a/b"]
    assert exceeded([row | {"tolerance": 2e-6}]) == []
    assert exceeded([row | {"bounded": False}]) == []


@pytest.mark.parametrize(("system", "n_atoms"), [("water", 192), ("oxide", 32)])
def test_frames_of_a_system_have_the_wanted_size(system, n_atoms):
    first, second = system_frames(system, n_atoms, 2)
    assert len(first) == len(second) == n_atoms
    assert set(first.get_chemical_symbols()) == set(SPECIES[system])
    assert first.pbc.all()
    assert np.abs(first.positions - second.positions).max() > 1e-3
    with pytest.raises(ValueError, match="multiple of"):
        system_frames(system, n_atoms + 1, 1)


@pytest.mark.parametrize("peer", ["dscribe", "quippy-ase"])
@pytest.mark.parametrize("system", ["gas", "water", "oxide", "molecules"])
def test_a_peer_with_another_basis_gives_as_many_numbers(peer, system):
    name = "soap-3" if system == "gas" else f"soap-3-{system}"
    (case,) = (c for c in CASES if (c.name, c.peer) == (name, peer))
    pytest.importorskip(case.module, reason=f"{peer} is not installed")
    frame = case.frames(1)[0]
    found = codes.numbers_per_atom(case.theirs()(frame), frame)
    ours = codes.numbers_per_atom(case.ours(1e-6, 1)(frame), frame)
    # quippy adds a constant.
    assert found - ours == (peer == "quippy-ase")
    assert len(codes.structures(frame)) == (1 if system != "molecules" else len(frame))


def test_growth_exponent_is_that_of_the_large_frames():
    n_atoms = np.array([1000, 4000, 8000, 64000])
    seconds = np.where(n_atoms < 4000, 7.0, 1e-3 * n_atoms**1.1)
    assert growth_exponent(n_atoms, seconds) == pytest.approx(1.1)
    assert growth_exponent(n_atoms[:2], seconds[:2]) is None
