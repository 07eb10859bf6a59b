"""Plain LRU machines whose second levels differ: all of them in one pass over the trace.

What vector lanes (`lanes.py`), or a GPU, look up and count, and what the counts say of each machine:
walk references all cost the same and the program waits for each walk, so that cycles follow from counts.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np

from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.tables import Tables, walk_caches
from pagewalk.replay.tally import Tally
from pagewalk.replay.together.gpu import Gpu, OnGpu, most_tables, on_gpu
from pagewalk.replay.together.lanes import Lanes, Size
from pagewalk.replay.together.lanes import most_tables as most_lanes
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
    numbers = range(len(machines))
    if fetches or trace.cpus > 1 or not _one_entry_a_unit(tables):
        return [], list(numbers)
    by_psc: dict[bytes, dict[Size, list[int]]] = {}
    for number in numbers:
        machine = machines[number]
        if plain(machine):
            sizes = by_psc.setdefault(figures(*machine.psc), {})
            sizes.setdefault(_size(machine), []).append(number)
    alike: dict[object, list[dict[Size, list[int]]]] = {}
    for key, sizes in by_psc.items():
        alike.setdefault(key if gpu else frozenset(sizes), []).append(sizes)
    together = []
    for some in alike.values():
        placements = list(dict.fromkeys(size[:2] for size in some[0]))
        most = most_lanes(tables.second.entry_number[0], placements)
        if gpu is not None:
            most = most_tables(gpu, len(tables.page), max(sets for _, sets in placements))
        for first in range(0, len(placements), most):
            taken = [size for size in some[0] if size[:2] in placements[first : first + most]]
            if len(taken) >= FEWEST:
                together.append([number for sizes in some for size in taken for number in sizes[size]])
    shared = {number for group in together for number in group}
    return together, [number for number in numbers if number not in shared]


def _size(machine: Machine) -> Size:
    """Index function, sets and ways of the second level."""
    (array,) = levels(machine)[1]
    ways = array.ways or array.entries
    return array.index, array.entries // ways, ways


def plain(machine: Machine) -> bool:
    """Whether all is LRU, walk references all cost the same, and the program waits for each walk."""
    from pagewalk.kernels.sizes.depths import WAYS

    if len(levels(machine)[1]) != 1:
        return False
    _, sets, ways = _size(machine)
    return (
        ways <= WAYS
        and sets < 1 << 16
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
    """One pass: machines of one shape; on a GPU, of the same walk caches too."""

    def __init__(
        self,
        trace: Trace,
        mapping: Mapping,
        tables: Tables,
        machines: Sequence[Machine],
        gpu: Gpu | None = None,
    ) -> None:
        from pagewalk.kernels.lru.tables import make_places, make_rows

        unit = tables.unit_of_page
        self.trace, self.machines = trace, machines
        self.place = make_places(unit, tables.first.set_of[0, unit], np.zeros_like(unit))
        self.l1, self.last = make_rows(tables.first.ways), np.full(1, -1, np.int64)
        self.leaf_levels, kind_of = np.unique(tables.leaf_level, return_inverse=True)
        where = tables.page, spaces(trace, tables), tables.leaf_level
        caches = [figures(*machine.psc) for machine in machines]
        first = {key: number for number, key in reversed(list(enumerate(caches)))}
        self.psc_of = [list(first).index(key) for key in caches]
        behind = [walk_caches(machines[number], mapping.geometry, *where) for number in first.values()]
        above = mapping.geometry.levels + 1
        self.top_of = [np.append(psc.level, above).astype(np.int64) for psc in behind]
        pass_of = tables.second.entry_number[0], [_size(machine) for machine in machines], kind_of
        there = on_gpu(gpu, *pass_of, behind[0]) if gpu else None
        if gpu and there:
            gpu.machines += len(machines)
        self.part: OnGpu | Lanes = there or Lanes(*pass_of, behind)
        self.accesses = self.l1_misses = 0

    def through(self, advance: Callable[[int], None]) -> None:
        """Send the trace's data accesses through the pass."""
        from pagewalk.kernels.sizes.first import l1_misses

        unit = np.empty(0, np.int32)
        for chunk in self.trace.chunks("flags"):
            page = chunk.page if chunk.flags is None else chunk.page[(chunk.flags & FETCH) == 0]
            page = np.array(page, np.uint32)
            if len(unit) < len(page):
                unit = np.empty(len(page), np.int32)
            misses = l1_misses(page, self.place, self.l1, self.last, unit)
            self.part.send(unit[:misses])
            self.accesses += len(page)
            self.l1_misses += misses
            advance(len(chunk.page))
        self.left = self.part.counted()
        del self.part  # the next pass may need its memory

    def tell(self, number: int, tally: Tally) -> int:
        """Fill in what the pass counted for one of its machines; return the cycles of its walks."""
        machine, psc = self.machines[number], self.psc_of[number]
        (array,) = levels(machine)[1]
        left, top_of = self.left[psc][_size(machine)].tolist(), self.top_of[psc].tolist()
        tally.accesses, tally.l1_dtlb_misses = self.accesses, self.l1_misses
        caches, spent = len(top_of) - 1, 0
        for kind, leaf_level in enumerate(self.leaf_levels.tolist()):
            going = left[0][kind]
            for cache in range(bisect_right(top_of[:-1], leaf_level), caches + 1):
                passed = 0
                if cache < caches:
                    passed = left[cache + 1][kind]
                    tally.psc_hits[cache] += going - passed
                refs = top_of[cache] - leaf_level
                tally.by_refs[refs] += going - passed
                cycles = machine.walker.start_cycles + refs * machine.memory.latency_cycles
                spent += (going - passed) * cycles
                going = passed
        hits = self.l1_misses - int(tally.by_refs.sum())
        tally.stlb += hits, hits * array.hit_cycles
        tally.waited = spent
        return spent
