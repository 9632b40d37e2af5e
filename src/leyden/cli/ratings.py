"""Where ratings are: what ``als``, ``verify`` and ``recommend`` read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.cli.options import option

if TYPE_CHECKING:
    from leyden.rows import Rows

#: Files of a matrix whose rows are users: they have no columns to name.
MATRICES = (".npz", ".mtx", ".mtx.gz")


@dataclass(frozen=True)
class Columns:
    """What the columns of a table of ratings mean; an option that is not given is None."""

    user: Annotated[
        str | None, option("Data", metavar="COL", help="Of a table: the column of users (user).", show_default=False)
    ] = None
    item: Annotated[
        str | None, option("Data", metavar="COL", help="Of a table: the column of items (item).", show_default=False)
    ] = None
    value: Annotated[
        str | None,
        option("Data", metavar="COL", help="Of a table: that of ratings (value, rating, or 1).", show_default=False),
    ] = None

    @property
    def given(self) -> dict[str, str]:
        """The options that were given, as arguments of :func:`leyden.open_ratings`."""
        return {name: value for name, value in vars(self).items() if name != "data" and value is not None}


@dataclass(frozen=True, kw_only=True)
class Feedback(Columns):
    """Where the ratings are."""

    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA",
            help="A store that leyden ingest wrote, Parquet or CSV files of ratings, or a sparse matrix (.npz, .mtx).",
            show_default=False,
        ),
    ]

    def open(self, memory: str | None = None, progress: bool | None = None) -> Rows:
        """The ratings; tables and matrices are read into memory."""
        return open_ratings(self.data, self.given, memory, progress)


def open_ratings(data: list[str], given: dict[str, Any], memory: str | None, progress: bool | None = None) -> Rows:
    """Ratings by the names of files or of a store, and arguments of :func:`leyden.open_ratings`."""
    if len(data) == 1 and data[0].lower().endswith(MATRICES):
        from leyden.errors import OptionError
        from leyden.rows import open as open_rows

        for name in given:
            raise OptionError(f"{name}= is a column of a table, and this is a matrix", where=data[0])
        return open_rows(data[0])
    from leyden.rows.ingest import open_ratings as open_tables

    return open_tables(data[0] if len(data) == 1 else data, **given, memory=memory, progress=progress)
