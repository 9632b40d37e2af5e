"""Solutions on disk: what is saved is what was found, and whatever is changed is noticed."""

import contextlib
import json
import pickle

import numpy as np
import pytest

import leyden as ly


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((500, 6))
    return a, a @ rng.standard_normal(6) + rng.standard_normal(500)


SETTINGS = [
    {},
    {"ridge": 2.0, "intercept": True},
    {"method": "tsqr"},
    {"method": "sketch", "intercept": True},
    {"method": "gram64", "ridge": 0.1},
]


@pytest.mark.parametrize("options", SETTINGS)
def test_a_saved_solution_verifies_against_its_data(tmp_path, problem, options):
    a, b = problem
    solution = ly.lstsq(a, b, **options)
    loaded = ly.load(solution.save(tmp_path / "solution"))
    np.testing.assert_array_equal(loaded.x, solution.x)
    assert loaded.intercept == solution.intercept
    assert loaded.certificate == solution.certificate
    assert loaded.plan == solution.plan
    again = ly.verify(tmp_path / "solution", ly.open(a, target=b))
    assert again.holds, again
    assert again.backward_error <= 1e-14


@pytest.mark.parametrize("options", SETTINGS)
def test_a_change_in_the_last_place_of_one_coefficient_is_noticed(tmp_path, problem, options):
    a, b = problem
    folder = ly.lstsq(a, b, **options).save(tmp_path / "solution")
    x = np.load(folder / "x.npy")
    x[3, 0] = np.nextafter(x[3, 0], 9)
    np.save(folder / "x.npy", x)
    again = ly.verify(folder, ly.open(a, target=b))
    assert not again.holds
    assert "do not belong together" in str(again)


@pytest.mark.parametrize("options", SETTINGS)
def test_a_change_of_one_number_of_one_row_is_noticed(tmp_path, problem, options):
    a, b = problem
    solution = ly.lstsq(a, b, **options)
    changed = a.copy()
    changed[321, 4] *= 1 + 1e-13
    assert not ly.verify(solution, ly.open(changed, target=b)).holds
    changed = b.copy()
    changed[7] += 1e-13
    assert not ly.verify(solution, ly.open(a, target=changed)).holds


@pytest.mark.parametrize("options", SETTINGS)
def test_a_certificate_that_claims_too_much_is_noticed(tmp_path, problem, options):
    a, b = problem
    folder = ly.lstsq(a, b, tol=1e-13, **options).save(tmp_path / "solution")
    document = json.loads((folder / "solution.json").read_text())
    for bound in document["certificate"]["bounds"].values():
        bound["value"] *= 1e-3
    (folder / "solution.json").write_text(json.dumps(document))
    assert "the solution claims" in str(ly.verify(folder, ly.open(a, target=b)))


def test_forged_coordinates_are_noticed(tmp_path, problem):
    """A shift or scale under which everything looks small must not certify a wrong answer."""
    a, b = problem
    folder = ly.lstsq(a, b).save(tmp_path / "solution")
    for file, value in (("shift", 1e30), ("scale", 2.0**-200), ("scale", 3.0), ("scale", -1.0)):
        original = np.load(folder / f"{file}.npy")
        forged = original.copy()
        forged[0] = value
        np.save(folder / f"{file}.npy", forged)
        with contextlib.suppress(ly.SolutionError):
            assert not ly.verify(folder, ly.open(a, target=b)).holds
        np.save(folder / f"{file}.npy", original)


@pytest.mark.parametrize("file", ["witness", "gradient", "coefficient_error", "sums"])
def test_tampering_with_any_other_array_is_noticed(tmp_path, problem, file):
    a, b = problem
    folder = ly.lstsq(a, b, intercept=True).save(tmp_path / "solution")
    array = np.load(folder / f"{file}.npy")
    for factor in (0.25, np.nan):
        tampered = array.copy()
        tampered.flat[0] *= factor
        np.save(folder / f"{file}.npy", tampered)
        if file == "witness" and factor == 0.25:
            # Another witness is another way to the same bounds: they are measured, not believed.
            assert ly.verify(folder, ly.open(a, target=b)).backward_error <= 1e-14
            continue
        with contextlib.suppress(ly.SolutionError):
            assert not ly.verify(folder, ly.open(a, target=b)).holds


