"""Alternating least squares on ratings that fit in memory, grouped by user and by item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leyden import aligned
from leyden.factor.half_step import Entries, HalfStep, padded
from leyden.factor.objective import Objective


@dataclass
class Epoch:
    """What an epoch found.

    Attributes
    ----------
    before : float
        The objective with the best users for the item factors the epoch began with.
    after : float
        With the items that are best for those users.
    """

    before: float
    after: float


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
    ):
        self.users, self.items, self.objective, self.rank = users, users.transposed(items), objective, rank
        self.shape = len(users.order), items
        self.bias = rank if biases else -1
        self.dtype, self.width = np.dtype(dtype), padded(rank + biases)
        self.solve = HalfStep(self.width, self.dtype, threads, rank if nonnegative else 0)
        n, m = self.shape
        self.user_penalties = objective.penalties(int(users.counts.max(initial=0)), m)
        self.item_penalties = objective.penalties(int(self.items.counts.max(initial=0)), n)
        self.constant = objective.shift(users.values)
        self.u = aligned.zeros((n, self.width), self.dtype)
        self._spare = aligned.zeros((max(n, m), self.width), self.dtype)

    def _half(
        self, entries: Entries, f: np.ndarray, penalties: np.ndarray, out: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Solve the rows of ``entries`` against ``f`` into ``out``: the sum of the least values, and a rotation.

        In the basis in which FᵀF is diagonal the form that all rows share is diagonal too, and a row of few entries
        stays a problem of few unknowns. ``f`` is rotated into it, and ``out`` is in it.
        """
        theta, q = np.zeros(self.width), np.eye(self.width)
        if self.solve.nonnegative:
            shared = self.objective.unobserved * (f.T @ f)
            return self.solve(entries, self.objective.model, f, shared, penalties, out), q
        if self.objective.unobserved:
            values, q = np.linalg.eigh((f.T @ f).astype(np.float64))
            theta = self.objective.unobserved * np.maximum(values, 0.0)
            f[:] = np.matmul(f, q.astype(self.dtype), out=self._spare[: len(f)])
        shift = None
        if self.bias >= 0:
            # The bias of the other side is known; one's own has the feature one.
            shift, features = f[:, self.bias].copy(), self._spare[: len(f)]
            features[:] = f
            f = features
            f[:, self.bias] = 1.0
        return self.solve(entries, self.objective.model, f, theta, penalties, out, shift), q

    def epoch(self, v: np.ndarray) -> Epoch:
        """Improve ``v`` (items, width) in place."""
        users, items = self.users, self.items
        penalty = _penalty(v, self.item_penalties, items)
        before, q = self._half(users, v, self.user_penalties, self.u)
        before += penalty + self.constant
        penalty = _penalty(self.u, self.user_penalties, users)
        after, p = self._half(items, self.u, self.item_penalties, v)
        if self.objective.unobserved and not self.solve.nonnegative:
            back = (q @ p).T.astype(self.dtype)
            v[:] = np.matmul(v, back, out=self._spare[: len(v)])
        return Epoch(before, after + penalty + self.constant)


def _penalty(f: np.ndarray, penalties: np.ndarray, entries: Entries) -> float:
    """``½ Σ λ_i ‖f_i‖²``."""
    if (penalties == penalties[0]).all():
        return 0.5 * float(penalties[0]) * float(np.vdot(f, f))
    return 0.5 * float(penalties[entries.counts] @ np.einsum("ij,ij->i", f, f))
