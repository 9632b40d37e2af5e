"""``--workers`` and ``--scheduler``: the answer of one process, and one sentence when there is none."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import leyden as ly

LEYDEN = [sys.executable, "-m", "leyden.cli"]


@pytest.fixture(autouse=True)
def same_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(ly.__file__).absolute().parents[1]))


def test_workers_give_the_answer_of_one_process_and_say_no_more(data):
    command = [*LEYDEN, "lstsq", "a.npy", "--target", "y.npy", "--json", "--memory", "50MB", "--method", "tsqr"]
    alone = subprocess.run([*command, "--out", "alone"], capture_output=True, text=True, cwd=data, check=True)
    shared = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, cwd=data, check=True)
    assert shared.stderr == ""
    one, other = json.loads(alone.stdout), json.loads(shared.stdout)
    assert one["x"] == other["x"]
    assert one["certificate"] == other["certificate"]
    verified = [*LEYDEN, "verify", "alone", "a.npy", "--quiet", "--workers", "1", "--memory", "50MB"]
    said = subprocess.run(verified, capture_output=True, text=True, cwd=data)
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scheduler", "tcp://127.0.0.1:1"], "tcp://127.0.0.1:1: no Dask scheduler can be reached here"),
        (["--scheduler", "nonsense"], "--scheduler nonsense is not an address"),
        (["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "--scheduler and --workers cannot be given together"),
    ],
)
@pytest.mark.parametrize("verb", [["lstsq", "a.npy", "--target", "y.npy"], ["verify", "saved", "a.npy"]])
def test_a_cluster_that_cannot_be_used_is_one_sentence(leyden, data, monkeypatch, verb, options, said):
    monkeypatch.setattr("leyden.engine.dask.CONNECT", 0.5)
    assert leyden("lstsq", "a.npy", "--target", "y.npy", "--out", "saved").exit_code == 0
    run = leyden(*verb, *options)
    assert run.exit_code == 2
    assert run.stderr.startswith(f"leyden: {said}")
    assert run.stderr.count("\n") == 1


def test_ctrl_c_ends_the_workers_with_one_line(data):
    # A terminal sends the signal to every process of the group.
    code = (
        "import leyden.solve.lstsq, time, leyden.cli\n"
        "def wait(*a, **k):\n    print('solving', flush=True)\n    time.sleep(60)\n"
        "leyden.solve.lstsq.lstsq = wait\nleyden.cli.main()"
    )
    command = [sys.executable, "-c", code, "lstsq", "a.npy", "--target", "y.npy", "--workers", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=data, start_new_session=True) as run:
        assert run.stdout.readline() == "solving\n"
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=30)
    assert run.returncode == 130
    assert said == "leyden: interrupted\n"
    end = time.monotonic() + 10
    while alive(run.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert alive(run.pid) == []


def alive(group):
    """The processes of a group that are still running."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline())
    return found
