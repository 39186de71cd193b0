"""Dimers of small molecules: published files, read into one form.

A dimer is an ``ase.Atoms`` without a cell, the atoms of its first molecule before
those of its second, with ``info`` keys

- ``name``, and ``subset``: the classes ``0c`` (opposite charges), ``m1`` and ``p1``
  (one charged molecule, total charge -1 or +1), ``m2`` and ``p2`` (like charges),
  and ``00`` (no charge);
- ``charge``, ``charge_a``, ``charge_b`` in e, ``n_atoms_a``;
- ``e_int_ref_ev``, where the file has one: its interaction energy in eV.
"""

import math
import re

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree, kcal, kJ, mol

from lode.charges import formal_charges
from lode.datasets.frames import read_frames
from lode.files import read_text

# e²/4πε₀ in eV Å.
COULOMB = Hartree * Bohr
ELEMENTS = ("H", "C", "N", "O")
# An extended-xyz file keeps eight decimals, so that written and in-memory frames
# are the same.
DECIMALS = 8
# Largest change in Å of a distance inside a molecule that is still called rigid.
_RIGID = 0.01
_N_DISTANCES = 13
_N_FRAMES = _N_DISTANCES + 2
_UNITS = {"eV": 1.0, "Hartree": Hartree, "kcal/mol": kcal / mol, "kJ/mol": kJ / mol}
# At the end of a curve two charges are as good as points, within such a factor.
_POINTLIKE = 1.5
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def dimer(atoms, n_atoms_a, charge_a, charge_b, name, reference=None):
    """A checked dimer with its ``info``, as the module describes it.

    Parameters
    ----------
    atoms : ase.Atoms
        Both molecules, one after the other.
    n_atoms_a : int
        Atoms of the first.
    charge_a, charge_b : int
        Charges of the molecules.
    name : str
        Name of the dimer.
    reference : float, optional
        Interaction energy in eV.

    Returns
    -------
    ase.Atoms
        Finite, positions rounded to eight decimals.

    Raises
    ------
    ValueError
        If a molecule is empty, a position or the reference is not finite, or both
        centroids coincide.
    """
    n_atoms_a = int(n_atoms_a)
    if not 0 < n_atoms_a < len(atoms):
        raise ValueError(
            f"dimer {name}: n_atoms_a must be between 1 and {len(atoms) - 1}, "
            f"got {n_atoms_a}"
        )
    if not np.isfinite(atoms.positions).all():
        raise ValueError(f"dimer {name}: positions must be finite")
    charge_a, charge_b = int(charge_a), int(charge_b)
    info = {
        "name": str(name),
        "subset": subset(charge_a, charge_b),
        "charge": charge_a + charge_b,
        "charge_a": charge_a,
        "charge_b": charge_b,
        "n_atoms_a": n_atoms_a,
    }
    if reference is not None:
        if not math.isfinite(reference):
            raise ValueError(
                f"dimer {name}: the reference energy must be finite, got {reference}"
            )
        info["e_int_ref_ev"] = float(reference)
    made = Atoms(atoms.numbers, np.round(atoms.positions, DECIMALS), info=info)
    if separation(made) == 0.0:
        raise ValueError(f"dimer {name}: the molecules must have different centroids")
    return made


def subset(charge_a, charge_b):
    """Class of a pair of charges, by their sum.

    Examples
    --------
    >>> subset(1, -1), subset(0, -1), subset(1, 1), subset(0, 0)
    ('0c', 'm1', 'p2', '00')
    """
    total = charge_a + charge_b
    if total == 0:
        return "0c" if charge_a else "00"
    return f"{'m' if total < 0 else 'p'}{abs(total)}"


def separation(atoms):
    """Distance of the centroids of both molecules, in Å."""
    n_atoms_a = atoms.info["n_atoms_a"]
    a, b = atoms.positions[:n_atoms_a], atoms.positions[n_atoms_a:]
    return float(np.linalg.norm(b.mean(axis=0) - a.mean(axis=0)))


