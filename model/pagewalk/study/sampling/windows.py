"""Windows of a trace, each with the past that leaves the TLBs as the whole past would have left them.

Before each window come the pages that were accessed until then, in the order of their last access. That
leaves an LRU cache just as the whole past would have left it: its recency stack is that order. What sees more
than recency (second levels, which are accessed only where the first one misses, and other policies) is left
near to it by what comes besides: accesses that first levels are likely to miss, from far back, and a stretch
of the trace itself that does not count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.tables import dense, translate
from pagewalk.trace.trace import EVENT, FETCH, FLUSH_ALL, RUNNING, SWITCH, Trace, from_pages

PARTS = 50
"""Windows of a sample; ours, as are the other figures here."""

LEAST = 1 << 14
"""Records of a window at least."""

LEAD_IN = 1 << 14
"""Records of the trace before each window that do not count."""

LEAD_IN_UNSURE = 1 << 16
"""The same where a TLB is not LRU: on a trace of ours, Skylake's STLB was 14 % off in the first 8192 records
after the warm-up, and 0.1 % after 18,000."""

PAST = 4
"""Entries of each set in a warm-up, by the set's ways. One would do for LRU; a second level, and other
policies, may still have entries that were not accessed lately."""

FAR_KEPT = 1 << 16
"""Accesses in a warm-up besides last ones: the latest of those that come back to a page after a while. They
are what second levels see. Without them Skylake's, which is not LRU, missed 8 % too often."""

MOST_EVENTS = 200_000
"""Of a sample. Each takes some 50 microseconds of a replay."""


class Stretches(NamedTuple):
    """Records of a sample, one stretch from each window, with what is known of each."""

    start: NDArray[np.int64]
    """Where each begins in the whole trace; shape (PARTS,)."""
    at: NDArray[np.int64]
    """The same in the sample."""
    stratum: NDArray[np.uint8]
    """Shape (PARTS, length): how long ago the page of each record was accessed before, see
    `kernels.trace.recency`."""


@dataclass(frozen=True)
class Sample:
    """Windows of a trace, ready to replay.

    Attributes
    ----------
    trace : Trace
        Warm-up, lead-in and window, one after the other; the pages are those of the whole trace.
    records : int
        Of the whole trace.
    windows : Stretches
    early : Stretches
        What follows each warm-up at once: where it misses more or less often than the windows, the warm-up
        was not what the past would have left.
    whole : ndarray of int64, shape (STRATA,)
        Records of the whole trace in each stratum.
    first : ndarray of int64, shape (cpus, 2, distinct)
        Position of each CPU's first data access to each page, and of its first fetch; NEVER for none.
    """

    trace: Trace
    records: int
    windows: Stretches
    early: Stretches
    whole: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Records that count, of the whole trace."""
        return self.windows.stratum.size / self.records


def is_lru(machine: Machine) -> bool:
    """Whether all its TLBs are true LRU, so that a warm-up by last accesses is exact."""
    return all(array.policy == "lru" for array in machine.tlb)


def sample(
    trace: Trace,
    cells: Sequence[tuple[Machine, Mapping]],
    share: float = 0.02,
    seed: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Sample:
    """Take a sample of a trace, reading it once.

    The trace is cut into as many stretches of equal length as there are windows; a window begins in each, at
    random.

    Parameters
    ----------
    trace : Trace
    cells : sequence of (Machine, Mapping)
        What it is to be replayed on.
    share : float
        Records that shall be in windows, of all; more are taken of a short trace.
    seed : int
        Of the windows' places.
    progress : callable, optional
        Called with the number of records read since the last call.

    Raises
    ------
    BadInput
        The trace is too short, or too much is flushed and switched in it.
    """
    lead_in = LEAD_IN if all(is_lru(machine) for machine, _ in cells) else LEAD_IN_UNSURE
    length = max(LEAST, int(share * trace.accesses / PARTS))
    stretch = trace.accesses // PARTS
    if stretch < 2 * (lead_in + length):
        least = 2 * PARTS * (lead_in + max(LEAST, length))
        raise BadInput(
            trace.origin or trace.name,
            f"{trace.accesses} records are too few to sample {100 * share:g} %",
            f"replay it whole, or bring {least} at least",
        )
    chance = np.random.default_rng(seed)
    start = np.arange(PARTS) * stretch + chance.integers(0, stretch, PARTS)
    start = np.minimum(_apart(start, length), trace.accesses - length)
    reader = _Reader(trace, _levels(trace, cells))
    begun, at, strata = [], [], []
    for window in start.tolist():
        reader.go(max(window - lead_in, reader.position), progress)
        reader.warm_up()
        begun.append((reader.position, reader.taken))
        lead = reader.go(window, progress, take=True)
        at.append(reader.taken)
        strata.append(np.concatenate([lead, reader.go(window + length, progress, take=True)]))
    reader.go(trace.accesses, progress)
    early_start, early_at = np.array(begun).T
    windows = Stretches(start, np.array(at), np.stack([each[-length:] for each in strata]))
    early = Stretches(early_start, early_at, np.stack([each[:LEAST] for each in strata]))
    return Sample(reader.sampled(), trace.accesses, windows, early, reader.count, reader.first)


def _apart(start: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Windows that would overlap the one before begin where that ends."""
    moved = start - length * np.arange(len(start))
    return np.maximum.accumulate(moved) + length * np.arange(len(start))


