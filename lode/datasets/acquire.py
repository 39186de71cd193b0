"""Published data: from a local mirror or by a verified download.

The files are pinned by the hash of their content, so it does not matter where a
copy comes from. They are downloaded by pooch, which does not know the hash that git
gives a file: that is verified here, before the file gets its name.
"""

import hashlib
import io
import os
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
from requests.exceptions import HTTPError, RequestException, Timeout
from requests.utils import get_environ_proxies, select_proxy

from lode.files import atomic_write, read_json, write_json

TIMEOUT = 10.0
# A download is given up after so many seconds altogether.
_DEADLINE = 600.0
# Far above any file in the table: a server must not fill the disk.
_LARGEST = 1 << 28
_HOST = "https://raw.githubusercontent.com"


class AcquisitionError(RuntimeError):
    """Data that cannot be had from where they were asked for."""


@dataclass(frozen=True)
class PublishedFile:
    """A file at a fixed place, with fixed content.

    Attributes
    ----------
    name : str
        Name of a local copy.
    title : str
        What it is, for people.
    repository, commit, path : str
        Where it was published.
    git_blob : str
        Hash of its content as git computes it.
    aliases : tuple of str
        Other names that a copy in a mirror may have.
    derived : tuple of (str, str, str)
        Files made from the same data that a mirror may hold instead: name, SHA-256
        and origin.
    """

    name: str
    title: str
    repository: str
    commit: str
    path: str
    git_blob: str
    aliases: tuple = ()
    derived: tuple = ()

    @property
    def url(self):
        """Where the file is downloaded from."""
        return f"{_HOST}/{self.repository}/{self.commit}/{self.path}"


# For each data set its published sources, the one to be preferred first; after the
# last one comes data of our own (`generated`).
SOURCES = {
    "gas": {
        "published": PublishedFile(
            name="coords_with_energies.xyz",
            title="random NaCl of the paper's authors",
            repository="dilkins/TENSOAP",
            commit="7ee93d0375bb66ece14ebf6ffa345836229762cf",
            path="example/random_nacl/coords_with_energies.xyz",
            git_blob="c5e3cf0a8c33810e3c3b26927f7e4b35ae8708f1",
        ),
    },
    "dimers": {
        "published": PublishedFile(
            name="trajs_with_energies.xyz",
            title="B3LYP binding curves of the paper's authors",
            repository="dilkins/TENSOAP",
            commit="7ee93d0375bb66ece14ebf6ffa345836229762cf",
            path="example/charged_dimers/trajs_with_energies.xyz",
            git_blob="c1d2a91d6f1e0f24d896d9d9dc42c6614c02d2ab",
        ),
        "bfdb": PublishedFile(
            name="SSI.py",
            title="side-chain dimers of the BioFragment Database",
            repository="psi4/psi4",
            commit="886caaabe23dd7c3cefc1210c0813f5bf9cd6282",
            path="psi4/share/psi4/databases/SSI.py",
            git_blob="3c17f69482cc686b071544fda16ae80af6b03f8e",
            derived=(
                (
                    "bfdb_ssi_charged.extxyz.gz",
                    "9abc200c9804d6600ebb8b5c2e7ceb1a87258aba4c3b571f3834727d738c4eec",
                    "aoterodelaroza/refdata, 20_ssi and 10_din/ssi*.din",
                ),
            ),
        ),
    },
    "water": {
        "published": PublishedFile(
            name="coords_1000.xyz",
            title="boxes of 32 water molecules of the paper's authors",
            repository="dilkins/TENSOAP",
            commit="7ee93d0375bb66ece14ebf6ffa345836229762cf",
            path="example/water_bulk/coords_1000.xyz",
            git_blob="f9eb47ddca005fcbc86a8568da38367fd2cc6b57",
            aliases=("water_bulk_coords_1000.xyz",),
        ),
    },
    "force_dimers": {
        "published": PublishedFile(
            name="charge-charge.xyz",
            title="charged dimers with DFT forces of the atomistic cookbook",
            repository="lab-cosmo/atomistic-cookbook",
            commit="d50df7120657b2c8f284bdd7f7632c65af661a42",
            path="examples/lode-linear/charge-charge.xyz",
            git_blob="a988fbef75a654afbceb482a66434d58af82c901",
        ),
    },
}
GENERATED = "generated"
# The gas is no stand-in: the paper says how it is made.
_TITLES = {"gas": "random point charges"}
PROVENANCE = "provenance.json"


