r"""Certified bounds on singular values and vectors, from the image of a subspace.

Let W (d, l) have orthonormal columns, ``H = BᵀB``, and let a pass have measured ``S = HW``, ``M = WᵀHW`` and ``‖B‖_F``.
Diagonalising M makes the columns Ritz vectors: ``M = Θ``, ``R = S − WΘ``, ``σ_i = √θ_i``, ``u_i = B w_i / σ_i``. Then

* ``‖Bᵀu_i − σ_i w_i‖ = ‖r_i‖/σ_i`` and ``B w_i = σ_i u_i``: the residual of triplet i;
* ``σ_i(B) ≥ σ_i`` (Cauchy's interlacing), and ``‖B − U Σ Wᵀ‖_F² = ‖B‖_F² − tr Θ``;
* a *ceiling* ``λ_{j+1}(H) ≤ ν < θ_j`` gives, for i ≤ j, ``λ_i(H) ≤ θ_i + Σ_{l≤j} ‖r_l‖²/(θ_l − ν)`` (Lehmann's optimal
  bounds: N. J. Lehmann, "Optimale Eigenwerteinschließungen", Numer. Math. 5, 1963; the eigenvalues of
  ``P + P^{-1/2}RᵀRP^{-1/2}``, P = Θ − ν, bound those of H − ν, and the trace bounds the norm of the second term);
* whatever ``C = W_⊥ᵀ H W_⊥`` is, ``λ_{l+1}(H) ≤ ‖C‖``, ``λ_i(H) ≤ max(θ_i, ‖C‖) + ‖R‖`` and ``σ_i(B) ≤ √(θ_i + ‖C‖)``;
* ``sin ∠(w_i, v_i) ≤ ‖r_i‖ / gap`` (Davis, Kahan 1970), the gap being the distance of ``θ_i`` to the enclosures of the
  other eigenvalues.

Ceilings come from ``‖C‖ ≤ ‖B‖_F² − tr Θ`` (rigorous); from a whole Gram matrix (rigorous, :func:`remainder_norm`); or
from a Krylov space with a random start (:func:`krylov_ceiling`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError

from leyden.factor.reductions import Image
from leyden.solve.reductions import U, gamma


@dataclass(frozen=True)
class Ceiling:
    """``λ_{count+1}(H) ≤ value``, with this probability."""

    count: int
    value: float
    confidence: float


@dataclass(frozen=True)
class Ritz:
    """Ritz pairs of H, and bounds on all that was computed on the way to them.

    Attributes
    ----------
    w : ndarray, shape (d, l)
        Orthonormal to rounding.
    sigma : ndarray, shape (l,)
        Descending.
    lower, upper : ndarray, shape (l,)
        Enclosure of the singular values of B W.
    residual : ndarray, shape (l,)
        Bound on the residual of each triplet, with u the computed ``B w / σ``: on ``‖Bᵀu − σw‖`` and ``‖B w − σu‖``;
        or on ``‖B w‖`` where that is less, for then w belongs to a singular value of zero as well as to any other.
    image_residual : ndarray, shape (l,)
        Bound on ``‖H w − σ² w‖``.
    frobenius2 : float
        ``‖B‖_F²``, as computed.
    within2 : (float, float)
        Enclosure of ``‖B‖_F²``.
    left2 : (float, float)
        Enclosure of ``‖B − B W Wᵀ‖_F²``.
    orthonormality : float
        Bound on ``‖WᵀW − I‖₂``.
    rounding : float
        Bound on the rounding errors of an image, ``‖δ(H w)‖``, relative to ``‖B‖_F²``.
    """

    w: np.ndarray
    sigma: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    residual: np.ndarray
    image_residual: np.ndarray
    frobenius2: float
    within2: tuple[float, float]
    left2: tuple[float, float]
    orthonormality: float
    rounding: float


#: Rows whose products are summed by BLAS.
SUMMED = 512


def orthonormality(w: np.ndarray) -> float:
    """A bound on ``‖WᵀW − I‖₂``."""
    d, l = w.shape
    # Summed by parts: the rounding of long sums would be all that is seen.
    product = -np.eye(l)
    for first in range(0, d, SUMMED):
        part = w[first : first + SUMMED]
        product += part.T @ part
    return float(np.linalg.norm(product)) * (1 + 4 * U) + gamma(min(d, SUMMED) + d // SUMMED + 3) * l


def signs(w: np.ndarray) -> np.ndarray:
    """Signs that make the largest entry of each vector positive, however it was found."""
    found = np.sign(w[np.abs(w).argmax(axis=0), np.arange(w.shape[1])])
    return np.where(found == 0, 1.0, found)


def rayleigh_ritz(w: np.ndarray, image: Image) -> Ritz:
    """Ritz pairs on the span of W, whose image was measured."""
    d, l = w.shape
    raw = math.sqrt(image.raw * (1 + 2 * image.sum_unit))
    # Errors of a column of y = B w, of its image, and of the products of computed columns.
    y_error = image.row_unit * raw * 1.01
    sum_error, row_error = image.sum_unit * raw * (image.lengths + y_error), image.row_unit * raw**2
    x, sigma, relative, noise = (
        _graded(image.m, image.lengths, image.sum_unit, y_error) if image.graded else (*_eigen(image.m), 0.0, 0.0)
    )
    order = np.argsort(-sigma, kind="stable")
    x, sigma = x[:, order], sigma[order]
    # Rotated to Ritz vectors; what the rotation itself rounds is in the bounds.
    w_new, s_new = w @ x, image.s @ x
    flip = signs(w_new)
    w_new, s_new = w_new * flip, s_new * flip
    weights = np.abs(x)
    sum_error = weights.T @ (sum_error + gamma(l + 2) * np.linalg.norm(image.s, axis=0)) + 8 * U * sigma**2
    row_error = weights.sum(axis=0) * row_error + gamma(l + 2) * math.sqrt(l) * raw**2
    omega = orthonormality(w_new)
    # The image of a computed y is B times that vector: with u = y/σ, errors of y do not count in Bᵀu.
    triplet_residual = np.linalg.norm(s_new - w_new * sigma**2, axis=0) * (1 + gamma(d + 4)) + sum_error
    image_residual = triplet_residual + row_error
    if not image.graded:
        triplet_residual = image_residual
    # Computed against exact y; a basis that is not quite orthonormal stretches by no more than √(1 ± ω).
    total_error = math.sqrt(l) * (y_error + gamma(l + 2) * raw) + noise
    stretch = math.sqrt(1 + omega)
    lower = np.maximum(sigma * (1 - relative) - total_error, 0.0) / stretch
    upper = (sigma * (1 + relative) + total_error) * stretch / (1 - omega)
    if not image.graded:
        absolute = (image.row_unit + 2 * l * image.sum_unit + gamma(4 * l + 4) * math.sqrt(l)) * raw**2
        lower = np.sqrt(np.maximum(sigma**2 - absolute, 0.0)) / stretch
        upper = np.sqrt(sigma**2 + absolute) * stretch / (1 - omega)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        triplet = np.where(lower > 0, triplet_residual / np.maximum(lower, np.finfo(float).tiny), np.inf)
    triplet = np.minimum(np.maximum(triplet + 2 * omega * raw, total_error), upper)
    captured = float((lower**2).sum()), float((upper**2).sum())
    total = max(image.total - image.sum_unit * image.raw, 0.0), image.total + image.sum_unit * image.raw
    left = max(total[0] - captured[1], 0.0), max(total[1] - captured[0], 0.0)
    if image.left is not None:
        # ‖fl(B − BWWᵀ)‖, each row of which is in error by γ ‖b‖.
        slack = 2 * (image.row_unit + gamma(l + 4)) * math.sqrt(l + 1) * raw + omega * raw
        size, unit = math.sqrt(image.left), image.row_unit + image.sum_unit
        measured = max(size * (1 - unit) - slack, 0.0) ** 2, (size * (1 + unit) + slack) ** 2
        left = max(left[0], measured[0]), min(left[1], measured[1])
    rounding = image.row_unit + image.sum_unit
    return Ritz(w_new, sigma, lower, upper, triplet, image_residual, image.total, total, left, omega, rounding)


def _eigen(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, x = np.linalg.eigh(m)
    return x, np.sqrt(np.maximum(values, 0.0))


#: Columns of B W shorter than this many times their error, or with squares less than as many times those of their
#: squares, are all rounding, and point anywhere.
NOISY = 1e3


def _graded(
    m: np.ndarray, lengths: np.ndarray, unit: float, error: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Eigenvectors X and roots of the eigenvalues of a Gram matrix M, with bounds on their relative and absolute error.

    Entry (i, j) of M is in error by ``unit h_i h_j``, h = ``lengths``, which is ``√m_ii`` unless a mean was taken off.
    Scaled to a unit diagonal, its eigenvalues are right to ``l unit max h_i² / m_ii``, and those of M to that by
    ``λ_min`` of the scaled matrix, relatively (J. Demmel, K. Veselić, "Jacobi's method is more accurate than QR", SIAM
    J. Matrix Anal. Appl. 13, 1992). Small roots of a graded matrix keep digits that an absolute bound would take from
    them. Columns that are no longer than their own ``error`` are set apart: the values of the others are no greater
    than those of all, and no further from them than these columns are long.
    """
    l = len(m)
    size = np.sqrt(np.maximum(np.diag(m), 0.0))
    order = np.argsort(-size, kind="stable")
    seen = ((size > NOISY * error) & (size**2 > NOISY * unit * lengths**2))[order]
    clear, hidden = order[seen], order[~seen]
    coarse = math.sqrt(l * (unit + gamma(l + 2)) * 1.01) * float(np.linalg.norm(lengths))
    # Where columns are all but dependent, the shortest are set apart, as long as that is worth it.
    for q in sorted({math.ceil(len(clear) * i / 16) for i in range(1, 17)} - {0}, reverse=True):
        kept, rest = clear[:q], np.concatenate([clear[q:], hidden])
        noise = _apart(size[rest], lengths[rest], unit)
        if q < len(clear) and noise > coarse:
            continue
        scaled = m[np.ix_(kept, kept)] / np.outer(size[kept], size[kept])
        least = float(np.linalg.eigvalsh(scaled)[0]) - 8 * q * gamma(q + 2)
        spread = unit * float(np.square(lengths[kept] / size[kept]).max())
        if least > max(1e-3, 4 * q * spread):
            p, s, _ = np.linalg.svd(size[kept, None] * np.linalg.cholesky(scaled))
            # LAPACK's values are right to a few units of the largest.
            relative, absolute = q * (spread + gamma(q + 2)) / least, 8 * q * U * float(s[0])
            break
    else:
        kept, rest, q = clear, hidden, len(clear)
        noise = _apart(size[rest], lengths[rest], unit)
        p, s = _eigen(m[np.ix_(kept, kept)])
        relative, absolute = 0.0, coarse if q else 0.0
    x, sigma = np.zeros((l, l)), np.zeros(l)
    x[rest, np.arange(q, l)], sigma[q:] = 1.0, size[rest]
    x[np.ix_(kept, np.arange(q))], sigma[:q] = p, s
    return x, sigma, relative, absolute + noise


