"""The workflow: its plan, its results, what it reruns, and each script's function."""

import base64
import copy
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("snakemake")

import ase.io  # noqa: E402
import yaml  # noqa: E402
from workflow_runs import (  # noqa: E402
    ROOT,
    TEST_RUN,
    project_copy,
    results_in,
    snakemake,
    workflow,
)

import dimer_curves as dimer_curves_script  # noqa: E402
import dimer_energies as dimer_energies_script  # noqa: E402
import dimer_geometries as dimer_geometries_script  # noqa: E402
import energies as energies_script  # noqa: E402
import features as features_script  # noqa: E402
import fig1 as fig1_script  # noqa: E402
import gas as gas_script  # noqa: E402
import learning_curve as learning_curve_script  # noqa: E402
import readme as readme_script  # noqa: E402
import source as source_script  # noqa: E402
import summary as summary_script  # noqa: E402
from csv_tables import block_between, markers, table, write_table  # noqa: E402
from dimer_features import saved_features  # noqa: E402
from lode.archive import load_archive  # noqa: E402
from lode.datasets.acquire import read_provenance, write_provenance  # noqa: E402
from lode.datasets.frames import read_frames  # noqa: E402
from lode.equivariants import EquivariantSums  # noqa: E402
from lode.features import StructureFeatures  # noqa: E402
from lode.files import read_json  # noqa: E402
from water_kernel import KIND as WATER_KERNEL  # noqa: E402
from workflows.code_hash import code_files, code_hash  # noqa: E402
from workflows.configuration import (  # noqa: E402
    ConfigurationError,
    check_claims,
    check_configuration,
    chunks,
    curve_settings,
    descriptions,
    size_notes,
    source_line,
    typed,
)

GAS_RULES = {"gas_source", "gas", "energies", "features", "learning_curve"}
AFTER_SUMMARY = {"readme", "report_pages", "all"}
AFTER_CURVES = {"fig1", "summary"} | AFTER_SUMMARY
DIMER_MODELS = {"dimer_features", "dimer_model", "fig2"}
DIMER_RULES = {"dimer_source", "dimer_geometries", "dimer_energies", "dimer_curves"}
DIMER_RULES |= DIMER_MODELS
WATER_MODELS = {"water_kernel", "water_curve", "fig3"}
WATER_TENSORS = {"water_tensor_features", "water_tensor_curve", "fig3_tensor"}
WATER_MODELS |= WATER_TENSORS
WATER_RULES = {"water_source", "water_boxes"} | WATER_MODELS

FIGURES = {"fig2", "fig3", "fig3_tensor"}
SOAP_MODELS = ("soap", "soap_lode1", "soap_lode2", "soap_dimers_only")


def planned_rules(folder):
    """Names of the rules that a run of the test configuration would execute."""
    output = snakemake(folder, *TEST_RUN, "--dry-run")
    return set(re.findall(r"^(?:local)?rule (\w+):", output, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return project_copy(tmp_path_factory.mktemp("project"))


@workflow
def test_lint_finds_nothing(project):
    output = snakemake(project, "--lint")
    assert "Congratulations" in output


@workflow
def test_bare_dry_run_plans_every_rule(project):
    output = snakemake(project, "--dry-run")
    found = set(re.findall(r"^(?:local)?rule (\w+):", output, flags=re.MULTILINE))
    assert found == GAS_RULES | DIMER_RULES | WATER_RULES | AFTER_CURVES
    for name in ("fig1", "fig2", "fig3", "fig3_tensor"):
        assert f"figures/{name}.pdf" in output


@workflow
@pytest.mark.parametrize(
    "target", ["all", "figures", "fig1", "fig2", "fig3", "fig3_tensor"]
)
def test_tracked_figures_do_not_keep_a_new_clone_from_computing(project, target):
    figures = project / "figures"
    figures.mkdir()
    names = [
        f"{name}.{suffix}"
        for name in ("fig1", "fig2", "fig3", "fig3_tensor")
        for suffix in ("csv", "pdf", "png", "txt")
    ]
    names += [
        f"fig2_{part}.csv" for part in ("classes", "curves", "experiments", "tails")
    ]
    for name in (*names, "summary.csv", "summary.md"):
        (figures / name).touch()
    try:
        output = snakemake(project, target, "--dry-run")
    finally:
        shutil.rmtree(figures)
    found = set(re.findall(r"^(?:local)?rule (\w+):", output, flags=re.MULTILINE))
    behind = {
        "fig1": GAS_RULES | {"fig1"},
        "fig2": DIMER_RULES,
        "fig3": WATER_RULES - WATER_TENSORS,
        "fig3_tensor": WATER_TENSORS,
    }
    for name, rules in behind.items():
        if target in (name, "all", "figures"):
            assert found >= rules


@workflow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_workflow_starts_from_another_folder(project, tmp_path, elsewhere):
    files = ["--snakefile", project / "Snakefile", "--configfile"]
    files += [project / "workflows" / "config.test.yaml"]
    folder = ["--directory", tmp_path / "results of a run"] if elsewhere else []
    (tmp_path / "start").mkdir()
    arguments = map(str, [*files, *folder, "--dry-run", "fig1"])
    output = snakemake(tmp_path / "start", *arguments, package=project)
    assert "rule fig1" in output


@workflow
def test_target_figures_leaves_the_readme_alone(project):
    output = snakemake(project, "figures", "--dry-run")
    assert "rule fig1" in output
    assert "rule readme" not in output


@workflow
def test_unknown_configuration_key_is_one_clear_error(project):
    extra = project / "extra.yaml"
    extra.write_text("gas:\n  n_framse: 10\n")
    output = snakemake(project, "--configfile", "extra.yaml", succeeds=False)
    assert "gas: keys must be one of ['min_distance', 'mirror', 'n_frames'" in output
    assert "got unknown ['n_framse']" in output
    assert "Traceback" not in output
    assert not (project / "results").exists()


@workflow
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            "gas_definitions:\n  rho_3: {max_radail: 8}\n",
            r"gas_definitions.rho_3: keys must be .*got unknown \['max_radail'\] "
            r"\(.*extra.yaml, line 2\)",
        ),
        (
            "curves: {soap_3: {kernel: polynomial(power(rho_33))}}\n",
            r"curves.soap_3.kernel: .*column 18, 'rho_33': a name must be one of "
            r".*got 'rho_33' \(.*extra.yaml, line 1\)",
        ),
        # The fault is in a file, its consequence in another.
        (
            "gas_definitions: {rho_3: {width: 4.0}}\n",
            r"gas_definitions.rho_3: width must be at most the radius 3.0, got 4.0",
        ),
    ],
)
def test_misspelt_argument_fails_in_the_dry_run_with_its_line(project, extra, message):
    (project / "extra.yaml").write_text(extra)
    output = snakemake(
        project, "--configfile", "extra.yaml", "--dry-run", succeeds=False
    )
    assert re.search(message, output), output
    assert "Traceback" not in output


@workflow
@pytest.mark.slow
def test_target_dimers_ends_with_checked_curves(tmp_path):
    pytest.importorskip("mopactools")
    folder = project_copy(tmp_path)
    snakemake(folder, "dimers", *TEST_RUN, "--cores", "2")
    results = folder / "results" / "test" / "dimers"
    assert sorted(path.name for path in results.iterdir()) == [
        "checks.csv",
        "curves.extxyz.gz",
        "energies",
        "excluded.csv",
        "geometries.extxyz.gz",
        "provenance.json",
    ]
    found = {row["check"]: row["value"] for row in table(results / "checks.csv")}
    assert found["data"].startswith("generated: ")
    assert found["energies"].startswith("PM6-D3H4, MOPAC ")
    assert (found["n_dimers"], found["n_frames"]) == ("12", "72")
    assert table(results / "excluded.csv") == []
    frames = read_frames(results / "curves.extxyz.gz")
    places = [(frame.info["name"], frame.info["distance"]) for frame in frames]
    assert places == sorted(places)
    assert [frame.info["kind"] for frame in frames[:6]] == ["training"] * 4 + [
        "far"
    ] * 2
    # A second run on one core gives the same bytes, and nothing reruns by itself.
    files = [path for path in results.rglob("*") if path.is_file()]
    first = {path: path.read_bytes() for path in files}
    assert "Nothing to be done" in snakemake(folder, "dimers", *TEST_RUN)
    snakemake(folder, "dimers", *TEST_RUN, "--cores", "1", "--forceall")
    assert {path: path.read_bytes() for path in files} == first
    # What a chunk is made with decides what reruns.
    path = folder / "lode" / "datasets" / "engines.py"
    path.write_text(path.read_text() + "\nEDITED = 1\n")
    output = snakemake(folder, "dimers", *TEST_RUN, "--dry-run")
    found = set(re.findall(r"^(?:local)?rule (\w+):", output, flags=re.MULTILINE))
    chunked = {"dimer_energies", "dimer_curves"}
    assert found == {"dimer_geometries", *chunked, "dimers"}


