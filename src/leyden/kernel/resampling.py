r"""How far predictions are from those of infinitely many features, and how many would bring them nearer.

A function of D random features differs from its mean over their draw by an error that falls about as ``D^-½``, and
that parts of the features show without another draw (Lopes, Erichson and Mahoney 2020, who resample the rows of
sketches). Here a machine of each half, A and B, of ``D₀ ≤ D`` features is fitted to a sample of the rows: the two are
independent, so that ``½ E (f_A − f_B)²`` is the variance of one, and ``D₀/2D`` times that of the whole machine.

The noise of the targets must not count as an error of the features. Both halves are therefore fitted twice, to two
separate parts of the rows, and ``(f_A − f_B)(f'_A − f'_B)`` is averaged over a third one: what A and B learned by heart
is independent there. Orthogonal frequencies are split in their blocks, where they are enough, for within a block halves
are not independent; then, and of quasi-random ones, the error is overstated. The bias of finitely many features, which
falls as ``1/D``, is not seen. It is an estimate, and where the rate is not yet reached within a factor of two or so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg as sl

from leyden.certificate import Bound
from leyden.engine.reduction import Scratch
from leyden.kernel.features import FeatureMap
from leyden.kernel.fourier import Fourier
from leyden.kernel.maps import restore
from leyden.kernel.preconditioner import cholesky
from leyden.kernel.products import gram_of
from leyden.kernel.sorf import Sorf
from leyden.kernel.split import hash_of

#: Features that halves are made of at most and at least, rows a feature, and rows that the halves are compared on.
MOST, LEAST, ROWS, COMPARED = 500, 16, 16, 1000
#: Divisions into halves, and blocks of orthogonal frequencies from which on they are not split.
DIVISIONS, BLOCKS = 8, 4
#: Rows whose features are made at once.
FILLED = 1024


@dataclass(frozen=True)
class Sample:
    """Sampled rows: numbers (s,), standardised points (s, d), Y without its offset (s, outputs), weights (s,)."""

    number: np.ndarray
    points: np.ndarray
    y: np.ndarray
    weight: np.ndarray

    def least(self, count: int, seed: int) -> Sample:
        """So many of them, in random order: the same ones whatever the sample that they are taken from."""
        kept = np.argsort(hash_of(self.number, seed), kind="stable")[:count]
        return Sample(self.number[kept], self.points[kept], self.y[kept], self.weight[kept])

    def features(self, feature_map: FeatureMap, span: slice = slice(None)) -> np.ndarray:
        """Features of its rows, or some of them, times the roots of their weights: float32 (s, D)."""
        points, weight, scratch = self.points[span], self.weight[span], Scratch()
        z = np.empty((len(points), feature_map.size), np.float32)
        for first in range(0, len(points), FILLED):
            part = slice(first, min(first + FILLED, len(points)))
            feature_map.fill(points[part], z[part], scratch)
        if (weight != 1).any():
            z *= np.sqrt(weight)[:, None].astype(np.float32)
        return z


def rows_needed(n: int, size: int) -> int:
    """Rows of the sample."""
    return min(n, ROWS * min(size, MOST) + COMPARED)


def feature_error(
    feature_map: FeatureMap, sample: Sample, regularization: float, seed: int, threads: int
) -> dict[str, Bound]:
    """The error of ridge regressions on these features, relative to the spread of the targets, if it can be told.

    Parameters
    ----------
    feature_map : FeatureMap
    sample : Sample
    regularization : float
        λ, relative to the number of rows.
    seed : int
    threads : int
    """
    sample = sample.least(rows_needed(len(sample.number), feature_map.size), seed)
    size = min(feature_map.size, MOST, len(sample.number) // (ROWS // 2))
    size -= size % 4
    if size < LEAST or not isinstance(feature_map, Fourier | Sorf):
        return {}
    part = restore({**feature_map.to_json(), "size": size}, feature_map.arrays())
    compared = min(COMPARED, len(sample.number) // 5)
    fitted = len(sample.number) - compared
    spans = slice(0, fitted // 2), slice(fitted // 2, fitted)
    systems = [_System(part, sample, span, regularization, threads) for span in spans]
    z, y = part(sample.points[fitted:]).astype(np.float64), sample.y[fitted:]
    spread = float((y * y).sum(axis=1).mean())
    found = []
    for half in halves(feature_map, size, seed):
        first, second = (
            math.sqrt(2) * (z[:, half] @ system.solve(half) - z[:, ~half] @ system.solve(~half)) for system in systems
        )
        found.append(float((first * second).sum(axis=1).mean()) / 2)
    # Divisions that differ more than they add up to tell that it is no more than their standard error.
    variance = max(float(np.mean(found)), float(np.std(found)) / math.sqrt(len(found)))
    error = math.sqrt(variance * size / (2 * feature_map.size) / spread) if spread > 0 else 0.0
    meaning = (
        "root mean square distance of predictions from those of infinitely many features, relative to the targets' "
        f"spread, as halves of {size:,} differ; {4 * feature_map.size:,} features would about halve it"
    )
    return {"feature_error": Bound("feature_error", error, meaning, "measured")}


def halves(feature_map: Fourier | Sorf, size: int, seed: int) -> list[np.ndarray]:
    """Which of ``size`` features are in the first half, bool, of some random divisions."""
    frequencies, random = size // 2, np.random.default_rng([seed, 7])
    unit = feature_map.block
    if frequencies < BLOCKS * unit:
        unit = 1
    found = []
    for _ in range(DIVISIONS):
        rank = np.argsort(random.permutation(-(-frequencies // unit)))
        order = np.argsort(rank[np.arange(frequencies) // unit], kind="stable")
        half = np.zeros(frequencies, bool)
        half[order[: frequencies // 2]] = True
        found.append(np.tile(half, 2))
    return found


class _System:
    """The normal equations of some rows, for any half of the features: which are √2 times as long in it."""

    def __init__(self, part: FeatureMap, sample: Sample, span: slice, regularization: float, threads: int):
        z, weight = sample.features(part, span), sample.weight[span]
        self.gram = 2 * gram_of(z, threads)
        self.cross = math.sqrt(2) * (z.T.astype(np.float64) @ (np.sqrt(weight)[:, None] * sample.y[span]))
        self.penalty = regularization * float(weight.sum())

    def solve(self, half: np.ndarray) -> np.ndarray:
        """Weights of the machine of a half."""
        factor, _ = cholesky(np.ascontiguousarray(self.gram[np.ix_(half, half)]), self.penalty)
        return sl.cho_solve(factor, self.cross[half], check_finite=False)
