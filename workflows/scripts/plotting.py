"""The figures, one function each; they read tables and compute nothing else."""

import re
import textwrap
from math import ceil, floor, log10
from pathlib import Path

import matplotlib as mpl
from matplotlib.container import ErrorbarContainer
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

import styles
from lode.files import atomic_write, write_text
from styles import EXACT, WITH_EXPONENTS, displayed, model_styles

# Characters in a line of the caption and of a name above its panel, and of the title in
# each inch of the figure.
_CAPTION_WIDTH, _NAME_WIDTH, _TITLE_DENSITY = 80, 28, 13
_SETS = {"test": "Training distances", "far": "Extrapolation"}

# Metadata that would differ from run to run or from version to version.
_METADATA = {
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    ".png": {"Software": None},
}
_CAPTION = ".txt"

_SPREAD = "Bars: standard deviation over shuffles of the training set."

BASELINE = "baseline"
_PANELS = {"paper": "The paper's curves, recomputed", "ours": "Ours"}


def save(figure, path):
    """Write a figure, or its caption: whole or not at all, the same bytes each time.

    Parameters
    ----------
    figure : styles.StyledFigure
        The figure, saved in the style that it was drawn in.
    path : path_like
        File to write, ``.pdf`` or ``.png``; ``.txt`` for the caption.

    Raises
    ------
    ValueError
        If the suffix is another one.
    """
    suffix = Path(path).suffix
    if suffix == _CAPTION:
        write_text(path, figure.caption)
        return
    if suffix not in _METADATA:
        wanted = [*_METADATA, _CAPTION]
        raise ValueError(f"a figure's suffix must be one of {wanted}, got {suffix!r}")
    with mpl.rc_context(figure.look.settings), atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=200, metadata=_METADATA[suffix])


def describe(figure, title, description, provenance):
    """Give a figure its caption, and a title if its style has one.

    Parameters
    ----------
    figure : styles.StyledFigure
        The figure.
    title : str
        What it shows.
    description : str
        How to read it: of the caption alone.
    provenance : str
        Where the data come from; the title leaves out hashes.
    """
    provenance = provenance.rstrip(".")
    text = " ".join(part for part in (f"{title}.", description) if part)
    paragraphs = [text, f"Data: {provenance}."] if provenance else [text]
    lines = ["\n".join(textwrap.wrap(p, _CAPTION_WIDTH)) for p in paragraphs]
    figure.caption = "\n\n".join(lines) + "\n"
    if figure.look.titled:
        width = int(_TITLE_DENSITY * figure.get_figwidth() * 8 / figure.look.font)
        source = textwrap.wrap(without_hashes(provenance), width)
        figure.suptitle("\n".join([title, *source]), fontsize=figure.look.font + 1)


def without_hashes(provenance):
    """Where data come from, for a title: without file, hash and local version.

    Parameters
    ----------
    provenance : str

    Returns
    -------
    str

    Examples
    --------
    >>> without_hashes("published: boxes (a.xyz, git_blob f9eb47ddca00), lode 0.1+g1a")
    'published: boxes, lode 0.1'
    """
    text = re.sub(r" \([^()]*\b(git_blob|sha256) [0-9a-f]+\)", "", provenance)
    return re.sub(r"(?<=\d)\+[\w.]+", "", text)


def figure_1(rows, curves, *, resolution, provenance, style="default"):
    """Learning curves of the gas, those of the paper and ours in two panels.

    Parameters
    ----------
    rows, curves, resolution, provenance, style
        As for :func:`learning_curves`.

    Returns
    -------
    styles.StyledFigure

    Raises
    ------
    ValueError
        If a curve is not in the table, or there is no such style.
    """
    title = "Energy of a gas of point charges"
    return learning_curves(
        rows, curves, title, style, resolution=resolution, provenance=provenance
    )


def figure_3(rows, curves, *, provenance, style="default"):
    """Learning curves of the dielectric response of water.

    Parameters
    ----------
    rows, curves, provenance, style
        As for :func:`learning_curves`.

    Returns
    -------
    styles.StyledFigure

    Raises
    ------
    ValueError
        If a curve is not in the table, or there is no such style.
    """
    title = "Trace of the dielectric tensor of liquid water"
    return learning_curves(
        rows, curves, title, style, share_y=True, provenance=provenance
    )


