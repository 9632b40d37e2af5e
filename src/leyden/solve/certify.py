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
measured from the data, which enters the backward error twice (once in A, once in r), and longer by what unknowns can be
longer in working coordinates.

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

    # The gradient of the penalised objective, in working coordinates. Its error has two parts: AᵀWδr, which a
    # projection on the range of A does not amplify, and the rounding of the sums over rows, which it does.
    hi, _, gh, gl = working_gradient(c, gradient.hi, gradient.lo, x)
    residual_error, error = gradient_error(gradient, x, x0)
    error = error + 4 * U**2 * np.abs(gradient.hi)
    error[:d] += 4 * U**2 * c.ridge * np.abs(x)
    working_error = error * c.scale[:p, None]
    if c.intercept:
        shifting = np.abs(c.shift[:d, None]) * (error[d] + 16 * U**2 * np.abs(hi[d])) + 8 * U**2 * np.abs(hi[:d])
        working_error[:d] += c.scale[:d, None] * shifting

    y = whitening.project(gh, gl)
    f = column_lengths(y)
    stretch = math.sqrt(1 + eta)
    sigma = stretch * residual_error + whitening.project_error(working_error) + whitening.rounding * f
    sigma = sigma + whitening.project_rounding(gh)
    shrink = math.sqrt(1 - eta) if eta < 1 else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        projection = (f + sigma) / shrink
    correction = w @ y

    backward = _backward(c, whitening, gradient, hi, error, residual_error, projection, x, x0)
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
    bounds["condition"] = _condition(c, whitening, gradient)
    if c.ridge:
        bounds |= _ridge(c, gradient, hi, error + gradient.norms[:, None] * residual_error, x)
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


