"""The first pass of every method: a whitening, measured or not, and a first answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from leyden.engine.sweep import Engine
from leyden.errors import DataError
from leyden.rows import Rows
from leyden.solve.choose import Options, first_reduction
from leyden.solve.coordinates import Coordinates, Probe, norms
from leyden.solve.measure import raise_nonfinite
from leyden.solve.reductions import Gram, U, triangle
from leyden.solve.whitening import Whitening, directions, from_gram


@dataclass
class Start:
    """What the first pass of a method gives: coordinates, a whitening (measured or not), a first answer."""

    coordinates: Coordinates
    whitening: Whitening
    measured: bool
    x: np.ndarray
    x0: np.ndarray


def start(engine: Engine, rows: Rows, options: Options, seen: Probe, method: str) -> Start | None:
    """Make the first pass of a method; None when its sums cannot be factored."""
    c = seen.coordinates
    reduction = first_reduction(method, seen, options.seed)
    label = {"gram32": "Gram matrix (float32)", "gram64": "Gram matrix", "tsqr": "TSQR", "sketch": "sketch"}[method]
    (result,) = engine.sweep(rows, [reduction], label)
    matrix = result.matrix if isinstance(reduction, Gram) else result
    if not np.isfinite(matrix).all():
        raise_nonfinite(rows)
        return None
    with np.errstate(over="ignore"):
        sizes = np.sqrt(np.diag(matrix)) if isinstance(reduction, Gram) else norms(matrix)
        _check_sizes(rows, c, sizes / c.scale)
    if isinstance(reduction, Gram):
        smallest = 1e-20 if reduction.dtype == np.float32 else 1e-250
        return _from_gram(c, matrix, result.rounding, smallest)
    return _from_factor(c, matrix)


#: Sizes of columns and targets for which no square, and no error of a product, leaves the range of float64.
SMALLEST, LARGEST = 1e-100, 1e100


def _check_sizes(rows: Rows, c: Coordinates, sizes: np.ndarray) -> None:
    """Refuse columns and targets whose certificate would rest on numbers that underflow or overflow."""
    sizes = sizes.copy()
    sizes[: c.d] = np.hypot(sizes[: c.d], math.sqrt(c.ridge))
    wrong = np.flatnonzero((sizes != 0) & ~((sizes > SMALLEST) & (sizes < LARGEST)))
    if len(wrong):
        names = [*rows.columns, *(["intercept"] if c.intercept else []), *rows.targets]
        raise DataError(
            f"'{names[wrong[0]]}' has norm {sizes[wrong[0]]:.0e} (weights and ridge included), so far from one "
            "that squares leave the range of float64",
            where=rows.source,
            hint="Rescale it, the weights or the ridge.",
        )


def _rescale(c: Coordinates, sizes: np.ndarray) -> tuple[Coordinates, np.ndarray]:
    """Coordinates in which working columns of these norms have norms near one, and the powers of two that do it."""
    with np.errstate(divide="ignore"):
        factor = np.exp2(-np.round(np.log2(sizes)))
    # What is left of a column after its shift may be rounding alone: such a column counts as zero, not as data.
    floor = np.zeros(c.p)
    if c.intercept:
        floor[: c.d] = 4 * U * np.abs(c.shift[: c.d]) * c.scale[: c.d] / c.scale[c.d]
    factor[~np.isfinite(factor) | (sizes <= floor)] = 1.0
    scale = c.scale.copy()
    scale[: c.p] *= factor
    return replace(c, scale=scale), factor


def _from_gram(c: Coordinates, gram: np.ndarray, rounding: float, smallest: float) -> Start | None:
    p = c.p
    h = gram[:p, :p] + np.diag(c.penalty)
    if (np.diag(h) < smallest).any():
        # Products of entries that small may have lost their digits to underflow, which no relative bound covers.
        return None
    c, factor = _rescale(c, np.sqrt(np.maximum(np.diag(h), 0.0)))
    h = h * np.outer(factor, factor)
    whitening = from_gram(h, rounding)
    if whitening is None or not whitening.usable:
        return None
    z = whitening.w @ (whitening.w.T @ (factor[:, None] * gram[:p, p:]))
    return Start(c, whitening, True, *c.solution(z, targets=True))


def _from_factor(c: Coordinates, factor: np.ndarray) -> Start:
    """From a triangular factor, or a sketch, of [Ā b̄]."""
    p = c.p
    stacked = np.vstack([factor, np.hstack([np.diag(np.sqrt(c.penalty)), np.zeros((p, c.k))])]) if c.ridge else factor
    c, powers = _rescale(c, np.linalg.norm(stacked[:, :p], axis=0))
    stacked = stacked.copy()
    stacked[:, :p] *= powers
    r = triangle(stacked)
    head = r[: min(len(r), p)]
    x, null, _ = directions(head[:, :p])
    # x whitens head: x = V_r S⁻¹, so z = x (head x)ᵀ (projected targets).
    z = x @ ((head[:, :p] @ x).T @ head[:, p:])
    rank = x.shape[1]
    solution = c.solution(z, targets=True)
    if null is not None:
        solution = minimum_norm(c, null, *solution)
    return Start(c, Whitening(x, np.eye(rank), math.inf, null), False, *solution)


def minimum_norm(c: Coordinates, null: np.ndarray, x: np.ndarray, x0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point of smallest ``‖x‖`` on ``x + range(null)``, null directions in working coordinates."""
    step = c.scale[: c.d, None] * null[: c.d]
    t = np.linalg.lstsq(step, x, rcond=None)[0]
    x = x - step @ t
    if c.intercept:
        x0 = x0 - (c.scale[c.d] * null[c.d] - c.shift[: c.d] @ step) @ t
    return x, x0
