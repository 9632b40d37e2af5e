"""Mixed models: coefficients that all groups share, and coefficients of each group."""
