"""The scripts behind figure 2, from curves to tables, and the figure itself."""

import ase.io
import numpy as np
import pytest
from ase import Atoms

pytest.importorskip("matplotlib")

import dimer_features as features_script  # noqa: E402
import dimer_model as model_script  # noqa: E402
import fig2 as fig2_script  # noqa: E402
import summary as summary_script  # noqa: E402
from csv_tables import table, write_table  # noqa: E402
from lode.archive import save_archive  # noqa: E402
from lode.charges import formal_charges  # noqa: E402
from lode.datasets.acquire import write_provenance  # noqa: E402
from lode.datasets.dimers import COULOMB  # noqa: E402
from lode.learning import (  # noqa: E402
    group_splits,
    ordered_split,
    relative_error,
)
from lode.ridge import fit_features  # noqa: E402
from plotting import figure_2, save  # noqa: E402

DISTANCES = {"training": (3.0, 4.0, 5.0, 6.0), "far": (10.0, 20.0)}
SETTINGS = {
    "train_fraction": 0.6,
    "n_splits": 2,
    "n_folds": 3,
    "seed": 0,
    "digits": 3,
}


def curves():
    """Ten dimers of two diatomic molecules, and ideal ions' energies."""
    frames = []
    for i in range(10):
        charge_a, charge_b = [(1, -1), (1, 0), (1, 1)][i % 3]
        first, second = ("NH", "OH") if i % 2 else ("NC", "OH")
        for kind, distances in DISTANCES.items():
            for d in distances:
                positions = [[0, 0, 0], [1.0 + 0.02 * i, 0, 0], [0, 0, d], [0.9, 0, d]]
                atoms = Atoms(first + second, positions)
                atoms.info = {
                    "name": f"dimer-{i}",
                    "subset": "0c" if charge_b else "p1",
                    "kind": kind,
                    "distance": d,
                    "charge_a": charge_a,
                    "charge_b": charge_b,
                    "n_atoms_a": 2,
                    "e_int_ev": 14.4 * charge_a * charge_b / d + 0.1 / d**2,
                }
                if charge_b:
                    atoms.info["charge_distance"] = d
                frames.append(atoms)
    return frames


def expansion(field):
    return {
        "SphericalExpansion": {
            "field": field,
            "basis": {"RadialBasis": {"kind": "gto", "max_radial": 2, "cutoff": 3.0}},
            "max_angular": 1,
        }
    }


