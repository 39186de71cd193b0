"""Faults that happen, each of them made: a clear error, or the bits of a calm run."""

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("snakemake")

import numpy as np  # noqa: E402
from ase import Atoms  # noqa: E402
from test_acquire import BLOB, CONTENT, largest_file, server  # noqa: E402, F401
from workflow_runs import (  # noqa: E402
    ROOT,
    finish,
    project_copy,
    results_in,
    started,
    workflow,
)

from csv_tables import write_table  # noqa: E402
from lode.archive import save_archive  # noqa: E402
from lode.datasets.acquire import PROVENANCE, SOURCES  # noqa: E402
from lode.datasets.frames import write_frames  # noqa: E402
from lode.files import atomic_write, remove_leftovers, write_json  # noqa: E402
from plotting import save  # noqa: E402
from styles import style  # noqa: E402
from workflows.folders import refuse_future, refuse_read_only  # noqa: E402

RESULTS = Path("results", "test")

# What writes a file of some kilobytes, by its name.
NUMBERS = np.random.default_rng(0).normal(size=(3000, 3))


def picture():
    with style("default") as look:
        figure = look.figure(1.0)
        figure.subplots().imshow(NUMBERS[:300])
    return figure


WRITERS = {
    "table.csv": lambda path: write_table(path, "xyz", NUMBERS),
    "table.csv.gz": lambda path: write_table(path, "xyz", NUMBERS),
    "frames.extxyz.gz": lambda path: write_frames(path, [Atoms(3000 * "H", NUMBERS)]),
    "arrays.npz": lambda path: save_archive(path, "test", {}, {"numbers": NUMBERS}),
    "data.json": lambda path: write_json(path, {"numbers": NUMBERS.tolist()}),
    "figure.png": lambda path: save(picture(), path),
    "figure.pdf": lambda path: save(picture(), path),
}


@contextlib.contextmanager
def disk(folder, size):
    """A disk of its own for a folder, with so many kilobytes; skips where none is."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here, which wants root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder, option):
    command = ["mount", "-o", f"remount,{option}", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def refusal(path, reason):
    """Pattern of the one line that says why a file is not written and what helps."""
    reason, remedy = {
        "full": (errno.ENOSPC, "make room"),
        "large": (errno.EFBIG, r"raise the limit of the size of files \(ulimit -f\)"),
        "read-only": (errno.EROFS, "make its folder writable"),
    }[reason]
    return (
        rf"{re.escape(str(path))} cannot be written: {os.strerror(reason)}; {remedy} "
        "and run again"
    )


@pytest.mark.parametrize("name", WRITERS)
def test_file_that_outgrows_its_limit_is_not_written(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    with largest_file(4096), pytest.raises(OSError, match=refusal(path, "large")):
        WRITERS[name](path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    WRITERS[name](path)


@pytest.mark.parametrize("name", WRITERS)
def test_file_on_a_full_disk_is_not_written(tmp_path, name):
    with disk(tmp_path / "disk", 8) as folder:
        path = folder / name
        path.write_text("old")
        with pytest.raises(OSError, match=refusal(path, "full")):
            WRITERS[name](path)
        assert path.read_text() == "old"
        assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_file_on_a_read_only_disk_is_not_written(tmp_path, name):
    with disk(tmp_path / "disk", 1000) as folder:
        remount(folder, "ro")
        for path in (folder / name, folder / "new" / name):
            with pytest.raises(OSError, match=refusal(path, "read-only")):
                WRITERS[name](path)


def test_error_of_another_file_is_not_blamed_on_the_one_written(tmp_path):
    other = tmp_path / "other"
    with (
        pytest.raises(PermissionError, match="other"),
        atomic_write(tmp_path / "file"),
    ):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(other))


def test_leftovers_of_a_file_are_removed_and_nothing_else(tmp_path):
    gone = [".lode_0.5.12.npz", ".lode_0.5.3456.npz"]
    kept = ["lode_0.5.npz", ".lode_0.5.7.3.npz", ".lode_0.12.npz", ".lode_0.5.npz"]
    for name in (*gone, *kept, ".lode_0.5.12.csv"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "lode_0.5.npz")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*kept, ".lode_0.5.12.csv"}
    remove_leftovers(tmp_path / "absent" / "lode_0.5.npz")
    with atomic_write(tmp_path / "lode_0.5.npz") as temporary:
        temporary.touch()
        remove_leftovers(tmp_path / "lode_0.5.npz")
        assert not temporary.exists()
        temporary.touch()


def test_results_from_the_future_are_refused(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    refuse_future(tmp_path)
    refuse_future(tmp_path / "absent")
    for name, hours in (("b", 2), ("c", 1)):
        os.utime(tmp_path / name, 2 * (time.time() + 3600 * hours,))
    message = r"may be newer than now, .*, got 2, the newest .*b of 20.*delete these"
    with pytest.raises(ValueError, match=message):
        refuse_future(tmp_path)


def test_read_only_folder_is_refused(tmp_path):
    refuse_read_only(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file must be a folder that can be written"):
        refuse_read_only(tmp_path / "file")
    with disk(tmp_path / "disk", 100) as folder:
        remount(folder, "ro")
        for path in (folder, folder / "new"):
            with pytest.raises(OSError, match="got: Read-only file system"):
                refuse_read_only(path)


# The rest runs the workflow.

EVERYTHING = ("all", "examples")


@dataclass
class Run:
    """The test run of a project, with its results in a folder."""

    project: Path
    folder: Path

    @property
    def results(self):
        return self.folder / RESULTS

    def start(self, *arguments, **variables):
        arguments += tuple(results_in(self.folder, self.project))
        return started(self.folder, *arguments, package=self.project, **variables)

    def __call__(self, *arguments, succeeds=True, **variables):
        return finish(self.start(*arguments, **variables), succeeds)

    def tables(self):
        """Content of all tables but the one of the times."""
        paths = [*self.results.rglob("*.csv"), *self.results.rglob("*.csv.gz")]
        return {
            str(path.relative_to(self.results)): path.read_bytes()
            for path in paths
            if path.name != "times.csv"
        }

    def assert_same(self, other):
        """The tables are those of another run, and nothing half-written is there."""
        found, wanted = self.tables(), other.tables()
        assert len(wanted) > 20
        assert found.keys() == wanted.keys()
        assert [name for name in wanted if found[name] != wanted[name]] == []
        hidden = [path.name for path in self.results.rglob(".*") if path.is_file()]
        assert set(hidden) <= {".snakemake_timestamp"}


@pytest.fixture
def calm(finished):
    """The run that nothing has disturbed."""
    return Run(finished[0], finished[0])


@pytest.fixture
def fresh(calm, tmp_path):
    """A run that has not begun."""
    (tmp_path / "run").mkdir()
    return Run(calm.project, tmp_path / "run")


@pytest.fixture
def copy(calm, fresh):
    """The end of the calm run, with its times."""
    for name in (".snakemake", "results"):
        shutil.copytree(calm.folder / name, fresh.folder / name)
    return fresh


# Loaded by each Python: the first file that a script writes is cut in the middle, where
# it would get its name, and the process ends, or with it all of the run.
KILLER = """
import os, signal, sys
from pathlib import Path

