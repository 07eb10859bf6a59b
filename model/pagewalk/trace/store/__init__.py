"""The trace folder on disk: one file for each column."""
