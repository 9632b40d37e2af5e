"""``leyden mixed``: the models of the library, from a shell, saved and verified."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import leyden as ly

ROWS, SCHOOLS, TEACHERS = 600, 24, 7
FORMULA = "score ~ hours + (1 + hours | school)"
CROSSED = "score ~ hours + (1 | school) + (1 | teacher)"


@pytest.fixture
def pupils():
    """Pupils in schools, with teachers who work in any of them."""
    random = np.random.default_rng(3)
    school, teacher = random.integers(0, SCHOOLS, ROWS), random.integers(0, TEACHERS, ROWS)
    hours = random.standard_normal(ROWS)
    effects = random.standard_normal((SCHOOLS, 2)) * [1.0, 0.4]
    score = 50 + 2 * hours + effects[school, 0] + effects[school, 1] * hours + 0.8 * random.standard_normal(ROWS)
    score += 0.5 * random.standard_normal(TEACHERS)[teacher]
    names = np.array([f"school {number:02d}" for number in range(SCHOOLS)])
    weight = random.random(ROWS) + 0.5
    columns = {"score": score, "hours": hours, "school": names[school], "teacher": teacher, "weight": weight}
    return pa.table(columns)


@pytest.fixture(autouse=True)
def data(tmp_path, pupils):
    """The pupils as p.parquet, p.csv and parts/, and as holes.parquet, where some hours are missing."""
    pq.write_table(pupils, tmp_path / "p.parquet")
    csv.write_csv(pupils, tmp_path / "p.csv")
    (tmp_path / "parts").mkdir()
    for part in range(3):
        pq.write_table(pupils.slice(part * ROWS // 3, ROWS // 3), tmp_path / "parts" / f"part{part}.parquet")
    hours = pa.array([None if i % 50 == 7 else value for i, value in enumerate(pupils["hours"].to_pylist())])
    pq.write_table(pupils.set_column(1, "hours", hours), tmp_path / "holes.parquet")
    return tmp_path


def fitted(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "source", [["p.parquet"], ["parts"], ["parts/*.parquet"], [f"parts/part{i}.parquet" for i in range(3)], ["p.csv"]]
)
def test_a_formula_gives_the_model_of_the_library_from_every_kind_of_table(leyden, pupils, source):
    found = fitted(leyden("mixed", *source, "--formula", FORMULA, "--json"))
    expected = ly.mixed(FORMULA, pupils)
    assert found["rows"] == ROWS
    assert found["fixed"] == pytest.approx(expected.fixed, rel=1e-9)
    assert found["log_likelihood"] == pytest.approx(expected.log_likelihood, rel=1e-9)
    np.testing.assert_allclose(
        found["groupings"]["school"]["covariance"], expected.groupings["school"].covariance, rtol=1e-5
    )
    assert found["certificate"]["holds"]


def test_the_keyword_form_is_the_same_model(leyden):
    words = ["--target", "score", "--fixed", "hours", "--random", "hours", "--group", "school"]
    by_words = fitted(leyden("mixed", "p.parquet", *words, "--json"))
    by_formula = fitted(leyden("mixed", "p.parquet", "--formula", FORMULA, "--json"))
    assert by_words["fixed"] == by_formula["fixed"]
    assert by_words["groupings"] == by_formula["groupings"]


def test_fixed_and_random_may_be_given_several_times(leyden):
    words = ["--target", "score", "--fixed", "hours", "--fixed", "weight", "--group", "school"]
    found = fitted(leyden("mixed", "p.parquet", *words, "--random", "0", "--random", "hours", "--json"))
    assert set(found["fixed"]) == {"Intercept", "hours", "weight"}
    assert found["groupings"]["school"]["coefficients"] == ["hours"]


def test_options_reach_the_fit(leyden, pupils):
    given = ["--weights", "weight", "--method", "ml", "--covariance", "diagonal", "--tol", "1e-8", "--memory", "1GB"]
    found = fitted(leyden("mixed", "p.parquet", "--formula", FORMULA, *given, "--threads", "1", "--json"))
    expected = ly.mixed(FORMULA, pupils, weights="weight", method="ML", covariance="diagonal", memory="1GB")
    assert found["method"] == "ML"
    assert found["log_likelihood"] == pytest.approx(expected.log_likelihood, rel=1e-10)
    assert found["groupings"]["school"]["covariance"][0][1] == 0
    assert found["certificate"]["bounds"]["energy_error"]["tolerance"] == 1e-8
    assert found["plan"]["memory"] == 10**9


def test_a_covariance_may_be_a_number(leyden, pupils):
    given = ["--formula", "score ~ hours + (1 | school)", "--covariance", "1.5"]
    found = fitted(leyden("mixed", "p.parquet", *given, "--json"))
    assert found["groupings"]["school"]["covariance"][0][0] == pytest.approx(1.5 * found["residual_variance"])
    assert found["fixed"] == pytest.approx(ly.mixed(given[1], pupils, covariance=1.5).fixed)


def test_rows_with_missing_values_are_an_error_or_left_out(leyden):
    refused = leyden("mixed", "holes.parquet", "--formula", FORMULA)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "'hours'" in refused.stderr
    assert fitted(leyden("mixed", "holes.parquet", "--formula", FORMULA, "--missing", "drop", "--json"))["rows"] == 588


def test_json_has_the_keys_that_programs_rely_on(leyden):
    found = fitted(leyden("mixed", "p.parquet", "--formula", FORMULA, "--intervals", "wald", "--json"))
    assert set(found) == {
        "verb", "formula", "target", "method", "rows", "parameters", "log_likelihood", "aic", "bic", "fixed",
        "standard_errors", "z_values", "p_values", "residual_variance", "groupings", "intervals", "certificate", "plan",
        "trace", "peak_rss",
    }  # fmt: skip
    assert found["verb"] == "mixed"
    assert (found["target"], found["parameters"]) == ("score", 6)
    assert found["groupings"]["school"]["groups"] == SCHOOLS
    assert found["aic"] == pytest.approx(2 * 6 - 2 * found["log_likelihood"])
    low, high = found["intervals"]["fixed"]["hours"]
    assert low < found["fixed"]["hours"] < high
    places = [(one["group"], one["coefficient"]) for one in found["intervals"]["deviations"]]
    assert places == [("school", "Intercept"), ("school", "hours"), ("residual", "")]
    assert found["intervals"]["correlations"][0]["coefficients"] == ["Intercept", "hours"]


def test_prints_the_summary_first_and_then_the_certificate(leyden):
    result = leyden("mixed", "p.parquet", "--formula", FORMULA)
    assert result.exit_code == 0
    assert result.stderr == ""
    words = ["Linear mixed model", FORMULA, "Random effects", "school", "residual", "Fixed effects", "hours"]
    words += ["energy_error", "rigorous", "stationarity", "QR of [X y Z]", "peak memory", "HOLDS"]
    at = 0
    for word in words:
        at = result.stdout.index(word, at)
    assert "[.025" in result.stdout


@pytest.mark.parametrize("method", ["wald", "profile"])
def test_intervals_are_shown_at_the_level_asked_for(leyden, pupils, method):
    formula = "score ~ hours + (1 | school)"
    shown = leyden("mixed", "p.parquet", "--formula", formula, "--intervals", method, "--level", "0.9").stdout
    expected = ly.mixed(formula, pupils).confidence_intervals(level=0.9, method=method)
    low, high = expected.deviations["school", "Intercept"]
    (line,) = (line.split() for line in shown.splitlines() if "sd(school Intercept)" in line)
    assert [float(number) for number in line[-2:]] == pytest.approx([low, high], rel=1e-4)
    assert f"90% by {method}" in shown
    assert "[.05" in shown


def test_of_many_fixed_effects_the_first_are_shown(leyden, data, monkeypatch):
    monkeypatch.setattr("leyden.cli.show_mixed.MAX_FIXED", 4)
    given = ["--formula", "score ~ hours + C(teacher) + (1 | school)", "--intervals", "wald"]
    shown = leyden("mixed", "p.parquet", *given).stdout
    assert "and 4 more: --json" in shown
    assert shown.count("C(teacher)[T.2]") == 2  # in the summary and among the intervals
    assert "C(teacher)[T.3]" not in shown
    assert "sd(school Intercept)" in shown


def test_quiet_prints_the_verdict_alone(leyden):
    assert leyden("mixed", "p.parquet", "--formula", FORMULA, "--quiet").stdout == "HOLDS\n"


def test_a_certificate_that_does_not_hold_is_said_loudly(leyden):
    arguments = ["mixed", "p.parquet", "--formula", FORMULA, "--tol", "1e-30"]
    result = leyden(*arguments)
    assert result.exit_code == 1
    assert "DOES NOT HOLD" in result.stdout
    document = leyden(*arguments, "--json")
    assert document.exit_code == 1
    assert json.loads(document.stdout)["certificate"]["holds"] is False


# ---------------------------------------------------------------- what is written


def test_coefficients_of_all_groups_are_written(leyden, data, pupils):
    result = leyden("mixed", "p.parquet", "--formula", FORMULA, "--random-out", "schools.parquet")
    assert "coefficients of the groups are in schools.parquet" in result.stdout
    written = pq.read_table(data / "schools.parquet")
    assert written.column_names == [
        "school",
        "Intercept",
        "Intercept (standard error)",
        "hours",
        "hours (standard error)",
    ]
    model = ly.mixed(FORMULA, pupils)
    ids = written["school"].to_pylist()
    assert len(set(ids)) == SCHOOLS
    np.testing.assert_allclose(
        np.column_stack([written["Intercept"], written["hours"]]), model.random(ids), rtol=1e-6, atol=1e-9
    )


def test_each_of_several_groupings_has_a_file(leyden, data):
    result = leyden("mixed", "p.parquet", "--formula", CROSSED, "--random-out", "u.parquet")
    assert result.exit_code == 0
    assert pq.read_table(data / "u-school.parquet").num_rows == SCHOOLS
    assert pq.read_table(data / "u-teacher.parquet").num_rows == TEACHERS
    assert not (data / "u.parquet").exists()


def test_the_groups_are_plotted(leyden, data):
    assert leyden("mixed", "p.parquet", "--formula", CROSSED, "--plot", "groups.svg").exit_code == 0
    assert ET.parse(data / "groups.svg").getroot().tag.endswith("svg")


def test_a_checkpoint_is_gone_when_the_work_is_done(leyden, data):
    result = leyden("mixed", "p.parquet", "--formula", FORMULA, "--checkpoint", "c", "--checkpoint-every", "0")
    assert result.exit_code == 0, result.stderr
    assert not (data / "c").exists()


def test_runs_in_processes_of_its_own(leyden, pupils):
    found = fitted(leyden("mixed", "p.parquet", "--formula", FORMULA, "--workers", "1", "--memory", "1GB", "--json"))
    assert found["fixed"] == pytest.approx(ly.mixed(FORMULA, pupils).fixed, rel=1e-9)


# ---------------------------------------------------------------- plan


def test_plan_says_what_would_be_done_and_reads_no_row_twice(leyden, monkeypatch):
    monkeypatch.setattr("leyden.engine.sweep.Engine.sweep", pytest.fail)
    given = ["p.parquet", "--formula", CROSSED, "--memory", "1GB"]
    shown = leyden("plan", "mixed", *given)
    assert shown.exit_code == 0
    for word in ("600 rows", "24 of school", "7 of teacher", "cross-products, REML", "pass 3", "of 1 GB"):
        assert word in shown.stdout
    document = fitted(leyden("plan", "mixed", *given, "--json"))
    assert [one["name"] for one in document["passes"]] == ["QR of [X y Z]", "cross-products", "gradient, certificate"]


# ---------------------------------------------------------------- verify


@pytest.fixture
def saved(leyden):
    """Runs the command line where ``model`` is that of p.parquet."""
    assert leyden("mixed", "p.parquet", "--formula", FORMULA, "--out", "model", "--quiet").exit_code == 0
    return leyden


@pytest.mark.parametrize(
    "source", [["p.parquet"], ["parts"], ["parts/part0.parquet", *["parts/part1.parquet", "parts/part2.parquet"]]]
)
def test_a_saved_model_holds_on_its_data(saved, source):
    result = saved("verify", "model", *source)
    assert result.exit_code == 0, result.output
    assert "energy_error" in result.stdout
    assert source[0] in result.stdout
    assert "HOLDS" in result.stdout


def test_a_saved_model_is_that_of_the_library(saved, data, pupils):
    loaded, expected = ly.load(data / "model"), ly.mixed(FORMULA, pupils)
    assert loaded.fixed == pytest.approx(expected.fixed)
    assert loaded.formula == FORMULA
    assert json.loads((data / "model" / "data.json").read_text())["data"] == ["p.parquet"]


@pytest.mark.parametrize(
    ("name", "by"),
    [("beta", 1e-6), ("theta", 1e-2), ("effects_0", 1e-6)],
)
def test_a_model_whose_numbers_were_changed_fails(saved, data, name, by):
    path = data / "model" / f"{name}.npy"
    values = np.load(path)
    values.flat[0] *= 1 + by
    np.save(path, values)
    result = saved("verify", "model", "p.parquet", "--json")
    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout)["certificate"]["holds"] is False


@pytest.mark.parametrize("row", [0, 17])
def test_a_model_fails_on_data_that_was_changed(saved, data, pupils, row):
    score = pupils["score"].to_numpy().copy()
    score[row] += 0.01
    pq.write_table(pupils.set_column(0, "score", pa.array(score)), data / "p.parquet")
    result = saved("verify", "model", "p.parquet")
    assert result.exit_code == 1
    assert "FAILS" in result.stdout


def test_a_model_fails_on_data_with_other_groups(saved, data, pupils):
    pq.write_table(
        pupils.filter(pa.array([name != "school 05" for name in pupils["school"].to_pylist()])), data / "p.parquet"
    )
    result = saved("verify", "model", "p.parquet")
    assert result.exit_code == 1
    assert "other groups of 'school'" in result.stdout


@pytest.mark.parametrize("option", [["--target", "hours"], ["--user", "school"]])
def test_the_model_itself_says_what_the_columns_are(saved, option):
    result = saved("verify", "model", "p.parquet", *option)
    assert result.exit_code == 2
    assert "the model names itself" in result.stderr


# ---------------------------------------------------------------- absorbed factors


@pytest.mark.parametrize(
    "words",
    [
        ["--formula", "score ~ hours | school + teacher"],
        ["--formula", "score ~ hours", "--absorb", "school", "--absorb", "teacher"],
        ["--target", "score", "--fixed", "hours", "--absorb", "school", "--absorb", "teacher"],
    ],
)
def test_factors_are_absorbed(leyden, pupils, words):
    found = fitted(leyden("mixed", "p.parquet", *words, "--vcov", "cluster", "--cluster", "teacher", "--json"))
    expected = ly.mixed("score ~ hours | school + teacher", pupils, vcov="cluster", cluster="teacher")
    assert found["verb"] == "fixed_effects"
    assert found["fixed"] == pytest.approx(expected.fixed)
    assert found["standard_errors"] == pytest.approx(expected.standard_errors)
    assert found["absorbed"] == {"school": SCHOOLS, "teacher": TEACHERS}
    assert found["clusters"] == [TEACHERS]


def test_a_regression_with_absorbed_factors_is_shown_saved_and_verified(leyden, data):
    shown = leyden("mixed", "p.parquet", "--formula", "score ~ hours | school", "--out", "model")
    assert shown.exit_code == 0, shown.output
    for word in ("Least squares with absorbed factors", "levels: school 24", "hours", "HOLDS", "saved in model"):
        assert word in shown.stdout
    assert leyden("verify", "model", "p.parquet").exit_code == 0
    np.save(data / "model" / "beta.npy", np.load(data / "model" / "beta.npy") * (1 + 1e-5))
    assert leyden("verify", "model", "p.parquet").exit_code == 1


@pytest.mark.parametrize(
    ("option", "value"), [("--intervals", "wald"), ("--random-out", "u.parquet"), ("--plot", "p.svg")]
)
def test_absorbed_factors_have_no_random_effects(leyden, data, option, value):
    result = leyden("mixed", "p.parquet", "--formula", "score ~ hours | school", option, value)
    assert result.exit_code == 2
    assert f"{option} is of random effects, and factors are absorbed" in result.stderr
    assert not (data / value).exists()


# ---------------------------------------------------------------- what a user can get wrong

WRONG = [
    (["p.parquet"], "there is no target. Give --target, or a formula."),
    (["p.parquet", "--target", "score"], "there are no groups. Give --group, the column"),
    (["p.parquet", "--formula", "score"], "'score' is no formula"),
    (["p.parquet", "--formula", "score ~ hours"], "there is no random term"),
    (["p.parquet", "--formula", FORMULA, "--group", "school"], "the formula says what --target, --fixed, --random"),
    (["p.parquet", "--formula", "score ~ (1 | class)"], "'class'"),
    (["p.parquet", "--formula", "score ~ hour + (1 | school)"], "hour"),
    (["p.parquet", "--formula", "score ~ (hours + (1 | school)"], "cannot be read"),
    (["gone.parquet", "--formula", FORMULA], "gone.parquet: there is no such file"),
    (["p.parquet", "--formula", FORMULA, "--method", "magic"], "--method MAGIC is not one of REML, ML"),
    (["p.parquet", "--formula", FORMULA, "--covariance", "round"], "--covariance round is not one of estimate"),
    (["p.parquet", "--formula", FORMULA, "--covariance", "-1"], "the covariance of 'school' must be a number"),
    (["p.parquet", "--formula", FORMULA, "--missing", "guess"], "--missing guess is not one of error, drop"),
    (["p.parquet", "--formula", FORMULA, "--intervals", "exact"], "--intervals exact is not one of wald, profile"),
    (["p.parquet", "--formula", FORMULA, "--level", "95"], "--level 95.0 must be a number between 0 and 1"),
    (["p.parquet", "--formula", FORMULA, "--random-out", "u.csv"], "u.csv: the rows are written to a .parquet file"),
    (["p.parquet", "--formula", FORMULA, "--plot", "p.pdf"], "p.pdf: a plot is written as .svg or .png"),
    (["p.parquet", "--formula", FORMULA, "--out", "parts"], "parts"),
    (["p.parquet", "--formula", FORMULA, "--out", "m", "--plot", "m/p.svg"], "m/p.svg: a file among those"),
    (["p.parquet", "--formula", FORMULA, "--weights", "heavy"], "'heavy'"),
    (["p.parquet", "--formula", "score ~ hours | school", "--vcov", "magic"], "--vcov magic is not one of"),
    (["p.parquet", "--formula", "score ~ hours | school", "--vcov", "cluster"], "--cluster names no column"),
    (["p.parquet", "--formula", FORMULA, "--vcov", "hetero"], "--vcov and --cluster are for absorbed factors"),
    (["p.parquet", "--formula", FORMULA, "--absorb", "teacher"], "absorbed factors beside random terms"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[said for _, said in WRONG])
def test_one_sentence_says_what_is_wrong(leyden, data, arguments, said):
    before = sorted(data.rglob("*"))
    result = leyden("mixed", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert sorted(data.rglob("*")) == before
