"""Text expressions of the workflow's configuration: their grammar and their faults."""

import pytest

import lode
from workflows.expressions import definitions, evaluate, expansion

FLAT = {"density": 0.5, "basis": "gto", "max_radial": 3, "max_angular": 2}
RHO = lode.SphericalExpansion(
    lode.GaussianDensity(0.5), lode.RadialBasis.gto(3, 3.0), max_angular=2
)
V = lode.SphericalExpansion(
    lode.PowerLawPotential(1, 1.0), lode.RadialBasis.monomial(2, 3.0), max_angular=2
)
A = lode.PolynomialKernel(lode.PowerSpectrum(RHO))
B = lode.PolynomialKernel(lode.RadialSpectrum(V), species_delta=False)
C = lode.PolynomialKernel(lode.PowerSpectrum(RHO, V), degree=3, normalize=True)
NAMES = {"rho": RHO, "V": V, "a": A, "b": B, "c": C}


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a + b + c",
        "a + (b + c)",
        "a * b + c",
        "a * (b + c)",
        "2 * a * b",
        "2 * (a * b)",
        "a * 2",
        "2 * 3 * a",
        "10 * a * (b + 0.5 * c) + 3 * (b + c) + a * a",
        "a\n  + b",
    ],
)
def test_precedence_is_that_of_the_algebra_in_python(text):
    expected = eval(text.replace("\n", " "), {"a": A, "b": B, "c": C})
    assert evaluate(text, NAMES) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("radial(V)", lode.RadialSpectrum(V)),
        ("power(rho)", lode.PowerSpectrum(RHO)),
        ("power(rho, V)", lode.PowerSpectrum(RHO, V)),
        ("power(rho, other=null)", lode.PowerSpectrum(RHO)),
        (
            "equivariant(rho, V, angular=1, parity=-1)",
            lode.EquivariantPowerSpectrum(RHO, V, angular=1, parity=-1),
        ),
        ("polynomial(power(rho))", A),
        ("polynomial(radial(V), species_delta=false)", B),
        ("polynomial(power(rho, V), 3, normalize=True)", C),
        (
            "polynomial(radial(V), average='species')",
            lode.PolynomialKernel(lode.RadialSpectrum(V), average="species"),
        ),
        (
            "whitened(power(V), exponent=0.3)",
            lode.WhitenedKernel(lode.PowerSpectrum(V), exponent=0.3),
        ),
        ("structure(a + b, 3)", lode.StructureKernel(A + B, 3)),
        ("structure(2 * a)", lode.StructureKernel(2 * A)),
    ],
)
def test_each_function_is_a_class_of_the_library(text, expected):
    assert evaluate(text, NAMES) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a + d", r"'a \+ d', column 5, 'd': a name must be one of .*'b', 'c'\], got"),
        ("foo(a)", r"a function must be one of \['radial', .*, got 'foo'"),
        ("a +", "column 4: invalid syntax"),
        ("", "column 1: invalid syntax"),
        ("a b", r"column \d: invalid syntax"),
        ("a + 2 * (b", r"column 9: '\(' was never closed"),
        ("a - b", "column 1, 'a - b': only numbers, names"),
        ("a ** 2", "only numbers, names"),
        ("a.degree", "only numbers, names"),
        ("a + b[0]", "column 5, 'b.0.': only numbers, names"),
        ("(lambda: a)()", "only numbers, names"),
        ("[a][0]", "only numbers, names"),
        ("polynomial(*a)", r"column 12, '\*a': only numbers"),
        ("__import__('os').system('ls')", "only numbers, names"),
        ("1 + a", r"\+ takes kernels, got 1"),
        ("power(rho) * a", r"\* takes kernels and numbers, got PowerSpectrum"),
        ("true * a", r"\* takes kernels and numbers, got True"),
        ("0 * a", "weight must be positive"),
        ("b + -2 * a", "column 5, '-2 [*] a': weight must be positive"),
        ("1e999 * a", "weight must be positive and finite"),
        ("2 * 3", "'2 [*] 3' must be a descriptor or a kernel"),
        ("true", "must be a descriptor or a kernel"),
        ("power()", r"power\(expansion, other\): missing a required argument"),
        ("power(rho, V, V)", r"power\(expansion, other\): too many positional"),
        ("polynomial(power(rho), degre=2)", "species_delta, average.*'degre'"),
        ("polynomial(power(rho), degree=1.5)", "degree must be int, got 1.5"),
        ("polynomial(power(rho), degree=true)", "degree must be int, got True"),
        ("polynomial(power(rho), degree=0)", "degree must be a positive integer"),
        ("polynomial(power(rho), normalize=1)", "normalize must be bool, got 1"),
        ("polynomial(power(rho), normalize='no')", "normalize must be bool, got 'no'"),
        ("polynomial(rho)", "descriptor must be RadialSpectrum or .*SphericalExp"),
        ("a + polynomial(equivariant(rho))", "column 5, .*must be invariant"),
        ("power(a)", "expansion must be SphericalExpansion, got PolynomialKernel"),
        ("structure(power(rho))", "kernel must be Kernel, got PowerSpectrum"),
        ("whitened(power(V), exponent=0.7)", "exponent must be from 0 to 0.5, got 0.7"),
        ("equivariant(rho, angular=9)", "angular must be"),
    ],
)
def test_errors_point_at_the_place(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(text, NAMES)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(repr(text))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {}),
        ({"width": 0.2}, {"cutoff_function": lode.ShiftedCosineCutoff(3.0, 0.2)}),
        ({"width": 0}, {"cutoff_function": lode.StepCutoff(3.0)}),
        ({"radius": 4.0}, {"cutoff_function": lode.ShiftedCosineCutoff(4.0, 0.5)}),
        ({"radius": 4.0, "width": 0}, {"cutoff_function": lode.StepCutoff(4.0)}),
        (
            {"scaling": {"scale": 2.0, "exponent": 4.0}},
            {"scaling": lode.RadialScaling(2.0, 4.0)},
        ),
        (
            {"species": [8, 1], "sources": "species", "center_atom_weight": 0.0},
            {"species": (1, 8), "center_atom_weight": 0.0},
        ),
        ({"basis": "laplacian"}, {"basis": lode.RadialBasis.laplacian(3, 3.0)}),
        (
            {"density": None, "potential": 6, "smearing": 1.0, "tolerance": 1e-9},
            {"field": lode.PowerLawPotential(6, 1.0), "tolerance": 1e-9},
        ),
        (
            {"density": None, "yukawa": 5.0, "smearing": 1.0, "method": "split"}
            | {"split": 2.0, "sources": "charges"},
            {"field": lode.YukawaPotential(5.0, 1.0), "method": "split"}
            | {"split": 2.0, "sources": "charges"},
        ),
    ],
)
def test_flat_settings_reach_every_option_of_an_expansion(changed, expected):
    standard = {
        "field": lode.GaussianDensity(0.5),
        "basis": lode.RadialBasis.gto(3, 3.0),
        "max_angular": 2,
    }
    found = expansion(**(FLAT | {"cutoff": 3.0} | changed))
    assert found == lode.SphericalExpansion(**(standard | expected))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"potential": 1}, "one of .* must be given, got .*'density', 'potential'"),
        ({"density": None}, r"one of .* must be given, got \[\]"),
        ({"smearing": 1.0}, "smearing must be given for a potential, and left out"),
        ({"density": None, "potential": 1}, "smearing must be given for a potential"),
        ({"max_angular": 99}, "max_angular must be"),
        ({"width": 5.0}, "width must be at most the radius 3.0, got 5.0"),
    ],
)
def test_impossible_expansions_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        expansion(**(FLAT | {"cutoff": 3.0} | changed))


def test_definitions_may_stand_in_any_order():
    block = {
        "both": "2 * soap + soap",
        "soap": "polynomial(power(rho))",
        "rho": FLAT | {"cutoff": 3.0},
    }
    found = definitions({"block": block}, "block")
    assert found == {"both": 2 * A + A, "soap": A, "rho": RHO}
    assert list(found) == list(block)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"a": "b + a", "b": "c", "c": "a"}, r"block\.\w: .*must not refer to itself"),
        ({"a": "2 * b", "b": "2 * a"}, "got (a -> b -> a|b -> a -> b)"),
        ({"a": "a"}, r"block\.a: .*got a -> a"),
        ({"power": FLAT}, r"block\.power: 'power' must not be defined"),
        ({"null": FLAT}, r"block\.null: 'null' must not be defined"),
        # Where the fault is, not where it is used.
        ({"a": "2 * b", "b": "3"}, r"block\.b: '3' must be a descriptor"),
        ({"a": "2 * b", "b": "rho"}, r"block\.b: 'rho', column 1.*one of \['a', 'b'\]"),
    ],
)
def test_faulty_definitions_are_named(block, message):
    with pytest.raises(ValueError, match=message):
        definitions({"block": block}, "block")
