"""Where each area lies under a mapping and which leaves map it, and the page-table pages that takes.

The rules are those of ``docs/mappings.md``; they hold for whole areas, whatever the trace touches.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import Geometry
from pagewalk.linux.layout import Area, Layout
from pagewalk.linux.user import is_user

MAPPINGS = ("base", "pmd", "recorded")
"""Named mappings of a layout under the geometry it was recorded with."""


@dataclass(frozen=True)
class Placement:
    """Areas under one mapping; all arrays are parallel to ``Layout.areas``.

    Attributes
    ----------
    leaf : tuple of str
        Leaf size the mapping gives the area: base, contPTE, PMD; "" leaves it as recorded.
    start : ndarray of int64
        First page (address >> 12) under the mapping.
    moved : ndarray of int64
        `start` less the recorded first page.
    mapped_pages : ndarray of int64
        Pages (of 4 KiB) that are mapped, rounding included; 0 where the area was freed already.
    waste_bytes : ndarray of int64
        Bytes added by rounding the payload up to the leaf size.
    mapped_leaf : tuple of str
        Leaf size of those pages: `leaf`, else the recorded one, else base; "" where nothing is mapped.
    notes : tuple of str
    """

    leaf: tuple[str, ...]
    start: NDArray[np.int64]
    moved: NDArray[np.int64]
    mapped_pages: NDArray[np.int64]
    waste_bytes: NDArray[np.int64]
    mapped_leaf: tuple[str, ...]
    notes: tuple[str, ...] = ()


def is_eligible(layout: Layout, area: Area, leaf_bytes: int) -> bool:
    """Whether an area could be mapped with larger leaves, whatever a kernel release would decide.

    Plain vmalloc memory of at least one such leaf in the vmalloc space; no stack, no percpu chunk.
    """
    return (
        area.kind == "vmalloc"
        and layout.in_vmalloc_space(area)
        and not area.is_stack
        and not area.caller.startswith("pcpu_")
        and layout.payload_bytes(area) >= leaf_bytes
    )


def place(layout: Layout, name: str) -> Placement:
    """Place the areas under "base", "pmd" or "recorded" in the geometry of the recording.

    Raises
    ------
    BadInput
        Unknown name.
    """
    if name == "base":
        leaf = ["base" if layout.in_vmalloc_space(area) else "" for area in layout.areas]
        return _placed(layout, layout.geometry, leaf, [area.start for area in layout.areas])
    if name == "pmd":
        return _place_pmd(layout)
    if name == "recorded":
        return _placed(
            layout, layout.geometry, [""] * len(layout.areas), [area.start for area in layout.areas]
        )
    raise BadInput(f"mapping {name!r}", "no such mapping", f"one of {', '.join(MAPPINGS)}")


def _place_pmd(layout: Layout) -> Placement:
    """Eligible areas without PMD leaves move above the highest eligible area, a PMD apart."""
    pmd = 1 << layout.geometry.leaf("PMD").shift
    eligible = [is_eligible(layout, area, pmd) for area in layout.areas]
    highest = max((area.end for area, yes in zip(layout.areas, eligible, strict=True) if yes), default=0)
    free = _round_up(highest, pmd)
    start, taken = [], []
    for area, yes in zip(layout.areas, eligible, strict=True):
        if yes and area.leaf != "PMD":
            start.append(free)
            taken.append((free, free + layout.payload_bytes(area)))
            free += _round_up(layout.payload_bytes(area), pmd) + pmd
        else:
            start.append(area.start)
    hit = sum(
        any(low < area.end and area.start < high for low, high in taken)
        for area, yes in zip(layout.areas, eligible, strict=True)
        if not yes
    )
    notes: tuple[str, ...] = ()
    if taken:
        notes = (f"{len(taken)} areas moved to PMD boundaries above the highest eligible area",)
    if hit:
        notes += (f"{hit} areas that stay lie where moved ones went: this mapping's rule, not Linux's",)
    return _placed(layout, layout.geometry, ["PMD" if yes else "" for yes in eligible], start, notes)


def place_elsewhere(layout: Layout, name: str, geometry: Geometry) -> Placement:
    """Place the areas of a recording in the vmalloc space of another geometry.

    In ascending order of recorded start, each area goes to its recorded offset in the vmalloc space. Where
    its predecessors have taken that (larger base pages need more room), or the space ends before it, it goes
    to the first free boundary of its leaf above them. One base page of guard follows. Areas outside the
    vmalloc space stay.

    Parameters
    ----------
    layout : Layout
    name : str
        "base", "pmd" or "contpte": the leaf size of all areas that `is_eligible` allows it. (A kernel would
        prefer PMD leaves under "contpte" too, where an area is large enough; here one leaf size stands
        beside the other.)
    geometry : Geometry
        Of another architecture or mode.

    Raises
    ------
    BadInput
        The geometry has no such leaf, or its vmalloc space is too small.
    """
    names = {"base": "base", "pmd": "PMD", "contpte": "contPTE"}
    if name not in names:
        what = f"cannot be had for {geometry.name}, which was not recorded"
        raise BadInput(f"mapping {name!r}", what, f"one of {', '.join(names)}")
    large, base_bytes = geometry.leaf(names[name]), 1 << geometry.base_shift
    leaves, starts = [], []
    free = geometry.vmalloc_start
    for area in layout.areas:
        if not layout.in_vmalloc_space(area):
            leaves.append("base")
            starts.append(area.start)
            continue
        use = large if is_eligible(layout, area, 1 << large.shift) else geometry.leaves[0]
        offset = area.start - layout.geometry.vmalloc_start
        size = _round_up(layout.payload_bytes(area), 1 << use.shift) + base_bytes
        start = _round_up(max(geometry.vmalloc_start + offset, free), 1 << use.shift)
        if start + size > geometry.vmalloc_end:
            start = _round_up(free, 1 << use.shift)
        free = start + size
        leaves.append(use.name)
        starts.append(start)
    if free > geometry.vmalloc_end:
        room = geometry.vmalloc_end - geometry.vmalloc_start
        what = f"its vmalloc space of {room} bytes cannot hold the areas"
        raise BadInput(f"geometry {geometry.name}", what, "take a larger one")
    return _placed(layout, geometry, leaves, starts)


def _placed(
    layout: Layout, geometry: Geometry, leaf: list[str], start: list[int], notes: tuple[str, ...] = ()
) -> Placement:
    """Round each area's payload up to its leaf. What has no kind is lazily freed: nothing is mapped there.

    Of user memory nobody knows how much is mapped; what is touched counts page by page.
    """
    mapped_leaf, mapped_pages, waste = [], [], []
    for area, given in zip(layout.areas, leaf, strict=True):
        name = (given or area.leaf or "base") if area.kind and not is_user(area) else ""
        payload = layout.payload_bytes(area) if name else 0
        size = _round_up(payload, 1 << geometry.leaf(name).shift) if name else 0
        mapped_leaf.append(name)
        mapped_pages.append(size >> 12)
        waste.append(size - payload)
    first = np.array([address >> 12 for address in start], np.int64)
    recorded = np.array([area.start >> 12 for area in layout.areas], np.int64)
    return Placement(
        tuple(leaf),
        first,
        first - recorded,
        np.array(mapped_pages, np.int64),
        np.array(waste, np.int64),
        tuple(mapped_leaf),
        notes,
    )


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def table_bytes(
    geometry: Geometry, start: NDArray[np.int64], end: NDArray[np.int64], level: NDArray[np.int8]
) -> int:
    """Bytes of the distinct page-table pages, root excluded, that map ranges of pages.

    Parameters
    ----------
    geometry : Geometry
    start, end : ndarray of int64
        Page numbers (address >> 12), end exclusive and above start. Ranges may overlap.
    level : ndarray of int8
        Level of the table that holds each range's leaves.
    """
    total = 0
    for table in range(1, geometry.levels):
        shift = geometry.entry_shift(table + 1) - 12
        below = level <= table
        total += _distinct(start[below] >> shift, (end[below] - 1) >> shift) * geometry.table_bytes(table)
    return total


def _distinct(low: NDArray[np.int64], high: NDArray[np.int64]) -> int:
    """How many integers lie in at least one of the closed ranges."""
    if not len(low):
        return 0
    order = np.argsort(low, kind="stable")
    low, high = low[order], high[order]
    covered = np.append(low[0] - 1, np.maximum.accumulate(high)[:-1])
    return int(np.maximum(high - np.maximum(low - 1, covered), 0).sum())
