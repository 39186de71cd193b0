"""What is timed: one line of ``CASES`` each. No heavy imports at module level.

A case names a peer and makes, on demand, frames, both calculations and the
reference. A calculation is a function of a frame; its result becomes an array of
comparable numbers by ``dense``.
"""

import math
from dataclasses import dataclass, replace

# Side of the cube in Å that holds 64 charges; other sizes have the same density.
_SIDE = 14.0
# What a frame is made of: the gas of charges, rock salt, liquid water, magnesium oxide,
# or those molecules of H, C, N and O that ASE has, all in one call.
SPECIES = {
    "gas": ("Na", "Cl"),
    "salt": ("Na", "Cl"),
    "water": ("H", "O"),
    "oxide": ("O", "Mg"),
    "molecules": ("H", "C", "N", "O"),
}
# Names of modules that differ from those of their packages.
_MODULES = {"quippy-ase": "quippy"}
# Atoms in a box of the stand-in for water.
_WATER = 96
# Charges of the largest frames of which the peer keeps several.
_MOST_KEPT = 1000
# Atoms of the largest frame for which the peer converges in seconds.
_MOST_CONVERGED = 96
# Tolerances that are tried in turn until our error is no larger than the peer's.
_TOLERANCES = tuple(
    m * 10.0**-e for e in range(3, 12) for m in (1.0, 0.5, 0.2) if m * 10.0**-e >= 1e-11
)


