"""Caterpillar plots: the coefficients of the groups of a mixed model, in order, each with its standard errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leyden.errors import OptionError
from leyden.report import plots
from leyden.report.plots import BLUE, GREY, INK, ORANGE

if TYPE_CHECKING:
    from leyden.solve.mixed.result import MixedModel, RandomEffects

#: Groups drawn of a grouping; of more, so many that are evenly spaced in their order.
MOST = 300

#: Groups up to which each has its name beside it.
FEW = 40

#: Standard errors that an interval extends to either side: 95 percent of a normal distribution.
WIDTH = 1.96


def caterpillar(model: MixedModel, path: str | os.PathLike, *, group: str | None = None) -> Path:
    """Plot the predicted coefficients of groups, in order, with ±1.96 standard errors.

    Every coefficient of a grouping has a panel, and its groups are in its own order. The standard errors are those of
    ``u − û``: that fixed effects are estimated is in them, that covariances are estimated is not.

    Parameters
    ----------
    model : MixedModel
    path : path
        Ends in ``.svg`` or ``.png``. The file appears complete or not at all.
    group : str, optional
        Which grouping; all of them, one below another, when it is not given.

    Returns
    -------
    Path

    Raises
    ------
    OptionError, SolutionError

    Examples
    --------
    >>> import numpy as np, leyden as ly, tempfile
    >>> from leyden.report.caterpillar import caterpillar
    >>> rng = np.random.default_rng(0)
    >>> g = rng.integers(0, 20, 400)
    >>> data = {"g": g, "y": rng.standard_normal(20)[g] + rng.standard_normal(400)}
    >>> caterpillar(ly.mixed("y ~ 1 + (1 | g)", data), tempfile.mkdtemp() + "/groups.svg").name
    'groups.svg'
    """
    return plots.write(path, lambda: figure(model, group))


def figure(model: MixedModel, group: str | None = None) -> Any:
    """The plot as a matplotlib Figure."""
    if group is not None and group not in model.groupings:
        raise OptionError(f"there is no grouping '{group}'", hint=f"There are {', '.join(model.groupings)}.")
    shown = [found for name, found in model.groupings.items() if group in (None, name)]
    made, panels = plots.panels([len(found.columns) for found in shown], [_height(found) for found in shown])
    for found, row in zip(shown, panels, strict=True):
        for j, axes in enumerate(row):
            _panel(axes, found, j)
    plots.title(panels[0][0], model.plan.data, "Random effects")
    marks: dict[str, Any] = {}
    for axes in (axes for row in panels for axes in row):
        handles, labels = axes.get_legend_handles_labels()
        marks |= dict(zip(labels, handles, strict=True))
    made.legend(marks.values(), marks.keys(), frameon=False, loc="outside lower center", ncols=3)
    return made


def _height(found: RandomEffects) -> float:
    """Of the panels of a grouping, in inches: names need room."""
    return 1.4 + 0.17 * len(found.ids) if len(found.ids) <= FEW else 4.2


def _panel(axes: Any, found: RandomEffects, j: int) -> None:
    """One coefficient of a grouping: the least at the bottom."""
    import numpy as np

    order = np.argsort(found.effects[:, j], kind="stable")
    kept = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST)).round().astype(int))]
    effects = found.effects[kept, j]
    width = WIDTH * np.sqrt(np.maximum(found.uncertainty[kept, j, j], 0.0))
    height = np.arange(len(kept))
    away = np.abs(effects) > width
    few = len(kept) <= FEW
    for which, colour, label in ((away, BLUE, "zero is outside"), (~away, GREY, "zero is inside")):
        if which.any():
            axes.errorbar(
                effects[which], height[which], xerr=width[which], fmt="o", color=colour, markersize=4 if few else 1.8,
                elinewidth=1.4 if few else 0.6, label=f"±{WIDTH} standard errors: {label}",
            )  # fmt: skip
    axes.axvline(0, color=ORANGE, linewidth=1)
    axes.set_ylim(-0.8, len(kept) - 0.2)
    axes.set_yticks([])
    if few:
        axes.set_yticks(height, [str(name) for name in found.ids.take(kept)], parse_math=False)
    shown = found.group if len(kept) == len(order) else f"{found.group}: {len(kept)} of {len(order):,}"
    axes.set_ylabel(shown, parse_math=False)
    axes.set_xlabel(found.columns[j], color=INK, parse_math=False)
