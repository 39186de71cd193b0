"""Files of models: damaged or crafted, they end in ValueError or in a valid model.

With a digest that was computed anew, crafted numbers cannot be told from fitted ones:
then a model that predicts other, finite numbers is all that can be asked for.
"""

import collections
import copy
import json
import math
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import lode
from lode.archive import load_archive, save_archive

RNG = np.random.default_rng(5)
FRAMES = [
    Atoms(symbols, 3.0 * RNG.random((len(symbols), 3)))
    for symbols in ("OH", "OHH", "HH", "OOH") * 3
]
TARGETS = RNG.normal(size=len(FRAMES))
NEW = [Atoms("OHO", 3.0 * RNG.random((3, 3))), Atoms("HH", 2.0 * RNG.random((2, 3)))]
BASIS = lode.RadialBasis.gto(max_radial=2, cutoff=3.0)
RHO = lode.SphericalExpansion(lode.GaussianDensity(0.5), BASIS, max_angular=1)
PHI = lode.SphericalExpansion(
    lode.PowerLawPotential(exponent=1, smearing=1.0),
    lode.RadialBasis.monomial(max_radial=2, cutoff=3.0),
    max_angular=1,
)
SOAP, LODE = lode.PowerSpectrum(RHO), lode.PowerSpectrum(RHO, PHI)
LINEAR, CUBIC = lode.PolynomialKernel(SOAP), lode.PolynomialKernel(LODE, degree=3)
WHITENED = lode.WhitenedKernel(SOAP, n_components=4)
MEAN = lode.PolynomialKernel(LODE, average=True)
SETTINGS = {"regularization": 1e-4}
UNFITTED = {
    "linear": lode.GaussianProcess(
        LINEAR + lode.PolynomialKernel(SOAP, average="species"), n_folds=3
    ),
    "whitened": lode.GaussianProcess(2.0 * WHITENED + LINEAR, **SETTINGS),
    "kernel": lode.GaussianProcess(CUBIC, n_folds=3),
    "sum": lode.GaussianProcess(LINEAR * WHITENED + 0.5 * CUBIC, **SETTINGS),
    "weighted": lode.GaussianProcess(LINEAR + CUBIC, weights="max_likelihood"),
    "structure": lode.GaussianProcess(lode.StructureKernel(MEAN, 2), **SETTINGS),
    "combinations": lode.GaussianProcess(CUBIC, intercept=False, **SETTINGS),
    "sparse": lode.SparseGaussianProcess(LINEAR * WHITENED, n_sparse=8, n_folds=3),
    "sparse structure": lode.SparseGaussianProcess(
        lode.StructureKernel(MEAN, 2), n_sparse=8, **SETTINGS
    ),
    # Of random targets nothing can be learnt, which a chosen one would warn of.
    "equivariant": lode.EquivariantRegression(
        [lode.EquivariantPowerSpectrum(e, angular=1) for e in (RHO, PHI)],
        regularization=1e-3,
    ),
}


@pytest.fixture(scope="module")
def models():
    """Fitted models by their names."""
    fitted = {}
    for name, model in copy.deepcopy(UNFITTED).items():
        inputs, targets = FRAMES, TARGETS
        if name == "combinations":
            pairs = zip(FRAMES[:-1], FRAMES[1:], strict=True)
            inputs = [lode.LinearCombination(pair, (1.0, -1.0)) for pair in pairs]
            targets = np.diff(targets)
        if name == "equivariant":
            targets = np.random.default_rng(0).normal(size=(len(FRAMES), 3))
        fitted[name] = model.fit(inputs, targets, n_threads=1)
    return fitted


def predicted(model):
    """Predictions, with their standard deviations where there are any."""
    if isinstance(model, lode.EquivariantRegression):
        return model.predict(NEW, n_threads=1)
    return np.stack(model.predict(NEW, return_std=True, n_threads=1))


def outcome(path, expected):
    """What became of a file: refused, useless, the same or other predictions."""
    try:
        model = lode.load(path)
    except ValueError:
        return "refused"
    try:
        values = predicted(model)
    except ValueError:
        # Such as a model of charges, which the frames do not have.
        return "useless"
    assert values.shape == expected.shape
    assert np.isfinite(values).all()
    return "same" if np.array_equal(values, expected) else "other"


