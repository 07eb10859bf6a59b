"""What changing permissions does on each architecture, by the rules of its own source; flushes by range."""

import pytest

from kernels_in_memory import GIB, check, kernel
from pagewalk.linux.executable import AddTrampoline, RemoveTrampoline
from pagewalk.linux.geometry import GEOMETRIES, MIB
from pagewalk.linux.memory.direct_map import DirectMap
from pagewalk.linux.memory.kernel import SetMemory, UnmapAliases, Vfree, Vmalloc
from pagewalk.linux.memory.maps import full_flush_above
from pagewalk.linux.memory.page_tables import NO_EXEC, WRITE
from pagewalk.linux.rules.releases import release

KIB = 1 << 10
SMALL = {0: [(4 * GIB, 5 * GIB)]}


def whats(happened):
    return [h.what for h in happened]


def direct_leaf(linux, frame):
    return linux.maps.direct.tables.find(linux.maps.direct.address(int(frame)))


# -- x86: arrays of pages


def test_an_array_of_pages_is_taken_one_page_at_a_time():
    """Reference 4.2: CPA_ARRAY splits what one call for the whole leaf would have kept."""
    split = {}
    for array in (False, True):
        linux = kernel("6.12")
        linux.apply(Vmalloc(name="a", size=2 * MIB, huge=True))
        happened = linux.apply(SetMemory(name="a", what="ro", array=array))
        split[array] = sorted(h.end - h.start for h in happened if h.what == "split")
        assert whats(happened)[-1] == "flush-all"
        assert linux.maps.direct.wrong(linux.areas["a"].frames) == (512, 0)
        check(linux)
    assert split == {False: [GIB], True: [2 * MIB, 2 * MIB, GIB]}, (
        "the area's leaf, and its alias two sizes down"
    )


# -- powerpc64: page by page, each with its flush; huge areas are refused; the linear map stays


def test_powerpc_changes_page_by_page_and_not_what_is_huge():
    linux = kernel("6.12", "powerpc64-radix-4k", SMALL)
    linux.apply(Vmalloc(name="text", size=12 * KIB, reset=True))
    area = linux.areas["text"]
    happened = linux.apply(SetMemory(name="text", what="rox"))
    assert whats(happened) == ["flush-all"] * 3, (
        "each page; radix always flushes all of the kernel (reference 4.7)"
    )
    assert linux.maps.tables.find(area.start).bits & (WRITE | NO_EXEC) == 0
    assert direct_leaf(linux, area.frames[0]).shift == 30
    assert linux.maps.direct.wrong(area.frames) == (0, 0)
    linux.apply(Vmalloc(name="huge", size=2 * MIB, huge=True))
    (refused,) = linux.apply(SetMemory(name="huge", what="ro", pages=1))
    assert (refused.what, "EINVAL" in refused.why) == ("failure", True)
    calls = linux.counts["attribute_calls"]
    assert whats(linux.apply(Vfree(name="text"))) == ["unmap", "flush-all"]
    assert linux.counts["attribute_calls"] == calls, "there is no set_direct_map on powerpc"
    check(linux)


# -- riscv: the linear map page by page, then whole leaves of the area; one full flush


def test_riscv_splits_the_linear_map_and_changes_whole_leaves_of_the_area():
    linux = kernel("6.12", "riscv-sv48", SMALL)
    linux.apply(Vmalloc(name="a", size=2 * MIB, huge=True, reset=True))
    area = linux.areas["a"]
    happened = linux.apply(SetMemory(name="a", what="ro", first_page=7, pages=2))
    assert whats(happened) == ["split", "split", "flush-all"], "one flush, whatever was split"
    assert linux.maps.tables.leaves() == {21: 1}, "the area's leaf is not cut"
    assert linux.maps.tables.find(area.start).bits & WRITE == 0, (
        "so pages that were not meant are read-only too"
    )
    assert linux.maps.direct.wrong(area.frames) == (2, 0)
    happened = linux.apply(Vfree(name="a"))
    assert whats(happened).count("flush-all") == 2 * 512 + 1, "each reset call, and the purge"
    assert linux.counts["left_read_only"] == 0
    check(linux)


def test_riscv_left_the_linear_map_alone_before_6_8():
    linux = kernel("6.6", "riscv-sv48", SMALL)
    linux.apply(Vmalloc(name="a", size=64 * KIB))
    assert whats(linux.apply(SetMemory(name="a", what="ro"))) == ["flush-all"]
    assert direct_leaf(linux, linux.areas["a"].frames[0]).shift == 30


