"""The kernel's linear map of all memory: how it is mapped at boot, what splits it, how a freed area is reset.

Sources: Linux 7.3 mm/vmalloc.c `vm_reset_perms`, arch/x86/mm/pat/set_memory.c, arch/arm64/mm/pageattr.c;
see the reference's sections 4.1 to 4.5.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.geometry import Geometry
from pagewalk.linux.memory.page_tables import NO_EXEC, PAGE_KERNEL, PRESENT, WRITE, Change, PageTables, Split

STARTS = (
    ("x86-64-5level", 0xFF11_0000_0000_0000),
    ("x86-64", 0xFFFF_8880_0000_0000),
    ("powerpc64-radix", 0xC000_0000_0000_0000),
)
"""Where the linear map starts without KASLR, by the beginning of the geometry's name."""

Reset = Literal["page", "block", "range"]
"""How the direct map of a freed area is reset: page by page (every kernel from v8 to 7.3), block by block, or
each run of consecutive frames at once (the exchange's proposal, 20201125092208.12544-4-rppt@kernel.org)."""


def linear_start(geometry: Geometry) -> int:
    """First address of the linear map, from memory: riscv's follows vmalloc, arm64's opens the half."""
    for prefix, start in STARTS:
        if geometry.name.startswith(prefix):
            return start
    if geometry.name.startswith("riscv"):
        return geometry.vmalloc_end
    return (1 << 64) - (1 << geometry.base_shift + sum(geometry.index_bits))


