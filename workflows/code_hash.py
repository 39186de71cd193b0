"""What a script computes, as a short text that changes when its code does.

Snakemake follows files, not the package behind a script. Each rule therefore
carries ``params: code=code_hash("script")``: a change of the code of the script,
or of any module of the package that it imports, directly or through others,
changes this parameter and with it reruns the rule. Comments, docstrings, layout
and time stamps do not count.

The package's own ``__init__`` is left out: it names the public classes and the
version, and computes nothing. Scripts import submodules, never names from the
package root, since those are resolved while running and cannot be followed.
"""

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

PACKAGE = "lode"
SCRIPTS = Path(__file__).parent / "scripts"
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_hash(script, scripts=SCRIPTS, package=None):
    """Hash of the code of a script and of the package modules that it imports.

    Parameters
    ----------
    script : str
        Name of the script, without folder and suffix.
    scripts : path_like
        Folder of the scripts.
    package : path_like, optional
        Folder of the package; by default that of the package a job would import.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    FileNotFoundError
        If there is no such script.
    ValueError
        If the script imports a name from the package root.
    """
    modules = code_files(script, scripts, package)
    digest = hashlib.sha256()
    for name in sorted(modules):
        path = modules[name]
        digest.update(f"{name}\0{_code(path, path.stat().st_mtime_ns)}\0".encode())
    return digest.hexdigest()[:16]


def code_files(script, scripts=SCRIPTS, package=None):
    """Files that :func:`code_hash` reads, by dotted name.

    Parameters
    ----------
    script, scripts, package
        As for :func:`code_hash`.

    Returns
    -------
    dict of str to Path
    """
    scripts = Path(scripts)
    package = Path(package) if package else _package_folder()
    path = scripts / f"{script}.py"
    if not path.is_file():
        raise FileNotFoundError(f"no script {script!r} in {scripts}")
    found, waiting = {}, [(f"scripts.{script}", path)]
    while waiting:
        name, path = waiting.pop()
        if name in found:
            continue
        found[name] = path
        for target in _imports(path, name):
            if target == PACKAGE:
                if name.startswith("scripts."):
                    raise ValueError(
                        f"{path} must import submodules of {PACKAGE}, "
                        f"got an import from {PACKAGE} itself"
                    )
                continue
            if target.startswith(f"{PACKAGE}."):
                file = _module_file(package, target.split(".")[1:])
            else:
                sibling = scripts / f"{target}.py"
                file = sibling if sibling.is_file() else None
                target = f"scripts.{target}"
            if file is not None:
                waiting.append((target, file))
    return found


def _package_folder():
    """Folder of the package that an import would find."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(
            f"the package {PACKAGE} must be installed to run the workflow"
        )
    return Path(spec.submodule_search_locations[0])


def _module_file(package, parts):
    """File of a module of the package, or None if it is not a module."""
    path = package.joinpath(*parts)
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _imports(path, name):
    """Dotted names that a file may import, those inside functions included."""
    is_package = path.name == "__init__.py"
    for node in ast.walk(_tree(path, path.stat().st_mtime_ns)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                # Level 1 is the package of the file, each further level its parent.
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            names = [f"{base}.{alias.name}" for alias in node.names]
            # ``from lode import radial`` imports a module, not from the root.
            if base != PACKAGE:
                yield base
            for target in names:
                is_root_name = base == PACKAGE and (
                    name.startswith("scripts.")
                    and _module_file(_package_folder(), target.split(".")[1:]) is None
                )
                yield PACKAGE if is_root_name else target


@functools.cache
def _tree(path, _changed):
    """Syntax tree of a file, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


@functools.cache
def _code(path, _changed):
    """Text of a file's code alone."""
    return ast.dump(_tree(path, _changed))
