"""Binding curves of dimers: rigid displacement, reference energies, their checks.

A curve is computed in one worker process; finished curves are kept in files, some
dimers in each, so that an interrupted run goes on where it was.
"""

import hashlib
import json
import math
import multiprocessing
import os
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lode.datasets.dimers import COULOMB, DECIMALS, separation
from lode.files import read_json, write_json

FAR = (10.0, 12.5, 15.0, 20.0, 25.0)
# From here on the charges of both molecules are held to be their own.
APART = 10.0
# From here on the energy of two ions is held to be that of their charges.
TAIL = 15.0


@dataclass(frozen=True)
class Exclusion:
    """A frame left out of a curve.

    Attributes
    ----------
    name, kind : str
        Of the dimer and of the frame.
    distance : float
        In Å.
    reason : str
        What failed.
    """

    name: str
    kind: str
    distance: float
    reason: str


@dataclass
class Curves:
    """Frames with interaction energies, frames left out, and charges' errors.

    Attributes
    ----------
    frames : list of ase.Atoms
        As :func:`displaced` makes them, with ``e_int_ev`` and, for two ions,
        ``charge_distance`` as well; by name, then by distance.
    excluded : list of Exclusion
        In the same order.
    charge_errors : list of float
        For each frame by how much the charge of its worse molecule is off, in e.
    """

    frames: list = field(default_factory=list)
    excluded: list = field(default_factory=list)
    charge_errors: list = field(default_factory=list)


def curve_distances(nearest, *, n_points=13, reach=8.0, span=1.0, far=FAR):
    """Distances of a binding curve, in Å.

    Parameters
    ----------
    nearest : float
        The first distance: that of the dimer as it is.
    n_points : int
        Points of the training range, even in their inverse.
    reach : float
        The training range ends here, or ``span`` beyond ``nearest`` if that is
        farther.
    span : float
        Least width of the training range.
    far : sequence of float
        Points beyond the training range; any inside it is left out.

    Returns
    -------
    list of (float, str)
        Ascending distances and their kinds, ``training`` or ``far``.

    Raises
    ------
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> [round(d, 3) for d, _ in curve_distances(4.0, n_points=3, far=[8, 10])]
    [4.0, 5.333, 8.0, 10.0]
    """
    if not (math.isfinite(nearest) and nearest > 0.0):
        raise ValueError(f"the nearest distance must be positive, got {nearest}")
    if n_points < 2:
        raise ValueError(f"n_points must be at least 2, got {n_points}")
    if not span > 0.0:
        raise ValueError(f"span must be positive, got {span}")
    end = max(reach, nearest + span)
    # The first point is the dimer as it is, to the last digit.
    inverse = np.linspace(1.0 / nearest, 1.0 / end, n_points)[1:]
    training = [nearest, *(1.0 / inverse).tolist()]
    beyond = sorted(float(d) for d in far if d > end)
    return [(d, "training") for d in training] + [(d, "far") for d in beyond]


def displaced(atoms, distance, kind):
    """A dimer with its second molecule moved along the line of the centroids.

    Parameters
    ----------
    atoms : ase.Atoms
        A dimer as in :mod:`lode.datasets.dimers`.
    distance : float
        New distance of the centroids in Å.
    kind : str
        Kept in ``info``, like ``distance``.

    Returns
    -------
    ase.Atoms
        Positions rounded to eight decimals; without the dimer's reference energy
        unless it is where it was.
    """
    n_atoms_a, length = atoms.info["n_atoms_a"], separation(atoms)
    moved = atoms.copy()
    line = moved.positions[n_atoms_a:].mean(axis=0)
    line -= moved.positions[:n_atoms_a].mean(axis=0)
    moved.positions[n_atoms_a:] += (distance / length - 1.0) * line
    if distance != length:
        moved.info.pop("e_int_ref_ev", None)
    moved.positions = np.round(moved.positions, DECIMALS)
    moved.info |= {"kind": kind, "distance": round(float(distance), DECIMALS)}
    return moved


