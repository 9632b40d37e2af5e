"""``leyden plan``: what a verb would do, without doing it."""

from __future__ import annotations

import typer

from leyden.cli import qr
from leyden.cli.options import Output, Problem, Reading
from leyden.cli.verbs import verb

app = typer.Typer(help="Say what a verb would do: method, passes, bytes, time, memory.", no_args_is_help=True)


def lstsq(reading: Reading, problem: Problem, output: Output) -> None:
    """How `leyden lstsq` would solve the problem; takes the same options."""
    from leyden.cli import show
    from leyden.solve.lstsq import plan

    planned = plan(reading.open(), **problem.arguments, progress=output.progress)
    if output.json:
        show.print_json(planned.to_json())
    else:
        typer.echo(str(planned))


app.command()(verb(lstsq))
app.command("qr")(verb(qr.plan))
