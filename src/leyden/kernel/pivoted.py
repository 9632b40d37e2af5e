r"""What exact kernel machines divide by: a partial Cholesky factorization whose pivots are drawn at random.

``K ≈ F Fᵀ`` of rank r, whose pivots are rows drawn with probabilities proportional to the diagonal of what is left,
``K − F Fᵀ`` (randomly pivoted Cholesky: Chen, Epperly, Tropp and Webber 2022), some at once. With it
``(F Fᵀ + λ I)⁻¹ = (I − F (Fᵀ F + λ I)⁻¹ Fᵀ) / λ`` leaves a matrix whose condition does not depend on λ as soon as r
is some times the effective dimension (Díaz, Epperly, Frangella, Tropp and Webber 2023).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg as sl

from leyden.kernel.points import Points
from leyden.kernel.preconditioner import cholesky

#: Pivots that are drawn at once, and what is left of the trace, relatively, where no more are.
DRAWN, LEFT = 64, 1e-12


def factor(points: Points, rank: int, seed: int, drawn_at_once: int = DRAWN) -> tuple[np.ndarray, np.ndarray]:
    """F of the kernel matrix of points, float64 (n, r) with r at most ``rank``, and the pivots, int (r,), in order."""
    n = points.size
    random = np.random.default_rng([seed, 11])
    f, left, done = np.zeros((n, rank)), points.kernel.diagonal(points.points), 0
    enough, pivots = LEFT * left.sum(), np.zeros(rank, np.int64)
    while done < rank and left.sum() > enough:
        drawn = np.unique(random.choice(n, min(drawn_at_once, rank - done), p=left / left.sum()))
        columns = points.similarities(points.points[drawn]).T
        columns = columns - f[:, :done] @ f[drawn, :done].T
        (lower, _), _ = cholesky(np.ascontiguousarray(columns[drawn]), 1e-13 * float(left.sum()))
        span = slice(done, done + len(drawn))
        f[:, span] = sl.solve_triangular(lower, columns.T, lower=True, check_finite=False).T
        left = np.maximum(left - (f[:, span] ** 2).sum(axis=1), 0)
        left[drawn], pivots[span] = 0, drawn
        done += len(drawn)
    return f[:, :done], pivots[:done]


class Pivoted:
    """``(F Fᵀ + λ I)⁻¹``."""

    def __init__(self, f: np.ndarray, penalty: float):
        self.f, self.penalty = f, penalty
        self.inner, _ = cholesky(f.T @ f, penalty)

    def __call__(self, r: np.ndarray) -> np.ndarray:
        inner = sl.cho_solve(self.inner, self.f.T @ r, check_finite=False)
        return (r - self.f @ inner) / self.penalty
