"""The direct map: leaves at boot, splits, counters as the kernel prints them, and how an area is reset."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.linux.geometry import GEOMETRIES, GIB, MIB
from pagewalk.linux.memory.direct_map import DirectMap, reset_calls, reset_span
from pagewalk.linux.memory.page_tables import NO_EXEC, PRESENT, WRITE

X86 = GEOMETRIES["x86-64"]
KIB = 1 << 10


class Pages:
    def __init__(self, left=10**9):
        self.left, self.numbers, self.out = left, itertools.count(10**6), set()

    def take(self):
        self.left -= 1
        if self.left < 0:
            return None
        self.out.add(page := next(self.numbers))
        return page


def mapped(ranges=((0, 3 * GIB), (4 * GIB, 9 * GIB)), pages=None, geometry=X86, **more):
    pages = pages or Pages()
    direct = DirectMap(geometry, ranges, pages.take, pages.out.remove, **more)
    direct.running = True
    return direct


def test_the_largest_leaves_that_fit():
    assert mapped().meminfo() == {
        "DirectMap4k": 2048,
        "DirectMap2M": GIB - 2 * MIB >> 10,
        "DirectMap1G": 7 * GIB >> 10,
    }
    ragged = mapped([(0, 640 * KIB), (MIB, GIB + 3 * MIB + 8 * KIB)])
    assert ragged.count == {12: 160 + 256 + 256 + 2, 21: 511 + 1, 30: 0}


def test_frames_lie_at_their_address():
    direct = mapped()
    for frame in (0, 5 * GIB >> 12, (9 * GIB >> 12) - 1):
        assert direct.tables.frame_of(direct.address(frame)) == frame
    assert direct.tables.frame_of(direct.address(3 * GIB >> 12)) is None


def test_a_page_made_read_only_splits_twice_and_meminfo_moves_as_the_kernel_s():
    """Each level-2 split moves 2048 kB to 4k, each level-3 split 1,048,576 kB to 2M (reference 4.3)."""
    direct = mapped()
    before = direct.meminfo()
    direct.change((5 * GIB >> 12) + 7, 1, 0, WRITE)
    after = direct.meminfo()
    assert {name: after[name] - before[name] for name in before} == {
        "DirectMap4k": 2048,
        "DirectMap2M": 1048576 - 2048,
        "DirectMap1G": -1048576,
    }
    assert direct.vmstat() == {
        "direct_map_level2_splits": 1,
        "direct_map_level3_splits": 1,
        "direct_map_level2_collapses": 0,
        "direct_map_level3_collapses": 0,
    }


def test_splits_of_the_boot_show_in_meminfo_only():
    direct = mapped()
    direct.running = False
    direct.change(5 * GIB >> 12, 1, 0, WRITE)
    assert set(direct.vmstat().values()) == {0}
    assert direct.meminfo()["DirectMap4k"] == 4096


def test_the_second_page_of_a_block_splits_no_more():
    direct = mapped()
    frame = 5 * GIB >> 12
    assert len(direct.change(frame, 1, 0, WRITE).splits) == 2
    assert len(direct.change(frame + 3, 1, 0, WRITE).splits) == 0
    assert len(direct.change(frame + 512, 1, 0, WRITE).splits) == 1


def test_the_linear_map_never_becomes_executable():
    direct = mapped()
    assert direct.change(5 * GIB >> 12, 1, 0, NO_EXEC) == (False, False, [])


def test_collapse_counts_and_gives_the_tables_back():
    pages = Pages()
    direct = mapped(pages=pages)
    frame, before = 5 * GIB >> 12, mapped().meminfo()
    direct.change(frame, 1, 0, WRITE)
    assert len(pages.out) == 2
    assert direct.collapse(frame, 1) == []
    direct.change(frame, 1, WRITE, 0)
    assert [leaf.shift for leaf in direct.collapse(frame, 1)] == [21, 30]
    assert (direct.meminfo(), pages.out) == (before, set())
    assert direct.vmstat()["direct_map_level2_collapses"] == 1
    assert direct.vmstat()["direct_map_level3_collapses"] == 1


def test_debug_pagealloc_never_splits():
    direct = mapped([(0, 64 * MIB)], leaves="pages")
    assert direct.count == {12: 16384, 21: 0, 30: 0}
    assert direct.change(77, 600, 0, PRESENT) == (True, False, [])


def test_arm64_splits_in_place_by_five_steps():
    """PUD, contPMD, PMD, contPTE, PTE; only two of them need a table (reference 4.5)."""
    pages = Pages()
    direct = mapped([(0, 2 * GIB)], pages=pages, geometry=GEOMETRIES["arm64-4k"])
    assert direct.count == {12: 0, 16: 0, 21: 0, 25: 0, 30: 2}
    done = direct.change(0, 1, 0, WRITE)
    assert [split.shift for split in done.splits] == [30, 25, 21, 16]
    assert len(pages.out) == 2
    assert direct.count == direct.tables.leaves() == {12: 16, 16: 31, 21: 15, 25: 31, 30: 1}


@pytest.mark.parametrize(
    "name", ["arm64-16k", "arm64-64k", "powerpc64-radix-64k", "riscv-sv39", "x86-64-5level"]
)
def test_every_geometry_maps_all_memory(name):
    geometry = GEOMETRIES[name]
    direct = mapped([(0, 3 * GIB)], geometry=geometry)
    assert sum(n << shift for shift, n in direct.tables.leaves().items()) == 3 * GIB
    direct.change(12345, 1, 0, WRITE)
    assert {s: n for s, n in direct.count.items() if n} == direct.tables.leaves()


FRAMES = np.r_[np.arange(512) + 5 * 512, np.arange(512) + 6 * 512, np.arange(512) + 99 * 512]


def test_the_range_to_flush_is_the_same_by_page_and_by_block():
    direct = mapped()
    by_page, by_block = reset_span(direct, FRAMES, 0), reset_span(direct, FRAMES, 9)
    assert by_page[:3] == by_block[:3] == (direct.address(5 * 512), direct.address(100 * 512), True)
    assert (by_page.steps, by_block.steps) == (1536, 3)


def test_steps_of_a_block_over_pages_apart_would_flush_too_much_or_too_little():
    """Why the step must be the area's own order: base pages found in steps of 512 miss most of them."""
    direct = mapped()
    frames = np.arange(1024)[::-1].copy()
    assert reset_span(direct, frames, 0)[:2] == (direct.address(0), direct.address(1024))
    assert reset_span(direct, frames, 9)[:2] == (direct.address(511), direct.address(1535))


