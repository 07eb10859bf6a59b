"""Kernel page tables that exist: leaves of every size, table pages, splitting and merging.

One structure serves the vmalloc space and the direct map, as one code (change-page-attribute) serves both
in the kernel. Sources: Linux 7.3 mm/vmalloc.c and arch/x86/mm/pat/set_memory.c, see the reference's
sections 3.3, 4.2 and 4.4.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagewalk.linux.geometry import Geometry

EMPTY, TABLE = -1, -2
"""What an entry holds instead of a frame: nothing, or a table of the level below."""

PRESENT, WRITE, NO_EXEC, CONTIGUOUS, ONLY_4K = 1, 2, 4, 8, 16
"""Attribute bits of a leaf; x86 marks pages that were made 4 KiB on purpose (`set_memory_4k`)."""

PAGE_KERNEL = PRESENT | WRITE | NO_EXEC


class Table(NamedTuple):
    """One table.

    Attributes
    ----------
    target : ndarray of int64, shape (entries,)
        First frame of the leaf, or EMPTY or TABLE.
    bits : ndarray of uint8, shape (entries,)
        Attributes of the leaf.
    page : int
        The frame that the table itself takes; -1: it is not from the page allocator.
    """

    target: NDArray[np.int64]
    bits: NDArray[np.uint8]
    page: int


class Entry(NamedTuple):
    """The leaf that maps an address.

    Attributes
    ----------
    level : int
        Of its table; 1 is the PTE table.
    shift : int
        log2 of the leaf's size in bytes, contiguous entries taken together.
    start : int
        First address that it maps.
    frame : int
        Of `start`.
    bits : int
    """

    level: int
    shift: int
    start: int
    frame: int
    bits: int


class Split(NamedTuple):
    """A leaf became smaller ones."""

    start: int
    shift: int


class Change(NamedTuple):
    """What changing attributes did.

    Attributes
    ----------
    changed : bool
        Some entry differs now: a flush is due.
    failed : bool
        A table page could not be had; pages from there on are as before.
    splits : list of Split
    """

    changed: bool
    failed: bool
    splits: list[Split]


class OutOfTables(Exception):
    """No page for a table."""


class PageTables:
    """Tables of the kernel's half, for addresses of one or several regions.

    Parameters
    ----------
    geometry : Geometry
    take : callable
        Gives a frame for a table, or None.
    give : callable
        Takes a table's frame back.
    contiguous : dict of int to int
        For each level, log2 of how many entries of it may form one translation (arm64).
    """

    def __init__(
        self,
        geometry: Geometry,
        take: Callable[[], int | None],
        give: Callable[[int], object],
        contiguous: dict[int, int] | None = None,
    ) -> None:
        self.geometry, self.take, self.give = geometry, take, give
        self.contiguous = contiguous or {}
        self.shift = [0, *(geometry.entry_shift(level) for level in range(1, geometry.levels + 2))]
        self.base = self.shift[1]
        self.tables: dict[tuple[int, int], Table] = {}
        """(level, address >> what the table covers) -> table. The top one is part of the kernel image."""
        self.tables[geometry.levels, 0] = self._new(geometry.levels, -1)
        self.parts: dict[int, int] = {}
        """Page that holds several small tables -> how many."""
        self.open: dict[int, tuple[int, int]] = {}
        """Level with such tables -> the page in use, and how many more it will hold."""

    def _new(self, level: int, page: int) -> Table:
        count = 1 << self.geometry.index_bits[level - 1]
        return Table(np.full(count, EMPTY, np.int64), np.zeros(count, np.uint8), page)

    def _take(self, level: int) -> int | None:
        """A page for a table, or a part of one where tables are smaller than a page."""
        fit = (1 << self.base) // self.geometry.table_bytes(level)
        if fit <= 1:
            return self.take()
        page, left = self.open.get(level, (None, 0))
        if not left:
            page, left = self.take(), fit
        if page is not None:
            self.open[level] = page, left - 1
            self.parts[page] = self.parts.get(page, 0) + 1
        return page

    def _give(self, level: int, page: int) -> None:
        if page in self.parts:
            self.parts[page] -= 1
            if self.parts[page] or self.open[level][0] == page:
                return
            del self.parts[page]
        self.give(page)

    def _key(self, level: int, address: int) -> tuple[int, int]:
        return level, (address % (1 << self.shift[-1])) >> self.shift[level + 1]

    def _index(self, level: int, address: int) -> int:
        return (address >> self.shift[level]) & ((1 << self.geometry.index_bits[level - 1]) - 1)

    def find(self, address: int) -> Entry | None:
        """The leaf that maps an address, present or not; None if there is none."""
        for level in range(1, self.geometry.levels + 1):
            table = self.tables.get(self._key(level, address))
            if table is not None:
                index = self._index(level, address)
                if table.target[index] < 0:
                    return None
                bits, shift = int(table.bits[index]), self.shift[level]
                if bits & CONTIGUOUS:
                    shift += self.contiguous[level]
                    index &= -(1 << self.contiguous[level])
                return Entry(level, shift, address >> shift << shift, int(table.target[index]), bits)
        return None

    def frame_of(self, address: int) -> int | None:
        """`vmalloc_to_page`: the frame behind an address, whatever the leaf; None if nothing is mapped."""
        entry = self.find(address)
        if entry is None or not entry.bits & PRESENT:
            return None
        return entry.frame + (address - entry.start >> self.base)

    def _table(self, level: int, address: int) -> Table:
        """The table of a level; made, with those above it, if there is none."""
        key = self._key(level, address)
        if key not in self.tables:
            above = self._table(level + 1, address)
            page = self._take(level)
            if page is None:
                raise OutOfTables
            self.tables[key] = self._new(level, page)
            above.target[self._index(level + 1, address)] = TABLE
        return self.tables[key]

    def map_pages(self, address: int, frames: NDArray[np.int64], bits: int) -> None:
        """Map base pages.

        Parameters
        ----------
        address : int
        frames : ndarray of int64
            Frame of each base page.
        bits : int

        Raises
        ------
        OutOfTables
            What was mapped before stays so.
        """
        done, entries = 0, 1 << self.geometry.index_bits[0]
        while done < len(frames):
            at = address + (done << self.base)
            table, index = self._table(1, at), self._index(1, at)
            part = frames[done : done + entries - index]
            table.target[index : index + len(part)] = part
            table.bits[index : index + len(part)] = bits
            done += len(part)

    def map_leaf(self, address: int, frame: int, shift: int, bits: int) -> bool:
        """Map one leaf; a table that earlier, smaller leaves left at its place is freed, with those below it.

        Parameters
        ----------
        address, frame : int
            Multiples of the leaf's size.
        shift : int
            log2 of the leaf's size in bytes.
        bits : int

        Returns
        -------
        bool
            Whether a table was freed: then one page must be flushed on all CPUs (x86-64).

        Raises
        ------
        OutOfTables
        """
        level = max(level for level in range(1, self.geometry.levels + 1) if self.shift[level] <= shift)
        count = 1 << (shift - self.shift[level])
        table, index = self._table(level, address), self._index(level, address)
        left_over = level > 1 and self._free_table(level - 1, address)
        step = 1 << (self.shift[level] - self.base)
        table.target[index : index + count] = frame + step * np.arange(count)
        table.bits[index : index + count] = bits | (CONTIGUOUS if count > 1 else 0)
        return left_over

    def _free_table(self, level: int, address: int) -> bool:
        """Free an empty table and those below it; False if there is none."""
        left_over = self.tables.get(self._key(level, address))
        if left_over is None:
            return False
        if (left_over.target >= 0).any():
            raise ValueError(f"{address:#x} is mapped by smaller leaves")
        for index in np.flatnonzero(left_over.target == TABLE).tolist():
            self._free_table(level - 1, address + (index << self.shift[level]))
        del self.tables[self._key(level, address)]
        self._give(level, left_over.page)
        return True

    def unmap(self, start: int, end: int) -> None:
        """Clear all leaves of a range. Tables stay: the kernel keeps them for whatever comes next.

        Raises
        ------
        ValueError
            A leaf reaches beyond the range (the kernel warns).
        """
        at = start
        while at < end:
            table = self.tables.get(self._key(1, at))
            if table is not None:
                index = self._index(1, at)
                count = min(len(table.target) - index, end - at >> self.base)
                table.target[index : index + count] = EMPTY
                table.bits[index : index + count] = 0
                at += count << self.base
                continue
            entry = self.find(at)
            if entry is None:
                at = (at >> self.shift[2]) + 1 << self.shift[2]
                continue
            if entry.start < start or entry.start + (1 << entry.shift) > end:
                raise ValueError(
                    f"{start:#x} to {end:#x} cuts a leaf of 2^{entry.shift} bytes at {entry.start:#x}"
                )
            self._write(entry, EMPTY, 0)
            at = entry.start + (1 << entry.shift)

    def _write(self, entry: Entry, target: int | None, bits: int) -> None:
        table, index = self.tables[self._key(entry.level, entry.start)], self._index(entry.level, entry.start)
        count = 1 << (entry.shift - self.shift[entry.level])
        if target is not None:
            table.target[index : index + count] = target
        table.bits[index : index + count] = bits

    def split(self, entry: Entry) -> bool:
        """Replace a leaf by leaves of the next smaller size with the same attributes.

        Contiguous entries lose their mark; a larger leaf needs a table.

        Returns
        -------
        bool
            False if there is no page for the table: nothing has changed.
        """
        if entry.bits & CONTIGUOUS:
            self._write(entry, None, entry.bits & ~CONTIGUOUS)
            return True
        level = entry.level - 1
        page = self._take(level)
        if page is None:
            return False
        table = self._new(level, page)
        step = 1 << (self.shift[level] - self.base)
        table.target[:] = entry.frame + step * np.arange(len(table.target))
        table.bits[:] = entry.bits | (CONTIGUOUS if level in self.contiguous else 0)
        self._write(entry, TABLE, 0)
        self.tables[self._key(level, entry.start)] = table
        return True

    def change(
        self,
        address: int,
        pages: int,
        set_bits: int,
        clear_bits: int,
        mirror: Callable[[int, int], bool] = lambda frame, pages: True,
        *,
        cut: bool = True,
    ) -> Change:
        """Change attributes of base pages, as x86 does it (reference 4.2).

        A leaf is kept if nothing changes or if all of it changes at once; else it is split, one size down,
        and looked at again.

        Parameters
        ----------
        address, pages : int
        set_bits, clear_bits : int
        mirror : callable
            Called with the first frame and the number of pages of every step, to change the alias;
            returns False to stop.
        cut : bool
            False: a leaf is never split, but changed whole, also beyond the range.
        """
        done, changed = 0, False
        splits: list[Split] = []
        while done < pages:
            at = address + (done << self.base)
            entry = self.find(at)
            if entry is None:
                done += 1
                continue
            end = entry.start + (1 << entry.shift)
            step = min(end - at >> self.base, pages - done)
            bits = entry.bits & ~clear_bits | set_bits
            if bits != entry.bits:
                if cut and (at != entry.start or step << self.base != 1 << entry.shift):
                    if not self.split(entry):
                        return Change(changed, True, splits)
                    splits.append(Split(entry.start, entry.shift))
                    continue
                self._write(entry, None, bits)
                changed = True
            if not mirror(entry.frame + (at - entry.start >> self.base), step):
                return Change(changed, True, splits)
            done += step
        return Change(changed, False, splits)

    def collapse(self, start: int, end: int) -> list[Split]:
        """Merge leaves of a range back where all of a table's are alike (Linux 6.15, after `set_memory_rox`).

        For each PMD of the range: all its base pages present, with equal attributes and consecutive aligned
        frames, none 4 KiB on purpose. Where that works, the same one level up.

        Returns
        -------
        list of Split
            The leaves that came to be.
        """
        made = []
        for slot in range(start >> self.shift[2], -(-end >> self.shift[2])):
            address = slot << self.shift[2]
            for level in (1, 2):
                if not self._merge(level, address):
                    break
                shift = self.shift[level + 1]
                made.append(Split(address >> shift << shift, shift))
        return made

    def _merge(self, level: int, address: int) -> bool:
        key = self._key(level, address)
        table = self.tables.get(key)
        if table is None or self.shift[level + 1] not in {leaf.shift for leaf in self.geometry.leaves}:
            return False
        first, bits = int(table.target[0]), int(table.bits[0])
        step = 1 << (self.shift[level] - self.base)
        alike = (table.bits == bits).all() and (
            table.target == first + step * np.arange(len(table.target))
        ).all()
        if (
            first < 0
            or first % (step * len(table.target))
            or not bits & PRESENT
            or bits & ONLY_4K
            or not alike
        ):
            return False
        self._give(level, self.tables.pop(key).page)
        above, index = self.tables[self._key(level + 1, address)], self._index(level + 1, address)
        above.target[index], above.bits[index] = first, bits
        return True

    def leaves(self) -> dict[int, int]:
        """Count leaves by log2 of their size, from the tables themselves."""
        count: dict[int, int] = {}
        for (level, _), table in self.tables.items():
            mapped = table.target >= 0
            grouped = int((mapped & (table.bits & CONTIGUOUS > 0)).sum())
            more = self.contiguous.get(level, 0)
            for shift, number in (
                (self.shift[level], int(mapped.sum()) - grouped),
                (self.shift[level] + more, grouped >> more),
            ):
                if number:
                    count[shift] = count.get(shift, 0) + number
        return count

    def table_bytes(self) -> int:
        """Memory of all tables below the top one."""
        return sum(
            self.geometry.table_bytes(level) for level, _ in self.tables if level < self.geometry.levels
        )
