"""A sweep: one pass of one or more reductions over rows."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leyden.engine.budget import Layout, layout, thread_count
from leyden.engine.checkpoint import Checkpoint, Saved
from leyden.engine.executor import Executor, current
from leyden.engine.fingerprint import stamp
from leyden.engine.progress import Progress
from leyden.engine.reduction import Reduction
from leyden.engine.tree import MergeTree
from leyden.errors import DataError, Interrupted
from leyden.rows.base import Rows
from leyden.solution import PassRecord, Trace


@dataclass
class Engine:
    """What a run needs to sweep: a budget, an executor, somewhere to show progress, a trace to write to.

    Attributes
    ----------
    memory : int
    threads : int, optional
    reserved : int
        Of the memory, what the algebra between sweeps takes.
    executor : Executor
    checkpoint : Checkpoint, optional
        Inside :meth:`running` every sweep is saved there as it goes on, and what was saved before is not done again.
    progress : Progress
    trace : Trace
    """

    memory: int
    threads: int | None = None
    reserved: int = 0
    executor: Executor = field(default_factory=current)
    checkpoint: Checkpoint | None = None
    progress: Progress = field(default_factory=lambda: Progress(False))
    trace: Trace = field(default_factory=Trace)
    #: Seconds of work that a checkpoint saved this run.
    spared: float = 0.0
    _files: dict[str, tuple[int, int, int]] = field(default_factory=dict, init=False, repr=False)
    _stops: _Stops = field(default_factory=lambda: _Stops(), init=False, repr=False)

    def layout(self, rows: Rows, reductions: Sequence[Reduction[Any, Any]]) -> Layout:
        """How a sweep of ``reductions`` would cut ``rows``."""
        return layout(rows, reductions, self.memory, self.threads, reserved=self.reserved)

    @contextmanager
    def running(self, identity: Mapping[str, Any], decided: Mapping[str, Any]) -> Iterator[None]:
        """A context for all the sweeps of one run, whose checkpoint, if it has one, is this process's meanwhile.

        Parameters
        ----------
        identity : mapping
            Plain values: verb, options, and under "data" the fingerprint of the rows.
        decided : mapping
            Plain values that the run was begun with and must go on with.

        Raises
        ------
        Interrupted
            On SIGINT or SIGTERM, after a last save.
        """
        if self.checkpoint is None:
            yield
            return
        with self.checkpoint.run(identity, decided, self.trace.remarks.append), self._stops.caught():
            try:
                yield
            except KeyboardInterrupt as interrupt:
                raise self._interrupted(self.checkpoint) from interrupt

    def _interrupted(self, checkpoint: Checkpoint) -> Interrupted:
        lost = f", and {checkpoint.failure}" if checkpoint.failure else ""
        kept = "what was saved before" if lost else "what was done"
        return Interrupted(
            f"interrupted in pass {len(self.trace.passes) + 1}{lost}: {kept} is kept in {checkpoint.folder}. "
            "To go on, do the same again.",
            self._stops.signals[0] if self._stops.signals else signal.SIGINT,
        )

    def step(self, rows: Rows, label: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What ``compute`` finds in one pass over the rows or without one, or what a checkpoint has of it.

        Of a pass inside, the checkpoint then keeps these arrays and not the sums that they were made from.
        """
        number = len(self.trace.passes) + 1
        kept = self.checkpoint.settled(number, label) if self.checkpoint else None
        if kept:
            arrays, seconds, passes = kept
            self.spared += seconds
            self.trace.remarks.append(f"pass {number} was complete in the checkpoint")
        else:
            began = time.perf_counter()
            arrays = compute()
            seconds = time.perf_counter() - began
            passes = max(len(self.trace.passes) + 1 - number, 1)
            if self.checkpoint:
                self.checkpoint.settle(number, label, arrays, rows.shape[0], seconds, passes)
        threads = self.threads or thread_count()
        for _ in range(number - 1 + passes - len(self.trace.passes)):
            record = PassRecord(label, rows.shape[0], rows.stored_nbytes, seconds / passes, threads)
            self.trace.passes.append(record)
        return arrays

    def sweep(
        self, rows: Rows, reductions: Sequence[Reduction[Any, Any]], label: str, *, keep: bool = True
    ) -> list[Any]:
        """Run one pass, or what a checkpoint lacks of it, and return the result of each reduction.

        Parameters
        ----------
        rows : Rows
        reductions : sequence of Reduction
        label : str
        keep : bool
            Whether the complete sums are kept in a checkpoint; parts of them are in any case.

        Raises
        ------
        DataError
            If a file is not what it was at the first sweep.
        """
        cut = self.layout(rows, reductions)
        number = len(self.trace.passes) + 1
        self._check_files(rows)
        saved = self.checkpoint.restore(number, reductions, cut) if self.checkpoint else None
        spared = saved.seconds if saved else 0.0
        self.spared += spared
        began = time.perf_counter() - spared
        if saved and saved.complete:
            self.trace.remarks.append(f"pass {number} was complete in the checkpoint")
            tree, seconds = MergeTree(reductions, cut.segments, saved.nodes), saved.seconds
        else:
            tree = self._fold(rows, reductions, cut, saved, label, began, keep)
            seconds = time.perf_counter() - began
        results = [reduction.finish(state) for reduction, state in zip(reductions, tree.result(), strict=True)]
        self.trace.passes.append(PassRecord(label, rows.shape[0], rows.stored_nbytes, seconds, cut.threads))
        return results

    def _fold(
        self,
        rows: Rows,
        reductions: Sequence[Reduction[Any, Any]],
        cut: Layout,
        saved: Saved | None,
        label: str,
        began: float,
        keep: bool,
    ) -> MergeTree:
        """The tree of all segments. On the way and at the end, whatever it is, what there is of it is saved."""
        number, checkpoint, saving = len(self.trace.passes) + 1, self.checkpoint, threading.Lock()

        # The functions must not hold the tree that holds them: what such a cycle keeps is freed late.
        def save(tree: MergeTree) -> None:
            with tree.still() as nodes:
                # What has been folded by now is of these files as they were at the start, or it is not saved.
                self._check_files(rows)
                if checkpoint:
                    checkpoint.save(number, reductions, cut, nodes, time.perf_counter() - began)

        def save_if_due(tree: MergeTree) -> None:
            if checkpoint and checkpoint.due() and saving.acquire(blocking=False):
                try:
                    save(tree)
                finally:
                    saving.release()

        due = checkpoint.due if checkpoint else None
        tree = MergeTree(reductions, cut.segments, saved.nodes if saved else None, save_if_due, due)
        if checkpoint:
            checkpoint.expect(sum(r.state_nbytes for r in reductions) * math.log2(cut.segments + 1))
        with self._stops.held():
            try:
                with self.progress.sweep(f"pass {number}: {label}", rows.shape[0], rows.stored_nbytes) as on_rows:
                    if saved:
                        done = sum(cut.rows_of(segment) for node in saved.nodes for segment in tree.span(node))
                        self.trace.remarks.append(f"pass {number} went on from a checkpoint with {done:,} rows done")
                        on_rows(done)
                    with self._stops.allowed():
                        self.executor.fold(rows, reductions, cut, tree, on_rows, self._remark)
            finally:
                if keep or tree.missing():
                    save(tree)
        return tree

    def _remark(self, sentence: str) -> None:
        if sentence not in self.trace.remarks:
            self.trace.remarks.append(sentence)

    def _check_files(self, rows: Rows) -> None:
        for path in rows.files:
            now = stamp(path)
            if self._files.setdefault(path, now) != now:
                raise DataError("the file has changed while it was being read", where=path, hint="Run it again.")


