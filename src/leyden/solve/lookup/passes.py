"""The two passes of a mixed model with features by lookup: its Schur complement, and the residual of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import aligned
from leyden.engine.reduction import Reduction, Scratch
from leyden.rows.base import Block
from leyden.solve.lookup import _kernels as _lookup_kernels
from leyden.solve.lookup.problem import Features, Table
from leyden.solve.reductions import U, gamma

kernels: Any = _lookup_kernels

#: Variances above this, and below its reciprocal, have roots that float32 holds with all its digits.
LEAST = 1e-60

#: A group of no number.
NOBODY = np.iinfo(np.int64).max


#: Numbers that a large array is longer by, so that the system gives it huge pages, which NumPy asks for from 4 MB on:
#: what is added to all over it takes a third of the time.
SPREAD = 2**19


def _spread(size: int) -> np.ndarray:
    """Zeros that will be added to all over."""
    made = aligned.empty(size + SPREAD if size > SPREAD // 4 else size)[:size]
    made[:] = 0
    return made


class _Groups:
    """What both passes know of the model, and the memory that a thread works in.

    Parameters
    ----------
    table : Table
    features : Features
        Of the columns whose coefficients are sought.
    most : int
        Rows of the largest group.
    single : bool
        Whether groups may be solved in float32.
    """

    def __init__(self, table: Table, features: Features, most: int, single: bool):
        self.f, self.delta = table.f, table.delta
        self.starts, self.columns, self.weights = features.starts, features.columns, features.weights
        self.codes, self.p, self.most = features.codes, features.p, most
        # Variances whose roots, or products with features, would leave the range of float32 are for float64.
        inside = (self.delta == 0) | ((self.delta > LEAST) & (self.delta < 1 / LEAST))
        self.single = kernels.SINGLE if single and inside.all() else 0.0
        self._scale = np.sqrt(self.delta).astype(np.float32) if self.single else np.zeros(0, np.float32)
        self._scratch = Scratch()

    @property
    def _shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        return memory_of(self.f.shape[1], self.p, self.most)

    @property
    def scratch_nbytes(self) -> int:
        return sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in self._shapes.values()) + 2**21

    def memory(self, *names: str) -> list[np.ndarray]:
        """Arrays of this thread."""
        shapes = self._shapes
        return [self._scratch.zeros(name, *shapes[name]) for name in names]

    @property
    def model(self) -> tuple[np.ndarray, ...]:
        """Table and features, as the kernels take them."""
        return self.f, self._scale, self.delta, self.codes, self.starts, self.columns, self.weights

    def beta(self, beta: np.ndarray) -> np.ndarray:
        """With a place for nobody."""
        return np.append(beta, 0.0)


def memory_of(width: int, p: int, most: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shapes and types of what a thread works in, with groups of at most so many rows."""
    few = int(kernels.few_rows(width))
    tiles, lanes = (few + 3) // 4, kernels.LANES
    triangle = tiles * (tiles + 1) // 2
    dual = max(few, min(most, width))
    primal = most > max(few, width)
    size = max(dual, width) if primal else dual
    return {
        "gathered": ((4 * lanes * tiles, width), np.float32),
        "tile": ((lanes * triangle, 16), np.float32),
        "lane_k": ((16 * triangle, lanes), np.float32),
        "lane_x": ((16 * triangle, lanes), np.float32),
        "lane_y": ((4 * tiles + 1, lanes), np.float32),
        "lane_c": ((4 * tiles, lanes), np.int64),
        "lane_base": ((4 * tiles, lanes), np.int64),
        "trace": ((lanes,), np.float64),
        "r64": ((8 * tiles, lanes), np.float64),
        "a64": ((4 * tiles, lanes), np.float64),
        "about": ((4, lanes), np.float64),
        "w": ((width,), np.float64),
        "square": ((size, size), np.float64),
        "inverse": ((size, max(size, width)), np.float64),
        "rows": ((max(dual, lanes), width), np.float64),
        "small": ((4, max(size, width, p + 1)), np.float64),
        "local": ((p if primal else 1, width), np.float64),
        "where": ((p + 1, 2), np.int64),
    }


def groups_of(block: Block) -> tuple[np.ndarray, ...]:
    """Groups of a block by ascending number of rows, and their rows."""
    data: Any = block.data
    indptr = np.asarray(data.indptr, np.int64)
    counts = np.diff(indptr)
    if counts.size and counts.max() < 2**16:
        counts = counts.astype(np.uint16)  # sorted by their digits
    order = np.argsort(counts, kind="stable")
    values = np.asarray(data.data)
    with np.errstate(over="ignore"):
        values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
    return order, indptr, np.asarray(data.indices, np.int32), values


@dataclass
class SchurState:
    """Sums over groups; see :func:`leyden.solve.lookup._kernels.schur`."""

    s: np.ndarray
    t: np.ndarray
    totals: np.ndarray
    bad: np.ndarray


@dataclass(frozen=True)
class Complement:
    """The Schur complement, and how far off it is.

    Attributes
    ----------
    s : ndarray, shape (p, p)
        ``Ŝ``, whole; ``(Ŝ − D) / (1 + error) ⪯ S ⪯ (Ŝ + D) / (1 − error)``.
    t : ndarray, shape (p,)
    slack : ndarray, shape (p,)
        The diagonal matrix D.
    error : float
    log_determinant : float
        ``Σ log |M|``.
    rows : int
    bad : int
        The first group with a target that is not finite; −1 if there is none.
    """

    s: np.ndarray
    t: np.ndarray
    slack: np.ndarray
    error: float
    log_determinant: float
    rows: int
    bad: int


