"""Ratings in memory and in a store: the same rows, and stores that are whole or not there."""

import itertools
import json
import os
import shutil

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import leyden as ly
from leyden.engine.fingerprint import difference, fingerprint
from leyden.errors import DataError, OptionError
from leyden.rows import ratings as ratings_module
from leyden.rows import ratings_store, ratings_writer
from leyden.rows.ids import Ids
from leyden.rows.ratings_folder import beside

VALUES = {
    "ones": [1.0],
    "levels": [0.5, 1.0, 2.0, 5.0],
    "256 levels": np.arange(256) / 7,
    "floats": np.random.default_rng(0).standard_normal(1000),
}


@pytest.fixture(scope="module", autouse=True)
def small_pieces():
    """Groups of users, chunks and blocks so short that every store has several."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (ratings_store, ratings_writer):
            patch.setattr(module, "STEP", 16)
        patch.setattr(ratings_store, "CHUNK", 50)
        patch.setattr(ratings_module, "BLOCK_RATINGS", 100)
        yield


def matrix(values, users=200, items=30, density=0.2, seed=0):
    """A sparse matrix whose first user, and some others, have nothing."""
    random = np.random.default_rng(seed)
    a = sp.random_array((users, items), density=density, format="csr", rng=random)
    a.data = random.choice(np.asarray(values, np.float32), a.nnz).astype(np.float32)
    a = a.tolil()
    a[0] = 0
    return a.tocsr()


@pytest.fixture(params=["memory", "store"])
def ratings(request, tmp_path):
    made = ly.open_ratings(matrix(VALUES["levels"]))
    return made if request.param == "memory" else made.save(tmp_path / "ratings")


def test_any_range_is_part_of_the_whole(ratings, check_rows):
    expected = matrix(VALUES["levels"])
    whole = check_rows(ratings)
    columns = ratings.items.take(np.arange(30))
    np.testing.assert_array_equal(whole.data.toarray(), expected.toarray()[:, columns])
    assert ratings.count == expected.nnz
    np.testing.assert_array_equal(ratings.item_counts, (expected.toarray() != 0).sum(axis=0)[columns])
    assert ratings.popular
    assert (np.diff(ratings.item_counts) <= 0).all()
    assert ratings.columns == tuple(map(str, columns))


def test_a_user_can_be_looked_up(ratings):
    whole = ratings.read(0, 200).data
    np.testing.assert_array_equal(ratings.user_counts(3, 90), np.diff(whole.indptr)[3:90])
    assert ratings.user_counts(3, 90).dtype == np.int64
    assert ratings.max_count == np.diff(whole.indptr).max()
    for user in range(200):
        items, values = ratings.row(user)
        part = slice(whole.indptr[user], whole.indptr[user + 1])
        np.testing.assert_array_equal(items, whole.indices[part])
        np.testing.assert_array_equal(values, whole.data[part])
        assert (items.dtype, values.dtype) == (np.int32, np.float32)


def test_blocks_hold_int32_and_float32(ratings):
    data = ratings.read(5, 60).data
    assert (data.data.dtype, data.indices.dtype, data.indptr.dtype) == (np.float32, np.int32, np.int32)


def test_ratings_can_be_factored(ratings):
    solution = ly.svd(ratings, rank=3)
    assert solution.certificate.holds
    np.testing.assert_allclose(solution.s, np.linalg.svd(matrix(VALUES["levels"]).toarray())[1][:3], rtol=1e-6)


def test_what_is_open_says_what_it_is(ratings):
    assert repr(ratings).startswith(f"<Ratings 200 users × 30 items, {ratings.count:,} ratings from ")
    assert str(ratings.summary).startswith(
        f"{ratings.count:,} rows: {ratings.count:,} ratings of 30 items by 200 users"
    )
    assert ratings.locate(7).endswith(", user 7")


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("items", [30, 70_000, 2**24 + 5])
def test_values_and_items_of_every_width_come_back(tmp_path, kind, items):
    a = matrix(VALUES[kind], users=60, items=30)
    spread = np.sort(np.random.default_rng(1).choice(items, 30, replace=False)).astype(np.int64)
    spread[-1] = items - 1
    levels = None if kind == "floats" else VALUES[kind]
    with ly.RatingsWriter(tmp_path / "ratings", items=items, levels=levels, max_count=30) as writer:
        for start, stop in ((0, 1), (1, 40), (40, 60)):
            part = a[start:stop]
            writer.append(np.diff(part.indptr), spread[part.indices], part.data)
    ratings = writer.ratings
    whole = ratings.read(0, 60).data
    np.testing.assert_array_equal(whole.indices, spread[a.indices])
    np.testing.assert_array_equal(whole.data, a.data)
    np.testing.assert_array_equal(whole.indptr, a.indptr)
    there = {path.name for path in (tmp_path / "ratings").iterdir()}
    assert ("values.npy" in there) == (kind != "ones")
    assert ("levels.npy" in there) == (kind in ("levels", "256 levels"))
    assert ("items.high.npy" in there) == (items > 65536)
    per_rating = 2 + (items > 2**16) + (items > 2**24) + {"ones": 0, "floats": 4}.get(kind, 1)
    assert ratings.stored_nbytes == per_rating * ratings.count + 60
    np.testing.assert_array_equal(ratings.levels, None if levels is None else np.asarray(levels, np.float32))


def test_planes_are_files_that_numpy_reads(tmp_path):
    a = matrix(VALUES["levels"])
    folder = tmp_path / "ratings"
    ly.open_ratings(a, out=folder)
    low, codes = np.load(folder / "items.low.npy"), np.load(folder / "values.npy")
    counts, levels = np.load(folder / "counts.npy"), np.load(folder / "levels.npy")
    order = ly.open_ratings(folder).items.take(np.arange(30))
    back = sp.csr_array((levels[codes], order[low], np.concatenate([[0], np.cumsum(counts)])), shape=(200, 30))
    np.testing.assert_array_equal(back.toarray(), a.toarray())
    assert json.loads((folder / "ratings.json").read_text())["shape"] == [200, 30]


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=100), declared=st.booleans())
def test_users_may_come_in_any_parts(tmp_path_factory, counts, declared):
    folder, counts = tmp_path_factory.mktemp("ratings") / "r", np.array(counts)
    items = np.concatenate([np.arange(m) for m in counts])
    pieces = np.random.default_rng(0).integers(0, len(counts) + 1, 5)
    cuts = [0, *np.sort(pieces), len(counts)]
    with ly.RatingsWriter(folder, items=9, levels=[1], max_count=9 if declared else None) as writer:
        for start, stop in itertools.pairwise(cuts):
            first, last = counts[:start].sum(), counts[:stop].sum()
            writer.append(counts[start:stop], items[first:last])
    assert writer.ratings.shape == (len(counts), 9)
    np.testing.assert_array_equal(writer.ratings.user_counts(0, len(counts)), counts)
    whole = writer.ratings.read(0, len(counts)).data
    np.testing.assert_array_equal(whole.indices, items)
    for start in range(len(counts)):
        np.testing.assert_array_equal(
            writer.ratings.read(start, len(counts)).data.indices, whole.indices[counts[:start].sum() :]
        )


def test_a_user_may_have_more_ratings_than_sixteen_bits_count(tmp_path):
    with ly.RatingsWriter(tmp_path / "r", items=70_000, levels=[1]) as writer:
        writer.append(np.array([2, 70_000]), np.concatenate([[0, 1], np.arange(70_000)]))
    assert np.load(tmp_path / "r" / "counts.npy").dtype == np.uint32
    assert writer.ratings.max_count == 70_000
    np.testing.assert_array_equal(writer.ratings.row(1)[0], np.arange(70_000))


def test_a_buffer_grows_with_the_longest_block(tmp_path):
    with ly.RatingsWriter(tmp_path / "r", items=5000, levels=[1, 2]) as writer:
        writer.append(np.ones(100, int), np.zeros(100, int), np.full(100, 2.0))
        writer.append(np.array([5000]), np.arange(5000), np.ones(5000))
    buffer = writer.ratings.buffer(1)
    for user in (0, 100, 1):
        data = writer.ratings.read(user, user + 1, buffer).data
        assert data.nnz == (5000 if user == 100 else 1)
        assert (data.data == (1 if user == 100 else 2)).all()
    assert writer.ratings.reader_nbytes(1) > 8 * 5000


def test_blocks_fit_the_estimate_of_their_memory(tmp_path):
    random = np.random.default_rng(0)
    counts = np.concatenate([random.integers(0, 50, 500), random.integers(0, 3, 2000)])
    with ly.RatingsWriter(tmp_path / "r", items=50, levels=[1]) as writer:
        writer.append(counts, np.concatenate([np.arange(m) for m in counts]))
    ratings = writer.ratings
    for rows in (1, 16, 100, 256, 700, 2500):
        held = rows * ratings.row_nbytes + ratings.reader_nbytes(rows) / 3
        longest = max(counts[start : start + rows].sum() for start in range(0, 2501 - rows, max(1, rows // 7)))
        assert held > 8 * longest


def test_held_out_ratings_are_saved_with_the_others(tmp_path):
    made = ly.open_ratings(matrix(VALUES["levels"]), holdout=0.3)
    stored = made.save(tmp_path / "r")
    assert stored.held_out.count == made.held_out.count > 0
    assert stored.held_out.users is stored.users
    np.testing.assert_array_equal(
        stored.held_out.read(0, 200).data.toarray(), made.held_out.read(0, 200).data.toarray()
    )
    assert stored.summary == made.summary


# ---------------------------------------------------------------- what identifies a store


def test_a_store_is_known_by_its_files(tmp_path):
    ratings = ly.open_ratings(matrix(VALUES["levels"]), out=tmp_path / "r")
    kept = fingerprint(ratings)
    assert [os.path.basename(path) for path, *_ in kept["files"]][:2] == ["ratings.json", "items.low.npy"]
    assert difference(kept, fingerprint(ly.open_ratings(tmp_path / "r"))) == ""
    other = ly.open_ratings(matrix(VALUES["levels"], seed=1), out=tmp_path / "r")
    assert "has changed" in difference(kept, fingerprint(other))
    assert other.identity != ratings.identity


def test_what_is_in_memory_is_known_by_its_numbers():
    one, same, other = (ly.open_ratings(matrix(VALUES["levels"], seed=seed)) for seed in (0, 0, 1))
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)


# ---------------------------------------------------------------- damaged stores


@pytest.fixture
def folder(tmp_path):
    ly.open_ratings(matrix(VALUES["levels"], items=70_000, density=0.001), out=tmp_path / "r", holdout=0.1)
    return tmp_path / "r"


def damage(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 0x7F
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["items.low", "items.high", "values", "levels", "counts", "starts", "item_counts"])
def test_a_missing_or_shortened_plane_is_named(folder, name):
    path = folder / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{name}\.npy: this is not a complete \.npy file"):
        ly.open_ratings(folder)
    path.unlink()
    with pytest.raises(DataError, match=rf"{name}\.npy: there is no such file of the ratings"):
        ly.open_ratings(folder)


def test_a_plane_of_another_store_is_noticed(folder):
    np.save(folder / "values.npy", np.zeros(3, np.uint8))
    with pytest.raises(DataError, match=r"values\.npy: this file of the ratings is damaged \(it holds uint8 of shape"):
        ly.open_ratings(folder)


@pytest.mark.parametrize("name", ["items.low", "items.high", "values", "levels", "counts", "starts", "item_counts"])
def test_a_changed_number_is_found_by_its_checksum(folder, name):
    ratings = ly.open_ratings(folder)
    ratings.check()
    damage(folder / f"{name}.npy")
    with pytest.raises(DataError, match=rf"{name}\.npy: this file of the ratings is damaged \(its checksum"):
        ly.open_ratings(folder).check()


def test_changed_counts_are_noticed_when_they_are_read(folder):
    damage(folder / "counts.npy", -150)
    with pytest.raises(DataError, match=r"counts\.npy: this file of the ratings is damaged \(the counts of users"):
        ly.open_ratings(folder).read(0, 200)


def test_an_item_that_is_not_there_is_noticed_when_it_is_read(folder):
    damage(folder / "items.high.npy", -3)
    with pytest.raises(DataError, match=r"damaged \(it names item"):
        ly.open_ratings(folder).read(0, 200)


def test_a_file_shortened_while_it_is_open_is_noticed(folder):
    ratings = ly.open_ratings(folder)
    os.truncate(folder / "items.low.npy", 200)
    with pytest.raises(DataError, match=r"items\.low\.npy: the file ends at row"):
        ratings.read(0, 200)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda d: d | {"format": 2, "leyden": "9.9"},
            "these ratings are in format 2, of Leyden 9.9, and this one reads 1",
        ),
        (lambda d: {"format": 1}, r"ratings\.json: this file of the ratings is damaged \(KeyError"),
        (lambda d: d | {"shape": "x"}, r"ratings\.json: this file of the ratings is damaged"),
        (lambda d: d | {"count": 3}, r"items\.low\.npy: this file of the ratings is damaged \(it holds"),
        (lambda d: [], r"this is not a complete ratings\.json"),
    ],
)
def test_a_document_of_another_kind_is_refused(folder, change, sentence):
    path = folder / "ratings.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=sentence):
        ly.open_ratings(folder)


def test_a_folder_without_its_document_is_no_store(folder):
    (folder / "ratings.json").write_text("{")
    with pytest.raises(DataError, match=r"this is not a complete ratings\.json"):
        ly.open_ratings(folder)
    (folder / "ratings.json").unlink()
    with pytest.raises(DataError, match=r"there are no ratings here: ratings\.json is missing"):
        ly.open_ratings(folder)
    shutil.rmtree(folder / "held_out")


def test_a_store_without_what_was_held_out_is_refused(folder):
    shutil.rmtree(folder / "held_out")
    with pytest.raises(DataError, match=r"held_out: there are no ratings here"):
        ly.open_ratings(folder)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("append", "sentence"),
    [
        (lambda w: w.append(np.array([2]), np.array([1, 1]), np.ones(2)), "the items of user 1 are not increasing"),
        (lambda w: w.append(np.array([1]), np.array([5]), np.ones(1)), "increasing numbers below 5"),
        (lambda w: w.append(np.array([1]), np.array([-1]), np.ones(1)), "increasing numbers below 5"),
        (lambda w: w.append(np.array([3]), np.array([1, 2]), np.ones(2)), "2 and 2 items and values were given for 3"),
        (lambda w: w.append(np.array([3]), np.arange(3), np.ones(3)), "a user has 3 ratings, more than was declared"),
        (
            lambda w: w.append(np.array([1]), np.array([1]), np.array([7.0])),
            r"7\.0 is not one of the 2 values declared",
        ),
        (lambda w: w.append(np.array([1]), np.array([1]), codes=np.array([2], np.uint8)), "2 is not one of the 2"),
        (lambda w: w.append(np.array([1]), np.array([1])), "no values were given, and they are not all 1"),
        (lambda w: setattr(w, "users", Ids.identity(3, "user")), "there are ids of 3 users and 5 items for"),
        (lambda w: w.held_out.append(np.array([0, 0]), np.array([], int), np.array([])), "2 users held out"),
    ],
)
def test_what_was_not_declared_is_refused_and_nothing_is_left(tmp_path, append, sentence):
    def write():
        with ly.RatingsWriter(tmp_path / "r", items=5, levels=[1, 2], max_count=2) as writer:
            writer.append(np.array([1]), np.array([4]), np.array([2.0]))
            append(writer)

    with pytest.raises(DataError, match=sentence):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"items": 0}, {"items": 2**31}, {"items": 3, "levels": []}, {"items": 3, "levels": np.arange(257)}]
)
def test_what_cannot_be_declared_is_refused(tmp_path, options):
    with pytest.raises(OptionError, match=r"items=|levels= holds"):
        ly.RatingsWriter(tmp_path / "r", **options)


def test_items_said_to_be_popular_must_be(tmp_path):
    with (
        pytest.raises(DataError, match="the items are not in the order of their counts"),
        ly.RatingsWriter(tmp_path / "r", items=2, levels=[1], popular=True) as writer,
    ):
        writer.append(np.array([1]), np.array([1]))


def test_codes_are_places_among_the_levels(tmp_path):
    with ly.RatingsWriter(tmp_path / "r", items=2, levels=[5, 3]) as writer:
        writer.append(np.array([2]), np.array([0, 1]), codes=np.array([0, 1], np.uint8))
    np.testing.assert_array_equal(writer.ratings.row(0)[1], [3, 5])


def test_an_empty_store_is_refused(tmp_path):
    with pytest.raises(DataError, match="no user was written"), ly.RatingsWriter(tmp_path / "r", items=2):
        pass


def test_a_store_gives_way_only_to_a_complete_one(tmp_path):
    first = ly.open_ratings(matrix(VALUES["levels"]), out=tmp_path / "r")

    def write(then=None):
        with ly.RatingsWriter(tmp_path / "r", items=5, levels=[1]) as writer:
            writer.append(np.array([1]), np.array([4]))
            if then:
                raise then

    with pytest.raises(KeyboardInterrupt):
        write(KeyboardInterrupt)
    ly.open_ratings(tmp_path / "r").check()
    assert ly.open_ratings(tmp_path / "r").identity == first.identity
    write()
    assert ly.open_ratings(tmp_path / "r").shape == (1, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path, monkeypatch):
    class Full:
        def __init__(self, *how, **more):
            self.file = open(*how, **more)  # noqa: SIM115

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, view):
            if len(view) > 300:
                raise OSError(28, "No space left on device")
            return self.file.write(view)

    monkeypatch.setattr(ratings_writer, "open", Full, raising=False)
    with pytest.raises(DataError, match=r"could not be written \(No space left on device\)"):
        ly.open_ratings(matrix(VALUES["floats"])).save(tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda path: path.write_text("mine"), "this folder exists and is no store of ratings"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("mine")), "exists and is no store of ratings"),
        (
            lambda path: (ly.open_ratings(matrix([1.0]), out=path), (path / "a.txt").write_text("mine")),
            r"this folder holds a\.txt beside the ratings, which would be lost",
        ),
    ],
)
def test_what_is_no_store_is_never_overwritten(tmp_path, prepare, sentence):
    path = tmp_path / "r"
    prepare(path)
    with pytest.raises(DataError, match=sentence):
        ly.open_ratings(matrix([1.0]), out=path)
    assert (path if path.is_file() else path / "a.txt").read_text() == "mine"


def test_the_current_folder_is_never_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="cannot be the current one"):
        ly.open_ratings(matrix([1.0]), out=".")


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    left = tmp_path / ".r.0000.partial"
    left.mkdir()
    (left / "file").write_text("left")
    with beside(tmp_path / "r") as working:
        assert not left.exists()
        with beside(tmp_path / "r"):
            assert working.exists()
    assert list(tmp_path.iterdir()) == []
