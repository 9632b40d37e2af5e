"""Rows over tables: named, typed columns turned into blocks of numbers.

A table comes in *pieces* (a row group of a Parquet file, a byte range of a CSV file, a whole table in memory), each
read from its start, batch by batch. ``TableRows`` finds the piece a row stands in and keeps, for each thread, a cursor
that reads on from where the last read ended. ``TableEncoder`` (:mod:`leyden.rows.encoding`) turns a batch into numbers.
A subclass says what the pieces are and yields their batches.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.base import Block, PerThread, Rows
from leyden.rows.encoding import (
    Survey,
    TableEncoder,
    categories_in,
    complete_rows,
    first_null,
    labels,
    numbers,
    sum_and_count,
    without_nulls,
)
from leyden.rows.schema import Choice
from leyden.rows.sparse import csr_block

if TYPE_CHECKING:
    import scipy.sparse as sp

# A batch is decoded whole before its numbers are written to the block: large enough that the cost of a call into
# Arrow vanishes, small enough to stay in the second-level cache together with what it is turned into.
BATCH_NBYTES = 2 << 20

# Memory for the scan at open that finds categories and nulls: no budget is known by then.
SURVEY_NBYTES = 256 << 20


class TableRows(Rows):
    """Rows of a table in pieces. A subclass yields the batches of a piece and says where a row stands.

    Parameters
    ----------
    source : str
    counts : sequence of int
        Rows in each piece.
    choice : Choice
    """

    decodes = True

    def __init__(self, source: str, counts: Sequence[int], choice: Choice):
        self.source, self.choice = source, choice
        self._counts = np.asarray(counts, dtype=np.int64)
        self._local = PerThread()
        survey = self._survey()
        self._encoder = TableEncoder(choice, survey, source)
        self._starts = np.concatenate([[0], np.cumsum(self._counts if survey.kept is None else survey.kept)])
        n = int(self._starts[-1])
        if n == 0:
            why = "no row is left: each holds a null" if self._counts.sum() else "the table is empty (0 rows)"
            raise DataError(why, where=source)
        self.columns, self.targets = self._encoder.columns, choice.targets
        if choice.labelled:
            self.labels = self._encoder.labels(choice.labelled[0])
        self.has_weight, self.has_group = choice.weight is not None, choice.group is not None
        self.shape, self.dtype, self.is_sparse = (n, len(self.columns)), choice.dtype, self._encoder.is_sparse
        roles = 8 * (len(choice.targets) + self.has_weight + self.has_group)
        self.row_nbytes = float(self._encoder.row_nbytes + roles)
        self._rows_at_once = self._batch_rows(choice.used, self.row_nbytes)
        self.piece_rows = _regular(self._starts)

    @abstractmethod
    def _batches(self, piece: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Every row of a piece, in order, in record batches of about ``rows`` rows."""

    @abstractmethod
    def _where(self, piece: int, row: int) -> str:
        """Where row ``row`` of a piece stands, for people."""

    @property
    def piece_starts(self) -> np.ndarray:
        """The first row of each piece, and at the end the number of rows."""
        return self._starts

    def _batch_rows(self, columns: Sequence[str], row_nbytes: float) -> int:
        """Rows in a batch of these columns that are to become rows of ``row_nbytes`` bytes."""
        return int(np.clip(BATCH_NBYTES / (8 * len(columns) + row_nbytes), 512, 65536))

    # ---------------------------------------------------------------- reading

    def buffer(self, rows: int) -> np.ndarray | None:
        return None if self.is_sparse else np.empty((rows, self.shape[1]), self.dtype)

    def reader_nbytes(self, rows: int) -> float:
        batch = (3 if self.is_sparse else 2) * self._rows_at_once * (8 * len(self.choice.used) + self.row_nbytes)
        return self._piece_nbytes() + batch + (rows * self.row_nbytes if self.is_sparse else 0)

    def _piece_nbytes(self) -> float:
        """Bytes that a thread holds of the piece it reads, besides a batch."""
        return 0.0

    def release(self) -> None:
        self._local.clear()

    def read(self, start: int, stop: int, buffer: np.ndarray | None = None) -> Block:
        m, cursor = stop - start, self._cursor_at(start)
        target = np.empty((m, len(self.targets))) if self.targets else None
        weight = np.empty(m) if self.has_weight else None
        groups: list[np.ndarray] = []
        parts: list[Any] = []
        dense = None if self.is_sparse else (np.empty((m, self.shape[1]), self.dtype) if buffer is None else buffer[:m])
        done = 0
        while done < m:
            batch = self._take(cursor, m - done)
            rows = slice(done, done + batch.num_rows)
            if self.choice.nulls != "drop":
                self._refuse_nulls(batch, start + done)
            if dense is None:
                parts.append(self._encoder.sparse(batch))
            else:
                self._encoder.dense(batch, dense[rows])
            if target is not None:
                for k, name in enumerate(self.targets):
                    labelled = name in self.choice.labelled
                    target[rows, k] = self._encoder.places(name, batch) if labelled else numbers(batch.column(name))
            if weight is not None:
                weight[rows] = numbers(batch.column(self.choice.weight))
            if self.choice.group is not None:
                groups.append(labels(batch.column(self.choice.group)))
            done += batch.num_rows
        data = dense if dense is not None else _stack(parts, self.shape[1])
        return Block(start, data, target, weight, np.concatenate(groups) if groups else None)

    def batches(self, start: int, stop: int) -> Iterator[Any]:
        """Rows ``start`` to ``stop`` as Arrow record batches of the columns chosen, not turned into numbers."""
        cursor = self._cursor_at(start)
        while start < stop:
            batch = self._take(cursor, stop - start)
            if self.choice.nulls != "drop":
                self._refuse_nulls(batch, start)
            start += batch.num_rows
            yield batch

    def view(self, column: str) -> np.ndarray | None:
        """A whole column of numbers as it lies in memory; None where it must be read, batch by batch."""
        return None

    def _cursor_at(self, row: int) -> Cursor:
        """This thread's cursor, moved to a row: onwards within a piece, otherwise from the start of its piece."""
        cursor = getattr(self._local, "cursor", None)
        piece = int(np.searchsorted(self._starts, row, side="right") - 1)
        if cursor is None or cursor.row > row or (cursor.row < row and cursor.piece != piece):
            cursor = self._local.cursor = Cursor(piece, int(self._starts[piece]))
        while cursor.row < row:
            self._take(cursor, row - cursor.row)
        return cursor

    def _take(self, cursor: Cursor, most: int) -> Any:
        """The next rows under a cursor, at least one and at most ``most``."""
        try:
            while cursor.rest is None or cursor.rest.num_rows == 0:
                if cursor.row >= self._starts[cursor.piece + 1]:
                    cursor.piece, cursor.batches = cursor.piece + 1, None
                    continue
                if cursor.batches is None:
                    cursor.batches = self._batches(cursor.piece, self.choice.used, self._rows_at_once)
                cursor.rest = next(cursor.batches, None)
                if cursor.rest is None:
                    raise self._changed(cursor.piece)
                if self.choice.nulls == "drop":
                    cursor.rest = without_nulls(cursor.rest)
            if cursor.row + cursor.rest.num_rows > self._starts[cursor.piece + 1]:
                raise self._changed(cursor.piece)
        except BaseException:
            # The iterator is in an unknown state: the next read starts the piece again.
            self._local.cursor = None
            raise
        batch = cursor.rest.slice(0, most)
        cursor.rest = cursor.rest.slice(batch.num_rows)
        cursor.row += batch.num_rows
        return batch

    def _changed(self, piece: int) -> DataError:
        return DataError(
            "the number of rows is not what it was when the file was opened",
            where=self._where(piece, 0),
            hint="The file changed under the run: open it again.",
        )

    def _refuse_nulls(self, batch: Any, first: int) -> None:
        """Raise for the first null in a batch that nothing can be done about; ``first`` is its first row's index."""
        choice = self.choice
        roles = [*choice.targets, choice.weight, choice.group]
        refused = choice.used if choice.nulls == "error" else [name for name in roles if name is not None]
        found = [(first_null(batch.column(name)), name) for name in refused if batch.column(name).null_count]
        if found:
            row, name = min(found, key=lambda pair: pair[0])
            if not choice.encode:
                hint = 'Fill such values first, or drop such rows with missing="drop".'
            elif choice.nulls == "error":
                hint = 'Open with nulls="mean" to fill such values or nulls="drop" to drop such rows.'
            else:
                hint = 'A target, weight or group is never filled: open with nulls="drop" to drop such rows.'
            what = "null" if choice.encode else "missing value (null or NaN)"
            raise DataError(f"{what} in column '{name}'", where=self.locate(first + row), hint=hint)

    def locate(self, row: int) -> str:
        piece = int(np.searchsorted(self._starts, row, side="right") - 1)
        inside = row - int(self._starts[piece])
        if self.choice.nulls == "drop":
            seen = 0
            for batch in self._batches(piece, self.choice.used, self._rows_at_once):
                kept = np.flatnonzero(complete_rows(batch))
                if inside < len(kept):
                    inside = seen + int(kept[inside])
                    break
                inside, seen = inside - len(kept), seen + batch.num_rows
        return self._where(piece, inside)

    # ---------------------------------------------------------------- one scan at open, when it is needed

    def _survey(self) -> Survey:
        """What must be known of the whole table beforehand: categories, means, and how many rows are dropped."""
        choice = self.choice
        means = [name for name in choice.features if name not in choice.categorical] if choice.nulls == "mean" else []
        total = Survey(
            {name: set() for name in (*choice.categorical, *choice.labelled)},
            dict.fromkeys(means, (0.0, 0)),
            [] if choice.nulls == "drop" else None,
        )
        columns = choice.used if choice.nulls == "drop" else (*choice.categorical, *choice.labelled, *means)
        if not columns:
            return total
        pieces = range(len(self._counts))
        threads = min(len(pieces), os.cpu_count() or 1, int(SURVEY_NBYTES / max(self._piece_nbytes(), 1)))
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            # In the order of the pieces, so that the sums are the same however many threads there are.
            for part in pool.map(lambda piece: self._survey_piece(piece, columns, means), pieces):
                total.add(part)
        return total

    def _survey_piece(self, piece: int, columns: Sequence[str], means: Sequence[str]) -> Survey:
        drop, named = self.choice.nulls == "drop", (*self.choice.categorical, *self.choice.labelled)
        found = Survey({name: set() for name in named}, dict.fromkeys(means, (0.0, 0)), [0] if drop else None)
        for batch in self._batches(piece, columns, self._batch_rows(columns, 0)):
            if drop:
                batch = without_nulls(batch)
            one = Survey(
                {name: categories_in(batch.column(name)) for name in named},
                {name: sum_and_count(batch.column(name)) for name in means},
            )
            found.add(one)
            if found.kept is not None:
                found.kept[0] += batch.num_rows
        return found


def _regular(starts: np.ndarray) -> int:
    """The length of pieces that begin at ``starts``; when they differ, of the piece that a row is in on average."""
    lengths = np.diff(starts)
    if (lengths[:-1] == lengths[0]).all() and lengths[-1] <= lengths[0]:
        return int(lengths[0])
    return int((lengths / starts[-1]) @ lengths)


@dataclass
class Cursor:
    """A place in a table: row ``row`` of the stream is the first of ``rest``, which stands in ``piece``."""

    piece: int
    row: int
    batches: Iterator[Any] | None = None
    rest: Any = None


def _stack(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], d: int) -> sp.csr_array:
    values, indices, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    small = max(d, len(values)) <= np.iinfo(np.int32).max
    indptr = np.concatenate([[0], np.cumsum(counts)])
    type_ = np.int32 if small else np.int64
    return csr_block(values, indices.astype(type_, copy=False), indptr.astype(type_), (len(counts), d))
