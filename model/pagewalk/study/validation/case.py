"""The format of a case: a pattern on a machine, and what was measured of it (docs/cases.md)."""

from typing import Any, Literal

from msgspec import Struct, field

LeafName = Literal["4K", "16K", "64K", "2M", "32M", "512M", "1G"]
Frames = Literal["packed", "filled", "pairs", "scattered", "contiguous"]


class Pattern(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What a program does. Sizes are bytes, as numbers or as text ("64K", "2M")."""


class Chase(Pattern, frozen=True, kw_only=True, tag="chase"):
    """Dependent loads through the nodes of a random cycle, one node every `stride` bytes.

    Attributes
    ----------
    pages : int
        Nodes; with a stride of at least a page, pages touched.
    span : int
        Bytes of the buffer, the working set: span / stride nodes in place of `pages`; 0: `pages` counts.
    stride : int
        Bytes between neighbouring nodes.
    leaf : str
        Leaf size of the program's (or guest's) page tables.
    host : str
        Leaf size of the host's; "" where the machine description says it.
    line : {"random", "first"}
        Where a node lies within its stride or, if that is larger, within its base page.
    frames : {"packed", "filled", "pairs", "scattered", "contiguous"}
        Physical memory. "packed": the leaves that hold a node, one after the other in the order of addresses,
        as of memory of which nothing else is touched, while large free blocks are left; "filled": as packed,
        but of the whole span, as of a buffer that is written in full before the chase; "scattered": each leaf
        somewhere; "pairs": two of "packed" as one, each pair somewhere. No TLB entry covers more than a leaf
        in these. "contiguous": as packed, and neighbours whose frames are contiguous share an entry where the
        machine's arrays coalesce.
    chains : int
        Independent chases through the same nodes, spread evenly over the cycle, stepped in turn.
    """

    pages: int = 512
    span: int = 0
    stride: int = 4096
    leaf: LeafName = "4K"
    host: Literal["", "4K", "2M", "1G"] = ""
    line: Literal["random", "first"] = "random"
    frames: Frames = "packed"
    chains: int = 1

    @property
    def count(self) -> int:
        """Nodes of the cycle."""
        return self.span // self.stride if self.span else self.pages


class Updates(Pattern, frozen=True, kw_only=True, tag="updates"):
    """Read-modify-writes of random 8-byte words of one table (GUPS).

    Attributes
    ----------
    table : int
        Bytes, whole words; a power of two if it is mirrored or the generator is "hpcc".
    generator : {"uniform", "hpcc"}
        "hpcc": `streams` shift registers of HPCC RandomAccess, each step of each is one update.
    streams : int
    mirror : bool
        Each update also does the word at table size minus its index.
    accesses : int
        Read-modify-writes of the whole run, for figures of the whole run; 0: not known.
    leaf, host : str
        As of `Chase`.
    frames : str
        As of `Chase`; a table is filled before it is updated, so that "packed" is "filled" here.
    chains : int
        Accesses that the core keeps in flight; 0: unknown, then `cycles` is the least that the walkers allow.
    """

    table: int
    generator: Literal["uniform", "hpcc"] = "uniform"
    streams: int = 128
    mirror: bool = False
    accesses: int = 0
    leaf: LeafName = "4K"
    host: Literal["", "4K", "2M", "1G"] = ""
    frames: Frames = "packed"
    chains: int = 0


class Recording(Pattern, frozen=True, kw_only=True, tag="trace"):
    """The accesses of a trace.

    Attributes
    ----------
    trace : str
        A trace, relative to the case's file; or "sample:NAME", "synth:KIND?...".
    mapping : str
        base, pmd, recorded, contpte.
    host : str
        As of `Chase`.
    """

    trace: str
    mapping: str = "base"
    host: Literal["", "4K", "2M", "1G"] = ""


class BootTables(Pattern, frozen=True, kw_only=True, tag="boot-tables"):
    """The hash tables that Linux makes at boot; quantities are "entries NAME" and "bytes NAME".

    Attributes
    ----------
    memory : int
        Bytes free at early boot.
    nodes, cpus : int
    kernel : str
        Release.
    """

    memory: int
    nodes: int = 1
    cpus: int = 1
    kernel: str = "6.12"


class Unpredicted(Pattern, frozen=True, kw_only=True, tag="none"):
    """A published result that this model does not predict, listed so that nobody need look for it.

    Attributes
    ----------
    why : str
    """

    why: str


AnyPattern = Chase | Updates | Recording | BootTables | Unpredicted
PATTERNS: dict[str, type[Struct]] = {
    "chase": Chase,
    "updates": Updates,
    "trace": Recording,
    "boot-tables": BootTables,
    "none": Unpredicted,
}
SIZES_IN = ("span", "stride", "table", "memory")
"""Keys of patterns that are sizes in bytes."""

LIMITS = {
    "pages": (1, 1 << 23),
    "span": (0, 1 << 46),
    "stride": (8, 1 << 40),
    "chains": (0, 1024),
    "table": (4096, 1 << 44),
    "streams": (1, 1 << 16),
    "accesses": (0, 1 << 60),
    "memory": (1 << 20, 1 << 60),
    "nodes": (1, 1024),
    "cpus": (1, 1 << 16),
}
"""Key -> least and greatest value. Ours: what fits in memory and in the addresses of a program."""

PER_ACCESS = (
    "cycles",
    "ns",
    "walk_cycles",
    "walk_cycles_guest",
    "walk_cycles_host",
    "walk_active",
    "l1_misses",
    "stlb_hits",
    "stlb_misses",
    "walk_refs",
)
"""Sums of a run, given for one access."""

EACH = ("cycles_per_walk",)
"""Quotients, the same for an access and for a run."""

FOUND_IN = "walk_refs_in "
"""Followed by the name of a data cache, or "memory": walk references found there, for one access."""

KNEES = ("l1_knee", "stlb_knee")
REACHES = ("l1_reach", "stlb_reach")
"""Knees as bytes: nodes times stride."""

SAID_OTHERWISE = {
    "latency": "cycles, or ns",
    "cycles_per_access": "cycles",
    "nanoseconds": "ns",
    "walk_pending": "walk_cycles",
    "walk_duration": "walk_cycles",
    "walk_completed": "stlb_misses",
    "walks": "stlb_misses",
    "miss_causes_a_walk": "stlb_misses",
    "stlb_hit": "stlb_hits",
    "dtlb_walk": "stlb_misses",
    "l1d_tlb_refill": "l1_misses",
    "dtlb_load_misses": "stlb_misses",
    "tlb_misses": "stlb_misses, or l1_misses",
    "l1_dtlb_misses": "l1_misses",
    "dtlb_misses": "l1_misses, or stlb_misses",
    "l2_tlb_misses": "stlb_misses",
    "ept.walk_pending": "walk_cycles_host",
    "dtlb_l1": "walk_refs_in L1D",
    "dtlb_l2": "walk_refs_in L2",
    "dtlb_l3": "walk_refs_in L3",
    "dtlb_memory": "walk_refs_in memory",
    "page_walker_loads": "walk_refs, or walk_refs_in L1D",
    "walk_latency": "cycles_per_walk",
    "knee": "l1_knee, or stlb_knee",
    "reach": "l1_reach, or stlb_reach",
    "page_size": "leaf",
    "guest": "leaf",
    "guest_leaf": "leaf",
    "host_leaf": "host",
    "nodes": "pages",
    "entries": "pages",
    "size": "span, or table",
    "size_bytes": "span, or table",
    "working_set": "span",
    "parallel": "chains",
    "tolerance": "band",
    "measured_value": "value",
    "unit": "ns as quantity for nanoseconds",
    "minus": "less",
    "gups": "updates",
    "randomaccess": "updates",
    "pointer-chase": "chase",
    "stride": "chase",
}
"""What others call a quantity, a key or a kind of pattern -> its name here."""


class Measured(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured: one value, or one for each entry of the one list in `at`.

    Attributes
    ----------
    quantity : str
        One of `PER_ACCESS`, `EACH`, `KNEES`, `REACHES`; or `FOUND_IN` and a name (docs/cases.md).
    value, values : float, list of float
    at : dict
        Keys of the pattern that differ here; one may be a list.
    over : dict
        Keys of the pattern; the value is then the ratio of the quantity to that under these keys.
    less : dict
        Keys of the pattern; the value is then how much more the quantity is than under these keys.
    per : {"access", "run"}
        "run": of the whole run.
    band : float or [low, high]
        How far off is still right: a share of the measured value, or limits for the predicted one. Without
        it `DEFAULT_BAND`; for knees one page.
    note : str
    """

    quantity: str
    value: float | None = None
    values: list[float] = field(default_factory=list)
    at: dict[str, Any] = field(default_factory=dict)
    over: dict[str, Any] = field(default_factory=dict)
    less: dict[str, Any] = field(default_factory=dict)
    per: Literal["access", "run"] = "access"
    band: float | list[float] | None = None
    note: str = ""


DEFAULT_BAND = 0.2
"""Share of the measured value. Ours: the goal that this project set itself for GUPS."""


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published or measured result.

    Attributes
    ----------
    schema : str
        "pagewalk.case/1".
    title : str
        One line for people.
    source : str
        Where the measured values come from.
    machine : str or table
        A preset, a machine file relative to the case's file, or the content of a machine file (which may
        extend a preset).
    pattern : table
    measured : list of tables
    sets : list of str
        Parameters of the machine that this result was used to set; such a case validates nothing.
    note : str
        What a reader of the errors should know.
    name : str
        The file's stem; set by the reader.
    folder : str
        Where its file lies; set by the reader.
    """

    schema: Literal["pagewalk.case/1"]
    title: str
    source: str
    pattern: AnyPattern
    measured: list[Measured] = field(default_factory=list)
    machine: str | dict[str, Any] = ""
    sets: list[str] = field(default_factory=list)
    note: str = ""
    name: str = ""
    folder: str = ""
