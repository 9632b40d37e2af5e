"""The demo's second part: a matrix of several gigabytes, solved in half a gigabyte, beside the disk and beside NumPy.

The solve runs in a process of its own, as a user would start it: its peak memory is then that of the solve alone. It
keeps a checkpoint every second. After a kill -9 the next demo finds the matrix and the checkpoint, and goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leyden.cli import show
from leyden.cli.demo_flights import show_command
from leyden.cli.demo_folder import DemoFolder
from leyden.engine.budget import format_bytes, thread_count
from leyden.errors import LeydenError

if TYPE_CHECKING:
    import numpy as np

COLUMNS = 100
MEMORY = "512MB"
SEED = 2026
NOISE = 1.0
SAMPLE_ROWS = 200_000
CHECKPOINT_EVERY = 1.0

#: Rows made at a time: 13 MB, short against the budget and long against the cost of a call.
CHUNK_ROWS = 2**15
SMALLEST = 10**7

#: What Python, NumPy, SciPy, numba and pyarrow take before there is any data.
LIBRARIES = 250 * 10**6


@dataclass(frozen=True)
class Problem:
    """A matrix and a target on disk, and the coefficients they were made with."""

    data: Path
    target: Path
    rows: int
    planted: np.ndarray


def run(folder: DemoFolder, nbytes: int) -> bool:
    """Make the data, read it plainly, solve it, set the answer beside NumPy's; whether all is as it should be.

    The folder is empty afterwards, unless a solve was cut short that another start can go on with.
    """
    to = show.console()
    to.print()
    to.rule("[bold]2. Scale: a matrix larger than the memory allowed", align="left")
    try:
        problem = find(folder, nbytes) or make_anew(folder, nbytes)
        if problem is None:
            to.print("There is no room on the disk for a large matrix: this part is left out.")
            return True
        as_it_should_be = solve_and_compare(folder, problem)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | CutShort) and folder.has_run:
            to.print("What was done is kept. Start the demo again to go on, or type: leyden demo --clean")
        else:
            folder.clear()
        raise
    folder.clear()
    return as_it_should_be


class CutShort(LeydenError):
    """The process that solves was killed."""


def find(folder: DemoFolder, nbytes: int) -> Problem | None:
    """The matrix that an earlier demo of this size was killed over, if there is one."""
    about = folder.found()
    if about is None or (about.get("asked"), about.get("made_by")) != (nbytes, _recipe()):
        return None
    problem = Problem(folder.data, folder.target, about["rows"], planted_coefficients())
    to = show.console()
    to.print(f"The matrix of an earlier demo is still here: {problem.rows:,} × {COLUMNS}, in {folder.path}.")
    if folder.has_run:
        to.print("[bold]So is the checkpoint of its solve, which goes on from there.[/]")
    return problem


def make_anew(folder: DemoFolder, nbytes: int) -> Problem | None:
    """Matrix and target, as large as asked if they fit; None when there is no room to speak of."""
    folder.clear()
    fitting = that_fits(folder.path, nbytes)
    if fitting < SMALLEST:
        return None
    began = time.perf_counter()
    problem = make(folder, fitting)
    folder.complete({"asked": nbytes, "rows": problem.rows, "made_by": _recipe()})
    show.console().print(
        f"{problem.rows:,} × {COLUMNS} random numbers in float32 with planted coefficients and noise of size "
        f"{NOISE:g}: {format_bytes(problem.data.stat().st_size)}, written in {time.perf_counter() - began:.1f} s."
    )
    return problem


def _recipe() -> list[Any]:
    return [SEED, COLUMNS, NOISE, CHUNK_ROWS]


def planted_coefficients() -> np.ndarray:
    from leyden.rows import philox

    return philox(SEED, 2**32).standard_normal(COLUMNS)


def solve_and_compare(folder: DemoFolder, problem: Problem) -> bool:
    """Read the file plainly, solve, set the answer beside NumPy's; whether the certificate and the budget hold."""
    to = show.console()
    rate = plain_read(problem.data)
    show_command(
        f"leyden lstsq matrix.npy --target target.npy --memory {MEMORY} "
        f"--checkpoint checkpoint --checkpoint-every {CHECKPOINT_EVERY:g}"
    )
    result = solve(folder, problem)
    certificate = result["certificate"]
    to.print(pass_table(result, rate))
    for remark in result["trace"]["remarks"]:
        if "checkpoint" in remark:
            to.print(f"  [bold]{remark}[/]")
    to.print("  The plain read comes just before the solve; both read from memory what the system still holds there.")
    to.print(comparison_table(problem, result))
    to.print(
        "  NumPy was given a sample, in float64: its error is the noise that fewer rows average out less. "
        "Leyden's seconds are those of its passes, without start-up and planning."
    )
    within = result["peak_rss"] <= result["plan"]["memory"] + LIBRARIES
    to.print(
        f"  Peak memory of the process {format_bytes(result['peak_rss'])}: {'within' if within else 'ABOVE'} "
        f"the budget of {MEMORY} and the {format_bytes(LIBRARIES)} of Python and its libraries."
    )
    backward = certificate["bounds"]["backward_error"]["value"]
    verdict = (
        f"[bold green]HOLDS[/] (backward error at most {backward:.1e})"
        if certificate["holds"]
        else "[bold white on red] DOES NOT HOLD [/]"
    )
    to.print(verdict)
    return bool(certificate["holds"]) and within


