"""Random bins: their kernel is the Laplacian one on average, and machines on them are those of dense algebra."""

from __future__ import annotations

import numpy as np
import pytest

import leyden as ly
from leyden.engine.reduction import Scratch
from leyden.errors import OptionError
from leyden.kernel import products
from leyden.kernel.binning import Binning
from leyden.kernel.kernels import Kernel
from leyden.kernel.maps import make, restore


def points(m, d, seed=0):
    return np.random.default_rng(seed).standard_normal((m, d)).astype(np.float32)


def slots(x, of):
    """The places of points, by plain NumPy."""
    found = np.empty((of.grids, len(x)), np.int64)
    for p in range(of.grids):
        cells = np.floor(x * of.inverse[p] + of.shift[p]).astype(np.int32).view(np.uint32)
        h = (p + (cells.astype(np.uint64) * of.multiplier[p]).sum(axis=1)) % 2**32
        h ^= h >> np.uint64(16)
        h = h * np.uint64(0x85EBCA6B) % 2**32
        h ^= h >> np.uint64(13)
        h = h * np.uint64(0xC2B2AE35) % 2**32
        h ^= h >> np.uint64(16)
        found[p] = (p << of.bits) + (h >> np.uint64(32 - of.bits))
    return found


@pytest.mark.parametrize(("m", "d", "bits"), [(1, 1, 3), (1500, 7, 12), (1024, 30, 18)])
def test_places_are_those_of_plain_numpy(m, d, bits):
    x, of = points(m, d) * 3, Binning(Kernel("laplacian", 0.7), d, 9, 5, bits)
    out = np.empty((9, m), np.int32)
    of.places(x, out, Scratch())
    # A product that is added to in one rounding or in two may be on either side of a border.
    assert (out != slots(x, of)).mean() < 1e-3


@pytest.mark.parametrize("width", [1.5, np.array([0.5, 2.0, 4.0])])
def test_bins_are_unbiased_for_the_laplacian_kernel(width):
    kernel, x = Kernel("laplacian", width), points(2, 3, 1)
    exact, grids = kernel(x[:1], x[1:])[0, 0], 20_000
    places = np.empty((grids, 2), np.int32)
    Binning(kernel, 3, grids, 3, 12).places(x, places, Scratch())
    same = (places[:, 0] == places[:, 1]).mean()
    assert abs(same - exact - (1 - exact) / 2**12) < 5 * np.sqrt(exact * (1 - exact) / grids)


def test_first_grids_do_not_depend_on_their_number_and_seeds_make_others():
    kernel, x = Kernel("laplacian", 2.0), points(50, 4)
    found = [np.empty((grids, 50), np.int32) for grids in (3, 8, 3)]
    for out, seed in zip(found, (1, 1, 2), strict=True):
        Binning(kernel, 4, len(out), seed).places(x, out, Scratch())
    assert (found[0] == found[1][:3]).all()
    assert (found[0] != found[2]).any()


def test_dense_features_are_the_bins_and_come_back_from_what_was_saved():
    of, x = make("binning", Kernel("laplacian", 1.0), 4, 6, 2), points(30, 4)
    of = Binning(of.kernel, 4, 6, 2, 8)
    z = of(x)
    assert np.allclose((z * z).sum(axis=1), 1)
    assert ((z > 0).sum(axis=1) == 6).all()
    assert (restore(of.to_json(), {})(x) == z).all()
    tile, w = of.tile(x, Scratch()), np.random.default_rng(0).standard_normal((of.size, 3))
    assert np.allclose(tile.times(w), z @ w)
    total = np.zeros((of.size, 3))
    tile.add_transposed(z @ w, total)
    assert np.allclose(total, z.T @ (z @ w))
    diagonal = np.zeros(of.size)
    tile.add_squares(diagonal, np.arange(30))
    assert np.allclose(diagonal, (z * z).T @ np.arange(30))


