"""Pages of the report: claims and data, settings, times, versions."""

import platform
import re
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

from csv_tables import table
from job import started_job
from lode.files import write_text

# What the numbers and pictures depend on, beside the package itself.
PACKAGES = (
    *("ase", "finufft", "numba", "numpy", "scipy", "skmatter", "vesin"),
    *("matplotlib", "mopactools", "snakemake"),
)

# On a narrow screen a row is a block, and each cell says what it is.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.45 sans-serif; color: #222; background: #fff; margin: 1em auto;
  max-width: 60em; padding: 0 1em; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.4em; }}
h2, summary {{ font-size: 1.1em; font-weight: bold; margin: 1em 0 0.4em; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: 0.3em 0.6em;
  border-bottom: 1px solid #ccc; }}
pre {{ white-space: pre-wrap; font-size: 0.85em; background: #f4f4f4; padding: 0.6em; }}
@media (max-width: 40em) {{
  thead {{ display: none; }}
  tr {{ display: block; padding: 0.5em 0; border-bottom: 1px solid #999; }}
  td {{ display: flex; border: 0; padding: 0.1em 0; }}
  td::before {{ content: attr(data-name); flex: 0 0 6.5em; color: #555; }}
}}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def summary_page(summary_path, captions, path):
    """Write what each figure shows, and where its data come from.

    Parameters
    ----------
    summary_path : path_like
        Table of the claims, with the column ``figure``.
    captions : dict of str to path_like
        Of each figure the caption, whose last paragraph names the data.
    path : path_like
        Page to write.
    """
    rows = table(summary_path)
    parts = []
    for figure in dict.fromkeys([*captions, *(row["figure"] for row in rows)]):
        parts.append(f"<h2>{escape(figure)}</h2>")
        if figure in captions:
            text = Path(captions[figure]).read_text(encoding="utf-8")
            parts += [f"<p>{escape(p)}</p>" for p in text.strip().split("\n\n")]
        found = [row for row in rows if row["figure"] == figure]
        if found:
            columns = [column for column in found[0] if column != "figure"]
            parts.append(html_table(columns, [[r[c] for c in columns] for r in found]))
    _write(path, "What the figures show", parts)


def times_page(times_path, path):
    """Write how long the jobs behind each figure took.

    Parameters
    ----------
    times_path : path_like
        Table ``figure,job,seconds,memory_mb``.
    path : path_like
        Page to write.
    """
    jobs = {}
    for row in table(times_path):
        jobs.setdefault(row["figure"], []).append(row)
    totals, parts = [], []
    for figure, rows in jobs.items():
        seconds = sum(float(row["seconds"]) for row in rows)
        memory = max(float(row["memory_mb"] or 0.0) for row in rows)
        totals.append((figure, len(rows), f"{seconds:.0f}", f"{memory:.0f}"))
        cells = [(row["job"], row["seconds"], row["memory_mb"]) for row in rows]
        parts += [
            f"<details><summary>Jobs of {escape(figure)}</summary>",
            html_table(("job", "seconds", "MB"), cells),
            "</details>",
        ]
    parts = [html_table(("figure", "jobs", "seconds", "largest MB"), totals), *parts]
    _write(path, "Wall times and memory", parts)


def settings_page(settings, path):
    """Write the configuration, defaults included.

    Parameters
    ----------
    settings : dict
        The configuration.
    path : path_like
        Page to write.
    """
    parts = []
    for key, value in sorted(settings.items()):
        text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=60)
        # The mark of an end that YAML puts behind a bare value.
        text = re.sub(r"\n\.\.\.\n$", "\n", text)
        parts += [
            f"<details><summary>{escape(key)}</summary>",
            f"<pre>{escape(text)}</pre>",
            "</details>",
        ]
    _write(path, "Settings", parts)


def versions_page(own_version, path):
    """Write the versions of the package and of what it runs with.

    Parameters
    ----------
    own_version : str
        Of the package.
    path : path_like
        Page to write.
    """
    rows = [("lode", own_version), ("Python", platform.python_version())]
    rows += [(name, _version(name)) for name in PACKAGES]
    rows.append(("machine", f"{platform.system()} {platform.machine()}"))
    _write(path, "Versions", [html_table(("package", "version"), rows)])


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def html_table(columns, rows):
    """A table that is read on a phone too.

    Parameters
    ----------
    columns : sequence of str
        The header.
    rows : iterable of sequence
        One sequence per row, of as many entries as there are columns.

    Returns
    -------
    str
        HTML; all text is escaped.
    """
    columns = [escape(str(column)) for column in columns]
    lines = ["<table>", "<thead><tr>"]
    lines += [f"<th>{column}</th>" for column in columns]
    lines += ["</tr></thead>", "<tbody>"]
    for row in rows:
        cells = zip(columns, row, strict=True)
        cells = [f'<td data-name="{c}">{escape(str(x))}</td>' for c, x in cells]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _write(path, title, parts):
    write_text(path, _PAGE.format(title=escape(title), body="\n".join(parts)))


if "snakemake" in globals():
    job = started_job(globals())
    params = job.params
    captions = dict(zip(params.figures, job.input.captions, strict=True))
    summary_page(job.input.summary, captions, job.output.summary)
    times_page(job.input.times, job.output.times)
    settings_page(params.settings, job.output.settings)
    versions_page(params.version, job.output.versions)
