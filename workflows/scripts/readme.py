"""The generated table in the README."""

import os
from pathlib import Path

from csv_tables import (
    benchmark_rows,
    block_between,
    markers,
    table,
    with_block,
    write_table,
)
from job import started_job
from lode.files import atomic_write
from summary import FIGURES, NOTHING, STAND_IN, markdown_row

WRITER = "snakemake"


# What a verdict adds to ours.
_REMARKS = {"yes": "", "weaker": " (weaker than the paper's)", "no": " (not met)"}


def readme(path, summary_path, benchmarks):
    """Replace the generated table of the README.

    A table without stand-ins is not replaced by one with: the page stays as it is.

    Parameters
    ----------
    path : path_like
        The page; one that does not exist yet becomes the table alone.
    summary_path : path_like
        Table ``figure,claim,paper,ours,spread,data,met``.
    benchmarks : dict of str to sequence of path_like
        For each figure Snakemake's benchmark files of the rules behind it.

    Returns
    -------
    bool
        Whether the table was replaced.

    Raises
    ------
    ValueError
        If the page has not exactly one pair of markers.
    """
    path = Path(path)
    if path.exists():
        page = path.read_text(encoding="utf-8")
    else:
        page = "\n".join(markers(WRITER))
    times = {figure: duration(seconds(files)) for figure, files in benchmarks.items()}
    block = figure_table(table(summary_path), times)
    made = with_block(page, block, WRITER)
    old = block_between(page, WRITER)
    is_kept = STAND_IN in block and old.strip() != "" and STAND_IN not in old
    # Written in either case: Snakemake wants the page newer than what it is made of.
    with atomic_write(path) as temporary:
        temporary.write_text(page if is_kept else made, encoding="utf-8")
    return not is_kept


def figure_table(rows, times):
    """Markdown table: figure, target, data, time, paper, ours.

    Parameters
    ----------
    rows : sequence of dict
        Table ``figure,claim,paper,ours,spread,data,met``.
    times : dict of str to str
        For each figure how long its rules took.

    Returns
    -------
    str
    """
    columns = ["figure", "target", "data", "time", "paper", "ours"]
    lines = [markdown_row(columns), markdown_row(["---"] * len(columns))]
    seen = set()
    for row in rows:
        figure = row["figure"]
        head = [f"[{figure}](figures/{figure}.pdf)", f"`snakemake {figure}`"]
        head = (
            ["", "", "", ""] if figure in seen else [*head, row["data"], times[figure]]
        )
        seen.add(figure)
        ours = f"{row['claim']}: {row['ours']}"
        if row["spread"] != NOTHING:
            ours += f" ± {row['spread']}"
        ours += _REMARKS.get(row["met"], "")
        lines.append(markdown_row([*head, row["paper"], ours]))
    return "\n".join(lines)


def seconds(benchmarks):
    """Sum of the wall times in Snakemake's benchmark files.

    Parameters
    ----------
    benchmarks : sequence of path_like
        Tab-separated files with a column ``s``.

    Returns
    -------
    float
    """
    total = 0.0
    for path in benchmarks:
        total += sum(float(row["s"]) for row in benchmark_rows(path))
    return total


def times(path, benchmarks):
    """Write how long each job took, and its memory.

    Parameters
    ----------
    path : path_like
        Table to write: ``figure,job,seconds,memory_mb``, the longest of each figure
        first; memory is the largest resident set.
    benchmarks : dict of str to sequence of path_like
        As for :func:`readme`; a job is named by its place in the folder of all.
    """
    folder = os.path.commonpath([f for files in benchmarks.values() for f in files])
    rows = []
    for figure, files in benchmarks.items():
        jobs = []
        for file in map(Path, files):
            found = benchmark_rows(file)[0]
            name = file.relative_to(folder).with_suffix("").as_posix()
            jobs.append((float(found["s"]), name, found["max_rss"]))
        rows += [
            (figure, name, f"{time:.1f}", memory)
            for time, name, memory in sorted(jobs, reverse=True)
        ]
    write_table(path, ["figure", "job", "seconds", "memory_mb"], rows)


def duration(time):
    """Wall time in words.

    Parameters
    ----------
    time : float
        Seconds.

    Returns
    -------
    str

    Examples
    --------
    >>> duration(41.6), duration(252)
    ('42 s', '4 min')
    """
    return f"{time:.0f} s" if time < 100 else f"{time / 60:.0f} min"


if "snakemake" in globals():
    job = started_job(globals())
    benchmarks = {figure: job.input[figure] for figure in FIGURES}
    if not readme(job.output.page, job.input.summary, benchmarks):
        print("this run is on stand-ins: the table of published data stays in the page")
    times(job.output.times, benchmarks)
