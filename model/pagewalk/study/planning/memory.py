"""Where the boot hash tables lie, how the direct map is cut, and what free blocks there are.

Sources: the reference's sections 4.2 to 4.4, 5 and 7.4.
"""

import re
from typing import Literal

from msgspec import Struct

from pagewalk.linux.geometry import geometry
from pagewalk.linux.observe.memory import free_blocks
from pagewalk.linux.rules.eligibility import Kernel, Request, decide
from pagewalk.linux.rules.hash_tables import Boot, boot_tables
from pagewalk.linux.rules.releases import release
from pagewalk.study.planning.snapshot import Snapshot

PARAMETERS = {
    "Dentry cache": "dhash_entries",
    "Inode-cache": "ihash_entries",
    "Mount-cache": "mhash_entries",
    "Mountpoint-cache": "mphash_entries",
    "TCP established": "thash_entries",
    "UDP": "uhash_entries",
    "UDP-Lite": "uhash_entries",
}
"""Boot parameters that give a table's size (reference, section 5.2)."""

SPLIT_SHARE = 0.05
"""Share of the direct map in base pages above which that is worth a word. Ours."""


class TablePlan(Struct, frozen=True, kw_only=True):
    """A boot hash table.

    Attributes
    ----------
    name : str
    entries, bytes : int
    place : str
        linear (in the direct map), vmalloc, vmalloc hugepage; "" where the log does not say.
    told_by : {"boot log", "formula"}
    parameter : str
        The boot parameter that gives its size; "" where there is none.
    since : str
        The release from which on it has PMD leaves on this machine; "" where it has them, or never.
    enough : int
        Entries that its parameter must ask for so that this kernel maps it by PMD leaves; 0 where it has
        them, has no parameter, or no size up to the last of `LARGER` does.
    """

    name: str
    entries: int
    bytes: int
    place: str
    told_by: Literal["boot log", "formula"]
    parameter: str = ""
    since: str = ""
    enough: int = 0

    @property
    def bytes_enough(self) -> int:
        """Its bytes with `enough` entries."""
        return self.bytes * self.enough // self.entries


class DirectMapPlan(Struct, frozen=True, kw_only=True):
    """How the direct map is mapped, and what that costs.

    Attributes
    ----------
    bytes_by_leaf : dict of str to int
        Leaf size as meminfo names it -> bytes.
    leaves : int
        Leaves there are: entries that a TLB would need for all of it.
    page_tables : int
        Bytes of the tables that hold its smallest leaves.
    share_of_base_pages : float
    splits, collapses : dict of str to int
        Since boot, by vmstat's names; empty where it is not at hand.
    """

    bytes_by_leaf: dict[str, int]
    leaves: int
    page_tables: int
    share_of_base_pages: float
    splits: dict[str, int]
    collapses: dict[str, int]


class BlocksPlan(Struct, frozen=True, kw_only=True):
    """Free blocks that can hold a PMD leaf.

    Attributes
    ----------
    order : int
    free : dict of str to int
        Node -> blocks to be had without compaction, in all zones of it.
    free_bytes : int
        Free memory in all.
    unusable : float
        Part of the free memory that is in smaller blocks (the kernel's unusable free space index).
    compaction : dict of str to int
        compact_stall, compact_fail, compact_success since boot.
    """

    order: int
    free: dict[str, int]
    free_bytes: int
    unusable: float
    compaction: dict[str, int]


def plan_tables(snapshot: Snapshot) -> list[TablePlan]:
    """The boot hash tables: as logged, else by the formula from MemTotal; the largest first."""
    kernel = snapshot.kernel
    if snapshot.tables:
        rows = [(t.name, t.entries, t.size_bytes, t.place, "boot log") for t in snapshot.tables]
    elif kernel.ram_bytes:
        counts = {
            name: int(value)
            for name, _, value in (parameter.partition("=") for parameter in kernel.parameters)
            if name in PARAMETERS.values() and re.fullmatch("[0-9]{1,12}", value)
        }
        boot = Boot(kernel, kernel.ram_bytes, cpus=max(snapshot.cpus, 1), counts=counts)
        rows = [(t.name, t.entries, t.size_bytes, t.place, "formula") for t in boot_tables(boot)]
    else:
        rows = []
    return sorted(
        (
            TablePlan(
                name=name,
                entries=entries,
                bytes=size,
                place=place,
                told_by="boot log" if told == "boot log" else "formula",
                parameter=PARAMETERS.get(name, ""),
                since=_since(size, kernel) if place == "vmalloc" else "",
                enough=_enough(name, entries, snapshot) if place == "vmalloc" else 0,
            )
            for name, entries, size, place, told in rows
        ),
        key=lambda table: (-table.bytes, table.name),
    )


