"""The walks of many second levels: 512 of them look walk caches up together.

Each second level has walk caches of its own. What they hold is the same in all for entries that are there for
ever: a set with room for all its entries misses once for each, when it is first asked for in the whole trace,
and then all second levels walk, for none has seen a unit of it. The other sets are kept bit by bit
(`pagewalk.kernels.sizes.planes`).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.lru.vector import not_inlined
from pagewalk.kernels.sizes.depths import aligned
from pagewalk.kernels.sizes.planes import COUNTER, STEP, WORD, WORDS, add_up, look_up, spread

TILE = 256
"""Misses of which planes are made at a time: 16 KiB. Ours to choose; a multiple of `STEP`."""


class Paths(NamedTuple):
    """What walks ask for: those of one path ask for the same, in all walk caches."""

    of_unit: NDArray[np.int32]
    """int32 (units,)"""
    kind: NDArray[np.int8]
    """int8 (paths,): what walks are counted by."""
    first: NDArray[np.int8]
    """int8 (paths,): the lowest cache that they probe."""
    mark: NDArray[np.int64]
    """int64 (caches, paths): place in `Walks.seen` of what they ask for: the entry in a set that has room for
    all, else the set."""
    row: NDArray[np.int64]
    """int64 (caches, paths): first plane of the set; -1 where it has room for all."""
    key: NDArray[np.uint32]
    """uint32 (caches, paths, bits): the entry among those of its set, bit by bit: 0, or all ones."""
    asks: NDArray[np.uint16]
    """uint16 (paths,): bit 0 is set; bit i + 1 where all walks but the first of the path look cache i up."""


class Walks(NamedTuple):
    """Walk caches of all lanes, from the lowest table level up, and what is counted of them."""

    ways: NDArray[np.int64]
    """int64 (caches,)"""
    new: NDArray[np.bool_]
    """bool (paths,): no walk has gone there."""
    seen: NDArray[np.bool_]
    """bool: by `Paths.mark`."""
    held: NDArray[np.uint32]
    """uint32 (groups, planes, WORDS): as of `pagewalk.kernels.sizes.planes.look_up`."""
    looking: NDArray[np.uint32]
    """uint32 (TILE + 1, WORDS): room; the last plane is 0."""
    counters: NDArray[np.uint32]
    """uint32 (groups, stages, kinds, COUNTER, WORDS): room."""
    left: NDArray[np.int64]
    """int64 (stages, kinds, groups, WORDS, WORD): walks of each kind that found nothing in so many caches,
    from the lowest, by lane; counted. The first are all walks."""


def make_walks(
    ways: NDArray[np.int64], groups: int, kinds: int, paths: int, marks: int, planes: int
) -> Walks:
    """Empty walk caches for so many groups of 512 lanes, and counts of nothing."""
    stages = len(ways) + 1
    return Walks(
        ways,
        np.ones(paths, bool),
        np.zeros(marks, bool),
        aligned((groups, planes, WORDS), np.uint32, 0),
        aligned((TILE + 1, WORDS), np.uint32, 0),
        aligned((groups, stages, kinds, COUNTER, WORDS), np.uint32, 0),
        np.zeros((stages, kinds, groups, WORDS, WORD), np.int64),
    )


@inline
def _begin(path, paths, walks):
    """Walk a path for the first time, which all second levels do; return what is looked up, as `Paths.asks`.

    In a set that nobody has looked up yet, all ways of all lanes are made to hold the entry. Those behind the
    first are never found before it, and are pushed out before it.
    """
    asks = 1
    for cache in range(paths.first[path], len(walks.ways)):
        row, mark = paths.row[cache, path], paths.mark[cache, path]
        if walks.seen[mark]:
            if row < 0:
                break
            asks |= 2 << cache
            continue
        walks.seen[mark] = True
        walks.left[cache + 1, paths.kind[path]] += 1
        for bit in range(paths.key.shape[2] if row >= 0 else 0):
            for way in range(walks.ways[cache]):
                walks.held[:, row + way * paths.key.shape[2] + bit] = paths.key[cache, path, bit]
    return asks


@inline
def _paths_of(unit, paths, walks, path, asks):
    """Write the path of each miss, and what its walk looks up; return what any looks up."""
    some = 0
    for j in range(len(unit)):
        here = paths.of_unit[unit[j]]
        path[j], asks[j] = here, paths.asks[here]
        if walks.new[here]:
            walks.new[here] = False
            asks[j] = _begin(here, paths, walks)
        some |= asks[j]
    return some


@inline
def _choose(asks, bit, chosen):
    """Write which misses have a bit set, and `TILE` up to a multiple of `STEP`; return how many."""
    n = 0
    for j in range(len(asks)):
        chosen[n] = j
        n += asks[j] >> bit & 1
    chosen[n : n + STEP] = TILE
    return n


@inline
def _of_kind(chosen, n, path, kind_of, kind, some):
    """Write those of the `n` chosen misses whose paths are of a kind; else as `_choose`."""
    found = 0
    for i in range(n):
        some[found] = chosen[i]
        found += kind_of[path[chosen[i]]] == kind
    some[found : found + STEP] = TILE
    return found


@inline
def _count(looking, chosen, n, path, kind_of, some, counters):
    """Count the lanes of the `n` chosen planes, each by the kind of its path; `some` is room."""
    not_inlined()
    for kind in range(len(counters)):
        these, found = chosen, n
        if len(counters) > 1:
            these, found = some, _of_kind(chosen, n, path, kind_of, kind, some)
        add_up(looking, these, -(-found // STEP) * STEP, counters[kind])


@inline
def _look_up(held, row, ways, key, path, looking, chosen, n, bits):
    """Look up what the chosen misses ask for in one cache."""
    not_inlined()
    for i in range(n):
        at = chosen[i]
        here = path[at]
        look_up(held, row[here], ways, key, here, looking, at, bits)


@inline
def _empty(counters, left):
    """Move what counters hold to `left`."""
    groups, stages, kinds = counters.shape[:3]
    for group in range(groups):
        for stage in range(stages):
            for kind in range(kinds):
                for bit in range(COUNTER):
                    for at in range(WORDS):
                        word = counters[group, stage, kind, bit, at]
                        for lane in range(WORD):
                            left[stage, kind, group, at, lane] += np.int64(word >> lane & 1) << bit
    counters[:] = 0


@jit
def walk(unit, missed, paths, walks, bits):
    """Send the misses of a lot through the walk caches of all second levels in which they miss, too.

    Parameters
    ----------
    unit : ndarray of int32, shape (misses,)
        At most 65,535 misses of the first level.
    missed : ndarray of uint8, shape (groups * blocks * WORDS, at least misses, and a multiple of STEP)
        In how many second levels of each table they miss. A word of a plane has lanes for one table of each
        of the 1 to 32 blocks of a group.
    paths : Paths
    walks : Walks
        Kept over calls; `left` is added to.
    bits : tuple
        As many elements as keys have bits.
    """
    stages = len(walks.left)
    path, asks = np.empty(TILE, np.int32), np.empty(TILE, np.uint16)
    chosen, some = np.empty((stages, TILE + STEP), np.int32), np.empty(TILE + STEP, np.int32)
    n = np.zeros(stages, np.int64)
    looking, blocks = walks.looking, len(missed) // (len(walks.held) * WORDS)
    for start in range(0, len(unit), TILE):
        here = unit[start : start + TILE]
        asked = _paths_of(here, paths, walks, path, asks)
        for stage in range(stages):
            n[stage] = _choose(asks[: len(here)], stage, chosen[stage]) if asked >> stage & 1 else 0
        for group in range(len(walks.held)):
            held, counters = walks.held[group], walks.counters[group]
            for first in range(0, len(here), STEP):
                for block in range(blocks):
                    table = (group * blocks + block) * WORDS
                    spread(missed, table, start + first, block * WORD // blocks, looking, first)
            _count(looking, chosen[0], n[0], path, paths.kind, some, counters[0])
            for cache in range(stages - 1):
                stage = cache + 1
                _look_up(
                    held,
                    paths.row[cache],
                    walks.ways[cache],
                    paths.key[cache],
                    path,
                    looking,
                    chosen[stage],
                    n[stage],
                    bits,
                )
                _count(looking, chosen[stage], n[stage], path, paths.kind, some, counters[stage])
    _empty(walks.counters, walks.left)
