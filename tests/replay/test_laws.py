"""Laws that every replay obeys, whatever the machine: no expected figure is needed to see one broken."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagewalk.hardware.machine import Machine
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.engine import replay
from pagewalk.replay.result import Replay
from pagewalk.trace.trace import FETCH, Trace, from_pages
from strategies import VMALLOC, machine, machines, mapping, mappings, textbook_setassoc, tlb, traces

REPEATABLE = settings(
    derandomize=True, database=None, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck)
)
ORDERS = st.integers(0, 1 << 16).map(lambda seed: local_order(seed, 60, 1500))


def local_order(seed: int, pages: int, accesses: int) -> Any:
    """Page indices with some locality: a popular few, short loops, jumps."""
    rng = np.random.default_rng(seed)
    loops = np.arange(accesses) % rng.integers(2, pages)
    popular = rng.zipf(1.4, accesses) % pages
    return np.where(np.arange(accesses) // 50 % 3 == 0, loops, popular).astype(np.uint32)


def trace_of(mapped: Mapping, order: Any) -> Trace:
    return from_pages("law", mapped.page.astype(np.uint64), order)


def misses(hardware: Machine, mapped: Mapping, order: Any) -> tuple[Sequence[int], Sequence[int], Replay]:
    """Positions of L1 and STLB misses, and the rest."""
    at: list[Any] = []
    found = replay(trace_of(mapped, order), mapped, hardware, on_misses=lambda *both: at.append(both))
    l1, stlb = (np.concatenate(level).tolist() for level in zip(*at, strict=True))
    return l1, stlb, found


def nearby(number: int = 60) -> list[int]:
    return [VMALLOC + n for n in range(number)]


def untimed(found: Replay) -> Replay:
    return msgspec.structs.replace(found, seconds={})


# ---------------------------------------------------------------- larger is not worse, under LRU


@given(ORDERS, st.integers(1, 12), st.sampled_from([1, 2, 8]))
@REPEATABLE
def test_more_ways_miss_a_subset(order: Any, ways: int, sets: int) -> None:
    """LRU inclusion: with one way more in each set, every miss was a miss before."""
    fewer, _, _ = misses(machine(tlb(1, sets * ways, ways)), mapping(nearby()), order)
    more, _, _ = misses(machine(tlb(1, sets * (ways + 1), ways + 1)), mapping(nearby()), order)
    assert set(more) <= set(fewer)


@given(ORDERS, st.integers(1, 32))
@REPEATABLE
def test_doubling_entries_never_hurts(order: Any, entries: int) -> None:
    single, single_walks, _ = misses(machine(tlb(1, 4), tlb(2, entries)), mapping(nearby()), order)
    double, double_walks, _ = misses(machine(tlb(1, 4), tlb(2, 2 * entries)), mapping(nearby()), order)
    assert single == double
    assert set(double_walks) <= set(single_walks)


@given(ORDERS, st.integers(1, 20))
@REPEATABLE
def test_larger_leaves_never_miss_more(order: Any, entries: int) -> None:
    """Fully associative LRU: pages of one 2M leaf, 4 pages each, against one entry for each page."""
    pages = [VMALLOC + 512 * (n // 4) + n % 4 for n in range(60)]
    small, _, _ = misses(machine(tlb(1, entries)), mapping(pages, 12), order)
    large, _, _ = misses(machine(tlb(1, entries)), mapping(pages, 21), order)
    assert set(large) <= set(small)


@given(ORDERS, st.integers(1, 40), st.sampled_from(["lru", "fifo", "random", "tree-plru", "nru", "srrip"]))
@REPEATABLE
def test_no_policy_beats_foresight_nor_the_floor(order: Any, entries: int, policy: str) -> None:
    """Belady's choice (drop what is needed last) misses least; every page misses once at least."""
    found, _, _ = misses(machine(tlb(1, entries, policy=policy)), mapping(nearby()), order)
    held: set[int] = set()
    needed = {page: np.flatnonzero(order == page).tolist() for page in set(order.tolist())}
    least = 0
    for page in order.tolist():
        needed[page].pop(0)
        if page not in held:
            least += 1
            if len(held) == entries:
                held.remove(max(held, key=lambda p: needed[p][0] if needed[p] else len(order)))
            held.add(page)
    assert len(set(order.tolist())) <= least <= len(found)


