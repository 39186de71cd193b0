"""Check of the workflow's configuration before any rule runs, and what it describes."""

import functools
import math
import posixpath
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import numpy as np
import yaml
from ase.data import atomic_numbers

import lode
from lode.datasets.dimers import COULOMB
from lode.datasets.gas import checked_settings
from lode.datasets.synthetic import monomers, synthetic_dimers
from lode.kernels import Kernel
from lode.serialization import to_dict
from workflows.expressions import (
    ConfigurationError,
    definitions,
    evaluate,
    faults_at,
)

SCHEMA = Path(__file__).parent / "schemas" / "config.schema.yaml"

# For each figure its curves, and the block with the sizes of their training sets.
_FIGURES = {
    "fig1": ("curves", "learning_curve"),
    "fig2": ("dimer_models", None),
    "fig3": ("water_models", "water_curve"),
    "fig3_tensor": ("water_tensor_models", "water_curve"),
}
# For each block of sizes what gives the number of frames.
_CURVES = {
    "learning_curve": "gas.n_frames",
    "water_curve": "water.generated.n_frames",
}
# Boxes in the published file.
_PUBLISHED_BOXES = 1000
# Of the frames, where the sizes that are asked for do not fit.
_LARGEST_TEST_SHARE = 4
# Share of the smallest box that charges put down at random may fill, and that more than
# so many of them may: beyond, some box of some hundred has no place for the last ones.
_DENSEST, _DENSEST_OF_MANY, _MANY = 0.31, 0.2, 1000
# Å: closest ions that a liquid begins with, closest molecules, farthest in contact.
LIQUID_CLOSEST, _CLOSEST_DIMER, _FARTHEST_CONTACT = 2.2, 3.0, 10.0
# Of rock salt; where the repulsion of the salt ends, in Å.
_MADELUNG, SALT_REACH = 1.747564594633, 7.0
# Dimers of the stand-in that are tried out; classes of dimers.
_CONTACTS, _CLASSES = 20, 5
# What the diffusion is taken from, and the longest time in fs from one to the next.
_FEWEST_RECORDS, _LONGEST_INTERVAL = 20, 1500.0
# Folders of the project that no rule may write into.
_SOURCES = (
    *("lode", "workflows", "tests", "docs", "profiles", "benchmarks"),
    *(".ci", ".git", ".snakemake"),
)
# Data of each block of definitions: atomic numbers, charges, and whether periodic.
_CONTENTS = {
    "gas_definitions": ({11, 17}, True, True),
    "dimer_definitions": ({1, 6, 7, 8}, True, False),
    "water_definitions": ({1, 8}, False, True),
    "salt_definitions": ({11, 17}, True, True),
    "force_dimer_definitions": ({1, 6, 7, 8}, True, False),
}
# What a figure shows of a curve beside its numbers.
_SHOWN = ("label", "note", "group", "counterpart", "reference")


def check_configuration(config, schema=SCHEMA):
    """Refuse a configuration with unknown keys or values out of range.

    Parameters
    ----------
    config : dict
        The whole configuration, defaults and overrides merged.
    schema : path_like
        JSON schema in YAML.

    Raises
    ------
    ConfigurationError
        With one message for the first fault: where it is, what was wanted and
        what came.
    """
    validator = _Validator(_schema(schema))
    error = jsonschema.exceptions.best_match(validator.iter_errors(config))
    if error is not None:
        raise ConfigurationError(error.absolute_path, _message(error))
    _check_paths(config)
    for block in _CURVES:
        curve_settings(config, block)
    _check_ranges(config)
    descriptions(config)
    _check_references(config)


@functools.cache
def _schema(path):
    # The loader that is compiled, where there is one, is ten times faster.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=loader)


