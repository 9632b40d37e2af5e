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

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from leyden.engine.budget import thread_count
from leyden.solve.mixed import _products_kernels
from leyden.solve.mixed.products import Coordinates

kernels: Any = _products_kernels

#: Bytes of whitened rows that a thread makes at once.
CHUNK_NBYTES = 2**21


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
    sums : dict
        Of :class:`leyden.solve.mixed.products.CrossProducts`.
    coordinates : Coordinates
    widths, groups : sequence of int
        Coefficients of a group and number of groups, term by term.
    p : int
        Fixed effects.
    restricted : bool
        REML.
    """

    def __init__(
        self,
        sums: dict[str, np.ndarray],
        coordinates: Coordinates,
        widths: Sequence[int],
        groups: Sequence[int],
        p: int,
        restricted: bool,
    ):
        self.a, self.b, self.c = sums["a"], sums["b"], sums["c"]
        self.coordinates, self.widths, self.groups, self.p, self.restricted = coordinates, widths, groups, p, restricted
        self.sizes = [k * g for k, g in zip(widths[1:], groups[1:], strict=True)]
        self.r = sum(self.sizes)
        self.n = coordinates.n
        self.degrees = self.n - p if restricted else self.n
        r = coordinates.r
        self._alike = Alike.of(self.a, self.b)
        self._constant = -coordinates.log_weight + self.degrees * (1 + np.log(2 * np.pi) + 2 * np.log(abs(r[p, p])))
        self._constant -= self.degrees * np.log(self.degrees)
        if restricted:
            self._constant += 2 * float(np.log(np.abs(np.diag(r)[:p])).sum())

    # ---------------------------------------------------------------- value

    def solve(self, factors: Sequence[np.ndarray]) -> Solved | None:
        """Everything at these factors; None where rounding leaves nothing positive definite."""
        eliminated = self._eliminated(factors[0])
        if eliminated is None:
            return None
        logdet, taken = eliminated
        unscaled = self.c - taken
        s = self._scaled(unscaled, factors)
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

    def _chunks(self) -> Iterator[tuple[int, int]]:
        groups, k, shared = self.b.shape
        rows = max(1, CHUNK_NBYTES // (8 * k * shared))
        for begin in range(0, groups, rows):
            yield begin, min(begin + rows, groups)

    def _each(self, work: Callable[[int, int], Any]) -> list[Any]:
        """Work done on chunks of groups, in order, by all threads."""
        chunks = list(self._chunks())
        if len(chunks) == 1:
            return [work(*chunks[0])]
        with ThreadPoolExecutor(thread_count(), "leyden") as pool:
            return list(pool.map(work, *zip(*chunks, strict=True)))

    def _eliminated(self, factor: np.ndarray) -> tuple[float, np.ndarray] | None:
        """``Σ log|I + Λᵀ A Λ|`` and ``Σ Bᵀ K B``."""
        if self._alike is not None:
            return self._alike.eliminated(float(factor[0, 0]))
        _, k, shared = self.b.shape
        factor = np.ascontiguousarray(factor)

        def work(begin: int, end: int) -> tuple[float, np.ndarray]:
            out = np.empty(((end - begin) * k, shared))
            logdet = kernels.eliminate(self.a, self.b, factor, out, np.empty((k, 2 * k)), begin, end)
            return logdet, out.T @ out

        found = self._each(work)
        logdet = sum(part[0] for part in found)
        if not np.isfinite(logdet):
            return None
        total = found[0][1]
        for _, part in found[1:]:
            total += part
        return logdet, total

    def _scaled(self, s: np.ndarray, factors: Sequence[np.ndarray]) -> np.ndarray:
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
        if self._alike is not None:
            by_delta = self._alike.slope(float(factors[0][0, 0]), scaled_phi)
        else:
            by_delta = self._slope(factors[0], scaled_phi)
        gradients = [2 * by_delta @ factors[0]]
        right = at.unscaled @ self.scale(phi, self._transposed(factors))
        first = 0
        for k, groups in zip(self.widths[1:], self.groups[1:], strict=True):
            blocks = right[first : first + k * groups, first : first + k * groups].reshape(groups, k, groups, k)
            gradients.append(2 * np.einsum("gagb->ab", blocks))
            first += k * groups
        return gradients, by_delta

    def _slope(self, factor: np.ndarray, scaled_phi: np.ndarray) -> np.ndarray:
        """The derivative by Δ of the eliminated term."""
        _, k, shared = self.b.shape
        factor = np.ascontiguousarray(factor)

        def work(begin: int, end: int) -> np.ndarray:
            out, total = np.empty(((end - begin) * k, shared)), np.zeros((k, k))
            kernels.slopes(self.a, self.b, factor, np.empty((k, k)), begin, end, total, out, np.empty((4, k, k)))
            image = (out @ scaled_phi).reshape(end - begin, k, shared)
            return total - np.einsum("gas,gbs->ab", image, out.reshape(end - begin, k, shared))

        by_delta: np.ndarray = sum(self._each(work))
        return (by_delta + by_delta.T) / 2

    @staticmethod
    def _transposed(factors: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [factor.T for factor in factors]

    def _phi(self, low: np.ndarray, shrink: float) -> np.ndarray:
        """The derivative by S of what depends on it."""
        q = len(low)
        inverse = solve_triangular(low, np.eye(q), lower=True)
        counted = inverse[: self.r + self.p if self.restricted else self.r]
        return counted.T @ counted + shrink * self.degrees * np.outer(inverse[-1], inverse[-1])

    # ---------------------------------------------------------------- estimates

    def sigma2(self, at: Solved) -> float:
        """σ², in the units of the target."""
        return float((at.low[-1, -1] * self.coordinates.r[self.p, self.p]) ** 2 / self.degrees)

    def shared(self, factors: Sequence[np.ndarray], at: Solved) -> np.ndarray:
        """``(u_2, …, β)`` in the coordinates of the sums, for ỹ."""
        inner = solve_triangular(at.low[:-1, :-1], at.low[-1, :-1], lower=True, trans="T")
        return self.scale(inner[:, None], self._transposed(factors))[:, 0]

    def effects(self, factors: Sequence[np.ndarray], shared: np.ndarray) -> np.ndarray:
        """u of the eliminated term, shape (groups, k), given the rest."""
        right = self.b[:, :, -1] - self.b[:, :, :-1] @ shared
        out = np.empty_like(right)
        k = self.widths[0]
        kernels.effects_of(
            self.a, right, np.ascontiguousarray(factors[0]), 0, len(out), out, np.empty((k, k)), np.empty((2, k, k))
        )
        return out


@dataclass(frozen=True)
class Alike:
    """Groups of one coefficient whose ``A_g`` are the same number, taken together.

    With a random intercept and no weights ``A_g`` is the number of rows of a group: there are as many different ones as
    there are sizes, and what a likelihood costs does not grow with the groups.

    Attributes
    ----------
    a : ndarray, shape (different,)
    counts : ndarray of int, shape (different,)
        Groups of each.
    products : ndarray, shape (different, shared, shared)
        ``Σ B_gᵀ B_g`` over these groups.
    """

    a: np.ndarray
    counts: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray) -> Alike | None:
        """None where groups are not alike, or have several coefficients."""
        groups, k, shared = b.shape
        if k != 1:
            return None
        values, which, counts = np.unique(a[:, 0, 0], return_inverse=True, return_counts=True)
        if 2 * len(values) * shared > groups:
            return None
        order = np.argsort(which, kind="stable")
        ends = np.cumsum([0, *counts])
        products = np.empty((len(values), shared, shared))
        for i in range(len(values)):
            rows = b[order[ends[i] : ends[i + 1]], 0]
            products[i] = rows.T @ rows
        return cls(values, counts, products)

    def eliminated(self, factor: float) -> tuple[float, np.ndarray]:
        """``Σ log(1 + Λ² a)`` and ``Σ Bᵀ K B``."""
        grown = factor**2 * self.a
        return float(self.counts @ np.log1p(grown)), np.tensordot(factor**2 / (1 + grown), self.products, 1)

    def slope(self, factor: float, phi: np.ndarray) -> np.ndarray:
        """The derivative by ``Δ = Λ²``, shape (1, 1)."""
        left = 1 / (1 + factor**2 * self.a)
        traces = np.tensordot(self.products, phi, 2)
        return np.array([[float(self.counts @ (self.a * left) - (left**2) @ traces)]])
