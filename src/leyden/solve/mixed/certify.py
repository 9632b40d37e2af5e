r"""How wrong the coefficients of a mixed model can be: one pass over the original rows, in doubled arithmetic.

With Λ whitened out, ``u = Λ v``, the coefficients minimise

.. math:: E(β, v) = ‖√W (y − X β − Σ_t Z_t Λ_t v_t)‖² + Σ_t ‖v_t‖²,

whose Hessian has the blocks ``M_g = I + Λᵀ A_g Λ ⪰ I`` and the Schur complement S. The energy distance to the minimum
is exactly

.. math:: Σ_g ‖L_g^{-1} h_g‖² + sᵀ S^{-1} s, \qquad s = h_{shared} − Σ_g B̃_gᵀ L_g^{-1} h_g,

where h is minus half the gradient. h is measured over the rows by residuals in doubled arithmetic; L, B̃ and S come from
the sums, and their rounding, relative to ``M ⪰ I`` and to the least eigenvalue of S, is in the bound. As
``|β_j − β*_j| ≤ √(S⁻¹)_jj · energy`` and the standard error of β_j is ``σ √(S⁻¹)_jj``, energy over σ bounds every
coefficient's error in units of its standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from leyden.certificate import Bound
from leyden.engine.budget import thread_count
from leyden.engine.reduction import Reduction, Scratch
from leyden.rows.base import Block
from leyden.solve.mixed import _products_kernels
from leyden.solve.mixed.design import Design
from leyden.solve.mixed.likelihood import Likelihood, Solved
from leyden.solve.mixed.products import PARTS, Coordinates

kernels: Any = _products_kernels

U = 2.0**-53


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of a model in their own units.

    Attributes
    ----------
    beta : ndarray, shape (p,)
        Of the fixed effects that have columns.
    whitened : tuple of ndarray (groups, k)
        v of each term; of fixed ones, of many levels, their effects.
    effects : tuple of ndarray (groups, k)
        u = Λ v of each term.
    """

    beta: np.ndarray
    whitened: tuple[np.ndarray, ...]
    effects: tuple[np.ndarray, ...]


