"""meminfo, vmstat, buddyinfo, pagetypeinfo, boot log; and all readers against damage."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import geometry
from pagewalk.linux.observe.boot_log import read_boot_log
from pagewalk.linux.observe.events import read_events
from pagewalk.linux.observe.events import to_layout as layout_of_events
from pagewalk.linux.observe.layouts import read_observed_layout
from pagewalk.linux.observe.memory import (
    free_blocks,
    read_buddyinfo,
    read_meminfo,
    read_pagetypeinfo,
    read_vmstat,
)
from pagewalk.linux.observe.page_tables import read_page_tables
from pagewalk.linux.observe.vmallocinfo import read_vmallocinfo, to_layout
from pagewalk.linux.rules.eligibility import Kernel
from pagewalk.linux.rules.hash_tables import Boot, boot_tables
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import release
from places import TEST_DATA

DATA = TEST_DATA / "kernel"


def test_meminfo():
    values = read_meminfo(DATA / "meminfo-6.18-x86_64.txt")
    assert values["MemTotal"] == 24_682_416 << 10
    assert values["HugePages_Total"] == 0
    direct = [values[key] for key in ("DirectMap4k", "DirectMap2M", "DirectMap1G")]
    assert direct == [28_672 << 10, 2_068_480 << 10, 25_165_824 << 10]  # reference 4.3


def test_vmstat():
    values = read_vmstat(DATA / "vmstat-6.18-x86_64.txt")
    assert values["direct_map_level2_splits"] == 4  # reference 4.3
    assert values["compact_stall"] == 0
    assert len(values) == 192


def test_buddyinfo():
    zones = read_buddyinfo(DATA / "buddyinfo-6.18-x86_64.txt")
    assert zones[0, "DMA"] == (0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 3)
    assert list(zones) == [(0, "DMA"), (0, "DMA32"), (0, "Normal")]
    # reference 7.4: blocks of order 9 without compaction: those of 9, and two of each of 10
    assert free_blocks(zones[0, "Normal"], 9) == 536 + 2 * 1624


def test_pagetypeinfo_adds_up_to_buddyinfo():
    """Both samples are of one machine; by type and in all, taken a moment apart."""
    info = read_pagetypeinfo(DATA / "pagetypeinfo-6.18-x86_64.txt")
    zones = read_buddyinfo(DATA / "buddyinfo-6.18-x86_64.txt")
    assert info.pageblock_order == 9
    assert set(info.free) == set(info.pageblocks) == set(zones)
    for zone, types in info.free.items():
        for order, count in enumerate(zones[zone]):
            of_types = sum(counts[order] for counts in types.values())
            assert abs(of_types - count) <= max(3, count // 50)
    assert info.pageblocks[0, "Normal"] == {
        "Unmovable": 198, "Movable": 9249, "Reclaimable": 601, "HighAtomic": 0, "Isolate": 0,
    }  # fmt: skip


def test_boot_log_of_the_sample():
    path = DATA / "dmesg-hash-tables-24GiB-1node.txt"
    log = read_boot_log(path)
    boot = Boot(
        Kernel(release("6.18"), hooks("x86-64")), int(23.4 * (1 << 30)), 2, paravirtual_spinlocks=True
    )
    modelled = {t.name: (t.entries, t.size_bytes) for t in boot_tables(boot)}
    assert {t.name: (t.entries, t.size_bytes) for t in log.tables} == modelled
    assert {t.place for t in log.tables if t.name != "Dquot-cache"} == {"linear"}
    assert (log.release, log.parameters) == (None, ())


def test_boot_log_with_its_head(tmp_path):
    path = tmp_path / "dmesg"
    path.write_text(
        "[    0.000000] Linux version 6.1.0-56-amd64 (x@y) (gcc 12) #1 SMP\n"
        "[    0.000000] Command line: console=ttyS0 nohugevmalloc\n"
        "[    0.1] Dentry cache hash table entries: 8388608 (order: 14, 67108864 bytes, vmalloc hugepage)\n"
    )
    log = read_boot_log(path)
    assert log.release == release("6.1")
    assert log.parameters == ("console=ttyS0", "nohugevmalloc")
    assert log.tables[0].place == "vmalloc hugepage"


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (read_meminfo, ""),
        (read_meminfo, "MemFree: 1 kB\n"),
        (read_meminfo, "MemTotal 1 kB\n"),
        (read_meminfo, f"MemTotal: {10**30} kB\n"),
        (read_vmstat, ""),
        (read_vmstat, "nr_free_pages\n"),
        (read_vmstat, "nr_free_pages 9999999999999999999\n"),
        (read_buddyinfo, ""),
        (read_buddyinfo, "Node 0, zone Normal\n"),
        (read_buddyinfo, "Node 0, zone Normal 1 2\nNode 1, zone Normal 1 2 3\n"),
        (read_buddyinfo, "Node 0, zone Normal 1 2\nNode 0, zone Normal 1 2\n"),
        (read_pagetypeinfo, ""),
        (read_pagetypeinfo, "Page block order: 9\n"),
        (read_boot_log, "hello\n"),
    ],
)
def test_bad_files(tmp_path, read, text):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(BadInput, match=re.escape(str(path))):
        read(path)


@pytest.mark.parametrize(
    "read",
    [
        read_meminfo,
        read_vmstat,
        read_buddyinfo,
        read_pagetypeinfo,
        read_boot_log,
        read_events,
        read_vmallocinfo,
    ],
)
def test_missing_files_and_folders(tmp_path, read):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BadInput):
            read(path)


VMALLOCINFO = b"""\
0xffffc90000000000-0xffffc90000005000   20480 irq_init_percpu_irqstack+0xca/0x100 vmap
0xffffc90000005000-0xffffc90000007000    8192 acpi_os_map_iomem+0x1bc/0x1e0 phys=0x00000000000a0000 ioremap
0xffffc90000200000-0xffffc90000c01000 10489856 futex_hash_allocate+0xd/0x50 pages=2560 vmalloc vpages N0=2560
0xffffc90000c01000-0xffffc90000c06000   20480 kernel_clone+0x94/0x3e0 [mod] pages=4 vmalloc N0=3 N1=1
0xffffc90000c08000-0xffffc90000c0d000   20480 unpurged vm_area
"""


READERS = {
    "meminfo-6.18-x86_64.txt": read_meminfo,
    "vmstat-6.18-x86_64.txt": read_vmstat,
    "buddyinfo-6.18-x86_64.txt": read_buddyinfo,
    "pagetypeinfo-6.18-x86_64.txt": read_pagetypeinfo,
    "dmesg-hash-tables-24GiB-1node.txt": read_boot_log,
    "vmallocinfo": lambda p: to_layout(read_vmallocinfo(p), geometry("x86-64"), release("6.18")),
    "perf-script-vmalloc-events-6.18.txt": lambda p: layout_of_events(
        read_events(p), geometry("x86-64"), "f"
    ),
    "page_tables-x86.txt": lambda p: read_page_tables(p, geometry("x86-64")),
    "page_tables-arm64.txt": lambda p: read_page_tables(p, geometry("arm64-4k")),
    "page_tables-powerpc64.txt": lambda p: read_page_tables(p, geometry("powerpc64-radix-64k")),
}


def content(name):
    return VMALLOCINFO if name == "vmallocinfo" else (DATA / name).read_bytes()


@pytest.mark.parametrize("name", READERS)
def test_undamaged_files_are_read(tmp_path, name):
    path = tmp_path / "file"
    path.write_bytes(content(name))
    assert READERS[name](path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory, data):
    """Bytes changed, numbers grown, lines dropped, doubled or cut: an answer or BadInput, nothing else."""
    name = data.draw(st.sampled_from(sorted(READERS)))
    lines = content(name).splitlines(keepends=True)[: data.draw(st.sampled_from([5, 40, 500]))]
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        line = bytearray(lines[at])
        change = data.draw(st.sampled_from(["byte", "digit", "grow", "drop", "double", "cut"]))
        if change in ("byte", "digit") and line:
            low, high = (48, 57) if change == "digit" else (0, 255)
            line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(low, high))
            lines[at] = bytes(line)
        elif change == "grow":
            at_byte = data.draw(st.integers(0, len(line)))
            line[at_byte:at_byte] = data.draw(st.sampled_from([b"9", b"f"])) * data.draw(st.integers(1, 40))
            lines[at] = bytes(line)
        elif change == "drop" and len(lines) > 1:
            del lines[at]
        elif change == "double":
            lines.insert(at, lines[at])
        elif change == "cut":
            lines[at] = bytes(line[: data.draw(st.integers(0, len(line)))])
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(b"".join(lines))
    for read in (READERS[name], lambda p: read_observed_layout(p, release("6.18"))):
        try:
            read(path)
        except BadInput as refusal:
            assert "\n" not in str(refusal)
