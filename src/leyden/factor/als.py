r"""Matrix factorization by alternating least squares: ``R ≈ U Vᵀ`` of ratings of any number, explicit or implicit.

The objective (:mod:`leyden.factor.objective`) is minimised over item factors V alone: users are the solution of small
ridge regressions against V, found again in every pass and never stored. What an epoch does is

==========  ==================================================================  ======================================
method      how                                                                 when
==========  ==================================================================  ======================================
resident    ratings in memory, by user and by item; two half-steps              ratings and users fit the budget
streamed    one pass over the users; normal equations of the items are added    ratings of any number
==========  ==================================================================  ======================================

Both are exact half-steps (:mod:`leyden.factor._als_kernels`): rows of few ratings are solved in the dual. Where the
rank is large and ratings are many, rows in memory are improved a subspace at a time instead (iALS++: Rendle, Krichene,
Zhang, Koren, 2021), which takes a fraction of the arithmetic and has the same fixed points. The map of an epoch is
accelerated (:mod:`leyden.factor.acceleration`) and stops when the certificate (:mod:`leyden.factor.optimality`) finds
what was asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leyden import aligned
from leyden import options as check
from leyden.engine.budget import format_bytes, thread_count
from leyden.engine.checkpoint import Checkpoint, as_checkpoint
from leyden.engine.executor import Executor, as_executor
from leyden.engine.fingerprint import fingerprint
from leyden.engine.local import Local, single_threaded_blas
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine, read_rate
from leyden.engine.workshop import Workshop
from leyden.errors import BudgetError, DataError, OptionError
from leyden.factor.acceleration import DEPTH, Anderson
from leyden.factor.als_result import ALSResult, Model, certified
from leyden.factor.half_step import Entries, padded
from leyden.factor.held_out import SHOWN, HeldOut, figures, held_out_of
from leyden.factor.krylov import gaussian
from leyden.factor.objective import Objective
from leyden.factor.optimality import Gap, gap
from leyden.factor.resident import Resident
from leyden.factor.start import spectral
from leyden.factor.streamed import BLOCK_NBYTES, ItemStep
from leyden.factor.survey import Survey, as_ratings, survey
from leyden.plan import PassPlan, Plan, machine, verb
from leyden.rows import Rows
from leyden.rows.sampled import SampledRows

METHODS = ("resident", "streamed")

MAX_RANK = 2048

#: Relative step below which float32 has said what it can.
SINGLE = 3e-5

#: Factors that have become this much shorter than those to begin with are none: what they foretell is its square.
VANISHED = 1e-15

#: Passes of block Lanczos that a certificate may take, and one that has a gap to show.
GAP_PASSES, MOST_PASSES = 12, 200
#: Ratings times factors from which a gap that nobody asked for is bounded by what one pass says, users in float32.
MUCH_WORK = 200_000_000
#: In memory, epochs of much work from one whose slope is found to the next: that takes a tenth of an epoch.
SLOPE_EVERY = 4

#: Ratings of an item, on average, that the first part of the users keeps, and one user in how many it is at least.
SAMPLED, LEAST_STRIDE = 200, 8
#: How many times the users of a part the next one has, and one user in how many the last one is at least.
PART_GROWTH, LAST_STRIDE = 4, 4
#: Step, times the root of the ratings of an item, at which a part has said what it can: the items that are best for it
#: are about so far from those for all users, however long it goes on. And epochs that it may take in any case.
PART_STEP, PART_EPOCHS = 0.7, 20

#: Parts that the normal equations of the items are computed in at most.
MOST_ITEM_PASSES = 64

#: Factors in a subspace, and factors from which on there may be several.
SUBSPACE, LEAST_WIDTH = 32, 192

#: Rank to begin with, and factors that are added at once at most, when the rank is to be found.
FIRST_RANK, MORE_FACTORS = 8, 8


@dataclass(frozen=True)
class Options:
    """What was asked, beside the data."""

    rank: int
    most: int
    biases: bool
    centre: bool
    nonnegative: bool
    tol: float
    gap: float | None
    epochs: int
    accelerate: bool
    subspace: int | None
    seed: int
    memory: int
    threads: int | None
    progress: bool | None
    checkpoint: Checkpoint | None
    executor: Executor | None
    evaluate_every: int


@verb
def als(
    ratings: Any,
    rank: int | str = 64,
    regularization: float = 0.1,
    *,
    scaling: float = 0.0,
    implicit: bool = False,
    alpha: float = 1.0,
    background: float | None = None,
    biases: bool = False,
    centre: bool = False,
    nonnegative: bool = False,
    tol: float = 1e-3,
    gap: float | None = None,
    epochs: int = 100,
    start: str | np.ndarray = "random",
    accelerate: bool = True,
    subspace: int | str | None = "auto",
    max_rank: int = 256,
    held_out: Any = None,
    evaluate_every: int = 1,
    method: str = "auto",
    memory: str | int | None = None,
    threads: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Plan[ALSResult]:
    """Factors of users and items whose products are the ratings, with a certificate of how good they are.

    Minimises ``½ Σ (r_ij − u_i·v_j)² + ½ Σ λ_i ‖u_i‖² + ½ Σ ν_j ‖v_j‖²`` over the ratings, or, with ``implicit``, a
    weighted sum over all pairs of users and items; see :mod:`leyden.factor.objective`.

    Parameters
    ----------
    ratings : Ratings, sparse matrix, or anything :func:`leyden.open_ratings` takes
        Users in rows, items in columns.
    rank : int or "auto", default 64
        Number of factors, up to 2048. With ``"auto"`` factors are added, along the directions in which the optimality
        conditions of all ranks are violated most, until the duality gap is below ``gap`` or ``max_rank`` is reached.
    regularization : float, default 0.1
        λ.
    scaling : float, default 0
        ν: a user of n ratings is regularised by ``λ n^ν``, and an item in the same way.
    implicit : bool, default False
        Whether values count how often something was chosen: weights are ``1 + alpha value`` and targets one where there
        is a value, weights one and targets zero elsewhere.
    alpha : float, default 1
    background : float, optional
        With ``implicit``: weights of one where there is a value, whatever it is, and of ``background`` for every pair,
        with target zero.
    biases : bool, default False
        Explicit ratings as ``mean + b_i + c_j + u_i·v_j``, the biases regularised like the factors.
    centre : bool, default False
        Explicit ratings as ``mean + u_i·v_j``; with biases they are.
    nonnegative : bool, default False
        Whether factors are to be zero or more (biases may be anything). The duality gap is then relative to factors of
        either sign, and need not close.
    tol : float, default 1e-3
        What the norm of the gradient, relative to that of the factors, is certified to stay below.
    gap : float, optional
        What the relative duality gap is certified to stay below: the distance to the best factorization of any rank.
    epochs : int, default 100
        The most epochs to make over all users; when there are very many, some over a part of them come first.
    start : {"random", "spectral"} or ndarray, shape (items, rank)
        Item factors to begin with; spectral: along the leading right singular vectors of the ratings, found in two
        passes, which takes fewer epochs and fits less noise in the first of them.
    accelerate : bool, default True
        Whether to extrapolate from epoch to epoch. The objective never rises.
    subspace : int or None, default "auto"
        Factors that users and items of many ratings are improved in at a time, the others held, as iALS++ does; None
        for exact half-steps. By default 32 where the rank is at least 192 and ratings are many. For ratings that fit
        in memory. The certificate solves all users exactly in any case.
    max_rank : int, default 256
        With ``rank="auto"``.
    held_out : Ratings, sparse matrix, path, or False; optional
        Ratings that epochs are judged by: those that were set apart when the ratings were opened, if there are any, by
        default; False for none. Ratings with ids are found by them; a matrix has the shape of the ratings. The error
        (recall, NDCG and hit rate) of a fixed sample of the users stands in ``history``, with confidence intervals.
    evaluate_every : int, default 1
        Epochs from one such look to the next.
    method : {"auto", "resident", "streamed"}
        See :mod:`leyden.factor.als`.
    memory : str or int, optional
        Budget, as ``"2GB"`` or bytes; half of the free memory by default.
    threads : int, optional
        All processors by default.
    seed : int, default 0
        Of the random start, below 2⁶⁴.
    checkpoint : path or Checkpoint, optional
        A folder to keep what has been done in; see :func:`leyden.lstsq`.
    executor : Executor, optional
        What runs the passes: ``leyden.Dask(client)`` for the workers of a cluster.
    progress : bool, optional
        Show passes while they run; by default on a terminal.

    Returns
    -------
    ALSResult

    Raises
    ------
    DataError, OptionError, BudgetError, CheckpointError
    Interrupted
        On Ctrl-C or SIGTERM, with a checkpoint; its message says how to go on.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, leyden as ly
    >>> random = np.random.default_rng(0)
    >>> users, items = random.standard_normal((300, 2)), random.standard_normal((50, 2))
    >>> seen = random.random((300, 50)) < 0.4
    >>> ratings = sp.csr_array(np.where(seen, users @ items.T, 0))
    >>> found = ly.als(ratings, rank=2, regularization=0.1)
    >>> found.certificate.holds, bool(abs(found.predict(0, 7) - users[0] @ items[7]) < 0.1)
    (True, True)
    """
    objective = Objective(
        check.positive("regularization", regularization),
        check.zero_or_more("scaling", scaling),
        check.flag("implicit", implicit),
        check.positive("alpha", alpha),
        background=None if background is None else check.positive("background", background),
    )
    return plan(
        ratings, rank, objective, biases=biases, centre=centre, nonnegative=nonnegative, tol=tol, gap=gap,
        epochs=epochs, start=start, accelerate=accelerate, subspace=subspace, max_rank=max_rank, held_out=held_out,
        evaluate_every=evaluate_every, method=method, memory=memory, threads=threads, seed=seed, checkpoint=checkpoint,
        executor=executor, progress=progress,
    )  # fmt: skip


def plan(
    ratings: Any,
    rank: int | str,
    objective: Objective,
    *,
    biases: bool = False,
    centre: bool = False,
    nonnegative: bool = False,
    tol: float = 1e-3,
    gap: float | None = None,
    epochs: int = 100,
    start: str | np.ndarray = "random",
    accelerate: bool = True,
    subspace: int | str | None = "auto",
    max_rank: int = 256,
    held_out: Any = None,
    evaluate_every: int = 1,
    method: str = "auto",
    memory: str | int | None = None,
    threads: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Plan[ALSResult]:
    """The plan of :func:`als` for an objective."""
    method = check.one_of("method", method, ("auto", *METHODS))
    automatic = isinstance(rank, str)
    if automatic and rank != "auto":
        raise OptionError(f'rank={rank!r} is not a number, nor "auto"')
    if objective.implicit and check.flag("biases", biases):
        raise OptionError("biases are for explicit ratings", hint="Leave implicit or biases out.")
    if nonnegative and isinstance(rank, str):
        raise OptionError('rank="auto" is for factors of either sign', hint="Give a number.")
    if centre and (objective.implicit or nonnegative):
        raise OptionError("centre is for explicit ratings and factors of either sign", hint="Leave it out.")
    if nonnegative and biases:
        raise OptionError("biases are for factors of either sign", hint="Leave nonnegative or biases out.")
    if not objective.implicit and objective.background is not None:
        raise OptionError("background is for implicit feedback", hint="Give implicit=True as well.")
    rows = as_ratings(ratings, memory)
    held = held_out_of(rows, held_out, memory)
    options = Options(
        rank=FIRST_RANK if automatic else check.whole("rank", rank, 1, MAX_RANK),
        most=check.whole("max_rank", max_rank, 1, MAX_RANK) if automatic else 0,
        biases=bool(biases),
        centre=check.flag("centre", centre) or bool(biases),
        nonnegative=check.flag("nonnegative", nonnegative),
        tol=check.fraction("tol", tol),
        gap=1e-6 if gap is None and automatic else None if gap is None else check.fraction("gap", gap),
        epochs=check.whole("epochs", epochs, 1, 10**6),
        accelerate=check.flag("accelerate", accelerate),
        subspace=_asked(subspace),
        seed=check.seed(seed),
        memory=as_executor(executor).memory() if memory is None else check.memory(memory),
        threads=check.threads(threads),
        progress=check.progress(progress),
        checkpoint=as_checkpoint(checkpoint),
        executor=executor,
        evaluate_every=check.whole("evaluate_every", evaluate_every, 1, 10**6),
    )
    if options.most:
        options = replace(options, rank=min(options.rank, options.most))
    items = rows.shape[1]
    if isinstance(start, str):
        check.one_of("start", start, ("random", "spectral"))
    else:
        start = np.asarray(start, np.float64)
        if start.shape != (items, options.rank + options.biases) or not np.isfinite(start).all():
            raise OptionError(
                f"start is of shape {start.shape}, not {(items, options.rank + options.biases)} of finite numbers"
            )
    identity = {
        "verb": "als",
        "rank": rank,
        "objective": [str(value) for value in vars(objective).values()],
        "biases": options.biases,
        "centre": options.centre,
        "nonnegative": options.nonnegative,
        "tol": options.tol,
        "gap": options.gap,
        "accelerate": options.accelerate,
        "subspace": subspace,
        "method": method,
        "memory": None if memory is None else options.memory,
        "seed": options.seed,
        "start": start if isinstance(start, str) else hashlib.sha256(start.tobytes()).hexdigest(),
        "data": fingerprint(rows) if options.checkpoint else None,
    }
    begun = options.checkpoint.begun(identity) if options.checkpoint else None
    if begun:
        options = replace(options, memory=begun["memory"])
        chosen: Plan[Any] = Plan.from_json(begun)
    else:
        chosen = choose(rows, objective, options, method)
    return replace(chosen, _run=lambda p: _run(p, rows, held, objective, options, start, identity))


def _asked(subspace: int | str | None) -> int | None:
    """Factors in a subspace, a whole number of vectors; 0 for exact half-steps, None for what suits the ratings."""
    if subspace == "auto":
        return None
    if isinstance(subspace, str):
        raise OptionError(f'subspace={subspace!r} is not a number, None, nor "auto"')
    return 0 if subspace is None else padded(check.whole("subspace", subspace, 1, MAX_RANK))


# ---------------------------------------------------------------- which method


def subspace_of(options: Options, shape: tuple[int, int], ratings: float, rank: int) -> int:
    """Factors at a time for ratings in memory; 0 for exact half-steps."""
    width = padded(rank + options.biases)
    if options.nonnegative:
        return 0
    if options.subspace is not None:
        return options.subspace if options.subspace < width else 0
    # Rows of fewer ratings than factors are solved in the dual, which takes no more arithmetic than subspaces.
    return SUBSPACE if width >= LEAST_WIDTH and ratings / min(shape) > width / 2 else 0


def resident_nbytes(rows: Rows, ratings: float, options: Options, itemsize: int) -> float:
    """Memory of ratings by user and by item, and of factors and their differences."""
    n, m = rows.shape
    width = padded(max(options.rank, options.most) + options.biases)
    history = 2 * (DEPTH + 2) if options.accelerate else 2
    return 18 * ratings + 24 * (n + m) + itemsize * width * (n + (1 + history) * m) + 8 * 3 * m * width


def streamed_nbytes(rows: Rows, options: Options, itemsize: int, passes: int = 1) -> float:
    """Memory of the items' normal equations, those of one of some passes, and of item factors and their differences."""
    m = rows.shape[1]
    width = padded(max(options.rank, options.most) + options.biases)
    history = 2 * (DEPTH + 2) if options.accelerate else 2
    return m * (itemsize * (width * (width + 16) / 2 / passes + width * history) + 32 * width)


