"""Memory in a given condition: fresh, as ``/proc/buddyinfo`` says, or aged by a seeded workload."""

import itertools
from collections.abc import Mapping, Sequence
from random import Random

from pagewalk.errors import BadInput
from pagewalk.linux.memory.buddy import (
    MOVABLE,
    ORDERS_4K,
    RECLAIMABLE,
    UNMOVABLE,
    Memory,
    Orders,
    Zone,
)

X86_ZONE_ENDS = (("DMA", 16 << 20), ("DMA32", 4 << 30), ("Normal", 1 << 64))
"""x86-64 zones by the physical address where they end."""

Counts = Mapping[int, Sequence[int]]
"""Migrate type -> number of free blocks of each order, 0 to the largest."""


def x86_zones(ranges: Mapping[int, Sequence[tuple[int, int]]], orders: Orders = ORDERS_4K) -> list[Zone]:
    """Make empty zones, cut as on x86-64, that span each node's memory.

    Parameters
    ----------
    ranges : dict of int to sequence of (int, int)
        For each node, physical byte ranges with memory; end exclusive.
    orders : Orders
    """
    zones = []
    for node, spans in ranges.items():
        low = 0
        for name, high in X86_ZONE_ENDS:
            inside = [(max(s, low), min(e, high)) for s, e in spans if s < high and e > low]
            if inside:
                first, last = min(s for s, _ in inside), max(e for _, e in inside)
                zones.append(Zone(node, name, first >> orders.page_shift, last >> orders.page_shift, orders))
            low = high
    zones.sort(key=lambda zone: zone.start)
    for below, above in itertools.pairwise(zones):
        if above.start < below.end:
            raise BadInput(
                "memory", f"nodes {below.node} and {above.node} overlap", "give each node its own range"
            )
    return zones


def fresh(ranges: Mapping[int, Sequence[tuple[int, int]]], orders: Orders = ORDERS_4K) -> Memory:
    """Memory of a machine that has just booted: every frame of the ranges is free.

    Parameters
    ----------
    ranges : dict of int to sequence of (int, int)
        For each node, physical byte ranges with memory; end exclusive.
    orders : Orders
    """
    memory = Memory(x86_zones(ranges, orders))
    shift = orders.page_shift
    for node, spans in ranges.items():
        for zone in (zone for zone in memory.zones if zone.node == node):
            for start, end in spans:
                zone.populate(max(start >> shift, zone.start), min(end >> shift, zone.end))
    return memory


def from_buddyinfo(
    free: Mapping[tuple[int, str], Counts],
    ranges: Mapping[int, Sequence[tuple[int, int]]],
    orders: Orders = ORDERS_4K,
) -> Memory:
    """Memory whose free blocks have the counts of ``/proc/buddyinfo`` or ``/proc/pagetypeinfo``.

    The files do not say where the blocks lie. Ours: from the start of the zone, the largest first, each
    next one in the smallest piece left over of at least twice its size, so that no two would merge.

    Parameters
    ----------
    free : dict of (int, str) to dict of int to sequence of int
        For each (node, zone): migrate type -> free blocks of each order. buddyinfo alone does not tell types:
        pass all of them as MOVABLE, which the kernel takes last from, pageblock by pageblock.
    ranges : dict of int to sequence of (int, int)
        For each node, physical byte ranges with memory; end exclusive.
    orders : Orders

    Raises
    ------
    BadInput
        A zone of the file does not exist in the ranges, or its free blocks do not fit into it.
    """
    memory = Memory(x86_zones(ranges, orders))
    zones = {(zone.node, zone.name): zone for zone in memory.zones}
    for (node, name), counts in free.items():
        zone = zones.get((node, name))
        if zone is None:
            if any(any(numbers) for numbers in counts.values()):
                raise BadInput(
                    "buddyinfo",
                    f"node {node} has no zone {name} in the memory given",
                    "give its memory ranges",
                )
            continue
        spans = [(s >> orders.page_shift, e >> orders.page_shift) for s, e in ranges[node]]
        _lay_out(zone, [(max(s, zone.start), min(e, zone.end)) for s, e in spans], counts)
    for zone in memory.zones:
        if (zone.node, zone.name) not in free:
            raise BadInput(
                "buddyinfo", f"node {zone.node}, zone {zone.name} is missing", "give the whole file"
            )
    return memory


