"""Checkpoints from the command line: interrupted and gone on with, refused, listed, removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import leyden as ly
from leyden.engine.checkpoint import Checkpoint

SOLVE = ["lstsq", "a.npy", "--target", "y.npy", "--method", "gram64"]


@pytest.fixture(autouse=True)
def runs_of_this_test(cache_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LEYDEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(ly.__file__).absolute().parents[1]))
    if (cache_folder / "machine.json").exists():
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "machine.json").write_bytes((cache_folder / "machine.json").read_bytes())


def interrupted(folder, *options, number=signal.SIGTERM):
    """``leyden lstsq`` in a process that is sent a signal while it folds its second pass."""
    code = (
        "import os, leyden.cli\n"
        "from leyden.engine.local import Local\n"
        "fold, passes = Local.fold, []\n"
        "def second(*arguments):\n"
        "    passes.append(1)\n"
        f"    if len(passes) == 2: os.kill(os.getpid(), {int(number)})\n"
        "    fold(*arguments)\n"
        "Local.fold = second\n"
        "leyden.cli.main()"
    )
    command = [sys.executable, "-c", code, *SOLVE, *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_a_sentence_and_the_same_again_goes_on(leyden, data, number):
    assert leyden(*SOLVE, "--out", "whole").exit_code == 0
    run = interrupted(data, "--checkpoint", "c", "--out", "resumed", number=number)
    assert run.returncode == 128 + number
    assert run.stdout == ""
    place = data / "c"
    assert run.stderr == (
        f"leyden: interrupted in pass 2: what was done is kept in {place}. To go on, do the same again.\n"
    )
    result = leyden(*SOLVE, "--checkpoint", "c", "--out", "resumed", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert "pass 1 was complete in the checkpoint" in result.stdout
    assert not place.exists()
    assert np.array_equal(ly.load(data / "whole").x, ly.load(data / "resumed").x)


def test_without_a_place_to_save_the_answer_the_checkpoint_goes_once_it_is_printed(leyden, data):
    result = leyden(*SOLVE, "--checkpoint", "c", "--json")
    assert json.loads(result.stdout)["certificate"]["holds"]
    assert not (data / "c").exists()
    assert "No run left a checkpoint." in leyden("runs").stdout


def test_a_solution_that_could_not_be_saved_is_kept_in_the_checkpoint(leyden, data, monkeypatch):
    def full(*_, **__):
        raise ly.SolutionError("the solution could not be written (No space left on device)", where="s")

    with monkeypatch.context() as patch:
        patch.setattr("leyden.solution.Solution.save", full)
        result = leyden(*SOLVE, "--checkpoint", "c", "--out", "s")
    assert result.exit_code == 2
    assert result.stderr.startswith("leyden: s: the solution could not be written (No space left on device). The work")
    assert str(data / "c") in result.stderr
    result = leyden(*SOLVE, "--checkpoint", "c", "--out", "s")
    assert "pass 2 was complete in the checkpoint" in result.stdout
    assert ly.load(data / "s").certificate.holds
    assert not (data / "c").exists()


def test_the_checkpoint_of_another_problem_or_other_data_is_refused(leyden, data):
    interrupted(data, "--checkpoint", "c")
    result = leyden(*SOLVE, "--checkpoint", "c", "--ridge", "2")
    assert result.exit_code == 2
    assert "this checkpoint is of --ridge 0.0, not 2.0" in result.stderr
    np.save(data / "a.npy", 2 * np.load(data / "a.npy"))
    result = leyden(*SOLVE, "--checkpoint", "c")
    assert result.exit_code == 2
    assert "other data" in result.stderr
    assert "a.npy has changed since" in result.stderr


def not_a_checkpoint(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "thesis.txt").write_text("")
    return "notes", "this folder is not a checkpoint, and not empty"


def a_file(folder):
    return "t.csv", "this is a file"


def under_a_file(folder):
    return "t.csv/c", "this is a file, or lies under one"


def unwritable(folder):
    return "/proc/c", "no checkpoint can be written here"


@pytest.mark.parametrize("case", [not_a_checkpoint, a_file, under_a_file, unwritable], ids=lambda case: case.__name__)
def test_a_folder_that_will_not_do_is_refused_in_one_sentence(leyden, data, case):
    folder, said = case(data)
    before = sorted(path for path in data.rglob("*") if "cache" not in path.parts)
    result = leyden(*SOLVE, "--checkpoint", folder)
    assert result.exit_code == 2
    assert result.stderr.startswith("leyden: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert sorted(path for path in data.rglob("*") if "cache" not in path.parts) == before


def test_the_checkpoint_of_a_run_that_is_alive_is_refused_shown_and_not_cleaned(leyden, data):
    interrupted(data, "--checkpoint", "c")
    document = Checkpoint(data / "c").document()
    with Checkpoint(data / "c", keep=True).run(document["identity"], document["decided"]):
        result = leyden(*SOLVE, "--checkpoint", "c")
        assert result.exit_code == 2
        assert f"a run that is still alive works on this checkpoint (process {os.getpid()}" in result.stderr
        (run,) = json.loads(leyden("runs", "--json").stdout)["runs"]
        assert run["holder"].startswith(f"process {os.getpid()}")
        result = leyden("runs", "--clean")
        assert f"kept {data / 'c'}: process {os.getpid()}" in result.stdout
        assert "0 removed, 0 B freed." in result.stdout
    assert leyden(*SOLVE, "--checkpoint", "c").exit_code == 0


def test_runs_says_what_is_there_how_far_it_is_and_whether_it_can_go_on(leyden, data):
    assert "No run left a checkpoint." in leyden("runs").stdout
    interrupted(data, "--checkpoint", "c")
    (run,) = json.loads(leyden("runs", "--json").stdout)["runs"]
    assert run["folder"] == str(data / "c")
    assert run["verb"] == "lstsq"
    assert run["data"].startswith("a.npy: 300 × 2")
    assert (run["number"], run["planned"]) == (2, 2)
    assert run["resumable"]
    assert run["holder"] is None
    assert "can go on" in leyden("runs").stdout
    os.utime(data / "a.npy", (0, 0))
    (run,) = json.loads(leyden("runs", "--json").stdout)["runs"]
    assert not run["resumable"]
    assert "a.npy has changed" in run["obstacle"]
    size = sum(path.stat().st_size for path in (data / "c").iterdir() if path.name != "lock")
    (data / "c" / "mine.txt").write_text("stays")
    cleaned = json.loads(leyden("runs", "--clean", "--json").stdout)
    assert cleaned["removed"] == [str(data / "c")]
    assert cleaned["freed"] == size
    assert os.listdir(data / "c") == ["mine.txt"]
    assert "No run left a checkpoint." in leyden("runs").stdout


def test_plan_says_what_a_checkpoint_was_begun_with(leyden, data):
    interrupted(data, "--checkpoint", "c")
    planned = json.loads(leyden("plan", *SOLVE, "--checkpoint", "c", "--json").stdout)
    assert planned == Checkpoint(data / "c").document()["decided"]
