"""Estimators of kernel machines."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import leyden as ly

#: Widths rest on pairs of sampled rows, which are others when a row is there twice.
EQUIVALENCE = {
    f"check_sample_weight_equivalence_on_{kind}_data": "the median width is that of pairs of sampled rows"
    for kind in ("dense", "sparse")
}


@parametrize_with_checks(
    [
        ly.KernelRidge(features=50),
        ly.KernelRidgeCV(features=50, folds=3),
        ly.KernelClassifier(features=50),
        ly.KernelClassifier(features=50, loss="logistic"),
    ],
    expected_failed_checks=lambda estimator: EQUIVALENCE,
)
def test_scikit_learn_checks_pass(estimator, check):
    check(estimator)


def test_labels_of_any_type_come_back():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 3))
    for labels in (["a", "b"], ["x", "y", "zz"], [2, 5], [True, False]):
        y = np.array(labels)[np.digitize(x[:, 0], np.linspace(-0.5, 0.5, len(labels) - 1))]
        found = ly.KernelClassifier(features=100, loss="squared_hinge").fit(x, y)
        assert found.classes_.tolist() == sorted(labels)
        assert found.score(x, y) > 0.9
        proba = found.predict_proba(x)
        assert np.array_equal(found.classes_[proba.argmax(axis=1)], found.predict(x))


def test_several_targets_are_fitted_at_once():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((800, 2))
    y = np.stack([np.sin(x[:, 0]), x[:, 1] ** 2], axis=1)
    assert ly.KernelRidge(features=200).fit(x, y).score(x, y) > 0.98
    assert ly.KernelRidgeCV(features=200).fit(x, y).predict(x).shape == (800, 2)


@pytest.mark.parametrize("estimator", [ly.KernelRidge(features=60), ly.KernelClassifier(features=60)])
def test_files_are_fitted_as_arrays_are(estimator, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3))
    y = (x[:, 0] > 0).astype(float)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    rows = ly.open(tmp_path / "x.npy", target=tmp_path / "y.npy")
    assert np.array_equal(estimator.fit(rows).predict(rows), estimator.fit(x, y).predict(x))


def test_the_width_and_the_penalty_with_the_least_error_of_all_are_chosen():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (900, 2))
    y = np.sin(4 * x[:, 0]) + 0.2 * rng.standard_normal(900)
    widths, penalties = [0.01, 0.5, [0.4, 8.0], 50.0], [1e-1, 1e-4]
    found = ly.KernelRidgeCV(features=100, widths=widths, regularizations=penalties).fit(x, y)
    alone = [ly.KernelRidgeCV(features=100, width=width, regularizations=penalties).fit(x, y) for width in widths]
    assert np.allclose(found.errors_, [one.path_[:, 1] for one in alone], rtol=1e-6)
    place = np.unravel_index(found.errors_.argmin(), found.errors_.shape)
    assert place[0] == 2
    assert np.array_equal(found.width_, widths[2])
    assert found.regularization_ == found.path_[place[1], 0]
    assert np.array_equal(found.path_[:, 1], found.errors_[2])
    assert np.allclose(found.predict(x), alone[2].predict(x), atol=1e-4)
    assert [one.name for one in found.solution_.trace.passes if "Gram" in one.name] == ["Gram matrices of 4 kernels"]
    with pytest.raises(ly.OptionError, match="holds no value"):
        ly.KernelRidgeCV(widths=[]).fit(x, y)
