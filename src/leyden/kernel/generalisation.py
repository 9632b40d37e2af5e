r"""What rows that were held out say of rows not seen yet.

* Of m held-out rows e are wrong: the error is at most p with probability 1 − δ for the p at which e or fewer of m would
  be wrong with probability δ, exactly (Clopper and Pearson 1934); of k machines that were tried each is charged δ/k.
* The smallest of m held-out absolute residuals that ``⌈(m + 1) c⌉`` of them do not exceed bounds another one with
  probability c at least, whatever the distribution (split conformal prediction).
* Scores become probabilities by a softmax of them times one factor, which makes held-out labels most likely (Guo,
  Pleiss, Sun and Weinberger 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from scipy.stats import beta

from leyden.certificate import Bound
from leyden.errors import OptionError
from leyden.kernel.products import Targets

#: Probability with which bounds on unseen rows may fail.
DELTA = 0.01


def labels(scores: np.ndarray) -> np.ndarray:
    """Positions of the classes that scores (m, outputs) say."""
    return (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)


def binomial_bound(wrong: int, rows: int, delta: float) -> float:
    """The share of wrong rows that is not exceeded but with probability ``delta``."""
    return 1.0 if wrong >= rows else float(beta.ppf(1 - delta, wrong + 1, rows - wrong))


def bounds(
    scores: np.ndarray | None, truths: np.ndarray | None, targets: Targets, tried: int, delta: float = DELTA
) -> dict[str, Bound]:
    """Bounds on the error at rows drawn as those held out."""
    if scores is None or truths is None or not len(scores):
        return {}
    if targets.classes is not None:
        wrong, rows = int(np.count_nonzero(labels(scores) != labels(truths))), len(scores)
        charged = f", {tried} machines charged" if tried > 1 else ""
        return {
            "error": Bound(
                "error", binomial_bound(wrong, rows, delta / tried),
                f"share of rows not seen that get a wrong label; {wrong:,} of {rows:,} held out do{charged}",
                "probabilistic", confidence=1 - delta, relative=False,
            )
        }  # fmt: skip
    half = conformal(np.abs(scores - truths), 0.9)
    size = math.sqrt(float((truths**2).sum())) or 1.0
    relative = math.sqrt(float(((scores - truths) ** 2).sum())) / size
    return {
        "relative_error": Bound(
            "relative_error", relative, f"‖f − y‖ / ‖y‖ of the {len(scores):,} rows held out", "measured"
        ),
        "interval": Bound(
            "interval", float(half.max()), "nine in ten targets not seen are no further from their prediction",
            "probabilistic", confidence=0.9, relative=False,
        ),
    }  # fmt: skip


def score_error(distance: float, longest: float, machine: str, what: str) -> Bound:
    """How far scores are, at any point, from those of a machine that is at some distance in the space of the features.

    Of features that have no bound it is that distance, by which their length is to be multiplied.
    """
    meaning = f"no score, at any point, is further from that of {machine}"
    if math.isfinite(longest):
        return Bound("score_error", distance * longest, meaning, "rigorous", relative=False)
    meaning += f" than this times the length of {what}"
    return Bound("score_error_per_length", distance, meaning, "rigorous", relative=False)


def conformal(residuals: np.ndarray, confidence: float) -> np.ndarray:
    """Half-widths of intervals, (k,), from absolute residuals (m, k); infinite if they are too few."""
    if not 0 < confidence < 1:
        raise OptionError(f"confidence={confidence} must be a number between 0 and 1")
    rows = len(residuals)
    place = math.ceil((rows + 1) * confidence)
    if place > rows:
        return np.full(residuals.shape[1], np.inf)
    return np.sort(residuals, axis=0)[place - 1]


@dataclass(frozen=True)
class Calibration:
    """Probabilities of classes: a softmax of scores times a factor, so that the most probable is the one predicted."""

    factor: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities, float64 (m, classes)."""
        if scores.shape[1] == 1:
            second = expit(self.factor * scores[:, 0])
            return np.column_stack([1 - second, second])
        return softmax(self.factor * scores, axis=1)


def calibrate(scores: np.ndarray, truths: np.ndarray) -> Calibration:
    """The factor under which the labels of some rows are most likely, each mixed with one row of even odds."""
    rows, outputs = scores.shape
    right = labels(truths)
    most = max(float(np.abs(scores).max(initial=0.0)), 1e-300)

    def surprise(log: float) -> float:
        f = math.exp(log) / most * scores
        if outputs == 1:
            other = np.logaddexp(0, f[:, 0]) - right * f[:, 0]
            return float(other.sum()) + float((np.logaddexp(0, f[:, 0]) - 0.5 * f[:, 0]).mean())
        logs = log_softmax(f, axis=1)
        return -float(logs[np.arange(rows), right].sum()) - float(logs.mean())

    found = minimize_scalar(surprise, bounds=(-8, 12), method="bounded")
    return Calibration(math.exp(float(found.x)) / most)


def bernstein(name: str, squares: np.ndarray, most: float, delta: float = DELTA) -> Bound:
    """The root of a mean of numbers in [0, most] from independent draws of them (Maurer and Pontil 2009)."""
    m, mean = len(squares), float(squares.mean())
    log = math.log(2 / delta)
    upper = mean + math.sqrt(2 * float(squares.var(ddof=1)) * log / m) + 7 * most * log / (3 * (m - 1))
    meaning = f"root mean square error of the kernel over pairs of rows; {math.sqrt(mean):.2e} of {m:,} sampled"
    return Bound(name, math.sqrt(upper), meaning, "probabilistic", confidence=1 - delta, relative=False)
