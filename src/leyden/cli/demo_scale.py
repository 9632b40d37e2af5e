"""The demo's second part: a matrix of several gigabytes, solved in half a gigabyte, beside the disk and beside NumPy.

The solve runs in a process of its own, as a user would start it: its peak memory is then that of the solve alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leyden.cli import show
from leyden.cli.demo_flights import show_command
from leyden.engine.budget import format_bytes, thread_count
from leyden.errors import LeydenError

if TYPE_CHECKING:
    import numpy as np

COLUMNS = 100
MEMORY = "512MB"
SEED = 2026
NOISE = 1.0
SAMPLE_ROWS = 200_000

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


def run(folder: Path, nbytes: int) -> bool:
    """Make the data, read it plainly, solve it, set the answer beside NumPy's; whether all is as it should be."""
    to = show.console()
    to.print()
    to.rule("[bold]2. Scale: a matrix larger than the memory allowed", align="left")
    nbytes = that_fits(folder, nbytes)
    if nbytes < SMALLEST:
        to.print("There is no room on the disk for a large matrix: this part is left out.")
        return True
    began = time.perf_counter()
    problem = make(folder, nbytes)
    to.print(
        f"{problem.rows:,} × {COLUMNS} random numbers in float32 with planted coefficients and noise of size "
        f"{NOISE:g}: {format_bytes(problem.data.stat().st_size)}, written in {time.perf_counter() - began:.1f} s."
    )
    rate = plain_read(problem.data)
    show_command(f"leyden lstsq matrix.npy --target target.npy --memory {MEMORY}")
    result = solve(problem)
    certificate = result["certificate"]
    to.print(pass_table(result, rate))
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


def make(folder: Path, nbytes: int) -> Problem:
    """Write matrix and target, chunk by chunk; any chunk could be made again without the others."""
    import numpy as np

    from leyden.rows import philox

    rows = nbytes // (4 * COLUMNS)
    planted = philox(SEED, 2**32).standard_normal(COLUMNS)
    problem = Problem(folder / "matrix.npy", folder / "target.npy", rows, planted)
    start = write_header(problem.data, (rows, COLUMNS), np.dtype(np.float32))
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


def write_header(path: Path, shape: tuple[int, int], dtype: np.dtype) -> int:
    """Start a .npy file; gives the offset of its numbers."""
    from numpy.lib import format as npy

    with open(path, "wb") as file:
        npy.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": npy.dtype_to_descr(dtype)})
        return file.tell()


def plain_read(path: Path) -> float:
    """Bytes a second of reading the file from start to end into one reused buffer, doing nothing with it."""
    buffer = bytearray(2**24)
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return path.stat().st_size / (time.perf_counter() - began)


def solve(problem: Problem) -> dict[str, Any]:
    """What ``leyden lstsq --json`` prints, from a process of its own; its progress is shown meanwhile."""
    command = [sys.executable, "-m", "leyden.cli", "lstsq", str(problem.data), "--target", str(problem.target)]
    with subprocess.Popen([*command, "--memory", MEMORY, "--json"], stdout=subprocess.PIPE, text=True) as process:
        try:
            printed, _ = process.communicate()
        except BaseException:
            process.terminate()
            raise
    if process.returncode not in (0, 1):
        raise LeydenError(f"the solve of the large matrix ended with status {process.returncode}")
    return json.loads(printed)


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