RHO = expansion({"GaussianDensity": {"smearing": 0.5}})
V = expansion({"PowerLawPotential": {"exponent": 1, "smearing": 1.0}})
MODELS = {
    "soap": {
        "label": "SOAP",
        "isolated": True,
        "features": {
            "difference": False,
            "model": {
                "SparseGaussianProcess": {
                    "n_sparse": 20,
                    "kernel": {
                        "StructureKernel": {
                            "kernel": {
                                "PolynomialKernel": {
                                    "descriptor": {"PowerSpectrum": {"expansion": RHO}},
                                    "average": True,
                                }
                            }
                        }
                    },
                }
            },
        },
    },
    "ours": {
        "label": "ours",
        "isolated": False,
        "features": {
            "difference": True,
            "model": {
                "SparseGaussianProcess": {
                    "n_sparse": 20,
                    "kernel": {
                        "PolynomialKernel": {
                            "descriptor": {
                                "PowerSpectrum": {"expansion": RHO, "other": V}
                            }
                        }
                    },
                }
            },
        },
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features, predictions and experiments of both models."""
    folder = tmp_path_factory.mktemp("dimers")
    ase.io.write(folder / "curves.extxyz", curves())
    for name, model in MODELS.items():
        features_script.dimer_features(
            folder / "curves.extxyz",
            folder / f"{name}.npz",
            **model["features"],
            isolated=model["isolated"],
            **{key: SETTINGS[key] for key in ("train_fraction", "n_splits", "seed")},
            n_threads=1,
        )
        model_script.dimer_model(
            folder / "curves.extxyz",
            folder / f"{name}.npz",
            folder / f"{name}.csv",
            folder / f"{name}_experiments.csv",
            intercept=name == "soap",
            isolated=model["isolated"],
            hold_out=name == "ours",
            **SETTINGS,
        )
    return folder


@pytest.fixture(scope="module")
def figures(folder):
    paths = [folder / f"fig2{part}.csv" for part in ("", "_classes", "_curves")]
    fig2_script.fig2_tables(
        {name: folder / f"{name}.csv" for name in MODELS},
        paths,
        models=MODELS,
        digits=3,
    )
    return paths


def test_features_are_those_of_the_model(folder):
    values, *others = features_script.saved_features(folder / "ours.npz")
    assert len(values) == len(curves())
    # Every split has sparse points of its own.
    assert len(others) == SETTINGS["n_splits"]
    assert not any(np.array_equal(values, other) for other in others)
    # Interactions vanish with the distance, features of a whole dimer do not.
    far = [i for i, atoms in enumerate(curves()) if atoms.info["distance"] == 20.0]
    near = [i for i, atoms in enumerate(curves()) if atoms.info["distance"] == 3.0]
    assert np.abs(values[far]).max() < 0.3 * np.abs(values[near]).max()


def test_charges_along_a_curve_are_those_of_each_frame():
    frames = features_script.charged(curves())
    for atoms in frames:
        expected = formal_charges(atoms)
        np.testing.assert_array_equal(atoms.get_initial_charges(), expected)
    assert any(atoms.get_initial_charges().any() for atoms in frames)


def test_isolated_molecules_are_both_of_each_dimer():
    frames = features_script.charged(curves())
    molecules, dimer = features_script.isolated_molecules(frames)
    assert len(molecules) == 20
    for i, frame in enumerate(dimer[::2]):
        assert frames[frame].info["name"] == f"dimer-{i}"
        first, second = molecules[2 * i : 2 * i + 2]
        whole = frames[frame]
        np.testing.assert_array_equal(
            np.concatenate([first.numbers, second.numbers]), whole.numbers
        )
        np.testing.assert_array_equal(
            np.concatenate([m.get_initial_charges() for m in (first, second)]),
            whole.get_initial_charges(),
        )


def test_isolated_molecules_are_learnt_from_with_their_dimers(folder):
    features, *_ = features_script.saved_features(folder / "soap.npz")
    frames = curves()
    assert len(features) == len(frames) + 20
    name, kind = (np.array([a.info[key] for a in frames]) for key in ("name", "kind"))
    energy = np.array([a.info["e_int_ev"] for a in frames])
    alone = np.repeat(np.arange(10), 2)
    rows = np.append(ordered_split(name, 0.6) & (kind == "training"), alone < 6)
    fitted = fit_features(
        features[rows],
        np.append(energy, np.zeros(20))[rows],
        groups=np.append(name, [f"dimer-{i}" for i in alone])[rows],
        n_folds=3,
        normal_equations=True,
    )
    found = table(folder / "soap.csv")
    np.testing.assert_allclose(
        [float(row["predicted"]) for row in found],
        fitted.predict(features[:60]),
        atol=1e-6,
    )


def test_a_difference_has_no_isolated_molecules(folder, tmp_path):
    with pytest.raises(ValueError, match="must not both be true"):
        features_script.dimer_features(
            folder / "curves.extxyz",
            tmp_path / "f.npz",
            **MODELS["ours"]["features"],
            isolated=True,
            train_fraction=0.6,
            n_splits=2,
            seed=0,
        )


def test_predictions_of_every_frame_and_its_part(folder):
    rows = table(folder / "ours.csv")
    assert list(rows[0]) == model_script.PREDICTIONS
    assert len(rows) == 60
    trained = {row["name"] for row in rows if row["part"] == "train"}
    assert trained == {f"dimer-{i}" for i in range(6)}
    assert {row["class"] for row in rows} == set(model_script.CLASSES)


def test_experiments_leave_out_molecules_and_like_charges(folder):
    rows = table(folder / "ours_experiments.csv")
    found = {(row["experiment"], row["left_out"]) for row in rows}
    assert found == {
        ("random split", "1"),
        ("random split", "2"),
        ("molecule", "CN +1"),
        ("molecule", "HN +1"),
        ("molecule", "HO +1"),
        ("molecule", "HO -1"),
        ("class", "like charges"),
    }
    assert {row["set"] for row in rows} == {"test", "far"}
    like = [row for row in rows if row["left_out"] == "like charges"]
    assert {(row["n_dimers"], row["n_frames"]) for row in like} == {
        ("3", "12"),
        ("3", "6"),
    }
    plain = table(folder / "soap_experiments.csv")
    assert {row["experiment"] for row in plain} == {"random split"}


def test_random_splits_are_fitted_to_themselves_alone(folder, tmp_path):
    # Energies and features outside a split's training part do not move its error.
    frames = curves()
    _, mask, _ = features_script.splits(frames, 0.6, 2, 0)
    kind = np.array([atoms.info["kind"] for atoms in frames])
    for atoms, used in zip(frames, mask & (kind == "training"), strict=True):
        if not used:
            atoms.info["e_int_ev"] = 0.0
    ase.io.write(tmp_path / "curves.extxyz", frames)
    _, features, _ = features_script.saved_features(folder / "ours.npz")
    features = [features] * 3
    arrays = {f"features_{i}": values for i, values in enumerate(features)}
    save_archive(tmp_path / "f.npz", features_script.KIND, {}, arrays)
    paths = [tmp_path / "predictions.csv", tmp_path / "experiments.csv"]
    model_script.dimer_model(
        tmp_path / "curves.extxyz",
        tmp_path / "f.npz",
        *paths,
        intercept=False,
        isolated=False,
        hold_out=False,
        **SETTINGS,
    )
    found = table(paths[1])[0]
    rows = (folder / "ours_experiments.csv", "random split", "1")
    before = next(
        r for r in table(rows[0]) if (r["experiment"], r["left_out"]) == rows[1:]
    )
    # With energies of nothing the error is the size of the same predictions.
    assert found["rmse_percent"] == ""
    assert before["n_frames"] == found["n_frames"]
    train = mask & (kind == "training")
    energy = np.array([atoms.info["e_int_ev"] for atoms in frames])
    fitted = fit_features(
        features[0][train],
        energy[train],
        groups=[a.info["name"] for a, used in zip(frames, train, strict=True) if used],
        n_folds=3,
        intercept=False,
        normal_equations=True,
    )
    predicted = fitted.predict(features[0][~mask & (kind == "training")])
    rmse = 1e3 * np.sqrt(np.mean(predicted**2))
    assert float(found["rmse_meV"]) == pytest.approx(rmse, rel=5e-3)


def test_what_is_in_no_dimer_or_in_all_is_no_experiment():
    same = [atoms for atoms in curves() if atoms.info["name"] == "dimer-0"] * 2
    assert model_script.held_out(same) == []


def test_errors_are_those_of_the_test_dimers(folder, figures):
    rows = [r for r in table(folder / "soap.csv") if r["part"] == "test"]
    far = [r for r in rows if r["kind"] == "far"]
    energy, predicted = (
        np.array([float(r[key]) for r in far]) for key in ("energy", "predicted")
    )
    rmse = np.sqrt(np.mean((energy - predicted) ** 2))
    found = table(figures[0])
    assert list(found[0]) == ["curve", "set", "rmse_percent", "rmse_meV", "n_frames"]
    assert [(r["curve"], r["set"]) for r in found] == [
        ("SOAP", "test"),
        ("SOAP", "far"),
        ("ours", "test"),
        ("ours", "far"),
    ]
    # Three digits are printed.
    assert float(found[1]["rmse_meV"]) == pytest.approx(1e3 * rmse, rel=5e-3)
    percent = 100 * rmse / energy.std()
    assert float(found[1]["rmse_percent"]) == pytest.approx(percent, rel=5e-3)
    assert found[1]["n_frames"] == "8"
    by_class = table(figures[1])
    assert len(by_class) == 12
    assert sum(int(r["n_frames"]) for r in by_class) == 2 * (16 + 8)


def test_drawn_dimers_are_test_dimers_of_each_class(folder, figures):
    rows = table(figures[2])
    # Dimers 6 to 9 are tested: two with both charged, one of each other class.
    assert {r["dimer"] for r in rows} == {f"dimer-{i}" for i in (6, 7, 8, 9)}
    assert {r["curve"] for r in rows} == {"reference", "SOAP", "ours"}
    assert len(rows) == 4 * 6 * 3
    many = [{"name": f"{i:02d}", "class": "one charged"} for i in range(20)]
    assert fig2_script.drawn_dimers(many) == ["05", "15"]


def picture(figures, labels=("SOAP", "ours"), provenance="stand-in"):
    errors, classes, points = (table(path) for path in figures)
    return figure_2(points, errors, classes, list(labels), provenance=provenance)


def test_figure_2_draws_each_dimer_and_both_sets(figures):
    drawn = picture(figures)
    assert "stand-in" in drawn.get_suptitle()
    titles = [ax.get_title() for ax in drawn.axes]
    assert {title.split("\n")[0] for title in titles if "dimer" in title} == {
        f"dimer-{i}" for i in (6, 7, 8, 9)
    }
    assert titles[-2:] == ["Training distances", "Extrapolation"]


def test_figure_2_shades_what_was_trained_on(figures):
    ax = picture(figures).axes[0]
    (shaded,) = ax.patches
    assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == (3, 6)
    reference, *models = ax.lines
    assert len(models) == 2
    for line in (reference, *models):
        assert list(line.get_xdata()) == [3, 4, 5, 6, 10, 20]
    assert len({line.get_linestyle() for line in ax.lines}) == 3


def test_figure_2_names_a_curve_that_is_missing(figures):
    with pytest.raises(ValueError, match="a curve must be one of .* got 'LODE'"):
        picture(figures, ["SOAP", "LODE"])


def test_figure_2_is_written_with_its_provenance(folder, figures):
    paths = [folder / "fig2.pdf", folder / "fig2.png"]
    fig2_script.fig2_picture(*figures, paths, models=MODELS, provenance="own")
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    before = paths[0].read_bytes()
    save(picture(figures, provenance="own"), paths[0])
    assert paths[0].read_bytes() == before


def test_experiments_of_all_models_are_in_one_table(folder):
    path = folder / "fig2_experiments.csv"
    given = {name: folder / f"{name}_experiments.csv" for name in MODELS}
    fig2_script.fig2_experiments(given, path, models=MODELS)
    rows = table(path)
    assert list(rows[0]) == ["curve", *model_script.EXPERIMENTS]
    assert {row["curve"] for row in rows} == {"SOAP", "ours"}
    means, spreads = summary_script.split_values(rows)
    key = ("ours", "random splits")
    errors = [
        float(row["rmse_percent"])
        for row in rows
        if row["curve"] == "ours"
        and row["experiment"] == "random split"
        and row["set"] == "test"
    ]
    assert means[key] == pytest.approx(np.mean(errors))
    assert spreads[key] == pytest.approx(np.std(errors, ddof=1))


def test_claims_about_sets_say_what_is_found(folder, figures):
    path = folder / "fig2_experiments.csv"
    given = {name: folder / f"{name}_experiments.csv" for name in MODELS}
    fig2_script.fig2_experiments(given, path, models=MODELS)
    claims = [
        {"figure": "fig2", "claim": "a", "curve": "soap", "set": "test", "above": 0.0},
        {
            "figure": "fig2",
            "claim": "b",
            "curve": "ours",
            "set": "random splits",
            "below": 1e-9,
        },
    ]
    summary_script.summary(
        {"fig2": figures[0]},
        folder / "summary.csv",
        folder / "summary.md",
        claims=claims,
        curves={"fig2": MODELS},
        data={"fig2": "BFDb + PM6-D3H4"},
        provenance={"fig2": "ten dimers"},
        experiments_path=path,
    )
    rows = table(folder / "summary.csv")
    assert [row["met"] for row in rows] == ["yes", "no"]
    assert float(rows[1]["spread"]) > 0.0
    assert "Data of fig2: ten dimers." in (folder / "summary.md").read_text()
    values = summary_script.curve_values(table(figures[0]))
    claim = {"curve": "soap", "set": "random splits"}
    found = summary_script.verdict(claim, values, MODELS, {})
    assert found == ("not computed", "-", "-")


def test_a_class_without_dimers_has_no_error(tmp_path):
    assert model_script.error_cells(np.array([]), np.array([]), 3) == ("", "", 0)
    rmse = model_script.error_cells(np.array([1.0]), np.array([1.5]), 3)
    assert rmse == ("", "500", 1)
    columns = ["curve", "set", "rmse_percent"]
    write_table(tmp_path / "t.csv", columns, [("SOAP", "far", "")])
    assert summary_script.curve_values(table(tmp_path / "t.csv")) == {}


def predictions(path, slope, scale=1.0, part="test"):
    """Table of two pairs of ions whose charges are 1 Å farther than the centroids."""
    rows = []
    for name, of, sign in (("a", "both charged", -1), ("b", "like charges", 1)):
        for d in (10.0, 15.0, 20.0, 25.0):
            energy = sign * COULOMB / (d + 1.0)
            predicted = sign * scale * COULOMB / 26.0 * (26.0 / (d + 1.0)) ** -slope
            kind = "far" if d > 10.0 else "training"
            rows.append((name, of, kind, d, d + 1.0, part, energy, predicted))
    rows.append(("c", "one charged", "far", 15.0, "", part, 0.1, 0.1))
    write_table(path, model_script.PREDICTIONS, rows)


def test_slope_of_two_ions_is_that_of_their_charges(tmp_path):
    predictions(tmp_path / "soap.csv", -1.2)
    predictions(tmp_path / "ours.csv", -1.0, scale=1.1)
    given = {name: tmp_path / f"{name}.csv" for name in MODELS}
    path = tmp_path / "fig2_tails.csv"
    fig2_script.fig2_tails(given, path, models=MODELS, digits=3)
    rows = {row["curve"]: row for row in table(path)}
    assert list(rows) == ["reference", "SOAP", "ours"]
    assert list(rows["ours"]) == fig2_script.TAILS
    assert {row["n_dimers"] for row in rows.values()} == {"2"}
    for curve, slope in (("reference", -1.0), ("SOAP", -1.2), ("ours", -1.0)):
        for key in ("slope_min", "slope_mean", "slope_max"):
            assert float(rows[curve][key]) == pytest.approx(slope, abs=1e-9)
    assert float(rows["reference"]["deviation_max_meV"]) < 1e-9
    expected = 1e3 * 0.1 * COULOMB / 26.0
    assert float(rows["ours"]["deviation_mean_meV"]) == pytest.approx(
        expected, rel=5e-3
    )
    values = summary_script.slope_values(table(path))
    claim = {"set": "slopes", "above": -1.05, "below": -0.95}
    ours = summary_script.verdict(claim | {"curve": "ours"}, values, MODELS, {})
    assert ours == ("-1", "-", "yes")
    soap = summary_script.verdict(claim | {"curve": "soap"}, values, MODELS, {})
    assert soap == ("-1.2", "-", "no")


def test_no_slope_without_ions_far_apart(tmp_path):
    predictions(tmp_path / "soap.csv", -1.0, part="train")
    path = tmp_path / "fig2_tails.csv"
    fig2_script.fig2_tails(
        {"soap": tmp_path / "soap.csv"}, path, models=MODELS, digits=3
    )
    rows = table(path)
    assert {(row["n_dimers"], row["slope_min"]) for row in rows} == {("0", "")}
    assert summary_script.slope_values(rows) == {}


def test_provenance_names_the_engine(tmp_path):
    record = {"data_set": "dimers", "source": "generated", "title": "own monomers"}
    write_provenance(tmp_path, record)
    line = fig2_script.dimers_provenance(
        tmp_path / "provenance.json", "PM6-D3H4", "1.0"
    )
    assert line == "generated: own monomers, PM6-D3H4 energies, lode 1.0"


def test_splits_keep_groups_whole():
    groups = np.repeat([f"{i:02d}" for i in range(10)], 3)
    train = ordered_split(groups, 0.75)
    assert set(groups[train]) == {f"{i:02d}" for i in range(7)}
    masks = group_splits(groups, 0.75, 4, seed=1)
    assert len({tuple(mask) for mask in masks}) == 4
    for mask in masks:
        assert len(set(groups[mask])) == 7
        assert not set(groups[mask]) & set(groups[~mask])
    # More repeats leave the first as they are.
    np.testing.assert_array_equal(group_splits(groups, 0.75, 6, seed=1)[:4], masks)
    for fraction in (0.0, 0.05, 1.0):
        with pytest.raises(ValueError, match=f"both sides of 10, got {fraction}"):
            ordered_split(groups, fraction)


def test_stratified_splits_divide_every_class():
    groups = np.repeat([f"{i:02d}" for i in range(30)], 2)
    strata = np.repeat(["rare"] * 10 + ["common"] * 20, 2)
    masks = group_splits(groups, 0.8, 3, seed=0, strata=strata)
    assert len({tuple(mask) for mask in masks}) == 3
    for mask in masks:
        assert not set(groups[mask]) & set(groups[~mask])
        assert mask[strata == "rare"].sum() == 16
        assert mask[strata == "common"].sum() == 32
    with pytest.raises(ValueError, match="each group must belong to one stratum"):
        group_splits(["a", "a", "b"], 0.5, 1, 0, strata=["x", "y", "x"])
    for fraction in (0.3, 0.5):
        # Each group alone in its stratum: rounded, none or all of them.
        with pytest.raises(ValueError, match="both sides of 6 groups in 6 strata"):
            group_splits(list("abcdef"), fraction, 1, 0, strata=list("abcdef"))


@pytest.mark.parametrize(("fraction", "n"), [(0.29, 29), (0.57, 57), (0.299, 29)])
def test_a_fraction_of_the_groups_is_cut_as_it_is_written(fraction, n):
    assert ordered_split(range(100), fraction).sum() == n


def test_relative_error_is_in_percent_of_the_spread():
    assert relative_error([1.0, 3.0], [0.0, 2.0]) == (1.0, 100.0)
    for wrong, message in [
        (([], []), "at least one, got none"),
        (([1.0], [3.0]), "must differ, got 3.0"),
        (([1.0, 2.0], [3.0, 3.0]), "must differ, got 3.0"),
        (([1.0], [3.0, 4.0]), "predicted must have shape"),
        (([np.nan, 1.0], [3.0, 4.0]), "predicted must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            relative_error(*wrong)
