r"""The certificate of a least-squares solution, from a gradient and a whitening.

Let g be the gradient ``Aᵀ W r − λx`` at the answer, measured over the data in doubled arithmetic, and W a whitening
with ``‖WᵀHW − I‖ ≤ η`` (:mod:`leyden.solve.whitening`). Put y = Wᵀg and F = ‖y‖. All bounds below take the rounding
error σ of g into account.

*Optimality.* The exact solution z* satisfies H(z* − z) = g, so z* − z = W (WᵀHW)⁻¹ y and
:math:`F/\sqrt{1+η} ≤ ‖\bar A(z − z^*)‖ ≤ F/\sqrt{1−η}`.

*Forward error.* :math:`z^* − z = W y + W((WᵀHW)^{-1} − I) y`, so every coefficient is off by the computed correction
``(W y)_j`` up to ``‖w_j‖ η/(1−η) F``: with a good whitening the bound is the error itself.

*Backward error* (Stewart 1977). Let e be the projection of r on the range of A. With ``ΔA = e xᵀ/‖x‖²`` the vector x
solves ``min ‖b − (A + ΔA)x‖`` exactly: the new residual is r − e, orthogonal to both A and e. Hence a relative change
of ``‖e‖ / (‖x‖ ‖A‖_F)`` makes x exact, and :math:`‖e‖ ≤ F/\sqrt{1−η}`. It is measured with columns scaled to unit norm,
so that it does not depend on units; changing *each* column by at most √p times that, relatively, suffices.

*Rank deficiency.* X then spans the directions kept; setting the others to exact zeros is a change of A by ‖A V₀‖_F,
measured from the data, which enters the backward error twice (once in A, once in r).

*Ridge.* The objective is 2λ-strongly convex, so ``‖x − x*‖ ≤ ‖g‖/λ`` and the objective is within ``‖g‖²/λ`` of its
minimum, whatever the whitening. With an unpenalised intercept g is first projected on the problem in which the
intercept has been minimised out, and what the intercept itself is above its best value, ``g0²/Σw``, is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from leyden import doubled
from leyden.certificate import Bound
from leyden.solve.coordinates import Coordinates
from leyden.solve.coordinates import norms as column_lengths
from leyden.solve.reductions import GradientResult, U, gamma
from leyden.solve.whitening import Whitening, spectral_norm_bound


@dataclass(frozen=True)
class Assessment:
    """What the certificate pass found, for the next correction as well as for the certificate.

    Attributes
    ----------
    bounds : dict of Bound
    correction : ndarray, shape (p, k)
        ``W y``: what to add to the working unknowns, in units of the targets.
    coefficient_error : ndarray, shape (d, k)
        Bound on the error of each coefficient; infinite when the rank is deficient.
    intercept_error : ndarray, shape (k,)
    """

    bounds: dict[str, Bound]
    correction: np.ndarray
    coefficient_error: np.ndarray
    intercept_error: np.ndarray

    @property
    def excess(self) -> float:
        """The largest ratio of a bound to its tolerance: what the solver drives below one."""
        return max(bound.value / bound.tolerance for bound in self.bounds.values() if bound.tolerance)

    @property
    def optimality(self) -> float:
        """The bound that corrections shrink, whatever the size of x."""
        return self.bounds["optimality"].value

    @property
    def progress(self) -> str:
        """The bounds that have a tolerance, for a remark in the trace."""
        return ", ".join(f"{b.name} {b.value:.1e}" for b in self.bounds.values() if b.tolerance)


def assess(
    coordinates: Coordinates,
    whitening: Whitening,
    gradient: GradientResult,
    x: np.ndarray,
    x0: np.ndarray,
    tol: float,
    forward_tol: float | None = None,
) -> Assessment:
    """Bounds on the error of ``x`` (d, k), ``x0`` (k,), and the correction that the same pass suggests."""
    c, d, p = coordinates, coordinates.d, coordinates.p
    w, eta = whitening.w, whitening.eta
    norms, working_norms = column_norms(c, whitening)
    # They are known up to √(1 ± η), and to the rounding of inverting W: from above where they multiply an error, from
    # below where they divide one.
    doubt = gamma(4 * p) * whitening.norm * float(np.linalg.norm(whitening.factor))
    above, below = math.sqrt(1 + eta) * (1 + doubt), math.sqrt(max(1 - eta, 0.0)) * max(1 - doubt, 0.1)

    # The gradient of the penalised objective, in working coordinates. Its error has two parts: AᵀWδr, which a
    # projection on the range of A does not amplify, and the rounding of the sums over rows, which it does.
    hi, _, gh, gl = working_gradient(c, gradient.hi, gradient.lo, x)
    residual_error, error = gradient_error(gradient, above * norms, x, x0)
    error = error + 4 * U**2 * np.abs(hi)
    working_error = error * c.scale[:p, None]
    if c.intercept:
        working_error[:d] += c.scale[:d, None] * np.abs(c.shift[:d, None]) * (error[d] + 8 * U**2 * np.abs(hi[d]))

    y = whitening.project(gh, gl)
    f = column_lengths(y)
    stretch = math.sqrt(1 + eta)
    sigma = stretch * residual_error + whitening.project_error(working_error) + whitening.rounding * f
    shrink = math.sqrt(1 - eta) if eta < 1 else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        projection = (f + sigma) / shrink
    correction = w @ y

    unknowns = np.vstack([x, x0[None]])[:p] * (below * norms[:, None])
    residual = np.hypot(np.sqrt(gradient.rr) + residual_error, math.sqrt(c.ridge) * column_lengths(x))
    backward = _backward(projection, unknowns, residual, whitening, gh, working_norms, c)
    bounds = {
        "backward_error": Bound(
            "backward_error",
            backward,
            "relative change of the matrix, columns at unit norm, that makes this the exact solution",
            "rigorous" if whitening.null is None else "measured",
            tolerance=tol,
        )
    }

    coefficient_error = np.full((d, c.k), math.inf)
    intercept_error = np.full(c.k, math.inf) if c.intercept else np.zeros(c.k)
    if whitening.null is None:
        step, step0 = c.solution(correction, targets=False)
        to_user = c.scale[:p, None] * w
        remainder = (eta / (1 - eta) if eta < 1 else math.inf) * (f + sigma) + sigma
        rounded = whitening.rounding * f
        rows = column_lengths(to_user.T)[:, None] * (1 + gamma(2 * p))
        coefficient_error = np.abs(step) * (1 + gamma(p)) + rows[:d] * (remainder + rounded)
        if c.intercept:
            # The intercept is a difference of large terms: what cancels exactly, what is rounding, is kept apart.
            terms = np.abs(c.shift[:d])
            row = to_user[d] - c.shift[:d] @ to_user[:d]
            reach = np.linalg.norm(row) + 2 * whitening.rounding * (rows[d] + terms @ rows[:d])
            slack = (rows[d] + terms @ rows[:d]) * rounded
            slack += gamma(p + 2) * (c.scale[d] * np.abs(correction[d]) + terms @ np.abs(step))
            intercept_error = np.abs(step0) + reach * remainder + slack
        forward = _relative(column_lengths(coefficient_error), column_lengths(x))
        bounds["forward_error"] = Bound(
            "forward_error", forward, "‖x − x*‖ / ‖x‖ for the exact solution x*", "rigorous", tolerance=forward_tol
        )
    elif forward_tol is not None:
        bounds["forward_error"] = Bound(
            "forward_error",
            math.inf,
            "the columns are dependent: no answer is near all that fit as well",
            "rigorous",
            tolerance=forward_tol,
        )
    bounds["optimality"] = Bound(
        "optimality",
        _relative(projection, np.sqrt(gradient.bb)),
        "‖A(x − x*)‖ / ‖b‖: fitted values to the best fitted values" + _kept(whitening),
        "rigorous",
    )
    bounds["condition"] = _condition(whitening)
    if c.ridge:
        bounds |= _ridge(c, whitening, hi, error + norms[:, None] * residual_error, x, gradient)
    bounds["rounding"] = Bound(
        "rounding",
        _relative(sigma, np.sqrt(gradient.bb)),
        "rounding of the certificate itself, in the units of optimality; every other bound includes it",
        "rigorous",
    )
    return Assessment(bounds, correction, coefficient_error, intercept_error)


def working_gradient(
    c: Coordinates, hi: np.ndarray, lo: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The doubled gradient (p, k) of the penalised objective: in the user's coordinates, then in working ones."""
    d = c.d
    hi, lo = hi.copy(), lo.copy()
    if c.ridge:
        doubled.subtract_product(hi[:d], lo[:d], np.full(d, c.ridge), x)
    gh, gl = hi.copy(), lo.copy()
    if c.intercept:
        doubled.subtract_product(gh[:d], gl[:d], c.shift[:d], np.repeat(hi[d:], d, axis=0))
        doubled.subtract_product(gh[:d], gl[:d], c.shift[:d], np.repeat(lo[d:], d, axis=0))
    gh *= c.scale[: c.p, None]
    gl *= c.scale[: c.p, None]
    return hi, lo, gh, gl


