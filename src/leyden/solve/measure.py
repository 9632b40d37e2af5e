"""The pass that certificates rest on: the gradient at an answer, and how well a matrix whitens the data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from leyden.engine.sweep import Engine
from leyden.errors import DataError
from leyden.rows import Rows
from leyden.rows.base import find_nonfinite
from leyden.solve.coordinates import Coordinates
from leyden.solve.reductions import Gradient, GradientResult, ProductGram, U, gamma
from leyden.solve.whitening import Whitening


def measure(
    engine: Engine,
    rows: Rows,
    c: Coordinates,
    x: np.ndarray,
    x0: np.ndarray,
    whitening: Whitening,
    label: str,
    *,
    whiten: bool,
) -> tuple[GradientResult, Whitening]:
    """One pass for the gradient at ``x`` (d, k), ``x0`` (k,).

    With ``whiten`` the same pass measures how well ``whitening.x`` whitens the data; the whitening that comes back then
    rests on nothing else. Without, it comes back as it was.
    """
    reductions: list[Any] = [Gradient(x, x0, intercept=c.intercept, sparse=rows.is_sparse)]
    basis = whitening.x if whitening.null is None else np.hstack([whitening.x, whitening.null])
    if whiten:
        slack = _product_error(c, basis)
        reductions.append(ProductGram(c, basis, exact=slack > 1e-3 or whitening.null is not None))
    results = engine.sweep(rows, reductions, label)
    gradient: GradientResult = results[0]
    if not all(np.isfinite(sums).all() for sums in (gradient.hi, gradient.rr, gradient.norms)):
        raise_nonfinite(rows)
        raise DataError("values are so large that their squares overflow", where=rows.source, hint="Rescale the data.")
    if gradient.total == 0:
        raise DataError("all weights are zero", where=rows.source, hint="Give weights of which some are positive.")
    if not whiten:
        return gradient, whitening
    gram = results[1].matrix + basis.T @ (c.penalty[:, None] * basis)
    rank = whitening.rank
    kept = gram[:rank, :rank]
    size = math.sqrt(max(float(np.trace(kept)), 0.0))
    tiny = (2 * c.p**2 + 64) * U**2 * math.sqrt(c.p) * float(np.linalg.norm(basis))
    entry = 4 * U * size + tiny if reductions[1].exact else slack
    error = results[1].rounding * size**2 + 2 * size * entry + entry**2
    error += gamma(2 * c.p + 2) * float(np.trace(np.abs(basis.T) @ (c.penalty[:, None] * np.abs(basis))))
    discarded = 0.0
    if whitening.null is not None:
        discarded = (1 + 1e-9) * math.sqrt(max(float(np.trace(gram[rank:, rank:])), 0.0)) + tiny
    measured = Whitening(whitening.x, kept, error, whitening.null, discarded)
    if whitening.null is not None:
        measured.column_norms = _column_norms(basis, gram)
    return gradient, measured


def _column_norms(basis: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Norms of the columns of Ā, from the Gram matrix of Ā B for a square B."""
    inverse = np.linalg.pinv(basis)
    return np.sqrt(np.maximum(((gram @ inverse) * inverse).sum(axis=0), 0.0))


def _product_error(c: Coordinates, basis: np.ndarray) -> float:
    """Bound on ``‖fl(Ā X) − Ā X‖_F`` of a BLAS product of packed rows."""
    offset = 0.0
    if c.intercept:
        offset = float(np.linalg.norm(c.shift[: c.d] * c.scale[: c.d])) / float(c.scale[c.d])
    return float((gamma(c.p + 4) * 2 * math.sqrt(c.p) + 3 * U * offset) * np.linalg.norm(basis))


def raise_nonfinite(rows: Rows) -> None:
    """Raise for the first NaN or infinity, if there is one."""
    block_rows = max(1, min(rows.shape[0], int(2**24 / max(rows.row_nbytes, 1))))
    if error := find_nonfinite(rows, block_rows):
        raise error
