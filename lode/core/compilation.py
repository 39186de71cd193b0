"""How the loops are compiled, and where what Numba has compiled is kept.

Numba's cache watches the file of each function alone, so that a function stays as it
was when another file changes that it calls into. The cache therefore lies in a folder
that is named by a hash of all files of the core: whatever is edited, everything that
may depend on it is compiled anew.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

import platformdirs
from numba import config, njit
from numba.core import event

# Fused multiply-adds: 1.3 times faster loops; NaN and infinity keep their meaning.
CONTRACT = {"contract"}
_CORE = Path(__file__).parent
# Seconds after which the cache of another version of the core is deleted.
_LARGEST_AGE = 30 * 24 * 3600.0


def _cache_folder():
    """Folder of the cache of these sources; None if nothing can be written."""
    # Checked bounds are compiled in.
    digest = hashlib.sha256(str(bool(config.BOUNDSCHECK)).encode())
    for path in sorted(_CORE.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    places = [_CORE / "__pycache__", platformdirs.user_cache_path("lode")]
    if config.CACHE_DIR:
        places = [Path(config.CACHE_DIR)]
    for place in places:
        folder = place / f"lode-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                os.utime(folder)
        except OSError:
            continue
        # Another process may be deleting the same.
        with suppress(OSError):
            for other in place.glob("lode-" + 16 * "[0-9a-f]"):
                if time.time() - other.stat().st_mtime > _LARGEST_AGE:
                    shutil.rmtree(other, ignore_errors=True)
        return folder
    warnings.warn(
        "lode compiles its loops anew in each process, since there is no folder to "
        f"keep them in: {' and '.join(map(str, places))} cannot be written; set "
        "NUMBA_CACHE_DIR to a folder that can",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


class _Announcement(event.Listener):
    """Says once that a long compilation begins."""

    is_made = False

    # It stays registered: to leave a list that is gone through would skip another.
    def on_start(self, event):
        """Print it, if it is a function of the core that begins to be compiled."""
        module = event.data["dispatcher"].py_func.__module__
        if self.is_made or not str(module).startswith(f"{__package__}."):
            return
        self.is_made = True
        print(
            "lode: compiling the loops that are needed, which takes up to half a "
            f"minute and is done once; they are kept in {_FOLDER}",
            file=sys.stderr,
        )

    def on_end(self, event):
        """Do nothing: the end is not announced."""


_FOLDER = None
if not config.DISABLE_JIT:
    _FOLDER = _cache_folder()
if _FOLDER is not None and next(_FOLDER.rglob("*.nbi"), None) is None:
    event.register("numba:compile", _Announcement())


def compiled(function=None, **options):
    """Decorator of all loops: serial, without the interpreter's lock, cached.

    Parameters
    ----------
    function : callable, optional
    **options
        Further ones of ``numba.njit``, such as ``fastmath=CONTRACT``.
    """
    if function is None:
        return partial(compiled, **options)
    dispatcher = njit(error_model="numpy", nogil=True, **options)(function)
    if _FOLDER is not None:
        # Read by Numba here and now; other packages keep their setting.
        before, config.CACHE_DIR = config.CACHE_DIR, str(_FOLDER)
        try:
            dispatcher.enable_caching()
        finally:
            config.CACHE_DIR = before
    return dispatcher
