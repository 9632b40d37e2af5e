"""Rows over an Arrow table in memory, and over the data frames that can be seen as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from leyden.errors import DataError
from leyden.rows.schema import choose
from leyden.rows.table import TableRows


class ArrowRows(TableRows):
    """A ``pyarrow.Table`` or what can be seen as one: a data frame of pandas or polars, a DuckDB relation.

    Parameters
    ----------
    table : pyarrow.Table or object with ``__arrow_c_stream__``
    source : str
    **options
        As in :func:`leyden.open`: target, weight, group, columns, categorical, drop_first, nulls, dtype.
    """

    def __init__(self, table: Any, *, source: str = "table", **options: Any):
        import pyarrow as pa

        if isinstance(table, pa.ChunkedArray) or len(getattr(table, "shape", ())) == 1:
            raise DataError(
                f"a {type(table).__name__} is one column and cannot be seen as a table",
                hint="Give a data frame, or an array of shape (rows, 1).",
            )
        try:
            self._table = table if isinstance(table, pa.Table) else pa.table(table)
        except (TypeError, ValueError) as error:
            raise DataError(f"a {type(table).__name__} cannot be seen as a table ({error})", where=source) from None
        choice = choose([(source, self._table.schema)], source, **options)
        self.stored_nbytes = self._table.select(list(choice.used)).nbytes
        super().__init__(source, [self._table.num_rows], choice)

    def _batches(self, piece: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        return iter(self._table.select(list(columns)).to_batches(max_chunksize=rows))

    def view(self, column: str) -> np.ndarray | None:
        import pyarrow as pa

        values = self._table.column(column)
        whole = values.num_chunks == 1 and values.null_count == 0 and len(values) == self.shape[0]
        plain = pa.types.is_floating(values.type) or pa.types.is_integer(values.type)
        return np.from_dlpack(values.chunk(0)) if whole and plain else None

    def _where(self, piece: int, row: int) -> str:
        return f"{self.source}, row {row:,}"
