"""Small machines, mappings and traces: written down, and drawn by hypothesis."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pagewalk.hardware.machine import Cache, Machine, Memory, Psc, Tlb
from pagewalk.linux.geometry import Geometry, Leaf
from pagewalk.linux.mapping import Mapping, Region
from pagewalk.trace.trace import EVENT

X86 = Geometry(
    "x86-64",
    (9, 9, 9, 9),
    (Leaf("base", 12, 1), Leaf("PMD", 21, 2), Leaf("PUD", 30, 3, vmalloc=False)),
    0xFFFF_C900_0000_0000,
    0xFFFF_E900_0000_0000,
)
VMALLOC = X86.vmalloc_start >> 12
"""Page number of the first vmalloc page on x86-64."""

ALL_KINDS = ["load", "store", "fetch"]


def tlb(level: int, entries: int, ways: int = 0, **more: Any) -> Tlb:
    """A TLB array that serves every kind unless told otherwise."""
    more = {"name": f"L{level} {entries}", "serves": ALL_KINDS, **more}
    return Tlb(level=level, entries=entries, ways=ways, **more)  # type: ignore[arg-type]


def machine(*parts: Tlb | Psc | Cache, memory: int = 100, **more: Any) -> Machine:
    """A machine of these parts."""
    return Machine(
        schema="pagewalk.machine/1",
        name="test",
        tlb=[part for part in parts if isinstance(part, Tlb)],
        psc=[part for part in parts if isinstance(part, Psc)],
        cache=[part for part in parts if isinstance(part, Cache)],
        memory=Memory(latency_cycles=memory),
        **more,
    )


def textbook_setassoc() -> Machine:
    """The machine of design.md section 6, from its words."""
    return machine(
        tlb(1, 64, 4),
        tlb(2, 1536, 12),
        Psc(name="PDE cache", level=2, entries=32, ways=4),
        Psc(name="PDPTE cache", level=3, entries=4),
        Psc(name="PML4E cache", level=4, entries=2),
    )


def textbook_fullassoc() -> Machine:
    """The machine of design.md section 6, from its words."""
    return machine(tlb(1, 64), tlb(2, 2048, 8))


def mapping(
    page: Sequence[int],
    leaf_shift: int | Sequence[int] = 12,
    *,
    contiguous: int | Sequence[int] | None = None,
    frame: Sequence[int] | None = None,
    geometry: Geometry = X86,
) -> Mapping:
    """A mapping of these page numbers; frames count up from 1 unless given."""
    leaf = np.broadcast_to(np.asarray(leaf_shift, np.uint8), len(page)).copy()
    wide = leaf if contiguous is None else np.broadcast_to(np.asarray(contiguous, np.uint8), len(page)).copy()
    return Mapping(
        "test",
        geometry,
        np.asarray(page, np.int64),
        leaf,
        np.arange(1, len(page) + 1, dtype=np.int64) if frame is None else np.asarray(frame, np.int64),
        np.maximum(wide, leaf),
        np.zeros(len(page), np.int32),
        (Region("all"),),
    )


def event(position: int, kind: int, *, cpu: int = -1, space: int = 0, start: int = 0, end: int = 0) -> Any:
    """One event, as a row of EVENT."""
    return np.array([(position, kind, cpu, space, start, end)], EVENT)
