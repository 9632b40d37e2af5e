"""Mixed models by their definition: every matrix as a whole, over all rows, in NumPy or mpmath."""

from __future__ import annotations

import mpmath as mp
import numpy as np


class Dense:
    """The model ``y ~ N(X β, σ² (W⁻¹ + Σ Z_t (I ⊗ Δ_t) Z_tᵀ))``.

    Parameters
    ----------
    x, y : ndarray, shapes (n, p) and (n,)
    terms : list of (ndarray (n, k), ndarray (n,))
        Columns and codes of each term.
    weights : ndarray, optional
    """

    def __init__(self, x, y, terms, weights=None):
        self.x, self.y, self.terms = x, y, terms
        self.n, self.p = x.shape
        self.w = np.ones(self.n) if weights is None else weights
        self.z = [spread(z, codes) for z, codes in terms]

    def v(self, deltas):
        v = np.diag(1 / self.w)
        for z, (_, codes), delta in zip(self.z, self.terms, deltas, strict=True):
            v += z @ np.kron(np.eye(codes.max() + 1), delta) @ z.T
        return v

    def minus_twice(self, deltas, restricted=True, sigma2=None):
        """``−2 ℓ``, at the best σ² unless one is given."""
        v = self.v(deltas)
        inverse = np.linalg.inv(v)
        information = self.x.T @ inverse @ self.x
        beta = np.linalg.solve(information, self.x.T @ inverse @ self.y)
        r = self.y - self.x @ beta
        degrees = self.n - self.p if restricted else self.n
        rest = r @ inverse @ r
        sigma2 = rest / degrees if sigma2 is None else sigma2
        value = np.linalg.slogdet(v)[1] + degrees * np.log(2 * np.pi * sigma2) + rest / sigma2
        return value + (np.linalg.slogdet(information)[1] if restricted else 0.0)

    def henderson(self, deltas):
        """β, the effects of each term, and the inverse of the coefficient matrix of Henderson's equations."""
        z = np.concatenate([self.x, *self.z], axis=1)
        system = z.T @ (self.w[:, None] * z)
        at = self.p
        for (_, codes), delta in zip(self.terms, deltas, strict=True):
            size = (codes.max() + 1) * len(delta)
            system[at : at + size, at : at + size] += np.kron(np.eye(codes.max() + 1), np.linalg.inv(delta))
            at += size
        inverse = np.linalg.inv(system)
        found = inverse @ (z.T @ (self.w * self.y))
        effects, at = [], self.p
        for own, codes in self.terms:
            size = (codes.max() + 1) * own.shape[1]
            effects.append(found[at : at + size].reshape(-1, own.shape[1]))
            at += size
        return found[: self.p], effects, inverse


def spread(z, codes):
    """A term's columns for every group beside one another."""
    n, k = z.shape
    out = np.zeros((n, (codes.max() + 1) * k))
    for i, g in enumerate(codes):
        out[i, g * k : (g + 1) * k] = z[i]
    return out


class Exact:
    """β and v of the penalised system at given Λ, in mpmath: ``‖√W(y − X β − Z Λ v)‖² + ‖v‖²`` least."""

    def __init__(self, x, y, terms, factors, weights=None):
        mp.mp.dps = 120
        n, p = x.shape
        w = np.ones(n) if weights is None else weights
        columns = [[mp.mpf(float(x[i, j])) for i in range(n)] for j in range(p)]
        for (z, codes), factor in zip(terms, factors, strict=True):
            for g in range(int(codes.max()) + 1):
                for b in range(z.shape[1]):
                    columns.append([
                        mp.fsum(mp.mpf(float(z[i, a])) * mp.mpf(float(factor[a, b])) for a in range(z.shape[1]))
                        if codes[i] == g else mp.mpf(0) for i in range(n)
                    ])  # fmt: skip
        w, q = [mp.mpf(float(v)) for v in w], len(columns)
        weighted = [[w[i] * c[i] for i in range(n)] for c in columns]
        self.h = mp.matrix(q, q)
        for i in range(q):
            for j in range(q):
                self.h[i, j] = mp.fdot(weighted[i], columns[j]) + (1 if i == j >= p else 0)
        right = mp.matrix([mp.fdot(c, [mp.mpf(float(v)) for v in y]) for c in weighted])
        scale = mp.diag([1 / mp.sqrt(self.h[j, j]) for j in range(q)])
        self.all = scale * mp.lu_solve(scale * self.h * scale, scale * right)
        self.beta, self.v, at = [self.all[j] for j in range(p)], [], p
        self.u = []
        for (z, codes), factor in zip(terms, factors, strict=True):
            groups, k = int(codes.max()) + 1, z.shape[1]
            own = [[self.all[at + g * k + b] for b in range(k)] for g in range(groups)]
            at += groups * k
            self.v.append(own)
            self.u.append([
                [mp.fsum(mp.mpf(float(factor[a, b])) * row[b] for b in range(k)) for a in range(k)] for row in own
            ])  # fmt: skip

    def energy(self, beta, whitened):
        """``‖·‖_H`` of the distance of coefficients to the exact ones."""
        e = mp.matrix([mp.mpf(float(b)) for b in beta] + [v for own in whitened for row in own for v in row]) - self.all
        return mp.sqrt((e.T * self.h * e)[0])
