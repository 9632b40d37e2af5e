"""Verification of a kernel machine: its certificate again, from the data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from leyden.certificate import Bound, Certificate
from leyden.engine.budget import thread_count
from leyden.engine.sweep import Engine
from leyden.kernel import exact, generalisation, pac_bayes
from leyden.kernel.losses import LOSSES
from leyden.kernel.machine import certified
from leyden.kernel.newton import Point
from leyden.kernel.points import Points
from leyden.kernel.preconditioner import of_sample, sampled
from leyden.kernel.products import Features, Gradient, HeldOut, HessianProduct
from leyden.kernel.resampling import Sample, feature_error, rows_needed
from leyden.kernel.survey import SurveyRows
from leyden.rows import Rows

if TYPE_CHECKING:
    from leyden.kernel.result import KernelMachine

#: How much more than what is claimed may be found.
SLACK = 1.02
#: How far products with the Gram matrix, which are float32, may be from those with its factor, relatively.
FACTORED = 2e-5


def verified(machine: KernelMachine, engine: Engine, rows: Rows) -> Certificate:
    """The bounds that one pass over ``rows`` supports, and what does not agree with those that are claimed.

    The gap is that of strong convexity alone, ``‖∇P‖²/2λ``: where a smaller one was claimed, from a sample of the
    rows, that is made again.
    """
    failures = []
    if rows.shape[0] != machine.rows or rows.shape[1] != len(machine.columns):
        failures.append(
            f"the data has {rows.shape[0]:,} rows of {rows.shape[1]:,} columns; {machine.rows:,} of "
            f"{len(machine.columns):,} were fitted"
        )
        return Certificate({}, 0, 0, {}, tuple(failures))
    if rows.labels != machine.labels:
        return Certificate({}, 0, 0, {}, ("the labels of the data are not those that were fitted",))
    if isinstance(machine.map, Points):
        return exactly_verified(machine, engine, rows, machine.map)
    features = Features(machine.standard, machine.map, machine.split)
    gradient = Gradient(features, machine.targets, LOSSES[machine.loss], machine.w, double=True)
    held = HeldOut(features, machine.targets, machine.w, int(rows.shape[0] * machine.split.share) + 1)
    sums, scores = engine.sweep(rows, [gradient, held], "verification")
    penalty = machine.regularization * machine.weight
    slope = sums.gradient + penalty * machine.w
    value = sums.value + 0.5 * penalty * (machine.w**2).sum(axis=0)
    gap = (slope * slope).sum(axis=0) / (2 * penalty)
    if machine.loss == "squared" and not machine.map.sparse:
        sample, seed = sampled_rows(machine, engine, rows), machine.split.seed
        part = sample.least(sampled(rows.shape[0], machine.map.size), seed)
        gap = np.minimum(gap, sampled_gap(machine, part, engine.threads or 1, slope, penalty))
    point = Point(machine.w, slope, value, gap, sums.wrong, sums.drawn)
    found = certified(point, slice(None), penalty, machine.weight, machine.map, machine.loss, machine.tol)
    if machine.loss == "squared" and not machine.map.sparse:
        found |= feature_error(machine.map, sample, machine.regularization, seed, engine.threads or 1)
    if machine.classes is not None and not rows.has_weight:
        found |= pac_bayes.bound(sums.drawn[0], machine.weight, generalisation.DELTA, given=machine.given)
    if machine.posterior is not None:
        random = np.random.default_rng(machine.split.seed).choice([-1.0, 1.0], machine.w.shape)
        product = HessianProduct(features, machine.targets, LOSSES[machine.loss], machine.w, random)
        (image,) = engine.sweep(rows, [product], "factor")
        mismatch = machine.posterior.mismatch(random, image + penalty * random)
        if not mismatch < FACTORED:
            failures.append(f"the factor that was saved is not that of the features: it is {mismatch:.1e} off")
    if machine.scores is not None:
        found |= generalisation.bounds(scores.scores, scores.y, machine.targets, len(machine.path))
    return compared(machine, rows, found, float(value.sum()), failures)


def exactly_verified(machine: KernelMachine, engine: Engine, rows: Rows, points: Points) -> Certificate:
    """The same of an exact machine."""
    sample, threads, penalty = (
        sampled_rows(machine, engine, rows),
        engine.threads or thread_count(),
        machine.regularization * machine.weight,
    )
    if not np.array_equal(sample.points, points.points):
        return Certificate({}, 0, 0, {}, ("the points that were saved are not those of the data",))
    matrix = exact.KernelMatrix(points, 0, threads)
    solved, _ = exact.measured(matrix, machine.w, sample.y, penalty)
    found = exact.bounds(solved, points, penalty, machine.tol)
    if machine.scores is not None:
        features = Features(machine.standard, machine.map, machine.split)
        held = HeldOut(features, machine.targets, machine.w, int(rows.shape[0] * machine.split.share) + 1)
        (scores,) = engine.sweep(rows, [held], "verification")
        found |= generalisation.bounds(scores.scores, scores.y, machine.targets, len(machine.path))
    return compared(machine, rows, found, float(solved.value.sum()), [])


def compared(
    machine: KernelMachine, rows: Rows, found: dict[str, Bound], objective: float, failures: list[str]
) -> Certificate:
    """What was found beside what is claimed."""
    if not np.isclose(objective, machine.objective, rtol=1e-9):
        failures.append(
            f"the objective is {objective:.9g}, and {machine.objective:.9g} was claimed: the data, or the "
            "numbers saved, are others"
        )
    for name, bound in machine.certificate.bounds.items():
        if name not in found:
            failures.append(f"{name} is claimed, and cannot be verified")
        elif not found[name].value <= bound.value * SLACK + 1e-300:
            failures.append(f"{name} is {found[name].value:.2e}, and {bound.value:.2e} was claimed")
    kept: dict[str, Bound] = {name: replace(bound) for name, bound in found.items()}
    return Certificate(kept, 1, rows.stored_nbytes, dict(machine.certificate.seeds), tuple(failures))


def sampled_rows(machine: KernelMachine, engine: Engine, rows: Rows) -> Sample:
    """The sample that the fit was preconditioned by, and more."""
    count = max(sampled(rows.shape[0], machine.map.size), rows_needed(rows.shape[0], machine.map.size))
    if isinstance(machine.map, Points):
        count = rows.shape[0]
    reduction = SurveyRows(
        rows.shape[1], len(machine.names), rows.shape[0], count, machine.split.seed, classes=False,
        share=machine.split.share, source=rows.source,
    )  # fmt: skip
    (survey,) = engine.sweep(rows, [reduction], "sample")
    y = machine.targets(survey.target) - machine.targets.offset
    return Sample(survey.number, machine.standard(survey.points), y, survey.sampled)


def sampled_gap(machine: KernelMachine, sample: Sample, threads: int, slope: np.ndarray, penalty: float) -> np.ndarray:
    """The gap that the Hessian of a sample of the rows allows."""
    divide = of_sample(sample.features(machine.map), 1.0, np.array([penalty]), threads)
    return 0.5 * (slope * divide(slope, np.zeros(slope.shape[1], int))).sum(axis=0)
