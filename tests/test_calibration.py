"""Intervals of predictions cover as many new targets as they say."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

import lode

SPLITS = range(10)
DATA = Path(os.environ.get("LODE_DATA", "nowhere"))


def polynomial(expansion, other=None, **options):
    return lode.PolynomialKernel(lode.PowerSpectrum(expansion, other), **options)


def density(smearing, max_radial, max_angular, cutoff):
    basis = lode.RadialBasis.gto(max_radial, cutoff)
    return lode.SphericalExpansion(lode.GaussianDensity(smearing), basis, max_angular)


def coverage(predicted):
    """Percent of errors within one and 1.96 standard deviations, of all splits."""
    errors, stds = (np.concatenate(parts) for parts in zip(*predicted, strict=True))
    scaled = np.abs(errors) / stds
    return 100 * np.mean(scaled < 1.0), 100 * np.mean(scaled < 1.96)


def check(predicted):
    inner, outer = coverage(predicted)
    assert 60.0 <= inner <= 76.0
    assert 91.0 <= outer <= 98.0


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_intervals_cover_what_a_kernel_describes_badly(noise):
    # Wiggles that the kernel takes for smooth, with little and with much noise.
    rng = np.random.default_rng(0)
    x = rng.uniform(-3.0, 3.0, (1000, 3))
    y = np.sin(2 * x).sum(axis=1) + np.abs(x[:, 0]) + noise * rng.normal(size=1000)
    gram = np.exp(-((x[:, None] - x) ** 2).sum(axis=-1) / 4.0)
    predicted = []
    for seed in SPLITS:
        order = np.random.default_rng(seed).permutation(1000)
        train, test = order[:150], order[150:450]
        solution = lode.fit_kernel(gram[np.ix_(train, train)], y[train])
        options = {"diagonal": np.ones(300), "return_std": True}
        found, std = solution.predict(gram[np.ix_(test, train)], **options)
        predicted.append((found - y[test], std))
    check(predicted)


def split(kernel, features, targets, n_train, n_test):
    """Errors and standard deviations of ten splits."""
    for seed in SPLITS:
        order = np.random.default_rng(seed).permutation(len(targets))
        train, test = np.sort(order[:n_train]), np.sort(order[n_train:][:n_test])
        model = lode.GaussianProcess(kernel).fit(features.chosen(train), targets[train])
        found, std = model.predict(features.chosen(test), return_std=True)
        yield found - targets[test], std


@pytest.mark.slow
@pytest.mark.parametrize("n_train", [100, 200])
def test_intervals_of_water_cover_what_they_say(n_train):
    path = DATA / "water_bulk_coords_1000.xyz"
    if not path.exists():
        pytest.skip("the boxes of water are not in LODE_DATA")
    frames = read(path, ":500")
    tensors = [np.reshape(frame.info["epsilon"], (3, 3)) for frame in frames]
    basis = lode.RadialBasis.monomial(3, 3.0)
    coulomb = lode.PowerLawPotential(1, 1.0)
    potential = lode.SphericalExpansion(coulomb, basis, 4, tolerance=1e-8)
    kernel = polynomial(density(0.3, 6, 4, 3.0), degree=2, normalize=True)
    kernel += lode.WhitenedKernel(lode.PowerSpectrum(potential), exponent=0.3)
    features = kernel.precompute(frames)
    targets = np.trace(tensors, axis1=1, axis2=2)
    check(split(kernel.fitted(features), features, targets, n_train, 250))


@pytest.mark.slow
@pytest.mark.parametrize("n_train", [100, 300])
def test_intervals_of_dimers_cover_what_they_say(n_train):
    path = DATA / "bfdb_ssi_charged.extxyz.gz"
    if not path.exists():
        pytest.skip("the charged dimers are not in LODE_DATA")
    frames = read(path, ":")
    pairs, targets = [], []
    for frame in frames:
        frame.set_initial_charges(lode.formal_charges(frame))
        n = frame.info["n_atoms_a"]
        pairs.append(
            lode.LinearCombination([frame, frame[:n], frame[n:]], [1.0, -1.0, -1.0])
        )
        coulomb = [lode.ewald(part).energy for part in pairs[-1].structures]
        targets.append(frame.info["e_int_ref_eV"] - np.dot([1.0, -1.0, -1.0], coulomb))
    potential = lode.SphericalExpansion(
        lode.PowerLawPotential(1, 1.0), lode.RadialBasis.gto(3, 3.0), 3
    )
    kernel = polynomial(density(0.4, 6, 4, 4.0), degree=2, normalize=True)
    kernel += 1e-4 * polynomial(density(0.5, 4, 3, 3.0), potential)
    features = kernel.precompute(pairs)
    check(split(kernel, features, np.array(targets), n_train, 250))
