r"""Whitening: a matrix that turns the columns of the data into almost orthonormal ones, and how far off it is.

Everything that a factorization is needed for, corrections and certificates alike, goes through one object: a matrix X
and the measured Gram matrix :math:`M ≈ (\bar A X)ᵀ(\bar A X)`. With :math:`M = CᵀC` and :math:`W = X C^{-1}`,

.. math:: ‖Wᵀ H W − I‖₂ ≤ η, \qquad H = \bar Aᵀ\bar A + Λ,

where η bounds only the rounding errors made in computing M and C. X itself may come from anywhere: a Gram matrix in
float32, a QR factorization, a random sketch, a file. If it is bad, η says so. This is how a randomized or untrusted
method gets a deterministic certificate.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.linalg import LinAlgError

from leyden.engine.local import single_threaded_blas
from leyden.solve import _kernels
from leyden.solve.coordinates import norms
from leyden.solve.reductions import U, gamma, triangle


def spectral_norm_bound(a: np.ndarray) -> float:
    """A number at least ``‖A‖₂``, and seldom more than 5% above it, for the price of ``AᵀA`` and a Cholesky factor.

    Power iteration guesses a τ a little above ``‖AᵀA‖₂``; that the Cholesky factorization of ``τI − AᵀA`` runs to its
    end proves it, up to ``γ_{p+1} trace`` (S. M. Rump, "Verification of positive definiteness", BIT 46, 2006).
    """
    size = float(np.abs(a).max(initial=0.0))
    if size == 0:
        return 0.0
    if not math.isfinite(size):
        return math.inf
    a = a / size
    m, p = a.shape
    b = a.T @ a if p <= m else a @ a.T
    p = len(b)
    diagonal = np.diag(b).copy()
    trace = float(diagonal.sum())
    v = b[:, int(diagonal.argmax())] + math.sqrt(trace) / p
    for _ in range(20):
        v = b @ (v / np.linalg.norm(v))
    estimate, certain = float(np.linalg.norm(v)), float(np.abs(b).sum(axis=1).max())
    shifted = np.negative(b, out=b)
    for factor in (1.05, 1.2, 1.5, 2.0):
        top = factor * estimate
        if top >= certain:
            break
        np.fill_diagonal(shifted, top - diagonal)
        try:
            np.linalg.cholesky(shifted)
        except LinAlgError:
            continue
        certain = top + 1.1 * gamma(p + 3) * p * top
        break
    return size * math.sqrt(certain + gamma(max(m, p) + 2) * trace) * (1 + 4 * U)


#: Up to this size NumPy inverts a triangle: its LU factorization finds nothing to do, and importing SciPy costs more.
SMALL = 256


def inverse(r: np.ndarray) -> np.ndarray | None:
    """``R⁻¹`` of an upper triangular R, column by column by substitution; None when R is singular.

    ``|R X − I| ≤ γ_p |R| |X|`` (Higham, Accuracy and Stability, §8.1); LAPACK's own inverse bounds ``X R − I`` instead.
    """
    if not np.diag(r).all():
        return None
    x = np.triu(_solve_triangular(r))
    return x if np.isfinite(x).all() else None


def _solve_triangular(r: np.ndarray) -> np.ndarray:
    """X of ``R X = I``."""
    if len(r) <= SMALL:
        return np.linalg.solve(r, np.eye(len(r)))
    from scipy.linalg import solve_triangular

    with single_threaded_blas():
        x: np.ndarray = solve_triangular(r, np.eye(len(r)), check_finite=False)
    return x


class Whitening:
    """X, the measured Gram matrix of Ā X, and what follows from them.

    Parameters
    ----------
    x : ndarray, shape (p, r)
    gram : ndarray, shape (r, r)
        ``M``: the Gram matrix of ``Ā X`` (plus ``XᵀΛX``), as measured.
    error : float
        Bound on ``‖M − Xᵀ H X‖₂``.
    null : ndarray, shape (p, p − r), optional
        Orthonormal basis of the directions left out, when the rank is deficient.
    discarded : float
        Bound on ``‖Ā null‖_F``.
    """

    def __init__(
        self, x: np.ndarray, gram: np.ndarray, error: float, null: np.ndarray | None = None, discarded: float = 0.0
    ):
        self.x, self.gram, self.error, self.null, self.discarded = x, gram, error, null, discarded

    @property
    def rank(self) -> int:
        """Columns of X."""
        return self.x.shape[1]

    @cached_property
    def eta(self) -> float:
        """``‖Wᵀ H W − I‖₂ ≤ eta``; infinite when M is not safely positive definite."""
        if self.rank == 0:
            return 0.0
        if self._inverse_factor is None:
            return math.inf
        r = self.rank
        # Cholesky: |CᵀC − M| ≤ γ_{r+1} |C|ᵀ|C|, whose norm is at most γ_{r+1} trace(M). The computed inverse K of C has
        # ‖CK − I‖ ≤ γ_r ‖C‖_F ‖K‖_F (see `inverse`), and that product is at most trace(M) ‖K‖₂².
        rounding = 4 * gamma(r + 2) * float(np.trace(self.gram))
        return self._inverse_factor_norm**2 * (self.error + rounding)

    @property
    def usable(self) -> bool:
        """Whether corrections contract and bounds are finite."""
        return self.eta < 0.5

    @cached_property
    def _inverse_factor(self) -> np.ndarray | None:
        if self.rank == 0:
            return np.empty((0, 0))
        if not np.isfinite(self.gram).all():
            return None
        try:
            factor = np.linalg.cholesky(self.gram).T
        except LinAlgError:
            return None
        return inverse(factor)

    @cached_property
    def _inverse_factor_norm(self) -> float:
        assert self._inverse_factor is not None
        return spectral_norm_bound(self._inverse_factor)

    @cached_property
    def norm(self) -> float:
        """A bound on ``‖W‖₂``."""
        return spectral_norm_bound(self.w)

    @cached_property
    def w(self) -> np.ndarray:
        """``W = X C⁻¹``, (p, r)."""
        assert self._inverse_factor is not None
        return self.x @ self._inverse_factor

    @cached_property
    def column_norms(self) -> np.ndarray:
        """Norms of the columns of Ā (ridge included), as the whitening implies or, at deficient rank, as measured."""
        return norms(self.factor)

    @cached_property
    def factor_distance(self) -> float:
        """A bound on ``‖R W − I‖`` for the computed factor R, so that ``‖W⁻¹v‖ (1 ± it)`` is ``‖R v‖``."""
        if self.rank == 0:
            return 0.0
        computed = float(np.linalg.norm(self.factor @ self.w - np.eye(self.rank)))
        return computed + gamma(len(self.x) + 1) * float(np.linalg.norm(self.factor) * np.linalg.norm(self.w))

    @cached_property
    def factor(self) -> np.ndarray:
        """``R`` (r, p) with ``RᵀR ≈ H``: the pseudo-inverse of W."""
        assert self._inverse_factor is not None
        if self.rank == 0:
            return np.empty((0, len(self.x)))
        c = np.linalg.cholesky(self.gram).T
        if self.null is None and np.array_equal(self.x, np.triu(self.x)):
            return c @ _solve_triangular(self.x)
        return c @ np.linalg.pinv(self.x, rcond=0)

    @cached_property
    def rounding(self) -> float:
        """Relative error, against ``‖w_j‖ ‖y‖``, of applying W or Wᵀ in float64 to a vector y."""
        if not self.rank:
            return 0.0
        assert self._inverse_factor is not None
        spread = math.sqrt(float(np.trace(self.gram))) * self._inverse_factor_norm
        return gamma(2 * sum(self.x.shape)) * spread * math.sqrt(self.rank)

    def project(self, hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
        """``Wᵀ g`` (r, k) of a doubled gradient (p, k): for g = Āᵀr, the residual seen in the basis ĀW."""
        assert self._inverse_factor is not None
        yh, yl = _kernels.multiply_transposed(self.x, hi, lo)
        return self._inverse_factor.T @ (yh + yl)

    def project_rounding(self, g: np.ndarray) -> np.ndarray:
        """Bound (k,) on the error that the doubled product of :meth:`project` leaves in its norm, for ``hi = g``."""
        return gamma(2 * len(self.x)) ** 2 * self._inverse_factor_norm * norms(np.abs(self.x).T @ np.abs(g))

    def project_error(self, error: np.ndarray) -> np.ndarray:
        """Bound on ``‖Wᵀ e‖₂``, one a target, over all ``|e| ≤ error`` (p, k)."""
        return norms(np.abs(self.w).T @ error) * (1 + 1e-8)


def from_gram(gram: np.ndarray, rounding: float) -> Whitening | None:
    """Whitening from a Gram matrix H (p, p) with columns of about unit size.

    Parameters
    ----------
    gram : ndarray, shape (p, p)
    rounding : float
        Bound on the error of entry (i, j) relative to ``√(h_ii h_jj)``.

    Returns
    -------
    Whitening or None
        None when H is not numerically positive definite.
    """
    p = len(gram)
    if not np.isfinite(gram).all():
        return None
    try:
        factor = np.linalg.cholesky(gram).T
    except LinAlgError:
        return None
    x = inverse(factor)
    if x is None:
        return None
    with np.errstate(all="ignore"):
        # XᵀHX − I = (RX)ᵀ(RX) − I − Xᵀ(RᵀR − H)X, with ‖RX − I‖ ≤ γ_p ‖R‖_F ‖X‖_F.
        size = float(np.trace(gram))
        error = spectral_norm_bound(x) ** 2 * size * (rounding + gamma(p + 2))
        residual = gamma(p + 1) * float(np.linalg.norm(factor) * np.linalg.norm(x))
        error += 2 * residual + residual**2
    return Whitening(x, np.eye(p), error if math.isfinite(error) else math.inf)


def directions(r: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, float]:
    """X (p, rank) that whitens a triangular or trapezoidal factor, the null space left out, and the condition number.

    Columns of ``r`` should be of about unit size. Directions below ``max(30, 3√p) u σ₁`` count as null: about what
    the rounding of the factorization leaves of columns that are exactly dependent. Zero columns are null exactly.
    """
    p = r.shape[1]
    there = r.any(axis=0)
    if there.any() and not there.all():
        inner, rest, condition = directions(triangle(r[:, there]))
        rank, left = inner.shape[1], 0 if rest is None else rest.shape[1]
        spread, zero = np.zeros((p, rank)), np.zeros((p, p - rank))
        spread[there] = inner
        if rest is not None:
            zero[there, :left] = rest
        zero[~there, left:] = np.eye(p - len(inner))
        return spread, zero, condition
    _, s, vt = np.linalg.svd(r, full_matrices=True)
    if s[0] == 0:
        return np.empty((p, 0)), np.eye(p), 1.0
    rank = int((s > max(30, 3 * math.sqrt(p)) * U * s[0]).sum())
    condition = float(s[0] / s[rank - 1])
    if rank == p:
        x = inverse(r)
        if x is not None:
            return x, None, condition
    return vt[:rank].T / s[:rank], vt[rank:].T, condition
