"""Figures show their tables, and the same table gives the same bytes."""

import pytest

pytest.importorskip("matplotlib")

from plotting import figure_1, figure_3, save  # noqa: E402

RESOLUTION = 1e-9
CURVES = {
    "soap": {
        "label": "SOAP 9",
        "group": "paper",
        "reference": {"rmse_percent": 20.0, "source": "text"},
    },
    "lode": {"label": "LODE(1)", "group": "paper"},
    "limit": {"label": "limit", "group": "ours", "counterpart": "lode"},
}
ROWS = [
    {
        "curve": label,
        "n_train": str(n),
        "rmse_percent": str(error),
        "rmse_percent_std": str(error / 10),
    }
    for label, errors in {
        "SOAP 9": (60.0, 30.0, 20.0),
        "LODE(1)": (0.5, 0.4, 0.3),
        "limit": (3e-9, 1e-9, 1e-9),
    }.items()
    for n, error in zip((100, 10, 1000), errors, strict=True)
]


def figure(**changes):
    settings = {"resolution": RESOLUTION, "provenance": "60 generated frames"}
    return figure_1(ROWS, CURVES, **{**settings, **changes})


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_figure_1_keeps_the_papers_curves_and_ours_apart():
    paper, ours = figure().axes
    assert labels(paper)[:2] == ["SOAP 9 Å", "LODE(1)"]
    assert labels(ours)[0] == "limit"
    assert "pale: as on the left" in labels(ours)
    assert "pale: as on the left" not in labels(paper)
    assert not any("SOAP" in label for label in labels(ours))


def test_figure_1_has_logarithmic_axes_with_units_and_provenance():
    drawn = figure()
    for ax in drawn.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert ax.get_xlabel() == "training structures"
        assert "%" in ax.get_ylabel()
    assert "60 generated frames" in drawn.get_suptitle()


def test_figure_1_draws_the_table_sorted_by_size():
    line = figure().axes[0].containers[0].lines[0]
    assert list(line.get_xdata()) == [10, 100, 1000]
    assert list(line.get_ydata()) == [30.0, 60.0, 20.0]


def test_figure_1_marks_the_level_that_the_paper_states():
    assert "SOAP 9 Å in the paper: ≈ 20 %" in labels(figure().axes[0])


def test_figure_1_says_which_points_are_not_resolved():
    paper, ours = figure().axes
    assert "open: at most 1e-9 %" in labels(ours)
    assert not any("open" in label for label in labels(paper))


def test_figure_1_legends_and_axes_do_not_overlap():
    drawn = figure()
    drawn.draw_without_rendering()
    boxes = [ax.get_window_extent() for ax in drawn.axes]
    boxes += [ax.get_legend().get_window_extent() for ax in drawn.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_figure_1_names_a_curve_that_is_missing_from_the_table():
    with pytest.raises(ValueError, match="a curve must be one of .* got 'limit'"):
        figure_1(ROWS[:6], CURVES, resolution=RESOLUTION, provenance="")


def test_note_of_a_curve_stands_in_the_legend_and_not_in_the_table():
    curves = {**CURVES, "lode": {**CURVES["lode"], "note": "whitened"}}
    paper, _ = figure_3(ROWS, curves, provenance="boxes").axes
    assert labels(paper)[:2] == ["SOAP 9 Å", "LODE(1) (whitened)"]


@pytest.mark.parametrize("suffix", [".pdf", ".png"])
def test_the_same_table_gives_the_same_bytes(tmp_path, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save(figure(), first)
    save(figure(), second)
    assert first.read_bytes() == second.read_bytes()
    assert b"CreationDate" not in first.read_bytes()


def test_save_refuses_other_formats(tmp_path):
    with pytest.raises(
        ValueError, match=r"one of \['.pdf', '.png', '.txt'\], got '.svg'"
    ):
        save(figure(), tmp_path / "a.svg")
