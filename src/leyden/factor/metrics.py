r"""How good latent factors are on what was held out: ranking metrics, and the error of predicted ratings.

Ranking metrics of a user with h held-out items, ``r_1 < r_2 < …`` being their ranks among the candidates
(:mod:`leyden.factor.ranking`):

* recall at k: ``#{r_q ≤ k} / min(k, h)``, one for a list that could not be better (D. Liang, R. G. Krishnan,
  M. D. Hoffman, T. Jebara, "Variational autoencoders for collaborative filtering", WWW 2018; S. Rendle, W. Krichene,
  L. Zhang, Y. Koren, "Revisiting the performance of iALS on item recommendation benchmarks", RecSys 2022);
* NDCG at k: ``Σ_{r_q ≤ k} 1/log₂(r_q + 1)``, relative to the same sum of ranks 1 to ``min(k, h)`` (K. Järvelin,
  J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM Trans. Inf. Syst. 20, 2002; binary relevance);
* hit rate at k: whether ``r_1 ≤ k``;
* reciprocal rank: ``1 / r_1``, over the whole list (E. M. Voorhees, "The TREC-8 question answering track report",
  1999).

Items of equal score have no order. Each metric is the mean over all orders of them, exactly (F. McSherry, M. Najork,
"Computing information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008). With g
candidates above a group of t that tie, c of them held out, and ``s = min(max(k − g, 0), t)`` places of the group within
the first k,

.. math::

    E\,\#\{r_q ≤ k\} = c \frac{s}{t}, \qquad
    E \sum_{r_q ≤ k} \frac{1}{\log_2(r_q + 1)} = \frac{c}{t} \sum_{r=g+1}^{g+s} \frac{1}{\log_2(r + 1)}, \qquad
    P(\text{no hit}) = \binom{t-c}{s} \Big/ \binom{t}{s},

and the first place of c items in a random order of t is j with probability ``C(t − j, c − 1) / C(t, c)``. So a model
that gives every item the same score is as good as chance, whatever the order of the items.

All are means over the users that have items held out, who are taken to be independent draws. With mean p and variance
σ² of their values, which lie between zero and one, ``σ² ≤ p(1 − p)``, with equality for hits and misses. The interval
is Wilson's (E. B. Wilson, J. Amer. Statist. Assoc. 22, 1927) for a proportion p among ``n p(1 − p) / σ²`` users instead
of n: for a hit rate Wilson's itself, for the others the normal one in the limit, without its failure near zero and one
(an effective sample size, as of E. L. Korn, B. I. Graubard, Survey Methodology 24, 1998).

Errors of one user's ratings are not independent. The interval of the root mean square error takes users, not ratings,
as draws: it is the delta method for the square root of the ratio of the sums of squared errors and of their numbers
(W. G. Cochran, "Sampling techniques", 1977, § 9A.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from leyden import options as check
from leyden.errors import DataError, OptionError
from leyden.factor import _ranking_kernels
from leyden.factor.ranking import (
    HeldOutRanks,
    csr_of,
    factors_of,
    finite_norms,
    offset_of,
    over_users,
    thread_number,
)

#: Probability with which an interval holds the mean over all users there might be, in the limit of many users.
CONFIDENCE = 0.95

#: Lengths of lists that rankings are judged by.
CUTOFFS = (10, 20, 50, 100)

#: Users whose metrics are in memory at once, or whose errors one thread adds up.
TILE_USERS = 1024

Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class UserMean:
    """A mean over users of values between zero and one, from sums that add up over batches of users.

    Attributes
    ----------
    users : int
    total : float
        Sum of the values.
    squares : float
        Sum of their squares.
    """

    users: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """NaN without users."""
        return self.total / self.users if self.users else math.nan

    @property
    def _variance(self) -> float:
        return max(self.squares / self.users - self.mean**2, 0.0)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; NaN with fewer than two users."""
        return math.sqrt(self._variance / (self.users - 1)) if self.users > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the mean: Wilson's, at the effective number of users."""
        if not self.users:
            return 0.0, 1.0
        p = min(max(self.mean, 0.0), 1.0)
        largest = p * (1 - p)
        share = min(self._variance / largest, 1.0) if largest > 0 and self.users > 1 else 1.0
        z2 = Z**2 * share / self.users
        centre = (p + z2 / 2) / (1 + z2)
        half = math.sqrt(z2 * (largest + z2 / 4)) / (1 + z2)
        return max(min(centre - half, p), 0.0), min(max(centre + half, p), 1.0)

    def merge(self, other: UserMean) -> UserMean:
        """That of the users of both."""
        return UserMean(self.users + other.users, self.total + other.total, self.squares + other.squares)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.4f} ± {self.standard_error:.4f}  [{low:.4f}, {high:.4f}]"


