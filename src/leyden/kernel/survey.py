"""One pass before a kernel machine is fitted: moments of the columns, the classes, and a sample of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from leyden.engine.reduction import Reduction
from leyden.errors import DataError
from leyden.kernel.inputs import Standard
from leyden.kernel.split import Split, chosen, hash_of
from leyden.rows.base import Block, Rows, find_nonfinite

#: Labels beyond which a target is no class.
MOST_CLASSES = 1000

#: Rows that are looked at at once for what is not finite.
BLOCK_ROWS = 4096


@dataclass
class Survey:
    """What was found.

    Attributes
    ----------
    rows, weight : float
    mean, scatter : float64, shape (d + outputs,)
        Of the columns, and then of the targets: means, and sums of squared distances from them.
    labels, counts : float64, shape (classes,)
        Different values of the target, when they are counted, and how many rows have each.
    number : int64, shape (s,)
        Of the sampled rows, in order.
    points : float64, shape (s, d)
    target : float64, shape (s, outputs)
    sampled : float64, shape (s,)
        Their weights.
    """

    mean: np.ndarray
    scatter: np.ndarray
    points: np.ndarray
    target: np.ndarray
    sampled: np.ndarray
    number: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rows: float = 0.0
    weight: float = 0.0

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviations of columns and targets."""
        return np.sqrt(self.scatter / max(self.weight, 1e-300))

    def check(self, rows: Rows) -> None:
        """Refuse numbers that are not finite, or whose variance is not."""
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scatter).all()):
            raise find_nonfinite(rows, BLOCK_ROWS) or DataError(
                "the columns are so large that their variance is not finite", where=rows.source, hint="Rescale them."
            )

    def standard(self, d: int, *, centre: bool = True) -> Standard:
        """The scale on which columns have mean zero and variance one; one that is constant stays as it is."""
        mean, deviation = self.mean[:d], self.deviation[:d]
        varies = deviation > 1e-12 * np.abs(mean)
        scale = 1 / np.where(varies, deviation, 1.0)
        return Standard(mean if centre else np.zeros(d), scale)


class SurveyRows(Reduction[Survey, Survey]):
    """Moments, labels, and each row with the same probability, decided by its number and the seed.

    Parameters
    ----------
    d, outputs : int
    rows, sample : int
        How many rows there are, and how many of them to keep, about.
    seed : int
    classes : bool
        Whether labels are counted.
    share : float
        Of the rows, held out: they are not among the sampled, and count in no moment.
    source : str
    """

    def __init__(
        self, d: int, outputs: int, rows: int, sample: int, seed: int, *, classes: bool, share: float = 0.0,
        source: str = "",
    ):  # fmt: skip
        self.d, self.outputs, self.classes, self.source, self.share = d, outputs, classes, source, share
        # A row is looked at only if its hash could be among the least: the sample is a little short once in 10⁶ times.
        self.sample = min(rows, sample)
        self.least = min(1.0, (self.sample + 5 * math.sqrt(self.sample)) / max(rows * (1 - share), 1))
        self.seed = seed

    def start(self) -> Survey:
        wide = self.d + self.outputs
        return Survey(
            np.zeros(wide), np.zeros(wide), np.zeros((0, self.d)), np.zeros((0, self.outputs)), np.zeros(0)
        )  # fmt: skip

    def update(self, state: Survey, block: Block) -> Survey:
        state.rows += block.rows
        sampled = chosen(block.start, block.rows, self.seed, self.least)
        numbers = np.arange(block.start, block.start + block.rows)
        split = Split(self.share, self.seed)
        fitted = split.rows_fitted(block)
        if self.classes and block.rows:
            labels, counts = np.unique(block.target[:, 0], return_counts=True)  # type: ignore[index]  # there is a target
            self._count(state, labels, counts.astype(float))
        block, sampled, numbers = split.fitted(block), sampled[fitted], numbers[fitted]
        m = block.rows
        weight = np.ones(m) if block.weight is None else block.weight
        y = np.zeros((m, 0)) if block.target is None else np.asarray(block.target, np.float64)
        total = float(weight.sum())
        if total > 0:
            if isinstance(block.data, np.ndarray):
                x = np.asarray(block.data, np.float64)
                mean = weight @ x / total
                scatter = weight @ (x - mean) ** 2
            else:
                mean = block.data.T @ weight / total
                scatter = np.maximum(block.data.multiply(block.data).T @ weight - total * mean**2, 0)
            centre = weight @ y / total
            _add(state, np.append(mean, centre), np.append(scatter, weight @ (y - centre) ** 2), total)
        kept = np.flatnonzero(sampled)
        part = block.data[kept]
        self._sample(
            state, numbers[kept], part if isinstance(part, np.ndarray) else part.toarray(), y[kept], weight[kept]
        )
        return state

    def merge(self, a: Survey, b: Survey) -> Survey:
        _add(a, b.mean, b.scatter, b.weight)
        a.rows += b.rows
        self._sample(a, b.number, b.points, b.target, b.sampled)
        if self.classes:
            self._count(a, b.labels, b.counts)
        return a

    def _sample(
        self, state: Survey, number: np.ndarray, points: np.ndarray, target: np.ndarray, weight: np.ndarray
    ) -> None:
        """Add to the sampled rows, in order, and keep no more than were asked for: those of the least hashes."""
        together, place = np.unique(np.concatenate([state.number, number]), return_index=True)
        if len(together) > self.sample:
            least = np.sort(np.argsort(hash_of(together, self.seed), kind="stable")[: self.sample])
            together, place = together[least], place[least]
        state.number = together
        state.points = np.concatenate([state.points, points])[place]
        state.target = np.concatenate([state.target, target])[place]
        state.sampled = np.concatenate([state.sampled, weight])[place]

    def _count(self, state: Survey, labels: np.ndarray, counts: np.ndarray) -> None:
        together = np.concatenate([state.labels, labels])
        state.labels, place = np.unique(together, return_inverse=True)
        state.counts = np.bincount(place, np.concatenate([state.counts, counts]))
        if len(state.labels) > MOST_CLASSES:
            raise DataError(
                f"the target has more than {MOST_CLASSES:,} different values: it is no class",
                where=self.source,
                hint="Fit a regression, or number the classes.",
            )

    def finish(self, state: Survey) -> Survey:
        return state

    @property
    def state_nbytes(self) -> int:
        labels = 2 * MOST_CLASSES if self.classes else 0
        return 8 * (self.sample * (self.d + self.outputs + 2) + 2 * (self.d + self.outputs) + labels)

    @property
    def scratch_nbytes(self) -> int:
        return self.state_nbytes


def _add(state: Survey, mean: np.ndarray, scatter: np.ndarray, weight: float) -> None:
    """Moments of two parts as of one (Chan, Golub and LeVeque 1983)."""
    if weight <= 0:
        return
    total = state.weight + weight
    change = mean - state.mean
    state.scatter = state.scatter + scatter + change**2 * (state.weight * weight / total)
    state.mean = state.mean + change * (weight / total)
    state.weight = total
