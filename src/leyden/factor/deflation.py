r"""What is known of ``M = D^{−½} G E^{−½}`` on the span of the factors, and the bound on ``‖M‖₂`` that follows.

Let the columns of V be those of its own right singular vectors, so that they are nearly orthogonal and may be of any
lengths. A pass over the users finds, column by column and whatever else it sees, a computed sparse matrix H that makes
``G = H − α₀ U Vᵀ`` a matrix like any other, and of this very matrix

.. math::

    M E^{½} V = D^{½} U − L, \qquad M^T D^{½} U = E^{½} V − E^{−½} ∇,

with L what a user's half-step leaves (rounding) and ∇ the gradient with respect to V. A triangle R with
``S R = E^½ V + Δ`` and orthonormal S gives, with ``C = R^{−1}``,

.. math::

    M S = D^{½} U C − L C + M Δ C, \qquad
    (I − SSᵀ) MᵀM S = (I − SSᵀ) [−E^{−½} ∇ C − Δ C + Mᵀ (M Δ − L) C].

So ``a = ‖MS‖`` and ``e = ‖(I − SSᵀ) MᵀM S‖`` are bounded by the roots of small Gram matrices and what rounding adds,
which depends on ``‖M‖`` itself. With ``c ≥ ‖M (I − SSᵀ)‖``

.. math::

    ‖M‖² ≤ λ_{max} \begin{pmatrix} a² & e \\ e & c² \end{pmatrix} =: f(‖M‖)²,

and since ``f(x) / x`` falls, every x with ``f(x) ≤ x`` is a bound. All errors scale with the column they are of: a
short column is known as well as a long one. Columns may be left out of S, and are when that makes the bound smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from leyden.solve.reductions import U, gamma

#: Lengths whose squares are at the end of the range of numbers: such columns are left out.
SHORT = 1e-130

#: How many numbers of columns are tried.
TRIED = 48


@dataclass(frozen=True)
class Deflation:
    """M on a span S of factors.

    Attributes
    ----------
    s : ndarray, shape (items, p)
        Orthonormal.
    images : ndarray, shape (items, p)
        ``MᵀM S``, as computed.
    gain, least : float
        ``‖D^½ U C‖``, at most and at least.
    turned : float
        ``‖(I − SSᵀ) E^{−½} ∇ C‖``, rounding included.
    missing : float
        ``‖L C‖``.
    mismatch : float
        ``‖Δ C‖``, and what S lacks to an orthonormal basis.
    noise : float
        What of ``turned`` is rounding.
    """

    s: np.ndarray
    images: np.ndarray
    gain: float = 0.0
    least: float = 0.0
    turned: float = 0.0
    missing: float = 0.0
    mismatch: float = 0.0
    noise: float = 0.0

    def inside(self, norm: float) -> float:
        """A bound on ``‖MS‖``, if ``‖M‖ ≤ norm``."""
        return self.gain + self.missing + self.mismatch * norm

    def inside_least(self, norm: float) -> float:
        """What ``‖MS‖`` cannot be below."""
        return max(self.least - self.missing - self.mismatch * norm, 0.0)

    def coupling(self, norm: float) -> float:
        """A bound on ``‖(I − SSᵀ) MᵀM S‖``, if ``‖M‖ ≤ norm``."""
        return self.turned + self.missing * norm + self.mismatch * (1 + norm * norm)

    def image_error(self, norm: float) -> float:
        """A bound on the error of ``images``, if ``‖M‖ ≤ norm``."""
        return self.coupling(norm) - self.turned + self.noise

    def norm(self, outside: Callable[[float], float]) -> float:
        """A bound on ``‖M‖``, given one on ``‖M (I − SSᵀ)‖²`` that may depend on it."""

        def above(x: float) -> float:
            inside = self.inside(x)
            return math.sqrt(leading(inside * inside, self.coupling(x), outside(x))) * (1 + 8 * U)

        x = above(0.0)
        for _ in range(60):
            found = above(x)
            if not math.isfinite(found):
                return math.inf
            if found <= x:
                return found
            x = found * (1 + 1e-15) if found < x * (1 + 1e-6) else 2 * found - x
        return math.inf


def leading(a: float, e: float, c: float) -> float:
    """The largest eigenvalue of ``[[a, e], [e, c]]``."""
    return (a + c) / 2 + math.hypot((a - c) / 2, e)


def nothing(items: int) -> Deflation:
    """M on no span at all."""
    return Deflation(np.zeros((items, 0)), np.zeros((items, 0)))


def deflation(
    scaled: np.ndarray,
    gradient: np.ndarray,
    weighted: np.ndarray,
    missing: np.ndarray,
    gradient_error: np.ndarray,
    gram_error: float,
) -> Deflation:
    """M on the span of the leading columns of ``E^½ V``: as many as make the bound on its norm small.

    Parameters
    ----------
    scaled : ndarray, shape (items, d)
        ``E^½ V``, its columns nearly orthogonal before E came.
    gradient : ndarray, shape (items, d)
        ``E^{−½} ∇``.
    weighted : ndarray, shape (d, d)
        ``Uᵀ D U``.
    missing : ndarray, shape (d,)
        Bounds on the lengths of the columns of L.
    gradient_error : ndarray, shape (d,)
        Bounds on the errors of the columns of ``gradient``.
    gram_error : float
        Bound on the error of entry (k, l) of ``weighted``, relative to the root of entries (k, k) and (l, l).
    """
    items = len(scaled)
    sizes = np.linalg.norm(scaled, axis=0)
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > SHORT][:items]
    if len(order) == 0:
        return nothing(items)
    scaled, sizes, gradient, weighted = (
        scaled[:, order],
        sizes[order],
        gradient[:, order],
        weighted[np.ix_(order, order)],
    )
    missing, gradient_error = missing[order], gradient_error[order]
    s, r = np.linalg.qr(scaled / sizes)
    diagonal = np.abs(np.diag(r))
    keep = int(np.argmin(np.append(diagonal > 1e-8, False)))
    if keep == 0:
        return nothing(items)
    s, r, scaled, sizes = s[:, :keep], r[:keep, :keep], scaled[:, :keep], sizes[:keep]
    inverse = solve_triangular(r, np.eye(keep))
    # Columns of Δ, relative to those of E^½ V: as measured, and what the measurement rounds.
    left = np.linalg.norm(s @ r - scaled / sizes, axis=0) + gamma(keep + 4) * np.abs(r).sum(axis=0)
    bent = float(np.linalg.norm(s.T @ s - np.eye(keep), 2)) + 16 * U * math.sqrt(keep)
    turned = -solve_triangular(r, (gradient[:, :keep] / sizes).T, trans="T").T
    inner = s.T @ turned
    outer = turned - s @ inner
    squares = outer.T @ outer
    lengths = np.sqrt(np.maximum(np.diag(weighted), 0.0))[:keep] / sizes
    relative = weighted[:keep, :keep] / np.outer(sizes, sizes)
    relative = (relative + relative.T) / 2
    gains = inverse.T @ relative @ inverse
    size = np.abs(inverse)
    slopes = np.linalg.norm(gradient[:, :keep], axis=0) / sizes
    best: tuple[float, Deflation] | None = None
    for p in _numbers(keep):
        c = size[:p, :p]
        spread = float(np.linalg.norm(c, 2)) * float(np.linalg.norm(r[:p, :p], 2))
        rounding = (gram_error + gamma(8 * p) * spread) * float(np.linalg.norm(lengths[:p] @ c) ** 2)
        largest = max(float(np.linalg.eigvalsh(gains[:p, :p])[-1]), 0.0)
        across = squares[:p, :p] + inner[p:, :p].T @ inner[p:, :p]
        turning = math.sqrt(max(float(np.linalg.eigvalsh(across)[-1]), 0.0)) * (1 + 1e-12)
        noise = float(np.linalg.norm((gradient_error[:p] / sizes[:p] + gamma(8 * p) * spread * slopes[:p]) @ c))
        tried = Deflation(
            s[:, :p],
            s[:, :p] + turned[:, :p],
            math.sqrt(largest + rounding),
            math.sqrt(max(largest - rounding, 0.0)),
            turning + noise,
            float(np.linalg.norm((missing[:p] / sizes[:p]) @ c)),
            float(np.linalg.norm(left[:p] @ c)) + 2 * bent,
            noise,
        )
        # What is left out costs as much as it is long, and a little more.
        rest = max([0.8, *(1.02 * np.diag(gains)[p:]).tolist()])
        bound = tried.norm(lambda _, rest=rest: rest)  # type: ignore[misc]
        if best is None or bound < best[0] * (1 - 1e-12):
            best = bound, tried
    assert best is not None
    return best[1]


def _numbers(keep: int) -> list[int]:
    """Numbers of columns to try: all when they are few, the largest ones and some others when they are many."""
    if keep <= TRIED:
        return list(range(keep, 0, -1))
    return sorted({*range(keep - TRIED // 2, keep + 1), *np.geomspace(1, keep, TRIED // 2).astype(int)}, reverse=True)
