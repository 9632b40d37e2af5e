"""Tensor sketches: their kernel is the polynomial one on average, and they are those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_approximation import PolynomialCountSketch
from sklearn.metrics.pairwise import polynomial_kernel

import leyden as ly
from leyden.engine.reduction import Scratch
from leyden.errors import OptionError
from leyden.kernel.kernels import Kernel
from leyden.kernel.maps import make, restore


def points(m, d, seed=0):
    return np.random.default_rng(seed).standard_normal((m, d)).astype(np.float32)


@pytest.mark.parametrize(("degree", "constant", "width"), [(1, 0.0, 1.0), (3, 1.0, 2.0), (5, 0.5, 0.7)])
def test_the_kernel_is_that_of_scikit_learn(degree, constant, width):
    x, y = points(9, 4).astype(float), points(5, 4, 1).astype(float)
    kernel = Kernel("polynomial", width, degree, constant)
    assert np.allclose(kernel(x, y), polynomial_kernel(x, y, degree, 1 / width**2, constant))
    assert np.allclose(kernel.diagonal(x), np.diag(kernel(x, x)))


@pytest.mark.parametrize(("degree", "constant"), [(1, 1.0), (2, 0.0), (3, 1.0), (4, 0.3)])
def test_inner_products_of_features_are_the_kernel_on_average_over_draws(degree, constant):
    x = 0.5 * points(10, 4)
    kernel, found = Kernel("polynomial", np.array([0.8, 1.0, 1.5, 2.0]), degree, constant), []
    for seed in range(200):
        z = make("auto", kernel, 4, 33, seed)(x).astype(float)
        found.append(z @ z.T)
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(mean - kernel(x, x)) <= 5.5 * error + 1e-5 * np.abs(kernel(x, x)).max()).all()


@pytest.mark.parametrize("size", [1, 2, 50, 101])
def test_features_are_those_of_scikit_learn_with_the_same_hashes(size):
    x = points(60, 5)
    made = make("tensorsketch", Kernel("polynomial", 1.3, 3, 0.7), 5, size, 4)
    theirs = PolynomialCountSketch(gamma=1 / 1.3**2, degree=3, coef0=0.7, n_components=size).fit(x.astype(float))
    theirs.indexHash_, theirs.bitHash_ = made.places.astype(int), made.signs.astype(int)
    expected = theirs.transform(x.astype(float))
    assert np.abs(made(x) - expected).max() <= 1e-6 * np.linalg.norm(expected, axis=1).max() + 1e-6


def test_the_variance_is_within_what_the_theorem_says():
    x, kernel = points(30, 6), Kernel("polynomial", 3.0, 2, 1.0)
    exact, most = kernel(x, x), np.multiply.outer(kernel.diagonal(x), kernel.diagonal(x))
    for size in (64, 1024):
        z = [make("auto", kernel, 6, size, seed)(x).astype(float) for seed in range(30)]
        variance = np.mean([(f @ f.T - exact) ** 2 for f in z], axis=0)
        assert (variance / most).mean() <= 3**2 / size


def test_features_are_the_same_in_any_tile_and_come_back_from_what_was_saved():
    made, x, scratch = make("auto", Kernel("polynomial", 2.0, 3, 0.5), 4, 77, 3), points(250, 4), Scratch()
    z = made(x)
    for first, last in ((0, 1), (1, 98), (98, 250)):
        out = np.empty((last - first, 77), np.float32)
        made.fill(x[first:last], out, scratch)
        assert np.array_equal(out, z[first:last])
    again = restore(made.to_json(), made.arrays())
    assert (again.kernel.degree, again.kernel.constant) == (3, 0.5)
    assert np.array_equal(again(x), z)
    assert not np.array_equal(make("auto", made.kernel, 4, 77, 4)(x), z)


@pytest.mark.parametrize("method", ["cg", "gram"])
def test_machines_on_them_are_certified(method):
    x, n = points(900, 4) * [1, 10, 0.1, 3], 900
    y = x[:, 0] * x[:, 3] + 0.05 * x[:, 1] ** 2
    found = ly.kernel_machine(
        x, y, kernel="polynomial", degree=2, features=150, regularization=1e-4, method=method, held_out=0, tol=1e-6
    )
    assert found.certificate.holds
    assert found.map.name == "tensorsketch"
    z = found.map(found.standard(x)).astype(float)
    best = np.linalg.solve(z.T @ z + 1e-4 * n * np.eye(150), z.T @ (y - y.mean()))
    new = 5 * points(300, 4, 1) * [1, 10, 0.1, 3]
    there = found.map(found.standard(new)).astype(float)
    away = np.abs(found.predict(new) - y.mean() - there @ best)
    bound = found.certificate.bounds["score_error_per_length"]
    assert (away / np.linalg.norm(there, axis=1)).max() <= bound.value + 1e-9
    assert "score_error" not in found.certificate.bounds
    assert found.error(x, y) < 0.05


def test_machines_on_them_are_saved_verified_and_the_same_whatever_the_threads(tmp_path):
    x = points(700, 3)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    options = {"classify": True, "kernel": "polynomial", "degree": 2, "constant": 0.5, "features": 90}
    options |= {"regularization": 1e-4}
    for loss in ("squared", "logistic"):
        found = ly.kernel_machine(x, y, loss=loss, threads=1, **options)
        assert found.certificate.holds
        assert found.verify(x, y).holds
        found.save(tmp_path / loss)
        again = ly.load(tmp_path / loss)
        assert np.array_equal(again.decision_function(x), found.decision_function(x))
        assert again.kernel.degree == 2
        assert again.kernel.constant == 0.5
        two = ly.kernel_machine(x, y, loss=loss, threads=2, **options)
        assert np.array_equal(two.w, found.w)


def test_estimators_take_the_degree_and_the_constant():
    x = points(500, 3)
    y = x[:, 0] * x[:, 1]
    options = {"kernel": "polynomial", "features": 200, "degree": 2, "constant": 0.2}
    assert ly.KernelRidge(**options).fit(x, y).score(x, y) > 0.99
    assert ly.KernelRidgeCV(**options).fit(x, y).score(x, y) > 0.99
    assert ly.KernelClassifier(**options).fit(x, y > 0).score(x, y > 0) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "polynomial", "degree": 0}, "whole number from 1"),
        ({"kernel": "polynomial", "constant": -1.0}, "zero or more"),
        ({"kernel": "polynomial", "map": "orthogonal"}, "has no frequencies"),
        ({"kernel": "gaussian", "map": "tensorsketch"}, 'of polynomial kernels.*kernel="polynomial"'),
    ],
)
def test_what_sketches_are_not_for_is_said(options, message):
    with pytest.raises(OptionError, match=message):
        ly.kernel_machine(points(50, 2), points(50, 1)[:, 0], **options)
