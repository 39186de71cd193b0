"""Check of the workflow's configuration before any rule runs."""

from pathlib import Path

import jsonschema
import yaml

SCHEMA = Path(__file__).parent / "schemas" / "config.schema.yaml"


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
    ValueError
        With one message for the first fault: where it is, what was wanted and
        what came.
    """
    rules = yaml.safe_load(Path(schema).read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(rules)
    error = jsonschema.exceptions.best_match(validator.iter_errors(config))
    if error is not None:
        raise ValueError(f"configuration: {_message(error)}")
    _check_sizes(config)
    _check_references(config)


def _message(error):
    """One line: the place, what was wanted, what came."""
    place = ".".join(str(part) for part in error.absolute_path) or "top level"
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", ()))
        patterns = error.schema.get("patternProperties", {})
        unknown = sorted(
            key
            for key in error.instance
            if key not in known and not any(_matches(p, key) for p in patterns)
        )
        wanted = f"one of {known}" if known else f"names like {list(patterns)}"
        return f"{place}: keys must be {wanted}, got unknown {unknown}"
    return f"{place}: {error.message}"


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
            raise ValueError(
                f"configuration: {block}: the largest n_train plus n_test must be at "
                f"most {place} = {n_frames}, got {wanted}"
            )


# For each figure its curves, and the block with the sizes of their training sets.
_FIGURES = {
    "fig1": ("curves", "learning_curve"),
    "fig2": ("dimer_models", None),
    "fig3": ("water_models", "water_curve"),
    "fig3_tensor": ("water_tensor_models", "water_curve"),
}


def _check_references(config):
    """Labels are unique; what names curves, kernels or sizes names some that exist."""
    for block in (*(b for b, _ in _FIGURES.values()), "water_tensor_models"):
        labels = [curve["label"] for curve in config[block].values()]
        doubled = sorted({label for label in labels if labels.count(label) > 1})
        if doubled:
            raise ValueError(
                f"configuration: {block}: labels must differ, got {doubled}"
            )
    for name, curve in config["curves"].items():
        _check_name(f"curves.{name}", curve.get("counterpart"), config["curves"])
    for name, model in config["dimer_models"].items():
        if model["isolated"] and model["features"]["difference"]:
            raise ValueError(
                f"configuration: dimer_models.{name}: isolated must be false where "
                "difference is true: the difference of one molecule is always zero"
            )
    for name, model in config["water_models"].items():
        place = f"water_models.{name}"
        for kernel in model["kernels"]:
            _check_name(place, kernel, config["water_kernels"], "a kernel")
        if bool(model["kernels"]) == bool(model["geometry"]):
            raise ValueError(
                f"configuration: {place}: either kernels or geometry must be given, "
                f"got {model['kernels']} and {model['geometry']}"
            )
    for name, model in config["water_tensor_models"].items():
        for features in model["features"]:
            known = config["water_tensor_features"]
            _check_name(f"water_tensor_models.{name}", features, known, "a descriptor")
    for i, claim in enumerate(config["summary"]["claims"]):
        place = f"summary.claims.{i}"
        curves, sizes = _FIGURES[claim["figure"]]
        for name in (claim["curve"], claim.get("relative_to")):
            _check_name(place, name, config[curves])
        if sizes is None:
            continue
        known = config[sizes]["n_train"]
        size = claim.get("n_train", claim.get("from"))
        if size not in known:
            raise ValueError(
                f"configuration: {place}: the size must be one of {known}, got {size}"
            )


def _check_name(place, name, known, what="a curve"):
    if name is not None and name not in known:
        raise ValueError(
            f"configuration: {place}: {what} must be one of {list(known)}, got {name!r}"
        )
