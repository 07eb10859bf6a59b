"""A modelled kernel as a layout, so that a trace can be replayed over what it mapped."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.layout import LEAF_RUN, Area, Layout, check_areas, check_runs
from pagewalk.linux.memory.kernel import Kernel
from pagewalk.linux.memory.page_tables import CONTIGUOUS, NO_EXEC, PRESENT, WRITE, PageTables


def layout_of(kernel: Kernel) -> Layout:
    """What a kernel has mapped now: its areas, and all leaves of areas and of the direct map.

    It has page tables, so the mapping ``recorded`` of a trace is this kernel's own; frames, and what is
    contiguous among them, come along.
    """
    areas = []
    for area in kernel.areas.values():
        pages = dict.fromkeys(kernel.memory.nodes, 0)
        for zone in kernel.memory.zones:
            pages[zone.node] += int(((area.frames >= zone.start) & (area.frames < zone.end)).sum())
        leaf = next(leaf.name for leaf in kernel.geometry.leaves if leaf.shift == area.shift)
        areas.append(
            Area(
                area.start,
                area.start + area.span_bytes,
                area.span_bytes,
                area.caller,
                kind=area.kind,
                leaf=leaf,
                pages=len(area.frames),
                nodes=tuple((node, count) for node, count in pages.items() if count),
            )
        )
    runs = np.concatenate([_runs(tables) for tables in (kernel.maps.tables, kernel.maps.direct.tables)])
    where = f"the modelled kernel {kernel.rules.release.name}"
    return Layout(
        kernel.geometry,
        check_areas(areas, kernel.geometry, where),
        check_runs(runs, kernel.geometry, where),
        np.zeros(0, LEAF_RUN),
        notes=(f"areas and page tables of a modelled kernel {kernel.rules.release.name}",),
    )


def _runs(tables: PageTables) -> NDArray[np.void]:
    """Present leaves, neighbours of equal size and permissions joined if their frames are neighbours too."""
    parts = [np.zeros(0, LEAF_RUN)]
    canonical = tables.geometry.vmalloc_start >> tables.shift[-1] << tables.shift[-1]
    sizes = {leaf.shift for leaf in tables.geometry.leaves}
    for (level, key), table in tables.tables.items():
        shift = tables.shift[level]
        together = shift + tables.contiguous.get(level, 0)
        mapped = (table.target >= 0) & (table.bits & PRESENT > 0)
        grouped = mapped & (table.bits & CONTIGUOUS > 0) & (together in sizes)
        start = np.uint64(canonical + (key << tables.shift[level + 1]))
        for entries, size in ((mapped & ~grouped, shift), (grouped, together)):
            index = np.flatnonzero(entries)[:: 1 << (size - shift)]
            part = np.zeros(len(index), LEAF_RUN)
            part["va"] = start + (index.astype(np.uint64) << np.uint64(shift))
            part["pa"] = table.target[index].astype(np.uint64) << np.uint64(tables.base)
            part["count"], part["shift"], part["global"] = 1, size, 1
            part["writable"] = table.bits[index] & WRITE > 0
            part["exec"] = table.bits[index] & NO_EXEC == 0
            parts.append(part)
    leaves = np.concatenate(parts)
    return _joined(leaves[np.argsort(leaves["va"])])


def _joined(leaves: NDArray[np.void]) -> NDArray[np.void]:
    """Make runs of single leaves that are ascending by address."""
    if not len(leaves):
        return leaves
    size = np.uint64(1) << leaves["shift"].astype(np.uint64)
    same = np.ones(len(leaves) - 1, bool)
    for column in ("shift", "writable", "exec"):
        same &= leaves[column][1:] == leaves[column][:-1]
    for column in ("va", "pa"):
        same &= leaves[column][1:] == leaves[column][:-1] + size[:-1]
    first = np.flatnonzero(np.r_[True, ~same])
    runs = leaves[first].copy()
    runs["count"] = np.diff(np.r_[first, len(leaves)])
    return runs
