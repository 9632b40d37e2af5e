"""``open_ratings``: from whatever holds ratings to :class:`leyden.Ratings`, in memory or in a store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leyden import options as check
from leyden.engine.budget import format_bytes, thread_count
from leyden.engine.progress import Progress
from leyden.errors import BudgetError, DataError, OptionError
from leyden.rows.ids import Ids, IdsWriter, Values, as_values
from leyden.rows.ingest_merge import (
    RULES,
    Batch,
    MemorySink,
    Merge,
    in_memory,
    inverse,
    popular_ids,
    popularity,
    renumbered,
    sorted_again,
)
from leyden.rows.ingest_sorting import remove, sorting
from leyden.rows.ingest_tables import Names, Table, of_arrays, of_files, of_frame, of_matrix
from leyden.rows.open import are_paths, is_frame, is_path
from leyden.rows.ratings import Ratings, Summary
from leyden.rows.ratings_folder import beside, free_place, seems_store
from leyden.rows.ratings_store import StoredRatings
from leyden.rows.ratings_writer import Planes, RatingsWriter
from leyden.rows.sparse import is_sparse

#: Of the budget, what DuckDB is given: the rest is for batches on their way, and for items.
SORTING_SHARE = 0.7

#: Bytes of memory for a rating while it is numbered in memory: as it came, and put together.
RATING_NBYTES = 16

#: Bytes of memory for an item: its count, its place, its number, its id.
ITEM_NBYTES = 48


def open_ratings(
    source: Any,
    *,
    user: str = "user",
    item: str = "item",
    value: str | None = None,
    time: str | None = None,
    duplicates: str | None = None,
    holdout: float | str | None = None,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    memory: str | int | None = None,
    threads: int | None = None,
    progress: bool | None = None,
) -> Ratings:
    """Open ratings of items by users, as sparse rows: in memory, or in a store that is written.

    Users are numbered in the order of their ids, and items by how many ratings they have, the most popular first, those
    with as many by their ids. Ids are whole numbers or text; in a CSV file they are numbers when every id of the column
    is written as a number is.

    Parameters
    ----------
    source : path, glob or list of paths; table; arrays; sparse matrix; or Ratings
        The folder of a store, which is opened as it is. Parquet or CSV files, read in the order of their names. A
        ``pyarrow.Table``, or a data frame of pandas or polars. A tuple of arrays: users, items and, if there are any,
        values and times. A SciPy matrix whose rows are users: every stored entry is a rating, and its shape is kept.
    user, item : str
        The columns of a table that hold the ids.
    value : str, optional
        The column that holds the ratings, kept as float32. By default the column "value", or else "rating"; where there
        is neither, every rating is 1.
    time : str, optional
        The column that says which rating is later: numbers, dates or times.
    duplicates : {"last", "sum", "mean", "error"}, optional
        What to make of several ratings of one item by one user: the last of them by time, and of those of one time, or
        without times, the last in the source; their sum; their mean; or an error. By default the last, and of a sparse
        matrix the sum, which is what it means there.
    holdout : float or "last", optional
        Ratings to hold out, in ``held_out``: each with this probability, by a hash of the seed, the user and the place
        of the item in the order of ids; or the last of each user, by time or in the source.
    seed : int
    out : path, optional
        A folder for the store: of files only what fits into memory is there at once. A store that is there already
        gives way when the new one is complete; anything else is left alone.
    memory : str or int, optional
        Budget, as ``"2GB"`` or bytes; half of the free memory by default.
    threads : int, optional
        By default all processors.
    progress : bool, optional
        Show what is being done; None does so on a terminal.

    Returns
    -------
    Ratings

    Raises
    ------
    DataError
        If a row has a null, an id that is none, or a value that is NaN or infinite; if files are damaged; or if the
        store cannot be written. What was there before is still there.
    OptionError
        If a column does not exist, or an option cannot be used.
    BudgetError
        If the ratings do not fit into memory, or cannot be sorted in it.

    Examples
    --------
    >>> import leyden as ly
    >>> ratings = ly.open_ratings((["ann", "bob", "ann"], ["tea", "tea", "milk"], [5, 3, 4]))
    >>> ratings
    <Ratings 2 users × 2 items, 3 ratings from arrays>
    >>> ratings.items.take([0, 1])
    array(['tea', 'milk'], dtype=object)
    >>> ratings.read(0, 2).data.toarray()
    array([[5., 4.],
           [3., 0.]], dtype=float32)
    """
    how = _How(
        None if duplicates is None else check.one_of("duplicates", duplicates, RULES),
        _holdout(holdout),
        check.seed(seed),
        None if out is None else free_place(out),
        check.memory(memory),
        check.threads(threads) or thread_count(),
        Progress(check.progress(progress)),
    )
    names = Names(user, item, value, time)
    if is_path(source) and seems_store(source):
        source = StoredRatings(source)
    if isinstance(source, Ratings):
        return _again(source, names, how)
    if are_paths(source):
        return _from_table(of_files(source, names), how)
    if is_frame(source):
        return _from_table(of_frame(source, names), how)
    if is_sparse(source):
        return _from_table(of_matrix(source), how)
    if isinstance(source, tuple) and 2 <= len(source) <= 4:
        return _from_table(of_arrays(source, names), how)
    raise DataError(
        f"a {type(source).__name__} cannot be seen as ratings",
        hint="Give files, a table, a tuple of arrays (users, items, values), a sparse matrix, or a store.",
    )


def _holdout(value: Any) -> float | str | None:
    """A share, "last" or None."""
    if value is None or (isinstance(value, str) and value == "last"):
        return value
    if isinstance(value, str):
        raise OptionError(f'holdout={value!r} must be a number between 0 and 1, or "last"')
    return check.fraction("holdout", value)


@dataclass(frozen=True)
class _How:
    """The options, checked."""

    duplicates: str | None
    holdout: float | str | None
    seed: int
    out: Path | None
    memory: int
    threads: int
    progress: Progress

    def check_fits(self, ratings: int, items: int) -> None:
        """Refuse ratings that would not fit into memory, or items that would not."""
        needed = ITEM_NBYTES * items + (RATING_NBYTES * ratings if self.out is None else 0)
        if needed <= self.memory / 2:
            return
        what = f"{items:,} items" if self.out is not None else f"{ratings:,} ratings of {items:,} items"
        hint = "Give out=, a folder to write them to." if self.out is None else "Give more with memory=."
        raise BudgetError(
            f"{what} take {format_bytes(needed)}, more than half of a budget of {format_bytes(self.memory)}", hint=hint
        )

    @contextmanager
    def saying(self, what: str) -> Iterator[None]:
        """A context in which a terminal shows what is being done, when nobody knows for how long."""
        if not self.progress.show:
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(what):
            yield

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A context with a folder for what is only there meanwhile: on the disk that the store will be on."""
        if self.out is None:
            with tempfile.TemporaryDirectory(prefix="leyden-") as folder:
                yield Path(folder)
            return
        with beside(self.out) as path:
            yield path


