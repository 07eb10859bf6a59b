"""Sample a trace in time, with its miss ratios kept honest: windows, each warmed up, and error bars.

Sampling pages (as SHARDS does for large caches) is badly biased at TLB sizes, since a few pages have most of
the accesses. Here whole windows of the trace are replayed. Before each come the distinct pages that were
accessed until then, in the order of their last access: that leaves an LRU cache just as the whole past
would have left it (its recency stack is that order), and other policies close to it. Paging-structure
caches are filled by walks, and no warm-up by accesses knows which pages were walked last: walk references
and cycles of a sample are off by up to a third on real traces, so only misses are estimated.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.engine import replay
from pagewalk.replay.result import Replay
from pagewalk.replay.tables import LevelTable, translate
from pagewalk.replay.tally import WINDOWS, window_of
from pagewalk.study.replays import Subject
from pagewalk.trace.trace import (
    EVENT,
    FETCH,
    FLUSH_ALL,
    FLUSH_LOCAL,
    SWITCH,
    Trace,
    from_pages,
)

PARTS = 50
"""Windows of a sample; ours."""

CELLS = WINDOWS // PARTS
"""Points of the replay's time series for each window: the first is the warm-up, the others count."""

NEVER = np.iinfo(np.int64).max

LEAST_CELL = 8192
"""Records of a warm-up at least: more pages than any STLB we know has entries (4096 in the presets)."""

LEAST_CELL_UNSURE = 1 << 15
"""The same where a TLB is not LRU. Then two thirds of each window are warm-up too: on a trace of ours,
Skylake's STLB was 14 % off in the first third of 8192 records, and 0.1 % in the last third of 28,159."""

CONFIDENCE = 0.95
_NORMAL = 1.959963984540054
"""The normal distribution's quantile for it."""


