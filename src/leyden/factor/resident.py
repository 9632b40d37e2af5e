"""Alternating least squares on ratings that fit in memory, grouped by user and by item."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import aligned
from leyden.engine.local import single_threaded_blas
from leyden.factor.half_step import Entries, HalfStep, kernels, padded
from leyden.factor.objective import Objective
from leyden.factor.slope import squared_slope

#: Rows of factors that are multiplied at a time: few enough to stay in a second-level cache.
CHUNK = 4096


@dataclass
class Epoch:
    """What an epoch found.

    Attributes
    ----------
    before : float
        The objective with the best users for the item factors the epoch began with.
    after : float
        With the items that are best for those users.
    squared_slope : float
        ``Σ_j ‖∇_j‖² / ν_j`` of the objective's gradient in the items, at those the epoch began with; NaN
        where nobody asked, and where users are improved in subspaces, and not at their best.
    squared_norm : float
        ``Σ λ_i ‖u_i‖² + Σ ν_j ‖v_j‖²`` of those users and items.
    """

    before: float
    after: float
    squared_slope: float
    squared_norm: float


class Resident:
    """The map of item factors to better ones, by two exact half-steps.

    Parameters
    ----------
    users : Entries
        Ratings by user.
    items : int
    objective : Objective
    rank : int
    dtype : float32 or float64
    threads : int
    biases : bool
        Whether column ``rank`` of the factors is a bias.
    nonnegative : bool
        Whether factors are to be zero or more.
    subspace : int
        Factors at a time that rows of many ratings are improved in; 0 for exact half-steps. See :class:`HalfStep`.
    """

    def __init__(
        self,
        users: Entries,
        items: int,
        objective: Objective,
        rank: int,
        dtype: np.dtype,
        threads: int,
        biases: bool = False,
        nonnegative: bool = False,
        subspace: int = 0,
    ):
        self.users, self.items, self.objective, self.rank = users, users.transposed(items), objective, rank
        self.shape = len(users.order), items
        self.bias = rank if biases else -1
        self.dtype, self.width = np.dtype(dtype), padded(rank + biases)
        self.solve = HalfStep(self.width, self.dtype, threads, rank if nonnegative else 0, subspace, rank + biases)
        n, m = self.shape
        self.user_penalties = objective.penalties(int(users.counts.max(initial=0)), m)
        self.item_penalties = objective.penalties(int(self.items.counts.max(initial=0)), n)
        self.constant = objective.shift(users.values)
        self.u = aligned.zeros((n, self.width), self.dtype)
        self.threads = threads
        #: What the users were rotated by; nothing before there are any.
        self.basis: np.ndarray | None = None

    def _half(
        self, entries: Entries, f: np.ndarray, penalties: np.ndarray, out: np.ndarray, basis: np.ndarray | None
    ) -> tuple[float, np.ndarray]:
        """Solve the rows of ``entries`` against ``f`` into ``out``: the sum of the least values, and a rotation.

        In the basis in which FᵀF is diagonal the form that all rows share is diagonal too, and a row of few entries
        stays a problem of few unknowns. ``f`` is rotated into it, and ``out`` is in it; it comes in rotated by
        ``basis``, or, without one, as anything.
        """
        theta, q = np.zeros(self.width), np.eye(self.width)
        if self.solve.nonnegative:
            shared = self.objective.unobserved * (f.T @ f)
            return self.solve(entries, self.objective.model, f, shared, penalties, out), q
        if self.objective.unobserved:
            d = self.rank  # what is beyond stays zero
            values, q[:d, :d] = np.linalg.eigh(self._gram(f)[:d, :d])
            theta[:d] = self.objective.unobserved * np.maximum(values, 0.0)
            self._rotate(f, q)
            if self.solve.subspace and basis is not None:
                self._rotate_many(entries, out, basis.T @ q)
        shift = None
        if self.bias >= 0:
            # The bias of the other side is known; one's own has the feature one.
            shift = f[:, self.bias].copy()
            f[:, self.bias] = 1.0
        least = self.solve(entries, self.objective.model, f, theta, penalties, out, shift, exact=basis is None)
        if shift is not None:
            f[:, self.bias] = shift
        return least, q

    def epoch(self, v: np.ndarray, sloped: bool = True) -> Epoch:
        """Improve ``v`` (items, width) in place, and find the slope it had, if that is asked for."""
        users, items = self.users, self.items
        penalty = _penalty(v, self.item_penalties, items)
        before, q = self._half(users, v, self.user_penalties, self.u, self.basis)
        norm, before = 2 * penalty, before + penalty + self.constant
        penalty = _penalty(self.u, self.user_penalties, users)
        slope = self._squared_slope(v) if sloped else math.nan
        after, p = self._half(items, self.u, self.item_penalties, v, np.eye(self.width))
        if self.objective.unobserved and not self.solve.nonnegative:
            self._rotate(v, (q @ p).T)
        self.basis = q @ p
        return Epoch(before, after + penalty + self.constant, slope, norm + 2 * penalty)

    def _squared_slope(self, v: np.ndarray) -> float:
        """Of the objective in the items, where users are at their best; not known where they are only improved."""
        if self.solve.subspace and self.basis is not None:
            return math.nan
        return squared_slope(
            self.items, self.objective, self.u, v, self.item_penalties, bias=self.bias,
            nonnegative=bool(self.solve.nonnegative), threads=self.threads,
        )  # fmt: skip

    def _chunks(self, work: Callable[[slice], Any], rows: int) -> list[Any]:
        """``work`` of all rows, CHUNK at a time."""
        chunks = [slice(i, i + CHUNK) for i in range(0, rows, CHUNK)]
        with single_threaded_blas(), ThreadPoolExecutor(self.threads, "leyden") as pool:
            return list(pool.map(work, chunks))

    def _gram(self, f: np.ndarray) -> np.ndarray:
        """``FᵀF`` in float64, of chunks in the precision of F."""
        total = np.zeros((self.width, self.width))
        for part in self._chunks(lambda rows: f[rows].T @ f[rows], len(f)):
            total += part
        return total

    def _rotate(self, f: np.ndarray, q: np.ndarray) -> None:
        """``F ← F Q``."""
        q = q.astype(self.dtype)

        def rotate(rows: slice) -> None:
            f[rows] = f[rows] @ q

        self._chunks(rotate, len(f))

    def _rotate_many(self, entries: Entries, out: np.ndarray, q: np.ndarray) -> None:
        """Rotate the rows of ``out`` that are not solved from nothing."""
        many = kernels.subspace_entries(self.solve.subspace, self.width)
        rows = entries.order[np.searchsorted(entries.counts[entries.order], many, side="right") :]
        q = q.astype(self.dtype)

        def rotate(some: slice) -> None:
            out[rows[some]] = out[rows[some]] @ q

        self._chunks(rotate, len(rows))


def _penalty(f: np.ndarray, penalties: np.ndarray, entries: Entries) -> float:
    """``½ Σ λ_i ‖f_i‖²``."""
    if (penalties == penalties[0]).all():
        return 0.5 * float(penalties[0]) * float(np.vdot(f, f))
    return 0.5 * float(penalties[entries.counts] @ np.einsum("ij,ij->i", f, f))
