"""The rows that effects are absorbed from: a target, covariates, codes of factors and weights, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import aligned
from leyden.errors import DataError, OptionError
from leyden.solve.absorb import _absorb_kernels
from leyden.solve.absorb.cells import ONES, masked
from leyden.solve.absorb.threads import Threads, ranges, scatters

kernels: Any = _absorb_kernels
LANES = _absorb_kernels.LANES

#: Rows of a block: the target and a few covariates of it stay in the cache of a processor.
BLOCK = 8192


@dataclass(frozen=True)
class Table:
    """Rows in memory, as they were given.

    Attributes
    ----------
    y : float64, shape (n,)
    x : tuple of arrays, shape (n, k)
        The covariates in parts, one part after the other; numbers of any type, in any order.
    codes : list of int32 arrays, shape (n,)
    levels : tuple of int
        Levels of each factor.
    weights : float64, shape (n,) or (1,)
        One entry when all weights are one.
    """

    y: np.ndarray
    x: tuple[np.ndarray, ...]
    codes: list[np.ndarray]
    levels: tuple[int, ...]
    weights: np.ndarray

    @classmethod
    def of(cls, y: Any, x: Any, factors: Sequence[Any], weights: Any) -> Table:
        """Checked; nothing is copied that has the type it should."""
        y = np.ascontiguousarray(y, np.float64)
        n = len(y)
        parts = tuple(map(_columns, x if isinstance(x, tuple) else () if x is None else (x,)))
        codes = [_codes(np.asarray(f), k) for k, f in enumerate(factors)]
        w = ONES if weights is None else np.ascontiguousarray(weights, np.float64)
        if n == 0:
            raise DataError("there are no rows")
        if not codes:
            raise OptionError("there must be at least one factor")
        if any(p.ndim != 2 or len(p) != n for p in parts) or y.ndim != 1 or any(c.shape != (n,) for c in codes):
            of_x, shapes = ", ".join(str(part.shape) for part in parts), [c.shape for c in codes]
            raise DataError(f"y has shape {y.shape}, x {of_x}, and factors {shapes}: they must have rows in common")
        if weights is not None:
            if w.shape != (n,):
                raise DataError(f"weights have shape {w.shape}, y has {y.shape}")
            if not (np.all(w >= 0) and np.all(np.isfinite(w))):
                wrong = int(np.argmin((w >= 0) & np.isfinite(w)))
                raise DataError("a weight is negative or not finite", where=f"row {wrong:,}")
            if not w.any():
                raise DataError("no row has a weight above zero")
            w = np.append(w, 0.0) if n == 1 else w
        return cls(y, parts, codes, tuple(int(c.max()) + 1 for c in codes), w)

    @property
    def rows(self) -> int:
        return len(self.y)

    @property
    def mask(self) -> int:
        return masked(self.weights)

    @property
    def p(self) -> int:
        """Covariates."""
        return sum(part.shape[1] for part in self.x)

    @property
    def width(self) -> int:
        """Columns of a block: y, those of x, and zeros up to a multiple of :data:`LANES`."""
        count = 1 + self.p
        return count + -count % LANES

    @property
    def groups(self) -> range:
        """First columns of the groups of four that are worked on together."""
        return range(0, self.width, LANES)

    def read(self, first: int, last: int, block: np.ndarray) -> np.ndarray:
        """Rows ``first:last`` of y and x, in the memory of ``block``."""
        out = block[: last - first]
        out[:, 0] = self.y[first:last]
        at = 1
        for part in self.x:
            out[:, at : at + part.shape[1]] = part[first:last]
            at += part.shape[1]
        return out

    def fitted(self, first: int, last: int, beta: np.ndarray) -> np.ndarray:
        """``xβ`` of the rows ``first:last``."""
        total, at = np.zeros(last - first), 0
        for part in self.x:
            total += part[first:last] @ beta[at : at + part.shape[1]]
            at += part.shape[1]
        return total

    def weight(self, first: int, last: int) -> np.ndarray:
        """Weights of the rows ``first:last`` as a column; one number when they are all one."""
        return self.weights[first:last, None] if self.mask else self.weights[:, None]

    def each_block(
        self, threads: Threads, begin: Callable[[int], Any], work: Callable[..., None], advance: Callable[[int], None]
    ) -> list[Any]:
        """Read every block and hand it to ``work(state, first, last, block)``; the states ``begin(part)``, in order."""

        def run(k: int, first: int, last: int) -> Any:
            state, block = begin(k), aligned.zeros((BLOCK, self.width))
            for start in range(first, last, BLOCK):
                stop = min(start + BLOCK, last)
                work(state, start, stop, self.read(start, stop, block))
                advance(stop - start)
            return state

        parts = ranges(self.rows, self.scatter_parts())
        return threads.each(run, [(k, a, b) for k, (a, b) in enumerate(parts)])

    def scatter_parts(self) -> int:
        """Parts of the rows whose sums by level are kept apart."""
        return scatters(8 * self.width * sum(self.levels))

    def level_sums(self, block: np.ndarray, first: int, sums: list[np.ndarray]) -> None:
        """Add the weighted rows of a block to the sums of their levels: an array (groups, levels, 4) a factor."""
        for codes, out in zip(self.codes, sums, strict=True):
            for g, column in enumerate(self.groups):
                kernels.level_sums(block, column, self.weights, self.mask, codes, first, out[g])

    def subtract(self, block: np.ndarray, first: int, effects: list[np.ndarray]) -> None:
        """Take the effects of their levels off the rows of a block."""
        for codes, effect in zip(self.codes, effects, strict=True):
            for g, column in enumerate(self.groups):
                kernels.subtract_effects(block, column, codes, first, effect[g])

    def by_level(self) -> list[np.ndarray]:
        """Zeros, (groups, levels, 4) a factor."""
        return [aligned.zeros((len(self.groups), count, LANES)) for count in self.levels]


def _columns(values: Any) -> np.ndarray:
    """Covariates side by side, (n, k); a single one may be (n,)."""
    array = np.asarray(values)
    array = array if array.dtype.kind in "fiu" else array.astype(np.float64)
    return array[:, None] if array.ndim == 1 else array


def _codes(codes: np.ndarray, factor: int) -> np.ndarray:
    """Codes of a factor as int32, from 0."""
    if codes.dtype.kind not in "iu":
        raise DataError(f"the codes of factor {factor} are {codes.dtype}, not integers")
    if codes.size and codes.min() < 0:
        k = int(np.argmin(codes))
        raise DataError(f"the codes of factor {factor} begin at 0, this one is {codes.flat[k]}", where=f"row {k:,}")
    if codes.size and codes.max() >= 2**31 - 1:
        raise DataError(f"the codes of factor {factor} go up to {codes.max():,}, which is too many levels")
    return np.ascontiguousarray(codes, np.int32)


def penalties_of(penalties: Sequence[float] | None, factors: int) -> tuple[float, ...]:
    """One number a factor, zero or more."""
    found = (0.0,) * factors if penalties is None else tuple(float(p) for p in penalties)
    if len(found) != factors:
        raise OptionError(f"there are {factors} factors and {len(found)} penalties")
    if not all(0 <= p < np.inf for p in found):
        raise OptionError(f"penalties={found} must be numbers, zero or more")
    return found