@dataclass(frozen=True)
class Sample:
    """Windows of a trace, ready to replay.

    Attributes
    ----------
    trace : Trace
        Warm-up and window, one after the other; the pages are those of the whole trace.
    cell : int
        Records of a warm-up; a window has three times as many.
    records : int
        Of the whole trace.
    start : ndarray of int64, shape (PARTS,)
        Where each window begins in the whole trace.
    first : ndarray of int64, shape (cpus, 2, distinct)
        Position of each CPU's first data access to each page, and of its first fetch; `NEVER` for none.
    """

    trace: Trace
    cell: int
    records: int
    start: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Records that count, of the whole trace."""
        return PARTS * self.length / self.records

    @property
    def length(self) -> int:
        """Records of a window."""
        return (CELLS - 1) * self.cell


class Estimate(Struct, frozen=True, kw_only=True):
    """A count of the whole trace, estimated.

    Attributes
    ----------
    value, low, high : int
        The estimate, and the ends of its 95 % confidence interval.
    certain : int
        What of it is known exactly: first touches.
    """

    value: int
    low: int
    high: int
    certain: int = 0


class Estimates(Struct, frozen=True, kw_only=True):
    """What a sample says of a replay of the whole trace.

    Attributes
    ----------
    machine, mapping : str
    records : int
        Of the whole trace.
    share : float
        Of them in the sample.
    parts : int
        Windows.
    l1_misses, stlb_misses : Estimate
        Of data and, where the replay had them, fetches.
    """

    machine: str
    mapping: str
    records: int
    share: float
    parts: int
    l1_misses: Estimate
    stlb_misses: Estimate


def sample(
    trace: Trace,
    machines: Sequence[Machine],
    share: float = 0.02,
    seed: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Sample:
    """Take a sample of a trace, reading it once.

    The trace is cut into as many stretches of equal length as there are windows; a window lies in each, at
    random.

    Parameters
    ----------
    trace : Trace
    machines : sequence of Machine
        That it is to be replayed on.
    share : float
        Records that shall be in windows, of all; more are taken of a short trace.
    seed : int
        Of the windows' places.
    progress : callable, optional
        Called with the number of records read since the last call.

    Raises
    ------
    BadInput
        The trace is too short, or has context switches (what a processor keeps over a switch, a warm-up
        cannot tell).
    """
    events = trace.events if trace.events is not None else np.zeros(0, EVENT)
    if (events["kind"] == SWITCH).any():
        raise BadInput(trace.origin or trace.name, "has context switches", "replay it whole")
    least_cell = LEAST_CELL if all(map(is_lru, machines)) else LEAST_CELL_UNSURE
    cell = max(least_cell, int(share * trace.accesses / (PARTS * (CELLS - 1))))
    cell = window_of(WINDOWS * cell)
    length, stretch = (CELLS - 1) * cell, trace.accesses // PARTS
    if stretch < 2 * CELLS * cell:
        least = 2 * CELLS * PARTS * cell
        raise BadInput(
            trace.origin or trace.name,
            f"{trace.accesses} records are too few to sample {100 * share:g} %",
            f"replay it whole, or bring {least} at least",
        )
    chance = np.random.default_rng(seed)
    first = np.arange(PARTS) * stretch + chance.integers(0, stretch - length, PARTS)
    reader = _Reader(trace, events)
    for start in first.tolist():
        reader.read_to(start, None, progress)
        reader.warm_up(cell)
        reader.read_to(start + length, reader.take, progress)
    reader.read_to(trace.accesses, None, progress)
    return Sample(reader.sampled(), cell, trace.accesses, first, reader.first)


def is_lru(machine: Machine) -> bool:
    """Whether all its TLBs are true LRU, so that a warm-up by last accesses is exact."""
    return all(array.policy == "lru" for array in machine.tlb)


class _Reader:
    """Goes through a trace once, remembering when each page was last accessed, and takes parts of it."""

    def __init__(self, trace: Trace, events: NDArray[np.void]) -> None:
        self.trace, self.events = trace, events
        self.position = self.event = self.taken = 0
        self.last = np.full((trace.cpus, 2, len(trace.pages)), -1, np.int64)
        """Position of the last data access and fetch of each page on each CPU; -1: none since a flush."""
        self.first = np.full(self.last.shape, NEVER, np.int64)
        self.parts: list[tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint8]]] = []
        self.kept: list[NDArray[np.void]] = []
        self._chunks = trace.chunks("flags", "cpu")
        self._chunk, self._start = next(self._chunks, None), 0

    def read_to(
        self,
        end: int,
        take: Callable[[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint8]], None] | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        """Go on to a record, taking what is read where asked to."""
        while self.position < end:
            assert self._chunk is not None
            chunk_end = self._chunk.start + len(self._chunk.page)
            if self.position == chunk_end:
                self._chunk = next(self._chunks, None)
                continue
            upcoming = self.events["position"][self.event] if self.event < len(self.events) else end
            if upcoming <= self.position:
                self._happen(self.events[self.event], take is not None)
                continue
            stop = int(min(end, chunk_end, upcoming))
            part = slice(self.position - self._chunk.start, stop - self._chunk.start)
            page = self._chunk.page[part]
            flags = np.zeros(len(page), np.uint8) if self._chunk.flags is None else self._chunk.flags[part]
            cpu = np.zeros(len(page), np.uint8) if self._chunk.cpu is None else self._chunk.cpu[part]
            place = page + len(self.trace.pages) * ((flags & FETCH != 0) + 2 * cpu.astype(np.int64))
            position = np.arange(self.position, stop)
            self.last.reshape(-1)[place] = position
            new = self.first.reshape(-1)[place] == NEVER
            if new.any():
                self.first.reshape(-1)[place[new][::-1]] = position[new][::-1]
            if take is not None:
                take(page, flags, cpu)
            if progress is not None:
                progress(stop - self.position)
            self.position = stop

    def _happen(self, event: np.void, taking: bool) -> None:
        """Forget what an event drops; keep it where a window is taken."""
        cpus = slice(None) if event["cpu"] < 0 else event["cpu"]
        if event["kind"] == FLUSH_ALL:
            self.last[cpus] = -1
        elif event["kind"] == FLUSH_LOCAL:
            if self.trace.spaces is not None:
                self.last[cpus, :, self.trace.spaces != 0] = -1
        else:
            shift = np.uint64(self.trace.page_shift)
            start, end = (
                event["start"] >> shift,
                (event["end"] + (np.uint64(1) << shift) - np.uint64(1)) >> shift,
            )
            self.last[cpus, :, (self.trace.pages >= start) & (self.trace.pages < end)] = -1
        if taking:
            moved = event.copy()
            moved["position"] = self.taken
            self.kept.append(np.array([moved], EVENT))
        self.event += 1

    def take(self, page: NDArray[np.uint32], flags: NDArray[np.uint8], cpu: NDArray[np.uint8]) -> None:
        """Add records to the sample."""
        self.parts.append((page.copy(), flags.copy(), cpu.copy()))
        self.taken += len(page)

    def warm_up(self, count: int) -> None:
        """Add the `count` pages accessed last, in that order; the oldest again where there are fewer."""
        when = self.last.reshape(-1)
        seen = np.flatnonzero(when >= 0)
        if len(seen) > count:
            seen = seen[np.argpartition(when[seen], len(seen) - count)[len(seen) - count :]]
        seen = seen[np.argsort(when[seen])]
        if not len(seen):
            seen = np.zeros(1, np.int64)
        seen = np.append(np.full(count - len(seen), seen[0]), seen)
        cpu_and_kind, page = np.divmod(seen, len(self.trace.pages))
        cpu, fetched = np.divmod(cpu_and_kind, 2)
        self.take(page.astype(np.uint32), (fetched * FETCH).astype(np.uint8), cpu.astype(np.uint8))

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
            events=np.concatenate(self.kept) if self.kept else None,
        )
        return replace(sampled, page_shift=self.trace.page_shift, cpus=self.trace.cpus)


def estimates(taken: Sample, found: Replay, mapping: Mapping, machine: Machine) -> Estimates:
    """What the replay of a sample says of the whole trace.

    First touches miss for certain, and all of them are known, for the whole trace was looked at; those in the
    windows stand aside. Of the other misses the interval is that of the mean of the windows' figures
    (Student's distribution, with the correction for sampling a share without replacement), and never narrower
    than what a Poisson process would leave open, which matters where a sample holds few of them. Since first
    touches may take the place of other misses, it also covers what would be said if they were misses like all
    others.

    Parameters
    ----------
    taken : Sample
    found : Replay
        Of the sample's trace, under `mapping` on `machine`.
    mapping : Mapping
    machine : Machine
    """
    series = found.windows
    assert series.accesses_per_window == taken.cell
    tables = translate(mapping, machine, taken.trace.spaces, mapping.page)
    fetched = bool(found.counts["fetches"])
    at_l1, at_stlb = (
        _first_touches(taken, tables.unit_of_page, level, fetched) for level in (tables.first, tables.second)
    )
    skip = 0 if is_lru(machine) else CELLS - 2
    at_stlb = np.intersect1d(at_l1, at_stlb)  # an L1 entry that covers more may have spared the STLB
    return Estimates(
        machine=found.machine,
        mapping=found.mapping,
        records=taken.records,
        share=taken.share,
        parts=PARTS,
        l1_misses=_estimate(taken, skip, series.l1_misses, at_l1),
        stlb_misses=_estimate(taken, skip, series.stlb_misses, at_stlb),
    )


class Sampled(Struct, frozen=True, kw_only=True):
    """The answer of ``pagewalk sample``.

    Attributes
    ----------
    trace, trace_sha256 : str
    records : int
    seed : int
    confidence : float
        Of the intervals.
    estimates : list of Estimates
    checked : list of dict of str to int
        What whole replays gave for each: l1_misses, stlb_misses; empty where they were not asked for.
    seconds : dict of str to float
        sample, replay, check.
    """

    schema: str = "pagewalk.sample/1"
    trace: str
    trace_sha256: str
    records: int
    seed: int
    confidence: float = CONFIDENCE
    estimates: list[Estimates]
    checked: list[dict[str, int]] = []
    seconds: dict[str, float]


def sampled(
    subject: Subject,
    machines: Sequence[Machine],
    mappings: Sequence[str],
    *,
    share: float = 0.02,
    seed: int = 1,
    check: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Sampled:
    """Sample a trace, replay the sample on every machine under every mapping; with `check` the trace too.

    Raises
    ------
    BadInput
        As of `sample` and of a replay.
    """
    began = time.perf_counter()
    taken = sample(subject.trace, machines, share, seed, progress)
    cells = [(machine, subject.mapped(name, machine)) for machine in machines for name in mappings]
    took = {"sample": time.perf_counter() - began}
    found = [
        estimates(taken, replay(taken.trace, mapping, machine), mapping, machine)
        for machine, mapping in cells
    ]
    took["replay"] = time.perf_counter() - began - took["sample"]
    checked = []
    for machine, mapping in cells if check else []:
        series = replay(subject.trace, mapping, machine).windows
        checked.append({"l1_misses": sum(series.l1_misses), "stlb_misses": sum(series.stlb_misses)})
    took["check"] = time.perf_counter() - began - sum(took.values())
    return Sampled(
        trace=subject.trace.name,
        trace_sha256=subject.trace.digest(),
        records=subject.trace.accesses,
        seed=seed,
        estimates=found,
        checked=checked,
        seconds={name: round(value, 6) for name, value in took.items()},
    )


def _first_touches(
    taken: Sample, unit_of_page: NDArray[np.int32], level: LevelTable, fetched: bool
) -> NDArray[np.int64]:
    """Where in the trace something is accessed that no entry of a TLB level could hold yet."""
    found = []
    for cpu in taken.first:
        key, when = [], []
        for kind, row in ((0, 0), (1, 2)) if fetched else ((0, 0),):
            seen = np.flatnonzero(cpu[kind] != NEVER)
            unit = unit_of_page[seen]
            served = level.set_of[row][unit] >= 0
            place = level.set_of[row][unit].astype(np.int64) << 32 | level.tag_of[row][unit]
            key.append(place[served])
            when.append(cpu[kind][seen[served]])
        keys, times = np.concatenate(key), np.concatenate(when)
        order = np.lexsort((times, keys))
        keys, times = keys[order], times[order]
        found.append(times[np.append(True, keys[1:] != keys[:-1])[: len(keys)]])
    return np.sort(np.concatenate(found))


def _estimate(taken: Sample, skip: int, cells: list[int], certain: NDArray[np.int64]) -> Estimate:
    """A count of the whole trace, of which what lies at the `certain` positions is known.

    The first `skip` cells of each window do not count.
    """
    counted = np.array(cells, np.int64).reshape(PARTS, CELLS)[:, 1 + skip :].sum(axis=1)
    start, end = taken.start + skip * taken.cell, taken.start + taken.length
    sure = np.searchsorted(certain, end) - np.searchsorted(certain, start)
    share = PARTS * (taken.length - skip * taken.cell) / taken.records
    value, low, high = _interval(share, np.maximum(counted - sure, 0))
    _, low_alike, high_alike = _interval(share, counted)
    known = len(certain)
    return Estimate(
        value=known + round(value),
        low=max(known, round(min(known + low, low_alike))),
        high=round(max(known + high, high_alike)),
        certain=known,
    )


def _interval(share: float, counted: NDArray[np.int64]) -> tuple[float, float, float]:
    """Estimate and confidence interval of a total, from what was counted in each window."""
    value = float(counted.sum()) / share
    spread = float(counted.std(ddof=1)) * float(np.sqrt((1 - share) / PARTS))
    reach = _student(PARTS - 1) * PARTS / share * spread
    least, most = (bound / share for bound in _poisson(int(counted.sum())))
    return value, min(value - reach, least), max(value + reach, most)


def _poisson(count: int) -> tuple[float, float]:
    """The confidence interval of a Poisson mean, of which `count` was seen (Wilson and Hilferty's form)."""
    low = count * (1 - 1 / (9 * count) - _NORMAL / (3 * count**0.5)) ** 3 if count else 0.0
    more = count + 1
    return low, more * (1 - 1 / (9 * more) + _NORMAL / (3 * more**0.5)) ** 3


def _student(freedom: int) -> float:
    """The quantile of Student's distribution for `CONFIDENCE` (Abramowitz and Stegun 26.7.5)."""
    z = _NORMAL
    return float(z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2))
