"""Time, error and memory of one case. Runs in a process of its own.

The number of threads is fixed by the environment before anything is imported.
"""

import importlib.metadata
import resource
import statistics
import time
from dataclasses import replace
from itertools import cycle

import numpy as np
import psutil

from benchmarks import codes
from benchmarks.cases import SMEARINGS, Growth

# Shortest measured stretch in seconds: short calculations are repeated within it, and
# threads that slept during the other code's have found their core.
_SHORTEST = 0.25
# More than the cells whose tables are kept: each call makes its own.
_N_FRAMES = 5
# A peer that takes longer sees one frame of each kind before, else all.
_LONG = 1.0
# Seconds of repeated calls of a large frame, and the largest whose error is measured.
_GROWTH_BUDGET = 10.0
_MOST_EXACT = 4000


def deviation(case, result, reference, frame):
    """Largest deviation from a reference, relative to the reference's largest."""
    exact = case.dense(reference, frame)
    return float(np.abs(case.dense(result, frame) - exact).max() / np.abs(exact).max())


def chosen_tolerance(case, reference, frame, peer_error, n_threads):
    """First tolerance at which our error is no larger than the peer's, and error.

    The first of all if the peer's is not known.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    for tolerance in case.tolerances:
        result = case.ours(tolerance, n_threads)(frame)
        error = deviation(case, result, reference, frame)
        if peer_error is None or error <= peer_error:
            return tolerance, error
    raise RuntimeError(f"no tolerance of {case.name} is as exact as {case.peer}")


def _calls(calculation, frames):
    """How often a calculation is called within a measured stretch."""
    start = time.perf_counter()
    calculation(frames[0])
    once = time.perf_counter() - start
    # Whole rounds of frames, so that all see the same work.
    rounds = max(1, round(_SHORTEST / (once * len(frames))))
    return rounds * len(frames) if once < _SHORTEST else 1


def _stretch(calculation, count, frames):
    """Seconds per call of some calls for one frame after the other of a cycle."""
    start = time.perf_counter()
    for _ in range(count):
        calculation(next(frames))
    return (time.perf_counter() - start) / count


class Comparison:
    """A case of ours and a peer, of which pairs of times are taken in turn: A B A B.

    Parameters
    ----------
    case : benchmarks.cases.Case
    threads : int
    """

    def __init__(self, case, threads):
        self.case, self.threads, self.pairs = case, threads, []
        warm, *self.frames = case.frames(1 + _N_FRAMES)
        frame = self.frames[0]
        theirs = case.theirs()
        theirs(warm)
        start = time.perf_counter()
        self.result = theirs(frame)
        once = time.perf_counter() - start
        reference, self.source = case.reference(frame, threads)
        self.peer_error = self.agreement = None
        if case.comparable:
            self.peer_error = deviation(case, self.result, reference, frame)
            self.agreement = deviation(case, *case.agreement(frame, threads), frame)
        asked = (reference, frame, self.peer_error, threads)
        self.tolerance, self.error = chosen_tolerance(case, *asked)
        ours = case.ours(self.tolerance, threads)
        for each in self.frames if once < _LONG else ():
            theirs(each)
        for each in (warm, *self.frames):
            ours(each)
        self.sides = ours, theirs
        self.counts = [_calls(side, self.frames) for side in self.sides]
        self.turns = [cycle(self.frames), cycle(self.frames)]

    def pair(self):
        """Seconds per call of both, one after the other."""
        turns = zip(self.sides, self.counts, self.turns, strict=True)
        seconds = [_stretch(*turn) for turn in turns]
        seconds[1] /= getattr(self.sides[1], "steps", 1)
        self.pairs.append(seconds)
        return seconds

    def row(self):
        """Columns of the results but for the memory, and what the table adds."""
        case, frame, pairs = self.case, self.frames[0], np.array(self.pairs)
        ratios = pairs[:, 1] / pairs[:, 0]
        seconds = [statistics.median(side) for side in pairs.T]
        return {
            "case": case.name,
            "title": case.title,
            "peer": case.peer,
            "peer_version": importlib.metadata.version(case.peer),
            "n_atoms": case.n_atoms,
            "threads": self.threads,
            "ours_s": seconds[0],
            "peer_s": seconds[1],
            "ratio": statistics.median(ratios),
            "ours_error": self.error,
            "peer_error": self.peer_error,
            "tolerance": self.tolerance,
            "bounded": case.bounded,
            "pairs": len(pairs),
            "spread": [float(x) for x in np.quantile(ratios, (0.25, 0.75))],
            "reference": self.source,
            "agreement": self.agreement,
            "ours_size": codes.numbers_per_atom(self.sides[0](frame), frame),
            "peer_size": codes.numbers_per_atom(self.result, frame),
            "note": case.note,
        }


def growth(case, side, threads):
    """Time, error and memory of one large frame, in columns of the results.

    The time is that of the processor, all threads together: other work on the machine
    does not enter. Must run in a fresh process, whose largest memory above that after
    the imports is taken.

    Parameters
    ----------
    case : benchmarks.cases.Growth
    side : {"ours", "peer"}
    threads : int

    Returns
    -------
    dict
        All columns for ours, those of the peer for the peer.
    """
    frame = case.frame()
    if side == "peer":
        calculation = case.theirs()
        # Tables are made, at the price of a small frame.
        calculation(replace(case, n_atoms=64).frame())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if side == "ours":
        calculation = case.ours(threads)
    seconds = []
    # Our first call compiles and makes tables.
    fewest = 2 if side == "ours" else 1
    while len(seconds) < fewest or (len(seconds) < 5 and sum(seconds) < _GROWTH_BUDGET):
        start = time.process_time()
        result = calculation(frame)
        seconds.append(time.process_time() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best, memory = min(seconds[fewest - 1 :]), (after - before) / 1024.0
    if side == "peer":
        version = importlib.metadata.version("featomic")
        peer = {"peer": "featomic", "peer_version": version}
        return peer | {"peer_s": best, "peer_mb": memory}
    error = None
    if case.n_atoms <= _MOST_EXACT:
        exact = codes.numbers(case.exact(threads)(frame))
        error = float(np.abs(codes.numbers(result) - exact).max() / np.abs(exact).max())
    return _row(case.name, case.n_atoms, threads, best, error) | {"ours_mb": memory}


def _row(name, n_atoms, threads, seconds, error):
    """Columns of the results without a peer and memory."""
    return dict.fromkeys(
        (
            "peer",
            "peer_version",
            "peer_s",
            "ratio",
            "peer_error",
            "peer_mb",
            "ours_mb",
        )
    ) | {
        "case": name,
        "n_atoms": n_atoms,
        "threads": threads,
        "ours_s": seconds,
        "ours_error": error,
    }


def too_large(case, memories):
    """Why the peer cannot take a frame, or nothing.

    Parameters
    ----------
    case : benchmarks.cases.Growth
    memories : dict of int to float
        MB that the peer took, by the number of atoms.

    Returns
    -------
    str
    """
    if not memories:
        return ""
    largest = max(memories)
    # Pairs of atoms.
    needed = memories[largest] * (case.n_atoms / largest) ** 2
    room = psutil.virtual_memory().available / 2**20
    if needed <= 0.9 * room:
        return ""
    return (
        f"featomic ends at {largest} atoms: {case.n_atoms} would take about "
        f"{needed / 1024:.0f} GB, {room / 1024:.0f} GB are free"
    )


def smearings(n_atoms, threads, repeats):
    """Time of the coefficients of a potential against its smearing, at one tolerance.

    Parameters
    ----------
    n_atoms, threads, repeats : int
        All smearings are taken in turn, so often at least.

    Returns
    -------
    list of dict
        Columns of the results.
    """
    tolerance = 1e-6
    frame = Growth(kind="expansion", n_atoms=n_atoms).frame()
    runs = [codes.lode_expansion(s, tolerance, threads) for s in SMEARINGS]
    results = [run(frame).values for run in runs]
    rounds, begin = [], time.perf_counter()
    # Other work on the machine lasts for longer than a small frame.
    while len(rounds) < repeats or (
        repeats > 1 and time.perf_counter() - begin < _GROWTH_BUDGET
    ):
        times = []
        for run in runs:
            start = time.process_time()
            run(frame)
            times.append(time.process_time() - start)
        rounds.append(times)
    rows = []
    columns = np.array(rounds).T
    for smearing, result, column in zip(SMEARINGS, results, columns, strict=True):
        error = None
        if n_atoms <= _MOST_EXACT:
            run = codes.lode_expansion(smearing, 1e-10, threads, method="split")
            exact = run(frame).values
            error = float(np.abs(result - exact).max() / np.abs(exact).max())
        name = f"smearing-{smearing:g}-{n_atoms}"
        rows.append(_row(name, n_atoms, threads, float(np.median(column)), error))
    return rows


def peak_memory(case, side, tolerance, threads):
    """Growth of the largest resident memory in MB over that after the imports.

    All the calculation makes is counted: tables, compiled code, result. Must run
    in a fresh process.
    """
    frame = case.frames(1)[0]
    calculation = case.ours(tolerance, threads) if side == "ours" else case.theirs()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calculation(frame)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) / 1024.0


def front(case, threads, repeats):
    """Time and error of both codes over a range of settings, taken in turn.

    Parameters
    ----------
    case : benchmarks.cases.Expansion
    threads, repeats : int

    Returns
    -------
    list of tuple
        case, code, setting, seconds, error.
    """
    frames = case.frames(_N_FRAMES)
    reference, _ = case.reference(frames[0], threads)
    runs = [
        ("lode", f"tolerance {t:g}", case.ours(t, threads))
        for t in case.tolerances[:17:3]
    ] + [
        (
            case.peer,
            f"k cutoff {c:g}/σ",
            codes.featomic_expansion(case.smearing, c, 1e-8),
        )
        for c in (3.0, 3.5, 4.0, 4.5, 5.0, 5.5)
    ]
    errors, turns = [], []
    for *_, calculation in runs:
        errors.append(deviation(case, calculation(frames[0]), reference, frames[0]))
        turns.append((calculation, _calls(calculation, frames), cycle(frames)))
    seconds = [[_stretch(*turn) for turn in turns] for _ in range(repeats)]
    medians = np.median(seconds, axis=0).tolist()
    return [
        (case.name, code, setting, median, error)
        for (code, setting, _), median, error in zip(runs, medians, errors, strict=True)
    ]
