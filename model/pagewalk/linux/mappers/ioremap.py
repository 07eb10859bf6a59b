"""ioremap: registers and memory of devices, by the largest leaves that both addresses allow.

Source: Linux 7.3 mm/vmalloc.c `vmap_range_noflush`, `__get_vm_area_node`, see the reference's section 3.3;
that memory of the machine is refused, and that ends are rounded to pages, from memory of mm/ioremap.c.
"""

from itertools import groupby

import numpy as np

from pagewalk.errors import BadInput
from pagewalk.linux.layout import PHYSICAL_BITS
from pagewalk.linux.memory.areas import Area
from pagewalk.linux.memory.kernel import Event, Kernel, happen
from pagewalk.linux.memory.page_tables import PAGE_KERNEL, OutOfTables
from pagewalk.linux.rules.eligibility import ioremap_align, ioremap_limit, leaves, round_up


class Ioremap(Event, frozen=True, tag="ioremap"):
    """Map `size` bytes of a device from physical address `physical` on."""

    name: str
    physical: int
    size: int
    caller: str = ""
    cpu: int = 0


class Iounmap(Event, frozen=True, tag="iounmap"):
    """Unmap what `Ioremap` of that name mapped."""

    name: str


@happen.register
def _ioremap(event: Ioremap, kernel: Kernel) -> None:
    if event.name in kernel.areas:
        raise BadInput(f"ioremap {event.name!r}", "exists already", "unmap it first, or use another name")
    physical = event.physical & -kernel.page_bytes
    end = round_up(event.physical + event.size, kernel.page_bytes)
    if event.physical < 0 or event.size <= 0 or end > 1 << PHYSICAL_BITS:
        what = f"{event.size} bytes at {event.physical:#x} are no range of physical addresses"
        raise BadInput(f"ioremap {event.name!r}", what, f"stay below 2^{PHYSICAL_BITS}")
    if any(low < end and physical < high for low, high in kernel.ranges):
        raise BadInput(
            f"ioremap {event.name!r}", "this is the machine's own memory", "name a device's addresses"
        )
    size = end - physical
    span, align = size + kernel.page_bytes, ioremap_align(size, kernel.rules.arch)
    start = kernel.maps.space.allocate(span, align, cpu=event.cpu)
    if start is None:
        kernel.note("failure", "no addresses")
        return
    shifts = leaves(start, physical, size, ioremap_limit(kernel.rules), kernel.rules)
    at = start
    try:
        for shift, run in groupby(shifts):
            count, first = len(list(run)), physical + (at - start) >> kernel.shift
            if shift == kernel.shift:
                kernel.maps.tables.map_pages(at, np.arange(first, first + count), PAGE_KERNEL)
                at += count << shift
                continue
            for _ in range(count):
                frame = physical + (at - start) >> kernel.shift
                if kernel.maps.tables.map_leaf(at, frame, shift, PAGE_KERNEL):
                    kernel.maps.flush(at, at + kernel.page_bytes, "table freed")
                at += 1 << shift
    except OutOfTables:
        kernel.give_up(start, size)
        return
    kernel.areas[event.name] = Area(
        event.name,
        event.caller or event.name,
        start,
        asked_bytes=event.size,
        size_bytes=size,
        span_bytes=span,
        shift=max(shifts),
        kind="ioremap",
    )


@happen.register
def _iounmap(event: Iounmap, kernel: Kernel) -> None:
    kernel.unmap(event.name, "ioremap", "iounmap")