def item_passes(rows: Rows, options: Options, itemsize: int) -> int:
    """Passes an epoch takes so that the normal equations take no more than half of what the budget leaves."""
    factors = streamed_nbytes(rows, options, itemsize, 2**30)
    equations = streamed_nbytes(rows, options, itemsize) - factors
    room = max(options.memory - factors, 1.0) * 0.6
    return max(1, min(MOST_ITEM_PASSES, rows.shape[1], math.ceil(equations / room)))


def choose(rows: Rows, objective: Objective, options: Options, method: str) -> Plan[Any]:
    """The plan for ``method``, or for the one that suits the budget."""
    n, m = rows.shape
    ratings = getattr(rows, "count", None) or max(1.0, (rows.row_nbytes - 8) / 8) * n
    itemsize = 4 if options.tol >= SINGLE and (options.gap or 1.0) >= SINGLE else 8
    passes = item_passes(rows, options, itemsize)
    needed = {
        "resident": resident_nbytes(rows, ratings, options, itemsize),
        "streamed": streamed_nbytes(rows, options, itemsize, passes) + min(BLOCK_NBYTES, 16 * ratings),
    }
    local = isinstance(as_executor(options.executor), Local)
    fits = {name: needed[name] <= options.memory for name in METHODS}
    fits["resident"] &= local
    chosen = method if method != "auto" else "resident" if fits["resident"] else "streamed"
    if needed[chosen] > options.memory:
        what = "ratings, users and items" if chosen == "resident" else "normal equations of all items"
        raise BudgetError(
            f"a budget of {format_bytes(options.memory)} is too small for the {what} at rank "
            f"{max(options.rank, options.most)}: they take {format_bytes(needed[chosen])}",
            hint=f'Give at least memory="{math.ceil(needed[chosen] * 1.1 / 1e6)}MB", or a smaller rank.',
        )
    rates, threads = machine(), options.threads or thread_count()
    width, mean = padded(options.rank), ratings / n
    most = width
    if chosen == "resident" and (subspace := subspace_of(options, rows.shape, ratings, options.rank)):
        most = 2 * subspace
        note = f"; rows of many ratings improved {subspace} factors at a time"
    else:
        note = ""
    user = n * mean * width * min(mean, most)
    item = ratings * width * (width if chosen == "streamed" else min(ratings / m, most))
    seconds = 1.5 * (user + item) / (rates.gram32 * threads / 3)
    nbytes = 0 if chosen == "resident" else rows.stored_nbytes
    rate = math.inf if rows.in_memory else read_rate(rows, options.memory)
    epoch = PassPlan("epoch", nbytes, user + item, max(seconds, nbytes / rate))
    certificate = PassPlan("optimality", rows.stored_nbytes, 4 * user, max(2 * seconds, rows.stored_nbytes / rate))
    kind = "implicit feedback" if objective.implicit else "ratings"
    why = {
        "resident": ("ratings and factors fit the budget" if local else "asked for") + note,
        "streamed": "users are found again in every pass, and never stored"
        + (f"; normal equations of the items in {passes} parts, a pass each" if passes > 1 else ""),
    }
    other = "streamed" if chosen == "resident" else "resident"
    return Plan(
        "als",
        f"{rows.source}: {n:,} users × {m:,} items, about {ratings:,.0f} {kind}, "
        f"rank {options.rank if not options.most else f'up to {options.most}'}",
        chosen,
        (why[chosen] if method == "auto" else f"asked for; {why[chosen]}",),
        (
            (
                other,
                0.0,
                "slower" if other == "streamed" else "does not fit the budget" if local else "not on a cluster",
            ),
        ),
        (*[epoch] * min(10, options.epochs) * (passes if chosen == "streamed" else 1), certificate),
        options.memory,
        int(needed[chosen]),
    )


