"""What plots have in common: where they can be written, their frame, and how a file appears whole or not at all.

The colours are those of M. Okabe and K. Ito, "Color Universal Design", 2008, told apart by the colour-blind as well.
"""

from __future__ import annotations

import os
import textwrap
import uuid
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leyden.errors import OptionError, SolutionError

ENDINGS = (".svg", ".png")

BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"


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


def write(path: str | os.PathLike, draw: Callable[[], Any]) -> Path:
    """Write the figure that ``draw`` makes as ``path`` says: the same bytes for the same figure.

    Raises
    ------
    OptionError, SolutionError
    """
    target = check(path)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with _matplotlib().rc_context({"svg.hashsalt": "leyden"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # letters of a path that the font has not
            kind = target.suffix.lower()[1:]
            draw().savefig(partial, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
        partial.replace(target)
    except OSError as error:
        raise SolutionError(f"the plot cannot be written ({error.strerror})", where=str(target)) from None
    finally:
        partial.unlink(missing_ok=True)
    return target


def frame() -> tuple[Any, Any]:
    """An empty matplotlib Figure, and its axes."""
    _matplotlib()
    from matplotlib.figure import Figure

    made = Figure(figsize=(7, 4.2), layout="constrained")
    axes = made.add_subplot()
    _dress(axes, "y")
    return made, axes


def panels(counts: Sequence[int], heights: Sequence[float]) -> tuple[Any, list[list[Any]]]:
    """An empty matplotlib Figure, and its axes: rows of so many panels, so many inches high."""
    _matplotlib()
    from matplotlib.figure import Figure

    made = Figure(figsize=(max(7, 3.5 * max(counts)), sum(heights)), layout="constrained")
    grid = made.add_gridspec(len(counts), 1, height_ratios=heights)
    rows = []
    for row, count in enumerate(counts):
        inner = grid[row].subgridspec(1, count)
        rows.append([made.add_subplot(inner[0, column]) for column in range(count)])
        for axes in rows[-1]:
            _dress(axes, "x")
    return made, rows


def _dress(axes: Any, grid: str) -> None:
    """The axes that all plots have, with a grid along one of them."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK)
    axes.grid(axis=grid, color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def title(axes: Any, data: str, what: str) -> None:
    """What is shown, and of which data."""
    about = textwrap.shorten(data, 100, placeholder=" …")
    axes.set_title(what, loc="left", fontsize=12, color=INK, pad=20)
    below = axes.text(0, 1.02, about, transform=axes.transAxes, fontsize=8, color=INK, alpha=0.75, parse_math=False)
    below.set_in_layout(False)  # it may be wider than a panel


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise OptionError(
            "a plot needs matplotlib, which is not installed", hint="Type: pip install 'leyden[plot]'"
        ) from None
    return matplotlib
