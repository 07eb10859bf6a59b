"""Many second levels, and the walk caches behind each, on a GPU: what `pagewalk.kernels.sizes` counts.

A block of threads has one table of LRU rows: those of one way to place units in sets, which serve 1 to 32
ways at once (Mattson 1970). A row is a lane of a warp for each way. The warps of a block share out its sets:
an access concerns the warp of its set alone, and each warp passes its own in order, so that none waits for
another before the batch of accesses ends. Each lane has walk caches of its own, whose sets the warps share
out likewise. Design, and what bounds it: docs/decisions/0004-gpu-sweep.md.
"""

from typing import Any

import numpy as np
from numba import cuda

LANES = 32
"""Of a warp, and ways of a table."""

SIDE = 16
"""Bits of the lower of the two numbers in a word."""

NONE = (1 << SIDE) - 1
"""In 16 bits, no entry: units and keys kept in so many are smaller."""

KIND_AT = 28
"""The kind in a word that also holds set and entry begins at this bit of it."""

SETS = (1 << KIND_AT - SIDE) - 1
"""The largest number of a set that it can hold."""

REGISTERS = 64
"""Of a thread at most: so many that 1024 threads fit a multiprocessor (65,536 registers, CUDA C++ Programming
Guide, "Compute Capabilities")."""

ALL = 0xFFFFFFFF
"""The lanes of a warp; also the word that stands for nothing."""


def words_of_block(threads: int, caches: int, kinds: int) -> int:
    """32-bit words of shared memory that a block needs beside the entries that it keeps."""
    return 2 + threads * (3 + caches) + kinds * (LANES + 1 + caches * LANES)


