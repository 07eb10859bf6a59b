"""One replay in parts that know nothing of each other: the accesses of some CPUs each.

Exact where nothing that CPUs share decides a count: no data cache that they share, no program that runs ahead
of walks (walkers are taken in the order of the whole trace), no events.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.result import RegionCost, Replay, Windows
from pagewalk.replay.tally import LEVEL_NAMES, window_of
from pagewalk.trace.trace import Chunk, Trace

BY_REFS = "walks_by_refs_"
COSTS = ("accesses", "l1_misses", "stlb_misses", "walk_refs", "walk_cycles")
"""What is counted of a region."""

FEW = 8
"""CPUs that always have a replay of their own, which is faster for one CPU; every part reads the whole trace.
Ours to choose."""


def by_cpu(trace: Trace, mapping: Mapping, machine: Machine, wanted: int) -> list[Trace]:
    """Cut a trace by CPU where its replay may be cut; the trace alone where it may not.

    Parameters
    ----------
    trace : Trace
    mapping : Mapping
    machine : Machine
    wanted : int
        Parts at most, if the trace has more than `FEW` CPUs.
    """
    named = {(r.name, r.caller, r.kind, r.leaf, r.size_bytes, r.waste_bytes) for r in mapping.regions}
    apart = (
        trace.cpus > 1
        and (trace.events is None or not len(trace.events))
        and not machine.walker.window_accesses
        and not any(cache.shared for cache in machine.cache)
        and len(named) == len(mapping.regions)
    )
    if not apart:
        return [trace]
    parts = trace.cpus if trace.cpus <= FEW else max(1, min(wanted, trace.cpus))
    return [_of(trace, range(part, trace.cpus, parts)) for part in range(parts)]


def _of(trace: Trace, cpus: range) -> Trace:
    """The records of every so many CPUs, numbered from 0; windows of the time series start where they did."""
    read = _read(trace, cpus)
    columns = trace.columns - {"cpu"} if len(cpus) == 1 else trace.columns
    return replace(trace, read=read, columns=columns, cpus=len(cpus))


def _read(trace: Trace, cpus: range) -> Callable[[frozenset[str], int], Iterator[Chunk]]:
    window = window_of(trace.accesses)

    def read(columns: frozenset[str], size: int) -> Iterator[Chunk]:
        for chunk in trace.read(columns | {"cpu"}, size):
            assert chunk.cpu is not None
            end = chunk.start + len(chunk.page)
            starts = [chunk.start, *range(chunk.start - chunk.start % window + window, end, window)]
            for start, until in zip(starts, [*starts[1:], end], strict=True):
                part = slice(start - chunk.start, until - chunk.start)
                of = chunk.cpu[part] % cpus.step == cpus.start
                taken = (None if column is None else column[part][of] for column in chunk[1:])
                some = Chunk(start, *taken)  # type: ignore[arg-type]
                assert some.cpu is not None
                number = some.cpu // cpus.step
                yield some._replace(cpu=number if len(cpus) > 1 else None)

    return read


def merged(parts: Sequence[Replay]) -> Replay:
    """One replay of those of its parts; their seconds are added."""
    first = parts[0]
    if len(parts) == 1:
        return first
    counts = _sum([part.counts for part in parts])
    by_refs = sorted((name for name in counts if name.startswith(BY_REFS)), key=_number)
    names = [name for name in counts if name not in by_refs]
    by_level = _sum([part.walk_cycles_by_level for part in parts])
    at = names.index("walk_refs") + 1
    return msgspec.structs.replace(
        first,
        counts={name: counts[name] for name in (*names[:at], *by_refs, *names[at:])},
        cycles=_sum([part.cycles for part in parts]),
        walk_refs_in=_sum([part.walk_refs_in for part in parts]),
        walk_cycles_by_level={name: by_level[name] for name in LEVEL_NAMES if name in by_level},
        caches={name: _sum([part.caches[name] for part in parts]) for name in first.caches},
        by_region=_regions(parts),
        windows=_windows([part.windows for part in parts]),
        seconds={name: round(value, 6) for name, value in _sum([part.seconds for part in parts]).items()},
    )


def _number(name: str) -> int:
    return int(name.removeprefix(BY_REFS))


def _sum(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What each name counts, in all parts; not every part has every name."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _regions(parts: Sequence[Replay]) -> list[RegionCost]:
    """The costs of each region, in the order of a replay's."""
    found: dict[RegionCost, RegionCost] = {}
    for cost in (cost for part in parts for cost in part.by_region):
        region = msgspec.structs.replace(cost, **dict.fromkeys(COSTS, 0))
        before = found.get(region, region)
        added = {name: getattr(before, name) + getattr(cost, name) for name in COSTS}
        found[region] = msgspec.structs.replace(region, **added)
    return sorted(found.values(), key=lambda cost: (-cost.walk_cycles, -cost.accesses, cost.name))


def _windows(parts: Sequence[Windows]) -> Windows:
    def added(name: str) -> list[int]:
        return [sum(values) for values in zip(*(getattr(part, name) for part in parts), strict=True)]

    series = {name: added(name) for name in ("l1_misses", "stlb_misses", "walk_cycles")}
    return Windows(accesses_per_window=parts[0].accesses_per_window, **series)
