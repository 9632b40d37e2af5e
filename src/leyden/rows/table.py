"""Rows over tables: named, typed columns turned into blocks of numbers.

A table comes in *pieces* (a row group of a Parquet file, a byte range of a CSV file, a whole table in memory), each
read from its start, batch by batch. ``TableRows`` finds the piece a row stands in and keeps, for each thread, a cursor
that reads on from where the last read ended. ``TableEncoder`` turns a batch into numbers: numeric columns as they are,
categorical ones as indicators. A subclass says what the pieces are and yields their batches.
"""

from __future__ import annotations

import os
import re
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from leyden.errors import DataError, OptionError
from leyden.rows.base import Block, Rows
from leyden.rows.mapped import unknown_column
from leyden.rows.sparse import csr_block

if TYPE_CHECKING:
    import scipy.sparse as sp

# A block of a wide one-hot table is mostly zeros. Below this width a dense block is small and BLAS is faster.
SPARSE_FROM_COLUMNS = 32

# A batch is decoded whole before its numbers are written to the block: large enough that the cost of a call into
# Arrow vanishes, small enough to stay in the second-level cache together with what it is turned into.
BATCH_NBYTES = 2 << 20

# Memory for the scan at open that finds categories and nulls: no budget is known by then.
SURVEY_NBYTES = 256 << 20


