"""Figures of the examples; they compute nothing but the deviations that they show."""

import textwrap

import matplotlib as mpl
from matplotlib.figure import Figure

from plotting import COLORS, MARKERS, STYLE, TITLE_WIDTH

_ELASTIC = {"constant": "a", "bulk": "B", "c11": "C₁₁", "c12": "C₁₂", "c44": "C₄₄"}
_OPTICAL = {"lo": "LO", "to": "TO"}
# Colours and dashes of models of ions.
_MODELS = (
    *(("#E69F00", "-"), ("#0072B2", "--"), ("#009E73", "-."), ("#CC79A7", ":")),
    *(("#D55E00", "-"), ("#56B4E9", "--")),
)


def figure_liquid(seen, exact, rows, *, provenance):
    """Structure and motion in a liquid by several potentials.

    Parameters
    ----------
    seen : dict of str to dict
        For the label of each potential that was run ``r`` in Å with ``rdf`` (3, n):
        Na–Cl, Na–Na, Cl–Cl; ``lags`` in ps with ``msd`` (2, n) in Å².
    exact : str
        Label of the exact potential, drawn black.
    rows : sequence of tuple
        The table: label, structures learnt from, errors in meV/atom and meV/Å.
    provenance : str
        Stands in the title.

    Returns
    -------
    matplotlib.figure.Figure
    """
    styles = _styles([label for label, *_ in rows], exact)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        (unlike, like), (motion, errors) = figure.subplots(2, 2)
        for label, own in seen.items():
            style = styles[label]
            unlike.plot(own["r"], own["rdf"][0], label=label, **style)
            like.plot(own["r"], own["rdf"][1:].mean(axis=0), **style)
            motion.plot(own["lags"], own["msd"].mean(axis=0), **style)
        unlike.set(xlabel="r / Å", ylabel="g(r)", title="Na–Cl")
        like.set(xlabel="r / Å", ylabel="g(r)", title="Na–Na and Cl–Cl")
        motion.set(
            xlabel="time / ps", ylabel="displacement² / Å²", title="diffusion, all ions"
        )
        for ax in (unlike, like, motion):
            ax.set_ylim(bottom=0.0)
            ax.set_xlim(left=0.0)
        for i, (label, _, energy, force, *_) in enumerate(rows):
            if energy:
                style = {"color": styles[label]["color"], "ls": "none"}
                marker = MARKERS[i % len(MARKERS)]
                errors.plot(float(energy), float(force), marker, label=label, **style)
        errors.set(
            xscale="log",
            yscale="log",
            xlabel="energy / meV per atom",
            ylabel="force / meV/Å",
            title="mean absolute errors of the models",
        )
        errors.legend()
        shown = unlike.get_legend_handles_labels()
        figure.legend(*shown, loc="outside lower center", ncols=len(seen))
        _title(figure, "A liquid of ions with a soft repulsion", provenance)
    return figure


def figure_crystal(seen, exact, *, provenance):
    """Optical branches of rock salt, and what deviates from the exact potential.

    Parameters
    ----------
    seen : dict of str to dict
        For each label the properties, see :func:`crystal.crystal`.
    exact, provenance
        As for :func:`figure_liquid`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    styles = _styles(seen, exact)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        branches, deviations = figure.subplots(1, 2)
        for i, (label, own) in enumerate(seen.items()):
            style = styles[label] | {"marker": MARKERS[i % len(MARKERS)]}
            branches.plot(own["q"], own["lo"], label=label, **style)
            branches.plot(own["q"], own["to"], mfc="white", **style)
            if label == exact:
                continue
            names, percents = _deviations(own, seen[exact])
            deviations.plot(names, percents, label=label, **(style | {"ls": "none"}))
        branches.set(
            xlabel="q along [100] / Å$^{-1}$",
            ylabel="frequency / THz",
            title="optical branches: LO filled, TO open",
        )
        branches.set_ylim(bottom=0.0)
        branches.set_xlim(left=0.0)
        deviations.set(
            yscale="log", ylabel="deviation from exact / %", title="properties"
        )
        figure.legend(
            *branches.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=len(seen),
        )
        _title(figure, "Rock salt of ions with a soft repulsion", provenance)
    return figure


def _deviations(own, exact):
    """Names of the properties, and by how many percent each deviates."""
    names, percents = [], []
    for key, name in (_ELASTIC | _OPTICAL).items():
        value, wanted = own[key], exact[key]
        if key in _OPTICAL:
            value, wanted = value[0], wanted[0]
        names.append(name)
        percents.append(100.0 * abs(value / wanted - 1.0))
    return names, percents


def _styles(labels, exact):
    """The exact potential black; a colour for each model, whatever it learns from."""
    models = dict.fromkeys(_model(label) for label in labels if label != exact)
    colors = dict(zip(models, _MODELS, strict=False))
    styles = {exact: {"color": "black", "lw": 2.0, "alpha": 0.6}}
    for label in labels:
        if label != exact:
            color, dashes = colors[_model(label)]
            styles[label] = {"color": color, "ls": dashes}
    return styles


def _model(label):
    return label.split(",")[0]


def _title(figure, text, provenance):
    source = "\n".join(textwrap.wrap(provenance, TITLE_WIDTH))
    figure.suptitle(f"{text}\n{source}", fontsize=9)


def figure_force_dimers(rows, curves, *, provenance):
    """Errors of models of charged dimers, and energies along the distance.

    Parameters
    ----------
    rows : sequence of tuple
        The table: label, baseline, cross-validation, composition, frames learnt from
        and tested on, errors in meV and meV/Å.
    curves : dict of str to (str, list of dict)
        Name and predictions of two models: ``local`` and ``best``.
    provenance : str
        Stands in the title.

    Returns
    -------
    matplotlib.figure.Figure
    """
    labels = list(dict.fromkeys(label for label, *_ in rows))
    colors = [color for color in COLORS if color != "#000000"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        errors, energies = figure.subplots(1, 2)
        for label, baseline, _, composition, _, _, energy, force, _ in rows:
            if composition != "all":
                continue
            i = labels.index(label)
            style = {"color": colors[i % len(colors)], "ls": "none"}
            fill = style["color"] if baseline else "white"
            marker = MARKERS[i % len(MARKERS)]
            name = label if baseline else None
            errors.plot(
                float(energy), float(force), marker, mfc=fill, label=name, **style
            )
        errors.set(
            xlabel="energy RMSE / meV",
            ylabel="force RMSE / meV/Å",
            title="far dimers: filled on point charges, open alone",
        )
        errors.set_xlim(left=0.0)
        errors.set_ylim(bottom=0.0)
        errors.legend(loc="lower right")
        shown = (("local", "#E69F00", "s"), ("best", "#0072B2", "o"))
        for kind, color, marker in shown:
            name, found = curves[kind]
            for of, fill in (("train", "white"), ("test", color)):
                some = [row for row in found if row["set"] == of]
                energies.plot(
                    [float(row["distance"]) for row in some],
                    [1e3 * (float(r["predicted"]) - float(r["energy"])) for r in some],
                    marker,
                    color=color,
                    mfc=fill,
                    ms=3,
                    label=name if of == "test" else None,
                )
        energies.axhline(0.0, color="black", lw=0.8)
        energies.set(
            xlabel="distance / Å",
            ylabel="predicted − reference / meV",
            title="energies: open learnt from, filled tested",
        )
        energies.legend()
        _title(figure, "Charged dimers, learnt from near ones", provenance)
    return figure
