"""The data caches: page-table reads, and the program's own accesses, through any stack of levels."""

from typing import NamedTuple

import numpy as np

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.assoc import EMPTY, find, insert, remove

TABLE_BIT = 58
"""Physical addresses with this bit or a higher one are those of page tables; no memory lies so high."""


class Caches(NamedTuple):
    """A stack of data caches, from the core outwards. All levels of all CPUs are one table of sets."""

    line_shift: np.ndarray
    """int64 (levels,)"""
    sets: np.ndarray
    """int64 (levels,): of one copy."""
    base: np.ndarray
    """int64 (levels,): first set of the first copy."""
    private: np.ndarray
    """int64 (levels,): 1 where each CPU has its own copy."""
    victim: np.ndarray
    """int64 (levels,): 1 where only evictions of the level above fill it."""
    inclusive: np.ndarray
    """int64 (levels,): 1 where an eviction drops the line in the levels above."""
    latency: np.ndarray
    """int64 (levels + 1,): cycles of a hit at each level; the last is memory."""
    table: np.ndarray


@inline
def _set(c, level, cpu, address):
    line = address >> c.line_shift[level]
    return c.base[level] + c.private[level] * cpu * c.sets[level] + line % c.sets[level]


@inline
def _is_table(address):
    return 1 if address >> TABLE_BIT != 0 else 0


@inline
def _evict(c, level, cpu, gone, cpus, counts):
    """A line fell out of a level: into the victim cache behind it, and out of the levels above."""
    while gone != EMPTY:
        address = gone << c.line_shift[level]
        if c.inclusive[level]:
            for above in range(level):
                for other in range(cpus):
                    if other == cpu or (c.private[above] and not c.private[level]):
                        size = 1 << c.line_shift[level]
                        step = 1 << c.line_shift[above]
                        for part in range(0, max(size, step), step):
                            remove(
                                c.table,
                                _set(c, above, other, address + part),
                                (address + part) >> c.line_shift[above],
                            )
        level += 1
        if level == len(c.sets) or not c.victim[level]:
            return
        line = address >> c.line_shift[level]
        s = _set(c, level, cpu, address)
        if find(c.table, s, line):
            return
        gone = insert(c.table, s, line)
        if gone != EMPTY and _is_table(gone << c.line_shift[level]) != _is_table(address):
            counts[level, _is_table(address), 2] += 1


@inline
def read(c, first, cpu, address, cpus, counts):
    """Read one address from level `first` outward; return the level that had it (levels: memory).

    `counts` (levels + 1, 2, 3): for each level, and memory last, of data (0) and of tables (1): hits,
    misses, and lines of the other kind that they pushed out.
    """
    levels = len(c.sets)
    table = _is_table(address)
    hit = levels
    for level in range(first, levels):
        s = _set(c, level, cpu, address)
        line = address >> c.line_shift[level]
        if find(c.table, s, line):
            hit = level
            counts[level, table, 0] += 1
            if c.victim[level]:
                remove(c.table, s, line)
            break
        counts[level, table, 1] += 1
    if hit == levels:
        counts[levels, table, 0] += 1
    for level in range(hit - 1, first - 1, -1):
        if not c.victim[level]:
            line = address >> c.line_shift[level]
            gone = insert(c.table, _set(c, level, cpu, address), line)
            if gone != EMPTY:
                if _is_table(gone << c.line_shift[level]) != table:
                    counts[level, table, 2] += 1
                _evict(c, level, cpu, gone, cpus, counts)
    return hit


@jit
def read_walks(c, first, cpus, cpu, ends, address, level, cycles_out, where, by_level, counts):
    """Send the reads of walks, each on its CPU, through the caches from level `first`.

    `cycles_out[w]` gets the latencies of walk w added; `where[place]` counts the reads found at each place,
    `by_level[table level]` adds their cycles.
    """
    m = 0
    for w in range(len(ends)):
        while m < ends[w]:
            place = read(c, first, cpu[w], address[m], cpus, counts)
            cycles_out[w] += c.latency[place]
            where[place] += 1
            by_level[level[m]] += c.latency[place]
            m += 1


@jit
def read_all(
    c,
    first,
    cpus,
    cpu,
    ends,
    address,
    level,
    cycles_out,
    where,
    by_level,
    counts,
    at,
    data,
    data_cpu,
    start,
    until,
):
    """As `read_walks`, and the accesses at positions `start` up to `until` among them.

    `data[i]` is the physical address of access i, -1 if data caches do not see it; walk w is that of the
    access `at[w]` and comes before it.
    """
    w = m = 0
    for i in range(start, until):
        if w < len(ends) and at[w] == i:
            while m < ends[w]:
                place = read(c, first, cpu[w], address[m], cpus, counts)
                cycles_out[w] += c.latency[place]
                where[place] += 1
                by_level[level[m]] += c.latency[place]
                m += 1
            w += 1
        if data[i] >= 0:
            read(c, 0, data_cpu[i], data[i], cpus, counts)
