r"""How far the inner products of features are from the kernel, for the features that were drawn.

``(z(x)·z(y) − k(x, y))²`` of independent pairs of rows is bounded, and the empirical Bernstein inequality (Maurer and
Pontil 2009) bounds its mean over all pairs of rows from that of the sampled ones: of this draw, whatever its
distribution, where formulas of the variance speak of draws on average.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from leyden.certificate import Bound
from leyden.engine.reduction import Scratch
from leyden.errors import OptionError
from leyden.kernel import generalisation
from leyden.kernel.features import FeatureMap
from leyden.kernel.kernels import Kernel
from leyden.kernel.points import Points
from leyden.kernel.products import Features
from leyden.rows import Rows

#: Rows that are read at a time, and pairs whose kernel is computed at a time.
BATCH, PAIRS = 4096, 32


def kernel_error(features: Features, kernel: Kernel, rows: Rows, pairs: int, seed: int) -> Bound:
    """Root mean square of ``z(x)·z(y) − k(x, y)`` over all pairs of rows, bounded from some drawn independently.

    Parameters
    ----------
    features : Features
    kernel : Kernel
    rows : Rows
        Of them at most ``2 pairs`` are kept.
    pairs, seed : int
    """
    if isinstance(features.map, Points):
        raise OptionError("an exact machine has no random features", hint="Its kernel has no error.")
    drawn = np.random.default_rng([seed, 5]).integers(0, rows.shape[0], (2, pairs))
    numbers, place = np.unique(drawn, return_inverse=True)
    points = taken(rows, numbers, features)
    errors = np.empty(pairs)
    for first in range(0, pairs, features.rows):
        span = slice(first, first + features.rows)
        x, y = points[place.reshape(2, pairs)[:, span]]
        errors[span] = inner(features.map, x, y) - exact(kernel, x, y)
    return generalisation.bernstein("kernel_error", errors**2, 4.0)


def inner(feature_map: FeatureMap, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``z(x)·z(y)`` of points (m, d) and those beside them, summed in float64."""
    if not feature_map.sparse:
        return np.einsum("ij,ij->i", feature_map(x), feature_map(y), dtype=np.float64)
    first, second = (feature_map.tile(np.ascontiguousarray(part), Scratch()) for part in (x, y))
    return (first.indices == second.indices).sum(axis=1) * feature_map.value**2


def exact(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``k(x, y)`` of points (m, d) and those beside them."""
    spans = [slice(first, first + PAIRS) for first in range(0, len(x), PAIRS)]
    return np.concatenate([kernel(x[span], y[span]).diagonal() for span in spans])


def taken(rows: Rows, numbers: np.ndarray, features: Features) -> np.ndarray:
    """Some rows, in order, standardised: float32."""
    points = np.empty((len(numbers), rows.shape[1]), np.float32)
    for start in range(0, rows.shape[0], BATCH):
        first, last = np.searchsorted(numbers, [start, start + BATCH])
        if first < last:
            data: Any = rows.read(start, min(start + BATCH, rows.shape[0])).data
            features.standard.into(data[numbers[first:last] - start], points[first:last])
    rows.release()
    return points
