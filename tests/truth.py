"""Exact answers to compare bounds with: least squares over the numbers as given, in mpmath."""

from __future__ import annotations

import mpmath as mp
import numpy as np

mp.mp.dps = 120


def exact(a: np.ndarray) -> mp.matrix:
    """The float64 entries of a one- or two-dimensional array, without rounding."""
    return mp.matrix(np.atleast_2d(a.T).T.astype(np.float64).tolist())


def column(a: mp.matrix) -> list[mp.mpf]:
    """A column vector as a list."""
    return [a[i] for i in range(a.rows)]


def norm(v: mp.matrix | list[mp.mpf]) -> mp.mpf:
    """2-norm (Frobenius norm of a matrix)."""
    return mp.sqrt(mp.fsum(x * x for x in v))


class LeastSquaresTruth:
    """The exact minimiser of ``Σ w (b − x0 − a·x)² + λ‖x‖²``; columns must be independent.

    Attributes
    ----------
    design : mpmath matrix, (n, p)
        Rows as given, with a column of ones for the intercept.
    x : list of mpf, length p
        Coefficients, then the intercept.
    """

    def __init__(self, a, b, *, ridge=0.0, intercept=False, weights=None):
        a = np.asarray(a, dtype=np.float64)
        if intercept:
            a = np.hstack([a, np.ones((len(a), 1))])
        self.design, self.b = exact(a), exact(np.asarray(b, dtype=np.float64))
        n, p = a.shape
        self.weights = [mp.mpf(float(w)) for w in (np.ones(n) if weights is None else weights)]
        self.penalty = [mp.mpf(float(ridge))] * p
        if intercept:
            self.penalty[-1] = mp.mpf(0)
        weighted = self.design.copy()
        for i in range(n):
            for j in range(p):
                weighted[i, j] *= self.weights[i]
        self.hessian = weighted.T * self.design + mp.diag(self.penalty)
        # Columns scaled to unit norm: the solver's pivots must not mistake small columns for dependent ones.
        scale = mp.diag([1 / mp.sqrt(self.hessian[j, j]) for j in range(p)])
        z = mp.lu_solve(scale * self.hessian * scale, scale * (weighted.T * self.b))
        self.x = column(scale * z)

    def objective(self, x: list[mp.mpf]) -> mp.mpf:
        """The penalised sum of squares at ``x``."""
        r = self.b - self.design * mp.matrix(x)
        return mp.fsum(w * v * v for w, v in zip(self.weights, r, strict=True)) + mp.fsum(
            p * v * v for p, v in zip(self.penalty, x, strict=True)
        )

    def energy(self, x: list[mp.mpf]) -> mp.mpf:
        """``‖Ā(x − x*)‖``: distance of the fits, ridge included."""
        e = mp.matrix([v - t for v, t in zip(x, self.x, strict=True)])
        return mp.sqrt((e.T * self.hessian * e)[0])

    def target_norm(self) -> mp.mpf:
        """``√Σ w b²``."""
        return mp.sqrt(mp.fsum(w * v * v for w, v in zip(self.weights, self.b, strict=True)))
