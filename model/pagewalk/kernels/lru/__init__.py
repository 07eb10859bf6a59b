"""Plain LRU, many lanes at a time, and all sizes at once; sealed as all kernels are."""
