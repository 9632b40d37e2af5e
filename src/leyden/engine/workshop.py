"""Threads and memory inside a reduction whose state they share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from leyden import aligned
from leyden.engine.budget import thread_count


class Workshop:
    """Threads and memory that a reduction works a block with; pickled, it makes its own.

    Parameters
    ----------
    threads : int, optional
        All processors of the process by default.
    """

    __slots__ = ("_arrays", "_asked", "_kept", "_pool", "threads")

    def __init__(self, threads: int | None = None):
        self._asked, self.threads = threads, threads or thread_count()
        self._arrays: dict[str, np.ndarray] = {}
        self._kept: dict[str, Any] = {}
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[int], Any], count: int) -> list[Any]:
        """``work(k)`` for every part."""
        if self.threads == 1:
            return [work(k) for k in range(count)]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, "leyden-parts")
        return list(self._pool.map(work, range(count)))

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array with arbitrary contents: the same memory for the same name as long as it is large enough."""
        size = int(np.prod(shape))
        held = self._arrays.get(name)
        if held is None or held.size < size or held.dtype != dtype:
            held = self._arrays[name] = aligned.empty(size + size // 16, dtype)
        return held[:size].reshape(shape)

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` made the first time."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def __repr__(self) -> str:
        return "Workshop()"  # threads and memory do not change what is computed

    def __reduce__(self) -> tuple[type[Workshop], tuple[int | None]]:
        return Workshop, (self._asked,)
