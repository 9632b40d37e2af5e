"""Thin scikit-learn faces: parameters and attributes that its users know, over the engine and its certificates."""

from leyden.estimators.als import ALS
from leyden.estimators.kernel_machines import KernelClassifier, KernelRidge, KernelRidgeCV
from leyden.estimators.pca import PCA
from leyden.estimators.random_features import RandomFeatures
from leyden.estimators.truncated_svd import TruncatedSVD

__all__ = ["ALS", "PCA", "KernelClassifier", "KernelRidge", "KernelRidgeCV", "RandomFeatures", "TruncatedSVD"]