# ---------------------------------------------------------------- run


def _run(
    chosen: Plan[Any],
    rows: Rows,
    held: Rows | None,
    objective: Objective,
    options: Options,
    start: str | np.ndarray,
    identity: dict[str, Any],
) -> ALSResult:
    began = time.perf_counter()
    engine = Engine(
        options.memory,
        options.threads,
        0,
        as_executor(options.executor),
        checkpoint=options.checkpoint,
        progress=Progress(options.progress),
    )
    with engine.running(identity, chosen.to_json()):
        run = _Run(chosen.method, engine, rows, objective, options)
        run.held_out = None if held is None else HeldOut(rows, held, options.seed, options.threads)
        v, found = run.minimise(start)
        engine.reserved = 0
        model = run.model(v)
        foretold = None if run.held_out is None else run.held_out.metrics(model)
        certificate = certified(found, options.tol, options.gap, rows, run.certificate_passes, options.seed)
        if run.grown:
            engine.trace.remarks.append(f"rank {model.rank} was found sufficient" if certificate.holds else run.grown)
    engine.trace.seconds = time.perf_counter() - began + engine.spared
    answer = ALSResult(model=model, tol=options.tol, gap=options.gap, seed=options.seed, history=run.history,
                       held_out=foretold, certificate=certificate, trace=engine.trace, plan=chosen)  # fmt: skip
    answer.ratings = rows
    return answer


