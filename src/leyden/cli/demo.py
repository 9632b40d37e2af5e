"""``leyden demo``: real data, then data larger than the memory allowed."""

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
    debug: Debug = False,
) -> None:
    """Two solves from file to certificate: real flights, and a matrix larger than the memory allowed."""
    from leyden.cli import demo_flights, demo_scale

    with temporary_folder() as folder:
        nbytes = int((min(scale_gb, QUICK_GB) if quick else scale_gb) * 1e9)
        as_it_should_be = demo_flights.run(folder) & demo_scale.run(folder, nbytes)
    if not as_it_should_be:
        raise typer.Exit(FAILED)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone afterwards, however the run ends short of a kill -9."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="leyden-demo-") as folder:
            yield Path(folder)
    finally:
        signal.signal(signal.SIGTERM, before)
