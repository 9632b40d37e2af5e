"""``leyden als``: from ratings to factors of users and items with a certificate."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.cli.factor import Places
from leyden.cli.options import Cluster, Means, Out, Output, option
from leyden.cli.ratings import Feedback, open_ratings
from leyden.cli.verbs import FAILED

if TYPE_CHECKING:
    from leyden.factor.als_result import ALSResult


@dataclass(frozen=True, kw_only=True)
class Factorization(Means):
    """What is minimised, how far, and with what means."""

    rank: Annotated[
        str, option("Problem", "--rank", "-k", metavar="K|auto", help="How many factors; auto: as many as help.")
    ] = "64"
    max_rank: Annotated[
        int | None, option("Problem", min=1, help="With --rank auto: how many at most.  [default: 256]")
    ] = None
    regularization: Annotated[
        float, option("Problem", help="λ: adds ½ λ‖u‖² of every user and item to the objective.")
    ] = 0.1
    scaling: Annotated[float, option("Problem", help="ν: λ counts n^ν times for a user or item of n ratings.")] = 0.0
    implicit: Annotated[
        bool,
        option("Problem", "--implicit", help="Values count how often something was chosen; what is not there is a 0."),
    ] = False
    alpha: Annotated[
        float | None,
        option("Problem", help="With --implicit: a value r weighs 1 + alpha r, and what is not there 1.  [default: 1]"),
    ] = None
    background: Annotated[
        float | None,
        option("Problem", help="Implicit as well: what is there weighs 1, and every pair this as a 0 besides."),
    ] = None
    biases: Annotated[bool, option("Problem", "--biases", help="Ratings as mean + bias + bias + u·v.")] = False
    centre: Annotated[bool, option("Problem", "--centre", help="Ratings as mean + u·v.")] = False
    nonnegative: Annotated[bool, option("Problem", "--nonnegative", help="Factors that are zero or more.")] = False
    tol: Annotated[float, option("Problem", help="Relative norm of the gradient the certificate must reach.")] = 1e-3
    gap: Annotated[
        float | None,
        option("Problem", help="Relative duality gap it must reach as well: how far from the best of any rank."),
    ] = None
    epochs: Annotated[int, option("Run", min=1, help="The most epochs to make.")] = 100
    held_out: Annotated[
        Path | None,
        option(
            "Run",
            metavar="FILE",
            help="Ratings to judge epochs by, as DATA is given; by default those that leyden ingest held out.",
            show_default=False,
        ),
    ] = None
    evaluate_every: Annotated[int, option("Run", min=1, help="Epochs from one such look to the next.")] = 1
    start: Annotated[str, option("Run", metavar="random|spectral", help="Factors to begin with.")] = "random"
    accelerate: Annotated[bool, option("Run", "--accelerate/--plain", help="Extrapolate from epoch to epoch.")] = True
    subspace: Annotated[
        str,
        option("Run", metavar="auto|none|N", help="Improve N factors at a time where ratings are many; none: exactly."),
    ] = "auto"
    method: Annotated[
        str, option("Run", metavar="auto|resident|streamed", help="By default in memory, if ratings and users fit.")
    ] = "auto"

    @property
    def arguments(self) -> dict[str, Any]:
        from leyden.errors import OptionError

        given = super().arguments
        implicit = self.implicit or self.background is not None
        if self.alpha is not None and not implicit:
            raise OptionError("alpha= is for implicit feedback", hint="Give implicit= as well.")
        if self.alpha is not None and self.background is not None:
            raise OptionError("alpha= and background= are two ways to weigh", hint="Leave one out.")
        rank: int | str = int(self.rank) if self.rank.strip().lstrip("+-").isdecimal() else self.rank
        if self.max_rank is not None and rank != "auto":
            raise OptionError(f"max_rank= has no meaning with a rank of {self.rank}", hint="Give rank=auto.")
        by_default = {"alpha": 1.0, "max_rank": 256}
        given |= {name: value for name, value in by_default.items() if given[name] is None}
        subspace: int | str | None = None if self.subspace == "none" else self.subspace
        if isinstance(subspace, str) and subspace.strip().lstrip("+-").isdecimal():
            subspace = int(subspace)
        return {**given, "rank": rank, "implicit": implicit, "subspace": subspace}


Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.svg|png",
        help="Plot the objective after each epoch, and its lower bound.",
        rich_help_panel="Output",
        show_default=False,
    ),
]


def als(
    feedback: Feedback, problem: Factorization, cluster: Cluster, output: Output, out: Out = None, plot: Plot = None
) -> None:
    """Factor ratings into users and items, explicit or implicit, and certify how good the factors are.

    Ratings that leyden ingest held out, or those of --held-out, are foretold as well: of a sample of users after each
    epoch, of all in the end.
    """
    from leyden.cli import recorded, show, show_als
    from leyden.errors import CheckpointError
    from leyden.factor.als import als as factor

    Places(out, plot, None).check_free()
    arguments = _arguments(feedback, problem, output)
    checkpoint = arguments["checkpoint"]
    with cluster.executor(problem.memory) as executor:
        ratings = feedback.open(problem.memory, output.progress)
        solution = factor(ratings, **arguments, executor=executor, progress=output.progress)
    held_out = foretold(solution, arguments["held_out"])
    if out is not None:
        recorded.save(solution, out, feedback, checkpoint)
    if plot is not None:
        from leyden.report.convergence import convergence

        convergence(solution, plot)
    if output.json:
        show.print_json(show_als.document(solution, held_out))
    elif output.quiet:
        show.print_verdict(solution.certificate)
    else:
        show_als.print_solution(solution, held_out, out)
    if checkpoint is not None:
        with contextlib.suppress(CheckpointError):  # somebody else may work there by now
            checkpoint.remove()
    if not solution.certificate.holds:
        raise typer.Exit(FAILED)


def _arguments(feedback: Feedback, problem: Factorization, output: Output) -> dict[str, Any]:
    """What the library is called with; held-out ratings are read as the ratings are."""
    arguments = problem.arguments
    if problem.held_out is not None:
        data = [str(problem.held_out)]
        arguments["held_out"] = open_ratings(data, feedback.given, problem.memory, output.progress)
    return arguments


def foretold(solution: ALSResult, held_out: Any) -> Any:
    """How well held-out ratings are foretold; None when there are none."""
    return None if solution.held_out is None else solution.evaluate(held_out)


def plan(feedback: Feedback, problem: Factorization, output: Output) -> None:
    """How `leyden als` would factor the ratings; takes the same options."""
    from leyden.cli import show
    from leyden.factor.als import als as factor

    ratings = feedback.open(problem.memory, output.progress)
    planned = factor.plan(ratings, **_arguments(feedback, problem, output), progress=output.progress)
    if output.json:
        show.print_json(planned.to_json())
    else:
        typer.echo(str(planned))
