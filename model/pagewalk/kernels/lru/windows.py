"""Chunks of any number of windows in one call, for machines whose walk references all cost the same.

The windows of the time series are counted inside: Python is entered once a chunk, not once a window.
"""

import numpy as np

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.count import by_kind, count_misses, count_uniform_walks, touch
from pagewalk.kernels.lru.rows import BLOCK, lru_levels, lru_totals

PIECE = 8 * BLOCK
"""Accesses whose misses are held before they are counted; they fit the second-level data cache. Ours."""


@jit
def lru_windows(
    page,
    flags,
    pages,
    fetches,
    kinds,
    ends,
    place,
    l1,
    stlb,
    psc,
    last,
    misses,
    numbered,
    top_of,
    leaf_level,
    walks_of,
    by_page,
    touched,
    window,
):
    """Send a chunk through L1, STLB and paging-structure caches, window by window, and count.

    Parameters
    ----------
    page, flags, pages, fetches, kinds
        As of `pagewalk.kernels.count.by_kind`; no flags: all are loads.
    ends : ndarray of int64, shape (windows,)
        Where in the chunk each window ends.
    place, l1, stlb, psc, last, misses
        As of `lru_levels`; `misses` has room for the pieces in which the chunk is taken.
    numbered : ndarray of uint32
        Room for one piece.
    top_of, leaf_level, walks_of
        As of `count_uniform_walks`.
    by_page, touched : ndarray of int64
        As `count_misses` and `touch` fill them.
    window : ndarray of int64, shape (3, windows)
        L1 misses, STLB misses and walk references of each window are added.

    Returns
    -------
    accesses, fetched : int
    """
    accesses = fetched = start = 0
    piece = min(PIECE, len(numbered))
    for w in range(len(ends)):
        while start < ends[w]:
            end = min(start + piece, ends[w])
            part = page[start:end]
            if len(flags) > 0:
                n, more = by_kind(part, flags[start:end], pages, fetches, kinds, numbered)
                fetched += more
                part = numbered[:n]
            n1, n2 = lru_levels(part, place, l1, stlb, psc, last, misses)
            touch(part, touched)
            count_misses(part, misses.l1_at[:n1], by_page)
            refs = count_uniform_walks(part, misses.at[:n2], misses.found[:n2], top_of, leaf_level, walks_of)
            window[0, w] += n1
            window[1, w] += n2
            window[2, w] += refs
            accesses += len(part)
            start = end
    return accesses, fetched


@inline
def count_passed(walks, passed, top_of, leaf_level, walks_of):
    """Add walks, of which so many passed each paging-structure cache; return their references."""
    refs = 0
    for cache in range(len(passed) + 1):
        behind = passed[cache] if cache < len(passed) else 0
        walks_of[0, cache] += walks - behind
        refs += (walks - behind) * (top_of[cache] - leaf_level[0])
        walks = behind
    return refs


@jit
def alike_windows(
    page,
    flags,
    pages,
    fetches,
    ends,
    place,
    l1,
    stlb,
    psc,
    last,
    numbered,
    top_of,
    leaf_level,
    walks_of,
    by_page,
    touched,
    window,
):
    """As `lru_windows`, where all pages are counted as one: of one region and leaf size.

    Only the first row of `walks_of` and of `by_page`, and the first of `touched`, are added to.

    Returns
    -------
    accesses, fetched : int
    """
    accesses = fetched = start = 0
    passed = np.empty(len(psc.begin), np.int64)
    for w in range(len(ends)):
        while start < ends[w]:
            end = min(start + len(numbered), ends[w])
            part = page[start:end]
            if len(flags) > 0:
                n, more = by_kind(part, flags[start:end], pages, fetches, False, numbered)
                fetched += more
                part = numbered[:n]
            passed[:] = 0
            n1, n2 = lru_totals(part, place, l1, stlb, psc, last, passed)
            touched[0] += len(part)
            by_page[0, 0] += n1
            window[0, w] += n1
            window[1, w] += n2
            window[2, w] += count_passed(n2, passed, top_of, leaf_level, walks_of)
            accesses += len(part)
            start = end
    return accesses, fetched
