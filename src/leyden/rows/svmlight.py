"""Rows over svmlight (libsvm) files, parsed by byte ranges."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.array import Roles
from leyden.rows.base import Block, PerThread, Rows
from leyden.rows.lines import Piece, cut, read_piece
from leyden.rows.remote import size
from leyden.rows.schema import float_dtype
from leyden.rows.sparse import csr_block, csr_rows, stack

if TYPE_CHECKING:
    import scipy.sparse as sp

# Parsing is slow beside reading: a piece is small, so that little of it is parsed in vain after a jump.
PIECE_NBYTES = 256 << 10

# Bytes of memory for a byte of text, while a piece is parsed and when entries are as short as "1:1 ".
PARSED = 16

NO_INDEX = np.iinfo(np.int64).max


class SvmlightRows(Rows):
    """One svmlight file or several, one after another; the labels are the target unless another is given.

    The files are parsed once when they are opened, piece by piece, to count rows and columns and to see whether column
    indices start at 0 or, as is usual, at 1.

    Parameters
    ----------
    paths : sequence of path
    target, weight, group : array_like, optional
        One value for each row.
    dtype : {"float64", "float32"}, optional
    source : str, optional
    """

    decodes = True
    is_sparse = True

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        target: Any = None,
        weight: Any = None,
        group: Any = None,
        dtype: Any = None,
        source: str | None = None,
    ):
        self._paths = [str(path) for path in paths]
        self.files = tuple(self._paths)
        self.source = source or ", ".join(self._paths)
        self.dtype = float_dtype(dtype or np.float64)
        self._local = PerThread()
        self._pieces: list[Piece] = []
        lowest, highest, entries = NO_INDEX, -1, 0
        for i, path in enumerate(self._paths):
            for part in self._scan(i, path):
                self._pieces.append(part.piece)
                lowest, highest, entries = min(lowest, part.lowest), max(highest, part.highest), entries + part.entries
        n = sum(piece.rows for piece in self._pieces)
        if n == 0:
            raise DataError("the table is empty (0 rows)", where=self.source)
        if highest < 0:
            raise DataError("no row has an entry, so there are no columns", where=self.source)
        self._base = 1 if lowest > 0 else 0
        d = highest + 1 - self._base
        self._starts = np.concatenate([[0], np.cumsum([piece.rows for piece in self._pieces])])
        self.shape, self.columns = (n, d), tuple(f"x{j}" for j in range(d))
        self._roles = Roles(target, weight, group, n, self.source)
        self.targets, self.column_target = self._roles.names or ("label",), self._roles.column_target
        self.has_weight, self.has_group = weight is not None, group is not None
        self.stored_nbytes = sum(size(path) for path in self._paths)
        self.row_nbytes = entries / n * (self.dtype.itemsize + 4) + 4 + 8 + self._roles.row_nbytes

    def reader_nbytes(self, rows: int) -> float:
        # The pieces of a block are parsed, each in lists that grow by doubling, and then put together.
        return PARSED * PIECE_NBYTES + 2 * rows * self.row_nbytes + self._roles.reader_nbytes(rows)

    def release(self) -> None:
        self._local.clear()

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        parts, labels, row = [], [], start
        while row < stop:
            k = int(np.searchsorted(self._starts, row, side="right") - 1)
            data, label = self._piece(k)
            rows = slice(row - int(self._starts[k]), min(stop, int(self._starts[k + 1])) - int(self._starts[k]))
            parts.append(csr_rows(data, rows.start, rows.stop))
            labels.append(label[rows])
            row += rows.stop - rows.start
        target, weight, group = self._roles.read(start, stop)
        if target is None:
            target = np.concatenate(labels)[:, None]
        return Block(start, stack(parts), target, weight, group)

    def _piece(self, k: int) -> tuple[sp.csr_array, np.ndarray]:
        """Piece ``k`` parsed; each thread keeps its last one, for the next read goes on in it."""
        held = getattr(self._local, "piece", None)
        if held is None or held[0] != k:
            piece = self._pieces[k]
            path = self._paths[piece.file]
            data, label = self._parse(read_piece(path, piece), piece)
            # sklearn counts in 64 bits, and its own format has 32.
            indices = data.indices.astype(np.int32) - np.int32(self._base)
            outside = len(indices) and (indices.min() < 0 or indices.max() >= self.shape[1])
            if data.shape[0] != piece.rows or outside:
                raise DataError("the file changed since it was opened", where=path, hint="Open it again.")
            pointers = data.indptr.astype(np.int32)
            held = self._local.piece = (k, csr_block(data.data, indices, pointers, (piece.rows, self.shape[1])), label)
        return held[1], held[2]

    def _parse(self, lines: bytes, piece: Piece) -> tuple[Any, np.ndarray]:
        from sklearn.datasets import load_svmlight_file

        try:
            # Indices stay as they are written; the base is subtracted afterwards.
            return load_svmlight_file(io.BytesIO(lines), dtype=self.dtype, zero_based=True)
        except (ValueError, OverflowError, IndexError) as error:
            raise self._unreadable(lines, piece) or DataError(
                f"the rows cannot be parsed ({error})", where=f"{self._paths[piece.file]}, row {piece.first:,}"
            ) from None

    def _unreadable(self, lines: bytes, piece: Piece) -> DataError | None:
        """The first line that cannot be parsed by itself."""
        from sklearn.datasets import load_svmlight_file

        row = piece.first
        for line in lines.splitlines():
            try:
                row += load_svmlight_file(io.BytesIO(line), zero_based=True)[0].shape[0]
            except (ValueError, OverflowError, IndexError) as error:
                return DataError(
                    f"this is not a row in svmlight format: {line[:60].decode(errors='replace')!r} ({error})",
                    where=f"{self._paths[piece.file]}, row {row:,}",
                    hint="A row is a label and index:value pairs with increasing indices.",
                )
        return None

    def _scan(self, i: int, path: str) -> Iterator[_Part]:
        first = 0
        for begin, lines in cut(path, 0, PIECE_NBYTES):
            data, _ = self._parse(lines, Piece(i, begin, begin + len(lines), first, 0))
            if rows := data.shape[0]:
                lowest, highest = (int(data.indices.min()), int(data.indices.max())) if data.nnz else (NO_INDEX, -1)
                yield _Part(Piece(i, begin, begin + len(lines), first, rows), lowest, highest, data.nnz)
            first += rows

    def locate(self, row: int) -> str:
        k = int(np.searchsorted(self._starts, row, side="right") - 1)
        piece = self._pieces[k]
        return f"{self._paths[piece.file]}, row {piece.first + row - int(self._starts[k]):,}"


@dataclass(frozen=True)
class _Part:
    """A piece, and what the scan found in it."""

    piece: Piece
    lowest: int
    highest: int
    entries: int
