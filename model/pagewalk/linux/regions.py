"""Whose page it is: which area it lies in, or which other named range."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.layout import Layout

_HALF = 1 << 63
OUTSIDE = "vmalloc space outside areas"
"""Vmalloc addresses of which a layout knows no more."""

_X86_TOP = (
    ("cpu_entry_area", 0xFFFF_FE00_0000_0000, 0xFFFF_FE80_0000_0000),
    ("kernel image", 0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000),
    ("modules", 0xFFFF_FFFF_C000_0000, 0xFFFF_FFFF_FF00_0000),
    ("fixmap", 0xFFFF_FFFF_FF00_0000, 0xFFFF_FFFF_FFFF_F000),
)

RANGES: dict[str, tuple[tuple[str, int, int], ...]] = {
    "x86-64": (
        ("user", 0, _HALF),
        ("direct map", 0xFFFF_8880_0000_0000, 0xFFFF_C880_0000_0000),
        (OUTSIDE, 0xFFFF_C900_0000_0000, 0xFFFF_E900_0000_0000),
        ("vmemmap", 0xFFFF_EA00_0000_0000, 0xFFFF_EB00_0000_0000),
        *_X86_TOP,
    ),
    "x86-64-5level": (
        ("user", 0, _HALF),
        ("direct map", 0xFF11_0000_0000_0000, 0xFF91_0000_0000_0000),
        (OUTSIDE, 0xFFA0_0000_0000_0000, 0xFFD2_0000_0000_0000),
        ("vmemmap", 0xFFD4_0000_0000_0000, 0xFFD6_0000_0000_0000),
        *_X86_TOP,
    ),
}
"""Geometry -> (name, start, end) of its ranges, ascending and disjoint; end exclusive.

Source: Linux Documentation/arch/x86/x86_64/mm.rst, without KASLR. The border between kernel image and modules
is that of CONFIG_RANDOMIZE_BASE=y (KERNEL_IMAGE_SIZE 1 GiB), which distributions use and our traces show.
"""

OTHER = "other"


def name_ranges(page: NDArray[np.int64], geometry_name: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Which named range each page lies in.

    Parameters
    ----------
    page : ndarray of int64
        address >> 12.
    geometry_name : str
        Where we keep no table for a geometry, there are only "user" (the lower half) and "other".

    Returns
    -------
    number : ndarray of int32
        Index into the names.
    names : tuple of str
        The last one is "other".
    """
    ranges = RANGES.get(geometry_name, (("user", 0, _HALF),))
    start = np.array([low >> 12 for _, low, _ in ranges], np.int64)
    end = np.array([high >> 12 for _, _, high in ranges], np.int64)
    number = np.searchsorted(start, page, "right") - 1
    number = np.where(page < end[number], number, len(ranges))
    return number.astype(np.int32), (*(name for name, _, _ in ranges), OTHER)


def owners(layout: Layout, page: NDArray[np.int64]) -> NDArray[np.int32]:
    """The area that holds each recorded page (address >> 12).

    Where areas of different times overlap, the one that was there at the beginning.

    Returns
    -------
    ndarray of int32
        Index into ``layout.areas``; -1 outside of all.
    """
    owner = np.full(len(page), -1, np.int32)
    for at_begin in (False, True):
        index = np.array([i for i, area in enumerate(layout.areas) if area.at_begin is at_begin], np.int32)
        if not len(index):
            continue
        start = np.array([layout.areas[i].start >> 12 for i in index], np.int64)
        end = np.array([layout.areas[i].end >> 12 for i in index], np.int64)
        near = np.maximum(np.searchsorted(start, page, "right") - 1, 0)
        inside = (start[near] <= page) & (page < end[near])
        owner[inside] = index[near[inside]]
    return owner


def named(layout: Layout | None, page: NDArray[np.int64]) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """The names under which people look for a page: its named range, and the caller of its area.

    Parameters
    ----------
    layout : Layout or None
        Of the traced kernel. Without one, addresses are named as those of x86-64 with four levels.
    page : ndarray of int64
        address >> 12.

    Returns
    -------
    name, caller : ndarray of object (str), shape (pages,)
        Kernel stacks stand apart from "other vmalloc areas" where a layout says which they are. The caller is
        "" outside of all areas and where it is unknown.
    """
    number, names = name_ranges(page, layout.geometry.name if layout else "x86-64")
    name = np.array(names, object)[number]
    if layout is None:
        name[name == OUTSIDE] = "vmalloc space"
        return name, np.full(len(page), "", object)
    owner = owners(layout, page)
    name[np.array([area.is_stack for area in layout.areas] + [False])[owner]] = "kernel stacks"
    name[(owner >= 0) & (name == OUTSIDE)] = "other vmalloc areas"
    return name, np.array([area.caller for area in layout.areas] + [""], object)[owner]
