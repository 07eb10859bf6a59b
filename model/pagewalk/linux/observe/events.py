"""``vmalloc:*`` trace events, as perf script and trace-cmd print them: areas with real addresses.

Format: Linux include/trace/events/vmalloc.h, see the reference's section 7.2.
"""

import re
from bisect import bisect_left, insort
from dataclasses import dataclass
from pathlib import Path

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import Geometry
from pagewalk.linux.layout import Area, Layout, check_areas, no_runs
from pagewalk.linux.observe.lines import read_lines


@dataclass(frozen=True)
class Alloc:
    """Addresses were given to an area.

    Attributes
    ----------
    time : float
        Seconds since boot.
    start, size_bytes, align_bytes : int
        The size includes the guard page. A try for huge leaves shows their size as its alignment.
    failed : bool
        No room: an attempt with base pages follows.
    """

    time: float
    start: int
    size_bytes: int
    align_bytes: int
    failed: bool


@dataclass(frozen=True)
class Free:
    """An area was freed; its addresses wait for the next purge.

    Attributes
    ----------
    time : float
    start : int
    lazy_pages, lazy_max_pages : int
        Base pages that wait, and the number above which they are purged.
    """

    time: float
    start: int
    lazy_pages: int
    lazy_max_pages: int


@dataclass(frozen=True)
class Purge:
    """Freed addresses were flushed from all TLBs and may be used again.

    Attributes
    ----------
    time : float
    start, end : int
        The range that was flushed: from the lowest to the highest freed address.
    areas : int
        How many areas.
    """

    time: float
    start: int
    end: int
    areas: int


Event = Alloc | Free | Purge

_EVENT = re.compile(
    r"(?<![\d.])([0-9]{1,9}\.[0-9]{1,9}):\s+(?:vmalloc:)?"
    r"(alloc_vmap_area|free_vmap_area_noflush|purge_vmap_area_lazy):\s*(.*)"
)
_NUMBER = r"(0x[0-9a-f]{1,16}|[0-9]{1,20})"
_FIELDS = {
    "alloc_vmap_area": ("va_start", "size", "align", "failed"),
    "free_vmap_area_noflush": ("va_start", "nr_lazy", "nr_lazy_max"),
    "purge_vmap_area_lazy": ("start", "end", "num_purged"),
}


def read_events(path: Path) -> list[Event]:
    """Read the vmalloc events of a text trace; other events are passed over.

    Raises
    ------
    BadInput
        The file cannot be read, has no such event, or one lacks a field.
    """
    events = []
    for number, line in read_lines(path):
        match = _EVENT.search(line)
        if match:
            events.append(_event(float(match[1]), match[2], match[3], f"{path}: line {number}"))
    if not events:
        mend = "record some: perf record -e 'vmalloc:*' -a, then perf script > FILE"
        raise BadInput(path, "no vmalloc events in it", mend)
    return events


def _event(time: float, name: str, text: str, place: str) -> Event:
    values = []
    for field in _FIELDS[name]:
        match = re.search(rf"(?<![a-z_]){field}[:=]\s*{_NUMBER}(?![0-9a-z])", text)
        if not match or int(match[1], 0 if match[1].startswith("0x") else 10) >> 64:
            raise BadInput(place, f"{name} without {field}", "print the events with their own format")
        values.append(int(match[1], 0 if match[1].startswith("0x") else 10))
    if name == "alloc_vmap_area":
        return Alloc(time, values[0], values[1], values[2], bool(values[3]))
    if name == "free_vmap_area_noflush":
        return Free(time, *values)
    return Purge(time, *values)


def to_layout(events: list[Event], geometry: Geometry, where: str) -> Layout:
    """The areas that live at the end of the events, as a layout to replay a trace over.

    Events name no callers. An area whose alignment and payload are whole PMDs is taken as mapped by PMD
    leaves; one of 16 KiB and a guard page, aligned to 16 KiB, as a thread's stack (x86-64). Where an area
    takes addresses of an older one, that one's free was lost, and it is dropped.

    Raises
    ------
    BadInput
        No area is left, or one is impossible.
    """
    pmd, base = 1 << geometry.leaf("PMD").shift, 1 << geometry.base_shift
    alive: list[tuple[int, int, int]] = []
    for event in events:
        if isinstance(event, Free):
            at = bisect_left(alive, (event.start,))
            if at < len(alive) and alive[at][0] == event.start:
                del alive[at]
        elif isinstance(event, Alloc) and not event.failed:
            end = event.start + event.size_bytes
            at = bisect_left(alive, (event.start,))
            first = at - 1 if at and alive[at - 1][1] > event.start else at
            last = bisect_left(alive, (end,))
            del alive[first : max(first, last)]
            insort(alive, (event.start, end, event.align_bytes))
    if not alive:
        raise BadInput(where, "no area is alive at the end of the events", "record for longer")
    areas = [
        Area(
            start,
            end,
            end - start,
            kind="vmalloc",
            leaf="PMD" if align % pmd == 0 < align and (end - start - base) % pmd == 0 else "base",
            is_stack=(end - start - base, align) == (16384, 16384),
        )
        for start, end, align in alive
    ]
    note = "areas are those allocated while events were recorded, and alive at the end; callers are not known"
    return Layout(
        geometry, check_areas(areas, geometry, where), no_runs(), no_runs(), has_tables=False, notes=(note,)
    )
