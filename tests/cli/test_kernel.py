"""``leyden kernel`` and ``leyden predict``."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
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
    "options",
    [
        ["--kernel", "polynomial", "--degree", "2", "--constant", "0.5"],
        ["--kernel", "arccos1"],
        ["--kernel", "matern52", "--map", "nystroem"],
    ],
)
def test_other_kernels_and_maps_are_asked_for_by_name(table, tmp_path, options):
    out, options = tmp_path / "machine", ["--target", "y", "--classify", "--features", "80", *options]
    found = run.invoke(app, ["kernel", str(table), *options, "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert run.invoke(app, ["verify", str(out), str(table)]).exit_code == 0
    kernel = ly.load(out).kernel
    assert kernel.name == options[options.index("--kernel") + 1]
    if kernel.name == "polynomial":
        assert (kernel.degree, kernel.constant) == (2, 0.5)
        assert ly.load(out).error(str(table), "y") < 0.1
    assert run.invoke(app, ["plan", "kernel", str(table), *options]).exit_code == 0


@pytest.fixture(params=["csv", "parquet"])
def flowers(tmp_path, request):
    """Labels that are text, in two columns of which the first is other text."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((900, 2))
    kind = np.array(["lily", "rose", "tulip, red"])[np.digitize(x[:, 0], [-0.4, 0.4])]
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "kind": kind})
    path = tmp_path / f"flowers.{request.param}"
    pq.write_table(table, path) if request.param == "parquet" else pc.write_csv(table, path)
    return path, kind


def test_labels_that_are_text_are_fitted_saved_verified_and_predicted(flowers, tmp_path):
    path, kind = flowers
    out, to = tmp_path / "machine", tmp_path / "predicted.npy"
    options = ["--target", "kind", "--classify", "--features", "100", "--out", str(out), "--json"]
    found = run.invoke(app, ["kernel", str(path), *options])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["classes"] == ["lily", "rose", "tulip, red"]
    assert run.invoke(app, ["verify", str(out), str(path)]).exit_code == 0
    again = run.invoke(app, ["predict", str(out), str(path), "--target", "kind", "--to", str(to), "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["error"] == np.mean(np.load(to) != kind) < 0.1
    alone = run.invoke(app, ["predict", str(out), str(path), "--columns", "a,b", "--to", str(tmp_path / "p.csv")])
    assert alone.exit_code == 0, alone.output
    assert (tmp_path / "p.csv").read_text().splitlines() == np.load(to).tolist()
    shown = run.invoke(app, ["predict", str(out), str(path), "--columns", "a,b"])
    assert shown.stdout.splitlines() == np.load(to).tolist()
    estimator = ly.KernelClassifier(features=100).fit(path, "kind")
    assert estimator.classes_.tolist() == sorted(set(kind))
    assert np.mean(estimator.predict(ly.open(path, columns=["a", "b"])) == kind) > 0.9


def test_labels_are_the_same_whichever_of_them_a_table_has(flowers, tmp_path):
    path, kind = flowers
    found = ly.kernel_machine(path, "kind", classify=True, features=100)
    table = ly.open(path, columns=["a", "b"]).read(0, 900).data
    some = kind != "lily"
    part = pa.table({"a": table[some, 0], "b": table[some, 1], "kind": kind[some]})
    assert found.error(part, "kind") == np.mean(found.predict(table[some]) != kind[some])
    assert not ly.verify(found, part, "kind").holds
    assert ly.verify(found, path, "kind").holds


def test_a_class_that_was_not_fitted_is_a_sentence(flowers, tmp_path):
    path, _ = flowers
    out = tmp_path / "machine"
    found = ly.kernel_machine(path, "kind", classify=True, features=50)
    found.save(out)
    strange = pa.table({"a": [0.0, 1.0], "b": [0.0, 1.0], "kind": ["rose", "weed"]})
    with pytest.raises(ly.DataError, match="class weed is none of the 3 that were fitted"):
        found.error(strange, "kind")
    with pytest.raises(ly.DataError, match="are numbers, and those that were fitted are text"):
        found.error(np.zeros((2, 2)), [0.0, 1.0])
    numbers = ly.kernel_machine(np.random.default_rng(0).standard_normal((200, 2)), np.arange(200) % 2, classify=True)
    with pytest.raises(ly.DataError, match="class 7 is none of the 2"):
        numbers.error(np.zeros((3, 2)), [0, 7, 1])
    pq.write_table(strange, tmp_path / "strange.parquet")
    shown = run.invoke(app, ["predict", str(out), str(tmp_path / "strange.parquet"), "--target", "kind"])
    assert shown.exit_code == 0
    assert len(shown.stdout.splitlines()) == 2
    assert "class weed" in shown.stderr


def test_text_that_is_no_label_is_a_sentence(flowers):
    path, _ = flowers
    with pytest.raises(ly.DataError, match="classify=True"):
        ly.kernel_machine(path, "kind", features=50)
    with pytest.raises(ly.OptionError, match="labels, and no numbers"):
        ly.kernel_machine(ly.open(path, target="kind", labels=True), features=50)
    with pytest.raises(ly.DataError, match=r"column 'kind' holds text .*categorical=\['kind'\]"):
        ly.kernel_machine(path, "a", features=50)
    encoded = ly.open(path, target="a", categorical="auto")
    assert ly.kernel_machine(encoded, features=50).columns[1:] == ("kind=lily", "kind=rose", "kind=tulip, red")
    rose = pa.table({"a": np.arange(9.0), "kind": ["rose"] * 9})
    with pytest.raises(ly.DataError, match="one value only, rose"):
        ly.kernel_machine(rose, "kind", classify=True, features=50)


def test_standard_deviations_stand_beside_predictions(table, tmp_path):
    out, to = tmp_path / "machine", tmp_path / "predicted.csv"
    options = ["--target", "y", "--features", "40", "--variance", "--out", str(out)]
    assert run.invoke(app, ["kernel", str(table), *options]).exit_code == 0
    assert run.invoke(app, ["predict", str(out), str(table), "--target", "y", "--std", "--to", str(to)]).exit_code == 0
    mean, deviation = ly.load(out).predict(str(table), return_std=True)
    assert np.allclose(np.loadtxt(to, delimiter=","), np.column_stack([mean, deviation]), rtol=1e-8)


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
