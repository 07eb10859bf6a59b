"""Columns that were worked out once and are read many times: in nameless temporary files, never in memory.

A file that has no name is gone when its trace is, however the process ends. It lies where ``TMPDIR`` says,
else in ``/var/tmp``, which unlike ``/tmp`` is on no file system that lives in memory.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

LASTING = Path("/var/tmp")


class Column:
    """A column under way, a chunk at a time."""

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        folder = LASTING if not os.environ.get("TMPDIR") and os.access(LASTING, os.W_OK) else None
        try:
            self._file: Any = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 - see close
        except OSError:
            self._file = None

    def add(self, records: NDArray[Any]) -> None:
        """Write the next records; where there is no room for them the whole column is given up."""
        if self._file is None or not len(records):
            return
        left = np.ascontiguousarray(records, self.dtype).data.cast("B")
        try:
            while len(left):
                left = left[self._file.write(left) :]
        except OSError:
            self.close()

    def done(self) -> "Kept | None":
        """What was written, to be read; None if it was given up, or nothing was written."""
        if self._file is None or not (size := self._file.tell()):
            return None
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)  # known to Python from 3.13 on
        return Kept(mmap.mmap(self._file.fileno(), size, flags=flags), self.dtype)

    def close(self) -> None:
        """Write no more; what `done` gave stays."""
        if self._file is not None:
            self._file.close()
        self._file = None


class Kept:
    """A column to be read in order. What was read is let go of: it takes no memory of this process."""

    def __init__(self, memory: mmap.mmap, dtype: np.dtype[Any]) -> None:
        self._memory = memory
        self._records = np.frombuffer(memory, dtype)

    def parts(self, size: int) -> Iterator[NDArray[Any]]:
        """Yield the records, `size` at a time. They are not to be changed, though numpy would allow it."""
        behind = 0
        for start in range(0, len(self._records), size):
            part = self._records[start : start + size]
            yield part
            end = (start * part.itemsize + part.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
            if end > behind:
                self._memory.madvise(mmap.MADV_DONTNEED, behind, end - behind)
            behind = end
