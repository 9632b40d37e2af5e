"""Designs whose columns are columns of the table: nothing is computed, and in memory nothing need be copied."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.rows.base import Block, Rows
from leyden.rows.encoding import numbers
from leyden.rows.table import TableRows


def named(target: Any, sides: Sequence[Any], weight: str | None, types: Mapping[str, Any]) -> NamedColumns | None:
    """The columns of a design by their names, where the sides of a formula are sums of columns of numbers."""
    found = [_names(side, types) for side in (target, *sides)]
    weighted = weight is None or (weight in types and _is_number(types[weight]))
    if None in found or found[0] is None or len(found[0]) != 1 or found[0][0] is None or not weighted:
        return None
    return NamedColumns(tuple(name for side in found[1:] for name in side or ()), found[0][0], weight)


def _names(side: Any, types: Mapping[str, Any]) -> list[str | None] | None:
    """The columns of a formula's side where each is a column of numbers, None for the intercept; else None."""
    found: list[str | None] = []
    for term in side:
        if len(term.factors) != 1:
            return None
        (factor,) = term.factors
        name, how = str(factor.expr), factor.eval_method.value
        if how == "literal" and name == "1":
            found.append(None)
        elif how == "lookup" and name in types and _is_number(types[name]):
            found.append(name)
        else:
            return None
    return found


def _is_number(type_: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_signed_integer(type_) or pa.types.is_float32(type_) or pa.types.is_float64(type_)


@dataclass(frozen=True)
class NamedColumns:
    """A design by the names of its columns in a table.

    Attributes
    ----------
    design : tuple of str or None
        None is a column of ones.
    target : str
    weight : str or None
    """

    design: tuple[str | None, ...]
    target: str
    weight: str | None

    def read(self, batches: Iterable[Any], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Rows of the design, target and weight, from so many rows in batches."""
        data, y = np.empty((rows, len(self.design))), np.empty(rows)
        weight = None if self.weight is None else np.empty(rows)
        for place, batch in _placed(batches):
            for j, name in enumerate(self.design):
                data[place, j] = 1.0 if name is None else numbers(batch.column(name))
            y[place] = numbers(batch.column(self.target))
            if weight is not None:
                weight[place] = numbers(batch.column(self.weight))
        return data, y, weight


class ColumnRows(Rows):
    """Rows of columns that are in memory: they are put side by side in the blocks that are read, and nowhere else.

    Parameters
    ----------
    table : TableRows
    named : NamedColumns
    columns : sequence of str
        What the columns are called.

    Attributes
    ----------
    target : ndarray of float64, shape (n,)
    weight : ndarray of float64, shape (n,), or None
    """

    in_memory = True

    def __init__(self, table: TableRows, named: NamedColumns, columns: Sequence[str]):
        n, weight = table.shape[0], named.weight
        self.table, self.columns, self.source = table, tuple(columns), table.source
        self.shape, self.dtype = (n, len(columns)), np.dtype(np.float64)
        self.targets, self.has_weight = (named.target,), weight is not None
        self.row_nbytes = 8.0 * (len(columns) + 1 + self.has_weight)
        self.stored_nbytes = int(n * self.row_nbytes)
        held = _held(table, [name for name in (*named.design, named.target, weight) if name is not None])
        self.target = np.ascontiguousarray(held[named.target], np.float64)
        self.weight = None if weight is None else np.ascontiguousarray(held[weight], np.float64)
        self._columns = [np.ones(1) if name is None else held[name] for name in named.design]

    def parts(self, columns: Sequence[int]) -> tuple[np.ndarray, ...]:
        """Some of the columns, shape (n, 1) each."""
        n = self.shape[0]
        return tuple(np.broadcast_to(self._columns[j], n)[:, None] for j in columns)

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        data = np.empty((stop - start, self.shape[1]))
        for j, part in enumerate(self.parts(range(self.shape[1]))):
            data[:, j] = part[start:stop, 0]
        weight = None if self.weight is None else self.weight[start:stop]
        return Block(start, data, self.target[start:stop, None], weight)

    def locate(self, row: int) -> str:
        return self.table.locate(row)


def _held(table: TableRows, names: Collection[str]) -> dict[str, np.ndarray]:
    """Columns of a table in memory: as they lie there, or else read."""
    found = {name: values for name in names if (values := table.view(name)) is not None}
    missing = [name for name in names if name not in found]
    if missing:
        found |= {name: np.empty(table.shape[0]) for name in missing}
        for place, batch in _placed(table.batches(0, table.shape[0])):
            for name in missing:
                found[name][place] = numbers(batch.column(name))
        table.release()
    return found


def _placed(batches: Iterable[Any]) -> Iterator[tuple[slice, Any]]:
    """Batches, each with the place of its rows among those of all."""
    first = 0
    for batch in batches:
        yield slice(first, first + batch.num_rows), batch
        first += batch.num_rows
