"""The plan of one machine: what its files say, worked out, and what to do about it."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import msgspec
from msgspec import Struct

from pagewalk import __version__
from pagewalk.hardware.load import load
from pagewalk.linux.observe.events import Alloc, Event, Free, Purge
from pagewalk.replay.result import Result
from pagewalk.study.planning.advice import Recommendation, advise
from pagewalk.study.planning.areas import CallerPlan, Small, plan_areas
from pagewalk.study.planning.gain import Gain, enlarged, random_access, recorded_access
from pagewalk.study.planning.memory import (
    SPLIT_SHARE,
    BlocksPlan,
    DirectMapPlan,
    TablePlan,
    plan_blocks,
    plan_direct_map,
    plan_tables,
)
from pagewalk.study.planning.snapshot import Snapshot

ACCESSES_PER_SECOND = 1e6
"""To each caller's areas, where no recording tells. Ours: a round number to scale from, and no estimate."""

REPLAYED = 8
"""Callers whose gain is worked out by a replay, the largest first. Ours."""


class Churn(Struct, frozen=True, kw_only=True):
    """What trace events tell of a while.

    Attributes
    ----------
    seconds : float
    allocations, frees, purges : int
        A purge is a flush on all CPUs.
    large : int
        Allocations that tried PMD alignment.
    fallbacks : int
        Of those, how many found no addresses, or were followed at once by one of base alignment for less.
    """

    seconds: float
    allocations: int
    large: int
    fallbacks: int
    frees: int
    purges: int


class Plan(Struct, frozen=True, kw_only=True):
    """What to do on one machine, and why.

    Attributes
    ----------
    host, kernel, architecture, processor : str
    nodes : int
        NUMA nodes with memory.
    memory_bytes : int
        0: not known.
    base_bytes, pmd_bytes : int
    stlb_entries : dict of str to int
        Leaf size -> entries of the STLB that may hold it.
    callers : list of CallerPlan, optional
        None: no vmallocinfo tells of areas.
    gains : dict of str to Gain
        Caller -> walk cycles that PMD leaves save its largest area; "direct map" -> what its base pages cost;
        boot hash table -> what it saves at the size that gets PMD leaves.
    small : Small, optional
        None likewise.
    tables : list of TablePlan
    direct_map : DirectMapPlan, optional
    blocks : BlocksPlan, optional
    churn : Churn, optional
    recommendations : list of Recommendation
        The best first.
    assumptions : list of str
    """

    schema: Literal["pagewalk.plan/1"] = "pagewalk.plan/1"
    pagewalk: str = __version__
    host: str
    kernel: str
    architecture: str
    processor: str
    nodes: int
    memory_bytes: int
    base_bytes: int
    pmd_bytes: int
    stlb_entries: dict[str, int]
    callers: list[CallerPlan] | None = None
    gains: dict[str, Gain]
    small: Small | None = None
    tables: list[TablePlan]
    direct_map: DirectMapPlan | None = None
    blocks: BlocksPlan | None = None
    churn: Churn | None = None
    recommendations: list[Recommendation]
    assumptions: list[str]


