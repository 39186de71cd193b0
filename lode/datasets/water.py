"""Boxes of liquid water with their dielectric tensor: published, or of our own.

A box is a periodic, cubic ``ase.Atoms`` of whole molecules, each as O, H, H with its
oxygen in the cell, with ``info`` keys

- ``epsilon``: the electronic dielectric tensor, symmetric, shape (3, 3);
- ``epsilon_trace``: its trace, the target of the paper's Figure 3.

Nothing else survives reading. The published frames carry the polarisability
``alpha`` as well, which is the Clausius–Mossotti transform of ``epsilon`` and the
volume: as a feature it would give the target away.
"""

import math
from numbers import Integral

import numpy as np
from ase import Atoms
from ase.units import kB, kJ, mol
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from lode.core import montecarlo as core
from lode.datasets.dimers import COULOMB, DECIMALS
from lode.datasets.frames import read_frames
from lode.dipoles import dielectric_tensor
from lode.parallel import single_threaded_blas, thread_count, thread_map

# A hydrogen belongs to an oxygen no farther than this: the longest bond of the
# published boxes has 1.277 Å.
_BOND = 1.4
# In the published boxes the two halves of the tensor differ by up to 7.5e-4.
_ASYMMETRY = 5e-3
_CUBIC = 1e-6

# AMOEBA's polarisabilities in Å³ and its damping (P. Ren, J. W. Ponder, J. Phys. Chem.
# B 107, 5933 (2003)); that of hydrogen grows with the length of its bond, by 1 Å² from
# 0.975 Å on.
_POLARIZABILITY_O = 0.837
_POLARIZABILITY_H = 0.496
_BOND_OF_POLARIZABILITY = 0.975
_DAMPING = 0.39

# SPC/E: H. J. C. Berendsen et al., J. Phys. Chem. 91, 6269 (1987).
_CHARGES = np.array([-0.8476, 0.4238, 0.4238])
_BOND_LENGTH, _ANGLE = 1.0, math.acos(-1.0 / 3.0)
_DEPTH, _DIAMETER = 0.650 * kJ / mol, 3.166
_TEMPERATURE = 300.0 * kB
# Damping of the shifted force in 1/Å. No two sites come nearer than the wall.
_SCREENING, _WALL = 0.3, 1.0
# Sides of the published boxes of 32 molecules: mean, spread, range.
_N_MOLECULES = 32
# In a smaller cube the cutoff, half of it, would hold no hydrogen bond.
_FEWEST = 8
_SIDES = (9.93, 0.16, 9.4831, 10.43991)
# Added to the bonds and angles of the rigid molecules; cut off, so that a bond
# stays a bond.
_NOISE = (0.07, 0.09)
_LARGEST_NOISE = 3.5
_TRIALS = 100
_N_CHAINS = 8
# Points in the unit cell, and their least distance: simple, body-centred and
# face-centred cubic.
_LATTICES = (
    (np.zeros((1, 3)), 1.0),
    (np.array([[0, 0, 0], [1, 1, 1]]) / 2.0, 3**0.5 / 2.0),
    (np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2.0, 2**-0.5),
)
# Steps are adapted in the burn-in, after so many sweeps each time.
_ADAPTED = 10
_ACCEPTANCE = 0.4


def read_boxes(path):
    """Boxes of an extended-xyz file, wrapped by whole molecules.

    Parameters
    ----------
    path : path_like
        Cubic periodic frames of water with the dielectric tensor, nine numbers, as
        ``epsilon``.

    Returns
    -------
    list of ase.Atoms
        As the module describes them, positions rounded to eight decimals. The tensor
        is the symmetric part of the file's.

    Raises
    ------
    ValueError
        If the file is damaged or empty, or a frame, which is named, has other
        elements, no cubic cell, a broken molecule, or no symmetric tensor.
    """
    boxes = []
    for index, frame in enumerate(read_frames(path)):
        where = f"{path}, frame {index}"
        side, molecules = _molecules(frame, where)
        boxes.append(_box(side, molecules, _tensor(frame.info, where)))
    return boxes


