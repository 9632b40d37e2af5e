"""Scree plots: singular values or explained variance with their certified enclosures, as SVG or PNG.

The colours are those of M. Okabe and K. Ito, "Color Universal Design", 2008, told apart by the colour-blind as well.
"""

from __future__ import annotations

import os
import textwrap
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leyden.errors import OptionError, SolutionError

if TYPE_CHECKING:
    from leyden.factor.decomposition import SVD, PrincipalComponents

ENDINGS = (".svg", ".png")

BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"

#: Components up to which each has a label of its own, and a visible bar.
FEW = 20

#: Ratio of the largest to the smallest singular value from which a logarithmic axis shows more.
STEEP = 20.0


def check(path: str | os.PathLike) -> Path:
    """Where a plot will be written, expanded; refused now if it could not be.

    Raises
    ------
    OptionError
        Without matplotlib, or for an ending other than those of :data:`ENDINGS`.
    SolutionError
        If the folder is missing or cannot be written to.
    """
    target = Path(os.path.expanduser(path))
    if target.suffix.lower() not in ENDINGS:
        raise OptionError("a plot is written as .svg or .png", where=str(target), hint="Name it so.")
    if not target.parent.is_dir():
        raise SolutionError("there is no such folder", where=str(target.parent), hint="Make it first.")
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        raise SolutionError("the plot cannot be written here", where=str(target), hint="Name another file.")
    _matplotlib()
    return target


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
    target = check(path)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with _matplotlib().rc_context({"svg.hashsalt": "leyden"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # letters of a path that the font has not
            kind = target.suffix.lower()[1:]
            figure(solution).savefig(partial, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
        partial.replace(target)
    except OSError as error:
        raise SolutionError(f"the plot cannot be written ({error.strerror})", where=str(target)) from None
    finally:
        partial.unlink(missing_ok=True)
    return target


def figure(solution: SVD) -> Any:
    """The plot as a matplotlib Figure."""
    _matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    from leyden.factor.decomposition import PrincipalComponents

    made = Figure(figsize=(7, 4.2), layout="constrained")
    axes = made.add_subplot()
    if isinstance(solution, PrincipalComponents):
        _variances(axes, solution)
    else:
        _singular_values(axes, solution)
    k = solution.rank
    axes.set_xlabel("component")
    axes.set_xlim(0.4, k + 0.6)
    axes.xaxis.set_major_locator(MultipleLocator(1) if k <= FEW else MaxNLocator(integer=True))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    made.legend(frameon=False, loc="outside lower center", ncols=3)
    return made


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise OptionError(
            "a plot needs matplotlib, which is not installed", hint="Type: pip install 'leyden[plot]'"
        ) from None
    return matplotlib


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
    _title(axes, solution, "Singular values")


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
    _title(axes, solution, "Variance explained")


def _enclosed(longest: float, unit: str) -> str:
    """What the bars are; most are too short to be seen, so it says how long the longest is."""
    return f"certified enclosure (longest: {longest:.1g}{unit})"


def _title(axes: Any, solution: SVD, what: str) -> None:
    about = textwrap.shorten(solution.plan.data, 100, placeholder=" …")
    axes.set_title(what, loc="left", fontsize=12, color=INK, pad=20)
    axes.text(0, 1.02, about, transform=axes.transAxes, fontsize=8, color=INK, alpha=0.75, parse_math=False)
