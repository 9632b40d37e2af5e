"""No bound is below the truth, which mpmath finds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

from leyden.errors import DataError

_spec = importlib.util.spec_from_file_location("common", Path(__file__).with_name("common.py"))
common = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(common)


def problem(name):
    """Data, covariance and weights of a hostile problem; its random term is (1 + x | g)."""
    rng = np.random.default_rng(1)
    n, groups = 30, 4
    g, x, w = rng.integers(0, groups, n), rng.standard_normal(n), np.ones(n)
    g[:groups] = np.arange(groups)
    delta = np.array([[1.0, 0.3], [0.3, 0.5]])
    if name == "offset":
        x, delta = x + 1e8, delta * np.outer([1, 1e-8], [1, 1e-8])
    elif name == "large":
        x, delta = x * 1e8, delta * np.outer([1, 1e-8], [1, 1e-8])
    elif name == "small":
        x = x * 1e-8
    elif name == "singular":
        delta = np.ones((2, 2))
    elif name == "zero":
        delta = np.zeros((2, 2))
    elif name == "enormous":
        delta = delta * 1e12
    elif name == "tiny":
        delta = delta * 1e-12
    elif name == "one row a group":
        g = np.arange(n)
    elif name == "one group":
        g = np.zeros(n, int)
    elif name == "weights":
        w = 10.0 ** rng.integers(-6, 7, n)
    elif name == "identical rows":
        x = np.where(np.arange(n) == 0, 1.0, 2.0)
    y = 3 + 2 * x + rng.standard_normal(g.max() + 1)[g] + rng.standard_normal(n)
    return {"y": y, "x": x, "g": g, "w": w}, delta


HOSTILE = ["plain", "offset", "large", "small", "singular", "zero", "enormous", "tiny", "one row a group", "one group",
           "weights", "identical rows"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_bounds_are_not_below_the_truth(name):
    data, delta = problem(name)
    model = common.fit("y ~ x + (1 + x | g)", data, covariance=delta, weights="w")
    rows = np.stack([np.ones(len(data["y"])), data["x"]], axis=1)
    (factor,) = model.system.factors
    exact = common.Exact(rows, data["y"], [(rows, data["g"])], [factor], data["w"])
    bounds = {name: bound.value for name, bound in model.certificate.bounds.items()}
    sigma = mp.sqrt(mp.mpf(model.sigma2))
    inverse = mp.inverse(exact.h[:, :])
    for j in range(2):
        error = abs(mp.mpf(model.beta[j]) - exact.beta[j])
        assert error <= bounds["statistical_error"] * sigma * mp.sqrt(inverse[j, j]) * (1 + mp.mpf(10) ** -6)
    distance = mp.sqrt(sum((mp.mpf(model.beta[j]) - exact.beta[j]) ** 2 for j in range(2)))
    assert distance <= bounds["forward_error"] * mp.mpf(float(np.linalg.norm(model.beta))) * (1 + mp.mpf(10) ** -12)
    left = abs(model.system.coordinates.r[2, 2])
    if abs(np.linalg.det(factor)) > 0:
        turn = mp.inverse(mp.matrix(factor.tolist()))
        whitened = [list(turn * mp.matrix([mp.mpf(float(v)) for v in row])) for row in model.random()]
        assert exact.energy(model.beta, [whitened]) <= bounds["energy_error"] * left * (1 + mp.mpf(10) ** -12)
    if name not in ("offset", "large", "enormous"):
        assert model.certificate.holds


def test_covariances_beyond_all_digits_are_refused():
    data, _ = problem("plain")
    with pytest.raises(DataError, match="rounding leaves nothing positive definite"):
        common.fit("y ~ x + (1 + x | g)", {**data, "x": data["x"] * 1e8}, covariance=1.0)
