"""The examples of the pages run as they stand."""

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import lode

ROOT = Path(__file__).parent.parent


def examples(page):
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


PAGES = [p for p in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if examples(p)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    if "import featomic" in page.read_text("utf-8"):
        pytest.importorskip("featomic", reason="featomic is not installed")
    # Where there are no files of the project or of a run.
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in examples(page):
        exec(compile(code, str(page), "exec"), names)
    if page.stem == "README":
        # Figure 1 has 0.5 % at this size; a wrong sign or unit would give 100 %.
        assert names["error"].std() < 0.03 * names["energies"].std()


def test_settings_in_the_readme_are_valid_and_used():
    pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml")
    from workflows.configuration import check_configuration, descriptions

    text = (ROOT / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    config = yaml.safe_load((ROOT / "workflows/config.yaml").read_text("utf-8"))
    for key, added in yaml.safe_load(block).items():
        config[key] |= added
    check_configuration(config)
    assert "mine" in descriptions(config)["curves"]


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