def dimer_curve(atoms, engine, *, distances=None, charge_tolerance=0.02):
    """Interaction energies along one dimer's curve, with every check.

    The energy is that of the dimer less those of its molecules, which are rigid and
    computed once. A frame is left out if a calculation fails or its energy is not
    finite, and from 10 Å on if the charge of a molecule is off.

    Parameters
    ----------
    atoms : ase.Atoms
        A dimer as in :mod:`lode.datasets.dimers`.
    engine : Engine
        Source of energies and charges; see :mod:`lode.datasets.engines`.
    distances : dict, optional
        Settings of :func:`curve_distances`.
    charge_tolerance : float
        Largest error of a molecule's charge in e.

    Returns
    -------
    Curves
    """
    info, n_atoms_a = atoms.info, atoms.info["n_atoms_a"]
    points = curve_distances(separation(atoms), **(distances or {}))
    frames = [displaced(atoms, distance, kind) for distance, kind in points]
    molecules = [atoms[:n_atoms_a], atoms[n_atoms_a:]]
    charges = [info["charge_a"], info["charge_b"]]
    alone = engine.calculations(molecules, charges)
    faults = [
        f"molecule {label}: {fault}"
        for label, result in zip("ab", alone, strict=True)
        if (fault := _fault(result))
    ]
    curves = Curves()
    if faults:
        curves.excluded += [_excluded(frame, "; ".join(faults)) for frame in frames]
        return curves
    if all(charges):
        for frame in frames:
            frame.info["charge_distance"] = charge_distance(
                frame, alone[0].charges, alone[1].charges
            )
    results = engine.calculations(frames, [info["charge"]] * len(frames))
    for frame, result in zip(frames, results, strict=True):
        fault = _fault(result)
        if fault:
            curves.excluded.append(_excluded(frame, fault))
            continue
        on_a = float(np.sum(result.charges[:n_atoms_a]))
        on_b = float(np.sum(result.charges[n_atoms_a:]))
        error = max(abs(on_a - charges[0]), abs(on_b - charges[1]))
        # Written so that a charge that is no number is left out as well.
        if frame.info["distance"] >= APART and not error <= charge_tolerance:
            reason = (
                f"charge of a molecule off by {error:.3f} e, more than "
                f"{charge_tolerance:g} e"
            )
            curves.excluded.append(_excluded(frame, reason))
            continue
        energy = result.energy - alone[0].energy - alone[1].energy
        frame.info["e_int_ev"] = round(float(energy), DECIMALS)
        curves.frames.append(frame)
        curves.charge_errors.append(error)
    return curves


def charge_distance(atoms, charges_a, charges_b):
    """Distance of two ions' centres of charge, Σ q r / Σ q, in Å.

    An ion has no dipole about its centre of charge: E = q₁q₂/r holds in this r up to
    1/r³, in that of the centroids only up to 1/r².

    Parameters
    ----------
    atoms : ase.Atoms
        A dimer, the first ion in front.
    charges_a, charges_b : ndarray
        Atomic charges of each ion alone.

    Returns
    -------
    float

    Examples
    --------
    >>> from ase import Atoms
    >>> pair = Atoms("OHLi", [[0, 0, 0], [1, 0, 0], [5, 0, 0]])
    >>> charge_distance(pair, [-1.2, 0.2], [1.0])
    5.2
    """
    charges_a, charges_b = np.asarray(charges_a), np.asarray(charges_b)
    n = len(charges_a)
    center_a = charges_a @ atoms.positions[:n] / charges_a.sum()
    center_b = charges_b @ atoms.positions[n:] / charges_b.sum()
    return round(float(np.linalg.norm(center_a - center_b)), DECIMALS)


def tail_slope(distance, energy):
    """Slope of ln|E| against ln r: −1 for two charges.

    Parameters
    ----------
    distance, energy : sequence of float
        At least two distances, from 15 Å on.

    Returns
    -------
    float
        NaN with fewer than two points, or where an energy vanishes.

    Examples
    --------
    >>> round(tail_slope([15.0, 20.0, 25.0], [-4.0, -3.0, -2.4]), 6)
    -1.0
    """
    size = np.abs(np.asarray(energy, dtype=np.float64))
    if len(size) < 2 or not (size > 0.0).all():
        return math.nan
    x, y = np.log(np.asarray(distance, dtype=np.float64)), np.log(size)
    x = x - x.mean()
    return float(x @ y / (x @ x))


def _fault(result):
    """Why a calculation cannot be used; empty if it can."""
    if result.failure:
        return result.failure
    return "" if math.isfinite(result.energy) else "the energy is not finite"


def _excluded(frame, reason):
    where = (frame.info[key] for key in ("name", "kind", "distance"))
    return Exclusion(*where, " ".join(reason.split()))


