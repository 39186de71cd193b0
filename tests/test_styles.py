"""Every figure in every style: sizes, looks and names of models, titles, captions."""

import re
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import yaml  # noqa: E402
from matplotlib.container import ErrorbarContainer  # noqa: E402
from matplotlib.text import Text  # noqa: E402

import plotting  # noqa: E402
import plotting_custom  # noqa: E402
import plotting_examples  # noqa: E402
from lode.suggestions import LABELS  # noqa: E402
from styles import MODELS, STYLES, displayed, model_styles, style  # noqa: E402
from workflows.configuration import salt_label, shown  # noqa: E402

CONFIG = yaml.safe_load(
    (Path(__file__).parents[1] / "workflows" / "config.yaml").read_text("utf-8")
)
HASH, LOCAL = "f9eb47ddca00", "+g1a2b3c"
PROVENANCE = f"published: boxes (a.xyz, git_blob {HASH}), lode 0.1{LOCAL}"
INCH = 72


def learning_rows(curves, sizes=(10, 20, 50, 100, 200, 500, 1000, 1500), low=2e-3):
    """A table with a curve for each label, some of many decades, some of few."""
    levels = np.geomspace(80.0, low, len(curves))
    return [
        {
            "curve": curve["label"],
            "n_train": str(n),
            "rmse_percent": str(max(level, 80.0 * (n / sizes[0]) ** -0.4 * level / 80)),
            "rmse_percent_std": str(0.1 * level),
        }
        for curve, level in zip(curves.values(), levels, strict=True)
        for n in sizes
    ]


def gas(curves, style):
    rows = learning_rows(curves, low=1e-9)
    return plotting.figure_1(
        rows, curves, resolution=1e-9, provenance=PROVENANCE, style=style
    )


def dimers(curves, style):
    labels = [curve["label"] for curve in curves.values()]
    classes = ("both charged", "one charged", "like charges")
    r = [4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 25.0]
    points = [
        {
            "dimer": f"SSI-{100 + 10 * c + k}ARG-296GLU-1-with-a-long-name",
            "class": of,
            "curve": label,
            "kind": "training" if x <= 8.0 else "far",
            "distance": str(x),
            "energy": str((c - 1) * 14.4 / x + 0.1 * i),
        }
        for c, of in enumerate(classes)
        for k in range(2)
        for i, label in enumerate(["reference", *labels])
        for x in r
    ]
    errors = [
        {"curve": label, "set": of, "class": c, "rmse_percent": str(200.0 / 3**i)}
        for i, label in enumerate(labels)
        for of in ("test", "far")
        for c in classes
    ]
    return plotting.figure_2(
        points, errors, errors, labels, provenance=PROVENANCE, style=style
    )


def water(curves, style):
    rows = learning_rows(curves, (25, 50, 100, 200, 400, 800), low=3.0)
    return plotting.figure_3(rows, curves, provenance=PROVENANCE, style=style)


def tensor(curves, style):
    rows = learning_rows(curves, (25, 50, 100, 200, 400, 800), low=9.0)
    labels = [curve["label"] for curve in curves.values()]
    return plotting.figure_3_tensor(
        rows, rows, labels, provenance=PROVENANCE, style=style
    )


def one_panel(curves, style):
    curves = {name: {"label": curve["label"]} for name, curve in curves.items()}
    return plotting.learning_curves(
        learning_rows(curves), curves, "Energy", style, provenance=PROVENANCE
    )


def own_data(curves, style):
    rows = learning_rows(curves, (20, 40, 80, 160), low=0.2)
    title = "Learning curves of energy"
    return plotting.learning_curves(rows, curves, title, style, provenance=PROVENANCE)


def parity(curves, style):
    rows = [
        {"value": -3.2 - 0.01 * i, "predicted": -3.2 - 0.011 * i, "std": "0.02"}
        for i in range(40)
    ]
    found = {curve["label"]: rows for curve in curves.values()}
    about = {"target": "energy", "unit": "eV per atom", "provenance": PROVENANCE}
    return plotting_custom.figure_parity(found, style=style, **about)