def acquire(
    data_set,
    folder,
    *,
    source="auto",
    mirror=None,
    offline=None,
    timeout=TIMEOUT,
    log=print,
):
    """Get the data of one set and write where they come from.

    Each source is looked for in the mirror, then in ``folder``, then on the network.

    Parameters
    ----------
    data_set : {'gas', 'dimers', 'water', 'force_dimers'}
        Which data.
    folder : path_like
        Where the file is put, with ``provenance.json`` beside it.
    source : str
        A source of the set, ``generated``, or ``auto`` for the first one that can be
        had, which ends with ``generated``.
    mirror : path_like, optional
        Folder with copies of published files; by default the environment variable
        ``LODE_DATA``, if it is set.
    offline : bool, optional
        Do not use the network; by default whether the environment variable
        ``LODE_OFFLINE`` is set to anything but ``0``.
    timeout : float
        Seconds to wait for an answer, and for each block of data.
    log : callable
        Takes lines on what is tried and found.

    Returns
    -------
    dict
        What ``provenance.json`` holds: ``data_set``, ``source``, ``title`` and, for
        published data, ``file``, ``origin`` and the hash, ``git_blob`` or
        ``sha256``. It has no date and no local path: the same data give the same
        bytes.

    Raises
    ------
    AcquisitionError
        If the source that is asked for cannot be had.
    ValueError
        If there is no such set or source, a copy in the mirror is altered, or there is
        a folder where a file belongs.
    OSError
        If the folder cannot be written.
    """
    if data_set not in SOURCES:
        raise ValueError(f"data_set must be one of {list(SOURCES)}, got {data_set!r}")
    published = SOURCES[data_set]
    if source not in ("auto", *published, GENERATED):
        raise ValueError(
            f"source must be one of {['auto', *published, GENERATED]}, got {source!r}"
        )
    folder = Path(folder)
    if offline is None:
        offline = os.environ.get("LODE_OFFLINE", "0") not in ("", "0")
    mirror = mirror or os.environ.get("LODE_DATA") or None
    if mirror is not None and not Path(mirror).is_dir():
        raise ValueError(f"the mirror must be a folder, got {mirror}")
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_folders(folder / PROVENANCE)
    names = list(published) if source == "auto" else [source]
    for name in names:
        if name == GENERATED:
            break
        try:
            record = _published(published[name], folder, mirror, offline, timeout, log)
        except AcquisitionError as error:
            if source != "auto":
                raise AcquisitionError(
                    f"{data_set}, source {name}: {error}; give a folder with a copy as "
                    f"the mirror (LODE_DATA), or use the source auto or {GENERATED}"
                ) from None
            log(f"{data_set}, source {name}: {error}")
            continue
        return write_provenance(folder, {"data_set": data_set, "source": name} | record)
    title = _TITLES.get(data_set, "a stand-in for the published data")
    log(f"{data_set}: no published data; {title} will be generated")
    record = {"data_set": data_set, "source": GENERATED, "title": title}
    return write_provenance(folder, record)


def write_provenance(folder, record):
    """Write ``provenance.json`` and give it back.

    Parameters
    ----------
    folder : path_like
        Folder of the data.
    record : dict
        Plain data.

    Returns
    -------
    dict
    """
    write_json(Path(folder) / PROVENANCE, record, indent=2)
    return record


def read_provenance(path):
    """Content of a ``provenance.json``, and the data file that it names.

    Parameters
    ----------
    path : path_like
        The file.

    Returns
    -------
    record : dict
        As :func:`acquire` gave it.
    data : Path or None
        The verified file beside it; none for a stand-in.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or not of this form, or the data file is missing or altered.
    """
    path = Path(path)
    record = read_json(path)
    keys = ["data_set", "source", "title"]
    if "file" in record:
        keys += ["file", "origin", _hash_kind(record)]
    faulty = [key for key in keys if not isinstance(record.get(key), str)]
    if faulty:
        raise ValueError(f"{path} must hold texts for {keys}, got none for {faulty}")
    if "file" not in record:
        return record, None
    data, remedy = path.parent / record["file"], f"delete {path} and run again"
    if not data.is_file():
        raise ValueError(
            f"{path} names {record['file']}, which must lie beside it; {remedy}"
        )
    kind = _hash_kind(record)
    _verify(data, kind, record[kind], remedy)
    return record, data


def provenance_line(record):
    """One line on where data come from, for titles and tables.

    Parameters
    ----------
    record : dict
        As :func:`acquire` gives it.

    Returns
    -------
    str
    """
    if "file" not in record:
        return f"{record['source']}: {record['title']}"
    kind = _hash_kind(record)
    return (
        f"{record['source']}: {record['title']} ({record['file']}, {kind} "
        f"{record[kind][:12]})"
    )


def _hash_kind(record):
    """Which hash a record has of its file."""
    return "git_blob" if "git_blob" in record else "sha256"


def git_blob(path):
    """Hash of a file's content, as ``git hash-object`` prints it.

    Parameters
    ----------
    path : path_like
        The file.

    Returns
    -------
    str
        40 hexadecimal digits.
    """
    header = b"blob %d\0" % os.path.getsize(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.sha1(header, usedforsecurity=False)
        ).hexdigest()


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_HASHES = {"git_blob": git_blob, "sha256": _sha256}


def _verify(path, kind, wanted, remedy):
    """Refuse a file whose content is another one."""
    came = _HASHES[kind](path)
    if came != wanted:
        raise ValueError(
            f"{path} is altered or truncated: {kind} must be {wanted}, got {came} "
            f"({os.path.getsize(path)} bytes); {remedy}"
        )


