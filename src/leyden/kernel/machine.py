r"""Kernel machines on random features: ``f(x) = offset + z(x)·w`` with ``w = argmin Σ ℓ(f(x_i), y_i) + ½ λ n ‖w‖²``.

What is done, pass by pass:

1. a survey: scale of the columns, classes, and a sample of the rows, from which widths are set or learned
   (:mod:`leyden.kernel.widths`);
2. the solve, one of

   ======  ================================================================  =========================================
   method  how                                                               when
   ======  ================================================================  =========================================
   cg      conjugate gradients, a pass each, divided by the Hessian of a     any number of features
           sample (:mod:`leyden.kernel.newton`)
   gram    the Gram matrix of the features in one pass; then every penalty   squared loss; D² numbers fit, and passes
           costs a Cholesky factorization and no pass                        would cost more, or the penalties are many
   exact   with ``features="exact"``: the kernel itself, by conjugate        rows that fit in memory, and time n²
           gradients (:mod:`leyden.kernel.exact`)
   ======  ================================================================  =========================================

3. the certificate: objective and gradient in float64, which bound the distance to the best machine of these features;
4. the rows that were held out: errors, the penalty with the least of them, probabilities, prediction intervals.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leyden import options as check
from leyden.certificate import Bound, Certificate
from leyden.engine.budget import format_bytes, thread_count, too_small
from leyden.engine.checkpoint import Checkpoint, as_checkpoint
from leyden.engine.executor import Executor, as_executor
from leyden.engine.fingerprint import fingerprint
from leyden.engine.progress import Progress
from leyden.engine.sweep import Engine, read_rate
from leyden.errors import DataError, OptionError
from leyden.kernel import exact, maps, nystroem, pac_bayes, preconditioner
from leyden.kernel.binning import BITS
from leyden.kernel.features import FeatureMap
from leyden.kernel.generalisation import DELTA, labels, score_error
from leyden.kernel.inputs import Standard, as_width, median_width
from leyden.kernel.kernels import INNER, NAMES, Kernel
from leyden.kernel.losses import LOSSES
from leyden.kernel.newton import Point, Problem, minimise
from leyden.kernel.points import Points
from leyden.kernel.preconditioner import Diagonal, Preconditioner, Shifted
from leyden.kernel.products import Diagonal as DiagonalOf
from leyden.kernel.products import Features, Gram, HeldOut, Moments, Scores, Targets
from leyden.kernel.resampling import Sample, feature_error, rows_needed
from leyden.kernel.result import KernelMachine
from leyden.kernel.split import Split
from leyden.kernel.survey import Survey, SurveyRows
from leyden.kernel.variance import MOST_FACTORED, Posterior
from leyden.kernel.variance import posterior as posterior_of
from leyden.kernel.widths import learn
from leyden.plan import PassPlan, Plan, machine, verb
from leyden.rows import Rows
from leyden.rows import open as open_rows

METHODS = ("cg", "gram")

MAX_FEATURES = 10**7

#: Features when nothing is said, and grids of random bins.
FEATURES, GRIDS = 2000, 50

#: Rows that widths are learned from, or a median taken of.
LEARNING, LOOKING = 40_000, 5_000
#: Passes that conjugate gradients take, about.
EXPECTED = 16
#: Degree of a polynomial kernel.
MOST_DEGREE = 20
#: Rows up to which the kernel itself is solved with.
MOST_EXACT = 50_000
#: Ratio of the deviations of columns from which they are said to be on different scales.
UNSCALED = 100.0


@dataclass(frozen=True)
class Options:
    """What was asked, beside the data."""

    classify: bool
    loss: str
    features: int
    kernel: str
    degree: int
    constant: float
    widths: list[Any]
    scales: np.ndarray
    map: str
    penalties: np.ndarray
    standardize: bool
    held_out: float
    folds: int
    variance: bool
    tol: float
    seed: int
    memory: int
    threads: int
    progress: bool | None
    checkpoint: Checkpoint | None
    executor: Executor | None

    @property
    def choices(self) -> int:
        """Kernels to choose from: every width at every scale."""
        return len(self.widths) * len(self.scales)

    @property
    def learns(self) -> bool:
        """Whether widths are taken from the rows."""
        return any(isinstance(width, str) for width in self.widths)


@verb
def kernel_machine(
    rows: Any,
    target: Any = None,
    *,
    classify: bool = False,
    loss: str = "squared",
    features: int | str | None = None,
    kernel: str = "gaussian",
    degree: int = 3,
    constant: float = 1.0,
    width: Any = "median",
    widths: Sequence[Any] | None = None,
    scale: float | Sequence[float] = 1.0,
    map: str = "auto",
    regularization: float | Sequence[float] = 1e-6,
    standardize: bool = True,
    held_out: float = 0.05,
    folds: int = 0,
    variance: bool = False,
    weights: Any = None,
    tol: float = 1e-2,
    method: str = "auto",
    memory: str | int | None = None,
    threads: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> Plan[KernelMachine]:
    """Fit a kernel machine with random features to any number of rows, and certify it.

    Minimises ``Σ w_i ℓ(f(x_i), y_i) + ½ λ n ‖f‖²`` over functions ``f(x) = offset + z(x)·w`` of D random features z,
    whose inner products are the kernel.

    Parameters
    ----------
    rows : Rows, array, sparse matrix, or path
        Points (n, d): anything :func:`leyden.open` takes.
    target : array, shape (n,) or (n, k), or column name, optional
        Numbers, or with ``classify`` labels: numbers, or in tables and frames text as well.
    classify : bool, default False
        Whether targets are labels: one machine a class, against the rest.
    loss : {"squared", "logistic", "squared_hinge"}
        The latter two with ``classify``.
    features : int or "exact", optional
        D, 2000 by default; of random bins (``map="binning"``) the number of grids, by default 50; of Nyström features
        that of centres, at most; or the kernel itself, of rows that are no more than :data:`MOST_EXACT`
        (:mod:`leyden.kernel.exact`).
    kernel : {"gaussian", "laplacian", "matern12", "matern32", "matern52", "cauchy", "arccos0", "arccos1", "polynomial"}
        See :mod:`leyden.kernel.kernels`.
    degree : int, default 3
    constant : float, default 1
        Of the polynomial kernel ``(x·y / width² + constant)^degree``.
    width : "median", "learned", float, or array of shape (d,)
        How far apart points are alike, in units of the standardised columns: the median distance of pairs, or one
        for each column as held-out rows are predicted best (:mod:`leyden.kernel.widths`).
    widths : sequence, optional
        In place of ``width``: several, each of them as ``width`` is given, of which the one with the least error is
        taken, as with ``regularization``. With ``method="gram"`` as many share a pass as the memory has room for
        Gram matrices, and only the best is certified; with ``"cg"`` each is a fit of its own.
    scale : float or sequence of float, default 1
        What the width is multiplied with; of several each is tried with every width.
    map : str, default "auto"
        How features are drawn: see :mod:`leyden.kernel.maps`.
    regularization : float or sequence of float, default 1e-6
        λ, relative to the number of rows. Of several the one with the least error on the rows held out is taken.
    standardize : bool, default True
        Whether columns are brought to mean zero (unless sparse) and variance one first.
    held_out : float, default 0.05
        Share of the rows that is not fitted: errors, probabilities and prediction intervals rest on them.
    folds : int, default 0
        Of several penalties choose the one with the least cross-validated squared error, exactly, in so many folds of
        the rows: the Gram matrices of all of them come from one pass. By default, that on the rows held out.
    variance : bool, default False
        Keep the Cholesky factor of the Gram matrix, D² numbers, for standard deviations of predictions
        (:mod:`leyden.kernel.variance`): of regressions, with :data:`leyden.kernel.variance.MOST_FACTORED` features
        at most.
    weights : array, shape (n,), optional
        Zero or more.
    tol : float, default 1e-2
        What the duality gap, relative to the objective, is certified to stay below.
    method : {"auto", "cg", "gram"}
        See :mod:`leyden.kernel.machine`.
    memory, threads, seed, checkpoint, executor, progress
        As in :func:`leyden.lstsq`.

    Returns
    -------
    KernelMachine

    Raises
    ------
    DataError, OptionError, BudgetError, CheckpointError
    Interrupted
        On Ctrl-C or SIGTERM, with a checkpoint; its message says how to go on.

    References
    ----------
    A. Rahimi and B. Recht, "Random Features for Large-Scale Kernel Machines", NIPS 2007.

    Examples
    --------
    >>> import numpy as np, leyden as ly
    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(-3, 3, (2000, 1))
    >>> found = ly.kernel_machine(x, np.sin(2 * x[:, 0]), features=100, width=0.5)
    >>> found.certificate.holds, bool(abs(found.predict([[1.0]])[0] - np.sin(2.0)) < 0.01)
    (True, True)
    """
    classify = check.flag("classify", classify)
    loss = check.one_of("loss", loss, tuple(LOSSES))
    if loss != "squared" and not classify:
        raise OptionError(f"the {loss} loss is for classes", hint="Give classify=True, or take the squared loss.")
    penalties = np.unique([check.positive("regularization", value) for value in np.ravel(regularization).tolist()])
    if not len(penalties):
        raise OptionError("regularization holds no value")
    scales = np.array([check.positive("scale", value) for value in np.ravel(scale).tolist()])
    if not len(scales):
        raise OptionError("scale holds no value")
    if widths is not None and not len(widths):
        raise OptionError("widths holds no value", hint="Leave it out, or give some, such as [1.0, 2.0, 4.0].")
    tried = [as_width(one, ("median", "learned")) for one in ([width] if widths is None else widths)]
    choices = len(tried) * len(scales)
    held = check.zero_or_more("held_out", held_out)
    if held >= 1:
        raise OptionError(f"held_out={held_out} leaves no row to fit", hint="Give a share below one, such as 0.05.")
    folds = check.whole("folds", folds, 0, 1000)
    if folds == 1 or (folds and loss != "squared"):
        raise OptionError(
            "cross-validation is of the squared loss, and needs two folds or more", hint="Leave folds out."
        )
    if features is None:
        features = GRIDS if map == "binning" else FEATURES
    exact = isinstance(features, str)
    if exact:
        check.one_of("features", features, ("exact",))
        if loss != "squared" or folds or variance or len(penalties) * choices > 1 or method != "auto":
            raise OptionError(
                "an exact machine has squared loss, one penalty, width and scale, and no folds, variance or method",
                hint="Leave them out, or give a number of features.",
            )
        method = "exact"
    variance = check.flag("variance", variance)
    if variance and classify:
        raise OptionError("the variance is that of a regression", hint="Classes have predict_proba.")
    if variance and int(features) > MOST_FACTORED:
        raise OptionError(
            f"the variance rests on a factored matrix of {int(features):,} × {int(features):,} numbers",
            hint=f"Ask for {MOST_FACTORED:,} features at most.",
        )
    if folds or variance:
        method = "gram"
    if len(penalties) * choices > 1 and held == 0 and not folds:
        what = "penalties" if len(penalties) > 1 else "scales" if len(scales) > 1 else "widths"
        raise OptionError(f"one of several {what} is chosen by rows held out, and none are", hint="Give held_out.")
    if method not in ("auto", "exact"):
        check.one_of("method", method, METHODS)
    if method == "gram" and map == "binning":
        raise OptionError(
            "the bins of random grids are too many for a Gram matrix", hint="Leave method, folds and variance out."
        )
    if method == "gram" and loss != "squared":
        raise OptionError("the Gram matrix of the features solves the squared loss alone", hint='Take method="cg".')
    options = Options(
        classify=classify,
        loss=loss,
        features=MAX_FEATURES if exact else check.whole("features", features, 1, MAX_FEATURES),
        kernel=check.one_of("kernel", kernel, NAMES),
        degree=check.whole("degree", degree, 1, MOST_DEGREE),
        constant=check.zero_or_more("constant", constant),
        widths=tried,
        scales=scales,
        map=map,
        penalties=penalties[::-1],
        standardize=check.flag("standardize", standardize),
        held_out=held,
        folds=folds,
        variance=variance,
        tol=check.fraction("tol", tol),
        seed=check.seed(seed),
        memory=as_executor(executor).memory() if memory is None else check.memory(memory),
        threads=check.threads(threads) or thread_count(),
        progress=check.progress(progress),
        checkpoint=as_checkpoint(checkpoint),
        executor=executor,
    )
    opened = open_rows(rows, target=target, weight=weights, labels=classify)
    if not opened.targets:
        raise OptionError("there is no target", where=opened.source, hint="Give target, or open the rows with target=.")
    if exact:
        options = replace(options, features=_exact_rows(opened))
    if map in nystroem.NAMES:
        options = replace(options, features=min(options.features, opened.shape[0]))
    if opened.labels is not None and not classify:
        raise OptionError("the target is text: labels, and no numbers", where=opened.source, hint="Give classify=True.")
    if classify and len(opened.targets) > 1:
        raise OptionError("labels are one column, and there are several targets", where=opened.source)
    identity = {
        "verb": "kernel_machine",
        "options": {
            name: _plain(value)
            for name, value in vars(options).items()
            if name not in ("memory", "threads", "progress", "checkpoint", "executor")
        },
        "method": method,
        "memory": None if memory is None else options.memory,
        "data": fingerprint(opened) if options.checkpoint else None,
    }
    begun = options.checkpoint.begun(identity) if options.checkpoint else None
    if begun:
        options = replace(options, memory=begun["memory"])
        planned: Plan[Any] = Plan.from_json(begun)
    else:
        planned = choose(opened, options, method)
    return replace(planned, _run=lambda plan: _run(plan, opened, options, identity))


def _plain(value: Any) -> Any:
    """An option as JSON has it."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _exact_rows(rows: Rows) -> int:
    """How many there are, if an exact machine can be made of them."""
    n = rows.shape[0]
    if n > MOST_EXACT:
        raise OptionError(
            f"an exact machine is of {MOST_EXACT:,} rows at most, and there are {n:,}",
            where=rows.source,
            hint="Give a number of features, such as features=5000.",
        )
    if rows.has_weight:
        raise OptionError("an exact machine knows no weights", where=rows.source, hint="Give a number of features.")
    return n


