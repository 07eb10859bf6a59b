"""Second levels of all set counts and all associativities behind one L1, exact, in one pass.

For every power of two of sets there is a table of LRU rows of 32 lanes; the lane in which an access finds its
unit is its depth in the set, and every STLB with more ways than that hits (Mattson 1970). A set of a finer
table holds part of a set of the coarser one, in the same order: a unit in front of the coarse set is in front
of the fine one, so each table is only asked for what was not in front in the table before.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.lru.rows import ONE, ROOM, l1_block
from pagewalk.kernels.lru.tables import EMPTY, NUMBER_AT, ROW_BITS, make_rows
from pagewalk.kernels.lru.vector import front, not_inlined

WAYS = 32
"""Associativities told apart."""

LANES = np.uint64(WAYS)


class SetStacks(NamedTuple):
    """The stacks of all set counts, and what was found in them."""

    lanes: NDArray[np.int32]
    """int32: the rows of 1 set, of 2 sets, of 4 sets, ..."""
    depths: NDArray[np.int64]
    """int64 (set counts, 33): ``depths[c, d]`` L1 misses found their unit at depth d of its set, of 2**c
    sets; the last column counts those that found it no higher than depth 32, or not at all."""


def make_set_stacks(set_counts: int) -> SetStacks:
    """Empty stacks of 1, 2, 4, ... 2**(set_counts - 1) sets."""
    rows = make_rows(np.full((1 << set_counts) - 1, WAYS))
    return SetStacks(rows.lanes, np.zeros((set_counts, WAYS + 1), np.int64))


@inline
def _table(lanes, mask, block, depths):
    """Send a block through the rows of one set count; what was not in front stays in `block`."""
    not_inlined()
    n = j = np.uint64(0)
    here = block[j]
    while here >= 0:
        row = np.uint64(mask + (here >> ROW_BITS & mask))
        block[n] = here
        depth = np.uint64(front(lanes, row * LANES, np.int32(here >> NUMBER_AT), WAYS))
        depths[min(depth, LANES)] += 1
        n += np.uint64(depth != 0)
        j += ONE
        here = block[j]
    block[n] = EMPTY
    return np.int64(n)


@jit
def all_set_counts(page, place, l1, stacks, last):
    """Send a chunk through L1, and its misses through second levels of all set counts.

    Parameters
    ----------
    page : ndarray of uint32
        The records: indices into `place`.
    place : ndarray of int64, shape (pages,)
        As `make_places` makes them; for the second row, the unit's page number modulo the largest set count.
    l1 : Rows
    stacks : SetStacks
        Kept over calls; its depths are added to.
    last : ndarray of int64, shape (1,)
        The page before the chunk, kept over calls; -1 at the start.

    Returns
    -------
    l1_misses : int
    """
    block = np.empty(ROOM, np.int64)
    start = l1_misses = 0
    while start < len(page):
        start, missed = l1_block(l1, page, start, last[0], place, block, None)
        n = missed
        l1_misses += missed
        for c in range(len(stacks.depths)):
            stacks.depths[c, 0] += missed - n
            n = _table(stacks.lanes, (1 << c) - 1, block, stacks.depths[c])
    if len(page) > 0:
        last[0] = page[len(page) - 1]
    return l1_misses


CLASSES = 64
"""Classes of sets that a sample is drawn from: those of 64 sets and more whose numbers agree modulo 64."""


class SampledStacks(NamedTuple):
    """The stacks of some classes of sets, for 64 sets and more, and what was found in them."""

    lanes: NDArray[np.int32]
    """int32: the rows of 64 sets, of 128 sets, ..."""
    chosen: NDArray[np.int64]
    """int64 (CLASSES,): number of the class among those of the sample; -1 of others."""
    seen: NDArray[np.int64]
    """int64 (CLASSES,): L1 misses of each class."""
    depths: NDArray[np.int64]
    """int64 (set counts, classes in the sample, 33): as of `SetStacks`."""


def make_sampled_stacks(set_counts: int, classes: NDArray[np.integer]) -> SampledStacks:
    """Empty stacks of 64, 128, ... (`set_counts` of them) sets, of the classes of a sample."""
    rows = make_rows(np.full(CLASSES * ((1 << set_counts) - 1), WAYS))
    chosen = np.full(CLASSES, -1, np.int64)
    chosen[classes] = np.arange(len(classes))
    depths = np.zeros((set_counts, len(classes), WAYS + 1), np.int64)
    return SampledStacks(rows.lanes, chosen, np.zeros(CLASSES, np.int64), depths)


@inline
def _sampled_table(lanes, mask, block, chosen, depths):
    """Send a block of sampled misses through the rows of one set count."""
    not_inlined()
    j = np.uint64(0)
    here = block[j]
    while here >= 0:
        at = here >> ROW_BITS
        row = np.uint64(mask + 1 - CLASSES + (at & mask))
        depth = np.uint64(front(lanes, row * LANES, np.int32(here >> NUMBER_AT), WAYS))
        depths[chosen[at & (CLASSES - 1)], min(depth, LANES)] += 1
        j += ONE
        here = block[j]


@jit
def sampled_set_counts(page, place, l1, stacks, last):
    """Send a chunk through L1, and those of its misses that fall into sampled classes of sets through theirs.

    Parameters, and what is returned, are those of `all_set_counts`; `stacks` is `SampledStacks`.
    """
    block = np.empty(ROOM, np.int64)
    start = l1_misses = 0
    while start < len(page):
        start, missed = l1_block(l1, page, start, last[0], place, block, None)
        l1_misses += missed
        n = 0
        for j in range(missed):
            here = block[j]
            of = here >> ROW_BITS & (CLASSES - 1)
            stacks.seen[of] += 1
            block[n] = here
            n += stacks.chosen[of] >= 0
        block[n] = EMPTY
        for c in range(len(stacks.depths)):
            _sampled_table(stacks.lanes, (CLASSES << c) - 1, block, stacks.chosen, stacks.depths[c])
    if len(page) > 0:
        last[0] = page[len(page) - 1]
    return l1_misses
