"""Convergence plots: the objective of a matrix factorization, epoch by epoch, above its certified lower bound."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leyden.report import plots
from leyden.report.plots import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from leyden.factor.als_result import ALSResult

#: Relative duality gap below which the distance to the lower bound, on a logarithmic axis, shows more.
CLOSE = 0.01

#: Relative distance to the lower bound that rounding alone may make: nothing is drawn below it.
TINY = 1e-16

#: Epochs up to which each has a visible mark.
FEW = 40


def convergence(solution: ALSResult, path: str | os.PathLike) -> Path:
    """Plot the objective after each epoch, and below it what no factors of any rank can reach.

    Where the duality gap is below a percent, what is shown is the distance to the lower bound, logarithmically. Epochs
    on a part of the users have another objective, and are not shown.

    Parameters
    ----------
    solution : ALSResult
    path : path
        Ends in ``.svg`` or ``.png``. The file appears complete or not at all.

    Returns
    -------
    Path

    Raises
    ------
    OptionError, SolutionError

    Examples
    --------
    >>> import leyden as ly, tempfile
    >>> from leyden.report.convergence import convergence
    >>> ratings = ly.open_ratings(([0, 0, 1, 1, 2], [0, 1, 0, 2, 1], [5.0, 3.0, 4.0, 1.0, 2.0]))
    >>> convergence(ly.als(ratings, rank=2), tempfile.mkdtemp() + "/epochs.svg").name
    'epochs.svg'
    """
    return plots.write(path, lambda: figure(solution))


def figure(solution: ALSResult) -> Any:
    """The plot as a matplotlib Figure."""
    made, axes = plots.frame()
    from matplotlib.ticker import MaxNLocator

    users = float(solution.model.users)
    epochs = [(number, epoch) for number, epoch in enumerate(solution.history, 1) if epoch["users"] == users]
    kept = [(number, epoch["after"]) for number, epoch in epochs if not epoch.get("taken_back")]
    back = [(number, epoch["after"]) for number, epoch in epochs if epoch.get("taken_back")]
    bound = solution.certificate.bounds["objective"]
    lower, gap = bound.lower or 0.0, solution.certificate.bounds["duality_gap"].value
    close = gap < CLOSE and bound.value > 0

    def height(objective: float) -> float:
        return max(objective - lower, TINY * bound.value) / bound.value if close else objective

    if close:
        axes.set_yscale("log")
    marks = {"marker": "o", "markersize": 4 if len(epochs) <= FEW else 0}
    axes.plot([n for n, _ in kept], [height(f) for _, f in kept], color=BLUE, label="after an epoch", **marks)
    if back:
        axes.plot([n for n, _ in back], [height(f) for _, f in back], "x", color=GREY, label="extrapolation taken back")
    axes.axhline(
        height(bound.value) if close else lower, color=ORANGE, linestyle="--",
        label=f"certified: the gap is at most {gap:.1e}" if close else f"certified lower bound: a gap of {gap:.2g}",
    )  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("objective above its lower bound, relative" if close else "objective")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _foretold(axes, epochs)
    plots.title(axes, solution.plan.data, "Convergence")
    made.legend(frameon=False, loc="outside lower center", ncols=3)
    return made


def _foretold(axes: Any, epochs: list[tuple[int, dict[str, float]]]) -> None:
    """On an axis of its own, what epochs foretell of held-out ratings, and the 95 % confidence interval of that."""
    from leyden.factor.held_out import SHOWN

    for key, name in SHOWN.items():
        points = [
            (number, epoch[key], epoch[f"{key}_low"], epoch[f"{key}_high"]) for number, epoch in epochs if key in epoch
        ]
        if not points:
            continue
        numbers, means, low, high = zip(*points, strict=True)
        other = axes.twinx()
        other.plot(numbers, means, color=GREY, marker="." if len(points) <= FEW else "", label=f"{name}, held out")
        other.fill_between(numbers, low, high, color=GREY, alpha=0.2, linewidth=0)
        other.set_ylabel(f"{name} of held-out ratings")
        return
