"""Linear systems. Least squares and ridge: :mod:`leyden.solve.lstsq`."""
