"""Plain LRU machines whose second levels differ: all of them in one pass over the trace.

What `pagewalk.kernels.sizes.many`, or a GPU, looks up and counts, and what its counts say of each machine:
walk references all cost the same and the program waits for each walk, so that cycles follow from counts.
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
from pagewalk.replay.together.gpu import Gpu, OnGpu, most_tables, on_gpu
from pagewalk.replay.together.shape import figures, levels, spaces
from pagewalk.trace.trace import FETCH, Trace

FEWEST = 4
"""Second levels for which a pass is worth while. Ours to choose."""


def passes(
    trace: Trace, tables: Tables, machines: Sequence[Machine], fetches: bool, gpu: Gpu | None = None
) -> tuple[list[list[int]], list[int]]:
    """Which machines of one shape go through which pass, and which need another way.

    Parameters
    ----------
    trace : Trace
    tables : Tables
        Of any of the machines.
    machines : sequence of Machine
    fetches : bool
    gpu : Gpu, optional
        Has room for more in a pass.

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
        if plain(machine):
            placed = behind.setdefault(figures(*machine.psc), {})
            placed.setdefault(_placement(machine), []).append(number)
    together = []
    for placed in behind.values():
        by_table = list(placed.values())
        most = TABLES
        if gpu is not None:
            most = max(TABLES, most_tables(gpu, len(tables.page), max(sets for _, sets in placed)))
        for first in range(0, len(by_table), most):
            group = [number for numbers in by_table[first : first + most] for number in numbers]
            if len({figures(*levels(machines[number])[1]) for number in group}) >= FEWEST:
                together.append(group)
    taken = {number for group in together for number in group}
    return together, [number for number in numbers if number not in taken]


def _placement(machine: Machine) -> tuple[str, int]:
    """How the second level places units in sets: index function and sets."""
    (array,) = levels(machine)[1]
    return array.index, array.entries // (array.ways or array.entries)


def plain(machine: Machine) -> bool:
    """Whether all is LRU, walk references all cost the same, and the program waits for each walk."""
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
    """One pass: machines of one shape and with the same walk caches."""

    def __init__(
        self,
        trace: Trace,
        mapping: Mapping,
        tables: Tables,
        machines: Sequence[Machine],
        gpu: Gpu | None = None,
    ) -> None:
        from pagewalk.kernels.lru.tables import make_places, make_rows
        from pagewalk.kernels.sizes.lanes import TABLES

        unit = tables.unit_of_page
        self.trace = trace
        self.placements = list(dict.fromkeys(map(_placement, machines)))
        sets = np.array([count for _, count in self.placements], np.int64)
        set_of = np.zeros((len(sets), len(tables.page)), np.uint16)
        for table, (index, count) in enumerate(self.placements):
            set_of[table] = set_index(index, tables.second.entry_number[0], count)
        place = make_places(unit, tables.first.set_of[0, unit], np.zeros_like(unit))
        self.leaf_levels, class_of = np.unique(tables.leaf_level, return_inverse=True)
        where = tables.page, spaces(trace, tables), tables.leaf_level
        psc = walk_caches(machines[0], mapping.geometry, *where)
        self.top_of = np.append(psc.level, mapping.geometry.levels + 1).astype(np.int64)
        key = np.zeros(psc.tag_of.shape, np.int64)
        for cache, of in enumerate(zip(psc.set_of, psc.tag_of, strict=True)):
            key[cache] = _number_in_set(*of)
        walks = class_of, psc, key
        there = on_gpu(gpu, place, make_rows(tables.first.ways), set_of, sets, *walks) if gpu else None
        if gpu and there:
            gpu.machines += len(machines)
            self.parts: Sequence[OnGpu | _Lanes] = [there]
        else:
            cuts = [slice(first, first + TABLES) for first in range(0, len(sets), TABLES)]
            self.parts = [
                _Lanes(place, make_rows(tables.first.ways), set_of[some], sets[some], *walks) for some in cuts
            ]
        self.accesses = self.l1_misses = 0

    def through(self, advance: Callable[[int], None]) -> None:
        """Send the trace's data accesses through the pass."""
        for chunk in self.trace.chunks("flags"):
            page = chunk.page if chunk.flags is None else chunk.page[(chunk.flags & FETCH) == 0]
            page = np.array(page, np.uint32)
            self.accesses += len(page)
            for part in self.parts:
                misses = part.send(page)
            self.l1_misses += misses
            advance(len(chunk.page))
        counted = [part.counted() for part in self.parts]
        self.depths = np.concatenate([depths for depths, _ in counted], axis=1)
        self.passed = np.concatenate([passed for _, passed in counted], axis=2)
        self.parts = ()  # the next pass may need their memory

    def tell(self, machine: Machine, tally: Tally) -> int:
        """Fill in what the pass counted for a machine; return the cycles of its walks."""
        (array,) = levels(machine)[1]
        table, ways = self.placements.index(_placement(machine)), array.ways or array.entries
        tally.accesses, tally.l1_dtlb_misses = self.accesses, self.l1_misses
        caches, spent = len(self.top_of) - 1, 0
        for number, leaf_level in enumerate(self.leaf_levels.tolist()):
            left = int(self.depths[number, table, ways:].sum())
            for cache in range(int(np.searchsorted(self.top_of[:-1], leaf_level, side="right")), caches + 1):
                passed = 0
                if cache < caches:
                    passed = int(self.passed[number, cache, table, ways - 1])
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


