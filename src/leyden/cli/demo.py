"""``leyden demo``: real data, data larger than the memory allowed, then a row of a paper's table."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from leyden.cli.options import Debug
from leyden.cli.verbs import FAILED

QUICK_GB = 0.5


def demo(
    scale_gb: Annotated[float, typer.Option(min=0.01, help="Size of the large matrix, in gigabytes.")] = 4.0,
    quick: Annotated[bool, typer.Option("--quick", help=f"A large matrix of {QUICK_GB} GB, for a first look.")] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what a demo that was cut short has left, and do nothing else.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Two solves from file to certificate, real flights and a matrix larger than memory, then a kernel machine.

    Kill the second one (kill -9) and start the demo again: it goes on.
    """
    from leyden.cli import demo_adult, demo_flights, demo_scale, show
    from leyden.cli.demo_folder import DemoFolder
    from leyden.engine.budget import format_bytes

    kept = DemoFolder.of_this_user()
    if clean:
        with kept.locked():
            show.console().print(f"{format_bytes(kept.clear())} freed.")
        return
    nbytes = int((min(scale_gb, QUICK_GB) if quick else scale_gb) * 1e9)
    with terminable():
        with tempfile.TemporaryDirectory(prefix="leyden-demo-") as folder:
            as_it_should_be = demo_flights.run(Path(folder))
        with kept.locked():
            as_it_should_be &= demo_scale.run(kept, nbytes)
        as_it_should_be &= demo_adult.run()
    if not as_it_should_be:
        raise typer.Exit(FAILED)


@contextmanager
def terminable() -> Iterator[None]:
    """A context in which SIGTERM cleans up as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