@dataclass(frozen=True)
class RankingMetrics:
    """Ranking metrics, each a mean over the users who have items held out.

    Attributes
    ----------
    recall, ndcg, hit_rate : mapping from k to UserMean
        See :mod:`leyden.factor.metrics` for what they are.
    reciprocal_rank : UserMean
    items : int
        Items held out, of all users together.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from leyden.factor.metrics import ranking_metrics
    >>> from leyden.factor.ranking import held_out_ranks
    >>> held_out = sp.csr_array(np.array([[0, 1, 0, 0], [1, 0, 0, 1]]))
    >>> ranks = held_out_ranks(np.array([[1.0], [1.0]]), np.array([[4.0], [3.0], [2.0], [2.0]]), held_out)
    >>> metrics = ranking_metrics(ranks, cutoffs=[1, 3])
    >>> metrics.recall[3].mean, metrics.reciprocal_rank.mean
    (0.875, 0.75)
    """

    recall: Mapping[int, UserMean]
    ndcg: Mapping[int, UserMean]
    hit_rate: Mapping[int, UserMean]
    reciprocal_rank: UserMean
    items: int

    @property
    def users(self) -> int:
        """Users who have items held out."""
        return self.reciprocal_rank.users

    def merge(self, other: RankingMetrics) -> RankingMetrics:
        """Those of the users of both; no user may be in both."""
        if self.recall.keys() != other.recall.keys():
            raise OptionError(f"metrics at {list(self.recall)} and at {list(other.recall)} are not the same metrics")
        return RankingMetrics(
            _merged(self.recall, other.recall),
            _merged(self.ndcg, other.ndcg),
            _merged(self.hit_rate, other.hit_rate),
            self.reciprocal_rank.merge(other.reciprocal_rank),
            self.items + other.items,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values: the sums, and for a reader the means and intervals they come to."""

        def plain(mean: UserMean) -> dict[str, Any]:
            return asdict(mean) | ({"mean": mean.mean, "interval": list(mean.interval)} if mean.users else {})

        return {
            **{
                name: {str(k): plain(mean) for k, mean in getattr(self, name).items()}
                for name in ("recall", "ndcg", "hit_rate")
            },
            "reciprocal_rank": plain(self.reciprocal_rank),
            "items": self.items,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RankingMetrics:
        """Inverse of :meth:`to_json`."""

        def sums(plain: Mapping[str, Any]) -> UserMean:
            return UserMean(plain["users"], plain["total"], plain["squares"])

        recall, ndcg, hit_rate = (
            {int(k): sums(plain) for k, plain in data[name].items()} for name in ("recall", "ndcg", "hit_rate")
        )
        return cls(recall, ndcg, hit_rate, sums(data["reciprocal_rank"]), data["items"])

    def __str__(self) -> str:
        rows = [
            (f"{name}@{k}", mean)
            for name, means in (("recall", self.recall), ("NDCG", self.ndcg), ("hit rate", self.hit_rate))
            for k, mean in means.items()
        ]
        rows.append(("reciprocal rank", self.reciprocal_rank))
        width = max(len(name) for name, _ in rows)
        head = f"{self.items:,} held-out items of {self.users:,} users; mean ± standard error [95 % interval]"
        return "\n".join([head, *(f"  {name:<{width}}  {mean}" for name, mean in rows)])


def _merged(ours: Mapping[int, UserMean], theirs: Mapping[int, UserMean]) -> dict[int, UserMean]:
    return {k: mean.merge(theirs[k]) for k, mean in ours.items()}


def ranking_metrics(ranks: HeldOutRanks, cutoffs: Sequence[int] = CUTOFFS) -> RankingMetrics:
    """What the ranks of held-out items come to.

    Parameters
    ----------
    ranks : HeldOutRanks
        As :func:`leyden.factor.ranking.held_out_ranks` finds them. Users without held-out items do not count.
    cutoffs : sequence of int
        The lengths k of lists.

    Returns
    -------
    RankingMetrics
    """
    cuts = np.array(sorted({check.whole("cutoffs", k, 1, 2**31 - 1) for k in cutoffs}), dtype=np.int64)
    longest = min(int((ranks.above + ranks.tied).max(initial=1)), int(cuts.max(initial=1)))
    gains = np.append(0.0, np.cumsum(1 / np.log2(np.arange(2, longest + 2))))
    rows = np.flatnonzero(np.diff(ranks.indptr))
    totals, squares = np.zeros((2, 3 * len(cuts) + 1))
    for start in range(0, len(rows), TILE_USERS):
        part = rows[start : start + TILE_USERS]
        values = np.empty((len(part), len(totals)))
        begin, end = ranks.indptr[part], ranks.indptr[part + 1]
        _ranking_kernels.user_metrics(begin, end, ranks.above, ranks.tied, cuts, gains, values)
        totals += values.sum(axis=0)
        squares += (values**2).sum(axis=0)
    means = [UserMean(len(rows), float(t), float(s)) for t, s in zip(totals, squares, strict=True)]
    count = len(cuts)
    recall, ndcg, hit_rate = (
        dict(zip(cuts.tolist(), means[i * count : (i + 1) * count], strict=True)) for i in range(3)
    )
    return RankingMetrics(recall, ndcg, hit_rate, means[-1], len(ranks.items))


@dataclass(frozen=True)
class SquaredErrors:
    """Squared errors of held-out ratings, from sums that add up over batches of users.

    Attributes
    ----------
    users : int
        Users who have ratings held out.
    ratings : int
    total : float
        ``Σ S``, S being the sum of the squared errors of one user.
    counts2, cross, total2 : float
        ``Σ n²``, ``Σ n S`` and ``Σ S²`` with n the number of ratings of one user.
    """

    users: int
    ratings: int
    total: float
    counts2: float
    cross: float
    total2: float

    @property
    def rmse(self) -> float:
        """Root mean square error over all ratings; NaN without any."""
        return math.sqrt(self.total / self.ratings) if self.ratings else math.nan

    @property
    def standard_error(self) -> float:
        """Standard error of the RMSE, users being independent; NaN with fewer than two."""
        if self.users < 2:
            return math.nan
        if self.total == 0:
            return 0.0
        mean = self.total / self.ratings
        # Σ (S − mean n)², the squared residuals of the users.
        left = max(self.total2 - 2 * mean * self.cross + mean**2 * self.counts2, 0.0)
        of_mean = math.sqrt(left * self.users / (self.users - 1)) / self.ratings
        return of_mean / (2 * math.sqrt(mean))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the RMSE: normal, by the delta method, clustered by user."""
        if self.users < 2:
            return 0.0, math.inf
        half = Z * self.standard_error
        return max(self.rmse - half, 0.0), self.rmse + half

    def merge(self, other: SquaredErrors) -> SquaredErrors:
        """Those of the users of both; no user may be in both."""
        mine, theirs = asdict(self), asdict(other)
        return SquaredErrors(**{name: mine[name] + theirs[name] for name in mine})

    def to_json(self) -> dict[str, Any]:
        """Plain values: the sums, and for a reader what they come to."""
        return asdict(self) | ({"rmse": self.rmse, "interval": list(self.interval)} if self.users > 1 else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SquaredErrors:
        """Inverse of :meth:`to_json`."""
        return cls(*(data[name] for name in cls.__dataclass_fields__))

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.ratings:,} held-out ratings of {self.users:,} users; "
            f"RMSE {self.rmse:.4f} ± {self.standard_error:.4f} [95 % interval {low:.4f}, {high:.4f}]"
        )


