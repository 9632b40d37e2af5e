r"""Passes of a kernel machine: features are made tile by tile, used, and forgotten.

For weights W (D, k), scores ``F = offset + Z W`` and a loss ℓ, one pass over the rows computes one of

* the gradient ``Zᵀ ℓ'(F)`` and the values ``Σ ℓ(F)``,
* Hessian products ``Zᵀ (ℓ''(F) ∘ (Z P))`` with directions P,
* the Gram matrix ``ZᵀZ`` with ``ZᵀY`` and ``YᵀY``.

A tile of features is some rows long, so that it stays in the cache between being made and being used.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden import aligned
from leyden.engine.local import single_threaded_blas
from leyden.engine.reduction import Reduction, Scratch
from leyden.engine.workshop import Workshop
from leyden.kernel import pac_bayes
from leyden.kernel._fourier_vectors import TILE_ROWS
from leyden.kernel.features import FeatureMap, Tile, add_transposed, squares, times
from leyden.kernel.inputs import Standard
from leyden.kernel.losses import Loss
from leyden.kernel.split import Split, folds_of, select
from leyden.rows.base import Block

#: Bytes of a tile of features, and bounds for its rows.
TILE_NBYTES, LEAST_TILE, MOST_TILE = 4 * 2**20, 2 * TILE_ROWS, 64 * TILE_ROWS

#: Rows of a tile of sparse features: the weights of a part of them are used by all before those of the next.
SPARSE_ROWS = 8192

#: Rows and columns of the blocks of a Gram matrix that threads share, and rows of the tile that is multiplied.
GRAM_BLOCK, GRAM_TILE = 1024, 2048


@dataclass(frozen=True)
class Targets:
    """What scores are compared with: the columns of Y.

    Attributes
    ----------
    offset : float64, shape (outputs,)
        Of the scores: the mean of each column, or log odds.
    classes : float64, shape (classes,), or None
        Labels: Y is then +1 in the column of the label and −1 elsewhere; of two labels only the second has a column.
    """

    offset: np.ndarray
    classes: np.ndarray | None = None

    @property
    def outputs(self) -> int:
        return len(self.offset)

    def codes(self, target: np.ndarray) -> np.ndarray:
        """Positions of labels (m, 1) among the classes; −1 where a label is none of them."""
        assert self.classes is not None
        place = np.minimum(np.searchsorted(self.classes, target[:, 0]), len(self.classes) - 1)
        return np.where(self.classes[place] == target[:, 0], place, -1)

    def __call__(self, target: Any) -> np.ndarray:
        """Y of some rows' targets, float64 (m, outputs)."""
        if self.classes is None:
            return np.asarray(target, np.float64)
        columns = np.arange(self.outputs) + (self.outputs == 1)
        return np.where(self.codes(target)[:, None] == columns, 1.0, -1.0)


