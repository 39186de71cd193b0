"""What would spoil a run is noticed before it begins."""

import tempfile
import time
from datetime import datetime
from pathlib import Path

# Seconds by which the clock of a file system may be ahead of this machine's.
_TOLERANCE = 60.0


def refuse_read_only(folder):
    """Refuse a folder in which nothing can be written.

    Parameters
    ----------
    folder : path_like
        It is made if it is not there.

    Raises
    ------
    OSError
        If no file can be made in it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder} must be a folder that can be written, got: {error.strerror}",
        ) from None


def refuse_future(folder):
    """Refuse results that are newer than now: the clock has gone back.

    Snakemake repeats what is older than its input. What is made now would be older than
    such results, and those that depend on it would stay as they were.

    Parameters
    ----------
    folder : path_like
        Folder of all results.

    Raises
    ------
    ValueError
        If the time of a file is in the future.
    """
    now = time.time()
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    times = {path: path.stat().st_mtime for path in files}
    future = [path for path in files if times[path] > now + _TOLERANCE]
    if not future:
        return
    newest = max(future, key=times.get)
    raise ValueError(
        f"no file of {folder} may be newer than now, {_shown(now)}, got {len(future)}, "
        f"the newest {newest} of {_shown(times[newest])}: set the clock right, or "
        "delete these files, and run again"
    )


def _shown(seconds):
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
