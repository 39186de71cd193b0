"""The examples of the pages run as they stand."""

import re
from pathlib import Path

import ase.io
import pytest

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


def test_conventions_match_featomic():
    pytest.importorskip("featomic", reason="featomic is not installed")
    exec(example("docs/conventions.md"), {})
