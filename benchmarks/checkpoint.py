"""What checkpoints cost: the 8 GB solve of ``out_of_core.py`` with and without them, by turns, in one process.

Saving every second is sixty times as often as by default. The data comes from the disk in every pass, and the disk's
own rate varies by more than what is measured; so the time spent inside the functions of the checkpoint is added up as
well, which is what the run would not have without.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from harness import compare
from out_of_core import FOLDER, prepare, rows, warm_up

REPEATS = 5


def timed(function, seconds: list[float]):
    """The same function, whose time is noted."""

    def run(*arguments, **options):
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds.append(time.perf_counter() - began)

    return run


def measure(configuration: str) -> dict:
    import leyden as ly
    from leyden.engine.checkpoint import Checkpoint
    from leyden.solve import lstsq

    every = {"every second": 1.0, "every minute (default)": 60.0}[configuration]
    warm_up()
    data = rows()
    inside: list[float] = []
    for owner, name in [
        (lstsq, "fingerprint"),
        *((Checkpoint, name) for name in ("begun", "run", "restore", "save", "remove", "due")),
    ]:
        setattr(owner, name, timed(getattr(owner, name), inside))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    answers, shares = set(), []
    for turn in range(REPEATS):
        for kept in (False, True) if turn % 2 else (True, False):
            inside.clear()
            folder = Path(tempfile.mkdtemp(prefix="leyden-benchmark-", dir=FOLDER))
            began = time.perf_counter()
            checkpoint = Checkpoint(folder / "run", interval=every) if kept else None
            solution = ly.lstsq(data, memory="1GB", method="gram64", checkpoint=checkpoint)
            seconds[kept].append(time.perf_counter() - began)
            if kept:
                shares.append(sum(inside) / seconds[True][-1])
            shutil.rmtree(folder)
            answers.add(solution.x.tobytes())
            assert solution.certificate.holds
    assert len(answers) == 1, "a checkpoint changed the bits of the answer"
    overhead = [kept / plain - 1 for plain, kept in zip(*seconds.values(), strict=True)]
    return {
        "median_s": statistics.median(seconds[True]),
        "without_s": statistics.median(seconds[False]),
        "share_inside_checkpoint": statistics.median(shares),
        "overhead_of_medians": statistics.median(seconds[True]) / statistics.median(seconds[False]) - 1,
        "median_overhead_of_pairs": statistics.median(overhead),
        "repeats": REPEATS,
    }


if __name__ == "__main__":
    compare("checkpoint", measure, ["every minute (default)", "every second"], prepare, FOLDER)
