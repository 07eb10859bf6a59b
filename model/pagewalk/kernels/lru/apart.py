"""The first level and what lies behind it, each for a thread of its own: `lru.windows` cut in two.

Exact, since the only thing that is handed on is what missed in the first level, in order. It is kept in
blocks that end at a sentinel, as the loops of `lru.rows` leave and expect them.
"""

import numpy as np

from pagewalk.kernels._jit import jit
from pagewalk.kernels.count import L1_MISSES, by_kind, touch
from pagewalk.kernels.lru.rows import BLOCK, ROOM, find_all, l1_block, pass_all, stlb_block
from pagewalk.kernels.lru.windows import PIECE, count_passed

HELD = 1 << 17
"""Misses that are handed on together, or a piece more. Ours to choose."""

HELD_ROOM = HELD + PIECE + ROOM
BLOCKS = 512
"""Blocks that are handed on together; a window or a piece begins a block."""

MORE_BLOCKS = PIECE // BLOCK + 2
"""That one piece may fill."""


@jit
def first_level(
    page,
    flags,
    pages,
    fetches,
    kinds,
    ends,
    start,
    place,
    l1,
    last,
    numbered,
    by_page,
    touched,
    window,
    missed,
    page_of,
    begin,
    window_of,
):
    """Send records of a chunk through L1 until it ends, or enough has missed to be handed on.

    Parameters
    ----------
    page, flags, pages, fetches, kinds, ends, place, l1, last, numbered, by_page, touched
        As of `pagewalk.kernels.lru.windows.lru_windows`; of `alike_windows` where `page_of` is None.
    start : int
        Record to begin with.
    window : ndarray of int64, shape (windows,)
        L1 misses of each window are added.
    missed : ndarray of the dtype of `place`, shape (HELD_ROOM,)
        Places of the misses; each block is ended by `EMPTY`.
    page_of : ndarray of int32, shape (HELD_ROOM,), or None
        The page that missed, parallel to `missed`; None where pages are counted as one.
    begin, window_of : ndarray of int64, shape (BLOCKS,)
        Where each block begins in `missed`, and the window that it belongs to.

    Returns
    -------
    start, blocks, accesses, fetched : int
        The record to go on with, and what was written and counted.
    """
    accesses = fetched = blocks = n = 0
    w = np.searchsorted(ends, start, side="right")
    while start < len(page) and n < HELD and blocks + MORE_BLOCKS <= BLOCKS:
        while ends[w] <= start:
            w += 1
        end = min(start + min(PIECE, len(numbered)), ends[w])
        part = page[start:end]
        if len(flags) > 0:
            count, more = by_kind(part, flags[start:end], pages, fetches, kinds, numbered)
            fetched += more
            part = numbered[:count]
        at = 0
        while at < len(part):
            begin[blocks], window_of[blocks] = n, w
            if page_of is None:
                at, count = l1_block(l1, part, at, last[0], place, missed[n:], None)
                by_page[0, L1_MISSES] += count
            else:
                of = page_of[n:]
                at, count = l1_block(l1, part, at, last[0], place, missed[n:], of)
                for i in range(count):
                    of[i] = part[of[i]]
                    by_page[of[i], L1_MISSES] += 1
            window[w] += count
            n += count + 1
            blocks += 1
        if page_of is None:
            touched[0] += len(part)
        else:
            touch(part, touched)
        if len(part) > 0:
            last[0] = part[len(part) - 1]
        accesses += len(part)
        start = end
    return start, blocks, accesses, fetched


@jit
def behind_first(missed, page_of, begin, window_of, stlb, psc, top_of, leaf_level, walks_of, window):
    """Send what missed in L1 through the STLB, and its walks through the paging-structure caches; count.

    Parameters
    ----------
    missed, page_of, begin, window_of
        As `first_level` left them; `begin` and `window_of` of the blocks that there are.
    stlb, psc, top_of, leaf_level, walks_of
        As of `pagewalk.kernels.lru.windows.lru_windows`; only the first row of `walks_of` is added to where
        `page_of` is None.
    window : ndarray of int64, shape (2, windows)
        STLB misses and walk references of each window are added.
    """
    group, walk, walked = np.empty(ROOM, np.int32), np.empty(ROOM, np.int32), np.empty(ROOM, np.int32)
    nth, found = np.arange(ROOM).astype(np.int32), np.empty(ROOM, np.int8)
    passed = np.zeros(len(psc.begin), np.int64)
    for b in range(len(begin)):
        w, block = window_of[b], missed[begin[b] :]
        if page_of is None:
            n = stlb_block(stlb, block, None, None, group, psc.group_at)
            passed[:] = 0
            pass_all(psc, group, passed)
            window[1, w] += count_passed(n, passed, top_of, leaf_level, walks_of)
        else:
            n = stlb_block(stlb, block, page_of[begin[b] :], walked, group, psc.group_at)
            found[:n] = 0
            find_all(psc, group, nth, walk, found, passed)
            for i in range(n):
                p, f = walked[i], found[i]
                walks_of[p, f] += 1
                window[1, w] += top_of[f] - leaf_level[p]
        window[0, w] += n
