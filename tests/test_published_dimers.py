"""Figure 2 on the curves of the authors: no far points, no centres of charge."""

import pytest

import dimer_model as dimer_model_script
import fig2 as fig2_script
import summary as summary_script
from csv_tables import table, write_table


@pytest.fixture
def predictions(tmp_path):
    """A table of predictions as published curves give it."""
    path = tmp_path / "predictions.csv"
    rows = []
    for of, name in zip(dimer_model_script.CLASSES, "abc", strict=True):
        for i, distance in enumerate((4.0, 5.0, 6.0)):
            for part in ("train", "test"):
                place = (f"{part}-{name}", of, "training", distance, "", part)
                rows.append((*place, -14.4 / distance, -14.0 / distance + 0.01 * i))
    write_table(path, dimer_model_script.PREDICTIONS, rows)
    return path


def test_published_curves_make_figure_2_without_far_points(predictions, tmp_path):
    names = ("fig2", "classes", "curves", "tails")
    paths = [tmp_path / f"{name}.csv" for name in names]
    models = {"soap": {"label": "SOAP"}}
    fig2_script.fig2_tables({"soap": predictions}, paths[:3], models=models, digits=3)
    fig2_script.fig2_tails({"soap": predictions}, paths[3], models=models, digits=3)
    pictures = [tmp_path / "fig2.png"]
    fig2_script.fig2_picture(*paths[:3], pictures, models=models, provenance="own")
    assert pictures[0].stat().st_size > 1000
    values = summary_script.curve_values(table(paths[0]))
    values |= summary_script.slope_values(table(paths[3]))
    assert list(values) == [("SOAP", "test")]
    # The claims about them are no errors.
    claim = {"curve": "soap", "set": "far", "below": 3.0}
    assert summary_script.verdict(claim, values, models, {})[2] == "-"
