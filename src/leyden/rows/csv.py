"""Rows over CSV files, parsed by byte ranges."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leyden.errors import DataError, LeydenError
from leyden.rows.lines import Piece, cut, read_piece, reading
from leyden.rows.remote import size
from leyden.rows.schema import choose, kind
from leyden.rows.table import TableRows

# A piece is parsed in one go and held while it is read: a few thousand rows, and a seek is cheap beside its parsing.
PIECE_NBYTES = 1 << 20

# Arrow counts the spellings of NaN among those of null.
NULL = ("", "#N/A", "#N/A N/A", "#NA", "N/A", "NA", "NULL", "n/a", "null")
NAN = ("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN")
_SEEMS_NAN = re.compile(rb"nan|#(IND|QNAN)", re.IGNORECASE)


class CSVRows(TableRows):
    """One CSV file or several with a row of column names each, one after another.

    The files are scanned once for line ends when they are opened, so that any range of rows can be parsed from its own
    bytes. A value in quotes must therefore not contain a line end. Types are inferred from the beginning of the first
    file, every number as float64. Besides nothing at all, the usual spellings of a missing value (NA, N/A, null, ...)
    are null when they are not in quotes. So is NaN in a column of text; in a column of numbers it is the number NaN.

    Parameters
    ----------
    paths : sequence of path
    delimiter : str
    source : str, optional
        What people call these files: the glob they came from.
    **options
        As in :func:`leyden.open`: target, weight, group, columns, categorical, drop_first, nulls, dtype.
    """

    def __init__(self, paths: Sequence[str | Path], *, delimiter: str = ",", source: str | None = None, **options: Any):
        self._paths, self._delimiter = [str(path) for path in paths], delimiter
        self.files = tuple(self._paths)
        source = source or ", ".join(self._paths)
        self._names: list[list[str]] = []
        self._pieces: list[Piece] = []
        for i, path in enumerate(self._paths):
            line = header(path)
            self._names.append(column_names(line, path, delimiter))
            self._pieces += _index(i, path, len(line))
        if not self._pieces:
            raise DataError("the table is empty (0 rows)", where=source)
        self._sizes = [size(path) for path in self._paths]
        categorical = options.get("categorical")
        labels = (categorical,) if isinstance(categorical, str) else tuple(categorical or ())
        self._types = self._infer(self._pieces[0], labels, options.get("group"))
        choice = choose(self._schemas(), source, **options)
        self.stored_nbytes = sum(self._sizes)
        super().__init__(source, [piece.rows for piece in self._pieces], choice)

    def _piece_nbytes(self) -> float:
        # The text twice (read, and split into values), a position for each value, and the columns made of them. Arrow's
        # allocator takes about as much again.
        text = max(piece.end - piece.begin for piece in self._pieces)
        values = max(piece.rows * len(self._names[piece.file]) for piece in self._pieces)
        used = max(piece.rows for piece in self._pieces) * len(self.choice.used)
        return 2 * (2.0 * text + 4.0 * values + 8.0 * used)

    def _infer(self, piece: Piece, labels: Sequence[str], group: str | None) -> dict[str, Any]:
        """Types by column, from the first rows. What looks like a whole number may have decimals further down."""
        import pyarrow as pa
        from pyarrow import csv as pc

        lines = read_piece(self._paths[piece.file], piece)
        try:
            found = pc.read_csv(_buffer(lines), **self._how(self._names[piece.file])).schema
        except ValueError as error:
            raise self._unreadable(piece, error) from None
        types = {column.name: column.type for column in found}
        for name, type_ in types.items():
            if name in labels:
                types[name] = pa.string()  # as it is written: 01 and 1 may be different
            elif name == group:
                types[name] = type_ if pa.types.is_integer(type_) else pa.string()
            elif kind(type_) in ("number", "null") and not pa.types.is_boolean(type_):
                types[name] = pa.float64()
        return types

    def _schemas(self) -> list[tuple[str, Any]]:
        import pyarrow as pa

        # A column that only later files have is refused by name before its type matters.
        every = [[(name, self._types.get(name, pa.float64())) for name in names] for names in self._names]
        return [(path, pa.schema(fields)) for path, fields in zip(self._paths, every, strict=True)]

    def _how(
        self,
        names: Sequence[str],
        types: dict[str, Any] | None = None,
        columns: Sequence[str] = (),
        nulls: Sequence[str] = NULL,
    ) -> Any:
        """Options of pyarrow for lines without a header."""
        from pyarrow import csv as pc

        return {
            # Without threads Arrow's messages name the row; block by block it would count rows of each block anew.
            "read_options": pc.ReadOptions(use_threads=False, column_names=list(names), block_size=1 << 30),
            "parse_options": pc.ParseOptions(delimiter=self._delimiter),
            "convert_options": pc.ConvertOptions(
                column_types=types or {},
                include_columns=list(columns),
                null_values=list(nulls),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=["true", "True", "TRUE"],
                false_values=["false", "False", "FALSE"],
            ),
        }

    def _batches(self, piece: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        at = self._pieces[piece]
        path = self._paths[at.file]
        try:
            if size(path) != self._sizes[at.file]:
                raise DataError("the file changed since it was opened", where=path, hint="Open it again.")
            table = self._parse(read_piece(path, at), self._names[at.file], columns)
        except LeydenError:
            raise
        except ValueError as error:
            raise self._unreadable(at, error) from None
        if table.num_rows != at.rows:
            raise DataError(
                f"{at.rows:,} lines hold {table.num_rows:,} rows",
                where=self._where(piece, 0),
                hint="A value in quotes must not contain a line end: convert the file to Parquet.",
            )
        return iter(table.to_batches(max_chunksize=rows))

    def _parse(self, lines: bytes, names: Sequence[str], columns: Sequence[str]) -> Any:
        """These columns of some lines. NaN is null in a column of text, and there alone."""
        import pyarrow as pa
        from pyarrow import csv as pc

        table = pc.read_csv(_buffer(lines), **self._how(names, self._types, columns))
        text = [name for name in columns if pa.types.is_string(self._types[name])]
        if text and _SEEMS_NAN.search(lines):
            again = pc.read_csv(_buffer(lines), **self._how(names, self._types, text, (*NULL, *NAN)))
            for name in text:
                table = table.set_column(table.column_names.index(name), name, again[name])
        return table

    def _where(self, piece: int, row: int) -> str:
        at = self._pieces[piece]
        return f"{self._paths[at.file]}, row {at.first + row:,}"

    def _unreadable(self, piece: Piece, error: Exception) -> DataError:
        """Arrow's message in the words of the file: its row, counted from 0 below the header, and its column."""
        message = str(error)
        row = re.search(r"Row #(\d+)", message)
        where = f"{self._paths[piece.file]}, row {piece.first + (int(row[1]) - 1 if row else 0):,}"
        if value := re.search(r"column #(\d+).*conversion error to (\S+): invalid value '(.*)'", message, re.S):
            name = self._names[piece.file][int(value[1])]
            return DataError(
                f"'{value[3]}' in column '{name}' is not a {_PLAIN.get(value[2], value[2])}, as the first rows are",
                where=where,
                hint="Correct the value, or leave the column out with columns=[...].",
            )
        if count := re.search(r"Expected (\d+) columns, got (\d+)", message):
            return DataError(f"the row has {count[2]} values and there are {count[1]} columns", where=where)
        return DataError(f"the rows cannot be parsed ({message.strip().splitlines()[0]})", where=where)


