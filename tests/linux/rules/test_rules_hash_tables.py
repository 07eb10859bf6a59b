"""Boot hash tables against two real boot logs and the reference's worked examples (section 5.3)."""

import re

import pytest

from pagewalk.linux.rules.eligibility import Kernel
from pagewalk.linux.rules.hash_tables import Boot, Table, boot_log, boot_tables, buckets, halved
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import release
from places import TEST_DATA

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
DATA = TEST_DATA / "kernel"


def boot(name, memory, nodes=1, cpus=1, arch="x86-64", **more):
    return Boot(Kernel(release(name), hooks(arch), nodes), memory, cpus, **more)


def by_name(boot_):
    return {table.name: table for table in boot_tables(boot_)}


def test_boot_log_of_24_gib_and_one_node():
    """Linux 6.18 in a guest, 2 CPUs; M about 23.4 GiB."""
    log = (DATA / "dmesg-hash-tables-24GiB-1node.txt").read_text().splitlines()
    lines = [re.sub(r"^\[ *[0-9.]+\] ", "", line) for line in log]
    assert boot_log(boot("6.18", int(23.4 * GIB), cpus=2, paravirtual_spinlocks=True)) == lines


def test_boot_log_of_64_gib_and_two_nodes():
    """Linux 6.1, the guest of the shared traces (their meta.json): huge where half a table is 2 MiB."""
    lines = [
        "Dentry cache hash table entries: 8388608 (order: 14, 67108864 bytes, vmalloc hugepage)",
        "Inode-cache hash table entries: 4194304 (order: 13, 33554432 bytes, vmalloc hugepage)",
        "Mount-cache hash table entries: 131072 (order: 8, 1048576 bytes, vmalloc)",
        "Mountpoint-cache hash table entries: 131072 (order: 8, 1048576 bytes, vmalloc)",
        "futex hash table entries: 256 (order: 2, 16384 bytes, vmalloc)",
        "VFS: Dquot-cache hash table entries: 512 (order 0, 4096 bytes)",
        "IP idents hash table entries: 262144 (order: 9, 2097152 bytes, vmalloc)",
        "tcp_listen_portaddr_hash hash table entries: 32768 (order: 7, 524288 bytes, vmalloc)",
        "Table-perturb hash table entries: 65536 (order: 6, 262144 bytes, vmalloc)",
        "TCP established hash table entries: 524288 (order: 10, 4194304 bytes, vmalloc hugepage)",
        "TCP bind hash table entries: 65536 (order: 9, 2097152 bytes, vmalloc)",
        "MPTCP token hash table entries: 65536 (order: 9, 1572864 bytes, vmalloc)",
        "UDP hash table entries: 32768 (order: 8, 1048576 bytes, vmalloc)",
        "UDP-Lite hash table entries: 32768 (order: 8, 1048576 bytes, vmalloc)",
    ]
    tables = boot_tables(boot("6.1", int(62.5 * GIB), nodes=2))
    assert [table.line for table in tables] == lines


# section 5.3; sizes in bytes, memory a little under the nominal
WORKED = {
    "Dentry cache": (64 * MIB, 128 * MIB, 512 * MIB),
    "Inode-cache": (32 * MIB, 64 * MIB, 256 * MIB),
    "Mount-cache": (1 * MIB, 2 * MIB, 8 * MIB),
    "Mountpoint-cache": (1 * MIB, 2 * MIB, 8 * MIB),
    "TCP established": (4 * MIB, 4 * MIB, 4 * MIB),
    "TCP bind": (2 * MIB, 2 * MIB, 2 * MIB),
    "IP idents": (2 * MIB, 2 * MIB, 2 * MIB),
    "tcp_listen_portaddr_hash": (512 * KIB, MIB, MIB),
    "MPTCP token": (1536 * KIB, 1536 * KIB, 1536 * KIB),
}
NOMINAL = (64 * GIB, 512 * GIB, 4096 * GIB)


@pytest.mark.parametrize("column", range(3))
def test_worked_examples(column):
    memory = NOMINAL[column] * 98 // 100
    tables = by_name(boot("7.3", memory, nodes=2))
    assert {name: tables[name].size_bytes for name in WORKED} == {n: s[column] for n, s in WORKED.items()}
    assert tables["UDP"].size_bytes == (2 * MIB, 4 * MIB, 4 * MIB)[column]
    assert by_name(boot("6.1", memory, nodes=2))["UDP"].size_bytes == (MIB, 2 * MIB, 2 * MIB)[column]