def test_nothing_to_flush_without_pages():
    assert not reset_span(mapped(), np.empty(0, np.int64), 0).flush


def test_calls_by_page_by_block_and_by_range():
    assert len(reset_calls(FRAMES, 9, "page")) == 1536
    assert reset_calls(FRAMES, 9, "block") == [(2560, 512), (3072, 512), (50688, 512)]
    assert reset_calls(FRAMES, 9, "range") == [(2560, 1024), (50688, 512)]
    for how in ("page", "block", "range"):
        calls = reset_calls(FRAMES, 9, how)
        assert [f + i for f, n in calls for i in range(n)] == FRAMES.tolist()


def test_what_is_wrong_is_counted():
    direct = mapped()
    direct.change(1000, 5, 0, WRITE)
    direct.change(1003, 4, 0, WRITE | PRESENT)
    assert direct.wrong(np.arange(999, 1010)) == (3, 4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * 512 * 512 - 1),
            st.one_of(st.integers(1, 600), st.sampled_from([512, 1024, 512 * 512])),
            st.sampled_from([(0, WRITE), (WRITE, 0), (0, PRESENT | WRITE), (PRESENT | WRITE, 0)]),
            st.booleans(),
            st.booleans(),
        ),
        max_size=15,
    ),
    st.integers(0, 10),
)
def test_counters_equal_a_recount_from_the_tables(steps, left):
    pages = Pages(left)
    direct = mapped([(0, 3 * GIB)], pages=pages)
    for frame, count, (set_bits, clear_bits), aligned, collapse in steps:
        frame = frame & -512 if aligned else frame
        direct.change(frame, min(count, 3 * 512 * 512 - frame), set_bits, clear_bits)
        if collapse:
            direct.collapse(frame, 1)
        assert {shift: n for shift, n in direct.count.items() if n} == direct.tables.leaves()
        assert sum(direct.meminfo().values()) == 3 * GIB >> 10
        made = [direct.splits[s] - direct.collapses[s] for s in (21, 30)]
        start = mapped([(0, 3 * GIB)]).count
        assert direct.count[30] == start[30] - made[1]
        assert direct.count[12] == start[12] + 512 * made[0]