@workflow
def test_forced_source_that_cannot_be_had_fails_clearly(project):
    extra = project / "forced.yaml"
    # A mirror without the file, whatever the machine has.
    extra.write_text(
        "dimers: {source: published, mirror: lode}\npathvars: {results: forced}\n"
    )
    output = snakemake(
        project, "dimers", "--cores", "1", *TEST_RUN, "forced.yaml", succeeds=False
    )
    message = "source published: trajs_with_energies.xyz is in no mirror, and the netw"
    assert message in output
    assert not (project / "forced" / "dimers" / "provenance.json").exists()


@workflow
@pytest.mark.slow
def test_full_run_writes_figure_tables_and_pages(finished):
    folder, made = finished
    results = folder / "results" / "test"
    rows = table(results / "figures" / "fig1.csv")
    assert list(rows[0]) == ["curve", "n_train", "rmse_percent", "rmse_percent_std"]
    curves = yaml.safe_load((folder / "workflows/config.yaml").read_text())["curves"]
    sizes = yaml.safe_load((folder / "workflows/config.test.yaml").read_text())[
        "learning_curve"
    ]["n_train"]
    assert [(row["curve"], int(row["n_train"])) for row in rows] == [
        (curve["label"], n) for curve in curves.values() for n in sizes
    ]
    summary = table(results / "figures" / "summary.csv")
    assert list(summary[0]) == summary_script.COLUMNS
    assert {row["met"] for row in summary} == {"yes"}
    assert all("(stand-in)" in row["data"] for row in summary)
    assert (results / "figures" / "fig1.pdf").read_bytes().startswith(b"%PDF")
    assert (results / "figures" / "fig1.png").read_bytes().startswith(b"\x89PNG")
    assert "`snakemake fig1`" in (results / "README.md").read_text()
    rows = table(results / "figures" / "fig2.csv")
    assert list(rows[0]) == ["curve", "set", "rmse_percent", "rmse_meV", "n_frames"]
    models = yaml.safe_load((folder / "workflows/config.yaml").read_text())
    assert [(row["curve"], row["set"]) for row in rows] == [
        (model["label"], name)
        for model in models["dimer_models"].values()
        for name in ("test", "far")
    ]
    rows = table(results / "figures" / "fig2_tails.csv")
    assert rows[0]["curve"] == "reference"
    assert len(rows) == 1 + len(models["dimer_models"])
    assert (results / "figures" / "fig2.pdf").read_bytes().startswith(b"%PDF")
    rows = table(results / "figures" / "fig3.csv")
    assert list(rows[0]) == ["curve", "n_train", "rmse_percent", "rmse_percent_std"]
    assert [(row["curve"], int(row["n_train"])) for row in rows] == [
        (model["label"], n)
        for model in models["water_models"].values()
        for n in (10, 20)
    ]
    assert (results / "figures" / "fig3.pdf").read_bytes().startswith(b"%PDF")
    rows = table(results / "figures" / "fig3_tensor.csv")
    assert [(row["curve"], int(row["n_train"])) for row in rows] == [
        (model["label"], n)
        for model in models["water_tensor_models"].values()
        for n in (10, 20)
    ]
    assert (results / "figures" / "fig3_tensor.png").read_bytes()[1:4] == b"PNG"
    assert "Data of fig3: generated: " in (results / "figures/summary.md").read_text()
    assert "Data of fig2: generated: " in (results / "figures/summary.md").read_text()
    assert "`snakemake fig2`" in (results / "README.md").read_text()
    # A test run touches nothing of the full one, and leaves nothing half-written.
    assert {path.parts[0] for path in made} == {"results", ".snakemake"}
    hidden = [path for path in results.rglob(".*") if path.is_file()]
    assert [path.name for path in hidden if path.suffix != ".snakemake_timestamp"] == []


@workflow
@pytest.mark.slow
def test_second_run_on_one_core_gives_identical_files(finished, tmp_path):
    first = finished[0] / "results" / "test"
    second = tmp_path / "results" / "test"
    arguments = results_in(tmp_path, finished[0])
    snakemake(
        tmp_path, "all", "examples", *arguments, "--cores", "1", package=finished[0]
    )
    names = [p.relative_to(first) for s in ("csv", "gz") for p in first.rglob(f"*.{s}")]
    names.remove(Path("figures/times.csv"))
    assert {Path("gas/0.extxyz.gz"), Path("water/boxes.extxyz.gz")} < set(names)
    names += [
        Path(f"figures/{name}.{suffix}")
        for name in ("fig1", "fig2", "fig3", "fig3_tensor")
        for suffix in ("pdf", "png", "txt")
    ]
    assert len(names) > 10
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@workflow
@pytest.mark.slow
def test_report_holds_figures_and_pages_in_named_categories(finished):
    folder, _ = finished
    snakemake(folder, "--report", "report.html", *TEST_RUN, "--cores", "1")
    report = (folder / "report.html").read_text(encoding="utf-8")
    results, categories = (
        json.JSONDecoder().raw_decode(
            report, re.search(f"var {name} = (?={{)", report).end()
        )[0]
        for name in ("results", "categories")
    )
    names = {"Figures", "Summary", "Times", "Settings", "Versions"}
    assert set(categories) == names
    found = {Path(path).name: entry for path, entry in results.items()}
    assert set(found) == {
        *("fig1.png", "fig2.png", "fig3.png", "fig3_tensor.png"),
        *("summary.html", "times.html", "settings.html", "versions.html"),
    }
    assert all(entry["caption"] for entry in found.values())
    pages = {
        name: base64.b64decode(entry["data_uri"].split(",")[1]).decode()
        for name, entry in found.items()
        if name.endswith(".html")
    }
    assert "Data: 60 generated frames of 16 charges" in pages["summary.html"]
    assert "learning_curve/soap_3" in pages["times.html"]
    assert "lode1_point_charges" in pages["settings.html"]
    assert f"<td>{np.__version__}</td>" in pages["versions.html"].replace(
        ' data-name="version"', ""
    )
    # Menu and tables of a phone.
    assert all("max-width" in text for text in (report, pages["summary.html"]))
    # Nothing is fetched when it is opened.
    for text in (report, *pages.values()):
        assert not re.search(r"<(script|link|img)[^>]*(src|href)=.?https?:", text)


# What the rules read, by the end of its name and its folder.
READERS = {
    "*.extxyz.gz": read_frames,
    "*.csv.gz": table,
    "provenance.json": read_provenance,
    "dimers/energies/*.json": read_json,
    "features/*/*.npz": StructureFeatures.load,
    "dimers/features/*.npz": saved_features,
    "water/kernels/*.npz": lambda path: load_archive(path, WATER_KERNEL),
    "water/tensor_features/*.npz": EquivariantSums.load,
}


