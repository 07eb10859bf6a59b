"""kvmalloc, vmap and ioremap: what each takes, where it lies, by which leaves."""

from dataclasses import replace

import numpy as np
import pytest

from kernels_in_memory import GIB, TWO_NODES, check, kernel
from pagewalk.errors import BadInput
from pagewalk.linux.boot import orders
from pagewalk.linux.geometry import MIB
from pagewalk.linux.mappers.ioremap import Ioremap, Iounmap
from pagewalk.linux.mappers.kvmalloc import Kvfree, Kvmalloc
from pagewalk.linux.mappers.vmap import Vmap, Vunmap
from pagewalk.linux.mapping import map_trace
from pagewalk.linux.memory.conditions import fresh
from pagewalk.linux.memory.kernel import SetMemory, UnmapAliases, Vfree, Vmalloc, Vrealloc
from pagewalk.linux.memory.pages import FreePages, Pages, TakePages
from pagewalk.linux.modelled import layout_of

KIB = 1 << 10
DEVICE = 16 * GIB
"""A physical address where no memory is."""


# -- kvmalloc


@pytest.mark.parametrize(
    ("size", "taken"),
    [
        (4 * KIB, 4 * KIB),
        (5 * KIB, 8 * KIB),
        (2 * MIB + 64, 4 * MIB),
        (4 * MIB, 4 * MIB),
    ],
)
def test_kmalloc_comes_first_and_takes_a_power_of_two(size, taken):
    """Reference 3.2: kmalloc can serve up to 4 MiB with 4 KiB pages: one block, in the direct map."""
    linux = kernel("6.12")
    linux.apply(Kvmalloc(name="a", size=size))
    frames = linux.part(Pages).blocks["a"].frames
    assert (len(frames) * 4096, linux.areas) == (taken, {})
    assert (np.diff(frames) == 1).all()
    assert frames[0] % len(frames) == 0
    check(linux)
    linux.apply(Kvfree(name="a"))
    assert linux.memory.held_frames() == 0


def test_above_the_largest_block_vmalloc_is_certain_and_huge():
    """4 MiB + 64 B took 6 MiB of huge area (reference, fact 5)."""
    linux = kernel("6.18")
    linux.apply(Kvmalloc(name="table", size=4 * MIB + 64, caller="alloc_fdtable"))
    area = linux.areas["table"]
    assert (area.shift, area.size_bytes, area.caller) == (21, 6 * MIB, "alloc_fdtable")
    assert linux.counts["kvmalloc_areas"] == 1
    linux.apply(Kvfree(name="table"))
    check(linux)


def test_with_larger_pages_kmalloc_reaches_further():
    """The limit is the largest block: MAX_PAGE_ORDER base pages."""
    linux = kernel(
        "6.12", "powerpc64-radix-64k", {0: [(4 * GIB, 5 * GIB)]}, memory=memory_of("powerpc64-radix-64k")
    )
    linux.apply(Kvmalloc(name="a", size=16 * MIB))
    linux.apply(Kvmalloc(name="b", size=16 * MIB + 1))
    assert "a" in linux.part(Pages).blocks
    assert (linux.areas["b"].shift, linux.areas["b"].size_bytes) == (21, 18 * MIB)


def memory_of(arch):
    return fresh({0: [(4 * GIB, 5 * GIB)]}, orders(arch))


def without_blocks_of(order):
    """A kernel of 64 MiB with free memory, but in smaller blocks only; and who holds the rest."""
    linux = kernel("6.12", ranges={0: [(4 * GIB, 4 * GIB + 64 * MIB)]})
    pages = [linux.memory.take(0) for _ in range(64 * MIB >> 12)]
    keep = {page for page in pages if page % (1 << order) == 0}
    linux.memory.give(page for page in pages if page not in keep)
    return linux, len(keep)


def test_without_a_block_it_falls_back_and_small_areas_are_not_huge():
    linux, held = without_blocks_of(4)
    linux.apply(Kvmalloc(name="a", size=64 * KIB))
    assert (linux.areas["a"].shift, linux.areas["a"].size_bytes) == (12, 64 * KIB)
    assert linux.counts["compact_stalls"] == 0, "kmalloc does not compact for more than a page"
    linux.apply(Kvmalloc(name="b", size=2 * MIB))
    assert (linux.areas["b"].shift, linux.counts["huge_fallbacks"]) == (12, 1)
    assert linux.counts["compact_stalls"] == 1, "the huge attempt does (reference 3.4)"
    check(linux, held)


