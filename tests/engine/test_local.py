"""The local executor: every row once, merged in a fixed order whatever the threads; errors come out as they are."""

import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import leyden as ly
from leyden.engine.budget import Layout
from leyden.engine.local import Local, single_threaded_blas
from leyden.engine.reduction import Reduction
from leyden.engine.tree import MergeTree
from leyden.rows import open as open_rows


class Order(Reduction):
    """Concatenates row indices, and remembers how states were merged."""

    state_nbytes = 1000

    def start(self):
        return ()

    def update(self, state, block):
        return (*state, *range(block.start, block.start + block.rows))

    def merge(self, a, b):
        return (*a, *b)

    def finish(self, state):
        return state


class Parenthesised(Order):
    def merge(self, a, b):
        return (a, b)


def fold(rows, reduction, layout):
    tree = MergeTree([reduction], layout.segments)
    Local().fold(rows, [reduction], layout, tree)
    (state,) = tree.result()
    return state


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 4), st.integers(1, 4))
def test_every_row_is_folded_once_and_in_order(n, block_rows, per_segment, threads):
    rows = open_rows(np.ones((n, 1)))
    layout = Layout(n, block_rows, block_rows * per_segment, threads, 10**9)
    assert fold(rows, Order(), layout) == tuple(range(n))


@given(st.permutations(range(11)), st.permutations(range(11)))
def test_the_merge_tree_does_not_depend_on_who_finishes_first(first, second):
    results = []
    for order in (first, second):
        tree = MergeTree([Parenthesised()], 11)
        for segment in order:
            tree.add((0, segment), [segment])
        results.append(tree.result())
    assert results[0] == results[1]


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_error_in_the_middle_of_a_pass_is_raised_as_it_is(prefetch, threads):
    rows = open_rows(np.ones((1000, 1)))
    rows.in_memory = not prefetch
    read = rows.read

    def failing(start, stop, buffer=None):
        if start <= 500 < stop:
            raise ly.DataError("the disk is on fire", where="row 500")
        return read(start, stop, buffer)

    rows.read = failing
    before = threading.active_count()
    with pytest.raises(ly.DataError, match="row 500: the disk is on fire"):
        fold(rows, Order(), Layout(1000, 10, 20, threads, 10**9))
    assert threading.active_count() == before


def test_blas_stays_on_one_thread_until_the_last_has_left():
    import scipy.linalg.blas  # noqa: F401  # it brings a BLAS of its own

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with threadpool_limits(3, user_api="blas"):
        before = threads()
        first, second = single_threaded_blas(), single_threaded_blas()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_read_ahead_are_not_overwritten_before_they_are_used(tmp_path, threads):
    values = np.arange(30_000.0).reshape(-1, 3)
    np.save(tmp_path / "a.npy", values)
    rows = open_rows(tmp_path / "a.npy")

    class Sum(Order):
        def start(self):
            return 0.0

        def update(self, state, block):
            assert block.data[0, 0] == 3 * block.start
            return state + float(block.data.sum())

        def merge(self, a, b):
            return a + b

    assert fold(rows, Sum(), Layout(10_000, 100, 300, threads, 10**9)) == values.sum()


def test_the_memory_a_solve_read_into_is_free_when_it_is_over(tmp_path, monkeypatch):
    made = []

    class Watched(Local):
        def __init__(self):
            super().__init__()
            made.append(weakref.ref(self))

    monkeypatch.setattr("leyden.engine.executor.Local", Watched)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.standard_normal((5000, 4)))
    rows = open_rows(tmp_path / "a.npy", target=rng.standard_normal(5000))
    gc.disable()
    try:
        solution = ly.lstsq(rows, memory="64MB")
        assert made
        assert all(executor() is None for executor in made)
    finally:
        gc.enable()
    assert solution.certificate.holds


def test_memory_for_blocks_of_another_length_is_given_back_to_the_system(tmp_path, monkeypatch):
    given_back = []
    monkeypatch.setattr("leyden.engine.local.trim", lambda: given_back.append(None))
    np.save(tmp_path / "x.npy", np.ones((1000, 2)))
    rows, executor = open_rows(tmp_path / "x.npy"), Local()
    for block_rows in (100, 100, 50):
        layout = Layout(1000, block_rows, 500, 1, 10**6)
        executor.fold(rows, [], layout, MergeTree([], layout.segments))
    assert len(given_back) == 2
