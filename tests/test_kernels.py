import dataclasses
import json

import naive_kernels as naive
import numpy as np
import pytest
from ase import Atoms
from naive_kernels import ToyDescriptor

import lode
from lode import gram
from lode.features import StructureFeatures
from lode.invariants import Features
from lode.kernels import PolynomialKernel, ProductKernel, SumKernel
from lode.learning import fitted_term
from lode.serialization import from_dict, to_dict

# Sums of a few hundred products of order one in float64.
RTOL = 1e-12

TOY = ToyDescriptor()
OTHER = ToyDescriptor(n_features=2, width=2.0)


def random_frames(seed, n_frames=5, species=(1, 8, 11)):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n_frames):
        n = int(rng.integers(2, 6))
        frames.append(Atoms(rng.choice(species, n), rng.uniform(0, 4, (n, 3))))
    # Every species occurs, so that both sets have the same fields.
    return [*frames, Atoms(list(species), rng.uniform(0, 4, (len(species), 3)))]


A, B = random_frames(1), random_frames(2, 3)


def random_features(seed, n_features=7, n_frames=4, n_atoms=6):
    rng = np.random.default_rng(seed)
    n = n_frames * n_atoms
    return Features(
        rng.normal(size=(n, n_features)),
        rng.choice([1, 8], n),
        np.repeat(np.arange(n_frames), n_atoms),
        np.arange(n_features),
        n_frames,
        (1, 8),
    )


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("species_delta", [False, True])
@pytest.mark.parametrize("average", [False, True])
def test_kernel_is_the_double_sum(degree, normalize, species_delta, average):
    options = degree, normalize, species_delta, average
    kernel = PolynomialKernel(TOY, *options)
    a, b = TOY.compute(A), TOY.compute(B)
    np.testing.assert_allclose(
        kernel(A, B), naive.polynomial(a, b, *options), rtol=RTOL
    )
    expected = naive.polynomial(a, a, *options)
    np.testing.assert_allclose(kernel(A), expected, rtol=RTOL)
    features = kernel.precompute(A)
    np.testing.assert_allclose(kernel.diagonal(features), np.diag(expected), rtol=RTOL)


def test_average_by_species_is_the_product_of_their_mean_features():
    kernel = PolynomialKernel(TOY, normalize=True, average="species")

    def means(frames):
        """Mean unit features of the centres of each species, side by side."""
        features = TOY.compute(frames, species=(1, 8, 11))
        unit = features.values / np.linalg.norm(features.values, axis=1)[:, None]
        rows = []
        for frame in range(features.n_frames):
            here = features.frame_index == frame
            of = [unit[here & (features.species == z)] for z in (1, 8, 11)]
            rows.append([x.mean(axis=0) if len(x) else 0 * unit[0] for x in of])
        return np.array(rows).reshape(len(rows), -1)

    a, b = means(A), means(B)
    np.testing.assert_allclose(kernel(A, B), a @ b.T, rtol=RTOL)
    features = kernel.precompute(A)
    np.testing.assert_allclose(kernel.gram(features), a @ a.T, rtol=RTOL)
    np.testing.assert_allclose(
        kernel.diagonal(features), np.sum(a**2, axis=1), rtol=RTOL
    )
    features = kernel.linear_features(features)
    np.testing.assert_allclose(features, a, rtol=RTOL, atol=1e-15)
    # A structure twice, far apart, is the structure.
    twice = [atoms.copy() for atoms in A]
    for atoms in twice:
        atoms.positions += 1e3
        atoms.extend(A[twice.index(atoms)])
    np.testing.assert_allclose(kernel(twice, A), a @ a.T, rtol=1e-9)


def test_average_by_species_is_for_linear_kernels_of_each_species():
    for options in ({"degree": 2}, {"species_delta": False}):
        with pytest.raises(ValueError, match="'species' needs degree 1 and species_d"):
            PolynomialKernel(TOY, average="species", **options)
    with pytest.raises(ValueError, match="must be False, True or 'species', got 'z'"):
        PolynomialKernel(TOY, average="z")
    with pytest.raises(ValueError, match=r"True or False, got \['species'\]"):
        PolynomialKernel(TOY, average="species") * PolynomialKernel(
            TOY, average="species"
        )