def second_levels(narrow: bool, near: bool) -> Any:
    """Make the kernel that sends misses of the first level through second levels and their walk caches.

    Parameters
    ----------
    narrow : bool
        Whether units are kept in 16 bits, not 32.
    near : bool
        Whether a block keeps its rows in shared memory, or where they are.

    Returns
    -------
    CUDADispatcher
        To be launched with a block for each element of `table`, a power of two of warps in each, and shared
        memory for `words_of_block`, for a table's part of `held` and, if near, for its rows. Its arguments:

        unit : int32 (n,)
            Units of the misses, in order.
        table : int32 (blocks,)
        first, sets : int32 (tables,)
            First row of each table, and how many it has.
        set_of : uint16 (tables, units)
        kind_of : int8 (units,)
            What walks of the unit are counted by.
        walk_from : int8 (units,)
            The lowest walk cache that a walk of the unit probes.
        walk_of : uint32 (caches, units)
            As `walk_words` makes them.
        caches : uint32
        ways, begin : int32 (caches,)
            Ways of each walk cache, and its first row in `held`.
        rows : uint16 or uint32 (rows * 32,)
            Most recent first; kept over launches, as are:
        held : uint16 (tables, rows * 32)
            A row for each way of each set, most recent first, with the entries of all lanes.
        depths : int64 (tables, kinds * 33)
            Misses of the first level by depth in the table; counted.
        passed : int64 (tables, kinds * caches * 32)
            Walks of each kind that found nothing in each cache and those below it, by lane; counted.
    """

    @cuda.jit(max_registers=REGISTERS)
    def levels(
        unit,
        table,
        first,
        sets,
        set_of,
        kind_of,
        walk_from,
        walk_of,
        caches,
        ways,
        begin,
        rows,
        held,
        depths,
        passed,
    ):
        halves = cuda.shared.array(0, np.uint16)
        words = cuda.shared.array(0, np.uint32)
        pairs = cuda.shared.array(0, np.uint64)
        size, thread = np.uint32(cuda.blockDim.x), np.uint32(cuda.threadIdx.x)
        lane, warp, others = np.uint32(thread & 31), np.uint32(thread >> 5), np.uint32((size >> 5) - 1)
        bit = np.uint32(1 << lane)
        slot = np.uint32(thread ^ 31)
        here = np.uint32(table[cuda.blockIdx.x])
        accesses, held_size = np.uint32(len(unit)), np.uint32(held.shape[1])
        counters = np.uint32(depths.shape[1])
        passes = np.uint32(counters // (LANES + 1) * caches * LANES)
        pair_at, left_at = np.uint32(1), np.uint32(2 * size + 2)
        walk_at = np.uint32(left_at + size)
        depth_at = np.uint32(walk_at + caches * size)
        passed_at = np.uint32(depth_at + counters)
        held_at = np.uint32(2 * (passed_at + passes))
        own_size, far = np.uint32(sets[here] * LANES), np.uint32(first[here] * LANES)
        if near:
            if narrow:
                kept, row_at = halves, np.uint32(held_at + held_size)
            else:
                kept, row_at = words, np.uint32((held_at + held_size) >> 1)
            for i in range(thread, own_size, size):
                kept[np.uint32(row_at + i)] = rows[np.uint32(far + i)]
        else:
            kept, row_at = rows, far
        for i in range(thread, held_size, size):
            halves[np.uint32(held_at + i)] = held[here, i]
        for i in range(thread, np.uint32(counters + passes), size):
            words[np.uint32(depth_at + i)] = 0

        coming = np.uint32(unit[thread]) if thread < accesses else np.uint32(0)
        for batch in range(np.uint32(0), accesses, size):
            cuda.syncthreads()
            own, nth = coming, np.uint32(batch + thread)
            if np.uint32(nth + size) < accesses:
                coming = np.uint32(unit[np.uint32(nth + size)])
            inside, kind, in_set, from_cache = nth < accesses, np.uint32(0), np.uint32(ALL), caches
            if inside:
                kind, from_cache = np.uint32(kind_of[own]), np.uint32(walk_from[own])
                in_set = np.uint32(set_of[here, own])
            pairs[np.uint32(pair_at + slot)] = np.uint64(own) << 32 | in_set
            for cache in range(caches):
                asked = np.uint32(ALL)
                if from_cache <= cache:
                    asked = np.uint32(walk_of[cache, own])
                words[np.uint32(walk_at + cache * size + slot)] = asked
            cuda.syncthreads()

            some = np.uint32(0)
            while some < size:
                base = np.uint32(pair_at + some)
                in_set = np.uint32(pairs[np.uint32(base + lane)])
                mine = in_set != ALL and in_set & others == warp
                todo = np.uint32(cuda.ballot_sync(ALL, mine))
                missed = np.uint32(0)
                k = np.uint32(31 - cuda.clz(todo))
                ahead = pairs[np.uint32(base + k)]
                while todo:
                    own, at = np.uint32(ahead >> 32), np.uint32(row_at + np.uint32(ahead) * LANES + lane)
                    old = np.uint32(kept[at])
                    todo = np.uint32(todo ^ (1 << k))
                    chosen = lane == k
                    k = np.uint32(31 - cuda.clz(todo))
                    ahead = pairs[np.uint32(base + k)]
                    hit = np.uint32(cuda.ballot_sync(ALL, old == own))
                    above = np.uint32(cuda.shfl_up_sync(ALL, np.int32(old), 1))
                    moved = np.uint32(hit ^ (hit - 1))
                    if moved & bit:
                        kept[at] = own if lane == 0 else above
                    if chosen:
                        missed = np.uint32(moved & ~hit)
                if mine:
                    words[np.uint32(left_at + some + lane)] = missed
                some = np.uint32(some + LANES)
            cuda.syncthreads()

            if inside:
                depth = cuda.popc(words[np.uint32(left_at + slot)])
                cuda.atomic.add(words, np.uint32(depth_at + kind * (LANES + 1) + depth), 1)
            for cache in range(caches):
                cuda.syncthreads()
                row = np.uint32(held_at + begin[cache] * LANES + lane)
                counter = np.uint32(passed_at + cache * LANES + lane)
                step, most = np.uint32(walk_at + cache * size), np.uint32(ways[cache] * LANES)
                some = np.uint32(0)
                while some < size:
                    base = np.uint32(step + some)
                    asked = words[np.uint32(base + lane)]
                    mine = asked != ALL and (asked >> SIDE) & others == warp
                    left = np.uint32(0)
                    if mine:
                        left = words[np.uint32(left_at + some + lane)]
                    todo = np.uint32(cuda.ballot_sync(ALL, left != 0))
                    while todo:
                        k = np.uint32(31 - cuda.clz(todo))
                        todo = np.uint32(todo ^ (1 << k))
                        looking = words[np.uint32(left_at + some + k)]
                        asked = words[np.uint32(base + k)]
                        at = np.uint32(row + (asked >> SIDE & SETS) * most)
                        key = np.uint32(asked & NONE)
                        looks, pushed = looking & bit != 0, key
                        end = np.uint32(at + most)
                        while looking and at < end:
                            old = np.uint32(halves[at])
                            if looks:
                                halves[at] = pushed
                            looks = looks and old != key
                            pushed = old
                            at = np.uint32(at + LANES)
                            looking = np.uint32(cuda.ballot_sync(ALL, looks))
                        if looks:
                            cuda.atomic.add(
                                words, np.uint32(counter + (asked >> KIND_AT) * caches * LANES), 1
                            )
                        if lane == k:
                            left = looking
                    if mine:
                        words[np.uint32(left_at + some + lane)] = left
                    some = np.uint32(some + LANES)

        cuda.syncthreads()
        if near:
            for i in range(thread, own_size, size):
                rows[np.uint32(far + i)] = kept[np.uint32(row_at + i)]
        for i in range(thread, held_size, size):
            held[here, i] = halves[np.uint32(held_at + i)]
        for i in range(thread, counters, size):
            depths[here, i] += words[np.uint32(depth_at + i)]
        for i in range(thread, passes, size):
            passed[here, i] += words[np.uint32(passed_at + i)]

    return levels