def damages(content):
    """The bytes with one bit changed at some places, and without some tails."""
    for place in (0.2, 0.5, 0.8):
        changed = bytearray(content)
        changed[int(place * len(content))] ^= 1
        yield bytes(changed)
    yield from (content[: len(content) // 2], content[:-4], b"")


def refuses_damage(read, path):
    """Whether a reader refuses each damage of a file with one line that names it."""
    content = path.read_bytes()
    read(path)
    try:
        for damaged in damages(content):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
                read(path)
            assert "\n" not in str(caught.value)
            assert "delete it and run again" in str(caught.value)
    finally:
        path.write_bytes(content)
    return True


@workflow
@pytest.mark.slow
@pytest.mark.parametrize("pattern", READERS)
def test_rules_refuse_each_damaged_intermediate(finished, pattern):
    results = finished[0] / "results" / "test"
    found = list(results.glob(pattern) if "/" in pattern else results.rglob(pattern))
    assert found
    for path in found:
        stamp = path.stat()
        assert refuses_damage(READERS[pattern], path)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@workflow
@pytest.mark.slow
def test_readers_are_of_all_intermediates(finished):
    results = finished[0] / "results" / "test"
    plan = snakemake(finished[0], *TEST_RUN, "--forceall", "--dry-run")
    inputs = re.findall(r"^    input: (.*)$", plan, flags=re.MULTILINE)
    read = {Path(name) for line in inputs for name in line.split(", ")}
    known = {
        path.relative_to(finished[0])
        for pattern in READERS
        for path in (results.glob if "/" in pattern else results.rglob)(pattern)
    }
    # Snakemake writes the benchmarks, and people read the pages.
    others = {path for path in read - known if path.suffix not in (".tsv", ".html")}
    figures = Path("results/test/figures")
    assert {path for path in others if figures not in path.parents} <= {
        Path("results/test/dimers/excluded.csv"),
        Path("results/test/dimers/checks.csv"),
        Path("results/test/README.md"),
    }


@workflow
@pytest.mark.slow
def test_damaged_frames_stop_the_run_with_one_clear_line(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    path = folder / "results" / "test" / "gas" / "0.extxyz.gz"
    content, stamp = path.read_bytes(), path.stat()
    path.write_bytes(content[: len(content) // 2])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    arguments = ("--forcerun", "energies", "--until", "energies", "--cores", "1")
    output = snakemake(folder, *TEST_RUN, *arguments, succeeds=False)
    line = (
        r"^ValueError: .*gas/0\.extxyz\.gz must be a whole .*; delete it and run again"
    )
    assert re.search(line, output, flags=re.MULTILINE), output
    path.unlink()
    assert "rule gas:" in snakemake(folder, *TEST_RUN, *arguments, "--dry-run")


def append(text):
    return lambda path: path.write_text(path.read_text() + text)


def edit_docstring(path):
    text = path.read_text()
    assert text.startswith('"""')
    path.write_text('"""Edited. ' + text[3:])


@workflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "edit", "rules"),
    [
        ("workflows/scripts/gas.py", Path.touch, set()),
        ("lode/core/reciprocal.py", Path.touch, set()),
        ("lode/core/reciprocal.py", edit_docstring, set()),
        ("lode/core/reciprocal.py", append("\n# A remark.\n"), set()),
        ("workflows/scripts/features.py", edit_docstring, set()),
        ("workflows/scripts/plotting.py", edit_docstring, set()),
        (
            "workflows/scripts/plotting.py",
            append("\nEDITED = 1\n"),
            FIGURES | AFTER_CURVES,
        ),
        (
            "workflows/scripts/summary.py",
            append("\nE = 1\n"),
            {"summary"} | AFTER_SUMMARY,
        ),
        (
            "lode/learning.py",
            append("\nE = 1\n"),
            {"learning_curve"} | DIMER_MODELS | WATER_MODELS | AFTER_CURVES,
        ),
        (
            "lode/core/reciprocal.py",
            append("\nEDITED = 1\n"),
            {"features", "learning_curve"} | DIMER_MODELS | WATER_MODELS | AFTER_CURVES,
        ),
        (
            "lode/core/ewald.py",
            append("\nEDITED = 1\n"),
            # Models may stand on a baseline of point charges.
            {"energies", "learning_curve"} | DIMER_MODELS | AFTER_CURVES,
        ),
        (
            "lode/core/montecarlo.py",
            append("\nE = 1\n"),
            WATER_RULES - {"water_source"} | {"summary"} | AFTER_SUMMARY,
        ),
        (
            "lode/datasets/gas.py",
            append("\nEDITED = 1\n"),
            GAS_RULES - {"gas_source"} | AFTER_CURVES,
        ),
        (
            "workflows/config.test.yaml",
            append("\ncurves: {lode2: {label: quadratic}}\n"),
            AFTER_CURVES,
        ),
    ],
)
def test_reruns_follow_the_code(finished, name, edit, rules):
    path = finished[0] / name
    kept, stamp = path.read_text(), path.stat()
    try:
        edit(path)
        assert planned_rules(finished[0]) == rules | ({"all"} if rules else set())
    finally:
        path.write_text(kept)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@workflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "changed", "jobs"),
    [
        ("rho_3: {density: 1.0, ", "cutoff: 3.5", {"curve=soap_3"}),
        ("rho_6: {density: 1.0, ", "cutoff: 6.5", {"curve=soap_6"}),
        (
            "rho_9: {density: 1.0, ",
            "cutoff: 9.5",
            {"curve=soap_9", "curve=soap_9_unnormalised"},
        ),
        ("sharp_rho: ", "cutoff: 3.5", {f"model={m}" for m in SOAP_MODELS}),
        (
            "tensor_rho_4: ",
            "cutoff: 4.5",
            {"features=soap_4", "curve=soap_4"},
        ),
    ],
)
def test_cutoff_stands_in_one_line_and_reruns_what_uses_it(
    finished, line, changed, jobs
):
    path = finished[0] / "workflows" / "config.yaml"
    kept = path.read_text()
    (old,) = re.findall(rf"^  {re.escape(line)}.*$", kept, flags=re.MULTILINE)
    try:
        path.write_text(kept.replace(old, re.sub(r"cutoff: [\d.]+", changed, old)))
        output = snakemake(finished[0], *TEST_RUN, "--dry-run")
    finally:
        path.write_text(kept)
    found = {
        w for own in re.findall(r"wildcards: (.*)", output) for w in own.split(", ")
    }
    # Features of the gas are in one chunk.
    assert found - {"chunk=0"} == jobs


@workflow
@pytest.mark.slow
def test_other_name_of_a_definition_computes_nothing_anew(finished):
    path = finished[0] / "workflows" / "config.yaml"
    kept = path.read_text()
    try:
        path.write_text(re.sub(r"\bmean_soap\b", "averaged", kept))
        # The page of the settings alone shows it.
        assert planned_rules(finished[0]) == {"report_pages", "all"}
    finally:
        path.write_text(kept)


@pytest.fixture
def package(tmp_path):
    """A small package and two scripts beside it."""
    files = {
        "lode/__init__.py": "VERSION = 1\n",
        "lode/core/__init__.py": "",
        "lode/core/loop.py": '"""Doc."""\ndef loop(x):\n    """Doc."""\n    return x\n',
        "lode/features.py": "from .core import loop\n",
        "lode/plotting.py": "import math\n",
        "scripts/use.py": "def f():\n    from lode.features import loop\n",
        "scripts/plot.py": "import sibling\nimport lode.plotting\n",
        "scripts/sibling.py": "x = 1\n",
        "scripts/root.py": "from lode import VERSION\n",
        "scripts/bare.py": "import lode\n",
        "scripts/module.py": "from lode import plotting\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def hashes(folder):
    return {
        name: code_hash(name, folder / "scripts", folder / "lode")
        for name in ("use", "plot")
    }


def test_code_hash_follows_imports_through_the_package(package):
    names = set(code_files("use", package / "scripts", package / "lode"))
    assert names == {"scripts.use", "lode.features", "lode.core", "lode.core.loop"}
    names = set(code_files("plot", package / "scripts", package / "lode"))
    assert names == {"scripts.plot", "scripts.sibling", "lode.plotting"}


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        ("lode/core/loop.py", '"""Doc."""', '"""Other."""', set()),
        ("lode/core/loop.py", "return x", "return  x  # note", set()),
        ("lode/core/loop.py", "return x", "return 2 * x", {"use"}),
        ("lode/plotting.py", "math", "cmath", {"plot"}),
        ("scripts/sibling.py", "1", "2", {"plot"}),
        ("lode/__init__.py", "1", "2", set()),
    ],
)
def test_code_hash_changes_with_the_code_alone(package, name, old, new, changed):
    before = hashes(package)
    path = package / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    after = hashes(package)
    assert {script for script in before if before[script] != after[script]} == changed


