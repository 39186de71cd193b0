"""Runs of the workflow, in copies of the project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ["Snakefile", "README.md", "lode", "profiles", "workflows"]
TEST_RUN = ["--configfile", "workflows/config.test.yaml"]

# The whole workflow runs in a few tests that share one finished copy: together on
# one worker.
workflow = pytest.mark.xdist_group("workflow")


def project_copy(folder):
    """The project in a folder of its own, with compiled code where there is some."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part)
        else:
            shutil.copy2(source, folder / part)
    return folder


def results_in(folder, project):
    """Arguments with which the test run of a project puts its results elsewhere.

    A copy of the project has its loops compiled anew, another folder has not.
    """
    files = ("--snakefile", "Snakefile"), ("--configfile", "workflows/config.test.yaml")
    arguments = [text for key, name in files for text in (key, str(project / name))]
    return [*arguments, "--directory", str(folder)]


def started(folder, *arguments, package=None, **variables):
    """A process of Snakemake in a copy of the project, which imports its own package.

    It leads a group of its own, which can be killed with all its jobs. Both its streams
    are one, to be read.
    """
    environment = {**os.environ, "PYTHONPATH": str(package or folder)}
    environment |= {"LODE_OFFLINE": "1", **variables}
    # A bare call: nothing of a surrounding run may reach this one.
    environment.pop("SNAKEMAKE_PROFILE", None)
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process, succeeds=True):
    """Output of a process, which has to succeed, or to fail."""
    # It may run beside other tests on a slow machine: only what hangs is ended.
    with process:
        output, _ = process.communicate(timeout=3600)
    assert (process.returncode == 0) == succeeds, output
    return output


def snakemake(folder, *arguments, succeeds=True, package=None, **variables):
    """Output of Snakemake in a copy of the project."""
    return finish(started(folder, *arguments, package=package, **variables), succeeds)