def typed(value):
    """Values of ``--config`` as the same text in a file would give them.

    Snakemake reads the mappings and lists there without types: ``{n_frames: 100}``
    holds the text ``100``.

    Parameters
    ----------
    value : object
        What Snakemake has made of it.

    Returns
    -------
    object
        With numbers, truth values and nulls in the place of their texts.

    Examples
    --------
    >>> typed({"n_frames": "100", "side": ["8.0", "1e1"], "source": "auto"})
    {'n_frames': 100, 'side': [8.0, '1e1'], 'source': 'auto'}
    """
    if isinstance(value, Mapping):
        return {key: typed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [typed(each) for each in value]
    if not isinstance(value, str):
        return value
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    is_scalar = found is None or isinstance(found, bool | int | float)
    return found if is_scalar else value


def curve_settings(config, block):
    """Settings of learning curves, with the sizes that fit into the frames.

    Where the largest training set and the test set do not fit, the test set has at most
    a quarter of the frames, and training sets for which the rest is too small are left
    out.

    Parameters
    ----------
    config : dict
        The configuration.
    block : {'learning_curve', 'water_curve'}
        Which curves.

    Returns
    -------
    dict
        The block with ``n_train`` and ``n_test`` that fit.

    Raises
    ------
    ConfigurationError
        If no training set fits.
    """
    curve, n_frames = config[block], _frame_count(config, block)
    n_train, n_test = curve["n_train"], curve["n_test"]
    if max(n_train) + n_test > n_frames:
        n_test = min(n_test, n_frames // _LARGEST_TEST_SHARE)
        n_train = [n for n in n_train if n + n_test <= n_frames]
    if n_test < 2 or not n_train:
        raise ConfigurationError(
            [block],
            f"one of the sizes {curve['n_train']} must fit into {_CURVES[block]} = "
            f"{n_frames} beside a test set of at most a quarter of them",
        )
    return curve | {"n_train": n_train, "n_test": n_test}


def size_notes(config):
    """What :func:`curve_settings` changes, a line for each block that it changes.

    Parameters
    ----------
    config : dict
        The configuration.

    Returns
    -------
    list of str
    """
    notes = []
    for block in _CURVES:
        asked, made = config[block], curve_settings(config, block)
        if made != asked:
            left_out = sorted(set(asked["n_train"]) - set(made["n_train"]))
            notes.append(
                f"{block}: for {_frame_count(config, block)} frames, n_test is "
                f"{made['n_test']} instead of {asked['n_test']}, n_train without "
                f"{left_out}"
            )
    return notes


def _frame_count(config, block):
    """Number of frames of some learning curves, the least where it is not known."""
    if block == "learning_curve":
        return config["gas"]["n_frames"]
    source, n_boxes = (
        config["water"]["source"],
        config["water"]["generated"]["n_frames"],
    )
    return {
        "published": _PUBLISHED_BOXES,
        "generated": n_boxes,
        "auto": min(_PUBLISHED_BOXES, n_boxes),
    }[source]


def check_claims(config):
    """Refuse claims that no run could check.

    They are checked where the summary is asked for, and not for one figure alone.

    Parameters
    ----------
    config : dict
        The configuration, checked otherwise.

    Raises
    ------
    ConfigurationError
        With the first fault.
    """
    for i, claim in enumerate(config["summary"]["claims"]):
        place = "summary", "claims", i
        curves, sizes = _FIGURES[claim["figure"]]
        for key in ("curve", "relative_to"):
            if key in claim:
                _check_name((*place, key), claim[key], config[curves])
        faults = {
            f"set must be given for fig2 and for no other, got {claim}": (
                ("set" in claim) != (sizes is None)
            ),
            f"slopes must not be relative, got {claim}": (
                claim.get("set") == "slopes" and "relative_to" in claim
            ),
            "any_data must not be true of a claim with the paper's number: a stand-in "
            f"is never compared with it, got {claim}": (
                claim.get("any_data", False) and "paper" in claim
            ),
            "paper_above and paper_below must bound what paper quotes, got none": (
                ("paper_above" in claim or "paper_below" in claim)
                and "paper" not in claim
            ),
        }
        for kind in ("", "paper_"):
            low, high = claim.get(f"{kind}above"), claim.get(f"{kind}below")
            message = f"{kind}above must be less than {kind}below, got {low} and {high}"
            faults[message] = None not in (low, high) and not low < high
        for message, is_fault in faults.items():
            if is_fault:
                raise ConfigurationError(place, message)


def descriptions(config):
    """Complete descriptions of what the rules compute, for their parameters.

    Parameters
    ----------
    config : dict
        The configuration; expressions and the expansions that they name.

    Returns
    -------
    dict of str to dict
        For each block of models, by name, plain nested data for
        :func:`lode.serialization.from_dict`, with the defaults of the library. Every
        object has been built.

    Raises
    ------
    ConfigurationError
        If an expression, or what it describes, is faulty.
    """
    for block, contents in _CONTENTS.items():
        _check_contents(config, block, *contents)
    gas = definitions(config, "gas_definitions")
    dimers = definitions(config, "dimer_definitions")
    water = definitions(config, "water_definitions")
    found = {"curves": {}, "dimer_models": {}, "water_kernels": {}}
    for name, curve in config["curves"].items():
        with faults_at("curves", name, "kernel"):
            kernel = _object(curve["kernel"], gas, Kernel)
            if not kernel.is_fitted:
                raise ValueError("a curve must have a kernel with nothing to fit")
        found["curves"][name] = to_dict(kernel)
    for name, model in config["dimer_models"].items():
        with faults_at("dimer_models", name, "kernel"):
            kernel = _object(model["kernel"], dimers, Kernel)
        with faults_at("dimer_models", name, "sparse"):
            sparse = lode.SparseGaussianProcess(kernel, **model["sparse"])
        found["dimer_models"][name] = {
            "difference": model["difference"],
            "model": to_dict(sparse),
        }
    salt = definitions(config, "salt_definitions")
    found["salt_models"] = {}
    for name, model in config["salt_models"].items():
        with faults_at("salt_models", name, "kernel"):
            kernel = _object(model["kernel"], salt, Kernel)
        with faults_at("salt_models", name, "sparse"):
            sparse = lode.SparseGaussianProcess(kernel, **model["sparse"])
        found["salt_models"][name] = to_dict(sparse)
    pulled = definitions(config, "force_dimer_definitions")
    found["force_dimer_models"] = {}
    for name, model in config["force_dimer_models"].items():
        with faults_at("force_dimer_models", name, "kernel"):
            kernel = _object(model["kernel"], pulled, Kernel)
        baseline = lode.PointCharges("formal") if model["point_charges"] else None
        # Energies of the molecules are not learnt: a constant of each composition.
        settings = config["force_dimers"]["sparse"] | {"intercept": "species"}
        with faults_at("force_dimers", "sparse"):
            sparse = lode.SparseGaussianProcess(kernel, baseline=baseline, **settings)
        found["force_dimer_models"][name] = to_dict(sparse)
    for name, model in config["water_models"].items():
        for kernel in model["kernels"]:
            with faults_at("water_models", name, "kernels"):
                if kernel not in water:
                    raise ValueError(
                        f"a kernel must be one of {list(water)}, got {kernel!r}"
                    )
                spec = to_dict(_object(kernel, water, Kernel))
            found["water_kernels"][kernel] = spec
    found["water_tensor_features"] = {}
    for name, features in config["water_tensor_features"].items():
        with faults_at("water_tensor_features", name, "descriptor"):
            wanted = lode.EquivariantPowerSpectrum
            descriptor = _object(features["descriptor"], water, wanted)
            if (descriptor.angular, descriptor.parity) != (2, 1):
                raise ValueError(
                    "a descriptor must be of angular = 2 and parity = 1, as the tensor "
                    f"is, got {descriptor.angular} and {descriptor.parity}"
                )
        found["water_tensor_features"][name] = to_dict(descriptor)
    return found


def shown(curves):
    """What the figures show of each curve: a change of nothing else draws them anew.

    Parameters
    ----------
    curves : dict of str to dict
        Curves of one figure.

    Returns
    -------
    dict of str to dict
    """
    return {
        name: {key: curve[key] for key in _SHOWN if key in curve}
        for name, curve in curves.items()
    }


def chunks(n, size):
    """Chunks that many structures are computed in, each by a job of its own.

    Parameters
    ----------
    n, size : int
        Number of structures, and of those in a chunk.

    Returns
    -------
    dict of str to dict
        By name ``first`` and ``n_frames``: place of the first, and how many.

    Examples
    --------
    >>> chunks(5, 3)
    {'0': {'first': 0, 'n_frames': 3}, '1': {'first': 3, 'n_frames': 2}}
    """
    return {
        str(i): {"first": first, "n_frames": min(size, n - first)}
        for i, first in enumerate(range(0, n, size))
    }


def liquid_potentials(config):
    """Models that the liquid is run by, and what each learns from.

    Parameters
    ----------
    config : dict
        The configuration.

    Returns
    -------
    dict of str to dict
        ``model``, ``n_train`` and ``runs``, by a name of both former.
    """
    models = config["liquid"]["models"]
    return {f"{each['model']}_{each['n_train']}": each for each in models}


def salt_label(config, name, n_train):
    """What the figures call a model of ions that has learnt from so many frames."""
    return f"{config['salt_models'][name]['label']}, {n_train} frames"


def source_line(place, files):
    """Where a key of the configuration stands.

    Parameters
    ----------
    place : sequence of str or int
        The keys that lead there.
    files : sequence of path_like
        Files in YAML; the last that has the key counts.

    Returns
    -------
    str
        File and line; empty if no file has the key.
    """
    for file in reversed(files):
        node = yaml.compose(Path(file).read_text(encoding="utf-8"))
        line = 0
        for key in place:
            inside = {}
            if isinstance(node, yaml.MappingNode):
                inside = {k.value: (k, v) for k, v in node.value}
            elif isinstance(node, yaml.SequenceNode):
                inside = dict(enumerate((v, v) for v in node.value))
            if key not in inside:
                break
            start, node = inside[key]
            line = start.start_mark.line + 1
        else:
            if line:
                return f"{file}, line {line}"
    return ""


def given_at(place, config):
    """Whether a part of the configuration has a key.

    Parameters
    ----------
    place : sequence of str or int
        The keys that lead there.
    config : dict
        The part.

    Returns
    -------
    bool
    """
    try:
        for key in place:
            config = config[key]
    except (LookupError, TypeError):
        return False
    return len(place) > 0


def _is_number(_, value):
    """Whether a number is one that can be computed with: not infinite, not NaN."""
    try:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    except OverflowError:
        return False


def _is_integer(_, value):
    """Whether it is written as an integer: of 100.0 no list has a hundred elements."""
    return isinstance(value, int) and not isinstance(value, bool)


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer}
    ),
)


