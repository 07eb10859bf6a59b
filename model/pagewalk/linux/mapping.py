"""A mapping: for every distinct base page of a trace, where it lies and which leaf maps it.

The named mappings and their rules: ``docs/mappings.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.linux.frames import recorded, scattered_frames
from pagewalk.linux.geometry import GEOMETRIES, Geometry
from pagewalk.linux.layout import Area, Layout
from pagewalk.linux.placement import Placement, place, place_elsewhere, table_bytes
from pagewalk.linux.regions import name_ranges, owners
from pagewalk.linux.user import is_user, user_shifts

CHOSEN = (
    "frames that no recording tells are chosen by pagewalk: scattered, one block for each leaf, "
    "so nothing is physically contiguous beyond a leaf"
)
ELSEWHERE = (
    "areas lie in this geometry's vmalloc space; all else keeps its recorded virtual address, "
    "in the largest leaf that is not larger than the recorded one"
)


@dataclass(frozen=True)
class Region:
    """A named range that accesses are counted for.

    Attributes
    ----------
    name : str
        E.g. ``vmalloc 0xffffc90000200000`` or ``direct map``.
    caller : str
        Who allocated it (``alloc_large_system_hash``), or "" where nobody did.
    kind : str
        Of areas: vmalloc, stack, percpu, ioremap, vmap, user, dma-coherent; modules for all outside the
        vmalloc space; freed for those that wait for a purge; anonymous or file for user memory. Of other
        ranges: their name.
    size_bytes : int
        Payload, without the guard page; 0 where the range is unbounded.
    leaf : str
        Leaf size under this mapping: base, contPTE, PMD, PUD, mixed; "" where nothing is mapped.
    waste_bytes : int
        Bytes added by rounding to the leaf size under this mapping.
    """

    name: str
    caller: str = ""
    kind: str = "other"
    size_bytes: int = 0
    leaf: str = "base"
    waste_bytes: int = 0


@dataclass(frozen=True)
class Mapping:
    """For every distinct base page of a trace: where it lies, its leaf, its frame, its region.

    All arrays are parallel to ``Trace.pages``.

    Attributes
    ----------
    name : str
        base, pmd, recorded, or the name of what made it.
    geometry : Geometry
    page : ndarray of int64
        Virtual page number (address >> 12, whatever the base page) under this mapping; areas may have moved.
    leaf_shift : ndarray of uint8
        log2 of the leaf's size in bytes.
    frame : ndarray of int64
        Physical page number (physical address >> 12).
    contiguous_shift : ndarray of uint8
        log2 of the largest naturally aligned block of virtual addresses around the page that is mapped to
        an equally aligned block of frames with equal attributes; never below `leaf_shift`.
    region : ndarray of int32
        Index into `regions`.
    regions : tuple of Region
    memory : dict
        Bytes: "page_tables", "rounding_waste".
    notes : tuple of str
        What was assumed on the way, for people.
    """

    name: str
    geometry: Geometry
    page: NDArray[np.int64]
    leaf_shift: NDArray[np.uint8]
    frame: NDArray[np.int64]
    contiguous_shift: NDArray[np.uint8]
    region: NDArray[np.int32]
    regions: tuple[Region, ...]
    memory: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def map_trace(
    pages: NDArray[np.uint64],
    layout: Layout | None,
    name: str,
    page_shift: int = 12,
    *,
    geometry: Geometry | None = None,
    spaces: NDArray[np.uint16] | None = None,
) -> Mapping:
    """Map the distinct pages of a trace.

    The rules stand in ``docs/mappings.md``.

    Parameters
    ----------
    pages : ndarray of uint64
        Distinct page numbers, address >> `page_shift`, of whole 64-bit addresses.
    layout : Layout or None
        None: the whole address range of the pages counts as one vmalloc area.
    name : str
        "base", "pmd", "recorded"; "contpte" for a geometry that has contiguous PTEs.
    page_shift : int
        log2 of the trace's base page in bytes.
    geometry : Geometry, optional
        Default: that of the layout, x86-64 without one. Of another one "recorded" cannot be had.
    spaces : ndarray of uint16, optional
        Address space of each page.

    Returns
    -------
    Mapping

    Raises
    ------
    BadInput
        Unknown name; a mapping that this layout or geometry cannot have; pages beyond 64 bits of address.
    """
    if not 12 <= page_shift <= 30 or (len(pages) and int(pages.max()) >> (64 - page_shift)):
        raise BadInput("trace pages", f"no page numbers of {1 << page_shift} byte pages", "check the trace")
    page = (pages << np.uint64(page_shift - 12)).astype(np.int64)
    geometry = geometry or (layout.geometry if layout else GEOMETRIES["x86-64"])
    if page_shift > geometry.base_shift:
        raise BadInput(
            f"geometry {geometry.name}",
            f"base pages of {1 << geometry.base_shift} bytes; the trace knows only {1 << page_shift}",
            "take a geometry with pages as large",
        )
    if layout is None:
        return _map_one_area(page, name, geometry, spaces)
    return _map_layout(page, layout, name, geometry, spaces)


def _map_one_area(
    page: NDArray[np.int64], name: str, geometry: Geometry, spaces: NDArray[np.uint16] | None
) -> Mapping:
    """All addresses from the first to the last page are one vmalloc area that stays where it is."""
    leaves = {"base": "base", "pmd": "PMD", "contpte": "contPTE"}
    if name not in leaves:
        mend = "record one (docs/mappings.md)" if name == "recorded" else f"one of {', '.join(leaves)}"
        raise BadInput(f"mapping {name!r}", "the trace has no layout that tells it", mend)
    leaf = geometry.leaf(leaves[name])
    leaf_shift = np.full(len(page), leaf.shift, np.uint8)
    frame = scattered_frames(page, leaf_shift, geometry, spaces)
    notes: tuple[str, ...] = ("no layout: the trace's whole address range counts as one vmalloc area", CHOSEN)
    if not len(page):
        region = Region("vmalloc", kind="vmalloc", leaf=leaf.name)
        return Mapping(
            name, geometry, page, leaf_shift, frame, leaf_shift, page.astype(np.int32), (region,),
            {"page_tables": 0, "rounding_waste": 0}, notes,
        )  # fmt: skip
    order = leaf.shift - 12
    start, end = int(page.min()), int(page.max()) + (1 << (geometry.base_shift - 12))
    size_bytes = (end - start) << 12
    waste = -size_bytes % (1 << leaf.shift)
    region = Region(f"vmalloc {start << 12:#x}", "", "vmalloc", size_bytes, leaf.name, waste)
    tables = table_bytes(
        geometry,
        np.array([start >> order << order]),
        np.array([-(-end >> order) << order]),
        np.array([leaf.level], np.int8),
    )
    notes += (f"page_tables is for all of its {size_bytes} bytes, whether the trace touches them or not",)
    return Mapping(
        name,
        geometry,
        page,
        leaf_shift,
        frame,
        leaf_shift,
        np.zeros(len(page), np.int32),
        (region,),
        {"page_tables": tables, "rounding_waste": waste},
        notes,
    )


def _map_layout(
    recorded_page: NDArray[np.int64],
    layout: Layout,
    name: str,
    geometry: Geometry,
    spaces: NDArray[np.uint16] | None,
) -> Mapping:
    at_home = geometry == layout.geometry
    placement = place(layout, name) if at_home else place_elsewhere(layout, name, geometry)
    was = recorded(layout, recorded_page)
    owner = owners(layout, recorded_page)
    owned = owner >= 0

    page = recorded_page.copy()
    page[owned] += placement.moved[owner[owned]]
    if not layout.has_tables:
        leaves = _shifts([area.leaf or "base" for area in layout.areas], layout.geometry)
        was = was._replace(shift=np.where(owned, leaves[owner], was.shift))
    given = _shifts(placement.leaf, geometry)[owner]
    leaf_shift = np.where(given > 0, given, _largest_leaf(geometry, was.shift))
    if name == "base":
        first, last = layout.geometry.vmalloc_start >> 12, layout.geometry.vmalloc_end >> 12
        leaf_shift[(first <= recorded_page) & (recorded_page < last)] = geometry.base_shift

    user = user_shifts(layout, name, geometry, owner, recorded_page)
    leaf_shift = np.where(user > 0, user, leaf_shift)

    keeps_frame = was.framed & (leaf_shift == was.shift)
    if not at_home:
        keeps_frame |= was.framed & ~owned & (was.contiguous_shift >= leaf_shift)
    frame = np.where(keeps_frame, was.frame, scattered_frames(page, leaf_shift, geometry, spaces))
    stays = keeps_frame & (page == recorded_page)
    contiguous_shift = np.where(stays, np.maximum(was.contiguous_shift, leaf_shift), leaf_shift)

    region, regions = _regions(layout, placement, owner, recorded_page, leaf_shift, geometry)
    notes = layout.notes + placement.notes
    if not keeps_frame.all():
        notes += (CHOSEN,)
    if not at_home:
        notes += (ELSEWHERE,)
    return Mapping(
        name,
        geometry,
        page,
        leaf_shift,
        frame,
        contiguous_shift,
        region,
        regions,
        {
            "page_tables": _page_tables(geometry, placement, owner, page, leaf_shift),
            "rounding_waste": int(placement.waste_bytes.sum()),
        },
        notes,
    )


def _shifts(leaves: Sequence[str], geometry: Geometry) -> NDArray[np.uint8]:
    """Shift of each area's leaf, 0 for ""; and at the end, where owner -1 picks it, another 0."""
    return np.array([geometry.leaf(leaf).shift if leaf else 0 for leaf in leaves] + [0], np.uint8)


