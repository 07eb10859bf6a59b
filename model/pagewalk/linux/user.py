"""User memory under the named mappings: anonymous memory is what transparent huge pages can map.

Areas in the lower half of the address space are a process's own, as its memory map shows them; they stay
where they are and have no guard page.
"""

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.geometry import Geometry
from pagewalk.linux.layout import Area, Layout

HALF = 1 << 63

LARGE = {"pmd": "PMD", "contpte": "contPTE"}
"""Mapping -> the leaf that it gives to as much anonymous memory as it can."""


def is_user(area: Area) -> bool:
    """Whether an area lies in the lower half."""
    return area.start < HALF


def user_shifts(
    layout: Layout, name: str, geometry: Geometry, owner: NDArray[np.int32], page: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Leaf size of pages in user areas under a mapping.

    "base": base leaves. "pmd", "contpte": in anonymous areas every naturally aligned block of a large leaf
    that lies within the area (Linux 6.12 include/linux/huge_mm.h, thp_vma_suitable_order) has that leaf, as
    if every such fault had found a huge page; all else base leaves. "recorded": as recorded.

    Parameters
    ----------
    layout : Layout
    name : str
        Of the mapping.
    geometry : Geometry
    owner : ndarray of int32
        Index of each page's area; -1 for none.
    page : ndarray of int64
        address >> 12.

    Returns
    -------
    ndarray of uint8
        log2 of the leaf's size; 0 for pages in no user area.
    """
    shift = np.zeros(len(page), np.uint8)
    recorded = {leaf.name: leaf.shift for leaf in geometry.leaves}
    large = geometry.leaf(LARGE[name]).shift if name in LARGE else 0
    for number, area in enumerate(layout.areas):
        if not is_user(area):
            continue
        mine = np.flatnonzero(owner == number)
        shift[mine] = (
            recorded.get(area.leaf, geometry.base_shift) if name == "recorded" else geometry.base_shift
        )
        if large and area.kind == "anonymous":
            start = page[mine] >> (large - 12) << large
            inside = (start >= area.start) & (start + (1 << large) <= area.end)
            shift[mine[inside]] = large
    return shift
