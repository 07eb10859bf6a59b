"""Replay: a trace over a mapping on a machine, chunk by chunk.

Stages, each a kernel: records to translation units, units through the TLBs, walks of the misses, reads of
the walks through the data caches, cycles. Memory is bounded by the distinct pages and one chunk, never by
the trace.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.events import happen
from pagewalk.replay.paths.fast import FastPath
from pagewalk.replay.paths.fast import fast as fast_tables
from pagewalk.replay.paths.general import ABSENT, General, plain
from pagewalk.replay.paths.line import Line
from pagewalk.replay.paths.reads import lru_reads_of
from pagewalk.replay.paths.state import power_on
from pagewalk.replay.result import Replay
from pagewalk.replay.tables import Tables, translate
from pagewalk.replay.tally import Tally, result, window_of
from pagewalk.trace.trace import CHUNK, EVENT, Chunk, Trace

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
    threads: int = 1,
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
    threads : int
        From 2 on, what TLBs hold is worked out in one thread, and walks in another; on machines whose walk
        references all cost the same, the second level goes with the walks. Does not change any count.

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
    with Line(threads) as line:
        run = Run(trace, mapping, machine, fetches, cache_mode, chunk, fast, line=line)
        translated = time.perf_counter()
        run.take(Chunk(0, np.zeros(0, np.uint32), np.zeros(0, np.uint16)), on_misses)
        line.wait()
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
        per_window: int = 0,
        tables: Tables | None = None,
        line: Line | None = None,
    ) -> None:
        """Power on; `per_window` is the records of a point of the time series, 0 a 200th of the trace.

        `tables` are those of `mapping` and `machine`, where they are known already; `line` is how the TLBs
        hand work on to the walks.
        """
        self.line = line or Line()
        self.trace, self.mapping, self.machine = trace, mapping, machine
        self.fetches, self.full = fetches, cache_mode == "full" and bool(machine.cache)
        recorded = (trace.pages << np.uint64(trace.page_shift - 12)).astype(np.int64)
        self.tables = tables or translate(mapping, machine, trace.spaces, recorded)
        self.state = power_on(machine, self.tables, mapping.geometry.levels, trace.cpus)
        per_window = per_window or window_of(trace.accesses)
        self.stretch = max(1, min(size, trace.accesses))
        self.size = min(self.stretch, per_window)
        self.kinds_differ = fetches or _kinds_differ(self.tables)
        kinds = 3 if fetches else 2 if self.kinds_differ else 1
        levels, regions = mapping.geometry.levels, len(mapping.regions)
        taken = None
        if fast and not self.full:
            taken = fast_tables(trace, machine, self.tables, levels, kinds, regions, self.size)
        self.tally = Tally(machine, mapping, trace.accesses, kinds if taken else 1, per_window)
        self.path = FastPath(self, taken) if taken else General(self)
        self.entry_cache = next(
            (i for i, c in enumerate(machine.cache) if c.name == machine.walker.enters), 0
        )
        plain_reads = fast and not self.full
        self.reads = lru_reads_of(machine, self.tables, trace.cpus, self.entry_cache) if plain_reads else None
        self.walkers = np.zeros(machine.walker.count, np.int64)
        self.ring = np.zeros((machine.walker.window_accesses + 1, 2), np.int64)
        self.clock = np.zeros(3, np.int64)

    def through(self, progress: Callable[[int], None] | None, on_misses: Misses | None) -> None:
        """Replay the whole trace."""
        tally = self.tally
        whole = self.path.uniform and on_misses is None
        pieces: Iterator[Chunk | np.void] = self.pieces(*(["offset"] if self.full else []))
        for piece in self.trace.chunks("flags", size=self.stretch) if whole else pieces:
            if isinstance(piece, np.void):
                self.line.wait()
                self.happen(piece)
                continue
            self.take(piece, on_misses)
            if progress is not None:
                progress(piece.start + len(piece.page))
        self.line.wait()
        window = self.machine.walker.window_accesses
        tally.waited = waited_at_the_end(self.clock, self.ring, self.walkers, window, tally.accesses)
        self.path.finish()
        if self.reads is not None:
            self.reads.count(tally)

    def happen(self, event: np.void) -> None:
        """Apply an event of the trace."""
        base_shift = self.mapping.geometry.base_shift
        cycles = happen(event, self.state, self.tables, self.machine, base_shift, self.tally.events)
        self.tally.flush_cycles += cycles

    def pieces(self, *columns: str) -> Iterator[Chunk | np.void]:
        """Chunks, with the columns named besides flags and cpu, and the events between them.

        Chunks are cut where events happen and where windows of the time series begin.
        """
        events = self.trace.events if self.trace.events is not None else np.zeros(0, EVENT)
        window, next_event = self.tally.per_window, 0
        for chunk in self.trace.chunks("flags", "cpu", *columns, size=self.size):
            start, end = chunk.start, chunk.start + len(chunk.page)
            last_event = int(np.searchsorted(events["position"], end))
            cuts = set(events["position"][next_event:last_event].tolist())
            cuts |= {end, *range(start - start % window + window, end, window)}
            at = start
            for cut in sorted(cuts):
                if cut > at:
                    yield part(chunk, at - start, cut - start)
                    at = cut
                while next_event < last_event and events["position"][next_event] <= cut:
                    yield events[next_event]
                    next_event += 1
        yield from events[next_event:]

    def take(self, chunk: Chunk, on_misses: Misses | None) -> None:
        """Replay a chunk: of any windows if the path can and nobody asks for the misses, else of one."""
        if on_misses is None and isinstance(self.path, FastPath) and self.path.uniform:
            self.path.windows(chunk)
        else:
            self.chunk(chunk, on_misses)

    def chunk(self, chunk: Chunk, on_misses: Misses | None) -> None:
        """Replay one chunk, of one window."""
        tally = self.tally
        flags = ABSENT if chunk.flags is None else plain(chunk.flags, np.uint8)
        found = self.path.levels(chunk, plain(chunk.page, np.uint32), flags)
        before = np.int64(tally.accesses)
        stlb_at = found.stlb_at + before
        if on_misses is not None:
            on_misses(found.l1_at + before, stlb_at)
        tally.accesses += found.accesses
        tally.fetches += found.fetches
        window, l1 = chunk.start // tally.per_window, len(found.l1_at)

        def walk() -> None:
            tally.window[:, window : window + 1] += [[l1], [len(stlb_at)], [found.walk(stlb_at)]]

        self.line.hand(walk)

    def wait(self, at: NDArray[np.int64], cycles: NDArray[np.int64]) -> int:
        """Let the program wait for walks; return the cycles of all of them."""
        from pagewalk.kernels.general.cost import wait_for_walks

        window = self.machine.walker.window_accesses
        wait_for_walks(at, cycles, window, self.walkers, self.ring, self.clock)
        return int(cycles.sum())

    def count_l1(self, misses: int, of_fetches: int) -> None:
        """Count the L1 misses of a chunk, those of fetches among them."""
        of_itlb = of_fetches if has_itlb(self.machine) else 0
        self.tally.l1_itlb_misses += of_itlb
        self.tally.l1_dtlb_misses += misses - of_itlb


def waited_at_the_end(
    clock: NDArray[np.int64],
    ring: NDArray[np.int64],
    walkers: NDArray[np.int64],
    window: int,
    accesses: int,
) -> int:
    """Cycles that the program waits for walks, up to the end of the last.

    Parameters
    ----------
    clock, ring, walkers : ndarray of int64
        As `pagewalk.kernels.general.cost.wait_for_walks` leaves them.
    window : int
        Accesses that the program may run ahead.
    accesses : int
        Of the whole replay.
    """
    waited, head, length = clock.tolist()
    for number in range(head, head + length):
        position, done = ring[number % len(ring)].tolist()
        if position + window < accesses:
            waited = max(waited, done - (position + window))
    return int(max(waited, int(walkers.max()) - accesses))


def _kinds_differ(tables: Any) -> bool:
    """Whether a store can go another way than a load."""
    return any((of[0] != of[1]).any() for t in (tables.first, tables.second) for of in (t.set_of, t.tag_of))


def part(chunk: Chunk, start: int, end: int) -> Chunk:
    """Records start to end of a chunk."""
    columns = (c[start:end] if c is not None else None for c in chunk[1:])
    return Chunk(chunk.start + start, *columns)  # type: ignore[arg-type]


def warm_up() -> None:
    """Compile every kernel that a replay may need, or load it compiled."""
    from pagewalk.hardware.machine import Cache, Guest, Memory, Psc, Tlb
    from pagewalk.linux.mapping import map_trace
    from pagewalk.trace.trace import from_addresses

    tlb = [Tlb(name="L1", level=1, entries=4, ways=4), Tlb(name="STLB", level=2, entries=8, ways=4)]
    machine = Machine(
        schema="pagewalk.machine/1",
        name="warm-up",
        tlb=tlb,
        psc=[Psc(name="PDE", level=2, entries=4)],
        cache=[Cache(name="L1D", size_bytes=4096, ways=4, latency_cycles=4)],
        memory=Memory(latency_cycles=100),
        guest=Guest(),
    )
    trace = from_addresses("warm-up", np.arange(0, 1 << 16, 512, dtype=np.uint64))
    mapping = map_trace(trace.pages, None, "base")
    for mode in ("walks-only", "full"):
        replay(trace, mapping, machine, cache_mode=mode)
    cached = msgspec.structs.replace(machine, guest=None)
    for plain_machine in (cached, msgspec.structs.replace(cached, cache=[])):
        for threads in (1, 2):
            replay(trace, mapping, plain_machine, threads=threads)
