"""Compiled loops. Sealed: these files import numpy, numba and each other, nothing else of the package."""