class Features:
    """Tiles of features of blocks of rows.

    Parameters
    ----------
    standard : Standard
    feature_map : FeatureMap
    split : Split, optional
        Rows that are held out are not among those of :meth:`fitted`; none by default.
    spare : int
        Bytes in which sparse tiles of fitted rows are kept from pass to pass: only here, not where a copy is sent.
    """

    def __init__(self, standard: Standard, feature_map: FeatureMap, split: Split | None = None, spare: int = 0):
        self.standard, self.map, self.split = standard, feature_map, split or Split(0.0, 0)
        self.spare, self._kept = spare, dict[tuple[int, int, int], Tile]()
        rows = TILE_NBYTES // (4 * feature_map.size)
        self.rows = int(min(max(rows - rows % TILE_ROWS, LEAST_TILE), MOST_TILE))
        if feature_map.sparse:
            self.rows = SPARSE_ROWS
        self._scratch = Scratch()

    @property
    def size(self) -> int:
        return self.map.size

    @property
    def nbytes(self) -> int:
        """Memory of a thread's tile."""
        if self.map.sparse:
            return 4 * self.rows * (self.map.nonzeros + 4 * self.map.inputs)
        return 4 * self.rows * (self.map.size + 2 * self.map.inputs) + self.map.scratch_nbytes

    def fill(self, data: Any, out: np.ndarray) -> None:
        """The features of some rows, float32."""
        points = self._scratch.array("points", (self.rows, self.map.inputs), np.float32)
        for first in range(0, data.shape[0], self.rows):
            part = data[first : first + self.rows]
            x = points[: part.shape[0]]
            self.standard.into(part, x)
            self.map.fill(x, out[first : first + len(x)], self._scratch)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"spare": 0, "_kept": {}}

    def tiles(self, block: Block, *, keep: bool = True) -> Any:
        """Spans of rows of a block and their features, which the next tile overwrites.

        Of rows that are fitted: of others they are not to be kept.
        """
        if self.map.sparse:
            for first in range(0, block.rows, self.rows):
                last = min(first + self.rows, block.rows)
                yield slice(first, last), self._sparse(block, first, last, keep)
            return
        tile = self._scratch.array("tile", (self.rows, self.map.size), np.float32)
        for first in range(0, block.rows, self.rows):
            last = min(first + self.rows, block.rows)
            z = tile[: last - first]
            self.fill(block.data[first:last], z)
            yield slice(first, last), z

    def _sparse(self, block: Block, first: int, last: int, keep: bool) -> Tile:
        key = (block.start, block.rows, first)
        found = self._kept.get(key) if keep else None
        if found is None:
            points = self._scratch.array("points", (self.rows, self.map.inputs), np.float32)[: last - first]
            self.standard.into(block.data[first:last], points)
            found = self.map.tile(points, self._scratch)
            if keep and found.nbytes <= self.spare:
                self.spare -= found.nbytes
                self._kept[key] = found
        return found


def wide(z: np.ndarray | Tile) -> np.ndarray | Tile:
    """Features in float64."""
    return z if isinstance(z, Tile) else z.astype(np.float64)


@dataclass
class Sums:
    """Of the rows so far: ``Zᵀ ℓ'`` (D, k), ``Σ ℓ`` (k,), and by penalty how many have another class, and how many
    would if the weights were drawn anew, by their scale (:mod:`leyden.kernel.pac_bayes`)."""

    gradient: np.ndarray
    value: np.ndarray
    wrong: np.ndarray
    drawn: np.ndarray


