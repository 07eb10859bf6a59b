"""What `pagewalk plan` says of the samples, each statement by plain reading of the files and from the rules.

The rules are those of the reference (kernel-vmalloc.md) that the planner's modules name; the samples are of a
guest with Linux 6.18, 24 GiB, one node.
"""

import re

import pytest

from pagewalk.linux.rules.callers import asks
from pagewalk.linux.rules.releases import release
from pagewalk.report.studies.plan import facts, heading, text, verdict
from pagewalk.study.planning.plan import plan
from pagewalk.study.planning.snapshot import take
from test_plan import DATA, GIB, KIB, MIB, SAMPLE, advice, buddyinfo, by_caller, line, meminfo, planned


@pytest.fixture(scope="module")
def sample():
    return plan(take(SAMPLE, kernel="6.18", processor="intel-sapphire-rapids"))


@pytest.fixture(scope="module")
def said(sample):
    return " ".join(text(sample).split())


@pytest.fixture(scope="module")
def rows():
    """Lines of vmallocinfo: bytes without the guard page, and the rest."""
    lines = (DATA / "vmallocinfo-6.18-x86_64-hashed.txt").read_text().splitlines()
    return [(int(words[1]) - 4096, " ".join(words[2:])) for words in map(str.split, lines)]


def shown(bytes_):
    """Binary units with three digits."""
    unit, name = (GIB, "GiB") if bytes_ >= GIB else (MIB, "MiB")
    return f"{bytes_ / unit:.3g} {name}"


def test_areas_that_no_leaf_size_changes(said, rows):
    small = [size for size, what in rows if "vmalloc" in what.split() and size < 2 * MIB]
    unpurged = [size for size, what in rows if what.startswith("unpurged")]
    other = [size for size, what in rows if "vmalloc" not in what.split() and not what.startswith("unpurged")]
    assert len(small) + len(unpurged) + len(other) + 6 == len(rows) == 389
    assert f"too small for a PMD: {len(small)} areas, {shown(sum(small))};" in said
    assert f"vmap, ioremap and others: {len(other)}, {shown(sum(other))};" in said
    assert f"waiting for their flush: {len(unpurged)}, {shown(sum(unpurged))}" in said


