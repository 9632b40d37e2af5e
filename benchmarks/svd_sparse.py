"""10,000,000 × 100,000 sparse float32 with 1.1e8 stored entries, power laws in rows and columns, rank 32, to 1e-4.

Leyden beside scikit-learn's TruncatedSVD and PRIMME's svds. The residual ``max ‖Aᵀu − σv‖ / σ_1`` of each answer is
measured here from its right vectors and singular values alone.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from harness import compare, peak_rss, summary

ROWS, COLUMNS, RANK, TOL, PART = 10_000_000, 100_000, 32, 1e-4, 1_000_000
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-svd-sparse"


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    parts = []
    for i in range(ROWS // PART):
        rng = np.random.Generator(np.random.Philox(key=[0, i]))
        degree = np.minimum(2 + (4.2 * rng.pareto(1.4, PART)).astype(np.int64), 2000)
        rows = np.repeat(np.arange(PART), degree)
        columns = (COLUMNS * rng.random(len(rows)) ** 2.5).astype(np.int32)
        values = rng.integers(1, 6, len(rows)).astype(np.float32)
        parts.append(sp.csr_array(sp.coo_array((values, (rows, columns)), shape=(PART, COLUMNS))))
    counts = np.concatenate([np.diff(part.indptr) for part in parts])
    np.save(FOLDER / "indptr.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    np.save(FOLDER / "indices.npy", np.concatenate([part.indices for part in parts]).astype(np.int32))
    np.save(FOLDER / "data.npy", np.concatenate([part.data for part in parts]))


def matrix() -> sp.csr_array:
    parts = [np.load(FOLDER / f"{name}.npy") for name in ("data", "indices", "indptr")]
    a = sp.csr_array((ROWS, COLUMNS), dtype=np.float32)
    a.data, a.indices, a.indptr = parts
    a.has_canonical_format = True
    return a


def residual(a: sp.csr_array, s: np.ndarray, vt: np.ndarray) -> float:
    """The largest residual of a triplet, relative to σ_1."""
    v = np.ascontiguousarray(vt.T, np.float64)
    image = np.zeros_like(v)
    for i in range(0, ROWS, PART):
        part = a[i : i + PART]
        image += part.T @ (part @ v)
    return float((np.linalg.norm(image - v * s.astype(np.float64) ** 2, axis=0) / s).max() / s[0])


def measure(configuration: str) -> dict:
    a = matrix()
    began = time.perf_counter()
    if configuration == "leyden":
        import leyden as ly

        answer = ly.svd(a, RANK, tol=TOL, memory="2GB")
        s, vt = answer.s, answer.Vt
        figures = {
            "method": answer.plan.method,
            "passes_s": [round(p.seconds, 2) for p in answer.trace.passes],
            "holds": answer.certificate.holds,
            "certified": {name: bound.value for name, bound in answer.certificate.bounds.items()},
        }
    elif configuration == "sklearn TruncatedSVD":
        from sklearn.decomposition import TruncatedSVD

        found = TruncatedSVD(RANK, n_iter=5, random_state=0).fit(a)
        s, vt, figures = found.singular_values_, found.components_, {"iterations": 5}
    else:
        import primme

        _, s, vt = primme.svds(a, RANK, tol=TOL, which="LM")
        order = np.argsort(-s)
        s, vt, figures = s[order], vt[order], {}
    seconds = time.perf_counter() - began
    peak = peak_rss() / 1e9
    return {**summary([seconds]), "peak_rss_GB": peak, "residual": residual(a, s, vt), **figures}


if __name__ == "__main__":
    compare("svd_sparse", measure, ["leyden", "sklearn TruncatedSVD", "primme svds"], prepare, FOLDER, limit_s=720)
