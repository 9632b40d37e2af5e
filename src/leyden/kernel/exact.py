r"""Kernel ridge regression with the kernel itself, for rows that fit in memory: ``(K + λ I) α = y``.

``f(x) = offset + Σ α_i k(x, x_i)`` minimises ``½ Σ (f(x_i) − y_i)² + ½ λ ‖f‖²`` over all functions of the kernel. It is
found by conjugate gradients divided by a randomly pivoted Cholesky factorization (:mod:`leyden.kernel.pivoted`), with
products by float32 tiles of K, which are kept if they fit and made again if not. Residuals are formed anew in float64
until they are small enough; where the rounding of tiles stands in the way (λ small beside 6e-8 n), tiles are of float64
from then on. The residuals certify: with ``r = y − (K + λ I) α`` and the solution α*,

* the objective is ``½ rᵀ K (K + λ I)⁻¹ r ≤ ½ ‖r‖²`` above its minimum;
* ``‖K (α − α*)‖ ≤ ‖r‖``, over the rows that were fitted;
* ``|f(x) − f*(x)| ≤ (k(x, x) rᵀ (K + λ I)⁻¹ K (K + λ I)⁻¹ r)^½ ≤ ‖r‖ (k(x, x) / 4λ)^½`` at every x, and k(x, x) = 1 of
  all kernels but those that have no bound.

What rounding can have hidden of r is added to its norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.certificate import Bound
from leyden.engine.local import single_threaded_blas
from leyden.kernel.generalisation import score_error
from leyden.kernel.pivoted import Pivoted, factor
from leyden.kernel.points import Points

#: Rows of a tile of K; iterations between residuals in float64, and such rounds at most.
TILE, ITERATIONS, ROUNDS = 256, 200, 12
#: The rank of the factorization is this many times the root of the rows, and at least.
RANK, LEAST_RANK = 8, 200
#: What float32 products may leave of a residual before it is formed again.
REFRESHED = 1e-4


@dataclass(frozen=True)
class Solved:
    """Coefficients, and what is known of them.

    Attributes
    ----------
    alpha : float64, shape (n, outputs)
    value : float64, shape (outputs,)
        The objective.
    residual : float64, shape (outputs,)
        ``‖r‖`` at most.
    iterations : int
    """

    alpha: np.ndarray
    value: np.ndarray
    residual: np.ndarray
    iterations: int

    @property
    def w(self) -> np.ndarray:
        """α, as weights of :class:`leyden.kernel.points.Points`."""
        return self.alpha


class KernelMatrix:
    """Products with K, tile by tile in threads.

    Parameters
    ----------
    points : Points
    memory : int
        Bytes that tiles may be kept in.
    threads : int
    """

    def __init__(self, points: Points, memory: int, threads: int):
        self.points, self.memory, self.threads = points, memory, threads
        self.keep(np.float32)

    def keep(self, dtype: Any) -> None:
        """Let products be of tiles of that type, and keep these if they fit."""
        self.dtype, n = dtype, self.points.size
        self.kept: np.ndarray | None = None
        if np.dtype(dtype).itemsize * n * n <= self.memory:
            kept: np.ndarray = np.empty((n, n), dtype)
            self._each(lambda span: np.copyto(kept[span], self._tile(span, dtype)))
            self.kept = kept

    def times(self, p: np.ndarray) -> np.ndarray:
        """``K p`` (n, k) by products of tiles."""
        out, factor = np.empty(p.shape), p.astype(self.dtype, copy=False)

        def multiply(span: slice) -> None:
            tile = self._tile(span, self.dtype) if self.kept is None else self.kept[span]
            out[span] = tile @ factor

        self._each(multiply)
        return out

    def exactly(self, p: np.ndarray) -> np.ndarray:
        """The same in float64."""
        out = np.empty(p.shape)

        def multiply(span: slice) -> None:
            out[span] = self._tile(span, np.float64) @ p

        self._each(multiply)
        return out

    def _tile(self, span: slice, dtype: type) -> np.ndarray:
        return self.points.similarities(self.points.points[span], dtype)

    def _each(self, work: Callable[[slice], None]) -> None:
        spans = [slice(first, first + TILE) for first in range(0, self.points.size, TILE)]
        with single_threaded_blas(), ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, spans))


def rank_of(n: int) -> int:
    """Columns of the factorization."""
    return min(n, max(LEAST_RANK, RANK * math.isqrt(n)))


def solve(matrix: KernelMatrix, y: np.ndarray, penalty: float, tol: float, seed: int) -> Solved:
    """α for targets ``y`` (n, outputs) without their offset, until the relative gap is ``tol`` or no longer falls.

    Parameters
    ----------
    matrix : KernelMatrix
    y : float64, shape (n, outputs)
    penalty : float
        λ.
    tol : float
    seed : int
    """
    divide = Pivoted(factor(matrix.points, rank_of(len(y)), seed)[0], penalty)
    alpha, iterations = np.zeros_like(y), 0
    best: Solved | None = None
    for _ in range(ROUNDS):
        found, r = measured(matrix, alpha, y, penalty, iterations)
        if best is None or (found.residual < best.residual).all():
            best = found
        if ((found.residual**2 <= 2 * tol * found.value) | (found.value == 0)).all():
            return found
        if (found.residual > 0.5 * best.residual).all() and found is not best:
            if matrix.dtype == np.float64:
                break
            matrix.keep(np.float64)
            alpha = best.alpha
            _, r = measured(matrix, alpha, y, penalty)
        step, count = _conjugate(matrix, divide, r, penalty, 0.5 * np.sqrt(tol * found.value))
        alpha, iterations = alpha + step, iterations + count
    return best  # type: ignore[return-value]  # there was a round


def measured(
    matrix: KernelMatrix, alpha: np.ndarray, y: np.ndarray, penalty: float, iterations: int = 0
) -> tuple[Solved, np.ndarray]:
    """The objective and the residual of α, in float64."""
    image = matrix.exactly(alpha)
    r = y - image - penalty * alpha
    value = 0.5 * ((y - image) ** 2).sum(axis=0) + 0.5 * penalty * (alpha * image).sum(axis=0)
    n = len(y)
    entry = matrix.points.rounding() + n * float(np.finfo(float).eps)
    hidden = math.sqrt(n) * entry * np.abs(alpha).sum(axis=0)
    return Solved(alpha, np.maximum(value, 0.0), np.linalg.norm(r, axis=0) + hidden, iterations), r


def _conjugate(
    matrix: KernelMatrix, divide: Pivoted, r: np.ndarray, penalty: float, goal: np.ndarray
) -> tuple[np.ndarray, int]:
    """A solution of ``(K + λ I) x = r`` by preconditioned conjugate gradients, and how many iterations it took."""
    x, r, count = np.zeros_like(r), r.copy(), 0
    q = divide(r)
    p, rq = q.copy(), (r * q).sum(axis=0)
    goal = np.maximum(goal, REFRESHED * np.linalg.norm(r, axis=0))
    while count < ITERATIONS:
        count += 1
        product = matrix.times(p) + penalty * p
        curvature = (p * product).sum(axis=0)
        step = np.divide(rq, curvature, out=np.zeros_like(rq), where=curvature > 0)
        x += step * p
        r -= step * product
        if (np.linalg.norm(r, axis=0) <= goal).all():
            break
        q = divide(r)
        new = (r * q).sum(axis=0)
        p = q + np.divide(new, rq, out=np.zeros_like(new), where=rq > 0) * p
        rq = new
    return x, count


def bounds(found: Solved, points: Points, penalty: float, tol: float) -> dict[str, Bound]:
    """The bounds on the machine of these coefficients."""
    gap, value = 0.5 * found.residual**2, found.value
    relative = float(np.divide(gap, value, out=np.zeros_like(gap), where=value > 0).max())
    # Predictions are made of similarities in float32.
    single = float(np.finfo(np.float32).eps) * points.most + points.rounding()
    evaluated = single * float(np.abs(found.alpha).sum(axis=0).max())
    # A similarity is no more than the root of both diagonals, and so is what it is off.
    everywhere = float(found.residual.max()) / (2 * math.sqrt(penalty)) + evaluated / math.sqrt(points.most or 1.0)
    bound = 1.0 if points.kernel.bounded else math.inf
    typical = float(found.residual.max()) / math.sqrt(len(found.alpha)) + evaluated
    all_bounds = [
        Bound("duality_gap", relative, "the objective is this far, relatively, above the least", "rigorous", tol),
        score_error(everywhere, bound, "the exact kernel machine", "x, √k(x, x), which has no bound"),
        Bound(
            "fitted_error", typical,
            "root mean square distance of fitted scores from those of the exact kernel machine", "rigorous",
            relative=False,
        ),
    ]  # fmt: skip
    return {bound.name: bound for bound in all_bounds}
