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
        for base, names in _imports(path, name, path.stat().st_mtime_ns):
            if base == PACKAGE and name.startswith("scripts."):
                _check_root_import(path, names, package)
            for target in (base, *(f"{base}.{taken}" for taken in names)):
                file = _file(target, package, scripts)
                if file is not None:
                    inside = target.startswith(f"{PACKAGE}.")
                    waiting.append((target if inside else f"scripts.{target}", file))
    return found


def _package_folder():
    """Folder of the package that an import would find."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(
            f"the package {PACKAGE} must be installed to run the workflow"
        )
    return Path(spec.submodule_search_locations[0])


def _check_root_import(path, names, package):
    """Refuse an import of anything but modules from the package root."""
    if not names or any(
        _file(f"{PACKAGE}.{n}", package, package) is None for n in names
    ):
        raise ValueError(
            f"{path} must import submodules of {PACKAGE}, got an import of "
            f"{', '.join(names) or PACKAGE} from its root"
        )


@functools.cache
def _file(target, package, scripts):
    """File of a module of the package or of a script beside; None for others."""
    first, *rest = target.split(".")
    if first != PACKAGE:
        file = scripts / f"{target}.py"
        return file if file.is_file() else None
    if not rest:
        # The root only names public classes.
        return None
    path = package.joinpath(*rest)
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


@functools.cache
def _imports(path, name, changed):
    """Modules that a file may import, each with the names taken from it.

    Imports inside functions are included.
    """
    is_package, found = path.name == "__init__.py", []
    for node in _statements(_tree(path, changed)):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                # Level 1 is the package of the file, each further level its parent.
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            found.append((base, tuple(alias.name for alias in node.names)))
    return found


def _statements(node):
    """Statements inside of a node, at any depth; expressions hold none."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from _statements(child)


@functools.cache
def _tree(path, _changed):
    """Syntax tree of a file, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in (tree, *_statements(tree)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


@functools.cache
def _code(path, _changed):
    """Text of a file's code alone."""
    return ast.dump(_tree(path, _changed))
