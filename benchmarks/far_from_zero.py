"""float32, 5,000,000 × 50, an intercept, and columns whose mean is far from zero.

Sums of float32 lose digits here: scikit-learn's LinearRegression (its issue 33032) returns wrong coefficients. The
reference is computed with centred columns, in extended precision.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from harness import compare, repeat

ROWS, COLUMNS, REPEATS = 5_000_000, 50, 5
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-far-from-zero"


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    a += 100 * (1 + rng.random(COLUMNS, dtype=np.float32))
    b = (a @ rng.standard_normal(COLUMNS) + 10 + rng.standard_normal(ROWS)).astype(np.float32)
    np.save(FOLDER / "a.npy", a)
    np.save(FOLDER / "b.npy", b)
    blocks = [slice(i, i + 100_000) for i in range(0, ROWS, 100_000)]
    mean = sum(a[s].sum(axis=0, dtype=np.longdouble) for s in blocks) / ROWS
    gram = sum(((c := a[s] - mean.astype(np.float64)).T @ c) for s in blocks)
    x, target = np.zeros(COLUMNS, np.longdouble), b.astype(np.longdouble).mean()
    for _ in range(3):
        g = np.zeros(COLUMNS, np.longdouble)
        for s in blocks:
            centred = a[s] - mean
            g += centred.T @ (b[s] - target - centred @ x)
        x += np.linalg.solve(gram, g.astype(np.float64))
    np.save(FOLDER / "reference.npy", x.astype(np.float64))


def measure(configuration: str) -> dict:
    from sklearn.linear_model import LinearRegression, Ridge

    import leyden as ly

    a, b = np.load(FOLDER / "a.npy"), np.load(FOLDER / "b.npy")
    reference = np.load(FOLDER / "reference.npy")
    runs = {
        "leyden": lambda: ly.lstsq(a, b, intercept=True),
        "sklearn LinearRegression": lambda: LinearRegression().fit(a, b),
        "sklearn Ridge cholesky": lambda: Ridge(alpha=1e-6, solver="cholesky").fit(a, b),
    }
    run = runs[configuration]
    answer = run()
    x = np.asarray(answer.x if configuration == "leyden" else answer.coef_, np.float64)
    figures = {"largest_relative_coefficient_error": float(np.abs((x - reference) / reference).max())}
    if configuration == "leyden":
        c = answer.certificate
        figures["certificate"] = {
            "holds": c.holds,
            "backward_error": c.backward_error,
            "forward_error": c.forward_error_bound,
        }
        figures["method"] = answer.plan.method
        assert (np.abs(x - reference) <= answer.coefficient_error + 1e-15 * np.abs(reference)).all()
    return figures | repeat(run, REPEATS)


if __name__ == "__main__":
    compare("far_from_zero", measure, ["leyden", "sklearn LinearRegression", "sklearn Ridge cholesky"], prepare)
