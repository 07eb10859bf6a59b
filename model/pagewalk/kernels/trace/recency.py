"""How long ago each access's page was accessed before: the strata of a sample."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit

NEVER = (1 << 63) - 1
LONGEST = 40
"""log2 of the longest gap that is told apart."""
FIRST, DROPPED = LONGEST + 1, LONGEST + 2
"""The first access ever; the first since a flush of everything."""
EVENTFUL = LONGEST + 3
"""Added where something else was flushed, unmapped or switched in the meantime."""
FETCHED = 2 * EVENTFUL
"""Added for instruction fetches."""
STRATA = 2 * FETCHED
FAR = 10
"""log2 of the gap from which on an access is kept: few first levels still hold the page (ours)."""


@inline
def _bits(gap: int) -> int:
    bits = 0
    while gap and bits < LONGEST:
        gap >>= 1
        bits += 1
    return bits


@jit
def note(
    page: NDArray[np.uint32],
    fetch: NDArray[np.uint8],
    cpu: NDArray[np.uint8],
    start: int,
    last: NDArray[np.int64],
    first: NDArray[np.int64],
    happened: NDArray[np.int64],
    stratum: NDArray[np.uint8],
    count: NDArray[np.int64],
    far: NDArray[np.int64],
    kept: NDArray[np.int64],
) -> None:
    """Note the accesses from position `start` on.

    Parameters
    ----------
    page, fetch, cpu : parallel arrays
        `fetch` is 1 for instruction fetches, else 0.
    start : int
    last, first : ndarray of int64, shape (cpus, 2, distinct)
        Position of each CPU's last and first data access to each page, and fetch. `last` is -1 for none since
        a flush of everything, `first` is NEVER for none.
    happened : ndarray of int64, shape (cpus,)
        Position of each CPU's last event.
    stratum : ndarray of uint8
        Written: the stratum of each access, below STRATA.
    count : ndarray of int64, shape (STRATA,)
        Accesses in each; counted on.
    far : ndarray of int64, shape (any, 4)
        A ring of the latest accesses with a gap of 2**(FAR - 1) or more: position, CPU, fetch, page.
    kept : ndarray of int64, shape (1,)
        How many were put into it so far.
    """
    for i in range(len(page)):
        who, how, which = int(cpu[i]), int(fetch[i]), int(page[i])
        now, before = start + i, int(last[who, how, which])
        if before >= 0:
            found = _bits(now - before)
            if before < happened[who]:
                found += EVENTFUL
        elif first[who, how, which] == NEVER:
            found = FIRST
            first[who, how, which] = now
        else:
            found = DROPPED
        last[who, how, which] = now
        if found % EVENTFUL >= FAR:
            slot = kept[0] % len(far)
            far[slot, 0] = now
            far[slot, 1] = who
            far[slot, 2] = how
            far[slot, 3] = which
            kept[0] += 1
        found += FETCHED * how
        stratum[i] = found
        count[found] += 1
