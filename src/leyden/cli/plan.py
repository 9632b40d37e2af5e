"""``leyden plan``: what a verb would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from leyden.cli import als, kernel, mixed, qr
from leyden.cli.options import Components, Output, Problem, Reading, Triplets
from leyden.cli.verbs import verb

if TYPE_CHECKING:
    from leyden.plan import Plan

app = typer.Typer(help="Say what a verb would do: method, passes, bytes, time, memory.", no_args_is_help=True)


def lstsq(reading: Reading, problem: Problem, output: Output) -> None:
    """How `leyden lstsq` would solve the problem; takes the same options."""
    from leyden.plan import lstsq as plan

    _show(plan(reading.open(), **problem.arguments, progress=output.progress), output)


def svd(reading: Reading, problem: Triplets, output: Output) -> None:
    """How `leyden svd` would factor the matrix; takes the same options."""
    from leyden.plan import svd as plan

    _show(plan(reading.open(), **problem.arguments, progress=output.progress), output)


def pca(reading: Reading, problem: Components, output: Output) -> None:
    """How `leyden pca` would find the components; takes the same options."""
    from leyden.plan import pca as plan

    _show(plan(reading.open(), **problem.arguments, progress=output.progress), output)


def _show(planned: Plan, output: Output) -> None:
    if output.json:
        from leyden.cli import show

        show.print_json(planned.to_json())
    else:
        typer.echo(str(planned))


for command in (lstsq, svd, pca):
    app.command()(verb(command))
app.command("qr")(verb(qr.plan))
app.command("als")(verb(als.plan))
app.command("mixed")(verb(mixed.plan))
app.command("kernel")(verb(kernel.plan))
