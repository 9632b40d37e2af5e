"""Where a factorization begins."""

import numpy as np
import pytest
import scipy.sparse as sp

import leyden as ly
from leyden.engine.sweep import Engine
from leyden.factor.objective import Objective
from leyden.factor.start import spectral
from leyden.factor.survey import as_ratings


def ratings(seed, n=400, m=90, rank=3, noise=0.1, mean=0.0, density=0.5):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, m)) + mean
    seen = rng.random((n, m)) < density
    return sp.csr_array(np.where(seen, scores + noise * rng.standard_normal((n, m)), 0.0).astype(np.float32))


def began(a, objective, rank):
    size = float(np.sqrt(np.mean(a.data**2)))
    return spectral(Engine(2**30, 1), as_ratings(a, None), objective, rank, size, 0)


@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_a_spectral_start_spans_the_leading_right_singular_vectors_of_the_centred_ratings(mean):
    a = ratings(0, mean=mean)
    centred = a.copy()
    centred.data -= np.float32(mean)
    x, vt = began(a, Objective(1.0, mean=mean), 8), np.linalg.svd(centred.toarray())[2]
    q = np.linalg.qr(x[:, :3])[0]
    assert np.linalg.norm(vt[:3] @ np.linalg.qr(x)[0], -2) > 0.999
    assert np.linalg.norm(q.T @ vt[3:].T, 2) < 0.2
    assert np.linalg.norm(x, 2) == pytest.approx(3 * np.sqrt(90), rel=1e-6)


def test_what_hardly_stands_out_is_short():
    sizes = np.linalg.svd(began(ratings(1), Objective(1.0), 8))[1]
    assert sizes[3] < 0.05 * sizes[2]


def test_of_implicit_feedback_it_is_the_slope_at_zero_that_counts():
    a = ratings(2)
    a.data[:] = 1.0 + np.abs(a.data)
    slope = a.copy()
    slope.data = 1 + 2 * slope.data
    x, vt = began(a, Objective(1.0, implicit=True, alpha=2.0), 4), np.linalg.svd(slope.toarray())[2]
    assert abs(vt[0] @ np.linalg.qr(x)[0]).max() > 0.999 or np.linalg.norm(vt[0] @ np.linalg.qr(x)[0]) > 0.999


@pytest.mark.parametrize("method", ["resident", "streamed"])
def test_planted_factors_are_found_from_it_at_once(method):
    a = ratings(3, mean=2.0)
    found = ly.als(a, 3, 0.01, scaling=1.0, centre=True, start="spectral", epochs=2, tol=0.3, method=method)
    rows, columns = a.nonzero()
    mean = found.mean
    assert mean == pytest.approx(a.data.mean(dtype=float), abs=1e-6)
    scores = np.array([found.predict(i, j) for i, j in zip(rows[:200], columns[:200], strict=True)])
    assert np.sqrt(np.mean((scores - a.data[:200]) ** 2)) < 0.13


def test_ratings_that_are_all_the_same_have_nothing_to_begin_with():
    a = sp.csr_array(np.full((20, 10), 3.0))
    found = ly.als(a, 2, centre=True, start="spectral")
    assert found.predict(0, 0) == pytest.approx(3.0)


def test_only_explicit_ratings_of_either_sign_are_centred():
    a = sp.csr_array(np.full((20, 10), 3.0))
    for wrong in ({"implicit": True}, {"nonnegative": True}):
        with pytest.raises(ly.OptionError, match="centre is for explicit ratings"):
            ly.als(a, 2, centre=True, **wrong)
