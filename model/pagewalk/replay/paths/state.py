"""The state that the kernels carry from chunk to chunk: what every TLB, walk cache and data cache holds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.machine import SIZES, Machine, Psc
from pagewalk.hardware.slices import hash_of_bytes, sets_of, slices_of
from pagewalk.replay.tables import HOST_TABLES_AT, LevelTable, Tables

MAX_READS = 64
"""More than any walk makes: 35 for five levels on five."""
WALKS_AT_ONCE = 1 << 14
"""Walks whose reads are held in memory together."""


@dataclass
class State:
    """Everything of one machine that remembers. Fields are the kernels' named tuples."""

    first: Any
    second: Any
    tables: Any
    host: Any
    caches: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Levels and table of the data caches; of memory alone where the machine has none."""
    last: NDArray[np.int64]
    """Unit, kind and CPU of the access before."""
    resident: list[list[int]]
    """Address spaces whose entries may be in each CPU's TLBs, most recent first."""


def _policy(names: list[str]) -> NDArray[np.int64]:
    from pagewalk.kernels.general.assoc import POLICIES

    return np.array([POLICIES.index(name) for name in names], np.int64)


def _make(ways: NDArray[np.int64], policy: NDArray[np.int64], number: NDArray[np.int64], copies: int) -> Any:
    from pagewalk.kernels.general.assoc import make

    if not len(ways):
        ways, policy, number = (np.array([value], np.int64) for value in (1, 0, 0))
    return make(np.tile(ways, copies), np.tile(policy, copies), np.tile(number, copies))


def _level(table: LevelTable, cpus: int) -> Any:
    from pagewalk.kernels.general.tlb import Level

    return Level(
        table.set_of,
        table.tag_of,
        np.tile(table.cycles, cpus) if len(table.cycles) else np.zeros(1, np.int64),
        len(table.ways),
        _make(table.ways, table.policy, table.number, cpus),
        table.beside_set,
        table.beside_tag,
    )


def _assoc_of(caches: list[Psc], cpus: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Any]:
    ways = np.array([c.ways or c.entries for c in caches], np.int64)
    sets = np.array([c.entries for c in caches], np.int64) // np.maximum(ways, 1)
    policy = _policy([c.policy for c in caches])
    number = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in sets)])
    return sets, np.cumsum(sets) - sets, _make(np.repeat(ways, sets), np.repeat(policy, sets), number, cpus)


def _host(machine: Machine, cpus: int) -> Any:
    from pagewalk.kernels.general.walk import Host

    guest = machine.guest
    levels = guest.host_levels if guest else 0
    leaf_level = (SIZES[guest.host_leaf] - 12) // 9 + 1 if guest else 1
    pscs = sorted(guest.host_psc, key=lambda p: p.level) if guest else []
    sets, base, psc = _assoc_of(pscs, cpus)
    nested = []
    if guest and guest.nested_entries:
        nested = [Psc(name="nested", level=1, entries=guest.nested_entries, ways=guest.nested_ways)]
    nested_sets, _, nested_table = _assoc_of(nested, cpus)
    return Host(
        levels,
        leaf_level,
        guest.combined_psc if guest else False,
        np.array([p.level for p in pscs], np.int8),
        base,
        sets,
        psc,
        int(nested_sets.sum()),
        nested_table,
        HOST_TABLES_AT,
    )


def _caches(machine: Machine, cpus: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The levels of the data caches, memory last, and their table of sets."""
    from pagewalk.kernels.general.caches import FIELDS, LATENCY

    found = machine.cache
    sets = np.array([sets_of(c) for c in found], np.int64)
    copies = np.array([1 if c.shared else cpus for c in found], np.int64)
    total = sets * copies
    hashes = 8 * 256 if any(slices_of(c) > 1 for c in found) else 0
    levels = np.zeros((len(found) + 1, FIELDS + hashes), np.int64)
    for row, cache, count, base in zip(levels[:-1], found, sets, np.cumsum(total) - total, strict=True):
        slices, private = slices_of(cache), 0 if cache.shared else count
        behind = cache.fill == "victim", cache.inclusive, cache.latency_cycles
        row[:FIELDS] = cache.line_bytes.bit_length() - 1, count // slices, slices, base, private, *behind
        if slices > 1:
            row[FIELDS:] = hash_of_bytes(cache).ravel()
    levels[-1, LATENCY] = machine.memory.latency_cycles
    ways = np.repeat(np.array([c.ways for c in found], np.int64), total)
    number = np.concatenate([np.zeros(0, np.int64), *map(np.tile, map(np.arange, sets), copies)])
    return levels, _make(ways, np.repeat(_policy([c.policy for c in found]), total), number, 1)


def power_on(machine: Machine, tables: Tables, levels: int, cpus: int) -> State:
    """Everything empty.

    Parameters
    ----------
    machine : Machine
    tables : Tables
        Of the trace's pages under the mapping.
    levels : int
        Table levels of the mapping's geometry.
    cpus : int
    """
    from pagewalk.kernels.general.walk import Tables as WalkTables

    psc = tables.psc
    return State(
        _level(tables.first, cpus),
        _level(tables.second, cpus),
        WalkTables(
            levels,
            tables.leaf_level,
            tables.entry,
            psc.first,
            psc.level,
            psc.set_of,
            psc.tag_of,
            len(psc.ways),
            _make(psc.ways, psc.policy, psc.number, cpus),
        ),
        _host(machine, cpus),
        _caches(machine, cpus),
        np.full(3, -1, np.int64),
        [[] for _ in range(cpus)],
    )
