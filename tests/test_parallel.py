import multiprocessing
import os
import threading
import time
import weakref
from contextlib import ExitStack

import numpy as np
import pytest

from lode import parallel
from lode.parallel import scratch, share, thread_map


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


def _answer(queue):
    both_there = threading.Barrier(2, timeout=10.0)
    shared(lambda *_: both_there.wait())
    queue.put(thread_map(lambda i: -i, range(4), 2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes by fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    thread_map(len, ["a", "b"], 2)
    shared(lambda *_: None)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_answer, args=(queue,))
    process.start()
    assert queue.get(timeout=20) == [0, -1, -2, -3]
    process.join()


def no_linger(*_):
    """Sleep at once."""


def shared(function, n_threads=2, linger=no_linger, arguments=()):
    share(function, arguments, n_threads, linger, np.zeros(2, dtype=int), 1)


@pytest.mark.parametrize("n_threads", [2, 4])
def test_threads_share_a_call(n_threads):
    all_there = threading.Barrier(n_threads, timeout=20.0)
    names = set()

    def work(seen, bell, counters):
        names.add(threading.get_ident())
        assert seen == "argument"
        assert len(bell) == 1
        assert not counters.any()
        all_there.wait()

    for _ in range(3):
        shared(work, n_threads, arguments=("argument",))
    assert threading.get_ident() in names
    assert len(names) == n_threads


@pytest.mark.parametrize("of_caller", [True, False])
def test_an_error_in_a_shared_call_gets_out(of_caller):
    both_there = threading.Barrier(2, timeout=20.0)

    def work(bell, counters):
        both_there.wait()
        if of_caller == (threading.current_thread() is threading.main_thread()):
            raise ValueError("wrong")
        # Who waits for the others is told.
        end = time.monotonic() + 20.0
        while not counters[1] and time.monotonic() < end:
            time.sleep(0.001)
        assert counters[1]

    for _ in range(2):
        with pytest.raises(ValueError, match="wrong"):
            shared(work)


def test_who_comes_too_late_finds_nothing_of_a_call():
    entered, free, late = threading.Event(), threading.Event(), []

    def first(*_):
        if threading.current_thread() is threading.main_thread():
            assert entered.wait(timeout=20.0)
            return
        entered.set()
        assert free.wait(timeout=20.0)

    def second(array, *_):
        late.append(threading.current_thread() is not threading.main_thread())

    shared(first)
    array = np.zeros(3)
    alive = weakref.ref(array)
    shared(second, arguments=(array,))
    del array
    assert alive() is None
    free.set()
    both_there = threading.Barrier(2, timeout=20.0)
    shared(lambda *_: both_there.wait())
    assert late == [False]


def test_a_shared_call_in_a_piece_of_work_stays_on_its_thread():
    def piece(_):
        names = set()
        shared(lambda *_: names.add(threading.get_ident()), 3)
        return names == {threading.get_ident()}

    assert all(thread_map(piece, range(6), 2))


def test_a_helper_lingers_where_no_call_waits():
    lingers, both_there = [], threading.Barrier(2, timeout=20.0)
    done = threading.Event()

    def linger(bell, heard, looks):
        lingers.append((int(bell[0]), heard, looks))
        done.set()

    def work(bell, _):
        both_there.wait()
        if threading.current_thread() is threading.main_thread():
            bell[0] += 1
        both_there.wait()

    shared(work, linger=linger)
    assert done.wait(timeout=20.0)
    assert lingers == [(1, 1, parallel._Helpers.looks)]


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
