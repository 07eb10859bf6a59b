"""The page allocator: free blocks of 2^order base pages, kept for each node, zone and migrate type.

Frames are plain integers (physical address >> base page shift), so what is contiguous can be seen.
The rules (lists are last in first out, a block is halved from the top, an empty list takes a block of
another migrate type, the largest first) are those of Linux 5.17 to 6.9 mm/page_alloc.c: `rmqueue`,
`expand`, `__rmqueue_fallback`, `steal_suitable_fallback`, `__free_one_page`, read in patches of that
file. Not modelled: per-CPU page lists, watermarks, compaction, reclaim.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

UNMOVABLE, MOVABLE, RECLAIMABLE = range(3)
"""Migrate types; the kernel's others (high-atomic, CMA, isolate) are left out."""

FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}
"""Whose blocks are taken when a type has none left (`fallbacks[]`)."""

BULK_PAGES = 100
"""Pages in one call of the bulk allocator (Linux mm/vmalloc.c `vm_area_alloc_pages`, reference 3.4)."""


@dataclass(frozen=True)
class Orders:
    """How one base page size cuts memory into blocks.

    Attributes
    ----------
    page_shift : int
        log2 of the base page in bytes.
    largest : int
        The kernel's MAX_PAGE_ORDER: 10 with 4 KiB pages.
    pageblock : int
        Order of a pageblock, the grain of migrate types: the PMD leaf, or `largest` if that is smaller.
    """

    page_shift: int = 12
    largest: int = 10
    pageblock: int = 9


ORDERS_4K = Orders()
"""Those of 4 KiB pages."""


