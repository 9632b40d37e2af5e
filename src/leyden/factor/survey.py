"""A first look at ratings: how many each item has, and whether they can be factored at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.engine.reduction import Reduction
from leyden.engine.sweep import Engine
from leyden.errors import DataError
from leyden.factor.objective import Objective
from leyden.rows.base import Block, Rows
from leyden.rows.ingest import open_ratings
from leyden.rows.sparse import CSRRows, is_sparse


def as_ratings(ratings: Any, memory: str | int | None = None) -> Rows:
    """Sparse rows as they are, a sparse matrix with its columns in their order, or what open_ratings makes of it."""
    if isinstance(ratings, Rows) and ratings.is_sparse:
        return ratings
    if is_sparse(ratings):
        return CSRRows(ratings)
    return open_ratings(ratings, memory=memory)


@dataclass(frozen=True)
class Survey:
    """What is known of ratings.

    Attributes
    ----------
    ratings : int
    most : int
        Ratings of the user who has the most.
    item_counts : int64, shape (items,)
    mean, size : float
        Mean of all values, and the root of the mean of their squares.
    shift : float
        Constant of the objective; see :meth:`leyden.factor.objective.Objective.shift`.
    """

    ratings: int
    most: int
    item_counts: np.ndarray
    mean: float
    size: float
    shift: float


@dataclass
class SurveyState:
    """Sums over users."""

    counts: np.ndarray
    total: float = 0.0
    squares: float = 0.0
    shift: float = 0.0
    ratings: int = 0
    most: int = 0
    bad: int = -1
    value: float = 0.0


class _Survey(Reduction[SurveyState, SurveyState]):
    def __init__(self, objective: Objective, items: int):
        self.objective, self.items = objective, items

    @property
    def state_nbytes(self) -> int:
        return 8 * self.items + 64

    @property
    def scratch_nbytes(self) -> int:
        return 8 * self.items + 2**22

    def start(self) -> SurveyState:
        return SurveyState(np.zeros(self.items, np.int64))

    def update(self, state: SurveyState, block: Block) -> SurveyState:
        data: Any = block.data
        values = data.data
        with np.errstate(over="ignore"):
            wrong = ~np.isfinite(values.astype(np.float32, copy=False))
        constant, slope = self.objective.model[:2]
        if slope:
            with np.errstate(invalid="ignore"):
                wrong |= constant + slope * values.astype(np.float64) <= 0
        if state.bad < 0 and wrong.any():
            entry = int(np.flatnonzero(wrong)[0])
            state.bad = block.start + int(np.searchsorted(data.indptr, entry, side="right")) - 1
            state.value = float(values[entry])
            return state
        state.counts += np.bincount(data.indices, minlength=self.items)
        state.total += float(values.sum(dtype=np.float64))
        state.squares += float(np.square(values, dtype=np.float64).sum())
        if self.objective.implicit and state.bad < 0:
            state.shift += self.objective.shift(values)
        state.ratings += len(values)
        state.most = max(state.most, int(np.diff(data.indptr).max(initial=0)))
        return state

    def merge(self, a: SurveyState, b: SurveyState) -> SurveyState:
        a.counts += b.counts
        a.total += b.total
        a.squares += b.squares
        a.shift += b.shift
        a.ratings += b.ratings
        a.most = max(a.most, b.most)
        if a.bad < 0:
            a.bad, a.value = b.bad, b.value
        return a

    def finish(self, state: SurveyState) -> SurveyState:
        return state


def survey(engine: Engine, rows: Rows, objective: Objective) -> Survey:
    """Look at all ratings, in one pass.

    Raises
    ------
    DataError
        Of a value that is not finite, an implicit one that is not positive, or no ratings at all.
    """
    found: SurveyState
    (found,) = engine.sweep(rows, [_Survey(objective, rows.shape[1])], "ratings counted")
    if found.bad >= 0:
        where = rows.locate(found.bad)
        if math.isfinite(found.value) and abs(found.value) > float(np.finfo(np.float32).max):
            raise DataError(f"a rating of {found.value:g} is beyond float32", where=where, hint="Scale the ratings.")
        if math.isfinite(found.value):
            raise DataError(
                f"an implicit value of {found.value:g}: it would weigh nothing, or less",
                where=where,
                hint="Leave such entries out, or give background= to weigh all entries alike.",
            )
        name = "NaN" if math.isnan(found.value) else "infinity"
        raise DataError(f"a rating is {name}", where=where, hint="Remove such ratings first.")
    if found.ratings == 0:
        raise DataError("there are no ratings", where=rows.source)
    mean, square = found.total / found.ratings, found.squares / found.ratings
    return Survey(found.ratings, found.most, found.counts, mean, math.sqrt(square), found.shift)
