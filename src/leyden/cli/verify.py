"""``leyden verify``: does a saved solution belong to this data, and is it as good as it says?"""

from __future__ import annotations

from typing import Annotated

import typer

from leyden.cli.options import Cluster, Folder, Output, Reading
from leyden.cli.verbs import FAILED


def verify(
    folder: Folder,
    reading: Reading,
    cluster: Cluster,
    output: Output,
    memory: Annotated[str | None, typer.Option(metavar="2GB", help="Budget.", rich_help_panel="Run")] = None,
) -> None:
    """Compute the certificate of a saved solution again, from the data.

    The options of the data are those that the solution was saved with, unless given here.
    """
    from leyden.cli import recorded, show
    from leyden.solution import load

    solution = load(folder)
    rows = reading.open({**recorded.read(folder), **reading.given})
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