def test_dentry_entries_of_the_worked_examples():
    entries = [by_name(boot("7.3", m * 98 // 100))["Dentry cache"].entries for m in NOMINAL]
    assert entries == [2**23, 2**24, 2**26]


def huge(boot_):
    return {table.name for table in boot_tables(boot_) if table.place == "vmalloc hugepage"}


def test_which_are_huge_on_two_nodes():
    always = {"Dentry cache", "Inode-cache", "TCP established"}
    udp = {"UDP", "UDP-Lite"}
    mounts = {"Mount-cache", "Mountpoint-cache"}
    for memory, old in zip(NOMINAL, (always, always, always | mounts), strict=True):
        assert huge(boot("6.12", memory * 98 // 100, nodes=2)) == old
    # with the new rule, every table of at least 2 MiB
    for memory in NOMINAL:
        boot_ = boot("7.3", memory * 98 // 100, nodes=2)
        assert huge(boot_) == {t.name for t in boot_tables(boot_) if t.size_bytes >= 2 * MIB}
    assert udp <= huge(boot("7.3", 500 * GIB, nodes=2))


def test_more_nodes_under_the_old_rule():
    assert "TCP established" not in huge(boot("6.12", 500 * GIB, nodes=4))
    eight = boot("6.12", 4000 * GIB, nodes=8)
    assert huge(eight) == {t.name for t in boot_tables(eight) if t.size_bytes >= 16 * MIB}


def test_251_and_502_gib_give_the_same_tables():
    """The scale's step at 256 GiB cancels the doubling, for tables whose scale adapts."""
    small, large = by_name(boot("7.3", 251 * GIB, 2)), by_name(boot("7.3", 502 * GIB, 2))
    for name in ("Dentry cache", "Inode-cache", "Mount-cache", "Mountpoint-cache"):
        assert small[name] == large[name]


def test_one_node_keeps_its_tables_in_the_direct_map():
    tables = boot_tables(boot("7.3", 500 * GIB))
    assert {table.place for table in tables} == {"linear"}
    large = by_name(boot("7.3", 4000 * GIB))
    assert large["Mount-cache"].place == "vmalloc hugepage"  # late, and above 4 MiB
    assert large["Dentry cache"].place == "linear"  # early, from memblock
    assert by_name(boot("7.3", 500 * GIB, nodes=2, hashdist=False))["Dentry cache"].place == "linear"


def test_kernels_without_huge_vmalloc():
    assert by_name(boot("5.10", 62 * GIB, nodes=2))["Dentry cache"].place == "vmalloc"
    no = Boot(Kernel(release("6.12"), hooks("x86-64"), 2, 0, frozenset({"nohugevmalloc"})), 62 * GIB)
    assert not huge(no)


def test_counts_from_the_command_line():
    tables = by_name(boot("7.3", 62 * GIB, counts={"dhash_entries": 1000, "thash_entries": 3_000_000}))
    assert tables["Dentry cache"].entries == 1024
    assert tables["TCP established"].entries == 4194304  # the limit of 524,288 goes, 1/16 of memory comes
    assert tables["tcp_listen_portaddr_hash"].entries == 65536
    assert by_name(boot("7.3", GIB, counts={"thash_entries": 1 << 30}))["TCP established"].entries == 8 * MIB


def test_small_memory():
    """Step 3: never less than one base page; step 5: never less than the low limit."""
    tiny = boot("7.3", 16 * MIB)
    assert buckets(Table("t", 8, scale=21), tiny) == 512
    assert buckets(Table("t", 8, scale=16, low=2048, high=262144), tiny) == 2048


def test_64_kib_pages_change_the_order_not_the_size():
    four = by_name(boot("6.12", 500 * GIB, 2, arch="powerpc64-radix-4k"))
    large = by_name(boot("6.12", 500 * GIB, 2, arch="powerpc64-radix-64k", max_page_order=8))
    for name in ("Dentry cache", "Inode-cache", "TCP established"):
        assert four[name].size_bytes == large[name].size_bytes
        assert four[name].order == large[name].order + 4


def test_a_table_that_cannot_be_had_is_halved_and_placed_anew():
    """Step 7: on failure halve and retry, down to a page."""
    boot_ = boot("6.12", 62 * GIB, nodes=2)
    table = by_name(boot_)["TCP established"]
    sizes, places = [], []
    while table is not None:
        sizes.append(table.size_bytes)
        places.append(table.place)
        assert table.entries * 8 == table.size_bytes
        assert f"entries: {table.entries} (order: {table.order}, {table.size_bytes} bytes" in table.line
        table = halved(table, boot_)
    assert sizes == [4 * MIB >> i for i in range(11)]
    assert places == ["vmalloc hugepage"] + ["vmalloc"] * 10, "half a table of 2 MiB is less than a PMD"
    late = by_name(boot("7.3", 4000 * GIB))["Mount-cache"]
    assert halved(late, boot("7.3", 4000 * GIB)).place == "linear", "no more above the largest block"


def test_the_order_in_the_log_was_rounded_down_in_5_13():
    """Reference 5.1: a 5.13-era log used ilog2; the 6.1 log says 9 for 1,572,864 bytes."""
    lines = {n: by_name(boot(n, 62 * GIB, nodes=2))["MPTCP token"].line for n in ("5.13", "6.1")}
    assert ("order: 8, 1572864" in lines["5.13"], "order: 9, 1572864" in lines["6.1"]) == (True, True)


def test_futex_and_timer_tables_follow_the_cpus():
    """Section 5.2: 256 buckets of 64 bytes for each CPU; since 7.3 on each node, vmalloc above 4 MiB."""
    old = by_name(boot("6.1", 500 * GIB, nodes=2, cpus=300))["futex"]
    assert (old.entries, old.size_bytes, old.place) == (131_072, 8 * MIB, "vmalloc hugepage")
    new = by_name(boot("7.3", 500 * GIB, nodes=2, cpus=300))
    assert (new["futex"].entries, new["futex"].size_bytes, new["futex"].place) == (65_536, 4 * MIB, "linear")
    assert (new["posixtimers"].entries, new["posixtimers"].size_bytes) == (262_144, 4 * MIB)
    many = by_name(boot("7.3", 500 * GIB, nodes=2, cpus=1024))["futex"]
    assert (many.entries, many.size_bytes, many.place) == (131_072, 8 * MIB, "vmalloc hugepage")
    assert by_name(boot("7.3", 500 * GIB, nodes=8, cpus=1))["futex"].entries == 32
    assert by_name(boot("7.3", 500 * GIB, nodes=128, cpus=1))["futex"].entries == 4
