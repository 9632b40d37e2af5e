r"""Sums over the rows of a mixed model's design, in two passes.

The first pass is a QR factorization of ``√W [X | y | Z₁ | Z₂ | …]`` block by block. It shows which fixed effects are
combinations of others, and gives coordinates in which nothing is lost when products are summed: fixed effects as
``X̃ = X R⁻¹`` with orthonormal columns, the target as what they leave of it, the coefficients of a term as
``z̃ = z R_z⁻¹ √n``.

The second pass sums, for the term that has the most coefficients, ``A_g = Σ z̃ z̃ᵀ`` and ``B_g = Σ z̃ sᵀ`` of every
group, and ``C = Σ s sᵀ``, where s is everything that its groups share: the indicators of the other terms, x̃ and ỹ. All
that likelihoods, estimates and their variances need is in these sums: no further pass is made for them (compare Bates,
Mächler, Bolker, Walker 2015, whose penalised least squares has the same blocks).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from leyden.engine.budget import thread_count
from leyden.engine.reduction import Reduction, Scratch
from leyden.errors import DataError
from leyden.rows.base import Block
from leyden.solve.mixed import _products_kernels
from leyden.solve.mixed.design import Design, SharedEffects

kernels: Any = _products_kernels

#: Parts that groups are shared out in among threads: the same on every machine.
PARTS = 4

#: A column of which less than this part stands out of those before it is a combination of them.
COLLINEAR = 1e-9


@dataclass
class TriangleState:
    """R of the rows so far, the sum of the logarithms of their weights, and how many there are of a positive weight."""

    r: np.ndarray
    log_weight: float
    rows: int


class Triangle(Reduction[TriangleState, TriangleState]):
    """R of a QR factorization of ``√W [X | y | Z]``, rows of weight zero left out.

    Parameters
    ----------
    p : int
        Columns of X, which come first.
    d : int
        Columns of the design.
    """

    def __init__(self, p: int, d: int):
        self.p, self.d = p, d
        self._scratch = Scratch()

    def start(self) -> TriangleState:
        return TriangleState(np.zeros((self.d + 1, self.d + 1)), 0.0, 0)

    def update(self, state: TriangleState, block: Block) -> TriangleState:
        m, d, p = block.rows, self.d, self.p
        assert block.target is not None
        stacked = self._scratch.array("stacked", (d + 1 + m, d + 1))
        stacked[: d + 1] = state.r
        rows = stacked[d + 1 :]
        rows[:, :p], rows[:, p], rows[:, p + 1 :] = block.data[:, :p], block.target[:, 0], block.data[:, p:]
        if not np.isfinite(rows).all():
            raise NotFiniteError
        if block.weight is None:
            state.rows += m
        else:
            if not (np.isfinite(block.weight) & (block.weight >= 0)).all():
                raise NotFiniteError
            rows *= np.sqrt(block.weight)[:, None]
            there = block.weight[block.weight > 0]
            state.rows, state.log_weight = state.rows + len(there), state.log_weight + float(np.log(there).sum())
        state.r = _square(np.asarray(np.linalg.qr(stacked, mode="r")), d + 1)
        return state

    def merge(self, a: TriangleState, b: TriangleState) -> TriangleState:
        r = _square(np.asarray(np.linalg.qr(np.concatenate([a.r, b.r]), mode="r")), self.d + 1)
        return TriangleState(r, a.log_weight + b.log_weight, a.rows + b.rows)

    def finish(self, state: TriangleState) -> TriangleState:
        return state

    @property
    def state_nbytes(self) -> int:
        return 8 * (self.d + 1) ** 2

    @property
    def scratch_nbytes(self) -> int:
        return 4 * self.state_nbytes


class NotFiniteError(Exception):
    """A block holds NaN, infinity or a weight that is none; who catches it says where."""


def _square(r: np.ndarray, d: int) -> np.ndarray:
    """R with rows of zeros where the rows so far were few."""
    full = np.zeros((d, d))
    full[: len(r)] = r[:d]
    return full


@dataclass(frozen=True)
class Coordinates:
    """Coordinates in which products are summed.

    Attributes
    ----------
    n : int
        Rows of a positive weight.
    log_weight : float
        ``Σ log w``.
    r : ndarray, shape (p + 1, p + 1)
        Triangle of ``√W [X | y]``.
    z : tuple of ndarray (k, k)
        Of each term, R_z / √n: ``z̃ = z · inv``; of fixed effects, one.
    """

    n: int
    log_weight: float
    r: np.ndarray
    z: tuple[np.ndarray, ...]

    @classmethod
    def unknown(cls, design: Design) -> Coordinates:
        """Before the first pass: of the right shapes."""
        return cls(design.rows.shape[0], 0.0, np.eye(design.p + 1), tuple(np.eye(term.k) for term in design.terms))

    @classmethod
    def of(cls, found: TriangleState, design: Design) -> Coordinates:
        """Coordinates from the first pass.

        Raises
        ------
        DataError
            If fixed effects are combinations of others, or there are no more rows than fixed effects.
        """
        p = design.p
        if found.rows <= p:
            raise DataError(
                f"there are {found.rows:,} rows of a positive weight and {p:,} fixed effects",
                where=design.rows.source,
                hint="Leave some of them out.",
            )
        _refuse_collinear(found.r[:p, :p], design)
        z = []
        for term in design.terms:
            if term.fixed:
                z.append(np.eye(1))
                continue
            first = 1 + term.place.start
            part = found.r[:, first : first + term.k]
            norms = np.linalg.norm(part, axis=0)
            triangle = np.asarray(np.linalg.qr(part, mode="r"))
            if not (np.abs(np.diag(triangle)) > 1e-8 * norms).all():
                triangle = np.diag(np.where(norms > 0, norms, 1.0))
            z.append(triangle / np.sqrt(found.rows))
        return cls(found.rows, found.log_weight, found.r[: p + 1, : p + 1].copy(), tuple(z))


def _refuse_collinear(r: np.ndarray, design: Design) -> None:
    """Name the first fixed effect that is a combination of others, and these."""
    norms = np.linalg.norm(r, axis=0)
    for j in range(len(r)):
        if abs(r[j, j]) > COLLINEAR * norms[j]:
            continue
        if norms[j] == 0:
            raise DataError(
                f"the fixed effect '{design.fixed[j]}' is zero in every row",
                where=design.rows.source,
                hint="Leave it out.",
            )
        shares = solve_triangular(r[:j, :j], r[:j, j]) * norms[:j] / norms[j]
        others = [f"'{design.fixed[i]}'" for i in np.flatnonzero(np.abs(shares) > 1e-6)]
        raise DataError(
            f"the fixed effect '{design.fixed[j]}' is a combination of {', '.join(others)}",
            where=design.rows.source,
            hint="Leave one of them out.",
        )


class CrossProducts(Reduction[dict[str, np.ndarray], dict[str, Any]]):
    """``A_g``, ``B_g`` and ``C`` of a design, in the coordinates of the first pass.

    The result is a dict: "a" (groups, k, k), lower triangles; "c" (shared, shared); and "b" (groups, k, shared), or
    where most of that would be zero, "cells" (cells, k), whose columns are told by "pattern", and "tail" (groups, k,
    p + 1).
    """

    parallel = True

    def __init__(self, design: Design, coordinates: Coordinates):
        self.p, self.d = design.p, design.rows.shape[1]
        self.places = [term.place for term in design.terms]
        self.r, self.z = coordinates.r, coordinates.z
        first, *others = design.terms
        self.groups, self.k = len(first.groups), first.k
        self.effects = SharedEffects.of(others)
        self.sparse = self.effects.count
        self.shared = self.sparse + self.p + 1
        self.pattern = design.pattern
        self._scratch = Scratch()

    def start(self) -> dict[str, np.ndarray]:
        groups, k, shared = self.groups, self.k, self.shared
        state = {"a": np.zeros((groups, k, k)), "c": np.zeros((shared, shared))}
        if self.pattern is None:
            return {**state, "b": np.zeros((groups, k, shared))}
        cells = np.zeros((len(self.pattern.columns), k))
        return {**state, "cells": cells, "tail": np.zeros((groups, k, self.p + 1))}

    def update(self, state: dict[str, np.ndarray], block: Block) -> dict[str, np.ndarray]:
        assert block.group is not None
        dense, first, others = self._whitened(block)
        place = self.effects.places(block.group[:, 1:])
        values = np.concatenate(others or [np.zeros((block.rows, 0))], axis=1)
        codes = np.ascontiguousarray(block.group[:, 0])

        def add(part: int) -> None:
            rows = (codes, first, place, values, dense, state["a"])
            if self.pattern is None:
                kernels.add_groups(*rows, state["b"], part, PARTS)
            else:
                at = self.pattern.starts, self.pattern.columns
                kernels.add_cells(*rows, *at, state["cells"], state["tail"], part, PARTS)

        q = self.p + 1
        with ThreadPoolExecutor(thread_count(), "leyden") as pool:
            running = [pool.submit(add, part) for part in range(PARTS)]
            state["c"][-q:, -q:] += dense.T @ dense
            kernels.add_shared(place, values, dense, state["c"])
            for future in running:
                future.result()
        return state

    def _whitened(self, block: Block) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """``[x̃ | ỹ]``, z̃ of the first term, and those of the others; all times √w."""
        p, m = self.p, block.rows
        assert block.target is not None
        xy = self._scratch.array("xy", (m, p + 1))
        xy[:, :p], xy[:, p] = block.data[:, :p], block.target[:, 0]
        root = None if block.weight is None else np.sqrt(block.weight)[:, None]
        if root is not None:
            xy *= root
        dense = np.ascontiguousarray(solve_triangular(self.r, xy.T, trans="T", check_finite=False).T)
        whitened, data = [], np.asarray(block.data)
        for place, triangle in zip(self.places, self.z, strict=True):
            z = data[:, place] if root is None else data[:, place] * root
            whitened.append(np.ascontiguousarray(solve_triangular(triangle, z.T, trans="T", check_finite=False).T))
        return dense, whitened[0], whitened[1:]

    def merge(self, a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, array in a.items():
            array += b[name]
        return a

    def finish(self, state: dict[str, np.ndarray]) -> dict[str, Any]:
        c = state["c"]
        state["c"] = np.tril(c) + np.tril(c, -1).T
        return state if self.pattern is None else {**state, "pattern": self.pattern}

    @property
    def state_nbytes(self) -> int:
        q = self.p + 1
        of_group = self.k + self.shared if self.pattern is None else self.k + q
        cells = 0 if self.pattern is None else len(self.pattern.columns) * self.k
        return 8 * (self.groups * self.k * of_group + cells + self.shared**2)

    @property
    def scratch_nbytes(self) -> int:
        return 2**20

    def to_arrays(self, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(state)

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(arrays)
