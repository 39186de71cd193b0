"""The picture of the rooms that the documentation makes when it is built.

Modules of the package stand in layers, each above all that it imports; lines are direct
imports, without those that follow from others.
"""

import ast
import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

PACKAGE = Path(__file__).parents[1] / "lode"
# Packages inside the package are one room each.
_PACKAGES = ("core", "datasets")
_FILLS = {"core": "#F0E442", "datasets": "#E0E0E0"}
_STYLE = {"svg.hashsalt": "lode", "svg.fonttype": "path", "font.size": 8}


def imports(package=PACKAGE):
    """Rooms that each room imports, by name.

    Returns
    -------
    dict of str to set of str
    """
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).parts[0].removesuffix(".py")
        if name == "__init__" or path == package / "ewald.py":
            continue
        own = found.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                module = node.module.split(".")
                if module[0] == "lode":
                    names = module[1:2] or [alias.name for alias in node.names]
                    own.update(names)
        own.discard(name)
    return {name: own & found.keys() for name, own in found.items()}


def layers(found):
    """Layer of each room: one above the highest that it imports, from 0.

    Parameters
    ----------
    found : dict of str to set of str
        As from :func:`imports`.

    Returns
    -------
    dict of str to int
    """
    known = {}

    def layer(name):
        if name not in known:
            known[name] = 1 + max(map(layer, found[name]), default=-1)
        return known[name]

    for name in found:
        layer(name)
    return known


def direct(found):
    """Imports that do not follow from others.

    Returns
    -------
    dict of str to set of str
    """

    def below(name):
        return found[name].union(*map(below, found[name]))

    return {
        name: {
            other
            for other in own
            if not any(other in below(third) for third in own - {other})
        }
        for name, own in found.items()
    }


def svg(package=PACKAGE):
    """The picture as SVG.

    Returns
    -------
    str
    """
    found = imports(package)
    lines, layer_of = direct(found), layers(found)
    rows = {}
    for name, layer in layer_of.items():
        rows.setdefault(layer, []).append(name)
    place = {}
    for layer in sorted(rows):
        # Each near the middle of what it imports, to keep the lines short.
        def middle(name):
            below = [place[other][0] for other in lines[name]]
            return sum(below) / len(below) if below else 0.5

        row = sorted(rows[layer], key=lambda name: (middle(name), name))
        for i, name in enumerate(row):
            place[name] = ((i + 0.5) / len(row), layer)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 0.62 * len(rows)), layout="constrained")
        ax = figure.subplots()
        for name, others in lines.items():
            for other in others:
                (x, y), (u, v) = place[name], place[other]
                ax.plot([x, u], [y, v], color="#0072B2", lw=0.8, alpha=0.6, zorder=1)
        for name, (x, y) in place.items():
            box = {"boxstyle": "round", "fc": _FILLS.get(name, "white"), "ec": "black"}
            ax.text(x, y, name, ha="center", va="center", bbox=box, zorder=2)
        ax.set(xlim=(0, 1), ylim=(-0.5, len(rows) - 0.5))
        ax.axis("off")
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    return target.getvalue()


def on_files(files, config):
    """Add the picture to the pages; called by mkdocs."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "rooms.svg", content=svg()))
    return files
