"""A mapping: for every distinct base page of a trace, where it lies and which leaf maps it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.geometry import Geometry


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
        vmalloc, stack, percpu, ioremap, vmap, direct map, kernel image, vmemmap, modules, other.
    size_bytes : int
        Payload, without the guard page; 0 where the range is unbounded.
    leaf : str
        Leaf size under this mapping: base, contPTE, PMD, PUD, mixed.
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
        Virtual page number (address >> 12, whatever the base page) under this mapping; an area may have moved.
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
