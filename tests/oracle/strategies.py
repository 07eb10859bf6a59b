"""Small machines, mappings and traces: written down, and drawn by hypothesis."""

import random
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st

from pagewalk.hardware.machine import (
    AddressSpaces,
    Cache,
    Flush,
    Guest,
    Machine,
    Memory,
    Policy,
    Psc,
    Tlb,
    Walker,
)
from pagewalk.linux.geometry import Geometry, Leaf
from pagewalk.linux.mapping import Mapping, Region
from pagewalk.trace.trace import (
    EVENT,
    FETCH,
    FLUSH_ALL,
    FLUSH_LOCAL,
    FLUSH_RANGE,
    RUNNING,
    STORE,
    SWITCH,
    UNMAP,
    Trace,
)
from pagewalk.trace.trace import from_pages as trace_from_pages

X86 = Geometry(
    "x86-64",
    (9, 9, 9, 9),
    (Leaf("base", 12, 1), Leaf("PMD", 21, 2), Leaf("PUD", 30, 3, vmalloc=False)),
    0xFFFF_C900_0000_0000,
    0xFFFF_E900_0000_0000,
)
VMALLOC = X86.vmalloc_start >> 12
"""Page number of the first vmalloc page on x86-64."""

ALL_KINDS = ["load", "store", "fetch"]


def tlb(level: int, entries: int, ways: int = 0, **more: Any) -> Tlb:
    """A TLB array that serves every kind unless told otherwise."""
    more = {"name": f"L{level} {entries}", "serves": ALL_KINDS, **more}
    return Tlb(level=level, entries=entries, ways=ways, **more)  # type: ignore[arg-type]


def machine(*parts: Tlb | Psc | Cache, memory: int = 100, **more: Any) -> Machine:
    """A machine of these parts."""
    return Machine(
        schema="pagewalk.machine/1",
        name="test",
        tlb=[part for part in parts if isinstance(part, Tlb)],
        psc=[part for part in parts if isinstance(part, Psc)],
        cache=[part for part in parts if isinstance(part, Cache)],
        memory=Memory(latency_cycles=memory),
        **more,
    )


def textbook_setassoc() -> Machine:
    """The machine of design.md section 6, from its words."""
    return machine(
        tlb(1, 64, 4),
        tlb(2, 1536, 12),
        Psc(name="PDE cache", level=2, entries=32, ways=4),
        Psc(name="PDPTE cache", level=3, entries=4),
        Psc(name="PML4E cache", level=4, entries=2),
    )


def textbook_fullassoc() -> Machine:
    """The machine of design.md section 6, from its words."""
    return machine(tlb(1, 64), tlb(2, 2048, 8))


def mapping(
    page: Sequence[int],
    leaf_shift: int | Sequence[int] = 12,
    *,
    contiguous: int | Sequence[int] | None = None,
    frame: Sequence[int] | None = None,
    geometry: Geometry = X86,
    regions: int = 1,
) -> Mapping:
    """A mapping of these page numbers; frames count up from 1 unless given; pages take turns in regions."""
    leaf = np.broadcast_to(np.asarray(leaf_shift, np.uint8), len(page)).copy()
    wide = leaf if contiguous is None else np.broadcast_to(np.asarray(contiguous, np.uint8), len(page)).copy()
    return Mapping(
        "test",
        geometry,
        np.asarray(page, np.int64),
        leaf,
        np.arange(1, len(page) + 1, dtype=np.int64) if frame is None else np.asarray(frame, np.int64),
        np.maximum(wide, leaf),
        np.arange(len(page), dtype=np.int32) % regions,
        tuple(Region(f"region {number}") for number in range(regions)),
    )


def event(position: int, kind: int, *, cpu: int = -1, space: int = 0, start: int = 0, end: int = 0) -> Any:
    """One event, as a row of EVENT."""
    return np.array([(position, kind, cpu, space, start, end)], EVENT)


# ---------------------------------------------------------------- drawn by hypothesis


