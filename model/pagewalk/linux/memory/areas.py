"""Where vmalloc areas lie: the search for free addresses, guard pages, lazy freeing and its purge.

Source: Linux 6.12 mm/vmalloc.c, see the reference's section 3.5; the order within the per-size pools from
`node_pool_add_va`, `node_pool_del_va`, `purge_vmap_node` and `decay_va_pool_node` of 6.16.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.geometry import GIB, TOP, Geometry

LAZY_BYTES = 32 << 20
"""Freed addresses that are kept before a purge, for each bit of the number of CPUs (`lazy_max_pages`)."""

POOLED_PAGES = 256
"""Addresses of at most so many pages, guard included, go back to their pool (MAX_VA_SIZE_PAGES)."""

MOST_POOLS = 128
"""Most vmap nodes; below, one for each possible CPU."""


Kind = Literal["vmalloc", "vmap", "ioremap"]
"""What made an area: only vmalloc's own has memory of its own."""


class Span(NamedTuple):
    """A range of addresses; `end` is exclusive."""

    start: int
    end: int


@dataclass(frozen=True)
class Area:
    """One range of the vmalloc or module space.

    Attributes
    ----------
    name, caller : str
    start : int
    asked_bytes, size_bytes, span_bytes : int
        As asked for; rounded to whole leaves; with the guard page.
    shift : int
        log2 of the blocks it is made of; the page order is this less the base shift. Of an ioremap area: log2
        of its largest leaf.
    frames : ndarray of int64
        Of each base page: its own, or those that vmap shows once more. None for ioremap, which maps devices.
    reset : bool
        VM_FLUSH_RESET_PERMS.
    allow_huge : bool
        VM_ALLOW_HUGE_VMAP.
    array : str
        Name of the area that holds its page array; "" where that fits one page (kmalloc, not modelled).
    kind : str
    """

    name: str
    caller: str = ""
    start: int = 0
    asked_bytes: int = 0
    size_bytes: int = 0
    span_bytes: int = 0
    shift: int = 0
    frames: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    reset: bool = False
    allow_huge: bool = False
    array: str = ""
    kind: Kind = "vmalloc"

    @property
    def end(self) -> int:
        """End of the payload."""
        return self.start + self.size_bytes


class Purge(NamedTuple):
    """One purge of lazily freed areas.

    Attributes
    ----------
    start, end : int
        From the lowest to the highest freed address: what is flushed.
    areas : int
    pages : int
        Base pages of addresses that became free, guards included.
    """

    start: int
    end: int
    areas: int
    pages: int


class _Busy(NamedTuple):
    end: int
    pool: int
    """Whose pool it goes back to; -1: none."""


def module_space(geometry: Geometry) -> Span:
    """Where modules go (reference 3.5): a window of its own, or the vmalloc space."""
    if geometry.name.startswith("x86-64"):
        return Span(0xFFFF_FFFF_A000_0000, 0xFFFF_FFFF_FF00_0000)
    if geometry.name.startswith("arm64"):
        return Span(geometry.vmalloc_start - 2 * GIB, geometry.vmalloc_start)
    if geometry.name.startswith("riscv"):
        return Span(TOP - 4 * GIB, TOP - 2 * GIB)
    return Span(geometry.vmalloc_start, geometry.vmalloc_end)


