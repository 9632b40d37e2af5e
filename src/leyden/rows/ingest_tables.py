"""Tables of ratings, sorted by user: files are read, checked and sorted by DuckDB within a budget of memory.

The columns that matter are copied into a table of DuckDB in the order of the source, so that the number of a row there
says where it stands in its file. What is wrong with a row is found on the way. Then the items are numbered in the order
of their ids, and all rows sorted by user, item, time and row, spilling to disk what does not fit.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leyden.errors import BudgetError, DataError, OptionError
from leyden.rows.csv import NULL, column_names, header
from leyden.rows.ids import Values, as_values
from leyden.rows.ingest_merge import Batch
from leyden.rows.mapped import unknown_column
from leyden.rows.open import find_files, name_of
from leyden.rows.remote import is_remote
from leyden.rows.schema import check_agreement, kind, types_by_column

#: Columns that hold values when none is named, the first that is there.
VALUE_NAMES = ("value", "rating")

#: Rows that DuckDB hands over at once.
BATCH_ROWS = 2**19

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


@dataclass(frozen=True)
class Names:
    """The columns that were asked for."""

    user: str
    item: str
    value: str | None
    time: str | None

    def found_in(self, columns: Sequence[str], source: str) -> Names:
        """These columns, checked, with the column of values that is meant when none is named."""
        value = self.value or next((name for name in VALUE_NAMES if name in columns), None)
        names = Names(self.user, self.item, value, self.time)
        for name in names.used:
            if name not in columns:
                raise unknown_column(name, columns, source)
            alike = [other for other in columns if other.lower() == name.lower() and other != name]
            if alike:  # DuckDB does not tell them apart
                raise OptionError(f"columns '{name}' and '{alike[0]}' differ in case alone", where=source)
        if len(set(names.used)) < len(names.used):
            raise OptionError(f"one column is asked for twice among {', '.join(names.used)}", where=source)
        return names

    @property
    def used(self) -> tuple[str, ...]:
        return tuple(name for name in (self.user, self.item, self.value, self.time) if name is not None)


@dataclass(frozen=True)
class Table:
    """A table that DuckDB can read.

    Attributes
    ----------
    names : Names
    relation : str
        What to select from, in SQL.
    ids, time : str
        Types: "integer", "text" or, of a text file, "written", which may be either.
    where : callable
        The place of a row, for people, given its number.
    source : str
    given : pyarrow.Table, optional
        Registered under the name ``given``.
    sizes : tuple of (int, int), optional
        Users and items, where their ids are numbers below these.
    """

    names: Names
    relation: str
    user: str
    item: str
    time: str
    where: Callable[[int], str]
    source: str
    given: Any = None
    sizes: tuple[int, int] | None = None


# ---------------------------------------------------------------- files


def of_files(source: Any, names: Names) -> Table:
    """A table in Parquet or CSV files."""
    paths, format = find_files(source, None)
    called = name_of(source)
    if format not in ("parquet", "csv", "tsv"):
        raise DataError(f"ratings are read from Parquet and CSV files, not from {format}", where=called)
    if any(map(is_remote, paths)):
        raise DataError("remote files cannot be ingested", where=called, hint="Copy them to a disk first.")
    return _of_parquet(paths, called, names) if format == "parquet" else _of_csv(paths, called, names, format)


def _of_parquet(paths: list[str], called: str, names: Names) -> Table:
    import pyarrow.parquet as pq

    schemas, lengths = [], []
    for path in paths:
        try:
            found = pq.read_metadata(path)
            schemas.append((path, found.schema.to_arrow_schema()))
        except (OSError, ValueError) as error:
            said = str(error).strip().splitlines()[0].rstrip(".")
            raise DataError(
                f"this is not a complete Parquet file ({said})", where=path, hint="It may be truncated: write it again."
            ) from None
        lengths.append(found.num_rows)
    types = types_by_column(schemas)
    names = names.found_in(list(types), called)
    check_agreement(schemas, names.used)
    return Table(
        names,
        f"read_parquet({_sql_list(paths)}, union_by_name=true, hive_partitioning=false)",
        _id_type(names.user, types[names.user], called),
        _id_type(names.item, types[names.item], called),
        _check_value(names.value, types, called) or _time_type(names.time, types, called),
        _in_files(paths, lambda path: lengths[paths.index(path)]),
        called,
    )


def _of_csv(paths: list[str], called: str, names: Names, format: str) -> Table:
    delimiter = "," if format == "csv" else "\t"
    columns = {path: column_names(header(path), path, delimiter) for path in paths}
    names = names.found_in(columns[paths[0]], called)
    for path, there in columns.items():
        for name in names.used:
            if name not in there:
                raise DataError(f"column '{name}' is missing, and {paths[0]} has it", where=path)

    def read(paths: list[str]) -> str:
        types = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in columns[paths[0]])
        options = f"delim={_text(delimiter)}, header=true, quote='\"', escape='\"', auto_detect=false"
        nulls = ", ".join(map(_text, NULL))
        return (
            f"read_csv({_sql_list(paths)}, columns={{{types}}}, {options}, nullstr=[{nulls}], allow_quoted_nulls=false)"
        )

    alike = all(there == columns[paths[0]] for there in columns.values())
    used = ", ".join(map(_name, names.used))
    relation = (
        read(paths) if alike else f"({' UNION ALL '.join(f'SELECT {used} FROM {read([path])}' for path in paths)})"
    )

    def length(path: str) -> int:
        with _database(None, 500 * 10**6, 1) as database:
            return int(database.sql(f"SELECT count(*) FROM {read([path])}").fetchall()[0][0])

    return Table(names, relation, "written", "written", "written", _in_files(paths, length), called)


def _in_files(paths: list[str], length: Callable[[str], int]) -> Callable[[int], str]:
    """The place of a row in files that stand one after another, of so many rows each."""

    def where(row: int) -> str:
        for path in paths[:-1]:
            if row < (rows := length(path)):
                return f"{path}, row {row:,}"
            row -= rows
        return f"{paths[-1]}, row {row:,}"

    return where


def _id_type(name: str, types: Sequence[Any], source: str) -> str:
    """The type of a column of ids: whole numbers or text."""
    import pyarrow.types as pt

    for type_ in types:
        value = type_.value_type if pt.is_dictionary(type_) else type_
        if kind(type_) == "text" or pt.is_null(value):
            continue
        if not pt.is_integer(value):
            raise DataError(
                f"column '{name}' holds {type_}, and ids are whole numbers or text",
                where=source,
                hint="Convert the column first.",
            )
    return "text" if any(kind(type_) == "text" for type_ in types) else "integer"


def _check_value(name: str | None, types: dict[str, list[Any]], source: str) -> str:
    """Refuse a column of values that are no numbers."""
    for type_ in types[name] if name is not None else ():
        if kind(type_) not in ("number", "null"):
            raise DataError(f"column '{name}' holds {type_}, not numbers", where=source)
    return ""


def _time_type(name: str | None, types: dict[str, list[Any]], source: str) -> str:
    """How a column of times is put in order: "BIGINT", "DOUBLE", or by a function of DuckDB."""
    import pyarrow.types as pt

    found = types[name] if name is not None else []
    if any(not (kind(type_) in ("number", "null") or pt.is_timestamp(type_) or pt.is_date(type_)) for type_ in found):
        raise DataError(f"column '{name}' holds {found[0]}, neither times nor numbers", where=source)
    if any(pt.is_temporal(type_) for type_ in found):
        return "epoch_ns" if any(pt.is_timestamp(t) and t.unit == "ns" for t in found) else "epoch_us"
    return "BIGINT" if all(pt.is_signed_integer(type_) or pt.is_null(type_) for type_ in found) else "DOUBLE"


# ---------------------------------------------------------------- tables in memory


def of_frame(source: Any, names: Names) -> Table:
    """A table in memory, or a data frame that can be seen as one."""
    import pyarrow as pa

    try:
        table = source if isinstance(source, pa.Table) else pa.table(source)
    except (TypeError, ValueError) as error:
        raise DataError(f"a {type(source).__name__} cannot be seen as a table ({error})") from None
    types = types_by_column([("table", table.schema)])
    names = names.found_in(table.column_names, "table")
    for name in (names.user, names.item):
        _id_type(name, types[name], "table")
    _check_value(names.value, types, "table")
    _time_type(names.time, types, "table")
    columns = {name: table.column(name) for name in names.used}
    return _of_columns(names, columns, "table")


def of_arrays(source: Sequence[Any], names: Names) -> Table:
    """A table given as two to four arrays: users, items, values, times."""
    import pyarrow as pa

    words = ("user", "item", "value", "time")
    lengths = [len(array) for array in source]
    if len(set(lengths)) > 1:
        raise DataError(
            f"the arrays of {', '.join(words[: len(source)])} have {', '.join(f'{n:,}' for n in lengths)} entries",
            hint="Give one of each for every rating.",
        )
    names = Names(*words[: len(source)], *(None,) * (4 - len(source)))
    columns: dict[str, Any] = {}
    for name, array in zip(words, source, strict=False):
        if name in ("user", "item"):
            values = as_values(array, name)
            columns[name] = pa.array(values) if isinstance(values, np.ndarray) else values
            continue
        try:
            columns[name] = pa.array(np.asarray(array), from_pandas=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise DataError(f"the {name}s cannot be seen as an array ({error})") from None
        types = {name: [columns[name].type]}
        _check_value(name, types, "arrays") if name == "value" else _time_type(name, types, "arrays")
    return _of_columns(names, columns, "arrays")


def of_matrix(matrix: Any) -> Table:
    """The stored entries of a sparse matrix, whose rows are users."""
    import pyarrow as pa

    from leyden.rows.base import check_numbers

    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(f"a sparse matrix of shape {matrix.shape} holds no ratings", where="sparse matrix")
    check_numbers(matrix.dtype, "sparse matrix")
    entries = matrix.tocoo()
    arrays = {"user": entries.coords[0], "item": entries.coords[1], "value": entries.data}
    columns = {name: pa.array(np.ascontiguousarray(array)) for name, array in arrays.items()}
    names = Names("user", "item", "value", None)
    return _of_columns(names, columns, "sparse matrix", (int(matrix.shape[0]), int(matrix.shape[1])))


def _of_columns(names: Names, columns: dict[str, Any], source: str, sizes: tuple[int, int] | None = None) -> Table:
    """A table of Arrow columns, turned into types that DuckDB and we agree on."""
    import pyarrow as pa
    import pyarrow.types as pt

    plain = {}
    for name, column in columns.items():
        type_ = column.type.value_type if pt.is_dictionary(column.type) else column.type
        if name in (names.user, names.item):
            to = pa.large_string() if kind(type_) == "text" else pa.int64()
        elif name == names.value:
            to = pa.float64()
        else:
            to = pa.int64() if pt.is_signed_integer(type_) or pt.is_temporal(type_) else pa.float64()
        try:
            if pt.is_dictionary(column.type):
                column = column.cast(type_)
            plain[name] = (column.cast(pa.int32()) if pt.is_date32(type_) else column).cast(to)
        except pa.ArrowInvalid as error:
            said = str(error).strip().splitlines()[0]
            raise DataError(f"column '{name}' cannot be turned into {to} ({said})", where=source) from None
    table = pa.table(plain)
    user, item = ("text" if pt.is_large_string(table[n].type) else "integer" for n in (names.user, names.item))
    time = "DOUBLE" if names.time is not None and pt.is_floating(table[names.time].type) else "BIGINT"
    return Table(names, "given", user, item, time, lambda row: f"{source}, row {row:,}", source, table, sizes)


# ---------------------------------------------------------------- DuckDB


@contextmanager
def _database(work: Path | None, memory: int, threads: int | None, *, file: bool = False) -> Iterator[Any]:
    """A context with a database that keeps to ``memory`` bytes and puts what does not fit into the folder ``work``."""
    import duckdb

    settings: dict[str, Any] = {
        "memory_limit": f"{memory // 1000}KB",
        "temp_directory": "" if work is None else str(work / "spilled"),
        "arrow_large_buffer_size": True,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    if threads is not None:
        settings["threads"] = threads
    database = duckdb.connect(str(work / "rows.duckdb") if file and work is not None else ":memory:", config=settings)
    try:
        database.execute("SET enable_progress_bar = false")
        yield database
    finally:
        database.close()


@contextmanager
def _explained(source: str, memory: int) -> Iterator[None]:
    """A context in which what DuckDB raises becomes one sentence."""
    import duckdb
    import pyarrow as pa

    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":  # what Ctrl-C becomes in there
            raise KeyboardInterrupt from None
        raise
    except (duckdb.Error, pa.ArrowException) as error:
        said = str(error)
        if re.search(r"No space left|max_temp_directory_size", said):
            raise DataError("there is no room on the disk to sort the rows", where=source) from None
        if "Out of Memory Error" in said:
            raise BudgetError(
                f"{memory / 10**6:,.0f} MB are too little to sort the rows",
                where=source,
                hint="Give more with memory=.",
            ) from None
        raise _unreadable(said, source) from None


def _unreadable(said: str, source: str) -> DataError:
    """DuckDB's message in the words of the file."""
    file = re.search(r"file = (.*)", said)
    line = re.search(r"CSV Error on Line: (\d+)", said)
    where = (file[1].strip() if file else source) + (f", line {int(line[1]):,}" if line else "")
    if count := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", said):
        return DataError(f"the row has {count[2]} values and there are {count[1]} columns", where=where)
    first = [text for text in said.splitlines() if text and "Original Line" not in text][:2]
    plain = re.sub(r"^[A-Za-z ]*Error: ", "", " ".join(first[: 2 if line else 1])).rstrip(".: ")
    return DataError(f"the rows cannot be read ({plain})", where=where, hint="The file may be damaged: write it again.")


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
    with _explained(table.source, memory), _database(work, memory, threads, file=table.given is None) as database:
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
            return
        self._run(f"CREATE TABLE items AS SELECT DISTINCT {self._types['i']} AS id FROM source ORDER BY id")
        ids = self._database.sql("SELECT id FROM items").to_arrow_table().column(0)
        self.items = as_values(ids, "item")
        self.item_count = len(self.items)

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
        user, item = _name(names.user), _name(names.item)
        columns = {"u": user, "i": item}
        flaws = {1: f"{user} IS NULL", 2: f"{item} IS NULL"}
        for letter, column, type_ in (("u", user, table.user), ("i", item, table.item)):
            if type_ == "integer":
                columns[letter] = f"TRY_CAST({column} AS BIGINT)"
        flaws[9] = f"{columns['u']} IS NULL OR {columns['i']} IS NULL"
        if names.value is not None:
            value = _name(names.value)
            columns["v"] = f"TRY_CAST({value} AS DOUBLE)"
            flaws |= {3: f"{value} IS NULL", 4: f"{columns['v']} IS NULL"}
        if names.time is not None:
            time = _name(names.time)
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
        flaws = {}
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


def _name(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    """Text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def _sql_list(paths: Sequence[str]) -> str:
    """Paths in SQL, where an asterisk would stand for other files."""
    return "[" + ", ".join(_text(glob.escape(path)) for path in paths) + "]"


def remove(work: Path) -> None:
    """Remove the database, which is as large as the source, before what is made of it is written."""
    with suppress(OSError):
        (work / "rows.duckdb").unlink()
