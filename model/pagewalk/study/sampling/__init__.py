"""Misses of a whole trace from windows of it: taking them, estimating from them, the answer."""