def _largest_leaf(geometry: Geometry, shift: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest leaf size not above each shift; at least the base page."""
    sizes = np.array([leaf.shift for leaf in geometry.leaves], np.uint8)
    return sizes[np.maximum(np.searchsorted(sizes, shift, "right") - 1, 0)]


def _regions(
    layout: Layout,
    placement: Placement,
    owner: NDArray[np.int32],
    recorded_page: NDArray[np.int64],
    leaf_shift: NDArray[np.uint8],
    geometry: Geometry,
) -> tuple[NDArray[np.int32], tuple[Region, ...]]:
    """One region for each area, and one for each named range that holds other pages."""

    def leaf_of(mine: NDArray[np.bool_]) -> str:
        sizes = [leaf.name for leaf in geometry.leaves if (leaf_shift[mine] == leaf.shift).any()]
        return sizes[0] if len(sizes) == 1 else "mixed"

    regions = []
    for number, area in enumerate(layout.areas):
        if is_user(area):
            mine = owner == number
            leaf = leaf_of(mine) if mine.any() else ""
            size = layout.payload_bytes(area)
            regions.append(Region(f"user {area.start:#x}", area.caller, area.kind, size, leaf))
            continue
        in_space = layout.in_vmalloc_space(area)
        regions.append(
            Region(
                f"{'vmalloc' if in_space else 'modules'} {area.start:#x}",
                area.caller,
                area_kind(area) if in_space else "modules",
                layout.payload_bytes(area),
                placement.mapped_leaf[number],
                int(placement.waste_bytes[number]),
            )
        )
    region = owner.copy()
    ranges, names = name_ranges(recorded_page, layout.geometry.name)
    for number, name in enumerate(names):
        mine = (owner < 0) & (ranges == number)
        if mine.any():
            region[mine] = len(regions)
            regions.append(Region(name, kind=name, leaf=leaf_of(mine)))
    return region, tuple(regions)


def area_kind(area: Area) -> str:
    """What an area is for: as the kernel names it, stacks and percpu chunks told apart."""
    if area.is_stack:
        return "stack"
    if area.caller.startswith("pcpu_"):
        return "percpu"
    return area.kind or "freed"


def _page_tables(
    geometry: Geometry,
    placement: Placement,
    owner: NDArray[np.int32],
    page: NDArray[np.int64],
    leaf_shift: NDArray[np.uint8],
) -> int:
    """Bytes of page-table pages that map all areas in full, and the pages outside of them."""
    mapped = placement.mapped_pages > 0
    area_level = [
        geometry.leaf(leaf).level for leaf, yes in zip(placement.mapped_leaf, mapped, strict=True) if yes
    ]
    in_full = np.append(mapped, False)[owner]
    lone = page[~in_full]
    start = np.concatenate([placement.start[mapped], lone])
    end = np.concatenate([placement.start[mapped] + placement.mapped_pages[mapped], lone + 1])
    level = np.concatenate([np.array(area_level, np.int8), geometry.leaf_level(leaf_shift[~in_full])])
    return table_bytes(geometry, start, end, level)
