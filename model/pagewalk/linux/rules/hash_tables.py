"""Boot hash tables: how large, where, and the line that the kernel logs.

Source: Linux 7.3.4 mm/mm_init.c alloc_large_system_hash (6.1.176 gives the same for these tables) and each
table's own call; see the reference's section 5. Bucket sizes are those without lock debugging.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from pagewalk.linux.rules.eligibility import Kernel, Request, decide, round_up
from pagewalk.linux.rules.releases import release

GIB, MIB = 1 << 30, 1 << 20
MOST_BUCKETS = 1 << 31
ADAPT_FROM_BYTES = 64 * GIB
"""Where no limit is given, each factor of four of memory above this doubles the bytes for one bucket."""

Place = Literal["linear", "vmalloc", "vmalloc hugepage"]


@dataclass(frozen=True)
class Table:
    """One boot hash table's call.

    Attributes
    ----------
    name : str
        As logged.
    bucket_bytes : int
    scale : int
        log2 of the bytes of memory for one bucket.
    low, high : int
        Limits in buckets; high 0: one sixteenth of memory, and the scale adapts.
    count : int
        Buckets asked for, whatever the memory; 0: by memory.
    parameter : str
        Boot parameter that gives the count.
    early : bool
        Allocated before the page allocator runs, unless tables are distributed over nodes.
    always_early : bool
    """

    name: str
    bucket_bytes: int
    scale: int = 0
    low: int = 0
    high: int = 0
    count: int = 0
    parameter: str = ""
    early: bool = False
    always_early: bool = False


@dataclass(frozen=True)
class HashTable:
    """A table as the kernel made it.

    Attributes
    ----------
    name : str
    entries, size_bytes, order : int
        `order`: log2 of the base pages that it takes, rounded up.
    place : str
        "linear" is in the direct map.
    line : str
        What the boot log says of it.
    early : bool
        Allocated before the page allocator runs: in the direct map, whatever its size.
    """

    name: str
    entries: int
    size_bytes: int
    order: int
    place: Place
    line: str
    early: bool = False


@dataclass(frozen=True)
class Boot:
    """What the tables depend on.

    Attributes
    ----------
    kernel : Kernel
        `nodes` are those that have memory.
    memory_bytes : int
        Free memory at early boot: the sum of free memblock ranges (6.10 and later); zone sizes without
        memmap and without what the architecture reserves (before).
    cpus : int
        Possible CPUs.
    counts : dict of str to int
        Boot parameters that give a table's count: ``dhash_entries``, ``thash_entries``, ...
    max_page_order : int
        Largest block of the page allocator, as log2 of base pages.
    paravirtual_spinlocks : bool
        The kernel runs as a guest with paravirtual spinlocks, which have a table of their own.
    hashdist : bool, optional
        The boot parameter; None: on for more than one node.
    """

    kernel: Kernel
    memory_bytes: int
    cpus: int = 1
    counts: dict[str, int] = field(default_factory=dict)
    max_page_order: int = 10
    paravirtual_spinlocks: bool = False
    hashdist: bool | None = None

    @property
    def distributed(self) -> bool:
        """Whether tables are spread over nodes by vmalloc; forced off where one node has memory."""
        return self.kernel.nodes > 1 and self.hashdist is not False


def buckets(table: Table, boot: Boot) -> int:
    """Number of buckets of a table: a power of two."""
    base_bytes = boot.kernel.base_bytes
    wanted = boot.counts.get(table.parameter, 0) or table.count
    if wanted == 0:
        pages = round_up(boot.memory_bytes, max(MIB, base_bytes)) // base_bytes
        scale = table.scale
        if table.high == 0:
            limit = ADAPT_FROM_BYTES // base_bytes
            while limit < pages:
                limit, scale = limit * 4, scale + 1
        wanted = (pages * base_bytes) >> scale
        if wanted * table.bucket_bytes < base_bytes:
            wanted = base_bytes // table.bucket_bytes
    wanted = _power_of_two(wanted)
    most = table.high or boot.memory_bytes // 16 // table.bucket_bytes
    wanted = min(max(wanted, table.low), most, MOST_BUCKETS)
    return 1 << (wanted.bit_length() - 1)


def make(table: Table, boot: Boot) -> HashTable:
    """Size and place one table as alloc_large_system_hash first tries it; see `halved`."""
    entries = buckets(table, boot)
    early = table.always_early or (table.early and not boot.distributed)
    return _placed(table.name, entries, entries * table.bucket_bytes, early, boot)


def halved(table: HashTable, boot: Boot) -> HashTable | None:
    """The next smaller try, where memory for a table is short; None below a base page: the kernel panics."""
    if table.size_bytes <= boot.kernel.base_bytes or table.entries < 2:
        return None
    return _placed(table.name, table.entries // 2, table.size_bytes // 2, table.early, boot)


def _placed(name: str, entries: int, size: int, early: bool, boot: Boot) -> HashTable:
    order = _order(size, boot)
    place: Place = "linear"
    if not early and (order > boot.max_page_order or boot.distributed):
        place = _vmalloc(size, boot)
    logged = order
    if boot.kernel.release < ORDER_ROUNDED_UP:
        logged = (size // boot.kernel.base_bytes).bit_length() - 1
    line = f"{name} hash table entries: {entries} (order: {logged}, {size} bytes, {place})"
    return HashTable(name, entries, size, order, place, line, early)


def _vmalloc(size: int, boot: Boot, node: int | None = None) -> Place:
    decision = decide(Request(size, node=node, allow_huge=True), boot.kernel)
    huge = decision.attempts[0].shift > boot.kernel.arch.base_shift
    return "vmalloc hugepage" if huge else "vmalloc"


def _order(size: int, boot: Boot) -> int:
    """get_order: log2 of the base pages that hold `size`, rounded up."""
    return (-(-size // boot.kernel.base_bytes) - 1).bit_length()


UDP_OF_64_BYTES, POSIX_TIMERS, FUTEX_BY_NODE = release("6.13"), release("6.15"), release("6.16")
"""Since when these tables are as 6.18 and 7.3 have them. 6.1 has not; the release between is from memory."""

ORDER_ROUNDED_UP = release("5.14")
"""Since when the log rounds a table's order up: 5.13 rounds down, 6.1 up; those between were not read."""

