"""Settings chosen from structures."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

import lode
from lode.suggestions import suggestions

SUMS = ["soap_lode1", "soap_lode2", "soap_multiscale"]


def rattled(atoms, n=4):
    frames = [atoms.copy() for _ in range(n)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, seed=seed)
    return frames


def test_dense_crystals_have_shorter_cutoffs_than_sparse_ones():
    dense = suggestions([bulk("Cu")])
    sparse = suggestions([bulk("CsCl", "cesiumchloride", a=4.12)])
    assert dense.cutoff < sparse.cutoff
    # 18 neighbours in two shells of copper up to 3.61 Å, 42 with the third.
    assert dense.cutoff == 4.5
    assert dense.distance == pytest.approx(2.553, abs=1e-3)


def test_a_single_atom_has_settings():
    found = suggestions([Atoms("He")])
    assert found.potentials
    assert 3.0 <= found.near <= found.cutoff


@pytest.mark.parametrize("kind", ["molecules", "crystal", "mixed"])
def test_terms_of_sums_have_a_mean_square_of_one_per_pair_of_atoms(kind):
    frames = []
    if kind != "crystal":
        frames += rattled(molecule("CH3OH"))
    if kind != "molecules":
        frames += rattled(bulk("NaCl", "rocksalt", a=5.6))
    kernels = suggestions(frames).kernels(frames)
    assert list(kernels) == ["soap", "lode1", "lode2", "multiscale", *SUMS]
    for name in SUMS:
        for term in kernels[name].kernels:
            features = term.precompute(frames)
            squares = term.fitted(features).diagonal(features)
            n_atoms = np.array([len(atoms) for atoms in frames])
            assert np.mean(squares / n_atoms**2) == pytest.approx(1.0)


def test_slabs_have_densities_only_and_the_text_says_so():
    frames = rattled(fcc111("Cu", (1, 1, 3), vacuum=5.0))
    found = suggestions(frames)
    assert list(found.kernels(frames)) == ["soap"]
    assert list(found.equivariants(1)) == ["soap"]
    assert "densities only" in found.text()


def test_all_kernels_and_descriptors_can_be_learnt_with():
    frames = rattled(molecule("CH3OH"), 6) + rattled(molecule("H2O"), 6)
    found = suggestions(frames)
    for kernel in found.kernels(frames).values():
        model = lode.SparseGaussianProcess(kernel, n_sparse=20, intercept="species")
        model.fit(frames, np.arange(12.0))
        assert np.isfinite(model.predict(frames)).all()
    dipoles = [a.numbers @ (a.positions - a.positions.mean(axis=0)) for a in frames]
    for descriptors, exponents in found.equivariants(1).values():
        model = lode.EquivariantRegression(descriptors, exponent=exponents)
        model.fit(frames, lode.spherical_vector(np.array(dipoles)))
        assert np.isfinite(model.predict(frames)).all()


def test_many_species_take_fewer_functions():
    few = suggestions(rattled(Atoms("HCNO", np.eye(4, 3) * 1.3)))
    many = suggestions(rattled(Atoms("HCNOFNaCl", np.arange(21).reshape(7, 3) * 1.0)))
    assert many._rho.basis.max_radial < 6
    assert few.cutoff == many.cutoff