class AddressSpace:
    """The free and the used addresses of vmalloc and modules.

    Parameters
    ----------
    geometry : Geometry
    cpus : int
        Online CPUs, and possible ones.
    pools : bool
        Linux 6.9 and later: freed addresses are kept for each CPU and size (vmap nodes).
    on_purge : callable
        Told of every purge: the kernel flushes the TLB then.
    """

    def __init__(
        self,
        geometry: Geometry,
        cpus: int,
        pools: bool,
        on_purge: Callable[[Purge], object] = lambda purge: None,
    ) -> None:
        self.page_shift = geometry.base_shift
        self.vmalloc = Span(geometry.vmalloc_start, geometry.vmalloc_end)
        self.modules = module_space(geometry)
        spaces = sorted({self.vmalloc, self.modules})
        self.starts, self.ends = [s.start for s in spaces], [s.end for s in spaces]
        """Free ranges, ascending; neighbours are merged."""
        self.busy: dict[int, _Busy] = {}
        """Areas in use, by start."""
        self.lazy: dict[int, _Busy] = {}
        """Areas freed but not purged."""
        self.lazy_pages = 0
        self.lazy_max_pages = cpus.bit_length() * (LAZY_BYTES >> self.page_shift)
        self.pool_count = min(cpus, MOST_POOLS) if pools and cpus > 1 else 0
        self.pools: dict[tuple[int, int], list[Span]] = {}
        """(vmap node, size in bytes) -> addresses ready for reuse, the last one first."""
        self.on_purge = on_purge

    def allocate(
        self, size_bytes: int, align_bytes: int, within: Span | None = None, cpu: int = 0
    ) -> int | None:
        """Take addresses; purges and tries once more if there are none.

        Parameters
        ----------
        size_bytes : int
            Whole base pages, the guard page included.
        align_bytes : int
        within : Span, optional
            Default: the vmalloc space.
        cpu : int
            Whose pool is looked into.

        Returns
        -------
        int or None
            The start address.
        """
        within = within or self.vmalloc
        pool = cpu % self.pool_count if self.pool_count and within == self.vmalloc else -1
        start = self._from_pool(pool, size_bytes, align_bytes)
        if start is None:
            start = self._from_tree(size_bytes, align_bytes, within)
        if start is None and (self.lazy or self.pools):
            self.purge(decay_all=True)
            start = self._from_tree(size_bytes, align_bytes, within)
        if start is not None:
            self.busy[start] = _Busy(start + size_bytes, pool)
        return start

    def _from_pool(self, pool: int, size: int, align: int) -> int | None:
        spans = self.pools.get((pool, size))
        if not spans:
            return None
        if spans[-1].start % align:
            spans.insert(0, spans.pop())
            return None
        return spans.pop().start

    def _from_tree(self, size: int, align: int, within: Span) -> int | None:
        """Lowest free range that is long enough; for more than page alignment, that surely is.

        The kernel's tree is searched for size + align - 1, so a hole that would just fit is passed by (the
        kernel may take one that lies on its way down the tree; which ones do, depends on the tree's shape).
        """
        page = 1 << self.page_shift
        length = size if align <= page or within.end - within.start == size else size + align - 1
        for index in range(bisect_right(self.ends, within.start), len(self.starts)):
            low, high = self.starts[index], self.ends[index]
            if low >= within.end:
                break
            start = -(-max(low, within.start) // align) * align
            if high - low >= length and start + size <= min(high, within.end):
                self._cut(index, Span(start, start + size))
                return start
        return None

    def _cut(self, index: int, taken: Span) -> None:
        low, high = self.starts[index], self.ends[index]
        rest = [Span(s, e) for s, e in ((low, taken.start), (taken.end, high)) if s < e]
        self.starts[index : index + 1] = [span.start for span in rest]
        self.ends[index : index + 1] = [span.end for span in rest]

    def _merge(self, span: Span) -> None:
        """Put a range back among the free ones."""
        start, end = span
        index = bisect_left(self.starts, start)
        first = index - 1 if index and self.ends[index - 1] == start else index
        last = index + 1 if index < len(self.starts) and self.starts[index] == end else index
        if first < index:
            start = self.starts[first]
        if last > index:
            end = self.ends[index]
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]

    def free(self, start: int) -> None:
        """Free an area lazily: its addresses stay unusable until a purge, which too many of them start."""
        area = self.busy.pop(start)
        self.lazy[start] = area
        self.lazy_pages += (area.end - start) >> self.page_shift
        if self.lazy_pages > self.lazy_max_pages:
            self.purge()

    def purge(self, decay_all: bool = False) -> Purge | None:
        """Make all lazily freed addresses usable again.

        Each pool first gives up a quarter of what it holds (or all of it); then small areas go to their pool,
        the highest address to be taken first, and all others to the free ranges.

        Returns
        -------
        Purge or None
            None if nothing was freed.
        """
        for key, spans in list(self.pools.items()):
            count = len(spans) if decay_all else len(spans) // 4
            for _ in range(count):
                self._merge(spans.pop())
            if not spans:
                del self.pools[key]
        if not self.lazy:
            return None
        lazy, self.lazy = sorted(self.lazy.items()), {}
        purge = Purge(lazy[0][0], max(area.end for _, area in lazy), len(lazy), self.lazy_pages)
        self.lazy_pages = 0
        for start, (end, pool) in lazy:
            if pool >= 0 and not decay_all and end - start <= POOLED_PAGES << self.page_shift:
                self.pools.setdefault((pool, end - start), []).append(Span(start, end))
            else:
                self._merge(Span(start, end))
        self.on_purge(purge)
        return purge

    def used(self) -> list[Span]:
        """Every range that is not free: used, lazily freed, or pooled; ascending."""
        taken = [
            Span(start, area.end) for area_of in (self.busy, self.lazy) for start, area in area_of.items()
        ]
        return sorted(taken + [span for spans in self.pools.values() for span in spans])
