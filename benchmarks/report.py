"""Tables and plots of the results. Times are not measured here."""

import os
import platform
from collections import defaultdict
from pathlib import Path

import numba
import numpy as np

from lode.files import atomic_write
from workflows.scripts.csv_tables import with_block, write_table

COLUMNS = (
    "case",
    "peer",
    "peer_version",
    "n_atoms",
    "threads",
    "ours_s",
    "peer_s",
    "ratio",
    "ours_error",
    "peer_error",
    "ours_mb",
    "peer_mb",
)
WRITER = "benchmarks"
# Colours that are told apart by everyone (M. Okabe, K. Ito).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
COLORS += ("black", "0.5")
_GROWTH_FROM = 4000
_FRONT = ("case", "code", "setting", "seconds", "error")
_GAINS = (
    "case",
    "peer",
    "threads",
    "pairs",
    "ours_gain",
    "peer_gain",
    "ratio_gain",
    "ratio_gain_low",
    "ratio_gain_high",
)
_HEADER = (
    "| case | atoms | threads | peer | ours, ms | peer, ms | ratio (quartiles) | "
    "our error | its error | our tolerance | ours, MB | peer, MB | "
    "numbers an atom: ours, peer | pairs | |"
)


def write(folder, rows, points, gains=(), page=None):
    """Write ``results.csv``, ``results.md``, ``front.csv``, ``threads.csv`` and plots.

    Parameters
    ----------
    folder : Path
    rows : list of dict
        From :meth:`benchmarks.measurement.Comparison.row`, with the memory.
    points : list of sequence
        From :func:`benchmarks.measurement.front`.
    gains : sequence of tuple
        Case, peer, and seconds of its pairs by the number of threads.
    page : Path, optional
        Page that has a table of the ratios between its markers.
    """
    table = [[digits(row[name]) for name in COLUMNS] for row in rows]
    write_table(folder / "results.csv", COLUMNS, table)
    gains = [row for gain in gains for row in thread_gains(*gain)]
    with atomic_write(folder / "results.md") as path:
        path.write_text(_page(rows, gains), encoding="utf-8")
    if gains:
        table = [[digits(x) for x in row] for row in gains]
        write_table(folder / "threads.csv", _GAINS, table)
    if page:
        write_block(page, _ratios(rows, "title"))
    if points:
        write_table(
            folder / "front.csv", _FRONT, [[digits(x) for x in row] for row in points]
        )
        _plot(folder, rows, points)


def write_block(page, block):
    """Replace what stands between the markers of a page."""
    text = page.read_text(encoding="utf-8")
    with atomic_write(page) as path:
        path.write_text(with_block(text, block, WRITER), encoding="utf-8")


def provenance():
    """Words that say where and when a measurement was made."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, NumPy {np.__version__}, Numba "
        f"{numba.__version__}, load average {os.getloadavg()[1]:.1f} over the last "
        "five minutes (about 1 if quiet)"
    )


def save(figure, path):
    """Write a figure as PDF and PNG, whole and the same every time."""
    path = Path(path)
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        with atomic_write(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, metadata=metadata, dpi=150)


def axes_of(n_rows, n_columns, **options):
    """Figure and axes without a display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(n_rows, n_columns, layout="constrained", **options)


def closed(figure):
    """Free the memory of a figure."""
    from matplotlib import pyplot as plt

    plt.close(figure)


