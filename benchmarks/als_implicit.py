"""Implicit feedback: seconds of an epoch of alternating least squares, and the objective it reaches.

1,000,000 × 250,000 with 12 items a user at rank 128, and the shape of MovieLens-20M (138,000 × 27,000, 144 items a
user) at rank 256, both made up (``ratings.py``). Leyden beside implicit, exact and by conjugate gradients (its
default: three steps for a row, from where the row was), in float32 on all cores.

Every system minimizes ``Σ_all c (p - x·y)² + REGULARIZATION (‖X‖² + ‖Y‖²)`` with ``p = 1, c = ALPHA × count`` where
there is a count and ``p = 0, c = 1`` where there is none, and starts from the same factors. An epoch solves for the
users and then for the items. The first is not timed where there are others. The objective after each is computed here,
in float64, between the timed parts; Leyden tells its own. implicit's transpose, made once a fit, is not timed either.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import ratings
from harness import compare, peak_rss, summary

ALPHA, REGULARIZATION = 10.0, 0.01
SHAPES = {"1M": (1_000_000, 250_000, 12, 250), "20M": (138_000, 27_000, 144, 50)}
RANK = {"1M": 128, "20M": 256}
EPOCHS = {"leyden": 5, "implicit cg": 5, "implicit exact": 1}
FOLDER = Path(tempfile.gettempdir()) / "leyden-benchmark-als-implicit"
PART = 1_000

Epoch = Callable[..., None]


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, shape in SHAPES.items():
        sp.save_npz(FOLDER / f"{name}.npz", ratings.implicit(*shape), compressed=False)


def start(rows: int, rank: int, seed: int) -> np.ndarray:
    """Uniform in [0, 0.01), as implicit would choose them."""
    rng = np.random.Generator(np.random.Philox(key=[seed, rank]))
    return rng.random((rows, rank), dtype=np.float32) * np.float32(0.01)


def objective(a: sp.csr_matrix, x: np.ndarray, y: np.ndarray) -> float:
    """What is minimized, in float64: all pairs by the two Gram matrices, those with a count one by one."""
    gram_x, gram_y = gram(x), gram(y)
    total = np.vdot(gram_x, gram_y) + REGULARIZATION * (np.trace(gram_x) + np.trace(gram_y))
    users = np.repeat(np.arange(a.shape[0], dtype=np.int32), np.diff(a.indptr))
    for i in range(0, a.nnz, PART):
        part = slice(i, i + PART)
        c = ALPHA * a.data[part].astype(np.float64)
        score = np.einsum("ij,ij->i", x[users[part]].astype(np.float64), y[a.indices[part]].astype(np.float64))
        total += float(c @ (1 - score) ** 2 - score @ score)
    return float(total)


def gram(x: np.ndarray) -> np.ndarray:
    blocks = (x[i : i + PART].astype(np.float64) for i in range(0, len(x), PART))
    return sum(block.T @ block for block in blocks)


def leyden(a: sp.csr_matrix, x: np.ndarray, y: np.ndarray, epochs: int, after: Epoch) -> None:
    from leyden.factor.als import plan
    from leyden.factor.objective import Objective

    objective = Objective(REGULARIZATION, implicit=True, alpha=ALPHA, base=0.0)  # no weight but ALPHA × count
    found = plan(
        sp.csr_array(a), y.shape[1], objective, start=y, epochs=epochs, tol=1e-4, accelerate=False, memory="16GB"
    ).run()
    for step, made in zip(found.history, (p for p in found.trace.passes if p.name.startswith("epoch")), strict=True):
        after(None, None, made.seconds, 2 * step["after"])


def implicit(a: sp.csr_matrix, x: np.ndarray, y: np.ndarray, epochs: int, after: Epoch, use_cg: bool) -> None:
    import threadpoolctl
    from implicit.cpu.als import AlternatingLeastSquares

    with threadpoolctl.threadpool_limits(1, "blas"):  # as implicit asks for: the threads are its own
        model = AlternatingLeastSquares(
            x.shape[1],
            regularization=REGULARIZATION,
            alpha=ALPHA,
            dtype=np.float32,
            use_cg=use_cg,
            iterations=epochs,
            num_threads=len(os.sched_getaffinity(0)),
        )
        model.user_factors, model.item_factors = x, y
        model.fit(a, show_progress=False, callback=lambda epoch, seconds, loss: after(x, y, seconds))


def measure(configuration: str) -> dict:
    system, shape = configuration.rsplit(" ", 1)
    a = sp.csr_matrix(sp.load_npz(FOLDER / f"{shape}.npz"))
    x, y = (start(rows, RANK[shape], seed) for seed, rows in enumerate(a.shape))
    seconds, objectives = [], [objective(a, x, y)]

    def after(x: np.ndarray | None, y: np.ndarray | None, took: float, value: float | None = None) -> None:
        seconds.append(took)
        objectives.append(objective(a, x, y) if value is None else value)

    if system == "leyden":
        leyden(a, x, y, EPOCHS[system], after)
    else:
        implicit(a, x, y, EPOCHS[system], after, use_cg=system == "implicit cg")
    counted = summary(seconds[1:] or seconds)
    return {**counted, "epochs_s": seconds, "objectives": objectives, "nnz": a.nnz, "peak_rss_GB": peak_rss() / 1e9}


if __name__ == "__main__":
    systems = ["leyden", "implicit cg", "implicit exact"]
    compare("als_implicit", measure, [f"{system} {shape}" for shape in SHAPES for system in systems], prepare, FOLDER)
