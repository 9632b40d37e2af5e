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
        roots = [mpmath.sqrt(mpmath.mpf(float(c))) for c in w]
        right = full.T * mpmath.matrix([mpmath.mpf(float(b)) * root for b, root in zip(y, roots, strict=True)])
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