# ---------------------------------------------------------------- where and when do not matter


@given(st.data())
@REPEATABLE
def test_a_prefix_behaves_as_in_the_whole(data: st.DataObject) -> None:
    """Nothing looks ahead."""
    hardware = data.draw(machines())
    mapped, _ = data.draw(mappings())
    order = local_order(data.draw(st.integers(0, 999)), len(mapped.page) + 3, 400) % len(mapped.page)
    cut = data.draw(st.integers(1, 400))
    l1, stlb, whole = misses(hardware, mapped, order)
    first_l1, first_stlb, first = misses(hardware, mapped, order[:cut])
    assert first_l1 == [position for position in l1 if position < cut]
    assert first_stlb == [position for position in stlb if position < cut]
    assert all(first.counts.get(name, 0) <= count for name, count in whole.counts.items())
    assert first.cycles["walk"] <= whole.cycles["walk"]


@given(st.data())
@REPEATABLE
def test_chunks_change_nothing(data: st.DataObject) -> None:
    """Not one figure of the result, whatever the size of a chunk."""
    hardware = data.draw(machines(cpus=2))
    mapped, spaces = data.draw(mappings(with_spaces=True))
    trace = data.draw(traces(mapped, spaces, cpus=2, with_events=True))
    mode = data.draw(st.sampled_from(["walks-only", "full"]))
    sizes = (1 << 20, data.draw(st.integers(1, 50)))
    whole, pieces = (replay(trace, mapped, hardware, cache_mode=mode, chunk=size) for size in sizes)
    assert untimed(whole) == untimed(pieces)


@given(st.data(), st.integers(-3, 3))
@REPEATABLE
def test_moving_everything_by_512_gib_changes_no_tlb(data: st.DataObject, steps: int) -> None:
    """Plain indices of up to 512 sets stay: 512 GiB is a multiple of every leaf size times 512."""
    pscs = textbook_setassoc().psc
    sets = data.draw(st.sampled_from([1, 2, 16, 128]))
    hardware = machine(tlb(1, 4 * sets, 4), tlb(2, 12 * sets, 12), *pscs[:2])
    mapped, _ = data.draw(mappings())
    where = mapped.page + (np.int64(steps) << 27) + (np.int64(4) << 27)
    moved = mapping(where.tolist(), mapped.leaf_shift.tolist(), contiguous=mapped.contiguous_shift.tolist())
    order = local_order(data.draw(st.integers(0, 999)), len(where) + 3, 500) % len(where)
    l1, stlb, here = misses(hardware, mapped, order)
    l1_there, stlb_there, there = misses(hardware, moved, order)
    assert (l1, stlb) == (l1_there, stlb_there)
    assert here.counts == there.counts


@given(ORDERS, st.integers(0, 1 << 16), st.integers(1, 40))
@REPEATABLE
def test_names_of_pages_do_not_matter_to_full_associativity(order: Any, seed: int, entries: int) -> None:
    """Any other distinct addresses, any policy: the same misses."""
    names = np.random.default_rng(seed).choice(1 << 30, 60, replace=False)
    for policy in ("lru", "fifo", "random", "nru", "srrip"):
        hardware = machine(tlb(1, entries, policy=policy), tlb(2, 2 * entries, policy=policy))
        l1, stlb, _ = misses(hardware, mapping(nearby()), order)
        assert (l1, stlb) == misses(hardware, mapping(names.tolist()), order)[:2]


