"""``leyden lstsq``: from a file to coefficients with a certificate."""

from __future__ import annotations

from dataclasses import asdict

import typer

from leyden.cli.options import Cluster, Out, Output, Problem, Reading
from leyden.cli.verbs import FAILED


def lstsq(reading: Reading, problem: Problem, cluster: Cluster, output: Output, out: Out = None) -> None:
    """Solve least squares or ridge regression, and certify the answer."""
    from leyden.cli import recorded, show
    from leyden.solve.lstsq import lstsq as solve

    if out is not None:
        recorded.check_free(out)
    with cluster.executor(problem.memory) as executor:
        solution = solve(reading.open(), **asdict(problem), executor=executor, progress=output.progress)
    if out is not None:
        solution.save(out, documents={recorded.NAME: recorded.document(out, reading)})
    if output.json:
        show.print_json(show.solution_document(solution))
    elif output.quiet:
        show.print_verdict(solution.certificate)
    else:
        show.print_solution(solution, out)
    if not solution.certificate.holds:
        raise typer.Exit(FAILED)
