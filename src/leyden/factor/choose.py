"""Which method to factor by: what each would cost on this machine, and what each needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from leyden.engine.budget import format_bytes, layout, least, reading_nbytes, thread_count
from leyden.engine.checkpoint import Checkpoint
from leyden.engine.executor import Executor
from leyden.errors import BudgetError
from leyden.factor.frame import Frame
from leyden.factor.reductions import BlockImage, FrameGram
from leyden.plan import Machine, PassPlan, Plan, machine
from leyden.rows import Rows

METHODS = ("gram", "outer", "krylov", "sketch")

#: Vectors beyond those asked for, in a block: they make the start safe and the convergence faster.
EXTRA = 10

#: Passes of block Lanczos that a plan counts with: what data with a decaying spectrum takes.
USUAL_PASSES = 5

#: Blocks below which a Krylov space is restarted too often to be of use, and beyond which it needs no more.
LEAST_BLOCKS, MOST_BLOCKS = 3, 24

#: Rows up to which all products of two rows are formed, when there are fewer rows than columns.
SHORT = 4096


@dataclass(frozen=True)
class Options:
    """What was asked, beside the data."""

    rank: int
    centre: bool
    standardise: bool
    tol: float
    seed: int
    memory: int
    threads: int | None
    progress: bool | None
    checkpoint: Checkpoint | None = None
    executor: Executor | None = None

    @property
    def verb(self) -> str:
        return "pca" if self.centre else "svd"


def width(options: Options, rows: Rows) -> int:
    """Columns of a block."""
    return min(options.rank + EXTRA, rows.shape[1])


def algebra_nbytes(method: str, rows: Rows, options: Options) -> int:
    """Memory that is kept beside the blocks, between passes and during them."""
    n, d = rows.shape
    l = width(options, rows)
    if method == "gram":
        return 8 * (7 * d**2 + 4 * d * l)
    if method == "outer":
        return 8 * (2 * n * d + 5 * n**2 + 4 * d * l)
    if method == "sketch":
        return 8 * 6 * d * l
    return 8 * d * l * (2 * LEAST_BLOCKS + 4)


def capacity(rows: Rows, options: Options) -> int:
    """Columns of the Krylov space that fit: half of what is left beside the blocks and the sums of a pass."""
    d = rows.shape[1]
    l = width(options, rows)
    passing = sum(least(rows, [_image(rows, options)]))
    room = int((options.memory - passing) / 2 / (16 * d)) - 2 * l
    return max(min(room, MOST_BLOCKS * l, d), min(LEAST_BLOCKS * l, d))


def _image(rows: Rows, options: Options) -> Any:
    import numpy as np

    d, l = rows.shape[1], width(options, rows)
    frame = Frame(np.zeros(d), np.ones(d), 1.0, options.centre)
    return BlockImage(frame, np.broadcast_to(np.zeros(1), (d, l)), rows.shape[0], sparse=rows.is_sparse)


def choose(rows: Rows, options: Options, frame: Frame, method: str, read_rate: float, density: float) -> Plan:
    """The plan for ``method``, or for the fastest that fits (``"auto"``).

    Raises
    ------
    BudgetError
        When the method does not fit the budget: with the one that would, if there is one.
    """
    rates, threads = machine(), options.threads or thread_count()
    # The choice must not flip with the noise of a timed read, nor depend on the threads asked for: its bits would.
    steady = 2.0 ** round(math.log2(read_rate)) if 0 < read_rate < math.inf else read_rate
    costs = {name: _passes(name, rows, options, rates, read_rate, threads, density) for name in METHODS}
    algebra = {name: _algebra(name, rows, options, rates) for name in METHODS}
    scores = {
        name: sum(p.seconds for p in _passes(name, rows, options, rates, steady, thread_count(), density))
        + algebra[name].seconds
        for name in METHODS
    }
    fits: dict[str, tuple[bool, str]] = {}
    peaks: dict[str, int] = {}
    refused: dict[str, BudgetError] = {}
    for name in METHODS:
        fits[name] = _suits(name, rows, options)
        if not fits[name][0] and name != method:
            continue
        try:
            peaks[name] = _peak(name, rows, options, frame)
        except BudgetError as error:
            refused[name] = error
            fits[name] = (False, "does not fit the budget")
    candidates = sorted((name for name in METHODS if fits[name][0] and name != "sketch"), key=scores.__getitem__)
    chosen = method if method != "auto" else candidates[0] if candidates else min(refused, key=scores.__getitem__)
    if chosen in refused:
        instead = f" method='{candidates[0]}' fits as it is." if candidates else ""
        raise BudgetError(refused[chosen].what, where=rows.source, hint=f"{refused[chosen].hint}{instead}")
    reasons = ["asked for" if method != "auto" else fits[chosen][1]]
    others = tuple(
        (name, sum(p.seconds for p in (*costs[name], algebra[name])), "slower" if fits[name][0] else fits[name][1])
        for name in METHODS
        if name not in (chosen, "sketch")
    )
    n, d = rows.shape
    how = "scaled columns" if options.standardise else "centred columns" if options.centre else "as given"
    problem = f"{n:,} × {d:,} {rows.dtype}{' sparse' if rows.is_sparse else ''}, rank {options.rank}, {how}"
    return Plan(
        options.verb,
        f"{rows.source}: {problem}",
        chosen,
        tuple(reasons),
        others,
        tuple(costs[chosen]),
        options.memory,
        peaks[chosen],
        algebra[chosen],
    )


def _suits(name: str, rows: Rows, options: Options) -> tuple[bool, str]:
    n, d = rows.shape
    if name == "gram":
        return True, "one pass tells all of the spectrum"
    if name == "outer":
        small = n < d and n <= SHORT
        return small, "fewer rows than columns" if small else "for a few rows that are long"
    if name == "krylov":
        return True, "passes with a block of vectors, as many as the spectrum takes"
    return False, "an estimate, without a residual"


def _peak(name: str, rows: Rows, options: Options, frame: Frame) -> int:
    kept = algebra_nbytes(name, rows, options)
    reduction = FrameGram(frame, "float64") if name == "gram" else _image(rows, options)
    if kept + sum(least(rows, [reduction])) > options.memory:
        need = kept + sum(least(rows, [reduction]))
        raise BudgetError(
            f"a budget of {format_bytes(options.memory)} is too small for method='{name}': it takes {format_bytes(need)}",
            hint=f'Give at least memory="{math.ceil(need * 1.1 / 1e6)}MB".',
        )
    cut = layout(rows, [reduction], options.memory - kept, options.threads)
    states = (cut.threads + math.ceil(math.log2(cut.segments + 1))) * reduction.state_nbytes
    return int(kept + states + cut.threads * (reading_nbytes(rows, cut.block_rows) + reduction.scratch_nbytes))


def _passes(
    name: str, rows: Rows, options: Options, rates: Machine, read_rate: float, threads: int, density: float
) -> list[PassPlan]:
    (n, d), l = rows.shape, width(options, rows)
    nbytes = rows.stored_nbytes
    read = nbytes / (rates.copy * threads if rows.in_memory else read_rate) if nbytes else 0.0

    def one(label: str, flops: float, seconds: float) -> PassPlan:
        compute = seconds / threads
        return PassPlan(label, nbytes, flops, max(read, compute) + 0.5 * min(read, compute))

    entries = n * d * density
    # Products of dense blocks run at the rate of half a Gram matrix; sparse ones wait for memory.
    rate = rates.gram64 / 2 if not rows.is_sparse else rates.gram64 / 10
    products = 4.0 * entries * l
    image = one("H W", products, products / rate + entries / (2 * rates.gradient))
    if name == "gram":
        flops = float(n) * d**2 if not rows.is_sparse else n * (d * density + 1) ** 2
        seconds = 2 * flops / rates.gram64 if not rows.is_sparse else flops / rates.gradient
        return [one("Gram matrix", flops, seconds + entries / (2 * rates.gradient))]
    if name == "outer":
        return [one("read", 0.0, 0.0), image]
    if name == "sketch":
        return [image]
    more = options.standardise
    return [*([one("column moments", 2 * entries, entries / rates.gradient)] if more else []), *[image] * USUAL_PASSES]


def _algebra(name: str, rows: Rows, options: Options, rates: Machine) -> PassPlan:
    (n, d), l = rows.shape, width(options, rows)
    if name == "gram":
        flops = 6.0 * d**3
    elif name == "outer":
        flops = 2.0 * n**2 * d + 6.0 * n**3 + 4.0 * n * d * l
    else:
        blocks = 1 if name == "sketch" else USUAL_PASSES
        flops = 12.0 * d * l**2 * blocks**2
    return PassPlan("dense algebra", 0, flops, flops / rates.gram64)
