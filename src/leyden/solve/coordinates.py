r"""Working coordinates of a least-squares problem: centred columns of about unit size.

The user's problem is ``min Σ w_i (b_i − x0 − a_i·x)² + λ‖x‖²``. Its columns may differ by many orders of magnitude and,
with an intercept, stand far from zero; both make a well-posed problem look ill-conditioned. All factorizations
therefore see the columns

.. math:: \bar a_j = s_j (a_j − c_j \mathbf 1), \qquad \bar a_p = s_p \mathbf 1 \text{ (the intercept)},

with shifts c (zero unless there is an intercept to absorb them) and scales s that are powers of two, so that scaling
rounds nothing. With ``x_j = s_j z_j`` and ``x0 = s_p z_p − c·x`` the two problems are the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.engine.budget import layout
from leyden.rows.base import Block, Rows

NOTHING = np.empty(0)


@dataclass(frozen=True)
class Coordinates:
    """How working columns are made from data columns.

    Attributes
    ----------
    d, k : int
        Data columns and targets.
    intercept : bool
    ridge : float
    shift, scale : ndarray, shape (p + k,)
        Of the data columns, the intercept (shift 0) and the targets, in that order; p = d (+ 1 with an intercept).
    """

    d: int
    k: int
    intercept: bool
    ridge: float
    shift: np.ndarray
    scale: np.ndarray

    @property
    def p(self) -> int:
        """Unknowns for each target."""
        return self.d + self.intercept

    @property
    def penalty(self) -> np.ndarray:
        """Diagonal (p,) that the ridge adds to the Gram matrix of the working columns."""
        if self.ridge == 0:
            return np.zeros(self.p)
        penalty = (np.sqrt(self.ridge) * self.scale[: self.p]) ** 2
        if self.intercept:
            penalty[-1] = 0.0
        return penalty

    def solution(self, z: np.ndarray, *, targets: bool) -> tuple[np.ndarray, np.ndarray]:
        """``(x, x0)``, shapes (d, k) and (k,), of working unknowns ``z`` (p, k).

        With ``targets`` the unknowns fit the shifted and scaled targets; without, they are in the units of the targets
        themselves, as a correction is.
        """
        s, c = self.scale, self.shift
        if targets:
            z = z / s[self.p :]
        x = s[: self.d, None] * z[: self.d]
        x0 = np.zeros(self.k)
        if self.intercept:
            x0 = s[self.d] * z[self.d] - c[: self.d] @ x
            if targets:
                x0 = x0 + c[self.p :]
        return x, x0


def tiles(block: Block, rows: int) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Short slices ``(data, target, weight)`` of a block; dense data as float32 or float64, whichever is exact.

    A target or weight that is not there is an empty array.
    """
    for start in range(0, block.rows, rows):
        part = slice(start, min(start + rows, block.rows))
        data = block.data[part]
        if not (data.dtype == np.float32 or data.dtype == np.float64):
            data = data.astype(exact_float(data.dtype))
        length = part.stop - part.start
        target = block.target[part] if block.target is not None else np.empty((length, 0))
        yield data, target, block.weight[part] if block.weight is not None else NOTHING


