"""Miss ratio for every size at once: one pass of exact LRU stack distances, not a replay for each."""

from collections.abc import Callable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine
from pagewalk.replay.tables import Tables, translate
from pagewalk.study.replays import Subject
from pagewalk.trace.trace import FETCH

SET_COUNTS = 11
"""1, 2, 4, ... 1024 sets."""
ONE_TLB = "textbook-fullassoc"
"""Its TLBs hold any leaf size, so that one entry is one translation unit of the mapping."""


class Curve(Struct, frozen=True, kw_only=True):
    """Misses of every LRU TLB size under one mapping. Exact; misses / accesses is the miss ratio.

    Attributes
    ----------
    mapping : str
    accesses : int
        Data accesses of the trace.
    units : int
        Distinct translation units: the misses that no size avoids.
    entries, misses : list of int
        Fully associative: `misses[i]` for `entries[i]` entries and more, up to `entries[i + 1]`; every size
        at which the number of misses changes.
    l1 : str
        The L1 in front of the set-associative second levels.
    l1_misses : int
    sets, ways : list of int
    second_level_misses : list of list of int
        For each of `sets` (index: page number modulo sets), for each of `ways`.
    """

    mapping: str
    accesses: int
    units: int
    entries: list[int]
    misses: list[int]
    l1: str
    l1_misses: int
    sets: list[int]
    ways: list[int]
    second_level_misses: list[list[int]]

    def at(self, entries: int) -> int:
        """Misses of a fully associative LRU TLB of that many entries."""
        found = int(np.searchsorted(np.array(self.entries), entries, side="right")) - 1
        return self.misses[found] if found >= 0 else self.accesses

    def knee(self) -> int:
        """Fewest entries that miss at most a tenth more often than a TLB of any size must."""
        enough = (e for e, m in zip(self.entries, self.misses, strict=True) if 10 * m <= 11 * self.units)
        return next(enough, 1)


class Curves(Struct, frozen=True, kw_only=True):
    """The curves of one trace, as JSON has them."""

    schema: str = "pagewalk.curve/1"
    trace: str
    curves: list[Curve]


def curve(
    subject: Subject, mapping: str, machine: Machine, progress: Callable[[int], None] | None = None
) -> Curve:
    """Measure a trace's curve under a mapping.

    Parameters
    ----------
    subject : Subject
    mapping : str
    machine : Machine
        Its L1 stands before the set-associative second levels: one LRU array for loads and stores of any
        leaf size.
    progress : callable, optional
        Called with the number of records done since the last call.

    Raises
    ------
    BadInput
        The machine's L1 is another; the trace has no data accesses.
    """
    from pagewalk.kernels.lru.distances import make_stack, stack_distances
    from pagewalk.kernels.lru.set_stacks import WAYS, all_set_counts, make_set_stacks
    from pagewalk.kernels.lru.tables import make_places, make_rows

    l1 = [array for array in machine.tlb if array.level == 1 and "load" in array.serves]
    if len(l1) != 1 or l1[0].policy != "lru" or l1[0].holds or "store" not in l1[0].serves:
        what = "its L1 is not one LRU array for all leaf sizes, loads and stores"
        raise BadInput(machine.id, what, "take textbook-setassoc, or an AMD, Arm or POWER preset")
    mapped = subject.mapped(mapping, machine)
    tables = translate(mapped, machine, subject.trace.spaces)
    page_number = _unit_numbers(tables, mapped.leaf_shift)
    unit, units = tables.unit_of_page, len(tables.page)
    place = make_places(unit, tables.first.set_of[0, unit], page_number & ((1 << SET_COUNTS - 1) - 1))
    rows, stacks = make_rows(tables.first.ways), make_set_stacks(SET_COUNTS)
    stack, depths = make_stack(max(units, 1)), np.zeros(units + 1, np.int64)
    last = np.full(1, -1, np.int64)
    accesses = l1_misses = 0
    for chunk in subject.trace.chunks("flags"):
        page = chunk.page if chunk.flags is None else chunk.page[(chunk.flags & FETCH) == 0]
        page = np.array(page, np.uint32)
        accesses += len(page)
        l1_misses += all_set_counts(page, place, rows, stacks, last)
        stack_distances(page, unit, stack, depths)
        if progress is not None:
            progress(len(chunk.page))
    if not accesses:
        raise BadInput(subject.trace.name, "no data accesses", "give a trace that has some")
    touched = int(depths[-1])
    hits = np.cumsum(depths[:-1])
    falls = np.flatnonzero(depths[:-1])
    return Curve(
        mapping=mapped.name,
        accesses=accesses,
        units=touched,
        entries=(falls + 1).tolist(),
        misses=(accesses - hits[falls]).tolist(),
        l1=f"{l1[0].entries} entries, {l1[0].ways or 'fully'} {'ways' if l1[0].ways else 'associative'}",
        l1_misses=int(l1_misses),
        sets=[1 << c for c in range(SET_COUNTS)],
        ways=list(range(1, WAYS + 1)),
        second_level_misses=(l1_misses - np.cumsum(stacks.depths[:, :-1], axis=1)).tolist(),
    )


def _unit_numbers(tables: Tables, leaf_shift: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Page number, in pages of its leaf's size, of the unit of each distinct page."""
    unit = tables.unit_of_page
    shift = np.zeros(len(tables.page), np.int64)
    shift[unit] = leaf_shift
    numbers: NDArray[np.int64] = (tables.page >> np.maximum(shift - 12, 0))[unit]
    return numbers
