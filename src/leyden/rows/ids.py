"""Ids: what users and items are called in the data, and the numbers they have in a matrix.

Ids are whole numbers of 64 bits or text, in memory or in an Arrow file that is mapped: a look-up is a bisection, which
touches few pages of it. Ids that are the numbers themselves take no memory at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from leyden.errors import DataError

#: Ids by number: an int64 array, or a ``pyarrow.LargeStringArray``.
Values: TypeAlias = "np.ndarray | Any"

#: Ids in a record batch of a file. The ends of batches are where a bisection changes from one to another.
BATCH_IDS = 2**20

_LARGEST = np.iinfo(np.int64).max


class Ids:
    """The ids of users, or of items, by number.

    Made by :meth:`identity`, :meth:`of` and :meth:`read`.

    Attributes
    ----------
    what : str
        What has these ids, for people: "user", "item".
    kind : str
        "number" (the ids are the numbers), "integer" or "text".

    Examples
    --------
    >>> from leyden.rows.ids import Ids
    >>> ids = Ids.of(["pear", "apple", "fig"], "item")
    >>> ids.index(["fig", "pear"])
    array([2, 0])
    >>> ids.take([1])
    array(['apple'], dtype=object)
    >>> ids.index(["plum"], unknown=-1)
    array([-1])
    """

    def __init__(self, what: str, length: int, kind: str, values: _Chunks | None, order: _Chunks | None = None):
        self.what, self.kind, self._length = what, kind, length
        self._path: str | None = None
        self._values, self._order = values, order

    @classmethod
    def identity(cls, length: int, what: str) -> Ids:
        """Ids 0, 1, 2, ..., which are the numbers."""
        return cls(what, int(length), "number", None)

    @classmethod
    def of(cls, values: Any, what: str, order: np.ndarray | None = None) -> Ids:
        """Ids by number, all different: whole numbers, or text.

        Parameters
        ----------
        values : array_like
        what : str
        order : ndarray, optional
            The numbers in the order of their ids; found here when it is not given.
        """
        values = as_values(values, what)
        if isinstance(values, np.ndarray) and np.array_equal(values, np.arange(len(values))):
            return cls.identity(len(values), what)
        ordered = _increasing(values)
        if not ordered and order is None:
            order = _sorting(values)
        kind = "integer" if isinstance(values, np.ndarray) else "text"
        return cls(what, len(values), kind, _Chunks([values]), None if ordered else _Chunks([order]))

    @classmethod
    def read(cls, path: str | os.PathLike, what: str, length: int) -> Ids:
        """The ids of a file that :meth:`write` or :class:`IdsWriter` wrote, left there until they are asked for.

        Raises
        ------
        DataError
            If there is no such file, or it does not hold so many ids.
        """
        ids = cls(what, length, "", None)
        ids._path = str(path)
        ids._open()
        return ids

    def write(self, path: str | os.PathLike) -> None:
        """Write an Arrow file with the columns ``id``, by number, and ``order``, the numbers in the order of their ids.

        Without ``order`` the ids themselves are in order. Nothing is written when the ids are the numbers.
        """
        if self.kind == "number":
            return
        values = self._mapped()
        with IdsWriter(path, self.what, ordered=self._order is None) as writer:
            for start in range(0, len(self), BATCH_IDS):
                rows = np.arange(start, min(start + BATCH_IDS, len(self)))
                writer.append(values.take(rows), None if self._order is None else self._order.take(rows))

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        kind = {"number": "numbered from 0", "integer": "with integer ids", "text": "with text ids"}[self.kind]
        return f"<Ids of {len(self):,} {self.what}s {kind}>"

    def take(self, numbers: Any) -> np.ndarray:
        """The ids of these numbers.

        Parameters
        ----------
        numbers : array_like of int, shape (m,)

        Returns
        -------
        ndarray of int64, or of str objects, shape (m,)

        Raises
        ------
        DataError
            If there is no such number.
        """
        numbers = np.atleast_1d(np.asarray(numbers))
        if numbers.dtype.kind not in "iu" and numbers.size:
            raise DataError(f"numbers of {self.what}s are whole numbers, not {numbers.dtype}")
        numbers = numbers.astype(np.int64, copy=False)
        outside = (numbers < 0) | (numbers >= len(self))
        if outside.any():
            raise DataError(f"there is no {self.what} number {numbers[outside][0]:,} among {len(self):,}")
        if self.kind == "number":
            return numbers.copy()
        taken = self._mapped().take(numbers)
        return taken if isinstance(taken, np.ndarray) else taken.to_numpy(zero_copy_only=False)

    def index(self, ids: Any, *, unknown: int | None = None) -> np.ndarray:
        """The numbers of these ids.

        Parameters
        ----------
        ids : array_like, shape (m,)
            Whole numbers or text, as they are in the data.
        unknown : int, optional
            What to give for an id that is not there.

        Returns
        -------
        ndarray of int64, shape (m,)

        Raises
        ------
        DataError
            If an id is not there and ``unknown`` is not given, or ids are not of this kind.
        """
        wanted = as_values(ids, self.what)
        if isinstance(wanted, np.ndarray) == (self.kind == "text") and len(wanted):
            has, given = ("text", "numbers") if self.kind == "text" else ("whole numbers", "text")
            raise DataError(f"{self.what}s have {has} for ids, and these are {given}")
        if len(wanted) == 0:
            return np.empty(0, np.int64)
        if self.kind == "number":
            found = (wanted >= 0) & (wanted < len(self))
            numbers = wanted
        else:
            self._mapped()
            numbers, found = self._bisect(wanted)
        if found.all():
            return numbers.astype(np.int64)
        if unknown is None:
            first = wanted[int(np.flatnonzero(~found)[0])]
            shown = first if isinstance(wanted, np.ndarray) else repr(first.as_py())
            raise DataError(
                f"{self.what} {shown} is not among the {len(self):,} {self.what}s",
                hint="Give unknown=-1 to get -1 for such ids.",
            )
        return np.where(found, numbers, np.int64(unknown))

    def order(self) -> np.ndarray:
        """The numbers in the order of their ids."""
        every = np.arange(len(self))
        if self.kind != "number":
            self._mapped()
        return every if self._order is None else self._order.take(every)

    def _bisect(self, wanted: Values) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of ids, and whether they are there."""
        if self._order is None and isinstance(wanted, np.ndarray):
            return self._mapped().search(wanted)
        n = len(self)
        low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), n)
        while (low < high).any():
            middle = (low + high) // 2
            before = _less(self._in_order(np.minimum(middle, n - 1)), wanted)
            low, high = np.where(before & (low < high), middle + 1, low), np.where(before, high, middle)
        place = np.minimum(low, n - 1)
        numbers = place if self._order is None else self._order.take(place).astype(np.int64)
        return numbers, (low < n) & _equal(self._in_order(place), wanted)

    def _in_order(self, places: np.ndarray) -> Values:
        """The ids at these places of their order."""
        return self._mapped().take(places if self._order is None else self._order.take(places))

    def _mapped(self) -> _Chunks:
        """The ids by number; of a file that has not been opened in this process, when they are first asked for."""
        if self._values is None:
            self._open()
        assert self._values is not None
        return self._values

    def _open(self) -> None:
        """Map the file."""
        import pyarrow as pa

        assert self._path is not None
        try:
            batches = list(_batches(self._path))
            columns = [batch.column("id") for batch in batches]
            self.kind = "integer" if pa.types.is_int64(columns[0].type) else "text"
            self._values = _Chunks([_plain(column) for column in columns])
            if "order" in batches[0].schema.names:
                self._order = _Chunks([batch.column("order").to_numpy() for batch in batches])
            there = sum(map(len, columns))
        except FileNotFoundError:
            raise DataError("there is no such file", where=self._path) from None
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise DataError(
                f"this is not a complete file of ids ({str(error).strip().splitlines()[0].rstrip('.')})",
                where=self._path,
                hint="It may be truncated: ingest the data again.",
            ) from None
        if there != len(self):
            raise DataError(f"the file holds {there:,} ids of {len(self):,}", where=self._path)

    def __getstate__(self) -> dict[str, Any]:
        dropped = ("_values", "_order") if self._path is not None else ()
        return {name: None if name in dropped else value for name, value in self.__dict__.items()}