def gradient_error(
    gradient: GradientResult, norms: np.ndarray, x: np.ndarray, x0: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds on ``‖√W δr‖`` (k,) and on ``|δg|`` (p, k); see :class:`~leyden.solve.reductions.GradientResult`.

    ``norms`` (p,) are those of the columns as given, weights included.
    """
    size = np.sqrt(gradient.bb) + norms[: len(x)] @ np.abs(x)
    if len(norms) > len(x):
        size = size + norms[-1] * np.abs(x0)
    residual_error = gradient.residual_unit * size
    return residual_error, gradient.sum_unit * norms[:, None] * (np.sqrt(gradient.rr) + residual_error)


def _kept(whitening: Whitening) -> str:
    return "" if whitening.null is None else f", in the {whitening.rank} directions kept"


def _relative(value: np.ndarray, scale: np.ndarray) -> float:
    """The largest of ``value / scale``; zero over zero is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(value == 0, 0.0, value / scale)
    return float(np.nan_to_num(ratio, nan=math.inf, posinf=math.inf).max())


def column_norms(c: Coordinates, whitening: Whitening) -> tuple[np.ndarray, np.ndarray]:
    """Norms of the columns as given (with the ridge stacked below), and of the working columns."""
    factor = whitening.factor
    working = column_lengths(factor)
    original = factor / c.scale[: c.p]
    if c.intercept:
        original[:, : c.d] += np.outer(original[:, c.d], c.shift[: c.d])
    return column_lengths(original), working


def _backward(
    projection: np.ndarray,
    unknowns: np.ndarray,
    residual: np.ndarray,
    whitening: Whitening,
    working_gradient: np.ndarray,
    working_norms: np.ndarray,
    c: Coordinates,
) -> float:
    columns = math.sqrt(max(int(np.count_nonzero(working_norms)), 1))
    length = column_lengths(unknowns)
    values = []
    for t in range(len(length)):
        if projection[t] == 0:
            values.append(0.0)
        elif length[t] == 0:
            # x = 0 is exact once A is made orthogonal to b: a change of ‖Aᵀb‖ / ‖b‖.
            scaled = working_gradient[:, t] / np.where(working_norms > 0, working_norms, 1.0)
            values.append(float(np.linalg.norm(scaled)) / (residual[t] * columns))
        else:
            # Either make the residual orthogonal to the range, or make the system consistent.
            kept = projection[t] / length[t] + 4 * whitening.discarded
            values.append(min(kept, float(residual[t]) / length[t]) / columns)
    return max(values)


def _condition(whitening: Whitening) -> Bound:
    """Enclosure of the condition number of the working columns (of the directions kept)."""
    eta, w, factor = whitening.eta, whitening.w, whitening.factor
    stretch = math.sqrt((1 + eta) / (1 - eta)) if eta < 1 else math.inf
    upper = spectral_norm_bound(factor) * whitening.norm * stretch if whitening.rank else 1.0
    rng = np.random.default_rng(0)
    large, small = rng.standard_normal((2, len(w)))
    for _ in range(20):
        large, small = factor.T @ (factor @ large), w @ (w.T @ small)
        large /= max(float(np.linalg.norm(large)), np.finfo(float).tiny)
        small /= max(float(np.linalg.norm(small)), np.finfo(float).tiny)
    lower = float(np.linalg.norm(factor @ large) * np.linalg.norm(w.T @ small)) / stretch
    return Bound(
        "condition",
        upper,
        "condition number of the centred, scaled columns" + _kept(whitening),
        "rigorous",
        lower=max(1.0, lower * (1 - 1e-6)),
        relative=False,
    )


def _ridge(
    c: Coordinates, whitening: Whitening, hi: np.ndarray, error: np.ndarray, x: np.ndarray, gradient: GradientResult
) -> dict[str, Bound]:
    """Bounds from strong convexity alone."""
    g, slack = hi[: c.d], error[: c.d]
    above = np.zeros(c.k)
    if c.intercept:
        # The intercept itself is that much above its best value for these coefficients.
        above = (np.abs(hi[c.d]) + error[c.d]) ** 2 / gradient.total
        # Minimise the intercept out: subtract each column's mean times the intercept's gradient. The mean is known
        # exactly up to the whitening, and the intercept's gradient is tiny.
        factor = whitening.factor
        h = factor.T @ factor
        mean = c.shift[: c.d] + h[: c.d, c.d] / h[c.d, c.d] * c.scale[c.d] / c.scale[: c.d]
        spread = np.sqrt(np.diag(h)[: c.d] / h[c.d, c.d]) * c.scale[c.d] / c.scale[: c.d]
        g = g - mean[:, None] * hi[c.d]
        doubt = (2 * whitening.eta / max(1 - whitening.eta, 0.1) * spread + 8 * gamma(c.p) * (np.abs(mean) + spread))[
            :, None
        ]
        slack = slack + np.abs(mean)[:, None] * error[c.d] + doubt * np.abs(hi[c.d])
    size = column_lengths(np.abs(g) + slack) * (1 + gamma(c.d + 2))
    objective = gradient.rr + c.ridge * (x**2).sum(axis=0)
    return {
        "distance": Bound(
            "distance",
            _relative(size / c.ridge, column_lengths(x)),
            "‖x − x*‖ / ‖x‖, from strong convexity alone",
            "rigorous",
        ),
        "duality_gap": Bound(
            "duality_gap",
            _relative((size**2 / c.ridge + above) * (1 + 16 * U), objective),
            "objective above its minimum, relative to the objective",
            "rigorous",
        ),
    }