@pytest.mark.parametrize(("version", "huge"), [("6.12", True), ("7.2", True), ("7.3", False)])
def test_what_may_not_block_asks_for_huge_until_7_2(version, huge):
    linux = kernel(version)
    linux.apply(Kvmalloc(name="a", size=8 * MIB, may_block=False))
    assert (linux.areas["a"].shift == 21) == huge
    linux.apply(Kvmalloc(name="b", size=8 * MIB))
    assert linux.areas["b"].shift == 21


def test_a_node_and_its_limits():
    linux = kernel(ranges=TWO_NODES)
    linux.apply(Kvmalloc(name="a", size=MIB, node=1))
    assert linux.part(Pages).blocks["a"].frames[0] >= 5 * GIB >> 12
    happened = linux.apply(Kvmalloc(name="b", size=1 << 31))
    assert [h.what for h in happened] == ["failure"], "more than INT_MAX never reaches vmalloc (reference 8)"
    assert linux.apply(Kvmalloc(name="c", size=0))[0].what == "failure"
    with pytest.raises(BadInput, match="exists already"):
        linux.apply(Kvmalloc(name="a", size=1))
    assert (linux.areas, len(linux.part(Pages).blocks)) == ({}, 1)


def test_no_page_at_all_fails_without_vmalloc():
    linux = kernel(ranges={0: [(4 * GIB, 4 * GIB + 4 * MIB)]})
    while linux.memory.take(0) is not None:
        pass
    assert "no vmalloc" in linux.apply(Kvmalloc(name="a", size=100))[0].why


# -- vmap


def test_vmap_shows_pages_once_more_by_base_leaves():
    """vmap always passes the base shift (reference 3.3), however large the blocks."""
    linux = kernel("7.3")
    linux.apply(TakePages(name="buffer", size=4 * MIB, order=10))
    linux.apply(Vmap(name="view", pages="buffer", caller="snd_dma"))
    view, frames = linux.areas["view"], linux.part(Pages).blocks["buffer"].frames
    assert np.array_equal(view.frames, frames)
    assert linux.maps.tables.leaves() == {12: 1024}
    assert view.span_bytes == 4 * MIB + 4 * KIB, "with a guard page"
    assert linux.maps.tables.frame_of(view.start + 5 * 4096) == frames[5]
    assert linux.vmalloc_used() == 0, "VmallocUsed counts vmalloc's pages only (reference 7.4)"
    check(linux)
    with pytest.raises(BadInput, match="mapped by vmap 'view'"):
        linux.apply(FreePages(name="buffer"))
    with pytest.raises(BadInput, match="made by vmap"):
        linux.apply(Vfree(name="view"))
    with pytest.raises(BadInput, match="made by vmap"):
        linux.apply(Vrealloc(name="view", size=1))
    happened = linux.apply(Vunmap(name="view"))
    assert [h.what for h in happened] == ["unmap"]
    assert linux.maps.space.lazy_pages == 1025
    linux.apply(FreePages(name="buffer"))
    check(linux)


def test_vmap_of_some_pages_and_what_it_refuses():
    linux = kernel()
    linux.apply(TakePages(name="p", size=10 * 4096))
    linux.apply(Vmap(name="v", pages="p", first_page=3, count=2))
    assert linux.areas["v"].frames.tolist() == linux.part(Pages).blocks["p"].frames[3:5].tolist()
    for wrong in (
        {"first_page": 10},
        {"first_page": 8, "count": 3},
        {"count": -1},
        {"pages": "q"},
        {"name": "v"},
    ):
        with pytest.raises(BadInput):
            linux.apply(Vmap(**{"name": "w", "pages": "p", **wrong}))
    assert linux.apply(Vmap(name="w", pages="p", count=0))[0].what == "failure"
    check(linux)


def test_permissions_of_a_vmap_area_reach_its_pages_in_the_direct_map():
    linux = kernel("6.12")
    linux.apply(TakePages(name="p", size=4 * 4096, order=2))
    linux.apply(Vmap(name="v", pages="p"))
    linux.apply(SetMemory(name="v", what="ro"))
    assert linux.maps.direct.wrong(linux.part(Pages).blocks["p"].frames) == (4, 0)
    arm = kernel("6.18", "arm64-4k")
    arm.apply(TakePages(name="p", size=4096))
    arm.apply(Vmap(name="v", pages="p"))
    assert "made by vmap" in arm.apply(SetMemory(name="v", what="ro"))[0].why, "reference 4.5: only VM_ALLOC"


# -- ioremap