def test_code_hash_does_not_depend_on_the_folder(package, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(package, other, dirs_exist_ok=True)
    assert hashes(package) == hashes(other)


def test_code_hash_refuses_what_it_cannot_follow(package):
    folders = package / "scripts", package / "lode"
    for script, name in (("root", "VERSION"), ("bare", "lode")):
        message = f"must import submodules of lode, got an import of {name}"
        with pytest.raises(ValueError, match=message):
            code_hash(script, *folders)
    assert "lode.plotting" in code_files("module", *folders)
    with pytest.raises(FileNotFoundError, match="no script 'absent'"):
        code_hash("absent", *folders)


def test_the_features_rule_follows_every_module_that_a_kernel_may_name():
    names = set(code_files("features"))
    wanted = {"bases", "expansion", "fields", "invariants", "kernels", "serialization"}
    assert {f"lode.{name}" for name in wanted} <= names
    assert "lode.core.reciprocal" in names
    assert not {"lode.learning", "lode.electrostatics"} & names


def test_the_rules_of_the_dimers_follow_what_they_compute_with():
    energies = set(code_files("dimer_energies"))
    wanted = {"acquire", "curves", "dimers", "engines"}
    assert {f"lode.datasets.{name}" for name in wanted} <= energies
    assert "lode.datasets.synthetic" not in energies
    assert "lode.datasets.curves" not in code_files("dimer_geometries")
    assert "lode.datasets.engines" not in code_files("source")


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((ROOT / "workflows" / "config.yaml").read_text())


def test_the_configuration_of_the_paper_is_valid(config):
    check_configuration(config)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["colour"], 1, r"top level: keys must be .* got unknown \['colour'\]"),
        (["energies", "tol"], 1, r"energies: keys must be .*unknown \['tol'\]"),
        (["gas", "n_frames"], 1, "gas.n_frames: 1 is less than the minimum of 2"),
        (["chunk_size"], 0, "chunk_size: 0 is less than the minimum of 1"),
        (
            ["gas", "n_pairs"],
            1.5,
            "gas.n_pairs: a number must be an integer, .*got 1.5",
        ),
        (
            ["gas", "n_frames"],
            10,
            "one of the sizes .* must fit into gas.n_frames = 10",
        ),
        (["gas", "n_frames"], 100.0, "must be an integer, without a point.*got 100.0"),
        (["gas", "min_distance"], float("nan"), "must be finite, got nan"),
        (["gas", "min_distance"], 2.6, "gas: .* must fill at most 0.31 .*got 0.341"),
        (["gas", "side"], [12.0, 11.0], "gas: side must be a range .* ascending"),
        (["gas", "mirror"], "nowhere", "gas.mirror: must be a folder, got 'nowhere'"),
        (
            ["pathvars", "results"],
            "../out",
            "pathvars.results: .* must stay in the wor",
        ),
        (["pathvars", "logs"], "a/../../b", "pathvars.logs: .*got 'a/../../b'"),
        (["pathvars", "figures"], "/tmp/out", "pathvars.figures: .*got '/tmp/out'"),
        (["pathvars", "figures"], "docs/new", "must be none of .* nor inside of one"),
        (["pathvars", "results"], ".", "must be none of .* nor inside of one"),
        (["pathvars", "logs"], "results/x/../../benchmarks", "must be none of .*nor"),
        (["pathvars", "readme"], "pyproject.toml", "pathvars.readme: .*does not match"),
        (["dimers", "elements"], ["H", "C", "Xx"], r"chemical symbols, got \['Xx'\]"),
        (["dimers", "elements"], ["H", "C"], "must hold H, C, and N or O"),
        (["dimers", "curve", "far"], [7.0, 10.0], r"beyond reach = 8.0, got \[7.0\]"),
        (["dimers", "generated", "nearest"], 30.0, "must fit at centroids 30 Å apart"),
        (["dimer_model", "train_fraction"], 0.001, "must leave two dimers"),
        (["liquid", "every"], 2000, "liquid.every: .* records at least"),
        (["liquid", "side"], 5.0, "liquid: min_distance must leave room"),
        (["crystal", "dynamics", "every"], 20000, "2 records at least, got 1"),
        (
            ["water_definitions", "V_3", "sources"],
            "charges",
            "V_3.sources: must be species: the atoms of these data have no charges",
        ),
        (["gas_definitions", "V", "species"], [11], r"got none of \[17\]"),
        (["gas_definitions", "V", "method"], "pairs", "V.method: must not be pairs"),
        (["crystal", "constant"], 6.1, "crystal: constant must be within 5 %"),
        (["force_dimers", "near"], 20.0, "near: must be between .* 3 and 13 Å, got 20"),
        (
            ["water_tensor_features", "soap_3", "descriptor"],
            "equivariant(tensor_rho_3, angular=1)",
            "must be of angular = 2 and parity = 1",
        ),
        (["curves", "Big"], {}, r"curves: keys must be .*unknown \['Big'\]"),
        (["curves", "lode2", "group"], "theirs", "'theirs' is not one of"),
        (["curves", "lode2", "label"], "SOAP 3", r"must differ, got \['SOAP 3'\]"),
        (["curves", "lode2", "counterpart"], "lode3", "lode2.counterpart: .*'lode3'"),
        (["curves", "lode2", "kernel"], "power(V)", "lode2.kernel: .*must be Kernel"),
        (["curves", "lode2", "kernel"], "whitened(power(V))", "nothing to fit"),
        (["gas_definitions", "rho_3", "basis"], "gtos", "rho_3.basis: 'gtos' is not"),
        (["gas_definitions", "rho_3", "cutof"], 3.0, r"rho_3: .*unknown \['cutof'\]"),
        (["gas_definitions", "rho_3", "max_radial"], 60, "rho_3: max_radial = 60 GTO"),
        (
            ["gas_definitions", "V", "tolerance"],
            "1e-12",
            "V.tolerance: .*as in 1.0e-12",
        ),
        (["gas_definitions", "V", "width"], 0.5, "V: width and radius must be those"),
        (["gas_definitions", "V", "density"], 0.5, "V: one of .* must be given"),
        (["gas_definitions", "V", "smearing"], -1, "V.smearing: -1 is less than"),
        (["gas_definitions", "soap_3"], "soap_6 +", "soap_3: 'soap_6 \\+', column 9"),
        (["gas_definitions", "soap_3"], 3, "soap_3: 3 is not of type"),
        (["gas_definitions", "1st"], "soap_6", r"gas_definitions: .*\['1st'\]"),
        (
            ["dimer_definitions", "mean_soap"],
            "2 * multiscale + mean_soap",
            "mean_soap: .* must not refer to itself, got mean_soap -> mean_soap",
        ),
        (["dimer_models", "soap", "kernel"], "soap_3", "soap.kernel: .*'soap_3'"),
        (
            ["dimer_models", "soap", "sparse"],
            {"n_spares": 1},
            "soap.sparse: .*n_spares",
        ),
        (
            ["dimer_models", "soap", "sparse"],
            {"condition": 2},
            "sparse.condition: 2 is greater than or equal to the maximum of 1",
        ),
        (["style"], "poster", r"style: 'poster' is not one of \['default', 'journal'"),
        (["dimer_model", "n_folds"], 1, "dimer_model.n_folds: 1 is less than"),
        (["dimer_models", "Big"], {}, r"dimer_models: keys must be .*\['Big'\]"),
        (
            ["dimer_models", "soap", "label"],
            "SOAP+LODE(1)",
            "dimer_models: labels must differ",
        ),
        (
            ["dimer_models", "multiscale", "isolated"],
            True,
            "dimer_models.multiscale: isolated must be false",
        ),
        (["water_models", "soap_3", "target"], "energy", "'energy' is not one of"),
        (["water_models", "soap_3", "kernels"], ["x"], "a kernel must be .*got 'x'"),
        (["water_models", "soap_3", "kernels"], [], "either kernels or geometry"),
        (
            ["water_tensor_models", "soap_3", "features"],
            ["x"],
            "a descriptor must be .*got 'x'",
        ),
        (
            ["water_tensor_models", "soap_3", "label"],
            "LODE 3",
            "water_tensor_models: labels must differ",
        ),
        (["water_tensor_features", "soap_3", "exponent"], 0.6, "greater than"),
        (
            ["water_tensor_features", "soap_3", "descriptor"],
            "power(rho_3)",
            "soap_3.descriptor: .*must be EquivariantPowerSpectrum",
        ),
    ],
)
def test_configuration_errors_say_where_and_what(config, place, value, message):
    changed = copy.deepcopy(config)
    block = changed
    for key in place[:-1]:
        block = block[key]
    block[place[-1]] = value
    with pytest.raises(ValueError, match=message) as caught:
        check_configuration(changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"curve": "soap"}, "claims.0.curve: a curve must be one of .*got 'soap'"),
        ({"relative_to": "x"}, "claims.0.relative_to: a curve must be .*got 'x'"),
        ({"figure": "fig2", "curve": "soap"}, "claims.0: set must be given for fig2"),
        ({"above": 3.0, "below": 2.0}, "above must be less than below, got 3.0 and 2"),
        ({"paper_above": 1.0}, "must bound what paper quotes, got none"),
        ({"paper": "1 %", "any_data": True}, "any_data must not be true of a claim wi"),
    ],
)
def test_claims_are_checked_for_the_summary_alone(config, changed, message):
    changed = copy.deepcopy(config)["summary"]["claims"][0] | changed
    changed = {**config, "summary": {"claims": [changed]}}
    check_configuration(changed)
    with pytest.raises(ConfigurationError, match=message):
        check_claims(changed)


