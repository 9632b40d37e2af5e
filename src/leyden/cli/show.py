"""Results on a terminal, as tables, and for programs, as JSON."""

from __future__ import annotations

import json
import math
import sys
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from leyden.cli.peak import peak_rss
from leyden.cli.verbs import as_typed
from leyden.engine.budget import format_bytes

if TYPE_CHECKING:
    from leyden.certificate import Certificate
    from leyden.solution import Solution
    from leyden.solve.least_squares import LeastSquares

#: Coefficients shown; the rest is in the saved solution and in JSON.
MAX_COEFFICIENTS = 20
#: Targets shown side by side.
MAX_TARGETS = 4


def console() -> Console:
    """Standard output; in a file, where nobody resizes a window, wide enough for a certificate."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def print_json(document: Any) -> None:
    """One JSON document on standard output; NaN and infinities are null."""
    typer.echo(json.dumps(plain(document), indent=1, allow_nan=False))


def plain(value: Any) -> Any:
    """Values that JSON has: arrays as lists, numbers that are not finite as None."""
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def solution_document(solution: LeastSquares) -> dict[str, Any]:
    """A least-squares solution as plain values."""
    return {
        "verb": solution.kind,
        "shape": solution.shape,
        "ridge": solution.ridge,
        "rank": solution.rank,
        "columns": solution.columns,
        "targets": solution.targets,
        "x": solution.x,
        "intercept": solution.intercept if solution.has_intercept else None,
        "coefficient_error": solution.coefficient_error,
        "intercept_error": solution.intercept_error if solution.has_intercept else None,
        "residual_norm": solution.residual_norm,
        "r2": solution.r2,
        "certificate": solution.certificate.to_json(),
        "plan": solution.plan.to_json(),
        "trace": solution.trace.to_json(),
        "peak_rss": peak_rss(),
    }


def print_solution(solution: LeastSquares, out: Path | None = None) -> None:
    """Problem, coefficients, certificate, passes and verdict."""
    to = console()
    to.print(f"[bold]least squares[/] {escape(solution.plan.data)}")
    to.print(f"method {solution.plan.method}, rank {solution.rank}", style="dim")
    to.print(coefficient_table(solution))
    hidden = len(solution.columns) - MAX_COEFFICIENTS
    if hidden > 0:
        where = f'leyden.load("{out}").x' if out else "--json, or in a folder with --out"
        to.print(f"  and {hidden:,} smaller ones: {escape(where)}", style="dim")
    to.print(f"  {_fit(solution)}")
    print_evidence(solution, out)


def print_evidence(solution: Solution, out: Path | None = None, passes: Table | None = None) -> None:
    """Certificate, passes (in a table of their own, if there is one) and verdict, and where it was saved."""
    to = console()
    to.print(certificate_table(solution.certificate))
    to.print(pass_table(solution) if passes is None else passes)
    to.print(
        f"  peak memory of this process {format_bytes(peak_rss())}, budget {format_bytes(solution.plan.memory)}",
        style="dim",
    )
    for remark in solution.trace.remarks:
        to.print(f"  {escape(remark)}", style="dim")
    print_verdict(solution.certificate)
    if out is not None:
        to.print(f"saved in {escape(str(out))}")


def print_verification(certificate: Certificate, folder: Path, data: str) -> None:
    """A certificate that was computed again, and the verdict."""
    to = console()
    to.print(f"[bold]verify[/] {escape(str(folder))} on {escape(data)}")
    if certificate.bounds:
        to.print(certificate_table(certificate))
    print_verdict(certificate, "FAILS")


def print_verdict(certificate: Certificate, failing: str = "DOES NOT HOLD") -> None:
    """HOLDS in green; or else, loudly, what does not and why."""
    to = console()
    if certificate.holds:
        to.print("[bold green]HOLDS[/]")
        return
    to.print(f"[bold white on red] {failing} [/]")
    for failure in certificate.failures:
        to.print(Padding(Text(as_typed(failure), "red"), (0, 0, 0, 2)))
    for bound in certificate.bounds.values():
        if not bound.holds:
            asked = "" if bound.tolerance is None else f", and {bound.tolerance:.0e} was asked for"
            sentence = f"{bound.name} is {bound.value:.1e}{asked} ({bound.meaning})"
            to.print(Padding(Text(sentence, "red"), (0, 0, 0, 2)))


def coefficient_table(solution: LeastSquares, rows: int = MAX_COEFFICIENTS) -> Table:
    """The largest coefficients, each with the certified bound on its error."""
    import numpy as np

    targets = solution.targets[:MAX_TARGETS]
    x = solution.x.reshape(len(solution.columns), -1)
    error = solution.coefficient_error.reshape(x.shape)
    table = plain_table()
    table.add_column("coefficient")
    for name in targets:
        table.add_column(Text(name if len(targets) > 1 else "estimate"), justify="right")
        table.add_column("± certified", justify="right")
    shown = np.argsort(-effects(solution), kind="stable")[:rows]
    for j in shown:
        table.add_row(Text(solution.columns[j]), *_estimates(x[j], error[j]))
    if solution.has_intercept:
        table.add_row(
            "(intercept)", *_estimates(np.atleast_1d(solution.intercept), np.atleast_1d(solution.intercept_error))
        )
    return table


def _estimates(x: Any, error: Any) -> list[str]:
    pairs = zip(x[:MAX_TARGETS], error[:MAX_TARGETS], strict=True)
    return [text for value, bound in pairs for text in (f"{value:.10g}", amount(bound))]


def effects(solution: LeastSquares) -> Any:
    """|estimate| × spread of its column (about the mean, with an intercept), the largest over targets."""
    import numpy as np

    coefficients = solution.x.reshape(len(solution.columns), -1)
    return (np.abs(coefficients) * solution.column_spread[:, None]).max(axis=1)


def _fit(solution: LeastSquares) -> str:
    import numpy as np

    pairs = zip(np.atleast_1d(solution.r2), np.atleast_1d(solution.residual_norm), solution.targets, strict=True)
    several = len(solution.targets) > 1
    fits = [
        f"{escape(name) + ': ' if several else ''}R² {r2:.6g}, residual norm {norm:.6g}" for r2, norm, name in pairs
    ]
    more = f"; and {len(fits) - MAX_TARGETS} more targets" if len(fits) > MAX_TARGETS else ""
    return "; ".join(fits[:MAX_TARGETS]) + more


def certificate_table(certificate: Certificate) -> Table:
    """One line a bound."""
    table = plain_table()
    for name in ("bound", "at most", "asked", "grade", "meaning"):
        table.add_column(name, justify="right" if name in ("at most", "asked") else "left", overflow="fold")
    for bound in certificate.bounds.values():
        unsure = f"\n(but for {1 - bound.confidence:.0e})" if bound.grade == "probabilistic" else ""
        table.add_row(
            bound.name,
            amount(bound.value),
            "" if bound.tolerance is None else f"{bound.tolerance:.0e}",
            bound.grade + unsure,
            Text(bound.meaning),
            style=None if bound.holds else "red",
        )
    return table


def pass_table(solution: Solution) -> Table:
    """What each pass was predicted to take and what it took."""
    table = plain_table()
    table.add_column("pass")
    for name in ("read", "predicted", "measured", "GB/s"):
        table.add_column(name, justify="right")
    add_passes(table, solution.plan.to_json(), solution.trace.to_json())
    return table


def add_passes(table: Table, plan: dict[str, Any], trace: dict[str, Any]) -> None:
    """A line for each pass planned or made, and one for all."""
    for planned, made in zip_longest(plan["passes"], trace["passes"]):
        name, seconds = (made or planned)["name"], made and max(made["seconds"], 1e-9)
        table.add_row(
            Text(name),
            format_bytes(made["nbytes"]) if made else "",
            f"{planned['seconds']:.2f} s" if planned else "",
            f"{seconds:.2f} s" if made else "not needed",
            f"{made['nbytes'] / seconds / 1e9:.2f}" if made else "",
        )
    table.add_row("all", "", f"{plan['seconds']:.2f} s", f"{trace['seconds']:.2f} s", "", style="bold")


def plain_table() -> Table:
    """A table without rules, its columns set apart by space."""
    return Table(box=None, padding=(0, 2, 0, 2), header_style="bold", pad_edge=True)


def amount(value: float) -> str:
    """A bound, to two digits."""
    return "unknown" if math.isnan(value) else "no bound" if math.isinf(value) else f"{value:.1e}"