def that_fits(folder: Path, nbytes: int) -> int:
    """The size asked for, or what leaves a tenth of the disk's free space, saying so."""
    free = shutil.disk_usage(folder).free
    if nbytes <= 0.9 * free:
        return nbytes
    smaller = int(0.5 * free)
    show.console().print(
        f"{format_bytes(nbytes)} do not fit on the disk of {folder.parent}, where {format_bytes(free)} are free: "
        f"{format_bytes(smaller)} instead."
    )
    return smaller


def make(folder: DemoFolder, nbytes: int) -> Problem:
    """Write matrix and target, chunk by chunk; any chunk could be made again without the others."""
    import numpy as np

    from leyden.rows import philox

    rows = nbytes // (4 * COLUMNS)
    planted = planted_coefficients()
    problem = Problem(folder.data, folder.target, rows, planted)
    start = np.lib.format.open_memmap(problem.data, "w+", np.float32, (rows, COLUMNS)).offset
    target = np.empty(rows)
    chunks = range(-(-rows // CHUNK_ROWS))
    with open(problem.data, "r+b") as file:

        def write(chunk: int) -> None:
            first = chunk * CHUNK_ROWS
            random = philox(SEED, chunk)
            a = random.standard_normal((min(CHUNK_ROWS, rows - first), COLUMNS), dtype=np.float32)
            target[first : first + len(a)] = a @ planted + NOISE * random.standard_normal(len(a))
            os.pwrite(file.fileno(), a.data, start + 4 * COLUMNS * first)

        with ThreadPoolExecutor(thread_count()) as pool:
            try:
                for _ in pool.map(write, chunks):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    np.save(problem.target, target)
    return problem


def plain_read(path: Path) -> float:
    """Bytes a second of reading the file from start to end into one reused buffer, doing nothing with it."""
    buffer = bytearray(2**24)
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return path.stat().st_size / (time.perf_counter() - began)


def solve(folder: DemoFolder, problem: Problem) -> dict[str, Any]:
    """What ``leyden lstsq --json`` prints, from a process of its own; its progress is shown meanwhile."""
    options = ["--memory", MEMORY, "--json", "--checkpoint", str(folder.checkpoint.folder)]
    options += ["--checkpoint-every", str(CHECKPOINT_EVERY)]
    command = [sys.executable, "-c", f"from {__name__} import child; child()", "lstsq", str(problem.data)]
    command += ["--target", str(problem.target), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        try:
            printed = process.stdout.read()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode < 0 or process.returncode in (130, 143):
        raise CutShort("the solve of the large matrix was cut short", hint="Start the demo again to go on.")
    if process.returncode not in (0, 1):
        raise LeydenError(f"the solve of the large matrix ended with status {process.returncode}")
    return json.loads(printed)


def child() -> None:
    """The command line, in a process that ends with the demo that started it.

    Standard input is a pipe that nobody writes to: it ends when the demo does, however that was.
    """
    from leyden.cli import main

    def watch() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    main()


def pass_table(result: dict[str, Any], rate: float) -> Any:
    """Each pass: predicted, measured, GB/s; and the plain read."""
    table = show.plain_table()
    table.add_column("pass")
    for name in ("read", "predicted", "measured", "GB/s"):
        table.add_column(name, justify="right")
    nbytes = result["trace"]["passes"][0]["nbytes"]
    table.add_row("plain read of the file", format_bytes(nbytes), "", f"{nbytes / rate:.2f} s", f"{rate / 1e9:.2f}")
    show.add_passes(table, result["plan"], result["trace"])
    return table


def comparison_table(problem: Problem, result: dict[str, Any]) -> Any:
    """Leyden on all rows, NumPy on a sample: time, and distance to the planted coefficients."""
    import numpy as np

    seconds, sampled = numpy_on_a_sample(problem)

    def error(x: Any) -> str:
        return f"{np.linalg.norm(x - problem.planted) / np.linalg.norm(problem.planted):.2e}"

    table = show.plain_table()
    table.add_column("answer")
    for name in ("rows", "seconds", "error against the planted coefficients"):
        table.add_column(name, justify="right")
    table.add_row("leyden", f"{problem.rows:,}", f"{result['trace']['seconds']:.2f}", error(np.array(result["x"])))
    table.add_row("numpy.linalg.lstsq", f"{min(SAMPLE_ROWS, problem.rows):,}", f"{seconds:.2f}", error(sampled))
    return table


def numpy_on_a_sample(problem: Problem) -> tuple[float, np.ndarray]:
    """Seconds and answer of ``numpy.linalg.lstsq`` on the first rows (all rows are alike), reading included."""
    import numpy as np

    began = time.perf_counter()
    a = np.load(problem.data, mmap_mode="r")[:SAMPLE_ROWS].astype(np.float64)
    x = np.linalg.lstsq(a, np.load(problem.target, mmap_mode="r")[:SAMPLE_ROWS])[0]
    return time.perf_counter() - began, x