@pytest.mark.parametrize("average", [False, True])
def test_terms_on_the_same_environments_are_evaluated_together(average):
    a, b = (PolynomialKernel(d, average=average) for d in (TOY, OTHER))
    square = PolynomialKernel(TOY, 2, normalize=True, average=average)
    total = 3.0 * (a * (a + b)) + 0.5 * a + a * b + square
    together, apart = total._terms()
    assert apart == (square,)
    assert len(together) == 3
    # Nothing is stored twice.
    keys = [json.loads(key) for key in total._requests()]
    assert [form for _, _, form in keys] == ["environments"] * 3
    parts = [3.0 * (a * (a + b)), 0.5 * a, a * b, square]
    expected = sum(kernel(A, B) for kernel in parts)
    np.testing.assert_allclose(total(A, B), expected, rtol=RTOL)
    np.testing.assert_allclose(total(A), sum(k(A) for k in parts), rtol=RTOL)
    diagonal = total.diagonal(total.precompute(A))
    np.testing.assert_allclose(diagonal, np.diag(total(A)), rtol=RTOL)


def test_sum_and_multiple_act_on_the_values():
    first = PolynomialKernel(TOY, 2, normalize=True)
    second = PolynomialKernel(OTHER, average=True)
    total = first + 0.3 * second * 2.0
    expected = first(A, B) + 0.6 * second(A, B)
    np.testing.assert_allclose(total(A, B), expected, rtol=RTOL)
    diagonal = total.diagonal(total.precompute(A))
    np.testing.assert_allclose(diagonal, np.diag(total(A)), rtol=RTOL)


@pytest.mark.parametrize("degrees", [(1, 1), (1, 2)])
@pytest.mark.parametrize("deltas", [(True, False), (False, False)])
@pytest.mark.parametrize("average", [False, True])
def test_product_multiplies_the_environment_kernels(degrees, deltas, average):
    first, second = (
        PolynomialKernel(d, degree, normalize, delta, average)
        for d, degree, normalize, delta in zip(
            (TOY, OTHER), degrees, (True, False), deltas, strict=True
        )
    )
    product = 2.0 * first * (0.5 * second)

    def pair(x, y, i, j):
        value = 1.0
        for k, p, q in ((first, x[0], y[0]), (second, x[1], y[1])):
            value *= naive.environment_kernel(
                p.values[i],
                q.values[j],
                p.species[i],
                q.species[j],
                k.degree,
                k.normalize,
                k.species_delta,
            )
        return value

    a, b = ([d.compute(x) for d in (TOY, OTHER)] for x in (A, B))
    expected = naive.structure_kernel(
        a[0], b[0], lambda i, j: pair(a, b, i, j), average
    )
    np.testing.assert_allclose(product(A, B), expected, rtol=RTOL)
    symmetric = naive.structure_kernel(
        a[0], a[0], lambda i, j: pair(a, a, i, j), average
    )
    np.testing.assert_allclose(product(A), symmetric, rtol=RTOL)
    diagonal = product.diagonal(product.precompute(A))
    np.testing.assert_allclose(diagonal, np.diag(symmetric), rtol=RTOL)


def test_product_distributes_over_a_sum():
    a, b, c = (PolynomialKernel(TOY, n, species_delta=n != 2) for n in (1, 2, 3))
    np.testing.assert_allclose(((a + b) * c)(A, B), (a * c + b * c)(A, B), rtol=RTOL)


@pytest.mark.parametrize("species_delta", [False, True])
@pytest.mark.parametrize("memory", [1, 3000, 2**28])
def test_second_moments_equal_the_environment_kernel(species_delta, memory):
    kernel = PolynomialKernel(TOY, 2, species_delta=species_delta)
    factors = kernel._linear_factors()[1]
    a, b = (kernel.precompute(random_features(s)) for s in (1, 2))
    for other in (None, b):
        moments = gram.moment_gram(factors, a, other, memory)
        direct = gram.direct_gram(kernel, a, other)
        np.testing.assert_allclose(moments, direct, rtol=RTOL)


def test_cheaper_form_is_the_moments_for_large_structures_alone():
    kernel = PolynomialKernel(TOY, 2)
    factors = kernel._linear_factors()[1]
    small, large = (
        kernel.precompute(random_features(1, 40, n_atoms=n)) for n in (2, 300)
    )
    assert gram._moments_are_cheaper(factors, large, large)
    assert not gram._moments_are_cheaper(factors, small, small)


