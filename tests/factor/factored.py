"""Matrix factorization by brute force: all pairs of a user and an item, dense, in extended precision."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

LONG = np.longdouble

#: The formulations of :mod:`leyden.factor.objective`, as options of ``ly.als``.
FORMULATIONS = {
    "explicit": {},
    "biases": {"biases": True},
    "scaled": {"scaling": 1.0},
    "implicit": {"implicit": True, "alpha": 2.0},
    "background": {"implicit": True, "background": 0.3, "scaling": 0.5},
}


def ratings(rng, n, m, density=0.4, *, positive=False):
    """Random ratings of rank two and some noise; some users and items may have none."""
    a = rng.standard_normal((n, 2)) @ rng.standard_normal((2, m)) + 0.3 * rng.standard_normal((n, m))
    a = (np.abs(a) + 0.01 if positive else a).astype(np.float32)
    seen = rng.random((n, m)) < density
    seen[rng.integers(n), rng.integers(m)] = True
    i, j = np.nonzero(seen)
    return sp.csr_array((a[i, j], (i, j)), shape=(n, m))


def problem(rng, formulation, n, m, regularization=0.5, density=0.4):
    """Ratings, options of ``ly.als``, and the problem they make."""
    options = {**FORMULATIONS[formulation], "regularization": regularization}
    a = ratings(rng, n, m, density, positive=options.get("implicit", False))
    return a, options, Problem(a, **options)


class Problem:
    """``½ Σ_ij W (T − X)² + constant + ½ Σ λ ‖u‖² + ½ Σ ν ‖v‖²`` ``X = U Vᵀ``; biases in last columns."""

    def __init__(
        self, a, regularization=0.1, scaling=0.0, implicit=False, alpha=1.0, background=None, biases=False, mean=None
    ):
        n, m = a.shape
        values, seen = np.zeros((n, m), LONG), np.zeros((n, m), bool)
        for i in range(n):
            entries = slice(a.indptr[i], a.indptr[i + 1])
            seen[i, a.indices[entries]] = True
            values[i, a.indices[entries]] = a.data[entries].astype(np.float32)
        base = LONG((1.0 if background is None else background) if implicit else 0.0)
        self.biases, self.seen, self.constant = biases, seen, LONG(0)
        self.mean = float(a.data.mean(dtype=float) if mean is None else mean) if biases else 0.0
        self.weight, self.target = np.full((n, m), base), np.zeros((n, m), LONG)
        if not implicit:
            self.weight[seen], self.target[seen] = 1, values[seen] - LONG(self.mean)
        elif background is None:
            self.weight[seen], self.target[seen] = 1 + LONG(alpha) * values[seen], 1
        else:
            # ½ (1 − x)² + ½ α₀ x²
            self.weight[seen], self.target[seen] = 1 + base, 1 / (1 + base)
            self.constant = seen.sum() * base / (1 + base) / 2
        rows, columns = seen.sum(axis=1), seen.sum(axis=0)
        rows, columns = (
            (rows + base * m, columns + base * n) if implicit else (np.maximum(rows, 1), np.maximum(columns, 1))
        )
        self.user_penalties = LONG(regularization) * rows.astype(LONG) ** LONG(scaling)
        self.item_penalties = LONG(regularization) * columns.astype(LONG) ** LONG(scaling)

    @property
    def transposed(self):
        """Users for items."""
        other = object.__new__(Problem)
        other.biases, other.constant, other.mean = self.biases, self.constant, self.mean
        other.weight, other.target, other.seen = self.weight.T, self.target.T, self.seen.T
        other.user_penalties, other.item_penalties = self.item_penalties, self.user_penalties
        return other

    def product(self, u, v):
        u, v = u.astype(LONG), v.astype(LONG)
        if self.biases:
            return u[:, :-1] @ v[:, :-1].T + u[:, -1:] + v[:, -1]
        return u @ v.T

    def objective(self, u, v):
        u, v = u.astype(LONG), v.astype(LONG)
        loss = (self.weight * (self.target - self.product(u, v)) ** 2).sum() / 2
        return self.constant + loss + (self.user_penalties @ (u * u).sum(1) + self.item_penalties @ (v * v).sum(1)) / 2

    def residual(self, u, v):
        """G."""
        return self.weight * (self.target - self.product(u, v))

    def scaled(self, u, v):
        """M."""
        return self.residual(u, v) / np.sqrt(self.user_penalties)[:, None] / np.sqrt(self.item_penalties)

    def norm(self, u, v):
        """``‖M‖₂``."""
        m = self.scaled(u, v)
        x = np.linalg.svd(m.astype(float))[2][0].astype(LONG)
        for _ in range(3):
            x = m.T @ (m @ x)
            x /= max(np.sqrt(x @ x), LONG("1e-4000"))
        return np.sqrt(((m @ x) ** 2).sum())

    def dual(self, g, s):
        """``min [ℓ + s ⟨G, ·⟩]`` over all matrices, and over biases."""
        there = self.weight > 0
        quadratic = (g[there] ** 2 / self.weight[there]).sum()
        if self.biases:
            quadratic += (g.sum(axis=1) ** 2 / self.user_penalties).sum() + (
                g.sum(axis=0) ** 2 / self.item_penalties
            ).sum()
        return self.constant + s * (g * self.target).sum() - s * s * quadratic / 2

    def users(self, v):
        """The best users for some items, by normal equations."""
        v, weight = v.astype(float), self.weight.astype(float)
        features, target = v.copy(), self.target.astype(float)
        if self.biases:
            features[:, -1], target = 1.0, target - v[:, -1]
        form = np.einsum("ij,jk,jl->ikl", weight, features, features)
        form += self.user_penalties.astype(float)[:, None, None] * np.eye(v.shape[1])
        return np.linalg.solve(form, ((weight * target) @ features)[:, :, None])[:, :, 0]

    def items(self, u):
        return self.transposed.users(u)

    def best(self, u, v, epochs=60):
        """A least value over factors of any rank, from these on: those that are missing are added first."""
        n, m = self.weight.shape
        rank, full = u.shape[1] - self.biases, min(n, m)
        if rank < full:
            left, _, right = np.linalg.svd(self.scaled(u, v).astype(float))
            size = 0.1 * max(np.abs(v).max(), np.abs(u).max(), 1e-3)
            more = [
                size * x[:, : full - rank] / np.sqrt(p.astype(float))[:, None] * np.sqrt(float(p.min()))
                for x, p in ((left, self.user_penalties), (right.T, self.item_penalties))
            ]
            u, v = (np.concatenate([x[:, :rank], y, x[:, rank:]], axis=1) for x, y in ((u, more[0]), (v, more[1])))
        least, before, point = self.objective(u, v), None, v
        for epoch in range(epochs):
            found = self.items(self.users(point))
            value = self.objective(self.users(found), found)
            point = found if before is None or epoch % 3 == 0 else found + 1.5 * (found - before)
            before, least = found, min(least, value)
        return least
