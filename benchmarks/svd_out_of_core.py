"""Principal components of an 8 GB .npy (40,000,000 × 50 float32) under 1 GB, beside dask and IncrementalPCA.

Every pass comes from the disk (``cold.py``). The error is the largest relative error of a singular value against those
of the whole Gram matrix in float64, and the residual ``max ‖Aᵀu − σv‖ / σ_1`` is measured from it as well.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from cold import cold_file, cold_rows, plain_read
from harness import compare, peak_rss, summary

ROWS, COLUMNS, RANK, REPEATS, BLOCK = 40_000_000, 50, 10, 5, 100_000
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-svd-out-of-core"
FILE = FOLDER / "a.npy"


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    a = np.lib.format.open_memmap(FILE, "w+", np.float32, (ROWS, COLUMNS))
    mix = np.linalg.qr(np.random.default_rng(0).standard_normal((COLUMNS, COLUMNS)))[0] * 0.95 ** np.arange(COLUMNS)
    gram, total = np.zeros((COLUMNS, COLUMNS)), np.zeros(COLUMNS)
    for i in range(0, ROWS, BLOCK):
        rng = np.random.Generator(np.random.Philox(key=[0, i]))
        block = rng.standard_normal((BLOCK, COLUMNS), dtype=np.float32) @ mix.T.astype(np.float32)
        a[i : i + BLOCK] = block
        exact = block.astype(np.float64)
        gram += exact.T @ exact
        total += exact.sum(axis=0)
    a.flush()
    np.savez(FOLDER / "gram.npz", svd=gram, pca=gram - np.outer(total, total / ROWS))
    os.sync()


def _errors(kind: str, s: np.ndarray, vt: np.ndarray) -> dict:
    gram = np.load(FOLDER / "gram.npz")[kind]
    truth = np.sqrt(np.linalg.eigvalsh(gram)[::-1][: len(s)])
    v, s = np.asarray(vt, np.float64).T, np.asarray(s, np.float64)
    return {
        "residual": float((np.linalg.norm(gram @ v - v * s**2, axis=0) / s).max() / s[0]),
        "error_of_s": float(np.abs(s / truth - 1).max()),
    }


def _leyden(verb: str) -> dict:
    import leyden as ly

    run = getattr(ly, verb)
    run(np.random.default_rng(0).standard_normal((1000, COLUMNS), dtype=np.float32), RANK)
    rows = cold_rows(FILE)
    runs, rates, fractions = [], [], defaultdict(list)
    for _ in range(REPEATS):
        rates.append(plain_read(FILE))
        began = time.perf_counter()
        answer = run(rows, RANK, memory="1GB")
        runs.append(time.perf_counter() - began)
        for p in answer.trace.passes:
            fractions[p.name].append(p.nbytes / p.seconds / rates[-1])
        assert answer.certificate.holds
    return {
        **summary(runs),
        **_errors(verb, answer.s, answer.Vt),
        "predicted_s": answer.plan.seconds,
        "read_GB_s": statistics.median(rates) / 1e9,
        "passes_of_read_rate": {name: round(statistics.median(f), 3) for name, f in fractions.items()},
        "certified": {name: bound.value for name, bound in answer.certificate.bounds.items()},
    }


def _dask() -> dict:
    import dask
    import dask.array as da

    os.close(cold_file(FILE))
    a = da.from_array(np.load(FILE, mmap_mode="r"), chunks=(250_000, COLUMNS))
    began = time.perf_counter()
    with dask.config.set(scheduler="threads"):
        _, s, vt = da.linalg.svd_compressed(a, RANK, n_power_iter=4, seed=0)
        s, vt = dask.compute(s, vt)
    return {**summary([time.perf_counter() - began]), **_errors("svd", s, vt)}


def _incremental() -> dict:
    from sklearn.decomposition import IncrementalPCA

    os.close(cold_file(FILE))
    a = np.load(FILE, mmap_mode="r")
    began = time.perf_counter()
    found = IncrementalPCA(RANK, batch_size=10_000).fit(a)
    return {
        **summary([time.perf_counter() - began]), **_errors("pca", found.singular_values_, found.components_)
    }  # fmt: skip


def measure(configuration: str) -> dict:
    what = {"dask svd_compressed": _dask, "sklearn IncrementalPCA": _incremental}
    figures = what[configuration]() if configuration in what else _leyden(configuration.split()[1])
    return figures | {"peak_rss_GB": peak_rss() / 1e9}


if __name__ == "__main__":
    systems = ["leyden svd", "leyden pca", "dask svd_compressed", "sklearn IncrementalPCA"]
    compare("svd_out_of_core", measure, systems, prepare, FOLDER)
