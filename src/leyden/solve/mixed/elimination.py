"""Elimination of the largest term: the products ``B_g`` of its groups with all that groups share, and sums over them.

``B_g`` is stored as a whole (:class:`Dense`) where groups share few columns, or many groups each row of the others;
where most of it is zero — crossed factors of many levels — as the cells that have rows, with the fixed effects and the
target beside them (:class:`Sparse`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from leyden.engine.budget import thread_count
from leyden.solve.mixed import _products_kernels
from leyden.solve.mixed.distinct import Distinct

kernels: Any = _products_kernels

#: Bytes of whitened rows that a thread makes at once.
CHUNK_NBYTES = 2**21

#: Parts that columns, or groups, are shared out in among threads.
PARTS = 8


class Products(ABC):
    """``A_g`` and ``B_g`` of all groups. ``K_g = Λ (I + Λᵀ A_g Λ)⁻¹ Λᵀ`` for a factor Λ of shape (k, k).

    Attributes
    ----------
    a : ndarray, shape (groups, k, k)
        Lower triangles.
    groups, k, shared : int
        The last of the shared columns is the target.
    """

    a: np.ndarray
    groups: int
    k: int
    shared: int

    @abstractmethod
    def eliminated(self, factor: np.ndarray) -> tuple[float, np.ndarray] | None:
        """``Σ log|I + Λᵀ A Λ|`` and ``Σ Bᵀ K B``; None where rounding leaves a block that is not positive definite."""

    @abstractmethod
    def slope(self, factor: np.ndarray, phi: np.ndarray) -> np.ndarray:
        """``Σ A J − Jᵀ B Φ Bᵀ J`` with ``J = I − K A``, shape (k, k)."""

    @property
    @abstractmethod
    def target(self) -> np.ndarray:
        """The products with the target, shape (groups, k)."""

    @abstractmethod
    def times(self, x: np.ndarray) -> np.ndarray:
        """``B_g x`` for x of all columns but the target, shape (groups, k)."""

    @abstractmethod
    def gathered(self, rows: np.ndarray) -> np.ndarray:
        """``Σ B_gᵀ rows_g`` without the target, shape (shared − 1,)."""

    @abstractmethod
    def quadratic(self, form: np.ndarray) -> np.ndarray:
        """``B_g F B_gᵀ`` for a symmetric F of all columns but the target, shape (groups, k, k)."""

    @abstractmethod
    def turned(self, turn: np.ndarray) -> Products:
        """The last columns, as many as ``turn`` has rows, times it."""

    def substitute(self, factor: np.ndarray, h: np.ndarray, transposed: bool) -> np.ndarray:
        """``L_g⁻¹ h_g``, or ``L_g⁻ᵀ h_g``, with ``L Lᵀ = I + Λᵀ A Λ``; h has shape (groups, k)."""
        out, k = np.empty_like(h), self.k
        work = np.empty((2, k, k))
        factor, h = np.ascontiguousarray(factor), np.ascontiguousarray(h)
        kernels.substitute(self.a, factor, h, out, 0, self.groups, work, transposed)
        return out

    def shrunk(self, factor: np.ndarray) -> np.ndarray:
        """``K_g``, shape (groups, k, k)."""
        own = np.empty((self.groups, self.k, self.k))
        work = np.empty((2, self.k, self.k))
        kernels.covariances_of(self.a, np.arange(self.groups), np.ascontiguousarray(factor), own, work)
        return own

    def effects(self, factor: np.ndarray, right: np.ndarray) -> np.ndarray:
        """``K_g right_g``, shape (groups, k)."""
        out, k = np.empty_like(right), self.k
        fitted, work = np.empty((k, k)), np.empty((2, k, k))
        kernels.effects_of(self.a, right, np.ascontiguousarray(factor), 0, self.groups, out, fitted, work)
        return out


def products(sums: dict[str, Any]) -> Products:
    """The products of :class:`leyden.solve.mixed.products.CrossProducts`, in the way that suits them."""
    if "b" not in sums:
        sparse = len(sums["c"]) - sums["tail"].shape[2]
        return Sparse(sums["a"], sums["pattern"], sums["cells"], sums["tail"], sparse)
    return Alike.of(sums["a"], sums["b"]) or Dense(sums["a"], sums["b"])


def each(work: Callable[..., Any], parts: Iterator[Any]) -> list[Any]:
    """Work done on parts, in order, by all threads."""
    tasks = list(parts)
    if len(tasks) == 1:
        return [work(*tasks[0])]
    with ThreadPoolExecutor(thread_count(), "leyden") as pool:
        return list(pool.map(work, *zip(*tasks, strict=True)))


class Dense(Products):
    """``B_g`` as a whole.

    Parameters
    ----------
    a : ndarray, shape (groups, k, k)
    b : ndarray, shape (groups, k, shared)
    """

    def __init__(self, a: np.ndarray, b: np.ndarray):
        self.a, self.b = a, b
        self.groups, self.k, self.shared = b.shape

    def _chunks(self) -> Iterator[tuple[int, int]]:
        rows = max(1, CHUNK_NBYTES // (8 * self.k * self.shared))
        for begin in range(0, self.groups, rows):
            yield begin, min(begin + rows, self.groups)

    def eliminated(self, factor: np.ndarray) -> tuple[float, np.ndarray] | None:
        factor, k = np.ascontiguousarray(factor), self.k

        def work(begin: int, end: int) -> tuple[float, np.ndarray]:
            out = np.empty(((end - begin) * k, self.shared))
            logdet = kernels.eliminate(self.a, self.b, factor, out, np.empty((k, 2 * k)), begin, end)
            return logdet, out.T @ out

        found = each(work, self._chunks())
        logdet = sum(part[0] for part in found)
        if not np.isfinite(logdet):
            return None
        total = found[0][1]
        for _, part in found[1:]:
            total += part
        return logdet, total

    def slope(self, factor: np.ndarray, phi: np.ndarray) -> np.ndarray:
        factor, k, shared = np.ascontiguousarray(factor), self.k, self.shared

        def work(begin: int, end: int) -> np.ndarray:
            out, total = np.empty(((end - begin) * k, shared)), np.zeros((k, k))
            kernels.slopes(self.a, self.b, factor, np.empty((k, k)), begin, end, total, out, np.empty((4, k, k)))
            image = (out @ phi).reshape(end - begin, k, shared)
            return total - np.einsum("gas,gbs->ab", image, out.reshape(end - begin, k, shared))

        found: np.ndarray = sum(each(work, self._chunks()))
        return (found + found.T) / 2

    @property
    def target(self) -> np.ndarray:
        return self.b[:, :, -1]

    def times(self, x: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.b[:, :, :-1] @ x
        return found

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.einsum("gks,gk->s", self.b[:, :, :-1], rows)
        return found

    def quadratic(self, form: np.ndarray) -> np.ndarray:
        out = np.empty((self.groups, self.k, self.k))
        for begin, end in self._chunks():
            part = self.b[begin:end, :, :-1]
            out[begin:end] = (part @ form) @ part.transpose(0, 2, 1)
        return out

    def turned(self, turn: np.ndarray) -> Products:
        q = len(turn)
        return Dense(self.a, np.concatenate([self.b[:, :, :-q], self.b[:, :, -q:] @ turn], axis=2))


class Alike(Dense):
    """Groups of one coefficient of which many have the same ``A_g``, taken together.

    With a random intercept and no weights ``A_g`` is the number of rows of a group: there are as many different ones as
    there are sizes, and what a likelihood costs does not grow with the groups.

    Parameters
    ----------
    a, b : ndarray
        As of :class:`Dense`.
    values : ndarray, shape (different,)
        The different ``A_g``.
    counts : ndarray of int, shape (different,)
        Groups of each.
    sums : ndarray, shape (different, shared, shared)
        ``Σ B_gᵀ B_g`` over these groups.
    """

    def __init__(self, a: np.ndarray, b: np.ndarray, values: np.ndarray, counts: np.ndarray, sums: np.ndarray):
        super().__init__(a, b)
        self._values, self._counts, self._sums = values, counts, sums

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray) -> Alike | None:
        """None where groups are not alike, or have several coefficients."""
        groups, k, shared = b.shape
        if k != 1:
            return None
        values, which, counts = np.unique(a[:, 0, 0], return_inverse=True, return_counts=True)
        if 2 * len(values) * shared > groups:
            return None
        order = np.argsort(which, kind="stable")
        ends = np.cumsum([0, *counts])
        sums = np.empty((len(values), shared, shared))
        for i in range(len(values)):
            rows = b[order[ends[i] : ends[i + 1]], 0]
            sums[i] = rows.T @ rows
        return cls(a, b, values, counts, sums)

    def eliminated(self, factor: np.ndarray) -> tuple[float, np.ndarray]:
        square = float(factor[0, 0]) ** 2
        grown = square * self._values
        return float(self._counts @ np.log1p(grown)), np.tensordot(square / (1 + grown), self._sums, 1)

    def slope(self, factor: np.ndarray, phi: np.ndarray) -> np.ndarray:
        left = 1 / (1 + float(factor[0, 0]) ** 2 * self._values)
        traces = np.tensordot(self._sums, phi, 2)
        return np.array([[float(self._counts @ (self._values * left) - (left**2) @ traces)]])


@dataclass(frozen=True)
class Pattern:
    """Which of the shared columns of other terms the rows of each group touch.

    Attributes
    ----------
    starts : ndarray of int64, shape (groups + 1,)
    columns : ndarray of int32, shape (cells,)
        In increasing order for each group.
    """

    starts: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[tuple[np.ndarray, np.ndarray]], groups: int, shared: int) -> Pattern:
        """Of rows in blocks: the code of each row's group, and the places (m, …) it touches; negative ones are none."""
        cells = Distinct()
        for codes, places in rows:
            keys = codes[:, None].astype(np.int64) * shared + places
            cells.add(keys[places >= 0])
        which, columns = np.divmod(cells.values(), shared)
        starts = np.searchsorted(which, np.arange(groups + 1))
        return cls(starts.astype(np.int64), columns.astype(np.int32))