# ---------------------------------------------------------------- the plan


def choose(rows: Rows, options: Options, method: str) -> Plan[Any]:
    """The method that is predicted to take the least time among those that fit the budget."""
    if method == "exact":
        return exact_plan(rows, options)
    if options.map == "binning":
        return sparse_plan(rows, options)
    n, d = rows.shape
    size, rates = options.features, machine()
    threads, outputs = options.threads, 1 if options.classify else len(rows.targets)
    columns = outputs * len(options.penalties)
    seconds_read = 0.0 if rows.in_memory else rows.stored_nbytes / read_rate(rows, options.memory)
    single, double = rates.gram32 * threads, rates.gram64 * threads

    def one(label: str, flops: float, rate: float = single) -> PassPlan:
        return PassPlan(label, rows.stored_nbytes, flops, max(flops / rate, seconds_read))

    made_of = Kernel(options.kernel, degree=options.degree)
    make_features = n * maps.flops(options.map, made_of, d, size)
    each = make_features + 4.0 * n * size * columns
    survey, held = one("survey", 10.0 * n * d), one("rows held out", options.held_out * each)
    certificate = one("gradient, certificate", make_features + 12.0 * n * size * columns)
    if drawing := maps.drawing_flops(options.map, d, size, n):
        survey = replace(survey, flops=survey.flops + drawing, seconds=survey.seconds + drawing / rates.gram64)
    sample = preconditioner.sampled(n, size)
    order = min(sample, size)
    algebra = PassPlan(
        "dense algebra", 0, f := (sample * float(size) * order + order**3 / 3.0 * len(options.penalties)), f / double
    )
    choices, together = options.choices, together_of(rows, options)
    algebra = replace(algebra, flops=algebra.flops * choices, seconds=algebra.seconds * choices)
    fits = [*[one("conjugate step", each)] * EXPECTED, certificate, held] * choices
    cg = Plan[Any](
        "kernel_machine", repr(rows), "cg",
        (f"conjugate gradients on {size:,} features, divided by the Hessian of {sample:,} sampled rows",),
        (), (survey, *fits), options.memory, peak_nbytes("cg", rows, options), algebra,
    )  # fmt: skip
    gram_flops = n * float(size) ** 2 + make_features
    factor = PassPlan("dense algebra", 0, f := size**3 / 3.0 * len(options.penalties) * choices, f / double)
    choosing = []
    for first in range(0, choices, together):
        batch = min(together, choices - first)
        choosing.append(one("Gram matrices of the features", gram_flops * batch))
        if choices > 1 and not options.folds:
            choosing.append(one("rows held out", options.held_out * each * batch))
    reason = f"the Gram matrix of {size:,} features solves for {len(options.penalties)} penalties at once"
    if choices > 1:
        reason += f"; of {choices} kernels {together} share a pass"
    gram = Plan[Any](
        "kernel_machine", repr(rows), "gram", (reason,), (), (survey, *choosing, certificate, held), options.memory,
        peak_nbytes("gram", rows, options, together), factor,
    )  # fmt: skip
    plans = {"cg": cg, "gram": gram}
    if method != "auto":
        plans = {method: plans[method]}
    elif options.loss != "squared":
        del plans["gram"]
    fitting = {name: plan for name, plan in plans.items() if plan.peak <= options.memory}
    if not fitting:
        least = min(plans.values(), key=lambda plan: plan.peak)
        raise too_small(
            options.memory, 0.0, least.peak, method=least.method, hint=" Fewer features take less as well."
        )  # fmt: skip
    best = min(fitting.values(), key=lambda plan: plan.seconds)
    others = tuple(
        (
            plan.method,
            plan.seconds,
            "would take longer" if plan.method in fitting else f"takes {format_bytes(plan.peak)}",
        )
        for plan in plans.values()
        if plan is not best
    )
    return replace(best, alternatives=others)


