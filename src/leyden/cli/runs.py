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
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
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
        to.print(_table(found))
        to.print("  To go on, do the same again. leyden runs --clean removes those that nobody works on.", style="dim")
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


def _table(found: list[Run]) -> Any:
    from rich.text import Text

    from leyden.cli import show
    from leyden.engine.budget import format_bytes

    table = show.plain_table()
    for name in ("folder", "run", "pass", "rows done", "saved", "size", "state"):
        table.add_column(name, justify="right" if name in ("pass", "rows done", "size") else "left", overflow="fold")
    for run in found:
        if run.holder is not None:
            state = Text(f"{run.holder} works on it", "cyan")
        elif run.obstacle:
            state = Text(f"cannot go on: {run.obstacle}", "red")
        else:
            state = Text("can go on", "green")
        table.add_row(
            Text(str(run.folder)),
            Text(f"{run.verb} {run.data}"),
            f"{run.number} of {run.planned}" if run.planned else "",
            f"{run.share:.0%}" if run.planned else "",
            _ago(run.saved_at),
            format_bytes(run.nbytes),
            state,
        )
    return table


def _ago(moment: float | None) -> str:
    """How long ago, in the unit a person would use; the clock may have been set back since."""
    if moment is None:
        return "not yet"
    seconds = max(0.0, time.time() - moment)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} seconds ago"