def _index(sets: int) -> st.SearchStrategy[str]:
    """Index expressions that yield log2(sets) bits."""
    bits = sets.bit_length() - 1
    if 1 << bits != sets or bits == 0:
        return st.just("modulo")
    top = bits - 1
    low = f"VPN[{top}:0]"
    return st.sampled_from(
        [
            "modulo",
            "modulo",
            low,
            f"{low} ^ VPN[{top + bits}:{bits}]",
            f"{low} ^ VPN[{top + 9}:9] ^ VPN[{top + 18}:18]",
            f"{{VPN[9], VPN[{top - 1}:0]}}" if bits > 1 else "VPN[9] ^ VPN[0]",
            "{" + ", ".join(f"VPN[{bit}]" for bit in range(bits)) + "}",
        ]
    )


POLICIES = list(get_args(Policy))
"""All that a machine file may name; `mru+1%3-plru4` has 12 ways."""


@st.composite
def shapes(draw: st.DrawFn, policies: list[str], most_sets: int = 8) -> dict[str, Any]:
    """Entries, ways and policy of an array."""
    sets = draw(st.sampled_from([s for s in (1, 1, 2, 3, 4, 8) if s <= most_sets]))
    policy = draw(st.sampled_from(policies))
    most = 12 if policy == "tree-plru" else 6
    ways = 12 if policy == "mru+1%3-plru4" else draw(st.integers(1, most))
    return {
        "entries": sets * ways,
        "ways": 0 if sets == 1 and draw(st.booleans()) else ways,
        "policy": policy,
    }


HOLDS = [
    [[]],
    [["4K", "2M", "1G"]],
    [["4K"]],
    [["4K", "2M"]],
    [["4K", "1G"]],
    [["4K"], ["2M"]],
    [["4K"], ["2M", "1G"]],
    [["4K"], ["2M"], ["1G"]],
    [["4K", "2M"], ["1G"]],
    [["4K", "2M"], ["4K", "1G"]],
    [["4K", "2M"], ["4K", "2M"], ["4K", "1G"], ["4K"]],
]
"""Which leaf sizes the arrays of one level hold; the last two need a rule to choose."""