def exact_plan(rows: Rows, options: Options) -> Plan[Any]:
    """What an exact machine costs."""
    n, d = rows.shape
    rank = exact.rank_of(n)
    flops = n * (float(rank) ** 2 * 2 + EXPECTED * n * (2.0 * d + 30))
    kept = exact_nbytes(rows, options)
    if kept > options.memory:
        raise too_small(options.memory, 0.0, kept, method="exact", hint=" Random features take less.")
    return Plan[Any](
        "kernel_machine", repr(rows), "exact",
        (f"conjugate gradients on the kernel of {n:,} rows, divided by a factorization of rank {rank:,}",),
        (), (PassPlan("survey", rows.stored_nbytes, 10.0 * n * d, 10.0 * n * d / machine().gram32),), options.memory,
        kept, PassPlan("dense algebra", 0, flops, flops / (machine().gram32 * options.threads)),
    )  # fmt: skip


def exact_nbytes(rows: Rows, options: Options) -> int:
    """Memory of an exact machine, without tiles of the kernel matrix that are kept."""
    n, d = rows.shape
    return int(n * (3 * 8.0 * exact.rank_of(n) + options.threads * 24.0 * exact.TILE + 64.0 * d + 400))


def sparse_plan(rows: Rows, options: Options) -> Plan[Any]:
    """Conjugate gradients on features of which a point has few."""
    n, d = rows.shape
    columns = (1 if options.classify else len(rows.targets)) * len(options.penalties)
    size, rates = options.features << BITS, machine()
    read = 0.0 if rows.in_memory else rows.stored_nbytes / read_rate(rows, options.memory)

    def one(label: str, share: float = 1.0) -> PassPlan:
        places = share * n * options.features
        flops, moved = places * (6.0 * d + 4.0 * columns), places * 16.0 * columns + 64.0 * size * columns
        seconds = flops / (rates.gram32 * options.threads) * 8 + moved / (rates.copy * options.threads)
        return PassPlan(label, rows.stored_nbytes, flops, max(seconds, read))

    peak = peak_nbytes("cg", rows, replace(options, features=1)) + int(
        8.0 * size * columns * (10 + 4 * options.threads)
    )
    plan = Plan[Any](
        "kernel_machine", repr(rows), "cg",
        (f"conjugate gradients on the bins of {options.features:,} grids, divided by the diagonal of their Hessian",),
        (), (one("survey"), one("diagonal"), *[one("conjugate step")] * 2 * EXPECTED, one("gradient, certificate"),
             one("rows held out", options.held_out)), options.memory, peak,
    )  # fmt: skip
    if peak > options.memory:
        raise too_small(options.memory, 0.0, peak, method="cg", hint=" Fewer grids take less as well.")
    return plan


