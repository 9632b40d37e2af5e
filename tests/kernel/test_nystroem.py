"""Features of centres: the kernel between them, and nowhere longer than it."""

from __future__ import annotations

import numpy as np
import pytest

import leyden as ly
from leyden.engine.reduction import Scratch
from leyden.errors import BudgetError, OptionError
from leyden.kernel.kernels import NAMES, Kernel
from leyden.kernel.maps import make, restore
from leyden.kernel.nystroem import JITTER, of_products

MAPS = ["nystroem", "nystroem-uniform"]


def points(m, d, seed=0):
    return np.random.default_rng(seed).standard_normal((m, d)).astype(np.float32)


@pytest.mark.parametrize("kernel", NAMES)
@pytest.mark.parametrize("name", MAPS)
def test_inner_products_are_those_of_the_centres(kernel, name):
    sample, x, kernel = points(200, 3), points(60, 3, 1), Kernel(kernel, np.array([1.0, 2.0, 3.0]))
    made = make(name, kernel, 3, 40, 2, sample=sample)
    c = made.arrays()["centres"]
    assert {tuple(row) for row in c.tolist()} <= {tuple(row) for row in sample.tolist()}
    inner = kernel(c, c)
    inner += JITTER * inner.diagonal().mean() * np.eye(len(c))
    exact = kernel(x, c) @ np.linalg.solve(inner, kernel(c, x))
    z = made(x).astype(float)
    assert np.abs(z @ z.T - exact).max() <= 5e-3 * kernel.diagonal(x).max()
    assert ((z * z).sum(axis=1) <= (1 + 1e-6) * kernel.diagonal(x)).all()
    # At the centres themselves it is the kernel, but for the jitter.
    z = made(c).astype(float)
    assert np.abs(z @ z.T - kernel(c, c)).max() <= 5e-3 * kernel.diagonal(c).max()


@pytest.mark.parametrize("kernel", NAMES)
@pytest.mark.parametrize("name", MAPS)
def test_features_are_the_same_in_any_tile_and_come_back_from_what_was_saved(kernel, name):
    sample, x = points(150, 3), points(250, 3, 1)
    made, scratch = make(name, Kernel(kernel, 2.0), 3, 50, 2, sample=sample), Scratch()
    z = made(x)
    for first, last in ((0, 1), (1, 98), (98, 250)):
        out = np.empty((last - first, made.size), np.float32)
        made.fill(x[first:last], out, scratch)
        assert np.array_equal(out, z[first:last])
    assert np.array_equal(restore(made.to_json(), made.arrays())(x), z)
    assert np.array_equal(make(name, Kernel(kernel, 2.0), 3, 50, 2, sample=sample)(x), z)
    assert not np.array_equal(make(name, Kernel(kernel, 2.0), 3, 50, 3, sample=sample)(x), z)


def test_the_smoother_arc_cosine_kernel_is_as_exact_as_cosines_are():
    x = np.column_stack([3 * points(80, 3), np.ones(80)])
    x = np.vstack([x, x[:40] + 1e-4 * points(40, 4, 1), -x[:40]]).astype(np.float32)
    a = np.linalg.norm(x, axis=1)
    found = of_products(x @ x.T, a, a)
    u = x / np.linalg.norm(x.astype(float), axis=1)[:, None]
    t = np.arccos(np.clip(u @ u.T, -1, 1))
    exact = (np.sin(t) + (np.pi - t) * np.cos(t)) / np.pi
    assert (np.abs(found / np.multiply.outer(a, a) - exact) <= 2e-6).all()


def test_pivots_leave_less_of_clustered_points_than_uniform_centres():
    random = np.random.default_rng(0)
    x = np.concatenate([0.1 * random.standard_normal((950, 2)), 5 * random.standard_normal((50, 2))])
    x, kernel = x.astype(np.float32), Kernel("gaussian", 1.0)

    def left(name):
        return np.mean([1000 - (make(name, kernel, 2, 60, seed, sample=x)(x) ** 2).sum() for seed in range(5)])

    assert left("nystroem") < 0.3 * left("nystroem-uniform")


