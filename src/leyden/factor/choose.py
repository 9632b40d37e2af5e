"""Which method to factor by: what each would cost on this machine, and what each needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.engine.budget import layout, least, reading_nbytes, thread_count, too_small
from leyden.engine.checkpoint import Checkpoint
from leyden.engine.executor import Executor
from leyden.factor._kernels import LANES
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
    """Columns of a block: whole vectors of the processor, for part of one costs as much."""
    return min(-(-(options.rank + EXTRA) // LANES) * LANES, rows.shape[1])


def reserved_nbytes(method: str, rows: Rows, options: Options) -> int:
    """Memory that is kept beside the blocks, between passes and during them."""
    n, d = rows.shape
    l = width(options, rows)
    if method == "gram":
        return 8 * (7 * d**2 + 4 * d * l)
    if method == "outer":
        return 8 * (2 * n * d + 5 * n**2 + 4 * d * l)
    if method == "sketch":
        return 8 * 6 * d * l
    return 16 * d * (capacity(rows, options) + 2 * l)


def capacity(rows: Rows, options: Options) -> int:
    """Columns of the Krylov space: what fits half of the memory that a pass leaves, within bounds of use."""
    d, l = rows.shape[1], width(options, rows)
    room = int((options.memory - sum(least(rows, [_image(rows, options)]))) / 2 / (16 * d)) - 2 * l
    return max(min(room, MOST_BLOCKS * l, d), min(LEAST_BLOCKS * l, d))


def _image(rows: Rows, options: Options) -> Any:
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
    fits = {name: _suits(name, rows) for name in METHODS}
    needed = {name: _needed(name, rows, options, frame) for name in METHODS}
    candidates = sorted(
        (name for name in METHODS if fits[name][0] and sum(needed[name]) <= options.memory), key=scores.__getitem__
    )
    able = [name for name in METHODS if fits[name][0]]
    chosen = method if method != "auto" else candidates[0] if candidates else min(able, key=lambda m: sum(needed[m]))
    if sum(needed[chosen]) > options.memory:
        instead = f" method='{candidates[0]}' fits as it is." if candidates else ""
        raise too_small(options.memory, *needed[chosen], method=chosen, hint=instead)
    reasons = [f"asked for; {fits[chosen][1]}" if method != "auto" else fits[chosen][1]]
    others = tuple(
        (
            name,
            sum(p.seconds for p in (*costs[name], algebra[name])),
            "slower" if name in candidates else "does not fit the budget" if name in able else fits[name][1],
        )
        for name in METHODS
        if name != chosen
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
        _peak(chosen, rows, options, frame),
        algebra[chosen],
    )


def _suits(name: str, rows: Rows) -> tuple[bool, str]:
    n, d = rows.shape
    if name == "gram":
        return True, "one pass tells all of the spectrum"
    if name == "outer":
        return n < d and n <= SHORT, "for a few rows that are long"
    if name == "krylov":
        return True, "a block of vectors a pass, as many passes as the spectrum takes"
    return False, "an estimate, from one pass"


def _reduction(name: str, rows: Rows, options: Options, frame: Frame) -> Any:
    return FrameGram(frame, np.float64) if name == "gram" else _image(rows, options)


def _needed(name: str, rows: Rows, options: Options, frame: Frame) -> tuple[float, float, float]:
    """Memory to read, to compute with one thread, and beside the passes."""
    return *least(rows, [_reduction(name, rows, options, frame)]), reserved_nbytes(name, rows, options)


def _peak(name: str, rows: Rows, options: Options, frame: Frame) -> int:
    kept, reduction = reserved_nbytes(name, rows, options), _reduction(name, rows, options, frame)
    cut = layout(rows, [reduction], options.memory, options.threads, reserved=kept)
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