def _since(size: int, kernel: Kernel) -> str:
    """The first release that maps a table of that size by PMD leaves on this machine; "" if none does."""
    for name in ("5.18", "6.13"):
        later = Kernel(release(name), kernel.arch, kernel.nodes, kernel.ram_bytes)
        decision = decide(Request(size, allow_huge=True), later)
        if kernel.release < later.release and decision.attempts[0].shift == kernel.arch.pmd_shift:
            return name
    return ""


LARGER = (2, 4)
"""Times its entries that a table may be made larger to get PMD leaves. Ours: beyond, it is memory wasted."""


def _enough(name: str, entries: int, snapshot: Snapshot) -> int:
    """The least of the `LARGER` sizes that this kernel maps by PMD leaves, within the kernel's own limits."""
    kernel, parameter = snapshot.kernel, PARAMETERS.get(name, "")
    if not parameter or not kernel.ram_bytes:
        return 0
    for times in LARGER:
        counts = {parameter: times * entries}
        boot = Boot(kernel, kernel.ram_bytes, cpus=max(snapshot.cpus, 1), counts=counts)
        made = next(table for table in boot_tables(boot) if table.name == name)
        if made.place == "vmalloc hugepage":
            return made.entries
    return 0


def plan_direct_map(snapshot: Snapshot) -> DirectMapPlan | None:
    """The direct map by meminfo and vmstat; None where meminfo does not tell (it does on few but x86)."""
    units = {"k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes: dict[int, int] = {}
    for name, amount in (snapshot.meminfo or {}).items():
        if match := re.fullmatch(r"DirectMap([0-9]+)([kMG])", name):
            sizes[int(match[1]) * units[match[2]]] = amount
    if not any(sizes.values()):
        return None
    smallest = min(sizes)
    cut = geometry(snapshot.kernel.arch.name)
    covered = smallest << cut.index_bits[0]
    vmstat = snapshot.vmstat or {}
    found = {key: value for key, value in vmstat.items() if key.startswith("direct_map_")}
    return DirectMapPlan(
        bytes_by_leaf={_leaf(size): sizes[size] for size in sorted(sizes)},
        leaves=sum(amount // size for size, amount in sizes.items()),
        page_tables=-(-sizes[smallest] // covered) * cut.table_bytes(1),
        share_of_base_pages=round(sizes[smallest] / sum(sizes.values()), 6),
        splits={key: value for key, value in found.items() if key.endswith("splits")},
        collapses={key: value for key, value in found.items() if key.endswith("collapses")},
    )


def _leaf(size: int) -> str:
    unit = next(unit for unit in (30, 20, 10) if size >= 1 << unit)
    return f"{size >> unit}{ {30: 'G', 20: 'M', 10: 'K'}[unit] }"


def plan_blocks(snapshot: Snapshot) -> BlocksPlan | None:
    """Free blocks of PMD order by node; None without buddyinfo, or where vmalloc makes no PMD leaves."""
    arch = snapshot.kernel.arch
    if not snapshot.buddy or not arch.pmd_shift:
        return None
    order = arch.pmd_shift - arch.base_shift
    blocks: dict[str, int] = {}
    for (node, _), counts in snapshot.buddy.items():
        blocks[str(node)] = blocks.get(str(node), 0) + free_blocks(counts, order)
    free = sum(free_blocks(counts, 0) for counts in snapshot.buddy.values())
    usable = sum(blocks.values()) << order
    vmstat = snapshot.vmstat or {}
    return BlocksPlan(
        order=order,
        free=blocks,
        free_bytes=free << arch.base_shift,
        unusable=round(1 - usable / free, 6) if free else 0.0,
        compaction={
            key: vmstat[key] for key in ("compact_stall", "compact_fail", "compact_success") if key in vmstat
        },
    )
