"""Personalised regressions of planted coefficients, up to 3e8 groups of 100 coefficients: time, recovery, certificate.

A group has ten rows on average, by a power law; a row names one of 100,000 items by Zipf's law, whose 100 features are
looked up in a table; a thousand categories of items have coefficients that all groups share. Values are rounded to one
of 255 levels and written once as a store, which the mixed model is solved from, exactly, in two passes.
``python mixed_scale.py`` measures up to 1e9 coefficients, in minutes; ``python mixed_scale.py --whole`` also 3e10.
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

from als_scale import _normal, _uniform
from harness import compare, peak_rss

RANK, CATEGORIES, ITEMS, NOISE, VARIANCE = 100, 1000, 100_000, 0.5, 4.0
TOLERANCE = 1e-6
LEVELS = np.round(np.arange(-127, 128) * 0.05, 2).astype(np.float32)
PART, LARGEST = 100_000, 60
TESTED = 2000
FOLDER = Path(os.environ.get("LEYDEN_BENCHMARK_DIR", tempfile.gettempdir())) / "leyden-benchmark-mixed-scale"
#: Coefficients of groups, to groups.
SIZES = {"1e7": 100_000, "1e8": 1_000_000, "1e9": 10_000_000}
WHOLE = {"3e10": 300_000_000}
#: Counters of a group, apart from each other.
KEY = 4096


@njit(nogil=True, cache=True)
def planted_group(group, spread, u):
    for k in range(len(u)):
        u[k] = spread[k] * _normal(np.uint64(group) * np.uint64(KEY) + np.uint64(k))


@njit(nogil=True, cache=True, fastmath=True)
def rows_of_groups(first, count, f, spread, beta, category, noise, log_flat, counts, items, codes):
    """Rows of groups ``first`` to ``first + count``; gives how many."""
    m, rank = f.shape
    flat = m / 200
    u = np.empty(rank, np.float32)
    taken = np.empty(LARGEST, np.int64)
    at = 0
    for i in range(count):
        group = first + i
        planted_group(group, spread, u)
        key = np.uint64(group) * np.uint64(KEY)
        degree = min(int(4 + 3 / np.sqrt(1 - _uniform(key + np.uint64(500)))), LARGEST)
        kept = 0
        for e in range(degree):
            j = min(int(flat * np.exp(log_flat * _uniform(key + np.uint64(512 + e))) - flat), m - 1)
            place = kept
            while place and taken[place - 1] > j:
                place -= 1
            if place and taken[place - 1] == j:
                continue
            for k in range(kept, place, -1):
                taken[k] = taken[k - 1]
            taken[place] = j
            kept += 1
        for e in range(kept):
            j = taken[e]
            value = np.float32(0)
            for k in range(rank):
                value += u[k] * f[j, k]
            y = beta[category[j]] + value + noise * _normal(key + np.uint64(1024 + e))
            items[at] = j
            codes[at] = min(max(int(np.round(y * 20)) + 127, 0), 254)
            at += 1
        counts[i] = kept
    return at


def planted() -> dict[str, np.ndarray]:
    """Table, categories of items, their coefficients, and the relative covariance of the coefficients of groups."""
    rng = np.random.Generator(np.random.Philox(key=[0, ITEMS]))
    falling = np.linspace(1.8, 0.2, RANK)
    return {
        "table": rng.standard_normal((ITEMS, RANK), dtype=np.float32) / np.float32(np.sqrt(RANK)),
        "category": np.concatenate([np.arange(CATEGORIES), (rng.random(ITEMS - CATEGORIES) ** 2 * CATEGORIES)]).astype(
            np.int32
        ),
        "beta": rng.standard_normal(CATEGORIES) * 0.5,
        "covariance": VARIANCE * falling,
    }


def write(folder: Path, groups: int) -> None:
    """The store of so many groups."""
    import leyden as ly

    truth = planted()
    spread = (NOISE * np.sqrt(truth["covariance"])).astype(np.float32)

    def made(first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = min(PART, groups - first)
        counts, items = np.empty(count, np.int32), np.empty(LARGEST * count // 3 + LARGEST, np.int32)
        codes = np.empty(len(items), np.uint8)
        total = rows_of_groups(
            first, count, truth["table"], spread, truth["beta"], truth["category"], NOISE, np.log1p(200), counts,
            items, codes,
        )  # fmt: skip
        return counts, items[:total], codes[:total]

    with (
        ly.RatingsWriter(folder, items=ITEMS, levels=LEVELS, max_count=LARGEST, popular=False) as writer,
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
    ):
        starts = list(range(0, groups, PART))
        ahead = [pool.submit(made, first) for first in starts[:4]]
        for k in range(len(starts)):
            counts, items, codes = ahead.pop(0).result()
            if k + 4 < len(starts):
                ahead.append(pool.submit(made, starts[k + 4]))
            writer.append(counts, items, codes=codes)


def prepare() -> None:
    FOLDER.mkdir(exist_ok=True, parents=True)


def recovered(answer, groups: int) -> dict:
    """Distances to what was planted, in standard errors, and what the random effects foretell of it."""
    truth = planted()
    off = (answer.beta - truth["beta"]) / answer.standard_errors
    ids = np.random.Generator(np.random.Philox(key=[1, groups])).integers(0, groups, TESTED)
    found, u = answer.random(ids), np.empty((TESTED, RANK), np.float32)
    spread = (NOISE * np.sqrt(truth["covariance"])).astype(np.float32)
    for i, group in enumerate(ids):
        planted_group(group, spread, u[i])
    # What is known of a group shrinks the error of its coefficients, by as much as their posterior covariance says.
    expected = np.mean([np.trace(answer.random_covariance(int(group))) for group in ids[:50]])
    return {
        "beta_rms_in_standard_errors": float(np.sqrt(np.mean(off**2))),
        "beta_largest_in_standard_errors": float(np.abs(off).max()),
        "residual_variance": answer.residual_variance,
        "planted_variance": NOISE**2,
        "random_mean_square_error": float(np.mean(np.sum((found - u) ** 2, axis=1))),
        "random_mean_square_error_expected": float(expected),
        "random_mean_square": float(np.mean(np.sum(u.astype(float) ** 2, axis=1))),
    }


def measure(configuration: str) -> dict:
    import leyden as ly
    from leyden.solve.lookup.model import lookup_mixed

    groups = {**SIZES, **WHOLE}[configuration]
    FOLDER.mkdir(exist_ok=True, parents=True)
    store, record = FOLDER / configuration, FOLDER / f"{configuration}.written"
    if not record.exists():
        shutil.rmtree(store, ignore_errors=True)
        began = time.perf_counter()
        write(store, groups)
        record.write_text(repr(time.perf_counter() - began))
        print(f"written in {record.read_text()} s", file=sys.stderr, flush=True)
    written = float(record.read_text())
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    rows, truth = ly.open_ratings(store), planted()
    plan = lookup_mixed.plan(
        rows, truth["table"], fixed=truth["category"], covariance=truth["covariance"], tol=TOLERANCE, memory="4GB",
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    print(plan, file=sys.stderr, flush=True)
    began = time.perf_counter()
    answer = plan.run()
    seconds = time.perf_counter() - began
    print(answer.trace, answer.certificate, sep="\n", file=sys.stderr, flush=True)
    figures = {
        "coefficients": groups * RANK + CATEGORIES,
        "groups": groups,
        "rows": rows.count,
        "bytes_a_row": size / rows.count,
        "store_GB": size / 1e9,
        "written_s": written,
        "predicted_s": plan.seconds,
        "seconds": seconds,
        "passes": [(p.name, p.rows, round(p.seconds, 1)) for p in answer.trace.passes],
        "groups_a_second": [groups / p.seconds for p in answer.trace.passes],
        "GB_read": sum(p.nbytes for p in answer.trace.passes) / 1e9,
        "peak_rss_GB": peak_rss() / 1e9,
        "remarks": answer.trace.remarks,
        "certificate": {name: (b.value, b.grade) for name, b in answer.certificate.bounds.items()},
        "holds": answer.certificate.holds,
        **recovered(answer, groups),
    }
    assert figures["holds"], answer.certificate
    assert 0.8 < figures["beta_rms_in_standard_errors"] < 1.2
    shutil.rmtree(store)
    record.unlink()
    return figures


if __name__ == "__main__":
    sizes = [*SIZES, *(WHOLE if "--whole" in sys.argv else [])]
    sys.argv = [argument for argument in sys.argv if argument != "--whole"]
    compare("mixed_scale", measure, sizes, prepare, FOLDER)
