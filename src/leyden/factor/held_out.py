"""Ratings that were held out: what factors foretell of them, after every epoch and in the end.

Item factors are judged as they will be used: users are solved from the ratings they are known by, in float64, and what
was held out is compared with their scores (:mod:`leyden.factor.metrics`). After an epoch that is done for a sample of
the users, the same ones every time, so that epochs can be compared; ranks are exact, over all items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from leyden.engine.budget import thread_count
from leyden.errors import DataError
from leyden.factor.metrics import CUTOFFS, RankingMetrics, SquaredErrors, ranking_metrics, squared_errors
from leyden.factor.ranking import held_out_ranks
from leyden.factor.survey import as_ratings
from leyden.rows import Rows
from leyden.rows.ratings import Ratings
from leyden.rows.sparse import CSRRows, csr_block, csr_rows

if TYPE_CHECKING:
    from leyden.factor.als_result import Model

#: Users that are looked at after an epoch, at most: the standard error of a mean over them is below a percent.
SAMPLED_USERS = 10_000

#: Names in a history of the metrics of a ranking.
NAMES = {"recall": "recall", "ndcg": "ndcg", "hit_rate": "hr"}

#: Metrics that are shown of an epoch, and what people call them; the first that there is is plotted.
SHOWN = {"rmse": "RMSE", "ndcg@100": "NDCG@100", "recall@20": "recall@20"}

Metrics = SquaredErrors | RankingMetrics


def held_out_of(rows: Rows, held_out: Any, memory: str | int | None = None) -> Rows | None:
    """Held-out ratings as rows of the same users and items.

    Parameters
    ----------
    rows : Rows
        The ratings that are factored.
    held_out : Ratings, sparse matrix, path, or False; optional
        Those that were set apart when the ratings were opened, if any, by default; False for none. Ratings with ids are
        found by their ids, and those of unknown users and items left out.
    """
    if held_out is False:
        return None
    if held_out is None:
        own = getattr(rows, "held_out", None)
        return own if own is not None and own.count else None
    held = as_ratings(held_out, memory)
    if held is getattr(rows, "held_out", None):
        return held
    if isinstance(held, Ratings) and isinstance(rows, Ratings):
        return _by_ids(held, rows)
    if held.shape != rows.shape:
        raise DataError("what is held out is of other users or items", where=held.source)
    return held


def _by_ids(held: Ratings, rows: Ratings) -> Rows:
    """Ratings numbered as ``rows`` are."""
    users, items = (
        known.index(ids.take(np.arange(len(ids))), unknown=-1)
        for known, ids in ((rows.users, held.users), (rows.items, held.items))
    )
    who, what, values = [], [], []
    for block in held.blocks():
        data: Any = block.data
        who.append(np.repeat(users[block.start : block.start + block.rows], np.diff(data.indptr)))
        what.append(items[data.indices])
        values.append(np.array(data.data))
    user, item, value = (np.concatenate(parts) for parts in (who, what, values))
    known = (user >= 0) & (item >= 0)
    if not known.any():
        raise DataError("none of the held-out ratings is of a user and an item that are known", where=held.source)
    from scipy.sparse import coo_array

    found = coo_array((value[known], (user[known], item[known])), shape=rows.shape)
    return CSRRows(found.tocsr(), source=held.source)


def ratings_of(rows: Rows, users: np.ndarray) -> Any:
    """The ratings of these users, by number, as a CSR matrix."""
    if len(users) and (np.diff(users) == 1).all():
        return rows.read(int(users[0]), int(users[-1]) + 1, rows.buffer(len(users))).data
    parts: list[Any] = [rows.read(int(i), int(i) + 1, rows.buffer(1)).data for i in users]
    indptr = np.concatenate([[0], np.cumsum([part.nnz for part in parts])]).astype(np.int64)
    indices = np.concatenate([np.array(part.indices) for part in parts]) if parts else np.zeros(0, np.int32)
    data = np.concatenate([np.array(part.data) for part in parts]) if parts else np.zeros(0, np.float32)
    return csr_block(data, indices, indptr, (len(users), rows.shape[1]))


def foretold(
    model: Model, u: np.ndarray, seen: Any, held: Any, cutoffs: tuple[int, ...] = CUTOFFS, threads: int | None = None
) -> Metrics:
    """What users say of the ratings of theirs that were held out.

    Parameters
    ----------
    model : Model
    u : ndarray, shape (users, rank [+ 1])
        Their factors.
    seen, held : CSR, shape (users, items)
        What they are known by, and what was held out.
    cutoffs : tuple of int
        Of ranking metrics.
    threads : int, optional
    """
    factors = u[:, : model.rank]
    if model.objective.implicit:
        ranks = held_out_ranks(factors, model.factors, csr_rows(held, 0, len(u)), exclude=seen, threads=threads)
        return ranking_metrics(ranks, cutoffs)
    offset = (u[:, model.rank] if model.biases else np.zeros(len(u))) + model.objective.mean
    return squared_errors(
        factors, model.factors, held, user_offset=offset, item_offset=model.item_bias, threads=threads
    )


class HeldOut:
    """A sample of users, what they are known by, and what was held out, in memory.

    Parameters
    ----------
    rows, held : Rows
        Of the same users and items.
    seed : int
        Of the sample: where users are more than :data:`SAMPLED_USERS`, as many are drawn.
    threads : int, optional

    Raises
    ------
    DataError
        If nothing of these users is held out.
    """

    def __init__(self, rows: Rows, held: Rows, seed: int, threads: int | None = None):
        users = np.arange(rows.shape[0])
        if len(users) > SAMPLED_USERS:
            random = np.random.Generator(np.random.Philox(key=[seed, rows.shape[0]]))
            users = np.sort(random.choice(rows.shape[0], SAMPLED_USERS, replace=False))
        apart = ratings_of(held, users)
        there = np.diff(apart.indptr) > 0
        if not there.any():
            raise DataError("nothing is held out", where=held.source)
        self._held, self._seen = apart[there], ratings_of(rows, users[there])
        self._threads = threads or thread_count()

    def metrics(self, model: Model) -> Metrics:
        """How well these factors foretell what was held out."""
        u = model.solve(self._seen, self._threads)
        return foretold(model, u, self._seen, self._held, threads=self._threads)


def figures(metrics: Metrics) -> dict[str, float]:
    """Metrics by the names the field has for them, each with the ends of its 95 % confidence interval."""
    if isinstance(metrics, SquaredErrors):
        return _with_interval("rmse", metrics.rmse, metrics.interval)
    found: dict[str, float] = {}
    for name, short in NAMES.items():
        for k, mean in getattr(metrics, name).items():
            found |= _with_interval(f"{short}@{k}", mean.mean, mean.interval)
    return found | _with_interval("mrr", metrics.reciprocal_rank.mean, metrics.reciprocal_rank.interval)


def _with_interval(name: str, value: float, interval: tuple[float, float]) -> dict[str, float]:
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}


#: How far two evaluations of the same factors may be apart, which round differently.
AGREE = 1e-6


def disagreements(claimed: Metrics, found: Metrics) -> list[str]:
    """What somebody claims of held-out ratings and the data denies, in sentences."""
    said, true = figures(claimed), figures(found)
    if said.keys() != true.keys():
        return ["what is claimed of held-out ratings is not what was measured"]
    return [
        f"{name}: the solution claims {said[name]:.6g}, the held-out ratings say {value:.6g}"
        for name, value in true.items()
        if not abs(said[name] - value) <= AGREE * (1 + abs(value))
    ]


def restored(data: dict[str, Any] | None) -> Metrics | None:
    """Metrics from their plain values."""
    if data is None:
        return None
    return (RankingMetrics if "recall" in data else SquaredErrors).from_json(data)