@pytest.mark.parametrize("classify", [False, True])
def test_machines_on_bins_are_those_of_dense_algebra(classify):
    x = points(400, 3)
    f = np.sin(2 * x[:, 0]) + x[:, 1]
    y = np.digitize(f, [-0.5, 0.5]) if classify else f
    found = ly.kernel_machine(
        x, y, classify=classify, map="binning", kernel="laplacian", width=3.0, features=40, regularization=1e-3,
        held_out=0, tol=1e-9,
    )  # fmt: skip
    assert found.certificate.holds
    new = points(50, 3, 9)

    def places(x):
        out = np.empty((40, len(x)), np.int32)
        found.map.places(found.standard(x), out, Scratch())
        return out

    def kernel(x):
        return (places(x)[:, :, None] == places(points(400, 3))[:, None]).mean(axis=0)

    target = np.where(y[:, None] == found.classes, 1.0, -1.0) if classify else y[:, None]
    offset = target.mean(axis=0)
    dual = np.linalg.solve(kernel(x) + 1e-3 * 400 * np.eye(400), target - offset)
    assert np.allclose(found.decision_function(x), kernel(x) @ dual + offset, atol=1e-3)
    expected = kernel(new) @ dual + offset
    assert np.allclose(found.decision_function(new), expected, atol=1e-3)
    # The bound on the distance from the best machine holds.
    assert np.abs(found.decision_function(new) - expected).max() <= found.certificate.bounds["score_error"].value


def test_machines_on_bins_are_saved_verified_and_weighted(tmp_path):
    x = points(600, 3)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    weights = np.random.default_rng(1).integers(0, 3, 600).astype(float)
    options = {"map": "binning", "kernel": "laplacian", "width": 3.0, "features": 30, "classify": True}
    options["regularization"] = 1e-4
    for loss in ("squared", "logistic"):
        found = ly.kernel_machine(x, y, loss=loss, weights=weights, **options)
        assert found.certificate.holds
        assert found.verify(x, y, weights=weights).holds
        found.save(tmp_path / loss)
        again = ly.load(tmp_path / loss)
        assert (again.decision_function(x) == found.decision_function(x)).all()


def test_bins_are_looked_for_once_where_memory_is_left(monkeypatch):
    x = points(20_000, 3)
    y, made, tile = x[:, 0] * x[:, 1], [], Binning.tile

    def counted(self, x, scratch):
        made.append(len(x))
        return tile(self, x, scratch)

    monkeypatch.setattr(Binning, "tile", counted)
    options = {"map": "binning", "kernel": "laplacian", "width": 3.0, "features": 10, "regularization": 1e-3, "seed": 1}
    found = ly.kernel_machine(x, y, memory="3GB", **options)
    once, passes = sum(made), sum("conjugate" in line.name for line in found.trace.passes)
    made.clear()
    with monkeypatch.context() as change:
        change.setattr(products.Features, "_kept", property(lambda self: {}, lambda self, value: None), raising=False)
        again = ly.kernel_machine(x, y, memory="3GB", **options)
    assert passes > 3
    assert once < 2.2 * len(x)
    assert sum(made) > passes * 0.9 * len(x)
    assert (again.w == found.w).all()


def test_of_several_scales_of_the_width_that_which_predicts_best_is_taken():
    x = points(1500, 2)
    y = np.sign(np.sin(3 * x[:, 0]))
    options = {"features": 200, "width": 1.0, "classify": True, "held_out": 0.3, "regularization": [1e-6, 1e-3]}
    found = ly.kernel_machine(x, y, scale=[8.0, 0.5], **options)
    alone = ly.kernel_machine(x, y, scale=0.5, **options)
    assert found.path.shape == (4, 4)
    assert found.path[np.argmin(found.path[:, 1]), 2] == 0.5
    assert np.allclose(found.path[2:], alone.path)
    assert found.kernel.width == 0.5
    assert np.allclose(found.decision_function(x), alone.decision_function(x), atol=1e-4)
    with pytest.raises(OptionError, match="one of several scales is chosen by rows held out"):
        ly.kernel_machine(x, y, scale=[1.0, 2.0], held_out=0)
    with pytest.raises(OptionError, match="one of several widths is chosen by rows held out"):
        ly.kernel_machine(x, y, widths=[1.0, 2.0], held_out=0)
    with pytest.raises(OptionError, match="widths holds no value"):
        ly.kernel_machine(x, y, widths=[])


def test_what_bins_are_not_for_is_said():
    x, y = points(50, 2), points(50, 1)[:, 0]
    with pytest.raises(OptionError, match=r'of the Laplacian kernel, not of the gaussian kernel.*kernel="laplacian"'):
        ly.kernel_machine(x, y, map="binning")
    with pytest.raises(OptionError, match="too many for a Gram matrix"):
        ly.kernel_machine(x, y, map="binning", kernel="laplacian", folds=3)