@dataclass(frozen=True)
class Choice:
    """What was asked of a table, its column names checked against the schema."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    weight: str | None
    group: str | None
    categorical: tuple[str, ...]
    drop_first: bool
    nulls: str
    dtype: np.dtype

    @cached_property
    def used(self) -> tuple[str, ...]:
        """Every column to read, once."""
        roles = (*self.targets, *(name for name in (self.weight, self.group) if name is not None))
        return tuple(dict.fromkeys((*self.features, *roles)))


def choose(
    schemas: Sequence[tuple[str, Any]],
    source: str,
    *,
    target: str | Sequence[str] | None = None,
    weight: str | None = None,
    group: str | None = None,
    columns: str | Sequence[str] | None = None,
    categorical: str | Sequence[str] | None = None,
    drop_first: bool = False,
    nulls: str = "error",
    dtype: Any = None,
) -> Choice:
    """Check the options of a table against the schema of each of its files, given as (path, pyarrow.Schema)."""
    schema = _types_by_column(schemas)
    if nulls not in ("error", "mean", "drop"):
        raise OptionError(f"nulls={nulls!r} is not known", hint='Choose "error", "mean" or "drop".')
    targets = _names(target)
    roles = [*targets, *(name for name in (weight, group) if name is not None)]
    if columns is None:
        # pandas saves its row labels as a column of this name.
        features = tuple(name for name in schema if name not in roles and not name.startswith("__index_level_"))
    else:
        features = _names(columns)
    named = _names(categorical) if categorical != "auto" else ()
    for name in (*roles, *features, *named):
        if name not in schema:
            raise unknown_column(name, schema, source)
    for name in features:
        if features.count(name) > 1:
            raise OptionError(f"column '{name}' is asked for twice", where=source)
        if name in targets:
            raise OptionError(f"column '{name}' is both a column and the target", where=source)
    if not features:
        raise OptionError("no columns are left beside the target, weight and group", where=source)
    for name in named:
        if name not in features:
            raise OptionError(f"categorical column '{name}' is not among the columns read", where=source)
    _check_agreement(schemas, (*features, *roles))
    if categorical == "auto":
        named = tuple(name for name in features if "text" in map(kind, schema[name]))
    for name in features:
        for type_ in schema[name]:
            _check_feature(name, type_, name in named, source)
    for name in (*targets, *([weight] if weight else [])):
        for type_ in schema[name]:
            if kind(type_) not in ("number", "null"):
                raise DataError(f"column '{name}' holds {type_}, not numbers", where=source)
    numeric = [type_ for name in features if name not in named for type_ in schema[name]]
    return Choice(features, targets, weight, group, named, drop_first, nulls, _block_dtype(numeric, dtype))


def _types_by_column(schemas: Sequence[tuple[str, Any]]) -> dict[str, list[Any]]:
    types: dict[str, list[Any]] = {}
    for path, schema in schemas:
        twice = {name for name in schema.names if schema.names.count(name) > 1}
        if twice:
            raise DataError(f"two columns are named '{min(twice)}'", where=path)
        for column in schema:
            known = types.setdefault(column.name, [])
            if column.type not in known:
                known.append(column.type)
    return types


def _check_agreement(schemas: Sequence[tuple[str, Any]], names: Sequence[str]) -> None:
    """Every file must have these columns, with the same kind of values; numbers of different types are one kind."""
    for name in names:
        first, type_ = next((path, schema.field(name).type) for path, schema in schemas if name in schema.names)
        for path, schema in schemas:
            if name not in schema.names:
                raise DataError(f"column '{name}' is missing, and {first} has it", where=path)
            other = schema.field(name).type
            if kind(other) != kind(type_) and "null" not in (kind(other), kind(type_)):
                raise DataError(f"column '{name}' holds {other}, and in {first} it holds {type_}", where=path)


def _names(names: str | Iterable[str] | None) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def kind(type_: Any) -> str:
    """ "number", "text", "null" (a column without any value), "time" or "other"."""
    import pyarrow.types as pt

    if pt.is_dictionary(type_):
        return kind(type_.value_type)
    if pt.is_integer(type_) or pt.is_floating(type_) or pt.is_boolean(type_) or pt.is_decimal(type_):
        return "number"
    if pt.is_string(type_) or pt.is_large_string(type_) or pt.is_string_view(type_):
        return "text"
    if pt.is_null(type_):
        return "null"
    return "time" if pt.is_temporal(type_) else "other"


def _check_feature(name: str, type_: Any, categorical: bool, source: str) -> None:
    import pyarrow.types as pt

    found = kind(type_)
    if found == "time":
        raise DataError(
            f"column '{name}' holds dates or times ({type_}), not numbers",
            where=source,
            hint="Turn it into numbers first (hours since a date, say), or leave it out with columns=[...].",
        )
    if found == "other":
        raise DataError(
            f"column '{name}' holds {type_}, not numbers", where=source, hint="Leave it out with columns=[...]."
        )
    if found == "text" and not categorical:
        raise DataError(
            f"column '{name}' holds text ({type_}), not numbers",
            where=source,
            hint=f"Add categorical=['{name}'] to encode it as indicators, or leave it out with columns=[...].",
        )
    if categorical and (pt.is_floating(type_) or pt.is_decimal(type_)):
        raise OptionError(
            f"column '{name}' holds {type_}: its values are measurements, not categories",
            where=source,
            hint="Leave it out of categorical=[...].",
        )


def _block_dtype(types: Iterable[Any], asked: Any) -> np.dtype:
    """float32 where it holds every numeric column exactly, float64 otherwise."""
    import pyarrow.types as pt

    if asked is not None:
        return float_dtype(asked)
    exact = (
        pt.is_float32,
        pt.is_float16,
        pt.is_int8,
        pt.is_int16,
        pt.is_uint8,
        pt.is_uint16,
        pt.is_boolean,
        pt.is_null,
    )
    values = [type_.value_type if pt.is_dictionary(type_) else type_ for type_ in types]
    return np.dtype(np.float32 if all(any(is_(type_) for is_ in exact) for type_ in values) else np.float64)


def float_dtype(asked: Any) -> np.dtype:
    """float32 or float64, from whatever names it."""
    try:
        dtype = np.dtype(asked)
    except TypeError:
        dtype = np.dtype(object)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise OptionError(f"dtype={asked!r} cannot be used", hint='Choose "float32" or "float64".')
    return dtype


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
        self._local = threading.local()
        survey = self._survey()
        self._encoder = TableEncoder(choice, survey, source)
        self._starts = np.concatenate([[0], np.cumsum(self._counts if survey.kept is None else survey.kept)])
        n = int(self._starts[-1])
        if n == 0:
            why = "no row is left: each holds a null" if self._counts.sum() else "the table is empty (0 rows)"
            raise DataError(why, where=source)
        self.columns, self.targets = self._encoder.columns, choice.targets
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
        self._local.__dict__.clear()

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
                    target[rows, k] = numbers(batch.column(name))
            if weight is not None:
                weight[rows] = numbers(batch.column(self.choice.weight))
            if self.choice.group is not None:
                groups.append(labels(batch.column(self.choice.group)))
            done += batch.num_rows
        data = dense if dense is not None else _stack(parts, self.shape[1])
        return Block(start, data, target, weight, np.concatenate(groups) if groups else None)

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
            if choice.nulls == "error":
                hint = 'Open with nulls="mean" to fill such values or nulls="drop" to drop such rows.'
            else:
                hint = 'A target, weight or group is never filled: open with nulls="drop" to drop such rows.'
            raise DataError(f"null in column '{name}'", where=self.locate(first + row), hint=hint)

    def locate(self, row: int) -> str:
        piece = int(np.searchsorted(self._starts, row, side="right") - 1)
        inside = row - int(self._starts[piece])
        if self.choice.nulls == "drop":
            seen = 0
            for batch in self._batches(piece, self.choice.used, self._rows_at_once):
                kept = np.flatnonzero(_complete(batch))
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
            {name: set() for name in choice.categorical},
            dict.fromkeys(means, (0.0, 0)),
            [] if choice.nulls == "drop" else None,
        )
        columns = choice.used if choice.nulls == "drop" else (*choice.categorical, *means)
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
        drop = self.choice.nulls == "drop"
        found = Survey(
            {name: set() for name in self.choice.categorical}, dict.fromkeys(means, (0.0, 0)), [0] if drop else None
        )
        for batch in self._batches(piece, columns, self._batch_rows(columns, 0)):
            if drop:
                batch = without_nulls(batch)
            one = Survey(
                {name: categories_in(batch.column(name)) for name in self.choice.categorical},
                {name: _sum_and_count(batch.column(name)) for name in means},
            )
            found.add(one)
            if found.kept is not None:
                found.kept[0] += batch.num_rows
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()


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
        numeric = len(choice.features) - len(self._categories)
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
        return codes - self._choice.drop_first


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

    complete = _complete(batch)
    return batch if complete.all() else batch.filter(pa.array(complete))


def _complete(batch: Any) -> np.ndarray:
    import pyarrow.compute as pc

    complete = np.ones(batch.num_rows, bool)
    for column in batch.columns:
        if column.null_count:
            complete &= pc.is_valid(column).to_numpy(zero_copy_only=False)
    return complete


def _sum_and_count(column: Any) -> tuple[float, int]:
    # NaN and infinity are left to the sweep, which names their row; a mean made of them would name another.
    values = numbers(column.drop_null()).astype(np.float64, copy=False)
    finite = values[np.isfinite(values)]
    return float(finite.sum()), len(finite)


def _stack(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], d: int) -> sp.csr_array:
    values, indices, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    small = max(d, len(values)) <= np.iinfo(np.int32).max
    indptr = np.concatenate([[0], np.cumsum(counts)])
    type_ = np.int32 if small else np.int64
    return csr_block(values, indices.astype(type_, copy=False), indptr.astype(type_), (len(counts), d))
