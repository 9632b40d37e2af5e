"""Memory budgets, and the layout of a stream into blocks that follows from them."""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leyden.errors import BudgetError, OptionError

if TYPE_CHECKING:
    from leyden.engine.reduction import Reduction
    from leyden.rows.base import Rows

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

#: A block read from a file: long, for every block costs the thread that reads a wait of milliseconds for a processor.
FILE_BLOCK_NBYTES = 32 * 2**20
#: Blocks that a folding thread holds of a stream read ahead: one being folded, two read or being read.
READ_AHEAD = 3
#: A block of an array in memory: only there to share the work between threads.
MEMORY_BLOCK_NBYTES = 8 * 2**20


def parse_memory(memory: str | int | None) -> int:
    """Bytes of ``"512MB"``, ``"2GiB"``, ``1_000_000``; None means half of the memory that is free now."""
    if memory is None:
        return _available() // 2
    if isinstance(memory, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]i?|)b?\s*", memory.lower())
        if not match:
            raise OptionError(f"memory='{memory}' is not an amount", hint='Write it like "512MB" or "2GB".')
        memory = int(float(match[1]) * _UNITS[match[2]])
    if memory <= 0:
        raise OptionError(f"memory={memory} is not an amount", hint='Write it like "512MB" or "2GB".')
    return int(memory)


def format_bytes(count: float) -> str:
    """``count`` in the unit a person would use."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _available() -> int:
    try:
        with open("/proc/meminfo") as meminfo:
            for line in meminfo:
                if line.startswith("MemAvailable"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def trim() -> None:
    """Give what was freed back to the system: until then it is memory of the process, beside the budget of a pass.

    It is glibc that keeps megabytes; other allocators are not asked.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def thread_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Layout:
    """How a stream is cut: blocks are read whole, segments of blocks are folded by one thread each.

    Results depend on ``block_rows`` and ``segment_rows``, never on ``threads``.
    """

    rows: int
    block_rows: int
    segment_rows: int
    threads: int
    memory: int

    @property
    def segments(self) -> int:
        return -(-self.rows // self.segment_rows)

    def rows_of(self, segment: int) -> int:
        """How many rows a segment has."""
        return min(self.segment_rows, self.rows - segment * self.segment_rows)


def reading_nbytes(rows: Rows, block_rows: int) -> float:
    """Memory of one thread for reading: its blocks, and what it makes them with."""
    blocks = 0 if rows.in_memory else READ_AHEAD
    return blocks * block_rows * rows.row_nbytes + rows.reader_nbytes(block_rows)


def least(rows: Rows, reductions: Sequence[Reduction[Any, Any]]) -> tuple[float, float]:
    """Memory of one thread to read, one row at a time, and to compute: below their sum there is no layout."""
    blocks = 1 if rows.in_memory else 2 * READ_AHEAD
    # Of a state that threads share there may be only one: then nothing is merged.
    states = 1 if any(reduction.parallel for reduction in reductions) else 3
    compute = sum(states * reduction.state_nbytes + reduction.scratch_nbytes for reduction in reductions)
    return blocks * rows.row_nbytes + rows.reader_nbytes(1), compute


def too_small(
    memory: float, read: float, compute: float, reserved: float = 0.0, *, method: str = "", hint: str = ""
) -> BudgetError:
    """The error for a budget in which not even one thread fits; ``hint`` is what else can be done."""
    algebra = f", the algebra between passes {format_bytes(reserved)}" if reserved else ""
    return BudgetError(
        f"a budget of {format_bytes(memory)} is too small{f' for {method}' if method else ''}: one thread takes "
        f"{format_bytes(read)} to read and {format_bytes(compute)} to compute{algebra}",
        hint=f'Give at least memory="{math.ceil((read + compute + reserved) * 1.1 / 1e6)}MB".{hint}',
    )


def layout(
    rows: Rows,
    reductions: Sequence[Reduction[Any, Any]],
    memory: int,
    threads: int | None = None,
    *,
    reserved: int = 0,
) -> Layout:
    """Cut ``rows`` so that reading ahead, the states and the scratch of ``reductions`` fit into ``memory`` bytes.

    Of these, ``reserved`` are for something else.

    The length of a block follows from the budget and the width of a row alone, so that the same call on a machine with
    other processors gives the same bits; the number of threads then follows from what is left. Blocks and segments
    begin where a piece of the data does, as far as pieces are of one length: a segment is no shorter than a piece, so
    that no two threads decode the same one, unless that would leave one segment.

    Raises
    ------
    BudgetError
        If not even one thread that reads one row at a time fits.
    """
    n, piece = rows.shape[0], rows.piece_rows
    state = sum(r.state_nbytes for r in reductions)
    scratch = sum(r.scratch_nbytes for r in reductions)
    target = MEMORY_BLOCK_NBYTES if rows.in_memory else FILE_BLOCK_NBYTES
    target = max([target, *(r.block_nbytes for r in reductions)])
    shared = any(r.parallel for r in reductions)
    read, compute = least(rows, reductions)
    if read + compute > memory - reserved:
        raise too_small(memory, read, compute, reserved)
    memory -= reserved
    row = read - rows.reader_nbytes(0)
    # One state is being folded and one merged; the others wait in the tree of merges, one a level.
    whole = shared and memory - 2 * state - scratch - read < state + 3 * row
    free = memory - (1 if whole else 2) * state - scratch - read
    levels = math.ceil(math.log2(n * rows.row_nbytes / max(4 * state, 1) + 2))
    levels = max(1, min(levels, int(free / 2 / max(state, 1))))
    if whole:
        levels = 0
    elif shared:
        # Merging costs as much as walking through the state: two or three segments are enough to save in between.
        levels = min(levels, 2)
    tree = levels * state
    block_rows = int(min(target / max(rows.row_nbytes, 1), (free - tree) / max(row, 1) + 1))
    block_rows = max(1, min(block_rows, n))
    if block_rows > piece:
        block_rows -= block_rows % piece
    elif piece < n:
        block_rows = math.ceil(piece / math.ceil(piece / block_rows))
    # A segment costs a start and a merge of the states: make it long enough to hide them, and the tree low enough.
    shortest = max(4 * state / max(rows.row_nbytes, 1), n / (2**levels - 1)) if levels else n
    segment_rows = block_rows * max(1, math.ceil(shortest / block_rows))
    if levels and (piece == 1 or piece >= n):
        # Few segments are as many as threads or a multiple, on most machines, when their number is a power of two.
        count = max(n / shortest, 1.0)
        if count < 16:
            even = 2 ** min(round(math.log2(count)), levels - 1)
            length = math.ceil(n / even)
            block_rows = math.ceil(length / math.ceil(length / block_rows))
            segment_rows = block_rows * math.ceil(length / block_rows)
    if block_rows < piece < n:
        segment_rows = piece * math.ceil(segment_rows / piece)
    segments = -(-n // segment_rows)
    per_thread = reading_nbytes(rows, block_rows) + state + scratch
    fitting = 1 if shared else int(max(memory - tree - state, per_thread) // max(per_thread, 1))
    return Layout(n, block_rows, segment_rows, max(1, min(threads or thread_count(), fitting, segments)), memory)
