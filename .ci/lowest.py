"""Constraints that pin every dependency to its lowest supported version.

python .ci/lowest.py > constraints.txt
pip install -e ".[test]" -c constraints.txt
"""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(
    (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
)["project"]
extras = project["optional-dependencies"]
for requirement in [*project["dependencies"], *extras["workflow"], *extras["test"]]:
    found = re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\w.]+).*", requirement)
    if found:
        print("{}=={}".format(*found.groups()))
