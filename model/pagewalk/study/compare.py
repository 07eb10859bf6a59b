"""What another mapping changes: the figures of replays side by side, and what each caller gains and pays.

Counts stay integers until here; this is where ratios are formed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pagewalk.replay.result import RegionCost, Replay, Result

Unit = Literal["per 1000 accesses", "per 1000 instructions", "per walk", "bytes"]


class Measure(NamedTuple):
    """One figure under several mappings, in the order of the replays."""

    name: str
    unit: Unit
    values: tuple[float, ...]


class Caller(NamedTuple):
    """What the regions of one caller cost under two mappings."""

    name: str
    """The allocating function; for regions that nobody allocated, the region's name."""
    regions: int
    size_bytes: int
    """Payload of all its regions."""
    accesses: int
    leaves: tuple[str, str]
    """Leaf size before and after; "mixed" where its regions differ."""
    walks: tuple[int, int]
    """STLB misses before and after."""
    walk_cycles: tuple[int, int]
    waste_bytes: tuple[int, int]

    @property
    def saved_cycles(self) -> int:
        """Walk cycles saved; negative where the second mapping costs more."""
        return self.walk_cycles[0] - self.walk_cycles[1]

    @property
    def paid_bytes(self) -> int:
        """Memory that rounding to the second mapping's leaves adds."""
        return self.waste_bytes[1] - self.waste_bytes[0]


@dataclass(frozen=True)
class Comparison:
    """Two replays of one trace on one machine.

    Attributes
    ----------
    before, after : Replay
        Usually the mappings ``base`` and ``pmd``.
    measures : tuple of Measure
        Each with two values.
    callers : tuple of Caller
        Most walk cycles first, under whichever mapping they are more.
    """

    before: Replay
    after: Replay
    measures: tuple[Measure, ...]
    callers: tuple[Caller, ...]

    @property
    def alone(self) -> bool:
        """Whether a replay was set beside itself, for want of a second mapping."""
        return self.before is self.after

    @property
    def walk_rates(self) -> tuple[float, float]:
        """Walk cycles for 1000 accesses, before and after."""
        return self.rates((self.before.cycles.get("walk", 0), self.after.cycles.get("walk", 0)))

    def rates(self, counts: tuple[int, int]) -> tuple[float, float]:
        """Counts before and after, for 1000 accesses."""
        before, after = (replay.counts.get("accesses", 0) for replay in (self.before, self.after))
        return per_1000(counts[0], before), per_1000(counts[1], after)

    @property
    def paid_bytes(self) -> int:
        """Memory that the second mapping adds: rounding waste and page tables together."""
        return sum(
            self.after.memory.get(key, 0) - self.before.memory.get(key, 0)
            for key in ("page_tables", "rounding_waste")
        )


def per_1000(count: int, accesses: int) -> float:
    """`count` for 1000 accesses; 0 where nothing was accessed."""
    return 1000 * count / accesses if accesses else 0.0


def change(before: float, after: float) -> float | None:
    """Relative change, -0.25 for a quarter less; None where it is undefined (something out of nothing)."""
    if before == after:
        return 0.0
    return after / before - 1 if before else None


def measures(replays: Sequence[Replay], instructions: int | None = None) -> tuple[Measure, ...]:
    """The figures of `replays` of one trace, side by side.

    Only figures that every replay has are returned: rates for 1000 accesses, references for each walk,
    and bytes. L1 misses are those of loads and stores. STLB misses stand beside walks only where the two
    differ (they are the same where each miss is walked). For 1000 instructions (MPKI) they stand where their
    number is known.
    """

    def rate(name: str, group: str, key: str) -> Measure | None:
        counts = [getattr(replay, group).get(key) for replay in replays]
        if None in counts:
            return None
        rates = zip(counts, replays, strict=True)
        return Measure(
            name, "per 1000 accesses", tuple(per_1000(n, r.counts.get("accesses", 0)) for n, r in rates)
        )

    def memory(name: str, key: str) -> Measure | None:
        sizes = [replay.memory.get(key) for replay in replays]
        return None if None in sizes else Measure(name, "bytes", tuple(size or 0 for size in sizes))

    missed = any(r.counts.get("stlb_misses") != r.counts.get("walks") for r in replays)
    found = [
        rate("walk cycles", "cycles", "walk"),
        rate("exposed cycles", "cycles", "exposed"),
        rate("L1 DTLB misses", "counts", "l1_dtlb_misses"),
        rate("STLB misses", "counts", "stlb_misses") if missed else None,
        rate("page walks", "counts", "walks"),
        rate("walk references", "counts", "walk_refs"),
        Measure("walk references", "per walk", tuple(map(_references, replays))),
        _mpki(replays, instructions),
        memory("page tables", "page_tables"),
        memory("rounding waste", "rounding_waste"),
        memory("STLB reach", "stlb_reach"),
        memory("touched memory in reach", "stlb_holds"),
    ]
    return tuple(measure for measure in found if measure is not None)