def _apart(size: np.ndarray, lengths: np.ndarray, unit: float) -> float:
    return float(np.linalg.norm(np.hypot(size, math.sqrt(unit) * lengths))) * (1 + 8 * U)


def largest_eigenvalue_bound(a: np.ndarray, guess: float) -> float:
    """A number at least the largest eigenvalue of the symmetric ``a``, and little above ``guess`` if that is one.

    That the Cholesky factorization of ``τI − A`` runs to its end proves it, up to ``γ trace`` (S. M. Rump,
    "Verification of positive definiteness", BIT 46, 2006).
    """
    p = len(a)
    certain = float(np.abs(a).sum(axis=1).max(initial=0.0)) * (1 + 4 * U * p)
    size = max(guess, float(np.abs(np.diag(a)).max(initial=0.0)), 0.0)
    slack = 4 * gamma(p + 3) * p * size
    shifted = -a
    diagonal = np.diag(a).copy()
    for margin in (4 * slack, 1e-9 * size, 1e-6 * size, 1e-3 * size, 0.05 * size, 0.5 * size):
        top = max(guess, 0.0) + max(margin, 4 * slack)
        if top >= certain:
            break
        np.fill_diagonal(shifted, top - diagonal)
        try:
            np.linalg.cholesky(shifted)
        except LinAlgError:
            continue
        # The diagonal of the shifted matrix is at most top + size.
        return top + gamma(p + 3) * p * (top + size)
    return certain


