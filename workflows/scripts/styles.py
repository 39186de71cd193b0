"""How figures look: three styles, one colour, marker and line for each model."""

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from zlib import crc32

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by all readers, and some of Tol's.
SKY, BLUE, INDIGO, TEAL = "#56B4E9", "#0072B2", "#332288", "#44AA99"
ORANGE, VERMILION, WINE = "#E69F00", "#D55E00", "#882255"
GREEN, OLIVE, PINK, PURPLE = "#009E73", "#999933", "#CC79A7", "#AA4499"
GREY = "0.45"

# What a model looks like in every figure, by its name in the tables. Those that share
# a figure differ in colour and marker, most in the line as well.
MODELS = {
    "SOAP": (BLUE, "p", "-"),
    "SOAP 3": (SKY, "o", "-"),
    "SOAP 4": (TEAL, "^", "-"),
    "SOAP 6": (BLUE, "s", "-"),
    "SOAP 9": (INDIGO, "^", "-"),
    "SOAP 9 unnormalised": (PURPLE, "p", "-"),
    "SOAP, dimers only": (SKY, "<", ":"),
    "SOAPs, polarisability": (INDIGO, ">", "-"),
    "LODE(1)": (VERMILION, ">", "--"),
    "LODE(1) sigma=1.0": (ORANGE, "D", "--"),
    "LODE(1) sigma=0.5": (VERMILION, "v", "--"),
    "LODE(1) sigma=1.0 GTO": (OLIVE, ">", "--"),
    "LODE(1) point charges": (WINE, "h", "--"),
    "ρ+LODE(1)": (ORANGE, "h", "--"),
    "LODE(2)": (TEAL, "<", "-."),
    "LODE 3": (GREEN, "D", "-."),
    "SOAP+LODE(1)": (ORANGE, "^", "--"),
    "SOAP+LODE(2)": (GREEN, "v", "-."),
    "SOAP+LODE 3": (VERMILION, "<", "--"),
    "SOAP+LODE 3, polarisability": (WINE, "<", "--"),
    "SOAPs+LODEs, polarisability": (OLIVE, "h", "-."),
    "ρ⊗V": (PURPLE, "o", ":"),
    "ρ⊗V 3": (PINK, "p", ":"),
    "ρ⊗V 4": (PINK, "H", ":"),
    "SOAP+ρ⊗V": (PINK, "s", ":"),
    "SOAP+ρ⊗V 3": (PURPLE, "v", ":"),
    "SOAP+ρ⊗V, formal charges": (PURPLE, "d", (0, (6, 1, 1, 1))),
    "SOAP×(ρ⊗V), formal charges": (WINE, "D", (0, (6, 1, 1, 1))),
    "1/V": (GREY, "+", ":"),
    "1/V, bond length, angle": (GREY, "x", "-."),
}
# What models are compared with.
EXACT = {"color": "black", "marker": "o", "ls": "-"}

# For models that are not listed.
_SPARE = [
    (color, marker, line)
    for (color, marker), line in zip(
        product(
            (BLUE, ORANGE, GREEN, WINE, SKY, VERMILION, PURPLE, OLIVE, INDIGO, TEAL),
            ("o", "s", "^", "D", "v", "<", ">", "d", "p", "h"),
        ),
        100 * ("-", "--", "-.", ":"),
        strict=False,
    )
    if (color, marker) not in [style[:2] for style in MODELS.values()]
]

# Matplotlib sets exponents and indices at 0.7 of the size: 6 pt and no less in print.
WITH_EXPONENTS = 8.7