def liquid(curves, style):
    r, t = np.linspace(0.05, 8.0, 160), np.linspace(0.0, 4.0, 80)
    labels = [salt_label(CONFIG, name, n) for name in curves for n in (10, 100)]
    own = {"r": r, "lags": t, "msd": np.outer([1, 1], 30 * t)}
    own["rdf"] = np.outer([1, 1, 1], np.exp(-((r - 3) ** 2)))
    errors = [
        (x, str(10 ** (1 + i % 2)), 3 / 9**i, 99 / 9**i) for i, x in enumerate(labels)
    ]
    return plotting_examples.figure_liquid(
        dict.fromkeys(["exact", *labels[1::2]], own),
        "exact",
        [("exact", "", "", ""), *errors],
        provenance=PROVENANCE,
        style=style,
    )


def crystal(curves, style):
    labels = ["exact", *(salt_label(CONFIG, name, 40) for name in curves)]
    q = [0.1, 0.3, 0.5]
    keys = ("constant", "bulk", "c11", "c12", "c44")
    found = {
        label: {**dict.fromkeys(keys, 1.0 + 0.1 * i), "q": q}
        | {"lo": [9.0 - i, 8.0, 7.0], "to": [4.0 + 0.01 * i, 4.1, 4.2]}
        for i, label in enumerate(labels)
    }
    return plotting_examples.figure_crystal(
        found, "exact", provenance=PROVENANCE, style=style
    )


def force_dimers(curves, style):
    rows = [
        (c["label"], "point charges" if c["point_charges"] else "", 1.0, "all")
        + (75, 55, 100.0 + 30 * i, 90.0 + 4 * i, 1.0)
        for i, c in enumerate(curves.values())
    ]
    points = [
        {
            "set": "train" if x < 6 else "test",
            "distance": x,
            "predicted": x,
            "energy": 5,
        }
        for x in np.linspace(4.0, 9.0, 40)
    ]
    labels = list(dict.fromkeys(row[0] for row in rows))
    names = (labels[0], f"{labels[-1]} on point charges")
    pairs = zip(("local", "best"), (labels[0], labels[-1]), names, strict=True)
    return plotting_examples.figure_force_dimers(
        rows,
        {kind: (label, name, points) for kind, label, name in pairs},
        provenance=PROVENANCE,
        style=style,
    )


FIGURES = {
    gas: shown(CONFIG["curves"]),
    dimers: shown(CONFIG["dimer_models"]),
    water: shown(CONFIG["water_models"]),
    tensor: shown(CONFIG["water_tensor_models"]),
    one_panel: shown(CONFIG["curves"]),
    own_data: {name: {"label": label} for name, label in LABELS.items()},
    parity: {name: {"label": label} for name, label in LABELS.items()},
    liquid: CONFIG["salt_models"],
    crystal: CONFIG["salt_models"],
    force_dimers: CONFIG["force_dimer_models"],
}
every_figure = pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)
every_style = pytest.mark.parametrize("name", STYLES)


@cache
def drawn(draw, name="default", left_out=None):
    curves = {k: v for k, v in FIGURES[draw].items() if k != left_out}
    figure = draw(curves, name)
    figure.draw_without_rendering()
    return figure


def texts(figure):
    """Texts that are seen."""
    found = [text for text in figure.findobj(Text) if text.get_text().strip()]
    return [text for text in found if text.get_visible()]


def printed_size(text):
    """Size in points of the smallest letters of a text."""
    assert not re.search("[⁰¹²³⁴⁵⁶⁷⁸⁹₀-₉]", text.get_text()), text
    small = re.search(r"\$.*[\^_].*\$", text.get_text())
    return text.get_fontsize() * (0.7 if small else 1.0)


