r"""Random features by themselves: ``x -> z(x)`` of standardised points, in memory, or as rows that are made when read.

What is linear in z is a kernel method in x (Rahimi and Recht 2007): least squares on them is kernel ridge regression,
their principal components are kernel ones (Lopez-Paz, Sra, Smola, Ghahramani and Schölkopf 2014). As rows they are made
again in every pass, from a seed, and take no more memory than a block: any solver that reads rows is such a method,
of data of any size.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from leyden.engine.local import single_threaded_blas
from leyden.engine.sweep import Engine
from leyden.errors import OptionError
from leyden.kernel import maps
from leyden.kernel.features import Tile
from leyden.kernel.inputs import Standard, median_width
from leyden.kernel.kernels import Kernel
from leyden.kernel.machine import LEARNING, LOOKING
from leyden.kernel.products import Features
from leyden.kernel.survey import Survey, SurveyRows
from leyden.rows import Rows
from leyden.rows.base import Block, RowMap
from leyden.rows.sparse import csr_block

#: Rows that a thread makes the features of at a time.
BATCH = 4096


def draw(
    engine: Engine, rows: Rows, name: str, kernel: Kernel, width: Any, size: int, seed: int, *, standardize: bool = True
) -> tuple[Features, Kernel]:
    """The features that a kernel machine on these rows would have, and their kernel: one pass over the rows.

    Parameters
    ----------
    engine : Engine
    rows : Rows
    name : str
        Of the map.
    kernel : Kernel
        Of any width.
    width : "median", float, or ndarray of shape (d,)
    size, seed : int
    standardize : bool
    """
    n, d = rows.shape
    if np.ndim(width) and len(width) != d:
        raise OptionError(f"there are {len(width)} widths for {d} columns", where=rows.source)
    looked = max(LEARNING if isinstance(width, str) or name == "binning" else LOOKING, maps.sampled(name, size))
    found: Survey
    survey = SurveyRows(d, len(rows.targets), n, looked, seed, classes=False, source=rows.source)
    (found,) = engine.sweep(rows, [survey], "survey")
    found.check(rows)
    standard = found.standard(d, centre=not rows.is_sparse) if standardize else Standard.none(d)
    points = standard(found.points)
    if isinstance(width, str):
        width = median_width(kernel.name, points, seed)
    kernel = replace(kernel, width=width)
    return Features(standard, maps.make(name, kernel, d, size, seed, sample=points)), kernel


class Expand(RowMap):
    """Rows in place of which stand their features: float32, or of sparse maps CSR.

    Parameters
    ----------
    features : Features
    names : tuple of str
        Of the features.
    """

    def __init__(self, features: Features, names: tuple[str, ...]):
        self.features, self.names = features, names

    def __call__(self, block: Block) -> Block:
        out = empty(self.features, block.rows)
        fill(self.features, block.data, out)
        return block.with_data(finished(self.features, out))

    def into(self, block: Block, out: np.ndarray) -> Block:
        fill(self.features, block.data, out)
        return block.with_data(out)

    def columns(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        return self.names

    def sparse(self, sparse: bool) -> bool:
        return self.features.map.sparse

    def sparse_nbytes(self, rows: Rows) -> float:
        return (4 + 4) * self.features.map.nonzeros + 4

    def dtype(self, dtype: np.dtype) -> np.dtype:
        return np.dtype(np.float32)


def expanded(features: Features, data: Any, threads: int) -> Any:
    """Features of an array or a CSR matrix (n, d): float32 (n, D), or of sparse maps CSR; each thread makes its tiles
    where they stay."""
    out = empty(features, data.shape[0])

    def some(first: int) -> None:
        fill(features, data[first : first + BATCH], out[first : first + BATCH])

    with single_threaded_blas(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(0, len(out), BATCH)))
    return finished(features, out)


def empty(features: Features, rows: int) -> np.ndarray:
    """Memory for the features of some rows: float32 (rows, D), or which ones are not zero, int32 (rows, nonzeros)."""
    if features.map.sparse:
        return np.empty((rows, features.map.nonzeros), np.int32)
    return np.empty((rows, features.size), np.float32)


def fill(features: Features, data: Any, out: np.ndarray) -> None:
    """The features of some rows into such memory."""
    if not features.map.sparse:
        features.fill(data, out)
        return
    tile: Tile
    for span, tile in features.tiles(Block(0, data), keep=False):
        out[span] = tile.indices


def finished(features: Features, out: np.ndarray) -> Any:
    """What :func:`fill` made, as a matrix."""
    if not features.map.sparse:
        return out
    wide = np.int64 if out.size > np.iinfo(np.int32).max else np.int32
    pointers = np.arange(len(out) + 1, dtype=wide) * out.shape[1]
    values = np.full(out.size, features.map.value, np.float32)
    return csr_block(values, out.reshape(-1).astype(wide, copy=False), pointers, (len(out), features.size))