_COMMON = {
    "axes.grid": True,
    "font.family": "DejaVu Sans",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    # Embedded as TrueType: searchable, and what journals ask for.
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Style:
    """Sizes of a figure as it is printed or shown.

    Parameters
    ----------
    single, double : float
        Width in inches of a figure of one panel and of one with panels side by side.
    font : float
        Size of the text in points.
    small : float
        Size of legends and of names of panels that are long.
    tallest : float
        Largest height in inches.
    titled : bool
        Whether title and provenance stand in the figure; they always stand in the
        caption.
    lines : dict
        Matplotlib's settings of lines and markers.
    """

    single: float
    double: float
    font: float
    small: float
    tallest: float
    titled: bool
    lines: dict = field(default_factory=dict)

    @property
    def settings(self):
        """Matplotlib's settings, as a dictionary."""
        sizes = {
            "font.size": self.font,
            "axes.titlesize": self.font if not self.titled else self.font + 1,
            "axes.labelsize": self.font,
            "xtick.labelsize": self.font,
            "ytick.labelsize": self.font,
            "legend.fontsize": self.small,
        }
        return _COMMON | sizes | self.lines

    def figure(self, height, *, wide=True):
        """An empty figure.

        Parameters
        ----------
        height : float
            Relative to the width, where that is not too tall.
        wide : bool
            Whether it takes two columns.

        Returns
        -------
        StyledFigure
        """
        width = self.double if wide else self.single
        size = (width, min(height * width, self.tallest))
        figure = StyledFigure(figsize=size, layout="constrained")
        figure.look = self
        return figure


STYLES = {
    "default": Style(
        *(4.2, 7.2, 8.0, 7.0, 9.0, True),
        lines={"lines.linewidth": 1.2, "lines.markersize": 4.5},
    ),
    # For a column of 3.4 inches or two of 7.0, printed as they are.
    "journal": Style(
        *(3.4, 7.0, 8.0, 7.0, 9.0, False),
        lines={
            "axes.linewidth": 0.6,
            "lines.linewidth": 1.0,
            "lines.markersize": 4.0,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
        },
    ),
    # For a slide of 13.3 by 7.5 inches.
    "talk": Style(
        *(7.5, 12.8, 15.0, 13.0, 7.2, True),
        lines={
            "axes.linewidth": 1.2,
            "grid.linewidth": 0.8,
            "lines.linewidth": 2.4,
            "lines.markersize": 8.5,
        },
    ),
}


class StyledFigure(Figure):
    """A figure that keeps its style: Matplotlib makes ticks only when it draws.

    ``look`` is its :class:`Style`, ``caption`` the text that goes with it.
    """

    look = STYLES["default"]
    caption = ""

    def draw(self, renderer):
        """Draw in the figure's own style."""
        with mpl.rc_context(self.look.settings):
            super().draw(renderer)


@contextmanager
def style(name):
    """Draw in a style inside a ``with`` block.

    Parameters
    ----------
    name : {'default', 'journal', 'talk'}
        The style.

    Yields
    ------
    Style
        Its sizes; :meth:`Style.figure` makes a figure of them.

    Raises
    ------
    ValueError
        If there is no such style.
    """
    if name not in STYLES:
        raise ValueError(f"a style must be one of {list(STYLES)}, got {name!r}")
    with mpl.rc_context(STYLES[name].settings):
        yield STYLES[name]


def model_styles(labels):
    """Colour, marker and line of each model: the same in every figure.

    A model that is not in :data:`MODELS` gets what its name alone decides, and the next
    free one only where two such names meet in one figure.

    Parameters
    ----------
    labels : iterable of str
        Names in the tables; what follows as ``, 40 frames`` does not count.

    Returns
    -------
    dict of str to dict
        For each label ``color``, ``marker`` and ``ls``, as Matplotlib takes them.

    Examples
    --------
    >>> model_styles(["SOAP 3"])["SOAP 3"]
    {'color': '#56B4E9', 'marker': 'o', 'ls': '-'}
    """
    names = {label: re.sub(r", \d+ frames$", "", label) for label in labels}
    found = {name: MODELS[name] for name in names.values() if name in MODELS}
    for name in names.values():
        if name not in found:
            start = crc32(name.encode()) % len(_SPARE)
            candidates = _SPARE[start:] + _SPARE[:start]
            free = (spare for spare in candidates if spare not in found.values())
            found[name] = next(free, candidates[0])
    keys = ("color", "marker", "ls")
    return {
        label: dict(zip(keys, found[name], strict=True))
        for label, name in names.items()
    }


def displayed(label):
    """A model's name as figures show it, with symbols and units.

    Parameters
    ----------
    label : str
        Its name in the tables.

    Returns
    -------
    str

    Examples
    --------
    >>> displayed("LODE(1) sigma=1.0 GTO")
    'LODE(1), σ = 1.0 Å, GTO'
    >>> displayed("SOAP 6, 40 frames")
    'SOAP 6 Å, 40 frames'
    """
    text = re.sub(r" sigma=([\d.]+)(?= \w)", r", σ = \1 Å,", label)
    text = re.sub(r" sigma=([\d.]+)", r", σ = \1 Å", text)
    # The radius behind the name of a descriptor.
    return re.sub(r"(?<=[A-Za-z)]) (\d+(\.\d+)?)(?=$|[ ,+])", r" \1 Å", text)