# ---------------------------------------------------------------- tables


def _from_table(table: Table, how: _How) -> Ratings:
    """Sort a table, merge and split its rows, number its items."""
    duplicates = how.duplicates or ("last" if table.sizes is None else "sum")
    share = int(how.memory * (SORTING_SHARE if how.out is not None else 0.5))
    with how.workspace() as work:
        with sorting(table, work, share, how.threads) as rows:
            with how.saying("reading rows"):
                rows.read()
            with how.saying("numbering items"):
                rows.number_items()
            how.check_fits(rows.rows, rows.item_count)
            first = _FirstPass(work, rows.item_count, duplicates, how, table.where)
            with first, how.progress.sweep("sorting", rows.rows, 0) as on_rows:
                for ids, batch in rows.batches():
                    first.add(ids, batch)
                    on_rows(len(batch.items))
        remove(work)
        users = Ids.identity(table.sizes[0], "user") if table.sizes is not None else first.users
        return first.finish(users, rows.items, table.source)


class _FirstPass:
    """Merges and splits, into memory or files below ``work``; then :meth:`finish` is the second pass."""

    def __init__(self, work: Path, items: int, duplicates: str, how: _How, where: Callable[[int], str]):
        self._work, self._how = work, how
        self._open = ExitStack()
        self._sinks = [self._sink(name, items) for name in ("train", *(["held"] if how.holdout is not None else []))]
        held = self._sinks[1] if len(self._sinks) > 1 else None
        self.merge = Merge(self._sinks[0], held, duplicates, how.holdout, how.seed, where)
        self._ids = IdsWriter(None if how.out is None else work / "users.arrow", "user")
        self.users = Ids.identity(0, "user")

    def _sink(self, name: str, items: int) -> Any:
        if self._how.out is None:
            return MemorySink(items)
        return self._open.enter_context(Planes(self._work / name, items, None, None))

    def __enter__(self) -> _FirstPass:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        with self._open:
            self._ids.__exit__(kind, *error)
            if kind is None:
                self.users = self._ids.ids
                self.merge.check_split()
                for sink in self._sinks if self._how.out is not None else ():
                    sink.close(self.merge.summary(), popular=False)

    def add(self, ids: Values | None, batch: Batch) -> None:
        """Take the next users."""
        if ids is not None:
            self._ids.append(ids)
        self.merge.add(batch)

    def finish(self, users: Ids, items: Values | None, source: str) -> Ratings:
        """The ratings, their items numbered by popularity; ``items`` are the ids in order, None for numbers."""
        summary, levels = self.merge.summary(), self.merge.levels
        order = popularity(self._sinks[0].item_counts)
        number = inverse(order)
        ids = popular_ids(items, order, number)
        if self._how.out is None:
            held = None
            if len(self._sinks) > 1:
                held = in_memory(self._sinks[1], number, users, ids, levels=levels, summary=summary, source=source)
            about: dict[str, Any] = {"popular": True, "levels": levels, "held_out": held, "summary": summary}
            return in_memory(self._sinks[0], number, users, ids, **about, source=source)
        return self._written(users, ids, number, summary, levels)

    def _written(
        self, users: Ids, ids: Ids, number: np.ndarray, summary: Summary, levels: np.ndarray | None
    ) -> Ratings:
        how, most = self._how, max(sink.max_count for sink in self._sinks)
        assert how.out is not None
        with (
            RatingsWriter(how.out, items=len(ids), levels=levels, max_count=most, popular=True) as writer,
            how.progress.sweep("writing", summary.users, 0) as on_rows,
        ):
            for block in renumbered(StoredRatings(self._work / "train"), number, how.threads):
                writer.append_block(block)
                on_rows(block.rows)
            if how.holdout is not None:
                for block in renumbered(StoredRatings(self._work / "held"), number, how.threads):
                    writer.held_out.append_block(block)
            writer.users, writer.items, writer.summary = users, ids, summary
        return writer.ratings


# ---------------------------------------------------------------- ratings that are there already


def _again(ratings: Ratings, names: Names, how: _How) -> Ratings:
    """Ratings as they are, written, or split."""
    if names.value is not None or names.time is not None:
        raise OptionError("value= and time= are columns of a table, and these are ratings", where=ratings.source)
    if how.holdout is None:
        return ratings if how.out is None else ratings.save(how.out)
    if ratings.held_out is not None:
        raise OptionError(
            "some of these ratings are held out already", where=ratings.source, hint="Leave out holdout=."
        )
    if how.holdout == "last":
        raise OptionError(
            "ratings keep no times, so none is the last", where=ratings.source, hint="Open the table with holdout=."
        )
    how.check_fits(ratings.count, ratings.shape[1])
    order = ratings.items.order()
    with how.workspace() as work:
        first = _FirstPass(work, ratings.shape[1], "last", how, ratings.locate)
        with first, how.progress.sweep("splitting", ratings.shape[0], 0) as on_rows:
            for batch in sorted_again(ratings, inverse(order)):
                first.add(None, batch)
                on_rows(len(batch.counts))
        items = None if ratings.items.kind == "number" else as_values(ratings.items.take(order), "item")
        return first.finish(ratings.users, items, ratings.source)
