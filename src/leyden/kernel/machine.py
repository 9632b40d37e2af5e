r"""Kernel machines on random features: ``f(x) = offset + z(x)·w`` with ``w = argmin Σ ℓ(f(x_i), y_i) + ½ λ n ‖w‖²``.

What is done, pass by pass:

1. a survey: scale of the columns, classes, and a sample of the rows, from which widths are set or learned
   (:mod:`leyden.kernel.widths`);
2. the solve, one of

   ======  ==============================================================  ============================================
   method  how                                                             when
   ======  ==============================================================  ============================================
   cg      conjugate gradients, a pass each, divided by the Hessian of a   any number of features
           sample (:mod:`leyden.kernel.newton`)
   gram    the Gram matrix of the features in one pass; then every         squared loss; D² numbers fit, and passes
           penalty costs a Cholesky factorization and no pass              would cost more, or the penalties are many
   ======  ==============================================================  ============================================

3. the certificate: objective and gradient in float64, which bound the distance to the best machine of these features;
4. the rows that were held out: errors, the penalty with the least of them, probabilities, prediction intervals.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
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
from leyden.engine.reduction import Scratch
from leyden.engine.sweep import Engine, read_rate
from leyden.errors import DataError, OptionError
from leyden.kernel.features import FeatureMap
from leyden.kernel.generalisation import labels
from leyden.kernel.inputs import Standard, median_width
from leyden.kernel.kernels import NAMES, Kernel
from leyden.kernel.losses import LOSSES
from leyden.kernel.maps import make
from leyden.kernel.newton import Point, Problem, minimise
from leyden.kernel.preconditioner import MOST_DENSE, Factored, Preconditioner, Shifted, Woodbury
from leyden.kernel.products import Features, Gram, HeldOut, Moments, Scores, Targets
from leyden.kernel.result import KernelMachine
from leyden.kernel.split import Split
from leyden.kernel.survey import Survey, SurveyRows
from leyden.kernel.widths import learn
from leyden.plan import PassPlan, Plan, machine, verb
from leyden.rows import Rows
from leyden.rows import open as open_rows
from leyden.rows.base import find_nonfinite

METHODS = ("cg", "gram")

MAX_FEATURES = 10**7

#: Rows that are looked at at once for what is not finite.
BLOCK_ROWS = 4096
#: Rows that widths are learned from, or a median taken of.
LEARNING, LOOKING = 40_000, 5_000
#: Sampled rows a feature, for the Hessian that is divided by; and the most beyond MOST_DENSE features.
SAMPLED, MOST_SAMPLED = 8, 10_000
#: Passes that conjugate gradients take, about.
EXPECTED = 16
#: Ratio of the deviations of columns from which they are said to be on different scales.
UNSCALED = 100.0


@dataclass(frozen=True)
class Options:
    """What was asked, beside the data."""

    classify: bool
    loss: str
    features: int
    kernel: str
    width: Any
    map: str
    penalties: np.ndarray
    standardize: bool
    held_out: float
    folds: int
    tol: float
    seed: int
    memory: int
    threads: int
    progress: bool | None
    checkpoint: Checkpoint | None
    executor: Executor | None


@verb
def kernel_machine(
    rows: Any,
    target: Any = None,
    *,
    classify: bool = False,
    loss: str = "squared",
    features: int = 2000,
    kernel: str = "gaussian",
    width: Any = "median",
    map: str = "auto",
    regularization: float | Sequence[float] = 1e-6,
    standardize: bool = True,
    held_out: float = 0.05,
    folds: int = 0,
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
        Numbers, or with ``classify`` labels that are numbers.
    classify : bool, default False
        Whether targets are labels: one machine a class, against the rest.
    loss : {"squared", "logistic", "squared_hinge"}
        The latter two with ``classify``.
    features : int, default 2000
        D.
    kernel : {"gaussian", "laplacian", "matern12", "matern32", "matern52", "cauchy"}
        See :mod:`leyden.kernel.kernels`.
    width : "median", "learned", float, or array of shape (d,)
        How far apart points are alike, in units of the standardised columns: the median distance of pairs, or one
        for each column as held-out rows are predicted best (:mod:`leyden.kernel.widths`).
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
    held = check.zero_or_more("held_out", held_out)
    if held >= 1:
        raise OptionError(f"held_out={held_out} leaves no row to fit", hint="Give a share below one, such as 0.05.")
    folds = check.whole("folds", folds, 0, 1000)
    if folds == 1 or (folds and loss != "squared"):
        raise OptionError(
            "cross-validation is of the squared loss, and needs two folds or more", hint="Leave folds out."
        )
    if folds:
        method = "gram"
    if len(penalties) > 1 and held == 0 and not folds:
        raise OptionError("one of several penalties is chosen by rows held out, and none are", hint="Give held_out.")
    if method != "auto":
        check.one_of("method", method, METHODS)
    if method == "gram" and loss != "squared":
        raise OptionError("the Gram matrix of the features solves the squared loss alone", hint='Take method="cg".')
    options = Options(
        classify=classify,
        loss=loss,
        features=check.whole("features", features, 1, MAX_FEATURES),
        kernel=check.one_of("kernel", kernel, NAMES),
        width=_width(width),
        map=map,
        penalties=penalties[::-1],
        standardize=check.flag("standardize", standardize),
        held_out=held,
        folds=folds,
        tol=check.fraction("tol", tol),
        seed=check.seed(seed),
        memory=as_executor(executor).memory() if memory is None else check.memory(memory),
        threads=check.threads(threads) or thread_count(),
        progress=check.progress(progress),
        checkpoint=as_checkpoint(checkpoint),
        executor=executor,
    )
    opened = open_rows(rows, target=target, weight=weights)
    if not opened.targets:
        raise OptionError("there is no target", where=opened.source, hint="Give target, or open the rows with target=.")
    if classify and len(opened.targets) > 1:
        raise OptionError("labels are one column, and there are several targets", where=opened.source)
    identity = {
        "verb": "kernel_machine",
        "options": {
            name: value.tolist() if isinstance(value, np.ndarray) else value
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


def _width(width: Any) -> Any:
    if isinstance(width, str):
        return check.one_of("width", width, ("median", "learned"))
    if np.ndim(width) == 0:
        return check.positive("width", width)
    array = np.asarray(width, np.float64)
    if array.ndim != 1 or not (np.isfinite(array) & (array > 0)).all():
        raise OptionError("width is to be a positive number, or one for each column")
    return array


# ---------------------------------------------------------------- the plan


def choose(rows: Rows, options: Options, method: str) -> Plan[Any]:
    """The method that is predicted to take the least time among those that fit the budget."""
    n, d = rows.shape
    size, rates = options.features, machine()
    threads, outputs = options.threads, 1 if options.classify else len(rows.targets)
    columns = outputs * len(options.penalties)
    seconds_read = 0.0 if rows.in_memory else rows.stored_nbytes / read_rate(rows, options.memory)
    single, double = rates.gram32 * threads, rates.gram64 * threads

    def one(label: str, flops: float, rate: float = single) -> PassPlan:
        return PassPlan(label, rows.stored_nbytes, flops, max(flops / rate, seconds_read))

    make_features = n * size * (d + 40.0)
    each = make_features + 4.0 * n * size * columns
    survey, held = one("survey", 10.0 * n * d), one("rows held out", options.held_out * each)
    certificate = one("gradient, certificate", make_features + 12.0 * n * size * columns)
    sample = sampled(n, size)
    dense = size <= MOST_DENSE
    order = size if dense else sample
    algebra = PassPlan(
        "dense algebra", 0, f := (sample * float(size) * order + order**3 / 3.0 * len(options.penalties)), f / double
    )
    cg = Plan[Any](
        "kernel_machine", repr(rows), "cg",
        (f"conjugate gradients on {size:,} features, divided by the Hessian of {sample:,} sampled rows",),
        (), (survey, *[one("conjugate step", each)] * EXPECTED, certificate, held), options.memory,
        peak_nbytes("cg", rows, options), algebra,
    )  # fmt: skip
    gram_flops = n * float(size) ** 2 + make_features
    factor = PassPlan("dense algebra", 0, f := size**3 / 3.0 * len(options.penalties), f / double)
    gram = Plan[Any](
        "kernel_machine", repr(rows), "gram",
        (f"the Gram matrix of {size:,} features solves for {len(options.penalties)} penalties at once",),
        (), (survey, one("Gram matrix of the features", gram_flops), certificate, held), options.memory,
        peak_nbytes("gram", rows, options), factor,
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


def sampled(n: int, size: int) -> int:
    """Rows of the sample that the preconditioner is made of."""
    return int(min(n, SAMPLED * size if size <= MOST_DENSE else MOST_SAMPLED))


def peak_nbytes(method: str, rows: Rows, options: Options) -> int:
    """What the run takes at most, about: matrices between the passes, or states and tiles in one."""
    n, d = rows.shape
    size, threads = options.features, options.threads
    outputs = (1 if options.classify else len(rows.targets)) * len(options.penalties)
    sample = max(sampled(n, size), min(n, LEARNING if isinstance(options.width, str) else 0))
    points = 8.0 * sample * (d + 4) * 3 + 4.0 * d * size
    tile = threads * (4 * 2**20 + 3 * 2**20 + 40.0 * size * 24) + 8.0 * size * outputs * (6 + 3 * threads)
    if method == "gram":
        matrices = 2 * options.folds + 2 if options.folds else 1
        return int(points + tile + 8.0 * size**2 * matrices + 4.0 * 2048 * size)
    made = sampled(n, size)
    held = 8.0 * size**2 * len(options.penalties) if size <= MOST_DENSE else 8.0 * made**2 * 2
    return int(points + tile + 4.0 * made * size + held + 8.0 * 2048 * min(size, MOST_DENSE))


# ---------------------------------------------------------------- the run


def _run(plan: Plan[Any], rows: Rows, options: Options, identity: dict[str, Any]) -> KernelMachine:
    began = time.perf_counter()
    engine = Engine(
        options.memory, options.threads, 0, as_executor(options.executor), checkpoint=options.checkpoint,
        progress=Progress(options.progress),
    )  # fmt: skip
    with engine.running(identity, plan.to_json()):
        fit = Fit(engine, rows, options)
        found = fit.solve(plan.method)
        scores = fit.held_out(found.w)
    engine.trace.seconds = time.perf_counter() - began + engine.spared
    return fit.result(plan, found, scores)


class Fit:
    """One fit: what its passes share.

    Attributes
    ----------
    survey : Survey
    features : Features
    targets : Targets
    """

    def __init__(self, engine: Engine, rows: Rows, options: Options):
        self.engine, self.rows, self.options = engine, rows, options
        self.cross_validated: np.ndarray | None = None
        n, d = rows.shape
        self.split = Split(options.held_out, options.seed)
        wanted = max(sampled(n, options.features), LEARNING if isinstance(options.width, str) else LOOKING)
        reduction = SurveyRows(
            d, len(rows.targets), n, wanted, options.seed, classes=options.classify, share=options.held_out,
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
        self.kernel = Kernel(options.kernel, self._widths())
        self.map: FeatureMap = make(
            options.map, self.kernel, d, options.features, options.seed, sample=self.points
        )  # fmt: skip
        self.features = Features(self.standard, self.map, self.split)
        self.penalties = options.penalties * self.survey.weight

    def _check(self) -> None:
        found, rows, d = self.survey, self.rows, self.rows.shape[1]
        if not (np.isfinite(found.mean).all() and np.isfinite(found.scatter).all()):
            raise find_nonfinite(rows, BLOCK_ROWS) or DataError(
                "the columns are so large that their variance is not finite", where=rows.source, hint="Rescale them."
            )
        if not found.weight > 0 or not len(found.points):
            raise DataError(
                "every row that is fitted has weight zero, or none is left to fit",
                where=rows.source,
                hint="Give weights above zero, or hold out fewer rows.",
            )
        if self.options.classify and len(found.labels) < 2:
            raise DataError(
                f"the target has one value only, {found.labels[0]:g}: there is nothing to tell apart", where=rows.source
            )
        rare = found.labels[found.counts < 2] if self.options.classify else np.zeros(0)
        if len(rare):
            self.engine.trace.remarks.append(
                f"class {rare[0]:g} has one member only: it may be among the rows held out"
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

    def _y(self) -> np.ndarray:
        """Y of the sampled rows."""
        if self.targets.classes is None:
            return self.survey.target
        columns = np.arange(self.targets.outputs) + (self.targets.outputs == 1)
        place = np.searchsorted(self.targets.classes, self.survey.target[:, 0])
        return np.where(place[:, None] == columns, 1.0, -1.0)

    def _widths(self) -> Any:
        options, d = self.options, self.rows.shape[1]
        if isinstance(options.width, str):
            width = median_width(options.kernel, self.points, options.seed)
            if options.width == "median":
                return width
            y = self._y() - self.targets.offset
            part = min(len(self.points), LEARNING)
            learned = learn(Kernel(options.kernel, width), self.points[:part], y[:part], seed=options.seed)
            self.engine.trace.remarks.append(
                f"widths learned: loss on rows held out of the sample from {learned.before:.3f} to {learned.after:.3f} "
                "of the variance"
            )
            return learned.widths
        if np.ndim(options.width) and len(options.width) != d:
            raise OptionError(f"there are {len(options.width)} widths for {d} columns", where=self.rows.source)
        return options.width

    # ------------------------------------------------------------ solving

    def problem(self) -> Problem:
        """What is minimised."""
        return Problem(
            self.rows, self.features, self.targets, LOSSES[self.options.loss], self.penalties, self.options.tol
        )

    def sampled_features(self) -> tuple[np.ndarray, float]:
        """Features of the sampled rows times the roots of their weights, and how many rows each stands for."""
        count = min(len(self.points), sampled(self.rows.shape[0], self.options.features))
        z = np.empty((count, self.map.size), np.float32)
        scratch = Scratch()
        for first in range(0, count, 1024):
            part = slice(first, min(first + 1024, count))
            self.map.fill(self.points[part], z[part], scratch)
        weight = self.survey.sampled[:count]
        if (weight != 1).any():
            z *= np.sqrt(weight)[:, None].astype(np.float32)
        return z, self.survey.weight / max(float(weight.sum()), 1e-300)

    def preconditioner(self) -> Preconditioner:
        """The Hessian of the sample, factored."""
        z, scale = self.sampled_features()
        kind = Factored if self.map.size <= MOST_DENSE else Woodbury
        return kind(z, max(scale, 1.0) * LOSSES[self.options.loss].most, self.penalties, self.options.threads)

    def solve(self, method: str) -> Point:
        """The best weights, certified."""
        problem, size = self.problem(), self.map.size
        w = np.zeros((size, problem.columns))
        if method == "cg":
            divide = self.preconditioner()
            return minimise(self.engine, problem, lambda w: divide, w)
        sums: Moments
        gram = Gram(
            self.features, self.targets, self.options.threads, folds=max(self.options.folds, 1), seed=self.options.seed
        )  # fmt: skip
        (sums,) = self.engine.sweep(self.rows, [gram], "Gram matrix of the features", keep=False)
        if self.options.folds:
            self.cross_validated = cross_validate(sums, self.options.penalties)
        shifted = Shifted(sums.gram.sum(axis=0) if self.options.folds else sums.gram[0], self.penalties)
        w = shifted(np.tile(sums.cross.sum(axis=0), (1, len(self.penalties))), problem.which)
        return minimise(self.engine, problem, lambda w: shifted, w)

    def held_out(self, w: np.ndarray) -> Scores | None:
        """Scores of the rows held out."""
        if self.options.held_out <= 0:
            return None
        expected = int(self.rows.shape[0] * self.options.held_out) + 1
        reduction = HeldOut(self.features, self.targets, w, expected)
        scores: Scores
        (scores,) = self.engine.sweep(self.rows, [reduction], "rows held out")
        return scores

    # ------------------------------------------------------------ the result

    def result(self, plan: Plan[Any], found: Point, scores: Scores | None) -> KernelMachine:
        """The machine of the penalty with the least error on the rows held out."""
        options, outputs = self.options, self.targets.outputs
        errors = _errors(scores, self.targets, len(self.penalties)) if scores is not None else None
        if self.cross_validated is not None:
            errors = self.cross_validated
        best = int(np.argmin(errors)) if errors is not None else 0
        columns = slice(best * outputs, (best + 1) * outputs)
        bounds = certified(
            found, columns, float(self.penalties[best]), self.survey.weight, self.map, options.loss, options.tol
        )
        certificate = Certificate(bounds, 1, self.rows.stored_nbytes, {"features": options.seed})
        for bound in bounds.values():
            if not bound.holds:
                self.engine.trace.remarks.append(
                    f"{bound.name} stayed at {bound.value:.1e}, above the {options.tol:.0e} asked for"
                )
        return KernelMachine(
            w=found.w[:, columns].copy(),
            targets=self.targets,
            standard=self.standard,
            kernel=self.kernel,
            map=self.map,
            loss=options.loss,
            regularization=float(options.penalties[best]),
            weight=self.survey.weight,
            rows=self.rows.shape[0],
            columns=self.rows.columns,
            names=self.rows.targets,
            single=len(self.rows.targets) == 1 and not self.rows.column_target,
            split=self.split,
            tol=options.tol,
            objective=float(found.value[columns].sum()),
            path=np.column_stack(
                [options.penalties, errors if errors is not None else np.full(len(self.penalties), np.nan)]
            ),
            scores=None if scores is None else scores.scores[:, columns].copy(),
            truths=None if scores is None else scores.y,
            certificate=certificate,
            trace=self.engine.trace,
            plan=plan,
        )


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
    everywhere = float(np.sqrt(2 * gap / penalty).max()) * feature_map.bound
    typical = float(np.sqrt(2 * gap / weight).max())
    bounds = [
        Bound(
            "duality_gap", relative, "the objective is this far, relatively, above the least it can be",
            "rigorous", tol,
        ),
        Bound(
            "score_error", everywhere, "no score, at any point, is further from that of the best machine",
            "rigorous", relative=False,
        ),
    ]  # fmt: skip
    if loss == "squared":
        meaning = "root mean square distance of fitted scores from those of the best machine"
        bounds.append(Bound("fitted_error", typical, meaning, "rigorous", relative=False))
    return {bound.name: bound for bound in bounds}
