r"""Widths learned from the data: how far each column reaches, such that held-out rows are predicted well.

For widths θ (one a column) and a penalty λ let ``w = (Z_AᵀZ_A + λ)⁻¹ Z_AᵀY_A`` be the ridge regression on half of a
sample, and ``L(θ, λ) = ½ ‖Z_B w − Y_B‖²`` its loss on the other half. With residuals ``r = Z_B w − Y_B`` and
``e = Y_A − Z_A w`` and one more solve, ``v = (Z_AᵀZ_A + λ)⁻¹ Z_Bᵀ r``, the derivative of L is exact and costs no more
than L itself: that of features in the direction of a column is again a product with frequencies, and

``dL = Σ_B r·(dz w) + Σ_A e·(dz v) − Σ_A (z v)·(dz w)``  (the implicit function theorem; Bengio 2000).

Adam (Kingma and Ba 2015) takes steps in log θ and log λ, each with another draw of features and another division of the
sample, so that neither is learned by heart; the mean of the last steps is what comes out. The first half of the steps,
which only have to find the way, are of half as many features and rows, and cost a fifth. This is automatic relevance
determination (Neal 1996) by held-out loss rather than evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg as sl

from leyden.engine.reduction import Scratch
from leyden.engine.workshop import Workshop
from leyden.kernel.fourier import Fourier
from leyden.kernel.kernels import Kernel

#: Features and steps at most; rows in each half at most, a feature, and at least.
FEATURES, STEPS = 1_000, 60
ROWS, LEAST = 20, 4_000
#: Parts that threads work on, and rows of them whose derivatives are summed at a time.
PARTS, BLOCK = 8, 256
#: First and last length of a step, of logarithms.
FAST, SLOW = 0.2, 0.02
#: Penalty to begin with, relative to the rows.
FIRST_PENALTY = 1e-6


@dataclass(frozen=True)
class Learned:
    """Widths (d,), the penalty relative to the rows, and the relative held-out loss before and after."""

    widths: np.ndarray
    penalty: float
    before: float
    after: float


def learn(
    kernel: Kernel,
    points: np.ndarray,
    y: np.ndarray,
    *,
    seed: int = 0,
    features: int = FEATURES,
    steps: int = STEPS,
    threads: int = 1,
) -> Learned:
    """Widths for standardised points.

    Parameters
    ----------
    kernel : Kernel
        Its width is where to begin.
    points : float32, shape (m, d)
    y : float64, shape (m, k)
        Targets, of classes ±1.
    seed : int
    features : int
        Even.
    steps, threads : int
    """
    m, d = points.shape
    random = np.random.default_rng([seed, 3])
    state = np.append(np.log(np.broadcast_to(1 / np.asarray(kernel.width, np.float64), d)), math.log(FIRST_PENALTY))
    mean, square, kept, losses = np.zeros(d + 1), np.zeros(d + 1), [], []
    scale = float(((y - y.mean(axis=0)) ** 2).mean()) or 1.0
    draws = _Draws(kernel, d, threads)
    for step in range(steps):
        size = features if step >= steps // 2 else features // 4 * 2
        half = min(m // 2, max(LEAST, ROWS * size))
        order = random.permutation(m)[: 2 * half]
        loss, gradient = draws.gradient(
            state, points, y / math.sqrt(scale), order[:half], order[half:], size, seed + step
        )  # fmt: skip
        losses.append(loss)
        mean += 0.1 * (gradient - mean)
        square += 0.02 * (gradient**2 - square)
        length = FAST * (SLOW / FAST) ** (step / max(steps - 1, 1))
        move = (mean / (1 - 0.9 ** (step + 1))) / (np.sqrt(square / (1 - 0.98 ** (step + 1))) + 1e-4)
        state = state - length * move
        if step >= steps * 2 // 3:
            kept.append(state)
    state = np.mean(kept, axis=0) if kept else state
    last = max(1, steps // 6)
    return Learned(
        np.exp(-state[:d]), float(np.exp(state[d])), float(np.mean(losses[:2])), float(np.mean(losses[-last:]))
    )  # fmt: skip


def _slice(n: int, part: int) -> slice:
    """The rows of a part."""
    return slice(n * part // PARTS, n * (part + 1) // PARTS)


class _Draws:
    """The held-out loss and its derivative, for one draw of frequencies after the other."""

    def __init__(self, kernel: Kernel, d: int, threads: int):
        self.kernel, self.d = Kernel(kernel.name), d
        self.draw = "orthogonal" if kernel.radial else "plain"
        self.scratch, self.workshop = Scratch(), Workshop(threads)

    def gradient(
        self, state: np.ndarray, points: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, size: int, seed: int
    ) -> tuple[float, np.ndarray]:
        """Twice the mean held-out loss of so many features, and the derivative of the loss by ``state``."""
        d, n = self.d, len(a)
        factors = np.exp(state[:d]).astype(np.float32)
        penalty = math.exp(state[d]) * n
        feature_map = Fourier(self.kernel, d, size, seed, self.draw)
        xa, xb, za, zb = (
            self.scratch.array(name, (n, wide), np.float32)
            for name, wide in (("xa", d), ("xb", d), ("za", size), ("zb", size))
        )

        def features(part: int) -> None:
            for x, z, chosen in ((xa, za, a), (xb, zb, b)):
                mine = _slice(n, part)
                np.multiply(points[chosen[mine]], factors, out=x[mine])
                feature_map.fill(x[mine], z[mine], self.scratch)

        self.workshop.map(features, PARTS)
        ya, yb = y[a].astype(np.float32), y[b].astype(np.float32)
        hessian = (za.T @ za).astype(np.float64)
        hessian[np.diag_indices(size)] += penalty
        factor = sl.cho_factor(hessian, overwrite_a=True, check_finite=False)
        w = sl.cho_solve(factor, (za.T @ ya).astype(np.float64), check_finite=False)
        e, r = ya - za @ w.astype(np.float32), zb @ w.astype(np.float32) - yb
        v = sl.cho_solve(factor, (zb.T @ r).astype(np.float64), check_finite=False)
        along = za @ v.astype(np.float32)
        frequencies = math.pi * feature_map.w.T
        terms = [
            (z, x, left.astype(np.float32), weights.astype(np.float32))
            for z, x, left, weights in ((zb, xb, r, w), (za, xa, e, v), (za, xa, -along, w))
        ]

        def columns(part: int) -> np.ndarray:
            mine = _slice(n, part)
            parts = [self._columns(z[mine], x[mine], left[mine], w, frequencies) for z, x, left, w in terms]
            return np.sum(parts, axis=0)

        total = np.append(np.sum(self.workshop.map(columns, PARTS), axis=0), 0.0)
        total[d] = -penalty * float((v * w).sum())
        return float((r * r).mean()), total / r.size

    def _columns(
        self, z: np.ndarray, x: np.ndarray, left: np.ndarray, w: np.ndarray, frequencies: np.ndarray
    ) -> np.ndarray:
        """``Σ_i left_i · x_ij ∂_j (z(x_i) w)`` for each column j."""
        f = len(w) // 2
        cosines, sines = np.ascontiguousarray(w[:f].T), np.ascontiguousarray(w[f:].T)
        turned, other = (self.scratch.array(name, (BLOCK, f), np.float32) for name in ("turned", "other"))
        times = np.multiply if left.shape[1] == 1 else np.matmul
        total = np.zeros(self.d)
        for first in range(0, len(z), BLOCK):  # as many rows as stay in the cache
            part = z[first : first + BLOCK]
            one, two, mine = turned[: len(part)], other[: len(part)], left[first : first + BLOCK]
            # The derivative by a projection p, of every output at once: cos' = −sin, sin' = cos.
            np.multiply(times(mine, sines, out=one), part[:, :f], out=one)
            np.multiply(times(mine, cosines, out=two), part[:, f:], out=two)
            one -= two
            total += np.einsum("ij,ij->j", x[first : first + BLOCK], one @ frequencies, dtype=np.float64)
        return total
