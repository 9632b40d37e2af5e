"""Which method to solve least squares by: what each would cost on this machine, and what each can certify."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.engine.budget import layout, least, reading_nbytes, thread_count, too_small
from leyden.engine.checkpoint import Checkpoint
from leyden.engine.executor import Executor
from leyden.plan import Machine, PassPlan, Plan, machine
from leyden.rows import Rows
from leyden.solve.coordinates import Coordinates, Probe
from leyden.solve.reductions import TSQR, Gram, SparseSignSketch, gamma

METHODS = ("gram32", "gram64", "tsqr", "sketch")


@dataclass(frozen=True)
class Options:
    """What was asked, beside the data."""

    ridge: float
    intercept: bool
    tol: float
    forward_tol: float | None
    seed: int
    memory: int
    threads: int | None
    progress: bool | None
    checkpoint: Checkpoint | None = None
    executor: Executor | None = None


def choose(rows: Rows, options: Options, seen: Probe, method: str, read_rate: float) -> Plan:
    """The plan for ``method``, or for the fastest method that can be certified on what the probe saw (``"auto"``).

    ``read_rate`` is in stored bytes a second, infinite in memory.

    Raises
    ------
    BudgetError
        When the method does not fit the budget: with the method that would, if there is one.
    """
    rates = machine()
    threads = options.threads or thread_count()
    costs = {name: _passes(name, rows, seen, rates, read_rate, threads) for name in METHODS}
    # The choice must not depend on the threads asked for, nor flip with the noise of a timed read: its bits would.
    steady = 2.0 ** round(math.log2(read_rate)) if 0 < read_rate < math.inf else read_rate
    c = seen.coordinates
    algebra = {name: _algebra(name, c.p, rates) for name in METHODS}
    scores = {
        name: sum(p.seconds for p in (*_passes(name, rows, seen, rates, steady, thread_count()), algebra[name]))
        for name in METHODS
    }
    fits = {name: _fits(name, c, seen, rows) for name in METHODS}
    able = [name for name in METHODS if fits[name][0]]
    needed = {name: needed_nbytes(name, rows, options, seen) for name in METHODS}
    candidates = sorted((name for name in able if sum(needed[name]) <= options.memory), key=scores.__getitem__)
    if method != "auto":
        chosen = method
    else:
        chosen = candidates[0] if candidates else min(able, key=lambda name: sum(needed[name]))
    if sum(needed[chosen]) > options.memory:
        instead = f" method='{candidates[0]}' fits as it is." if candidates else ""
        raise too_small(options.memory, *needed[chosen], method=chosen, hint=instead)
    reasons = [f"asked for; {fits[chosen][1]}" if method != "auto" else fits[chosen][1]]
    if method == "auto":
        reasons.append("the fastest of the methods that can be certified here")
    others = tuple(
        (
            name,
            sum(p.seconds for p in (*costs[name], algebra[name])),
            "slower" if name in candidates else "does not fit the budget" if name in able else fits[name][1],
        )
        for name in METHODS
        if name != chosen
    )
    return Plan(
        "lstsq",
        _described(rows, options, c.k),
        chosen,
        tuple(reasons),
        others,
        tuple(costs[chosen]),
        options.memory,
        _peak(rows, options, first_reduction(chosen, seen, options.seed)),
        algebra[chosen],
    )


def _described(rows: Rows, options: Options, k: int) -> str:
    n, d = rows.shape
    kind = f"{rows.dtype}{' sparse' if rows.is_sparse else ''}"
    intercept = ", intercept" if options.intercept else ""
    return f"{rows.source}: {n:,} × {d:,} {kind}, {k} target(s), ridge {options.ridge:g}{intercept}"


#: Matrices of p × p that are alive at once when a whitening is made and a certificate computed.
SMALL_MATRICES = 12


def small_nbytes(rows: Rows, intercept: bool) -> int:
    """Memory for the dense algebra on p × p matrices between passes, while blocks are kept for the next one."""
    return SMALL_MATRICES * 8 * (rows.shape[1] + intercept) ** 2


def needed_nbytes(method: str, rows: Rows, options: Options, seen: Probe) -> tuple[float, float, float]:
    """Memory without which a method does not run: of one thread to read and to compute, and of the dense algebra."""
    read, compute = least(rows, [first_reduction(method, seen, options.seed)])
    return read, compute, small_nbytes(rows, options.intercept)


def _peak(rows: Rows, options: Options, reduction: Any) -> int:
    """Bytes that the first pass and the dense algebra after it will allocate."""
    small = small_nbytes(rows, options.intercept)
    cut = layout(rows, [reduction], options.memory, options.threads, reserved=small)
    reading = cut.threads * reading_nbytes(rows, cut.block_rows)
    states = (cut.threads + math.ceil(math.log2(cut.segments + 1))) * reduction.state_nbytes
    return int(reading + states + cut.threads * reduction.scratch_nbytes + small)


def _gram32_tile(seen: Probe) -> int | None:
    """Longest float32 tile whose rounding still leaves a usable whitening, by what the probe saw."""
    for tile in (2048, 1024, 512, 256, 128):
        if seen.coordinates.p * gamma(tile + 4, 2.0**-24) * (1.3 * seen.condition) ** 2 < 0.25:
            return tile
    return None


def _fits(name: str, c: Coordinates, seen: Probe, rows: Rows) -> tuple[bool, str]:
    looks = (
        f"the columns look like condition {seen.condition:.1e}"
        if math.isfinite(seen.condition)
        else "dependent columns"
    )
    if name == "gram32":
        if rows.is_sparse:
            return False, "sparse rows are multiplied entry by entry, in float64"
        return _gram32_tile(
            seen
        ) is not None, f"{looks}; float32 Gram matrices are certifiable to about {_limit32(c.p):.0f}"
    if name == "gram64":
        limit = math.sqrt(0.05 / (c.p * gamma(2000 + c.p)))
        return seen.condition < limit, f"{looks}; float64 Gram matrices are certifiable to about {limit:.0e}"
    if name == "tsqr":
        return True, f"{looks}; Householder QR takes any condition"
    enough = _enough_rows(c, rows)
    return enough, f"{looks}; a sketch takes any condition" if enough else "too few rows for a sketch to be shorter"


def _limit32(p: int) -> float:
    return math.sqrt(0.25 / (p * gamma(132, 2.0**-24))) / 1.3


def first_reduction(method: str, seen: Probe, seed: int) -> Any:
    """What the first pass of a method sums."""
    c = seen.coordinates
    if method == "gram32":
        return Gram(c, np.float32, _gram32_tile(seen) or 128)
    if method == "gram64":
        # About a megabyte: the cache holds it, and the interpreter's share of a tile is small.
        return Gram(c, np.float64, min(max(2**17 // (c.p + c.k), 512), 4096))
    if method == "tsqr":
        return TSQR(c)
    return SparseSignSketch(c, seed)


def _passes(name: str, rows: Rows, seen: Probe, rates: Machine, read_rate: float, threads: int) -> list[PassPlan]:
    n, c = rows.shape[0], seen.coordinates
    q = c.p + c.k
    nbytes = rows.stored_nbytes
    read = nbytes / (rates.copy * threads if rows.in_memory else read_rate) if nbytes else 0.0
    entries = n * c.d * seen.density
    gram_flops = 2.0 * n * q**2 if not rows.is_sparse else n * (c.d * seen.density + 1 + c.k) ** 2
    slow = rates.gradient if not rows.is_sparse else rates.gradient / 4

    def one(label: str, flops: float, seconds: float) -> PassPlan:
        # Reading and computing overlap, but copying from the system takes processors as well.
        compute = seconds / threads
        return PassPlan(label, nbytes, flops, max(read, compute) + 0.5 * min(read, compute))

    gradient = one("gradient, certificate", 4.0 * entries * c.k, entries * c.k / slow)
    pack = n * q / (2 * rates.gradient)
    if name == "gram32":
        correction = one("gradient, correction", 4.0 * entries * c.k, entries * c.k / (2.5 * rates.gradient))
        return [one("Gram matrix (float32)", gram_flops, gram_flops / rates.gram32 + pack), correction, gradient]
    if name == "gram64":
        sparse_seconds = gram_flops / rates.gradient
        seconds = sparse_seconds if rows.is_sparse else gram_flops / rates.gram64 + pack
        return [one("Gram matrix (float64)", gram_flops, seconds), gradient]
    exact = seen.condition > 1e10
    product_flops = 4.0 * n * c.p**2
    product_seconds = product_flops / rates.gram64 + (n * c.p**2 / rates.gradient * 0.6 if exact else 0)
    both = one("gradient, Gram of A R⁻¹", product_flops + gradient.flops, product_seconds + entries * c.k / slow)
    if name == "tsqr":
        return [one("TSQR", 2.0 * n * q**2, 2.0 * n * q**2 / rates.qr), both]
    return [one("sparse-sign sketch", 16.0 * n * q, 16.0 * n * q / rates.gradient / 4 + pack), both, gradient]


def _algebra(name: str, p: int, rates: Machine) -> PassPlan:
    """Factors, inverses, norms and products of p × p matrices, on one thread for the sake of their bits."""
    # Counted in p³: six products, four triangular inverses, six Cholesky factors and four norms; QR and SVD as well
    # where the first pass gives a triangle.
    flops = (18.0 if name.startswith("gram") else 60.0) * p**3
    return PassPlan("dense algebra", 0, flops, flops / rates.gram64)


#: Columns up to which Householder QR is preferred to a sketch when another method has failed.
FEW_COLUMNS = 150


def fallbacks(method: str, c: Coordinates, rows: Rows) -> list[str]:
    """What may take over from a method that could not be certified on the data, in this order."""
    robust = ["tsqr", "sketch"] if c.p <= FEW_COLUMNS else ["sketch", "tsqr"]
    if not _enough_rows(c, rows):
        robust = ["tsqr"]
    return {"gram32": ["gram64", *robust], "gram64": robust, "sketch": ["tsqr"], "tsqr": []}[method]


def _enough_rows(c: Coordinates, rows: Rows) -> bool:
    """Whether a sketch is much shorter than the rows."""
    return rows.shape[0] > 8 * c.p
