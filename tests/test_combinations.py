"""Signed sums of structures: kernels, models and limits of interaction energies."""

from dataclasses import replace

import naive_kernels as naive
import numpy as np
import pytest
from ase import Atoms
from naive_kernels import ToyDescriptor

import lode
from lode.combinations import LinearCombination, interactions
from lode.features import StructureFeatures
from lode.kernels import PolynomialKernel, StructureKernel
from lode.models import load
from lode.regression import GaussianProcess
from lode.sparse import SparseGaussianProcess, sparse_features

TOY = ToyDescriptor()
OTHER = ToyDescriptor(n_features=2, width=2.0)
LINEAR = PolynomialKernel(TOY)
SQUARE = PolynomialKernel(TOY, 2, normalize=True)
PRODUCT = PolynomialKernel(TOY) * PolynomialKernel(OTHER)
STRUCTURE = StructureKernel(0.3 * PolynomialKernel(TOY, average=True) + LINEAR)
KERNELS = [LINEAR, SQUARE, PRODUCT, 2.0 * LINEAR + PRODUCT, STRUCTURE]


@pytest.fixture(autouse=True)
def toy_is_public(monkeypatch):
    monkeypatch.setattr(lode, "ToyDescriptor", ToyDescriptor, raising=False)
    monkeypatch.setattr(lode, "__all__", [*lode.__all__, "ToyDescriptor"])


def complexes(seed, n):
    """Two molecules, of two or three atoms each, at some distance."""
    rng = np.random.default_rng(seed)
    frames, n_first = [], []
    for _ in range(n):
        a, b = (rng.integers(2, 4) for _ in range(2))
        numbers = [1, 8, *rng.choice([1, 8], a + b - 2)]
        positions = rng.uniform(0, 2, (a + b, 3))
        positions[a:, 2] += rng.uniform(2, 4)
        frames.append(Atoms(numbers, positions))
        n_first.append(int(a))
    return frames, n_first


PAIRS = interactions(*complexes(1, 12))
NEW = interactions(*complexes(2, 4))
ENERGIES = np.random.default_rng(3).normal(size=len(PAIRS))