class Zone:
    """The free blocks of one zone of one node.

    Parameters
    ----------
    node : int
    name : str
        DMA, DMA32, Normal.
    start, end : int
        Frames; `end` is exclusive. Frames without memory are neither free nor held.
    orders : Orders
    """

    def __init__(self, node: int, name: str, start: int, end: int, orders: Orders) -> None:
        self.node, self.name, self.start, self.end, self.orders = node, name, start, end, orders
        self.free: list[tuple[OrderedDict[int, None], ...]] = [
            tuple(OrderedDict() for _ in FALLBACKS) for _ in range(orders.largest + 1)
        ]
        """[order][migrate type]: heads of free blocks; the last one is taken first."""
        self.heads: dict[int, tuple[int, int]] = {}
        """Head of each free block -> its order and list."""
        self.held = bytearray(end - start)
        """At the head of each allocated block: 1 + order + 16 x migrate type; else 0."""
        first, last = start >> orders.pageblock, (end - 1) >> orders.pageblock
        self.block_type = bytearray([MOVABLE]) * (last - first + 1)

    def block(self, frame: int) -> int:
        """Index of a frame's pageblock in `block_type`."""
        shift = self.orders.pageblock
        return (frame >> shift) - (self.start >> shift)

    def hold(self, frame: int, order: int, kind: int) -> None:
        """Note a block as allocated."""
        self.held[frame - self.start] = 1 + order + 16 * kind

    def insert(self, frame: int, order: int, kind: int, last: bool = False) -> None:
        """Put a free block on a list, to be taken next, or `last`."""
        blocks = self.free[order][kind]
        blocks[frame] = None
        if last:
            blocks.move_to_end(frame, last=False)
        self.heads[frame] = order, kind

    def remove(self, frame: int) -> tuple[int, int]:
        """Take a free block off its list; returns its order and migrate type."""
        order, kind = self.heads.pop(frame)
        del self.free[order][kind][frame]
        return order, kind

    def take(self, order: int, kind: int, fallback_floor: int = 0) -> int | None:
        """Allocate a block; returns its first frame, or None.

        Parameters
        ----------
        order, kind : int
        fallback_floor : int
            Blocks of other migrate types are taken from this order up only (the kernel's ALLOC_NOFRAGMENT).
        """
        while True:
            for size in range(order, self.orders.largest + 1):
                if self.free[size][kind]:
                    frame = next(reversed(self.free[size][kind]))
                    self.remove(frame)
                    for half in reversed(range(order, size)):
                        self.insert(frame + (1 << half), half, kind)
                    self.hold(frame, order, kind)
                    return frame
            if not self._steal(max(order, fallback_floor), kind):
                return None

    def _steal(self, order: int, kind: int) -> bool:
        """Move a block of another migrate type, of at least this order, to our lists."""

        def found(sizes: Iterable[int]) -> tuple[int, int] | None:
            return next(((s, k) for s in sizes for k in FALLBACKS[kind] if self.free[s][k]), None)

        largest = found(range(self.orders.largest, order - 1, -1))
        if largest is None:
            return False
        size, other = largest
        whole = size >= self.orders.pageblock // 2 or kind != MOVABLE
        if not whole:
            size, other = found(range(order, self.orders.largest + 1)) or largest
        frame = next(reversed(self.free[size][other]))
        if size >= self.orders.pageblock:
            block = self.block(frame)
            count = 1 << (size - self.orders.pageblock)
            self.block_type[block : block + count] = bytes([kind]) * count
        elif whole and self._claim(frame, kind):
            return True
        self.remove(frame)
        self.insert(frame, size, kind)
        return True

    def _claim(self, frame: int, kind: int) -> bool:
        """Move a pageblock's free blocks to our lists; it is ours if half of it is free or of a like type."""
        span = 1 << self.orders.pageblock
        start = max(frame & -span, self.start)
        end = min((frame & -span) + span, self.end)
        free, movable, blocks, at = 0, 0, [], start
        while at < end:
            held = self.held[at - self.start]
            if at in self.heads:
                blocks.append(at)
                size = 1 << self.heads[at][0]
                free += size
            else:
                size = 1 << (held & 15) - 1 if held else 1
                movable += size if held and held >> 4 == MOVABLE else 0
            at += size
        old = self.block_type[self.block(frame)]
        alike = movable if kind == MOVABLE else span - free - movable if old == MOVABLE else 0
        for block in blocks:
            order, _ = self.remove(block)
            self.insert(block, order, kind)
        if free + alike >= span // 2:
            self.block_type[self.block(frame)] = kind
        return bool(blocks)

    def give(self, frame: int) -> None:
        """Free a block that `take` returned (or a part of it after `split`), merging it with its buddies."""
        held = self.held[frame - self.start]
        if not held:
            raise ValueError(f"frame {frame:#x} is not the head of an allocated block")
        self.held[frame - self.start] = 0
        self._merge(frame, (held & 15) - 1, self.block_type[self.block(frame)])

    def _merge(self, frame: int, order: int, kind: int, last: bool = False) -> None:
        while order < self.orders.largest:
            buddy = frame ^ (1 << order)
            if self.heads.get(buddy, (-1, 0))[0] != order:
                break
            self.remove(buddy)
            frame &= ~(1 << order)
            order += 1
        likely = order < self.orders.largest - 1 and (
            self.heads.get((frame & ~(1 << order)) ^ (2 << order), (-1, 0))[0] == order + 1
        )
        self.insert(frame, order, kind, last=last or likely)

    def split(self, frame: int, order: int) -> None:
        """Turn an allocated block into blocks of one order, freed one by one (`split_page`)."""
        head = frame - self.start
        size, kind = (self.held[head] & 15) - 1, self.held[head] >> 4
        step = bytes([1 + order + 16 * kind]) + bytes((1 << order) - 1)
        self.held[head : head + (1 << size)] = step * (1 << (size - order))

    def populate(self, start: int, end: int) -> None:
        """Hand frames to the allocator for the first time; lower addresses will be taken first."""
        while start < end:
            order = min(self.orders.largest, (end - start).bit_length() - 1)
            if start:
                order = min(order, (start & -start).bit_length() - 1)
            self._merge(start, order, self.block_type[self.block(start)], last=True)
            start += 1 << order

    def free_frames(self) -> int:
        """Frames that are free."""
        return sum(len(blocks) << order for order, lists in enumerate(self.free) for blocks in lists)

    def held_frames(self) -> int:
        """Frames that are allocated."""
        held = np.frombuffer(self.held, np.uint8)
        return int((1 << (held[held > 0] & 15).astype(np.int64) - 1).sum())


