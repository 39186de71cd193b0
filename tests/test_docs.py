"""The examples of the pages run as they stand."""

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
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


def test_architecture_shows_a_field_that_can_be_split():
    exec(example("docs/architecture.md"), {})


@pytest.fixture(scope="module")
def architecture():
    """What draws the modules; a hook of MkDocs, which is not installed here."""
    path = ROOT / "docs/architecture.py"
    spec = importlib.util.spec_from_file_location("architecture", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_is_drawn_above_all_that_it_imports(architecture):
    imported = architecture.imports()
    layers = architecture.layers(imported)
    level = {name: k for k, layer in enumerate(layers) for name in layer}
    assert level.keys() == imported.keys() >= {"core", "fields", "regression"}
    for name, below in imported.items():
        # By the longest way from the bottom: just above the highest of them.
        assert level[name] == max((level[other] + 1 for other in below), default=0)


def test_lines_left_out_of_the_picture_follow_from_the_others(architecture):
    imported = architecture.imports()
    drawn = architecture.reduced(imported)

    def reached(name, lines):
        return lines[name].union(*(reached(other, lines) for other in lines[name]))

    for name, lines in drawn.items():
        assert reached(name, drawn) == reached(name, imported)
        for other in lines:
            assert all(other not in reached(way, drawn) for way in lines)


def test_a_circle_of_imports_is_an_error(architecture):
    with pytest.raises(ValueError, match=r"circle, got one among \['a', 'b'\]"):
        architecture.layers({"a": {"b"}, "b": {"a"}, "c": set()})


def test_picture_shows_every_module_and_fits_the_page(architecture):
    text = architecture.picture()
    assert text == architecture.picture()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    imported = architecture.imports()
    for name in imported:
        assert f"<!-- {name} -->" in text
    layers, lines = architecture.layers(imported), architecture.reduced(imported)
    x_of, rows, _ = architecture._placed(layers, lines)
    for row in rows:
        ends = [(x_of[p], 0.5 * architecture._size(p)) for p in row]
        edges = [edge for x, half in ends for edge in (x - half, x + half)]
        # Boxes and lines between them do not overlap.
        assert all(a <= b + 1e-9 for a, b in zip(edges, edges[1:], strict=False))
        assert edges[0] >= -1e-9
        assert edges[-1] <= architecture._WIDTH + 1e-9


def test_architecture_names_every_module(architecture):
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    for name in architecture.imports():
        assert f"`{name}`" in page


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
