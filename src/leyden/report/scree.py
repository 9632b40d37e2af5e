"""Scree plots: singular values or explained variance with their certified enclosures, as SVG or PNG."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leyden.report import plots
from leyden.report.plots import BLUE, INK, ORANGE

if TYPE_CHECKING:
    from leyden.factor.decomposition import SVD, PrincipalComponents

#: Components up to which each has a label of its own, and a visible bar.
FEW = 20

#: Ratio of the largest to the smallest singular value from which a logarithmic axis shows more.
STEEP = 20.0


def scree(solution: SVD, path: str | os.PathLike) -> Path:
    """Plot the spectrum of a decomposition with its certified enclosures.

    Of :func:`leyden.pca` the share of the variance that each component explains, and of those up to it; of
    :func:`leyden.svd` the singular values, logarithmically when they span more than a factor of 20.

    Parameters
    ----------
    solution : SVD or PrincipalComponents
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
    >>> import numpy as np, leyden as ly, tempfile
    >>> from leyden.report.scree import scree
    >>> found = ly.svd(np.diag([4.0, 2.0, 1.0]), rank=3)
    >>> scree(found, tempfile.mkdtemp() + "/spectrum.svg").name
    'spectrum.svg'
    """
    return plots.write(path, lambda: figure(solution))


def figure(solution: SVD) -> Any:
    """The plot as a matplotlib Figure."""
    made, axes = plots.frame()
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    from leyden.factor.decomposition import PrincipalComponents

    if isinstance(solution, PrincipalComponents):
        _variances(axes, solution)
    else:
        _singular_values(axes, solution)
    k = solution.rank
    axes.set_xlabel("component")
    axes.set_xlim(0.4, k + 0.6)
    axes.xaxis.set_major_locator(MultipleLocator(1) if k <= FEW else MaxNLocator(integer=True))
    made.legend(frameon=False, loc="outside lower center", ncols=3)
    return made


def _singular_values(axes: Any, solution: SVD) -> None:
    import numpy as np

    number = np.arange(1, solution.rank + 1)
    s, lower, upper = solution.s, solution.lower, solution.upper
    logarithmic = bool(s[-1] > 0 and s[0] > STEEP * s[-1])
    if logarithmic:
        axes.set_yscale("log")
        # An enclosure that reaches down to zero ends at the foot of the plot.
        foot = 10.0 ** np.floor(np.log10(s[-1]) - 0.15)
        lower = np.maximum(lower, foot)
        axes.set_ylim(foot, 1.6 * upper.max())
    else:
        axes.set_ylim(0, 1.08 * (upper.max() or 1.0))
    few = solution.rank <= FEW
    axes.plot(number, s, "-", color=BLUE, alpha=0.35, linewidth=1)
    axes.errorbar(
        number, s, np.maximum([s - lower, upper - s], 0), fmt="o", color=BLUE, ecolor=ORANGE,
        markersize=6 if few else 3, elinewidth=1.6, capsize=4 if few else 2,
        label=_enclosed(float((upper - solution.lower).max() / (s[0] or 1)), " σ₁"),
    )  # fmt: skip
    axes.set_ylabel("singular value, in units of the data" + (" (log scale)" if logarithmic else ""))
    plots.title(axes, solution.plan.data, "Singular values")


def _variances(axes: Any, solution: PrincipalComponents) -> None:
    import numpy as np

    number = np.arange(1, solution.rank + 1)
    ratio = solution.explained_variance_ratio
    norm2 = solution.frobenius_norm**2 or 1.0
    low, high = 100 * solution.lower**2 / norm2, 100 * solution.upper**2 / norm2
    few = solution.rank <= FEW
    axes.bar(number, 100 * ratio, width=0.72, color=BLUE, alpha=0.85, label="of one component")
    axes.errorbar(
        number, 100 * ratio, np.maximum([100 * ratio - low, high - 100 * ratio], 0), fmt="none", ecolor=ORANGE,
        elinewidth=1.8, capsize=5 if few else 2, label=_enclosed(float((high - low).max()), " %"),
    )  # fmt: skip
    axes.plot(
        number, 100 * np.cumsum(ratio), "s-" if few else "-", color=INK, markersize=4, linewidth=1.3,
        label="of all up to it",
    )  # fmt: skip
    axes.set_ylim(0, 104)
    axes.set_ylabel("share of the variance, in percent")
    plots.title(axes, solution.plan.data, "Variance explained")


def _enclosed(longest: float, unit: str) -> str:
    """What the bars are; most are too short to be seen, so it says how long the longest is."""
    return f"certified enclosure (longest: {longest:.1g}{unit})"
