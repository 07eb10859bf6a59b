"""Plain LRU machines whose second levels differ: all of them in one pass over the trace.

What `pagewalk.kernels.sizes.many` looks up and counts, and what its counts say of each machine. Their walk
references all cost the same and the program waits for each walk, so that cycles follow from counts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.index import set_index
from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.tables import PscTable, Tables, walk_caches
from pagewalk.replay.tally import Tally
from pagewalk.replay.together.shape import figures, levels, spaces
from pagewalk.trace.trace import FETCH, Trace

FEWEST = 4
"""Second levels for which a pass is worth while. Ours to choose."""


def passes(
    trace: Trace, tables: Tables, machines: Sequence[Machine], fetches: bool
) -> tuple[list[list[int]], list[int]]:
    """Which machines of one shape go through which pass, and which need another way.

    Parameters
    ----------
    trace : Trace
    tables : Tables
        Of any of the machines.
    machines : sequence of Machine
    fetches : bool

    Returns
    -------
    together : list of list of int
        Numbers of machines that share a pass.
    others : list of int
    """
    from pagewalk.kernels.sizes.lanes import TABLES

    numbers = range(len(machines))
    if fetches or trace.cpus > 1 or not _one_entry_a_unit(tables):
        return [], list(numbers)
    behind: dict[bytes, dict[tuple[str, int], list[int]]] = {}
    for number in numbers:
        machine = machines[number]
        if _plain(machine):
            placed = behind.setdefault(figures(*machine.psc), {})
            placed.setdefault(_placement(machine), []).append(number)
    together = []
    for placed in behind.values():
        by_table = list(placed.values())
        for first in range(0, len(by_table), TABLES):
            group = [number for numbers in by_table[first : first + TABLES] for number in numbers]
            if len({figures(*levels(machines[number])[1]) for number in group}) >= FEWEST:
                together.append(group)
    taken = {number for group in together for number in group}
    return together, [number for number in numbers if number not in taken]


def _placement(machine: Machine) -> tuple[str, int]:
    """How the second level places units in sets: index function and sets."""
    (array,) = levels(machine)[1]
    return array.index, array.entries // (array.ways or array.entries)


def _plain(machine: Machine) -> bool:
    from pagewalk.kernels.sizes.lanes import WAYS

    second = levels(machine)[1]
    return (
        len(second) == 1
        and (second[0].ways or second[0].entries) <= WAYS
        and _placement(machine)[1] < 1 << 16
        and all(array.policy == "lru" for array in machine.tlb)
        and all(cache.policy == "lru" for cache in machine.psc)
        and machine.guest is None
        and not machine.cache
        and not machine.walker.window_accesses
    )


def _one_entry_a_unit(tables: Tables) -> bool:
    """Whether units and entries are the same thing at both levels, for loads and stores alike."""
    return all(
        bool((level.set_of[:2] >= 0).all() and (level.set_of[0] == level.set_of[1]).all())
        and len(np.unique(level.tag_of[0])) == level.tag_of.shape[1]
        and bool((level.tag_of[0] == level.tag_of[1]).all())
        for level in (tables.first, tables.second)
    )


class Stacks:
    """One pass: machines of one shape and with the same walk caches, at most `TABLES` placements in sets."""

    def __init__(self, trace: Trace, mapping: Mapping, tables: Tables, machines: Sequence[Machine]) -> None:
        from pagewalk.kernels.lru.tables import make_places, make_rows
        from pagewalk.kernels.sizes.lanes import LANES, TABLES, WAYS
        from pagewalk.kernels.sizes.many import Seconds

        unit, units = tables.unit_of_page, len(tables.page)
        self.trace = trace
        self.placements = list(dict.fromkeys(map(_placement, machines)))
        sets = np.array([count for _, count in self.placements], np.int64)
        set_of = np.zeros((units, TABLES), np.uint16)
        for table, (index, count) in enumerate(self.placements):
            set_of[:, table] = set_index(index, tables.second.entry_number[0], count)
        self.place = make_places(unit, tables.first.set_of[0, unit], np.zeros_like(unit))
        self.l1, self.last = make_rows(tables.first.ways), np.full(1, -1, np.int64)
        self.leaf_levels, self.class_of = np.unique(tables.leaf_level, return_inverse=True)
        lanes = make_rows(np.full(sets.sum(), WAYS)).lanes
        first = (np.cumsum(sets) - sets).astype(np.uint64)
        depths = np.zeros((len(self.leaf_levels), len(sets), WAYS + 1), np.int64)
        self.seconds = Seconds(lanes, first, set_of, depths)
        where = tables.page, spaces(trace, tables), tables.leaf_level
        psc = walk_caches(machines[0], mapping.geometry, *where)
        self.top_of = np.append(psc.level, mapping.geometry.levels + 1).astype(np.int64)
        self.walks = _walks(psc, len(self.leaf_levels), LANES)
        self.accesses = self.l1_misses = 0

    def through(self, advance: Callable[[int], None]) -> None:
        """Send the trace's data accesses through the pass."""
        from pagewalk.kernels.sizes.many import many_levels

        class_of = self.class_of.astype(np.int8)
        for chunk in self.trace.chunks("flags"):
            page = chunk.page if chunk.flags is None else chunk.page[(chunk.flags & FETCH) == 0]
            page = np.array(page, np.uint32)
            self.accesses += len(page)
            kept = self.seconds, self.walks
            self.l1_misses += many_levels(page, self.place, class_of, self.l1, self.last, *kept)
            advance(len(chunk.page))

    def tell(self, machine: Machine, tally: Tally) -> int:
        """Fill in what the pass counted for a machine; return the cycles of its walks."""
        from pagewalk.kernels.sizes.lanes import WAYS

        (array,) = levels(machine)[1]
        table, ways = self.placements.index(_placement(machine)), array.ways or array.entries
        tally.accesses, tally.l1_dtlb_misses = self.accesses, self.l1_misses
        caches, spent = len(self.walks.ways), 0
        for number, leaf_level in enumerate(self.leaf_levels.tolist()):
            left = int(self.seconds.depths[number, table, ways:].sum())
            for cache in range(int(np.searchsorted(self.top_of[:-1], leaf_level, side="right")), caches + 1):
                passed = 0
                if cache < caches:
                    passed = int(self.walks.passed[number * caches + cache, WAYS * table + ways - 1])
                    tally.psc_hits[cache] += left - passed
                refs = int(self.top_of[cache]) - leaf_level
                tally.by_refs[refs] += left - passed
                cycles = machine.walker.start_cycles + refs * machine.memory.latency_cycles
                spent += (left - passed) * cycles
                left = passed
        hits = self.l1_misses - int(tally.by_refs.sum())
        tally.stlb += hits, hits * array.hit_cycles
        tally.waited = spent
        return spent


