"""Work cut into parts that threads take one after the other; what is cut never depends on the number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

#: Parts of work whose results are written to places of their own.
PARTS = 32

#: Bytes of sums that parts of a scatter may have of their own, and how many parts that makes at most and at least.
SCATTER_NBYTES, MOST_SCATTERS, LEAST_SCATTERS = 32 * 2**20, 16, 2


class Threads:
    """A number of threads, kept for the whole run; a context.

    Parameters
    ----------
    count : int
    """

    def __init__(self, count: int):
        self.count = count
        self._pool = ThreadPoolExecutor(count, "leyden") if count > 1 else None

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def each(self, work: Callable[..., Any], parts: Iterable[tuple[Any, ...]]) -> list[Any]:
        """``work(*part)`` for every part; results in the order of the parts."""
        if self._pool is None:
            return [work(*part) for part in parts]
        return list(self._pool.map(lambda part: work(*part), parts))


def ranges(count: int, parts: int) -> list[tuple[int, int]]:
    """``range(count)`` in about equal parts, none of them empty."""
    cuts = np.unique(np.linspace(0, count, min(parts, count) + 1).astype(np.int64))
    return [(int(a), int(b)) for a, b in pairwise(cuts)]


def ranges_by_work(indptr: np.ndarray, parts: int) -> list[tuple[int, int]]:
    """Rows of a CSR structure in parts of about the same number of entries."""
    work = indptr[:-1] + np.arange(len(indptr) - 1)
    cuts = np.searchsorted(work, np.linspace(0, indptr[-1] + len(indptr) - 1, parts + 1)[1:-1])
    cuts = np.unique(np.concatenate([[0], cuts, [len(indptr) - 1]]))
    return [(int(a), int(b)) for a, b in pairwise(cuts)]


def scatters(nbytes: int) -> int:
    """Parts of a scatter into sums of ``nbytes`` bytes."""
    return int(np.clip(SCATTER_NBYTES // max(nbytes, 1), LEAST_SCATTERS, MOST_SCATTERS))
