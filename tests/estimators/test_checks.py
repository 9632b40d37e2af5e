"""The contract of scikit-learn's estimators."""

from sklearn.utils.estimator_checks import parametrize_with_checks

import leyden as ly


@parametrize_with_checks([ly.PCA(), ly.PCA(whiten=True, scale=True), ly.TruncatedSVD()])
def test_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)