def _check_contents(config, block, species, has_charges, is_periodic):
    """Expansions must fit their data: species, charges, boundaries."""
    for name, value in config[block].items():
        if isinstance(value, str):
            continue
        missing = sorted(species - set(value.get("species", species)))
        _require(
            not missing,
            (block, name, "species"),
            f"must hold all atomic numbers of the data, got none of {missing}",
        )
        _require(
            has_charges or value.get("sources") != "charges",
            (block, name, "sources"),
            "must be species: the atoms of these data have no charges",
        )
        _require(
            not is_periodic or "density" in value or value.get("method") != "pairs",
            (block, name, "method"),
            "must not be pairs: these data are periodic, and the potential has no end",
        )


def _object(text, names, kind):
    value = evaluate(text, names)
    if not isinstance(value, kind):
        raise TypeError(f"{text!r} must be {kind.__name__}, got {type(value).__name__}")
    return value


def _message(error):
    """What was wanted, what came."""
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", ()))
        patterns = error.schema.get("patternProperties", {})
        unknown = sorted(
            key
            for key in error.instance
            if key not in known and not any(_matches(p, key) for p in patterns)
        )
        wanted = f"one of {known}" if known else f"names like {list(patterns)}"
        return f"keys must be {wanted}, got unknown {unknown}"
    if error.validator == "type" and isinstance(error.instance, float):
        wanted = "finite"
        if error.validator_value == "integer":
            wanted = "an integer, without a point or an exponent"
        return f"a number must be {wanted}, got {error.instance}"
    if error.validator == "type" and _is_number_as_text(error.instance):
        return (
            f"{error.message}: for YAML a number with an exponent needs a point and a "
            "sign, as in 1.0e-12 or 1.0e+3"
        )
    return error.message