def header(path: str) -> bytes:
    """The first line of a file."""
    with reading(path) as file:
        line = file.readline()
    if not line.strip():
        what = "the first line is empty" if line else "the file is empty"
        raise DataError(what, where=path, hint="It must hold a name for each column.")
    return line


def column_names(header: bytes, path: str, delimiter: str) -> list[str]:
    """The names that the first line of a file holds."""
    from pyarrow import csv as pc

    how = {
        "read_options": pc.ReadOptions(use_threads=False),
        "parse_options": pc.ParseOptions(delimiter=delimiter),
    }
    try:
        names = pc.read_csv(_buffer(header), **how).column_names
    except ValueError as error:
        raise DataError(f"the first line is not a row of column names ({error})", where=path) from None
    if all(_is_number(name) for name in names):
        raise DataError(
            "the first line holds numbers where column names should be",
            where=path,
            hint="Put a line with a name for each column first.",
        )
    if len(names) == 1 and (other := [mark for mark in ";\t|," if mark in names[0]]):
        hint = 'Give format="tsv".' if "\t" in other else "Save it with commas."
        raise DataError(f"the columns are separated by {other[0]!r}", where=path, hint=hint)
    return names


_PLAIN = {"double": "number", "int64": "whole number", "bool": "truth value (true or false)"}


def _index(file: int, path: str, begin: int) -> list[Piece]:
    """Cut a file from byte ``begin`` on into pieces, and count their rows."""
    pieces, first = [], 0
    for at, lines in cut(path, begin, PIECE_NBYTES):
        if rows := _count_rows(lines):
            pieces.append(Piece(file, at, at + len(lines), first, rows))
        first += rows
    return pieces


def _count_rows(lines: bytes) -> int:
    """Lines that are not empty, which are those that Arrow makes rows of."""
    text = np.frombuffer(lines if lines.endswith(b"\n") else lines + b"\n", np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    lengths = np.diff(ends, prepend=-1) - 1
    only_return = (lengths == 1) & (text[ends - 1] == ord("\r"))
    return int(np.count_nonzero((lengths > 0) & ~only_return))


def _buffer(lines: bytes) -> Any:
    import pyarrow as pa

    return pa.BufferReader(lines)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
