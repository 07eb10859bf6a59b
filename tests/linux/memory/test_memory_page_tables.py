"""Page tables against a plain dictionary of pages, and against what the kernel keeps and frees."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels_in_memory import mapped_frames
from pagewalk.linux.geometry import GEOMETRIES, GIB, MIB
from pagewalk.linux.memory.page_tables import (
    NO_EXEC,
    ONLY_4K,
    PAGE_KERNEL,
    PRESENT,
    WRITE,
    OutOfTables,
    PageTables,
    Split,
)

X86 = GEOMETRIES["x86-64"]
BASE = X86.vmalloc_start
KIB = 1 << 10


class Pages:
    """Table pages, numbered from 1 million; `left` can run out."""

    def __init__(self, left=10**9):
        self.left, self.numbers, self.out = left, itertools.count(10**6), set()

    def take(self):
        if self.left <= 0:
            return None
        self.left -= 1
        page = next(self.numbers)
        self.out.add(page)
        return page

    def give(self, page):
        self.out.remove(page)


def tables(pages=None, geometry=X86, contiguous=None):
    pages = pages or Pages()
    return PageTables(geometry, pages.take, pages.give, contiguous), pages


def test_base_pages_need_one_pte_table_for_2_mib_and_its_ancestors():
    table, pages = tables()
    table.map_pages(BASE + 2 * MIB - 8192, np.array([7, 3, 9, 1]), PAGE_KERNEL)
    assert [table.frame_of(BASE + 2 * MIB - 8192 + 4096 * i) for i in range(-1, 5)] == [
        None,
        7,
        3,
        9,
        1,
        None,
    ]
    assert table.frame_of(BASE + 2 * MIB + 4095) == 1 or table.frame_of(BASE + 2 * MIB + 4095) == 9
    assert len(pages.out) == 4, "two PTE tables, one PMD, one PUD table"
    assert table.table_bytes() == 4 * 4096
    assert table.leaves() == {12: 4}


def test_a_terabyte_of_leaves_has_the_tables_that_the_author_said():
    """2 GiB per TiB with 4 KiB pages, 4 MiB with 2 MiB pages (reference M3): a 1024th of each, for 1 GiB."""
    small, _ = tables()
    small.map_pages(BASE, np.arange(GIB >> 12), PAGE_KERNEL)
    huge, _ = tables()
    for i in range(512):
        huge.map_leaf(BASE + i * 2 * MIB, i << 9, 21, PAGE_KERNEL)
    above = 4096 * 2 - 4096
    assert small.table_bytes() - above == 2 * GIB // 1024 + 4096
    assert huge.table_bytes() - above == 4 * MIB // 1024


def test_vmalloc_to_page_adds_the_offset_in_a_huge_leaf():
    table, _ = tables()
    table.map_leaf(BASE, 512 * 77, 21, PAGE_KERNEL)
    assert table.frame_of(BASE + 5 * 4096 + 17) == 512 * 77 + 5
    entry = table.find(BASE + 2 * MIB - 1)
    assert (entry.level, entry.shift, entry.start) == (2, 21, BASE)


def test_tables_survive_unmapping_and_a_later_huge_leaf_pays():
    """Reference 3.3: a reused address may carry an old PTE table; it is freed, and one page flushed."""
    table, pages = tables()
    table.map_pages(BASE, np.arange(3), PAGE_KERNEL)
    table.unmap(BASE, BASE + 3 * 4096)
    assert (table.leaves(), len(pages.out)) == ({}, 3)
    assert table.map_leaf(BASE, 512, 21, PAGE_KERNEL) is True
    assert len(pages.out) == 2
    table.unmap(BASE, BASE + 2 * MIB)
    assert table.map_leaf(BASE, 1024, 21, PAGE_KERNEL) is False
    table.unmap(BASE, BASE + 2 * MIB)
    table.map_pages(BASE, np.arange(1), PAGE_KERNEL)
    assert len(pages.out) == 3


def test_a_huge_leaf_over_mapped_pages_is_refused():
    table, _ = tables()
    table.map_pages(BASE, np.arange(1), PAGE_KERNEL)
    with pytest.raises(ValueError, match="smaller leaves"):
        table.map_leaf(BASE, 512, 21, PAGE_KERNEL)


def test_a_gigabyte_leaf_frees_all_tables_that_it_finds():
    table, pages = tables()
    for at in (BASE, BASE + 8 * MIB, BASE + 900 * MIB):
        table.map_pages(at, np.arange(1), PAGE_KERNEL)
        table.unmap(at, at + 4096)
    assert len(pages.out) == 5
    assert table.map_leaf(BASE, 1 << 18, 30, PAGE_KERNEL) is True
    assert (len(pages.out), table.leaves()) == (1, {30: 1})
    table.unmap(BASE, BASE + GIB)
    table.map_pages(BASE + 8 * MIB, np.arange(1), PAGE_KERNEL)
    with pytest.raises(ValueError, match="smaller leaves"):
        table.map_leaf(BASE, 1 << 18, 30, PAGE_KERNEL)


def test_unmapping_half_a_leaf_is_refused():
    table, _ = tables()
    table.map_leaf(BASE, 512, 21, PAGE_KERNEL)
    with pytest.raises(ValueError, match="cuts a leaf"):
        table.unmap(BASE, BASE + MIB)


def test_contiguous_ptes_are_one_leaf():
    table, _ = tables(geometry=GEOMETRIES["arm64-4k"], contiguous={1: 4})
    start = GEOMETRIES["arm64-4k"].vmalloc_start
    start += -start % (64 * KIB)
    table.map_leaf(start, 160, 16, PAGE_KERNEL)
    entry = table.find(start + 20 * KIB)
    assert (entry.level, entry.shift, entry.start, entry.frame) == (1, 16, start, 160)
    assert table.frame_of(start + 20 * KIB) == 165
    assert table.leaves() == {16: 1}
    assert table.split(entry)
    assert table.leaves() == {12: 16}


def test_small_tables_share_a_page():
    """Radix with 64 KiB pages: a PTE table of 32 entries has 256 bytes (reference 6)."""
    geometry = GEOMETRIES["powerpc64-radix-64k"]
    table, pages = tables(geometry=geometry)
    start = geometry.vmalloc_start
    for i in range(300):
        table.map_pages(start + i * 2 * MIB, np.array([i]), PAGE_KERNEL)
    assert table.table_bytes() == 300 * 256 + 2 * 4096
    assert len(pages.out) == 4, "256 PTE tables in a page, then 44; one page with a PMD, one with a PUD table"


def test_out_of_tables_keeps_what_was_mapped():
    table, _ = tables(Pages(left=3))
    with pytest.raises(OutOfTables):
        table.map_pages(BASE + 2 * MIB - 4096, np.array([5, 6]), PAGE_KERNEL)
    assert table.frame_of(BASE + 2 * MIB - 4096) == 5
    assert table.frame_of(BASE + 2 * MIB) is None


def huge(pages=None, count=1):
    table, pages = tables(pages)
    for i in range(count):
        table.map_leaf(BASE + i * 2 * MIB, 512 * (i + 1), 21, PAGE_KERNEL)
    return table, pages


def test_a_leaf_is_kept_if_all_of_it_or_nothing_changes():
    table, _ = huge(count=2)
    assert table.change(BASE, 1024, 0, WRITE) == (True, False, [])
    assert table.leaves() == {21: 2}
    assert table.change(BASE + 4096, 3, 0, WRITE) == (False, False, []), "those bits are clear already"


def test_a_part_splits_with_a_table():
    table, pages = huge()
    before = len(pages.out)
    assert table.change(BASE + 4096, 2, 0, WRITE) == (True, False, [Split(BASE, 21)])
    assert table.leaves() == {12: 512}
    assert len(pages.out) == before + 1
    bits = [table.find(BASE + i * 4096).bits for i in range(4)]
    assert bits == [PAGE_KERNEL, PAGE_KERNEL & ~WRITE, PAGE_KERNEL & ~WRITE, PAGE_KERNEL]
    assert [table.frame_of(BASE + i * 4096) for i in (0, 1, 511)] == [512, 513, 1023]


def test_a_gigabyte_leaf_takes_two_splits():
    table, _ = tables()
    table.map_leaf(BASE, 0, 30, PAGE_KERNEL)
    assert table.change(BASE + 5 * 4096, 1, 0, PRESENT).splits == [Split(BASE, 30), Split(BASE, 21)]
    assert table.leaves() == {21: 511, 12: 512}


def test_without_a_page_nothing_from_there_on_changes():
    table, pages = huge(count=3)
    pages.left = 0
    assert table.change(BASE + MIB, 1024, 0, WRITE) == (False, True, [])
    assert table.change(BASE, 512 + 5, 0, WRITE) == (True, True, [])
    assert [table.find(BASE + i * 2 * MIB).bits & WRITE for i in range(3)] == [0, WRITE, WRITE]


def test_the_mirror_steps_as_the_primary_does():
    table, _ = huge(count=2)
    table.map_pages(BASE + 4 * MIB, np.array([9, 4]), PAGE_KERNEL)
    seen = []
    table.change(BASE, 1026, 0, WRITE, lambda frame, pages: seen.append((frame, pages)) is None)
    assert seen == [(512, 512), (1024, 512), (9, 1), (4, 1)]
    assert table.change(BASE, 2, WRITE, 0, lambda frame, pages: False).failed


def test_collapse_needs_all_pages_alike_present_and_meant_to_be_large():
    for spoil in (None, (0, WRITE), (0, PRESENT), (ONLY_4K, 0)):
        table, pages = huge()
        table.change(BASE + 8192, 1, 0, NO_EXEC)
        table.change(BASE + 8192, 1, NO_EXEC, 0)
        before = len(pages.out)
        if spoil:
            table.change(BASE, 1 if spoil[1] else 512, *spoil)
        made = table.collapse(BASE + 8192, BASE + 12288)
        assert made == ([] if spoil else [Split(BASE, 21)])
        assert len(pages.out) == before - (not spoil)
        assert table.leaves() == ({12: 512} if spoil else {21: 1})


def test_collapse_needs_consecutive_aligned_frames():
    for frames in (np.arange(512) + 1, np.r_[np.arange(511), 600]):
        table, _ = tables()
        table.map_pages(BASE, frames, PAGE_KERNEL)
        assert table.collapse(BASE, BASE + 2 * MIB) == []
    table.map_pages(BASE, np.arange(512) + 1024, PAGE_KERNEL)
    assert table.collapse(BASE, BASE + 4096) == [Split(BASE, 21)]
    assert table.frame_of(BASE + 4096) == 1025


def test_collapse_goes_on_to_a_gigabyte():
    table, pages = tables()
    table.map_leaf(BASE, 0, 30, PAGE_KERNEL)
    start = len(pages.out)
    table.change(BASE, 1, 0, WRITE)
    table.change(BASE, 1, WRITE, 0)
    assert table.collapse(BASE, BASE + 4096) == [Split(BASE, 21), Split(BASE, 30)]
    assert (table.leaves(), len(pages.out)) == ({30: 1}, start)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pages", "huge", "huge", "unmap", "change", "change", "change", "collapse"]),
        st.integers(0, 1400),
        st.integers(1, 600),
        st.sampled_from([(0, WRITE), (WRITE, 0), (0, NO_EXEC), (NO_EXEC, 0), (0, PRESENT), (PRESENT, 0)]),
    ),
    max_size=20,
)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.integers(2, 12))
def test_a_plain_array_of_pages_agrees(steps, pages_left):
    """Whatever is mapped, split, merged or fails for want of a table: each page has its frame and bits."""
    table, pages = tables(Pages(pages_left))
    frames, bits = np.full(2048, -1), np.zeros(2048, int)
    frame = 512
    for what, at, count, (set_bits, clear_bits) in steps:
        at, count = (at & -512, 512) if what == "huge" else (at, count)
        address, span = BASE + at * 4096, slice(at, at + count)
        if what in ("pages", "huge") and (frames[span] < 0).all():
            try:
                if what == "huge":
                    table.map_leaf(address, frame, 21, PAGE_KERNEL)
                else:
                    table.map_pages(address, np.arange(frame, frame + count), PAGE_KERNEL)
            except OutOfTables:
                table.unmap(address, address + count * 4096)
            else:
                frames[span], bits[span] = np.arange(frame, frame + count), PAGE_KERNEL
            frame += 1024
        elif what == "unmap":
            edges = (table.find(address), table.find(address + count * 4096 - 1))
            if all(
                e is None or (address <= e.start and e.start + (1 << e.shift) <= address + count * 4096)
                for e in edges
            ):
                table.unmap(address, address + count * 4096)
                frames[span], bits[span] = -1, 0
        elif what == "change":
            change = table.change(address, count, set_bits, clear_bits)
            mapped = np.flatnonzero(frames[span] >= 0) + at
            if change.failed:
                reached = next(
                    p
                    for p in mapped
                    if table.find(BASE + int(p) * 4096).shift > 12
                    and bits[p] & ~clear_bits | set_bits != bits[p]
                    and (p & -512 < at or (p | 511) >= at + count)
                )
                mapped = mapped[mapped < reached]
            bits[mapped] = bits[mapped] & ~clear_bits | set_bits
        elif what == "collapse":
            table.collapse(address, address + count * 4096)
        for page in sorted({0, 511, 512, 1023, at, at + count - 1, at + count, at + count // 2}):
            entry = table.find(BASE + page * 4096)
            found = entry and (entry.frame + page - (entry.start - BASE >> 12), entry.bits)
            assert found == ((frames[page], bits[page]) if frames[page] >= 0 else None)
        assert sum(n << s for s, n in table.leaves().items()) == int((frames >= 0).sum()) << 12
        assert np.array_equal(mapped_frames(table), np.sort(frames[frames >= 0]))
        assert table.table_bytes() == 4096 * len(pages.out)