@pytest.mark.parametrize("block", [1, 5, 2048])
def test_environment_blocks_do_not_matter(block):
    kernel = PolynomialKernel(TOY, 3, species_delta=False)
    a = kernel.precompute(random_features(1))
    np.testing.assert_allclose(
        gram.direct_gram(kernel, a, None, block), kernel.gram(a), rtol=RTOL
    )


@pytest.mark.parametrize("degree", [1, 2])
def test_chunks_do_not_matter(degree):
    kernel = PolynomialKernel(TOY, degree, normalize=True)
    frames = random_frames(3, 30)
    whole = kernel.gram(kernel.precompute(frames))
    for source in (frames, TOY.compute(frames)):
        chunked = kernel.gram(kernel.precompute(source, chunk_bytes=300))
        # Sums of a handful of terms of order one, in another order.
        np.testing.assert_allclose(chunked, whole, rtol=1e-13)


def test_normalised_kernel_ignores_the_length_of_features():
    features = random_features(1)
    scale = np.random.default_rng(0).uniform(0.1, 10.0, (len(features.values), 1))
    values = features.values * scale
    scaled = Features(values, *list(vars(features).values())[1:])
    for degree in (1, 2, 3):
        kernel = PolynomialKernel(TOY, degree, normalize=True)
        np.testing.assert_allclose(kernel(scaled), kernel(features), rtol=RTOL)


def test_environment_without_features_has_no_kernel():
    features = random_features(1)
    features.values[features.frame_index == 2] = 0.0
    for degree in (1, 2):
        gram = PolynomialKernel(TOY, degree, normalize=True)(features)
        assert np.all(gram[2] == 0.0)
        assert np.isfinite(gram).all()


def test_kernel_matrix_is_symmetric_and_positive():
    kernel = PolynomialKernel(TOY, 3) + PolynomialKernel(TOY) * PolynomialKernel(OTHER)
    gram = kernel(A)
    np.testing.assert_array_equal(gram, gram.T)
    # Rounding of the largest eigenvalue.
    assert np.linalg.eigvalsh(gram).min() > -1e-13 * np.trace(gram)


def test_linear_features_give_the_kernel():
    kernel = PolynomialKernel(TOY) + 0.3 * PolynomialKernel(
        OTHER, species_delta=False, average=True
    )
    a, b = (kernel.precompute(x, species=(1, 8, 11, 17)) for x in (A, B))
    columns = kernel.columns(kernel.precompute([*A, *B], species=(1, 8, 11, 17)))
    x, y = (kernel.linear_features(r, columns) for r in (a, b))
    np.testing.assert_allclose(x @ y.T, kernel.gram(a, b), rtol=RTOL)


def test_equal_parts_are_computed_and_stored_once():
    calls = []

    class Counted(ToyDescriptor):
        def compute(self, frames, **settings):
            calls.append(len(frames))
            return super().compute(frames, **settings)

    toy = Counted()
    kernel = PolynomialKernel(toy, 2) + 0.5 * PolynomialKernel(toy, 2)
    kernel += PolynomialKernel(toy)
    found = kernel.precompute(A)
    assert sum(calls) == len(A)
    assert len(found.keys) == 2


def test_single_precision_halves_the_store_at_its_own_accuracy():
    kernel = PolynomialKernel(TOY, 2)
    single = kernel.precompute(A, dtype=np.float32)
    for block in single.blocks:
        (part,) = block.parts.values()
        assert part.values.dtype == np.float32
    # Four factors of relative error 6e-8.
    np.testing.assert_allclose(kernel.gram(single), kernel(A), rtol=1e-6)


def test_a_kernel_from_its_dictionary_is_equal(monkeypatch):
    monkeypatch.setattr(lode, "ToyDescriptor", ToyDescriptor, raising=False)
    monkeypatch.setattr(lode, "__all__", [*lode.__all__, "ToyDescriptor"])
    first, second = PolynomialKernel(TOY, 2, normalize=True), PolynomialKernel(OTHER)
    kernel = first * second + 0.3 * second
    assert from_dict(json.loads(json.dumps(to_dict(kernel)))) == kernel


