"""Rows over Parquet files, decoded batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leyden.errors import DataError, LeydenError
from leyden.rows.remote import is_remote, open_binary
from leyden.rows.schema import choose, kind
from leyden.rows.table import TableRows

# Arrow's defaults (no buffer, and reading ahead) fetch whole row groups: memory would grow with the file.
COLUMN_BUFFER_NBYTES = 256 << 10

# Writers end a data page at about a megabyte; the footer does not say how long pages are.
PAGE_NBYTES = 1 << 20

# A dictionary holds different values: it is not compressed to less than a part in this many.
COMPRESSION = 8

# Arrow's allocator takes more from the system than is asked of it, most of all for large pieces such as dictionaries,
# and a decoder has some memory of its own. Measured with Arrow 26 on files of 10 to 400 columns.
ALLOCATOR, ALLOCATOR_DICTIONARY, DECODER_NBYTES = 1.25, 1.6, 64 << 10


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
            with open_parquet(path) as file:
                schemas.append((path, file.schema_arrow))
                groups = _row_groups(file)
            starts = np.concatenate([[0], np.cumsum(groups)])
            self._pieces += [(i, g, int(starts[g])) for g in range(len(groups)) if groups[g]]
            self._row_groups.append(groups)
        choice = choose(schemas, source, **options)
        self._text = [
            name for name in choice.used if any(kind(schema.field(name).type) == "text" for _, schema in schemas)
        ]
        sizes = [_sizes(path, choice.used) for path in self._paths]
        self.stored_nbytes = sum(stored for stored, _ in sizes)
        self._decoder_nbytes = max(decoder for _, decoder in sizes)
        super().__init__(source, [self._row_groups[i][g] for i, g, _ in self._pieces], choice)

    def _piece_nbytes(self) -> float:
        return self._decoder_nbytes

    def _batches(self, piece: int, columns: Sequence[str], rows: int) -> Iterator[Any]:
        import pyarrow as pa

        (i, row_group, _), pool = self._pieces[piece], pa.default_memory_pool()
        try:
            file = self._file(i)
            batches = file.iter_batches(rows, row_groups=[row_group], columns=list(columns), use_threads=False)
            try:
                yield from batches
            finally:
                # Arrow would keep what the decoders held, and the next ones take as much again.
                batches.close()
                pool.release_unused()
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
            file = open_parquet(self._paths[i], read_dictionary=self._text)
            if _row_groups(file) != self._row_groups[i]:
                raise DataError("the file changed since it was opened", where=self._paths[i], hint="Open it again.")
            held = self._local.file = (i, file)
        return held[1]

    def _where(self, piece: int, row: int) -> str:
        i, _, first = self._pieces[piece]
        return f"{self._paths[i]}, row {first + row:,}"


def open_parquet(path: str, **options: Any) -> Any:
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


def _sizes(path: str, columns: Sequence[str]) -> tuple[int, float]:
    """Bytes in a file that these columns take, and bytes of memory that decoding any row group takes."""
    with open_parquet(path) as file:
        meta = file.metadata
        leaves = [c for c in range(meta.num_columns) if meta.schema.column(c).path in columns]
        stored, decoder = 0, 0.0
        for g in range(meta.num_row_groups):
            chunks = [meta.row_group(g).column(c) for c in leaves]
            stored += sum(chunk.total_compressed_size for chunk in chunks)
            decoder = max(decoder, sum(map(_chunk_decoder_nbytes, chunks)))
        # The footer is parsed into objects several times its size.
        return stored, decoder + 8 * meta.serialized_size


def _chunk_decoder_nbytes(chunk: Any) -> float:
    """Memory for one column of a row group: what is read ahead, its dictionary, and a decompressed page.

    A dictionary is held twice, as the values it stands for and as the page it was decompressed to.
    """
    stored, size = chunk.total_compressed_size, chunk.total_uncompressed_size
    dictionary, in_file = 0, 0
    if chunk.has_dictionary_page:
        in_file = max(chunk.data_page_offset - chunk.dictionary_page_offset, 0)
        dictionary = min(max(size - (stored - in_file), in_file), COMPRESSION * in_file) if in_file else PAGE_NBYTES
    page = min(max(size - in_file, 0), PAGE_NBYTES)
    ahead = min(COLUMN_BUFFER_NBYTES, stored) + max(page - dictionary, 0)
    return ALLOCATOR * ahead + ALLOCATOR_DICTIONARY * 2 * dictionary + DECODER_NBYTES


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