def signed_sum(kernel, a, b):
    """Σ w_t w_t' K(S_t, S_t'), one kernel matrix for each pair of frames."""
    return np.array(
        [
            [
                np.array(x.weights)
                @ kernel(x.structures, y.structures, species=(1, 8))
                @ np.array(y.weights)
                for y in b
            ]
            for x in a
        ]
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_of_combinations_is_the_signed_sum(kernel):
    # Differences of sums of order 1 to 100.
    expected = signed_sum(kernel, PAIRS, NEW)
    found = kernel(PAIRS, NEW, species=(1, 8))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    gram = kernel(PAIRS, species=(1, 8))
    expected = signed_sum(kernel, PAIRS, PAIRS)
    np.testing.assert_allclose(gram, expected, rtol=1e-10, atol=1e-10)
    diagonal = kernel.diagonal(kernel.precompute(PAIRS, species=(1, 8)))
    np.testing.assert_allclose(diagonal, np.diag(expected), rtol=1e-10, atol=1e-10)


def test_linear_features_of_combinations_give_their_kernel():
    features = LINEAR.linear_features(LINEAR.precompute(PAIRS))
    assert len(features) == len(PAIRS)
    np.testing.assert_allclose(features @ features.T, LINEAR(PAIRS), atol=1e-10)


def test_one_structure_of_weight_one_is_the_structure():
    frames, _ = complexes(4, 3)
    single = [LinearCombination([atoms], [1.0]) for atoms in frames]
    np.testing.assert_array_equal(SQUARE(single), SQUARE(frames))


def test_rigid_fragments_are_described_once():
    frames, n_first = complexes(5, 1)
    curve = []
    for shift in np.linspace(0, 3, 7):
        atoms = frames[0].copy()
        atoms.positions[n_first[0] :, 0] += shift
        atoms.positions += np.round(np.random.default_rng(6).normal(size=3), 8)
        curve.append(atoms)
    pairs = interactions(curve, n_first * 7)
    assert len({id(pair.structures[1]) for pair in pairs}) == 1
    assert len({id(pair.structures[2]) for pair in pairs}) == 1
    assert LINEAR.precompute(pairs).n_structures == 7 + 2
    # A conformation of its own is another fragment, and so are other elements.
    other = curve[0].copy()
    other.positions[0, 0] += 1e-3
    assert LINEAR.precompute(interactions([*curve, other], n_first * 8)).n_frames == 8
    assert (
        LINEAR.precompute(interactions([*curve, other], n_first * 8)).n_structures == 11
    )


def test_fragments_of_other_charges_are_others():
    curve = [Atoms("NaCl", [(0, 0, 0), (0, 0, 3)]) for _ in range(4)]
    for atoms, charge in zip(curve, (1.0, 0.0, 1.0), strict=False):
        atoms.set_initial_charges([charge, -charge])
    first = [pair.structures[1] for pair in interactions(curve, [1] * 4)]
    assert first[2] is first[0]
    assert [atoms.get_initial_charges()[0] for atoms in first[:2]] == [1.0, 0.0]
    assert "initial_charges" not in first[3].arrays


def test_features_of_combinations_are_saved_with_their_weights(tmp_path):
    features = SQUARE.precompute(PAIRS)
    features.save(tmp_path / "pairs.npz")
    loaded = StructureFeatures.load(tmp_path / "pairs.npz")
    assert loaded.n_frames == len(PAIRS)
    np.testing.assert_array_equal(SQUARE.gram(loaded), SQUARE.gram(features))


def test_some_structures_have_their_part_of_the_kernel():
    frames, _ = complexes(7, 5)
    for kernel in (LINEAR, SQUARE, STRUCTURE):
        whole = kernel.precompute(frames, species=(1, 8))
        part = whole.chosen([3, 1])
        np.testing.assert_allclose(
            kernel.gram(part), kernel.gram(whole)[np.ix_([3, 1], [3, 1])], rtol=1e-12
        )


def test_differences_have_no_intercept_unless_asked():
    model = GaussianProcess(SQUARE, regularization=1e-3, intercept=False)
    model.fit(PAIRS, ENERGIES, species=(1, 8))
    gram, rows = SQUARE(PAIRS, species=(1, 8)), SQUARE(NEW, PAIRS, species=(1, 8))
    ridge = 1e-3 * np.trace(gram) / len(gram)
    inverse = np.linalg.inv(gram + ridge * np.eye(len(gram)))
    values, std = model.predict(NEW, return_std=True)
    np.testing.assert_allclose(values, rows @ inverse @ ENERGIES, rtol=1e-8)
    # Left out one by one, an energy is off by its weight over the inverse's diagonal.
    scale = np.mean((inverse @ ENERGIES) ** 2 / np.diag(inverse))
    left = np.diag(SQUARE(NEW, species=(1, 8)) - rows @ inverse @ rows.T)
    np.testing.assert_allclose(std, np.sqrt(scale * (left + ridge)), rtol=1e-6)


def test_no_intercept_means_the_same_for_features_and_their_kernel():
    features = LINEAR.linear_features(LINEAR.precompute(PAIRS))
    a = lode.fit_features(features, ENERGIES, regularization=1e-4, intercept=False)
    b = lode.fit_kernel(LINEAR(PAIRS), ENERGIES, regularization=1e-4, intercept=False)
    np.testing.assert_allclose(
        a.predict(features), b.predict(LINEAR(PAIRS)), rtol=1e-8, atol=1e-10
    )
    assert a.mean == b.mean == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), ()), "at least one structure, got none"),
        (((Atoms("H"),), (1.0, 2.0)), "one for each of 1 structures, got 2"),
        (((Atoms("H"),), (np.nan,)), "weights must be finite"),
    ],
)
def test_combinations_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinearCombination(*arguments)


def test_interactions_are_checked():
    frames, n_first = complexes(8, 2)
    with pytest.raises(ValueError, match="one for each of 2 frames, got 1"):
        interactions(frames, n_first[:1])
    for n in (0, len(frames[1])):
        with pytest.raises(
            ValueError, match=rf"n_first must be .* got {n} \(frame 1\)"
        ):
            interactions(frames, [n_first[0], n])
    crystal = Atoms("NaCl", [[0, 0, 0], [0, 0, 3]], cell=[6, 6, 6], pbc=True)
    with pytest.raises(ValueError, match="must not be periodic"):
        interactions([crystal], [1])


