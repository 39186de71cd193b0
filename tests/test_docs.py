"""The examples of the pages run as they stand."""

import re
from pathlib import Path

import ase.io
import pytest

import lode
from lode.datasets.gas import gas_frames

ROOT = Path(__file__).parent.parent


def example(page):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)
    return compile(code, page, "exec")


def test_readme_learns_the_gas(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    ase.io.write("results/gas.extxyz", gas_frames(200, n_pairs=4, side=(8, 12)))
    names = {}
    exec(example("README.md"), names)
    # Eight charges in a small box: their energies spread over tens of eV.
    assert abs(names["error"]).max() < 0.1 * names["energies"].std()


def test_index_describes_rock_salt():
    exec(example("docs/index.md"), {})


def test_reference_holds_every_public_name():
    page = (ROOT / "docs/reference.md").read_text("utf-8").splitlines()
    for name, module in lode._MODULE_OF.items():
        assert f"::: lode.{module}.{name}" in page


def test_index_links_every_page():
    links = re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs/index.md").read_text())
    assert {*links, "index.md"} == {p.name for p in (ROOT / "docs").glob("*.md")}


def test_conventions_match_featomic():
    pytest.importorskip("featomic", reason="featomic is not installed")
    exec(example("docs/conventions.md"), {})
