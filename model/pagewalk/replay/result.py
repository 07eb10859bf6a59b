"""What a replay found, and its JSON (schema ``pagewalk.result/1``).

Counts are integers; ratios are for readers to form.
"""

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from pagewalk.errors import BadInput
from pagewalk.files import read_at_most

LARGEST_BYTES = 1 << 28
"""A file beyond it is no result. Ours."""


class RegionCost(Struct, frozen=True, kw_only=True):
    """What one region cost.

    Attributes
    ----------
    name, caller, kind, leaf, size_bytes, waste_bytes
        As in `pagewalk.linux.mapping.Region`.
    accesses, l1_misses, stlb_misses, walk_refs : int
        Counts; L1 misses of data and fetches together.
    walk_cycles : int
        Cycles for which its walks were pending.
    """

    name: str
    caller: str = ""
    kind: str = "other"
    leaf: str = ""
    size_bytes: int = 0
    waste_bytes: int = 0
    accesses: int = 0
    l1_misses: int = 0
    stlb_misses: int = 0
    walk_refs: int = 0
    walk_cycles: int = 0


class Windows(Struct, frozen=True, kw_only=True):
    """A time series: each list has one number for each window of `accesses_per_window` records."""

    accesses_per_window: int = 0
    l1_misses: list[int] = field(default_factory=list)
    stlb_misses: list[int] = field(default_factory=list)
    walk_cycles: list[int] = field(default_factory=list)


class Replay(Struct, frozen=True, kw_only=True):
    """One trace under one mapping on one machine.

    Attributes
    ----------
    machine : str
        Preset name, or the stem of the machine file.
    mapping : str
    counts : dict of str to int
        accesses; l1_dtlb_misses, l1_itlb_misses; stlb_hits, stlb_misses; walks; walk_refs;
        walks_by_refs_1 .. walks_by_refs_N; psc_hits_<level name>; flushes, ...
    cycles : dict of str to int
        walk (walks pending), stlb_hit (added by STLB hits), flush, exposed (what the program waits for).
    memory : dict of str to int
        Bytes: page_tables; rounding_waste; stlb_reach (entries times the leaf that most touched base pages
        have); stlb_holds (touched base pages that the STLB can translate at once, at most).
    walk_refs_in : dict of str to int
        Where walk references were found: each data cache's name, "memory". Sums to counts["walk_refs"].
    walk_cycles_by_level : dict of str to int
        Walk cycles by the level of the table that was read: "PTE", "PDE", "PDPTE", "PML4E", "PML5E", "host".
    caches : dict of str to dict of str to int
        For each data cache and "memory": data_hits, data_misses, walk_hits, walk_misses,
        data_evicted_by_walks, walks_evicted_by_data. In walks-only mode the ``data_`` figures are 0.
    cache_mode : str
        "walks-only" or "full".
    by_region : list of RegionCost
        Most walk cycles first.
    windows : Windows
    seconds : dict of str to float
        open, translate, compile, replay.
    notes : list of str
        What was assumed, for people.
    """

    machine: str
    mapping: str
    counts: dict[str, int]
    cycles: dict[str, int]
    memory: dict[str, int]
    walk_refs_in: dict[str, int] = field(default_factory=dict)
    walk_cycles_by_level: dict[str, int] = field(default_factory=dict)
    caches: dict[str, dict[str, int]] = field(default_factory=dict)
    cache_mode: Literal["walks-only", "full"] = "walks-only"
    by_region: list[RegionCost] = field(default_factory=list)
    windows: Windows = field(default_factory=Windows)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class KernelLife(Struct, frozen=True, kw_only=True):
    """What happened to the memory of a modelled kernel; each list has one number for each sample.

    Attributes
    ----------
    name : str
        The mapping of its replays.
    release, arch : str
    reset : str
        How it resets the direct map of a freed area: "page", "block", "range".
    parameters : list of str
        Boot parameters.
    events : list of str
        What happened before each sample; the first sample is the kernel as it starts to boot.
    accesses : list of int
        Accesses made by then.
    direct_map_kb : dict of str to list of int
        The DirectMap lines of ``/proc/meminfo``, in kB.
    counts : dict of str to list of int
        Up to then: split, merge, flush-all, flush-range, failure, attribute_calls, purges, huge_fallbacks,
        left_read_only and left_absent (frames freed with a wrong direct map), table_pages_taken.
    memory : dict of str to list of int
        Bytes: areas (rounding included), rounding_waste, page_tables.
    failures : dict of str to int
        What failed -> how often, over its whole life.
    """

    name: str
    release: str
    arch: str
    reset: str = "page"
    parameters: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    accesses: list[int] = field(default_factory=list)
    direct_map_kb: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)
    memory: dict[str, list[int]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)


class TraceFacts(Struct, frozen=True, kw_only=True):
    """Which trace it was.

    Attributes
    ----------
    name : str
    accesses : int
        Those that were replayed.
    distinct_base_pages, records, cpus : int
    instructions : int or None
        That the trace stands for; None where its recorder does not tell.
    instructions_told_by : str
    """

    name: str
    accesses: int
    distinct_base_pages: int
    records: int = 0
    cpus: int = 1
    instructions: int | None = None
    instructions_told_by: str = ""


class Provenance(Struct, frozen=True, kw_only=True):
    """What made the figures.

    Attributes
    ----------
    pagewalk : str
        Version.
    machine_sha256 : dict of str to str
        For each machine.
    trace_sha256 : str
    kernel : str
        The kernel that was traced or modelled; "" where there is none.
    command : str
    environment : dict of str to str
        python, numpy, numba, os.
    """

    pagewalk: str
    machine_sha256: dict[str, str] = field(default_factory=dict)
    trace_sha256: str = ""
    kernel: str = ""
    command: str = ""
    environment: dict[str, str] = field(default_factory=dict)


class Result(Struct, frozen=True, kw_only=True):
    """A trace and its replays; where kernels were modelled, what happened to their memory."""

    schema: Literal["pagewalk.result/1"] = "pagewalk.result/1"
    trace: TraceFacts
    replays: list[Replay]
    provenance: Provenance
    kernels: list[KernelLife] = field(default_factory=list)


def encode(result: Result) -> bytes:
    """The result as indented JSON, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def read(path: Path) -> Result:
    """Read a result file.

    Raises
    ------
    BadInput
        No such file, not a result of this schema, or no replay in it.
    """
    try:
        content = read_at_most(path, LARGEST_BYTES)
    except OSError as error:
        raise BadInput(
            path, error.strerror or "cannot be read", "name a result that pagewalk wrote"
        ) from error
    try:
        result = msgspec.json.decode(content, type=Result)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(path, f"not a pagewalk.result/1: {error}", "run pagewalk again with --json") from error
    if not result.replays:
        raise BadInput(path, "has no replay in it", "run pagewalk again with --json")
    return result
