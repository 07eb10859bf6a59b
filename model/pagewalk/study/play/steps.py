"""What a scenario's kernel and events are, as data: what happens to memory, who accesses it, what repeats."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from pagewalk.linux import executable
from pagewalk.linux.boot import BootTables, memory_ranges, orders
from pagewalk.linux.memory import pages
from pagewalk.linux.memory.conditions import age, fresh
from pagewalk.linux.memory.direct_map import Reset
from pagewalk.linux.memory.kernel import Event, Kernel
from pagewalk.linux.rules.eligibility import Kernel as Rules
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import release

Count = Annotated[int, Meta(ge=1, le=1 << 32)]


class Aged(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Memory that was used before: see `pagewalk.linux.memory.conditions.age`.

    Attributes
    ----------
    unusable : float
        Share of the free memory in blocks smaller than a pageblock.
    free : float
        Share of all memory that is free.
    seed : int
    """

    unusable: Annotated[float, Meta(ge=0, le=1)]
    free: Annotated[float, Meta(gt=0, le=1)] = 0.3
    seed: int = 1


class KernelTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kernel that lives through the events; its name stands where a mapping's name stands in a result.

    Attributes
    ----------
    name : str
    release : str
        "v8", "5.13", "6.12" ...
    nodes : list of int
        Bytes of memory of each NUMA node.
    cpus : int
    arch : str
        Page-table geometry; "" is the machine's.
    parameters : list of str
        Boot parameters: "nohugevmalloc", "dhash_entries=65536", "hashdist=0".
    huge_since : str
        What if this architecture had had huge vmalloc since that release; "" leaves it as it was.
    reset : {"page", "block", "range"}
        How the direct map of a freed area is reset; "page" is what all releases do.
    linear_leaves, rodata_full
        As of `pagewalk.linux.memory.kernel.Kernel`.
    aged : Aged, optional
        Memory is fresh unless given.
    """

    name: str
    release: str
    nodes: Annotated[list[Annotated[int, Meta(ge=1 << 24, le=1 << 42)]], Meta(min_length=1, max_length=64)]
    cpus: Annotated[int, Meta(ge=1, le=64)] = 1
    arch: str = ""
    parameters: list[str] = field(default_factory=list)
    huge_since: str = ""
    reset: Reset = "page"
    linear_leaves: Literal["blocks", "pages"] | None = None
    rodata_full: bool = True
    aged: Aged | None = None


def start(table: KernelTable, arch: str) -> Kernel:
    """Give the kernel as it starts to boot.

    Raises
    ------
    BadInput
        No such release or architecture, or its memory cannot be aged so.
    """
    rule = hooks(arch)
    if table.huge_since:
        rule = replace(rule, huge_since=release(table.huge_since).name)
    ranges, cut = memory_ranges(table.nodes, arch), orders(arch)
    memory = fresh(ranges, cut)
    if table.aged:
        age(memory, unusable=table.aged.unusable, free=table.aged.free, seed=table.aged.seed)
    rules = Rules(
        release(table.release), rule, nodes=len(ranges), ram_bytes=sum(table.nodes),
        parameters=frozenset(table.parameters),
    )  # fmt: skip
    spans = [span for node in ranges.values() for span in node]
    return Kernel(
        rules, memory, spans, cpus=table.cpus, reset=table.reset, linear_leaves=table.linear_leaves,
        rodata_full=table.rodata_full,
    )  # fmt: skip


class Touch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accesses to one thing, `times` in each round.

    Attributes
    ----------
    what : str
        Name of an area, of pages, of a module or of a BPF program (its text).
    times : int
    pattern : {"uniform", "zipf", "sequential", "same"}
        Each 8-byte word equally likely; pages by Zipf's law; word after word; the first word again and again.
    size : int
        Only the first so many bytes; 0: all that was asked for.
    direct : bool
        An area is reached at its addresses in the direct map.
    store, fetch : bool
        Stores; instruction fetches.
    """

    what: str
    times: Annotated[int, Meta(ge=1, le=1000)] = 1
    pattern: Literal["uniform", "zipf", "sequential", "same"] = "uniform"
    size: Annotated[int, Meta(ge=0)] = 0
    direct: bool = False
    store: bool = False
    fetch: bool = False


class Access(Event, frozen=True, tag="access"):
    """In each round, touch these things in turn."""

    rounds: Count
    touch: Annotated[list[Touch], Meta(min_length=1, max_length=100)]
    cpu: Annotated[int, Meta(ge=0, le=63)] = 0


class Repeat(Event, frozen=True, tag="repeat"):
    """Do events again and again; "{n}" in their names is the number of the round, from 0."""

    times: Annotated[int, Meta(ge=1, le=100_000)]
    events: list["Step"]


Step = (
    executable.Event
    | BootTables
    | pages.TakePages
    | pages.FreePages
    | pages.HoldMemory
    | pages.FreeMemory
    | Access
    | Repeat
)
"""All events of a scenario."""


def expanded(steps: list[Step], place: str = "event") -> Iterator[tuple[str, Event]]:
    """Give the events one by one, each with its place in the file; what repeats, so many times."""
    for index, step in enumerate(steps):
        here = f"{place}[{index}]"
        if not isinstance(step, Repeat):
            yield here, step
            continue
        for number in range(step.times):
            for inner, event in expanded(step.events, f"{here}.events"):
                yield inner, _numbered(event, number)


def _numbered(event: Event, number: int) -> Event:
    """Write the number of the round where names say "{n}"."""
    changes: dict[str, object] = {
        key: value.replace("{n}", str(number))
        for key in event.__struct_fields__
        if isinstance(value := getattr(event, key), str) and "{n}" in value
    }
    if isinstance(event, Access):
        changes["touch"] = [
            msgspec.structs.replace(touch, what=touch.what.replace("{n}", str(number)))
            for touch in event.touch
        ]
    return msgspec.structs.replace(event, **changes) if changes else event
