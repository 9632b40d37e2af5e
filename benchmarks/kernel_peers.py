"""Forest Cover, class 2 against the rest: seconds to an error on 59,012 test rows, beside scikit-learn.

522,000 training rows of 54 columns, standardised for all. Leyden learns its widths, one a column, in the time that is
counted, but where it is said to have one width. The one width of scikit-learn's kernels, and C of its support vector
machine, are the best of those below on 20,000 rows held out of the training ones, found beforehand and not counted; nor
is the scale of the widths of random bins counted. A support vector machine on all rows takes a day (44 hours in 2007):
it is given a part of them, and its time grows with the square of that.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from harness import compare, peak_rss
from kernel_2007 import forest

LEYDEN = {"leyden D=1000": 1000, "leyden D=2000": 2000, "leyden D=5000": 5000}
BINNING = {
    "leyden binning P=5, one width": (5, {"width": "median", "scale": 0.04, "regularization": 2e-6}),
    "leyden binning P=20, one width": (20, {"width": "median", "scale": 0.04}),
    "leyden binning P=10": (10, {}),
    "leyden binning P=50": (50, {}),
}
SVC = {f"sklearn SVC, {rows:,} rows": rows for rows in (20_000, 40_000)}
OTHERS = ["sklearn RBFSampler(2000) + RidgeClassifier", "sklearn RBFSampler(2000) + SGDClassifier",
          "sklearn Nystroem(1000) + LinearSVC"]  # fmt: skip


def scaled():
    x, y, xt, yt = forest(0)
    mean, size = x.mean(axis=0), x.std(axis=0)
    return ((x - mean) / size).astype(np.float32), y, ((xt - mean) / size).astype(np.float32), yt


def measure(configuration: str) -> dict:
    x, y, xt, yt = scaled()
    if configuration in (LEYDEN | BINNING):
        import leyden as ly

        options = {"classify": True, "width": "learned", "held_out": 0, "tol": 3e-2, "regularization": 1e-7}
        size = LEYDEN.get(configuration)
        if size is None:
            size, own = BINNING[configuration]
            options |= {"map": "binning", "kernel": "laplacian", "scale": 0.25, "regularization": 6e-7} | own
        ly.kernel_machine(x[:5000], y[:5000], features=10, **options)  # compiled before it is timed
        began = time.perf_counter()
        found = ly.kernel_machine(x, y, features=size, **options)
        seconds = time.perf_counter() - began
        if not found.certificate.holds:
            raise SystemExit(str(found.certificate))
        return {
            "seconds": seconds, "error": found.error(xt, yt), "duality_gap": found.certificate.duality_gap,
            "peak_nbytes": peak_rss(),
        }  # fmt: skip
    gammas = (0.01, 0.03, 0.1, 0.3)
    if configuration in SVC:
        from sklearn.svm import SVC as Machine

        fitted, scored = slice(-30_000, -20_000), slice(-20_000, -15_000)
        trials = [
            (Machine(C=c, gamma=g, cache_size=2000).fit(x[fitted], y[fitted]).score(x[scored], y[scored]), c, g)
            for c in (10, 100) for g in (0.1, 0.3, 1.0)
        ]  # fmt: skip
        _, c, g = max(trials)
        model = Machine(C=c, gamma=g, cache_size=4000)
        rows = SVC[configuration]
        chosen = {"C": c, "gamma": g, "rows": rows}
    else:
        from sklearn.kernel_approximation import Nystroem, RBFSampler
        from sklearn.linear_model import RidgeClassifier, SGDClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import LinearSVC

        def make(gamma, size):
            if "Nystroem" in configuration:
                return make_pipeline(Nystroem(gamma=gamma, n_components=size, random_state=0), LinearSVC(C=1.0))
            last = RidgeClassifier(alpha=0.05) if "Ridge" in configuration else SGDClassifier(max_iter=10, tol=None)
            return make_pipeline(RBFSampler(gamma=gamma, n_components=size, random_state=0), last)

        size = 1000 if "Nystroem" in configuration else 2000
        trials = [(make(g, size // 2).fit(x[-40_000:-20_000], y[-40_000:-20_000]).score(x[-20_000:], y[-20_000:]), g)
                  for g in gammas]  # fmt: skip
        model, rows, chosen = make(max(trials)[1], size), len(x), {"gamma": max(trials)[1]}
    began = time.perf_counter()
    model.fit(x[:rows], y[:rows])
    seconds = time.perf_counter() - began
    wrong = sum(
        int((model.predict(xt[a : a + 4096]) != yt[a : a + 4096]).sum()) for a in range(0, len(xt), 4096)
    )  # fmt: skip
    return {"seconds": seconds, "error": wrong / len(xt), **chosen, "peak_nbytes": peak_rss()}


if __name__ == "__main__":
    compare("kernel_peers", measure, [*LEYDEN, *BINNING, *OTHERS, *SVC], lambda: None, limit_s=560)
    print("done", file=sys.stderr)