def together_of(rows: Rows, options: Options) -> int:
    """Kernels whose Gram matrices are summed in one pass."""
    fits = [k for k in range(2, options.choices + 1) if peak_nbytes("gram", rows, options, k) <= options.memory]
    return max(fits, default=1)


def peak_nbytes(method: str, rows: Rows, options: Options, together: int = 1) -> int:
    """What the run takes at most, about: matrices between the passes, or states and tiles in one.

    ``together`` Gram matrices of ``method="gram"`` are summed at once.
    """
    n, d = rows.shape
    size, threads = options.features, options.threads
    outputs = (1 if options.classify else len(rows.targets)) * len(options.penalties)
    looked = max(LEARNING if options.learns else LOOKING, maps.sampled(options.map, size))
    made = preconditioner.sampled(n, size)
    sample = max(made, rows_needed(n, size), min(n, looked))
    kept, drawing, scratch = maps.nbytes(options.map, Kernel(options.kernel), d, size, sample)
    drawn = together + (options.choices > together)
    points = 8.0 * sample * (d + 4) * 3 + 4.0 * d * size * drawn + kept * drawn
    tile = threads * (4 * 2**20 + 3 * 2**20 + 40.0 * size * 24 + scratch) + 8.0 * size * outputs * (6 + 3 * threads)
    if method == "gram":
        # Those of the best kernel of an earlier pass stay.
        matrices = (2 * options.folds + 2 if options.folds else 1) * together + (options.choices > together)
        return int(points + max(drawing, together * (tile + 4.0 * 2048 * size) + 8.0 * size**2 * matrices))
    held = preconditioner.nbytes(made, size, len(options.penalties))
    return int(points + max(drawing, tile + held))


