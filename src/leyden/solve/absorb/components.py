r"""What fixed effects of several factors have in common: connected parts, redundant levels, rows that are alone.

Levels of two factors are joined where they meet in a row. In every connected part a constant can be moved from one
factor to the other: of the effects of two fixed factors, as many are redundant as there are parts, exactly. For more
factors the rank is not that simple to count; like reghdfe and fixest this takes off, for every factor, the largest
number of parts that it has with one of those before it [1]_, which leaves at least the rank.

References
----------
.. [1] S. Correia, "A feasible estimator for linear models with multi-way fixed effects", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.solve.absorb import _absorb_kernels
from leyden.solve.absorb.projection import Projection
from leyden.solve.absorb.table import Table
from leyden.solve.absorb.threads import ranges

kernels: Any = _absorb_kernels


@dataclass(frozen=True)
class Parts:
    """Connected parts of the graph of two factors.

    Attributes
    ----------
    factors : tuple of two int
    labels : tuple of two int32 arrays
        Number of the part that each level is in; −1 for levels without rows.
    count : int
    """

    factors: tuple[int, int]
    labels: tuple[np.ndarray, np.ndarray]
    count: int


def connected_parts(table: Table, f: int, g: int) -> Parts:
    """Connected parts of two factors, by merging sets along the rows."""
    sets = np.arange(table.levels[f] + table.levels[g], dtype=np.int64)
    used = np.zeros(len(sets), np.bool_)
    kernels.unite(table.codes[f], table.codes[g], table.levels[f], table.weights, table.mask, sets, used)
    roots = np.flatnonzero(used & (sets == np.arange(len(sets))))
    number = np.full(len(sets), -1, np.int32)
    number[roots] = np.arange(len(roots), dtype=np.int32)
    labels = np.where(used, number[sets], -1).astype(np.int32)
    return Parts((f, g), (labels[: table.levels[f]], labels[table.levels[f] :]), len(roots))


def largest_parts(table: Table, penalties: Sequence[float], projection: Projection) -> Parts | None:
    """Connected parts of the two fixed factors of the most levels; None with less than two."""
    fixed = [f for f in projection.order if penalties[f] == 0]
    if len(fixed) < 2:
        return None
    f, g = fixed[:2]
    if len(table.codes) > 2:
        return connected_parts(table, f, g)
    forest, cells = projection.spanning_forest(), projection.elimination.cells
    label = np.where(projection.totals[g] > 0, forest.label[: table.levels[g]], -1).astype(np.int32)
    first = np.full(cells.levels, -1, np.int32)
    some = np.diff(cells.indptr) > 0
    first[some] = label[cells.index[cells.indptr[:-1][some]]]
    found = np.unique(label[label >= 0], return_inverse=True)[1].astype(np.int32)
    renumbered = np.full(int(label.max(initial=0)) + 2, -1, np.int32)
    renumbered[label[label >= 0]] = found
    return Parts((f, g), (renumbered[first], renumbered[label]), int(found.max(initial=-1)) + 1)


def absorbed_parameters(
    table: Table, penalties: Sequence[float], levels: Sequence[int], parts: Parts | None
) -> tuple[int, bool]:
    """Levels of fixed factors less what is redundant among them, and whether that is the rank exactly."""
    fixed = [f for f, penalty in enumerate(penalties) if penalty == 0]
    total = sum(levels[f] for f in fixed)
    if parts is None:
        return total, True
    if len(fixed) == 2:
        return total - parts.count, True
    known = {frozenset(parts.factors): parts.count}
    for k, g in enumerate(fixed[1:], 1):
        total -= max(known.get(frozenset((f, g))) or connected_parts(table, f, g).count for f in fixed[:k])
    return total, False


def normalise(effects: list[np.ndarray], parts: Parts, penalties: Sequence[float], totals: list[np.ndarray]) -> None:
    """Move constants between fixed factors, in place, until all but the first of ``parts`` have mean zero.

    The mean is over levels with rows: of each connected part for the second factor of ``parts``, of all for others.
    """
    f, g = parts.factors
    for other, penalty in enumerate(penalties):
        if penalty == 0 and other not in (f, g):
            used = totals[other] > 0
            shift = effects[other][used].mean()
            effects[other][used] -= shift
            effects[f][totals[f] > 0] += shift
    for_f, for_g = parts.labels
    used = for_g >= 0
    sums = np.bincount(for_g[used], effects[g][used], parts.count)
    means = np.append(sums / np.bincount(for_g[used], minlength=parts.count), 0.0)
    effects[g] -= means[for_g]
    effects[f] += means[for_f]


def singletons(projection: Projection) -> int:
    """Rows that are alone in their level of a fixed factor."""
    table, threads = projection.table, projection.threads
    parts = ranges(table.rows, threads.count)
    alone = []
    for f, codes in enumerate(table.codes):
        if projection.penalties[f] == 0:
            single = projection.row_counts(f) == 1
            if single.any():
                alone.append((codes, single))
    if not alone:
        return 0
    found = np.zeros(table.rows, np.bool_)
    for codes, single in alone:
        threads.each(kernels.mark, [(codes, single, table.weights, table.mask, a, b, found) for a, b in parts])
    return int(np.count_nonzero(found))