def geometry_features(frames):
    """Density and mean shape of the molecules: a baseline without any neighbours.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Boxes of water.

    Returns
    -------
    ndarray (n_frames, 3)
        For each box 1/V in Å⁻³, the mean O–H distance in Å and the mean H–O–H angle
        in radians.

    Raises
    ------
    ValueError
        If a frame, which is named, is not a box of whole molecules of water.
    """
    features = np.empty((len(frames), 3))
    for index, frame in enumerate(frames):
        side, molecules = _molecules(frame, f"frame {index}")
        bonds = molecules[:, 1:] - molecules[:, :1]
        lengths = np.linalg.norm(bonds, axis=2)
        cosines = (bonds[:, 0] * bonds[:, 1]).sum(axis=1) / lengths.prod(axis=1)
        angles = np.arccos(np.clip(cosines, -1.0, 1.0))
        features[index] = side**-3, lengths.mean(), angles.mean()
    return features


def dipole_epsilon(frame):
    """Dielectric tensor of a box of water in the model of induced dipoles.

    Each atom is a polarisable point: 0.837 Å³ for oxygen, 0.496 Å³ + 1 Å² (r − 0.975 Å)
    for a hydrogen at the distance r from its oxygen. All pairs interact, those inside
    a molecule too, and all with Thole's damping, a = 0.39. Nothing is fitted to the
    published tensors.

    Parameters
    ----------
    frame : ase.Atoms
        A box of water.

    Returns
    -------
    ndarray (3, 3)
        Symmetric.

    Raises
    ------
    ValueError
        If the frame is not a box of whole molecules of water.
    """
    return _dipole_epsilon(*_molecules(frame, "frame"))


