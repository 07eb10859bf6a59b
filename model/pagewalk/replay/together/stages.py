"""What lies behind a first level, stage by stage, for any machines: equal stages are passed once.

The misses of the first level go through every second level that differs, the walks of each of those through
all walk caches behind it, their reads through all data caches behind those, and their cycles through all ways
to wait for them. A tree of stages, fed chunk by chunk; the kernels are those of `replay.paths.general`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.machine import Machine, Walker
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.engine import waited_at_the_end
from pagewalk.replay.paths.state import MAX_READS, WALKS_AT_ONCE, State, power_on
from pagewalk.replay.tables import LevelTable, PscTable, Tables, resized, walk_caches
from pagewalk.replay.tally import Tally
from pagewalk.replay.together.shape import figures, levels, spaces
from pagewalk.trace.trace import Trace


@dataclass(frozen=True)
class Misses:
    """Misses of the first level, in order; parallel arrays.

    Attributes
    ----------
    unit : ndarray of int32
    kind, cpu, at : ndarray of int64
        Load, store, fetch; CPU; position among the replayed accesses of the trace.
    """

    unit: NDArray[np.int32]
    kind: NDArray[np.int64]
    cpu: NDArray[np.int64]
    at: NDArray[np.int64]


def joined(parts: Sequence[Misses]) -> Misses:
    """Misses one after the other."""
    columns = zip(*((part.unit, part.kind, part.cpu, part.at) for part in parts), strict=True)
    return Misses(*map(np.concatenate, columns))


@dataclass
class _Wait:
    """How the program waits for walks."""

    walker: Walker
    walkers: NDArray[np.int64]
    ring: NDArray[np.int64]
    clock: NDArray[np.int64]


@dataclass
class _Reads:
    """The data caches, that walk references are read through."""

    caches: tuple[NDArray[np.int64], NDArray[np.int64]]
    entry: int
    start_cycles: int
    spent: int = 0
    waits: dict[bytes, _Wait] = field(default_factory=dict)


@dataclass
class _Walks:
    """The paging-structure caches."""

    tables: Any
    host: Any
    hits: NDArray[np.int64]
    by_refs: NDArray[np.int64]
    reads: dict[bytes, _Reads] = field(default_factory=dict)


@dataclass
class _Second:
    """A second level."""

    level: Any
    sums: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    walks: dict[bytes, _Walks] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaf:
    """The stages that one machine's misses pass."""

    second: _Second
    walks: _Walks
    reads: _Reads
    wait: _Wait

    def tell(self, tally: Tally) -> int:
        """Fill in what the stages counted; return the cycles of the walks.

        `tally` knows the accesses and the misses of the first level already.
        """
        wait = self.wait
        tally.stlb += self.second.sums
        tally.psc_hits += self.walks.hits
        tally.by_refs += self.walks.by_refs
        window = wait.walker.window_accesses
        tally.waited = waited_at_the_end(wait.clock, wait.ring, wait.walkers, window, tally.accesses)
        return self.reads.spent


