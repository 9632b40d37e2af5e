"""Mixed models, and regressions with absorbed factors, on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.text import Text

from leyden.cli import show
from leyden.cli.peak import peak_rss

if TYPE_CHECKING:
    from leyden.solve.absorb.model import FixedEffects
    from leyden.solve.mixed.intervals import Intervals
    from leyden.solve.mixed.result import MixedModel

#: Fixed effects shown; the rest is in the saved model and in JSON.
MAX_FIXED = 40

#: Lines that are headings.
HEADINGS = r"(?m)^(Linear mixed model.*|Least squares with absorbed factors|Random effects|Fixed effects)$"


def document(model: MixedModel | FixedEffects, intervals: Intervals | None) -> dict[str, Any]:
    """A model as plain values; the coefficients of groups and levels stay in the folder it is saved in."""
    own = _absorbed(model) if model.kind == "fixed_effects" else _mixed(model, intervals)
    return {
        "verb": model.kind,
        "formula": model.formula,
        "rows": model.n,
        "parameters": model.parameters,
        "fixed": model.fixed,
        "standard_errors": model.standard_errors,
        "p_values": model.p_values,
        **own,
        "certificate": model.certificate.to_json(),
        "plan": model.plan.to_json(),
        "trace": model.trace.to_json(),
        "peak_rss": peak_rss(),
    }


def _mixed(model: Any, intervals: Intervals | None) -> dict[str, Any]:
    return {
        "target": model.target,
        "method": model.method,
        "log_likelihood": model.log_likelihood,
        "aic": model.aic,
        "bic": model.bic,
        "z_values": model.z_values,
        "residual_variance": model.sigma2,
        "groupings": {
            name: {
                "groups": len(found.ids),
                "coefficients": found.columns,
                "covariance": found.covariance,
                "edge": found.edge,
            }
            for name, found in model.groupings.items()
        },
        "intervals": None if intervals is None else _intervals(intervals),
    }


def _absorbed(model: Any) -> dict[str, Any]:
    return {
        "t_values": model.t_values,
        "vcov": model.vcov,
        "degrees_of_freedom": model.degrees_of_freedom,
        "clusters": model.clusters,
        "dropped": model.dropped,
        "absorbed": {name: len(found.ids) for name, found in model.absorbed.items()},
        "components": model.components,
        "singletons": model.singletons,
        "rss": model.rss,
        "r2": model.r2,
        "r2_within": model.r2_within,
    }


def _intervals(found: Intervals) -> dict[str, Any]:
    return {
        "method": found.method,
        "level": found.level,
        "fixed": found.fixed,
        "deviations": [
            {"group": group, "coefficient": name, "interval": ends} for (group, name), ends in found.deviations.items()
        ],
        "correlations": [
            {"group": group, "coefficients": pair, "interval": ends}
            for (group, *pair), ends in found.correlations.items()
        ],
    }


def print_solution(
    model: MixedModel | FixedEffects,
    level: float,
    intervals: Intervals | None,
    written: Sequence[Path],
    out: Path | None = None,
) -> None:
    """Summary, intervals, certificate, passes and verdict, and what was written."""
    to = show.console()
    called = "absorbed factors" if model.kind == "fixed_effects" else "mixed model"
    to.print(f"[bold]{called}[/] {escape(model.plan.data)}")
    summary = model.summary(level=level).splitlines()
    hidden = max(len(model.names) - MAX_FIXED, 0)
    page = Text("\n".join(summary[: len(summary) - hidden]))
    page.highlight_regex(HEADINGS, "bold")
    to.print(page, soft_wrap=True)
    if hidden:
        where = f'leyden.load("{out}").fixed' if out else "--json, or in a folder with --out"
        to.print(f"  and {hidden:,} more: {escape(where)}", style="dim")
    if intervals is not None:
        heading, *lines = str(intervals).splitlines()
        to.print(Text(f"\nConfidence intervals\n{heading}", "bold"), soft_wrap=True)
        to.print(Text("\n".join(lines[:MAX_FIXED] + lines[MAX_FIXED + hidden :])), soft_wrap=True)
    to.print()
    show.print_evidence(model, out)
    for path in written:
        to.print(f"coefficients of the groups are in {escape(str(path))}", soft_wrap=True)
