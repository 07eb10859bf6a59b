"""The data caches: page-table reads, and the program's own accesses, through any stack of levels.

All levels of all CPUs are one table of sets; what a level is stands in a row of `levels`, from the core
outwards, and memory is the last row.
"""

from pagewalk.kernels._jit import inline, jit
from pagewalk.kernels.general.assoc import EMPTY, find, insert, remove

TABLE_BIT = 58
"""Physical addresses with this bit or a higher one are those of page tables; no memory lies so high."""

LINE_SHIFT, SETS, SLICES, BASE, PRIVATE, VICTIM, INCLUSIVE, LATENCY, FIELDS = range(9)
"""Columns of `levels` (int64): log2 of the line; sets of a slice; slices of a copy; first set of the first
copy; sets of a copy where each CPU has its own, else 0; 1 where only evictions of the level above fill it; 1
where an eviction drops the line in the levels above; cycles of a hit. Of memory only the cycles count.

Where a level has more than one slice, 8 x 256 columns follow: what each byte of a line's number, the lowest
first, adds to its hash, 32 bits, by exclusive or (`pagewalk.hardware.slices`)."""


@inline
def _set(levels, level, cpu, address):
    line = address >> levels[level, LINE_SHIFT]
    sets, slices = levels[level, SETS], levels[level, SLICES]
    at = line & (sets - 1) if sets & (sets - 1) == 0 else line % sets
    if slices > 1:
        number, column = 0, FIELDS
        while line > 0:
            number ^= levels[level, column + (line & 255)]
            line >>= 8
            column += 256
        at += (number * slices >> 32) * sets
    return levels[level, BASE] + levels[level, PRIVATE] * cpu + at


@inline
def _is_table(address):
    return 1 if address >> TABLE_BIT != 0 else 0


@inline
def _drop_above(levels, table, level, cpu, address, cpus):
    """Drop a line that an inclusive level lost from the levels above it."""
    for above in range(level):
        for other in range(cpus):
            if other == cpu or (levels[above, PRIVATE] and not levels[level, PRIVATE]):
                step = 1 << levels[above, LINE_SHIFT]
                for part in range(address, address + max(1 << levels[level, LINE_SHIFT], step), step):
                    remove(table, _set(levels, above, other, part), part >> levels[above, LINE_SHIFT])


@inline
def _evict(levels, table, level, cpu, gone, cpus, counts):
    """A line fell out of a level: out of the levels above too, and into the victim caches behind."""
    while gone != EMPTY:
        address = gone << levels[level, LINE_SHIFT]
        if levels[level, INCLUSIVE]:
            _drop_above(levels, table, level, cpu, address, cpus)
        level += 1
        if not levels[level, VICTIM]:
            return
        line = address >> levels[level, LINE_SHIFT]
        s = _set(levels, level, cpu, address)
        if find(table, s, line):
            return
        gone = insert(table, s, line)
        if gone != EMPTY and _is_table(gone << levels[level, LINE_SHIFT]) != _is_table(address):
            counts[level, _is_table(address), 2] += 1


@inline
def read(levels, table, first, cpu, address, cpus, counts):
    """Read one address from level `first` outward; return the level that had it, memory the last.

    `counts` (levels, 2, 3): for each level, of data (0) and of tables (1): hits, misses, and lines of the
    other kind that they pushed out.
    """
    memory = len(levels) - 1
    kind = _is_table(address)
    hit = memory
    for level in range(first, memory):
        s = _set(levels, level, cpu, address)
        line = address >> levels[level, LINE_SHIFT]
        if find(table, s, line):
            hit = level
            if levels[level, VICTIM]:
                remove(table, s, line)
            break
        counts[level, kind, 1] += 1
    counts[hit, kind, 0] += 1
    for level in range(hit - 1, first - 1, -1):
        if not levels[level, VICTIM]:
            line = address >> levels[level, LINE_SHIFT]
            gone = insert(table, _set(levels, level, cpu, address), line)
            if gone != EMPTY:
                if _is_table(gone << levels[level, LINE_SHIFT]) != kind:
                    counts[level, kind, 2] += 1
                _evict(levels, table, level, cpu, gone, cpus, counts)
    return hit


@jit
def read_walks(levels, table, first, cpus, cpu, ends, address, level, cycles_out, where, by_level, counts):
    """Send the reads of walks, each on its CPU, through the caches from level `first`.

    `cycles_out[w]` gets the latencies of walk w added; `where[place]` counts the reads found at each place,
    `by_level[table level]` adds their cycles.
    """
    m = 0
    for w in range(len(ends)):
        while m < ends[w]:
            place = read(levels, table, first, cpu[w], address[m], cpus, counts)
            cycles_out[w] += levels[place, LATENCY]
            where[place] += 1
            by_level[level[m]] += levels[place, LATENCY]
            m += 1


@jit
def read_all(
    levels,
    table,
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
                place = read(levels, table, first, cpu[w], address[m], cpus, counts)
                cycles_out[w] += levels[place, LATENCY]
                where[place] += 1
                by_level[level[m]] += levels[place, LATENCY]
                m += 1
            w += 1
        if data[i] >= 0:
            read(levels, table, 0, data_cpu[i], data[i], cpus, counts)
