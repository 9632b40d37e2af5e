r"""The matrix that is factored: the rows as given, or centred and scaled columns.

.. math:: B = (A − \mathbf 1 μᵀ)\, D, \qquad μ = 0 \text{ or the column means}, \quad D = I \text{ or diagonal}.

Rows are read as ``(a − shift) · scale``. The shift is near the mean, so that nothing cancels; what is left of the mean
is taken off the sums at the end: with ``s`` the column sums of the shifted rows, ``BᵀB = Σ − s sᵀ/n``. The scale holds
a power of two that keeps squares within the range of floating point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leyden.rows.base import Block, Rows
from leyden.solve.coordinates import Coordinates, exact_float

#: Rows that a first look reads, in how many places.
LOOKED_AT, PLACES = 1024, 8


@dataclass(frozen=True)
class Frame:
    """How the matrix that is factored is made from the rows.

    Attributes
    ----------
    shift : ndarray, shape (d,)
        Zero when the columns are not centred, or are sparse.
    scale : ndarray, shape (d,)
        ``D`` times ``unit``.
    unit : float
        A power of two: singular values of the rows as read are ``unit`` times those of B.
    centre : bool
    """

    shift: np.ndarray
    scale: np.ndarray
    unit: float
    centre: bool

    @property
    def d(self) -> int:
        return len(self.shift)

    def coordinates(self) -> Coordinates:
        """The same as working coordinates without targets; a column of ones sums the others when they are centred."""
        one = [1.0] if self.centre else []
        return Coordinates(
            self.d, 0, self.centre, 0.0, np.append(self.shift, np.zeros(len(one))), np.append(self.scale, one)
        )

    def standardised(self, deviation: np.ndarray) -> Frame:
        """With columns divided by ``deviation`` (d,), which is in the units of the data."""
        return replace(self, scale=1 / deviation, unit=1.0)


def bare(block: Block) -> Block:
    """The rows without their roles, in float32 or float64."""
    data = block.data
    if not (data.dtype == np.float32 or data.dtype == np.float64):
        data = data.astype(exact_float(data.dtype))
    return Block(block.start, data)


def look(rows: Rows, *, centre: bool, memory: int) -> Frame:
    """A frame from a few rows: about the mean, and a power of two that brings the entries near one."""
    d = rows.shape[1]
    shift, largest = np.zeros(d), 0.0
    total, count = np.zeros(d), 0
    first: np.ndarray | None = None
    constant = np.ones(d, dtype=bool)
    for block in _places(rows, memory):
        data: Any = bare(block).data
        largest = max(largest, _largest(data))
        if centre and isinstance(data, np.ndarray):
            first = data[0].astype(np.float64) if first is None else first
            constant &= (data == first).all(axis=0)
            with np.errstate(all="ignore"):
                total += data.sum(axis=0, dtype=np.float64)
            count += len(data)
    if first is not None:
        # A constant column must be shifted to exact zeros, and a mean of equal numbers need not equal them.
        with np.errstate(all="ignore"):
            shift = np.where(constant, first, total / count)
        shift[~np.isfinite(shift)] = 0.0
    if largest == 0:
        largest = _first_nonzero(rows, memory)
    rows.release()
    unit = power_near(largest)
    return Frame(shift, np.full(d, unit), unit, centre)


def power_near(size: float) -> float:
    """A power of two that brings ``size`` near one, or as near as its own inverse allows."""
    return 2.0 ** -max(-1000, min(round(math.log2(size)), 1000)) if 0 < size < math.inf else 1.0


def _places(rows: Rows, memory: int) -> Iterator[Block]:
    n = rows.shape[0]
    fitting = int(max(memory / 8 - rows.reader_nbytes(0), 0) / max(rows.row_nbytes + 8 * rows.shape[1], 1))
    length = max(1, min(n, LOOKED_AT // PLACES, fitting))
    starts = range(0, n, max(length, n // PLACES))
    for start in starts[:PLACES]:
        yield rows.read(start, min(start + length, n))


def _first_nonzero(rows: Rows, memory: int) -> float:
    """The largest entry of the first rows that are not zero."""
    fitting = int(max(memory / 8 - rows.reader_nbytes(0), 0) / max(rows.row_nbytes + 8 * rows.shape[1], 1))
    n, length = rows.shape[0], max(1, min(rows.shape[0], 4096, fitting))
    for start in range(0, n, length):
        largest = _largest(bare(rows.read(start, min(start + length, n))).data)
        if largest > 0:
            return largest
    return 0.0


def _largest(data: Any) -> float:
    values = data if isinstance(data, np.ndarray) else data.data
    return float(np.abs(values[np.isfinite(values)], dtype=np.float64).max(initial=0.0))
