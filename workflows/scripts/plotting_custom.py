"""Figures of one's own data."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from plotting import (
    COLORS,
    MARKERS,
    STYLE,
    _finish_panel,
    _mark_percents,
    _points,
)


def figure_custom(rows, labels, *, target, provenance):
    """Learning curves of all models.

    Parameters
    ----------
    rows : sequence of dict
        Table with the columns ``curve``, ``n_train``, ``rmse_percent`` and
        ``rmse_percent_std``.
    labels : sequence of str
        The curves, in the order of the legend.
    target : str
        What was learnt.
    provenance : str
        Where the data come from.

    Returns
    -------
    matplotlib.figure.Figure
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.4), layout="constrained")
        ax = figure.subplots()
        ax.set(xscale="log", yscale="log")
        sizes = []
        for i, label in enumerate(labels):
            own, means, spreads = _points(rows, label)
            style = {
                "color": COLORS[i % len(COLORS)],
                "marker": MARKERS[i % len(MARKERS)],
                "ls": "-" if i < len(COLORS) else "--",
            }
            ax.errorbar(own, means, spreads, capsize=2, label=label, **style)
            sizes += own
        _finish_panel(ax, sizes)
        _mark_percents(ax)
        figure.suptitle(f"{target}\n{provenance}", fontsize=9)
    return figure


def figure_parity(found, *, target, unit, provenance):
    """Predictions of test structures against what is known.

    Parameters
    ----------
    found : dict of str to list of dict
        For each label rows with ``value``, ``predicted`` and ``std``.
    target, unit : str
        What was learnt.
    provenance : str
        Where the data come from.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n_columns = min(4, len(found))
    n_rows = -(-len(found) // n_columns)
    with mpl.rc_context(STYLE):
        size = 1.8 * n_columns + 0.6, 1.9 * n_rows + 0.8
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for ax in grid.ravel()[len(found) :]:
            ax.remove()
        for ax, (label, rows), color in zip(
            grid.ravel(), found.items(), COLORS * len(found), strict=False
        ):
            known = np.array([float(row["value"]) for row in rows])
            values = np.array([float(row["predicted"]) for row in rows])
            std = [float(row["std"]) for row in rows if row["std"]]
            low = min(known.min(), values.min())
            high = max(known.max(), values.max())
            ax.plot([low, high], [low, high], color="black", lw=0.8)
            ax.errorbar(
                known,
                values,
                std or None,
                fmt="o",
                ms=3,
                color=color,
                elinewidth=0.7,
                alpha=0.7,
            )
            ax.set_title(label, fontsize=8)
            ax.locator_params(nbins=4)
        figure.supxlabel(f"known {unit}", fontsize=8)
        figure.supylabel("predicted, with one standard deviation", fontsize=8)
        figure.suptitle(f"{target}, test structures\n{provenance}", fontsize=9)
    return figure
