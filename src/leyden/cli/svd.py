"""``leyden svd``: from a file to singular values and vectors with a certificate."""

from __future__ import annotations

from leyden.cli import factor
from leyden.cli.options import Cluster, Out, Output, Plot, Reading, Triplets


def svd(
    reading: Reading, problem: Triplets, cluster: Cluster, output: Output, out: Out = None, plot: Plot = None
) -> None:
    """Find the leading singular values and vectors, and certify them."""
    from leyden.factor.svd import svd as decompose

    factor.run(decompose, reading, problem, cluster, output, factor.Places(out, plot, problem.left))