BIND_OF_TWO = release("6.1")
"""Since when the bind table is two tables in one; 5.10 has one."""


def boot_tables(boot: Boot) -> list[HashTable]:
    """All tables in the order in which the kernel logs them.

    Which tables a kernel has depends on its configuration; these are those of distribution kernels since 6.1.
    """
    spinlocks = [_pv_spinlocks(boot)] if boot.paravirtual_spinlocks else []
    return [*spinlocks, *_caches(boot), *_futex(boot), _dquot(boot), *_network(boot)]


def boot_log(boot: Boot) -> list[str]:
    """The kernel's log lines about them, without time stamps."""
    lines = []
    tables = boot_tables(boot)
    made = {table.name: table.entries for table in tables}
    for table in tables:
        lines.append(table.line)
        if table.name == "TCP bind":
            counts = f"established {made['TCP established']} bind {table.entries}"
            lines.append(f"TCP: Hash tables configured ({counts})")
    return lines


def _pv_spinlocks(boot: Boot) -> HashTable:
    """At least one base page of 16-byte entries, four for each CPU (from memory; the 6.18 log agrees)."""
    count = max(4 * boot.cpus, boot.kernel.base_bytes // 16)
    return make(Table("PV qspinlock", 16, count=count, high=count, always_early=True), boot)


def _caches(boot: Boot) -> list[HashTable]:
    return [
        make(table, boot)
        for table in (
            Table("Dentry cache", 8, scale=13, low=2, parameter="dhash_entries", early=True),
            Table("Inode-cache", 8, scale=14, parameter="ihash_entries", early=True),
            Table("Mount-cache", 8, scale=19, parameter="mhash_entries"),
            Table("Mountpoint-cache", 8, scale=19, parameter="mphash_entries"),
        )
    ]


def _futex(boot: Boot) -> list[HashTable]:
    """Timers and futexes: by CPUs, not by memory."""
    tables = []
    if boot.kernel.release >= POSIX_TIMERS:
        count = _power_of_two(512 * boot.cpus)
        tables.append(make(Table("posixtimers", 16, count=count, high=count), boot))
    if boot.kernel.release < FUTEX_BY_NODE:
        count = _power_of_two(256 * boot.cpus)
        return [*tables, make(Table("futex", 64, count=count, high=count), boot)]
    nodes = boot.kernel.nodes
    count = _power_of_two(max(4, 256 * boot.cpus // nodes))
    size = 64 * count
    order = _order(size, boot)
    large = order > boot.max_page_order
    line = (
        f"futex hash table entries: {count} ({size} bytes on {nodes} NUMA nodes, "
        f"total {size * nodes // 1024} KiB, {'vmalloc' if large else 'linear'})."
    )
    return [
        *tables,
        HashTable("futex", count, size, order, _vmalloc(size, boot, 0) if large else "linear", line),
    ]


def _dquot(boot: Boot) -> HashTable:
    """One base page of 8-byte buckets, not by alloc_large_system_hash (from memory; the logs agree)."""
    size = boot.kernel.base_bytes
    line = f"VFS: Dquot-cache hash table entries: {size // 8} (order 0, {size} bytes)"
    return HashTable("Dquot-cache", size // 8, size, 0, "linear", line)


def _network(boot: Boot) -> list[HashTable]:
    release_ = boot.kernel.release
    most = 0 if boot.counts.get("thash_entries") else 512 * 1024
    established = make(Table("TCP established", 8, scale=17, high=most, parameter="thash_entries"), boot)
    bind_bytes = 32 if release_ >= BIND_OF_TWO else 16
    udp = Table("UDP", 64 if release_ >= UDP_OF_64_BYTES else 32, 21, 256, 65536, parameter="uhash_entries")
    listen = Table("tcp_listen_portaddr_hash", 16, scale=21, high=65536, parameter="thash_entries")
    return [
        make(Table("IP idents", 8, scale=16, low=2048, high=262144), boot),
        make(listen, boot),
        make(Table("Table-perturb", 4, count=65536, low=65536, high=65536), boot),
        established,
        make(Table("TCP bind", bind_bytes, count=established.entries, high=65536), boot),
        make(Table("MPTCP token", 24, scale=20, high=65536), boot),
        make(udp, boot),
        make(replace(udp, name="UDP-Lite"), boot),
    ]


def _power_of_two(count: int) -> int:
    """The next power of two, not below."""
    return 1 << (count - 1).bit_length()