# ---------------------------------------------------------------- the run


def _run(plan: Plan[Any], rows: Rows, options: Options, identity: dict[str, Any]) -> KernelMachine:
    began = time.perf_counter()
    engine = Engine(
        options.memory, options.threads, 0, as_executor(options.executor), checkpoint=options.checkpoint,
        progress=Progress(options.progress),
    )  # fmt: skip
    with engine.running(identity, plan.to_json()):
        fit: Fit = (ExactFit if plan.method == "exact" else Fit)(engine, rows, options, int(plan.peak))
        best, path = fit.choose(plan.method)
    engine.trace.seconds = time.perf_counter() - began + engine.spared
    return fit.result(plan, best, path)


@dataclass(frozen=True)
class Drawn:
    """Features of one width and scale.

    Attributes
    ----------
    place : int
        Of the width among those asked for.
    scale : float
    kernel : Kernel
    map : FeatureMap
    features : Features
    """

    place: int
    scale: float
    kernel: Kernel
    map: FeatureMap
    features: Features


@dataclass(frozen=True)
class Attempt:
    """The machines of all penalties on features of one width and scale.

    Attributes
    ----------
    drawn : Drawn
    w : float64, shape (D, k)
    found : Point or Solved, optional
        Of weights that are certified.
    scores : Scores, optional
        Of the rows held out.
    cross_validated : float64, shape (p,), optional
    gram : Shifted, optional
    """

    drawn: Drawn
    w: np.ndarray
    found: Any = None
    scores: Scores | None = None
    cross_validated: np.ndarray | None = None
    gram: Shifted | None = None


