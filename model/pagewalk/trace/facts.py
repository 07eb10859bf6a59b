"""What is in a trace: how often each page is read, written and fetched from."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagewalk.trace.trace import FETCH, STORE, Trace


@dataclass(frozen=True)
class Facts:
    """Counts for each distinct page, and how data accesses follow one another.

    Attributes
    ----------
    loads, stores, fetches : ndarray of int64, shape (distinct,)
        Records on each page, parallel to ``Trace.pages``.
    runs : int
        Runs of consecutive data accesses on one page; fetches between them do not end a run.
    """

    loads: NDArray[np.int64]
    stores: NDArray[np.int64]
    fetches: NDArray[np.int64]
    runs: int

    @property
    def data(self) -> NDArray[np.int64]:
        """Loads and stores on each page."""
        return self.loads + self.stores


def facts(trace: Trace, progress: Callable[[int], None] | None = None) -> Facts:
    """Read a trace once and count.

    Parameters
    ----------
    trace : Trace
    progress : callable, optional
        Called with the number of records read since the last call.

    Raises
    ------
    BadInput
        If the trace turns out damaged.
    """
    from pagewalk.kernels.trace.encode import tally

    count = np.zeros((len(trace.pages), 3), np.int64)
    runs, last = 0, -1
    for chunk in trace.chunks("flags"):
        page = np.array(chunk.page, np.int64)
        flags = np.zeros(len(page), np.uint8) if chunk.flags is None else np.array(chunk.flags)
        kind = np.where(flags & FETCH, np.uint8(2), (flags & STORE) // STORE)
        runs, last = tally(page, kind, count, runs, last)
        if progress is not None:
            progress(len(page))
    loads, stores, fetches = np.ascontiguousarray(count.T)
    return Facts(loads, stores, fetches, runs)
