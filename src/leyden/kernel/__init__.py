"""Kernel machines at linear cost: random features, made again tile by tile and never stored, and what is fitted on them."""
