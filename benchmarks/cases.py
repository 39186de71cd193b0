"""What is timed: one line of ``CASES`` each. No heavy imports at module level.

A case names a peer and makes, on demand, frames, both calculations and the
reference. A calculation is a function of a frame; its result becomes an array of
comparable numbers by ``dense``.
"""

import math
from dataclasses import dataclass, replace

# Side of the cube in Å that holds 64 charges; other sizes have the same density.
_SIDE = 14.0
# Tolerances that are tried in turn until our error is no larger than the peer's.
_TOLERANCES = tuple(
    m * 10.0**-e for e in range(3, 12) for m in (1.0, 0.5, 0.2) if m * 10.0**-e >= 1e-11
)


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
        Point charges in a frame.
    tolerances : tuple of float
        Tried from the left; the first whose measured error is no larger than the
        peer's is timed. A single one is taken as it is.
    most_threads : int
        The peer cannot use more.
    slow : bool
        Left out unless named or ``--all`` is given.
    note : str
        What a reader of the table should know.
    """

    name: str
    peer: str
    n_atoms: int
    tolerances: tuple = _TOLERANCES
    most_threads: int = 2
    slow: bool = False
    note: str = ""

    def frames(self, n_frames):
        """Frames of the charge gas; their sides differ by up to 1.5 %."""
        from lode.datasets.gas import gas_frames

        side = _SIDE * (self.n_atoms / 64) ** (1 / 3)
        return gas_frames(
            n_frames,
            n_pairs=self.n_atoms // 2,
            side=(0.985 * side, 1.015 * side),
            seed=7,
        )

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
    """

    smearing: float
    cutoff: float = 1.2 * math.pi
    in_front: bool = False

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

        if self.n_atoms > 64:
            return self.ours(1e-12, n_threads)(frame), "lode, tolerance 1e-12"
        # Its splines do not reach the finest accuracy for sharp charges.
        splines = 1e-12 if self.smearing >= 0.5 else 1e-10
        converged = codes.featomic_expansion(self.smearing, 7.0, splines)
        return converged(frame), f"featomic, k cutoff 7/σ, splines {splines:g}"

    def agreement(self, frame, n_threads):
        """Large frames: a supercell of 64 charges against the peer's small cell."""
        if self.n_atoms == 64:
            return super().agreement(frame, n_threads)
        import numpy as np

        from benchmarks import codes

        small = replace(self, n_atoms=64)
        unit = small.frames(1)[0]
        copies = round((self.n_atoms / 64) ** (1 / 3))
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
    system : {"gas", "water", "molecules"}
        Water: boxes of 32 molecules. Molecules: those of H, C, N and O that ASE has,
        all in one call.
    """

    radius: float
    system: str = "gas"

    def frames(self, n_frames):
        """Frames, or lists of molecules, each a little displaced."""
        if self.system == "gas":
            return super().frames(n_frames)
        if self.system == "water":
            from lode.datasets.water import standin_boxes

            return standin_boxes(n_frames, n_sweeps=20, n_burn_in=200)
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

    @property
    def species(self):
        """Symbols that occur."""
        return {
            "gas": ["Na", "Cl"],
            "water": ["H", "O"],
            "molecules": ["H", "C", "N", "O"],
        }[self.system]

    def ours(self, tolerance, n_threads):
        from benchmarks import codes

        return codes.lode_spectrum(self.radius, tolerance, n_threads)

    def theirs(self):
        from benchmarks import codes

        if self.peer == "dscribe":
            periodic = self.system != "molecules"
            return codes.dscribe_spectrum(self.radius, self.species, periodic)
        return codes.featomic_spectrum(self.radius, 1e-8)

    def dense(self, result, frame):
        from benchmarks import codes

        return codes.dense_spectrum(result, frame)

    def reference(self, frame, n_threads):
        """The peer with the finest splines; none if its basis differs."""
        from benchmarks import codes

        if self.peer == "dscribe":
            return None, "none: its radial functions differ"
        exact = codes.featomic_spectrum(self.radius, 1e-12)
        return exact(frame), "featomic, splines 1e-12"


@dataclass(frozen=True, kw_only=True)
class Ewald(Case):
    """Energy and forces of point charges; the error is that of the forces.

    Attributes
    ----------
    cutoff : float
        Of the peer's pair sum in Å: the fastest of 6, 7.5, 9, 10, 12, 14.
    """

    cutoff: float
    most_threads: int = 1

    def ours(self, tolerance, n_threads):
        from benchmarks import codes

        return codes.lode_ewald(tolerance)

    def theirs(self):
        from benchmarks import codes

        return codes.LammpsEwald(1e-6, self.cutoff)

    def dense(self, result, frame):
        return getattr(result, "forces", result)

    def reference(self, frame, n_threads):
        """Ours: the peer's error function ends at 1e-7."""
        return self.ours(1e-13, n_threads)(frame), "lode, tolerance 1e-13"

    def agreement(self, frame, n_threads):
        """The peer at its finest."""
        from benchmarks import codes

        return self.ours(1e-12, n_threads)(frame), codes.LammpsEwald(1e-10, 9.0)(frame)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Features of one large frame, n = 4, l = 4, r_cut = 3 Å, smearing 1 Å; no peer.

    Attributes
    ----------
    order : int
        1 for the radial spectrum, LODE(1); 2 for the power spectrum, LODE(2).
    n_atoms : int
        At most 1000, or 1000 times a power of two.
    tolerance : float
    """

    order: int
    n_atoms: int
    tolerance: float = 1e-6

    @property
    def name(self):
        return f"growth-lode{self.order}-{self.n_atoms}"

    def frame(self):
        """The charge gas; a thousand charges, repeated and displaced by 0.2 Å."""
        import numpy as np

        from lode.datasets.gas import gas_frames

        unit = min(self.n_atoms, 1000)
        side = _SIDE * (unit / 64) ** (1 / 3)
        frame = gas_frames(1, n_pairs=unit // 2, side=(side, 1.001 * side), seed=7)[0]
        doublings = round(math.log2(self.n_atoms / unit))
        frame = frame.repeat([2 ** ((doublings + i) // 3) for i in range(3)])
        if len(frame) != self.n_atoms:
            raise ValueError(
                "n_atoms must be even and at most 1000, or 1000 times a power of two, "
                f"got {self.n_atoms}"
            )
        if doublings:
            noise = np.random.default_rng(7).normal(scale=0.2, size=(self.n_atoms, 3))
            frame.positions += noise
        return frame

    def ours(self, n_threads, **options):
        """Our calculation: a function of a frame."""
        from benchmarks import codes

        options = {"tolerance": self.tolerance, **options}
        return codes.lode_growth(self.order, n_threads, **options)


GROWTH_SIZES = tuple(1000 * 2**i for i in range(7))

_CONVERGED = "converged peer"
_STEP = "peer: one step of many, neighbour list kept; ours: everything"
_SIZE = "same frame, same n and l"

CASES = (
    Expansion(name="lode-64", peer="featomic", n_atoms=64, smearing=1.0, in_front=True),
    Expansion(
        name="lode-64-narrow", peer="featomic", n_atoms=64, smearing=0.5, in_front=True
    ),
    Expansion(
        name="lode-64-sharp", peer="featomic", n_atoms=64, smearing=0.3, slow=True
    ),
    Expansion(
        name="lode-64-exact",
        peer="featomic",
        n_atoms=64,
        smearing=1.0,
        cutoff=5.5,
        note=_CONVERGED,
    ),
    Expansion(
        name="lode-64-narrow-exact",
        peer="featomic",
        n_atoms=64,
        smearing=0.5,
        cutoff=5.5,
        note=_CONVERGED,
    ),
    Expansion(name="lode-512", peer="featomic", n_atoms=512, smearing=1.0),
    Expansion(
        name="lode-512-narrow", peer="featomic", n_atoms=512, smearing=0.5, slow=True
    ),
    Expansion(
        name="lode-512-exact",
        peer="featomic",
        n_atoms=512,
        smearing=1.0,
        cutoff=5.5,
        slow=True,
        note=_CONVERGED,
    ),
    Expansion(name="lode-2048", peer="featomic", n_atoms=2048, smearing=1.0, slow=True),
    *(
        Spectrum(
            name=f"soap-{r}" if system == "gas" else f"soap-{r}-{system}",
            peer=peer,
            n_atoms=n_atoms,
            radius=float(r),
            system=system,
            **settings,
        )
        for system, n_atoms in (("gas", 64), ("water", 96), ("molecules", 536))
        for r in (3, 6, 9)
        for peer, settings in (
            ("featomic", {}),
            ("dscribe", {"tolerances": (1e-6,), "most_threads": 1, "note": _SIZE}),
        )
    ),
    Ewald(name="ewald-64", peer="lammps", n_atoms=64, cutoff=9.0, note=_STEP),
    Ewald(name="ewald-512", peer="lammps", n_atoms=512, cutoff=12.0, note=_STEP),
)
