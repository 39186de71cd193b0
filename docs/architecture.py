"""The picture of the modules and of their imports, drawn when the pages are built.

MkDocs calls :func:`on_files`; the rest needs matplotlib only.
"""

import ast
import io
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve
from scipy.optimize import isotonic_regression

PACKAGE = Path(__file__).resolve().parents[1] / "lode"
PICTURE = "architecture.svg"
# Light shades of the orange and blue of Okabe and Ito, told apart by all readers.
_PUBLIC, _COMPILED, _OTHER, _LINE = "#FBE3B4", "#BFE1F6", "#F2F2F2", "#0072B2"
# Inches. A page is about 8 wide, so the text stands there at its own size in points.
_WIDTH, _ROW, _BOX_HEIGHT, _GAP = 9.2, 0.72, 0.26, 0.1
_TEXT, _LETTER = 10, 0.085
# Rounds in which modules move to the middle of those that they are tied to.
_ROUNDS = 24


def imports(package=PACKAGE):
    """Modules that each module imports, compiled loops and data sets as one each.

    The package itself is left out: two modules import it for the names of its
    classes, which are looked up while they run.

    Parameters
    ----------
    package : path_like
        Folder of the package.

    Returns
    -------
    dict of str to set of str
    """
    package = Path(package)
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).parts[0].removesuffix(".py")
        # The latter only says what it is called now.
        if name.startswith("__") or name == "ewald":
            continue
        own = found.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            parts = [target.split(".") for target in targets]
            own.update(p[1] for p in parts if p[0] == package.name and len(p) > 1)
    return {name: (own & found.keys()) - {name} for name, own in found.items()}


def layers(imported):
    """Modules by layer: each as low as the modules that it imports allow.

    Parameters
    ----------
    imported : dict of str to set of str
        As of :func:`imports`.

    Returns
    -------
    list of list of str
        The lowest layer first.

    Raises
    ------
    ValueError
        If modules import each other in a circle.
    """
    level = {}
    while len(level) < len(imported):
        ready = [
            name
            for name, below in imported.items()
            if name not in level and below <= level.keys()
        ]
        if not ready:
            circle = sorted(imported.keys() - level.keys())
            raise ValueError(f"imports must not form a circle, got one among {circle}")
        number = max(level.values(), default=-1) + 1
        level.update(dict.fromkeys(ready, number))
    return [
        [name for name in imported if level[name] == number]
        for number in range(max(level.values(), default=-1) + 1)
    ]


def reduced(imported):
    """The imports without those that follow from others, by way of other modules.

    Parameters
    ----------
    imported : dict of str to set of str
        As of :func:`imports`.

    Returns
    -------
    dict of str to set of str
    """
    everything = {}
    for layer in layers(imported):
        for name in layer:
            below = imported[name]
            everything[name] = below.union(*(everything[other] for other in below))
    return {
        name: below - set().union(*(everything[other] for other in below))
        for name, below in imported.items()
    }


def public_modules(package=PACKAGE):
    """Modules whose names the package itself exports."""
    tree = ast.parse((Path(package) / "__init__.py").read_text("utf-8"))
    (names,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "_MODULE_OF"
    ]
    return set(names.values())


def picture(package=PACKAGE):
    """The modules as boxes, in their layers, with a line for each import.

    Parameters
    ----------
    package : path_like
        Folder of the package.

    Returns
    -------
    str
        SVG; the same modules give the same text.
    """
    imported = imports(package)
    x_of, rows, lines = _placed(layers(imported), reduced(imported))
    height = _ROW * len(rows)
    with mpl.rc_context({"svg.hashsalt": "lode", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, _WIDTH), ylim=(0, height))
        axes.set_axis_off()
        for points in lines:
            axes.add_patch(_line([(x_of[p], _ROW * (p[1] + 0.5)) for p in points]))
        public = public_modules(package)
        for name, level in (p for p in x_of if isinstance(p[0], str)):
            color = _PUBLIC if name in public else _OTHER
            color = _COMPILED if name == "core" else color
            x, y = x_of[name, level], _ROW * (level + 0.5)
            half = 0.5 * (_size((name, level)) - _GAP)
            corner = (x - half, y - 0.5 * _BOX_HEIGHT)
            style = "round,pad=0,rounding_size=0.05"
            box = FancyBboxPatch(corner, 2 * half, _BOX_HEIGHT, boxstyle=style)
            box.set(facecolor=color, edgecolor="#404040", linewidth=0.8, zorder=2)
            axes.add_patch(box)
            middle = {"ha": "center", "va": "center_baseline", "zorder": 3}
            axes.text(x, y, name, fontsize=_TEXT, **middle)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _size(place):
    """Room that a box or, of a line that passes between them, a gap takes."""
    name, _ = place
    return len(name) * _LETTER + 0.14 + _GAP if isinstance(name, str) else 0.13


