"""The contract of scikit-learn's estimators."""

from sklearn.utils.estimator_checks import parametrize_with_checks

import leyden as ly

#: Enough factors for any of the checks' data; with more, rows that differ by rounding do not differ by more in the end.
FACTORIZATIONS = [ly.ALS(2), ly.ALS(2, biases=True), ly.ALS(2, regularization=10.0, nonnegative=True)]


@parametrize_with_checks([ly.PCA(), ly.PCA(whiten=True, scale=True), ly.TruncatedSVD(), *FACTORIZATIONS])
def test_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)
