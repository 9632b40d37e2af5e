"""A mixed model on a page, as statisticians print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from leyden.solve.mixed.result import MixedModel, RandomEffects


def summary(model: MixedModel, level: float) -> str:
    """The page."""
    by = {"REML": "restricted maximum likelihood (REML)", "ML": "maximum likelihood (ML)"}[model.method]
    groups = ", ".join(f"{g.group} {len(g.ids):,}" for g in model.groupings.values())
    lines = [
        f"Linear mixed model by {by}{', covariances given' if model.given else ''}",
        f"  {model.formula}",
        f"  {model.n:,} rows; groups: {groups}",
        f"  log-likelihood {model.log_likelihood:.4f}   AIC {model.aic:.2f}   BIC {model.bic:.2f}",
        "",
        "Random effects",
        *_random(model),
        "",
        "Fixed effects",
        *_fixed(model, level),
    ]
    return "\n".join(lines)


def _random(model: MixedModel) -> list[str]:
    rows: list[tuple[str, ...]] = [("group", "coefficient", "variance", "std. dev.", "correlation")]
    for g in model.groupings.values():
        for j, name in enumerate(g.columns):
            note = " ".join(f"{c:+.2f}" for c in _correlations(g, j))
            rows.append((g.group if j == 0 else "", name, f"{g.covariance[j, j]:.6g}", f"{g.deviations[j]:.6g}", note))
    rows.append(("residual", "", f"{model.sigma2:.6g}", f"{np.sqrt(model.sigma2):.6g}", ""))
    lines = table(rows)
    for g in model.groupings.values():
        if g.edge:
            zero = [name for name, d in zip(g.columns, g.deviations, strict=True) if d == 0]
            what = f"the variance of {', '.join(zero)} is zero" if zero else "its covariance is singular"
            lines.append(f"  {g.group}: {what}: the estimate is on the edge of what is possible")
    return lines


def _correlations(g: RandomEffects, j: int) -> list[float]:
    """Of coefficient j with those before it in its block."""
    first = 0
    for _, size in g.blocks:
        if first <= j < first + size:
            break
        first += size
    d = g.deviations
    return [float(g.covariance[j, i] / (d[i] * d[j])) if d[i] * d[j] > 0 else float("nan") for i in range(first, j)]


def _fixed(model: MixedModel, level: float) -> list[str]:
    side = f"{(1 - level) / 2:.3g}".lstrip("0"), f"{(1 + level) / 2:.3g}".lstrip("0")
    rows: list[tuple[str, ...]] = [("", "estimate", "std. error", "z", "p", f"[{side[0]}", f"{side[1]}]")]
    width = float(ndtri((1 + level) / 2))
    errors, z, p = model.standard_errors, model.z_values, model.p_values
    for name, value in model.fixed.items():
        ends = value - width * errors[name], value + width * errors[name]
        rows.append(
            (
                name,
                f"{value:.6g}",
                f"{errors[name]:.4g}",
                f"{z[name]:.3f}",
                _p(p[name]),
                *(f"{end:.5g}" for end in ends),
            )
        )
    return table(rows)


def _p(p: float) -> str:
    return "<.0001" if p < 1e-4 else f"{p:.4f}".lstrip("0") if p < 1 else "1.0000"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns under one another, the first to the left and numbers to the right."""
    widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
    text = {0} | {j for j in range(len(rows[0])) if not any(any(c.isdigit() for c in row[j]) for row in rows[1:])}
    return [
        "  " + "  ".join(f"{cell:<{w}}" if j in text else f"{cell:>{w}}" for j, (cell, w) in
                         enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
