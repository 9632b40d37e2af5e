"""QR of 1,000,000 × 100 float64: Leyden beside NumPy, SciPy and dask.array.linalg.tsqr.

Accuracy first: the distance of every Q from orthonormal, and its residual, are measured in sums over short tiles.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from harness import compare, peak_rss, repeat

ROWS, COLUMNS, REPEATS = 1_000_000, 100, 3
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-qr"


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    np.save(FOLDER / "a.npy", np.random.default_rng(0).standard_normal((ROWS, COLUMNS)))


def accuracy(q: np.ndarray, r: np.ndarray) -> dict:
    """``‖QᵀQ − I‖_F`` and ``‖A − QR‖_F / ‖A‖_F``."""
    a = np.load(FOLDER / "a.npy", mmap_mode="r")
    gram, residual, size = np.zeros((COLUMNS, COLUMNS)), 0.0, 0.0
    for i in range(0, ROWS, 1000):
        here = slice(i, i + 1000)
        gram += q[here].T @ q[here]
        residual += np.linalg.norm(a[here] - q[here] @ r) ** 2
        size += np.linalg.norm(a[here]) ** 2
    return {"orthogonality": float(np.linalg.norm(gram - np.eye(COLUMNS))), "residual": float((residual / size) ** 0.5)}


def measure(configuration: str) -> dict:
    path, target = FOLDER / "a.npy", FOLDER / "q.npy"
    name, _, what = configuration.partition(", ")
    if name == "leyden":
        import leyden as ly

        asked = target if what == "Q to a file" else False
        run = lambda: ly.qr(path, q=asked, memory="500MB")  # noqa: E731
    elif name == "dask tsqr":
        import dask.array as da

        a = da.from_array(np.load(path, mmap_mode="r"), chunks=(100_000, COLUMNS))

        def run():
            q, r = da.linalg.tsqr(a)
            if what == "R":
                return None, r.compute()
            out = np.lib.format.open_memmap(target, mode="w+", dtype=np.float64, shape=(ROWS, COLUMNS))
            # One graph: computed apart, the factors of the blocks are made twice.
            _, r = da.compute(da.store(q, out, compute=False), r)
            return np.load(target, mmap_mode="r"), r
    elif name == "numpy qr":
        a = np.load(path)
        run = lambda: (None, np.linalg.qr(a, mode="r")) if what == "R" else np.linalg.qr(a)  # noqa: E731
    else:
        import scipy.linalg

        a = np.load(path)
        run = lambda: scipy.linalg.qr(a, mode="economic", check_finite=False)  # noqa: E731
    figures: dict = {}
    answer = run()
    if name == "leyden":
        bounds = answer.certificate.bounds
        figures["certificate"] = {key: bound.value for key, bound in bounds.items()}
        figures["method"], figures["predicted_s"] = answer.plan.method, answer.plan.seconds
        figures["passes_s"] = [round(p.seconds, 3) for p in answer.trace.passes]
    if what != "R":
        q, r = (np.load(target, mmap_mode="r"), answer.R) if name == "leyden" else answer
        peak = peak_rss()
        figures |= accuracy(q, r)
        del q, r
    else:
        peak = peak_rss()
    del answer
    return figures | {"peak_rss_MB": round(peak / 1e6)} | repeat(run, REPEATS)


if __name__ == "__main__":
    compare(
        "qr",
        measure,
        [
            "leyden, R",
            "leyden, Q to a file",
            "dask tsqr, R",
            "dask tsqr, Q to a file",
            "numpy qr, R",
            "numpy qr, Q in memory",
            "scipy qr, Q in memory",
        ],
        prepare,
    )
