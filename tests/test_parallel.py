import multiprocessing
import os
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest

from lode import parallel
from lode.parallel import scratch, thread_map


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_results_stand_in_the_order_of_the_items(n_threads):
    def late(i):
        time.sleep(0.002 * (7 - i))
        return i * i

    assert thread_map(late, range(7), n_threads) == [i * i for i in range(7)]
    assert thread_map(late, [], n_threads) == []


def test_the_pieces_run_beside_each_other_on_as_many_threads_as_asked_for():
    all_there = threading.Barrier(3, timeout=20.0)

    def piece(_):
        # Passed only if three pieces wait at a time.
        all_there.wait()
        return threading.get_ident()

    names = thread_map(piece, range(3), 3)
    assert len(set(names)) == 3
    assert threading.get_ident() in names


def test_a_piece_that_is_cut_again_stays_on_its_thread():
    def inner(_):
        return threading.get_ident()

    def outer(_):
        return set(thread_map(inner, range(20), 2)) == {threading.get_ident()}

    assert all(thread_map(outer, range(8), 2))


def test_one_piece_may_be_cut_again():
    def outer(_):
        return thread_map(lambda i: i, range(3), 3)

    assert thread_map(outer, [0], 3) == [[0, 1, 2]]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_error_gets_out_and_ends_the_rest(n_threads):
    done = []

    def piece(i):
        if i == 3:
            raise ValueError("the third")
        time.sleep(0.001)
        done.append(i)

    with pytest.raises(ValueError, match="the third"):
        thread_map(piece, range(500), n_threads)
    assert len(done) < 100
    count = len(done)
    time.sleep(0.02)
    assert len(done) == count
    # Nothing is left behind.
    assert thread_map(lambda i: i, range(9), n_threads) == list(range(9))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_progress_counts_what_the_items_hold(n_threads, capsys):
    thread_map(len, ["ab", "c", "def"], n_threads, "letters", "letter", [2, 1, 3])
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize("wrong_is_first", [True, False])
def test_an_error_of_one_piece_waits_for_the_other(wrong_is_first):
    begun, ended = threading.Event(), []

    def piece(is_wrong):
        if is_wrong:
            assert begun.wait(timeout=20.0)
            raise ValueError("wrong")
        begun.set()
        time.sleep(0.05)
        ended.append(True)

    with pytest.raises(ValueError, match="wrong"):
        thread_map(piece, [wrong_is_first, not wrong_is_first], 2)
    assert ended == [True]


def test_an_error_of_a_helper_gets_out():
    caller_waits = threading.Event()

    def piece(_):
        if threading.current_thread() is threading.main_thread():
            assert caller_waits.wait(timeout=20.0)
            return
        caller_waits.set()
        raise ValueError("of a helper")

    with pytest.raises(ValueError, match="of a helper"):
        thread_map(piece, range(6), 2)


@pytest.fixture
def two_threads_of_blas():
    """Libraries of BLAS, each with two threads."""
    limit = parallel._blas().limit(limits=2)
    parallel._release()
    yield parallel._blas().lib_controllers
    limit.restore_original_limits()
    parallel._release()


def test_blas_is_limited_as_long_as_some_thread_wants_it(two_threads_of_blas):
    def numbers():
        return {c.get_num_threads() for c in two_threads_of_blas}

    assert numbers() == {2}
    with parallel.single_threaded_blas():
        assert numbers() == {1}
    other_is_in, may_leave, seen = threading.Event(), threading.Event(), []

    def other():
        with parallel.single_threaded_blas():
            other_is_in.set()
            assert may_leave.wait(timeout=20.0)
            seen.append(numbers())

    # Not only the first thread may set and reset it, nor the last one have been first.
    for _ in range(2):
        thread = threading.Thread(target=other)
        with parallel.single_threaded_blas():
            thread.start()
            assert other_is_in.wait(timeout=20.0)
        may_leave.set()
        thread.join()
        assert seen.pop() == {1}
        assert numbers() == {2}
        other_is_in.clear()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert seen.pop() == {1}
        assert numbers() == {2}
        other_is_in.clear()
        may_leave.clear()


def test_a_limit_of_the_caller_ends_whichever_thread_left_last(two_threads_of_blas):
    is_in, may_leave, has_left, may_return = (threading.Event() for _ in range(4))
    seen = []

    def numbers():
        return {c.get_num_threads() for c in two_threads_of_blas}

    def other():
        with parallel.single_threaded_blas():
            is_in.set()
            assert may_leave.wait(timeout=20.0)
        has_left.set()
        assert may_return.wait(timeout=20.0)
        with parallel.single_threaded_blas():
            seen.append(numbers())

    thread = threading.Thread(target=other)
    with parallel._blas().limit(limits=1):
        with parallel.single_threaded_blas():
            thread.start()
            assert is_in.wait(timeout=20.0)
        may_leave.set()
        assert has_left.wait(timeout=20.0)
    assert numbers() == {2}
    may_return.set()
    thread.join()
    assert seen == [{1}]
    assert numbers() == {2}


@pytest.mark.parametrize("error", [False, True])
def test_a_table_that_threads_want_at_a_time_is_made_once(error, two_threads_of_blas):
    all_there, made = threading.Barrier(3, timeout=20.0), []

    @parallel.cached(8)
    def table(size, power=1):
        made.append({c.get_num_threads() for c in two_threads_of_blas})
        time.sleep(0.02)
        if error:
            raise ValueError("no table")
        return [size**power]

    def piece(_):
        all_there.wait()
        try:
            return table(3, power=2)
        except ValueError:
            return None

    found = thread_map(piece, range(3), 3)
    # Of what failed there is nothing to find.
    assert made == [{1}] * (3 if error else 1)
    assert found == [None if error else [9]] * 3
    if not error:
        assert all(values is found[0] for values in found)
        assert table(3, power=2) is found[0]
        table.cache_clear()
        assert table(3, power=2) is not found[0]


def _answer(queue):
    queue.put(thread_map(lambda i: -i, range(4), 2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes by fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    thread_map(len, ["a", "b"], 2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_answer, args=(queue,))
    process.start()
    assert queue.get(timeout=20) == [0, -1, -2, -3]
    process.join()


def test_scratch_is_used_again_and_never_twice_at_a_time(monkeypatch):
    # What other tests have left might fit as well.
    monkeypatch.setattr(parallel, "_spare", [])
    with scratch(3, 4) as first, scratch(3, 4) as second:
        assert first.shape == second.shape == (3, 4)
        assert not np.shares_memory(first, second)
    with scratch(2, 3) as again:
        assert np.shares_memory(again, first) or np.shares_memory(again, second)


def test_scratch_that_is_kept_has_a_bound(monkeypatch):
    monkeypatch.setattr(parallel, "_spare", [])
    monkeypatch.setattr(parallel, "_MOST_SPARE", 100)
    with scratch(26):
        pass
    assert parallel._spare == []
    with ExitStack() as stack:
        for _ in range(7):
            stack.enter_context(scratch(25))
    assert [a.size for a in parallel._spare] == [25] * 4
