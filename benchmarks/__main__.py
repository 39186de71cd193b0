"""Times of lode and of its peers, side by side: ``python -m benchmarks``.

Results: each case is run with ours and with the peer in turn (A B A B) in one
process, on the same frames and with the same number of threads; the ratio is the
median of the ratios of the pairs. Each number of threads has a process of its own, and
a pair of one follows a pair of the other: so what a second thread gains is known also
where the machine is now faster, now slower. Errors are relative to the largest number
of a converged reference, which for small frames is the peer's own. Ours runs at the
largest tolerance whose measured error is no larger than the peer's. Both codes are
called on another frame before, so that tables are made and code is compiled. Peak
memory is that of a process of its own, above what it held after its imports.

Growth: frames of up to tens of thousands of atoms, and smearings from 0.3 to 1 Å: time
of the processor, memory, error where it is known; featomic as far as its memory goes.

Roofline: what the matrix products reach beside ``dgemm``, and what a pair costs.
Latency: times of imports and of a first result.

Written: ``results``, ``growth``, ``roofline`` and ``latency`` as ``.csv`` and ``.md``,
plots of the first two as ``.pdf`` and ``.png``, ``front.csv`` (error against time),
``threads.csv`` (what more threads gain), and the tables of the README and of
``docs/performance.md``.
Every run replaces what it measures, so run all cases. The results of all take most of
an hour: with ``--resume`` a run goes on where one was stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.cases import (
    CASES,
    GROWTH_SIZES,
    SMEARING_SIZES,
    Expansion,
    Growth,
    growth_cases,
)
from lode.files import atomic_write

_FOLDER = Path(__file__).parent
# The quiet machine that the short ones need comes first.
_PARTS = ("results", "roofline", "latency", "growth")
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
        "cases",
        nargs="*",
        metavar="case",
        help=f"of the results, and only these; by default all of {', '.join(names)}",
    )
    parser.add_argument(
        "--only", nargs="+", choices=_PARTS, help="parts to run, by default all"
    )
    parser.add_argument("--all", action="store_true", help="also those of minutes each")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of timings")
    parser.add_argument(
        "--budget",
        type=float,
        default=30.0,
        help="seconds of timed pairs in a case and for a number of threads; at least "
        "three pairs are taken, unless fewer are asked for",
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="of the results"
    )
    parser.add_argument("--output", type=Path, default=_FOLDER, help="folder")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="take what a run of the results measured before it was stopped",
    )
    parser.add_argument("--no-front", action="store_true", help="no error against time")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        metavar="ATOMS",
        help="of the growth, instead of all systems and sizes of "
        + " ".join(map(str, GROWTH_SIZES)),
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    unknown = sorted(set(options.cases) - set(names))
    if unknown:
        parser.error(f"cases must be among {', '.join(names)}, got {unknown}")
    numbers = (options.repeats, *options.threads, *(options.sizes or ()))
    if min(numbers) < 1:
        parser.error("repeats, threads and sizes must be positive whole numbers")
    options.only = options.only or (_PARTS[:1] if options.cases else _PARTS)
    return options


def worker(request):
    """What one process was asked for, as lines of JSON on standard output."""
    from benchmarks import measurement

    threads = request["threads"]
    if request["task"] == "growth":
        case, side = Growth(**request["case"]), request["side"]
        print(json.dumps(measurement.growth(case, side, threads)))
        return
    if request["task"] == "roofline":
        from benchmarks import roofline

        roofline.write(request["folder"], request["repeats"], request["page"])
        return
    if request["task"] == "smearing":
        for n_atoms in request["sizes"]:
            rows = measurement.smearings(n_atoms, threads, request["repeats"])
            print(json.dumps(rows), flush=True)
        return
    if request["task"] == "memory":
        case = CASES[request["case"]]
        asked = case, request["side"], request["tolerance"], threads
        print(json.dumps(measurement.peak_memory(*asked)))
        return
    if request["task"] == "front":
        case = CASES[request["case"]]
        print(json.dumps(measurement.front(case, threads, request["repeats"])))
        return
    comparison = None
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            # Memory of the last one goes first.
            comparison = None
            comparison = measurement.Comparison(CASES[order], threads)
            answer = {}
        else:
            answer = comparison.pair() if order == "pair" else comparison.row()
        print(json.dumps(answer), flush=True)


class Worker:
    """A process with a number of threads that does what is asked for.

    Parameters
    ----------
    threads : int
    **request
        The task, and what it needs.
    """

    def __init__(self, threads, **request):
        environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))
        path = [str(_FOLDER.parent), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(path)
        request = json.dumps(request | {"threads": threads})
        self.command = [sys.executable, "-m", "benchmarks", "--worker", request]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(self.command, env=environment, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if error[0] is not None:
            self.process.kill()
        self.process.__exit__(*error)
        if error[0] is None and self.process.returncode:
            self.stopped()

    def stopped(self):
        """End the benchmarks."""
        raise SystemExit(f"benchmarks stopped: {' '.join(self.command)}")

    def answers(self):
        """What it prints."""
        for line in self.process.stdout:
            # Packages may print too.
            if line.startswith(("{", "[", "-")) or line[:1].isdigit():
                yield json.loads(line)

    def answer(self, order):
        """What it prints when it is given an order."""
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.stopped()
        for found in self.answers():
            return found
        return self.stopped()


def answers(threads, **request):
    """Run a worker; yield what it prints."""
    with Worker(threads, **request) as worker:
        yield from worker.answers()


def answer(threads, **request):
    """The only answer of a worker."""
    (found,) = answers(threads, **request)
    return found


def growth(options):
    """Time and memory against the number of atoms, each in a process of its own."""
    from benchmarks import measurement, report

    threads = min(options.threads)
    rows, peer_rows = [], {}
    peer_ends = "" if find_spec("featomic") else "featomic is not installed"
    for case in growth_cases(options.sizes):
        task = {"task": "growth", "case": vars(case)}
        row = answer(threads, side="ours", **task)
        if case.kind == "expansion" and not peer_ends:
            peer_ends = measurement.too_large(case, peer_rows)
            if not peer_ends:
                found = answer(threads, side="peer", **task)
                peer_rows[case.n_atoms] = found["peer_mb"]
                row |= found | {"ratio": found["peer_s"] / row["ours_s"]}
        rows.append(row)
        peer = f", peer {row['peer_s']:.3g} s" if row["peer_s"] else ""
        print(
            f"{row['case']:26} ours {row['ours_s']:.3g} s, {row['ours_mb']:.0f} MB"
            + peer,
            flush=True,
        )
    sizes = options.sizes or SMEARING_SIZES
    task = {"task": "smearing", "sizes": sizes, "repeats": options.repeats}
    for found in answers(threads, **task):
        rows += found
    report.write_growth(options.output, rows, peer_ends)


class Journal:
    """What a run has measured so far, kept in a file until all is there.

    Parameters
    ----------
    path : Path
    resume : bool
        Take what the file has; else it begins anew.
    """

    def __init__(self, path, resume):
        self.path, self.found = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume and path.exists():
            # The last line may be a part of one.
            whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
            entries = [json.loads(line) for line in whole.splitlines()]
            self.found = {tuple(key): value for key, value in entries}
        with atomic_write(path) as temporary:
            lines = [json.dumps([key, value]) for key, value in self.found.items()]
            temporary.write_text("".join(f"{line}\n" for line in lines))

    def measured(self, key, measure):
        """What is known of a key, or else is measured now.

        Parameters
        ----------
        key : tuple of str or int
        measure : callable
            Without arguments; gives what JSON can hold.
        """
        if key not in self.found:
            self.found[key] = measure()
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps([key, self.found[key]]) + "\n")
        return self.found[key]

    def end(self):
        """All is there, and written elsewhere."""
        self.path.unlink()


def compared(workers, index, options):
    """One case with each number of threads, in turn.

    Parameters
    ----------
    workers : dict of int to Worker
    index : int
        Of the case.
    options : argparse.Namespace

    Returns
    -------
    list of dict, list of list
        Rows of the results; for each number of threads the seconds of its pairs.
    """
    for worker in workers.values():
        worker.answer(index)
    pairs = {n: [] for n in workers}
    end = time.perf_counter() + options.budget * len(workers)
    for turn in range(options.repeats):
        if turn >= 3 and time.perf_counter() > end:
            break
        for n, worker in workers.items():
            pairs[n].append(worker.answer("pair"))
    rows = [worker.answer("row") for worker in workers.values()]
    for row in rows:
        print(
            f"{row['case']:22} {row['peer']:10} {row['threads']} thread(s): ours "
            f"{1e3 * row['ours_s']:.3g} ms, peer {1e3 * row['peer_s']:.3g} ms, "
            f"ratio {row['ratio']:.1f}",
            flush=True,
        )
    return rows, list(pairs.values())


def results(options):
    """Ours and each peer in turn."""
    threads = sorted(set(options.threads))
    chosen = []
    for index, case in enumerate(CASES):
        if case.name in options.cases or (
            not options.cases and (options.all or not case.slow)
        ):
            if find_spec(case.module) is None:
                print(f"{case.name}: left out, {case.peer} is not installed")
            elif threads[0] > case.most_threads:
                print(f"{case.name}: left out, {case.peer} runs on one thread")
            else:
                chosen.append(index)
    if not chosen:
        raise SystemExit("no case is left to time: what there is stays as it is")
    rows, gains, points = [], [], []
    journal = Journal(options.output / "results.part.jsonl", options.resume)
    with ExitStack() as stack:
        workers = {n: stack.enter_context(Worker(n, task="time")) for n in threads}
        for index in chosen:
            case = CASES[index]
            some = {n: w for n, w in workers.items() if n <= case.most_threads}
            key = ("time", case.name, case.peer, *some)
            measure = partial(compared, some, index, options)
            found, pairs = journal.measured(key, measure)
            rows += [row | {"index": index} for row in found]
            if len(some) > 1:
                gains.append(
                    (case.name, case.peer, dict(zip(some, pairs, strict=True)))
                )
    rows.sort(key=lambda row: threads.index(row["threads"]))
    # After the timed part, so that nothing runs beside it.
    for row in rows:
        for side in ("ours", "peer"):
            asked = {"case": row["index"], "side": side, "tolerance": row["tolerance"]}
            key = ("memory", side, row["case"], row["peer"], row["threads"])
            measure = partial(answer, row["threads"], task="memory", **asked)
            row[f"{side}_mb"] = journal.measured(key, measure)
    for index in () if options.no_front else chosen:
        case = CASES[index]
        if isinstance(case, Expansion) and case.in_front:
            asked = {"task": "front", "case": index, "repeats": 3}
            points += journal.measured(
                ("front", case.name), partial(answer, 1, **asked)
            )

    from benchmarks import report

    page = _page(options, "README.md")
    report.write(options.output, rows, points, gains, page=page)
    journal.end()
    wrong = report.exceeded(rows)
    if wrong:
        raise SystemExit(f"the error exceeds the tolerance in {', '.join(wrong)}")


def roofline(options):
    """What the matrix products reach beside dgemm, and what a pair costs."""
    page = _page(options, "docs/performance.md")
    folder, page = str(options.output), page and str(page)
    request = {"folder": folder, "page": page, "repeats": options.repeats}
    # It prints nothing.
    list(answers(1, task="roofline", **request))


def latency(options):
    """Times of imports and of a first result."""
    from benchmarks import latency

    latency.write(options.output, options.repeats)


def _page(options, name):
    """A page with numbers of ours, if this run is the one to write them."""
    whole = options.output == _FOLDER and not options.cases
    return _FOLDER.parent / name if whole else None


def main(words=None):
    """Run what the command line asks for."""
    options = arguments(words)
    if options.worker:
        worker(json.loads(options.worker))
        return
    parts = {
        "results": results,
        "growth": growth,
        "roofline": roofline,
        "latency": latency,
    }
    for name in options.only:
        print(f"{name}:", flush=True)
        parts[name](options)


if __name__ == "__main__":
    main()
