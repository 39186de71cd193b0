import json

import pytest

import lode
from lode.serialization import from_dict, to_dict

BASES = [
    getattr(lode.RadialBasis, kind)(4, 3.0)
    for kind in ("gto", "polynomial", "laplacian", "monomial")
]
FIELDS = [
    lode.GaussianDensity(0.3),
    lode.PowerLawPotential(1, 0.0),
    lode.PowerLawPotential(exponent=6, smearing=1.2),
]
DENSITY = lode.SphericalExpansion(
    FIELDS[0], BASES[0], 3, lode.StepCutoff(4.0), species=(8, 1), center_atom_weight=0
)
POTENTIAL = lode.SphericalExpansion(
    FIELDS[2], BASES[1], 3, species=[1, 8], tolerance=1e-4, method="split", split=2.0
)
OBJECTS = [
    *BASES,
    *FIELDS,
    lode.StepCutoff(3.0),
    lode.ShiftedCosineCutoff(3.0, 0.2),
    DENSITY,
    POTENTIAL,
    lode.RadialSpectrum(POTENTIAL),
    lode.PowerSpectrum(DENSITY),
    lode.PowerSpectrum(DENSITY, POTENTIAL),
]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda v: type(v).__name__)
def test_round_trip_through_json_gives_an_equal_object(value):
    text = json.dumps(to_dict(value))
    again = from_dict(json.loads(text))
    assert again == value
    assert type(again) is type(value)
    assert hash(again) == hash(value)


def test_the_documented_form_is_understood():
    spec = {"PowerLawPotential": {"exponent": 1, "smearing": 1.0}}
    assert from_dict(spec) == lode.PowerLawPotential(1, 1.0)
    assert to_dict(from_dict(spec)) == spec


def test_unknown_class_is_an_error():
    for name in ("Gaussian", "ewald", "__version__"):
        with pytest.raises(ValueError, match=f"a class of lode, got '{name}'"):
            from_dict({name: {}})


def test_unknown_or_missing_argument_is_an_error():
    with pytest.raises(ValueError, match="GaussianDensity: .*'width'"):
        from_dict({"GaussianDensity": {"width": 1.0}})
    with pytest.raises(ValueError, match="GaussianDensity: .*missing.*'smearing'"):
        from_dict({"GaussianDensity": None})


def test_two_names_in_one_specification_are_an_error():
    with pytest.raises(ValueError, match=r"got keys \['a', 'b'\]"):
        from_dict({"a": {}, "b": {}})


def test_a_refused_argument_keeps_its_message():
    with pytest.raises(ValueError, match="smearing must be from"):
        from_dict({"GaussianDensity": {"smearing": -1}})


@pytest.mark.parametrize("value", [[], [1], None, "x", 10**400, to_dict(FIELDS[0])])
def test_a_value_of_another_kind_is_a_value_error_of_its_class(value):
    with pytest.raises(ValueError, match="^GaussianDensity: "):
        from_dict({"GaussianDensity": {"smearing": value}})


@pytest.mark.parametrize("value", [1e-13, 1e4, 1e300])
def test_lengths_whose_tables_would_fill_the_memory_are_errors(value):
    for kind in ("gto", "monomial"):
        basis = {"kind": kind, "max_radial": 2, "cutoff": value}
        with pytest.raises(ValueError, match="RadialBasis: cutoff must be from"):
            from_dict({"RadialBasis": basis})
    if value > 1.0:
        with pytest.raises(ValueError, match="StepCutoff: radius must be at most"):
            from_dict({"StepCutoff": {"radius": value}})


def test_what_is_nested_too_deeply_is_an_error():
    spec = {"PolynomialKernel": {"descriptor": to_dict(lode.PowerSpectrum(DENSITY))}}
    for _ in range(200):
        spec = {"ScaledKernel": {"kernel": spec, "weight": 1.0}}
    with pytest.raises(ValueError, match="at most 100 levels deep"):
        from_dict(spec)
