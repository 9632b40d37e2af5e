"""An 8 GB .npy (40,000,000 × 50 float32) solved under a budget of 1 GB, beside dask.array.linalg.lstsq.

Every pass comes from the disk (``cold.py``). The peak of the resident set is that of the whole process.
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

ROWS, COLUMNS, REPEATS = 40_000_000, 50, 5
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-out-of-core"
BLOCK = 100_000


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    a = np.lib.format.open_memmap(FOLDER / "a.npy", "w+", np.float32, (ROWS, COLUMNS))
    x = np.random.default_rng(1).standard_normal(COLUMNS)
    b = np.empty(ROWS, np.float32)
    for i in range(0, ROWS, BLOCK):
        rng = np.random.Generator(np.random.Philox(key=[0, i]))
        block = rng.standard_normal((BLOCK, COLUMNS), dtype=np.float32)
        a[i : i + BLOCK] = block
        b[i : i + BLOCK] = block @ x + rng.standard_normal(BLOCK)
    a.flush()
    np.save(FOLDER / "b.npy", b)
    np.save(FOLDER / "x.npy", x)
    os.sync()


def rows():
    """The rows of the file, cold."""
    return cold_rows(FOLDER / "a.npy", target=np.load(FOLDER / "b.npy"))


def warm_up() -> None:
    """Compile what the solve runs."""
    import leyden as ly

    ly.lstsq(np.random.default_rng(0).standard_normal((1000, COLUMNS), dtype=np.float32), np.ones(1000))


def _leyden(memory: str) -> dict:
    import leyden as ly

    warm_up()
    data = rows()
    runs, rates, methods, fractions = [], [], [], defaultdict(list)
    for _ in range(REPEATS):
        rate = plain_read(FOLDER / "a.npy")
        rates.append(rate)
        began = time.perf_counter()
        solution = ly.lstsq(data, memory=memory)
        runs.append(time.perf_counter() - began)
        methods.append(solution.plan.method)
        for p in solution.trace.passes:
            fractions[p.name].append(p.nbytes / p.seconds / rate)
        assert solution.certificate.holds
    c = solution.certificate
    error = np.abs(solution.x - np.load(FOLDER / "x.npy")).max()
    return {
        **summary(runs),
        "predicted_s": solution.plan.seconds,
        "read_GB_s": statistics.median(rates) / 1e9,
        "methods": methods,
        "passes_of_read_rate": {name: round(statistics.median(f), 3) for name, f in fractions.items()},
        "peak_rss_GB": peak_rss() / 1e9,
        "certificate": {"backward_error": c.backward_error, "forward_error": c.forward_error_bound},
        "largest_error_to_planted": float(error),
    }


def _dask() -> dict:
    import dask
    import dask.array as da

    runs = []
    for _ in range(REPEATS):
        os.close(cold_file(FOLDER / "a.npy"))
        a = da.from_array(np.load(FOLDER / "a.npy", mmap_mode="r"), chunks=(250_000, COLUMNS))
        b = da.from_array(np.load(FOLDER / "b.npy"), chunks=250_000)
        began = time.perf_counter()
        with dask.config.set(scheduler="threads"):
            x = da.linalg.lstsq(a, b)[0].compute()
        runs.append(time.perf_counter() - began)
    return {
        **summary(runs),
        "peak_rss_GB": peak_rss() / 1e9,
        "largest_error_to_planted": float(np.abs(x - np.load(FOLDER / "x.npy")).max()),
    }


def measure(configuration: str) -> dict:
    return _dask() if configuration == "dask lstsq" else _leyden("1GB")


if __name__ == "__main__":
    compare("out_of_core", measure, ["leyden", "dask lstsq"], prepare, FOLDER)
