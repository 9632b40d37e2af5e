"""``leyden lstsq``: the answer of the library, in tables and in JSON, from every kind of file."""

from __future__ import annotations

import json

import numpy as np
import pytest

import leyden as ly

pytestmark = pytest.mark.usefixtures("data")


def solved(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout, parse_constant=pytest.fail)


@pytest.mark.parametrize("source", [["t.csv"], ["t.parquet"], ["parts"], ["parts/*.parquet"], ["t.csv", "t.csv"]])
def test_solves_tables_by_the_names_of_their_columns(leyden, source):
    document = solved(leyden("lstsq", *source, "--target", "z", "--columns", "a,b", "--json"))
    assert document["columns"] == ["a", "b"]
    np.testing.assert_allclose(document["x"], [2, 1], rtol=1e-13)
    assert document["certificate"]["holds"]


def test_solves_arrays_beside_their_target(leyden):
    document = solved(leyden("lstsq", "a.npy", "--target", "y.npy", "--json"))
    np.testing.assert_allclose(document["x"], [2, 1], rtol=1e-13)


def test_a_target_of_shape_n_1_gives_an_answer_of_shape_d_1(leyden, data):
    np.save(data / "column.npy", np.load(data / "y.npy")[:, None])
    document = solved(leyden("lstsq", "a.npy", "--target", "column.npy", "--out", "saved", "--json"))
    np.testing.assert_allclose(document["x"], [[2], [1]], rtol=1e-13)
    shown = leyden("lstsq", "a.npy", "--target", "column.npy")
    assert "R² 1" in shown.stdout
    assert leyden("verify", "saved", "a.npy").exit_code == 0


def test_splits_a_target_off_an_array_by_its_number(leyden):
    document = solved(leyden("lstsq", "a.npy", "--target", "1", "--intercept", "--json"))
    expected = ly.lstsq(ly.open("a.npy", target=1), intercept=True)
    assert document["x"] == list(expected.x)


def test_encodes_categories_and_fits_an_intercept(leyden):
    options = ["--columns", "a,b,kind", "--categorical", "auto", "--drop-first", "--intercept"]
    document = solved(leyden("lstsq", "t.parquet", "--target", "y", *options, "--json"))
    assert document["columns"] == ["a", "b", "kind=red"]
    np.testing.assert_allclose(document["x"], [3, -2, 5], rtol=1e-12)
    assert document["intercept"] == pytest.approx(1)


def test_takes_several_targets(leyden):
    document = solved(leyden("lstsq", "t.csv", "--target", "y", "--target", "z", "--columns", "a,b", "--json"))
    assert document["targets"] == ["y", "z"]
    assert np.shape(document["x"]) == (2, 2)


def test_options_reach_the_solver(leyden):
    arguments = ["--ridge", "2.5", "--weight", "w", "--method", "tsqr", "--memory", "50MB", "--threads", "1"]
    document = solved(leyden("lstsq", "t.csv", "--target", "z", "--columns", "a,b", *arguments, "--json"))
    rows = ly.open("t.csv", target="z", weight="w", columns=["a", "b"])
    expected = ly.lstsq(rows, ridge=2.5, method="tsqr", memory="50MB", threads=1)
    assert document["x"] == list(expected.x)
    assert document["plan"]["method"] == "tsqr"
    assert document["plan"]["memory"] == 50_000_000


def test_prints_coefficients_certificate_passes_and_verdict(leyden):
    result = leyden("lstsq", "t.csv", "--target", "y", "--categorical", "kind", "--drop-first", "--intercept")
    assert result.exit_code == 0
    for word in ("kind=red", "(intercept)", "R²", "backward_error", "rigorous", "predicted", "measured", "HOLDS"):
        assert word in result.stdout
    assert result.stderr == ""


def test_prints_the_largest_effects_first(leyden, data):
    random = np.random.default_rng(1)
    a = random.standard_normal((200, 3)) * [1, 1000, 1] + [0, 0, 1e6]
    np.save(data / "scaled.npy", a)
    np.save(data / "target.npy", a @ [3, 0.01, 1])
    shown = leyden("lstsq", "scaled.npy", "--target", "target.npy", "--intercept").stdout
    assert shown.index("x1") < shown.index("x0 ") < shown.index("x2")


def test_shows_only_the_largest_of_many_coefficients(leyden, data):
    random = np.random.default_rng(1)
    np.save(data / "wide.npy", random.standard_normal((200, 30)))
    np.save(data / "target.npy", random.standard_normal(200))
    shown = leyden("lstsq", "wide.npy", "--target", "target.npy").stdout
    assert "and 10 smaller ones" in shown


def test_quiet_prints_the_verdict_alone(leyden):
    assert leyden("lstsq", "t.csv", "--target", "z", "--columns", "a,b", "--quiet").stdout == "HOLDS\n"


def test_a_certificate_that_does_not_hold_is_said_loudly(leyden):
    arguments = ["lstsq", "a.npy", "--target", "y.npy", "--tol", "1e-300"]
    result = leyden(*arguments)
    assert result.exit_code == 1
    assert "DOES NOT HOLD" in result.stdout
    document = leyden(*arguments, "--json")
    assert document.exit_code == 1
    assert json.loads(document.stdout)["certificate"]["holds"] is False


def test_json_has_null_for_what_is_not_finite(leyden, data):
    a = np.random.default_rng(0).standard_normal((100, 2))
    np.save(data / "twice.npy", np.column_stack([a, a[:, 1]]))
    np.save(data / "target.npy", a.sum(axis=1))
    document = solved(leyden("lstsq", "twice.npy", "--target", "target.npy", "--json"))
    assert document["rank"] == 2
    assert None in document["coefficient_error"]


def test_saves_a_solution_that_the_library_loads(leyden, data):
    assert leyden("lstsq", "t.csv", "--target", "z", "--columns", "a,b", "--out", "deep/z").exit_code == 0
    np.testing.assert_allclose(ly.load(data / "deep" / "z").x, [2, 1], rtol=1e-13)


def test_a_folder_that_is_not_a_solution_is_refused_before_the_work(leyden, data, monkeypatch):
    monkeypatch.setattr("leyden.solve.lstsq.lstsq", pytest.fail)
    result = leyden("lstsq", "t.csv", "--target", "z", "--out", "parts")
    assert result.exit_code == 2
    assert "parts" in result.stderr
    assert len(list((data / "parts").iterdir())) == 4
