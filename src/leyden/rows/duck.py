"""DuckDB: a database that keeps to a budget of memory, what it raises in one sentence, and names and text in SQL."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leyden.errors import BudgetError, DataError


@contextmanager
def database(work: Path | None, memory: int, threads: int | None, *, file: bool = False) -> Iterator[Any]:
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
    connection = duckdb.connect(str(work / "rows.duckdb") if file and work is not None else ":memory:", config=settings)
    try:
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


@contextmanager
def explained(source: str, memory: int) -> Iterator[None]:
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
        if "INTERRUPT Error" in said:
            raise KeyboardInterrupt from None
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


def column(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def string(text: str) -> str:
    """Text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def files(paths: Sequence[str]) -> str:
    """Paths in SQL, where an asterisk would stand for other files."""
    return "[" + ", ".join(string(glob.escape(path)) for path in paths) + "]"