class Sparse(Products):
    """``B_g`` as cells, with the fixed effects and the target beside them.

    Parameters
    ----------
    a : ndarray, shape (groups, k, k)
    pattern : Pattern
    cells : ndarray, shape (cells, k)
    tail : ndarray, shape (groups, k, q)
        The last q columns.
    sparse : int
        Columns that cells stand in.
    """

    def __init__(self, a: np.ndarray, pattern: Pattern, cells: np.ndarray, tail: np.ndarray, sparse: int):
        self.a, self.pattern, self.cells, self.tail, self.sparse = a, pattern, cells, tail, sparse
        self.groups, self.k, q = tail.shape
        self.shared = sparse + q

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Groups in parts of about as many cells."""
        cuts = np.searchsorted(self.pattern.starts, np.linspace(0, len(self.cells), PARTS + 1)[1:-1])
        ends = np.unique(np.clip([0, *cuts, self.groups], 0, self.groups))
        yield from ((int(a), int(b)) for a, b in pairwise(ends))

    def eliminated(self, factor: np.ndarray) -> tuple[float, np.ndarray] | None:
        factor, k, q = np.ascontiguousarray(factor), self.k, self.tail.shape[2]
        cells, tail = np.empty_like(self.cells), np.empty_like(self.tail)
        starts, columns = self.pattern.starts, self.pattern.columns

        def whiten(begin: int, end: int) -> float:
            value: float = kernels.whiten_cells(
                self.a, starts, self.cells, self.tail, factor, cells, tail, np.empty((k, 2 * k)), begin, end
            )
            return value

        logdet = sum(each(whiten, self._parts()))
        if not np.isfinite(logdet):
            return None
        total = np.zeros((self.shared, self.shared))
        bounds = np.searchsorted(np.sort(columns), np.arange(self.sparse + 1))
        cuts = np.unique(np.searchsorted(bounds, np.linspace(0, len(columns), PARTS + 1)[:-1]))

        def add(first: int, last: int) -> None:
            kernels.add_cell_products(starts, columns, cells, tail, total, self.sparse, first, last)

        each(add, zip(map(int, cuts), map(int, [*cuts[1:], self.sparse]), strict=True))
        flat = tail.reshape(-1, q)
        total[self.sparse :, self.sparse :] = flat.T @ flat
        low = np.tril(total, -1)
        total += low.T
        return logdet, total

    def slope(self, factor: np.ndarray, phi: np.ndarray) -> np.ndarray:
        factor, k = np.ascontiguousarray(factor), self.k
        starts, columns = self.pattern.starts, self.pattern.columns

        def work(begin: int, end: int) -> np.ndarray:
            total = np.zeros((k, k))
            cells = np.empty((int(starts[end] - starts[begin]), k))
            tail = np.empty((end - begin, k, self.tail.shape[2]))
            kernels.slope_cells(
                self.a, starts, self.cells, self.tail, factor, cells, tail, total, begin, end, np.empty((5, k, k))
            )
            out = np.zeros((end - begin, k, k))
            kernels.cell_quadratics(starts[begin : end + 1], columns, cells, tail, phi, self.sparse, out)
            return total - out.sum(axis=0)

        found: np.ndarray = sum(each(work, self._parts()))
        return (found + found.T) / 2

    @property
    def target(self) -> np.ndarray:
        return self.tail[:, :, -1]

    def times(self, x: np.ndarray) -> np.ndarray:
        found = self.tail[:, :, :-1] @ x[self.sparse :]
        rows = np.repeat(np.arange(self.groups), np.diff(self.pattern.starts))
        for j in range(self.k):
            found[:, j] += np.bincount(rows, self.cells[:, j] * x[self.pattern.columns], self.groups)
        return np.asarray(found)

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        each_cell = np.repeat(rows, np.diff(self.pattern.starts), axis=0)
        own = np.bincount(self.pattern.columns, (self.cells * each_cell).sum(axis=1), self.sparse)
        return np.concatenate([own, np.einsum("gks,gk->s", self.tail[:, :, :-1], rows)])

    def quadratic(self, form: np.ndarray) -> np.ndarray:
        out = np.zeros((self.groups, self.k, self.k))
        starts, columns = self.pattern.starts, self.pattern.columns
        tail = np.ascontiguousarray(self.tail[:, :, :-1])

        def work(begin: int, end: int) -> None:
            cells = self.cells[starts[begin] : starts[end]]
            kernels.cell_quadratics(
                starts[begin : end + 1], columns, cells, tail[begin:end], form, self.sparse, out[begin:end]
            )

        each(work, self._parts())
        return out

    def turned(self, turn: np.ndarray) -> Products:
        q = len(turn)
        tail = np.concatenate([self.tail[:, :, :-q], self.tail[:, :, -q:] @ turn], axis=2)
        return Sparse(self.a, self.pattern, self.cells, tail, self.sparse)
