"""Ratings in a folder of plain files, which any program that reads NumPy's format can read.

====================  ===========================================================================================
``ratings.json``      format, shape, count, what was counted, and length, type and CRC-32 of every plane
``items.low.npy``     uint16 a rating: the low half of its item's number; users one after another
``items.high.npy``    uint8 or uint16 a rating: the high half; not there when there are at most 65,536 items
``values.npy``        a rating: uint8 place of its value in ``levels.npy``, or float32; not there when all are 1
``levels.npy``        float32: the different values, when they are at most 256
``counts.npy``        uint8, uint16 or uint32 a user: how many ratings
``starts.npy``        int64 for every 4096th user: the place of the first rating
``item_counts.npy``   int64 an item
``users.arrow``       ids of users by number, in order; not there when they are the numbers
``items.arrow``       ids of items by number, and the numbers in the order of ids; not there when they are the numbers
``held_out/``         ratings set apart: the same files but the ids
====================  ===========================================================================================

A rating takes 2 to 5 bytes, or 6 to 8 with more than 256 different values. Nothing counts in less than 64 bits but what
is said here: a user may have 2³² − 1 ratings, and there may be 2³¹ − 1 items.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows._ratings_kernels import join_halves, look_up, widen
from leyden.rows.base import Block
from leyden.rows.ids import Ids
from leyden.rows.ratings import MAX_LEVELS, RATING_NBYTES, Ratings, Summary, pointer_type
from leyden.rows.ratings_folder import DOCUMENT, HELD_OUT
from leyden.rows.sparse import csr_block
from leyden.rows.stored import StoredArray

FORMAT = 1

#: Users between two entries of ``starts.npy``.
STEP = 4096

#: Ratings decoded at once: what is read of them stays in the second-level cache until it is decoded.
CHUNK = 2**16

#: Blocks that may be in memory at once: one being used, two read ahead.
BLOCKS_HELD = 3

#: Groups of STEP users that make a stretch: as a whole, about the longest block that anybody reads.
STRETCH = 16


class StoredRatings(Ratings):
    """Ratings in the folder of a store.

    Parameters
    ----------
    folder : path
    parent : StoredRatings, optional
        Whose users and items these are.

    Raises
    ------
    DataError
        If it is no store, is of another version of the format, or files are missing, shortened or of another kind.
    """

    decodes = True

    def __init__(self, folder: str | os.PathLike, *, parent: StoredRatings | None = None):
        self.folder = Path(folder).expanduser()
        self.source = str(self.folder)
        document = read_document(self.folder)
        try:
            self._describe(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise self._damaged(DOCUMENT, f"{type(error).__name__}: {error}") from None
        users, items = self.shape
        if parent is None:
            self.users = self._ids("user", users, document["users"])
            self.items = self._ids("item", items, document["items"])
        else:
            self.users, self.items = parent.users, parent.items
        if document["held_out"]:
            self.held_out = StoredRatings(self.folder / HELD_OUT, parent=self)

    def _describe(self, document: dict[str, Any]) -> None:
        users, items = (int(length) for length in document["shape"])
        self.shape, self.count, self.max_count = (users, items), int(document["count"]), int(document["max_count"])
        self.popular, self.identity = bool(document["popular"]), str(document["identity"])
        self.summary = Summary(**document["summary"])
        self._planes = {name: self._plane(name, about) for name, about in document["planes"].items()}
        lengths = {"items.low": self.count, "counts": users, "starts": -(-users // STEP), "item_counts": items}
        for name, length in lengths.items():
            if len(self._planes[name]) != length:
                raise self._damaged(f"{name}.npy", f"it holds {len(self._planes[name]):,} numbers of {length:,}")
        self._starts = self._planes["starts"][:]
        self.levels = self._planes["levels"][:] if "levels" in self._planes else None
        self._table = np.full(MAX_LEVELS, np.nan, np.float32)
        if self.levels is not None:
            self._table[: len(self.levels)] = self.levels
        elif "values" not in self._planes:
            self.levels = np.ones(1, np.float32)
        self.files = (str(self.folder / DOCUMENT), *(plane.path for plane in self._planes.values()))
        read = [
            plane for name, plane in self._planes.items() if name in ("items.low", "items.high", "values", "counts")
        ]
        self.stored_nbytes = sum(len(plane) * plane.dtype.itemsize for plane in read)
        self.row_nbytes = RATING_NBYTES * self.count / users + 4
        self._slope, self._excess = _spread(self._starts, self.count, users, self.max_count)

    def _plane(self, name: str, about: dict[str, Any]) -> StoredArray:
        plane = StoredArray(self.folder / f"{name}.npy", " of the ratings")
        if plane.shape != (about["length"],) or plane.dtype != np.dtype(about["dtype"]):
            raise self._damaged(f"{name}.npy", f"it holds {plane.dtype} of shape {plane.shape}")
        return plane

    def _ids(self, what: str, length: int, kind: str) -> Ids:
        if kind == "number":
            return Ids.identity(length, what)
        return Ids.read(self.folder / f"{what}s.arrow", what, length)

    def _damaged(self, file: str, why: str) -> DataError:
        return DataError(
            f"this file of the ratings is damaged ({why})",
            where=str(self.folder / file),
            hint="Ingest the data again.",
        )

    # ---------------------------------------------------------------- reading

    @property
    def item_counts(self) -> np.ndarray:  # type: ignore[override]
        """Read when it is first asked for."""
        if "_item_counts" not in self.__dict__:
            counts = self._planes["item_counts"][:]
            if int(counts.sum()) != self.count:
                raise self._damaged("item_counts.npy", "the counts have another sum")
            self._item_counts = counts
        return self._item_counts

    def buffer(self, rows: int) -> Memory:
        return Memory(rows, int(min(self.count, 1.25 * rows * self.count / self.shape[0] + CHUNK)))

    def reader_nbytes(self, rows: int) -> float:
        longer = rows * self._slope + self._excess
        return BLOCKS_HELD * (RATING_NBYTES * longer + 5 * CHUNK) + 4 * (rows + STEP)

    def user_counts(self, start: int, stop: int) -> np.ndarray:
        return self._planes["counts"][start:stop].astype(np.int64)

    def row(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        first, counts = self._counts(user, user + 1)
        return self._ratings(first, int(counts[0]), Memory(1, int(counts[0])))

    def read(self, start: int, stop: int, buffer: Memory | None = None) -> Block:
        first, counts = self._counts(start, stop)
        total = int(counts.sum(dtype=np.int64))
        memory = buffer if buffer is not None else Memory(stop - start, total)
        pointers = memory.pointers(stop - start, total)
        np.cumsum(counts, dtype=pointers.dtype, out=pointers[1:])
        self._check_pointers(start, stop, first, pointers)
        items, values = self._ratings(first, total, memory)
        return Block(start, csr_block(values, items, pointers, (stop - start, self.shape[1])))

    def _counts(self, start: int, stop: int) -> tuple[int, np.ndarray]:
        """The place of the first rating of user ``start``, and how many each user up to ``stop`` has."""
        group = start // STEP
        counts = self._planes["counts"][group * STEP : stop]
        before = start - group * STEP
        return int(self._starts[group]) + int(counts[:before].sum(dtype=np.int64)), counts[before:]

    def _check_pointers(self, start: int, stop: int, first: int, pointers: np.ndarray) -> None:
        """Refuse counts that do not lead from one of the known starts to the next."""
        groups = np.arange(-(-start // STEP), -(-stop // STEP))
        wrong = self._starts[groups] != first + pointers[groups * STEP - start].astype(np.int64)
        if wrong.any() or (stop == self.shape[0] and first + int(pointers[-1]) != self.count):
            raise self._damaged("counts.npy", f"the counts of users from {start:,} on have another sum")

    def _ratings(self, first: int, count: int, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        """Items and values of ``count`` ratings from place ``first`` on."""
        items, values = memory.fitting(count)
        for begin in range(0, count, CHUNK):
            part = slice(begin, min(begin + CHUNK, count))
            self._decode(first + begin, items[part], values[part], memory)
        return items, values

    def _decode(self, first: int, items: np.ndarray, values: np.ndarray, memory: Memory) -> None:
        """Ratings from place ``first`` on, into these arrays."""
        m = len(items)
        low = self._planes["items.low"].read(first, memory.low[:m])
        if "items.high" in self._planes:
            plane = self._planes["items.high"]
            largest = join_halves(low, plane.read(first, memory.high.view(plane.dtype)[:m]), items)
        else:
            largest = widen(low, items)
        if largest >= self.shape[1]:
            raise self._damaged("items.low.npy", f"it names item {largest:,} of {self.shape[1]:,}")
        if "values" not in self._planes:
            values.fill(1)
        elif self.levels is None:
            self._planes["values"].read(first, values)
        else:
            look_up(self._planes["values"].read(first, memory.codes[:m]), self._table, values)

    def check(self) -> None:
        """Read every file and compare it with the checksum that was taken when it was written.

        Raises
        ------
        DataError
            If a number has changed.
        """
        for name, about in read_document(self.folder)["planes"].items():
            plane, found = self._planes[name], 0
            for start in range(0, len(plane), 2**22):
                found = zlib.crc32(plane[start : start + 2**22].data, found)
            if found != about["crc32"]:
                raise self._damaged(f"{name}.npy", "its checksum is not what it was")
        if self.held_out:
            self.held_out.check()  # type: ignore[attr-defined]


class Memory:
    """What blocks are read into: arrays that grow to what the largest block needs."""

    def __init__(self, rows: int, ratings: int):
        self._pointers = np.empty(rows + 1, np.int32)
        self._items, self._values = np.empty(ratings, np.int32), np.empty(ratings, np.float32)
        self.low, self.high = np.empty(CHUNK, np.uint16), np.empty(2 * CHUNK, np.uint8)
        self.codes = np.empty(CHUNK, np.uint8)

    def pointers(self, rows: int, ratings: int) -> np.ndarray:
        """An array for the pointers of so many rows, of which the first is set."""
        needed = pointer_type(ratings)
        if len(self._pointers) <= rows or self._pointers.dtype != needed:
            self._pointers = np.empty(max(rows + 1, len(self._pointers)), needed)
        pointers = self._pointers[: rows + 1]
        pointers[0] = 0
        return pointers

    def fitting(self, ratings: int) -> tuple[np.ndarray, np.ndarray]:
        """Arrays for the items and values of so many ratings."""
        if len(self._items) < ratings:
            del self._items, self._values
            self._items, self._values = np.empty(ratings, np.int32), np.empty(ratings, np.float32)
        return self._items[:ratings], self._values[:ratings]


def read_document(folder: Path) -> dict[str, Any]:
    """What ``ratings.json`` says, found to be of this format.

    Raises
    ------
    DataError
        If there is none, or it is damaged or of another version.
    """
    path = folder / DOCUMENT
    try:
        document = json.loads(path.read_text())
        version = document["format"]
    except FileNotFoundError:
        raise DataError(f"there are no ratings here: {DOCUMENT} is missing", where=str(folder)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"this is not a complete {DOCUMENT} ({error})", where=str(path), hint="Ingest the data again."
        ) from None
    if version != FORMAT:
        raise DataError(
            f"these ratings are in format {version}, of Leyden {document.get('leyden')}, and this one reads {FORMAT}",
            where=str(folder),
            hint="Ingest the data again.",
        )
    return dict(document)


def _spread(starts: np.ndarray, count: int, users: int, max_count: int) -> tuple[float, float]:
    """What a block of r users may have beyond r times the mean is at most r times the first number plus the second.

    An estimate: the densest stretch of users, and in it the densest group of them or the user with the most ratings.
    """
    mean = count / users
    if len(starts) < 2:
        return 0.0, float(max_count)
    ends = np.append(starts, count)
    length = min(STRETCH, len(starts))
    rows = np.minimum(np.arange(len(starts) + 1) * STEP, users)
    dense = float(((ends[length:] - ends[:-length]) / (rows[length:] - rows[:-length])).max())
    group = float((np.diff(ends) - dense * np.diff(rows)).max())
    return max(dense - mean, 0.0), max(group, float(max_count))
