r"""Losses of kernel machines, and what Newton's method asks of them.

With scores f and targets y (of classes: ±1), each convex in f:

=============  =========================  ====================  =======================
name           ℓ(f, y)                    ∂ℓ/∂f                 ∂²ℓ/∂f², at most
=============  =========================  ====================  =======================
squared        ½ (f − y)²                 f − y                 1
logistic       log(1 + exp(−y f))         −y / (1 + exp(y f))   ¼
squared_hinge  ½ max(0, 1 − y f)²         −y max(0, 1 − y f)    1 (where y f < 1, else 0)
=============  =========================  ====================  =======================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit


@dataclass(frozen=True)
class Loss:
    """One of the losses.

    Attributes
    ----------
    name : str
    most : float
        What the curvature stays below.
    quadratic : bool
        Whether the curvature is the same everywhere, so that Newton's first step is the last.
    """

    name: str

    @property
    def most(self) -> float:
        return 0.25 if self.name == "logistic" else 1.0

    @property
    def quadratic(self) -> bool:
        return self.name == "squared"

    def value(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """ℓ, entry by entry."""
        if self.name == "squared":
            return 0.5 * (f - y) ** 2
        if self.name == "logistic":
            return np.logaddexp(0, -y * f)
        return 0.5 * np.maximum(0, 1 - y * f) ** 2

    def slope(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """∂ℓ/∂f."""
        if self.name == "squared":
            return f - y
        if self.name == "logistic":
            return -y * expit(-y * f)
        return -y * np.maximum(0, 1 - y * f)

    def curvature(self, f: np.ndarray, y: np.ndarray) -> np.ndarray:
        """∂²ℓ/∂f²; of the squared hinge one of those that its slope has to either side."""
        if self.name == "squared":
            return np.ones_like(f)
        if self.name == "logistic":
            p = expit(y * f)
            return p * (1 - p)
        return (y * f < 1).astype(f.dtype)


LOSSES = {name: Loss(name) for name in ("squared", "logistic", "squared_hinge")}
