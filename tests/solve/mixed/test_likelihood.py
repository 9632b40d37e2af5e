"""The likelihood from sums is that of the normal distribution of all rows, and its gradient its derivative."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

_spec = importlib.util.spec_from_file_location("common", Path(__file__).with_name("common.py"))
common = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(common)

MODELS = {
    "intercepts": ("(1 | g)", [("g", "1")]),
    "slopes": ("(1 + x | g)", [("g", "1x")]),
    "uncorrelated": ("(1 + x || g)", [("g", "1x")]),
    "crossed": ("(1 + x | g) + (1 | h)", [("g", "1x"), ("h", "1")]),
    "nested": ("(1 | h/g)", [("h:g", "1"), ("h", "1")]),
}


def dense(data, terms, weighted):
    n = len(data["y"])
    columns = {"1": np.ones(n), "x": data["x"]}
    built = []
    for group, names in terms:
        key = data["h"] * 1000 + data["g"] if group == "h:g" else data[group]
        built.append((np.stack([columns[c] for c in names], axis=1), np.unique(key, return_inverse=True)[1]))
    x = np.stack([np.ones(n), data["x"]], axis=1)
    return common.Dense(x, data["y"], built, data["w"] if weighted else None)


@pytest.mark.parametrize("method", ["ML", "REML"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_density_of_all_rows(name, weighted, method):
    formula, terms = MODELS[name]
    data = common.crossed()
    model = common.fit(f"y ~ x + {formula}", data, method=method, weights="w" if weighted else None)
    truth = dense(data, terms, weighted)
    order = [term.name for term in model.system.design.random]
    for shift in (0.0, 0.3):
        theta = model.theta + shift
        factors = model.objective.factors(theta)
        deltas = [factors[order.index(group)] for group, _ in terms]
        expected = truth.minus_twice([f @ f.T for f in deltas], method == "REML")
        assert model.objective.value(theta) == pytest.approx(expected, rel=1e-10)
    assert model.log_likelihood == pytest.approx(-model.objective.value(model.theta) / 2, rel=1e-12)


@pytest.mark.parametrize("method", ["ML", "REML"])
@pytest.mark.parametrize("name", MODELS)
def test_its_gradient_is_its_derivative(name, method):
    model = common.fit(f"y ~ x + {MODELS[name][0]}", common.crossed(), method=method, weights="w")
    theta = model.theta + 0.2
    _, gradient = model.objective.both(theta)
    h = 1e-5
    for j in range(len(theta)):
        away = h * np.eye(len(theta))[j]
        slope = (model.objective.value(theta + away) - model.objective.value(theta - away)) / (2 * h)
        assert gradient[j] == pytest.approx(slope, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_predictions_and_their_errors_are_those_of_hendersons_equations(name):
    formula, terms = MODELS[name]
    data = common.crossed()
    model = common.fit(f"y ~ x + {formula}", data, weights="w")
    truth = dense(data, terms, True)
    deltas = [model.groupings[group].covariance / model.sigma2 for group, _ in terms]
    assert min(np.linalg.eigvalsh(delta)[0] for delta in deltas) > 1e-8  # the equations need their inverses
    beta, effects, inverse = truth.henderson(deltas)
    np.testing.assert_allclose(model.beta, beta, rtol=1e-8)
    np.testing.assert_allclose(model.covariance_fixed, model.sigma2 * inverse[:2, :2], rtol=1e-8)
    at = 2
    for (group, names), own in zip(terms, effects, strict=True):
        found = model.groupings[group]
        order = np.argsort([tuple(map(int, str(i).split(":"))) for i in found.ids.take(np.arange(len(own)))], axis=0)
        rank = np.lexsort(np.array([tuple(map(int, str(i).split(":"))) for i in found.ids.take(np.arange(len(own)))])
                          .T[::-1]) if ":" in group else order[:, 0]  # fmt: skip
        np.testing.assert_allclose(found.effects[rank], own, atol=1e-8)
        for i, number in enumerate(rank):
            place = slice(at + i * len(names), at + (i + 1) * len(names))
            np.testing.assert_allclose(
                found.uncertainty[number], model.sigma2 * inverse[place, place], rtol=1e-7, atol=1e-10
            )
        at += own.size
