"""A running kernel's memory: vmalloc, vfree, vrealloc, and the events that call them.

Source: Linux 6.12 and 7.3 mm/vmalloc.c, see the reference's sections 3.1 to 3.6.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any, Literal, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.linux.memory.areas import Area, Kind, Span
from pagewalk.linux.memory.buddy import UNMOVABLE, Memory, gather
from pagewalk.linux.memory.direct_map import Reset
from pagewalk.linux.memory.maps import Happening, Maps, Permission
from pagewalk.linux.memory.page_tables import NO_EXEC, PAGE_KERNEL, PRESENT, WRITE, OutOfTables
from pagewalk.linux.rules.eligibility import Attempt, Request, decide
from pagewalk.linux.rules.eligibility import Kernel as Rules

Part = TypeVar("Part")

POINTER_BYTES = 8
"""An entry of an area's page array."""

PROTECTIONS = {
    "PAGE_KERNEL_EXEC": PRESENT | WRITE,
    "PAGE_KERNEL_ROX": PRESENT,
    "PAGE_KERNEL_RO": PRESENT | NO_EXEC,
}
"""Bits of a page protection; all others here are PAGE_KERNEL's."""


class Kernel:
    """A kernel, its memory, and what has happened.

    Parameters
    ----------
    rules : pagewalk.linux.rules.eligibility.Kernel
        Release, architecture, nodes, boot parameters.
    memory : Memory
    ranges : sequence of (int, int)
        Physical byte ranges that the direct map maps.
    cpus : int
    reset : "page", "block" or "range"
        How the direct map of a freed area is reset; "page" is what all releases do.
    linear_leaves : "blocks" or "pages", optional
        Leaves of the direct map. Pages: x86 with debug_pagealloc, arm64 with rodata=full on CPUs that cannot
        change a leaf's size in place. None: pages on arm64 with rodata=full before 6.18, where no CPU was
        trusted to; else blocks (from 6.18 on arm64 that is ours: it depends on the CPUs).
    rodata_full : bool
        arm64: permissions are mirrored to the linear map (the default there).
    tlb_range : bool
        arm64: the CPUs flush ranges in one operation.

    Attributes
    ----------
    maps : Maps
        What is mapped, and the log of what happened.
    areas : dict of str to Area
    counts : Counter
        Of happenings, and of: attribute_calls, compact_stalls (no block of a large order was free where the
        kernel would now compact memory; it fails here), huge_fallbacks, left_read_only and left_absent
        (frames freed with a wrong direct map), purges, reset_scan_steps, table_pages_taken.
    booting : bool
        Memory for any node is interleaved until the event `Booted`.
    """

    def __init__(
        self,
        rules: Rules,
        memory: Memory,
        ranges: Sequence[tuple[int, int]],
        *,
        cpus: int = 1,
        reset: Reset = "page",
        linear_leaves: Literal["blocks", "pages"] | None = None,
        rodata_full: bool = True,
        tlb_range: bool = False,
    ) -> None:
        self.rules, self.memory, self.how_to_reset, self.cpus = rules, memory, reset, cpus
        self.ranges = tuple(ranges)
        if linear_leaves is None:
            arm64 = rules.arch.name.startswith("arm64")
            fixed = arm64 and rodata_full and not rules.release.follows("leaves-in-place")
            linear_leaves = "pages" if fixed else "blocks"
        self.maps = Maps(
            rules,
            ranges,
            self._take_table,
            lambda page: memory.give([page]),
            cpus=cpus,
            linear_leaves=linear_leaves,
            rodata_full=rodata_full,
            tlb_range=tlb_range,
        )
        self.counts, self.note = self.maps.counts, self.maps.note
        self.geometry, self.shift = self.maps.geometry, self.maps.shift
        self.page_bytes = 1 << self.shift
        self.areas: dict[str, Area] = {}
        self.booting = True
        self._permissions_changed: set[str] = set()
        self._parts: dict[type, Any] = {}

    def part(self, kind: type[Part]) -> Part:
        """The state that one user of the kernel's memory keeps; made when first asked for."""
        if kind not in self._parts:
            self._parts[kind] = kind()
        part: Part = self._parts[kind]
        return part

    def _take_table(self) -> int | None:
        page = self.memory.take(0, UNMOVABLE)
        self.counts["table_pages_taken"] += page is not None
        return page

    def _nodes(self, node: int | None) -> Iterator[int]:
        """The node to ask for each block: as given; while booting, all in turn; else the first."""
        interleaves = node is None and self.booting and not self.rules.release.follows("local-node")
        while True:
            yield self.memory.next_node() if interleaves else self.memory.nodes[0] if node is None else node

    def vmalloc(
        self,
        name: str,
        request: Request,
        caller: str = "",
        *,
        within: Span | None = None,
        cpu: int = 0,
        reset: bool = False,
    ) -> Area | None:
        """Allocate an area, as large as the release's rules allow, else with base pages.

        Parameters
        ----------
        name : str
            To refer to it later.
        request : Request
        caller : str
        within : Span, optional
            Default: the vmalloc space.
        cpu : int
        reset : bool
            VM_FLUSH_RESET_PERMS.

        Returns
        -------
        Area or None
            None if the kernel refuses, or has no memory or addresses; the log says which.
        """
        if name in self.areas:
            raise BadInput(f"area {name!r}", "exists already", "free it first, or use another name")
        wanted = Area(
            name, caller, asked_bytes=request.size_bytes, reset=reset, allow_huge=request.allow_huge
        )
        decision = decide(request, self.rules)
        if not decision.attempts:
            self.note("failure", decision.why)
        for attempt in decision.attempts:
            area = self._try(wanted, request, attempt, within, cpu)
            if area is not None:
                self.areas[name] = area
                return area
            if attempt.shift > self.shift:
                self.counts["huge_fallbacks"] += 1
                if self.rules.release.follows("double-free-in-fallback"):
                    self.note("failure", "BUG: the failed huge attempt frees its area twice")
                    return None
        return None

    def _try(
        self, area: Area, request: Request, attempt: Attempt, within: Span | None, cpu: int
    ) -> Area | None:
        start = self.maps.space.allocate(attempt.span_bytes, attempt.align_bytes, within, cpu)
        if start is None:
            self.note("failure", "no addresses")
            return None
        pages, order = attempt.area_bytes // self.page_bytes, attempt.shift - self.shift
        large = self.rules.release.follows("large-orders-first")
        array, array_bytes = None, pages * POINTER_BYTES
        if array_bytes > self.page_bytes:
            array = self.vmalloc(
                f"{area.name}.pages", Request(array_bytes, node=request.node), area.caller, cpu=cpu
            )
        frames = None
        if array or array_bytes <= self.page_bytes:
            frames = gather(self.memory, pages, order, self._nodes(request.node), large=large)
            self.counts["compact_stalls"] += frames is None and order > 0
        if frames is None or not self._map(start, frames, attempt.shift, request.protection):
            self.note(
                "failure",
                f"no memory in blocks of {1 << attempt.shift >> 10} KiB",
                start,
                start + attempt.area_bytes,
            )
            self.maps.space.free(start)
            self.memory.give([] if frames is None else frames.tolist())
            if array:
                self.vfree(array.name)
            return None
        return replace(
            area,
            start=start,
            size_bytes=attempt.area_bytes,
            span_bytes=attempt.span_bytes,
            shift=attempt.shift,
            frames=frames,
            array=array.name if array else "",
        )

    def _map(self, start: int, frames: NDArray[np.int64], shift: int, protection: str) -> bool:
        """Map an area block by block; False if there is no page for a table."""
        bits = PROTECTIONS.get(protection, PAGE_KERNEL)
        try:
            if shift == self.shift:
                self.maps.tables.map_pages(start, frames, bits)
                return True
            step = 1 << (shift - self.shift)
            for at, frame in zip(itertools.count(start, 1 << shift), frames[::step].tolist(), strict=False):
                if self.maps.tables.map_leaf(at, frame, shift, bits):
                    self.maps.flush(at, at + self.page_bytes, "table freed")
        except OutOfTables:
            self.maps.tables.unmap(start, start + len(frames) * self.page_bytes)
            return False
        return True

    def vfree(self, name: str) -> None:
        """Free an area: unmap it, keep its addresses for a purge, reset the direct map, free its frames."""
        area = self.unmap(name, "vmalloc", "vfree")
        if area.reset:
            self.maps.reset(area, self.how_to_reset)
        if name in self._permissions_changed:
            self._permissions_changed.remove(name)
            read_only, absent = self.maps.direct.wrong(area.frames)
            self.counts.update(left_read_only=read_only, left_absent=absent)
        self.memory.give(area.frames.tolist())
        if area.array:
            self.vfree(area.array)

    def unmap(self, name: str, kind: Kind, why: str) -> Area:
        """Take an area of that kind out of the page tables; its addresses wait for a purge.

        Raises
        ------
        BadInput
            There is no such area, or it is of another kind.
        """
        area = self.area(name)
        if area.kind != kind:
            raise BadInput(f"area {name!r}", f"was made by {area.kind}", f"{why} is for {kind}")
        del self.areas[name]
        self.maps.tables.unmap(area.start, area.end)
        self.note("unmap", why, area.start, area.end)
        self.maps.space.free(area.start)
        return area

    def give_up(self, start: int, size: int) -> None:
        """Undo a mapping that found no page for a table."""
        self.maps.tables.unmap(start, start + size)
        self.maps.space.free(start)
        self.note("failure", "no page for a table", start, start + size)

    def vrealloc(self, name: str, size_bytes: int) -> Area | None:
        """Resize an area (7.3): in place while its memory lasts, else copy it to a new one with base pages.

        A huge area that shrinks keeps all its memory; one with base pages gives back what it no longer needs.
        """
        area, base = self.area(name), self.shift
        if area.kind != "vmalloc":
            raise BadInput(f"area {name!r}", f"was made by {area.kind}", "vrealloc is for vmalloc")
        pages = -(-size_bytes // self.page_bytes)
        if pages > len(area.frames):
            bigger = self.vmalloc(f"{name}.new", Request(size_bytes), area.caller)
            if bigger is None:
                return None
            self.vfree(name)
            self.areas[name] = replace(self.areas.pop(bigger.name), name=name)
        else:
            kept = area.frames
            if area.shift == base and pages < len(kept):
                self.maps.tables.unmap(area.start + (pages << base), area.end)
                self.note("unmap", "vrealloc", area.start + (pages << base), area.end)
                self.memory.give(kept[pages:].tolist())
                kept = kept[:pages]
            size = len(kept) << base
            self.areas[name] = replace(area, asked_bytes=size_bytes, size_bytes=size, frames=kept)
        return self.areas[name]

    def set_memory(
        self,
        name: str,
        what: Permission,
        first_page: int = 0,
        pages: int | None = None,
        *,
        array: bool = False,
    ) -> bool:
        """`set_memory_*` on base pages of an area (`Maps.set_memory`)."""
        area = self.area(name)
        self._permissions_changed.add(name)
        return self.maps.set_memory(area, what, first_page, pages, array=array)

    def area(self, name: str) -> Area:
        """The area of that name; BadInput if there is none."""
        if name not in self.areas:
            raise BadInput(f"area {name!r}", "there is no such area", "allocate it first")
        return self.areas[name]

    def vmalloc_used(self) -> int:
        """VmallocUsed of ``/proc/meminfo`` in kB: memory of all areas, rounding included, guards not."""
        own = (area for area in self.areas.values() if area.kind == "vmalloc")
        return sum(len(area.frames) for area in own) * self.page_bytes >> 10

    def apply(self, event: object) -> list[Happening]:
        """Do what an event says; returns what it caused."""
        before = len(self.maps.log)
        happen(event, self)
        return self.maps.log[before:]


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="event"):
    """Something that happens to a kernel's memory; in TOML, a table whose `event` names the kind."""