def test_paths_are_not_in_the_place_of_files_that_are_there(
    config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "page.md").mkdir()
    for name, path, message in (
        ("results", "notes", r"results: a path must be a folder, got .*\['notes'\]"),
        ("logs", "notes/logs", r"logs: a path must be a folder, got .*\['notes'\]"),
        ("readme", "page.md", "readme: the page must be a file, got the folder"),
        ("figures", "README.md/x", "the page must be a file, got the folder of figur"),
    ):
        changed = {**config, "pathvars": config["pathvars"] | {name: path}}
        with pytest.raises(ConfigurationError, match=message):
            check_configuration(changed)


def test_sizes_that_fit_stay_as_they_are(config):
    for block in ("learning_curve", "water_curve"):
        assert curve_settings(config, block) == config[block]
    assert size_notes(config) == []


def test_sizes_that_do_not_fit_are_left_out_and_named(config):
    few = {**config, "gas": {**config["gas"], "n_frames": 100}}
    check_configuration(few)
    made = curve_settings(few, "learning_curve")
    assert (made["n_train"], made["n_test"]) == ([10, 20, 50], 25)
    assert size_notes(few) == [
        "learning_curve: for 100 frames, n_test is 25 instead of 500, n_train without "
        "[100, 200, 500, 1000, 1500]"
    ]
    # What fits already is taken as it is: the workflow's jobs read the result again.
    again = {**few, "learning_curve": made}
    assert curve_settings(again, "learning_curve") == made


@pytest.mark.parametrize(
    ("source", "n_boxes", "n_train", "n_test"),
    [
        ("generated", 400, [25, 50, 100, 200], 100),
        ("auto", 400, [25, 50, 100, 200], 100),
        # The authors' file has a thousand, however many could be made.
        ("auto", 4000, [25, 50, 100, 200, 400, 800], 200),
        ("published", 400, [25, 50, 100, 200, 400, 800], 200),
    ],
)
def test_sizes_of_the_water_fit_into_what_its_source_has(
    config, source, n_boxes, n_train, n_test
):
    generated = config["water"]["generated"] | {"n_frames": n_boxes}
    changed = config["water"] | {"source": source, "generated": generated}
    found = curve_settings({**config, "water": changed}, "water_curve")
    assert (found["n_train"], found["n_test"]) == (n_train, n_test)


def test_text_of_the_command_line_becomes_what_a_file_would_give():
    given = {"gas": {"n_frames": "100", "side": ["8", "9.5"], "source": "auto"}}
    given |= {"dimers": {"mirror": "null"}, "threads": 2, "x": {"y": "1e-12"}}
    text = "{gas: {n_frames: 100, side: [8, 9.5], source: auto}, dimers: {mirror: null}"
    text += ", threads: 2, x: {y: 1e-12}}"
    assert typed(given) == yaml.safe_load(text)


@workflow
@pytest.mark.parametrize("value", ["1e2", "100.0", "-1", "many", "n_framse"])
def test_errors_of_the_command_line_are_those_of_a_file(project, value):
    text = f"{{{value}: 1}}" if value == "n_framse" else f"{{n_frames: {value}}}"
    (project / "extra.yaml").write_text(f"gas: {text}\n")
    arguments = [["--configfile", "extra.yaml"], ["--config", f"gas={text}"]]
    pattern = r"configuration: (gas.*) \((.*)\)$"
    found = [
        re.search(
            pattern, snakemake(project, "fig1", *a, succeeds=False), flags=re.MULTILINE
        ).groups()
        for a in arguments
    ]
    assert found[0][0] == found[1][0]
    assert found[0][1].endswith("extra.yaml, line 1")
    assert found[1][1] == "--config"
    assert ("needs a point and a sign" in found[0][0]) == (value == "1e2")


@workflow
def test_figure_with_few_frames_needs_no_other_setting(project):
    few = ["--config", "gas={n_frames: 100}", "--dry-run"]
    output = snakemake(project, "fig1", *few)
    assert output.count("n_test is 25 instead of 500") == 1
    # Claims are of no concern to a figure, and are when they are asked for.
    claim = "{figure: fig1, claim: x, curve: nope, n_train: 10, above: 1.0}"
    few = ["--config", f"summary={{claims: [{claim}]}}", "--dry-run"]
    assert "rule fig1" in snakemake(project, "fig1", *few)
    output = snakemake(project, "summary", *few, succeeds=False)
    assert "summary.claims.0.curve: a curve must be one of" in output
    assert "(--config)" in output


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sources": "bfdb"}, r"dimers: keys must be .*got unknown \['sources'\]"),
        ({"source": "internet"}, "dimers.source: 'internet' is not one of"),
        ({"engine": "GFN2-xTB"}, "dimers.engine: 'GFN2-xTB' is not one of"),
        ({"mirror": 3}, "dimers.mirror: 3 is not of type"),
        ({"curve": {"n_points": 13}}, "dimers.curve: '.*' is a required property"),
    ],
)
def test_configuration_errors_of_the_dimers_say_where(config, changed, message):
    with pytest.raises(ValueError, match=message):
        check_configuration({**config, "dimers": {**config["dimers"], **changed}})


def test_description_of_a_model_holds_all_that_it_computes(config):
    found = descriptions(config)
    assert list(found["curves"]) == list(config["curves"])
    assert set(found["water_kernels"]) == {
        kernel
        for model in config["water_models"].values()
        for kernel in model["kernels"]
    }
    # The defaults of the library stand there too: a change of them reruns.
    assert found["curves"]["lode1_sigma_0.5"] == {
        "PolynomialKernel": {
            "descriptor": {
                "RadialSpectrum": {
                    "expansion": {
                        "SphericalExpansion": {
                            "field": {
                                "PowerLawPotential": {"exponent": 1, "smearing": 0.5}
                            },
                            "basis": {
                                "RadialBasis": {
                                    "kind": "polynomial",
                                    "max_radial": 2,
                                    "cutoff": 2.0,
                                }
                            },
                            "max_angular": 0,
                            "cutoff_function": None,
                            "species": None,
                            "center_atom_weight": 1.0,
                            "tolerance": 1e-8,
                            "method": "auto",
                            "split": None,
                            "scaling": None,
                            "sources": "species",
                        }
                    }
                }
            },
            "degree": 1,
            "normalize": False,
            "species_delta": True,
            "average": False,
        }
    }


