"""The command line as a process: what it starts with, how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import leyden as ly

LEYDEN = [sys.executable, "-m", "leyden.cli"]
HEAVY = {"numpy", "scipy", "numba", "pyarrow", "sklearn", "pandas"}


@pytest.fixture(autouse=True)
def same_package(monkeypatch):
    """Processes import the package that is tested, wherever they run."""
    monkeypatch.setenv("PYTHONPATH", str(Path(ly.__file__).absolute().parents[1]))


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom leyden.cli.main import app\n"
        "try: app(['lstsq', '--help'])\nexcept SystemExit: pass\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--target" in run.stdout
    assert run.stdout.splitlines()[-1] == "[]"


def test_version():
    run = subprocess.run([*LEYDEN, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"leyden {ly.__version__}\n"


def test_an_error_shows_no_traceback_unless_asked(data):
    command = [*LEYDEN, "lstsq", "t.csv", "--target", "nothing"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=data)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    run = subprocess.run([*command, "--debug"], capture_output=True, text=True, cwd=data)
    assert run.returncode != 0
    assert "Traceback" in run.stderr


def test_an_interrupt_ends_a_run_at_once_with_one_line(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 2)))
    # A solve that is in its first read until it is interrupted.
    code = (
        "import leyden.rows, time, leyden.cli\n"
        "def wait(*a, **k):\n    print('reading', flush=True)\n    time.sleep(60)\n"
        "leyden.rows.open = wait\nleyden.cli.main()"
    )
    command = [sys.executable, "-c", code, "lstsq", "a.npy", "--target", "a.npy"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path) as run:
        assert run.stdout.readline() == "reading\n"
        began = time.monotonic()
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=10)
    assert run.returncode == 130
    assert said == "leyden: interrupted\n"
    assert time.monotonic() - began < 5
