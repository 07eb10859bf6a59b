"""Readers of other tools' formats: each turns a file into raw accesses."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pagewalk.trace.encode import Raw
from pagewalk.trace.readers import npy


class Reader(NamedTuple):
    """A format that `open_trace` can read."""

    name: str
    recognises: Callable[[Path, bytes], bool]
    """Whether a file, given its name and its first bytes, is of this format."""
    read: Callable[[Path], Raw]


READERS = (Reader("npy", npy.recognises, npy.read),)
"""Asked in this order; the first that recognises a file reads it."""