def test_line_of_a_key_is_that_of_the_last_file_that_has_it(tmp_path):
    paths = [tmp_path / name for name in ("a.yaml", "b.yaml")]
    paths[0].write_text("x:\n  y: {z: 1}\n  list:\n    - 1\n    - 2\n")
    paths[1].write_text("x:\n\n  y: 2\n")
    assert source_line(["x", "y"], paths) == f"{paths[1]}, line 3"
    assert source_line(["x", "y", "z"], paths) == f"{paths[0]}, line 2"
    assert source_line(["x", "list", 1], paths) == f"{paths[0]}, line 5"
    assert source_line(["w"], paths) == ""
    assert source_line([], paths) == ""


SSI_TEXT = """
dbse = 'SSI'
BIND['%s-%s' % (dbse, '001LYS-002ASP-1')] = -100.0
GEOS['%s-%s-dimer' % (dbse, '001LYS-002ASP-1')] = qcdb.Molecule(\"\"\"
1 1
N 0 0 0
H 0.6 0.6 0.6
H -0.6 -0.6 0.6
H -0.6 0.6 -0.6
H 0.6 -0.6 -0.6
--
-1 1
C 0 0 4.0
O 1.1 0 4.6
O -1.1 0 4.6
H 0 0 2.9
units angstrom
\"\"\")
"""


def test_dimers_go_from_a_mirror_to_checked_curves(tmp_path, monkeypatch):
    pytest.importorskip("mopactools")
    from lode.datasets import acquire

    (tmp_path / "SSI.py").write_text(SSI_TEXT)
    file = acquire.SOURCES["dimers"]["bfdb"]
    pinned = dataclasses.replace(file, git_blob=acquire.git_blob(tmp_path / "SSI.py"))
    monkeypatch.setitem(acquire.SOURCES, "dimers", {"bfdb": pinned})
    results = tmp_path / "results"
    names = (
        "provenance.json",
        "dimers.extxyz.gz",
        "curves.extxyz.gz",
        "excluded.csv",
        "c.csv",
    )
    paths = [results / name for name in names]
    settings = {"n_points": 3, "reach": 8.0, "span": 1.0, "far": [10.0]}
    source_script.source(paths[0], "dimers", source="bfdb", mirror=tmp_path)
    dimer_geometries_script.dimer_geometries(
        *paths[:2], elements=["H", "C", "N", "O"], generated={}, engine="PM6-D3H4"
    )
    energies = [results / f"{i}.json" for i in range(2)]
    for i, path in enumerate(energies):
        dimer_energies_script.dimer_energies(
            *paths[:2],
            path,
            engine="PM6-D3H4",
            curve=settings,
            charge_tolerance=0.02,
            index=i,
            n_parts=2,
        )
    dimer_curves_script.dimer_curves(*paths[:2], energies, *paths[2:], curve=settings)
    frames = read_frames(paths[2])
    assert [frame.info["kind"] for frame in frames] == ["training"] * 3 + ["far"]
    keys = {"name", "subset", "kind", "distance", "charge", "charge_a", "charge_b"}
    assert keys | {"n_atoms_a", "e_int_ev"} <= set(frames[1].info)
    assert paths[3].read_text() == "name,kind,distance,reason\n"
    found = {row["check"]: row["value"] for row in table(paths[4])}
    assert found["data"].startswith("bfdb: side-chain dimers")
    # Geometry and reference, -4.3 eV, are made up: only the order is right.
    assert 0.0 < float(found["mae_reference_ev"]) < 3.0
    assert not any((results / str(i)).exists() for i in range(2))


def test_published_curves_keep_their_own_energies(tmp_path, monkeypatch):
    from test_dimers import published_frames

    from lode.datasets import acquire

    ase.io.write(tmp_path / "trajs.xyz", published_frames(), format="extxyz")
    file = acquire.SOURCES["dimers"]["published"]
    blob = acquire.git_blob(tmp_path / "trajs.xyz")
    pinned = dataclasses.replace(file, git_blob=blob, aliases=("trajs.xyz",))
    monkeypatch.setitem(acquire.SOURCES, "dimers", {"published": pinned})
    results = tmp_path / "results"
    names = (
        "provenance.json",
        "dimers.extxyz.gz",
        "curves.extxyz.gz",
        "excluded.csv",
        "c.csv",
    )
    paths = [results / name for name in names]
    source_script.source(paths[0], "dimers", source="auto", mirror=tmp_path)
    dimer_geometries_script.dimer_geometries(
        *paths[:2], elements=["H", "C", "N", "O"], generated={}, engine="PM6-D3H4"
    )
    energies = results / "energies.json"
    dimer_energies_script.dimer_energies(
        *paths[:2], energies, engine="PM6-D3H4", curve={}, charge_tolerance=0.02
    )
    dimer_curves_script.dimer_curves(*paths[:2], [energies], *paths[2:], curve={})
    frames = read_frames(paths[2])
    assert len(frames) == 26
    expected = [-14.399645 / frame.info["distance"] for frame in frames]
    energies = [frame.info["e_int_ev"] for frame in frames]
    np.testing.assert_allclose(energies, expected, rtol=1e-6)
    found = {row["check"]: row["value"] for row in table(paths[4])}
    assert found["energies"] == "published"
    assert found["n_frames"] == "26"
    assert found["mae_reference_ev"] == ""


GAS = {"n_frames": 12, "n_pairs": 4, "side": [6.0, 8.0], "min_distance": 2.5, "seed": 3}


@pytest.fixture(scope="module")
def gas_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gas") / "gas.extxyz.gz"
    gas_script.gas(path, **GAS)
    return path


@pytest.fixture(scope="module")
def energies_file(gas_file):
    path = gas_file.with_name("energies.csv.gz")
    energies_script.energies(gas_file, path, tolerance=1e-10, n_threads=1)
    return path


KERNEL = {
    "PolynomialKernel": {
        "descriptor": {
            "RadialSpectrum": {
                "expansion": {
                    "SphericalExpansion": {
                        "field": {
                            "PowerLawPotential": {"exponent": 1, "smearing": 1.0}
                        },
                        "basis": {
                            "RadialBasis": {
                                "kind": "polynomial",
                                "max_radial": 2,
                                "cutoff": 2.0,
                            }
                        },
                        "max_angular": 0,
                    }
                }
            }
        }
    }
}


@pytest.fixture
def intermediates(gas_file, energies_file, tmp_path):
    """A file of each kind that rules of the gas read, with its reader."""
    for path in (gas_file, energies_file):
        shutil.copy(path, tmp_path)
    features_script.features(
        gas_file, tmp_path / "curve.npz", kernel=KERNEL, n_threads=1
    )
    record = {"data_set": "dimers", "source": "generated", "title": "own"}
    write_provenance(tmp_path, record)
    readers = read_frames, table, StructureFeatures.load, read_provenance
    names = "gas.extxyz.gz", "energies.csv.gz", "curve.npz", "provenance.json"
    return {tmp_path / n: read for n, read in zip(names, readers, strict=True)}


def test_damaged_intermediates_are_refused_by_name(intermediates):
    assert all(refuses_damage(read, path) for path, read in intermediates.items())


def test_gas_writes_neutral_periodic_frames_with_charges(gas_file):
    frames = read_frames(gas_file)
    assert len(frames) == GAS["n_frames"]
    for atoms in frames:
        charges = atoms.get_initial_charges()
        assert sorted(charges) == [-1.0] * 4 + [1.0] * 4
        assert atoms.pbc.all()
        assert 6.0 <= atoms.cell.lengths().min() <= 8.0


