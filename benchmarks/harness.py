"""What every benchmark shares: one process a configuration, medians of repeats, the machine beside the figures.

A benchmark script calls :func:`compare` with the names of its configurations; the same script, called again with
``--only NAME``, measures that one in a process of its own and prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, memory, and versions of what is compared."""
    from importlib.metadata import PackageNotFoundError, version

    told = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    told = {key.strip(): value.strip() for key, value in told.items()}
    cpu, flags = told.get("model name", platform.processor()), told.get("flags", "").split()
    versions = {}
    for package in (
        "leyden",
        "numpy",
        "scipy",
        "numba",
        "scikit-learn",
        "dask",
        "implicit",
        "cmfrec",
        "libmf",
        "statsmodels",
        "pyfixest",
        "hdfe-stream",
    ):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu,
        "vectors": next((name for name in ("avx512f", "avx2") if name in flags), ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        **versions,
    }


def repeat(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median, least and largest wall seconds of ``run``, after one run that is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return summary(seconds)


def summary(seconds: list[float]) -> dict[str, float]:
    """What is recorded of repeated runs."""
    return {
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "repeats": len(seconds),
    }


def peak_rss() -> int:
    """Largest resident set of this process, in bytes (``getrusage`` would count the parent's before the fork)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell the peak of the resident set")


def compare(
    name: str,
    measure: Callable[[str], dict[str, Any]],
    configurations: list[str],
    prepare: Callable[[], None],
    folder: Path | None = None,
    limit_s: float | None = None,
) -> None:
    """Measure each configuration in its own process and write ``results/NAME.json``.

    Parameters
    ----------
    name : str
    measure : function of a configuration's name
        Returns its figures; runs in the process of that configuration alone.
    configurations : list of str
    prepare : function
        Makes the data, once, before anything is measured.
    folder : Path, optional
        Where it is made: removed when all is measured.
    limit_s : float, optional
        Seconds after which a configuration is stopped; that is then recorded as ``stopped_after_s``.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="measure one configuration here and print it")
    parser.add_argument("--keep", nargs="*", default=[], help="keep what is recorded of these, measure the others")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only)))
        return
    try:
        prepare()
        _measure_apart(name, configurations, arguments.keep, limit_s)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _measure_apart(name: str, configurations: list[str], keep: list[str], limit_s: float | None) -> None:
    path = RESULTS / f"{name}.json"
    recorded = json.loads(path.read_text())["configurations"] if path.exists() else {}
    figures = {key: recorded[key] for key in keep if key in recorded}
    for configuration in configurations:
        if configuration in keep:
            continue
        print(f"{name}: {configuration} …", file=sys.stderr, flush=True)
        command = [sys.executable, sys.argv[0], "--only", configuration]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            figures[configuration] = {"stopped_after_s": limit_s}
        else:
            failed = {"failed": f"exit status {done.returncode}"}
            figures[configuration] = failed if done.returncode else json.loads(done.stdout.splitlines()[-1])
        print(f"    {figures[configuration]}", file=sys.stderr, flush=True)
        RESULTS.mkdir(exist_ok=True)
        order = [c for c in configurations if c in figures]
        document = {"machine": machine(), "configurations": {c: figures[c] for c in order}}
        path.write_text(json.dumps(document, indent=1) + "\n")