def damaged(content, rng):
    """Some bytes changed, left out, doubled or exchanged."""
    data, kind = bytearray(content), rng.integers(6)
    n = int(2 ** rng.uniform(0, 8))
    i, j = sorted(int(k) for k in rng.integers(len(data), size=2))
    if kind == 0:
        data[i] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[i : i + n] = rng.bytes(len(data[i : i + n]))
    elif kind == 2:
        data[i : i + n] = bytes(len(data[i : i + n]))
    elif kind == 3:
        del data[i : [i + n, len(data)][int(rng.integers(2))]]
    elif kind == 4:
        data[i:i] = data[j : j + n]
    else:
        data[i : i + n], data[j : j + n] = data[j : j + n], data[i : i + n]
    return bytes(data)


VALUES = [
    *(None, True, False, "", "x", "species", [], {}, [1, 8], [None], ["x"], [[1]]),
    *(0, 1, -1, 2, 3, 1.5, 0.0, 1e-300, 1e300, 1e4, 2**31, 2**62, -(2**63), 10**400),
    *(math.nan, math.inf, -math.inf, {"PowerSpectrum": None}, {"Features": {}}),
    json.loads("[" * 200 + "]" * 200),
    {"ScaledKernel": {"kernel": {"SumKernel": {"kernels": [1]}}, "weight": 1}},
]


def nodes(tree):
    """Container and key of everything in nested data."""
    keys = tree if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from nodes(tree[key])


def change_header(header, rng):
    """Replace, leave out, rename or exchange something in the header."""
    found = list(nodes(header))
    (tree, key), (other, place) = (found[i] for i in rng.integers(len(found), size=2))
    kind = rng.integers(8)
    if kind == 0:
        del tree[key]
    elif kind == 1 and isinstance(tree, dict):
        name = list(lode.__all__)[rng.integers(len(lode.__all__))]
        tree[name] = tree.pop(key)
    elif kind == 2:
        tree[key] = copy.deepcopy(other[place])
    elif kind == 3 and isinstance(tree[key], int | float):
        tree[key] = tree[key] * float(rng.choice([-1.0, 0.5, 2.0, 10.0]))
    else:
        tree[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])


def change_array(arrays, rng):
    """Replace, leave out, rename or exchange an array or some of its numbers."""
    names = list(arrays)
    name, other = (names[i] for i in rng.integers(len(names), size=2))
    array = arrays[name]
    place = tuple(int(rng.integers(n)) for n in array.shape if array.size)
    axis = int(rng.integers(max(1, array.ndim)))
    with np.errstate(all="ignore"):
        arrays[name] = [
            lambda: np.full_like(array, 1, shape=()),
            lambda: array[..., None],
            lambda: array.ravel(),
            lambda: array.T,
            lambda: array[..., :-1] if array.ndim else array,
            lambda: array[:-1] if array.ndim else array,
            lambda: np.concatenate([array, array], axis) if array.ndim else array,
            lambda: np.flip(array),
            lambda: rng.permutation(array) if array.ndim else array,
            lambda: arrays[other],
            lambda: array.astype(
                "U9" if array.dtype.kind == "U" else rng.choice([*"fg?UBe", ">f8"])
            ),
            lambda: np.zeros_like(array),
            lambda: array[:0] if array.ndim else array,
            lambda: changed_numbers(array, ..., rng),
            lambda: changed_numbers(array, place, rng),
            lambda: changed_numbers(array, place, rng),
            lambda: changed_numbers(array, place, rng),
        ][rng.integers(17)]()
    if rng.integers(15) == 0:
        arrays[f"{name}_0"] = arrays.pop(name)
    if rng.integers(15) == 0:
        arrays.pop(other, None)


def changed_numbers(array, place, rng):
    array = array.copy()
    if array.size == 0:
        return array
    if array.dtype.kind == "U":
        array[place] = rng.choice(["", "x", "sums"])
    elif array.dtype.kind in "iu":
        value = [0, 1, -1, 8, 2**31, 2**62, -(2**63), array + 2**62, -array, array + 1]
        value = value[rng.integers(len(value))]
        array[place] = value[place] if np.ndim(value) else value
    else:
        factors = [-1.0, 1.5, 0.0, 1e-30, 1e30, 1e200, np.nan, np.inf]
        array[place] = array[place] * rng.choice(factors)
    return array