class Schur(_Groups, Reduction[SchurState, Complement]):
    """``S = Σ Xᵀ M⁻¹ X`` and ``t = Σ Xᵀ M⁻¹ y``."""

    @property
    def state_nbytes(self) -> int:
        return 8 * ((self.p + 1) * (self.p + 2) // 2 + SPREAD + 4 * (self.p + 1) + 5)

    def start(self) -> SchurState:
        p = self.p
        return SchurState(_spread((p + 1) * (p + 2) // 2), np.zeros((p + 1, 4)), np.zeros(4), np.full(1, NOBODY))

    def update(self, state: SchurState, block: Block) -> SchurState:
        order, indptr, indices, values = groups_of(block)
        bad = np.full(1, NOBODY)
        work = self.memory(
            "gathered", "tile", "lane_k", "lane_x", "lane_y", "lane_c", "lane_base", "trace", "square", "inverse",
            "rows", "small", "local", "where",
        )  # fmt: skip
        work[-1][:, 0] = -1
        kernels.schur(
            order, self.single, indptr, indices, values, *self.model, state.s, state.t, state.totals, bad, *work
        )
        if bad[0] != NOBODY:
            state.bad[0] = min(state.bad[0], block.start + bad[0])
        return state

    def merge(self, a: SchurState, b: SchurState) -> SchurState:
        a.s += b.s
        a.t += b.t
        totals = a.totals + b.totals
        totals[kernels.ERROR] = max(a.totals[kernels.ERROR], b.totals[kernels.ERROR])
        totals[kernels.PAIRS] = max(a.totals[kernels.PAIRS], b.totals[kernels.PAIRS]) + 1
        np.minimum(a.bad, b.bad, out=a.bad)
        return SchurState(a.s, a.t, totals, a.bad)

    def finish(self, state: SchurState) -> Complement:
        p, totals = self.p, state.totals
        s = np.zeros((p, p))
        s[np.tril_indices(p)] = state.s[: p * (p + 1) // 2]
        s += np.tril(s, -1).T
        slack = 1.01 * (gamma(totals[kernels.PAIRS] + 1) * state.t[:p, 1] + U * state.t[:p, 2])
        return Complement(
            s, state.t[:p, 0].copy(), slack, float(totals[kernels.ERROR]), float(totals[kernels.LOG_DETERMINANT]),
            int(totals[kernels.ROWS]), -1 if state.bad[0] == NOBODY else int(state.bad[0]),
        )  # fmt: skip


@dataclass
class ResidualState:
    """Sums over groups; see :func:`leyden.solve.lookup._kernels.certify`."""

    s: np.ndarray
    totals: np.ndarray
    bad: np.ndarray


@dataclass(frozen=True)
class Residual:
    """What an answer β leaves, α being that of every group to the rounding of float64.

    Attributes
    ----------
    s : ndarray, shape (p,)
        ``Σ Xᵀα``, right to ``rounding``, column by column.
    rounding : ndarray, shape (p,)
    squares : float
        ``Σ y²``.
    objective : float
        ``Σ (y − Xβ)ᵀα``, which is ``Σ (y − Xβ)ᵀ M⁻¹ (y − Xβ)``.
    effects : float
        ``Σ ‖v‖²``, in whitened coordinates.
    defect : float
        At least ``(Σ ‖M^(−½) (y − Xβ − M α)‖²)^½``.
    matrix : float
        The squared Frobenius norm of the whole matrix, without the penalty of the fixed effects.
    rows : int
    bad : int
    """

    s: np.ndarray
    rounding: np.ndarray
    squares: float
    objective: float
    effects: float
    defect: float
    matrix: float
    rows: int
    bad: int


class Residuals(_Groups, Reduction[ResidualState, Residual]):
    """The gradient of an answer, and bounds on all that is wrong with it."""

    def __init__(self, table: Table, features: Features, most: int, single: bool, beta: np.ndarray):
        super().__init__(table, features, most, single)
        self._beta = self.beta(beta)

    @property
    def state_nbytes(self) -> int:
        return 8 * (3 * (self.p + 1) + 7)

    def start(self) -> ResidualState:
        return ResidualState(np.zeros((self.p + 1, 3)), np.zeros(6), np.full(1, NOBODY))

    def update(self, state: ResidualState, block: Block) -> ResidualState:
        order, indptr, indices, values = groups_of(block)
        bad = np.full(1, NOBODY)
        work = self.memory(
            "gathered", "tile", "lane_k", "lane_y", "trace", "r64", "a64", "about", "w", "square", "inverse", "rows",
            "small",
        )  # fmt: skip
        kernels.certify(
            order, self.single, indptr, indices, values, *self.model, self._beta, state.s, state.totals, bad, *work
        )
        if bad[0] != NOBODY:
            state.bad[0] = min(state.bad[0], block.start + bad[0])
        return state

    def merge(self, a: ResidualState, b: ResidualState) -> ResidualState:
        additions = np.maximum(a.s[:, 2], b.s[:, 2]) + 1
        a.s += b.s
        a.s[:, 2] = additions
        a.totals += b.totals
        np.minimum(a.bad, b.bad, out=a.bad)
        return a

    def finish(self, state: ResidualState) -> Residual:
        p, totals = self.p, state.totals
        unit = np.array([gamma(n + 2) for n in state.s[:p, 2]])
        return Residual(
            state.s[:p, 0].copy(), 1.01 * unit * state.s[:p, 1], float(totals[kernels.SQUARES]),
            float(totals[kernels.OBJECTIVE]), max(float(totals[kernels.EFFECTS]), 0.0),
            1.001 * float(np.sqrt(totals[kernels.DEFECT])), 1.001 * float(totals[kernels.MATRIX]),
            int(totals[kernels.ROW_COUNT]), -1 if state.bad[0] == NOBODY else int(state.bad[0]),
        )  # fmt: skip