class Booted(Event, frozen=True, tag="booted"):
    """The boot is over: memory comes from the local node, and splits count in ``/proc/vmstat``."""


class Vmalloc(Event, frozen=True, tag="vmalloc"):
    """Allocate an area; `Request` and `Kernel.vmalloc` explain the fields."""

    name: str
    size: int
    align: int = 1
    node: int | None = None
    huge: bool = False
    no_huge: bool = False
    protection: str = "PAGE_KERNEL"
    caller: str = ""
    modules: bool = False
    reset: bool = False
    cpu: int = 0


class Vfree(Event, frozen=True, tag="vfree"):
    """Free an area."""

    name: str


class Vrealloc(Event, frozen=True, tag="vrealloc"):
    """Resize an area."""

    name: str
    size: int


class SetMemory(Event, frozen=True, tag="set_memory"):
    """Change permissions of an area's base pages; by default of all from `first_page` on.

    `array`: they are named one by one (x86: `set_memory_array_*`, `set_pages_array_*`).
    """

    name: str
    what: Permission
    first_page: int = 0
    pages: int | None = None
    array: bool = False


class UnmapAliases(Event, frozen=True, tag="unmap_aliases"):
    """vm_unmap_aliases: purge now."""


@singledispatch
def happen(event: object, kernel: Kernel) -> None:
    """Do what an event says. Each user of memory adds its own kinds."""
    raise BadInput(type(event).__name__, "no kernel knows this event", "see docs/memory.md for the events")


@happen.register
def _booted(event: Booted, kernel: Kernel) -> None:
    kernel.booting, kernel.maps.direct.running = False, True


@happen.register
def _vmalloc(event: Vmalloc, kernel: Kernel) -> None:
    request = Request(
        event.size,
        event.align,
        event.node,
        allow_huge=event.huge,
        no_huge=event.no_huge,
        protection=event.protection,
    )
    within = kernel.maps.space.modules if event.modules else None
    kernel.vmalloc(event.name, request, event.caller, within=within, cpu=event.cpu, reset=event.reset)


@happen.register
def _vfree(event: Vfree, kernel: Kernel) -> None:
    kernel.vfree(event.name)


@happen.register
def _vrealloc(event: Vrealloc, kernel: Kernel) -> None:
    kernel.vrealloc(event.name, event.size)


@happen.register
def _set_memory(event: SetMemory, kernel: Kernel) -> None:
    kernel.set_memory(event.name, event.what, event.first_page, event.pages, array=event.array)


@happen.register
def _unmap_aliases(event: UnmapAliases, kernel: Kernel) -> None:
    kernel.maps.unmap_aliases()
