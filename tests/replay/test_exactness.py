"""The engine against the oracle: the same counts, and the same misses at the same positions.

What the engine is free to choose, the oracle takes from it: only where page-table pages lie in memory.
"""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagewalk.hardware.check import check
from pagewalk.hardware.load import load, names
from pagewalk.hardware.machine import Cache, Machine, Psc, Walker
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.linux.layout import read_layout
from pagewalk.linux.mapping import Mapping, map_trace
from pagewalk.replay.engine import Run, replay
from pagewalk.replay.paths.fast import FastPath
from pagewalk.replay.result import Replay
from pagewalk.replay.tables import HOST_TABLES_AT, translate
from pagewalk.trace.open import open_trace
from pagewalk.trace.sample import sample_path
from pagewalk.trace.trace import EVENT, FETCH, STORE, UNMAP, Trace, from_pages
from places import OUTSIDE
from reference import simulate
from strategies import (
    POLICIES,
    VMALLOC,
    machine,
    machines,
    mapping,
    mappings,
    textbook_fullassoc,
    textbook_setassoc,
    tlb,
    traces,
)

CHUNKS = st.sampled_from([1, 7, 64, 1 << 20])
REPEATABLE = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def columns(trace: Trace) -> dict[str, Any]:
    """The columns of a whole trace as lists, None where it has none."""
    chunks = list(trace.chunks("offset", "flags", "cpu"))
    return {
        name: [item for chunk in chunks for item in getattr(chunk, name).tolist()]
        if name == "page" or name in trace.columns
        else None
        for name in ("page", "offset", "flags", "cpu")
    }


def by_oracle(
    trace: Trace, mapped: Mapping, hardware: Machine, fetches: bool, cache_mode: str
) -> dict[str, Any]:
    """Replay by the oracle, positions among the replayed accesses as the engine gives them."""
    column = columns(trace)
    flags = column["flags"] or [0] * trace.accesses
    kinds = [(2 if fetches else -1) if f & FETCH else 1 if f & STORE else 0 for f in flags]
    tables = translate(mapped, hardware, trace.spaces)
    spaces = [0] * len(trace.pages) if trace.spaces is None else trace.spaces.tolist()
    unit = dict(
        zip(zip(mapped.page.tolist(), spaces, strict=True), tables.unit_of_page.tolist(), strict=True)
    )

    def host_address(level: int, address: int) -> int:
        return HOST_TABLES_AT + (level << 52) + (address >> 12 + 9 * (level - 1)) * 8

    found = simulate(
        hardware,
        trace.pages.tolist(),
        mapped,
        column["page"],
        kinds,
        cpus=column["cpu"],
        spaces=trace.spaces,
        events=trace.events,
        offsets=column["offset"],
        cache_mode=cache_mode,
        entry_address=lambda level, page, space: int(tables.entry[level, unit[page, space]]),
        host_address=host_address,
    )
    rank = np.cumsum(np.array(kinds) >= 0) - 1
    for level in ("l1", "stlb"):
        at = np.array(found[f"{level}_miss_positions"], int)
        found[f"{level}_miss_pages"] = [column["page"][i] for i in at]
        found[f"{level}_miss_positions"] = rank[at].tolist()
    found["replayed_pages"] = [page for page, kind in zip(column["page"], kinds, strict=True) if kind >= 0]
    return found


def by_engine(
    trace: Trace, mapped: Mapping, hardware: Machine, **more: Any
) -> tuple[Replay, list[int], list[int]]:
    """Replay by the engine; also the positions of its L1 and STLB misses."""
    l1: list[int] = []
    stlb: list[int] = []

    def keep(l1_positions: Any, stlb_positions: Any) -> None:
        l1.extend(l1_positions.tolist())
        stlb.extend(stlb_positions.tolist())

    return replay(trace, mapped, hardware, on_misses=keep, **more), l1, stlb


def waiting(expected: dict[str, Any], walkers: int, window: int) -> int:
    """Cycles by which walks delay a program of one access a cycle that runs `window` accesses ahead."""
    walk = dict(zip(expected["stlb_miss_positions"], expected["cycles_of_walks"], strict=True))
    free = [0] * walkers
    done: dict[int, int] = {}
    time = 0
    for position in range(expected["counts"].get("accesses", 0)):
        if position - window in done:
            time = max(time, done[position - window])
        if position in walk:
            first = free.index(min(free))
            free[first] = max(time, free[first]) + walk[position]
            done[position] = free[first]
            if window == 0:
                time = done[position]
        time += 1
    return max(time, *free) - expected["counts"].get("accesses", 0)