def plan(
    snapshot: Snapshot,
    *,
    accesses_per_second: float = ACCESSES_PER_SECOND,
    recorded: Result | None = None,
    progress: Callable[[int], None] | None = None,
) -> Plan:
    """Work out what a machine could map huge, what it saves and costs, and what to do.

    Parameters
    ----------
    snapshot : Snapshot
    accesses_per_second : float
        Assumed for each caller that the recording does not name.
    recorded : Result, optional
        A replay of what ran on such a machine, under ``base`` and ``pmd``.
    progress : callable, optional
        Called with 1 after each size of area that was replayed.

    Raises
    ------
    BadInput
        The processor has no such preset.
    """
    kernel = snapshot.kernel
    machine = load(snapshot.processor)
    callers, small = plan_areas(snapshot.areas, kernel) if snapshot.areas else (None, None)
    measured = recorded_access(recorded) if recorded else {}
    open_ = [one for one in callers or [] if one.standing != "never"]
    guessed = [one for one in open_ if one.caller not in measured][:REPLAYED]
    by_size = random_access(
        (one.largest for one in guessed), snapshot.processor, accesses_per_second, progress
    )
    gains = {one.caller: by_size[one.largest] for one in reversed(guessed)}
    gains |= {one.caller: measured[one.caller] for one in open_ if one.caller in measured}
    tables, direct_map, blocks = plan_tables(snapshot), plan_direct_map(snapshot), plan_blocks(snapshot)
    gains |= {
        table.name: enlarged(table.bytes, table.bytes_enough, snapshot.processor, accesses_per_second)
        for table in tables
        if table.enough
    }
    if direct_map and direct_map.share_of_base_pages > SPLIT_SHARE:
        split = next(iter(direct_map.bytes_by_leaf.values()))
        gains["direct map"] = random_access([split], snapshot.processor, accesses_per_second)[split]
    stlb = {
        leaf: max((tlb.entries for tlb in machine.tlb if tlb.level == 2 and leaf in tlb.holds), default=0)
        for leaf in dict.fromkeys(leaf for tlb in machine.tlb if tlb.level == 2 for leaf in tlb.holds)
    }
    return Plan(
        host=snapshot.name,
        kernel=kernel.release.name,
        architecture=kernel.arch.name,
        processor=snapshot.processor,
        nodes=kernel.nodes,
        memory_bytes=kernel.ram_bytes,
        base_bytes=kernel.base_bytes,
        pmd_bytes=1 << kernel.arch.pmd_shift if kernel.arch.pmd_shift else 0,
        stlb_entries=stlb,
        callers=callers,
        gains=gains,
        small=small,
        tables=tables,
        direct_map=direct_map,
        blocks=blocks,
        churn=churn(snapshot.events, 1 << kernel.arch.pmd_shift) if snapshot.events else None,
        recommendations=advise(kernel, callers or [], gains, tables, direct_map, blocks),
        assumptions=[*_assumptions(gains, tables, accesses_per_second, snapshot), *snapshot.notes],
    )


def churn(events: tuple[Event, ...], pmd: int) -> Churn:
    """Count what events tell."""
    allocations = [event for event in events if isinstance(event, Alloc)]
    large = [one for one in allocations if one.align_bytes >= pmd]
    followed = sum(
        first.align_bytes >= pmd > second.align_bytes
        and first.size_bytes - pmd < second.size_bytes < first.size_bytes
        for first, second in pairwise(allocations)
        if not first.failed
    )
    return Churn(
        seconds=round(events[-1].time - events[0].time, 6),
        allocations=len(allocations),
        large=len(large),
        fallbacks=sum(one.failed for one in large) + followed,
        frees=sum(isinstance(event, Free) for event in events),
        purges=sum(isinstance(event, Purge) for event in events),
    )


def _assumptions(
    gains: dict[str, Gain], tables: list[TablePlan], rate: float, snapshot: Snapshot
) -> list[str]:
    bases = {gain.basis for gain in gains.values()}
    said = []
    if "random" in bases:
        said.append(
            f"walk cycles: random words of the caller's largest area, alone in the TLBs of "
            f"{snapshot.processor}, at an assumed {rate:,.0f} accesses a second; other programs, and reading "
            "in order, change that"
        )
    if "recorded" in bases:
        said.append(
            "walk cycles of callers that the recording names are those of its replay, for each access of it"
        )
    if any(table.told_by == "formula" for table in tables):
        said.append(
            "hash tables: by the kernel's formula from MemTotal, which is less than memory at early boot; "
            "next to a power of two a table may be twice as large. The boot log tells for sure"
        )
    if snapshot.areas and snapshot.areas.addresses != "real":
        said.append(
            "vmallocinfo shows no real addresses: size and caller alone tell whether PMD leaves map an area"
        )
    return said


def encode(found: Plan) -> bytes:
    """The plan as indented JSON, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
