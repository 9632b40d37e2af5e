"""Least squares with crossed factors of many levels."""
