"""``leyden recommend``: what somebody may like, by the factors that ``leyden als`` saved."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.cli.options import Debug, Folder, option

if TYPE_CHECKING:
    from leyden.factor.als_result import ALSResult
    from leyden.rows import Rows
    from leyden.rows.ids import Ids


@dataclass(frozen=True)
class Asked:
    """For whom, and how many."""

    user: Annotated[
        list[str] | None, option("For whom", metavar="ID", help="A user of the ratings; repeat for several.")
    ] = None
    items: Annotated[
        str | None, option("For whom", metavar="ID,ID,...", help="Somebody new, who has rated or chosen these items.")
    ] = None
    values: Annotated[
        str | None,
        option("For whom", metavar="R,R,...", help="With --items: the ratings of these; 1 by default, if implicit."),
    ] = None
    similar: Annotated[
        list[str] | None,
        option("For whom", metavar="ID", help="Nobody: the items most like this one; repeat for several."),
    ] = None
    every: Annotated[
        Path | None,
        option("For whom", "--all", metavar="FILE.parquet", help="All users: write user, item, score, rank here."),
    ] = None
    k: Annotated[int, option("Output", "-k", min=1, help="Length of a list.")] = 10
    include_seen: Annotated[
        bool, option("Output", "--include-seen", help="Items that somebody has rated already may be in the list.")
    ] = False

    def check(self) -> None:
        """Refuse what is not one question."""
        from leyden.errors import OptionError

        asked = bool(self.user), self.items is not None, bool(self.similar), self.every is not None
        if asked.count(True) != 1:
            raise OptionError("it must be said for whom", hint="Give one of --user, --items, --similar and --all.")
        if self.values is not None and self.items is None:
            raise OptionError("--values are ratings of the items that --items names", hint="Give both.")
        if self.every is not None and self.every.suffix != ".parquet":
            raise OptionError(
                "recommendations are written to a .parquet file", where=str(self.every), hint="Name it so."
            )


@dataclass(frozen=True)
class List:
    """Items of highest score for a user, or most like an item."""

    kind: str
    of: Any
    items: Any
    scores: Any

    @property
    def title(self) -> str:
        if self.kind == "item":
            return f"like item {self.of}"
        return "for somebody new" if self.of is None else f"for user {self.of}"


def recommend(
    folder: Folder,
    asked: Asked,
    data: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA]", help="The ratings, when they are not where they were.", show_default=False),
    ] = None,
    memory: Annotated[str | None, option("Run", metavar="2GB", help="Budget for reading a table.")] = None,
    json: Annotated[bool, option("Output", "--json", help="Print one JSON document instead of tables.")] = False,
    debug: Debug = False,
) -> None:
    """Recommend items by a factorization that was saved: to users, to somebody new, to all, or beside an item.

    Those of highest score, without what somebody has rated already; or those whose factors point the same way.
    """
    from leyden.cli import show

    asked.check()
    solution = opened(folder, data or [], memory)
    exclude = not asked.include_seen
    if asked.every is not None:
        path = solution.write_recommendations(asked.every, asked.k, exclude_seen=exclude)
        if json:
            show.print_json({"verb": "recommend", "solution": str(folder), "out": str(path)})
        else:
            typer.echo(f"lists of {asked.k:,} for {solution.model.users:,} users written to {path}")
        return
    if asked.items is not None:
        lists = [List("user", None, *_for_somebody_new(solution, asked, exclude))]
    elif asked.similar:
        items = known(ids_of(solution.ratings, "item"), asked.similar)
        lists = [List("item", item, *solution.similar_items(item, asked.k)) for item in items]
    else:
        users = known(ids_of(solution.ratings, "user"), asked.user or [])
        lists = [List("user", user, *solution.recommend(user, asked.k, exclude_seen=exclude)) for user in users]
    if json:
        shown = [{one.kind: one.of, "items": one.items, "scores": one.scores} for one in lists]
        show.print_json({"verb": "recommend", "solution": str(folder), "lists": shown})
    else:
        _print(lists)


def _for_somebody_new(solution: ALSResult, asked: Asked, exclude_seen: bool) -> tuple[Any, Any]:
    from leyden.errors import OptionError

    assert asked.items is not None
    items = known(ids_of(solution.ratings, "item"), [item.strip() for item in asked.items.split(",")])
    values = None if asked.values is None else [_number(value) for value in asked.values.split(",")]
    if values is None and not solution.model.objective.implicit:
        raise OptionError("these factors are of ratings", hint="Give those of the items as well, with --values.")
    if values is not None and len(values) != len(items):
        raise OptionError(f"there are {len(items)} items and {len(values)} values", hint="Give one for each.")
    return solution.recommend_new(items, values, asked.k, exclude_seen=exclude_seen)


def _number(value: str) -> float:
    from leyden.errors import OptionError

    try:
        return float(value)
    except ValueError:
        raise OptionError(f"--values: {value!r} is not a number") from None


def opened(folder: Path, data: list[str], memory: str | None) -> ALSResult:
    """A factorization, with the ratings it was made from."""
    from leyden.cli import recorded
    from leyden.cli.ratings import open_ratings
    from leyden.errors import DataError, OptionError, SolutionError
    from leyden.factor.als_result import ALSResult
    from leyden.solution import load

    solution = load(folder)
    if not isinstance(solution, ALSResult):
        raise SolutionError(
            f"this is a solution of {solution.kind}", where=str(folder), hint="Recommendations are made by one of als."
        )
    hint = "Give those that it was made from."
    given = bool(data)
    if not given:
        hint = f"Name them after the folder: leyden recommend {folder} DATA."
        with contextlib.suppress(OptionError):  # that the store it was made from is gone; or it was none
            data = [str(solution.ratings.source)]
        data = data or recorded.data(folder)
    if not data:
        raise OptionError("the ratings this was made from are not at hand", where=str(folder), hint=hint)
    try:
        solution.ratings = open_ratings(data, recorded.read(folder), memory)
    except DataError as error:
        if given:
            raise
        raise DataError(error.what, where=error.where, hint=hint) from None
    if not _same_counts(solution.ratings, solution):
        raise DataError("these are not the ratings that were factored", where=solution.ratings.source, hint=hint)
    return solution


def _same_counts(rows: Rows, solution: ALSResult) -> bool:
    """Whether every item has as many ratings as when it was factored."""
    import numpy as np

    matrix = getattr(rows, "matrix", None)
    items = rows.shape[1]
    counts = getattr(rows, "item_counts", None) if matrix is None else np.bincount(matrix.indices, minlength=items)
    return counts is None or np.array_equal(counts, solution.model.item_counts)


def ids_of(rows: Rows, what: str) -> Ids:
    """The ids of users, or of items; of a matrix their numbers."""
    from leyden.rows.ids import Ids

    found = getattr(rows, f"{what}s", None)
    return found if isinstance(found, Ids) else Ids.identity(rows.shape[0 if what == "user" else 1], what)


def known(ids: Ids, typed: list[str]) -> list[Any]:
    """Ids as they were typed, as those of the data: whole numbers, or text. One that is not there is refused."""
    import numpy as np

    from leyden.errors import DataError

    some = ids.take(np.arange(min(3, len(ids)))).tolist()
    hint = f"Some that are: {', '.join(map(str, some))}."
    wanted: list[Any] = []
    for one in typed:
        try:
            wanted.append(one if ids.kind == "text" else int(one))
            (found,) = ids.index(wanted[-1:], unknown=-1)
        except (ValueError, OverflowError):
            found = -1
        if found < 0:
            raise DataError(f"{ids.what} {one!r} is not among the {len(ids):,} {ids.what}s of the ratings", hint=hint)
    return wanted


def _print(lists: list[List]) -> None:
    """A table for each list."""
    from rich.text import Text

    from leyden.cli import show

    to = show.console()
    for one in lists:
        to.print(Text(one.title, "bold"))
        if not len(one.items):
            to.print("  there is no item left")
            continue
        table = show.plain_table()
        for name in ("", "item", "score" if one.kind == "user" else "cosine"):
            table.add_column(name, justify="left" if name == "item" else "right")
        for place, (item, score) in enumerate(zip(one.items, one.scores, strict=True), 1):
            table.add_row(f"{place}", Text(str(item)), f"{score:.4f}")
        to.print(table)
