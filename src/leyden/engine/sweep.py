"""A sweep: one pass of one or more reductions over rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from leyden.engine.budget import Layout, layout
from leyden.engine.local import Local
from leyden.engine.progress import Progress
from leyden.engine.reduction import Reduction
from leyden.rows.base import Rows
from leyden.solution import PassRecord, Trace


@dataclass
class Engine:
    """What a run needs to sweep: a budget, an executor, somewhere to show progress, a trace to write to."""

    memory: int
    threads: int | None = None
    executor: Local = field(default_factory=Local)
    progress: Progress = field(default_factory=lambda: Progress(False))
    trace: Trace = field(default_factory=Trace)

    def layout(self, rows: Rows, reductions: Sequence[Reduction[Any, Any]]) -> Layout:
        """How a sweep of ``reductions`` would cut ``rows``."""
        return layout(rows, reductions, self.memory, self.threads)

    def sweep(self, rows: Rows, reductions: Sequence[Reduction[Any, Any]], label: str) -> list[Any]:
        """Run one pass and return the result of each reduction."""
        cut = self.layout(rows, reductions)
        number = len(self.trace.passes) + 1
        began = time.perf_counter()
        with self.progress.sweep(f"pass {number}: {label}", rows.shape[0], rows.stored_nbytes) as on_rows:
            states = self.executor.fold(rows, reductions, cut, on_rows)
        results = [reduction.finish(state) for reduction, state in zip(reductions, states, strict=True)]
        seconds = time.perf_counter() - began
        self.trace.passes.append(PassRecord(label, rows.shape[0], rows.stored_nbytes, seconds, cut.threads))
        return results


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
    return best
