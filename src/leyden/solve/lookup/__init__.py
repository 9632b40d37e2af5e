"""Mixed models whose features are looked up by item: ``leyden.mixed(ratings, random=table)``.

===================  ==================================================================================================
file                 what it does
===================  ==================================================================================================
``model``            the system, what is asked, planned and run
``problem``          tables of features, whitened and checked
``passes``           the two passes: Schur complement and residual
``certificate``      how wrong the answer can be
``variance``         a variance from a part of the groups
``result``           what comes back, and coefficients of groups when they are asked for
===================  ==================================================================================================
"""
