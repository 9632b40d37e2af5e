"""Hostile matrices with known spectra, and their singular values in extended precision."""

from __future__ import annotations

import mpmath as mp
import numpy as np

#: Singular values of a matrix of rank m, each a way to make life hard.
SPECTRA = {
    "flat": lambda m, rng: np.ones(m),
    "nearly flat": lambda m, rng: 1 + 1e-9 * rng.standard_normal(m),
    "decaying": lambda m, rng: 0.1 ** np.arange(m),
    "wild": lambda m, rng: 10.0 ** -rng.integers(0, 16, m),
    "rank one": lambda m, rng: np.r_[1.0, np.zeros(m - 1)],
    "spread": lambda m, rng: 10.0 ** rng.uniform(-12, 0, m),
    "clustered": lambda m, rng: np.repeat(10.0 ** -np.arange(m), 3)[:m],
    "zero": lambda m, rng: np.zeros(m),
}


def matrix(kind: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """A random n × d matrix with that kind of spectrum, at a random scale, sometimes made worse."""
    m = min(n, d)
    left = np.linalg.qr(rng.standard_normal((n, m)))[0]
    right = np.linalg.qr(rng.standard_normal((d, m)))[0]
    a = (left * SPECTRA[kind](m, rng)) @ right.T * 10.0 ** rng.integers(-30, 30)
    if rng.random() < 0.2:
        a = a * 10.0 ** rng.integers(-8, 8, d)
    if rng.random() < 0.1:
        a[:, rng.integers(d)] = 0
    if rng.random() < 0.2:
        a = a + 1
    if rng.random() < 0.3:
        a = a.astype(np.float32)
    return np.ascontiguousarray(a)


def singular_values(a: np.ndarray, *, centre: bool = False, deviation: np.ndarray | None = None) -> list[mp.mpf]:
    """All min(n, d) of them, descending, in sixty digits."""
    with mp.workdps(60):
        b = mp.matrix(a.astype(float).tolist())
        n, d = a.shape
        if centre:
            for j in range(d):
                mean = mp.fsum(b[i, j] for i in range(n)) / n
                for i in range(n):
                    b[i, j] -= mean
        if deviation is not None:
            for j in range(d):
                for i in range(n):
                    b[i, j] /= mp.mpf(float(deviation[j]))
        gram = b.T * b if d <= n else b * b.T
        values = mp.eigsy(gram, eigvals_only=True)
        return sorted((mp.sqrt(max(value, 0)) for value in values), reverse=True)


def outside(lower: np.ndarray, upper: np.ndarray, truth: list[mp.mpf]) -> list[int]:
    """Which enclosures do not hold the truth."""
    with mp.workdps(60):
        digits = 1 + mp.mpf(10) ** -25
        return [
            i
            for i in range(len(lower))
            if not mp.mpf(float(lower[i])) <= truth[i] * digits or not truth[i] <= mp.mpf(float(upper[i])) * digits
        ]