def test_energies_of_the_written_frames_are_those_of_the_generated_ones(
    gas_file, energies_file
):
    from lode.datasets.gas import gas_frames
    from lode.electrostatics import ewald_energies

    frames = gas_frames(**GAS)
    written = [float(row["energy"]) for row in table(energies_file)]
    # The file keeps the 8 decimals of the positions: nothing is lost.
    np.testing.assert_allclose(written, ewald_energies(frames), rtol=1e-9)
    assert [int(row["frame"]) for row in table(energies_file)] == list(range(12))


@pytest.mark.parametrize("max_features", [0, 100])
def test_features_and_learning_curve_tables(
    gas_file, energies_file, tmp_path, max_features
):
    representation, errors = tmp_path / "curve.npz", tmp_path / "curve.csv.gz"
    features_script.features(gas_file, representation, kernel=KERNEL, n_threads=1)
    learning_curve_script.learning_curve_table(
        [representation],
        [energies_file],
        errors,
        kernel=KERNEL,
        n_train=[4, 8],
        n_test=4,
        n_repeats=3,
        seed=0,
        digits=5,
        resolution=1e-9,
        max_features=max_features,
        n_threads=1,
    )
    rows = table(errors)
    places = [(int(row["n_train"]), int(row["repeat"])) for row in rows]
    assert places == [(n, repeat) for n in (4, 8) for repeat in range(3)]
    assert all(float(row["rmse_percent"]) > 0 for row in rows)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_chunks_give_the_same_curve_bit_for_bit(
    gas_file, energies_file, tmp_path, size
):
    settings = {
        "kernel": KERNEL,
        "n_train": [4, 8],
        "n_test": 4,
        "n_repeats": 3,
        "seed": 0,
        "digits": 6,
        "resolution": 0.0,
        "max_features": 100,
        "n_threads": 1,
    }
    curve = learning_curve_script.learning_curve_table
    representation = tmp_path / "whole.npz"
    features_script.features(gas_file, representation, kernel=KERNEL, n_threads=1)
    curve([representation], [energies_file], tmp_path / "whole.csv", **settings)
    frames, described, summed = (
        [tmp_path / f"{kind}{first}" for first in range(0, GAS["n_frames"], size)]
        for kind in ("gas_", "features_", "energies_")
    )
    for i, paths in enumerate(zip(frames, described, summed, strict=True)):
        chunk = {"first": i * size, "n_frames": min(size, GAS["n_frames"] - i * size)}
        gas_script.gas(paths[0], **GAS | chunk)
        features_script.features(paths[0], paths[1], kernel=KERNEL, n_threads=1)
        energies_script.energies(
            paths[0], paths[2], tolerance=1e-10, first=chunk["first"], n_threads=1
        )
    curve(described, summed, tmp_path / "chunks.csv", **settings)
    whole, chunks = (tmp_path / f"{name}.csv" for name in ("whole", "chunks"))
    assert chunks.read_bytes() == whole.read_bytes()
    assert [row for file in summed for row in table(file)] == table(energies_file)


def test_more_frames_leave_the_full_chunks_as_they_are():
    few, many = chunks(80, 40), chunks(100, 40)
    assert few == {
        "0": {"first": 0, "n_frames": 40},
        "1": {"first": 40, "n_frames": 40},
    }
    assert many == few | {"2": {"first": 80, "n_frames": 20}}


@workflow
def test_chunk_size_alone_sets_the_number_of_jobs(project):
    for size, n_chunks in ((60, 1), (25, 3)):
        arguments = "fig1", *TEST_RUN, "--dry-run", "--config", f"chunk_size={size}"
        plan = snakemake(project, *arguments)
        jobs = {rule: plan.count(f"rule {rule}:") for rule in GAS_RULES}
        n_curves = jobs["learning_curve"]
        assert jobs["gas"] == jobs["energies"] == n_chunks
        assert jobs["features"] == n_chunks * n_curves > 0


def test_fig1_table_holds_means_and_spreads_over_the_shuffles(tmp_path):
    errors = tmp_path / "a.csv.gz"
    columns = ["n_train", "repeat", "rmse_percent"]
    rows = [(10, 0, 1.0), (10, 1, 3.0), (20, 0, 1e-9), (20, 1, 1e-9)]
    write_table(errors, columns, rows)
    path = tmp_path / "fig1.csv"
    curves = {"a": {"label": "LODE(1) sigma=1.0"}}
    fig1_script.fig1_table(
        {"a": errors}, path, curves=curves, digits=3, resolution=1e-9
    )
    assert path.read_text() == (
        "curve,n_train,rmse_percent,rmse_percent_std\n"
        "LODE(1) sigma=1.0,10,2,1.41\n"
        "LODE(1) sigma=1.0,20,1e-09,0\n"
    )


def test_fig1_picture_writes_each_format(tmp_path):
    path = tmp_path / "fig1.csv"
    columns = ["curve", "n_train", "rmse_percent", "rmse_percent_std"]
    write_table(path, columns, [(c, n, 2.0, 0.1) for c in "AB" for n in (10, 20)])
    curves = {
        "a": {"label": "A", "group": "paper"},
        "b": {"label": "B", "group": "ours", "counterpart": "a"},
    }
    pictures = [tmp_path / "fig1.pdf", tmp_path / "fig1.png"]
    record = {"data_set": "gas", "source": "generated", "title": "own"}
    write_provenance(tmp_path, record)
    own = tmp_path / "provenance.json"
    provenance = fig1_script.gas_provenance(own, GAS, "0.1")
    assert provenance == "12 generated frames of 8 charges, seed 3, lode 0.1"
    fig1_script.fig1_picture(
        path, pictures, curves=curves, resolution=1e-9, provenance=provenance
    )
    assert all(picture.stat().st_size > 1000 for picture in pictures)


VALUES = {("A", 10): 2.0, ("A", 20): 0.5, ("B", 10): 60.0, ("B", 20): 20.0}
SPREADS = {("A", 10): 0.2, ("A", 20): 0.05, ("B", 10): 6.0, ("B", 20): 0.0}
LABELS = {"a": {"label": "A"}, "b": {"label": "B"}}


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ({"curve": "a", "n_train": 20, "below": 1.0}, ("0.5 %", "0.05", "yes")),
        ({"curve": "a", "n_train": 20, "below": 0.5}, ("0.5 %", "0.05", "no")),
        ({"curve": "b", "n_train": 20, "above": 17, "below": 24}, ("20 %", "0", "yes")),
        ({"curve": "b", "n_train": 20, "above": 20}, ("20 %", "0", "no")),
        ({"curve": "a", "from": 10, "below": 1.0}, ("0.5 to 2 %", "0.2", "no")),
        ({"curve": "a", "from": 20, "below": 1.0}, ("0.5 %", "0.05", "yes")),
        # Two errors of a tenth each: of the ratio 30 a share of 0.14.
        (
            {"curve": "b", "relative_to": "a", "from": 10, "above": 29},
            ("30 to 40 times", "4.2", "yes"),
        ),
        (
            {"curve": "b", "n_train": 20, "below": 30, "paper_below": 15},
            ("20 %", "0", "weaker"),
        ),
        (
            {"curve": "b", "n_train": 20, "below": 30, "paper_above": 15},
            ("20 %", "0", "yes"),
        ),
        # What does not hold is not weaker, either.
        (
            {"curve": "b", "n_train": 20, "below": 19, "paper_below": 15},
            ("20 %", "0", "no"),
        ),
    ],
)
def test_verdict_on_a_claim(claim, expected):
    assert summary_script.verdict(claim, VALUES, LABELS, SPREADS) == expected


@pytest.mark.parametrize(
    "claim",
    [
        {"curve": "a", "n_train": 30},
        {"curve": "a", "from": 15},
        {"curve": "a", "set": "far"},
        {"curve": "a", "relative_to": "c", "n_train": 20},
    ],
)
def test_claim_about_what_is_not_computed_has_no_verdict(claim):
    labels = LABELS | {"c": {"label": "C"}}
    found = summary_script.verdict(claim | {"below": 1}, VALUES, labels, SPREADS)
    assert found == ("not computed", "-", "-")


