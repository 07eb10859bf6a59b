"""Memory that is mapped twice, in an area and in the direct map: permissions, their flushes, reset on free.

Every step that a processor notices goes to a log. Sources: Linux 7.3 arch/x86/mm/pat/set_memory.c,
arch/arm64/mm/pageattr.c, mm/vmalloc.c `_vm_unmap_aliases` and `vm_reset_perms`; see the reference's
section 4. powerpc and riscv, which it does not cover: arch/{powerpc,riscv}/mm/pageattr.c of trees since 6.8.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import TOP, Geometry, geometry
from pagewalk.linux.memory.areas import AddressSpace, Area, Purge, Span
from pagewalk.linux.memory.direct_map import DirectMap, Reset, reset_calls, reset_span
from pagewalk.linux.memory.page_tables import NO_EXEC, PRESENT, WRITE, Change, PageTables, Split
from pagewalk.linux.rules.eligibility import Kernel as Rules
from pagewalk.linux.rules.releases import Release, release

ARCHES = ("x86-64", "arm64", "powerpc64", "riscv")
"""How names of geometries begin."""

Permission = Literal["ro", "rw", "x", "nx", "rox"]

PERMISSIONS: dict[Permission, tuple[int, int]] = {
    "ro": (0, WRITE),
    "rw": (WRITE, 0),
    "x": (0, NO_EXEC),
    "nx": (NO_EXEC, 0),
    "rox": (0, WRITE | NO_EXEC),
}
"""Bits that ``set_memory_*`` sets and clears."""

FULL_FLUSH_ABOVE = {"x86-64": 33, "riscv": 64, "powerpc": 0}
"""More base pages than this make a range a full flush (reference 4.7), by how the geometry's name begins."""

TLB_RANGE_PAGES = 1 << 21
"""arm64 CPUs with TLB range operations flush all only above so many base pages (7.3)."""


def full_flush_above(geometry: Geometry, release_: Release, tlb_range: bool) -> int:
    """The most base pages that one flush of kernel addresses takes one by one (reference 4.7).

    arm64 without range operations: all from a table's worth of pages on (7.3), above it (6.1). The releases
    between were not read; they are taken as 7.3.
    """
    for name, most in FULL_FLUSH_ABOVE.items():
        if geometry.name.startswith(name):
            return most
    if tlb_range:
        return TLB_RANGE_PAGES
    entries = 1 << geometry.index_bits[0]
    return entries if release_ <= release("6.1") else entries - 1


class Happening(NamedTuple):
    """Something that a processor notices, or that went wrong.

    Attributes
    ----------
    what : str
        flush-all, flush-range (both on all CPUs), unmap, split, merge, failure.
    why : str
        What caused it: purge, set_memory, split, collapse, reset, table freed; or what failed.
    start, end : int
        Addresses; `end` is exclusive. Of a flush-all: the range that was asked for.
    """

    what: str
    why: str
    start: int = 0
    end: int = TOP


