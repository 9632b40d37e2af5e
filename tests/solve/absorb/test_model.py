"""Regressions with absorbed factors, from formula to page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import leyden as ly


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 3000
    worker, firm = rng.integers(0, 150, n), rng.integers(0, 25, n)
    found = pd.DataFrame(
        {
            "worker": worker,
            "firm": [f"firm {i}" for i in firm],
            "x": rng.standard_normal(n) + 0.1 * worker,
            "kind": rng.choice(["a", "b", "c"], n),
            "w": rng.random(n) + 0.1,
        }
    )
    found["y"] = 2 * found.x + rng.standard_normal(150)[worker] + rng.standard_normal(25)[firm] + rng.standard_normal(n)
    return found


def dummies(data: pd.DataFrame, *names: str) -> np.ndarray:
    return np.concatenate([pd.get_dummies(data[name]).to_numpy(float) for name in names], axis=1)


def test_coefficients_are_those_of_a_regression_with_dummies(data: pd.DataFrame) -> None:
    model = ly.mixed("y ~ x + kind | worker + firm", data, weights="w")
    kinds = pd.get_dummies(data["kind"]).to_numpy(float)[:, 1:]
    design = np.concatenate([data[["x"]].to_numpy(), kinds, dummies(data, "worker", "firm")], axis=1)
    root = np.sqrt(data["w"].to_numpy())[:, None]
    beta = np.linalg.lstsq(design * root, data["y"].to_numpy() * root[:, 0], rcond=None)[0]
    assert list(model.fixed) == ["x", "kind[T.b]", "kind[T.c]"]
    np.testing.assert_allclose(model.beta, beta[:3], rtol=1e-8)
    assert model.certificate.holds
    fitted = model.effects(data["worker"], "worker") + model.effects(data["firm"].tolist(), "firm")
    np.testing.assert_allclose(fitted, design[:, 3:] @ beta[3:], atol=1e-6)


def test_classical_standard_errors_count_every_level_that_is_determined(data: pd.DataFrame) -> None:
    model = ly.mixed("y ~ x | worker + firm", data)
    design = np.concatenate([data[["x"]].to_numpy(), dummies(data, "worker", "firm")], axis=1)
    y = data["y"].to_numpy()
    beta, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    variance = ((y - design @ beta) ** 2).sum() / (len(y) - rank)
    assert model.parameters == rank
    assert model.standard_errors["x"] == pytest.approx(np.sqrt(variance * np.linalg.pinv(design.T @ design)[0, 0]))


def test_a_list_of_factors_says_what_the_bar_says(data: pd.DataFrame) -> None:
    bar = ly.mixed("y ~ x | worker + firm", data)
    for other in (
        ly.mixed("y ~ x", data, absorb=["worker", "firm"]),
        ly.mixed(data, target="y", fixed=["x"], absorb=["worker", "firm"]),
    ):
        assert other.fixed == bar.fixed
        assert other.formula == bar.formula


@pytest.mark.parametrize("options", [{}, {"vcov": "hetero"}, {"vcov": "cluster", "cluster": ["firm", "worker"]}])
def test_a_saved_model_is_verified_and_one_that_was_changed_is_not(data, options, tmp_path) -> None:
    model = ly.mixed("y ~ x + kind | worker + firm", data, **options)
    model.save(tmp_path / "model")
    again = ly.load(tmp_path / "model")
    assert again.summary() == model.summary()
    assert ly.verify(again, data).holds
    again.beta[0] *= 1 + 1e-6
    assert not ly.verify(again, data).holds
    assert not ly.verify(model, data.assign(y=data.y + 1e-4 * data.x)).holds


def test_names_with_spaces_are_verified_as_well(data, tmp_path) -> None:
    spaced = data.rename(columns={"x": "the x", "worker": "the worker"})
    model = ly.mixed(spaced, target="y", fixed=["the x"], absorb=["the worker", "firm"])
    model.save(tmp_path / "model")
    assert ly.verify(tmp_path / "model", spaced).holds


def test_what_takes_one_machine_says_so(data, tmp_path) -> None:
    with pytest.raises(ly.OptionError, match="checkpoint= is not for absorbed factors"):
        ly.mixed("y ~ x | worker + firm", data, checkpoint=tmp_path)


def test_the_page_says_what_was_left_out_and_what_hangs_together(data: pd.DataFrame) -> None:
    apart = data.assign(firm=data.firm.where(data.worker < 75, "other " + data.firm), twice=2 * data.x)
    page = ly.mixed("y ~ x + twice | worker + firm", apart).summary()
    assert "2 connected parts" in page
    assert "left out, being combinations of the factors and others: twice" in page


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"vcov": "cluster"}, "cluster= names no column"),
        ({"cluster": "firm"}, "cluster= is for vcov='cluster'"),
        ({"vcov": "cluster", "cluster": ["firm", "worker", "kind"]}, "3 cluster variables"),
        ({"vcov": "robust"}, "vcov='robust' is not one of"),
        ({"absorb": ["nobody"]}, "nobody"),
    ],
)
def test_what_cannot_be_done_is_said(data: pd.DataFrame, change: dict, sentence: str) -> None:
    with pytest.raises(ly.LeydenError, match=sentence):
        ly.mixed("y ~ x | worker + firm", data, **change)


def test_random_terms_and_absorbed_factors_do_not_mix(data: pd.DataFrame) -> None:
    with pytest.raises(ly.OptionError, match="beside random terms"):
        ly.mixed("y ~ x + (1 | worker) | firm", data)


@pytest.mark.parametrize("weights", [None, "w"])
def test_crossed_random_intercepts_are_the_same_by_factors_and_by_iterations(
    data, weights, monkeypatch, tmp_path
) -> None:
    given = {"worker": 0.7, "firm": 0.4}
    formula = "y ~ x + kind + (1 | worker) + (1 | firm)"
    exact = ly.mixed(formula, data, covariance=given, weights=weights)
    assert isinstance(exact, ly.MixedModel)
    monkeypatch.setattr("leyden.solve.mixed.model.MOST_FACTORED", 5)
    found = ly.mixed(formula, data, covariance=given, weights=weights, tol=1e-10)
    assert isinstance(found, ly.FixedEffects)
    assert found.certificate.holds
    for name, value in exact.fixed.items():
        assert found.fixed[name] == pytest.approx(value, rel=1e-8)
        assert found.standard_errors[name] == pytest.approx(exact.standard_errors[name], rel=1e-7)
    for group in given:
        np.testing.assert_allclose(found.random(group=group), exact.random(group=group), atol=1e-8)
    assert "variances relative to that of the noise: worker 0.7, firm 0.4" in found.summary()
    found.save(tmp_path / "model")
    assert ly.verify(tmp_path / "model", data).holds
    assert not ly.verify(tmp_path / "model", data.assign(y=data.y + 1e-3 * data.x)).holds
