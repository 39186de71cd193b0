"""Threads over independent pieces of work, one thread of BLAS in each.

The compiled loops release the interpreter's lock and are serial inside, so every
piece is computed the same way whatever the number of threads: results are equal
bit by bit. BLAS is limited once, where the work enters, since that takes as long as
a small piece.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import inf
from numbers import Real

import numba
from threadpoolctl import ThreadpoolController
from tqdm import tqdm


@cache
def _controller():
    return ThreadpoolController()


def single_threaded_blas():
    """Context in which BLAS uses one thread; wrap it around :func:`thread_map`."""
    return _controller().limit(limits=1, user_api="blas")


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
    if not is_number or not 1 <= n_threads < inf or int(n_threads) != n_threads:
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
        How many at a time.
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

    def finished(results):
        # Even a hidden bar takes as long as a small frame.
        if not progress:
            return list(results)
        found = []
        total = len(items) if counts is None else sum(counts)
        with tqdm(total=total, desc=progress, unit=unit) as bar:
            for result in results:
                bar.update(1 if counts is None else counts[len(found)])
                found.append(result)
        return found

    if n_threads == 1 or len(items) < 2:
        return finished(map(function, items))
    with ThreadPoolExecutor(n_threads) as pool:
        return finished(pool.map(function, items))