class _Lanes:
    """At most `TABLES` tables on a vector unit of the processor; arguments as of `on_gpu`."""

    def __init__(
        self,
        place: NDArray[np.int64],
        l1: Any,
        set_of: NDArray[np.uint16],
        sets: NDArray[np.int64],
        kind_of: NDArray[np.integer],
        psc: PscTable,
        key: NDArray[np.int64],
    ) -> None:
        from pagewalk.kernels.lru.tables import make_rows
        from pagewalk.kernels.sizes.lanes import LANES, TABLES, WAYS
        from pagewalk.kernels.sizes.many import Seconds, Walks

        self.place, self.l1, self.last = place, l1, np.full(1, -1, np.int64)
        self.kind_of = kind_of.astype(np.int8)
        kinds, caches = int(kind_of.max(initial=0)) + 1, len(psc.level)
        of_unit = np.zeros((set_of.shape[1], TABLES), np.uint16)
        of_unit[:, : len(sets)] = set_of.T
        lanes = make_rows(np.full(sets.sum(), WAYS)).lanes
        first = (np.cumsum(sets) - sets).astype(np.uint64)
        self.seconds = Seconds(lanes, first, of_unit, np.zeros((kinds, len(sets), WAYS + 1), np.int64))
        small = key.astype(np.min_scalar_type(key.max(initial=0) + 1))
        row = (np.cumsum(psc.ways) - psc.ways)[psc.set_of].astype(np.int32)
        ways = np.array([psc.ways[of.max(initial=0)] for of in psc.set_of], np.int64)
        held = np.full((int(psc.ways.sum()), LANES), np.iinfo(small.dtype).max, small.dtype)
        passed = np.zeros((kinds * caches, LANES), np.int64)
        self.walks = Walks(ways, psc.first, row, small, held, passed)

    def send(self, page: NDArray[np.uint32]) -> int:
        """Send a chunk through; return the misses of the first level."""
        from pagewalk.kernels.sizes.many import many_levels

        kept = self.last, self.seconds, self.walks
        return int(many_levels(page, self.place, self.kind_of, self.l1, *kept))

    def counted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As of `OnGpu.counted`."""
        from pagewalk.kernels.sizes.lanes import TABLES, WAYS

        kinds, tables, _ = self.seconds.depths.shape
        passed = self.walks.passed.reshape(kinds, len(self.walks.ways), TABLES, WAYS)
        return self.seconds.depths, passed[:, :, :tables]


def _number_in_set(set_of: NDArray[np.int32], tag_of: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number the distinct entries of each set from 0."""
    tags, index, inverse = np.unique(tag_of, return_index=True, return_inverse=True)
    sets = set_of[index]
    order = np.argsort(sets, kind="stable")
    begin = np.searchsorted(sets[order], sets[order])
    number = np.empty(len(tags), np.int64)
    number[order] = np.arange(len(tags)) - begin
    return number[inverse]
