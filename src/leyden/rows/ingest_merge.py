"""From the rows of users in order to ratings: duplicates merged, some held out, items numbered by popularity.

Two passes. The first takes rows sorted by user, item (numbered in the order of their ids), time and row; it merges,
splits, counts, and keeps the ratings somewhere. When all are counted the numbers of items are known, and the second
numbers and sorts each user's items again. Ratings are drawn by the order of ids, which no split changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from leyden.errors import DataError, OptionError
from leyden.rows._ratings_kernels import draw, encode, last_of_users, merge, renumber, split_counts
from leyden.rows.base import Block
from leyden.rows.ids import Ids, Values
from leyden.rows.ratings import BLOCK_RATINGS, MAX_LEVELS, MemoryRatings, Ratings, Summary

#: What may be done about several ratings of one item by one user; first LAST, SUM and MEAN of the kernels.
RULES = ("last", "sum", "mean", "error")


@dataclass
class Batch:
    """Some users with all their rows, sorted by user, item, time and row.

    Attributes
    ----------
    counts : ndarray of int64, shape (m,)
        Rows of each user.
    items : ndarray of int32, shape (k,)
        Places of the items in the order of their ids.
    values : ndarray of float32, shape (k,)
    times : ndarray, shape (k,) or (0,)
    rows : ndarray of int64, shape (k,)
        Places of the rows in the source.
    """

    counts: np.ndarray
    items: np.ndarray
    values: np.ndarray
    times: np.ndarray
    rows: np.ndarray


class Sink(Protocol):
    """What ratings are appended to, user by user."""

    users: int
    count: int
    max_count: int
    item_counts: np.ndarray

    def append(self, counts: np.ndarray, items: np.ndarray, values: np.ndarray) -> None:
        """Add users."""


class MemorySink:
    """Keeps ratings in memory."""

    def __init__(self, items: int):
        self.users, self.count, self.max_count = 0, 0, 0
        self.item_counts = np.zeros(items, np.int64)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def append(self, counts: np.ndarray, items: np.ndarray, values: np.ndarray) -> None:
        """Add users; the arrays are kept."""
        self._parts.append((counts, items, values))
        self.item_counts += np.bincount(items, minlength=len(self.item_counts))
        self.users, self.count = self.users + len(counts), self.count + len(items)
        self.max_count = max(self.max_count, int(counts.max(initial=0)))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts, items and values of all users; only once."""
        counts, items, values = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        self._parts.clear()
        return counts, items, values


class Merge:
    """The first pass.

    Parameters
    ----------
    train, held : Sink
        What takes the ratings that are left, and those held out.
    duplicates : one of RULES
    holdout : float, "last" or None
    seed : int
    where : callable
        The place of a row in the source, for people.

    Attributes
    ----------
    rows, duplicates : int
        How many were read, and how many of these merged into others.
    levels : ndarray of float32, or None
        The different values, as long as they are few.
    """

    def __init__(
        self,
        train: Sink,
        held: Sink | None,
        duplicates: str,
        holdout: float | str | None,
        seed: int,
        where: Callable[[int], str],
    ):
        self._train, self._held, self._where = train, held, where
        self._rule, self._holdout, self._seed = RULES.index(duplicates), holdout, seed
        self.rows, self.duplicates, self._without = 0, 0, 0
        self.levels: np.ndarray | None = np.empty(0, np.float32)

    def add(self, batch: Batch) -> None:
        """Take the next users."""
        if RULES[self._rule] == "error":
            self._refuse_duplicates(batch)
        merged = self._merged(batch)
        self._note_levels(merged.values)
        self.rows += len(batch.items)
        self.duplicates += len(batch.items) - len(merged.items)
        if self._held is None:
            left = merged.counts
            self._train.append(left, merged.items, merged.values)
        else:
            held = self._drawn(merged)
            left, out = np.empty_like(merged.counts), np.empty_like(merged.counts)
            split_counts(merged.counts, held, left, out)
            self._train.append(left, merged.items[~held], merged.values[~held])
            self._held.append(out, merged.items[held], merged.values[held])
        self._without += int((left == 0).sum())

    def _merged(self, batch: Batch) -> Batch:
        """One rating for each item of a user."""
        parts = (batch.items, batch.values, batch.times, batch.rows)
        counts, out = batch.counts.copy(), [np.empty_like(part) for part in parts]
        kept = merge(counts, *parts, self._rule, *out)
        items, values, times, rows = (part[:kept] for part in out)
        if not np.isfinite(values).all():
            worst = int(rows[np.flatnonzero(~np.isfinite(values))[0]])
            raise DataError("the ratings merged into this one are beyond float32", where=self._where(worst))
        return Batch(counts, items, values, times, rows)

    def _drawn(self, batch: Batch) -> np.ndarray:
        """Which ratings are held out."""
        held = np.empty(len(batch.items), bool)
        if self._holdout == "last":
            last_of_users(batch.counts, batch.times, batch.rows, held)
        else:
            share = np.uint64(int(float(self._holdout or 0.0) * 2**64))
            draw(batch.counts, batch.items, self._train.users, np.uint64(self._seed), share, held)
        return held

    def _refuse_duplicates(self, batch: Batch) -> None:
        same = batch.items[1:] == batch.items[:-1]
        ends = np.cumsum(batch.counts)[:-1]
        same[ends[(ends > 0) & (ends < len(batch.items))] - 1] = False
        if same.any():
            first = int(np.flatnonzero(same)[0])
            raise DataError(
                f"this user rated this item before ({self._where(int(batch.rows[first]))})",
                where=self._where(int(batch.rows[first + 1])),
                hint='Give duplicates="last", "sum" or "mean" to make one rating of several.',
            )

    def _note_levels(self, values: np.ndarray) -> None:
        """Add to the levels what is not among them, until they are too many."""
        codes = np.empty(len(values), np.uint8)
        while self.levels is not None and len(values):
            new = encode(values, self.levels, codes) if len(self.levels) else 0
            if new < 0:
                return
            values = values[new:]
            self.levels = np.union1d(self.levels, values[:MAX_LEVELS])
            if len(self.levels) > MAX_LEVELS:
                self.levels = None

    def summary(self) -> Summary:
        """What was counted."""
        train, held = self._train, self._held.count if self._held else 0
        counts = train.item_counts
        return Summary(
            self.rows,
            self.duplicates,
            train.users,
            len(counts),
            train.count,
            held,
            self._without,
            int((counts == 0).sum()),
        )

    def check_split(self) -> None:
        """Refuse a split that leaves nothing on one of its sides."""
        if self._held is None:
            return
        total = self._train.count + self._held.count
        for side, what in ((self._held, "holds nothing out"), (self._train, "leaves nothing")):
            if side.count == 0:
                raise OptionError(
                    f"holdout={self._holdout!r} {what} of {total:,} ratings",
                    hint="Give another fraction, or another seed.",
                )