@pytest.mark.parametrize("name", UNFITTED)
def test_model_survives_a_file(models, name, tmp_path):
    models[name].save(tmp_path / "model.npz")
    assert outcome(tmp_path / "model.npz", predicted(models[name])) == "same"


def test_one_changed_bit_of_a_number_is_refused(models, tmp_path):
    path = tmp_path / "model.npz"
    models["kernel"].save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["solution_weights"][0] = np.nextafter(arrays["solution_weights"][0], np.inf)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="complete model file.*its digest differs"):
        lode.load(path)
    del arrays["digest"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="complete model file.*without a digest"):
        lode.load(path)


def test_arrays_in_another_order_are_refused(models, tmp_path):
    path = tmp_path / "model.npz"
    models["linear"].save(path)
    with np.load(path) as archive:
        arrays = dict(reversed(list(archive.items())))
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="its digest differs"):
        lode.load(path)


def test_model_of_another_version_is_refused(models, tmp_path):
    path = tmp_path / "model.npz"
    models["linear"].save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    old = str(arrays.pop("header")).replace('"version": 4', '"version": 2')
    del arrays["digest"]
    np.savez(path, header=np.array(old), **arrays)
    with pytest.raises(ValueError, match="of version 3 or 4, got version 2"):
        lode.load(path)


def npy(header, content=b""):
    """Bytes of an array whose description says anything."""
    text = header if isinstance(header, bytes) else header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def described(dtype, shape):
    return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    "content",
    [
        npy(described("<f8", (2**40,)), bytes(8)),
        npy(described("<f8", (2**62, 2**62)), bytes(8)),
        npy(described("<f8", (-1, -1)), bytes(8)),
        npy(described("<f8", (0, 2**62, 2**62))),
        npy(described("<U0", (2**50,))),
        npy(described("|O", (1,)), b"cos\nsystem\n(S'true'\ntR."),
        npy(described("|V8", (1,)), bytes(8)),
        npy(described([("x", "<f8")], (1,)), bytes(8)),
        npy(described("<f8", (1,)), bytes(9)),
        npy("[" * 300 + "]" * 300),
        npy("-" * 900 + "1"),
        npy("{'shape': (1L, "),
        npy("(" + "\n" * 5 + '"""'),
        npy(b"\xff\xfe" * 20),
        b"\x93NUMPY\x02\x00" + npy(described("<f8", (1,)), bytes(8))[8:],
        b"",
        b"nothing",
    ],
    ids=range(17),
)
def test_array_that_is_not_what_it_claims_is_refused(content, models, tmp_path):
    path = tmp_path / "model.npz"
    models["linear"].save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.npy", content)
    with pytest.raises(ValueError, match="must be a complete model file"):
        lode.load(path)


def test_archive_that_takes_more_memory_than_its_size_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    np.savez_compressed(path, header=np.array("{}"), zeros=np.zeros(2**22))
    tracemalloc.start()
    with pytest.raises(ValueError, match="must be smaller than their file"):
        lode.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The array alone has 32 MB; the file 33 kB.
    assert peak < 2**20


