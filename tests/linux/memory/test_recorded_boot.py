"""The scenario ``recorded-boot`` against the recording: sizes, alignment, leaves, order, addresses."""

import json
from collections import Counter

import pytest

from pagewalk.linux.boot import boot_of
from pagewalk.linux.memory.kernel import Kernel
from pagewalk.linux.rules.hash_tables import boot_log
from pagewalk.study.play.steps import Access, expanded, start
from pagewalk.study.scenario import read
from places import OUTSIDE

TRACES = OUTSIDE / "traces"
TABLES = "alloc_large_system_hash"
PMD = 2 << 20


def modelled(name: str) -> Kernel:
    scenario = read("recorded-boot")
    kernel = start(next(table for table in scenario.kernel if table.name == name), "x86-64")
    for _, event in expanded(scenario.event):
        if not isinstance(event, Access):
            kernel.apply(event)
    return kernel


@pytest.fixture(scope="module")
def huge():
    return modelled("huge")


@pytest.fixture(scope="module", params=["gitdiff", "gitdiff-small", "fdtable", "bpfhash"])
def recorded(request):
    folder = TRACES / request.param
    if not folder.exists():
        pytest.skip("needs the shared traces")
    areas = json.loads((folder / "regions.json").read_text())
    for area in areas:
        area["start"] = int(area["start"], 16)
        area["caller"] = (area["caller"] or "").split("+")[0]
    log = json.loads((folder / "meta.json").read_text())["hash_tables"]
    return sorted(areas, key=lambda area: area["start"]), log


def shapes(areas):
    return Counter((size, leaf) for size, leaf in areas)


def test_the_formula_gives_the_recorded_log(recorded):
    table = next(t for t in read("recorded-boot").kernel if t.name == "huge")
    lines = [line for line in boot_log(boot_of(start(table, "x86-64"))) if "entries" in line]
    assert lines == recorded[1]


def test_sizes_and_leaves_of_all_tables_and_page_arrays(recorded, huge):
    found = shapes(
        (area.span_bytes, "2M" if area.shift == 21 else "4K")
        for area in huge.areas.values()
        if area.caller == TABLES
    )
    expected = shapes((a["bytes"], a["mapping"]) for a in recorded[0] if a["caller"] == TABLES)
    assert found == expected
    assert sum(found.values()) >= 16


def test_order_and_alignment_of_what_is_huge(recorded, huge):
    found = sorted((a for a in huge.areas.values() if a.shift == 21), key=lambda area: area.start)
    expected = [a for a in recorded[0] if a["mapping"] == "2M"]
    tables = [(a.caller, a.span_bytes, a.start % PMD) for a in found if a.caller == TABLES]
    assert tables == [(a["caller"], a["bytes"], a["start"] % PMD) for a in expected if a["caller"] == TABLES]
    later = {(a.caller, a.span_bytes, a.start % PMD) for a in found if a.caller != TABLES}
    assert {
        (a["caller"], a["bytes"], a["start"] % PMD) for a in expected if a["caller"] != TABLES
    } <= later, "each kvmalloc user of the recording has its like in the model"


def test_addresses_as_long_as_the_order_of_events_is_known(recorded, huge):
    """The first four tables follow each other at once; later ones depend on stacks and drivers between."""
    where = {area["start"]: area for area in recorded[0]}
    first = [n for n in huge.areas if huge.areas[n].start < 0xFFFF_C900_0000_F000]
    assert first == ["interrupt stack", "ACPI 1", "ACPI 2", "HPET", "pool"]
    known = [*first, "Dentry cache", "Dentry cache.pages", "Inode-cache", "Inode-cache.pages"]
    for name in [*known, "Mount-cache", "Mountpoint-cache"]:
        area = huge.areas[name]
        assert (where[area.start]["bytes"], where[area.start]["caller"]) == (area.span_bytes, area.caller)
    assert huge.areas["Dentry cache"].start == 0xFFFF_C900_0020_0000
    assert huge.areas["Inode-cache"].start == 0xFFFF_C900_0440_0000


def test_nodes_of_the_large_tables(recorded, huge):
    boundary = huge.memory.zones[-1].start
    for name in ("Dentry cache", "Inode-cache", "TCP established"):
        area = huge.areas[name]
        second = int((area.frames >= boundary).sum())
        its_like = [a for a in recorded[0] if a["bytes"] == area.span_bytes and a["caller"] == TABLES]
        assert [a["nodes"] for a in its_like] == [{"N0": len(area.frames) - second, "N1": second}]


def test_without_huge_vmalloc_the_same_tables_have_base_pages():
    base = modelled("base")
    assert {area.shift for area in base.areas.values()} == {12}
    assert base.areas["Dentry cache"].size_bytes == 64 << 20