def by_region(mapped: Mapping, expected: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Accesses, L1 and STLB misses, references and cycles of walks for each region, from the positions."""
    names = [mapped.regions[number].name for number in mapped.region]
    accesses = Counter(names[page] for page in expected["replayed_pages"])
    l1 = Counter(names[page] for page in expected["l1_miss_pages"])
    walked = [names[page] for page in expected["stlb_miss_pages"]]
    stlb, refs, cycles = Counter(walked), Counter[str](), Counter[str]()
    for name, walk, spent in zip(walked, expected["walks"], expected["cycles_of_walks"], strict=True):
        refs[name] += len(walk)
        cycles[name] += spent
    return {name: (accesses[name], l1[name], stlb[name], refs[name], cycles[name]) for name in accesses}


def some(counts: dict[str, int], *but: str) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: count for name, count in counts.items() if count and name not in but}


def agree(
    trace: Trace,
    mapped: Mapping,
    hardware: Machine,
    *,
    fetches: bool = True,
    cache_mode: str = "walks-only",
    **more: Any,
) -> dict[str, Any]:
    """The engine, by its fast path and without it, says what the oracle says; returns that."""
    expected = by_oracle(trace, mapped, hardware, fetches, cache_mode)
    more |= {"fetches": fetches, "cache_mode": cache_mode}
    for fast in (True, False):
        found, l1, stlb = by_engine(trace, mapped, hardware, fast=fast, **more)
        assert l1 == expected["l1_miss_positions"]
        assert stlb == expected["stlb_miss_positions"]
        same_figures(found, expected, trace, mapped, hardware)
    return expected


def same_figures(
    found: Replay, expected: dict[str, Any], trace: Trace, mapped: Mapping, hardware: Machine
) -> None:
    """Every count and cycle of a result that the oracle knows too."""
    assert some(found.counts, "fetches") == some(expected["counts"])
    assert some(found.walk_refs_in) == some(expected["walk_refs_in"])
    assert some(found.walk_cycles_by_level) == some(expected["walk_cycles_by_level"])
    assert some(found.cycles, "exposed") == some(expected["cycles"])
    if hardware.cache:
        assert {name: some(each) for name, each in found.caches.items()} == expected["caches"]
    regions = {
        r.name: (r.accesses, r.l1_misses, r.stlb_misses, r.walk_refs, r.walk_cycles) for r in found.by_region
    }
    assert regions == by_region(mapped, expected)
    if trace.cpus == 1:
        waited = waiting(expected, hardware.walker.count, hardware.walker.window_accesses)
        others = found.cycles["stlb_hit"] + found.cycles["flush"]
        assert found.cycles["exposed"] == waited + others


# ---------------------------------------------------------------- random machines


@given(st.data())
@settings(REPEATABLE, max_examples=120)
def test_random_machines(data: st.DataObject) -> None:
    """Any machine, any mapping of x86-64, loads, stores and fetches on one CPU."""
    hardware = data.draw(machines(guest=False))
    check(hardware, "drawn")
    mapped, _ = data.draw(mappings())
    trace = data.draw(traces(mapped, None))
    mode = data.draw(st.sampled_from(["walks-only", "full"]))
    agree(trace, mapped, hardware, fetches=data.draw(st.booleans()), cache_mode=mode, chunk=data.draw(CHUNKS))


@given(st.data())
@settings(REPEATABLE, max_examples=120)
def test_random_plain_machines(data: st.DataObject) -> None:
    """Independent levels of true LRU, most of which take the fast path."""
    hardware = data.draw(machines(guest=False, plain=True))
    mapped, _ = data.draw(mappings())
    trace = data.draw(traces(mapped, None))
    agree(trace, mapped, hardware, fetches=data.draw(st.booleans()), chunk=data.draw(CHUNKS))


@given(st.data())
@settings(REPEATABLE, max_examples=120)
def test_random_machines_with_cpus_spaces_and_events(data: st.DataObject) -> None:
    hardware = data.draw(machines(cpus=3, guest=False))
    mapped, spaces = data.draw(mappings(with_spaces=True))
    trace = data.draw(traces(mapped, spaces, cpus=3, with_events=True))
    mode = data.draw(st.sampled_from(["walks-only", "full"]))
    agree(trace, mapped, hardware, cache_mode=mode, chunk=data.draw(CHUNKS))


@given(st.data())
@settings(REPEATABLE, max_examples=80)
def test_random_guests(data: st.DataObject) -> None:
    hardware = data.draw(machines(cpus=2, guest=True))
    check(hardware, "drawn")
    mapped, spaces = data.draw(mappings(with_spaces=True))
    trace = data.draw(traces(mapped, spaces, cpus=2, with_events=True))
    mode = data.draw(st.sampled_from(["walks-only", "full"]))
    agree(trace, mapped, hardware, cache_mode=mode, chunk=data.draw(CHUNKS))


@given(st.data(), st.sampled_from(sorted(GEOMETRIES)))
@settings(REPEATABLE, max_examples=60)
def test_random_traces_on_every_geometry(data: st.DataObject, name: str) -> None:
    """A unified TLB and caches of every level above the leaf table, tables as each architecture has them."""
    geometry = GEOMETRIES[name]
    mapped, _ = data.draw(mappings(geometry=geometry))
    parts = [tlb(1, 4), tlb(2, 12, 3)]
    psc = [Psc(name=f"level {n}", level=n, entries=2) for n in range(2, geometry.levels + 1)]
    agree(data.draw(traces(mapped, None)), mapped, machine(*parts, *psc, geometry=name))


# ---------------------------------------------------------------- every policy, wide


def zipf(pages: int, accesses: int, seed: int) -> Any:
    """Page indices, the first the most popular."""
    weight = 1 / np.arange(1, pages + 1)
    return np.random.default_rng(seed).choice(pages, accesses, p=weight / weight.sum()).astype(np.uint32)


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "mru+1%3-plru4"])
@pytest.mark.parametrize("ways", [1, 2, 8, 16, 32, 64, 128])
def test_policies_up_to_many_ways(policy: str, ways: int) -> None:
    pages = [VMALLOC + number for number in range(3 * ways)]
    order = zipf(len(pages), 3000, ways)
    mapped = mapping(pages)
    trace = from_pages("zipf", mapped.page.astype(np.uint64), order)
    expected = agree(
        trace, mapped, machine(tlb(1, ways, policy=policy), tlb(2, 2 * ways, ways, policy=policy))
    )
    assert 0 < expected["counts"]["stlb_hits"] < expected["counts"]["l1_dtlb_misses"] < 3000


def test_skylake_policy_at_its_size() -> None:
    hardware = machine(tlb(1, 12, policy="mru+1%3-plru4"), tlb(2, 48, 12, policy="mru+1%3-plru4"))
    mapped = mapping([VMALLOC + number for number in range(100)])
    agree(from_pages("zipf", mapped.page.astype(np.uint64), zipf(100, 5000, 1)), mapped, hardware)


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "mru+1%3-plru4"])
@pytest.mark.parametrize("inclusion", ["none", "inclusive", "exclusive"])
def test_policies_with_holes(policy: str, inclusion: str) -> None:
    """Pages are unmapped one by one all the time, so that sets have empty ways that are filled again."""
    rng = np.random.default_rng(4)
    mapped = mapping([VMALLOC + number for number in range(30)])
    happened = np.zeros(600, EVENT)
    happened["position"] = np.sort(rng.integers(0, 3000, 600))
    happened["kind"], happened["cpu"] = UNMAP, -1
    happened["start"] = (VMALLOC + rng.integers(0, 30, 600).astype(np.uint64)) << np.uint64(12)
    happened["end"] = happened["start"] + np.uint64(4096)
    trace = from_pages("holes", mapped.page.astype(np.uint64), zipf(30, 3000, 2), events=happened)
    hardware = machine(tlb(1, 8, 4, policy=policy), tlb(2, 16, 4, policy=policy), inclusion=inclusion)
    expected = agree(trace, mapped, hardware)
    assert expected["counts"]["entries_flushed"] > 300


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize("walkers", [1, 2, 4])
def test_waiting_for_walks_of_unequal_length(walkers: int, window: int) -> None:
    hardware = machine(
        tlb(1, 8),
        Cache(name="L1D", size_bytes=1024, ways=4, latency_cycles=2),
        walker=Walker(count=walkers, window_accesses=window),
        memory=20,
    )
    mapped = mapping([VMALLOC + 5 * number for number in range(100)])
    expected = agree(from_pages("zipf", mapped.page.astype(np.uint64), zipf(100, 3000, 3)), mapped, hardware)
    assert len(set(expected["cycles_of_walks"])) > 2


# ---------------------------------------------------------------- textbook machines, known inputs


TEXTBOOK = {"textbook-setassoc": textbook_setassoc(), "textbook-fullassoc": textbook_fullassoc()}


def pattern(name: str) -> tuple[list[int], Any]:
    """Distinct pages and page indices of 20,000 accesses."""
    rng = np.random.default_rng(7)
    spread = [VMALLOC + 5 * number for number in range(4096)]
    if name == "uniform":
        return spread, rng.integers(0, 4096, 20_000)
    if name == "zipf":
        return spread, zipf(4096, 20_000, 7)
    if name == "sequential":
        return spread, np.arange(20_000) // 3 % 4096
    if name == "chase":  # one cycle through all pages in random order
        return spread, np.tile(rng.permutation(2000), 10)
    # adversarial: more pages than ways, all in one set of L1, of the STLB and of the PDE cache
    same_set = [VMALLOC + 8 * 512 * number for number in range(14)] + [
        VMALLOC + 128 * n for n in range(1, 14)
    ]
    return same_set, np.concatenate([np.arange(20_000 - 7_000) % 27, rng.integers(0, 27, 7_000)])


@pytest.mark.parametrize("leaf", [12, 21])
@pytest.mark.parametrize("kind", ["uniform", "zipf", "sequential", "chase", "adversarial"])
@pytest.mark.parametrize("name", sorted(TEXTBOOK))
def test_textbook_machines_on_known_inputs(name: str, kind: str, leaf: int) -> None:
    pages, order = pattern(kind)
    mapped = mapping(pages, leaf)
    trace = from_pages(kind, mapped.page.astype(np.uint64), np.asarray(order, np.uint32))
    agree(trace, mapped, TEXTBOOK[name], fetches=False)
    path = Run(trace, mapped, TEXTBOOK[name], False, "walks-only", 1 << 20, True).path
    assert isinstance(path, FastPath)
    from_file, _, _ = by_engine(trace, mapped, load(name))
    from_words, _, _ = by_engine(trace, mapped, TEXTBOOK[name])
    assert from_file.counts == from_words.counts


# ---------------------------------------------------------------- presets


@pytest.mark.parametrize("name", names())
def test_presets(name: str) -> None:
    """Every preset on base leaves, PMD leaves and contiguous frames, in the full cache mode."""
    hardware = load(name)
    geometry = GEOMETRIES[hardware.geometry]
    base, pmd = geometry.base_shift - 12, geometry.leaf("PMD").shift
    start = geometry.vmalloc_start >> 12
    small = [start + (number << base) for number in range(400)]
    large = [start + (1 << 27) + (number << pmd - 12) for number in range(200)]
    mapped = mapping(
        small + large,
        [geometry.base_shift] * len(small) + [pmd] * len(large),
        contiguous=[geometry.base_shift + number // 8 % 4 for number in range(400)] + [pmd] * 200,
        geometry=geometry,
    )
    rng = np.random.default_rng(3)
    order = np.where(rng.random(3000) < 0.7, zipf(600, 3000, 1), rng.integers(0, 600, 3000))
    flags = rng.choice(np.array([0, 0, STORE, FETCH], np.uint8), 3000)
    offset = rng.integers(0, 4096, 3000).astype(np.uint16)
    trace = from_pages(
        "mixed", mapped.page.astype(np.uint64), order.astype(np.uint32), offset=offset, flags=flags
    )
    agree(trace, mapped, hardware, cache_mode="full")


# ---------------------------------------------------------------- real kernel traces

SHARED = OUTSIDE / "traces"
REAL = {
    "packaged": sample_path(),
    **{name: SHARED / name for name in ("gitdiff-small", "fdtable", "bpfhash")},
}
SLICE = 60_000


def first_records(whole: Trace, count: int) -> Trace:
    """The start of a trace, in memory."""
    chunk = next(whole.chunks("offset", "flags", "cpu", size=count))
    return from_pages(whole.name, whole.pages, chunk.page, offset=chunk.offset, flags=chunk.flags)


@pytest.mark.parametrize("mapping_name", ["recorded", "base", "pmd"])
@pytest.mark.parametrize("trace_name", sorted(REAL))
def test_textbook_machines_on_kernel_traces(trace_name: str, mapping_name: str) -> None:
    folder = REAL[trace_name]
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    whole = open_trace(folder)
    mapped = map_trace(whole.pages, read_layout(folder), mapping_name)
    for hardware in TEXTBOOK.values():
        agree(first_records(whole, SLICE), mapped, hardware, fetches=False)
