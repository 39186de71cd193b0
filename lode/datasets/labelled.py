"""Structures of one's own with a target to learn, and what is strange about them."""

from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import vesin
from ase.data import chemical_symbols, covalent_radii

from lode.datasets.frames import read_frames
from lode.systems import structures

# Suffixes that our own reader takes, which notices what is cut off.
_EXTENDED_XYZ = (".xyz", ".extxyz")
# Numbers that a target may have: scalar, vector, tensor.
_COMPONENTS = (1, 3, 9)
# Fewer structures teach nothing.
_LEAST = 10
# Atoms closer than this part of the sum of their covalent radii are said, and those
# within so many Å of each other refused.
_CLOSE, _SAME_PLACE = 0.6, 1e-3
# Copies of a structure differ by rounding in a file (Å).
_SAME = 1e-5
# Targets so many robust standard deviations from the median are outliers, forces beyond
# so many eV/Å.
_OUTLIER, _LARGE_FORCE = 8.0, 50.0
# A robust standard deviation from the median absolute deviation of a Gaussian.
_GAUSSIAN = 1.4826
# Frames that a message names.
_NAMED = 5


@dataclass(frozen=True)
class Labelled:
    """Structures with targets.

    Attributes
    ----------
    frames : list of ase.Atoms
        Without calculators.
    values : ndarray (n_frames, 1, 3 or 9)
        The target of each frame as it stands in the file.
    forces : list of (ndarray (n_atoms, 3) or None), or None
        In eV/Å; None if no frame has any.
    remarks : list of str
        What is strange, one sentence each; empty if nothing is.
    """

    frames: list
    values: np.ndarray
    forces: list | None
    remarks: list

    @property
    def n_atoms(self):
        """Number of atoms of each frame."""
        return np.array([len(atoms) for atoms in self.frames])


def read_labelled(path, target, forces=None):
    """Structures and targets of any file that ASE reads, checked.

    Structures that occur twice are kept once.

    Parameters
    ----------
    path : path_like
        The file.
    target : str
        What to learn: ``energy``, or the name of a number, a vector or a tensor in
        ``info`` or among the results of each frame.
    forces : str, optional
        Name of the forces, in ``arrays`` or among the results.

    Returns
    -------
    Labelled

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read, there are fewer than ten different structures, a
        structure is faulty, atoms are at the same place, or targets are missing, not
        finite or all the same.
    """
    frames = _read(path)
    structures(frames)
    values = _targets(frames, target, path)
    found = None if forces is None else _forces(frames, forces, path)
    close = _close_atoms(frames, path)
    kept, doubled = _distinct(frames, values, target)
    remarks = close + doubled
    frames = [frames[i] for i in kept]
    values = values[kept]
    if len(frames) < _LEAST:
        raise ValueError(
            f"{path} must hold at least {_LEAST} different structures, got "
            f"{len(frames)}"
        )
    if found is not None:
        found = [found[i] for i in kept]
        n = sum(own is not None for own in found)
        if n < len(found):
            remarks.append(f"forces are in {n} of {len(found)} frames")
        remarks += _large_forces(found)
    for atoms in frames:
        atoms.calc = None
    if not np.ptp(values, axis=0).any():
        raise ValueError(
            f"{target} must differ between frames, got {values[0].tolist()} in all"
        )
    if values.shape[1] == 1:
        remarks += _outliers(frames, values[:, 0], target)
    if values.shape[1] == 9:
        remarks += _asymmetric(values, target)
    return Labelled(frames, values, found, remarks)


