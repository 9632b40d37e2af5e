"""The error that finitely many features leave, against that of many draws."""

from __future__ import annotations

import numpy as np
import pytest

import leyden as ly
from leyden.errors import OptionError
from leyden.kernel.fourier import Fourier
from leyden.kernel.kernels import Kernel
from leyden.kernel.resampling import halves


def problem(n, noise, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 8))
    return x, np.tanh(x.sum(axis=1)) + noise * rng.standard_normal(n)


@pytest.mark.parametrize(("noise", "map"), [(0.1, "orthogonal"), (1.0, "plain"), (0.1, "sorf")])
def test_the_error_is_that_of_other_draws(noise, map):
    (x, y), (new, _) = problem(6000, noise), problem(500, noise, seed=1)
    predicted, claimed = [], []
    for seed in range(10):
        found = ly.kernel_machine(
            x, y, features=400, width=4.0, regularization=1e-4, held_out=0, seed=seed, map=map, method="gram"
        )
        predicted.append(found.predict(new))
        claimed.append(found.certificate.bounds["feature_error"].value)
    truth = np.sqrt(np.var(predicted, axis=0, ddof=1).mean()) / y.std()
    assert 0.5 * truth < np.mean(claimed) < 2 * truth


def test_noise_is_not_an_error_of_features():
    """What targets that are nothing but noise make of two halves is the rows' doing."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6000, 4)), rng.standard_normal(6000)
    found = ly.kernel_machine(x, y, features=400, width=1.0, regularization=1e-8, held_out=0)
    assert np.std(found.predict(x)) > 0.2
    assert found.certificate.bounds["feature_error"].value < 0.1


def test_four_times_the_features_halve_it():
    x, y = problem(6000, 0.1)
    errors = [
        np.mean([
            ly.kernel_machine(x, y, features=size, width=4.0, regularization=1e-3, seed=seed).certificate.bounds[
                "feature_error"
            ].value
            for seed in range(4)
        ])
        for size in (100, 400)
    ]  # fmt: skip
    assert 1.5 < errors[0] / errors[1] < 3
    found = ly.kernel_machine(x, y, features=100, width=4.0)
    now = found.certificate.bounds["feature_error"].value
    assert found.features_for(now / 2) in (400, 402)
    with pytest.raises(OptionError, match="positive"):
        found.features_for(0)


def test_halves_are_made_of_blocks_that_are_orthogonal_among_themselves():
    orthogonal, plain = (Fourier(Kernel("gaussian"), 5, 80, 0, draw) for draw in ("orthogonal", "plain"))
    for half in halves(orthogonal, 80, 0):
        assert half.sum() == 40
        assert np.array_equal(half[:40], half[40:])
        blocks = half[:40].reshape(8, 5)
        assert np.all(blocks.all(axis=1) | ~blocks.any(axis=1))
    assert any(
        (half[:40].reshape(8, 5).any(axis=1) ^ half[:40].reshape(8, 5).all(axis=1)).any()
        for half in halves(plain, 80, 0)
    )


def test_it_is_verified_from_the_data_and_left_out_where_rows_are_few(tmp_path):
    x, y = problem(3000, 0.1)
    for options in ({"method": "cg"}, {"method": "gram", "weights": np.linspace(0.5, 2, 3000)}):
        found = ly.kernel_machine(x, y, features=60, width=4.0, **options)
        assert ly.verify(found, x, y, weights=options.get("weights")).holds
    assert "feature_error" not in ly.kernel_machine(x[:50], y[:50], features=60).certificate.bounds
    labels = (y > 0).astype(int)
    logistic = ly.kernel_machine(x, labels, classify=True, loss="logistic", features=60)
    assert "feature_error" not in logistic.certificate.bounds
    with pytest.raises(OptionError, match="says nothing"):
        logistic.features_for(0.1)


def test_constant_targets_have_no_error():
    x, _ = problem(2000, 0.1)
    found = ly.kernel_machine(x, np.ones(2000), features=60)
    assert found.certificate.bounds["feature_error"].value == 0
