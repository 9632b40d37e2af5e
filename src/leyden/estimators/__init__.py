"""Thin scikit-learn faces: the parameters and attributes that scikit-learn's users know, the engine and its certificates."""

from leyden.estimators.pca import PCA
from leyden.estimators.truncated_svd import TruncatedSVD

__all__ = ["PCA", "TruncatedSVD"]