@given(ORDERS, st.integers(1, 40))
@REPEATABLE
def test_the_second_time_is_no_worse(order: Any, entries: int) -> None:
    """LRU from empty: the same accesses once more miss at most as often."""
    hardware = machine(tlb(1, entries), tlb(2, 2 * entries))
    both = misses(hardware, mapping(nearby()), np.concatenate([order, order]))[:2]
    for positions in both:
        first = sum(position < len(order) for position in positions)
        assert len(positions) - first <= first


# ---------------------------------------------------------------- figures that belong together


@given(st.data())
@REPEATABLE
def test_figures_add_up(data: st.DataObject) -> None:
    hardware = data.draw(machines(cpus=2))
    mapped, spaces = data.draw(mappings(with_spaces=True))
    trace = data.draw(traces(mapped, spaces, cpus=2, with_events=True))
    mode = data.draw(st.sampled_from(["walks-only", "full"]))
    found = replay(trace, mapped, hardware, cache_mode=mode, fetches=True)
    counts = found.counts
    l1_misses = counts["l1_dtlb_misses"] + counts["l1_itlb_misses"]
    assert counts["accesses"] == trace.accesses >= l1_misses
    assert l1_misses == counts["stlb_hits"] + counts["stlb_misses"]
    assert counts["walks"] == counts["stlb_misses"]
    by_refs = {int(name[14:]): n for name, n in counts.items() if name.startswith("walks_by_refs_")}
    assert sum(by_refs.values()) == counts["walks"]
    assert sum(refs * walks for refs, walks in by_refs.items()) == counts["walk_refs"]
    assert sum(found.walk_refs_in.values()) == counts["walk_refs"]
    start = hardware.walker.start_cycles * counts["walks"]
    assert sum(found.walk_cycles_by_level.values()) + start == found.cycles["walk"]
    for column, total in (
        ("accesses", counts["accesses"]), ("l1_misses", l1_misses), ("stlb_misses", counts["walks"]),
        ("walk_refs", counts["walk_refs"]), ("walk_cycles", found.cycles["walk"]),
    ):  # fmt: skip
        assert sum(getattr(region, column) for region in found.by_region) == total
    assert sum(found.windows.l1_misses) == l1_misses
    assert sum(found.windows.stlb_misses) == counts["walks"]
    assert sum(found.windows.walk_cycles) == found.cycles["walk"]
    data_accesses = sum(
        int(np.count_nonzero((chunk.flags & FETCH) == 0))
        for chunk in trace.chunks("flags")
        if chunk.flags is not None
    )
    for level, (name, each) in enumerate(found.caches.items()):
        reads = each["data_hits"] + each["data_misses"]
        if level == 0:
            assert reads == (data_accesses if found.cache_mode == "full" else 0)
        assert each["walk_hits"] == found.walk_refs_in[name]


@pytest.mark.parametrize("accesses", [0, 1])
def test_nothing_and_next_to_nothing(accesses: int) -> None:
    """No access: all counts 0. One: one walk."""
    mapped = mapping(nearby())
    found = replay(trace_of(mapped, np.zeros(accesses, np.uint32)), mapped, textbook_setassoc())
    assert [found.counts[name] for name in ("accesses", "l1_dtlb_misses", "walks")] == [accesses] * 3
    assert found.counts["walk_refs"] == 4 * accesses
    assert found.cycles == {"walk": 400 * accesses, "stlb_hit": 0, "flush": 0, "exposed": 400 * accesses}


def test_one_large_page_walks_once() -> None:
    pages = [VMALLOC + n for n in range(512)]
    order = np.random.default_rng(0).integers(0, 512, 5000).astype(np.uint32)
    _, _, large = misses(textbook_setassoc(), mapping(pages, 21), order)
    _, _, small = misses(textbook_setassoc(), mapping(pages, 12), order)
    assert (large.counts["walks"], small.counts["walks"]) == (1, 512)
