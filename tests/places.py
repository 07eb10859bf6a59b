"""Where things lie that tests read."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TEST_DATA = REPOSITORY / "tests" / "data"
"""Real files of kernels and tools."""
OUTSIDE = REPOSITORY.parent / "shared"
"""Recordings and references that are no part of the project; tests that use them skip without them."""
