"""Ratings: sparse rows whose rows are users, whose columns are items, and whose entries are what users made of items.

Items are numbered by how many ratings they have, the most popular first, so that what is often used stands together;
users are numbered in the order of their ids. :class:`MemoryRatings` are arrays, and
:class:`leyden.rows.ratings_store.StoredRatings` files; :func:`leyden.open_ratings` makes either from a table.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from leyden.rows.base import Block, Rows
from leyden.rows.ids import Ids
from leyden.rows.sparse import csr_block

#: Ratings in a block of :meth:`Ratings.blocks`.
BLOCK_RATINGS = 2**20

#: Different values that are worth keeping apart: the places of as many take one byte each.
MAX_LEVELS = 256

#: Bytes of a rating in a block: its item and its value.
RATING_NBYTES = 8


@dataclass(frozen=True)
class Summary:
    """What was counted while ratings were made from a table.

    Attributes
    ----------
    rows : int
        Rows read.
    duplicates : int
        Of these, those that were merged into others of the same user and item.
    users, items : int
    ratings : int
        Those that are left when the split has been made.
    held_out : int
    users_without, items_without : int
        Users, and items, without any of the ratings that are left.
    """

    rows: int
    duplicates: int
    users: int
    items: int
    ratings: int
    held_out: int = 0
    users_without: int = 0
    items_without: int = 0

    def to_json(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{self.rows:,} rows: {self.ratings:,} ratings of {self.items:,} items by {self.users:,} users"]
        if self.duplicates:
            parts.append(f"{self.duplicates:,} of the rows merged into others")
        if self.held_out:
            parts.append(f"{self.held_out:,} held out")
        if self.users_without or self.items_without:
            parts.append(f"{self.users_without:,} users and {self.items_without:,} items without a rating")
        return "; ".join(parts)


class Ratings(Rows):
    """Ratings of items by users, as sparse rows: float32 values, int32 items in increasing order.

    Attributes
    ----------
    shape : (int, int)
        Users and items.
    count : int
        Number of ratings.
    max_count : int
        Ratings of the user who has the most.
    levels : ndarray of float32, or None
        The different values in increasing order; None when they are more than 256, or not known.
    item_counts : ndarray of int64, shape (items,)
        Ratings of each item: decreasing where ``popular``.
    popular : bool
        Whether items are numbered by their count, those with as many by their ids.
    users, items : Ids
        What users and items are called in the data.
    held_out : Ratings or None
        Ratings that were set apart, of the same users and items.
    summary : Summary
    """

    is_sparse = True
    dtype = np.dtype(np.float32)

    count: int
    max_count: int
    levels: np.ndarray | None
    item_counts: np.ndarray
    popular: bool
    users: Ids
    items: Ids
    held_out: Ratings | None = None
    summary: Summary

    @abstractmethod
    def user_counts(self, start: int, stop: int) -> np.ndarray:
        """How many ratings each of these users has, int64."""

    @abstractmethod
    def row(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        """Items, int32, and values, float32, of the user of this number."""

    @cached_property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        """The id of each item as text, made when it is first asked for."""
        return tuple(map(str, self.items.take(np.arange(self.shape[1]))))

    def blocks(self, ratings: int | None = None) -> Iterator[Block]:
        """All users in blocks of about so many ratings, each of which is there until the next one is read."""
        rows = max(1, int((ratings or BLOCK_RATINGS) * self.shape[0] / max(self.count, 1)))
        buffer = self.buffer(min(rows, self.shape[0]))
        for start in range(0, self.shape[0], rows):
            yield self.read(start, min(start + rows, self.shape[0]), buffer)

    def save(self, folder: str | os.PathLike) -> Ratings:
        """Write these ratings, and those held out, as a store; in the place of one that is there already.

        Parameters
        ----------
        folder : path

        Returns
        -------
        Ratings
            Those of the store.

        Raises
        ------
        DataError
            If the folder cannot be written, or holds anything else.
        """
        from leyden.rows.ratings_writer import RatingsWriter

        both = [self, *([self.held_out] if self.held_out is not None else [])]
        most = max(ratings.max_count for ratings in both)
        with RatingsWriter(
            folder, items=self.shape[1], levels=_levels_of(both), max_count=most, popular=self.popular
        ) as writer:
            for block in self.blocks():
                writer.append_block(block)
            for block in self.held_out.blocks() if self.held_out is not None else ():
                writer.held_out.append_block(block)
            writer.users, writer.items, writer.summary = self.users, self.items, self.summary
        return writer.ratings

    def locate(self, row: int) -> str:
        return f"{self.source}, user {self.users.take([row])[0]}"

    def __repr__(self) -> str:
        users, items = self.shape
        held = f"; {self.held_out.count:,} held out" if self.held_out else ""
        return f"<Ratings {users:,} users × {items:,} items, {self.count:,} ratings from {self.source}{held}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "columns"}


class MemoryRatings(Ratings):
    """Ratings in memory.

    Parameters
    ----------
    indptr : ndarray of int64, shape (users + 1,)
    indices : ndarray of int32
        Items, in increasing order for each user.
    values : ndarray of float32
    users, items : Ids
    popular : bool
    levels : ndarray of float32, optional
    held_out : Ratings, optional
    summary : Summary, optional
    source : str
    """

    in_memory = True

    def __init__(
        self,
        indptr: np.ndarray,
        indices: np.ndarray,
        values: np.ndarray,
        users: Ids,
        items: Ids,
        *,
        popular: bool = False,
        levels: np.ndarray | None = None,
        held_out: Ratings | None = None,
        summary: Summary | None = None,
        source: str = "memory",
    ):
        self._indptr, self._indices, self._values = indptr, indices, values
        self.users, self.items, self.popular, self.levels, self.held_out = users, items, popular, levels, held_out
        self.source = source
        self.shape, self.count = (len(users), len(items)), len(indices)
        self.max_count = int(np.diff(indptr).max())
        self.item_counts = np.bincount(indices, minlength=len(items)).astype(np.int64, copy=False)
        self.summary = summary or Summary(self.count, 0, *self.shape, self.count)
        self.stored_nbytes = indptr.nbytes + indices.nbytes + values.nbytes
        self.row_nbytes = self.stored_nbytes / self.shape[0]

    def user_counts(self, start: int, stop: int) -> np.ndarray:
        return np.diff(self._indptr[start : stop + 1])

    def row(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self._indptr[user], self._indptr[user + 1])
        return self._indices[part], self._values[part]

    def read(self, start: int, stop: int, buffer: Any = None) -> Block:
        first, last = self._indptr[start], self._indptr[stop]
        pointers = self._indptr[start : stop + 1] - first
        data = csr_block(
            self._values[first:last],
            self._indices[first:last],
            pointers.astype(pointer_type(int(last - first)), copy=False),
            (stop - start, self.shape[1]),
        )
        return Block(start, data)


def _levels_of(several: list[Ratings]) -> np.ndarray | None:
    """The different values of several ratings; None when they are not known or too many."""
    every = np.empty(0, np.float32)
    for ratings in several:
        if ratings.levels is None:
            return None
        every = np.union1d(every, ratings.levels)
    return every if len(every) <= MAX_LEVELS else None


def pointer_type(ratings: int) -> type[np.signedinteger]:
    """The type of row pointers into so many ratings: that of the items when it is enough, as SciPy would have it."""
    return np.int32 if ratings <= np.iinfo(np.int32).max else np.int64