class _Stops:
    """SIGINT and SIGTERM as KeyboardInterrupt: at once where that is allowed, later where something must be finished.

    Only in the main thread, which alone hears of signals; a run in another one ends as the program around it decides.

    Attributes
    ----------
    signals : list of int
        Those that came.
    """

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._hold, self._pending = False, False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """A context in which both signals come here, unless they were ignored before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._stop)
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) not in (signal.SIG_IGN, None)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _: Any) -> None:
        self.signals.append(number)
        if not self._hold:
            raise KeyboardInterrupt
        self._pending = True

    def held(self) -> AbstractContextManager[None]:
        """A context at whose end a signal that comes meanwhile is heard."""
        return self._holding(True)

    def allowed(self) -> AbstractContextManager[None]:
        """A context, inside one of :meth:`held`, in which signals are heard at once."""
        return self._holding(False)

    @contextmanager
    def _holding(self, hold: bool) -> Iterator[None]:
        before, self._hold = self._hold, hold
        try:
            self._raise_pending()
            yield
        finally:
            self._hold = before
            self._raise_pending()

    def _raise_pending(self) -> None:
        if self._pending and not self._hold:
            self._pending = False
            raise KeyboardInterrupt


def read_rate(rows: Rows, memory: int) -> float:
    """Stored bytes a second at which ``rows`` can be read here and now: a few consecutive blocks, timed.

    What a plan predicts rests on it: the disk, the page cache and the decoding of the format are all in it.
    """
    n = rows.shape[0]
    stored = rows.stored_nbytes / n
    length = max(1, min(n // 4, int(min(8 * 2**20, memory / 8) / max(rows.row_nbytes, 1))))
    buffer, start = rows.buffer(length), n // 2
    best = 0.0
    for _ in range(4):
        stop = min(start + length, n)
        began = time.perf_counter()
        rows.read(start, stop, buffer)
        best = max(best, (stop - start) * stored / max(time.perf_counter() - began, 1e-9))
        start = stop if stop < n else 0
    rows.release()
    return best