class _Level(NamedTuple):
    """A TLB level of a machine under a mapping, for the trace's pages; one row for data, one for fetches."""

    set_of: NDArray[np.int64]
    """Shape (2, distinct): the set that each page's entry goes to; -1 for none."""
    entry: NDArray[np.int64]
    """Shape (2, distinct): the number of that entry."""
    ways: NDArray[np.int64]
    """Of each set."""


def _levels(trace: Trace, cells: Sequence[tuple[Machine, Mapping]]) -> list[_Level]:
    """All that differ."""
    found = {}
    for machine, mapping in cells:
        tables = translate(mapping, machine, trace.spaces, mapping.page)
        for table in (tables.first, tables.second):
            rows = (table.set_of[0::2], table.tag_of[0::2])
            set_of, tag = (row[:, tables.unit_of_page].astype(np.int64) for row in rows)
            entry = dense(tag.ravel())[1].reshape(tag.shape)
            level = _Level(set_of, entry, table.ways)
            found[b"".join(column.tobytes() for column in level)] = level
    return list(found.values())


def _latest(
    level: _Level, cpu: NDArray[np.int64], fetched: NDArray[np.int64], page: NDArray[np.int64]
) -> Any:
    """Which accesses, most recent first, a level may still remember."""
    place = level.set_of[fetched, page]
    served = np.flatnonzero(place >= 0)
    entry = level.entry[fetched, page] + cpu * (int(level.entry.max(initial=0)) + 1)
    once = served[np.sort(np.unique(entry[served], return_index=True)[1])]
    place = place[once] + cpu[once] * len(level.ways)
    order = np.argsort(place, kind="stable")
    begun = np.searchsorted(place[order], place[order])
    younger = np.empty(len(once), np.int64)
    younger[order] = np.arange(len(once)) - begun
    return once[younger < PAST * level.ways[place % len(level.ways)]]


