"""Threads of one process beside workers of a Dask cluster on the same machine, and how workers scale.

The data (1,000,000 × 200 float64, 1.6 GB) is in the page cache and the method is bound by arithmetic, so what is
compared is the engine: cutting, scheduling, merging. Times are of a cluster that stands and has run the same solve
once. Every configuration must give the same bits; what it was limited by is told by the share of the time that its
processors were busy, and by the seconds of each pass. The configuration ``rates`` measures what
``docs/distributed.md`` calculates with.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from harness import compare, repeat

ROWS, COLUMNS, REPEATS = 1_000_000, 200, 5
MEMORY, METHODS = "1GB", ("tsqr", "sketch")
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-cluster"
BLOCK = 50_000


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    a = np.lib.format.open_memmap(FOLDER / "a.npy", "w+", np.float64, (ROWS, COLUMNS + 1))
    x = np.random.default_rng(1).standard_normal(COLUMNS)
    for i in range(0, ROWS, BLOCK):
        rng = np.random.Generator(np.random.Philox(key=[0, i]))
        block = rng.standard_normal((BLOCK, COLUMNS))
        a[i : i + BLOCK, :-1] = block
        a[i : i + BLOCK, -1] = block @ x + rng.standard_normal(BLOCK)
    a.flush()


@contextmanager
def _executor(workers: int):
    import leyden as ly
    from leyden.engine.local import Local

    if workers == 0:
        yield Local(), time.process_time
        return
    with ly.Dask.local(workers, MEMORY) as dask:
        yield dask, lambda: sum(dask.client.run(time.process_time).values())


def _solve(workers: int, threads: int) -> dict:
    import leyden as ly

    with open(FOLDER / "a.npy", "rb", buffering=0) as file:  # into the page cache
        while file.read(2**26):
            pass
    found = {}
    rows = ly.open(FOLDER / "a.npy", target=COLUMNS)
    with _executor(workers) as (executor, busy):
        for method in METHODS:
            solutions, shares = [], []

            def run(method: str = method, solutions: list = solutions, shares: list = shares) -> None:
                began, before = time.perf_counter(), busy()
                solutions.append(ly.lstsq(rows, method=method, memory=MEMORY, threads=threads, executor=executor))
                shares.append((busy() - before) / (time.perf_counter() - began) / (workers or threads))

            times = repeat(run, REPEATS)
            last = solutions[-1]
            assert all(solution.certificate.holds for solution in solutions)
            found[method] = {
                **times,
                "processors_busy": round(statistics.median(shares[1:]), 3),
                "passes_s": {p.name: round(p.seconds, 3) for p in last.trace.passes},
                "bits": hashlib.sha256(last.x.tobytes()).hexdigest()[:16],
            }
    return found


def _rates() -> dict:
    """Rates of one worker: read, fold, send and merge; and the scheduler's time for a task."""
    import leyden as ly
    from leyden.plan import machine
    from leyden.solve.coordinates import probe
    from leyden.solve.reductions import TSQR, Gram

    rows = ly.open(FOLDER / "a.npy", target=COLUMNS)
    coordinates = probe(rows, intercept=False, ridge=0.0, memory=10**9).coordinates
    merging = {}
    for reduction in (Gram(coordinates, np.float64), TSQR(coordinates)):
        states = [reduction.update(reduction.start(), rows.read(i, i + 4096)) for i in (0, 4096)]
        merged = repeat(lambda r=reduction, s=states: r.merge(*(copy.deepcopy(state) for state in s)), 50)
        merging[type(reduction).__name__] = 2 * reduction.state_nbytes / merged["median_s"] / 1e9
    buffer = rows.buffer(BLOCK)
    read = repeat(lambda: [rows.read(i, i + BLOCK, buffer) for i in range(0, 10 * BLOCK, BLOCK)], 5)
    with ly.Dask.local(2, MEMORY) as dask:
        client = dask.client
        one, other = client.scheduler_info()["workers"]
        sends = []
        for _ in range(6):
            data = client.submit(np.ones, 8 * 2**20, workers=[one], pure=False)
            data.result(timeout=60).sum()
            began = time.perf_counter()
            client.submit(len, data, workers=[other], pure=False).result()
            sends.append(8 * 8 * 2**20 / (time.perf_counter() - began))
        began = time.perf_counter()
        client.gather(client.map(abs, range(2000), pure=False))
        task = (time.perf_counter() - began) / 2000
    rates = machine()
    return {
        "R_read_GB_s": 10 * BLOCK * rows.row_nbytes / read["median_s"] / 1e9,
        "F_gram64_Gflops": rates.gram64 / 1e9,
        "F_qr_Gflops": rates.qr / 1e9,
        "B_send_GB_s": statistics.median(sends[1:]) / 1e9,
        "G_merge_GB_s": merging,
        "t0_task_ms": task * 1e3,
    }


def measure(configuration: str) -> dict:
    if configuration == "rates":
        return _rates()
    kind, count = configuration.split()[:2]
    return _solve(0, int(count)) if kind == "local" else _solve(int(count), 1)


if __name__ == "__main__":
    configurations = ["local 1 thread", "local 2 threads", "dask 1 worker", "dask 2 workers", "dask 4 workers", "rates"]
    try:
        compare("cluster", measure, configurations, prepare)
    finally:
        if "--only" not in sys.argv:
            shutil.rmtree(FOLDER, ignore_errors=True)