def _walks(psc: PscTable, classes: int, lanes: int) -> Any:
    """Empty walk caches for all lanes."""
    from pagewalk.kernels.sizes.many import Walks

    number = np.zeros(psc.tag_of.shape, np.int64)
    for cache, of in enumerate(zip(psc.set_of, psc.tag_of, strict=True)):
        number[cache] = _number_in_set(*of)
    key = number.astype(np.min_scalar_type(number.max(initial=0) + 1))
    row = (np.cumsum(psc.ways) - psc.ways)[psc.set_of].astype(np.int32)
    caches = len(psc.level)
    ways = np.array([psc.ways[of.max(initial=0)] for of in psc.set_of], np.int64)
    held = np.full((int(psc.ways.sum()), lanes), np.iinfo(key.dtype).max, key.dtype)
    return Walks(ways, psc.first, row, key, held, np.zeros((classes * caches, lanes), np.int64))


def _number_in_set(set_of: NDArray[np.int32], tag_of: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number the distinct entries of each set from 0."""
    tags, index, inverse = np.unique(tag_of, return_index=True, return_inverse=True)
    sets = set_of[index]
    order = np.argsort(sets, kind="stable")
    begin = np.searchsorted(sets[order], sets[order])
    number = np.empty(len(tags), np.int64)
    number[order] = np.arange(len(tags)) - begin
    return number[inverse]
