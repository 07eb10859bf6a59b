"""TLBs and paging-structure caches that are plain LRU, at the speed of vector registers.

Every set is a row of lanes in recency order. Accesses pass the levels in blocks that stay in the data cache,
and only the misses of a level reach the next one. What a level needs to know of an entry (its row, its own
number) is packed into one number, its *place*, so that it costs one look-up. Loops over a block end at a
negative sentinel, not at a count: LLVM unrolls counted loops, and several copies of the load of a row cost
more than they save. Figures and failures: docs/decisions/0003-fast-lru.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.lru.tables import EMPTY
from pagewalk.kernels.lru.vector import RUN, WIDTHS, changes, front, lowest, not_inlined, prefetch

BLOCK = 2048
"""Accesses that pass all levels together: their buffers fit the second-level data cache. Ours to choose."""

ROOM = BLOCK + RUN + 1
"""A block is full in the middle of a run; its end is marked."""

ONE = np.uint64(1)


def _by_width(loop_of: Callable[[int], Callable[..., Any]]) -> Any:
    """One loop for each width of a row, and the choice between them."""
    loop4, loop8, loop16, loop32, loop64, loop128 = (_named(loop_of(width), str(width)) for width in WIDTHS)

    def choose(rows, *rest):
        width = rows.width
        if width == 4:
            return loop4(rows, *rest)
        if width == 8:
            return loop8(rows, *rest)
        if width == 16:
            return loop16(rows, *rest)
        if width == 32:
            return loop32(rows, *rest)
        if width == 64:
            return loop64(rows, *rest)
        return loop128(rows, *rest)

    return _named(choose, loop_of.__name__)


def _named(function: Callable[..., Any], suffix: str) -> Any:
    """Compile a closure under a name of its own.

    Numba's names tell closures of one name apart by a number that differs from process to process; a loop
    from the cache would be taken for that of another width that was compiled in this process.
    """
    function.__qualname__ += suffix
    return inline(function)


def _ways_of(ways, row):
    """Ways of a row; compiled for an array and for one number, which stays in a register."""
    return ways[row] if np.ndim(ways) else ways


@overload(_ways_of)
def _ways_of_typed(ways, row):
    if isinstance(ways, types.Array):

        def looked_up(ways, row):
            return ways[row]

        return looked_up

    def the_same(ways, row):
        return ways

    return the_same


@inline
def _next_changes(page, start, before):
    """Bit i is set where record start + i is of another page than the record before it, for i < 64."""
    if 0 < start <= len(page) - RUN:
        return changes(page, start)
    mask = np.uint64(0)
    for i in range(start, min(start + RUN, len(page))):
        if page[i] != (page[i - 1] if i > 0 else before):
            mask |= ONE << np.uint64(i - start)
    return mask


def _l1_loop(width: int) -> Any:
    lanes_in_row = np.uint64(width)

    def l1_loop(rows, page, start, before, place, missed, at):
        """Send records through L1 from `start` on, until a block of them has missed.

        `before` is the page before the chunk. Returns where it ended and the number of misses, whose places
        and positions are in `missed` and `at`; no positions where `at` is None.
        """
        not_inlined()
        lanes, _, ways, _, row_mask, entry_at = rows
        n = np.uint64(0)
        while start < len(page) and n < BLOCK:
            change = _next_changes(page, start, before)
            while change == 0 and start + 2 * RUN <= len(page):
                start += RUN
                change = changes(page, start)
            ahead = np.uint64(RUN if start + 2 * RUN <= len(page) else 0)
            while change != 0:
                i = np.uint64(start + lowest(change))
                change &= change - ONE
                prefetch(place, page[i + ahead])
                here = place[page[i]]
                row = np.uint64(here & row_mask)
                missed[n] = here
                if at is not None:
                    at[n] = i
                lane = front(lanes, row * lanes_in_row, np.int32(here >> entry_at), width)
                n += np.uint64(np.uint64(lane) >= _ways_of(ways, row))
            start += RUN
        missed[n] = EMPTY
        return min(start, len(page)), np.int64(n)

    return l1_loop


def _stlb_loop(width: int) -> Any:
    lanes_in_row = np.uint64(width)

    def stlb_loop(rows, place, at, at_out, group, group_at):
        """Send the L1 misses of a block through the STLB."""
        not_inlined()
        lanes, _, ways, row_at, row_mask, entry_at = rows
        n = j = np.uint64(0)
        here = place[j]
        while here >= 0:
            row = np.uint64(here >> row_at & row_mask)
            if at is not None:
                at_out[n] = at[j]
            group[n] = here >> group_at
            lane = front(lanes, row * lanes_in_row, np.int32(here >> entry_at), width)
            n += np.uint64(np.uint64(lane) >= _ways_of(ways, row))
            j += ONE
            here = place[j]
        group[n] = EMPTY
        return np.int64(n)

    return stlb_loop


def _pass_loop(width: int) -> Any:
    lanes_in_row = np.uint64(width)

    def pass_loop(rows, place, entry, at, entry_out, at_out):
        """Send a stream through one level; `entry_out` and `at_out` may be `entry` and `at`."""
        not_inlined()
        lanes, ways = rows.lanes, rows.ways
        n = j = np.uint64(0)
        last = np.int32(EMPTY)
        below = entry[j]
        while below >= 0:
            here = place[np.uint64(below)]
            own = np.int32(here)
            row = np.uint64(here >> 32)
            if at is not None:
                where = at[j]
            j += ONE
            below = entry[j]
            if own == last and ways[row] > 0:
                continue
            last = own
            entry_out[n] = own
            if at is not None:
                at_out[n] = where
            lane = front(lanes, row * lanes_in_row, own, width)
            n += np.uint64(np.uint64(lane) >= ways[row])
        entry_out[n] = EMPTY
        return np.int64(n)

    return pass_loop


l1_block, stlb_block, _pass_block = _by_width(_l1_loop), _by_width(_stlb_loop), _by_width(_pass_loop)


@inline
def find_all(psc, group, at, walk, found, passed):
    """Look the walks of a block up in the paging-structure caches; `group` and `walk` are spent."""
    for cache in range(len(psc.begin)):
        n = _pass_block(psc.rows, psc.place[psc.begin[cache] :], group, at, group, walk)
        passed[cache] += n
        for i in range(n):
            found[np.uint64(walk[i])] = cache + 1
        at = walk


@inline
def pass_all(psc, group, passed):
    """As `find_all`; where each walk found an entry is not noted."""
    for cache in range(len(psc.begin)):
        n = _pass_block(psc.rows, psc.place[psc.begin[cache] :], group, None, group, None)
        passed[cache] += n


@jit
def lru_levels(page, place, l1, stlb, psc, last, misses):
    """Send a chunk through L1 and STLB, and its walks through the paging-structure caches.

    Parameters
    ----------
    page : ndarray of uint32
        The records: indices into `place`.
    place : ndarray of int64 or int32, shape (pages,)
        As `make_places` or `pack` make them.
    l1, stlb : Rows
    psc : Psc
    last : ndarray of int64, shape (1,)
        The page before the chunk, kept over calls; -1 at the start and whenever an entry was taken out.
    misses : Misses
        With room for the chunk; filled in.

    Returns
    -------
    l1_misses, stlb_misses : int
    """
    block = np.empty(ROOM, place.dtype)
    group, walk = np.empty(ROOM, np.int32), np.empty(ROOM, np.int32)
    nth = np.arange(ROOM).astype(np.int32)
    start = l1_misses = stlb_misses = 0
    while start < len(page):
        l1_at = misses.l1_at[l1_misses:]
        start, n = l1_block(l1, page, start, last[0], place, block, l1_at)
        l1_misses += n
        n = stlb_block(stlb, block, l1_at, misses.at[stlb_misses:], group, psc.group_at)
        found = misses.found[stlb_misses:]
        found[:n] = 0
        find_all(psc, group, nth, walk, found, misses.passed)
        stlb_misses += n
    if len(page) > 0:
        last[0] = page[len(page) - 1]
    return l1_misses, stlb_misses


@jit
def lru_totals(page, place, l1, stlb, psc, last, passed):
    """Send a chunk through all levels as `lru_levels` does; which access missed is not noted.

    Positions carried from level to level cost 12 % on a random stream: docs/decisions/0003-fast-lru.md.

    Parameters
    ----------
    page, place, l1, stlb, psc, last
        As of `lru_levels`.
    passed : ndarray of int64, shape (caches,)
        Walks that found nothing in each paging-structure cache and those below are added.

    Returns
    -------
    l1_misses, stlb_misses : int
    """
    block, group = np.empty(ROOM, place.dtype), np.empty(ROOM, np.int32)
    start = l1_misses = stlb_misses = 0
    while start < len(page):
        start, n = l1_block(l1, page, start, last[0], place, block, None)
        l1_misses += n
        n = stlb_block(stlb, block, None, None, group, psc.group_at)
        stlb_misses += n
        pass_all(psc, group, passed)
    if len(page) > 0:
        last[0] = page[len(page) - 1]
    return l1_misses, stlb_misses
