"""Replays of many machines at once: the same counts as each replay of its own, at a fraction of the price."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.engine import has_itlb, replay
from pagewalk.replay.result import Replay
from pagewalk.replay.tables import Tables, translate
from pagewalk.replay.tally import Tally, counts, cycles, leaves, stlb_coverage
from pagewalk.replay.together.gpu import Gpu, taken
from pagewalk.replay.together.shape import shape, shares
from pagewalk.replay.together.stacks import Stacks, passes
from pagewalk.replay.together.stages import Misses, Stages, joined
from pagewalk.trace.trace import FETCH, STORE, Chunk, Trace

TOGETHER = 1 << 16
"""Misses of the first level that are kept before they go on. Ours to choose."""

Progress = Callable[[int], None]
Positions = Callable[[NDArray[np.int64], NDArray[np.int64]], None]


class Counted(NamedTuple):
    """What a replay counted: the fields of that name of `pagewalk.replay.result.Replay`."""

    counts: dict[str, int]
    cycles: dict[str, int]
    memory: dict[str, int]


def together(
    trace: Trace,
    mapping: Mapping,
    machines: Sequence[Machine],
    *,
    fetches: bool | None = None,
    cache_mode: str = "walks-only",
    share: bool = True,
    gpu: Gpu | None = None,
    progress: Progress | None = None,
) -> list[Counted]:
    """Replay a trace over one mapping on many machines.

    Parameters
    ----------
    trace : Trace
    mapping : Mapping
    machines : sequence of Machine
        Those of one shape (`pagewalk.replay.together.shape.shape`) share translation and first level, and
        every stage behind it that is the same.
    fetches, cache_mode
        As of `pagewalk.replay.engine.replay`. Nothing is shared in the full mode, nor of a trace with events.
    share : bool
        Whether anything is shared. Does not change any count.
    gpu : Gpu, optional
        Replays the second levels of plain LRU machines that are shared. Does not change any count.
    progress : callable, optional
        Called with the number of records done since the last call, of `trace.accesses` for each machine.

    Returns
    -------
    list of Counted
        One for each machine.
    """
    alike: dict[object, list[int]] = {}
    for number, machine in enumerate(machines):
        key = shape(machine, fetches) if share and shares(trace, machine, cache_mode) else number
        alike.setdefault(key, []).append(number)
    found: dict[int, Counted] = {}
    advance = progress or _no_progress
    for group in alike.values():
        some = [machines[number] for number in group]

        if len(some) == 1:
            one = _replay(trace, mapping, some[0], fetches, cache_mode, advance)
            answers = [Counted(one.counts, one.cycles, one.memory)]
        else:
            answers = _share(trace, mapping, some, fetches, gpu, advance)
        found.update(zip(group, answers, strict=True))
    return [found[number] for number in range(len(machines))]


def _times(advance: Progress, machines: int, records: int) -> None:
    advance(machines * records)


def _no_progress(records: int) -> None:
    """Nobody asked."""


def _replay(
    trace: Trace,
    mapping: Mapping,
    machine: Machine,
    fetches: bool | None,
    mode: str,
    advance: Progress,
    on_misses: Positions | None = None,
) -> Replay:
    done = 0

    def since(records: int) -> None:
        nonlocal done
        advance(records - done)
        done = records

    return replay(
        trace, mapping, machine, fetches=fetches, cache_mode=mode, progress=since, on_misses=on_misses
    )


def _share(
    trace: Trace,
    mapping: Mapping,
    machines: list[Machine],
    fetches: bool | None,
    gpu: Gpu | None,
    advance: Progress,
) -> list[Counted]:
    """Replay machines of one shape."""
    fetches = has_itlb(machines[0]) if fetches is None else fetches
    tables, bare, sizes = translate(mapping, machines[0], trace.spaces), _bare(mapping), leaves(mapping)
    found: dict[int, Counted] = {}

    def put(number: int, tally: Tally, spent: int) -> None:
        machine = machines[number]
        names = tuple(cache.name for cache in sorted(machine.psc, key=lambda cache: cache.level))
        memory = {**mapping.memory, **stlb_coverage(machine, sizes)}
        found[number] = Counted(counts(tally, names), cycles(tally, spent), memory)

    together, others = passes(trace, tables, machines, fetches, gpu)
    for group in together:
        with taken(gpu):
            stacks = Stacks(trace, mapping, tables, [machines[number] for number in group], gpu)
            stacks.through(partial(_times, advance, len(group)))
        for position, number in enumerate(group):
            tally = Tally(machines[number], bare, 1)
            put(number, tally, stacks.tell(position, tally))
    if others:
        first, behind = others[0], others[1:]
        stages = Stages(trace, mapping, [machines[number] for number in behind], tables)
        missed: list[NDArray[np.int64]] = []
        watched = replace(trace, read=_watched(trace, tables, fetches, missed, stages.feed))
        leader = _replay(
            watched,
            mapping,
            machines[first],
            fetches,
            "walks-only",
            partial(_times, advance, len(others)),
            lambda at, _: missed.append(at.astype(np.int64)),
        )
        found[first] = Counted(leader.counts, leader.cycles, leader.memory)
        for number, leaf in zip(behind, stages.leaves, strict=True):
            tally = Tally(machines[number], bare, 1)
            for count in ("accesses", "fetches", "l1_dtlb_misses", "l1_itlb_misses"):
                setattr(tally, count, leader.counts[count])
            put(number, tally, leaf.tell(tally))
    return [found[number] for number in range(len(machines))]


def _bare(mapping: Mapping) -> Mapping:
    """The mapping without pages, for counts that are not told apart by page."""
    return replace(mapping, page=mapping.page[:0])


def _watched(
    trace: Trace,
    tables: Tables,
    fetches: bool,
    missed: list[NDArray[np.int64]],
    feed: Callable[[Misses], None],
) -> Callable[[frozenset[str], int], Iterator[Chunk]]:
    """Read the trace for a replay; when it has passed a chunk, hand on what missed in the first level.

    `missed` gets the positions of those misses, among the replayed accesses, before the next chunk is read.
    """

    def read(columns: frozenset[str], size: int) -> Iterator[Chunk]:
        accesses = held = 0
        parts: list[Misses] = []
        for chunk in trace.read(columns, size):
            yield chunk
            at = np.concatenate([np.zeros(0, np.int64), *missed])
            missed.clear()
            record = at - accesses
            if fetches or chunk.flags is None:
                accesses += len(chunk.page)
            else:
                kept = np.flatnonzero((chunk.flags & FETCH) == 0)
                accesses, record = accesses + len(kept), kept[record]
            parts.append(_misses(chunk, record, at, tables))
            held += len(at)
            if held >= TOGETHER:
                feed(joined(parts))
                parts, held = [], 0
        if held:
            feed(joined(parts))

    return read


def _misses(chunk: Chunk, record: NDArray[np.int64], at: NDArray[np.int64], tables: Tables) -> Misses:
    """The misses of some records of a chunk, at positions `at` of the replay."""
    none = np.zeros(len(record), np.uint8)
    flags = none if chunk.flags is None else chunk.flags[record]
    return Misses(
        tables.unit_of_page[chunk.page[record]],
        np.where(flags & FETCH, 2, (flags & STORE) != 0).astype(np.int64),
        (none if chunk.cpu is None else chunk.cpu[record]).astype(np.int64),
        at,
    )
