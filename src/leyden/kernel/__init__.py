"""Kernel machines at linear cost: random features, made tile by tile and never stored, and what is fitted on them."""
