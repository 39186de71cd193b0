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
    curve, n_frames = config["learning_curve"], config["gas"]["n_frames"]
    wanted = max(curve["n_train"]) + curve["n_test"]
    if wanted > n_frames:
        raise ValueError(
            "configuration: learning_curve: the largest n_train plus n_test must be "
            f"at most gas.n_frames = {n_frames}, got {wanted}"
        )


def _check_references(config):
    """Labels are unique; claims name curves and sizes that exist."""
    curves, sizes = config["curves"], config["learning_curve"]["n_train"]
    for block in ("curves", "dimer_models"):
        labels = [curve["label"] for curve in config[block].values()]
        doubled = sorted({label for label in labels if labels.count(label) > 1})
        if doubled:
            raise ValueError(
                f"configuration: {block}: labels must differ, got {doubled}"
            )
    shared = sorted(set(curves) & set(config["dimer_models"]))
    if shared:
        raise ValueError(
            "configuration: dimer_models: names must not be those of curves, got "
            f"{shared}"
        )
    named = [(f"curves.{name}", c.get("counterpart")) for name, c in curves.items()]
    for i, claim in enumerate(config["summary"]["claims"]):
        place = f"summary.claims.{i}"
        names = claim["curve"], claim.get("relative_to")
        if claim["figure"] == "fig2":
            _check_models(place, names, config["dimer_models"])
            continue
        named += [(place, name) for name in names]
        size = claim.get("n_train", claim.get("from"))
        if size not in sizes:
            raise ValueError(
                f"configuration: {place}: the size must be one of {sizes}, got {size}"
            )
    for place, name in named:
        if name is not None and name not in curves:
            raise ValueError(
                f"configuration: {place}: a curve must be one of {list(curves)}, "
                f"got {name!r}"
            )


def _check_models(place, names, models):
    for name in names:
        if name is not None and name not in models:
            raise ValueError(
                f"configuration: {place}: a curve must be one of {list(models)}, "
                f"got {name!r}"
            )