def squared_errors(
    user_factors: Any,
    item_factors: Any,
    held_out: Any,
    *,
    user_offset: Any = None,
    item_offset: Any = None,
    threads: int | None = None,
) -> SquaredErrors:
    """Errors of ratings predicted by ``u_i · v_j``, plus the offsets of the user and of the item.

    Parameters
    ----------
    user_factors : array_like, shape (m, d)
        Read in slices: it may be mapped from a file.
    item_factors : array_like, shape (n, d)
    held_out : sparse matrix, shape (m, n)
        Every entry is a rating, zeros that are stored among them.
    user_offset, item_offset : array_like, shapes (m,) and (n,), optional
        What is the same for all belongs to either.
    threads : int, optional
        All processors by default; sums are in float64 and the same to the bit for any number.

    Returns
    -------
    SquaredErrors

    Raises
    ------
    DataError
        If shapes do not fit, or a number is not finite.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from leyden.factor.metrics import squared_errors
    >>> held_out = sp.csr_array(np.array([[4.0, 0.0], [0.0, 5.0]]))
    >>> squared_errors(np.array([[1.0], [2.0]]), np.array([[3.0], [3.0]]), held_out).rmse
    1.0
    """
    users, items, dtype = factors_of(user_factors, item_factors)
    items = np.ascontiguousarray(items, dtype)
    finite_norms(items, "item_factors")
    held = csr_of("held_out", held_out, (len(users), len(items)))
    of_user, of_item = (
        offset_of("user_offset", user_offset, len(users)),
        offset_of("item_offset", item_offset, len(items)),
    )
    if not np.isfinite(held.data).all():
        raise DataError("a rating is not a finite number", where="held_out")

    def work(rows: np.ndarray) -> np.ndarray:
        u = np.ascontiguousarray(users[rows], dtype)
        finite_norms(u, "user_factors", rows)
        shift, sums = of_user[rows] if of_user.size else of_user, np.zeros(6)
        begin, end = held.indptr[rows], held.indptr[rows + 1]
        _ranking_kernels.squared_errors(u, items, shift, of_item, begin, end, held.indices, held.data, sums)
        return sums

    # Sums depend on the tiles, and those not on the threads.
    parts = over_users(work, np.flatnonzero(np.diff(held.indptr)), TILE_USERS, thread_number(threads))
    sums = np.sum(parts, axis=0) if parts else np.zeros(6)
    return SquaredErrors(int(sums[0]), int(sums[1]), *sums[2:].tolist())
