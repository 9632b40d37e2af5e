r"""The likelihood of a linear mixed model, from sums: its value, its gradient, and the estimates that go with it.

With ``y ~ N(X β, σ² V)``, ``V = W⁻¹ + Σ_t Z_t (I ⊗ Δ_t) Z_tᵀ`` and ``Δ_t = Λ_t Λ_tᵀ``, the largest term is eliminated
group by group, ``K_g = Λ (I + Λᵀ A_g Λ)⁻¹ Λᵀ``, which leaves the Schur complement of everything that groups share,

.. math:: S = Dᵀ (C − Σ_g B_gᵀ K_g B_g) D + I_r,

where D scales the coefficients of the other terms by their Λ and ``I_r`` is the identity on these. With ``S = L Lᵀ``,
the last diagonal entry of L is the root of the penalised residual sum of squares, and

.. math::

    −2 ℓ_{ML}   &= log|V| + n log(2 π σ²) + n,                                   & σ² &= L_{yy}² / n, \\
    −2 ℓ_{REML} &= log|V| + log|Xᵀ V⁻¹ X| + (n − p) (log(2 π σ²) + 1),           & σ² &= L_{yy}² / (n − p), \\
    log|V| &= Σ_g log|I + Λᵀ A_g Λ| + 2 Σ_r log L_{rr} − Σ_i log w_i

(Bates, Mächler, Bolker, Walker, J. Stat. Softw. 67(1), 2015; Bates and DebRoy, J. Multivariate Anal. 91, 2004). With Φ
the derivative of everything that depends on S, the gradient by Δ of the eliminated term is

.. math:: Σ_g A_g J_g − J_gᵀ B_g D Φ Dᵀ B_gᵀ J_g, \qquad J_g = I − K_g A_g,

which has a meaning at singular Δ as well: there it says whether a variance of zero is the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotri

from leyden.solve.mixed.elimination import Products
from leyden.solve.mixed.products import Coordinates


@dataclass(frozen=True)
class Solved:
    """What the sums say at given covariances.

    Attributes
    ----------
    value : float
        ``−2 ℓ``.
    low : ndarray, shape (shared, shared)
        L.
    logdet : float
        ``log|V|`` without the weights.
    unscaled : ndarray, shape (shared, shared)
        ``C − Σ Bᵀ K B``.
    """

    value: float
    low: np.ndarray
    logdet: float
    unscaled: np.ndarray


class Likelihood:
    """``−2 ℓ`` as a function of the factors Λ of the terms, in the coordinates of the sums.

    Parameters
    ----------
    products : Products
        Of the groups of the largest term.
    c : ndarray, shape (shared, shared)
        Of what they share.
    coordinates : Coordinates
    widths, groups : sequence of int
        Coefficients of a group and number of groups of the random terms.
    restricted : bool
        REML.

    Attributes
    ----------
    r, p : int
        Of the shared columns, those of other random terms, which come first, and fixed effects, of many levels first.
    """

    def __init__(
        self,
        products: Products,
        c: np.ndarray,
        coordinates: Coordinates,
        widths: Sequence[int],
        groups: Sequence[int],
        restricted: bool,
    ):
        self.products, self.c = products, c
        self.coordinates, self.widths, self.groups, self.restricted = coordinates, widths, groups, restricted
        self.p = len(self.c) - 1 - sum(k * g for k, g in zip(widths[1:], groups[1:], strict=True))
        self.r = len(self.c) - 1 - self.p
        self.n = coordinates.n
        self.degrees = self.n - self.p if restricted else self.n
        log_r = np.log(np.abs(np.diag(coordinates.r)))
        self._constant = -coordinates.log_weight + self.degrees * (1 + np.log(2 * np.pi) + 2 * float(log_r[-1]))
        self._constant -= self.degrees * np.log(self.degrees)
        if restricted:
            self._constant += 2 * float(log_r[:-1].sum())

    # ---------------------------------------------------------------- value

    def solve(self, factors: Sequence[np.ndarray]) -> Solved | None:
        """Everything at these factors; None where rounding leaves nothing positive definite."""
        eliminated = self.products.eliminated(factors[0])
        if eliminated is None:
            return None
        logdet, taken = eliminated
        unscaled = self.c - taken
        s = self.scaled(unscaled, factors)
        s[np.arange(self.r), np.arange(self.r)] += 1.0
        try:
            low = np.linalg.cholesky(s)
        except np.linalg.LinAlgError:
            return None
        diagonal = np.log(np.diag(low))
        logdet += 2 * float(diagonal[: self.r].sum())
        value = self._constant + logdet + 2 * self.degrees * float(diagonal[-1])
        if self.restricted:
            value += 2 * float(diagonal[self.r : -1].sum())
        return Solved(value, low, logdet, unscaled)

    def scaled(self, s: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``Dᵀ S D``."""
        return self.scale(self.scale(s, factors).T, factors).T.copy()

    def scale(self, rows: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
        """``Dᵀ rows``: the rows of other terms times Λᵀ."""
        out, at = np.array(rows, np.float64), 0
        for k, groups, factor in zip(self.widths[1:], self.groups[1:], factors[1:], strict=True):
            part = rows[at : at + k * groups].reshape(groups, k, -1)
            out[at : at + k * groups] = np.einsum("ab,gac->gbc", factor, part).reshape(k * groups, -1)
            at += k * groups
        return out

    # ---------------------------------------------------------------- gradient

    def gradient(
        self, factors: Sequence[np.ndarray], at: Solved, shrink: float = 1.0
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The derivative of ``−2 ℓ`` by each Λ, and that by Δ of the eliminated term.

        With ``shrink``, of ``−2 ℓ`` at a σ² that is the best one divided by it.
        """
        phi = self._phi(at.low, shrink)
        scaled_phi = self.scale(self.scale(phi, self._transposed(factors)).T, self._transposed(factors)).T
        by_delta = self.products.slope(factors[0], scaled_phi)
        gradients = [2 * by_delta @ factors[0]]
        right = self.scale(phi, self._transposed(factors))
        first = 0
        for k, groups in zip(self.widths[1:], self.groups[1:], strict=True):
            own = slice(first, first + k * groups)
            rows, columns = at.unscaled[own].reshape(groups, k, -1), right[:, own].reshape(-1, groups, k)
            gradients.append(2 * np.einsum("gaq,qgb->ab", rows, columns))
            first += k * groups
        return gradients, by_delta

    @staticmethod
    def _transposed(factors: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [factor.T for factor in factors]

    def _phi(self, low: np.ndarray, shrink: float) -> np.ndarray:
        """The derivative by S of what depends on it."""
        counted = self.r + self.p if self.restricted else self.r
        phi = np.zeros_like(low)
        if counted:
            inverse, _ = dpotri(low[:counted, :counted], lower=1)
            phi[:counted, :counted] = np.tril(inverse) + np.tril(inverse, -1).T
        last = np.zeros(len(low))
        last[-1] = 1.0
        last = solve_triangular(low, last, lower=True, trans="T")
        phi += shrink * self.degrees * np.outer(last, last)
        return phi

    # ---------------------------------------------------------------- estimates

    def sigma2(self, at: Solved) -> float:
        """σ², in the units of the target."""
        return float((at.low[-1, -1] * self.coordinates.r[-1, -1]) ** 2 / self.degrees)

    def shared(self, factors: Sequence[np.ndarray], at: Solved) -> np.ndarray:
        """``(u_2, …, β)`` in the coordinates of the sums, for ỹ."""
        inner = solve_triangular(at.low[:-1, :-1], at.low[-1, :-1], lower=True, trans="T")
        return self.scale(inner[:, None], self._transposed(factors))[:, 0]

    def effects(self, factors: Sequence[np.ndarray], shared: np.ndarray) -> np.ndarray:
        """u of the eliminated term, shape (groups, k), given the rest."""
        return self.products.effects(factors[0], self.products.target - self.products.times(shared))
