"""What is in a trace: how often each page is read, written and fetched from, and in runs of what length."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagewalk.trace.trace import FETCH, STORE, Trace


@dataclass(frozen=True)
class Facts:
    """Counts for each distinct page, parallel to ``Trace.pages``; int64.

    Attributes
    ----------
    loads, stores, fetches : ndarray, shape (distinct,)
        Records on each page.
    runs : ndarray, shape (distinct, 4)
        Runs of consecutive records on each page: among the loads alone, the stores alone, the fetches alone,
        and all data accesses; records of another kind between them do not end a run.
    by_cpu : ndarray, shape (cpus,)
        Records of each CPU.
    """

    loads: NDArray[np.int64]
    stores: NDArray[np.int64]
    fetches: NDArray[np.int64]
    runs: NDArray[np.int64]
    by_cpu: NDArray[np.int64]

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

    count, runs = (np.zeros((len(trace.pages), columns), np.int64) for columns in (3, 4))
    last, by_cpu = np.full(4, -1, np.int64), np.zeros(trace.cpus, np.int64)
    for chunk in trace.chunks("flags", "cpu"):
        page = np.array(chunk.page, np.int64)
        flags = np.zeros(len(page), np.uint8) if chunk.flags is None else np.array(chunk.flags)
        kind = np.where(flags & FETCH, np.uint8(2), (flags & STORE) // STORE)
        tally(page, kind, count, runs, last)
        if chunk.cpu is None:
            by_cpu[0] += len(page)
        else:
            by_cpu += np.bincount(chunk.cpu, minlength=trace.cpus)
        if progress is not None:
            progress(len(page))
    loads, stores, fetches = np.ascontiguousarray(count.T)
    return Facts(loads, stores, fetches, runs, by_cpu)
