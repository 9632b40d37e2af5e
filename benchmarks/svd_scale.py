"""A billion sparse rows made while they are read (3 entries each, 10,000 columns), rank 32, in less than 8 GB.

U would be 3.2e10 numbers: it is never stored, but can be read, row by row, from the answer. Figures: seconds of each
pass, and the certificate.
"""

from __future__ import annotations

import time

import numpy as np

from harness import compare, peak_rss

ROWS, RANK, TOL = 1_000_000_000, 32, 1e-2
FIELDS = (6000, 3000, 1000)


def encoded(start: int, stop: int, random: np.random.Generator):
    """Rows with one entry in each of three fields, of power-law popularity; the fields depend on each other."""
    import scipy.sparse as sp

    m = stop - start
    u = random.random((m, 3), dtype=np.float32)
    u[:, 1] = 0.7 * u[:, 0] + 0.3 * u[:, 1]
    np.power(u, 3, out=u)
    indices = np.empty((m, 3), np.int32)
    offset = 0
    for j, size in enumerate(FIELDS):
        indices[:, j] = np.minimum((size * u[:, j]).astype(np.int32), size - 1) + offset
        offset += size
    data = np.ones(3 * m, np.float32)
    rows = sp.csr_array((data, indices.ravel(), np.arange(0, 3 * m + 1, 3)), shape=(m, offset))
    rows.has_canonical_format = True
    return rows


def measure(configuration: str) -> dict:
    import leyden as ly

    n = int(float(configuration.split()[0]))
    rows = ly.generated(encoded, n, sum(FIELDS), seed=0, chunk=65536)
    began = time.perf_counter()
    answer = ly.svd(rows, RANK, tol=TOL, memory="4GB", method="krylov", progress=False)
    seconds = time.perf_counter() - began
    part = answer.left(rows).read(n // 2, n // 2 + 1000).data
    return {
        "seconds": seconds,
        "numbers_in_U": n * RANK,
        "passes_s": [round(p.seconds, 1) for p in answer.trace.passes],
        "rows_a_second": n / np.median([p.seconds for p in answer.trace.passes]),
        "holds": answer.certificate.holds,
        "certified": {name: bound.value for name, bound in answer.certificate.bounds.items()},
        "s": answer.s.tolist(),
        "norm_of_1000_rows_of_U": float(np.linalg.norm(part)),
        "peak_rss_GB": peak_rss() / 1e9,
    }


if __name__ == "__main__":
    compare("svd_scale", measure, [f"{ROWS:.0e} rows"], lambda: None)
