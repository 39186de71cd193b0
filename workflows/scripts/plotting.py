"""The figures, one function each; they read tables and compute nothing else."""

import textwrap
from pathlib import Path

import matplotlib as mpl
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from lode.files import atomic_write

# Okabe and Ito's colours, told apart by all readers; yellow is too pale on white.
COLORS = (
    "#0072B2",
    "#56B4E9",
    "#000000",
    "#E69F00",
    "#D55E00",
    "#009E73",
    "#CC79A7",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# Colours of the models of figure 2, from the simplest on; the reference is black.
_MODEL_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2")
# Characters in a line of the title, and in the name of a dimer above its panel.
TITLE_WIDTH = 100
_NAME_WIDTH = 30
_SETS = {"test": "Training distances", "far": "Extrapolation"}

# One style for all figures; the font type keeps the text of a PDF searchable.
STYLE = {
    "axes.grid": True,
    "axes.titlesize": 9,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
}

# Metadata that would differ from run to run or from version to version.
_METADATA = {
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    ".png": {"Software": None},
}

# Lines of the baselines, which need no markers.
_BASELINES = (":", "-.", "--")
_PANELS = {"paper": "The paper's curves, recomputed", "ours": "Ours"}


def save(figure, path):
    """Write a figure, whole or not at all; the same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    path : path_like
        File to write, ``.pdf`` or ``.png``.

    Raises
    ------
    ValueError
        If the suffix is another one.
    """
    suffix = Path(path).suffix
    if suffix not in _METADATA:
        raise ValueError(
            f"a figure's suffix must be one of {list(_METADATA)}, got {suffix!r}"
        )
    with mpl.rc_context(STYLE), atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=200, metadata=_METADATA[suffix])


def figure_1(rows, curves, *, resolution, provenance):
    """Learning curves of the gas, those of the paper and ours in two panels.

    Parameters
    ----------
    rows : sequence of dict
        Table with the columns ``curve``, ``n_train``, ``rmse_percent`` and
        ``rmse_percent_std``.
    curves : dict of str to dict
        For each curve ``label``, its name in the table; ``group``, ``paper`` or
        ``ours``; optionally ``counterpart``, the curve of the paper that it is
        drawn beside; optionally ``reference`` with ``rmse_percent``, the level
        that the paper states.
    resolution : float
        Errors in percent that are not above this value are drawn open.
    provenance : str
        Where the data come from.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a curve is not in the table.
    """
    title = f"Energy of a gas of point charges\n{provenance}"
    return _learning_curves(rows, curves, title, resolution)


def figure_3(rows, curves, *, provenance):
    """Learning curves of the dielectric response of water.

    Parameters
    ----------
    rows, curves
        As for :func:`figure_1`; a curve of the group ``baseline`` is drawn in both
        panels, and a ``note`` stands behind the label of a curve.
    provenance : str
        Where the data come from.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a curve is not in the table.
    """
    source = "\n".join(textwrap.wrap(provenance, TITLE_WIDTH))
    title = f"Trace of the dielectric tensor of liquid water\n{source}"
    return _learning_curves(rows, curves, title, share_y=True)


