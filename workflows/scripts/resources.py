"""Memory and run time that the rules ask of a cluster, from what they have taken.

``python workflows/scripts/resources.py results/benchmarks profiles/slurm/config.yaml``
reads Snakemake's benchmark files and renews the block ``set-resources`` at the end of
the profile, where each rule that has run asks for what its largest and its longest job
took, times a safety factor.
"""

import argparse
import math
import re
from pathlib import Path

import yaml

from csv_tables import benchmark_rows
from lode.files import write_text

RULES = Path(__file__).parents[1] / "rules"
# A sampled peak: Snakemake looks twice a second at first, then twice a minute.
MEMORY_FACTOR = 2.0
# A slower or a shared machine.
TIME_FACTOR = 4.0
# What each job needs before it begins, in MB and minutes: the interpreter with its
# libraries and, the first on a machine, compiled loops.
LEAST_MEMORY = 500
LEAST_TIME = 5

_RULE = re.compile(r"^(?:rule|checkpoint) (\w+):$", flags=re.MULTILINE)
_BENCHMARK = re.compile(r'^    benchmark:\n +"<benchmarks>/(.+)"$', flags=re.MULTILINE)
_BLOCK = "set-resources:\n"


def benchmark_patterns(folder=RULES):
    """Where each rule writes its benchmarks.

    Parameters
    ----------
    folder : path_like
        Rule files.

    Returns
    -------
    dict of str to str
        Path in the folder of all benchmarks, with wildcards, by rule.
    """
    patterns = {}
    for file in sorted(Path(folder).glob("*.smk")):
        _, *parts = _RULE.split(file.read_text(encoding="utf-8"))
        for rule, text in zip(parts[::2], parts[1::2], strict=True):
            found = _BENCHMARK.search(text)
            if found:
                patterns[rule] = found[1]
    return patterns


def measured(folder, patterns):
    """What the jobs of each rule took at most.

    Parameters
    ----------
    folder : path_like
        Of all benchmarks.
    patterns : dict of str to str
        From :func:`benchmark_patterns`.

    Returns
    -------
    dict of str to (float, float)
        Resident memory in MB and seconds, by rule; rules that have not run are left
        out.

    Raises
    ------
    ValueError
        If a file is not a whole benchmark file, or no rule has one.
    """
    found = {}
    for rule, pattern in sorted(patterns.items()):
        files = sorted(Path(folder).glob(re.sub(r"\{\w+\}", "*", pattern)))
        rows = [row for file in files for row in benchmark_rows(file)]
        if rows:
            memory = max(_number(row["max_rss"]) for row in rows)
            found[rule] = memory, max(_number(row["s"]) for row in rows)
    if not found:
        raise ValueError(f"{folder} must hold benchmark files of the rules, got none")
    return found


def requests(taken):
    """What rules ask for.

    Parameters
    ----------
    taken : dict of str to (float, float)
        From :func:`measured`.

    Returns
    -------
    dict of str to dict
        ``mem_mb`` in steps of 100 and ``runtime`` in minutes, by rule.

    Examples
    --------
    >>> requests({"features": (810.0, 200.0)})
    {'features': {'mem_mb': 1700, 'runtime': 14}}
    """
    return {
        rule: {
            "mem_mb": max(LEAST_MEMORY, 100 * math.ceil(MEMORY_FACTOR * memory / 100)),
            "runtime": max(LEAST_TIME, math.ceil(TIME_FACTOR * seconds / 60)),
        }
        for rule, (memory, seconds) in taken.items()
    }


def update_profile(path, asked):
    """Renew the block ``set-resources`` at the end of a profile.

    Rules that were not measured keep what they have there.

    Parameters
    ----------
    path : path_like
        The profile.
    asked : dict of str to dict
        From :func:`requests`.

    Raises
    ------
    ValueError
        If the profile has no such block, or more than one.
    """
    head, *rest = Path(path).read_text(encoding="utf-8").split(f"\n{_BLOCK}")
    if len(rest) != 1:
        raise ValueError(
            f"{path} must have one line {_BLOCK.strip()!r}, the last of its keys, got "
            f"{len(rest)}"
        )
    known = (yaml.safe_load(rest[0]) or {}) | asked
    lines = [
        f"  {rule}: {{{', '.join(f'{key}: {n}' for key, n in own.items())}}}\n"
        for rule, own in sorted(known.items())
    ]
    write_text(path, f"{head}\n{_BLOCK}{''.join(lines)}")


def _number(text):
    """A number of a benchmark file; a job that ended too soon has no memory."""
    return 0.0 if text in ("-", "NA") else float(text)


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("benchmarks", help="folder of Snakemake's benchmark files")
    parser.add_argument("profile", help="profile to change")
    given = parser.parse_args(arguments)
    taken = measured(given.benchmarks, benchmark_patterns())
    update_profile(given.profile, requests(taken))
    for rule, (memory, seconds) in taken.items():
        print(f"{rule}: {memory:.0f} MB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