def test_a_longer_solution_of_dependent_columns_is_noticed(tmp_path):
    rng = np.random.default_rng(2)
    half = rng.standard_normal((100, 2))
    a, b = np.hstack([half, half]), rng.standard_normal(100)
    folder = ly.lstsq(a, b).save(tmp_path / "solution")
    x = np.load(folder / "x.npy")
    x[0] += 1
    x[2] -= 1
    np.save(folder / "x.npy", x)
    assert not ly.verify(folder, ly.open(a, target=b)).holds


def test_a_folder_with_other_files_is_never_replaced(tmp_path, problem):
    solution = ly.lstsq(*problem)
    folder = solution.save(tmp_path / "solution")
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(ly.SolutionError, match=r"notes\.txt"):
        solution.save(folder)
    assert (folder / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("place", [".", "..", "/", "", "below/..", None, "a\0b", "x" * 300])
def test_a_place_that_cannot_be_a_solution_is_a_sentence(tmp_path, monkeypatch, problem, place):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ly.SolutionError):
        ly.lstsq(*problem).save(place)
    assert [file.name for file in tmp_path.rglob("*")] == ["here"]


def test_the_current_folder_is_never_replaced_even_when_it_is_a_solution(tmp_path, monkeypatch, problem):
    solution = ly.lstsq(*problem)
    monkeypatch.chdir(solution.save(tmp_path / "solution"))
    for place in (".", "../solution", tmp_path):
        with pytest.raises(ly.SolutionError, match="cannot be the current one or one above it"):
            solution.save(place)
    np.testing.assert_array_equal(ly.load(".").x, solution.x)


def test_a_link_to_a_folder_stays_a_link(tmp_path, problem):
    solution, link = ly.lstsq(*problem), tmp_path / "link"
    link.symlink_to("elsewhere")
    for _ in range(2):
        assert solution.save(link) == link
        assert link.is_symlink()
        np.testing.assert_array_equal(ly.load(tmp_path / "elsewhere").x, solution.x)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "other").symlink_to("mine")
    with pytest.raises(ly.SolutionError, match="exists and is not a solution"):
        solution.save(tmp_path / "other")
    link.unlink()
    link.symlink_to("link")
    with pytest.raises(ly.SolutionError):
        solution.save(link)


def test_a_file_is_never_replaced(tmp_path, problem):
    (tmp_path / "thesis").write_text("precious")
    with pytest.raises(ly.SolutionError, match="exists and is not a solution"):
        ly.lstsq(*problem).save(tmp_path / "thesis")
    assert (tmp_path / "thesis").read_text() == "precious"


def test_a_solution_is_kept_when_overwriting_is_not_wanted_or_fails(tmp_path, monkeypatch, problem):
    a, b = problem
    first, second = ly.lstsq(a, b), ly.lstsq(a, -b)
    folder = first.save(tmp_path / "solution")
    with pytest.raises(ly.SolutionError, match="there is a solution here already"):
        second.save(folder, overwrite=False)
    rename = type(folder).replace

    def failing(self, target):
        if self.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(type(folder), "replace", failing)
    with pytest.raises(ly.SolutionError, match=r"could not be written \(No space left on device\)"):
        second.save(folder)
    np.testing.assert_array_equal(ly.load(folder).x, first.x)
    assert [file.name for file in tmp_path.iterdir()] == ["solution"]


def test_a_target_of_two_dimensions_survives_the_round_trip(tmp_path, problem):
    a, b = problem
    solution = ly.lstsq(a, b[:, None])
    loaded = ly.load(solution.save(tmp_path / "solution"))
    assert loaded.x.shape == (6, 1)
    assert str(loaded) == str(solution)
    assert ly.verify(loaded, ly.open(a, target=b[:, None])).holds
    assert ly.verify(loaded, ly.open(a, target=b)).holds


def test_a_rank_deficient_solution_verifies(tmp_path):
    rng = np.random.default_rng(1)
    half = rng.standard_normal((100, 3))
    a, b = np.hstack([half, half]), rng.standard_normal(100)
    folder = ly.lstsq(a, b).save(tmp_path / "solution")
    assert ly.verify(folder, ly.open(a, target=b)).holds
    a[5, 1] += 1e-6
    assert not ly.verify(folder, ly.open(a, target=b)).holds


def test_data_of_another_shape_is_told_apart(problem):
    a, b = problem
    solution = ly.lstsq(a, b)
    assert "499 rows" in str(ly.verify(solution, ly.open(a[:-1], target=b[:-1])))


