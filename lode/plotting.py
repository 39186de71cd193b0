"""The figures, one function each; they read tables and compute nothing else."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by all readers; yellow is too pale on white.
_COLORS = (
    "#0072B2",
    "#56B4E9",
    "#000000",
    "#E69F00",
    "#D55E00",
    "#009E73",
    "#CC79A7",
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# One style for all figures; the font type keeps the text of a PDF searchable.
_STYLE = {
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

_PANELS = {"paper": "The paper's curves, recomputed", "ours": "Ours"}


def save(figure, path):
    """Write a figure so that the same figure gives the same bytes.

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
    with mpl.rc_context(_STYLE):
        figure.savefig(path, dpi=200, metadata=_METADATA[suffix])


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
    points = {name: _points(rows, curve["label"]) for name, curve in curves.items()}
    styles = _styles(curves)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots(1, len(_PANELS))
        for ax, (group, title) in zip(axes, _PANELS.items(), strict=True):
            ax.set(xscale="log", yscale="log", title=title)
            members = [name for name in curves if curves[name]["group"] == group]
            for name in members:
                _draw_curve(ax, curves[name], points[name], styles[name], resolution)
            _draw_counterparts(ax, members, curves, points, styles)
            _draw_references(ax, members, curves, styles)
            shown = [points[name] for name in members]
            if any(y <= resolution for _, means, _ in shown for y in means):
                ax.set_ylim(bottom=resolution / 5)
                label = f"open: at most {resolution:g} %"
                ax.plot([], [], "o", color="grey", mfc="white", label=label)
            _finish_panel(ax, [n for sizes, _, _ in shown for n in sizes])
        figure.suptitle(f"Energy of a gas of point charges\n{provenance}", fontsize=9)
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
                "color": _COLORS[i % len(_COLORS)],
                "marker": _MARKERS[i % len(_MARKERS)],
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
    ax.errorbar(sizes, means, spreads, capsize=2, label=curve["label"], **style)
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