def _is_number_as_text(value):
    try:
        return isinstance(value, str) and float(value) == float(value)
    except ValueError:
        return False


def _matches(pattern, key):
    """Whether the schema's pattern admits the key."""
    return not list(
        jsonschema.Draft202012Validator({"pattern": pattern}).iter_errors(key)
    )


def _check_paths(config):
    """What the rules write lies in the working folder, and in no folder of sources."""
    paths = {name: posixpath.normpath(p) for name, p in config["pathvars"].items()}
    for name, path in paths.items():
        place = "pathvars", name
        first = path.split("/")[0]
        if posixpath.isabs(path) or first in ("..", "~"):
            raise ConfigurationError(
                place,
                "a path must stay in the working folder, which --directory sets, got "
                f"{config['pathvars'][name]!r}",
            )
        if path == "." or first in _SOURCES:
            raise ConfigurationError(
                place,
                f"a path must be none of {['.', *_SOURCES]} nor inside of one, got "
                f"{config['pathvars'][name]!r}",
            )
    page = paths.pop("readme")
    _require(
        not Path(page).is_dir(),
        ("pathvars", "readme"),
        f"the page must be a file, got the folder {page!r}",
    )
    for name, path in paths.items():
        files = [str(p) for p in (Path(path), *Path(path).parents) if p.is_file()]
        _require(
            not files,
            ("pathvars", name),
            f"a path must be a folder, got the file {files[:1]}",
        )
        if f"{path}/".startswith(f"{page}/"):
            message = f"the page must be a file, got the folder of {name}, {page!r}"
            raise ConfigurationError(("pathvars", "readme"), message)