def curve_energies(
    dimers,
    engine,
    folder,
    *,
    distances=None,
    charge_tolerance=0.02,
    n_processes=1,
    chunk_size=8,
    key="",
    progress=False,
):
    """Energies along the curves of many dimers, by worker processes, restartable.

    Processes and not threads: the libraries behind the engines keep their state in
    global variables. They are started afresh (``spawn``), so a script that calls
    this function needs the usual ``if __name__ == "__main__"``.

    Parameters
    ----------
    dimers : sequence of ase.Atoms
        As in :mod:`lode.datasets.dimers`.
    engine : Engine
        Source of energies and charges.
    folder : path_like
        Where finished chunks are kept. A chunk found there is used if it is whole
        and of the same dimers, engine, settings and ``key``.
    distances, charge_tolerance
        As for :func:`dimer_curve`.
    n_processes : int
        Worker processes, each with one thread.
    chunk_size : int
        Dimers in a chunk: what a process loses when it is killed.
    key : str
        Anything else that chunks depend on, such as a hash of the code.
    progress : bool
        Show a bar.

    Returns
    -------
    list of dict
        Plain data for :func:`joined_curves`, for each dimer in the order of names.

    Raises
    ------
    ModuleNotFoundError
        If the engine's program is not installed.
    RuntimeError
        If a worker process ends by itself; finished chunks are kept.
    OSError
        If a chunk cannot be written, for example on a full disk; likewise.
    """
    settings = {"distances": distances, "charge_tolerance": charge_tolerance}
    dimers = _by_name(dimers)
    chunks = [dimers[i : i + chunk_size] for i in range(0, len(dimers), chunk_size)]
    common = json.dumps([key, engine.name, engine.version, settings], sort_keys=True)
    folder = Path(folder).resolve()
    paths = [folder / f"{_fingerprint(chunk, common)}.json" for chunk in chunks]
    found = [_chunk(path) for path in paths]
    waiting = [i for i, results in enumerate(found) if results is None]
    bar = tqdm(
        total=len(dimers),
        initial=sum(len(c) for i, c in enumerate(chunks) if i not in set(waiting)),
        desc=f"Curves, {engine.name}",
        unit="dimer",
        disable=not progress,
    )
    with bar, tempfile.TemporaryDirectory() as scratch:
        pool = ProcessPoolExecutor(
            max(1, min(int(n_processes), len(waiting))),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_enter,
            initargs=(scratch,),
        )
        try:
            jobs = {
                pool.submit(_computed, chunks[i], engine, settings, paths[i]): i
                for i in waiting
            }
            for job in as_completed(jobs):
                found[jobs[job]] = job.result()
                bar.update(len(chunks[jobs[job]]))
        except BrokenProcessPool:
            raise RuntimeError(
                f"a process of {engine.name} ended by itself; finished chunks are kept "
                f"in {folder}, start again to go on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    return [curve for curves in found for curve in curves]


def reference_curves(dimers, engine, folder, *, distances=None, **settings):
    """Binding curves of many dimers, by worker processes, restartable.

    Parameters
    ----------
    dimers, engine, folder, distances, **settings
        As for :func:`curve_energies`, which raises errors likewise.

    Returns
    -------
    Curves
    """
    dimers = list(dimers)
    rows = curve_energies(dimers, engine, folder, distances=distances, **settings)
    return joined_curves(dimers, rows, distances)


def part_of(dimers, index, n_parts):
    """One of some parts of the dimers, nearly equal in number, in the order of names.

    Parameters
    ----------
    dimers : sequence of ase.Atoms
    index, n_parts : int

    Returns
    -------
    list of ase.Atoms
        None where there are fewer dimers than parts.
    """
    dimers = _by_name(dimers)
    start, stop = (k * len(dimers) // n_parts for k in (index, index + 1))
    return dimers[start:stop]


def _by_name(dimers):
    return sorted(dimers, key=lambda atoms: atoms.info["name"])


def _enter(scratch):
    """Set up a worker: one thread, and a folder for what a program leaves behind."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.chdir(scratch)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    """End this worker when its parent was killed: it would wait for jobs for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _computed(dimers, engine, settings, path):
    """Curves of the dimers of one chunk, written to its file."""
    curves = []
    for atoms in dimers:
        curve = dimer_curve(atoms, engine, **settings)
        rows = zip(curve.frames, curve.charge_errors, strict=True)
        keys = ("distance", "e_int_ev", "charge_distance")
        curves.append(
            {
                "points": [
                    [*(f.info.get(key) for key in keys), error] for f, error in rows
                ],
                "excluded": [[d.distance, d.reason] for d in curve.excluded],
            }
        )
    write_json(path, {"curves": curves})
    return curves


def _chunk(path):
    """Content of a finished chunk; None if there is none, or a damaged one."""
    try:
        return read_json(path)["curves"]
    except (FileNotFoundError, ValueError):
        return None


def _fingerprint(dimers, common):
    """Name for what a chunk is computed from."""
    digest = hashlib.sha256(common.encode())
    for atoms in dimers:
        digest.update(json.dumps(atoms.info, sort_keys=True).encode())
        digest.update(atoms.numbers.astype("<i8").tobytes())
        digest.update(atoms.positions.astype("<f8").tobytes())
    return digest.hexdigest()[:24]


def joined_curves(dimers, rows, distances=None):
    """Frames of all curves, from their numbers.

    Parameters
    ----------
    dimers : sequence of ase.Atoms
    rows : sequence of dict
        From :func:`curve_energies` of these, or of the parts of them one after the
        other, in the order of names.
    distances
        As for :func:`curve_energies`.

    Returns
    -------
    Curves

    Raises
    ------
    ValueError
        If there are not as many rows as dimers.
    """
    dimers = _by_name(dimers)
    if len(rows) != len(dimers):
        raise ValueError(f"rows must be of {len(dimers)} dimers, got {len(rows)}")
    curves = Curves()
    for atoms, row in zip(dimers, rows, strict=True):
        energies = {point[0]: point[1:] for point in row["points"]}
        reasons = dict(row["excluded"])
        for distance, kind in curve_distances(separation(atoms), **(distances or {})):
            frame = displaced(atoms, distance, kind)
            place = frame.info["distance"]
            if place in energies:
                energy, apart, error = energies[place]
                if apart is not None:
                    frame.info["charge_distance"] = apart
                frame.info["e_int_ev"] = energy
                curves.frames.append(frame)
                curves.charge_errors.append(error)
            else:
                curves.excluded.append(_excluded(frame, reasons[place]))
    return curves


def published_curves(frames):
    """Curves whose energies came with the data.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        With ``name``, ``distance`` and ``e_int_ev``.

    Returns
    -------
    Curves
        By name and distance; those without a finite energy are left out. Errors of
        charges are NaN: the data have no charges.
    """
    curves = Curves()
    place = [(frame.info["name"], frame.info["distance"]) for frame in frames]
    for i in sorted(range(len(frames)), key=place.__getitem__):
        if math.isfinite(frames[i].info["e_int_ev"]):
            curves.frames.append(frames[i])
            curves.charge_errors.append(math.nan)
        else:
            curves.excluded.append(_excluded(frames[i], "the energy is not finite"))
    return curves


def checks(curves):
    """What the curves say about their reference energies.

    Parameters
    ----------
    curves : Curves
        From :func:`reference_curves`.

    Returns
    -------
    dict of str to float
        Counts of dimers, frames and exclusions; ``mae_reference_ev``, the mean absolute
        difference from the dimers' own reference energies at their first distance;
        ``charge_error_apart_e``, the largest error of a molecule's charge from
        10 Å on; at the largest distance, ``tail_distance``, the mean and largest
        difference from q₁q₂/r for two charged molecules
        (``tail_charged_mean_ev``, ``tail_charged_max_ev``) and for one
        (``tail_single_mean_ev``, ``tail_single_max_ev``); the least, mean and largest
        slope of ln|E| from 15 Å on for two charged molecules
        (``tail_slope_min``, ``tail_slope_mean``, ``tail_slope_max``). For two charged
        molecules r is the distance of the centres of charge, or of the centroids where
        it is not known. A quantity without frames is NaN.
    """
    infos = [frame.info for frame in curves.frames]
    last = max((info["distance"] for info in infos), default=math.nan)
    references = [
        abs(info["e_int_ev"] - info["e_int_ref_ev"])
        for info in infos
        if "e_int_ref_ev" in info
    ]
    apart = [
        error
        for info, error in zip(infos, curves.charge_errors, strict=True)
        if info["distance"] >= APART
    ]
    tails = {"charged": [], "single": []}
    ends = {}
    for info in infos:
        product = info["charge_a"] * info["charge_b"]
        r = info.get("charge_distance", info["distance"])
        if info["distance"] == last and info["kind"] == "far":
            tail = abs(info["e_int_ev"] - COULOMB * product / r)
            tails["charged" if product else "single"].append(tail)
        if product and info["distance"] >= TAIL:
            ends.setdefault(info["name"], []).append((r, info["e_int_ev"]))
    slopes = [tail_slope(*zip(*points, strict=True)) for points in ends.values()]
    slopes = [slope for slope in slopes if math.isfinite(slope)]
    found = {
        "n_dimers": len({info["name"] for info in infos}),
        "n_frames": len(infos),
        "n_excluded": len(curves.excluded),
        "mae_reference_ev": _mean(references),
        "charge_error_apart_e": max(apart, default=math.nan),
        "tail_distance": last,
    }
    for name, values in tails.items():
        found[f"tail_{name}_mean_ev"] = _mean(values)
        found[f"tail_{name}_max_ev"] = max(values, default=math.nan)
    found["tail_slope_min"] = min(slopes, default=math.nan)
    found["tail_slope_mean"] = _mean(slopes)
    found["tail_slope_max"] = max(slopes, default=math.nan)
    return found


def _mean(values):
    return float(np.mean(values)) if values else math.nan
