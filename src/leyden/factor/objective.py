r"""The objective of matrix factorization, explicit and implicit, in one form.

.. math::

    F(U, V) = ½ Σ_{(i,j)∈Ω} ω_ij (τ_ij − u_i·v_j)² + c + \frac{α₀}{2} Σ_{(i,j)∉Ω} (u_i·v_j)²
              + ½ Σ_i λ_i ‖u_i‖² + ½ Σ_j ν_j ‖v_j‖²

==================  =============  ===============  ==================  ======  =====================================
ratings             ω              τ                c (a rating)        α₀      source
==================  =============  ===============  ==================  ======  =====================================
explicit            1              r − μ            0                   0
implicit            1 + α r        1                0                   1       Hu, Koren, Volinsky, ICDM 2008
with a background   1 + α₀         1 / (1 + α₀)     ½ α₀ / (1 + α₀)     α₀      Bayer et al., WWW 2017; Rendle et al.,
                                                                                RecSys 2022
==================  =============  ===============  ==================  ======  =====================================

The last is ``½ Σ_Ω (1 − u·v)² + ½ α₀ Σ_all (u·v)²``. With ``w = ω − α₀`` and ``t = ω τ / w`` the entries of Ω and a
quadratic form that all rows share separate: ``½ Σ_Ω w (t − u·v)² + ½ α₀ Σ_all (u·v)² + constant``, which is what a
half-step solves. λ_i = λ (n_i + α₀ N)^ν for a user with n_i ratings of N items, and ν_j in the same way (the frequency
scaling of Zhou et al. 2008 for ν = 1; of Rendle et al. with a background); with α₀ = 0, n_i counts as at least one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes
    ----------
    regularization : float
        λ.
    scaling : float
        ν.
    implicit : bool
    alpha : float
        Weight of a value of implicit feedback; not used with a background.
    base : float
        Weight of an observed entry of value zero: weights are ``base + alpha value``. With zero: those of the package
        implicit.
    background : float or None
        α₀ of the formulation in which observed entries weigh one. None: that of Hu et al.
    mean : float
        μ, taken off explicit ratings.
    """

    regularization: float
    scaling: float = 0.0
    implicit: bool = False
    alpha: float = 1.0
    base: float = 1.0
    background: float | None = None
    mean: float = 0.0

    @property
    def unobserved(self) -> float:
        """α₀."""
        if not self.implicit:
            return 0.0
        return 1.0 if self.background is None else self.background

    @property
    def whole(self) -> np.ndarray:
        """``ω = c[0] + c[1] r`` and ``ω τ = c[2] + c[3] r``."""
        if not self.implicit:
            return np.array([1.0, 0.0, -self.mean, 1.0])
        if self.background is None:
            return np.array([self.base, self.alpha, self.base, self.alpha])
        return np.array([1.0 + self.background, 0.0, 1.0, 0.0])

    @property
    def model(self) -> np.ndarray:
        """``w = m[0] + m[1] r`` and ``w t = m[2] + m[3] r``: what half-steps solve."""
        return self.whole - np.array([self.unobserved, 0.0, 0.0, 0.0])

    @property
    def constant(self) -> float:
        """c of one rating."""
        return 0.0 if not self.implicit or self.background is None else 0.5 * self.background / (1 + self.background)

    def shift(self, values: np.ndarray) -> float:
        """The constant of the separated form: what is to be added to the sum of least values of half-steps."""
        if not self.implicit:
            return 0.0
        if self.background is not None:
            # ½ (1 − x)² + ½ α₀ x² is as it stands.
            return 0.0
        w = (self.base - 1.0) + self.alpha * np.asarray(values, np.float64)
        return float(-0.5 * ((w + 1.0) / w).sum())

    def penalties(self, most: int, others: int) -> np.ndarray:
        """λ of a row by its number of entries, up to ``most``, when there are ``others`` rows on the other side."""
        counts = np.arange(most + 1, dtype=np.float64)
        effective = np.maximum(counts, 1.0) if not self.implicit else counts + self.unobserved * others
        return self.regularization * effective**self.scaling
