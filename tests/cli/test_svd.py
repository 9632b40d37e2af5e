"""``leyden svd``: the answer of the library, in tables and in JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

import leyden as ly


@pytest.fixture
def a(tmp_path):
    """A matrix with a decaying spectrum, as m.npy."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((400, 25)) * 0.8 ** np.arange(25)
    np.save(tmp_path / "m.npy", a)
    return a


def document(result):
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout, parse_constant=pytest.fail)


def test_gives_the_singular_values_and_vectors_of_the_matrix(leyden, a):
    found = document(leyden("svd", "m.npy", "--rank", "4", "--json"))
    _, s, vt = np.linalg.svd(a, full_matrices=False)
    np.testing.assert_allclose(found["s"], s[:4], rtol=1e-12)
    np.testing.assert_allclose(np.abs(found["Vt"]), np.abs(vt[:4]), atol=1e-8)
    assert (np.array(found["lower"]) <= s[:4] * (1 + 1e-14)).all()
    assert (s[:4] <= np.array(found["upper"]) * (1 + 1e-14)).all()
    assert found["certificate"]["holds"]


def test_reads_the_columns_of_a_table_that_are_asked_for(leyden, data, table):
    found = document(leyden("svd", "parts/*.parquet", "--columns", "a,b", "--rank", "2", "--json"))
    x = np.column_stack([table["a"], table["b"]])
    assert found["columns"] == ["a", "b"]
    np.testing.assert_allclose(found["s"], np.linalg.svd(x, compute_uv=False), rtol=1e-12)


def test_options_reach_the_library(leyden, a):
    options = ["--tol", "1e-9", "--method", "krylov", "--passes", "40", "--memory", "50MB", "--threads", "1"]
    found = document(leyden("svd", "m.npy", "-k", "3", *options, "--seed", "7", "--json"))
    expected = ly.svd("m.npy", 3, tol=1e-9, method="krylov", passes=40, memory="50MB", threads=1, seed=7)
    assert found["s"] == list(expected.s)
    assert found["plan"]["method"] == "krylov"
    assert found["certificate"]["seeds"] == {"start": 7}
    assert found["certificate"]["bounds"]["residual"]["tolerance"] == 1e-9


def test_writes_the_left_vectors(leyden, a):
    found = document(leyden("svd", "m.npy", "--rank", "3", "--left", "u.npy", "--json"))
    u = np.load("u.npy")
    np.testing.assert_allclose(u * found["s"] @ np.array(found["Vt"]), a @ np.transpose(found["Vt"]) @ found["Vt"])
    assert "left_orthonormality" in found["certificate"]["bounds"]


def test_prints_components_certificate_passes_and_verdict(leyden, a):
    shown = leyden("svd", "m.npy", "--rank", "22").stdout
    for word in ("σ", "at least", "at most", "sin ∠", "and 2 smaller ones", "residual", "predicted", "HOLDS"):
        assert word in shown


def test_quiet_prints_the_verdict_alone(leyden, a):
    assert leyden("svd", "m.npy", "--rank", "2", "--quiet").stdout == "HOLDS\n"


def test_what_was_asked_for_and_not_reached_is_said_loudly(leyden, a):
    result = leyden("svd", "m.npy", "--rank", "3", "--method", "krylov", "--passes", "2", "--tol", "1e-12")
    assert result.exit_code == 1
    assert "DOES NOT HOLD" in result.stdout


def test_a_matrix_of_zeros_is_an_answer(leyden, tmp_path):
    np.save(tmp_path / "zero.npy", np.zeros((6, 4)))
    found = document(leyden("svd", "zero.npy", "--rank", "4", "--plot", "zero.svg", "--json"))
    assert found["s"] == found["upper"] == [0, 0, 0, 0]
    assert leyden("svd", "zero.npy", "--rank", "4").exit_code == 0


def test_saves_what_the_library_loads_and_verify_confirms(leyden, a):
    assert leyden("svd", "m.npy", "--rank", "3", "--out", "deep/saved").exit_code == 0
    assert ly.load("deep/saved").rank == 3
    result = leyden("verify", "deep/saved", "m.npy")
    assert result.exit_code == 0, result.output
    for word in ("residual", "singular_values", "HOLDS"):
        assert word in result.stdout


def test_verify_fails_on_changed_data_and_changed_answers(leyden, a):
    assert leyden("svd", "m.npy", "--rank", "3", "--out", "saved").exit_code == 0
    np.save("changed.npy", a * (1 + 1e-6))
    np.save("shorter.npy", a[1:])
    for other, said in (("changed.npy", "not that of the data"), ("shorter.npy", "399 × 25")):
        result = leyden("verify", "saved", other)
        assert result.exit_code == 1
        assert "FAILS" in result.stdout
        assert said in result.stdout
    s = np.load("saved/s.npy")
    np.save("saved/s.npy", s * [1, 1 + 1e-6, 1])
    assert leyden("verify", "saved", "m.npy").exit_code == 1


def test_a_file_of_left_vectors_is_not_needed_to_verify(leyden, a, tmp_path):
    assert leyden("svd", "m.npy", "--rank", "3", "--left", "u.npy", "--out", "saved").exit_code == 0
    (tmp_path / "u.npy").unlink()
    assert leyden("verify", "saved", "m.npy").exit_code == 0
