"""Sweeps: a grid of machines, changed fields, mappings and traces, one row for each cell."""