class Fit:
    """One fit: what its passes share.

    Attributes
    ----------
    survey : Survey
    targets : Targets
    widths : list
        One for each that was asked for: a number, or one for each column.
    """

    def __init__(self, engine: Engine, rows: Rows, options: Options, peak: int):
        self.engine, self.rows, self.options, self.peak = engine, rows, options, peak
        n, d = rows.shape
        self.split = Split(options.held_out, options.seed)
        reduction = SurveyRows(
            d, len(rows.targets), n, self._wanted(), options.seed, classes=options.classify, share=options.held_out,
            source=rows.source,
        )  # fmt: skip
        self.survey: Survey
        (self.survey,) = engine.sweep(rows, [reduction], "survey")
        self._check()
        self.targets = self._targets()
        d = rows.shape[1]
        self.standard = (
            self.survey.standard(d, centre=not rows.is_sparse) if options.standardize else Standard.none(d)
        )  # fmt: skip
        self.points = self.standard(self.survey.points)
        self.widths = [self._width(width) for width in options.widths]
        self.penalties = options.penalties * self.survey.weight

    def draw(self, place: int, scale: float) -> Drawn:
        """Draw features of a width, that many times as long."""
        options = self.options
        kernel = Kernel(options.kernel, self.widths[place] * scale, options.degree, options.constant)
        made = self._map(kernel)
        # Of sparse features the plan has counted all that the passes take.
        spare = options.memory - self.peak if made.sparse else 0
        return Drawn(place, scale, kernel, made, Features(self.standard, made, self.split, max(spare, 0)))

    def _wanted(self) -> int:
        """Rows to sample."""
        n, size = self.rows.shape[0], self.options.features
        looked = LEARNING if self.options.learns or self.options.map == "binning" else LOOKING
        return max(preconditioner.sampled(n, size), rows_needed(n, size), looked, maps.sampled(self.options.map, size))

    def _map(self, kernel: Kernel) -> FeatureMap:
        options = self.options
        return maps.make(
            options.map, kernel, self.rows.shape[1], options.features, options.seed, sample=self.points
        )  # fmt: skip

    def _check(self) -> None:
        found, rows, d = self.survey, self.rows, self.rows.shape[1]
        found.check(rows)
        if not found.weight > 0 or not len(found.points):
            raise DataError(
                "every row that is fitted has weight zero, or none is left to fit",
                where=rows.source,
                hint="Give weights above zero, or hold out fewer rows.",
            )
        if self.options.classify and len(found.labels) < 2:
            raise DataError(
                f"the target has one value only, {self._label(found.labels[0])}: there is nothing to tell apart",
                where=rows.source,
            )
        rare = found.labels[found.counts < 2] if self.options.classify else np.zeros(0)
        if len(rare):
            self.engine.trace.remarks.append(
                f"class {self._label(rare[0])} has one member only: it may be among the rows held out"
            )
        deviation = found.deviation[:d]
        varying = deviation[deviation > 0]
        if not self.options.standardize and len(varying) and varying.max() > UNSCALED * varying.min():
            ratio = varying.max() / varying.min()
            widest, least = (
                rows.columns[int(deviation.argmax())],
                rows.columns[int(np.where(deviation > 0, deviation, np.inf).argmin())],
            )
            self.engine.trace.remarks.append(
                f"column '{widest}' varies {ratio:,.0f} times as much as '{least}', and the kernel sees little but the "
                "former: standardize=True brings them to one scale"
            )

    def _label(self, number: float) -> str:
        """A label as it was given."""
        return f"{number:g}" if self.rows.labels is None else self.rows.labels[int(number)]

    def _targets(self) -> Targets:
        found, options = self.survey, self.options
        if not options.classify:
            return Targets(found.mean[self.rows.shape[1] :].copy())
        labels, share = found.labels, found.counts / found.counts.sum()
        if len(labels) == 2:
            share = share[1:]
        if options.loss == "squared":
            return Targets(2 * share - 1, labels)
        return Targets(np.zeros(len(share)), labels)

    def _width(self, wanted: Any) -> Any:
        """A width as asked for, or found."""
        options, d = self.options, self.rows.shape[1]
        if isinstance(wanted, str):
            width = median_width(options.kernel, self.points, options.seed)
            if wanted == "median":
                return width
            y = self.targets(self.survey.target) - self.targets.offset
            part = min(len(self.points), LEARNING)
            kernel = Kernel(options.kernel, width)
            if options.map == "binning" or options.kernel in INNER:
                # The density of bins has no derivative, and a kernel of inner products no frequencies: what the columns
                # are worth to a smooth kernel is told.
                kernel = Kernel("gaussian", median_width("gaussian", self.points, options.seed))
            learned = learn(kernel, self.points[:part], y[:part], seed=options.seed, threads=options.threads)
            self.engine.trace.remarks.append(
                f"widths learned: loss on rows held out of the sample from {learned.before:.3f} to {learned.after:.3f} "
                "of the variance"
            )
            return learned.widths
        if np.ndim(wanted) and len(wanted) != d:
            raise OptionError(f"there are {len(wanted)} widths for {d} columns", where=self.rows.source)
        return wanted

    def sample(self) -> Sample:
        """The sampled rows."""
        found = self.survey
        return Sample(found.number, self.points, self.targets(found.target) - self.targets.offset, found.sampled)

    # ------------------------------------------------------------ solving

    def choose(self, method: str) -> tuple[Attempt, np.ndarray]:
        """The machines on the features with the least error; and λ, error, scale and width's place of all (·, 4)."""
        choices = [(place, scale) for place in range(len(self.widths)) for scale in self.options.scales.tolist()]
        attempts = self.by_gram(choices) if method == "gram" else (self.attempt(self.draw(*c)) for c in choices)
        best, path = None, list[np.ndarray]()
        for attempt in attempts:
            errors = self.errors(attempt)
            if best is None or errors.min() < self.errors(best).min():
                best, number = attempt, len(path)
            path.append(errors)
            del attempt  # nothing is to hold it while the next is made
        assert best is not None
        best = self.settle(best)
        path[number] = self.errors(best)
        return best, np.array([
            (penalty, error, scale, place)
            for (place, scale), errors in zip(choices, path, strict=True)
            for penalty, error in zip(self.options.penalties, errors, strict=True)
        ])  # fmt: skip

    def problem(self, features: Features) -> Problem:
        """What is minimised."""
        return Problem(self.rows, features, self.targets, LOSSES[self.options.loss], self.penalties, self.options.tol)

    def preconditioner(self, features: Features) -> Preconditioner:
        """The Hessian of the sample, factored; of sparse features the diagonal of that of all rows."""
        if features.map.sparse:
            (diagonal,) = self.engine.sweep(self.rows, [DiagonalOf(features)], "diagonal")
            return Diagonal(LOSSES[self.options.loss].most * diagonal, self.penalties)
        sample = self.sample().least(preconditioner.sampled(self.rows.shape[0], features.size), self.options.seed)
        loss, up = LOSSES[self.options.loss], 1.0
        if not loss.quadratic:
            # The gap is that of strong convexity alone: the directions of least curvature count most.
            up = max(self.survey.weight / max(float(sample.weight.sum()), 1e-300), 1.0)
        s = sample.features(features.map)
        return preconditioner.of_sample(s, up * loss.most, self.penalties, self.options.threads)

    def attempt(self, drawn: Drawn) -> Attempt:
        """The best weights by conjugate gradients, certified."""
        problem = self.problem(drawn.features)
        divide = self.preconditioner(drawn.features)
        found = minimise(self.engine, problem, lambda w: divide, np.zeros((drawn.map.size, problem.columns)))
        (scores,) = self.held_out([drawn], [found.w])
        return Attempt(drawn, found.w, found, scores)

    def by_gram(self, choices: list[tuple[int, float]]) -> Iterator[Attempt]:
        """The weights that the Gram matrices tell, of as many choices in a pass as the memory has room for."""
        step = together_of(self.rows, self.options)
        for first in range(0, len(choices), step):
            attempts = self._by_gram([self.draw(*choice) for choice in choices[first : first + step]])
            while attempts:
                yield attempts.pop(0)

    def _by_gram(self, drawn: list[Drawn]) -> list[Attempt]:
        """Those of one pass."""
        options, outputs = self.options, self.targets.outputs
        grams = [
            Gram(one.features, self.targets, options.threads, folds=max(options.folds, 1), seed=options.seed)
            for one in drawn
        ]  # fmt: skip
        label = "Gram matrix of the features" if len(drawn) == 1 else f"Gram matrices of {len(drawn)} kernels"
        sums: list[Moments] = self.engine.sweep(self.rows, grams, label, keep=False)
        attempts = []
        for one in drawn:
            moments = sums.pop(0)
            errors = cross_validate(moments, options.penalties) if options.folds else None
            shifted = Shifted(moments.gram.sum(axis=0) if options.folds else moments.gram[0], self.penalties)
            cross = np.tile(moments.cross.sum(axis=0), (1, len(self.penalties)))
            w = shifted(cross, np.repeat(np.arange(len(self.penalties)), outputs))
            attempts.append(Attempt(one, w, cross_validated=errors, gram=shifted))
        if options.choices > 1 and not options.folds:
            scores = self.held_out(drawn, [attempt.w for attempt in attempts])
            attempts = [replace(one, scores=found) for one, found in zip(attempts, scores, strict=True)]
        return attempts

    def settle(self, attempt: Attempt) -> Attempt:
        """An attempt certified, and the rows held out scored by it."""
        if attempt.found is not None:
            return attempt
        shifted = attempt.gram
        assert shifted is not None
        found = minimise(self.engine, self.problem(attempt.drawn.features), lambda w: shifted, attempt.w)
        (scores,) = self.held_out([attempt.drawn], [found.w])
        return replace(attempt, w=found.w, found=found, scores=scores)

    def held_out(self, drawn: list[Drawn], weights: list[np.ndarray]) -> list[Scores | None]:
        """Scores of the rows held out, by the weights on each of some features."""
        if self.options.held_out <= 0:
            return [None] * len(drawn)
        expected = int(self.rows.shape[0] * self.options.held_out) + 1
        reductions = [
            HeldOut(one.features, self.targets, w, expected) for one, w in zip(drawn, weights, strict=True)
        ]  # fmt: skip
        return self.engine.sweep(self.rows, reductions, "rows held out")

    # ------------------------------------------------------------ the result

    def errors(self, attempt: Attempt) -> np.ndarray:
        """Of each penalty, cross-validated or on the rows held out; zeros if nothing is known."""
        if attempt.cross_validated is not None:
            return attempt.cross_validated
        if attempt.scores is None:
            return np.zeros(len(self.penalties))
        return _errors(attempt.scores, self.targets, len(self.penalties))

    def result(self, plan: Plan[Any], attempt: Attempt, path: np.ndarray) -> KernelMachine:
        """The machine of the penalty with the least error on the rows held out."""
        options, outputs = self.options, self.targets.outputs
        found, scores = attempt.found, attempt.scores
        best = int(np.argmin(self.errors(attempt)))
        if scores is None and attempt.cross_validated is None:
            path[:, 1] = np.nan
        columns = slice(best * outputs, (best + 1) * outputs)
        penalty, weight = float(self.penalties[best]), self.survey.weight
        bounds = certified(found, columns, penalty, weight, attempt.drawn.map, options.loss, options.tol)
        if options.classify and not self.rows.has_weight:
            bounds |= pac_bayes.bound(found.drawn[best], weight, DELTA, given=self.given)
        if options.loss == "squared":
            relative = float(options.penalties[best])
            bounds |= feature_error(attempt.drawn.map, self.sample(), relative, options.seed, options.threads)
        w, known = found.w[:, columns].copy(), None
        if options.variance and attempt.gram is not None:
            squares = 2 * found.value[columns] - penalty * (w * w).sum(axis=0)
            known = posterior_of(attempt.gram, best, squares, weight)
        if scores is not None:
            scores = replace(scores, scores=scores.scores[:, columns].copy())
        return self.machine(
            plan, attempt.drawn, w, float(found.value[columns].sum()), bounds, scores, path, best, known
        )  # fmt: skip

    @property
    def given(self) -> bool:
        """Whether scales and widths do not depend on the rows that are fitted."""
        chosen = self.options.folds and self.options.choices > 1
        return not (self.options.standardize or self.options.learns or chosen)

    def machine(
        self, plan: Plan[Any], drawn: Drawn, w: np.ndarray, objective: float, bounds: dict[str, Bound],
        scores: Scores | None, path: np.ndarray, best: int = 0, posterior: Posterior | None = None,
    ) -> KernelMachine:  # fmt: skip
        """The machine of some weights."""
        options = self.options
        certificate = Certificate(bounds, 1, self.rows.stored_nbytes, {"features": options.seed})
        for bound in bounds.values():
            if not bound.holds:
                self.engine.trace.remarks.append(
                    f"{bound.name} stayed at {bound.value:.1e}, above the {options.tol:.0e} asked for"
                )
        return KernelMachine(
            w=w,
            targets=self.targets,
            standard=self.standard,
            kernel=drawn.kernel,
            map=drawn.map,
            loss=options.loss,
            regularization=float(options.penalties[best]),
            weight=self.survey.weight,
            given=self.given,
            posterior=posterior,
            rows=self.rows.shape[0],
            columns=self.rows.columns,
            names=self.rows.targets,
            labels=self.rows.labels,
            single=len(self.rows.targets) == 1 and not self.rows.column_target,
            split=self.split,
            tol=options.tol,
            objective=objective,
            path=path,
            scores=None if scores is None else scores.scores,
            truths=None if scores is None else scores.y,
            certificate=certificate,
            trace=self.engine.trace,
            plan=plan,
        )


