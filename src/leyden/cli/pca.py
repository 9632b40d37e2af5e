"""``leyden pca``: from a file to principal components with a certificate."""

from __future__ import annotations

from leyden.cli import factor
from leyden.cli.options import Cluster, Components, Out, Output, Plot, Reading


def pca(
    reading: Reading, problem: Components, cluster: Cluster, output: Output, out: Out = None, plot: Plot = None
) -> None:
    """Find principal components, and certify them."""
    from leyden.factor.svd import pca as decompose

    factor.run(decompose, reading, problem, cluster, output, factor.Places(out, plot, problem.scores))
