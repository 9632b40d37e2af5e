r"""Covariance matrices of coefficients: classical, robust to heteroskedasticity, robust to dependence within clusters.

With X̃ the covariates, effects taken off, e the residuals and w the weights, ``B = (X̃ᵀWX̃)⁻¹`` and

===========  ==================================================================  =======================================
kind         covariance                                                          factor for small samples
===========  ==================================================================  =======================================
``iid``      ``σ² B``, ``σ² = Σ w e² / (n − k)``                                 none
``HC1``      ``B (Σ w² e² x̃ x̃ᵀ) B`` [1]_                                         ``n / (n − k)``
``CRV1``     ``B (Σ_c s_c s_cᵀ) B``, ``s_c = Σ_{i∈c} w e x̃`` [2]_                ``(n − 1) / (n − k) · C / (C − 1)``
===========  ==================================================================  =======================================

``k`` is the number of parameters, absorbed ones included; for clusters, without the effects of factors that are nested
in a cluster variable, which cost nothing, and plus one for each such factor. Clusters of two variables add up as
``V₁ + V₂ − V₁₂`` [3]_, each with its own number of clusters or, the default of fixest and pyfixest, all with the least.
A variance that this makes negative is possible; the eigenvalues of the matrix then are set to zero where they are
negative.

References
----------
.. [1] J. G. MacKinnon, H. White, "Some heteroskedasticity-consistent covariance matrix estimators with improved finite
   sample properties", J. Econometrics 29, 1985.
.. [2] K.-Y. Liang, S. L. Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 73, 1986.
.. [3] A. C. Cameron, J. B. Gelbach, D. L. Miller, "Robust inference with multiway clustering", JBES 29, 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leyden.errors import DataError, OptionError

KINDS = ("iid", "HC1", "CRV1")

#: Rows whose scores are made at once.
BLOCK = 65_536

#: Rows ``first:last`` of something.
Reader = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Covariance:
    """A covariance matrix of coefficients, and what it was counted with.

    Attributes
    ----------
    matrix : float64, shape (p, p)
    kind : str
    parameters : int
        ``k`` of the factor for small samples.
    degrees_of_freedom : int
        Of Student's t: ``n − k``, or the least number of clusters less one.
    clusters : tuple of int
        How many there are, of each variable and, for two, of their combinations.
    repaired : bool
        Whether negative eigenvalues were set to zero.
    """

    matrix: np.ndarray
    kind: str
    parameters: int
    degrees_of_freedom: int
    clusters: tuple[int, ...] = ()
    repaired: bool = False

    @property
    def standard_errors(self) -> np.ndarray:
        """Square roots of the diagonal."""
        return np.sqrt(np.diagonal(self.matrix))


def covariance(
    x: np.ndarray | Reader,
    residuals: np.ndarray | Reader,
    weights: np.ndarray | None = None,
    kind: str = "iid",
    clusters: Sequence[np.ndarray] | None = None,
    df: int = 0,
    *,
    rows: int | None = None,
    gram: np.ndarray | None = None,
    rss: float | None = None,
    nested: int = 0,
    nested_factors: int = 0,
    least_clusters: bool = True,
) -> Covariance:
    """Covariance of the coefficients of ``x``.

    Parameters
    ----------
    x : float64, shape (n, p), or a function of first and last row
        Covariates, effects taken off.
    residuals : float64, shape (n,), or a function of first and last row
    weights : float64, shape (n,), optional
        Rows of weight zero count for nothing.
    kind : "iid", "HC1" or "CRV1"
    clusters : one or two integer arrays, shape (n,)
        For ``"CRV1"``.
    df : int
        Parameters that were absorbed; those of ``x`` come on top.
    rows : int, optional
        n, where residuals are a function.
    gram : float64, shape (p, p), optional
        ``X̃ᵀWX̃`` where it is known.
    rss : float, optional
        ``Σ w e²`` where it is known.
    nested : int
        Of the parameters absorbed, those of factors that are nested in a cluster variable; see :func:`nested_in`.
    nested_factors : int
        How many factors those are.
    least_clusters : bool, default True
        Whether all terms of two variables use the least number of clusters.

    Returns
    -------
    Covariance
    """
    if kind not in KINDS:
        raise OptionError(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    if rows is None:
        if callable(residuals):
            raise OptionError("rows must be given where residuals are a function")
        rows = len(residuals)
    read, left = _reader(x), _reader(residuals)
    w = np.ones(1) if weights is None else np.asarray(weights, np.float64)
    n = rows if weights is None else int(np.count_nonzero(w))
    if gram is None:
        gram = _sum(lambda a, b: _outer(read(a, b), _cut(w, a, b)), rows)
    bread = np.linalg.inv(gram)
    k = len(gram) + df
    if kind == "CRV1":
        return _clustered(read, left, w, clusters, bread, n, k - nested + nested_factors, least_clusters)
    if n <= k:
        raise DataError(f"{n:,} rows leave no degrees of freedom to {k:,} parameters")
    if kind == "iid":
        if rss is None:
            rss = _sum(lambda a, b: (_cut(w, a, b) * left(a, b) ** 2).sum(), rows)
        return Covariance(rss / (n - k) * bread, kind, k, n - k)
    meat = _sum(lambda a, b: _outer(_scores(read, left, w, a, b)), rows)
    return Covariance(n / (n - k) * bread @ meat @ bread, kind, k, n - k)


def _clustered(
    read: Reader,
    residuals: Reader,
    w: np.ndarray,
    clusters: Sequence[np.ndarray] | None,
    bread: np.ndarray,
    n: int,
    k: int,
    least_clusters: bool,
) -> Covariance:
    if clusters is None or len(clusters) not in (1, 2):
        raise OptionError("clusters must be one or two arrays of integers for kind='CRV1'")
    held = slice(None) if len(w) == 1 else w > 0
    codes, counts = [], []
    for cluster in clusters:
        found, code = np.unique(np.asarray(cluster), return_inverse=True)
        codes.append(code.astype(np.int64))
        counts.append(len(np.unique(code[held])) if len(w) > 1 else len(found))
    if len(codes) == 2:
        found, code = np.unique(codes[0] * (int(codes[1].max()) + 1) + codes[1], return_inverse=True)
        codes.append(code)
        counts.append(len(np.unique(code[held])) if len(w) > 1 else len(found))
    if min(counts) < 2:
        raise DataError("there is only one cluster: nothing can be said about how clusters differ")
    if n <= k:
        raise DataError(f"{n:,} rows leave no degrees of freedom to {k:,} parameters")
    total = np.zeros_like(bread)
    for code, count, sign in zip(codes, counts, (1, 1, -1), strict=False):
        sums = np.zeros((int(code.max()) + 1, len(bread)))
        for a in range(0, len(code), BLOCK):
            b = min(a + BLOCK, len(code))
            scores = _scores(read, residuals, w, a, b)
            for j in range(len(bread)):
                sums[:, j] += np.bincount(code[a:b], scores[:, j], len(sums))
        number = min(counts) if least_clusters else count
        total += sign * number / (number - 1) * (sums.T @ sums)
    matrix = (n - 1) / (n - k) * bread @ total @ bread
    matrix, repaired = _semidefinite(matrix) if len(codes) > 1 else (matrix, False)
    return Covariance(matrix, "CRV1", k, min(counts) - 1, tuple(counts), repaired)


def nested_in(codes: np.ndarray, cluster: np.ndarray) -> bool:
    """Whether all rows of a level are of one cluster, for every level."""
    low = np.full(int(codes.max()) + 1, np.iinfo(np.int64).max)
    high = np.full(len(low), -1, np.int64)
    cluster = np.asarray(cluster)
    if cluster.dtype.kind not in "iu" or cluster.min() < 0:
        cluster = np.unique(cluster, return_inverse=True)[1]
    np.minimum.at(low, codes, cluster)
    np.maximum.at(high, codes, cluster)
    return bool(np.all((low == high) | (high < 0)))


def _semidefinite(matrix: np.ndarray) -> tuple[np.ndarray, bool]:
    """The matrix with its negative eigenvalues set to zero, and whether there were any."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if values[0] >= 0:
        return matrix, False
    return (vectors * np.maximum(values, 0.0)) @ vectors.T, True


def _reader(array: np.ndarray | Reader) -> Reader:
    return array if callable(array) else (lambda first, last: array[first:last])


def _scores(read: Reader, residuals: Reader, w: np.ndarray, first: int, last: int) -> np.ndarray:
    return read(first, last) * (_cut(w, first, last) * residuals(first, last))[:, None]


def _cut(w: np.ndarray, first: int, last: int) -> np.ndarray:
    return w[first:last] if len(w) > 1 else w


def _outer(a: np.ndarray, weights: Any = 1.0) -> np.ndarray:
    return a.T @ (a * np.reshape(weights, (-1, 1)))


def _sum(term: Callable[[int, int], Any], rows: int) -> Any:
    """Terms of blocks of rows added up."""
    total = term(0, min(BLOCK, rows))
    for first in range(BLOCK, rows, BLOCK):
        total = total + term(first, min(first + BLOCK, rows))
    return total
