import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lode"
CORE = sorted(p for p in (PACKAGE / "core").glob("*.py") if p.name != "__init__.py")
# The rooms of the house from top to bottom (DESIGN.md, section 3). Those that the
# list leaves out stand where they belong: parallel, files and archive know nothing
# of the physics.
ROOMS = [
    *("parallel", "files", "systems", "charges", "combinations", "fields", "radial"),
    *("waves", "expansion", "coupling", "invariants"),
    *("archive", "specification", "conditioning", "kernels", "regression", "learning"),
    *("equivariants", "ewald"),
    "dipoles",
    *("calculator", "datasets", "plotting"),
]
# They name classes of the whole package, or its version.
WHOLE_PACKAGE = {"specification", "regression", "equivariants"}
# Of fastmath, those that keep the meaning of NaN and infinity.
SAFE_MATH = {"contract", "reassoc", "nsz", "arcp", "afn"}


# They write the instructions of compiled functions, or are their plain twins.
VECTORS = {
    *("_vector", "_place", "_read", "_write", "_spread", "_tile", "_arithmetic"),
    *("_add_tile", "_add_tile_compiled", "_load", "_load_compiled", "_load_overload"),
    *("_store", "_store_compiled", "_store_overload"),
}
# As these, in one file: counters of several threads, and how one joins another.
COUNTERS = {
    *("_counter", "_raised", "_raised_compiled", "_raised_overload"),
    *("_seen", "_seen_compiled", "_seen_overload"),
    *("_shared", "_shared_compiled", "_join", "_join_compiled", "_join_overload"),
}


def imports(path):
    """Modules that a file imports anywhere, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path.name}"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.stem)
def test_core_files_import_only_math_numpy_and_numba(path):
    # Numba's disk cache watches one file: a kernel that uses another goes stale.
    roots = {name.split(".")[0] for name in imports(path)}
    if path.stem == "expansion":
        # Which machine waits how; plain twins of what threads share; named tuples.
        roots -= {"platform", "threading", "time", "typing"}
    assert roots <= {"math", "operator", "numpy", "numba"}


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.stem)
def test_every_function_of_the_core_is_compiled_and_cached(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name not in VECTORS | COUNTERS:
            (decorator,) = node.decorator_list
            options = {k.arg: ast.unparse(k.value) for k in decorator.keywords}
            assert decorator.func.id == "njit"
            assert options["cache"] == "True"
            assert options["error_model"] == "'numpy'"
            fastmath = ast.literal_eval(options.get("fastmath", "{'contract'}"))
            assert isinstance(fastmath, set)
            assert fastmath <= SAFE_MATH


def test_vectors_are_the_same_in_every_core_file_that_has_them():
    # No core file imports another: what several need stands in each.
    found = {}
    for path in CORE:
        for node in ast.parse(path.read_text()).body:
            name = getattr(node, "name", None)
            if name in VECTORS | {"_Lanes", "_LanesModel", "_check_block"}:
                found.setdefault(name, []).append(ast.dump(node))
    assert len(found) == len(VECTORS) + 3
    for name, copies in found.items():
        assert len(copies) == 2, name
        assert len(set(copies)) == 1, name


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(
    p
    for p in PACKAGE.rglob("*.py")
    if room(p) not in ("core", "__init__", "__main__", "cli")
)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_rooms_import_only_rooms_above_them(path):
    mine = room(path)
    assert mine in ROOMS, f"{mine} has no place in the list"
    above = {*ROOMS[: ROOMS.index(mine)], mine, "core"}
    for name in imports(path):
        if name == "lode":
            assert mine in WHOLE_PACKAGE
        elif name.startswith("lode."):
            other = name.split(".")[1]
            assert other in above, f"{mine} imports {other}"


@pytest.mark.parametrize(
    ("rows", "columns", "inside"), [(3, 8, True), (4, 8, False), (3, 7, False)]
)
def test_what_pointers_reach_is_checked_with_the_bounds(
    tmp_path, rows, columns, inside
):
    program = (
        "import numpy as np\n"
        "from lode.core import expansion as core\n"
        f"left, right = np.ones((3, 5)), np.ones((5, {columns}))\n"
        f"core.add_product(left, right, 0, 5, 0, {rows}, np.zeros((4, 8)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "NUMBA_BOUNDSCHECK": "1",
            "NUMBA_DISABLE_JIT": "0",
            "NUMBA_CACHE_DIR": str(tmp_path),
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == inside
    assert ("IndexError: block out of bounds" in done.stderr) != inside
