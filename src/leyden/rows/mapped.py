"""Rows with a map applied to every block while reading, and the simple maps."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.errors import OptionError
from leyden.rows.base import Block, RowMap, Rows
from leyden.rows.sparse import csr_block


class MappedRows(Rows):
    """The rows of another stream, each block passed through a :class:`RowMap`.

    Parameters
    ----------
    rows : Rows
    f : RowMap
    """

    decodes = True

    def __init__(self, rows: Rows, f: RowMap):
        self.rows, self.f = rows, f.bind(rows)
        self.columns = tuple(self.f.columns(rows.columns))
        self.shape = (rows.shape[0], len(self.columns))
        self.dtype = np.dtype(self.f.dtype(rows.dtype))
        self.is_sparse = self.f.sparse(rows.is_sparse)
        self.targets, self.column_target, self.labels = rows.targets, rows.column_target, rows.labels
        self.has_weight, self.has_group = rows.has_weight, rows.has_group
        self.source, self.stored_nbytes, self.files = rows.source, rows.stored_nbytes, rows.files
        self.held, self.piece_rows = rows.held, rows.piece_rows
        # The block of the source and the mapped one are in memory together, unless the first is a view.
        own = self.f.sparse_nbytes(rows) if self.is_sparse else float(self.shape[1] * self.dtype.itemsize)
        self.row_nbytes = own + (0 if rows.in_memory else rows.row_nbytes)

    def buffer(self, rows: int) -> tuple[Any, np.ndarray | None]:
        own = None if self.is_sparse else np.empty((rows, self.shape[1]), self.dtype)
        return self.rows.buffer(rows), own

    def reader_nbytes(self, rows: int) -> float:
        # A sparse map makes arrays as long as the block on the way to it.
        return self.rows.reader_nbytes(rows) + (rows * self.row_nbytes if self.is_sparse else 0)

    def release(self) -> None:
        self.rows.release()

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        inner, own = buffer if buffer is not None else (None, None)
        return self._mapped(self.rows.read(start, stop, inner), own)

    def _mapped(self, block: Block, own: np.ndarray | None) -> Block:
        if self.is_sparse:
            return self.f(block)
        if own is None:
            own = np.empty((block.rows, self.shape[1]), self.dtype)
        return self.f.into(block, own[: block.rows])

    def locate(self, row: int) -> str:
        return self.rows.locate(row)


@dataclass(frozen=True, eq=False)
class Scale(RowMap):
    """Columns shifted and scaled: ``x -> (x - shift) * scale``.

    Parameters
    ----------
    shift, scale : array_like, shape (d,) or scalar
        A sparse block cannot be shifted, for its zeros would not stay zero.
    """

    shift: Any = 0.0
    scale: Any = 1.0

    def bind(self, rows: Rows) -> Scale:
        d = rows.shape[1]
        shift, scale = self._for_columns(self.shift, "shift", d), self._for_columns(self.scale, "scale", d)
        if rows.is_sparse and shift.any():
            raise OptionError(
                "sparse rows cannot be shifted: every zero would become a stored number",
                where=rows.source,
                hint="Scale without a shift, and add an intercept instead of centering.",
            )
        return Scale(shift, scale)

    @staticmethod
    def _for_columns(values: Any, name: str, d: int) -> np.ndarray:
        array = np.asarray(values, dtype=np.float64)
        if array.ndim == 0:
            return np.full(d, array)
        if array.shape != (d,):
            raise OptionError(f"{name} has shape {array.shape} and the rows have {d:,} columns")
        return array

    def __call__(self, block: Block) -> Block:
        data = block.data
        if isinstance(data, np.ndarray):
            return self.into(block, np.empty(data.shape, self.dtype(data.dtype)))
        if np.any(self.shift):
            raise OptionError("sparse rows cannot be shifted: every zero would become a stored number")
        dtype = self.dtype(data.dtype)
        scaled = (data.data * np.broadcast_to(self.scale, data.shape[1])[data.indices]).astype(dtype, copy=False)
        return block.with_data(csr_block(scaled, data.indices, data.indptr, data.shape))

    def into(self, block: Block, out: np.ndarray) -> Block:
        # Shift and scale are float64: each operation is done in float64 and rounded once to the type of the block.
        data: Any = block.data
        np.subtract(data, self.shift, out=out, casting="same_kind")
        np.multiply(out, self.scale, out=out, casting="same_kind")
        return block.with_data(out)

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return columns

    def dtype(self, dtype: np.dtype) -> np.dtype:
        return dtype if np.dtype(dtype).kind == "f" else np.dtype(np.float64)


@dataclass(frozen=True)
class Intercept(RowMap):
    """A column of ones, named "intercept", after the others."""

    def __call__(self, block: Block) -> Block:
        data = block.data
        m, d = data.shape
        if isinstance(data, np.ndarray):
            return self.into(block, np.empty((m, d + 1), data.dtype))
        # The new entry is the last of each row: old entries of row i move i places.
        counts = np.diff(data.indptr)
        indptr = data.indptr + np.arange(m + 1, dtype=data.indptr.dtype)
        place = np.arange(data.indptr[-1]) + np.repeat(np.arange(m), counts)
        values = np.ones(indptr[-1], data.dtype)
        indices = np.full(indptr[-1], d, data.indices.dtype)
        values[place], indices[place] = data.data, data.indices
        return block.with_data(csr_block(values, indices, indptr, (m, d + 1)))

    def into(self, block: Block, out: np.ndarray) -> Block:
        out[:, :-1] = block.data
        out[:, -1] = 1
        return block.with_data(out)

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        if "intercept" in columns:
            raise OptionError("there is a column named 'intercept' already", hint="Add the intercept once.")
        return (*columns, "intercept")


class SelectColumns(RowMap):
    """Some of the columns, in the order asked for.

    Parameters
    ----------
    names : sequence of str or int
        Names, or positions (negative ones count from the end).
    """

    def __init__(self, names: Iterable[str | int]):
        self.names = tuple(names)
        self._positions: Any = None

    def bind(self, rows: Rows) -> SelectColumns:
        bound = SelectColumns(self.names)
        bound._positions = np.array(positions(self.names, rows.columns, rows.source), dtype=np.intp)
        return bound

    def __call__(self, block: Block) -> Block:
        data = block.data
        if self._positions is None:
            raise OptionError("the columns are not known yet", hint="Use rows.map(SelectColumns(...)).")
        if isinstance(data, np.ndarray):
            return self.into(block, np.empty((data.shape[0], len(self._positions)), data.dtype))
        chosen = data[:, self._positions]
        chosen.sort_indices()
        return block.with_data(chosen)

    def into(self, block: Block, out: np.ndarray) -> Block:
        data: Any = block.data
        first, count = self._positions[0], len(self._positions)
        if np.array_equal(self._positions, np.arange(first, first + count)):
            out[:] = data[:, first : first + count]
        else:
            # With the default mode NumPy would fill a copy of `out` first.
            np.take(data, self._positions, axis=1, out=out, mode="clip")
        return block.with_data(out)

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(columns[j] for j in positions(self.names, columns, None))


@dataclass(frozen=True)
class Cast(RowMap):
    """The same numbers in another floating-point type."""

    to: Any

    def __call__(self, block: Block) -> Block:
        with np.errstate(over="ignore"):  # an overflow becomes an infinity, which the sweep finds and locates
            return block.with_data(block.data.astype(self.to))

    def into(self, block: Block, out: np.ndarray) -> Block:
        data: Any = block.data
        with np.errstate(over="ignore"):
            np.copyto(out, data, casting="unsafe")
        return block.with_data(out)

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return columns

    def dtype(self, dtype: np.dtype) -> np.dtype:
        return np.dtype(self.to)


def positions(names: Iterable[str | int], columns: tuple[str, ...], source: str | None) -> list[int]:
    """Where these columns stand; an unknown or repeated one is refused, with the nearest names."""
    known = {name: j for j, name in enumerate(columns)}
    found: dict[int, None] = {}
    for name in names:
        if isinstance(name, str):
            if name not in known:
                raise unknown_column(name, columns, source)
            j = known[name]
        else:
            if not -len(columns) <= name < len(columns):
                raise OptionError(f"there is no column {name}: there are {len(columns):,}", where=source)
            j = int(name) % len(columns)
        if j in found:
            raise OptionError(f"column '{columns[j]}' is asked for twice", where=source)
        found[j] = None
    if not found:
        raise OptionError("no columns are left", where=source)
    return list(found)


def unknown_column(name: str, columns: Iterable[str], source: str | None) -> OptionError:
    """The error for a column that is not there."""
    columns = list(columns)
    near = difflib.get_close_matches(name, columns, n=3, cutoff=0.5)
    if near:
        hint = f"Did you mean {' or '.join(repr(other) for other in near)}?"
    else:
        shown = ", ".join(columns[:12]) + (", …" if len(columns) > 12 else "")
        hint = f"The columns are: {shown}."
    return OptionError(f"there is no column '{name}'", where=source, hint=hint)
