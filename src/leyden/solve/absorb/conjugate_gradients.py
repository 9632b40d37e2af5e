r"""Preconditioned conjugate gradients, several right-hand sides side by side.

Each lane runs its own recurrence [1]_; a product with the matrix and one with the preconditioner serve all of them. The
coefficients of a lane are those of a Lanczos process: the least eigenvalue θ of its tridiagonal matrix bounds the least
eigenvalue of ``M⁻¹ S`` that the right-hand side sees from above, and comes close to it long before convergence. The
error in the energy norm then is about ``√(rᵀ M⁻¹ r / θ)`` or less. This says when to stop; it is not a certificate.

References
----------
.. [1] M. R. Hestenes, E. Stiefel, "Methods of conjugate gradients for solving linear systems", J. Res. NBS 49, 1952.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

from leyden import aligned
from leyden.solve.absorb import _absorb_kernels

kernels: Any = _absorb_kernels
LANES = _absorb_kernels.LANES

#: Rayleigh quotients of ``M⁻¹ S`` below which a direction is in the null space.
SINGULAR = 1e-15

#: Iterations without a smaller residual after which rounding has the word.
STAGNANT = 200


class Operator(Protocol):
    """A symmetric matrix that is positive semidefinite."""

    def product(self, z: np.ndarray, out: np.ndarray, dots: np.ndarray) -> None:
        """``out = S z`` and ``dots = zᵀ S z``, lane by lane."""


@dataclass
class Run:
    """Where a run of conjugate gradients has come to.

    Attributes
    ----------
    x : float64, shape (n, 4)
    iterations : int
    error : float64, shape (4,)
        Estimate of the error in the energy norm.
    least : float
        Least Ritz value of the preconditioned matrix.
    converged : bool
    ahead : float
        Iterations still to go, if it goes on like this.
    left : float64, shape (4,)
        Squared norms of the columns, what the solution takes away taken off.
    """

    x: np.ndarray
    iterations: int
    error: np.ndarray
    least: float
    converged: bool
    ahead: float
    left: np.ndarray


def solve(
    operator: Operator,
    precondition: Callable[[np.ndarray, np.ndarray], None],
    b: np.ndarray,
    squares: np.ndarray,
    floor: np.ndarray,
    tol: float,
    most: int,
    x: np.ndarray | None = None,
) -> Run:
    """Solve ``S x = b`` until the error of every lane is estimated small beside what is left.

    What is left of a column is its squared norm less what the solution takes away, ``bᵀx``, which conjugate gradients
    know from step to step.

    Parameters
    ----------
    operator : Operator
    precondition : function of r and z
        Writes ``M⁻¹ r`` to z.
    b : float64, shape (n, 4)
        In the range of S.
    squares : float64, shape (4,)
        Squared norms of the columns to begin with.
    floor : float64, shape (4,)
        Squared errors that are rounding: no lane goes on below.
    tol : float
        Error in the energy norm asked for, relative to the norm of what is left.
    most : int
        Iterations at most.
    x : float64, shape (n, 4), optional
        Where to begin instead of at zero; it is changed.
    """
    r, z, s = aligned.copy(b), aligned.empty(b.shape), aligned.empty(b.shape)
    left = squares.copy()
    if x is None:
        x = aligned.zeros(b.shape)
    else:
        operator.product(x, s, np.zeros(LANES))
        left -= np.einsum("ij,ij->j", x, r + (r - s))
        r -= s
    precondition(r, z)
    p = aligned.copy(z)
    rz, before, curvature = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    kernels.dots(r, z, rz)
    start, best, since, least = rz.copy(), rz.copy(), 0, 1.0
    alphas: list[np.ndarray] = []
    betas: list[np.ndarray] = []
    live, length, beta = rz > 0, np.zeros(LANES), np.zeros(LANES)
    checks = iter(_checks())
    check = next(checks)
    for k in range(most + 1):
        targets = np.maximum(tol**2 * left, floor)
        done = np.all((rz <= least * targets) | ~live)
        if done or k in (check, most):
            least = ritz(alphas, betas)
            done = np.all((rz <= least * targets) | ~live)
            check = next(checks) if k == check else check
        since = 0 if np.any(rz < 0.9 * best) else since + 1
        best = np.minimum(best, rz)
        if done or k == most or since > STAGNANT:
            break
        operator.product(p, s, curvature)
        # pᵀ M p = rᵀz + β² times the last one: what pᵀ S p is compared with.
        length = rz + beta**2 * length
        live &= (rz > 0) & (curvature > SINGULAR * length)
        alpha = np.divide(rz, curvature, out=np.zeros(LANES), where=live)
        left -= alpha * rz
        kernels.add_scaled(x, alpha, p)
        kernels.add_scaled(r, -alpha, s)
        precondition(r, z)
        before[:] = rz
        kernels.dots(r, z, rz)
        beta = np.divide(rz, before, out=np.zeros(LANES), where=live)
        kernels.scale_add(p, beta, z)
        alphas.append(alpha)
        betas.append(beta)
    ahead = _ahead(start, rz, least * targets, len(alphas))
    return Run(x, len(alphas), np.sqrt(np.maximum(rz, 0.0) / least), least, bool(done), ahead, left)


def _ahead(start: np.ndarray, now: np.ndarray, targets: np.ndarray, iterations: int) -> float:
    """Iterations until all lanes are below their targets, at the pace that they came with."""
    open_ = now > targets
    if not open_.any():
        return 0.0
    pace = np.log(start[open_] / now[open_]) / max(iterations, 1)
    return float(np.max(np.log(now[open_] / np.maximum(targets[open_], 1e-300)) / np.maximum(pace, 1e-3)))


def _checks() -> Iterator[int]:
    """Iterations at which Ritz values are found again: ever further apart."""
    k = 4
    while True:
        yield k
        k += max(2, k // 4)


def ritz(alphas: list[np.ndarray], betas: list[np.ndarray]) -> float:
    """Least Ritz value of all lanes, from the coefficients of conjugate gradients."""
    least = np.inf
    for lane in range(LANES):
        alpha = np.array([a[lane] for a in alphas])
        beta = np.array([b[lane] for b in betas])
        length = len(alpha) if np.all(alpha > 0) else int(np.argmin(alpha > 0))
        if length == 0:
            continue
        alpha, beta = alpha[:length], beta[: length - 1]
        diagonal = 1 / alpha
        diagonal[1:] += beta / alpha[:-1]
        found = eigvalsh_tridiagonal(diagonal, np.sqrt(beta) / alpha[:-1], select="i", select_range=(0, 0))
        least = min(least, float(found[0]))
    return least if 0 < least < np.inf else 1.0
