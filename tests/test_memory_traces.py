"""A recorded boot (Linux 6.1, 64 GiB, 2 nodes) against the model: where its tables lie, in which leaves."""

import json
import re
from pathlib import Path

import pytest

from kernels_in_memory import GIB, check, kernel
from pagewalk.linux.memory.areas import Span
from pagewalk.linux.memory.kernel import Booted, Vmalloc

TRACES = Path(__file__).parents[2] / "shared/traces"
NODES = {0: [(0, 3 * GIB), (4 * GIB, 33 * GIB)], 1: [(33 * GIB, 65 * GIB)]}
TABLES = "alloc_large_system_hash"


@pytest.fixture(scope="module", params=["gitdiff", "fdtable"])
def recorded(request):
    """Areas of the vmalloc space, and the tables in the order of the boot log: name, bytes, whether huge."""
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
    return [area for area in areas if area["start"] < 0xFFFF_E900_0000_0000], tables


def replayed(areas, tables):
    """A kernel that has made the tables in the order of the boot log, then those of kvmalloc users.

    What the log does not order is put where it was found, as soon as everything below it exists: at first the
    four areas below the first table, later whatever starts at or below the highest address in use.
    """
    predicted = (TABLES, "nf_ct_alloc_hashtable", "alloc_fdtable")
    others = [area for area in areas if area["caller"] not in predicted]
    linux = kernel("6.1", ranges=NODES, booted=False)

    def put(wanted):
        for area in [area for area in others if wanted(area)]:
            span = Span(area["start"], area["end"])
            assert linux.maps.space.allocate(area["bytes"], 1, span) == area["start"]
            others.remove(area)

    first = min(area["start"] for area in areas if area["caller"] == TABLES)
    put(lambda area: area["start"] < first)
    steps = [(name, size, TABLES) for name, size, _ in tables]
    for caller in predicted[1:]:
        large = [area for area in areas if area["caller"] == caller and area["mapping"] == "2M"]
        steps += [(caller, area["bytes"] - 4096, caller) for area in large]
    for step, (name, size, caller) in enumerate(steps):
        if step == len(tables):
            linux.apply(Booted())
        linux.apply(Vmalloc(name=name, size=size, huge=True, caller=caller))
        if name not in ("Dentry cache", "Inode-cache", "Mount-cache"):  # these follow each other at once
            top = linux.maps.space.used()[-1].end
            put(lambda area: area["start"] <= top)  # noqa: B023
    return linux


def test_every_table_and_page_array_lies_where_it_was_recorded(recorded):
    areas, tables = recorded
    linux = replayed(areas, tables)
    found = {
        area.start: (area.span_bytes, "2M" if area.shift == 21 else "4K", area.caller)
        for area in linux.areas.values()
    }
    expected = {
        area["start"]: (area["bytes"], area["mapping"], area["caller"])
        for area in areas
        if area["caller"] in (TABLES, "nf_ct_alloc_hashtable", "alloc_fdtable")
    }
    assert found == expected
    assert len(found) >= 18
    assert linux.areas["Dentry cache"].start == 0xFFFF_C900_0020_0000
    assert linux.areas["Dentry cache.pages"].start == 0xFFFF_C900_0000_F000


def test_which_tables_are_huge_as_the_boot_log_says(recorded):
    areas, tables = recorded
    linux = replayed(areas, tables)
    assert {name: linux.areas[name].shift == 21 for name, _, _ in tables} == {
        name: huge for name, _, huge in tables
    }
    assert {name for name, _, huge in tables if huge} == {"Dentry cache", "Inode-cache", "TCP established"}


def test_tables_are_spread_over_the_nodes_as_recorded(recorded):
    areas, tables = recorded
    linux = replayed(areas, tables)
    nodes = {area["start"]: area["nodes"] for area in areas}
    for area in linux.areas.values():
        second = int((area.frames >= 33 * GIB >> 12).sum())
        counted = {"N0": len(area.frames) - second, "N1": second}
        assert {name: pages for name, pages in counted.items() if pages} == nodes[area.start]


def test_the_books_of_that_kernel(recorded):
    areas, tables = recorded
    linux = replayed(areas, tables)
    for start in set(linux.maps.space.busy) - {area.start for area in linux.areas.values()}:
        del linux.maps.space.busy[start]
    check(linux)