@st.composite
def arrays(
    draw: st.DrawFn,
    level: int,
    holds: list[list[str]],
    serves: list[str],
    coalesces: bool,
    policies: list[str],
) -> list[Tlb]:
    """The arrays of one level that serve the same kinds, one for each group of leaf sizes."""
    found = []
    for sizes in holds:
        shape = draw(shapes(policies))
        index = draw(_index(shape["entries"] // (shape["ways"] or shape["entries"])))
        coalesce = draw(st.sampled_from([1, 1, 2, 4, 8])) if coalesces else 1
        name = f"L{level} {'+'.join(serves)} {'+'.join(sizes)} {len(found)}"
        more = {"holds": sizes, "serves": serves, "index": index, "coalesce": coalesce}
        more["hit_cycles"] = draw(st.sampled_from([0, 7])) if level == 2 else 0
        found.append(tlb(level, **shape, **more, name=name))
    return found


@st.composite
def tlbs(draw: st.DrawFn, inclusion: str, policies: list[str]) -> list[Tlb]:
    """Both levels: unified or split by kind and by leaf size."""
    kinds = draw(
        st.sampled_from([[ALL_KINDS], [["load", "store"], ["fetch"]], [["load"], ["store"], ["fetch"]],
                         [["load", "store"]], [["load"], ["store", "fetch"]]])
    )  # fmt: skip
    split = draw(st.sampled_from(HOLDS))
    coalesces = inclusion == "none"
    found = []
    for serves in kinds:
        holds = split if inclusion != "none" else draw(st.sampled_from(HOLDS))
        found += draw(arrays(1, holds, serves, coalesces, policies))
    seconds: list[list[list[str]]] = [[], [ALL_KINDS], [ALL_KINDS], [["load", "store"], ["fetch"]]]
    # No rule says which of several STLB arrays takes the victim of an L1 array that serves the kinds of both.
    second = draw(st.sampled_from(seconds[:3] if inclusion == "exclusive" else seconds))
    for serves in second:
        holds = split if inclusion != "none" else draw(st.sampled_from(HOLDS))
        found += draw(arrays(2, holds, serves, coalesces, policies))
    return found


def most_candidates(found: list[Tlb]) -> int:
    """How many arrays of one level may hold the same base page for the same kind of access."""
    return max(
        sum(a.level == level and kind in a.serves and (not a.holds or "4K" in a.holds) for a in found)
        for level in (1, 2)
        for kind in ALL_KINDS
    )


@st.composite
def pscs(draw: st.DrawFn, levels: int, policies: list[str], prefix: str = "") -> list[Psc]:
    """Paging-structure caches of some levels."""
    found = []
    for level in range(2, levels + 1):
        if draw(st.booleans()):
            found.append(Psc(name=f"{prefix}level {level}", level=level, **draw(shapes(policies, 4))))
    return draw(st.permutations(found))


@st.composite
def caches(draw: st.DrawFn, cpus: int, policies: list[str]) -> list[Cache]:
    """Up to three levels of data caches, shared ones outermost."""
    found: list[Cache] = []
    shared = False
    for level in range(draw(st.integers(0, 3))):
        shape = draw(shapes(policies, 4))
        shared = shared or (level > 0 and cpus > 1 and draw(st.booleans()))
        victim = level > 0 and draw(st.booleans())
        found.append(
            Cache(
                name=f"L{level + 1}",
                size_bytes=shape["entries"] * 64,
                ways=shape["ways"] or shape["entries"],
                latency_cycles=4 + 10 * level,
                slice_sets=draw(st.sampled_from([0, 0, 1, 2, 3])),
                policy=shape["policy"],
                fill="victim" if victim else "demand",
                inclusive=not victim and level > 0 and draw(st.booleans()),
                shared=shared,
            )
        )
    return found


@st.composite
def machines(
    draw: st.DrawFn, *, levels: int = 4, cpus: int = 1, guest: bool | None = None, plain: bool = False
) -> Machine:
    """Valid machines over all that a description can say; plain ones have independent levels of true LRU."""
    inclusion = "none" if plain else draw(st.sampled_from(["none", "none", "inclusive", "exclusive"]))
    is_guest = draw(st.integers(0, 3)) == 0 if guest is None else guest
    policies = ["lru"] if plain else POLICIES
    found = draw(tlbs(inclusion, policies))
    cached = draw(caches(cpus, policies))
    enters = draw(st.sampled_from([""] + [c.name for c in cached if c.fill == "demand"]))
    more: dict[str, Any] = {}
    if draw(st.booleans()):
        more["flush"] = Flush(
            full_cycles=1000, page_cycles=30, ceiling_pages=draw(st.sampled_from([0, 1, 33]))
        )
    if most_candidates(found) == 2:
        more["choose"] = draw(st.sampled_from(["VPN[0]", "VPN[7]", "VPN[3] ^ VPN[9]"]))
    elif most_candidates(found) == 4:
        more["choose"] = draw(st.sampled_from(["VPN[1:0]", "{VPN[0], VPN[9]}"]))
    if is_guest:
        nested = draw(shapes(policies, 4))
        host_levels = draw(st.integers(4, 5))
        host_leaf = draw(st.sampled_from(["4K", "2M", "1G"]))
        more["guest"] = Guest(
            host_leaf=host_leaf,
            walks_in_stlb=host_leaf == "4K" and inclusion == "none" and draw(st.booleans()),
            host_levels=host_levels,
            combined_psc=draw(st.booleans()),
            nested_entries=nested["entries"] if draw(st.booleans()) else 0,
            nested_ways=nested["ways"],
            host_psc=draw(pscs(host_levels, policies, "host ")),
        )
    return machine(
        *found,
        *draw(pscs(levels, policies)),
        *cached,
        inclusion=inclusion,
        walker=Walker(
            count=draw(st.integers(1, 3)),
            start_cycles=draw(st.sampled_from([0, 7])),
            enters=enters,
            window_accesses=draw(st.sampled_from([0, 1, 5, 200])),
        ),
        spaces=AddressSpaces(slots=draw(st.integers(0, 3))),
        **more,
    )


@st.composite
def mappings(draw: st.DrawFn, *, with_spaces: bool = False, geometry: Geometry = X86) -> tuple[Mapping, Any]:
    """Distinct pages with a leaf for each, and their spaces (or None); neighbours agree about a leaf."""
    base, pmd = geometry.base_shift - 12, geometry.leaf("PMD").shift - 12
    pieces = st.sampled_from([geometry.vmalloc_start >> 12, geometry.vmalloc_start - (1 << 39) >> 12, 0])
    blocks = st.sampled_from([0, 1, 2, 3, 8, 9, 511, 512, 513])
    wanted = draw(
        st.lists(
            st.tuples(pieces, blocks, st.integers(0, 19), st.integers(0, 2)),
            min_size=1,
            max_size=draw(st.sampled_from([4, 12, 40])),
            unique=True,
        )
    )
    salt = draw(st.integers(0, 1 << 16))
    where: dict[tuple[int, int], tuple[int, int]] = {}
    for piece, block, number, own in wanted:
        page = piece + (block << pmd) + (number << max(0, base - 2))
        space = own if with_spaces and piece == 0 else 0
        leaf = geometry.base_shift
        for larger in geometry.leaves[1:]:
            if hash((salt, page >> larger.shift - 12, space)) % 4 == 0:
                leaf = larger.shift
        contiguous = base + 12 + hash((salt, page >> base + 3, space)) % 4
        where[page, space] = leaf, max(leaf, contiguous)
    frame, numbers = [], {}
    for (page, space), (_, contiguous) in where.items():
        order = contiguous - 12
        number = numbers.setdefault((space, order, page >> order), len(numbers) + 1)
        frame.append(number << 18 | page & ((1 << order) - 1))
    mapped = mapping(
        [page for page, _ in where],
        [leaf for leaf, _ in where.values()],
        contiguous=[contiguous for _, contiguous in where.values()],
        frame=frame,
        geometry=geometry,
        regions=3,
    )
    return mapped, np.array([space for _, space in where], np.uint16) if with_spaces else None


@st.composite
def events(draw: st.DrawFn, accesses: int, pages: Any, cpus: int, with_spaces: bool) -> Any:
    """Flushes, unmappings and switches over a trace, sorted by position."""
    kinds = [FLUSH_ALL, FLUSH_LOCAL, FLUSH_RANGE, UNMAP] + [SWITCH, SWITCH, SWITCH, RUNNING] * with_spaces
    rows = []
    for position in sorted(draw(st.lists(st.integers(0, accesses), max_size=8))):
        at = int(pages[draw(st.integers(0, len(pages) - 1))]) << 12
        start = max(0, at + draw(st.sampled_from([-4096, 0, 1, 4096])))
        end = start + draw(st.sampled_from([1, 4096, 8192, 1 << 21]))
        kind, cpu, space = (
            draw(st.sampled_from(kinds)),
            draw(st.integers(-1, cpus - 1)),
            draw(st.integers(1, 2)),
        )
        row = (position, kind, cpu, space, start, end)
        rows.append(row)
    return np.array(rows, EVENT)


@st.composite
def traces(
    draw: st.DrawFn, mapped: Mapping, spaces: Any, *, cpus: int = 1, with_events: bool = False
) -> Trace:
    """A trace over the pages of a mapping: loads, stores, fetches, on some CPUs, with some events."""
    by = draw(st.sampled_from([0, 0, 0, 5, -512, 3 * 512 + 1]))
    recorded = mapped.page + by * (mapped.page >> 27 != 0)  # the mapping may have moved all but the lowest
    count = draw(st.integers(0, 400))
    dice = random.Random(draw(st.integers(0, 1 << 16)))
    page: list[int] = []
    for _ in range(count):
        move = dice.random()
        near = page[-1] if page else 0
        back = page[-dice.randint(1, min(len(page), 12))] if page else 0
        anywhere = dice.randrange(len(mapped.page))
        page.append(
            near
            if move < 0.2
            else back
            if move < 0.5
            else (near + 1) % len(mapped.page)
            if move < 0.7
            else anywhere
        )
    flag = dice.choices((0, STORE, FETCH), (4, 2, 1), k=count)
    cpu = dice.choices(range(cpus), k=count)
    offset = dice.choices((0, 8, 60, 64, 2048, 4095), k=count)
    last_cpu = max(cpu, default=0) if cpus > 1 else 0
    happened = draw(events(count, recorded, last_cpu + 1, spaces is not None)) if with_events else None
    return trace_from_pages(
        "drawn",
        recorded.astype(np.uint64),
        np.array(page, np.uint32),
        offset=np.array(offset, np.uint16),
        flags=np.array(flag, np.uint8),
        cpu=np.array(cpu, np.uint8) if cpus > 1 else None,
        spaces=spaces,
        events=happened,
    )
