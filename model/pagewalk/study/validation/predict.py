"""Cycles an access: TLBs, walks, data caches and memory of a replay, put together.

The time of one access alone is t1 + (1 - h1) t2 + (1 - h1 - h2) tw (the reference's section 6.4): the data
read itself; the second TLB level, looked up on every L1 miss; the walk. With K independent accesses in
flight each gives way to the next after a K-th of that, but `walker.count` walkers can finish no more than
one walk in (walk cycles / walkers) (Little's law); the later of the two decides.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import SIZES, Guest, Machine, Psc
from pagewalk.linux.geometry import geometry
from pagewalk.replay.engine import Run, replay
from pagewalk.replay.result import Replay
from pagewalk.replay.tally import result
from pagewalk.study.replays import subject
from pagewalk.study.validation.case import Chase, Recording, Updates
from pagewalk.study.validation.program import SAMPLED, Program, chase, mapped, updates
from pagewalk.trace.trace import Chunk

LEAST_WARM = 1 << 16
"""Accesses that warm up a sampled run, or as many as the last data cache has lines: each brings about one
line of data and one of page tables. Ours."""

STRETCHES = 4
"""Of a sampled run, one after the other; their spread is the sampling error (batch means). Ours."""

AT_ONCE = 1 << 16
"""Accesses replayed in one go. Ours."""

LARGEST_KNEE = 1 << 16
"""Pages up to which a knee is looked for. Ours: above every TLB of the presets."""

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
    machine = hosted(machine, pattern.host)
    if isinstance(pattern, Chase):
        program = chase(pattern, geometry(machine.geometry))
        (found,) = _stretches(program, pattern, machine, 1)
        figures = _figures(found, machine, pattern.leaf, pattern.chains)
        return Prediction(figures, {}, len(program.page) - program.warm)
    if isinstance(pattern, Updates):
        return _sampled(pattern, machine)
    return _recorded(pattern, machine)


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
        program = chase(some, geometry(bare.geometry))
        (found,) = _stretches(program, some, bare, 1)
        return found.counts[f"{level}_misses".replace("l1_", "l1_dtlb_")] == 0

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


def _stretches(program: Program, pattern: Chase | Updates, machine: Machine, count: int) -> list[Replay]:
    """Replay the warm-up, then what follows in `count` equal stretches; what each of those counted."""
    mapping = mapped(program, pattern, machine)
    mode = "full" if machine.cache else "walks-only"
    length = len(program.page)
    run = Run(program.trace(), mapping, machine, False, mode, AT_ONCE, fast=False, per_window=length)
    ends = np.linspace(program.warm, length, count + 1).astype(int).tolist()
    found, start = [], 0
    for end in ends:
        for at in range(start, end, AT_ONCE):
            some = slice(at, min(at + AT_ONCE, end))
            run.chunk(Chunk(at, program.page[some], program.offset[some]), None)
        start = end
        found.append(result(run.tally, machine, mapping, run.tables.psc.names, mode, {}))
    return [_since(before, after) for before, after in pairwise(found)]


def _since(before: Replay, after: Replay) -> Replay:
    """What was counted between two states of one replay."""
    return msgspec.structs.replace(
        after,
        counts=_less(after.counts, before.counts),
        cycles=_less(after.cycles, before.cycles),
        walk_cycles_by_level=_less(after.walk_cycles_by_level, before.walk_cycles_by_level),
        caches={name: _less(figures, before.caches[name]) for name, figures in after.caches.items()},
    )


def _less(all_: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: value - before.get(name, 0) for name, value in all_.items()}


def _figures(found: Replay, machine: Machine, leaf: str, chains: int) -> Figures:
    """Per-access figures of a replay, with the time that they make together."""
    counts, accesses = found.counts, found.counts["accesses"]
    latency = {cache.name: cache.latency_cycles for cache in machine.cache}
    latency["memory"] = machine.memory.latency_cycles
    data = sum(latency[name] * hits["data_hits"] for name, hits in found.caches.items())
    if not machine.cache:
        data = accesses * machine.memory.latency_cycles
    walk, host = found.cycles["walk"], found.walk_cycles_by_level.get("host", 0)
    lookup = found.cycles["stlb_hit"] + counts["stlb_misses"] * _look_up_cycles(machine, leaf)
    alone = data + lookup + walk
    cycles = max(alone / chains if chains else 0.0, walk / machine.walker.count)
    each = {
        "cycles": cycles,
        "data_cycles": data,
        "lookup_cycles": lookup,
        "walk_cycles": walk,
        "walk_cycles_guest": walk - host,
        "walk_cycles_host": host,
        "l1_misses": counts["l1_dtlb_misses"],
        "stlb_misses": counts["stlb_misses"],
        "walk_refs": counts["walk_refs"],
    }
    return {name: value / accesses for name, value in each.items()}


def _look_up_cycles(machine: Machine, leaf: str) -> int:
    """What finding nothing in the second level takes: as a hit in the array that would hold the page."""
    return max(
        (t.hit_cycles for t in machine.tlb if t.level == 2 and (not t.holds or leaf in t.holds)), default=0
    )


def _sampled(pattern: Updates, machine: Machine) -> Prediction:
    """Part of a run at full size, warmed up: the mean of its stretches, and its standard error."""
    lines = max((cache.size_bytes // cache.line_bytes for cache in machine.cache), default=0)
    program = updates(pattern, max(lines, LEAST_WARM), STRETCHES * SAMPLED)
    runs = [
        _figures(found, machine, pattern.leaf, pattern.chains)
        for found in _stretches(program, pattern, machine, STRETCHES)
    ]
    mean = {name: sum(run[name] for run in runs) / STRETCHES for name in runs[0]}
    error = {
        name: (sum((run[name] - mean[name]) ** 2 for run in runs) / (STRETCHES - 1) / STRETCHES) ** 0.5
        for name in mean
    }
    return Prediction(mean, error, STRETCHES * SAMPLED)


def _recorded(pattern: Recording, machine: Machine) -> Prediction:
    """A trace, from empty TLBs and caches on."""
    opened = subject(pattern.trace)
    mode = "full" if machine.cache and "offset" in opened.trace.columns else "walks-only"
    found = replay(opened.trace, opened.mapped(pattern.mapping, machine), machine, cache_mode=mode)
    return Prediction(_figures(found, machine, "4K", 1), {}, found.counts["accesses"])
