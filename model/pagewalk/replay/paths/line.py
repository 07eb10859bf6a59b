"""What one stage of a replay hands to the next, and how: at once, or to a thread of its own."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

AHEAD = 2
"""Pieces of work that may wait or be under way. Ours to choose."""


class Found(NamedTuple):
    """What the TLBs made of a chunk."""

    accesses: int
    fetches: int
    l1_at: NDArray[Any]
    """Positions in the chunk of L1 misses."""
    stlb_at: NDArray[Any]
    """Of STLB misses."""
    walk: Callable[[NDArray[np.int64]], int]
    """Walk for each STLB miss, given their positions among the replayed accesses; returns the cycles of all
    walks. To be called once, chunk after chunk; it reads nothing that the next chunk changes."""


class Line:
    """Where one stage hands its work on, in order. To be used in a ``with`` where there is a thread.

    Parameters
    ----------
    threads : int
        1: work is done at once, by who hands it on; more: by a thread of its own, one piece after the other.
    """

    def __init__(self, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(1) if threads > 1 else None
        self._under_way: deque[Future[None]] = deque()

    @property
    def apart(self) -> bool:
        """Whether a thread of its own does the work."""
        return self._pool is not None

    def hand(self, work: Callable[[], None]) -> None:
        """Hand on a piece of work; wait while `AHEAD` are under way. Raises what an earlier one raised."""
        if self._pool is None:
            work()
            return
        while len(self._under_way) >= AHEAD:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(work))

    def wait(self) -> None:
        """Return when all is done."""
        while self._under_way:
            self._under_way.popleft().result()

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