@pytest.mark.parametrize("degree", [1, 2])
def test_saved_features_are_the_same(degree, tmp_path):
    kernel = PolynomialKernel(TOY, degree)
    features = kernel.precompute(A)
    features.save(tmp_path / "r.npz")
    loaded = StructureFeatures.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(kernel.gram(loaded), kernel.gram(features))
    assert loaded.neighbor_species == features.neighbor_species
    assert [p.name for p in tmp_path.iterdir()] == ["r.npz"]


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.npz"
    path.write_bytes(b"old")

    def broken(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="disk full"):
        PolynomialKernel(TOY).precompute(A).save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.npz"]


def test_truncated_or_foreign_features_are_refused(tmp_path):
    path = tmp_path / "r.npz"
    PolynomialKernel(TOY).precompute(A).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="complete StructureFeatures file"):
        StructureFeatures.load(path)
    np.savez(path, x=np.arange(3))
    with pytest.raises(ValueError, match="without a header"):
        StructureFeatures.load(path)


@pytest.mark.parametrize("degree", [0, -1, 1.5, "two", None])
def test_degree_must_be_a_positive_integer(degree):
    with pytest.raises(ValueError, match="degree must be a positive integer"):
        PolynomialKernel(TOY, degree)


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan])
def test_weight_must_be_positive(weight):
    with pytest.raises(ValueError, match="weight must be positive"):
        weight * PolynomialKernel(TOY)


def test_parts_of_kernels_are_checked():
    with pytest.raises(TypeError, match="descriptor must have a method compute"):
        PolynomialKernel("soap")
    with pytest.raises(TypeError, match="unsupported operand"):
        PolynomialKernel(TOY) + 1.0
    with pytest.raises(TypeError, match="kernels must hold kernels of lode"):
        SumKernel((PolynomialKernel(TOY), TOY))
    with pytest.raises(ValueError, match="at least one kernel"):
        ProductKernel(())
    with pytest.raises(ValueError, match="same setting average"):
        PolynomialKernel(TOY) * PolynomialKernel(TOY, average=True)


def test_sets_with_different_species_are_described_alike():
    hydride, water = Atoms("NaH", np.eye(3)[:2]), Atoms("OH2", np.eye(3))
    kernel = PolynomialKernel(TOY, 2)
    a, b = (TOY.compute([x], species=(1, 8, 11)) for x in (hydride, water))
    expected = naive.polynomial(a, b, 2)
    np.testing.assert_allclose(kernel([hydride], [water]), expected, rtol=RTOL)
    np.testing.assert_allclose(kernel(a, [water]), expected, rtol=RTOL)


def test_repeated_evaluation_is_bitwise_the_same():
    kernel = PolynomialKernel(TOY, 2) + PolynomialKernel(TOY, 3) * PolynomialKernel(TOY)
    np.testing.assert_array_equal(kernel(A), kernel(A))


def test_unknown_species_is_refused():
    with pytest.raises(ValueError, match="got unknown"):
        PolynomialKernel(TOY).precompute(A, species=(1, 8))


def test_features_that_do_not_fit_are_refused():
    kernel = PolynomialKernel(TOY)
    features = random_features(1)
    with pytest.raises(ValueError, match="features of 1 descriptors, got 2"):
        kernel.precompute([features, features])
    with pytest.raises(ValueError, match="must have the neighbour species"):
        kernel.precompute(features, species=(1, 8, 11))
    broken = features.values.copy()
    broken[3, 1] = np.nan
    fields = list(vars(features).values())[1:]
    with pytest.raises(ValueError, match="features must be finite"):
        kernel.precompute(Features(broken, *fields))
    with pytest.raises(ValueError, match="one species and one frame"):
        kernel.precompute(Features(broken[:-1], *fields))
    both = kernel + PolynomialKernel(OTHER)
    with pytest.raises(ValueError, match="describe the same environments"):
        both.precompute([features, random_features(1, n_atoms=5)])


