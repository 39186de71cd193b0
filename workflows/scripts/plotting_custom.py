"""Parity of one's own data; the learning curves are drawn as those of the paper are."""

import numpy as np

import styles
from plotting import describe
from styles import displayed, model_styles


def figure_parity(found, *, target, unit, provenance, style="default"):
    """Predictions of test structures against what is known.

    Parameters
    ----------
    found : dict of str to list of dict
        For each label rows with ``value``, ``predicted`` and ``std``.
    target, unit : str
        What was learnt.
    provenance : str
        Where the data come from.
    style : {'default', 'journal', 'talk'}
        The style.

    Returns
    -------
    styles.StyledFigure
    """
    looks = model_styles(found)
    n_columns = min(4, len(found))
    n_rows = -(-len(found) // n_columns)
    with styles.style(style) as look:
        wide = n_columns > 1
        height = 1.05 * n_rows / n_columns if wide else 1.05
        figure = look.figure(height, wide=wide)
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for ax in grid.ravel()[len(found) :]:
            ax.remove()
        for ax, (label, rows) in zip(grid.ravel(), found.items(), strict=False):
            known = np.array([float(row["value"]) for row in rows])
            values = np.array([float(row["predicted"]) for row in rows])
            std = [float(row["std"]) for row in rows if row["std"]]
            ends = min(known.min(), values.min()), max(known.max(), values.max())
            ax.plot(ends, ends, color="black", lw=0.8)
            points = looks[label] | {"ls": "none", "ms": 3, "alpha": 0.7}
            ax.errorbar(known, values, std or None, elinewidth=0.7, **points)
            ax.set_title(displayed(label), fontsize=look.small)
            ax.locator_params(nbins=4)
        figure.supxlabel(f"known / {unit}", fontsize=look.font)
        figure.supylabel("predicted", fontsize=look.font)
        describe(
            figure,
            f"Predicted {target} of structures that were not learnt from",
            "Bars: one standard deviation, where the model has it.",
            provenance,
        )
    return figure
