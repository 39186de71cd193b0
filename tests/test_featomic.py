"""Agreement with featomic, an independent code (REFERENCE.md, section 1)."""

import math
from dataclasses import replace

import numba
import numpy as np
import pytest
from ase import Atoms

import lode

featomic = pytest.importorskip("featomic")

# Eight functions and l = 6; less in interpreted runs.
N_MAX, L_MAX = (3, 2) if numba.config.DISABLE_JIT else (8, 6)
RADIUS = 3.0
SKEW = np.array([[6.0, 0.0, 0.0], [3.5, 5.0, 0.0], [-2.5, 3.0, 4.5]])
CELLS = {"cubic": 4.8 * np.eye(3), "triclinic": 0.8 * SKEW, "small": 0.45 * SKEW}
BASIS = lode.RadialBasis.gto(N_MAX, RADIUS)


def crystal(name, n_species, seed):
    rng = np.random.default_rng(seed)
    n = 2 if name == "small" else 4
    numbers = np.resize([1, 8, 11][:n_species], n)
    atoms = Atoms(rng.permutation(numbers), cell=CELLS[name], pbc=True)
    atoms.set_scaled_positions(rng.uniform(0, 1, (n, 3)))
    return atoms


def tensor_product():
    radial = {"type": "Gto", "max_radial": N_MAX - 1, "radius": RADIUS}
    return {"type": "TensorProduct", "max_angular": L_MAX, "radial": radial}


def coefficients(tensor, frames, species):
    """Arrays of ours from a TensorMap; atoms that see nothing have no sample."""
    offsets = np.cumsum([0] + [len(f) for f in frames])
    values = np.zeros((offsets[-1], len(species), (L_MAX + 1) ** 2, N_MAX))
    for key, block in tensor.items():
        l, a = int(key["o3_lambda"]), species.index(int(key["neighbor_type"]))
        system = np.asarray(block.samples["system"])
        rows = offsets[system] + np.asarray(block.samples["atom"])
        values[rows, a, l * l : (l + 1) ** 2] = np.asarray(block.values)
    return values


def relative(value, expected):
    return np.abs(value - expected).max() / np.abs(expected).max()


def lode_of_featomic(p, smearing, frames, species):
    calculator = featomic.LodeSphericalExpansion(
        density={"type": "SmearedPowerLaw", "smearing": smearing, "exponent": p},
        k_cutoff=9.0 / smearing,
        basis=tensor_product(),
    )
    return coefficients(calculator.compute(frames), frames, species)


@pytest.mark.parametrize("smearing", [0.5, 1.0])
@pytest.mark.parametrize("p", [1, 2, 4, 6])
@pytest.mark.parametrize("cell", CELLS)
def test_potential_coefficients_agree(cell, p, smearing):
    seed = 10 * p + int(2 * smearing)
    for n_species in (2,) if numba.config.DISABLE_JIT else (1, 2, 3):
        frames = [crystal(cell, n_species, 100 * s + seed) for s in range(3)]
        field = lode.PowerLawPotential(p, smearing)
        ours = lode.SphericalExpansion(field, BASIS, L_MAX, tolerance=1e-9)
        c = ours.compute(frames)
        expected = lode_of_featomic(p, smearing, frames, c.species)
        # featomic interpolates its radial integrals to about 1e-8.
        assert relative(c.values, expected) <= 1e-6


def soap_settings(smearing, smoothing):
    basis = tensor_product()
    del basis["radial"]["radius"]
    return {
        "cutoff": {"radius": RADIUS, "smoothing": smoothing},
        "density": {"type": "Gaussian", "width": smearing},
        "basis": basis,
    }


SMOOTHINGS = {
    "step": ({"type": "Step"}, lode.StepCutoff(RADIUS)),
    "cosine": (
        {"type": "ShiftedCosine", "width": 0.5},
        lode.ShiftedCosineCutoff(RADIUS, 0.5),
    ),
}


def density_expansion(smearing, smoothing):
    return lode.SphericalExpansion(
        lode.GaussianDensity(smearing),
        BASIS,
        L_MAX,
        cutoff_function=SMOOTHINGS[smoothing][1],
        tolerance=1e-9,
    )


def soap_frames(n_species, seed):
    finite = crystal("cubic", n_species, seed)
    # featomic warns of a cell that is not used.
    finite.set_cell(None)
    finite.set_pbc(False)
    return [*(crystal(name, n_species, seed + 1) for name in CELLS), finite]