def looks(figure):
    """Colour and marker of each label of a legend."""
    found = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            line = handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle
            if hasattr(line, "get_marker"):
                found[label] = (line.get_color(), line.get_marker())
    return found


@every_style
@every_figure
def test_smallest_text_has_six_points_in_print(draw, name):
    figure = drawn(draw, name)
    assert min(printed_size(text) for text in texts(figure)) >= 6.0


@every_style
@every_figure
def test_saved_page_has_the_width_of_the_style_and_embedded_fonts(draw, name, tmp_path):
    figure = drawn(draw, name)
    plotting.save(figure, tmp_path / "a.pdf")
    page = (tmp_path / "a.pdf").read_bytes()
    (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", page)
    style = STYLES[name]
    wanted = style.single if draw in (one_panel, own_data) else style.double
    assert float(width) == pytest.approx(INCH * wanted)
    # Each font stands in the file, as TrueType.
    n_fonts = page.count(b"/FontName")
    assert page.count(b"/FontFile2") == n_fonts > 0
    assert b"/Type3" not in page


def test_a_journals_columns_are_3_4_and_7_inches():
    assert (STYLES["journal"].single, STYLES["journal"].double) == (3.4, 7.0)
    assert STYLES["journal"].font == 8.0


@every_style
@every_figure
def test_nothing_overlaps_and_nothing_is_cut(draw, name):
    figure = drawn(draw, name)
    boxes = [ax.get_tightbbox(for_layout_only=False) for ax in figure.axes]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    if figure.get_suptitle():
        boxes.append(figure._suptitle.get_window_extent())
    for box in boxes:
        assert box.x0 > -1
        assert box.y0 > -1
        assert box.x1 < figure.bbox.width + 1
        assert box.y1 < figure.bbox.height + 1
    boxes = [box.padded(-1) for box in boxes]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


@every_style
@every_figure
def test_numbers_at_the_ticks_do_not_touch(draw, name):
    for ax in drawn(draw, name).axes:
        for axis, low, high in (
            (ax.xaxis, ax.bbox.x0, ax.bbox.x1),
            (ax.yaxis, ax.bbox.y0, ax.bbox.y1),
        ):
            boxes = [
                text.get_window_extent()
                for text in axis.get_ticklabels()
                if text.get_visible() and text.get_text()
            ]
            # Matplotlib keeps labels beyond the ends, and does not draw them.
            middles = [b.x0 + b.x1 if axis is ax.xaxis else b.y0 + b.y1 for b in boxes]
            boxes = [
                box
                for box, middle in zip(boxes, middles, strict=True)
                if 2 * low - 2 <= middle <= 2 * high + 2
            ]
            shared = axis is ax.yaxis and draw is water and ax is ax.figure.axes[1]
            assert len(boxes) >= (0 if shared else 2)
            assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_a_model_looks_the_same_in_all_figures():
    seen = {}
    for draw in FIGURES:
        for label, look in looks(drawn(draw)).items():
            # What it has learnt from does not count, nor notes behind it.
            model = re.sub(r", \d+ frames$| \(.*\)$| on point charges$", "", label)
            seen.setdefault(model, set()).add(look)
    models = {displayed(label) for label in MODELS} & set(seen)
    assert len(models) > 20
    assert {model: look for model, look in seen.items() if len(look) > 1} == {}
    assert len(set.union(*(seen[model] for model in models))) == len(models)


def test_every_model_of_the_configuration_has_a_look_of_its_own():
    labels = {
        curve["label"]
        for block in FIGURES.values()
        for curve in block.values()
        if "label" in curve
    }
    assert labels <= set(MODELS)


@every_figure
def test_models_of_one_panel_differ_without_colour(draw):
    for ax in drawn(draw).axes:
        handles, names = ax.get_legend_handles_labels()
        lines = [h.lines[0] if isinstance(h, ErrorbarContainer) else h for h in handles]
        marks = [
            (
                line.get_marker(),
                line.get_fillstyle(),
                line.get_markerfacecolor() == "white",
            )
            for line in lines
            if hasattr(line, "get_marker") and line.get_marker() != "None"
        ]
        assert len(marks) == len(set(marks)), names


@pytest.mark.parametrize("draw", [gas, dimers, water, tensor], ids=lambda f: f.__name__)
def test_curves_keep_their_looks_where_one_is_left_out_or_renamed(draw):
    first, second, *_ = FIGURES[draw]
    before, after = looks(drawn(draw)), looks(drawn(draw, left_out=first))
    assert len(after) == len(before) - 1
    assert after.items() <= before.items()
    curves = {**FIGURES[draw]}
    curves[second] = {**curves[second], "label": "a new name"}
    renamed = looks(draw(curves, "default"))
    assert renamed.pop("a new name") not in renamed.values()
    assert renamed.items() <= before.items()


def test_a_model_that_is_not_listed_looks_as_its_name_decides():
    alone = model_styles(["quadratic"])["quadratic"]
    among = model_styles(["SOAP 3", "cubic", "quadratic", "LODE(2)"])
    assert among["quadratic"] == alone
    many = model_styles(f"model {i}" for i in range(40))
    assert len({(m["color"], m["marker"]) for m in many.values()}) == 40
    listed = {(color, marker) for color, marker, _ in MODELS.values()}
    assert not listed & {(m["color"], m["marker"]) for m in many.values()}


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("SOAP 3", "SOAP 3 Å"),
        ("LODE(1) sigma=1.0", "LODE(1), σ = 1.0 Å"),
        ("LODE(1) sigma=1.0 GTO", "LODE(1), σ = 1.0 Å, GTO"),
        ("SOAP+LODE 3, polarisability", "SOAP+LODE 3 Å, polarisability"),
        ("SOAP 6, 40 frames", "SOAP 6 Å, 40 frames"),
        ("ρ⊗V 4", "ρ⊗V 4 Å"),
        ("ρ+LODE(1), 10 frames", "ρ+LODE(1), 10 frames"),
        ("LODE(1) point charges", "LODE(1) point charges"),
        ("1/V, bond length, angle", "1/V, bond length, angle"),
    ],
)
def test_names_are_displayed_with_symbols_and_units(label, wanted):
    assert displayed(label) == wanted


