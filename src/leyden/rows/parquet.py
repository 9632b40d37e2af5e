"""Rows over Parquet files, decoded batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leyden.errors import DataError, LeydenError
from leyden.rows.remote import is_remote, open_binary
from leyden.rows.table import TableRows, choose, kind

# Arrow's defaults (no buffer, and reading ahead) fetch whole row groups: memory would grow with the file.
COLUMN_BUFFER_NBYTES = 256 << 10


class ParquetRows(TableRows):
    """One Parquet file or several, one after another. The shape comes from the footers alone.

    Consecutive reads of a thread go on where the last one ended, so no row group is decoded twice and memory is bounded
    by a batch. A jump decodes a row group from its start: ranges that begin at :attr:`piece_starts` are the cheapest.

    Parameters
    ----------
    paths : sequence of path
    source : str, optional
        What people call these files: the glob they came from.
    **options
        As in :func:`leyden.open`: target, weight, group, columns, categorical, drop_first, nulls, dtype.
    """

    def __init__(self, paths: Sequence[str | Path], *, source: str | None = None, **options: Any):
        self._paths = [str(path) for path in paths]
        self.files = tuple(self._paths)
        source = source or ", ".join(self._paths)
        self._pieces: list[tuple[int, int, int]] = []  # file, row group, row of the file it starts at
        self._row_groups: list[list[int]] = []
        schemas = []
        for i, path in enumerate(self._paths):
            with _open(path) as file:
                schemas.append((path, file.schema_arrow))
                groups = _row_groups(file)
            starts = np.concatenate([[0], np.cumsum(groups)])
            self._pieces += [(i, g, int(starts[g])) for g in range(len(groups)) if groups[g]]
            self._row_groups.append(groups)
        choice = choose(schemas, source, **options)
        self._text = [
            name for name in choice.used if any(kind(schema.field(name).type) == "text" for _, schema in schemas)
        ]
        self.stored_nbytes = sum(_stored(path, choice.used) for path in self._paths)
        super().__init__(source, [self._row_groups[i][g] for i, g, _ in self._pieces], choice)

    def _batches(self, piece: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        i, row_group, _ = self._pieces[piece]
        try:
            file = self._file(i)
            yield from file.iter_batches(rows, row_groups=[row_group], columns=list(columns), use_threads=False)
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            self._local.file = None
            raise DataError(
                f"row group {row_group} cannot be read ({_first_line(error)})",
                where=self._paths[i],
                hint="The file is damaged or changed while it was read: write it again.",
            ) from error

    def _file(self, i: int) -> Any:
        """File ``i``, opened once by each thread as long as it stays in it."""
        held = getattr(self._local, "file", None)
        if held is None or held[0] != i:
            file = _open(self._paths[i], read_dictionary=self._text)
            if _row_groups(file) != self._row_groups[i]:
                raise DataError("the file changed since it was opened", where=self._paths[i], hint="Open it again.")
            held = self._local.file = (i, file)
        return held[1]

    def _where(self, piece: int, row: int) -> str:
        i, _, first = self._pieces[piece]
        return f"{self._paths[i]}, row {first + row:,}"


def _open(path: str, **options: Any) -> Any:
    import pyarrow.parquet as pq

    try:
        source = open_binary(path) if is_remote(path) else path
        return pq.ParquetFile(source, buffer_size=COLUMN_BUFFER_NBYTES, pre_buffer=False, **options)
    except FileNotFoundError:
        raise DataError("there is no such file", where=path) from None
    except LeydenError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(
            f"this is not a complete Parquet file ({_first_line(error)})",
            where=path,
            hint="It may be truncated: write it again.",
        ) from None


def _row_groups(file: Any) -> list[int]:
    """Rows in each row group."""
    return [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]


def _stored(path: str, columns: Sequence[str]) -> int:
    """Bytes in a file that these columns take."""
    with _open(path) as file:
        meta = file.metadata
        leaves = [c for c in range(meta.num_columns) if meta.schema.column(c).path in columns]
        groups = (meta.row_group(g) for g in range(meta.num_row_groups))
        return sum(group.column(c).total_compressed_size for group in groups for c in leaves)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