def test_combinations_and_structures_do_not_mix():
    frames, _ = complexes(9, 1)
    with pytest.raises(TypeError, match="all or none, got Atoms"):
        LINEAR.precompute([*PAIRS, *frames])
    plain = LINEAR.precompute(frames)
    with pytest.raises(ValueError, match=r"shape \(n, 1\), got \(1, 2\)"):
        plain.combined(np.ones((1, 2)))
    with pytest.raises(ValueError, match="weights must be finite"):
        plain.combined([[np.inf]])
    with pytest.raises(ValueError, match="single structures, got combinations"):
        plain.combined([[1.0]]).combined([[1.0]])


def test_structure_kernel_is_the_power_of_the_kernel():
    frames, _ = complexes(10, 5)
    inner = 0.3 * PolynomialKernel(TOY, average=True) + PolynomialKernel(OTHER)
    for degree in (1, 2, 3):
        kernel = StructureKernel(inner, degree)
        np.testing.assert_allclose(kernel(frames), inner(frames) ** degree, rtol=1e-12)
        features = kernel.precompute(frames)
        np.testing.assert_allclose(
            kernel.diagonal(features), inner.diagonal(features) ** degree
        )
    with pytest.raises(ValueError, match="degree must be a positive integer, got 0"):
        StructureKernel(LINEAR, 0)
    with pytest.raises(TypeError, match="kernel must hold kernels of lode, got str"):
        StructureKernel("linear")
    with pytest.raises(TypeError, match="must be additive"):
        LINEAR * StructureKernel(LINEAR)
    assert not (LINEAR + 2.0 * StructureKernel(LINEAR)).is_additive


@pytest.mark.parametrize("kernel", KERNELS)
def test_sparse_model_with_all_points_is_the_full_one(kernel):
    options = {"regularization": 1e-3, "intercept": False}
    full = GaussianProcess(kernel, **options).fit(PAIRS, ENERGIES, species=(1, 8))
    # More points than there are: every direction of the kernel is kept.
    sparse = SparseGaussianProcess(kernel, 1000, condition=1e-14, **options)
    sparse.fit(PAIRS, ENERGIES, species=(1, 8))
    # The kernel of the points, of condition 1e14, gives half the digits.
    np.testing.assert_allclose(
        sparse.predict(NEW), full.predict(NEW), rtol=1e-4, atol=1e-5
    )


