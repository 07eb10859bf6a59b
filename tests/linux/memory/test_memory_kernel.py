"""vmalloc from request to freed frames: live facts, fallbacks, permissions, and random lives."""

import msgspec
import numpy as np
import pytest

from kernels_in_memory import GIB, TWO_NODES, X86_IN_V8, check, kernel
from pagewalk.errors import BadInput
from pagewalk.linux.geometry import MIB
from pagewalk.linux.memory.conditions import age
from pagewalk.linux.memory.kernel import Event, SetMemory, UnmapAliases, Vfree, Vmalloc, Vrealloc
from pagewalk.linux.memory.page_tables import PRESENT, WRITE

KIB = 1 << 10


@pytest.mark.parametrize(("asked", "mib"), [(4, 6), (8, 10), (16, 18), (32, 34)])
def test_rounding_and_page_array_as_seen_live(asked, mib):
    """A kvmalloc of 4 MiB + 64 B took 6 MiB on 6.18, 8 MiB + 64 B took 10, 16 MiB + 64 B took 18 (fact 5).

    The recorded events show the spans 6295552, 10489856, 18878464 and 35655680, and page arrays of 16384,
    24576, 40960 and 73728 bytes with their guards.
    """
    linux = kernel("6.18")
    linux.apply(Vmalloc(name="table", size=asked * MIB + 64, huge=True))
    area, array = linux.areas["table"], linux.areas["table.pages"]
    assert (area.size_bytes, area.span_bytes, area.start % (2 * MIB)) == (mib * MIB, mib * MIB + 4096, 0)
    assert array.span_bytes == {6: 16384, 10: 24576, 18: 40960, 34: 73728}[mib]
    assert array.shift == 12
    assert linux.maps.tables.leaves() == {21: mib // 2, 12: len(array.frames)}
    check(linux)


def test_the_futex_table_of_the_sample():
    """8 MiB + 64 B became 10,489,856 bytes, 2560 pages, with a page array of 24,576 bytes (reference 7.1)."""
    linux = kernel("6.18")
    linux.apply(Vmalloc(name="futex", size=8 * MIB + 64, huge=True, caller="futex_hash_allocate"))
    area = linux.areas["futex"]
    assert (area.span_bytes, len(area.frames), linux.areas[area.array].span_bytes) == (
        10_489_856,
        2560,
        24_576,
    )


def test_every_huge_leaf_lies_on_an_aligned_block():
    linux = kernel("6.12")
    linux.apply(Vmalloc(name="a", size=64 * MIB, huge=True))
    area = linux.areas["a"]
    blocks = area.frames.reshape(32, 512)
    assert (blocks[:, 0] % 512 == 0).all()
    assert (np.diff(blocks, axis=1) == 1).all()


@pytest.mark.parametrize(
    ("version", "arch", "asks", "huge"),
    [
        ("6.12", "x86-64", {"huge": True}, True),
        ("6.12", "x86-64", {}, False),
        ("5.13", X86_IN_V8, {}, True),
        ("5.13", X86_IN_V8, {"no_huge": True}, False),
        ("v8", X86_IN_V8, {"protection": "PAGE_KERNEL_EXEC"}, False),
        ("v8", X86_IN_V8, {}, True),
        ("5.15", "x86-64", {"huge": True}, False),
    ],
)
def test_the_release_decides(version, arch, asks, huge):
    linux = kernel(version, arch)
    linux.apply(Vmalloc(name="a", size=3 * MIB, **asks))
    assert linux.areas["a"].shift == (21 if huge else 12)
    assert linux.areas["a"].size_bytes == (4 * MIB if huge else 3 * MIB)


def test_while_booting_blocks_alternate_between_nodes_but_not_in_5_13():
    for version, both in (("6.12", True), ("5.14", False)):
        linux = kernel(version, X86_IN_V8, TWO_NODES, booted=False)
        linux.apply(Vmalloc(name="dentry", size=64 * MIB, huge=True))
        node = linux.areas["dentry"].frames[::512] >= 5 * GIB >> 12
        assert linux.areas["dentry"].shift == 21
        assert node.tolist() == ([False, True] * 16 if both else [False] * 32)


def test_after_boot_memory_is_local_or_where_asked():
    linux = kernel(ranges=TWO_NODES)
    for name, node in (("a", None), ("b", 1)):
        linux.apply(Vmalloc(name=name, size=8 * MIB, huge=True, node=node))
        assert (linux.areas[name].frames >= 5 * GIB >> 12).all() == (node == 1)


def fragmented(linux):
    """Hold one page of every pageblock."""
    frames = [frame for order in (10, 9) for frame in iter(lambda: linux.memory.take(order), None)]  # noqa: B023
    held = []
    for frame in frames:
        linux.memory.split(frame)
    for zone in linux.memory.zones:
        heads = [i + zone.start for i, h in enumerate(zone.held) if h]
        held += [f for f in heads if f % 512 == 0]
        zone_frames = [f for f in heads if f % 512]
        linux.memory.give(zone_frames)
    return held


SMALL = {0: [(4 * GIB, 4 * GIB + 256 * MIB)]}


def test_without_huge_blocks_the_whole_area_is_made_again_with_base_pages():
    linux = kernel(ranges=SMALL)
    held = fragmented(linux)
    assert linux.memory.blocks(9) == 0
    misses = linux.memory.misses[9]
    happened = linux.apply(Vmalloc(name="a", size=4 * MIB + 64, huge=True, align=16 * KIB))
    area = linux.areas["a"]
    assert (area.shift, area.size_bytes, area.start % (16 * KIB)) == (12, 4 * MIB + 4 * KIB, 0)
    assert linux.counts["huge_fallbacks"] == 1
    assert linux.memory.misses[9] == misses + 1
    assert any(h.what == "failure" and "2048 KiB" in h.why for h in happened)
    assert linux.maps.space.lazy_pages == (6 * MIB >> 12) + 1 + 4, (
        "the failed area and its page array wait for a purge"
    )
    check(linux, len(held))


def test_in_v8_a_failed_huge_attempt_runs_into_a_bug():
    linux = kernel("v8", X86_IN_V8, SMALL)
    fragmented(linux)
    linux.apply(Vmalloc(name="a", size=4 * MIB))
    assert "a" not in linux.areas
    assert "BUG" in linux.maps.log[-1].why


def test_an_area_larger_than_memory_leaves_nothing_behind():
    linux = kernel(ranges=SMALL)
    free = linux.memory.free_frames()
    linux.apply(Vmalloc(name="a", size=300 * MIB, huge=True))
    assert linux.areas == {}
    assert linux.memory.free_frames() == free - (linux.maps.tables.table_bytes() >> 12)
    check(linux)


def test_reused_addresses_carry_tables_that_a_huge_area_pays_for():
    linux = kernel()
    linux.apply(Vmalloc(name="small", size=8 * MIB))
    start = linux.areas["small"].start
    tables = linux.maps.tables.table_bytes()
    linux.apply(Vfree(name="small"))
    assert linux.maps.tables.table_bytes() == tables
    linux.apply(UnmapAliases())
    happened = linux.apply(Vmalloc(name="huge", size=4 * MIB, huge=True))
    area = linux.areas["huge"]
    assert start <= area.start < start + 4 * MIB
    freed = [h for h in happened if h.why == "table freed"]
    assert [(h.what, h.end - h.start) for h in freed] == [("flush-range", 4096)] * 2
    assert linux.maps.tables.table_bytes() == tables - 2 * 4096
    check(linux)


def test_7_2_makes_base_page_areas_of_large_runs():
    longest = {}
    for version in ("6.12", "7.2"):
        linux = kernel(version, ranges={0: [(4 * GIB, 5 * GIB)]})
        age_held = age(linux.memory, unusable=0.3, seed=1)
        linux.apply(Vmalloc(name="a", size=8 * MIB))
        frames = linux.areas["a"].frames
        assert linux.areas["a"].shift == 12
        breaks = np.flatnonzero(np.diff(frames) != 1)
        longest[version] = int(np.diff(np.r_[-1, breaks, len(frames) - 1]).max())
        assert age_held
    assert longest["7.2"] >= 1024 > longest["6.12"]


@pytest.mark.parametrize(("version", "again"), [("6.6", 0), ("6.9", 2)])
def test_vmap_nodes_give_the_highest_freed_address_first(version, again):
    """Since 6.9 small freed addresses wait in a pool of their size; before, the lowest hole is taken."""
    linux = kernel(version)
    for name in "abcd":
        linux.apply(Vmalloc(name=name, size=16 * KIB))
    starts = [linux.areas[name].start for name in "abc"]
    for name in "abc":
        linux.apply(Vfree(name=name))
    linux.apply(UnmapAliases())
    linux.apply(Vmalloc(name="e", size=16 * KIB))
    assert linux.areas["e"].start == starts[again]


def test_huge_freed_in_one_piece_and_frames_return():
    linux = kernel()
    before = linux.memory.buddyinfo()
    linux.apply(Vmalloc(name="a", size=10 * MIB, huge=True))
    happened = linux.apply(Vfree(name="a"))
    assert [h.what for h in happened if h.what != "unmap"] == []
    check(linux)
    assert linux.areas == {}
    held = linux.memory.held_frames()
    assert held == linux.maps.tables.table_bytes() >> 12
    assert linux.memory.free_frames() == sum(n << k for b in before.values() for k, n in enumerate(b)) - held


def test_vrealloc_grows_into_its_slack_then_loses_its_leaves():
    linux = kernel("7.3")
    linux.apply(Vmalloc(name="a", size=4 * MIB + 64, huge=True))
    start = linux.areas["a"].start
    linux.apply(Vrealloc(name="a", size=6 * MIB))
    assert (linux.areas["a"].start, linux.areas["a"].shift) == (start, 21)
    linux.apply(Vrealloc(name="a", size=2 * MIB))
    assert len(linux.areas["a"].frames) == 6 * MIB >> 12, "a huge area that shrinks keeps all"
    linux.apply(Vrealloc(name="a", size=7 * MIB))
    assert (linux.areas["a"].shift, linux.areas["a"].size_bytes) == (12, 7 * MIB)
    check(linux)
    linux.apply(Vrealloc(name="a", size=MIB))
    assert len(linux.areas["a"].frames) == 256
    check(linux)
    linux.apply(Vfree(name="a"))
    check(linux)


# The exchange's own case: a read-only area is freed


def read_only(version="6.12", size=2 * MIB, huge=True, short=False, **more):
    linux = kernel(version, X86_IN_V8, **more)
    linux.apply(Vmalloc(name="text", size=size, huge=huge, reset=True))
    linux.apply(SetMemory(name="text", what="ro"))
    held = []
    if short:
        for order in range(10, -1, -1):
            held += iter(lambda: linux.memory.take(order), None)  # noqa: B023
    before = linux.counts.copy()
    linux.apply(Vfree(name="text"))
    spent = linux.counts - before
    return linux, before, spent


@pytest.mark.parametrize("version", ["v8", "5.13", "6.1", "6.12", "7.3"])
def test_a_huge_read_only_area_splits_when_it_is_freed(version):
    """One possible split, one table page, 1,024 attribute calls, two full flushes (reference 9)."""
    linux, before, spent = read_only(version)
    assert before["split"] == 1, "setting it read-only split 1 GiB into 2 MiB, no further"
    assert (spent["split"], spent["table_pages_taken"], spent["attribute_calls"]) == (1, 1, 1024)
    assert (spent["flush-all"], spent["purges"]) == (2, 1)
    assert (spent["left_read_only"], spent["left_absent"]) == (0, 0)
    assert linux.maps.direct.vmstat()["direct_map_level2_splits"] == 1
    check(linux)


@pytest.mark.parametrize(("how", "calls"), [("block", 2), ("range", 2)])
def test_by_block_or_by_range_it_does_not(how, calls):
    linux, _, spent = read_only(reset=how)
    assert (spent["split"], spent["attribute_calls"], spent["flush-all"]) == (0, calls, 1)
    assert linux.maps.direct.vmstat()["direct_map_level2_splits"] == 0
    check(linux)


def test_by_range_neighbouring_blocks_take_one_call():
    assert read_only(size=64 * MIB, reset="block")[2]["attribute_calls"] == 64
    assert read_only(size=64 * MIB, reset="range")[2]["attribute_calls"] == 2
    assert read_only(size=64 * MIB)[2]["attribute_calls"] == 32768


def test_without_memory_for_the_split_the_pages_stay_read_only():
    linux, _, spent = read_only(short=True)
    assert (spent["split"], spent["failure"], spent["attribute_calls"]) == (0, 1024, 1024)
    assert (spent["left_read_only"], spent["left_absent"]) == (512, 0)
    assert spent["flush-all"] == 1
    frame = linux.memory.take(9)
    assert linux.maps.direct.wrong(np.arange(frame, frame + 512)) == (512, 0), "the next owner cannot write"
    for how in ("block", "range"):
        _, _, spent = read_only(short=True, reset=how)
        assert (spent["failure"], spent["left_read_only"]) == (0, 0)


def test_base_pages_have_paid_when_they_were_made_read_only():
    linux, before, spent = read_only(huge=False, version="6.12")
    assert linux.maps.direct.vmstat()["direct_map_level2_splits"] == before["split"] - 1
    assert before["split"] >= 2
    assert (spent["split"], spent["attribute_calls"]) == (0, 1024)
    _, _, short = read_only(huge=False, version="6.12", short=True)
    assert (short["failure"], short["left_read_only"]) == (0, 0)


def test_the_flush_of_a_free_spans_area_and_direct_map_so_it_is_full():
    linux, _, _ = read_only(size=4 * KIB, huge=False)
    purge = [h for h in linux.maps.log if h.why == "purge"][-1]
    assert purge.what == "flush-all"
    direct = linux.maps.direct.start
    assert direct <= purge.start < direct + 9 * GIB
    assert purge.end > linux.maps.space.vmalloc.start


def test_scan_steps_before_and_since_v8():
    assert read_only("v8")[2]["reset_scan_steps"] == 1
    assert read_only("6.12", size=6 * MIB, huge=False)[2]["reset_scan_steps"] == 1536


# Permissions


@pytest.mark.parametrize(
    ("arch", "most"),
    [("x86-64", 33), ("x86-64-5level", 33), ("riscv-sv39", 64), ("arm64-4k", 511), ("arm64-64k", 8191)],
)
def test_from_how_many_pages_on_all_is_flushed(arch, most):
    """Reference 4.7; arm64: MAX_DVM_OPS = PTRS_PER_PTE."""
    linux = kernel("7.3", arch, SMALL)
    for pages, what in ((1, "flush-range"), (most, "flush-range"), (most + 1, "flush-all")):
        linux.maps.flush(0, pages * linux.page_bytes, "test")
        assert linux.maps.log[-1].what == what


def test_powerpc_always_flushes_all():
    linux = kernel("7.3", "powerpc64-radix-4k", SMALL)
    linux.maps.flush(0, 4096, "test")
    assert linux.maps.log[-1].what == "flush-all"


def test_a_part_of_a_huge_area_splits_area_and_direct_map():
    linux = kernel()
    linux.apply(Vmalloc(name="a", size=2 * MIB, huge=True))
    happened = linux.apply(SetMemory(name="a", what="ro", first_page=3, pages=2))
    assert [h.what for h in happened] == ["split", "flush-all"] * 2 + ["split", "flush-all", "flush-all"]
    assert linux.maps.tables.leaves() == {12: 512}
    assert linux.maps.direct.vmstat()["direct_map_level2_splits"] == 1
    area = linux.areas["a"]
    for page, bits in ((2, WRITE), (3, 0), (4, 0), (5, WRITE)):
        frame = int(area.frames[page])
        for entry in (
            linux.maps.tables.find(area.start + page * 4096),
            linux.maps.direct.tables.find(linux.maps.direct.address(frame)),
        ):
            assert (entry.bits & WRITE, entry.bits & PRESENT) == (bits, PRESENT)
    check(linux)


def test_set_memory_purges_first():
    linux = kernel()
    linux.apply(Vmalloc(name="a", size=4096))
    linux.apply(Vmalloc(name="b", size=4096))
    linux.apply(Vfree(name="b"))
    happened = linux.apply(SetMemory(name="a", what="nx"))
    assert [(h.what, h.why) for h in happened] == [("flush-range", "purge")], "and nothing changed: it was NX"


def test_rox_merges_the_area_but_not_the_direct_map_since_6_15():
    """`cpa_collapse_large_pages` is given the addresses of the call, not the alias's (41d88484c71c)."""
    for version, merged in (("6.12", False), ("6.15", True)):
        linux = kernel(version)
        linux.apply(Vmalloc(name="a", size=2 * MIB, huge=True))
        linux.apply(SetMemory(name="a", what="rox"))
        linux.apply(SetMemory(name="a", what="rw", first_page=5, pages=1))
        assert linux.maps.tables.leaves() == {12: 512}
        linux.apply(SetMemory(name="a", what="ro", first_page=5, pages=1))
        assert linux.maps.tables.leaves() == {12: 512}, "only rox tries"
        linux.apply(SetMemory(name="a", what="rw", first_page=5, pages=1))
        happened = linux.apply(SetMemory(name="a", what="rox", first_page=5, pages=1))
        assert linux.maps.tables.leaves() == ({21: 1} if merged else {12: 512})
        assert [h.what for h in happened] == ["flush-all"] + ["merge", "flush-all"] * merged
        assert linux.maps.direct.vmstat()["direct_map_level2_splits"] == 1
        assert linux.maps.direct.vmstat()["direct_map_level2_collapses"] == 0
        check(linux)


def test_rox_on_the_direct_map_itself_merges_there_and_only_rox():
    linux = kernel("6.15")
    frame = 6 * GIB >> 12
    before = linux.maps.direct.meminfo()
    linux.maps.set_direct(frame + 9, 1, "ro")
    linux.maps.set_direct(frame + 9, 1, "rw")
    assert linux.maps.direct.meminfo() != before
    linux.maps.set_direct(frame, 512, "rox")
    assert linux.maps.direct.vmstat()["direct_map_level2_collapses"] == 1
    assert linux.counts["merge"] == 1
    linux.maps.set_direct(frame, 512, "rw")
    assert linux.maps.direct.vmstat()["direct_map_level3_collapses"] == 0, "plain rw never merges"


def test_arm64_refuses_what_may_be_huge_and_mirrors_page_by_page():
    linux = kernel("6.18", "arm64-4k")
    linux.apply(Vmalloc(name="may", size=64 * KIB, huge=True))
    assert "EINVAL" in linux.apply(SetMemory(name="may", what="ro"))[0].why
    linux.apply(Vmalloc(name="text", size=12 * KIB, reset=True))
    happened = linux.apply(SetMemory(name="text", what="ro"))
    flushes = [h for h in happened if h.what.startswith("flush")]
    assert [h.what for h in flushes] == ["flush-range"] * 4
    assert [h.what for h in happened if h.what == "split"] == ["split"] * 4, "in place, without a flush"
    area = linux.areas["text"]
    assert linux.maps.direct.wrong(area.frames) == (3, 0)
    linux.apply(Vfree(name="text"))
    assert linux.counts["left_read_only"] == 0
    linux.apply(Vmalloc(name="loose", size=4 * KIB))
    assert "split" not in {h.what for h in linux.apply(SetMemory(name="loose", what="x"))}


def test_arm64_without_rodata_full_leaves_the_linear_map_alone():
    linux = kernel("6.12", "arm64-4k", rodata_full=False)
    linux.apply(Vmalloc(name="text", size=12 * KIB, reset=True))
    linux.apply(SetMemory(name="text", what="ro"))
    linux.apply(Vfree(name="text"))
    assert linux.counts["split"] == 0
    assert linux.counts["attribute_calls"] == 1


def test_contiguous_ptes_on_arm64_since_6_16():
    linux = kernel("6.16", "arm64-4k")
    linux.apply(Vmalloc(name="a", size=100 * KIB, huge=True))
    area = linux.areas["a"]
    assert (area.shift, area.size_bytes, area.start % (64 * KIB)) == (16, 128 * KIB, 0)
    assert linux.maps.tables.leaves() == {16: 2}
    check(linux)


def test_events_come_from_plain_data_and_mistakes_are_told():
    events = msgspec.convert(
        [{"event": "vmalloc", "name": "a", "size": 4096}, {"event": "vfree", "name": "a"}],
        list[Vmalloc | Vfree],
    )
    linux = kernel()
    for event in events:
        linux.apply(event)
    assert isinstance(events[0], Event)
    with pytest.raises(BadInput, match="no such area"):
        linux.apply(Vfree(name="a"))
    linux.apply(events[0])
    with pytest.raises(BadInput, match="exists already"):
        linux.apply(events[0])
    with pytest.raises(BadInput, match="it has 1 pages"):
        linux.apply(SetMemory(name="a", what="ro", pages=2))
    with pytest.raises(BadInput, match="no kernel knows"):
        linux.apply(3)
