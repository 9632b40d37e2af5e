"""``leyden ingest``: from tables of ratings to a store that factorizations read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.cli.options import Output, option

if TYPE_CHECKING:
    from leyden.rows.ratings import Ratings


@dataclass(frozen=True, kw_only=True)
class Table:
    """Where the ratings are, what their columns mean, and what is made of them."""

    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA", help="Parquet or CSV files, a glob, a folder, or a store.", show_default=False),
    ]
    user: Annotated[str, option("Data", metavar="COL", help="Column of users.")] = "user"
    item: Annotated[str, option("Data", metavar="COL", help="Column of items.")] = "item"
    value: Annotated[
        str | None,
        option("Data", metavar="COL", help="Column of ratings; by default value, or rating, or else all are 1."),
    ] = None
    time: Annotated[
        str | None, option("Data", metavar="COL", help="Column that says which rating is later.", show_default=False)
    ] = None
    duplicates: Annotated[
        str, option("Data", metavar="last|sum|mean|error", help="What to make of several ratings of one item.")
    ] = "last"
    holdout: Annotated[
        str | None,
        option("Data", metavar="0.1|last", help="Hold out this share, or each user's last.", show_default=False),
    ] = None
    memory: Annotated[
        str | None, option("Run", metavar="2GB", help="Budget; by default half of the memory that is free.")
    ] = None
    threads: Annotated[
        int | None, option("Run", min=1, help="By default all processors; the answer is the same.", show_default=False)
    ] = None
    seed: Annotated[int, option("Run", help="Of what is held out.")] = 0
    progress: Annotated[
        bool | None,
        option("Run", "--progress/--no-progress", help="By default on a terminal.", show_default=False),
    ] = None

    @property
    def arguments(self) -> dict[str, Any]:
        """As arguments of :func:`leyden.open_ratings`."""
        given = asdict(self)
        given["source"] = self.data[0] if len(self.data) == 1 else self.data
        del given["data"]
        return {**given, "holdout": _number(self.holdout)}


def ingest(
    table: Table,
    output: Output,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the ratings to.", rich_help_panel="Output")],
) -> None:
    """Write ratings of items by users as a store: numbered, sorted, a few bytes each."""
    from leyden.cli import show
    from leyden.rows.ingest import open_ratings

    given = table.arguments
    if output.quiet:
        given["progress"] = False
    ratings = open_ratings(**given, out=out)
    if output.json:
        show.print_json(_document(ratings, out))
    elif output.quiet:
        typer.echo(str(ratings.summary))
    else:
        _print(ratings, out)


def _number(holdout: str | None) -> float | str | None:
    """A share as a number; what is none, as it is."""
    try:
        return None if holdout is None else float(holdout)
    except ValueError:
        return holdout


def _nbytes(out: Path) -> int:
    return sum(path.stat().st_size for path in out.expanduser().rglob("*") if path.is_file())


def _document(ratings: Ratings, out: Path) -> dict[str, Any]:
    """The store as plain values."""
    return {
        "verb": "ingest",
        "out": str(out),
        **ratings.summary.to_json(),
        "levels": ratings.levels,
        "nbytes": _nbytes(out),
    }


def _print(ratings: Ratings, out: Path) -> None:
    """What was counted, a line each."""
    from rich.markup import escape

    from leyden.cli import show
    from leyden.engine.budget import format_bytes

    found, nbytes = ratings.summary, _nbytes(out)
    each = nbytes / (found.ratings + found.held_out)
    lines = {
        "rows read": (found.rows, ""),
        "users": (found.users, f"{found.users_without:,} without a rating" if found.users_without else ""),
        "items": (found.items, f"{found.items_without:,} without a rating" if found.items_without else ""),
        "ratings": (found.ratings, _values(ratings)),
        "held out": (found.held_out, ""),
        "duplicates": (found.duplicates, "rows merged into others of the same user and item"),
    }
    table = show.plain_table()
    table.show_header = False
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, (count, remark) in lines.items():
        if count or name not in ("held out", "duplicates"):
            table.add_row(name, f"{count:,}", remark)
    to = show.console()
    to.print(table)
    to.print(f"written to {escape(str(out))}: {format_bytes(nbytes)}, {each:.3g} bytes a rating, ids included")


def _values(ratings: Ratings) -> str:
    levels = ratings.levels
    if levels is None:
        return "of more than 256 different values"
    if levels.tolist() == [1.0]:
        return "all 1"
    return f"of {len(levels)} different values, {levels[0]:g} to {levels[-1]:g}"
