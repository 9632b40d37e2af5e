"""``leyden mixed``: from a table to a mixed model, or to a regression with absorbed factors, with a certificate."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.cli.factor import Places
from leyden.cli.options import Cluster, Out, Output, Resources, option
from leyden.cli.verbs import FAILED

if TYPE_CHECKING:
    from leyden.solve.mixed.intervals import Intervals
    from leyden.solve.mixed.result import MixedModel


@dataclass(frozen=True)
class Table:
    """Where the rows are; what their columns mean is said by the model."""

    data: Annotated[
        list[str],
        typer.Argument(metavar="DATA", help="Parquet or CSV files, a glob, or a folder.", show_default=False),
    ]

    @property
    def given(self) -> dict[str, Any]:
        """Options of the data: there are none."""
        return {}

    @property
    def source(self) -> str | list[str]:
        """The data as :func:`leyden.mixed` takes it."""
        return self.data[0] if len(self.data) == 1 else self.data


@dataclass(frozen=True, kw_only=True)
class Model(Resources):
    """What is fitted, how well, and with what means."""

    formula: Annotated[
        str | None,
        option("Model", metavar="'Y ~ X + (1 + X | G)'", help="The model; or else what follows."),
    ] = None
    target: Annotated[str | None, option("Model", metavar="COL", help="The column to explain.")] = None
    fixed: Annotated[
        list[str] | None, option("Model", metavar="COL", help="What all rows share a coefficient of; repeat.")
    ] = None
    random: Annotated[
        list[str] | None,
        option("Model", metavar="COL", help="What each group has a coefficient of its own of; repeat."),
    ] = None
    group: Annotated[str | None, option("Model", metavar="COL", help="The column whose values are the groups.")] = None
    absorb: Annotated[
        list[str] | None,
        option("Model", metavar="COL", help="Instead of groups: a coefficient for each level, no penalty; repeat."),
    ] = None
    weights: Annotated[
        str | None, option("Model", metavar="COL", help="The noise of a row has variance σ² / weight.")
    ] = None
    covariance: Annotated[
        str,
        option("Model", metavar="estimate|diagonal|identity|NUMBER", help="Of a group's coefficients, relative to σ²."),
    ] = "estimate"
    method: Annotated[str, option("Model", metavar="REML|ML", help="Restricted or plain maximum likelihood.")] = "REML"
    vcov: Annotated[
        str, option("Model", metavar="iid|hetero|cluster", help="Standard errors with absorbed factors.")
    ] = "iid"
    cluster: Annotated[
        list[str] | None, option("Model", metavar="COL", help="With --vcov cluster: the clusters; repeat for two.")
    ] = None
    missing: Annotated[
        str, option("Model", metavar="error|drop", help="What to do about rows with missing values.")
    ] = "error"
    tol: Annotated[
        float | None,
        option("Model", help="What the certificate must reach.  [default: 1e-10; 1e-8 with absorbed factors]"),
    ] = None

    @property
    def arguments(self) -> dict[str, Any]:
        given = super().arguments
        del given["formula"]
        with contextlib.suppress(ValueError):
            given["covariance"] = float(self.covariance)
        return given

    @property
    def absorbs(self) -> bool:
        """Whether factors are absorbed."""
        from leyden.solve.mixed.formula import parse

        return bool(self.absorb) or (
            self.formula is not None and "~" in self.formula and bool(parse(self.formula).absorb)
        )

    def asked(self, table: Table) -> tuple[Any, ...]:
        """The model and the data, or the data alone, as :func:`leyden.mixed` takes them."""
        from leyden.errors import OptionError

        if self.formula is None:
            return (table.source,)
        if "~" not in self.formula:
            raise OptionError(f"'{self.formula}' is no formula", hint="Write it like 'y ~ x + (1 | group)'.")
        return self.formula, table.source


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is shown and written beside the summary."""

    intervals: Annotated[
        str | None, option("Output", metavar="wald|profile", help="Confidence intervals, of the variances as well.")
    ] = None
    level: Annotated[float, option("Output", help="Of confidence intervals.")] = 0.95
    random_out: Annotated[
        Path | None,
        option("Output", metavar="FILE.parquet", help="Coefficients of all groups, and their standard errors."),
    ] = None
    plot: Annotated[
        Path | None,
        option("Output", metavar="FILE.svg|png", help="Plot the coefficients of the groups, in order."),
    ] = None

    def check(self, absorbs: bool) -> None:
        """Refuse what could not be shown, before the work is done."""
        from leyden import options as check
        from leyden.errors import OptionError

        check.fraction("level", self.level)
        if self.intervals is not None:
            check.one_of("intervals", self.intervals, ("wald", "profile"))
        for name in ("intervals", "random_out", "plot"):
            if absorbs and getattr(self, name) is not None:
                raise OptionError(f"{name}= is of random effects, and factors are absorbed", hint="Leave it out.")

    def ends(self, model: MixedModel) -> Intervals | None:
        """Confidence intervals, if they were asked for."""
        if self.intervals is None:
            return None
        return model.confidence_intervals(level=self.level, method=self.intervals)


def mixed(table: Table, problem: Model, shown: Shown, cluster: Cluster, output: Output, out: Out = None) -> None:
    """Fit a linear mixed model, or a regression with absorbed factors, and certify its coefficients."""
    from leyden.cli import recorded, show, show_mixed
    from leyden.errors import CheckpointError
    from leyden.solve.mixed.model import mixed as fit

    shown.check(problem.absorbs)
    Places(out, shown.plot, shown.random_out, ".parquet").check_free()
    asked, arguments = problem.asked(table), problem.arguments
    checkpoint = arguments["checkpoint"]
    with cluster.executor(problem.memory) as executor:
        model = fit(*asked, **arguments, executor=executor, progress=output.progress)
    if out is not None:
        recorded.save(model, out, table, checkpoint)
    written = [] if shown.random_out is None else write_random(model, shown.random_out)
    if shown.plot is not None:
        from leyden.report.caterpillar import caterpillar

        caterpillar(model, shown.plot)
    if output.quiet and not output.json:
        show.print_verdict(model.certificate)
    else:
        intervals = shown.ends(model)
        if output.json:
            show.print_json(show_mixed.document(model, intervals))
        else:
            show_mixed.print_solution(model, shown.level, intervals, written, out)
    if checkpoint is not None:
        with contextlib.suppress(CheckpointError):  # somebody else may work there by now
            checkpoint.remove()
    if not model.certificate.holds:
        raise typer.Exit(FAILED)


def write_random(model: MixedModel, path: Path) -> list[Path]:
    """Write the coefficients of all groups; of several groupings each has a file, ``name-group.parquet``."""
    path = path.expanduser()
    if len(model.groupings) == 1:
        files = {path: next(iter(model.groupings))}
    else:
        files = {path.with_name(f"{path.stem}-{name.replace('/', '_')}{path.suffix}"): name for name in model.groupings}
    for file, name in files.items():
        model.write_random(file, name)
    return list(files)


def plan(table: Table, problem: Model, output: Output) -> None:
    """How `leyden mixed` would fit the model; takes the same options."""
    from leyden.cli import show
    from leyden.plan import mixed as plan

    planned = plan(*problem.asked(table), **problem.arguments, progress=output.progress)
    if output.json:
        show.print_json(planned.to_json())
    else:
        typer.echo(str(planned))
