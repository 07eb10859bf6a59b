"""The general path: any machine, its units one by one through TLBs, walk caches and data caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.replay.paths.line import Found
from pagewalk.replay.paths.state import MAX_READS, WALKS_AT_ONCE
from pagewalk.replay.tables import INCLUSIONS
from pagewalk.trace.trace import FETCH, Chunk

if TYPE_CHECKING:
    from pagewalk.replay.engine import Run

ABSENT = np.zeros(0, np.uint8)


class Stream(NamedTuple):
    """Accesses of one chunk, runs of one unit taken as one; parallel arrays."""

    unit: NDArray[np.int32]
    kind: NDArray[np.int64]
    cpu: NDArray[np.int64]
    at: NDArray[np.int64]
    """Position among the accesses of the chunk."""
    page: NDArray[np.uint32]


class General:
    """The general path of one run, and the room it needs for a chunk."""

    uniform = False
    """As of `pagewalk.replay.paths.fast.FastPath`."""

    def __init__(self, run: Run) -> None:
        self.run = run
        room = (run.size + 1,)
        self.stream = Stream(
            *(np.empty(room, kind) for kind in (np.int32, np.int64, np.int64, np.int64, np.uint32))
        )
        self.missed = np.empty(room, np.int32), np.empty(room, np.int32)
        self.whole_runs = _whole_runs(run.tables)
        self.unit_of_tag = _unit_of_tag(run.tables.first.tag_of, run.tables.second.tag_of)

    def levels(self, chunk: Chunk, page: NDArray[np.uint32], flags: NDArray[np.uint8]) -> Found:
        """Send a chunk through TLBs, walk caches and data caches."""
        from pagewalk.kernels.count import count_misses, count_walks
        from pagewalk.kernels.general.stream import units
        from pagewalk.kernels.general.tlb import replay_units

        run, stream = self.run, self.stream
        state, tally = run.state, run.tally
        cpu = ABSENT if chunk.cpu is None else plain(chunk.cpu, np.uint8)
        count, accesses, fetches = units(
            page,
            flags,
            cpu,
            run.tables.unit_of_page,
            run.fetches,
            run.kinds_differ,
            self.whole_runs,
            state.last,
            tally.touched,
            *stream,
        )
        l1, stlb = replay_units(
            stream.unit[:count],
            stream.kind,
            stream.cpu,
            state.first,
            state.second,
            self.unit_of_tag,
            INCLUSIONS.index(run.machine.inclusion),
            *self.missed,
            tally.stlb,
        )
        l1_missed, stlb_missed = self.missed[0][:l1], self.missed[1][:stlb]
        count_misses(stream.page, l1_missed, tally.by_page)
        run.count_l1(l1, int(np.count_nonzero(stream.kind[l1_missed] == 2)))
        columns: Any = (column[stlb_missed] for column in stream)
        missed = Stream(*columns)
        data = self._data(chunk, accesses) if run.full else None

        def walk(at: NDArray[np.int64]) -> int:
            cycles, refs = self._walks(missed, data)
            count_walks(missed.page, refs, cycles, tally.by_page)
            return run.wait(at, cycles)

        return Found(accesses, fetches, stream.at[l1_missed], missed.at, walk)

    def _walks(
        self, missed: Stream, data: tuple[NDArray[np.int64], NDArray[np.uint8]] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Walk for each miss of a chunk; return the cycles and the references of each walk.

        `data` are the address and the CPU of all accesses of the chunk, where they go through the caches too.
        """
        from pagewalk.kernels.general.caches import read_all, read_walks
        from pagewalk.kernels.general.walk import walk

        run, walks = self.run, len(missed.unit)
        state, tally, machine = run.state, run.tally, run.machine
        per_walk = MAX_READS if state.host.levels else state.tables.levels
        address = np.empty(WALKS_AT_ONCE * per_walk, np.int64)
        level = np.empty(WALKS_AT_ONCE * per_walk, np.int8)
        cycles, refs = np.empty(walks, np.int64), np.empty(walks, np.int64)
        done = 0
        for first in range(0, max(walks, 1), WALKS_AT_ONCE):
            last = min(first + WALKS_AT_ONCE, walks)
            some = slice(first, last)
            unit, cpu, at = missed.unit[some], missed.cpu[some], missed.at[some]
            ends = np.empty(last - first, np.int64)
            walk(
                unit,
                cpu,
                state.tables,
                state.host,
                ends,
                address,
                level,
                tally.psc_hits,
                tally.by_refs,
            )
            refs[first:last] = np.diff(ends, prepend=0)
            spent = np.full(last - first, machine.walker.start_cycles, np.int64)
            common = *state.caches, run.entry_cache, run.trace.cpus, cpu, ends, address, level
            counted = spent, tally.places, tally.level_cycles, tally.caches
            if run.reads is not None:
                run.reads.send(unit, run.tables.leaf_level[unit] + refs[first:last], spent)
            elif data is not None:
                until = int(missed.at[last]) if last < walks else len(data[0])
                read_all(*common, *counted, at, *data, done, until)
                done = until
            else:
                read_walks(*common, *counted)
            cycles[first:last] = spent
        return cycles, refs

    def _data(self, chunk: Chunk, accesses: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Physical address and CPU of every replayed access; -1 for fetches, which data caches do not see."""
        run = self.run
        inside = 0 if chunk.offset is None else chunk.offset.astype(np.int64)
        address = (run.mapping.frame[chunk.page] << 12) + inside
        cpu = np.zeros(len(address), np.uint8) if chunk.cpu is None else chunk.cpu
        if chunk.flags is not None:
            fetched = (chunk.flags & FETCH) != 0
            address[fetched] = -1
            if not run.fetches:
                address, cpu = address[~fetched], cpu[~fetched]
        assert len(address) == accesses
        return address, plain(cpu, np.uint8)

    def finish(self) -> None:
        """Nothing is left to count."""


def plain(column: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """The column as the kernels know it: contiguous, writable, of one dtype, or a second copy is compiled."""
    same = np.ascontiguousarray(column, dtype)
    return same if same.flags.writeable else same.copy()


def _whole_runs(tables: Any) -> NDArray[np.bool_]:
    """For each kind of access, whether a run of one unit may be taken as one (see `general.stream.units`)."""
    from pagewalk.kernels.general.assoc import SRRIP

    set_of = tables.first.set_of
    whole: NDArray[np.bool_] = ((set_of >= 0) & (tables.first.policy[set_of] != SRRIP)).all(axis=1)
    return whole


def _unit_of_tag(first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.int64]:
    """A unit that each entry of either level covers (their tags are the same where this is used)."""
    unit_of_tag = np.zeros(max(first.max(initial=0), second.max(initial=0)) + 1, np.int64)
    for tags in (*second, *first):
        served = np.flatnonzero(tags >= 0)
        unit_of_tag[tags[served]] = served
    return unit_of_tag