def popularity(counts: np.ndarray) -> np.ndarray:
    """Places of items in the order of their counts, the largest first, those with as many as they were."""
    return np.argsort(-counts, kind="stable")


def inverse(order: np.ndarray) -> np.ndarray:
    """The place of each number in an order."""
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    return number


def renumbered(ratings: Ratings, number: np.ndarray, threads: int) -> Iterator[Block]:
    """Blocks of ratings with ``number`` in place of their items, each there until the next one is asked for.

    Some are read and sorted ahead by ``threads`` threads.
    """
    rows = max(1, int(BLOCK_RATINGS * ratings.shape[0] / max(ratings.count, 1)))
    buffers = [ratings.buffer(rows) for _ in range(threads + 2)]

    def job(start: int, buffer: Any) -> Block:
        block = ratings.read(start, min(start + rows, ratings.shape[0]), buffer)
        data: Any = block.data
        _renumber(np.diff(data.indptr), data.indices, data.data, number)
        return block

    starts = range(0, ratings.shape[0], rows)
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Block]] = deque()
        for k, start in enumerate(starts):
            pending.append(pool.submit(job, start, buffers[k % len(buffers)]))
            # One buffer is being used by whom the last block was given to.
            if len(pending) == len(buffers) - 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _renumber(counts: np.ndarray, items: np.ndarray, values: np.ndarray, number: np.ndarray) -> None:
    longest = int(counts.max(initial=0))
    renumber(counts, items, values, number, np.empty(longest, np.uint64), np.empty(longest, np.float32))


def in_memory(sink: MemorySink, number: np.ndarray, users: Ids, items: Ids, **about: Any) -> MemoryRatings:
    """The second pass over ratings in memory."""
    counts, indices, values = sink.arrays()
    _renumber(counts, indices, values, number)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return MemoryRatings(indptr, indices, values, users, items, **about)


def popular_ids(ids: Values | None, order: np.ndarray, number: np.ndarray) -> Ids:
    """The ids of items by number, given those in order; None when they are 0, 1, 2, ..."""
    if ids is None:
        return Ids.of(order, "item", number)
    if isinstance(ids, np.ndarray):
        return Ids.of(ids[order], "item", number)
    import pyarrow as pa

    return Ids.of(ids.take(pa.array(order)), "item", number)


def sorted_again(ratings: Ratings, place: np.ndarray) -> Iterator[Batch]:
    """The users of ratings, each one's items in the order of their ids; ``place`` says where in it they stand."""
    nothing = np.empty(0, np.int64)
    for block in ratings.blocks():
        data: Any = block.data
        counts, items, values = np.diff(data.indptr).astype(np.int64), data.indices.copy(), data.data.copy()
        _renumber(counts, items, values, place)
        yield Batch(counts, items, values, nothing, np.arange(len(items)))
