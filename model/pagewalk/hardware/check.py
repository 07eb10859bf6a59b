"""What no machine can be: limits of every figure, and rules between them.

A description that passes here can be replayed: the engine checks nothing again.
"""

import math
from collections.abc import Iterator
from typing import Any

from pagewalk.errors import BadInput
from pagewalk.hardware.index import parse, width
from pagewalk.hardware.machine import (
    SIZES,
    AddressSpaces,
    Cache,
    Flush,
    Guest,
    Machine,
    Memory,
    Psc,
    Tlb,
    Walker,
    tables,
)

GEOMETRIES = {
    "x86-64": ("4K", 4),
    "x86-64-5level": ("4K", 5),
    "arm64-4k": ("4K", 4),
    "arm64-4k-39bit": ("4K", 3),
    "arm64-4k-52bit": ("4K", 5),
    "arm64-16k": ("16K", 4),
    "arm64-16k-47bit": ("16K", 3),
    "arm64-64k": ("64K", 3),
    "arm64-64k-42bit": ("64K", 2),
    "arm64-64k-52bit": ("64K", 3),
    "powerpc64-radix-4k": ("4K", 4),
    "powerpc64-radix-64k": ("64K", 4),
    "riscv-sv39": ("4K", 3),
    "riscv-sv48": ("4K", 4),
    "riscv-sv57": ("4K", 5),
}
"""Geometry -> base page, table levels. The rest is `pagewalk.linux.geometry`'s; these floors do not meet."""

CYCLES = (0, 1_000_000)
ARRAY = (1, 1 << 20)
WAYS = (0, 1 << 20)

LIMITS: dict[type, dict[str, tuple[int, int]]] = {
    Tlb: {"entries": ARRAY, "ways": WAYS, "hit_cycles": CYCLES, "coalesce": (1, 512)},
    Psc: {"level": (2, 5), "entries": ARRAY, "ways": WAYS},
    Cache: {
        "size_bytes": (64, 2 << 30),
        "ways": (1, 1024),
        "latency_cycles": CYCLES,
        "line_bytes": (16, 4096),
        "slice_sets": (0, 1 << 20),
    },
    Memory: {"latency_cycles": CYCLES},
    Walker: {"count": (1, 64), "start_cycles": CYCLES, "window_accesses": (0, 1 << 20)},
    Flush: {"full_cycles": CYCLES, "page_cycles": CYCLES, "ceiling_pages": (0, 1 << 40)},
    AddressSpaces: {"slots": (0, 1 << 20)},
    Guest: {"host_levels": (2, 5), "nested_entries": (0, 1 << 20), "nested_ways": WAYS},
}
"""Table -> figure -> least and greatest value.

The greatest are ours: far above any processor, low enough to allocate.
"""

MOST_TABLES = 32
"""Tables of one kind in a description; ours."""

LONGEST_NAME = 80
"""Characters in a name; ours, so that names fit tables."""

FASTEST_GHZ = 20.0
"""Ours: above any clock ever reached, so that a value in MHz is noticed."""

Fault = tuple[str, str, str]
"""Key, what is wrong with it, mend."""


def check(machine: Machine, file: object) -> None:
    """Refuse a machine that cannot be.

    Parameters
    ----------
    machine : Machine
    file : object
        Named in the message.

    Raises
    ------
    BadInput
        Names the file, the key (``tlb[1].ways``) and the mend.
    """
    for key, what, mend in faults(machine):
        raise BadInput(f"{file}: {key}", what, mend)


def faults(machine: Machine) -> Iterator[Fault]:
    """Find what is wrong, in the order of the file; only the first is certain to be meaningful."""
    for key, table in tables(machine):
        yield from _limits(key, table)
    yield from _names(machine)
    yield from _whole(machine)
    for key, tlb in _listed("tlb", machine.tlb):
        yield from _tlb(key, tlb)
    yield from _levels(machine)
    base, levels = GEOMETRIES[machine.geometry]
    yield from _pscs("psc", machine.psc, levels)
    if guest := machine.guest:
        if SIZES[guest.host_leaf] < SIZES[base]:
            what = f"{guest.host_leaf} is smaller than the guest's base page, {base}"
            yield "guest.host_leaf", what, "give a larger one, or another geometry"
        yield from _pscs("guest.host_psc", guest.host_psc, guest.host_levels)
        yield from _array("guest.nested_ways", guest.nested_entries, guest.nested_ways, "lru")
        if guest.walks_in_stlb and (guest.host_leaf != "4K" or machine.inclusion != "none"):
            what = f"does not go with host_leaf = {guest.host_leaf!r}, inclusion = {machine.inclusion!r}"
            yield "guest.walks_in_stlb", what, 'give host_leaf = "4K" and inclusion = "none", or leave it out'
    yield from _caches(machine)


