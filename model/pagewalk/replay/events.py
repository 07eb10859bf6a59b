"""Flushes, context switches and unmappings: what they drop from TLBs and paging-structure caches."""

import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.machine import Machine
from pagewalk.replay.paths.state import State
from pagewalk.replay.tables import Tables
from pagewalk.trace.trace import FLUSH_LOCAL, FLUSH_RANGE, RUNNING, SWITCH, UNMAP


def _drop(table: object, sets: int, cpu: int, marked: NDArray[np.bool_]) -> int:
    from pagewalk.kernels.general.tlb import flush_sets

    return int(flush_sets(table, cpu * sets, (cpu + 1) * sets, marked)) if len(marked) else 0


def happen(
    event: np.void, state: State, tables: Tables, machine: Machine, base_shift: int, counts: dict[str, int]
) -> int:
    """Apply one event to the state; return the cycles that it costs on all its CPUs.

    Rules (Intel SDM volume 3, 4.10.4, as summarised in docs/model.md): dropping an address range also drops
    the whole paging-structure cache; a switch drops what is not global unless address-space slots keep it.
    A range of more base pages than the ceiling is a full flush, as Linux does it (x86: arch/x86/mm/tlb.c).
    A space that is found running takes a slot; it counts as no switch, and without slots drops nothing.
    """
    kind = int(event["kind"])
    spaces = kind in (SWITCH, RUNNING)
    start, end = int(event["start"]), int(event["end"])
    first, last = start >> 12, (end + 0xFFF) >> 12
    pages = -(-end >> base_shift) - (start >> base_shift)
    cost = machine.flush
    ranged = kind in (FLUSH_RANGE, UNMAP) and (cost is None or pages <= cost.ceiling_pages)
    cycles = 0
    for cpu in range(len(state.resident)) if event["cpu"] < 0 else (int(event["cpu"]),):
        gone: list[int] | None = []
        if kind == SWITCH or (kind == RUNNING and machine.spaces.slots):
            gone = _switch(state.resident, cpu, int(event["space"]), machine.spaces.slots)
        for level, table in ((state.first, tables.first), (state.second, tables.second)):
            if ranged:
                marked = (table.tag_start < last) & (table.tag_end > first)
            else:
                marked = _of_spaces(kind, table.tag_space, gone)
            counts["entries_flushed"] += _drop(level.table, level.sets, cpu, marked)
        _drop(state.tables.psc, state.tables.psc_sets, cpu, _of_spaces(kind, tables.psc.tag_space, gone))
        if cost is not None and not spaces:
            cycles += pages * cost.page_cycles if ranged else cost.full_cycles
    state.last[:] = -1
    if kind != RUNNING:
        counts["context_switches" if kind == SWITCH else "flushes"] += 1
    return cycles


def _of_spaces(kind: int, space: NDArray[np.int64], gone: list[int] | None) -> NDArray[np.bool_]:
    """Which entries go with their address space; `gone` None is every space that is not global."""
    if kind in (SWITCH, RUNNING) and gone is not None:
        return np.isin(space, np.array(gone, np.int64))
    return np.full(len(space), True) if kind not in (FLUSH_LOCAL, SWITCH) else np.not_equal(space, 0)


def _switch(resident: list[list[int]], cpu: int, space: int, slots: int) -> list[int] | None:
    """Make `space` the CPU's current one; return the spaces whose entries must go, None for all.

    A switch to space 0, a kernel thread, borrows the tables of the one before and drops nothing.
    """
    if space == 0:
        return []
    if slots == 0:
        return None
    kept = [space, *(other for other in resident[cpu] if other != space)]
    resident[cpu] = kept[:slots]
    return kept[slots:]