@dataclass(frozen=True)
class Step:
    """What an epoch made of item factors."""

    v: np.ndarray
    before: float
    after: float
    squared_slope: float
    squared_norm: float


class _Run:
    """One minimisation: what its epochs share."""

    def __init__(self, method: str, engine: Engine, rows: Rows, objective: Objective, options: Options):
        self.method, self.engine, self.rows, self.options = method, engine, rows, options
        self.survey: Survey = survey(engine, rows, objective)
        self.objective = replace(objective, mean=self.survey.mean) if options.centre else objective
        n, m = rows.shape
        self.user_penalties = self.objective.penalties(self.survey.most, m)
        counts = self.survey.item_counts
        self.item_penalties = self.objective.penalties(int(counts.max(initial=0)), n)[counts]
        self.workshop = Workshop(options.threads)
        self.history: list[dict[str, float]] = []
        self.certificate_passes, self.grown = 0, ""
        self.held_out: HeldOut | None = None
        #: Whether float32 will do until the last digits.
        self.single = True
        self._entries: Entries | None = None

    # ------------------------------------------------------------ epochs

    def maps(self, rank: int, dtype: Any) -> Callable[[np.ndarray], Step]:
        """The map of an epoch, for padded factors of this rank and type."""
        return self._resident(rank, dtype) if self.method == "resident" else self._streamed(rank, self.rows)

    def _resident(self, rank: int, dtype: Any) -> Callable[[np.ndarray], Step]:
        if self._entries is None:
            self._entries = loaded(self.rows, self.options.memory)
        threads = self.options.threads or thread_count()
        step = Resident(
            self._entries, self.rows.shape[1], self.objective, rank, dtype, threads, self.options.biases,
            self.options.nonnegative, subspace_of(self.options, self.rows.shape, self.survey.ratings, rank),
        )  # fmt: skip

        much = self.survey.ratings * padded(rank) > MUCH_WORK

        def epoch(v: np.ndarray) -> Step:
            improved = aligned.copy(v)
            number = len(self.history) + 1
            found = step.epoch(improved, not much or number % SLOPE_EVERY == 0)
            return Step(improved, found.before, found.after, found.squared_slope, found.squared_norm)

        return epoch

    def parts(self) -> list[Rows]:
        """Parts of the users, each a few times the one before, when they are so many that a part tells of the items."""
        stride = int(self.survey.ratings / (SAMPLED * self.rows.shape[1]))
        found: list[Rows] = []
        while self.method == "streamed" and stride >= (LAST_STRIDE if found else LEAST_STRIDE):
            found.append(SampledRows(self.rows, stride))
            stride //= PART_GROWTH
        return found

    def _streamed(self, rank: int, rows: Rows) -> Callable[[np.ndarray], Step]:
        constant, part = self.survey.shift, rows.shape[0] / self.rows.shape[0]
        bias = rank if self.options.biases else -1

        def epoch(v: np.ndarray) -> Step:
            spans = np.linspace(0, self.rows.shape[1], self._passes(v) + 1).astype(int)
            improved, decrement, slope, before, norm = np.empty_like(v), 0.0, 0.0, math.nan, math.nan
            for first, last in itertools.pairwise(spans.tolist()):
                reduction = ItemStep(
                    self.objective, v, self.user_penalties, part * self.item_penalties, self.survey.item_counts, bias,
                    users=self.rows.shape[0], nonnegative=self.options.nonnegative,
                    span=(first, last), block_nbytes=self._block_nbytes(v),
                    workshop=self.workshop,
                )  # fmt: skip
                with single_threaded_blas():
                    (found,) = self.engine.sweep(rows, [reduction], "epoch", keep=len(spans) > 2)
                improved[first:last], before, norm = found.v, found.before + constant, found.squared_norm
                decrement += found.decrement
                slope += found.squared_slope
            return Step(improved, before, before - decrement, slope, norm)

        return epoch

    def _passes(self, v: np.ndarray) -> int:
        """Passes an epoch takes: one, if the normal equations of all items fit."""
        return item_passes(self.rows, self.options, v.dtype.itemsize)

    def _block_nbytes(self, v: np.ndarray) -> int:
        """Of the ratings worked on at once: what the budget leaves beside the state, within bounds of use."""
        size = v.dtype.itemsize
        left = self.options.memory - streamed_nbytes(self.rows, self.options, size, self._passes(v))
        mean = self.survey.ratings / self.rows.shape[0]
        factor = 5 + v.shape[1] * v.dtype.itemsize / (8 * mean + 8)
        return int(min(max(left / 2 / factor, 2**20), BLOCK_NBYTES))

    # ------------------------------------------------------------ minimise

    def minimise(self, start: str | np.ndarray) -> tuple[np.ndarray, Gap]:
        """Epochs until the certificate finds what was asked for; item factors, and the certificate's figures."""
        options, m = self.options, self.rows.shape[1]
        rank = options.rank
        v = np.zeros((m, padded(rank + options.biases)))
        if isinstance(start, str):
            v[:, :rank] = self._spectral(rank) if start == "spectral" else gaussian(m, rank, options.seed)
            if options.nonnegative:
                np.abs(v, out=v)
            v[:, :rank] *= self._length() / math.sqrt(rank)
        else:
            v[:, : start.shape[1]] = start
        fine = options.tol < SINGLE or (options.gap is not None and options.gap < SINGLE)
        goal, single = 0.3 * options.tol, True
        left = options.epochs
        for part in self.parts() if isinstance(start, str) else []:
            # A part determines items to so many digits; more users are only needed for the others.
            before, kept = len(self.history), self.survey.ratings * part.shape[0] / self.rows.shape[0]
            enough = max(goal, PART_STEP / math.sqrt(kept / len(v)))
            v, _, _ = self._descend(v, rank, np.float32, enough, PART_EPOCHS, False, part)
            self.engine.trace.remarks.append(
                f"{len(self.history) - before} epochs on one user in {round(self.rows.shape[0] / part.shape[0])} first"
            )
        while True:
            v, step, used = self._descend(v, rank, np.float32 if single else np.float64, goal, left, fine)
            left -= used
            if single and left > 0 and (not self.single or (fine and step > goal)):
                single = False
                continue
            found = self._certify(v, rank, step)
            stationary = found.evaluated.stationarity
            if not math.isfinite(found.value):
                raise self._lost()
            enough = stationary <= options.tol and (options.gap is None or found.value <= options.gap)
            if enough or left <= 0:
                return self._compact(v, rank), found
            short = options.gap is not None and found.outside[0] > 1 + 1e-3 and found.outside[0] > 1 + 10 * stationary
            if short and stationary <= max(options.tol, 1e-2) and found.directions.shape[1]:
                more = min(found.directions.shape[1], MORE_FACTORS, options.most - rank)
                if more <= 0:
                    self.grown = f"rank {rank} is not sufficient: the gap cannot close" + (
                        "" if options.most else ' (rank="auto" adds factors)'
                    )
                    return self._compact(v, rank), found
                v, rank = self._grow(v, rank, found.directions[:, :more]), rank + more
                self.grown = f"rank {rank} is not yet sufficient"
                goal, single = 0.3 * options.tol, self.single
                continue
            worst = max(stationary / options.tol, (found.value / options.gap) if options.gap else 0.0, 2.0)
            goal = min(goal, step) / min(worst, 100.0) * 0.7
            single = single and self.single and goal >= SINGLE

    def _lost(self) -> DataError:
        return DataError(
            "the factors are not finite: beside the ratings the regularization is less than a rounding error",
            where=self.rows.source,
            hint="Give a larger regularization.",
        )

    def _length(self) -> float:
        """Length of an item's factors to begin with: such that those of users are as long."""
        if self.objective.implicit:
            return 0.1
        # The biases take the mean, but for rounding.
        mean, size = self.objective.mean, self.survey.size
        return math.sqrt(max(math.sqrt(max(size**2 - mean**2, 0.0)), 1e-6 * size)) or 1.0

    def _spectral(self, rank: int) -> np.ndarray:
        return spectral(self.engine, self.rows, self.objective, rank, self.survey.size, self.options.seed)

    def _descend(
        self, v: np.ndarray, rank: int, dtype: Any, goal: float, most: int, fine: bool, part: Rows | None = None
    ) -> tuple[np.ndarray, float, int]:
        """Accelerated epochs until the relative step is below ``goal``, or float32 has said what it can."""
        epoch = self.maps(rank, dtype) if part is None else self._streamed(rank, part)
        nu, rows = self.item_penalties, self.rows if part is None else part
        # Extrapolation would leave the cone of nonnegative factors.
        acceleration = Anderson(DEPTH if self.options.accelerate and not self.options.nonnegative else 0)
        floor = SINGLE if dtype == np.float32 and fine else 0.0
        point, plain, first = v.astype(dtype), None, _norm(v, nu)
        reached, step, used, quiet, wrong = math.inf, math.inf, 0, 0, 0
        while used < most:
            label = f"epoch {len(self.history) + 1}"

            def compute(point: np.ndarray = point) -> dict[str, np.ndarray]:
                try:
                    found = epoch(point)
                except np.linalg.LinAlgError:  # of numbers that are not finite
                    found = Step(np.full_like(point, np.nan), *[math.nan] * 4)
                return {
                    "v": found.v,
                    "figures": np.array([found.before, found.after, found.squared_slope, found.squared_norm]),
                }

            kept = self.engine.step(rows, label, compute)
            found = Step(kept["v"], *kept["figures"].tolist())
            improved, before, after = found.v, found.before, found.after
            used += 1
            finite = math.isfinite(before) and math.isfinite(after) and bool(np.isfinite(improved).all())
            if not finite and dtype == np.float64:
                raise self._lost()
            # Exact half-steps never raise the objective.
            wrong += dtype == np.float32 and not after <= before + 1e-5 * abs(before)
            if not finite or wrong > 2:
                self.single, step = False, math.inf
                self.engine.trace.remarks.append("the regularization needs float64")
                break
            slack = 1e-13 if dtype == np.float64 else 1e-6
            if plain is not None and before > reached + slack * abs(reached):
                # The extrapolation went too far: back to where the plain step had led.
                point, plain, reached = plain, None, math.inf
                acceleration.forget()
                self._record(found, step, rows, rank, taken_back=True)
                continue
            change, size = _norm(improved - point, nu), _norm(improved, nu)
            if size <= VANISHED * first:
                # The penalty is such that no factors are the best ones; these would go on to shrink for ever.
                improved, change = np.zeros_like(improved), 0.0
            step = change / size if size > 0 else 0.0
            self._record(replace(found, v=improved), step, rows, rank)
            # A last digit that only wanders says nothing more.
            quiet = quiet + 1 if reached - after <= slack / 10 * abs(after) else 0
            plain, reached = improved, after
            if step <= max(goal, floor) or (quiet >= 8 and dtype == np.float32):
                break
            point = acceleration.next(point, improved, nu)
        final = plain if plain is not None else point
        return final.astype(np.float64), step, used

    def _record(self, found: Step, step: float, rows: Rows, rank: int, *, taken_back: bool = False) -> None:
        """Add an epoch to the history, and look at what was held out."""
        number = len(self.history) + 1
        row = {
            "epoch": float(number),
            "users": float(rows.shape[0]),
            "before": found.before,
            "after": found.after,
            "step": step,
            "newton_decrement": (found.before - found.after) / found.before if found.before > 0 else 0.0,
        }
        if math.isfinite(found.squared_slope):
            row["gradient_norm"], norm = math.sqrt(found.squared_slope), math.sqrt(found.squared_norm)
            row["stationarity"] = row["gradient_norm"] / norm if norm > 0 else 0.0
        if taken_back:
            row["taken_back"] = 1.0
        elif self.held_out is not None and number % self.options.evaluate_every == 0:
            row |= figures(self.held_out.metrics(self.model(self._compact(found.v, rank))))
        self.history.append(row)
        self.engine.progress.say(epoch_line(row))

    def model(self, v: np.ndarray) -> Model:
        """What item factors make of ratings."""
        options, seen = self.options, self.survey
        return Model(
            self.objective, v, seen.item_counts, seen.most, self.rows.shape[0], options.biases, options.nonnegative
        )

    def _certify(self, v: np.ndarray, rank: int, step: float) -> Gap:
        options = self.options
        # Small problems are certified in full; of large ones each pass counts.
        brief = options.gap is None and self.survey.ratings * padded(rank) > MUCH_WORK
        with single_threaded_blas():
            found = gap(
                self.engine, self.rows, self.objective, self._compact(v, rank), self.user_penalties,
                self.item_penalties, biases=options.biases, nonnegative=options.nonnegative,
                passes=0 if brief else GAP_PASSES if options.gap is None else MOST_PASSES, enough=options.gap or 0.0,
                dtype=np.float32 if brief and options.tol > SINGLE and self.single else np.float64,
                stationary=options.tol if options.gap is None else max(options.tol, 1e-2), seed=options.seed,
                indptr=self._pointers(),
            )  # fmt: skip
        self.certificate_passes += found.passes
        self.history[-1] |= {
            "certified_objective": found.evaluated.value,
            "certified_stationarity": found.evaluated.stationarity,
            "duality_gap": found.value,
            "confidence": found.confidence,
        }
        return found

    def _pointers(self) -> np.ndarray | None:
        """Where the ratings of each user begin, if what a certificate finds of each can be kept."""
        if self._entries is None or not isinstance(self.engine.executor, Local):
            return None
        n, m = self.rows.shape
        width = padded(self.options.rank)
        needed = 8 * len(self._entries.indices) + 8 * n * width * bool(self.objective.unobserved)
        used = 18 * len(self._entries.indices) + 24 * (n + m) + 8 * m * (4 * width + 64)
        return self._entries.indptr if needed + used < self.options.memory else None

    def _compact(self, v: np.ndarray, rank: int) -> np.ndarray:
        return np.ascontiguousarray(v[:, : rank + self.options.biases], np.float64)

    def _grow(self, v: np.ndarray, rank: int, directions: np.ndarray) -> np.ndarray:
        """Factors along directions of ``E^½ V``, short beside those that are there."""
        more = directions.shape[1]
        grown = np.zeros((len(v), padded(rank + more + self.options.biases)))
        grown[:, :rank] = v[:, :rank]
        if self.options.biases:
            grown[:, rank + more] = v[:, rank]
        sizes = np.linalg.norm(np.sqrt(self.item_penalties)[:, None] * v[:, :rank], axis=0)
        length = 0.3 * float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 1.0
        grown[:, rank : rank + more] = directions / np.sqrt(self.item_penalties)[:, None] * max(length, 1e-3)
        return grown


