"""A part of some rows: runs of consecutive ones, evenly spread."""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden.rows.base import Block, Rows


class SampledRows(Rows):
    """Every ``stride``-th run of ``run`` consecutive rows, one after the other.

    Reading runs, and not single rows, costs no more a row than reading them all.

    Parameters
    ----------
    rows : Rows
        Without roles.
    stride : int
    run : int
    """

    def __init__(self, rows: Rows, stride: int, run: int = 2**16):
        n = rows.shape[0]
        run = max(1, min(run, n // stride))
        starts = np.arange(0, n, run * stride)
        self._starts = starts
        self._lengths = np.minimum(starts + run, n) - starts
        self._ends = np.cumsum(self._lengths)
        self.rows, self.shape = rows, (int(self._ends[-1]), rows.shape[1])
        self.dtype, self.is_sparse, self.in_memory, self.decodes = rows.dtype, rows.is_sparse, False, True
        self.row_nbytes, self.piece_rows, self.files = rows.row_nbytes, run, rows.files
        self.stored_nbytes = int(rows.stored_nbytes * self.shape[0] / n)
        self.source = f"one in {stride} of {rows.source}"
        self._run = run

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.rows.columns

    def buffer(self, rows: int) -> Any:
        return self.rows.buffer(min(rows, self._run))

    def reader_nbytes(self, rows: int) -> float:
        # What is read is put together.
        return self.rows.reader_nbytes(rows) + rows * self.row_nbytes

    def release(self) -> None:
        self.rows.release()

    def locate(self, row: int) -> str:
        k = int(np.searchsorted(self._ends, row, side="right"))
        return self.rows.locate(int(self._starts[k] + row - (self._ends[k] - self._lengths[k])))

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        parts: list[Any] = []
        at = start
        while at < stop:
            k = int(np.searchsorted(self._ends, at, side="right"))
            first = int(self._starts[k] + at - (self._ends[k] - self._lengths[k]))
            count = int(min(self._ends[k], stop)) - at
            data: Any = self.rows.read(first, first + count, buffer).data
            at += count
            parts.append(data if at == stop and not parts else data.copy())
        if len(parts) == 1:
            return Block(start, parts[0])
        if not self.is_sparse:
            return Block(start, np.concatenate(parts))
        from leyden.rows.sparse import csr_block

        lengths = [np.diff(part.indptr) for part in parts]
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
        indices, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("indices", "data"))
        return Block(start, csr_block(values, indices, indptr, (stop - start, self.shape[1])))
