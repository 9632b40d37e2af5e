"""Ratings of planted factors, up to a billion users: time against unknowns, what is recovered, and what is certified.

A user has ten ratings on average, by a power law; items have popularities by Zipf's law; values are products of planted
factors plus noise, rounded to one of 255 levels. Written once as a store, and factored from the disk at rank 32: a
billion users and a million items are 3.2e10 unknowns. ``python als_scale.py`` measures up to 1e9 unknowns, in minutes;
``python als_scale.py --whole`` all sizes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numba import njit

from harness import compare, peak_rss

RANK, PLANTED, SIGNAL, NOISE, MEAN = 32, 4, 1.0, 0.5, 10
REGULARIZATION, SCALING, TOLERANCE = 0.15, 1.0, 3e-2
LEVELS = np.round(np.arange(-127, 128) * 0.04, 2).astype(np.float32)
PART = 250_000
TESTED = 200_000
FOLDER = Path(os.environ.get("LEYDEN_BENCHMARK_DIR", tempfile.gettempdir())) / "leyden-benchmark-als-scale"
#: Unknowns of users, to items.
SIZES = {"1e7": (312_500, 100_000), "1e8": (3_125_000, 300_000), "1e9": (31_250_000, 1_000_000)}
WHOLE = {"1e10": (312_500_000, 1_000_000), "3.2e10": (1_000_000_000, 1_000_000)}


@njit(nogil=True, cache=True)
def _mixed(state):
    """SplitMix64 (Steele, Lea, Flood 2014) of a counter."""
    z = state * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(nogil=True, cache=True)
def _uniform(state):
    return np.float64(_mixed(state) >> np.uint64(11)) * 2.0**-53


@njit(nogil=True, cache=True)
def _normal(state):
    """Of four 16-bit uniforms: a sum, whose tails end at 3.5; variance one."""
    z = _mixed(state)
    total = 0.0
    for k in range(4):
        total += np.float64((z >> np.uint64(16 * k)) & np.uint64(0xFFFF))
    return (total / 65536 - 2.0) * np.sqrt(3.0)


@njit(nogil=True, cache=True)
def planted_user(user, u):
    for k in range(len(u)):
        u[k] = _normal(np.uint64(user) * np.uint64(4096) + np.uint64(k)) * np.sqrt(1.0 / len(u))


@njit(nogil=True, cache=True)
def ratings(first, count, v, log_flat, counts, items, codes):
    """Ratings of users ``first`` to ``first + count``; gives how many."""
    m, rank = v.shape
    flat = m / 200
    u = np.empty(rank)
    taken = np.empty(256, np.int64)
    at = 0
    for i in range(count):
        user = first + i
        planted_user(user, u)
        key = np.uint64(user) * np.uint64(4096)
        degree = min(int(4 + 3 * (1 / np.sqrt(1 - _uniform(key + np.uint64(100))) - 0.0)), 200)
        found = 0
        for e in range(degree):
            j = int(flat * np.exp(log_flat * _uniform(key + np.uint64(256 + e))) - flat)
            taken[found] = min(j, m - 1)
            found += 1
        part = np.sort(taken[:found])
        kept = 0
        for e in range(found):
            j = part[e]
            if e and j == part[e - 1]:
                continue
            value = NOISE * _normal(key + np.uint64(1024 + e))
            for k in range(rank):
                value += u[k] * v[j, k]
            items[at] = j
            codes[at] = min(max(int(np.round(value * 25)) + 127, 0), 254)
            at += 1
            kept += 1
        counts[i] = kept
    return at


def planted_items(m: int) -> np.ndarray:
    """(items, PLANTED) float32."""
    rng = np.random.Generator(np.random.Philox(key=[0, m]))
    return rng.standard_normal((m, PLANTED), dtype=np.float32)


def write(folder: Path, n: int, m: int) -> None:
    """The store of n users and m items."""
    import leyden as ly

    v, log_flat = planted_items(m), np.log1p(200)

    def made(first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = min(PART, n - first)
        counts, items, codes = np.empty(count, np.int32), np.empty(200 * count // 8, np.int32), None
        codes = np.empty(len(items), np.uint8)
        total = ratings(first, count, v, log_flat, counts, items, codes)
        return counts, items[:total], codes[:total]

    with (
        ly.RatingsWriter(folder, items=m, levels=LEVELS, max_count=255, popular=False) as writer,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
    ):
        starts = list(range(0, n, PART))
        ahead = [pool.submit(made, first) for first in starts[:4]]
        for k in range(len(starts)):
            counts, items, codes = ahead.pop(0).result()
            if k + 4 < len(starts):
                ahead.append(pool.submit(made, starts[k + 4]))
            writer.append(counts, items, codes=codes)


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True)


def recovered(answer, n: int, m: int) -> dict:
    """Errors of what users of the data would say of items they have not rated, without noise, and with it.

    Beside them the same of the planted item factors: what is left when items are known, and users from their ratings.
    """

    rows, v = answer.ratings, planted_items(m)
    rng = np.random.Generator(np.random.Philox(key=[1, n]))
    first = int(rng.integers(0, n - TESTED // 10))
    data = rows.read(first, first + TESTED // 10, rows.buffer(TESTED // 10)).data
    counts = np.diff(data.indptr)
    u = answer.model.solve(data, 2)
    truth, user = np.empty((len(counts), PLANTED)), np.empty(PLANTED)
    best = np.empty_like(truth)
    for i in range(len(counts)):
        planted_user(first + i, user)
        truth[i] = user
        span = slice(data.indptr[i], data.indptr[i + 1])
        f = v[data.indices[span]].astype(np.float64)
        best[i] = np.linalg.solve(f.T @ f + NOISE**2 * PLANTED * np.eye(PLANTED), f.T @ data.data[span])
    who = np.repeat(np.arange(len(counts)), 10)
    item = np.minimum(m / 200 * np.exp(np.log1p(200) * rng.random(len(who))) - m / 200, m - 1).astype(np.int64)
    clean = np.einsum("ij,ij->i", truth[who], v[item])
    noisy = clean + NOISE * rng.standard_normal(len(who))
    said = np.einsum("ij,ij->i", u[who][:, :RANK], answer.item_factors[item])
    known = np.einsum("ij,ij->i", best[who], v[item])

    def rmse(a, b):
        return float(np.sqrt(np.mean((a - b) ** 2)))

    return {
        "noise": NOISE,
        "rmse_of_new_ratings": rmse(said, noisy),
        "rmse_with_planted_items": rmse(known, noisy),
        "rmse_of_nothing": rmse(0.0, noisy),
        "error_without_noise": rmse(said, clean),
    }


def measure(configuration: str) -> dict:
    import leyden as ly

    n, m = {**SIZES, **WHOLE}[configuration]
    store, record = FOLDER / configuration, FOLDER / f"{configuration}.written"
    if not record.exists():
        shutil.rmtree(store, ignore_errors=True)
        began = time.perf_counter()
        write(store, n, m)
        record.write_text(repr(time.perf_counter() - began))
    written = float(record.read_text())
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    rows = ly.open_ratings(store)
    began = time.perf_counter()
    answer = ly.als(
        rows, RANK, REGULARIZATION, scaling=SCALING, tol=TOLERANCE, epochs=12 if configuration in SIZES else 2,
        method="streamed", memory="9GB",
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    whole = [p.seconds for p in answer.trace.passes if p.name.startswith("epoch") and p.rows == n]
    figures = {
        "unknowns": (n + m) * RANK,
        "ratings": rows.count,
        "bytes_a_rating": size / rows.count,
        "store_GB": size / 1e9,
        "written_s": written,
        "seconds": seconds,
        "epochs": len(whole),
        "epoch_s": float(np.median(whole)) if whole else None,
        "users_a_second": n / float(np.median(whole)) if whole else None,
        "ratings_a_second": rows.count / float(np.median(whole)) if whole else None,
        "passes": [(p.name, p.rows, round(p.seconds, 1)) for p in answer.trace.passes],
        "GB_read": sum(p.nbytes for p in answer.trace.passes) / 1e9,
        "peak_rss_GB": peak_rss() / 1e9,
        "remarks": answer.trace.remarks,
        "history": answer.history,
        "certificate": {name: (b.value, b.lower, b.confidence) for name, b in answer.certificate.bounds.items()},
        "holds": answer.certificate.holds,
        **recovered(answer, n, m),
    }
    shutil.rmtree(store)
    record.unlink()
    return figures


if __name__ == "__main__":
    sizes = [*SIZES, *(WHOLE if "--whole" in sys.argv else [])]
    sys.argv = [argument for argument in sys.argv if argument != "--whole"]
    compare("als_scale", measure, sizes, prepare, FOLDER)
