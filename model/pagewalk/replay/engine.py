"""Replay: a trace over a mapping on a machine, chunk by chunk.

Stages, each a kernel: records to translation units, units through the TLBs, walks of the misses, reads of
the walks through the data caches, cycles. Memory is bounded by the distinct pages and one chunk, never by
the trace.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.events import happen
from pagewalk.replay.fast import Fast, add_uniform_walks
from pagewalk.replay.fast import fast as fast_tables
from pagewalk.replay.result import Replay
from pagewalk.replay.state import MAX_READS, power_on
from pagewalk.replay.tables import INCLUSIONS, translate
from pagewalk.replay.tally import Tally, result, window_of
from pagewalk.trace.trace import CHUNK, FETCH, Chunk, Trace

WALKS_AT_ONCE = 1 << 14
"""Walks whose reads are held in memory together."""
ABSENT = np.zeros(0, np.uint8)

Misses = Callable[[NDArray[np.int64], NDArray[np.int64]], None]


def has_itlb(machine: Machine) -> bool:
    """Whether the machine's L1 has an array for instruction fetches alone."""
    return any(a.level == 1 and a.serves == ["fetch"] for a in machine.tlb)


def replay(
    trace: Trace,
    mapping: Mapping,
    machine: Machine,
    *,
    fetches: bool | None = None,
    cache_mode: str = "walks-only",
    chunk: int = CHUNK,
    progress: Callable[[int], None] | None = None,
    on_misses: Misses | None = None,
    fast: bool = True,
) -> Replay:
    """Replay a trace over a mapping on a machine, from empty TLBs and caches.

    Parameters
    ----------
    trace : Trace
    mapping : Mapping
        Of the trace's pages.
    machine : Machine
    fetches : bool, optional
        Whether instruction fetches are replayed; as a rule only where the machine has an L1 ITLB.
    cache_mode : {"walks-only", "full"}
        Whether the trace's own accesses go through the data caches too.
    chunk : int
        Records at a time. Does not change any count.
    progress : callable, optional
        Called with the number of records done, after each chunk.
    on_misses : callable, optional
        Called for each chunk with the positions (among the replayed accesses) of L1 and of STLB misses.
    fast : bool
        Whether the fast path may be taken where it applies. Does not change any count.

    Returns
    -------
    Replay

    Raises
    ------
    BadInput
        The trace lacks what the replay needs.
    """
    if cache_mode == "full" and "offset" not in trace.columns:
        raise BadInput(
            trace.name, "no offsets, which the full cache mode needs", "use walks-only, or record offsets"
        )
    began = time.perf_counter()
    fetches = has_itlb(machine) if fetches is None else fetches
    run = Run(trace, mapping, machine, fetches, cache_mode, chunk, fast)
    translated = time.perf_counter()
    run.chunk(Chunk(0, np.zeros(0, np.uint32), np.zeros(0, np.uint16)), None)
    compiled = time.perf_counter()
    run.through(progress, on_misses)
    done = time.perf_counter()
    seconds = {"open": 0.0, "translate": translated - began, "compile": compiled - translated}
    seconds["replay"] = done - compiled
    return result(
        run.tally,
        machine,
        mapping,
        run.tables.psc.names,
        cache_mode,
        {name: round(value, 6) for name, value in seconds.items()},
    )


_Found = tuple[int, int, NDArray[Any], NDArray[Any], int]
"""Accesses and fetches of a chunk; positions of its L1 misses and of its walks; cycles of all its walks."""


class _Stream(NamedTuple):
    """Accesses of one chunk, runs of one unit taken as one; parallel arrays, written anew for each chunk."""

    unit: NDArray[np.int32]
    kind: NDArray[np.int64]
    cpu: NDArray[np.int64]
    at: NDArray[np.int64]
    """Position among the accesses of the chunk."""
    page: NDArray[np.uint32]