@pytest.mark.parametrize(
    ("size", "physical", "align", "leaves"),
    [
        (4 * KIB, DEVICE, 4 * KIB, {12: 1}),
        (3 * MIB, DEVICE, 4 * MIB, {21: 1, 12: 256}),
        (3 * MIB, DEVICE + 4 * KIB, 4 * MIB, {12: 768}),
        (16 * MIB, DEVICE + 2 * MIB, 16 * MIB, {21: 8}),
        (GIB, DEVICE, GIB, {30: 1}),
        (3 * GIB, DEVICE, GIB, {30: 3}),
    ],
)
def test_the_largest_leaves_that_both_addresses_allow(size, physical, align, leaves):
    """Reference 3.3: aligned to the next power of two of the size, at most a PUD; leaves up to a PUD."""
    linux = kernel("6.12")
    linux.apply(Vmalloc(name="first", size=4096))
    linux.apply(Vfree(name="first"))
    linux.apply(Ioremap(name="registers", physical=physical, size=size))
    area = linux.areas["registers"]
    assert (area.start % align, area.span_bytes) == (0, size + 4096)
    assert linux.maps.tables.leaves() == leaves
    for offset in (0, size // 2, size - 1):
        assert linux.maps.tables.frame_of(area.start + offset) == physical + offset >> 12
    check(linux)
    linux.apply(Iounmap(name="registers"))
    assert linux.maps.tables.leaves() == {}
    check(linux)


def test_nohugeiomap_and_nohugevmalloc_are_two_switches():
    for parameter, device, table in (("nohugeiomap", 12, 21), ("nohugevmalloc", 21, 12)):
        linux = kernel("6.12")
        linux.rules = replace(linux.rules, parameters=frozenset({parameter}))
        linux.apply(Ioremap(name="d", physical=DEVICE, size=2 * MIB))
        linux.apply(Vmalloc(name="t", size=2 * MIB, huge=True))
        assert (linux.areas["d"].shift, linux.areas["t"].shift) == (device, table)


def test_ends_inside_pages_and_what_is_refused():
    linux = kernel("6.12")
    linux.apply(Ioremap(name="d", physical=DEVICE + 100, size=4096))
    assert (linux.areas["d"].size_bytes, linux.areas["d"].asked_bytes) == (8192, 4096)
    for physical, size, says in (
        (5 * GIB, 4096, "own memory"),
        (3 * GIB - 1, 4096, "own memory"),
        (1 << 52, 1, "no range"),
        (DEVICE, 0, "no range"),
        (-1, 5, "no range"),
    ):
        with pytest.raises(BadInput, match=says):
            linux.apply(Ioremap(name="x", physical=physical, size=size))
    linux.apply(Ioremap(name="hole", physical=3 * GIB, size=GIB))
    assert linux.areas["hole"].shift == 30
    check(linux)


def test_a_huge_device_leaf_pays_for_the_tables_that_it_finds():
    """The table left at its place goes, and one page is flushed (reference 3.3)."""
    linux = kernel("6.12")
    linux.apply(Vmalloc(name="small", size=8 * MIB))
    linux.apply(Vfree(name="small"))
    linux.apply(UnmapAliases())
    tables = len(linux.maps.tables.tables)
    happened = linux.apply(Ioremap(name="d", physical=DEVICE, size=4 * MIB))
    assert linux.areas["d"].start == linux.maps.space.vmalloc.start
    assert [(h.what, h.end - h.start) for h in happened if h.why == "table freed"] == [
        ("flush-range", 4096)
    ] * 2
    assert len(linux.maps.tables.tables) == tables - 2
    check(linux)


def test_a_replay_sees_views_and_devices():
    linux = kernel("6.12")
    linux.apply(TakePages(name="p", size=8 * KIB))
    linux.apply(Vmap(name="v", pages="p", caller="drm"))
    linux.apply(Ioremap(name="d", physical=DEVICE, size=2 * GIB, caller="pci"))
    areas = {area.caller: area for area in layout_of(linux).areas}
    assert [(areas[c].kind, areas[c].leaf, areas[c].pages) for c in ("drm", "pci")] == [
        ("vmap", "base", 2),
        ("ioremap", "PUD", 0),
    ]
    starts = np.array([areas["drm"].start, areas["pci"].start + GIB + 4096], np.uint64)
    mapping = map_trace(starts >> np.uint64(12), layout_of(linux), "recorded")
    assert mapping.leaf_shift.tolist() == [12, 30]
    assert mapping.frame.tolist() == [linux.areas["v"].frames[0], (DEVICE + GIB >> 12) + 1]
