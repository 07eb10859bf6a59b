"""Synthetic traces: kinds as data, their spelling, and the accesses they stand for."""
