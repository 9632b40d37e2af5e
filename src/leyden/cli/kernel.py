"""``leyden kernel`` and ``leyden predict``: kernel machines on random features, and what they say of other rows."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leyden.cli.options import Cluster, Folder, Means, Out, Output, Reading, option
from leyden.cli.verbs import FAILED

if TYPE_CHECKING:
    from leyden.kernel.result import KernelMachine


@dataclass(frozen=True, kw_only=True)
class Machine(Means):
    """What is fitted, how well, and with what means."""

    features: Annotated[
        int | None,
        option(
            "Problem",
            "--features",
            "-D",
            min=1,
            help="Random features, centres, or grids of bins.  [default: 2000 or 50]",
        ),
    ] = None
    classify: Annotated[bool, option("Problem", "--classify", help="The target holds labels, numbers or text.")] = False
    loss: Annotated[str, option("Problem", metavar="squared|logistic|squared_hinge", help="What is minimised.")] = (
        "squared"
    )
    kernel: Annotated[
        str,
        option(
            "Problem",
            metavar="NAME",
            help="gaussian, laplacian, matern12, matern32, matern52, cauchy, arccos0, arccos1 or polynomial.",
        ),
    ] = "gaussian"
    degree: Annotated[
        int, option("Problem", min=1, help="Of the polynomial kernel (x·y/width² + constant)^degree.")
    ] = 3
    constant: Annotated[float, option("Problem", help="Of the polynomial kernel.")] = 1.0
    width: Annotated[
        str,
        option("Problem", metavar="median|learned|W", help="How far apart rows are alike, in standard deviations."),
    ] = "median"
    scale: Annotated[
        str, option("Problem", metavar="C,...", help="Times the width; of several the one that predicts best.")
    ] = "1"
    regularization: Annotated[
        str,
        option(
            "Problem", metavar="λ,...", help="Penalty, relative to the rows; of several the one that predicts best."
        ),
    ] = "1e-6"
    standardize: Annotated[
        bool, option("Problem", "--standardize/--as-is", help="Bring columns to mean zero and variance one first.")
    ] = True
    held_out: Annotated[
        float, option("Problem", help="Share of the rows that is not fitted, and measures the error.")
    ] = 0.05
    variance: Annotated[
        bool, option("Problem", "--variance", help="Keep what standard deviations of predictions are made of.")
    ] = False
    tol: Annotated[float, option("Problem", help="Relative duality gap the certificate must reach.")] = 1e-2
    map: Annotated[
        str,
        option(
            "Run",
            metavar="NAME",
            help="How features are drawn: auto, orthogonal, plain, qmc, binning, nystroem, nystroem-uniform, "
            "tensorsketch.",
        ),
    ] = "auto"
    method: Annotated[str, option("Run", metavar="auto|cg|gram", help="By default the fastest one.")] = "auto"

    @property
    def arguments(self) -> dict[str, Any]:
        from leyden.errors import OptionError

        given = super().arguments
        try:
            given["regularization"] = [float(value) for value in self.regularization.split(",")]
            given["scale"] = [float(value) for value in self.scale.split(",")]
            given["width"] = self.width if self.width in ("median", "learned") else float(self.width)
        except ValueError:
            raise OptionError(
                f"regularization={self.regularization}, width={self.width} and scale={self.scale} are to be numbers",
                hint="Write --regularization 1e-7,1e-6, --width 2.5, median or learned, and --scale 1,0.5.",
            ) from None
        return given


def kernel(reading: Reading, problem: Machine, cluster: Cluster, output: Output, out: Out = None) -> None:
    """Fit a kernel machine with random features, regression or classification, and certify it."""
    from leyden.cli import recorded, show
    from leyden.errors import CheckpointError
    from leyden.kernel.machine import kernel_machine

    if out is not None:
        recorded.check_free(out)
    arguments = problem.arguments
    checkpoint = arguments["checkpoint"]
    with cluster.executor(problem.memory) as executor:
        solution = kernel_machine(
            reading.open(labels=problem.classify), **arguments, executor=executor, progress=output.progress
        )
    if out is not None:
        recorded.save(solution, out, reading, checkpoint)
    if output.json:
        show.print_json(document(solution))
    elif output.quiet:
        show.print_verdict(solution.certificate)
    else:
        print_solution(solution, out)
    if checkpoint is not None:
        with contextlib.suppress(CheckpointError):  # somebody else may work there by now
            checkpoint.remove()
    if not solution.certificate.holds:
        raise typer.Exit(FAILED)


def plan(reading: Reading, problem: Machine, output: Output) -> None:
    """How `leyden kernel` would fit the machine; takes the same options."""
    from leyden.cli import show
    from leyden.kernel.machine import kernel_machine

    planned = kernel_machine.plan(reading.open(labels=problem.classify), **problem.arguments, progress=output.progress)
    if output.json:
        show.print_json(planned.to_json())
    else:
        typer.echo(str(planned))


def predict(
    folder: Folder,
    reading: Reading,
    output: Output,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE.npy|csv", help="Write predictions here.", rich_help_panel="Output"),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Of each class, in place of labels.", rich_help_panel="Output")
    ] = False,
    std: Annotated[
        bool,
        typer.Option("--std", help="Standard deviations too, in columns after them.", rich_help_panel="Output"),
    ] = False,
) -> None:
    """Predict the targets of rows with a saved kernel machine; where they are known, say how well."""
    import numpy as np

    from leyden.cli import show
    from leyden.errors import DataError, OptionError
    from leyden.kernel.result import KernelMachine
    from leyden.solution import load

    machine = load(folder)
    if not isinstance(machine, KernelMachine):
        raise OptionError(f"this is a solution of {machine.kind}, and no kernel machine", where=str(folder))
    if to is not None and to.suffix not in (".npy", ".csv"):
        raise OptionError(f"to={to} is neither a .npy nor a .csv file")
    rows = reading.open(labels=machine.classes is not None)
    if probabilities:
        found = machine.predict_proba(rows)
    elif std:
        found = np.column_stack(machine.predict(rows, return_std=True))
    else:
        found = machine.predict(rows)
    if to is not None and to.suffix == ".npy":
        np.save(to, found)
    elif to is not None:
        np.savetxt(to, found, delimiter=",", fmt="%s" if found.dtype.kind == "U" else "%.10g", encoding="utf-8")
    error = None
    if rows.targets and not probabilities:
        try:
            error = machine.error(rows)
        except DataError as unknown:  # The predictions are there, and only how good they are is not known.
            typer.echo(str(unknown), err=True)
    if output.json:
        shown = {} if to is not None else {"predictions": found}
        show.print_json({"verb": "predict", "rows": rows.shape[0], "error": error, **shown})
        return
    if to is None and not output.quiet:
        for line in np.atleast_1d(found).tolist():
            typer.echo(
                " ".join(value if isinstance(value, str) else f"{value:g}" for value in np.atleast_1d(line).tolist())
            )
    if error is not None:
        what = "wrong labels" if machine.classes is not None else "‖f − y‖ / ‖y‖"
        typer.echo(f"{what} {error:.4%} of {rows.shape[0]:,} rows", err=True)


def document(solution: KernelMachine) -> dict[str, Any]:
    """A kernel machine as plain values."""
    from leyden.cli.peak import peak_rss

    return {
        "verb": "kernel",
        "features": solution.features,
        "map": solution.map.name,
        "kernel": solution.kernel.to_json(),
        "loss": solution.loss,
        "regularization": solution.regularization,
        "path": solution.path,
        "classes": solution.classes,
        "columns": solution.columns,
        "targets": solution.names,
        "certificate": solution.certificate.to_json(),
        "plan": solution.plan.to_json(),
        "trace": solution.trace.to_json(),
        "peak_rss": peak_rss(),
    }


def print_solution(solution: KernelMachine, out: Path | None = None) -> None:
    """What was fitted, the penalties that were tried, certificate, passes and verdict."""
    import numpy as np
    from rich.markup import escape
    from rich.table import Table

    from leyden.cli import show

    to = show.console()
    to.print(f"[bold]kernel machine[/] {escape(solution.plan.data)}")
    width = np.atleast_1d(solution.kernel.width)
    shown = f"width {width[0]:.3g}" if len(np.unique(width)) == 1 else f"widths {width.min():.3g} to {width.max():.3g}"
    to.print(
        f"{solution.features:,} {solution.map.name} features of the {solution.kernel.name} kernel, {shown}, "
        f"{solution.loss.replace('_', ' ')} loss, λ = {solution.regularization:.1e}, method {solution.plan.method}",
        style="dim",
    )
    if len(solution.path) > 1:
        table = Table("scale", "λ", "wrong" if solution.classes is not None else "error", box=None, padding=(0, 2))
        least = int(np.argmin(solution.path[:, 1]))
        for number, (penalty, error, scale, _) in enumerate(solution.path.tolist()):
            table.add_row(f"{scale:g}", f"{penalty:.1e}", f"{error:.3%}", style="bold" if number == least else "")
        to.print(table)
    show.print_evidence(solution, out)