def test_verification_takes_what_solving_took(tmp_path, problem):
    a, b = problem
    w = np.linspace(0, 1, len(b))
    folder = ly.lstsq(a, b, weights=w).save(tmp_path / "solution")
    assert ly.verify(folder, a, b, weights=w).holds
    assert ly.load(folder).verify(ly.open(a, target=b), weights=w).holds
    assert not ly.verify(folder, a, b + 1e-9, weights=w).holds


def test_the_memory_that_verification_asks_for_would_do():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2000, 200)), rng.standard_normal(2000)
    solution = ly.lstsq(a, b)
    with pytest.raises(ly.BudgetError, match=r"budget of 1 MB is too small: .*, the algebra between passes") as refused:
        ly.verify(solution, a, b, memory="1MB")
    assert ly.verify(solution, a, b, memory=refused.value.hint.split('"')[1]).holds


def test_a_missing_target_and_missing_weights_are_said(tmp_path, problem):
    a, b = problem
    w = np.linspace(0, 1, len(b))
    plain, weighted = ly.lstsq(a, b), ly.load(ly.lstsq(a, b, weights=w).save(tmp_path / "weighted"))
    assert (plain.weighted, weighted.weighted) == (False, True)
    for solution, data, said in [
        (plain, {}, "0 target(s); the solution is of 500 rows, 6 columns, 1 target(s): give b, or open the rows with"),
        (weighted, {}, "give b, or open the rows with target= and weight="),
        (weighted, {"b": b}, "of rows with weights, and these have none: give weights"),
        (plain, {"b": b, "weights": w}, "of rows without weights, and these have some"),
    ]:
        certificate = ly.verify(solution, a, **data)
        assert not certificate.holds
        assert certificate.passes == 0
        assert said in str(certificate)


def test_a_solution_in_the_wrong_place_or_damaged_is_a_sentence(tmp_path, problem):
    with pytest.raises(ly.SolutionError, match="there is no solution here"):
        ly.load(tmp_path / "nowhere")
    solution = ly.lstsq(*problem)
    folder = solution.save(tmp_path / "solution")
    (folder / "x.npy").write_bytes(b"nonsense")
    with pytest.raises(ly.SolutionError, match="damaged"):
        ly.load(folder)
    folder = solution.save(folder)
    (folder / "x.npy").unlink()
    with pytest.raises(ly.SolutionError, match="damaged"):
        ly.load(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ly.SolutionError, match="exists and is not a solution"):
        solution.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_nothing_that_executes_is_saved(tmp_path, problem):
    folder = ly.lstsq(*problem).save(tmp_path / "solution")
    assert {file.suffix for file in folder.iterdir()} == {".json", ".npy"}
    for file in folder.glob("*.npy"):
        np.load(file, allow_pickle=False)


def test_an_infinite_bound_survives_the_round_trip(tmp_path, problem):
    solution = ly.lstsq(*problem, tol=1e-30)
    assert not ly.load(solution.save(tmp_path / "solution")).certificate.holds


def test_the_plan_is_kept_beside_what_happened(tmp_path, problem):
    solution = ly.lstsq(*problem)
    assert solution.plan.seconds > 0
    assert solution.trace.seconds > 0
    assert len(solution.trace.passes) >= len(solution.plan.passes) - 1
    text = str(solution.plan)
    for word in ("method", "pass 1", "total", "flops", "peak", "not "):
        assert word in text
    loaded = ly.load(solution.save(tmp_path / "solution")).plan
    assert str(loaded) == text
    with pytest.raises(ly.OptionError, match=r"has no data to run on\. Plan again"):
        loaded.run()


def test_planning_runs_nothing_and_says_why(problem):
    plan = ly.plan.lstsq(*problem, method="tsqr")
    assert plan.method == "tsqr"
    assert plan.nbytes == len(plan.passes) * 500 * 6 * 8
    assert {name for name, _, _ in plan.alternatives} == {"gram32", "gram64", "sketch"}


def test_a_solution_can_be_pickled_and_does_not_keep_the_data():
    a = np.random.default_rng(0).standard_normal((50_000, 4))
    for solution in (ly.lstsq(a[:, 1:], a[:, 0]), ly.svd(a, 2)):
        pickled = pickle.dumps(solution)
        assert len(pickled) < a.nbytes / 50
        assert pickle.loads(pickled).plan == solution.plan
        with pytest.raises(ly.OptionError, match="no data to run on"):
            solution.plan.run()
