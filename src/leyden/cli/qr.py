"""``leyden qr``: from a file to its triangular factor, and its orthonormal one in another file."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.cli.options import Cluster, Means, Out, Output, Reading, option
from leyden.cli.verbs import FAILED

if TYPE_CHECKING:
    from leyden.factor.triangular import QR


@dataclass(frozen=True, kw_only=True)
class Factoring(Means):
    """What is factored, how well, and with what means."""

    q: Annotated[
        Path | None, option("Problem", metavar="FILE.npy", help="Write Q to this file.", show_default=False)
    ] = None
    tol: Annotated[
        float, option("Problem", help="Relative backward error, and distance of Q from orthonormal, to reach.")
    ] = 1e-13
    method: Annotated[
        str, option("Run", metavar="auto|gram32|gram64|tsqr|sketch", help="By default the fastest one that will do.")
    ] = "auto"

    @property
    def arguments(self) -> dict[str, Any]:
        return {**super().arguments, "q": False if self.q is None else self.q}


def qr(reading: Reading, problem: Factoring, cluster: Cluster, output: Output, out: Out = None) -> None:
    """Factor a tall matrix into Q R, and certify both factors."""
    from leyden.cli import recorded, show
    from leyden.errors import CheckpointError
    from leyden.factor.qr import qr as factor

    if out is not None:
        recorded.check_free(out)
    arguments = problem.arguments
    with cluster.executor(problem.memory) as executor:
        found = factor(reading.open(), **arguments, executor=executor, progress=output.progress)
    if out is not None:
        found.save(out, documents={recorded.NAME: recorded.document(out, reading)})
    if output.json:
        show.print_json(_document(found))
    elif output.quiet:
        show.print_verdict(found.certificate)
    else:
        _print(found, problem.q, out)
    if arguments["checkpoint"] is not None:
        with contextlib.suppress(CheckpointError):  # somebody else may work there by now
            arguments["checkpoint"].remove()
    if not found.certificate.holds:
        raise typer.Exit(FAILED)


def plan(reading: Reading, problem: Factoring, output: Output) -> None:
    """How `leyden qr` would factor the matrix; takes the same options."""
    from leyden.cli import show
    from leyden.plan import qr as plan

    planned = plan(reading.open(), **problem.arguments, progress=output.progress)
    if output.json:
        show.print_json(planned.to_json())
    else:
        typer.echo(str(planned))


def _document(found: QR) -> dict[str, Any]:
    """A factorization as plain values."""
    from leyden.cli.peak import peak_rss

    return {
        "verb": found.kind,
        "shape": found.shape,
        "columns": found.columns,
        "R": found.R,
        "certificate": found.certificate.to_json(),
        "plan": found.plan.to_json(),
        "trace": found.trace.to_json(),
        "peak_rss": peak_rss(),
    }


def _print(found: QR, q: Path | None, out: Path | None) -> None:
    """Problem, the diagonal of R, certificate, passes and verdict."""
    import numpy as np
    from rich.markup import escape

    from leyden.cli import show

    to = show.console()
    to.print(f"[bold]QR factorization[/] {escape(found.plan.data)}")
    to.print(f"method {found.plan.method}", style="dim")
    diagonal = np.diag(found.R)
    to.print(f"  diagonal of R from {diagonal.min():.6g} to {diagonal.max():.6g}")
    to.print(show.certificate_table(found.certificate))
    to.print(show.pass_table(found))
    for remark in found.trace.remarks:
        to.print(f"  {escape(remark)}", style="dim")
    show.print_verdict(found.certificate)
    if q is not None:
        to.print(f"Q is in {escape(str(q))}")
    if out is not None:
        to.print(f"saved in {escape(str(out))}")
