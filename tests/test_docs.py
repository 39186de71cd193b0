"""The examples of the pages run as they stand."""

import importlib.machinery
import importlib.util
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


def test_the_picture_puts_every_room_above_those_it_imports():
    folder = str(ROOT / "docs")
    loader = importlib.machinery.PathFinder.find_spec("picture", [folder])
    picture = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(picture)
    found = picture.imports()
    assert found["kernels"] >= {"features", "gram", "systems"}
    layers = picture.layers(found)
    for name, others in found.items():
        assert all(layers[other] < layers[name] for other in others)
        assert picture.direct(found)[name] <= others
    # What follows from another import is not drawn.
    assert "parallel" not in picture.direct(found)["kernels"]
    text = picture.svg()
    assert text.startswith("<?xml")
    # The same bytes whenever it is made.
    assert picture.svg() == text