class IdsWriter:
    """Writes ids by number into a file, or keeps them in memory, as they come.

    Parameters
    ----------
    path : path or None
        None keeps them in memory.
    what : str
    ordered : bool
        Whether they come in their order; if not, the order comes with them.

    Attributes
    ----------
    ids : Ids
        All of them, when the context has been left.
    """

    ids: Ids

    def __init__(self, path: str | os.PathLike | None, what: str, *, ordered: bool = True):
        self.path, self.what, self.ordered = None if path is None else Path(path), what, ordered
        self._parts: list[Values] = []
        self._orders: list[np.ndarray] = []
        self._held, self._length = 0, 0
        self._sink: Any = None
        self._ends: tuple[Any, Any] = (None, None)

    def __enter__(self) -> IdsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self.ids = self.close()
        elif self._sink is not None:
            self._sink.close()

    def append(self, values: Values, order: np.ndarray | None = None) -> None:
        """Add ids, int64 or ``LargeStringArray``, and their part of the order."""
        if not len(values):
            return
        first, last = self._ends if self._length else (values[0], None)
        if self.ordered and not _increasing(values, last):
            raise ValueError(f"the {self.what} ids do not come in order")
        self._ends = first, values[len(values) - 1]
        self._parts.append(values)
        if order is not None:
            self._orders.append(order)
        self._length += len(values)
        self._held += len(values)
        while self.path is not None and self._held >= BATCH_IDS:
            self._flush(BATCH_IDS)

    def close(self) -> Ids:
        """The ids; those that turn out to be the numbers leave no file."""
        first, last = self._ends
        if not self._length or (
            isinstance(first, np.integer) and self.ordered and (first, last) == (0, self._length - 1)
        ):
            if self._sink is not None and self.path is not None:
                self._sink.close()
                self.path.unlink()
            return Ids.identity(self._length, self.what)
        if self.path is None:
            return Ids.of(_concatenated(self._parts), self.what)
        while self._held:
            self._flush(min(BATCH_IDS, self._held))
        if self._sink is not None:
            self._sink.close()
        return Ids.read(self.path, self.what, self._length)

    def _flush(self, count: int) -> None:
        """Write ``count`` of the ids held as one batch."""
        import pyarrow as pa

        values = _concatenated(self._parts)
        columns = {"id": pa.array(values[:count]) if isinstance(values, np.ndarray) else values.slice(0, count)}
        if not self.ordered:
            order = np.concatenate(self._orders)
            columns["order"], self._orders = pa.array(order[:count]), [order[count:]]
        batch = pa.record_batch(columns)
        if self._sink is None:
            self._sink = pa.ipc.new_file(str(self.path), batch.schema)
        self._sink.write_batch(batch)
        self._parts, self._held = [values[count:]], self._held - count


