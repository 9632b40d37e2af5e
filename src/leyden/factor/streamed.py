"""Alternating least squares on ratings beyond memory: one pass an epoch, users solved on the way and never kept.

For item factors V let ``φ(V) = min_U F(U, V)``. A pass over the users finds U and adds up, for each item, the normal
equations ``H_j = ν_j I + α₀ UᵀU + Σ_i w_ij u_i u_iᵀ`` and the gradient of φ (which is that of F at the best U). The
half-step of the items is then ``v_j − H_j⁻¹ ∇_j``, and lowers F by exactly ``½ Σ_j ∇_jᵀ H_j⁻¹ ∇_j``.

The normal equations of all items are one large state. Ratings are therefore not scattered into it one by one: those of
a block of users are sorted by item first, and what an item gets is summed in registers and added once a block.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import aligned
from leyden.engine.reduction import Reduction
from leyden.engine.workshop import Workshop
from leyden.factor import _als_kernels
from leyden.factor.half_step import Entries, HalfStep
from leyden.factor.objective import Objective
from leyden.rows.base import Block

kernels: Any = _als_kernels

#: Parts of a block that users are solved in, and ranges of items that are added to: what threads share.
USER_PARTS, ITEM_PARTS = 4, 32

#: Bytes of the longest block, which the largest budgets afford: the longer, the less often the state is walked through.
BLOCK_NBYTES = 320 * 2**20


@dataclass
class ItemState:
    """Sums over users.

    Attributes
    ----------
    h : float32 or float64, shape (items, packed)
        ``Σ w u uᵀ``, upper triangles.
    gradient : float64, shape (items, width)
        ``Σ w (t − u·v) u``.
    gram : float64, shape (width, width)
        ``UᵀU``.
    least : float
        ``Σ_i min F_i``.
    length : float
        ``Σ_i λ_i ‖u_i‖²``.
    """

    h: np.ndarray
    gradient: np.ndarray
    gram: np.ndarray
    least: float = 0.0
    length: float = 0.0


@dataclass(frozen=True)
class Improved:
    """What a pass makes of a span of items.

    Attributes
    ----------
    v : ndarray
        Better factors.
    before : float
        The objective with the best users for the old ones.
    decrement : float
        What it is lowered by.
    squared_slope : float
        ``Σ_j ‖∇_j‖² / ν_j`` of the span, at the old factors.
    squared_norm : float
        ``Σ λ_i ‖u_i‖² + Σ ν_j ‖v_j‖²`` of the users and all old items.
    """

    v: np.ndarray
    before: float
    decrement: float
    squared_slope: float
    squared_norm: float


class ItemStep(Reduction[ItemState, Improved]):
    """One epoch in one pass.

    Parameters
    ----------
    objective : Objective
    v : ndarray, shape (items, width)
        Padded; with biases column ``bias`` is the items'.
    user_penalties : ndarray
        λ by the number of ratings.
    item_penalties : ndarray, shape (items,)
    item_counts : int64, shape (items,)
        Ratings of each item: how the work is shared.
    bias : int
    users : int
        How many there are.
    nonnegative : bool
        Whether factors are to be zero or more.
    span : (int, int), optional
        The items that are improved, when the normal equations of all of them are too many: passes over spans that
        make up the items do together what one does.
    block_nbytes : int
        Of the ratings that are worked on at once.
    workshop : Workshop, optional
        Threads and memory to work with, which several passes may share; one of its own by default.
    """

    parallel = True

    def __init__(
        self,
        objective: Objective,
        v: np.ndarray,
        user_penalties: np.ndarray,
        item_penalties: np.ndarray,
        item_counts: np.ndarray,
        bias: int = -1,
        *,
        users: int,
        nonnegative: bool = False,
        span: tuple[int, int] | None = None,
        block_nbytes: int = 2**25,
        workshop: Workshop | None = None,
    ):
        self.objective, self.user_penalties, self.item_penalties = objective, user_penalties, item_penalties
        self.bias, self.items, self.width, self.dtype = bias, *v.shape, v.dtype
        self.v = aligned.copy(v)
        self.theta, self.q = np.zeros(self.width), np.eye(self.width)
        self.active = self.width if not nonnegative else int(np.abs(v).any(axis=0).nonzero()[0].max(initial=-1)) + 1
        self.nonnegative = nonnegative
        if nonnegative:
            self.theta = objective.unobserved * (v.T @ v).astype(np.float64)
        elif objective.unobserved:
            values, self.q = np.linalg.eigh((v.T @ v).astype(np.float64))
            self.theta = objective.unobserved * np.maximum(values, 0.0)
            np.matmul(v, self.q.astype(self.dtype), out=self.v)
        self.features, self.shift = self.v, np.empty(0, self.dtype)
        if bias >= 0:
            self.features, self.shift = aligned.copy(self.v), self.v[:, bias].copy()
            self.features[:, bias] = 1.0
        self.span = span or (0, self.items)
        self._cuts = self.span[0] + _shares(item_counts[slice(*self.span)])
        self.block_nbytes, self._mean = block_nbytes, max(float(item_counts.sum()) / users, 0.1)
        self._workshop = workshop or Workshop()

    @property
    def packed(self) -> int:
        """Numbers kept of a triangle."""
        return int(kernels.packed_starts(self.width)[-1])

    @property
    def state_nbytes(self) -> int:
        first, last = self.span
        return (last - first) * (self.packed * self.dtype.itemsize + 8 * self.width) + 8 * self.width**2

    @property
    def scratch_nbytes(self) -> int:
        # Ratings by item, users and their order, and what threads work in.
        ratings = self.block_nbytes / 8
        users = self.block_nbytes / (8 * self._mean + 8)
        return int(ratings * 20 + users * (self.width * self.dtype.itemsize + 24) + USER_PARTS * 8 * self.items + 2**23)

    def start(self) -> ItemState:
        return ItemState(
            aligned.zeros((self.span[1] - self.span[0], self.packed), self.dtype),
            aligned.zeros((self.span[1] - self.span[0], self.width)),
            np.zeros((self.width, self.width)),
        )

    def update(self, state: ItemState, block: Block) -> ItemState:
        data: Any = block.data
        indptr = np.asarray(data.indptr, np.int64)
        cuts = np.searchsorted(indptr, np.linspace(0, indptr[-1], USER_PARTS + 1)[1:-1])
        cuts = np.unique(np.concatenate([[0], cuts, [block.rows]]))
        spans = list(itertools.pairwise(cuts))
        shop = self._workshop
        solvers = shop.kept(
            f"solvers {self.width} {self.dtype} {self.nonnegative and self.active}",
            lambda: [
                HalfStep(self.width, self.dtype, 1, self.active if self.nonnegative else 0) for _ in range(shop.threads)
            ],
        )
        m, ratings = self.items, len(data.indices)
        columns = shop.array("columns", (len(spans), m + 1), np.int64)
        rows, values = shop.array("rows", (ratings,), np.int32), shop.array("values", (ratings,), np.float32)
        spare = shop.array("spare", (3, ratings), np.int32)
        u = shop.array("u", (block.rows, self.width), self.dtype)
        starts = indptr[cuts[:-1]]

        def users(k: int) -> tuple[float, float]:
            """Users of a part solved, and their ratings grouped by item: their least values, and their lengths."""
            first, last = spans[k]
            span = slice(indptr[first], indptr[last])
            entries = Entries.of(indptr[first : last + 1] - indptr[first], data.indices[span], data.data[span])
            solver = solvers.pop()
            if self.nonnegative:
                u[first:last] = 0.0
            least: float = solver(
                entries, self.objective.model, self.features, self.theta, self.user_penalties, u[first:last], self.shift
            )
            solvers.append(solver)
            columns[k] = 0
            kernels.transpose(
                entries.indptr, entries.indices, entries.values, columns[k], rows[span], values[span], first,
                spare[:, span],
            )  # fmt: skip
            lengths = np.einsum("ij,ij->i", u[first:last], u[first:last])
            return least, float(self.user_penalties[entries.counts] @ lengths)

        for least, length in shop.map(users, len(spans)):
            state.least += least
            state.length += length
        if self.objective.unobserved:
            for first, last in spans:
                state.gram += u[first:last].T @ u[first:last]
        shift = np.empty(0, self.dtype)
        if self.bias >= 0:
            shift = u[:, self.bias].copy()
            u[:, self.bias] = 1.0
        memory = shop.kept(f"memory {self.width} {self.dtype}", lambda: [self._memory() for _ in range(shop.threads)])

        def items(k: int) -> None:
            work: Any = memory.pop()
            kernels.add_items(
                self._cuts[k], self._cuts[k + 1], self.span[0], columns, starts, rows, values,
                self.objective.model, shift, u, self.v, state.h, state.gradient, *work, 64 // self.dtype.itemsize,
            )  # fmt: skip
            memory.append(work)

        shop.map(items, len(self._cuts) - 1)
        return state

    def _memory(self) -> tuple[np.ndarray, ...]:
        return (
            aligned.zeros((self.width, self.width), self.dtype),
            aligned.zeros((kernels.GATHERED, self.width), self.dtype),
            aligned.zeros((3, max(self.width, kernels.GATHERED)), self.dtype),
        )

    def merge(self, a: ItemState, b: ItemState) -> ItemState:
        a.h += b.h
        a.gradient += b.gradient
        a.gram += b.gram
        a.least += b.least
        a.length += b.length
        return a

    def finish(self, state: ItemState) -> Improved:
        part = slice(*self.span)
        v, nu, alpha = self.v[part], self.item_penalties[part], self.objective.unobserved
        gradient = nu[:, None] * v - state.gradient
        shared = np.zeros((self.width, self.width))
        if alpha:
            shared = alpha * state.gram
            gradient += v @ shared
        step = np.empty(v.shape, self.dtype)
        cuts = np.linspace(0, len(v), ITEM_PARTS + 1).astype(np.int64)
        decrements = np.zeros((ITEM_PARTS, 1))

        improved, w, d = v.copy(), self.width, self.dtype

        def descend(k: int) -> None:
            kernels.newton_items_nonnegative(
                cuts[k], cuts[k + 1], state.h, gradient, shared.astype(self.dtype), nu, self.active,
                aligned.zeros((w, w), d), aligned.zeros((3, w), d), improved,
                decrements[k], 64 // self.dtype.itemsize,
            )  # fmt: skip

        def solve(k: int) -> None:
            kernels.newton_items(
                cuts[k], cuts[k + 1], state.h, gradient, shared.astype(self.dtype), nu, self.width,
                aligned.zeros((w, w), d), aligned.zeros((3, w), d), step,
                decrements[k], 64 // self.dtype.itemsize,
            )  # fmt: skip

        self._workshop.map(descend if self.nonnegative else solve, ITEM_PARTS)
        all_nu, all_v = self.item_penalties, self.v
        length = float(all_nu @ np.einsum("ij,ij->i", all_v, all_v, dtype=np.float64))
        before = state.least + 0.5 * length
        if self.nonnegative:
            gradient = np.where(v > 0, gradient, np.minimum(gradient, 0.0))
        slope = float((np.einsum("ij,ij->i", gradient, gradient) / nu).sum())
        if not self.nonnegative:
            improved = v - step
        if alpha and not self.nonnegative:
            improved = improved @ self.q.T.astype(self.dtype)
        return Improved(improved, before, float(decrements.sum()), slope, state.length + length)


def _shares(counts: np.ndarray) -> np.ndarray:
    """Where to cut the items into ranges of about the same work."""
    work = np.cumsum(counts.astype(np.float64) + 4.0)
    cuts = np.searchsorted(work, np.linspace(0, work[-1], ITEM_PARTS + 1)[1:-1])
    return np.unique(np.concatenate([[0], cuts, [len(counts)]])).astype(np.int64)
