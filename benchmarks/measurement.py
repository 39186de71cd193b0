"""Time, error and memory of one case. Runs in a process of its own.

The number of threads is fixed by the environment before anything is imported.
"""

import importlib.metadata
import resource
import statistics
import time
from itertools import cycle

import numpy as np

from benchmarks import codes

# Shortest measured stretch in seconds: short calculations are repeated within it.
_SHORTEST = 0.05
_N_FRAMES = 4
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

    Raises
    ------
    RuntimeError
        If there is none.
    """
    for tolerance in case.tolerances:
        if reference is None:
            return tolerance, None
        result = case.ours(tolerance, n_threads)(frame)
        error = deviation(case, result, reference, frame)
        if error <= peer_error:
            return tolerance, error
    raise RuntimeError(f"no tolerance of {case.name} is as exact as {case.peer}")


def paired_times(first, second, frames, repeats, budget):
    """Times of two calculations taken in turn: A B A B.

    Parameters
    ----------
    first, second : callable
        Functions of a frame, both called before.
    frames : sequence of ase.Atoms
        Taken in turn, the same ones for both.
    repeats : int
        Number of pairs.
    budget : float
        In seconds: no further pair after it, but at least three (or ``repeats``).

    Returns
    -------
    ndarray (n_pairs, 2)
        Seconds per call.
    """
    counts = []
    for calculation in (first, second):
        start = time.perf_counter()
        calculation(frames[0])
        once = time.perf_counter() - start
        # Whole rounds of frames, so that both see the same work.
        rounds = max(1, round(_SHORTEST / (once * len(frames))))
        counts.append(rounds * len(frames) if once < _SHORTEST else 1)
    frame = [cycle(frames), cycle(frames)]
    pairs = []
    begin = time.perf_counter()
    for pair in range(repeats):
        if pair >= 3 and time.perf_counter() - begin > budget:
            break
        seconds = []
        for side, calculation in enumerate((first, second)):
            start = time.perf_counter()
            for _ in range(counts[side]):
                calculation(next(frame[side]))
            seconds.append((time.perf_counter() - start) / counts[side])
        pairs.append(seconds)
    return np.array(pairs)


def measured(case, threads, repeats, budget):
    """Times and errors of one case.

    Parameters
    ----------
    case : benchmarks.cases.Case
    threads, repeats : int
    budget : float
        In seconds, for the timed pairs.

    Returns
    -------
    dict
        Columns of the results but for the memory, and what the table adds.
    """
    warm, *frames = case.frames(1 + _N_FRAMES)
    frame = frames[0]
    theirs = case.theirs()
    theirs(warm)
    start = time.perf_counter()
    result = theirs(frame)
    once = time.perf_counter() - start
    reference, source = case.reference(frame, threads)
    peer_error = None
    if reference is not None:
        peer_error = deviation(case, result, reference, frame)
    agreement = None
    if reference is not None:
        agreement = deviation(case, *case.agreement(frame, threads), frame)
    tolerance, error = chosen_tolerance(case, reference, frame, peer_error, threads)
    ours = case.ours(tolerance, threads)
    for each in frames if once < _LONG else ():
        theirs(each)
    for each in (warm, *frames):
        ours(each)
    pairs = paired_times(ours, theirs, frames, repeats, budget)
    pairs[:, 1] /= getattr(theirs, "steps", 1)
    seconds = [statistics.median(side) for side in pairs.T]
    return {
        "case": case.name,
        "peer": case.peer,
        "peer_version": importlib.metadata.version(case.peer),
        "n_atoms": case.n_atoms,
        "threads": threads,
        "ours_s": seconds[0],
        "peer_s": seconds[1],
        "ratio": statistics.median(pairs[:, 1] / pairs[:, 0]),
        "ours_error": error,
        "peer_error": peer_error,
        "tolerance": tolerance,
        "pairs": len(pairs),
        "spread": [
            float(x) for x in np.quantile(pairs[:, 1] / pairs[:, 0], (0.25, 0.75))
        ],
        "reference": source,
        "agreement": agreement,
        "ours_size": codes.numbers_per_atom(ours(frame), frame),
        "peer_size": codes.numbers_per_atom(result, frame),
        "note": case.note,
    }


def growth(case, threads):
    """Time, error and memory of one large frame, in columns of the results.

    The time is that of the processor, all threads together: other work on the machine
    does not enter. Must run in a fresh process, whose largest memory above that after
    the imports is taken.

    Parameters
    ----------
    case : benchmarks.cases.Growth
    threads : int

    Returns
    -------
    dict
    """
    frame = case.frame()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calculation = case.ours(threads)
    seconds = []
    # The first call compiles and makes tables.
    while len(seconds) < 2 or (len(seconds) < 5 and sum(seconds) < _GROWTH_BUDGET):
        start = time.process_time()
        result = calculation(frame)
        seconds.append(time.process_time() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = None
    if case.n_atoms <= _MOST_EXACT:
        # The other way, by products of matrices, which many atoms make too long.
        exact = case.ours(threads, tolerance=1e-10, method="split")(frame).values
        error = float(np.abs(result.values - exact).max() / np.abs(exact).max())
    return dict.fromkeys(
        ("peer", "peer_version", "peer_s", "ratio", "peer_error", "peer_mb")
    ) | {
        "case": case.name,
        "n_atoms": case.n_atoms,
        "threads": threads,
        "ours_s": min(seconds[1:]),
        "ours_error": error,
        "ours_mb": (after - before) / 1024.0,
    }


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
    """Time and error of both codes over a range of settings.

    Parameters
    ----------
    case : benchmarks.cases.Expansion
    threads, repeats : int

    Returns
    -------
    list of tuple
        case, code, setting, seconds, error.
    """
    warm, frame = case.frames(2)
    reference, _ = case.reference(frame, threads)
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
    rows = []
    for code, setting, calculation in runs:
        calculation(warm)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            result = calculation(frame)
            seconds.append(time.perf_counter() - start)
        error = deviation(case, result, reference, frame)
        rows.append((case.name, code, setting, statistics.median(seconds), error))
    return rows
