"""The local executor: segments folded by threads, blocks read ahead, states merged in a fixed tree."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

from leyden.engine.budget import READ_AHEAD, Layout, parse_memory, trim
from leyden.engine.reduction import Reduction
from leyden.engine.tree import MergeTree
from leyden.rows.base import Block, Rows


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """A context in which BLAS stays on the calling thread: threads are ours, and so is the order of summation.

    BLAS has one setting for the whole process. Several threads may be inside: the last one to leave sets it back.
    It knows the libraries that are loaded when it is entered: SciPy brings one of its own.
    """
    global _inside
    with _counting:
        scipy = "scipy.linalg" in sys.modules
        if scipy not in _limits:
            _limits[scipy] = _blas(scipy).limit(limits=1)
        _inside += 1
    try:
        yield
    finally:
        with _counting:
            _inside -= 1
            if _inside == 0:
                while _limits:
                    _limits.popitem()[1].restore_original_limits()


_counting = threading.Lock()
_inside = 0
_limits: dict[bool, Any] = {}


@cache
def _blas(with_scipy: bool) -> ThreadpoolController:
    # Finding the loaded libraries takes milliseconds.
    return ThreadpoolController().select(user_api="blas")


class Local:
    """Folds segments in the threads of this process.

    Memory to read into is kept from one pass over the same rows to the next: its first touch is slow.
    """

    def __init__(self) -> None:
        self._spare: list[Any] = []
        self._spare_for: tuple[Rows, int] | None = None

    def memory(self) -> int:
        """The budget when none is given: half of the memory that is free now."""
        return parse_memory(None)

    def _buffer(self, rows: Rows, count: int) -> Any:
        try:
            return self._spare.pop()
        except IndexError:
            return rows.buffer(count)

    def fold(
        self,
        rows: Rows,
        reductions: Sequence[Reduction[Any, Any]],
        layout: Layout,
        tree: MergeTree,
        on_rows: Callable[[int], None] = lambda count: None,
        on_remark: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """Fold the segments that ``tree`` has not, and add them to it.

        ``on_rows`` hears of every block done.
        """
        left, stop = iter(tree.missing()), threading.Event()
        self._keep_for(rows, layout)
        with single_threaded_blas(), ExitStack() as pools:
            readers = _readers(rows, layout.threads, pools)
            workers = pools.enter_context(ThreadPoolExecutor(layout.threads, "leyden"))
            futures = [
                workers.submit(self._work, rows, reductions, layout, tree, left, reader, on_rows, stop)
                for reader in readers
            ]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()
            for future in done:
                future.result()

    def fold_here(
        self,
        rows: Rows,
        reductions: Sequence[Reduction[Any, Any]],
        layout: Layout,
        tree: MergeTree,
        segments: Iterable[int],
    ) -> None:
        """Fold ``segments`` in the calling thread, whose scratch memory stays for the next ones, and add them."""
        self._keep_for(rows, layout)
        with single_threaded_blas(), ExitStack() as pools:
            (reader,) = _readers(rows, 1, pools)
            self._work(rows, reductions, layout, tree, iter(segments), reader)

    def _work(
        self,
        rows: Rows,
        reductions: Sequence[Reduction[Any, Any]],
        layout: Layout,
        tree: MergeTree,
        segments: Iterator[int],
        reader: ThreadPoolExecutor | None,
        on_rows: Callable[[int], None] = lambda count: None,
        stop: threading.Event | None = None,
    ) -> None:
        """What one thread does: fold segments, as long as there are any."""
        buffers = [] if reader is None else [self._buffer(rows, layout.block_rows) for _ in range(READ_AHEAD)]
        for segment, last, block in _blocks(rows, layout, segments, stop or threading.Event(), reader, buffers):
            if block.start == segment * layout.segment_rows:
                states = [reduction.start() for reduction in reductions]
            for k, reduction in enumerate(reductions):
                states[k] = reduction.update(states[k], block)
            on_rows(block.rows)
            if last:
                tree.add((0, segment), states)
        self._spare += buffers

    def _keep_for(self, rows: Rows, layout: Layout) -> None:
        """Keep the memory that is there if it is for such blocks, and give it back if not."""
        if self._spare_for != (rows, layout.block_rows):
            self._spare, self._spare_for = [], (rows, layout.block_rows)
            trim()


def _readers(rows: Rows, threads: int, pools: ExitStack) -> list[ThreadPoolExecutor | None]:
    """What reads ahead for each of the folding threads.

    A plain file is read by one thread for all of them: two streams at once are slower than one on most disks. Reading
    that decodes or maps is work to share: each folding thread has its own, which sees consecutive rows.
    """
    if rows.in_memory:
        return [None] * threads
    count = threads if rows.decodes else 1
    made = [pools.enter_context(ThreadPoolExecutor(1, "leyden-read")) for _ in range(count)]
    return [made[i % count] for i in range(threads)]


def _blocks(
    rows: Rows,
    layout: Layout,
    segments: Iterator[int],
    stop: threading.Event,
    reader: ThreadPoolExecutor | None,
    buffers: list[Any],
) -> Iterator[tuple[int, bool, Block]]:
    """The blocks one thread folds: its segment, whether it is the last of it, and the rows.

    With a reader, the next blocks are being read into ``buffers`` while this one is worked on.
    """
    ranges = _ranges(layout, segments, stop)
    if reader is None:
        for segment, last, first, end in ranges:
            yield segment, last, rows.read(first, end)
        return
    free = itertools.cycle(buffers)
    pending: deque[tuple[int, bool, Future[Block]]] = deque()
    for segment, last, first, end in ranges:
        pending.append((segment, last, reader.submit(rows.read, first, end, next(free))))
        if len(pending) == len(buffers):
            segment, last, block = pending.popleft()
            yield segment, last, block.result()
    for segment, last, block in pending:
        yield segment, last, block.result()


def _ranges(layout: Layout, segments: Iterator[int], stop: threading.Event) -> Iterator[tuple[int, bool, int, int]]:
    """Segment, whether this is its last block, first row and end; segments as they come from a shared counter.

    A stop is heard at the next block: a segment may be many, and what there is of it is given up.
    """
    for segment in segments:
        end = min((segment + 1) * layout.segment_rows, layout.rows)
        for start in range(segment * layout.segment_rows, end, layout.block_rows):
            if stop.is_set():
                return
            stop_row = min(start + layout.block_rows, end)
            yield segment, stop_row == end, start, stop_row