def _learning_curves(rows, curves, title, resolution=0.0, share_y=False):
    """Curves of the paper and ours in two panels, baselines in both."""
    points = {name: _points(rows, curve["label"]) for name, curve in curves.items()}
    styles = _styles(curves)
    baselines = [name for name in curves if curves[name]["group"] == "baseline"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots(1, len(_PANELS), sharey=share_y)
        for ax, (group, heading) in zip(axes, _PANELS.items(), strict=True):
            ax.set(xscale="log", yscale="log", title=heading)
            members = [name for name in curves if curves[name]["group"] == group]
            for name in members:
                _draw_curve(ax, curves[name], points[name], styles[name], resolution)
            _draw_counterparts(ax, members, curves, points, styles)
            _draw_references(ax, members, curves, styles)
            for name, dashes in zip(baselines, _BASELINES, strict=False):
                sizes, means, _ = points[name]
                label = curves[name]["label"]
                ax.plot(sizes, means, dashes, color="0.45", lw=0.9, label=label)
            shown = [points[name] for name in members]
            if any(y <= resolution for _, means, _ in shown for y in means):
                ax.set_ylim(bottom=resolution / 5)
                label = f"open: at most {resolution:g} %"
                ax.plot([], [], "o", color="grey", mfc="white", label=label)
            _finish_panel(ax, [n for sizes, _, _ in shown for n in sizes])
        for ax in axes:
            _mark_percents(ax)
        figure.suptitle(title, fontsize=9)
    return figure


def _points(rows, label):
    """Sizes, means and spreads of one curve."""
    found = [row for row in rows if row["curve"] == label]
    if not found:
        labels = sorted({row["curve"] for row in rows})
        raise ValueError(f"a curve must be one of {labels}, got {label!r}")
    found.sort(key=lambda row: int(row["n_train"]))
    return (
        [int(row["n_train"]) for row in found],
        [float(row["rmse_percent"]) for row in found],
        [float(row["rmse_percent_std"]) for row in found],
    )


def _styles(curves):
    """Colour and marker of each curve; one of ours shares its counterpart's."""
    styles = {}
    for group in _PANELS:
        members = [name for name in curves if curves[name]["group"] == group]
        for i, name in enumerate(members):
            shared = styles.get(curves[name].get("counterpart"))
            styles[name] = shared or {
                "color": COLORS[i % len(COLORS)],
                "marker": MARKERS[i % len(MARKERS)],
            }
    return styles


def _draw_counterparts(ax, members, curves, points, styles):
    """Curves of the paper that those of the panel are to be compared with."""
    named = [curves[name].get("counterpart") for name in members]
    for name in dict.fromkeys(name for name in named if name is not None):
        sizes, means, _ = points[name]
        color = styles[name]["color"]
        label = f"{curves[name]['label']} (left)"
        ax.plot(sizes, means, "--", color=color, alpha=0.5, lw=0.9, label=label)


def _draw_curve(ax, curve, points, style, resolution):
    """One curve with error bars, open where it is not resolved."""
    sizes, means, spreads = points
    label = curve["label"] + (f" ({curve['note']})" if "note" in curve else "")
    ax.errorbar(sizes, means, spreads, capsize=2, label=label, **style)
    low = [(n, y) for n, y in zip(sizes, means, strict=True) if y <= resolution]
    if low:
        ax.plot(*zip(*low, strict=True), ls="none", mfc="white", zorder=3, **style)


def _draw_references(ax, members, curves, styles):
    """Levels that the paper states."""
    for name in members:
        reference = curves[name].get("reference")
        if reference is not None:
            level = reference["rmse_percent"]
            label = f"{curves[name]['label']} in the paper: ≈ {level:g} %"
            ax.axhline(level, ls=":", color=styles[name]["color"], lw=0.9, label=label)


def _mark_percents(ax):
    """Plain numbers where an axis has few decades: powers alone say little there."""
    low, high = ax.get_ylim()
    if high > 300 * low:
        return
    ticks = [m * 10.0**e for e in range(-12, 6) for m in (1, 2, 5)]
    ticks = [t for t in ticks if low <= t <= high]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_yticks([], minor=True)


def _finish_panel(ax, sizes):
    """Labels with units, ticks at the sizes, a legend below the axes."""
    ax.set_xlabel("training structures")
    ax.set_ylabel("test RMSE / % of standard deviation")
    ticks = []
    for n in sorted(set(sizes)):
        # Labels of closer sizes would overlap.
        if not ticks or n > 1.7 * ticks[-1]:
            ticks.append(n)
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.set_xticks([], minor=True)
    entries = list(zip(*ax.get_legend_handles_labels(), strict=True))
    # The curves first, then what they are compared with.
    entries.sort(key=lambda entry: not isinstance(entry[0], ErrorbarContainer))
    handles, labels = zip(*entries, strict=True)
    ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def figure_2(curve_rows, error_rows, class_rows, labels, *, provenance):
    """Binding curves of test dimers, and the errors of each model by class.

    Parameters
    ----------
    curve_rows : sequence of dict
        Points to draw: ``dimer``, ``class``, ``curve``, ``kind``, ``distance`` in Å
        and ``energy`` in eV; the curve ``reference`` is what was learnt.
    error_rows : sequence of dict
        Errors: ``curve``, ``set`` and ``rmse_percent``.
    class_rows : sequence of dict
        The same by ``class``.
    labels : sequence of str
        The models, in the order of the legend.
    provenance : str
        Where the data come from.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a model is not in the tables.
    """
    for label in labels:
        for rows in (curve_rows, error_rows):
            known = sorted({row["curve"] for row in rows})
            if label not in known:
                raise ValueError(f"a curve must be one of {known}, got {label!r}")
    colors = {
        label: _MODEL_COLORS[i % len(_MODEL_COLORS)] for i, label in enumerate(labels)
    }
    dimers = list(dict.fromkeys((row["dimer"], row["class"]) for row in curve_rows))
    # Members of a class stand above each other.
    classes = list(dict.fromkeys(row["class"] for row in class_rows))
    dimers.sort(key=lambda pair: classes.index(pair[1]))
    # One, two or three columns of two.
    n_columns = min(3, -(-len(dimers) // 2))
    dimers = dimers[: 2 * n_columns]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 7.4), layout="constrained")
        grid = figure.add_gridspec(3, 6, height_ratios=(1.0, 1.0, 1.1))
        width = 6 // n_columns
        for i in range(2 * n_columns):
            column, row = divmod(i, 2)
            if i == len(dimers):
                break
            place = grid[row, column * width : (column + 1) * width]
            ax = figure.add_subplot(place)
            _draw_dimer(ax, *dimers[i], curve_rows, colors)
            if row == 1 or i == len(dimers) - 1:
                ax.set_xlabel("distance of the centroids / Å")
            if column == 0:
                ax.set_ylabel("interaction energy / eV")
        handles, names = figure.axes[0].get_legend_handles_labels()
        for i, (name, title) in enumerate(_SETS.items()):
            ax = figure.add_subplot(grid[2, 3 * i : 3 * i + 3])
            _draw_errors(ax, name, error_rows, class_rows, colors)
            ax.set_title(title)
            if i == 0:
                ax.set_ylabel("test RMSE / % of std")
        figure.legend(handles, names, loc="outside lower center", ncols=4)
        title = "Binding curves of charged dimers, none of them trained on"
        source = "\n".join(textwrap.wrap(provenance, TITLE_WIDTH))
        figure.suptitle(f"{title}\n{source}", fontsize=9)
    return figure


def _draw_dimer(ax, dimer, of_class, rows, colors):
    """Reference points and the curve of each model, dashed where it extrapolates."""
    rows = [row for row in rows if row["dimer"] == dimer]
    kinds = {}
    for row in rows:
        if row["curve"] == "reference":
            kinds.setdefault(row["kind"], []).append(float(row["distance"]))
    trained = kinds.get("training", [])
    if trained:
        ax.axvspan(
            min(trained), max(trained), color="0.9", zorder=0, label="trained on"
        )
    points = _curve(rows, "reference")
    ax.plot(*points, "o", color="black", mfc="none", zorder=3, label="reference")
    for label, color in colors.items():
        distance, energy = _curve(rows, label)
        last = sum(d <= max(trained, default=0.0) for d in distance)
        ax.plot(distance[:last], energy[:last], color=color, label=label)
        # The dashes begin at the last trained point.
        begin = max(last - 1, 0)
        ax.plot(distance[begin:], energy[begin:], "--", color=color)
    # A long name must not reach the next panel.
    size = 7 * min(1.0, _NAME_WIDTH / len(dimer))
    ax.set_title(f"{dimer}\n{of_class}", fontsize=size)


def _curve(rows, label):
    """Distances and energies of one curve, in order."""
    points = sorted(
        (float(row["distance"]), float(row["energy"]))
        for row in rows
        if row["curve"] == label
    )
    return [d for d, _ in points], [e for _, e in points]


def _draw_errors(ax, name, error_rows, class_rows, colors):
    """Error of each model on all dimers of a set and on those of each class."""
    classes = list(dict.fromkeys(row["class"] for row in class_rows))
    groups = [("all", error_rows)]
    groups += [(c, [row for row in class_rows if row["class"] == c]) for c in classes]
    for i, (label, color) in enumerate(colors.items()):
        x = [g + 0.8 * ((i + 0.5) / len(colors) - 0.5) for g in range(len(groups))]
        y = []
        for _, rows in groups:
            found = [r for r in rows if r["curve"] == label and r["set"] == name]
            # No dimers of this class, or all of one energy: no bar.
            cell = found[0]["rmse_percent"] if found else ""
            y.append(float(cell) if cell else float("nan"))
        marker = MARKERS[i % len(MARKERS)]
        ax.plot(x, y, marker, color=color, label=label)
    ax.set_yscale("log")
    names = [group.replace(" ", "\n") for group, _ in groups]
    ax.set_xticks(range(len(groups)), names)
    ax.grid(visible=False, axis="x")


def figure_3_tensor(rows, trace_rows, labels, *, provenance):
    """Learning curves of both parts of the dielectric tensor of water.

    Parameters
    ----------
    rows : sequence of dict
        Errors of the anisotropic part: ``curve``, ``n_train``, ``rmse_percent`` and
        ``rmse_percent_std``.
    trace_rows : sequence of dict
        The same of the trace. Its curves with one of the labels are drawn beside.
    labels : sequence of str
        The curves, in the order of the legend.
    provenance : str
        Where the data come from.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a curve is not in the table of the anisotropic part.
    """
    of_trace = {row["curve"] for row in trace_rows}
    panels = (
        ("Trace (λ = 0)", "standard deviation", trace_rows, of_trace),
        ("Anisotropic part (λ = 2)", "root mean square", rows, set(labels)),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True)
        for ax, (title, unit, table, known) in zip(axes, panels, strict=True):
            ax.set(xscale="log", yscale="log", title=title)
            ax.set_xlabel("training structures")
            ax.set_ylabel(f"test RMSE / % of {unit}")
            ax.tick_params(labelleft=True)
            sizes = []
            for i, label in enumerate(labels):
                if label not in known:
                    continue
                found, means, spreads = _points(table, label)
                style = {
                    "color": COLORS[i % len(COLORS)],
                    "marker": MARKERS[i % len(MARKERS)],
                }
                ax.errorbar(found, means, spreads, capsize=2, label=label, **style)
                sizes += found
            ticks = sorted(set(sizes))
            ax.set_xticks(ticks, [str(n) for n in ticks])
            ax.set_xticks([], minor=True)
        _mark_percents(axes[0])
        # All curves stand in the second panel.
        entries = axes[1].get_legend_handles_labels()
        figure.legend(*entries, loc="outside lower center", ncols=4)
        source = "\n".join(textwrap.wrap(provenance, TITLE_WIDTH))
        title = "Both parts of the dielectric tensor of liquid water"
        figure.suptitle(f"{title}\n{source}", fontsize=9)
    return figure
