"""Files that are whole or absent, and tables whose digits are stable."""

import contextlib
import csv
import math
import os
from pathlib import Path


@contextlib.contextmanager
def replacement(path):
    """Temporary path that takes the place of ``path`` once it is written.

    Parameters
    ----------
    path : path_like
        File to be written; its folder is made if it does not exist.

    Yields
    ------
    Path
        A path in the same folder, with the same suffix. If the block ends well
        it replaces ``path`` in one step, else it is removed and ``path`` stays
        as it was.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "notes.txt")
    >>> with replacement(path) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path, columns, rows):
    """Write a comma-separated table with a header, whole or not at all.

    Parameters
    ----------
    path : path_like
        File to write.
    columns : sequence of str
        The header.
    rows : iterable of sequence
        One sequence per row, of as many entries as there are columns.

    Raises
    ------
    ValueError
        If a row has another number of entries.
    """
    with replacement(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            row = list(row)
            if len(row) != len(columns):
                raise ValueError(
                    f"a row of {path} must have {len(columns)} entries, got {len(row)}"
                )
            writer.writerow(row)


def table(path):
    """Rows of a comma-separated table, as dictionaries of strings.

    Parameters
    ----------
    path : path_like
        File with a header line.

    Returns
    -------
    list of dict
    """
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def stable(value, digits, resolution=0.0, spread=None):
    """Round to the digits that a repetition reproduces.

    The last digit kept is the coarser of the ``digits``-th significant one and of
    ``resolution``; a value below the resolution becomes the resolution.

    Parameters
    ----------
    value : float
        Not negative.
    digits : int
        Significant digits, at least 1.
    resolution : float
        Smallest value told from zero.
    spread : float, optional
        An error bar of ``value``: rounded to the same last digit.

    Returns
    -------
    float, or tuple of float if ``spread`` is given

    Raises
    ------
    ValueError
        If ``value`` is negative or not finite, or ``digits`` is below 1.

    Examples
    --------
    >>> stable(20.2345, 3)
    20.2
    >>> stable(20.2345, 3, spread=0.7123)
    (20.2, 0.7)
    >>> stable(3e-12, 3, resolution=1e-9, spread=1e-12)
    (1e-09, 0.0)
    """
    if digits < 1:
        raise ValueError(f"digits must be at least 1, got {digits}")
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"value must be finite and not negative, got {value}")
    if value <= resolution:
        rounded, place = resolution, resolution
    else:
        place = max(10.0 ** (math.floor(math.log10(value)) - digits + 1), resolution)
        rounded = _multiple(value, place)
    return rounded if spread is None else (rounded, _multiple(spread, place))


def _multiple(value, place):
    """Nearest multiple of ``place``, without the digits of rounding noise."""
    return float(f"{round(value / place) * place:.12g}") if place > 0.0 else value
