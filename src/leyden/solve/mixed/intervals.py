"""Confidence intervals of a mixed model: by curvature, or by the profile of the likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import ndtri

from leyden.errors import OptionError
from leyden.solve.mixed.estimate import Objective
from leyden.solve.mixed.likelihood import Likelihood
from leyden.solve.mixed.products import Coordinates

if TYPE_CHECKING:
    from leyden.solve.mixed.result import MixedModel

RESIDUAL = "residual"


@dataclass(frozen=True)
class Intervals:
    """Confidence intervals.

    Attributes
    ----------
    method : str
        "wald" or "profile".
    level : float
    fixed : dict from str to (float, float)
    deviations : dict from (str, str) to (float, float)
        Standard deviations by grouping and coefficient; that of the noise by ("residual", "").
    correlations : dict from (str, str, str) to (float, float)
        By grouping and two coefficients.
    """

    method: str
    level: float
    fixed: dict[str, tuple[float, float]]
    deviations: dict[tuple[str, str], tuple[float, float]]
    correlations: dict[tuple[str, str, str], tuple[float, float]]

    def __str__(self) -> str:
        from leyden.solve.mixed.summary import table

        rows: list[tuple[str, ...]] = [(f"{100 * self.level:g}% by {self.method}", "from", "to")]
        rows += [(name, f"{low:.6g}", f"{high:.6g}") for name, (low, high) in self.fixed.items()]
        for (group, column), (low, high) in self.deviations.items():
            rows.append((f"sd({' '.join(filter(None, (group, column)))})", f"{low:.6g}", f"{high:.6g}"))
        for (group, a, b), (low, high) in self.correlations.items():
            rows.append((f"cor({group} {a}, {b})", f"{low:.6g}", f"{high:.6g}"))
        return "\n".join(table(rows))


def wald(model: MixedModel, level: float) -> Intervals:
    """Intervals by the curvature of the likelihood at its largest value."""
    width = float(ndtri((1 + level) / 2))
    errors = model.standard_errors
    fixed = {name: (value - width * errors[name], value + width * errors[name]) for name, value in model.fixed.items()}
    objective = _objective(model)
    centre = np.append(model.theta, np.log(np.sqrt(model.sigma2)))
    hessian = _differences(lambda at: _both(objective, at), centre)
    covariance = 2 * np.linalg.pinv((hessian + hessian.T) / 2, rcond=1e-12)
    places, values, scales = _quantities(model, objective, centre)
    jacobian = _differences(lambda at: _quantities(model, objective, at)[1], centre).T
    deviations: dict[Any, tuple[float, float]] = {}
    correlations: dict[Any, tuple[float, float]] = {}
    for place, value, scale, row in zip(places, values, scales, jacobian, strict=True):
        error = float(np.sqrt(max(row @ covariance @ row, 0.0))) if np.isfinite(row).all() else np.inf
        known = bool(np.isfinite(value))
        low, high = (value - width * error, value + width * error) if known else (-np.inf, np.inf)
        if scale == "log":
            deviations[place] = (float(np.exp(low)), float(np.exp(high)))
        else:
            correlations[place] = (float(np.tanh(low)), float(np.tanh(high)))
    return Intervals("wald", level, fixed, deviations, correlations)


def profile(model: MixedModel, level: float) -> Intervals:
    """Intervals where twice the fall of the log-likelihood reaches a quantile of χ² with one degree of freedom.

    Standard deviations of coefficients that are correlated with others, and the effects of columns of many levels, are
    left to :func:`wald`.
    """
    objective = _objective(model, restricted=False)
    start = minimize(objective.both, model.theta, jac=True, method="L-BFGS-B") if len(model.theta) else None
    theta = model.theta if start is None else start.x
    least, limit = objective.value(theta), float(ndtri((1 + level) / 2))
    errors = model.standard_errors
    fixed = {}
    for j, name in enumerate(model.names[: len(objective.likelihood.coordinates.r) - 1]):

        def rise(value: float, j: int = j) -> float:
            return _without(objective, theta, j, value) - least

        fixed[name] = _ends(rise, model.fixed[name], errors[name], limit)
    deviations = {}
    sigma = float(np.sqrt(objective.likelihood.sigma2(objective.solve(theta))))  # type: ignore[arg-type]
    for place, index, per in _single(model, objective):
        value = sigma if index is None else abs(theta[index]) * sigma * per

        def rise_of(value: float, index: int | None = index, per: float = per) -> float:
            return _given(objective, theta, sigma, index, value / per) - least

        deviations[place] = _ends(rise_of, value, max(value, 1e-3 * sigma * per) / 4, limit, 0.0)
    return Intervals("profile", level, fixed, deviations, {})


def _ends(
    rise: Callable[[float], float], value: float, error: float, limit: float, floor: float = -np.inf
) -> tuple[float, float]:
    """Where the rise of ``−2 ℓ`` on either side of its minimum is ``limit²``."""

    def missing(at: float) -> float:
        return np.sqrt(max(rise(at), 0.0)) - limit

    found = []
    for side in (-1, 1):
        near, away = value, value + side * limit * error
        for _ in range(40):
            away = max(away, floor)
            if missing(away) >= 0 or away == floor:
                break
            near, away = away, value + 1.5 * (away - value)
        if missing(away) < 0:
            found.append(away if away == floor else side * np.inf)
        else:
            found.append(float(brentq(missing, near, away, xtol=1e-6 * error, rtol=1e-8)))
    return found[0], found[1]


def _without(objective: Objective, theta: np.ndarray, j: int, value: float) -> float:
    """The least ``−2 ℓ`` when fixed effect j has this value."""
    likelihood, at = objective.likelihood, objective.likelihood.coordinates
    r, p = at.r, len(at.r) - 1
    columns = np.column_stack([np.delete(r[:, :p], j, axis=1), r[:, p] - value * r[:, j]])
    turn, triangle = np.linalg.qr(columns)
    whole = np.eye(len(likelihood.c), len(likelihood.c) - 1)
    whole[-p - 1 :, -p:] = turn
    inner = Likelihood(
        likelihood.products.turned(turn), whole.T @ likelihood.c @ whole,
        Coordinates(at.n, at.log_weight, triangle, at.z), likelihood.widths, likelihood.groups, False,
    )  # fmt: skip
    held = Objective(inner, objective.covariances)
    if not len(theta):
        return held.value(theta)
    return float(minimize(held.both, theta, jac=True, method="L-BFGS-B", options={"ftol": 1e-12}).fun)


def _given(objective: Objective, theta: np.ndarray, sigma: float, index: int | None, value: float) -> float:
    """The least ``−2 ℓ`` when σ, or σ times one parameter, has this value."""

    def at(free: np.ndarray) -> tuple[float, np.ndarray]:
        if index is None:
            both, slope = _value(objective, free, value)
            return both, slope[:-1]
        deviation = float(np.exp(free[-1]))
        full = np.insert(free[:-1], index, value / deviation)
        both, slope = _value(objective, full, deviation)
        by_sigma = slope[-1] * deviation - slope[index] * value / deviation
        return both, np.append(np.delete(slope[:-1], index), by_sigma)

    start = theta if index is None else np.append(np.delete(theta, index), np.log(sigma))
    if not len(start):
        return at(start)[0]
    return float(minimize(at, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-12}).fun)


def _value(objective: Objective, theta: np.ndarray, sigma: float) -> tuple[float, np.ndarray]:
    """``−2 ℓ`` at a given σ, and its derivatives by the parameters and by σ."""
    likelihood = objective.likelihood
    solved = objective.solve(theta)
    if solved is None:
        return np.inf, np.zeros(len(theta) + 1)
    degrees, own = likelihood.degrees, likelihood.sigma2(solved)
    value = solved.value + degrees * (np.log(sigma**2 / own) + own / sigma**2 - 1)
    # The profile is n log σ̂² + …; at another σ the same slopes of log|V|, and σ̂² / σ² times those of n log σ̂².
    gradients, _ = likelihood.gradient(objective.inner(theta), solved, shrink=own / sigma**2)
    slope = [c.derivative(g) for c, g in zip(objective.covariances, gradients, strict=True)]
    by_sigma = degrees * (2 / sigma - 2 * own / sigma**3)
    return float(value), np.append(np.concatenate(slope) if slope else [], by_sigma)


def _both(objective: Objective, at: np.ndarray) -> np.ndarray:
    """Derivatives of ``−2 ℓ`` by the parameters and by log σ."""
    sigma = float(np.exp(at[-1]))
    slope = _value(objective, at[:-1], sigma)[1]
    slope[-1] *= sigma
    return slope


def _differences(f: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """Central differences of a function, one row for each variable."""
    rows = []
    for j in range(len(at)):
        h = np.zeros(len(at))
        h[j] = 1e-4 * max(abs(at[j]), 1e-2)
        with np.errstate(invalid="ignore"):
            rows.append((f(at + h) - f(at - h)) / (2 * h[j]))
    return np.array(rows)


def _objective(model: MixedModel, restricted: bool | None = None) -> Objective:
    if model.objective is None:
        raise OptionError("this model was loaded from a folder and has no likelihood any more", hint="Fit it again.")
    own: Objective = model.objective
    if restricted is None or restricted == own.likelihood.restricted:
        return own
    inner = own.likelihood
    other = Likelihood(inner.products, inner.c, inner.coordinates, inner.widths, inner.groups, restricted)
    return Objective(other, own.covariances)


def _quantities(
    model: MixedModel, objective: Objective, at: np.ndarray
) -> tuple[list[tuple[str, ...]], np.ndarray, list[str]]:
    """Logarithms of standard deviations and transformed correlations, with their places and scales."""
    places: list[tuple[str, ...]] = []
    values, scales = [], []
    sigma = np.exp(at[-1])
    assert model.system is not None
    for term, covariance, factor in zip(
        model.system.design.random, objective.covariances, objective.factors(at[:-1]), strict=True
    ):
        if covariance.factor is not None:
            continue
        delta = sigma**2 * factor @ factor.T
        with np.errstate(divide="ignore", invalid="ignore"):
            deviations = np.sqrt(np.diag(delta))
            for j, name in enumerate(term.columns):
                places.append((term.name, name))
                values.append(np.log(deviations[j]))
                scales.append("log")
            first = 0
            for kind, k in covariance.blocks:
                for i, j in _pairs(kind, first, k):
                    places.append((term.name, term.columns[i], term.columns[j]))
                    ratio = delta[i, j] / (deviations[i] * deviations[j])
                    values.append(np.arctanh(ratio) if abs(ratio) < 1 else np.nan)
                    scales.append("fisher")
                first += k
    places.append((RESIDUAL, ""))
    values.append(float(at[-1]))
    scales.append("log")
    return places, np.array(values), scales


def _pairs(kind: str, first: int, k: int) -> list[tuple[int, int]]:
    """Coefficients of a block that may be correlated."""
    return [(i, j) for j in range(first, first + k) for i in range(first, j) if kind == "full"]


def _single(model: MixedModel, objective: Objective) -> list[tuple[tuple[str, str], int | None, float]]:
    """Standard deviations that are one parameter times σ: place, which parameter (None: σ), and the factor."""
    found: list[tuple[tuple[str, str], int | None, float]] = []
    assert model.system is not None
    index = 0
    for term, covariance in zip(model.system.design.random, objective.covariances, strict=True):
        first = 0
        for (_, k), count in zip(covariance.blocks, covariance.counts, strict=True):
            if count == 1:
                scale = covariance.scale[first : first + k]
                one = float(np.sqrt((scale**2).mean()))
                found += [((term.name, term.columns[first + j]), index, 1 / one) for j in range(k)]
            first, index = first + k, index + count
    return [*found, ((RESIDUAL, ""), None, 1.0)]
