import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lode"
CORE = sorted(p for p in (PACKAGE / "core").glob("*.py") if p.name != "__init__.py")
# The rooms of the house from bottom to top. Those that the list leaves out stand where
# they belong: parallel, files and archive know nothing of the physics.
ROOMS = [
    *("parallel", "files", "combinations", "systems", "charges", "gradients", "nufft"),
    *("fields", "bases", "cutoffs", "tables", "tuning", "pairs", "reciprocal"),
    *("expansion", "coupling", "invariants"),
    *("archive", "serialization", "features", "gram", "whitening", "kernels"),
    *("electrostatics", "dipoles", "baselines", "prediction"),
    *("ridge", "models", "training", "regression", "sparse", "committee"),
    *("learning", "equivariants", "calculator", "suggestions", "datasets"),
]
# They name classes of the whole package, or its version.
WHOLE_PACKAGE = {"serialization", "models"}
# Of fastmath, those that keep the meaning of NaN and infinity.
SAFE_MATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
# They say how the others are compiled.
TOOLS = {"compilation", "registers"}


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
def test_core_files_import_nothing_of_the_package_but_the_core(path):
    others = {name for name in imports(path) if not name.startswith("lode.core.")}
    roots = {name.split(".")[0] for name in others}
    assert path.stem in TOOLS or roots <= {"math", "numpy", "typing"}
    assert "lode" not in roots


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.stem)
def test_every_function_of_the_core_is_compiled(path):
    if path.stem in TOOLS:
        return
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        (decorator,) = node.decorator_list
        if isinstance(decorator, ast.Name):
            assert decorator.id == "compiled"
            continue
        assert decorator.func.id == "compiled"
        options = {k.arg: ast.unparse(k.value) for k in decorator.keywords}
        fastmath = options.get("fastmath", "CONTRACT")
        assert fastmath == "CONTRACT" or ast.literal_eval(fastmath) <= SAFE_MATH


def test_no_two_functions_of_the_core_are_the_same():
    found = {}
    for path in CORE:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                arguments = ast.dump(node.args)
                body = [ast.dump(n) for n in node.body if not is_docstring(n)]
                found.setdefault((arguments, *body), []).append(node.name)
    assert [names for names in found.values() if len(names) > 1] == []


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


# ewald only says where its content is now.
MODULES = sorted(
    p
    for p in PACKAGE.rglob("*.py")
    if room(p) not in ("core", "__init__", "__main__", "cli", "ewald")
)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_rooms_import_only_rooms_below_them(path):
    mine = room(path)
    assert mine in ROOMS, f"{mine} has no place in the list"
    below = {*ROOMS[: ROOMS.index(mine)], mine, "core"}
    for name in imports(path):
        if name == "lode":
            assert mine in WHOLE_PACKAGE
        elif name.startswith("lode."):
            other = name.split(".")[1]
            assert other in below, f"{mine} imports {other}"


def test_modules_of_public_names_are_found_without_an_import():
    code = "import lode; lode.fields.GaussianDensity; assert callable(lode.ewald)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
