"""``leyden als``: the answer of the library, with what was held out; planned, saved, verified, gone on with."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import mmwrite
from scipy.sparse import csr_array, csr_matrix, save_npz

import leyden as ly

USERS, ITEMS, RANK = 150, 30, 3


@pytest.fixture(autouse=True)
def files(tmp_path):
    """Ratings as t.parquet, with integer ids of users and text ids of items; in two stores; and as matrices."""
    random = np.random.default_rng(0)
    u, v = random.standard_normal((USERS, RANK)), random.standard_normal((ITEMS, RANK))
    seen = random.random((USERS, ITEMS)) < 0.5
    user, item = np.nonzero(seen)
    value = (u @ v.T + 0.1 * random.standard_normal(seen.shape))[seen]
    table = pa.table({"who": user * 7, "what": [f"i{j}" for j in item], "value": value})
    pq.write_table(table, tmp_path / "t.parquet")
    clicks = table.set_column(2, "value", pa.array(1.0 + np.floor(np.abs(value))))
    columns = {"user": "who", "item": "what"}
    ly.open_ratings(table, **columns, out=tmp_path / "ratings", holdout=0.1)
    ly.open_ratings(clicks, **columns, out=tmp_path / "clicks", holdout="last")
    matrix = csr_array((value, (user, item)), shape=(USERS, ITEMS))
    save_npz(tmp_path / "m.npz", matrix)
    mmwrite(tmp_path / "m.mtx", csr_matrix(matrix))
    return tmp_path


#: Enough for certificates to hold after a few epochs.
L1 = ("--regularization", "1")
COLUMNS = ("--user", "who", "--item", "what")


def document(result):
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout, parse_constant=pytest.fail)


def test_gives_what_the_library_gives(leyden):
    options = ("--rank", "3", "--regularization", "0.5", "--scaling", "0.5", "--biases", "--tol", "1e-4", "--seed", "4")
    found = document(leyden("als", "ratings", *options, "--threads", "1", "--memory", "1GB", "--out", "s", "--json"))
    expected = ly.als(
        ly.open_ratings("ratings"), 3, 0.5, scaling=0.5, biases=True, tol=1e-4, seed=4, threads=1, memory="1GB"
    )
    np.testing.assert_array_equal(ly.load("s").item_factors, expected.item_factors)
    assert found["history"] == expected.history
    assert (found["users"], found["items"], found["rank"]) == (USERS, ITEMS, 3)
    assert found["objective"]["mean"] == expected.mean
    assert found["certificate"]["bounds"]["stationarity"]["tolerance"] == 1e-4
    assert found["held_out"]["rmse"] == expected.evaluate().rmse
    assert found["certificate"]["holds"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--implicit", "--alpha", "3"], {"implicit": True, "alpha": 3.0, "background": None}),
        (["--implicit"], {"implicit": True, "alpha": 1.0, "background": None}),
        (["--background", "0.2"], {"implicit": True, "alpha": 1.0, "background": 0.2}),
        (["--implicit", "--background", "0.2"], {"implicit": True, "background": 0.2}),
    ],
)
def test_implicit_feedback_is_weighed_in_two_ways(leyden, options, expected):
    found = document(leyden("als", "clicks", "--rank", "3", "--regularization", "20", *options, "--json"))
    assert expected.items() <= found["objective"].items()
    assert found["held_out"]["items"] == ly.open_ratings("clicks").held_out.count
    assert 0 < found["held_out"]["recall"]["10"]["mean"] <= 1


def test_a_table_and_a_matrix_are_factored_as_they_are(leyden):
    options = ("--rank", "3", "--regularization", "0.5", "--tol", "1e-6", "--json")
    values = [
        document(leyden("als", *data, *options))["certificate"]["bounds"]["objective"]["value"]
        for data in (["t.parquet", *COLUMNS], ["m.npz"], ["m.mtx"])
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


def test_prints_problem_epochs_held_out_certificate_time_and_verdict(leyden):
    shown = " ".join(leyden("als", "ratings", "--rank", "3", *L1, "--out", "s").stdout.split())
    for said in (
        "150 users × 30 items",
        "ratings, rank 3, λ 1; method resident",
        "epoch objective step",
        "no factors of any rank reach less than",
        " users; RMSE",
        "stationarity",
        "but for 1e-09",
        "pass planned made read predicted measured",
        "HOLDS",
        "saved in s",
        "leyden recommend s --user ID",
    ):
        assert said in shown
    shown = " ".join(leyden("als", "clicks", "--rank", "3", "--implicit").stdout.split())
    for said in ("implicit feedback, alpha 1", "ranked among all", "at 10", "recall", "NDCG", "reciprocal rank"):
        assert said in shown
    assert "saved" not in shown


def test_of_many_epochs_the_first_and_the_last_are_shown(leyden):
    options = ("--rank", "3", "--tol", "1e-6", *L1)
    history = document(leyden("als", "ratings", *options, "--json"))["history"]
    shown = leyden("als", "ratings", *options).stdout
    numbers = [int(line.split()[0]) for line in shown.splitlines() if re.match(r"^ +\d+ +[\d,.]+ +\S+e", line)]
    n = len(history)
    assert n > 6
    assert numbers == [1, 2, 3, n - 2, n - 1, n]


def test_quiet_prints_the_verdict_alone(leyden):
    assert leyden("als", "ratings", "--rank", "3", "--quiet").stdout == "HOLDS\n"


def test_what_was_asked_for_and_not_reached_is_said_loudly(leyden):
    result = leyden("als", "ratings", "--rank", "3", "--epochs", "1", "--out", "s")
    assert result.exit_code == 1
    assert "DOES NOT HOLD" in result.stdout
    assert not ly.load("s").certificate.holds


def test_the_rank_that_is_sufficient_is_found(leyden):
    found = document(leyden("als", "m.npz", "--rank", "auto", "--regularization", "10", "--json"))
    assert found["rank"] >= RANK
    assert found["certificate"]["bounds"]["duality_gap"]["value"] <= 1e-6


def test_plan_says_what_would_be_done_and_does_nothing(leyden, monkeypatch):
    monkeypatch.setattr("leyden.engine.sweep.Engine.sweep", pytest.fail)
    shown = leyden("plan", "als", "ratings", "--rank", "3", "--memory", "1GB", "--method", "streamed").stdout
    for word in ("als ratings: 150 users × 30 items", "rank 3", "streamed", "pass 1–10  epoch", "optimality", "1 GB"):
        assert word in shown
    planned = document(leyden("plan", "als", "t.parquet", *COLUMNS, "--implicit", "--json"))
    assert planned["verb"] == "als"
    assert "implicit" in planned["data"]


@pytest.mark.parametrize("data", [["ratings"], ["t.parquet", *COLUMNS], ["m.npz"]])
def test_what_was_saved_is_verified_from_the_data(leyden, data):
    assert leyden("als", *data, "--rank", "3", "--out", "s").exit_code == 0
    result = leyden("verify", "s", data[0])
    assert result.exit_code == 0, result.output
    assert "HOLDS" in result.stdout


def test_other_ratings_do_not_verify(leyden):
    assert leyden("als", "ratings", "--rank", "3", "--out", "s").exit_code == 0
    result = leyden("verify", "s", "clicks")
    assert result.exit_code == 1
    assert "FAILS" in result.stdout
    result = leyden("verify", "s", "t.parquet", *COLUMNS)
    assert result.exit_code == 1
    assert "other numbers of ratings" in result.stdout


def test_options_of_other_data_are_refused(leyden, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((40, 4)))
    assert leyden("als", "ratings", "--rank", "3", "--out", "s").exit_code == 0
    assert leyden("svd", "a.npy", "--rank", "2", "--out", "v").exit_code == 0
    result = leyden("verify", "s", "ratings", "--target", "y")
    assert result.exit_code == 2
    assert "--target says nothing about ratings" in result.stderr
    result = leyden("verify", "v", "a.npy", "--user", "y")
    assert result.exit_code == 2
    assert "--user says nothing about the rows of a matrix" in result.stderr


def test_a_plot_shows_how_the_objective_fell(leyden, tmp_path):
    assert leyden("als", "ratings", "--rank", "3", "--plot", "epochs.png", "--quiet").exit_code == 0
    assert (tmp_path / "epochs.png").read_bytes().startswith(b"\x89PNG")


def test_a_checkpoint_is_gone_on_with_and_removed_at_the_end(leyden, tmp_path, monkeypatch):
    line = ["als", "ratings", "--rank", "3", "--checkpoint", "c", "--out", "s"]
    with monkeypatch.context() as patch:
        patch.setattr("leyden.solution.Solution.save", lambda *_, **__: 1 / 0)
        assert leyden(*line).exit_code == 3
    assert "als ratings" in leyden("runs").stdout
    result = leyden(*line, "--regularization", "3")
    assert result.exit_code == 2
    assert "checkpoint" in result.stderr
    assert leyden(*line).exit_code == 0
    assert not (tmp_path / "c").exists()
    whole = ly.als(ly.open_ratings("ratings"), 3)
    np.testing.assert_array_equal(ly.load("s").item_factors, whole.item_factors)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone"], "gone: there is no such file"),
        (["t.parquet"], "t.parquet: there is no column 'user'"),
        (["m.npz", "--user", "x"], "m.npz: --user is a column of a table, and this is a matrix"),
        (["ratings", "--rank", "many"], '--rank many is not a number, nor "auto"'),
        (["ratings", "--rank", "0"], "--rank 0 must be a whole number from 1 to 2,048"),
        (["ratings", "--rank", "3", "--max-rank", "9"], "--max-rank has no meaning with a rank of 3. Give --rank auto"),
        (["ratings", "--regularization", "0"], "--regularization 0.0 must be a positive number"),
        (["ratings", "--tol", "2"], "--tol 2.0 must be a number between 0 and 1"),
        (["ratings", "--gap", "0"], "--gap 0.0 must be a number between 0 and 1"),
        (["ratings", "--alpha", "2"], "--alpha is for implicit feedback. Give --implicit as well"),
        (["ratings", "--alpha", "2", "--background", "1"], "--alpha and --background are two ways to weigh"),
        (["clicks", "--implicit", "--biases"], "biases are for explicit ratings"),
        (["ratings", "--implicit"], "an implicit value of -"),
        (["ratings", "--method", "magic"], "--method magic is not one of auto, resident, streamed"),
        (["ratings", "--start", "magic"], "--start magic is not one of random, spectral"),
        (["ratings", "--memory", "10kB"], "a budget of 10 kB is too small"),
        (["ratings", "--plot", "p.pdf"], "p.pdf: a plot is written as .svg or .png"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(leyden, files, arguments, said):
    before = sorted(files.iterdir())
    result = leyden("als", *arguments, "--out", "s")
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert sorted(files.iterdir()) == before


def test_a_store_of_another_version_is_refused(leyden, files):
    path = files / "ratings" / "ratings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    for verb in ("als", "plan als"):
        result = leyden(*verb.split(), "ratings")
        assert result.exit_code == 2
        assert "99" in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_folder_that_holds_something_else_is_refused_before_the_work(leyden, files, monkeypatch):
    monkeypatch.setattr("leyden.engine.sweep.Engine.sweep", pytest.fail)
    result = leyden("als", "ratings", "--out", "clicks")
    assert result.exit_code == 2
    assert "clicks" in result.stderr


def test_ratings_of_a_file_are_foretold_by_their_ids_after_every_epoch(leyden, files):
    table = pq.read_table(files / "t.parquet")
    apart = np.random.default_rng(1).random(len(table)) < 0.2
    pq.write_table(table.filter(pa.array(~apart)), files / "train.parquet")
    pq.write_table(table.filter(pa.array(apart)), files / "test.parquet")
    line = ("als", "train.parquet", *COLUMNS, "--rank", "3", *L1, "--held-out", "test.parquet", "--out", "s")
    found = document(leyden(*line, "--json"))
    assert found["held_out"]["ratings"] == apart.sum()
    assert found["history"][-1]["rmse"] == pytest.approx(found["held_out"]["rmse"], rel=1e-6)
    shown = " ".join(leyden(*line).stdout.split())
    assert "epoch objective step stationarity RMSE" in shown
    assert leyden("verify", "s", "train.parquet", "--held-out", "test.parquet").exit_code == 0
    assert leyden("verify", "s", "train.parquet").exit_code == 0
    result = leyden("verify", "s", "train.parquet", "--held-out", "t.parquet")
    assert result.exit_code == 1
    assert "rmse" in result.stdout


def test_a_plot_shows_what_was_held_out(leyden, tmp_path):
    options = ("--implicit", "--regularization", "20", "--plot", "epochs.svg")
    assert leyden("als", "clicks", "--rank", "3", *options, "--quiet").exit_code == 0
    assert "NDCG@100 of held-out ratings" in (tmp_path / "epochs.svg").read_text()
