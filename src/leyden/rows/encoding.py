"""Columns of a table turned into numbers: numeric ones as they are, categorical ones as indicators."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.schema import Choice

# A block of a wide one-hot table is mostly zeros. Below this width a dense block is small and BLAS is faster.
SPARSE_FROM_COLUMNS = 32


@dataclass
class Survey:
    """Categories and (sum, count) by column, and the rows kept of each piece; None when all are."""

    categories: dict[str, set] = field(default_factory=dict)
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    kept: list[int] | None = None

    def add(self, other: Survey) -> None:
        for name, values in other.categories.items():
            self.categories[name] |= values
        for name, (total, count) in other.sums.items():
            self.sums[name] = (self.sums[name][0] + total, self.sums[name][1] + count)
        if self.kept is not None and other.kept is not None:
            self.kept += other.kept


class TableEncoder:
    """Turns batches of a table into rows of numbers.

    Columns keep the order they were asked for in. A categorical column becomes one indicator for each of its categories
    in sorted order, named ``column=value``; a null has none of them. With ``drop_first`` the first category has none
    either, so that the indicators and an intercept are independent.
    """

    def __init__(self, choice: Choice, survey: Survey, source: str):
        self._choice, self.dtype = choice, choice.dtype
        self._categories = {name: in_order(values) for name, values in survey.categories.items()}
        self._known = _as_arrow(self._categories)
        self._fill: dict[str, float] = {}
        for name, (total, count) in survey.sums.items():
            if count == 0:
                raise DataError(
                    f"column '{name}' holds no value to take the mean of", where=source, hint="Leave it out."
                )
            self._fill[name] = total / count
        self._span: dict[str, tuple[int, int]] = {}  # positions of each feature's columns
        columns: list[str] = []
        for name in choice.features:
            names = self._columns_of(name)
            self._span[name] = (len(columns), len(columns) + len(names))
            columns += names
        if not columns:
            raise DataError("no columns are left: each categorical column holds one category", where=source)
        self.columns = tuple(columns)
        numeric = len(choice.features) - len(choice.categorical)
        encoded = len(columns) - numeric
        self.is_sparse = len(columns) > SPARSE_FROM_COLUMNS and encoded > len(columns) / 2
        entry = self.dtype.itemsize
        self.row_nbytes = (entry + 4) * len(choice.features) + 4 if self.is_sparse else entry * len(columns)

    def _columns_of(self, name: str) -> list[str]:
        if name not in self._categories:
            return [name]
        return [f"{name}={value}" for value in self._categories[name][self._choice.drop_first :]]

    def dense(self, batch: Any, out: np.ndarray) -> None:
        """Write the rows of a batch into ``out``."""
        with np.errstate(over="ignore"):  # an overflow becomes an infinity, which the sweep finds and locates
            for name, (first, end) in self._span.items():
                if name in self._categories:
                    codes = self._codes(name, batch)
                    out[:, first:end] = 0
                    there = np.flatnonzero(codes >= 0)
                    out[there, first + codes[there]] = 1
                else:
                    out[:, first] = numbers(batch.column(name), self._fill.get(name))

    def sparse(self, batch: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows of a batch as CSR: values, column indices, and the number of entries in each row."""
        shape = (batch.num_rows, len(self._span))
        small = np.int32 if len(self.columns) <= np.iinfo(np.int32).max else np.int64
        values, indices, there = np.ones(shape, self.dtype), np.empty(shape, small), np.empty(shape, bool)
        with np.errstate(over="ignore"):
            for j, (name, (first, _)) in enumerate(self._span.items()):
                if name in self._categories:
                    codes = self._codes(name, batch)
                    indices[:, j], there[:, j] = first + codes, codes >= 0
                else:
                    values[:, j], indices[:, j] = numbers(batch.column(name), self._fill.get(name)), first
                    there[:, j] = values[:, j] != 0
        return values[there], indices[there], there.sum(axis=1)

    def _codes(self, name: str, batch: Any) -> np.ndarray:
        """The position of each value among the column's indicators; negative when it has none."""
        return self.places(name, batch) - self._choice.drop_first

    def labels(self, name: str) -> tuple[str, ...]:
        """The categories of a column, in order."""
        return tuple(self._categories[name])

    def places(self, name: str, batch: Any) -> np.ndarray:
        """The position of each value among the column's categories; negative when it is none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column, known = batch.column(name), self._known[name]
        if len(known) == 0:
            return np.full(batch.num_rows, -1)

        def look_up(values: Any) -> np.ndarray:
            found = pc.index_in(values.cast(known.type), value_set=known, skip_nulls=True)
            return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

        if pa.types.is_dictionary(column.type):
            of_entry = np.append(look_up(column.dictionary), -1)
            codes = of_entry[column.indices.fill_null(len(of_entry) - 1).to_numpy(zero_copy_only=False)]
        else:
            codes = look_up(column)
        return codes


def in_order(values: set) -> list:
    """Categories sorted; whole numbers written as text are sorted as numbers."""
    numeric = all(isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value) for value in values)
    return sorted(values, key=(lambda value: (int(value), value)) if numeric else None)


def _as_arrow(categories: dict[str, list]) -> dict[str, Any]:
    if not categories:
        return {}
    import pyarrow as pa

    return {name: pa.array(values) for name, values in categories.items()}


def numbers(column: Any, fill: float | None = None) -> np.ndarray:
    """A numeric column as an array, its nulls replaced by ``fill`` (NaN when there is none)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    elif pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
        column = column.cast(pa.float64())
    if not column.null_count:
        return _plain(column)
    values = column.to_numpy(zero_copy_only=False)
    if fill is not None:
        values = np.where(pc.is_null(column).to_numpy(zero_copy_only=False), fill, values)
    return values


def _plain(column: Any) -> np.ndarray:
    """A column of numbers without nulls; unlike ``to_numpy`` this does not import pandas where it is installed."""
    import pyarrow as pa

    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    arrays = [np.from_dlpack(chunk) for chunk in chunks]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays) if arrays else column.to_numpy()


def labels(column: Any) -> np.ndarray:
    """A column of group labels: numbers, or text as Python strings."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.to_numpy(zero_copy_only=False)


def first_null(column: Any) -> int:
    """Index of the first null."""
    import pyarrow.compute as pc

    return int(np.argmax(pc.is_null(column).to_numpy(zero_copy_only=False)))


def categories_in(column: Any) -> set:
    """The different values of a column, without null."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        # The dictionary may have entries that no row uses.
        used = column.indices.unique().drop_null()
        return set(column.dictionary.take(used).to_pylist()) - {None}
    return set(column.unique().to_pylist()) - {None}


def without_nulls(batch: Any) -> Any:
    """The rows of a batch that hold no null."""
    import pyarrow as pa

    complete = complete_rows(batch)
    return batch if complete.all() else batch.filter(pa.array(complete))


def complete_rows(batch: Any) -> np.ndarray:
    """Whether each row of a batch holds no null."""
    import pyarrow.compute as pc

    complete = np.ones(batch.num_rows, bool)
    for column in batch.columns:
        if column.null_count:
            complete &= pc.is_valid(column).to_numpy(zero_copy_only=False)
    return complete


def sum_and_count(column: Any) -> tuple[float, int]:
    """What the mean of a column is made of."""
    # NaN and infinity are left to the sweep, which names their row; a mean made of them would name another.
    values = numbers(column.drop_null()).astype(np.float64, copy=False)
    finite = values[np.isfinite(values)]
    return float(finite.sum()), len(finite)
