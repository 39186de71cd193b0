"""The scripts of the anisotropic dielectric tensor, on a few small boxes."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

pytest.importorskip("matplotlib")

from csv_tables import table, write_table  # noqa: E402
from fig1 import fig1_table  # noqa: E402
from fig3_tensor import fig3_tensor_picture  # noqa: E402
from lode.coupling import spherical_tensor  # noqa: E402
from lode.equivariants import EquivariantSums, equivariant_learning_curve  # noqa: E402
from plotting import figure_3_tensor  # noqa: E402
from water_tensor_curve import water_tensor_curve  # noqa: E402
from water_tensor_features import water_tensor_features  # noqa: E402

CURVE = {"n_train": [3, 5], "n_test": 3, "n_repeats": 2, "seed": 0}
DESCRIPTOR = {
    "EquivariantPowerSpectrum": {
        "expansion": {
            "SphericalExpansion": {
                "field": {"GaussianDensity": {"smearing": 0.5}},
                "basis": {"RadialBasis": {"kind": "gto", "max_radial": 2, "cutoff": 3}},
                "max_angular": 2,
            }
        },
        "angular": 2,
    }
}


def boxes(n=9):
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(n):
        side, half = 5.0 + rng.uniform(), rng.normal(size=(3, 3))
        atoms = Atoms("OH2", rng.uniform(0, 5, (3, 3)), cell=[side] * 3, pbc=True)
        atoms.info["epsilon"] = half + half.T
        frames.append(atoms)
    return frames


def test_curve_is_that_of_the_tensor_times_the_volume(tmp_path):
    frames = boxes()
    write(tmp_path / "boxes.extxyz", frames, format="extxyz")
    water_tensor_features(
        tmp_path / "boxes.extxyz",
        tmp_path / "features.npz",
        descriptor=DESCRIPTOR,
        curve=CURVE,
    )
    water_tensor_curve(
        tmp_path / "boxes.extxyz",
        [tmp_path / "features.npz"],
        tmp_path / "errors.csv",
        exponents=[0.2],
        n_components=5,
        digits=9,
        **CURVE,
    )
    rows = table(tmp_path / "errors.csv")
    assert [(row["n_train"], row["repeat"]) for row in rows] == [
        *(("3", "0"), ("3", "1"), ("5", "0"), ("5", "1"))
    ]
    sums = EquivariantSums.load(tmp_path / "features.npz")
    targets = spherical_tensor(np.array([a.info["epsilon"] for a in frames]))[:, 1:]
    factors = np.array([a.cell.volume for a in frames])
    settings = {key: CURVE[key] for key in ("n_test", "n_repeats", "seed")}
    curve = equivariant_learning_curve(
        sums, targets, [3, 5], exponent=0.2, n_components=5, factors=factors, **settings
    )
    found = [float(row["rmse_percent"]) for row in rows]
    # Numbers in the file of the boxes have eight decimals.
    np.testing.assert_allclose(found, curve.rmse_percent_each.T.ravel(), rtol=1e-3)
    models = {"soap": {"label": "SOAP 3"}}
    path = tmp_path / "fig3_tensor.csv"
    fig1_table(
        {"soap": tmp_path / "errors.csv"}, path, curves=models, digits=3, resolution=0.0
    )
    assert [row["curve"] for row in table(path)] == ["SOAP 3", "SOAP 3"]


def rows_of(*curves):
    return [
        {
            "curve": curve,
            "n_train": str(n),
            "rmse_percent": str(error),
            "rmse_percent_std": "1",
        }
        for curve in curves
        for n, error in ((25, 60.0), (100, 30.0), (50, 40.0))
    ]


def tensor_figure():
    return figure_3_tensor(
        rows_of("SOAP 3", "LODE 3", "ρ⊗V 3"),
        rows_of("1/V", "LODE 3", "SOAP 3"),
        ["SOAP 3", "LODE 3", "ρ⊗V 3"],
        provenance="9 boxes",
    )


def test_curves_of_one_model_have_one_colour_in_both_panels():
    trace, tensor = tensor_figure().axes
    styles = [
        {c.get_label(): c.lines[0].get_color() for c in ax.containers}
        for ax in (trace, tensor)
    ]
    assert list(styles[0]) == ["SOAP 3 Å", "LODE 3 Å"]
    assert list(styles[1]) == ["SOAP 3 Å", "LODE 3 Å", "ρ⊗V 3 Å"]
    assert styles[0].items() <= styles[1].items()
    assert len(set(styles[1].values())) == 3
    assert list(trace.containers[0].lines[0].get_xdata()) == [25, 50, 100]


def test_figure_has_units_provenance_and_a_legend_beside_the_axes():
    drawn = tensor_figure()
    assert "9 boxes" in drawn.get_suptitle()
    for ax in drawn.axes:
        assert ax.get_xlabel() == "training structures"
        assert "test RMSE / %" in ax.get_ylabel()
    drawn.draw_without_rendering()
    places = [ax.get_tightbbox() for ax in drawn.axes]
    places += [legend.get_window_extent() for legend in drawn.legends]
    assert len(drawn.legends) == 1
    assert not any(a.overlaps(b) for i, a in enumerate(places) for b in places[i + 1 :])


def test_a_curve_that_is_missing_is_named():
    with pytest.raises(ValueError, match="a curve must be one of .* got 'LODE 3'"):
        figure_3_tensor(rows_of("SOAP 3"), [], ["LODE 3"], provenance="")


def test_picture_is_drawn_from_the_tables(tmp_path):
    columns = ["curve", "n_train", "rmse_percent", "rmse_percent_std"]
    for name, curves in (("fig3", ["SOAP 3"]), ("fig3_tensor", ["SOAP 3", "LODE 3"])):
        rows = [[row[c] for c in columns] for row in rows_of(*curves)]
        write_table(tmp_path / f"{name}.csv", columns, rows)
    fig3_tensor_picture(
        tmp_path / "fig3_tensor.csv",
        tmp_path / "fig3.csv",
        [tmp_path / "one.png", tmp_path / "two.pdf"],
        models={"soap": {"label": "SOAP 3"}, "lode": {"label": "LODE 3"}},
        provenance="9 boxes",
    )
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "two.pdf").read_bytes().startswith(b"%PDF")
