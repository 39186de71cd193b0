"""Threads over independent pieces of work, one thread of BLAS in each.

The compiled loops release the interpreter's lock and are serial inside, so every
piece is computed the same way whatever the number of threads: results are equal
bit by bit. BLAS is limited where work that uses it enters, not in every piece, since
that takes as long as a small one.
"""

import math
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, lru_cache, partial, update_wrapper
from numbers import Real

import numba
import numpy as np
from threadpoolctl import OpenBLASController, ThreadpoolController
from tqdm import tqdm

# ``works`` is set in a thread that does a piece of work.
_thread = threading.local()
# Arrays nobody works in now, and how many numbers are kept in them: 64 MB.
_spare = []
_MOST_SPARE = 2**23
_lock = threading.Lock()
_making = threading.RLock()


@cache
def _blas():
    return ThreadpoolController().select(user_api="blas")


# Cached: to start threads takes as long as the pair sum of a small frame.
@cache
def _workers(n_threads):
    return ThreadPoolExecutor(n_threads, "lode")


def _forget():
    global _lock, _making
    _lock, _making = threading.Lock(), threading.RLock()
    _limit.lock = threading.Lock()
    _workers.cache_clear()


# Threads do not survive a fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _Limit:
    """One limit for the whole process, from the first thread in to the last out."""

    def __init__(self):
        self.lock, self.inside, self.limit = threading.Lock(), 0, None

    def __enter__(self):
        with self.lock:
            if not self.inside:
                self.limit = _blas().limit(limits=1)
                _release()
            self.inside += 1

    def __exit__(self, *error):
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.limit.restore_original_limits()
                _release()


_limit = _Limit()


def _release():
    """Let any thread set the limit next, not only the one that has set it last."""
    # Older versions of threadpoolctl have no such restriction.
    release = getattr(OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release()


def single_threaded_blas():
    """Context in which BLAS uses one thread; wrap it around :func:`thread_map`."""
    return _limit


class _Cached:
    """Results of a function that only one thread at a time runs."""

    def __init__(self, function, maxsize):
        update_wrapper(self, function)
        self._found = lru_cache(maxsize)(self._wait)
        # Who waited for another thread finds here what that has made.
        self._latest = lru_cache(4)(function)

    def __call__(self, *arguments, **options):
        return self._found(*arguments, **options)

    def _wait(self, *arguments, **options):
        with _making, single_threaded_blas():
            return self._latest(*arguments, **options)

    def cache_clear(self):
        self._found.cache_clear()
        self._latest.cache_clear()


def cached(maxsize):
    """Decorator of a function whose latest results are cached, for tables.

    They are made with one thread of BLAS: no bit may depend on the number of threads.
    Threads that need the same table do not make it twice.
    """
    return partial(_Cached, maxsize=maxsize)


@contextmanager
def scratch(*shape):
    """Array of floats to work in, with whatever stood there before.

    Memory that is new to the process takes longer to get than to fill, and makes
    threads wait for each other: some is kept for the next call.

    Parameters
    ----------
    *shape : int

    Yields
    ------
    ndarray
        Valid inside the context only.
    """
    size = math.prod(shape)
    with _lock:
        fitting = [i for i, a in enumerate(_spare) if a.size >= size]
        found = min(fitting, key=lambda i: _spare[i].size, default=None)
        room = None if found is None else _spare.pop(found)
    if room is None:
        room = np.empty(size)
    try:
        yield room[:size].reshape(shape)
    finally:
        # One large array would leave no room for others.
        if 4 * room.size <= _MOST_SPARE:
            with _lock:
                _spare.append(room)
                while sum(a.size for a in _spare) > _MOST_SPARE:
                    _spare.pop(0)


def thread_count(n_threads=None):
    """Checked number of threads; by default that of ``NUMBA_NUM_THREADS``.

    Raises
    ------
    ValueError
        If it is not a positive whole number.
    """
    if n_threads is None:
        return numba.config.NUMBA_NUM_THREADS
    is_number = isinstance(n_threads, Real) and not isinstance(n_threads, bool)
    if not is_number or not 1 <= n_threads < math.inf or int(n_threads) != n_threads:
        raise ValueError(f"n_threads must be a positive whole number, got {n_threads}")
    return int(n_threads)


def thread_map(function, items, n_threads=1, progress=None, unit="it", counts=None):
    """Results of a function of each item, in order.

    Parameters
    ----------
    function : callable
        Takes one item.
    items : sequence
    n_threads : int
        How many at a time. A piece of work that is cut again is done by its thread
        alone.
    progress : str, optional
        Title of a progress bar; none by default.
    unit : str
        What the bar counts.
    counts : sequence of int, optional
        How many of them each item is; by default one.

    Returns
    -------
    list
    """
    items = list(items)
    n_threads = min(n_threads, len(items))
    alone = n_threads < 2 or hasattr(_thread, "works")
    if alone and not progress:
        return [function(item) for item in items]
    results = [None] * len(items)
    left = deque(range(len(items)))
    bar = None
    # Even a hidden bar takes as long as a small frame.
    if progress:
        total = len(items) if counts is None else sum(counts)
        bar = tqdm(total=total, desc=progress, unit=unit)

    def work():
        if not alone:
            _thread.works = True
        try:
            while left:
                try:
                    i = left.popleft()
                except IndexError:
                    return
                results[i] = function(items[i])
                if bar is not None:
                    with bar.get_lock():
                        bar.update(1 if counts is None else counts[i])
        except BaseException:
            left.clear()
            raise
        finally:
            if not alone:
                del _thread.works

    others = []
    if not alone:
        pool = _workers(n_threads - 1)
        others = [pool.submit(work) for _ in range(n_threads - 1)]
    try:
        # The caller does its share: a thread that is woken may come late.
        work()
    finally:
        started = [o for o in others if not o.cancel()]
        wait(started)
        if bar is not None:
            bar.close()
    for other in started:
        other.result()
    return results