def charged_dimers(dimers, elements=ELEMENTS, log=None):
    """Dimers with at least one charged molecule and known elements, by name.

    Parameters
    ----------
    dimers : sequence of ase.Atoms
        As :func:`dimer` makes them.
    elements : sequence of str
        Chemical symbols that may occur.
    log : callable, optional
        Takes a line on how many were taken, such as ``print``.

    Returns
    -------
    list of ase.Atoms
        In the order of their names.

    Raises
    ------
    ValueError
        If none is left, or two have the same name.
    """
    wanted = {atomic_numbers[symbol] for symbol in elements}
    known = [atoms for atoms in dimers if set(atoms.numbers.tolist()) <= wanted]
    taken = [a for a in known if a.info["charge_a"] or a.info["charge_b"]]
    taken.sort(key=lambda atoms: atoms.info["name"])
    names = [atoms.info["name"] for atoms in taken]
    for first, second in zip(names, names[1:], strict=False):
        if first == second:
            raise ValueError(f"names of dimers must differ, got {first!r} twice")
    if log is not None:
        classes = [atoms.info["subset"] for atoms in taken]
        counts = ", ".join(f"{classes.count(c)} {c}" for c in sorted(set(classes)))
        log(
            f"{len(taken)} of {len(dimers)} dimers taken ({counts}): {len(known)} have "
            f"no elements but {'/'.join(elements)}, {len(known) - len(taken)} of them "
            "no charge"
        )
    if not taken:
        raise ValueError(
            f"there must be charged dimers of {'/'.join(elements)}, got none among "
            f"{len(dimers)}"
        )
    return taken


def read_dimers(path):
    """Dimers of an extended-xyz file, plain or compressed by gzip.

    Parameters
    ----------
    path : path_like
        Frames with ``name``, ``charge_a``, ``charge_b``, ``n_atoms_a`` and, if
        there is one, ``e_int_ref_ev`` (or ``e_int_ref_eV``).

    Returns
    -------
    list of ase.Atoms
        As :func:`dimer` makes them.

    Raises
    ------
    ValueError
        If the file is damaged, empty or a frame lacks a key.
    """
    frames = read_frames(path)
    return [_from_info(atoms, f"{path}, frame {i}") for i, atoms in enumerate(frames)]


def _from_info(atoms, where):
    info = atoms.info
    missing = [
        key
        for key in ("name", "charge_a", "charge_b", "n_atoms_a")
        if info.get(key) is None
    ]
    if missing:
        raise ValueError(f"{where}: a dimer must have the info keys {missing}")
    return dimer(
        atoms,
        info["n_atoms_a"],
        info["charge_a"],
        info["charge_b"],
        info["name"],
        info.get("e_int_ref_ev", info.get("e_int_ref_eV")),
    )


def read_ssi(path):
    """Dimers of psi4's module of the side-chain interactions, read as text.

    Nothing of the file is executed: a geometry is the text between the quotes of
    ``GEOS['%s-%s-dimer' % (dbse, 'NAME')] = qcdb.Molecule("...")``, a reference the
    number of ``BIND['%s-%s' % (dbse, 'NAME')] = ...`` in kcal/mol. Where there are
    several sets of references, the one that the module calls ``BIND`` counts.

    Parameters
    ----------
    path : path_like
        ``SSI.py`` of psi4.

    Returns
    -------
    list of ase.Atoms
        As :func:`dimer` makes them, all of the file; names are ``SSI-NAME``.

    Raises
    ------
    ValueError
        If there are no geometries, or one is malformed or lacks its reference; the
        entry is named.
    """
    text = read_text(path, "psi4 module")
    key = r"\[\s*'%s-%s{}'\s*%\s*\(\s*dbse\s*,\s*'([^'\n]+)'\s*\)\s*\]\s*=\s*"
    heads = list(re.finditer(r"^GEOS" + key.format("-dimer"), text, re.MULTILINE))
    if not heads:
        raise ValueError(f"{path} must hold geometries of dimers, got none")
    references = _ssi_references(text, key, path)
    dimers, seen = [], set()
    for i, head in enumerate(heads):
        name = head[1]
        where = f"{path}, entry {name}"
        if name in seen:
            raise ValueError(f"{where}: there must be one geometry, got two")
        seen.add(name)
        end = heads[i + 1].start() if i + 1 < len(heads) else len(text)
        block = re.match(
            r'qcdb\.Molecule\(\s*"""\n(.*?)"""', text[head.end() : end], re.DOTALL
        )
        if block is None:
            raise ValueError(
                f'{where}: the geometry must be a qcdb.Molecule("""…"""), got '
                f"{text[head.end() : head.end() + 40]!r}"
            )
        if name not in references:
            raise ValueError(f"{where}: there must be a reference energy, got none")
        (a, charge_a), (b, charge_b) = _ssi_molecules(block[1], where)
        energy = references[name] * kcal / mol
        dimers.append(dimer(a + b, len(a), charge_a, charge_b, f"SSI-{name}", energy))
    return dimers


