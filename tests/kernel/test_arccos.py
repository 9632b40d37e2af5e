"""Steps and ramps along random directions: their kernels are the arc-cosine ones."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import leyden as ly
from leyden.engine.reduction import Scratch
from leyden.errors import OptionError
from leyden.kernel import machine
from leyden.kernel.kernels import Kernel
from leyden.kernel.maps import make, restore
from leyden.kernel.widths import Learned

ORDERS = ["arccos0", "arccos1"]
WIDTH = np.array([0.8, 1.0, 1.5, 2.0])


def points(m, d, seed=0):
    return np.random.default_rng(seed).standard_normal((m, d)).astype(np.float32)


@pytest.mark.parametrize("name", ORDERS)
def test_the_kernel_is_what_it_is_defined_as_near_and_far(name):
    x = np.vstack([points(3, 2), 1e4 * points(1, 2, 3)]).astype(float)
    x = np.vstack([x, x[:1] + 1e-9, -x[3:]])
    kernel = Kernel(name, np.array([0.5, 2.0]))
    found = kernel(x, x)
    with mpmath.workdps(50):
        lifted = [[mpmath.mpf(a) / 0.5, mpmath.mpf(b) / 2, mpmath.mpf(1)] for a, b in x.tolist()]
        for i, u in enumerate(lifted):
            for j, v in enumerate(lifted):
                a, b = mpmath.norm(u), mpmath.norm(v)
                t = mpmath.acos(min(1, mpmath.fdot(u, v) / (a * b)))
                exact = 1 - t / mpmath.pi
                if name == "arccos1":
                    exact = a * b * (mpmath.sin(t) + (mpmath.pi - t) * mpmath.cos(t)) / mpmath.pi
                assert abs(found[i, j] - exact) <= 1e-14 * (1 if name == "arccos0" else a * b)
    assert np.allclose(kernel.diagonal(x), np.diag(found))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("draw", ["orthogonal", "plain", "qmc"])
def test_inner_products_of_features_are_the_kernel_on_average_over_draws(name, draw):
    x, kernel, found = 0.7 * points(12, 4), Kernel(name, WIDTH), []
    for seed in range(40):
        z = make(draw, kernel, 4, 64, seed)(x).astype(float)
        found.append(z @ z.T)
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(mean - kernel(x, x)) <= 5.5 * error + 1e-6).all()


@pytest.mark.parametrize("name", ORDERS)
def test_orthogonal_directions_vary_less_than_plain_ones(name):
    x, kernel = 0.5 * points(40, 8), Kernel(name, 2.0)

    def error(draw):
        z = [make(draw, kernel, 8, 256, seed)(x) for seed in range(20)]
        return np.mean([(f @ f.T - kernel(x, x)) ** 2 for f in z])

    assert error("orthogonal") < 0.9 * error("plain")


@pytest.mark.parametrize("name", ORDERS)
def test_features_are_steps_and_ramps_and_the_same_in_any_tile(name):
    made, x = make("auto", Kernel(name, WIDTH), 4, 101, 3), points(250, 4)
    z, scratch = made(x), Scratch()
    p = np.column_stack([x, np.ones(250)]).astype(float) @ made.w
    twin = np.maximum(p, 0) if name == "arccos1" else np.sqrt(2 / 101) * (p > 0)
    assert np.abs(z - twin)[np.abs(p) > 1e-5].max() < 1e-5
    for first, last in ((0, 1), (1, 98), (98, 250)):
        out = np.empty((last - first, 101), np.float32)
        made.fill(x[first:last], out, scratch)
        assert np.array_equal(out, z[first:last])
    assert np.array_equal(restore(made.to_json(), made.arrays())(x), z)
    assert np.linalg.norm(z, axis=1).max() <= made.bound


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("method", ["cg", "gram"])
def test_machines_on_them_are_certified(name, method):
    x, n = points(800, 4) * [1, 10, 0.1, 3], 800
    y = np.abs(x[:, 0]) + 0.05 * x[:, 1]
    found = ly.kernel_machine(
        x, y, kernel=name, features=60, regularization=1e-3, method=method, held_out=0, tol=1e-6
    )  # fmt: skip
    assert found.certificate.holds
    z = found.map(found.standard(x)).astype(float)
    best = np.linalg.solve(z.T @ z + 1e-3 * n * np.eye(60), z.T @ (y - y.mean()))
    new = 5 * points(300, 4, 1) * [1, 10, 0.1, 3]
    there = found.map(found.standard(new)).astype(float)
    away = np.abs(found.predict(new) - y.mean() - there @ best)
    bounds = found.certificate.bounds
    if name == "arccos0":
        assert away.max() <= bounds["score_error"].value + 1e-9
    else:
        assert "score_error" not in bounds
        assert "have no bound" in bounds["score_error_per_length"].meaning
        assert (away / np.linalg.norm(there, axis=1)).max() <= bounds["score_error_per_length"].value + 1e-9
    # The kernel of these directions is known from pairs as well.
    z = found.map(found.standard(x)).astype(float)
    error = np.sqrt(np.mean((z @ z.T - found.kernel(found.standard(x), found.standard(x))) ** 2))
    assert error <= found.kernel_error(x, pairs=4000).value


def test_machines_on_them_are_saved_verified_and_the_same_whatever_the_threads(tmp_path):
    x = points(700, 3)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    options = {"classify": True, "kernel": "arccos1", "features": 80, "regularization": 1e-4}
    for loss in ("squared", "logistic"):
        found = ly.kernel_machine(x, y, loss=loss, threads=1, **options)
        assert found.certificate.holds
        assert found.verify(x, y).holds
        found.save(tmp_path / loss)
        again = ly.load(tmp_path / loss)
        assert np.array_equal(again.decision_function(x), found.decision_function(x))
        two = ly.kernel_machine(x, y, loss=loss, threads=2, **options)
        assert np.array_equal(two.w, found.w)


def test_widths_are_learned_by_a_gaussian_kernel(monkeypatch):
    asked = []

    def learn(kernel, x, y, *, seed, threads):
        asked.append((kernel.name, kernel.width))
        return Learned(np.array([2.0, 3.0]), 1e-6, 1.0, 0.5)

    monkeypatch.setattr(machine, "learn", learn)
    x = points(200, 2)
    found = ly.kernel_machine(x, x[:, 0], kernel="arccos1", width="learned", features=20)
    assert [name for name, _ in asked] == ["gaussian"]
    assert found.kernel.width.tolist() == [2.0, 3.0]


def test_what_angles_are_not_for_is_said():
    with pytest.raises(OptionError, match="of the Laplacian kernel, not of the arccos0 kernel"):
        make("binning", Kernel("arccos0"), 3, 10)
    with pytest.raises(OptionError, match="polynomial kernels, not of the arccos1 kernel"):
        make("tensorsketch", Kernel("arccos1"), 3, 10)
