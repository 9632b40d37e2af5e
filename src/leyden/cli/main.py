"""The application: every verb, registered."""

from __future__ import annotations

from typing import Annotated

import typer

from leyden.cli import plan
from leyden.cli.als import als
from leyden.cli.demo import demo
from leyden.cli.ingest import ingest
from leyden.cli.kernel import kernel, predict
from leyden.cli.lstsq import lstsq
from leyden.cli.mixed import mixed
from leyden.cli.pca import pca
from leyden.cli.qr import qr
from leyden.cli.recommend import recommend
from leyden.cli.runs import runs
from leyden.cli.svd import svd
from leyden.cli.verbs import verb
from leyden.cli.verify import verify

app = typer.Typer(
    help="Linear solves and factorizations on data larger than memory, every answer with a certificate.",
    epilog="Status: 0 the certificate holds, 1 it does not, 2 something to put right, 3 a bug, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from leyden import __version__

        typer.echo(f"leyden {__version__}")
        raise typer.Exit


@app.callback()
def leyden(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Global options; their work is done in callbacks."""


app.command()(verb(lstsq))
app.command()(verb(svd))
app.command()(verb(pca))
app.command()(verb(qr))
app.command()(verb(ingest))
app.command()(verb(als))
app.command()(verb(recommend))
app.command()(verb(mixed))
app.command()(verb(kernel))
app.command()(verb(predict))
app.add_typer(plan.app, name="plan")
app.command()(verb(verify))
app.command()(verb(runs))
app.command()(verb(demo))