class ExactFit(Fit):
    """A fit of the kernel itself (:mod:`leyden.kernel.exact`): its weights are the α of the rows."""

    def _wanted(self) -> int:
        return self.rows.shape[0]

    def _map(self, kernel: Kernel) -> FeatureMap:
        return Points(kernel, self.points)

    def attempt(self, drawn: Drawn) -> Attempt:
        assert isinstance(drawn.map, Points)
        spare = self.options.memory - exact_nbytes(self.rows, self.options)
        matrix = exact.KernelMatrix(drawn.map, spare, self.options.threads)
        y = self.sample().y
        found = exact.solve(matrix, y, float(self.penalties[0]), self.options.tol, self.options.seed)
        self.engine.trace.remarks.append(f"{found.iterations} products with the kernel of {len(y):,} rows")
        (scores,) = self.held_out([drawn], [found.w])
        return Attempt(drawn, found.w, found, scores)

    def result(self, plan: Plan[Any], attempt: Attempt, path: np.ndarray) -> KernelMachine:
        assert isinstance(attempt.drawn.map, Points)
        found, penalty = attempt.found, float(self.penalties[0])
        bounds = exact.bounds(found, attempt.drawn.map, penalty, self.options.tol)
        if attempt.scores is None:
            path[:, 1] = np.nan
        return self.machine(plan, attempt.drawn, found.w, float(found.value.sum()), bounds, attempt.scores, path)