def test_areas_of_a_pmd_and_more(sample, rows):
    """Six: a percpu chunk, three BPF maps, a futex table, a BPF pack (reference 3.2, 4.6, 7.1)."""
    large = [(size, what) for size, what in rows if size >= 2 * MIB and not what.startswith("unpurged")]
    assert len(large) == 6
    for name, found in by_caller(sample).items():
        sizes = [size for size, what in large if what.startswith(name)]
        leaves = sum(-(-size // (2 * MIB)) for size in sizes)
        assert (found.areas, found.bytes, found.base_pages) == (len(sizes), sum(sizes), sum(sizes) // 4096)
        assert (found.pmd_leaves, found.page_tables_saved) == (leaves, leaves * 4096)
    assert sum(found.areas for found in sample.callers) == 6


def test_a_futex_table_pays_for_its_header(sample, said):
    """8 MiB + 64 B took 10 MiB where 8 MiB + 4 KiB would do."""
    asked = 8 * MIB + 64
    paid = -asked % (2 * MIB) - -asked % 4096
    (resize,) = advice(sample, "resize")
    assert resize.saved_bytes == paid == 2 * MIB - 4 * KIB
    assert "areas of 10 MiB are one PMD above one" in said
    assert verdict(sample).startswith("futex_hash_allocate: keep its requests at a power of two")


def test_maps_fit_the_stlb(said):
    """513, 577 and 641 pages; two leaves each, 12 MiB for 1,731 pages of 4 KiB."""
    assert "1,731 base pages become 6 PMD leaves" in said
    assert "the 641 base pages of its largest area fit the STLB" in said
    assert f"rounding would cost {(12 * MIB - 1731 * 4096) / MIB:.3g} MiB" in said


def test_tables_lie_in_the_direct_map(said):
    """All that the boot log calls linear and that have a PMD or more."""
    log = (DATA / "dmesg-hash-tables-24GiB-1node.txt").read_text()
    found = re.findall(r"(\S[^\]]*?) hash table entries: \d+ \(order: \d+, (\d+) bytes, linear\)", log)
    large = sorted(
        ((name.split("] ")[-1], int(size)) for name, size in found if int(size) >= 2 * MIB),
        key=lambda one: (-one[1], one[0]),
    )
    assert len(large) == 5
    listed = ", ".join(f"{name} {size // MIB} MiB" for name, size in large)
    assert f"as on every machine with one node: {listed}." in said


def test_the_direct_map(said):
    """28,672 kB of base pages, 2,068,480 of 2M, 25,165,824 of 1G: a 512th of the 4K leaves are tables."""
    leaves = 28672 // 4 + 2068480 // 2048 + 25165824 // 1048576
    tables = 28672 // 4 // 512 * 4
    assert f"{leaves:,} leaves, {tables} KiB of lowest tables" in said
    share = 100 * 28672 / (28672 + 2068480 + 25165824)
    assert f"{share:.2f} % of the direct map has base pages, 4 splits since boot" in said


def test_free_blocks(said):
    """Reference 7.4: sum over orders of 9 and more; the rest of the free memory is in smaller blocks."""
    counts = [
        list(map(int, line_.split()[4:]))
        for line_ in (DATA / "buddyinfo-6.18-x86_64.txt").read_text().splitlines()
    ]
    blocks = sum(zone[9] + 2 * zone[10] for zone in counts)
    free = sum(count << order for zone in counts for order, count in enumerate(zone)) * 4096
    share = 100 * blocks * 2 * MIB / free
    assert f"node 0 {blocks:,} ({share:.0f} % of {shown(free)} free)" in said


def test_what_the_events_tell(said):
    events = (DATA / "perf-script-vmalloc-events-6.18.txt").read_text()
    allocated, freed = events.count(":alloc_vmap_area:"), events.count(":free_vmap_area_noflush:")
    large, purged = events.count("align=2097152"), events.count(":purge_vmap_area_lazy:")
    assert (large, purged) == (10, 2)
    assert f"areas allocated {allocated}, large ones {large}, of which fell back 0; freed {freed}" in said
    assert f"flushes on all CPUs {purged}" in said


def test_the_machine(sample):
    """MemTotal of the file; 34,359,738,367 kB of vmalloc space are four levels."""
    total = re.search(r"MemTotal: +(\d+) kB", (DATA / "meminfo-6.18-x86_64.txt").read_text())
    assert sample.memory_bytes == int(total[1]) << 10
    assert heading(sample) == "Linux 6.18, x86-64, 23.5 GiB, 1 node, intel-sapphire-rapids"
    assert any("compact_stall 0" in fact for fact in facts(sample))


@pytest.mark.parametrize(
    ("kernel", "answer"),
    [("5.10", False), ("6.1", False), ("6.12", False), ("6.18", None), ("7.3", None)],
)
def test_bpf_packs_do_not_ask_until_there_is_a_cache_for_text(kernel, answer):
    """Recorded on 6.1: 4 MiB in base pages. From 6.15 on text may come from blocks of the cache (4.6)."""
    assert asks("bpf_prog_pack_alloc", release(kernel)) is answer


def test_bpf_packs_of_each_release(tmp_path):
    """A pack has 2 MiB for each node; whether 6.18 maps one huge is not known; arm64 has no such cache."""
    for kernel, standing in (("6.12", "never"), ("6.18", "perhaps")):
        folder = tmp_path / kernel
        folder.mkdir()
        found = planned(folder, kernel, vmallocinfo=line(2 * MIB + 4096, "bpf_prog_pack_alloc"))
        assert by_caller(found)["bpf_prog_pack_alloc"].standing == standing
    cpuinfo = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
    area = line(2 * MIB + 4096, "bpf_prog_pack_alloc", start=0xFFFF_8000_8020_0000)
    folder = tmp_path / "arm64"
    folder.mkdir()
    found = planned(folder, "6.18", processor="", vmallocinfo=area, cpuinfo=cpuinfo)
    assert by_caller(found)["bpf_prog_pack_alloc"].standing == "never"


def test_a_table_can_be_made_large_enough_by_its_boot_parameter(tmp_path):
    """Reference 5.3 and 3.1, 4 TiB, 8 nodes, 6.12: an eighth of Mount-cache's 8 MiB is below a PMD; 16 do.

    8 MiB are 2048 base pages, which a STLB of 1536 does not hold; established has 4 MiB, which it holds.
    """
    found = planned(
        tmp_path,
        "6.12",
        processor="intel-skylake-sp",
        meminfo=meminfo(4095 * GIB >> 10),
        buddyinfo=buddyinfo(8),
    )
    boot = {one.subject: one for one in advice(found, "boot")}
    assert set(boot) == {"Mount-cache", "Mountpoint-cache"}
    mount = boot["Mount-cache"]
    assert mount.what == f"Boot with mhash_entries={16 * MIB // 8}"
    assert mount.saved_bytes == -8 * MIB + 4 * 4096, "8 MiB more, and not the four lowest tables of today"
    assert mount.saved_cycles > 0
    (left,) = [one for one in advice(found, "leave") if one.subject == "TCP established"]
    assert "16 MiB instead of 4" in left.why


def test_it_says_how_far_the_processor_is_from_measurements(sample, said, tmp_path):
    assert "On intel-sapphire-rapids, " in said
    assert "% in the median" in said
    area = line(64 * MIB + 4096, "alloc_fdtable")
    unmeasured = planned(tmp_path, "6.12", processor="amd-zen4-genoa", vmallocinfo=area)
    assert "No measured case is of amd-zen4-genoa" in " ".join(text(unmeasured).split())


def test_no_size_helps_where_tables_are_in_the_direct_map(sample):
    assert not advice(sample, "boot")
    assert not any(table.enough for table in sample.tables)