class Stages:
    """The tree of stages of machines of one shape."""

    def __init__(self, trace: Trace, mapping: Mapping, machines: Sequence[Machine], tables: Tables) -> None:
        self.cpus, self.levels = trace.cpus, mapping.geometry.levels
        self.none, self.seconds = _no_first_level(tables), dict[bytes, _Second]()
        where = tables.page, spaces(trace, tables), tables.leaf_level
        known: dict[bytes, PscTable] = {}

        def psc_table(machine: Machine) -> PscTable:
            key = figures(*machine.psc)
            if key not in known:
                known[key] = walk_caches(machine, mapping.geometry, *where)
            return known[key]

        self.leaves = [self._grow(machine, tables, psc_table(machine)) for machine in machines]

    def _grow(self, machine: Machine, tables: Tables, psc: PscTable) -> Leaf:
        """The stages of a machine; those that another has made are shared."""
        arrays, walker = levels(machine)[1], machine.walker

        def powered(machine: Machine, second: LevelTable = tables.second) -> State:
            return power_on(machine, replace(tables, second=second, psc=psc), self.levels, self.cpus)

        bare = msgspec.structs.replace(machine, cache=[])
        key = figures(*arrays)
        if key not in self.seconds:
            self.seconds[key] = _Second(powered(bare, resized(tables.second, arrays)).second)
        second = self.seconds[key]
        key = figures(*machine.psc, machine.guest)
        if key not in second.walks:
            hits = np.zeros(max(1, len(machine.psc)), np.int64)
            state = powered(bare)
            second.walks[key] = _Walks(state.tables, state.host, hits, np.zeros(MAX_READS, np.int64))
        walks = second.walks[key]
        entry = next((i for i, cache in enumerate(machine.cache) if cache.name == walker.enters), 0)
        key = figures(*machine.cache, machine.memory) + b"%d %d" % (entry, walker.start_cycles)
        if key not in walks.reads:
            walks.reads[key] = _Reads(powered(machine).caches, entry, walker.start_cycles)
        reads = walks.reads[key]
        key = figures(walker)
        if key not in reads.waits:
            ring = np.zeros((walker.window_accesses + 1, 2), np.int64)
            reads.waits[key] = _Wait(walker, np.zeros(walker.count, np.int64), ring, np.zeros(3, np.int64))
        return Leaf(second, walks, reads, reads.waits[key])

    def feed(self, misses: Misses) -> None:
        """Send misses of the first level through all stages."""
        from pagewalk.kernels.general.tlb import replay_units

        count = len(misses.unit)
        missed = np.empty(count + 1, np.int32), np.empty(count + 1, np.int32)
        unit_of_tag = np.zeros(1, np.int64)
        for second in self.seconds.values():
            stream = misses.unit, misses.kind, misses.cpu
            _, walks = replay_units(*stream, self.none, second.level, unit_of_tag, 0, *missed, second.sums)
            for first in range(0, walks, WALKS_AT_ONCE):
                some = missed[1][first : min(first + WALKS_AT_ONCE, walks)]
                part = misses.unit[some], misses.cpu[some], misses.at[some]
                for below in second.walks.values():
                    self._walk(below, *part)

    def _walk(
        self, walks: _Walks, unit: NDArray[np.int32], cpu: NDArray[np.int64], at: NDArray[np.int64]
    ) -> None:
        from pagewalk.kernels.general.caches import read_walks
        from pagewalk.kernels.general.cost import wait_for_walks
        from pagewalk.kernels.general.walk import walk

        room = len(unit) * (MAX_READS if walks.host.levels else self.levels)
        ends = np.empty(len(unit), np.int64)
        address, level = np.empty(room, np.int64), np.empty(room, np.int8)
        walk(unit, cpu, walks.tables, walks.host, ends, address, level, walks.hits, walks.by_refs)
        for reads in walks.reads.values():
            cycles = np.full(len(unit), reads.start_cycles, np.int64)
            places = len(reads.caches[0])
            uncounted = (
                np.zeros(places, np.int64),
                np.zeros(MAX_READS, np.int64),
                np.zeros((places, 2, 3), np.int64),
            )
            read_walks(*reads.caches, reads.entry, self.cpus, cpu, ends, address, level, cycles, *uncounted)
            reads.spent += int(cycles.sum())
            for wait in reads.waits.values():
                window = wait.walker.window_accesses
                wait_for_walks(at, cycles, window, wait.walkers, wait.ring, wait.clock)


def _no_first_level(tables: Tables) -> Any:
    """A first level that serves nothing, so that every access goes to the second."""
    from pagewalk.kernels.general.assoc import make
    from pagewalk.kernels.general.tlb import Level

    nowhere = np.full(tables.first.set_of.shape, -1, np.int32)
    one = np.ones(1, np.int64)
    table = make(one, one * 0, one * 0)
    return Level(nowhere, nowhere, np.zeros(1, np.int64), 0, table, nowhere[:0], nowhere[:0])