def learning_curves(
    rows, curves, title, style="default", *, resolution=0.0, share_y=False, provenance
):
    """Learning curves in one panel for each group, in the paper's and our own.

    Parameters
    ----------
    rows : sequence of dict
        Table with the columns ``curve``, ``n_train``, ``rmse_percent`` and
        ``rmse_percent_std``.
    curves : dict of str to dict
        For each curve ``label``, its name in the table; optionally ``group``, one
        panel each, with headings for ``paper`` and ``ours``; ``baseline`` is drawn in
        all of them; ``counterpart``, the curve that it is drawn beside; ``note``, which
        stands behind the label; ``reference`` with ``rmse_percent``, the level that
        the paper states.
    title : str
        What is learnt.
    style : {'default', 'journal', 'talk'}
        The style; a figure of one panel takes one column.
    resolution : float
        Errors in percent that are not above this value are drawn open.
    share_y : bool
        Whether the panels share the axis of the errors.
    provenance : str
        Where the data come from.

    Returns
    -------
    styles.StyledFigure

    Raises
    ------
    ValueError
        If a curve is not in the table, or there is no such style.
    """
    points = {name: _points(rows, curve["label"]) for name, curve in curves.items()}
    looks = model_styles(curve["label"] for curve in curves.values())
    looks = {name: looks[curve["label"]] for name, curve in curves.items()}
    groups = {name: curve.get("group", "") for name, curve in curves.items()}
    baselines = [name for name in curves if groups[name] == BASELINE]
    panels = list(
        dict.fromkeys(groups[name] for name in curves if name not in baselines)
    )
    panels = sorted(panels, key=lambda group: group != "paper") or [BASELINE]
    with styles.style(style) as look:
        wide = len(panels) > 1
        figure = look.figure(0.61 if wide else 1.05, wide=wide)
        axes = figure.subplots(1, len(panels), sharey=share_y, squeeze=False)[0]
        for ax, group in zip(axes, panels, strict=True):
            ax.set(xscale="log", yscale="log", title=_PANELS.get(group, ""))
            members = [name for name in curves if groups[name] == group]
            for name in members:
                _draw_curve(ax, curves[name], points[name], looks[name], resolution)
            _draw_counterparts(ax, members, curves, points, looks)
            _draw_references(ax, members, curves, looks)
            for name in baselines if group != BASELINE else ():
                sizes, means, _ = points[name]
                label = displayed(curves[name]["label"])
                ax.plot(sizes, means, lw=_thin(), label=label, **looks[name])
            shown = [points[name] for name in members]
            if any(y <= resolution for _, means, _ in shown for y in means):
                ax.set_ylim(bottom=resolution / 5)
                label = f"open: at most {_plain(resolution)} %"
                ax.plot([], [], "o", color="grey", mfc="white", label=label)
            _mark_sizes(ax, [n for sizes, _, _ in shown for n in sizes])
            legend_below(ax)
        for ax in axes[: 1 if share_y else None]:
            ax.set_ylabel("test RMSE / % of standard deviation")
        for ax in axes:
            mark_decades(ax.yaxis)
        description = f"Learning curves. {_SPREAD}"
        describe(figure, title, description, provenance)
    return figure


def _plain(number):
    """A number without the zero that Python puts into exponents."""
    return re.sub(r"e([+-])0", r"e\1", f"{number:g}")


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


def _draw_counterparts(ax, members, curves, points, looks):
    """Curves of the paper that those of the panel are to be compared with."""
    named = [curves[name].get("counterpart") for name in members]
    named = dict.fromkeys(name for name in named if name is not None)
    pale = {"alpha": 0.5, "lw": _thin(), "ms": 0.6 * mpl.rcParams["lines.markersize"]}
    for name in named:
        sizes, means, _ = points[name]
        ax.plot(sizes, means, **pale, **looks[name])
    if named:
        ax.plot([], [], color="grey", marker="o", label="pale: as on the left", **pale)


def _thin():
    """Width of the lines of what curves are compared with."""
    return 0.7 * mpl.rcParams["lines.linewidth"]


def _draw_curve(ax, curve, points, look, resolution=0.0):
    """One curve with error bars, open where it is not resolved."""
    sizes, means, spreads = points
    label = displayed(curve["label"])
    label += f" ({curve['note']})" if "note" in curve else ""
    ax.errorbar(sizes, means, spreads, capsize=2, label=label, **look)
    low = [(n, y) for n, y in zip(sizes, means, strict=True) if y <= resolution]
    if low:
        open_marks = look | {"ls": "none", "mfc": "white"}
        ax.plot(*zip(*low, strict=True), zorder=3, **open_marks)


def _draw_references(ax, members, curves, looks):
    """Levels that the paper states."""
    for name in members:
        reference = curves[name].get("reference")
        if reference is not None:
            level = reference["rmse_percent"]
            label = f"{displayed(curves[name]['label'])} in the paper: ≈ {level:g} %"
            color = looks[name]["color"]
            ax.axhline(level, ls=":", color=color, lw=_thin(), label=label)


