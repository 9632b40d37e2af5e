"""Standard deviations of predictions against Gaussian processes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct

import leyden as ly
from leyden.errors import OptionError

N, D = 500, 40


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 3))
    return x, np.sin(x[:, 0]) + 0.3 * rng.standard_normal(N)


@pytest.mark.parametrize("penalty", [1e-1, 1e-3, 1e-6])
def test_deviations_are_those_of_a_gaussian_process(problem, penalty):
    x, y = problem
    found = ly.kernel_machine(x, y, features=D, variance=True, regularization=penalty, held_out=0, tol=1e-8)
    points = 3 * np.random.default_rng(1).standard_normal((30, 3))
    z, new = (found.map(found.standard(p)).astype(float) for p in (x, points))
    sigma = float(found.noise[0])
    size = sigma / np.sqrt(penalty * N)
    process = GaussianProcessRegressor(DotProduct(0.0, "fixed"), alpha=sigma**2, optimizer=None)
    mean, deviation = process.fit(size * z, y - y.mean()).predict(size * new, return_std=True)
    f, std = found.predict(points, return_std=True)
    assert np.allclose(f, mean + y.mean(), atol=1e-3)
    assert np.allclose(std, deviation, rtol=2e-3)
    hat = np.trace(z @ np.linalg.solve(z.T @ z + penalty * N * np.eye(D), z.T))
    assert sigma**2 == pytest.approx(((found.predict(x) - y) ** 2).sum() / (N - hat), rel=1e-4)


def test_the_noise_is_found_and_targets_lie_within_their_deviations():
    rng = np.random.default_rng(2)
    x = rng.uniform(-2, 2, (4000, 2))
    y = np.stack([np.sin(2 * x[:, 0]), x[:, 1]], axis=1) + rng.standard_normal((4000, 2)) * [0.5, 0.1]
    found = ly.kernel_machine(x[:2000], y[:2000], features=100, width=1.0, regularization=1e-4, variance=True)
    assert np.allclose(found.noise, [0.5, 0.1], rtol=0.08)
    mean, std = found.predict(x[2000:], return_std=True)
    assert mean.shape == std.shape == (2000, 2)
    inside = np.abs(mean - y[2000:]) <= 1.96 * np.sqrt(std**2 + found.noise**2)
    assert np.all(np.abs(inside.mean(axis=0) - 0.95) < 0.02)


def test_a_path_keeps_the_factor_of_the_penalty_that_was_chosen(problem):
    x, y = problem
    path = ly.kernel_machine(x, y, features=D, variance=True, regularization=[1e-6, 1e-3, 1.0])
    alone = ly.kernel_machine(x, y, features=D, variance=True, regularization=path.regularization)
    assert np.allclose(path.predict(x, return_std=True)[1], alone.predict(x, return_std=True)[1], rtol=1e-6)


def test_the_factor_is_saved_and_verified(problem, tmp_path):
    x, y = problem
    found = ly.kernel_machine(x, y, features=D, variance=True)
    found.save(tmp_path / "machine")
    again = ly.load(tmp_path / "machine")
    assert np.array_equal(again.predict(x, return_std=True)[1], found.predict(x, return_std=True)[1])
    assert ly.verify(again, x, y).holds
    again.posterior.factor[3] *= 1.1
    assert any("factor" in failure for failure in ly.verify(again, x, y).failures)


@pytest.mark.parametrize("estimator", [ly.KernelRidge, ly.KernelRidgeCV])
def test_estimators_give_them_as_scikit_learn_does(problem, estimator):
    x, y = problem
    found = estimator(features=D, variance=True).fit(x, y)
    mean, std = found.predict(x, return_std=True)
    assert np.array_equal(mean, found.predict(x))
    assert std.shape == (N,)
    assert (std > 0).all()


def test_what_has_no_variance_says_so(problem):
    x, y = problem
    with pytest.raises(OptionError, match="variance=True"):
        ly.kernel_machine(x, y, features=D).predict(x, return_std=True)
    with pytest.raises(OptionError, match="of a regression"):
        ly.kernel_machine(x, y > 0, features=D, classify=True, variance=True)
    with pytest.raises(OptionError, match="12,000 features at most"):
        ly.kernel_machine(x, y, features=14_000, variance=True)