class DirectMap:
    """The linear map.

    Parameters
    ----------
    geometry : Geometry
    ranges : sequence of (int, int)
        Physical byte ranges with memory; end exclusive.
    take, give : callable
        As of `PageTables`. The tables of the boot are not from the page allocator.
    leaves : "blocks" or "pages"
        Largest leaves that fit, or base pages (x86 debug_pagealloc; arm64 with rodata=full, unless all CPUs
        may change a leaf's size in place).
    rodata_full : bool
        arm64: permissions reach the linear map at all (the default there).

    Attributes
    ----------
    follows_permissions : bool
        `set_direct_map_*` do something: not on powerpc (from memory).
    running : bool
        Boot is over: from now on splits count in ``/proc/vmstat``.
    splits, collapses : dict of int to int
        log2 of the leaf that was split, or made -> how often since boot.
    count : dict of int to int
        log2 of leaf size -> leaves there are.
    """

    def __init__(
        self,
        geometry: Geometry,
        ranges: Sequence[tuple[int, int]],
        take: Callable[[], int | None],
        give: Callable[[int], object],
        leaves: Literal["blocks", "pages"] = "blocks",
        rodata_full: bool = True,
    ) -> None:
        self.follows_permissions = not geometry.name.startswith("powerpc") and (
            rodata_full or not geometry.name.startswith("arm64")
        )
        self.start, self.geometry = linear_start(geometry), geometry
        self.contiguous = {1: 4, 2: 4} if geometry.name.startswith("arm64-4k") else {}
        if geometry.name.startswith("arm64-16k"):
            self.contiguous = {1: 7, 2: 5}
        if geometry.name.startswith("arm64-64k"):
            self.contiguous = {1: 5, 2: 5}
        self.tables = PageTables(
            geometry, lambda: -1, lambda page: give(page) if page >= 0 else None, self.contiguous
        )
        sizes = {leaf.shift for leaf in geometry.leaves if leaf.name != "contPTE"}
        sizes |= {geometry.entry_shift(level) + bits for level, bits in self.contiguous.items()}
        self.sizes = sorted(sizes if leaves == "blocks" else {geometry.base_shift}, reverse=True)
        for low, high in ranges:
            self._map(low, high)
        self.tables.take = take
        self.count = dict.fromkeys(sorted(sizes), 0) | self.tables.leaves()
        self.splits, self.collapses = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0)
        self.running = False

    def _map(self, at: int, end: int) -> None:
        """Map with the largest leaves that fit; x86 maps the first PMD with base pages (from memory)."""
        base, grain = self.geometry.base_shift, 1 << [self.tables.shift[2], *self.sizes][-2]
        first_pmd = 1 << self.tables.shift[2] if self.geometry.name.startswith("x86") else 0
        while at < end:
            fits = (s for s in self.sizes if at >= first_pmd and not at % (1 << s) and at + (1 << s) <= end)
            shift = next(fits, base)
            if shift > base:
                self.tables.map_leaf(self.start + at, at >> base, shift, PAGE_KERNEL)
                at += 1 << shift
            else:
                stop = min(end, (at // grain + 1) * grain)
                self.tables.map_pages(self.start + at, np.arange(at >> base, stop >> base), PAGE_KERNEL)
                at = stop

    def address(self, frame: int) -> int:
        """`page_address`: where a frame lies in the linear map."""
        return self.start + (frame << self.geometry.base_shift)

    def change(self, frame: int, pages: int, set_bits: int, clear_bits: int) -> Change:
        """Change attributes of consecutive frames (never NX: the linear map is not executable)."""
        done = self.tables.change(self.address(frame), pages, set_bits & ~NO_EXEC, clear_bits & ~NO_EXEC)
        for split in done.splits:
            self._note(split, self.splits, -1)
        return done

    def collapse(self, frame: int, pages: int) -> list[Split]:
        """Merge what was split, where it can be (`PageTables.collapse`)."""
        made = self.tables.collapse(self.address(frame), self.address(frame + pages))
        for leaf in made:
            self._note(leaf, self.collapses, 1)
        return made

    def _note(self, leaf: Split, counter: dict[int, int], sign: int) -> None:
        smaller = max(size for size in self.count if size < leaf.shift)
        self.count[leaf.shift] += sign
        self.count[smaller] -= sign << (leaf.shift - smaller)
        if self.running:
            counter[leaf.shift] += 1

    def meminfo(self) -> dict[str, int]:
        """The DirectMap lines of ``/proc/meminfo``, in kB."""
        units = {shift: shift // 10 for shift in self.count}
        names = {shift: f"DirectMap{1 << shift - 10 * unit}{'?kMG'[unit]}" for shift, unit in units.items()}
        return {names[shift]: number << shift - 10 for shift, number in self.count.items()}

    def vmstat(self) -> dict[str, int]:
        """The direct_map lines of ``/proc/vmstat`` (x86)."""
        names = {"level2": self.tables.shift[2], "level3": self.tables.shift[3]}
        lines = {f"direct_map_{name}_splits": self.splits.get(shift, 0) for name, shift in names.items()}
        return lines | {
            f"direct_map_{name}_collapses": self.collapses.get(shift, 0) for name, shift in names.items()
        }

    def wrong(self, frames: NDArray[np.int64]) -> tuple[int, int]:
        """How many of these frames the linear map has read-only, and how many it has not at all."""
        entries = [self.tables.find(self.address(int(frame))) for frame in frames]
        absent = sum(entry is None or not entry.bits & PRESENT for entry in entries)
        return sum(entry is None or not entry.bits & WRITE for entry in entries) - absent, absent


class ResetSpan(NamedTuple):
    """The range of the direct map that a free flushes.

    Attributes
    ----------
    start, end : int
        Addresses.
    flush : bool
        There is such a range (the kernel's `flush_dmap`).
    steps : int
        How many pages or blocks were looked at to find it.
    """

    start: int
    end: int
    flush: bool
    steps: int


def reset_span(direct: DirectMap, frames: NDArray[np.int64], order: int) -> ResetSpan:
    """Find the range to flush, in steps of the area's page order (`vm_reset_perms`, changed so by v8).

    With order 0 this is the scan before v8. On whole blocks both find the same range.

    Parameters
    ----------
    direct : DirectMap
    frames : ndarray of int64
        Of each base page of the area.
    order : int
        Page order of the area: the step, and what each step is taken to cover.
    """
    first = frames[:: 1 << order]
    if not len(first):
        return ResetSpan((1 << 64) - 1, 0, False, 0)
    end = direct.address(int(first.max()) + (1 << order))
    return ResetSpan(direct.address(int(first.min())), end, True, len(first))


def reset_calls(frames: NDArray[np.int64], order: int, how: Reset) -> list[tuple[int, int]]:
    """The calls that change the direct map of a freed area: first frame and number of pages of each.

    Each is made twice: to make the pages invalid, and after the flush to give them their default.
    """
    if how == "page":
        return [(int(frame), 1) for frame in frames]
    if how == "block":
        return [(int(frame), 1 << order) for frame in frames[:: 1 << order]]
    breaks = np.flatnonzero(np.diff(frames) != 1) + 1
    return [(int(run[0]), len(run)) for run in np.split(frames, breaks) if len(run)]