def _ssi_references(text, key, path):
    """Reference energies in kcal/mol by name."""
    sets = {}
    line = r"^(BIND\w*)" + key.format("") + r"([^#\n]*)"
    for label, name, value in re.findall(line, text, re.MULTILINE):
        if re.fullmatch(_NUMBER, value.strip()) is None:
            raise ValueError(
                f"{path}, entry {name}: the reference energy must be a number, got "
                f"{value.strip()!r}"
            )
        sets.setdefault(label, {})[name] = float(value)
    if not sets:
        return {}
    alias = re.findall(r"^BIND\s*=\s*(BIND_\w+)\s*(?:#.*)?$", text, re.MULTILINE)
    label = alias[-1] if alias else "BIND"
    if label not in sets and len(sets) == 1:
        (label,) = sets
    if label not in sets:
        raise ValueError(
            f"{path} must say which set of reference energies is BIND, got "
            f"{sorted(sets)}"
        )
    return sets[label]


def _ssi_molecules(block, where):
    """Both molecules of a geometry and their charges."""
    lines = [line.strip() for line in block.splitlines() if line.strip()]
    units = [line for line in lines if line.startswith("units")]
    if units != ["units angstrom"]:
        raise ValueError(f"{where}: the units must be angstrom, got {units}")
    lines = [line for line in lines if line not in units]
    if lines.count("--") != 1:
        raise ValueError(
            f"{where}: one line -- must part the molecules, got {lines.count('--')}"
        )
    cut = lines.index("--")
    return [_ssi_molecule(part, where) for part in (lines[:cut], lines[cut + 1 :])]


def _ssi_molecule(lines, where):
    head = re.fullmatch(r"([-+]?\d+)\s+(\d+)", lines[0]) if lines else None
    if head is None:
        raise ValueError(
            f"{where}: a molecule must begin with charge and multiplicity, got "
            f"{lines[:1]}"
        )
    if head[2] != "1":
        raise ValueError(f"{where}: the multiplicity must be 1, got {head[2]}")
    symbols, positions = [], []
    for line in lines[1:]:
        words = line.split()
        numbers = [re.fullmatch(_NUMBER, word) for word in words[1:]]
        if len(words) != 4 or words[0] not in atomic_numbers or None in numbers:
            raise ValueError(
                f"{where}: an atom must be a symbol and three coordinates, got {line!r}"
            )
        symbols.append(words[0])
        positions.append([float(word) for word in words[1:]])
    if not symbols:
        raise ValueError(f"{where}: a molecule must have atoms, got none")
    return Atoms(symbols, positions), int(head[1])