# -- arm64: the linear map by release


@pytest.mark.parametrize(
    ("version", "more", "largest"),
    [
        ("6.12", {}, 12),
        ("6.17", {}, 12),
        ("6.18", {}, 30),
        ("6.18", {"linear_leaves": "pages"}, 12),
        ("6.12", {"rodata_full": False}, 30),
    ],
)
def test_the_linear_map_of_arm64(version, more, largest):
    """Reference 4.5: base pages with rodata_full, until CPUs may change a leaf's size in place (6.18)."""
    linux = kernel(version, "arm64-4k", SMALL, **more)
    assert max(linux.maps.direct.tables.leaves()) == largest


def test_base_pages_of_the_linear_map_cost_2_mib_for_each_gib():
    """M12: MemTotal grew by 516,148 kB on about 256 GB; 8 bytes for each 4 KiB of 256 GiB are 512 MiB."""
    bytes_of = {}
    for leaves in ("pages", "blocks"):
        direct = DirectMap(GEOMETRIES["arm64-4k"], [(0, GIB)], lambda: 1, lambda page: None, leaves)
        bytes_of[leaves] = direct.tables.table_bytes()
    saved = 256 * (bytes_of["pages"] - bytes_of["blocks"])
    assert saved == 512 * MIB + 256 * 4 * KIB, "and a PMD table for each GiB"
    assert saved >> 10 == pytest.approx(516_148, rel=0.03)


# -- flushes of a range


@pytest.mark.parametrize(
    ("arch", "version", "tlb_range", "most"),
    [
        ("x86-64", "6.1", False, 33),
        ("x86-64", "7.3", False, 33),
        ("riscv-sv48", "7.3", False, 64),
        ("powerpc64-radix-64k", "6.12", False, 0),
        ("arm64-4k", "6.1", False, 512),
        ("arm64-4k", "7.3", False, 511),
        ("arm64-64k", "7.3", False, 8191),
        ("arm64-4k", "7.3", True, 2_097_152),
    ],
)
def test_how_many_pages_are_flushed_one_by_one(arch, version, tlb_range, most):
    assert full_flush_above(GEOMETRIES[arch], release(version), tlb_range) == most


def test_a_pmd_leaf_counts_as_512_pages_and_becomes_a_full_flush():
    """Fact 10: the flush counts base pages, whatever the leaf."""
    linux = kernel("6.12")
    linux.apply(Vmalloc(name="a", size=2 * MIB, huge=True))
    linux.apply(Vfree(name="a"))
    assert whats(linux.apply(UnmapAliases())) == ["flush-all"]
    for pages, what in ((32, "flush-range"), (33, "flush-all")):
        linux.apply(Vmalloc(name="b", size=pages * 4096))
        linux.apply(Vfree(name="b"))
        assert whats(linux.apply(UnmapAliases())) == [what], "the guard page counts too"


def test_arm64_with_range_operations_flushes_a_range_where_others_flush_all():
    for tlb_range, what in ((False, "flush-all"), (True, "flush-range")):
        linux = kernel("7.3", "arm64-4k", SMALL, tlb_range=tlb_range)
        linux.apply(Vmalloc(name="a", size=8 * MIB, huge=True))
        linux.apply(Vfree(name="a"))
        assert whats(linux.apply(UnmapAliases())) == [what]


# -- the reset of a freed area


def test_small_read_only_pages_of_one_block_have_paid_already():
    """Reference 9: what was made read-only page by page splits no more when it is freed."""
    linux = kernel("6.12")
    for number in range(128):
        linux.apply(Vmalloc(name=str(number), size=4096, reset=True))
        linux.apply(SetMemory(name=str(number), what="ro"))
    split = linux.counts["split"]
    for number in range(128):
        linux.apply(Vfree(name=str(number)))
    assert linux.counts["split"] == split
    assert (linux.counts["left_read_only"], linux.counts["left_absent"]) == (0, 0)


def test_the_cache_s_areas_are_made_valid_by_block():
    """4.1: set_direct_map_valid_noflush takes a number of pages, and the cache calls it for each block."""
    linux = kernel("6.15")
    linux.apply(AddTrampoline(name="t", size=2 * MIB))
    calls = linux.counts["attribute_calls"]
    linux.apply(RemoveTrampoline(name="t"))
    assert linux.counts["attribute_calls"] - calls == 3, "rw, rox, and one block made valid"
    assert linux.areas == {}
    assert linux.counts["left_read_only"] == 0
    check(linux)
