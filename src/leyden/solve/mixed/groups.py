"""Groups: which rows belong together, by the values of a column or of several.

Of a table whose codes fit into memory they are found at once (:func:`grouped`). Of a longer one only the ids are found,
in one pass (:func:`met`), and each block of rows looks its own up (:meth:`Groups.of_rows`): memory goes with the number
of groups alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from leyden.engine.budget import format_bytes
from leyden.errors import BudgetError, DataError
from leyden.rows.ids import Ids
from leyden.solve.mixed.distinct import Distinct

#: What joins the names of combined groups.
JOIN = ":"

#: Rows at a time, where a column is gone through.
SLICE = 2**16

#: Whole numbers lie near one another when they span no more than so many times their number.
NEAR = 4

#: Bytes of a name that is text, about.
NAME = 150


@dataclass(frozen=True)
class Groups:
    """Which group each row belongs to.

    Attributes
    ----------
    name : str
        Of the column, or of several joined by colons.
    codes : ndarray of int32, shape (n,), or None
        The number of each row's group; groups are numbered in the order of their ids. None when rows look it up.
    ids : Ids
        What the groups are called in the data.
    columns : tuple of str
        Whose values they are.
    """

    name: str
    codes: np.ndarray | None
    ids: Ids
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def of_rows(self, table: Any, source: str) -> np.ndarray:
        """The numbers of the groups of some rows, shape (m,).

        Raises
        ------
        DataError
            If one of them was not there when the groups were found.
        """
        if len(self.columns) == 1 and self._places is not None and _is_whole(table.column(self.columns[0]).type):
            low, places = self._places
            values = _all(table.column(self.columns[0])) - low
            inside = (values >= 0) & (values < len(places))
            codes = places[values] if inside.all() else np.where(inside, places[np.where(inside, values, 0)], -1)
        else:
            codes = known_codes([(name, table.column(name)) for name in self.columns], self.ids, source)
        if (codes < 0).any():
            raise DataError(
                f"a group of '{self.name}' was not there when the groups were found",
                where=source,
                hint="The data changed under the run: start it again.",
            )
        return codes

    @cached_property
    def _places(self) -> tuple[int, np.ndarray] | None:
        """Of ids that lie near one another, the first, and the number of each id from there on; −1 is none."""
        if self.ids.kind == "text":
            return None
        ids = self.ids.take(np.arange(len(self)))
        if int(ids[-1]) - int(ids[0]) > NEAR * len(ids) + SLICE:
            return None
        places = np.full(int(ids[-1]) - int(ids[0]) + 1, -1, np.int32)
        places[ids - ids[0]] = np.arange(len(ids), dtype=np.int32)
        return int(ids[0]), places

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_places"}


def grouped(columns: Sequence[tuple[str, Any]], source: str) -> Groups:
    """Groups by the combinations of values of columns.

    Parameters
    ----------
    columns : sequence of (str, pyarrow.ChunkedArray)
        Names, and the values without nulls.
    source : str

    Raises
    ------
    DataError
        If a column holds measurements or anything else that does not name groups.
    """
    codes, values = _combined(columns, source)
    return _named([name for name, _ in columns], codes, values)


def codes_of(groups: Sequence[Groups]) -> list[np.ndarray]:
    """The codes of all rows in each, which are in memory."""
    return [own.codes for own in groups if own.codes is not None]


def met(
    batches: Iterable[Any], grouping: Sequence[tuple[str, ...]], source: str, memory: int
) -> dict[tuple[str, ...], Groups]:
    """The groups that the rows of a stream belong to, without the codes of the rows.

    Parameters
    ----------
    batches : iterable of pyarrow.RecordBatch
    grouping : sequence of tuple of str
        The columns of each.
    source : str
    memory : int
        What the names of all groups may take.

    Raises
    ------
    BudgetError
        If they take more.
    """
    import pyarrow as pa

    numbers, names = {columns: Distinct() for columns in grouping}, {columns: set[Any]() for columns in grouping}
    for batch in batches:
        table = pa.Table.from_batches([batch])
        for columns in names:
            if len(columns) == 1 and _is_whole(table.column(columns[0]).type):
                numbers[columns].add(_all(table.column(columns[0])))
                continue
            _, parts = _parts([(name, table.column(name)) for name in columns], source)
            if len(parts) == 1 and parts[0].dtype != object:
                numbers[columns].add(parts[0])
            else:
                names[columns].update(zip(*(part.tolist() for part in parts), strict=True))
        if sum(own.nbytes for own in numbers.values()) + sum(NAME * len(own) for own in names.values()) > memory:
            raise BudgetError(
                f"the names of the groups do not fit into {format_bytes(memory)}", hint="Give more with memory=."
            )
    return {
        columns: _named(columns, None, _joined(_transposed(sorted(own))) if own else numbers[columns].values())
        for columns, own in names.items()
    }


def _named(columns: Sequence[str], codes: np.ndarray | None, values: np.ndarray) -> Groups:
    name = JOIN.join(columns)
    return Groups(name, codes, Ids.of(values, name), tuple(columns))


def _transposed(combinations: Sequence[tuple[Any, ...]]) -> list[np.ndarray]:
    """The parts of combinations, an array for each column."""
    return [np.array(part, object) for part in zip(*combinations, strict=True)]


def known_codes(columns: Sequence[tuple[str, Any]], ids: Ids, source: str) -> np.ndarray:
    """The numbers that the groups of these rows have among ``ids``; −1 where there is no such group."""
    codes, values = _combined(columns, source)
    if (ids.kind == "text") != (values.dtype == object):
        return np.full(len(codes), -1)
    found: np.ndarray = ids.index(values, unknown=-1)[codes]
    return found


def _combined(columns: Sequence[tuple[str, Any]], source: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the combinations of values, and what they are called."""
    codes, parts = _parts(columns, source)
    return codes, _joined(parts)


