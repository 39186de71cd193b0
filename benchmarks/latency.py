"""Seconds until the package is there and until it has given a first result.

Each program is a Python process of its own. The compiled code is in the cache, which
a round before the timed ones fills, and the files are in memory. Rounds run all
programs one after the other, so that a slow minute of the machine meets all of them.

Written: ``latency.csv`` and ``latency.md``.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import digits, provenance
from lode.files import atomic_write
from workflows.scripts.csv_tables import write_table

COLUMNS = (
    "program",
    # Median, from the start of the process to its end.
    "seconds",
    # Over that of Numba's import, median of the rounds' ratios.
    "ratio",
    # The same with the bare start of Python taken off both.
    "net_ratio",
    "rounds",
)
PROGRAMS = {
    "bare start": "pass",
    "import numba": "import numba",
    "import lode": "import lode",
    "import lode.invariants": "import lode.invariants",
    "first power spectrum": """
import lode
from ase.build import bulk

frame = bulk("NaCl", "rocksalt", a=5.6)
coulomb = lode.PowerLawPotential(exponent=1, smearing=1.0)
basis = lode.RadialBasis.gto(max_radial=8, cutoff=3.0)
potential = lode.SphericalExpansion(coulomb, basis, max_angular=6)
print(lode.PowerSpectrum(potential).compute(frame).values.shape)
""",
}

_ROOT = Path(__file__).parent.parent


def seconds(program):
    """Wall time of a process from its start to its end.

    Parameters
    ----------
    program : str
        Python code.

    Returns
    -------
    float

    Raises
    ------
    subprocess.CalledProcessError
        If it does not end well.
    """
    path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-c", program]
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def rows(n_repeats):
    """Times of all programs.

    Parameters
    ----------
    n_repeats : int
        Rounds.

    Returns
    -------
    list of dict
        With the keys ``COLUMNS``.
    """
    for program in PROGRAMS.values():
        seconds(program)
    rounds = [
        {name: seconds(program) for name, program in PROGRAMS.items()}
        for _ in range(n_repeats)
    ]
    found = []
    for name in PROGRAMS:
        ratios = [r[name] / r["import numba"] for r in rounds]
        net = [
            (r[name] - r["bare start"]) / (r["import numba"] - r["bare start"])
            for r in rounds
        ]
        values = (
            statistics.median(r[name] for r in rounds),
            statistics.median(ratios),
            statistics.median(net),
        )
        found.append(dict(zip(COLUMNS, (name, *values, n_repeats), strict=True)))
    return found


def write(folder, n_repeats=15):
    """Measure, and write ``latency.csv`` and ``latency.md``.

    Parameters
    ----------
    folder : path_like
    n_repeats : int

    Returns
    -------
    list of dict
        The rows.
    """
    folder = Path(folder)
    found = rows(n_repeats)
    table = [[digits(row[name]) for name in COLUMNS] for row in found]
    write_table(folder / "latency.csv", COLUMNS, table)
    with atomic_write(folder / "latency.md") as path:
        path.write_text(_page(found), encoding="utf-8")
    return found


def _page(found):
    lines = [
        "# From the start to a first result",
        "",
        "Made by `benchmarks/latency.py`, which says how. "
        f"{provenance()}. Wall times of whole processes, compiled "
        f"code in the cache: medians of {found[0]['rounds']} rounds.",
        "",
        "| program | s | over `import numba` | the same, net of the bare start |",
        "| --- | --- | --- | --- |",
    ]
    for row in found:
        cells = (
            row["program"],
            f"{row['seconds']:.3f}",
            f"{row['ratio']:.2f}",
            f"{row['net_ratio']:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