@dataclass
class Memory:
    """All zones of a machine.

    Attributes
    ----------
    zones : list of Zone
        Ascending by address.
    tries, misses : dict of int to int
        Allocations asked for and failed, by order.
    """

    zones: list[Zone]
    tries: dict[int, int] = field(default_factory=dict)
    misses: dict[int, int] = field(default_factory=dict)
    bulk_calls: int = 0
    _turn: int = -1

    @property
    def orders(self) -> Orders:
        """How blocks are cut."""
        return self.zones[0].orders

    @property
    def nodes(self) -> list[int]:
        """Nodes that have memory."""
        return sorted({zone.node for zone in self.zones})

    def next_node(self) -> int:
        """The node that interleaving takes next."""
        self._turn = (self._turn + 1) % len(self.nodes)
        return self.nodes[self._turn]

    def _zone(self, frame: int) -> Zone:
        return next(zone for zone in self.zones if zone.start <= frame < zone.end)

    def take(self, order: int, kind: int = UNMOVABLE, node: int | None = None) -> int | None:
        """Allocate 2^order contiguous frames.

        Parameters
        ----------
        order : int
        kind : int
            Migrate type.
        node : int, optional
            Preferred node; its highest zone comes first, other nodes last. None: the first node.

        Returns
        -------
        int or None
            The first frame; None if no zone has such a block.
        """
        self.tries[order] = self.tries.get(order, 0) + 1
        home = self.nodes[0] if node is None else node
        local = [zone for zone in reversed(self.zones) if zone.node == home]
        remote = [zone for zone in reversed(self.zones) if zone.node != home]
        rounds = ((local, self.orders.pageblock), (local + remote, 0))
        for zones, floor in rounds:
            for zone in zones:
                frame = zone.take(order, kind, floor)
                if frame is not None:
                    return frame
        self.misses[order] = self.misses.get(order, 0) + 1
        return None

    def give(self, frames: Iterable[int]) -> None:
        """Free allocated blocks, given their first frames."""
        zone = self.zones[0]
        for frame in frames:
            if not zone.start <= frame < zone.end:
                zone = self._zone(frame)
            zone.give(int(frame))

    def split(self, frame: int, order: int = 0) -> None:
        """Make the parts of an allocated block free separately."""
        self._zone(frame).split(frame, order)

    def free_frames(self) -> int:
        """Frames that are free, over all zones."""
        return sum(zone.free_frames() for zone in self.zones)

    def held_frames(self) -> int:
        """Frames that are allocated, over all zones."""
        return sum(zone.held_frames() for zone in self.zones)

    def buddyinfo(self) -> dict[tuple[int, str], list[int]]:
        """Count free blocks by order, for each (node, zone), as ``/proc/buddyinfo`` prints them."""
        return {(z.node, z.name): [sum(map(len, lists)) for lists in z.free] for z in self.zones}

    def blocks(self, order: int) -> int:
        """Blocks of this order that could be had without moving anything."""
        return sum(
            sum(map(len, lists)) << (size - order)
            for zone in self.zones
            for size, lists in enumerate(zone.free)
            if size >= order
        )

    def unusable(self, order: int) -> float:
        """Share of the free memory that lies in blocks smaller than this order, 0 to 1."""
        free = self.free_frames()
        return 1 - (self.blocks(order) << order) / free if free else 0.0


def gather(
    memory: Memory, pages: int, order: int, nodes: Iterator[int], *, large: bool = False
) -> NDArray[np.int64] | None:
    """Allocate the frames of one vmalloc area (Linux mm/vmalloc.c `vm_area_alloc_pages`, reference 3.4).

    Every block has the area's order and is split into base pages. All is freed again if one is missing.

    Parameters
    ----------
    memory : Memory
    pages : int
        Base pages wanted, a multiple of 2^order.
    order : int
        The area's page order: 0, or that of its leaf.
    nodes : iterator of int
        The node to ask for each block: interleaving moves on one block at a time.
    large : bool
        Linux 7.2 and later: first ask for blocks larger than `order`, from min(log2(rest), MAX_PAGE_ORDER)
        downwards, each failure lowering the ceiling.

    Returns
    -------
    ndarray of int64, shape (pages,), or None
        The frame of each base page.
    """
    heads: list[tuple[int, int]] = []
    got, ceiling = 0, memory.orders.largest if large else order
    while got < pages:
        size = max(order, min(ceiling, (pages - got).bit_length() - 1))
        if size == 0 and (got == 0 or heads[-1][1] or got % BULK_PAGES == 0):
            memory.bulk_calls += 1
        frame = memory.take(size, UNMOVABLE, next(nodes))
        if frame is not None:
            memory.split(frame)
            heads.append((frame, size))
            got += 1 << size
        elif size > order:
            ceiling = size - 1
        else:
            memory.give(f + i for f, s in heads for i in range(1 << s))
            return None
    return np.concatenate([np.arange(f, f + (1 << s)) for f, s in heads])