def _parts(columns: Sequence[tuple[str, Any]], source: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Codes of the combinations of values, and the values of each column in them, in increasing order."""
    codes, values = _encode(*columns[0], source)
    parts = [values]
    for other in columns[1:]:
        more, others = _encode(*other, source)
        pairs, inverse = np.unique(codes.astype(np.int64) * len(others) + more, return_inverse=True)
        first, second = np.divmod(pairs, len(others))
        parts = [*(part[first] for part in parts), others[second]]
        codes = inverse.astype(np.int32)
    return codes, parts


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """What combinations of values are called."""
    if len(parts) == 1:
        return parts[0]
    return np.array([JOIN.join(map(str, values)) for values in zip(*parts, strict=True)], object)


def _encode(name: str, column: Any, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes of a column's values, and the values in increasing order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        whole = column.cast(pa.float64())
        if not pc.all(pc.and_(pc.is_finite(whole), pc.equal(whole, pc.floor(whole)))).as_py():
            raise DataError(
                f"column '{name}' holds {kind}: its values are measurements, and name no groups",
                where=source,
                hint="Give a column of text or of whole numbers.",
            )
        column = _whole(name, column, source)
    elif pa.types.is_boolean(kind) or pa.types.is_uint64(kind):
        column = _whole(name, column, source)
    elif pa.types.is_temporal(kind):
        column = column.cast(pa.string())
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    ):
        raise DataError(f"column '{name}' holds {kind}, which names no groups", where=source)
    if pa.types.is_integer(column.type):
        found = _near(column)
        if found is not None:
            return found
    encoded = column.dictionary_encode().unify_dictionaries()
    values = encoded.chunk(0).dictionary
    order = np.asarray(pc.sort_indices(values))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    codes = np.concatenate([rank[np.asarray(chunk.indices)] for chunk in encoded.chunks])
    ordered = values.take(pa.array(order))
    integers = pa.types.is_integer(values.type)
    return codes, ordered.to_numpy().astype(np.int64) if integers else np.array(ordered.to_pylist(), object)


def _is_whole(type_: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(type_) and not pa.types.is_uint64(type_))


def _whole(name: str, column: Any, source: str) -> Any:
    """Whole numbers, or truth values, as int64."""
    import pyarrow as pa

    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        raise DataError(
            f"column '{name}' holds numbers beyond 64 bits with a sign, which name no groups",
            where=source,
            hint="Turn them into text.",
        ) from None


def _near(column: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Codes of whole numbers that lie near one another, found without a hash; None when they do not."""
    import pyarrow.compute as pc

    ends = pc.min_max(column)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    if high - low > NEAR * len(column) + SLICE:
        return None
    there = np.zeros(high - low + 1, bool)
    for _, values in _slices(column):
        there[values - low] = True
    rank = np.cumsum(there, dtype=np.int32)
    rank -= 1
    codes = np.empty(len(column), np.int32)
    for place, values in _slices(column):
        np.take(rank, values - low, out=codes[place])
    return codes, np.flatnonzero(there) + low


def _all(column: Any) -> np.ndarray:
    """A column of whole numbers as int64."""
    return np.concatenate([values for _, values in _slices(column)])


def _slices(column: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """A column of whole numbers as int64, a slice at a time, and where each stands."""
    first = 0
    for chunk in column.chunks:
        values = np.from_dlpack(chunk)
        for start in range(0, len(values), SLICE):
            part = values[start : start + SLICE].astype(np.int64)
            yield slice(first + start, first + start + len(part)), part
        first += len(values)
