"""Figures of the examples; they compute nothing but the deviations that they show."""

import matplotlib as mpl

import styles
from plotting import describe, legend_below, mark_decades
from styles import EXACT, WITH_EXPONENTS, displayed, model_styles

_ELASTIC = {
    **{"constant": "$a$", "bulk": "$B$"},
    **{"c11": "$C_{11}$", "c12": "$C_{12}$", "c44": "$C_{44}$"},
}
_OPTICAL = {"lo": "LO", "to": "TO"}
# Models that learnt from the fewest frames are open.
_FILLS = ("none", "full", "left", "bottom")
# A smooth curve has this many markers.
_MARKERS = 8


def figure_liquid(seen, exact, rows, *, provenance, style="default"):
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
        What was computed.
    style : {'default', 'journal', 'talk'}
        The style.

    Returns
    -------
    styles.StyledFigure
    """
    with styles.style(style) as look:
        looks = _looks([label for label, *_ in rows], exact)
        figure = look.figure(0.76)
        (unlike, like), (motion, errors) = figure.subplots(2, 2)
        for i, (label, own) in enumerate(seen.items()):
            shown = {"label": displayed(label), **looks[label]}
            for ax, x, y in (
                (unlike, own["r"], own["rdf"][0]),
                (like, own["r"], own["rdf"][1:].mean(axis=0)),
                (motion, own["lags"], own["msd"].mean(axis=0)),
            ):
                step = max(1, len(x) // _MARKERS)
                first = i * step // len(seen)
                ax.plot(x, y, markevery=(first, step), **shown)
        unlike.set(xlabel="r / Å", ylabel="g(r)", title="Na–Cl")
        like.set(xlabel="r / Å", ylabel="g(r)", title="Na–Na and Cl–Cl")
        motion.set(xlabel="time / ps", title="Diffusion, all ions")
        size = max(WITH_EXPONENTS, look.font)
        motion.set_ylabel("displacement$^2$ / Å$^2$", fontsize=size)
        for ax in (unlike, like, motion):
            _from_zero(ax)
        sizes = sorted({int(n) for _, n, *_ in rows if n})
        for label, n, energy, force, *_ in rows:
            if energy:
                fill = _FILLS[sizes.index(int(n)) % len(_FILLS)]
                mark = looks[label] | {"ls": "none", "fillstyle": fill}
                errors.plot(float(energy), float(force), label=displayed(label), **mark)
        errors.set(
            xscale="log",
            yscale="log",
            xlabel="energy / meV per atom",
            ylabel="force / meV/Å",
            title="Mean absolute errors",
        )
        errors.margins(0.12)
        mark_decades(errors.xaxis)
        mark_decades(errors.yaxis)
        errors.legend()
        entries = unlike.get_legend_handles_labels()
        figure.legend(*entries, loc="outside lower center", ncols=len(seen))
        description = (
            "Radial distribution functions, mean square displacements, and the errors "
            "of the models that drive the runs and of others."
        )
        title = "A liquid of ions with a soft repulsion"
        describe(figure, title, description, provenance)
    return figure


def figure_crystal(seen, exact, *, provenance, style="default"):
    """Optical branches of rock salt, and what deviates from the exact potential.

    Parameters
    ----------
    seen : dict of str to dict
        For each label the properties, see :func:`crystal.crystal`.
    exact, provenance, style
        As for :func:`figure_liquid`.

    Returns
    -------
    styles.StyledFigure
    """
    with styles.style(style) as look:
        looks = _looks(seen, exact)
        figure = look.figure(0.48)
        branches, deviations = figure.subplots(1, 2)
        for label, own in seen.items():
            shown = looks[label]
            branches.plot(own["q"], own["lo"], label=displayed(label), **shown)
            branches.plot(own["q"], own["to"], mfc="white", **shown)
            if label != exact:
                deviations.plot(
                    *_deviations(own, seen[exact]), **(shown | {"ls": "none"})
                )
        branches.set(
            xlabel="q along [100] / (1/Å)",
            ylabel="frequency / THz",
            title="Optical branches: LO filled, TO open",
        )
        _from_zero(branches)
        deviations.set(
            yscale="log", ylabel="deviation from exact / %", title="Properties"
        )
        size = max(WITH_EXPONENTS, look.font)
        deviations.tick_params(axis="x", labelsize=size)
        mark_decades(deviations.yaxis)
        figure.legend(
            *branches.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=len(seen),
        )
        description = (
            "Longitudinal and transverse optical branches; deviations of lattice "
            "constant, bulk modulus, elastic constants and of both branches at the "
            "smallest wave number."
        )
        title = "Rock salt of ions with a soft repulsion"
        describe(figure, title, description, provenance)
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


def _from_zero(ax):
    """Begin both axes at zero, with room above what is drawn."""
    ax.update_datalim([(0.0, 0.0)])
    ax.autoscale_view()
    ax.set_xlim(left=0.0)
    ax.set_ylim(bottom=0.0)


def _looks(labels, exact):
    """The exact potential broad and black; each model as everywhere."""
    looks = model_styles(label for label in labels if label != exact)
    line, mark = (mpl.rcParams[f"lines.{key}"] for key in ("linewidth", "markersize"))
    # It shows around what agrees with it.
    broad = {"alpha": 0.5, "lw": 2.5 * line, "ms": 1.7 * mark, "mew": 0.0}
    return {exact: EXACT | broad} | looks


def figure_force_dimers(rows, curves, *, provenance, style="default"):
    """Errors of models of charged dimers, and energies along the distance.

    Parameters
    ----------
    rows : sequence of tuple
        The table: label, baseline, cross-validation, composition, frames learnt from
        and tested on, errors in meV and meV/Å.
    curves : dict of str to (str, str, list of dict)
        Label, name and predictions of two models: ``local`` and ``best``.
    provenance : str
        Where the data come from.
    style : {'default', 'journal', 'talk'}
        The style.

    Returns
    -------
    styles.StyledFigure
    """
    looks = model_styles(label for label, *_ in rows)
    with styles.style(style) as look:
        figure = look.figure(0.56)
        errors, energies = figure.subplots(1, 2)
        for label, baseline, _, composition, _, _, energy, force, _ in rows:
            if composition == "all":
                mark = looks[label] | {"ls": "none"}
                mark["mfc"] = mark["color"] if baseline else "white"
                name = displayed(label) if baseline else None
                errors.plot(float(energy), float(force), label=name, **mark)
        errors.set(
            xlabel="energy RMSE / meV",
            ylabel="force RMSE / meV/Å",
            title="Far dimers: open alone,\nfilled on point charges",
        )
        _from_zero(errors)
        legend_below(errors)
        for label, name, found in curves.values():
            for of, fill in (("train", "white"), ("test", looks[label]["color"])):
                some = [row for row in found if row["set"] == of]
                energies.plot(
                    [float(row["distance"]) for row in some],
                    [1e3 * (float(r["predicted"]) - float(r["energy"])) for r in some],
                    label=displayed(name) if of == "test" else None,
                    **(looks[label] | {"ls": "none", "mfc": fill}),
                )
        energies.axhline(0.0, color="black", lw=0.8)
        energies.set(
            xlabel="distance / Å",
            ylabel="predicted − reference / meV",
            title="Energies: open learnt from,\nfilled tested",
        )
        legend_below(energies)
        description = (
            "Root mean square errors of dimers farther apart than those learnt from, "
            "of each model alone and on top of point charges; errors of the energies "
            "by the local model and by the best in cross-validation."
        )
        title = "Charged dimers, learnt from near ones"
        describe(figure, title, description, provenance)
    return figure
