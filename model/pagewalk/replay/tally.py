"""What a replay counts on the way, and the result that is made of it."""

import numpy as np

from pagewalk.hardware.machine import SIZES, Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.paths.state import MAX_READS
from pagewalk.replay.result import RegionCost, Replay, Windows
from pagewalk.trace.trace import CHUNK

WINDOWS = 200
"""Points of the time series."""
GIB_SHIFT = 30
LEVEL_NAMES = ("host", "PTE", "PDE", "PDPTE", "PML4E", "PML5E")


class Tally:
    """Running counts of one replay. Arrays are of int64."""

    def __init__(
        self, machine: Machine, mapping: Mapping, records: int, kinds: int = 1, per_window: int = 0
    ) -> None:
        places = len(machine.cache) + 1
        self.accesses = self.fetches = self.l1_dtlb_misses = self.l1_itlb_misses = 0
        self.touched = np.zeros(kinds * len(mapping.page), np.int64)
        """Accesses of each distinct page; one part for each kind of access where they are told apart."""
        self.by_page = np.zeros((kinds * len(mapping.page), 4), np.int64)
        """L1 misses, STLB misses, walk references, walk cycles; parallel to `touched`."""
        self.stlb = np.zeros(2, np.int64)
        """Hits, and the cycles that they add."""
        self.psc_hits = np.zeros(max(1, len(machine.psc)), np.int64)
        self.by_refs = np.zeros(MAX_READS, np.int64)
        """Walks by the number of their references."""
        self.places = np.zeros(places, np.int64)
        """Walk references found in each data cache; the last is memory."""
        self.level_cycles = np.zeros(len(LEVEL_NAMES), np.int64)
        self.caches = np.zeros((places, 2, 3), np.int64)
        """Of each data cache and memory, for data and tables: hits, misses, lines of the other pushed out."""
        self.per_window = per_window or window_of(records)
        self.window = np.zeros((3, -(-records // self.per_window)), np.int64)
        """L1 misses, STLB misses, walk cycles of each window."""
        self.events = {"flushes": 0, "entries_flushed": 0, "context_switches": 0}
        self.flush_cycles = 0
        self.waited = 0


def window_of(records: int) -> int:
    """Records of one window: about a 200th of the trace, in whole chunks where it is longer than one."""
    window = max(1, -(-records // WINDOWS))
    return window if window <= CHUNK else -(-window // CHUNK) * CHUNK


def result(
    tally: Tally,
    machine: Machine,
    mapping: Mapping,
    psc_names: tuple[str, ...],
    cache_mode: str,
    seconds: dict[str, float],
) -> Replay:
    """Name what was counted."""
    places = [*(c.name for c in machine.cache), "memory"]
    return Replay(
        machine=machine.id or machine.name,
        mapping=mapping.name,
        counts=counts(tally, psc_names),
        cycles=cycles(tally, int(tally.by_page[:, 3].sum())),
        memory={**mapping.memory, **stlb_coverage(machine, leaves(mapping))},
        walk_refs_in=dict(zip(places, tally.places.tolist(), strict=True)),
        walk_cycles_by_level={
            name: n for name, n in zip(LEVEL_NAMES, tally.level_cycles.tolist(), strict=True) if n
        },
        caches=_caches(tally, places) if machine.cache else {},
        cache_mode="full" if cache_mode == "full" else "walks-only",
        by_region=_regions(tally, mapping),
        windows=Windows(
            accesses_per_window=tally.per_window,
            l1_misses=tally.window[0].tolist(),
            stlb_misses=tally.window[1].tolist(),
            walk_cycles=tally.window[2].tolist(),
        ),
        seconds=seconds,
        notes=list(mapping.notes),
    )


def counts(tally: Tally, psc_names: tuple[str, ...]) -> dict[str, int]:
    """The counts of a replay, by name."""
    walks = int(tally.by_refs.sum())
    return {
        "accesses": tally.accesses,
        "fetches": tally.fetches,
        "l1_dtlb_misses": tally.l1_dtlb_misses,
        "l1_itlb_misses": tally.l1_itlb_misses,
        "stlb_hits": int(tally.stlb[0]),
        "stlb_misses": walks,
        "walks": walks,
        "walk_refs": int(tally.by_refs @ np.arange(MAX_READS)),
        **{f"walks_by_refs_{n}": int(tally.by_refs[n]) for n in np.flatnonzero(tally.by_refs)},
        **{f"psc_hits_{name}": int(n) for name, n in zip(psc_names, tally.psc_hits, strict=False)},
        **tally.events,
    }


def cycles(tally: Tally, walk_cycles: int) -> dict[str, int]:
    """The cycles of a replay, by name."""
    stlb_cycles = int(tally.stlb[1])
    return {
        "walk": walk_cycles,
        "stlb_hit": stlb_cycles,
        "flush": tally.flush_cycles,
        "exposed": tally.waited + stlb_cycles + tally.flush_cycles,
    }


def leaves(mapping: Mapping) -> list[tuple[int, int, int]]:
    """For each leaf size (log2): touched base pages that have it, and the leaves that hold them."""
    shifts, touched = np.unique(mapping.leaf_shift, return_counts=True)
    found = []
    for shift, pages in zip(shifts.tolist(), touched.tolist(), strict=True):
        number = np.sort(mapping.page[mapping.leaf_shift == shift] >> (shift - 12))
        found.append((shift, pages, 1 + int(np.count_nonzero(np.diff(number)))))
    return found


def stlb_coverage(machine: Machine, leaves: list[tuple[int, int, int]]) -> dict[str, int]:
    """What a full second level covers of the trace's memory, in bytes.

    Parameters
    ----------
    machine : Machine
    leaves : list of tuple
        As `leaves` counts them.

    Returns
    -------
    dict
        stlb_reach: its entries times the leaf that most of the touched base pages have. Leaves of 1 GiB and
        more count only where there are no others: vmalloc has none (reference, section 0, fact 3), and
        one of them in the direct map holds any number of pages.
        stlb_holds: the touched base pages that it can translate at once; each leaf size is counted as
        if it had the entries for itself, so this is at most.
    """
    most, held = (0, 0), 0
    some_below = any(shift < GIB_SHIFT for shift, _, _ in leaves)
    for shift, pages, count in leaves:
        reach = _reach(machine, shift)
        if shift < GIB_SHIFT or not some_below:
            most = max(most, (pages, reach))
        held += (pages << 12) * min(reach, count << shift) // (count << shift)
    return {"stlb_reach": most[1], "stlb_holds": held}


def _reach(machine: Machine, shift: int) -> int:
    """Bytes that the second level covers with leaves of one size.

    A leaf that an array does not hold counts as the largest held size below it, as in a replay.
    """
    reach = 0
    for array in machine.tlb:
        held = [SIZES[name] for name in array.holds] or [shift]
        entry = max((size for size in held if size <= shift), default=0)
        if array.level == 2 and entry and "load" in array.serves:
            reach += array.entries << entry
    return reach


def _caches(tally: Tally, places: list[str]) -> dict[str, dict[str, int]]:
    return {
        name: {
            "data_hits": data[0],
            "data_misses": data[1],
            "walk_hits": tables[0],
            "walk_misses": tables[1],
            "data_evicted_by_walks": tables[2],
            "walks_evicted_by_data": data[2],
        }
        for name, (data, tables) in zip(places, tally.caches.tolist(), strict=True)
    }


def _regions(tally: Tally, mapping: Mapping) -> list[RegionCost]:
    columns = np.column_stack([tally.touched, tally.by_page])
    of_page = (
        columns.reshape(-1, len(mapping.page), columns.shape[1]).sum(axis=0) if len(columns) else columns
    )
    of_region = np.zeros((len(mapping.regions), columns.shape[1]), np.int64)
    np.add.at(of_region, mapping.region, of_page)
    found = [
        RegionCost(
            name=region.name,
            caller=region.caller,
            kind=region.kind,
            leaf=region.leaf,
            size_bytes=region.size_bytes,
            waste_bytes=region.waste_bytes,
            accesses=count,
            l1_misses=l1,
            stlb_misses=stlb,
            walk_refs=refs,
            walk_cycles=cycles,
        )
        for region, (count, l1, stlb, refs, cycles) in zip(mapping.regions, of_region.tolist(), strict=True)
        if count
    ]
    return sorted(found, key=lambda cost: (-cost.walk_cycles, -cost.accesses, cost.name))