def cross_validate(sums: Moments, penalties: np.ndarray) -> np.ndarray:
    """Relative squared error ``Σ (f − y)² / Σ y²`` of each fold's rows by the machine of the others, for each penalty.

    Exact: the sums of a fold give its error, ``YᵀY − 2 wᵀZᵀY + wᵀZᵀZ w``, and those of all without it give w.
    """
    total, cross, weight = sums.gram.sum(axis=0), sums.cross.sum(axis=0), float(sums.weight.sum())
    found = np.zeros(len(penalties))
    for gram, own, square, mine in zip(sums.gram, sums.cross, sums.square, sums.weight, strict=True):
        if mine <= 0:
            continue
        if mine >= weight:  # nothing is left to fit, and the offset is predicted
            found += float(square.sum())
            continue
        lower = np.tril(gram)
        rest = Shifted(total - gram, penalties * (weight - mine))
        for number in range(len(penalties)):
            w = rest(cross - own, np.full(own.shape[1], number))
            quadratic = (w * (lower @ w + lower.T @ w - gram.diagonal()[:, None] * w)).sum()
            found[number] += float(square.sum() - 2 * (w * own).sum() + quadratic)
    size = float(sums.square.sum())
    return np.maximum(found, 0.0) / size if size > 0 else found


def _errors(scores: Scores, targets: Targets, paths: int) -> np.ndarray:
    """Of each penalty, on the rows held out: the share of wrong classes, or the relative residual."""
    outputs, found = targets.outputs, []
    for path in range(paths):
        mine = scores.scores[:, path * outputs : (path + 1) * outputs]
        if targets.classes is None:
            size = float((scores.y**2).sum())
            found.append(math.sqrt(float(((mine - scores.y) ** 2).sum()) / size) if size > 0 else 0.0)
        else:
            found.append(float(np.mean(labels(mine) != labels(scores.y))) if len(mine) else 0.0)
    return np.array(found)


def certified(
    found: Point, columns: slice, penalty: float, weight: float, feature_map: FeatureMap, loss: str, tol: float
) -> dict[str, Bound]:
    """The bounds on the machine of one penalty."""
    gap, value = found.gap[columns], found.value[columns]
    relative = float(np.divide(gap, value, out=np.zeros_like(gap), where=value > 0).max())
    # P is λ-strongly convex: ‖w − w*‖² ≤ 2 gap / λ, and |f(x) − f*(x)| ≤ ‖z(x)‖ ‖w − w*‖.
    everywhere = float(np.sqrt(2 * gap / penalty).max())
    typical = float(np.sqrt(2 * gap / weight).max())
    bounds = [
        Bound(
            "duality_gap", relative, "the objective is this far, relatively, above the least it can be",
            "rigorous", tol,
        ),
        score_error(everywhere, feature_map.bound, "the best machine", "its features, which have no bound"),
    ]  # fmt: skip
    if loss == "squared":
        meaning = "root mean square distance of fitted scores from those of the best machine"
        bounds.append(Bound("fitted_error", typical, meaning, "rigorous", relative=False))
    return {bound.name: bound for bound in bounds}
