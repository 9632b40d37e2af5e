"""How long a person waits: ``leyden --help``, and a small solve from a CSV file, as whole processes.

The first solve on a machine compiles the kernels and measures the machine; both are kept, and it is the later ones that
are timed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from harness import compare, repeat

REPEATS = 7
FILE = Path(tempfile.gettempdir()) / "leyden-benchmark-startup.csv"


def prepare() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((1000, 6))
    np.savetxt(FILE, table, delimiter=",", header="a,b,c,d,e,y", comments="")


def measure(configuration: str) -> dict:
    arguments = {"leyden --help": ["--help"], "leyden lstsq small.csv": ["lstsq", str(FILE), "--target", "y"]}
    command = [sys.executable, "-m", "leyden.cli", *arguments[configuration]]
    return repeat(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), REPEATS)


if __name__ == "__main__":
    compare("startup", measure, ["leyden --help", "leyden lstsq small.csv"], prepare)
