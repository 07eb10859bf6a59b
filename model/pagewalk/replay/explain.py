"""One access of a replay, step by step: TLB entries, walk caches, table entries read, cycles."""

from dataclasses import dataclass

import numpy as np

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.engine import Run, has_itlb, part
from pagewalk.replay.paths.state import MAX_READS
from pagewalk.replay.tables import KINDS
from pagewalk.replay.tally import LEVEL_NAMES
from pagewalk.trace.trace import FETCH, STORE, Chunk, Trace


@dataclass(frozen=True)
class Step:
    """One look-up or read.

    Attributes
    ----------
    what : str
        Name of the TLB array, walk cache or table level.
    where : str
        The set, or the physical address of the entry, and for a read where it was found.
    outcome : str
        hit, miss, or read.
    cycles : int
        That it adds to the access.
    """

    what: str
    where: str
    outcome: str
    cycles: int = 0


@dataclass(frozen=True)
class Explanation:
    """What happened to one access.

    Attributes
    ----------
    position, record : int
        Number of the access among the replayed ones, and among the trace's records; from 0.
    address : int
        As the mapping has it, whole 64 bits; the offset is 0 where the trace has none.
    kind : str
        load, store, fetch.
    cpu : int
    region, leaf : str
    leaf_bytes : int
    steps : tuple of Step
    """

    position: int
    record: int
    address: int
    kind: str
    cpu: int
    region: str
    leaf_bytes: int
    steps: tuple[Step, ...]

    @property
    def cycles(self) -> int:
        """Cycles that translation adds."""
        return sum(step.cycles for step in self.steps)


def explain(
    trace: Trace, mapping: Mapping, machine: Machine, access: int, *, fetches: bool | None = None
) -> Explanation:
    """Replay up to one access, and look at that one.

    Parameters
    ----------
    trace, mapping, machine, fetches
        As of `pagewalk.replay.engine.replay`, walks only.
    access : int
        Number among the replayed accesses, from 0.

    Raises
    ------
    BadInput
        The replay has no such access.
    """
    fetches = has_itlb(machine) if fetches is None else fetches
    run = Run(trace, mapping, machine, fetches, "walks-only", 1 << 20, fast=False)
    for piece in run.pieces("offset"):
        if isinstance(piece, np.void):
            run.happen(piece)
            continue
        replayed = np.ones(len(piece.page), bool)
        if piece.flags is not None and not fetches:
            replayed = (piece.flags & FETCH) == 0
        wanted = access - run.tally.accesses
        if 0 <= wanted < np.count_nonzero(replayed):
            record = int(np.flatnonzero(replayed)[wanted])
            run.chunk(part(piece, 0, record), None)
            return _look(run, part(piece, record, record + 1), access)
        run.chunk(piece, None)
    raise BadInput(f"--access {access}", f"the replay has {run.tally.accesses} accesses", "count from 0")


def _look(run: Run, chunk: Chunk, access: int) -> Explanation:
    mapping, machine, tables = run.mapping, run.machine, run.tables
    page = int(chunk.page[0])
    flags = 0 if chunk.flags is None else int(chunk.flags[0])
    kind = 2 if flags & FETCH else (flags & STORE) >> 3
    cpu = 0 if chunk.cpu is None else int(chunk.cpu[0])
    offset = 0 if chunk.offset is None else int(chunk.offset[0])
    steps = []
    unit = int(tables.unit_of_page[page])
    for level, table, state in ((1, tables.first, run.state.first), (2, tables.second, run.state.second)):
        arrays = [a for a in machine.tlb if a.level == level]
        s, tag = int(table.set_of[kind, unit]), int(table.tag_of[kind, unit])
        if s < 0:
            continue
        sets = np.cumsum([a.entries // (a.ways or a.entries) for a in arrays])
        array = arrays[int(np.searchsorted(sets, s, side="right"))]
        hit = _holds(state.table, s + cpu * state.sets, tag)
        cycles = int(table.cycles[s]) if level == 2 and hit else 0
        steps.append(Step(array.name, f"set {int(table.number[s])}", "hit" if hit else "miss", cycles))
        if hit:
            break
    else:
        steps += _walk(run, unit, cpu)
    return Explanation(
        position=access,
        record=chunk.start,
        address=(int(mapping.page[page]) << 12) + offset,
        kind=KINDS[kind],
        cpu=cpu,
        region=mapping.regions[int(mapping.region[page])].name,
        leaf_bytes=1 << int(mapping.leaf_shift[page]),
        steps=tuple(steps),
    )


def _holds(table: np.ndarray, s: int, tag: int) -> bool:
    from pagewalk.kernels.general.assoc import TAGS, WAYS

    return bool((table[s, TAGS : TAGS + table[s, WAYS]] == tag).any())


def _walk(run: Run, unit: int, cpu: int) -> list[Step]:
    """Probe the walk caches as the walker will, then let it walk, one read at a time."""
    from pagewalk.kernels.general.caches import read_walks
    from pagewalk.kernels.general.walk import walk

    state, tally, machine, psc = run.state, run.tally, run.machine, run.tables.psc
    steps = []
    for p in range(int(psc.first[unit]), len(psc.names)):
        s = int(psc.set_of[p, unit])
        hit = _holds(state.tables.psc, s + cpu * state.tables.psc_sets, int(psc.tag_of[p, unit]))
        steps.append(Step(psc.names[p], f"set {int(psc.number[s])}", "hit" if hit else "miss"))
        if hit:
            break
    address, level = np.empty(MAX_READS, np.int64), np.empty(MAX_READS, np.int8)
    on_cpu, ends = np.full(1, cpu, np.int64), np.empty(1, np.int64)
    units = np.full(1, unit, np.int32)
    reads = walk(units, on_cpu, state.tables, state.host, ends, address, level, tally.psc_hits, tally.by_refs)
    if machine.walker.start_cycles:
        steps.append(Step("walker", "start", "walk", machine.walker.start_cycles))
    names = [*(c.name for c in machine.cache), "memory"]
    for i in range(reads):
        where, spent = np.zeros(len(names), np.int64), np.zeros(1, np.int64)
        read_walks(
            *state.caches,
            run.entry_cache,
            run.trace.cpus,
            on_cpu,
            np.ones(1, np.int64),
            address[i : i + 1],
            level[i : i + 1],
            spent,
            where,
            tally.level_cycles,
            tally.caches,
        )
        entry = f"entry at {int(address[i]):#x}, found in {names[int(where.argmax())]}"
        steps.append(Step(LEVEL_NAMES[level[i]], entry, "read", int(spent[0])))
    return steps
