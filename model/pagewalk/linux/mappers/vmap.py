"""vmap: pages that somebody has already, once more at neighbouring addresses, always by base leaves.

Source: Linux 7.3 mm/vmalloc.c `vmap`, see the reference's sections 3.2 and 3.3.
"""

from pagewalk.errors import BadInput
from pagewalk.linux.memory.areas import Area
from pagewalk.linux.memory.kernel import Event, Kernel, happen
from pagewalk.linux.memory.page_tables import PAGE_KERNEL, OutOfTables
from pagewalk.linux.memory.pages import Pages


class Vmap(Event, frozen=True, tag="vmap"):
    """Map pages (of a `TakePages` or `Kvmalloc`) at an address of their own; by default all of them."""

    name: str
    pages: str
    first_page: int = 0
    count: int | None = None
    caller: str = ""
    cpu: int = 0


class Vunmap(Event, frozen=True, tag="vunmap"):
    """Unmap what `Vmap` of that name mapped; the pages stay with their owner."""

    name: str


@happen.register
def _vmap(event: Vmap, kernel: Kernel) -> None:
    blocks = kernel.part(Pages).blocks
    if event.pages not in blocks:
        raise BadInput(f"vmap {event.name!r}", f"there are no pages {event.pages!r}", "take them first")
    if event.name in kernel.areas or event.name in blocks:
        raise BadInput(f"vmap {event.name!r}", "exists already", "unmap it first, or use another name")
    frames, last = blocks[event.pages].frames, event.first_page + (event.count or 0)
    if not 0 <= event.first_page <= last <= len(frames) or event.first_page == len(frames):
        raise BadInput(f"vmap {event.name!r}", f"there are {len(frames)} pages", "map pages among them")
    frames = frames[event.first_page : len(frames) if event.count is None else last]
    size = len(frames) * kernel.page_bytes
    start = (
        kernel.maps.space.allocate(size + kernel.page_bytes, kernel.page_bytes, cpu=event.cpu)
        if size
        else None
    )
    if start is None:
        kernel.note("failure", "no addresses" if size else "vmap of no pages is refused")
        return
    try:
        kernel.maps.tables.map_pages(start, frames, PAGE_KERNEL)
    except OutOfTables:
        kernel.give_up(start, size)
        return
    kernel.areas[event.name] = Area(
        event.name,
        event.caller or event.name,
        start,
        asked_bytes=size,
        size_bytes=size,
        span_bytes=size + kernel.page_bytes,
        shift=kernel.shift,
        frames=frames,
        kind="vmap",
    )


@happen.register
def _vunmap(event: Vunmap, kernel: Kernel) -> None:
    kernel.unmap(event.name, "vmap", "vunmap")
