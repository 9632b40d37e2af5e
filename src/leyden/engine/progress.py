"""Progress of passes on a terminal; silence anywhere else."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Shows each pass while it runs: its number, rows done, time left, and GB/s where bytes are read.

    Parameters
    ----------
    show : bool, optional
        Default: only when standard error is a terminal.
    """

    def __init__(self, show: bool | None = None):
        self.show = sys.stderr.isatty() if show is None else show

    def say(self, sentence: str) -> None:
        """A line that stays, where passes are shown."""
        if self.show:
            from rich.console import Console

            Console(stderr=True).print(sentence, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def sweep(self, label: str, rows: int, nbytes: int) -> Iterator[Callable[[int], None]]:
        """A context for one pass; gives the function to call with the number of rows just done."""
        if not self.show:
            yield lambda count: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]:,} of {task.fields[n]:,} rows"),
            *([TransferSpeedColumn()] if nbytes else []),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        total = nbytes or rows
        done, lock = 0, threading.Lock()
        with bar:
            task = bar.add_task(label, total=total, n=rows, done=0)

            def advance(count: int) -> None:
                nonlocal done
                with lock:
                    done += count
                    bar.update(task, completed=done * total / rows, done=done)

            yield advance
