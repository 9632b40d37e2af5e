"""Runs solves in processes that can be killed: imports and compiled kernels are there, each solve is a fork away.

Reads one job a line from standard input, as JSON, and answers each with a line: the status of the process, and the rows
that it folded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from tests.faults.through import Through

import leyden as ly
from leyden.engine import checkpoint

MEMORY = "1GB"


def open_rows(job: dict, before):
    folder = Path(job["folder"])
    if job["kind"] == "npy":
        rows = ly.open(folder / "a.npy", target=np.load(folder / "b.npy"))
    else:
        rows = ly.open(folder / "a.parquet", target="target")
    return Through(rows, job["block_rows"], before)


def solve(job: dict) -> None:
    """Solve, slowly; what was folded goes to a file as it happens, the answer to another at the end."""
    # A save of a few kilobytes takes milliseconds, a hundred times which is longer than these runs.
    checkpoint.SHARE = 0
    folded = os.open(job["folded"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    running = False
    if job.get("die_at") is not None:
        die_at(job["die_at"])

    def before(start, stop):
        if running:
            time.sleep(job["seconds"])
            os.write(folded, (stop - start).to_bytes(8))

    kept = ly.Checkpoint(job["checkpoint"], job["interval"]) if job["checkpoint"] else None
    planned = ly.plan.lstsq(
        open_rows(job, before), method=job["method"], threads=job["threads"], memory=MEMORY,
        intercept=True, checkpoint=kept, progress=False,
    )  # fmt: skip
    running = True
    write_answer(Path(job["answer"]), planned.run())


CALLS = ("mkdir", "fsync", "replace", "unlink", "rmdir")


def die_at(number: int) -> None:
    """Have this process killed just before its call ``number`` to the file system."""
    calls = 0

    def patched(call):
        def first(*arguments, **options):
            nonlocal calls
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            return call(*arguments, **options)

        return first

    for name in CALLS:
        setattr(os, name, patched(getattr(os, name)))


def write_answer(path: Path, solution) -> None:
    bounds = {f"bound {name}": bound.value for name, bound in solution.certificate.bounds.items()}
    np.savez(
        path, x=solution.x, intercept=solution.intercept, gradient=np.array(solution._gradient),
        errors=solution.coefficient_error, residual=solution.residual_norm, holds=solution.certificate.holds, **bounds,
    )  # fmt: skip


def run(job: dict) -> dict:
    Path(job["folded"]).write_bytes(b"")
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            solve(job)
            status = 0
        except ly.Interrupted as interrupted:
            status = 128 + interrupted.signal
        finally:
            os._exit(status)
    if job["after"] is not None:
        time.sleep(job["after"])
        os.kill(child, getattr(signal, job["signal"]))
    _, status = os.waitpid(child, 0)
    folded = np.frombuffer(Path(job["folded"]).read_bytes(), ">u8").sum()
    seconds = time.perf_counter() - began
    return {"status": os.waitstatus_to_exitcode(status), "folded": int(folded), "seconds": seconds}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    for method in ("gram64", "tsqr", "sketch"):
        ly.lstsq(rng.standard_normal((3000, 8)), rng.standard_normal(3000), method=method, intercept=True)
    main()
