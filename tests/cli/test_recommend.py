"""``leyden recommend``: lists for users of the ratings, for somebody new, for all; ids are those of the data."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import random_array, save_npz

import leyden as ly

USERS, ITEMS = 60, 25


@pytest.fixture(autouse=True)
def solutions(tmp_path, monkeypatch):
    """Ratings in t.parquet, by text and by integers, and factors of them: of a store, of the table, of a matrix."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    user, item = np.nonzero(random.random((USERS, ITEMS)) < 0.4)
    table = pa.table(
        {"user": [f"u{i}" for i in user], "item": item * 10, "rating": random.integers(1, 6, len(user)).astype(float)}
    )
    pq.write_table(table, "t.parquet")
    ratings = ly.open_ratings(table, out="ratings")
    ly.als(ratings, 4, 5.0).save("explicit")
    ly.als(ratings, 4, 20.0, implicit=True).save("implicit")
    matrix = random_array((USERS, ITEMS), density=0.3, rng=1, format="csr")
    save_npz("m.npz", matrix)
    ly.als(matrix, 4).save("matrix")
    ly.svd(np.eye(4), 2).save("svd")


def lists(result):
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout, parse_constant=pytest.fail)["lists"]


def test_users_are_named_as_in_the_data(leyden):
    solution = ly.load("explicit")
    found = lists(leyden("recommend", "explicit", "--user", "u7", "--user", "u3", "-k", "5", "--json"))
    assert [one["user"] for one in found] == ["u7", "u3"]
    for one in found:
        items, scores = solution.recommend(one["user"], 5)
        assert one["items"] == items.tolist()
        assert one["scores"] == scores.tolist()


def test_items_that_were_rated_are_left_out_unless_asked_for(leyden):
    table = pq.read_table("t.parquet").to_pandas()
    rated = set(table[table.user == "u7"].item)
    (without,) = lists(leyden("recommend", "explicit", "--user", "u7", "-k", ITEMS, "--json"))
    assert set(without["items"]) == set(range(0, ITEMS * 10, 10)) - rated
    (all_items,) = lists(leyden("recommend", "explicit", "--user", "u7", "-k", ITEMS, "--include-seen", "--json"))
    assert set(all_items["items"]) == set(range(0, ITEMS * 10, 10))


def test_somebody_new_is_known_by_some_items(leyden):
    (found,) = lists(leyden("recommend", "explicit", "--items", "0, 240", "--values", "5,1.5", "-k", "3", "--json"))
    items, scores = ly.load("explicit").recommend_new([0, 240], [5, 1.5], 3)
    assert found == {"user": None, "items": items.tolist(), "scores": scores.tolist()}
    (found,) = lists(leyden("recommend", "implicit", "--items", "0,240", "--json"))
    assert found["items"] == ly.load("implicit").recommend_new([0, 240])[0].tolist()


def test_items_like_an_item(leyden):
    (found,) = lists(leyden("recommend", "explicit", "--similar", "240", "-k", "4", "--json"))
    items, cosines = ly.load("explicit").similar_items(240, 4)
    assert found == {"item": 240, "items": items.tolist(), "scores": cosines.tolist()}
    shown = leyden("recommend", "explicit", "--similar", "240", "--similar", "0").stdout
    assert shown.startswith("like item 240")
    assert "cosine" in shown
    assert "like item 0" in shown


def test_a_table_for_each(leyden):
    shown = leyden("recommend", "explicit", "--user", "u7", "--user", "u3", "-k", "2").stdout
    items, scores = ly.load("explicit").recommend("u7", 2)
    words = shown.split()
    assert words[:5] == ["for", "user", "u7", "item", "score"]
    assert words[5:11] == ["1", str(items[0]), f"{scores[0]:.4f}", "2", str(items[1]), f"{scores[1]:.4f}"]
    assert "for user u3" in shown
    assert "for somebody new" in leyden("recommend", "implicit", "--items", "0").stdout


