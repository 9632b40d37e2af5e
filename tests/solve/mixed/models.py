"""Mixed models by their definition, for tests: everything with matrices of n × n."""

from __future__ import annotations

from collections.abc import Sequence

import mpmath
import numpy as np
import pandas as pd

from leyden.solve.mixed.design import Design


def parts(built: Design) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, np.ndarray]:
    """X, the indicators times columns of each random term (groups together), y and weights."""
    n = built.rows.shape[0]
    block = built.rows.read(0, n)
    x = [block.data[:, : built.p]]
    for term in built.wide:
        place = np.zeros((n, term.size))
        place[np.arange(n), term.groups.codes] = 1
        x.append(place[:, int(term.reference) :])
    z = []
    for term in built.random:
        place = np.zeros((n, term.size))
        for j in range(term.k):
            place[np.arange(n), term.groups.codes * term.k + j] = block.data[:, term.place][:, j]
        z.append(place)
    weight = np.ones(n) if block.weight is None else block.weight
    return np.concatenate(x, axis=1), z, block.target[:, 0], weight


def minus_two_log_likelihood(built: Design, factors: Sequence[np.ndarray], *, restricted: bool) -> dict:
    """By the multivariate normal density of the target, σ² at its best."""
    x, z, y, w = parts(built)
    held = w > 0
    x, y, w = x[held], y[held], w[held]
    v = np.diag(1 / w)
    for place, factor in zip(z, factors, strict=True):
        own = place[held] @ np.kron(np.eye(place.shape[1] // len(factor)), factor)
        v += own @ own.T
    inverse = np.linalg.inv(v)
    normal = x.T @ inverse @ x
    beta = np.linalg.solve(normal, x.T @ inverse @ y)
    rest = y - x @ beta
    degrees = len(y) - (x.shape[1] if restricted else 0)
    sigma2 = float(rest @ inverse @ rest) / degrees
    value = np.linalg.slogdet(v)[1] + degrees * (np.log(2 * np.pi * sigma2) + 1)
    if restricted:
        value += np.linalg.slogdet(normal)[1]
    effects = []
    for place, factor in zip(z, factors, strict=True):
        delta = np.kron(np.eye(place.shape[1] // len(factor)), factor @ factor.T)
        effects.append(delta @ place[held].T @ inverse @ rest)
    covariance = sigma2 * np.linalg.inv(normal)
    return {"value": value, "beta": beta, "sigma2": sigma2, "effects": effects, "covariance": covariance}


def error_covariances(built: Design, factors: Sequence[np.ndarray], sigma2: float) -> list[np.ndarray]:
    """Of ``u − û`` by Henderson's equations, all effects of a term together; Λ must be regular."""
    x, z, _, w = parts(built)
    every = np.concatenate([x, *z], axis=1)
    penalty = np.zeros((every.shape[1],) * 2)
    at = x.shape[1]
    for place, factor in zip(z, factors, strict=True):
        size = place.shape[1]
        inverse = np.linalg.inv(factor @ factor.T)
        penalty[at : at + size, at : at + size] = np.kron(np.eye(size // len(factor)), inverse)
        at += size
    whole = sigma2 * np.linalg.inv(every.T @ (w[:, None] * every) + penalty)
    found, at = [], x.shape[1]
    for place in z:
        found.append(whole[at : at + place.shape[1], at : at + place.shape[1]])
        at += place.shape[1]
    return found


def exact_energy(built: Design, factors: Sequence[np.ndarray], found) -> float:
    """The energy distance of coefficients (β, v) to the exact ones, in 60 digits."""
    x, z, y, w = parts(built)
    columns = [x, *(place @ np.kron(np.eye(place.shape[1] // len(f)), f) for place, f in zip(z, factors, strict=True))]
    # The products with Λ are part of the problem as it is solved here: keep them exact as well.
    with mpmath.workdps(60):
        a = mpmath.matrix(x.tolist()) if x.shape[1] else mpmath.matrix(len(y), 0)
        wide = [a]
        for place, f in zip(z, factors, strict=True):
            wide.append(mpmath.matrix(place.tolist()) * _kron(place.shape[1] // len(f), f))
        q = sum(column.shape[1] for column in columns)
        full = mpmath.matrix(len(y), q)
        at = 0
        for part in wide:
            for i in range(part.rows):
                for j in range(part.cols):
                    full[i, at + j] = part[i, j] * mpmath.sqrt(mpmath.mpf(float(w[i])))
            at += part.cols
        h = full.T * full
        for j in range(x.shape[1], q):
            h[j, j] += 1
        right = full.T * mpmath.matrix([mpmath.mpf(float(b)) * mpmath.sqrt(mpmath.mpf(float(c))) for b, c in zip(y, w, strict=True)])
        exact = mpmath.lu_solve(h, right)
        own = [float(b) for b in found.beta] + [float(b) for v in found.whitened for b in v.ravel()]
        away = mpmath.matrix(own) - exact
        return float(mpmath.sqrt((away.T * h * away)[0]))


def _kron(times: int, factor: np.ndarray) -> mpmath.matrix:
    k = len(factor)
    out = mpmath.matrix(times * k, times * k)
    for t in range(times):
        for i in range(k):
            for j in range(k):
                out[t * k + i, t * k + j] = mpmath.mpf(float(factor[i, j]))
    return out


def table(seed: int, n: int = 120, groups: int = 9, others: int = 5) -> pd.DataFrame:
    """Rows with two crossed groupings, a slope, a category and weights, in no order."""
    rng = np.random.default_rng(seed)
    g, s = rng.integers(0, groups, n), rng.integers(0, others, n)
    found = pd.DataFrame(
        {
            "x": rng.standard_normal(n) + 0.5,
            "c": rng.choice(["low", "high", "middle"], n),
            "g": g * 7 - 3,
            "s": [f"site {i}" for i in s],
            "w": rng.random(n) + 0.1,
        }
    )
    u = rng.standard_normal((groups, 2)) * [1.0, 0.5]
    found["y"] = 1 + 2 * found.x + u[g, 0] + u[g, 1] * found.x + 0.6 * rng.standard_normal(others)[s]
    found["y"] += 0.7 * rng.standard_normal(n)
    return found