def _listed(kind: str, found: list[Any]) -> list[tuple[str, Any]]:
    return [(f"{kind}[{place}]", table) for place, table in enumerate(found)]


def _limits(key: str, table: Any) -> Iterator[Fault]:
    """Every number within its limits; a reason for an assumption only where there is a figure."""
    prefix = f"{key}." if key else ""
    for name, (least, most) in LIMITS.get(type(table), {}).items():
        value = getattr(table, name)
        if not least <= value <= most:
            shown = value if abs(value) < 1 << 64 else "that"
            yield prefix + name, f"{shown} is out of range", f"give {least} to {most}"
    for name in table.assumed:
        if name not in table.__struct_fields__:
            yield (
                f"{prefix}assumed",
                f"gives a reason for {name[:40]!r}, no key of the table",
                "name a key of it",
            )


def _names(machine: Machine) -> Iterator[Fault]:
    """Names are what results are listed under: not empty, each once."""
    for kind, found in (("tlb", machine.tlb), ("psc", machine.psc), ("cache", machine.cache)):
        if len(found) > MOST_TABLES:
            yield kind, f"{len(found)} tables", f"give at most {MOST_TABLES}"
        seen = {"memory"} if kind == "cache" else set()
        for key, table in _listed(kind, found):
            if not _nameable(table.name):
                yield f"{key}.name", "is empty, too long or not printable", "name it in plain characters"
            if table.name in seen:
                yield f"{key}.name", f"{table.name!r} is taken", "give each its own name"
            seen.add(table.name)


def _nameable(name: str) -> bool:
    return name.isprintable() and 0 < len(name.strip()) <= LONGEST_NAME


def _whole(machine: Machine) -> Iterator[Fault]:
    if not _nameable(machine.name):
        yield "name", "is empty, too long or not printable", "name the machine in plain characters"
    if machine.geometry not in GEOMETRIES:
        yield "geometry", f"{machine.geometry[:80]!r} is unknown", f"give one of {', '.join(GEOMETRIES)}"
    if not (math.isfinite(machine.clock_ghz) and 0 <= machine.clock_ghz <= FASTEST_GHZ):
        yield (
            "clock_ghz",
            f"{machine.clock_ghz} is no clock",
            f"give GHz, up to {FASTEST_GHZ:g}; 0 is unknown",
        )


def _array(key: str, entries: int, ways: int, policy: str) -> Iterator[Fault]:
    """Entries make whole sets, of a number of ways that the policy can manage."""
    ways = ways or entries
    if ways and entries % ways:
        yield key, f"{entries} entries are no whole number of sets of {ways}", "give a divisor of the entries"
    if policy == "mru+1%3-plru4" and ways != 12:
        yield key, f"mru+1%3-plru4 is for 12 ways, not {ways}", "give 12 ways or another policy"


def _expression(key: str, expression: str, values: int, what: str) -> Iterator[Fault]:
    """An expression can be read and yields as many values as are wanted."""
    try:
        bits = width(parse(expression))
    except ValueError as error:
        yield key, str(error), 'write it like "VPN[6:0] ^ VPN[13:7]" or "{VPN[9], VPN[6:0]}"'
        return
    if 1 << bits != values:
        yield key, f"yields {bits} bits, but there are {values} {what}", f"give log2({what}) bits"


