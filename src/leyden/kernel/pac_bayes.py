r"""A bound on the error at rows not seen from the rows that were fitted: none need be held out.

For weights drawn from a normal distribution about those that were found, ``Q = N(μ u, I)`` with u of length one along
``(w, offset)``, let q be the share of wrong labels on average over the draw and the n rows. With probability 1 − δ over
the rows, for all u at once, the share e at rows not seen satisfies (Langford and Seeger 2001; Maurer 2004)

``kl(q ‖ e) ≤ (μ²/2 + log(2√n/δ)) / n``,

where ``μ²/2`` is the divergence of Q from ``N(0, I)``, and ``kl(q ‖ e)`` that of coins of these odds. Every one of k
scales μ is charged δ/k, and the best is taken. Scores of a draw are normal about ``μ u·(z, 1)`` with deviation
``‖(z, 1)‖``, so that q is a mean of normal tails (Langford and Shawe-Taylor 2002); of several classes, at most the sum
of the tails of all others. Where the machine is wrong half of the draws are, which doubles the bound.

It holds of rows drawn independently, for features that were not made from them: of widths or scales that were, it is
conditional on their having cost nothing.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import erfc, xlogy

from leyden.certificate import Bound, Grade

#: μ: how far from zero, in standard deviations.
SCALES = 2.0 ** np.arange(12)

#: What a computed divergence may be off.
ROUNDING = 2e-15


def tails(scores: np.ndarray, truths: np.ndarray, lengths: np.ndarray, size: float) -> np.ndarray:
    """Probabilities that a draw of the weights is wrong, summed over rows.

    Parameters
    ----------
    scores, truths : float64, shape (m, outputs)
        f, and Y of ±1.
    lengths : float64, shape (m,)
        ``‖(z, 1)‖``.
    size : float
        ``‖(w, offset)‖`` of all outputs.

    Returns
    -------
    float64, shape (len(SCALES),)
    """
    if scores.shape[1] == 1:
        margins = (truths * scores) / lengths[:, None]
    else:
        own = np.take_along_axis(scores, truths.argmax(axis=1)[:, None], axis=1)
        # The difference of two independent scores varies twice as much; no label competes with itself.
        margins = np.where(truths > 0, np.inf, own - scores) / (math.sqrt(2) * lengths[:, None])
    margins /= max(size, 1e-300) * math.sqrt(2)
    return np.array([np.minimum(0.5 * erfc(scale * margins).sum(axis=1), 1).sum() for scale in SCALES])


def divergence(q: float, p: float) -> float:
    """``kl(q ‖ p)`` of coins."""
    return float(xlogy(q, q / p) + xlogy(1 - q, (1 - q) / (1 - p))) if 0 < p < 1 else math.inf


def inverse(q: float, most: float) -> float:
    """The largest p whose divergence from q is ``most`` at most, rounded up."""
    above, most = 1 - 1e-15, most + ROUNDING
    if q >= above or divergence(q, above) <= most:
        return 1.0
    found = brentq(lambda p: divergence(q, p) - most, max(q, 1e-300), above, xtol=1e-14, rtol=1e-14)
    return min(float(found) * (1 + 1e-12) + 1e-13, 1.0)


def bound(wrong: np.ndarray, rows: float, delta: float, *, given: bool) -> dict[str, Bound]:
    """The bound on the error of the machine, if there is one below one.

    Parameters
    ----------
    wrong : float64, shape (len(SCALES),)
        What :func:`tails` summed, over all rows.
    rows : float
        n.
    delta : float
        Probability with which the bound may fail.
    given : bool
        Whether the features did not depend on the rows.
    """
    if rows < 1:
        return {}
    charge = math.log(2 * math.sqrt(rows) * len(SCALES) / delta)
    errors = [
        inverse(min(mine / rows, 1.0), (scale**2 / 2 + charge) / rows)
        for scale, mine in zip(SCALES.tolist(), wrong.tolist(), strict=True)
    ]
    value, scale = 2 * min(errors), SCALES[int(np.argmin(errors))]
    if value >= 1:
        return {}
    meaning = (
        f"share of rows not seen that get a wrong label, from the {rows:,.0f} rows fitted (PAC-Bayes, μ = {scale:g})"
    )
    grade: Grade = "probabilistic"
    if not given:
        meaning, grade = f"{meaning}, if scales and widths taken from them cost nothing", "conditional"
    return {"pac_bayes": Bound("pac_bayes", value, meaning, grade, confidence=1 - delta, relative=False)}