class Gradient(Reduction[Sums, Sums]):
    """Gradient and value of the loss, without the penalty.

    Parameters
    ----------
    features : Features
    targets : Targets
    loss : Loss
    w : ndarray, shape (D, k)
        k a multiple of the outputs: those of one penalty beside those of the next.
    double : bool
        Whether scores, slopes and sums are float64 (the features are float32: they define the machine).
    """

    def __init__(self, features: Features, targets: Targets, loss: Loss, w: np.ndarray, *, double: bool = False):
        self.features, self.targets, self.loss = features, targets, loss
        self.zero, self.double = not w.any(), double
        self.w = w.astype(np.float64 if double else np.float32)
        self.paths = w.shape[1] // targets.outputs
        self._scratch = Scratch()

    def start(self) -> Sums:
        d, k = self.w.shape
        return Sums(np.zeros((d, k)), np.zeros(k), np.zeros(self.paths), np.zeros((self.paths, len(pac_bayes.SCALES))))

    def update(self, state: Sums, block: Block) -> Sums:
        block = self.features.split.fitted(block)
        d = len(self.w)
        target: Any = block.target
        y = np.tile(self.targets(target), (1, self.paths))
        offset = np.tile(self.targets.offset, self.paths)
        weight = None if block.weight is None else block.weight[:, None]
        for span, z in self.features.tiles(block):
            if self.double and not isinstance(z, Tile):
                wide = self._scratch.array("wide", (self.features.rows, d), np.float64)[: len(z)]
                wide[:] = z
                z = wide
            f = offset + (0.0 if self.zero else times(z, self.w))
            f = np.broadcast_to(f, y[span].shape)
            value, slope = self.loss.value(f, y[span]), self.loss.slope(f, y[span])
            if weight is not None:
                value, slope = value * weight[span], slope * weight[span]
            state.value += value.sum(axis=0)
            add_transposed(z, slope, state.gradient)
            if self.targets.classes is not None:
                self._compare(state, z, f, self.targets.codes(target[span]), y[span])
        return state

    def _compare(self, state: Sums, z: np.ndarray | Tile, f: np.ndarray, truth: np.ndarray, y: np.ndarray) -> None:
        """Count what is wrong among the labels of a tile."""
        outputs = self.targets.outputs
        lengths = np.sqrt(1 + squares(z)) if self.double else None
        for path in range(self.paths):
            columns = slice(path * outputs, (path + 1) * outputs)
            mine = f[:, columns]
            found = (mine[:, 0] > 0).astype(int) if outputs == 1 else mine.argmax(axis=1)
            state.wrong[path] += np.count_nonzero(found != truth)
            if lengths is not None:
                size = np.sqrt((self.w[:, columns] ** 2).sum() + (self.targets.offset**2).sum())
                state.drawn[path] += pac_bayes.tails(mine, y[:, columns], lengths, float(size))

    def merge(self, a: Sums, b: Sums) -> Sums:
        a.gradient += b.gradient
        a.value += b.value
        a.wrong += b.wrong
        a.drawn += b.drawn
        return a

    def finish(self, state: Sums) -> Sums:
        return state

    @property
    def state_nbytes(self) -> int:
        return 8 * self.w.size

    @property
    def scratch_nbytes(self) -> int:
        wide = self.double and not self.features.map.sparse
        return self.features.nbytes + wide * 8 * self.features.rows * self.features.size + 8 * self.w.size


