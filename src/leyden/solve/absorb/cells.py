"""Cells: rows of a table grouped by the level of one factor, equal rows added up where there are many.

Rows are grouped by a counting sort: a histogram of the codes, then every row to its place. Rows of one group that agree
in the other factor are found with a table of where each of its levels was last seen. Nothing is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import aligned
from leyden.solve.absorb import _absorb_kernels
from leyden.solve.absorb.threads import PARTS, Threads, ranges, ranges_by_work

kernels: Any = _absorb_kernels

#: Share of rows that repeat others up to which they are not added up.
FEW_REPEATS = 0.1

#: Weights that are all one.
ONES = np.ones(1)


@dataclass(frozen=True)
class Cells:
    """Rows grouped by one factor.

    Attributes
    ----------
    indptr : int64, shape (levels + 1,)
    index : int32, shape (cells,) or (cells, factors − 1)
        Level of the other factor, or of each of them, counted through all of them.
    weights : float64, shape (cells,) or (1,)
        One entry when all weights are one.
    """

    indptr: np.ndarray
    index: np.ndarray
    weights: np.ndarray

    @property
    def mask(self) -> int:
        """What an index of ``weights`` is masked with."""
        return masked(self.weights)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """What every kernel begins with."""
        return self.indptr, self.index, self.weights, self.mask

    @property
    def columns(self) -> tuple[Any, ...]:
        """What kernels for any number of other factors begin with."""
        index = self.index[:, None] if self.index.ndim == 1 else self.index
        return self.indptr, index, self.weights, self.mask

    def __len__(self) -> int:
        return len(self.index)

    @property
    def levels(self) -> int:
        return len(self.indptr) - 1

    def totals(self, threads: Threads) -> np.ndarray:
        """Weight of every level of the factor that rows are grouped by."""
        out = np.zeros(self.levels)
        parts = ranges_by_work(self.indptr, PARTS)
        threads.each(kernels.level_weights, [(self.indptr, self.weights, self.mask, *p, out) for p in parts])
        return out

    def of_many(self) -> Cells:
        """The cells of levels that have more than one: the others only touch themselves."""
        counts = np.diff(self.indptr)
        kept = counts > 1
        held = np.repeat(kept, counts)
        indptr = np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64)
        return Cells(indptr, self.index[held], self.weights[held] if self.mask else self.weights)


def masked(weights: np.ndarray) -> int:
    """The mask of weights: 0 if they are one number for all."""
    return -1 if len(weights) > 1 else 0


def level_counts(
    codes: np.ndarray, levels: int, weights: np.ndarray, threads: Threads
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Rows of each level in each part of the table, (parts, levels), without those of no weight; and the parts."""
    parts = ranges(len(codes), threads.count)
    counts = np.zeros((len(parts), levels), np.int64)
    mask = masked(weights)
    threads.each(kernels.count, [(codes, a, b, weights, mask, counts[k]) for k, (a, b) in enumerate(parts)])
    return counts, parts


def grouped(
    codes: np.ndarray,
    payload: np.ndarray,
    counts: np.ndarray,
    parts: list[tuple[int, int]],
    weights: np.ndarray,
    threads: Threads,
) -> Cells:
    """Rows of weight, in their order within each level; ``counts`` and ``parts`` come from :func:`level_counts`."""
    indptr = np.concatenate([[0], np.cumsum(counts.sum(0))]).astype(np.int64)
    places = indptr[:-1] + np.cumsum(counts, axis=0) - counts
    index = np.empty(indptr[-1], payload.dtype)
    mask = masked(weights)
    out = np.ones(max(int(indptr[-1]), 1) if mask else 1)
    threads.each(
        kernels.place,
        [(codes, payload, weights, mask, a, b, places[k], index, out) for k, (a, b) in enumerate(parts)],
    )
    return Cells(indptr, index, out)


def merged(rows: Cells, levels: int, threads: Threads) -> Cells:
    """Rows of one level that agree in the other factor, of ``levels`` levels, as one cell.

    Where they are few they stay as they are: nothing needs them to be one, and cells that all weigh one take no memory
    for weights.
    """
    counts = np.zeros(rows.levels, np.int64)
    parts = ranges_by_work(rows.indptr, threads.count)

    def distinct(first: int, last: int) -> None:
        kernels.distinct(rows.indptr, rows.index, first, last, np.full(levels, -1, np.int32), counts)

    threads.each(distinct, parts)
    if counts.sum() >= (1 - FEW_REPEATS) * len(rows):
        return rows
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    index, weights = np.empty(indptr[-1], np.int32), aligned.empty(max(int(indptr[-1]), 1))

    def merge(first: int, last: int) -> None:
        seen = np.full(levels, -1, np.int64)
        kernels.merge_cells(*rows.arrays, first, last, seen, indptr, index, weights)

    threads.each(merge, parts)
    return Cells(indptr, index, weights)
