"""What the fast LRU loops look up: the contents of the rows, and the places of pages and entries.

All arrays of a level share one table of rows, a row for each set. A row knows which of its lanes are ways:
an LRU row is its own stack, so what lies behind the last way is merely no hit.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels.lru.vector import WIDTHS

EMPTY = -1
"""Content of a lane that holds no entry; and what ends a block."""

GROUP_SHIFT = 9
"""Units are numbered so that those with one path through the paging-structure caches share the bits above."""

ROW_BITS = 16
"""A place is, from the lowest bit up: row at L1, row at the STLB, number of the unit. So wide are the rows in
places that `pack` has not made smaller."""

NUMBER_AT = 2 * ROW_BITS

MAX_WAYS, MAX_ROWS, MAX_NUMBER = WIDTHS[-1], 1 << 15, 1 << 31
"""What fits: ways of a set, rows of a level, numbers of units."""


class Rows(NamedTuple):
    """Contents of all LRU arrays of one level."""

    lanes: NDArray[np.int32]
    """int32 (rows * width,), aligned to 64 bytes: the entries of each row, most recent first."""
    width: int
    ways: NDArray[np.uint64] | np.uint64
    """uint64 (rows,), or one for all: so many lanes of a row count as hits. 0: a row that always misses."""
    row_at: int
    """The row of a place begins at this bit of it."""
    row_mask: int
    entry_at: int
    """The entry of a place begins at this bit of it: the number, less its lowest bits where units share."""


class Psc(NamedTuple):
    """The paging-structure caches of a machine, from the lowest table level up."""

    place: NDArray[np.int64]
    """int64: for each cache in turn, for each entry of the cache below it (for each group of units, at the
    lowest): the number of its own entry, with the row << 32."""
    begin: NDArray[np.int64]
    """int64 (caches,): where each cache starts in `place`."""
    rows: Rows
    """The rows of all of them."""
    group_at: int
    """The group of a place of the TLBs begins at this bit of it."""


class Misses(NamedTuple):
    """Room for what a chunk misses, and one more: a hit is written too, and then written over."""

    l1_at: NDArray[np.int32]
    """Position in the chunk of each L1 miss."""
    at: NDArray[np.int32]
    """Position in the chunk of each STLB miss."""
    found: NDArray[np.int8]
    """Index of the paging-structure cache in which its walk found an entry; their number if in none."""
    passed: NDArray[np.int64]
    """int64 (caches,): walks that found nothing in each paging-structure cache and those below, added up."""


def make_rows(ways: NDArray[np.integer], shift: int = 0, row_at: int = 0) -> Rows:
    """Empty rows.

    Parameters
    ----------
    ways : ndarray of int, shape (rows,)
        Ways of the set in each row, at most `MAX_WAYS`. A row of 0 ways misses always.
    shift : int
        log2 of how many numbers of units share an entry.
    row_at : {0, ROW_BITS}
        Which row of a place is meant, that at L1 or that at the STLB.
    """
    width = next(w for w in WIDTHS if w >= ways.max(initial=0))
    memory = np.full(len(ways) * width + 16, EMPTY, np.int32)
    start = -memory.ctypes.data % 64 // 4
    lanes = memory[start : start + len(ways) * width]
    return Rows(lanes, width, ways.astype(np.uint64), row_at, (1 << ROW_BITS) - 1, NUMBER_AT + shift)


def make_misses(accesses: int, caches: int) -> Misses:
    """Room for the misses of chunks of so many accesses, of a machine with so many walk caches."""
    room = accesses + 1
    places = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int8)
    return Misses(*places, np.zeros(caches, np.int64))


def make_places(
    number: NDArray[np.integer], first_row: NDArray[np.integer], second_row: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Places of pages at both TLB levels.

    Parameters
    ----------
    number : ndarray of int, shape (pages,)
        Of the unit that covers the page, as `make_psc` gives them.
    first_row, second_row : ndarray of int, shape (pages,)
        Rows of the unit at L1 and STLB.

    Returns
    -------
    ndarray of int64, shape (pages,)
    """
    rows = first_row.astype(np.int64) | second_row.astype(np.int64) << ROW_BITS
    return number.astype(np.int64) << NUMBER_AT | rows


