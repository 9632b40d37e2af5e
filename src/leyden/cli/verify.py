"""``leyden verify``: does a saved solution belong to this data, and is it as good as it says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leyden.cli.options import Cluster, Folder, Output, Reading
from leyden.cli.ratings import Columns, open_ratings
from leyden.cli.verbs import FAILED

if TYPE_CHECKING:
    from leyden.rows import Rows
    from leyden.solution import Solution


def verify(
    folder: Folder,
    reading: Reading,
    columns: Columns,
    cluster: Cluster,
    output: Output,
    memory: Annotated[str | None, typer.Option(metavar="2GB", help="Budget.", rich_help_panel="Run")] = None,
) -> None:
    """Compute the certificate of a saved solution again, from the data.

    The options of the data are those that the solution was saved with, unless given here.
    """
    from leyden.cli import show
    from leyden.solution import load

    solution = load(folder)
    rows = _rows(solution, folder, reading, columns, memory)
    with cluster.executor(memory) as executor:
        certificate = solution.verify(rows, memory=memory, executor=executor, progress=output.progress)
    if output.json:
        show.print_json({"verb": "verify", "solution": str(folder), "certificate": certificate.to_json()})
    elif output.quiet:
        show.print_verdict(certificate, "FAILS")
    else:
        show.print_verification(certificate, folder, rows)
    if not certificate.holds:
        raise typer.Exit(FAILED)


def _rows(solution: Solution, folder: Path, reading: Reading, columns: Columns, memory: str | None) -> Rows:
    """The data, read as the solution's was: rows, or ratings."""
    from leyden.cli import recorded
    from leyden.errors import OptionError

    of_ratings = solution.kind in ("als", "lookup_mixed")
    for name in reading.given if of_ratings else columns.given:
        what = "ratings" if of_ratings else "the rows of a matrix"
        raise OptionError(f"{name}= says nothing about {what}, which this is a solution of", where=str(folder))
    if of_ratings:
        return open_ratings(reading.data, {**recorded.read(folder), **columns.given}, memory)
    return reading.open({**recorded.read(folder), **reading.given})
