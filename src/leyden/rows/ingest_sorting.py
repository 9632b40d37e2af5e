"""The rows of a table of ratings, sorted by user within a budget of memory, by DuckDB.

The columns that matter are copied into a table of DuckDB in the order of the source, so that the number of a row there
says where it stands in its file. What is wrong with a row is found on the way. Then the items are numbered in the order
of their ids, and all rows sorted by user, item, time and row, spilling to disk what does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leyden.errors import DataError
from leyden.rows import duck
from leyden.rows.ids import Values, as_values
from leyden.rows.ingest_merge import Batch

if TYPE_CHECKING:
    from leyden.rows.ingest_tables import Table

#: Rows that DuckDB hands over at once.
BATCH_ROWS = 2**19

#: Items are numbered in 31 bits.
MAX_ITEMS = 2**31 - 1

#: Threads of DuckDB sort in memory of their own; with less than this each, it fails.
THREAD_NBYTES = 64 * 10**6

_FLAWS = {
    1: ("null in column '{user}'", "Every row needs a user: drop such rows first."),
    2: ("null in column '{item}'", "Every row needs an item: drop such rows first."),
    3: ("null in column '{value}'", "Drop such rows first, or fill in a value."),
    4: ("the value in column '{value}' is not a number", "Correct it, or drop such rows first."),
    5: ("NaN in column '{value}'", "Drop such rows first, or fill in a value."),
    6: ("the value in column '{value}' is infinite, or beyond float32", "Drop such rows first, or scale the column."),
    7: ("null in column '{time}'", "Drop such rows first, or do without time=."),
    8: ("NaN in column '{time}'", "Drop such rows first, or do without time=."),
    9: ("the id in column '{user}' or '{item}' is beyond 64 bits with a sign", "Save the ids as text."),
}

#: Halfway between the largest number of float32 and what would come next: from here on numbers are rounded to infinity.
_BEYOND = float(np.finfo(np.float32).max) * (1 + 2.0**-25)


@contextmanager
def sorting(table: Table, work: Path, memory: int, threads: int) -> Iterator[Sorting]:
    """A context in which a table can be sorted.

    Parameters
    ----------
    table : Table
    work : path
        A folder for what does not fit into memory.
    memory : int
        What DuckDB may take.
    threads : int

    Raises
    ------
    DataError
        If a row has no user, item or value that can be used, or files cannot be read.
    BudgetError
    """
    threads = max(1, min(threads, memory // THREAD_NBYTES))
    with (
        duck.explained(table.source, memory),
        duck.database(work, memory, threads, file=table.given is None) as database,
    ):
        if table.given is not None:
            database.register("given", table.given)
        yield Sorting(database, table)


class Sorting:
    """The steps of sorting a table, in order.

    Attributes
    ----------
    rows : int
        How many there are, after :meth:`read`.
    items : ndarray, LargeStringArray or None
        Ids of items in order, after :meth:`number_items`; None when they are numbers.
    item_count : int
    """

    rows: int
    items: Values | None
    item_count: int

    def __init__(self, database: Any, table: Table):
        self._database, self._table = database, table

    def read(self) -> None:
        """Copy the columns that matter, and see whether they are what they should be."""
        self.rows = self._stage()
        self._types = self._found_types()

    def number_items(self) -> None:
        """Find the ids of items."""
        if self._table.sizes is not None:
            self.items, self.item_count = None, self._table.sizes[1]
        else:
            self._run(f"CREATE TABLE items AS SELECT DISTINCT {self._types['i']} AS id FROM source ORDER BY id")
            ids = self._database.sql("SELECT id FROM items").to_arrow_table().column(0)
            self.items = as_values(ids, "item")
            self.item_count = len(self.items)
        if self.item_count > MAX_ITEMS:
            raise DataError(f"there are {self.item_count:,} items, more than {MAX_ITEMS:,}", where=self._table.source)

    def batches(self) -> Iterator[tuple[Values | None, Batch]]:
        """Users one after another, and the ids of those in a batch; None when users are numbers."""
        table, types = self._table, self._types
        item, join = "items.rowid", f"JOIN items ON {types['i']} = items.id"
        if self.items is None:
            item, join = "i", ""
        value = ", CAST(v AS FLOAT) AS v" if table.names.value is not None else ""
        time = f", {types['t']} AS t" if table.names.time is not None else ""
        query = f"""
            SELECT {types["u"]} AS u, CAST({item} AS INTEGER) AS r{value}{time}, source.rowid AS s FROM source {join}
            ORDER BY u, r{", t" if time else ""}, s
        """
        self._run("SET preserve_insertion_order = false")
        batches = self._database.sql(query).to_arrow_reader(BATCH_ROWS)
        return _whole_users(batches, None if table.sizes is None else table.sizes[0])

    def _run(self, query: str) -> None:
        self._database.execute(query)

    def _one(self, query: str) -> tuple[Any, ...]:
        return tuple(self._database.sql(query).fetchall()[0])

    def _stage(self) -> int:
        """Copy the columns that matter, in the order of the rows; how many rows there are."""
        table, names = self._table, self._table.names
        user, item = duck.column(names.user), duck.column(names.item)
        columns = {"u": user, "i": item}
        flaws = {1: f"{user} IS NULL", 2: f"{item} IS NULL"}
        for letter, column, type_ in (("u", user, table.user), ("i", item, table.item)):
            if type_ == "integer":
                columns[letter] = f"TRY_CAST({column} AS BIGINT)"
        flaws[9] = f"{columns['u']} IS NULL OR {columns['i']} IS NULL"
        if names.value is not None:
            value = duck.column(names.value)
            columns["v"] = f"TRY_CAST({value} AS DOUBLE)"
            flaws |= {3: f"{value} IS NULL", 4: f"{columns['v']} IS NULL"}
        if names.time is not None:
            time = duck.column(names.time)
            types = {"written": time, "BIGINT": f"CAST({time} AS BIGINT)", "DOUBLE": f"CAST({time} AS DOUBLE)"}
            columns["t"] = types.get(table.time, f"{table.time}({time})")
            flaws[7] = f"{columns['t']} IS NULL"
        chosen = ", ".join(f"{sql} AS {letter}" for letter, sql in columns.items())
        self._run(
            f"CREATE TABLE source AS SELECT {chosen}, CAST({_first(flaws)} AS UTINYINT) AS flaw FROM {table.relation}"
        )
        return self._checked()

    def _checked(self) -> int:
        """How many rows there are, none of which has a flaw.

        NaN is looked for in the copy: of a Parquet file, DuckDB would go by its statistics, which leave NaN out.
        """
        table, names = self._table, self._table.names
        flaws: dict[int, str] = {}
        if names.value is not None:
            flaws |= {5: "isnan(v)", 6: f"abs(v) >= {_BEYOND!r}"}
        if table.time == "DOUBLE" and names.time is not None:
            flaws[8] = "isnan(t)"
        flaw = f"CASE WHEN flaw > 0 THEN flaw ELSE {_first(flaws)} END" if flaws else "flaw"
        rows, flawed = self._one(f"SELECT count(*), min(rowid) FILTER ({flaw} > 0) FROM source")
        if rows == 0:
            raise DataError("the table is empty (0 rows)", where=table.source)
        if flawed is not None:
            (code,) = self._one(f"SELECT {flaw} FROM source WHERE rowid = {flawed}")
            what, hint = _FLAWS[code]
            words = {"user": names.user, "item": names.item, "value": names.value, "time": names.time}
            raise DataError(what.format(**words), where=table.where(flawed), hint=hint)
        return int(rows)

    def _found_types(self) -> dict[str, str]:
        """Columns of the copy in SQL; what was written in text files is taken for numbers where all of it is."""
        table = self._table
        types = {"u": "u", "i": "i", "t": "t"}
        for letter, type_ in (("u", table.user), ("i", table.item)):
            if type_ == "written" and self._all(f"CAST(TRY_CAST({letter} AS BIGINT) AS VARCHAR) = {letter}"):
                types[letter] = f"CAST({letter} AS BIGINT)"
        if table.names.time is not None and table.time == "written":
            tries = {
                "CAST(t AS BIGINT)": "CAST(TRY_CAST(t AS BIGINT) AS VARCHAR) = t",
                "CAST(t AS DOUBLE)": "isfinite(TRY_CAST(t AS DOUBLE))",
                "CAST(t AS TIMESTAMP)": "TRY_CAST(t AS TIMESTAMP) IS NOT NULL",
            }
            found = next((cast for cast, test in tries.items() if self._all(test)), None)
            if found is None:
                bad = "NOT coalesce(isfinite(TRY_CAST(t AS DOUBLE)), false) AND TRY_CAST(t AS TIMESTAMP) IS NULL"
                row, text = self._one(f"SELECT rowid, t FROM source WHERE {bad} ORDER BY rowid LIMIT 1")
                raise DataError(
                    f"'{text}' in column '{table.names.time}' is neither a number nor a time", where=table.where(row)
                )
            types["t"] = f"epoch_us({found})" if "TIMESTAMP" in found else found
        return types

    def _all(self, test: str) -> bool:
        return bool(self._one(f"SELECT bool_and(coalesce({test}, false)) FROM source")[0])


def _first(flaws: dict[int, str]) -> str:
    """The first of these conditions that holds, in SQL, as its number; or else 0."""
    return f"CASE {' '.join(f'WHEN {flaws[code]} THEN {code}' for code in sorted(flaws))} ELSE 0 END"


def _whole_users(batches: Any, users: int | None) -> Iterator[tuple[Values | None, Batch]]:
    """Batches cut where one user ends and another begins; with ``users``, whose numbers are then their ids."""
    held: list[Any] = []
    done = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        starts = _starts(batch.column("u"))
        if held and held[-1].column("u")[-1] != batch.column("u")[0]:
            starts = np.concatenate([[0], starts])
        if not len(starts):
            held.append(batch)
            continue
        if last := int(starts[-1]):
            held.append(batch.slice(0, last))
        if held:
            yield (made := _batch(held, users, done))
            done += len(made[1].counts)
        held = [batch.slice(last)]
    made = _batch(held, users, done)
    if users is not None:
        rest = np.zeros(users - done - len(made[1].counts), np.int64)
        made[1].counts = np.concatenate([made[1].counts, rest])
    yield made


def _batch(parts: list[Any], users: int | None, done: int) -> tuple[Values | None, Batch]:
    """Whole users of record batches; with ``users``, from number ``done`` on, those between them included."""
    import pyarrow as pa

    table = pa.Table.from_batches(parts).combine_chunks()

    def column(name: str, missing: np.ndarray) -> np.ndarray:
        return table.column(name).to_numpy() if name in table.column_names else missing

    n = table.num_rows
    column_u = table.column("u").chunk(0)
    starts = np.concatenate([[0], _starts(column_u)])
    counts = np.diff(np.append(starts, n))
    ids: Values | None = as_values(column_u.take(pa.array(starts)), "user")
    if users is not None:
        numbers: Any = ids
        spread = np.zeros(int(numbers[-1]) + 1 - done, np.int64)
        spread[numbers - done] = counts
        ids, counts = None, spread
    nothing = np.empty(0, np.int64)
    values = column("v", np.ones(0 if "v" in table.column_names else n, np.float32))
    return ids, Batch(counts, column("r", nothing), values, column("t", nothing), column("s", nothing))


def _starts(column: Any) -> np.ndarray:
    """Places, after the first, at which another value begins."""
    import pyarrow.compute as pc

    changed = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
    return np.flatnonzero(changed.to_numpy(zero_copy_only=False)) + 1


def remove(work: Path) -> None:
    """Remove the database, which is as large as the source, before what is made of it is written."""
    with suppress(OSError):
        (work / "rows.duckdb").unlink()