def test_lists_for_all_are_written(leyden):
    result = leyden("recommend", "explicit", "--all", "all.parquet", "-k", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout == "lists of 3 for 60 users written to all.parquet\n"
    table = pq.read_table("all.parquet").to_pandas()
    assert list(table.columns) == ["user", "item", "score", "rank"]
    items, scores = ly.load("explicit").recommend("u7", 3)
    assert table[table.user == "u7"].item.tolist() == items.tolist()
    assert table[table.user == "u7"].score.tolist() == pytest.approx(scores.tolist(), rel=1e-12)
    document = json.loads(leyden("recommend", "explicit", "--all", "b.parquet", "--json").stdout)
    assert document["out"] == "b.parquet"


def test_rows_and_columns_of_a_matrix_are_named_by_their_numbers(leyden):
    (found,) = lists(leyden("recommend", "matrix", "m.npz", "--user", "7", "-k", "3", "--json"))
    solution = ly.load("matrix")
    solution.ratings = ly.open("m.npz")
    assert found["items"] == solution.recommend(7, 3)[0].tolist()


def test_factors_of_a_table_find_it_again(leyden):
    options = ("--rank", "4", "--regularization", "5", "--value", "rating")
    assert leyden("als", "t.parquet", *options, "--out", "s").exit_code == 0
    (found,) = lists(leyden("recommend", "s", "--user", "u7", "--json"))
    assert len(found["items"]) == 10
    shutil.move("t.parquet", "elsewhere.parquet")
    result = leyden("recommend", "s", "--user", "u7")
    assert result.exit_code == 2
    assert "Name them after the folder: leyden recommend s DATA." in result.stderr
    (again,) = lists(leyden("recommend", "s", "elsewhere.parquet", "--user", "u7", "--json"))
    assert again == found


def test_nothing_is_left_for_who_has_rated_everything(leyden):
    pq.write_table(pa.table({"user": [0, 1], "item": [0, 0], "rating": [1.0, 2.0]}), "one.parquet")
    ly.als("one.parquet", 1).save("one")
    result = leyden("recommend", "one", "one.parquet", "--user", "0")
    assert result.exit_code == 0, result.output
    assert "there is no item left" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone", "--user", "u1"], "gone: there is no solution here"),
        (["ratings", "--user", "u1"], "ratings: there is no solution here"),
        (["svd", "--user", "1"], "svd: this is a solution of svd. Recommendations are made by one of als."),
        (["explicit"], "it must be said for whom. Give one of --user, --items, --similar and --all."),
        (["explicit", "--user", "u1", "--items", "0"], "it must be said for whom"),
        (["explicit", "--user", "u999"], "user 'u999' is not among the 60 users of the ratings. Some that are: u"),
        (["explicit", "--items", "0,5", "--values", "1,2"], "item '5' is not among the 25 items of the ratings. Some"),
        (["explicit", "--similar", "5"], "item '5' is not among the 25 items of the ratings"),
        (["explicit", "--items", "tea", "--values", "1"], "item 'tea' is not among the 25 items"),
        (["explicit", "--items", "9" * 30, "--values", "1"], "is not among the 25 items"),
        (["explicit", "--items", "0,10"], "these factors are of ratings. Give those of the items as well, with --val"),
        (["explicit", "--items", "0,10", "--values", "1"], "there are 2 items and 1 values. Give one for each."),
        (["explicit", "--items", "0", "--values", "good"], "--values: 'good' is not a number"),
        (["explicit", "--items", "0", "--values", "nan"], "finite"),
        (["implicit", "--items", "0", "--values", "-1"], "an implicit value must be above zero"),
        (["explicit", "--items", "0,0", "--values", "1,2"], "an item is given twice"),
        (["explicit", "--user", "u1", "--values", "1"], "--values are ratings of the items that --items names"),
        (["explicit", "--all", "all.csv"], "all.csv: recommendations are written to a .parquet file"),
        (["explicit", "--all", "gone/all.parquet"], "gone/all.parquet: the file cannot be written"),
        (["explicit", "m.npz", "--user", "1"], "m.npz: these are not the ratings that were factored"),
        (["explicit", "gone.parquet", "--user", "1"], "gone.parquet: there is no such file"),
        (["matrix", "--user", "1"], "matrix: the ratings this was made from are not at hand. Name them after the fol"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(leyden, tmp_path, arguments, said):
    before = sorted(tmp_path.iterdir())
    result = leyden("recommend", *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_store_that_has_changed_is_refused(leyden):
    ly.open_ratings(pq.read_table("t.parquet").slice(1), out="ratings")
    result = leyden("recommend", "explicit", "--user", "u7")
    assert result.exit_code == 2
    assert "these are not the ratings that were factored" in result.stderr
