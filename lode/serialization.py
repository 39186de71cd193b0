"""Descriptors, kernels and their parts as plain nested data, and back.

``{"PowerLawPotential": {"exponent": 1, "smearing": 1.0}}`` stands for
``lode.PowerLawPotential(exponent=1, smearing=1.0)``: one form for the workflow's
configuration, for saved models and for the command line.
"""

import dataclasses

import lode

# What is nested deeper was not made by hand, and would not be evaluated either.
_DEEPEST = 100


def to_dict(value):
    """Nested dictionaries, lists and scalars that describe ``value``.

    Parameters
    ----------
    value : dataclass instance, sequence or scalar
        A public object of the package, built of such objects.

    Returns
    -------
    dict, list or scalar
        What :func:`from_dict` turns back into an equal object.
    """
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if f.init]
        arguments = {f.name: to_dict(getattr(value, f.name)) for f in fields}
        return {type(value).__name__: arguments}
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return value


def from_dict(spec):
    """Object described by nested data; the inverse of :func:`to_dict`.

    Parameters
    ----------
    spec : dict, list or scalar
        A dictionary has one key, the name of a public class, whose value holds
        the arguments.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If a name is not that of a public class, or an argument is unknown,
        missing or refused by the class, or all is nested too deeply.
    """
    return _built(spec, _DEEPEST)


def _built(spec, depth):
    if depth == 0:
        raise ValueError(f"a specification must be at most {_DEEPEST} levels deep")
    if isinstance(spec, list | tuple):
        return tuple(_built(item, depth - 1) for item in spec)
    if not isinstance(spec, dict):
        return spec
    if len(spec) != 1:
        raise ValueError(
            f"a specification must be {{class name: arguments}}, got keys {list(spec)}"
        )
    ((name, arguments),) = spec.items()
    if name not in lode.__all__ or not isinstance(getattr(lode, name), type):
        raise ValueError(f"a specification must name a class of lode, got {name!r}")
    if not isinstance(arguments or {}, dict):
        raise ValueError(f"{name}: arguments must be {{name: value}}, got {arguments}")
    arguments = {k: _built(v, depth - 1) for k, v in (arguments or {}).items()}
    try:
        return getattr(lode, name)(**arguments)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        # Arithmetic: a whole number that no float holds.
        raise ValueError(f"{name}: {error}") from None