def test_sparse_features_are_the_projection_on_the_points():
    kernel = 2.0 * LINEAR + PRODUCT
    model = SparseGaussianProcess(kernel, 5).select(PAIRS, species=(1, 8))
    assert 1 < model.sparse.n_frames <= 6
    features = model.features(NEW)
    k_nm = kernel.gram(kernel.precompute(NEW, species=(1, 8)), model.sparse)
    k_mm = kernel.gram(model.sparse)
    expected = k_nm @ np.linalg.pinv(k_mm, rcond=1e-10) @ k_nm.T
    np.testing.assert_allclose(features @ features.T, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("selection", ["cholesky", "fps"])
def test_sparse_environments_are_chosen_for_each_species(selection):
    if selection == "fps":
        pytest.importorskip("skmatter")
    frames, _ = complexes(11, 30)
    model = SparseGaussianProcess(SQUARE, 20, selection=selection).select(frames)
    counts = np.array([len(block) for block in model.sparse.blocks])
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    share = np.sqrt([np.sum(numbers == z) for z in (1, 8)])
    # Rounded to whole environments.
    assert np.abs(counts - 20 * share / share.sum()).max() < 1.0
    assert model.sparse.n_structures == counts.sum()


def test_pivots_are_those_of_the_cholesky_decomposition():
    x = np.random.default_rng(12).normal(size=(20, 6))
    kernel = x @ x.T
    points = lode.sparse.pivoted_cholesky(kernel, 20)
    # As many as the rank, each the worst described by those before.
    assert len(points) == 6
    for k in range(1, 6):
        before = points[:k]
        known = kernel[:, before] @ np.linalg.solve(
            kernel[np.ix_(before, before)], kernel[before]
        )
        assert points[k] == np.argmax(np.diag(kernel - known))


@pytest.mark.parametrize("kernel", [PRODUCT + LINEAR, STRUCTURE])
def test_sparse_model_is_saved_whole(kernel, tmp_path):
    model = SparseGaussianProcess(kernel, 8, intercept=False, seed=3)
    model.fit(PAIRS, ENERGIES, groups=np.arange(12) // 2, species=(1, 8))
    model.save(tmp_path / "model.npz")
    loaded = load(tmp_path / "model.npz")
    assert isinstance(loaded, SparseGaussianProcess)
    assert (loaded.seed, loaded.intercept, loaded.kernel) == (3, False, kernel)
    expected = model.predict(NEW, return_std=True)
    np.testing.assert_array_equal(loaded.predict(NEW, return_std=True), expected)
    assert (expected[1] > 0).all()


def test_sparse_features_do_not_depend_on_chunks_and_threads(monkeypatch):
    model = SparseGaussianProcess(SQUARE, 8).select(PAIRS)
    whole = model.features(NEW, n_threads=1)
    monkeypatch.setattr(lode.sparse, "_CHUNK_ATOMS", 5)
    np.testing.assert_array_equal(
        model.features(NEW, n_threads=1), model.features(NEW, n_threads=3)
    )
    np.testing.assert_allclose(model.features(NEW), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [SQUARE, PRODUCT + LINEAR, STRUCTURE])
def test_parts_have_sparse_points_of_their_own(kernel, monkeypatch):
    model = SparseGaussianProcess(kernel, 2)
    parts = [np.arange(12) < 7, np.arange(12) >= 5]
    together = sparse_features(model, PAIRS, parts, species=(1, 8))
    # All are candidates: each part's points are those of a model that it is given.
    for part, values in zip(parts, together, strict=True):
        alone = replace(model)
        alone.select([PAIRS[i] for i in np.flatnonzero(part)], species=(1, 8))
        expected = alone.features(PAIRS)
        assert values.shape == expected.shape
        np.testing.assert_allclose(
            values @ values.T, expected @ expected.T, rtol=1e-8, atol=1e-8
        )
    assert not np.allclose(*[v @ v.T for v in together], rtol=1e-3)
    monkeypatch.setattr(lode.sparse, "_CHUNK_ATOMS", 5)
    one, three = (
        sparse_features(model, PAIRS, parts, n_threads=n_threads)
        for n_threads in (1, 3)
    )
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


def test_parts_are_masks():
    model = SparseGaussianProcess(SQUARE, 6)
    for part in (np.arange(12), np.ones(11, bool), np.zeros(12, bool)):
        with pytest.raises(ValueError, match="must be a mask of 12 frames that keeps"):
            sparse_features(model, PAIRS, [part])


def test_sparse_model_is_checked(tmp_path):
    with pytest.raises(TypeError, match="kernel must hold kernels of lode, got"):
        SparseGaussianProcess("linear")
    for name in ("n_sparse", "n_candidates"):
        with pytest.raises(ValueError, match=f"{name} must be a positive whole"):
            SparseGaussianProcess(LINEAR, **{name: 0})
    with pytest.raises(ValueError, match="selection must be one of .* got 'random'"):
        SparseGaussianProcess(LINEAR, selection="random")
    with pytest.raises(ValueError, match="must be 'cholesky' for a kernel with a"):
        SparseGaussianProcess(STRUCTURE, selection="fps")
    with pytest.raises(ValueError, match="condition must be from 0 to 1, got 2"):
        SparseGaussianProcess(LINEAR, condition=2)
    model = SparseGaussianProcess(LINEAR)
    with pytest.raises(RuntimeError, match="must be chosen first"):
        model.features(NEW)
    for call in (lambda: model.predict(NEW), lambda: model.save(tmp_path / "m.npz")):
        with pytest.raises(RuntimeError, match="must be fitted first"):
            call()
    with pytest.raises(ValueError, match="one for each of 12 frames, got 11"):
        model.fit(PAIRS, ENERGIES[:-1])
    with pytest.raises(
        TypeError, match="chosen from structures, got StructureFeatures"
    ):
        model.select(LINEAR.precompute(PAIRS))
    model.fit(PAIRS, ENERGIES)
    with pytest.raises(ValueError, match=r"among \[1, 8\], got unknown \[11\]"):
        model.predict(interactions([Atoms("NaH", [[0, 0, 0], [0, 0, 2]])], [1]))


def test_normal_equations_give_the_same_model():
    x = np.random.default_rng(13).normal(size=(60, 8)) + 1.0
    y = x @ np.arange(8) + 3.0
    for intercept in (True, False):
        options = {"regularization": 1e-6, "intercept": intercept}
        a = lode.fit_features(x, y, **options)
        b = lode.fit_features(x, y, normal_equations=True, **options)
        values = [s.predict(x[:5] + 0.1, return_std=True) for s in (a, b)]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-7)
        assert b.variance == pytest.approx(a.variance, rel=1e-6)


def ions(distances):
    """A cation and an anion of two atoms each."""
    return [
        Atoms("NHOC", [[0, 0, 0], [1, 0, 0], [0, 0, d], [1.2, 0, d]]) for d in distances
    ]


def soap():
    density = lode.GaussianDensity(smearing=0.3)
    basis = lode.RadialBasis.gto(max_radial=4, cutoff=3.0)
    return lode.SphericalExpansion(density, basis, max_angular=2)


def test_soap_is_exactly_flat_beyond_its_cutoff():
    kernel = PolynomialKernel(lode.PowerSpectrum(soap()), 2, normalize=True)
    near, far = ions(np.linspace(1.5, 2.9, 8)), ions([3.1, 5.0, 12.5, 25.0])
    for kernel_, options in (
        (StructureKernel(PolynomialKernel(kernel.descriptor, average=True)), {}),
        (kernel, {"intercept": False}),
    ):
        make = ions if not options else lambda d: interactions(ions(d), [2] * len(d))
        frames = make(np.linspace(1.5, 2.9, 8))
        model = SparseGaussianProcess(kernel_, 20, regularization=1e-8, **options)
        model.fit(frames, -14.4 / np.linspace(1.5, 2.9, 8))
        values = model.predict(make([3.1, 5.0, 12.5, 25.0]))
        # The coordinates along the curve round: 1e-12 of the energies.
        assert np.ptp(values) < 1e-9
        if options:
            np.testing.assert_allclose(values, 0.0, atol=1e-9)
    assert len(near) == 8
    assert len(far) == 4


def test_multiscale_model_falls_as_the_inverse_distance():
    basis = lode.RadialBasis.monomial(max_radial=2, cutoff=2.0)
    potential = lode.SphericalExpansion(
        lode.PowerLawPotential(exponent=1, smearing=1.0), basis, max_angular=2
    )
    near = lode.PowerSpectrum(soap())
    both = lode.PowerSpectrum(soap(), potential)
    kernel = PolynomialKernel(near, normalize=True) * PolynomialKernel(both)
    trained = np.linspace(3.5, 8.0, 12)
    model = SparseGaussianProcess(
        kernel, 50, regularization=1e-10, intercept=False
    ).fit(interactions(ions(trained), [2] * 12), -14.4 / trained)
    far = np.array([15.0, 17.5, 20.0, 22.5, 25.0])
    values = model.predict(interactions(ions(far), [2] * 5))
    slope = np.polyfit(np.log(far), np.log(np.abs(values)), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.05)
    np.testing.assert_allclose(values, -14.4 / far, rtol=0.03)


def test_naive_twin_of_the_signed_sum():
    # Written from the double sum over environments, signs included.
    pair = PAIRS[0]
    features = [TOY.compute(list(p.structures), species=(1, 8)) for p in (pair, pair)]
    single = naive.polynomial(*features, degree=2, normalize=True)
    w = np.array(pair.weights)
    found = SQUARE([pair], species=(1, 8))[0, 0]
    assert found == pytest.approx(w @ single @ w, rel=1e-10)
