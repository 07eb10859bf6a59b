"""Cycles an access: TLBs, walks, data caches and memory of a replay, put together.

The time of one access alone is t1 + (1 - h1) t2 + (1 - h1 - h2) tw (the reference's section 6.4): the data
read itself; the second TLB level, looked up on every L1 miss; the walk. With K independent accesses in
flight each gives way to the next after a K-th of that, but `walker.count` walkers can finish no more than
one walk in (walk cycles / walkers) (Little's law); the later of the two decides.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import SIZES, Guest, Machine, Psc
from pagewalk.linux.geometry import geometry
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.engine import Run, replay
from pagewalk.replay.tables import Tables, translate, walk_caches
from pagewalk.replay.tally import Tally
from pagewalk.replay.together.shape import figures
from pagewalk.study.replays import subject
from pagewalk.study.validation.case import FOUND_IN, Chase, Recording, Updates
from pagewalk.study.validation.program import MOST_MEASURED, SAMPLED, Program, chase, mapped, updates
from pagewalk.trace.trace import Chunk

LEAST_WARM = 1 << 16
"""Accesses that warm up a sampled run, or as many as the last data cache has lines: each brings about one
line of data and one of page tables. Ours."""

STRETCHES = 4
"""Of a sampled run, one after the other; their spread is the sampling error (batch means). Ours."""

AT_ONCE = 1 << 16
"""Accesses replayed in one go. Ours."""

SETTLE, SETTLE_ACCESSES = 16, 1 << 17
"""Of a chase through a second level that walks share: how many times as long it warms up, and the accesses of
that at most. What walks brought in goes only slowly: of 2,500 pages 60 % miss after two rounds, 3 % after 16.
Ours."""

LARGEST_KNEE = 1 << 21
"""Nodes up to which a knee is looked for. Ours: what 4,096 entries of 2M pages hold at a stride of 4K."""

Figures = dict[str, float]
"""Quantity -> value an access; names as in `pagewalk.study.validation.case.PER_ACCESS`, and accesses,
data_cycles, lookup_cycles."""


class Prediction(NamedTuple):
    """What the model says of a pattern."""

    figures: Figures
    error: Figures
    """One standard error of each figure from sampling; empty where nothing was sampled."""
    accesses: int
    """Replayed and measured."""


class Counted(NamedTuple):
    """What a stretch of a replay counted, before latencies make cycles of it."""

    accesses: int
    l1_misses: int
    walks: int
    walk_refs: int
    stlb_hit_cycles: int
    host_cycles: int
    """Walk cycles of the host's tables."""
    data_in: NDArray[np.int64]
    """Data reads that each data cache had, memory the last."""
    refs_in: NDArray[np.int64]
    """Walk references, alike."""


def predict(pattern: Chase | Updates | Recording, machine: Machine) -> Prediction:
    """Replay a pattern on a machine and work out what an access costs.

    Parameters
    ----------
    pattern : Chase, Updates or Recording
    machine : Machine

    Raises
    ------
    BadInput
        The machine's geometry has no such leaf, or the trace cannot be read.
    """
    return prediction(pattern, machine, counted(pattern, machine))


