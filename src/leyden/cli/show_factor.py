"""Decompositions on a terminal, as tables, and for programs, as JSON."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from leyden.cli.peak import peak_rss
from leyden.cli.show import amount, console, plain_table, print_evidence

if TYPE_CHECKING:
    from rich.table import Table

    from leyden.factor.decomposition import SVD

#: Components shown; the rest is in the saved solution and in JSON.
MAX_COMPONENTS = 20

#: Digits of singular values, and those that fit in a terminal narrower than this.
DIGITS, FEWER, NARROW = 10, 6, 100


def document(solution: SVD) -> dict[str, Any]:
    """A decomposition as plain values; its left vectors stay in the file they were written to."""
    from leyden.factor.decomposition import PrincipalComponents

    found = {
        "verb": solution.kind,
        "shape": solution.shape,
        "rank": solution.rank,
        "columns": solution.columns,
        "s": solution.s,
        "lower": solution.lower,
        "upper": solution.upper,
        "residual": solution.residual,
        "angle": solution.angle,
        "Vt": solution.Vt,
        "frobenius_norm": solution.frobenius_norm,
    }
    if isinstance(solution, PrincipalComponents):
        found |= {
            "explained_variance": solution.explained_variance,
            "explained_variance_ratio": solution.explained_variance_ratio,
            "mean": solution.mean,
            "scale": solution.scale,
        }
    return {
        **found,
        "certificate": solution.certificate.to_json(),
        "plan": solution.plan.to_json(),
        "trace": solution.trace.to_json(),
        "peak_rss": peak_rss(),
    }


def print_solution(solution: SVD, out: Path | None = None) -> None:
    """Problem, components, certificate, passes and verdict."""
    to = console()
    title = "principal components" if solution.kind == "pca" else "singular values"
    to.print(f"[bold]{title}[/] {escape(solution.plan.data)}")
    to.print(f"method {solution.plan.method}, ‖A‖_F {solution.frobenius_norm:.10g}", style="dim")
    to.print(component_table(solution, narrow=to.width < NARROW))
    hidden = solution.rank - MAX_COMPONENTS
    if hidden > 0:
        where = f'leyden.load("{out}").s' if out else "--json, or in a folder with --out"
        to.print(f"  and {hidden:,} smaller ones: {escape(where)}", style="dim")
    print_evidence(solution, out)


def component_table(solution: SVD, *, narrow: bool = False) -> Table:
    """The leading components, each with the certified enclosure of its singular value."""
    table, digits = plain_table(), FEWER if narrow else DIGITS
    if narrow:
        table.padding, table.pad_edge = (0, 1), False
    explained = _explained(solution, digits - 2, "cum." if narrow else "cumulative")
    for name in ("", "σ", "at least", "at most", *explained, "sin ∠ ≤"):
        table.add_column(name, justify="right")
    for i in range(min(solution.rank, MAX_COMPONENTS)):
        table.add_row(
            str(i + 1),
            f"{solution.s[i]:.{digits}g}",
            rounded(solution.lower[i], ROUND_FLOOR, digits),
            rounded(solution.upper[i], ROUND_CEILING, digits),
            *(column[i] for column in explained.values()),
            "no bound" if solution.angle[i] >= 1 else amount(solution.angle[i]),
        )
    return table


def _explained(solution: SVD, digits: int, cumulative: str) -> dict[str, list[str]]:
    """Columns of what principal components explain; none of what is not centred."""
    from leyden.factor.decomposition import PrincipalComponents

    if not isinstance(solution, PrincipalComponents):
        return {}
    ratio = solution.explained_variance_ratio
    return {
        "variance": [f"{variance:.{digits}g}" for variance in solution.explained_variance],
        "ratio": [f"{share:.2%}" for share in ratio],
        cumulative: [f"{share:.2%}" for share in ratio.cumsum()],
    }


def rounded(value: float, direction: str, digits: int = DIGITS) -> str:
    """A number in few digits that is no less (``ROUND_CEILING``) or no more (``ROUND_FLOOR``) than it.

    >>> rounded(1 / 3, ROUND_FLOOR), rounded(1 / 3, ROUND_CEILING)
    ('0.3333333333', '0.3333333334')
    """
    return f"{float(Context(digits, direction).create_decimal_from_float(float(value))):.{digits}g}"
