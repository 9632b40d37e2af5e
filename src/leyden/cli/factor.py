"""What ``leyden svd`` and ``leyden pca`` do alike: read, factor, save, plot, show."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from leyden.cli.options import Cluster, Factored, Output, Reading
from leyden.cli.verbs import FAILED


@dataclass(frozen=True)
class Places:
    """Where an answer is written: a folder, a plot, and a file of rows: left vectors, scores or coefficients."""

    out: Path | None
    plot: Path | None
    rows: Path | None
    ending: str = ".npy"

    def check_free(self) -> None:
        """Refuse what could not be written, before the work is done."""
        from leyden.cli import recorded
        from leyden.errors import SolutionError

        if self.out is not None:
            recorded.check_free(self.out)
            folder = self.out.resolve()
            for file in (self.plot, self.rows):
                if file is not None and file.resolve().is_relative_to(folder):
                    raise SolutionError(
                        "a file among those of the solution would be lost when it is saved again",
                        where=str(file),
                        hint="Name it beside the folder.",
                    )
        if self.rows is not None:
            _check_file(self.rows, self.ending)
        if self.plot is not None:
            from leyden.report import plots

            plots.check(self.plot)


def _check_file(path: Path, ending: str) -> None:
    from leyden.errors import SolutionError

    path = path.expanduser()
    if path.suffix != ending:
        raise SolutionError(f"the rows are written to a {ending} file", where=str(path), hint="Name it so.")
    if path.is_dir() or not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise SolutionError("the file cannot be written here", where=str(path), hint="Name another one.")


def run(
    decompose: Callable[..., Any], reading: Reading, problem: Factored, cluster: Cluster, output: Output, places: Places
) -> None:
    """Factor the rows with ``decompose``, write what was asked for, show the answer, leave with its status."""
    from leyden.cli import recorded, show, show_factor
    from leyden.errors import CheckpointError

    places.check_free()
    arguments = problem.arguments
    checkpoint = arguments["checkpoint"]
    with cluster.executor(problem.memory) as executor:
        solution = decompose(reading.open(), **arguments, executor=executor, progress=output.progress)
    if places.out is not None:
        recorded.save(solution, places.out, reading, checkpoint)
    if places.plot is not None:
        from leyden.report.scree import scree

        scree(solution, places.plot)
    if output.json:
        show.print_json(show_factor.document(solution))
    elif output.quiet:
        show.print_verdict(solution.certificate)
    else:
        show_factor.print_solution(solution, places.out)
    if checkpoint is not None:
        with contextlib.suppress(CheckpointError):  # somebody else may work there by now
            checkpoint.remove()
    if not solution.certificate.holds:
        raise typer.Exit(FAILED)
