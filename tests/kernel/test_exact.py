"""Exact kernel machines against dense algebra, and the distance of others from them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge as Dense

import leyden as ly
from leyden.errors import BudgetError, OptionError
from leyden.kernel import distance, exact
from leyden.kernel.kernels import NAMES, Kernel
from leyden.kernel.pivoted import Pivoted, factor
from leyden.kernel.points import Points

N = 700


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 3)) * [1, 10, 0.1] + [0, 5, 100]
    return x, np.sin(2 * x[:, 0]) + 0.05 * x[:, 1] + 0.1 * rng.standard_normal(N)


def hard(name, width, scale=1.0):
    """Points in clusters, some of them the same."""
    rng = np.random.default_rng(1)
    x = scale * np.repeat(rng.standard_normal((60, 3)), 4, axis=0)
    x[::2] += 1e-4 * rng.standard_normal((120, 3))
    return Points(Kernel(name, width), x.astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_tiles_are_the_kernel_but_for_rounding(name, scale):
    points = hard(name, np.array([0.5, 1.0, 2.0]), scale)
    truth = points.kernel(points.points, points.points)
    u = points.points.astype(np.longdouble) / points.kernel.width
    assert np.abs(points.similarities(points.points) - truth).max() <= points.rounding()
    if name == "gaussian":
        truth = np.exp(-((u[:, None] - u) ** 2).sum(axis=2) / 2)
        assert np.abs(points.similarities(points.points) - truth).max() <= points.rounding()
    single = points.similarities(points.points, np.float32)
    assert single.dtype == np.float32
    assert np.abs(single - truth).max() <= 5e-3 * max(scale, 1) * points.most


@pytest.mark.parametrize(
    ("kernel", "penalty"),
    [(k, p) for k in ("gaussian", "matern12", "laplacian", "arccos0", "arccos1") for p in (1e-1, 1e-4, 1e-8)]
    + [("polynomial", 1e-1), ("polynomial", 1e-4)],
)
def test_the_system_is_solved_and_certified(problem, kernel, penalty):
    x, y = problem
    y = np.stack([y, x[:, 2]], axis=1)
    found = ly.kernel_machine(
        x, y, features="exact", kernel=kernel, regularization=penalty, held_out=0, tol=1e-5, memory="1GB"
    )
    points = found.standard(x)
    k, centred = found.kernel(points, points), y - y.mean(axis=0)
    best = np.linalg.solve(k + penalty * N * np.eye(N), centred)

    def objective(alpha):
        return 0.5 * ((centred - k @ alpha) ** 2).sum(axis=0) + 0.5 * penalty * N * (alpha * (k @ alpha)).sum(axis=0)

    value, least = objective(found.w), objective(best)
    bounds = found.certificate.bounds
    assert found.certificate.holds
    # The difference of two objectives is known to their rounding.
    assert ((value - least) / value).max() <= bounds["duality_gap"].value + 1e-14
    assert bounds["duality_gap"].value <= 1e-5
    error = found.predict(x) - y.mean(axis=0) - k @ best
    assert np.sqrt((error**2).mean(axis=0)).max() <= bounds["fitted_error"].value
    new = np.random.default_rng(1).standard_normal((200, 3)) * [2, 20, 0.2] + [0, 5, 100]
    away = found.predict(new) - y.mean(axis=0) - found.kernel(found.standard(new), points) @ best
    if found.kernel.bounded:
        assert np.abs(away).max() <= bounds["score_error"].value
    else:
        lengths = np.sqrt(found.kernel.diagonal(found.standard(new)))
        assert (np.abs(away).max(axis=1) / lengths).max() <= bounds["score_error_per_length"].value


def test_it_is_the_machine_of_scikit_learn(problem):
    x, y = problem
    x, y = (x - x.mean(axis=0)) / x.std(axis=0), y - y.mean()
    mine = ly.KernelRidge("exact", width=2.0, regularization=1e-4, standardize=False, tol=1e-8).fit(x, y)
    theirs = Dense(alpha=1e-4 * N, kernel="rbf", gamma=1 / 8).fit(x, y)
    assert np.allclose(mine.predict(x), theirs.predict(x), atol=1e-3)
    assert mine.certificate_.holds


@pytest.mark.parametrize("penalty", [1.0, 1e-6])
def test_tiles_that_are_kept_and_made_again_give_the_same(problem, penalty):
    points = Points(Kernel("gaussian", 2.0), problem[0].astype(np.float32) / [1, 10, 0.1] - [0, 0.5, 1000])
    p = np.random.default_rng(0).standard_normal((N, 2))
    kept, made = exact.KernelMatrix(points, 10**9, 2), exact.KernelMatrix(points, 0, 1)
    assert kept.kept is not None
    assert made.kept is None
    truth = points.kernel(points.points, points.points) @ p
    assert np.array_equal(kept.times(p), made.times(p))
    assert np.allclose(kept.times(p), truth, atol=1e-3)
    assert np.allclose(made.exactly(p), truth, atol=1e-10)


@pytest.mark.parametrize("name", ["gaussian", "laplacian"])
def test_pivots_leave_little_of_the_kernel(name):
    points = hard(name, 2.0)
    k = points.kernel(points.points, points.points)
    f, _ = factor(points, 150, 0)
    left = k - f @ f.T
    values = np.linalg.eigvalsh(k)[::-1]
    assert np.linalg.eigvalsh(left).min() > -1e-7
    assert np.trace(left) <= 3 * values[60:].sum() + 1e-9
    r = np.random.default_rng(0).standard_normal((240, 2))
    assert np.allclose(Pivoted(f, 0.1)(r), np.linalg.solve(f @ f.T + 0.1 * np.eye(240), r))


def test_classes_rows_held_out_and_saving(problem, tmp_path):
    x, y = problem
    labels = np.digitize(y, [-0.3, 0.3])
    found = ly.kernel_machine(x, labels, classify=True, features="exact", held_out=0.2, regularization=1e-3)
    assert found.weight + len(found.scores) == N
    assert found.certificate.bounds["error"].value < 0.5
    assert np.allclose(found.predict_proba(x).sum(axis=1), 1)
    found.save(tmp_path / "machine")
    again = ly.load(tmp_path / "machine")
    assert np.array_equal(again.decision_function(x), found.decision_function(x))
    assert ly.verify(again, x, labels).holds
    again.w[3] += 1.0
    assert not ly.verify(again, x, labels).holds
    assert not ly.verify(found, 2 * x, labels).holds


def test_the_distance_of_random_features_is_never_below_the_truth(problem, monkeypatch):
    x, y = problem
    distances = []
    for features in (40, 400):
        found = ly.kernel_machine(x, y, features=features, regularization=1e-3, held_out=0.1, tol=1e-6)
        fitted = found.split.rows_fitted(ly.open(x).read(0, N))
        points, centred = found.standard(x[fitted]), y[fitted] - y[fitted].mean()
        k = found.kernel(points, points)
        best = k @ np.linalg.solve(k + 1e-3 * len(k) * np.eye(len(k)), centred) + y[fitted].mean()
        truth = np.sqrt(np.mean((found.predict(x[fitted]) - best) ** 2))
        bound = found.exact_distance(x, y)
        assert truth <= bound.value <= 1.05 * truth + 1e-3
        distances.append(bound.value)
        with monkeypatch.context() as change:
            change.setattr(distance, "MOST", 10)
            change.setattr(distance, "SAMPLED", 500)
            sampled = found.exact_distance(x, y)
        assert sampled.grade == "measured"
        assert truth <= 1.2 * sampled.value
    assert distances[1] < distances[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variance": True}, "no folds, variance"),
        ({"regularization": [1e-3, 1e-4]}, "one penalty"),
        ({"folds": 3}, "no folds"),
        ({"weights": np.ones(N)}, "no weights"),
        ({"method": "cg"}, "or method"),
    ],
)
def test_what_an_exact_machine_is_not_is_said(problem, options, message):
    with pytest.raises(OptionError, match=message):
        ly.kernel_machine(*problem, features="exact", **options)


def test_rows_that_are_too_many_are_refused(problem):
    x, y = problem
    with pytest.raises(OptionError, match="50,000 rows at most"):
        ly.kernel_machine(np.zeros((60_000, 1)), np.zeros(60_000), features="exact")
    with pytest.raises(OptionError, match="not one of exact"):
        ly.kernel_machine(x, y, features="all")
    with pytest.raises(BudgetError, match="Random features"):
        ly.kernel_machine(x, y, features="exact", memory="1MB")