class _Chunks:
    """An array in chunks of one length, the last one excepted."""

    def __init__(self, chunks: Sequence[Values]):
        self.chunks = list(chunks)
        self._step = max(len(self.chunks[0]), 1)

    def take(self, places: np.ndarray) -> Values:
        """The entries at these places."""
        if len(self.chunks) == 1:
            return _taken(self.chunks[0], places)
        which, order = places // self._step, np.argsort(places // self._step, kind="stable")
        parts = []
        for chunk in np.unique(which):
            mine = order[np.searchsorted(which[order], chunk) : np.searchsorted(which[order], chunk, side="right")]
            parts.append(_taken(self.chunks[chunk], places[mine] - chunk * self._step))
        back = np.empty(len(places), np.int64)
        back[order] = np.arange(len(places))
        return _taken(_concatenated(parts), back)

    def search(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of numbers in an increasing array, and whether they are there."""
        place, found = np.empty(len(wanted), np.int64), np.empty(len(wanted), bool)
        firsts = np.array([chunk[0] for chunk in self.chunks])
        which = np.maximum(np.searchsorted(firsts, wanted, side="right") - 1, 0)
        for k in np.unique(which):
            mine = which == k
            inside = np.minimum(np.searchsorted(self.chunks[k], wanted[mine]), len(self.chunks[k]) - 1)
            place[mine], found[mine] = k * self._step + inside, self.chunks[k][inside] == wanted[mine]
        return place, found


def as_values(values: Any, what: str) -> Values:
    """Ids as an int64 array or a ``LargeStringArray``; what is neither whole numbers nor text is refused."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return _from_arrow(values, what)
    if isinstance(values, str | int | np.integer):
        values = [values]
    # NumPy's own text loses zeros at the end, and is as wide as the longest.
    texts = isinstance(values, list | tuple) and len(values) > 0 and all(isinstance(value, str) for value in values)
    array = np.array(values, object) if texts else np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"the {what} ids have {array.ndim} dimensions, not one")
    if array.size == 0 or (array.dtype.kind in "iu" and (array.dtype != np.uint64 or array.max() <= _LARGEST)):
        return array.astype(np.int64, copy=False)
    if array.dtype.kind in "OUT":
        try:
            return _from_arrow(pa.array(array.tolist() if array.dtype.kind == "T" else array), what)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            pass
        except OverflowError:
            raise DataError(f"one of the {what} ids is beyond 64 bits") from None
    raise _neither(_called(array), what)


