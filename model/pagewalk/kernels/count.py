"""Whose misses and walks they were: totals for each distinct page, folded into regions at the end."""

import numpy as np

from pagewalk.kernels._jit import jit
from pagewalk.kernels.lru.vector import RUN, changes, lowest

L1_MISSES, STLB_MISSES, REFS, CYCLES, COLUMNS = range(5)
"""Columns of `by_page` (int64)."""

FETCH, STORE = 0x20, 0x08
"""As in `pagewalk.trace.trace`; kernels import nothing of the package."""


@jit
def touch(page, touched):
    """Add the accesses of each page (uint32) to `touched` (int64), a run of one page at a time."""
    n = len(page)
    if n == 0:
        return
    start, i = 0, 1
    while i + RUN <= n:
        change = changes(page, i)
        while change != 0:
            at = i + lowest(change)
            touched[page[at - 1]] += at - start
            start = at
            change &= change - np.uint64(1)
        i += RUN
    while i < n:
        if page[i] != page[i - 1]:
            touched[page[i - 1]] += i - start
            start = i
        i += 1
    touched[page[n - 1]] += n - start


@jit
def by_kind(page, flags, pages, fetches, kinds, out):
    """Number each replayed access by kind and page: kind * `pages` + page, or the page alone.

    Parameters
    ----------
    page, flags : ndarray of uint32, uint8
        The records.
    pages : int
    fetches : bool
        Whether instruction fetches are replayed or passed over.
    kinds : bool
        Whether loads (0), stores (1) and fetches (2) are told apart.
    out : ndarray of uint32

    Returns
    -------
    accesses, fetched : int
    """
    n = fetched = 0
    for i in range(len(page)):
        f = flags[i]
        fetch = f & FETCH != 0
        kind = 2 if fetch else 1 if f & STORE else 0
        out[n] = page[i] + (kind * pages if kinds else 0)
        n += fetches or not fetch
        fetched += fetch
    return n, fetched if fetches else 0


@jit
def count_misses(page, at, by_page):
    """Add the L1 misses, at positions `at` of `page`."""
    for position in at:
        by_page[page[position], L1_MISSES] += 1


@jit
def count_walks(page, refs, cycles, by_page):
    """Add the STLB misses of pages (uint32), with the references and cycles of their walks."""
    for w in range(len(page)):
        p = page[w]
        by_page[p, STLB_MISSES] += 1
        by_page[p, REFS] += refs[w]
        by_page[p, CYCLES] += cycles[w]


@jit
def count_uniform_walks(page, at, found, top_of, leaf_level, walks_of):
    """Add the walks of STLB misses, at positions `at` of `page`, by page and by where they began.

    Parameters
    ----------
    page, at, found : ndarray of uint32, int32, int8
        `found` is the index of the paging-structure cache that had an entry for the walk, or their number.
    top_of : ndarray of int64
        For each value of `found`, the level above the first entry read.
    leaf_level : ndarray of int8
        For each page.
    walks_of : ndarray of int64, shape (pages, values of found)

    Returns
    -------
    refs : int
        References of these walks.
    """
    refs = 0
    for w in range(len(at)):
        p, f = page[at[w]], found[w]
        walks_of[p, f] += 1
        refs += top_of[f] - leaf_level[p]
    return refs


@jit
def reads_of(unit, found, top_of, leaf_level, entry, ends, address_out, level_out):
    """Write the reads of walks of which is known where they begin; as `general.walk.walk` does."""
    m = 0
    for w in range(len(unit)):
        u = unit[w]
        for level in range(top_of[found[w]] - 1, leaf_level[u] - 1, -1):
            address_out[m] = entry[level, u]
            level_out[m] = level
            m += 1
        ends[w] = m
    return m
