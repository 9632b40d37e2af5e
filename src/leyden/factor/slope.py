r"""How steep the objective is in the items, at the users that are best for them: what an epoch begins with.

With ``h_ij = w_ij (t_ij − u_i·v_j)`` the gradient of ``φ(V) = min_U F(U, V)`` is

.. math::

    ∇_j = ν_j v_j + α_0 U^T U v_j − Σ_i h_{ij} u_i,

and ``(Σ_j ‖∇_j‖² / ν_j)^½``, relative to the norm of the factors, is the stationarity that a certificate speaks of. One
walk through the ratings by item finds it, for a small part of what solving them takes: two products for each factor of
a rating, instead of as many as there are factors.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from leyden import aligned
from leyden.factor import _slope_kernels
from leyden.factor.half_step import Entries
from leyden.factor.objective import Objective

kernels: Any = _slope_kernels

#: Parts that the items are cut into.
PARTS = 32


def squared_slope(
    items: Entries,
    objective: Objective,
    u: np.ndarray,
    v: np.ndarray,
    penalties: np.ndarray,
    *,
    bias: int = -1,
    nonnegative: bool = False,
    threads: int = 1,
) -> float:
    """``Σ_j ‖∇_j‖² / ν_j``, each term in the precision of the factors; the same bits for any number of threads.

    Parameters
    ----------
    items : Entries
        Ratings by item.
    objective : Objective
    u, v : ndarray, shapes (users, width) and (items, width)
        Padded, in one basis.
    penalties : ndarray, shape (most ratings + 1,)
        ν by the number of ratings.
    bias : int
        The column of the biases; −1 without.
    nonnegative : bool
        Whether factors are zero or more: what would lead below does not count.
    threads : int
    """
    alpha, width = objective.unobserved, v.shape[1]
    shared = alpha * (u.T @ u).astype(np.float64) if alpha else np.zeros((0, 0))
    out = np.zeros(len(v))
    work = np.cumsum(items.counts + 8.0)
    cuts = np.searchsorted(work, np.linspace(0, work[-1], PARTS + 1)[1:-1])
    spans = list(itertools.pairwise(np.unique(np.concatenate([[0], cuts, [len(v)]])).tolist()))

    def part(span: tuple[int, int]) -> None:
        kernels.slopes(
            *span, items.indptr, items.indices, items.values, objective.model, u, v, bias, shared, penalties,
            nonnegative, aligned.zeros((1, width), u.dtype), np.zeros(width), out,
        )  # fmt: skip

    if threads == 1:
        list(map(part, spans))
    else:
        with ThreadPoolExecutor(threads, "leyden") as pool:
            list(pool.map(part, spans))
    return float(out.sum())