def write_growth(folder, rows, peer_ends=""):
    """Write ``growth.csv``, ``growth.md`` and the plots.

    Parameters
    ----------
    folder : Path
    rows : list of dict
        From :func:`benchmarks.measurement.growth` and ``smearings``.
    peer_ends : str
        Why the peer has no larger frames.
    """
    table = [[digits(row[name]) for name in COLUMNS] for row in rows]
    write_table(folder / "growth.csv", COLUMNS, table)
    series = _series(rows)
    with atomic_write(folder / "growth.md") as path:
        path.write_text(_growth_page(rows, series, peer_ends), encoding="utf-8")
    figure, ((gas, memory), (water, smearing)) = axes_of(2, 2, figsize=(10, 8))
    for place, (name, points) in enumerate(series.items()):
        n_atoms, seconds, megabytes = points.T
        style = {"marker": "os^vDPX*"[place], "color": COLORS[place]}
        exponent = growth_exponent(n_atoms, seconds)
        fitted = _TITLES[name]
        if exponent is not None:
            fitted += f", $N^{{{exponent:.2f}}}$ from {_GROWTH_FROM} on"
        time = water if name.endswith("water") else gas
        time.loglog(n_atoms, seconds, label=fitted, **style)
        # A small frame may need no more than the imports did.
        memory.loglog(n_atoms, np.maximum(megabytes, 1.0), **style)
    gas.set(title="gas of charges, tolerance $10^{-6}$")
    water.set(title="liquid water, tolerance $10^{-6}$")
    memory.set(ylabel="memory / MB", title="peak above the imports")
    if peer_ends:
        note = peer_ends.replace(": ", ":\n").replace(", ", ",\n")
        place = {"transform": memory.transAxes, "va": "top"}
        memory.text(0.03, 0.97, note, fontsize=7, **place)
    for time in (gas, water):
        time.set(ylabel="processor time, one thread / s")
        # Room for the legend, below what is slow.
        time.set_ylim(bottom=time.get_ylim()[0] / 20)
    for place, (n_atoms, points) in enumerate(_smearings(rows).items()):
        widths, seconds = points.T
        style = {"marker": "os^vDP"[place % 6], "color": COLORS[place % 6]}
        smearing.plot(
            widths, seconds / seconds[-1], label=f"{n_atoms} charges", **style
        )
    smearing.set(
        xlabel="smearing / Å",
        ylabel="time over that of the last",
        title="n = 8, l = 6, tolerance $10^{-6}$",
        ylim=(0.0, 1.6),
    )
    for axes in (gas, memory, water):
        axes.set_xlabel("atoms")
    for axes in (gas, memory, water, smearing):
        # Memory has the colours of both others.
        if axes.lines and axes is not memory:
            axes.legend(fontsize=7, loc=None if axes is smearing else "lower right")
        axes.grid(alpha=0.3)
    save(figure, folder / "growth")
    closed(figure)


_TITLES = {
    "lode1": "LODE(1)",
    "lode2": "LODE(2)",
    "expansion": "coefficients",
    "gradient": "coefficients and their gradient",
    "featomic": "coefficients, featomic",
    "ewald": "Ewald energy and forces",
    "lode2-water": "LODE(2), water",
    "soap-water": "SOAP, n = 8, l = 6, 6 Å, water",
}


def _series(rows):
    """(atoms, seconds, MB) of each kind of growth, smallest frame first."""
    series = defaultdict(list)
    for row in rows:
        if not row["case"].startswith("growth-"):
            continue
        name = row["case"].removeprefix("growth-").removesuffix(f"-{row['n_atoms']}")
        series[name].append((row["n_atoms"], row["ours_s"], row["ours_mb"]))
        if row["peer"]:
            peer = (row["n_atoms"], row["peer_s"], row["peer_mb"])
            series[row["peer"]].append(peer)
    return {name: np.array(series[name]) for name in _TITLES if name in series}


def _smearings(rows):
    """(smearing, seconds) by the number of charges."""
    found = defaultdict(list)
    for row in rows:
        if row["case"].startswith("smearing-"):
            width = float(row["case"].split("-")[1])
            found[row["n_atoms"]].append((width, row["ours_s"]))
    return {n_atoms: np.array(points) for n_atoms, points in found.items()}


