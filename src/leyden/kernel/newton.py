r"""Minimising ``Σ ℓ(f_i, y_i) + ½ λ ‖w‖²`` over w, for many columns (outputs and penalties) in lockstep.

Newton's method, each step found by preconditioned conjugate gradients: one pass over the data an iteration, in which
all columns take part, and none is kept waiting by an array as long as the data. A squared loss needs one step; another
corrects what float32 products left.

The objective is λ-strongly convex, so that at any w ``P(w) − min P ≤ ‖∇P(w)‖² / 2λ``; of the squared loss also
``≤ ½ ∇Pᵀ M⁻¹ ∇P`` with a preconditioner of a part of the rows (:mod:`leyden.kernel.preconditioner`). The
lesser of both is the duality gap that is certified, and small enough in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leyden.engine.sweep import Engine
from leyden.kernel.losses import Loss
from leyden.kernel.preconditioner import Preconditioner
from leyden.kernel.products import Features, Gradient, HessianProduct, Sums, Targets
from leyden.rows import Rows

#: Newton's steps, iterations for one of them, and halvings of a step that went too far.
STEPS, ITERATIONS, HALVINGS = 40, 200, 12

#: What an iteration of conjugate gradients has to leave of the gap, of the first steps of a loss that is not quadratic.
FORCING = 0.01


@dataclass(frozen=True)
class Problem:
    """What is minimised.

    Attributes
    ----------
    rows : Rows
    features : Features
    targets : Targets
    loss : Loss
    penalties : float64, shape (p,)
        λ, one for each path of outputs.
    tol : float
        Relative duality gap.
    """

    rows: Rows
    features: Features
    targets: Targets
    loss: Loss
    penalties: np.ndarray
    tol: float

    @property
    def columns(self) -> int:
        return len(self.penalties) * self.targets.outputs

    @property
    def which(self) -> np.ndarray:
        """The number of each column's penalty."""
        return np.repeat(np.arange(len(self.penalties)), self.targets.outputs)


@dataclass(frozen=True)
class Point:
    """Weights, with gradient and value of the objective there.

    Attributes
    ----------
    w, gradient : float64, shape (D, k)
    value : float64, shape (k,)
    gap : float64, shape (k,)
        What ``P(w) − min P`` is at most.
    wrong : float64, shape (p,)
    drawn : float64, shape (p, scales)
        See :class:`leyden.kernel.products.Sums`.
    """

    w: np.ndarray
    gradient: np.ndarray
    value: np.ndarray
    gap: np.ndarray
    wrong: np.ndarray
    drawn: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """The gap beside the value."""
        return np.divide(self.gap, self.value, out=np.zeros_like(self.gap), where=self.value > 0)


def gaps(
    problem: Problem, divide: Preconditioner, gradient: np.ndarray, divided: np.ndarray | None = None
) -> np.ndarray:
    """What the objective is above its minimum at most, given its gradient (D, k) and, if known, ``M⁻¹`` of it."""
    gap = (gradient * gradient).sum(axis=0) / (2 * problem.penalties[problem.which])
    if problem.loss.quadratic and divide.below:
        divided = divide(gradient, problem.which) if divided is None else divided
        gap = np.minimum(gap, 0.5 * (gradient * divided).sum(axis=0))
    return gap


def evaluate(
    engine: Engine, problem: Problem, divide: Preconditioner, w: np.ndarray, label: str, *, double: bool = False
) -> Point:
    """The objective at ``w``: one pass."""
    reduction = Gradient(problem.features, problem.targets, problem.loss, w, double=double)
    sums: Sums
    (sums,) = engine.sweep(problem.rows, [reduction], label)
    penalty = problem.penalties[problem.which]
    gradient = sums.gradient + penalty * w
    value = sums.value + 0.5 * penalty * (w * w).sum(axis=0)
    gap = gaps(problem, divide, gradient)
    return Point(w, gradient, value, gap, sums.wrong, sums.drawn)


def minimise(
    engine: Engine, problem: Problem, preconditioner: Callable[[np.ndarray], Preconditioner], w: np.ndarray
) -> Point:
    """Newton steps until the gap, evaluated in float64, is as small as asked, or no longer falls.

    Parameters
    ----------
    preconditioner : callable
        Made for weights, near the Hessian there.
    w : ndarray, shape (D, k)
        To begin with.
    """
    divide = preconditioner(w)
    exact = bool(w.any())
    here = evaluate(engine, problem, divide, w, "gradient", double=exact)
    best: Point | None = None
    for _ in range(STEPS):
        near = here.relative.max(initial=0.0) <= problem.tol
        if near and not exact:
            here, exact = evaluate(engine, problem, divide, here.w, "gradient, certificate", double=True), True
            near = here.relative.max(initial=0.0) <= problem.tol
        if near:
            return here
        if exact:
            stalled = best is not None and here.relative.max() > 0.5 * best.relative.max()
            if best is None or here.relative.max() < best.relative.max():
                best = here
            if stalled and problem.loss.quadratic:
                return best
        step, predicted = solve(engine, problem, here, divide)
        exact = problem.loss.quadratic or bool(predicted <= problem.tol)
        here = _stepped(engine, problem, divide, here, step, exact)
    if not exact:
        here = evaluate(engine, problem, divide, here.w, "gradient, certificate", double=True)
    return here


def _stepped(
    engine: Engine, problem: Problem, divide: Preconditioner, here: Point, step: np.ndarray, exact: bool
) -> Point:
    """The point a step on, or less of it in the columns whose value would rise."""
    label = "gradient, certificate" if exact else "gradient"
    length = np.ones(problem.columns)
    for _ in range(HALVINGS):
        there = evaluate(engine, problem, divide, here.w + length * step, label, double=exact)
        worse = there.value > here.value + 1e-6 * np.abs(here.value)
        if problem.loss.quadratic or not worse.any():
            return there
        length[worse] /= 2
    return there


def solve(engine: Engine, problem: Problem, here: Point, divide: Preconditioner) -> tuple[np.ndarray, float]:
    """The step ``−H⁻¹ ∇P`` by conjugate gradients, and the relative gap that a quadratic objective would then have."""
    which, penalty = problem.which, problem.penalties[problem.which]
    x, r = np.zeros_like(here.w), -here.gradient
    first = here.gap
    q = divide(r, which)
    p, rq = q.copy(), (r * q).sum(axis=0)
    for _ in range(ITERATIONS):
        (product,) = engine.sweep(
            problem.rows, [HessianProduct(problem.features, problem.targets, problem.loss, here.w, p)], "conjugate step"
        )
        product += penalty * p
        curvature = (p * product).sum(axis=0)
        alpha = np.divide(rq, curvature, out=np.zeros_like(rq), where=curvature > 0)
        x += alpha * p
        r -= alpha * product
        # Along conjugate directions the quadratic objective has fallen by half the slope times the step.
        value = here.value + 0.5 * (here.gradient * x).sum(axis=0)
        q = divide(r, which)
        gap = gaps(problem, divide, r, q)
        goal = 0.5 * problem.tol * np.maximum(value, 0)
        if not problem.loss.quadratic:
            goal = np.maximum(goal, FORCING * first)
        if (gap <= goal).all():
            break
        new = (r * q).sum(axis=0)
        p = q + np.divide(new, rq, out=np.zeros_like(new), where=rq > 0) * p
        rq = new
    relative = np.divide(gap, value, out=np.full_like(gap, math.inf), where=value > 0)
    return x, float(relative.max(initial=0.0))