def remainder_norm(gram: np.ndarray, w: np.ndarray, theta: np.ndarray, guess: float) -> float:
    """A bound on the largest eigenvalue of ``G − W Θ Wᵀ``, which is at least ``λ_{l+1}(G)`` (Weyl) for any W (d, l)."""
    l = w.shape[1]
    left = gram - (w * theta) @ w.T
    left = (left + left.T) / 2
    rounding = (gamma(l + 4) * float(theta.sum()) + 4 * U * float(np.abs(np.diag(gram)).sum())) * 1.1
    return largest_eigenvalue_bound(left, guess) + rounding


def krylov_ceiling(count: int, theta: float, d: int, width: int, steps: int, drift: float, failure: float) -> Ceiling:
    r"""``λ_{count+1}(H) ≤ θ_{count+1}/κ`` for the Ritz values of a block Krylov space with a Gaussian start.

    With U the i = count + 1 leading eigenvectors, ``τ ≥ ‖Ω_⊥ Ω_U^†‖`` and φ the Chebyshev polynomial of degree m − 1 on
    [0, b], every vector of ``φ(H) Ω Ω_U^†`` has a Rayleigh quotient of at least ``b / (1 + τ²/φ(λ_i)²)``; so has
    ``θ_i``, for every b < λ_i. By homogeneity ``θ_i ≥ κ λ_i``, ``κ = max_β β / (1 + τ²/T_{m−1}(2/β − 1)²)``.

    ``‖Ω_U^†‖`` is bounded by Z. Chen, J. J. Dongarra, "Condition numbers of Gaussian random matrices", SIAM J. Matrix
    Anal. Appl. 27, 2005 (as in Halko, Martinsson, Tropp 2011, proposition A.3), ``‖Ω_⊥‖`` by concentration. The start
    is independent of the data: the probability is over its seed.

    Parameters
    ----------
    count : int
        Less than ``width``.
    theta : float
        ``θ_{count+1}``.
    d, width, steps : int
        Size of H, columns of the start, blocks of the space.
    drift : float
        Bound on ``‖E‖₂`` when the computed space is the exact one of ``H + E``.
    failure : float
    """
    i = count + 1
    excess = width - i + 1
    inverse = math.e * math.sqrt(width) / excess * (2 / failure / math.sqrt(2 * math.pi * excess)) ** (1 / excess)
    tau = inverse * (math.sqrt(max(d - i, 0)) + math.sqrt(width) + math.sqrt(2 * math.log(2 / failure)))
    beta = np.linspace(1e-4, 1 - 1e-4, 2000)
    with np.errstate(over="ignore"):
        growth = np.cosh((steps - 1) * np.arccosh(2 / beta - 1))
    kappa = float((beta / (1 + (tau / growth) ** 2)).max())
    # H + E + ‖E‖ is positive and has the same space; its eigenvalues are no less than those of H.
    return Ceiling(count, (theta + 2 * drift) / kappa, 1 - failure)


