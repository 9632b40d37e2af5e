"""``leyden verify``: does a saved solution belong to this data, and is it as good as it says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.cli.options import Cluster, Folder, Output, Reading, option
from leyden.cli.ratings import Columns, open_ratings
from leyden.cli.verbs import FAILED

if TYPE_CHECKING:
    from leyden.solution import Solution


def verify(
    folder: Folder,
    reading: Reading,
    columns: Columns,
    cluster: Cluster,
    output: Output,
    memory: Annotated[str | None, typer.Option(metavar="2GB", help="Budget.", rich_help_panel="Run")] = None,
    held_out: Annotated[
        Path | None,
        option("Data", metavar="FILE", help="Of als: the ratings that were held out.", show_default=False),
    ] = None,
) -> None:
    """Compute the certificate of a saved solution again, from the data.

    The options of the data are those that the solution was saved with, unless given here.
    """
    from leyden.cli import show
    from leyden.solution import load

    solution = load(folder)
    data, called = _data(solution, folder, reading, columns, memory)
    more = {} if held_out is None else {"held_out": _held_out(solution, folder, held_out, columns, memory)}
    with cluster.executor(memory) as executor:
        certificate = solution.verify(data, memory=memory, executor=executor, progress=output.progress, **more)
    if output.json:
        show.print_json({"verb": "verify", "solution": str(folder), "certificate": certificate.to_json()})
    elif output.quiet:
        show.print_verdict(certificate, "FAILS")
    else:
        show.print_verification(certificate, folder, called)
    if not certificate.holds:
        raise typer.Exit(FAILED)


#: Kinds of solutions of ratings, and of tables whose columns the model names.
_RATINGS, _TABLES = ("als", "lookup_mixed"), ("mixed", "fixed_effects")


def _data(solution: Solution, folder: Path, reading: Reading, columns: Columns, memory: str | None) -> tuple[Any, str]:
    """The data, read as the solution's was, and what to call it: rows, ratings, or the files of a table."""
    from leyden.cli import recorded

    if solution.kind in _TABLES:
        from leyden.rows.open import name_of

        _refuse(reading.given | columns.given, "a table, whose columns the model names itself", folder)
        return reading.data, name_of(reading.data)
    if solution.kind in _RATINGS:
        _refuse(reading.given, "ratings", folder)
        rows = open_ratings(reading.data, {**recorded.read(folder), **columns.given}, memory)
    else:
        _refuse(columns.given, "the rows of a matrix", folder)
        labels = getattr(solution, "labels", None) is not None
        rows = reading.open({**recorded.read(folder), **reading.given}, labels=labels)
    n, d = rows.shape
    return rows, f"{rows.source}: {n:,} × {d:,}"


def _held_out(solution: Solution, folder: Path, held_out: Path, columns: Columns, memory: str | None) -> Any:
    """Held-out ratings, read as the ratings were."""
    from leyden.cli import recorded

    if solution.kind != "als":
        _refuse({"held_out": held_out}, "this data", folder)
    return open_ratings([str(held_out)], {**recorded.read(folder), **columns.given}, memory)


def _refuse(given: dict[str, Any], what: str, folder: Path) -> None:
    """Options that say nothing about the data of this solution."""
    from leyden.errors import OptionError

    for name in given:
        raise OptionError(f"{name}= says nothing about {what}, which this is a solution of", where=str(folder))
