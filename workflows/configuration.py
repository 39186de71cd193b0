"""Check of the workflow's configuration before any rule runs, and what it describes."""

from pathlib import Path

import jsonschema
import yaml

import lode
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
    rules = yaml.safe_load(Path(schema).read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(rules)
    error = jsonschema.exceptions.best_match(validator.iter_errors(config))
    if error is not None:
        raise ConfigurationError(error.absolute_path, _message(error))
    _check_sizes(config)
    descriptions(config)
    _check_references(config)


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


def _check_sizes(config):
    """The largest training set and the test set must fit into the frames."""
    n_boxes = config["water"]["generated"]["n_frames"]
    for block, place, n_frames in (
        ("learning_curve", "gas.n_frames", config["gas"]["n_frames"]),
        ("water_curve", "water.generated.n_frames", n_boxes),
    ):
        curve = config[block]
        wanted = max(curve["n_train"]) + curve["n_test"]
        if wanted > n_frames:
            raise ConfigurationError(
                [block],
                f"the largest n_train plus n_test must be at most {place} = "
                f"{n_frames}, got {wanted}",
            )


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
    for i, claim in enumerate(config["summary"]["claims"]):
        place = "summary", "claims", i
        curves, sizes = _FIGURES[claim["figure"]]
        for key in ("curve", "relative_to"):
            if key in claim:
                _check_name((*place, key), claim[key], config[curves])
        if sizes is None:
            continue
        known = config[sizes]["n_train"]
        size = claim.get("n_train", claim.get("from"))
        if size not in known:
            message = f"the size must be one of {known}, got {size}"
            raise ConfigurationError(place, message)


def _check_name(place, name, known, what="a curve"):
    if name not in known:
        raise ConfigurationError(
            place, f"{what} must be one of {list(known)}, got {name!r}"
        )