def _from_arrow(array: Any, what: str) -> Values:
    import pyarrow as pa
    import pyarrow.types as pt

    if pt.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.null_count:
        raise DataError(f"one of the {what} ids is null")
    try:
        if pt.is_integer(array.type):
            return array.cast(pa.int64()).to_numpy(zero_copy_only=False)
        if pt.is_string(array.type) or pt.is_large_string(array.type) or pt.is_string_view(array.type):
            return array.cast(pa.large_string())
    except pa.ArrowInvalid:
        pass
    raise _neither(array.type, what)


def _neither(kind: Any, what: str) -> DataError:
    return DataError(
        f"the {what} ids are {kind}, neither whole numbers of 64 bits nor text", hint="Convert them first."
    )


def _called(array: np.ndarray) -> str:
    if array.dtype.kind != "O":
        return str(array.dtype)
    return " and ".join(sorted({type(value).__name__ for value in array}))


def _plain(column: Any) -> Values:
    import pyarrow as pa

    return column.to_numpy() if pa.types.is_int64(column.type) else column


def _sorting(values: Values) -> np.ndarray:
    """The numbers in the order of their ids."""
    if isinstance(values, np.ndarray):
        return np.argsort(values, kind="stable")
    import pyarrow.compute as pc

    return pc.array_sort_indices(values).to_numpy().astype(np.int64)


def _increasing(values: Values, after: Any = None) -> bool:
    """Whether each id is larger than the one before it, and the first one than ``after``."""
    if isinstance(values, np.ndarray):
        return bool((values[1:] > values[:-1]).all() and (after is None or len(values) == 0 or values[0] > after))
    import pyarrow.compute as pc

    steps = pc.less(values.slice(0, max(len(values) - 1, 0)), values.slice(1))
    if after is not None and len(values) and not pc.less(after, values[0]).as_py():
        return False
    return bool(steps.to_numpy(zero_copy_only=False).all())


def _taken(values: Values, places: np.ndarray) -> Values:
    return values[places] if isinstance(values, np.ndarray) else values.take(_arrow(places))


def _concatenated(parts: Sequence[Values]) -> Values:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import pyarrow as pa

    return pa.concat_arrays(list(parts))


def _less(values: Values, than: Values) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values < than
    import pyarrow.compute as pc

    return pc.less(values, than).to_numpy(zero_copy_only=False)


def _equal(values: Values, to: Values) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values == to
    import pyarrow.compute as pc

    return pc.equal(values, to).to_numpy(zero_copy_only=False)


def _arrow(places: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(places)


def _batches(path: str) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(path) as mapped:
        file = pa.ipc.open_file(mapped)
        for i in range(file.num_record_batches):
            yield file.get_batch(i)
