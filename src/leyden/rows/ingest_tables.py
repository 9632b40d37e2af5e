"""Tables of ratings, wherever they are: which columns are users, items, values and times, and how DuckDB reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.errors import DataError, OptionError
from leyden.rows import duck
from leyden.rows.base import check_numbers
from leyden.rows.csv import NULL, column_names, header
from leyden.rows.ids import as_values
from leyden.rows.mapped import unknown_column
from leyden.rows.open import find_files, name_of
from leyden.rows.remote import is_remote
from leyden.rows.schema import check_agreement, kind, types_by_column

#: Columns that hold values when none is named, the first that is there.
VALUE_NAMES = ("value", "rating")


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
    user, item : str
        Types of ids: "integer", "text" or, in a text file, "written", which may be either.
    time : str
        How times are put in order: "BIGINT", "DOUBLE", "written", or a function of DuckDB.
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
    _check_value(names.value, types, called)
    return Table(
        names,
        f"read_parquet({duck.files(paths)}, union_by_name=true, hive_partitioning=false)",
        _id_type(names.user, types[names.user], called),
        _id_type(names.item, types[names.item], called),
        _time_type(names.time, types, called),
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

    def read(some: list[str]) -> str:
        types = ", ".join(f"{duck.string(name)}: 'VARCHAR'" for name in columns[some[0]])
        options = f"delim={duck.string(delimiter)}, header=true, quote='\"', escape='\"', auto_detect=false"
        nulls = ", ".join(map(duck.string, NULL))
        return (
            f"read_csv({duck.files(some)}, columns={{{types}}}, {options}, nullstr=[{nulls}], allow_quoted_nulls=false)"
        )

    alike = all(there == columns[paths[0]] for there in columns.values())
    used = ", ".join(map(duck.column, names.used))
    relation = (
        read(paths) if alike else f"({' UNION ALL '.join(f'SELECT {used} FROM {read([path])}' for path in paths)})"
    )

    def length(path: str) -> int:
        with duck.database(None, 500 * 10**6, 1) as database:
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


def _check_value(name: str | None, types: dict[str, list[Any]], source: str) -> None:
    """Refuse a column of values that are no numbers."""
    for type_ in types[name] if name is not None else ():
        if kind(type_) not in ("number", "null"):
            raise DataError(f"column '{name}' holds {type_}, not numbers", where=source)


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
