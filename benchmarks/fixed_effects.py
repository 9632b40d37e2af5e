"""Least squares with two crossed fixed effects: seconds and memory at equal accuracy, beside pyfixest and hdfe-stream.

Two made-up panels of n rows, n/10 workers and n/100 firms, three covariates, two of them correlated with the effects:

- ``simple``: workers and firms at random. Every way of solving converges in a few steps.
- ``difficult``: workers stay with the firm of their neighbours, 2 % of the rows are with one of the next three firms.
  The graph of workers and firms is a long band, and what does not know that takes thousands of steps.

The coefficients that all are measured by are Leyden's at tolerance 1e-12, whose certificate bounds their own error.
Each system is tried with tolerances from loose to tight until its coefficients agree with them to 1e-8, relatively, and
is then timed with the one that does; Leyden must also certify its coefficients to 1e-8. Each gets the table in the form
that it wants, a data frame and a formula but for hdfe-stream (a file) and ``leyden arrays``, the algorithm by itself on
arrays, which certifies no more than its own tolerance; standard errors are classical. Memory is the peak of the whole
process, the table included, and what that is above the process with its table before the first run.

Rows: the environment variable ``FIXED_EFFECTS_ROWS``, 10 million by default.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness import compare, peak_rss, repeat

ROWS = int(float(os.environ.get("FIXED_EFFECTS_ROWS", 1e7)))
REPEATS, AGREE, LIMIT_S = 2, 1e-8, 240
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-fixed-effects"
DESIGNS = ("simple", "difficult")
SYSTEMS = ("leyden", "leyden arrays", "pyfixest within", "pyfixest rust", "pyfixest numba", "hdfe-stream")
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
NAMES = ("x1", "x2", "x3")

Fit = Callable[[], np.ndarray]


def made(design: str) -> dict[str, np.ndarray]:
    """The columns of a panel."""
    rng = np.random.default_rng(1)
    workers, firms = ROWS // 10, ROWS // 100
    if design == "simple":
        worker, firm = rng.integers(0, workers, ROWS), rng.integers(0, firms, ROWS)
    else:
        worker = np.sort(rng.integers(0, workers, ROWS))
        home = worker * firms // workers
        firm = np.where(rng.random(ROWS) < 0.02, (home + rng.integers(1, 4, ROWS)) % firms, home)
    ability, wage = rng.standard_normal(workers), rng.standard_normal(firms)
    x = rng.standard_normal((3, ROWS))
    x[0] += 0.5 * ability[worker] + 0.3 * wage[firm]
    x[1] += 0.2 * wage[firm]
    y = x[0] + 2 * x[1] + 3 * x[2] + ability[worker] + wage[firm] + rng.standard_normal(ROWS)
    return {
        "y": y,
        **dict(zip(NAMES, x, strict=True)),
        "worker": worker.astype(np.int32),
        "firm": firm.astype(np.int32),
    }


def prepare() -> None:
    from leyden.solve.absorb.absorb import absorb

    for design in DESIGNS:
        folder = FOLDER / design
        folder.mkdir(parents=True, exist_ok=True)
        columns = made(design)
        for name, column in columns.items():
            np.save(folder / f"{name}.npy", column)
        x = np.column_stack([columns[name] for name in NAMES])
        found = absorb(columns["y"], x, [columns["worker"], columns["firm"]], tol=1e-12)
        np.savez(folder / "truth.npz", beta=found.coefficients, bounds=found.bounds)


def leyden(folder: Path) -> Callable[[float], Fit]:
    import pandas as pd

    import leyden as ly

    frame = pd.DataFrame({name: np.load(folder / f"{name}.npy") for name in ("y", *NAMES, "worker", "firm")})

    def fit(tol: float) -> Fit:
        def run() -> np.ndarray:
            found = ly.mixed("y ~ x1 + x2 + x3 | worker + firm", frame, tol=tol)
            certified = found.certificate.holds and found.certificate.forward_error_bound <= AGREE
            return found.beta if certified else np.full(3, np.nan)

        return run

    return fit


def leyden_arrays(folder: Path) -> Callable[[float], Fit]:
    from leyden.solve.absorb.absorb import absorb

    y, worker, firm = (np.load(folder / f"{name}.npy") for name in ("y", "worker", "firm"))
    x = np.empty((ROWS, 3), order="F")
    for j, name in enumerate(NAMES):
        x[:, j] = np.load(folder / f"{name}.npy", mmap_mode="r")

    def fit(tol: float) -> Fit:
        def run() -> np.ndarray:
            found = absorb(y, x, [worker, firm], tol=tol)
            found.covariance("iid")
            return found.coefficients if found.certificate.holds else np.full(3, np.nan)

        return run

    return fit


def pyfixest(folder: Path, backend: str) -> Callable[[float], Fit]:
    import pandas as pd
    import pyfixest as pf
    from pyfixest.demeaners import LsmrDemeaner, MapDemeaner

    table = pd.DataFrame({name: np.load(folder / f"{name}.npy") for name in ("y", *NAMES, "worker", "firm")})

    def fit(tol: float) -> Fit:
        if backend == "within":
            demeaner: Any = LsmrDemeaner(fixef_atol=tol, fixef_btol=tol)
        else:
            demeaner = MapDemeaner(fixef_tol=tol, backend=backend)

        def run() -> np.ndarray:
            options = {"fixef_rm": "none", "copy_data": False, "store_data": False, "lean": True}
            try:
                found = pf.feols("y ~ x1 + x2 + x3 | worker + firm", table, vcov="iid", demeaner=demeaner, **options)
            except ValueError:  # not converged
                return np.full(3, np.nan)
            return found.coef()[list(NAMES)].to_numpy()

        return run

    return fit


def hdfe_stream(folder: Path) -> Callable[[float], Fit]:
    import polars as pl
    from hdfe_stream import feols_stream

    path = folder / "table.parquet"
    pl.DataFrame({name: np.load(folder / f"{name}.npy") for name in ("y", *NAMES, "worker", "firm")}).write_parquet(
        path
    )

    def fit(tol: float) -> Fit:
        def run() -> np.ndarray:
            options = {"vcov": "iid", "fixef_rm": "none", "tol": tol, "verbose": False}
            found = feols_stream("y ~ x1 + x2 + x3 | worker + firm", str(path), workdir=str(folder), **options)
            return np.array([found.coef()[name] for name in NAMES])

        return run

    return fit


def measure(configuration: str) -> dict:
    system, _, design = configuration.rpartition(" ")
    folder = FOLDER / design
    truth = np.load(folder / "truth.npz")
    if system.startswith("leyden"):
        fit = leyden(folder) if system == "leyden" else leyden_arrays(folder)
    else:
        fit = hdfe_stream(folder) if system == "hdfe-stream" else pyfixest(folder, system.split()[1])
    before, tried = peak_rss(), []
    for tol in TOLERANCES:
        began = time.perf_counter()
        beta = fit(tol)()
        error = float(np.max(np.abs(beta - truth["beta"]) / np.abs(truth["beta"])))
        tried.append({"tol": tol, "error": error, "first_s": time.perf_counter() - began})
        if error <= AGREE:
            again = repeat(fit(tol), REPEATS)
            peak = peak_rss()
            return {
                "rows": ROWS,
                **tried[-1],
                **again,
                "peak_nbytes": peak,
                "above_table_nbytes": peak - before,
                "tried": tried,
            }
    return {"rows": ROWS, "failed": "no tolerance was enough", "tried": tried}


if __name__ == "__main__":
    configurations = [f"{system} {design}" for design in DESIGNS for system in SYSTEMS]
    compare("fixed_effects", measure, configurations, prepare, FOLDER, LIMIT_S)
