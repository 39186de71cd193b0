"""Published data: mirror, verified downloads, failures, provenance."""

import errno
import hashlib
import http.server
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lode.datasets import acquire as module
from lode.datasets.acquire import (
    GENERATED,
    SOURCES,
    AcquisitionError,
    acquire,
    download,
    git_blob,
    provenance_line,
    read_provenance,
    write_provenance,
)

MIRROR = os.environ.get("LODE_DATA")
PUBLISHED = [(data_set, name) for data_set in SOURCES for name in SOURCES[data_set]]
CONTENT = b"one line\n" + bytes(range(256)) * 2000
BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """A file, sent whole, in part, cut off, altered, late, elsewhere or not at all."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        content, mode = server.content, server.mode
        if mode == "absent":
            self.send_error(404)
            return
        if isinstance(mode, int):
            self.send_error(mode)
            return
        if mode.startswith("http"):
            self.send_response(302)
            self.send_header("Location", mode)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if mode == "malformed":
            self.send_response(200)
            self.send_header("Content-Length", "many")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            return
        if mode == "late":
            server.released.wait(20.0)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content if mode == "whole" else content[: len(content) // 2])
        if mode == "stalled":
            self.wfile.flush()
            server.released.wait(20.0)
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.content, made.mode, made.requests = CONTENT, "whole", []
    made.released = threading.Event()
    made.url = f"http://127.0.0.1:{made.server_port}/file.dat"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.released.set()
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("LODE_DATA", raising=False)
    monkeypatch.delenv("LODE_OFFLINE", raising=False)


@pytest.fixture
def published(server, monkeypatch):
    """Both published sources of the dimers are on the test's own server."""
    monkeypatch.setattr(module, "_HOST", f"http://127.0.0.1:{server.server_port}")
    derived = ("derived.gz", hashlib.sha256(b"derived").hexdigest(), "the other place")
    files = {
        "published": replace(
            SOURCES["dimers"]["published"], git_blob=BLOB, aliases=("other.xyz",)
        ),
        "bfdb": replace(SOURCES["dimers"]["bfdb"], git_blob=BLOB, derived=(derived,)),
    }
    monkeypatch.setitem(SOURCES, "dimers", files)
    return files


