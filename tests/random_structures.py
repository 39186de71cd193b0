"""What holds of any structure, with random structures and settings.

Each case follows from its seed alone::

    python tests/random_structures.py --kind expansion --count 3000
    python tests/random_structures.py --kind ewald --count 900
    python tests/random_structures.py --kind expansion --first 17 --count 1

``test_random_structures.py`` runs a few of them.
"""

import argparse
import math
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.geometry import get_distances
from naive import rotated
from scipy.spatial.transform import Rotation
from scipy.stats import ortho_group
from tqdm import tqdm

import lode
from lode.tables import coefficient_scale
from lode.tuning import neighbor_count, wave_vector_count

# Each expansion may be wrong by its tolerance, and so may a few sums of it.
MOST_TOLERANCES = 20.0
MOST_SECONDS = 20.0
MOST_BYTES = 4 * 2**30
# Methods and splits that would take longer than this are not compared: wave vectors
# times atoms, wave vectors times the transforms of NUFFT, and pairs.
_MOST_PHASES = 3e6
_MOST_TRANSFORMED = 3e6
_MOST_PAIRS = 1e5
# What a tabulated pair may lack at best, of the scale: a wide split of a dense cell has
# so many pairs that it adds up.
_TABLE_ROUNDING = 3e-15
_KINDS = ("gto", "polynomial", "laplacian", "monomial")
_BOUNDARIES = {"finite": 0.3, "periodic": 0.55, "mixed": 0.15}


@dataclass
class Outcome:
    """Of one case: what became of it, each figure over its bound, and the costs."""

    seed: int
    name: str
    ratios: dict
    seconds: float = 0.0
    peak_bytes: int = 0
    message: str = ""

    @property
    def failed(self):
        """Whether anything is beyond its bound."""
        return (
            self.name == "error"
            or not all(ratio <= 1.0 for ratio in self.ratios.values())
            or self.seconds > MOST_SECONDS
            or self.peak_bytes > MOST_BYTES
        )


def random_cell(rng, volume):
    """Cell of a volume: skewed, of unequal edges, turned, of either handedness."""
    cell = np.diag(np.exp(rng.normal(scale=0.4, size=3)))
    cell += rng.choice([0.0, 0.3, 1.5]) * np.tril(rng.normal(size=(3, 3)), -1)
    cell = cell @ Rotation.random(random_state=rng).as_matrix()
    cell[0] *= rng.choice([-1, 1])
    return cell * (volume / abs(np.linalg.det(cell))) ** (1 / 3)