def _read(path):
    """Frames of a file, by the reader that suits its name."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"data must be a file of structures, got {path}")
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix in _EXTENDED_XYZ:
        return read_frames(path)
    try:
        return ase.io.read(path, ":")
    except Exception as error:
        # ASE's readers raise errors of all kinds.
        raise ValueError(
            f"{path} must be a file that ASE reads, got {type(error).__name__}: {error}"
        ) from None


def _value(atoms, name):
    """A target of one frame, None if it has none."""
    results = {} if atoms.calc is None else atoms.calc.results
    return results.get(name, atoms.info.get(name))


def _targets(frames, target, path):
    found = [_value(atoms, target) for atoms in frames]
    missing = [i for i, value in enumerate(found) if value is None]
    if missing:
        known = set(frames[missing[0]].info)
        if frames[missing[0]].calc is not None:
            known |= set(frames[missing[0]].calc.results)
        raise ValueError(
            f"{path} must have {target!r} in each frame, got none in {_some(missing)} "
            f"of {len(frames)}; these have {sorted(known)}"
        )
    try:
        values = [np.asarray(value, dtype=float).ravel() for value in found]
    except (TypeError, ValueError):
        raise ValueError(f"{target} must be numbers, got {found[0]!r}") from None
    sizes = sorted({len(value) for value in values})
    if len(sizes) > 1 or sizes[0] not in _COMPONENTS:
        raise ValueError(
            f"{target} must be one, three or nine numbers in all frames, got {sizes}"
        )
    values = np.array(values)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
    if bad:
        raise ValueError(
            f"{target} must be finite, got {values[bad[0]].tolist()} in {_some(bad)}"
        )
    return values


def _forces(frames, name, path):
    """Forces of each frame, None where there are none, None if nowhere."""
    found = []
    for i, atoms in enumerate(frames):
        results = {} if atoms.calc is None else atoms.calc.results
        own = results.get(name, atoms.arrays.get(name))
        if own is not None:
            own = np.asarray(own, dtype=float)
            if own.shape != (len(atoms), 3) or not np.isfinite(own).all():
                raise ValueError(
                    f"{path}: {name} must be finite and of shape ({len(atoms)}, 3), "
                    f"got shape {own.shape} (frame {i})"
                )
        found.append(own)
    return found if any(own is not None for own in found) else None


def _close_atoms(frames, path):
    """Remarks on atoms that overlap; atoms at the same place are refused."""
    close = []
    for frame, atoms in enumerate(frames):
        radii = covalent_radii[atoms.numbers]
        i, j, d = vesin.ase_neighbor_list("ijd", atoms, 2.0 * radii.max())
        if len(d) == 0:
            continue
        if d.min() < _SAME_PLACE:
            k = d.argmin()
            raise ValueError(
                f"{path}: atoms must be apart, got atoms {i[k]} and {j[k]} at the same "
                f"place (frame {frame})"
            )
        share = d / (radii[i] + radii[j])
        if share.min() < _CLOSE:
            close.append((d[share.argmin()], frame))
    if not close:
        return []
    least, frame = min(close)
    return [
        f"atoms overlap in {_some([f for _, f in close])}, the closest at {least:.2f} "
        f"Å (frame {frame})"
    ]


def _distinct(frames, values, target):
    """Places of structures without their copies, and remarks on these."""
    first, kept, copies, apart = {}, [], [], 0.0
    for i, atoms in enumerate(frames):
        cell = atoms.cell.array[atoms.pbc]
        steps = np.concatenate([atoms.positions, cell]) / _SAME
        key = (
            *(tuple(atoms.numbers.tolist()), tuple(atoms.pbc.tolist())),
            np.round(steps).astype(np.int64).tobytes(),
        )
        place = first.setdefault(key, i)
        if place == i:
            kept.append(i)
        else:
            copies.append(i)
            apart = max(apart, float(abs(values[i] - values[place]).max()))
    if not copies:
        return kept, []
    copy = "is a copy" if len(copies) == 1 else "are copies"
    remark = f"{_some(copies)} {copy} of what comes before, and left out"
    if apart > 0.0:
        remark += f", although the {target} differs by up to {apart:.3g}"
    return kept, [remark]


def composition_residual(frames, values):
    """What the numbers of atoms of each species do not explain of a target per atom.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Structures.
    values : array_like (n_frames,)
        A value per atom of each.

    Returns
    -------
    ndarray (n_frames,)
        Differences to the least-squares fit by shares of the species.
    """
    numbers = np.unique(np.concatenate([atoms.numbers for atoms in frames]))
    shares = np.array(
        [[np.mean(atoms.numbers == z) for z in numbers] for atoms in frames]
    )
    values = np.asarray(values, dtype=float)
    fit, *_ = np.linalg.lstsq(shares, values, rcond=None)
    return values - shares @ fit


def _outliers(frames, values, target):
    """A remark on scalars that are far from the others of their composition."""
    n_atoms = np.array([len(atoms) for atoms in frames])
    per_atom = values / n_atoms if len(set(n_atoms.tolist())) > 1 else values
    residual = composition_residual(frames, per_atom)
    residual = residual - np.median(residual)
    width = _GAUSSIAN * np.median(abs(residual))
    far = np.flatnonzero(abs(residual) > _OUTLIER * width) if width > 0.0 else []
    if len(far) == 0:
        return []
    worst = int(np.argmax(abs(residual)))
    return [
        f"{target} is an outlier in {_some(far)}, the farthest "
        f"{abs(residual[worst]) / width:.0f} standard deviations from the others "
        f"(frame {worst}, {frames[worst].get_chemical_formula()})"
    ]


def _large_forces(forces):
    largest = [0.0 if own is None else float(abs(own).max()) for own in forces]
    large = [i for i, value in enumerate(largest) if value > _LARGE_FORCE]
    if not large:
        return []
    return [f"forces are as large as {max(largest):.0f} eV/Å in {_some(large)}"]


def _asymmetric(values, target):
    tensors = values.reshape(-1, 3, 3)
    apart = abs(tensors - tensors.transpose(0, 2, 1)).max()
    if apart <= 1e-6 * abs(tensors).max():
        return []
    return [
        f"{target} is not symmetric, by up to {apart:.3g}: the antisymmetric part is "
        "not learnt"
    ]


def described(frames):
    """What structures these are, in one sentence.

    Parameters
    ----------
    frames : sequence of ase.Atoms

    Returns
    -------
    str
    """
    sizes = [len(atoms) for atoms in frames]
    species = sorted({int(z) for atoms in frames for z in set(atoms.numbers)})
    kinds = {0: "finite", 1: "wires", 2: "slabs", 3: "periodic"}
    count = dict.fromkeys(kinds.values(), 0)
    for atoms in frames:
        count[kinds[int(atoms.pbc.sum())]] += 1
    boundaries = ", ".join(f"{n} {kind}" for kind, n in count.items() if n)
    atoms = f"{min(sizes)} to {max(sizes)}" if len(set(sizes)) > 1 else f"{sizes[0]}"
    symbols = ", ".join(chemical_symbols[z] for z in species)
    return f"{len(frames)} structures ({boundaries}) of {atoms} atoms: {symbols}"


def _some(places):
    """Frames by number, not all of many."""
    places = [int(i) for i in places]
    named = ", ".join(map(str, places[:_NAMED]))
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return f"frame{'s' if len(places) > 1 else ''} {named}{more}"
