"""1,000,000 × 200 float32 in memory: Leyden beside scikit-learn and NumPy.

Accuracy first: the backward error of each answer is measured here, in extended precision, by code of its own (the
projection of the residual on the range of A, relative to ‖A‖_F ‖x‖); and each answer is compared with a reference
refined in extended precision.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from harness import compare, peak_rss, repeat

ROWS, COLUMNS, REPEATS = 1_000_000, 200, 5
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-in-memory"


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    x = rng.standard_normal(COLUMNS)
    b = (a @ x + rng.standard_normal(ROWS)).astype(np.float32)
    np.save(FOLDER / "a.npy", a)
    np.save(FOLDER / "b.npy", b)
    gram = np.zeros((COLUMNS, COLUMNS))
    for i in range(0, ROWS, 10_000):
        block = a[i : i + 10_000].astype(np.float64)
        gram += block.T @ block
    factor = np.linalg.cholesky(gram)
    reference = np.zeros(COLUMNS, np.longdouble)
    for _ in range(4):
        g = _gradient(a, b, reference).astype(np.float64)
        reference += np.linalg.solve(factor.T, np.linalg.solve(factor, g))
    np.savez(FOLDER / "reference.npz", x=reference, factor=factor, norm=np.sqrt(np.trace(gram)))


def _gradient(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    total = np.zeros(a.shape[1], np.longdouble)
    for i in range(0, len(a), 10_000):
        block = a[i : i + 10_000].astype(np.longdouble)
        total += block.T @ (b[i : i + 10_000] - block @ x)
    return total


def measure(configuration: str) -> dict:
    from sklearn.linear_model import LinearRegression, Ridge

    import leyden as ly

    a, b = np.load(FOLDER / "a.npy"), np.load(FOLDER / "b.npy")
    runs = {
        "leyden": lambda: ly.lstsq(a, b),
        "leyden ridge, intercept": lambda: ly.lstsq(a, b, ridge=1.0, intercept=True),
        "sklearn LinearRegression": lambda: LinearRegression().fit(a, b),
        "sklearn LinearRegression, no intercept": lambda: LinearRegression(fit_intercept=False).fit(a, b),
        "sklearn Ridge cholesky": lambda: Ridge(alpha=1.0, solver="cholesky").fit(a, b),
        "sklearn Ridge cholesky, no intercept": lambda: Ridge(alpha=1.0, solver="cholesky", fit_intercept=False).fit(
            a, b
        ),
        "numpy lstsq": lambda: np.linalg.lstsq(a, b),
    }
    run = runs[configuration]
    before = peak_rss()
    answer = run()
    figures = {}
    x = answer.x if configuration.startswith("leyden") else answer[0] if isinstance(answer, tuple) else answer.coef_
    if configuration in ("leyden", "numpy lstsq", "sklearn LinearRegression, no intercept"):
        saved = np.load(FOLDER / "reference.npz")
        x = np.asarray(x, np.float64)
        g = _gradient(a, b, x.astype(np.longdouble)).astype(np.float64)
        projection = np.linalg.norm(np.linalg.solve(saved["factor"], g))
        figures["backward_error"] = float(projection / np.linalg.norm(x) / saved["norm"])
        figures["forward_error"] = float(np.linalg.norm(x - saved["x"]) / np.linalg.norm(saved["x"]))
    if configuration.startswith("leyden"):
        c = answer.certificate
        figures["certificate"] = {
            "holds": c.holds,
            "backward_error": c.backward_error,
            "forward_error": c.forward_error_bound,
        }
        figures["method"] = answer.plan.method
        figures["predicted_s"] = answer.plan.seconds
        figures["passes_s"] = [round(p.seconds, 4) for p in answer.trace.passes]
    return figures | repeat(run, REPEATS) | {"added_rss_MB": (peak_rss() - before) / 1e6}


if __name__ == "__main__":
    compare(
        "in_memory",
        measure,
        [
            "leyden",
            "leyden ridge, intercept",
            "sklearn LinearRegression",
            "sklearn LinearRegression, no intercept",
            "sklearn Ridge cholesky",
            "sklearn Ridge cholesky, no intercept",
            "numpy lstsq",
        ],
        prepare,
        FOLDER,
    )
