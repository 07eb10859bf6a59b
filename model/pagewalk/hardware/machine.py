"""What a processor's translation hardware is, as plain data. Read from TOML by `pagewalk.hardware.load`.

Every table carries `source` (where its figures come from), `confidence` of that source, and `assumed`:
for each field of the table that nobody published, why we chose what stands there.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

Policy = Literal["lru", "fifo", "random", "tree-plru", "nru", "srrip", "mru+1%3-plru4"]
Confidence = Literal["primary", "secondary", "unverified", "measured", "assumed", "definition"]
Kind = Literal["load", "store", "fetch"]


SIZES = {
    "4K": 12,
    "16K": 14,
    "64K": 16,
    "2M": 21,
    "4M": 22,
    "16M": 24,
    "32M": 25,
    "512M": 29,
    "1G": 30,
    "16G": 34,
}
"""Leaf sizes that a TLB entry may have -> log2 of bytes."""


class Described(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table whose figures have a source.

    Attributes
    ----------
    source : str
        Where the figures come from.
    confidence : str
        How far that source can be trusted, in the words of the reference.
    assumed : dict
        Field -> why we chose its value, for every field that no source gives.
    """

    source: str = ""
    confidence: Confidence = "assumed"
    assumed: dict[str, str] = field(default_factory=dict)


class Tlb(Described, frozen=True, kw_only=True):
    """One TLB array of the first or the second level.

    Attributes
    ----------
    name : str
        In the field's words: "L1 DTLB 4K", "STLB".
    level : 1 or 2
    entries : int
    ways : int
        0 is fully associative.
    holds : list of str
        Leaf sizes that its entries may have ("4K", "2M"); empty: any.
    serves : list of str
        "load", "store", "fetch".
    index : str
        "modulo": set = page number of the entry modulo sets. Else an expression of page-number bits,
        e.g. "VPN[6:0] ^ VPN[13:7]" or "{VPN[9], VPN[6:0]}".
    policy : str
        Replacement.
    hit_cycles : int
        Added to an access that hits here, over a hit in the level above.
    coalesce : int
        How many aligned, physically contiguous base pages one entry may cover.
    """

    name: str
    level: Literal[1, 2]
    entries: int
    ways: int
    holds: list[str] = field(default_factory=list)
    serves: list[Kind] = field(default_factory=lambda: ["load", "store"])
    index: str = "modulo"
    policy: Policy = "lru"
    hit_cycles: int = 0
    coalesce: int = 1


class Psc(Described, frozen=True, kw_only=True):
    """A paging-structure cache: entries of one table level.

    Attributes
    ----------
    name : str
        "PDE cache".
    level : int
        Level of the table whose entries it keeps, from the bottom: 2 is the PDE, keyed by address >> 21
        on x86-64; 3 the PDPTE, 4 the PML4E.
    entries, ways : int
        ways 0 is fully associative.
    policy : str
    """

    name: str
    level: int
    entries: int
    ways: int = 0
    policy: Policy = "lru"


class Cache(Described, frozen=True, kw_only=True):
    """One level of the data caches, from the core outwards.

    Attributes
    ----------
    name : str
        "L1D".
    size_bytes, ways, line_bytes : int
    slice_sets : int
        Sets of one slice, of a level that spreads lines over slices by a hash of their address
        (`pagewalk.hardware.slices`); 0: one piece, set = number of the line modulo sets.
    latency_cycles : int
        Load to use, of a hit here, from the core.
    policy : str
    fill : str
        "demand": filled by every miss; "victim": filled only by what the level above evicts.
    inclusive : bool
        Its evictions also throw the line out of the levels above.
    shared : bool
        One for all CPUs; else one each.
    """

    name: str
    size_bytes: int
    ways: int
    latency_cycles: int
    line_bytes: int = 64
    slice_sets: int = 0
    policy: Policy = "lru"
    fill: Literal["demand", "victim"] = "demand"
    inclusive: bool = False
    shared: bool = False


class Memory(Described, frozen=True, kw_only=True):
    """What lies behind the last cache.

    Attributes
    ----------
    latency_cycles : int
        Load to use, from the core.
    """

    latency_cycles: int


class Walker(Described, frozen=True, kw_only=True):
    """The page-table walkers.

    Attributes
    ----------
    count : int
        Walks that can be in flight.
    start_cycles : int
        Spent on each walk besides its references (look-up of the paging-structure caches, fill).
    enters : str
        Name of the data cache that its reads enter first; "" is the first.
    window_accesses : int
        How many accesses the program may run ahead of an unfinished walk; 0: it waits for each walk.
    """

    count: int = 1
    start_cycles: int = 0
    enters: str = ""
    window_accesses: int = 0