def gradient_error(gradient: GradientResult, x: np.ndarray, x0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds on ``‖√W δr‖`` (k,) and on ``|δg|`` (p, k); see :class:`~leyden.solve.reductions.GradientResult`."""
    above, norms = 1 + gradient.plain_unit, gradient.norms
    size = np.sqrt(gradient.bb) + norms[: len(x)] @ np.abs(x)
    if len(norms) > len(x):
        size = size + norms[-1] * np.abs(x0)
    residual_error = above * gradient.residual_unit * size
    return residual_error, above * gradient.sum_unit * norms[:, None] * (np.sqrt(gradient.rr) + residual_error)


def _kept(whitening: Whitening) -> str:
    return "" if whitening.null is None else f", in the {whitening.rank} directions kept"


def _relative(value: np.ndarray, scale: np.ndarray) -> float:
    """The largest of ``value / scale``; zero over zero is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(value == 0, 0.0, value / scale)
    return float(np.nan_to_num(ratio, nan=math.inf, posinf=math.inf).max())


def _backward(
    c: Coordinates,
    whitening: Whitening,
    gradient: GradientResult,
    hi: np.ndarray,
    error: np.ndarray,
    residual_error: np.ndarray,
    projection: np.ndarray,
    x: np.ndarray,
    x0: np.ndarray,
) -> float:
    """The largest backward error of a target, with the rows of the ridge below the data."""
    sizes = gradient.norms * (1 - gradient.plain_unit)
    sizes[: c.d] = np.hypot(sizes[: c.d], math.sqrt(c.ridge))
    columns = math.sqrt(max(int(np.count_nonzero(sizes)), 1))
    length = column_lengths(np.vstack([x, x0[None]])[: c.p] * sizes[:, None])
    residual = np.hypot(np.sqrt(gradient.rr) + residual_error, math.sqrt(c.ridge) * column_lengths(x))
    residual *= 1 + gradient.plain_unit
    scaled = (np.abs(hi) + error + gradient.norms[:, None] * residual_error) / np.where(sizes > 0, sizes, 1.0)[:, None]
    dropped = 2 * _reach(c, sizes) * whitening.discarded
    values = []
    for t in range(c.k):
        if projection[t] == 0:
            values.append(0.0)
        elif length[t] == 0:
            # x = 0 is exact once A is made orthogonal to b: a change of ‖Aᵀb‖ / ‖b‖.
            values.append(float(np.linalg.norm(scaled[:, t])) / (residual[t] * columns) * (1 + 4 * gradient.plain_unit))
        else:
            # Either make the residual orthogonal to the range, or make the system consistent.
            kept = projection[t] / length[t] + dropped
            values.append(min(kept, float(residual[t]) / length[t]) / columns)
    return max(values)


def _reach(c: Coordinates, sizes: np.ndarray) -> float:
    """A bound on how much longer unknowns can be in working coordinates than with the columns as given at unit norm."""
    sizes = np.where(sizes > 0, sizes, 1 / c.scale[: c.p])
    stretch = float((1 / (c.scale[: c.p] * sizes)).max())
    if not c.intercept:
        return stretch
    return math.hypot(stretch, float(np.linalg.norm(c.shift[: c.d] / (c.scale[c.d] * sizes[: c.d]))))


def _condition(c: Coordinates, whitening: Whitening, gradient: GradientResult) -> Bound:
    """Enclosure of the condition number of the working columns (of the directions kept)."""
    eta, w, factor, distance = whitening.eta, whitening.w, whitening.factor, whitening.factor_distance
    stretch = math.sqrt((1 + eta) / (1 - eta)) if eta < 1 else math.inf
    largest = math.sqrt(1 + eta) * spectral_norm_bound(factor) / (1 - distance) if distance < 0.9 else math.inf
    largest = min(largest, _frobenius_norm(c, gradient))
    upper = largest * whitening.norm / math.sqrt(1 - eta) if eta < 1 else math.inf
    if whitening.rank == 0:
        upper = 1.0
    rng = np.random.default_rng(0)
    large, small = rng.standard_normal((2, len(w)))
    for _ in range(20):
        large, small = factor.T @ (factor @ large), w @ (w.T @ small)
        large /= max(float(np.linalg.norm(large)), np.finfo(float).tiny)
        small /= max(float(np.linalg.norm(small)), np.finfo(float).tiny)
    lower = float(np.linalg.norm(factor @ large) * np.linalg.norm(w.T @ small)) / stretch / (1 + distance)
    return Bound(
        "condition",
        upper,
        "condition number of the centred, scaled columns" + _kept(whitening),
        "rigorous",
        lower=max(1.0, lower * (1 - 1e-6)),
        relative=False,
    )


def _frobenius_norm(c: Coordinates, gradient: GradientResult) -> float:
    """A bound on the Frobenius norm of the working columns, rows of the ridge included, from their moments."""
    shift, squares, total = c.shift[: c.d], gradient.norms[: c.d] ** 2, gradient.total
    moved = squares - 2 * shift * gradient.means * total + shift**2 * total
    moved += 4 * gradient.plain_unit * (squares + 3 * shift**2 * total)
    working = np.append(moved, total)[: c.p] * c.scale[: c.p] ** 2 + c.penalty
    return math.sqrt(float(working.sum())) * (1 + gamma(c.p + 8))


def _ridge(
    c: Coordinates, gradient: GradientResult, hi: np.ndarray, error: np.ndarray, x: np.ndarray
) -> dict[str, Bound]:
    """Bounds from strong convexity alone."""
    g, slack = hi[: c.d], error[: c.d]
    above = np.zeros(c.k)
    if c.intercept:
        # The intercept itself is that much above its best value for these coefficients.
        above = (np.abs(hi[c.d]) + error[c.d]) ** 2 / gradient.total
        # Minimise the intercept out: subtract each column's mean times the intercept's gradient, which is tiny.
        mean = gradient.means[:, None]
        doubt = (2 * gradient.plain_unit * gradient.norms[: c.d] / math.sqrt(gradient.total))[:, None]
        slack = slack + np.abs(mean) * error[c.d] + (doubt + 4 * U * np.abs(mean)) * np.abs(hi[c.d]) + 2 * U * np.abs(g)
        g = g - mean * hi[c.d]
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
