"""One side of an alternating least squares epoch: all rows solved against the factors of the other side."""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import aligned
from leyden.factor import _als_kernels

kernels: Any = _als_kernels

#: Factors are padded with zeros to a multiple of this: a whole number of vectors of either precision.
PADDING = 16

#: Parts that the work of a half-step is cut into: enough for threads to end together, none of less work than to call
#: a kernel is worth.
PARTS, LEAST_WORK = 64, 1e6


@dataclass(frozen=True)
class Entries:
    """Ratings grouped by row, and the order in which rows are solved.

    Attributes
    ----------
    indptr : int64, shape (rows + 1,)
    indices : int32
    values : float32
    order : int64, shape (rows,)
        Rows by ascending number of entries.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> Entries:
        """Of the arrays of a CSR matrix."""
        indptr = np.ascontiguousarray(indptr, np.int64)
        counts = np.diff(indptr)
        if counts.size and counts.max() < 2**16:
            counts = counts.astype(np.uint16)  # sorted by their digits
        order = np.argsort(counts, kind="stable")
        return cls(
            indptr, np.ascontiguousarray(indices, np.int32), np.ascontiguousarray(values, np.float32), order
        )  # fmt: skip

    @property
    def counts(self) -> np.ndarray:
        """Entries of each row."""
        return np.diff(self.indptr)

    def transposed(self, columns: int) -> Entries:
        """The same ratings grouped by column, rows in ascending order."""
        indptr = np.zeros(columns + 1, np.int64)
        rows = np.empty(len(self.indices), np.int32)
        values = np.empty(len(self.indices), np.float32)
        spare = np.empty((3, len(self.indices)), np.int32)
        kernels.transpose(self.indptr, self.indices, self.values, indptr, rows, values, 0, spare)
        return Entries.of(indptr, rows, values)


def padded(rank: int) -> int:
    """Columns of factors in memory."""
    return rank + -rank % PADDING


class HalfStep:
    """Solves rows in threads of its own, in memory that is made once.

    Parameters
    ----------
    width : int
        Columns of the factors, padded.
    dtype : float32 or float64
    threads : int
    nonnegative : int
        Columns of factors that are to be zero or more; 0 when they may be anything.
    subspace : int
        Factors at a time that rows of many entries are improved in, a multiple of :data:`PADDING`; 0 when all rows
        are to be at their best.
    active : int, optional
        Columns of the factors that are not zero.
    """

    def __init__(
        self,
        width: int,
        dtype: np.dtype,
        threads: int,
        nonnegative: int = 0,
        subspace: int = 0,
        active: int | None = None,
    ):
        self.width, self.dtype, self.threads, self.nonnegative = width, np.dtype(dtype), threads, nonnegative
        self.subspace = subspace
        self.active = width if active is None else active + -active % kernels.TILE
        self._left = [aligned.zeros((2, 0), self.dtype) for _ in range(threads)]
        self._work = [_memory(width, self.dtype) for _ in range(threads)]

    @property
    def nbytes(self) -> int:
        """Memory to work in."""
        return sum(array.nbytes for work in self._work for array in work)

    def __call__(
        self,
        entries: Entries,
        model: np.ndarray,
        f: np.ndarray,
        theta: np.ndarray,
        penalties: np.ndarray,
        out: np.ndarray,
        shift: np.ndarray | None = None,
        exact: bool = False,
    ) -> float:
        """Solve every row of ``entries`` into ``out``; gives the sum of the least values.

        Parameters
        ----------
        entries : Entries
        model : float64, shape (4,)
            Weights and targets as functions of the value; see :func:`leyden.factor._als_kernels.half_step`.
        f : shape (columns, width)
        theta : shape (width,), or (width, width) when factors are to be zero or more
            The quadratic form that all rows share, or its diagonal if it is diagonal.
        penalties : shape (most entries + 1,)
            λ by the number of entries.
        out : shape (rows, width)
            With nonnegative factors or subspaces, those to begin with come in here.
        shift : shape (columns,), optional
            What is taken off the targets.
        exact : bool
            Whether all rows are to be at their best this time, subspaces or not.
        """
        theta, penalties = theta.astype(self.dtype), penalties.astype(self.dtype)
        shift = np.empty(0, self.dtype) if shift is None else shift.astype(self.dtype)
        subspace = 0 if exact else self.subspace
        cuts = parts(entries, self.width, subspace)
        values = np.zeros((len(cuts) - 1, 1))
        left: queue.SimpleQueue[int] = queue.SimpleQueue()
        # The largest rows are the last: begin with them, so that the short ones fill what is left at the end.
        for k in reversed(range(len(cuts) - 1)):
            left.put(k)

        most = len(penalties) - 1 if subspace else 0
        self._left = [held if held.shape[1] >= most else aligned.zeros((2, most), self.dtype) for held in self._left]

        def work(memory: tuple[np.ndarray, ...], held: np.ndarray) -> None:
            while True:
                try:
                    k = left.get_nowait()
                except queue.Empty:
                    return
                problem: Any = (
                    entries.order, cuts[k], cuts[k + 1], entries.indptr, entries.indices, entries.values, model, shift,
                    f, theta, penalties, out, values[k],
                )  # fmt: skip
                lanes = 64 // self.dtype.itemsize
                if self.nonnegative:
                    kernels.half_step_nonnegative(*problem, *memory[:3], self.nonnegative, lanes)
                else:
                    kernels.half_step(*problem, *memory, subspace, held, self.active, lanes)

        if self.threads == 1:
            work(self._work[0], self._left[0])
        else:
            with ThreadPoolExecutor(self.threads, "leyden") as pool:
                list(pool.map(work, self._work, self._left))
        return float(values.sum())


def parts(entries: Entries, width: int, subspace: int = 0) -> np.ndarray:
    """Where to cut the order into parts of about the same work, in cycles of a processor."""
    counts = entries.counts[entries.order].astype(np.float64)
    least = np.minimum(counts, min(width, kernels.subspace_entries(subspace, width)) if subspace else width)
    work = np.cumsum(200.0 + counts * (least * width / 2 + 20 * width) / 16 + least**3 / 48)
    if not len(work):
        return np.zeros(1, np.int64)
    count = min(PARTS, max(1, int(work[-1] / LEAST_WORK)))
    cuts = np.searchsorted(work, np.linspace(0, work[-1], count + 1)[1:-1], side="left")
    return np.unique(np.concatenate([[0], cuts, [len(counts)]])).astype(np.int64)


def _memory(width: int, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """What one thread works in; see :func:`leyden.factor._als_kernels.half_step`."""
    lanes = 64 // dtype.itemsize
    few = kernels.lane_entries(width)
    tiles = (few + 3) // 4
    triangle = tiles * (tiles + 1) // 2
    rows = max(4 * lanes * tiles, width + lanes, kernels.GATHERED)
    return (
        aligned.zeros((rows, width), dtype),
        aligned.zeros((width + lanes, width + lanes), dtype),
        aligned.zeros((6, max(width + lanes, kernels.GATHERED)), dtype),
        aligned.zeros((16 * triangle, lanes), dtype),
        aligned.zeros((8 * tiles, lanes), dtype),
        aligned.zeros((lanes * triangle, 16), dtype),
        aligned.zeros(width, dtype),
    )
