"""Miss ratio for every size at once: one pass of exact LRU stack distances, not a replay for each."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pagewalk.errors import BadInput
from pagewalk.hardware.machine import Machine, Tlb
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.tables import Tables, dense, translate
from pagewalk.study.replays import Subject
from pagewalk.trace.trace import FETCH, Trace

SET_COUNTS = 11
"""1, 2, 4, ... 1024 sets."""


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
    leaf_bytes : int
        The leaf that most touched base pages have.
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
    leaf_bytes: int = 0

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


def curves(
    subject: Subject,
    mappings: Sequence[str],
    machine: Machine,
    progress: Callable[[int], None] | None = None,
) -> Curves:
    """Measure a trace's curves under some mappings, in one pass; each mapping has a thread of its own.

    Parameters
    ----------
    subject : Subject
    mappings : sequence of str
    machine : Machine
        Its L1 stands before the set-associative second levels: LRU, the same for loads and stores, an entry
        for each leaf.
    progress : callable, optional
        Called with the number of records done since the last call.

    Raises
    ------
    BadInput
        The machine's L1 is another; the trace has no data accesses.
    """
    measured = [_Measured(FirstLevel(subject, mapping, machine)) for mapping in mappings]
    read_by(subject.trace, [each.feed for each in measured], progress)
    return Curves(trace=subject.trace.name, curves=[each.curve() for each in measured])


def read_by(
    trace: Trace,
    readers: Sequence[Callable[[NDArray[np.uint32]], None]],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Hand the data accesses of a trace, chunk by chunk, to readers, each with a thread of its own.

    Raises
    ------
    BadInput
        There are none.
    """
    accesses = 0
    with ThreadPoolExecutor(min(len(readers), len(os.sched_getaffinity(0)))) as pool:
        for chunk in trace.chunks("flags"):
            page = chunk.page if chunk.flags is None else chunk.page[(chunk.flags & FETCH) == 0]
            page = np.array(page, np.uint32)
            accesses += len(page)
            list(pool.map(lambda read, page=page: read(page), readers))
            if progress is not None:
                progress(len(chunk.page))
    if not accesses:
        raise BadInput(trace.name, "no data accesses", "give a trace that has some")


class FirstLevel:
    """A first level, and the numbers by which its misses are known.

    Attributes
    ----------
    mapping, l1 : str
        Names, for people.
    unit : ndarray of int32, shape (pages,)
    units : int
    place : ndarray of int64, shape (pages,)
        With the page number modulo 1024 as the second row.
    rows : Rows
    last : ndarray of int64, shape (1,)
    leaf_bytes : int
        As of `Curve`.
    """

    def __init__(self, subject: Subject, mapping: str, machine: Machine) -> None:
        from pagewalk.kernels.lru.tables import make_places, make_rows

        mapped, spaces = subject.mapped(mapping, machine), subject.trace.spaces
        tables = translate(mapped, machine, spaces)
        first = [array for array in machine.tlb if array.level == 1 and "load" in array.serves]
        if not _one_entry_a_leaf(tables, mapped, spaces) or any(array.policy != "lru" for array in first):
            what = "its L1 is not LRU with an entry for each leaf, the same for loads and stores"
            raise BadInput(machine.id, what, "take another machine with --machine, like textbook-setassoc")
        page_number = _unit_numbers(tables, mapped.leaf_shift)
        shifts, pages = np.unique(mapped.leaf_shift, return_counts=True)
        self.leaf_bytes = 1 << int(shifts[pages.argmax()])
        self.mapping, self.l1 = mapped.name, " and ".join(map(_in_words, first))
        self.unit, self.units = tables.unit_of_page, len(tables.page)
        row = tables.first.set_of[0, self.unit]
        self.place = make_places(self.unit, row, page_number & ((1 << SET_COUNTS - 1) - 1))
        self.rows, self.last = make_rows(tables.first.ways), np.full(1, -1, np.int64)


class _Measured:
    """What is known of one mapping's curve so far."""

    def __init__(self, first: FirstLevel) -> None:
        from pagewalk.kernels.sizes.distances import make_stack
        from pagewalk.kernels.sizes.set_stacks import make_set_stacks

        self.first, self.stacks = first, make_set_stacks(SET_COUNTS)
        self.stack, self.depths = make_stack(max(first.units, 1)), np.zeros(first.units + 1, np.int64)
        self.accesses = self.l1_misses = 0

    def feed(self, page: NDArray[np.uint32]) -> None:
        """Add data accesses, as indices into the trace's pages."""
        from pagewalk.kernels.sizes.distances import stack_distances
        from pagewalk.kernels.sizes.set_stacks import all_set_counts

        first = self.first
        self.accesses += len(page)
        self.l1_misses += all_set_counts(page, first.place, first.rows, self.stacks, first.last)
        stack_distances(page, first.unit, self.stack, self.depths)

    def curve(self) -> Curve:
        """What was measured."""
        from pagewalk.kernels.sizes.set_stacks import WAYS

        hits = np.cumsum(self.depths[:-1])
        falls = np.flatnonzero(self.depths[:-1])
        return Curve(
            mapping=self.first.mapping,
            accesses=self.accesses,
            units=int(self.depths[-1]),
            entries=(falls + 1).tolist(),
            misses=(self.accesses - hits[falls]).tolist(),
            l1=self.first.l1,
            l1_misses=int(self.l1_misses),
            sets=[1 << c for c in range(SET_COUNTS)],
            ways=list(range(1, WAYS + 1)),
            leaf_bytes=self.first.leaf_bytes,
            second_level_misses=(self.l1_misses - np.cumsum(self.stacks.depths[:, :-1], axis=1)).tolist(),
        )


def _in_words(array: Tlb) -> str:
    return f"{array.entries} entries, {f'{array.ways} ways' if array.ways else 'fully associative'}"


def _one_entry_a_leaf(tables: Tables, mapped: Mapping, spaces: NDArray[np.uint16] | None) -> bool:
    """Whether the first level has one entry for each leaf, the same for loads and stores."""
    first, shift = tables.first, mapped.leaf_shift.astype(np.int64)
    space = np.zeros(len(shift), np.int64) if spaces is None else spaces
    return (
        bool((first.set_of[0] >= 0).all() and (first.set_of[0] == first.set_of[1]).all())
        and len(np.unique(first.tag_of[0])) == len(tables.page)
        and len(dense(shift, mapped.page >> (shift - 12), space)[0]) == len(tables.page)
    )


def _unit_numbers(tables: Tables, leaf_shift: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Page number, in pages of its leaf's size, of the unit of each distinct page."""
    unit = tables.unit_of_page
    shift = np.zeros(len(tables.page), np.int64)
    shift[unit] = leaf_shift
    numbers: NDArray[np.int64] = (tables.page >> np.maximum(shift - 12, 0))[unit]
    return numbers
