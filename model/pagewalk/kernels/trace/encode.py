"""Dictionary-encoding of page numbers: each distinct page is numbered by its first appearance."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit

FREE = -1
"""A slot that holds no page."""


class Table(NamedTuple):
    """An open-addressed hash table; `slot` has a power of two of places, at least twice as many as `page`."""

    slot: NDArray[np.int32]
    """Number of the page that sits here, or FREE."""
    page: NDArray[np.int64]
    """Page numbers, 0 to 2**52 - 1, by number."""


@inline
def _slot(page: int, table: Table) -> int:
    """Where a page sits, or the free slot where it would go.

    Eight neighbouring pages share a run of slots, so that a sweep stays in one cache line. The products
    stay below 2**63: the kernel gives the same places uncompiled.
    """
    group = page >> 3
    mixed = (group & 0x3FFFFFF) * 0x9E3779B1 + (group >> 26) * 0x85EBCA6B
    mask = len(table.slot) - 1
    at = (((mixed ^ (mixed >> 29)) << 3) + (page & 7)) & mask
    while table.slot[at] != FREE and table.page[table.slot[at]] != page:
        at = (at + 1) & mask
    return at


@jit
def encode(page: NDArray[np.int64], table: Table, count: int, out: NDArray[np.uint32]) -> tuple[int, int]:
    """Write each page's number to `out`, numbering new pages from `count` on.

    Returns how many were done and the new count; it stops early at a new page for which `table` has no room.
    """
    last, number = -1, 0
    for i in range(len(page)):
        if page[i] != last:
            at = _slot(page[i], table)
            if table.slot[at] == FREE:
                if count == len(table.page):
                    return i, count
                table.page[count] = page[i]
                table.slot[at] = count
                count += 1
            last, number = page[i], table.slot[at]
        out[i] = number
    return len(page), count


@jit
def rehash(table: Table, count: int) -> None:
    """Enter the first `count` pages into the empty slots of a new table."""
    for number in range(count):
        table.slot[_slot(table.page[number], table)] = number


@jit
def tally(
    page: NDArray[np.int64],
    kind: NDArray[np.uint8],
    count: NDArray[np.int64],
    runs: NDArray[np.int64],
    last: NDArray[np.int64],
) -> None:
    """Count records by page and kind (0 load, 1 store, 2 fetch), and the runs that begin on each page.

    `runs` has columns for the runs among loads, stores and fetches alone, and among all data accesses;
    `last` the page of the last record of each of these four (-1: none yet).
    """
    for i in range(len(page)):
        at, own = page[i], kind[i]
        count[at, own] += 1
        if at != last[own]:
            runs[at, own] += 1
            last[own] = at
        if own < 2 and at != last[3]:
            runs[at, 3] += 1
            last[3] = at