class Gradient(Reduction[dict[str, np.ndarray], dict[str, np.ndarray]]):
    """``Xᵀ W r`` and ``Z_tᵀ W r`` of all terms at given coefficients, in doubled arithmetic.

    The result is a dict: "hi" and "lo", (p + all effects,), and "sums", (2,): ``Σ w r²`` and ``Σ w magnitude²``, the
    magnitude of a row being the sum of the sizes of all that its residual is the difference of.
    """

    parallel = True

    def __init__(self, design: Design, coefficients: Coefficients):
        self.p = design.p
        self.beta = coefficients.beta
        self.effects = np.concatenate([u.ravel() for u in coefficients.effects] or [np.zeros(0)])
        self.starts = np.array([term.place.start for term in design.terms], np.int64)
        self.widths = np.array([term.k for term in design.terms], np.int64)
        self.offsets = np.cumsum([0, *(term.size for term in design.terms)])[:-1].astype(np.int64)
        self._scratch = Scratch()

    def start(self) -> dict[str, np.ndarray]:
        size = self.p + len(self.effects)
        return {"hi": np.zeros(size), "lo": np.zeros(size), "sums": np.zeros(2)}

    def update(self, state: dict[str, np.ndarray], block: Block) -> dict[str, np.ndarray]:
        m = block.rows
        assert block.target is not None
        assert block.group is not None
        hi, lo, magnitude = (self._scratch.array(name, (m,)) for name in ("hi", "lo", "magnitude"))
        weight = np.empty(0) if block.weight is None else np.ascontiguousarray(block.weight, np.float64)
        codes, y = np.ascontiguousarray(block.group), np.ascontiguousarray(block.target[:, 0])
        data = np.ascontiguousarray(block.data)
        cuts = np.linspace(0, m, PARTS + 1).astype(int)
        sums = np.zeros((PARTS, 2))

        def measure(part: int) -> None:
            at = slice(cuts[part], cuts[part + 1])
            sums[part] = kernels.residuals(
                data[at], y[at], weight[at] if len(weight) else weight, self.beta, self.p, codes[at],
                self.starts, self.widths, self.effects, self.offsets, hi[at], lo[at], magnitude[at],
            )  # fmt: skip

        def add(part: int) -> None:
            kernels.add_gradient(
                data, weight, self.p, codes, self.starts, self.widths, self.offsets, hi, lo, state["hi"], state["lo"],
                part, PARTS,
            )  # fmt: skip

        with ThreadPoolExecutor(thread_count(), "leyden") as pool:
            list(pool.map(measure, range(PARTS)))
            list(pool.map(add, range(PARTS)))
        for part in sums:
            state["sums"] += part
        return state

    def merge(self, a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        total = a["hi"] + b["hi"]
        z = total - a["hi"]
        a["lo"] += b["lo"] + ((a["hi"] - (total - z)) + (b["hi"] - z))
        a["hi"] = total
        a["sums"] += b["sums"]
        return a

    def finish(self, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return state

    @property
    def state_nbytes(self) -> int:
        return 16 * (self.p + len(self.effects)) + 16

    def to_arrays(self, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(state)

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(arrays)


@dataclass(frozen=True)
class System:
    """The system whose solution the coefficients are, at given covariances.

    Attributes
    ----------
    design : Design
    coordinates : Coordinates
    likelihood : Likelihood
    factors : list of ndarray (k, k)
        Λ of each random term in its own units.
    solved : Solved
    """

    design: Design
    coordinates: Coordinates
    likelihood: Likelihood
    factors: list[np.ndarray]
    solved: Solved

    @property
    def inner(self) -> list[np.ndarray]:
        """Λ of each random term in the coordinates of the sums."""
        return [z @ factor for z, factor in zip(self.coordinates.z, self.factors, strict=False)]

    @property
    def _every(self) -> list[np.ndarray]:
        """Λ of each term; of fixed ones, one."""
        return [*self.factors, *(np.eye(1) for _ in self.design.wide)]

    @property
    def sigma2(self) -> float:
        return self.likelihood.sigma2(self.solved)

    def coefficients(self) -> Coefficients:
        """Coefficients from the sums."""
        likelihood, p = self.likelihood, self.design.p
        low = self.solved.low
        inner = solve_triangular(low[:-1, :-1], low[-1, :-1], lower=True, trans="T")
        shared = likelihood.shared(self.inner, self.solved)
        h = (likelihood.products.target - likelihood.products.times(shared)) @ self.inner[0]
        first = self._substitute(self._substitute(h, False), True)
        r = self.coordinates.r
        cut = len(inner) - p
        beta = solve_triangular(r[:p, :p], inner[cut:] * r[p, p] + r[:p, p])
        return self._of(beta, [first * r[p, p], *self._split(inner[:cut] * r[p, p])])

    def _split(self, flat: np.ndarray) -> list[np.ndarray]:
        """The effects of other terms, term by term, reference levels among them."""
        found, at = [], 0
        for term in self.design.terms[1:]:
            own = flat[at : at + term.free]
            found.append(np.append(np.zeros(term.size - term.free), own).reshape(-1, term.k))
            at += term.free
        return found

    def _of(self, beta: np.ndarray, whitened: Sequence[np.ndarray]) -> Coefficients:
        return Coefficients(
            beta, tuple(whitened), tuple(v @ factor.T for v, factor in zip(whitened, self._every, strict=True))
        )

    def restored(self, effects: Sequence[np.ndarray], beta: np.ndarray) -> Coefficients:
        """Coefficients from effects in their own units: v is what of them Λ can make."""
        whitened = [u @ np.linalg.pinv(factor).T for u, factor in zip(effects, self._every, strict=True)]
        return Coefficients(beta, tuple(whitened), tuple(effects))

    def uncertainties(self, inverse: np.ndarray) -> list[np.ndarray]:
        """Covariances of ``u − û`` relative to σ², shape (groups, k, k) for each term.

        Parameters
        ----------
        inverse : ndarray
            ``L⁻¹`` of the shared part.
        """
        likelihood, terms = self.likelihood, self.design.random
        products, k = likelihood.products, terms[0].k
        back = likelihood.scale(inverse.T, [f.T for f in self.inner])  # D L⁻ᵀ
        own = products.shrunk(self.inner[0])
        own += own @ products.quadratic(back @ back.T) @ own
        undo = solve_triangular(self.coordinates.z[0], np.eye(k))
        found, at = [undo @ own @ undo.T], 0
        for t, term in enumerate(terms[1:], 1):
            rows = back[at : at + term.size].reshape(-1, term.k, back.shape[1])
            undo = solve_triangular(self.coordinates.z[t], np.eye(term.k))
            found.append(undo @ (rows @ rows.transpose(0, 2, 1)) @ undo.T)
            at += term.size
        return found

    def _substitute(self, h: np.ndarray, transposed: bool) -> np.ndarray:
        return self.likelihood.products.substitute(self.inner[0], h, transposed)

    def assess(self, found: Coefficients, gradient: dict[str, np.ndarray], tol: float) -> Assessment:
        """Bounds on how far coefficients are from those that the rows ask for, and better ones."""
        p, terms = self.design.p, self.design.terms
        g, at = gradient["hi"] + gradient["lo"], p
        h, sizes = [], []
        for term, factor, v in zip(terms, self._every, found.whitened, strict=True):
            own = g[at : at + term.size].reshape(-1, term.k)
            h.append(own[term.reference :] if term.fixed else own @ factor - v)
            sizes.append(float(((np.abs(own) @ np.abs(factor) + np.abs(v)) ** 2).sum()))
            at += term.size
        r = self.coordinates.r
        h_beta = solve_triangular(r[:p, :p], g[:p], trans="T")
        forward = self._substitute(h[0], False)
        shared = np.concatenate([*(part.ravel() for part in h[1:]), h_beta])
        shared -= self._gather(forward)
        low = self.solved.low[:-1, :-1]
        step = solve_triangular(low, shared, lower=True)
        energy = float(np.sqrt((forward**2).sum() + step @ step))
        shift = solve_triangular(low, step, lower=True, trans="T")
        first = self._substitute(forward - self._spread(shift), True)
        cut = len(shift) - p
        beta = found.beta + solve_triangular(r[:p, :p], shift[cut:])
        others = [v + change for v, change in zip(found.whitened[1:], self._split(shift[:cut]), strict=True)]
        better = self._of(beta, [found.whitened[0] + first, *others])
        error = self._bounded(energy, sizes, found, gradient)
        size = float(np.sqrt(sum((part**2).sum() for part in h) + h_beta @ h_beta))
        return Assessment(self._bounds(error, size, found, tol), error, better)

    def _bounded(
        self, energy: float, sizes: Sequence[float], found: Coefficients, gradient: dict[str, np.ndarray]
    ) -> float:
        """The energy distance with everything that rounding can add to it."""
        likelihood, n, d = self.likelihood, self.coordinates.n, self.design.rows.shape[1]
        k = max(likelihood.widths)
        # The residuals, the sums of the gradient, Λᵀ g − v, and u that is rounded where Λ v was meant.
        doubled = (n + 8 * (d + 6)) * U**2 * float(np.sqrt(gradient["sums"][1]))
        plain = 4 * (k + 2) * U * float(np.sqrt(sum(sizes)))
        meant = 0.0
        for z, factor, v, groups in zip(
            self.coordinates.z, self.factors, found.whitened, likelihood.groups, strict=False
        ):
            most = np.linalg.norm(np.abs(v) @ np.abs(factor).T @ np.abs(z).T)
            meant += (k + 1) * U * np.sqrt(n / max(groups, 1) + n) * float(most)
        spread = max(float(np.linalg.cond(z)) for z in self.coordinates.z)
        r = self.coordinates.r[: self.design.p, : self.design.p]
        spread = max(spread, float(np.linalg.cond(r / np.linalg.norm(r, axis=0))) if len(r) else 1.0)
        # Every sum has at most n terms, each with some roundings of its own and those of its coordinates.
        gamma = 2 * (n + 25.0 * (d + k)) * U * spread
        eta = max(self._eta_groups(gamma), self._eta_shared(gamma))
        if eta >= 0.5:
            return float("inf")
        return float((energy / np.sqrt(1 - eta)) * (1 + 8 * gamma) + doubled + plain + meant)

    def _eta_groups(self, gamma: float) -> float:
        """η with ``|M̂_g − M_g| ⪯ η M_g`` for every group, when the sums of ``A_g`` are right to γ.

        As ``|Â − A|_ij ≤ γ (A_ii A_jj)^½``, the difference is at most ``γ tr A ‖Λ‖²`` while ``M ⪰ I``, and at most
        ``k γ / λ_min`` of A, with the least eigenvalue of its correlations.
        """
        a, k = self.likelihood.products.a, self.likelihood.products.k
        if k == 1:
            return gamma
        first = gamma * np.einsum("gaa->g", a) * float((self.inner[0] ** 2).sum())
        large = np.flatnonzero(first > 1e-3)
        if len(large):
            whole = np.tril(a[large]) + np.tril(a[large], -1).transpose(0, 2, 1)
            scale = np.sqrt(np.einsum("gaa->ga", whole))
            scale[scale == 0] = 1.0
            least = np.linalg.eigvalsh(whole / (scale[:, :, None] * scale[:, None, :]))[:, 0]
            with np.errstate(divide="ignore"):
                second = np.where(least > k * gamma, k * gamma / (least - k * gamma), np.inf)
            first[large] = np.minimum(first[large], second)
        return float(first.max(initial=0.0))

    def _eta_shared(self, gamma: float) -> float:
        """η with ``|Ŝ − S| ⪯ η S``: the entries of S are right to ``2 γ (C_ii C_jj)^½``, C before the elimination."""
        low, likelihood = self.solved.low[:-1, :-1], self.likelihood
        q = len(low)
        if not q:
            return 0.0
        diagonal = np.diag(likelihood.scaled(likelihood.c, self.inner))[:-1].copy()
        diagonal[: likelihood.r] += 1.0
        image = np.abs(solve_triangular(low, np.diag(np.sqrt(diagonal)), lower=True))
        return float(2 * gamma * q * image.sum(axis=0).max() * image.sum(axis=1).max())

    def _bounds(self, error: float, size: float, found: Coefficients, tol: float) -> dict[str, Bound]:
        p, r = self.design.p, self.coordinates.r
        low = self.solved.low[:-1, :-1]
        scales = np.linalg.norm(self.fixed_root(solve_triangular(low, np.eye(len(low)), lower=True)), axis=1)
        wide = found.effects[len(self.design.random) :]
        norm = float(np.sqrt(found.beta @ found.beta + sum(float((u**2).sum()) for u in wide)))
        right = float(np.hypot(np.linalg.norm(r[:p, p]), abs(r[p, p])))
        sigma = float(np.sqrt(self.sigma2))
        bounds = {
            "energy_error": Bound(
                "energy_error",
                error / abs(r[p, p]),
                "energy distance to the exact coefficients, relative to what fixed effects leave of the target",
                "rigorous",
                tol,
            ),
            "statistical_error": Bound(
                "statistical_error",
                error / sigma if sigma > 0 else float("inf"),
                "error of any coefficient in units of its standard error",
                "rigorous",
                relative=False,
            ),
            "backward_error": Bound(
                "backward_error",
                size / right if right > 0 else 0.0,
                "size of the whole system's residual, relative to its right-hand side",
                "rigorous",
            ),
        }
        if norm > 0:
            bounds["forward_error"] = Bound(
                "forward_error",
                error * float(np.linalg.norm(scales)) / norm,
                "distance of the fixed effects to the exact ones, relative to their size",
                "rigorous",
            )
        return bounds

    def fixed_root(self, inverse: np.ndarray) -> np.ndarray:
        """G with ``G Gᵀ`` the covariance of the fixed effects relative to σ²: those with columns, then those of levels.

        Parameters
        ----------
        inverse : ndarray
            ``L⁻¹`` of the shared part.
        """
        p, r = self.design.p, self.coordinates.r
        rows = inverse.T[self.likelihood.r :]
        cut = len(rows) - p
        return np.concatenate([solve_triangular(r[:p, :p], rows[cut:]), rows[:cut]])

    def _gather(self, forward: np.ndarray) -> np.ndarray:
        """``Σ B̃_gᵀ L_g⁻¹ h_g``, its other terms scaled by Λ."""
        back = self._substitute(forward, True) @ self.inner[0].T
        total = self.likelihood.products.gathered(back)
        return self.likelihood.scale(total[:, None], self.inner)[:, 0]

    def _spread(self, shift: np.ndarray) -> np.ndarray:
        """``B̃_g shift`` of every group: what the shared part takes off."""
        own = self.likelihood.scale(shift[:, None], [factor.T for factor in self.inner])[:, 0]
        return self._substitute(self.likelihood.products.times(own) @ self.inner[0], False)


@dataclass(frozen=True)
class Assessment:
    """What one pass found.

    Attributes
    ----------
    bounds : dict
    error : float
        Bound on the energy distance.
    better : Coefficients
        One correction further.
    """

    bounds: dict[str, Bound]
    error: float
    better: Coefficients
