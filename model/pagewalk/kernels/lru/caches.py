"""The data caches of one CPU as rows of lanes, where all are LRU and only page-table reads enter them.

The lines that walks can read are known before the replay starts, so a line is a small number, its sets are
looked up, and a set is a row as in `pagewalk.kernels.lru.rows`. Counts are those of `general.caches`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.lru.tables import EMPTY, Rows, make_rows
from pagewalk.kernels.lru.vector import front, lane_of, not_inlined

MAX_WAYS = 32
"""Ways of a set that fit."""


class Caches(NamedTuple):
    """The levels from the walker's entry outwards, in one table of rows; memory comes behind the last."""

    rows: Rows
    row: NDArray[np.int32]
    """int32 (lines, levels): row of each line at each level."""
    ways: NDArray[np.int64]
    """int64 (levels,)"""
    victim: NDArray[np.bool_]
    """bool (levels + 1,): only what the level before evicts enters the level; False for memory."""
    inclusive: NDArray[np.bool_]
    """bool (levels,): what the level evicts is dropped from those before it."""
    latency: NDArray[np.int64]
    """int64 (levels + 1,): cycles of a read found there."""


def make_caches(
    set_of: NDArray[np.int64],
    sets: NDArray[np.int64],
    ways: NDArray[np.int64],
    victim: NDArray[np.bool_],
    inclusive: NDArray[np.bool_],
    latency: NDArray[np.int64],
) -> Caches:
    """Empty caches.

    Parameters
    ----------
    set_of : ndarray of int64, shape (lines, levels)
        Set of each line in each level.
    sets, ways, inclusive : ndarray, shape (levels,)
        Of each level; `ways` at most `MAX_WAYS`.
    victim, latency : ndarray, shape (levels + 1,)
        Of each level and memory.
    """
    row = (set_of + (np.cumsum(sets) - sets)).astype(np.int32)
    rows = make_rows(np.append(np.repeat(ways, sets), 16))
    return Caches(rows, np.ascontiguousarray(row), ways, victim, inclusive, latency)


def _reads_loop(width: int) -> Callable[..., Any]:
    lanes_in_row = np.int64(width)

    def reads_loop(caches, unit, top, leaf_level, line_of, cycles, found):
        not_inlined()
        rows, row_of, all_ways, victim, inclusive, latency = caches
        lanes = rows.lanes
        memory = len(all_ways)
        for w in range(len(unit)):
            u = unit[w]
            spent = 0
            for level in range(np.int64(top[w]) - 1, np.int64(leaf_level[u]) - 1, -1):
                line = line_of[u, level]
                hit = 0
                while hit < memory:
                    first = row_of[line, hit] * lanes_in_row
                    lane = lane_of(lanes, first, line, width)
                    if lane < all_ways[hit]:
                        if victim[hit]:
                            for i in range(first + lane, first + all_ways[hit] - 1):
                                lanes[i] = lanes[i + 1]
                            lanes[first + all_ways[hit] - 1] = EMPTY
                        else:
                            front(lanes, first, line, width)
                        break
                    hit += 1
                found[level, hit] += 1
                spent += latency[hit]
                for at in range(hit - 1, -1, -1):
                    if victim[at]:
                        continue
                    first = row_of[line, at] * lanes_in_row
                    gone = lanes[first + all_ways[at] - 1]
                    front(lanes, first, line, width)
                    behind = at
                    while gone >= 0:
                        if inclusive[behind]:
                            for before in range(behind):
                                first = row_of[gone, before] * lanes_in_row
                                lane = lane_of(lanes, first, gone, width)
                                if lane < all_ways[before]:
                                    for i in range(first + lane, first + all_ways[before] - 1):
                                        lanes[i] = lanes[i + 1]
                                    lanes[first + all_ways[before] - 1] = EMPTY
                        behind += 1
                        if not victim[behind]:
                            break
                        first = row_of[gone, behind] * lanes_in_row
                        last = lanes[first + all_ways[behind] - 1]
                        if front(lanes, first, gone, width) < all_ways[behind]:
                            break
                        gone = last
            cycles[w] += spent

    reads_loop.__qualname__ += str(width)
    return reads_loop


_reads16, _reads32 = inline(_reads_loop(16)), inline(_reads_loop(32))


@jit
def lru_reads(caches, unit, top, leaf_level, line_of, cycles, found):
    """Send the reads of walks through the caches, one after the other.

    Parameters
    ----------
    caches : Caches
    unit, top : ndarray of int32, int64, shape (walks,)
        Unit of each walk, and the level above the first entry that it reads.
    leaf_level : ndarray of int8, shape (units,)
        Level of the last entry that a walk reads.
    line_of : ndarray of int32, shape (units, table levels + 1)
        Line of each unit's entry at each level.
    cycles : ndarray of int64, shape (walks,)
        The latencies of the walk's reads are added.
    found : ndarray of int64, shape (table levels + 1, levels + 1)
        Reads of entries of each table level that each cache, or memory, had are added.
    """
    if caches.rows.width == 16:
        _reads16(caches, unit, top, leaf_level, line_of, cycles, found)
    else:
        _reads32(caches, unit, top, leaf_level, line_of, cycles, found)