def system_frames(system, n_atoms, n_frames):
    """Frames of a system, or lists of molecules, that differ a little.

    Parameters
    ----------
    system : str
        One of ``SPECIES``.
    n_atoms : int
        Of a frame; molecules have their own number.
    n_frames : int

    Returns
    -------
    list of ase.Atoms, or of lists of them

    Raises
    ------
    ValueError
        If the system has no frame of this size.
    """
    if system == "gas":
        from lode.datasets.gas import gas_frames

        side = _SIDE * (n_atoms / 64) ** (1 / 3)
        sides = (0.985 * side, 1.015 * side)
        return gas_frames(n_frames, n_pairs=n_atoms // 2, side=sides, seed=7)
    if system == "water":
        from lode.datasets.water import synthetic_boxes

        frames = synthetic_boxes(n_frames, n_sweeps=20, n_burn_in=200)
        return [_repeated(a, n_atoms, seed) for seed, a in enumerate(frames)]
    if system in ("oxide", "salt"):
        from ase.build import bulk

        name, side = ("MgO", 4.212) if system == "oxide" else ("NaCl", 5.64)
        unit = bulk(name, "rocksalt", a=side, cubic=True)
        unit.set_initial_charges([-1.0 if z in (8, 17) else 1.0 for z in unit.numbers])
        # A thermal displacement, not a perfect crystal, whose sums are special.
        return [_repeated(unit, n_atoms, seed, 0.1) for seed in range(n_frames)]
    from ase.build import molecule
    from ase.collections import g2

    chosen = [molecule(name) for name in g2.names]
    chosen = [a for a in chosen if set(a.numbers) <= {1, 6, 7, 8} and len(a) > 2]
    sets = []
    for seed in range(n_frames):
        copies = [a.copy() for a in chosen]
        for i, atoms in enumerate(copies):
            atoms.rattle(0.02, seed=1000 * seed + i)
        sets.append(copies)
    return sets


def _repeated(unit, n_atoms, seed, displacement=0.02):
    """Cell repeated to a number of atoms, as near to a cube as it can be."""
    copies, rest = divmod(n_atoms, len(unit))
    shape = []
    for left in (3, 2, 1):
        root = copies ** (1 / left)
        factors = (n for n in range(1, copies + 1) if copies % n == 0)
        shape.append(min(factors, key=lambda n, root=root: abs(n - root)))
        copies //= shape[-1]
    if rest:
        raise ValueError(f"n_atoms must be a multiple of {len(unit)}, got {n_atoms}")
    frame = unit.repeat(shape)
    frame.rattle(displacement, seed=seed)
    return frame


# Less far from each other, where both errors are set.
_CLOSE = tuple(m * 10.0**-e for e in (4, 5, 6) for m in (1.0, 0.7, 0.5, 0.35, 0.2))


@dataclass(frozen=True, kw_only=True)
class Case:
    """What all cases share.

    Attributes
    ----------
    name : str
        First column of the results.
    peer : str
        Package to compare with, as the package index knows it.
    n_atoms : int
        Atoms in a frame.
    system : str
        One of ``SPECIES``.
    tolerances : tuple of float
        Tried from the left; the first whose measured error is no larger than the
        peer's is timed. A single one is taken as it is.
    most_threads : float
        The peer cannot use more, one or any number.
    slow : bool
        Left out unless named or ``--all`` is given.
    comparable : bool
        The peer computes the same numbers. Else each code is its own reference, and
        only the error of ours is measured.
    note : str
        What a reader of the table should know.
    bounded : bool
        The tolerance is one of the error relative to the largest number.
    """

    name: str
    peer: str
    n_atoms: int
    system: str = "gas"
    tolerances: tuple = _TOLERANCES
    most_threads: float = math.inf
    slow: bool = False
    comparable: bool = True
    note: str = ""
    bounded: bool = True

    @property
    def module(self):
        """Name by which the peer is imported."""
        return _MODULES.get(self.peer, self.peer)

    @property
    def title(self):
        """Words for it; cases with the same stand in one line of the README."""
        raise NotImplementedError

    def frames(self, n_frames):
        """Frames, or lists of molecules, that differ a little."""
        return system_frames(self.system, self.n_atoms, n_frames)

    def ours(self, tolerance, n_threads):
        """Our calculation: a function of a frame."""
        raise NotImplementedError

    def theirs(self):
        """The peer's calculation: a function of a frame."""
        raise NotImplementedError

    def dense(self, result, frame):
        """Numbers of a result of either, as arrays that can be compared."""
        raise NotImplementedError

    def reference(self, frame, n_threads):
        """A converged result, or none, and the words that say whose."""
        raise NotImplementedError

    def agreement(self, frame, n_threads):
        """Results, ours and the peer's, both converged, or none.

        They tell whether a reference of ours could favour us.
        """
        return self.ours(1e-12, n_threads)(frame), self.reference(frame, n_threads)[0]


@dataclass(frozen=True, kw_only=True)
class Expansion(Case):
    """LODE coefficients, GTO n = 8, l = 6, r_cut = 3 Å, two species.

    Attributes
    ----------
    smearing : float
        In Å.
    cutoff : float
        Wave numbers of the peer end at this over the smearing; its default 1.2 π.
    in_front : bool
        Error against time is measured over a range of settings too.
    n_frames : int
        Frames in one call.
    """

    smearing: float
    cutoff: float = 1.2 * math.pi
    in_front: bool = False
    n_frames: int = 1

    @property
    def title(self):
        words = f"LODE, {self.n_atoms} atoms of {self.system}, σ = {self.smearing} Å"
        if self.n_frames > 1:
            words += f", {self.n_frames} frames in a call"
        return f"{words}, {self.note}" if self.note else words

    def frames(self, n_frames):
        if self.n_frames == 1:
            return super().frames(n_frames)
        found = super().frames(n_frames * self.n_frames)
        return [found[i::n_frames] for i in range(n_frames)]

    def ours(self, tolerance, n_threads):
        from benchmarks import codes

        return codes.lode_expansion(self.smearing, tolerance, n_threads)

    def theirs(self):
        from benchmarks import codes

        # The splines of the peer are made as exact as the tightest case needs.
        return codes.featomic_expansion(self.smearing, self.cutoff, 1e-8)

    def dense(self, result, frame):
        from benchmarks import codes

        return codes.dense_coefficients(result, frame)

    def reference(self, frame, n_threads):
        """Small frames: the peer itself, converged. Large ones: ours at 1e-12."""
        from benchmarks import codes

        if self.n_atoms > _MOST_CONVERGED:
            return self.ours(1e-12, n_threads)(frame), "lode, tolerance 1e-12"
        # Its splines do not reach the finest accuracy for sharp charges.
        splines = 1e-12 if self.smearing >= 0.5 else 1e-10
        converged = codes.featomic_expansion(self.smearing, 7.0, splines)
        return converged(frame), f"featomic, k cutoff 7/σ, splines {splines:g}"

    def agreement(self, frame, n_threads):
        """Large frames: a supercell of a small one against the peer's small cell."""
        if self.n_atoms <= _MOST_CONVERGED:
            return super().agreement(frame, n_threads)
        import numpy as np

        from benchmarks import codes

        small = replace(self, n_atoms=_WATER if self.system == "water" else 64)
        unit = small.frames(1)[0]
        copies = round((self.n_atoms / small.n_atoms) ** (1 / 3))
        exact = codes.dense_coefficients(small.reference(unit, n_threads)[0], unit)
        ours = self.ours(1e-12, n_threads)(unit.repeat(copies))
        return ours, np.tile(exact, (copies**3, 1, 1, 1))


@dataclass(frozen=True, kw_only=True)
class Spectrum(Case):
    """SOAP power spectrum, GTO n = 8, l = 6, density of 0.3 Å, two species.

    Attributes
    ----------
    radius : float
        Cutoff in Å.
    """

    radius: float

    @property
    def title(self):
        return f"SOAP within 3 to 9 Å, {self.n_atoms} atoms of {self.system}"

    def ours(self, tolerance, n_threads):
        from benchmarks import codes

        return codes.lode_spectrum(self.radius, tolerance, n_threads)

    def theirs(self):
        from benchmarks import codes

        species = SPECIES[self.system]
        if self.peer == "dscribe":
            periodic = self.system != "molecules"
            return codes.dscribe_spectrum(self.radius, species, periodic)
        if self.peer == "quippy-ase":
            return codes.quippy_spectrum(self.radius, species)
        return codes.featomic_spectrum(self.radius, 1e-8)

    def dense(self, result, frame):
        from benchmarks import codes

        return codes.dense_spectrum(result, frame)

    def reference(self, frame, n_threads):
        """The peer with the finest splines; ours if its basis differs."""
        from benchmarks import codes

        if not self.comparable:
            return self.ours(1e-12, n_threads)(frame), "lode, tolerance 1e-12"
        exact = codes.featomic_spectrum(self.radius, 1e-12)
        return exact(frame), "featomic, splines 1e-12"


@dataclass(frozen=True, kw_only=True)
class Derivatives(Case):
    """Coefficients and derivatives with respect to positions, n = 8, l = 6, 3 Å.

    Ours of one scalar, in one sweep back; the peer's of every coefficient, stored.

    Attributes
    ----------
    field : {"potential", "density"}
    """

    field: str

    @property
    def title(self):
        name = "LODE" if self.field == "potential" else "SOAP"
        return f"{name} with derivatives, {self.n_atoms} atoms of {self.system}"

    def ours(self, tolerance, n_threads):
        from benchmarks import codes

        return codes.lode_gradient(self.field, tolerance, n_threads)

    def theirs(self):
        from benchmarks import codes

        return codes.featomic_gradient(self.field, 1.2 * math.pi, 1e-8)

    def dense(self, result, frame):
        from benchmarks import codes

        return codes.dense_gradient(result, frame)

    def reference(self, frame, n_threads):
        """Ours: the peer's takes minutes to converge."""
        return self.ours(1e-12, n_threads)(frame), "lode, tolerance 1e-12"

    def agreement(self, frame, n_threads):
        """The peer at a larger cutoff, of a small frame."""
        from benchmarks import codes

        small = replace(self, n_atoms=8).frames(1)[0]
        exact = codes.featomic_gradient(self.field, 7.0, 1e-12)(small)
        ours = codes.dense_gradient(self.ours(1e-12, n_threads)(small), small)
        return ours, codes.dense_gradient(exact, small)


@dataclass(frozen=True, kw_only=True)
class SpectrumDerivatives(Spectrum):
    """Power spectrum and derivatives with respect to positions.

    Ours of one scalar, in one sweep back; the peer's of every feature, stored.
    """

    @property
    def title(self):
        atoms = f"{self.n_atoms} atoms of {self.system}"
        return f"SOAP with derivatives within {self.radius:g} Å, {atoms}"

    def ours(self, tolerance, n_threads):
        from benchmarks import codes

        return codes.lode_spectrum_gradient(self.radius, tolerance, n_threads)

    def theirs(self):
        from benchmarks import codes

        species = SPECIES[self.system]
        if self.peer == "dscribe":
            return codes.dscribe_derivatives(self.radius, species)
        return codes.quippy_spectrum(self.radius, species, grad=True)

    def dense(self, result, frame):
        return result.positions


@dataclass(frozen=True, kw_only=True)
class Ewald(Case):
    """Energy and forces of point charges; the error is that of the forces.

    Attributes
    ----------
    cutoff : float
        Of the peer's pair sum in Å: the fastest of 6, 7.5, 9, 10, 12, 14.
    accuracy : float
        LAMMPS' own measure.
    style : {"ewald", "pppm"}
        LAMMPS' sum over wave vectors.
    """

    cutoff: float
    accuracy: float = 1e-6
    style: str = "ewald"
    most_threads: int = 1
    # That of forces is in units of the force between neighbours.
    bounded: bool = False

    @property
    def title(self):
        return f"Ewald energy and forces, {self.n_atoms} charges"

    def frames(self, n_frames):
        """Few large ones, as the peer keeps a mesh and lists of each."""
        found = super().frames(min(n_frames, 2 if self.n_atoms > _MOST_KEPT else 6))
        return [found[i % len(found)] for i in range(n_frames)]

    def ours(self, tolerance, n_threads):
        from benchmarks import codes

        return codes.lode_ewald(tolerance)

    def theirs(self):
        from benchmarks import codes

        return codes.LammpsEwald(self.accuracy, self.cutoff, self.style)

    def dense(self, result, frame):
        return getattr(result, "forces", result)

    def reference(self, frame, n_threads):
        """Ours: the peer's error function ends at 1e-7."""
        tolerance = 1e-13 if self.style == "ewald" else 1e-10
        return self.ours(tolerance, n_threads)(frame), f"lode, tolerance {tolerance:g}"

    def agreement(self, frame, n_threads):
        """The peer at its finest, of a small frame instead of a large one."""
        from benchmarks import codes

        if self.style == "pppm":
            frame = replace(self, n_atoms=512).frames(1)[0]
        return self.ours(1e-12, n_threads)(frame), codes.LammpsEwald(1e-10, 9.0)(frame)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One large frame, at most 1000 atoms of a gas or a box of water, repeated.

    Potentials have n = 4, l = 4, r_cut = 3 Å, smearing 1 Å; SOAP has n = 8, l = 6,
    r_cut = 6 Å. The error of the Ewald sum is that of the forces.

    Attributes
    ----------
    kind : {"lode1", "lode2", "expansion", "gradient", "soap", "ewald"}
        Radial spectrum, power spectrum or the coefficients alone of a potential;
        coefficients and the gradient of a scalar with positions and strain; power
        spectrum of the density; energy and forces of charges.
    n_atoms : int
    system : {"gas", "water"}
    tolerance : float
    """

    kind: str
    n_atoms: int
    system: str = "gas"
    tolerance: float = 1e-6

    @property
    def name(self):
        system = "" if self.system == "gas" else f"-{self.system}"
        return f"growth-{self.kind}{system}-{self.n_atoms}"

    def frame(self):
        """The frame; what is repeated is displaced, so that it has no symmetry."""
        unit = min(self.n_atoms, 1000) if self.system == "gas" else _WATER
        frame = system_frames(self.system, unit, 1)[0]
        if self.n_atoms == unit:
            return frame
        return _repeated(frame, self.n_atoms, 7, 0.2 if self.system == "gas" else 0.02)

    def ours(self, n_threads, **options):
        """Our calculation: a function of a frame."""
        from benchmarks import codes

        options = {"tolerance": self.tolerance, **options}
        return codes.lode_growth(self.kind, n_threads, **options)

    def exact(self, n_threads):
        """A calculation whose error is not seen beside that of ours."""
        if self.kind in ("soap", "ewald"):
            return self.ours(n_threads, tolerance=1e-12)
        # The other way, by products of matrices, which many atoms make too long.
        return self.ours(n_threads, tolerance=1e-10, method="split")

    def theirs(self):
        """Featomic's coefficients of the potential."""
        from benchmarks import codes

        return codes.featomic_expansion(1.0, 1.2 * math.pi, 1e-8, n_max=4, l_max=4)


GROWTH_SIZES = tuple(1000 * 2**i for i in range(7))
_WATER_SIZES = (96, 768, 3072, 6144, 12288, 24576)
# The Ewald sum starts from a frame of the first figure.
_EWALD_SIZES = (64, 512, *GROWTH_SIZES)
SMEARINGS = (0.3, 0.4, 0.5, 0.7, 1.0)
SMEARING_SIZES = (64, 512, 4000)


def growth_cases(sizes=None):
    """Frames whose time and memory are measured, in the order of their size.

    Parameters
    ----------
    sizes : sequence of int, optional
        Atoms of the gas, instead of all sizes of all systems.

    Returns
    -------
    list of Growth
    """
    kinds = ("lode1", "lode2", "expansion", "gradient", "ewald")
    if sizes:
        return [Growth(kind=kind, n_atoms=n) for kind in kinds for n in sizes]
    cases = [
        Growth(kind=kind, n_atoms=n)
        for kind in kinds
        for n in (_EWALD_SIZES if kind == "ewald" else GROWTH_SIZES)
    ]
    return cases + [
        Growth(kind=kind, n_atoms=n, system="water")
        for kind in ("lode2", "soap")
        for n in _WATER_SIZES
    ]


_CONVERGED = "converged peer"
_STEP = "peer: one step of many, neighbour list kept; ours: everything"
_SIZE = "same frame, same n and l"
_OTHER = {"tolerances": (1e-6,), "most_threads": 1, "comparable": False, "note": _SIZE}


def _expansion(name, n_atoms, smearing=1.0, **options):
    return Expansion(
        name=name, peer="featomic", n_atoms=n_atoms, smearing=smearing, **options
    )


CASES = (
    _expansion("lode-8", 8),
    _expansion("lode-64", 64, in_front=True),
    _expansion("lode-64-narrow", 64, 0.5, in_front=True),
    _expansion("lode-64-sharp", 64, 0.3),
    _expansion("lode-64-frames", 64, n_frames=16),
    _expansion("lode-64-exact", 64, cutoff=5.5, note=_CONVERGED),
    _expansion("lode-64-narrow-exact", 64, 0.5, cutoff=5.5, note=_CONVERGED),
    _expansion("lode-512", 512),
    _expansion("lode-512-narrow", 512, 0.5, slow=True),
    _expansion("lode-512-exact", 512, cutoff=5.5, slow=True, note=_CONVERGED),
    _expansion("lode-2048", 2048, slow=True),
    _expansion("lode-96-water", 96, system="water"),
    _expansion("lode-768-water", 768, system="water", slow=True),
    _expansion("lode-64-oxide", 64, system="oxide"),
    Derivatives(
        name="lode-64-gradient", peer="featomic", n_atoms=64, field="potential"
    ),
    Derivatives(
        name="lode-128-gradient",
        peer="featomic",
        n_atoms=128,
        field="potential",
        slow=True,
    ),
    Derivatives(name="soap-gradient", peer="featomic", n_atoms=64, field="density"),
    *(
        Spectrum(
            name=f"soap-{r}" if system == "gas" else f"soap-{r}-{system}",
            peer=peer,
            n_atoms=n_atoms,
            radius=float(r),
            system=system,
            **({} if peer == "featomic" else _OTHER),
        )
        for system, n_atoms in (
            ("gas", 64),
            ("water", _WATER),
            ("oxide", 64),
            ("molecules", 536),
        )
        for r in (3, 6, 9)
        for peer in ("featomic", "dscribe", "quippy-ase")
    ),
    *(
        SpectrumDerivatives(
            name=f"soap-gradient-{system}",
            peer=peer,
            n_atoms=n_atoms,
            radius=6.0,
            system=system,
            **_OTHER,
        )
        for system, n_atoms, peer in (
            ("water", _WATER, "quippy-ase"),
            ("molecules", 536, "dscribe"),
            ("molecules", 536, "quippy-ase"),
        )
    ),
    Ewald(name="ewald-64", peer="lammps", n_atoms=64, cutoff=9.0, note=_STEP),
    Ewald(name="ewald-512", peer="lammps", n_atoms=512, cutoff=12.0, note=_STEP),
    *(
        Ewald(
            name=f"pppm-{n_atoms}{name}",
            peer="lammps",
            n_atoms=n_atoms,
            system="salt",
            style="pppm",
            tolerances=_CLOSE,
            cutoff=cutoff,
            accuracy=accuracy,
            slow=True,
            note=f"PPPM, {_STEP}",
        )
        # The fastest cutoff of 8, 10 and 12 Å for root mean square errors of the
        # forces of 2e-4 and 2e-5.
        for n_atoms in (8000, 64_000)
        for name, cutoff, accuracy in (("", 10.0, 1.1e-5), ("-exact", 12.0, 7e-7))
    ),
)