def read_published_curves(path, unit=None, log=None):
    """Binding curves of the paper's authors: sets of 15 frames.

    A set is one dimer at 13 distances and its two molecules alone. Which atoms
    belong to which molecule follows from the frames of the molecules, their charges
    from :func:`formal_charge`, since the frames do not state them.

    Parameters
    ----------
    path : path_like
        Extended XYZ with the binding energy as ``energy``.
    unit : str, optional
        The file's unit of energy: ``eV``, ``Hartree``, ``kcal/mol`` or ``kJ/mol``. By
        default the one with which pairs of charges come nearest to Coulomb's law at
        the end of their curves.
    log : callable, optional
        Takes a line on the unit, such as ``print``.

    Returns
    -------
    list of list of ase.Atoms
        For each dimer its frames in ascending distance, as :func:`dimer` makes
        them, with ``kind`` (``training``), ``distance`` and ``e_int_ev`` as well.

    Raises
    ------
    ValueError
        If the file is not of this form, which names the set, or no unit of energy
        fits.
    """
    if unit is not None and unit not in _UNITS:
        raise ValueError(f"unit must be one of {list(_UNITS)}, got {unit!r}")
    frames = read_frames(path)
    if len(frames) % _N_FRAMES:
        raise ValueError(
            f"{path} must hold sets of {_N_FRAMES} frames, got {len(frames)} frames"
        )
    digits = len(str(len(frames) // _N_FRAMES))
    curves = [
        _published_set(
            frames[start : start + _N_FRAMES],
            f"set-{start // _N_FRAMES + 1:0{digits}d}",
            f"{path}, set {start // _N_FRAMES + 1}",
        )
        for start in range(0, len(frames), _N_FRAMES)
    ]
    if unit is None:
        unit = _coulomb_unit(curves, path)
    if log is not None:
        log(f"{len(curves)} published curves, energies in {unit}")
    for curve in curves:
        for atoms in curve:
            energy = atoms.info["e_int_ev"] * _UNITS[unit]
            atoms.info["e_int_ev"] = round(energy, DECIMALS)
    return curves


def _coulomb_unit(curves, path):
    """Unit of energy with which pairs of charges follow Coulomb's law."""
    ratios = [
        info["e_int_ev"] * info["distance"] / (COULOMB * product)
        for info in (curve[-1].info for curve in curves)
        if (product := info["charge_a"] * info["charge_b"])
    ]
    if not ratios:
        raise ValueError(
            f"{path} must hold pairs of charges to tell its unit of energy, got none: "
            "give the unit"
        )
    ratio = float(np.median(ratios))
    for unit, size in _UNITS.items():
        if 1.0 / _POINTLIKE < ratio * size < _POINTLIKE:
            return unit
    raise ValueError(
        f"{path}: energies of pairs of charges must come near Coulomb's law in one of "
        f"{list(_UNITS)}, got {ratio:.3g} times its value in eV: give the unit"
    )


def _published_set(frames, name, where):
    """One dimer's curve."""
    frames = [Atoms(a.numbers, a.positions, info=_info(a)) for a in frames]
    both, alone = frames[:_N_DISTANCES], frames[_N_DISTANCES:]
    curve = []
    for i, atoms in enumerate(both):
        place = f"{where}, frame {i + 1}"
        if len(alone[0]) + len(alone[1]) != len(atoms):
            raise ValueError(
                f"{place}: the dimer must have the {len(alone[0])} + {len(alone[1])} "
                f"atoms of the molecules at the end of the set, got {len(atoms)}"
            )
        # The molecules may be listed in either order; the dimer's is kept.
        first, second = next(
            (
                pair
                for pair in (alone, alone[::-1])
                if _same_molecule(atoms[: len(pair[0])], pair[0])
                and _same_molecule(atoms[len(pair[0]) :], pair[1])
            ),
            (None, None),
        )
        if first is None:
            raise ValueError(
                f"{place}: the dimer must be the two molecules at the end of the set, "
                f"one after the other and rigid, got {atoms.symbols} of "
                f"{alone[0].symbols} and {alone[1].symbols}"
            )
        energy = atoms.info.get("energy")
        if energy is None or not math.isfinite(energy):
            raise ValueError(f"{place}: there must be a finite energy, got {energy}")
        charges = formal_charge(first), formal_charge(second)
        made = dimer(atoms, len(first), *charges, name)
        made.info |= {
            "kind": "training",
            "distance": round(separation(made), DECIMALS),
            "e_int_ev": float(energy),
        }
        curve.append(made)
    return sorted(curve, key=lambda atoms: atoms.info["distance"])


def _info(atoms):
    """Info of a frame with its energy, which ASE may have moved to a calculator."""
    results = atoms.calc.results if atoms.calc is not None else {}
    return {**results, **atoms.info}


def _same_molecule(atoms, molecule):
    """Whether both have the same atoms in the same order and distances."""
    if atoms.numbers.tolist() != molecule.numbers.tolist():
        return False
    change = atoms.get_all_distances() - molecule.get_all_distances()
    return bool(np.abs(change).max() <= _RIGID)


def formal_charge(molecule):
    """Charge of a closed-shell side chain, from its bonds alone.

    Parameters
    ----------
    molecule : ase.Atoms
        Whole, see :func:`lode.formal_charges`.

    Returns
    -------
    int
    """
    return round(float(formal_charges(molecule).sum()))
