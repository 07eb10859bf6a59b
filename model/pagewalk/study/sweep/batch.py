"""Cells that share work are replayed together, in batches of which each is one task of a worker."""

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

from pagewalk.errors import BadInput
from pagewalk.hardware.load import load
from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.together.gpu import Gpu
from pagewalk.replay.together.shape import figures, levels, shape
from pagewalk.replay.together.stacks import plain
from pagewalk.replay.together.together import together
from pagewalk.study.replays import Subject, subject
from pagewalk.study.sweep.grid import Cell, changed

Row = dict[str, Any]

MOST_CELLS = 256
"""Of a batch: what a worker that dies has done in vain. Ours to choose."""
MOST_QUICK = 1 << 12
"""The same of plain LRU machines, which are quick together. Ours to choose."""
MOST_ON_GPU = 1 << 14
"""The same where a GPU replays them, which is the faster the more there are. Ours to choose."""
MOST_BYTES = 1 << 28
"""That the data caches of a batch may take. Ours to choose."""
BYTES_PER_LINE = 16
"""That a line of a modelled data cache takes, at most: its tag, and its part of what the set remembers."""


def batches(cells: Sequence[Cell], workers: int, gpu: bool = False) -> Iterator[list[Cell]]:
    """Cut cells into batches.

    Parameters
    ----------
    cells : sequence of Cell
    workers : int
        That batches are for; cells that share work are cut into as many batches at least.
    gpu : bool
        Whether a GPU replays what it can; its cells stay together.
    """
    alike: dict[tuple[Any, ...], list[tuple[tuple[bytes, list[int]], Cell, int]]] = {}
    for cell in cells:
        key, order, size, quick = b"", (b"", [0]), 0, False
        try:
            machine = _machine(cell)
        except BadInput:
            pass
        else:
            key, size = shape(machine), _cache_bytes(machine)
            sets = [array.entries // (array.ways or array.entries) for array in levels(machine)[1]]
            order, quick = (figures(*machine.psc), sets), plain(machine)
        group_of = cell.trace, cell.mapping, cell.cache_mode, key, quick
        alike.setdefault(group_of, []).append((order, cell, size))
    for (*_, quick), group in alike.items():
        group.sort(key=lambda found: found[0])
        most = min(MOST_QUICK if quick else MOST_CELLS, -(-len(group) // workers))
        if quick and gpu:
            most = MOST_ON_GPU
        batch: list[Cell] = []
        taken = 0
        for _, cell, size in group:
            if batch and (len(batch) == most or taken + size > MOST_BYTES):
                yield batch
                batch, taken = [], 0
            batch.append(cell)
            taken += size
        yield batch


def _cache_bytes(machine: Machine) -> int:
    return sum(BYTES_PER_LINE * cache.size_bytes // cache.line_bytes for cache in machine.cache)


_OPENING = Lock()
"""So that two threads do not number one trace's pages at the same time, each for itself."""


@lru_cache(maxsize=64)
def _described(name: str, sha256: str) -> Machine:
    """The machine that a cell means; a worker on another host may find another under its name."""
    machine = load(name)
    if machine.sha256 != sha256:
        raise BadInput(name, "is not the description that the sweep began with", "start the sweep again")
    return machine


def _machine(cell: Cell) -> Machine:
    return changed(_described(cell.machine, cell.machine_sha256), cell.changes)


@lru_cache(maxsize=4)
def _subject(trace: str) -> Subject:
    return subject(trace)


@lru_cache(maxsize=8)
def _mapping(trace: str, mapping: str, geometry_of: str) -> Mapping:
    return _subject(trace).mapped(mapping, load(geometry_of))


def run_batch(batch: Sequence[Cell], share: bool = True, gpu: Gpu | None = None) -> list[Row]:
    """Replay the cells of a batch; their rows. A machine that cannot be is a row with an error.

    Parameters
    ----------
    batch : sequence of Cell
        Of one trace, mapping and cache mode.
    share : bool
        Whether what cells have in common is replayed once. Changes nothing but `replay_seconds`.
    gpu : Gpu, optional
        Replays what it can. Changes nothing else either.
    """
    rows = [_begun(cell) for cell in batch]
    machines: dict[int, Machine] = {}
    for number, cell in enumerate(batch):
        try:
            machines[number] = _machine(cell)
        except BadInput as error:
            rows[number]["error"] = str(error)
    if machines:
        first = batch[next(iter(machines))]
        with _OPENING:
            mapping = _mapping(first.trace, first.mapping, first.machine)
            trace = _subject(first.trace).trace
        began = time.perf_counter()
        wanted, mode = list(machines.values()), first.cache_mode
        found = together(trace, mapping, wanted, cache_mode=mode, share=share, gpu=gpu)
        seconds = round((time.perf_counter() - began) / len(found), 6)
        for number, counted in zip(machines, found, strict=True):
            rows[number] |= counted.counts
            rows[number] |= {f"{name}_cycles": value for name, value in counted.cycles.items()}
            rows[number] |= {f"{name}_bytes": value for name, value in counted.memory.items()}
            rows[number]["replay_seconds"] = seconds
    return rows


def _begun(cell: Cell) -> Row:
    row: Row = {"cell": cell.key, "trace": cell.trace, "machine": cell.machine}
    return row | {"mapping": cell.mapping, "cache_mode": cell.cache_mode, **cell.changes}
