r"""How far a factorization is from the best one of any rank: stationarity, and a duality gap.

With D = diag(λ), E = diag(ν) the problem over all ranks is convex (N. Srebro, J. Rennie, T. Jaakkola, "Maximum-margin
matrix factorization", NIPS 2004; B. Haeffele, R. Vidal, "Global optimality in tensor factorization, deep learning, and
beyond", 2015):

.. math::

    \min_{U,V} F(U, V) = \min_X ℓ(X) + ‖D^{½} X E^{½}‖_*,

and for ``G = −∇ℓ(UVᵀ)``, ``M = D^{−½} G E^{−½}`` and every s with ``s ‖M‖₂ ≤ 1``

.. math::

    F(U, V) − \min F  ≤  F(U, V) − \min_X [ℓ(X) + s ⟨G, X⟩].

Both terms are sums that one pass finds. What is left is a bound on ``‖M‖₂``. U solves its half-step, so ``G V = D U``:
M maps the span of ``E^½ V`` to that of ``D^½ U``, with gains that two small Gram matrices tell; at a stationary point
they are one. With an orthonormal basis S of it, and c an upper bound of ``‖M (I − SSᵀ)‖₂``,

.. math::

    ‖M‖₂² ≤ λ_{max} \begin{pmatrix} ‖MS‖² & e \\ e & c² \end{pmatrix},
    \qquad e = ‖(I − SSᵀ) MᵀM S‖₂,

where ``MᵀM S`` is known from the gradient: the coupling e is of the size of what is missing to stationarity, and counts
squared. c comes from block Lanczos with a Gaussian start (:func:`leyden.factor.enclosure.krylov_ceiling`), a pass a
block; its leading vector, where c > 1, is the direction in which one more factor lowers F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leyden.engine.reduction import Reduction, Scratch
from leyden.engine.sweep import Engine
from leyden.factor import _als_kernels as kernels
from leyden.factor.enclosure import krylov_ceiling
from leyden.factor.half_step import Entries, HalfStep, padded
from leyden.factor.krylov import KrylovSpace, gaussian, orthonormal
from leyden.factor.objective import Objective
from leyden.rows.base import Block, Rows
from leyden.solve.reductions import gamma

#: Vectors of a block of the Krylov space.
BLOCK = 16

#: Blocks of the Krylov space at most: memory of twice as many vectors of the length of the items.
MOST_BLOCKS = 40

#: Share of the largest singular value below which a direction of ``E^½ V`` is left to the Krylov space.
NEGLIGIBLE = 1e-10


@dataclass
class EvaluationState:
    """Sums over users; see :func:`leyden.factor._als_kernels.evaluate`."""

    sums: np.ndarray
    gradient: np.ndarray
    image: np.ndarray
    rest: np.ndarray
    gram: np.ndarray
    weighted: np.ndarray
    ratings: int = 0
    longest: int = 0


@dataclass(frozen=True)
class Evaluated:
    """What one pass tells of factors V and a block X.

    Attributes
    ----------
    value : float
        F(U, V) for the users that are best for V.
    gradient : ndarray, shape (items, d)
        Of ``U ↦ F(U, V)`` with respect to V, at those users.
    linear, quadratic : float
        ``min_X [ℓ(X) + s ⟨G, X⟩] = constant + s linear − ½ s² quadratic``.
    constant : float
    weighted : ndarray, shape (d, d)
        ``Uᵀ D U``.
    left : float
        ``‖D^(−½) ∇_U F‖``: zero but for rounding.
    norm : float
        ``(Σ λ_i ‖u_i‖² + Σ ν_j ‖v_j‖²)^½``.
    stationarity : float
        ``‖(D^(−½) ∇_U F, E^(−½) ∇_V F)‖`` relative to ``norm``.
    image : ndarray, shape (items, b)
        ``MᵀM X``.
    rounding : float
        Bound on the relative rounding errors of the sums.
    """

    value: float
    gradient: np.ndarray
    linear: float
    quadratic: float
    constant: float
    weighted: np.ndarray
    left: float
    norm: float
    stationarity: float
    image: np.ndarray
    rounding: float

    def dual(self, norm: float) -> float:
        """The largest lower bound of the objective that ``‖M‖₂ ≤ norm`` allows."""
        most = 1 / norm if norm > 0 else math.inf
        best = self.linear / self.quadratic if self.quadratic > 0 else 0.0
        s = max(0.0, min(most, best))
        return self.constant + s * self.linear - 0.5 * s**2 * self.quadratic


class Kept:
    """Residuals of all ratings and factors of all users, when there is room: later passes then need no more solving.

    Parameters
    ----------
    indptr : int64, shape (users + 1,), optional
        Where the ratings of a user begin; without it nothing is kept.
    width : int
        Columns of the users' factors; 0 keeps none.
    """

    __slots__ = ("_filled", "_indptr", "h", "u")

    def __init__(self, indptr: np.ndarray | None = None, width: int = 0):
        self._indptr, self._filled = indptr, list[int]()
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
        self._filled.append(len(u))

    @property
    def complete(self) -> bool:
        """Whether all users have been kept."""
        return self._indptr is not None and sum(self._filled) == len(self._indptr) - 1

    def __repr__(self) -> str:
        return "Kept()"  # what is kept does not change what is computed

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


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
        With the x in question.
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
    """

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
    ):
        self.nonnegative = nonnegative
        self._kept = kept or Kept()
        self.objective, self.user_penalties, self.item_penalties = objective, user_penalties, item_penalties
        self.rank, self.bias = v.shape[1] - biases, v.shape[1] - 1 if biases else -1
        items = len(v)
        width = padded(self.rank + 2 * biases)
        self.v = np.zeros((items, width))
        self.v[:, : self.rank] = v[:, : self.rank]
        self.q = np.eye(width)
        self.theta = np.zeros(width)
        self.shared = np.zeros((width, width))
        if nonnegative:
            self.shared = objective.unobserved * (self.v.T @ self.v)
        elif objective.unobserved:
            values, q = np.linalg.eigh(self.v.T @ self.v)
            self.q, self.theta = q, objective.unobserved * np.maximum(values, 0.0)
            self.v = self.v @ q
        self.shift = np.zeros(0)
        if biases:
            self.v[:, self.bias], self.v[:, self.bias + 1] = 1.0, v[:, self.rank]
            self.shift = np.ascontiguousarray(v[:, self.rank])
        count = 0 if x is None else x.shape[1]
        self.count = count
        self.x = np.zeros((items, -(-count // 8) * 8))
        if x is not None:
            self.x[:, :count] = x / np.sqrt(item_penalties)[:, None]
        self.low = self.v.T @ self.x
        self._scratch = Scratch()

    @property
    def state_nbytes(self) -> int:
        (m, d), b = self.v.shape, self.x.shape[1]
        return 8 * (m * (d + b) + d * (2 * d + b) + 12)

    @property
    def scratch_nbytes(self) -> int:
        d = self.v.shape[1]
        return 40 * d * d + 2**21

    def start(self) -> EvaluationState:
        (m, d), b = self.v.shape, self.x.shape[1]
        return EvaluationState(
            np.zeros((2, 6)), np.zeros((m, d)), np.zeros((m, b)), np.zeros((d, b)), np.zeros((d, d)), np.zeros((d, d))
        )

    def update(self, state: EvaluationState, block: Block) -> EvaluationState:
        data: Any = block.data
        entries = Entries.of(data.indptr, data.indices, data.data)
        width, scratch = self.v.shape[1], self._scratch
        solve = scratch.__dict__.get("solve")
        if solve is None:
            active = self.rank if self.nonnegative else 0
            solve = scratch.__dict__["solve"] = HalfStep(width, np.dtype(np.float64), 1, active)
        u = np.zeros((block.rows, width))
        form = self.shared if self.nonnegative else self.theta
        solve(entries, self.objective.model, self._features(), form, self.user_penalties, u, self.shift)
        counts = entries.counts
        if self.bias >= 0:
            u[:, self.bias + 1] = counts > 0
        kernels.evaluate(
            entries.indptr, entries.indices, entries.values, self.objective.whole, self.objective.unobserved, u, self.v,
            self.theta, self.shared, self.user_penalties, self.x, self.low, state.sums, state.gradient, state.image,
            state.rest, scratch.array("y", (1, max(self.x.shape[1], 1))), scratch.array("left", (1, width)), self.bias,
            self.nonnegative, self._kept.part(block.start, len(entries.indices)),
        )  # fmt: skip
        self._kept.users(block.start, u)
        state.gram += u.T @ u
        state.weighted += (u * self.user_penalties[counts][:, None]).T @ u
        state.ratings += len(entries.indices)
        state.longest = max(state.longest, int(counts.max(initial=0)))
        return state

    def _features(self) -> np.ndarray:
        """What a user's unknowns are multiplied with: with biases, one for the user's and nothing for the items'."""
        if self.bias < 0:
            return self.v
        found = getattr(self, "_solved", None)
        if found is None:
            found = self.v.copy()
            found[:, self.bias + 1] = 0.0
            self._solved = found
        return found

    def merge(self, a: EvaluationState, b: EvaluationState) -> EvaluationState:
        for k in range(a.sums.shape[1]):
            total = a.sums[0, k] + b.sums[0, k]
            z = total - a.sums[0, k]
            a.sums[1, k] += b.sums[1, k] + ((a.sums[0, k] - (total - z)) + (b.sums[0, k] - z))
            a.sums[0, k] = total
        a.gradient += b.gradient
        a.image += b.image
        a.rest += b.rest
        a.gram += b.gram
        a.weighted += b.weighted
        a.ratings += b.ratings
        a.longest = max(a.longest, b.longest)
        return a

    def finish(self, state: EvaluationState) -> Evaluated:
        loss, squares, along, dual, left, biased = (state.sums[0] + state.sums[1]).tolist()
        objective, nu, d = self.objective, self.item_penalties, self.rank
        alpha = objective.unobserved
        v = self.v.copy()
        if self.bias >= 0:
            v[:, self.bias] = 0.0
        gradient = nu[:, None] * v - state.gradient
        if alpha:
            gradient += alpha * (v @ state.gram)
        weighted = state.weighted
        users = float(np.trace(weighted))
        if self.bias >= 0:
            gradient[:, self.bias] = 0.0
            users -= float(weighted[self.bias + 1, self.bias + 1])
            biased += float((state.gradient[:, self.bias + 1] ** 2 / nu).sum())
        outside = alpha * max(float(np.vdot(state.gram, self.v.T @ self.v)) - squares, 0.0) if alpha else 0.0
        items = float(nu @ np.einsum("ij,ij->i", v, v))
        constant = objective.constant * state.ratings
        if self.nonnegative:
            gradient = np.where(v > 0, gradient, np.minimum(gradient, 0.0))
            gradient[:, d:] = 0.0
        missing = left + float((np.einsum("ij,ij->i", gradient, gradient) / nu).sum())
        norm = math.sqrt(users + items)
        columns = np.eye(self.v.shape[1])[:, : d + (self.bias >= 0)]
        if self.bias >= 0:
            columns[:, d] = 0.0
            columns[self.bias + 1, d] = 1.0
        back = self.q @ columns if self.bias < 0 else columns
        return Evaluated(
            value=constant + loss + 0.5 * outside + 0.5 * (users + items),
            gradient=gradient @ (self.q.T[:, :d] if self.bias < 0 else back),
            linear=along,
            quadratic=dual + outside + biased,
            constant=constant,
            weighted=(self.q @ weighted @ self.q.T)[:d, :d],
            left=math.sqrt(left),
            norm=norm,
            stationarity=math.sqrt(missing) / norm if norm else 0.0,
            image=self.pulled(state.image, state.rest),
            rounding=gamma(state.longest + self.v.shape[1] + 64),
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
    confidence : float
    passes : int
    """

    evaluated: Evaluated
    norm: float
    inside: float
    outside: tuple[float, float]
    directions: np.ndarray
    value: float
    confidence: float
    passes: int
    history: list[float] = field(default_factory=list)


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
) -> Gap:
    """Certify item factors: at most ``passes`` passes, less when the gap is below ``enough`` before.

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
    """
    items, rank = len(v), v.shape[1] - biases
    root = np.sqrt(item_penalties)[:, None]
    width = min(BLOCK, items)
    start = gaussian(items, width, seed)

    kept = Kept(indptr, padded(rank) if objective.unobserved else 0)

    def evaluate(x: np.ndarray, number: int) -> Evaluated:
        reduction = Evaluation(objective, v, user_penalties, item_penalties, x, biases, nonnegative, kept)
        found: Evaluated
        (found,) = engine.sweep(rows, [reduction], f"{label} {number}")
        return found

    def mapped(x: np.ndarray, number: int) -> np.ndarray:
        if not kept.complete:
            return evaluate(x, number).image
        reduction = Evaluation(objective, v, user_penalties, item_penalties, x, biases, nonnegative)
        found: np.ndarray
        (found,) = engine.sweep(rows, [KeptImage(reduction, kept)], f"{label} {number}")
        return found

    first = evaluate(start, 1)
    # With factors that are bounded below, users are no stationary point of F, and M is not known on any span. The bound
    # is that of factors of either sign, which reach no less.
    deflated = v[:, : 0 if nonnegative else rank]
    s, ms, inside, coupling = _deflation(root * deflated, first, root)
    projected = start - s @ (s.T @ start)
    image = first.image - ms @ (s.T @ start)
    image -= s @ (s.T @ image)
    room = min(items - s.shape[1], width)
    found = Gap(first, inside, inside, (0.0, 0.0), np.zeros((items, 0)), math.inf, 1.0, 1)
    if room == 0:
        found.norm = math.sqrt(_leading(inside**2, coupling, 0.0))
        _close(found)
        return found
    # The start is taken into the basis of its own span: a triangle that a Gaussian block keeps well conditioned.
    q, r = np.linalg.qr(projected)
    if room < width:
        q, r, image = *np.linalg.qr(projected[:, :room]), image[:, :room]
    space = KrylovSpace(q, min(items, width * (min(passes, MOST_BLOCKS) + 1)))
    space.block = q
    image = np.linalg.solve(r.T, image.T).T
    number, scale = 1, float(np.linalg.norm(first.image))
    while True:
        image -= s @ (s.T @ image)
        space.add(image, 1e-14 * scale)
        pairs = space.pairs(width)
        theta = max(float(pairs.theta[0]), 0.0)
        steps = space.steps if not space.invariant else 10**4
        ceiling = krylov_ceiling(0, theta, items, room, steps, space.drift, failure).value
        found.norm = math.sqrt(_leading(inside**2, coupling, ceiling))
        found.outside = math.sqrt(theta), math.sqrt(ceiling)
        more = int((pairs.theta > 1).sum())
        found.directions = space.vectors(pairs)[:, :more] if more else found.directions
        found.confidence, found.passes = 1 - failure, number
        _close(found)
        found.history.append(found.value)
        if (
            number >= passes
            or first.stationarity > stationary
            or found.value <= enough
            or space.invariant
            or space.full
        ):
            return found
        # With an estimate below that is too large there is nothing to be gained by a sharper bound above.
        least = 1 - first.dual(math.sqrt(max(theta, inside**2))) / first.value
        if least > enough and found.value <= 1.05 * least:
            return found
        number += 1
        w = space.block
        image = mapped(w, number) - ms @ (s.T @ w)


def _close(found: Gap) -> None:
    e = found.evaluated
    rounding = e.rounding * (abs(e.value) + abs(e.linear) + e.quadratic)
    lower = e.dual(found.norm)
    found.value = max(e.value - lower + rounding, 0.0) / e.value if e.value > 0 else 0.0


def _leading(a: float, e: float, c: float) -> float:
    """The largest eigenvalue of ``[[a, e], [e, c]]``."""
    return (a + c) / 2 + math.hypot((a - c) / 2, e)


def _deflation(scaled: np.ndarray, first: Evaluated, root: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Directions S of ``E^½ V``, ``MᵀM S``, ``‖MS‖`` and the coupling, for as many as make the bound small."""
    rank = scaled.shape[1]
    if rank == 0:
        return np.zeros((len(scaled), 0)), np.zeros((len(scaled), 0)), 0.0, 0.0
    q, r = np.linalg.qr(scaled)
    _, sizes, zt = np.linalg.svd(r)
    keep = int((sizes > NEGLIGIBLE * max(sizes[0], 1e-300)).sum()) if rank else 0
    if keep == 0:
        return np.zeros((len(scaled), 0)), np.zeros((len(scaled), 0)), 0.0, 0.0
    coefficients = zt[:keep].T / sizes[:keep]
    s = orthonormal(scaled @ coefficients)
    s *= np.sign(np.einsum("ij,ij->j", s, scaled @ coefficients))
    ms = scaled @ coefficients - (first.gradient[:, :rank] / root) @ coefficients
    gains = coefficients.T @ first.weighted @ coefficients
    best: tuple[float, int, float, float] | None = None
    for p in range(keep, 0, -1):
        gain = math.sqrt(max(float(np.linalg.eigvalsh(gains[:p, :p])[-1]), 0.0))
        out = ms[:, :p] - s[:, :p] @ (s[:, :p].T @ ms[:, :p])
        error = first.left * float(1 / sizes[p - 1])
        inside, coupling = gain + error, float(np.linalg.norm(out, 2)) + 2 * error * max(gain, 1.0)
        rest = max([0.8, *np.diag(gains)[p:].tolist()])
        bound = _leading(inside**2, coupling, rest)
        if best is None or bound < best[0] * (1 - 1e-12):
            best = bound, p, inside, coupling
        if p < keep - 64:
            break
    assert best is not None
    _, p, inside, coupling = best
    return s[:, :p], ms[:, :p], inside, coupling