def test_structures_that_do_not_fit_are_refused():
    kernel = PolynomialKernel(TOY)
    a = kernel.precompute(A)
    with pytest.raises(ValueError, match="made by the kernel that uses them"):
        PolynomialKernel(TOY, 2).gram(a)
    with pytest.raises(TypeError, match="made by `precompute`"):
        kernel.gram(A)
    other = kernel.precompute(A, species=(1, 8, 11, 17))
    with pytest.raises(ValueError, match="same neighbour species"):
        kernel.gram(a, other)
    narrow = kernel.precompute(random_features(1, 3))
    with pytest.raises(ValueError, match="equally many in all structures, got"):
        kernel.gram(kernel.precompute(random_features(1, 4)), narrow)
    with pytest.raises(TypeError, match="linear features"):
        PolynomialKernel(TOY, 2).linear_features(a)


def test_a_kernel_of_equivariants_is_refused():
    expansion = lode.SphericalExpansion(
        lode.GaussianDensity(0.5), lode.RadialBasis.gto(2, 3.0), 2
    )
    descriptor = lode.EquivariantPowerSpectrum(expansion, angular=2)
    with pytest.raises(TypeError, match="must be invariant, got Equivariant"):
        lode.PolynomialKernel(descriptor)


@pytest.mark.parametrize("degree", [2, 3])
def test_a_long_kernel_shows_its_progress(capsys, degree):
    descriptor = lode.PowerSpectrum(
        lode.SphericalExpansion(
            lode.GaussianDensity(0.5), lode.RadialBasis.gto(2, 3.0), 1
        )
    )
    kernel = lode.PolynomialKernel(descriptor, degree=degree)
    frames = [Atoms("H2O", np.eye(3) * s) for s in (1.0, 1.1, 1.2)]
    features = kernel.precompute(frames)
    silent = kernel.gram(features)
    assert "kernel" not in capsys.readouterr().err
    np.testing.assert_array_equal(kernel.gram(features, progress=True), silent)
    assert "kernel: 100%" in capsys.readouterr().err


def mixed_frames():
    """Structures of few of many elements each, some of the same elements."""
    rng = np.random.default_rng(4)
    sets = [(1, 8), (1, 6, 8), (11, 17), (6, 7), (1, 8), (7, 8, 17)]
    return [
        Atoms(rng.choice(chosen, 5).tolist(), 4.0 * rng.random((5, 3)))
        for chosen in sets
    ]


def expansion_of(max_radial=2):
    density, basis = lode.GaussianDensity(0.5), lode.RadialBasis.gto(max_radial, 4.0)
    return lode.SphericalExpansion(density, basis, 2)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("spectrum", [lode.RadialSpectrum, lode.PowerSpectrum])
def test_columns_of_elements_that_are_absent_do_not_count(
    spectrum, normalize, delta, degree
):
    """Against features of all environments in all columns, zeros included."""
    frames, descriptor = mixed_frames(), spectrum(expansion_of())
    kernel = PolynomialKernel(descriptor, degree, normalize, delta, average=True)
    expected = kernel(descriptor.compute(frames))
    np.testing.assert_allclose(kernel(frames), expected, rtol=1e-10)
    a, b = (
        kernel.precompute(x, species=(1, 6, 7, 8, 11, 17))
        for x in (frames[:3], frames[3:])
    )
    np.testing.assert_allclose(kernel.gram(a, b), expected[:3, 3:], rtol=1e-10)
    diagonal = kernel.diagonal(kernel.precompute(frames))
    np.testing.assert_allclose(diagonal, np.diag(expected), rtol=1e-10)
    for block in a.blocks:
        # No room for elements that the structures of the block lack.
        present = np.unique(frames[block.structures[0]].numbers)
        (part,) = block.parts.values()
        assert part.values.shape[1] == len(descriptor.labels(tuple(present.tolist())))


def test_linear_features_of_new_elements_are_left_out_and_count_in_the_deviation():
    frames, energies = mixed_frames(), np.array([1.0, 3.0, 2.0, 4.0, 1.5, 2.5])
    kernel = PolynomialKernel(lode.PowerSpectrum(expansion_of()))
    species = (1, 6, 7, 8, 11, 17)
    settings = {"regularization": 1e-3}
    model = lode.GaussianProcess(kernel, **settings)
    model.fit(frames[:5], energies[:5], species=species)
    values, std = model.predict(frames, return_std=True)
    rows = kernel(frames, frames[:5], species=species)
    solution = lode.fit_kernel(rows[:5], energies[:5], **settings)
    diagonal = kernel.diagonal(kernel.precompute(frames, species=species))
    expected = solution.predict(rows, diagonal=diagonal, return_std=True)
    np.testing.assert_allclose(values, expected[0], rtol=1e-7)
    np.testing.assert_allclose(std, expected[1], rtol=1e-5)