@every_style
@every_figure
def test_titles_have_no_hash_and_captions_have_all(draw, name, tmp_path):
    figure = drawn(draw, name)
    seen = " ".join(text.get_text() for text in texts(figure))
    assert HASH not in seen
    assert LOCAL not in seen
    assert ("published: boxes, lode 0.1" in seen) == (name != "journal")
    plotting.save(figure, tmp_path / "a.txt")
    caption = (tmp_path / "a.txt").read_text("utf-8")
    assert " ".join(caption.split()).endswith(f"Data: {PROVENANCE}.")


def test_unknown_style_is_refused():
    with (
        pytest.raises(ValueError, match=r"one of \['default', 'jou.* got 'poster'"),
        style("poster"),
    ):
        pass


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((0.9, 120.0), ["1", "2", "5", "10", "20", "50", "100"]),
        ((0.004, 150.0), ["0.01", "0.1", "1", "10", "100"]),
        ((1e-9, 100.0), ["$10^{-8}$", "$10^{-6}$", "$10^{-4}$", "$10^{-2}$"]),
        ((11.0, 19.0), ["12", "14", "16", "18"]),
    ],
)
def test_ticks_of_a_logarithmic_axis_can_be_read(limits, wanted):
    with style("journal") as look:
        ax = look.figure(0.7).subplots()
        ax.set(yscale="log", ylim=limits)
        plotting.mark_decades(ax.yaxis)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels[: len(wanted)] == wanted
