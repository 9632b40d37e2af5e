"""Factorizations: truncated SVD, PCA and QR."""