class Flush(Described, frozen=True, kw_only=True):
    """What flushing the TLB costs.

    Attributes
    ----------
    full_cycles : int
        A full flush, on each CPU.
    page_cycles : int
        Dropping one page, on each CPU.
    ceiling_pages : int
        A range of more base pages becomes a full flush.
    """

    full_cycles: int
    page_cycles: int
    ceiling_pages: int


class AddressSpaces(Described, frozen=True, kw_only=True):
    """How TLB entries of several address spaces live together.

    Attributes
    ----------
    slots : int
        Address spaces whose entries may stay in the TLBs at once (PCID, ASID);
        0: every switch drops all entries that are not global.
    """

    slots: int = 0


class Guest(Described, frozen=True, kw_only=True):
    """The second dimension of a walk under nested paging.

    Attributes
    ----------
    host_leaf : str
        Leaf size by which the host maps the guest's memory: "4K", "2M", "1G".
    host_levels : int
        Levels of the host's tables.
    nested_entries, nested_ways : int
        The nested TLB, that keeps guest-physical to host-physical page translations; 0 entries: none.
    combined_psc : bool
        An entry of the guest's paging-structure caches gives the host-physical address of the table below
        it, so that a walk that finds one does not translate that address (Intel SDM volume 3, 28.3.1:
        combined paging-structure-cache entries); else it gives the guest-physical one.
    walks_in_stlb : bool
        What walks remember lies among the translations of the second TLB level and takes room there: the
        guest's PDE, the host's translation of the table that holds the leaf, and the host's PDEs of that
        table and of the page's frame. Needs a host on 4K leaves and levels that fill independently.
    host_psc : list of Psc
        Paging-structure caches of the host dimension.
    """

    host_leaf: Literal["4K", "2M", "1G"] = "4K"
    host_levels: int = 4
    nested_entries: int = 0
    nested_ways: int = 0
    combined_psc: bool = False
    walks_in_stlb: bool = False
    host_psc: list[Psc] = field(default_factory=list)


class Machine(Described, frozen=True, kw_only=True):
    """A processor's translation hardware.

    Attributes
    ----------
    schema : str
        "pagewalk.machine/1".
    name : str
        For people.
    id : str
        The preset's name, or the file's stem; set by the loader.
    geometry : str
        Name of the page-table geometry its kernel uses.
    clock_ghz : float
        To turn nanoseconds into cycles, and back; 0: unknown.
    tlb, psc, cache : list
    choose : str
        Where two arrays of one level may both hold a page: the value of this expression picks the array.
    inclusion : str
        STLB against L1: "none" (each fills on its own), "inclusive" (an STLB eviction drops the L1 entry),
        "exclusive" (an L1 victim moves to the STLB, an STLB hit moves back).
    memory, walker, flush, spaces : tables
    guest : Guest, optional
    unknown : dict
        What nobody published and this model does not need, for people: field -> what was looked for.
    perf_events : dict
        Output of the model -> hardware events that would check it.
    sha256 : str
        Of the description's content; set by the loader.
    """

    schema: Literal["pagewalk.machine/1"]
    name: str
    tlb: list[Tlb]
    memory: Memory
    id: str = ""
    geometry: str = "x86-64"
    clock_ghz: float = 0.0
    psc: list[Psc] = field(default_factory=list)
    cache: list[Cache] = field(default_factory=list)
    choose: str = ""
    inclusion: Literal["none", "inclusive", "exclusive"] = "none"
    walker: Walker = field(default_factory=Walker)
    flush: Flush | None = None
    spaces: AddressSpaces = field(default_factory=AddressSpaces)
    guest: Guest | None = None
    unknown: dict[str, str] = field(default_factory=dict)
    perf_events: dict[str, list[str]] = field(default_factory=dict)
    sha256: str = ""


TABLES: dict[str, type[Described]] = {
    "tlb": Tlb,
    "psc": Psc,
    "cache": Cache,
    "memory": Memory,
    "walker": Walker,
    "flush": Flush,
    "spaces": AddressSpaces,
    "guest": Guest,
}
"""Keys of a machine that hold tables of figures, and what those are."""


def tables(machine: Machine) -> Iterator[tuple[str, Described]]:
    """Every table of a machine with its key in the file: "" for the machine itself, "tlb[0]", "memory" ..."""
    yield "", machine
    for kind, found in (("tlb", machine.tlb), ("psc", machine.psc), ("cache", machine.cache)):
        yield from ((f"{kind}[{place}]", table) for place, table in enumerate(found))
    yield "memory", machine.memory
    yield "walker", machine.walker
    if machine.flush:
        yield "flush", machine.flush
    yield "spaces", machine.spaces
    if machine.guest:
        yield "guest", machine.guest
        yield from ((f"guest.host_psc[{place}]", psc) for place, psc in enumerate(machine.guest.host_psc))
