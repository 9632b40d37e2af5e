"""``leyden kernel`` and ``leyden predict``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import leyden as ly
from leyden.cli.main import app

run = CliRunner()


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((700, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    lines = ["a,b,y", *(f"{p:.6f},{q:.6f},{r}" for (p, q), r in zip(x, y, strict=True))]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_machine_is_fitted_saved_verified_and_predicts(table, tmp_path):
    out, to = tmp_path / "machine", tmp_path / "predicted.npy"
    options = ["--target", "y", "--classify", "--features", "100", "--out", str(out)]
    found = run.invoke(app, ["kernel", str(table), *options])
    assert found.exit_code == 0, found.output
    assert "HOLDS" in found.output
    assert "kernel machine" in found.output
    assert run.invoke(app, ["verify", str(out), str(table)]).exit_code == 0
    again = run.invoke(app, ["predict", str(out), str(table), "--target", "y", "--to", str(to), "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["error"] < 0.1
    assert np.array_equal(np.load(to), ly.load(out).predict(str(table)))
    damaged = np.load(out / "w.npy")
    damaged[0] += 1
    np.save(out / "w.npy", damaged)
    assert run.invoke(app, ["verify", str(out), str(table)]).exit_code == 1


def test_penalties_are_compared(table):
    options = ["--target", "y", "--classify", "--features", "60", "--regularization", "1e-6,1e-3,1"]
    found = run.invoke(app, ["kernel", str(table), *options, "--json", "--held-out", "0.2"])
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)["path"]) == 3
    assert run.invoke(app, ["plan", "kernel", str(table), *options]).exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--features", "7", "--target", "y"], "pairs"),
        (["--width", "broad", "--target", "y"], "numbers"),
        (["--features", "10"], "no target"),
        (["--target", "z"], "no column"),
    ],
)
def test_bad_input_is_one_sentence(table, options, message):
    found = run.invoke(app, ["kernel", str(table), *options])
    assert found.exit_code == 2
    assert message in " ".join((found.output + found.stderr).split())
    assert "Traceback" not in found.output