def random_frame(rng):
    """Structure of 0 to 40 atoms: finite, periodic or mixed."""
    n = 0 if rng.random() < 0.01 else int(rng.integers(1, rng.choice([4, 12, 41])))
    boundary = rng.choice(list(_BOUNDARIES), p=list(_BOUNDARIES.values()))
    pbc = np.full(3, boundary == "periodic")
    if boundary == "mixed":
        pbc = np.array([[1, 1, 0], [1, 0, 0]])[rng.integers(2)][rng.permutation(3)] > 0
    # At most one atom in an Å³.
    volume = np.exp(rng.uniform(np.log(max(n, 1)), np.log(3e4)))
    cell = random_cell(rng, volume)
    positions = rng.uniform(-0.2, 1.2, (n, 3)) @ cell
    if n > 1 and rng.random() < 0.15:
        # On other atoms, and on images of them.
        image = rng.integers(-1, 2, (n // 2, 3)) * pbc
        positions[: n // 2] = positions[n - n // 2 :] + image @ cell
    numbers = rng.choice([1, 6, 8], n)
    atoms = Atoms(numbers, positions, cell=cell, pbc=pbc)
    atoms.set_initial_charges(rng.normal(size=n))
    return atoms


def random_field(rng):
    """Density, power law or Yukawa potential."""
    smearing = np.exp(rng.uniform(np.log(0.2), np.log(2.0)))
    kind = rng.random()
    if kind < 0.3:
        return lode.GaussianDensity(smearing)
    if kind < 0.4:
        return lode.YukawaPotential(np.exp(rng.uniform(-1.0, 3.0)), smearing)
    exponent = rng.integers(1, 10) if rng.random() < 0.7 else rng.uniform(1.0, 9.0)
    return lode.PowerLawPotential(exponent, smearing)


def random_expansion(rng):
    """Expansion with any basis, at any tolerance from 1e-2 to 1e-12."""
    l_max, cutoff = int(rng.integers(0, 5)), rng.uniform(1.0, 4.0)
    basis = lode.RadialBasis(str(rng.choice(_KINDS)), int(rng.integers(1, 7)), cutoff)
    if basis.max_radial > 1 and rng.random() < 0.15:
        n = basis.max_radial
        u_lnn = ortho_group.rvs(n, size=l_max + 1, random_state=rng)
        u_lqn = u_lnn.reshape(l_max + 1, n, n)[:, : rng.integers(1, n)]
        basis = lode.ContractedBasis(basis, u_lqn)
    field = random_field(rng)
    options = {}
    if not field.long_range:
        radius = rng.uniform(0.5, 1.2) * cutoff
        if rng.random() < 0.3:
            options["cutoff_function"] = lode.StepCutoff(radius)
        elif rng.random() < 0.6:
            width = rng.uniform(0.1, 1.0) * radius
            options["cutoff_function"] = lode.ShiftedCosineCutoff(radius, width)
        if rng.random() < 0.3:
            options["scaling"] = lode.RadialScaling(cutoff / 2, rng.uniform(1.0, 8.0))
    return lode.SphericalExpansion(
        field,
        basis,
        l_max,
        species=(1, 6, 8),
        center_atom_weight=rng.choice([1.0, 0.0, -2.5], p=[0.8, 0.1, 0.1]),
        tolerance=10 ** rng.uniform(-12, -2),
        sources=str(rng.choice(["species", "charges"], p=[0.8, 0.2])),
        **options,
    )


def other_methods(rng, atoms, expansion):
    """The same expansion by other methods and splits, as far as they are quick."""
    if not (expansion.field.long_range and atoms.pbc.any()):
        return {"pairs": replace(expansion, method="pairs")}
    n, volume = len(atoms), atoms.get_volume()
    digits = math.sqrt(2.0 * math.log(1.0 / expansion.tolerance))
    smearing, extent = expansion.field.smearing, expansion.basis.extent

    def is_quick(width):
        phases = n * wave_vector_count(volume, digits / width)
        if width == smearing:
            return phases < _MOST_PHASES
        neighbors = neighbor_count(n, volume, extent + digits * width)
        rounding = _TABLE_ROUNDING * neighbors
        is_exact = rounding < MOST_TOLERANCES * expansion.tolerance
        return phases < _MOST_PHASES and n * neighbors < _MOST_PAIRS and is_exact

    widths = [*(smearing * f for f in (1.2, 2.0)), *(0.7, 1.5, 3.0, 6.0, 12.0)]
    widths = [w for w in widths if w > 1.15 * smearing and is_quick(w)]
    n_coefficients = expansion.basis.max_radial * (expansion.max_angular + 1) ** 2

    def transforms_are_quick(width):
        transformed = n_coefficients * wave_vector_count(volume, digits / width)
        return transformed < _MOST_TRANSFORMED

    others = {}
    for method, possible in (
        ("split", widths),
        ("nufft", [w for w in widths if transforms_are_quick(w)]),
    ):
        if possible:
            width = float(rng.choice(possible))
            name = f"{method} at {width:.3g}"
            others[name] = replace(expansion, method=method, split=width)
    if is_quick(smearing):
        others["reciprocal"] = replace(expansion, method="reciprocal")
    return others


def expansion_case(seed):
    """Structure, expansion, and the generator of what is done with them."""
    rng = np.random.default_rng([1, seed])
    return random_frame(rng), random_expansion(rng), rng


def expansion_outcome(seed):
    """Whether the invariances hold of one random structure and expansion.

    Translation, rotation, permutation, supercell, method and split change the
    coefficients by a few tolerances at most, the number of threads not at all.
    """
    atoms, expansion, rng = expansion_case(seed)
    n, mixed = len(atoms), atoms.pbc.any() and not atoms.pbc.all()
    may_be_refused = mixed and expansion.field.long_range
    try:
        found = expansion.compute(atoms, n_threads=1).values
    except ValueError as error:
        message = str(error)
        expected = n == 0 and "at least one atom" in message
        if expected or (may_be_refused and "periodic" in message):
            return Outcome(seed, "refused", {})
        raise
    if n == 0:
        raise AssertionError("a structure without atoms must be refused")
    scale = coefficient_scale(expansion.field, expansion.basis)
    if expansion.sources == "charges":
        scale *= np.abs(atoms.get_initial_charges()).max()
    bound = MOST_TOLERANCES * expansion.tolerance * scale
    ratios = {}

    def compare(name, atoms, expected, expansion=expansion):
        values = expansion.compute(atoms, n_threads=1).values
        ratios[name] = float(np.abs(values - expected).max()) / bound

    ratios["finite"] = 0.0 if np.isfinite(found).all() else math.inf
    threaded = expansion.compute(atoms, n_threads=2).values
    ratios["threads"] = 0.0 if np.array_equal(threaded, found) else math.inf

    moved = atoms.copy()
    image = rng.integers(-2, 3, (n, 3)) * atoms.pbc
    moved.positions += rng.normal(scale=5.0, size=3) + image @ atoms.cell.array
    compare("translation", moved, found)

    rotation = Rotation.random(random_state=rng).as_matrix()
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ rotation.T)
    turned.positions = atoms.positions @ rotation.T
    compare("rotation", turned, rotated(found, rotation))

    order = rng.permutation(n)
    compare("permutation", atoms[order], found[order])

    if atoms.pbc.any():
        repeat = np.ones(3, dtype=int)
        repeat[rng.choice(np.flatnonzero(atoms.pbc))] = rng.integers(2, 4)
        expected = np.tile(found, (repeat.prod(), 1, 1, 1))
        compare("supercell", atoms.repeat(repeat), expected)

    for name, other in other_methods(rng, atoms, expansion).items():
        compare(name, atoms, found, other)
    return Outcome(seed, "mixed" if mixed else "agreed", ratios)


def ewald_case(seed):
    """Positions, cell or none, and charges."""
    rng = np.random.default_rng([2, seed])
    n = int(rng.integers(1, 13))
    cell = random_cell(rng, n * np.exp(rng.uniform(np.log(2.0), np.log(200.0))))
    # Far enough from each other that the finite differences are exact.
    least = 0.35 * (abs(np.linalg.det(cell)) / n) ** (1 / 3)
    periodic = rng.random() < 0.85
    settings = {"cell": cell, "pbc": True} if periodic else {}
    positions = np.empty((0, 3))
    while len(positions) < n:
        place = rng.uniform(-1.0, 2.0, (1, 3)) @ cell
        far = len(positions) == 0
        if not far:
            far = get_distances(positions, place, **settings)[1].min() > least
        if far:
            positions = np.concatenate([positions, place])
        elif rng.random() < 0.05:
            least *= 0.9
    charges = rng.normal(size=n)
    if rng.random() < 0.5:
        charges -= charges.mean()
    if rng.random() < 0.2:
        charges[rng.integers(n)] = 0.0
    return positions, cell if periodic else None, charges


def ewald_outcome(seed):
    """Whether forces and stress are the slopes of the energy of one random case."""
    positions, cell, charges = ewald_case(seed)
    options = {"tolerance": 1e-13, "coulomb_constant": 1.0}
    found = lode.ewald(positions, cell, charges, **options)
    # The width stays while the cell is strained, or the truncation would jump.
    options["splitting"] = found.splitting
    n, pbc = len(charges), cell is not None
    settings = {"cell": cell, "pbc": True} if pbc else {}
    distances = get_distances(positions, **settings)[1] + np.diag(np.full(n, np.inf))
    nearest = distances.min()
    if pbc:
        lengths = Atoms(cell=cell, pbc=True).cell.minkowski_reduce()[0].lengths()
        nearest = min(nearest, lengths.min())
    elif n == 1:
        nearest = 1.0

    def slope(energy, step):
        # Its error is (step / nearest)^4 and rounding over step.
        values = [energy(i * step) for i in (-2, -1, 1, 2)]
        return np.dot(values, [1, -8, 8, -1]) / (12 * step)

    size = np.abs(charges).max() ** 2 / nearest + 1e-300
    ratios, step = {}, 2e-3 * nearest
    slopes = np.empty((n, 3))
    for i, x in np.ndindex(n, 3):

        def energy(h, i=i, x=x):
            moved = positions.copy()
            moved[i, x] += h
            return lode.ewald(moved, cell, charges, **options).energy

        slopes[i, x] = slope(energy, step)
    # The truncated step adds 4e-11 of a pair's force, rounding of n terms about as
    # much.
    bound = 1e-8 * size / nearest
    ratios["forces"] = float(np.abs(found.forces + slopes).max()) / bound
    finite = [found.energy, *found.potential, *found.forces.ravel()]
    if pbc:
        volume = abs(np.linalg.det(cell))
        stress = np.empty((3, 3))
        for a, b in np.ndindex(3, 3):

            def energy(h, a=a, b=b):
                strained = np.eye(3)
                strained[a, b] += h
                result = lode.ewald(
                    positions @ strained.T, cell @ strained.T, charges, **options
                )
                return result.energy

            stress[a, b] = slope(energy, 1e-3) / volume
        bound = 1e-8 * n * size / volume
        ratios["stress"] = float(np.abs(found.stress - stress).max()) / bound
        finite += [*found.stress.ravel()]
        ratios["symmetry"] = float(np.abs(found.stress - found.stress.T).max()) / bound
    ratios["finite"] = 0.0 if np.isfinite(finite).all() else math.inf
    return Outcome(seed, "periodic" if pbc else "finite", ratios)


OUTCOMES = {"expansion": expansion_outcome, "ewald": ewald_outcome}


def outcome(kind, seed):
    """Outcome of one seed with its costs; an unexpected error is one of them."""
    start = time.perf_counter()
    try:
        result = OUTCOMES[kind](seed)
    except Exception as error:
        result = Outcome(seed, "error", {}, message=f"{type(error).__name__}: {error}")
    result.seconds = time.perf_counter() - start
    # Of the process so far, in kB.
    result.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result


def description(kind, result):
    """One line on a case that failed."""
    worst = {name: r for name, r in result.ratios.items() if not r <= 1.0}
    parts = [f"seed {result.seed}: {result.name}", result.message]
    parts += [f"{name} {ratio:.2g} of the bound" for name, ratio in worst.items()]
    parts += [f"{result.seconds:.1f} s", f"{result.peak_bytes / 2**30:.1f} GB"]
    if kind == "expansion":
        atoms, expansion, _ = expansion_case(result.seed)
        parts += [f"{len(atoms)} atoms, pbc {atoms.pbc.tolist()}", str(expansion)]
    return ", ".join(part for part in parts if part)


def main(arguments=None):
    """Run cases, print counts and failures; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=OUTCOMES, default="expansion")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.count)
    counts, worst, costs, failures = Counter(), Counter(), [], []
    start = time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        jobs = {pool.submit(outcome, options.kind, seed): seed for seed in seeds}
        bar = tqdm(as_completed(jobs), total=len(jobs), unit="case", mininterval=1.0)
        for job in bar:
            if job.exception() is not None:
                # The process ended: any of the cases under way may be the reason.
                error = str(job.exception())
                result = Outcome(jobs[job], "error", {}, message=error)
            else:
                result = job.result()
            counts[result.name] += 1
            costs.append((result.seconds, result.seed))
            for name, ratio in result.ratios.items():
                name = name.split(" at ")[0]
                worst[name] = max(worst[name], ratio)
            if result.failed:
                failures.append(result)
                tqdm.write(description(options.kind, result))
    print(f"{len(seeds)} cases in {time.perf_counter() - start:.0f} s: {dict(counts)}")
    bounds = ", ".join(f"{name} {ratio:.2g}" for name, ratio in worst.items())
    print(f"largest deviation over its bound: {bounds}")
    print(
        "slowest: " + ", ".join(f"{s:.1f} s (seed {i})" for s, i in sorted(costs)[-3:])
    )
    print(f"failed: {sorted(f.seed for f in failures)}" if failures else "none failed")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