def _mark_sizes(ax, sizes):
    """Ticks at the sizes of the training sets, and what they are."""
    ax.set_xlabel("training structures")
    if not sizes:
        return
    low, high = min(sizes), max(sizes)
    # About how many digits have room beside each other.
    digits = 100 * ax.figure.get_figwidth() / mpl.rcParams["font.size"]
    digits /= ax.get_subplotspec().get_gridspec().ncols
    ticks = []
    for n in sorted(set(sizes)):
        room = digits * log10(n / ticks[-1]) / log10(high / low) if ticks else digits
        if room > len(str(n)) + 1:
            ticks.append(n)
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.set_xticks([], minor=True)


def mark_decades(axis):
    """Plain numbers at the ticks of a logarithmic axis, powers on a long one.

    Parameters
    ----------
    axis : matplotlib.axis.Axis
        Of an axes that all has been drawn in.
    """
    low, high = sorted(axis.get_view_interval())
    decades = range(ceil(log10(low) - 1e-9), floor(log10(high) + 1e-9) + 1)
    if len(decades) > 7 or low < 1e-4 or high > 3e4:
        step = -(-len(decades) // 6)
        powers = [e for e in decades if e % step == 0]
        labels = [f"$10^{{{e}}}$" for e in powers]
        size = max(WITH_EXPONENTS, mpl.rcParams["xtick.labelsize"])
        axis.set_ticks([10.0**e for e in powers], labels, fontsize=size)
        axis.set_ticks([], minor=True)
        return
    steps = (1, 2, 5) if high < 300 * low else (1,)
    ticks = [m * 10.0**e for e in range(-5, 6) for m in steps]
    ticks = [t for t in ticks if low <= t <= high]
    if len(ticks) < 3:
        # Hardly a decade: steps as on a linear axis.
        ticks = [t for t in MaxNLocator(5).tick_values(low, high) if low <= t <= high]
    axis.set_ticks(ticks, [f"{t:g}" for t in ticks])
    if len(steps) > 1:
        axis.set_ticks([], minor=True)


def legend_below(ax):
    """A legend below an axes and its label, in two columns if they fit.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        That all has been drawn in; what has error bars comes first.
    """
    entries = list(zip(*ax.get_legend_handles_labels(), strict=True))
    entries.sort(key=lambda entry: not isinstance(entry[0], ErrorbarContainer))
    handles, labels = zip(*entries, strict=True)
    # Below ticks, their labels and the name of the axis, whatever the size of the text.
    below = (14.0 + 2.4 * mpl.rcParams["font.size"]) / 72
    place = ax.transAxes + ScaledTranslation(0.0, -below, ax.figure.dpi_scale_trans)
    room = ax.figure.bbox.width / ax.get_subplotspec().get_gridspec().ncols
    for n_columns in (2, 1):
        legend = ax.legend(
            *(handles, labels),
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            bbox_transform=place,
            ncols=n_columns,
            borderaxespad=0.3,
            columnspacing=1.0,
            handlelength=2.6,
        )
        if legend.get_window_extent().width < room:
            break


def figure_2(
    curve_rows, error_rows, class_rows, labels, *, provenance, style="default"
):
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
    style : {'default', 'journal', 'talk'}
        The style.

    Returns
    -------
    styles.StyledFigure

    Raises
    ------
    ValueError
        If a model is not in the tables, or there is no such style.
    """
    for label in labels:
        for rows in (curve_rows, error_rows):
            known = sorted({row["curve"] for row in rows})
            if label not in known:
                raise ValueError(f"a curve must be one of {known}, got {label!r}")
    looks = model_styles(labels)
    dimers = list(dict.fromkeys((row["dimer"], row["class"]) for row in curve_rows))
    # Members of a class stand above each other.
    classes = list(dict.fromkeys(row["class"] for row in class_rows))
    dimers.sort(key=lambda pair: classes.index(pair[1]))
    # One, two or three columns of two.
    n_columns = min(3, -(-len(dimers) // 2))
    dimers = dimers[: 2 * n_columns]
    with styles.style(style) as look:
        figure = look.figure(1.03)
        # On a slide one of each column.
        n_rows = 1 if look.tallest < look.double else 2
        dimers = dimers[:: 2 // n_rows]
        grid = figure.add_gridspec(n_rows + 1, 6)
        width = 6 // n_columns
        for i, (dimer, of_class) in enumerate(dimers):
            column, row = divmod(i, n_rows)
            place = grid[row, column * width : (column + 1) * width]
            ax = figure.add_subplot(place)
            _draw_dimer(ax, dimer, curve_rows, looks)
            ax.set_title(f"{_short(dimer)}\n{of_class}", fontsize=look.small)
            if row == n_rows - 1 or i == len(dimers) - 1:
                ax.set_xlabel("centroid distance / Å")
            if column == 0:
                ax.set_ylabel("energy / eV")
        entries = figure.axes[0].get_legend_handles_labels()
        for i, (name, heading) in enumerate(_SETS.items()):
            ax = figure.add_subplot(grid[n_rows, 3 * i : 3 * i + 3])
            _draw_errors(ax, name, error_rows, class_rows, looks)
            ax.set_title(heading)
            if i == 0:
                ax.set_ylabel("test RMSE / % of std")
        figure.legend(*entries, loc="outside lower center", ncols=4)
        title = "Binding curves of charged dimers, none of them trained on"
        description = (
            "Above: interaction energies of test dimers, with the range of distances "
            "that were trained on shaded. Below: root mean square errors of the test "
            "dimers relative to the standard deviation of the same set and class, "
            "at these distances (left) and beyond them (right)."
        )
        describe(figure, title, description, provenance)
    return figure


def _short(name):
    """A name that does not reach the next panel."""
    half = _NAME_WIDTH // 2
    return name if len(name) <= _NAME_WIDTH else f"{name[:half]}…{name[-half:]}"


def _draw_dimer(ax, dimer, rows, looks):
    """Reference points and the curve of each model, shaded where it was trained."""
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
    reference = EXACT | {"ls": "none", "mfc": "none", "zorder": 3}
    ax.plot(*_curve(rows, "reference"), label="reference", **reference)
    size = 0.8 * mpl.rcParams["lines.markersize"]
    for i, (label, look) in enumerate(looks.items()):
        distance, energy = _curve(rows, label)
        # Each marks points of its own.
        every = (i % 4, 4)
        ax.plot(
            *(distance, energy),
            markevery=every,
            ms=size,
            label=displayed(label),
            **look,
        )


def _curve(rows, label):
    """Distances and energies of one curve, in order."""
    points = sorted(
        (float(row["distance"]), float(row["energy"]))
        for row in rows
        if row["curve"] == label
    )
    return [d for d, _ in points], [e for _, e in points]


def _draw_errors(ax, name, error_rows, class_rows, looks):
    """Error of each model on all dimers of a set and on those of each class."""
    classes = list(dict.fromkeys(row["class"] for row in class_rows))
    groups = [("all", error_rows)]
    groups += [(c, [row for row in class_rows if row["class"] == c]) for c in classes]
    for i, (label, look) in enumerate(looks.items()):
        x = [g + 0.8 * ((i + 0.5) / len(looks) - 0.5) for g in range(len(groups))]
        y = []
        for _, rows in groups:
            found = [r for r in rows if r["curve"] == label and r["set"] == name]
            # No dimers of this class, or all of one energy: no point.
            cell = found[0]["rmse_percent"] if found else ""
            y.append(float(cell) if cell else float("nan"))
        ax.plot(x, y, label=displayed(label), **(look | {"ls": "none"}))
    ax.set_yscale("log")
    mark_decades(ax.yaxis)
    names = [group.replace(" ", "\n") for group, _ in groups]
    ax.set_xticks(range(len(groups)), names)
    ax.grid(visible=False, axis="x")


def figure_3_tensor(rows, trace_rows, labels, *, provenance, style="default"):
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
    style : {'default', 'journal', 'talk'}
        The style.

    Returns
    -------
    styles.StyledFigure

    Raises
    ------
    ValueError
        If a curve is not in the table of the anisotropic part, or there is no such
        style.
    """
    of_trace = {row["curve"] for row in trace_rows}
    panels = (
        ("Trace (λ = 0)", "standard deviation", trace_rows, of_trace),
        ("Anisotropic part (λ = 2)", "root mean square", rows, set(labels)),
    )
    looks = model_styles(labels)
    with styles.style(style) as look:
        figure = look.figure(0.57)
        axes = figure.subplots(1, len(panels), sharey=True)
        for ax, (heading, unit, table, known) in zip(axes, panels, strict=True):
            ax.set(xscale="log", yscale="log", title=heading)
            ax.set_ylabel(f"test RMSE / % of {unit}")
            ax.tick_params(labelleft=True)
            sizes = []
            for label in labels:
                if label in known:
                    points = _points(table, label)
                    _draw_curve(ax, {"label": label}, points, looks[label])
                    sizes += points[0]
            _mark_sizes(ax, sizes)
        mark_decades(axes[0].yaxis)
        # All curves stand in the second panel.
        entries = axes[1].get_legend_handles_labels()
        figure.legend(*entries, loc="outside lower center", ncols=4)
        title = "Both parts of the dielectric tensor of liquid water"
        describe(figure, title, f"Learning curves. {_SPREAD}", provenance)
    return figure