def hidden(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_blob_id_is_that_of_git(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    # `printf 'hello\n' | git hash-object --stdin`
    assert git_blob(path) == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.parametrize(
    ("data_set", "source", "url", "blob"),
    [
        (
            "dimers",
            "published",
            "dilkins/TENSOAP/7ee93d0375bb66ece14ebf6ffa345836229762cf/"
            "example/charged_dimers/trajs_with_energies.xyz",
            "c1d2a91d6f1e0f24d896d9d9dc42c6614c02d2ab",
        ),
        (
            "dimers",
            "bfdb",
            "psi4/psi4/886caaabe23dd7c3cefc1210c0813f5bf9cd6282/"
            "psi4/share/psi4/databases/SSI.py",
            "3c17f69482cc686b071544fda16ae80af6b03f8e",
        ),
        (
            "water",
            "published",
            "dilkins/TENSOAP/7ee93d0375bb66ece14ebf6ffa345836229762cf/"
            "example/water_bulk/coords_1000.xyz",
            "f9eb47ddca005fcbc86a8568da38367fd2cc6b57",
        ),
    ],
)
def test_sources_are_pinned(data_set, source, url, blob):
    file = SOURCES[data_set][source]
    assert file.url == f"https://raw.githubusercontent.com/{url}"
    assert file.git_blob == blob


def test_whole_download_is_verified_and_leaves_nothing_else(server, tmp_path):
    lines = []
    download(server.url, tmp_path / "file.dat", BLOB, log=lines.append)
    assert (tmp_path / "file.dat").read_bytes() == CONTENT
    assert hidden(tmp_path) == ["file.dat"]
    assert lines[-1] == f"file.dat: {len(CONTENT)} bytes, verified"


@pytest.mark.parametrize("before", [None, b"altered"])
def test_truncated_download_is_an_error_and_leaves_what_was_there(
    server, tmp_path, before
):
    path = tmp_path / "file.dat"
    if before is not None:
        path.write_bytes(before)
    server.mode = "cut off"
    with pytest.raises(AcquisitionError, match=r"cannot be downloaded: .*256005 more"):
        download(server.url, path, BLOB)
    assert hidden(tmp_path) == ([] if before is None else ["file.dat"])
    server.mode = "whole"
    download(server.url, path, BLOB)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("altered", [CONTENT[:-1], CONTENT + b"x", b"<html>", b""])
def test_altered_download_is_an_error_and_nothing_is_kept(server, tmp_path, altered):
    server.content = altered
    message = f"git blob must be {BLOB}, got .*nothing was kept"
    with pytest.raises(AcquisitionError, match=message):
        download(server.url, tmp_path / "file.dat", BLOB)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("mode", ["late", "stalled"])
def test_silent_server_is_left_after_the_timeout(server, tmp_path, mode):
    server.mode = mode
    started = time.monotonic()
    with pytest.raises(AcquisitionError, match=r"no answer within 0\.3 s"):
        download(server.url, tmp_path / "file.dat", BLOB, timeout=0.3)
    # The machine may be busy.
    assert time.monotonic() - started < 10.0
    assert hidden(tmp_path) == []


def test_missing_file_is_an_error(server, tmp_path):
    server.mode = "absent"
    with pytest.raises(AcquisitionError, match="the server answers 404"):
        download(server.url, tmp_path / "file.dat", BLOB)
    assert hidden(tmp_path) == []


# 416 is the answer to a request for the rest of a file.
@pytest.mark.parametrize("status", [403, 416, 429, 500, 503])
def test_refusal_of_the_server_is_an_error_at_once(server, tmp_path, status):
    server.mode = status
    with pytest.raises(AcquisitionError, match=f"the server answers {status}"):
        download(server.url, tmp_path / "file.dat", BLOB)
    assert (hidden(tmp_path), len(server.requests)) == ([], 1)


@pytest.mark.parametrize("status", [204, 206, 304])
def test_answer_without_the_file_is_an_error(server, tmp_path, status):
    server.mode = status
    with pytest.raises(AcquisitionError, match="nothing was kept"):
        download(server.url, tmp_path / "file.dat", BLOB)
    assert hidden(tmp_path) == []


def test_redirects_in_a_circle_or_to_nowhere_are_an_error(server, tmp_path):
    for place, reason in (
        (server.url, "Exceeded 30 redirects"),
        ("http://[::1", "Invalid IPv6 URL"),
    ):
        server.mode = place
        with pytest.raises(AcquisitionError, match=f"cannot be downloaded: .*{reason}"):
            download(server.url, tmp_path / "file.dat", BLOB)
    assert hidden(tmp_path) == []


def test_malformed_answer_is_an_error(server, tmp_path):
    server.mode = "malformed"
    with pytest.raises(AcquisitionError, match="cannot be downloaded: .*'many'"):
        download(server.url, tmp_path / "file.dat", BLOB)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("name", ["provenance.json", "trajs_with_energies.xyz"])
def test_folder_in_the_place_of_a_file_is_an_error(server, published, tmp_path, name):
    place = tmp_path / name
    place.mkdir()
    message = f"{name} must be a file, got a folder"
    with pytest.raises(ValueError, match=message):
        acquire("dimers", tmp_path)
    if name != "provenance.json":
        with pytest.raises(ValueError, match=message):
            acquire("dimers", tmp_path / "data", mirror=tmp_path)
        with pytest.raises(ValueError, match=message):
            download(server.url, place, BLOB)
    assert server.requests == []


def test_no_server_is_an_error_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.dat"
    started = time.monotonic()
    with pytest.raises(AcquisitionError, match=r"cannot be downloaded: .*refused"):
        download(url, tmp_path / "file.dat", BLOB)
    assert time.monotonic() - started < 10.0


def test_network_that_swallows_everything_is_left_after_the_timeout(
    published, tmp_path, monkeypatch
):
    # A name that is never resolved, as behind a firewall: sockets' own time-outs do
    # not cover it.
    gone = threading.Event()

    def unanswered(*_, **__):
        gone.wait(20.0)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    started, lines = time.monotonic(), []
    try:
        with pytest.raises(
            AcquisitionError, match=r"no connection to .* within 0\.2 s"
        ):
            acquire("dimers", tmp_path, source="published", timeout=0.2)
        record = acquire("dimers", tmp_path, timeout=0.2, log=lines.append)
    finally:
        gone.set()
    assert time.monotonic() - started < 5.0
    assert record["source"] == GENERATED
    assert sum("no connection" in line for line in lines) == 2


def test_unknown_host_is_an_error(published, tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = "the host's name cannot be resolved: Name or service not known"
    with pytest.raises(AcquisitionError, match=message):
        acquire("dimers", tmp_path, source="bfdb")


def test_endless_answer_is_cut_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST", 1000)
    with pytest.raises(AcquisitionError, match="sends more than 1000 bytes"):
        download(server.url, tmp_path / "file.dat", BLOB)
    assert hidden(tmp_path) == []


def test_download_that_takes_too_long_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_DEADLINE", 0.0)
    with pytest.raises(AcquisitionError, match="takes more than 0 s"):
        download(server.url, tmp_path / "file.dat", BLOB)
    assert hidden(tmp_path) == []


@contextmanager
def largest_file(size):
    """No file of this process may have more bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_file_that_outgrows_its_limit_is_an_error(server, tmp_path):
    message = r"file\.dat cannot be written: File too large; raise the limit"
    with largest_file(4096), pytest.raises(OSError, match=message):
        download(server.url, tmp_path / "file.dat", BLOB)
    assert hidden(tmp_path) == []


def test_folder_that_cannot_be_written_is_an_error(server, published, tmp_path):
    folder = tmp_path / "data"
    folder.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="data"):
        acquire("dimers", folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_an_error(server, published, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="Permission denied"):
            acquire("dimers", tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_read_only_folder_is_an_error_also_for_root(
    server, published, tmp_path, monkeypatch
):
    def refused(path, url):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(module, "_BoundedFile", refused)
    with pytest.raises(OSError, match="cannot be written: Read-only file system"):
        acquire("dimers", tmp_path)


def test_mirror_comes_before_the_network(server, published, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "other.xyz").write_bytes(CONTENT)
    record = acquire("dimers", tmp_path / "data", mirror=mirror)
    assert server.requests == []
    assert record["source"] == "published"
    assert hidden(tmp_path / "data") == ["provenance.json", "trajs_with_energies.xyz"]


def test_mirror_may_be_named_by_the_environment(published, tmp_path, monkeypatch):
    (tmp_path / "SSI.py").write_bytes(CONTENT)
    monkeypatch.setenv("LODE_DATA", str(tmp_path))
    monkeypatch.setenv("LODE_OFFLINE", "1")
    record = acquire("dimers", tmp_path / "data")
    assert (record["source"], record["file"]) == ("bfdb", "SSI.py")


def test_derived_file_of_a_mirror_is_taken_for_what_it_is(published, tmp_path):
    (tmp_path / "derived.gz").write_bytes(b"derived")
    record = acquire("dimers", tmp_path / "data", mirror=tmp_path, offline=True)
    assert record["source"] == "bfdb"
    assert record["file"] == "derived.gz"
    assert record["origin"] == "the other place"
    assert record["sha256"] == hashlib.sha256(b"derived").hexdigest()
    assert "git_blob" not in record


def test_altered_copy_in_the_mirror_is_an_error(server, published, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "SSI.py").write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=r"SSI\.py is altered or truncated: git_blob"):
        acquire("dimers", tmp_path / "data", source="bfdb", mirror=mirror)
    assert hidden(tmp_path / "data") == []


def test_mirror_that_is_no_folder_is_an_error(published, tmp_path):
    with pytest.raises(ValueError, match="the mirror must be a folder, got .*absent"):
        acquire("dimers", tmp_path / "data", mirror=tmp_path / "absent")


def test_downloaded_file_is_not_downloaded_again(server, published, tmp_path):
    first = acquire("dimers", tmp_path)
    kept = (tmp_path / "provenance.json").read_bytes()
    assert len(server.requests) == 1
    assert acquire("dimers", tmp_path, offline=True) == first
    assert len(server.requests) == 1
    assert (tmp_path / "provenance.json").read_bytes() == kept


def test_provenance_does_not_say_when_nor_from_which_copy(server, published, tmp_path):
    (tmp_path / "trajs_with_energies.xyz").write_bytes(CONTENT)
    acquire("dimers", tmp_path / "one", mirror=tmp_path)
    acquire("dimers", tmp_path / "two")
    one, two = (tmp_path / name / "provenance.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert str(tmp_path) not in one.read_text()
    record, data = read_provenance(one)
    assert record["git_blob"] == BLOB
    assert record["origin"].endswith("/example/charged_dimers/trajs_with_energies.xyz")
    assert data.read_bytes() == CONTENT
    assert BLOB[:12] in provenance_line(record)


def test_data_altered_after_the_acquisition_are_refused(server, published, tmp_path):
    acquire("dimers", tmp_path)
    path = tmp_path / "trajs_with_energies.xyz"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match="altered or truncated"):
        read_provenance(tmp_path / "provenance.json")
    path.unlink()
    with pytest.raises(ValueError, match="must lie beside it"):
        read_provenance(tmp_path / "provenance.json")
    # A rerun puts it right.
    acquire("dimers", tmp_path)
    read_provenance(tmp_path / "provenance.json")


@pytest.mark.parametrize(
    "changed",
    [
        {"source": None},
        {"title": 3},
        {"data_set": ["dimers"]},
        {"file": 1},
        {"origin": None},
        {"git_blob": None},
    ],
)
def test_provenance_without_a_key_is_an_error(server, published, tmp_path, changed):
    record = acquire("dimers", tmp_path) | changed
    write_provenance(tmp_path, {k: v for k, v in record.items() if v is not None})
    message = r"provenance\.json must hold texts for .*got none for \["
    with pytest.raises(ValueError, match=message):
        read_provenance(tmp_path / "provenance.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"source": "generated"}']
)
def test_malformed_provenance_is_an_error(tmp_path, text):
    path = tmp_path / "provenance.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"provenance\.json must be a whole JSON file"):
        read_provenance(path)


def test_auto_falls_back_to_the_stand_in_and_says_so(server, published, tmp_path):
    server.mode, lines = "absent", []
    record = acquire("dimers", tmp_path, log=lines.append)
    assert record["source"] == GENERATED
    assert [path.rpartition("/")[2] for path in server.requests] == [
        "trajs_with_energies.xyz",
        "SSI.py",
    ]
    assert sum("answers 404" in line for line in lines) == 2
    assert lines[-1].startswith("dimers: no published data; a stand-in for")
    assert read_provenance(tmp_path / "provenance.json") == (record, None)
    assert "stand-in" in provenance_line(record)


def test_forced_source_never_becomes_a_stand_in(server, published, tmp_path):
    server.mode = "absent"
    with pytest.raises(AcquisitionError, match="source published: .*404.*LODE_DATA"):
        acquire("dimers", tmp_path, source="published")
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_asks_no_server(server, published, tmp_path, monkeypatch, value):
    monkeypatch.setenv("LODE_OFFLINE", value)
    assert acquire("dimers", tmp_path)["source"] == GENERATED
    with pytest.raises(AcquisitionError, match="network is switched off"):
        acquire("dimers", tmp_path, source="bfdb")
    assert server.requests == []
    monkeypatch.setenv("LODE_OFFLINE", "0")
    assert acquire("dimers", tmp_path)["source"] == "published"


def test_generated_asks_neither_mirror_nor_server(server, published, tmp_path):
    (tmp_path / "SSI.py").write_bytes(CONTENT)
    record = acquire("dimers", tmp_path / "data", source=GENERATED, mirror=tmp_path)
    assert record["source"] == GENERATED
    assert server.requests == []


def test_unknown_set_or_source_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="data_set must be one of .*got 'salt'"):
        acquire("salt", tmp_path)
    with pytest.raises(ValueError, match="source must be one of .*got 'bfdb'"):
        acquire("water", tmp_path, source="bfdb")


def test_killed_download_has_not_the_name_of_a_whole_one(server, tmp_path):
    server.mode = "stalled"
    path = tmp_path / "file.dat"
    program = (
        "import sys; from lode.datasets.acquire import download;"
        "download(*sys.argv[1:], timeout=30)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, server.url, str(path), BLOB],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
    )
    try:
        ends = time.monotonic() + 30.0
        while not any(p.stat().st_size for p in tmp_path.iterdir()):
            assert time.monotonic() < ends
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    assert not path.exists()
    server.mode = "whole"
    download(server.url, path, BLOB)
    assert path.read_bytes() == CONTENT


@pytest.mark.skipif(
    not MIRROR,
    reason="LODE_DATA does not name a folder with the published data",
)
@pytest.mark.parametrize(("data_set", "source"), PUBLISHED)
def test_the_mirror_holds_what_it_says(tmp_path, data_set, source):
    try:
        record = acquire(data_set, tmp_path, source=source, mirror=MIRROR, offline=True)
    except AcquisitionError as error:
        pytest.skip(f"the mirror does not have it: {error}")
    found, data = read_provenance(tmp_path / "provenance.json")
    assert found == record
    assert data.stat().st_size > 0