def exact_float(dtype: np.dtype) -> np.dtype:
    """The smallest of float32 and float64 that holds every value of ``dtype`` (64-bit integers: float64)."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


@dataclass(frozen=True)
class Probe:
    """What a few rows tell before any pass: coordinates to work in, and how ill-conditioned the columns look.

    Attributes
    ----------
    coordinates : Coordinates
    condition : float
        Condition number of the sampled working rows (ridge included), infinite when they are dependent.
    density : float
        Stored fraction of the entries.
    rows : int
        Rows looked at.
    """

    coordinates: Coordinates
    condition: float
    density: float
    rows: int


#: Columns whose condition number a probe estimates; of more, as many spread evenly stand for all.
PROBED_COLUMNS = 1024


#: Rows that a probe reads at once.
PROBED_AT_ONCE = 256


def probe(rows: Rows, *, intercept: bool, ridge: float, memory: int) -> Probe:
    """Look at the first rows, and at a few short runs further on, in a quarter of ``memory``.

    Raises
    ------
    BudgetError
        When ``memory`` is not even enough to read a row.
    """
    layout(rows, [], memory)
    n, d = rows.shape
    k = max(len(rows.targets), 1)
    p = min(d + intercept, PROBED_COLUMNS)
    # The sample, its working columns, and one more copy of them for the factorization.
    fitting = max(int((memory - rows.reader_nbytes(0)) / 4 / (8 * 4 * (d + k + 1))), 1)
    want = min(n, max(4 * p, 1024), fitting)
    runs = 1 if want == n else min(8, max(1, want // 256))
    length = -(-want // runs)
    a, b, w = np.empty((runs * length, d)), np.zeros((runs * length, k)), np.ones(runs * length)
    try:
        for i in range(runs):
            start = min(i * (n // runs), n - length)
            for done in range(0, length, PROBED_AT_ONCE):
                here = slice(i * length + done, i * length + min(done + PROBED_AT_ONCE, length))
                block = rows.read(start + done, start + done + here.stop - here.start)
                a[here] = block.data if isinstance(block.data, np.ndarray) else block.data.toarray()
                if block.target is not None:
                    b[here] = block.target
                if block.weight is not None:
                    w[here] = block.weight
    finally:
        rows.release()
    density = 1.0 if not rows.is_sparse else np.count_nonzero(a) / a.size
    with np.errstate(all="ignore"):
        coordinates, condition = _coordinates(a, b, w, n, intercept, ridge, centre=not rows.is_sparse)
    return Probe(coordinates, condition, density, len(a))


def _coordinates(
    a: np.ndarray, b: np.ndarray, w: np.ndarray, n: int, intercept: bool, ridge: float, *, centre: bool
) -> tuple[Coordinates, float]:
    (m, d), k = a.shape, b.shape[1]
    total = max(float(w.sum()), np.finfo(float).tiny)
    shift = np.zeros(d + intercept + k)
    if intercept:
        # A constant column must be shifted to exact zeros, and a mean of equal numbers need not equal them.
        if centre:
            constant = (a == a[0]).all(axis=0)
            shift[:d] = np.where(constant, a[0], w @ (a / total))
        shift[d + 1 :] = w @ (b / total)
    shift[~np.isfinite(shift)] = 0.0
    size = np.ones(len(shift))
    root = np.sqrt(w)[:, None]
    centred = a - shift[:d]
    centred *= root
    size[:d] = norms(centred)
    del centred
    if intercept:
        # What is left of a constant column is the rounding of its shift: do not blow it up.
        size[:d] = np.maximum(size[:d], 4 * np.finfo(float).eps * np.abs(shift[:d]) * np.sqrt(total))
        size[d] = np.sqrt(total)
    size[d + intercept :] = norms(root * (b - shift[d + intercept :]))
    size = np.sqrt(n / m) * size
    size[:d] = np.hypot(size[:d], np.sqrt(ridge))
    usable = np.isfinite(size) & (size > 0)
    scale = np.exp2(-np.round(np.log2(np.where(usable, size, 1.0))))
    coordinates = Coordinates(d, k, intercept, ridge, shift, scale)
    # A column that the sample has only zeros of may be rare rather than empty: it says nothing yet.
    seen = np.flatnonzero(usable[:d] | (m == n))
    seen = seen[:: max(1, -(-len(seen) // PROBED_COLUMNS))]
    working = a[:, seen]
    working -= shift[seen]
    working *= scale[seen]
    working *= root
    working *= np.sqrt(n / m)
    if intercept:
        working = np.hstack([working, root * scale[d] * np.sqrt(n / m)])
        seen = np.append(seen, d)
    if ridge:
        working = np.vstack([working, np.diag(np.sqrt(coordinates.penalty[seen]))])
    return coordinates, _condition(working)


def norms(columns: np.ndarray) -> np.ndarray:
    """Column norms that neither overflow nor underflow."""
    largest = np.maximum(columns.max(axis=0, initial=0.0), -columns.min(axis=0, initial=0.0))
    safe = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    scaled = columns / safe
    np.square(scaled, out=scaled)
    lengths: np.ndarray = np.sqrt(scaled.sum(axis=0))
    return safe * lengths * (largest > 0)


def _condition(working: np.ndarray) -> float:
    if not np.isfinite(working).all():
        return np.inf
    s = np.linalg.svd(np.linalg.qr(working, mode="r"), compute_uv=False)
    return float(s[0] / s[-1]) if len(s) == working.shape[1] and s[-1] > 0 else np.inf