class HessianProduct(Reduction[np.ndarray, np.ndarray]):
    """``Zᵀ (ℓ''(Z W) ∘ (Z P))``, without the penalty.

    Parameters
    ----------
    features, targets, loss
    w, p : ndarray, shape (D, k)
    """

    def __init__(self, features: Features, targets: Targets, loss: Loss, w: np.ndarray, p: np.ndarray):
        self.features, self.targets, self.loss = features, targets, loss
        both = p if loss.quadratic else np.concatenate([p, w], axis=1)
        self.paths = p.shape[1] // targets.outputs
        self.k = p.shape[1]
        self.both = both.astype(np.float32)

    def start(self) -> np.ndarray:
        return np.zeros((len(self.both), self.k))

    def update(self, state: np.ndarray, block: Block) -> np.ndarray:
        block = self.features.split.fitted(block)
        if not self.loss.quadratic:
            y = np.tile(self.targets(block.target), (1, self.paths))
            offset = np.tile(self.targets.offset, self.paths)
        for span, z in self.features.tiles(block):
            q = times(z, self.both)
            if not self.loss.quadratic:
                curvature = self.loss.curvature(q[:, self.k :] + offset, y[span])
                q = (q[:, : self.k] * curvature).astype(np.float32)
            if block.weight is not None:
                q = (q * block.weight[span, None]).astype(np.float32)
            add_transposed(z, q, state)
        return state

    def merge(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a += b
        return a

    def finish(self, state: np.ndarray) -> np.ndarray:
        return state

    @property
    def state_nbytes(self) -> int:
        return 8 * len(self.both) * self.k

    @property
    def scratch_nbytes(self) -> int:
        return self.features.nbytes + 8 * self.both.size


class Diagonal(Reduction[np.ndarray, np.ndarray]):
    """The diagonal of the Gram matrix of sparse features, weighted.

    Parameters
    ----------
    features : Features
    """

    def __init__(self, features: Features):
        self.features = features

    def start(self) -> np.ndarray:
        return np.zeros(self.features.size)

    def update(self, state: np.ndarray, block: Block) -> np.ndarray:
        block = self.features.split.fitted(block)
        for span, z in self.features.tiles(block):
            assert isinstance(z, Tile)
            if block.weight is None:
                z.add_squares(state)
            else:
                z.add_squares(state, block.weight[span])
        return state

    def merge(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a += b
        return a

    def finish(self, state: np.ndarray) -> np.ndarray:
        return state

    @property
    def state_nbytes(self) -> int:
        return 8 * self.features.size

    @property
    def scratch_nbytes(self) -> int:
        return self.features.nbytes


@dataclass
class Moments:
    """Of each fold of rows: ``ZᵀZ`` (folds, D, D), its lower triangle; ``ZᵀY`` (folds, D, outputs) of targets without
    their offset; ``Σ Y²`` (folds, outputs); and the weight of its rows (folds,)."""

    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray
    weight: np.ndarray


class Gram(Reduction[Moments, Moments]):
    """The Gram matrix of the features, float64 sums of float32 products of tiles.

    Blocks of the matrix are shared among threads, each computed by one of them whatever their number: same bits.

    Parameters
    ----------
    features, targets
    threads : int, optional
    folds : int
        Parts of the rows, by a hash of their numbers, of which sums are kept apart.
    seed : int
        Of the folds.
    """

    parallel = True

    def __init__(
        self, features: Features, targets: Targets, threads: int | None = None, *, folds: int = 1, seed: int = 0
    ):
        self.features, self.targets, self.folds, self.seed = features, targets, folds, seed
        self.workshop = Workshop(threads)
        self._scratch = Scratch()
        size = features.size
        self.blocks = lower_blocks(size)
        self.block_nbytes = GRAM_TILE * 8 * features.map.inputs

    def start(self) -> Moments:
        size, outputs = self.features.size, self.targets.outputs
        k = self.folds
        return Moments(np.zeros((k, size, size)), np.zeros((k, size, outputs)), np.zeros((k, outputs)), np.zeros(k))

    def update(self, state: Moments, block: Block) -> Moments:
        if self.folds == 1:
            return self._add(state, 0, self.features.split.fitted(block))
        fitted = self.features.split.rows_fitted(block)
        fold = folds_of(block, self.folds, self.seed)
        for k in range(self.folds):
            self._add(state, k, select(block, fitted & (fold == k)))
        return state

    def _add(self, state: Moments, fold: int, block: Block) -> Moments:
        z = self._scratch.array("gram tile", (GRAM_TILE, self.features.size), np.float32)
        y = self.targets(block.target) - self.targets.offset
        root = None if block.weight is None else np.sqrt(block.weight)[:, None]
        if root is not None:
            y *= root
        state.square[fold] += (y * y).sum(axis=0)
        state.weight[fold] += block.rows if block.weight is None else float(block.weight.sum())
        gram, step = state.gram[fold], self.features.rows
        for first in range(0, block.rows, GRAM_TILE):
            tile = z[: min(GRAM_TILE, block.rows - first)]

            def fill(part: int, first: int = first, tile: np.ndarray = tile) -> None:
                out = tile[part * step : (part + 1) * step]
                begin = first + part * step
                self.features.fill(block.data[begin : begin + len(out)], out)
                if root is not None:
                    out *= root[begin : begin + len(out)]

            def multiply(place: int, tile: np.ndarray = tile) -> None:
                rows, columns = self.blocks[place]
                shape = rows.stop - rows.start, columns.stop - columns.start
                memory = self._scratch.array("block", (GRAM_BLOCK, GRAM_BLOCK), np.float32)
                product = memory.reshape(-1)[: shape[0] * shape[1]].reshape(shape)
                np.matmul(tile[:, rows].T, tile[:, columns], out=product)
                gram[rows, columns] += product

            self.workshop.map(fill, -(-len(tile) // step))
            self.workshop.map(multiply, len(self.blocks))
            state.cross[fold] += tile.T @ y[first : first + len(tile)].astype(np.float32)
        return state

    def merge(self, a: Moments, b: Moments) -> Moments:
        a.gram += b.gram
        a.cross += b.cross
        a.square += b.square
        a.weight += b.weight
        return a

    def finish(self, state: Moments) -> Moments:
        return state

    @property
    def state_nbytes(self) -> int:
        return 8 * self.folds * self.features.size * (self.features.size + self.targets.outputs)

    @property
    def scratch_nbytes(self) -> int:
        tile = 4 * GRAM_TILE * self.features.size
        return tile + self.workshop.threads * (self.features.nbytes + 4 * GRAM_BLOCK**2)


def lower_blocks(size: int) -> list[tuple[slice, slice]]:
    """The blocks of the lower triangle of a matrix."""
    spans = [slice(a, min(a + GRAM_BLOCK, size)) for a in range(0, size, GRAM_BLOCK)]
    return [(rows, columns) for i, rows in enumerate(spans) for columns in spans[: i + 1]]


@dataclass
class Scores:
    """Of rows in order: their numbers (m,), scores (m, k), and Y (m, outputs)."""

    number: np.ndarray
    scores: np.ndarray
    y: np.ndarray


class HeldOut(Reduction[Scores, Scores]):
    """Scores of the rows that were held out.

    Parameters
    ----------
    features, targets
    w : ndarray, shape (D, k)
    expected : int
        How many rows, about.
    """

    def __init__(self, features: Features, targets: Targets, w: np.ndarray, expected: int):
        self.features, self.targets, self.expected, self.w = features, targets, expected, w

    def start(self) -> Scores:
        return Scores(
            np.zeros(0, np.int64), np.zeros((0, self.w.shape[1])), np.zeros((0, self.targets.outputs))
        )  # fmt: skip

    def update(self, state: Scores, block: Block) -> Scores:
        numbers = block.start + np.flatnonzero(~self.features.split.rows_fitted(block))
        block = self.features.split.held_out(block)
        # In float64, so that a score does not depend on the rows beside it.
        found = [times(wide(z), self.w) for _, z in self.features.tiles(block, keep=False)]
        offset = np.tile(self.targets.offset, self.w.shape[1] // self.targets.outputs)
        scores = np.concatenate(found) + offset if found else np.zeros((0, self.w.shape[1]))
        return self.merge(state, Scores(numbers, scores, self.targets(block.target)))

    def merge(self, a: Scores, b: Scores) -> Scores:
        number, first = np.unique(np.concatenate([a.number, b.number]), return_index=True)
        return Scores(
            number, np.concatenate([a.scores, b.scores])[first], np.concatenate([a.y, b.y])[first]
        )  # fmt: skip

    def finish(self, state: Scores) -> Scores:
        return state

    @property
    def state_nbytes(self) -> int:
        return 8 * (self.expected + 4 * int(self.expected**0.5) + 4) * (1 + self.w.shape[1] + self.targets.outputs)

    @property
    def scratch_nbytes(self) -> int:
        return self.features.nbytes + (not self.features.map.sparse) * 8 * self.features.rows * self.features.size


def gram_of(z: np.ndarray, threads: int) -> np.ndarray:
    """``zᵀz`` of float32 features in memory, in float64: bounds rest on it."""
    size = z.shape[1]
    gram = aligned.zeros((size, size))
    spans = [slice(a, min(a + GRAM_BLOCK, size)) for a in range(0, size, GRAM_BLOCK)]
    tile = aligned.empty((min(GRAM_TILE, len(z)), size))
    with single_threaded_blas(), ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(z), GRAM_TILE):
            part = z[first : first + GRAM_TILE]
            wide = tile[: len(part)]
            list(pool.map(lambda s, wide=wide, part=part: np.copyto(wide[:, s], part[:, s]), spans))

            def multiply(place: tuple[slice, slice], wide: np.ndarray = wide) -> None:
                rows, columns = place
                gram[rows, columns] += wide[:, rows].T @ wide[:, columns]

            list(pool.map(multiply, lower_blocks(size)))
    for i, rows in enumerate(spans):
        for columns in spans[:i]:
            gram[columns, rows] = gram[rows, columns].T
    return gram
