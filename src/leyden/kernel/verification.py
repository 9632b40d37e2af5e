"""Verification of a kernel machine: its certificate again, from the data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from leyden.certificate import Bound, Certificate
from leyden.engine.sweep import Engine
from leyden.kernel import generalisation
from leyden.kernel.losses import LOSSES
from leyden.kernel.machine import certified
from leyden.kernel.newton import Point
from leyden.kernel.products import Features, Gradient, HeldOut
from leyden.rows import Rows

if TYPE_CHECKING:
    from leyden.kernel.result import KernelMachine

#: How much more than what is claimed may be found.
SLACK = 1.02


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
    features = Features(machine.standard, machine.map, machine.split)
    gradient = Gradient(features, machine.targets, LOSSES[machine.loss], machine.w, double=True)
    held = HeldOut(features, machine.targets, machine.w, int(rows.shape[0] * machine.split.share) + 1)
    sums, scores = engine.sweep(rows, [gradient, held], "verification")
    penalty = machine.regularization * machine.weight
    slope = sums.gradient + penalty * machine.w
    value = sums.value + 0.5 * penalty * (machine.w**2).sum(axis=0)
    gap = (slope * slope).sum(axis=0) / (2 * penalty)
    if machine.loss == "squared":
        gap = np.minimum(gap, sampled_gap(machine, engine, rows, features, slope, penalty))
    point = Point(machine.w, slope, value, gap, sums.wrong)
    found = certified(point, slice(None), penalty, machine.weight, machine.map, machine.loss, machine.tol)
    if machine.scores is not None:
        found |= generalisation.bounds(scores.scores, scores.y, machine.targets, len(machine.path))
    if not np.isclose(float(value.sum()), machine.objective, rtol=1e-9):
        failures.append(
            f"the objective is {float(value.sum()):.9g}, and {machine.objective:.9g} was claimed: the data, or the "
            "numbers saved, are others"
        )
    for name, bound in machine.certificate.bounds.items():
        if name not in found:
            failures.append(f"{name} is claimed, and cannot be verified")
        elif not found[name].value <= bound.value * SLACK + 1e-300:
            failures.append(f"{name} is {found[name].value:.2e}, and {bound.value:.2e} was claimed")
    kept: dict[str, Bound] = {name: replace(bound) for name, bound in found.items()}
    return Certificate(kept, 1, rows.stored_nbytes, dict(machine.certificate.seeds), tuple(failures))


def sampled_gap(
    machine: KernelMachine, engine: Engine, rows: Rows, features: Features, slope: np.ndarray, penalty: float
) -> np.ndarray:
    """The gap that the Hessian of a sample of the rows allows."""
    from leyden.kernel.machine import sampled
    from leyden.kernel.preconditioner import MOST_DENSE, Factored, Woodbury
    from leyden.kernel.survey import SurveyRows

    count = sampled(rows.shape[0], machine.map.size)
    reduction = SurveyRows(
        rows.shape[1], len(machine.names), rows.shape[0], count, machine.split.seed, classes=False,
        share=machine.split.share, source=rows.source,
    )  # fmt: skip
    (survey,) = engine.sweep(rows, [reduction], "sample")
    z = np.empty((len(survey.points), machine.map.size), np.float32)
    features.fill(survey.points, z)
    z *= np.sqrt(survey.sampled)[:, None].astype(np.float32)
    scale = max(machine.weight / max(float(survey.sampled.sum()), 1e-300), 1.0)
    kind = Factored if machine.map.size <= MOST_DENSE else Woodbury
    divide = kind(z, scale, np.array([penalty]), engine.threads or 1)
    which = np.zeros(slope.shape[1], int)
    return 0.5 * divide.scale * (slope * divide(slope, which)).sum(axis=0)
