"""A recorded boot (Linux 6.1, 64 GiB, 2 nodes) against the model: where its tables lie, in which leaves."""

import json
import re

import pytest

from kernels_in_memory import GIB, check, kernel
from pagewalk.linux.executable import LoadBpf
from pagewalk.linux.memory.areas import Span
from pagewalk.linux.memory.kernel import Booted, Vmalloc
from places import OUTSIDE

TRACES = OUTSIDE / "traces"
NODES = {0: [(0, 3 * GIB), (4 * GIB, 33 * GIB)], 1: [(33 * GIB, 65 * GIB)]}
TABLES = "alloc_large_system_hash"
LATER = {"nf_ct_alloc_hashtable": True, "alloc_fdtable": True, "htab_map_alloc": False}
"""Callers after boot whose large areas are predicted, and whether they ask for huge ones (kvmalloc does)."""


@pytest.fixture(scope="module", params=["gitdiff", "gitdiff-small", "fdtable", "bpfhash"])
def recorded(request):
    """Areas of the vmalloc space; tables in the order of the log: name, bytes, whether huge; other areas."""
    folder = TRACES / request.param
    if not folder.exists():
        pytest.skip("needs the shared traces")
    areas = json.loads((folder / "regions.json").read_text())
    for area in areas:
        area["start"], area["end"] = int(area["start"], 16), int(area["end"], 16)
        area["caller"] = area["caller"].split("+")[0]
    lines = json.loads((folder / "meta.json").read_text())["hash_tables"]
    tables = [re.match(r"(.*) hash table entries.*?(\d+) bytes(.*)\)", line).groups() for line in lines]
    tables = [(name, int(size), "hugepage" in kind) for name, size, kind in tables if "vmalloc" in kind]
    inside = [area for area in areas if area["start"] < 0xFFFF_E900_0000_0000]
    return inside, tables, [area for area in areas if area not in inside]


def replayed(areas, tables):
    """A kernel that has made the tables in the order of the boot log, then the large areas of later callers.

    What the log does not order is put where it was found, as soon as everything below it exists: at first the
    four areas below the first table, later whatever starts at or below the highest address in use.
    """
    others = [area for area in areas if area["caller"] not in (TABLES, *LATER)]
    linux = kernel("6.1", ranges=NODES, booted=False)

    def put(wanted):
        for area in [area for area in others if wanted(area)]:
            span = Span(area["start"], area["end"])
            assert linux.maps.space.allocate(area["bytes"], 1, span) == area["start"]
            others.remove(area)

    first = min(area["start"] for area in areas if area["caller"] == TABLES)
    put(lambda area: area["start"] < first)
    steps = [(name, size, TABLES) for name, size, _ in tables]
    for caller in LATER:
        large = [area for area in areas if area["caller"] == caller and area["bytes"] > 1 << 21]
        steps += [(f"{caller} {n}", area["bytes"] - 4096, caller) for n, area in enumerate(large)]
    for step, (name, size, caller) in enumerate(steps):
        if step == len(tables):
            linux.apply(Booted())
        linux.apply(Vmalloc(name=name, size=size, huge=LATER.get(caller, True), caller=caller))
        if name not in ("Dentry cache", "Inode-cache", "Mount-cache"):  # these follow each other at once
            top = linux.maps.space.used()[-1].end
            put(lambda area: area["start"] <= top)  # noqa: B023
    return linux


def test_every_table_and_page_array_lies_where_it_was_recorded(recorded):
    areas, tables, _ = recorded
    linux = replayed(areas, tables)
    found = {
        area.start: (area.span_bytes, "2M" if area.shift == 21 else "4K", area.caller)
        for area in linux.areas.values()
    }
    expected = {
        area["start"]: (area["bytes"], area["mapping"], area["caller"])
        for area in areas
        if area["caller"] in (TABLES, *LATER)
    }
    assert found == expected
    assert len(found) >= 18
    assert linux.areas["Dentry cache"].start == 0xFFFF_C900_0020_0000
    assert linux.areas["Dentry cache.pages"].start == 0xFFFF_C900_0000_F000


def test_which_tables_are_huge_as_the_boot_log_says(recorded):
    areas, tables, _ = recorded
    linux = replayed(areas, tables)
    assert {name: linux.areas[name].shift == 21 for name, _, _ in tables} == {
        name: huge for name, _, huge in tables
    }
    assert {name for name, _, huge in tables if huge} == {"Dentry cache", "Inode-cache", "TCP established"}


def test_tables_are_spread_over_the_nodes_as_recorded(recorded):
    areas, tables, _ = recorded
    linux = replayed(areas, tables)
    nodes = {area["start"]: area["nodes"] for area in areas}
    for area in linux.areas.values():
        second = int((area.frames >= 33 * GIB >> 12).sum())
        counted = {"N0": len(area.frames) - second, "N1": second}
        assert {name: pages for name, pages in counted.items() if pages} == nodes[area.start]


def test_the_first_pack_of_bpf_programs_is_as_recorded(recorded):
    """2 MiB for each node, base pages that alternate between them, a page array; only the address differs."""
    areas = recorded[0]
    linux = kernel("6.1", ranges=NODES, booted=False)
    linux.apply(LoadBpf(name="first", size=100))
    pack = next(area for area in linux.areas.values() if area.start >= linux.maps.space.modules.start)
    second = int((pack.frames >= 33 * GIB >> 12).sum())
    found = [(pack.span_bytes, "4K", {"N0": len(pack.frames) - second, "N1": second})]
    (array,) = (area for area in linux.areas.values() if area is not pack)
    found.append((array.span_bytes, "4K", {"N0": 1, "N1": 1}))
    theirs = [area for area in areas + recorded[2] if area["caller"] == "bpf_prog_pack_alloc"]
    assert sorted(map(repr, found)) == sorted(repr((a["bytes"], a["mapping"], a["nodes"])) for a in theirs)


def test_every_large_area_of_vmalloc_has_its_page_array(recorded):
    """8 bytes a page, an area of its own above one page (percpu chunks keep theirs elsewhere)."""
    areas = recorded[0]
    large = [a for a in areas + recorded[2] if a["kind"] == "vmalloc" and (a["pages"] or 0) > 512]
    large = [area for area in large if not area["caller"].startswith("pcpu")]
    assert len(large) >= 5
    for area in large:
        size = (-(-area["pages"] * 8 // 4096) + 1) * 4096
        assert (area["caller"], size) in {(other["caller"], other["bytes"]) for other in areas}


def test_the_books_of_that_kernel(recorded):
    areas, tables, _ = recorded
    linux = replayed(areas, tables)
    for start in set(linux.maps.space.busy) - {area.start for area in linux.areas.values()}:
        del linux.maps.space.busy[start]
    check(linux)