def pack(
    place: NDArray[np.int64], l1: Rows, stlb: Rows, psc: Psc
) -> tuple[NDArray[np.signedinteger], Rows, Rows, Psc]:
    """The same in fewer bytes: places of 32 bits if they fit, one number of ways a level if its rows agree.

    The entries in the rows stay what they are. Kernels are compiled for each of the four forms (two
    widths; ways as numbers at both levels, or as arrays) when it first occurs.
    """
    mask = (1 << ROW_BITS) - 1
    number, second, first = place >> NUMBER_AT, place >> ROW_BITS & mask, place & mask
    second_at = int(first.max(initial=0)).bit_length()
    number_at = second_at + int(second.max(initial=0)).bit_length()
    less = NUMBER_AT - number_at
    small = number << number_at | second << second_at | first
    ways = [np.unique(np.asarray(rows.ways)[used]) for rows, used in ((l1, first), (stlb, second))]
    if all(len(some) == 1 for some in ways):
        l1, stlb = (rows._replace(ways=some[0]) for rows, some in zip((l1, stlb), ways, strict=True))
    return (
        small.astype(np.int32) if small.max(initial=0) < 1 << 31 else small,
        _packed(l1, 0, second_at, less),
        _packed(stlb, second_at, number_at, less),
        psc._replace(group_at=psc.group_at - less),
    )


def _packed(rows: Rows, begin: int, end: int, less: int) -> Rows:
    return rows._replace(row_at=begin, row_mask=(1 << end - begin) - 1, entry_at=rows.entry_at - less)


def make_psc(
    lowest_cache: NDArray[np.integer],
    set_of: NDArray[np.integer],
    tag_of: NDArray[np.integer],
    ways: NDArray[np.integer],
    spread: int = 0,
) -> tuple[NDArray[np.int64], Psc]:
    """Empty paging-structure caches, and the numbers of the units that they ask for.

    Parameters
    ----------
    lowest_cache : ndarray of int, shape (units,)
        The lowest cache that a walk of the unit probes.
    set_of, tag_of : ndarray of int, shape (caches, units)
        Set, among those of all caches, and entry of each unit in each cache. Units with one entry in a cache
        have one entry in every cache above it.
    ways : ndarray of int, shape (sets,)
    spread : int
        log2 of the distance between the numbers of two units, at most `GROUP_SHIFT`: those between are free.

    Returns
    -------
    number : ndarray of int64, shape (units,)
        What the units are to be called at both TLB levels; with gaps, and of use below `MAX_NUMBER`.
    psc : Psc
    """
    probed = [lowest_cache <= cache for cache in range(len(tag_of))]
    names: list[NDArray[np.int64]] = []
    above = np.zeros(len(lowest_cache), np.int64)
    for tag, here in zip(tag_of[::-1], probed[::-1], strict=True):
        above = np.where(here, tag, tag.max(initial=-1) + 1 + above)
        names.insert(0, above)
    number = _grouped(above, 1 << GROUP_SHIFT - spread) << spread
    places = []
    keys = [number >> GROUP_SHIFT, *names]
    for key, name, sets, here in zip(keys, names, set_of, probed, strict=False):
        place = np.zeros(int(key.max(initial=-1)) + 1, np.int64)
        place[key] = name | np.where(here, sets, len(ways)).astype(np.int64) << 32
        places.append(place)
    begin = np.cumsum([0, *map(len, places)])[:-1]
    rows = make_rows(np.append(ways, 0))
    place = np.concatenate([*places, np.zeros(0, np.int64)])
    return number, Psc(place, begin, rows, NUMBER_AT + GROUP_SHIFT)


def _grouped(path: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Number units so that each aligned group of `size` numbers has one path."""
    units = np.bincount(path)
    groups = -(-units // size)
    order = np.argsort(path, kind="stable")
    rank = np.empty(len(path), np.int64)
    rank[order] = np.arange(len(path)) - np.repeat(np.cumsum(units) - units, units)
    return (np.cumsum(groups) - groups)[path] * size + rank


def drop(rows: Rows, gone: NDArray[np.bool_]) -> int:
    """Take entries out of the rows; those behind them move up.

    Parameters
    ----------
    rows : Rows
    gone : ndarray of bool
        For each number of an entry, whether it goes.

    Returns
    -------
    int
        How many went.
    """
    lanes = rows.lanes.reshape(-1, rows.width)
    lanes[np.arange(rows.width) >= np.reshape(rows.ways, (-1, 1))] = EMPTY
    leaves = (lanes >= 0) & gone[lanes]
    lanes[leaves] = EMPTY
    lanes[:] = np.take_along_axis(lanes, np.argsort(lanes < 0, axis=1, kind="stable"), axis=1)
    return int(np.count_nonzero(leaves))
