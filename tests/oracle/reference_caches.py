"""The data caches in plain Python, and a place in memory for every page-table entry.

A part of the oracle in `reference.py`.
"""

from collections import Counter
from collections.abc import Callable

from pagewalk.hardware.machine import Cache, Machine
from pagewalk.linux.geometry import Geometry
from reference_sets import Array

MAURICE = [
    [6, 10, 12, 14, 16, 17, 18, 20, 22, 24, 25, 26, 27, 28, 30, 32, 33, 35, 36],
    [7, 11, 13, 15, 17, 19, 20, 21, 22, 23, 24, 26, 28, 29, 31, 33, 34, 35, 37],
    [8, 12, 13, 16, 19, 22, 23, 26, 27, 30, 31, 34, 35, 36, 37],
]
"""Address bits that make each bit of the slice's number, as the paper lists them."""

CRC32 = sum(1 << power for power in (32, 26, 23, 22, 16, 12, 11, 10, 8, 7, 5, 4, 2, 1, 0))
"""IEEE 802.3."""


def slice_of(line: int, line_bytes: int, slices: int) -> int:
    """The slice that holds a line."""
    if slices in (2, 4, 8):
        address = line * line_bytes
        functions = MAURICE[: {2: 1, 4: 2, 8: 3}[slices]]
        return sum(sum(address >> bit & 1 for bit in bits) % 2 << n for n, bits in enumerate(functions))
    remainder = line << 32
    for power in reversed(range(32, remainder.bit_length())):
        if remainder >> power & 1:
            remainder ^= CRC32 << (power - 32)
    return remainder * slices >> 32


class Caches:
    """The data caches of all CPUs."""

    def __init__(self, machine: Machine, cpus: int) -> None:
        def arrays(cache: Cache) -> list[Array]:
            entries = cache.size_bytes // cache.line_bytes
            one = [
                Array(cache, entries, cache.ways, cache.policy) for _ in range(1 if cache.shared else cpus)
            ]
            return one * cpus if cache.shared else one

        self.descriptions = machine.cache
        self.levels = [arrays(cache) for cache in machine.cache]  # [level][cpu]
        self.latency = [cache.latency_cycles for cache in machine.cache] + [machine.memory.latency_cycles]
        self.names = [cache.name for cache in machine.cache] + ["memory"]
        self.line_bytes = machine.cache[0].line_bytes if machine.cache else 64
        self.enters = self.names.index(machine.walker.enters) if machine.walker.enters else 0
        self.owner: dict[int, str] = {}  # line -> "data" or "walk"
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in self.names}

    def key(self, level: int, cpu: int, line: int) -> tuple[int, int]:
        sets, most = self.levels[level][cpu].sets, self.descriptions[level].slice_sets
        each = max(n for n in range(1, sets + 1) if sets % n == 0 == most % n) if most else sets
        return (slice_of(line, self.line_bytes, sets // each) * each + line % each, line)

    def read(self, cpu: int, address: int, owner: str) -> int:
        """One read by "data" or a "walk"; returns the level that had the line."""
        line = address // self.line_bytes
        self.owner[line] = owner
        first = self.enters if owner == "walk" else 0
        found = first
        while found < len(self.levels) and not self.levels[found][cpu].hit(self.key(found, cpu, line)):
            self.counts[self.names[found]][f"{owner}_misses"] += 1
            found += 1
        self.counts[self.names[found]][f"{owner}_hits"] += 1
        if found < len(self.levels) and self.descriptions[found].fill == "victim":
            self.levels[found][cpu].remove(self.key(found, cpu, line))
        for level in reversed(range(first, found)):
            if self.descriptions[level].fill == "demand":
                self.fill(level, cpu, line)
        return found

    def fill(self, level: int, cpu: int, line: int) -> None:
        """Put a line into a level; its victim leaves the levels above or sinks into the level below."""
        evicted = self.levels[level][cpu].put(self.key(level, cpu, line))
        if evicted is None:
            return
        gone = evicted[1]
        if self.owner[gone] != self.owner[line]:
            names = {"data": "data", "walk": "walks"}
            self.counts[self.names[level]][
                f"{names[self.owner[gone]]}_evicted_by_{names[self.owner[line]]}"
            ] += 1
        if self.descriptions[level].inclusive:
            sharers = range(len(self.levels[level])) if self.descriptions[level].shared else [cpu]
            for above in range(level):
                for sharer in sharers:
                    self.levels[above][sharer].remove(self.key(above, sharer, gone))
        if level + 1 < len(self.levels) and self.descriptions[level + 1].fill == "victim":
            self.fill(level + 1, cpu, gone)


def default_entry_address(geometry: Geometry) -> Callable[[int, int, int], int]:
    """A place for every table entry: tables of different levels and spaces never share a line."""

    def entry_address(level: int, page: int, space: int) -> int:
        address = page << 12
        index_bits = geometry.index_bits[level - 1]
        table = address >> (geometry.entry_shift(level) + index_bits)
        index = address >> geometry.entry_shift(level) & ((1 << index_bits) - 1)
        table_bytes = max(128, geometry.entry_bytes << index_bits)
        number = (table * 8 + level) * 0x10000 + space
        return number * table_bytes + index * geometry.entry_bytes

    return entry_address


def default_host_address(level: int, address: int) -> int:
    """A place for every entry of the host's tables, apart from every guest address."""
    return (level << 100) + (address >> 12 + 9 * (level - 1)) * 8