@pytest.mark.parametrize("name", MAPS)
def test_centres_are_no_more_than_there_are_points_that_differ(name):
    sample = np.repeat(points(7, 2), 30, axis=0)
    made = make(name, Kernel("gaussian", 1.0), 2, 50, sample=sample)
    assert made.size <= 7
    assert made(sample).shape == (210, made.size)
    x, y = np.repeat(points(7, 2), 30, axis=0), np.repeat(points(7, 1, 1)[:, 0], 30)
    found = ly.kernel_machine(x, y, map=name, features=50, regularization=1e-8, held_out=0)
    assert found.certificate.holds
    assert found.map.size <= 7
    if name == "nystroem":
        assert np.abs(found.predict(x) - y).max() < 1e-3


@pytest.mark.parametrize("method", ["cg", "gram"])
@pytest.mark.parametrize("kernel", ["gaussian", "matern32", "arccos1", "polynomial"])
def test_machines_on_them_are_certified(method, kernel):
    x, n = points(800, 3) * [1, 10, 0.1], 800
    y = np.sin(2 * x[:, 0]) + 0.05 * x[:, 1]
    found = ly.kernel_machine(
        x, y, kernel=kernel, map="nystroem", features=100, regularization=1e-5, method=method, held_out=0, tol=1e-5
    )
    assert found.certificate.holds
    z = found.map(found.standard(x)).astype(float)
    best = np.linalg.solve(z.T @ z + 1e-5 * n * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    new = 3 * points(200, 3, 1) * [1, 10, 0.1]
    there = found.map(found.standard(new)).astype(float)
    away = np.abs(found.predict(new) - y.mean() - there @ best)
    bounds = found.certificate.bounds
    if found.kernel.bounded:
        assert away.max() <= bounds["score_error"].value + 1e-6
    else:
        assert (away / np.linalg.norm(there, axis=1)).max() <= bounds["score_error_per_length"].value + 1e-6


def test_a_machine_of_enough_centres_is_the_exact_one():
    x = points(400, 2)
    y = np.sin(2 * x[:, 0]) * x[:, 1]
    options = {"regularization": 1e-4, "held_out": 0, "width": 1.5, "tol": 1e-6}
    found = ly.kernel_machine(x, y, map="nystroem", features=200, **options)
    exact = ly.kernel_machine(x, y, features="exact", **options)
    new = points(100, 2, 5)
    assert np.abs(found.predict(new) - exact.predict(new)).max() < 2e-3
    random = ly.kernel_machine(x, y, features=200, **options)
    assert found.exact_distance(x, y).value < 0.1 * random.exact_distance(x, y).value


def test_machines_on_them_are_saved_verified_and_the_same_whatever_the_threads(tmp_path):
    x = points(700, 3)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    options = {"classify": True, "map": "nystroem", "features": 80, "regularization": 1e-4, "scale": [1.0, 0.5]}
    for loss in ("squared", "logistic"):
        found = ly.kernel_machine(x, y, loss=loss, threads=1, **options)
        assert found.certificate.holds
        assert found.verify(x, y).holds
        found.save(tmp_path / loss)
        again = ly.load(tmp_path / loss)
        assert np.array_equal(again.decision_function(x), found.decision_function(x))
        assert np.array_equal(again.map.arrays()["centres"], found.map.arrays()["centres"])
        two = ly.kernel_machine(x, y, loss=loss, threads=2, **options)
        assert np.array_equal(two.w, found.w)
        again.map.centres[0] += 1.0
        again.map = restore(again.map.to_json(), again.map.arrays())
        assert not again.verify(x, y).holds


def test_what_has_no_points_or_takes_too_much_is_refused():
    with pytest.raises(OptionError, match="of points, and there are none"):
        make("nystroem", Kernel("gaussian"), 3, 10)
    x, y = points(20_000, 2), points(20_000, 1)[:, 0]
    plan = ly.plan.kernel_machine(x, y, map="nystroem", features=2000)
    assert plan.peak > ly.plan.kernel_machine(x, y, features=2000).peak
    assert plan.seconds > ly.plan.kernel_machine(x, y, features=2000).seconds
    with pytest.raises(BudgetError, match="too small"):
        ly.plan.kernel_machine(x, y, map="nystroem", features=4000, memory="300MB")
