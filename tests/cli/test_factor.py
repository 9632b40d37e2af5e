"""What ``leyden svd`` and ``leyden pca`` do alike: what they refuse, what they leave, where they run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import leyden as ly

LEYDEN = [sys.executable, "-m", "leyden.cli"]


@pytest.fixture(autouse=True)
def matrices(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(ly.__file__).absolute().parents[1]))
    monkeypatch.setenv("LEYDEN_CACHE_DIR", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    a = np.random.default_rng(0).standard_normal((50, 6))
    np.save(tmp_path / "m.npy", a)
    a[17, 2] = np.nan
    np.save(tmp_path / "nan.npy", a)
    np.save(tmp_path / "row.npy", a[:1])
    a[:, 2] = 3
    np.save(tmp_path / "constant.npy", a)
    np.save(tmp_path / "w.npy", np.ones(50))
    (tmp_path / "folder").mkdir()
    (tmp_path / "locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)


WRONG = [
    ("svd m.npy --rank 0", "m.npy: --rank 0 is not from 1 to 6, the lesser of 50 rows and 6 columns."),
    ("svd m.npy --rank 7", "m.npy: --rank 7 is not from 1 to 6"),
    ("pca m.npy --rank -1", "m.npy: --rank -1 is not from 1 to 6"),
    ("svd gone.npy --rank 2", "gone.npy: there is no such file."),
    ("svd nan.npy --rank 2", "nan.npy, row 17: NaN in column 'x2'"),
    ("pca nan.npy --rank 2", "nan.npy, row 17: NaN in column 'x2'"),
    ("pca row.npy --rank 1", "row.npy: one row has no variance"),
    ("pca constant.npy --rank 2 --scale", "constant.npy: column 'x2' has no variance"),
    ("svd m.npy --rank 2 --weight w.npy", "m.npy: rows with weights are not factored. Open them without --weight."),
    ("svd m.npy --rank 2 --tol 2", "--tol 2.0 must be a number between 0 and 1"),
    ("svd m.npy --rank 2 --method magic", "--method magic is not one of auto, gram"),
    (
        "pca m.npy --rank 2 --scale --passes 1 --method sketch",
        "scaled columns take two passes at least. Give --passes 3",
    ),
    ("svd m.npy --rank 2 --memory 100", "a budget of 100 B is too small for gram"),
    ("svd m.npy --rank 2 --plot s.pdf", "s.pdf: a plot is written as .svg or .png"),
    ("svd m.npy --rank 2 --plot gone/s.svg", "gone: there is no such folder"),
    ("pca m.npy --rank 2 --plot folder", "folder: a plot is written as .svg or .png"),
    ("svd m.npy --rank 2 --left u.txt", "u.txt: the rows are written to a .npy file"),
    ("svd m.npy --rank 2 --left gone/u.npy", "gone/u.npy: the file cannot be written here"),
    ("svd m.npy --rank 2 --left m.npy", "m.npy: the data would be written over"),
    ("pca m.npy --rank 2 --scores ./m.npy", "m.npy: the data would be written over"),
    ("svd m.npy --rank 2 --left out/u.npy", "out/u.npy: a file among those of the solution would be lost"),
    ("svd m.npy --rank 2 --plot out/s.svg", "out/s.svg: a file among those of the solution would be lost"),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[line for line, _ in WRONG])
def test_one_sentence_says_what_where_and_what_to_do(leyden, tmp_path, line, said):
    before = sorted(tmp_path.rglob("*"))
    data = (tmp_path / "m.npy").read_bytes()
    verb, *arguments = line.split()
    result = leyden(verb, *arguments, "--out", "out")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith(f"leyden: {said}")
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "m.npy").read_bytes() == data


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is locked for root")
@pytest.mark.parametrize("option", [["--plot", "locked/s.svg"], ["--left", "locked/u.npy"]])
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(leyden, monkeypatch, option):
    monkeypatch.setattr("leyden.factor.svd.svd", pytest.fail)
    result = leyden("svd", "m.npy", "--rank", "2", *option)
    assert result.exit_code == 2
    assert "cannot be written here" in result.stderr


def test_a_plot_without_matplotlib_is_refused_before_the_work(leyden, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("leyden.factor.svd.svd", pytest.fail)
    result = leyden("svd", "m.npy", "--rank", "2", "--plot", "s.svg")
    assert result.exit_code == 2
    assert (
        result.stderr == "leyden: a plot needs matplotlib, which is not installed. Type: pip install 'leyden[plot]'\n"
    )


@pytest.mark.parametrize("verb", ["svd", "pca"])
def test_a_rank_must_be_given(leyden, verb):
    result = leyden(verb, "m.npy")
    assert result.exit_code == 2
    assert "--rank" in result.stderr


def test_a_plot_that_could_not_be_written_leaves_the_checkpoint(leyden, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    line = ["svd", "m.npy", "--rank", "2", "--plot", "s.svg", "--checkpoint", "c"]
    with monkeypatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", full)
        result = leyden(*line)
    assert result.exit_code == 2
    assert result.stderr == "leyden: s.svg: the plot cannot be written (No space left on device).\n"
    assert not (tmp_path / "s.svg").exists()
    result = leyden(*line)
    assert "pass 1 was complete in the checkpoint" in result.stdout
    assert (tmp_path / "s.svg").exists()
    assert not (tmp_path / "c").exists()


def test_the_checkpoint_of_another_problem_is_refused(leyden, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("leyden.engine.checkpoint.Checkpoint.remove", lambda self: 0)
        assert leyden("svd", "m.npy", "--rank", "2", "--checkpoint", "c").exit_code == 0
    assert "svd m.npy" in leyden("runs").stdout
    result = leyden("svd", "m.npy", "--rank", "3", "--checkpoint", "c")
    assert result.exit_code == 2
    assert "this checkpoint is of --rank 2, not 3" in result.stderr


@pytest.mark.parametrize("verb", ["svd", "pca"])
def test_plan_says_what_would_be_done_and_does_nothing(leyden, monkeypatch, verb):
    monkeypatch.setattr("leyden.engine.sweep.Engine.sweep", pytest.fail)
    shown = leyden("plan", verb, "m.npy", "--rank", "2", "--memory", "1GB", "--method", "krylov").stdout
    for word in (f"{verb} m.npy: 50 × 6", "rank 2", "krylov", "pass 1", "total", "of 1 GB", "not     gram"):
        assert word in shown
    result = leyden("plan", verb, "m.npy", "--rank", "9")
    assert result.exit_code == 2
    assert "--rank 9 is not from 1 to 6" in result.stderr


@pytest.mark.parametrize("verb", ["svd", "pca"])
def test_workers_give_the_answer_of_one_process(tmp_path, verb):
    line = [*LEYDEN, verb, "m.npy", "--rank", "2", "--memory", "50MB", "--method", "krylov", "--quiet"]
    left = "--left" if verb == "svd" else "--scores"
    for name, more in (("alone", []), ("shared", ["--workers", "2"])):
        command = [*line, "--out", name, left, f"{name}.npy", *more]
        run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (run.returncode, run.stdout, run.stderr) == (0, "HOLDS\n", "")
    for name in ("{}.npy", "{}/s.npy", "{}/Vt.npy"):
        alone, shared = (np.load(tmp_path / name.format(which)) for which in ("alone", "shared"))
        np.testing.assert_array_equal(alone, shared)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom leyden.cli.main import app\n"
        "try: app(['pca', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for option in ("--rank", "--scale", "--scores", "--plot", "--checkpoint-every", "--workers"):
        assert option in run.stdout
    assert run.stdout.splitlines()[-1] == "[]"
