"""What the kernel decides: which addresses exist, with which leaf size, what changing them costs."""
