"""Linear mixed models.

===================  ==================================================================================================
file                 what it does
===================  ==================================================================================================
``formula``          reads ``y ~ x + (1 + x | g)``
``groups``           numbers the groups of a column, or of several
``design``           turns a table into rows ``[x | z₁ | z₂ …]``
``products``         the two passes: a QR factorization for coordinates, and cross-products in them
``elimination``      takes the largest term out of the system, group by group
``likelihood``       ``−2 ℓ`` and its gradient, from sums
``estimate``         the covariances that make it least
``certify``          how wrong the coefficients can be, from one more pass
``intervals``        by curvature and by profile
``model``            ``leyden.mixed``: what is asked, planned, run and verified
``result``           what comes back; ``summary`` prints it
===================  ==================================================================================================
"""
