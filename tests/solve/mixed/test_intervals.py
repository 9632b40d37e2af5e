"""Profile intervals end where −2 log-likelihood has risen by a quantile of χ²; Wald ones are symmetric."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

_spec = importlib.util.spec_from_file_location("common", Path(__file__).with_name("common.py"))
common = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(common)

RISE = 3.841458820694124


@pytest.fixture(scope="module")
def fitted():
    data = common.crossed()
    model = common.fit("y ~ x + (1 | g)", data, method="ML")
    x = np.stack([np.ones(120), data["x"]], axis=1)
    return model, x, data


def test_profile_of_a_fixed_effect(fitted):
    model, x, data = fitted
    least = -2 * model.log_likelihood
    for end in model.confidence_intervals(method="profile").fixed["x"]:
        held = common.Dense(x[:, :1], data["y"] - end * data["x"], [(x[:, :1], data["g"])])
        found = minimize_scalar(
            lambda s, held=held: held.minus_twice([[[s**2]]], False), bounds=(0, 10), method="bounded"
        )
        assert found.fun - least == pytest.approx(RISE, abs=1e-3)


def test_profile_of_a_standard_deviation(fitted):
    model, x, data = fitted
    least, dense = -2 * model.log_likelihood, common.Dense(x, data["y"], [(x[:, :1], data["g"])])
    for end in model.confidence_intervals(method="profile").deviations["g", "Intercept"]:
        found = minimize(
            lambda s, end=end: dense.minus_twice([[[end**2 * np.exp(-s[0])]]], False, np.exp(s[0])),
            [np.log(model.sigma2)], method="Nelder-Mead", options={"fatol": 1e-8},
        )  # fmt: skip
        assert found.fun - least == pytest.approx(RISE, abs=1e-3)


def test_wald_intervals_of_fixed_effects_are_estimates_and_standard_errors(fitted):
    model, *_ = fitted
    low, high = model.confidence_intervals().fixed["x"]
    assert (low + high) / 2 == pytest.approx(model.fixed["x"])
    assert high - low == pytest.approx(2 * 1.959963984540054 * model.standard_errors["x"])
