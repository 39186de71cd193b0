"""Expansions, descriptors and kernels from what a person writes in the configuration.

A mapping is the expansion of a field, and a text combines names as the kernel algebra
of the package does in Python::

    rho: {density: 0.5, basis: gto, max_radial: 6, max_angular: 4, cutoff: 3.0}
    soap: polynomial(power(rho), normalize=true)
    both: 10 * soap + structure(soap, 2)

A text is parsed and walked, never executed: it may hold numbers, names, ``+``, ``*``,
parentheses and calls of :data:`FUNCTIONS`.
"""

import ast
import graphlib
import inspect
import typing
from contextlib import contextmanager

import lode
from lode.kernels import Kernel

FUNCTIONS = {
    "radial": lode.RadialSpectrum,
    "power": lode.PowerSpectrum,
    "equivariant": lode.EquivariantPowerSpectrum,
    "polynomial": lode.PolynomialKernel,
    "whitened": lode.WhitenedKernel,
    "structure": lode.StructureKernel,
}
WORDS = {"true": True, "false": False, "null": None}

_DESCRIPTOR = lode.RadialSpectrum | lode.PowerSpectrum | lode.EquivariantPowerSpectrum
_FAULTS = (TypeError, ValueError, OverflowError)


class ConfigurationError(ValueError):
    """A fault in the configuration: its ``place``, a tuple of keys, and a message."""

    def __init__(self, place, message):
        self.place = tuple(place)
        path = ".".join(map(str, place)) or "top level"
        super().__init__(f"configuration: {path}: {message}")


class _LocatedError(ValueError):
    """A fault whose message names its column in the text."""


@contextmanager
def faults_at(*place):
    """Give the errors of a block the place in the configuration where they arise.

    Parameters
    ----------
    *place : str or int
        The keys that lead there.
    """
    try:
        yield
    except _FAULTS as error:
        raise ConfigurationError(place, error) from None


def definitions(config, block):
    """Objects that a block of the configuration names.

    Parameters
    ----------
    config : dict
        The whole configuration.
    block : str
        Name of a block that holds, in any order, settings of an :func:`expansion` or
        texts for :func:`evaluate` with names of the same block.

    Returns
    -------
    dict of str to object
        In the order of the block.

    Raises
    ------
    ConfigurationError
        If a definition is faulty, or refers to itself, directly or through others.
    """
    given = config[block]
    uses = {name: [] for name in given}
    for name, value in given.items():
        with faults_at(block, name):
            if name in FUNCTIONS or name in WORDS:
                raise ValueError(f"{name!r} must not be defined: it is in the grammar")
            if isinstance(value, str):
                nodes = list(ast.walk(_parsed(value)))
                used = {node.id for node in nodes if isinstance(node, ast.Name)}
                uses[name] = [other for other in given if other in used]
    try:
        order = list(graphlib.TopologicalSorter(uses).static_order())
    except graphlib.CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        message = f"a definition must not refer to itself, got {cycle}"
        raise ConfigurationError((block, error.args[1][0]), message) from None
    found = dict.fromkeys(given)
    for name in order:
        value = given[name]
        with faults_at(block, name):
            text = isinstance(value, str)
            found[name] = evaluate(value, found) if text else expansion(**value)
    return found


def expansion(
    *,
    basis,
    max_radial,
    cutoff,
    density=None,
    potential=None,
    yukawa=None,
    smearing=None,
    width=None,
    radius=None,
    scaling=None,
    **settings,
):
    """Expansion of a field, from one flat line of settings.

    Parameters
    ----------
    basis : str
        Kind of the radial functions.
    max_radial : int
        Number of radial functions.
    cutoff : float
        Of the basis and, unless there is a ``radius``, of a density, in Å.
    density, potential, yukawa : float
        One of them: width of a Gaussian density in Å, exponent of a power law, or
        screening length in Å.
    smearing : float
        Of a potential, in Å.
    width : float, optional
        Smooth part of a density's cutoff in Å; 0 for a step.
    radius : float, optional
        Neighbours closer than this, in Å, count in a density.
    scaling : dict, optional
        Arguments of :class:`lode.RadialScaling`.
    **settings
        Further arguments of :class:`lode.SphericalExpansion`.

    Returns
    -------
    SphericalExpansion

    Raises
    ------
    TypeError, ValueError
        If the settings are no expansion.
    """
    fields = {"density": density, "potential": potential, "yukawa": yukawa}
    named = [name for name, value in fields.items() if value is not None]
    if len(named) != 1:
        raise ValueError(f"one of {list(fields)} must be given, got {named}")
    if (smearing is None) != (named == ["density"]):
        raise ValueError(
            "smearing must be given for a potential, and left out for a density, which "
            f"is its width, got {smearing} for {named[0]}"
        )
    if density is not None:
        field = lode.GaussianDensity(density)
    elif potential is not None:
        field = lode.PowerLawPotential(potential, smearing)
    else:
        field = lode.YukawaPotential(yukawa, smearing)
    if width is not None or radius is not None:
        if density is None:
            raise ValueError("width and radius must be those of a density")
        radius = cutoff if radius is None else radius
        if width == 0:
            settings["cutoff_function"] = lode.StepCutoff(radius)
        else:
            width = min(0.5, radius) if width is None else width
            settings["cutoff_function"] = lode.ShiftedCosineCutoff(radius, width)
    if scaling is not None:
        settings["scaling"] = lode.RadialScaling(**scaling)
    radial_basis = lode.RadialBasis(basis, max_radial, cutoff)
    return lode.SphericalExpansion(field, radial_basis, **settings)


