"""Memory that has been used: laid out from ``/proc/buddyinfo``, or aged by a seeded workload."""

from collections.abc import Mapping, Sequence
from random import Random

from pagewalk.errors import BadInput
from pagewalk.linux.memory.buddy import MOVABLE, RECLAIMABLE, UNMOVABLE, Memory, Orders, Zone, x86_zones

Counts = Mapping[int, Sequence[int]]
"""Migrate type -> free blocks of each order, from 0 up."""


def from_buddyinfo(
    free: Mapping[tuple[int, str], Counts],
    ranges: Mapping[int, Sequence[tuple[int, int]]],
    orders: Orders = Orders(),  # noqa: B008
) -> Memory:
    """Memory whose free blocks have the counts of ``/proc/buddyinfo`` or ``/proc/pagetypeinfo``.

    The files do not say where the blocks lie. Ours: from the start of the zone, the largest first, each next one
    in the smallest allocated hole that is twice its size or more, so that no two free blocks would merge.

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
    """Hold every frame of the spans, except for the free blocks that were counted."""
    largest = zone.orders.largest
    holes: list[list[int]] = [[] for _ in range(largest + 1)]
    for start, end in spans:
        at = start
        while at < end:
            order = min(largest, (end - at).bit_length() - 1, (at & -at).bit_length() - 1 if at else largest)
            holes[order].append(at)
            at += 1 << order
    for blocks in holes:
        blocks.reverse()
    for order in reversed(range(largest + 1)):
        for kind, numbers in counts.items():
            for _ in range(numbers[order] if order < len(numbers) else 0):
                wanted = order if order == largest else order + 1
                size = next((size for size in range(wanted, largest + 1) if holes[size]), None)
                if size is None:
                    raise BadInput(
                        "buddyinfo",
                        f"the free blocks of node {zone.node}, zone {zone.name} do not fit into its memory",
                        "check the memory ranges",
                    )
                frame = holes[size].pop()
                for half in reversed(range(order, size)):
                    holes[half].append(frame + (1 << half))
                zone.insert(frame, order, kind)
                first = zone.block(frame)
                count = 1 << max(0, order - zone.orders.pageblock)
                zone.block_type[first : first + count] = bytes([kind]) * count
    for order, blocks in enumerate(holes):
        for frame in blocks:
            zone.hold(frame, order, zone.block_type[zone.block(frame)])


def age(
    memory: Memory,
    *,
    unusable: float,
    seed: int,
    used: float = 0.7,
    survivors: float = 0.02,
    most_processes: int = 20_000,
) -> list[tuple[int, int]]:
    """Run processes on fresh memory until enough of its free part lies in blocks below the pageblock order.

    Each process allocates some thousand pages in blocks of order 0 to 3, a fifth of them unmovable or
    reclaimable, and frees them when it ends; a few blocks outlive it (page cache, slabs, page tables).
    When too much is in use, the oldest survivors are freed. The workload is ours, made to fragment
    as long-running machines do; only its outcome, the share, is asked for.

    Parameters
    ----------
    memory : Memory
        Changed in place.
    unusable : float
        The share wanted, 0 to 1 (`Memory.unusable` of the pageblock order).
    seed : int
    used : float
        Share of the memory that survivors may hold.
    survivors : float
        Share of a process's blocks that outlive it.
    most_processes : int
        Give up after so many.

    Returns
    -------
    list of (int, int)
        First frame and order of the blocks still allocated.

    Raises
    ------
    BadInput
        The share was not reached.
    """
    random = Random(seed)
    limit = int(memory.free_frames() * used)
    kinds, weights = (MOVABLE, UNMOVABLE, RECLAIMABLE), (8, 1, 1)
    kept: list[tuple[int, int]] = []
    held, alive = 0, []
    for _ in range(most_processes):
        process = []
        for _ in range(random.randrange(200, 2000)):
            order = random.choices(range(4), (8, 2, 1, 1))[0]
            frame = memory.take(order, random.choices(kinds, weights)[0])
            if frame is not None:
                process.append((frame, order))
                held += 1 << order
        alive.append(process)
        ending = alive.pop(random.randrange(len(alive))) if len(alive) > 8 or held > limit else []
        for frame, order in ending:
            if random.random() < survivors:
                kept.append((frame, order))
            else:
                memory.give([frame])
                held -= 1 << order
        while held > limit and kept:
            frame, order = kept.pop(random.randrange(len(kept)))
            memory.give([frame])
            held -= 1 << order
        if memory.unusable(memory.orders.pageblock) >= unusable:
            return kept + [block for blocks in alive for block in blocks]
    raise BadInput(
        "age",
        f"{memory.unusable(memory.orders.pageblock):.2f} of the free memory unusable, not {unusable}",
        "let more survive, or more be used",
    )
