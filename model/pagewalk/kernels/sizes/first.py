"""The first level alone: what misses in it goes on to many second levels."""

import numpy as np

from pagewalk.kernels._jit import jit
from pagewalk.kernels.lru.rows import ROOM, l1_block
from pagewalk.kernels.lru.tables import NUMBER_AT


@jit
def l1_misses(page, place, l1, last, unit):
    """Send a chunk through L1.

    Parameters
    ----------
    page : ndarray of uint32
        The records: indices into `place`.
    place : ndarray of int64, shape (pages,)
        As `make_places` makes them; the first number is that of the unit, the second row is not read.
    l1 : Rows
    last : ndarray of int64, shape (1,)
        The page before the chunk, kept over calls; -1 at the start.
    unit : ndarray of int32, shape (at least len(page),)
        Gets the units of the misses, in order.

    Returns
    -------
    misses : int
    """
    block = np.empty(ROOM, np.int64)
    start = misses = 0
    while start < len(page):
        start, n = l1_block(l1, page, start, last[0], place, block, None)
        for j in range(n):
            unit[misses + j] = block[j] >> NUMBER_AT
        misses += n
    if len(page) > 0:
        last[0] = page[len(page) - 1]
    return misses