def _lay_out(zone: Zone, spans: Sequence[tuple[int, int]], counts: Counts) -> None:
    """Hold every frame of the spans, except for the free blocks that were counted.

    The pieces that memory falls into at its edges have no buddy, so a free block may fill one; of a half left
    over, only a part may be free.
    """
    largest = zone.orders.largest
    edges: list[list[int]] = [[] for _ in range(largest + 1)]
    halves: list[list[int]] = [[] for _ in range(largest + 1)]
    for start, end in spans:
        at = start
        while at < end:
            order = min(largest, (end - at).bit_length() - 1, (at & -at).bit_length() - 1 if at else largest)
            edges[order].append(at)
            at += 1 << order
    for blocks in edges:
        blocks.reverse()
    asked = [
        (k, kind) for k in reversed(range(largest + 1)) for kind, n in counts.items() for _ in range(n[k])
    ]
    for order, kind in asked:
        larger = (
            (size, holes) for size in range(order + 1, largest + 1) for holes in (halves[size], edges[size])
        )
        size, holes = (order, edges[order]) if edges[order] else next((h for h in larger if h[1]), (0, []))
        if not holes:
            raise BadInput(
                "buddyinfo",
                f"the free blocks of node {zone.node}, zone {zone.name} do not fit into its memory",
                "check the memory ranges",
            )
        frame = holes.pop()
        for half in reversed(range(order, size)):
            halves[half].append(frame + (1 << half))
        zone.insert(frame, order, kind)
        first, count = zone.block(frame), 1 << max(0, order - zone.orders.pageblock)
        zone.block_type[first : first + count] = bytes([kind]) * count
    for order in range(largest + 1):
        for frame in edges[order] + halves[order]:
            zone.hold(frame, order, zone.block_type[zone.block(frame)])


def age(memory: Memory, *, unusable: float, free: float = 0.3, seed: int) -> list[int]:
    """Fill fresh memory, then free it again in pieces that leave it as fragmented as asked for.

    The workload is ours: blocks of order 0 to 6 (page cache, heaps; a fifth of them slabs and page tables)
    fill the memory. Then, as long as too much of what is free lies in whole pageblocks, single blocks are
    freed here and there (reclaim); else whole pageblocks are (a process that used much exits).

    Parameters
    ----------
    memory : Memory
        Changed in place.
    unusable : float
        Share of the free memory that shall lie in blocks below the pageblock order, 0 to 1.
    free : float
        Share of the memory that shall be free.
    seed : int

    Returns
    -------
    list of int
        First frames of the blocks still allocated.

    Raises
    ------
    BadInput
        The share cannot be reached with so much free.
    """
    random = Random(seed)
    kinds, weights = (MOVABLE, UNMOVABLE, RECLAIMABLE), (8, 1, 1)
    pageblock, total = memory.orders.pageblock, memory.free_frames()
    blocks: list[tuple[int, int]] = []
    for order in itertools.chain((random.randrange(7) for _ in range(total)), [0]):
        frame = memory.take(order, random.choices(kinds, weights)[0])
        if frame is None:
            break
        blocks.append((frame, order))
    blocks.sort()
    stretches = [list(g) for _, g in itertools.groupby(blocks, lambda block: block[0] >> pageblock)]
    while memory.free_frames() < free * total:
        stretch = random.choice(stretches)
        whole = memory.unusable(pageblock) > unusable
        for _ in range(len(stretch) if whole else min(len(stretch), 2)):
            frame, _ = stretch.pop(random.randrange(len(stretch)))
            memory.give([frame])
    got = memory.unusable(pageblock)
    if abs(got - unusable) > 0.05:
        raise BadInput(
            "age",
            f"{got:.2f} of the free memory became unusable for order {pageblock}, not {unusable:.2f}",
            f"leave another share than {free:.2f} of the {total} frames free",
        )
    return [frame for stretch in stretches for frame, _ in stretch]