replace = os.replace

def killed(source, target, **options):
    script = Path(sys.argv[0]).name.split(".")
    if len(script) == 3 and script[1] in os.environ["KILLED"].split():
        try:
            Path(os.environ["NOTES"], script[1]).touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.truncate(source, os.path.getsize(source) // 2)
            if os.environ["VICTIM"] == "run":
                os.killpg(0, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(source, target, **options)

os.replace = killed
"""


def killer(folder, project, scripts, victim):
    """A folder of notes, and variables with which each script is killed once."""
    notes = folder / "notes"
    notes.mkdir()
    (folder / "sitecustomize.py").write_text(KILLER)
    return notes, {
        "PYTHONPATH": os.pathsep.join([str(project), str(folder)]),
        "NOTES": str(notes),
        "KILLED": " ".join(scripts),
        "VICTIM": victim,
    }


def job_scripts():
    """Names of the scripts that rules run; those of own data want a file of them."""
    paths = (ROOT / "workflows" / "scripts").glob("*.py")
    return {
        path.stem
        for path in paths
        if '"snakemake" in globals()' in path.read_text()
        and not path.stem.startswith("custom")
    }


def is_killed(process):
    """Wait for the end of a run; whether it was killed. If not it has ended well."""
    with process:
        output, _ = process.communicate(timeout=3600)
    assert process.returncode in (0, -signal.SIGKILL), output
    return process.returncode != 0


@workflow
@pytest.mark.slow
def test_run_killed_once_in_each_rule_gives_the_same_tables(calm, fresh, tmp_path):
    scripts = job_scripts()
    notes, variables = killer(tmp_path, fresh.project, scripts, "run")
    while is_killed(fresh.start(*EVERYTHING, "--cores", "2", **variables)):
        assert len(list(notes.iterdir())) <= len(scripts)
        fresh("--unlock")
    assert {path.name for path in notes.iterdir()} == scripts
    fresh.assert_same(calm)
    assert "Nothing to be done" in fresh(*EVERYTHING)


def wait_for_jobs(run, number):
    """Wait until so many jobs of a run are done."""
    while number > 0:
        line = run.stdout.readline()
        assert line, "the run has ended"
        number -= bool(re.match(r"\d+ of \d+ steps", line))


@workflow
@pytest.mark.slow
def test_ten_kills_at_random_moments_give_the_same_tables(calm, fresh):
    moments = random.Random(20)
    for _ in range(10):
        run = fresh.start(*EVERYTHING, "--cores", str(moments.choice([1, 2])))
        wait_for_jobs(run, moments.randrange(6))
        time.sleep(moments.uniform(0.0, 3.0))
        os.killpg(run.pid, signal.SIGKILL)
        assert is_killed(run)
        fresh("--unlock")
    fresh(*EVERYTHING, "--cores", "2")
    fresh.assert_same(calm)


@workflow
@pytest.mark.slow
def test_forced_run_gives_the_same_tables(calm, copy):
    copy(*EVERYTHING, "--cores", "2", "--forceall")
    copy.assert_same(calm)


GAS, ENERGIES = "results/test/gas/0.extxyz.gz", "results/test/energies/0.csv.gz"


@workflow
@pytest.mark.slow
def test_killed_run_leaves_a_lock_and_says_how_to_remove_it(calm, copy, tmp_path):
    path, call = copy.folder / ENERGIES, (ENERGIES, "--cores", "1")
    path.unlink()
    _, variables = killer(tmp_path, copy.project, ["energies"], "run")
    assert is_killed(copy.start(*call, **variables))
    # Half of it is there, but not under its name.
    assert not path.exists()
    assert len(list(copy.results.glob("energies/.0.csv.*.gz"))) == 1
    output = copy(*call, succeeds=False)
    assert "Directory cannot be locked" in output
    assert "can be removed with the --unlock argument" in output
    assert "Traceback" not in output
    assert not path.exists()
    copy("--unlock")
    assert "rule energies" in copy(*call)
    copy.assert_same(calm)


@workflow
@pytest.mark.slow
def test_job_that_the_system_kills_is_named_and_repeated(calm, copy, tmp_path):
    path, call = copy.folder / ENERGIES, (ENERGIES, "--cores", "1")
    path.unlink()
    _, variables = killer(tmp_path, copy.project, ["energies"], "job")
    output = copy(*call, succeeds=False, **variables)
    assert "Error in rule energies" in output
    assert "SIGKILL" in output
    assert not path.exists()
    # Snakemake itself has ended well: there is no lock.
    copy(*call)
    copy.assert_same(calm)


@workflow
@pytest.mark.slow
def test_second_run_at_once_is_refused_and_the_first_one_ends(calm, copy):
    for name in ("features", "learning_curve"):
        shutil.rmtree(copy.results / name)
    (copy.results / "figures" / "fig1.csv").unlink()
    first = copy.start("fig1", "--cores", "1")
    wait_for_jobs(first, 1)
    output = copy("fig1", "--cores", "1", succeeds=False)
    assert "make sure that no other Snakemake process is trying to create" in output
    assert not is_killed(first)
    copy.assert_same(calm)


@workflow
@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 8])
def test_full_disk_is_an_error_and_with_room_the_run_goes_on(calm, copy, room):
    """With no room not even the log can be written."""
    path, call = copy.results / "gas/0.extxyz.gz", (GAS, "--cores", "1")
    for name in (path, copy.results / "logs" / "gas" / "0.log"):
        name.unlink()
    with moved_to_disk(copy.folder / "results", 100_000) as folder:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(folder).free - 1024 * room))
        output = copy(*call, succeeds=False)
        line = refusal(GAS, "full") if room else os.strerror(errno.ENOSPC)
        line = rf"^OSError: .*{line} \(log: .*gas/0\.log\)$"
        assert re.search(line, output, flags=re.MULTILINE), output
        assert not path.exists()
        ballast.unlink()
        copy(*call)
        copy.assert_same(calm)


@workflow
@pytest.mark.slow
def test_read_only_results_are_one_clear_error(calm, copy):
    with moved_to_disk(copy.folder / "results", 100_000) as folder:
        (copy.folder / ENERGIES).unlink()
        remount(folder, "ro")
        output = copy(ENERGIES, "--cores", "1", succeeds=False)
        message = "results/test must be a folder that can be written, got: Read-only"
        assert message in output
        assert "Traceback" not in output
        remount(folder, "rw")
        copy(ENERGIES, "--cores", "1")
        copy.assert_same(calm)


@contextlib.contextmanager
def moved_to_disk(folder, size):
    """A folder whose content lies on a disk of its own."""
    aside = folder.rename(folder.with_name("aside"))
    with disk(folder, size):
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield folder


@workflow
@pytest.mark.slow
def test_clock_that_goes_back_is_an_error(calm, copy):
    tomorrow = time.time() + 24 * 3600.0
    path = copy.results / "gas/0.extxyz.gz"
    os.utime(path, (tomorrow, tomorrow))
    call = (ENERGIES, "--cores", "1", "--forcerun", "energies")
    output = copy(*call, succeeds=False)
    assert "results/test may be newer than now" in output
    assert "set the clock right, or delete these files, and run again" in output
    assert "Traceback" not in output
    path.unlink()
    copy("fig1", "--cores", "1")
    copy.assert_same(calm)


@workflow
@pytest.mark.slow
def test_inputs_newer_than_outputs_give_the_same_tables(calm, copy):
    (copy.results / "gas/0.extxyz.gz").touch()
    past = time.time() - 24 * 3600.0
    os.utime(copy.folder / ENERGIES, (past, past))
    copy("fig1", "--cores", "1")
    copy.assert_same(calm)


def edit(path, changes):
    """Replace texts of a file, each of which is there once."""
    text = path.read_text("utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text, "utf-8")


@pytest.fixture
def downloading(server, tmp_path):  # noqa: F811
    """A run whose dimers are a file on the test's own server."""
    project, folder = tmp_path / "project", tmp_path / "run"
    for path in (project, folder):
        path.mkdir()
    project_copy(project)
    edit(
        project / "lode" / "datasets" / "acquire.py",
        {
            "https://raw.githubusercontent.com": server.url.removesuffix("/file.dat"),
            SOURCES["dimers"]["published"].git_blob: BLOB,
            "TIMEOUT = 10.0": "TIMEOUT = 3.0",
        },
    )
    source = "dimers:\n  source: "
    changes = {f"{source}generated": f"{source}published"}
    edit(project / "workflows" / "config.test.yaml", changes)
    return Run(project, folder)


ONLINE = {"LODE_OFFLINE": "0", "LODE_DATA": ""}


@workflow
@pytest.mark.slow
def test_lost_download_is_a_clear_error_and_a_second_run_has_the_file(
    downloading,
    server,  # noqa: F811
):
    folder = downloading.results / "dimers"
    call = ("results/test/dimers/provenance.json", "--cores", "1")
    longer = CONTENT + b"x"
    for mode, content, message in (
        ("cut off", CONTENT, r"cannot be downloaded: .*\d+ more"),
        ("stalled", CONTENT, "no answer within 3 s"),
        ("absent", CONTENT, "the server answers 404"),
        ("whole", longer, "has another content: git blob must be"),
    ):
        server.mode, server.content = mode, content
        output = downloading(*call, succeeds=False, **ONLINE)
        line = rf"^AcquisitionError: dimers, source published: .*{message}.*LODE_DATA"
        assert re.search(line, output, flags=re.MULTILINE), output
        assert list(folder.glob("*")) == []
    server.content = CONTENT
    downloading(*call, **ONLINE)
    data = folder / SOURCES["dimers"]["published"].name
    assert data.read_bytes() == CONTENT
    assert {path.name for path in folder.iterdir()} == {PROVENANCE, data.name}


@workflow
@pytest.mark.slow
def test_altered_source_is_an_error_wherever_it_lies(downloading, tmp_path):
    mirror, folder = tmp_path / "mirror", downloading.results / "dimers"
    mirror.mkdir()
    name = SOURCES["dimers"]["published"].name
    altered = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    call = ("results/test/dimers/provenance.json", "--cores", "1")
    variables = {"LODE_DATA": str(mirror)}

    (mirror / name).write_bytes(altered)
    output = downloading(*call, succeeds=False, **variables)
    line = rf"^ValueError: {mirror}/{name} is altered .*; replace it in the mirror"
    assert re.search(line, output, flags=re.MULTILINE), output
    assert list(folder.glob("*")) == []
    (mirror / name).write_bytes(CONTENT)
    downloading(*call, **variables)

    (folder / name).write_bytes(altered)
    geometries = ("results/test/dimers/geometries.extxyz.gz", "--cores", "1")
    output = downloading(*geometries, succeeds=False, **variables)
    line = rf"^ValueError: .*{name} is altered .*; delete .*{PROVENANCE} and run again"
    assert re.search(line, output, flags=re.MULTILINE), output
    (folder / PROVENANCE).unlink()
    downloading(*call, **variables)
    assert (folder / name).read_bytes() == CONTENT
