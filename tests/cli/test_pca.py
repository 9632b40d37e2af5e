"""``leyden pca``: the answer of the library, in tables and in JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

import leyden as ly


@pytest.fixture
def x(tmp_path):
    """Observations about a mean far from zero, as x.npy."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 8)) * 0.6 ** np.arange(8) + 10
    np.save(tmp_path / "x.npy", x)
    return x


def document(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=pytest.fail)


@pytest.mark.parametrize("scale", [False, True])
def test_gives_the_eigenvectors_of_the_covariance_or_the_correlation(leyden, x, scale):
    found = document(leyden("pca", "x.npy", "--rank", "3", *["--scale"] * scale, "--json"))
    matrix = np.corrcoef(x.T) if scale else np.cov(x.T)
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(found["explained_variance"], values[:-4:-1], rtol=1e-10)
    np.testing.assert_allclose(found["explained_variance_ratio"], values[:-4:-1] / np.trace(matrix), rtol=1e-10)
    np.testing.assert_allclose(np.abs(found["Vt"]), np.abs(vectors[:, :-4:-1].T), atol=1e-6)
    np.testing.assert_allclose(found["mean"], x.mean(axis=0))
    np.testing.assert_allclose(found["scale"], x.std(axis=0, ddof=1) if scale else 1)


def test_writes_the_scores(leyden, x):
    assert leyden("pca", "x.npy", "--rank", "2", "--scores", "scores.npy").exit_code == 0
    np.testing.assert_allclose(np.load("scores.npy"), ly.pca(x, 2).transform(x), atol=1e-12)


def test_prints_variances_their_shares_and_their_sums(leyden, x):
    shown = leyden("pca", "x.npy", "--rank", "8").stdout
    for word in ("variance", "ratio", "cumulative", "100.00%", "residual", "HOLDS"):
        assert word in shown


def test_plots_what_it_found(leyden, x, tmp_path):
    assert leyden("pca", "x.npy", "--rank", "3", "--plot", "scree.png").exit_code == 0
    assert (tmp_path / "scree.png").read_bytes().startswith(b"\x89PNG")


def test_verify_takes_the_options_it_was_saved_with(leyden, data):
    arguments = ["--columns", "a,b,kind", "--categorical", "kind", "--scale", "--rank", "2", "--out", "saved"]
    assert leyden("pca", "t.parquet", *arguments).exit_code == 0
    result = leyden("verify", "saved", "t.csv")
    assert result.exit_code == 0, result.output
    assert "HOLDS" in result.stdout
    assert leyden("verify", "saved", "t.csv", "--columns", "b,a,kind").exit_code == 1


def test_columns_without_variance_are_an_answer(leyden, tmp_path):
    np.save(tmp_path / "c.npy", np.full((6, 4), 7.0))
    found = document(leyden("pca", "c.npy", "--rank", "2", "--plot", "c.svg", "--json"))
    assert found["explained_variance"] == found["explained_variance_ratio"] == [0, 0]