def test_a_whitened_kernel_takes_structures_of_different_elements():
    frames = mixed_frames()
    descriptor = lode.PowerSpectrum(expansion_of())
    kernel = lode.WhitenedKernel(descriptor)
    found = kernel.fitted(kernel.precompute(frames))(frames)
    whole = kernel.precompute(descriptor.compute(frames))
    np.testing.assert_allclose(found, kernel.fitted(whole).gram(whole), rtol=1e-8)


def test_old_names_warn():
    with pytest.warns(FutureWarning, match="LinearCombination"):
        assert lode.Combination is lode.LinearCombination
    with pytest.warns(FutureWarning, match="precompute"):
        PolynomialKernel(TOY).represent(A)
    both = PolynomialKernel(TOY) + PolynomialKernel(OTHER)
    with pytest.warns(FutureWarning, match="max_likelihood"):
        model = lode.GaussianProcess(both, weights="likely")
    assert model.weights == "max_likelihood"
    with pytest.warns(FutureWarning, match="'reciprocal'"):
        expansion = dataclasses.replace(expansion_of(), method="waves")
    assert expansion.method == "reciprocal"


SPECTRUM = lode.PowerSpectrum(expansion_of())
KERNELS_OF_SPECTRUM = [PolynomialKernel(SPECTRUM, degree) for degree in (1, 2, 3)]


@pytest.mark.parametrize("kernel", KERNELS_OF_SPECTRUM)
def test_features_in_another_order_of_species_give_the_same_kernel(kernel):
    frames, species = mixed_frames(), (8, 1, 17, 6, 7, 11)
    features = kernel.precompute(SPECTRUM.compute(frames, species=species))
    found = kernel.gram(kernel.precompute(frames, species=species), features)
    np.testing.assert_allclose(found, kernel(frames), rtol=1e-10)


def test_labelled_features_are_not_mixed_with_others():
    kernel, features = KERNELS_OF_SPECTRUM[1], SPECTRUM.compute(mixed_frames())
    n_features = features.values.shape[1]
    bare = dataclasses.replace(features, labels=np.arange(n_features))
    with pytest.raises(ValueError, match="without labels must be equally many"):
        kernel(features, bare)
    np.testing.assert_allclose(kernel(bare), kernel(features), rtol=1e-10)
    words = np.zeros(n_features, [("name", "U4"), ("x", float)])
    found = kernel(dataclasses.replace(features, labels=words), bare)
    np.testing.assert_allclose(found, kernel(features), rtol=1e-10)


def test_features_of_tensors_are_refused():
    tensors = lode.EquivariantPowerSpectrum(expansion_of(), angular=1)
    with pytest.raises(ValueError, match="must be invariant, of shape"):
        KERNELS_OF_SPECTRUM[0](tensors.compute(mixed_frames()))


@pytest.mark.parametrize("kernel", KERNELS_OF_SPECTRUM)
def test_no_structure_has_no_kernel(kernel):
    features = kernel.precompute(mixed_frames())
    nothing = features.chosen([])
    assert kernel.gram(nothing).shape == (0, 0)
    assert kernel.gram(features, nothing).shape == (6, 0)
    weights = np.zeros((2, 6))
    weights[0, 0] = 1.0
    diagonal = kernel.diagonal(features.combined(weights))
    np.testing.assert_allclose(diagonal, [kernel.diagonal(features)[0], 0.0])


def test_structures_are_chosen_by_place_or_by_mask():
    kernel = KERNELS_OF_SPECTRUM[1]
    features = kernel.precompute(mixed_frames())
    mask = np.array([True, False, False, True, False, False])
    whole = kernel.gram(features)
    for places in (mask, [0, 3]):
        found = kernel.gram(features.chosen(places))
        np.testing.assert_allclose(found, whole[np.ix_(mask, mask)], rtol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS_OF_SPECTRUM)