def epoch_line(row: dict[str, float]) -> str:
    """A row of a history as a line for people."""
    said = [f"epoch {row['epoch']:.0f}", f"objective {row['after']:.6g}"]
    if "stationarity" in row:
        said.append(f"stationarity {row['stationarity']:.1e}")
    said.append("taken back" if "taken_back" in row else f"step {row['step']:.1e}")
    said += [
        f"{name} {row[key]:.4f} [{row[f'{key}_low']:.4f}, {row[f'{key}_high']:.4f}]"
        for key, name in SHOWN.items()
        if key in row
    ]
    return "  ".join(said)


def _norm(v: np.ndarray, nu: np.ndarray) -> float:
    """``(Σ ν_j ‖v_j‖²)^½``."""
    return math.sqrt(float(nu @ np.einsum("ij,ij->i", v, v, dtype=np.float64)))


def loaded(rows: Rows, memory: int) -> Entries:
    """All ratings, in memory."""
    matrix = getattr(rows, "matrix", None)
    if matrix is not None:
        return Entries.of(matrix.indptr, matrix.indices, matrix.data)
    n = rows.shape[0]
    length = max(1, min(n, int(2**26 / max(rows.row_nbytes, 1))))
    buffer = rows.buffer(length)
    pointers, indices, values, total = [np.zeros(1, np.int64)], [], [], 0
    for begin in range(0, n, length):
        data: Any = rows.read(begin, min(begin + length, n), buffer).data
        pointers.append(np.asarray(data.indptr[1:], np.int64) + total)
        indices.append(np.array(data.indices, np.int32))
        values.append(np.array(data.data, np.float32))
        total += len(data.indices)
    rows.release()
    return Entries.of(np.concatenate(pointers), np.concatenate(indices), np.concatenate(values))
