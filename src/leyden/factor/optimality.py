r"""How far a factorization is from the best one of any rank: stationarity, and a duality gap.

With D = diag(λ), E = diag(ν) the problem over all ranks is convex (N. Srebro, J. Rennie, T. Jaakkola, "Maximum-margin
matrix factorization", NIPS 2004; B. Haeffele, R. Vidal, "Global optimality in tensor factorization, deep learning, and
beyond", 2015):

.. math::

    \min_{U,V} F(U, V) = \min_X ℓ(X) + ‖D^{½} X E^{½}‖_*,

and for ``G = −∇ℓ(UVᵀ)``, ``M = D^{−½} G E^{−½}`` and every s with ``s ‖M‖₂ ≤ 1``

.. math::

    F(U, V) − \min F  ≤  F(U, V) − \min_X [ℓ(X) + s ⟨G, X⟩].

Both terms are sums that one pass finds. What is left is a bound on ``‖M‖₂``: on the span of the factors it follows from
the gradient (:mod:`leyden.factor.deflation`; at a stationary point M is an isometry there), and outside from block
Lanczos with a Gaussian start (:func:`leyden.factor.enclosure.krylov_ceiling`), a pass a block. The leading vector of
what is outside, where it is longer than one, is the direction in which one more factor lowers F.

Rounding errors are bounded, not estimated, from sums of the same pass: what is certified of M holds for the computed
residuals, which are as good as any others in the inequality above; errors of scores count by ``Σ ω ‖u‖² ‖v‖²``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leyden import aligned
from leyden.engine.reduction import Reduction, Scratch
from leyden.engine.sweep import Engine
from leyden.factor import _als_kernels as kernels
from leyden.factor.deflation import Deflation, deflation, nothing
from leyden.factor.enclosure import krylov_ceiling
from leyden.factor.half_step import Entries, HalfStep, padded
from leyden.factor.krylov import KrylovSpace, gaussian
from leyden.factor.objective import Objective
from leyden.rows.base import Block, Rows
from leyden.solve.reductions import U, gamma

#: Vectors of a block of the Krylov space.
BLOCK = 16

#: Blocks of the Krylov space at most: memory of twice as many vectors of the length of the items.
MOST_BLOCKS = 40

#: Users whose products are summed by BLAS: rounding errors are bounded by the length of such sums and their number.
SUMMED = 512

#: Ratings whose users are evaluated at once, and what the number of users that memory is made for is a multiple of.
TOGETHER, ROOM = 2**15, 1024


@dataclass
class EvaluationState:
    """Sums over users; see :func:`leyden.factor._als_kernels.evaluate`.

    Attributes
    ----------
    inverse : ndarray, shape (d,)
        ``Σ_i u_ik² / λ_i``.
    spread : ndarray, shape (items,)
        ``Σ_i |h_ij|``.
    most : ndarray, shape (1,)
        The largest ``Σ_j |h_ij| / λ_i``.
    longest : int
        Ratings of the user who has the most.
    depth, additions : int
        Additions that a number of ``gradient``, and one of ``gram``, went through at most.
    """

    sums: np.ndarray
    missing: np.ndarray
    gradient: np.ndarray
    image: np.ndarray
    rest: np.ndarray
    gram: np.ndarray
    weighted: np.ndarray
    inverse: np.ndarray
    spread: np.ndarray
    most: np.ndarray
    ratings: int = 0
    longest: int = 0
    depth: int = 0
    additions: int = SUMMED


@dataclass(frozen=True)
class Rounding:
    """Bounds on rounding errors.

    Attributes
    ----------
    value, linear, quadratic : float
        Of these.
    missing, gradient : ndarray, shape (d,)
        ``‖D^½ u − M E^½ v‖`` of each factor, and the error of ``E^{−½}`` times the gradient.
    gram : float
        Of entry (k, l) of ``weighted``, relative to the root of entries (k, k) and (l, l).
    users, items : float
        Of ``M x`` and of ``Mᵀ y``, relative to the lengths of x and y.
    """

    value: float
    linear: float
    quadratic: float
    missing: np.ndarray
    gradient: np.ndarray
    gram: float
    users: float
    items: float

    def image(self, norm: float) -> float:
        """Of ``MᵀM x``, relative to the length of x, if ``‖M‖ ≤ norm``."""
        return self.users * norm + self.items * (norm + self.users)


@dataclass(frozen=True)
class Evaluated:
    """What one pass tells of factors V and a block X.

    Attributes
    ----------
    value : float
        F(U, V) for the users that are best for V.
    v : ndarray, shape (items, d)
        V in the basis of its right singular vectors, in which F is the same, longest column first. With biases the
        last column is the items'. Nonnegative factors are as they were.
    gradient : ndarray, shape (items, d)
        Of ``V ↦ F(U, V)`` at this ``v``, at those users.
    linear, quadratic : float
        ``min_X [ℓ(X) + s ⟨G, X⟩] = constant + s linear − ½ s² quadratic``.
    constant : float
    weighted : ndarray, shape (rank, rank)
        ``Uᵀ D U``.
    left : float
        ``‖D^(−½) ∇_U F‖``: zero but for rounding.
    norm : float
        ``(Σ λ_i ‖u_i‖² + Σ ν_j ‖v_j‖²)^½``.
    stationarity : float
        ``‖(D^(−½) ∇_U F, E^(−½) ∇_V F)‖`` relative to ``norm``.
    image : ndarray, shape (items, b)
        ``MᵀM X``.
    rounding : Rounding
    ceiling : float
        A bound on ``‖M‖₂`` that needs no more than sums of absolute values (I. Schur, 1911): the geometric mean of the
        largest ``Σ_j |m_ij| (ν_j / λ_i)^½`` of a user and ``Σ_i |m_ij| (λ_i / ν_j)^½`` of an item.
    """

    value: float
    v: np.ndarray
    gradient: np.ndarray
    linear: float
    quadratic: float
    constant: float
    weighted: np.ndarray
    left: float
    norm: float
    stationarity: float
    image: np.ndarray
    rounding: Rounding
    ceiling: float

    def dual(self, norm: float) -> float:
        """The largest lower bound of the objective that ``‖M‖₂ ≤ norm`` allows, less its rounding errors."""
        return self._dual(norm, -1.0)

    def gap(self, norm: float) -> float:
        """The most that F can be above its least value over all ranks, relative to F, if ``‖M‖₂ ≤ norm``."""
        return self._relative(self.value + self.rounding.value - self.dual(norm))

    def least_gap(self, norm: float) -> float:
        """What :meth:`gap` cannot be below, however few its rounding errors, if ``‖M‖₂ ≥ norm``."""
        return self._relative(self.value - self.rounding.value - self._dual(norm, 1.0))

    def _dual(self, norm: float, sign: float) -> float:
        most = (1 - 4 * U) / norm if norm > 0 else math.inf
        best = self.linear / self.quadratic if self.quadratic > 0 else 0.0
        s = max(0.0, min(most, best))
        found = self.constant + s * self.linear - 0.5 * s * s * self.quadratic
        return found + sign * (s * self.rounding.linear + 0.5 * s * s * self.rounding.quadratic)

    def _relative(self, value: float) -> float:
        return max(value, 0.0) / self.value if self.value > 0 else 0.0


class Kept:
    """Residuals of all ratings and factors of all users, when there is room: later passes then need no more solving.

    Parameters
    ----------
    indptr : int64, shape (users + 1,), optional
        Where the ratings of a user begin; without it nothing is kept.
    width : int
        Columns of the users' factors; 0 keeps none.
    """

    __slots__ = ("_indptr", "_there", "h", "u")

    def __init__(self, indptr: np.ndarray | None = None, width: int = 0):
        self._indptr, self._there = indptr, np.zeros(0 if indptr is None else len(indptr) - 1, bool)
        self.h = np.empty(0 if indptr is None else int(indptr[-1]))
        self.u = np.empty((0 if indptr is None or not width else len(indptr) - 1, width))

    def part(self, start: int, count: int) -> np.ndarray:
        """The residuals of a block of users."""
        if self._indptr is None:
            return self.h
        first = int(self._indptr[start])
        return self.h[first : first + count]

    def users(self, start: int, u: np.ndarray) -> None:
        """Keep the factors of a block of users."""
        if len(self.u):
            self.u[start : start + len(u)] = u
        self._there[start : start + len(u)] = True

    @property
    def any(self) -> bool:
        """Whether something is kept at all."""
        return self._indptr is not None

    def holds(self, start: int, count: int) -> bool:
        """Whether a block of users has been kept: not those of a pass that a checkpoint had."""
        return bool(self._there[start : start + count].all())

    def __repr__(self) -> str:
        return "Kept()"  # what is kept does not change what is computed


@dataclass
class ImageState:
    """Sums over users; see :func:`leyden.factor._als_kernels.evaluate`."""

    image: np.ndarray
    rest: np.ndarray


class KeptImage(Reduction[ImageState, np.ndarray]):
    """``MᵀM X`` of residuals that an evaluation kept.

    Parameters
    ----------
    evaluation : Evaluation
        With the x in question, which keeps there what is missing.
    kept : Kept
    """

    def __init__(self, evaluation: Evaluation, kept: Kept):
        self.evaluation, self._kept, self._scratch = evaluation, kept, Scratch()

    @property
    def state_nbytes(self) -> int:
        (m, b), d = self.evaluation.x.shape, len(self.evaluation.low)
        return 8 * b * (m + d)

    def start(self) -> ImageState:
        (m, b), d = self.evaluation.x.shape, len(self.evaluation.low)
        return ImageState(np.zeros((m, b)), np.zeros((d, b)))

    def update(self, state: ImageState, block: Block) -> ImageState:
        of, data, kept = self.evaluation, block.data, self._kept
        assert not isinstance(data, np.ndarray)
        if not kept.holds(block.start, block.rows):
            of.update(of.start(), block)
        u = kept.u[block.start : block.start + block.rows] if len(kept.u) else np.empty((0, len(of.low)))
        kernels.image_kept(
            np.asarray(data.indptr, np.int64), data.indices, kept.part(block.start, len(data.indices)),
            of.objective.unobserved, u, of.user_penalties, of.x, of.low, state.image, state.rest,
            self._scratch.array("y", (1, of.x.shape[1])),
        )  # fmt: skip
        return state

    def merge(self, a: ImageState, b: ImageState) -> ImageState:
        a.image += b.image
        a.rest += b.rest
        return a

    def finish(self, state: ImageState) -> np.ndarray:
        return self.evaluation.pulled(state.image, state.rest)


#: Factors may be of any length: squares beyond float64 make infinite bounds.
_any_length = np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")


class Evaluation(Reduction[EvaluationState, Evaluated]):
    """The objective, its gradient and ``MᵀM X`` in one pass, in float64, users solved on the way.

    Parameters
    ----------
    objective : Objective
    v : ndarray, shape (items, rank) or (items, rank + 1)
        Item factors; with biases the last column is the items'.
    user_penalties : ndarray
        λ by the number of ratings.
    item_penalties : ndarray, shape (items,)
        ν.
    x : ndarray, shape (items, b), optional
    biases : bool
    nonnegative : bool
    kept : Kept, optional
        Takes residuals and users.
    dtype : float64 or float32
        What users are solved in. Everything is computed of the users that were found, in float64.
    """

    @_any_length
    def __init__(
        self,
        objective: Objective,
        v: np.ndarray,
        user_penalties: np.ndarray,
        item_penalties: np.ndarray,
        x: np.ndarray | None = None,
        biases: bool = False,
        nonnegative: bool = False,
        kept: Kept | None = None,
        dtype: Any = np.float64,
    ):
        self.nonnegative, self.dtype = nonnegative, np.dtype(dtype)
        self._kept = kept or Kept()
        self.objective, self.user_penalties, self.item_penalties = objective, user_penalties, item_penalties
        self.rank, self.bias = v.shape[1] - biases, v.shape[1] - 1 if biases else -1
        items = len(v)
        width = padded(self.rank + 2 * biases)
        self.v = aligned.zeros((items, width))
        factors = v[:, : self.rank]
        self.v[:, : self.rank] = factors if nonnegative else factors @ right_singular_vectors(factors)
        self.theta = np.zeros(width)
        self.shared = np.zeros((width, width))
        #: α₀ VᵀV but for the diagonal, which the rotation has left over.
        self.off = np.zeros((width, width))
        if objective.unobserved:
            form = objective.unobserved * (self.v.T @ self.v)
            if nonnegative:
                self.shared = form
            else:
                self.theta = np.diag(form).copy()
                self.off = form - np.diag(self.theta)
        self.shift = np.zeros(0)
        if biases:
            self.v[:, self.bias], self.v[:, self.bias + 1] = 1.0, v[:, self.rank]
            self.shift = np.ascontiguousarray(v[:, self.rank])
        #: What a user's unknowns are multiplied with: with biases, one for the user's and nothing for the items'.
        self.features = self.v
        if biases or self.dtype != np.float64:
            self.features = aligned.copy(self.v, self.dtype)
        if biases:
            self.features[:, self.bias + 1] = 0.0
        count = 0 if x is None else x.shape[1]
        self.count = count
        self.x = aligned.zeros((items, -(-count // 8) * 8))
        if x is not None:
            self.x[:, :count] = x / np.sqrt(item_penalties)[:, None]
        self.low = self.v.T @ self.x
        self.scales = np.column_stack([np.einsum("ij,ij->i", self.v, self.v), 1 / item_penalties])
        self._scratch = Scratch()

    @property
    def state_nbytes(self) -> int:
        (m, d), b = self.v.shape, self.x.shape[1]
        return 8 * (m * (d + b + 1) + d * (2 * d + b + 2) + 25)

    @property
    def scratch_nbytes(self) -> int:
        d = self.v.shape[1]
        return int(40 * d * d + 12 * d * (TOGETHER + ROOM) + 2**21)

    def start(self) -> EvaluationState:
        (m, d), b = self.v.shape, self.x.shape[1]
        return EvaluationState(
            np.zeros((2, 9)), np.zeros(d), aligned.zeros((m, d)), aligned.zeros((m, b)), np.zeros((d, b)),
            np.zeros((d, d)), np.zeros((d, d)), np.zeros(d), np.zeros(m), np.zeros(1),
        )  # fmt: skip

    @_any_length
    def update(self, state: EvaluationState, block: Block) -> EvaluationState:
        data: Any = block.data
        indptr = np.asarray(data.indptr, np.int64)
        # So many users at a time that the item factors they were found with are still near.
        count = max(1, int(TOGETHER * block.rows / max(len(data.indices), 1)))
        for first in range(0, block.rows, count):
            last = min(first + count, block.rows)
            span = slice(int(indptr[first]), int(indptr[last]))
            entries = Entries.of(indptr[first : last + 1] - indptr[first], data.indices[span], data.data[span])
            kept = self._kept.part(block.start + first, len(entries.indices))
            if not self._kept.any:
                kept = self._scratch.array("kept", (-(-len(entries.indices) // ROOM) * ROOM,))
            self._kept.users(block.start + first, self._evaluate(state, entries, kept))
        state.depth += block.rows
        state.ratings += len(data.indices)
        return state

    def _evaluate(self, state: EvaluationState, entries: Entries, kept: np.ndarray) -> np.ndarray:
        """Add what some users tell; gives their factors."""
        width, scratch, count = self.v.shape[1], self._scratch, len(entries.order)
        solve = scratch.__dict__.get("solve")
        if solve is None:
            active = self.rank if self.nonnegative else 0
            columns = self.rank + 2 * (self.bias >= 0)
            solve = scratch.__dict__["solve"] = HalfStep(width, self.dtype, 1, active, active=columns)
        room = -(-count // ROOM) * ROOM, width
        found = scratch.array("found", room, self.dtype)[:count]
        if self.nonnegative:
            found[:] = 0.0
        form = self.shared if self.nonnegative else self.theta
        solve(entries, self.objective.model, self.features, form, self.user_penalties, found, self.shift)
        u = found
        if self.dtype != np.float64:
            u = scratch.array("users", room)[:count]
            u[:] = found
        counts = entries.counts
        if self.bias >= 0:
            u[:, self.bias + 1] = counts > 0
        kernels.evaluate(
            entries.indptr, entries.indices, entries.values, self.objective.whole, self.objective.unobserved, u, self.v,
            self.theta, self.shared, self.user_penalties, self.scales, self.x, self.low, state.sums, state.missing,
            state.gradient, state.image, state.rest, scratch.array("y", (1, max(self.x.shape[1], 1))),
            scratch.array("left", (1, width)), self.bias, self.nonnegative, kept, state.most, state.spread,
        )  # fmt: skip
        penalties = self.user_penalties[counts][:, None]
        for first in range(0, count, SUMMED):
            part = slice(first, first + SUMMED)
            state.gram += u[part].T @ u[part]
            state.weighted += (u[part] * penalties[part]).T @ u[part]
            state.inverse += (u[part] ** 2 / penalties[part]).sum(axis=0)
            state.additions += 1
        state.longest = max(state.longest, int(counts.max(initial=0)))
        return u

    def merge(self, a: EvaluationState, b: EvaluationState) -> EvaluationState:
        for k in range(a.sums.shape[1]):
            total = a.sums[0, k] + b.sums[0, k]
            z = total - a.sums[0, k]
            a.sums[1, k] += b.sums[1, k] + ((a.sums[0, k] - (total - z)) + (b.sums[0, k] - z))
            a.sums[0, k] = total
        a.missing += b.missing
        a.gradient += b.gradient
        a.image += b.image
        a.rest += b.rest
        a.gram += b.gram
        a.weighted += b.weighted
        a.inverse += b.inverse
        a.spread += b.spread
        np.maximum(a.most, b.most, out=a.most)
        a.ratings += b.ratings
        a.longest = max(a.longest, b.longest)
        a.depth, a.additions = max(a.depth, b.depth) + 1, max(a.additions, b.additions) + 1
        return a

    @_any_length
    def finish(self, state: EvaluationState) -> Evaluated:
        loss, squares, along, dual, biased = (state.sums[0] + state.sums[1])[:5].tolist()
        left = float(state.missing.sum())
        objective, nu, d = self.objective, self.item_penalties, self.rank
        alpha = objective.unobserved
        v = self.v.copy()
        if self.bias >= 0:
            v[:, self.bias] = 0.0
        gradient = nu[:, None] * v - state.gradient
        if alpha:
            gradient += alpha * (v @ state.gram)
        weighted = state.weighted
        users = float(np.delete(np.diag(weighted), self.bias + 1 if self.bias >= 0 else []).sum())
        if self.bias >= 0:
            gradient[:, self.bias] = 0.0
            biased += float((state.gradient[:, self.bias + 1] ** 2 / nu).sum())
        outside = alpha * max(float(np.vdot(state.gram, self.v.T @ self.v)) - squares, 0.0) if alpha else 0.0
        items = float((nu * np.einsum("ij,ij->i", v, v)).sum())
        constant = objective.constant * state.ratings
        if self.nonnegative:
            gradient = np.where(v > 0, gradient, np.minimum(gradient, 0.0))
            gradient[:, d:] = 0.0
        missing = left + float((np.einsum("ij,ij->i", gradient, gradient) / nu).sum())
        norm = math.sqrt(users + items)
        columns = [*range(d), *([self.bias + 1] if self.bias >= 0 else [])]
        return Evaluated(
            value=constant + loss + 0.5 * outside + 0.5 * (users + items),
            v=v[:, columns],
            gradient=gradient[:, columns],
            linear=along,
            quadratic=dual + outside + biased,
            constant=constant,
            weighted=weighted[:d, :d],
            left=math.sqrt(left),
            norm=norm,
            stationarity=math.sqrt(missing) / norm if norm else 0.0,
            image=self.pulled(state.image, state.rest),
            rounding=self._rounding(state, users + items, outside),
            ceiling=self._ceiling(state),
        )

    def _ceiling(self, state: EvaluationState) -> float:
        most = math.sqrt(float(state.most[0]) * float((state.spread / self.item_penalties).max(initial=0.0)))
        if self.objective.unobserved:
            # What all pairs share is a product of factors, whose norm is below that of its roots.
            shrunk = np.sqrt((self.v**2 / self.item_penalties[:, None]).sum(axis=0))
            most += self.objective.unobserved * float(np.sqrt(state.inverse) @ shrunk)
        return most * (1 + gamma(state.depth + state.longest + len(self.v) + 64))

    def _rounding(self, state: EvaluationState, penalties: float, outside: float) -> Rounding:
        """What the sums of a pass may be wrong by; names are those of ``docs/matrix-factorization.md``."""
        loss, squares, _, dual, biased, targets, reach, sizes, weights = np.abs(state.sums[0] + state.sums[1]).tolist()
        (m, width), nu, rank = self.v.shape, self.item_penalties, self.rank
        alpha = self.objective.unobserved
        score, user = gamma(3 * width + 16), gamma(state.longest + 16)
        item, gram, low = gamma(state.depth + width + 16), gamma(state.additions + width + 64), gamma(m + width + 16)
        t, x, q = math.sqrt(targets), math.sqrt(reach), math.sqrt(dual)
        # Lengths of columns of U, V, D^{±½} U, E^{±½} V.
        u = np.sqrt(np.maximum(np.diag(state.gram), 0.0))
        weighted, inverse = np.sqrt(np.maximum(np.diag(state.weighted), 0.0)), np.sqrt(state.inverse)
        squared = self.v**2
        v = np.sqrt(squared.sum(axis=0))
        scaled, shrunk = np.sqrt((squared * nu[:, None]).sum(axis=0)), np.sqrt((squared / nu[:, None]).sum(axis=0))
        outer = alpha * float(inverse @ shrunk)
        beyond = 0.0
        if alpha:
            beyond = (gram + low) * alpha * float(u @ v) ** 2 + user * alpha * squares
            beyond += 2 * score * math.sqrt(alpha * squares) * x + (score * x) ** 2
        biases = 0.0
        if self.bias >= 0:
            # Of sums of residuals, squared: a user's are summed one by one, an item's over users.
            for unit, terms, least in ((user, state.longest, self.user_penalties.min()), (item, state.depth, nu.min())):
                size = math.sqrt(terms * dual / float(least))
                biases += 2 * unit * size * (math.sqrt(biased) + size)
        rows, columns = U * math.sqrt(weights), math.sqrt(sizes)
        off = inverse @ (np.abs(self.off) + low * alpha * np.outer(v, v)) if alpha else np.zeros(width)
        missing = np.sqrt(state.missing) + gamma(width + 16) * (weighted + self.theta * inverse) + rows * scaled + off
        gradient = item * (scaled + columns * weighted)
        if alpha:
            gradient += (gram + item) * alpha * float(shrunk @ u) * u
        return Rounding(
            value=score * q * x + (score * x) ** 2 + user * loss + gram * penalties + 0.5 * beyond,
            linear=user * t * q + (score * t * x if alpha else 0.0),
            quadratic=user * dual + (2 * score * q * x if alpha else 0.0) + beyond + biases + gram * outside,
            missing=missing[:rank],
            gradient=gradient[:rank],
            gram=gram,
            users=rows + low * outer,
            items=item * (columns + outer),
        )

    def pulled(self, image: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """``MᵀM X`` of the sums over users."""
        if self.objective.unobserved:
            image = image - self.objective.unobserved * (self.v @ rest)
        return (image / np.sqrt(self.item_penalties)[:, None])[:, : self.count]


@dataclass
class Gap:
    """The norm of M, and what follows from it.

    Attributes
    ----------
    evaluated : Evaluated
    norm : float
        Upper bound of ``‖M‖₂``.
    inside : float
        ``‖MS‖₂``: one at a stationary point.
    outside : (float, float)
        Estimate from below, and upper bound, of ``‖M (I − SSᵀ)‖₂``.
    directions : ndarray, shape (items, p)
        Right singular vectors of what is outside that belong to values above one: what more factors would use.
    value : float
        ``F − dual``, relative to F.
    least : float
        What no passes and no luck can bring ``value`` below.
    confidence : float
    passes : int
    """

    evaluated: Evaluated
    norm: float
    inside: float
    outside: tuple[float, float]
    directions: np.ndarray
    value: float
    least: float
    confidence: float
    passes: int
    history: list[float] = field(default_factory=list)


@_any_length
def gap(
    engine: Engine,
    rows: Rows,
    objective: Objective,
    v: np.ndarray,
    user_penalties: np.ndarray,
    item_penalties: np.ndarray,
    *,
    biases: bool = False,
    nonnegative: bool = False,
    passes: int = 12,
    enough: float = 0.0,
    stationary: float = math.inf,
    seed: int = 0,
    failure: float = 1e-9,
    label: str = "optimality",
    indptr: np.ndarray | None = None,
    dtype: Any = np.float64,
) -> Gap:
    """Certify item factors: at most ``passes`` passes, less when the gap is below ``enough`` before.

    With no passes for it there is one all the same, and ``‖M‖₂`` is bounded by sums of absolute values.

    Parameters
    ----------
    v : ndarray of float64, shape (items, rank [+ 1])
    user_penalties : ndarray
        λ by the number of ratings.
    item_penalties : ndarray, shape (items,)
    enough : float
        Relative gap at which to stop.
    stationary : float
        Stationarity above which one pass is enough: the factors will be improved first.
    failure : float
        Probability with which the bound may be wrong, over the random start.
    indptr : int64, shape (users + 1,), optional
        Where the ratings of each user begin, when there is room to keep what the first pass found of each.
    dtype : float64 or float32
        What users are solved in: what float32 leaves of their gradient counts as any other.
    """
    items, rank = len(v), v.shape[1] - biases
    root = np.sqrt(item_penalties)[:, None]
    width = min(BLOCK, items)
    # Nobody can have chosen factors that suit it: the start is a function of them that is as good as random.
    start = gaussian(items, width, seed_of(v, seed))

    kept = Kept(indptr if passes > 1 else None, padded(rank) if objective.unobserved else 0)

    def evaluate(x: np.ndarray | None, number: int) -> Evaluated:
        reduction = Evaluation(objective, v, user_penalties, item_penalties, x, biases, nonnegative, kept, dtype)
        found: Evaluated
        (found,) = engine.sweep(rows, [reduction], f"{label} {number}")
        return found

    def mapped(x: np.ndarray, number: int) -> np.ndarray:
        if not kept.any:
            return evaluate(x, number).image
        reduction = Evaluation(objective, v, user_penalties, item_penalties, x, biases, nonnegative, kept)
        found: np.ndarray
        (found,) = engine.sweep(rows, [KeptImage(reduction, kept)], f"{label} {number}")
        return found

    first = evaluate(start if passes else None, 1)
    if not math.isfinite(first.value + first.stationarity + first.linear + first.quadratic):
        # Users are lost in rounding: nothing is known.
        return Gap(first, math.inf, math.inf, (0.0, math.inf), np.zeros((items, 0)), math.inf, 0.0, 1.0, 1)
    known = nothing(items)
    if not nonnegative and (passes or items <= rank):
        # With factors that are bounded below users are no stationary point of F, and M is not known on any span. The
        # bound is that of factors of either sign, which reach no less. And what is known of a part of the items
        # cannot make the bound on sums of absolute values smaller.
        known = deflation(
            root * first.v[:, :rank], first.gradient[:, :rank] / root, first.weighted, first.rounding.missing,
            first.rounding.gradient, first.rounding.gram,
        )  # fmt: skip
    s, room = known.s, min(items - known.s.shape[1], width)
    found = Gap(first, 0.0, 0.0, (0.0, 0.0), np.zeros((items, 0)), math.inf, 0.0, 1.0, 1)
    if room == 0 or passes == 0:
        _close(found, known, lambda _: 0.0 if room == 0 else first.ceiling**2)
        found.outside = 0.0, 0.0 if room == 0 else first.ceiling
        found.least = first.least_gap(known.inside_least(found.norm))
        return found
    # The start is taken into the basis of its own span: a triangle that a Gaussian block keeps well conditioned.
    q, r = np.linalg.qr((start - s @ (s.T @ start))[:, :room])
    image = first.image[:, :room] - known.images @ (s.T @ start)[:, :room]
    space = KrylovSpace(q, min(items, width * (min(passes, MOST_BLOCKS) + 1)))
    space.block = q
    image = np.linalg.solve(r.T, image.T).T
    stretch = float(np.linalg.norm(start)) / max(float(np.linalg.norm(r, -2)), 1e-300)
    number, floor = 1, first.gap(known.norm(lambda _: 0.0))
    while True:
        image -= s @ (s.T @ image)
        space.add(image)
        pairs = space.pairs(width)
        theta = max(float(pairs.theta[0]), 0.0)
        steps = space.steps if not space.invariant else 10**4
        growth = krylov_ceiling(0, 1.0, items, room, steps, 0.0, failure).value

        def error(norm: float) -> float:
            # The images are those of a matrix that differs by no more than this.
            unit = first.rounding.image(norm) + 1e-14 * norm * norm
            return space.drift + 2 * math.hypot(
                stretch * (unit + known.image_error(norm)), math.sqrt(space.size) * unit
            )

        def outside(norm: float, theta: float = theta, growth: float = growth) -> float:
            return growth * (theta + 2 * error(norm))

        _close(found, known, outside)
        found.outside = math.sqrt(max(theta - error(found.norm), 0.0)), math.sqrt(outside(found.norm))
        found.least = first.least_gap(max(found.outside[0], known.inside_least(found.norm)))
        more = int((pairs.theta > 1).sum())
        found.directions = space.vectors(pairs)[:, :more] if more else found.directions
        found.confidence, found.passes = 1 - failure, number
        found.history.append(found.value)
        if (
            number >= passes
            or first.stationarity > stationary
            or found.value <= enough
            or space.invariant
            or space.full
        ):
            return found
        # With an estimate below that is too large, or what is inside at the top, there is nothing to be gained by a
        # sharper bound above.
        if found.value <= 1.05 * max(found.least if found.least > enough else 0.0, floor):
            return found
        number += 1
        w = space.block
        image = mapped(w, number) - known.images @ (s.T @ w)


def _close(found: Gap, known: Deflation, outside: Callable[[float], float]) -> None:
    """The bound on ``‖M‖``, and the gap that follows."""
    found.norm = min(known.norm(outside), found.evaluated.ceiling)
    found.inside = known.inside(found.norm)
    found.value = found.evaluated.gap(found.norm)


def right_singular_vectors(v: np.ndarray) -> np.ndarray:
    """Of factors (items, d), those of the longest direction first."""
    vt: np.ndarray = np.linalg.svd(np.linalg.qr(v, mode="r"), full_matrices=True)[2]
    return vt.T


def seed_of(v: np.ndarray, seed: int) -> int:
    """A seed below 2⁶⁴ that depends on every bit of the factors."""
    found = hashlib.blake2b(np.ascontiguousarray(v).data, digest_size=8, key=seed.to_bytes(8, "little"))
    return int.from_bytes(found.digest(), "little")
