"""Times of lode and of its peers, side by side: ``python -m benchmarks``.

Each case is run with ours and with the peer in turn (A B A B) in one process, on the
same frames and with the same number of threads; the ratio is the median of the
ratios of the pairs. Errors are relative to the largest number of a converged
reference, which for frames of 64 charges is the peer's own. Ours runs at the largest
tolerance whose measured error is no larger than the peer's. Both codes are called
on another frame before, so that tables are made and code is compiled; times of a
first call are not compared. Peak memory is that of a process of its own, above what
it held after its imports.

``--growth`` measures frames of a thousand to tens of thousands of charges without a
peer: time of the processor, memory, error where it is known. Written: ``growth.csv``
with the columns of the results, ``growth.pdf`` and ``growth.png``.

Written otherwise: ``results.csv``, ``results.md``, ``front.csv`` (error against time),
``results.pdf`` and ``results.png``. Every run replaces them, so run all cases.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from benchmarks.cases import CASES, GROWTH_SIZES, Expansion, Growth

_FOLDER = Path(__file__).parent
_THREAD_VARIABLES = (
    "RAYON_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def arguments(words=None):
    """Parsed command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = list(dict.fromkeys(case.name for case in CASES))
    parser.add_argument(
        "cases", nargs="*", metavar="case", help=f"by default all of {', '.join(names)}"
    )
    parser.add_argument("--all", action="store_true", help="also those of minutes each")
    parser.add_argument("--repeats", type=int, default=15, help="pairs of timings")
    parser.add_argument(
        "--budget", type=float, default=30.0, help="seconds of timed pairs in a case"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--output", type=Path, default=_FOLDER, help="folder")
    parser.add_argument("--no-front", action="store_true", help="no error against time")
    parser.add_argument(
        "--growth",
        nargs="*",
        type=int,
        metavar="ATOMS",
        help="instead: time and memory against the number of atoms, by default "
        + " ".join(map(str, GROWTH_SIZES)),
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    unknown = sorted(set(options.cases) - set(names))
    if unknown:
        parser.error(f"cases must be among {', '.join(names)}, got {unknown}")
    if options.repeats < 1 or min(options.threads) < 1:
        parser.error("repeats and threads must be positive whole numbers")
    return options


def worker(request):
    """What one process was asked for, as lines of JSON on standard output."""
    from benchmarks import measurement

    threads = request["threads"]
    if request["task"] == "growth":
        case = Growth(order=request["order"], n_atoms=request["n_atoms"])
        print(json.dumps(measurement.growth(case, threads)))
        return
    chosen = [CASES[index] for index in request["cases"]]
    if request["task"] == "memory":
        side, tolerance = request["side"], request["tolerance"]
        print(json.dumps(measurement.peak_memory(chosen[0], side, tolerance, threads)))
        return
    for case in chosen:
        if request["task"] == "front":
            row = measurement.front(case, threads, request["repeats"])
        else:
            row = measurement.measured(
                case, threads, request["repeats"], request["budget"]
            )
        print(json.dumps(row), flush=True)


def answers(**request):
    """Run a worker with its environment set; yield what it prints."""
    count = str(request["threads"])
    environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, count)
    root = str(_FOLDER.parent)
    path = [root, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    command = [sys.executable, "-m", "benchmarks", "--worker", json.dumps(request)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            # Packages may print too.
            if line.startswith(("{", "[", "-")) or line[:1].isdigit():
                yield json.loads(line)
    if process.returncode:
        raise SystemExit(f"benchmarks stopped: {' '.join(command)}")


def growth(options):
    """Time and memory against the number of atoms, each in a process of its own."""
    rows = []
    for order in (1, 2):
        for n_atoms in options.growth or GROWTH_SIZES:
            for threads in options.threads:
                request = {"order": order, "n_atoms": n_atoms, "threads": threads}
                (row,) = answers(task="growth", **request)
                rows.append(row)
                print(
                    f"{row['case']:20} {threads} thread(s): {row['ours_s']:.3g} s, "
                    f"{row['ours_mb']:.0f} MB",
                    flush=True,
                )
    from benchmarks import report

    report.write_growth(options.output, rows)


def main(words=None):
    """Run what the command line asks for."""
    options = arguments(words)
    if options.worker:
        worker(json.loads(options.worker))
        return
    if options.growth is not None:
        growth(options)
        return
    chosen = []
    for index, case in enumerate(CASES):
        if case.name in options.cases or (
            not options.cases and (options.all or not case.slow)
        ):
            if find_spec(case.peer) is None:
                print(f"{case.name}: left out, {case.peer} is not installed")
            else:
                chosen.append(index)
    rows = []
    for threads in options.threads:
        cases = [i for i in chosen if threads <= CASES[i].most_threads]
        timed = answers(
            task="time",
            cases=cases,
            threads=threads,
            repeats=options.repeats,
            budget=options.budget,
        )
        for index, row in zip(cases, timed, strict=True):
            rows.append(row)
            print(
                f"{row['case']:22} {row['peer']:9} {threads} thread(s): ours "
                f"{1e3 * row['ours_s']:.3g} ms, peer {1e3 * row['peer_s']:.3g} ms, "
                f"ratio {row['ratio']:.1f}",
                flush=True,
            )
            row["index"] = index
        # After the timed part, so that nothing runs beside it.
        for row in rows[len(rows) - len(cases) :]:
            for side in ("ours", "peer"):
                row[f"{side}_mb"], *_ = answers(
                    task="memory",
                    cases=[row["index"]],
                    threads=threads,
                    side=side,
                    tolerance=row["tolerance"],
                )
    points = []
    if not options.no_front:
        small = [
            i for i in chosen if isinstance(CASES[i], Expansion) and CASES[i].in_front
        ]
        for found in answers(task="front", cases=small, threads=1, repeats=3):
            points += found

    from benchmarks import report

    report.write(options.output, rows, points)


if __name__ == "__main__":
    main()