@dataclass(frozen=True)
class Enclosure:
    """What is known of the k leading singular values and vectors of B.

    Attributes
    ----------
    lower, upper : ndarray, shape (k,)
    angle : ndarray, shape (k,)
        Bound on the sine of the angle between right vectors; one where no gap can be shown.
    spectral : (float, float)
        Enclosure of ``‖B − U Σ Vᵀ‖₂``.
    confidence : float
    """

    lower: np.ndarray
    upper: np.ndarray
    angle: np.ndarray
    spectral: tuple[float, float]
    confidence: float


def enclose(ritz: Ritz, k: int, outside: float = math.inf, ceilings: Sequence[Ceiling] = ()) -> Enclosure:
    """What is known of the k leading triplets.

    Parameters
    ----------
    ritz : Ritz
        Of at least k pairs.
    k : int
    outside : float
        A rigorous bound on ``‖C‖₂``, where there is one besides ``‖B − B W Wᵀ‖_F²``.
    ceilings : sequence of Ceiling
        Those that hold with a probability; they are used where that makes a visible difference.
    """
    l = ritz.w.shape[1]
    upper, sure = _upper(ritz, outside, ()), 1.0
    if ceilings:
        tighter = _upper(ritz, outside, ceilings)
        if (tighter[: min(k + 1, l + 1)] < 0.99 * upper[: min(k + 1, l + 1)]).any():
            upper, sure = tighter, max(0.0, 1 - sum(1 - c.confidence for c in ceilings))
    lower, sigma2 = ritz.lower[:k], ritz.sigma[:k] ** 2
    above, below = np.append(np.inf, lower[:-1]), upper[1 : k + 1]
    gap = np.minimum(above**2 - sigma2, sigma2 - below**2) - 8 * U * sigma2
    with np.errstate(divide="ignore", invalid="ignore"):
        sine = np.where(gap > 0, ritz.image_residual[:k] / np.maximum(gap, 1e-300), 1.0)
    spectral = float(ritz.lower[k]) if k < l else 0.0, _spectral(ritz, k, float(upper[k]))
    return Enclosure(
        lower, np.maximum(upper[:k], lower), np.minimum(sine + 2 * ritz.orthonormality, 1.0), spectral, sure
    )