@pytest.mark.parametrize("size", [1, 4])
def test_concatenated_chunks_are_the_features_of_the_whole(kernel, size):
    frames = mixed_frames()
    # All species are known to all chunks, as without them to the whole.
    species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    whole = kernel.precompute(frames, species=species).to_arrays()
    chunks = [frames[i : i + size] for i in range(0, len(frames), size)]
    parts = [kernel.precompute(chunk, species=species) for chunk in chunks]
    found = lode.StructureFeatures.concatenated(parts).to_arrays()
    assert found.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_sets_that_are_no_chunks_of_a_whole_are_refused():
    linear, other = KERNELS_OF_SPECTRUM[:2]
    features = linear.precompute(mixed_frames())
    join = lode.StructureFeatures.concatenated
    with pytest.raises(ValueError, match="made by one kernel, got those of 0 in 0"):
        join([])
    with pytest.raises(ValueError, match="made by one kernel, got those of 2 in 2"):
        join([features, other.precompute(mixed_frames())])
    with pytest.raises(ValueError, match="single structures, got combinations"):
        join([features, features.combined(np.ones((1, 6)))])
    whitened = lode.WhitenedKernel(SPECTRUM).precompute(mixed_frames())
    with pytest.raises(ValueError, match="single structures, got scatter matrices"):
        join([whitened, whitened])


def test_environments_to_keep_are_a_mask_of_the_atoms():
    kernel, frames = KERNELS_OF_SPECTRUM[1], mixed_frames()
    rng = np.random.default_rng(0)
    atoms = rng.random(30) < 0.4
    found = kernel.gram(kernel.precompute(frames, atoms=atoms))
    features = SPECTRUM.compute(frames)
    p, z = features.values[atoms], features.species[atoms]
    expected = np.where(z[:, None] == z, (p @ p.T) ** 2, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    for wrong in (np.ones(7, bool), np.ones(30, int)):
        with pytest.raises(ValueError, match="atoms must be a mask of 30 atoms"):
            kernel.precompute(frames, atoms=wrong)
    with pytest.raises(ValueError, match="atoms must be None"):
        kernel.precompute(features, atoms=atoms)


def test_blocks_with_zeros_are_joined_while_they_are_small(monkeypatch):
    kernel, frames = KERNELS_OF_SPECTRUM[2], mixed_frames()
    features = kernel.precompute(frames)
    assert len(features.joined().blocks) < len(features.blocks)
    expected = kernel.gram(features)
    monkeypatch.setattr("lode.features._LARGEST_JOINED", 0)
    assert len(features.joined().blocks) == len(features.blocks)
    np.testing.assert_allclose(kernel.gram(features), expected, rtol=1e-12)


def test_missing_charges_are_those_of_the_frame_as_given():
    expansion = dataclasses.replace(expansion_of(), sources="charges")
    kernel, frames = PolynomialKernel(lode.PowerSpectrum(expansion)), mixed_frames()
    for atoms in frames[:4]:
        atoms.set_initial_charges(np.ones(5))
    with pytest.raises(ValueError, match=r"got none \(frame 4\)"):
        kernel.precompute(frames)


def test_a_fitted_kernel_stays_as_it_is():
    frames = mixed_frames()
    kernel = lode.WhitenedKernel(SPECTRUM)
    fitted = kernel.fitted(kernel.precompute(frames))
    model = lode.GaussianProcess(fitted, regularization=1e-3)
    model.fit(frames[:5], np.arange(5.0), species=(1, 6, 7, 8, 11, 17))
    other = lode.SparseGaussianProcess(lode.StructureKernel(fitted), 4)
    other.select(frames)
    features = fitted.precompute(frames)
    np.testing.assert_array_equal(
        model.fitted_kernel.gram(features), fitted.gram(features)
    )


def test_single_precision_does_not_reach_the_whitening():
    features = SPECTRUM.compute(mixed_frames())
    values = features.values.astype(np.float32)
    grams = []
    for dtype in (np.float32, np.float64):
        given = dataclasses.replace(features, values=values.astype(dtype))
        kernel = lode.WhitenedKernel(SPECTRUM)
        described = kernel.precompute(given)
        grams.append(kernel.fitted(described).gram(described))
    np.testing.assert_allclose(*grams, rtol=1e-5)


def test_a_term_of_combinations_is_refused():
    kernel = lode.WhitenedKernel(SPECTRUM)
    features = kernel.precompute(mixed_frames(), environments=True)
    with pytest.raises(ValueError, match="must be of single structures"):
        fitted_term(kernel, features.combined(np.eye(6)))