def _mpki(replays: Sequence[Replay], instructions: int | None) -> Measure | None:
    misses = [replay.counts.get("stlb_misses") for replay in replays]
    if not instructions or None in misses:
        return None
    return Measure(
        "STLB misses", "per 1000 instructions", tuple(per_1000(n or 0, instructions) for n in misses)
    )


def _references(replay: Replay) -> float:
    walks = replay.counts.get("walks", 0)
    return replay.counts.get("walk_refs", 0) / walks if walks else 0.0


def callers(before: Replay, after: Replay) -> tuple[Caller, ...]:
    """What each caller's regions cost under two mappings, most walk cycles first.

    Regions of one caller are added up, because a region's name may hold an address and an area may lie
    elsewhere under another mapping. An offset behind the caller's name ("+0x41/0x80") is not part of it.
    """
    groups: dict[str, tuple[list[RegionCost], list[RegionCost]]] = {}
    for side, replay in enumerate((before, after)):
        for region in replay.by_region:
            name = region.caller.partition("+")[0] or region.name
            groups.setdefault(name, ([], []))[side].append(region)
    found = [_caller(name, old, new) for name, (old, new) in groups.items()]
    return tuple(sorted(found, key=lambda caller: (-max(caller.walk_cycles), -caller.accesses, caller.name)))


def _caller(name: str, old: list[RegionCost], new: list[RegionCost]) -> Caller:
    either = old or new
    return Caller(
        name,
        len(either),
        sum(region.size_bytes for region in either),
        sum(region.accesses for region in either),
        (_leaf(old), _leaf(new)),
        (sum(r.stlb_misses for r in old), sum(r.stlb_misses for r in new)),
        (sum(r.walk_cycles for r in old), sum(r.walk_cycles for r in new)),
        (sum(r.waste_bytes for r in old), sum(r.waste_bytes for r in new)),
    )


def _leaf(regions: Iterable[RegionCost]) -> str:
    leaves = {region.leaf for region in regions}
    return leaves.pop() if len(leaves) == 1 else "mixed" if leaves else ""


def together(callers: Sequence[Caller]) -> Caller:
    """Add up many callers, to show them as one."""
    return Caller(
        f"{len(callers)} others",
        sum(caller.regions for caller in callers),
        sum(caller.size_bytes for caller in callers),
        sum(caller.accesses for caller in callers),
        ("", ""),
        (sum(c.walks[0] for c in callers), sum(c.walks[1] for c in callers)),
        (sum(c.walk_cycles[0] for c in callers), sum(c.walk_cycles[1] for c in callers)),
        (sum(c.waste_bytes[0] for c in callers), sum(c.waste_bytes[1] for c in callers)),
    )


def compare(before: Replay, after: Replay, instructions: int | None = None) -> Comparison:
    """Set two replays of one trace, of so many instructions, on one machine side by side."""
    return Comparison(before, after, measures((before, after), instructions), callers(before, after))


def comparisons(result: Result) -> list[Comparison]:
    """Compare two mappings on each machine of `result`, in its order.

    They are ``base`` and ``pmd`` where the machine has both, else its first and last mapping. A machine
    with one mapping only has nothing to compare and is left out.
    """
    found = []
    for replays in by_machine(result).values():
        named = {replay.mapping: replay for replay in replays}
        if len(named) > 1:
            first, *_, last = ("base", "pmd") if {"base", "pmd"} <= named.keys() else named
            found.append(compare(named[first], named[last], result.trace.instructions))
    return found


def by_machine(result: Result) -> dict[str, list[Replay]]:
    """The replays of each machine, in the order of `result`."""
    machines: dict[str, list[Replay]] = {}
    for replay in result.replays:
        machines.setdefault(replay.machine, []).append(replay)
    return machines