def _upper(ritz: Ritz, outside: float, ceilings: Sequence[Ceiling]) -> np.ndarray:
    """Upper bounds on the l + 1 leading singular values of B, the last of which may not exist."""
    d, l = ritz.w.shape
    outside = 0.0 if l == d else min(outside, ritz.left2[1])
    theta_up, theta_low = ritz.upper**2, ritz.lower**2
    squares = (ritz.image_residual * (1 + 2 * ritz.orthonormality)) ** 2
    norm = math.sqrt(float(squares.sum()))
    best = np.append(
        np.minimum(
            np.minimum(np.sqrt(theta_up + outside), np.sqrt(np.maximum(theta_up, outside) + norm)),
            ritz.upper + math.sqrt(outside),
        ),
        math.sqrt(outside),
    )
    for ceiling in ceilings:
        best[ceiling.count :] = np.minimum(best[ceiling.count :], math.sqrt(ceiling.value))
    for j in range(l, 0, -1):
        ceiling2 = float(best[j]) ** 2 * (1 + 4 * U)
        if ritz.sigma[j - 1] == 0:
            continue
        # ``(Y + E)ᵀ(Y + E) ≽ (1 − e/σ_j) YᵀY − e σ_j`` for ``‖E‖ ≤ e``.
        error = float(ritz.sigma[j - 1] - ritz.lower[j - 1])
        form = ritz.sigma[:j] ** 2 * (1 - error / ritz.sigma[j - 1] - 8 * U) - error * ritz.sigma[j - 1]
        distance = np.minimum(theta_low[:j], form) - ceiling2
        if distance.min() > 0:
            best[:j] = np.minimum(best[:j], np.sqrt(theta_up[:j] + float((squares[:j] / distance).sum())))
    best = np.minimum.accumulate(best)
    return best * (1 + 4 * U)


def _spectral(ritz: Ritz, k: int, after: float) -> float:
    """A bound on ``‖B − U Σ Vᵀ‖₂`` of the k leading triplets, ``after`` being one on ``σ_{k+1}(B)``."""
    best = math.sqrt(ritz.left2[1] + float((ritz.upper[k:] ** 2).sum()))
    norm = math.sqrt(float((ritz.image_residual[:k] ** 2).sum()))
    bound = after**2 + norm
    # Were ‖C‖ larger, more than k eigenvalues of diag(Θ, C), and so of H to within ‖R‖, would exceed the bound.
    if k == 0 or ritz.lower[k - 1] ** 2 > bound:
        best = min(best, math.sqrt(bound))
    return best
