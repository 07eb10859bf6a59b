"""Replay: a trace over a mapping on a machine, chunk by chunk.

Stages, each a kernel: units through the TLBs, walks of the misses, reads of the walks through the data
caches, cycles. Memory is bounded by the distinct pages and one chunk, never by the trace.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.events import happen
from pagewalk.replay.result import RegionCost, Replay, Windows
from pagewalk.replay.state import MAX_READS, State, power_on
from pagewalk.replay.tables import SIZES, Tables, translate
from pagewalk.trace.trace import CHUNK, FETCH, STORE, Chunk, Trace

WALKS_AT_ONCE = 1 << 14
"""Walks whose reads are held in memory together."""
WINDOWS = 200
"""Points of the time series."""
LEVEL_NAMES = ("host", "PTE", "PDE", "PDPTE", "PML4E", "PML5E")
COUNTED = ("accesses", "fetches", "l1_dtlb_misses", "l1_itlb_misses")
COUNTED += ("flushes", "entries_flushed", "context_switches")
INCLUSIONS = ("none", "inclusive", "exclusive")


class Tally:
    """What a replay counts on the way. Arrays of int64."""

    def __init__(self, machine: Machine, regions: int) -> None:
        places = len(machine.cache) + 1
        self.counts = dict.fromkeys(COUNTED, 0)
        self.stlb = np.zeros(2, np.int64)
        """Hits, and the cycles that they add."""
        self.psc_hits = np.zeros(max(1, len(machine.psc)), np.int64)
        self.by_refs = np.zeros(MAX_READS, np.int64)
        self.places = np.zeros(places, np.int64)
        """Walk references found in each data cache; the last is memory."""
        self.level_cycles = np.zeros(len(LEVEL_NAMES), np.int64)
        self.caches = np.zeros((places, 2, 3), np.int64)
        self.region = np.zeros((5, regions), np.int64)
        """Accesses, L1 misses, STLB misses, walk references, walk cycles of each region."""
        self.window = np.zeros((3, WINDOWS), np.int64)
        """L1 misses, STLB misses, walk cycles over the trace."""
        self.flush_cycles = 0
        self.waited = 0


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
    on_misses: Callable[[NDArray[np.int64], NDArray[np.int64]], None] | None = None,
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
            trace.name,
            "has no offsets, which the full cache mode needs",
            "use the walks-only mode, or record offsets",
        )
    began = time.perf_counter()
    tables = translate(mapping, machine, trace.spaces)
    state = power_on(machine, tables, mapping.geometry.levels, trace.cpus)
    translated = time.perf_counter()
    run = _Run(
        trace, mapping, machine, tables, state, has_itlb(machine) if fetches is None else fetches, cache_mode
    )
    run.compile()
    compiled = time.perf_counter()
    run.through(chunk, progress, on_misses)
    done = time.perf_counter()
    seconds = {
        "open": 0.0,
        "translate": translated - began,
        "compile": compiled - translated,
        "replay": done - compiled,
    }
    return run.result({name: round(value, 6) for name, value in seconds.items()})


class _Run:
    """One replay under way: the inputs, what the hardware holds, and what was counted."""

    def __init__(
        self,
        trace: Trace,
        mapping: Mapping,
        machine: Machine,
        tables: Tables,
        state: State,
        fetches: bool,
        cache_mode: str,
    ) -> None:
        self.trace, self.mapping, self.machine = trace, mapping, machine
        self.tables, self.state = tables, state
        self.fetches, self.full = fetches, cache_mode == "full" and state.caches is not None
        self.entry_cache = next(
            (i for i, c in enumerate(machine.cache) if c.name == machine.walker.enters), 0
        )
        self.stride = max(1, -(-trace.accesses // WINDOWS))
        self.tally = Tally(machine, len(mapping.regions))
        window = machine.walker.window_accesses
        self.walkers = np.zeros(machine.walker.count, np.int64)
        self.ring = np.zeros((window + 1, 2), np.int64)
        self.clock = np.zeros(4, np.int64)
        first = tables.first.set_of
        self.kinds_differ = self.fetches or (first[0] != first[1]).any() or self._stlb_kinds_differ()
        held = tables.second.tag_of
        self.unit_of_tag = np.zeros(
            int(max(held.max(initial=0), tables.first.tag_of.max(initial=0))) + 1, np.int64
        )
        for k in range(3):
            served = np.flatnonzero(tables.first.tag_of[k] >= 0)
            self.unit_of_tag[tables.first.tag_of[k, served]] = served

    def _stlb_kinds_differ(self) -> bool:
        second = self.tables.second
        return bool(
            (second.set_of[0] != second.set_of[1]).any() or (second.tag_of[0] != second.tag_of[1]).any()
        )

    def compile(self) -> None:
        """Call every kernel on nothing, so that compiling is not counted as replaying."""
        nothing = Chunk(0, *(np.zeros(0, t) for t in (np.uint32, np.uint16, np.uint8, np.uint8)))
        self._chunk(nothing, 0, None)

    def through(
        self,
        size: int,
        progress: Callable[[int], None] | None,
        on_misses: Callable[[NDArray[np.int64], NDArray[np.int64]], None] | None,
    ) -> None:
        """Replay the whole trace."""
        position = 0
        for piece in self._pieces(size):
            if isinstance(piece, np.void):
                cycles = happen(piece, self.state, self.tables, self.machine, self.tally.counts)
                self.tally.flush_cycles += cycles
                continue
            position += self._chunk(piece, position, on_misses)
            if progress is not None:
                progress(piece.start + len(piece.page))
        self.tally.waited = int(self.clock[0])
        if len(self.ring) > 1:
            self.tally.waited = max(self.tally.waited, int(self.walkers.max()) - position)

    def _pieces(self, size: int) -> Iterator[Chunk | np.void]:
        """Chunks, cut where events happen, with the events between them."""
        wanted = ["flags"] if self.fetches or self.kinds_differ or "flags" in self.trace.columns else []
        wanted += ["cpu"] if self.trace.cpus > 1 else []
        wanted += ["offset"] if self.full else []
        events = list(self.trace.events) if self.trace.events is not None else []
        for chunk in self.trace.chunks(*wanted, size=size):
            at = 0
            while events and events[0]["position"] < chunk.start + len(chunk.page):
                cut = int(events[0]["position"]) - chunk.start
                if cut > at:
                    yield _part(chunk, at, cut)
                    at = cut
                yield events.pop(0)
            yield _part(chunk, at, len(chunk.page)) if at else chunk
        yield from events

    def _chunk(self, chunk: Chunk, position: int, on_misses: Any) -> int:
        """Replay one chunk whose first replayed access has the given position; return how many it had."""
        from pagewalk.kernels.tlb import replay_units

        page, flags, cpu, offset = chunk.page, chunk.flags, chunk.cpu, chunk.offset
        record = np.arange(chunk.start, chunk.start + len(page))
        if flags is not None and not self.fetches:
            data = (flags & FETCH) == 0
            if not data.all():
                page, flags, record = page[data], flags[data], record[data]
                cpu = cpu[data] if cpu is not None else None
                offset = offset[data] if offset is not None else None
        count = len(page)
        kind = np.zeros(count, np.uint8)
        if flags is not None and self.kinds_differ:
            kind = np.where(flags & FETCH, 2, (flags & STORE) >> 3).astype(np.uint8)
        cpu = np.zeros(count, np.uint8) if cpu is None else np.ascontiguousarray(cpu)
        unit = self.tables.unit_of_page[page]
        l1_missed, stlb_missed = np.empty(count, np.int64), np.empty(count, np.int64)
        n1, n2 = replay_units(
            unit,
            kind,
            cpu,
            self.state.first,
            self.state.second,
            self.unit_of_tag,
            INCLUSIONS.index(self.machine.inclusion),
            self.state.last,
            l1_missed,
            stlb_missed,
            self.tally.stlb,
        )
        l1_missed, stlb_missed = l1_missed[:n1], stlb_missed[:n2]
        data_address = self._data_addresses(page, offset) if self.full else np.zeros(0, np.int64)
        cycles, refs = self._walks(stlb_missed, unit, cpu, data_address, count)
        self._tally(page, kind, record, l1_missed, stlb_missed, cycles, refs, position)
        if on_misses is not None:
            on_misses(l1_missed + position, stlb_missed + position)
        return count

    def _data_addresses(
        self, page: NDArray[np.uint32], offset: NDArray[np.uint16] | None
    ) -> NDArray[np.int64]:
        inside = np.zeros(len(page), np.int64) if offset is None else offset.astype(np.int64)
        return (self.mapping.frame[page] << 12) + inside

    def _walks(
        self,
        missed: NDArray[np.int64],
        unit: NDArray[np.int32],
        cpu: NDArray[np.uint8],
        data_address: NDArray[np.int64],
        count: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Walk for each miss; return the cycles and the references of each walk."""
        from pagewalk.kernels.caches import read_all, read_walks
        from pagewalk.kernels.walk import walk

        state, tally, machine = self.state, self.tally, self.machine
        per_walk = MAX_READS if state.host.levels else state.tables.levels
        address = np.empty(WALKS_AT_ONCE * per_walk, np.int64)
        level = np.empty(WALKS_AT_ONCE * per_walk, np.int8)
        cycles, refs = np.empty(len(missed), np.int64), np.empty(len(missed), np.int64)
        at = 0
        for first in range(0, max(len(missed), 1), WALKS_AT_ONCE):
            end = min(first + WALKS_AT_ONCE, len(missed))
            ends = np.empty(end - first, np.int64)
            reads = walk(
                missed,
                unit,
                cpu,
                first,
                end,
                state.tables,
                state.host,
                ends,
                address,
                level,
                tally.psc_hits,
                tally.by_refs,
            )
            spent = np.full(end - first, machine.walker.start_cycles, np.int64)
            refs[first:end] = np.diff(ends, prepend=0)
            if state.caches is None:
                spent += refs[first:end] * machine.memory.latency_cycles
                tally.places[-1] += reads
                by_level = np.bincount(level[:reads], minlength=len(LEVEL_NAMES))
                tally.level_cycles += by_level * machine.memory.latency_cycles
            else:
                shared = (
                    state.caches, self.entry_cache, self.trace.cpus, missed, cpu, first, ends, address, level,
                    spent, tally.places, tally.level_cycles, tally.caches,
                )  # fmt: skip
                if self.full:
                    until = int(missed[end]) if end < len(missed) else count
                    read_all(*shared, data_address, at, until)
                    at = until
                else:
                    read_walks(*shared)
            cycles[first:end] = spent
        return cycles, refs

    def _tally(
        self,
        page: NDArray[np.uint32],
        kind: NDArray[np.uint8],
        record: NDArray[np.int64],
        l1_missed: NDArray[np.int64],
        stlb_missed: NDArray[np.int64],
        cycles: NDArray[np.int64],
        refs: NDArray[np.int64],
        position: int,
    ) -> None:
        from pagewalk.kernels.cost import wait_for_walks

        tally, region, regions = self.tally, self.mapping.region, len(self.mapping.regions)
        counts = tally.counts
        fetched = int(np.count_nonzero(kind[l1_missed] == 2)) if self.fetches else 0
        counts["accesses"] += len(page)
        counts["fetches"] += int(np.count_nonzero(kind == 2)) if self.fetches else 0
        separate = has_itlb(self.machine)
        counts["l1_itlb_misses"] += fetched if separate else 0
        counts["l1_dtlb_misses"] += len(l1_missed) - (fetched if separate else 0)
        touched = np.bincount(page, minlength=len(region))
        walked = region[page[stlb_missed]]
        tally.region[0] += np.bincount(region, touched, regions).astype(np.int64)
        tally.region[1] += np.bincount(region[page[l1_missed]], minlength=regions)
        tally.region[2] += np.bincount(walked, minlength=regions)
        tally.region[3] += np.bincount(walked, refs, regions).astype(np.int64)
        tally.region[4] += np.bincount(walked, cycles, regions).astype(np.int64)
        tally.window[0] += np.bincount(record[l1_missed] // self.stride, minlength=WINDOWS)
        when = record[stlb_missed] // self.stride
        tally.window[1] += np.bincount(when, minlength=WINDOWS)
        tally.window[2] += np.bincount(when, cycles, WINDOWS).astype(np.int64)
        wait_for_walks(
            stlb_missed + position,
            cycles,
            self.machine.walker.window_accesses,
            self.walkers,
            self.ring,
            self.clock,
        )

    def result(self, seconds: dict[str, float]) -> Replay:
        """Put together what was counted."""
        tally, machine, mapping = self.tally, self.machine, self.mapping
        walks = int(tally.by_refs.sum())
        refs = int((tally.by_refs * np.arange(MAX_READS)).sum())
        counts = dict(tally.counts)
        counts |= {"stlb_hits": int(tally.stlb[0]), "stlb_misses": walks, "walks": walks, "walk_refs": refs}
        counts |= {f"walks_by_refs_{n}": int(tally.by_refs[n]) for n in np.flatnonzero(tally.by_refs)}
        counts |= {
            f"psc_hits_{n}": int(h) for n, h in zip(self.tables.psc.names, tally.psc_hits, strict=False)
        }
        stlb_cycles = int(tally.stlb[1])
        cycles = {
            "walk": int(tally.region[4].sum()),
            "stlb_hit": stlb_cycles,
            "flush": tally.flush_cycles,
            "exposed": tally.waited + stlb_cycles + tally.flush_cycles,
        }
        places = [*(c.name for c in machine.cache), "memory"]
        windows = -(-self.trace.accesses // self.stride) if self.trace.accesses else 0
        return Replay(
            machine=machine.id or machine.name,
            mapping=mapping.name,
            counts=counts,
            cycles=cycles,
            memory={**mapping.memory, "stlb_reach": self._reach()},
            walk_refs_in={name: int(n) for name, n in zip(places, tally.places, strict=True)},
            walk_cycles_by_level={
                name: int(n) for name, n in zip(LEVEL_NAMES, tally.level_cycles, strict=True) if n
            },
            caches=self._caches(places),
            cache_mode="full" if self.full else "walks-only",
            by_region=self._regions(),
            windows=Windows(
                accesses_per_window=self.stride,
                l1_misses=tally.window[0, :windows].tolist(),
                stlb_misses=tally.window[1, :windows].tolist(),
                walk_cycles=tally.window[2, :windows].tolist(),
            ),
            seconds=seconds,
            notes=list(mapping.notes),
        )

    def _reach(self) -> int:
        """Bytes that the STLB covers when filled with the leaf size that most vmalloc pages have."""
        leaf = int(np.bincount(self.mapping.leaf_shift).argmax()) if len(self.mapping.leaf_shift) else 12
        second = [a for a in self.machine.tlb if a.level == 2 and {"load", "store"} & set(a.serves)]
        held = [a for a in second if not a.holds or leaf in {SIZES[name] for name in a.holds}]
        return sum(a.entries for a in held) << leaf

    def _caches(self, places: list[str]) -> dict[str, dict[str, int]]:
        found = {}
        for name, (data, tables) in zip(places, self.tally.caches.tolist(), strict=True):
            found[name] = {
                "data_hits": data[0],
                "data_misses": data[1],
                "walk_hits": tables[0],
                "walk_misses": tables[1],
                "data_evicted_by_walks": tables[2],
                "walks_evicted_by_data": data[2],
            }
        return found if self.machine.cache else {}

    def _regions(self) -> list[RegionCost]:
        found = [
            RegionCost(
                name=r.name,
                caller=r.caller,
                kind=r.kind,
                leaf=r.leaf,
                size_bytes=r.size_bytes,
                waste_bytes=r.waste_bytes,
                accesses=accesses,
                l1_misses=l1_misses,
                stlb_misses=stlb_misses,
                walk_refs=walk_refs,
                walk_cycles=walk_cycles,
            )
            for r, (accesses, l1_misses, stlb_misses, walk_refs, walk_cycles) in zip(
                self.mapping.regions, self.tally.region.T.tolist(), strict=True
            )
            if accesses
        ]
        return sorted(found, key=lambda cost: (-cost.walk_cycles, -cost.accesses, cost.name))


def _part(chunk: Chunk, start: int, end: int) -> Chunk:
    """Records start to end of a chunk."""
    columns = (c[start:end] if c is not None else None for c in chunk[1:])
    return Chunk(chunk.start + start, *columns)  # type: ignore[arg-type]
