"""Enclosures of singular values against sixty digits, on thousands of hostile small matrices: how many hold the truth.

The matrices, and the truth, are those of the tests (``tests/factor/spectra.py``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from harness import compare

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "factor"))
CASES = 600


def measure(method: str) -> dict:
    import spectra

    import leyden as ly

    values = wrong = kept = 0
    widths, residuals = [], []
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        d, n = int(rng.integers(1, 13)), int(rng.integers(1, 40))
        if method == "outer":
            n, d = min(n, d), max(n, d) + 1
        kind = sorted(spectra.SPECTRA)[rng.integers(len(spectra.SPECTRA))]
        a = spectra.matrix(kind, n, d, rng)
        found = ly.svd(a, int(rng.integers(1, min(n, d) + 1)), method=method, seed=seed)
        truth = spectra.singular_values(a)
        values += len(found.s)
        wrong += len(spectra.outside(found.lower, found.upper, truth))
        kept += found.certificate.holds
        top = float(truth[0]) or 1.0
        widths.append(float((found.upper - found.lower).max() / top))
        residuals.append(found.certificate.bounds["residual"].value)
    return {
        "matrices": CASES,
        "singular_values": values,
        "outside_their_enclosure": wrong,
        "certificates_that_hold": kept,
        "width_median": float(np.median(widths)),
        "width_90": float(np.quantile(widths, 0.9)),
        "width_largest": max(widths),
        "residual_largest": max(r for r in residuals if np.isfinite(r)),
    }


if __name__ == "__main__":
    compare("enclosures", measure, ["gram", "krylov", "outer", "sketch"], lambda: None)
