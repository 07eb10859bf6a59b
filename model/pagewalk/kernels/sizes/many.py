"""Many second levels, and the walk caches behind each, in one pass: a lane for each of them.

Second levels that place units in the same sets differ in their ways alone; one table of LRU rows serves them:
where in its row a miss of the first level finds its unit is its depth, and it misses in all of no more ways
(Mattson 1970): in the first lanes of the table. Walk caches keep, for each set and way, the entries of all
lanes side by side in 8 or 16 bits, so that vector steps look up and move all of them at once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.lru.rows import ONE, ROOM, l1_block
from pagewalk.kernels.lru.tables import NUMBER_AT
from pagewalk.kernels.lru.vector import front, not_inlined
from pagewalk.kernels.sizes.lanes import LANES, TABLES, WAYS, ask, look_up

MOST = np.uint64(WAYS)

FULL = 255
"""Additions after which a small counter is emptied: it may have 8 bits."""


class Seconds(NamedTuple):
    """Second levels: one table of rows for each way to place units in sets."""

    lanes: NDArray[np.int32]
    """int32: the rows of all tables, `WAYS` lanes each, aligned to 64 bytes."""
    first: NDArray[np.uint64]
    """uint64 (tables,): first row of each of at most `TABLES` tables."""
    set_of: NDArray[np.uint16]
    """uint16 (units, TABLES): set of each unit in each table; 0 where there are fewer."""
    depths: NDArray[np.int64]
    """int64 (classes, tables, WAYS + 1): misses of the first level by depth; counted."""


class Walks(NamedTuple):
    """Walk caches of all lanes."""

    ways: NDArray[np.int64]
    """int64 (caches,), from the lowest table level up."""
    first: NDArray[np.int8]
    """int8 (units,): the lowest cache that a walk of the unit probes."""
    row: NDArray[np.int32]
    """int32 (caches, units): first of the rows, in `held`, of the unit's set."""
    key: np.ndarray
    """uint8 or uint16 (caches, units): the unit's entry, among those of its set; not the largest number."""
    held: np.ndarray
    """As `key`, (rows, LANES): a row for each way of each set, most recent first; the largest is none."""
    passed: NDArray[np.int64]
    """int64 (classes * caches, LANES): walks of each class that found nothing in each cache and those
    below it, by lane; counted."""


@inline
def _sets(set_of, class_of, block, sets, kind):
    """Write for each miss of a block its class, and its set in every table, table after table."""
    not_inlined()
    j = np.uint64(0)
    here = block[j]
    while here >= 0:
        unit = np.uint64(here >> NUMBER_AT)
        kind[j] = class_of[unit]
        for table in range(TABLES):
            sets[table, j] = set_of[unit, table]
        j += ONE
        here = block[j]


@inline
def _depths(lanes, first, sets, block, kind, table, depth, counted):
    """Send a block through the rows of one table, which begin at `first`; note depths and count them."""
    not_inlined()
    j = np.uint64(0)
    here = block[j]
    while here >= 0:
        row = first + np.uint64(sets[j])
        lane = np.uint64(front(lanes, row * MOST, np.int32(here >> NUMBER_AT), WAYS))
        lane = min(lane, MOST)
        depth[j, table] = lane
        counted[kind[j], table, lane] += 1
        j += ONE
        here = block[j]


@inline
def _empty(few, passed):
    """Move the small counters to the large ones."""
    for count in range(len(few)):
        for c in range(LANES):
            passed[count, c] += few[count, c]
            few[count, c] = 0


@jit
def many_levels(page, place, class_of, l1, last, seconds, walks):
    """Send a chunk through L1, and its misses through all second levels and their walk caches.

    Parameters
    ----------
    page : ndarray of uint32
        The records: indices into `place`.
    place : ndarray of int64, shape (pages,)
        As `make_places` makes them; the first number is that of the unit, the second row is not read.
    class_of : ndarray of int8, shape (units,)
        What walks are counted by.
    l1 : Rows
    last : ndarray of int64, shape (1,)
        The page before the chunk, kept over calls; -1 at the start.
    seconds : Seconds
        Kept over calls; its depths are added to.
    walks : Walks
        Kept over calls; `passed` is added to.

    Returns
    -------
    l1_misses : int
    """
    tables, caches = len(seconds.first), len(walks.ways)
    classes = len(seconds.depths)
    block = np.empty(ROOM, np.int64)
    sets, kind = np.empty((TABLES, ROOM), np.uint16), np.empty(ROOM, np.int8)
    depth = np.zeros((ROOM, TABLES), np.uint8)
    looking = np.zeros(LANES, walks.held.dtype)
    few = np.zeros((classes * caches, LANES), walks.held.dtype)
    added = 0
    start = l1_misses = 0
    while start < len(page):
        start, n = l1_block(l1, page, start, last[0], place, block, None)
        l1_misses += n
        _sets(seconds.set_of, class_of, block, sets, kind)
        for table in range(tables):
            first = seconds.first[table]
            _depths(seconds.lanes, first, sets[table], block, kind, table, depth, seconds.depths)
        if caches == 0:
            continue
        for j in range(n):
            unit = np.uint64(block[j] >> NUMBER_AT)
            cache = np.int64(walks.first[unit])
            missing = ask(looking, depth, j)
            while missing and cache < caches:
                row, ways, key = walks.row[cache, unit], walks.ways[cache], walks.key[cache, unit]
                missing = look_up(walks.held, row, ways, key, looking, few, kind[j] * caches + cache)
                cache += 1
            added += 1
            if added == FULL:
                _empty(few, walks.passed)
                added = 0
    _empty(few, walks.passed)
    if len(page) > 0:
        last[0] = page[len(page) - 1]
    return l1_misses