def test_compressed_or_doubled_arrays_are_refused(models, tmp_path):
    path = tmp_path / "model.npz"
    models["linear"].save(path)
    with zipfile.ZipFile(path, "a") as archive:
        number = npy(described("<f8", (1,)), bytes(8))
        archive.writestr("more.npy", number, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="must not be compressed"):
        lode.load(path)
    models["linear"].save(path)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("header.npy", archive.read("header.npy"))
    with pytest.raises(ValueError, match="names must differ"):
        lode.load(path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{", "[]", "null", "7" * 5000, '{"kind": ["model"]}', ""]
)
def test_header_that_is_none_is_refused(text, tmp_path):
    np.savez(tmp_path / "model.npz", header=np.array(text))
    with pytest.raises(ValueError, match="must be a complete model file"):
        lode.load(tmp_path / "model.npz")


def test_objects_are_not_saved(tmp_path):
    with pytest.raises(TypeError, match="x must hold numbers or text, got object"):
        save_archive(tmp_path / "x.npz", "model", {}, {"x": np.array([None])})
    assert list(tmp_path.iterdir()) == []


# What is changed in a file whose digest is computed anew, and what the error says.
CRAFTED = [
    ("linear", "solution_weights", lambda a: a * np.nan, "must be from"),
    ("linear", "solution_weights", lambda a: a[:-1], "must have shape"),
    ("linear", "solution_weights", lambda a: a.astype(int), "must be of kind float"),
    ("linear", "solution_ridge", lambda a: -a, "ridge must be from"),
    ("linear", "columns_0_8", lambda a: a[:-1], "one of .* columns"),
    ("linear", "columns_1_8", lambda a: 0 * a, "each entry once"),
    ("whitened", "kernel_0_matrix_1", lambda a: a.T, "matrix_1 must have shape"),
    ("whitened", "kernel_0_mean_8", lambda a: a + np.inf, "mean_8 must be from"),
    ("whitened", "columns_0_1", lambda a: a + 1, "those of the whitened kernel"),
    ("kernel", "training_structures_0", lambda a: a + 2**62, "must be from 0 to"),
    ("kernel", "training_structures_0", lambda a: -1 - a, "must be from 0 to"),
    ("kernel", "training_counts_1", lambda a: a + 2**62, "must be from 1 to"),
    ("kernel", "training_counts_1", lambda a: a + 1, "values_1_0 must have shape"),
    ("kernel", "training_n_structures", lambda a: a + 1, "must have environments"),
    ("kernel", "training_n_structures", lambda a: a + 2**50, "must have environments"),
    ("kernel", "training_neighbor_species", lambda a: a + 1, "neighbour species"),
    ("kernel", "training_keys", lambda a: np.char.upper(a), "must end with"),
    ("combinations", "training_weights_column", lambda a: a + 99, "must be from 0"),
    ("combinations", "training_weights_start", lambda a: a[::-1], ""),
    ("sparse", "transform", lambda a: a[:, :-1], "transform must have shape"),
    ("sparse", "kernel_0_columns_1", lambda a: a[:0], "must have shape"),
    ("equivariant", "coefficients_1", lambda a: a[:, 1:], "must have shape"),
]


@pytest.mark.parametrize(("name", "array", "change", "match"), CRAFTED)
def test_crafted_array_is_refused(models, name, array, change, match, tmp_path):
    models[name].save(tmp_path / "model.npz")
    header, arrays = load_archive(tmp_path / "model.npz", "model")
    del header["kind"]
    arrays[array] = change(arrays[array])
    save_archive(tmp_path / "model.npz", "model", header, arrays)
    with pytest.raises(ValueError, match=f"must hold a complete model: .*{match}"):
        lode.load(tmp_path / "model.npz")


@pytest.mark.parametrize("value", [None, "x", 7, [[1]], {"a": 1}, [10**400], [1, 1]])
@pytest.mark.parametrize("key", ["model", "species", "fitted_kernel"])
def test_crafted_header_is_refused(models, key, value, tmp_path):
    models["weighted"].save(tmp_path / "model.npz")
    header, arrays = load_archive(tmp_path / "model.npz", "model")
    del header["kind"]
    save_archive(tmp_path / "model.npz", "model", header | {key: value}, arrays)
    with pytest.raises(ValueError, match="must hold a complete model"):
        lode.load(tmp_path / "model.npz")


@pytest.mark.slow
@pytest.mark.parametrize("name", UNFITTED)
def test_damaged_file_is_refused_or_predicts_the_same(models, name, tmp_path):
    path, expected = tmp_path / "model.npz", predicted(models[name])
    models[name].save(path)
    content, rng = path.read_bytes(), np.random.default_rng(11)
    counts = collections.Counter()
    for _ in range(500):
        path.write_bytes(damaged(content, rng))
        counts[outcome(path, expected)] += 1
    print(name, dict(counts))
    assert counts.keys() <= {"refused", "same"}
    assert counts["refused"] > 250


@pytest.mark.slow
@pytest.mark.parametrize("name", UNFITTED)
@pytest.mark.parametrize("change", [change_header, change_array])
def test_crafted_file_is_refused_or_predicts_numbers(models, name, change, tmp_path):
    path, expected = tmp_path / "model.npz", predicted(models[name])
    models[name].save(path)
    header, arrays = load_archive(path, "model")
    rng, counts = np.random.default_rng(7), collections.Counter()
    for _ in range(100):
        own = copy.deepcopy(header), dict(arrays)
        change(own[change is change_array], rng)
        own[0].pop("kind", None)
        save_archive(path, "model", *own)
        with warnings.catch_warnings():
            # Absurd numbers may overflow on their way to an error.
            warnings.simplefilter("ignore")
            counts[outcome(path, expected)] += 1
    print(name, change.__name__, dict(counts))
    assert counts["refused"] > 40


def salt(seed=0):
    atoms = bulk("NaCl", "rocksalt", a=5.6 + 0.02 * seed, cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


@pytest.mark.filterwarnings("ignore:leave-one-out errors")
@pytest.mark.parametrize("kind", ["full", "sparse", "committee", "tensor"])
def test_a_model_with_a_potential_is_kept_to_its_boundaries(kind, tmp_path):
    basis = lode.RadialBasis.gto(2, 3.0)
    potential = lode.SphericalExpansion(lode.PowerLawPotential(1, 1.0), basis, 1)
    frames, targets = [salt(seed) for seed in range(6)], np.arange(6.0)
    kernel = lode.PolynomialKernel(lode.PowerSpectrum(potential))
    settings = {"regularization": 1e-3, "n_folds": 2}
    model = lode.GaussianProcess(kernel, **settings)
    if kind in ("sparse", "committee"):
        model = lode.SparseGaussianProcess(kernel, n_sparse=8, **settings)
    if kind == "committee":
        model = lode.Committee(model, n_members=2)
    if kind == "tensor":
        descriptor = lode.EquivariantPowerSpectrum(potential, angular=1)
        model = lode.EquivariantRegression(descriptor, n_components=4)
        targets = np.random.default_rng(0).normal(size=(6, 3))
    model.fit(frames, targets)
    model.save(tmp_path / "model.npz")
    molecule = frames[0].copy()
    molecule.pbc = False
    for fitted in (model, lode.load(tmp_path / "model.npz")):
        fitted.predict(frames)
        with pytest.raises(ValueError, match=r"periodic, got a finite .*structure 1"):
            fitted.predict([frames[1], molecule])
    if kind == "full":
        with pytest.raises(ValueError, match="got a finite"):
            model.predict([molecule], forces=True)
        mixed = model.fit([*frames, molecule], np.arange(7.0))
        mixed.predict([molecule, frames[0]])


def test_a_model_of_densities_takes_any_boundaries():
    density = lode.SphericalExpansion(
        lode.GaussianDensity(0.5), lode.RadialBasis.gto(2, 3.0), 1
    )
    kernel = lode.PolynomialKernel(lode.PowerSpectrum(density))
    model = lode.GaussianProcess(kernel, regularization=1e-3)
    model.fit([salt(seed) for seed in range(4)], np.arange(4.0))
    molecule = salt()
    molecule.pbc = False
    assert np.isfinite(model.predict([molecule])).all()


def test_a_file_of_the_version_before_is_read(models, tmp_path):
    # What it lacks has defaults, and numbers of frames were whole.
    model = models["sparse"]
    model.save(tmp_path / "model.npz")
    header, arrays = load_archive(tmp_path / "model.npz", "model")
    header["version"] = 3
    del header["boundaries"], header["learnt"], header["kind"]
    for name in ("energy_noise", "force_noise", "stress_noise", "baseline"):
        header["model"]["SparseGaussianProcess"].pop(name)
    count = arrays["solution_modes_n_train"]
    arrays["solution_modes_n_train"] = count.astype(int)
    save_archive(tmp_path / "old.npz", "model", header, arrays)
    old = lode.load(tmp_path / "old.npz")
    np.testing.assert_array_equal(old.predict(NEW), model.predict(NEW))
    with pytest.raises(ValueError, match="fit it again"):
        old.predict(NEW, return_std=True)