def _growth_page(rows, series, peer_ends):
    lines = [
        "# Time and memory of large frames",
        "",
        f"Made by `python -m benchmarks`. {provenance()}. Time of the processor on one "
        "thread, the best of a few calls; memory is the peak above that after the "
        "imports. Potentials: n = 4, l = 4, 3 Å, smearing 1 Å; all at a tolerance of "
        f"1e-6. {peer_ends + '.' if peer_ends else ''}".rstrip(),
        "",
        f"| what | largest frame, atoms | s | MB | exponent from {_GROWTH_FROM} on |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, points in series.items():
        exponent = growth_exponent(*points.T[:2])
        system = "water" if name.endswith("water") else "gas"
        n_atoms, seconds, megabytes = points[-1]
        cells = (
            _TITLES[name] if system == "water" else f"{_TITLES[name]}, gas",
            f"{n_atoms:.0f}",
            f"{seconds:.3g}",
            f"{megabytes:.0f}",
            "" if exponent is None else f"{exponent:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| charges | slowest smearing over fastest, 0.3 to 1 Å | milliseconds |",
        "| --- | --- | --- |",
    ]
    for n_atoms, points in _smearings(rows).items():
        seconds = points[:, 1]
        times = ", ".join(f"{1e3 * s:.3g} ({w:g} Å)" for w, s in points)
        lines.append(f"| {n_atoms} | {seconds.max() / seconds.min():.2f} | {times} |")
    known = [row for row in rows if row["ours_error"] is not None]
    worst = max(known, key=lambda row: row["ours_error"], default=None)
    if worst:
        lines += [
            "",
            f"Largest of the {len(known)} measured errors: {worst['ours_error']:.1e} "
            f"({worst['case']}); asked for: 1e-06.",
        ]
    return "\n".join(lines) + "\n"


def growth_exponent(n_atoms, seconds):
    """Fitted a of time ∝ N^a over the large frames; none if they are fewer than two."""
    large = np.asarray(n_atoms) >= _GROWTH_FROM
    if large.sum() < 2:
        return None
    logarithms = (np.log(np.asarray(x)[large]) for x in (n_atoms, seconds))
    return float(np.polyfit(*logarithms, 1)[0])


def _ratios(rows, name="case"):
    """How many times faster ours is; a range where a line has several cases."""
    ratios = defaultdict(lambda: defaultdict(list))
    threads = sorted({row["threads"] for row in rows})
    for row in rows:
        ratios[row[name], row["peer"]][row["threads"]].append(row["ratio"])
    head = [f"{n} thread{'s' if n > 1 else ''}" for n in threads]
    lines = [
        f"| {'case' if name == 'case' else ''} | peer | " + " | ".join(head) + " |",
        "| --- | --- |" + " --- |" * len(threads),
    ]
    for (case, peer), found in ratios.items():
        ends = ((min(found[n]), max(found[n])) if found[n] else () for n in threads)
        cells = ("–".join(dict.fromkeys(f"{x:.3g}" for x in some)) for some in ends)
        lines.append(f"| {case} | {peer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def digits(value):
    """A cell of a table: four digits, nothing for none."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else value


def thread_gains(case, peer, pairs):
    """What more threads than the fewest gain, in pairs of times that are neighbours.

    Parameters
    ----------
    case, peer : str
    pairs : dict of int to list
        Seconds of ours and the peer by the number of threads; the first of each were
        taken one after the other, and so on.

    Returns
    -------
    list of tuple
        Of ``threads.csv``: how many times faster ours is with more threads, and the
        peer; how many times larger that makes the ratio of their times, as median and
        quartiles.
    """
    fewest, *others = sorted(pairs)
    rows = []
    for n in others:
        gain = np.array(pairs[fewest]) / np.array(pairs[n])
        quartiles = np.quantile(gain[:, 0] / gain[:, 1], (0.5, 0.25, 0.75))
        medians = (*np.median(gain, axis=0), *quartiles)
        rows.append((case, peer, n, len(gain), *map(float, medians)))
    return rows


def _page(rows, gains):
    lines = [
        "# Ours and its peers",
        "",
        "Made by `python -m benchmarks`; `python -m benchmarks --help` says how. "
        f"{provenance()}. Times are medians of pairs taken in turn; the ratio is the "
        "median of the pairs' ratios, larger is better for us. Memory is that of a "
        "first call, the making of our tables included.",
        "",
        _HEADER,
        "|" + " --- |" * (_HEADER.count("|") - 1),
    ]
    for row in rows:
        low, high = row["spread"]
        cells = (
            row["case"],
            row["n_atoms"],
            row["threads"],
            f"{row['peer']} {row['peer_version']}",
            f"{1e3 * row['ours_s']:.3g}",
            f"{1e3 * row['peer_s']:.3g}",
            f"**{row['ratio']:.3g}** ({low:.3g}–{high:.3g})",
            _error(row["ours_error"]),
            _error(row["peer_error"]),
            f"{row['tolerance']:.0e}",
            f"{row['ours_mb']:.0f}",
            f"{row['peer_mb']:.0f}",
            f"{row['ours_size']}, {row['peer_size']}",
            row["pairs"],
            row["note"],
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", _bounds(rows)]
    if len({row["threads"] for row in rows}) > 1:
        lines += ["", "How many times faster, by the number of threads:", ""]
        lines.append(_ratios(rows))
    if gains:
        lines += [
            "",
            "What more threads gain: pairs of both numbers of threads were taken in "
            "turn, and each is compared with its neighbour (medians; quartiles).",
            "",
            "| case | peer | threads | pairs | ours | peer | ratio becomes larger by |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for case, peer, n, count, *found in gains:
            ours, theirs, change, low, high = (f"{x:.2f}" for x in found)
            change = f"**{change}** ({low}–{high})"
            words = (case, peer, str(n), str(count), ours, theirs, change)
            lines.append("| " + " | ".join(words) + " |")
    lines += [
        "",
        "The reference of each error, and how far the two codes are from each other if "
        "both are converged (large frames: a supercell of 64 charges):",
        "",
        "| case | peer | reference | ours from peer |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        words = (row["case"], row["peer"], row["reference"], _error(row["agreement"]))
        lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"


def exceeded(rows):
    """Cases whose error is larger than the tolerance that was asked for."""
    return [
        f"{row['case']}/{row['peer']}"
        for row in rows
        if row["bounded"] and row["ours_error"] > row["tolerance"]
    ]


def _bounds(rows):
    """Whether the tolerance bounds the error, in words."""
    wrong = exceeded(rows)
    if wrong:
        return f"**The error exceeds the tolerance in {', '.join(wrong)}.**"
    n = sum(row["bounded"] for row in rows)
    return f"The tolerance bounds the error in each of the {n} rows of descriptors."


def _error(value):
    return "" if value is None else f"{value:.1e}"


def _plot(folder, rows, points):
    """Time against atoms, and error against time."""
    figure, (growth, pareto) = axes_of(1, 2, figsize=(9, 3.8))
    colors = {"lode": COLORS[0], "featomic": COLORS[1]}
    for suffix, marker in (("", "o"), ("-narrow", "s")):
        label = "σ = 0.5 Å" if suffix else "σ = 1.0 Å"
        chosen = [
            r
            for r in rows
            if r["threads"] == 1 and r["case"] == f"lode-{r['n_atoms']}{suffix}"
        ]
        n_atoms = [r["n_atoms"] for r in chosen]
        for name, side in (("lode", "ours"), ("featomic", "peer")):
            seconds = [r[f"{side}_s"] for r in chosen]
            style = f"{marker}-" if suffix == "" else f"{marker}--"
            growth.loglog(
                n_atoms, seconds, style, color=colors[name], label=f"{name}, {label}"
            )
    growth.set(xlabel="atoms", ylabel="time / s", title="LODE, featomic's own accuracy")
    sizes = sorted({r["n_atoms"] for r in rows if r["case"] == f"lode-{r['n_atoms']}"})
    growth.set_xticks(sizes, [str(n) for n in sizes])
    growth.minorticks_off()
    for case, code in dict.fromkeys((p[0], p[1]) for p in points):
        some = [p for p in points if (p[0], p[1]) == (case, code)]
        style = "s--" if "narrow" in case else "o-"
        times, errors = [p[3] for p in some], [p[4] for p in some]
        label = f"{code}, σ = {'0.5' if 'narrow' in case else '1.0'} Å"
        pareto.loglog(times, errors, style, color=colors[code], label=label)
    pareto.set(xlabel="time / s", ylabel="largest relative error", title="64 charges")
    # The curves are the same on both sides.
    names = growth.get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=4, fontsize=8)
    for axes in (growth, pareto):
        axes.grid(alpha=0.3)
    save(figure, folder / "results")
    closed(figure)
