"""Covariances of random effects that make the likelihood largest.

``−2 ℓ`` is minimised over the factors Λ of the covariances, each scaled by the size of its columns: L-BFGS-B comes
near, Newton's method with differences of the exact gradient ends at the last digits. In terms of Λ a covariance on the
edge of what is possible (a variance of zero, a correlation of one) is an ordinary stationary point; it is then set to
be exactly there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from leyden.errors import DataError
from leyden.solve.mixed.likelihood import Likelihood, Solved

#: Parameters up to which second derivatives are taken.
MOST_NEWTON = 60

#: Shared columns up to which several starts are tried, and what the smaller variances begin with.
MOST_STARTED, SMALL = 1000, 0.1

#: What ``−2 ℓ`` may rise by when a covariance is put on the edge.
EDGE = 1e-7

STEP = 1e-4


@dataclass(frozen=True)
class Covariance:
    """The covariance of a term's coefficients relative to σ², as a function of parameters.

    Attributes
    ----------
    blocks : tuple of (str, int)
        Structure and size of the blocks on its diagonal: "full", "identity" (one variance for all), or "given".
    scale : ndarray, shape (k,)
        Size of the columns: parameters belong to coefficients times it.
    triangle : ndarray, shape (k, k)
        Of the coordinates of the sums.
    factor : ndarray, shape (k, k), optional
        Λ, when it is given.
    """

    blocks: tuple[tuple[str, int], ...]
    scale: np.ndarray
    triangle: np.ndarray
    factor: np.ndarray | None = None

    @property
    def k(self) -> int:
        return len(self.scale)

    @property
    def counts(self) -> list[int]:
        """Parameters of each block."""
        return [0 if self.factor is not None else 1 if kind == "identity" else k * (k + 1) // 2
                for kind, k in self.blocks]  # fmt: skip

    @property
    def count(self) -> int:
        """Parameters."""
        return sum(self.counts)

    def start(self) -> np.ndarray:
        """Parameters to begin with: variances that make each coefficient matter as much as the noise of a row."""
        if self.factor is not None:
            return np.zeros(0)
        return np.concatenate([np.ones(1) if kind == "identity" else np.eye(k)[np.tril_indices(k)]
                               for kind, k in self.blocks])  # fmt: skip

    def _parts(self, theta: np.ndarray) -> Iterator[tuple[str, slice, np.ndarray, np.ndarray]]:
        """Structure, place, parameters and scale of each block."""
        at = first = 0
        for (kind, k), count in zip(self.blocks, self.counts, strict=True):
            place = slice(at, at + k)
            scale = self.scale[place]
            if kind == "identity":
                scale = np.full(k, np.sqrt((scale**2).mean()))
            yield kind, place, theta[first : first + count], scale
            at, first = at + k, first + count

    def of(self, theta: np.ndarray) -> np.ndarray:
        """Λ."""
        if self.factor is not None:
            return self.factor
        low = np.zeros((self.k, self.k))
        for kind, place, part, scale in self._parts(theta):
            low[place, place] = (np.eye(len(scale)) * part if kind == "identity" else _lower(part)) / scale[:, None]
        return low

    def derivative(self, gradient: np.ndarray) -> np.ndarray:
        """By the parameters, given that by Λ in the coordinates of the sums."""
        if self.factor is not None:
            return np.zeros(0)
        own = self.triangle.T @ gradient
        found = []
        for kind, place, _, scale in self._parts(np.zeros(self.count)):
            block = own[place, place] / scale[:, None]
            found.append(np.array([np.trace(block)]) if kind == "identity" else block[np.tril_indices(len(scale))])
        return np.concatenate(found)

    def edged(self, theta: np.ndarray, least: float) -> np.ndarray:
        """Parameters without what is smaller than ``least``, and with positive diagonals."""
        found = []
        for kind, _, part, _ in self._parts(theta):
            if kind == "identity":
                found.append(np.where(np.abs(part) < least, 0.0, np.abs(part)))
                continue
            vectors, values, _ = np.linalg.svd(_lower(part))
            low = np.asarray(np.linalg.qr((vectors * np.where(values < least, 0.0, values)).T, mode="r")).T
            low = low * np.where(np.diag(low) < 0, -1.0, 1.0)
            found.append(low[np.tril_indices(len(low))])
        return np.concatenate(found) if found else theta


def _lower(parameters: np.ndarray) -> np.ndarray:
    """The lower triangle with these entries, row by row."""
    k = int(np.sqrt(2 * len(parameters)))
    low = np.zeros((k, k))
    low[np.tril_indices(k)] = parameters
    return low


@dataclass(frozen=True)
class Estimate:
    """What the likelihood is largest at.

    Attributes
    ----------
    theta : ndarray
    solved : Solved
    hessian : ndarray or None
        Of ``−2 ℓ`` by the parameters.
    decrement : float
        By how much ``−2 ℓ`` could still fall, to second order; infinity when it is not known.
    edge : tuple of bool
        Of each term, whether its covariance is singular.
    evaluations : int
    """

    theta: np.ndarray
    solved: Solved
    hessian: np.ndarray | None
    decrement: float
    edge: tuple[bool, ...]
    evaluations: int


class Objective:
    """``−2 ℓ`` as a function of the parameters of all terms."""

    def __init__(self, likelihood: Likelihood, covariances: Sequence[Covariance]):
        self.likelihood, self.covariances = likelihood, covariances
        self.cuts = np.cumsum([covariance.count for covariance in covariances])[:-1]
        self.evaluations = 0

    def factors(self, theta: np.ndarray) -> list[np.ndarray]:
        """Λ of each term in its own units."""
        return [c.of(part) for c, part in zip(self.covariances, np.split(theta, self.cuts), strict=True)]

    def inner(self, theta: np.ndarray) -> list[np.ndarray]:
        """Λ of each term in the coordinates of the sums."""
        return [c.triangle @ factor for c, factor in zip(self.covariances, self.factors(theta), strict=True)]

    def solve(self, theta: np.ndarray) -> Solved | None:
        self.evaluations += 1
        return self.likelihood.solve(self.inner(theta))

    def value(self, theta: np.ndarray) -> float:
        solved = self.solve(theta)
        return np.inf if solved is None else solved.value

    def both(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient."""
        solved = self.solve(theta)
        if solved is None:
            return np.inf, np.zeros(len(theta))
        gradients, _ = self.likelihood.gradient(self.inner(theta), solved)
        parts = [c.derivative(g) for c, g in zip(self.covariances, gradients, strict=True)]
        return solved.value, np.concatenate(parts)