class Run:
    """One replay under way: what the hardware holds, and what was counted."""

    def __init__(
        self,
        trace: Trace,
        mapping: Mapping,
        machine: Machine,
        fetches: bool,
        cache_mode: str,
        size: int,
        fast: bool,
    ) -> None:
        self.trace, self.mapping, self.machine = trace, mapping, machine
        self.fetches, self.full = fetches, cache_mode == "full" and bool(machine.cache)
        recorded = (trace.pages << np.uint64(trace.page_shift - 12)).astype(np.int64)
        self.tables = translate(mapping, machine, trace.spaces, recorded)
        self.state = power_on(machine, self.tables, mapping.geometry.levels, trace.cpus)
        self.size = max(1, min(size, trace.accesses, window_of(trace.accesses)))
        self.kinds_differ = fetches or _kinds_differ(self.tables)
        kinds = 3 if fetches else 2 if self.kinds_differ else 1
        levels = mapping.geometry.levels
        self.fast = (
            fast_tables(trace, machine, self.tables, levels, kinds, len(mapping.regions), self.size)
            if fast and not self.full
            else None
        )
        self.tally = Tally(machine, mapping, trace.accesses, kinds if self.fast else 1)
        room = (self.size + 1,)
        self.numbered = np.empty(room, np.uint32)
        self.stream = _Stream(
            *(np.empty(room, kind) for kind in (np.int32, np.int64, np.int64, np.int64, np.uint32))
        )
        self.missed = np.empty(room, np.int32), np.empty(room, np.int32)
        self.whole_runs = _whole_runs(self.tables)
        self.unit_of_tag = _unit_of_tag(self.tables.first.tag_of, self.tables.second.tag_of)
        self.entry_cache = next(
            (i for i, c in enumerate(machine.cache) if c.name == machine.walker.enters), 0
        )
        self.walkers = np.zeros(machine.walker.count, np.int64)
        self.ring = np.zeros((machine.walker.window_accesses + 1, 2), np.int64)
        self.clock = np.zeros(3, np.int64)

    def through(self, progress: Callable[[int], None] | None, on_misses: Misses | None) -> None:
        """Replay the whole trace."""
        tally = self.tally
        for piece in self.pieces(*(["offset"] if self.full else [])):
            if isinstance(piece, np.void):
                self.happen(piece)
                continue
            self.chunk(piece, on_misses)
            if progress is not None:
                progress(piece.start + len(piece.page))
        tally.waited = self._waited()
        if self.fast:
            add_uniform_walks(self.fast, tally, self.machine)

    def _waited(self) -> int:
        """Cycles that the program waits for walks, up to the end of the last."""
        waited, head, length = self.clock.tolist()
        window, accesses = self.machine.walker.window_accesses, self.tally.accesses
        for number in range(head, head + length):
            position, done = self.ring[number % len(self.ring)].tolist()
            if position + window < accesses:
                waited = max(waited, done - (position + window))
        return max(waited, int(self.walkers.max()) - accesses)

    def happen(self, event: np.void) -> None:
        """Apply an event of the trace."""
        base_shift = self.mapping.geometry.base_shift
        cycles = happen(event, self.state, self.tables, self.machine, base_shift, self.tally.events)
        self.tally.flush_cycles += cycles

    def pieces(self, *columns: str) -> Iterator[Chunk | np.void]:
        """Chunks, with the columns named besides flags and cpu, and the events between them.

        Chunks are cut where events happen and where windows of the time series begin.
        """
        events = list(self.trace.events) if self.trace.events is not None else []
        window = self.tally.per_window
        for chunk in self.trace.chunks("flags", "cpu", *columns, size=self.size):
            start, end = chunk.start, chunk.start + len(chunk.page)
            cuts = {int(event["position"]) for event in events if start <= event["position"] < end}
            cuts |= {end, *range(start - start % window + window, end, window)}
            at = start
            for cut in sorted(cuts):
                if cut > at:
                    yield part(chunk, at - start, cut - start)
                    at = cut
                while events and events[0]["position"] <= cut < end:
                    yield events.pop(0)
        yield from events

    def chunk(self, chunk: Chunk, on_misses: Misses | None) -> None:
        """Replay one chunk."""
        tally = self.tally
        flags = ABSENT if chunk.flags is None else _plain(chunk.flags, np.uint8)
        page = _plain(chunk.page, np.uint32)
        if self.fast:
            accesses, fetches, l1_at, stlb_at, cycles = self._fast_levels(self.fast, page, flags)
        else:
            accesses, fetches, l1_at, stlb_at, cycles = self._levels(chunk, page, flags)
        if on_misses is not None:
            on_misses(l1_at + tally.accesses, stlb_at + tally.accesses)
        tally.accesses += accesses
        tally.fetches += fetches
        if len(page):
            tally.window[:, chunk.start // tally.per_window] += len(l1_at), len(stlb_at), cycles

    def _wait(self, at: NDArray[Any], cycles: NDArray[np.int64]) -> int:
        """Let the program wait for walks; return the cycles of all of them."""
        from pagewalk.kernels.cost import wait_for_walks

        position = at.astype(np.int64) + self.tally.accesses
        window = self.machine.walker.window_accesses
        wait_for_walks(position, cycles, window, self.walkers, self.ring, self.clock)
        return int(cycles.sum())

    def _levels(self, chunk: Chunk, page: NDArray[np.uint32], flags: NDArray[np.uint8]) -> _Found:
        """Any machine: units one by one through TLBs and walk caches."""
        from pagewalk.kernels.count import count_misses, count_walks
        from pagewalk.kernels.stream import units
        from pagewalk.kernels.tlb import replay_units

        state, tally, stream = self.state, self.tally, self.stream
        cpu = ABSENT if chunk.cpu is None else _plain(chunk.cpu, np.uint8)
        count, accesses, fetches = units(
            page,
            flags,
            cpu,
            self.tables.unit_of_page,
            self.fetches,
            self.kinds_differ,
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
            INCLUSIONS.index(self.machine.inclusion),
            *self.missed,
            tally.stlb,
        )
        l1_missed, stlb_missed = self.missed[0][:l1], self.missed[1][:stlb]
        cycles, refs = self._walks(stlb_missed, chunk, accesses)
        count_misses(stream.page, l1_missed, tally.by_page)
        count_walks(stream.page, stlb_missed, refs, cycles, tally.by_page)
        self._count_l1(l1, int(np.count_nonzero(stream.kind[l1_missed] == 2)))
        at = stream.at[stlb_missed]
        return accesses, fetches, stream.at[l1_missed], at, self._wait(at, cycles)

    def _count_l1(self, misses: int, of_fetches: int) -> None:
        of_itlb = of_fetches if has_itlb(self.machine) else 0
        self.tally.l1_itlb_misses += of_itlb
        self.tally.l1_dtlb_misses += misses - of_itlb

    def _fast_levels(self, fast: Fast, page: NDArray[np.uint32], flags: NDArray[np.uint8]) -> _Found:
        """Plain LRU: blocks of accesses through vector rows."""
        from pagewalk.kernels.count import by_kind, count_misses, count_uniform_walks, count_walks, touch
        from pagewalk.kernels.lru_rows import lru_levels

        tally, pages, fetches = self.tally, len(self.mapping.page), 0
        if len(flags):
            n, fetches = by_kind(page, flags, pages, self.fetches, self.kinds_differ, self.numbered)
            page = self.numbered[:n]
        l1, stlb = lru_levels(page, fast.place, fast.l1, fast.stlb, fast.psc, fast.last, fast.misses)
        l1_at, stlb_at, found = fast.misses.l1_at[:l1], fast.misses.at[:stlb], fast.misses.found[:stlb]
        tally.stlb += l1 - stlb, (l1 - stlb) * fast.hit_cycles
        self._count_l1(l1, int(np.count_nonzero(page[l1_at] >= 2 * pages)) if self.fetches else 0)
        alike = len(fast.walks_of) < len(fast.place)
        if alike:
            tally.touched[0] += len(page)
            tally.by_page[0, 0] += l1
        else:
            touch(page, tally.touched)
            count_misses(page, l1_at, tally.by_page)
        if self.machine.cache or self.machine.walker.window_accesses:
            cycles, refs = self._fast_walks(fast, page[stlb_at], found)
            count_walks(page, stlb_at, refs, cycles, tally.by_page)
            return len(page), fetches, l1_at, stlb_at, self._wait(stlb_at, cycles)
        if alike:
            walks = [np.count_nonzero(found == cache) for cache in range(len(fast.top_of))]
            fast.walks_of[0] += walks
            reads = int((fast.top_of - fast.leaf_level[0]) @ walks)
        else:
            reads = count_uniform_walks(page, stlb_at, found, fast.top_of, fast.leaf_level, fast.walks_of)
        spent = stlb * self.machine.walker.start_cycles + reads * self.machine.memory.latency_cycles
        self.clock[0] += spent
        return len(page), fetches, l1_at, stlb_at, spent

    def _fast_walks(
        self, fast: Fast, page: NDArray[np.uint32], found: NDArray[np.int8]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Read the entries of walks of which is known where they begin; return cycles and references."""
        from pagewalk.kernels.caches import read_walks
        from pagewalk.kernels.count import reads_of

        state, tally, walker = self.state, self.tally, self.machine.walker
        hits = np.bincount(found, minlength=len(fast.top_of))[:-1]
        tally.psc_hits[: len(hits)] += hits
        refs = fast.top_of[found] - fast.leaf_level[page]
        tally.by_refs += np.bincount(refs, minlength=MAX_READS)
        cycles = np.full(len(page), walker.start_cycles, np.int64)
        on_cpu = np.zeros(WALKS_AT_ONCE, np.int64)
        address = np.empty(WALKS_AT_ONCE * state.tables.levels, np.int64)
        level = np.empty(WALKS_AT_ONCE * state.tables.levels, np.int8)
        for first in range(0, max(len(page), 1), WALKS_AT_ONCE):
            some = slice(first, min(first + WALKS_AT_ONCE, len(page)))
            ends = np.empty(some.stop - some.start, np.int64)
            unit = fast.unit_of[page[some]]
            reads_of(
                unit,
                found[some],
                fast.top_of,
                self.tables.leaf_level,
                self.tables.entry,
                ends,
                address,
                level,
            )
            read_walks(
                *state.caches,
                self.entry_cache,
                1,
                on_cpu,
                ends,
                address,
                level,
                cycles[some],
                tally.places,
                tally.level_cycles,
                tally.caches,
            )
        return cycles, refs

    def _walks(
        self, missed: NDArray[np.int32], chunk: Chunk, accesses: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Walk for each miss; return the cycles and the references of each walk."""
        from pagewalk.kernels.caches import read_all, read_walks
        from pagewalk.kernels.walk import walk

        state, tally, machine, stream = self.state, self.tally, self.machine, self.stream
        per_walk = MAX_READS if state.host.levels else state.tables.levels
        address = np.empty(WALKS_AT_ONCE * per_walk, np.int64)
        level = np.empty(WALKS_AT_ONCE * per_walk, np.int8)
        cycles, refs = np.empty(len(missed), np.int64), np.empty(len(missed), np.int64)
        done = 0
        data, data_cpu = self._data(chunk, accesses) if self.full else (np.zeros(0, np.int64), ABSENT)
        for first in range(0, max(len(missed), 1), WALKS_AT_ONCE):
            some = missed[first : first + WALKS_AT_ONCE]
            last = first + len(some)
            ends = np.empty(len(some), np.int64)
            walk(
                stream.unit[some],
                stream.cpu[some],
                state.tables,
                state.host,
                ends,
                address,
                level,
                tally.psc_hits,
                tally.by_refs,
            )
            refs[first:last] = np.diff(ends, prepend=0)
            spent = np.full(len(some), machine.walker.start_cycles, np.int64)
            common = *state.caches, self.entry_cache, self.trace.cpus, stream.cpu[some], ends, address, level
            counted = spent, tally.places, tally.level_cycles, tally.caches
            if self.full:
                until = int(stream.at[missed[last]]) if last < len(missed) else accesses
                read_all(*common, *counted, stream.at[some], data, data_cpu, done, until)
                done = until
            else:
                read_walks(*common, *counted)
            cycles[first:last] = spent
        return cycles, refs

    def _data(self, chunk: Chunk, accesses: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Physical address and CPU of every replayed access; -1 for fetches, which data caches do not see."""
        inside = 0 if chunk.offset is None else chunk.offset.astype(np.int64)
        address = (self.mapping.frame[chunk.page] << 12) + inside
        cpu = np.zeros(len(address), np.uint8) if chunk.cpu is None else chunk.cpu
        if chunk.flags is not None:
            fetched = (chunk.flags & FETCH) != 0
            address[fetched] = -1
            if not self.fetches:
                address, cpu = address[~fetched], cpu[~fetched]
        assert len(address) == accesses
        return address, _plain(cpu, np.uint8)


def _kinds_differ(tables: Any) -> bool:
    """Whether a store can go another way than a load."""
    return any((of[0] != of[1]).any() for t in (tables.first, tables.second) for of in (t.set_of, t.tag_of))


def _whole_runs(tables: Any) -> NDArray[np.bool_]:
    """For each kind of access, whether a run of one unit may be taken as one (see `kernels.stream.units`)."""
    from pagewalk.kernels.assoc import SRRIP

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


def _plain(column: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """The column as the kernels know it: contiguous, writable, of one dtype, or a second copy is compiled."""
    plain = np.ascontiguousarray(column, dtype)
    return plain if plain.flags.writeable else plain.copy()


def part(chunk: Chunk, start: int, end: int) -> Chunk:
    """Records start to end of a chunk."""
    columns = (c[start:end] if c is not None else None for c in chunk[1:])
    return Chunk(chunk.start + start, *columns)  # type: ignore[arg-type]


def warm_up() -> None:
    """Compile every kernel that a replay may need, or load it compiled."""
    from pagewalk.hardware.machine import Cache, Guest, Memory, Psc, Tlb
    from pagewalk.linux.mapping import map_trace
    from pagewalk.trace.trace import from_addresses

    machine = Machine(
        schema="pagewalk.machine/1",
        name="warm-up",
        tlb=[Tlb(name="L1", level=1, entries=4, ways=4), Tlb(name="STLB", level=2, entries=8, ways=4)],
        psc=[Psc(name="PDE", level=2, entries=4)],
        cache=[Cache(name="L1D", size_bytes=4096, ways=4, latency_cycles=4)],
        memory=Memory(latency_cycles=100),
        guest=Guest(),
    )
    trace = from_addresses("warm-up", np.arange(0, 1 << 16, 512, dtype=np.uint64))
    mapping = map_trace(trace.pages, None, "base")
    for mode in ("walks-only", "full"):
        replay(trace, mapping, machine, cache_mode=mode)