def _placed(layered, lines_of):
    """Place of each module, and of each line in the layers that it passes.

    Returns
    -------
    x_of : dict of (module or line, layer) to float
    rows : list of list of (module or line, layer)
    lines : list of list of (module or line, layer)
        From the module that imports to the imported one.
    """
    level = {name: k for k, layer in enumerate(layered) for name in layer}
    rows = [[(name, k) for name in layer] for k, layer in enumerate(layered)]
    lines = []
    for name, below in lines_of.items():
        for other in sorted(below):
            passed = range(level[name] - 1, level[other], -1)
            between = [((name, other), k) for k in passed]
            for place in between:
                rows[place[1]].append(place)
            lines.append([(name, level[name]), *between, (other, level[other])])
    tied = {place: ([], []) for row in rows for place in row}
    for line in lines:
        for above, below in pairwise(line):
            tied[above][0].append(below)
            tied[below][1].append(above)
    x_of = {p: x for row in rows for p, x in zip(row, _spread(row), strict=True)}
    best, fewest = None, np.inf
    for number in range(_ROUNDS):
        upwards = number % 2 == 0
        for row in rows if upwards else rows[::-1]:
            side = 0 if upwards else 1
            middle = {p: _middle(x_of, tied[p][side] or [p]) for p in row}
            row.sort(key=middle.__getitem__)
            x_of.update(zip(row, _spread(row, [middle[p] for p in row]), strict=True))
        crossings = _crossings(lines, x_of)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    for number in range(_ROUNDS):
        for row in best if number % 2 else best[::-1]:
            wanted = [_middle(x_of, tied[p][0] + tied[p][1] or [p]) for p in row]
            x_of.update(zip(row, _spread(row, wanted), strict=True))
    return x_of, best, lines


def _middle(x_of, places):
    return sum(x_of[p] for p in places) / len(places)


def _spread(row, wanted=None):
    """Places nearest to those wanted at which a row keeps its order and its room."""
    sizes = np.array([_size(place) for place in row])
    room = np.cumsum(sizes) - 0.5 * sizes
    if wanted is None:
        return room
    shift = isotonic_regression(np.subtract(wanted, room)).x
    return room + np.clip(shift, 0.0, max(0.0, _WIDTH - sizes.sum()))


def _crossings(lines, x_of):
    """Number of pairs of lines that cross between two layers."""
    steps = {}
    for line in lines:
        for above, below in pairwise(line):
            steps.setdefault(above[1], []).append((x_of[above], x_of[below]))
    return sum(
        (a - c) * (b - d) < 0
        for pairs in steps.values()
        for i, (a, b) in enumerate(pairs)
        for c, d in pairs[:i]
    )


def _line(points):
    """A smooth line through places, upright at its ends and steep between."""
    points = np.array(points)
    slopes = np.zeros_like(points)
    slopes[1:-1, 0] = 0.3 * (points[2:, 0] - points[:-2, 0])
    slopes[:, 1] = 1.5 * np.gradient(points[:, 1])
    vertices = [points[0]]
    for k in range(len(points) - 1):
        ends = points[k], points[k + 1]
        vertices += [ends[0] + slopes[k] / 3, ends[1] - slopes[k + 1] / 3, ends[1]]
    codes = [Curve.MOVETO] + [Curve.CURVE4] * (len(vertices) - 1)
    line = Curve(vertices, codes)
    return PathPatch(line, facecolor="none", edgecolor=_LINE, linewidth=0.9, zorder=1)


def on_files(files, config):
    """Add the picture to the pages: called by MkDocs."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PICTURE, content=picture()))
    return files
