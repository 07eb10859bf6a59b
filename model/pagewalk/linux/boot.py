"""A boot: the memory of each node, a kernel on it, and its hash tables.

Sources: Linux 7.3.4 mm/mm_init.c alloc_large_system_hash, see the reference's section 5.1; the largest
blocks of base pages other than 4 KiB are from memory of arch/{arm64,powerpc}/Kconfig. A table that cannot be
had is halved until it can.
"""

from collections.abc import Sequence

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import GIB, geometry
from pagewalk.linux.memory.buddy import ORDERS_4K, Orders
from pagewalk.linux.memory.kernel import Booted, Event, Kernel, happen
from pagewalk.linux.memory.pages import try_pages
from pagewalk.linux.rules.eligibility import Request
from pagewalk.linux.rules.hash_tables import Boot, HashTable, boot_tables, halved

STRUCT_PAGE_BYTES = 64
"""Of each base page, taken before anything else is allocated (memmap)."""

TABLE_PARAMETERS = (
    *("dhash_entries", "ihash_entries", "mhash_entries"),
    *("mphash_entries", "thash_entries", "uhash_entries"),
)
"""Boot parameters that give a table's number of buckets."""


class BootTables(Event, frozen=True, tag="boot"):
    """Allocate the boot hash tables in the order of the boot log, under their names there; then boot is over.

    With `booted` false, more follows that still belongs to the boot.
    """

    booted: bool = True


def orders(arch: str) -> Orders:
    """How the page allocator of an architecture cuts memory: MAX_PAGE_ORDER, and the pageblock."""
    if arch == "powerpc64-radix-64k":
        return Orders(16, largest=8, pageblock=5)
    return {12: ORDERS_4K, 14: Orders(14, 11, 11), 16: Orders(16, 13, 13)}[geometry(arch).base_shift]


def memory_ranges(nodes: Sequence[int], arch: str) -> dict[int, list[tuple[int, int]]]:
    """Physical byte ranges of each node, one after the other.

    Parameters
    ----------
    nodes : sequence of int
        Bytes of each node.
    arch : str
        On x86-64 the last GiB below 4 GiB is left to devices, as on PCs.
    """
    hole = (3 * GIB, 4 * GIB) if arch.startswith("x86-64") else (0, 0)
    ranges: dict[int, list[tuple[int, int]]] = {}
    at = 0
    for node, size in enumerate(nodes):
        end = at + size
        ranges[node] = [(at, end)]
        if at < hole[1] and hole[0] < end:
            ranges[node] = [(at, hole[0]), (hole[1], end + GIB)]
            end += GIB
        at = end
    return ranges


def boot_of(kernel: Kernel) -> Boot:
    """What the sizes of the hash tables depend on, for a kernel whose memory is still free.

    Raises
    ------
    BadInput
        A boot parameter that is no number where one belongs.
    """
    counts, hashdist = {}, None
    for parameter in kernel.rules.parameters:
        name, _, value = parameter.partition("=")
        if name in (*TABLE_PARAMETERS, "hashdist"):
            if not value.isdecimal():
                raise BadInput(f"boot parameter {parameter!r}", "is no number", f"write {name}=65536")
            if name == "hashdist":
                hashdist = value != "0"
            else:
                counts[name] = int(value)
    frames = kernel.memory.free_frames() + kernel.memory.held_frames()
    return Boot(
        kernel.rules,
        frames * (kernel.page_bytes - STRUCT_PAGE_BYTES),
        kernel.cpus,
        counts,
        kernel.memory.orders.largest,
        hashdist=hashdist,
    )


@happen.register
def _boot(event: BootTables, kernel: Kernel) -> None:
    boot = boot_of(kernel)
    for table in boot_tables(boot):
        smaller: HashTable | None = table
        while smaller is not None and not _allocated(kernel, smaller):
            kernel.counts["hash_tables_halved"] += 1
            smaller = halved(smaller, boot)
        if smaller is None:
            what = f"there is no memory for {table.name!r}, nor for a smaller one"
            raise BadInput("boot", f"{what}; a kernel panics here", "give more memory")
    if event.booted:
        happen(Booted(), kernel)


def _allocated(kernel: Kernel, table: HashTable) -> bool:
    if table.place == "linear":
        return try_pages(kernel, table.name, table.size_bytes, caller="alloc_large_system_hash")
    request = Request(table.size_bytes, allow_huge=True)
    return kernel.vmalloc(table.name, request, "alloc_large_system_hash") is not None
