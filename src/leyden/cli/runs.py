"""``leyden runs``: which runs left a checkpoint, how far they are, and whether they can go on."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from leyden.engine.runs import Run


def runs(
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove the checkpoints that no process works on, and say what that freed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """List the runs that left a checkpoint: how far they are, and whether they can go on."""
    from leyden.cli import show
    from leyden.engine.runs import find

    found = find()
    if clean:
        _clean(found, json)
    elif json:
        show.print_json({"verb": "runs", "runs": [_document(run) for run in found]})
    elif found:
        to = show.console()
        for run in found:
            to.print(_shown(run), soft_wrap=True)
        to.print("To go on, do the same again. leyden runs --clean removes those that no process works on.")
    else:
        show.console().print("No run left a checkpoint.")


def _clean(found: list[Run], json: bool) -> None:
    from leyden.cli import show
    from leyden.engine.budget import format_bytes
    from leyden.engine.runs import clean
    from leyden.errors import CheckpointError

    freed, removed, kept = 0, [], []
    for run in found:
        try:
            if run.holder is None:
                freed += clean(run)
                removed.append(run)
                continue
            reason = f"{run.holder} works on it"
        except CheckpointError as error:
            reason = error.what
        kept.append({"folder": str(run.folder), "reason": reason})
    if json:
        show.print_json({"verb": "runs", "removed": [str(run.folder) for run in removed], "freed": freed, "kept": kept})
        return
    to = show.console()
    for one in kept:
        to.print(f"kept {one['folder']}: {one['reason']}", markup=False, soft_wrap=True)
    to.print(f"{len(removed)} removed, {format_bytes(freed)} freed.")


def _document(run: Run) -> dict[str, Any]:
    return {**asdict(run), "folder": str(run.folder), "resumable": not run.obstacle}


def _shown(run: Run) -> Any:
    """A paragraph: the folder and its state, what is solved, how far it is."""
    from rich.text import Text

    from leyden.engine.budget import format_bytes

    if run.holder is not None:
        state = (f"{run.holder} works on it", "cyan")
    elif run.obstacle:
        state = (f"cannot go on: {run.obstacle}", "red")
    else:
        state = ("can go on", "green")
    lines = Text.assemble((str(run.folder), "bold"), "  ", state)
    if run.verb:
        lines.append(f"\n  {run.verb} {run.data}")
    if run.planned:
        lines.append(f"\n  pass {run.number} of {run.planned}, {run.share:.0%} of its rows done; ", "dim")
        lines.append(f"{_saved(run.saved_at)}; {format_bytes(run.nbytes)}", "dim")
    return lines


def _saved(moment: float | None) -> str:
    """How long ago it was saved, in the unit a person would use; the clock may have been set back since."""
    if moment is None:
        return "not saved yet"
    seconds = max(0.0, time.time() - moment)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"saved {seconds / length:.0f} {unit} ago"
    return f"saved {seconds:.0f} seconds ago"