def synthetic_boxes(
    n_frames,
    *,
    seed=0,
    n_threads=None,
    progress=False,
    n_molecules=_N_MOLECULES,
    n_sweeps=200,
    n_burn_in=1000,
):
    """Boxes of water from a Monte Carlo simulation, with induced dipoles' tensors.

    Rigid SPC/E water at 300 K in cubes whose sides are distributed as those of the
    published boxes; the electrostatics are a damped shifted force. Eight chains, each
    with a random stream of its own, make the boxes in turn: before each one the
    chain's box is scaled to a new side. In the end bonds and angles get Gaussian
    noise of 0.07 Å and 0.09 rad, cut off at 3.5 standard deviations.

    Parameters
    ----------
    n_frames : int
        Number of boxes, at least 1.
    seed : int
        Box k is the same whatever the number of boxes.
    n_threads : int, optional
        Chains run at once, by default as many as ``NUMBA_NUM_THREADS``; the boxes
        are the same for any number.
    progress : bool
        Show a bar.
    n_molecules : int
        In each box, at least 8; the density stays the same.
    n_sweeps : int
        Between two boxes of a chain; in a sweep a molecule is shifted and turned
        once on average.
    n_burn_in : int
        Sweeps before the first box, in which the sizes of the steps are adapted.

    Returns
    -------
    list of ase.Atoms
        As from :func:`read_boxes`, with the tensor of :func:`dipole_epsilon`.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """
    for name, value, least in (
        ("n_frames", n_frames, 1),
        ("seed", seed, 0),
        ("n_molecules", n_molecules, _FEWEST),
        ("n_sweeps", n_sweeps, 1),
        ("n_burn_in", n_burn_in, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    n_threads = thread_count(n_threads)
    streams = np.random.SeedSequence(int(seed)).spawn(_N_CHAINS)
    boxes = [None] * int(n_frames)
    with (
        single_threaded_blas(),
        tqdm(total=n_frames, desc="Water", unit="box", disable=not progress) as bar,
    ):

        def run(first):
            chain = _Chain(streams[first], int(n_molecules), int(n_burn_in))
            for index in range(first, n_frames, _N_CHAINS):
                boxes[index] = chain.box(int(n_sweeps))
                bar.update()

        thread_map(run, range(min(_N_CHAINS, n_frames)), n_threads)
    return boxes


class _Chain:
    """A Markov chain of boxes of rigid molecules."""

    def __init__(self, stream, n_molecules, n_burn_in):
        self.generator = np.random.default_rng(stream)
        scale = (n_molecules / _N_MOLECULES) ** (1.0 / 3.0)
        self.mean, self.spread, self.low, self.high = scale * np.array(_SIDES)
        # The same potential for all boxes
        self.model = np.array([_DEPTH, _DIAMETER, 0.5 * self.low, _SCREENING, _WALL])
        self.charges = _CHARGES * math.sqrt(COULOMB)
        self.side = self._new_side()
        self.positions = self._lattice(n_molecules)
        self.steps = np.array([0.15, 0.3])
        for start in range(0, n_burn_in, _ADAPTED):
            accepted = self._swept(min(_ADAPTED, n_burn_in - start))
            rates = accepted[:, 0] / np.maximum(accepted[:, 1], 1)
            self.steps *= 1.0 + rates - _ACCEPTANCE
            self.steps = np.clip(self.steps, 0.01, [0.25 * self.low, math.pi])

    def box(self, n_sweeps):
        """The next box, with noise in its molecules, and its tensor."""
        side = self._new_side()
        oxygens = self.positions[:, :1]
        self.positions += oxygens * (side / self.side - 1.0)
        self.side = side
        self._swept(n_sweeps)
        # The rigid molecules are well apart, behind the wall; noise that puts a
        # hydrogen next to another oxygen is drawn anew.
        for _ in range(_TRIALS):
            deformed = self._deformed()
            deformed -= side * np.floor(deformed[:, :1] / side)
            box = _box(side, deformed, np.eye(3))
            try:
                side, molecules = _molecules(box, "a box of the stand-in")
            except ValueError:
                continue
            return _box(side, molecules, _dipole_epsilon(side, molecules))
        raise ValueError(f"molecules must stay whole with noise, got none in {_TRIALS}")

    def _new_side(self):
        side = self.generator.normal(self.mean, self.spread)
        return round(float(np.clip(side, self.low, self.high)), DECIMALS)

    def _lattice(self, n_molecules):
        """Molecules turned at random on the cubic lattice that parts them most."""
        best = 0.0
        for points, distance in _LATTICES:
            n = math.ceil((n_molecules / len(points)) ** (1.0 / 3.0) - 1e-9)
            if distance / n > best:
                best = distance / n
                corners = np.stack(np.meshgrid(*[np.arange(n)] * 3), axis=-1)
                places = (corners.reshape(-1, 1, 3) + points).reshape(-1, 3)
                places *= self.side / n
        bends = np.array([-0.5, 0.5]) * _ANGLE
        shape = np.zeros((3, 3))
        shape[1:, 0], shape[1:, 1] = np.cos(bends), np.sin(bends)
        turns = Rotation.from_quat(self.generator.normal(size=(n_molecules, 4)))
        turned = np.einsum("mxy,sy->msx", turns.as_matrix(), _BOND_LENGTH * shape)
        return np.ascontiguousarray(turned + places[:n_molecules, None])

    def _swept(self, n_sweeps):
        """Move the molecules; accepted and tried shifts and turns."""
        accepted = np.zeros((2, 2), dtype=np.int64)
        energies = core.pair_energies(
            self.positions, self.charges, self.side, self.model
        )
        core.sweeps(
            self.generator,
            self.positions,
            energies,
            self.charges,
            self.side,
            self.model,
            _TEMPERATURE,
            self.steps,
            n_sweeps,
            accepted,
        )
        return accepted

    def _deformed(self):
        """Molecules with other bonds and angles, in the same planes."""
        noise = self.generator.normal(size=(len(self.positions), 3))
        noise = np.clip(noise, -_LARGEST_NOISE, _LARGEST_NOISE)
        bonds = self.positions[:, 1:] - self.positions[:, :1]
        along = bonds.sum(axis=1)
        across = bonds[:, 1] - bonds[:, 0]
        along /= np.linalg.norm(along, axis=1)[:, None]
        across /= np.linalg.norm(across, axis=1)[:, None]
        lengths = _BOND_LENGTH + _NOISE[0] * noise[:, :2, None]
        half = 0.5 * (_ANGLE + _NOISE[1] * noise[:, 2:])
        molecules = np.repeat(self.positions[:, :1], 3, axis=1)
        for hydrogen, sign in enumerate((-1.0, 1.0)):
            direction = np.cos(half) * along + sign * np.sin(half) * across
            molecules[:, 1 + hydrogen] += lengths[:, hydrogen] * direction
        return molecules


def _box(side, molecules, epsilon):
    """Whole molecules as a frame with its tensor."""
    return Atoms(
        "OH2" * len(molecules),
        np.round(molecules.reshape(-1, 3), DECIMALS),
        cell=[side] * 3,
        pbc=True,
        info={"epsilon": epsilon, "epsilon_trace": float(np.trace(epsilon))},
    )


def _dipole_epsilon(side, molecules):
    lengths = np.linalg.norm(molecules[:, 1:] - molecules[:, :1], axis=2)
    polarizabilities = np.full((len(molecules), 3), _POLARIZABILITY_O)
    polarizabilities[:, 1:] = _POLARIZABILITY_H + (lengths - _BOND_OF_POLARIZABILITY)
    return dielectric_tensor(
        molecules.reshape(-1, 3),
        side * np.eye(3),
        polarizabilities.ravel(),
        damping=_DAMPING,
    )


def _molecules(atoms, where):
    """Side of the cube, and its molecules, whole, with their oxygens inside."""
    other = sorted(set(atoms.symbols) - {"H", "O"})
    if other:
        raise ValueError(f"{where}: a box must hold H and O only, got {other}")
    cell = atoms.cell.array
    side = float(cell[0, 0])
    if not (
        atoms.pbc.all()
        and 0.0 < side < math.inf
        and np.allclose(cell, side * np.eye(3), rtol=0.0, atol=_CUBIC * side)
    ):
        raise ValueError(
            f"{where}: a box must be periodic with a cubic cell along the axes, got "
            f"cell {cell.tolist()}, pbc {atoms.pbc.tolist()}"
        )
    positions = atoms.positions
    if not np.isfinite(positions).all():
        raise ValueError(f"{where}: positions must be finite")
    oxygens = np.flatnonzero(atoms.numbers == 8)
    hydrogens = np.flatnonzero(atoms.numbers == 1)
    if len(oxygens) == 0 or len(hydrogens) != 2 * len(oxygens):
        raise ValueError(
            f"{where}: a box must hold two H for each O, got {len(hydrogens)} H and "
            f"{len(oxygens)} O"
        )
    bonds = positions[hydrogens][:, None] - positions[oxygens]
    bonds -= side * np.round(bonds / side)
    lengths = np.linalg.norm(bonds, axis=2)
    owner = lengths.argmin(axis=1)
    far = np.flatnonzero(lengths.min(axis=1) > _BOND)
    if len(far):
        nearest = lengths[far[0]].min()
        raise ValueError(
            f"{where}: molecules must be whole, got no O within {_BOND} Å of the H "
            f"that is atom {hydrogens[far[0]]}, the nearest at {nearest:.3f} Å"
        )
    counts = np.bincount(owner, minlength=len(oxygens))
    wrong = np.flatnonzero(counts != 2)
    if len(wrong):
        raise ValueError(
            f"{where}: molecules must be H2O, got {counts[wrong[0]]} H nearest to the "
            f"O that is atom {oxygens[wrong[0]]}"
        )
    molecules = np.empty((len(oxygens), 3, 3))
    inside = positions[oxygens] - side * np.floor(positions[oxygens] / side)
    molecules[:] = inside[:, None]
    # By molecule, each with its hydrogens in the file's order
    order = np.argsort(owner, kind="stable")
    molecules[:, 1:] += bonds[order, owner[order]].reshape(-1, 2, 3)
    return side, molecules


def _tensor(info, where):
    """Checked symmetric tensor of a frame."""
    if info.get("epsilon") is None:
        raise ValueError(f"{where}: a frame must have the info key epsilon")
    try:
        tensor = np.array(info["epsilon"], dtype=np.float64)
    except (TypeError, ValueError):
        tensor = np.empty(0)
    if tensor.size != 9 or not np.isfinite(tensor).all():
        raise ValueError(
            f"{where}: epsilon must be 9 finite numbers, got {info['epsilon']!r}"
        )
    tensor = tensor.reshape(3, 3)
    asymmetry = abs(tensor - tensor.T).max()
    if asymmetry > _ASYMMETRY:
        raise ValueError(
            f"{where}: epsilon must be symmetric within {_ASYMMETRY}, got a difference "
            f"of {asymmetry:.3g}"
        )
    return 0.5 * (tensor + tensor.T)
