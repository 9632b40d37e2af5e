"""``leyden qr``: the factors of the library, from a file to a file; what cannot be factored is said in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

import leyden as ly

pytestmark = pytest.mark.usefixtures("data")


def test_factors_a_file_into_a_folder_and_a_file(leyden, data):
    result = leyden("qr", "a.npy", "--q", "q.npy", "--out", "factors")
    assert result.exit_code == 0, result.stderr
    for word in ("orthogonality", "residual", "backward_error", "rigorous", "HOLDS", "q.npy", "factors"):
        assert word in result.stdout
    q, r = np.load("q.npy"), ly.load("factors").R
    np.testing.assert_allclose(q @ r, np.load("a.npy"), atol=1e-13)
    assert leyden("verify", "factors", "a.npy").stdout.rstrip().endswith("HOLDS")
    a = np.load("a.npy")
    a[7, 1] += 1e-9
    np.save("a.npy", a)
    assert leyden("verify", "factors", "a.npy").exit_code == 1


def test_columns_of_a_table_are_named(leyden):
    result = leyden("qr", "t.csv", "--columns", "a,b", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout, parse_constant=pytest.fail)
    assert document["columns"] == ["a", "b"]
    assert document["certificate"]["holds"]
    expected = ly.qr(ly.open("t.csv", columns=["a", "b"])).R
    np.testing.assert_array_equal(document["R"], expected)


def test_quiet_prints_the_verdict_alone(leyden):
    assert leyden("qr", "a.npy", "--quiet").stdout == "HOLDS\n"


def test_a_certificate_that_does_not_hold_has_status_1(leyden):
    result = leyden("qr", "a.npy", "--tol", "1e-300")
    assert result.exit_code == 1
    assert "DOES NOT HOLD" in result.stdout


def test_the_plan_is_printed_and_nothing_done(leyden, data):
    result = leyden("plan", "qr", "a.npy", "--q", "q.npy", "--memory", "50MB")
    assert result.exit_code == 0, result.stderr
    assert "A R⁻¹, certificate" in result.stdout
    assert not (data / "q.npy").exists()
    assert json.loads(leyden("plan", "qr", "a.npy", "--json").stdout)["verb"] == "qr"


def test_a_checkpoint_is_removed_when_the_answer_is_seen(leyden, data):
    result = leyden("qr", "a.npy", "--checkpoint", "kept", "--checkpoint-every", "0")
    assert result.exit_code == 0, result.stderr
    assert not (data / "kept").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.npy"], "no such file"),
        (["a.npy", "--q", "q.csv"], "q.csv: rows are written to a .npy file. Name it so."),
        (["a.npy", "--q", "a.npy"], "a.npy: the data would be written over"),
        (["a.npy", "--method", "lu"], "--method lu is not one of"),
        (["a.npy", "--memory", "1kB"], "--memory"),
        (["t.csv", "--columns", "a,b,w,y,z"], "column 'z' is a combination of 'a', 'b'"),
        (["wide.npy"], "fewer rows than columns, 2 × 3"),
        (["zero.npy"], "column 'x1' of zeros"),
        (["t.csv", "--columns", "a,b", "--weight", "w"], "weights"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(leyden, data, arguments, said):
    np.save("wide.npy", np.ones((2, 3)))
    np.save("zero.npy", np.array([[1.0, 0], [2, 0], [3, 0]]))
    result = leyden("qr", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
