"""Altered configurations: what is accepted does not fail later, nor write elsewhere."""

import copy
import math
import posixpath
import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("snakemake")

import yaml  # noqa: E402
from snakemake.utils import update_config  # noqa: E402

import summary as summary_script  # noqa: E402
from dimer_features import splits as dimer_splits  # noqa: E402
from lode.datasets.curves import curve_distances  # noqa: E402
from lode.datasets.dimers import charged_dimers, separation  # noqa: E402
from lode.datasets.gas import gas_frames  # noqa: E402
from lode.datasets.synthetic import monomers, synthetic_dimers  # noqa: E402
from lode.electrostatics import ewald_energies  # noqa: E402
from lode.learning import learning_curve  # noqa: E402
from lode.serialization import from_dict  # noqa: E402
from workflows.configuration import (  # noqa: E402
    check_claims,
    check_configuration,
    curve_settings,
    descriptions,
)
from workflows.expressions import ConfigurationError  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / "workflows"
N_MUTATED = 100

# What may come in the place of any value.
STRANGE = (
    *(None, True, False, [], {}, "", "text", "1e-12", "../../outside", "/tmp/outside"),
    *(-1, 0, 1, 2, 10**30, 0.5, -1.0, 1e-300, 1e300, math.nan, math.inf),
    *("lode", "tests/figures", "results/../..", "nope", [1], [0.0, -1.0], {"x": 1}),
)


def configurations():
    """The configuration of the paper, and that of the tests."""
    paper = yaml.safe_load((WORKFLOWS / "config.yaml").read_text())
    small = copy.deepcopy(paper)
    update_config(small, yaml.safe_load((WORKFLOWS / "config.test.yaml").read_text()))
    return paper, small


def leaves(node, place=()):
    """Places of all values, of mappings and lists too."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*place, key))


def mutated(config, generator):
    """A copy with one value or key altered, of a block that is drawn first."""
    config = copy.deepcopy(config)
    block = generator.choice(list(config))
    if not isinstance(config[block], dict):
        config[block] = generator.choice(STRANGE)
        return config, (block,)
    place = generator.choice([(block, *p) for p in leaves(config[block])])
    node = config
    for key in place[:-1]:
        node = node[key]
    key, value = place[-1], node[place[-1]]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    kind = generator.choice(["strange", "scaled" if is_number else "other", "key"])
    if kind == "strange":
        node[key] = generator.choice(STRANGE)
    elif kind == "scaled":
        node[key] = type(value)(value * generator.choice([-1, 0, 0.1, 0.5, 2, 10]))
    elif kind == "other":
        others = [p for p in leaves(config[block]) if len(p) == len(place) - 1]
        other = config[block]
        for step in generator.choice(others):
            other = other[step]
        node[key] = value[::-1] if isinstance(value, list) else copy.deepcopy(other)
    elif isinstance(node, dict) and generator.random() < 0.5:
        del node[key]
    elif isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    else:
        node.append(value)
    return config, place


def is_accepted(config):
    try:
        check_configuration(config)
        check_claims(config)
    except ConfigurationError:
        return False
    return True


def paths_outside(config):
    """Paths that leave the working folder, or lie in a folder of sources."""
    folder = "/run"
    sources = [f"{folder}/{name}" for name in ("lode", "workflows", "tests", "docs")]
    for path in config["pathvars"].values():
        full = posixpath.normpath(posixpath.join(folder, path))
        inside = full.startswith(f"{folder}/") and "~" not in full
        parents = {full, *(str(p) for p in Path(full).parents)}
        if not inside or any(s in parents or s.startswith(f"{full}/") for s in sources):
            yield path


class Unrelaxed:
    """Engine that leaves molecules as they are."""

    def relaxed(self, atoms, charge):
        return atoms


def run_of_small_size(config):
    """What the scripts do first with their settings: here is where they refuse them."""
    gas = config["gas"]
    size = {"n_pairs": min(gas["n_pairs"], 500)}
    kept = {k: gas[k] for k in ("min_distance", "seed")} | size
    frames = gas_frames(2, side=tuple(gas["side"]), **kept)
    few = [min(frames, key=len)]
    ewald_energies(few, tolerance=config["energies"]["tolerance"])
    liquid = config["liquid"]
    sides = 2 * (liquid["side"],)
    gas_frames(1, n_pairs=min(500, liquid["n_pairs"]), side=sides, min_distance=2.2)
    for block, n_frames in (("learning_curve", gas["n_frames"]), ("water_curve", None)):
        curve = curve_settings(config, block)
        n_frames = n_frames or config["water"]["generated"]["n_frames"]
        if n_frames <= 1000:
            values = np.arange(n_frames, dtype=float)
            keys = ("n_train", "n_test", "seed")
            some = {key: curve[key] for key in keys} | {"n_repeats": 1}
            learning_curve(None, values, features=values[:, None], n_threads=1, **some)
    dimers = config["dimers"]
    if dimers["source"] in ("auto", "generated"):
        made = dimers["generated"] | {
            "n_dimers": min(300, dimers["generated"]["n_dimers"])
        }
        found = synthetic_dimers(molecules=monomers(Unrelaxed()), **made)
        found = charged_dimers(found, dimers["elements"])
        for atoms in found[:3]:
            curve_distances(separation(atoms), **dimers["curve"])
        model = config["dimer_model"]
        dimer_splits(found, model["train_fraction"], min(3, model["n_splits"]), 0)
    for block, models in descriptions(config).items():
        for model in models.values():
            from_dict(model.get("model", model) if block == "dimer_models" else model)
    for figure, curves, sizes in (
        ("fig1", "curves", (10, 20, 1500)),
        ("fig2", "dimer_models", ("test", "far", "random splits")),
        ("fig3", "water_models", (100, 800)),
        ("fig3_tensor", "water_tensor_models", (800,)),
    ):
        labels = [curve["label"] for curve in config[curves].values()]
        values = {(label, size): 1.0 for label in labels for size in sizes}
        if figure == "fig2":
            values |= {(label, "slopes"): (-1.1, -0.9) for label in labels}
        for claim in config["summary"]["claims"]:
            if claim["figure"] == figure:
                summary_script.verdict(claim, values, config[curves], {})


@pytest.fixture(scope="module")
def originals():
    return configurations()


def test_the_configurations_themselves_are_accepted_and_run(originals):
    for config in originals:
        assert is_accepted(config)
        run_of_small_size(config)
        assert list(paths_outside(config)) == []


def test_what_is_accepted_of_altered_configurations_does_not_fail_later(originals):
    accepted = 0
    for seed in range(N_MUTATED):
        config, place = mutated(originals[seed % 2], random.Random(seed))
        if not is_accepted(config):
            continue
        accepted += 1
        assert list(paths_outside(config)) == [], (seed, place)
        try:
            run_of_small_size(config)
        except Exception as error:
            error.add_note(f"mutation {seed} at {place}")
            raise
    # Most are refused, but a test of none would say nothing.
    assert N_MUTATED // 20 < accepted < N_MUTATED