def counted(pattern: Chase | Updates | Recording, machine: Machine) -> list[Counted]:
    """Replay a pattern; count each stretch of what follows the warm-up, one if the pattern is not sampled.

    Nothing but `host_cycles` depends on the latencies of data caches, memory and walker: machines that
    differ in these alone count the same.
    """
    machine = hosted(machine, pattern.host)
    if isinstance(pattern, Recording):
        return [_recorded(pattern, machine)]
    warm, count = 1, 1
    if machine.guest is not None and machine.guest.walks_in_stlb and isinstance(pattern, Chase):
        warm = max(1, min(SETTLE, SETTLE_ACCESSES // pattern.pages))
    if isinstance(pattern, Updates):
        lines = max((cache.size_bytes // cache.line_bytes for cache in machine.cache), default=0)
        warm, count = max(lines, LEAST_WARM), STRETCHES
    return _stretches(_laid(pattern, machine.geometry, warm), machine, count)


def prediction(
    pattern: Chase | Updates | Recording, machine: Machine, stretches: list[Counted]
) -> Prediction:
    """What an access costs, of what was counted: the mean of the stretches, and its standard error."""
    leaf, chains = ("4K", 1) if isinstance(pattern, Recording) else (pattern.leaf, pattern.chains)
    runs = [_figures(found, hosted(machine, pattern.host), leaf, chains) for found in stretches]
    number = len(runs)
    mean = {name: sum(run[name] for run in runs) / number for name in runs[0]}
    error = {
        name: (sum((run[name] - mean[name]) ** 2 for run in runs) / (number - 1) / number) ** 0.5
        for name in mean
        if number > 1
    }
    return Prediction(mean, error, sum(found.accesses for found in stretches))


def hosted(machine: Machine, host_leaf: str) -> Machine:
    """The machine in a guest whose host maps with this leaf; as it is for "".

    A machine without a guest table gets the host dimension that the guest presets share: 16 entries of
    nested TLB and host paging-structure caches of 32, 4 and 2 entries, all assumed, and paging-structure
    caches that hold the host's addresses (docs/machines.md).
    """
    if not host_leaf:
        return machine
    base = SIZES["4K"] if machine.guest is None else 0
    if machine.guest is None and geometry(machine.geometry).base_shift > base:
        raise BadInput("pattern.host", "guests are modelled with 4K base pages only", "give [guest] yourself")
    shape = [("PDE", 2, 32, 4), ("PDPTE", 3, 4, 0), ("PML4E", 4, 2, 0)]
    own = machine.guest or Guest(
        nested_entries=16,
        combined_psc=True,
        host_psc=[Psc(name=f"host {n} cache", level=lv, entries=e, ways=w) for n, lv, e, w in shape],
    )
    guest = msgspec.structs.replace(own, host_leaf=host_leaf)
    return msgspec.structs.replace(machine, guest=guest)


def knee(pattern: Chase, machine: Machine, level: str) -> int:
    """The most pages of a chase that still never miss a TLB level once it is warm.

    Parameters
    ----------
    pattern : Chase
        Its `pages` do not count.
    machine : Machine
    level : {"l1", "stlb"}

    Returns
    -------
    int
        0 if even one page misses; `LARGEST_KNEE` if that many do not.
    """
    bare = msgspec.structs.replace(hosted(machine, pattern.host), cache=[])

    def fits(pages: int) -> bool:
        some = msgspec.structs.replace(pattern, pages=pages, line="first")
        laid = _lay(some, bare.geometry, 1, LARGEST_KNEE)
        (found,) = _stretches(laid, bare, 1)
        return (found.l1_misses if level == "l1" else found.walks) == 0

    return _last(fits, LARGEST_KNEE)


def _last(fits: Callable[[int], bool], most: int) -> int:
    """The last number that fits, of a property that does not come back once it is lost."""
    low, high = 0, 1
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class Laid(NamedTuple):
    """A pattern in memory."""

    program: Program
    mapping: Mapping
    tables: dict[bytes, Tables]
    """What machines of other figures made of it, by the figures of their TLBs."""


def _lay(pattern: Chase | Updates, cut: str, warm: int, most: int = MOST_MEASURED) -> Laid:
    """Lay a pattern into memory.

    `warm` accesses of updates only warm up, of a chase so many times what is measured, `most` at most.
    """
    if isinstance(pattern, Chase):
        program = chase(pattern, geometry(cut), most=most, settle=warm)
    else:
        program = updates(pattern, warm, STRETCHES * SAMPLED)
    return Laid(program, mapped(program, pattern, geometry(cut)), {})


_laid = lru_cache(maxsize=4)(_lay)


def _tables(laid: Laid, machine: Machine) -> Tables:
    """Translate what is laid; once for all machines that differ in what lies behind their TLBs."""
    host = machine.guest and machine.guest.host_leaf
    key = figures(*machine.tlb) + f"{machine.choose} {machine.inclusion} {host}".encode()
    known = laid.tables.get(key)
    if known is None:
        known = laid.tables[key] = translate(laid.mapping, machine)
        return known
    spaces = np.zeros(len(known.page), np.int64)
    psc = walk_caches(machine, laid.mapping.geometry, known.page, spaces, known.leaf_level)
    return replace(known, psc=psc)


def _stretches(laid: Laid, machine: Machine, count: int) -> list[Counted]:
    """Replay the warm-up, then what follows in `count` equal stretches; what each of those counted."""
    mode = "full" if machine.cache else "walks-only"
    program, length = laid.program, len(laid.program.page)
    tables = _tables(laid, machine)
    run = Run(program.trace(), laid.mapping, machine, False, mode, AT_ONCE, False, length, tables)
    ends = np.linspace(program.warm, length, count + 1).astype(int).tolist()
    found, start = [], 0
    for end in ends:
        for at in range(start, end, AT_ONCE):
            some = slice(at, min(at + AT_ONCE, end))
            run.chunk(Chunk(at, program.page[some], program.offset[some]), None)
        start = end
        found.append(_noted(run.tally))
    return [_since(before, after) for before, after in pairwise(found)]


def _noted(tally: Tally) -> Counted:
    """What a replay of loads counted so far; without data caches, memory has every read."""
    return Counted(
        tally.accesses,
        tally.l1_dtlb_misses,
        int(tally.by_refs.sum()),
        int(tally.by_refs @ np.arange(len(tally.by_refs))),
        int(tally.stlb[1]),
        int(tally.level_cycles[0]),
        tally.caches[:, 0, 0].copy() if len(tally.places) > 1 else np.array([tally.accesses]),
        tally.places.copy(),
    )


def _since(before: Counted, after: Counted) -> Counted:
    """What was counted between two states of one replay."""
    pairs: Iterable[tuple[Any, Any]] = zip(before, after, strict=True)
    return Counted._make(late - early for early, late in pairs)


def _figures(found: Counted, machine: Machine, leaf: str, chains: int) -> Figures:
    """Per-access figures, with the time that they make together."""
    latency = np.array([*(cache.latency_cycles for cache in machine.cache), machine.memory.latency_cycles])
    data = int(latency @ found.data_in)
    walk = int(latency @ found.refs_in) + machine.walker.start_cycles * found.walks
    lookup = found.stlb_hit_cycles + found.walks * _look_up_cycles(machine, leaf)
    alone = data + lookup + walk
    cycles = max(alone / chains if chains else 0.0, walk / machine.walker.count)
    places = [*(cache.name for cache in machine.cache), "memory"]
    each = {
        "cycles": cycles,
        **({"ns": cycles / machine.clock_ghz} if machine.clock_ghz else {}),
        "data_cycles": data,
        "lookup_cycles": lookup,
        "walk_cycles": walk,
        "walk_cycles_guest": walk - found.host_cycles,
        "walk_cycles_host": found.host_cycles,
        "walk_active": walk if chains == 1 else _active(walk, cycles, machine.walker.count),
        "l1_misses": found.l1_misses,
        "stlb_hits": found.l1_misses - found.walks,
        "stlb_misses": found.walks,
        "walk_refs": found.walk_refs,
        **{FOUND_IN + name: refs for name, refs in zip(places, found.refs_in.tolist(), strict=True)},
    }
    figures = {name: value / found.accesses for name, value in each.items()}
    if found.walks:
        figures["cycles_per_walk"] = walk / found.walks
    return figures


def _active(walk: int, cycles: float, walkers: int) -> float:
    """Cycles in which at least one walk is pending, if the walkers are busy independently of each other."""
    busy = walk / (cycles * walkers) if cycles else 0.0
    return cycles * (1 - (1 - busy) ** walkers)


def _look_up_cycles(machine: Machine, leaf: str) -> int:
    """What finding nothing in the second level takes: as a hit in the array that would hold the page."""
    return max(
        (t.hit_cycles for t in machine.tlb if t.level == 2 and (not t.holds or leaf in t.holds)), default=0
    )


def _recorded(pattern: Recording, machine: Machine) -> Counted:
    """A trace, from empty TLBs and caches on."""
    opened = subject(pattern.trace)
    mode = "full" if machine.cache and "offset" in opened.trace.columns else "walks-only"
    found = replay(opened.trace, opened.mapped(pattern.mapping, machine), machine, cache_mode=mode)
    counts, hits = found.counts, [place["data_hits"] for place in found.caches.values()]
    return Counted(
        counts["accesses"],
        counts["l1_dtlb_misses"],
        counts["stlb_misses"],
        counts["walk_refs"],
        found.cycles["stlb_hit"],
        found.walk_cycles_by_level.get("host", 0),
        np.array(hits or [counts["accesses"]]),
        np.array(list(found.walk_refs_in.values())),
    )
