"""The fast path: machines whose TLBs and paging-structure caches are plain LRU, on one CPU without events.

Exact: the same counts as the general kernels give, which `replay(..., fast=False)` takes.
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.hardware.machine import Machine
from pagewalk.replay.paths.general import ABSENT, plain
from pagewalk.replay.paths.line import AHEAD, Found
from pagewalk.replay.paths.names import first_of, follows, name_units
from pagewalk.replay.paths.state import MAX_READS, WALKS_AT_ONCE
from pagewalk.replay.tables import LevelTable, Tables
from pagewalk.trace.trace import Chunk, Trace

if TYPE_CHECKING:
    from pagewalk.replay.engine import Run


class Fast(NamedTuple):
    """What the fast kernels look up, and the state that they keep.

    Attributes
    ----------
    place : ndarray of int64
        For each page, or for each kind and page.
    l1, stlb, psc : Rows, Rows, Psc
        As in `pagewalk.kernels.lru.tables`.
    last : ndarray of int64, shape (1,)
    misses : Misses
    unit_of, leaf_level : ndarray of int32, int8
        Parallel to `place`.
    top_of : ndarray of int64
        Level above the first entry that a walk reads, by the cache that had an entry for it; no cache last.
    hit_cycles : int
        Of an STLB hit.
    walks_of : ndarray of int64, shape (places or 1, len(top_of))
        Walks by place and by where they began, of a machine whose references all cost the same. One row
        where all pages are of one region and one leaf size: there is nothing to tell apart.
    """

    place: NDArray[np.int64]
    l1: Any
    stlb: Any
    psc: Any
    last: NDArray[np.int64]
    misses: Any
    unit_of: NDArray[np.int32]
    leaf_level: NDArray[np.int8]
    top_of: NDArray[np.int64]
    hit_cycles: int
    walks_of: NDArray[np.int64]


def fast(
    trace: Trace, machine: Machine, tables: Tables, levels: int, kinds: int, regions: int, room: int
) -> Fast | None:
    """Tables of the fast path; None where it does not apply.

    Parameters
    ----------
    trace, machine, tables
    levels : int
        Table levels of the geometry.
    kinds : int
        How many kinds of access are told apart: 1, loads and stores (2), fetches too (3).
    regions : int
        Regions that misses are counted for.
    room : int
        Accesses of the largest chunk.
    """
    from pagewalk.kernels.lru.tables import (
        GROUP_SHIFT,
        MAX_NUMBER,
        MAX_ROWS,
        MAX_WAYS,
        ROW_BITS,
        make_misses,
        make_places,
        make_psc,
        make_rows,
    )

    first, second, psc = tables.first, tables.second, tables.psc
    widest = max(ways.max(initial=0) for ways in (first.ways, second.ways, psc.ways))
    hits = {array.hit_cycles for array in machine.tlb if array.level == 2}
    plain = (
        trace.cpus == 1
        and (trace.events is None or not len(trace.events))
        and machine.inclusion == "none"
        and machine.guest is None
        # A run of accesses that L1 does not serve misses each time; the fast kernel takes runs as one.
        and bool((first.set_of[:kinds] >= 0).all())
        and all(array.policy == "lru" for array in machine.tlb)
        and all(cache.policy == "lru" for cache in machine.psc)
        and widest <= MAX_WAYS
        and max(len(first.ways), len(second.ways), len(psc.ways)) < MAX_ROWS
        and len(hits) < 2
    )
    names = name_units(first, second, kinds) if plain else None
    if names is None or max(names.shift) > GROUP_SHIFT:
        return None
    own = psc.tag_of - psc.tag_of.min(axis=1, keepdims=True) if psc.tag_of.size else psc.tag_of
    path = np.tile(psc.first.astype(np.int64), kinds), *(np.tile(tag, kinds) for tag in own)
    some = first_of(names.block)
    if not all(follows(column, names.block) for column in path):
        return None
    of_block = some % len(tables.leaf_level)
    block, psc_rows = make_psc(
        psc.first[of_block], psc.set_of[:, of_block], own[:, of_block], psc.ways, max(names.shift)
    )
    number = block[names.block] + names.rank
    if number.max(initial=0) >= MAX_NUMBER:
        return None
    unit = tables.unit_of_page
    place_of = np.concatenate([unit + kind * len(tables.leaf_level) for kind in range(kinds)])

    def row_of(level: LevelTable) -> NDArray[np.int64]:
        of = level.set_of[:kinds].ravel()[place_of].astype(np.int64)
        return np.where(of < 0, len(level.ways), of)

    alike = regions == 1 and kinds == 1 and len(np.unique(tables.leaf_level)) == 1
    place = make_places(number[place_of], row_of(first), row_of(second))
    return Fast(
        place,
        make_rows(np.append(first.ways, 0), names.shift[0]),
        make_rows(np.append(second.ways, 0), names.shift[1], ROW_BITS),
        psc_rows,
        np.full(1, -1, np.int64),
        make_misses(room, len(psc.level)),
        np.tile(unit, kinds),
        np.tile(tables.leaf_level[unit], kinds),
        np.append(psc.level, levels + 1).astype(np.int64),
        max(hits, default=0),
        np.zeros((1 if alike else len(place), len(psc.level) + 1), np.int64),
    )


class _Held(NamedTuple):
    """Room for what missed in the first level, as `pagewalk.kernels.lru.apart.first_level` writes it."""

    missed: NDArray[Any]
    page_of: NDArray[np.int32] | None
    begin: NDArray[np.int64]
    window_of: NDArray[np.int64]


def _held(dtype: np.dtype[Any], alike: bool) -> _Held:
    from pagewalk.kernels.lru.apart import BLOCKS, HELD_ROOM

    page_of = None if alike else np.empty(HELD_ROOM, np.int32)
    return _Held(np.empty(HELD_ROOM, dtype), page_of, np.empty(BLOCKS, np.int64), np.empty(BLOCKS, np.int64))


class FastPath:
    """The fast path of one run, where its machine has one."""

    def __init__(self, run: Run, fast: Fast) -> None:
        from pagewalk.kernels.lru.tables import pack

        self.run, self.fast = run, fast
        self.numbered = np.empty(run.size, np.uint32)
        alike = len(fast.walks_of) < len(fast.place)
        self.alike = alike
        """All pages are counted as one."""
        packed = pack(fast.place, fast.l1, fast.stlb, fast.psc) if alike else None
        self.rows: tuple[Any, Any, Any, Any] = packed or (fast.place, fast.l1, fast.stlb, fast.psc)
        """Places, and the rows that they are in: L1, STLB, paging-structure caches."""
        self.l1 = 0
        self.uniform = not run.machine.cache and not run.machine.walker.window_accesses
        """Every walk reference costs the same, and the program waits for each walk: `windows` will do."""
        sets = AHEAD + 1 if run.line.apart else 0
        self.held = cycle([_held(self.rows[0].dtype, alike) for _ in range(sets)])
        """In turn: one is filled while the others wait or are under way."""

    def levels(self, chunk: Chunk, page: NDArray[np.uint32], flags: NDArray[np.uint8]) -> Found:
        """Send a chunk through vector rows, block by block."""
        from pagewalk.kernels.count import by_kind, count_misses, count_walks, touch
        from pagewalk.kernels.lru.rows import lru_levels

        run, fast = self.run, self.fast
        tally, pages, fetches = run.tally, len(run.mapping.page), 0
        if len(flags):
            n, fetches = by_kind(page, flags, pages, run.fetches, run.kinds_differ, self.numbered)
            page = self.numbered[:n]
        l1, stlb = lru_levels(page, fast.place, fast.l1, fast.stlb, fast.psc, fast.last, fast.misses)
        l1_at, stlb_at, found = fast.misses.l1_at[:l1], fast.misses.at[:stlb], fast.misses.found[:stlb].copy()
        tally.stlb += l1 - stlb, (l1 - stlb) * fast.hit_cycles
        run.count_l1(l1, int(np.count_nonzero(page[l1_at] >= 2 * pages)) if run.fetches else 0)
        touch(page, tally.touched)
        count_misses(page, l1_at, tally.by_page)
        walked = page[stlb_at]

        def walk(at: NDArray[np.int64]) -> int:
            cycles, refs = self._walks(walked, found)
            count_walks(walked, refs, cycles, tally.by_page)
            return run.wait(at, cycles)

        return Found(len(page), fetches, l1_at, stlb_at, walk)

    def windows(self, chunk: Chunk) -> None:
        """Send a chunk of any number of windows through vector rows, and count."""
        tally = self.run.tally
        start, end = chunk.start, chunk.start + len(chunk.page)
        ends = np.arange(start - start % tally.per_window, end, tally.per_window) + tally.per_window
        first = start // tally.per_window
        windows = slice(first, first + len(ends))
        ends = np.minimum(ends, end) - start
        page = plain(chunk.page, np.uint32)
        flags = ABSENT if chunk.flags is None else plain(chunk.flags, np.uint8)
        (self._apart if self.run.line.apart else self._whole)(page, flags, ends, windows)

    def _whole(
        self, page: NDArray[np.uint32], flags: NDArray[np.uint8], ends: NDArray[np.int64], windows: slice
    ) -> None:
        """Send a chunk through all levels in one call."""
        from pagewalk.kernels.lru.windows import alike_windows, lru_windows

        run, fast, tally = self.run, self.fast, self.run.tally
        counted = np.zeros((3, len(ends)), np.int64)
        kinds = len(run.mapping.page), run.fetches
        rows = *self.rows, fast.last
        counters = fast.top_of, fast.leaf_level, fast.walks_of, tally.by_page, tally.touched, counted
        if self.alike:
            accesses, fetches = alike_windows(page, flags, *kinds, ends, *rows, self.numbered, *counters)
        else:
            accesses, fetches = lru_windows(
                page, flags, *kinds, run.kinds_differ, ends, *rows, fast.misses, self.numbered, *counters
            )
        tally.accesses += accesses
        tally.fetches += fetches
        tally.window[0, windows] += counted[0]
        self._count(windows, counted[0], *counted[1:])

    def _apart(
        self, page: NDArray[np.uint32], flags: NDArray[np.uint8], ends: NDArray[np.int64], windows: slice
    ) -> None:
        """Send a chunk through L1; hand on what missed."""
        from pagewalk.kernels.lru.apart import behind_first, first_level

        run, fast, tally = self.run, self.fast, self.run.tally
        place, l1, stlb, psc = self.rows
        pages, start = len(run.mapping.page), 0
        while True:
            held, missed = next(self.held), np.zeros(len(ends), np.int64)
            start, blocks, accesses, fetches = first_level(
                page,
                flags,
                pages,
                run.fetches,
                run.kinds_differ,
                ends,
                start,
                place,
                l1,
                fast.last,
                self.numbered,
                tally.by_page,
                tally.touched,
                missed,
                *held,
            )
            tally.accesses += accesses
            tally.fetches += fetches
            tally.window[0, windows] += missed

            def behind(held: _Held = held, blocks: int = blocks, missed: NDArray[np.int64] = missed) -> None:
                found = np.zeros((2, len(ends)), np.int64)
                some = held.missed, held.page_of, held.begin[:blocks], held.window_of[:blocks]
                behind_first(*some, stlb, psc, fast.top_of, fast.leaf_level, fast.walks_of, found)
                self._count(windows, missed, *found)

            run.line.hand(behind)
            if start >= len(page):
                return

    def _count(
        self, windows: slice, l1: NDArray[np.int64], stlb: NDArray[np.int64], refs: NDArray[np.int64]
    ) -> None:
        """Count the misses and references of some windows."""
        run, tally = self.run, self.run.tally
        hits = int(l1.sum() - stlb.sum())
        tally.stlb += hits, hits * self.fast.hit_cycles
        self.l1 += int(l1.sum())
        cycles = stlb * run.machine.walker.start_cycles + refs * run.machine.memory.latency_cycles
        run.clock[0] += cycles.sum()
        tally.window[1, windows] += stlb
        tally.window[2, windows] += cycles

    def _walks(
        self, page: NDArray[np.uint32], found: NDArray[np.int8]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Read the entries of walks of which is known where they begin; return cycles and references."""
        from pagewalk.kernels.count import reads_of
        from pagewalk.kernels.general.caches import read_walks

        run, fast = self.run, self.fast
        state, tally, walker = run.state, run.tally, run.machine.walker
        hits = np.bincount(found, minlength=len(fast.top_of))[:-1]
        tally.psc_hits[: len(hits)] += hits
        refs = fast.top_of[found] - fast.leaf_level[page]
        tally.by_refs += np.bincount(refs, minlength=MAX_READS)
        cycles = np.full(len(page), walker.start_cycles, np.int64)
        if run.reads is not None:
            run.reads.send(fast.unit_of[page], fast.top_of[found], cycles)
            return cycles, refs
        on_cpu = np.zeros(WALKS_AT_ONCE, np.int64)
        address = np.empty(WALKS_AT_ONCE * state.tables.levels, np.int64)
        level = np.empty(WALKS_AT_ONCE * state.tables.levels, np.int8)
        for first in range(0, max(len(page), 1), WALKS_AT_ONCE):
            some = slice(first, min(first + WALKS_AT_ONCE, len(page)))
            ends = np.empty(some.stop - some.start, np.int64)
            unit = fast.unit_of[page[some]]
            reads_of(
                unit,
                found[some],
                fast.top_of,
                run.tables.leaf_level,
                run.tables.entry,
                ends,
                address,
                level,
            )
            read_walks(
                *state.caches,
                run.entry_cache,
                1,
                on_cpu,
                ends,
                address,
                level,
                cycles[some],
                tally.places,
                tally.level_cycles,
                tally.caches,
            )
        return cycles, refs

    def finish(self) -> None:
        """Add to the tally what follows from what `windows` counted for each place."""
        fast, tally, machine = self.fast, self.run.tally, self.run.machine
        of_fetches = tally.by_page[2 * len(self.run.mapping.page) :, 0].sum() if self.l1 else 0
        self.run.count_l1(self.l1, int(of_fetches))
        latency, start = machine.memory.latency_cycles, machine.walker.start_cycles
        walks = fast.walks_of
        leaf_level = fast.leaf_level[: len(walks), None]
        refs = fast.top_of - leaf_level
        of_place = walks.sum(axis=1), (walks * refs).sum(axis=1)
        tally.by_page[: len(walks), 1] += of_place[0]
        tally.by_page[: len(walks), 2] += of_place[1]
        tally.by_page[: len(walks), 3] += start * of_place[0] + latency * of_place[1]
        hits = walks.sum(axis=0)[:-1]
        tally.psc_hits[: len(hits)] += hits
        np.add.at(tally.by_refs, np.maximum(refs, 0), walks)
        reads = int(of_place[1].sum())
        tally.places[-1] += reads
        tally.caches[-1, 1, 0] += reads
        for level in range(1, int(fast.top_of.max())):
            read = (leaf_level <= level) & (level < fast.top_of)
            tally.level_cycles[level] += latency * int(walks[read].sum())