@pytest.mark.parametrize("smearing", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("n_species", [1, 2, 3])
def test_density_coefficients_agree(smearing, smoothing, n_species):
    frames = soap_frames(n_species, 7 * n_species)
    if n_species == 3:
        # A frame without one of the species.
        frames.append(crystal("cubic", 1, 1))
    c = density_expansion(smearing, smoothing).compute(frames)
    settings = soap_settings(smearing, SMOOTHINGS[smoothing][0])
    tensor = featomic.SphericalExpansion(**settings).compute(frames)
    expected = coefficients(tensor, frames, c.species)
    # featomic's splines: 1e-8 of the largest value asked for.
    assert relative(c.values, expected) <= 1e-6


def test_power_spectrum_agrees_after_the_sign_of_odd_l():
    frames = soap_frames(2, 5)
    x = lode.PowerSpectrum(density_expansion(0.5, "cosine")).compute(frames)
    settings = soap_settings(0.5, SMOOTHINGS["cosine"][0])
    tensor = featomic.SoapPowerSpectrum(**settings).compute(frames)
    offsets = np.cumsum([0] + [len(f) for f in frames])
    # A centre that sees only one of two species has no sample in their block.
    expected = np.zeros(x.values.shape)
    for key, block in tensor.items():
        a, b = int(key["neighbor_1_type"]), int(key["neighbor_2_type"])
        system = np.asarray(block.samples["system"])
        rows = offsets[system] + np.asarray(block.samples["atom"])
        names = {
            tuple(int(v) for v in row): column
            for column, row in enumerate(block.properties.values.tolist())
        }
        for f, label in enumerate(x.labels):
            if (label["species_1"], label["species_2"]) != (a, b):
                continue
            l, k, q = int(label["l"]), int(label["n_1"]), int(label["n_2"])
            # Pairs of species come once in both, with √2 when they differ. A pair of
            # functions of one species comes once only in ours.
            factor = (-1) ** l * (math.sqrt(2) if a == b and k != q else 1.0)
            values = np.asarray(block.values)[:, names[(l, k, q)]]
            expected[rows, f] = factor * values
    assert relative(x.values, expected) <= 1e-6


@pytest.mark.parametrize(
    ("angular", "parity"), [(0, 1), (1, 1), (2, 1), (3, 1), (1, -1), (2, -1), (3, -1)]
)
def test_equivariants_agree_after_the_sign_of_the_coupling(angular, parity):
    coupled = pytest.importorskip("featomic.clebsch_gordan")
    frame = soap_frames(2, 5)[0]
    settings = soap_settings(0.5, SMOOTHINGS["cosine"][0])
    radial = {"type": "Gto", "max_radial": 1, "radius": RADIUS}
    settings["basis"] = {"type": "TensorProduct", "max_angular": 2, "radial": radial}
    theirs = featomic.SphericalExpansion(**settings)
    tensor = coupled.EquivariantPowerSpectrum(theirs).compute(frame)
    ours = density_expansion(0.5, "cosine")
    ours = replace(ours, basis=lode.RadialBasis.gto(2, RADIUS), max_angular=2)
    # The copy makes the two fields different ones, of which all pairs are kept.
    descriptor = lode.EquivariantPowerSpectrum(ours, ours, angular, parity)
    x = descriptor.compute(frame)
    column = {tuple(label): f for f, label in enumerate(x.labels.tolist())}
    expected = np.zeros(x.values.shape)
    for key, block in tensor.items():
        if (key["o3_lambda"], key["o3_sigma"]) != (angular, parity):
            continue
        rows = np.asarray(block.samples["atom"])
        species = int(key["neighbor_1_type"]), int(key["neighbor_2_type"])
        values = np.asarray(block.values)
        for p, names in enumerate(block.properties.values.tolist()):
            l_1, l_2, n_1, n_2 = names
            sign = (-1) ** ((l_1 + l_2 - angular + (parity < 0)) // 2)
            f = column[l_1, species[0], n_1, l_2, species[1], n_2]
            expected[rows, :, f] = sign * values[:, :, p]
            # They keep one order of each pair of different l.
            f = column[l_2, species[1], n_2, l_1, species[0], n_1]
            expected[rows, :, f] = sign * parity * values[:, :, p]
    assert relative(x.values, expected) <= 1e-6


def contracted_gradient(tensor, atoms, weights, species):
    """Derivatives of Σ weights c with respect to positions, from stored Jacobians."""
    found = np.zeros((len(atoms), 3))
    for key, block in tensor.items():
        l, a = int(key["o3_lambda"]), species.index(int(key["neighbor_type"]))
        gradient = block.gradient("positions")
        # Center of each row, and the atom that is moved.
        centers = np.asarray(block.samples["atom"])
        centers = centers[np.asarray(gradient.samples["sample"])]
        moved = np.asarray(gradient.samples["atom"])
        part = weights[centers, a, l * l : (l + 1) ** 2]
        values = np.einsum("sxmn,smn->sx", np.asarray(gradient.values), part)
        np.add.at(found, moved, values)
    return found


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", ["density", "potential"])
def test_derivatives_with_respect_to_positions_agree(kind, cell):
    atoms = crystal(cell, 2, 5)
    if kind == "density":
        ours = density_expansion(0.5, "cosine")
        settings = soap_settings(0.5, SMOOTHINGS["cosine"][0])
        theirs = featomic.SphericalExpansion(**settings)
    else:
        field = lode.PowerLawPotential(1, 0.8)
        ours = lode.SphericalExpansion(field, BASIS, L_MAX, tolerance=1e-9)
        theirs = featomic.LodeSphericalExpansion(
            density={"type": "SmearedPowerLaw", "smearing": 0.8, "exponent": 1},
            k_cutoff=9.0 / 0.8,
            basis=tensor_product(),
        )
    c = ours.compute(atoms)
    weights = np.random.default_rng(0).normal(size=c.values.shape)
    tensor = theirs.compute([atoms], gradients=["positions"])
    expected = contracted_gradient(tensor, atoms, weights, c.species)
    assert relative(ours.vjp(atoms, weights).positions, expected) <= 1e-6