class _Reader:
    """Goes through a trace once, remembering when each page was last accessed, and takes parts of it."""

    def __init__(self, trace: Trace, levels: list[_Level]) -> None:
        from pagewalk.kernels.trace.recency import NEVER, STRATA

        self.trace, self.levels = trace, levels
        self.events = np.zeros(0, EVENT) if trace.events is None else trace.events
        self.position = self.event = self.taken = 0
        self.last = np.full((trace.cpus, 2, len(trace.pages)), -1, np.int64)
        self.first = np.full(self.last.shape, NEVER, np.int64)
        self.happened = np.zeros(trace.cpus, np.int64)
        self.count = np.zeros(STRATA, np.int64)
        self.far, self.far_kept = np.zeros((FAR_KEPT, 4), np.int64), np.zeros(1, np.int64)
        self.parts: list[tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint8]]] = []
        self.kept: list[NDArray[np.void]] = []
        self._chunks = trace.chunks("flags", "cpu")
        self._chunk = next(self._chunks, None)

    def go(self, end: int, progress: Callable[[int], None] | None, take: bool = False) -> NDArray[np.uint8]:
        """Go on to a record; the strata of the records up to it."""
        from pagewalk.kernels.trace.recency import note

        strata = [np.zeros(0, np.uint8)]
        while self.position < end:
            assert self._chunk is not None
            chunk_end = self._chunk.start + len(self._chunk.page)
            if self.position == chunk_end:
                self._chunk = next(self._chunks, None)
                continue
            upcoming = self.events["position"][self.event] if self.event < len(self.events) else end
            if upcoming <= self.position:
                self._happen(self.events[self.event : self.event + 1], take)
                continue
            stop = int(min(end, chunk_end, upcoming))
            part = slice(self.position - self._chunk.start, stop - self._chunk.start)
            page = np.array(self._chunk.page[part], np.uint32)
            absent = np.zeros(len(page), np.uint8)
            flags = absent if self._chunk.flags is None else np.array(self._chunk.flags[part])
            cpu = absent if self._chunk.cpu is None else np.array(self._chunk.cpu[part])
            fetch = (flags & FETCH != 0).astype(np.uint8)
            strata.append(np.empty(len(page), np.uint8))
            note(
                page,
                fetch,
                cpu,
                self.position,
                self.last,
                self.first,
                self.happened,
                strata[-1],
                self.count,
                self.far,
                self.far_kept,
            )
            if take:
                self._take(page, flags, cpu)
            if progress is not None:
                progress(stop - self.position)
            self.position = stop
        return np.concatenate(strata)

    def _happen(self, event: NDArray[np.void], taking: bool) -> None:
        """Forget what a full flush drops; keep events of a part that is taken."""
        cpus = slice(None) if event["cpu"][0] < 0 else int(event["cpu"][0])
        if event["kind"][0] == FLUSH_ALL:
            self.last[cpus] = -1
        self.happened[cpus] = self.position
        if taking:
            self._keep(event, self.taken)
        self.event += 1

    def _keep(self, events: NDArray[np.void], position: int | NDArray[np.int64]) -> None:
        moved = events.copy()
        moved["position"] = position
        self.kept.append(moved)
        if sum(map(len, self.kept)) > MOST_EVENTS:
            what = f"more than {MOST_EVENTS} flushes and switches in a sample"
            raise BadInput(self.trace.origin or self.trace.name, what, "replay it whole")

    def _take(self, page: NDArray[np.uint32], flags: NDArray[np.uint8], cpu: NDArray[np.uint8]) -> None:
        self.parts.append((page, flags, cpu))
        self.taken += len(page)

    def warm_up(self) -> None:
        """Take the past: from nothing, last accesses in their order, with the events between them."""
        nothing = np.zeros(1, EVENT)
        nothing["kind"], nothing["cpu"] = FLUSH_ALL, -1
        self._keep(nothing, self.taken)
        cpu, fetched, page = np.nonzero(self.last >= 0)
        when = self.last[cpu, fetched, page]
        order = np.argsort(-when)
        needed = np.zeros(len(order), bool)
        for level in self.levels:
            needed[_latest(level, cpu[order], fetched[order], page[order])] = True
        chosen = order[needed]
        accesses = np.stack([when[chosen], cpu[chosen], fetched[chosen], page[chosen]], axis=1)
        far = self.far[: self.far_kept[0]]
        accesses = np.concatenate([accesses, far])
        when, cpu, fetched, page = accesses[np.unique(accesses[:, 0], return_index=True)[1]].T
        begun = int(when[0]) if len(when) else self.position
        past = self.events[: self.event]
        self._keep(_residents(past[past["position"] <= begun], self.trace.cpus), self.taken)
        between = past[past["position"] > begun]
        self._keep(between, self.taken + np.searchsorted(when, between["position"].astype(np.int64)))
        self._take(page.astype(np.uint32), (fetched * FETCH).astype(np.uint8), cpu.astype(np.uint8))

    def sampled(self) -> Trace:
        """What was taken, as a trace."""
        page, flags, cpu = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        sampled = from_pages(
            f"{self.trace.name} (sampled)",
            self.trace.pages,
            page,
            flags=flags,
            cpu=cpu if self.trace.cpus > 1 else None,
            spaces=self.trace.spaces,
            events=np.concatenate(self.kept),
        )
        return replace(sampled, page_shift=self.trace.page_shift, cpus=self.trace.cpus)


def _residents(past: NDArray[np.void], cpus: int) -> NDArray[np.void]:
    """Switches that leave each CPU with the address spaces that it ran last, in that order."""
    found = [np.zeros(0, EVENT)]
    switches = past[np.isin(past["kind"], (SWITCH, RUNNING))]
    for cpu in range(cpus):
        mine = switches[(switches["cpu"] < 0) | (switches["cpu"] == cpu)]
        latest = len(mine) - 1 - np.unique(mine["space"][::-1], return_index=True)[1]
        kept = mine[np.sort(latest)].copy()
        kept["cpu"] = cpu
        found.append(kept)
    return np.concatenate(found)
