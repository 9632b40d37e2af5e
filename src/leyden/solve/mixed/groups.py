"""Groups: which rows belong together, by the values of a column or of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.ids import Ids

#: What joins the names of combined groups.
JOIN = ":"

#: Rows at a time, where a column is gone through.
SLICE = 2**16


@dataclass(frozen=True)
class Groups:
    """Which group each row belongs to.

    Attributes
    ----------
    name : str
        Of the column, or of several joined by colons.
    codes : ndarray of int32, shape (n,)
        The number of each row's group; groups are numbered in the order of their ids.
    ids : Ids
        What the groups are called in the data.
    """

    name: str
    codes: np.ndarray
    ids: Ids

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> np.ndarray:
        """Rows of each group."""
        return np.bincount(self.codes, minlength=len(self))


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
    name = JOIN.join(name for name, _ in columns)
    codes, values = _combined(columns, source)
    return Groups(name, codes, Ids.of(values, name))


def known_codes(columns: Sequence[tuple[str, Any]], ids: Ids, source: str) -> np.ndarray:
    """The numbers that the groups of these rows have among ``ids``; −1 where there is no such group."""
    codes, values = _combined(columns, source)
    if (ids.kind == "text") != (values.dtype == object):
        return np.full(len(codes), -1)
    found: np.ndarray = ids.index(values, unknown=-1)[codes]
    return found


def _combined(columns: Sequence[tuple[str, Any]], source: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the combinations of values, and what they are called."""
    codes, values = _encode(*columns[0], source)
    if len(columns) > 1:
        values = np.array([str(value) for value in values], object)
    for other in columns[1:]:
        more, others = _encode(*other, source)
        pairs, inverse = np.unique(codes.astype(np.int64) * len(others) + more, return_inverse=True)
        first, second = np.divmod(pairs, len(others))
        values = np.array([f"{values[i]}{JOIN}{others[j]}" for i, j in zip(first, second, strict=True)], object)
        codes = inverse.astype(np.int32)
    return codes, values


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
    elif not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
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
    return codes, ordered.to_numpy() if integers else np.array(ordered.to_pylist(), object)


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
    if high - low > 4 * len(column) + 2**16:
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


def _slices(column: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """A column of whole numbers as int64, a slice at a time, and where each stands."""
    first = 0
    for chunk in column.chunks:
        values = np.from_dlpack(chunk)
        for start in range(0, len(values), SLICE):
            part = values[start : start + SLICE].astype(np.int64)
            yield slice(first + start, first + start + len(part)), part
        first += len(values)