def test_spread_of_the_dimers_is_that_of_the_random_splits():
    columns = ("curve", "experiment", "set", "rmse_percent")
    rows = [("A", "random split", "test", x) for x in ("1.0", "3.0")]
    rows += [("A", "random split", "far", "9.0"), ("A", "molecule", "test", "8.0")]
    rows = [dict(zip(columns, row, strict=True)) for row in rows]
    means, spreads = summary_script.split_values(rows)
    assert means == {("A", "random splits"): 2.0}
    assert spreads == {
        ("A", s): pytest.approx(2**0.5) for s in ("random splits", "test")
    }


@pytest.fixture
def summarised(tmp_path):
    """Rows and page of a summary of two claims, on the data that are given."""
    figure = tmp_path / "fig1.csv"
    rows = [(*place, value, SPREADS[place]) for place, value in VALUES.items()]
    columns = ["curve", "n_train", "rmse_percent", "rmse_percent_std"]
    write_table(figure, columns, rows)
    own = {"figure": "fig1", "claim": "A|B", "curve": "a", "n_train": 20, "below": 1.0}
    claims = [
        own | {"any_data": True},
        own | {"claim": "B", "paper": "about 20 %", "curve": "b", "below": 24.0},
        own | {"claim": "C", "n_train": 30},
    ]

    def made(data):
        path, page = tmp_path / "summary.csv", tmp_path / "summary.md"
        summary_script.summary(
            {"fig1": figure},
            path,
            page,
            claims=claims,
            curves={"fig1": LABELS},
            data={"fig1": data},
            provenance={"fig1": "60 frames"},
        )
        return path, page.read_text()

    return made


def test_summary_writes_table_and_page(summarised):
    path, page = summarised("published")
    assert path.read_text() == (
        "figure,claim,paper,ours,spread,data,met\n"
        "fig1,A|B,-,0.5 %,0.05,published,yes\n"
        "fig1,B,about 20 %,20 %,0,published,yes\n"
        "fig1,C,-,not computed,-,published,-\n"
    )
    assert "Data of fig1: 60 frames." in page
    assert "| fig1 | A\\|B | - | 0.5 % | 0.05 | published | yes |" in page
    assert "stand-in" not in page


def test_stand_ins_are_marked_and_not_held_against_the_paper(summarised):
    path, page = summarised("generated (stand-in)")
    assert path.read_text() == (
        "figure,claim,paper,ours,spread,data,met\n"
        "fig1,A|B,-,0.5 %,0.05,generated (stand-in),yes\n"
        "fig1,B,-,20 %,0,generated (stand-in),-\n"
        "fig1,C,-,not computed,-,generated (stand-in),-\n"
    )
    assert "**fig1: on a stand-in, which is not held against the paper.**" in page


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("published", ["published"] * 3),
        ("bfdb", [None, "BFDb + PM6-D3H4", None]),
        (
            "generated",
            [
                "generated, the paper's recipe",
                "generated + PM6-D3H4 (stand-in)",
                "generated (stand-in)",
            ],
        ),
    ],
)
def test_data_are_named_in_few_words(tmp_path, config, source, data):
    write_provenance(tmp_path, {"data_set": "x", "source": source, "title": "own"})
    path = tmp_path / "provenance.json"
    found = [
        summary_script.gas_data(path, config["gas"]),
        summary_script.dimers_data(path, "PM6-D3H4"),
        summary_script.water_data(path),
    ]
    for name, wanted in zip(found, data, strict=True):
        assert wanted in (name, None)
    if source == "generated":
        # Other boxes than the paper's are not the paper's gas.
        other = summary_script.gas_data(path, {**config["gas"], "n_pairs": 8})
        assert other == "generated (stand-in)"


def test_every_number_that_the_paper_prints_stands_in_the_table(config):
    quoted = {
        c["claim"]: c["paper"] for c in config["summary"]["claims"] if "paper" in c
    }
    assert len(quoted) == 7
    assert "< 1 %" in quoted["LODE(1) sigma=1.0 is below 1 % from 10 structures on"]
    assert "halves" in quoted["SOAP+LODE(1) over SOAP is at most 0.6"]


def test_committed_tables_are_those_of_published_data(config):
    rows = table(ROOT / "figures" / "summary.csv")
    assert list(rows[0]) == summary_script.COLUMNS
    claims = config["summary"]["claims"]
    assert [r["claim"] for r in rows] == [c["claim"] for c in claims]
    assert not [r for r in rows if "(stand-in)" in r["data"] or r["met"] == "-"]
    page = (ROOT / "README.md").read_text()
    block = block_between(page, readme_script.WRITER)
    assert "(stand-in)" not in block
    for row in rows:
        assert f"{row['claim']}: {row['ours']}".replace("|", "\\|") in block


def test_times_of_the_jobs_stand_in_a_table(tmp_path):
    files = []
    for name, seconds in (("water/kernels/a", 2.0), ("water/b", 11.25)):
        path = tmp_path / "benchmarks" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:02\t150.5\n")
        files.append(path)
    table_path = tmp_path / "times.csv"
    readme_script.times(table_path, {"fig3": files})
    assert table_path.read_text() == (
        "figure,job,seconds,memory_mb\nfig3,b,11.2,150.5\nfig3,kernels/a,2.0,150.5\n"
    )


@pytest.fixture
def readme_run(tmp_path):
    """A page, and a function that writes a table of some rows into it."""
    page, summary = tmp_path / "README.md", tmp_path / "summary.csv"
    begin, end = markers(readme_script.WRITER)
    page.write_text(f"Before\n{begin}\n{end}\nAfter\n")
    benchmarks = [tmp_path / "a.tsv", tmp_path / "b.tsv"]
    for path in benchmarks:
        path.write_text("s\th:m:s\n60.5\t0:01:00\n")

    def run(*rows):
        write_table(summary, summary_script.COLUMNS, rows)
        return readme_script.readme(page, summary, {"fig1": benchmarks})

    return page, run


PUBLISHED_ROWS = (
    ("fig1", "SOAP 9", "about 20 %", "20.2 %", "0.5", "published", "yes"),
    ("fig1", "SOAP 6", "-", "4 %", "-", "published", "weaker"),
    ("fig1", "LODE(2)", "-", "3 %", "-", "published", "no"),
)
STAND_IN_ROW = ("fig1", "SOAP 9", "-", "9 %", "-", "generated (stand-in)", "-")


def test_readme_replaces_what_stands_between_the_markers(readme_run):
    page, run = readme_run
    begin, end = markers(readme_script.WRITER)
    for _ in range(2):
        assert run(*PUBLISHED_ROWS)
        assert page.read_text().splitlines() == [
            "Before",
            begin,
            "| figure | target | data | time | paper | ours |",
            "| --- | --- | --- | --- | --- | --- |",
            "| [fig1](figures/fig1.pdf) | `snakemake fig1` | published | 2 min "
            "| about 20 % | SOAP 9: 20.2 % ± 0.5 |",
            "|  |  |  |  | - | SOAP 6: 4 % (weaker than the paper's) |",
            "|  |  |  |  | - | LODE(2): 3 % (not met) |",
            end,
            "After",
        ]


def test_stand_ins_do_not_replace_a_table_of_published_data(readme_run):
    page, run = readme_run
    # Where there is no table yet, they stand there with their mark,
    assert run(STAND_IN_ROW)
    assert "generated (stand-in) | 2 min | - | SOAP 9: 9 % |" in page.read_text()
    # and give way to published data, not the other way round.
    assert run(*PUBLISHED_ROWS)
    kept = page.read_text()
    assert not run(STAND_IN_ROW)
    assert page.read_text() == kept


def test_benchmark_that_ends_too_soon_is_an_error(tmp_path):
    path = tmp_path / "a.tsv"
    for text in ("", "s\th:m:s\n", "s\th:m:s\n60.5\n", "h:m:s\n0:01:00\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"a\.tsv must be a whole benchmark file"):
            readme_script.seconds([path])


def test_durations_are_rounded_for_readers():
    assert readme_script.duration(41.6) == "42 s"
    assert readme_script.duration(252.0) == "4 min"
