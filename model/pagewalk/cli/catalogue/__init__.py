"""machines, kernels."""