def _check_ranges(config):
    """Refuse settings that are out of range only together, or that name nothing."""
    for name in ("gas", "dimers", "water", "force_dimers"):
        mirror = config[name]["mirror"]
        is_there = mirror is None or Path(mirror).is_dir()
        _require(is_there, (name, "mirror"), f"must be a folder, got {mirror!r}")
    gas, dimers, liquid = (config[name] for name in ("gas", "dimers", "liquid"))
    with faults_at("gas"):
        _check_packing(
            gas["n_frames"], gas["n_pairs"], gas["side"], gas["min_distance"]
        )
    with faults_at("liquid"):
        _check_packing(1, liquid["n_pairs"], 2 * [liquid["side"]], LIQUID_CLOSEST)

    elements, curve = set(dimers["elements"]), dimers["curve"]
    unknown = sorted(elements - set(atomic_numbers))
    place = "dimers", "elements"
    _require(not unknown, place, f"must be chemical symbols, got {unknown}")
    _require(
        {"H", "C"} <= elements and elements & {"N", "O"},
        place,
        "must hold H, C, and N or O, of which all charged molecules consist, got "
        f"{sorted(elements)}",
    )
    near = [d for d in curve["far"] if d <= curve["reach"]]
    _require(
        not near,
        ("dimers", "curve", "far"),
        f"must lie beyond reach = {curve['reach']}, got {near}",
    )
    if dimers["source"] in ("auto", "generated"):
        with faults_at("dimers", "generated"):
            _check_contacts(dimers["generated"])
        n_dimers, share = (
            dimers["generated"]["n_dimers"],
            config["dimer_model"]["train_fraction"],
        )
        # The largest class has so many at least; random splits round in each.
        n_largest = math.ceil(n_dimers / _CLASSES)
        _require(
            2 <= int(share * n_dimers + 1e-9) < n_dimers
            and 0.5 <= share * n_largest < n_largest - 0.5,
            ("dimer_model", "train_fraction"),
            f"must leave two dimers to learn from and one to test on of {n_dimers}, "
            f"got {share}",
        )

    n_steps = round(1000.0 * liquid["spacing"] / liquid["timestep"])
    message = f"must be a timestep at least, got {liquid['spacing']} ps"
    _require(n_steps >= 1, ("liquid", "spacing"), message)
    n_records, interval = _records(liquid)
    _require(
        n_records >= _FEWEST_RECORDS and interval <= _LONGEST_INTERVAL,
        ("liquid", "every"),
        f"length and every must make {_FEWEST_RECORDS} records at least, no more than "
        f"{_LONGEST_INTERVAL:g} fs apart, got {n_records}, {interval:g} fs apart",
    )
    names = [f"{each['model']}_{each['n_train']}" for each in liquid["models"]]
    _require(
        len(set(names)) == len(names),
        ("liquid", "models"),
        f"must differ in model or n_train, got {names}",
    )
    crystal = config["crystal"]
    n_records, _ = _records(crystal["dynamics"])
    _require(
        n_records >= 2,
        ("crystal", "dynamics"),
        f"length and every must make 2 records at least, got {n_records}",
    )
    _require(
        crystal["strain"] > 0 or crystal["displacement"] > 0,
        ("crystal", "strain"),
        "strain or displacement must be positive: equal frames teach nothing",
    )
    with faults_at("crystal"):
        _check_crystal(crystal["constant"], config["salt"])
    near, made = (config["force_dimers"][key] for key in ("near", "generated"))
    farthest = _FARTHEST_CONTACT + (made["n_points"] - 1) * made["step"]
    _require(
        _CLOSEST_DIMER < near < farthest,
        ("force_dimers", "near"),
        f"must be between the distances of the dimers, {_CLOSEST_DIMER:g} and "
        f"{farthest:g} Å, got {near}",
    )


