"""Compiled for an NVIDIA GPU: the second levels of a sweep, a block of warps for each table of LRU rows."""
