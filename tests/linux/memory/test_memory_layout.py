"""A modelled kernel as the layout of a trace."""

import numpy as np
import pytest

from kernels_in_memory import GIB, TWO_NODES, kernel
from pagewalk.linux.geometry import MIB
from pagewalk.linux.mapping import map_trace
from pagewalk.linux.memory.kernel import SetMemory, Vmalloc
from pagewalk.linux.modelled import layout_of


def pages_of(*addresses):
    return np.array(addresses, np.uint64) >> np.uint64(12)


def test_a_trace_sees_the_leaves_and_frames_of_the_kernel():
    linux = kernel()
    linux.apply(Vmalloc(name="table", size=4 * MIB, huge=True, caller="alloc_fdtable"))
    linux.apply(Vmalloc(name="small", size=64 << 10, caller="load_module"))
    linux.apply(SetMemory(name="table", what="ro", first_page=512, pages=1))
    table, small = linux.areas["table"], linux.areas["small"]
    direct = linux.maps.direct.address(int(table.frames[512]))
    where = [
        table.start + 5 * 4096,
        table.start + 2 * MIB + 4096,
        small.start + 8192,
        direct,
        direct + 2 * MIB,
    ]
    layout = layout_of(linux)
    mapping = map_trace(pages_of(*where), layout, "recorded")
    assert mapping.leaf_shift.tolist() == [21, 12, 12, 12, 21]
    expected = [
        table.frames[5],
        table.frames[513],
        small.frames[2],
        table.frames[512],
        table.frames[512] + 512,
    ]
    assert mapping.frame.tolist() == expected
    regions = [mapping.regions[i] for i in mapping.region]
    assert [region.caller for region in regions[:3]] == ["alloc_fdtable", "alloc_fdtable", "load_module"]
    assert regions[3].name == "direct map"


def test_areas_have_their_guard_leaf_and_nodes():
    linux = kernel(ranges=TWO_NODES, booted=False)
    linux.apply(Vmalloc(name="dentry", size=8 * MIB, huge=True, caller="alloc_large_system_hash"))
    (area, array) = layout_of(linux).areas
    assert (array.leaf, array.pages, area.leaf, area.pages) == ("base", 4, "PMD", 2048)
    assert area.nodes == ((0, 1024), (1, 1024))
    assert area.size_bytes == area.end - area.start == 8 * MIB + 4096


def test_contiguous_frames_come_along():
    """7.2 makes a base-page area of one run: whole aligned blocks could be coalesced."""
    largest = {}
    for version in ("6.12", "7.2"):
        linux = kernel(version)
        linux.memory.give([linux.memory.take(0) for _ in range(3)][1:2])
        linux.apply(Vmalloc(name="a", size=MIB))
        area = linux.areas["a"]
        mapping = map_trace(pages_of(*range(area.start, area.end, 4096)), layout_of(linux), "recorded")
        assert (mapping.leaf_shift == 12).all()
        largest[version] = int(mapping.contiguous_shift.max())
    assert largest["7.2"] > largest["6.12"] >= 12


@pytest.mark.parametrize("arch", ["arm64-4k", "powerpc64-radix-64k", "riscv-sv39"])
def test_other_geometries(arch):
    linux = kernel("6.16", arch, ranges={0: [(0, GIB)]})
    linux.apply(Vmalloc(name="a", size=256 << 10, huge=True, caller="small"))
    linux.apply(Vmalloc(name="b", size=2 * MIB, huge=True, caller="large"))
    layout = layout_of(linux)
    total = sum(int(run["count"]) << int(run["shift"]) for run in layout.runs)
    assert total == GIB + sum(len(area.frames) for area in linux.areas.values()) * linux.page_bytes
    leaves = {area.caller: area.leaf for area in layout.areas if area.caller}
    assert leaves == {"small": "contPTE" if arch == "arm64-4k" else "base", "large": "PMD"}


def test_absent_pages_are_not_mapped():
    linux = kernel()
    linux.maps.direct.change(4 * GIB >> 12, 1, 0, 1)
    address = linux.maps.direct.address(4 * GIB >> 12)
    runs = layout_of(linux).runs
    inside = (runs["va"] <= np.uint64(address)) & (
        np.uint64(address) < runs["va"] + (runs["count"].astype(np.uint64) << runs["shift"].astype(np.uint64))
    )
    assert not inside.any()
