"""Tables and plots of the results. Times are not measured here."""

import os
import platform

import numpy as np

from lode.files import replacement, write_table

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
_GROWTH_FROM = 4000
_FRONT = ("case", "code", "setting", "seconds", "error")
_HEADER = (
    "| case | atoms | threads | peer | ours, ms | peer, ms | ratio (quartiles) | "
    "our error | its error | our tolerance | ours, MB | peer, MB | "
    "numbers an atom: ours, peer | pairs | |"
)


def write(folder, rows, points):
    """Write ``results.csv``, ``results.md``, ``front.csv`` and the plots.

    Parameters
    ----------
    folder : Path
    rows : list of dict
        From :func:`benchmarks.measurement.measured`, with the memory.
    points : list of sequence
        From :func:`benchmarks.measurement.front`.
    """
    table = [[_digits(row[name]) for name in COLUMNS] for row in rows]
    write_table(folder / "results.csv", COLUMNS, table)
    with replacement(folder / "results.md") as path:
        path.write_text(_page(rows))
    if points:
        write_table(
            folder / "front.csv", _FRONT, [[_digits(x) for x in row] for row in points]
        )
        _plot(folder, rows, points)


def write_growth(folder, rows):
    """Write ``growth.csv`` and its plots.

    Parameters
    ----------
    folder : Path
    rows : list of dict
        From :func:`benchmarks.measurement.growth`.
    """
    table = [[_digits(row[name]) for name in COLUMNS] for row in rows]
    write_table(folder / "growth.csv", COLUMNS, table)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    threads = min(row["threads"] for row in rows)
    for order, marker in ((1, "s"), (2, "o")):
        chosen = [
            (r["n_atoms"], r["ours_s"], r["ours_mb"])
            for r in rows
            if r["case"].startswith(f"growth-lode{order}-") and r["threads"] == threads
        ]
        n_atoms, seconds, megabytes = np.array(chosen).T
        # A small frame may need no more than the imports did.
        megabytes = np.maximum(megabytes, 1.0)
        label = f"LODE({order})"
        exponent = growth_exponent(n_atoms, seconds)
        if exponent is not None:
            label += f", $N^{{{exponent:.2f}}}$ from {_GROWTH_FROM} on"
        time.loglog(n_atoms, seconds, f"{marker}-", label=label)
        memory.loglog(n_atoms, megabytes, f"{marker}-", label=f"LODE({order})")
    time.set(
        xlabel="atoms",
        ylabel="processor time / s",
        title=f"n = 4, l = 4, tolerance $10^{{-6}}$, threads: {threads}",
    )
    memory.set(xlabel="atoms", ylabel="memory / MB", title="peak above the imports")
    for axes in (time, memory):
        axes.set_xticks(n_atoms, [f"{n:.0f}" for n in n_atoms], rotation=45)
        axes.minorticks_off()
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        with replacement((folder / "growth").with_suffix(suffix)) as path:
            figure.savefig(path, metadata=metadata, dpi=150)
    plt.close(figure)


def growth_exponent(n_atoms, seconds):
    """Fitted a of time ∝ N^a over the large frames; none if they are fewer than two."""
    large = np.asarray(n_atoms) >= _GROWTH_FROM
    if large.sum() < 2:
        return None
    logarithms = (np.log(np.asarray(x)[large]) for x in (n_atoms, seconds))
    return float(np.polyfit(*logarithms, 1)[0])


def _digits(value):
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else value


def _page(rows):
    lines = [
        "# Ours and its peers",
        "",
        "Made by `python -m benchmarks`; `python -m benchmarks --help` says how. "
        f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, load average {os.getloadavg()[1]:.1f} over the "
        "last five minutes (about 1 if quiet). Times are medians of pairs taken in "
        "turn; the ratio is the median of the pairs' ratios, larger is better "
        "for us. Memory is that of a first call, the making of our tables included.",
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


def _error(value):
    return "" if value is None else f"{value:.1e}"


def _plot(folder, rows, points):
    """Time against atoms, and error against time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (growth, pareto) = plt.subplots(
        1, 2, figsize=(9, 3.8), layout="constrained"
    )
    for suffix, marker in (("", "o"), ("-narrow", "s")):
        label = "σ = 0.5 Å" if suffix else "σ = 1.0 Å"
        chosen = [
            r
            for r in rows
            if r["threads"] == 1 and r["case"] == f"lode-{r['n_atoms']}{suffix}"
        ]
        n_atoms = [r["n_atoms"] for r in chosen]
        for name, side, color in (("lode", "ours", "C0"), ("featomic", "peer", "C1")):
            seconds = [r[f"{side}_s"] for r in chosen]
            style = f"{marker}-" if suffix == "" else f"{marker}--"
            growth.loglog(
                n_atoms, seconds, style, color=color, label=f"{name}, {label}"
            )
    sizes = sorted({r["n_atoms"] for r in rows if r["case"].startswith("lode-")})
    growth.set_xticks(sizes, [str(n) for n in sizes])
    growth.minorticks_off()
    growth.set(xlabel="atoms", ylabel="time / s", title="LODE, featomic's own accuracy")
    for case, code in dict.fromkeys((p[0], p[1]) for p in points):
        some = [p for p in points if (p[0], p[1]) == (case, code)]
        color = "C0" if code == "lode" else "C1"
        style = "s--" if "narrow" in case else "o-"
        times, errors = [p[3] for p in some], [p[4] for p in some]
        label = f"{code}, σ = {'0.5' if 'narrow' in case else '1.0'} Å"
        pareto.loglog(times, errors, style, color=color, label=label)
    pareto.set(xlabel="time / s", ylabel="largest relative error", title="64 charges")
    for axes in (growth, pareto):
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        with replacement((folder / "results").with_suffix(suffix)) as path:
            figure.savefig(path, metadata=metadata, dpi=150)
    plt.close(figure)
