"""Least squares with crossed factors of many levels: ``leyden.mixed("y ~ x | worker + firm", data)``.

===========================  ==========================================================================================
file                         what it does
===========================  ==========================================================================================
``model``                    from formula and table to estimates, standard errors and a page
``absorb``                   the algorithm, from rows to coefficients
``table``, ``threads``       rows in memory, a block at a time, by several threads
``cells``, ``schur``         pairs of levels that meet, and the system that is left when a factor is eliminated
``conjugate_gradients``      solves it, four right-hand sides side by side
``preconditioner``           diagonal, or sums over pairs of factors of
``approximate_cholesky``     factors of graph Laplacians
``projection``               which of them, and when to change
``components``               what hangs together, and how many parameters that leaves
``forest``                   a bound on errors by a flow along a spanning forest
``absorb_certificate``       how wrong the answer can be
``sandwich``                 covariances robust to heteroskedasticity and clusters
===========================  ==========================================================================================
"""