def _require(holds, place, message):
    if not holds:
        raise ConfigurationError(place, message)


def _records(run):
    """Number of records of a run, and the time from one to the next in fs."""
    n_steps = round(1000.0 * run["length"] / run["timestep"])
    return n_steps // run["every"], run["every"] * run["timestep"]


def _check_packing(n_frames, n_pairs, side, min_distance):
    """Refuse charges that cannot be put down at random, or not surely."""
    _, n_charges, shortest, *_ = checked_settings(
        n_frames, n_pairs, tuple(side), min_distance
    )
    packing = n_charges * math.pi / 6.0 * (min_distance / shortest) ** 3
    densest = _DENSEST if n_charges <= _MANY else _DENSEST_OF_MANY
    if packing > densest:
        raise ValueError(
            f"min_distance = {min_distance:g} Å must fill at most {densest} of the "
            f"smallest box with {n_charges} charges, of side {shortest:g} Å, got "
            f"{packing:.3f}"
        )


def _check_contacts(generated):
    """Refuse contacts that molecules like those of the stand-in do not make."""
    drafts = monomers(_Unrelaxed())
    few = min(_CONTACTS, generated["n_dimers"])
    synthetic_dimers(**(generated | {"n_dimers": few}), molecules=drafts)


def _check_crystal(constant, salt):
    """Refuse a lattice constant that is not within 5 % of that of the potential."""

    def pull(constant):
        """Derivative by the distance of neighbours of the energy of an ion, in eV/Å."""
        distance = 0.5 * constant
        steps = np.arange(-math.ceil(SALT_REACH / distance), 1 + SALT_REACH // distance)
        squares = steps[:, None, None] ** 2 + steps[:, None] ** 2 + steps**2
        apart = np.sqrt(squares[squares > 0])
        apart = apart[apart * distance < SALT_REACH]
        push = (
            salt["amplitude"]
            / salt["range"]
            * np.exp(-apart * distance / salt["range"])
        )
        return 0.5 * _MADELUNG * COULOMB / distance**2 - 0.5 * float(push @ apart)

    if not pull(0.95 * constant) < 0.0 < pull(1.05 * constant):
        raise ValueError(
            "constant must be within 5 % of the lattice constant of the salt's "
            f"potential, got {constant:g} Å"
        )


class _Unrelaxed:
    """Engine that leaves molecules as they are."""

    def relaxed(self, atoms, charge):
        return atoms


def _check_references(config):
    """Labels are unique; what names curves, descriptors or sizes names some."""
    for block, _ in _FIGURES.values():
        labels = [curve["label"] for curve in config[block].values()]
        doubled = sorted({label for label in labels if labels.count(label) > 1})
        if doubled:
            raise ConfigurationError([block], f"labels must differ, got {doubled}")
    for name, curve in config["curves"].items():
        if "counterpart" in curve:
            place = "curves", name, "counterpart"
            _check_name(place, curve["counterpart"], config["curves"])
    for name, model in config["dimer_models"].items():
        if model["isolated"] and model["difference"]:
            raise ConfigurationError(
                ("dimer_models", name),
                "isolated must be false where difference is true: the difference of "
                "one molecule is always zero",
            )
    for name, model in config["water_models"].items():
        if bool(model["kernels"]) == bool(model["geometry"]):
            raise ConfigurationError(
                ("water_models", name),
                "either kernels or geometry must be given, got "
                f"{model['kernels']} and {model['geometry']}",
            )
    for name, model in config["water_tensor_models"].items():
        for features in model["features"]:
            place = "water_tensor_models", name, "features"
            known = config["water_tensor_features"]
            _check_name(place, features, known, "a descriptor")
    for i, model in enumerate(config["liquid"]["models"]):
        place = "liquid", "models", i, "model"
        _check_name(place, model["model"], config["salt_models"], "a model")


def _check_name(place, name, known, what="a curve"):
    if name not in known:
        raise ConfigurationError(
            place, f"{what} must be one of {list(known)}, got {name!r}"
        )