def _tlb(key: str, tlb: Tlb) -> Iterator[Fault]:
    yield from _array(f"{key}.ways", tlb.entries, tlb.ways, tlb.policy)
    if tlb.index != "modulo":
        yield from _expression(f"{key}.index", tlb.index, tlb.entries // (tlb.ways or tlb.entries), "sets")
    if tlb.coalesce & (tlb.coalesce - 1):
        yield f"{key}.coalesce", f"{tlb.coalesce} is no power of two", "give 1, 2, 4, 8 ..."
    if not tlb.serves or len(set(tlb.serves)) < len(tlb.serves):
        yield f"{key}.serves", "is empty or names a kind twice", "give load, store, fetch, each at most once"
    if len(set(tlb.holds)) < len(tlb.holds):
        yield f"{key}.holds", "names a size twice", "give each once"
    for size in tlb.holds:
        if size not in SIZES:
            yield f"{key}.holds", f"{size[:20]!r} is no leaf size", f"give some of {', '.join(SIZES)}"


def _levels(machine: Machine) -> Iterator[Fault]:
    """Every access finds one array at each level: not none, and not several without a rule to choose."""
    base = GEOMETRIES[machine.geometry][0]
    most = 1
    for level in (1, 2):
        arrays = [tlb for tlb in machine.tlb if tlb.level == level]
        served = {kind for tlb in arrays for kind in tlb.serves}
        for kind in ("load", "store"):
            if kind not in served and (arrays or level == 1):
                yield "tlb", f"no array of level {level} serves {kind}s", f'give one with serves = ["{kind}"]'
        for kind in sorted(served):
            for size in sorted({size for tlb in arrays for size in tlb.holds} | {base}):
                found = [t.name for t in arrays if kind in t.serves and (not t.holds or size in t.holds)]
                if not found and size == base:
                    what = f"no array of level {level} holds {base}, the base page, for {kind}"
                    yield "tlb", what, "give one that does, or another geometry"
                if len(found) > 1 and not machine.choose:
                    what = f"{' and '.join(found)[:200]} both hold {size} for {kind}"
                    yield "choose", what, 'say which by an expression, e.g. "VPN[7]", or let only one hold it'
                most = max(most, len(found))
    if machine.choose and most == 1:
        yield "choose", "no two arrays hold the same page", "leave it out"
    elif machine.choose:
        yield from _expression("choose", machine.choose, most, "arrays")


def _pscs(kind: str, found: list[Psc], levels: int) -> Iterator[Fault]:
    seen = set()
    for key, psc in _listed(kind, found):
        yield from _array(f"{key}.ways", psc.entries, psc.ways, psc.policy)
        if psc.level > levels:
            yield f"{key}.level", f"{psc.level} is above the tables' {levels} levels", f"give 2 to {levels}"
        if psc.level in seen:
            yield f"{key}.level", f"a second cache of level {psc.level}", "give one for each level"
        seen.add(psc.level)


def _caches(machine: Machine) -> Iterator[Fault]:
    above = 0
    for key, cache in _listed("cache", machine.cache):
        line = cache.line_bytes
        if line & (line - 1):
            yield f"{key}.line_bytes", f"{line} is no power of two", "give 64 or 128"
        if line != machine.cache[0].line_bytes:
            yield f"{key}.line_bytes", "differs from the first cache's", "give all caches lines of one size"
        if cache.size_bytes % (cache.ways * line):
            what = (
                f"{cache.size_bytes} bytes are no whole number of sets of {cache.ways} lines of {line} bytes"
            )
            yield f"{key}.size_bytes", what, "change size_bytes, ways or line_bytes"
        yield from _array(f"{key}.ways", cache.size_bytes // line, cache.ways, cache.policy)
        if cache.fill == "victim" and (cache is machine.cache[0] or cache.inclusive):
            what = "a victim cache needs a level above it and cannot be inclusive"
            yield f"{key}.fill", what, 'write "demand", or inclusive = false'
        if cache.latency_cycles < above:
            what = f"{cache.latency_cycles} is less than the {above} of the level above"
            yield (
                f"{key}.latency_cycles",
                what,
                "list caches from the core outwards, load to use from the core",
            )
        above = cache.latency_cycles
    if machine.memory.latency_cycles < above:
        what = f"{machine.memory.latency_cycles} is less than the {above} of the last cache"
        yield "memory.latency_cycles", what, "give cycles, load to use from the core"
    names = [cache.name for cache in machine.cache]
    if machine.walker.enters and machine.walker.enters not in names:
        what = f"there is no cache {machine.walker.enters[:80]!r}"
        yield "walker.enters", what, f"give one of: {', '.join(names) or 'none, as there is no cache'}"
    for cache in machine.cache:
        if cache.name == machine.walker.enters and cache.fill == "victim":
            what = f"{cache.name[:80]!r} is a victim cache, which reads do not fill"
            yield "walker.enters", what, "name a cache that is filled on demand"