def estimate(objective: Objective, on_step: Callable[[int, float], Any] = lambda count, value: None) -> Estimate:
    """The parameters at which ``−2 ℓ`` is least.

    Raises
    ------
    DataError
        If the likelihood cannot be computed, or has no largest value.
    """
    theta = np.concatenate([covariance.start() for covariance in objective.covariances])
    solved = objective.solve(theta)
    if solved is None:
        raise DataError(
            "the likelihood cannot be computed: rounding leaves nothing positive definite at these covariances",
            hint="Rescale the columns, or give a smaller covariance=.",
        )
    if not len(theta):
        return Estimate(theta, solved, np.zeros((0, 0)), 0.0, (False,) * len(objective.covariances), 1)

    def both(at: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.both(at)
        on_step(objective.evaluations, value)
        return value, gradient

    ways: dict[str, Any] = {"jac": True, "method": "L-BFGS-B", "options": {"maxiter": 500, "ftol": 1e-13, "gtol": 1e-7}}
    found = min((minimize(both, start, **ways) for start in _starts(objective, theta)), key=lambda one: one.fun)
    theta, hessian, decrement = _newton(both, found.x)
    edged = _edged(objective, theta)
    if not np.array_equal(np.abs(edged), np.abs(theta)):
        theta, hessian, decrement = _newton(both, edged)
        theta = _edged(objective, theta)
    final = objective.solve(theta)
    if final is None or not np.isfinite(final.value):
        raise DataError("the likelihood has no largest value", hint="Do the groups fit every row exactly?")
    factors = objective.factors(theta)
    edge = tuple(
        c.factor is None and bool(np.linalg.matrix_rank(f * c.scale[:, None], tol=1e-12) < c.k)
        for c, f in zip(objective.covariances, factors, strict=True)
    )
    return Estimate(theta, final, hessian, decrement, edge, objective.evaluations)


def _starts(objective: Objective, theta: np.ndarray) -> list[np.ndarray]:
    """Where to begin: at ``theta``, and of several terms also where one of them has most of the variance.

    Groupings that say much the same — carriers, and the airports that they fly to — leave the likelihood with more
    than one maximum. Where each likelihood takes long, the first start is all there is.
    """
    if len(objective.covariances) < 2 or len(objective.likelihood.c) > MOST_STARTED:
        return [theta]
    parts = np.split(theta, objective.cuts)
    return [theta] + [
        np.concatenate([part if s == t else SMALL * part for s, part in enumerate(parts)]) for t in range(len(parts))
    ]


def _edged(objective: Objective, theta: np.ndarray) -> np.ndarray:
    """The parameters on the edge of what is possible if the likelihood is as large there."""
    parts = np.split(theta, objective.cuts)
    value = objective.value(theta)
    for t, covariance in enumerate(objective.covariances):
        for least in (1e-2, 1e-3, 1e-5, 0.0):
            tried = [*parts[:t], covariance.edged(parts[t], least), *parts[t + 1 :]]
            if objective.value(np.concatenate(tried)) <= value + EDGE:
                parts = tried
                break
    return np.concatenate(parts)


def _newton(
    both: Callable[[np.ndarray], tuple[float, np.ndarray]], theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Newton's method from near the minimum; gives the parameters, second derivatives, and half of ``gᵀ |H|⁻¹ g``."""
    if len(theta) > MOST_NEWTON:
        return theta, None, np.inf
    value, gradient = both(theta)
    hessian, decrement = None, np.inf
    for _ in range(20):
        hessian, decrement, step = curvature(both, theta, gradient)
        if decrement < 1e-13 * max(1.0, abs(value)) ** 0.5:
            break
        length = 1.0
        while length > 1e-6:
            after, slope = both(theta + length * step)
            if after < value or (after <= value + 1e-10 * abs(value) and np.abs(slope).max() < np.abs(gradient).max()):
                break
            length /= 2
        else:
            break
        theta, value, gradient = theta + length * step, after, slope
    return theta, hessian, decrement


def curvature(
    both: Callable[[np.ndarray], tuple[float, np.ndarray]], theta: np.ndarray, gradient: np.ndarray | None = None
) -> tuple[np.ndarray, float, np.ndarray]:
    """Second derivatives, half of ``gᵀ |H|⁻¹ g``, and the step ``−|H|⁻¹ g``."""
    gradient = both(theta)[1] if gradient is None else gradient
    hessian = _second(both, theta)
    values, vectors = np.linalg.eigh(hessian)
    along = vectors.T @ gradient
    size = np.maximum(np.abs(values), 1e-10 * max(np.abs(values).max(), 1e-300))
    return hessian, float((along**2 / size).sum() / 2), -vectors @ (along / size)


def _second(both: Callable[[np.ndarray], tuple[float, np.ndarray]], theta: np.ndarray) -> np.ndarray:
    """Second derivatives by central differences of the gradient."""
    rows = []
    for j in range(len(theta)):
        h = STEP * max(abs(theta[j]), 1e-2)
        away = np.zeros(len(theta))
        away[j] = h
        rows.append((both(theta + away)[1] - both(theta - away)[1]) / (2 * h))
    hessian = np.array(rows)
    return (hessian + hessian.T) / 2