def evaluate(text, names):
    """Object that a text describes.

    Parameters
    ----------
    text : str
        As ``10 * soap + structure(soap, 2)``.
    names : dict of str to object
        What the names in it stand for.

    Returns
    -------
    SphericalExpansion, descriptor or Kernel

    Raises
    ------
    ValueError
        If the text is faulty: with the text, the column and what was wanted there.

    Examples
    --------
    >>> import lode
    >>> soap = lode.PolynomialKernel(
    ...     lode.PowerSpectrum(
    ...         lode.SphericalExpansion(
    ...             lode.GaussianDensity(0.3), lode.RadialBasis.gto(4, 3.0), 2
    ...         )
    ...     )
    ... )
    >>> evaluate("10 * soap + structure(soap, 2)", {"soap": soap}) == (
    ...     10 * soap + lode.StructureKernel(soap, 2)
    ... )
    True
    """
    value = _value(_parsed(text), text, names)
    if not isinstance(value, lode.SphericalExpansion | _DESCRIPTOR | Kernel):
        raise ValueError(f"{text!r} must be a descriptor or a kernel")
    return value


def _parsed(text):
    try:
        return ast.parse(text.replace("\n", " "), mode="eval").body
    except SyntaxError as error:
        column = error.offset or len(text) + 1
        raise _LocatedError(f"{text!r}, column {column}: {error.msg}") from None


def _value(node, text, names):
    """Value of a node of the parsed text."""
    try:
        match node:
            case ast.Constant(value):
                return value
            case ast.UnaryOp(ast.USub(), ast.Constant(int(value) | float(value))):
                return -value
            case ast.Name(name) if name in WORDS:
                return WORDS[name]
            case ast.Name(name):
                return _known(name, names, "a name")
            case ast.Call(ast.Name(name), arguments, keywords):
                function = _known(name, FUNCTIONS, "a function")
                values = [_value(a, text, names) for a in arguments]
                options = {k.arg: _value(k.value, text, names) for k in keywords}
                return _called(name, function, values, options)
            case ast.BinOp(left, ast.Add() | ast.Mult() as sign, right):
                pair = [_value(side, text, names) for side in (left, right)]
                return _combined(*pair, isinstance(sign, ast.Add))
        raise ValueError("only numbers, names, +, *, ( ) and calls are understood")
    except _LocatedError:
        raise
    except _FAULTS as error:
        part = ast.unparse(node)
        place = f"{text!r}, column {node.col_offset + 1}, {part!r}"
        raise _LocatedError(f"{place}: {error}") from None


def _known(name, names, what):
    if name not in names:
        raise ValueError(f"{what} must be one of {list(names)}, got {name!r}")
    return names[name]


def _called(name, function, values, options):
    """Object of a class, with arguments of the types that it states."""
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*values, **options)
    except TypeError as error:
        wanted = ", ".join(signature.parameters)
        raise TypeError(f"{name}({wanted}): {error}") from None
    kinds = typing.get_type_hints(function)
    for key, value in bound.arguments.items():
        kind = _DESCRIPTOR if kinds[key] is object else kinds[key]
        allowed = typing.get_args(kind) or (kind,)
        if not _is_one_of(value, allowed):
            wanted = " or ".join(a.__name__ for a in allowed)
            raise TypeError(f"{key} must be {wanted}, got {_shown(value)}")
    return function(*values, **options)


def _combined(left, right, is_sum):
    """Sum or product by the algebra of the kernels; numbers have products only."""
    allowed = (Kernel,) if is_sum else (Kernel, float)
    for value in (left, right):
        if not _is_one_of(value, allowed):
            wanted = "+ takes kernels" if is_sum else "* takes kernels and numbers"
            raise TypeError(f"{wanted}, got {_shown(value)}")
    return left + right if is_sum else left * right


def _is_one_of(value, kinds):
    """Whether a value is of one of the types; true is no number, 1 is a float."""
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, (*kinds, int) if float in kinds else kinds)


def _shown(value):
    is_literal = isinstance(value, bool | int | float | str | None)
    return repr(value) if is_literal else type(value).__name__