class Maps:
    """Page tables of areas, the direct map, addresses, and the log.

    Parameters
    ----------
    rules : pagewalk.linux.rules.eligibility.Kernel
        Release and architecture.
    ranges : sequence of (int, int)
        Physical byte ranges that the direct map maps.
    take, give : callable
        Pages for tables, from the page allocator.
    cpus : int
    linear_leaves : "blocks" or "pages"
        Leaves of the direct map; see `DirectMap`.
    rodata_full : bool
        arm64: permissions are mirrored to the linear map (the default there).
    tlb_range : bool
        arm64: the CPUs flush ranges in one operation.

    Attributes
    ----------
    log : list of Happening
    counts : Counter
        Of each kind of happening, and: purges, attribute calls, reset scan steps.
    """

    def __init__(
        self,
        rules: Rules,
        ranges: Sequence[tuple[int, int]],
        take: Callable[[], int | None],
        give: Callable[[int], object],
        *,
        cpus: int = 1,
        linear_leaves: Literal["blocks", "pages"] = "blocks",
        rodata_full: bool = True,
        tlb_range: bool = False,
    ) -> None:
        self.release, self.geometry = rules.release, geometry(rules.arch.name)
        self.shift = self.geometry.base_shift
        self.arch = next(name for name in ARCHES if self.geometry.name.startswith(name))
        self.full_flush_above = full_flush_above(self.geometry, self.release, tlb_range)
        blocks = [{1: shift - self.shift} for shift in rules.arch.pte_shifts]
        self.tables = PageTables(self.geometry, take, give, *blocks)
        self.direct = DirectMap(self.geometry, ranges, take, give, linear_leaves, rodata_full)
        self.space = AddressSpace(self.geometry, cpus, self.release.follows("vmap-nodes"), self._purged)
        self.log: list[Happening] = []
        self.counts: Counter[str] = Counter()
        self._also_flush = Span(TOP, 0)

    def note(self, what: str, why: str, start: int = 0, end: int = TOP) -> None:
        """Log something."""
        self.log.append(Happening(what, why, start, end))
        self.counts[what] += 1

    def flush(self, start: int, end: int, why: str) -> None:
        """`flush_tlb_kernel_range`: by page, or everything if that is too many."""
        full = end - start >> self.shift > self.full_flush_above
        self.note("flush-all" if full else "flush-range", why, start, end)

    def _purged(self, purge: Purge) -> None:
        self.counts["purges"] += 1
        self.flush(min(purge.start, self._also_flush.start), max(purge.end, self._also_flush.end), "purge")

    def unmap_aliases(self, start: int = TOP, end: int = 0) -> None:
        """`_vm_unmap_aliases`: purge, with one flush over all that and this range; or only this range."""
        self._also_flush = Span(start, end)
        if self.space.purge() is None and start < end:
            self.flush(start, end, "reset")
        self._also_flush = Span(TOP, 0)

    def _splits(self, change: Change, why: str) -> bool:
        """Log the splits of a change, each with its global flush (x86); False if it failed."""
        for split in change.splits:
            self.note("split", why, split.start, split.start + (1 << split.shift))
            if self.arch == "x86-64":
                self.note("flush-all", "split")
        if change.failed:
            self.note("failure", f"{why}: no page for a table")
        return not change.failed

    def _merges(self, made: Sequence[Split]) -> None:
        for start, shift in made:
            self.note("merge", "collapse", start, start + (1 << shift))
        if made:
            self.note("flush-all", "collapse")

    def set_memory(
        self,
        area: Area,
        what: Permission,
        first_page: int = 0,
        pages: int | None = None,
        *,
        array: bool = False,
    ) -> bool:
        """`set_memory_*` on base pages of an area; False if the kernel returns an error.

        x86 purges first, mirrors every step to the direct map and ends with a full flush; an array of pages
        it takes one page at a time. arm64 refuses areas that might be huge, and what is not vmalloc's, and
        mirrors ro and rw page by page, each with its flush. powerpc refuses areas that are huge, changes and
        flushes page by page, and leaves the linear map alone. riscv changes the linear map page by page,
        then whole leaves of the area, even where only a part was meant, and ends with a full flush.
        """
        pages = len(area.frames) - first_page if pages is None else pages
        if not 0 <= first_page <= first_page + pages <= len(area.frames):
            where, what_is = f"set_memory on {area.name!r}", f"it has {len(area.frames)} pages"
            raise BadInput(where, what_is, "name pages inside it")
        self.counts["attribute_calls"] += 1
        start = area.start + (first_page << self.shift)
        if self.arch == "x86-64":
            return self._set_memory_x86(start, start + (pages << self.shift), what, array)
        if self.arch == "arm64":
            return self._set_memory_arm64(area, first_page, pages, what)
        if self.arch == "riscv":
            return self._set_memory_riscv(area, first_page, pages, what)
        return self._set_memory_powerpc(area, start, pages, what)

    def _set_memory_x86(self, start: int, end: int, what: Permission, array: bool) -> bool:
        set_bits, clear_bits = PERMISSIONS[what]
        step = 1 if array else max(end - start >> self.shift, 1)

        def mirror(frame: int, pages: int) -> bool:
            return self._splits(
                self.direct.change(frame, pages, set_bits, clear_bits), "set_memory, direct map"
            )

        self.unmap_aliases()
        changed = failed = False
        for at in range(start, end, step << self.shift):
            change = self.tables.change(at, step, set_bits, clear_bits, mirror)
            self._splits(change, "set_memory")
            changed, failed = changed or change.changed, change.failed
            if failed:
                break
        if changed:
            self.note("flush-all", "set_memory", start, end)
        if changed and not failed and what == "rox" and self.release.follows("collapse"):
            self._merges(self.tables.collapse(start, end))
        return not failed

    def _set_memory_arm64(self, area: Area, first_page: int, pages: int, what: Permission) -> bool:
        set_bits, clear_bits = PERMISSIONS[what]
        start = area.start + (first_page << self.shift)
        end = start + (pages << self.shift)
        if area.allow_huge or area.kind != "vmalloc":
            why = "may be huge" if area.allow_huge else f"was made by {area.kind}"
            self.note("failure", f"set_memory: EINVAL, the area {why}", start, end)
            return False
        if self.direct.follows_permissions and what in ("ro", "rw", "rox"):
            for frame in area.frames[first_page : first_page + pages].tolist():
                if not self._splits(
                    self.direct.change(frame, 1, set_bits, clear_bits), "set_memory, linear map"
                ):
                    return False
                at = self.direct.address(frame)
                self.flush(at, at + (1 << self.shift), "set_memory, linear map")
        self.unmap_aliases()
        self.tables.change(start, pages, set_bits, clear_bits)
        self.flush(start, end, "set_memory")
        return True

    def _set_memory_powerpc(self, area: Area, start: int, pages: int, what: Permission) -> bool:
        set_bits, clear_bits = PERMISSIONS[what]
        end = start + (pages << self.shift)
        if area.shift > self.shift:
            self.note("failure", "set_memory: EINVAL, the area is huge", start, end)
            return False
        self.tables.change(start, pages, set_bits, clear_bits)
        for at in range(start, end, 1 << self.shift):
            self.flush(at, at + (1 << self.shift), "set_memory")
        return True

    def _set_memory_riscv(self, area: Area, first_page: int, pages: int, what: Permission) -> bool:
        set_bits, clear_bits = PERMISSIONS[what]
        done = True
        if self.release.follows("riscv-linear-map"):
            for frame in area.frames[first_page : first_page + pages].tolist():
                change = self.direct.change(frame, 1, set_bits, clear_bits)
                done = self._splits(change, "set_memory, linear map")
                if not done:
                    break
        start = area.start + (first_page << self.shift)
        if done:
            self.tables.change(start, pages, set_bits, clear_bits, cut=False)
        self.note("flush-all", "set_memory", start, start + (pages << self.shift))
        return done

    def set_direct(self, frame: int, pages: int, what: Permission) -> bool:
        """`set_memory_*` on direct-map addresses (x86): there is no alias; since 6.15 rox tries to merge."""
        start, end = self.direct.address(frame), self.direct.address(frame + pages)
        self.counts["attribute_calls"] += 1
        self.unmap_aliases()
        change = self.direct.change(frame, pages, *PERMISSIONS[what])
        self._splits(change, "set_memory, direct map")
        if change.changed and change.failed:
            self.note("flush-all", "set_memory", start, end)
        elif change.changed:
            self.flush(start, end, "set_memory")
        if change.changed and not change.failed and what == "rox" and self.release.follows("collapse"):
            self._merges(self.direct.collapse(frame, pages))
        return not change.failed

    def reset(self, area: Area, how: Reset) -> None:
        """`vm_reset_perms`: give the direct map of a freed area its default back; errors are ignored.

        All its pages are made invalid; one flush covers them and every lazily freed address; then they become
        present and writable.
        """
        order = area.shift - self.shift
        span = reset_span(
            self.direct, area.frames, order if self.release.follows("reset-scan-by-block") else 0
        )
        follows = self.direct.follows_permissions and (
            self.arch != "riscv" or self.release.follows("riscv-linear-map")
        )
        calls = reset_calls(area.frames, order, how) if follows else []
        for frame, pages in calls:
            self._reset_call(frame, pages, 0, PRESENT | WRITE)
        self.unmap_aliases(span.start, span.end)
        for frame, pages in calls:
            self._reset_call(frame, pages, PRESENT | WRITE, 0)
        self.counts.update(attribute_calls=2 * len(calls), reset_scan_steps=span.steps)

    def validate(self, area: Area) -> None:
        """`set_direct_map_valid_noflush` for each block of an area: present and writable, without a flush."""
        order = area.shift - self.shift
        calls = reset_calls(area.frames, order, "block")
        for frame, pages in calls:
            self._reset_call(frame, pages, PRESENT | WRITE, 0)
        self.counts["attribute_calls"] += len(calls)

    def _reset_call(self, frame: int, pages: int, set_bits: int, clear_bits: int) -> None:
        """One `set_direct_map_*` call; on riscv it goes the way of `set_memory_*`, with its full flush."""
        self._splits(self.direct.change(frame, pages, set_bits, clear_bits), "reset")
        if self.arch == "riscv":
            start = self.direct.address(frame)
            self.note("flush-all", "reset", start, start + (pages << self.shift))