def _refuse_folders(*paths):
    """Refuse a folder under the name of a file that is looked for or written."""
    for path in paths:
        if path.is_dir():
            raise ValueError(f"{path} must be a file, got a folder")


def _published(file, folder, mirror, offline, timeout, log):
    """Put a published file into the folder; its part of the provenance."""
    record = {
        "title": file.title,
        "file": file.name,
        "origin": file.url,
        "git_blob": file.git_blob,
    }
    if mirror is not None:
        for name in (file.name, *file.aliases):
            copy = Path(mirror, name)
            if _copied(copy, folder / file.name, "git_blob", file.git_blob, log):
                return record
        for name, sha256, origin in file.derived:
            if _copied(Path(mirror, name), folder / name, "sha256", sha256, log):
                return {
                    "title": file.title,
                    "file": name,
                    "origin": origin,
                    "sha256": sha256,
                }
    path = folder / file.name
    _refuse_folders(path)
    if path.is_file() and git_blob(path) == file.git_blob:
        log(f"{file.name}: already there")
        return record
    if offline:
        raise AcquisitionError(
            f"{file.name} is in no mirror, and the network is switched off "
            "(LODE_OFFLINE)"
        )
    download(file.url, path, file.git_blob, timeout=timeout, log=log)
    return record


def _copied(origin, path, kind, wanted, log):
    """Whether a verified copy of a mirror's file now lies in the folder."""
    _refuse_folders(origin, path)
    if not origin.is_file():
        return False
    remedy = "replace it in the mirror, or delete it there, and run again"
    _verify(origin, kind, wanted, remedy)
    with atomic_write(path) as temporary:
        shutil.copyfile(origin, temporary)
        _verify(temporary, kind, wanted, remedy)
    log(f"{path.name}: from the mirror")
    return True


def download(url, path, blob, *, timeout=TIMEOUT, log=print):
    """Download a file, verify it, and only then give it its name.

    Parameters
    ----------
    url : str
        Where it is.
    path : path_like
        Where it goes.
    blob : str
        Hash of its content as git computes it.
    timeout : float
        Seconds to wait for an answer, and for each block of data.
    log : callable
        Takes lines on the progress.

    Raises
    ------
    AcquisitionError
        If the server cannot be reached, the file is not there, the content is
        another one, or the connection breaks.
    ValueError
        If there is a folder where the file goes.
    OSError
        If the file cannot be written, for example on a full disk.
    """
    path = Path(path)
    _refuse_folders(path)
    log(f"{path.name}: download from {url}")
    _check_reachable(url, timeout)
    fetch = pooch.HTTPDownloader(timeout=timeout)
    try:
        with atomic_write(path) as temporary:
            with _BoundedFile(temporary, url) as file:
                fetch(url, file, None)
            size, came = temporary.stat().st_size, git_blob(temporary)
            if came != blob:
                raise AcquisitionError(
                    f"{url} has another content: git blob must be {blob}, got {came} "
                    f"({size} bytes); nothing was kept"
                )
    # A malformed header of the answer is a ValueError of whoever reads it.
    except (RequestException, ValueError) as error:
        raise _unreachable(url, error, timeout) from None
    log(f"{path.name}: {size} bytes, verified")


class _BoundedFile(io.BufferedWriter):
    """File that takes no more bytes, and no longer, than a download may bring."""

    def __init__(self, path, url):
        super().__init__(io.FileIO(path, "wb"))
        self._url, self._ends = url, time.monotonic() + _DEADLINE

    def write(self, block):
        if self.tell() + len(block) > _LARGEST:
            raise AcquisitionError(f"{self._url} sends more than {_LARGEST} bytes")
        if time.monotonic() > self._ends:
            raise AcquisitionError(f"{self._url} takes more than {_DEADLINE:g} s")
        return super().write(block)


def _check_reachable(url, timeout):
    """Refuse a server that does not take a connection in time.

    The time-out of a request holds for each address of a host, and not at all for
    the resolution of its name: without a network that adds up to minutes. Here a
    thread does both and is left behind when the time is up.
    """
    if select_proxy(url, get_environ_proxies(url)):
        return
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    failures = []

    def connect():
        try:
            socket.create_connection((parts.hostname, port), timeout).close()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise AcquisitionError(
            f"{url} cannot be downloaded: no connection to {parts.hostname} within "
            f"{timeout:g} s"
        )
    if failures:
        raise _unreachable(url, failures[0], timeout)


def _unreachable(url, error, timeout):
    """What is raised for an error of the network."""
    reason = f"{type(error).__name__}: {error}"
    # A server that falls silent on the way gives no Timeout.
    if isinstance(error, (Timeout, TimeoutError)) or "timed out" in reason:
        reason = f"no answer within {timeout:g} s"
    elif isinstance(error, HTTPError):
        answer = error.response
        reason = f"the server answers {answer.status_code} {answer.reason}"
    elif isinstance(error, socket.gaierror):
        reason = f"the host's name cannot be resolved: {error.strerror}"
    return AcquisitionError(f"{url} cannot be downloaded: {reason}")
